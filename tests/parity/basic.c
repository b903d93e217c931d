/*
 * Devices, images, functions, launches, tensor maps, entry points: what every program uses and no other file here is about.
 *
 * Images of other kinds than PTX are in the folder VGPU_IMAGES, made where there is nvcc (tests/gpu/runner/place.py); without them the
 * cases say so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "parity.h"

/* ---- Devices ---- */

CASE(versions)
{
    int version = 0;
    R(cuDriverGetVersion(&version));
    FACT("driver %d", version);
    R(cuDriverGetVersion(0));
    R(cuInit(0));
    R(cuInit(1));
}

CASE(devices)
{
    int count = 0, major = 0, minor = 0, access = -1;
    CUdevice d = -1;
    char name[256] = "", bus[32] = "", luid[8] = "";
    CUuuid uuid = {{0}};
    size_t total = 0, width = 0;
    unsigned mask = 0;
    R(cuDeviceGetCount(&count));
    FACT("count %d", count);
    R(cuDeviceGetCount(0));
    R(cuDeviceGet(&d, 0));
    R(cuDeviceGet(&d, count));
    R(cuDeviceGet(&d, -1));
    R(cuDeviceGetName(name, sizeof name, device));
    FACT("name %s", name);
    R(cuDeviceGetName(name, 5, device));
    FACT("cut short %s", name);
    R(cuDeviceGetName(name, 10, count));
    R(cuDeviceGetUuid(&uuid, device));
    FACT("uuid %016llx", (unsigned long long)parity_sum(&uuid, sizeof uuid));
    R(cuDeviceTotalMem(&total, device));
    FACT("total %zu", total);
    R(cuDeviceTotalMem(0, device));
    R(cuDeviceComputeCapability(&major, &minor, device));
    FACT("capability %d.%d", major, minor);
    R(cuDeviceGetPCIBusId(bus, sizeof bus, device));
    FACT("bus %s", bus);
    R(cuDeviceGetPCIBusId(bus, 4, device));
    R(cuDeviceGetPCIBusId(bus, sizeof bus, device));
    d = -1;
    R(cuDeviceGetByPCIBusId(&d, bus));
    FACT("by bus %d", d);
    R(cuDeviceGetByPCIBusId(&d, "0000:ff:1f.0"));
    R(cuDeviceGetByPCIBusId(&d, "nonsense"));
    R(cuDeviceGetLuid(luid, &mask, device));
    R(cuDeviceCanAccessPeer(&access, device, device));
    FACT("access to itself %d", access);
    R(cuDeviceCanAccessPeer(&access, device, count));
    R(cuDeviceGetTexture1DLinearMaxWidth(&width, CU_AD_FORMAT_FLOAT, 1, device));
    FACT("width %zu", width);
    int value = -1;
    R(cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, device, device));
    R(cuDeviceGetExecAffinitySupport(&value, CU_EXEC_AFFINITY_TYPE_SM_COUNT, device));
    FACT("affinity %d", value);
    R(cuDeviceGetExecAffinitySupport(&value, (CUexecAffinityType)7, device));
}

CASE(device_attributes)
{
    int value;
    for (int a = 0; a <= 150; a++) {
        value = -12345;
        CUresult r = cuDeviceGetAttribute(&value, (CUdevice_attribute)a, device);
        FACT("%d: %d %d", a, (int)r, value);
    }
    R(cuDeviceGetAttribute(0, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device));
    R(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 99));
    R(cuDeviceGetAttribute(&value, (CUdevice_attribute)-1, device));
}

CASE(device_properties)
{
    CUdevprop p;
    memset(&p, 0, sizeof p);
    NEED(cuDeviceGetProperties(&p, device));
    FACT("threads %d, dimensions %d %d %d, grid %d %d %d", p.maxThreadsPerBlock, p.maxThreadsDim[0], p.maxThreadsDim[1],
        p.maxThreadsDim[2], p.maxGridSize[0], p.maxGridSize[1], p.maxGridSize[2]);
    FACT("shared %d, constant %d, width %d, pitch %d, registers %d, clock %d, alignment %d", p.sharedMemPerBlock, p.totalConstantMemory,
        p.SIMDWidth, p.memPitch, p.regsPerBlock, p.clockRate, p.textureAlign);
    R(cuDeviceGetProperties(0, device));
    R(cuDeviceGetProperties(&p, 99));
}

CASE(error_names)
{
    for (int e = 0; e <= 1000; e++) {
        const char *name = "unset", *text = "unset";
        CUresult a = cuGetErrorName((CUresult)e, &name), b = cuGetErrorString((CUresult)e, &text);
        if (a == CUDA_SUCCESS || b == CUDA_SUCCESS || e == 3000)
            FACT("%d: %d %s, %d %s", e, (int)a, name ? name : "NULL", (int)b, text ? text : "NULL");
        else if (e % 100 == 99)
            FACT("%d: %d %s, %d %s", e, (int)a, name ? "a name" : "NULL", (int)b, text ? "a text" : "NULL");
    }
}

