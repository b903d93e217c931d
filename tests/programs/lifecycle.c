/*
 * Programs for the tests of a VM's life: work that is under way when something happens to the VM, its device or its daemon.
 *
 *   lifecycle small            one copy there, one kernel, one copy back; right or not
 *   lifecycle kernel SECONDS   one kernel that runs for about that long alone; its result is checked
 *   lifecycle copy SECONDS     copies through pinned and through pageable memory, there and back, each round checked
 *   lifecycle copies           until killed: copies come back into pinned and into pageable memory at the same time
 *   lifecycle endless          the same, and a kernel that never ends writes into pinned memory
 *   lifecycle busy             short calls without end, until one fails: says which error, and ends well
 *   lifecycle wait             waits for a kernel that never ends, until the waiting fails: says which error, and ends well
 *   lifecycle canary MIB S     no GPU at all: fills so much locked memory with a pattern of its own addresses, looks at
 *                              every byte again after S seconds
 *
 * Each says "begun" on standard output when its work is under way.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static void check(CUresult result, const char *call, int line)
{
    const char *name = "?";
    if (result == CUDA_SUCCESS)
        return;
    cuGetErrorName(result, &name);
    fprintf(stderr, "lifecycle.c:%d: %s: %s (%d)\n", line, call, name, result);
    exit(1);
}
#define CHECK(call) check(call, #call, __LINE__)

static const char ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    /* out[i] = n steps of a generator that begins with i */
    ".visible .entry iterate(.param .u64 out, .param .u32 n)\n{\n"
    " .reg .pred %p<2>;\n .reg .b32 %r<8>;\n .reg .b64 %rd<5>;\n"
    " ld.param.u64 %rd1, [out];\n ld.param.u32 %r1, [n];\n"
    " mov.u32 %r2, %ctaid.x;\n mov.u32 %r3, %ntid.x;\n mov.u32 %r4, %tid.x;\n"
    " mad.lo.u32 %r5, %r2, %r3, %r4;\n mov.u32 %r6, %r5;\n"
    "again:\n"
    " mad.lo.u32 %r6, %r6, 1664525, 1013904223;\n"
    " sub.u32 %r1, %r1, 1;\n setp.ne.u32 %p1, %r1, 0;\n @%p1 bra again;\n"
    " cvta.to.global.u64 %rd2, %rd1;\n mul.wide.u32 %rd3, %r5, 4;\n add.s64 %rd4, %rd2, %rd3;\n"
    " st.global.u32 [%rd4], %r6;\n ret;\n}\n"
    /* writes words 0 … n-1 over and over, a new value each time */
    ".visible .entry write_for_ever(.param .u64 out, .param .u32 n)\n{\n"
    " .reg .pred %p<2>;\n .reg .b32 %r<4>;\n .reg .b64 %rd<5>;\n"
    " ld.param.u64 %rd1, [out];\n ld.param.u32 %r1, [n];\n cvta.to.global.u64 %rd2, %rd1;\n mov.u32 %r3, 1;\n"
    "round:\n mov.u32 %r2, 0;\n mov.u64 %rd3, %rd2;\n"
    "word:\n st.volatile.global.u32 [%rd3], %r3;\n"
    " add.s64 %rd3, %rd3, 4;\n add.u32 %r2, %r2, 1;\n setp.lt.u32 %p1, %r2, %r1;\n @%p1 bra word;\n"
    " add.u32 %r3, %r3, 1;\n bra round;\n}\n";

static CUdevice device;
static CUcontext context;
static CUmodule module;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void begun(void)
{
    puts("begun");
    fflush(stdout);
}

static void start(void)
{
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, ptx));
}

static CUfunction function(const char *name)
{
    CUfunction f;
    CHECK(cuModuleGetFunction(&f, module, name));
    return f;
}

static CUstream stream(void)
{
    CUstream s;
    CHECK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    return s;
}

static uint32_t iterated(uint32_t x, uint32_t steps)
{
    while (steps--)
        x = x * 1664525u + 1013904223u;
    return x;
}

#define BLOCK 64u

