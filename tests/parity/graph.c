/* Graphs by hand, capture into graphs, executable graphs: what each call says. */
#include "parity.h"

#define N 64

static CUdeviceptr memory(int value)
{
    CUdeviceptr at = 0;
    if (cuMemAlloc(&at, N * sizeof(int)) || cuMemsetD32(at, (unsigned)value, N) || cuCtxSynchronize())
        FACT("no memory");
    return at;
}

static void show(const char *what, CUdeviceptr at)
{
    int word[N] = {0};
    CUresult result = cuMemcpyDtoH(word, at, sizeof word);
    FACT("%s: %d first %d last %d", what, result, word[0], word[N - 1]);
}

/* add_to_all(data, value, N) */
struct add {
    CUdeviceptr data;
    int value, n;
    void *list[3];
};

static CUDA_KERNEL_NODE_PARAMS adding(struct add *a, CUdeviceptr data, int value)
{
    CUDA_KERNEL_NODE_PARAMS p;
    memset(&p, 0, sizeof p);
    a->data = data;
    a->value = value;
    a->n = N;
    a->list[0] = &a->data;
    a->list[1] = &a->value;
    a->list[2] = &a->n;
    p.func = function("add_to_all");
    p.gridDimX = p.gridDimY = p.gridDimZ = p.blockDimY = p.blockDimZ = 1;
    p.blockDimX = N;
    p.kernelParams = a->list;
    return p;
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

static CUDA_MEMSET_NODE_PARAMS setting(CUdeviceptr to, unsigned value)
{
    CUDA_MEMSET_NODE_PARAMS p;
    memset(&p, 0, sizeof p);
    p.dst = to;
    p.value = value;
    p.elementSize = 4;
    p.width = N;
    p.height = 1;
    return p;
}

static void run(CUgraph graph)
{
    CUgraphExec exec = 0;
    NEED(cuGraphInstantiate(&exec, graph, 0));
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
    R(cuGraphExecDestroy(exec));
}

/* A function of a version that cuda.h has a newer one for. */
static void *older(const char *name, int version)
{
    void *found = 0;
    CUdriverProcAddressQueryResult status;
    CUresult result = cuGetProcAddress(name, &found, version, 0, &status);
    FACT("%s of %d: %d, %s", name, version, result, found ? "found" : "not found");
    return found;
}

CASE(cuGraphCreate)
{
    CUgraph g = 0;
    size_t n = 9;
    R(cuGraphCreate(&g, 1));
    R(cuGraphCreate(0, 0));
    NEED(cuGraphCreate(&g, 0));
    FACT("%s", g ? "a handle" : "no handle");
    R(cuGraphGetNodes(g, 0, &n));
    FACT("%zu nodes", n);
    run(g);
    R(cuGraphDestroy(g));
    R(cuGraphDestroy(0));
}

CASE(cuGraphCreate_without_a_context)
{
    CUgraph g = 0;
    CUgraphNode node;
    R(cuCtxSetCurrent(0));
    R(cuGraphCreate(&g, 0));
    if (g) {
        R(cuGraphAddEmptyNode(&node, g, 0, 0));
        R(cuGraphDestroy(g));
    }
}

CASE(cuGraphAddEmptyNode)
{
    CUgraph g;
    CUgraphNode a = 0, b = 0, c = 0, list[4];
    CUgraphNodeType type;
    size_t n;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddEmptyNode(0, g, 0, 0));
    R(cuGraphAddEmptyNode(&a, 0, 0, 0));
    R(cuGraphAddEmptyNode(&a, g, 0, 1));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, &a, 1));
    CUgraphNode both[2] = {a, b};
    NEED(cuGraphAddEmptyNode(&c, g, both, 2));
    CUgraphNode twice[2] = {a, a};
    R(cuGraphAddEmptyNode(&list[0], g, twice, 2));
    R(cuGraphNodeGetType(c, &type));
    FACT("type %d", type);
    R(cuGraphNodeGetType(c, 0));
    R(cuGraphNodeGetType(0, &type));
    n = 4;
    R(cuGraphGetNodes(g, list, &n));
    FACT("%zu nodes, the fourth is %s", n, list[3] ? "one" : "NULL");
    R(cuGraphGetNodes(g, list, 0));
    R(cuGraphDestroy(g));
}

CASE(cuGraphGetRootNodes)
{
    CUgraph g;
    CUgraphNode a, b, c, list[4] = {0};
    size_t n = 77;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&c, g, &a, 1));
    R(cuGraphGetRootNodes(g, 0, &n));
    FACT("%zu roots", n);
    n = 4;
    R(cuGraphGetRootNodes(g, list, &n));
    FACT("%zu roots", n);
    SAME(list[0] == a || list[1] == a, 1);
    SAME(list[2], (CUgraphNode)0);
    n = 1;
    R(cuGraphGetRootNodes(g, list, &n));
    FACT("%zu roots", n);
    R(cuGraphGetRootNodes(g, list, 0));
    R(cuGraphGetRootNodes(0, list, &n));
    R(cuGraphDestroy(g));
}

CASE(cuGraphAddDependencies)
{
    CUgraph g, other;
    CUgraphNode a, b, c, x, from[4], to[4];
    CUgraphEdgeData data[4];
    size_t n;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&c, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&x, other, 0, 0));
    from[0] = a, to[0] = b, from[1] = b, to[1] = c;
    R(cuGraphAddDependencies(g, from, to, 0, 2));
    R(cuGraphAddDependencies(g, from, to, 0, 2));
    R(cuGraphAddDependencies(g, from, to, 0, 0));
    R(cuGraphAddDependencies(g, 0, to, 0, 1));
    R(cuGraphAddDependencies(0, from, to, 0, 1));
    R(cuGraphAddDependencies(g, &a, &a, 0, 1));
    R(cuGraphAddDependencies(g, &a, &x, 0, 1));
    memset(data, 0, sizeof data);
    data[0].type = 77;
    R(cuGraphAddDependencies(g, &a, &c, data, 1));
    data[0].type = 0;
    R(cuGraphAddDependencies(g, &a, &c, data, 1));
    R(cuGraphGetEdges(g, 0, 0, 0, &n));
    FACT("%zu edges", n);
    n = 4;
    memset(data, 9, sizeof data);
    R(cuGraphGetEdges(g, from, to, data, &n));
    FACT("%zu edges, the fourth %s, type %d and %d", n, from[3] ? "one" : "NULL", data[0].type, data[3].type);
    n = 2;
    R(cuGraphGetEdges(g, from, to, 0, &n));
    FACT("%zu edges", n);
    R(cuGraphGetEdges(g, from, 0, 0, &n));
    R(cuGraphGetEdges(g, from, to, 0, 0));
    n = 4;
    R(cuGraphNodeGetDependencies(c, from, data, &n));
    FACT("%zu dependencies", n);
    n = 4;
    R(cuGraphNodeGetDependentNodes(a, from, data, &n));
    FACT("%zu dependents", n);
    R(cuGraphNodeGetDependencies(a, 0, 0, &n));
    FACT("%zu dependencies", n);
    R(cuGraphNodeGetDependencies(0, 0, 0, &n));
    R(cuGraphNodeGetDependentNodes(0, 0, 0, &n));
    R(cuGraphNodeGetDependencies(a, 0, 0, 0));
    R(cuGraphRemoveDependencies(g, &a, &c, 0, 1));
    R(cuGraphRemoveDependencies(g, &a, &c, 0, 1));
    R(cuGraphGetEdges(g, 0, 0, 0, &n));
    FACT("%zu edges", n);
    R(cuGraphDestroyNode(b));
    R(cuGraphGetEdges(g, 0, 0, 0, &n));
    FACT("%zu edges", n);
    R(cuGraphDestroyNode(0));
    R(cuGraphDestroy(other));
    R(cuGraphDestroy(g));
}

