/*
 * Device memory under a quota that processes share. Each line of standard input is carried out, and answered with one line:
 *
 *   take MIB     cuMemAlloc, kept until the end                            "took" or "out of memory"
 *   fill KIND    allocations of 4 MiB until there is no more, freed again  "filled N"
 *                KIND: plain, async, pool, virtual, array, array3d, mipmap, module
 *   keep         small allocations that are freed, which the library may keep for itself
 *                                                                          "kept"
 *   numbers      "cuda FREE TOTAL device TOTAL nvml FREE TOTAL", in MiB
 */
#include <cuda.h>
#include <dlfcn.h>

#include "check.h"

#define CHECK(call) do { CUresult result_ = (call); if (result_) FAIL("%s: %d", #call, result_); } while (0)

enum { UNIT = 4 << 20, MOST = 4096 };

static CUdevice device;

/* A module with a variable of 4 MiB. */
static const char ptx[] = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .global .align 8 .b8 big[4194304];\n"
    ".visible .entry nothing()\n{\n ret;\n}\n";

/* One allocation of a kind. */
struct one { CUdeviceptr at; CUmemGenericAllocationHandle handle; CUarray array; CUmipmappedArray mipmap; CUmodule module; };

static CUmemoryPool pool;

static CUresult make(const char *kind, struct one *one)
{
    CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device } };
    CUDA_ARRAY_DESCRIPTOR flat = { .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    CUDA_ARRAY3D_DESCRIPTOR solid = { .Width = 256, .Height = 256, .Depth = 16, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1 };
    if (!strcmp(kind, "plain"))
        return cuMemAlloc(&one->at, UNIT);
    if (!strcmp(kind, "async"))
        return cuMemAllocAsync(&one->at, UNIT, NULL);
    if (!strcmp(kind, "pool"))
        return cuMemAllocFromPoolAsync(&one->at, UNIT, pool, NULL);
    if (!strcmp(kind, "virtual"))
        return cuMemCreate(&one->handle, UNIT, &prop, 0);
    if (!strcmp(kind, "array"))
        return cuArrayCreate(&one->array, &flat);
    if (!strcmp(kind, "array3d"))
        return cuArray3DCreate(&one->array, &solid);
    if (!strcmp(kind, "mipmap"))
        return cuMipmappedArrayCreate(&one->mipmap, &solid, 1);
    if (!strcmp(kind, "module")) {
        CUdeviceptr at;
        size_t len;
        CUresult result = cuModuleLoadData(&one->module, ptx);
        if (!result) {
            CHECK(cuModuleGetGlobal(&at, &len, one->module, "big"));
            EXPECT(len == UNIT);
        }
        return result;
    }
    FAIL("no kind %s", kind);
}

static void unmake(struct one *one)
{
    if (one->at)
        CHECK(cuMemFree(one->at));
    if (one->handle)
        CHECK(cuMemRelease(one->handle));
    if (one->array)
        CHECK(cuArrayDestroy(one->array));
    if (one->mipmap)
        CHECK(cuMipmappedArrayDestroy(one->mipmap));
    if (one->module)
        CHECK(cuModuleUnload(one->module));
}

static int fill(const char *kind)
{
    static struct one made[MOST];
    int count = 0, all;
    CUresult result;
    if (!strcmp(kind, "pool")) {
        CUmemPoolProps props = { .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
            .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device } };
        CHECK(cuMemPoolCreate(&pool, &props));
    }
    memset(made, 0, sizeof made);
    while (count < MOST && !(result = make(kind, &made[count])))
        count++;
    EXPECT(count < MOST && result == CUDA_ERROR_OUT_OF_MEMORY);
    /* What was freed can be had again, at once. */
    if (count) {
        unmake(&made[count - 1]);
        memset(&made[count - 1], 0, sizeof made[0]);
        CHECK(make(kind, &made[count - 1]));
    }
    for (all = count; all; all--)
        unmake(&made[all - 1]);
    CHECK(cuCtxSynchronize());
    if (!strcmp(kind, "pool"))
        CHECK(cuMemPoolDestroy(pool));
    if (!strcmp(kind, "async")) {
        CUmemoryPool own;
        CHECK(cuDeviceGetDefaultMemPool(&own, device));
        CHECK(cuMemPoolTrimTo(own, 0));
    }
    return count;
}

static void keep(void)
{
    CUdeviceptr at[8];
    int i;
    for (i = 0; i < 8; i++)
        CHECK(cuMemAlloc(&at[i], 1 << 20));
    for (i = 0; i < 8; i++)
        CHECK(cuMemFree(at[i]));
}

static void numbers(void)
{
    struct { unsigned long long total, free, used; } memory;
    size_t free, total, whole;
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW), *gpu = NULL;
    if (!nvml)
        FAIL("%s", dlerror());
    EXPECT(!((int (*)(void))dlsym(nvml, "nvmlInit_v2"))());
    EXPECT(!((int (*)(unsigned, void **))dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2"))(0, &gpu));
    CHECK(cuMemGetInfo(&free, &total));
    EXPECT(!((int (*)(void *, void *))dlsym(nvml, "nvmlDeviceGetMemoryInfo"))(gpu, &memory));
    CHECK(cuDeviceTotalMem(&whole, device));
    EXPECT(!((int (*)(void))dlsym(nvml, "nvmlShutdown"))());
    printf("cuda %zu %zu device %zu nvml %llu %llu\n", free >> 20, total >> 20, whole >> 20, memory.free >> 20, memory.total >> 20);
}

int main(void)
{
    char line[128];
    CUcontext context;
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "take ", 5)) {
            CUdeviceptr at;
            CUresult result = cuMemAlloc(&at, (size_t)atoi(line + 5) << 20);
            EXPECT(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY);
            puts(result ? "out of memory" : "took");
        } else if (!strncmp(line, "fill ", 5)) {
            printf("filled %d\n", fill(line + 5));
        } else if (!strcmp(line, "keep")) {
            keep();
            puts("kept");
        } else if (!strcmp(line, "numbers")) {
            numbers();
        } else {
            FAIL("no command %s", line);
        }
        fflush(stdout);
    }
    return 0;
}
