/* Streams, stream memory operations, stream attributes and events: one body per call (parity.h). */
#include "parity.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* The first form of the memory operations: cuda.h names the second. */
extern CUresult wait32_v1(CUstream, CUdeviceptr, cuuint32_t, unsigned int) __asm__("cuStreamWaitValue32");
extern CUresult wait64_v1(CUstream, CUdeviceptr, cuuint64_t, unsigned int) __asm__("cuStreamWaitValue64");
extern CUresult write32_v1(CUstream, CUdeviceptr, cuuint32_t, unsigned int) __asm__("cuStreamWriteValue32");
extern CUresult write64_v1(CUstream, CUdeviceptr, cuuint64_t, unsigned int) __asm__("cuStreamWriteValue64");
extern CUresult batch_v1(CUstream, unsigned int, CUstreamBatchMemOpParams *, unsigned int) __asm__("cuStreamBatchMemOp");
extern CUresult elapsed_v1(float *, CUevent, CUevent) __asm__("cuEventElapsedTime");
extern CUresult elapsed_v2(float *, CUevent, CUevent) __asm__("cuEventElapsedTime_v2");

CASE(cuStreamCreate)
{
    CUstream s, t;
    NEED(cuStreamCreate(&s, 0));
    NEED(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
    SAME(s, t);
    R(cuStreamCreate(&t, 2));
    R(cuStreamCreate(&t, 4));
    R(cuStreamCreate(0, 0));
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(t));
}

CASE(cuStreamCreateWithPriority)
{
    int least = 7, greatest = 7;
    const int wanted[] = {-100, -5, -1, 0, 1, 100};
    NEED(cuCtxGetStreamPriorityRange(&least, &greatest));
    FACT("priorities %d to %d", least, greatest);
    R(cuCtxGetStreamPriorityRange(0, &greatest));
    R(cuCtxGetStreamPriorityRange(&least, 0));
    R(cuCtxGetStreamPriorityRange(0, 0));
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        CUstream s;
        int got = 77;
        NEED(cuStreamCreateWithPriority(&s, CU_STREAM_NON_BLOCKING, wanted[i]));
        R(cuStreamGetPriority(s, &got));
        FACT("priority %d for %d", got, wanted[i]);
        R(cuStreamDestroy(s));
    }
    CUstream s;
    R(cuStreamCreateWithPriority(&s, 2, 0));
    R(cuStreamCreateWithPriority(0, 0, 0));
}

CASE(cuStreamGetFlags)
{
    CUstream s;
    unsigned int flags = 77;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    R(cuStreamGetFlags(s, &flags));
    FACT("flags %u", flags);
    R(cuStreamGetFlags(0, &flags));
    FACT("default stream: flags %u", flags);
    R(cuStreamGetFlags(CU_STREAM_LEGACY, &flags));
    FACT("legacy stream: flags %u", flags);
    R(cuStreamGetFlags(CU_STREAM_PER_THREAD, &flags));
    FACT("per-thread stream: flags %u", flags);
    R(cuStreamGetFlags(s, 0));
    R(cuStreamDestroy(s));
}

CASE(cuStreamGetPriority)
{
    int priority = 77;
    R(cuStreamGetPriority(0, &priority));
    FACT("default stream: priority %d", priority);
    R(cuStreamGetPriority(CU_STREAM_PER_THREAD, &priority));
    FACT("per-thread stream: priority %d", priority);
    R(cuStreamGetPriority(0, 0));
}

CASE(cuStreamGetCtx)
{
    CUstream s;
    CUcontext c = 0;
    CUgreenCtx green = (CUgreenCtx)8;
    NEED(cuStreamCreate(&s, 0));
    R((cuStreamGetCtx)(s, &c));
    SAME(c, context);
    c = 0;
    R((cuStreamGetCtx)(0, &c));
    SAME(c, context);
    R((cuStreamGetCtx)(s, 0));
    c = 0;
    R(cuStreamGetCtx_v2(s, &c, &green));
    SAME(c, context);
    SAME(green, (CUgreenCtx)0);
    green = (CUgreenCtx)8;
    R(cuStreamGetCtx_v2(CU_STREAM_PER_THREAD, &c, &green));
    SAME(green, (CUgreenCtx)0);
    green = (CUgreenCtx)8;
    R(cuStreamGetGreenCtx(s, &green));
    SAME(green, (CUgreenCtx)0);
    green = (CUgreenCtx)8;
    R(cuStreamGetGreenCtx(0, &green));
    SAME(green, (CUgreenCtx)0);
    R(cuStreamDestroy(s));
}

