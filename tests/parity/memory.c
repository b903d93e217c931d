/*
 * Memory: device and host allocations, pointer attributes, pools and allocation in streams, virtual memory management, managed memory.
 *
 * The cases register_* need a kernel module where the library under test has one: over the local transport foreign memory cannot be
 * registered (attribute 99 is 0 there), and they are to be skipped.
 */
#include <sys/mman.h>

#include "parity.h"

#define MIB ((size_t)1 << 20)
#define KIB ((size_t)1 << 10)

/* --- device memory ------------------------------------------------------------------------------------------------------------- */

CASE(alloc_sizes)
{
    CUdeviceptr p = 7;
    R(cuMemAlloc(&p, 0));
    R(cuMemAlloc(&p, (size_t)32 << 40));
    R(cuMemAlloc(&p, SIZE_MAX));
    R(cuMemAlloc(NULL, 16));
    NEED(cuMemAlloc(&p, 1));
    FACT("aligned to 256: %d", p % 256 == 0);
    R(cuMemFree(p));
}

CASE(alloc_is_memory)
{
    CUdeviceptr p;
    unsigned char *bytes = malloc(3 * MIB), *back = malloc(3 * MIB);
    for (size_t i = 0; i < 3 * MIB; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 251);
    NEED(cuMemAlloc(&p, 3 * MIB));
    R(cuMemcpyHtoD(p, bytes, 3 * MIB));
    R(cuMemcpyDtoH(back, p, 3 * MIB));
    FACT("sum %016lx %s", parity_sum(back, 3 * MIB), memcmp(bytes, back, 3 * MIB) ? "differs" : "is the same");
    R(cuMemcpyDtoH(back, p + 1, 3 * MIB));
    R(cuMemFree(p));
    R(cuMemcpyDtoH(back, p, 1));
    free(bytes);
    free(back);
}

CASE(free_wrong)
{
    CUdeviceptr p;
    NEED(cuMemAlloc(&p, 4096));
    R(cuMemFree(0));
    R(cuMemFree(p + 256));
    R(cuMemFree((CUdeviceptr)(uintptr_t)&p));
    R(cuMemFree(0x1234));
    R(cuMemFree(p));
    R(cuMemFree(p));
}

CASE(alloc_pitch)
{
    CUdeviceptr p;
    size_t pitch = 7;
    unsigned element[] = {4, 8, 16, 0, 1, 2, 3, 32};
    for (size_t i = 0; i < sizeof element / sizeof *element; i++) {
        CUresult r = cuMemAllocPitch(&p, &pitch, 100, 10, element[i]);
        FACT("element %u: %d, pitch %zu", element[i], r, r ? 0 : pitch);
        if (!r)
            R(cuMemFree(p));
    }
    size_t widths[] = {1, 511, 512, 513, 4097, 100000};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        NEED(cuMemAllocPitch(&p, &pitch, widths[i], 3, 4));
        FACT("width %zu: pitch %zu", widths[i], pitch);
        R(cuMemFree(p));
    }
    R(cuMemAllocPitch(&p, &pitch, 0, 3, 4));
    R(cuMemAllocPitch(&p, &pitch, 16, 0, 4));
    R(cuMemAllocPitch(NULL, &pitch, 16, 1, 4));
    R(cuMemAllocPitch(&p, NULL, 16, 1, 4));
    R(cuMemAllocPitch(&p, &pitch, (size_t)1 << 40, 64, 4));
}

CASE(address_range)
{
    CUdeviceptr p, base = 0;
    size_t size = 0;
    NEED(cuMemAlloc(&p, 100000));
    R(cuMemGetAddressRange(&base, &size, p + 777));
    FACT("base %d, size %zu", base == p, size);
    R(cuMemGetAddressRange(NULL, &size, p));
    R(cuMemGetAddressRange(&base, NULL, p));
    R(cuMemGetAddressRange(NULL, NULL, p));
    R(cuMemGetAddressRange(&base, &size, p + 100000));
    R(cuMemGetAddressRange(&base, &size, (CUdeviceptr)(uintptr_t)&p));
    R(cuMemGetAddressRange(&base, &size, 0));
    R(cuMemFree(p));
    R(cuMemGetAddressRange(&base, &size, p));
}

CASE(info)
{
    size_t available = 0, total = 0, whole = 0;
    R(cuMemGetInfo(&available, &total));
    R(cuDeviceTotalMem(&whole, device));
    FACT("total is the device's: %d; not more free than there is: %d", total == whole, available <= total);
    R(cuMemGetInfo(NULL, NULL));
}

/* --- host memory --------------------------------------------------------------------------------------------------------------- */

CASE(host_alloc)
{
    void *p = NULL;
    unsigned flags[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 0x80000000u};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        unsigned got = 99;
        CUdeviceptr d = 0;
        CUresult r = cuMemHostAlloc(&p, 10000, flags[i]);
        FACT("flags %x: %d", flags[i], r);
        if (r)
            continue;
        R(cuMemHostGetFlags(&got, p));
        FACT("flags told %x", got);
        R(cuMemHostGetDevicePointer(&d, (char *)p + 5, 0));
        FACT("device pointer is the host's: %d", d == (CUdeviceptr)(uintptr_t)p + 5);
        memset(p, 1, 10000);
        R(cuMemFreeHost(p));
    }
    R(cuMemHostAlloc(NULL, 16, 0));
    R(cuMemHostAlloc(&p, SIZE_MAX - 4096, 0));
    p = (void *)7;
    R(cuMemHostAlloc(&p, 0, 0));
    p = (void *)7;
    R(cuMemAllocHost(&p, 0));
    NEED(cuMemAllocHost(&p, 16));
    R(cuMemFreeHost((char *)p + 1));
    R(cuMemHostUnregister(p));
    R(cuMemFree((CUdeviceptr)(uintptr_t)p));
    R(cuMemFreeHost(p));
    R(cuMemFreeHost(p));
    R(cuMemFreeHost(NULL));
    R(cuMemFreeHost(&p));
}

