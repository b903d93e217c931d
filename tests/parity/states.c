/*
 * Graphs as a whole, with wrong arguments and in the wrong state: clones, updates, instantiation, capture.
 */
#include "graphs.h"

/* --- clones, updates, instantiation -------------------------------------------------------------------------------------------------- */

CASE(clones)
{
    CUgraph g, clone, second, other;
    CUgraphNode a, b, x, late, found = 0;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, &a, 1));
    NEED(cuGraphAddEmptyNode(&x, other, 0, 0));
    NEED(cuGraphClone(&clone, g));
    NEED(cuGraphClone(&second, clone));
    NEED(cuGraphAddEmptyNode(&late, g, 0, 0));
#define FOUND(call) do { found = (CUgraphNode)7; R(call); FACT("%s", found == (CUgraphNode)7 ? "untouched" : found == a ? "the first" : found ? "a node" : "NULL"); } while (0)
    FOUND(cuGraphNodeFindInClone(&found, a, clone));
    CUgraphNode in_clone = found;
    FOUND(cuGraphNodeFindInClone(&found, in_clone, second));
    FOUND(cuGraphNodeFindInClone(&found, a, second));
    FOUND(cuGraphNodeFindInClone(&found, in_clone, g));
    FOUND(cuGraphNodeFindInClone(&found, in_clone, clone));
    FOUND(cuGraphNodeFindInClone(&found, a, g));
    FOUND(cuGraphNodeFindInClone(&found, a, other));
    FOUND(cuGraphNodeFindInClone(&found, x, clone));
    FOUND(cuGraphNodeFindInClone(&found, late, clone));
    FOUND(cuGraphNodeFindInClone(&found, 0, clone));
    FOUND(cuGraphNodeFindInClone(&found, a, 0));
    R(cuGraphNodeFindInClone(0, a, clone));
    R(cuGraphNodeFindInClone(0, 0, 0));
    R(cuGraphDestroyNode(in_clone));
    FOUND(cuGraphNodeFindInClone(&found, a, clone));
#undef FOUND
    clone = (CUgraph)7;
    R(cuGraphClone(&clone, 0));
    FACT("%s", clone == (CUgraph)7 ? "untouched" : clone ? "a graph" : "NULL");
    R(cuGraphClone(0, 0));
    R(cuGraphDestroy(second));
    R(cuGraphDestroy(other));
    R(cuGraphDestroy(g));
}

static void update_now(const char *what, CUgraphExec exec, CUgraph g)
{
    CUgraphExecUpdateResultInfo info;
    memset(&info, 0, sizeof info);
    info.result = (CUgraphExecUpdateResult)77;
    CUresult r = cuGraphExecUpdate(exec, g, &info);
    FACT("%s: %d, result %d, node %s, from %s", what, (int)r, (int)info.result, info.errorNode ? "named" : "NULL", info.errorFromNode ? "named" : "NULL");
}

CASE(updates)
{
    CUgraph g, h;
    CUgraphNode a, b, n[4];
    CUgraphExec exec, empty;
    CUgraphExecUpdateResultInfo info;
    struct add args;
    CUdeviceptr data = memory(), to = memory();
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data), q;
    CUDA_MEMSET_NODE_PARAMS s = setting(data, 1), t;
    CUDA_MEMCPY3D c = copying(to, data, 64), d;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemsetNode(&n[0], g, 0, 0, &s, context));
    NEED(cuGraphAddKernelNode(&n[1], g, &n[0], 1, &p));
    NEED(cuGraphAddMemcpyNode(&n[2], g, &n[1], 1, &c, context));
    NEED(cuGraphInstantiate(&exec, g, 0));
    NEED(cuGraphCreate(&h, 0));
    NEED(cuGraphInstantiate(&empty, h, 0));
    update_now("itself", exec, g);
    update_now("an empty one", exec, h);
    update_now("an empty one to more", empty, g);
    update_now("an empty one to an empty one", empty, h);
    R(cuGraphDestroy(h));
