/*
 * Copies and fills of every shape, arrays, texture and surface objects, tensor maps.
 */
#include "parity.h"

CUresult CUDAAPI cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D *);
CUresult CUDAAPI cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *);
CUresult CUDAAPI cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D *, CUstream);

/* Numbered bytes; no two rows of a page alike. */
static void number(void *to, size_t len, unsigned seed)
{
    unsigned char *p = to;
    for (size_t i = 0; i < len; i++)
        p[i] = (unsigned char)(i * 7 + (i >> 8) * 13 + (i >> 16) * 29 + seed);
}

static CUdeviceptr numbered(size_t len, unsigned seed)
{
    CUdeviceptr at = 0;
    void *bytes = malloc(len);
    number(bytes, len, seed);
    if (cuMemAlloc(&at, len) || cuMemcpyHtoD(at, bytes, len))
        FACT("no memory of %zu bytes", len);
    free(bytes);
    return at;
}

static CUdeviceptr filled(size_t len, unsigned char with)
{
    CUdeviceptr at = 0;
    if (cuMemAlloc(&at, len) || cuMemsetD8(at, with, len) || cuCtxSynchronize())
        FACT("no memory of %zu bytes", len);
    return at;
}

/* What device memory holds, as a checksum. */
static void holds(const char *what, CUdeviceptr at, size_t len)
{
    void *bytes = calloc(1, len);
    CUresult result = cuMemcpyDtoH(bytes, at, len);
    if (result)
        FACT("%s: cannot be read: %d", what, result);
    else
        FACT("%s: %016llx", what, (unsigned long long)parity_sum(bytes, len));
    free(bytes);
}

static void bytes_are(const char *what, const void *bytes, size_t len)
{
    FACT("%s: %016llx", what, (unsigned long long)parity_sum(bytes, len));
}

static CUDA_MEMCPY2D rect(size_t width, size_t height)
{
    CUDA_MEMCPY2D c;
    memset(&c, 0, sizeof c);
    c.WidthInBytes = width;
    c.Height = height;
    return c;
}
#define FROM_HOST(c, p, pitch) ((c).srcMemoryType = CU_MEMORYTYPE_HOST, (c).srcHost = (p), (c).srcPitch = (pitch))
#define TO_HOST(c, p, pitch) ((c).dstMemoryType = CU_MEMORYTYPE_HOST, (c).dstHost = (p), (c).dstPitch = (pitch))
#define FROM_DEVICE(c, p, pitch) ((c).srcMemoryType = CU_MEMORYTYPE_DEVICE, (c).srcDevice = (p), (c).srcPitch = (pitch))
#define TO_DEVICE(c, p, pitch) ((c).dstMemoryType = CU_MEMORYTYPE_DEVICE, (c).dstDevice = (p), (c).dstPitch = (pitch))
#define FROM_UNIFIED(c, p, pitch) \
    ((c).srcMemoryType = CU_MEMORYTYPE_UNIFIED, (c).srcDevice = (CUdeviceptr)(p), (c).srcPitch = (pitch))
#define TO_UNIFIED(c, p, pitch) \
    ((c).dstMemoryType = CU_MEMORYTYPE_UNIFIED, (c).dstDevice = (CUdeviceptr)(p), (c).dstPitch = (pitch))
#define FROM_ARRAY(c, a) ((c).srcMemoryType = CU_MEMORYTYPE_ARRAY, (c).srcArray = (a))
#define TO_ARRAY(c, a) ((c).dstMemoryType = CU_MEMORYTYPE_ARRAY, (c).dstArray = (a))

CASE(cuMemcpy2D_host_and_device)
{
    static unsigned char host[4096], back[4096];
    CUdeviceptr d = filled(8192, 0xaa);
    CUDA_MEMCPY2D c = rect(37, 11);
    number(host, sizeof host, 1);
    FROM_HOST(c, host, 64);
    TO_DEVICE(c, d, 128);
    c.srcXInBytes = 5, c.srcY = 2, c.dstXInBytes = 9, c.dstY = 3;
    R(cuMemcpy2D(&c));
    holds("device", d, 8192);
    memset(back, 0x55, sizeof back);
    c = rect(37, 11);
    FROM_DEVICE(c, d, 128);
    TO_HOST(c, back, 40);
    c.srcXInBytes = 9, c.srcY = 3, c.dstXInBytes = 3, c.dstY = 1;
    R(cuMemcpy2D(&c));
    bytes_are("host", back, sizeof back);
    R(cuMemcpy2DUnaligned(&c));
    bytes_are("host again", back, sizeof back);
    c = rect(20, 5);
    FROM_DEVICE(c, d, 128);
    TO_DEVICE(c, d + 4096, 33);
    R(cuMemcpy2D(&c));
    holds("device to device", d, 8192);
    R(cuMemcpy2DUnaligned(&c));
    c = rect(20, 5);
    FROM_HOST(c, host, 100);
    TO_HOST(c, back, 21);
    R(cuMemcpy2D(&c));
    bytes_are("host to host", back, sizeof back);
    R(cuMemFree(d));
}

CASE(cuMemcpy2D_unified)
{
    static unsigned char host[4096], back[4096];
    unsigned char *pinned;
    CUdeviceptr d = filled(4096, 0);
    CUDA_MEMCPY2D c = rect(16, 16);
    number(host, sizeof host, 2);
    NEED(cuMemAllocHost((void **)&pinned, 4096));
    memset(pinned, 0, 4096);
    FROM_UNIFIED(c, host, 32);
    TO_UNIFIED(c, d, 64);
    R(cuMemcpy2D(&c));
    holds("from pageable", d, 4096);
    c = rect(16, 16);
    FROM_UNIFIED(c, d, 64);
    TO_UNIFIED(c, pinned, 17);
    R(cuMemcpy2D(&c));
    bytes_are("to pinned", pinned, 4096);
    c = rect(16, 16);
    FROM_HOST(c, pinned, 17);
    TO_UNIFIED(c, back, 48);
    R(cuMemcpy2D(&c));
    bytes_are("pinned to pageable", back, 4096);
    c = rect(16, 16);
    FROM_HOST(c, back, 48);
    TO_HOST(c, pinned + 1024, 18);
    R(cuMemcpy2D(&c));
    bytes_are("pageable to pinned", pinned, 4096);
    c = rect(16, 4);
    FROM_DEVICE(c, (CUdeviceptr)pinned, 17);
    TO_DEVICE(c, d + 2048, 16);
    R(cuMemcpy2D(&c));
    holds("pinned by its device address", d, 4096);
    R(cuMemFreeHost(pinned));
    R(cuMemFree(d));
}

CASE(cuMemcpy2D_large)
{
    size_t pitch = 5000, height = 3000, wide = 9u << 20;
    unsigned char *host = malloc(wide * 3), *back = calloc(1, wide * 3);
    CUdeviceptr d = filled(wide * 3, 0);
    CUDA_MEMCPY2D c = rect(4321, height);
    number(host, wide * 3, 3);
    FROM_HOST(c, host, pitch);
    TO_DEVICE(c, d, 4608);
    c.srcXInBytes = 600, c.dstXInBytes = 100;
    R(cuMemcpy2D(&c));
    holds("many rows", d, 4608 * height);
    c = rect(4321, height);
    FROM_DEVICE(c, d, 4608);
    TO_HOST(c, back, 4400);
    c.srcXInBytes = 100;
    R(cuMemcpy2D(&c));
    bytes_are("many rows back", back, 4400 * height);
    c = rect(wide - 10, 3);
    FROM_HOST(c, host, wide);
    TO_DEVICE(c, d, wide);
    c.srcXInBytes = 3, c.dstXInBytes = 7;
    R(cuMemcpy2D(&c));
    holds("wide rows", d, wide * 3);
    memset(back, 1, wide * 3);
    c = rect(wide - 10, 3);
    FROM_DEVICE(c, d, wide);
    TO_HOST(c, back, wide);
    c.srcXInBytes = 7, c.dstXInBytes = 1;
    R(cuMemcpy2D(&c));
    bytes_are("wide rows back", back, wide * 3);
    R(cuMemFree(d));
    free(host);
    free(back);
}