CASE(host_pointer_wrong)
{
    CUdeviceptr d, p;
    unsigned flags;
    void *h;
    int local = 0;
    NEED(cuMemAlloc(&p, 16));
    NEED(cuMemAllocHost(&h, 16));
    R(cuMemHostGetDevicePointer(&d, &local, 0));
    R(cuMemHostGetDevicePointer(&d, NULL, 0));
    R(cuMemHostGetDevicePointer(NULL, h, 0));
    R(cuMemHostGetDevicePointer(&d, h, 1));
    R(cuMemHostGetDevicePointer(&d, (void *)(uintptr_t)p, 0));
    R(cuMemHostGetFlags(&flags, &local));
    R(cuMemHostGetFlags(NULL, h));
    R(cuMemHostGetFlags(&flags, (void *)(uintptr_t)p));
    R(cuMemFreeHost(h));
    R(cuMemFree(p));
}

CASE(host_memory_is_the_device_s)
{
    CUfunction f = function("add_to_all");
    int *h, value = 5, n = 1000, wrong = 0;
    NEED(cuMemHostAlloc((void **)&h, n * sizeof *h, CU_MEMHOSTALLOC_DEVICEMAP));
    for (int i = 0; i < n; i++)
        h[i] = i;
    CUdeviceptr d = (CUdeviceptr)(uintptr_t)h;
    void *params[] = {&d, &value, &n};
    R(cuLaunchKernel(f, 4, 1, 1, 256, 1, 1, 0, 0, params, 0));
    R(cuCtxSynchronize());
    for (int i = 0; i < n; i++)
        wrong += h[i] != i + 5;
    FACT("wrong %d", wrong);
    R(cuMemsetD8(d, 0xab, 100));
    R(cuCtxSynchronize());
    FACT("filled %d %d", ((unsigned char *)h)[99], ((unsigned char *)h)[100] == 0xab);
    R(cuMemFreeHost(h));
}

CASE(register_flags)
{
    char *p = mmap(0, 64 * KIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned flags[] = {0, 1, 2, 3, 8, 9, 11, 16, 0x40000000u};
    CUdeviceptr d;
    memset(p, 3, 64 * KIB);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        unsigned told = 99;
        CUresult r = cuMemHostRegister(p, 64 * KIB, flags[i]);
        FACT("flags %x: %d", flags[i], r);
        if (r)
            continue;
        R(cuMemHostGetFlags(&told, p));
        FACT("flags told %x", told);
        R(cuMemHostUnregister(p));
    }
    R(cuMemHostRegister(NULL, 4096, 0));
    R(cuMemHostRegister(p, 0, 0));
    NEED(cuMemHostRegister(p + 100, 10000, CU_MEMHOSTREGISTER_DEVICEMAP));
    R(cuMemHostGetDevicePointer(&d, p + 200, 0));
    FACT("device pointer is the host's: %d", d == (CUdeviceptr)(uintptr_t)(p + 200));
    R(cuMemHostRegister(p + 100, 10000, 0));
    R(cuMemHostRegister(p + 5000, 10000, 0));
    R(cuMemHostUnregister(p + 101));
    R(cuMemHostUnregister(p));
    R(cuMemFreeHost(p + 100));
    R(cuMemHostUnregister(p + 100));
    R(cuMemHostUnregister(p + 100));
    munmap(p, 64 * KIB);
}

/* --- pointer attributes -------------------------------------------------------------------------------------------------------- */

/* What does not depend on addresses: results of all, and the values that any driver has alike. */
static void describe(const char *what, CUdeviceptr p, CUdeviceptr start, size_t size)
{
    for (int a = 0; a <= 22; a++) {
        unsigned char value[16];
        memset(value, 0xa5, sizeof value);
        CUresult r = cuPointerGetAttribute(value, (CUpointer_attribute)a, p);
        uint64_t word;
        uint32_t half;
        int written = 16;
        while (written > 0 && value[written - 1] == 0xa5)
            written--;
        memcpy(&word, value, 8);
        memcpy(&half, value, 4);
        switch (r ? -1 : a) {
        case CU_POINTER_ATTRIBUTE_CONTEXT:
            FACT("%s: context is %s", what, word == (uintptr_t)context ? "the current one" : word ? "another" : "none");
            break;
        case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        case CU_POINTER_ATTRIBUTE_HOST_POINTER:
            FACT("%s: attribute %d is the address: %d", what, a, word == p);
            break;
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
            FACT("%s: range starts right: %d", what, word == start);
            break;
        case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
            FACT("%s: range is right: %d", what, word == size);
            break;
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        case CU_POINTER_ATTRIBUTE_MAPPED:
        case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
            FACT("%s: attribute %d is %u in %d bytes", what, a, half, written);
            break;
        case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
            FACT("%s: tokens of %d bytes", what, written);
            break;
        case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
            FACT("%s: pool: %d", what, word != 0);
            break;
        case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
            FACT("%s: mapping starts no later: %d", what, word <= start);
            break;
        case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
            FACT("%s: mapping is no smaller: %d", what, word >= size);
            break;
        default: /* numbers of the driver's own, and what sharing with others makes of them */
            FACT("%s: attribute %d: %d", what, a, r);
        }
    }
}

