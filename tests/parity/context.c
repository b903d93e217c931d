/* Contexts and their settings, primary and green contexts, devices, profiler and error log: one body per call (parity.h). */
#include "parity.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

extern CUresult create_v1(CUcontext *, unsigned int, CUdevice) __asm__("cuCtxCreate");
extern CUresult create_v2(CUcontext *, unsigned int, CUdevice) __asm__("cuCtxCreate_v2");
extern CUresult create_v3(CUcontext *, CUexecAffinityParam *, int, unsigned int, CUdevice) __asm__("cuCtxCreate_v3");
extern CUresult get_device_v1(CUdevice *) __asm__("cuCtxGetDevice");
extern CUresult get_device_v2(CUdevice *, CUcontext) __asm__("cuCtxGetDevice_v2");
extern CUresult synchronize_v1(void) __asm__("cuCtxSynchronize");
extern CUresult synchronize_v2(CUcontext) __asm__("cuCtxSynchronize_v2");
extern CUresult cuProfilerStart(void);
extern CUresult cuProfilerStop(void);

static unsigned int flags_now(void)
{
    unsigned int flags = 0xeeee;
    cuCtxGetFlags(&flags);
    return flags;
}

CASE(cuCtxCreate)
{
    CUcontext c = 0, now = 0, popped = 0;
    unsigned int version = 0;
    unsigned long long id = 0, primary_id = 0;
    CUdevice dev = 77;
    const unsigned int flags[] = {0, 1, 2, 4, 8, 0x10, 0x80};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        NEED(create_v2(&c, flags[i], device));
        FACT("flags %x: %x", flags[i], flags_now());
        R(cuCtxDestroy(c));
    }
    R(create_v2(&c, 3, device));
    R(create_v2(&c, 0x100, device));
    R(create_v2(0, 0, device));
    R(create_v2(&c, 0, 99));
    R(create_v3(&c, 0, 0, 0, device));
    R(cuCtxDestroy(c));
    CUexecAffinityParam affinity = {CU_EXEC_AFFINITY_TYPE_SM_COUNT, {{8}}};
    R(create_v3(&c, &affinity, 1, 0, device));
    NEED(create_v2(&c, 0, device));
    R(cuCtxGetCurrent(&now));
    SAME(now, c);
    R(cuCtxGetApiVersion(c, &version));
    FACT("version %u", version);
    R(cuCtxGetApiVersion(context, &version));
    FACT("primary: version %u", version);
    R(cuCtxGetApiVersion(0, &version));
    R(cuCtxGetApiVersion(c, 0));
    R(cuCtxGetId(c, &id));
    R(cuCtxGetId(context, &primary_id));
    SAME(id, primary_id);
    R(cuCtxGetId(0, &primary_id));
    SAME(id, primary_id);
    R(get_device_v1(&dev));
    SAME(dev, device);
    dev = 77;
    R(get_device_v2(&dev, context));
    SAME(dev, device);
    R(get_device_v1(0));
    R(synchronize_v1());
    R(synchronize_v2(c));
    R(synchronize_v2(context));
    R(synchronize_v2(0));
    R(cuCtxPopCurrent(&popped));
    SAME(popped, c);
    R(cuCtxGetCurrent(&now));
    SAME(now, context);
    R(cuCtxPushCurrent(c));
    R(cuCtxDestroy(c));
    R(cuCtxGetCurrent(&now));
    SAME(now, context);
    R(cuCtxDestroy(0));
    R(cuCtxPushCurrent(0));
    R(cuCtxSetCurrent(0));
    R(cuCtxPopCurrent(&popped));
    R(get_device_v1(&dev));
    R(synchronize_v1());
    R(cuCtxGetFlags(&version));
    R(cuCtxGetCurrent(0));
}

