/*
 * Pinned host memory.
 *
 *   pinned alloc        cuMemHostAlloc: kernels and copies work on the process's own memory
 *   pinned register     cuMemHostRegister of ordinary memory (in a VM)
 *   pinned unsupported  the device says that it cannot register, and does not
 *   pinned unmapped     memory that the process unmaps while it is registered (in a VM)
 *   pinned large        64 MiB in pieces, and 64 MiB pinned
 */
#include <sys/mman.h>

#include "exercise.h"

static CUfunction adds;

static CUdeviceptr address(const void *p) { return (CUdeviceptr)(uintptr_t)p; }

static void fill(int *data, int n, int start)
{
    for (int i = 0; i < n; i++)
        data[i] = start + i;
}

static void compare(const int *data, int n, int start, const char *what)
{
    for (int i = 0; i < n; i++)
        if (data[i] != start + i)
            FAIL("%s: element %d is %d, not %d", what, i, data[i], start + i);
}

/* The memory is what both the CPU and kernels see, and copies from and to it are right. */
static void shared_by_both(int *data, int n)
{
    CUdeviceptr p = address(data), q;
    CUstream stream;
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    fill(data, n, 10);
    CHECK(add_to_all(adds, p, 5, n, stream));
    CHECK(cuStreamSynchronize(stream));
    compare(data, n, 15, "written by a kernel");
    CHECK(cuMemAlloc(&q, n * 4));
    CHECK(cuMemcpyHtoDAsync(q, data, n * 4, stream));
    CHECK(add_to_all(adds, q, 100, n, stream));
    CHECK(add_to_all(adds, p, 1, n, stream));
    CHECK(cuMemcpyDtoHAsync(data, q, n * 4, stream));
    CHECK(cuStreamSynchronize(stream));
    compare(data, n, 115, "copied there and back");
    fill(data, n, 7);
    CHECK(cuMemcpyDtoD(q, p, n * 4));
    CHECK(cuMemsetD32(p, 3, n));
    CHECK(cuMemcpyDtoH(data, q, n * 4));
    compare(data, n, 7, "copied as a device's");
    CHECK(cuMemcpyHtoD(q + 4, data, (n - 1) * 4));
    CHECK(cuMemcpy(p, q, n * 4));
    EXPECT(data[1] == 7 && data[n - 1] == 7 + n - 2);
    CHECK(cuMemFree(q));
    CHECK(cuStreamDestroy(stream));
}

static void attributes(void *p, size_t len)
{
    CUmemorytype type;
    CUdeviceptr there, start;
    void *here;
    CUcontext owner;
    size_t size;
    CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address(p) + 1));
    EXPECT(type == CU_MEMORYTYPE_HOST);
    CHECK(cuPointerGetAttribute(&there, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address(p) + 1));
    EXPECT(there == address(p) + 1);
    CHECK(cuPointerGetAttribute(&here, CU_POINTER_ATTRIBUTE_HOST_POINTER, address(p) + 1));
    EXPECT(here == (char *)p + 1);
    CHECK(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, address(p)));
    EXPECT(owner == context);
    CHECK(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address(p) + len - 1));
    CHECK(cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address(p) + len - 1));
    EXPECT(start == address(p) && size == len);
    CHECK(cuMemHostGetDevicePointer(&there, p, 0));
    EXPECT(there == address(p));
}

static void alloc(void)
{
    enum { COUNT = 20 };
    size_t len = 100000 * 4;
    unsigned flags;
    int *data, *many[COUNT];
    CUmemorytype type;
    CHECK(cuMemHostAlloc((void **)&data, len, CU_MEMHOSTALLOC_DEVICEMAP));
    EXPECT(data[0] == 0 && data[len / 4 - 1] == 0);
    shared_by_both(data, (int)(len / 4));
    attributes(data, len);
    CHECK(cuMemHostGetFlags(&flags, data));
    EXPECT(flags & CU_MEMHOSTALLOC_DEVICEMAP);
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemHostUnregister(data));
    CHECK(cuMemFreeHost(data));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(data));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address(data)));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(address(data), 0, 1));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemHostAlloc((void **)&data, 4096, 0x100));

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < COUNT; i++) {
            CHECK(cuMemAllocHost((void **)&many[i], 3000 * (i + 1)));
            fill(many[i], 750 * (i + 1), i);
        }
        for (int i = 0; i < COUNT; i++)
            CHECK(add_to_all(adds, address(many[i]), 1000, 750 * (i + 1), 0));
        CHECK(cuCtxSynchronize());
        for (int i = 0; i < COUNT; i++)
            compare(many[i], 750 * (i + 1), i + 1000, "many allocations");
        for (int i = 0; i < COUNT; i++)
            CHECK(cuMemFreeHost(many[(i * 7) % COUNT]));
    }
}

static int can_register(void)
{
    int can;
    CHECK(cuDeviceGetAttribute(&can, CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, device));
    return can;
}

static void *pages(size_t len)
{
    void *p = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(p != MAP_FAILED);
    return p;
}