CASE(attributes_device)
{
    CUdeviceptr p;
    NEED(cuMemAlloc(&p, MIB));
    describe("device", p + 64, p, MIB);
    R(cuMemFree(p));
    unsigned type;
    R(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p));
}

CASE(attributes_host)
{
    void *p;
    NEED(cuMemHostAlloc(&p, MIB, 0));
    describe("host", (CUdeviceptr)(uintptr_t)p + 64, (CUdeviceptr)(uintptr_t)p, MIB);
    R(cuMemFreeHost(p));
}

CASE(attributes_variable)
{
    CUdeviceptr p;
    size_t size;
    NEED(cuModuleGetGlobal(&p, &size, module, "counter"));
    FACT("size %zu", size);
    unsigned type = 0, managed = 9;
    R(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p));
    R(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, p));
    FACT("type %u, managed %u", type, managed);
}

CASE(attributes_pageable)
{
    char *p = malloc(4096);
    describe("pageable", (CUdeviceptr)(uintptr_t)p, 0, 0);
    free(p);
}

CASE(register_attributes)
{
    char *p = mmap(0, 64 * KIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(cuMemHostRegister(p, 64 * KIB, 0));
    describe("registered", (CUdeviceptr)(uintptr_t)p + 64, (CUdeviceptr)(uintptr_t)p, 64 * KIB);
    R(cuMemHostUnregister(p));
    munmap(p, 64 * KIB);
}

static void several(const char *what, CUdeviceptr p)
{
    uint64_t ctx = 7, dev = 7, host = 7;
    uint32_t type = 7, managed = 7;
    int32_t ordinal = 7;
    CUpointer_attribute list[] = {CU_POINTER_ATTRIBUTE_CONTEXT, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
                                  CU_POINTER_ATTRIBUTE_HOST_POINTER, CU_POINTER_ATTRIBUTE_IS_MANAGED, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void *to[] = {&ctx, &type, &dev, &host, &managed, &ordinal};
    R(cuPointerGetAttributes(6, list, to, p));
    FACT("%s: context %d, type %u, device %d, host %d, managed %u, ordinal %d", what, ctx != 0, type, dev == p && p, host == p && p, managed,
         ordinal);
}

CASE(attributes_at_once)
{
    CUdeviceptr p;
    void *h, *to[1] = {&p};
    CUpointer_attribute wrong = (CUpointer_attribute)99;
    int local;
    NEED(cuMemAlloc(&p, 4096));
    NEED(cuMemAllocHost(&h, 4096));
    several("device", p + 8);
    several("host", (CUdeviceptr)(uintptr_t)h + 8);
    several("pageable", (CUdeviceptr)(uintptr_t)&local);
    several("null", 0);
    R(cuPointerGetAttributes(1, &wrong, to, p));
    R(cuPointerGetAttributes(1, NULL, to, p));
    R(cuPointerGetAttributes(1, &wrong, NULL, p));
    R(cuPointerGetAttribute(NULL, CU_POINTER_ATTRIBUTE_CONTEXT, p));
    R(cuMemFreeHost(h));
    R(cuMemFree(p));
}

CASE(sync_memops)
{
    CUdeviceptr p;
    unsigned value = 9, on = 1, off = 0;
    int local;
    NEED(cuMemAlloc(&p, 4096));
    R(cuPointerGetAttribute(&value, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, p));
    FACT("at first %u", value);
    R(cuPointerSetAttribute(&off, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, p));
    R(cuPointerGetAttribute(&value, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, p));
    FACT("off %u", value);
    R(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, p + 100));
    R(cuPointerGetAttribute(&value, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, p));
    FACT("on %u", value);
    R(cuMemsetD8(p, 1, 4096));
    R(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_IS_MANAGED, p));
    R(cuPointerSetAttribute(NULL, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, p));
    R(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, (CUdeviceptr)(uintptr_t)&local));
    R(cuMemFree(p));
}

/* --- pools --------------------------------------------------------------------------------------------------------------------- */

static int attribute(CUdevice_attribute a)
{
    int value = -99;
    if (cuDeviceGetAttribute(&value, a, device))
        value = -98;
    return value;
}

CASE(pool_attributes_of_the_device)
{
    FACT("pools %d", attribute(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED));
    FACT("managed %d, concurrent %d", attribute(CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY),
         attribute(CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS));
    FACT("virtual memory management %d", attribute(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED));
}