/* ---- Entry points ---- */

static void entry(const char *name, int version, cuuint64_t flags)
{
    static const char *const suffixes[] = {"", "_v2", "_v3", "_v4", "_ptsz", "_v2_ptsz", "_v3_ptsz", "_ptds", "_v2_ptds"};
    CUdriverProcAddressQueryResult status = (CUdriverProcAddressQueryResult)77;
    void *f = (void *)1;
    CUresult r = cuGetProcAddress(name, &f, version, flags, &status);
    char symbols[200] = "", full[100];
    if (r == CUDA_SUCCESS && f)
        for (unsigned i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
            snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
            if (dlsym(RTLD_DEFAULT, full) == f)
                snprintf(symbols + strlen(symbols), sizeof symbols - strlen(symbols), " %s", full);
        }
    FACT("%s %d %llu: %d %d %s%s", name, version, (unsigned long long)flags, (int)r, (int)status, !f ? "NULL" : f == (void *)1 ? "untouched" : "there",
        symbols);
}

CASE(cuGetProcAddress)
{
    static const char *const names[] = {
        "cuInit", "cuDeviceGet", "cuDeviceTotalMem", "cuDeviceGetUuid", "cuCtxCreate", "cuCtxDestroy", "cuCtxPushCurrent", "cuCtxPopCurrent",
        "cuCtxSynchronize", "cuMemAlloc", "cuMemFree", "cuMemcpyHtoD", "cuMemcpyDtoHAsync", "cuMemcpy", "cuMemcpyAsync", "cuMemcpy3D",
        "cuMemcpyBatchAsync", "cuMemsetD8", "cuMemsetD32Async", "cuMemHostRegister", "cuMemHostGetDevicePointer", "cuMemGetAddressRange",
        "cuMemGetInfo", "cuMemAllocAsync", "cuMemPoolCreate", "cuMemAdvise", "cuMemPrefetchAsync", "cuPointerGetAttribute", "cuStreamCreate",
        "cuStreamDestroy", "cuStreamSynchronize", "cuStreamWaitEvent", "cuStreamBeginCapture", "cuStreamGetCaptureInfo", "cuStreamUpdateCaptureDependencies",
        "cuStreamWriteValue32", "cuStreamBatchMemOp", "cuStreamGetCtx", "cuEventRecord", "cuEventElapsedTime", "cuEventDestroy", "cuLaunchKernel",
        "cuLaunchKernelEx", "cuLaunchCooperativeKernel", "cuLaunchHostFunc", "cuGraphAddKernelNode", "cuGraphKernelNodeGetParams",
        "cuGraphAddDependencies", "cuGraphInstantiate", "cuGraphExecUpdate", "cuGraphLaunch", "cuGraphAddNode", "cuModuleGetGlobal", "cuModuleLoadData",
        "cuLibraryLoadData", "cuKernelGetFunction", "cuFuncGetParamInfo", "cuTensorMapEncodeTiled", "cuGetProcAddress", "cuGetExportTable",
        "cuDevicePrimaryCtxRelease", "cuDevicePrimaryCtxReset", "cuTexRefSetAddress2D", "cuIpcOpenMemHandle", "cuLinkCreate", "cuLogsRegisterCallback",
        "cuDeviceGetHostAtomicCapabilities", "cuCheckpointProcessLock", "cuGreenCtxCreate", "cuProfilerStart", "cuCoredumpGetAttribute",
    };
    static const int versions[] = {5050, 11040, 12000, 12080, 13000};
    for (unsigned n = 0; n < sizeof names / sizeof *names; n++)
        for (unsigned v = 0; v < sizeof versions / sizeof *versions; v++)
            for (cuuint64_t flags = 0; flags <= 2; flags++)
                entry(names[n], versions[v], flags);
    entry("cuNoSuchCall", 13000, 0);
    entry("", 13000, 0);
    entry("cuMemAlloc_v2", 13000, 0);
    entry("cuInit", 14000, 0);
    entry("cuInit", 0, 0);
    entry("cuInit", 13000, 8);
    void *f;
    R(cuGetProcAddress("cuInit", &f, 13000, 0, 0));
}

CASE(cuGetExportTable)
{
    const void *table = (void *)1;
    CUuuid none = {{1, 2, 3}};
    R(cuGetExportTable(&table, &none));
    FACT("%s", table ? "untouched" : "NULL");
    R(cuGetExportTable(0, &none));
}

/* ---- Images ---- */

static char *image(const char *name, size_t *size)
{
    char path[512];
    const char *folder = getenv("VGPU_IMAGES");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "/nonexistent", name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        FACT("%s was not made here", name);
        return 0;
    }
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = calloc(*size + 8, 1);
    if (fread(bytes, 1, *size, file) != *size)
        FACT("%s cannot be read", name);
    fclose(file);
    return bytes;
}

