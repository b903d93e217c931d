// Program structure: globals, constants, device functions, local memory, templates.
__constant__ float coeff[5] = {1.5f, -2.25f, 3.0f, 0.5f, -1.0f};
__device__ int counter = 41;
__device__ unsigned char blob[7] = {1, 2, 3, 250, 5};
__device__ double table[4];
__device__ int values[6] = {10, 11, 12, 13, 14, 15};
__device__ int* third = &values[2];
__constant__ int* cthird = &values[3];
__device__ const char* message = "soft";
extern "C" __global__ void globals(double* out) {
  int i = threadIdx.x;
  out[i * 6] = coeff[i % 5]; out[i * 6 + 1] = i == 0 ? atomicAdd(&counter, 1) : 0; out[i * 6 + 2] = blob[i % 7];
  out[i * 6 + 3] = third[i % 4]; out[i * 6 + 4] = message[i % 5]; out[i * 6 + 5] = cthird[i % 3];
  table[i % 4] = i % 4 + 0.5;
}
__device__ __noinline__ int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
struct Pair { double a; int b; float c[3]; };
__device__ __noinline__ Pair twist(Pair p, short k) { Pair r; r.a = p.a * k; r.b = p.b - k; for (int i = 0; i < 3; i++) r.c[i] = p.c[2 - i] + k; return r; }
__device__ __noinline__ void bump(int* p, bool up) { *p += up ? 5 : -5; }
extern "C" __global__ void calls(double* out) {
  int i = threadIdx.x; Pair p; p.a = i + 0.5; p.b = i * 10; p.c[0] = 1; p.c[1] = 2; p.c[2] = 3;
  Pair r = twist(p, (short)(i - 2)); int acc = i; bump(&acc, i & 1); double* o = out + i * 7;
  o[0] = fib(i % 12); o[1] = r.a; o[2] = r.b; o[3] = r.c[0]; o[4] = r.c[1]; o[5] = r.c[2]; o[6] = acc;
}
__device__ __noinline__ int endless(int n, volatile int* p) { int big[64]; big[n & 63] = *p; return endless(n + 1, p) + big[(n + *p) & 63]; }
extern "C" __global__ void deep(int* out) { *out = endless(0, out); }
extern "C" __global__ void local_array(const int* in, int* out, int n) {
  int a[32]; int t = threadIdx.x;
  for (int i = 0; i < n; i++) a[i] = in[(t * 7 + i) % 97];
  for (int i = 1; i < n; i++) { int v = a[i], j = i - 1; while (j >= 0 && a[j] > v) { a[j + 1] = a[j]; j--; } a[j + 1] = v; }
  for (int i = 0; i < n; i++) out[t * n + i] = a[i];
}
template <typename V> __global__ void fill(V* p, V v) { p[threadIdx.x] = v + (V)threadIdx.x; }
template __global__ void fill<int>(int*, int);
template __global__ void fill<double>(double*, double);
extern "C" __global__ void divergent(const int* in, int* out) {
  int v = in[threadIdx.x], r = 0;
  for (int i = 0; i < v; i++) { if (i % 3 == 0) { r += i; if (r > 100) break; } else if (i % 3 == 1) continue; else { for (int j = 0; j < i % 5; j++) r ^= j + v; } r += 2; }
  out[threadIdx.x] = r;
}