CASE(alloc_async)
{
    CUstream s;
    CUdeviceptr p = 7, q;
    unsigned char *back = malloc(MIB);
    NEED(cuStreamCreate(&s, 0));
    if (R(cuMemAllocAsync(&p, 0, s)) == CUDA_SUCCESS)
        FACT("no bytes are at NULL: %d", p == 0);
    R(cuMemAllocAsync(NULL, 16, s));
    R(cuMemAllocAsync(&p, (size_t)32 << 40, s));
    NEED(cuMemAllocAsync(&p, MIB, s));
    FACT("aligned to 256: %d", p % 256 == 0);
    R(cuMemsetD8Async(p, 0x5a, MIB, s));
    R(cuMemcpyDtoHAsync(back, p, MIB, s));
    R(cuStreamSynchronize(s));
    FACT("sum %016lx", parity_sum(back, MIB));
    describe("pool", p + 64, p, MIB);
    several("pool", p + 8);
    CUdeviceptr base;
    size_t size;
    R(cuMemGetAddressRange(&base, &size, p + 5));
    FACT("base %d, size %zu", base == p, size);
    R(cuMemFreeAsync(p + 256, s));
    R(cuMemFreeAsync(p, s));
    R(cuStreamSynchronize(s));
    R(cuMemFreeAsync(p, s));
    R(cuMemFreeAsync(0, s));
    R(cuMemFreeAsync((CUdeviceptr)(uintptr_t)&p, s));
    NEED(cuMemAllocAsync(&q, 4096, 0));
    R(cuMemFreeAsync(q, 0));
    NEED(cuMemAllocAsync(&q, 4096, CU_STREAM_PER_THREAD));
    R(cuMemFreeAsync(q, CU_STREAM_PER_THREAD));
    R(cuCtxSynchronize());
    R(cuStreamDestroy(s));
    free(back);
}

CASE(free_the_other_way)
{
    CUstream s;
    CUdeviceptr p;
    void *h;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuMemAllocAsync(&p, 4096, s));
    R(cuStreamSynchronize(s));
    R(cuMemFree(p));
    NEED(cuMemAlloc(&p, 4096));
    R(cuMemFreeAsync(p, s));
    R(cuStreamSynchronize(s));
    NEED(cuMemAllocHost(&h, 4096));
    R(cuMemFreeAsync((CUdeviceptr)(uintptr_t)h, s));
    R(cuMemFreeHost(h));
    R(cuStreamDestroy(s));
}

static void pool_numbers(CUmemoryPool pool)
{
    for (int a = 0; a <= 9; a++) {
        unsigned char value[16];
        memset(value, 0xa5, sizeof value);
        CUresult r = cuMemPoolGetAttribute(pool, (CUmemPool_attribute)a, value);
        uint64_t word;
        uint32_t half;
        int written = 16;
        while (written > 0 && value[written - 1] == 0xa5)
            written--;
        memcpy(&word, value, 8);
        memcpy(&half, value, 4);
        if (r || (a >= 5 && a <= 6))
            FACT("attribute %d: %d in %d bytes", a, r, written);
        else
            FACT("attribute %d is %lu in %d bytes", a, a < 4 ? half : word, written);
    }
}

static CUmemPoolProps props(void)
{
    CUmemPoolProps p;
    memset(&p, 0, sizeof p);
    p.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.location.id = device;
    return p;
}

CASE(pool_default)
{
    CUmemoryPool a, b, c;
    NEED(cuDeviceGetDefaultMemPool(&a, device));
    R(cuDeviceGetMemPool(&b, device));
    FACT("the default is the current one: %d", a == b);
    R(cuDeviceGetDefaultMemPool(&c, device));
    FACT("it has one handle: %d", a == c);
    R(cuDeviceGetDefaultMemPool(NULL, device));
    R(cuDeviceGetDefaultMemPool(&c, 99));
    R(cuDeviceGetMemPool(&c, -1));
    R(cuDeviceSetMemPool(device, NULL));
    R(cuDeviceSetMemPool(99, a));
    R(cuMemPoolDestroy(a));
    CUmemLocation at = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0};
    R(cuMemGetDefaultMemPool(&c, &at, CU_MEM_ALLOCATION_TYPE_PINNED));
    FACT("by its location: %d", a == c);
    R(cuMemGetMemPool(&c, &at, CU_MEM_ALLOCATION_TYPE_PINNED));
    FACT("by its location: %d", a == c);
    R(cuMemSetMemPool(&at, CU_MEM_ALLOCATION_TYPE_PINNED, a));
    R(cuMemGetMemPool(NULL, &at, CU_MEM_ALLOCATION_TYPE_PINNED));
    R(cuMemGetMemPool(&c, NULL, CU_MEM_ALLOCATION_TYPE_PINNED));
    R(cuMemGetMemPool(&c, &at, CU_MEM_ALLOCATION_TYPE_INVALID));
}

