/* Launches by every interface, functions and their attributes, occupancy, lists of kernels, and the linker: one body per call
 * (parity.h). */
#include "parity.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static int *host;
static CUdeviceptr data;
enum { N = 256 };

/* N integers on the device, all of them `value`. */
static int begin(int value)
{
    host = malloc(N * sizeof *host);
    return cuMemAlloc(&data, N * sizeof *host) || cuMemsetD32(data, value, N) || cuCtxSynchronize();
}
static void say(const char *what)
{
    memset(host, 0xee, N * sizeof *host);
    if (cuMemcpyDtoH(host, data, N * sizeof *host) == CUDA_SUCCESS)
        FACT("%s: %d … %d, sum %llx", what, host[0], host[N - 1], (unsigned long long)parity_sum(host, N * sizeof *host));
}
static void end(void)
{
    cuMemFree(data);
    free(host);
}

CASE(cuLaunchKernel)
{
    CUfunction f = function("add_to_all");
    int value = 3, n = N;
    void *args[] = {&data, &value, &n};
    if (begin(1))
        return;
    R(cuLaunchKernel(f, 2, 1, 1, 128, 1, 1, 0, 0, args, 0));
    say("2 x 128");
    R(cuLaunchKernel(f, 1, 1, 1, 256, 1, 1, 1024, CU_STREAM_PER_THREAD, args, 0));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    say("1 x 256");
    R(cuLaunchKernel(f, 0, 1, 1, 128, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 0, 1, 128, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 0, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 65536, 1, 1, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 65536, 1, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 0x80000000u, 1, 1, 1, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 1025, 1, 1, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 65, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 32, 32, 2, 0, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 128, 1, 1, 48 << 10, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 128, 1, 1, (48 << 10) + 1, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 128, 1, 1, 1 << 20, 0, args, 0));
    R(cuLaunchKernel(f, 1, 1, 1, 128, 1, 1, 0, 0, 0, 0));
    R(cuLaunchKernel(0, 1, 1, 1, 128, 1, 1, 0, 0, args, 0));
    R(cuCtxSynchronize());
    end();
}

CASE(cuLaunchKernel_extra)
{
    CUfunction f = function("add_to_all");
    struct {
        CUdeviceptr data;
        int value, n;
    } params = {0, 5, N};
    size_t size = sizeof params;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &params, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    void *swapped[] = {CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_BUFFER_POINTER, &params, CU_LAUNCH_PARAM_END};
    void *args[] = {&params.data, &params.value, &params.n};
    if (begin(1))
        return;
    params.data = data;
    R(cuLaunchKernel(f, 1, 1, 1, N, 1, 1, 0, 0, 0, extra));
    say("extra");
    R(cuLaunchKernel(f, 1, 1, 1, N, 1, 1, 0, 0, 0, swapped));
    say("swapped");
    R(cuLaunchKernel(f, 1, 1, 1, N, 1, 1, 0, 0, args, extra));
    size = sizeof params + 64;
    R(cuLaunchKernel(f, 1, 1, 1, N, 1, 1, 0, 0, 0, extra));
    R(cuCtxSynchronize());
    say("end");
    end();
}

CASE(cuLaunchKernelEx)
{
    CUfunction f = function("add_to_all");
    int value = 7, n = N;
    void *args[] = {&data, &value, &n};
    CUlaunchAttribute attributes[2];
    CUlaunchConfig config;
    CUstream s;
    if (begin(1) || cuStreamCreate(&s, CU_STREAM_NON_BLOCKING))
        return;
    memset(&config, 0, sizeof config);
    config.gridDimX = config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = N;
    config.hStream = s;
    R(cuLaunchKernelEx(&config, f, args, 0));
    R(cuStreamSynchronize(s));
    say("none");
    memset(attributes, 0, sizeof attributes);
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
    attributes[0].value.priority = -1;
    attributes[1].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[1].value.programmaticStreamSerializationAllowed = 1;
    config.attrs = attributes;
    config.numAttrs = 2;
    R(cuLaunchKernelEx(&config, f, args, 0));
    R(cuStreamSynchronize(s));
    say("two");
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_IGNORE;
    config.numAttrs = 1;
    R(cuLaunchKernelEx(&config, f, args, 0));
    R(cuStreamSynchronize(s));
    say("ignored");
    R(cuLaunchKernelEx(0, f, args, 0));
    config.attrs = 0;
    R(cuLaunchKernelEx(&config, f, args, 0));
    config.numAttrs = 0;
    config.gridDimX = 0;
    R(cuLaunchKernelEx(&config, f, args, 0));
    R(cuStreamSynchronize(s));
    R(cuStreamDestroy(s));
    end();
}

