/* Two devices: what belongs to which, and how one reaches the other's memory. */
#include "parity.h"

#define WORDS 1024
#define BYTES (WORDS * sizeof(int))
#define FAR_BYTES (5u << 20)

static CUdevice second;
static CUcontext other;
static CUmodule other_module;

/* The second device's primary context, with the module loaded; the first one's stays current. */
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

static CUcontext on(int which)
{
    CUcontext wanted = which ? other : context;
    cuCtxSetCurrent(wanted);
    return wanted;
}

static CUfunction kernel(int which, const char *name)
{
    CUfunction f = 0;
    cuModuleGetFunction(&f, which ? other_module : module, name);
    return f;
}

/* Words on a device: first, first + 1, … */
static CUdeviceptr words_on(int which, int first)
{
    static int words[WORDS];
    CUdeviceptr d = 0;
    on(which);
    for (int i = 0; i < WORDS; i++)
        words[i] = first + i;
    if (cuMemAlloc(&d, BYTES) || cuMemcpyHtoD(d, words, BYTES))
        FACT("no memory");
    return d;
}

/* Whether a device's words are first, first + 1, … as its own context sees them. */
static void holds(const char *what, int which, CUdeviceptr d, int first)
{
    static int words[WORDS];
    int right = 0;
    on(which);
    memset(words, 0xee, sizeof words);
    if (cuMemcpyDtoH(words, d, BYTES))
        FACT("%s: not read", what);
    while (right < WORDS && words[right] == first + right)
        right++;
    FACT("%s: %s", what, right == WORDS ? "right" : "wrong");
}

/* A kernel of one device adds to words, wherever they lie. */
static CUresult add(int which, CUdeviceptr d, int value, CUstream stream)
{
    int n = WORDS;
    void *params[] = {&d, &value, &n};
    on(which);
    return cuLaunchKernel(kernel(which, "add_to_all"), WORDS / 128, 1, 1, 128, 1, 1, 0, stream, params, 0);
}

CASE(peer_devices)
{
    char text[2][64] = {"", ""};
    CUuuid uuid[2];
    int count = 0, value = 0;
    TWO();
    R(cuDeviceGetCount(&count));
    FACT("%d devices", count);
    for (int i = 0; i < 2; i++) {
        CUdevice dev = -1, found = -1;
        size_t total = 0;
        char name[128] = "";
        NEED(cuDeviceGet(&dev, i));
        FACT("device %d", dev);
        R(cuDeviceGetName(name, sizeof name, dev));
        R(cuDeviceTotalMem(&total, dev));
        R(cuDeviceGetUuid(&uuid[i], dev));
        R(cuDeviceGetPCIBusId(text[i], sizeof text[i], dev));
        FACT("%s, %zu bytes, %s, %llx", name, total, text[i], (unsigned long long)parity_sum(&uuid[i], sizeof uuid[i]));
        R(cuDeviceGetByPCIBusId(&found, text[i]));
        FACT("found as %d", found);
        for (int a = CU_DEVICE_ATTRIBUTE_PCI_BUS_ID; a <= CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID; a++)
            if (!cuDeviceGetAttribute(&value, (CUdevice_attribute)a, dev))
                FACT("attribute %d: %d", a, value);
        R(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, dev));
        FACT("%d multiprocessors", value);
        R(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, dev));
        FACT("domain %d", value);
    }
    FACT("%s, %s", strcmp(text[0], text[1]) ? "two addresses" : "one address",
         memcmp(&uuid[0], &uuid[1], sizeof uuid[0]) ? "two UUIDs" : "one UUID");
}

