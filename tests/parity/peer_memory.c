/* Two devices: virtual memory, pools, memory of other processes, faults. */
#include "parity.h"

#define WORDS 1024
#define BYTES (WORDS * sizeof(int))

static CUdevice second;
static CUcontext other;
static CUmodule other_module;

static int two(void)
{
    int count = 0;
    if (other)
        return 1;
    if (cuDeviceGetCount(&count) || count < 2) {
        FACT("not run: one device");
        return 0;
    }
    if (cuDeviceGet(&second, 1) || cuDevicePrimaryCtxRetain(&other, second) || cuCtxSetCurrent(other) ||
        cuModuleLoadData(&other_module, kernels_ptx) || cuCtxSetCurrent(context)) {
        FACT("the second device has no context");
        other = 0;
        return 0;
    }
    return 1;
}
#define TWO() do { if (!two()) return; } while (0)

static void on(int which)
{
    cuCtxSetCurrent(which ? other : context);
}

static CUresult run(int which, const char *name, CUdeviceptr d, int value, CUstream stream)
{
    CUfunction f = 0;
    int n = WORDS;
    void *params[] = {&d, &value, &n};
    on(which);
    cuModuleGetFunction(&f, which ? other_module : module, name);
    return cuLaunchKernel(f, WORDS / 128, 1, 1, 128, 1, 1, 0, stream, params, 0);
}

static void all_are(const char *what, CUdeviceptr d, int value)
{
    static int words[WORDS];
    int right = 0;
    memset(words, 0xee, sizeof words);
    if (cuMemcpyDtoH(words, d, BYTES))
        FACT("%s: not read", what);
    while (right < WORDS && words[right] == value)
        right++;
    FACT("%s: %s", what, right == WORDS ? "right" : "wrong");
}

static CUmemAllocationProp on_device(int dev)
{
    CUmemAllocationProp prop;
    memset(&prop, 0, sizeof prop);
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = dev;
    return prop;
}

static CUmemAccessDesc access_of(int dev, CUmemAccess_flags flags)
{
    CUmemAccessDesc desc;
    memset(&desc, 0, sizeof desc);
    desc.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    desc.location.id = dev;
    desc.flags = flags;
    return desc;
}

static void access_is(CUdeviceptr d)
{
    for (int dev = 0; dev < 2; dev++) {
        CUmemLocation at = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = dev};
        unsigned long long flags = 99;
        R(cuMemGetAccess(&flags, &at, d));
        FACT("device %d: %llu", dev, flags);
    }
}

