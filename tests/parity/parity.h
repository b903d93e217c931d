/*
 * One body per driver call, run against NVIDIA's library and against ours; what each says must be equal.
 *
 *     CASE(cuStreamQuery)
 *     {
 *         CUstream s;
 *         NEED(cuStreamCreate(&s, 0));
 *         R(cuStreamQuery(s));
 *         R(cuStreamQuery((CUstream)0));
 *         FACT("priority %d", priority);
 *         R(cuStreamDestroy(s));
 *     }
 *
 * A fact is a line that any conforming driver prints alike: results, numbers, bytes; no address, no handle, no time. R states a
 * call's result and goes on; NEED states it and leaves the case where it is not CUDA_SUCCESS; FACT states anything else; SAME states
 * whether two values are equal without printing them. A body gives back what it takes: the next one shares its context.
 *
 * Each case begins with the primary context of device 0 current on the main thread, with `module` loaded (tests/programs/kernels.cu).
 * LONELY(name) runs in a process of its own: for what poisons a context (faults, traps) or ends it.
 *
 * The program: `name [--list] [--only CASE]… [--skip CASE]…`. Every line begins with the case's name; `CASE: begin` and `CASE: end`
 * frame it, flushed as they come, so that a reader knows where a program died.
 */
#ifndef VGPU_PARITY_H
#define VGPU_PARITY_H

#include <cuda.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels_ptx.h"

typedef void body(void);
struct parity_case {
    const char *name;
    body *run;
    int lonely;
    struct parity_case *next;
};
static struct parity_case *parity_first, **parity_last = &parity_first;
static const char *parity_current = "?";

static CUdevice device;
static CUcontext context;
static CUmodule module;

static inline void parity_add(struct parity_case *c)
{
    *parity_last = c;
    parity_last = &c->next;
}

#define PARITY_CASE(id, alone) \
    static void body_##id(void); \
    static struct parity_case case_##id = {#id, body_##id, alone, 0}; \
    __attribute__((constructor)) static void add_##id(void) { parity_add(&case_##id); } \
    static void body_##id(void)
#define CASE(id) PARITY_CASE(id, 0)
#define LONELY(id) PARITY_CASE(id, 1)

__attribute__((format(printf, 1, 2))) static inline void FACT(const char *format, ...)
{
    static char text[1 << 16];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *line = text; (line = strchr(line, '\n'));)
        *line = '|';
    printf("%s: %s\n", parity_current, text);
    fflush(stdout);
}

static inline CUresult parity_result(CUresult result, const char *call)
{
    const char *name = 0;
    cuGetErrorName(result, &name);
    FACT("%s = %s", call, name ? name : "an unknown result");
    return result;
}
#define R(call) parity_result((call), #call)
#define NEED(call) do { if (parity_result((call), #call) != CUDA_SUCCESS) return; } while (0)
#define SAME(a, b) FACT("%s %s %s", #a, (a) == (b) ? "is" : "is not", #b)

/* A checksum of bytes, for contents too long to print. */
static inline uint64_t parity_sum(const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

static inline CUfunction function(const char *name)
{
    CUfunction f = 0;
    if (cuModuleGetFunction(&f, module, name) != CUDA_SUCCESS)
        FACT("no function %s", name);
    return f;
}

static inline int parity_begin(void)
{
    return cuInit(0) || cuDeviceGet(&device, 0) || cuDevicePrimaryCtxRetain(&context, device) || cuCtxSetCurrent(context) ||
        cuModuleLoadData(&module, kernels_ptx);
}

static inline int parity_run(struct parity_case *c)
{
    parity_current = c->name;
    printf("%s: begin\n", c->name);
    fflush(stdout);
    c->run();
    printf("%s: end\n", c->name);
    fflush(stdout);
    return 0;
}

static inline int parity_named(char **names, const char *flag, const char *name)
{
    int any = 0;
    for (; *names; names++)
        if (!strcmp(*names, flag) && names[1]) {
            any = 1;
            if (!strcmp(names[1], name))
                return 2;
        }
    return any;
}

int main(int argc, char **argv)
{
    int failed = 0, begun = 0;
    (void)argc;
    for (int lonely = 1; lonely >= 0; lonely--) /* children first: they fork from a process that has not initialised */
        for (struct parity_case *c = parity_first; c; c = c->next) {
            if (c->lonely != lonely || parity_named(argv + 1, "--only", c->name) == 1 ||
                parity_named(argv + 1, "--skip", c->name) == 2)
                continue;
            if (argv[1] && !strcmp(argv[1], "--list")) {
                puts(c->name);
                continue;
            }
            if (lonely) {
                int status = 0;
                pid_t child = fork();
                if (!child) {
                    if (parity_begin())
                        _exit(99);
                    parity_run(c);
                    _exit(0);
                }
                waitpid(child, &status, 0);
                if (status) {
                    printf("%s: died with status %x\n", c->name, status);
                    failed = 1;
                }
                continue;
            }
            if (!begun) {
                if (parity_begin()) {
                    fprintf(stderr, "no device to begin with\n");
                    return 1;
                }
                begun = 1;
            }
            /* A case may leave another context behind, or none. */
            cuCtxSetCurrent(context);
            parity_run(c);
        }
    return failed;
}

#endif
