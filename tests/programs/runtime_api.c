/*
 * The runtime API on NVIDIA's own libcudart: the same four computations, and managed variables. The kernels are registered as nvcc's
 * object code registers them: a fatbin (here with PTX only) and a host function for each kernel, which only its address stands for.
 */
#include <cuda_runtime_api.h>

#include "check.h"
#include "kernels_fatbin.h"
#include "managed_ptx.h"

/* The entry points of libcudart that nvcc's object code calls. */
extern void **__cudaRegisterFatBinary(void *wrapper);
extern void __cudaRegisterFatBinaryEnd(void **handle);
extern void __cudaUnregisterFatBinary(void **handle);
extern void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int threads, void *tid,
                                   void *bid, void *block, void *grid, int *size);
extern void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t size, int constant,
                              int global);
extern void __cudaRegisterManagedVar(void **handle, void **host, char *device, const char *name, int external, size_t size,
                                     int constant, int global);
extern char __cudaInitModule(void **handle);

static struct {
    int magic, version;
    const void *data;
    void *unused;
} wrapper = {0x466243b1, 1, kernels_fatbin, 0};

static void vector_add_kernel(void) {}
static void saxpy_kernel(void) { __asm__(""); }
static void matmul_kernel(void) { __asm__("nop"); }
static void reduce_kernel(void) { __asm__("nop; nop"); }
static void variables_kernel(void) { __asm__("nop; nop; nop"); }
static void step_kernel(void) { __asm__("nop; nop; nop; nop"); }
static int counter;
/* nvcc makes a pointer of a managed variable, which the runtime fills in. */
static unsigned *word, *row;

static void check(cudaError_t result, const char *call, int line)
{
    if (result == cudaSuccess)
        return;
    fprintf(stderr, "runtime_api.c:%d: %s: %s (%d)\n", line, call, cudaGetErrorName(result), result);
    exit(1);
}
#define CHECK(call) check(call, #call, __LINE__)

static void *to_device(const void *host, size_t bytes)
{
    void *p;
    CHECK(cudaMalloc(&p, bytes));
    CHECK(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice));
    return p;
}

static dim3 shape(unsigned x, unsigned y)
{
    dim3 d = {x, y, 1};
    return d;
}

static void vector_add(int n)
{
    float *a = allocate(n * 4), *b = allocate(n * 4), *c = allocate(n * 4);
    for (int i = 0; i < n; i++) {
        a[i] = random_float();
        b[i] = random_float();
    }
    float *da = to_device(a, n * 4), *db = to_device(b, n * 4), *dc;
    CHECK(cudaMalloc((void **)&dc, n * 4));
    void *params[] = {&da, &db, &dc, &n};
    CHECK(cudaLaunchKernel((void *)vector_add_kernel, shape((n + 255) / 256, 1), shape(256, 1), params, 0, 0));
    CHECK(cudaMemcpy(c, dc, n * 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++)
        if (c[i] != a[i] + b[i])
            FAIL("vector add: element %d is %g, not %g", i, c[i], a[i] + b[i]);
    printf("vector add: %d elements right\n", n);
    CHECK(cudaFree(da));
    CHECK(cudaFree(db));
    CHECK(cudaFree(dc));
    free(a), free(b), free(c);
}

static void saxpy(int n)
{
    /* Pinned memory, a stream and events. */
    float alpha = -1.25f, *x, *y, *before = allocate(n * 4), *dx, *dy, milliseconds = -1;
    cudaStream_t stream;
    cudaEvent_t start, stop;
    CHECK(cudaMallocHost((void **)&x, n * 4));
    CHECK(cudaMallocHost((void **)&y, n * 4));
    for (int i = 0; i < n; i++) {
        x[i] = random_float();
        y[i] = before[i] = random_float();
    }
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    CHECK(cudaMalloc((void **)&dx, n * 4));
    CHECK(cudaMalloc((void **)&dy, n * 4));
    CHECK(cudaEventRecord(start, stream));
    CHECK(cudaMemcpyAsync(dx, x, n * 4, cudaMemcpyHostToDevice, stream));
    CHECK(cudaMemcpyAsync(dy, y, n * 4, cudaMemcpyHostToDevice, stream));
    void *params[] = {&alpha, &dx, &dy, &n};
    CHECK(cudaLaunchKernel((void *)saxpy_kernel, shape(32, 1), shape(128, 1), params, 0, stream));
    CHECK(cudaMemcpyAsync(y, dy, n * 4, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaEventRecord(stop, stream));
    CHECK(cudaEventSynchronize(stop));
    CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    EXPECT(milliseconds >= 0);
    for (int i = 0; i < n; i++)
        if (fabsf(y[i] - (alpha * x[i] + before[i])) > 1e-6f)
            FAIL("saxpy: element %d is %g, not %g", i, y[i], alpha * x[i] + before[i]);
    printf("saxpy: %d elements right\n", n);
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(stop));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFreeHost(x));
    CHECK(cudaFreeHost(y));
    CHECK(cudaFree(dx));
    CHECK(cudaFree(dy));
    free(before);
}