CASE(pool_of_our_own)
{
    CUmemoryPool pool, now;
    CUmemPoolProps p = props();
    CUdeviceptr d, e;
    CUstream s;
    uint64_t threshold = UINT64_MAX, zero = 0, one = 1;
    int off = 0, access = 99;
    CUmemLocation at = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0};
    NEED(cuStreamCreate(&s, 0));
    NEED(cuMemPoolCreate(&pool, &p));
    pool_numbers(pool);
    R(cuMemPoolGetAccess((CUmemAccess_flags *)&access, pool, &at));
    FACT("access %d", access);
    CUmemAccessDesc desc = {.location = at, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    R(cuMemPoolSetAccess(pool, &desc, 1));
    desc.flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    R(cuMemPoolSetAccess(pool, &desc, 1));
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &off));
    NEED(cuMemAllocFromPoolAsync(&d, 32 * MIB, pool, s));
    R(cuMemsetD8Async(d, 1, 32 * MIB, s));
    CUmemoryPool of = NULL;
    R(cuPointerGetAttribute(&of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, d + 1000));
    FACT("it is of the pool: %d", of == pool);
    pool_numbers(pool);
    R(cuMemFreeAsync(d, s));
    R(cuStreamSynchronize(s));
    pool_numbers(pool);
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero));
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &one));
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, &zero));
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &zero));
    R(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &zero));
    R(cuMemPoolSetAttribute(pool, (CUmemPool_attribute)9, &zero));
    pool_numbers(pool);
    R(cuMemPoolTrimTo(pool, 0));
    uint64_t reserved = 1;
    R(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved));
    FACT("reserved after a trim %lu", reserved);
    R(cuDeviceSetMemPool(device, pool));
    R(cuDeviceGetMemPool(&now, device));
    FACT("it is the current one: %d", now == pool);
    NEED(cuMemAllocAsync(&e, 4096, s));
    R(cuPointerGetAttribute(&of, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, e));
    FACT("it is of the pool: %d", of == pool);
    R(cuMemPoolDestroy(pool));
    R(cuDeviceGetMemPool(&now, device));
    FACT("it is the current one: %d", now == pool);
    R(cuMemsetD8Async(e, 1, 4096, s));
    R(cuMemFreeAsync(e, s));
    R(cuStreamSynchronize(s));
    R(cuStreamDestroy(s));
}

CASE(pool_wrong)
{
    CUmemoryPool pool = NULL;
    CUmemPoolProps p = props();
    CUdeviceptr d;
    R(cuMemPoolCreate(NULL, &p));
    R(cuMemPoolCreate(&pool, NULL));
    p.allocType = CU_MEM_ALLOCATION_TYPE_INVALID;
    R(cuMemPoolCreate(&pool, &p));
    p = props();
    p.location.type = CU_MEM_LOCATION_TYPE_INVALID;
    R(cuMemPoolCreate(&pool, &p));
    p = props();
    p.reserved[0] = 1;
    R(cuMemPoolCreate(&pool, &p));
    R(cuMemPoolTrimTo(NULL, 0));
    R(cuMemPoolDestroy(NULL));
    R(cuMemAllocFromPoolAsync(&d, 16, NULL, 0));
    p = props();
    p.maxSize = 64 * MIB;
    NEED(cuMemPoolCreate(&pool, &p));
    R(cuMemAllocFromPoolAsync(&d, 0, pool, 0));
    R(cuMemAllocFromPoolAsync(&d, 512 * MIB, pool, 0));
    R(cuMemPoolDestroy(pool));
}

CASE(alloc_in_a_capture)
{
    CUstream s;
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr p, out;
    unsigned char back[64];
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuMemAlloc(&out, 64));
    R(cuMemsetD8(out, 0, 64));
    R(cuCtxSynchronize());
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    NEED(cuMemAllocAsync(&p, 2 * MIB, s));
    R(cuMemsetD8Async(p, 0x11, 2 * MIB, s));
    R(cuMemcpyDtoDAsync(out, p + MIB, 64, s));
    R(cuMemFreeAsync(p, s));
    NEED(cuStreamEndCapture(s, &graph));
    NEED(cuGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; i++)
        R(cuGraphLaunch(exec, s));
    R(cuStreamSynchronize(s));
    R(cuMemcpyDtoH(back, out, 64));
    FACT("sum %016lx", parity_sum(back, 64));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(graph));
    R(cuMemFree(out));
    R(cuStreamDestroy(s));
}

/* --- virtual memory management -------------------------------------------------------------------------------------------------- */

static CUmemAllocationProp physical(void)
{
    CUmemAllocationProp p;
    memset(&p, 0, sizeof p);
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.location.id = device;
    return p;
}