CASE(cuMemcpy2DAsync)
{
    static unsigned char host[4096];
    unsigned char *pinned;
    CUstream s;
    CUdeviceptr d = filled(4096, 0), flag = filled(4, 0);
    CUDA_MEMCPY2D c = rect(30, 20);
    NEED(cuMemAllocHost((void **)&pinned, 4096));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    number(pinned, 4096, 4);
    number(host, 4096, 5);
    FROM_HOST(c, host, 64);
    TO_DEVICE(c, d, 64);
    R(cuMemcpy2DAsync(&c, s));
    memset(host, 0, sizeof host); /* pageable memory is read before the call returns */
    R(cuStreamSynchronize(s));
    holds("pageable", d, 4096);
    R(cuStreamWaitValue32(s, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    c = rect(30, 20);
    FROM_HOST(c, pinned, 64);
    TO_DEVICE(c, d, 128);
    R(cuMemcpy2DAsync(&c, s));
    R(cuStreamQuery(s));
    R(cuMemsetD32(flag, 1, 1));
    R(cuStreamSynchronize(s));
    holds("pinned", d, 4096);
    c = rect(30, 20);
    FROM_DEVICE(c, d, 128);
    TO_HOST(c, pinned, 31);
    R(cuMemcpy2DAsync(&c, s));
    R(cuStreamSynchronize(s));
    bytes_are("back", pinned, 4096);
    R(cuMemcpy2DAsync(&c, CU_STREAM_LEGACY));
    R(cuMemcpy2DAsync(&c, CU_STREAM_PER_THREAD));
    R(cuMemcpy2DAsync_v2_ptsz(&c, 0));
    R(cuMemcpy2D_v2_ptds(&c));
    R(cuCtxSynchronize());
    R(cuStreamDestroy(s));
    R(cuMemFreeHost(pinned));
    R(cuMemFree(d));
    R(cuMemFree(flag));
}

CASE(cuMemcpy2D_refused)
{
    static unsigned char host[4096];
    CUdeviceptr d = filled(4096, 0);
    CUDA_MEMCPY2D c, good = rect(16, 4);
    int pitch_max = 0;
    FROM_HOST(good, host, 64);
    TO_DEVICE(good, d, 64);
    R(cuDeviceGetAttribute(&pitch_max, CU_DEVICE_ATTRIBUTE_MAX_PITCH, device));
    FACT("max pitch %d", pitch_max);
    R(cuMemcpy2D(0));
    c = good, c.WidthInBytes = 0;
    R(cuMemcpy2D((FACT("no width"), &c)));
    c = good, c.Height = 0;
    R(cuMemcpy2D((FACT("no height"), &c)));
    c = good, c.srcMemoryType = 0;
    R(cuMemcpy2D((FACT("source type 0"), &c)));
    c = good, c.dstMemoryType = 9;
    R(cuMemcpy2D((FACT("destination type 9"), &c)));
    c = good, c.srcPitch = 15;
    R(cuMemcpy2D((FACT("source pitch below width"), &c)));
    c = good, c.dstPitch = 15;
    R(cuMemcpy2D((FACT("destination pitch below width"), &c)));
    c = good, c.dstXInBytes = 49;
    R(cuMemcpy2D((FACT("destination pitch below x and width"), &c)));
    c = good, c.srcXInBytes = 49;
    R(cuMemcpy2D((FACT("source pitch below x and width"), &c)));
    c = good, c.Height = 1, c.srcPitch = 0;
    R(cuMemcpy2D((FACT("one row, no source pitch"), &c)));
    c = good, c.Height = 1, c.dstPitch = 0;
    R(cuMemcpy2D((FACT("one row, no destination pitch"), &c)));
    c = good, c.Height = 1, c.dstPitch = 8;
    R(cuMemcpy2D((FACT("one row, destination pitch below width"), &c)));
    c = good, c.dstPitch = 0;
    R(cuMemcpy2D((FACT("four rows, no destination pitch"), &c)));
    {
        CUdeviceptr from = numbered(4096, 31), to = filled(4096, 0);
        c = rect(16, 4);
        FROM_DEVICE(c, from, 64);
        TO_DEVICE(c, to, 0);
        c.dstXInBytes = 4, c.dstY = 1;
        R(cuMemcpy2D((FACT("between devices"), &c)));
        holds("rows without a pitch", to, 4096);
        R(cuMemFree(from));
        R(cuMemFree(to));
    }
    c = good, c.Height = 1, c.dstPitch = (size_t)pitch_max + 1;
    R(cuMemcpy2D((FACT("destination pitch too large"), &c)));
    c = good, c.dstY = 61;
    R(cuMemcpy2D((FACT("beyond the end"), &c)));
    c = good, c.dstY = 60, c.dstXInBytes = 48;
    R(cuMemcpy2D((FACT("up to the end"), &c)));
    c = good, c.dstDevice = 0;
    R(cuMemcpy2D((FACT("to NULL"), &c)));
    c = good, c.srcHost = 0;
    R(cuMemcpy2D((FACT("from NULL"), &c)));
    c = good, c.dstDevice = (CUdeviceptr)host;
    R(cuMemcpy2D((FACT("pageable memory as device memory"), &c)));
    R(cuMemcpy2DAsync(&good, (CUstream)0));
    R(cuCtxSynchronize());
    R(cuMemFree(d));
}

static CUDA_MEMCPY3D cuboid(size_t width, size_t height, size_t depth)
{
    CUDA_MEMCPY3D c;
    memset(&c, 0, sizeof c);
    c.WidthInBytes = width;
    c.Height = height;
    c.Depth = depth;
    return c;
}

CASE(cuMemcpy3D)
{
    static unsigned char host[1 << 16], back[1 << 16];
    CUdeviceptr d = filled(1 << 16, 0x11), e = filled(1 << 16, 0x22);
    CUDA_MEMCPY3D c = cuboid(21, 7, 5);
    CUstream s;
    NEED(cuStreamCreate(&s, 0));
    number(host, sizeof host, 6);
    FROM_HOST(c, host, 32);
    TO_DEVICE(c, d, 48);
    c.srcHeight = 10, c.dstHeight = 9;
    c.srcXInBytes = 1, c.srcY = 2, c.srcZ = 3, c.dstXInBytes = 4, c.dstY = 1, c.dstZ = 2;
    R(cuMemcpy3D(&c));
    holds("in", d, 1 << 16);
    c = cuboid(21, 7, 5);
    FROM_DEVICE(c, d, 48);
    TO_DEVICE(c, e, 64);
    c.srcHeight = 9, c.dstHeight = 8;
    c.srcXInBytes = 4, c.srcY = 1, c.srcZ = 2;
    R(cuMemcpy3DAsync(&c, s));
    R(cuStreamSynchronize(s));
    holds("across", e, 1 << 16);
    c = cuboid(21, 7, 5);
    FROM_UNIFIED(c, e, 64);
    TO_UNIFIED(c, back, 23);
    c.srcHeight = 8, c.dstHeight = 7;
    R(cuMemcpy3D(&c));
    bytes_are("out", back, sizeof back);
    R(cuMemcpy3D_v2_ptds(&c));
    c = cuboid(64, 1024, 1);
    FROM_DEVICE(c, d, 64);
    TO_DEVICE(c, e, 64);
    R(cuMemcpy3D((FACT("one slice needs no height"), &c)));
    holds("one slice", e, 1 << 16);
    c.Depth = 2, c.Height = 16;
    R(cuMemcpy3D((FACT("two slices need one"), &c)));
    holds("slices without a height", e, 1 << 16);
    c.srcHeight = c.dstHeight = 16;
    R(cuMemcpy3D(&c));
    c.srcHeight = 15;
    R(cuMemcpy3D((FACT("a height below the copy's"), &c)));
    c.srcHeight = 16, c.srcY = 1;
    R(cuMemcpy3D((FACT("a height below y and the copy's"), &c)));
    c.srcY = 0, c.srcZ = 63;
    R(cuMemcpy3D((FACT("beyond the end"), &c)));
    c.srcZ = 62;
    R(cuMemcpy3D((FACT("up to the end"), &c)));
    c.Depth = 0;
    R(cuMemcpy3D((FACT("no depth"), &c)));
    R(cuMemcpy3D(0));
    R(cuMemcpy3DAsync(0, s));
    R(cuStreamDestroy(s));
    R(cuMemFree(d));
    R(cuMemFree(e));
}

CASE(cuMemcpy3D_large)
{
    size_t pitch = 300, rows = 200, slices = 100;
    unsigned char *host = malloc(pitch * rows * slices), *back = calloc(1, pitch * rows * slices);
    CUdeviceptr d = filled(512 * rows * slices, 0);
    CUDA_MEMCPY3D c = cuboid(255, 190, slices);
    number(host, pitch * rows * slices, 7);
    FROM_HOST(c, host, pitch);
    TO_DEVICE(c, d, 512);
    c.srcHeight = c.dstHeight = rows;
    c.srcXInBytes = 45, c.srcY = 10;
    R(cuMemcpy3D(&c));
    holds("in", d, 512 * rows * slices);
    c = cuboid(255, 190, slices);
    FROM_DEVICE(c, d, 512);
    TO_HOST(c, back, 255);
    c.srcHeight = rows, c.dstHeight = 190;
    R(cuMemcpy3D(&c));
    bytes_are("out", back, pitch * rows * slices);
    R(cuMemFree(d));
    free(host);
    free(back);
}

CASE(cuMemcpyPeer)
{
    static unsigned char host[1024];
    CUdeviceptr d = numbered(4096, 8), e = filled(4096, 0);
    CUDA_MEMCPY3D_PEER p;
    CUstream s;
    NEED(cuStreamCreate(&s, 0));
    R(cuMemcpyPeer(e, context, d, context, 1000));
    holds("peer", e, 4096);
    R(cuMemcpyPeerAsync(e + 1000, context, d + 7, context, 999, s));
    R(cuStreamSynchronize(s));
    holds("peer async", e, 4096);
    R(cuMemcpyPeer(e, context, d, context, 4097));
    R(cuMemcpyPeer(e, context, d, context, 0));
    R(cuMemcpyPeer((CUdeviceptr)host, context, d, context, 8));
    memset(&p, 0, sizeof p);
    FROM_DEVICE(p, d, 32);
    TO_DEVICE(p, e, 64);
    p.srcContext = p.dstContext = context;
    p.srcHeight = p.dstHeight = 8;
    p.WidthInBytes = 20, p.Height = 5, p.Depth = 3;
    R(cuMemcpy3DPeer(&p));
    holds("peer box", e, 4096);
    p.srcXInBytes = 3;
    R(cuMemcpy3DPeerAsync(&p, s));
    R(cuStreamSynchronize(s));
    holds("peer box async", e, 4096);
    FROM_HOST(p, host, 32);
    number(host, sizeof host, 9);
    R(cuMemcpy3DPeer(&p));
    R(cuCtxSynchronize());
    holds("peer box from host", e, 4096);
    R(cuStreamDestroy(s));
    R(cuMemFree(d));
    R(cuMemFree(e));
}

CASE(cuMemcpyPeer_contexts)
{
    CUcontext other;
    CUdeviceptr there, here = filled(256, 0);
    NEED(cuCtxCreate(&other, 0, 0, device));
    there = numbered(256, 10);
    R(cuCtxSetCurrent(context));
    R(cuMemcpyPeer(here, context, there, other, 256));
    holds("from another context", here, 256);
    R(cuMemcpyPeer(there, other, here, context, 128));
    R(cuCtxDestroy(other));
    R(cuMemFree(here));
}

typedef CUresult CUDAAPI batch_v1(CUdeviceptr *, CUdeviceptr *, size_t *, size_t, CUmemcpyAttributes *, size_t *, size_t,
                                  size_t *, CUstream);
typedef CUresult CUDAAPI batch_3d_v1(size_t, CUDA_MEMCPY3D_BATCH_OP *, size_t *, unsigned long long, CUstream);

CASE(cuMemcpyBatchAsync)
{
    static unsigned char host[2048], back[2048];
    unsigned char *pinned;
    CUdeviceptr d = numbered(8192, 11), e = filled(8192, 0);
    CUdeviceptr dsts[5], srcs[5];
    size_t sizes[5] = {100, 200, 300, 400, 500}, first[2] = {0, 2}, fail = 77;
    CUmemcpyAttributes attributes[2];
    CUstream s;
    batch_v1 *v1 = 0;
    CUdriverProcAddressQueryResult status;
    NEED(cuMemAllocHost((void **)&pinned, 4096));
    NEED(cuStreamCreate(&s, 0));
    number(pinned, 4096, 12);
    number(host, sizeof host, 13);
    memset(attributes, 0, sizeof attributes);
    attributes[0].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    attributes[1].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
    attributes[1].flags = CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE;
    dsts[0] = e, srcs[0] = d;
    dsts[1] = e + 1000, srcs[1] = (CUdeviceptr)pinned;
    dsts[2] = e + 2000, srcs[2] = (CUdeviceptr)host;
    dsts[3] = (CUdeviceptr)back, srcs[3] = d + 4000;
    dsts[4] = (CUdeviceptr)(pinned + 2000), srcs[4] = d + 5000;
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 5, attributes, first, 2, s));
    R(cuStreamSynchronize(s));
    holds("device", e, 8192);
    bytes_are("pinned", pinned, 4096);
    bytes_are("pageable", back, sizeof back);
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 2, attributes, first, 1, CU_STREAM_PER_THREAD));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 5, attributes, first, 2, 0));
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 5, attributes, first, 2, CU_STREAM_LEGACY));
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 0, attributes, first, 2, s));
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 5, attributes, first, 0, s));
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 1, attributes, first, 2, s));
    R(cuMemcpyBatchAsync(0, srcs, sizes, 5, attributes, first, 2, s));
    R(cuMemcpyBatchAsync(dsts, srcs, 0, 5, attributes, first, 2, s));
    R(cuMemcpyBatchAsync(dsts, srcs, sizes, 5, 0, first, 2, s));
    first[0] = 1;
    R(cuMemcpyBatchAsync((FACT("first index not 0"), dsts), srcs, sizes, 5, attributes, first, 2, s));
    first[0] = 0, first[1] = 5;
    R(cuMemcpyBatchAsync((FACT("index too large"), dsts), srcs, sizes, 5, attributes, first, 2, s));
    first[1] = 2, attributes[1].srcAccessOrder = 0;
    R(cuMemcpyBatchAsync((FACT("no order"), dsts), srcs, sizes, 5, attributes, first, 2, s));
    attributes[1].srcAccessOrder = 4;
    R(cuMemcpyBatchAsync((FACT("order 4"), dsts), srcs, sizes, 5, attributes, first, 2, s));
    attributes[1].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
    sizes[0] = 9000;
    R(cuMemcpyBatchAsync((FACT("too long"), dsts), srcs, sizes, 5, attributes, first, 2, s));
    sizes[0] = 100;
    R(cuGetProcAddress("cuMemcpyBatchAsync", (void **)&v1, 12080, 0, &status));
    if (v1) {
        CUgraph graph;
        R(v1(dsts, srcs, sizes, 5, attributes, first, 2, &fail, s));
        FACT("fail index: as it was %d, none %d", fail == 77, fail == SIZE_MAX);
        R(v1(dsts, srcs, sizes, 5, attributes, first, 2, 0, s));
        R(cuStreamSynchronize(s));
        R(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
        R(v1(dsts, srcs, sizes, 2, attributes, first, 1, &fail, s));
        R(cuStreamEndCapture(s, &graph));
    }
    R(cuStreamDestroy(s));
    R(cuMemFreeHost(pinned));
    R(cuMemFree(d));
    R(cuMemFree(e));
}