CASE(cuDeviceCanAccessPeer)
{
    unsigned operations[13], capabilities[13];
    TWO();
    for (int i = 0; i < 13; i++)
        operations[i] = (unsigned)i;
    for (int from = 0; from < 2; from++)
        for (int to = 0; to < 2; to++) {
            int can = -1;
            R(cuDeviceCanAccessPeer(&can, from, to));
            FACT("%d to %d: %d", from, to, can);
            for (int a = 0; a <= 6; a++) {
                int value = -1;
                CUresult result = cuDeviceGetP2PAttribute(&value, (CUdevice_P2PAttribute)a, from, to);
                FACT("%d to %d, attribute %d: %d, %d", from, to, a, (int)result, value);
            }
            memset(capabilities, 0xee, sizeof capabilities);
            R(cuDeviceGetP2PAtomicCapabilities(capabilities, operations, 13, from, to));
            for (int i = 0; i < 13; i++)
                FACT("operation %d: %x", i, capabilities[i]);
        }
}

static void *on_the_second(void *memory)
{
    CUdevice dev = -1;
    CUcontext current = (CUcontext)1;
    R(cuCtxGetCurrent(&current));
    FACT("a new thread has %s", current ? "a context" : "no context");
    R(cuCtxSetCurrent(other));
    R(cuCtxGetDevice(&dev));
    FACT("it is on device %d", dev);
    R(add(1, (CUdeviceptr)(uintptr_t)memory, 100, 0));
    R(cuCtxSynchronize());
    return 0;
}

CASE(peer_contexts)
{
    CUdeviceptr d[2];
    CUstream s[2];
    CUdevice dev;
    CUcontext of;
    pthread_t thread;
    TWO();
    for (int i = 0; i < 2; i++) {
        d[i] = words_on(i, 10 * i);
        R(cuCtxGetDevice(&dev));
        FACT("current: device %d", dev);
        NEED(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
        R(cuStreamGetDevice(s[i], &dev));
        FACT("the stream is on device %d", dev);
    }
    for (int current = 0; current < 2; current++) {
        on(current);
        for (int i = 0; i < 2; i++) {
            R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, d[i]));
            FACT("from %d: memory of device %d", current, dev);
            R(cuPointerGetAttribute(&of, CU_POINTER_ATTRIBUTE_CONTEXT, d[i]));
            FACT("%s", of == (i ? other : context) ? "of its context" : "of another context");
            R(cuStreamGetCtx(s[i], &of));
            FACT("%s", of == (i ? other : context) ? "of its context" : "of another context");
            R(cuStreamGetDevice(s[i], &dev));
            FACT("stream of device %d", dev);
            R(cuCtxGetDevice_v2(&dev, i ? other : context));
            FACT("context of device %d", dev);
        }
    }
    R(add(0, d[0], 1, s[0]));
    R(add(1, d[1], 2, s[1]));
    R(cuStreamSynchronize(s[0]));
    R(cuStreamSynchronize(s[1]));
    holds("first", 0, d[0], 1);
    holds("second", 1, d[1], 12);
    /* In a stream of the other device a function of this context is refused. */
    on(0);
    int n = WORDS, value = 1;
    void *params[] = {&d[0], &value, &n};
    R(cuLaunchKernel(kernel(0, "add_to_all"), 8, 1, 1, 128, 1, 1, 0, s[1], params, 0));
    R(cuCtxSynchronize());
    on(0);
    if (!pthread_create(&thread, 0, on_the_second, (void *)(uintptr_t)d[1]))
        pthread_join(thread, 0);
    R(cuCtxGetDevice(&dev));
    FACT("this thread is on device %d still", dev);
    holds("second, by a thread", 1, d[1], 112);
    for (int i = 0; i < 2; i++) {
        on(1 - i);
        R(cuStreamDestroy(s[i]));
        R(cuMemFree(d[i]));
    }
}

CASE(cuCtxEnablePeerAccess_two)
{
    CUdeviceptr before, after;
    TWO();
    before = words_on(1, 5);
    on(0);
    R(cuCtxDisablePeerAccess(other));
    R(cuCtxEnablePeerAccess(other, 1));
    R(cuCtxEnablePeerAccess(context, 0));
    NEED(cuCtxEnablePeerAccess(other, 0));
    R(cuCtxEnablePeerAccess(other, 0));
    after = words_on(1, 50);
    R(add(0, before, 1, 0));
    R(add(0, after, 2, 0));
    R(cuCtxSynchronize());
    holds("allocated before", 1, before, 6);
    holds("allocated after", 1, after, 52);
    /* It goes one way. */
    on(1);
    R(cuCtxDisablePeerAccess(context));
    R(cuCtxEnablePeerAccess(context, 0));
    CUdeviceptr here = words_on(0, 7);
    R(add(1, here, 3, 0));
    R(cuCtxSynchronize());
    holds("the other way", 0, here, 10);
    on(1);
    R(cuCtxDisablePeerAccess(context));
    on(0);
    R(cuCtxDisablePeerAccess(other));
    R(cuCtxDisablePeerAccess(other));
    R(cuMemFree(before));
    R(cuMemFree(after));
    R(cuMemFree(here));
}

