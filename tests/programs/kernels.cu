// The kernels that the test programs launch. Compiled to PTX by NVRTC at build time.

extern "C" __global__ void vector_add(const float *a, const float *b, float *c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        c[i] = a[i] + b[i];
}

extern "C" __global__ void saxpy(float alpha, const float *x, float *y, int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = alpha * x[i] + y[i];
}

#define TILE 16

// c = a · b for row-major n × n matrices; n is any number.
extern "C" __global__ void matmul_tiled(const float *a, const float *b, float *c, int n)
{
    __shared__ float tile_a[TILE][TILE];
    __shared__ float tile_b[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y;
    int col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int t = 0; t < (n + TILE - 1) / TILE; t++) {
        int k = t * TILE;
        tile_a[threadIdx.y][threadIdx.x] = row < n && k + threadIdx.x < n ? a[row * n + k + threadIdx.x] : 0.0f;
        tile_b[threadIdx.y][threadIdx.x] = col < n && k + threadIdx.y < n ? b[(k + threadIdx.y) * n + col] : 0.0f;
        __syncthreads();
        for (int i = 0; i < TILE; i++)
            sum += tile_a[threadIdx.y][i] * tile_b[i][threadIdx.x];
        __syncthreads();
    }
    if (row < n && col < n)
        c[row * n + col] = sum;
}

// Sums of n integers: each block in shared memory, the blocks by one atomic each.
extern "C" __global__ void reduce_sum(const int *in, unsigned long long *total, int *most, int n)
{
    extern __shared__ long long partial[];
    long long sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        sum += in[i];
        atomicMax(most, in[i]);
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        atomicAdd(total, (unsigned long long)partial[0]);
}

// Adds to every element; run over and over by tests of order.
extern "C" __global__ void add_to_all(int *data, int value, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        data[i] += value;
}

// Runs until the word is not 0, or for ever.
extern "C" __global__ void spin_until(volatile int *flag)
{
    while (*flag == 0)
        ;
}

// Writes where it is told, whatever lies there.
extern "C" __global__ void poke(int *where, int value)
{
    *where = value;
}

__device__ int counter = 5;
__constant__ int factors[4] = {1, 2, 3, 4};

extern "C" __global__ void use_variables(int *out)
{
    out[threadIdx.x] = counter * factors[threadIdx.x & 3];
}
