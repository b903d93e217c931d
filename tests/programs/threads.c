/*
 * Threads of one process on one context.
 *
 *   threads events    work that depends on other threads' work, handed on by events
 *   threads stream    the same on one stream that all threads use
 *   threads write     a thread behind a full launch queue and one in cuMemFree, until a third writes the word that all wait for
 *                     from another stream
 *   threads host      the same, the word written by the CPU
 */
#include "exercise.h"

enum { THREADS = 4, TURNS = THREADS * 100, N = 3000, LAUNCHES = 3000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static int use_events;
static CUstream streams[THREADS];
static CUevent events[THREADS];
static CUdeviceptr buffers[2];
static CUfunction adds;

/* Turn t: the second buffer becomes the first one plus t + 1. A turn that is too early or too late spoils the sum for good. */
static void *relay_thread(void *argument)
{
    int me = (int)(intptr_t)argument;
    CHECK(cuCtxSetCurrent(context));
    for (int mine = me; mine < TURNS; mine += THREADS) {
        pthread_mutex_lock(&mutex);
        while (turn != mine)
            pthread_cond_wait(&changed, &mutex);
        pthread_mutex_unlock(&mutex);

        CUstream stream = use_events ? streams[me] : streams[0];
        CUdeviceptr from = buffers[mine % 2], to = buffers[(mine + 1) % 2];
        if (use_events && mine > 0)
            CHECK(cuStreamWaitEvent(stream, events[(me + THREADS - 1) % THREADS], 0));
        CHECK(cuMemcpyDtoDAsync(to, from, N * 4, stream));
        CHECK(add_to_all(adds, to, mine + 1, N, stream));
        if (use_events)
            CHECK(cuEventRecord(events[me], stream));

        pthread_mutex_lock(&mutex);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}

static void relay(int with_events)
{
    pthread_t threads[THREADS];
    static int data[N];
    use_events = with_events;
    for (int i = 0; i < 2; i++) {
        CHECK(cuMemAlloc(&buffers[i], sizeof data));
        CHECK(cuMemsetD32(buffers[i], 0, N));
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
        CHECK(cuEventCreate(&events[i], CU_EVENT_DISABLE_TIMING));
    }
    CHECK(cuCtxSynchronize());
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], 0, relay_thread, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], 0);
    CHECK(cuCtxSynchronize());
    CHECK(cuMemcpyDtoH(data, buffers[TURNS % 2], sizeof data));
    for (int i = 0; i < N; i++)
        if (data[i] != TURNS * (TURNS + 1) / 2)
            FAIL("element %d is %d, not %d", i, data[i], TURNS * (TURNS + 1) / 2);
    for (int i = 0; i < THREADS; i++) {
        CHECK(cuStreamDestroy(streams[i]));
        CHECK(cuEventDestroy(events[i]));
    }
}

static CUdeviceptr sums, to_free;
static volatile int launched, freed;

static void *launching_thread(void *unused)
{
    CHECK(cuCtxSetCurrent(context));
    for (int i = 0; i < LAUNCHES; i++) {
        CHECK(add_to_all(adds, sums, 1, 64, streams[0]));
        launched = i + 1;
    }
    return unused;
}

static void *freeing_thread(void *unused)
{
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuMemFree(to_free));
    freed = 1;
    return unused;
}

static void blocked(int by_cpu)
{
    pthread_t launching, freeing;
    volatile int *word = 0;
    int result[64];
    CUdeviceptr where;
    CHECK(cuStreamCreate(&streams[0], CU_STREAM_NON_BLOCKING));
    CHECK(cuStreamCreate(&streams[1], CU_STREAM_NON_BLOCKING));
    if (by_cpu) {
        CHECK(cuMemHostAlloc((void **)&word, 4096, 0));
        *word = 0;
        where = (CUdeviceptr)(uintptr_t)word;
    } else {
        CHECK(cuMemAlloc(&where, 4));
        CHECK(cuMemsetD32(where, 0, 1));
    }
    CHECK(cuMemAlloc(&sums, sizeof result));
    CHECK(cuMemsetD32(sums, 0, 64));
    CHECK(cuMemAlloc(&to_free, 1 << 20));
    CHECK(cuCtxSynchronize());

    CHECK(cuStreamWaitValue32(streams[0], where, 7, CU_STREAM_WAIT_VALUE_EQ));
    /* The stream uses what the other thread frees. */
    CHECK(cuMemsetD8Async(to_free, 1, 1 << 20, streams[0]));
    EXPECT(pthread_create(&launching, 0, launching_thread, 0) == 0);
    milliseconds_pass(300);
    EXPECT(pthread_create(&freeing, 0, freeing_thread, 0) == 0);
    milliseconds_pass(300);
    /* Nobody else's stream is held up. */
    CHECK(cuStreamQuery(streams[1]));
    EXPECT(!freed);
    if (launched == LAUNCHES)
        FAIL("%d launches fit into a queue of 1024 and the ring: the test does not test what it should", launched);
    if (by_cpu)
        *word = 7;
    else
        CHECK(cuStreamWriteValue32(streams[1], where, 7, 0));
    pthread_join(launching, 0);
    pthread_join(freeing, 0);
    EXPECT(freed);
    CHECK(cuCtxSynchronize());
    CHECK(cuMemcpyDtoH(result, sums, sizeof result));
    for (int i = 0; i < 64; i++)
        if (result[i] != LAUNCHES)
            FAIL("element %d is %d, not %d", i, result[i], LAUNCHES);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    alarm(120);
    begin();
    adds = function("add_to_all");
    if (!strcmp(what, "events"))
        relay(1);
    else if (!strcmp(what, "stream"))
        relay(0);
    else if (!strcmp(what, "write"))
        blocked(0);
    else if (!strcmp(what, "host"))
        blocked(1);
    else
        FAIL("what is %s?", what);
    printf("threads %s: right\n", what);
    return 0;
}