CASE(cuStreamGetId)
{
    CUstream s, t;
    unsigned long long a = 0, b = 0, d = 0, l = 0, p = 0;
    CUdevice dev = 77;
    NEED(cuStreamCreate(&s, 0));
    NEED(cuStreamCreate(&t, 0));
    R(cuStreamGetId(s, &a));
    R(cuStreamGetId(t, &b));
    SAME(a, b);
    R(cuStreamGetId(0, &d));
    R(cuStreamGetId(CU_STREAM_LEGACY, &l));
    R(cuStreamGetId(CU_STREAM_PER_THREAD, &p));
    SAME(d, l);
    SAME(d, p);
    SAME(a, d);
    R(cuStreamGetId(s, 0));
    R(cuStreamGetDevice(s, &dev));
    SAME(dev, device);
    dev = 77;
    R(cuStreamGetDevice(0, &dev));
    SAME(dev, device);
    R(cuStreamGetDevice(s, 0));
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(t));
}

CASE(cuStreamDestroy)
{
    R(cuStreamDestroy(0));
    R(cuStreamDestroy(CU_STREAM_LEGACY));
    R(cuStreamDestroy(CU_STREAM_PER_THREAD));
}

/* A word of device memory that is 0, and a stream that waits until it is 1. */
static CUdeviceptr word;
static CUstream held, writer;
static int hold(void)
{
    return cuMemAlloc(&word, 64) || cuMemsetD8(word, 0, 64) || cuCtxSynchronize() || cuStreamCreate(&held, CU_STREAM_NON_BLOCKING) ||
        cuStreamCreate(&writer, CU_STREAM_NON_BLOCKING) || cuStreamWaitValue32(held, word, 1, CU_STREAM_WAIT_VALUE_EQ);
}
static void let_go(void)
{
    R(cuStreamWriteValue32(writer, word, 1, 0));
    R(cuStreamSynchronize(held));
    R(cuStreamDestroy(held));
    R(cuStreamDestroy(writer));
    R(cuMemFree(word));
}

CASE(cuStreamQuery)
{
    R(cuStreamQuery(0));
    R(cuStreamQuery(CU_STREAM_LEGACY));
    R(cuStreamQuery(CU_STREAM_PER_THREAD));
    if (hold())
        return;
    R(cuStreamQuery(held));
    R(cuStreamQuery(writer));
    let_go();
}

CASE(cuStreamSynchronize)
{
    R(cuStreamSynchronize(0));
    R(cuStreamSynchronize(CU_STREAM_LEGACY));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
}