/* Whether the code of a module does what its source says. */
static void try_function(CUfunction f)
{
    enum { N = 1000 };
    int host[N], value = 5, n = N;
    CUdeviceptr p;
    if (cuMemAlloc(&p, sizeof host))
        return;
    for (int i = 0; i < N; i++)
        host[i] = i;
    cuMemcpyHtoD(p, host, sizeof host);
    void *arguments[] = {&p, &value, &n};
    CUresult r = cuLaunchKernel(f, 4, 1, 1, 256, 1, 1, 0, 0, arguments, 0);
    CUresult s = cuMemcpyDtoH(host, p, sizeof host);
    FACT("runs: %d %d, %d and %d", (int)r, (int)s, host[0], host[N - 1]);
    cuMemFree(p);
}

static void try_module(const void *bytes)
{
    CUmodule m;
    CUfunction f;
    unsigned count = 0;
    if (R(cuModuleLoadData(&m, bytes)))
        return;
    R(cuModuleGetFunctionCount(&count, m));
    FACT("functions %u", count);
    if (!R(cuModuleGetFunction(&f, m, "add_to_all")))
        try_function(f);
    R(cuModuleUnload(m));
}

static void try_image(const char *name)
{
    size_t size;
    char *bytes = image(name, &size), path[512];
    if (!bytes)
        return;
    FACT("%s", name);
    try_module(bytes);
    CUmodule m;
    if (!R(cuModuleLoadFatBinary(&m, bytes)))
        R(cuModuleUnload(m));
    snprintf(path, sizeof path, "%s/%s", getenv("VGPU_IMAGES"), name);
    CUresult r = cuModuleLoad(&m, path);
    FACT("from a file %d", (int)r);
    if (!r)
        R(cuModuleUnload(m));
    CUlibrary library;
    CUkernel kernel;
    if (!R(cuLibraryLoadData(&library, bytes, 0, 0, 0, 0, 0, 0))) {
        if (!R(cuLibraryGetKernel(&kernel, library, "add_to_all")))
            try_function((CUfunction)kernel);
        R(cuLibraryUnload(library));
    }
    r = cuLibraryLoadFromFile(&library, path, 0, 0, 0, 0, 0, 0);
    FACT("a library from a file %d", (int)r);
    if (!r)
        R(cuLibraryUnload(library));
    free(bytes);
}

CASE(image_ptx) { try_module(kernels_ptx); }
CASE(image_cubin) { try_image("kernels.cubin"); }
CASE(image_cubin_of_another_kind) { try_image("other.cubin"); }
CASE(image_fatbin) { try_image("one.fatbin"); }
CASE(image_fatbin_of_several) { try_image("several.fatbin"); }
CASE(image_fatbin_compressed) { try_image("compressed.fatbin"); }
CASE(image_fatbin_of_ptx) { try_image("ptx.fatbin"); }
CASE(image_fatbin_of_another_kind) { try_image("foreign.fatbin"); }
CASE(image_to_be_linked) { try_image("linkable.cubin"); }