#define TRY(what, ...) do { \
        t = s, q = p, d = c; \
        NEED(cuGraphClone(&h, g)); \
        for (int i = 0; i < 3; i++) \
            NEED(cuGraphNodeFindInClone(&n[i], (CUgraphNode)originals[i], h)); \
        __VA_ARGS__; \
        update_now(what, exec, h); \
        cuGraphDestroy(h); \
    } while (0)
    CUgraphNode originals[3] = {n[0], n[1], n[2]};
    TRY("a clone", (void)0);
    TRY("another value", t.value = 9, R(cuGraphMemsetNodeSetParams(n[0], &t)));
    TRY("another width", t.width = 8, R(cuGraphMemsetNodeSetParams(n[0], &t)));
    TRY("two rows", t.width = 8, t.height = 2, t.pitch = 64, R(cuGraphMemsetNodeSetParams(n[0], &t)));
    TRY("another element", t.elementSize = 1, R(cuGraphMemsetNodeSetParams(n[0], &t)));
    TRY("another function", q.func = function("poke"), R(cuGraphKernelNodeSetParams(n[1], &q)));
    TRY("another block", q.blockDimX = 32, R(cuGraphKernelNodeSetParams(n[1], &q)));
    TRY("another length", d.WidthInBytes = 8, R(cuGraphMemcpyNodeSetParams(n[2], &d)));
    TRY("another direction", d.srcDevice = to, d.dstDevice = data, R(cuGraphMemcpyNodeSetParams(n[2], &d)));
    TRY("a node less", R(cuGraphDestroyNode(n[2])));
    TRY("a node more", R(cuGraphAddEmptyNode(&a, h, 0, 0)));
    TRY("an edge more", R(cuGraphAddDependencies(h, &n[0], &n[2], 0, 1)));
    TRY("an edge less", R(cuGraphRemoveDependencies(h, &n[1], &n[2], 0, 1)));
    TRY("another kind", R(cuGraphDestroyNode(n[2])), R(cuGraphAddEmptyNode(&a, h, &n[1], 1)));
    TRY("another order", R(cuGraphDestroyNode(n[1])), R(cuGraphAddKernelNode(&b, h, &n[2], 1, &p)), R(cuGraphAddDependencies(h, &n[0], &n[2], 0, 1)));
#undef TRY
    R(cuGraphExecUpdate(exec, g, 0));
    R(cuGraphExecUpdate(0, g, &info));
    R(cuGraphExecUpdate(exec, 0, &info));
    R(cuGraphExecDestroy(exec));
    R(cuGraphExecDestroy(empty));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
    R(cuMemFree(to));
}

CASE(updates_before_12)
{
    CUresult (*update)(CUgraphExec, CUgraph, CUgraphNode *, CUgraphExecUpdateResult *) = 0;
    CUresult (*first)(CUgraphExec *, CUgraph, CUgraphNode *, char *, size_t) = 0;
    CUdriverProcAddressQueryResult status;
    CUgraph empty, one, two, kernel;
    CUgraphNode a, bad;
    CUgraphExec exec[3];
    struct add args;
    CUdeviceptr data = memory();
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data);
    CUDA_MEMSET_NODE_PARAMS s = setting(data, 1), t = s;
    NEED(cuGetProcAddress("cuGraphExecUpdate", (void **)&update, 11000, 0, &status));
    NEED(cuGetProcAddress("cuGraphInstantiate", (void **)&first, 11000, 0, &status));
    NEED(cuGraphCreate(&empty, 0));
    NEED(cuGraphCreate(&one, 0));
    NEED(cuGraphCreate(&two, 0));
    NEED(cuGraphCreate(&kernel, 0));
    NEED(cuGraphAddMemsetNode(&a, one, 0, 0, &s, context));
    t.width = 8, t.height = 2, t.pitch = 64;
    NEED(cuGraphAddMemsetNode(&a, two, 0, 0, &t, context));
    NEED(cuGraphAddKernelNode(&a, kernel, 0, 0, &p));
    NEED(cuGraphInstantiate(&exec[0], one, 0));
    NEED(first(&exec[1], one, 0, 0, 0));
    NEED(cuGraphInstantiate(&exec[2], empty, 0));
    CUgraph graphs[] = {empty, one, two, kernel};
    for (int e = 0; e < 3; e++)
        for (int g = 0; g < 4; g++) {
            CUgraphExecUpdateResult result = (CUgraphExecUpdateResult)77;
            bad = (CUgraphNode)7;
            CUresult r = update(exec[e], graphs[g], &bad, &result);
            FACT("%d to %d: %d, result %d, node %s", e, g, (int)r, (int)result, bad == (CUgraphNode)7 ? "untouched" : bad ? "named" : "NULL");
            update_now("as now", exec[e], graphs[g]);
        }
    for (int e = 0; e < 3; e++)
        R(cuGraphExecDestroy(exec[e]));
    for (int g = 0; g < 4; g++)
        R(cuGraphDestroy(graphs[g]));
    R(cuMemFree(data));
}