CASE(cuStreamWaitEvent)
{
    CUevent e;
    NEED(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    if (hold())
        return;
    R(cuEventRecord(e, held));
    R(cuStreamWaitEvent(writer, e, 2));
    R(cuStreamWaitEvent(writer, e, CU_EVENT_WAIT_EXTERNAL));
    R(cuStreamWaitEvent(writer, 0, 0));
    CUstream third;
    NEED(cuStreamCreate(&third, CU_STREAM_NON_BLOCKING));
    R(cuStreamWaitEvent(third, e, 0));
    R(cuStreamQuery(third));
    let_go();
    R(cuStreamSynchronize(third));
    R(cuStreamDestroy(third));
    R(cuEventDestroy(e));
}

CASE(cuStreamWriteValue)
{
    CUdeviceptr d;
    CUstream s;
    uint64_t got[4] = {0};
    NEED(cuMemAlloc(&d, 32));
    NEED(cuStreamCreate(&s, 0));
    R(cuMemsetD8(d, 0, 32));
    R(cuStreamWriteValue32(s, d, 0x11223344, 0));
    R(cuStreamWriteValue32(s, d + 4, 0x55667788, 0));
    R(cuStreamWriteValue64(s, d + 8, 0x1122334455667788ull, 0));
    R(cuStreamWriteValue32(0, d + 16, 9, 0));
    R(cuStreamWriteValue64(CU_STREAM_PER_THREAD, d + 24, 10, 0));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    R(cuStreamSynchronize(s));
    R(cuMemcpyDtoH(got, d, 32));
    FACT("words %llx %llx %llx %llx", (unsigned long long)got[0], (unsigned long long)got[1], (unsigned long long)got[2],
         (unsigned long long)got[3]);
    R(cuStreamWriteValue32(s, d, 1, CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER));
    R(cuStreamWriteValue32(s, d, 1, 2));
    R(cuStreamWriteValue32(s, d + 1, 1, 0));
    R(cuStreamWriteValue64(s, d + 4, 1, 0));
    R(cuStreamWriteValue32(s, 0, 1, 0));
    R(cuStreamWriteValue64(s, (CUdeviceptr)0x1000, 1, 0));
    R(cuStreamSynchronize(s));
    R(cuStreamDestroy(s));
    R(cuMemFree(d));
}

CASE(cuStreamWaitValue)
{
    CUdeviceptr d;
    CUstream s, w;
    NEED(cuMemAlloc(&d, 32));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamCreate(&w, CU_STREAM_NON_BLOCKING));
    R(cuMemsetD8(d, 0, 32));
    R(cuCtxSynchronize());
    const unsigned int flags[] = {CU_STREAM_WAIT_VALUE_GEQ, CU_STREAM_WAIT_VALUE_EQ, CU_STREAM_WAIT_VALUE_AND};
    for (unsigned i = 0; i < 3; i++) {
        R(cuMemsetD8(d, 0, 32));
        R(cuCtxSynchronize());
        R(cuStreamWaitValue32(s, d, 6, flags[i]));
        FACT("flags %u: %s", flags[i], cuStreamQuery(s) == CUDA_ERROR_NOT_READY ? "waits" : "does not wait");
        R(cuStreamWriteValue32(w, d, 6, 0));
        R(cuStreamSynchronize(s));
        R(cuStreamWaitValue64(s, d + 8, 6, flags[i]));
        FACT("flags %u, 64 bits: %s", flags[i], cuStreamQuery(s) == CUDA_ERROR_NOT_READY ? "waits" : "does not wait");
        R(cuStreamWriteValue64(w, d + 8, 7, 0));
        if (flags[i] == CU_STREAM_WAIT_VALUE_EQ) {
            FACT("7 is not 6: %s", cuStreamQuery(s) == CUDA_ERROR_NOT_READY ? "waits" : "does not wait");
            R(cuStreamWriteValue64(w, d + 8, 6, 0));
        }
        R(cuStreamSynchronize(s));
    }
    R(cuStreamWaitValue32(s, d, 0, CU_STREAM_WAIT_VALUE_NOR));
    R(cuStreamSynchronize(s));
    R(cuStreamWaitValue32(s, d, 0, CU_STREAM_WAIT_VALUE_FLUSH));
    R(cuStreamWaitValue32(s, d, 0, 4));
    R(cuStreamWaitValue32(s, d + 2, 0, 0));
    R(cuStreamWaitValue64(s, d + 4, 0, 0));
    R(cuStreamWaitValue32(s, 0, 0, 0));
    R(cuStreamSynchronize(s));
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(w));
    R(cuMemFree(d));
}

CASE(cuStreamWaitValue_v1)
{
    CUdeviceptr d;
    CUstreamBatchMemOpParams op;
    NEED(cuMemAlloc(&d, 32));
    R(cuMemsetD8(d, 0, 32));
    R(wait32_v1(0, d, 0, 0));
    R(wait64_v1(0, d, 0, 0));
    R(write32_v1(0, d, 0, 0));
    R(write64_v1(0, d, 0, 0));
    memset(&op, 0, sizeof op);
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = d;
    R(batch_v1(0, 1, &op, 0));
    R(cuMemFree(d));
}

