/*
 * The driver API: vector add, saxpy, a tiled matrix product, a reduction with atomics; results checked against the CPU. And memory of
 * other kinds: of pools, mapped piece by piece, managed, and variables that are.
 * Linked against libcuda.so.1 by its ordinary name.
 */
#include <cuda.h>

#include "check.h"
#include "kernels_ptx.h"
#include "managed_ptx.h"

static void check(CUresult result, const char *call, int line)
{
    const char *name = "?";
    if (result == CUDA_SUCCESS)
        return;
    cuGetErrorName(result, &name);
    fprintf(stderr, "driver_api.c:%d: %s: %s (%d)\n", line, call, name, result);
    exit(1);
}
#define CHECK(call) check(call, #call, __LINE__)

static CUmodule module;

static CUfunction function(const char *name)
{
    CUfunction f;
    CHECK(cuModuleGetFunction(&f, module, name));
    return f;
}

static CUdeviceptr to_device(const void *host, size_t bytes)
{
    CUdeviceptr p;
    CHECK(cuMemAlloc(&p, bytes));
    CHECK(cuMemcpyHtoD(p, host, bytes));
    return p;
}

static void vector_add(int n)
{
    float *a = allocate(n * 4), *b = allocate(n * 4), *c = allocate(n * 4);
    for (int i = 0; i < n; i++) {
        a[i] = random_float();
        b[i] = random_float();
        c[i] = -77;
    }
    CUdeviceptr da = to_device(a, n * 4), db = to_device(b, n * 4), dc = to_device(c, n * 4);
    void *params[] = {&da, &db, &dc, &n};
    CHECK(cuLaunchKernel(function("vector_add"), (n + 255) / 256, 1, 1, 256, 1, 1, 0, 0, params, 0));
    CHECK(cuMemcpyDtoH(c, dc, n * 4));
    for (int i = 0; i < n; i++)
        if (c[i] != a[i] + b[i])
            FAIL("vector add: element %d is %g, not %g", i, c[i], a[i] + b[i]);
    printf("vector add: %d elements right\n", n);
    CHECK(cuMemFree(da));
    CHECK(cuMemFree(db));
    CHECK(cuMemFree(dc));
    free(a), free(b), free(c);
}

static void saxpy(int n)
{
    float alpha = 2.5f, *x = allocate(n * 4), *y = allocate(n * 4), *before = allocate(n * 4);
    CUstream stream;
    for (int i = 0; i < n; i++) {
        x[i] = random_float();
        y[i] = before[i] = random_float();
    }
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CUdeviceptr dx, dy;
    CHECK(cuMemAlloc(&dx, n * 4));
    CHECK(cuMemAlloc(&dy, n * 4));
    CHECK(cuMemcpyHtoDAsync(dx, x, n * 4, stream));
    CHECK(cuMemcpyHtoDAsync(dy, y, n * 4, stream));
    void *params[] = {&alpha, &dx, &dy, &n};
    CHECK(cuLaunchKernel(function("saxpy"), 32, 1, 1, 128, 1, 1, 0, stream, params, 0));
    CHECK(cuMemcpyDtoHAsync(y, dy, n * 4, stream));
    CHECK(cuStreamSynchronize(stream));
    for (int i = 0; i < n; i++)
        if (fabsf(y[i] - (alpha * x[i] + before[i])) > 1e-6f)
            FAIL("saxpy: element %d is %g, not %g", i, y[i], alpha * x[i] + before[i]);
    printf("saxpy: %d elements right\n", n);
    CHECK(cuStreamDestroy(stream));
    CHECK(cuMemFree(dx));
    CHECK(cuMemFree(dy));
    free(x), free(y), free(before);
}

static void matmul(int n)
{
    size_t bytes = (size_t)n * n * 4;
    float *a = allocate(bytes), *b = allocate(bytes), *c = allocate(bytes);
    for (int i = 0; i < n * n; i++) {
        a[i] = random_float();
        b[i] = random_float();
    }
    CUdeviceptr da = to_device(a, bytes), db = to_device(b, bytes), dc;
    CHECK(cuMemAlloc(&dc, bytes));
    CHECK(cuMemsetD8(dc, 0xff, bytes));
    int blocks = (n + 15) / 16;
    void *params[] = {&da, &db, &dc, &n};
    CHECK(cuLaunchKernel(function("matmul_tiled"), blocks, blocks, 1, 16, 16, 1, 0, 0, params, 0));
    CHECK(cuMemcpyDtoH(c, dc, bytes));
    float error = matmul_error(a, b, c, n);
    if (!(error < 1e-3f))
        FAIL("matrix product: off by %g", error);
    printf("matrix product: %d x %d right (largest difference %.1e)\n", n, n, error);
    CHECK(cuMemFree(da));
    CHECK(cuMemFree(db));
    CHECK(cuMemFree(dc));
    free(a), free(b), free(c);
}

