// What kernels can do that the compiler or the driver has to set up for them. With -DMANAGED a variable that host and device share as
// well: one such makes every kernel of the program wait for managed memory.
#include <cstdint>
#include <cstdio>
#include <cooperative_groups.h>
#include <cuda_runtime.h>

namespace cg = cooperative_groups;

#define R(call) (printf("%s = %s\n", #call, cudaGetErrorName(call)), fflush(stdout))

__device__ unsigned long long total;
#ifdef MANAGED
__managed__ int shared_with_host = 3;
__global__ void use_managed() { shared_with_host *= 7; }
#endif
__constant__ int table[256];

struct Shape {
    __device__ virtual float area() const = 0;
    __device__ virtual ~Shape() {}
};
struct Square : Shape {
    float side;
    __device__ Square(float s) : side(s) {}
    __device__ float area() const override { return side * side; }
};
struct Circle : Shape {
    float radius;
    __device__ Circle(float r) : radius(r) {}
    __device__ float area() const override { return 3.0f * radius * radius; }
};

__global__ void heap(float *out)
{
    Shape *s = threadIdx.x & 1 ? (Shape *)new Square(threadIdx.x) : (Shape *)new Circle(threadIdx.x);
    out[threadIdx.x] = s ? s->area() : -1;
    delete s;
}

__global__ void warps(int *out)
{
    int v = threadIdx.x * 7 % 31;
    for (int d = 16; d; d /= 2)
        v += __shfl_xor_sync(~0u, v, d);
    unsigned votes = __ballot_sync(~0u, threadIdx.x % 3 == 0);
    out[threadIdx.x] = v + __popc(votes) * 1000 + __reduce_add_sync(~0u, threadIdx.x) * 100000;
}

__global__ void together(int *data, int n)
{
    cg::grid_group grid = cg::this_grid();
    for (int round = 0; round < 10; round++) {
        for (int i = grid.thread_rank(); i < n; i += grid.size())
            data[n * ((round + 1) & 1) + i] = data[n * (round & 1) + (i + 1) % n] + 1;
        grid.sync();
    }
}

__global__ void __cluster_dims__(2, 1, 1) clustered(int *out)
{
    __shared__ int mine[32];
    cg::cluster_group cluster = cg::this_cluster();
    mine[threadIdx.x] = blockIdx.x * 100 + threadIdx.x;
    cluster.sync();
    int *other = cluster.map_shared_rank(mine, cluster.block_rank() ^ 1);
    out[blockIdx.x * 32 + threadIdx.x] = other[threadIdx.x];
    cluster.sync();
}

__global__ void atomics(double *d, unsigned *u)
{
    atomicAdd(d, 0.25);
    atomicMax(u, threadIdx.x + blockIdx.x * blockDim.x);
    atomicAdd(&total, (unsigned long long)table[threadIdx.x & 255]);
    atomicCAS(u + 1, 0u, 77u);
}

__global__ void deep(int n, int *out)
{
    // Too much for registers: local memory.
    int local[256];
    for (int i = 0; i < 256; i++)
        local[i] = (i * 31 + n) & 255;
    int at = threadIdx.x;
    for (int i = 0; i < 1000; i++)
        at = local[at & 255] + i;
    out[threadIdx.x] = at;
}

template <typename T> static void show(const char *name, const T *device, int n, const char *format)
{
    T host[256];
    if (cudaMemcpy(host, device, n * sizeof(T), cudaMemcpyDeviceToHost)) {
        printf("%s: no copy\n", name);
        return;
    }
    printf("%s:", name);
    for (int i = 0; i < n; i++)
        printf(format, host[i]);
    printf("\n");
    fflush(stdout);
}

int main()
{
    int *ints, *big, zeros[2] = {};
    float *floats;
    double *d;
    int values[256];
    for (int i = 0; i < 256; i++)
        values[i] = i * i;
    R(cudaMalloc(&ints, 4096));
    R(cudaMalloc(&floats, 4096));
    R(cudaMalloc(&d, 64));
    R(cudaMalloc(&big, 2 * 100000 * 4));
    R(cudaMemset(d, 0, 64));
    R(cudaMemset(big, 0, 2 * 100000 * 4));
    R(cudaMemcpyToSymbol(table, values, sizeof values));
    R(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 64 << 20));
    heap<<<1, 64>>>(floats);
    R(cudaDeviceSynchronize());
    show("heap", floats, 64, " %g");
    warps<<<1, 32>>>(ints);
    R(cudaDeviceSynchronize());
    show("warps", ints, 32, " %d");
    int n = 100000, blocks = 0, processors = 0;
    R(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, together, 128, 0));
    R(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    void *arguments[] = {&big, &n};
    R(cudaLaunchCooperativeKernel((void *)together, dim3(blocks * processors), dim3(128), arguments, 0, 0));
    R(cudaDeviceSynchronize());
    show("together", big, 20, " %d");
    R(cudaLaunchCooperativeKernel((void *)together, dim3(blocks * processors + 1), dim3(128), arguments, 0, 0));
    cudaGetLastError();
    clustered<<<4, 32>>>(ints);
    R(cudaDeviceSynchronize());
    show("clustered", ints, 128, " %d");
    R(cudaMemcpy(ints, zeros, 8, cudaMemcpyHostToDevice));
    atomics<<<100, 256>>>(d, (unsigned *)ints);
    R(cudaDeviceSynchronize());
    show("sum", d, 1, " %g");
    show("most", ints, 2, " %d");
    unsigned long long sum = 0;
    R(cudaMemcpyFromSymbol(&sum, total, 8));
    printf("total %llu\n", sum);
    deep<<<1, 128>>>(5, ints);
    R(cudaDeviceSynchronize());
    show("deep", ints, 128, " %d");
#ifdef MANAGED
    use_managed<<<1, 1>>>();
    R(cudaDeviceSynchronize());
    printf("managed %d\n", shared_with_host);
    shared_with_host = 5;
    use_managed<<<1, 1>>>();
    R(cudaDeviceSynchronize());
    printf("managed %d\n", shared_with_host);
#endif
    return 0;
}