/* What a pointer to the other device's memory is. */
static void attributes_of(CUdeviceptr d)
{
    static const CUpointer_attribute numbers[] = {
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
        CU_POINTER_ATTRIBUTE_MAPPED, CU_POINTER_ATTRIBUTE_ACCESS_FLAGS,
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        unsigned value = 0;
        CUresult result = cuPointerGetAttribute(&value, numbers[i], d);
        FACT("attribute %d: %d, %u", (int)numbers[i], (int)result, value);
    }
    CUdeviceptr seen = 0;
    CUresult result = cuPointerGetAttribute(&seen, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, d);
    FACT("device pointer: %d, %s", (int)result, seen == d ? "the same" : seen ? "another" : "none");
}

CASE(peer_pointers)
{
    CUdeviceptr d;
    TWO();
    d = words_on(1, 0);
    attributes_of(d);
    on(0);
    attributes_of(d);
    NEED(cuCtxEnablePeerAccess(other, 0));
    attributes_of(d);
    R(cuCtxDisablePeerAccess(other));
    attributes_of(d);
    R(cuMemFree(d));
}

/* Copies and fills of the other device's memory from the first one's context. */
static void copies(void)
{
    static int words[WORDS];
    CUdeviceptr a = words_on(0, 100), b = words_on(1, 200);
    CUstream s[2];
    CUDA_MEMCPY3D_PEER p;
    CUDA_MEMCPY2D q;
    on(1);
    NEED(cuStreamCreate(&s[1], 0));
    on(0);
    NEED(cuStreamCreate(&s[0], 0));
    R(cuMemcpyPeer(a, context, b, other, BYTES));
    holds("peer", 0, a, 200);
    a = (cuMemFree(a), words_on(0, 300));
    R(cuMemcpyPeerAsync(b, other, a, context, BYTES, s[0]));
    R(cuStreamSynchronize(s[0]));
    holds("peer async", 1, b, 300);
    b = (cuMemFree(b), words_on(1, 400));
    on(0);
    R(cuMemcpyPeerAsync(a, context, b, other, BYTES, s[1]));
    R(cuStreamSynchronize(s[1]));
    holds("in its stream", 0, a, 400);
    b = (cuMemFree(b), words_on(1, 500));
    on(0);
    R(cuMemcpyDtoD(a, b, BYTES));
    holds("by address", 0, a, 500);
    b = (cuMemFree(b), words_on(1, 600));
    on(0);
    R(cuMemcpy(a, b, BYTES));
    holds("by unified address", 0, a, 600);
    b = (cuMemFree(b), words_on(1, 700));
    on(0);
    R(cuMemcpyAsync(a, b, BYTES, s[0]));
    R(cuStreamSynchronize(s[0]));
    holds("by address in a stream", 0, a, 700);
    memset(&p, 0, sizeof p);
    p.srcMemoryType = p.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    p.srcDevice = b;
    p.srcContext = other;
    p.dstDevice = a;
    p.dstContext = context;
    p.srcPitch = p.dstPitch = BYTES / 4;
    p.srcHeight = p.dstHeight = 2;
    p.WidthInBytes = BYTES / 4;
    p.Height = 2;
    p.Depth = 2;
    b = p.srcDevice = (cuMemFree(b), words_on(1, 800));
    on(0);
    R(cuMemcpy3DPeer(&p));
    holds("a box", 0, a, 800);
    b = p.srcDevice = (cuMemFree(b), words_on(1, 900));
    on(0);
    R(cuMemcpy3DPeerAsync(&p, s[0]));
    R(cuStreamSynchronize(s[0]));
    holds("a box in a stream", 0, a, 900);
    memset(&q, 0, sizeof q);
    q.srcMemoryType = q.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    q.srcDevice = a;
    q.dstDevice = b;
    q.srcPitch = q.dstPitch = q.WidthInBytes = BYTES / 4;
    q.Height = 4;
    a = q.srcDevice = (cuMemFree(a), words_on(0, 1000));
    on(0);
    R(cuMemcpy2D(&q));
    holds("a rectangle", 1, b, 1000);
    on(0);
    for (int i = 0; i < WORDS; i++)
        words[i] = 1100 + i;
    R(cuMemcpyHtoD(b, words, BYTES));
    holds("from the host", 1, b, 1100);
    on(0);
    memset(words, 0, sizeof words);
    R(cuMemcpyDtoH(words, b, BYTES));
    FACT("to the host: %s", words[0] == 1100 && words[WORDS - 1] == 1100 + WORDS - 1 ? "right" : "wrong");
    R(cuMemsetD32(b, 77, WORDS));
    R(cuMemsetD8Async(b, 1, 16, s[0]));
    R(cuCtxSynchronize());
    on(1);
    R(cuMemcpyDtoH(words, b, BYTES));
    FACT("filled: %x %d", words[0], words[WORDS - 1]);
    on(0);
    R(cuMemcpyPeer(a, context, b, other, BYTES + 1));
    R(cuMemcpyPeer(a, context, b, 0, BYTES));
    R(cuMemcpyPeer(a, other, b, context, 16));
    R(cuMemFree(a));
    R(cuMemFree(b));
    R(cuStreamDestroy(s[0]));
    R(cuStreamDestroy(s[1]));
}

