/* What the programs that exercise the driver API share: a context with the kernels in it, and words with the test that runs them. */
#ifndef VGPU_TEST_EXERCISE_H
#define VGPU_TEST_EXERCISE_H

#include <cuda.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "kernels_ptx.h"

static inline void expect_result(CUresult result, CUresult expected, const char *call, const char *file, int line)
{
    const char *name = "?";
    if (result == expected)
        return;
    cuGetErrorName(result, &name);
    fprintf(stderr, "%s:%d: %s: %s (%d), not %d\n", file, line, call, name, result, expected);
    exit(1);
}
/* The call succeeds; the call answers exactly this. */
#define CHECK(call) expect_result(call, CUDA_SUCCESS, #call, __FILE__, __LINE__)
#define ANSWERS(expected, call) expect_result(call, (CUresult)(expected), #call, __FILE__, __LINE__)

static CUdevice device;
static CUcontext context;
static CUmodule module;

/* The device's primary context is current and has the kernels. */
static inline void begin(void)
{
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, kernels_ptx));
}

static inline CUfunction function(const char *name)
{
    CUfunction f;
    CHECK(cuModuleGetFunction(&f, module, name));
    return f;
}

static inline CUdeviceptr to_device(const void *host, size_t bytes)
{
    CUdeviceptr p;
    CHECK(cuMemAlloc(&p, bytes));
    CHECK(cuMemcpyHtoD(p, host, bytes));
    return p;
}

/* data[i] += value for n integers. */
static inline CUresult add_to_all(CUfunction f, CUdeviceptr data, int value, int n, CUstream stream)
{
    void *params[] = {&data, &value, &n};
    return cuLaunchKernel(f, (n + 255) / 256, 1, 1, 256, 1, 1, 0, stream, params, 0);
}

/* n integers that differ from seed to seed; added to in rounds and compared each time. */
static inline void compute(int seed, int rounds)
{
    enum { N = 5000 };
    static int before[N], after[N];
    int sum = 0;
    random_state = (uint32_t)seed * 2654435761u + 1;
    for (int i = 0; i < N; i++)
        before[i] = (int)(random_word() >> 8);
    CUfunction f = function("add_to_all");
    CUdeviceptr data = to_device(before, sizeof before);
    for (int round = 1; round <= rounds; round++) {
        sum += seed + round;
        CHECK(add_to_all(f, data, seed + round, N, 0));
        CHECK(cuMemcpyDtoH(after, data, sizeof after));
        for (int i = 0; i < N; i++)
            if (after[i] != before[i] + sum)
                FAIL("seed %d, round %d: element %d is %d, not %d", seed, round, i, after[i], before[i] + sum);
    }
    CHECK(cuMemFree(data));
}

/* Tells the test: the process's id, and a child's, in the file that VGPU_READY names. */
static inline void ready(pid_t child)
{
    const char *path = getenv("VGPU_READY");
    char fresh[500];
    if (!path)
        return;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "w");
    EXPECT(file);
    fprintf(file, "%d %d\n", (int)getpid(), (int)child);
    EXPECT(fclose(file) == 0 && rename(fresh, path) == 0);
}

/* The test has made the file that VGPU_STOP names. */
static inline int stopped(void)
{
    const char *path = getenv("VGPU_STOP");
    return path && access(path, F_OK) == 0;
}

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void milliseconds_pass(int milliseconds)
{
    struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&t, 0);
}

#endif
