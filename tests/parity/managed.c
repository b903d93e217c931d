/*
 * Managed variables (__managed__): what host and device see of each other's writes, and when; copies, pointer queries, modules and
 * libraries that come and go.
 */
#include "parity.h"

static const char managed_ptx[] =
    ".version 7.0\n"
    ".target sm_70\n"
    ".address_size 64\n"
    ".visible .global .attribute(.managed) .align 4 .u32 word = 41;\n"
    ".visible .global .attribute(.managed) .align 8 .b8 bytes[4096];\n"
    ".visible .global .attribute(.managed) .align 4 .b32 big[1048576];\n"
    ".visible .global .attribute(.managed) .align 4 .u32 flag;\n"
    ".visible .global .attribute(.managed) .align 4 .u32 seen;\n"
    ".visible .global .align 4 .u32 plain = 5;\n"
    /* word += plain */
    ".visible .entry bump()\n"
    "{\n"
    "    .reg .b32 %r<4>;\n"
    "    ld.global.u32 %r1, [word];\n"
    "    ld.global.u32 %r2, [plain];\n"
    "    add.u32 %r3, %r1, %r2;\n"
    "    st.global.u32 [word], %r3;\n"
    "    ret;\n"
    "}\n"
    /* bytes[2 * thread + 1] = thread */
    ".visible .entry odd()\n"
    "{\n"
    "    .reg .b32 %r<4>;\n"
    "    .reg .b64 %d<4>;\n"
    "    mov.u32 %r1, %tid.x;\n"
    "    mul.wide.u32 %d1, %r1, 2;\n"
    "    mov.u64 %d2, bytes;\n"
    "    add.u64 %d3, %d1, %d2;\n"
    "    st.global.u8 [%d3+1], %r1;\n"
    "    ret;\n"
    "}\n"
    /* big[256 * (block * 256 + thread)] += by + thread */
    ".visible .entry stride(.param .u32 by)\n"
    "{\n"
    "    .reg .b32 %r<8>;\n"
    "    .reg .b64 %d<4>;\n"
    "    mov.u32 %r1, %tid.x;\n"
    "    mov.u32 %r2, %ctaid.x;\n"
    "    mad.lo.u32 %r3, %r2, 256, %r1;\n"
    "    mul.wide.u32 %d1, %r3, 1024;\n"
    "    mov.u64 %d2, big;\n"
    "    add.u64 %d3, %d1, %d2;\n"
    "    ld.param.u32 %r4, [by];\n"
    "    add.u32 %r5, %r4, %r1;\n"
    "    ld.global.u32 %r6, [%d3];\n"
    "    add.u32 %r7, %r6, %r5;\n"
    "    st.global.u32 [%d3], %r7;\n"
    "    ret;\n"
    "}\n"
    /* Says that it runs, waits for the host's word (not for ever), and says what it was. */
    ".visible .entry talk()\n"
    "{\n"
    "    .reg .b32 %r<4>;\n"
    "    .reg .pred %p<3>;\n"
    "    mov.u32 %r1, 1;\n"
    "    st.volatile.global.u32 [seen], %r1;\n"
    "    mov.u32 %r2, 0;\n"
    "again:\n"
    "    ld.volatile.global.u32 %r1, [flag];\n"
    "    add.u32 %r2, %r2, 1;\n"
    "    setp.eq.u32 %p1, %r1, 0;\n"
    "    setp.lt.u32 %p2, %r2, 20000000;\n"
    "    @!%p1 bra told;\n"
    "    @%p2 bra again;\n"
    "told:\n"
    "    add.u32 %r3, %r1, 1;\n"
    "    st.volatile.global.u32 [seen], %r3;\n"
    "    ret;\n"
    "}\n";

/* A variable of a module, where the host has it. */
static void *place(CUmodule m, const char *name, size_t size)
{
    CUdeviceptr at = 0;
    size_t len = 0;
    CUresult r = cuModuleGetGlobal(&at, &len, m, name);
    FACT("%s: result %d, size is right: %d", name, r, len == size);
    return r ? NULL : (void *)(uintptr_t)at;
}