CASE(cuCtxSetFlags)
{
    CUcontext c = 0;
    unsigned int state = 77;
    int active = 77;
    NEED(create_v2(&c, 0, device));
    for (unsigned int flags = 0; flags < 8; flags++) {
        R(cuCtxSetFlags(flags));
        FACT("flags %u: %x", flags, flags_now());
    }
    R(cuCtxSetFlags(CU_CTX_MAP_HOST));
    FACT("map host: %x", flags_now());
    R(cuCtxSetFlags(CU_CTX_SYNC_MEMOPS));
    FACT("sync memops: %x", flags_now());
    R(cuCtxSetFlags(0x100));
    FACT("after 100: %x", flags_now());
    R(cuCtxGetFlags(0));
    R(cuCtxDestroy(c));
    R(cuCtxSetCurrent(context));
    R(cuCtxSetFlags(CU_CTX_SCHED_YIELD));
    FACT("primary: %x", flags_now());
    R(cuDevicePrimaryCtxGetState(device, &state, &active));
    FACT("state %x, active %d", state, active);
    R(cuCtxSetFlags(0));
    FACT("primary: %x", flags_now());
    R(cuCtxSetCurrent(0));
    R(cuCtxSetFlags(0));
}

CASE(cuCtxAttach)
{
    CUcontext c = 0, attached = 0, now = 0;
    NEED(create_v2(&c, 0, device));
    R(cuCtxAttach(&attached, 0));
    SAME(attached, c);
    R(cuCtxAttach(&attached, 1));
    R(cuCtxAttach(0, 0));
    R(cuCtxDetach(c));
    R(cuCtxGetCurrent(&now));
    SAME(now, c);
    R(cuCtxDetach(c));
    R(cuCtxGetCurrent(&now));
    SAME(now, c);
    R(cuCtxSetCurrent(0));
    R(cuCtxAttach(&attached, 0));
}

CASE(cuCtxGetLimit)
{
    for (unsigned int limit = 0; limit < 10; limit++) {
        size_t before = 0, after = 0;
        CUresult got = cuCtxGetLimit(&before, (CUlimit)limit);
        FACT("limit %u: result %d, %zu", limit, got, before);
        if (got)
            continue;
        FACT("limit %u set: result %d", limit, cuCtxSetLimit((CUlimit)limit, before));
        cuCtxGetLimit(&after, (CUlimit)limit);
        SAME(before, after);
    }
    size_t value = 0;
    R(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2048));
    R(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
    FACT("stack %zu", value);
    R(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 1024));
    R(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, (size_t)1 << 40));
    R(cuCtxGetLimit(0, CU_LIMIT_STACK_SIZE));
    R(cuCtxGetLimit(&value, (CUlimit)99));
    R(cuCtxSetLimit((CUlimit)99, 1));
}

CASE(cuCtxGetCacheConfig)
{
    CUfunc_cache config = (CUfunc_cache)77;
    for (int wanted = 0; wanted < 5; wanted++) {
        R(cuCtxSetCacheConfig((CUfunc_cache)wanted));
        R(cuCtxGetCacheConfig(&config));
        FACT("wanted %d: %d", wanted, (int)config);
    }
    R(cuCtxSetCacheConfig(CU_FUNC_CACHE_PREFER_NONE));
    R(cuCtxGetCacheConfig(0));
}

CASE(cuCtxGetSharedMemConfig)
{
    CUsharedconfig config = (CUsharedconfig)77;
    R(cuCtxGetSharedMemConfig(&config));
    FACT("config %d", (int)config);
    for (int wanted = 0; wanted < 4; wanted++) {
        R(cuCtxSetSharedMemConfig((CUsharedconfig)wanted));
        R(cuCtxGetSharedMemConfig(&config));
        FACT("wanted %d: %d", wanted, (int)config);
    }
    R(cuCtxSetSharedMemConfig(CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE));
    R(cuCtxGetSharedMemConfig(0));
}

CASE(cuCtxResetPersistingL2Cache)
{
    R(cuCtxResetPersistingL2Cache());
    R(cuCtxSetCurrent(0));
    R(cuCtxResetPersistingL2Cache());
}

