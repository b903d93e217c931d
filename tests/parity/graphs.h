/* What several programs about graphs build with: a kernel, a copy and a fill of N words. */
#ifndef VGPU_PARITY_GRAPHS_H
#define VGPU_PARITY_GRAPHS_H

#include "parity.h"

#define N 64

static inline CUdeviceptr memory(void)
{
    CUdeviceptr at = 0;
    if (cuMemAlloc(&at, N * sizeof(int)) || cuMemsetD32(at, 0, N) || cuCtxSynchronize())
        FACT("no memory");
    return at;
}

struct add {
    CUdeviceptr data;
    int value, n;
    void *list[3];
};

static inline CUDA_KERNEL_NODE_PARAMS adding(struct add *a, CUdeviceptr data)
{
    CUDA_KERNEL_NODE_PARAMS p;
    memset(&p, 0, sizeof p);
    a->data = data;
    a->value = 1;
    a->n = N;
    a->list[0] = &a->data;
    a->list[1] = &a->value;
    a->list[2] = &a->n;
    p.func = function("add_to_all");
    p.gridDimX = p.gridDimY = p.gridDimZ = p.blockDimY = p.blockDimZ = 1;
    p.blockDimX = N;
    p.kernelParams = a->list;
    return p;
}

static inline CUDA_MEMCPY3D copying(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    CUDA_MEMCPY3D c;
    memset(&c, 0, sizeof c);
    c.srcMemoryType = c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    c.srcDevice = from;
    c.dstDevice = to;
    c.WidthInBytes = c.srcPitch = c.dstPitch = bytes;
    c.srcHeight = c.dstHeight = c.Height = c.Depth = 1;
    return c;
}

static inline CUDA_MEMSET_NODE_PARAMS setting(CUdeviceptr to, unsigned value)
{
    CUDA_MEMSET_NODE_PARAMS p;
    memset(&p, 0, sizeof p);
    p.dst = to;
    p.value = value;
    p.elementSize = 4;
    p.width = N;
    p.height = 1;
    return p;
}

#endif