CASE(cuLaunchCooperativeKernel)
{
    CUfunction f = function("add_to_all");
    int value = 2, n = N;
    void *args[] = {&data, &value, &n};
    CUDA_LAUNCH_PARAMS one;
    CUstream s;
    if (begin(1) || cuStreamCreate(&s, CU_STREAM_NON_BLOCKING))
        return;
    R(cuLaunchCooperativeKernel(f, 2, 1, 1, 128, 1, 1, 0, s, args));
    R(cuStreamSynchronize(s));
    say("cooperative");
    R(cuLaunchCooperativeKernel(f, 1 << 20, 1, 1, 1024, 1, 1, 0, s, args));
    R(cuLaunchCooperativeKernel(f, 1, 1, 1, 1025, 1, 1, 0, s, args));
    R(cuLaunchCooperativeKernel(0, 1, 1, 1, 1, 1, 1, 0, s, args));
    memset(&one, 0, sizeof one);
    one.function = f;
    one.gridDimX = 2;
    one.blockDimX = 128;
    one.gridDimY = one.gridDimZ = one.blockDimY = one.blockDimZ = 1;
    one.hStream = s;
    one.kernelParams = args;
    R(cuLaunchCooperativeKernelMultiDevice(&one, 1, 0));
    R(cuStreamSynchronize(s));
    say("on one of one device");
    R(cuLaunchCooperativeKernelMultiDevice(&one, 0, 0));
    R(cuLaunchCooperativeKernelMultiDevice(0, 1, 0));
    R(cuLaunchCooperativeKernelMultiDevice(&one, 1, 4));
    one.hStream = 0;
    R(cuLaunchCooperativeKernelMultiDevice(&one, 1, 0));
    R(cuCtxSynchronize());
    R(cuStreamDestroy(s));
    end();
}

CASE(cuLaunchGrid)
{
    CUfunction f = function("add_to_all");
    CUfunction saxpy = function("saxpy");
    CUdeviceptr y = 0;
    float got = 0;
    if (begin(1))
        return;
    R(cuFuncSetBlockShape(f, 128, 1, 1));
    R(cuFuncSetSharedSize(f, 16));
    R(cuParamSetv(f, 0, &data, sizeof data));
    R(cuParamSeti(f, 8, 4));
    R(cuParamSeti(f, 12, N));
    R(cuParamSetSize(f, 16));
    R(cuLaunchGrid(f, 2, 1));
    R(cuCtxSynchronize());
    say("grid of 2");
    R(cuLaunch(f));
    R(cuCtxSynchronize());
    say("one block");
    R(cuLaunchGridAsync(f, 1, 1, CU_STREAM_PER_THREAD));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    say("in a stream");
    R(cuLaunchGrid(f, 0, 1));
    R(cuLaunchGrid(f, 1, -1));
    R(cuFuncSetBlockShape(f, 0, 1, 1));
    R(cuFuncSetBlockShape(f, -1, 1, 1));
    R(cuFuncSetBlockShape(f, 1025, 1, 1));
    R(cuFuncSetBlockShape(f, 32, 32, 2));
    R(cuFuncSetBlockShape(0, 1, 1, 1));
    NEED(cuMemAlloc(&y, 4));
    R(cuMemsetD32(y, 0x3f800000, 1));
    R(cuFuncSetBlockShape(saxpy, 1, 1, 1));
    R(cuParamSetf(saxpy, 0, 2.0f));
    R(cuParamSetv(saxpy, 8, &y, 8));
    R(cuParamSetv(saxpy, 16, &y, 8));
    R(cuParamSeti(saxpy, 24, 1));
    R(cuParamSetSize(saxpy, 28));
    R(cuLaunch(saxpy));
    R(cuMemcpyDtoH(&got, y, 4));
    FACT("saxpy %g", got);
    R(cuMemFree(y));
    end();
}