CASE(image_wrong)
{
    static const char garbage[64] __attribute__((aligned(8))) = {'n', 'o', 'n', 's', 'e', 'n', 's', 'e', '\n'};
    static const char empty[8] __attribute__((aligned(8))) = "";
    static const char elf[64] __attribute__((aligned(8))) = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    CUmodule m;
    CUlibrary library;
    R(cuModuleLoadData(&m, garbage));
    R(cuModuleLoadData(&m, empty));
    R(cuModuleLoadData(&m, elf));
    R(cuModuleLoadData(&m, 0));
    R(cuModuleLoadData(0, kernels_ptx));
    R(cuModuleLoadData(&m, ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { no.such.instruction; }\n"));
    R(cuModuleLoadData(&m, ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { ret;\n"));
    R(cuModuleLoadData(&m, ".version 99.0\n.target sm_80\n.address_size 64\n.visible .entry f() { ret; }\n"));
    R(cuModuleLoadData(&m, ".version 8.0\n.target sm_999\n.address_size 64\n.visible .entry f() { ret; }\n"));
    R(cuModuleLoadData(&m, ".version 8.0\n.target sm_80\n.address_size 64\n.extern .func g();\n.visible .entry f() { call g; ret; }\n"));
    R(cuModuleLoad(&m, "/nonexistent/file.ptx"));
    R(cuModuleLoad(&m, 0));
    R(cuModuleLoadFatBinary(&m, garbage));
    R(cuLibraryLoadData(&library, garbage, 0, 0, 0, 0, 0, 0));
    R(cuLibraryLoadData(&library, 0, 0, 0, 0, 0, 0, 0));
    R(cuLibraryLoadFromFile(&library, "/nonexistent/file.ptx", 0, 0, 0, 0, 0, 0));
}

CASE(jit_options)
{
    CUmodule m;
    char info[4096] = "", error[4096] = "";
    static const char bad[] = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f()\n{\n    mov.u32 %r1, 5;\n    ret;\n}\n";
    CUjit_option logs[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {info, (void *)sizeof info, error, (void *)sizeof error};
    R(cuModuleLoadDataEx(&m, bad, 4, logs, values));
    FACT("error log, %zu bytes counted: %s", (size_t)values[3], error);
    FACT("info log, %zu bytes counted: %s", (size_t)values[1], info);
    memset(error, 'x', sizeof error);
    values[1] = (void *)sizeof info;
    values[3] = (void *)20;
    R(cuModuleLoadDataEx(&m, bad, 4, logs, values));
    FACT("cut short, %zu bytes counted: %.*s", (size_t)values[3], (int)strnlen(error, 20), error);
    FACT("and no more than that: %d", error[20] == 'x');
    CUjit_option options[] = {CU_JIT_MAX_REGISTERS, CU_JIT_OPTIMIZATION_LEVEL, CU_JIT_TARGET_FROM_CUCONTEXT, CU_JIT_GENERATE_LINE_INFO};
    void *with[] = {(void *)24, (void *)2, 0, (void *)1};
    if (!R(cuModuleLoadDataEx(&m, kernels_ptx, 4, options, with))) {
        CUfunction f;
        int registers = -1;
        R(cuModuleGetFunction(&f, m, "matmul_tiled"));
        R(cuFuncGetAttribute(&registers, CU_FUNC_ATTRIBUTE_NUM_REGS, f));
        FACT("registers %d", registers);
        R(cuModuleUnload(m));
    }
    CUjit_option time[] = {CU_JIT_WALL_TIME, CU_JIT_THREADS_PER_BLOCK};
    float milliseconds = -1;
    void *took[] = {0, (void *)128};
    if (!R(cuModuleLoadDataEx(&m, kernels_ptx, 2, time, took))) {
        memcpy(&milliseconds, &took[0], sizeof milliseconds);
        FACT("it took no less than nothing: %d, threads %d", milliseconds >= 0, (int)(size_t)took[1] > 0);
        R(cuModuleUnload(m));
    }
    CUjit_option unknown[] = {(CUjit_option)9999};
    void *zero[] = {0};
    if (!R(cuModuleLoadDataEx(&m, kernels_ptx, 1, unknown, zero)))
        R(cuModuleUnload(m));
    CUjit_option level[] = {CU_JIT_OPTIMIZATION_LEVEL};
    void *nine[] = {(void *)9};
    if (!R(cuModuleLoadDataEx(&m, kernels_ptx, 1, level, nine)))
        R(cuModuleUnload(m));
    if (!R(cuModuleLoadDataEx(&m, kernels_ptx, 0, 0, 0)))
        R(cuModuleUnload(m));
    R(cuModuleLoadDataEx(&m, kernels_ptx, 1, 0, 0));
}

CASE(cuModuleGetGlobal)
{
    CUdeviceptr p;
    size_t size;
    int value = -1, more[4], result[8];
    R(cuModuleGetGlobal(&p, &size, module, "counter"));
    FACT("size %zu", size);
    R(cuMemcpyDtoH(&value, p, 4));
    FACT("value %d", value);
    R(cuModuleGetGlobal(&p, &size, module, "factors"));
    FACT("size %zu", size);
    R(cuMemcpyDtoH(more, p, 16));
    FACT("values %d %d %d %d", more[0], more[1], more[2], more[3]);
    R(cuModuleGetGlobal(0, &size, module, "counter"));
    R(cuModuleGetGlobal(&p, 0, module, "counter"));
    R(cuModuleGetGlobal(0, 0, module, "counter"));
    R(cuModuleGetGlobal(&p, &size, module, "nothing"));
    R(cuModuleGetGlobal(&p, &size, module, "add_to_all"));
    R(cuModuleGetGlobal(&p, &size, module, 0));
    R(cuModuleGetGlobal(&p, &size, module, "counter"));
    value = 11;
    R(cuMemcpyHtoD(p, &value, 4));
    CUdeviceptr out;
    NEED(cuMemAlloc(&out, sizeof result));
    void *arguments[] = {&out};
    R(cuLaunchKernel(function("use_variables"), 1, 1, 1, 8, 1, 1, 0, 0, arguments, 0));
    R(cuMemcpyDtoH(result, out, sizeof result));
    FACT("used %d %d %d %d", result[0], result[1], result[3], result[7]);
    value = 5;
    R(cuMemcpyHtoD(p, &value, 4));
    R(cuMemFree(out));
    R(cuMemFree(p));
    CUmoduleLoadingMode mode;
    R(cuModuleGetLoadingMode(&mode));
    FACT("mode %d", (int)mode);
}

static const char *const kernels[] = {"vector_add", "saxpy", "matmul_tiled", "reduce_sum", "add_to_all", "spin_until", "poke", "use_variables"};
enum { KERNELS = sizeof kernels / sizeof *kernels };

CASE(cuFuncGetAttribute)
{
    int value;
    for (int k = 0; k < KERNELS; k++)
        for (int a = 0; a <= 17; a++) {
            value = -12345;
            CUresult r = cuFuncGetAttribute(&value, (CUfunction_attribute)a, function(kernels[k]));
            FACT("%s %d: %d %d", kernels[k], a, (int)r, value);
        }
    R(cuFuncGetAttribute(0, CU_FUNC_ATTRIBUTE_NUM_REGS, function("saxpy")));
    R(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, 0));
}

CASE(cuFuncSetAttribute)
{
    static const int values[] = {-1, 0, 1, 2, 50, 100, 101, 1024, 49152, 65536, 232448, 232449, 1 << 30};
    CUmodule m;
    CUfunction f;
    NEED(cuModuleLoadData(&m, kernels_ptx));
    NEED(cuModuleGetFunction(&f, m, "reduce_sum"));
    for (int a = 0; a <= 17; a++)
        for (unsigned v = 0; v < sizeof values / sizeof *values; v++) {
            int now = -12345;
            CUresult r = cuFuncSetAttribute(f, (CUfunction_attribute)a, values[v]);
            cuFuncGetAttribute(&now, (CUfunction_attribute)a, f);
            FACT("%d to %d: %d, is %d", a, values[v], (int)r, now);
        }
    R(cuFuncSetAttribute(0, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1024));
    for (int config = 0; config <= 4; config++) {
        CUresult r = cuFuncSetCacheConfig(f, (CUfunc_cache)config);
        FACT("cache %d: %d", config, (int)r);
    }
    R(cuModuleUnload(m));
}

CASE(cuFuncGetParamInfo)
{
    for (int k = 0; k < KERNELS; k++)
        for (size_t i = 0; i < 6; i++) {
            size_t offset = 77, size = 77;
            CUresult r = cuFuncGetParamInfo(function(kernels[k]), i, &offset, &size);
            FACT("%s %zu: %d %zu %zu", kernels[k], i, (int)r, offset, size);
        }
    size_t offset;
    R(cuFuncGetParamInfo(function("saxpy"), 0, &offset, 0));
    R(cuFuncGetParamInfo(function("saxpy"), 0, 0, 0));
    R(cuFuncGetParamInfo(0, 0, &offset, 0));
}

CASE(function_names)
{
    const char *name = 0;
    CUmodule m = 0;
    CUfunction f;
    CUfunctionLoadingState state = (CUfunctionLoadingState)9;
    R(cuFuncGetName(&name, function("saxpy")));
    FACT("%s", name ? name : "NULL");
    R(cuFuncGetModule(&m, function("saxpy")));
    SAME(m, module);
    R(cuFuncLoad(function("saxpy")));
    R(cuFuncIsLoaded(&state, function("saxpy")));
    FACT("state %d", (int)state);
    R(cuModuleGetFunction(&f, module, "nothing"));
    R(cuModuleGetFunction(&f, module, ""));
    R(cuModuleGetFunction(&f, module, 0));
    R(cuModuleGetFunction(0, module, "saxpy"));
    R(cuFuncGetName(0, function("saxpy")));
    R(cuFuncGetModule(0, function("saxpy")));
}

CASE(libraries)
{
    CUlibrary library, again;
    CUkernel kernel;
    CUfunction f;
    CUmodule m;
    unsigned count = 0;
    const char *name = 0;
    CUdeviceptr p;
    size_t size = 0, offset;
    int value;
    NEED(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, 0, 0, 0));
    R(cuLibraryGetKernelCount(&count, library));
    FACT("kernels %u", count);
    NEED(cuLibraryGetKernel(&kernel, library, "saxpy"));
    R(cuKernelGetName(&name, kernel));
    FACT("%s", name ? name : "NULL");
    R(cuKernelGetLibrary(&again, kernel));
    SAME(again, library);
    R(cuKernelGetFunction(&f, kernel));
    R(cuLibraryGetModule(&m, library));
    R(cuModuleGetFunction(&f, m, "saxpy"));
    R(cuLibraryGetGlobal(&p, &size, library, "factors"));
    FACT("size %zu", size);
    R(cuLibraryGetGlobal(&p, &size, library, "nothing"));
    R(cuLibraryGetManaged(&p, &size, library, "nothing"));
    R(cuLibraryGetKernel(&kernel, library, "nothing"));
    R(cuLibraryGetKernel(&kernel, library, "add_to_all"));
    for (int a = 0; a <= 17; a++) {
        value = -12345;
        CUresult r = cuKernelGetAttribute(&value, (CUfunction_attribute)a, kernel, device);
        FACT("%d: %d %d", a, (int)r, value);
    }
    R(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, kernel, 99));
    R(cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 65536, kernel, device));
    R(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel, device));
    FACT("dynamic %d", value);
    R(cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_NUM_REGS, 3, kernel, device));
    R(cuKernelSetCacheConfig(kernel, CU_FUNC_CACHE_PREFER_L1, device));
    for (size_t i = 0; i < 4; i++) {
        CUresult r = cuKernelGetParamInfo(kernel, i, &offset, &size);
        FACT("parameter %zu: %d %zu %zu", i, (int)r, r ? 0 : offset, r ? 0 : size);
    }
    R(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, (CUfunction)kernel));
    try_function((CUfunction)kernel);
    R(cuKernelGetFunction(&f, kernel));
    try_function(f);
    R(cuLibraryUnload(library));
    CUlibraryOption option[] = {CU_LIBRARY_BINARY_IS_PRESERVED};
    void *values[] = {(void *)1};
    if (!R(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, option, values, 1)))
        R(cuLibraryUnload(library));
}

