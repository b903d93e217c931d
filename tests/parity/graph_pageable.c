/* Copies of graphs from and to ordinary memory, which is read or written whenever their node runs. */
#include "parity.h"

#define N 64
#define BYTES (N * sizeof(int))

static CUdeviceptr words(int value)
{
    CUdeviceptr at = 0;
    if (cuMemAlloc(&at, BYTES) || cuMemsetD32(at, (unsigned)value, N) || cuCtxSynchronize())
        FACT("no memory");
    return at;
}

static void show(const char *what, CUdeviceptr at)
{
    int word[N] = {0};
    CUresult result = cuMemcpyDtoH(word, at, sizeof word);
    FACT("%s: %d first %d last %d sum %016llx", what, result, word[0], word[N - 1],
        (unsigned long long)parity_sum(word, sizeof word));
}

static void fill(int *to, int first)
{
    for (int i = 0; i < N; i++)
        to[i] = first + i;
}

static CUDA_MEMCPY3D copying(CUmemorytype to_type, void *to, CUmemorytype from_type, const void *from, size_t bytes)
{
    CUDA_MEMCPY3D c;
    memset(&c, 0, sizeof c);
    c.srcMemoryType = from_type;
    c.dstMemoryType = to_type;
    if (from_type == CU_MEMORYTYPE_HOST)
        c.srcHost = from;
    else
        c.srcDevice = (CUdeviceptr)from;
    if (to_type == CU_MEMORYTYPE_HOST)
        c.dstHost = to;
    else
        c.dstDevice = (CUdeviceptr)to;
    c.srcPitch = c.dstPitch = c.WidthInBytes = bytes;
    c.srcHeight = c.dstHeight = c.Height = c.Depth = 1;
    return c;
}

static CUDA_MEMCPY3D up(CUdeviceptr to, const void *from)
{
    return copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_HOST, from, BYTES);
}

static CUDA_MEMCPY3D down(void *to, CUdeviceptr from)
{
    return copying(CU_MEMORYTYPE_HOST, to, CU_MEMORYTYPE_DEVICE, (void *)from, BYTES);
}

static void launch(CUgraphExec exec)
{
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
}

static void show_nodes(CUgraph g)
{
    CUgraphNode list[8];
    size_t n = 8, edges = 0, roots = 0;
    CUgraphNodeType type;
    R(cuGraphGetNodes(g, list, &n));
    R(cuGraphGetEdges(g, 0, 0, 0, &edges));
    R(cuGraphGetRootNodes(g, 0, &roots));
    FACT("%zu nodes, %zu edges, %zu roots", n, edges, roots);
    for (size_t i = 0; i < n; i++) {
        R(cuGraphNodeGetType(list[i], &type));
        FACT("type %d", type);
    }
}

CASE(up_and_down)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0;
    CUgraphExec exec;
    int *from = calloc(N, sizeof(int)), *to = calloc(N, sizeof(int));
    CUdeviceptr data = words(0);
    CUDA_MEMCPY3D c = up(data, from), d = down(to, data);
    fill(from, 100);
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddMemcpyNode(0, g, 0, 0, &c, context));
    R(cuGraphAddMemcpyNode(&a, 0, 0, 0, &c, context));
    R(cuGraphAddMemcpyNode(&a, g, 0, 1, &c, context));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &d, context));
    show_nodes(g);
    NEED(cuGraphInstantiate(&exec, g, 0));
    FACT("not run: %d %d", to[0], to[N - 1]);
    launch(exec);
    FACT("once: %d %d", to[0], to[N - 1]);
    fill(from, 1000);
    memset(to, 0, BYTES);
    launch(exec);
    FACT("again: %d %d", to[0], to[N - 1]);
    show("device", data);
    R(cuGraphDestroy(g));
    fill(from, 5000);
    launch(exec);
    FACT("without its graph: %d %d", to[0], to[N - 1]);
    for (int i = 0; i < 50; i++) {
        from[0] = i;
        if (cuGraphLaunch(exec, 0) || cuCtxSynchronize() || to[0] != i)
            FACT("launch %d: %d", i, to[0]);
    }
    R(cuGraphExecDestroy(exec));
    R(cuMemFree(data));
    free(from);
    free(to);
}

