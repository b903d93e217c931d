/*
 * Graph nodes of every kind under every getter and setter; children, conditions and attributes with wrong arguments.
 */
#include "graphs.h"

static void host_function(void *data) { (void)data; }

/* --- every kind -------------------------------------------------------------------------------------------------------------------- */

enum { KERNEL, COPY, SET, HOST, CHILD, EMPTY, WAIT, RECORD, ALLOC, FREE, BATCH, CONDITION, KINDS };
static const char *const kinds[KINDS] = {"kernel", "copy", "set", "host", "child", "empty", "wait", "record", "allocation", "free", "batch", "condition"};

struct all {
    CUgraph graph, inner;
    CUgraphNode node[KINDS];
    CUevent event;
    CUdeviceptr data, to;
    struct add args;
    CUDA_KERNEL_NODE_PARAMS kernel;
    CUDA_MEMCPY3D copy;
    CUDA_MEMSET_NODE_PARAMS set;
    CUDA_HOST_NODE_PARAMS host;
    CUDA_BATCH_MEM_OP_NODE_PARAMS batch;
    CUstreamBatchMemOpParams op;
};

/* One node of every kind; allocations and conditions only where wanted: a graph cannot be cloned, updated or made executable with them
 * as it can without. */
static int make_all(struct all *a, int more)
{
    CUgraphNode none;
    memset(a, 0, sizeof *a);
    a->data = memory();
    a->to = memory();
    a->kernel = adding(&a->args, a->data);
    a->copy = copying(a->to, a->data, N * sizeof(int));
    a->set = setting(a->data, 3);
    a->host.fn = host_function;
    a->op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    a->op.writeValue.address = a->data;
    a->batch.ctx = context;
    a->batch.count = 1;
    a->batch.paramArray = &a->op;
    if (cuEventCreate(&a->event, 0) || cuGraphCreate(&a->graph, 0) || cuGraphCreate(&a->inner, 0) || cuGraphAddEmptyNode(&none, a->inner, 0, 0))
        return 1;
    int bad = 0;
#define STEP(kind, call) do { CUresult r = call; if (r) FACT("no %s node: %d", kinds[kind], (int)r), bad = 1; } while (0)
    STEP(KERNEL, cuGraphAddKernelNode(&a->node[KERNEL], a->graph, 0, 0, &a->kernel));
    STEP(COPY, cuGraphAddMemcpyNode(&a->node[COPY], a->graph, 0, 0, &a->copy, context));
    STEP(SET, cuGraphAddMemsetNode(&a->node[SET], a->graph, 0, 0, &a->set, context));
    STEP(HOST, cuGraphAddHostNode(&a->node[HOST], a->graph, 0, 0, &a->host));
    STEP(CHILD, cuGraphAddChildGraphNode(&a->node[CHILD], a->graph, 0, 0, a->inner));
    STEP(EMPTY, cuGraphAddEmptyNode(&a->node[EMPTY], a->graph, 0, 0));
    STEP(WAIT, cuGraphAddEventWaitNode(&a->node[WAIT], a->graph, 0, 0, a->event));
    STEP(RECORD, cuGraphAddEventRecordNode(&a->node[RECORD], a->graph, 0, 0, a->event));
    STEP(BATCH, cuGraphAddBatchMemOpNode(&a->node[BATCH], a->graph, 0, 0, &a->batch));
    if (more) {
        CUDA_MEM_ALLOC_NODE_PARAMS p;
        CUgraphNodeParams q;
        memset(&p, 0, sizeof p);
        p.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
        p.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
        p.bytesize = 4096;
        STEP(ALLOC, cuGraphAddMemAllocNode(&a->node[ALLOC], a->graph, 0, 0, &p));
        STEP(FREE, cuGraphAddMemFreeNode(&a->node[FREE], a->graph, &a->node[ALLOC], 1, p.dptr));
        memset(&q, 0, sizeof q);
        q.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
        q.conditional.type = CU_GRAPH_COND_TYPE_IF;
        q.conditional.size = 1;
        q.conditional.ctx = context;
        STEP(CONDITION, cuGraphConditionalHandleCreate(&q.conditional.handle, a->graph, context, 1, 0));
        STEP(CONDITION, cuGraphAddNode(&a->node[CONDITION], a->graph, 0, 0, 0, &q));
    }
    return bad;
}

