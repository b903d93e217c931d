/*
 * Wrong arguments of graph nodes: what each adder and each setter says to them. One line per kind of wrongness, with the result of every
 * way in: the node's own adder ("/" what cuGraphInstantiate then says), its setter, its setter in an executable graph, and the three
 * calls for nodes of any type. What driver 580 dies of (an array that is NULL with elements, an attribute into NULL, a graph into itself)
 * is not asked.
 */
#include "graphs.h"

/* A graph with one node of the kind under test, and what was made executable of it. */
struct target {
    CUgraph graph;
    CUgraphNode node;
    CUgraphExec exec;
};

/* What became of a node that was added: whether its graph can be made executable. It is gone afterwards. */
static int instantiable(CUgraph g)
{
    CUgraphExec exec = 0;
    CUresult r = cuGraphInstantiate(&exec, g, 0);
    if (!r)
        cuGraphExecDestroy(exec);
    return (int)r;
}

/* ADDED(call) in a graph of its own: the result, and "/" what cuGraphInstantiate says to it. */
#define ADDED(text, call) do { \
        CUgraph fresh; \
        CUgraphNode made = 0; \
        cuGraphCreate(&fresh, 0); \
        int added = (int)(call); \
        if (added) \
            snprintf(text, sizeof text, "%d", added); \
        else \
            snprintf(text, sizeof text, "0/%d", instantiable(fresh)); \
        cuGraphDestroy(fresh); \
    } while (0)

static void general_of(CUgraphNodeParams *p, CUgraphNodeType type, const void *node, size_t bytes)
{
    memset(p, 0, sizeof *p);
    p->type = type;
    memcpy(&p->kernel, node, bytes);
}

/* --- kernels --------------------------------------------------------------------------------------------------------------------- */

static void try_kernel(const char *what, struct target *t, const CUDA_KERNEL_NODE_PARAMS *p, const CUDA_KERNEL_NODE_PARAMS *good)
{
    char add[40], any[40] = "-";
    int set, exec, general = -1, general_exec = -1;
    CUgraphNodeParams all;
    ADDED(add, cuGraphAddKernelNode(&made, fresh, 0, 0, p));
    set = cuGraphKernelNodeSetParams(t->node, p);
    exec = cuGraphExecKernelNodeSetParams(t->exec, t->node, p);
    if (p) {
        general_of(&all, CU_GRAPH_NODE_TYPE_KERNEL, p, sizeof *p);
        ADDED(any, cuGraphAddNode(&made, fresh, 0, 0, 0, &all));
        general = cuGraphNodeSetParams(t->node, &all);
        general_exec = cuGraphExecNodeSetParams(t->exec, t->node, &all);
    }
    FACT("%s: add %s set %d exec %d, general add %s set %d exec %d", what, add, set, exec, any, general, general_exec);
    cuGraphKernelNodeSetParams(t->node, good);
    cuGraphExecKernelNodeSetParams(t->exec, t->node, good);
}

CASE(kernel_nodes)
{
    struct target t;
    struct add args;
    CUdeviceptr data = memory();
    CUDA_KERNEL_NODE_PARAMS good = adding(&args, data), p;
    CUlibrary library;
    CUkernel kernel;
    NEED(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, 0, 0, 0));
    NEED(cuLibraryGetKernel(&kernel, library, "add_to_all"));
    NEED(cuGraphCreate(&t.graph, 0));
    NEED(cuGraphAddKernelNode(&t.node, t.graph, 0, 0, &good));
    NEED(cuGraphInstantiate(&t.exec, t.graph, 0));