CASE(cuGraphAddDependencies_in_a_circle)
{
    CUgraph g;
    CUgraphNode a, b;
    CUgraphExec exec = 0;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, &a, 1));
    R(cuGraphAddDependencies(g, &b, &a, 0, 1));
    CUDA_GRAPH_INSTANTIATE_PARAMS p;
    memset(&p, 0, sizeof p);
    R(cuGraphInstantiateWithParams(&exec, g, &p));
    FACT("result %d, node %s", p.result_out, p.hErrNode_out ? "named" : "NULL");
    R(cuGraphDestroy(g));
}

CASE(cuGraph_edges_before_12_3)
{
    CUresult (*add)(CUgraph, const CUgraphNode *, const CUgraphNode *, size_t) = older("cuGraphAddDependencies", 11000);
    CUresult (*take)(CUgraph, const CUgraphNode *, const CUgraphNode *, size_t) = older("cuGraphRemoveDependencies", 11000);
    CUresult (*edges)(CUgraph, CUgraphNode *, CUgraphNode *, size_t *) = older("cuGraphGetEdges", 11000);
    CUresult (*before)(CUgraphNode, CUgraphNode *, size_t *) = older("cuGraphNodeGetDependencies", 11000);
    CUresult (*after)(CUgraphNode, CUgraphNode *, size_t *) = older("cuGraphNodeGetDependentNodes", 11000);
    CUgraph g;
    CUgraphNode a, b, from[2], to[2];
    size_t n;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, 0, 0));
    R(add(g, &a, &b, 1));
    R(add(g, 0, 0, 0));
    R(add(g, 0, &b, 1));
    n = 2;
    R(edges(g, from, to, &n));
    FACT("%zu edges", n);
    SAME(from[0], a);
    SAME(to[0], b);
    n = 2;
    R(before(b, from, &n));
    FACT("%zu dependencies", n);
    SAME(from[0], a);
    n = 2;
    R(after(a, to, &n));
    FACT("%zu dependents", n);
    SAME(to[0], b);
    R(take(g, &a, &b, 1));
    R(edges(g, 0, 0, &n));
    FACT("%zu edges", n);
    R(cuGraphDestroy(g));
}