static void drop_all(struct all *a)
{
    R(cuGraphDestroy(a->graph));
    R(cuGraphDestroy(a->inner));
    R(cuEventDestroy(a->event));
    R(cuMemFree(a->data));
    R(cuMemFree(a->to));
}

CASE(every_getter_of_every_kind)
{
    struct all a;
    CUgraphNodeType type = (CUgraphNodeType)77;
    if (make_all(&a, 1))
        return;
    for (int k = 0; k <= KINDS; k++) {
        CUgraphNode node = k < KINDS ? a.node[k] : 0;
        char room[256];
        CUgraph g;
        CUevent e;
        CUdeviceptr p;
        size_t n = 0;
        CUkernelNodeAttrValue value;
        FACT("%s: kernel %d copy %d set %d host %d child %d wait %d record %d allocation %d free %d batch %d attribute %d, "
             "type %d, dependencies %d",
            k < KINDS ? kinds[k] : "NULL", cuGraphKernelNodeGetParams(node, (void *)room), cuGraphMemcpyNodeGetParams(node, (void *)room),
            cuGraphMemsetNodeGetParams(node, (void *)room), cuGraphHostNodeGetParams(node, (void *)room),
            cuGraphChildGraphNodeGetGraph(node, &g), cuGraphEventWaitNodeGetEvent(node, &e), cuGraphEventRecordNodeGetEvent(node, &e),
            cuGraphMemAllocNodeGetParams(node, (void *)room), cuGraphMemFreeNodeGetParams(node, &p),
            cuGraphBatchMemOpNodeGetParams(node, (void *)room),
            cuGraphKernelNodeGetAttribute(node, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value), cuGraphNodeGetType(node, &type),
            cuGraphNodeGetDependencies(node, 0, 0, &n));
        FACT("%s, into NULL: kernel %d copy %d set %d host %d child %d wait %d record %d allocation %d free %d batch %d "
             "type %d, dependencies %d",
            k < KINDS ? kinds[k] : "NULL", cuGraphKernelNodeGetParams(node, 0), cuGraphMemcpyNodeGetParams(node, 0),
            cuGraphMemsetNodeGetParams(node, 0), cuGraphHostNodeGetParams(node, 0), cuGraphChildGraphNodeGetGraph(node, 0),
            cuGraphEventWaitNodeGetEvent(node, 0), cuGraphEventRecordNodeGetEvent(node, 0), cuGraphMemAllocNodeGetParams(node, 0),
            cuGraphMemFreeNodeGetParams(node, 0), cuGraphBatchMemOpNodeGetParams(node, 0), cuGraphNodeGetType(node, 0), cuGraphNodeGetDependencies(node, 0, 0, 0));
    }
    drop_all(&a);
}

static void general(struct all *a, int kind, CUgraphNodeParams *p)
{
    static const int types[KINDS] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13};
    memset(p, 0, sizeof *p);
    p->type = (CUgraphNodeType)types[kind];
    switch (kind) {
    case KERNEL: memcpy(&p->kernel, &a->kernel, sizeof a->kernel); break;
    case COPY: p->memcpy.copyCtx = context, p->memcpy.copyParams = a->copy; break;
    case SET: memcpy(&p->memset, &a->set, sizeof a->set), p->memset.ctx = context; break;
    case HOST: p->host.fn = host_function; break;
    case CHILD: p->graph.graph = a->inner; break;
    case WAIT: p->eventWait.event = a->event; break;
    case RECORD: p->eventRecord.event = a->event; break;
    case BATCH: memcpy(&p->memOp, &a->batch, sizeof a->batch); break;
    case FREE: p->free.dptr = a->data; break;
    default: break;
    }
}