#define TRY(what, ...) do { p = good; __VA_ARGS__; try_kernel(what, &t, &p, &good); } while (0)
    try_kernel("NULL", &t, 0, &good);
    TRY("as it is", (void)0);
    TRY("no function", p.func = 0);
    TRY("no function and no block", p.func = 0, p.blockDimX = 0);
    TRY("no function, a context", p.func = 0, p.ctx = context);
    TRY("function and kernel", p.kern = kernel);
    TRY("kernel", p.func = 0, p.kern = kernel);
    TRY("kernel with its context", p.func = 0, p.kern = kernel, p.ctx = context);
    TRY("function with its context", p.ctx = context);
    TRY("kernel as function", p.func = (CUfunction)kernel);
    TRY("another function", p.func = function("poke"));
    TRY("block 0", p.blockDimX = 0);
    TRY("block of 1025", p.blockDimX = 1025);
    TRY("block of 4096", p.blockDimX = 4096);
    TRY("block of 32 x 64", p.blockDimX = 32, p.blockDimY = 64);
    TRY("block of 1 x 1 x 65", p.blockDimX = 1, p.blockDimZ = 65);
    TRY("grid 0", p.gridDimX = 0);
    TRY("grid of 65536 rows", p.gridDimY = 65536);
    TRY("grid of 2^31", p.gridDimX = 1u << 31);
    TRY("shared 49152", p.sharedMemBytes = 49152);
    TRY("shared 49153", p.sharedMemBytes = 49153);
    TRY("shared 1 MiB", p.sharedMemBytes = 1 << 20);
    TRY("no parameters", p.kernelParams = 0);
    struct { CUdeviceptr data; int value, n; } packed = {data, 3, N};
    size_t size = sizeof packed, less = 8, more = 64, none = 0;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    void *turned[] = {CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_END};
    void *too_little[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &less, CU_LAUNCH_PARAM_END};
    char room[64] = "";
    memcpy(room, &packed, sizeof packed);
    void *too_much[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, room, CU_LAUNCH_PARAM_BUFFER_SIZE, &more, CU_LAUNCH_PARAM_END};
    void *nothing[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &none, CU_LAUNCH_PARAM_END};
    void *no_size[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_END};
    void *no_buffer[] = {CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    void *unknown[] = {(void *)7, &packed, CU_LAUNCH_PARAM_END};
    void *end[] = {CU_LAUNCH_PARAM_END};
    TRY("extra", p.kernelParams = 0, p.extra = extra);
    TRY("extra and parameters", p.extra = extra);
    TRY("extra, size first", p.kernelParams = 0, p.extra = turned);
    TRY("extra of too little", p.kernelParams = 0, p.extra = too_little);
    TRY("extra of too much", p.kernelParams = 0, p.extra = too_much);
    TRY("extra of nothing", p.kernelParams = 0, p.extra = nothing);
    TRY("extra without a size", p.kernelParams = 0, p.extra = no_size);
    TRY("extra without a buffer", p.kernelParams = 0, p.extra = no_buffer);
    TRY("extra of an unknown kind", p.kernelParams = 0, p.extra = unknown);
    TRY("extra of an end", p.kernelParams = 0, p.extra = end);
    TRY("extra of an end, and parameters", p.extra = end);
#undef TRY
    R(cuGraphExecDestroy(t.exec));
    R(cuGraphDestroy(t.graph));
    R(cuLibraryUnload(library));
    R(cuMemFree(data));
}

