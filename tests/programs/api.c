/*
 * What the driver API answers where nothing is computed: wrong arguments, questions about objects, images that do not load.
 */
#include "exercise.h"

static void errors(void)
{
    static const struct {
        CUresult code;
        const char *name, *sentence;
    } known[] = {
        {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
        {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
        {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
        {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
        {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
        {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
        {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
        {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
        {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
        {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
    };
    const char *text;
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        CHECK(cuGetErrorName(known[i].code, &text));
        EXPECT(!strcmp(text, known[i].name));
        CHECK(cuGetErrorString(known[i].code, &text));
        if (strcmp(text, known[i].sentence))
            FAIL("%s: %s", known[i].name, text);
    }
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuGetErrorName((CUresult)12345, &text));
    EXPECT(!text);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuGetErrorString((CUresult)12345, &text));
}

static void before_initialisation(void)
{
    int n;
    CUdeviceptr p;
    CUcontext c;
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&n));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc(&p, 4));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuCtxGetCurrent(&c));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuInit(1));
    CHECK(cuInit(0));
    CHECK(cuInit(0));
    CHECK(cuDriverGetVersion(&n));
    EXPECT(n == 13000);
    CHECK(cuDeviceGetCount(&n));
    EXPECT(n == 1);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuDeviceGetCount(0));
    ANSWERS(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&n, 1));
    ANSWERS(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&n, -1));
    CHECK(cuDeviceGet(&n, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuDeviceGetAttribute(&n, (CUdevice_attribute)100000, 0));
    ANSWERS(CUDA_ERROR_INVALID_DEVICE, cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 3));
    CHECK(cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0));
    EXPECT(n == 32);
}

static void contexts(void)
{
    CUcontext primary, made, other;
    CUdeviceptr p;
    CUstream s;
    unsigned flags;
    int active;
    CHECK(cuCtxGetCurrent(&other));
    EXPECT(!other);
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc(&p, 4));
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuStreamCreate(&s, 0));
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize());
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent((CUcontext)0x1234567));
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent(&other));
    CHECK(cuDevicePrimaryCtxGetState(0, &flags, &active));
    EXPECT(!active);
    CHECK(cuDevicePrimaryCtxRetain(&primary, 0));
    CHECK(cuDevicePrimaryCtxRetain(&other, 0));
    EXPECT(primary == other);
    CHECK(cuDevicePrimaryCtxGetState(0, &flags, &active));
    EXPECT(active);
    CHECK(cuDevicePrimaryCtxRelease(0));
    CHECK(cuCtxSetCurrent(primary));
#if CUDA_VERSION >= 13000
    CHECK(cuCtxCreate(&made, 0, 0, 0));
#else
    CHECK(cuCtxCreate(&made, 0, 0));
#endif
    CHECK(cuCtxGetCurrent(&other));
    EXPECT(other == made && made != primary);
    CHECK(cuMemAlloc(&p, 4));
    CHECK(cuCtxPopCurrent(&other));
    EXPECT(other == made);
    CHECK(cuCtxGetCurrent(&other));
    EXPECT(other == primary);
    CHECK(cuCtxDestroy(made));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemFree(p));
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent(made));
    ANSWERS(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(made));
    context = primary;
}

static void images(void)
{
    char log[2000] = {0};
    static const char broken[] = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry f() {\n  add.s32 %r1, ;\n}\n";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    CUmodule m = 0;
    CUfunction f;
    CUdeviceptr p;
    size_t size;
    ANSWERS(CUDA_ERROR_INVALID_PTX, cuModuleLoadDataEx(&m, broken, 2, options, values));
    if (!log[0] || memchr(log, 0, sizeof log) == 0)
        FAIL("no error log");
    ANSWERS(CUDA_ERROR_INVALID_PTX, cuModuleLoadData(&m, broken));
    ANSWERS(CUDA_ERROR_INVALID_IMAGE, cuModuleLoadData(&m, "this is no image"));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuModuleLoadData(&m, 0));
    ANSWERS(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad(&m, "/no/such/file"));
    CHECK(cuModuleLoadData(&module, kernels_ptx));
    ANSWERS(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&f, module, "no_such_kernel"));
    ANSWERS(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal(&p, &size, module, "no_such_variable"));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuModuleGetFunction(&f, (CUmodule)0x1234560, "poke"));
    CHECK(cuModuleGetGlobal(&p, &size, module, "counter"));
    EXPECT(size == 4);
    int value;
    CHECK(cuMemcpyDtoH(&value, p, 4));
    EXPECT(value == 5);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemFree(p));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(log, p, 5));
    /* What goes with a module. */
    CHECK(cuModuleLoadData(&m, kernels_ptx));
    CHECK(cuModuleGetFunction(&f, m, "poke"));
    CHECK(cuModuleGetGlobal(&p, &size, m, "counter"));
    CHECK(cuModuleUnload(m));
    int n;
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload(m));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_NUM_REGS, f));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(&value, p, 4));
}

