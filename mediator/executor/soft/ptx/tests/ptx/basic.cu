// Element-wise kernels, grids and parameters by value.
extern "C" __global__ void vecadd(const float* a, const float* b, float* c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}
extern "C" __global__ void saxpy(float k, const float* __restrict__ x, float* y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = k * x[i] + y[i];
}
struct Pod { char c; double d; short s[3]; int v; float4 f; };
extern "C" __global__ void by_value(Pod p, unsigned char tag, double* out) {
  out[0] = p.c; out[1] = p.d; out[2] = p.s[0]; out[3] = p.s[1]; out[4] = p.s[2]; out[5] = p.v;
  out[6] = p.f.x; out[7] = p.f.y; out[8] = p.f.z; out[9] = p.f.w; out[10] = tag;
}
extern "C" __global__ void by_value_indexed(Pod p, int i, double* out) { out[threadIdx.x] = p.s[(i + threadIdx.x) % 3]; }
extern "C" __global__ void grid3(unsigned* out) {
  unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y,
           z = blockIdx.z * blockDim.z + threadIdx.z;
  unsigned w = gridDim.x * blockDim.x, h = gridDim.y * blockDim.y;
  out[(z * h + y) * w + x] = x | y << 8 | z << 16;
}
extern "C" __global__ void copy4(const float4* in, float4* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) { float4 v = in[i]; v.x += 1; v.w *= 2; out[i] = v; }
}
extern "C" __global__ void bytes(const signed char* a, const unsigned char* b, const short* s, int* out) {
  int i = threadIdx.x;
  out[i] = a[i] * 3 + b[i] - s[i];
}
extern "C" __global__ void store_past(int* p, long long off) { p[off] = 7; }
extern "C" __global__ void load_odd(const char* p, int* out) { *out = *(const int*)(p + 1); }
extern "C" __global__ void forever(volatile int* p) { while (*p == 0) { } }
extern "C" __global__ void forever_blind(int* p) { int i = 0; for (;;) { i = i * 3 + 1; if (i == 7 && p[i] == 3) break; asm volatile(""); } p[0] = i; }
extern "C" __global__ void trap_if(const int* p) { if (p[threadIdx.x] == 5) __trap(); }
extern "C" __global__ void __launch_bounds__(128, 2) bounded(int* p) { p[threadIdx.x] = 1; }
extern "C" __global__ void handoff(volatile int* flag, int* out) {
  if (blockIdx.x == 0) { out[0] = 42; __threadfence(); *flag = 1; }
  else { while (*flag == 0) { } __threadfence(); out[1] = out[0] + 1; }
}
extern "C" __global__ void specials(unsigned* out) {
  unsigned lane, warp, eq, lt, ge; asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  asm volatile("mov.u32 %0, %%warpid;" : "=r"(warp));
  asm volatile("mov.u32 %0, %%lanemask_eq;" : "=r"(eq));
  asm volatile("mov.u32 %0, %%lanemask_lt;" : "=r"(lt));
  asm volatile("mov.u32 %0, %%lanemask_ge;" : "=r"(ge));
  unsigned* o = out + 6 * threadIdx.x;
  o[0] = lane; o[1] = warp; o[2] = eq; o[3] = lt; o[4] = ge; long long t = clock64(); o[5] = clock64() >= t;
}
