// Shared memory, barriers, atomics, warp operations.
#define T 16
extern "C" __global__ void matmul_static(const float* a, const float* b, float* c, int n) {
  __shared__ float sa[T][T], sb[T][T];
  int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * T + ty, col = blockIdx.x * T + tx;
  float acc = 0;
  for (int k = 0; k < n; k += T) {
    sa[ty][tx] = a[row * n + k + tx]; sb[ty][tx] = b[(k + ty) * n + col];
    __syncthreads();
    for (int j = 0; j < T; j++) acc += sa[ty][j] * sb[j][tx];
    __syncthreads();
  }
  c[row * n + col] = acc;
}
extern "C" __global__ void matmul_dynamic(const float* a, const float* b, float* c, int n) {
  extern __shared__ float dyn[];
  float *sa = dyn, *sb = dyn + T * T;
  int tx = threadIdx.x, ty = threadIdx.y, row = blockIdx.y * T + ty, col = blockIdx.x * T + tx;
  float acc = 0;
  for (int k = 0; k < n; k += T) {
    sa[ty * T + tx] = a[row * n + k + tx]; sb[ty * T + tx] = b[(k + ty) * n + col];
    __syncthreads();
    for (int j = 0; j < T; j++) acc += sa[ty * T + j] * sb[j * T + tx];
    __syncthreads();
  }
  c[row * n + col] = acc;
}
extern "C" __global__ void reduce(const int* in, int n, int* total) {
  __shared__ int part[32];
  int v = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += in[i];
  for (int d = 16; d; d >>= 1) v += __shfl_down_sync(~0u, v, d);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < (blockDim.x + 31) / 32 ? part[threadIdx.x] : 0;
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
    if (threadIdx.x == 0) atomicAdd(total, v);
  }
}
extern "C" __global__ void histogram(const unsigned char* in, int n, unsigned* out) {
  __shared__ unsigned bins[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&bins[in[i]], 1u);
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&out[i], bins[i]);
}
extern "C" __global__ void scan(const int* in, int* out, int n) {
  extern __shared__ int tmp[];
  int t = threadIdx.x;
  tmp[t] = t < n ? in[t] : 0;
  __syncthreads();
  for (int d = 1; d < blockDim.x; d <<= 1) {
    int v = t >= d ? tmp[t - d] : 0;
    __syncthreads();
    tmp[t] += v;
    __syncthreads();
  }
  if (t < n) out[t] = tmp[t];
}
extern "C" __global__ void shuffles(const int* in, int* out) {
  int t = threadIdx.x, v = in[t];
  int* o = out + t * 12;
  o[0] = __shfl_sync(~0u, v, 5); o[1] = __shfl_sync(~0u, v, t + 3, 8); o[2] = __shfl_up_sync(~0u, v, 2);
  o[3] = __shfl_down_sync(~0u, v, 3, 16); o[4] = __shfl_xor_sync(~0u, v, 9); o[5] = __shfl_up_sync(~0u, v, 1, 4);
  o[6] = __ballot_sync(~0u, v & 1); o[7] = __any_sync(~0u, v == in[3]); o[8] = __all_sync(~0u, v > -1000000);
  o[9] = __reduce_add_sync(~0u, v); o[10] = __reduce_max_sync(~0u, v);
  o[11] = 0;
  if (v & 1) { o[11] = __popc(__activemask()) * 1000; o[11] += __shfl_sync(__activemask(), v, __ffs(__activemask()) - 1) & 511; }
}
extern "C" __global__ void matches(const int* in, unsigned* out) {
  int v = in[threadIdx.x]; int pred;
  out[threadIdx.x * 3] = __match_any_sync(~0u, v);
  out[threadIdx.x * 3 + 1] = __match_all_sync(~0u, v, &pred);
  out[threadIdx.x * 3 + 2] = pred;
}
extern "C" __global__ void barrier_votes(const int* in, int* out) {
  int v = in[threadIdx.x];
  int c = __syncthreads_count(v & 1), a = __syncthreads_and(v & 2), o = __syncthreads_or(v == 12345);
  out[threadIdx.x * 3] = c; out[threadIdx.x * 3 + 1] = a; out[threadIdx.x * 3 + 2] = o;
}
extern "C" __global__ void early_exit(int* out, int n) {
  __shared__ int s[256];
  int t = threadIdx.x;
  s[t] = t;
  if (t >= n) return;
  __syncthreads();
  out[t] = s[n - 1 - t];
}
extern "C" __global__ void named_barriers(int* out) {
  __shared__ int a[64];
  int t = threadIdx.x;  // 128 threads: the first 64 produce, the others consume
  if (t < 64) { a[t] = t * t; __threadfence_block(); asm volatile("bar.arrive 1, 128;" ::: "memory"); }
  else { asm volatile("bar.sync 1, 128;" ::: "memory"); out[t - 64] = a[127 - t]; }
}
extern "C" __global__ void atomics(unsigned* u, int* s, unsigned long long* q, float* f, double* d, const int* in) {
  int v = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&u[0], (unsigned)v); atomicMin(&u[1], (unsigned)v); atomicMax(&u[2], (unsigned)v); atomicAnd(&u[3], (unsigned)v | 0xf0f00000u);
  atomicOr(&u[4], 1u << (v & 31)); atomicXor(&u[5], (unsigned)v); atomicInc(&u[6], 99); atomicDec(&u[7], 100);
  atomicMin(&s[0], v); atomicMax(&s[1], v); atomicSub(&s[2], v);
  atomicAdd(&q[0], (unsigned long long)(long long)v); atomicMax(&q[1], (unsigned long long)v * 0x100000001ull);
  atomicAdd(f, 1.0f); atomicAdd(d, 0.5);
  unsigned old = u[8], seen;
  do { seen = old; old = atomicCAS(&u[8], seen, seen + 3); } while (old != seen);
  unsigned long long oq = q[2], sq;
  do { sq = oq; oq = atomicCAS(&q[2], sq, sq + 5); } while (oq != sq);
  atomicExch(&u[9], 77u);
}
extern "C" __global__ void generic_space(int* g, int* out, int pick) {
  __shared__ int s[32]; int l[4] = {pick, pick + 1, pick + 2, pick + 3};
  s[threadIdx.x] = threadIdx.x * 2; __syncthreads();
  int* p = pick == 0 ? g : pick == 1 ? s : l;
  out[threadIdx.x * 2] = p[threadIdx.x & 3];
  out[threadIdx.x * 2 + 1] = __isGlobal(p) | __isShared(p) << 1 | __isLocal(p) << 2;
  if (pick == 1) atomicAdd(p, 1);
  __syncthreads();
  if (pick == 1 && threadIdx.x == 0) out[0] = s[0];
}
extern "C" __global__ void spinlock(int* lock, int* counter) {
  for (bool done = false; !done;) {
    if (atomicCAS(lock, 0, 1) == 0) { volatile int* c = counter; *c = *c + 1; __threadfence(); atomicExch(lock, 0); done = true; }
  }
}