CASE(cuMemcpy3DBatchAsync)
{
    static unsigned char host[2048];
    CUdeviceptr d = numbered(8192, 14), e = filled(8192, 0);
    CUDA_MEMCPY3D_BATCH_OP ops[2];
    CUstream s;
    batch_3d_v1 *v1 = 0;
    CUdriverProcAddressQueryResult status;
    size_t fail = 77;
    NEED(cuStreamCreate(&s, 0));
    number(host, sizeof host, 15);
    memset(ops, 0, sizeof ops);
    for (int i = 0; i < 2; i++) {
        ops[i].src.type = ops[i].dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
        ops[i].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
        ops[i].extent.width = 10, ops[i].extent.height = 4, ops[i].extent.depth = 3;
    }
    ops[0].src.op.ptr.ptr = d, ops[0].src.op.ptr.rowLength = 16, ops[0].src.op.ptr.layerHeight = 5;
    ops[0].dst.op.ptr.ptr = e, ops[0].dst.op.ptr.rowLength = 12;
    ops[1].src.op.ptr.ptr = (CUdeviceptr)host;
    ops[1].dst.op.ptr.ptr = e + 1024, ops[1].dst.op.ptr.rowLength = 20, ops[1].dst.op.ptr.layerHeight = 6;
    R(cuMemcpy3DBatchAsync(2, ops, 0, s));
    R(cuStreamSynchronize(s));
    holds("device", e, 8192);
    R(cuMemcpy3DBatchAsync(2, ops, 1, s));
    R(cuMemcpy3DBatchAsync(0, ops, 0, s));
    R(cuMemcpy3DBatchAsync(2, 0, 0, s));
    R(cuMemcpy3DBatchAsync(2, ops, 0, 0));
    ops[1].extent.depth = 0;
    R(cuMemcpy3DBatchAsync((FACT("no depth"), 2), ops, 0, s));
    ops[1].extent.depth = 3, ops[1].dst.op.ptr.rowLength = 9;
    R(cuMemcpy3DBatchAsync((FACT("rows too short"), 2), ops, 0, s));
    ops[1].dst.op.ptr.rowLength = 0, ops[1].srcAccessOrder = 0;
    R(cuMemcpy3DBatchAsync((FACT("no order"), 2), ops, 0, s));
    ops[1].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL, ops[1].src.type = 0;
    R(cuMemcpy3DBatchAsync((FACT("no type"), 2), ops, 0, s));
    ops[1].src.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
    R(cuGetProcAddress("cuMemcpy3DBatchAsync", (void **)&v1, 12080, 0, &status));
    if (v1) {
        R(v1(2, ops, &fail, 0, s));
        FACT("fail index: as it was %d, none %d", fail == 77, fail == SIZE_MAX);
        R(v1(2, ops, 0, 0, s));
    }
    R(cuStreamSynchronize(s));
    holds("device again", e, 8192);
    R(cuStreamDestroy(s));
    R(cuMemFree(d));
    R(cuMemFree(e));
}