CASE(cuFuncGetAttribute)
{
    const char *names[] = {"vector_add", "matmul_tiled", "reduce_sum"};
    for (unsigned int i = 0; i < 3; i++) {
        CUfunction f = function(names[i]);
        for (int attribute = -1; attribute < 20; attribute++) {
            int value = 77;
            CUresult got = cuFuncGetAttribute(&value, (CUfunction_attribute)attribute, f);
            FACT("%s: attribute %d: result %d, %d", names[i], attribute, got, value);
        }
    }
    R(cuFuncGetAttribute(0, CU_FUNC_ATTRIBUTE_NUM_REGS, function("vector_add")));
    int value;
    R(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, 0));
}

CASE(cuFuncSetAttribute)
{
    CUfunction f = function("reduce_sum");
    const struct {
        int number, value;
    } sets[] = {{8, 1024}, {8, 0}, {8, -1}, {8, 1 << 20}, {8, 232448}, {8, 232449}, {8, 98304}, {9, 50}, {9, -1}, {9, -2}, {9, 100},
                {9, 101}, {14, 1}, {14, 0}, {15, 1}, {15, 0}, {15, 9}, {0, 128}, {4, 32}, {10, 1}, {99, 1}};
    for (unsigned int i = 0; i < sizeof sets / sizeof *sets; i++) {
        int value = 77;
        CUresult set = cuFuncSetAttribute(f, (CUfunction_attribute)sets[i].number, sets[i].value);
        CUresult got = cuFuncGetAttribute(&value, (CUfunction_attribute)sets[i].number, f);
        FACT("attribute %d to %d: %d; then %d, %d", sets[i].number, sets[i].value, set, got, value);
    }
    R(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 49152));
    R(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, -1));
    for (int config = 0; config < 5; config++) {
        R(cuFuncSetCacheConfig(f, (CUfunc_cache)config));
        R(cuFuncSetSharedMemConfig(f, (CUsharedconfig)config));
    }
    R(cuFuncSetCacheConfig(f, CU_FUNC_CACHE_PREFER_NONE));
    R(cuFuncSetCacheConfig(0, CU_FUNC_CACHE_PREFER_NONE));
}

CASE(cuFuncGetName)
{
    CUfunction f = function("matmul_tiled");
    const char *name = 0;
    CUmodule m = 0;
    CUfunctionLoadingState state = (CUfunctionLoadingState)77;
    R(cuFuncGetName(&name, f));
    FACT("name %s", name ? name : "NULL");
    R(cuFuncGetName(0, f));
    R(cuFuncGetName(&name, 0));
    R(cuFuncGetModule(&m, f));
    SAME(m, module);
    R(cuFuncGetModule(0, f));
    R(cuFuncLoad(f));
    R(cuFuncIsLoaded(&state, f));
    FACT("state %d", (int)state);
    R(cuFuncIsLoaded(0, f));
    for (size_t i = 0; i < 5; i++) {
        size_t offset = 77, size = 77;
        CUresult got = cuFuncGetParamInfo(f, i, &offset, &size);
        FACT("parameter %zu: result %d, %zu, %zu", i, got, got ? 0 : offset, got ? 0 : size);
    }
    size_t offset;
    R(cuFuncGetParamInfo(f, 0, &offset, 0));
    R(cuFuncGetParamInfo(f, 0, 0, 0));
}

static size_t CUDA_CB shared_of(int block)
{
    return (size_t)block * 64;
}