CASE(cuCtxGetExecAffinity)
{
    CUexecAffinityParam param;
    int support = 77;
    memset(&param, 0xee, sizeof param);
    CUresult got = cuCtxGetExecAffinity(&param, CU_EXEC_AFFINITY_TYPE_SM_COUNT);
    FACT("result %d", got);
    if (!got)
        FACT("type %d, %u multiprocessors", (int)param.type, param.param.smCount.val);
    R(cuCtxGetExecAffinity(&param, (CUexecAffinityType)1));
    R(cuCtxGetExecAffinity(0, CU_EXEC_AFFINITY_TYPE_SM_COUNT));
    R(cuDeviceGetExecAffinitySupport(&support, CU_EXEC_AFFINITY_TYPE_SM_COUNT, device));
    FACT("support %d", support);
    R(cuDeviceGetExecAffinitySupport(&support, (CUexecAffinityType)1, device));
    R(cuDeviceGetExecAffinitySupport(0, CU_EXEC_AFFINITY_TYPE_SM_COUNT, device));
    R(cuDeviceGetExecAffinitySupport(&support, CU_EXEC_AFFINITY_TYPE_SM_COUNT, 99));
}

CASE(cuCtxEnablePeerAccess)
{
    CUcontext c = 0;
    R(cuCtxEnablePeerAccess(context, 0));
    R(cuCtxDisablePeerAccess(context));
    NEED(create_v2(&c, 0, device));
    R(cuCtxEnablePeerAccess(context, 0));
    R(cuCtxEnablePeerAccess(context, 1));
    R(cuCtxEnablePeerAccess(0, 0));
    R(cuCtxDisablePeerAccess(context));
    R(cuCtxDisablePeerAccess(0));
    R(cuCtxDestroy(c));
    R(cuCtxSetCurrent(0));
    R(cuCtxEnablePeerAccess(context, 0));
    R(cuCtxDisablePeerAccess(context));
}

CASE(cuCtxRecordEvent)
{
    CUevent e;
    CUstream s;
    CUdeviceptr d;
    CUstream w;
    NEED(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamCreate(&w, CU_STREAM_NON_BLOCKING));
    NEED(cuMemAlloc(&d, 8));
    R(cuMemsetD32(d, 0, 2));
    R(cuCtxSynchronize());
    R(cuCtxRecordEvent(context, e));
    R(cuEventSynchronize(e));
    R(cuStreamWaitValue32(s, d, 1, CU_STREAM_WAIT_VALUE_EQ));
    R(cuCtxRecordEvent(context, e));
    R(cuEventQuery(e));
    R(cuStreamWriteValue32(w, d, 1, 0));
    R(cuEventSynchronize(e));
    R(cuCtxWaitEvent(context, e));
    R(cuStreamSynchronize(s));
    R(cuCtxRecordEvent(context, 0));
    R(cuCtxRecordEvent(0, e));
    R(cuCtxWaitEvent(context, 0));
    R(cuCtxWaitEvent(0, e));
    R(cuCtxSynchronize());
    R(cuMemFree(d));
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(w));
    R(cuEventDestroy(e));
}

CASE(cuDevicePrimaryCtxRetain)
{
    CUcontext c = 0;
    unsigned int flags = 77;
    int active = 77;
    R(cuDevicePrimaryCtxRetain(&c, device));
    SAME(c, context);
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("flags %x, active %d", flags, active);
    R(cuDevicePrimaryCtxRelease(device));
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("flags %x, active %d", flags, active);
    R(cuDevicePrimaryCtxRetain(0, device));
    R(cuDevicePrimaryCtxRetain(&c, 99));
    R(cuDevicePrimaryCtxRelease(99));
    R(cuDevicePrimaryCtxGetState(device, 0, &active));
    R(cuDevicePrimaryCtxGetState(device, &flags, 0));
    R(cuDevicePrimaryCtxGetState(99, &flags, &active));
    R(cuDevicePrimaryCtxSetFlags(device, 3));
    R(cuDevicePrimaryCtxSetFlags(device, 0x100));
    R(cuDevicePrimaryCtxSetFlags(device, CU_CTX_SCHED_BLOCKING_SYNC));
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("flags %x, active %d", flags, active);
    R(cuDevicePrimaryCtxSetFlags(device, 0));
    R(cuDevicePrimaryCtxSetFlags(99, 0));
}