CASE(cuGraphAddKernelNode)
{
    CUgraph g;
    CUgraphNode a = 0, b;
    CUgraphExec exec;
    struct add args, more;
    CUdeviceptr data = memory(1);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 5), q;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddKernelNode(&a, g, 0, 0, 0));
    R(cuGraphAddKernelNode(0, g, 0, 0, &p));
    p.func = 0;
    R(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    p = adding(&args, data, 5);
    p.blockDimX = 4096;
    R(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    p.blockDimX = 0;
    R(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    p.blockDimX = N;
    p.kernelParams = 0;
    R(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    p = adding(&args, data, 5);
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    args.value = 1000; /* taken when the node was added */
    NEED(cuGraphAddKernelNode(&b, g, &a, 1, &p));
    run(g);
    show("1 + 5 + 1000", data);
    memset(&q, 0, sizeof q);
    R(cuGraphKernelNodeGetParams(a, &q));
    SAME(q.func, p.func);
    SAME(q.kern, (CUkernel)0);
    FACT("context %s", q.ctx == context ? "is ours" : q.ctx ? "is another" : "is NULL");
    FACT("grid %u block %u shared %u extra %s", q.gridDimX, q.blockDimX, q.sharedMemBytes, q.extra ? "given" : "NULL");
    if (q.kernelParams) {
        SAME(*(CUdeviceptr *)q.kernelParams[0], data);
        FACT("value %d n %d", *(int *)q.kernelParams[1], *(int *)q.kernelParams[2]);
    }
    R(cuGraphKernelNodeGetParams(a, 0));
    R(cuGraphKernelNodeGetParams(0, &q));
    p = adding(&more, data, 7);
    R(cuGraphKernelNodeSetParams(a, &p));
    R(cuGraphKernelNodeSetParams(a, 0));
    R(cuGraphKernelNodeGetParams(a, &q));
    if (q.kernelParams)
        FACT("value %d", *(int *)q.kernelParams[1]);
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    show("and 7 + 1000", data);
    p = adding(&more, data, 20);
    R(cuGraphExecKernelNodeSetParams(exec, a, &p));
    R(cuGraphExecKernelNodeSetParams(exec, a, 0));
    R(cuGraphExecKernelNodeSetParams(exec, 0, &p));
    R(cuGraphExecKernelNodeSetParams(0, a, &p));
    R(cuGraphLaunch(exec, 0));
    show("and 20 + 1000", data);
    unsigned enabled = 9;
    R(cuGraphNodeGetEnabled(exec, a, &enabled));
    FACT("enabled %u", enabled);
    R(cuGraphNodeSetEnabled(exec, b, 0));
    R(cuGraphNodeGetEnabled(exec, b, &enabled));
    FACT("enabled %u", enabled);
    R(cuGraphNodeGetEnabled(exec, b, 0));
    R(cuGraphLaunch(exec, 0));
    show("and 20", data);
    R(cuGraphNodeSetEnabled(exec, b, 1));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}

CASE(cuGraphAddKernelNode_extra)
{
    CUgraph g;
    CUgraphNode a = 0;
    struct add args;
    CUdeviceptr data = memory(2);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 5), q;
    struct { CUdeviceptr data; int value, n; } packed = {data, 3, N};
    size_t size = sizeof packed;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    NEED(cuGraphCreate(&g, 0));
    p.extra = extra;
    R(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    p.kernelParams = 0;
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    run(g);
    show("2 + 3", data);
    memset(&q, 0, sizeof q);
    R(cuGraphKernelNodeGetParams(a, &q));
    if (q.kernelParams)
        FACT("value %d n %d", *(int *)q.kernelParams[1], *(int *)q.kernelParams[2]);
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}

CASE(cuGraphAddKernelNode_of_a_library)
{
    CUgraph g;
    CUgraphNode a = 0;
    CUlibrary library;
    CUkernel kernel;
    struct add args;
    CUdeviceptr data = memory(2);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 4), q;
    NEED(cuLibraryLoadData(&library, kernels_ptx, 0, 0, 0, 0, 0, 0));
    NEED(cuLibraryGetKernel(&kernel, library, "add_to_all"));
    NEED(cuGraphCreate(&g, 0));
    p.func = 0;
    p.kern = kernel;
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    memset(&q, 0, sizeof q);
    R(cuGraphKernelNodeGetParams(a, &q));
    FACT("func %s kern %s", q.func ? "given" : "NULL", q.kern == kernel ? "is ours" : q.kern ? "another" : "NULL");
    FACT("context %s", q.ctx == context ? "is ours" : q.ctx ? "is another" : "is NULL");
    p.kern = 0;
    p.func = (CUfunction)kernel; /* as the runtime does */
    NEED(cuGraphAddKernelNode(&a, g, &a, 1, &p));
    memset(&q, 0, sizeof q);
    R(cuGraphKernelNodeGetParams(a, &q));
    FACT("func %s kern %s", q.func ? "given" : "NULL", q.kern ? "given" : "NULL");
    run(g);
    show("2 + 4 + 4", data);
    R(cuGraphDestroy(g));
    R(cuLibraryUnload(library));
    R(cuMemFree(data));
}

CASE(cuGraphAddKernelNode_before_12)
{
    typedef CUDA_KERNEL_NODE_PARAMS_v1 old;
    CUresult (*add)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const old *) = older("cuGraphAddKernelNode", 11000);
    CUresult (*get)(CUgraphNode, old *) = older("cuGraphKernelNodeGetParams", 11000);
    CUresult (*set)(CUgraphNode, const old *) = older("cuGraphKernelNodeSetParams", 11000);
    CUresult (*exec_set)(CUgraphExec, CUgraphNode, const old *) = older("cuGraphExecKernelNodeSetParams", 11000);
    CUgraph g;
    CUgraphNode a;
    CUgraphExec exec;
    struct add args;
    CUdeviceptr data = memory(0);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 1);
    struct { old params; long guard[2]; } q;
    NEED(cuGraphCreate(&g, 0));
    NEED(add(&a, g, 0, 0, (old *)&p));
    memset(&q, 0x5a, sizeof q);
    R(get(a, &q.params));
    FACT("grid %u block %u, %s", q.params.gridDimX, q.params.blockDimX,
        q.guard[0] == 0x5a5a5a5a5a5a5a5a ? "nothing behind it" : "more behind it");
    if (q.params.kernelParams)
        FACT("value %d", *(int *)q.params.kernelParams[1]);
    args.value = 10;
    R(set(a, (old *)&p));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    args.value = 100;
    R(exec_set(exec, a, (old *)&p));
    R(cuGraphLaunch(exec, 0));
    show("10 + 100", data);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}

CASE(cuGraphKernelNodeSetAttribute)
{
    CUgraph g;
    CUgraphNode a, b, empty;
    struct add args;
    CUdeviceptr data = memory(0);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 1);
    CUkernelNodeAttrValue v;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    NEED(cuGraphAddKernelNode(&b, g, 0, 0, &p));
    NEED(cuGraphAddEmptyNode(&empty, g, 0, 0));
    memset(&v, 0, sizeof v);
    R(cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v));
    FACT("priority %d", v.priority);
    R(cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v));
    FACT("cooperative %d", v.cooperative);
    v.cooperative = 1;
    R(cuGraphKernelNodeSetAttribute(a, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v));
    memset(&v, 0, sizeof v);
    R(cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v));
    FACT("cooperative %d", v.cooperative);
    memset(&v, 0, sizeof v);
    v.accessPolicyWindow.base_ptr = (void *)data;
    v.accessPolicyWindow.num_bytes = N * sizeof(int);
    v.accessPolicyWindow.hitRatio = 1.0f;
    v.accessPolicyWindow.hitProp = CU_ACCESS_PROPERTY_PERSISTING;
    v.accessPolicyWindow.missProp = CU_ACCESS_PROPERTY_STREAMING;
    R(cuGraphKernelNodeSetAttribute(a, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &v));
    memset(&v, 0, sizeof v);
    R(cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &v));
    SAME(v.accessPolicyWindow.base_ptr, (void *)data);
    FACT("%zu bytes", v.accessPolicyWindow.num_bytes);
    R(cuGraphKernelNodeCopyAttributes(b, a));
    R(cuGraphKernelNodeGetAttribute(b, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v));
    FACT("cooperative %d", v.cooperative);
    R(cuGraphKernelNodeCopyAttributes(0, a));
    R(cuGraphKernelNodeCopyAttributes(empty, a));
    R(cuGraphKernelNodeGetAttribute(empty, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v));
    R(cuGraphKernelNodeGetAttribute(a, (CUkernelNodeAttrID)99, &v));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}