static void functions(void)
{
    CUfunction f = function("vector_add"), tiled = function("matmul_tiled"), reduce = function("reduce_sum");
    const char *name;
    size_t offset, size;
    int n, blocks;
    CUdeviceptr p = 0;
    CHECK(cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f));
    EXPECT(n == 1024);
    CHECK(cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, tiled));
    EXPECT(n == 2 * 16 * 16 * 4);
    CHECK(cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_NUM_REGS, f));
    EXPECT(n > 0 && n <= 255);
    CHECK(cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_BINARY_VERSION, f));
    EXPECT(n == 80);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuFuncGetAttribute(&n, (CUfunction_attribute)1000, f));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_NUM_REGS, (CUfunction)0x1234560));
    CHECK(cuFuncGetName(&name, f));
    EXPECT(!strcmp(name, "vector_add"));
    static const size_t sizes[] = {8, 8, 8, 4};
    for (int i = 0; i < 4; i++) {
        CHECK(cuFuncGetParamInfo(f, i, &offset, &size));
        EXPECT(offset == 8u * i && size == sizes[i]);
    }
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuFuncGetParamInfo(f, 4, &offset, &size));
    CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, f, 256, 0));
    EXPECT(blocks >= 1 && blocks <= 8);
    CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, f, 1024, 0));
    EXPECT(n >= 1 && n <= 2 && n <= blocks);

    void *params[] = {&p, &p, &p, &n};
    n = 0;
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 0, 1, 1, 1, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 1025, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 64, 64, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 70000, 1, 1, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 1 << 20, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuLaunchKernel(0, 1, 1, 1, 1, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuLaunchKernel((CUfunction)0x1234560, 1, 1, 1, 1, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, (CUstream)0x1234560, params, 0));
    CHECK(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, params, 0));
    CHECK(cuCtxSynchronize());

    /* More shared memory than a function may have unless it asks. */
    unsigned long long total = 0;
    int least = -1;
    CUdeviceptr in = to_device(&least, 4), dtotal = to_device(&total, 8), most = to_device(&least, 4);
    n = 1;
    void *sums[] = {&in, &dtotal, &most, &n};
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(reduce, 1, 1, 1, 32, 1, 1, 64 << 10, 0, sums, 0));
    CHECK(cuFuncSetAttribute(reduce, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 64 << 10));
    CHECK(cuLaunchKernel(reduce, 1, 1, 1, 32, 1, 1, 64 << 10, 0, sums, 0));
    CHECK(cuMemcpyDtoH(&total, dtotal, 8));
    EXPECT(total == ~0ull);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuFuncSetAttribute(reduce, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1 << 20));
}