/* ---- Launches ---- */

CASE(launch_limits)
{
    CUdeviceptr p;
    int value = 1, n = 4;
    CUfunction f = function("add_to_all");
    NEED(cuMemAlloc(&p, 64));
    R(cuMemsetD8(p, 0, 64));
    void *arguments[] = {&p, &value, &n};
    static const unsigned shapes[][7] = {
        {1, 1, 1, 4, 1, 1, 0}, {0, 1, 1, 4, 1, 1, 0}, {1, 0, 1, 4, 1, 1, 0}, {1, 1, 0, 4, 1, 1, 0}, {1, 1, 1, 0, 1, 1, 0}, {1, 1, 1, 1, 0, 1, 0},
        {1, 1, 1, 1025, 1, 1, 0}, {1, 1, 1, 1024, 1, 1, 0}, {1, 1, 1, 32, 33, 1, 0}, {1, 1, 1, 1, 1, 65, 0}, {1, 1, 1, 1, 1, 64, 0},
        {1, 65536, 1, 1, 1, 1, 0}, {1, 1, 65536, 1, 1, 1, 0}, {2147483648u, 1, 1, 1, 1, 1, 0}, {1, 1, 1, 4, 1, 1, 49152}, {1, 1, 1, 4, 1, 1, 49153},
        {1, 1, 1, 4, 1, 1, 4294967295u},
    };
    for (unsigned s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const unsigned *x = shapes[s];
        CUresult r = cuLaunchKernel(f, x[0], x[1], x[2], x[3], x[4], x[5], x[6], 0, arguments, 0);
        FACT("%u %u %u, %u %u %u, %u: %d", x[0], x[1], x[2], x[3], x[4], x[5], x[6], (int)r);
    }
    R(cuLaunchKernel(0, 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0));
    struct { CUdeviceptr p; int value, n; } packed = {p, 100, 4};
    size_t size = sizeof packed, less = 12, more = 200;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    R(cuLaunchKernel(f, 1, 1, 1, 4, 1, 1, 0, 0, 0, extra));
    R(cuLaunchKernel(f, 1, 1, 1, 4, 1, 1, 0, 0, arguments, extra));
    char big[200] = {0};
    memcpy(big, &packed, sizeof packed);
    void *too_much[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, big, CU_LAUNCH_PARAM_BUFFER_SIZE, &more, CU_LAUNCH_PARAM_END};
    R(cuLaunchKernel(f, 1, 1, 1, 4, 1, 1, 0, 0, 0, too_much));
    (void)less;
    R(cuCtxSynchronize());
    int host[4];
    R(cuMemcpyDtoH(host, p, sizeof host));
    FACT("%d %d %d %d", host[0], host[1], host[2], host[3]);
    R(cuLaunchCooperativeKernel(f, 1, 1, 1, 4, 1, 1, 0, 0, arguments));
    R(cuLaunchCooperativeKernel(f, 100000, 1, 1, 1024, 1, 1, 0, 0, arguments));
    R(cuCtxSynchronize());
    R(cuMemFree(p));
}

