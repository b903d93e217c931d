/*
 * The lives and ends of processes.
 *
 *   processes copies | spin       copies for ever; waits for a kernel that runs for ever
 *   processes sleeper copies|spin the same, with a forked child that sleeps
 *   processes fork-before         child and parent use CUDA, each initialised after the fork
 *   processes fork-after          a child of a process that uses CUDA: every call answers 3, unless it executes a program anew
 *   processes until-error copy|wait   goes on until a call fails; that every later one fails as well
 *   processes fault unmapped|misaligned|assert   a kernel that goes astray, or whose assertion fails
 *   processes corrupt             writes nonsense over the rings that it shares with the host, and works on
 */
#include "exercise.h"

static void spin(void)
{
    CUdeviceptr flag;
    CHECK(cuMemAlloc(&flag, 4));
    CHECK(cuMemsetD32(flag, 0, 1));
    CHECK(cuCtxSynchronize());
    void *params[] = {&flag};
    CHECK(cuLaunchKernel(function("spin_until"), 1, 1, 1, 32, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_NOT_READY, cuStreamQuery(0));
}

static void busy_for_ever(const char *what, pid_t child)
{
    if (!strcmp(what, "copies")) {
        size_t bytes = 64 << 20;
        char *host = allocate(bytes);
        memset(host, 5, bytes);
        CUdeviceptr p = to_device(host, bytes);
        ready(child);
        for (;;) {
            CHECK(cuMemcpyHtoD(p, host, bytes));
            CHECK(cuMemcpyDtoH(host, p, bytes));
        }
    }
    spin();
    ready(child);
    CHECK(cuCtxSynchronize());
    FAIL("a kernel that runs for ever has ended");
}

static int status_of(pid_t child)
{
    int status;
    EXPECT(waitpid(child, &status, 0) == child);
    return status;
}

static void fork_before(void)
{
    pid_t child = fork();
    EXPECT(child >= 0);
    begin();
    compute(child ? 1 : 2, 20);
    if (!child)
        exit(0);
    EXPECT(status_of(child) == 0);
    compute(3, 3);
}

static void calls_of_a_forked_child(CUdeviceptr p, CUfunction f, CUstream stream, CUevent event)
{
    int word, n = 1;
    size_t size;
    CUdeviceptr q;
    CUdevice d;
    CUcontext c;
    CUmodule m;
    CUstream s;
    void *h;
    void *params[] = {&p, &n, &n};
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuInit(0));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGet(&d, 0));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&n));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuCtxGetCurrent(&c));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuCtxSetCurrent(context));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuCtxSynchronize());
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuDevicePrimaryCtxRetain(&c, 0));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc(&q, 4));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemFree(p));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemGetInfo(&size, &size));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemcpyDtoH(&word, p, 4));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemcpyHtoD(p, &word, 4));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemsetD8(p, 0, 4));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuMemHostAlloc(&h, 4096, 0));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuModuleLoadData(&m, kernels_ptx));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuModuleGetFunction(&f, module, "poke"));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, params, 0));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuStreamCreate(&s, 0));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuStreamSynchronize(stream));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuStreamDestroy(stream));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuEventRecord(event, stream));
    ANSWERS(CUDA_ERROR_NOT_INITIALIZED, cuEventDestroy(event));
}

static void fork_after(char *program)
{
    int data[64] = {0};
    void *pinned;
    CUstream stream;
    CUevent event;
    begin();
    CUfunction f = function("add_to_all");
    CUdeviceptr p = to_device(data, sizeof data);
    CHECK(cuMemHostAlloc(&pinned, 1 << 20, 0));
    memset(pinned, 1, 1 << 20);
    CHECK(cuStreamCreate(&stream, 0));
    CHECK(cuEventCreate(&event, 0));
    for (int round = 0; round < 2; round++) {
        pid_t child = fork();
        EXPECT(child >= 0);
        if (!child) {
            calls_of_a_forked_child(p, f, stream, event);
            if (round == 0)
                exit(0);
            execl("/proc/self/exe", program, "compute", (char *)0);
            FAIL("it cannot execute itself");
        }
        /* Meanwhile the parent goes on. */
        for (int i = 0; i < 50; i++)
            CHECK(add_to_all(f, p, 1, 64, stream));
        CHECK(cuStreamSynchronize(stream));
        EXPECT(status_of(child) == 0);
    }
    CHECK(cuMemcpyDtoH(data, p, sizeof data));
    for (int i = 0; i < 64; i++)
        EXPECT(data[i] == 100);
    CHECK(cuMemcpyHtoDAsync(p, pinned, 4, stream));
    CHECK(cuMemcpyDtoH(data, p, 4));
    EXPECT(data[0] == 0x01010101);
    CHECK(cuMemFreeHost(pinned));
    compute(4, 3);
}

static void until_error(const char *how)
{
    CUdeviceptr p;
    CUstream stream;
    CUresult result = CUDA_SUCCESS;
    char bytes[256] = {0};
    begin();
    CHECK(cuMemAlloc(&p, 256));
    if (!strcmp(how, "wait")) {
        spin();
        ready(0);
        result = cuCtxSynchronize();
    } else {
        ready(0);
        while (result == CUDA_SUCCESS) {
            result = cuMemcpyHtoD(p, bytes, sizeof bytes);
            if (result == CUDA_SUCCESS)
                result = cuMemcpyDtoH(bytes, p, sizeof bytes);
        }
    }
    EXPECT(result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY);
    /* And again, at once. */
    double start = seconds();
    EXPECT(cuMemcpyDtoH(bytes, p, 4) != CUDA_SUCCESS);
    EXPECT(cuMemAlloc(&p, 4) != CUDA_SUCCESS);
    EXPECT(cuStreamCreate(&stream, 0) != CUDA_SUCCESS);
    EXPECT(cuCtxSynchronize() != CUDA_SUCCESS);
    EXPECT(seconds() - start < 2);
    printf("answered %d\n", result);
}