/* What a kernel node says of itself after each way of giving parameters. */
static void said(const char *what, CUgraphNode node)
{
    CUDA_KERNEL_NODE_PARAMS q;
    memset(&q, 0x5a, sizeof q);
    CUresult r = cuGraphKernelNodeGetParams(node, &q);
    if (r) {
        FACT("%s: %d", what, (int)r);
        return;
    }
    char extra[200] = "NULL";
    if (q.extra) {
        int at = 0;
        extra[0] = 0;
        for (int i = 0; i < 5; i++) {
            at += snprintf(extra + at, sizeof extra - (size_t)at, " %s",
                q.extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER ? "buffer" : q.extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE ? "size" : q.extra[i] ? "value" : "end");
            if (!q.extra[i])
                break;
            if (q.extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
                at += snprintf(extra + at, sizeof extra - (size_t)at, " of %zu", *(size_t *)q.extra[i + 1]);
            if (q.extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
                at += snprintf(extra + at, sizeof extra - (size_t)at, " with %d", ((int *)q.extra[i + 1])[2]);
            i++;
        }
    }
    FACT("%s: func %s kern %s ctx %s, parameters %s, value %d, extra%s%s", what, q.func ? "given" : "NULL", q.kern ? "given" : "NULL",
        q.ctx == context ? "ours" : q.ctx ? "another" : "NULL", q.kernelParams ? "given" : "NULL",
        q.kernelParams ? *(int *)q.kernelParams[1] : -1, q.extra ? "" : " ", extra);
}

CASE(kernel_node_s_parameters)
{
    CUgraph g;
    CUgraphNode a, b;
    CUstream s;
    struct add args;
    CUdeviceptr data = memory();
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data), q;
    struct { CUdeviceptr data; int value, n; } packed = {data, 3, N};
    size_t size = sizeof packed, n = 1;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    void *turned[] = {CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_END};
    CUlibrary library;
    CUkernel kernel;
    CUfunction f;
    NEED(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, 0, 0, 0));
    NEED(cuLibraryGetKernel(&kernel, library, "add_to_all"));
    NEED(cuKernelGetFunction(&f, kernel));
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    said("added", a);
    p.ctx = context;
    NEED(cuGraphKernelNodeSetParams(a, &p));
    said("with its context", a);
    p.kernelParams = 0;
    p.extra = extra;
    NEED(cuGraphAddKernelNode(&b, g, 0, 0, &p));
    said("added with extra", b);
    p.extra = turned;
    NEED(cuGraphKernelNodeSetParams(b, &p));
    said("set with size first", b);
    packed.value = 9;
    said("the buffer changed", b);
    memset(&q, 0, sizeof q);
    R(cuGraphKernelNodeGetParams(b, &q));
    R(cuGraphKernelNodeSetParams(b, &q));
    said("set to what it was", b);
    p = adding(&args, data);
    NEED(cuGraphKernelNodeSetParams(b, &p));
    said("set with parameters", b);
    p.extra = extra;
    p.kernelParams = 0;
    NEED(cuGraphKernelNodeSetParams(a, &p));
    said("set with extra", a);
    p = adding(&args, data);
    p.func = (CUfunction)kernel;
    R(cuGraphKernelNodeSetParams(a, &p));
    p.func = f;
    NEED(cuGraphKernelNodeSetParams(a, &p));
    said("a kernel's function", a);
    p.func = 0;
    p.kern = kernel;
    NEED(cuGraphKernelNodeSetParams(a, &p));
    said("a kernel", a);
    p.ctx = context;
    NEED(cuGraphKernelNodeSetParams(a, &p));
    said("a kernel with its context", a);
    CUgraph clone;
    NEED(cuGraphClone(&clone, g));
    NEED(cuGraphNodeFindInClone(&b, a, clone));
    said("in a clone", b);
    R(cuGraphDestroy(clone));
    R(cuGraphDestroy(g));
    p = adding(&args, data);
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, 0, extra));
    NEED(cuStreamEndCapture(s, &g));
    R(cuGraphGetNodes(g, &a, &n));
    said("captured with extra", a);
    R(cuGraphDestroy(g));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(cuLaunchKernel((CUfunction)kernel, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    NEED(cuStreamEndCapture(s, &g));
    R(cuGraphGetNodes(g, &a, &n));
    said("captured of a kernel", a);
    R(cuGraphDestroy(g));
    R(cuStreamDestroy(s));
    R(cuLibraryUnload(library));
    R(cuMemFree(data));
}

/* --- copies and sets --------------------------------------------------------------------------------------------------------------- */

static void try_copy(const char *what, struct target *t, const CUDA_MEMCPY3D *p, CUcontext ctx, const CUDA_MEMCPY3D *good)
{
    char add[40], any[40] = "-";
    int set, exec, general = -1, general_exec = -1;
    CUgraphNodeParams all;
    ADDED(add, cuGraphAddMemcpyNode(&made, fresh, 0, 0, p, ctx));
    set = cuGraphMemcpyNodeSetParams(t->node, p);
    exec = cuGraphExecMemcpyNodeSetParams(t->exec, t->node, p, ctx);
    if (p) {
        memset(&all, 0, sizeof all);
        all.type = CU_GRAPH_NODE_TYPE_MEMCPY;
        all.memcpy.copyCtx = ctx;
        all.memcpy.copyParams = *p;
        ADDED(any, cuGraphAddNode(&made, fresh, 0, 0, 0, &all));
        general = cuGraphNodeSetParams(t->node, &all);
        general_exec = cuGraphExecNodeSetParams(t->exec, t->node, &all);
    }
    FACT("%s: add %s set %d exec %d, general add %s set %d exec %d", what, add, set, exec, any, general, general_exec);
    cuGraphMemcpyNodeSetParams(t->node, good);
    cuGraphExecMemcpyNodeSetParams(t->exec, t->node, good, context);
}

CASE(memcpy_nodes)
{
    struct target t;
    CUdeviceptr from = memory(), to = memory();
    CUDA_MEMCPY3D good, p;
    int *pinned;
    NEED(cuMemAllocHost((void **)&pinned, N * sizeof(int)));
    memset(&good, 0, sizeof good);
    good.srcMemoryType = good.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    good.srcDevice = from;
    good.dstDevice = to;
    good.WidthInBytes = good.srcPitch = good.dstPitch = N * sizeof(int);
    good.srcHeight = good.dstHeight = good.Height = good.Depth = 1;
    NEED(cuGraphCreate(&t.graph, 0));
    NEED(cuGraphAddMemcpyNode(&t.node, t.graph, 0, 0, &good, context));
    NEED(cuGraphInstantiate(&t.exec, t.graph, 0));
#define TRY(what, ...) do { CUcontext ctx = context; p = good; __VA_ARGS__; try_copy(what, &t, &p, ctx, &good); } while (0)
    try_copy("NULL", &t, 0, context, &good);
    TRY("as it is", (void)0);
    TRY("no context", ctx = 0);
    TRY("source of type 0", p.srcMemoryType = (CUmemorytype)0);
    TRY("source of type 9", p.srcMemoryType = (CUmemorytype)9);
    TRY("destination of type 9", p.dstMemoryType = (CUmemorytype)9);
    TRY("source NULL", p.srcDevice = 0);
    TRY("destination NULL", p.dstDevice = 0);
    TRY("source 16", p.srcDevice = 16);
    TRY("destination 16", p.dstDevice = 16);
    TRY("no array", p.srcMemoryType = CU_MEMORYTYPE_ARRAY);
    TRY("width 0", p.WidthInBytes = 0);
    TRY("height 0", p.Height = 0);
    TRY("depth 0", p.Depth = 0);
    TRY("pitch 0", p.srcPitch = 0);
    TRY("pitch less than the width", p.srcPitch = 8);
    TRY("pitch 0 and two rows", p.srcPitch = 0, p.WidthInBytes = 8, p.Height = 2);
    TRY("pitch less and two rows", p.srcPitch = 4, p.WidthInBytes = 8, p.Height = 2);
    TRY("height less and two planes", p.srcHeight = 1, p.WidthInBytes = 8, p.Height = 2, p.Depth = 2);
    TRY("reserved", p.reserved0 = (void *)8);
    TRY("level of detail", p.srcLOD = 1);
    TRY("past the source", p.srcXInBytes = 4);
    TRY("past the destination", p.dstXInBytes = 4);
    TRY("a byte too many", p.WidthInBytes = p.srcPitch = p.dstPitch = N * sizeof(int) + 1);
    TRY("half", p.WidthInBytes = 8);
    TRY("two rows", p.WidthInBytes = p.srcPitch = p.dstPitch = 8, p.Height = 2);
    TRY("turned around", p.srcDevice = to, p.dstDevice = from);
    TRY("onto itself", p.dstDevice = from);
    TRY("to pinned memory", p.dstMemoryType = CU_MEMORYTYPE_HOST, p.dstHost = pinned);
    TRY("to pinned memory, unified", p.dstMemoryType = CU_MEMORYTYPE_UNIFIED, p.dstDevice = (CUdeviceptr)pinned);
    TRY("unified", p.srcMemoryType = p.dstMemoryType = CU_MEMORYTYPE_UNIFIED);
    TRY("to NULL on the host", p.dstMemoryType = CU_MEMORYTYPE_HOST, p.dstHost = 0);
#undef TRY
    R(cuGraphExecDestroy(t.exec));
    R(cuGraphDestroy(t.graph));
    R(cuMemFree(from));
    R(cuMemFree(to));
    R(cuMemFreeHost(pinned));
}

static void try_set(const char *what, struct target *t, const CUDA_MEMSET_NODE_PARAMS *p, CUcontext ctx, const CUDA_MEMSET_NODE_PARAMS *good)
{
    char add[40], any[40] = "-";
    int set, exec, general = -1, general_exec = -1;
    CUgraphNodeParams all;
    ADDED(add, cuGraphAddMemsetNode(&made, fresh, 0, 0, p, ctx));
    set = cuGraphMemsetNodeSetParams(t->node, p);
    exec = cuGraphExecMemsetNodeSetParams(t->exec, t->node, p, ctx);
    if (p) {
        general_of(&all, CU_GRAPH_NODE_TYPE_MEMSET, p, sizeof *p);
        all.memset.ctx = ctx;
        ADDED(any, cuGraphAddNode(&made, fresh, 0, 0, 0, &all));
        general = cuGraphNodeSetParams(t->node, &all);
        general_exec = cuGraphExecNodeSetParams(t->exec, t->node, &all);
    }
    FACT("%s: add %s set %d exec %d, general add %s set %d exec %d", what, add, set, exec, any, general, general_exec);
    cuGraphMemsetNodeSetParams(t->node, good);
    cuGraphExecMemsetNodeSetParams(t->exec, t->node, good, context);
}

CASE(memset_nodes)
{
    struct target t;
    CUdeviceptr to = memory();
    CUDA_MEMSET_NODE_PARAMS good, p;
    int *pinned;
    NEED(cuMemAllocHost((void **)&pinned, N * sizeof(int)));
    memset(&good, 0, sizeof good);
    good.dst = to;
    good.value = 5;
    good.elementSize = 4;
    good.width = N;
    good.height = 1;
    NEED(cuGraphCreate(&t.graph, 0));
    NEED(cuGraphAddMemsetNode(&t.node, t.graph, 0, 0, &good, context));
    NEED(cuGraphInstantiate(&t.exec, t.graph, 0));
#define TRY(what, ...) do { CUcontext ctx = context; p = good; __VA_ARGS__; try_set(what, &t, &p, ctx, &good); } while (0)
    try_set("NULL", &t, 0, context, &good);
    TRY("as it is", (void)0);
    TRY("no context", ctx = 0);
    TRY("elements of 0", p.elementSize = 0);
    TRY("elements of 3", p.elementSize = 3);
    TRY("elements of 8", p.elementSize = 8);
    TRY("elements of 1", p.elementSize = 1);
    TRY("elements of 2", p.elementSize = 2);
    TRY("a value too wide for 1", p.elementSize = 1, p.value = 300);
    TRY("a value too wide for 2", p.elementSize = 2, p.value = 70000);
    TRY("width 0", p.width = 0);
    TRY("height 0", p.height = 0);
    TRY("a word too many", p.width = N + 1);
    TRY("fewer words", p.width = N / 2);
    TRY("two rows", p.width = 8, p.height = 2, p.pitch = 64);
    TRY("two rows, a pitch too small", p.width = 8, p.height = 2, p.pitch = 16);
    TRY("two rows, no pitch", p.width = 8, p.height = 2);
    TRY("two rows, a pitch of no words", p.width = 8, p.height = 2, p.pitch = 33);
    TRY("a pitch of one row", p.pitch = 3);
    TRY("to NULL", p.dst = 0);
    TRY("to 16", p.dst = 16);
    TRY("not aligned", p.dst = to + 1, p.width = 2);
    TRY("not aligned, elements of 2", p.dst = to + 1, p.width = 2, p.elementSize = 2);
    TRY("to pinned memory", p.dst = (CUdeviceptr)pinned);
    TRY("to another place", p.dst = to + 16, p.width = 2);
#undef TRY
    R(cuGraphExecDestroy(t.exec));
    R(cuGraphDestroy(t.graph));
    R(cuMemFree(to));
    R(cuMemFreeHost(pinned));
}

/* --- operations on words ----------------------------------------------------------------------------------------------------------- */

static void try_batch(const char *what, struct target *t, const CUDA_BATCH_MEM_OP_NODE_PARAMS *p, const CUDA_BATCH_MEM_OP_NODE_PARAMS *good)
{
    char add[40], any[40] = "-";
    int set, exec, general = -1, general_exec = -1;
    CUgraphNodeParams all;
    ADDED(add, cuGraphAddBatchMemOpNode(&made, fresh, 0, 0, p));
    set = cuGraphBatchMemOpNodeSetParams(t->node, p);
    exec = cuGraphExecBatchMemOpNodeSetParams(t->exec, t->node, p);
    if (p) {
        general_of(&all, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, p, sizeof *p);
        ADDED(any, cuGraphAddNode(&made, fresh, 0, 0, 0, &all));
        general = cuGraphNodeSetParams(t->node, &all);
        general_exec = cuGraphExecNodeSetParams(t->exec, t->node, &all);
    }
    FACT("%s: add %s set %d exec %d, general add %s set %d exec %d", what, add, set, exec, any, general, general_exec);
    cuGraphBatchMemOpNodeSetParams(t->node, good);
    cuGraphExecBatchMemOpNodeSetParams(t->exec, t->node, good);
}

CASE(batch_nodes)
{
    struct target t;
    CUdeviceptr to = memory();
    CUstreamBatchMemOpParams first[2], op[2], many[300];
    CUDA_BATCH_MEM_OP_NODE_PARAMS good, p;
    memset(first, 0, sizeof first);
    first[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    first[0].writeValue.address = to;
    first[0].writeValue.value = 21;
    first[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    first[1].waitValue.address = to;
    first[1].waitValue.value = 21;
    first[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    memset(&good, 0, sizeof good);
    good.ctx = context;
    good.count = 2;
    good.paramArray = first;
    for (int i = 0; i < 300; i++)
        many[i] = first[0];
    NEED(cuGraphCreate(&t.graph, 0));
    NEED(cuGraphAddBatchMemOpNode(&t.node, t.graph, 0, 0, &good));
    NEED(cuGraphInstantiate(&t.exec, t.graph, 0));
#define TRY(what, ...) do { p = good; memcpy(op, first, sizeof op); p.paramArray = op; __VA_ARGS__; try_batch(what, &t, &p, &good); } while (0)
    try_batch("NULL", &t, 0, &good);
    TRY("as it is", (void)0);
    TRY("no context", p.ctx = 0);
    TRY("none", p.count = 0);
    TRY("none, no array", p.count = 0, p.paramArray = 0);
    TRY("no array", p.paramArray = 0);
    TRY("one", p.count = 1);
    TRY("256", p.count = 256, p.paramArray = many);
    TRY("257", p.count = 257, p.paramArray = many);
    TRY("300", p.count = 300, p.paramArray = many);
    TRY("flags", p.flags = 1);
    TRY("address 0", op[0].writeValue.address = 0);
    TRY("address 16", op[0].writeValue.address = 16);
    TRY("waits at 16", op[1].waitValue.address = 16);
    TRY("address not aligned", op[0].writeValue.address = to + 2);
    TRY("waits, not aligned", op[1].waitValue.address = to + 2);
    TRY("another address", op[0].writeValue.address = to + 4, op[1].waitValue.address = to + 4);
    TRY("64 bits", op[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64);
    TRY("64 bits, not aligned", op[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64, op[0].writeValue.address = to + 4);
    TRY("operation 0", op[0].operation = (CUstreamBatchMemOpType)0);
    TRY("operation 99", op[0].operation = (CUstreamBatchMemOpType)99);
    TRY("flush", op[0].operation = CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES);
    TRY("barrier", op[0].operation = CU_STREAM_MEM_OP_BARRIER, op[0].memoryBarrier.flags = 0);
    TRY("barrier of the GPU", op[0].operation = CU_STREAM_MEM_OP_BARRIER, op[0].memoryBarrier.flags = CU_STREAM_MEMORY_BARRIER_TYPE_GPU);
    TRY("barrier of 9", op[0].operation = CU_STREAM_MEM_OP_BARRIER, op[0].memoryBarrier.flags = 9);
    TRY("write without a barrier", op[0].writeValue.flags = CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER);
    TRY("write with flags 8", op[0].writeValue.flags = 8);
    TRY("wait with flags 8", op[1].waitValue.flags = 8);
    TRY("wait and flush", op[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ | CU_STREAM_WAIT_VALUE_FLUSH);
    TRY("wait for none of the bits", op[1].waitValue.flags = CU_STREAM_WAIT_VALUE_NOR);
#undef TRY
    R(cuGraphExecDestroy(t.exec));
    R(cuGraphDestroy(t.graph));
    R(cuMemFree(to));
}

/* A write outside of any memory: who says so, and what is left of the context. */
LONELY(batch_node_outside_of_memory)
{
    CUgraph g;
    CUgraphNode a;
    CUgraphExec exec;
    CUdeviceptr to = memory();
    CUstreamBatchMemOpParams op;
    CUDA_BATCH_MEM_OP_NODE_PARAMS p;
    memset(&op, 0, sizeof op);
    op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = 16;
    memset(&p, 0, sizeof p);
    p.ctx = context;
    p.count = 1;
    p.paramArray = &op;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddBatchMemOpNode(&a, g, 0, 0, &p));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
    R(cuMemFree(to));
}

LONELY(batch_node_of_freed_memory)
{
    CUgraph g;
    CUgraphNode a;
    CUgraphExec exec;
    CUdeviceptr to = 0;
    CUstreamBatchMemOpParams op;
    CUDA_BATCH_MEM_OP_NODE_PARAMS p;
    NEED(cuMemAlloc(&to, 64 << 20));
    memset(&op, 0, sizeof op);
    op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = to;
    memset(&p, 0, sizeof p);
    p.ctx = context;
    p.count = 1;
    p.paramArray = &op;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddBatchMemOpNode(&a, g, 0, 0, &p));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuMemFree(to));
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
}

/* --- events, children, host functions, memory, conditions -------------------------------------------------------------------------- */

CASE(event_nodes)
{
    struct target t;
    CUgraphNode wait, empty, made;
    CUevent event;
    CUgraphNodeParams p;
    NEED(cuEventCreate(&event, 0));
    NEED(cuGraphCreate(&t.graph, 0));
    NEED(cuGraphAddEventRecordNode(&t.node, t.graph, 0, 0, event));
    NEED(cuGraphAddEventWaitNode(&wait, t.graph, &t.node, 1, event));
    NEED(cuGraphAddEmptyNode(&empty, t.graph, 0, 0));
    NEED(cuGraphInstantiate(&t.exec, t.graph, 0));
    R(cuGraphAddEventRecordNode(&made, t.graph, 0, 0, 0));
    R(cuGraphAddEventWaitNode(&made, t.graph, 0, 0, 0));
    R(cuGraphAddEventRecordNode(0, t.graph, 0, 0, event));
    R(cuGraphAddEventWaitNode(0, t.graph, 0, 0, event));
    R(cuGraphAddEventRecordNode(&made, 0, 0, 0, event));
    R(cuGraphAddEventRecordNode(&made, 0, 0, 0, 0));
    R(cuGraphEventRecordNodeSetEvent(t.node, 0));
    R(cuGraphEventWaitNodeSetEvent(wait, 0));
    R(cuGraphEventRecordNodeSetEvent(wait, event));
    R(cuGraphEventWaitNodeSetEvent(t.node, event));
    R(cuGraphEventRecordNodeSetEvent(empty, 0));
    R(cuGraphEventRecordNodeSetEvent(0, event));
    R(cuGraphEventRecordNodeSetEvent(0, 0));
    R(cuGraphExecEventRecordNodeSetEvent(t.exec, t.node, 0));
    R(cuGraphExecEventWaitNodeSetEvent(t.exec, wait, 0));
    R(cuGraphExecEventRecordNodeSetEvent(t.exec, wait, event));
    R(cuGraphExecEventWaitNodeSetEvent(t.exec, t.node, event));
    R(cuGraphExecEventRecordNodeSetEvent(0, t.node, event));
    R(cuGraphExecEventRecordNodeSetEvent(t.exec, 0, event));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &p));
    R(cuGraphNodeSetParams(t.node, &p));
    R(cuGraphExecNodeSetParams(t.exec, t.node, &p));
    p.type = CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &p));
    R(cuGraphNodeSetParams(wait, &p));
    R(cuGraphExecNodeSetParams(t.exec, wait, &p));
    p.eventWait.event = event;
    R(cuGraphNodeSetParams(t.node, &p));
    R(cuGraphExecNodeSetParams(t.exec, t.node, &p));
    p.reserved0[1] = 1;
    R(cuGraphNodeSetParams(wait, &p));
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &p));
    p.reserved0[1] = 0;
    p.reserved2 = 1;
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &p));
    p.reserved2 = 0;
    ((char *)&p)[100] = 1;
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &p));
    R(cuGraphExecDestroy(t.exec));
    R(cuGraphDestroy(t.graph));
    R(cuEventDestroy(event));
}