static CUresult launch_with(CUlaunchAttribute *attributes, unsigned count, unsigned blocks, CUstream stream, void **arguments)
{
    CUlaunchConfig c;
    memset(&c, 0, sizeof c);
    c.gridDimX = blocks;
    c.gridDimY = c.gridDimZ = c.blockDimY = c.blockDimZ = 1;
    c.blockDimX = 32;
    c.hStream = stream;
    c.attrs = attributes;
    c.numAttrs = count;
    return cuLaunchKernelEx(&c, function("add_to_all"), arguments, 0);
}

CASE(cuLaunchKernelEx)
{
    CUdeviceptr p;
    CUstream stream;
    CUevent event;
    int value = 1, n = 256, host[256];
    NEED(cuMemAlloc(&p, sizeof host));
    NEED(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    NEED(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    R(cuMemsetD8(p, 0, sizeof host));
    void *arguments[] = {&p, &value, &n};
    CUlaunchAttribute a[2];
    R(launch_with(0, 0, 8, stream, arguments));
    static const unsigned clusters[][3] = {{1, 1, 1}, {2, 1, 1}, {4, 1, 1}, {8, 1, 1}, {16, 1, 1}, {3, 1, 1}, {1, 2, 1}, {0, 1, 1}};
    for (unsigned i = 0; i < 8; i++) {
        memset(a, 0, sizeof a);
        a[0].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        a[0].value.clusterDim.x = clusters[i][0];
        a[0].value.clusterDim.y = clusters[i][1];
        a[0].value.clusterDim.z = clusters[i][2];
        CUresult r = launch_with(a, 1, 8, stream, arguments);
        FACT("cluster %u %u %u: %d", clusters[i][0], clusters[i][1], clusters[i][2], (int)r);
    }
    memset(a, 0, sizeof a);
    a[0].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
    a[0].value.cooperative = 1;
    R(launch_with(a, 1, 8, stream, arguments));
    R(launch_with(a, 1, 1000000, stream, arguments));
    a[0].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    a[0].value.programmaticStreamSerializationAllowed = 1;
    R(launch_with(a, 1, 8, stream, arguments));
    a[0].id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
    a[0].value.priority = -1;
    R(launch_with(a, 1, 8, stream, arguments));
    a[0].id = CU_LAUNCH_ATTRIBUTE_IGNORE;
    R(launch_with(a, 1, 8, stream, arguments));
    memset(a, 0, sizeof a);
    a[0].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
    a[0].value.programmaticEvent.event = event;
    R(launch_with(a, 1, 8, stream, arguments));
    memset(a, 0, sizeof a);
    a[0].id = CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN;
    a[0].value.memSyncDomain = CU_LAUNCH_MEM_SYNC_DOMAIN_REMOTE;
    R(launch_with(a, 1, 8, stream, arguments));
    a[0].value.memSyncDomain = (CUlaunchMemSyncDomain)7;
    R(launch_with(a, 1, 8, stream, arguments));
    memset(a, 0, sizeof a);
    a[0].id = (CUlaunchAttributeID)99;
    R(launch_with(a, 1, 8, stream, arguments));
    R(cuStreamSynchronize(stream));
    R(cuMemcpyDtoH(host, p, sizeof host));
    FACT("%d launches came, the same everywhere: %d", host[0], host[255] == host[0]);
    R(cuLaunchKernelEx(0, function("add_to_all"), arguments, 0));
    R(cuEventDestroy(event));
    R(cuStreamDestroy(stream));
    R(cuMemFree(p));
}

CASE(occupancy)
{
    int blocks, grid, block;
    size_t bytes;
    for (int k = 0; k < KERNELS; k++)
        for (int threads = 32; threads <= 1024; threads *= 4) {
            blocks = -1;
            CUresult r = cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function(kernels[k]), threads, 8192);
            FACT("%s %d: %d %d", kernels[k], threads, (int)r, blocks);
        }
    R(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function("saxpy"), 0, 0));
    R(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function("saxpy"), 2048, 0));
    FACT("%d", blocks);
    R(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function("saxpy"), 64, 1 << 20));
    FACT("%d", blocks);
    R(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, 0, 64, 0));
    R(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, function("saxpy"), 64, 0, CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE));
    R(cuOccupancyMaxPotentialBlockSize(&grid, &block, function("saxpy"), 0, 0, 0));
    FACT("grid %d block %d", grid, block);
    R(cuOccupancyMaxPotentialBlockSize(&grid, &block, function("reduce_sum"), 0, 4096, 128));
    FACT("grid %d block %d", grid, block);
    R(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, function("saxpy"), 2, 256));
    FACT("bytes %zu", bytes);
    CUlaunchConfig c;
    memset(&c, 0, sizeof c);
    c.gridDimX = 64;
    c.gridDimY = c.gridDimZ = c.blockDimY = c.blockDimZ = 1;
    c.blockDimX = 128;
    CUlaunchAttribute a;
    memset(&a, 0, sizeof a);
    a.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    a.value.clusterDim.x = 2;
    a.value.clusterDim.y = a.value.clusterDim.z = 1;
    c.attrs = &a;
    c.numAttrs = 1;
    blocks = -1;
    R(cuOccupancyMaxActiveClusters(&blocks, function("saxpy"), &c));
    FACT("clusters %d", blocks);
}