static void instantiate(const char *what, CUgraph g, unsigned long long flags, CUstream stream)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS p;
    CUgraphExec exec = (CUgraphExec)7;
    cuuint64_t told = 99;
    memset(&p, 0, sizeof p);
    p.flags = flags;
    p.hUploadStream = stream;
    p.result_out = (CUgraphInstantiateResult)77;
    p.hErrNode_out = (CUgraphNode)7;
    CUresult r = cuGraphInstantiateWithParams(&exec, g, &p);
    int given = exec != (CUgraphExec)7;
    if (!r)
        cuGraphExecGetFlags(exec, &told);
    FACT("%s, flags %llx: %d, result %d, node %s, graph %s, flags told %llx", what, flags, (int)r, (int)p.result_out,
        p.hErrNode_out == (CUgraphNode)7 ? "untouched" : p.hErrNode_out ? "named" : "NULL", !given ? "untouched" : exec ? "given" : "NULL",
        (unsigned long long)told);
    if (!r)
        cuGraphExecDestroy(exec);
    exec = (CUgraphExec)7;
    r = cuGraphInstantiate(&exec, g, flags);
    FACT("%s, flags %llx, no structure: %d, graph %s", what, flags, (int)r, exec == (CUgraphExec)7 ? "untouched" : exec ? "given" : "NULL");
    if (!r)
        cuGraphExecDestroy(exec);
}

CASE(instantiation)
{
    CUresult (*first)(CUgraphExec *, CUgraph, CUgraphNode *, char *, size_t) = 0;
    CUdriverProcAddressQueryResult status;
    CUgraph g, kernel, circle, copy, unused;
    CUgraphNode a, b, node;
    CUgraphExec exec;
    CUstream s;
    CUgraphConditionalHandle handle;
    struct add args;
    CUdeviceptr data = memory(), to = memory();
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data);
    CUDA_MEMCPY3D c = copying(to, data, 64);
    NEED(cuStreamCreate(&s, 0));
    NEED(cuGetProcAddress("cuGraphInstantiate", (void **)&first, 10000, 0, &status));
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&kernel, 0));
    NEED(cuGraphAddKernelNode(&a, kernel, 0, 0, &p));
    NEED(cuGraphCreate(&copy, 0));
    NEED(cuGraphAddMemcpyNode(&a, copy, 0, 0, &c, context));
    NEED(cuGraphCreate(&circle, 0));
    NEED(cuGraphAddEmptyNode(&a, circle, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, circle, &a, 1));
    R(cuGraphAddDependencies(circle, &b, &a, 0, 1));
    NEED(cuGraphCreate(&unused, 0));
    NEED(cuGraphConditionalHandleCreate(&handle, unused, context, 1, 0));
    for (unsigned long long flags = 0; flags <= 16; flags++) {
        if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
            continue;
        instantiate("empty", g, flags, s);
        instantiate("kernel", kernel, flags, s);
    }
    instantiate("kernel", kernel, 1ull << 40, 0);
    instantiate("kernel, uploaded in the default stream", kernel, 2, 0);
    instantiate("copy", copy, 0, 0);
    instantiate("circle", circle, 0, 0);
    instantiate("unused condition", unused, 0, 0);
    CUgraph all[] = {g, kernel, circle, unused};
    for (int i = 0; i < 4; i++)
        for (size_t size = 0; size <= 64; size += 8) {
            char log[65];
            memset(log, 'x', sizeof log);
            log[64] = 0;
            node = (CUgraphNode)7;
            exec = (CUgraphExec)7;
            CUresult r = first(&exec, all[i], &node, log, size);
            for (int at = 0; at < 64; at++)
                log[at] = log[at] ? log[at] : '0';
            FACT("graph %d, a log of %zu: %d, node %s, graph %s, log %s", i, size, (int)r, node == (CUgraphNode)7 ? "untouched" : node ? "named" : "NULL",
                exec == (CUgraphExec)7 ? "untouched" : exec ? "given" : "NULL", log);
            if (!r)
                cuGraphExecDestroy(exec);
        }
    R(first(&exec, circle, 0, 0, 0));
    R(first(&exec, circle, 0, 0, 64));
    R(first(0, g, &node, 0, 0));
    R(first(&exec, 0, &node, 0, 0));
    R(cuGraphInstantiate(0, g, 0));
    R(cuGraphInstantiate(&exec, 0, 0));
    R(cuGraphLaunch(0, s));
    R(cuGraphUpload(0, s));
    R(cuGraphExecDestroy(0));
    R(cuGraphDestroy(g));
    R(cuGraphDestroy(kernel));
    R(cuGraphDestroy(circle));
    R(cuGraphDestroy(copy));
    R(cuGraphDestroy(unused));
    R(cuStreamDestroy(s));
    R(cuMemFree(data));
    R(cuMemFree(to));
}

/* --- capture ----------------------------------------------------------------------------------------------------------------------- */