CASE(cuMemSetAccess_two)
{
    CUmemAllocationProp prop = on_device(1), found;
    CUmemGenericAllocationHandle h;
    CUmemAccessDesc desc[2];
    CUdeviceptr d = 0;
    CUdevice dev = -1;
    size_t size = 0;
    TWO();
    on(0);
    R(cuMemGetAllocationGranularity(&size, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
    FACT("%zu", size);
    NEED(cuMemCreate(&h, size, &prop, 0));
    R(cuMemGetAllocationPropertiesFromHandle(&found, h));
    FACT("of device %d", found.location.id);
    NEED(cuMemAddressReserve(&d, size, 0, 0, 0));
    NEED(cuMemMap(d, size, 0, h, 0));
    access_is(d);
    desc[0] = access_of(1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    NEED(cuMemSetAccess(d, size, desc, 1));
    access_is(d);
    on(1);
    R(cuMemsetD32(d, 3, WORDS));
    R(run(1, "add_to_all", d, 1, 0));
    all_are("its own device", d, 4);
    R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, d));
    FACT("memory of device %d", dev);
    on(0);
    desc[0] = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    NEED(cuMemSetAccess(d, size, desc, 1));
    access_is(d);
    R(run(0, "add_to_all", d, 2, 0));
    R(cuCtxSynchronize());
    all_are("the other device", d, 6);
    R(cuMemsetD32(d, 9, WORDS));
    all_are("filled by the other device", d, 9);
    on(1);
    R(run(1, "add_to_all", d, 1, 0));
    all_are("its own device still", d, 10);
    /* What one device is given is the other's no less. */
    desc[0] = access_of(1, CU_MEM_ACCESS_FLAGS_PROT_READ);
    R(cuMemSetAccess(d, size, desc, 1));
    access_is(d);
    on(0);
    R(cuMemsetD32(d, 11, WORDS));
    all_are("the other device may write", d, 11);
    desc[0] = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
    desc[1] = access_of(1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    R(cuMemSetAccess(d, size, desc, 2));
    access_is(d);
    on(1);
    all_are("both set at once", d, 11);
    desc[0] = access_of(99, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    R(cuMemSetAccess(d, size, desc, 1));
    R(cuMemUnmap(d, size));
    R(cuMemRelease(h));
    R(cuMemAddressFree(d, size));
    prop.location.id = 99;
    R(cuMemCreate(&h, size, &prop, 0));
}

/* What a copy does that is made for a device without access. */
LONELY(cuMemSetAccess_foreign)
{
    CUmemAllocationProp prop = on_device(1);
    CUmemGenericAllocationHandle h;
    CUmemAccessDesc desc = access_of(1, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUdeviceptr d = 0, own = 0;
    size_t size = 0;
    TWO();
    on(0);
    NEED(cuMemAlloc(&own, BYTES));
    NEED(cuMemGetAllocationGranularity(&size, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    NEED(cuMemCreate(&h, size, &prop, 0));
    NEED(cuMemAddressReserve(&d, size, 0, 0, 0));
    NEED(cuMemMap(d, size, 0, h, 0));
    NEED(cuMemSetAccess(d, size, &desc, 1));
    R(cuMemcpyDtoD(own, d, BYTES));
    R(cuCtxSynchronize());
    R(cuMemcpyDtoDAsync(d, own, BYTES, 0));
    R(cuCtxSynchronize());
    R(cuMemsetD32(d, 1, WORDS));
    R(cuCtxSynchronize());
}

CASE(cuMemPoolSetAccess_two)
{
    CUmemoryPool pool = 0, current = 0, made = 0;
    CUmemPoolProps props;
    CUmemAccessDesc desc = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUmemLocation at = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0};
    CUmemAccess_flags flags;
    CUstream s[2];
    CUdeviceptr d = 0, more = 0;
    CUdevice dev = -1;
    TWO();
    for (int i = 0; i < 2; i++) {
        on(i);
        NEED(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
    }
    NEED(cuDeviceGetDefaultMemPool(&pool, 1));
    R(cuDeviceGetMemPool(&current, 1));
    SAME(pool, current);
    R(cuDeviceGetDefaultMemPool(&current, 0));
    SAME(pool, current);
    R(cuDeviceSetMemPool(0, pool));
    on(0);
    NEED(cuMemAllocAsync(&d, BYTES, s[1]));
    R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, d));
    FACT("memory of device %d", dev);
    R(cuPointerGetAttribute(&current, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, d));
    SAME(pool, current);
    R(cuMemPoolGetAccess(&flags, pool, &at));
    FACT("device 0: %d", (int)flags);
    NEED(cuMemPoolSetAccess(pool, &desc, 1));
    R(cuMemPoolGetAccess(&flags, pool, &at));
    FACT("device 0: %d", (int)flags);
    on(1);
    R(cuMemsetD32Async(d, 5, WORDS, s[1]));
    R(cuStreamSynchronize(s[1]));
    R(run(0, "add_to_all", d, 1, s[0]));
    R(cuStreamSynchronize(s[0]));
    all_are("read by the other device", d, 6);
    on(1);
    all_are("read by its own", d, 6);
    desc.location.id = 1;
    R(cuMemPoolSetAccess(pool, &desc, 1));
    desc.flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    R(cuMemPoolSetAccess(pool, &desc, 1));
    /* From one device's pool in the other's stream. */
    on(0);
    R(cuMemAllocFromPoolAsync(&more, BYTES, pool, s[0]));
    if (more) {
        R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, more));
        FACT("memory of device %d", dev);
        R(run(0, "poke", more, 4, s[0]));
        R(cuMemFreeAsync(more, s[0]));
        R(cuStreamSynchronize(s[0]));
    }
    R(cuMemFreeAsync(d, s[1]));
    R(cuStreamSynchronize(s[1]));
    desc.location.id = 0;
    R(cuMemPoolSetAccess(pool, &desc, 1));
    R(cuMemPoolGetAccess(&flags, pool, &at));
    FACT("device 0: %d", (int)flags);
    memset(&props, 0, sizeof props);
    props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    props.location.id = 1;
    NEED(cuMemPoolCreate(&made, &props));
    R(cuDeviceSetMemPool(0, made));
    R(cuDeviceSetMemPool(1, made));
    R(cuDeviceGetMemPool(&current, 1));
    SAME(made, current);
    on(1);
    R(cuMemAllocAsync(&d, BYTES, 0));
    R(cuPointerGetAttribute(&current, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, d));
    SAME(made, current);
    R(cuMemFreeAsync(d, 0));
    R(cuStreamSynchronize(0));
    R(cuMemPoolDestroy(made));
    R(cuDeviceGetMemPool(&current, 1));
    SAME(pool, current);
    props.location.id = 99;
    R(cuMemPoolCreate(&made, &props));
    R(cuStreamDestroy(s[0]));
    R(cuStreamDestroy(s[1]));
}

CASE(cuKernelSetAttribute_two)
{
    CUlibrary library;
    CUkernel k;
    CUdeviceptr d = 0;
    int value = 7, n = WORDS;
    TWO();
    NEED(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, 0, 0, 0));
    NEED(cuLibraryGetKernel(&k, library, "add_to_all"));
    for (int dev = 0; dev < 2; dev++) {
        R(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, k, dev));
        FACT("device %d: %d threads", dev, value);
    }
    R(cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50, k, 1));
    R(cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50, k, 99));
    for (int dev = 0; dev < 2; dev++) {
        R(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, k, dev));
        FACT("device %d: %d", dev, value);
    }
    R(cuKernelSetCacheConfig(k, CU_FUNC_CACHE_PREFER_L1, 1));
    R(cuKernelSetCacheConfig(k, CU_FUNC_CACHE_PREFER_L1, 99));
    for (int dev = 0; dev < 2; dev++) {
        on(dev);
        NEED(cuMemAlloc(&d, BYTES));
        R(cuMemsetD32(d, dev, WORDS));
        value = 10;
        void *params[] = {&d, &value, &n};
        R(cuLaunchKernel((CUfunction)k, WORDS / 128, 1, 1, 128, 1, 1, 0, 0, params, 0));
        R(cuLaunchKernel((CUfunction)k, WORDS / 128, 1, 1, 128, 1, 1, 0, 0, params, 0));
        all_are("launched", d, dev + 20);
        R(cuMemFree(d));
    }
    R(cuLibraryUnload(library));
}