/* Runs `iterate` in one block; how long it took. */
static double iterate(uint32_t steps, int say)
{
    CUdeviceptr out;
    uint32_t result[BLOCK];
    double begin = now();

    CHECK(cuMemAlloc(&out, sizeof result));
    void *params[] = {&out, &steps};
    CHECK(cuLaunchKernel(function("iterate"), 1, 1, 1, BLOCK, 1, 1, 0, 0, params, 0));
    if (say)
        begun();
    CHECK(cuMemcpyDtoH(result, out, sizeof result));
    for (uint32_t i = 0; i < BLOCK; i++)
        if (result[i] != iterated(i, steps))
            FAIL("thread %u of the kernel: %#x, not %#x", i, result[i], iterated(i, steps));
    CHECK(cuMemFree(out));
    return now() - begin;
}

static void small(void)
{
    start();
    iterate(100, 0);
    CHECK(cuModuleUnload(module));
    CHECK(cuDevicePrimaryCtxRelease(device));
    printf("small: right\n");
}

static void kernel(double seconds)
{
    uint32_t steps = 1000;
    double took;

    start();
    while ((took = iterate(steps, 0)) < 0.5)
        steps *= 2;
    steps = (uint32_t)(steps * seconds / took);
    printf("kernel: %u steps\n", steps);
    took = iterate(steps, 1);
    printf("kernel: right after %.1f s\n", took);
}

#define COPY_BYTES (24u << 20)

static void copy(double seconds)
{
    size_t words = COPY_BYTES / 4;
    uint32_t *pageable = allocate(COPY_BYTES), *back = allocate(COPY_BYTES), *pinned;
    CUdeviceptr there;
    unsigned rounds = 0;

    start();
    CUstream s = stream();
    CHECK(cuMemHostAlloc((void **)&pinned, COPY_BYTES, 0));
    CHECK(cuMemAlloc(&there, COPY_BYTES));
    begun();
    for (double end = now() + seconds; now() < end || rounds < 2; rounds++) {
        for (size_t i = 0; i < words; i++)
            pageable[i] = (uint32_t)i * 2654435761u + rounds;
        CHECK(cuMemcpyHtoD(there, pageable, COPY_BYTES));
        memset(pinned, 0xee, COPY_BYTES);
        CHECK(cuMemcpyDtoHAsync(pinned, there, COPY_BYTES, s));
        memset(back, 0xdd, COPY_BYTES);
        CHECK(cuMemcpyDtoH(back, there, COPY_BYTES));
        CHECK(cuStreamSynchronize(s));
        if (memcmp(back, pageable, COPY_BYTES) || memcmp(pinned, pageable, COPY_BYTES))
            FAIL("round %u: what came back is not what was sent", rounds);
    }
    printf("copy: %u rounds of %u MiB right\n", rounds, COPY_BYTES >> 20);
}

/* ---- endless ---- */

static CUdeviceptr source;
static unsigned started;

static void *copy_to_pinned(void *unused)
{
    uint32_t *pinned;
    (void)unused;
    CHECK(cuCtxSetCurrent(context));
    CUstream s = stream();
    CHECK(cuMemHostAlloc((void **)&pinned, COPY_BYTES, 0));
    for (;;) {
        for (int i = 0; i < 8; i++)
            CHECK(cuMemcpyDtoHAsync(pinned, source, COPY_BYTES, s));
        CHECK(cuStreamSynchronize(s));
        __atomic_fetch_or(&started, 1, __ATOMIC_SEQ_CST);
    }
}

static void *copy_to_pageable(void *unused)
{
    uint32_t *pageable = allocate(COPY_BYTES);
    (void)unused;
    CHECK(cuCtxSetCurrent(context));
    CUstream s = stream();
    for (;;) {
        CHECK(cuMemcpyDtoHAsync(pageable, source, COPY_BYTES, s));
        CHECK(cuStreamSynchronize(s));
        __atomic_fetch_or(&started, 2, __ATOMIC_SEQ_CST);
    }
}