CASE(cuGraphAddMemcpyNode)
{
    CUgraph g;
    CUgraphNode a = 0, b;
    CUgraphExec exec;
    CUdeviceptr from = memory(3), to = memory(0);
    int *pinned = 0;
    NEED(cuMemAllocHost((void **)&pinned, N * sizeof(int)));
    memset(pinned, 0, N * sizeof(int));
    CUDA_MEMCPY3D c = copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_DEVICE, (void *)from, N * sizeof(int)), d;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddMemcpyNode(&a, g, 0, 0, 0, context));
    R(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, 0));
    if (a)
        R(cuGraphDestroyNode(a));
    c.srcMemoryType = (CUmemorytype)9;
    R(cuGraphAddMemcpyNode(&b, g, 0, 0, &c, context));
    c = copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_DEVICE, (void *)16, N * sizeof(int));
    R(cuGraphAddMemcpyNode(&b, g, 0, 0, &c, context));
    c = copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_DEVICE, (void *)from, N * sizeof(int));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    c = copying(CU_MEMORYTYPE_HOST, pinned, CU_MEMORYTYPE_UNIFIED, (void *)to, N * sizeof(int));
    NEED(cuGraphAddMemcpyNode(&b, g, &a, 1, &c, context));
    run(g);
    FACT("pinned %d %d", pinned[0], pinned[N - 1]);
    memset(&d, 0, sizeof d);
    R(cuGraphMemcpyNodeGetParams(a, &d));
    SAME(d.dstDevice, to);
    SAME(d.srcDevice, from);
    FACT("%d to %d: %zu %zu %zu", d.srcMemoryType, d.dstMemoryType, d.WidthInBytes, d.Height, d.Depth);
    memset(&d, 0, sizeof d);
    R(cuGraphMemcpyNodeGetParams(b, &d));
    FACT("%d to %d", d.srcMemoryType, d.dstMemoryType);
    FACT("%s", d.dstHost == pinned || d.dstDevice == (CUdeviceptr)pinned ? "pinned" : "another");
    R(cuGraphMemcpyNodeGetParams(b, 0));
    R(cuGraphMemcpyNodeGetParams(0, &d));
    R(cuGraphMemsetNodeGetParams(a, (CUDA_MEMSET_NODE_PARAMS *)&d));
    c = copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_HOST, pinned, N * sizeof(int) / 2);
    R(cuGraphMemcpyNodeSetParams(a, &c));
    R(cuGraphMemcpyNodeSetParams(a, 0));
    pinned[0] = 8;
    run(g);
    FACT("pinned %d %d", pinned[0], pinned[N - 1]);
    NEED(cuGraphInstantiate(&exec, g, 0));
    c = copying(CU_MEMORYTYPE_DEVICE, (void *)(to + 4), CU_MEMORYTYPE_HOST, pinned, 4);
    R(cuGraphExecMemcpyNodeSetParams(exec, a, &c, context));
    R(cuGraphExecMemcpyNodeSetParams(exec, a, 0, context));
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
    FACT("pinned %d %d", pinned[0], pinned[1]);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(from));
    R(cuMemFree(to));
    R(cuMemFreeHost(pinned));
}

CASE(cuGraphAddMemcpyNode_3D)
{
    CUgraph g;
    CUgraphNode a = 0;
    CUdeviceptr from = memory(0), to = memory(0);
    int word[N];
    CUDA_MEMCPY3D c;
    for (int i = 0; i < N; i++)
        word[i] = i;
    NEED(cuMemcpyHtoD(from, word, sizeof word));
    /* 4 planes of 4 rows of 4 words; a box of 2 x 2 x 2 from (1, 1, 1) to (0, 2, 2) */
    memset(&c, 0, sizeof c);
    c.srcMemoryType = c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    c.srcDevice = from;
    c.dstDevice = to;
    c.srcXInBytes = 4, c.srcY = 1, c.srcZ = 1;
    c.dstY = 2, c.dstZ = 2;
    c.srcPitch = c.dstPitch = 16;
    c.srcHeight = c.dstHeight = 4;
    c.WidthInBytes = 8, c.Height = 2, c.Depth = 2;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    run(g);
    NEED(cuMemcpyDtoH(word, to, sizeof word));
    FACT("sum %016llx: %d %d", (unsigned long long)parity_sum(word, sizeof word), word[40], word[61]);
    c.Depth = 4; /* past the end */
    R(cuGraphAddMemcpyNode(&a, g, 0, 0, &c, context));
    R(cuGraphDestroy(g));
    R(cuMemFree(from));
    R(cuMemFree(to));
}

CASE(cuGraphAddMemsetNode)
{
    CUgraph g;
    CUgraphNode a = 0;
    CUgraphExec exec;
    CUdeviceptr to = memory(0);
    CUDA_MEMSET_NODE_PARAMS p = setting(to, 6), q;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddMemsetNode(&a, g, 0, 0, 0, context));
    p.elementSize = 3;
    R(cuGraphAddMemsetNode(&a, g, 0, 0, &p, context));
    p = setting(to, 6);
    p.width = N + 1;
    R(cuGraphAddMemsetNode(&a, g, 0, 0, &p, context));
    p = setting(16, 6);
    R(cuGraphAddMemsetNode(&a, g, 0, 0, &p, context));
    p = setting(to, 6);
    NEED(cuGraphAddMemsetNode(&a, g, 0, 0, &p, context));
    run(g);
    show("set", to);
    memset(&q, 0, sizeof q);
    R(cuGraphMemsetNodeGetParams(a, &q));
    SAME(q.dst, to);
    FACT("value %u element %u width %zu height %zu", q.value, q.elementSize, q.width, q.height);
    R(cuGraphMemsetNodeGetParams(a, 0));
    p.value = 7;
    p.width = N / 2;
    R(cuGraphMemsetNodeSetParams(a, &p));
    R(cuGraphMemsetNodeSetParams(a, 0));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    show("half", to);
    p.value = 9;
    R(cuGraphExecMemsetNodeSetParams(exec, a, &p, context));
    R(cuGraphExecMemsetNodeSetParams(exec, a, 0, context));
    R(cuGraphLaunch(exec, 0));
    show("half", to);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(to));
}

CASE(cuGraphAddChildGraphNode)
{
    CUgraph inner, outer, found = 0, again = 0, other;
    CUgraphNode a, b, list[2];
    CUgraphExec exec;
    struct add args;
    CUdeviceptr data = memory(0);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 2);
    size_t n = 2;
    NEED(cuGraphCreate(&inner, 0));
    NEED(cuGraphCreate(&outer, 0));
    NEED(cuGraphAddKernelNode(&a, inner, 0, 0, &p));
    R(cuGraphAddChildGraphNode(&b, outer, 0, 0, 0));
    NEED(cuGraphAddChildGraphNode(&b, outer, 0, 0, inner));
    R(cuGraphChildGraphNodeGetGraph(b, &found));
    R(cuGraphChildGraphNodeGetGraph(b, &again));
    R(cuGraphChildGraphNodeGetGraph(b, 0));
    R(cuGraphChildGraphNodeGetGraph(a, &again));
    SAME(found, again);
    FACT("%s", found == inner ? "the same graph" : found ? "a copy" : "NULL");
    R(cuGraphGetNodes(found, list, &n));
    FACT("%zu nodes, %s", n, list[0] == a ? "the same" : "another");
    if (n == 1) {
        CUDA_KERNEL_NODE_PARAMS q;
        R(cuGraphKernelNodeGetParams(list[0], &q));
        FACT("grid %u block %u", q.gridDimX, q.blockDimX);
    }
    run(outer);
    show("2", data);
    NEED(cuGraphClone(&other, inner));
    NEED(cuGraphNodeFindInClone(&list[0], a, other));
    p = adding(&args, data, 40);
    R(cuGraphKernelNodeSetParams(list[0], &p));
    NEED(cuGraphInstantiate(&exec, outer, 0));
    R(cuGraphExecChildGraphNodeSetParams(exec, b, other));
    R(cuGraphExecChildGraphNodeSetParams(exec, b, 0));
    R(cuGraphLaunch(exec, 0));
    show("2 + 40", data);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(other));
    R(cuGraphDestroy(outer));
    R(cuGraphDestroy(inner));
    R(cuMemFree(data));
}

