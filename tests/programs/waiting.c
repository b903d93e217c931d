/*
 * Waiting and asking: what is told without asking the worker is true.
 *
 *   waiting results   what a kernel has written is there when a wait for its stream, event or context returns
 *   waiting idle      10,000 questions about what is over already; prints nothing
 *   waiting busy      what is over does not stay so once there is new work, from whichever thread and stream
 *   waiting rounds    2,000 launches that are waited for
 *   waiting freed [exactly]
 *                     memory that was freed is gone, though it may be what the next allocation gets; and all of it is there again
 */
#include "exercise.h"

static CUfunction poke, spin;
static int *words;

static CUdeviceptr at(int i) { return (CUdeviceptr)(uintptr_t)&words[i]; }

static void store(int i, int value, CUstream stream)
{
    CUdeviceptr where = at(i);
    void *params[] = {&where, &value};
    CHECK(cuLaunchKernel(poke, 1, 1, 1, 1, 1, 1, 0, stream, params, 0));
}

static void hold(int i, CUstream stream)
{
    CUdeviceptr flag = at(i);
    void *params[] = {&flag};
    words[i] = 0;
    CHECK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, params, 0));
}

static void let_go(int i) { __atomic_store_n(&words[i], 1, __ATOMIC_SEQ_CST); }

static void is(int i, int value, const char *what)
{
    int found = __atomic_load_n(&words[i], __ATOMIC_SEQ_CST);
    if (found != value)
        FAIL("%s: %d, not %d", what, found, value);
}

static void results(void)
{
    CUstream own, blocking;
    CUevent event;
    CHECK(cuStreamCreate(&own, CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    for (int i = 1; i <= 300; i++) {
        store(0, i, own);
        CHECK(cuStreamSynchronize(own));
        is(0, i, "own stream");
        store(0, -i, 0);
        CHECK(cuStreamSynchronize(0));
        is(0, -i, "default stream");
        store(0, i, own);
        CHECK(cuEventRecord(event, own));
        CHECK(cuEventSynchronize(event));
        is(0, i, "event");
        CHECK(cuEventQuery(event));
        store(0, -i, own);
        CHECK(cuCtxSynchronize());
        is(0, -i, "context");
        CHECK(cuStreamQuery(own));
    }
    /* From here on the default stream has others that wait for it. */
    CHECK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    for (int i = 1; i <= 100; i++) {
        store(0, i, blocking);
        CHECK(cuStreamSynchronize(0));
        is(0, i, "the default stream waits for a blocking one");
        store(0, -i, blocking);
        CHECK(cuStreamSynchronize(blocking));
        is(0, -i, "blocking stream");
    }
    CHECK(cuStreamDestroy(own));
    CHECK(cuStreamDestroy(blocking));
    CHECK(cuEventDestroy(event));
}

static void idle(void)
{
    CUstream stream;
    CUevent event;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&event, 0));
    store(0, 7, stream);
    CHECK(cuEventRecord(event, stream));
    CHECK(cuStreamSynchronize(stream));
    for (int i = 0; i < 2500; i++) {
        CHECK(cuStreamQuery(stream));
        CHECK(cuStreamSynchronize(stream));
        CHECK(cuEventQuery(event));
        CHECK(cuEventSynchronize(event));
    }
}

static CUstream shared;
static CUevent marked;
static pthread_barrier_t step;

/* Work in the streams that the other thread has seen idle, in turn. */
static void *other_thread(void *unused)
{
    (void)unused;
    CHECK(cuCtxSetCurrent(context));
    for (int i = 0; i < 200; i++) {
        pthread_barrier_wait(&step);
        hold(1, shared);
        CHECK(cuEventRecord(marked, shared));
        pthread_barrier_wait(&step);
    }
    return 0;
}

