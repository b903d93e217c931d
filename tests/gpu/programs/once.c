/* One short life: opens the device, computes, gives back, ends. With "hold": says that it is ready and waits to be killed. */
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels_ptx.h"

#define CHECK(call) do { CUresult r_ = (call); if (r_) { printf("%s: %d\n", #call, (int)r_); return 1; } } while (0)

int main(int argc, char **argv)
{
    enum { N = 100000 };
    static int host[N];
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction add;
    CUdeviceptr data, more;
    int value = 7, n = N;
    long sum = 0;
    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, kernels_ptx));
    CHECK(cuModuleGetFunction(&add, module, "add_to_all"));
    CHECK(cuMemAlloc(&data, sizeof host));
    CHECK(cuMemAlloc(&more, 64 << 20));
    for (int i = 0; i < N; i++)
        host[i] = i;
    CHECK(cuMemcpyHtoD(data, host, sizeof host));
    void *arguments[] = {&data, &value, &n};
    for (int i = 0; i < 50; i++)
        CHECK(cuLaunchKernel(add, (N + 255) / 256, 1, 1, 256, 1, 1, 0, 0, arguments, 0));
    CHECK(cuMemcpyDtoH(host, data, sizeof host));
    for (int i = 0; i < N; i++)
        sum += host[i];
    printf("%ld\n", sum);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "hold")) {
        for (;;)
            CHECK(cuLaunchKernel(add, (N + 255) / 256, 1, 1, 256, 1, 1, 0, 0, arguments, 0));
    }
    /* What is not given back the driver takes. */
    return 0;
}