CASE(every_setter_of_every_kind)
{
    struct all a;
    CUgraphNodeParams p;
    if (make_all(&a, 1))
        return;
    for (int k = 0; k <= KINDS; k++) {
        CUgraphNode node = k < KINDS ? a.node[k] : 0;
        CUkernelNodeAttrValue value;
        char text[300] = "";
        memset(&value, 0, sizeof value);
        FACT("%s: kernel %d copy %d set %d host %d wait %d record %d batch %d attribute %d, copied %d from %d", k < KINDS ? kinds[k] : "NULL",
            cuGraphKernelNodeSetParams(node, &a.kernel), cuGraphMemcpyNodeSetParams(node, &a.copy), cuGraphMemsetNodeSetParams(node, &a.set),
            cuGraphHostNodeSetParams(node, &a.host), cuGraphEventWaitNodeSetEvent(node, a.event), cuGraphEventRecordNodeSetEvent(node, a.event),
            cuGraphBatchMemOpNodeSetParams(node, &a.batch), cuGraphKernelNodeSetAttribute(node, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value),
            cuGraphKernelNodeCopyAttributes(node, a.node[KERNEL]), cuGraphKernelNodeCopyAttributes(a.node[KERNEL], node));
        FACT("%s, to NULL: kernel %d copy %d set %d host %d wait %d record %d batch %d", k < KINDS ? kinds[k] : "NULL",
            cuGraphKernelNodeSetParams(node, 0), cuGraphMemcpyNodeSetParams(node, 0), cuGraphMemsetNodeSetParams(node, 0),
            cuGraphHostNodeSetParams(node, 0), cuGraphEventWaitNodeSetEvent(node, 0), cuGraphEventRecordNodeSetEvent(node, 0),
            cuGraphBatchMemOpNodeSetParams(node, 0));
        for (int of = 0; of < KINDS; of++) {
            general(&a, of, &p);
            snprintf(text + strlen(text), sizeof text - strlen(text), " %s %d", kinds[of], (int)cuGraphNodeSetParams(node, &p));
        }
        FACT("%s, generally:%s, NULL %d", k < KINDS ? kinds[k] : "NULL", text, (int)cuGraphNodeSetParams(node, 0));
    }
    drop_all(&a);
}