/* The other process: this program again. */
static void run_other(const char *name, const void *memory)
{
    char text[129];
    for (int i = 0; i < 64; i++)
        snprintf(text + 2 * i, 3, "%02x", ((const unsigned char *)memory)[i]);
    setenv("PARITY_MEMORY", text, 1);
    int status = -1;
    pid_t child = vfork();
    if (!child) {
        execl("/proc/self/exe", "peer", "--only", name, (char *)0);
        _exit(98);
    }
    waitpid(child, &status, 0);
    FACT("the other process ended with %d", status);
    unsetenv("PARITY_MEMORY");
}

CASE(peer_ipc_other)
{
    CUipcMemHandle memory;
    const char *text = getenv("PARITY_MEMORY");
    unsigned byte;
    if (!text)
        return;
    TWO();
    for (int i = 0; i < 64 && sscanf(text + 2 * i, "%2x", &byte) == 1; i++)
        ((unsigned char *)&memory)[i] = (unsigned char)byte;
    for (int which = 1; which >= 0; which--) {
        CUdeviceptr d = 0;
        CUdevice dev = -1;
        on(which);
        CUresult result = cuIpcOpenMemHandle(&d, memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
        FACT("opened from device %d: %d", which, (int)result);
        if (result)
            continue;
        R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, d));
        FACT("memory of device %d", dev);
        all_are("read", d, 0x11 + !which);
        R(run(which, "add_to_all", d, 1, 0));
        R(cuCtxSynchronize());
        R(cuIpcCloseMemHandle(d));
    }
}