CASE(vmm_granularity)
{
    size_t g = 0;
    CUmemAllocationProp p = physical();
    R(cuMemGetAllocationGranularity(&g, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    FACT("minimum %zu", g);
    R(cuMemGetAllocationGranularity(&g, &p, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
    FACT("recommended %zu", g);
    R(cuMemGetAllocationGranularity(NULL, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    R(cuMemGetAllocationGranularity(&g, NULL, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    R(cuMemGetAllocationGranularity(&g, &p, (CUmemAllocationGranularity_flags)7));
    p.type = CU_MEM_ALLOCATION_TYPE_INVALID;
    R(cuMemGetAllocationGranularity(&g, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
}

CASE(vmm_reserve)
{
    CUdeviceptr p;
    R(cuMemAddressReserve(&p, 0, 0, 0, 0));
    R(cuMemAddressReserve(&p, 4096, 0, 0, 0));
    R(cuMemAddressReserve(NULL, 2 * MIB, 0, 0, 0));
    R(cuMemAddressReserve(&p, 2 * MIB, 0, 0, 1));
    R(cuMemAddressReserve(&p, 2 * MIB, 12345, 0, 0));
    NEED(cuMemAddressReserve(&p, 64 * MIB, 0, 0, 0));
    FACT("aligned: %d", p % (2 * MIB) == 0);
    R(cuMemsetD8(p, 1, 1));
    unsigned type;
    R(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p));
    R(cuMemAddressFree(p, 2 * MIB));
    R(cuMemAddressFree(p + 2 * MIB, 62 * MIB));
    R(cuMemAddressFree(p, 64 * MIB));
    R(cuMemAddressFree(p, 64 * MIB));
    NEED(cuMemAddressReserve(&p, (size_t)1 << 36, 0, 0, 0));
    R(cuMemAddressFree(p, (size_t)1 << 36));
}

CASE(vmm_create)
{
    CUmemGenericAllocationHandle h;
    CUmemAllocationProp p = physical(), told;
    R(cuMemCreate(&h, 0, &p, 0));
    R(cuMemCreate(&h, 4096, &p, 0));
    R(cuMemCreate(&h, 2 * MIB, &p, 1));
    R(cuMemCreate(NULL, 2 * MIB, &p, 0));
    R(cuMemCreate(&h, 2 * MIB, NULL, 0));
    R(cuMemCreate(&h, (size_t)1 << 45, &p, 0));
    p.type = CU_MEM_ALLOCATION_TYPE_INVALID;
    R(cuMemCreate(&h, 2 * MIB, &p, 0));
    p = physical();
    p.location.id = 99;
    R(cuMemCreate(&h, 2 * MIB, &p, 0));
    p = physical();
    NEED(cuMemCreate(&h, 4 * MIB, &p, 0));
    memset(&told, 0xa5, sizeof told);
    R(cuMemGetAllocationPropertiesFromHandle(&told, h));
    FACT("type %d, handles %d, location %d %d", told.type, told.requestedHandleTypes, told.location.type, told.location.id);
    R(cuMemGetAllocationPropertiesFromHandle(NULL, h));
    R(cuMemRelease(h));
    R(cuMemRelease(h)); /* what a released handle still tells is nobody's business */
}

CASE(vmm_map)
{
    CUmemGenericAllocationHandle a, b, again = 0;
    CUmemAllocationProp p = physical();
    CUmemAccessDesc access = {.location = p.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr at;
    unsigned long long flags = 99;
    unsigned char *back = malloc(4 * MIB);
    NEED(cuMemAddressReserve(&at, 16 * MIB, 0, 0, 0));
    NEED(cuMemCreate(&a, 2 * MIB, &p, 0));
    NEED(cuMemCreate(&b, 4 * MIB, &p, 0));
    R(cuMemMap(at, 2 * MIB, 0, a, 1));
    R(cuMemMap(at, 0, 0, a, 0));
    R(cuMemMap(at, 2 * MIB, 2 * MIB, a, 0));
    R(cuMemMap(at, 4 * MIB, 0, a, 0));
    R(cuMemMap(at + 16 * MIB, 2 * MIB, 0, a, 0));
    NEED(cuMemMap(at, 2 * MIB, 0, a, 0));
    R(cuMemMap(at, 2 * MIB, 0, a, 0));
    describe("mapped", at + 64, at, 2 * MIB);
    R(cuMemGetAccess(&flags, &p.location, at + 5));
    FACT("access %llu", flags);
    R(cuMemSetAccess(at, 2 * MIB, NULL, 1));
    R(cuMemSetAccess(at, 4 * MIB, &access, 1));
    R(cuMemSetAccess(at + 8 * MIB, 2 * MIB, &access, 1));
    NEED(cuMemSetAccess(at, 2 * MIB, &access, 1));
    describe("accessible", at + 64, at, 2 * MIB);
    several("accessible", at + 8);
    R(cuMemGetAccess(&flags, &p.location, at + 5));
    FACT("access %llu", flags);
    R(cuMemGetAccess(NULL, &p.location, at));
    R(cuMemGetAccess(&flags, NULL, at));
    R(cuMemGetAccess(&flags, &p.location, at + 8 * MIB));
    CUdeviceptr base;
    size_t size;
    R(cuMemGetAddressRange(&base, &size, at + 5));
    FACT("base %d, size %zu", base == at, size);
    NEED(cuMemMap(at + 2 * MIB, 4 * MIB, 0, b, 0));
    NEED(cuMemSetAccess(at + 2 * MIB, 4 * MIB, &access, 1));
    R(cuMemsetD8(at, 0x21, 6 * MIB));
    R(cuMemsetD8(at + MIB, 0x43, 2 * MIB));
    R(cuMemcpyDtoH(back, at + MIB / 2, 4 * MIB));
    FACT("sum over both %016lx", parity_sum(back, 4 * MIB));
    R(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(at + 3 * MIB)));
    FACT("the same handle: %d", again == b);
    R(cuMemRetainAllocationHandle(NULL, (void *)(uintptr_t)at));
    R(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(at + 8 * MIB)));
    R(cuMemRetainAllocationHandle(&again, &again));
    R(cuMemRelease(b));
    R(cuMemRelease(b));
    R(cuMemsetD8(at + 3 * MIB, 0x65, MIB));
    R(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(at + 3 * MIB)));
    FACT("the same handle: %d", again == b);
    R(cuMemRelease(again));
    R(cuMemUnmap(at, MIB));
    R(cuMemUnmap(at + 2 * MIB, 2 * MIB));
    R(cuMemUnmap(at + 8 * MIB, 2 * MIB));
    R(cuMemUnmap(at + 8 * MIB, MIB));
    R(cuMemUnmap(at + 4 * MIB, 4 * MIB));
    R(cuMemUnmap(at + 14 * MIB, 4 * MIB));
    R(cuMemUnmap(at, 0));
    R(cuMemAddressFree(at, 16 * MIB));
    R(cuMemUnmap(at, 8 * MIB));
    R(cuMemcpyDtoH(back, at, 1));
    R(cuMemRelease(a));
    R(cuMemAddressFree(at, 16 * MIB));
    free(back);
}

CASE(vmm_two_addresses)
{
    CUmemGenericAllocationHandle a;
    CUmemAllocationProp p = physical();
    CUmemAccessDesc access = {.location = p.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr at;
    unsigned word = 0;
    NEED(cuMemAddressReserve(&at, 4 * MIB, 0, 0, 0));
    NEED(cuMemCreate(&a, 2 * MIB, &p, 0));
    NEED(cuMemMap(at, 2 * MIB, 0, a, 0));
    NEED(cuMemMap(at + 2 * MIB, 2 * MIB, 0, a, 0));
    R(cuMemRelease(a));
    NEED(cuMemSetAccess(at, 4 * MIB, &access, 1));
    R(cuMemsetD32(at + 400, 0x12345678, 1));
    R(cuMemcpyDtoH(&word, at + 2 * MIB + 400, 4));
    FACT("word %x", word);
    R(cuMemUnmap(at, 2 * MIB));
    R(cuMemcpyDtoH(&word, at + 2 * MIB + 400, 4));
    R(cuMemUnmap(at + 2 * MIB, 2 * MIB));
    R(cuMemAddressFree(at, 4 * MIB));
}

CASE(vmm_kernel)
{
    CUmemGenericAllocationHandle a;
    CUmemAllocationProp p = physical();
    CUmemAccessDesc access = {.location = p.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr at;
    int n = 1 << 19, value = 3, wrong = 0, *back = malloc(2 * MIB);
    NEED(cuMemAddressReserve(&at, 2 * MIB, 0, 0, 0));
    NEED(cuMemCreate(&a, 2 * MIB, &p, 0));
    NEED(cuMemMap(at, 2 * MIB, 0, a, 0));
    NEED(cuMemSetAccess(at, 2 * MIB, &access, 1));
    R(cuMemsetD32(at, 39, n));
    void *params[] = {&at, &value, &n};
    R(cuLaunchKernel(function("add_to_all"), n / 256, 1, 1, 256, 1, 1, 0, 0, params, 0));
    R(cuMemcpyDtoH(back, at, 2 * MIB));
    for (int i = 0; i < n; i++)
        wrong += back[i] != 42;
    FACT("wrong %d", wrong);
    R(cuMemUnmap(at, 2 * MIB));
    R(cuMemRelease(a));
    R(cuMemAddressFree(at, 2 * MIB));
    free(back);
}

/* --- managed memory ------------------------------------------------------------------------------------------------------------- */

CASE(managed)
{
    CUdeviceptr p = 7;
    int n = 10000, value = 2, wrong = 0;
    R(cuMemAllocManaged(&p, 0, CU_MEM_ATTACH_GLOBAL));
    R(cuMemAllocManaged(NULL, 16, CU_MEM_ATTACH_GLOBAL));
    R(cuMemAllocManaged(&p, 16, 0));
    R(cuMemAllocManaged(&p, 16, 3));
    R(cuMemAllocManaged(&p, 16, CU_MEM_ATTACH_SINGLE));
    NEED(cuMemAllocManaged(&p, n * sizeof(int), CU_MEM_ATTACH_GLOBAL));
    int *h = (int *)(uintptr_t)p;
    for (int i = 0; i < n; i++)
        h[i] = i;
    void *params[] = {&p, &value, &n};
    R(cuLaunchKernel(function("add_to_all"), (n + 255) / 256, 1, 1, 256, 1, 1, 0, 0, params, 0));
    R(cuCtxSynchronize());
    for (int i = 0; i < n; i++)
        wrong += h[i] != i + 2;
    FACT("wrong %d", wrong);
    describe("managed", p + 64, p, n * sizeof(int));
    several("managed", p + 8);
    int word = 0;
    R(cuMemcpyDtoH(&word, p + 400, 4));
    FACT("word %d", word);
    R(cuMemsetD32(p, 77, 10));
    R(cuCtxSynchronize());
    FACT("filled %d %d", h[9], h[10]);
    R(cuMemFreeHost(h));
    R(cuMemFree(p + 4));
    R(cuMemFree(p));
    R(cuMemFree(p));
    NEED(cuMemAllocManaged(&p, 4096, CU_MEM_ATTACH_HOST));
    R(cuMemFree(p));
}

static void told(CUdeviceptr p, size_t len)
{
    for (int a = 0; a <= 9; a++) {
        int value = -77;
        CUresult r = cuMemRangeGetAttribute(&value, 4, (CUmem_range_attribute)a, p, len);
        if (r || a == 6 || a == 8) /* an id means nothing without a device */
            FACT("range attribute %d: %d", a, r);
        else
            FACT("range attribute %d is %d", a, value);
    }
}

CASE(managed_advice)
{
    CUdeviceptr p;
    size_t len = 1 << 20;
    int list[3] = {-77, -77, -77}, one = 0, local;
    CUmemLocation dev = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}, host = {.type = CU_MEM_LOCATION_TYPE_HOST, .id = 0};
    CUmemLocation bad = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 99}, none = {.type = CU_MEM_LOCATION_TYPE_INVALID, .id = 0};
    NEED(cuMemAllocManaged(&p, len, CU_MEM_ATTACH_GLOBAL));
    told(p, len);
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_SET_READ_MOSTLY, dev));
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, dev));
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_SET_ACCESSED_BY, dev));
    R(cuMemPrefetchAsync(p, len, dev, 0, 0));
    R(cuCtxSynchronize());
    told(p, len);
    R(cuMemRangeGetAttribute(list, 12, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, p, len));
    FACT("accessed by %d %d %d", list[0], list[1], list[2]);
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_UNSET_READ_MOSTLY, dev));
    R(cuMemAdvise(p, 65536, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, host));
    R(cuMemPrefetchAsync(p, 65536, host, 0, 0));
    R(cuCtxSynchronize());
    told(p, len);
    told(p, 65536);
    told(p + 65536, 65536);
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, dev));
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_UNSET_ACCESSED_BY, dev));
    told(p, len);
    R(cuMemAdvise(p, len, (CUmem_advise)0, dev));
    R(cuMemAdvise(p, len, (CUmem_advise)7, dev));
    R(cuMemAdvise(p, 0, CU_MEM_ADVISE_SET_READ_MOSTLY, dev));
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, bad));
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, none));
    R(cuMemAdvise(p, len, CU_MEM_ADVISE_SET_ACCESSED_BY, none));
    R(cuMemAdvise((CUdeviceptr)(uintptr_t)&local, 4, CU_MEM_ADVISE_SET_READ_MOSTLY, dev));
    R(cuMemPrefetchAsync(p, len, bad, 0, 0));
    R(cuMemPrefetchAsync(p, len, none, 0, 0));
    R(cuMemPrefetchAsync(p, len, dev, 1, 0));
    R(cuMemPrefetchAsync(p, 0, dev, 0, 0));
    R(cuMemPrefetchAsync((CUdeviceptr)(uintptr_t)&local, 4, dev, 0, 0));
    R(cuMemRangeGetAttribute(&one, 8, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, len));
    R(cuMemRangeGetAttribute(&one, 0, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, p, len));
    R(cuMemRangeGetAttribute(NULL, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, len));
    R(cuMemRangeGetAttribute(&one, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, p, 0));
    R(cuMemRangeGetAttribute(&one, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, (CUdeviceptr)(uintptr_t)&local, 4));
    void *to[2] = {&one, list};
    size_t sizes[2] = {4, 8};
    CUmem_range_attribute which[2] = {CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY};
    R(cuMemRangeGetAttributes(to, sizes, which, 2, p, len));
    FACT("at once %d, %d %d", one, list[0], list[1]);
    R(cuMemRangeGetAttributes(to, sizes, which, 0, p, len));
    R(cuMemFree(p));
    CUdeviceptr d;
    NEED(cuMemAlloc(&d, 4096));
    R(cuMemAdvise(d, 4096, CU_MEM_ADVISE_SET_READ_MOSTLY, dev));
    R(cuMemPrefetchAsync(d, 4096, dev, 0, 0));
    R(cuMemFree(d));
}