static void reduction(int n)
{
    int *in = allocate(n * 4), most = -1000000, found_most;
    long long sum = 0;
    unsigned long long found;
    for (int i = 0; i < n; i++) {
        in[i] = (int)(random_word() % 20001) - 10000;
        sum += in[i];
        if (in[i] > most)
            most = in[i];
    }
    CUdeviceptr din = to_device(in, n * 4), dtotal, dmost;
    CHECK(cuMemAlloc(&dtotal, 8));
    CHECK(cuMemAlloc(&dmost, 4));
    CHECK(cuMemsetD32(dtotal, 0, 2));
    CHECK(cuMemsetD32(dmost, 0x80000000u, 1));
    void *params[] = {&din, &dtotal, &dmost, &n};
    CHECK(cuLaunchKernel(function("reduce_sum"), 13, 1, 1, 128, 1, 1, 128 * 8, 0, params, 0));
    CHECK(cuMemcpyDtoH(&found, dtotal, 8));
    CHECK(cuMemcpyDtoH(&found_most, dmost, 4));
    if ((long long)found != sum || found_most != most)
        FAIL("reduction: %lld and %d, not %lld and %d", (long long)found, found_most, sum, most);
    printf("reduction: %d elements, sum %lld and largest %d right\n", n, sum, most);
    CHECK(cuMemFree(din));
    CHECK(cuMemFree(dtotal));
    CHECK(cuMemFree(dmost));
    free(in);
}

/* Adds 3 to `n` numbers that lie on the device, and looks at them. */
static void add_three(const char *where, CUdeviceptr at, int n, CUstream stream)
{
    int *numbers = allocate(n * 4), three = 3;
    for (int i = 0; i < n; i++)
        numbers[i] = i;
    CHECK(cuMemcpyHtoDAsync(at, numbers, n * 4, stream));
    void *params[] = {&at, &three, &n};
    CHECK(cuLaunchKernel(function("add_to_all"), (n + 255) / 256, 1, 1, 256, 1, 1, 0, stream, params, 0));
    CHECK(cuMemcpyDtoHAsync(numbers, at, n * 4, stream));
    CHECK(cuStreamSynchronize(stream));
    for (int i = 0; i < n; i++)
        if (numbers[i] != i + 3)
            FAIL("%s: element %d is %d, not %d", where, i, numbers[i], i + 3);
    printf("%s: %d elements right\n", where, n);
    free(numbers);
}

static void pooled(int n)
{
    CUstream stream;
    CUmemoryPool pool, of;
    CUdevice device;
    CUdeviceptr p, q;
    CHECK(cuCtxGetDevice(&device));
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuDeviceGetDefaultMemPool(&pool, device));
    for (int round = 0; round < 3; round++) {
        CHECK(cuMemAllocAsync(&p, n * 4, stream));
        CHECK(cuMemAllocFromPoolAsync(&q, 100, pool, stream));
        CHECK(cuPointerGetAttribute(&of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, q));
        EXPECT(of == pool);
        add_three("pool", p, n, stream);
        CHECK(cuMemFreeAsync(p, stream));
        CHECK(cuMemFreeAsync(q, stream));
        EXPECT(cuMemFreeAsync(q, stream) == CUDA_ERROR_INVALID_VALUE);
    }
    CHECK(cuStreamDestroy(stream));
}

/* As PyTorch and llama.cpp grow their pools: one range of addresses, memory mapped piece by piece. */
static void mapped(void)
{
    const size_t piece = 2 << 20, pieces = 4;
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUmemAccessDesc access = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle handle, again;
    CUdeviceptr at;
    CHECK(cuMemAddressReserve(&at, 16 * piece, 0, 0, 0));
    for (size_t i = 0; i < pieces; i++) {
        CHECK(cuMemCreate(&handle, piece, &prop, 0));
        CHECK(cuMemMap(at + i * piece, piece, 0, handle, 0));
        CHECK(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(at + i * piece + 5)));
        EXPECT(again == handle);
        CHECK(cuMemRelease(handle));
        CHECK(cuMemRelease(again));
    }
    CHECK(cuMemSetAccess(at, pieces * piece, &access, 1));
    add_three("mapped", at, (int)(pieces * piece / 4), 0);
    EXPECT(cuMemsetD8(at, 0, pieces * piece + 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemUnmap(at, pieces * piece));
    CHECK(cuMemAddressFree(at, 16 * piece));
}

