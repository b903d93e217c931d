/* Which devices a program sees: the same ones natively and through our library, and that they are what they say. */
#include <cuda.h>
#include <stdio.h>
#include <string.h>

static int check(CUresult result, const char *what)
{
    const char *name = "?";
    if (result == CUDA_SUCCESS)
        return 1;
    cuGetErrorName(result, &name);
    printf("%s: %s\n", what, name);
    return 0;
}

int main(void)
{
    int count = -1;
    if (!check(cuInit(0), "cuInit") || !check(cuDeviceGetCount(&count), "cuDeviceGetCount"))
        return 1;
    printf("%d devices\n", count);
    for (int i = 0; i < count; i++) {
        CUdevice dev;
        CUcontext context;
        CUdeviceptr d;
        CUuuid uuid;
        char name[128] = "", address[32] = "";
        unsigned word = 0;
        size_t total = 0;
        if (!check(cuDeviceGet(&dev, i), "cuDeviceGet") || !check(cuDeviceGetName(name, sizeof name, dev), "name") ||
            !check(cuDeviceGetUuid(&uuid, dev), "uuid") || !check(cuDeviceTotalMem(&total, dev), "memory") ||
            !check(cuDeviceGetPCIBusId(address, sizeof address, dev), "address"))
            return 1;
        printf("device %d: %s, %s, %zu bytes, GPU-", i, name, address, total);
        for (int b = 0; b < 16; b++)
            printf("%s%02x", b == 4 || b == 6 || b == 8 || b == 10 ? "-" : "", (unsigned char)uuid.bytes[b]);
        putchar('\n');
        if (!check(cuDevicePrimaryCtxRetain(&context, dev), "context") || !check(cuCtxSetCurrent(context), "current") ||
            !check(cuMemAlloc(&d, 1 << 20), "allocation") || !check(cuMemsetD32(d, 0x600d + i, 1024), "fill") ||
            !check(cuMemcpyDtoH(&word, d + 4092, 4), "copy"))
            return 1;
        printf("device %d holds %x\n", i, word);
        cuMemFree(d);
        cuDevicePrimaryCtxRelease(dev);
    }
    return 0;
}