LONELY(cuCtxDestroy_primary)
{
    int active = 77;
    unsigned int flags = 77;
    R(cuCtxDestroy(context));
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("active %d", active);
}

LONELY(cuDevicePrimaryCtxRelease)
{
    unsigned int flags = 77;
    int active = 77;
    CUcontext again = 0;
    size_t free, total;
    R(cuDevicePrimaryCtxRelease(device));
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("flags %x, active %d", flags, active);
    R(cuMemGetInfo(&free, &total));
    R(cuDevicePrimaryCtxRelease(device));
    R(cuDevicePrimaryCtxSetFlags(device, CU_CTX_SCHED_BLOCKING_SYNC));
    R(cuDevicePrimaryCtxRetain(&again, device));
    SAME(again, context);
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("flags %x, active %d", flags, active);
    R(cuMemGetInfo(&free, &total));
    R(cuDevicePrimaryCtxReset(device));
    R(cuDevicePrimaryCtxGetState(device, &flags, &active));
    FACT("flags %x, active %d", flags, active);
}

CASE(cuDeviceGetProperties)
{
    CUdevprop p;
    int value = 0;
    memset(&p, 0xee, sizeof p);
    NEED(cuDeviceGetProperties(&p, device));
    FACT("block %d: %d %d %d; grid %d %d %d", p.maxThreadsPerBlock, p.maxThreadsDim[0], p.maxThreadsDim[1], p.maxThreadsDim[2],
         p.maxGridSize[0], p.maxGridSize[1], p.maxGridSize[2]);
    FACT("shared %d, constant %d, warp %d, pitch %d, registers %d, clock %d, alignment %d", p.sharedMemPerBlock,
         p.totalConstantMemory, p.SIMDWidth, p.memPitch, p.regsPerBlock, p.clockRate, p.textureAlign);
    R(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_CLOCK_RATE, device));
    SAME(value, p.clockRate);
    R(cuDeviceGetProperties(0, device));
    R(cuDeviceGetProperties(&p, 99));
}

CASE(cuDeviceGetLuid)
{
    char luid[8];
    unsigned int mask = 0;
    R(cuDeviceGetLuid(luid, &mask, device));
}

CASE(cuDeviceGetP2PAttribute)
{
    int value = 77;
    unsigned int capability = 77;
    CUatomicOperation operation = CU_ATOMIC_OPERATION_INTEGER_ADD;
    R(cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, device, device));
    R(cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, device, 99));
    R(cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 99, device));
    R(cuDeviceGetP2PAttribute(0, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, device, 99));
    R(cuDeviceGetP2PAttribute(&value, (CUdevice_P2PAttribute)0, device, device));
    R(cuDeviceGetP2PAttribute(&value, (CUdevice_P2PAttribute)99, device, device));
    R(cuDeviceCanAccessPeer(&value, device, device));
    R(cuDeviceCanAccessPeer(&value, device, 99));
    R(cuDeviceCanAccessPeer(0, device, device));
    R(cuDeviceGetP2PAtomicCapabilities(&capability, &operation, 1, device, device));
    R(cuDeviceGetP2PAtomicCapabilities(&capability, &operation, 1, device, 99));
    R(cuDeviceGetHostAtomicCapabilities(&capability, &operation, 1, device));
    R(cuDeviceGetHostAtomicCapabilities(&capability, &operation, 0, device));
    R(cuDeviceGetHostAtomicCapabilities(0, &operation, 1, device));
    R(cuDeviceGetHostAtomicCapabilities(&capability, 0, 1, device));
    R(cuDeviceGetHostAtomicCapabilities(&capability, &operation, 1, 99));
    operation = (CUatomicOperation)13;
    R(cuDeviceGetHostAtomicCapabilities(&capability, &operation, 1, device));
}

CASE(cuProfilerStart)
{
    R(cuProfilerStart());
    R(cuProfilerStart());
    R(cuProfilerStop());
    R(cuProfilerStop());
    R(cuCtxSetCurrent(0));
    R(cuProfilerStart());
    R(cuProfilerStop());
}