CASE(cuMemcpy_lengths)
{
    static unsigned char host[256];
    CUdeviceptr d = numbered(4096, 16);
    R(cuMemcpyHtoD(d, host, 0));
    R(cuMemcpyDtoH(host, d, 0));
    R(cuMemcpyDtoD(d, d + 8, 0));
    R(cuMemcpy(d, (CUdeviceptr)host, 0));
    R(cuMemcpyHtoD(d + 4000, host, 97));
    R(cuMemcpyHtoD(d + 4000, host, 96));
    R(cuMemcpyDtoH(host, d + 4095, 2));
    R(cuMemcpyDtoH(host, d + 4095, 1));
    R(cuMemcpyDtoD(d + 4090, d, 7));
    R(cuMemcpyDtoD(d, d + 4090, 7));
    R(cuMemcpyDtoD(0, d, 8));
    R(cuMemcpyHtoD(d + 1, host + 3, 13));
    R(cuMemcpyDtoD(d + 100, d + 1, 33));
    R(cuMemcpyDtoD(d + 512, d + 512, 64));
    R(cuCtxSynchronize());
    holds("memory", d, 4096);
    R(cuMemFree(d));
}

CASE(cuMemset)
{
    CUdeviceptr d = filled(4096, 0);
    CUstream s;
    NEED(cuStreamCreate(&s, 0));
    R(cuMemsetD8(d + 1, 0x81, 7));
    R(cuMemsetD16(d + 16, 0x1234, 5));
    R(cuMemsetD32(d + 32, 0x12345678, 5));
    R(cuMemsetD8Async(d + 61, 0x82, 9, s));
    R(cuMemsetD16Async(d + 80, 0x4321, 3, s));
    R(cuMemsetD32Async(d + 96, 0x87654321, 3, s));
    R(cuStreamSynchronize(s));
    holds("rows", d, 4096);
    R(cuMemsetD2D8(d + 1024, 32, 0x91, 5, 4));
    R(cuMemsetD2D16(d + 1152, 32, 0x9192, 5, 4));
    R(cuMemsetD2D32(d + 1280, 32, 0x91929394, 5, 4));
    R(cuMemsetD2D8Async(d + 2048, 64, 0xa1, 5, 4, s));
    R(cuMemsetD2D16Async(d + 2304, 64, 0xa1a2, 5, 4, s));
    R(cuMemsetD2D32Async(d + 2560, 64, 0xa1a2a3a4, 5, 4, s));
    R(cuStreamSynchronize(s));
    holds("rectangles", d, 4096);
    R(cuMemsetD16(d + 1, 1, 1));
    R(cuMemsetD32(d + 2, 1, 1));
    R(cuMemsetD2D32(d + 2, 32, 1, 1, 1));
    R(cuMemsetD2D32(d, 30, 1, 2, 2));
    R(cuMemsetD2D8(d, 4, 1, 5, 2));
    R(cuMemsetD2D16(d, 31, 1, 2, 2));
    R(cuMemsetD16Async(d + 1, 1, 1, s));
    R(cuMemsetD32Async(d + 2, 1, 1, s));
    R(cuMemsetD2D16Async(d + 1, 32, 1, 1, 1, s));
    R(cuMemsetD2D32Async(d, 30, 1, 2, 2, s));
    R(cuMemsetD2D8(d, 4, 1, 5, 1));
    R(cuMemsetD2D8(d, 0, 1, 5, 1));
    R(cuMemsetD2D32(d, 30, 1, 2, 1));
    R(cuMemsetD32(d + 2, 1, 0));
    R(cuMemsetD2D32(d + 2, 32, 1, 0, 1));
    R(cuMemsetD2D8(d, 4, 1, 5, 0));
    R(cuMemsetD8(0, 1, 0));
    R(cuMemsetD8(d, 1, 0));
    R(cuMemsetD2D8(d, 32, 1, 0, 4));
    R(cuMemsetD2D8(d, 32, 1, 4, 0));
    R(cuMemsetD8(d, 1, 4097));
    R(cuMemsetD32(d + 4092, 1, 2));
    R(cuMemsetD2D8(d, 1024, 1, 1024, 5));
    R(cuMemsetD2D8(d, 1024, 1, 1, 4));
    R(cuMemsetD8(0, 1, 1));
    R(cuCtxSynchronize());
    holds("afterwards", d, 4096);
    R(cuStreamDestroy(s));
    R(cuMemFree(d));
}

/* ---- arrays ---- */

static CUDA_ARRAY_DESCRIPTOR flat(size_t width, size_t height, CUarray_format format, unsigned channels)
{
    CUDA_ARRAY_DESCRIPTOR a;
    memset(&a, 0, sizeof a);
    a.Width = width, a.Height = height, a.Format = format, a.NumChannels = channels;
    return a;
}

static CUDA_ARRAY3D_DESCRIPTOR solid(size_t width, size_t height, size_t depth, CUarray_format format, unsigned channels,
                                     unsigned flags)
{
    CUDA_ARRAY3D_DESCRIPTOR a;
    memset(&a, 0, sizeof a);
    a.Width = width, a.Height = height, a.Depth = depth, a.Format = format, a.NumChannels = channels, a.Flags = flags;
    return a;
}

static void describe(CUarray array)
{
    CUDA_ARRAY_DESCRIPTOR a;
    CUDA_ARRAY3D_DESCRIPTOR b;
    if (R(cuArrayGetDescriptor(&a, array)) == CUDA_SUCCESS)
        FACT("flat: %zu x %zu, format %d, %u channels", a.Width, a.Height, a.Format, a.NumChannels);
    if (R(cuArray3DGetDescriptor(&b, array)) == CUDA_SUCCESS)
        FACT("solid: %zu x %zu x %zu, format %d, %u channels, flags %u", b.Width, b.Height, b.Depth, b.Format, b.NumChannels,
             b.Flags);
}

