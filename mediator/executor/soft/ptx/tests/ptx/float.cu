// Floating point: conversions, rounding, the math library.
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void mandelbrot(int w, int h, int limit, int* out) {
  int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= w || y >= h) return;
  double cr = -2.0 + 3.0 * x / w, ci = -1.5 + 3.0 * y / h, zr = 0, zi = 0; int n = 0;
  while (n < limit && zr * zr + zi * zi <= 4.0) { double t = zr * zr - zi * zi + cr; zi = 2 * zr * zi + ci; zr = t; n++; }
  out[y * w + x] = n;
}
extern "C" __global__ void math32(const float* a, float* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return; float x = a[i]; float* o = out + i * 24;
  o[0] = sinf(x); o[1] = cosf(x); o[2] = tanf(x); o[3] = expf(x); o[4] = logf(fabsf(x)); o[5] = powf(fabsf(x), 1.7f); o[6] = sqrtf(fabsf(x)); o[7] = rsqrtf(fabsf(x));
  o[8] = erff(x); o[9] = tanhf(x); o[10] = atanf(x); o[11] = cbrtf(x); o[12] = log2f(fabsf(x)); o[13] = exp2f(x); o[14] = fmodf(x, 0.37f); o[15] = floorf(x);
  o[16] = ceilf(x); o[17] = rintf(x); o[18] = truncf(x); o[19] = x / 3.1f; o[20] = __sinf(x); o[21] = __expf(x); o[22] = sinf(x * 1e9f); o[23] = lgammaf(x);
}
extern "C" __global__ void math64(const double* a, double* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return; double x = a[i]; double* o = out + i * 16;
  o[0] = sin(x); o[1] = cos(x); o[2] = exp(x); o[3] = log(fabs(x)); o[4] = pow(fabs(x), 1.7); o[5] = sqrt(fabs(x)); o[6] = 1 / sqrt(fabs(x)); o[7] = erf(x);
  o[8] = tanh(x); o[9] = atan2(x, 2.0); o[10] = x / 3.1; o[11] = fmod(x, 0.37); o[12] = floor(x); o[13] = fma(x, x, 1.0); o[14] = sin(x * 1e12); o[15] = cbrt(x);
}
extern "C" __global__ void converts(const float* f, const double* d, const int* s, const unsigned long long* q, long long* out) {
  int i = threadIdx.x; long long* o = out + i * 24; float x = f[i]; double y = d[i];
  o[0] = (int)x; o[1] = (unsigned)x; o[2] = (long long)x; o[3] = (unsigned long long)x; o[4] = __float2int_rn(x); o[5] = __float2int_ru(x); o[6] = __float2int_rd(x);
  o[7] = (int)y; o[8] = (unsigned)y; o[9] = (long long)y; o[10] = (unsigned long long)y; o[11] = __double2int_rn(y); o[12] = __double2ll_rd(y);
  o[13] = __float_as_int((float)s[i]); o[14] = __float_as_int((float)(unsigned)s[i]); o[15] = __double_as_longlong((double)s[i]); o[16] = __float_as_int((float)q[i]);
  o[17] = __double_as_longlong((double)(long long)q[i]); o[18] = __float_as_int((float)y); o[19] = __double_as_longlong((double)x); o[20] = (short)(int)x; o[21] = (unsigned char)(int)x;
  o[22] = __float_as_int(__int2float_rz(s[i])); o[23] = __float_as_int(__double2float_ru(y));
}
extern "C" __global__ void rounding(const float* a, const float* b, float* out) {
  int i = threadIdx.x; float x = a[i], y = b[i]; float* o = out + i * 16;
  o[0] = __fadd_rz(x, y); o[1] = __fadd_ru(x, y); o[2] = __fadd_rd(x, y); o[3] = __fmul_rz(x, y); o[4] = __fmul_ru(x, y); o[5] = __fmul_rd(x, y);
  o[6] = __fdiv_rz(x, y); o[7] = __fdiv_ru(x, y); o[8] = __fdiv_rd(x, y); o[9] = __fmaf_rz(x, y, x); o[10] = __fmaf_ru(x, y, x); o[11] = __fmaf_rd(x, y, x);
  o[12] = __fsqrt_rz(fabsf(x)); o[13] = __fsqrt_ru(fabsf(x)); o[14] = __saturatef(x); o[15] = __frcp_rd(y);
}
extern "C" __global__ void rounding64(const double* a, const double* b, double* out) {
  int i = threadIdx.x; double x = a[i], y = b[i]; double* o = out + i * 12;
  o[0] = __dadd_rz(x, y); o[1] = __dadd_ru(x, y); o[2] = __dadd_rd(x, y); o[3] = __dmul_rz(x, y); o[4] = __dmul_ru(x, y); o[5] = __dmul_rd(x, y);
  o[6] = __ddiv_rz(x, y); o[7] = __ddiv_ru(x, y); o[8] = __fma_rz(x, y, x); o[9] = __fma_ru(x, y, x); o[10] = __dsqrt_rd(fabs(x)); o[11] = __drcp_ru(y);
}
extern "C" __global__ void halves(const float* a, const float* b, float* out, unsigned short* bits) {
  int i = threadIdx.x; __half x = __float2half(a[i]), y = __float2half(b[i]); float* o = out + i * 12;
  o[0] = __half2float(x); o[1] = __half2float(__hadd(x, y)); o[2] = __half2float(__hmul(x, y)); o[3] = __half2float(__hfma(x, y, x)); o[4] = __hlt(x, y); o[5] = __half2float(__hneg(x));
  __half2 v = __halves2half2(x, y); v = __hadd2(v, __hmul2(v, v)); o[6] = __low2float(v); o[7] = __high2float(v);
  __nv_bfloat16 p = __float2bfloat16(a[i]); o[8] = __bfloat162float(p); o[9] = __half2float(__float2half_rz(a[i])); o[10] = __half2int_rn(x); o[11] = __half2float(__int2half_rn(i * 1001));
  bits[i] = __half_as_ushort(x);
}
