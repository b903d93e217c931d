// Prints.
extern "C" __global__ void chatty(const int* p) { printf("%d\n", p[threadIdx.x]); }
