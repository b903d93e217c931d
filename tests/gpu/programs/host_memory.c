/*
 * Memory of the process that the device uses as well, and processes that fork.
 *
 *   host_memory pinned       cuMemHostAlloc
 *   host_memory registered   cuMemHostRegister of the heap, of a mapping, of data of the program; what is refused
 *   host_memory fork         a child of a process that uses CUDA; children that use it themselves
 *
 * It says what it sees and judges nothing.
 */
#include <cuda.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels_ptx.h"

#define CHECK(call) do { CUresult r_ = (call); if (r_) { printf("%s: %d\n", #call, (int)r_); fflush(stdout); exit(1); } } while (0)
#define SAY(call) (printf("%s: %d\n", #call, (int)(call)), fflush(stdout))

static CUcontext context;
static CUmodule module;
static CUfunction adds;

static void begin(void)
{
    CUdevice device;
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, kernels_ptx));
    CHECK(cuModuleGetFunction(&adds, module, "add_to_all"));
}

static CUdeviceptr address(const void *p) { return (CUdeviceptr)(uintptr_t)p; }

static CUresult add(CUdeviceptr data, int value, int n, CUstream stream)
{
    void *params[] = {&data, &value, &n};
    return cuLaunchKernel(adds, (n + 255) / 256, 1, 1, 256, 1, 1, 0, stream, params, 0);
}

static void fill(int *data, int n, int start)
{
    for (int i = 0; i < n; i++)
        data[i] = start + i;
}

static long long sum(const int *data, int n)
{
    long long s = 0;
    for (int i = 0; i < n; i++)
        s += (long long)data[i] * (i % 97 + 1);
    return s;
}

static void attributes(const char *what, void *p, size_t len)
{
    unsigned type = 99, managed = 99;
    CUdeviceptr there = 0, start = 0;
    void *here = 0;
    size_t size = 0;
    CUcontext owner = 0;
    CUresult r[6] = {
        cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address(p) + len / 2),
        cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address(p)),
        cuPointerGetAttribute(&there, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address(p) + 5),
        cuPointerGetAttribute(&here, CU_POINTER_ATTRIBUTE_HOST_POINTER, address(p) + 5),
        cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, address(p)),
        cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address(p) + len - 1),
    };
    printf("%s: results %d %d %d %d %d %d; type %u, managed %u, device %lld, host %lld, own context %d, size %zu\n", what, r[0], r[1], r[2],
           r[3], r[4], r[5], type, managed & 0xff, (long long)(there - address(p)), (long long)((char *)here - (char *)p), owner == context, size);
    printf("%s: start %d", what, cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address(p) + len - 1));
    printf(" at %lld; mapped at %d", (long long)(start - address(p)), cuMemHostGetDevicePointer(&there, p, 0));
    printf(" %lld\n", (long long)(there - address(p)));
    fflush(stdout);
}

/* What the CPU writes kernels and copies see, and the other way round. */
static void use(const char *what, int *data, int n)
{
    CUstream stream;
    CUdeviceptr p = address(data), q;
    size_t len = (size_t)n * 4;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuMemAlloc(&q, len));
    fill(data, n, 10);
    CHECK(add(p, 5, n, stream));
    CHECK(cuStreamSynchronize(stream));
    printf("%s: a kernel wrote %lld\n", what, sum(data, n));
    CHECK(cuMemcpyHtoDAsync(q, data, len, stream));
    CHECK(add(q, 100, n, stream));
    CHECK(add(p, 1, n, stream));
    CHECK(cuStreamSynchronize(stream));
    printf("%s: and then %lld\n", what, sum(data, n));
    CHECK(cuMemcpyDtoHAsync(data, q, len, stream));
    CHECK(cuStreamSynchronize(stream));
    printf("%s: copied back %lld\n", what, sum(data, n));
    fill(data, n, 7);
    CHECK(cuMemcpyDtoD(q, p, len));
    CHECK(cuMemsetD32(p, 3, n));
    CHECK(cuCtxSynchronize());
    printf("%s: set %lld\n", what, sum(data, n));
    CHECK(cuMemcpy(p, q, len));
    CHECK(cuCtxSynchronize());
    printf("%s: as a device's %lld\n", what, sum(data, n));
    CHECK(cuMemFree(q));
    CHECK(cuStreamDestroy(stream));
    fflush(stdout);
}