static void endless(int with_kernel)
{
    uint32_t words = 4096, *written;
    pthread_t threads[2];

    start();
    CHECK(cuMemAlloc(&source, COPY_BYTES));
    CHECK(cuMemsetD32(source, 0xbad0c0de, COPY_BYTES / 4));
    CHECK(cuMemHostAlloc((void **)&written, words * 4, 0));
    memset(written, 0, words * 4);
    CUdeviceptr out = (CUdeviceptr)(uintptr_t)written;
    void *params[] = {&out, &words};
    CHECK(cuCtxSynchronize());
    if (with_kernel)
        CHECK(cuLaunchKernel(function("write_for_ever"), 1, 1, 1, 1, 1, 1, 0, stream(), params, 0));
    pthread_create(&threads[0], NULL, copy_to_pinned, NULL);
    pthread_create(&threads[1], NULL, copy_to_pageable, NULL);
    while (__atomic_load_n(&started, __ATOMIC_SEQ_CST) != 3 ||
           (with_kernel && ((volatile uint32_t *)written)[words - 1] < 2))
        usleep(10000);
    begun();
    for (;;)
        pause();
}

/* ---- until an error ---- */

static void failed(const char *call, CUresult result)
{
    const char *name = "?";
    cuGetErrorName(result, &name);
    printf("%s failed: %s (%d)\n", call, name, (int)result);
    fflush(stdout);
    exit(0);
}

static void busy(void)
{
    CUdeviceptr out;
    uint32_t steps = 10, word;
    CUresult r;

    start();
    CUfunction f = function("iterate");
    CHECK(cuMemAlloc(&out, BLOCK * 4));
    void *params[] = {&out, &steps};
    for (unsigned round = 0;; round++) {
        if ((r = cuLaunchKernel(f, 1, 1, 1, BLOCK, 1, 1, 0, 0, params, 0)) != CUDA_SUCCESS)
            failed("cuLaunchKernel", r);
        if ((r = cuMemcpyDtoH(&word, out, 4)) != CUDA_SUCCESS)
            failed("cuMemcpyDtoH", r);
        if ((r = cuCtxSynchronize()) != CUDA_SUCCESS)
            failed("cuCtxSynchronize", r);
        if (round == 10)
            begun();
    }
}

static void wait_for_ever(void)
{
    CUdeviceptr flag;
    uint32_t words = 16;
    CUresult r;

    start();
    CHECK(cuMemAlloc(&flag, words * 4));
    void *params[] = {&flag, &words};
    CHECK(cuLaunchKernel(function("write_for_ever"), 1, 1, 1, 1, 1, 1, 0, 0, params, 0));
    begun();
    r = cuCtxSynchronize();
    if (r == CUDA_SUCCESS)
        FAIL("a kernel without an end has ended");
    failed("cuCtxSynchronize", r);
}

/* ---- canary ---- */

static uint64_t pattern(const uint64_t *address) { return (uint64_t)(uintptr_t)address * 0x9e3779b97f4a7c15u ^ 0xc0ffee; }

static void canary(size_t mib, unsigned seconds)
{
    size_t words = (mib << 20) / 8, wrong = 0;
    uint64_t *memory = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED || mlock(memory, mib << 20))
        FAIL("no %zu MiB of locked memory", mib);
    for (size_t i = 0; i < words; i++)
        memory[i] = pattern(&memory[i]);
    begun();
    for (unsigned left = seconds; left; left = sleep(left))
        ;
    for (size_t i = 0; i < words; i++)
        if (memory[i] != pattern(&memory[i])) {
            if (wrong++ < 8)
                fprintf(stderr, "byte %zu: %016llx\n", i * 8, (unsigned long long)memory[i]);
        }
    if (wrong)
        FAIL("%zu of %zu words were overwritten", wrong, words);
    printf("canary: %zu MiB unchanged after %u s\n", mib, seconds);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    double number = argc > 2 ? atof(argv[2]) : 0;

    if (!strcmp(what, "small"))
        small();
    else if (!strcmp(what, "kernel"))
        kernel(number);
    else if (!strcmp(what, "copy"))
        copy(number);
    else if (!strcmp(what, "copies"))
        endless(0);
    else if (!strcmp(what, "endless"))
        endless(1);
    else if (!strcmp(what, "busy"))
        busy();
    else if (!strcmp(what, "wait"))
        wait_for_ever();
    else if (!strcmp(what, "canary") && argc == 4)
        canary((size_t)number, (unsigned)atoi(argv[3]));
    else
        FAIL("what is %s?", what);
    return 0;
}
