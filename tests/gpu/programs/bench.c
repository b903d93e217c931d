/*
 * What the driver API costs its caller. Each line: time: NAME <TAB> MEDIAN <TAB> UNIT (compared by ../runner/compare.py).
 *
 *   bench             everything but the start
 *   bench start       from the process's first instruction to the first kernel's end
 *   bench register    host memory registered and pinned, and copies of it: what has no way without a kernel module
 *
 * What waits and asks is in bench_waits.c.
 */
#include "bench.h"

#include <pthread.h>
#include <sys/mman.h>

struct shift {
    int launches;
    pthread_barrier_t *together;
};

static void *work(void *argument)
{
    struct shift *shift = argument;
    CUstream own;
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuStreamCreate(&own, CU_STREAM_NON_BLOCKING));
    launch(own);
    CHECK(cuStreamSynchronize(own));
    pthread_barrier_wait(shift->together);
    for (int i = 0; i < shift->launches; i++)
        launch(own);
    CHECK(cuStreamSynchronize(own));
    pthread_barrier_wait(shift->together);
    CHECK(cuStreamDestroy(own));
    return 0;
}

static void throughput(int threads, int launches)
{
    char name[80];
    double best[3];
    for (int round = 0; round < 3; round++) {
        pthread_t ids[16];
        pthread_barrier_t together;
        struct shift shift = {launches, &together};
        pthread_barrier_init(&together, 0, threads + 1);
        for (int i = 0; i < threads; i++)
            pthread_create(&ids[i], 0, work, &shift);
        pthread_barrier_wait(&together);
        double t = now();
        pthread_barrier_wait(&together);
        best[round] = (double)threads * launches / (now() - t) / 1e3;
        for (int i = 0; i < threads; i++)
            pthread_join(ids[i], 0);
    }
    snprintf(name, sizeof name, "kernels a second, %d thread%s", threads, threads > 1 ? "s" : "");
    say(name, median(best, 3), "thousand/s");
}

static void copies(const char *kind, char *host, CUdeviceptr memory, size_t most)
{
    static const size_t sizes[] = {4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20};
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes && sizes[s] <= most; s++)
        for (int down = 0; down < 2; down++) {
            size_t size = sizes[s];
            int times = size <= 1 << 20 ? 200 : size <= 16 << 20 ? 20 : 5;
            char name[80];
            for (int i = -1; i < times; i++) {
                double t = now();
                if (down)
                    CHECK(cuMemcpyDtoH(host, memory, size));
                else
                    CHECK(cuMemcpyHtoD(memory, host, size));
                if (i >= 0)
                    samples[i] = now() - t;
            }
            double middle = median(samples, times);
            snprintf(name, sizeof name, "%s copy %s, %zu %s", kind, down ? "down" : "up", size < 1 << 20 ? size >> 10 : size >> 20,
                size < 1 << 20 ? "KiB" : "MiB");
            if (size < 1 << 20)
                say(name, middle * 1e6, "µs");
            else
                say(name, (double)size / middle / 1e9, "GB/s");
        }
}

/* Asynchronous copies of 4 KiB, each waited for. */
static void copies_and_wait(const char *kind, char *host, CUdeviceptr memory, CUstream stream)
{
    char name[80];
    snprintf(name, sizeof name, "%s asynchronous copy up and wait, 4 KiB", kind);
    EACH(name, 500, { CHECK(cuMemcpyHtoDAsync(memory, host, 4096, stream)); CHECK(cuStreamSynchronize(stream)); });
    snprintf(name, sizeof name, "%s asynchronous copy down and wait, 4 KiB", kind);
    EACH(name, 500, { CHECK(cuMemcpyDtoHAsync(host, memory, 4096, stream)); CHECK(cuStreamSynchronize(stream)); });
}

/* Allocations in a stream's order and their frees, each issued alone. */
static void allocations(CUstream stream)
{
    static CUdeviceptr many[BATCH];
    static double frees[BATCHES];
    for (int b = -1; b < BATCHES; b++) {
        double t = now();
        for (int i = 0; i < BATCH; i++)
            CHECK(cuMemAllocAsync(&many[i], 1 << 20, stream));
        double between = now();
        for (int i = 0; i < BATCH; i++)
            CHECK(cuMemFreeAsync(many[i], stream));
        double end = now();
        CHECK(cuStreamSynchronize(stream));
        if (b >= 0) {
            samples[b] = (between - t) / BATCH * 1e6;
            frees[b] = (end - between) / BATCH * 1e6;
        }
    }
    say("allocate 1 MiB asynchronously, to issue it", median(samples, BATCHES), "µs");
    say("free 1 MiB asynchronously, to issue it", median(frees, BATCHES), "µs");
}

