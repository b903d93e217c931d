/*
 * Work with known results, for tests that look at what goes on beside it.
 *
 *   compute rounds SEED N   N rounds on data of its own
 *   compute until SEED      rounds until the file $VGPU_STOP is there
 *   compute burst           hundreds of kernels under way when it says that it is ready
 *   compute released        a kernel that runs until the CPU writes a word, half a second after it says that it is ready
 */
#include "exercise.h"

static void burst(void)
{
    enum { N = 40000, LAUNCHES = 600 };
    int *data = allocate(N * sizeof *data);
    for (int i = 0; i < N; i++)
        data[i] = i;
    CUfunction f = function("add_to_all");
    CUdeviceptr p = to_device(data, N * sizeof *data);
    CHECK(cuCtxSynchronize());
    for (int i = 1; i <= LAUNCHES; i++)
        CHECK(add_to_all(f, p, i, N, 0));
    ready(0);
    CHECK(cuMemcpyDtoH(data, p, N * sizeof *data));
    for (int i = 0; i < N; i++)
        if (data[i] != i + LAUNCHES * (LAUNCHES + 1) / 2)
            FAIL("burst: element %d is %d", i, data[i]);
    CHECK(cuMemFree(p));
    free(data);
}

static void released(void)
{
    volatile int *flag;
    CHECK(cuMemHostAlloc((void **)&flag, 4096, 0));
    *flag = 0;
    CUdeviceptr p = (CUdeviceptr)(uintptr_t)flag;
    void *params[] = {&p};
    CHECK(cuLaunchKernel(function("spin_until"), 1, 1, 1, 1, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_NOT_READY, cuStreamQuery(0));
    ready(0);
    milliseconds_pass(500);
    ANSWERS(CUDA_ERROR_NOT_READY, cuStreamQuery(0));
    *flag = 1;
    CHECK(cuCtxSynchronize());
    CHECK(cuMemFreeHost((void *)flag));
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    int seed = argc > 2 ? atoi(argv[2]) : 1;
    alarm(150);
    begin();
    if (!strcmp(what, "rounds") && argc > 3) {
        compute(seed, 1);
        ready(0);
        compute(seed, atoi(argv[3]));
    } else if (!strcmp(what, "until")) {
        int turns = 0;
        do {
            compute(seed, 10);
            if (turns++ == 0)
                ready(0);
        } while (!stopped());
    } else if (!strcmp(what, "burst")) {
        burst();
    } else if (!strcmp(what, "released")) {
        released();
    } else {
        FAIL("what is %s?", what);
    }
    compute(seed + 1, 3);
    CHECK(cuCtxSynchronize());
    printf("compute %s: right\n", what);
    return 0;
}