CASE(every_executable_setter_of_every_kind)
{
    struct all a;
    CUgraphNodeParams p;
    CUgraphExec exec;
    CUgraph other;
    CUgraphNode foreign, late;
    unsigned enabled = 9;
    if (make_all(&a, 0))
        return;
    NEED(cuGraphInstantiate(&exec, a.graph, 0));
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphAddKernelNode(&foreign, other, 0, 0, &a.kernel));
    NEED(cuGraphAddKernelNode(&late, a.graph, 0, 0, &a.kernel));
    for (int k = 0; k < KINDS + 3; k++) {
        CUgraphNode node = k < KINDS ? a.node[k] : k == KINDS ? foreign : k == KINDS + 1 ? late : 0;
        const char *what = k < KINDS ? kinds[k] : k == KINDS ? "of another graph" : k == KINDS + 1 ? "added afterwards" : "NULL";
        char text[300] = "";
        if (k < KINDS && !node)
            continue;
        FACT("%s: kernel %d copy %d set %d host %d child %d wait %d record %d batch %d, enabled %d %d, asked %d %d", what,
            cuGraphExecKernelNodeSetParams(exec, node, &a.kernel), cuGraphExecMemcpyNodeSetParams(exec, node, &a.copy, context),
            cuGraphExecMemsetNodeSetParams(exec, node, &a.set, context), cuGraphExecHostNodeSetParams(exec, node, &a.host),
            cuGraphExecChildGraphNodeSetParams(exec, node, a.inner), cuGraphExecEventWaitNodeSetEvent(exec, node, a.event),
            cuGraphExecEventRecordNodeSetEvent(exec, node, a.event), cuGraphExecBatchMemOpNodeSetParams(exec, node, &a.batch),
            cuGraphNodeSetEnabled(exec, node, 0), cuGraphNodeSetEnabled(exec, node, 1), cuGraphNodeGetEnabled(exec, node, &enabled),
            cuGraphNodeGetEnabled(exec, node, 0));
        FACT("%s, to NULL: kernel %d copy %d set %d host %d child %d wait %d record %d batch %d", what,
            cuGraphExecKernelNodeSetParams(exec, node, 0), cuGraphExecMemcpyNodeSetParams(exec, node, 0, context),
            cuGraphExecMemsetNodeSetParams(exec, node, 0, context), cuGraphExecHostNodeSetParams(exec, node, 0),
            cuGraphExecChildGraphNodeSetParams(exec, node, 0), cuGraphExecEventWaitNodeSetEvent(exec, node, 0),
            cuGraphExecEventRecordNodeSetEvent(exec, node, 0), cuGraphExecBatchMemOpNodeSetParams(exec, node, 0));
        for (int of = 0; of < KINDS; of++) {
            general(&a, of, &p);
            snprintf(text + strlen(text), sizeof text - strlen(text), " %s %d", kinds[of], (int)cuGraphExecNodeSetParams(exec, node, &p));
        }
        FACT("%s, generally:%s, NULL %d", what, text, (int)cuGraphExecNodeSetParams(exec, node, 0));
        FACT("%s, no executable graph: kernel %d, general %d, enabled %d %d", what, cuGraphExecKernelNodeSetParams(0, node, &a.kernel),
            cuGraphExecNodeSetParams(0, node, &p), cuGraphNodeSetEnabled(0, node, 1), cuGraphNodeGetEnabled(0, node, &enabled));
    }
    R(cuGraphNodeSetEnabled(exec, a.node[KERNEL], 7));
    R(cuGraphNodeGetEnabled(exec, a.node[KERNEL], &enabled));
    FACT("enabled %u", enabled);
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(other));
    drop_all(&a);
}

/* The places of an adder: the node, the graph, what it depends on. */
CASE(every_adder_s_places)
{
    struct all a;
    CUgraphNode made, foreign, twice[2];
    CUgraph other;
    CUgraphNodeParams p;
    CUgraphEdgeData edge;
    if (make_all(&a, 0))
        return;
    NEED(cuGraphCreate(&other, 0));
    NEED(cuGraphAddEmptyNode(&foreign, other, 0, 0));
    twice[0] = twice[1] = a.node[EMPTY];
#define PLACES(what, to, g, deps, n) do { \
        general(&a, SET, &p); \
        FACT("%s: empty %d kernel %d copy %d set %d host %d child %d wait %d record %d batch %d free %d any %d", what, cuGraphAddEmptyNode(to, g, deps, n), \
            cuGraphAddKernelNode(to, g, deps, n, &a.kernel), cuGraphAddMemcpyNode(to, g, deps, n, &a.copy, context), \
            cuGraphAddMemsetNode(to, g, deps, n, &a.set, context), cuGraphAddHostNode(to, g, deps, n, &a.host), \
            cuGraphAddChildGraphNode(to, g, deps, n, a.inner), cuGraphAddEventWaitNode(to, g, deps, n, a.event), \
            cuGraphAddEventRecordNode(to, g, deps, n, a.event), cuGraphAddBatchMemOpNode(to, g, deps, n, &a.batch), \
            cuGraphAddMemFreeNode(to, g, deps, n, a.data), cuGraphAddNode(to, g, deps, 0, n, &p)); \
    } while (0)
    PLACES("no place for the node", 0, a.graph, 0, 0);
    PLACES("no graph", &made, 0, 0, 0);
    PLACES("no list", &made, a.graph, 0, 1);
    PLACES("a list of none", &made, a.graph, &foreign, 0);
    PLACES("a node of another graph", &made, a.graph, &foreign, 1);
    PLACES("a node twice", &made, a.graph, twice, 2);