static CUDA_MEM_ALLOC_NODE_PARAMS allocating(size_t bytes)
{
    CUDA_MEM_ALLOC_NODE_PARAMS p;
    memset(&p, 0, sizeof p);
    p.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.bytesize = bytes;
    return p;
}

static void try_alloc(const char *what, CUDA_MEM_ALLOC_NODE_PARAMS p)
{
    char add[40], any[40];
    CUgraphNodeParams all;
    general_of(&all, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &p, sizeof p);
    p.dptr = 7;
    ADDED(add, cuGraphAddMemAllocNode(&made, fresh, 0, 0, &p));
    ADDED(any, cuGraphAddNode(&made, fresh, 0, 0, 0, &all));
    FACT("%s: add %s, general add %s, address %s", what, add, any, p.dptr == 7 ? "untouched" : p.dptr ? "given" : "0");
}

CASE(allocation_nodes)
{
    CUDA_MEM_ALLOC_NODE_PARAMS p;
    CUmemAccessDesc access[2] = {{{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE}};
    CUgraphNode made;
    CUgraph g;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddMemAllocNode(&made, g, 0, 0, 0));
    access[1] = access[0];
#define TRY(what, ...) do { p = allocating(4096); __VA_ARGS__; try_alloc(what, p); } while (0)
    TRY("as it is", (void)0);
    TRY("nothing", p.bytesize = 0);
    TRY("2^50 bytes", p.bytesize = (size_t)1 << 50);
    TRY("type 0", p.poolProps.allocType = (CUmemAllocationType)0);
    TRY("type 2", p.poolProps.allocType = (CUmemAllocationType)2);
    TRY("type 9", p.poolProps.allocType = (CUmemAllocationType)9);
    TRY("handles", p.poolProps.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    TRY("no place", p.poolProps.location.type = (CUmemLocationType)0);
    TRY("on the host", p.poolProps.location.type = CU_MEM_LOCATION_TYPE_HOST);
    TRY("on device 99", p.poolProps.location.id = 99);
    TRY("on device -1", p.poolProps.location.id = -1);
    TRY("at most 4096", p.poolProps.maxSize = 4096);
    TRY("usage 1", p.poolProps.usage = 1);
    TRY("reserved", p.poolProps.reserved[3] = 1);
    TRY("an access", p.accessDescs = access, p.accessDescCount = 1);
    TRY("two accesses", p.accessDescs = access, p.accessDescCount = 2);
    TRY("accesses, none of them", p.accessDescs = access);
    access[0].flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    TRY("no access", p.accessDescs = access, p.accessDescCount = 1);
    access[0].flags = CU_MEM_ACCESS_FLAGS_PROT_READ;
    TRY("read only", p.accessDescs = access, p.accessDescCount = 1);
    access[0].flags = (CUmemAccess_flags)9;
    TRY("access 9", p.accessDescs = access, p.accessDescCount = 1);
    access[0].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    access[0].location.id = 99;
    TRY("access of device 99", p.accessDescs = access, p.accessDescCount = 1);
    access[0].location.id = 0;
    access[0].location.type = CU_MEM_LOCATION_TYPE_HOST;
    TRY("access of the host", p.accessDescs = access, p.accessDescCount = 1);
#undef TRY
    R(cuGraphDestroy(g));
}

CASE(allocations_in_a_graph)
{
    CUgraph g, other, clone = 0, outer;
    CUgraphNode a, b, c, f, made;
    CUgraphExec exec = 0, second = 0;
    CUdeviceptr to = memory();
    CUDA_MEM_ALLOC_NODE_PARAMS p = allocating(4096), q = allocating(8192);
    CUgraphNodeParams all;
    general_of(&all, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &q, sizeof q);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphCreate(&outer, 0));
    NEED(cuGraphAddMemAllocNode(&a, g, 0, 0, &p));
    NEED(cuGraphAddMemAllocNode(&b, g, 0, 0, &q));
    R(cuGraphAddMemFreeNode(&made, g, &a, 1, 0));
    R(cuGraphAddMemFreeNode(&made, g, &a, 1, 16));
    R(cuGraphAddMemFreeNode(&made, g, &a, 1, to));
    R(cuGraphAddMemFreeNode(&made, g, &a, 1, p.dptr + 256));
    R(cuGraphAddMemFreeNode(&made, g, 0, 0, p.dptr));
    R(cuGraphAddMemFreeNode(&f, g, &a, 1, p.dptr));
    R(cuGraphDestroyNode(made));
    R(cuGraphAddMemFreeNode(&made, g, &b, 1, p.dptr));
    R(cuGraphAddMemFreeNode(&made, other, 0, 0, p.dptr));
    NEED(cuGraphAddMemFreeNode(&f, g, &a, 1, p.dptr));
    R(cuGraphAddMemFreeNode(&made, g, &a, 1, p.dptr));
    R(cuGraphAddMemFreeNode(&made, g, &f, 1, p.dptr));
    R(cuGraphAddEmptyNode(&c, g, &f, 1));
    R(cuGraphRemoveDependencies(g, &a, &f, 0, 1));
    R(cuGraphAddDependencies(g, &b, &c, 0, 1));
    R(cuGraphClone(&clone, g));
    R(cuGraphAddChildGraphNode(&made, outer, 0, 0, g));
    R(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphInstantiate(&second, g, 0));
    R(cuGraphAddEmptyNode(&c, g, &b, 1));
    R(cuGraphAddMemAllocNode(&made, g, 0, 0, &p));
    R(cuGraphNodeSetParams(b, &all));
    R(cuGraphExecNodeSetParams(exec, b, &all));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuGraphDestroy(other));
    R(cuGraphDestroy(outer));
    R(cuMemFree(to));
}