CASE(cuArrayCreate)
{
    CUarray array;
    CUDA_ARRAY_DESCRIPTOR a = flat(33, 17, CU_AD_FORMAT_FLOAT, 4);
    CUDA_ARRAY3D_DESCRIPTOR b = solid(20, 10, 5, CU_AD_FORMAT_UNSIGNED_INT16, 2, CUDA_ARRAY3D_SURFACE_LDST);
    NEED(cuArrayCreate(&array, &a));
    describe(array);
    R(cuArrayDestroy(array));
    a = flat(1000, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1);
    NEED(cuArrayCreate(&array, &a));
    describe(array);
    R(cuArrayDestroy(array));
    NEED(cuArray3DCreate(&array, &b));
    describe(array);
    R(cuArrayDestroy(array));
    b = solid(64, 64, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP);
    NEED(cuArray3DCreate(&array, &b));
    describe(array);
    R(cuArrayDestroy(array));
    b = solid(64, 0, 3, CU_AD_FORMAT_HALF, 4, CUDA_ARRAY3D_LAYERED);
    NEED(cuArray3DCreate(&array, &b));
    describe(array);
    R(cuArrayDestroy(array));
    R(cuArrayCreate(0, &a));
    R(cuArrayCreate(&array, 0));
    a = flat(0, 16, CU_AD_FORMAT_FLOAT, 1);
    R(cuArrayCreate((FACT("no width"), &array), &a));
    a = flat(16, 16, CU_AD_FORMAT_FLOAT, 3);
    R(cuArrayCreate((FACT("three channels"), &array), &a));
    a = flat(16, 16, (CUarray_format)0x77, 1);
    R(cuArrayCreate((FACT("no format"), &array), &a));
    a = flat((size_t)1 << 30, 16, CU_AD_FORMAT_FLOAT, 1);
    R(cuArrayCreate((FACT("too wide"), &array), &a));
    b = solid(64, 32, 6, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP);
    R(cuArray3DCreate((FACT("a cube that is none"), &array), &b));
}

CASE(cuArray_properties)
{
    CUarray array, plane;
    CUmipmappedArray mipmap;
    CUDA_ARRAY_MEMORY_REQUIREMENTS need;
    CUDA_ARRAY_SPARSE_PROPERTIES sparse;
    CUDA_ARRAY3D_DESCRIPTOR a = solid(256, 256, 0, CU_AD_FORMAT_FLOAT, 4, 0);
    NEED(cuArray3DCreate(&array, &a));
    R(cuArrayGetMemoryRequirements(&need, array, device));
    R(cuArrayGetSparseProperties(&sparse, array));
    R(cuArrayGetPlane(&plane, array, 0));
    R(cuArrayDestroy(array));
    a.Flags = CUDA_ARRAY3D_DEFERRED_MAPPING;
    if (R(cuArray3DCreate(&array, &a)) == CUDA_SUCCESS) {
        if (R(cuArrayGetMemoryRequirements(&need, array, device)) == CUDA_SUCCESS)
            FACT("deferred: %zu bytes at %zu", need.size, need.alignment);
        R(cuArrayGetMemoryRequirements(&need, array, 99));
        R(cuArrayDestroy(array));
    }
    a.Flags = CUDA_ARRAY3D_SPARSE;
    a.Width = a.Height = 4096;
    if (R(cuArray3DCreate(&array, &a)) == CUDA_SUCCESS) {
        if (R(cuArrayGetSparseProperties(&sparse, array)) == CUDA_SUCCESS)
            FACT("sparse: tiles %u x %u x %u, tail %llu at %u, flags %u", sparse.tileExtent.width, sparse.tileExtent.height,
                 sparse.tileExtent.depth, sparse.miptailSize, sparse.miptailFirstLevel, sparse.flags);
        R(cuArrayDestroy(array));
    }
    if (R(cuMipmappedArrayCreate(&mipmap, &a, 5)) == CUDA_SUCCESS) {
        if (R(cuMipmappedArrayGetSparseProperties(&sparse, mipmap)) == CUDA_SUCCESS)
            FACT("sparse levels: tiles %u x %u x %u, tail %llu at %u, flags %u", sparse.tileExtent.width,
                 sparse.tileExtent.height, sparse.tileExtent.depth, sparse.miptailSize, sparse.miptailFirstLevel, sparse.flags);
        R(cuMipmappedArrayDestroy(mipmap));
    }
    a.Flags = CUDA_ARRAY3D_DEFERRED_MAPPING;
    if (R(cuMipmappedArrayCreate(&mipmap, &a, 5)) == CUDA_SUCCESS) {
        if (R(cuMipmappedArrayGetMemoryRequirements(&need, mipmap, device)) == CUDA_SUCCESS)
            FACT("deferred levels: %zu bytes at %zu", need.size, need.alignment);
        R(cuMipmappedArrayDestroy(mipmap));
    }
    a = solid(64, 64, 0, CU_AD_FORMAT_NV12, 3, 0);
    if (R(cuArray3DCreate(&array, &a)) == CUDA_SUCCESS) {
        describe(array);
        for (unsigned i = 0; i < 3; i++)
            if (R(cuArrayGetPlane(&plane, array, i)) == CUDA_SUCCESS)
                describe(plane);
        R(cuArrayDestroy(array));
    }
}

CASE(cuArray_copies_of_rows)
{
    static unsigned char host[4000], back[4000];
    unsigned char *pinned;
    CUarray a, b;
    CUstream s;
    CUdeviceptr d = filled(4096, 0);
    CUDA_ARRAY_DESCRIPTOR row = flat(1000, 0, CU_AD_FORMAT_UNSIGNED_INT32, 1);
    NEED(cuMemAllocHost((void **)&pinned, 4096));
    NEED(cuStreamCreate(&s, 0));
    number(host, sizeof host, 20);
    NEED(cuArrayCreate(&a, &row));
    NEED(cuArrayCreate(&b, &row));
    R(cuMemcpyHtoA(a, 0, host, 4000));
    R(cuMemcpyAtoH(back, a, 0, 4000));
    bytes_are("to and fro", back, 4000);
    R(cuMemcpyAtoA(b, 400, a, 40, 2000));
    R(cuMemcpyAtoD(d, b, 400, 2000));
    holds("across", d, 4096);
    R(cuMemcpyDtoA(a, 8, d, 1600));
    R(cuMemcpyAtoHAsync(pinned, a, 0, 4000, s));
    R(cuStreamSynchronize(s));
    bytes_are("pinned", pinned, 4000);
    R(cuMemcpyHtoAAsync(b, 0, pinned, 4000, s));
    R(cuMemcpyHtoAAsync(b, 400, host, 400, s));
    R(cuMemcpyAtoHAsync(back, b, 0, 4000, s));
    R(cuStreamSynchronize(s));
    bytes_are("pageable", back, 4000);
    R(cuMemcpyAtoH(back, a, 4, 4000));
    R(cuMemcpyHtoA(a, 4000, host, 4));
    R(cuMemcpyHtoA(a, 0, host, 0));
    R(cuMemcpyAtoA(b, 3000, a, 0, 1004));
    R(cuMemcpyAtoD(d, a, 0, 4100));
    R(cuMemcpyAtoD(d + 2000, a, 0, 2200));
    R(cuArrayDestroy(a));
    R(cuArrayDestroy(b));
    R(cuStreamDestroy(s));
    R(cuMemFreeHost(pinned));
    R(cuMemFree(d));
}

