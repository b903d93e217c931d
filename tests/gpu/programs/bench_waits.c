/*
 * What it costs to wait for the device, and to ask whether it has come to an end. As bench.c says its times.
 *
 *   bench_waits            in a context that looks for the end, as the driver makes it by itself
 *   bench_waits blocking   in one that sleeps until it is told (CU_CTX_SCHED_BLOCKING_SYNC)
 */
#include "bench.h"

static void looking(CUstream stream)
{
    CUevent event, first, second;
    CUresult still;
    float passed;
    CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    CHECK(cuEventCreate(&first, 0));
    CHECK(cuEventCreate(&second, 0));

    CHECK(cuEventRecord(first, stream));
    launch(stream);
    CHECK(cuEventRecord(second, stream));
    CHECK(cuStreamSynchronize(stream));
    MEASURE("elapsed time between two events", , CHECK(cuEventElapsedTime(&passed, first, second)), );
    EACH("record two timed events, wait, elapsed time", 500, {
        CHECK(cuEventRecord(first, stream));
        CHECK(cuEventRecord(second, stream));
        CHECK(cuEventSynchronize(second));
        CHECK(cuEventElapsedTime(&passed, first, second));
    });
    EACH("launch between two timed events, wait, elapsed time", 500, {
        CHECK(cuEventRecord(first, stream));
        launch(stream);
        CHECK(cuEventRecord(second, stream));
        CHECK(cuEventSynchronize(second));
        CHECK(cuEventElapsedTime(&passed, first, second));
    });
    MEASURE("wait for an event that has come", , CHECK(cuEventSynchronize(event)), );
    EACH("event record + synchronise", 1000, { CHECK(cuEventRecord(event, stream)); CHECK(cuEventSynchronize(event)); });
    EACH("launch and wait for an event", 1000, {
        launch(stream);
        CHECK(cuEventRecord(event, stream));
        CHECK(cuEventSynchronize(event));
    });
    EACH("launch and query the stream until it is done", 1000, {
        launch(stream);
        while ((still = cuStreamQuery(stream)) == CUDA_ERROR_NOT_READY)
            ;
        CHECK(still);
    });
    EACH("launch and query an event until it has come", 1000, {
        launch(stream);
        CHECK(cuEventRecord(event, stream));
        while ((still = cuEventQuery(event)) == CUDA_ERROR_NOT_READY)
            ;
        CHECK(still);
    });
}

int main(int argc, char **argv)
{
    int blocking = argc > 1 && !strcmp(argv[1], "blocking");
    CUstream stream;
    CUevent sleeping;
    if (blocking) {
        CHECK(cuInit(0));
        CHECK(cuDeviceGet(&device, 0));
        CHECK(cuDevicePrimaryCtxSetFlags(device, CU_CTX_SCHED_BLOCKING_SYNC));
    }
    begin();
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CHECK(cuEventCreate(&sleeping, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC));
    if (blocking) {
        EACH("launch and wait for the stream, blocking context", 1000, { launch(stream); CHECK(cuStreamSynchronize(stream)); });
        EACH("launch and wait for the context, blocking context", 500, { launch(stream); CHECK(cuCtxSynchronize()); });
        MEASURE("wait for an idle stream, blocking context", , CHECK(cuStreamSynchronize(stream)), );
    } else {
        looking(stream);
        EACH("launch and wait for a blocking event", 1000, {
            launch(stream);
            CHECK(cuEventRecord(sleeping, stream));
            CHECK(cuEventSynchronize(sleeping));
        });
    }
    return 0;
}