CASE(cuIpcGetMemHandle_two)
{
    CUipcMemHandle memory;
    CUdeviceptr d = 0;
    TWO();
    on(1);
    NEED(cuMemAlloc(&d, 2 << 20));
    R(cuMemsetD32(d, 0x11, WORDS));
    R(cuCtxSynchronize());
    on(0);
    NEED(cuIpcGetMemHandle(&memory, d));
    run_other("peer_ipc_other", &memory);
    on(1);
    all_are("after the other process", d, 0x13);
    R(cuMemFree(d));
}

CASE(peer_capture)
{
    CUgraph graph = 0;
    CUgraphExec exec = 0;
    CUdeviceptr a = 0, b = 0;
    CUstream s[2];
    CUevent e[2];
    TWO();
    for (int i = 1; i >= 0; i--) {
        on(i);
        NEED(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
        NEED(cuEventCreate(&e[i], CU_EVENT_DISABLE_TIMING));
        NEED(cuMemAlloc(i ? &b : &a, BYTES));
        NEED(cuMemsetD32(i ? b : a, 0, WORDS));
        R(cuCtxSynchronize());
    }
    NEED(cuStreamBeginCapture(s[0], CU_STREAM_CAPTURE_MODE_RELAXED));
    R(run(0, "add_to_all", a, 1, s[0]));
    R(cuEventRecord(e[0], s[0]));
    on(1);
    R(cuStreamWaitEvent(s[1], e[0], 0));
    R(cuMemcpyPeerAsync(b, other, a, context, BYTES, s[1]));
    R(run(1, "add_to_all", b, 10, s[1]));
    R(cuEventRecord(e[1], s[1]));
    on(0);
    R(cuStreamWaitEvent(s[0], e[1], 0));
    NEED(cuStreamEndCapture(s[0], &graph));
    NEED(cuGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; i++)
        R(cuGraphLaunch(exec, s[0]));
    R(cuStreamSynchronize(s[0]));
    all_are("on the first", a, 3);
    on(1);
    all_are("on the second", b, 13);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(graph));
    for (int i = 0; i < 2; i++) {
        R(cuStreamDestroy(s[i]));
        R(cuEventDestroy(e[i]));
    }
    R(cuMemFree(a));
    R(cuMemFree(b));
}

/* The other device's context goes on, or not, when this one's has faulted. */
static void after_a_fault(int which)
{
    CUdeviceptr d = 0;
    int word = 0;
    on(which);
    R(cuCtxSynchronize());
    R(cuMemAlloc(&d, BYTES));
    R(cuMemsetD32(d, 5, WORDS));
    R(cuMemcpyDtoH(&word, d, sizeof word));
    FACT("%d", word);
}

LONELY(peer_without_access)
{
    CUdeviceptr d = 0;
    TWO();
    on(1);
    NEED(cuMemAlloc(&d, BYTES));
    R(run(0, "add_to_all", d, 1, 0));
    R(cuCtxSynchronize());
    FACT("the device that faulted");
    after_a_fault(0);
    FACT("the other device");
    after_a_fault(1);
}

LONELY(peer_fault)
{
    TWO();
    R(run(1, "poke", 16, 1, 0));
    R(cuCtxSynchronize());
    FACT("the other device");
    after_a_fault(0);
    FACT("the device that faulted");
    after_a_fault(1);
    R(cuDevicePrimaryCtxReset(second));
    R(cuCtxSynchronize());
    FACT("the other device still");
    after_a_fault(0);
}

LONELY(cuDevicePrimaryCtxReset_two)
{
    CUdeviceptr a = 0, b = 0;
    CUdevice dev = -1;
    unsigned flags;
    int active = -1;
    TWO();
    on(1);
    NEED(cuMemAlloc(&b, BYTES));
    on(0);
    NEED(cuMemAlloc(&a, BYTES));
    R(cuMemsetD32(a, 3, WORDS));
    NEED(cuCtxEnablePeerAccess(other, 0));
    R(cuDevicePrimaryCtxReset(second));
    R(cuDevicePrimaryCtxGetState(second, &flags, &active));
    FACT("the second is %s", active ? "active" : "not active");
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("the first is %s", active ? "active" : "not active");
    all_are("the first device's memory", a, 3);
    R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, b));
    R(cuMemFree(a));
    R(cuDevicePrimaryCtxRelease(second));
}