CASE(cuArray_copies_of_rectangles)
{
    static unsigned char host[64 * 1024], back[64 * 1024];
    CUarray a, b;
    CUdeviceptr d = filled(65536, 0);
    CUDA_ARRAY_DESCRIPTOR square = flat(100, 90, CU_AD_FORMAT_FLOAT, 1);
    CUDA_MEMCPY2D c = rect(400, 90);
    number(host, sizeof host, 21);
    NEED(cuArrayCreate(&a, &square));
    NEED(cuArrayCreate(&b, &square));
    FROM_HOST(c, host, 512);
    TO_ARRAY(c, a);
    R(cuMemcpy2D(&c));
    c = rect(400, 90);
    FROM_ARRAY(c, a);
    TO_HOST(c, back, 500);
    R(cuMemcpy2D(&c));
    bytes_are("whole", back, sizeof back);
    c = rect(80, 50);
    FROM_ARRAY(c, a);
    TO_ARRAY(c, b);
    c.srcXInBytes = 16, c.srcY = 5, c.dstXInBytes = 200, c.dstY = 40;
    R(cuMemcpy2D(&c));
    c = rect(80, 50);
    FROM_ARRAY(c, b);
    TO_DEVICE(c, d, 256);
    c.srcXInBytes = 200, c.srcY = 40;
    R(cuMemcpy2DUnaligned(&c));
    holds("part", d, 65536);
    c = rect(80, 50);
    FROM_DEVICE(c, d, 256);
    TO_ARRAY(c, b);
    c.dstXInBytes = 321;
    R(cuMemcpy2D((FACT("in the middle of an element"), &c)));
    c.dstXInBytes = 324;
    R(cuMemcpy2D((FACT("beyond a row"), &c)));
    c.dstXInBytes = 320, c.dstY = 41;
    R(cuMemcpy2D((FACT("beyond the last row"), &c)));
    c.dstY = 40;
    R(cuMemcpy2D((FACT("up to the last"), &c)));
    c.WidthInBytes = 79;
    R(cuMemcpy2D((FACT("part of an element"), &c)));
    R(cuCtxSynchronize());
    R(cuArrayDestroy(a));
    R(cuArrayDestroy(b));
    R(cuMemFree(d));
}

CASE(cuArray_copies_of_boxes)
{
    size_t len = 256 * 64 * 16 * 8;
    unsigned char *host = malloc(len), *back = calloc(1, len);
    CUarray a;
    CUstream s;
    CUdeviceptr d = filled(1 << 16, 0);
    CUDA_ARRAY3D_DESCRIPTOR box = solid(256, 64, 16, CU_AD_FORMAT_UNSIGNED_INT32, 2, 0);
    CUDA_MEMCPY3D c = cuboid(2048, 64, 16);
    CUDA_MEMCPY3D_BATCH_OP op;
    NEED(cuStreamCreate(&s, 0));
    number(host, len, 22);
    NEED(cuArray3DCreate(&a, &box));
    FROM_HOST(c, host, 2048);
    c.srcHeight = 64;
    TO_ARRAY(c, a);
    R(cuMemcpy3D(&c));
    c = cuboid(2048, 64, 16);
    FROM_ARRAY(c, a);
    TO_HOST(c, back, 2048);
    c.dstHeight = 64;
    R(cuMemcpy3D(&c));
    bytes_are("whole", back, len);
    c = cuboid(80, 7, 5);
    FROM_ARRAY(c, a);
    TO_DEVICE(c, d, 128);
    c.dstHeight = 8;
    c.srcXInBytes = 24, c.srcY = 11, c.srcZ = 3, c.dstZ = 1;
    R(cuMemcpy3DAsync(&c, s));
    R(cuStreamSynchronize(s));
    holds("part", d, 1 << 16);
    c.srcZ = 12;
    R(cuMemcpy3D((FACT("beyond the last slice"), &c)));
    memset(&op, 0, sizeof op);
    op.src.type = CU_MEMCPY_OPERAND_TYPE_ARRAY;
    op.src.op.array.array = a;
    op.src.op.array.offset.x = 3, op.src.op.array.offset.y = 11, op.src.op.array.offset.z = 3;
    op.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
    op.dst.op.ptr.ptr = d, op.dst.op.ptr.rowLength = 16, op.dst.op.ptr.layerHeight = 8;
    op.extent.width = 10, op.extent.height = 7, op.extent.depth = 5;
    op.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    R(cuMemcpy3DBatchAsync(1, &op, 0, s));
    R(cuStreamSynchronize(s));
    holds("part in a batch", d, 1 << 16);
    R(cuArrayDestroy(a));
    R(cuStreamDestroy(s));
    R(cuMemFree(d));
    free(host);
    free(back);
}

CASE(cuMipmappedArray)
{
    static unsigned char host[4096], back[4096];
    CUmipmappedArray m;
    CUarray level, again;
    CUDA_ARRAY3D_DESCRIPTOR a = solid(64, 32, 0, CU_AD_FORMAT_UNSIGNED_INT8, 4, 0);
    CUDA_MEMCPY2D c = rect(64, 8);
    number(host, sizeof host, 23);
    NEED(cuMipmappedArrayCreate(&m, &a, 4));
    for (unsigned i = 0; i < 4; i++) {
        NEED(cuMipmappedArrayGetLevel(&level, m, i));
        describe(level);
    }
    R(cuMipmappedArrayGetLevel(&level, m, 4));
    R(cuMipmappedArrayGetLevel(0, m, 0));
    NEED(cuMipmappedArrayGetLevel(&level, m, 2));
    NEED(cuMipmappedArrayGetLevel(&again, m, 2));
    SAME(level, again);
    FROM_HOST(c, host, 64);
    TO_ARRAY(c, level);
    R(cuMemcpy2D(&c));
    c = rect(64, 8);
    FROM_ARRAY(c, again);
    TO_HOST(c, back, 64);
    R(cuMemcpy2D(&c));
    bytes_are("level", back, sizeof back);
    R(cuMipmappedArrayDestroy(m));
    a = solid(64, 32, 0, CU_AD_FORMAT_UNSIGNED_INT8, 4, 0);
    if (R(cuMipmappedArrayCreate(&m, &a, 99)) == CUDA_SUCCESS) {
        R(cuMipmappedArrayGetLevel(&level, m, 6));
        R(cuMipmappedArrayGetLevel(&level, m, 7));
        R(cuMipmappedArrayDestroy(m));
    }
    if (R(cuMipmappedArrayCreate(&m, &a, 0)) == CUDA_SUCCESS)
        R(cuMipmappedArrayDestroy(m));
}

LONELY(cuArray_handles)
{
    CUDA_ARRAY_DESCRIPTOR a;
    CUDA_ARRAY3D_DESCRIPTOR b;
    R(cuArrayDestroy(0));
    R(cuArrayGetDescriptor(&a, 0));
    R(cuArray3DGetDescriptor(&b, 0));
    R(cuMipmappedArrayDestroy(0));
}

/* ---- textures and surfaces ---- */

static const char views_ptx[] =
    ".version 7.0\n"
    ".target sm_70\n"
    ".address_size 64\n"
    /* out[y * width + x] = tex2D(view, x + 0.5, y + 0.5) */
    ".visible .entry fetch_2d(.param .u64 out, .param .u64 view, .param .u32 width)\n"
    "{\n"
    "  .reg .u64 %rd<5>; .reg .u32 %r<5>; .reg .f32 %f<8>;\n"
    "  ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [view]; ld.param.u32 %r1, [width];\n"
    "  cvta.to.global.u64 %rd1, %rd1;\n"
    "  mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x;\n"
    "  cvt.rn.f32.u32 %f1, %r2; cvt.rn.f32.u32 %f2, %r3;\n"
    "  add.f32 %f1, %f1, 0f3F000000; add.f32 %f2, %f2, 0f3F000000;\n"
    "  tex.2d.v4.f32.f32 {%f3, %f4, %f5, %f6}, [%rd2, {%f1, %f2}];\n"
    "  mad.lo.u32 %r4, %r3, %r1, %r2; mul.wide.u32 %rd3, %r4, 4; add.u64 %rd1, %rd1, %rd3;\n"
    "  st.global.f32 [%rd1], %f3;\n"
    "  ret;\n"
    "}\n"
    /* out[x] = tex1Dfetch(view, x) */
    ".visible .entry fetch_1d(.param .u64 out, .param .u64 view)\n"
    "{\n"
    "  .reg .u64 %rd<5>; .reg .u32 %r<3>; .reg .f32 %f<8>;\n"
    "  ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [view];\n"
    "  cvta.to.global.u64 %rd1, %rd1;\n"
    "  mov.u32 %r1, %tid.x;\n"
    "  tex.1d.v4.f32.s32 {%f3, %f4, %f5, %f6}, [%rd2, {%r1}];\n"
    "  mul.wide.u32 %rd3, %r1, 4; add.u64 %rd1, %rd1, %rd3;\n"
    "  st.global.f32 [%rd1], %f3;\n"
    "  ret;\n"
    "}\n"
    /* surface(x, y) = surface(x, y) + 1000 * y + x */
    ".visible .entry change_2d(.param .u64 view)\n"
    "{\n"
    "  .reg .u64 %rd<2>; .reg .u32 %r<6>;\n"
    "  ld.param.u64 %rd1, [view];\n"
    "  mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; shl.b32 %r3, %r1, 2;\n"
    "  suld.b.2d.b32.trap {%r4}, [%rd1, {%r3, %r2}];\n"
    "  mad.lo.u32 %r5, %r2, 1000, %r1; add.u32 %r4, %r4, %r5;\n"
    "  sust.b.2d.b32.trap [%rd1, {%r3, %r2}], {%r4};\n"
    "  ret;\n"
    "}\n";