CASE(params)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0;
    CUgraphExec exec;
    int *from = calloc(N, sizeof(int)), *other = calloc(N, sizeof(int)), *to = calloc(N, sizeof(int));
    CUdeviceptr data = words(0);
    CUDA_MEMCPY3D c = up(data, from), d = down(to, data), q;
    CUgraph inside = 0;
    fill(from, 1);
    fill(other, 200);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &d, context));
    memset(&q, 0, sizeof q);
    R(cuGraphMemcpyNodeGetParams(a, &q));
    SAME(q.srcHost, (const void *)from);
    SAME(q.dstDevice, data);
    FACT("%d to %d: %zu %zu %zu", q.srcMemoryType, q.dstMemoryType, q.WidthInBytes, q.Height, q.Depth);
    memset(&q, 0, sizeof q);
    R(cuGraphMemcpyNodeGetParams(b, &q));
    SAME(q.dstHost, (void *)to);
    SAME(q.srcDevice, data);
    FACT("%d to %d: %zu %zu %zu", q.srcMemoryType, q.dstMemoryType, q.WidthInBytes, q.Height, q.Depth);
    R(cuGraphMemcpyNodeGetParams(a, 0));
    R(cuGraphChildGraphNodeGetGraph(a, &inside));
    R(cuGraphMemsetNodeGetParams(a, (CUDA_MEMSET_NODE_PARAMS *)&q));
    R(cuGraphHostNodeGetParams(a, (CUDA_HOST_NODE_PARAMS *)&q));
    NEED(cuGraphInstantiate(&exec, g, 0));
    /* In the graph: the executable one stays as it is. */
    c = up(data, other);
    R(cuGraphMemcpyNodeSetParams(a, &c));
    R(cuGraphMemcpyNodeSetParams(a, 0));
    R(cuGraphMemcpyNodeGetParams(a, &q));
    SAME(q.srcHost, (const void *)other);
    launch(exec);
    FACT("as it was: %d %d", to[0], to[N - 1]);
    R(cuGraphExecDestroy(exec));
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    FACT("as it is: %d %d", to[0], to[N - 1]);
    /* In the executable graph. */
    c = up(data, from);
    R(cuGraphExecMemcpyNodeSetParams(exec, a, &c, context));
    launch(exec);
    FACT("back: %d %d", to[0], to[N - 1]);
    R(cuGraphExecMemcpyNodeSetParams(exec, a, 0, context));
    d = down(other, data);
    R(cuGraphExecMemcpyNodeSetParams(exec, b, &d, context));
    fill(from, 3000);
    launch(exec);
    FACT("to the other: %d %d, %d", other[0], other[N - 1], to[0]);
    R(cuGraphMemcpyNodeGetParams(b, &q));
    SAME(q.dstHost, (void *)to);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    free(from);
    free(other);
    free(to);
}

CASE(from_pageable_to_pinned)
{
    CUgraph g;
    CUgraphNode a = 0;
    CUgraphExec exec;
    int *from = calloc(N, sizeof(int)), *pinned = 0;
    CUdeviceptr data = words(0);
    CUDA_MEMCPY3D c = up(data, from), q;
    NEED(cuMemAllocHost((void **)&pinned, BYTES));
    fill(from, 1);
    fill(pinned, 500);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    c = up(data, pinned);
    R(cuGraphMemcpyNodeSetParams(a, &c));
    R(cuGraphMemcpyNodeGetParams(a, &q));
    SAME(q.srcHost, (const void *)pinned);
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    show("pinned", data);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFreeHost(pinned));
    R(cuMemFree(data));
    free(from);
}

