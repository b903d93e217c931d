/*
 * What calls cost their caller, as the caller sees it: through the C API of libcuda.so.1, nothing asserted.
 *
 *   bench              every measurement; a line `name TAB median TAB best TAB unit` for each
 *   bench stream N     N posted calls in a row, and nothing else that could ring a doorbell
 *   bench idle         opens a session, says "idle" when it is up, and stays quiet until standard input ends
 *   bench idle all     the same, with all that has a thread of its own: a host function has run, and there are managed variables
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "managed_ptx.h"

#define CHECK(call) do { CUresult r_ = (call); if (r_ != CUDA_SUCCESS) FAIL("%s: %d", #call, (int)r_); } while (0)

static const char empty_ptx[] = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry empty()\n{\n ret;\n}\n";

static CUdevice device;
static CUcontext context;
static CUmodule module;
static CUfunction empty;
static CUstream stream;
static CUevent event;

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

/* Sorts the samples, and prints them in `unit`s of `seconds` each. */
static void report(const char *name, double *samples, int n, double seconds, const char *unit)
{
    double middle = median(samples, n);
    printf("%s\t%.4g\t%.4g\t%s\n", name, middle / seconds, samples[0] / seconds, unit);
    fflush(stdout);
}

static void launch(void)
{
    CHECK(cuLaunchKernel(empty, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
}

static void start(void)
{
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, empty_ptx));
    CHECK(cuModuleGetFunction(&empty, module, "empty"));
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    launch();
    CHECK(cuStreamSynchronize(stream));
}

static void CUDA_CB count(void *counter) { ++*(int *)counter; }

/* What makes the library start threads of its own. */
static void threads(void)
{
    int ran = 0;
    CUmodule variables;
    CUdeviceptr word;
    size_t size;
    CHECK(cuLaunchHostFunc(stream, count, &ran));
    CHECK(cuStreamSynchronize(stream));
    CHECK(cuModuleLoadData(&variables, managed_ptx));
    CHECK(cuModuleGetGlobal(&word, &size, variables, "word"));
    if (ran != 1 || *(volatile unsigned *)(uintptr_t)word != 41)
        FAIL("the host function ran %d times, and the variable is not what it was", ran);
}

/* Calls that fit the frame area several times over, so that none waits for space. */
enum { BATCH = 400, BATCHES = 300 };

static void record(void) { CHECK(cuEventRecord(event, stream)); }

static void limit(void)
{
    size_t value;
    CHECK(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
}

static void occupancy(void)
{
    int blocks;
    CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, empty, 128, 0));
}

static void launch_and_wait(void)
{
    launch();
    CHECK(cuStreamSynchronize(stream));
}

static void allocate_and_free(void)
{
    CUdeviceptr p;
    CHECK(cuMemAlloc(&p, 1 << 20));
    CHECK(cuMemFree(p));
}

static void posted(const char *name, void (*call)(void))
{
    static double samples[BATCHES];
    for (int b = 0; b < BATCHES; b++) {
        double begin = now();
        for (int i = 0; i < BATCH; i++)
            call();
        samples[b] = (now() - begin) / BATCH;
        CHECK(cuStreamSynchronize(stream));
    }
    report(name, samples, BATCHES, 1e-6, "us");
}

/* Single calls in a row: after the first, both sides poll. */
static void single(const char *name, void (*call)(void), int n)
{
    double *samples = allocate(n * sizeof *samples);
    for (int i = 0; i < 100; i++)
        call();
    for (int i = 0; i < n; i++) {
        double begin = now();
        call();
        samples[i] = now() - begin;
    }
    report(name, samples, n, 1e-6, "us");
    free(samples);
}

/* Single calls so far apart that the host's side sleeps each time. */
static void parked(const char *name, void (*call)(void), int n)
{
    double *samples = allocate(n * sizeof *samples);
    for (int i = 0; i < n; i++) {
        usleep(3000);
        double begin = now();
        call();
        samples[i] = now() - begin;
    }
    report(name, samples, n, 1e-6, "us");
    free(samples);
}

static const char *size_name(size_t bytes)
{
    static char text[32];
    if (bytes >= 1 << 20)
        snprintf(text, sizeof text, "%zu MiB", bytes >> 20);
    else
        snprintf(text, sizeof text, "%zu KiB", bytes >> 10);
    return text;
}