/* assert(1 == 2) in b.cu, line 7, of the kernel "fails". */
static const char failing[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);\n"
    ".global .align 1 .b8 says[7] = {49, 32, 61, 61, 32, 50, 0};\n"
    ".global .align 1 .b8 file[5] = {98, 46, 99, 117, 0};\n"
    ".global .align 1 .b8 name[6] = {102, 97, 105, 108, 115, 0};\n"
    ".visible .entry fails()\n{\n .reg .b64 %at<3>;\n"
    " cvta.global.u64 %at0, says;\n cvta.global.u64 %at1, file;\n cvta.global.u64 %at2, name;\n"
    " {\n .param .b64 m;\n .param .b64 f;\n .param .b32 l;\n .param .b64 n;\n .param .b64 c;\n"
    " st.param.b64 [m], %at0;\n st.param.b64 [f], %at1;\n st.param.b32 [l], 7;\n st.param.b64 [n], %at2;\n st.param.b64 [c], 1;\n"
    " call.uni __assertfail, (m, f, l, n, c);\n }\n ret;\n}\n";

static void fault(const char *how)
{
    int misaligned = !strcmp(how, "misaligned"), fails = !strcmp(how, "assert"), value = 1, word;
    CUresult expected = misaligned ? CUDA_ERROR_MISALIGNED_ADDRESS : fails ? CUDA_ERROR_ASSERT : CUDA_ERROR_ILLEGAL_ADDRESS;
    CUdeviceptr p, where;
    CUfunction kernel;
    CUmodule own;
    CUstream stream;
    begin();
    compute(1, 2);
    CHECK(cuMemAlloc(&p, 64));
    CHECK(cuStreamCreate(&stream, 0));
    where = misaligned ? p + 2 : 0x700000000000;
    void *params[] = {&where, &value};
    if (fails) {
        CHECK(cuModuleLoadData(&own, failing));
        CHECK(cuModuleGetFunction(&kernel, own, "fails"));
    } else {
        kernel = function("poke");
    }
    CHECK(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, fails ? 0 : params, 0));
    ANSWERS(expected, cuStreamSynchronize(stream));
    ready(0);
    ANSWERS(expected, cuStreamSynchronize(stream));
    ANSWERS(expected, cuCtxSynchronize());
    ANSWERS(expected, cuMemcpyDtoH(&word, p, 4));
    ANSWERS(expected, cuMemcpyHtoD(p, &word, 4));
    ANSWERS(expected, cuMemAlloc(&p, 4));
    ANSWERS(expected, add_to_all((CUfunction)0, p, 1, 1, stream));
    ANSWERS(expected, cuStreamQuery(0));
}

/* Over a local socket: in a VM the rings are the driver's memory and have no name. */
static void corrupt(void)
{
    char line[512], *ring[64];
    size_t len[64], rings = 0;
    int word = 0;
    CUdeviceptr p;
    FILE *maps;
    begin();
    compute(1, 2);
    CHECK(cuMemAlloc(&p, 4));
    maps = fopen("/proc/self/maps", "r");
    EXPECT(maps);
    while (rings < 64 && fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (strstr(line, "memfd:vgpu-ring") && sscanf(line, "%lx-%lx rw", &start, &end) == 2) {
            ring[rings] = (char *)start;
            len[rings++] = end - start;
        }
    }
    fclose(maps);
    EXPECT(rings);
    ready(0);
    /* Long enough for whoever sleeps at the other end to look. */
    double until = seconds() + 0.3;
    for (unsigned seed = 1; seconds() < until; seed++) {
        random_state = seed;
        for (size_t i = 0; i < rings; i++)
            for (size_t at = 0; at + 4 <= len[i]; at += 4)
                *(volatile uint32_t *)(ring[i] + at) = random_word();
        /* Whatever it reads of its own nonsense. */
        (void)cuMemcpyHtoD(p, &word, sizeof word);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "", *how = argc > 2 ? argv[2] : "";
    alarm(120);
    if (!strcmp(what, "copies") || !strcmp(what, "spin")) {
        begin();
        busy_for_ever(what, 0);
    } else if (!strcmp(what, "sleeper")) {
        begin();
        pid_t child = fork();
        EXPECT(child >= 0);
        if (!child) {
            sleep(100);
            return 0;
        }
        busy_for_ever(how, child);
    } else if (!strcmp(what, "fork-before")) {
        fork_before();
    } else if (!strcmp(what, "fork-after")) {
        fork_after(argv[0]);
    } else if (!strcmp(what, "compute")) {
        begin();
        compute(9, 5);
    } else if (!strcmp(what, "until-error")) {
        until_error(how);
    } else if (!strcmp(what, "fault")) {
        fault(how);
    } else if (!strcmp(what, "corrupt")) {
        corrupt();
    } else {
        FAIL("what is %s?", what);
    }
    printf("processes %s: right\n", what);
    return 0;
}