CASE(cuGraphClone)
{
    CUgraph g, clone = 0;
    CUgraphNode a, b, found = 0;
    size_t n;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddEmptyNode(&a, g, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, g, &a, 1));
    R(cuGraphClone(0, g));
    R(cuGraphClone(&clone, 0));
    NEED(cuGraphClone(&clone, g));
    R(cuGraphGetNodes(clone, 0, &n));
    FACT("%zu nodes", n);
    R(cuGraphNodeFindInClone(&found, a, clone));
    FACT("%s", found == a ? "the same" : found ? "another" : "NULL");
    R(cuGraphNodeFindInClone(&found, a, g));
    R(cuGraphNodeFindInClone(0, a, clone));
    R(cuGraphNodeFindInClone(&found, 0, clone));
    R(cuGraphDestroyNode(found));
    R(cuGraphGetNodes(g, 0, &n));
    FACT("%zu nodes", n);
    R(cuGraphDestroy(clone));
    R(cuGraphDestroy(g));
}

CASE(cuGraphAddEventRecordNode)
{
    CUgraph g;
    CUgraphNode a, b;
    CUgraphExec exec;
    CUevent first, second, found = 0;
    NEED(cuEventCreate(&first, 0));
    NEED(cuEventCreate(&second, 0));
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddEventRecordNode(&a, g, 0, 0, 0));
    R(cuGraphAddEventWaitNode(&a, g, 0, 0, 0));
    NEED(cuGraphAddEventRecordNode(&a, g, 0, 0, first));
    NEED(cuGraphAddEventWaitNode(&b, g, 0, 0, second));
    R(cuGraphEventRecordNodeGetEvent(a, &found));
    SAME(found, first);
    R(cuGraphEventWaitNodeGetEvent(b, &found));
    SAME(found, second);
    R(cuGraphEventWaitNodeGetEvent(a, &found));
    R(cuGraphEventRecordNodeGetEvent(a, 0));
    R(cuGraphEventRecordNodeSetEvent(a, second));
    R(cuGraphEventWaitNodeSetEvent(b, first));
    R(cuGraphEventRecordNodeGetEvent(a, &found));
    SAME(found, second);
    R(cuGraphEventWaitNodeGetEvent(b, &found));
    SAME(found, first);
    R(cuGraphEventRecordNodeSetEvent(a, 0));
    R(cuGraphEventRecordNodeSetEvent(b, first));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphExecEventRecordNodeSetEvent(exec, a, first));
    R(cuGraphExecEventWaitNodeSetEvent(exec, b, second));
    R(cuGraphExecEventRecordNodeSetEvent(exec, a, 0));
    R(cuGraphLaunch(exec, 0));
    R(cuEventSynchronize(first));
    R(cuEventQuery(first));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuEventDestroy(first));
    R(cuEventDestroy(second));
}

static CUDA_MEM_ALLOC_NODE_PARAMS allocating(size_t bytes)
{
    CUDA_MEM_ALLOC_NODE_PARAMS p;
    memset(&p, 0, sizeof p);
    p.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.poolProps.location.id = 0;
    p.bytesize = bytes;
    return p;
}

CASE(cuGraphAddMemAllocNode)
{
    CUgraph g;
    CUgraphNode a = 0, b, c, d;
    CUdeviceptr to = memory(0), freed = 0;
    CUDA_MEM_ALLOC_NODE_PARAMS p = allocating(0), q;
    struct add args;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddMemAllocNode(&a, g, 0, 0, 0));
    R(cuGraphAddMemAllocNode(&a, g, 0, 0, &p));
    p = allocating(N * sizeof(int));
    p.poolProps.location.id = 99;
    R(cuGraphAddMemAllocNode(&a, g, 0, 0, &p));
    p = allocating(N * sizeof(int));
    NEED(cuGraphAddMemAllocNode(&a, g, 0, 0, &p));
    FACT("%s", p.dptr ? "an address" : "no address");
    CUDA_MEMSET_NODE_PARAMS s = setting(p.dptr, 4);
    NEED(cuGraphAddMemsetNode(&b, g, &a, 1, &s, context));
    CUDA_KERNEL_NODE_PARAMS k = adding(&args, p.dptr, 5);
    NEED(cuGraphAddKernelNode(&c, g, &b, 1, &k));
    CUDA_MEMCPY3D m = copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_DEVICE, (void *)p.dptr, N * sizeof(int));
    NEED(cuGraphAddMemcpyNode(&d, g, &c, 1, &m, context));
    R(cuGraphAddMemFreeNode(&c, g, &d, 1, 0));
    R(cuGraphAddMemFreeNode(&c, g, &d, 1, to));
    NEED(cuGraphAddMemFreeNode(&c, g, &d, 1, p.dptr));
    memset(&q, 0, sizeof q);
    R(cuGraphMemAllocNodeGetParams(a, &q));
    SAME(q.dptr, p.dptr);
    FACT("%zu bytes, type %d location %d %d, %zu descriptions", q.bytesize, q.poolProps.allocType, q.poolProps.location.type,
        q.poolProps.location.id, q.accessDescCount);
    R(cuGraphMemAllocNodeGetParams(a, 0));
    R(cuGraphMemAllocNodeGetParams(b, &q));
    R(cuGraphMemFreeNodeGetParams(c, &freed));
    SAME(freed, p.dptr);
    R(cuGraphMemFreeNodeGetParams(c, 0));
    R(cuGraphClone(&(CUgraph){0}, g));
    run(g);
    show("4 + 5", to);
    R(cuGraphDestroy(g));
    R(cuMemFree(to));
}