static void managed(int n)
{
    CUdeviceptr p;
    int five = 5, is_managed = 0;
    CHECK(cuMemAllocManaged(&p, n * 4, CU_MEM_ATTACH_GLOBAL));
    CHECK(cuPointerGetAttribute(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p));
    EXPECT(is_managed == 1);
    add_three("managed", p, n, 0);
    int *host = (int *)(uintptr_t)p;
    for (int i = 0; i < n; i++)
        host[i] = -i;
    void *params[] = {&p, &five, &n};
    CHECK(cuLaunchKernel(function("add_to_all"), (n + 255) / 256, 1, 1, 256, 1, 1, 0, 0, params, 0));
    CHECK(cuCtxSynchronize());
    for (int i = 0; i < n; i++)
        EXPECT(host[i] == 5 - i);
    CHECK(cuMemFree(p));
}

/* __managed__ variables: each side sees what the other has written, byte by byte, and they go with their module. */
static void managed_variables(void)
{
    for (int round = 0; round < 3; round++) {
        CUmodule m;
        CUfunction step;
        CUdeviceptr at, far;
        size_t size;
        int is_managed = 0;
        CHECK(cuModuleLoadData(&m, managed_ptx));
        CHECK(cuModuleGetFunction(&step, m, "step"));
        CHECK(cuModuleGetGlobal(&at, &size, m, "word"));
        EXPECT(size == 4);
        CHECK(cuModuleGetGlobal(&far, &size, m, "row"));
        EXPECT(size == 400000);
        CHECK(cuPointerGetAttribute(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, far + 5));
        EXPECT(is_managed == 1);
        volatile unsigned *word = (void *)(uintptr_t)at, *row = (void *)(uintptr_t)far;
        EXPECT(*word == 41 && row[0] == 0 && row[99999] == 0);
        CHECK(cuLaunchKernel(step, 1, 1, 1, 64, 1, 1, 0, 0, 0, 0));
        CHECK(cuCtxSynchronize());
        EXPECT(*word == 42 && row[0] == 41 && row[63] == 41 && row[64] == 0);
        /* The kernel writes the first 64 elements, this the others, meanwhile. */
        *word = 100;
        CHECK(cuLaunchKernel(step, 1, 1, 1, 64, 1, 1, 0, 0, 0, 0));
        for (unsigned i = 64; i < 100000; i++)
            row[i] = i;
        CHECK(cuStreamSynchronize(0));
        EXPECT(*word == 101);
        for (unsigned i = 0; i < 100000; i++)
            EXPECT(row[i] == (i < 64 ? 141 : i));
        unsigned last = 0;
        CHECK(cuMemcpyDtoH(&last, far + 399996, 4));
        EXPECT(last == 99999);
        EXPECT(cuMemFree(at) == CUDA_ERROR_INVALID_VALUE);
        CHECK(cuModuleUnload(m));
        EXPECT(cuPointerGetAttribute(&is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, at) == CUDA_ERROR_INVALID_VALUE);
    }
}

int main(void)
{
    CUdevice device;
    CUcontext context;
    char name[100];
    int version, major, minor;
    size_t memory;

    CHECK(cuInit(0));
    CHECK(cuDriverGetVersion(&version));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDeviceGetName(name, sizeof name, device));
    CHECK(cuDeviceTotalMem(&memory, device));
    CHECK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    CHECK(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
    printf("driver API %d.%d on %s, compute capability %d.%d, %zu MiB\n", version / 1000, version % 1000 / 10, name, major,
           minor, memory >> 20);
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, kernels_ptx));

    vector_add(100003);
    saxpy(65536);
    matmul(50);
    reduction(100000);
    pooled(50000);
    mapped();
    managed(5000);
    managed_variables();

    CHECK(cuCtxSynchronize());
    CHECK(cuModuleUnload(module));
    CHECK(cuDevicePrimaryCtxRelease(device));
    printf("driver API: all right\n");
    return 0;
}