static CUresult fetch(CUmodule views, const char *name, unsigned blocks, unsigned threads, CUdeviceptr out, CUtexObject view,
                      unsigned width)
{
    CUfunction f;
    CUresult result = cuModuleGetFunction(&f, views, name);
    void *parameters[] = {&out, &view, &width};
    if (result)
        return result;
    result = cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, 0, parameters, 0);
    return result ? result : cuCtxSynchronize();
}

static void tell(const CUDA_RESOURCE_DESC *r)
{
    switch (r->resType) {
    case CU_RESOURCE_TYPE_LINEAR:
        FACT("linear: format %d, %u channels, %zu bytes, flags %u", r->res.linear.format, r->res.linear.numChannels,
             r->res.linear.sizeInBytes, r->flags);
        break;
    case CU_RESOURCE_TYPE_PITCH2D:
        FACT("pitched: format %d, %u channels, %zu x %zu by %zu, flags %u", r->res.pitch2D.format, r->res.pitch2D.numChannels,
             r->res.pitch2D.width, r->res.pitch2D.height, r->res.pitch2D.pitchInBytes, r->flags);
        break;
    default:
        FACT("resource %d, flags %u", r->resType, r->flags);
    }
}

static void tell_texture(CUtexObject view)
{
    CUDA_TEXTURE_DESC t;
    memset(&t, 0, sizeof t);
    if (R(cuTexObjectGetTextureDesc(&t, view)) == CUDA_SUCCESS)
        FACT("modes %d %d %d, filter %d, flags %u, anisotropy %u, levels %d %g %g %g, border %g %g %g %g", t.addressMode[0],
             t.addressMode[1], t.addressMode[2], t.filterMode, t.flags, t.maxAnisotropy, t.mipmapFilterMode, t.mipmapLevelBias,
             t.minMipmapLevelClamp, t.maxMipmapLevelClamp, t.borderColor[0], t.borderColor[1], t.borderColor[2],
             t.borderColor[3]);
}

CASE(cuTexObject_of_an_array)
{
    float host[8][16], got[10][18];
    CUarray a;
    CUmodule views;
    CUtexObject view, plain;
    CUdeviceptr out = filled(sizeof got, 0);
    CUDA_ARRAY_DESCRIPTOR square = flat(16, 8, CU_AD_FORMAT_FLOAT, 1);
    CUDA_RESOURCE_DESC r, told;
    CUDA_TEXTURE_DESC t;
    CUDA_RESOURCE_VIEW_DESC v;
    CUDA_MEMCPY2D c = rect(64, 8);
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 16; x++)
            host[y][x] = (float)(100 * y + x);
    NEED(cuArrayCreate(&a, &square));
    FROM_HOST(c, host, 64);
    TO_ARRAY(c, a);
    NEED(cuMemcpy2D(&c));
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    memset(&v, 0, sizeof v);
    r.resType = CU_RESOURCE_TYPE_ARRAY;
    r.res.array.hArray = a;
    t.addressMode[0] = t.addressMode[1] = t.addressMode[2] = CU_TR_ADDRESS_MODE_BORDER;
    t.borderColor[0] = -1;
    t.maxAnisotropy = 4;
    NEED(cuTexObjectCreate(&view, &r, &t, 0));
    FACT("a small number that is not 0: %d", view != 0 && view < 0x100000000u);
    R(cuTexObjectGetResourceDesc(&told, view));
    tell(&told);
    SAME(told.res.array.hArray, a);
    tell_texture(view);
    R(cuTexObjectGetResourceViewDesc(&v, view));
    R(cuModuleLoadData(&views, views_ptx));
    R(fetch(views, "fetch_2d", 10, 18, out, view, 18));
    R(cuMemcpyDtoH(got, out, sizeof got));
    bytes_are("fetched", got, sizeof got);
    FACT("%g %g %g %g", got[0][0], got[7][15], got[8][0], got[0][16]);
    memset(&v, 0, sizeof v);
    v.format = CU_RES_VIEW_FORMAT_UINT_1X32;
    v.width = 16, v.height = 8;
    t.flags = CU_TRSF_READ_AS_INTEGER;
    if (R(cuTexObjectCreate(&plain, &r, &t, &v)) == CUDA_SUCCESS) {
        memset(&v, 0, sizeof v);
        R(cuTexObjectGetResourceViewDesc(&v, plain));
        FACT("view: format %d, %zu x %zu x %zu, levels %u %u, layers %u %u", v.format, v.width, v.height, v.depth,
             v.firstMipmapLevel, v.lastMipmapLevel, v.firstLayer, v.lastLayer);
        R(cuTexObjectDestroy(plain));
    }
    t.flags = 0;
    t.filterMode = CU_TR_FILTER_MODE_LINEAR;
    t.addressMode[0] = t.addressMode[1] = CU_TR_ADDRESS_MODE_CLAMP;
    if (R(cuTexObjectCreate(&plain, &r, &t, 0)) == CUDA_SUCCESS) {
        R(fetch(views, "fetch_2d", 10, 18, out, plain, 18));
        R(cuMemcpyDtoH(got, out, sizeof got));
        bytes_are("fetched with clamps", got, sizeof got);
        R(cuTexObjectDestroy(plain));
    }
    R(cuTexObjectCreate(0, &r, &t, 0));
    R(cuTexObjectCreate(&plain, 0, &t, 0));
    R(cuTexObjectCreate(&plain, &r, 0, 0));
    r.resType = (CUresourcetype)7;
    R(cuTexObjectCreate((FACT("no type"), &plain), &r, &t, 0));
    R(cuTexObjectDestroy(view));
    R(cuModuleUnload(views));
    R(cuArrayDestroy(a));
    R(cuMemFree(out));
}