CASE(cuGraphAddMemAllocNode_freed_outside)
{
    CUgraph g;
    CUgraphExec exec;
    CUgraphNode a, b;
    CUDA_MEM_ALLOC_NODE_PARAMS p = allocating(N * sizeof(int));
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemAllocNode(&a, g, 0, 0, &p));
    CUDA_MEMSET_NODE_PARAMS s = setting(p.dptr, 11);
    NEED(cuGraphAddMemsetNode(&b, g, &a, 1, &s, context));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
    show("outside", p.dptr);
    R(cuGraphLaunch(exec, 0));
    R(cuMemFree(p.dptr));
    R(cuGraphLaunch(exec, 0));
    R(cuCtxSynchronize());
    show("again", p.dptr);
    R(cuMemFree(p.dptr));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
}

CASE(cuDeviceGetGraphMemAttribute)
{
    cuuint64_t value = 7;
    R(cuCtxSynchronize());
    R(cuDeviceGraphMemTrim(device));
    R(cuDeviceGraphMemTrim(99));
    R(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &value));
    FACT("used %llu", (unsigned long long)value);
    R(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &value));
    FACT("reserved %llu", (unsigned long long)value);
    R(cuDeviceGetGraphMemAttribute(device, (CUgraphMem_attribute)77, &value));
    R(cuDeviceGetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, 0));
    R(cuDeviceGetGraphMemAttribute(99, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
    value = 0;
    R(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
    R(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH, &value));
    R(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &value));
    value = 5;
    R(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &value));
}

CASE(cuGraphAddBatchMemOpNode)
{
    CUgraph g;
    CUgraphNode a = 0;
    CUgraphExec exec;
    CUdeviceptr to = memory(0);
    CUstreamBatchMemOpParams op[2];
    CUDA_BATCH_MEM_OP_NODE_PARAMS p, q;
    memset(op, 0, sizeof op);
    op[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op[0].writeValue.address = to;
    op[0].writeValue.value = 21;
    op[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op[1].waitValue.address = to;
    op[1].waitValue.value = 21;
    op[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    memset(&p, 0, sizeof p);
    p.ctx = context;
    p.count = 2;
    p.paramArray = op;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddBatchMemOpNode(&a, g, 0, 0, 0));
    op[0].writeValue.address = 16;
    R(cuGraphAddBatchMemOpNode(&a, g, 0, 0, &p));
    op[0].writeValue.address = to;
    NEED(cuGraphAddBatchMemOpNode(&a, g, 0, 0, &p));
    run(g);
    show("written", to);
    memset(&q, 0, sizeof q);
    R(cuGraphBatchMemOpNodeGetParams(a, &q));
    FACT("%u operations, flags %u, context %s", q.count, q.flags, q.ctx == context ? "is ours" : "is another");
    if (q.paramArray) {
        FACT("%d of %u, %d", q.paramArray[0].operation, q.paramArray[0].writeValue.value, q.paramArray[1].operation);
        SAME(q.paramArray[0].writeValue.address, to);
    }
    R(cuGraphBatchMemOpNodeGetParams(a, 0));
    op[0].writeValue.value = op[1].waitValue.value = 22;
    R(cuGraphBatchMemOpNodeSetParams(a, &p));
    R(cuGraphBatchMemOpNodeSetParams(a, 0));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    show("written", to);
    op[0].writeValue.value = op[1].waitValue.value = 23;
    R(cuGraphExecBatchMemOpNodeSetParams(exec, a, &p));
    R(cuGraphExecBatchMemOpNodeSetParams(exec, a, 0));
    R(cuGraphLaunch(exec, 0));
    show("written", to);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuMemFree(to));
}

CASE(cuGraphAddNode)
{
    CUresult (*old)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUgraphNodeParams *) = older("cuGraphAddNode", 12020);
    CUgraph g, inner;
    CUgraphNode set, k, c, e, x, list[1];
    CUgraphExec exec;
    CUevent event;
    struct add args;
    CUdeviceptr data = memory(0), to = memory(0);
    CUgraphNodeParams p;
    NEED(cuEventCreate(&event, 0));
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&inner, 0));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEMSET;
    p.memset.dst = data;
    p.memset.value = 5;
    p.memset.elementSize = 4;
    p.memset.width = N;
    p.memset.height = 1;
    p.memset.ctx = context;
    NEED(old(&set, g, 0, 0, &p));
    CUDA_KERNEL_NODE_PARAMS q = adding(&args, data, 6);
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_KERNEL;
    memcpy(&p.kernel, &q, sizeof q);
    NEED(cuGraphAddNode(&k, g, &set, 0, 1, &p));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEMCPY;
    p.memcpy.copyCtx = context;
    p.memcpy.copyParams = copying(CU_MEMORYTYPE_DEVICE, (void *)to, CU_MEMORYTYPE_DEVICE, (void *)data, N * sizeof(int));
    NEED(cuGraphAddNode(&c, g, &k, 0, 1, &p));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_EMPTY;
    NEED(cuGraphAddNode(&x, g, &c, 0, 1, &p));
    NEED(cuGraphAddNode(list, inner, 0, 0, 0, &p));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    p.eventRecord.event = event;
    NEED(cuGraphAddNode(&e, g, &x, 0, 1, &p));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_WAIT_EVENT;
    p.eventWait.event = event;
    NEED(cuGraphAddNode(&e, g, 0, 0, 0, &p));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_GRAPH;
    p.graph.graph = inner;
    NEED(cuGraphAddNode(&e, g, 0, 0, 0, &p));
    run(g);
    show("5 + 6", to);
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEMSET;
    p.memset.dst = data;
    p.memset.value = 50;
    p.memset.elementSize = 4;
    p.memset.width = N;
    p.memset.height = 1;
    p.memset.ctx = context;
    R(cuGraphNodeSetParams(set, &p));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphLaunch(exec, 0));
    show("50 + 6", to);
    p.memset.value = 70;
    R(cuGraphExecNodeSetParams(exec, set, &p));
    R(cuGraphLaunch(exec, 0));
    show("70 + 6", to);
    R(cuGraphNodeSetParams(k, &p));
    R(cuGraphNodeSetParams(0, &p));
    R(cuGraphNodeSetParams(set, 0));
    R(cuGraphExecNodeSetParams(exec, k, &p));
    R(cuGraphExecNodeSetParams(exec, set, 0));
    p.type = (CUgraphNodeType)99;
    R(cuGraphAddNode(&e, g, 0, 0, 0, &p));
    R(cuGraphAddNode(&e, g, 0, 0, 0, 0));
    p.type = CU_GRAPH_NODE_TYPE_EMPTY;
    R(cuGraphAddNode(0, g, 0, 0, 0, &p));
    R(cuGraphAddNode(&e, 0, 0, 0, 0, &p));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuGraphDestroy(inner));
    R(cuEventDestroy(event));
    R(cuMemFree(data));
    R(cuMemFree(to));
}

