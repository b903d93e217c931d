// Kernels that need device-side system calls.
extern "C" __global__ void checked(const int* p) { assert(p[threadIdx.x] == 0); }
