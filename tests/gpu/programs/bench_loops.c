/*
 * Loops of calls, for those who look on from outside.
 *
 *   bench_loops rate SECONDS   launches without end, so many a second (at_once.py runs several of these at once)
 *   bench_loops counted        loops whose system calls, kicks and interrupts counted.py counts, in a steady state
 *
 * Both say a line where they are ready, and go on when they are sent one.
 */
#include "bench.h"

/* Says `line`, and waits for whoever listens. */
static void meet(const char *line)
{
    char answer[16];
    puts(line);
    fflush(stdout);
    if (!fgets(answer, sizeof answer, stdin))
        return; /* nobody looks on */
}

static void rate(CUstream stream, double seconds)
{
    long launches = 0;
    double t, passed;
    for (int i = 0; i < 1000; i++)
        launch(stream);
    CHECK(cuStreamSynchronize(stream));
    meet("ready");
    t = now();
    do {
        for (int i = 0; i < 500; i++)
            launch(stream);
        CHECK(cuStreamSynchronize(stream));
        launches += 500;
    } while ((passed = now() - t) < seconds);
    printf("rate: %.6g\n", (double)launches / passed);
}

/* `body` makes `calls` calls, and is done `times` times between two marks. */
#define COUNTED(name, times, calls, body) do { \
    for (int i_ = 0; i_ < 100; i_++) { body; } \
    CHECK(cuStreamSynchronize(stream)); \
    meet("mark: begin " name); \
    for (int i_ = 0; i_ < (times); i_++) { body; } \
    meet("mark: end " name); \
    CHECK(cuStreamSynchronize(stream)); \
    printf("count: " name "\tcalls\t%d\n", (times) * (calls)); \
} while (0)

static void counted(CUstream stream)
{
    static char host[4096];
    CUevent event;
    CHECK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    COUNTED("launches", 10000, 1, launch(stream));
    COUNTED("launches, 20 and a wait", 500, 21, { for (int n_ = 0; n_ < 20; n_++) launch(stream); CHECK(cuStreamSynchronize(stream)); });
    COUNTED("launch and wait for the stream", 2000, 2, { launch(stream); CHECK(cuStreamSynchronize(stream)); });
    COUNTED("event record and query", 2000, 2, { CHECK(cuEventRecord(event, stream)); cuEventQuery(event); });
    COUNTED("copy of 4 KiB up and down", 1000, 2, { CHECK(cuMemcpyHtoD(data, host, 4096)); CHECK(cuMemcpyDtoH(host, data, 4096)); });
}

int main(int argc, char **argv)
{
    CUstream stream;
    begin();
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    if (argc > 2 && !strcmp(argv[1], "rate"))
        rate(stream, atof(argv[2]));
    else
        counted(stream);
    return 0;
}