CASE(cuStreamBatchMemOp)
{
    CUdeviceptr d;
    CUstream s, w;
    CUstreamBatchMemOpParams op[6];
    uint64_t got[4] = {0};
    NEED(cuMemAlloc(&d, 32));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamCreate(&w, CU_STREAM_NON_BLOCKING));
    R(cuMemsetD8(d, 0, 32));
    R(cuCtxSynchronize());
    memset(op, 0xee, sizeof op);
    op[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op[0].writeValue.address = d;
    op[0].writeValue.value = 5;
    op[0].writeValue.flags = 0;
    op[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_64;
    op[1].waitValue.address = d + 16;
    op[1].waitValue.value64 = 9;
    op[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    op[2].memoryBarrier.operation = CU_STREAM_MEM_OP_BARRIER;
    op[2].memoryBarrier.flags = CU_STREAM_MEMORY_BARRIER_TYPE_GPU;
    op[3].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    op[3].writeValue.address = d + 8;
    op[3].writeValue.value64 = 1ull << 40;
    op[3].writeValue.flags = 0;
    op[4].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op[4].waitValue.address = d;
    op[4].waitValue.value = 5;
    op[4].waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    R(cuStreamBatchMemOp(s, 5, op, 0));
    R(cuStreamWriteValue64(w, d + 16, 9, 0));
    R(cuStreamSynchronize(s));
    R(cuMemcpyDtoH(got, d, 32));
    FACT("words %llx %llx %llx", (unsigned long long)got[0], (unsigned long long)got[1], (unsigned long long)got[2]);
    R(cuStreamBatchMemOp(0, 1, op, 0));
    R(cuStreamBatchMemOp(CU_STREAM_PER_THREAD, 1, op, 0));
    R(cuCtxSynchronize());
    R(cuStreamBatchMemOp(s, 0, op, 0));
    R(cuStreamBatchMemOp(s, 1, op, 1));
    op[2].memoryBarrier.flags = 2;
    R(cuStreamBatchMemOp(s, 1, op + 2, 0));
    op[2].memoryBarrier.flags = 0;
    R(cuStreamBatchMemOp(s, 1, op + 2, 0));
    op[2].operation = 7;
    R(cuStreamBatchMemOp(s, 1, op + 2, 0));
    op[5].flushRemoteWrites.operation = CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES;
    op[5].flushRemoteWrites.flags = 0;
    R(cuStreamBatchMemOp(s, 1, op + 5, 0));
    op[0].writeValue.address = 0;
    R(cuStreamBatchMemOp(s, 1, op, 0));
    op[0].writeValue.address = d + 1;
    R(cuStreamBatchMemOp(s, 1, op, 0));
    op[0].writeValue.address = d;
    op[0].writeValue.flags = 4;
    R(cuStreamBatchMemOp(s, 1, op, 0));
    R(cuStreamSynchronize(s));
    CUstreamBatchMemOpParams *many = malloc(257 * sizeof *many);
    memset(many, 0, 257 * sizeof *many);
    for (unsigned i = 0; i < 257; i++) {
        many[i].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
        many[i].writeValue.address = d;
        many[i].writeValue.value = i;
    }
    R(cuStreamBatchMemOp(s, 255, many, 0));
    R(cuStreamBatchMemOp(s, 257, many, 0));
    R(cuStreamSynchronize(s));
    free(many);
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(w));
    R(cuMemFree(d));
}

static void say_attribute(CUstream s, const char *which, unsigned int number)
{
    CUlaunchAttributeValue value;
    memset(&value, 0xee, sizeof value);
    CUresult result = cuStreamGetAttribute(s, (CUstreamAttrID)number, &value);
    const char *name = "?";
    cuGetErrorName(result, &name);
    if (result)
        FACT("%s: attribute %u = %s", which, number, name);
    else if (number == CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW)
        FACT("%s: window of %zu bytes, ratio %g, properties %d %d, address %s", which, value.accessPolicyWindow.num_bytes,
             value.accessPolicyWindow.hitRatio, (int)value.accessPolicyWindow.hitProp, (int)value.accessPolicyWindow.missProp,
             value.accessPolicyWindow.base_ptr ? "set" : "NULL");
    else if (number == CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP)
        FACT("%s: domains %u %u", which, value.memSyncDomainMap.default_, value.memSyncDomainMap.remote);
    else
        FACT("%s: attribute %u = %d", which, number, value.priority);
}

CASE(cuStreamGetAttribute)
{
    CUstream s;
    CUlaunchAttributeValue value;
    NEED(cuStreamCreateWithPriority(&s, CU_STREAM_NON_BLOCKING, -2));
    for (unsigned int number = 0; number < 20; number++)
        say_attribute(s, "stream", number);
    for (unsigned int number = 0; number < 20; number++)
        say_attribute(0, "default stream", number);
    say_attribute(CU_STREAM_PER_THREAD, "per-thread stream", CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY);
    (void)value;
    R(cuStreamDestroy(s));
}

CASE(cuStreamSetAttribute)
{
    CUstream s, t;
    CUdeviceptr d;
    CUlaunchAttributeValue value;
    int priority = 77;
    NEED(cuMemAlloc(&d, 1 << 20));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamCreate(&t, CU_STREAM_NON_BLOCKING));
    memset(&value, 0, sizeof value);
    value.syncPolicy = CU_SYNC_POLICY_BLOCKING_SYNC;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
    say_attribute(s, "set", CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY);
    value.syncPolicy = (CUsynchronizationPolicy)9;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY, &value));
    value.priority = -3;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
    say_attribute(s, "set", CU_LAUNCH_ATTRIBUTE_PRIORITY);
    R(cuStreamGetPriority(s, &priority));
    FACT("priority %d", priority);
    value.priority = -100;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value));
    say_attribute(s, "set", CU_LAUNCH_ATTRIBUTE_PRIORITY);
    R(cuStreamGetPriority(s, &priority));
    FACT("priority %d", priority);
    memset(&value, 0, sizeof value);
    value.memSyncDomain = CU_LAUNCH_MEM_SYNC_DOMAIN_REMOTE;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN, &value));
    say_attribute(s, "set", CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN);
    memset(&value, 0, sizeof value);
    value.memSyncDomainMap.default_ = 2;
    value.memSyncDomainMap.remote = 3;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP, &value));
    say_attribute(s, "set", CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP);
    memset(&value, 0, sizeof value);
    value.accessPolicyWindow.base_ptr = (void *)d;
    value.accessPolicyWindow.num_bytes = 1 << 16;
    value.accessPolicyWindow.hitRatio = 0.5f;
    value.accessPolicyWindow.hitProp = CU_ACCESS_PROPERTY_PERSISTING;
    value.accessPolicyWindow.missProp = CU_ACCESS_PROPERTY_STREAMING;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &value));
    say_attribute(s, "set", CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW);
    value.accessPolicyWindow.hitRatio = 2.0f;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &value));
    R(cuStreamCopyAttributes(t, s));
    for (unsigned int number = 0; number < 20; number++)
        say_attribute(t, "copy", number);
    R(cuStreamGetPriority(t, &priority));
    FACT("copy: priority %d", priority);
    memset(&value, 0, sizeof value);
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &value));
    say_attribute(s, "reset", CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW);
    value.cooperative = 1;
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &value));
    R(cuStreamSetAttribute(s, CU_LAUNCH_ATTRIBUTE_IGNORE, &value));
    R(cuStreamSetAttribute(s, (CUstreamAttrID)99, &value));
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(t));
    R(cuMemFree(d));
}