CASE(shapes)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0;
    CUgraphExec exec;
    unsigned char *from = calloc(4096, 1), *to = calloc(4096, 1);
    CUdeviceptr data = 0;
    CUDA_MEMCPY3D c, q;
    NEED(cuMemAlloc(&data, 4096));
    R(cuMemsetD8(data, 0, 4096));
    for (int i = 0; i < 4096; i++)
        from[i] = (unsigned char)(i * 7 + i / 256);
    /* Rows of 32 bytes, 8 in a slice, on the host; of 64 and 4 on the device. A box of 12 x 3 x 2. */
    memset(&c, 0, sizeof c);
    c.srcMemoryType = CU_MEMORYTYPE_HOST;
    c.srcHost = from;
    c.srcXInBytes = 4, c.srcY = 2, c.srcZ = 1;
    c.srcPitch = 32, c.srcHeight = 8;
    c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    c.dstDevice = data;
    c.dstXInBytes = 8, c.dstY = 1, c.dstZ = 2;
    c.dstPitch = 64, c.dstHeight = 4;
    c.WidthInBytes = 12, c.Height = 3, c.Depth = 2;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    memset(&q, 0, sizeof q);
    R(cuGraphMemcpyNodeGetParams(a, &q));
    SAME(q.srcHost, (const void *)from);
    FACT("%zu %zu %zu of %zu %zu", q.srcXInBytes, q.srcY, q.srcZ, q.srcPitch, q.srcHeight);
    FACT("%zu %zu %zu of %zu %zu", q.dstXInBytes, q.dstY, q.dstZ, q.dstPitch, q.dstHeight);
    FACT("%zu %zu %zu", q.WidthInBytes, q.Height, q.Depth);
    /* A rectangle, with its pitch only. */
    memset(&c, 0, sizeof c);
    c.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    c.srcDevice = data;
    c.srcPitch = 64;
    c.dstMemoryType = CU_MEMORYTYPE_HOST;
    c.dstHost = to;
    c.dstPitch = 100;
    c.WidthInBytes = 40, c.Height = 16, c.Depth = 1;
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &c, context));
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    FACT("sum %016llx", (unsigned long long)parity_sum(to, 4096));
    for (int i = 0; i < 4096; i++)
        from[i] ^= 0x55;
    launch(exec);
    FACT("sum %016llx", (unsigned long long)parity_sum(to, 4096));
    R(cuGraphExecDestroy(exec));
    c.dstPitch = 39;
    R(cuGraphAddMemcpyNode(&b, g, &a, 1, &c, context));
    c.dstPitch = 100;
    c.dstHost = 0;
    R(cuGraphAddMemcpyNode(&b, g, &a, 1, &c, context));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    free(from);
    free(to);
}

CASE(large)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0;
    CUgraphExec exec;
    size_t bytes = 24 << 20;
    unsigned char *from = malloc(bytes), *to = calloc(bytes, 1);
    CUdeviceptr data = 0;
    NEED(cuMemAlloc(&data, bytes));
    for (size_t i = 0; i < bytes; i++)
        from[i] = (unsigned char)(i * 31 + i / 4096);
    CUDA_MEMCPY3D c = copying(CU_MEMORYTYPE_DEVICE, (void *)data, CU_MEMORYTYPE_HOST, from, bytes);
    CUDA_MEMCPY3D d = copying(CU_MEMORYTYPE_HOST, to, CU_MEMORYTYPE_DEVICE, (void *)data, bytes);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &d, context));
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    FACT("%s", memcmp(from, to, bytes) ? "other bytes" : "the same bytes");
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    free(from);
    free(to);
}

CASE(unified_and_within)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0, c = 0;
    CUgraphExec exec;
    int *from = calloc(N, sizeof(int)), *to = calloc(N, sizeof(int)), *last = calloc(N, sizeof(int));
    CUdeviceptr data = words(0);
    fill(from, 40);
    CUDA_MEMCPY3D p = copying(CU_MEMORYTYPE_UNIFIED, (void *)data, CU_MEMORYTYPE_UNIFIED, from, BYTES), q;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &p, context));
    memset(&q, 0, sizeof q);
    R(cuGraphMemcpyNodeGetParams(a, &q));
    FACT("%d to %d", q.srcMemoryType, q.dstMemoryType);
    p = copying(CU_MEMORYTYPE_UNIFIED, to, CU_MEMORYTYPE_UNIFIED, (void *)data, BYTES);
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &p, context));
    p = copying(CU_MEMORYTYPE_HOST, last, CU_MEMORYTYPE_HOST, to, BYTES);
    NEED(cuGraphAddMemcpyNode(&c, g, &b, 1, &p, context));
    show_nodes(g);
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    FACT("%d %d and %d %d", to[0], to[N - 1], last[0], last[N - 1]);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    free(from);
    free(to);
    free(last);
}

CASE(clones_and_children)
{
    CUgraph g, clone = 0, parent = 0, child = 0;
    CUgraphNode a = 0, b = 0, node = 0, found = 0;
    CUgraphNodeType type;
    CUgraphExec exec;
    int *from = calloc(N, sizeof(int)), *to = calloc(N, sizeof(int));
    CUdeviceptr data = words(0);
    CUDA_MEMCPY3D c = up(data, from), d = down(to, data), q;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &d, context));
    NEED(cuGraphClone(&clone, g));
    show_nodes(clone);
    R(cuGraphNodeFindInClone(&found, a, clone));
    R(cuGraphNodeGetType(found, &type));
    FACT("type %d", type);
    memset(&q, 0, sizeof q);
    R(cuGraphMemcpyNodeGetParams(found, &q));
    SAME(q.srcHost, (const void *)from);
    NEED(cuGraphCreate(&parent, 0));
    NEED(cuGraphAddChildGraphNode(&node, parent, 0, 0, g));
    R(cuGraphNodeGetType(node, &type));
    FACT("type %d", type);
    R(cuGraphChildGraphNodeGetGraph(node, &child));
    show_nodes(child);
    R(cuGraphDestroy(g));
    fill(from, 10);
    NEED(cuGraphInstantiate(&exec, clone, 0));
    launch(exec);
    FACT("the clone: %d %d", to[0], to[N - 1]);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(clone));
    fill(from, 20);
    NEED(cuGraphInstantiate(&exec, parent, 0));
    R(cuGraphDestroy(parent));
    launch(exec);
    FACT("the child: %d %d", to[0], to[N - 1]);
    R(cuGraphExecDestroy(exec));
    R(cuMemFree(data));
    free(from);
    free(to);
}