static void busy(void)
{
    CUstream stream;
    CUevent event;
    pthread_t thread;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuStreamCreate(&shared, CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&event, 0));
    CHECK(cuEventCreate(&marked, 0));
    CHECK(cuEventQuery(event)); /* never recorded */
    for (int i = 0; i < 100; i++) {
        hold(0, stream);
        CHECK(cuEventRecord(event, stream));
        ANSWERS(CUDA_ERROR_NOT_READY, cuEventQuery(event));
        ANSWERS(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
        let_go(0);
        CHECK(cuEventSynchronize(event));
        CHECK(cuEventQuery(event));
        CHECK(cuStreamQuery(stream));
        /* Recorded again where nothing is to be waited for: complete again. */
        CHECK(cuEventRecord(event, stream));
        CHECK(cuStreamSynchronize(stream));
        CHECK(cuEventQuery(event));
    }
    pthread_barrier_init(&step, 0, 2);
    EXPECT(pthread_create(&thread, 0, other_thread, 0) == 0);
    for (int i = 0; i < 200; i++) {
        CHECK(cuStreamSynchronize(shared));
        CHECK(cuStreamQuery(shared));
        CHECK(cuEventQuery(marked));
        pthread_barrier_wait(&step);
        pthread_barrier_wait(&step);
        ANSWERS(CUDA_ERROR_NOT_READY, cuStreamQuery(shared));
        ANSWERS(CUDA_ERROR_NOT_READY, cuEventQuery(marked));
        let_go(1);
        if (i % 2)
            CHECK(cuEventSynchronize(marked));
        else
            CHECK(cuCtxSynchronize());
        CHECK(cuEventQuery(marked));
    }
    pthread_join(thread, 0);
    /* A graph records an event as well. The software executor has none. */
    CUgraph graph;
    CUgraphNode node[2];
    CUgraphExec exec;
    CHECK(cuEventQuery(event));
    CUresult made = cuGraphCreate(&graph, 0);
    if (made == CUDA_ERROR_NOT_SUPPORTED)
        return;
    CHECK(made);
    CUdeviceptr flag = at(2);
    void *params[] = {&flag};
    CUDA_KERNEL_NODE_PARAMS kernel = {.func = spin, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1,
        .blockDimX = 1, .blockDimY = 1, .blockDimZ = 1, .kernelParams = params};
    CHECK(cuGraphAddKernelNode(&node[0], graph, 0, 0, &kernel));
    CHECK(cuGraphAddEventRecordNode(&node[1], graph, node, 1, event));
    CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    for (int i = 0; i < 20; i++) {
        words[2] = 0;
        CHECK(cuGraphLaunch(exec, stream));
        ANSWERS(CUDA_ERROR_NOT_READY, cuEventQuery(event));
        let_go(2);
        CHECK(cuStreamSynchronize(stream));
        CHECK(cuEventQuery(event));
    }
    CHECK(cuGraphExecDestroy(exec));
    CHECK(cuGraphDestroy(graph));
}

static void rounds(void)
{
    CUstream stream;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < 2000; i++) {
        store(0, i, stream);
        CHECK(cuStreamSynchronize(stream));
        is(0, i, "round");
    }
}

/* Where nobody else uses the device. */
static int exactly;

static void freed(void)
{
    CUdeviceptr p, q;
    size_t before, after, total;
    CUstream stream;
    char byte = 0;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuMemGetInfo(&before, &total));
    for (int i = 0; i < 2500; i++) {
        CHECK(cuMemAlloc(&p, 1 << 20));
        CHECK(cuMemFree(p));
    }
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemFree(p));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(&byte, p, 1));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(p, &byte, 1));
    CHECK(cuMemAlloc(&p, 1 << 20));
    CHECK(cuMemAlloc(&q, 1 << 20));
    EXPECT(p + (1 << 20) <= q || q + (1 << 20) <= p);
    /* Freed while the device still writes it: cuMemFree waits for that. */
    for (int i = 0; i < 50; i++) {
        CHECK(cuMemsetD8Async(p, i, 1 << 20, stream));
        store(0, i, stream);
        CHECK(cuMemFree(p));
        is(0, i, "cuMemFree waits for the context's work");
        CHECK(cuMemAlloc(&p, 1 << 20));
        CHECK(cuMemsetD8(p, 200, 1 << 20));
        CHECK(cuMemcpyDtoH(&byte, p + (1 << 20) - 1, 1));
        EXPECT((unsigned char)byte == 200);
    }
    CHECK(cuMemFree(p));
    CHECK(cuMemFree(q));
    CHECK(cuMemGetInfo(&after, &total));
    EXPECT(!exactly || after == before);
    /* All of the device's memory can be allocated again. */
    CHECK(cuMemAlloc(&p, 1 << 20));
    CHECK(cuMemFree(p));
    CHECK(cuMemGetInfo(&after, &total));
    EXPECT(!exactly || after == before);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    void *p;
    exactly = argc > 2 && !strcmp(argv[2], "exactly");
    begin();
    poke = function("poke");
    spin = function("spin_until");
    CHECK(cuMemHostAlloc(&p, 4096, CU_MEMHOSTALLOC_PORTABLE));
    words = p;
    if (!strcmp(what, "results"))
        results();
    else if (!strcmp(what, "idle"))
        idle();
    else if (!strcmp(what, "busy"))
        busy();
    else if (!strcmp(what, "rounds"))
        rounds();
    else if (!strcmp(what, "freed"))
        freed();
    else
        FAIL("waiting results | idle | busy | rounds | freed");
    CHECK(cuCtxSynchronize());
    printf("waiting %s: right\n", what);
    return 0;
}