CASE(cuOccupancyMaxPotentialBlockSize)
{
    const char *names[] = {"vector_add", "matmul_tiled", "reduce_sum"};
    for (unsigned int i = 0; i < 3; i++) {
        CUfunction f = function(names[i]);
        int grid = 77, block = 77;
        FACT("%s", names[i]);
        R(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, 0, 0, 0));
        FACT("grid %d, block %d", grid, block);
        R(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, 0, 0, 100));
        FACT("limit 100: grid %d, block %d", grid, block);
        R(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, 0, 40000, 0));
        FACT("40000 bytes: grid %d, block %d", grid, block);
        R(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, shared_of, 0, 0));
        FACT("64 bytes a thread: grid %d, block %d", grid, block);
        R(cuOccupancyMaxPotentialBlockSizeWithFlags(&grid, &block, f, shared_of, 0, 5000, CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE));
        FACT("flags 1: grid %d, block %d", grid, block);
        R(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, 0, 1 << 20, 0));
        FACT("too much shared memory: grid %d, block %d", grid, block);
    }
    int grid, block;
    CUfunction f = function("vector_add");
    R(cuOccupancyMaxPotentialBlockSizeWithFlags(&grid, &block, f, 0, 0, 0, 2));
    R(cuOccupancyMaxPotentialBlockSize(0, &block, f, 0, 0, 0));
    R(cuOccupancyMaxPotentialBlockSize(&grid, 0, f, 0, 0, 0));
    R(cuOccupancyMaxPotentialBlockSize(&grid, &block, 0, 0, 0, 0));
    R(cuOccupancyMaxPotentialBlockSize(&grid, &block, f, 0, 0, -1));
}

CASE(cuOccupancyMaxActiveBlocksPerMultiprocessor)
{
    CUfunction f = function("matmul_tiled");
    const int sizes[] = {-1, 0, 1, 32, 33, 256, 1024, 1025, 5000};
    for (unsigned int i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int blocks = 77;
        CUresult got = cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, sizes[i], 1000);
        FACT("%d threads: result %d, %d", sizes[i], got, got ? 0 : blocks);
    }
    int blocks = 77;
    size_t bytes = 77;
    R(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, 256, 1 << 20));
    FACT("blocks %d", blocks);
    R(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&blocks, f, 256, 0, 2));
    R(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, f, 2, 256));
    FACT("bytes %zu", bytes);
    R(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, f, 100, 256));
    R(cuOccupancyAvailableDynamicSMemPerBlock(&bytes, f, 0, 256));
}

CASE(cuOccupancyMaxPotentialClusterSize)
{
    CUfunction f = function("vector_add");
    CUlaunchConfig config;
    CUlaunchAttribute attribute;
    int size = 77, clusters = 77;
    memset(&config, 0, sizeof config);
    config.gridDimX = 16;
    config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = 128;
    R(cuOccupancyMaxPotentialClusterSize(&size, f, &config));
    FACT("size %d", size);
    config.sharedMemBytes = 40000;
    R(cuOccupancyMaxPotentialClusterSize(&size, f, &config));
    FACT("40000 bytes: size %d", size);
    config.sharedMemBytes = 0;
    R(cuOccupancyMaxPotentialClusterSize(0, f, &config));
    R(cuOccupancyMaxPotentialClusterSize(&size, 0, &config));
    R(cuOccupancyMaxPotentialClusterSize(&size, f, 0));
    memset(&attribute, 0, sizeof attribute);
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim.x = 4;
    attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    R(cuOccupancyMaxActiveClusters(&clusters, f, &config));
    FACT("clusters %d", clusters);
    R(cuOccupancyMaxActiveClusters(0, f, &config));
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

CASE(cuModuleEnumerateFunctions)
{
    unsigned int count = 0;
    CUfunction all[64] = {0}, again = 0;
    const char *names[64];
    NEED(cuModuleGetFunctionCount(&count, module));
    FACT("%u functions", count);
    R(cuModuleGetFunctionCount(0, module));
    if (count > 64)
        return;
    NEED(cuModuleEnumerateFunctions(all, count, module));
    for (unsigned int i = 0; i < count; i++)
        NEED(cuFuncGetName(names + i, all[i]));
    NEED(cuModuleGetFunction(&again, module, names[0]));
    SAME(again, all[0]);
    qsort(names, count, sizeof *names, by_name);
    for (unsigned int i = 0; i < count; i++)
        FACT("%s", names[i]);
    R(cuModuleEnumerateFunctions(all, 1, module));
    R(cuModuleEnumerateFunctions(all, 64, module));
    R(cuModuleEnumerateFunctions(all, 0, module));
    R(cuModuleEnumerateFunctions(0, 1, module));
    R(cuModuleEnumerateFunctions(all, 1, 0));
}

CASE(cuLibraryEnumerateKernels)
{
    CUlibrary library;
    unsigned int count = 0;
    CUkernel all[64] = {0}, again = 0;
    CUlibrary of = 0;
    CUfunction f = 0;
    CUmodule m = 0;
    const char *names[64];
    void *shared = 0;
    NEED(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, 0, 0, 0));
    NEED(cuLibraryGetKernelCount(&count, library));
    FACT("%u kernels", count);
    if (count > 64)
        return;
    NEED(cuLibraryEnumerateKernels(all, count, library));
    for (unsigned int i = 0; i < count; i++)
        NEED(cuKernelGetName(names + i, all[i]));
    const char *none = 0;
    R(cuKernelGetName(&none, 0));
    R(cuLibraryGetKernel(&again, library, names[0]));
    SAME(again, all[0]);
    qsort(names, count, sizeof *names, by_name);
    for (unsigned int i = 0; i < count; i++)
        FACT("%s", names[i]);
    R(cuKernelGetLibrary(&of, all[0]));
    SAME(of, library);
    R(cuKernelGetFunction(&f, all[0]));
    R(cuLibraryGetModule(&m, library));
    R(cuLibraryGetUnifiedFunction(&shared, library, "no_such_function"));
    R(cuLibraryEnumerateKernels(all, 1, library));
    R(cuLibraryEnumerateKernels(all, 64, library));
    R(cuLibraryEnumerateKernels(all, 0, library));
    R(cuLibraryEnumerateKernels(0, 1, library));
    R(cuLibraryUnload(library));
}