#undef PLACES
    general(&a, SET, &p);
    memset(&edge, 0, sizeof edge);
    R(cuGraphAddNode(&made, a.graph, &a.node[EMPTY], &edge, 1, &p));
    edge.type = 1;
    R(cuGraphAddNode(&made, a.graph, &a.node[EMPTY], &edge, 1, &p));
    R(cuGraphAddNode(&made, a.graph, &a.node[KERNEL], &edge, 1, &p));
    edge.from_port = 1;
    R(cuGraphAddNode(&made, a.graph, &a.node[KERNEL], &edge, 1, &p));
    general(&a, KERNEL, &p);
    R(cuGraphAddNode(&made, a.graph, &a.node[KERNEL], &edge, 1, &p));
    edge.from_port = 9;
    R(cuGraphAddNode(&made, a.graph, &a.node[KERNEL], &edge, 1, &p));
    edge.from_port = 0;
    edge.reserved[0] = 1;
    R(cuGraphAddNode(&made, a.graph, &a.node[KERNEL], &edge, 1, &p));
    R(cuGraphDestroy(other));
    drop_all(&a);
}

LONELY(adders_with_null_in_the_list)
{
    CUgraph g;
    CUgraphNode made, null = 0;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphAddEmptyNode(&made, g, &null, 1));
    R(cuGraphAddDependencies(g, &null, &made, 0, 1));
}

LONELY(a_child_s_graph_destroyed)
{
    CUgraph g, inner, found;
    CUgraphNode child;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&inner, 0));
    NEED(cuGraphAddChildGraphNode(&child, g, 0, 0, inner));
    R(cuGraphChildGraphNodeGetGraph(child, &found));
    R(cuGraphDestroy(found));
}

/* --- children and conditions ---------------------------------------------------------------------------------------------------------- */

CASE(child_nodes)
{
    CUgraph g, inner, two, kernel, conditional, found;
    CUgraphNode child, a, b, k, made;
    CUgraphExec exec;
    CUgraphConditionalHandle handle;
    CUgraphNodeParams p;
    struct add args;
    CUdeviceptr data = memory();
    CUDA_KERNEL_NODE_PARAMS q = adding(&args, data);
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphCreate(&inner, 0));
    NEED(cuGraphCreate(&two, 0));
    NEED(cuGraphCreate(&kernel, 0));
    NEED(cuGraphCreate(&conditional, 0));
    NEED(cuGraphAddEmptyNode(&a, inner, 0, 0));
    NEED(cuGraphAddEmptyNode(&a, two, 0, 0));
    NEED(cuGraphAddEmptyNode(&b, two, &a, 1));
    NEED(cuGraphAddKernelNode(&k, kernel, 0, 0, &q));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    p.conditional.type = CU_GRAPH_COND_TYPE_IF;
    p.conditional.size = 1;
    p.conditional.ctx = context;
    NEED(cuGraphConditionalHandleCreate(&handle, conditional, context, 1, 0));
    p.conditional.handle = handle;
    NEED(cuGraphAddNode(&made, conditional, 0, 0, 0, &p));
    NEED(cuGraphAddChildGraphNode(&child, g, 0, 0, inner));
    R(cuGraphAddChildGraphNode(&made, g, 0, 0, 0));
    R(cuGraphAddChildGraphNode(&made, g, 0, 0, conditional));
    R(cuGraphChildGraphNodeGetGraph(child, &found));
    R(cuGraphAddEmptyNode(&made, found, 0, 0));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_GRAPH;
    R(cuGraphAddNode(&made, g, 0, 0, 0, &p));
    p.graph.graph = inner;
    p.graph.ownership = (CUgraphChildGraphNodeOwnership)9;
    R(cuGraphAddNode(&made, g, 0, 0, 0, &p));
    p.graph.ownership = CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE;
    R(cuGraphNodeSetParams(child, &p));
    NEED(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphExecChildGraphNodeSetParams(exec, child, inner));
    R(cuGraphExecChildGraphNodeSetParams(exec, child, two));
    R(cuGraphExecChildGraphNodeSetParams(exec, child, kernel));
    R(cuGraphExecChildGraphNodeSetParams(exec, child, 0));
    R(cuGraphExecNodeSetParams(exec, child, &p));
    R(cuGraphExecDestroy(exec));
    R(cuGraphDestroy(conditional));
    R(cuGraphDestroy(kernel));
    R(cuGraphDestroy(two));
    R(cuGraphDestroy(inner));
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}

