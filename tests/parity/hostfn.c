/*
 * What comes back from the device into the program: host functions and callbacks, what kernels print; and what two processes share.
 */
#include "parity.h"

CUresult cuLaunchHostFunc_ptsz(CUstream stream, CUhostFn function, void *data);
CUresult cuStreamAddCallback_ptsz(CUstream stream, CUstreamCallback callback, void *data, unsigned flags);

static int seen[64], seen_count;
static void note(void *data)
{
    if (seen_count < 64)
        seen[seen_count++] = (int)(intptr_t)data;
}

static void show_seen(void)
{
    char text[512] = "";
    for (int i = 0, at = 0; i < seen_count; i++)
        at += snprintf(text + at, sizeof text - at, " %d", seen[i]);
    FACT("seen%s", text);
    seen_count = 0;
}

CASE(cuLaunchHostFunc)
{
    CUstream s;
    seen_count = 0;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    for (intptr_t i = 1; i <= 5; i++)
        R(cuLaunchHostFunc(s, note, (void *)i));
    R(cuStreamSynchronize(s));
    show_seen();
    R(cuLaunchHostFunc(0, note, (void *)6));
    R(cuLaunchHostFunc(CU_STREAM_LEGACY, note, (void *)7));
    R(cuCtxSynchronize());
    show_seen();
    R(cuLaunchHostFunc(CU_STREAM_PER_THREAD, note, (void *)8));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    R(cuLaunchHostFunc_ptsz(0, note, (void *)9));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    show_seen();
    R(cuLaunchHostFunc(s, 0, 0));
    R(cuStreamDestroy(s));
}

CASE(cuLaunchHostFunc_data)
{
    CUstream s;
    NEED(cuStreamCreate(&s, 0));
    /* What the program passes comes back as it was, NULL and all. */
    seen_count = 0;
    R(cuLaunchHostFunc(s, note, 0));
    R(cuLaunchHostFunc(s, note, (void *)-1));
    R(cuStreamSynchronize(s));
    show_seen();
    R(cuStreamDestroy(s));
}

static uint32_t *pinned;
static uint32_t read_there;
static void read_pinned(void *data)
{
    read_there = pinned[0];
    pinned[1] = (uint32_t)(uintptr_t)data;
}

CASE(cuLaunchHostFunc_between_copies)
{
    CUstream s;
    CUdeviceptr d;
    uint32_t back = 0;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuMemAlloc(&d, 4096));
    NEED(cuMemHostAlloc((void **)&pinned, 4096, 0));
    pinned[0] = pinned[1] = 0;
    R(cuMemsetD32Async(d, 0x1234, 16, s));
    R(cuMemcpyDtoHAsync(pinned, d, 4, s));
    R(cuLaunchHostFunc(s, read_pinned, (void *)0x77));
    R(cuMemcpyHtoDAsync(d + 8, pinned + 1, 4, s));
    R(cuStreamSynchronize(s));
    R(cuMemcpyDtoH(&back, d + 8, 4));
    FACT("the function read %x, the copy after it %x", read_there, back);
    R(cuMemFreeHost(pinned));
    R(cuMemFree(d));
    R(cuStreamDestroy(s));
}

static void slow(void *data)
{
    usleep(100000);
    *(int *)data += 1;
}

