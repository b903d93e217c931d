/* What the programs that measure the driver API share: a context, a kernel, and ways to time a call. */
#define _GNU_SOURCE
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels_ptx.h"

#define CHECK(call) do { CUresult r_ = (call); if (r_) { fprintf(stderr, "%s: %d\n", #call, (int)r_); exit(1); } } while (0)
/* What may be refused is left out, and that it was is said: that is for the programs of tests/parity to compare. */
#define CAN(name, call) ({ CUresult r_ = (call); if (r_) printf("note: %s is refused with %d\n", name, (int)r_); r_ == 0; })

static CUdevice device;
static CUcontext context;
static CUmodule module;
static CUfunction add;
static CUdeviceptr data;
static const int count = 1024;

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

static double median(double *samples, int n)
{
    qsort(samples, n, sizeof *samples, compare);
    return samples[n / 2];
}

static void say(const char *name, double value, const char *unit)
{
    printf("time: %s\t%.6g\t%s\n", name, value, unit);
    fflush(stdout);
}

static void begin(void)
{
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, kernels_ptx));
    CHECK(cuModuleGetFunction(&add, module, "add_to_all"));
    CHECK(cuMemAlloc(&data, 4 * count));
    CHECK(cuMemsetD8(data, 0, 4 * count));
}

static void launch(CUstream stream)
{
    int value = 1, n = count;
    void *arguments[] = {&data, &value, &n};
    CHECK(cuLaunchKernel(add, 4, 1, 1, 256, 1, 1, 0, stream, arguments, 0));
}

/* The cost of one call: in batches that the launch queue holds, with a wait between them that is not counted. */
enum { BATCH = 200, BATCHES = 60, MOST = 4000 };
static double samples[MOST];

#define MEASURE(name, before, body, after) do { \
    before; body; after; \
    for (int b_ = 0; b_ < BATCHES; b_++) { \
        before; \
        double t_ = now(); \
        for (int i_ = 0; i_ < BATCH; i_++) { body; } \
        samples[b_] = (now() - t_) / BATCH * 1e6; \
        after; \
    } \
    say(name, median(samples, BATCHES), "µs"); \
} while (0)

/* The same, each call alone. */
#define EACH(name, times, body) do { \
    body; \
    for (int b_ = 0; b_ < (times); b_++) { \
        double t_ = now(); \
        body; \
        samples[b_] = (now() - t_) * 1e6; \
    } \
    say(name, median(samples, (times)), "µs"); \
} while (0)