/* What a launch costs its thread when launches come without end: the device's queue is full. */
static void sustained(CUstream stream)
{
    enum { LAUNCHES = 60000 };
    double rounds[3];
    for (int round = 0; round < 3; round++) {
        double t = now();
        for (int i = 0; i < LAUNCHES; i++)
            launch(stream);
        CHECK(cuStreamSynchronize(stream));
        rounds[round] = (now() - t) / LAUNCHES * 1e6;
    }
    say("launch, sustained", median(rounds, 3), "µs");
}

/* Memory of the process's own, registered: the driver pins it, and a guest's kernel module does. */
static void registered(void)
{
    CUstream stream;
    CUdeviceptr p;
    void *pinned;
    size_t size = 64 << 20;
    begin();
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuMemAlloc(&p, size));
    char *own = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(own, 1, size);
    if (CAN("registering", cuMemHostRegister(own, size, 0))) {
        CHECK(cuMemHostUnregister(own));
        EACH("register and unregister 64 MiB", 10, { CHECK(cuMemHostRegister(own, size, 0)); CHECK(cuMemHostUnregister(own)); });
        EACH("register and unregister 1 MiB", 50, { CHECK(cuMemHostRegister(own, 1 << 20, 0)); CHECK(cuMemHostUnregister(own)); });
        CHECK(cuMemHostRegister(own, size, 0));
        copies("registered", own, p, size);
        copies_and_wait("registered", own, p, stream);
        CHECK(cuMemHostUnregister(own));
    }
    if (CAN("pinned memory", cuMemHostAlloc(&pinned, size, 0))) {
        memset(pinned, 1, size);
        copies("pinned", pinned, p, size);
        copies_and_wait("pinned", pinned, p, stream);
        CHECK(cuMemFreeHost(pinned));
        EACH("allocate and free 64 MiB of pinned memory", 10, { CHECK(cuMemHostAlloc(&pinned, size, 0)); CHECK(cuMemFreeHost(pinned)); });
    }
}

