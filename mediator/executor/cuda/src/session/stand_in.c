/* As much of a driver as has memory. It gives what it is asked for until it is told that there is no more. */
#include <stddef.h>
#include <string.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NOT_READY = 600 };

static unsigned long long next = 0x7f0000000000ull, reserved, ever_used;
static int empty;

/* For the test. */
void set_empty(int is) { empty = is; }
void set_reserved(unsigned long long bytes) { reserved = bytes; }

static unsigned give(unsigned long long *to, size_t bytes)
{
    if (empty)
        return OUT_OF_MEMORY;
    *to = next;
    next += bytes;
    return SUCCESS;
}

unsigned cuThreadExchangeStreamCaptureMode(unsigned *mode) { *mode = 0; return SUCCESS; }
unsigned cuCtxSetCurrent(size_t context) { (void)context; return SUCCESS; }
unsigned cuCtxPushCurrent_v2(size_t context) { (void)context; return SUCCESS; }
unsigned cuCtxPopCurrent_v2(size_t *context) { *context = 0; return SUCCESS; }
unsigned cuMemGetInfo_v2(size_t *left, size_t *all) { *left = 5u << 20; *all = 1ull << 40; return SUCCESS; }
unsigned cuMemAlloc_v2(unsigned long long *at, size_t bytes) { return give(at, bytes); }
unsigned cuMemFree_v2(unsigned long long at) { (void)at; return SUCCESS; }
unsigned cuMemCreate(unsigned long long *at, size_t bytes, const void *prop, unsigned long long flags)
{
    (void)prop, (void)flags;
    return give(at, bytes);
}
unsigned cuMemRelease(unsigned long long handle) { (void)handle; return SUCCESS; }
unsigned cuArray3DCreate_v2(size_t *array, const void *descriptor) { (void)descriptor; *array = next; return empty ? OUT_OF_MEMORY : SUCCESS; }
unsigned cuArrayDestroy(size_t array) { (void)array; return SUCCESS; }
unsigned cuModuleLoadDataEx(size_t *module, const void *image, unsigned count, int *options, void **values)
{
    (void)image, (void)count, (void)options, (void)values;
    *module = next;
    return empty ? OUT_OF_MEMORY : SUCCESS;
}
unsigned cuModuleUnload(size_t module) { (void)module; return SUCCESS; }
unsigned cuStreamIsCapturing(size_t stream, unsigned *status) { (void)stream; *status = 0; return SUCCESS; }
unsigned cuDeviceGetMemPool(size_t *pool, int device) { *pool = 100 + device; return SUCCESS; }
unsigned cuMemAllocAsync(unsigned long long *at, size_t bytes, size_t stream) { (void)stream; ever_used += bytes; return give(at, bytes); }
unsigned cuMemFreeAsync(unsigned long long at, size_t stream) { (void)at, (void)stream; return SUCCESS; }
unsigned cuMemPoolGetAttribute(size_t pool, unsigned which, void *value)
{
    (void)pool;
    unsigned long long number = which == 5 ? reserved : which == 7 ? ever_used : 0;
    memcpy(value, &number, 8);
    return SUCCESS;
}
unsigned cuMemPoolTrimTo(size_t pool, size_t keep) { (void)pool, (void)keep; return SUCCESS; }