static CUfunction kernel(CUmodule m, const char *name)
{
    CUfunction f = 0;
    FACT("kernel %s: %d", name, cuModuleGetFunction(&f, m, name));
    return f;
}

#define LAUNCH(f, grid, block, stream) R(cuLaunchKernel(f, grid, 1, 1, block, 1, 1, 0, stream, NULL, NULL))

CASE(module_variable)
{
    CUmodule m;
    NEED(cuModuleLoadData(&m, managed_ptx));
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (word && bump) {
        FACT("initial value %u", *word);
        LAUNCH(bump, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("after a kernel %u", *word);
        *word = 1000;
        LAUNCH(bump, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("the host's write and another kernel %u", *word);
        for (int i = 0; i < 3; i++) {
            LAUNCH(bump, 1, 1, 0);
            LAUNCH(bump, 1, 1, 0);
            R(cuCtxSynchronize());
            FACT("two kernels %u", *word);
            *word *= 3;
        }
        FACT("last %u", *word);
        SAME(place(m, "word", 4), (void *)word);
    }
    R(cuModuleUnload(m));
}

CASE(every_way_to_wait)
{
    CUmodule m;
    CUstream s;
    CUevent e;
    CUdeviceptr other;
    unsigned back = 0;
    CUresult r;
    NEED(cuModuleLoadData(&m, managed_ptx));
    R(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    R(cuEventCreate(&e, 0));
    R(cuMemAlloc(&other, 4));
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (word && bump) {
        LAUNCH(bump, 1, 1, s);
        R(cuStreamSynchronize(s));
        FACT("stream synchronised: %u", *word);
        LAUNCH(bump, 1, 1, s);
        R(cuEventRecord(e, s));
        R(cuEventSynchronize(e));
        FACT("event synchronised: %u", *word);
        LAUNCH(bump, 1, 1, s);
        while ((r = cuStreamQuery(s)) == CUDA_ERROR_NOT_READY)
            ;
        FACT("stream asked: %d, %u", r, *word);
        LAUNCH(bump, 1, 1, s);
        R(cuEventRecord(e, s));
        while ((r = cuEventQuery(e)) == CUDA_ERROR_NOT_READY)
            ;
        FACT("event asked: %d, %u", r, *word);
        LAUNCH(bump, 1, 1, 0);
        R(cuMemcpyDtoH(&back, other, 4));
        FACT("synchronous copy of something else: %u", *word);
    }
    R(cuMemFree(other));
    R(cuEventDestroy(e));
    R(cuStreamDestroy(s));
    R(cuModuleUnload(m));
}

CASE(bytes_side_by_side)
{
    CUmodule m;
    NEED(cuModuleLoadData(&m, managed_ptx));
    unsigned char *bytes = place(m, "bytes", 4096);
    CUfunction odd = kernel(m, "odd");
    if (bytes && odd) {
        FACT("begins as %016lx", parity_sum(bytes, 4096));
        for (int round = 0; round < 3; round++) {
            LAUNCH(odd, 1, 1024, 0);
            /* Every even byte is the host's, also while the kernel runs. */
            for (int i = 0; i < 2048; i += 2)
                bytes[i] = (unsigned char)(i + round);
            R(cuCtxSynchronize());
            int right = 0;
            for (int i = 0; i < 2048; i++)
                right += bytes[i] == (unsigned char)(i % 2 ? i / 2 : i + round);
            FACT("round %d: %d bytes of 2048 are right", round, right);
            memset(bytes, 0, 2048);
        }
        LAUNCH(odd, 1, 16, 0);
        R(cuCtxSynchronize());
        FACT("at the end %016lx", parity_sum(bytes, 4096));
    }
    R(cuModuleUnload(m));
}

CASE(a_long_one)
{
    CUmodule m;
    unsigned by = 3;
    void *parameters[] = {&by};
    NEED(cuModuleLoadData(&m, managed_ptx));
    unsigned *big = place(m, "big", 4 << 20);
    CUfunction stride = kernel(m, "stride");
    if (big && stride) {
        FACT("begins as %016lx", parity_sum(big, 4 << 20));
        R(cuLaunchKernel(stride, 4, 1, 1, 256, 1, 1, 0, 0, parameters, NULL));
        R(cuCtxSynchronize());
        FACT("a kernel %016lx", parity_sum(big, 4 << 20));
        for (size_t i = 0; i < 1 << 20; i += 100)
            big[i] += (unsigned)i;
        R(cuLaunchKernel(stride, 16, 1, 1, 256, 1, 1, 0, 0, parameters, NULL));
        R(cuCtxSynchronize());
        FACT("host and kernel %016lx", parity_sum(big, 4 << 20));
        for (size_t i = 0; i < 1 << 20; i++)
            big[i] = (unsigned)(i * 2654435761u);
        R(cuLaunchKernel(stride, 16, 1, 1, 256, 1, 1, 0, 0, parameters, NULL));
        R(cuCtxSynchronize());
        FACT("all of it %016lx", parity_sum(big, 4 << 20));
        R(cuMemsetD32((CUdeviceptr)(uintptr_t)big, 0x01020304, 1 << 20));
        FACT("filled %016lx", parity_sum(big, 4 << 20));
    }
    R(cuModuleUnload(m));
}

CASE(copies)
{
    CUmodule m;
    CUstream s;
    CUdeviceptr d;
    unsigned values[1024], back[1024], one = 0;
    for (unsigned i = 0; i < 1024; i++)
        values[i] = i * 77;
    NEED(cuModuleLoadData(&m, managed_ptx));
    R(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    R(cuMemAlloc(&d, 4096));
    unsigned *bytes = place(m, "bytes", 4096), *big = place(m, "big", 4 << 20);
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (bytes && big && word && bump) {
        CUdeviceptr at = (CUdeviceptr)(uintptr_t)bytes, far = (CUdeviceptr)(uintptr_t)big, w = (CUdeviceptr)(uintptr_t)word;
        R(cuMemcpyHtoD(at, values, 4096));
        R(cuCtxSynchronize());
        FACT("in %016lx", parity_sum(bytes, 4096));
        bytes[3] = 5;
        R(cuMemcpyDtoH(back, at, 4096));
        FACT("out %016lx", parity_sum(back, 4096));
        R(cuMemcpyDtoD(far + 8192, at, 4096));
        R(cuCtxSynchronize());
        FACT("across %016lx", parity_sum(big, 16384));
        R(cuMemcpy((CUdeviceptr)(uintptr_t)back, far + 8192 + 4, 2048));
        FACT("unified %016lx", parity_sum(back, 4096));
        R(cuMemsetD8Async(at, 9, 1000, s));
        R(cuStreamSynchronize(s));
        FACT("filled %016lx", parity_sum(bytes, 4096));
        /* As host memory: in the order of the stream. */
        LAUNCH(bump, 1, 1, 0);
        R(cuMemcpyHtoD(d, (void *)word, 4));
        R(cuMemcpyDtoH(&one, d, 4));
        FACT("from it, behind a kernel: %u", one);
        *word = 500;
        LAUNCH(bump, 1, 1, s);
        R(cuMemcpyHtoDAsync(d, (void *)word, 4, s));
        R(cuMemcpyDtoHAsync(bytes, d, 4, s));
        R(cuStreamSynchronize(s));
        FACT("from and to it in a stream: %u", bytes[0]);
        R(cuMemcpyDtoH((void *)word, at + 4, 4));
        FACT("to it: %u", *word);
        LAUNCH(bump, 1, 1, 0);
        R(cuMemcpyDtoH(&one, w, 4));
        FACT("and a kernel: %u, %u", one, *word);
        R(cuMemcpyDtoH(back, at + 4, 4096));
        R(cuMemcpyHtoD(w, values, 8192));
    }
    R(cuMemFree(d));
    R(cuStreamDestroy(s));
    R(cuModuleUnload(m));
}

CASE(attributes)
{
    CUmodule m;
    NEED(cuModuleLoadData(&m, managed_ptx));
    char *bytes = place(m, "bytes", 4096);
    if (bytes) {
        CUdeviceptr at = (CUdeviceptr)(uintptr_t)bytes + 100, dev = 0;
        unsigned type = 0, managed = 0;
        void *host = NULL;
        int ordinal = 7;
        R(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at));
        R(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, at));
        R(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, at));
        R(cuPointerGetAttribute(&host, CU_POINTER_ATTRIBUTE_HOST_POINTER, at));
        R(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at));
        FACT("type %u, managed %u, device %d, host %d, ordinal %d", type, managed, dev == at, host == (void *)(uintptr_t)at, ordinal);
        R(cuMemFree((CUdeviceptr)(uintptr_t)bytes));
        R(cuMemFreeHost(bytes));
        bytes[0] = 3;
        FACT("still there: %d", bytes[0]);
    }
    R(cuModuleUnload(m));
}