static void try_condition(const char *what, CUgraph g, CUgraphNodeParams p)
{
    CUgraphNode made = 0;
    CUgraph none = (CUgraph)7;
    p.conditional.phGraph_out = &none;
    CUresult r = cuGraphAddNode(&made, g, 0, 0, 0, &p);
    FACT("%s: %d, bodies %s", what, (int)r, p.conditional.phGraph_out == &none ? "untouched" : p.conditional.phGraph_out ? "given" : "NULL");
    if (!r)
        cuGraphDestroyNode(made);
}

CASE(condition_nodes)
{
    CUgraph g, other = 0;
    CUgraphNode made;
    CUgraphExec exec = 0;
    CUgraphConditionalHandle handle = 7, second;
    CUgraphNodeParams good, p;
    NEED(cuGraphCreate(&g, 0));
    R(cuGraphConditionalHandleCreate(&handle, g, 0, 1, 0));
    R(cuGraphConditionalHandleCreate(&handle, g, context, 1, 2));
    R(cuGraphConditionalHandleCreate(&handle, g, context, 5, 1));
    NEED(cuGraphConditionalHandleCreate(&handle, g, context, 1, 0));
    NEED(cuGraphConditionalHandleCreate(&second, g, context, 1, 0));
    memset(&good, 0, sizeof good);
    good.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    good.conditional.handle = handle;
    good.conditional.type = CU_GRAPH_COND_TYPE_IF;
    good.conditional.size = 1;
    good.conditional.ctx = context;
#define TRY(what, ...) do { p = good; __VA_ARGS__; try_condition(what, g, p); } while (0)
    TRY("type 9", p.conditional.type = (CUgraphConditionalNodeType)9);
    TRY("if of 0", p.conditional.size = 0);
    TRY("if of 3", p.conditional.size = 3);
    TRY("while of 0", p.conditional.type = CU_GRAPH_COND_TYPE_WHILE, p.conditional.size = 0);
    TRY("while of 2", p.conditional.type = CU_GRAPH_COND_TYPE_WHILE, p.conditional.size = 2);
    TRY("switch of 0", p.conditional.type = CU_GRAPH_COND_TYPE_SWITCH, p.conditional.size = 0);
    TRY("no context", p.conditional.ctx = 0);
    TRY("as it is", (void)0);
    TRY("again", (void)0);
#undef TRY
    p = good;
    R(cuGraphAddNode(&made, g, 0, 0, 0, &p));
    R(cuGraphNodeSetParams(made, &p));
    R(cuGraphClone(&other, g));
    R(cuGraphInstantiate(&exec, g, 0));
    R(cuGraphDestroy(g));
}

LONELY(condition_node_without_a_handle)
{
    CUgraph g;
    CUgraphNodeParams p;
    NEED(cuGraphCreate(&g, 0));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    p.conditional.type = CU_GRAPH_COND_TYPE_IF;
    p.conditional.size = 1;
    p.conditional.ctx = context;
    try_condition("no handle", g, p);
}

LONELY(condition_node_with_a_wrong_handle)
{
    CUgraph g;
    CUgraphNodeParams p;
    NEED(cuGraphCreate(&g, 0));
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
    p.conditional.handle = 0x1234;
    p.conditional.type = CU_GRAPH_COND_TYPE_IF;
    p.conditional.size = 1;
    p.conditional.ctx = context;
    try_condition("a wrong handle", g, p);
}

/* --- attributes -------------------------------------------------------------------------------------------------------------------- */