CASE(managed_prefetch_batch)
{
    CUdeviceptr p, starts[3];
    size_t lens[3] = {65536, 65536, 65536}, first[2] = {0, 1}, wrong[2] = {1, 2};
    CUmemLocation to[2] = {{.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}, {.type = CU_MEM_LOCATION_TYPE_HOST, .id = 0}};
    CUstream s;
    int at = -77;
    NEED(cuStreamCreate(&s, 0));
    NEED(cuMemAllocManaged(&p, 3 * 65536, CU_MEM_ATTACH_GLOBAL));
    for (int i = 0; i < 3; i++)
        starts[i] = p + (size_t)i * 65536;
    R(cuMemPrefetchBatchAsync(starts, lens, 3, to, first, 2, 0, s));
    R(cuStreamSynchronize(s));
    for (int i = 0; i < 3; i++) {
        R(cuMemRangeGetAttribute(&at, 4, CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION, starts[i], lens[i]));
        FACT("last at %d", at);
    }
    R(cuMemPrefetchBatchAsync(starts, lens, 3, to, wrong, 2, 0, s));
    R(cuMemPrefetchBatchAsync(starts, lens, 3, to, first, 2, 1, s));
    R(cuMemPrefetchBatchAsync(starts, lens, 3, to, first, 2, 0, 0));
    R(cuMemPrefetchBatchAsync(starts, lens, 3, to, first, 0, 0, s));
    R(cuMemFree(p));
    R(cuStreamDestroy(s));
}

CASE(managed_attach)
{
    CUdeviceptr p, d;
    CUstream s;
    NEED(cuStreamCreate(&s, 0));
    NEED(cuMemAllocManaged(&p, 8192, CU_MEM_ATTACH_GLOBAL));
    NEED(cuMemAlloc(&d, 4096));
    R(cuStreamAttachMemAsync(s, p, 0, CU_MEM_ATTACH_SINGLE));
    R(cuStreamAttachMemAsync(s, p, 8192, CU_MEM_ATTACH_HOST));
    R(cuStreamAttachMemAsync(s, p, 0, CU_MEM_ATTACH_GLOBAL));
    R(cuStreamAttachMemAsync(s, p, 4096, CU_MEM_ATTACH_GLOBAL));
    R(cuStreamAttachMemAsync(0, p, 0, CU_MEM_ATTACH_SINGLE));
    R(cuStreamAttachMemAsync(s, d, 0, CU_MEM_ATTACH_GLOBAL));
    R(cuStreamSynchronize(s));
    R(cuMemFree(d));
    R(cuMemFree(p));
    R(cuStreamDestroy(s));
}