static int calls;
static void on_log(void *data, CUlogLevel level, char *message, size_t len)
{
    (void)level;
    (void)message;
    (void)len;
    ++*(int *)data;
}

CASE(cuLogsCurrent)
{
    CUlogIterator at = 77;
    CUlogsCallbackHandle handle = 0;
    static char text[25600];
    size_t size = sizeof text;
    R(cuLogsCurrent(&at, 1));
    R(cuLogsCurrent(0, 0));
    R(cuLogsCurrent(&at, 0));
    memset(text, 0xee, sizeof text);
    /* What the log says is each library's own. */
    R(cuLogsDumpToMemory(&at, text, &size, 0));
    FACT("ends with %d", size < sizeof text ? text[size] : -1);
    size = sizeof text;
    R(cuLogsDumpToMemory(&at, 0, &size, 0));
    R(cuLogsDumpToMemory(&at, text, 0, 0));
    R(cuLogsRegisterCallback(on_log, &calls, &handle));
    FACT("handle %s", handle ? "given" : "NULL");
    R(cuLogsUnregisterCallback(handle));
    R(cuLogsRegisterCallback(0, &calls, &handle));
    R(cuLogsRegisterCallback(on_log, &calls, 0));
    R(cuLogsDumpToFile(&at, 0, 0));
    R(cuLogsDumpToFile(&at, "/tmp/parity-log", 1));
}

static void say_resource(const char *which, const CUdevResource *r)
{
    FACT("%s: type %d, %u multiprocessors", which, (int)r->type, r->sm.smCount);
}

CASE(cuDeviceGetDevResource)
{
    CUdevResource all, groups[16], rest, copy;
    unsigned int count = 77;
    NEED(cuDeviceGetDevResource(device, &all, CU_DEV_RESOURCE_TYPE_SM));
    say_resource("device", &all);
    FACT("smallest %u, alignment %u", all.sm.minSmPartitionSize, all.sm.smCoscheduledAlignment);
    R(cuDeviceGetDevResource(device, &copy, CU_DEV_RESOURCE_TYPE_INVALID));
    R(cuDeviceGetDevResource(device, &copy, (CUdevResourceType)99));
    R(cuDeviceGetDevResource(device, 0, CU_DEV_RESOURCE_TYPE_SM));
    R(cuDeviceGetDevResource(99, &copy, CU_DEV_RESOURCE_TYPE_SM));
    R(cuCtxGetDevResource(context, &copy, CU_DEV_RESOURCE_TYPE_SM));
    say_resource("context", &copy);
    R(cuDevSmResourceSplitByCount(0, &count, &all, 0, 0, 8));
    FACT("groups of 8: %u", count);
    R(cuDevSmResourceSplitByCount(0, &count, &all, 0, 0, 64));
    FACT("groups of 64: %u", count);
    R(cuDevSmResourceSplitByCount(0, &count, &all, 0, 0, 100000));
    R(cuDevSmResourceSplitByCount(0, &count, &all, 0, 4, 8));
    count = 2;
    R(cuDevSmResourceSplitByCount(groups, &count, &all, &rest, 0, 64));
    FACT("%u groups", count);
    for (unsigned int i = 0; i < count && i < 16; i++)
        say_resource("group", groups + i);
    say_resource("rest", &rest);
    count = 16;
    R(cuDevSmResourceSplitByCount(groups, &count, &all, 0, 0, 16));
    FACT("%u groups", count);
    R(cuDevSmResourceSplitByCount(0, &count, &groups[0], 0, 0, 8));
    memset(&copy, 0, sizeof copy);
    R(cuDevSmResourceSplitByCount(0, &count, &copy, 0, 0, 8));
    R(cuDevSmResourceSplitByCount(0, 0, &all, 0, 0, 8));
    R(cuDevSmResourceSplitByCount(0, &count, 0, 0, 0, 8));
}