static void streams_and_events(void)
{
    CUstream s, t;
    CUevent start, stop, plain;
    unsigned flags;
    int low, high, priority;
    float milliseconds = -1;
    CUcontext owner;
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuStreamCreate(0, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuStreamCreate(&s, 0x10));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuEventCreate(&start, 0x80));
    CHECK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    CHECK(cuStreamGetFlags(s, &flags));
    EXPECT(flags == CU_STREAM_NON_BLOCKING);
    CHECK(cuStreamGetCtx(s, &owner));
    EXPECT(owner == context);
    CHECK(cuCtxGetStreamPriorityRange(&low, &high));
    CHECK(cuStreamCreateWithPriority(&t, 0, high - 100));
    CHECK(cuStreamGetPriority(t, &priority));
    EXPECT(priority == high);
    CHECK(cuStreamQuery(s));
    CHECK(cuEventCreate(&start, 0));
    CHECK(cuEventCreate(&stop, 0));
    CHECK(cuEventCreate(&plain, CU_EVENT_DISABLE_TIMING));
    /* An event that was never recorded is complete, but has no time. */
    CHECK(cuEventQuery(start));
    CHECK(cuEventSynchronize(start));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, start, stop));
    CHECK(cuEventRecord(start, s));
    CHECK(cuEventRecord(stop, s));
    CHECK(cuEventRecord(plain, s));
    CHECK(cuEventSynchronize(plain));
    CHECK(cuEventElapsedTime(&milliseconds, start, stop));
    EXPECT(milliseconds >= 0 && milliseconds < 60000);
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, start, plain));
    CHECK(cuStreamDestroy(s));
    CHECK(cuEventDestroy(plain));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(s));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuStreamDestroy(s));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(plain, t));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy(plain));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuStreamWaitEvent(t, plain, 0));
    /* Another kind of object's handle. */
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuEventRecord((CUevent)t, t));
    ANSWERS(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize((CUstream)start));
    CHECK(cuStreamDestroy(t));
}

/* As NCCL finds out whether there is host memory of this kind: it must be told how much to ask for, and then not get it. */
static void physical_host_memory(void)
{
/* Older headers have no names for it. */
#if CUDA_VERSION >= 12090
    CUmemAllocationProp prop;
    CUmemGenericAllocationHandle handle;
    size_t granularity = 0;
    int node = 0, supported = 1;
    CHECK(cuDeviceGetAttribute(&node, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, 0));
    CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0));
    EXPECT(!supported);
    memset(&prop, 0, sizeof prop);
    prop.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
    prop.location.id = node < 0 ? 0 : node;
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    CHECK(cuMemGetAllocationGranularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    EXPECT(granularity >= 4096);
    ANSWERS(CUDA_ERROR_NOT_SUPPORTED, cuMemCreate(&handle, granularity, &prop, 0));
#endif
}

static void memory(void)
{
    CUdeviceptr p, base;
    size_t size, free_before, free_then, total;
    char byte;
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(0, 4));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(&p, 0));
    ANSWERS(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&p, (size_t)1 << 50));
    CHECK(cuMemFree(0));
    CHECK(cuMemGetInfo(&free_before, &total));
    CHECK(cuMemAlloc(&p, 10 << 20));
    CHECK(cuMemGetInfo(&free_then, &total));
    EXPECT(free_then + (10 << 20) <= free_before && free_before <= total);
    EXPECT(p % 256 == 0);
    CHECK(cuMemGetAddressRange(&base, &size, p + 12345));
    EXPECT(base == p && size == 10 << 20);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(p, 0, 4));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(0, p, 4));
    CHECK(cuMemcpyHtoD(p, &byte, 0));
    CHECK(cuMemFree(p));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemFree(p));
    ANSWERS(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange(&base, &size, p));
    CHECK(cuMemGetInfo(&free_then, &total));
    EXPECT(free_then == free_before);
}

int main(void)
{
    void *f = 0;
    CUdriverProcAddressQueryResult status;
    alarm(60);
    errors();
    before_initialisation();
    contexts();
    images();
    functions();
    streams_and_events();
    memory();
    physical_host_memory();
    CHECK(cuGetProcAddress("cuMemAlloc", &f, 12000, 0, &status));
    EXPECT(f == (void *)cuMemAlloc && status == CU_GET_PROC_ADDRESS_SUCCESS);
    cuGetProcAddress("cuNoSuchFunction", &f, 12000, 0, &status);
    EXPECT(!f && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    /* A call that is not carried says so. */
    ANSWERS(CUDA_ERROR_NOT_SUPPORTED,
            cuFlushGPUDirectRDMAWrites(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER));
    CHECK(cuCtxSynchronize());
    printf("api: right\n");
    return 0;
}