CASE(cuMemcpyPeer_two)
{
    TWO();
    copies();
}

CASE(cuMemcpyPeer_enabled)
{
    TWO();
    on(0);
    NEED(cuCtxEnablePeerAccess(other, 0));
    copies();
    on(0);
    R(cuCtxDisablePeerAccess(other));
}

CASE(peer_far)
{
    unsigned char *host = malloc(FAR_BYTES), *back = malloc(FAR_BYTES);
    CUdeviceptr a, b;
    TWO();
    for (unsigned i = 0; i < FAR_BYTES; i++)
        host[i] = (unsigned char)(i * 7 + i / 4096);
    on(0);
    NEED(cuMemAlloc(&a, FAR_BYTES));
    on(1);
    NEED(cuMemAlloc(&b, FAR_BYTES));
    on(0);
    R(cuMemcpyHtoD(b, host, FAR_BYTES));
    R(cuMemcpyDtoD(a, b, FAR_BYTES));
    R(cuMemcpyDtoH(back, a, FAR_BYTES));
    FACT("%s", memcmp(host, back, FAR_BYTES) ? "wrong" : "right");
    memset(back, 0, FAR_BYTES);
    R(cuMemcpyDtoH(back, b, FAR_BYTES));
    FACT("%s", memcmp(host, back, FAR_BYTES) ? "wrong" : "right");
    R(cuMemFree(a));
    R(cuMemFree(b));
    free(host);
    free(back);
}