CASE(updates)
{
    CUgraph g, other = 0;
    CUgraphNode a = 0, b = 0;
    CUgraphExec exec;
    CUgraphExecUpdateResultInfo info;
    int *from = calloc(N, sizeof(int)), *to = calloc(N, sizeof(int)), *last = calloc(N, sizeof(int));
    CUdeviceptr data = words(0);
    CUDA_MEMCPY3D c = up(data, from), d = down(to, data);
    fill(from, 1);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &d, context));
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    d = down(last, data);
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphAddMemcpyNode(&a, other, 0, 0, &c, context));
    NEED(cuGraphAddMemcpyNode(&b, other, &a, 1, &d, context));
    memset(&info, 0, sizeof info);
    R(cuGraphExecUpdate(exec, other, &info));
    FACT("result %d", info.result);
    R(cuGraphDestroy(other));
    R(cuGraphDestroy(g));
    fill(from, 70);
    launch(exec);
    FACT("%d %d and %d %d", to[0], to[N - 1], last[0], last[N - 1]);
    R(cuGraphExecDestroy(exec));
    R(cuMemFree(data));
    free(from);
    free(to);
    free(last);
}

CASE(destroyed_nodes)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0;
    CUgraphNodeType type;
    CUgraphExec exec;
    int *from = calloc(N, sizeof(int));
    CUdeviceptr data = words(3);
    CUDA_MEMCPY3D c = up(data, from);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    NEED(cuGraphAddEmptyNode(&b, g, &a, 1));
    R(cuGraphDestroyNode(a));
    R(cuGraphNodeGetType(b, &type));
    show_nodes(g);
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    show("untouched", data);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    free(from);
}

CASE(cuGraphAddNode_copying)
{
    CUgraph g;
    CUgraphNode a = 0;
    CUgraphExec exec;
    CUgraphNodeParams p;
    int *from = calloc(N, sizeof(int)), *other = calloc(N, sizeof(int));
    CUdeviceptr data = words(0);
    fill(from, 9);
    fill(other, 90);
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEMCPY;
    p.memcpy.copyCtx = context;
    p.memcpy.copyParams = up(data, from);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddNode(&a, g, 0, 0, 0, &p));
    show_nodes(g);
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    show("added", data);
    p.memcpy.copyParams = up(data, other);
    R(cuGraphExecNodeSetParams(exec, a, &p));
    launch(exec);
    show("changed", data);
    R(cuGraphNodeSetParams(a, &p));
    R(cuGraphExecDestroy(exec));
    fill(other, 900);
    NEED(cuGraphInstantiate(&exec, g, 0));
    launch(exec);
    show("changed in the graph", data);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    free(from);
    free(other);
}

static void captured_in(CUstreamCaptureMode mode)
{
    CUstream s;
    CUgraph g = 0;
    CUgraphExec exec;
    CUgraphNode list[8];
    CUgraphNodeType type;
    size_t n = 8, edges = 0;
    CUDA_MEMCPY3D q;
    int *from = calloc(N, sizeof(int)), *to = calloc(N, sizeof(int)), *last = calloc(N, sizeof(int));
    CUdeviceptr data = words(0), other = words(0);
    fill(from, 11);
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamBeginCapture(s, mode));
    R(cuMemcpyHtoDAsync(data, from, BYTES, s));
    R(cuMemcpyDtoDAsync(other, data, BYTES, s));
    R(cuMemcpyDtoHAsync(to, other, BYTES, s));
    R(cuMemcpyAsync((CUdeviceptr)last, other, BYTES, s));
    NEED(cuStreamEndCapture(s, &g));
    R(cuGraphGetNodes(g, list, &n));
    R(cuGraphGetEdges(g, 0, 0, 0, &edges));
    FACT("%zu nodes, %zu edges", n, edges);
    for (size_t i = 0; i < n; i++) {
        R(cuGraphNodeGetType(list[i], &type));
        memset(&q, 0, sizeof q);
        R(cuGraphMemcpyNodeGetParams(list[i], &q));
        FACT("type %d: %zu %zu %zu", type, q.WidthInBytes, q.Height, q.Depth);
    }
    FACT("not run: %d", to[0]);
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphDestroy(g));
    for (int i = 0; i < 2; i++) {
        fill(from, 100 * i + 11);
        R(cuGraphLaunch(exec, s));
        R(cuStreamSynchronize(s));
        FACT("%d %d and %d %d", to[0], to[N - 1], last[0], last[N - 1]);
    }
    R(cuGraphExecDestroy(exec));
    R(cuStreamDestroy(s));
    R(cuMemFree(data));
    R(cuMemFree(other));
    free(from);
    free(to);
    free(last);
}