static void host_function(void *data) { (void)data; }

CASE(host_nodes)
{
    struct target t;
    CUgraphNode made;
    CUDA_HOST_NODE_PARAMS p = {host_function, 0}, q;
    CUgraphNodeParams all;
    NEED(cuGraphCreate(&t.graph, 0));
    NEED(cuGraphAddHostNode(&t.node, t.graph, 0, 0, &p));
    NEED(cuGraphInstantiate(&t.exec, t.graph, 0));
    R(cuGraphAddHostNode(&made, t.graph, 0, 0, 0));
    R(cuGraphAddHostNode(0, t.graph, 0, 0, &p));
    R(cuGraphAddHostNode(&made, 0, 0, 0, &p));
    R(cuGraphHostNodeGetParams(t.node, 0));
    R(cuGraphHostNodeGetParams(0, &q));
    R(cuGraphHostNodeSetParams(t.node, 0));
    R(cuGraphHostNodeSetParams(0, &p));
    R(cuGraphExecHostNodeSetParams(t.exec, t.node, 0));
    R(cuGraphExecHostNodeSetParams(t.exec, 0, &p));
    R(cuGraphExecHostNodeSetParams(0, t.node, &p));
    q.fn = 0;
    q.userData = 0;
    R(cuGraphAddHostNode(&made, t.graph, 0, 0, &q));
    R(cuGraphHostNodeSetParams(t.node, &q));
    R(cuGraphExecHostNodeSetParams(t.exec, t.node, &q));
    memset(&all, 0, sizeof all);
    all.type = CU_GRAPH_NODE_TYPE_HOST;
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &all));
    all.host.fn = host_function;
    R(cuGraphAddNode(&made, t.graph, 0, 0, 0, &all));
    R(cuGraphNodeSetParams(t.node, &all));
    R(cuGraphExecNodeSetParams(t.exec, t.node, &all));
    R(cuGraphExecDestroy(t.exec));
    R(cuGraphDestroy(t.graph));
}