CASE(cuGreenCtxCreate)
{
    CUdevResource all, group, rest, found;
    CUdevResourceDesc desc = 0;
    CUgreenCtx green = 0, of_stream = 0;
    CUcontext c = 0, now = 0;
    CUstream s = 0, t = 0;
    CUevent e = 0;
    CUdeviceptr d = 0;
    unsigned int count = 1;
    unsigned long long id = 0, context_id = 0, primary_id = 0;
    CUdevice dev = 77;
    CUfunction f;
    int got[64];
    NEED(cuDeviceGetDevResource(device, &all, CU_DEV_RESOURCE_TYPE_SM));
    NEED(cuDevSmResourceSplitByCount(&group, &count, &all, &rest, 0, 32));
    R(cuDevResourceGenerateDesc(0, &group, 1));
    R(cuDevResourceGenerateDesc(&desc, 0, 1));
    memset(&found, 0, sizeof found);
    R(cuDevResourceGenerateDesc(&desc, &found, 1));
    NEED(cuDevResourceGenerateDesc(&desc, &group, 1));
    R(cuGreenCtxCreate(&green, desc, device, 0));
    R(cuGreenCtxCreate(&green, desc, 99, CU_GREEN_CTX_DEFAULT_STREAM));
    R(cuGreenCtxCreate(0, desc, device, CU_GREEN_CTX_DEFAULT_STREAM));
    NEED(cuGreenCtxCreate(&green, desc, device, CU_GREEN_CTX_DEFAULT_STREAM));
    R(cuGreenCtxGetDevResource(green, &found, CU_DEV_RESOURCE_TYPE_SM));
    say_resource("green context", &found);
    NEED(cuCtxFromGreenCtx(&c, green));
    SAME(c, context);
    R(cuCtxFromGreenCtx(0, green));
    R(cuCtxGetDevResource(c, &found, CU_DEV_RESOURCE_TYPE_SM));
    say_resource("as a context", &found);
    R(cuGreenCtxGetId(green, &id));
    R(cuCtxGetId(c, &context_id));
    R(cuCtxGetId(context, &primary_id));
    SAME(id, context_id);
    SAME(id, primary_id);
    R(cuGreenCtxStreamCreate(&s, green, 0, 0));
    NEED(cuGreenCtxStreamCreate(&s, green, CU_STREAM_NON_BLOCKING, 0));
    R(cuStreamGetGreenCtx(s, &of_stream));
    SAME(of_stream, green);
    of_stream = 0;
    now = 0;
    R(cuStreamGetCtx_v2(s, &now, &of_stream));
    SAME(of_stream, green);
    SAME(now, context);
    SAME(now, c);
    R(cuStreamGetDevice(s, &dev));
    SAME(dev, device);
    R(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    R(cuGreenCtxRecordEvent(green, e));
    R(cuEventSynchronize(e));
    R(cuGreenCtxWaitEvent(green, e));
    R(cuGreenCtxRecordEvent(green, 0));
    NEED(cuCtxSetCurrent(c));
    R(cuCtxGetCurrent(&now));
    SAME(now, c);
    now = 0;
    R(cuStreamGetCtx_v2(0, &now, &of_stream));
    SAME(of_stream, green);
    SAME(now, context);
    NEED(cuMemAlloc(&d, sizeof got));
    NEED(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
    R(cuMemsetD32(d, 1, 64));
    f = function("add_to_all");
    int value = 41, n = 64;
    void *args[] = {&d, &value, &n};
    R(cuCtxSynchronize());
    R(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, t, args, 0));
    R(cuStreamSynchronize(t));
    R(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, s, args, 0));
    R(cuStreamSynchronize(s));
    R(cuMemcpyDtoH(got, d, sizeof got));
    FACT("first %d, last %d", got[0], got[63]);
    R(cuStreamDestroy(t));
    R(cuStreamDestroy(s));
    R(cuCtxSetCurrent(context));
    R(cuGreenCtxDestroy(green));
    R(cuMemcpyDtoH(got, d, sizeof got));
    FACT("afterwards %d", got[0]);
    R(cuEventQuery(e));
    R(cuEventDestroy(e));
    R(cuMemFree(d));
}
