// NVIDIA's runtime library over the driver: what programs that nvcc built use. Every line is a fact; no address and no time is one.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include <cuda_runtime.h>

static const char *result(cudaError_t e) { return cudaGetErrorName(e); }
#define R(call) (printf("%s = %s\n", #call, result(call)), fflush(stdout))
#define NEED(call) do { cudaError_t e_ = (call); if (e_) { printf("%s = %s\n", #call, result(e_)); fflush(stdout); return; } } while (0)

static uint64_t sum(const void *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;
    uint64_t s = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        s = (s ^ p[i]) * 0x100000001b3u;
    return s;
}

__constant__ float factors[4] = {1, 2, 3, 4};
__device__ int counter;

__global__ void scale(float *x, int n, float by)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] = x[i] * by + factors[i & 3];
}

__global__ void count_up(int n)
{
    for (int i = 0; i < n; i++)
        atomicAdd(&counter, 1);
}

__global__ void hello(int n)
{
    printf("block %d of %d says hello %d\n", blockIdx.x, gridDim.x, n);
}

__global__ void sample(cudaTextureObject_t t, float *out, int w, int h)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < w && y < h)
        out[y * w + x] = tex2D<float>(t, x + 0.75f, y + 0.25f);
}

__global__ void surface_write(cudaSurfaceObject_t s, int w, int h)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < w && y < h)
        surf2Dwrite((float)(x * 3 + y), s, x * 4, y);
}