/* ---- Tensor maps ---- */

/* Its bytes but for the address, which is the first word. */
static void tell_map(const CUtensorMap *map)
{
    FACT("map %016llx", (unsigned long long)parity_sum((const char *)map + 8, sizeof *map - 8));
}

CASE(cuTensorMapEncodeTiled)
{
    CUtensorMap map __attribute__((aligned(64)));
    CUdeviceptr p;
    cuuint64_t sizes[5] = {256, 128, 4, 2, 2}, strides[4] = {1024, 131072, 524288, 1048576}, odd[4] = {1000, 131072, 524288, 1048576};
    cuuint32_t box[5] = {32, 16, 1, 1, 1}, steps[5] = {1, 1, 1, 1, 1}, wide[5] = {257, 16, 1, 1, 1}, none[5] = {0, 16, 1, 1, 1};
    NEED(cuMemAlloc(&p, 4 << 20));
    void *at = (void *)p;
#define ENCODE(type, rank, where, dims, str, b, es, inter, swizzle, promotion, fill) do { \
    memset(&map, 0, sizeof map); \
    if (!R(cuTensorMapEncodeTiled(&map, type, rank, where, dims, str, b, es, inter, swizzle, promotion, fill))) \
        tell_map(&map); \
} while (0)
    for (unsigned rank = 0; rank <= 6; rank++)
        ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, at, sizes, strides, box, steps, 0, 0, 0, 0);
    for (int type = 0; type <= 13; type++)
        ENCODE((CUtensorMapDataType)type, 2, at, sizes, strides, box, steps, 0, 0, 0, 0);
    for (int swizzle = 0; swizzle <= 5; swizzle++)
        ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, at, sizes, strides, box, steps, 0, (CUtensorMapSwizzle)swizzle, 0, 0);
    for (int promotion = 0; promotion <= 4; promotion++)
        ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, at, sizes, strides, box, steps, 0, 0, (CUtensorMapL2promotion)promotion, 0);
    for (int inter = 0; inter <= 3; inter++)
        ENCODE(CU_TENSOR_MAP_DATA_TYPE_UINT8, 3, at, sizes, strides, box, steps, (CUtensorMapInterleave)inter, 0, 0, 0);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at, sizes, strides, box, steps, 0, 0, 0, CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_INT32, 2, at, sizes, strides, box, steps, 0, 0, 0, CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at, sizes, odd, box, steps, 0, 0, 0, 0);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at, sizes, strides, wide, steps, 0, 0, 0, 0);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at, sizes, strides, none, steps, 0, 0, 0, 0);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, (char *)at + 4, sizes, strides, box, steps, 0, 0, 0, 0);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, (char *)at + 16, sizes, strides, box, steps, 0, 0, 0, 0);
    ENCODE(CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at, 0, strides, box, steps, 0, 0, 0, 0);
    memset(&map, 0, sizeof map);
    R(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, at, sizes, strides, box, steps, 0, 0, 0, 0));
    R(cuTensorMapReplaceAddress(&map, (char *)at + 4096));
    tell_map(&map);
    R(cuTensorMapReplaceAddress(&map, (char *)at + 8));
    R(cuMemFree(p));
}