CASE(cuTexObject_of_memory)
{
    float host[1024], got[64];
    CUmodule views;
    CUtexObject view;
    CUdeviceptr d, out = filled(sizeof got, 0);
    CUDA_RESOURCE_DESC r, told;
    CUDA_TEXTURE_DESC t;
    size_t widest = 0;
    for (int i = 0; i < 1024; i++)
        host[i] = (float)i;
    NEED(cuMemAlloc(&d, sizeof host));
    NEED(cuMemcpyHtoD(d, host, sizeof host));
    NEED(cuModuleLoadData(&views, views_ptx));
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    r.resType = CU_RESOURCE_TYPE_LINEAR;
    r.res.linear.devPtr = d;
    r.res.linear.format = CU_AD_FORMAT_FLOAT;
    r.res.linear.numChannels = 1;
    r.res.linear.sizeInBytes = 200;
    NEED(cuTexObjectCreate(&view, &r, &t, 0));
    R(cuTexObjectGetResourceDesc(&told, view));
    tell(&told);
    SAME(told.res.linear.devPtr, d);
    tell_texture(view);
    R(fetch(views, "fetch_1d", 1, 64, out, view, 0));
    R(cuMemcpyDtoH(got, out, sizeof got));
    bytes_are("linear", got, sizeof got);
    FACT("%g %g %g", got[0], got[49], got[50]);
    R(cuTexObjectDestroy(view));
    r.res.linear.sizeInBytes = sizeof host;
    if (R(cuTexObjectCreate((FACT("all of it"), &view), &r, &t, 0)) == CUDA_SUCCESS)
        R(cuTexObjectDestroy(view));
    r.res.linear.devPtr = d + 4;
    r.res.linear.sizeInBytes = 64;
    if (R(cuTexObjectCreate((FACT("unaligned"), &view), &r, &t, 0)) == CUDA_SUCCESS)
        R(cuTexObjectDestroy(view));
    r.res.linear.devPtr = 0;
    if (R(cuTexObjectCreate((FACT("of NULL"), &view), &r, &t, 0)) == CUDA_SUCCESS)
        R(cuTexObjectDestroy(view));
    memset(&r, 0, sizeof r);
    r.resType = CU_RESOURCE_TYPE_PITCH2D;
    r.res.pitch2D.devPtr = d;
    r.res.pitch2D.format = CU_AD_FORMAT_FLOAT;
    r.res.pitch2D.numChannels = 1;
    r.res.pitch2D.width = 8;
    r.res.pitch2D.height = 8;
    r.res.pitch2D.pitchInBytes = 128;
    if (R(cuTexObjectCreate(&view, &r, &t, 0)) == CUDA_SUCCESS) {
        R(cuTexObjectGetResourceDesc(&told, view));
        tell(&told);
        R(fetch(views, "fetch_2d", 8, 8, out, view, 8));
        R(cuMemcpyDtoH(got, out, sizeof got));
        bytes_are("pitched", got, sizeof got);
        R(cuTexObjectDestroy(view));
    }
    r.res.pitch2D.pitchInBytes = 40;
    if (R(cuTexObjectCreate((FACT("unaligned pitch"), &view), &r, &t, 0)) == CUDA_SUCCESS)
        R(cuTexObjectDestroy(view));
    R(cuDeviceGetTexture1DLinearMaxWidth(&widest, CU_AD_FORMAT_FLOAT, 4, device));
    FACT("widest float4: %zu", widest);
    R(cuDeviceGetTexture1DLinearMaxWidth(&widest, CU_AD_FORMAT_UNSIGNED_INT8, 1, device));
    FACT("widest byte: %zu", widest);
    R(cuDeviceGetTexture1DLinearMaxWidth(&widest, CU_AD_FORMAT_FLOAT, 3, device));
    R(cuDeviceGetTexture1DLinearMaxWidth(&widest, CU_AD_FORMAT_FLOAT, 4, 99));
    R(cuDeviceGetTexture1DLinearMaxWidth(0, CU_AD_FORMAT_FLOAT, 4, device));
    R(cuModuleUnload(views));
    R(cuMemFree(d));
    R(cuMemFree(out));
}

CASE(cuTexObject_of_levels)
{
    CUmipmappedArray m;
    CUtexObject view;
    CUDA_ARRAY3D_DESCRIPTOR a = solid(64, 32, 0, CU_AD_FORMAT_FLOAT, 1, 0);
    CUDA_RESOURCE_DESC r, told;
    CUDA_TEXTURE_DESC t;
    NEED(cuMipmappedArrayCreate(&m, &a, 4));
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    r.resType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    r.res.mipmap.hMipmappedArray = m;
    t.flags = CU_TRSF_NORMALIZED_COORDINATES;
    t.mipmapFilterMode = CU_TR_FILTER_MODE_LINEAR;
    t.mipmapLevelBias = 0.5f;
    t.maxMipmapLevelClamp = 3;
    if (R(cuTexObjectCreate(&view, &r, &t, 0)) == CUDA_SUCCESS) {
        R(cuTexObjectGetResourceDesc(&told, view));
        tell(&told);
        SAME(told.res.mipmap.hMipmappedArray, m);
        tell_texture(view);
        R(cuTexObjectDestroy(view));
    }
    R(cuMipmappedArrayDestroy(m));
}

CASE(cuSurfObject)
{
    unsigned host[8][16], got[8][16];
    CUarray a, plain;
    CUmodule views;
    CUfunction f;
    CUsurfObject view;
    CUDA_ARRAY3D_DESCRIPTOR square = solid(16, 8, 0, CU_AD_FORMAT_UNSIGNED_INT32, 1, CUDA_ARRAY3D_SURFACE_LDST);
    CUDA_RESOURCE_DESC r, told;
    CUDA_MEMCPY2D c = rect(64, 8);
    void *parameters[] = {&view};
    number(host, sizeof host, 30);
    NEED(cuArray3DCreate(&a, &square));
    FROM_HOST(c, host, 64);
    TO_ARRAY(c, a);
    NEED(cuMemcpy2D(&c));
    memset(&r, 0, sizeof r);
    r.resType = CU_RESOURCE_TYPE_ARRAY;
    r.res.array.hArray = a;
    NEED(cuSurfObjectCreate(&view, &r));
    FACT("a small number: %d", view < 0x100000000u);
    R(cuSurfObjectGetResourceDesc(&told, view));
    tell(&told);
    SAME(told.res.array.hArray, a);
    R(cuModuleLoadData(&views, views_ptx));
    R(cuModuleGetFunction(&f, views, "change_2d"));
    R(cuLaunchKernel(f, 8, 1, 1, 16, 1, 1, 0, 0, parameters, 0));
    R(cuCtxSynchronize());
    c = rect(64, 8);
    FROM_ARRAY(c, a);
    TO_HOST(c, got, 64);
    R(cuMemcpy2D(&c));
    bytes_are("changed", got, sizeof got);
    FACT("by %u", got[7][15] - host[7][15]);
    R(cuSurfObjectDestroy(view));
    r.resType = CU_RESOURCE_TYPE_LINEAR;
    R(cuSurfObjectCreate((FACT("of memory"), &view), &r));
    square.Flags = 0;
    NEED(cuArray3DCreate(&plain, &square));
    r.resType = CU_RESOURCE_TYPE_ARRAY;
    r.res.array.hArray = plain;
    if (R(cuSurfObjectCreate((FACT("of an array that is not for it"), &view), &r)) == CUDA_SUCCESS)
        R(cuSurfObjectDestroy(view));
    R(cuModuleUnload(views));
    R(cuArrayDestroy(a));
    R(cuArrayDestroy(plain));
}

LONELY(cuTexObject_numbers)
{
    CUDA_RESOURCE_DESC r;
    R(cuTexObjectDestroy(0));
    R(cuSurfObjectDestroy(0));
    R(cuTexObjectGetResourceDesc(&r, 0));
    R(cuTexObjectGetResourceDesc(&r, 12345));
    R(cuTexObjectDestroy(12345));
}

/* ---- tensor maps ---- */

CASE(cuTensorMapEncodeIm2col)
{
    CUtensorMap map __attribute__((aligned(64)));
    CUdeviceptr d = filled(1 << 20, 0), e = filled(1 << 20, 0);
    cuuint64_t dim[4] = {64, 16, 16, 4}, strides[3] = {128, 2048, 32768};
    cuuint32_t steps[4] = {1, 1, 1, 1};
    int lower[2] = {-1, -1}, upper[2] = {-1, -1};
    memset(&map, 0, sizeof map);
#define IM2COL(rank, address) \
    cuTensorMapEncodeIm2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, (void *)(address), dim, strides, lower, upper, 64, 64, steps, \
                            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE, \
                            CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
    if (R(IM2COL(4, d)) == CUDA_SUCCESS) {
        CUtensorMap there = map;
        R(cuTensorMapReplaceAddress(&map, (void *)e));
        FACT("another address is another map: %d", memcmp(&there, &map, sizeof map) != 0);
        R(cuTensorMapReplaceAddress(&map, (void *)d));
        FACT("the address back is the map back: %d", memcmp(&there, &map, sizeof map) == 0);
        R(cuTensorMapReplaceAddress(&map, (void *)(d + 1)));
        /* The address is in the map; without it the map is the same everywhere. */
        R(cuTensorMapReplaceAddress(&map, (void *)0x100000));
        bytes_are("map", &map, sizeof map);
    }
    R(IM2COL(2, d));
    R(IM2COL(6, d));
    R(IM2COL(4, d + 1));
    R(cuTensorMapEncodeIm2colWide(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, (void *)d, dim, strides, -1, -1, 64, 64, steps,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_IM2COL_WIDE_MODE_W, CU_TENSOR_MAP_SWIZZLE_128B,
                                  CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    R(cuTensorMapEncodeIm2colWide(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, (void *)d, dim, strides, -1, -1, 64, 64, steps,
                                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_IM2COL_WIDE_MODE_W, CU_TENSOR_MAP_SWIZZLE_128B,
                                  CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    R(cuMemFree(d));
    R(cuMemFree(e));
}