static void register_memory(void)
{
    /* Neither end at a page's. */
    int n = 50001;
    size_t len = (size_t)n * 4;
    char *block = allocate(len + 200);
    int *data = (int *)(block + 100 - (uintptr_t)block % 4);
    EXPECT(can_register() == 1);
    CHECK(cuMemHostRegister(data, len, 0));
    shared_by_both(data, n);
    attributes(data, len);
    ANSWERS(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(data, len, 0));
    CHECK(cuMemHostUnregister(data));
    ANSWERS(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(data));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(address(data), 0, 1));
    /* Still the process's own. */
    fill(data, n, 1);
    compare(data, n, 1, "after unregistering");
    for (int i = 0; i < 30; i++) {
        CHECK(cuMemHostRegister(data, len, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP));
        CHECK(add_to_all(adds, address(data), 1, n, 0));
        CHECK(cuCtxSynchronize());
        CHECK(cuMemHostUnregister(data));
    }
    compare(data, n, 31, "registered thirty times");
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister(0, 4096, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister(data, 0, 0));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister(data, len, 0x100));
    free(block);

    /* Pages that nobody has. */
    char *hole = pages(16 * 4096);
    EXPECT(munmap(hole + 8 * 4096, 4096) == 0);
    EXPECT(cuMemHostRegister(hole, 16 * 4096, 0) != CUDA_SUCCESS);
    CHECK(cuMemHostRegister(hole, 8 * 4096, 0));
    CHECK(cuMemHostUnregister(hole));

    /* Pages that the process itself may only read: the device does not write them. */
    int *constant = pages(8192);
    fill(constant, 2048, 3);
    EXPECT(mprotect(constant, 8192, PROT_READ) == 0);
    EXPECT(cuMemHostRegister(constant, 8192, 0) != CUDA_SUCCESS);
    CHECK(cuMemHostRegister(constant, 8192, CU_MEMHOSTREGISTER_READ_ONLY));
    ANSWERS(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(address(constant), 0, 1));
    CUdeviceptr p;
    int copy[2048];
    CHECK(cuMemAlloc(&p, 8192));
    CHECK(cuMemcpyHtoDAsync(p, constant, 8192, 0));
    CHECK(cuMemcpyDtoH(copy, p, 8192));
    compare(copy, 2048, 3, "read-only memory");
    CHECK(cuMemHostUnregister(constant));
}

static void unsupported(void)
{
    void *p = pages(4096);
    EXPECT(can_register() == 0);
    ANSWERS(CUDA_ERROR_NOT_SUPPORTED, cuMemHostRegister(p, 4096, 0));
    ANSWERS(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(p));
}

static void unmapped(void)
{
    size_t len = 64 * 4096;
    int n = (int)(len / 4);
    int *data = pages(len), *other = pages(len);
    CHECK(cuMemHostRegister(data, len, 0));
    CHECK(cuMemHostRegister(other, len, 0));
    fill(other, n, 1);
    EXPECT(munmap(data, len) == 0);
    /* Something else at the same place: the device's view is still the old memory, and this is not it. */
    int *fresh = mmap(data, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    EXPECT(fresh == data);
    fill(fresh, n, 500);
    CHECK(add_to_all(adds, address(data), 9, n, 0));
    CHECK(add_to_all(adds, address(other), 9, n, 0));
    CHECK(cuCtxSynchronize());
    compare(fresh, n, 500, "memory mapped later");
    compare(other, n, 10, "other memory");
    CHECK(cuMemHostUnregister(data));
    compare(fresh, n, 500, "memory mapped later, unregistered");
    CHECK(cuMemHostRegister(fresh, len, 0));
    CHECK(add_to_all(adds, address(fresh), 1, n, 0));
    CHECK(cuCtxSynchronize());
    compare(fresh, n, 501, "registered anew");
    /* One is left registered and unmapped when the process ends. */
    EXPECT(munmap(other, len) == 0);
    compute(3, 5);
}

static void large(void)
{
    int n = 16 << 20;
    size_t len = (size_t)n * 4;
    int *host = allocate(len), *shared;
    CUdeviceptr p;
    fill(host, n, 3);
    CHECK(cuMemAlloc(&p, len));
    CHECK(cuMemcpyHtoD(p, host, len));
    CHECK(cuMemsetD32(p, 77, 1));
    memset(host, 0xee, len);
    CHECK(cuMemcpyDtoH(host, p, len));
    EXPECT(host[0] == 77);
    host[0] = 3;
    compare(host, n, 3, "64 MiB there and back");
    CHECK(cuMemHostAlloc((void **)&shared, len, 0));
    CHECK(cuMemcpyDtoHAsync(shared, p, len, 0));
    CHECK(cuStreamSynchronize(0));
    EXPECT(shared[0] == 77);
    shared[0] = 3;
    compare(shared, n, 3, "64 MiB pinned");
    CHECK(cuMemFreeHost(shared));
    CHECK(cuMemFree(p));
    free(host);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    alarm(120);
    begin();
    adds = function("add_to_all");
    if (!strcmp(what, "alloc"))
        alloc();
    else if (!strcmp(what, "register"))
        register_memory();
    else if (!strcmp(what, "unsupported"))
        unsupported();
    else if (!strcmp(what, "unmapped"))
        unmapped();
    else if (!strcmp(what, "large"))
        large();
    else
        FAIL("what is %s?", what);
    CHECK(cuCtxSynchronize());
    printf("pinned %s: right\n", what);
    return 0;
}