CASE(cuGraphAddNode_allocating)
{
    CUgraph g;
    CUgraphNode a, b, c;
    CUgraphNodeParams p;
    NEED(cuGraphCreate(&g, 0));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    p.alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.alloc.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    p.alloc.bytesize = 1 << 20;
    NEED(cuGraphAddNode(&a, g, 0, 0, 0, &p));
    CUdeviceptr at = p.alloc.dptr;
    FACT("%s", at ? "an address" : "no address");
    CUDA_MEMSET_NODE_PARAMS s = setting(at, 4);
    NEED(cuGraphAddMemsetNode(&b, g, &a, 1, &s, context));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEM_FREE;
    p.free.dptr = at;
    NEED(cuGraphAddNode(&c, g, &b, 0, 1, &p));
    run(g);
    R(cuGraphDestroy(g));
}

CASE(cuGraphConditionalHandleCreate)
{
    CUgraph g, body, other;
    CUgraphNode node, k, list[2];
    CUgraphConditionalHandle handle = 0;
    CUgraphNodeParams p;
    CUgraphNodeType type;
    struct add args;
    CUdeviceptr data = memory(0);
    size_t n;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphConditionalHandleCreate(0, g, context, 1, 0));
    R(cuGraphConditionalHandleCreate(&handle, 0, context, 1, 0));
    R(cuGraphConditionalHandleCreate(&handle, g, context, 1, 77));
    NEED(cuGraphConditionalHandleCreate(&handle, g, context, 1, CU_GRAPH_COND_ASSIGN_DEFAULT));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    p.conditional.handle = handle;
    p.conditional.type = CU_GRAPH_COND_TYPE_IF;
    p.conditional.size = 0;
    p.conditional.ctx = context;
    R(cuGraphAddNode(&node, g, 0, 0, 0, &p));
    p.conditional.size = 1;
    NEED(cuGraphAddNode(&node, g, 0, 0, 0, &p));
    FACT("%s", p.conditional.phGraph_out && p.conditional.phGraph_out[0] ? "a body" : "no body");
    body = p.conditional.phGraph_out[0];
    R(cuGraphNodeGetType(node, &type));
    FACT("type %d", type);
    R(cuGraphGetNodes(body, 0, &n));
    FACT("%zu nodes", n);
    CUDA_KERNEL_NODE_PARAMS q = adding(&args, data, 9);
    NEED(cuGraphAddKernelNode(&k, body, 0, 0, &q));
    run(g);
    show("9", data);
    n = 2;
    R(cuGraphGetNodes(body, list, &n));
    SAME(list[0], k);
    R(cuGraphClone(&other, g));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}

CASE(cuGraphInstantiateWithParams)
{
    CUgraph g;
    CUgraphNode a;
    CUgraphExec exec = 0;
    CUstream s;
    cuuint64_t flags = 99;
    CUDA_GRAPH_INSTANTIATE_PARAMS p;
    CUdeviceptr to = memory(0);
    CUDA_MEMSET_NODE_PARAMS m = setting(to, 6);
    NEED(cuStreamCreate(&s, 0));
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddMemsetNode(&a, g, 0, 0, &m, context));
    memset(&p, 0, sizeof p);
    R(cuGraphInstantiateWithParams(0, g, &p));
    R(cuGraphInstantiateWithParams(&exec, 0, &p));
    R(cuGraphInstantiateWithParams(&exec, g, 0));
    p.flags = 1ull << 40;
    R(cuGraphInstantiateWithParams(&exec, g, &p));
    FACT("result %d", p.result_out);
    memset(&p, 0, sizeof p);
    p.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD | CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    p.hUploadStream = s;
    NEED(cuGraphInstantiateWithParams(&exec, g, &p));
    FACT("result %d node %s", p.result_out, p.hErrNode_out ? "named" : "NULL");
    R(cuGraphExecGetFlags(exec, &flags));
    FACT("flags %llu", (unsigned long long)flags);
    R(cuGraphExecGetFlags(exec, 0));
    R(cuGraphExecGetFlags(0, &flags));
    R(cuGraphUpload(exec, s));
    R(cuGraphUpload(0, s));
    R(cuGraphLaunch(exec, s));
    R(cuStreamSynchronize(s));
    show("set", to);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(g));
    R(cuStreamDestroy(s));
    R(cuMemFree(to));
}

CASE(cuGraphInstantiate_before_12)
{
    typedef CUresult instantiate(CUgraphExec *, CUgraph, CUgraphNode *, char *, size_t);
    instantiate *first = older("cuGraphInstantiate", 10000), *second = older("cuGraphInstantiate", 11000);
    CUresult (*update)(CUgraphExec, CUgraph, CUgraphNode *, CUgraphExecUpdateResult *) = older("cuGraphExecUpdate", 11000);
    CUgraph g, other;
    CUgraphNode a, bad = 0;
    CUgraphExec exec = 0;
    CUgraphExecUpdateResult result;
    char log[256] = "untouched";
    CUdeviceptr to = memory(0);
    CUDA_MEMSET_NODE_PARAMS m = setting(to, 6);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphAddMemsetNode(&a, g, 0, 0, &m, context));
    R(first(0, g, &bad, log, sizeof log));
    NEED(first(&exec, g, &bad, log, sizeof log));
    FACT("node %s", bad ? "named" : "NULL");
    R(cuGraphExecDestroy(exec));
    NEED(second(&exec, g, 0, 0, 0));
    m.value = 8;
    R(cuGraphMemsetNodeSetParams(a, &m));
    result = 99;
    R(update(exec, g, &bad, &result));
    FACT("result %d node %s", result, bad ? "named" : "NULL");
    R(cuGraphLaunch(exec, 0));
    show("8", to);
    R(update(exec, other, &bad, &result));
    FACT("result %d node %s", result, bad ? "named" : "NULL");
    R(update(exec, g, &bad, 0));
    R(update(0, g, &bad, &result));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(other));
    R(cuGraphDestroy(g));
    R(cuMemFree(to));
}

