/*
 * Long copies of ordinary memory, in which several threads of the library take part.
 *
 *   copies threads    copies of several threads at once, of all sizes, at odd addresses
 *   copies fork       the same while the process is forked; the children make a copy, which is refused, and end
 *   copies capture    long copies while a stream of the process is captured
 *   copies one        on one processor, where nobody can help
 */
#define _GNU_SOURCE
#include <sched.h>

#include "exercise.h"

enum { THREADS = 4, MOST = 20 << 20 };

static int rounds;

static void fill(unsigned char *bytes, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)((i * 2654435761u + seed) >> 11);
}

static void expect_same(const unsigned char *got, const unsigned char *wanted, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != wanted[i])
            FAIL("%s: byte %zu of %zu is %d, not %d", what, i, n, got[i], wanted[i]);
}

/* Up and down again, each way by a call with a stream or without, and some of it changed on the device meanwhile. */
static void round_trip(CUdeviceptr memory, unsigned char *from, unsigned char *to, size_t n, unsigned seed, CUstream stream)
{
    fill(from, n, seed);
    memset(to, 0x5a, n + 1);
    if (seed & 1)
        CHECK(cuMemcpyHtoD(memory, from, n));
    else
        CHECK(cuMemcpyHtoDAsync(memory, from, n, stream));
    /* The caller's again: what is on its way is not changed by this. */
    unsigned char first = from[0], last = from[n - 1];
    from[0] = from[n - 1] = 0xee;
    CHECK(cuMemsetD8Async(memory + n / 2, 7, 1, seed & 1 ? 0 : stream));
    if (seed & 2)
        CHECK(cuMemcpyDtoHAsync(to, memory, n, seed & 1 ? 0 : stream));
    else {
        CHECK(cuStreamSynchronize(stream));
        CHECK(cuMemcpyDtoH(to, memory, n));
    }
    from[0] = first;
    from[n - 1] = last;
    from[n / 2] = 7;
    expect_same(to, from, n, "a round trip");
    EXPECT(to[n] == 0x5a);
}

static void *copy_thread(void *argument)
{
    static const size_t sizes[] = {1,       16384,   16385,          65536,    65537,    262144,         262145,
                                   524287,  524288,  524289,         1 << 20,  (1 << 20) + 1, (2 << 20) - 1, 3 << 20,
                                   5000011, 8 << 20, (8 << 20) + 63, 12345678, (16 << 20) + 4097};
    unsigned me = (unsigned)(intptr_t)argument, state = me * 7919 + 1;
    unsigned char *from = allocate(MOST + 64), *to = allocate(MOST + 64);
    CUdeviceptr memory;
    CUstream stream;
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuStreamCreate(&stream, me % 2 ? CU_STREAM_NON_BLOCKING : 0));
    CHECK(cuMemAlloc(&memory, MOST));
    for (int i = 0; i < rounds; i++) {
        state = state * 1664525 + 1013904223;
        size_t n = sizes[(i + me * 5) % (sizeof sizes / sizeof *sizes)];
        round_trip(memory + (state >> 20) % 32, from + (state >> 8) % 64, to + (state >> 14) % 63, n, state >> 5, stream);
    }
    CHECK(cuMemFree(memory));
    CHECK(cuStreamDestroy(stream));
    free(from), free(to);
    return 0;
}

static void start_threads(pthread_t *threads)
{
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], 0, copy_thread, (void *)(intptr_t)i) == 0);
}

static void join_threads(pthread_t *threads)
{
    for (int i = 0; i < THREADS; i++)
        EXPECT(pthread_join(threads[i], 0) == 0);
}

static void forks(void)
{
    pthread_t threads[THREADS];
    unsigned char *bytes = allocate(4 << 20);
    CUdeviceptr memory;
    memset(bytes, 1, 4 << 20);
    memory = to_device(bytes, 4 << 20);
    start_threads(threads);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            alarm(20);
            ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemcpyHtoD(memory, bytes, 4 << 20));
            ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemcpyDtoH(bytes, memory, 4 << 20));
            _exit(0);
        }
        int status;
        EXPECT(waitpid(child, &status, 0) == child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            FAIL("a child ended with %#x", status);
        CHECK(cuMemcpyHtoD(memory, bytes, 4 << 20));
    }
    join_threads(threads);
}

static void captures(void)
{
    enum { N = 3 << 20 };
    unsigned char *from = allocate(MOST), *to = allocate(MOST);
    CUdeviceptr memory = 0, other = 0;
    CUstream captured, stream;
    CUgraph graph;
    CUgraphExec exec;
    CHECK(cuMemAlloc(&memory, MOST));
    CHECK(cuMemAlloc(&other, N));
    CHECK(cuStreamCreate(&captured, CU_STREAM_NON_BLOCKING));
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CUresult begun = cuStreamBeginCapture(captured, CU_STREAM_CAPTURE_MODE_RELAXED);
    if (begun == CUDA_ERROR_NOT_SUPPORTED)
        return; /* The software executor captures nothing. */
    CHECK(begun);
    fill(from, N, 3);
    /* A node of the graph, which reads the memory when it runs. */
    CHECK(cuMemcpyHtoDAsync(other, from, N, captured));
    /* Not captured: it is done now. */
    CHECK(cuMemcpyHtoDAsync(memory, from, N, stream));
    CHECK(cuMemcpyDtoHAsync(to, memory, N, stream));
    expect_same(to, from, N, "beside a capture");
    CHECK(cuStreamEndCapture(captured, &graph));
    CHECK(cuGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; i++) {
        fill(from, N, 10 + i);
        CHECK(cuGraphLaunch(exec, stream));
        CHECK(cuStreamSynchronize(stream));
        CHECK(cuMemcpyDtoH(to, other, N));
        expect_same(to, from, N, "a captured copy");
    }
    CHECK(cuGraphExecDestroy(exec));
    CHECK(cuGraphDestroy(graph));
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    pthread_t threads[THREADS];
    alarm(300);
    if (!strcmp(what, "one")) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(sched_getcpu(), &set);
        EXPECT(sched_setaffinity(0, sizeof set, &set) == 0);
    }
    begin();
    rounds = 19;
    if (!strcmp(what, "threads")) {
        start_threads(threads);
        join_threads(threads);
    } else if (!strcmp(what, "one")) {
        copy_thread(0);
    } else if (!strcmp(what, "fork")) {
        rounds = 8;
        forks();
    } else if (!strcmp(what, "capture")) {
        captures();
    } else
        FAIL("what is %s?", what);
    printf("copies %s: right\n", what);
    return 0;
}