CASE(captured_thread_local) { captured_in(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL); }
CASE(captured_global) { captured_in(CU_STREAM_CAPTURE_MODE_GLOBAL); }
CASE(captured_relaxed) { captured_in(CU_STREAM_CAPTURE_MODE_RELAXED); }

CASE(captured_rectangles)
{
    CUstream s;
    CUgraph g = 0;
    CUgraphExec exec;
    size_t n = 0;
    unsigned char *from = calloc(4096, 1), *to = calloc(4096, 1);
    CUdeviceptr data = 0;
    CUDA_MEMCPY2D c;
    CUDA_MEMCPY3D d;
    NEED(cuMemAlloc(&data, 4096));
    R(cuMemsetD8(data, 0, 4096));
    R(cuCtxSynchronize());
    for (int i = 0; i < 4096; i++)
        from[i] = (unsigned char)(i * 5 + i / 128);
    memset(&c, 0, sizeof c);
    c.srcMemoryType = CU_MEMORYTYPE_HOST;
    c.srcHost = from;
    c.srcPitch = 64, c.srcXInBytes = 3, c.srcY = 1;
    c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    c.dstDevice = data;
    c.dstPitch = 128;
    c.WidthInBytes = 50, c.Height = 20;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(cuMemcpy2DAsync(&c, s));
    memset(&d, 0, sizeof d);
    d.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    d.srcDevice = data;
    d.srcPitch = 128, d.srcHeight = 4;
    d.dstMemoryType = CU_MEMORYTYPE_HOST;
    d.dstHost = to;
    d.dstPitch = 60, d.dstHeight = 5;
    d.WidthInBytes = 55, d.Height = 3, d.Depth = 4;
    R(cuMemcpy3DAsync(&d, s));
    NEED(cuStreamEndCapture(s, &g));
    R(cuGraphGetNodes(g, 0, &n));
    FACT("%zu nodes", n);
    NEED(cuGraphInstantiate(&exec, g, 0));
    for (int i = 0; i < 2; i++) {
        R(cuGraphLaunch(exec, s));
        R(cuStreamSynchronize(s));
        FACT("sum %016llx", (unsigned long long)parity_sum(to, 4096));
        for (int j = 0; j < 4096; j++)
            from[j] ^= 0x33;
    }
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuStreamDestroy(s));
    R(cuMemFree(data));
    free(from);
    free(to);
}

/* As programs do it that capture in each iteration. */
CASE(captured_again_and_again)
{
    CUstream s;
    CUgraphExec exec = 0;
    CUgraphExecUpdateResultInfo info;
    int *from = calloc(N, sizeof(int)), *to[2] = {calloc(N, sizeof(int)), calloc(N, sizeof(int))}, wrong = 0;
    CUdeviceptr data = words(0);
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < 40; i++) {
        CUgraph g = 0;
        if (cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) || cuMemcpyHtoDAsync(data, from, BYTES, s) ||
            cuMemcpyDtoHAsync(to[i % 2], data, BYTES, s) || cuStreamEndCapture(s, &g)) {
            FACT("no capture %d", i);
            return;
        }
        if (!exec)
            NEED(cuGraphInstantiate(&exec, g, 0));
        else if (cuGraphExecUpdate(exec, g, &info))
            FACT("no update %d: %d", i, info.result);
        cuGraphDestroy(g);
        fill(from, i * 100);
        if (cuGraphLaunch(exec, s) || cuStreamSynchronize(s) || to[i % 2][N - 1] != i * 100 + N - 1)
            wrong++;
    }
    FACT("%d wrong", wrong);
    R(cuGraphExecDestroy(exec));
    R(cuStreamDestroy(s));
    R(cuMemFree(data));
    free(from);
    free(to[0]);
    free(to[1]);
}