static void pinned(void)
{
    static const unsigned flags[] = {0, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_WRITECOMBINED};
    char name[40];
    int *data, *many[30];
    unsigned got;
    begin();
    for (int i = 0; i < 4; i++) {
        int n = 100000 + i;
        snprintf(name, sizeof name, "flags %u", flags[i]);
        CHECK(cuMemHostAlloc((void **)&data, (size_t)n * 4, flags[i]));
        printf("%s: zeros at first: %d\n", name, sum(data, n) == 0);
        use(name, data, n);
        attributes(name, data, (size_t)n * 4);
        got = 0;
        printf("%s: flags %d", name, cuMemHostGetFlags(&got, data));
        printf(" %u\n", got);
        printf("%s: unregistered %d\n", name, cuMemHostUnregister(data));
        printf("%s: freed %d\n", name, cuMemFreeHost(data));
        printf("%s: freed again %d\n", name, cuMemFreeHost(data));
    }
    SAY(cuMemHostAlloc((void **)&data, 4096, 0x100));
    SAY(cuMemHostAlloc((void **)&data, 0, 0));
    for (int i = 0; i < 30; i++) {
        CHECK(cuMemAllocHost((void **)&many[i], 3000 * (i + 1)));
        fill(many[i], 750 * (i + 1), i);
    }
    for (int i = 0; i < 30; i++)
        CHECK(add(address(many[i]), 1000, 750 * (i + 1), 0));
    CHECK(cuCtxSynchronize());
    for (int i = 0; i < 30; i++)
        printf("one of many: %lld\n", sum(many[i], 750 * (i + 1)));
    for (int i = 0; i < 30; i++)
        CHECK(cuMemFreeHost(many[i * 7 % 30]));
    CHECK(cuMemHostAlloc((void **)&data, 64 << 20, 0));
    use("64 MiB", data, 16 << 20);
    CHECK(cuMemFreeHost(data));
}

static int own[50000];