CASE(cuStreamBeginCaptureToGraph)
{
    CUgraph g, ended = 0, named = 0;
    CUgraphNode a;
    const CUgraphNode *deps;
    CUstream s;
    CUstreamCaptureStatus status;
    struct add args;
    size_t n = 0;
    CUdeviceptr data = memory(0);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data, 1);
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    R(cuStreamBeginCaptureToGraph(s, g, &a, 0, 1, (CUstreamCaptureMode)9));
    R(cuStreamBeginCaptureToGraph(s, 0, &a, 0, 1, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamBeginCaptureToGraph(s, g, 0, 0, 1, CU_STREAM_CAPTURE_MODE_RELAXED));
    NEED(cuStreamBeginCaptureToGraph(s, g, &a, 0, 1, CU_STREAM_CAPTURE_MODE_RELAXED));
    R(cuStreamGetCaptureInfo(s, &status, 0, &named, &deps, 0, &n));
    FACT("status %d, %zu dependencies", status, n);
    SAME(named, g);
    SAME(n == 1 && deps[0] == a, 1);
    args.value = 10;
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    R(cuStreamEndCapture(s, &ended));
    SAME(ended, g);
    R(cuGraphGetEdges(g, 0, 0, 0, &n));
    FACT("%zu edges", n);
    run(g);
    show("1 + 10", data);
    R(cuGraphDestroy(g));
    R(cuStreamDestroy(s));
    R(cuMemFree(data));
}

CASE(cuStreamGetCaptureInfo)
{
    CUresult (*first)(CUstream, CUstreamCaptureStatus *, cuuint64_t *) = older("cuStreamGetCaptureInfo", 10010);
    CUresult (*second)(CUstream, CUstreamCaptureStatus *, cuuint64_t *, CUgraph *, const CUgraphNode **, size_t *) =
        older("cuStreamGetCaptureInfo", 11030);
    CUstream s;
    CUgraph g = 0, again = 0, ended = 0;
    CUstreamCaptureStatus status = 9;
    cuuint64_t id = 0, other = 0;
    const CUgraphNode *deps = 0;
    const CUgraphEdgeData *data;
    size_t n = 7;
    struct add args;
    CUdeviceptr at = memory(0);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, at, 1);
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    R(first(s, &status, &id));
    FACT("status %d", status);
    R(first(s, 0, &id));
    R(second(s, &status, &id, &g, &deps, &n));
    FACT("status %d", status);
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(first(s, &status, &id));
    FACT("status %d, id %s", status, id ? "given" : "0");
    R(second(s, &status, &other, &g, &deps, &n));
    FACT("status %d, %zu dependencies, graph %s", status, n, g ? "given" : "NULL");
    SAME(id, other);
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    R(second(s, &status, 0, &again, &deps, &n));
    SAME(again, g);
    FACT("%zu dependencies", n);
    R(cuStreamGetCaptureInfo(s, &status, &id, &again, &deps, &data, &n));
    SAME(again, g);
    FACT("%zu dependencies, type %d", n, n ? data[0].type : -1);
    CUgraphNode node, last = n ? deps[0] : 0, empty;
    R(cuGraphNodeGetType(last, (CUgraphNodeType *)&status));
    FACT("type %d", status);
    /* a node by hand in the middle of a capture */
    CUDA_MEMSET_NODE_PARAMS m = setting(at, 100);
    R(cuGraphAddMemsetNode(&node, g, &last, 1, &m, context));
    R(cuGraphAddEmptyNode(&empty, g, 0, 0));
    R(cuStreamUpdateCaptureDependencies(s, &node, 0, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    R(cuStreamUpdateCaptureDependencies(s, &empty, 0, 1, CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
    R(cuStreamUpdateCaptureDependencies(s, &empty, 0, 1, 9));
    R(cuStreamUpdateCaptureDependencies(s, 0, 0, 1, CU_STREAM_ADD_CAPTURE_DEPENDENCIES));
    R(second(s, &status, 0, 0, &deps, &n));
    FACT("%zu dependencies", n);
    CUresult (*update)(CUstream, CUgraphNode *, size_t, unsigned) = older("cuStreamUpdateCaptureDependencies", 11030);
    R(update(s, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    R(second(s, &status, 0, 0, &deps, &n));
    FACT("%zu dependencies", n);
    args.value = 5;
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    R(cuStreamEndCapture(s, &ended));
    SAME(ended, g);
    R(update(s, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
    if (ended) {
        run(ended);
        show("100 + 5", at);
        R(cuGraphDestroy(ended));
    }
    R(cuStreamDestroy(s));
    R(cuMemFree(at));
}

CASE(cuStreamBeginCapture_before_10_1)
{
    CUresult (*begin)(CUstream) = older("cuStreamBeginCapture", 10000);
    CUstream s;
    CUgraph g = 0;
    if (!begin)
        return;
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    R(begin(s));
    R(begin(s));
    R(begin(0));
    R(cuStreamEndCapture(s, &g));
    R(cuGraphDestroy(g));
    R(cuStreamDestroy(s));
}

CASE(captured_nodes)
{
    CUstream s;
    CUgraph g = 0;
    CUgraphNode list[4];
    CUgraphNodeType type;
    CUDA_KERNEL_NODE_PARAMS q;
    CUDA_MEMSET_NODE_PARAMS m;
    CUDA_MEMCPY3D c;
    size_t n = 4;
    struct add args;
    CUdeviceptr at = memory(0), to = memory(0);
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, at, 3);
    NEED(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    NEED(cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    R(cuLaunchKernel(p.func, 1, 1, 1, N, 1, 1, 0, s, args.list, 0));
    R(cuMemsetD32Async(to, 4, N, s));
    R(cuMemcpyDtoDAsync(to, at, 8, s));
    NEED(cuStreamEndCapture(s, &g));
    R(cuGraphGetNodes(g, list, &n));
    FACT("%zu nodes", n);
    for (size_t i = 0; i < n; i++) {
        R(cuGraphNodeGetType(list[i], &type));
        FACT("type %d", type);
        if (type == CU_GRAPH_NODE_TYPE_KERNEL) {
            R(cuGraphKernelNodeGetParams(list[i], &q));
            SAME(q.func, p.func);
            if (q.kernelParams)
                FACT("value %d n %d", *(int *)q.kernelParams[1], *(int *)q.kernelParams[2]);
            *(int *)q.kernelParams[1] = 30;
            R(cuGraphKernelNodeSetParams(list[i], &q));
        } else if (type == CU_GRAPH_NODE_TYPE_MEMSET) {
            R(cuGraphMemsetNodeGetParams(list[i], &m));
            SAME(m.dst, to);
            FACT("value %u element %u width %zu", m.value, m.elementSize, m.width);
        } else if (type == CU_GRAPH_NODE_TYPE_MEMCPY) {
            R(cuGraphMemcpyNodeGetParams(list[i], &c));
            FACT("%zu bytes", c.WidthInBytes);
        }
    }
    run(g);
    show("changed", at);
    show("copied", to);
    R(cuGraphDestroy(g));
    R(cuStreamDestroy(s));
    R(cuMemFree(at));
    R(cuMemFree(to));
}