static const char linked_ptx[] = ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry store_seven(.param .u64 out) {\n .reg .b64 %rd<3>;\n .reg .b32 %r<2>;\n ld.param.u64 %rd1, [out];\n"
    " cvta.to.global.u64 %rd2, %rd1;\n mov.u32 %r1, 7;\n st.global.u32 [%rd2], %r1;\n ret;\n}\n";

CASE(cuLinkCreate)
{
    CUlinkState state;
    char info[2048] = "", error[2048] = "";
    void *image = 0;
    size_t size = 0;
    CUmodule m;
    CUfunction f;
    CUdeviceptr d;
    int got = 0;
    float ms = -1;
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER,
                              CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, CU_JIT_LOG_VERBOSE, CU_JIT_WALL_TIME};
    void *values[] = {info, (void *)sizeof info, error, (void *)sizeof error, (void *)1, 0};
    memcpy(&values[5], &ms, sizeof ms);
    NEED(cuLinkCreate(6, options, values, &state));
    R(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)linked_ptx, sizeof linked_ptx, "linked.ptx", 0, 0, 0));
    NEED(cuLinkComplete(state, &image, &size));
    FACT("image %s, size %s", image ? "given" : "NULL", size ? "given" : "0");
    NEED(cuModuleLoadData(&m, image));
    R(cuLinkDestroy(state));
    NEED(cuModuleGetFunction(&f, m, "store_seven"));
    NEED(cuMemAlloc(&d, 4));
    void *args[] = {&d};
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, args, 0));
    R(cuMemcpyDtoH(&got, d, 4));
    FACT("stored %d", got);
    R(cuMemFree(d));
    R(cuModuleUnload(m));
}

CASE(cuLinkAddData)
{
    CUlinkState state;
    char error[2048] = "";
    void *image = 0;
    size_t size = 0;
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {error, (void *)sizeof error};
    char bad[] = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { nonsense; }\n";
    R(cuLinkCreate(0, 0, 0, 0));
    NEED(cuLinkCreate(2, options, values, &state));
    R(cuLinkAddData(state, CU_JIT_INPUT_PTX, bad, sizeof bad, "bad.ptx", 0, 0, 0));
    FACT("log %s", error[0] ? "written" : "empty");
    R(cuLinkDestroy(state));
    NEED(cuLinkCreate(0, 0, 0, &state));
    R(cuLinkAddData(state, CU_JIT_INPUT_PTX, 0, 8, "none.ptx", 0, 0, 0));
    R(cuLinkAddData(state, (CUjitInputType)99, bad, sizeof bad, "bad.ptx", 0, 0, 0));
    R(cuLinkAddFile(state, CU_JIT_INPUT_PTX, "/no/such/file.ptx", 0, 0, 0));
    R(cuLinkAddFile(state, CU_JIT_INPUT_PTX, 0, 0, 0, 0));
    R(cuLinkComplete(state, 0, &size));
    R(cuLinkDestroy(state));
    NEED(cuLinkCreate(0, 0, 0, &state));
    R(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)linked_ptx, sizeof linked_ptx, 0, 0, 0, 0));
    R(cuLinkComplete(state, &image, 0));
    R(cuLinkDestroy(state));
}