CASE(cuEventCreate)
{
    CUevent e;
    for (unsigned int flags = 0; flags < 4; flags++) {
        FACT("flags %u", flags);
        NEED(cuEventCreate(&e, flags));
        R(cuEventQuery(e));
        R(cuEventSynchronize(e));
        R(cuEventDestroy(e));
    }
    R(cuEventCreate(&e, CU_EVENT_INTERPROCESS));
    R(cuEventCreate(&e, 8));
    R(cuEventCreate(0, 0));
    R(cuEventDestroy(0));
}

CASE(cuEventRecord)
{
    CUevent e;
    NEED(cuEventCreate(&e, CU_EVENT_DEFAULT));
    R(cuEventRecord(e, 0));
    R(cuEventSynchronize(e));
    R(cuEventRecord(e, CU_STREAM_PER_THREAD));
    R(cuEventSynchronize(e));
    R(cuEventRecord(0, 0));
    R(cuEventRecordWithFlags(e, 0, 0));
    R(cuEventRecordWithFlags(e, 0, CU_EVENT_RECORD_EXTERNAL));
    R(cuEventRecordWithFlags(e, 0, 2));
    R(cuEventSynchronize(e));
    if (hold())
        return;
    R(cuEventRecord(e, held));
    R(cuEventQuery(e));
    let_go();
    R(cuEventQuery(e));
    R(cuEventSynchronize(e));
    R(cuEventQuery(0));
    R(cuEventSynchronize(0));
    R(cuEventDestroy(e));
}

CASE(cuEventElapsedTime)
{
    CUevent a, b, silent, never;
    float ms = -1;
    NEED(cuEventCreate(&a, 0));
    NEED(cuEventCreate(&b, 0));
    NEED(cuEventCreate(&never, 0));
    NEED(cuEventCreate(&silent, CU_EVENT_DISABLE_TIMING));
    R(cuEventRecord(a, 0));
    R(cuEventRecord(silent, 0));
    R(cuEventRecord(b, 0));
    R(cuEventSynchronize(b));
    R(elapsed_v1(&ms, a, b));
    FACT("%s", ms >= 0 ? "not negative" : "negative");
    R(elapsed_v2(&ms, a, b));
    R(elapsed_v2(&ms, a, a));
    FACT("%g to itself", ms);
    R(elapsed_v1(&ms, a, silent));
    R(elapsed_v2(&ms, silent, b));
    R(elapsed_v1(&ms, a, never));
    R(elapsed_v2(&ms, never, b));
    R(elapsed_v1(0, a, b));
    R(elapsed_v1(&ms, 0, b));
    R(elapsed_v2(&ms, a, 0));
    if (hold())
        return;
    R(cuEventRecord(b, held));
    R(elapsed_v1(&ms, a, b));
    R(elapsed_v2(&ms, a, b));
    let_go();
    R(cuEventDestroy(a));
    R(cuEventDestroy(b));
    R(cuEventDestroy(never));
    R(cuEventDestroy(silent));
}