CASE(advice)
{
    CUmodule m;
    NEED(cuModuleLoadData(&m, managed_ptx));
    unsigned *big = place(m, "big", 4 << 20);
    CUfunction bump = kernel(m, "bump");
    volatile unsigned *word = place(m, "word", 4);
    if (big && bump && word) {
        CUdeviceptr at = (CUdeviceptr)(uintptr_t)big;
        CUmemLocation here = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0};
        int mostly = 7;
        R(cuMemAdvise(at, 1 << 20, CU_MEM_ADVISE_SET_READ_MOSTLY, here));
        R(cuMemRangeGetAttribute(&mostly, sizeof mostly, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, at, 1 << 20));
        FACT("read mostly: %d", mostly);
        R(cuMemAdvise(at, 1 << 20, CU_MEM_ADVISE_UNSET_READ_MOSTLY, here));
        R(cuMemPrefetchAsync(at, 4 << 20, here, 0, 0));
        R(cuStreamAttachMemAsync(0, at, 0, CU_MEM_ATTACH_GLOBAL));
        LAUNCH(bump, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("%u", *word);
    }
    R(cuModuleUnload(m));
}

CASE(two_modules)
{
    CUmodule a, b;
    NEED(cuModuleLoadData(&a, managed_ptx));
    NEED(cuModuleLoadData(&b, managed_ptx));
    volatile unsigned *first = place(a, "word", 4), *second = place(b, "word", 4);
    CUfunction bump_a = kernel(a, "bump"), bump_b = kernel(b, "bump");
    if (first && second && bump_a && bump_b) {
        SAME(first, second);
        *first = 100;
        LAUNCH(bump_b, 1, 1, 0);
        LAUNCH(bump_a, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("%u and %u", *first, *second);
        R(cuModuleUnload(a));
        *second = 7;
        LAUNCH(bump_b, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("the other is gone: %u", *second);
        NEED(cuModuleLoadData(&a, managed_ptx));
        first = place(a, "word", 4);
        bump_a = kernel(a, "bump");
        if (first) {
            FACT("loaded again: %u", *first);
            LAUNCH(bump_a, 1, 1, 0);
            R(cuCtxSynchronize());
            FACT("%u and %u", *first, *second);
        }
    }
    R(cuModuleUnload(a));
    R(cuModuleUnload(b));
}

CASE(library)
{
    CUlibrary library;
    CUkernel k;
    CUmodule m;
    CUdeviceptr at = 0, again = 0;
    size_t len = 0;
    NEED(cuLibraryLoadData(&library, managed_ptx, NULL, NULL, 0, NULL, NULL, 0));
    R(cuLibraryGetModule(&m, library));
    R(cuLibraryGetManaged(&at, &len, library, "word"));
    R(cuLibraryGetManaged(&again, NULL, library, "word"));
    FACT("size %zu, the same again: %d", len, at == again);
    R(cuLibraryGetManaged(&again, &len, library, "nothing"));
    R(cuLibraryGetManaged(&again, &len, library, "plain"));
    R(cuLibraryGetKernel(&k, library, "bump"));
    again = 0;
    R(cuModuleGetGlobal(&again, &len, m, "word"));
    FACT("the module's is the same: %d", at == again);
    if (at) {
        volatile unsigned *word = (void *)(uintptr_t)at;
        FACT("initial value %u", *word);
        *word = 90;
        LAUNCH((CUfunction)k, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("%u", *word);
    }
    R(cuLibraryUnload(library));
    R(cuPointerGetAttribute(&len, CU_POINTER_ATTRIBUTE_IS_MANAGED, at));
}

CASE(graph)
{
    CUmodule m;
    CUstream s;
    CUgraph g = 0;
    CUgraphExec x = 0;
    NEED(cuModuleLoadData(&m, managed_ptx));
    R(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (word && bump) {
        NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        LAUNCH(bump, 1, 1, s);
        LAUNCH(bump, 1, 1, s);
        R(cuStreamEndCapture(s, &g));
        R(cuGraphInstantiate(&x, g, 0));
        for (unsigned i = 0; i < 3; i++) {
            *word += 100 * i;
            R(cuGraphLaunch(x, s));
            R(cuStreamSynchronize(s));
            FACT("launch %u: %u", i, *word);
        }
        R(cuGraphExecDestroy(x));
        R(cuGraphDestroy(g));
    }
    R(cuStreamDestroy(s));
    R(cuModuleUnload(m));
}

static unsigned met;
static void CUDA_CB meet(void *data)
{
    volatile unsigned *word = data;
    met = *word;
    *word = met * 10;
}

CASE(host_function)
{
    CUmodule m;
    CUstream s;
    NEED(cuModuleLoadData(&m, managed_ptx));
    R(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (word && bump) {
        LAUNCH(bump, 1, 1, s);
        R(cuLaunchHostFunc(s, meet, (void *)word));
        LAUNCH(bump, 1, 1, s);
        R(cuStreamSynchronize(s));
        FACT("the function met %u, the end is %u", met, *word);
    }
    R(cuStreamDestroy(s));
    R(cuModuleUnload(m));
}

CASE(while_a_kernel_runs)
{
    CUmodule m;
    CUstream s;
    NEED(cuModuleLoadData(&m, managed_ptx));
    R(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    volatile unsigned *flag = place(m, "flag", 4), *seen = place(m, "seen", 4);
    CUfunction talk = kernel(m, "talk");
    if (flag && seen && talk) {
        LAUNCH(talk, 1, 1, s);
        /* No call in between. */
        for (int i = 0; i < 2000 && *seen != 1; i++)
            usleep(1000);
        FACT("the kernel has said %u", *seen);
        *flag = 1233;
        for (int i = 0; i < 2000 && *seen == 1; i++)
            usleep(1000);
        FACT("then %u", *seen);
        R(cuStreamSynchronize(s));
        FACT("at last %u", *seen);
    }
    R(cuStreamDestroy(s));
    R(cuModuleUnload(m));
}

static void *other_thread(void *data)
{
    void **call = data;
    volatile unsigned *word = call[1];
    cuCtxSetCurrent(context);
    *word += 1000;
    CUresult r = cuLaunchKernel(call[0], 1, 1, 1, 1, 1, 1, 0, 0, NULL, NULL);
    return (void *)(uintptr_t)(r ? r : cuCtxSynchronize());
}

CASE(threads)
{
    CUmodule m;
    pthread_t t;
    void *result;
    NEED(cuModuleLoadData(&m, managed_ptx));
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (word && bump) {
        void *call[] = {bump, (void *)word};
        for (int i = 0; i < 3; i++) {
            *word += 1;
            pthread_create(&t, NULL, other_thread, call);
            pthread_join(t, &result);
            FACT("thread %d: %d, %u", i, (int)(uintptr_t)result, *word);
        }
    }
    R(cuModuleUnload(m));
}

CASE(another_context)
{
    CUcontext c;
    CUmodule m;
    CUdeviceptr at = 0;
    unsigned managed = 0;
    NEED(cuCtxCreate(&c, NULL, 0, device));
    R(cuModuleLoadData(&m, managed_ptx));
    volatile unsigned *word = place(m, "word", 4);
    CUfunction bump = kernel(m, "bump");
    if (word && bump) {
        at = (CUdeviceptr)(uintptr_t)word;
        LAUNCH(bump, 1, 1, 0);
        R(cuCtxSynchronize());
        FACT("%u", *word);
    }
    R(cuCtxDestroy(c));
    R(cuCtxSetCurrent(context));
    R(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, at));
    R(cuCtxSynchronize());
}