CASE(cuTensorMapEncodeIm2col)
{
    CUtensorMap map __attribute__((aligned(64)));
    CUdeviceptr p;
    cuuint64_t sizes[5] = {64, 32, 16, 4, 2}, strides[4] = {128, 4096, 65536, 262144};
    cuuint32_t steps[5] = {1, 1, 1, 1, 1};
    int lower[3] = {-1, -1, -1}, upper[3] = {-1, -1, -1};
    NEED(cuMemAlloc(&p, 4 << 20));
    void *at = (void *)p;
    for (unsigned rank = 2; rank <= 5; rank++) {
        memset(&map, 0, sizeof map);
        CUresult r = cuTensorMapEncodeIm2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, at, sizes, strides, lower, upper, 64, 64, steps, 0, 0, 0, 0);
        FACT("rank %u: %d", rank, (int)r);
        if (!r)
            tell_map(&map);
    }
    R(cuTensorMapEncodeIm2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, at, sizes, strides, lower, upper, 257, 64, steps, 0, 0, 0, 0));
    R(cuTensorMapEncodeIm2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, at, sizes, strides, lower, upper, 64, 1025, steps, 0, 0, 0, 0));
    R(cuMemFree(p));
}

/* ---- Faults ---- */

LONELY(fault_of_a_kernel)
{
    CUdeviceptr nowhere = 0x10, p;
    int value = 1;
    CUmodule m;
    CUcontext now = 0;
    void *arguments[] = {&nowhere, &value};
    R(cuLaunchKernel(function("poke"), 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0));
    R(cuCtxSynchronize());
    R(cuCtxSynchronize());
    R(cuMemAlloc(&p, 16));
    R(cuModuleLoadData(&m, kernels_ptx));
    R(cuLaunchKernel(function("poke"), 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0));
    R(cuCtxGetCurrent(&now));
    R(cuDevicePrimaryCtxReset(device));
    R(cuMemAlloc(&p, 16));
}

LONELY(fault_is_the_process_s_own)
{
    CUdeviceptr p;
    int value = 7, host = 0;
    NEED(cuMemAlloc(&p, 16));
    void *arguments[] = {&p, &value};
    R(cuLaunchKernel(function("poke"), 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0));
    R(cuMemcpyDtoH(&host, p, 4));
    FACT("%d", host);
}