static void *pages(size_t len)
{
    void *p = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

static void registered(void)
{
    int n = 50001, copy[2048];
    size_t len = (size_t)n * 4;
    CUdeviceptr q;
    unsigned got = 0;
    begin();
    char *block = malloc(len + 200);
    int *data = (int *)(block + 100 - (uintptr_t)block % 4);
    CHECK(cuMemHostRegister(data, len, 0));
    use("heap", data, n);
    attributes("heap", data, len);
    printf("flags %d", cuMemHostGetFlags(&got, data));
    printf(" %u\n", got);
    SAY(cuMemHostRegister(data, len, 0));
    SAY(cuMemFreeHost(data));
    SAY(cuMemHostUnregister((char *)data + 4096));
    SAY(cuMemHostUnregister(data));
    SAY(cuMemHostUnregister(data));
    fill(data, n, 1);
    printf("still the process's own: %lld\n", sum(data, n));
    for (int i = 0; i < 30; i++) {
        CHECK(cuMemHostRegister(data, len, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP));
        CHECK(add(address(data), 1, n, 0));
        CHECK(cuCtxSynchronize());
        CHECK(cuMemHostUnregister(data));
    }
    printf("thirty times: %lld\n", sum(data, n));
    SAY(cuMemHostRegister(0, 4096, 0));
    SAY(cuMemHostRegister(data, 0, 0));
    SAY(cuMemHostRegister(data, len, 0x100));
    free(block);

    CHECK(cuMemHostRegister(own, sizeof own, 0));
    use("data of the program", own, 50000);
    CHECK(cuMemHostUnregister(own));
    int *big = pages(64 << 20);
    CHECK(cuMemHostRegister(big, 64 << 20, CU_MEMHOSTREGISTER_DEVICEMAP));
    use("64 MiB", big, 16 << 20);
    attributes("64 MiB", big, 64 << 20);
    CHECK(cuMemHostUnregister(big));

    char *hole = pages(16 * 4096);
    munmap(hole + 8 * 4096, 4096);
    printf("with a hole: refused %d\n", cuMemHostRegister(hole, 16 * 4096, 0) != 0);
    SAY(cuMemHostRegister(hole, 8 * 4096, 0));
    SAY(cuMemHostUnregister(hole));
    int *constant = pages(8192);
    fill(constant, 2048, 3);
    mprotect(constant, 8192, PROT_READ);
    printf("read-only: refused %d\n", cuMemHostRegister(constant, 8192, 0) != 0);
    SAY(cuMemHostRegister(constant, 8192, CU_MEMHOSTREGISTER_READ_ONLY));
    CHECK(cuMemAlloc(&q, 8192));
    CHECK(cuMemcpyHtoDAsync(q, constant, 8192, 0));
    CHECK(cuMemcpyDtoH(copy, q, 8192));
    printf("read-only: %lld\n", sum(copy, 2048));
    SAY(cuMemHostUnregister(constant));
}

static void compute(const char *who)
{
    int data[1000];
    CUdeviceptr p;
    fill(data, 1000, (int)strlen(who));
    CHECK(cuMemAlloc(&p, sizeof data));
    for (int round = 0; round < 5; round++) {
        CHECK(cuMemcpyHtoD(p, data, sizeof data));
        CHECK(add(p, round + 1, 1000, 0));
        CHECK(cuMemcpyDtoH(data, p, sizeof data));
    }
    CHECK(cuMemFree(p));
    printf("%s computes %lld\n", who, sum(data, 1000));
    fflush(stdout);
}

static void wait_for(const char *who, pid_t child)
{
    int status = -1;
    waitpid(child, &status, 0);
    printf("%s ended with %d\n", who, status);
    fflush(stdout);
}

static void forks(char *program)
{
    CUdeviceptr p, q;
    CUstream stream, other;
    CUdevice device;
    CUmodule again;
    int word = 0, count;
    size_t size;
    void *host;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        begin();
        compute("a child from before");
        exit(0);
    }
    wait_for("a child from before", child);
    begin();
    compute("the parent");
    CHECK(cuMemAlloc(&p, 4096));
    CHECK(cuMemHostAlloc(&host, 1 << 20, 0));
    memset(host, 1, 1 << 20);
    CHECK(cuStreamCreate(&stream, 0));
    for (int round = 0; round < 2; round++) {
        child = fork();
        if (!child && round == 0) {
            SAY(cuInit(0));
            SAY(cuDeviceGetCount(&count));
            SAY(cuDeviceGet(&device, 0));
            SAY(cuMemAlloc(&q, 4));
            SAY(cuMemGetInfo(&size, &size));
            SAY(cuMemcpyDtoH(&word, p, 4));
            SAY(cuMemcpyHtoD(p, &word, 4));
            SAY(cuMemHostAlloc(&host, 4096, 0));
            SAY(cuModuleLoadData(&again, kernels_ptx));
            SAY(cuStreamCreate(&other, 0));
            SAY(cuCtxSynchronize());
            _exit(0);
        }
        if (!child) {
            execl("/proc/self/exe", program, "child", (char *)0);
            _exit(9);
        }
        wait_for("a child from after", child);
        for (int i = 0; i < 50; i++)
            CHECK(add(p, 1, 64, stream));
        CHECK(cuStreamSynchronize(stream));
    }
    CHECK(cuMemcpyHtoDAsync(p, host, 4, stream));
    CHECK(cuStreamSynchronize(stream));
    CHECK(cuMemcpyDtoH(&word, p, 4));
    printf("pinned memory after forks: %x\n", word);
    CHECK(cuMemFreeHost(host));
    compute("the parent again");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    alarm(140);
    if (!strcmp(what, "pinned"))
        pinned();
    else if (!strcmp(what, "registered"))
        registered();
    else if (!strcmp(what, "fork"))
        forks(argv[0]);
    else if (!strcmp(what, "child")) {
        begin();
        compute("a program that a child executes");
        return 0;
    } else
        return 2;
    SAY(cuCtxSynchronize());
    printf("over\n");
    return 0;
}