static void info(const char *what, CUstream s)
{
    CUstreamCaptureStatus status = (CUstreamCaptureStatus)77;
    cuuint64_t id = 77;
    CUgraph g = (CUgraph)7;
    const CUgraphNode *deps = (void *)7;
    const CUgraphEdgeData *edges = (void *)7;
    size_t n = 77;
    CUresult r = cuStreamGetCaptureInfo(s, &status, &id, &g, &deps, &edges, &n);
    FACT("%s: %d, status %d, id %s, graph %s, dependencies %s, edges %s, %zu of them", what, (int)r, (int)status, id == 77 ? "untouched" : id ? "given" : "0",
        g == (CUgraph)7 ? "untouched" : g ? "given" : "NULL", deps == (void *)7 ? "untouched" : deps ? "given" : "NULL",
        edges == (void *)7 ? "untouched" : edges ? "given" : "NULL", n);
    status = (CUstreamCaptureStatus)77;
    n = 77;
    r = cuStreamGetCaptureInfo(s, &status, 0, 0, &deps, 0, &n);
    FACT("%s, no edges wanted: %d, status %d, %zu", what, (int)r, (int)status, n);
    r = cuStreamGetCaptureInfo(s, &status, 0, 0, 0, &edges, &n);
    FACT("%s, no dependencies wanted: %d", what, (int)r);
    r = cuStreamGetCaptureInfo(s, &status, 0, 0, &deps, &edges, 0);
    FACT("%s, no count wanted: %d", what, (int)r);
    r = cuStreamGetCaptureInfo(s, 0, &id, 0, 0, 0, 0);
    FACT("%s, no status wanted: %d", what, (int)r);
    status = (CUstreamCaptureStatus)77;
    r = cuStreamIsCapturing(s, &status);
    FACT("%s: %d, capturing %d", what, (int)r, (int)status);
}

CASE(capture_info)
{
    CUstream s, other;
    CUgraph g;
    CUevent event;
    CUgraphNode node;
    struct add args;
    CUdeviceptr data = memory();
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data);
    CUstreamCaptureMode mode = (CUstreamCaptureMode)9;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamCreate(&other, 0));
    NEED(cuEventCreate(&event, 0));
    info("nothing", s);
    info("the default stream", 0);
    g = (CUgraph)7;
    R(cuStreamEndCapture(s, &g));
    FACT("%s", g == (CUgraph)7 ? "untouched" : g ? "a graph" : "NULL");
    R(cuStreamBeginCapture(s, (CUstreamCaptureMode)9));
    R(cuStreamBeginCapture(0, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamBeginCapture(CU_STREAM_PER_THREAD, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamEndCapture(CU_STREAM_PER_THREAD, &g));
    R(cuGraphDestroy(g));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    info("begun", s);
    info("another stream", other);
    info("the default stream meanwhile", 0);
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    info("a kernel", s);
    CUlaunchAttribute attribute;
    memset(&attribute, 0, sizeof attribute);
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig config;
    memset(&config, 0, sizeof config);
    config.gridDimX = config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
    config.blockDimX = N;
    config.hStream = s;
    config.attrs = &attribute;
    config.numAttrs = 1;
    R(cuLaunchKernelEx(&config, p.func, args.list, 0));
    info("a second kernel, serialized programmatically", s);
    R(cuEventRecord(event, s));
    info("an event", s);
    R(cuEventQuery(event));
    R(cuEventSynchronize(event));
    info("the event asked", s);
    R(cuStreamEndCapture(s, &g));
    FACT("%s", g ? "a graph" : "NULL");
    if (g)
        R(cuGraphDestroy(g));
    R(cuStreamEndCapture(s, &g));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuEventRecord(event, s));
    R(cuStreamWaitEvent(other, event, 0));
    info("joined", other);
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, other, args.list, 0));
    R(cuStreamEndCapture(other, &g));
    info("ended elsewhere", s);
    g = (CUgraph)7;
    R(cuStreamEndCapture(s, &g));
    FACT("%s", g == (CUgraph)7 ? "untouched" : g ? "a graph" : "NULL");
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamSynchronize(s));
    info("synchronized", s);
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    g = (CUgraph)7;
    R(cuStreamEndCapture(s, &g));
    FACT("%s", g == (CUgraph)7 ? "untouched" : g ? "a graph" : "NULL");
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamUpdateCaptureDependencies(s, 0, 0, 0, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    R(cuStreamUpdateCaptureDependencies(s, 0, 0, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    R(cuStreamUpdateCaptureDependencies(s, 0, 0, 0, 7));
    node = 0;
    R(cuStreamUpdateCaptureDependencies(s, &node, 0, 1, CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
    R(cuStreamEndCapture(s, 0));
    info("ended into nothing", s);
    g = 0;
    R(cuStreamEndCapture(s, &g));
    if (g)
        R(cuGraphDestroy(g));
    R(cuStreamUpdateCaptureDependencies(s, 0, 0, 0, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    R(cuThreadExchangeStreamCaptureMode(&mode));
    R(cuStreamIsCapturing(s, 0));
    R(cuEventDestroy(event));
    R(cuStreamDestroy(other));
    R(cuStreamDestroy(s));
    R(cuMemFree(data));
}