static void everything(void)
{
    CUstream stream;
    CUevent event, timed;
    CUdeviceptr p;
    begin();
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    CHECK(cuEventCreate(&timed, 0));

    MEASURE("launch, to issue it", , launch(stream), CHECK(cuStreamSynchronize(stream)));
    EACH("launch and wait for the stream", 1000, { launch(stream); CHECK(cuStreamSynchronize(stream)); });
    EACH("launch and wait for the context", 300, { launch(stream); CHECK(cuCtxSynchronize()); });
    MEASURE("wait for an idle stream", , CHECK(cuStreamSynchronize(stream)), );
    MEASURE("record an event", , CHECK(cuEventRecord(event, stream)), CHECK(cuStreamSynchronize(stream)));
    MEASURE("record an event with timing", , CHECK(cuEventRecord(timed, stream)), CHECK(cuStreamSynchronize(stream)));
    MEASURE("query an event that has come", , CHECK(cuEventQuery(event)), );
    MEASURE("query an idle stream", , CHECK(cuStreamQuery(stream)), );
    MEASURE("let a stream wait for an event", , CHECK(cuStreamWaitEvent(stream, event, 0)), CHECK(cuStreamSynchronize(stream)));
    MEASURE("fill 4 KiB, to issue it", , CHECK(cuMemsetD8Async(data, 0, 4 * count, stream)), CHECK(cuStreamSynchronize(stream)));
    {
        CUcontext now_;
        MEASURE("ask for the current context", , CHECK(cuCtxGetCurrent(&now_)), );
        int value;
        MEASURE("ask for a device attribute", , CHECK(cuDeviceGetAttribute(&value, 16, device)), );
        MEASURE("ask for occupancy", , CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, add, 256, 0)), );
        size_t free_, total;
        EACH("ask for free memory", 200, CHECK(cuMemGetInfo(&free_, &total)));
        unsigned type;
        MEASURE("ask for a pointer's type", , CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, data)), );
        CUdevice current;
        MEASURE("ask for the current device", , CHECK(cuCtxGetDevice(&current)), );
        MEASURE("ask for a function's attribute", , CHECK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, add)), );
        CUstreamCaptureStatus status;
        MEASURE("ask whether a stream is captured", , CHECK(cuStreamIsCapturing(stream, &status)), );
    }
    MEASURE("create and destroy an event", , { CUevent e; CHECK(cuEventCreate(&e, 2)); CHECK(cuEventDestroy(e)); }, );
    EACH("create and destroy a stream", 100, { CUstream s; CHECK(cuStreamCreate(&s, 1)); CHECK(cuStreamDestroy(s)); });
    EACH("allocate and free 1 MiB", 300, { CHECK(cuMemAlloc(&p, 1 << 20)); CHECK(cuMemFree(p)); });
    EACH("allocate and free 256 MiB", 20, { CHECK(cuMemAlloc(&p, 256 << 20)); CHECK(cuMemFree(p)); });
    if (CAN("asynchronous allocation", cuMemAllocAsync(&p, 1 << 20, stream))) {
        CHECK(cuMemFreeAsync(p, stream));
        MEASURE("allocate and free 1 MiB asynchronously", , { CHECK(cuMemAllocAsync(&p, 1 << 20, stream)); CHECK(cuMemFreeAsync(p, stream)); },
            CHECK(cuStreamSynchronize(stream)));
        allocations(stream);
    }
    {
        CUmodule m;
        EACH("load and unload a module (PTX)", 10, { CHECK(cuModuleLoadData(&m, kernels_ptx)); CHECK(cuModuleUnload(m)); });
    }
    {
        CUgraph graph;
        CUgraphExec exec;
        if (CAN("capture", cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))) {
            for (int i = 0; i < 20; i++)
                launch(stream);
            CHECK(cuStreamEndCapture(stream, &graph));
            CHECK(cuGraphInstantiateWithFlags(&exec, graph, 0));
            EACH("launch a graph of 20 kernels, to issue it", 200, CHECK(cuGraphLaunch(exec, stream)));
            CHECK(cuStreamSynchronize(stream));
            EACH("launch a graph of 20 kernels and wait", 200, { CHECK(cuGraphLaunch(exec, stream)); CHECK(cuStreamSynchronize(stream)); });
            CHECK(cuGraphExecDestroy(exec));
            CHECK(cuGraphDestroy(graph));
        }
    }
    throughput(1, 20000);
    throughput(4, 10000);
    throughput(8, 10000);
    sustained(stream);

    size_t most = 256 << 20;
    CHECK(cuMemAlloc(&p, most));
    char *pageable = mmap(0, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(pageable, 1, most);
    copies("pageable", pageable, p, most);
    copies_and_wait("pageable", pageable, p, stream);
    void *pinned;
    if (CAN("pinned memory", cuMemHostAlloc(&pinned, most, 0))) {
        memset(pinned, 1, most);
        copies("pinned", pinned, p, most);
        copies_and_wait("pinned", pinned, p, stream);
        char *host = pinned;
        MEASURE("copy 4 KiB of pinned memory up, to issue it", , CHECK(cuMemcpyHtoDAsync(p, host, 4096, stream)), CHECK(cuStreamSynchronize(stream)));
        CHECK(cuMemFreeHost(pinned));
    }
    {
        size_t size = 64 << 20;
        if (CAN("registering", cuMemHostRegister(pageable, size, 0))) {
            CHECK(cuMemHostUnregister(pageable));
            EACH("register and unregister 64 MiB", 10, { CHECK(cuMemHostRegister(pageable, size, 0)); CHECK(cuMemHostUnregister(pageable)); });
        }
    }
    {
        CUdeviceptr q;
        CHECK(cuMemAlloc(&q, most));
        for (int i = -1; i < 20; i++) {
            double t = now();
            CHECK(cuMemcpyDtoDAsync(q, p, most, stream));
            CHECK(cuStreamSynchronize(stream));
            if (i >= 0)
                samples[i] = now() - t;
        }
        say("copy on the device, 256 MiB", 2.0 * (double)most / median(samples, 20) / 1e9, "GB/s");
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "start")) {
        double t = now();
        CHECK(cuInit(0));
        double initialised = now();
        CHECK(cuDeviceGet(&device, 0));
        CHECK(cuDevicePrimaryCtxRetain(&context, device));
        CHECK(cuCtxSetCurrent(context));
        double made = now();
        CHECK(cuModuleLoadData(&module, kernels_ptx));
        CHECK(cuModuleGetFunction(&add, module, "add_to_all"));
        CHECK(cuMemAlloc(&data, 4 * count));
        launch(0);
        CHECK(cuCtxSynchronize());
        double over = now();
        say("cuInit", (initialised - t) * 1e3, "ms");
        say("the first context", (made - initialised) * 1e3, "ms");
        say("from cuInit to the end of the first kernel", (over - t) * 1e3, "ms");
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "register"))
        registered();
    else
        everything();
    return 0;
}
