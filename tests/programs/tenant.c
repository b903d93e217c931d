/*
 * One of several that share a device: works for a while, checks its results, and says how much it has done.
 *
 *   tenant steps SECONDS N K [WARM]  steps of K kernels over N integers, each waited for, its result compared
 *   tenant flood SECONDS N K     the same kernels, a thousand steps of them between waits
 *   tenant latency SECONDS N K   a step every 5 ms; how long from its first launch to its end: median and 99th percentile
 *
 * With WARM, it waits for a line of standard input after that, and works for so many seconds before it counts anything. Prints "begins" when it is ready, then, at its end, "steps S in T s" or "latency M P us". The results are exact.
 */
#include "exercise.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    enum { SEEN = 1024, SAMPLES = 1 << 16 };
    static int seen[SEEN];
    static double took[SAMPLES];
    if (argc != 5 && argc != 6)
        FAIL("tenant steps|flood|latency SECONDS N K [WARM]");
    const char *mode = argv[1];
    double seconds = atof(argv[2]);
    int n = atoi(argv[3]), kernels = atoi(argv[4]);
    EXPECT(n >= SEEN && kernels > 0 && seconds > 0);
    begin();
    CUfunction f = function("add_to_all");
    CUdeviceptr data;
    CUstream stream;
    CHECK(cuMemAlloc(&data, (size_t)n * 4));
    CHECK(cuMemsetD32(data, 0, (size_t)n));
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuCtxSynchronize());
    printf("begins\n");
    fflush(stdout);
    unsigned expected = 0;
    long steps = 0, before = 0;
    double warm = 0;
    if (argc == 6) {
        EXPECT(getchar() != EOF);
        warm = atof(argv[5]);
    }
    int samples = 0, flood = !strcmp(mode, "flood"), latency = !strcmp(mode, "latency");
    double start = now(), counts = start + warm, end = counts + seconds;
    while (now() < end) {
        if (!before && now() >= counts) {
            start = now();
            before = steps;
        }
        for (int step = 0; step < (flood ? 1000 : 1) && (step == 0 || now() < end); step++) {
            double begun = now();
            for (int k = 0; k < kernels; k++)
                CHECK(add_to_all(f, data, (int)(steps % 7) + k, n, stream));
            for (int k = 0; k < kernels; k++)
                expected += (unsigned)((int)(steps % 7) + k);
            steps++;
            if (latency) {
                CHECK(cuStreamSynchronize(stream));
                if (samples < SAMPLES)
                    took[samples++] = now() - begun;
                usleep(5000);
            }
        }
        /* Another stretch each time. */
        size_t from = (size_t)(steps % (n / SEEN)) * SEEN;
        CHECK(cuMemcpyDtoHAsync(seen, data + from * 4, sizeof seen, stream));
        CHECK(cuStreamSynchronize(stream));
        for (int i = 0; i < SEEN; i++)
            if ((unsigned)seen[i] != expected)
                FAIL("after %ld steps %d, not %u", steps, seen[i], expected);
    }
    if (latency) {
        qsort(took, (size_t)samples, sizeof *took, compare);
        printf("latency %.1f %.1f us\n", took[samples / 2] * 1e6, took[samples * 99 / 100] * 1e6);
    } else {
        printf("steps %ld in %.3f s\n", steps - before, now() - start);
    }
    CHECK(cuStreamDestroy(stream));
    CHECK(cuMemFree(data));
    return 0;
}
