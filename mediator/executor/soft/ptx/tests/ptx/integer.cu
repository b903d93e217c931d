// Integer arithmetic of every width.
typedef unsigned long long u64; typedef long long i64; typedef unsigned u32;
extern "C" __global__ void ints64(const u64* a, const u64* b, u64* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return;
  u64 x = a[i], y = b[i]; u64* o = out + i * 20; i64 sx = x, sy = y;
  o[0] = x * y; o[1] = __umul64hi(x, y); o[2] = __mul64hi(sx, sy); o[3] = x / y; o[4] = x % y; o[5] = sx / sy; o[6] = sx % sy;
  o[7] = x << (y & 63); o[8] = x >> (y & 63); o[9] = sx >> (y & 63); o[10] = __popcll(x); o[11] = __clzll(x); o[12] = __brevll(x);
  o[13] = __ffsll(x); o[14] = x < y; o[15] = sx < sy; o[16] = sx < 0 ? -sx : sx; o[17] = min(x, y); o[18] = max(sx, sy); o[19] = (x & ~y) ^ (x | y);
}
extern "C" __global__ void ints32(const u32* a, const u32* b, u32* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return;
  u32 x = a[i], y = b[i]; u32* o = out + i * 32; int sx = x, sy = y;
  o[0] = x * y; o[1] = __umulhi(x, y); o[2] = __mulhi(sx, sy); o[3] = x / y; o[4] = x % y; o[5] = sx / sy; o[6] = sx % sy;
  o[7] = __funnelshift_l(x, y, x & 31); o[8] = __funnelshift_r(x, y, y); o[9] = __funnelshift_lc(x, y, x & 63); o[10] = __byte_perm(x, y, x ^ y);
  o[11] = __popc(x); o[12] = __clz(x); o[13] = __brev(x); o[14] = __ffs(x); o[15] = __sad(sx, sy, 5u); o[16] = __mul24(sx, sy); o[17] = __umul24(x, y);
  o[18] = __dp4a(sx, sy, 9); o[19] = __dp4a(x, y, 9u); o[20] = abs(sx); o[21] = min(sx, sy); o[22] = max(x, y); o[23] = __hadd(sx, sy);
  o[24] = x / 7; o[25] = sx % 13; o[26] = (x >> 5) & 0xff; o[27] = (unsigned short)x * (unsigned short)y; o[28] = (short)x >> 3; o[29] = (signed char)x + (short)y;
  o[30] = __dp2a_lo(sx, sy, 3); o[31] = (x & y) | (~x & ~y & 0x12345678u);
}
extern "C" __global__ void wide(const u64* a, const u64* b, u64* out) {
  // 128-bit addition, subtraction and multiplication through carry chains.
  int i = threadIdx.x; unsigned __int128 x = ((unsigned __int128)a[2 * i] << 64) | a[2 * i + 1], y = ((unsigned __int128)b[2 * i] << 64) | b[2 * i + 1];
  unsigned __int128 s = x + y, d = x - y, m = x * y;
  u64* o = out + i * 6; o[0] = s >> 64; o[1] = s; o[2] = d >> 64; o[3] = d; o[4] = m >> 64; o[5] = m;
}
extern "C" __global__ void carry(const u32* a, const u32* b, u32* out) {
  int i = threadIdx.x; u32 r0, r1, r2, s0, s1, m0, m1;
  asm("{ add.cc.u32 %0, %3, %6; addc.cc.u32 %1, %4, %7; addc.u32 %2, %5, %8; }" : "=&r"(r0), "=&r"(r1), "=r"(r2)
      : "r"(a[3 * i]), "r"(a[3 * i + 1]), "r"(a[3 * i + 2]), "r"(b[3 * i]), "r"(b[3 * i + 1]), "r"(b[3 * i + 2]));
  asm("{ sub.cc.u32 %0, %2, %4; subc.u32 %1, %3, %5; }" : "=&r"(s0), "=r"(s1) : "r"(a[3 * i]), "r"(a[3 * i + 1]), "r"(b[3 * i]), "r"(b[3 * i + 1]));
  asm("{ .reg .u32 t; mad.lo.cc.u32 t, %2, %3, %4; madc.hi.u32 %1, %2, %3, 0; mov.u32 %0, t; }" : "=&r"(m0), "=r"(m1) : "r"(a[3 * i]), "r"(b[3 * i]), "r"(a[3 * i + 1]));
  u32* o = out + i * 7; o[0] = r0; o[1] = r1; o[2] = r2; o[3] = s0; o[4] = s1; o[5] = m0; o[6] = m1;
}
extern "C" __global__ void bitfields(const u32* a, const u32* b, u32* out) {
  int i = threadIdx.x; u32 x = a[i], p = b[i] & 63, l = (b[i] >> 8) & 63, r; u32* o = out + i * 6;
  asm("bfe.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(p), "r"(l)); o[0] = r;
  asm("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(p), "r"(l)); o[1] = r;
  asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(x), "r"(b[i]), "r"(p), "r"(l)); o[2] = r;
  asm("bfind.u32 %0, %1;" : "=r"(r) : "r"(x)); o[3] = r;
  asm("bfind.s32 %0, %1;" : "=r"(r) : "r"(x)); o[4] = r;
  asm("bfind.shiftamt.u32 %0, %1;" : "=r"(r) : "r"(x)); o[5] = r;
}
extern "C" __global__ void collatz(const u32* in, u32* out) {
  u64 v = in[threadIdx.x]; u32 n = 0;
  while (v != 1) { v = v & 1 ? 3 * v + 1 : v / 2; n++; }
  out[threadIdx.x] = n;
}
extern "C" __global__ void switches(const int* in, int* out) {
  int v = in[threadIdx.x], r;
  switch (v) {
    case 0: r = out[threadIdx.x] * 3; break; case 1: r = v - 17; out[64] = 1; break; case 2: r = __popc(out[threadIdx.x]); break;
    case 3: r = 1000 / (out[threadIdx.x] + 1); break; case 4: r = out[threadIdx.x] ^ 0x55; out[65] = 2; break; case 5: r = -out[threadIdx.x]; break;
    case 6: r = out[threadIdx.x] << 3; break; case 7: r = 99; out[66] = 3; break; case 8: r = out[threadIdx.x] % 7; break; default: r = -1;
  }
  out[threadIdx.x] = r;
}