static void matmul(int n)
{
    size_t bytes = (size_t)n * n * 4;
    float *a = allocate(bytes), *b = allocate(bytes), *c = allocate(bytes), *dc;
    for (int i = 0; i < n * n; i++) {
        a[i] = random_float();
        b[i] = random_float();
    }
    float *da = to_device(a, bytes), *db = to_device(b, bytes);
    CHECK(cudaMalloc((void **)&dc, bytes));
    CHECK(cudaMemset(dc, 0xff, bytes));
    unsigned blocks = (n + 15) / 16;
    void *params[] = {&da, &db, &dc, &n};
    CHECK(cudaLaunchKernel((void *)matmul_kernel, shape(blocks, blocks), shape(16, 16), params, 0, 0));
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(c, dc, bytes, cudaMemcpyDefault));
    float error = matmul_error(a, b, c, n);
    if (!(error < 1e-3f))
        FAIL("matrix product: off by %g", error);
    printf("matrix product: %d x %d right (largest difference %.1e)\n", n, n, error);
    CHECK(cudaFree(da));
    CHECK(cudaFree(db));
    CHECK(cudaFree(dc));
    free(a), free(b), free(c);
}

static void reduction(int n)
{
    int *in = allocate(n * 4), most = -1000000, found_most, least = -2147483647 - 1;
    long long sum = 0;
    unsigned long long found = 0;
    for (int i = 0; i < n; i++) {
        in[i] = (int)(random_word() % 20001) - 10000;
        sum += in[i];
        if (in[i] > most)
            most = in[i];
    }
    int *din = to_device(in, n * 4), *dmost = to_device(&least, 4);
    unsigned long long *dtotal = to_device(&found, 8);
    void *params[] = {&din, &dtotal, &dmost, &n};
    CHECK(cudaLaunchKernel((void *)reduce_kernel, shape(13, 1), shape(128, 1), params, 128 * 8, 0));
    CHECK(cudaMemcpy(&found, dtotal, 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(&found_most, dmost, 4, cudaMemcpyDeviceToHost));
    if ((long long)found != sum || found_most != most)
        FAIL("reduction: %lld and %d, not %lld and %d", (long long)found, found_most, sum, most);
    printf("reduction: %d elements, sum %lld and largest %d right\n", n, sum, most);
    CHECK(cudaFree(din));
    CHECK(cudaFree(dtotal));
    CHECK(cudaFree(dmost));
    free(in);
}

static void variables(void)
{
    int value = 7, out[8], *dout;
    CHECK(cudaMemcpyToSymbol(&counter, &value, sizeof value, 0, cudaMemcpyHostToDevice));
    CHECK(cudaMalloc((void **)&dout, sizeof out));
    void *params[] = {&dout};
    CHECK(cudaLaunchKernel((void *)variables_kernel, shape(1, 1), shape(8, 1), params, 0, 0));
    CHECK(cudaMemcpy(out, dout, sizeof out, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 8; i++)
        EXPECT(out[i] == 7 * (i % 4 + 1));
    CHECK(cudaFree(dout));
    printf("variables: right\n");
}

/* The fatbin of managed_ptx, as tests/src/programs.rs makes them. */
static void *managed_fatbin(void)
{
    static struct {
        uint32_t magic;
        uint16_t version, header_bytes;
        uint64_t bytes;
        uint16_t kind, entry_version;
        uint32_t entry_header_bytes;
        uint64_t text_bytes;
        uint32_t unused, options;
        uint16_t minor, major;
        uint32_t architecture, name[2];
        uint64_t flags, more[2];
        uint32_t options_text, rest[3];
        char text[sizeof managed_ptx + 7];
    } fatbin = {.magic = 0xba55ed50, .version = 1, .header_bytes = 16, .kind = 1, .entry_version = 0x101, .entry_header_bytes = 80,
                .options = 64, .major = 8, .architecture = 80, .flags = 0x11, .options_text = 72};
    fatbin.text_bytes = (sizeof managed_ptx + 7) / 8 * 8;
    fatbin.bytes = 80 + fatbin.text_bytes;
    memcpy(fatbin.text, managed_ptx, sizeof managed_ptx);
    return &fatbin;
}

static void managed_variables(void)
{
    static struct {
        int magic, version;
        const void *data;
        void *unused;
    } second = {0x466243b1, 1, 0, 0};
    struct cudaPointerAttributes about;
    second.data = managed_fatbin();
    void **handle = __cudaRegisterFatBinary(&second);
    __cudaRegisterFunction(handle, (const char *)step_kernel, "step", "step", -1, 0, 0, 0, 0, 0);
    __cudaRegisterManagedVar(handle, (void **)&word, "word", "word", 0, 4, 0, 0);
    __cudaRegisterManagedVar(handle, (void **)&row, "row", "row", 0, 400000, 0, 0);
    __cudaRegisterFatBinaryEnd(handle);
    __cudaInitModule(handle);
    EXPECT(word && row);
    EXPECT(*word == 41 && row[0] == 0);
    CHECK(cudaLaunchKernel((void *)step_kernel, shape(1, 1), shape(64, 1), 0, 0, 0));
    CHECK(cudaDeviceSynchronize());
    EXPECT(*word == 42 && row[0] == 41 && row[63] == 41 && row[64] == 0);
    *word = 100;
    row[70000] = 5;
    CHECK(cudaLaunchKernel((void *)step_kernel, shape(1, 1), shape(64, 1), 0, 0, 0));
    CHECK(cudaDeviceSynchronize());
    EXPECT(*word == 101 && row[1] == 141 && row[70000] == 5);
    CHECK(cudaPointerGetAttributes(&about, row + 3));
    EXPECT(about.type == cudaMemoryTypeManaged && about.hostPointer == row + 3 && about.devicePointer == row + 3);
    __cudaUnregisterFatBinary(handle);
    printf("managed variables: right\n");
}

int main(void)
{
    int version, devices;
    struct cudaDeviceProp properties;
    void **handle = __cudaRegisterFatBinary(&wrapper);
    struct {
        void (*host)(void);
        char *name;
    } kernels[] = {{vector_add_kernel, "vector_add"}, {saxpy_kernel, "saxpy"}, {matmul_kernel, "matmul_tiled"},
                   {reduce_kernel, "reduce_sum"}, {variables_kernel, "use_variables"}};
    for (unsigned i = 0; i < sizeof kernels / sizeof *kernels; i++)
        __cudaRegisterFunction(handle, (const char *)kernels[i].host, kernels[i].name, kernels[i].name, -1, 0, 0, 0, 0, 0);
    __cudaRegisterVar(handle, (char *)&counter, "counter", "counter", 0, sizeof counter, 0, 0);
    __cudaRegisterFatBinaryEnd(handle);

    CHECK(cudaRuntimeGetVersion(&version));
    CHECK(cudaGetDeviceCount(&devices));
    CHECK(cudaGetDeviceProperties(&properties, 0));
    printf("runtime API %d.%d on %s, %d device(s)\n", version / 1000, version % 1000 / 10, properties.name, devices);

    vector_add(100003);
    saxpy(65536);
    matmul(50);
    reduction(100000);
    variables();
    managed_variables();

    CHECK(cudaDeviceSynchronize());
    __cudaUnregisterFatBinary(handle);
    printf("runtime API: all right\n");
    return 0;
}