CASE(cuLinkAddFile)
{
    CUlinkState state;
    void *image = 0;
    size_t size = 0;
    char path[] = "/tmp/parity-link-XXXXXX";
    int file = mkstemp(path);
    if (file < 0 || write(file, linked_ptx, sizeof linked_ptx - 1) != (ssize_t)sizeof linked_ptx - 1)
        return;
    close(file);
    CUjit_option option = CU_JIT_OPTIMIZATION_LEVEL;
    void *value = (void *)2;
    NEED(cuLinkCreate(1, &option, &value, &state));
    R(cuLinkAddFile(state, CU_JIT_INPUT_PTX, path, 0, 0, 0));
    R(cuLinkComplete(state, &image, &size));
    FACT("image %s", image && size ? "given" : "missing");
    R(cuLinkDestroy(state));
    unlink(path);
}

CASE(cuLinkComplete)
{
    /* Two texts, of which one calls the other. */
    static const char caller[] = ".version 8.0\n.target sm_80\n.address_size 64\n.extern .func (.param .b32 r) add_one (.param .b32 a);\n"
        ".visible .entry call_it(.param .u64 out) {\n .reg .b64 %rd<3>;\n .reg .b32 %r<3>;\n ld.param.u64 %rd1, [out];\n"
        " cvta.to.global.u64 %rd2, %rd1;\n mov.u32 %r1, 41;\n {\n .param .b32 p;\n .param .b32 q;\n st.param.b32 [p], %r1;\n"
        " call.uni (q), add_one, (p);\n ld.param.b32 %r2, [q];\n }\n st.global.u32 [%rd2], %r2;\n ret;\n}\n";
    static const char callee[] = ".version 8.0\n.target sm_80\n.address_size 64\n"
        ".visible .func (.param .b32 r) add_one (.param .b32 a) {\n .reg .b32 %r<3>;\n ld.param.b32 %r1, [a];\n"
        " add.s32 %r2, %r1, 1;\n st.param.b32 [r], %r2;\n ret;\n}\n";
    CUlinkState state;
    void *image = 0;
    size_t size = 0;
    CUmodule m;
    CUfunction f;
    CUdeviceptr d;
    int got = 0;
    NEED(cuLinkCreate(0, 0, 0, &state));
    NEED(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)caller, sizeof caller, "caller.ptx", 0, 0, 0));
    NEED(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)callee, sizeof callee, "callee.ptx", 0, 0, 0));
    NEED(cuLinkComplete(state, &image, &size));
    NEED(cuModuleLoadDataEx(&m, image, 0, 0, 0));
    R(cuLinkDestroy(state));
    NEED(cuModuleGetFunction(&f, m, "call_it"));
    NEED(cuMemAlloc(&d, 4));
    void *args[] = {&d};
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, args, 0));
    R(cuMemcpyDtoH(&got, d, 4));
    FACT("stored %d", got);
    R(cuMemFree(d));
    R(cuModuleUnload(m));
    NEED(cuLinkCreate(0, 0, 0, &state));
    R(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)caller, sizeof caller, "caller.ptx", 0, 0, 0));
    R(cuLinkComplete(state, &image, &size));
    R(cuLinkDestroy(state));
}

CASE(cuModuleGetLoadingMode)
{
    CUmoduleLoadingMode mode = (CUmoduleLoadingMode)77;
    R(cuModuleGetLoadingMode(&mode));
    FACT("mode %d", (int)mode);
}