/* A copy's throughput beside that of memcpy, taken in turns so that both meet the same machine. */
static void copies(size_t bytes)
{
    int n = bytes >= 64 << 20 ? 9 : bytes >= 1 << 20 ? 60 : 400;
    char *from = allocate(bytes), *to = allocate(bytes), name[64];
    double *plain = allocate(n * sizeof *plain), *in = allocate(n * sizeof *in), *out = allocate(n * sizeof *out);
    double *pinned_in = allocate(n * sizeof *in), *pinned_out = allocate(n * sizeof *out);
    void *pinned;
    CUdeviceptr p;
    CHECK(cuMemAlloc(&p, bytes));
    CHECK(cuMemHostAlloc(&pinned, bytes, 0));
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    memset(pinned, 3, bytes);
    CHECK(cuMemsetD8(p, 0, bytes));
    CHECK(cuMemcpyHtoD(p, from, bytes));
    CHECK(cuMemcpyDtoH(to, p, bytes));
    for (int i = 0; i < n; i++) {
        double t0 = now();
        memcpy(to, from, bytes);
        __asm__ volatile("" ::"r"(to) : "memory");
        double t1 = now();
        CHECK(cuMemcpyHtoD(p, from, bytes));
        /* The copy is posted: it is over when the device has it. */
        CHECK(cuCtxSynchronize());
        double t2 = now();
        CHECK(cuMemcpyDtoH(to, p, bytes));
        double t3 = now();
        CHECK(cuMemcpyHtoDAsync(p, pinned, bytes, stream));
        CHECK(cuStreamSynchronize(stream));
        double t4 = now();
        CHECK(cuMemcpyDtoHAsync(pinned, p, bytes, stream));
        CHECK(cuStreamSynchronize(stream));
        double t5 = now();
        plain[i] = t1 - t0;
        in[i] = t2 - t1;
        out[i] = t3 - t2;
        pinned_in[i] = t4 - t3;
        pinned_out[i] = t5 - t4;
    }
    double reference = median(plain, n);
    const char *kind[] = {"HtoD", "DtoH", "HtoD pinned", "DtoH pinned"};
    double *times[] = {in, out, pinned_in, pinned_out};
    snprintf(name, sizeof name, "memcpy %s", size_name(bytes));
    printf("%s\t%.4g\t%.4g\tGB/s\n", name, bytes / reference * 1e-9, bytes / plain[0] * 1e-9);
    for (int k = 0; k < 4; k++) {
        double middle = median(times[k], n);
        printf("%s %s\t%.4g\t%.4g\tGB/s\n", kind[k], size_name(bytes), bytes / middle * 1e-9, bytes / times[k][0] * 1e-9);
        printf("%s %s of memcpy\t%.4g\t%.4g\t%%\n", kind[k], size_name(bytes), 100 * reference / middle,
               100 * plain[0] / times[k][0]);
    }
    fflush(stdout);
    CHECK(cuMemFreeHost(pinned));
    CHECK(cuMemFree(p));
    free(from), free(to), free(plain), free(in), free(out), free(pinned_in), free(pinned_out);
}

int main(int argc, char **argv)
{
    double begin = now();
    start();
    double up = now() - begin;
    if (argc == 3 && !strcmp(argv[1], "stream")) {
        int n = atoi(argv[2]);
        for (int i = 0; i < n; i++)
            launch();
        CHECK(cuStreamSynchronize(stream));
        printf("%d posted\n", n);
        return 0;
    }
    if (argc >= 2 && !strcmp(argv[1], "idle")) {
        if (argc == 3 && !strcmp(argv[2], "all"))
            threads();
        printf("idle\n");
        fflush(stdout);
        while (getchar() != EOF)
            ;
        return 0;
    }
    if (argc != 1)
        FAIL("bench [idle [all] | stream N]");
    CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    report("session start, cuInit to first kernel", &up, 1, 1e-3, "ms");
    posted("posted cuLaunchKernel", launch);
    posted("posted cuEventRecord", record);
    single("sync cuCtxGetLimit, polling", limit, 20000);
    single("sync cuOccupancyMaxActiveBlocks, polling", occupancy, 20000);
    parked("sync cuCtxGetLimit, host parked", limit, 300);
    single("cuLaunchKernel and cuStreamSynchronize", launch_and_wait, 5000);
    single("cuMemAlloc and cuMemFree, 1 MiB", allocate_and_free, 2000);
    size_t sizes[] = {4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        copies(sizes[i]);
    return 0;
}