__global__ void shared_sum(const float *in, float *out)
{
    extern __shared__ float part[];
    part[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (!threadIdx.x)
        out[blockIdx.x] = part[0];
}

static void device()
{
    int n = 0, version = 0;
    R(cudaGetDeviceCount(&n));
    R(cudaRuntimeGetVersion(&version));
    printf("devices %d, runtime %d\n", n, version);
    R(cudaDriverGetVersion(&version));
    printf("driver %d\n", version);
    cudaDeviceProp p;
    memset(&p, 0, sizeof p);
    NEED(cudaGetDeviceProperties(&p, 0));
    printf("%s %d.%d, %zu bytes, %d multiprocessors, %zu and %zu of shared memory, %d registers, warp %d, bus %x:%x.%x, L2 %d\n", p.name,
        p.major, p.minor, p.totalGlobalMem, p.multiProcessorCount, p.sharedMemPerBlock, p.sharedMemPerBlockOptin, p.regsPerBlock,
        p.warpSize, p.pciDomainID, p.pciBusID, p.pciDeviceID, p.l2CacheSize);
    printf("uva %d managed %d concurrent %d pageable %d cooperative %d register %d pools %d engines %d\n", p.unifiedAddressing,
        p.managedMemory, p.concurrentManagedAccess, p.pageableMemoryAccess, p.cooperativeLaunch, p.hostRegisterSupported,
        p.memoryPoolsSupported, p.asyncEngineCount);
    for (int a = 1; a <= 150; a++) {
        int v = -1;
        cudaError_t e = cudaDeviceGetAttribute(&v, (cudaDeviceAttr)a, 0);
        printf("attribute %d: %s %d\n", a, result(e), v);
    }
    int least = 0, greatest = 0;
    R(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    printf("priorities %d %d\n", least, greatest);
    for (int l = 0; l < 8; l++) {
        size_t v = 0;
        cudaError_t e = cudaDeviceGetLimit(&v, (cudaLimit)l);
        printf("limit %d: %s %zu\n", l, result(e), v);
    }
    R(cudaSetDevice(n));
    R(cudaSetDevice(0));
    R(cudaGetLastError());
}

static void memory()
{
    const int n = 1 << 20;
    std::vector<float> host(n);
    for (int i = 0; i < n; i++)
        host[i] = (float)(i % 1000);
    float *d, *pinned, *pitched;
    size_t pitch;
    NEED(cudaMalloc(&d, n * sizeof(float)));
    R(cudaMemcpy(d, host.data(), n * sizeof(float), cudaMemcpyHostToDevice));
    scale<<<(n + 255) / 256, 256>>>(d, n, 1.5f);
    R(cudaGetLastError());
    R(cudaMemcpy(host.data(), d, n * sizeof(float), cudaMemcpyDeviceToHost));
    printf("scaled %016llx\n", (unsigned long long)sum(host.data(), n * sizeof(float)));
    R(cudaMallocHost(&pinned, n * sizeof(float)));
    R(cudaMemcpyAsync(pinned, d, n * sizeof(float), cudaMemcpyDefault, 0));
    R(cudaDeviceSynchronize());
    printf("pinned %016llx\n", (unsigned long long)sum(pinned, n * sizeof(float)));
    cudaPointerAttributes a = {};
    R(cudaPointerGetAttributes(&a, pinned));
    printf("type %d, device pointer is the pointer: %d\n", (int)a.type, a.devicePointer == pinned);
    R(cudaPointerGetAttributes(&a, d));
    printf("type %d device %d\n", (int)a.type, a.device);
    R(cudaPointerGetAttributes(&a, host.data()));
    printf("type %d\n", (int)a.type);
    R(cudaFreeHost(pinned));
    NEED(cudaMallocPitch(&pitched, &pitch, 1000, 100));
    printf("pitch %zu\n", pitch);
    R(cudaMemset2D(pitched, pitch, 0x5a, 1000, 100));
    std::vector<unsigned char> plain(1000 * 100);
    R(cudaMemcpy2D(plain.data(), 1000, pitched, pitch, 1000, 100, cudaMemcpyDeviceToHost));
    printf("2D %016llx\n", (unsigned long long)sum(plain.data(), plain.size()));
    R(cudaFree(pitched));
    R(cudaMemcpyToSymbol(factors, host.data(), 16));
    float back[4] = {};
    R(cudaMemcpyFromSymbol(back, factors, 16));
    printf("constants %g %g %g %g\n", back[0], back[1], back[2], back[3]);
    size_t size = 0;
    R(cudaGetSymbolSize(&size, counter));
    printf("symbol %zu\n", size);
    R(cudaFree(d));
    R(cudaFree(nullptr));
    R(cudaMemcpy(host.data(), (void *)8, 16, cudaMemcpyDeviceToHost));
    R(cudaGetLastError());
    R(cudaMalloc(&d, (size_t)1 << 50));
    R(cudaGetLastError());
    void *async;
    cudaStream_t s;
    NEED(cudaStreamCreate(&s));
    R(cudaMallocAsync(&async, 1 << 20, s));
    R(cudaMemsetAsync(async, 7, 1 << 20, s));
    R(cudaMemcpyAsync(plain.data(), async, 1000, cudaMemcpyDeviceToHost, s));
    R(cudaFreeAsync(async, s));
    R(cudaStreamSynchronize(s));
    printf("async %d %d\n", plain[0], plain[999]);
    R(cudaStreamDestroy(s));
    R(cudaHostRegister(host.data(), n * sizeof(float), cudaHostRegisterDefault));
    R(cudaHostUnregister(host.data()));
    cudaGetLastError();
}

static void managed()
{
    int *m, n = 1000;
    R(cudaMallocManaged(&m, 1 << 20));
    if (cudaGetLastError())
        return;
    for (int i = 0; i < n; i++)
        m[i] = i;
    scale<<<4, 256>>>((float *)m, n, 1.0f);
    R(cudaDeviceSynchronize());
    printf("managed %016llx\n", (unsigned long long)sum(m, n * 4));
    R(cudaFree(m));
}

static void streams()
{
    cudaStream_t a, b;
    cudaEvent_t begin, end, done;
    float *x, ms = -1;
    NEED(cudaMalloc(&x, 4096));
    R(cudaMemset(x, 0, 4096));
    NEED(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    NEED(cudaStreamCreateWithPriority(&b, cudaStreamNonBlocking, -1));
    R(cudaEventCreate(&begin));
    R(cudaEventCreate(&end));
    R(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    R(cudaEventRecord(begin, a));
    for (int i = 0; i < 100; i++) {
        cudaStream_t s = i & 1 ? b : a;
        scale<<<4, 256, 0, s>>>(x, 1024, 0.5f);
        cudaEventRecord(done, s);
        cudaStreamWaitEvent(i & 1 ? a : b, done, 0);
    }
    R(cudaEventRecord(end, a));
    R(cudaEventSynchronize(end));
    R(cudaEventElapsedTime(&ms, begin, end));
    printf("it took some time: %d\n", ms > 0);
    R(cudaStreamSynchronize(b));
    R(cudaStreamQuery(a));
    R(cudaEventElapsedTime(&ms, begin, done));
    std::vector<float> host(1024);
    R(cudaMemcpy(host.data(), x, 4096, cudaMemcpyDeviceToHost));
    printf("ordered %016llx\n", (unsigned long long)sum(host.data(), 4096));
    int called = 0;
    R(cudaLaunchHostFunc(a, [](void *p) { ++*(int *)p; }, &called));
    R(cudaStreamSynchronize(a));
    printf("host function %d\n", called);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([] {
            for (int i = 0; i < 50; i++)
                count_up<<<2, 32, 0, cudaStreamPerThread>>>(3);
            cudaStreamSynchronize(cudaStreamPerThread);
        });
    for (auto &t : threads)
        t.join();
    int total = 0;
    R(cudaMemcpyFromSymbol(&total, counter, 4));
    printf("counted %d\n", total);
    R(cudaEventDestroy(begin));
    R(cudaEventDestroy(end));
    R(cudaEventDestroy(done));
    R(cudaStreamDestroy(a));
    R(cudaStreamDestroy(b));
    R(cudaFree(x));
}

static void graphs()
{
    cudaStream_t s;
    cudaGraph_t g = nullptr;
    cudaGraphExec_t e = nullptr;
    float *x;
    std::vector<float> host(1024);
    NEED(cudaMalloc(&x, 4096));
    R(cudaMemset(x, 0, 4096));
    NEED(cudaStreamCreate(&s));
    R(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < 10; i++)
        scale<<<4, 256, 0, s>>>(x, 1024, 1.25f);
    R(cudaStreamEndCapture(s, &g));
    size_t nodes = 0;
    R(cudaGraphGetNodes(g, nullptr, &nodes));
    printf("nodes %zu\n", nodes);
    R(cudaGraphInstantiate(&e, g, 0));
    for (int i = 0; i < 5; i++)
        R(cudaGraphLaunch(e, s));
    R(cudaStreamSynchronize(s));
    R(cudaMemcpy(host.data(), x, 4096, cudaMemcpyDeviceToHost));
    printf("graph %016llx\n", (unsigned long long)sum(host.data(), 4096));
    R(cudaGraphExecDestroy(e));
    R(cudaGraphDestroy(g));
    R(cudaStreamDestroy(s));
    R(cudaFree(x));
}

static void textures()
{
    const int w = 64, h = 48;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    R(cudaMallocArray(&array, &format, w, h, cudaArraySurfaceLoadStore));
    if (cudaGetLastError())
        return;
    std::vector<float> host(w * h);
    for (int i = 0; i < w * h; i++)
        host[i] = (float)(i % 17);
    R(cudaMemcpy2DToArray(array, 0, 0, host.data(), w * 4, w * 4, h, cudaMemcpyHostToDevice));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    float *out;
    R(cudaMalloc(&out, w * h * 4));
    for (int linear = 0; linear < 2; linear++) {
        cudaTextureDesc how = {};
        how.addressMode[0] = cudaAddressModeClamp;
        how.addressMode[1] = cudaAddressModeClamp;
        how.filterMode = linear ? cudaFilterModeLinear : cudaFilterModePoint;
        cudaTextureObject_t texture;
        R(cudaCreateTextureObject(&texture, &resource, &how, nullptr));
        sample<<<dim3(8, 6), dim3(8, 8)>>>(texture, out, w, h);
        R(cudaDeviceSynchronize());
        R(cudaMemcpy(host.data(), out, w * h * 4, cudaMemcpyDeviceToHost));
        printf("texture %d %016llx\n", linear, (unsigned long long)sum(host.data(), w * h * 4));
        R(cudaDestroyTextureObject(texture));
    }
    cudaSurfaceObject_t surface;
    R(cudaCreateSurfaceObject(&surface, &resource));
    surface_write<<<dim3(8, 6), dim3(8, 8)>>>(surface, w, h);
    R(cudaDeviceSynchronize());
    R(cudaMemcpy2DFromArray(host.data(), w * 4, array, 0, 0, w * 4, h, cudaMemcpyDeviceToHost));
    printf("surface %016llx\n", (unsigned long long)sum(host.data(), w * h * 4));
    R(cudaDestroySurfaceObject(surface));
    R(cudaFreeArray(array));
    R(cudaFree(out));
    cudaGetLastError();
}

static void functions()
{
    cudaFuncAttributes a = {};
    R(cudaFuncGetAttributes(&a, shared_sum));
    printf("shared %zu constant %zu local %zu threads %d registers %d binary %d dynamic %d\n", a.sharedSizeBytes, a.constSizeBytes,
        a.localSizeBytes, a.maxThreadsPerBlock, a.numRegs, a.binaryVersion, a.maxDynamicSharedSizeBytes);
    int blocks = 0, grid = 0, block = 0;
    R(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, shared_sum, 256, 1024));
    printf("blocks %d\n", blocks);
    R(cudaOccupancyMaxPotentialBlockSize(&grid, &block, shared_sum, 0, 0));
    printf("grid %d block %d\n", grid, block);
    float *x;
    R(cudaMalloc(&x, 8192));
    R(cudaMemset(x, 0, 8192));
    shared_sum<<<1, 256, 100 * 1024>>>(x, x + 1024);
    R(cudaGetLastError());
    R(cudaFuncSetAttribute(shared_sum, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024));
    shared_sum<<<1, 256, 100 * 1024>>>(x, x + 1024);
    R(cudaGetLastError());
    shared_sum<<<1, 2048>>>(x, x + 1024);
    R(cudaGetLastError());
    R(cudaDeviceSynchronize());
    cudaLaunchAttribute attribute[1];
    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(4);
    config.blockDim = dim3(256);
    config.attrs = attribute;
    config.numAttrs = 1;
    R(cudaLaunchKernelEx(&config, scale, x, 1024, 2.0f));
    R(cudaDeviceSynchronize());
    R(cudaFree(x));
}

static void print()
{
    // Blocks may print in any order: one at a time.
    for (int i = 0; i < 5; i++) {
        hello<<<1, 1>>>(i);
        R(cudaDeviceSynchronize());
    }
}

int main()
{
    device();
    memory();
    managed();
    streams();
    graphs();
    textures();
    functions();
    print();
    R(cudaDeviceReset());
    return 0;
}