CASE(attributes)
{
    CUgraph g;
    CUgraphNode a;
    struct add args;
    CUdeviceptr data = memory();
    CUDA_KERNEL_NODE_PARAMS p = adding(&args, data);
    CUkernelNodeAttrValue v;
    NEED(cuGraphCreate(&g, 0));
    NEED(cuGraphAddKernelNode(&a, g, 0, 0, &p));
    for (int i = 0; i <= 20; i++) {
        memset(&v, 0x5a, sizeof v);
        CUresult got = cuGraphKernelNodeGetAttribute(a, (CUkernelNodeAttrID)i, &v);
        char text[200] = "";
        for (unsigned w = 0; w < sizeof v / 4 && !got; w++)
            snprintf(text + strlen(text), sizeof text - strlen(text), " %x", ((unsigned *)&v)[w]);
        FACT("attribute %d: %d%s", i, (int)got, text);
    }
    for (int i = 0; i <= 20; i++) {
        memset(&v, 0, sizeof v);
        CUresult zero = cuGraphKernelNodeSetAttribute(a, (CUkernelNodeAttrID)i, &v);
        ((int *)&v)[0] = 1;
        ((int *)&v)[1] = ((int *)&v)[2] = 1;
        /* 1 names memory, 7 and 12 events, 13 asks for a handle. */
        int named = i == 1 || i == 7 || i == 12 || i == 13;
        CUresult ones = named ? zero : cuGraphKernelNodeSetAttribute(a, (CUkernelNodeAttrID)i, &v);
        ((int *)&v)[0] = 77;
        CUresult more = named ? zero : cuGraphKernelNodeSetAttribute(a, (CUkernelNodeAttrID)i, &v);
        FACT("attribute %d: 0 %d, 1 %d, 77 %d", i, (int)zero, (int)ones, (int)more);
        memset(&v, 0, sizeof v);
        cuGraphKernelNodeSetAttribute(a, (CUkernelNodeAttrID)i, &v);
    }
    for (int c = -2; c <= 3; c++) {
        memset(&v, 0, sizeof v);
        v.cooperative = c;
        CUresult r = cuGraphKernelNodeSetAttribute(a, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v);
        v.cooperative = 99;
        cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v);
        FACT("cooperative %d: %d, is %d", c, (int)r, v.cooperative);
    }
    for (int c = -9; c <= 9; c++) {
        memset(&v, 0, sizeof v);
        v.priority = c;
        CUresult r = cuGraphKernelNodeSetAttribute(a, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v);
        v.priority = 99;
        cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v);
        FACT("priority %d: %d, is %d", c, (int)r, v.priority);
    }
    static const unsigned windows[][3] = {{256, 1, 2}, {0, 0, 0}, {256, 2, 2}, {256, 2, 1}, {256, 0, 1}, {256, 2, 0}, {1 << 30, 2, 1}, {256, 9, 0}};
    for (unsigned w = 0; w < sizeof windows / sizeof *windows; w++)
        for (int ratio = -1; ratio <= 3; ratio++) {
            memset(&v, 0, sizeof v);
            v.accessPolicyWindow.base_ptr = (void *)data;
            v.accessPolicyWindow.num_bytes = windows[w][0];
            v.accessPolicyWindow.hitRatio = (float)ratio / 2;
            v.accessPolicyWindow.hitProp = (CUaccessProperty)windows[w][1];
            v.accessPolicyWindow.missProp = (CUaccessProperty)windows[w][2];
            CUresult r = cuGraphKernelNodeSetAttribute(a, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &v);
            memset(&v, 0, sizeof v);
            cuGraphKernelNodeGetAttribute(a, CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW, &v);
            FACT("window of %u, %u %u, %d/2: %d, is %zu %d %d", windows[w][0], windows[w][1], windows[w][2], ratio, (int)r, v.accessPolicyWindow.num_bytes,
                (int)v.accessPolicyWindow.hitProp, (int)v.accessPolicyWindow.missProp);
        }
    R(cuGraphDestroy(g));
    R(cuMemFree(data));
}