CASE(peer_order)
{
    CUdeviceptr a, b;
    CUstream s[2];
    CUevent e[2];
    float time = 0;
    TWO();
    a = words_on(0, 0);
    b = words_on(1, 0);
    for (int i = 0; i < 2; i++) {
        on(i);
        NEED(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
        NEED(cuEventCreate(&e[i], 0));
    }
    for (int round = 0; round < 20; round++) {
        if (add(0, a, 1, s[0]) || cuEventRecord(e[0], s[0]))
            FACT("not recorded");
        on(1);
        if (cuStreamWaitEvent(s[1], e[0], 0) || cuMemcpyPeerAsync(b, other, a, context, BYTES, s[1]) ||
            add(1, b, 1, s[1]) || cuEventRecord(e[1], s[1]))
            FACT("not in order");
        on(0);
        if (cuStreamWaitEvent(s[0], e[1], 0) || cuMemcpyPeerAsync(a, context, b, other, BYTES, s[0]))
            FACT("not back");
    }
    on(0);
    R(cuStreamSynchronize(s[0]));
    holds("after 20 rounds", 0, a, 40);
    on(0);
    R(cuEventQuery(e[1]));
    R(cuEventSynchronize(e[1]));
    R(cuEventRecord(e[1], s[0]));
    R(cuEventRecord(e[1], 0));
    R(cuEventRecord(e[0], s[1]));
    R(cuCtxSynchronize());
    R(cuEventElapsedTime(&time, e[0], e[1]));
    R(cuEventElapsedTime(&time, e[1], e[1]));
    for (int i = 0; i < 2; i++) {
        R(cuEventDestroy(e[i]));
        R(cuStreamDestroy(s[i]));
    }
    R(cuMemFree(a));
    R(cuMemFree(b));
}

CASE(cuCtxSynchronize_two)
{
    volatile int *flag = 0;
    CUdeviceptr at = 0;
    CUstream s;
    TWO();
    on(0);
    NEED(cuMemHostAlloc((void **)&flag, 64, CU_MEMHOSTALLOC_DEVICEMAP));
    *flag = 0;
    on(1);
    R(cuMemHostGetDevicePointer(&at, (void *)flag, 0));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    void *params[] = {&at};
    NEED(cuLaunchKernel(kernel(1, "spin_until"), 1, 1, 1, 1, 1, 1, 0, s, params, 0));
    on(0);
    R(cuCtxSynchronize());
    R(cuStreamSynchronize(0));
    R(cuStreamQuery(s));
    *flag = 1;
    R(cuCtxSynchronize_v2(other));
    R(cuStreamQuery(s));
    R(cuStreamDestroy(s));
    on(1);
    R(cuMemFreeHost((void *)flag));
}

CASE(peer_host_memory)
{
    int *host = 0;
    CUdeviceptr managed = 0;
    CUdevice dev = -1;
    TWO();
    on(0);
    NEED(cuMemHostAlloc((void **)&host, BYTES, 0));
    for (int i = 0; i < WORDS; i++)
        host[i] = i;
    R(add(0, (CUdeviceptr)(uintptr_t)host, 1, 0));
    R(cuCtxSynchronize());
    R(add(1, (CUdeviceptr)(uintptr_t)host, 2, 0));
    R(cuCtxSynchronize());
    FACT("pinned: %s", host[0] == 3 && host[WORDS - 1] == WORDS + 2 ? "right" : "wrong");
    R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, (CUdeviceptr)(uintptr_t)host));
    FACT("of device %d", dev);
    R(cuMemFreeHost(host));
    on(1);
    NEED(cuMemAllocManaged(&managed, BYTES, CU_MEM_ATTACH_GLOBAL));
    host = (int *)(uintptr_t)managed;
    for (int i = 0; i < WORDS; i++)
        host[i] = i;
    R(add(1, managed, 1, 0));
    R(cuCtxSynchronize());
    R(add(0, managed, 2, 0));
    R(cuCtxSynchronize());
    FACT("managed: %s", host[0] == 3 && host[WORDS - 1] == WORDS + 2 ? "right" : "wrong");
    R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, managed));
    FACT("of device %d", dev);
    CUmemLocation at = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 1};
    R(cuMemAdvise(managed, BYTES, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, at));
    R(cuMemPrefetchAsync(managed, BYTES, at, 0, 0));
    R(cuCtxSynchronize());
    int where = -9;
    R(cuMemRangeGetAttribute(&where, sizeof where, CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, managed, BYTES));
    FACT("preferred: %d", where);
    R(cuMemRangeGetAttribute(&where, sizeof where, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, managed, BYTES));
    FACT("prefetched: %d", where);
    at.id = 99;
    R(cuMemPrefetchAsync(managed, BYTES, at, 0, 0));
    R(cuMemFree(managed));
}