CASE(cuLaunchHostFunc_holds_its_stream)
{
    CUstream s, other;
    CUevent e;
    int done = 0;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    NEED(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    R(cuLaunchHostFunc(s, slow, &done));
    R(cuEventRecord(e, s));
    R(cuStreamQuery(s));
    R(cuEventQuery(e));
    R(cuStreamQuery(other));
    R(cuStreamWaitEvent(other, e, 0));
    R(cuStreamSynchronize(other));
    FACT("done %d", done);
    R(cuEventQuery(e));
    R(cuStreamDestroy(s));
    R(cuStreamDestroy(other));
    R(cuEventDestroy(e));
}

static CUresult inside[4];
static void calls(void *data)
{
    CUdeviceptr d = 0;
    size_t a, b;
    (void)data;
    inside[0] = cuMemAlloc(&d, 4096);
    inside[1] = cuStreamSynchronize(0);
    inside[2] = cuMemGetInfo(&a, &b);
    inside[3] = cuCtxSynchronize();
}

CASE(cuLaunchHostFunc_calls_CUDA)
{
    CUstream s;
    NEED(cuStreamCreate(&s, 0));
    R(cuLaunchHostFunc(s, calls, 0));
    R(cuStreamSynchronize(s));
    R(inside[0]);
    R(inside[1]);
    R(inside[2]);
    R(inside[3]);
    R(cuStreamDestroy(s));
}

static CUstream told_stream;
static CUresult told_status;
static void callback(CUstream stream, CUresult status, void *data)
{
    told_stream = stream;
    told_status = status;
    note(data);
}

CASE(cuStreamAddCallback)
{
    CUstream s;
    seen_count = 0;
    NEED(cuStreamCreate(&s, 0));
    told_status = CUDA_ERROR_UNKNOWN;
    R(cuStreamAddCallback(s, callback, (void *)1, 0));
    R(cuStreamSynchronize(s));
    R(told_status);
    SAME(told_stream, s);
    R(cuLaunchHostFunc(s, note, (void *)2));
    R(cuStreamAddCallback(s, callback, (void *)3, 0));
    R(cuLaunchHostFunc(s, note, (void *)4));
    R(cuStreamSynchronize(s));
    R(cuStreamAddCallback(0, callback, (void *)5, 0));
    R(cuStreamSynchronize(0));
    SAME(told_stream, (CUstream)0);
    R(cuStreamAddCallback_ptsz(0, callback, (void *)6, 0));
    R(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    show_seen();
    R(cuStreamAddCallback(s, 0, 0, 0));
    R(cuStreamAddCallback(s, callback, 0, 1));
    R(cuStreamDestroy(s));
}

CASE(cuLaunchHostFunc_many)
{
    CUstream s[4];
    int count = 0;
    for (int i = 0; i < 4; i++)
        NEED(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
    seen_count = 64; /* only counted below */
    for (int i = 0; i < 4000; i++)
        if (cuLaunchHostFunc(s[i % 4], note, 0))
            count++;
    for (int i = 0; i < 4; i++)
        R(cuStreamSynchronize(s[i]));
    FACT("%d refused", count);
    seen_count = 0;
    for (int i = 0; i < 4; i++)
        R(cuStreamDestroy(s[i]));
}

CASE(captured_host_function)
{
    CUstream s;
    CUgraph graph;
    CUgraphExec exec;
    size_t nodes = 0;
    seen_count = 0;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(cuLaunchHostFunc(s, note, (void *)1));
    R(cuLaunchHostFunc(s, note, (void *)2));
    NEED(cuStreamEndCapture(s, &graph));
    R(cuGraphGetNodes(graph, 0, &nodes));
    FACT("%zu nodes", nodes);
    show_seen();
    NEED(cuGraphInstantiateWithFlags(&exec, graph, 0));
    R(cuGraphLaunch(exec, s));
    R(cuGraphLaunch(exec, s));
    R(cuStreamSynchronize(s));
    show_seen();
    R(cuGraphDestroy(graph));
    R(cuGraphLaunch(exec, s));
    R(cuStreamSynchronize(s));
    show_seen();
    R(cuGraphExecDestroy(exec));
    R(cuLaunchHostFunc(s, note, (void *)3));
    R(cuStreamSynchronize(s));
    show_seen();
    R(cuStreamDestroy(s));
}

CASE(captured_callback)
{
    CUstream s;
    CUgraph graph = 0;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(cuStreamAddCallback(s, callback, 0, 0));
    R(cuStreamEndCapture(s, &graph));
    if (graph)
        R(cuGraphDestroy(graph));
    R(cuStreamDestroy(s));
}

CASE(cuGraphAddHostNode)
{
    CUgraph g;
    CUgraphNode a, b, none;
    CUgraphExec x;
    CUDA_HOST_NODE_PARAMS p = {note, (void *)1}, back = {0};
    seen_count = 0;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddHostNode(&a, g, 0, 0, &p));
    p.userData = (void *)2;
    NEED(cuGraphAddHostNode(&b, g, &a, 1, &p));
    R(cuGraphHostNodeGetParams(b, &back));
    SAME(back.fn, note);
    FACT("data %d", (int)(intptr_t)back.userData);
    NEED(cuGraphInstantiateWithFlags(&x, g, 0));
    R(cuGraphLaunch(x, 0));
    R(cuStreamSynchronize(0));
    show_seen();
    p.userData = (void *)3;
    R(cuGraphHostNodeSetParams(b, &p));
    R(cuGraphHostNodeGetParams(b, &back));
    FACT("data %d", (int)(intptr_t)back.userData);
    R(cuGraphLaunch(x, 0));
    R(cuStreamSynchronize(0));
    show_seen();
    p.userData = (void *)4;
    R(cuGraphExecHostNodeSetParams(x, a, &p));
    R(cuGraphLaunch(x, 0));
    R(cuStreamSynchronize(0));
    show_seen();
    R(cuGraphAddHostNode(&none, g, 0, 0, 0));
    R(cuGraphHostNodeGetParams(a, 0));
    p.fn = 0;
    R(cuGraphHostNodeSetParams(b, &p));
    R(cuGraphAddHostNode(&none, g, 0, 0, &p));
    R(cuGraphExecDestroy(x));
    R(cuGraphDestroy(g));
}

static int destroyed;
static void destroy(void *data)
{
    __sync_fetch_and_add(&destroyed, (int)(intptr_t)data);
}

static void show_destroyed(int awaited)
{
    for (int i = 0; i < 200 && __sync_fetch_and_add(&destroyed, 0) != awaited; i++)
        usleep(10000);
    usleep(50000);
    FACT("destroyed %d", __sync_fetch_and_add(&destroyed, 0));
}

CASE(cuUserObjectCreate)
{
    CUuserObject o, other;
    CUgraph g;
    destroyed = 0;
    R(cuUserObjectCreate(&o, (void *)1, destroy, 1, 0));
    R(cuUserObjectCreate(&o, (void *)1, destroy, 0, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    R(cuUserObjectCreate(&o, (void *)1, 0, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    R(cuUserObjectCreate(0, (void *)1, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    NEED(cuUserObjectCreate(&o, (void *)1, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    R(cuUserObjectRetain(o, 2));
    R(cuUserObjectRelease(o, 2));
    show_destroyed(0);
    R(cuUserObjectRelease(o, 1));
    show_destroyed(1);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuUserObjectCreate(&o, (void *)10, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    NEED(cuUserObjectCreate(&other, (void *)100, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC));
    R(cuGraphRetainUserObject(g, o, 1, CU_GRAPH_USER_OBJECT_MOVE));
    R(cuGraphRetainUserObject(g, other, 2, 0));
    R(cuUserObjectRelease(other, 1));
    R(cuGraphReleaseUserObject(g, other, 1));
    show_destroyed(1);
    R(cuGraphReleaseUserObject(g, other, 1));
    show_destroyed(101);
    R(cuGraphDestroy(g));
    show_destroyed(111);
}

static const char printing[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".extern .func (.param .b32 result) vprintf (.param .b64 format, .param .b64 values);\n"
    ".extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);\n"
    ".global .align 1 .b8 text[38] = {116, 104, 114, 101, 97, 100, 32, 37, 100, 32, 115, 97, 121, 115, 32, 37, 115, 44, 32, 37, 46,"
    " 50, 102, 44, 32, 37, 108, 108, 117, 44, 32, 37, 99, 37, 37, 10, 0, 0};\n" /* "thread %d says %s, %.2f, %llu, %c%%\n" */
    ".global .align 1 .b8 word[6] = {104, 101, 108, 108, 111, 0};\n"
    ".visible .entry say()\n{\n"
    "  .local .align 8 .b8 values[40];\n  .reg .b64 %rd<8>;\n  .reg .b32 %r<4>;\n"
    "  mov.u64 %rd1, values;\n  cvta.local.u64 %rd2, %rd1;\n"
    "  mov.u32 %r1, %tid.x;\n  st.local.u32 [%rd1], %r1;\n"
    "  mov.u64 %rd3, word;\n  cvta.global.u64 %rd4, %rd3;\n  st.local.u64 [%rd1+8], %rd4;\n"
    "  mov.b64 %rd5, 0x3FF8000000000000;\n  st.local.b64 [%rd1+16], %rd5;\n"
    "  mov.u64 %rd6, 12345678901234;\n  st.local.u64 [%rd1+24], %rd6;\n"
    "  mov.u32 %r2, 120;\n  st.local.u32 [%rd1+32], %r2;\n"
    "  mov.u64 %rd3, text;\n  cvta.global.u64 %rd4, %rd3;\n"
    "  {\n  .param .b64 p0;\n  st.param.b64 [p0], %rd4;\n  .param .b64 p1;\n  st.param.b64 [p1], %rd2;\n  .param .b32 back;\n"
    "  call.uni (back), vprintf, (p0, p1);\n  ld.param.b32 %r3, [back];\n  }\n  ret;\n}\n";

static const char failing[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);\n"
    ".global .align 1 .b8 what[6] = {49, 32, 61, 61, 32, 0};\n" /* "1 == " */
    ".global .align 1 .b8 file[5] = {97, 46, 99, 117, 0};\n" /* "a.cu" */
    ".global .align 1 .b8 name[5] = {102, 97, 105, 108, 0};\n" /* "fail" */
    ".visible .entry fail()\n{\n  .reg .b64 %rd<8>;\n  .reg .b32 %r<2>;\n"
    "  mov.u64 %rd1, what;\n  cvta.global.u64 %rd2, %rd1;\n  mov.u64 %rd3, file;\n  cvta.global.u64 %rd4, %rd3;\n"
    "  mov.u64 %rd5, name;\n  cvta.global.u64 %rd6, %rd5;\n"
    "  {\n  .param .b64 p0;\n  st.param.b64 [p0], %rd2;\n  .param .b64 p1;\n  st.param.b64 [p1], %rd4;\n"
    "  .param .b32 p2;\n  mov.u32 %r1, 12;\n  st.param.b32 [p2], %r1;\n  .param .b64 p3;\n  st.param.b64 [p3], %rd6;\n"
    "  .param .b64 p4;\n  mov.u64 %rd7, 1;\n  st.param.b64 [p4], %rd7;\n"
    "  call.uni __assertfail, (p0, p1, p2, p3, p4);\n  }\n  ret;\n}\n";

CASE(device_printf)
{
    CUmodule m;
    CUfunction f;
    CUstream s;
    NEED(cuModuleLoadData(&m, printing));
    NEED(cuModuleGetFunction(&f, m, "say"));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, s, 0, 0));
    R(cuStreamSynchronize(s));
    FACT("after the stream");
    R(cuLaunchKernel(f, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0));
    R(cuCtxSynchronize());
    FACT("after the context");
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, s, 0, 0));
    R(cuStreamDestroy(s));
    R(cuCtxSynchronize());
    R(cuModuleUnload(m));
}

CASE(device_printf_and_the_programs_own)
{
    CUmodule m;
    CUfunction f;
    NEED(cuModuleLoadData(&m, printing));
    NEED(cuModuleGetFunction(&f, m, "say"));
    /* Not flushed: the program's own text comes first all the same. */
    printf("%s: from the program\n", parity_current);
    cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0);
    cuCtxSynchronize();
    FACT("end");
    R(cuModuleUnload(m));
}

LONELY(device_assert)
{
    CUmodule m;
    CUfunction f;
    fflush(stdout);
    dup2(1, 2);
    NEED(cuModuleLoadData(&m, failing));
    NEED(cuModuleGetFunction(&f, m, "fail"));
    R(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0));
    R(cuCtxSynchronize());
    FACT("after the context");
    R(cuCtxSynchronize());
}

/* The other process: this program again, as it must not be forked from one that has initialised. */
static void run_peer(const char *name, const void *memory, const void *event)
{
    char text[2][129];
    const void *from[2] = {memory, event};
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < 64; i++)
            snprintf(text[w] + 2 * i, 3, "%02x", from[w] ? ((const unsigned char *)from[w])[i] : 0);
    setenv("PARITY_MEMORY", text[0], 1);
    setenv("PARITY_EVENT", text[1], 1);
    int status = -1;
    pid_t child = vfork();
    if (!child) {
        execl("/proc/self/exe", "peer", "--only", name, (char *)0);
        _exit(98);
    }
    waitpid(child, &status, 0);
    FACT("the other process ended with %d", status);
    unsetenv("PARITY_MEMORY");
    unsetenv("PARITY_EVENT");
}

static int peer_handle(const char *name, void *to)
{
    const char *text = getenv(name);
    unsigned byte;
    if (!text)
        return 0;
    for (int i = 0; i < 64 && sscanf(text + 2 * i, "%2x", &byte) == 1; i++)
        ((unsigned char *)to)[i] = (unsigned char)byte;
    return 1;
}

CASE(ipc_peer)
{
    CUipcMemHandle memory, zeros;
    CUipcEventHandle event;
    CUdeviceptr d = 0, again = 0, wrong;
    CUevent e;
    uint32_t words[4] = {0};
    if (!peer_handle("PARITY_MEMORY", &memory) || !peer_handle("PARITY_EVENT", &event))
        return;
    memset(&zeros, 0, sizeof zeros);
    R(cuIpcOpenMemHandle(&wrong, memory, 0));
    R(cuIpcOpenMemHandle(&wrong, zeros, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    NEED(cuIpcOpenMemHandle(&d, memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    R(cuIpcOpenMemHandle(&again, memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    SAME(d, again);
    R(cuIpcCloseMemHandle(again));
    NEED(cuIpcOpenEventHandle(&e, event));
    R(cuEventSynchronize(e));
    R(cuEventQuery(e));
    R(cuMemcpyDtoH(words, d, sizeof words));
    FACT("%x %x %x %x", words[0], words[1], words[2], words[3]);
    size_t len = 0;
    CUdeviceptr base = 0;
    R(cuMemGetAddressRange(&base, &len, d));
    FACT("%zu bytes", len);
    SAME(base, d);
    R(cuMemsetD32(d + (1 << 20), 0x600d, 4));
    R(cuMemFree(d));
    R(cuCtxSynchronize());
    R(cuIpcCloseMemHandle(d));
    R(cuIpcCloseMemHandle(d));
    R(cuEventDestroy(e));
}

CASE(cuIpcGetMemHandle)
{
    CUipcMemHandle memory, same;
    CUipcEventHandle event;
    CUdeviceptr d, wrong;
    CUevent e, plain, timed;
    uint32_t word = 0;
    NEED(cuMemAlloc(&d, 2 << 20));
    NEED(cuEventCreate(&e, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
    R(cuEventCreate(&timed, CU_EVENT_INTERPROCESS));
    NEED(cuEventCreate(&plain, CU_EVENT_DISABLE_TIMING));
    NEED(cuIpcGetMemHandle(&memory, d));
    R(cuIpcGetMemHandle(&same, d));
    FACT("%s", memcmp(&memory, &same, sizeof same) ? "another handle" : "the same handle");
    NEED(cuIpcGetEventHandle(&event, e));
    R(cuIpcGetEventHandle(&event, plain));
    R(cuIpcGetMemHandle(&same, 0x1234));
    R(cuIpcGetMemHandle(0, d));
    R(cuIpcOpenMemHandle(&wrong, memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    R(cuIpcCloseMemHandle(d));
    NEED(cuIpcGetEventHandle(&event, e));
    R(cuMemsetD32(d, 0xcafe, 4));
    R(cuMemsetD32(d + (1 << 20), 0, 4));
    R(cuEventRecord(e, 0));
    run_peer("ipc_peer", &memory, &event);
    R(cuMemcpyDtoH(&word, d + (1 << 20), 4));
    FACT("the other process wrote %x", word);
    R(cuEventDestroy(e));
    R(cuEventDestroy(plain));
    R(cuMemFree(d));
}
