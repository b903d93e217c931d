//! Graphs and capture (CUDA Driver API, "Graph Management", "Stream Management").

use crate::types::*;

cuda_api_macros::calls! { graph;
    /// Begins to capture a stream.
    0x0b01 sync custom "guest-driver/libcuda/src/capture.rs" ptsz fn cuStreamBeginCapture_v2(hStream: CUstream, mode: u32)
        wire (stream: CUstream, mode: u32);
    /// Ends a capture.
    0x0b0d sync custom "guest-driver/libcuda/src/capture.rs" over vgpuStreamEndCapture ptsz
        fn cuStreamEndCapture(hStream: CUstream, phGraph: *mut CUgraph);
    /// A capture's state.
    0x0b03 sync custom "guest-driver/libcuda/src/capture.rs" ptsz
        fn cuStreamGetCaptureInfo_v3(hStream: CUstream, captureStatus_out: *mut u32, id_out: *mut u64, graph_out: *mut CUgraph,
            dependencies_out: *mut *const CUgraphNode, edgeData_out: *mut *const core::ffi::c_void, numDependencies_out: *mut usize)
        wire (stream: CUstream) -> (info: CaptureInfo, dependencies: Vec<u64>, edges: Vec<u64>);
    /// Ends a capture; its graph is named as the guest proposes, or has the name that it was given before.
    0x0b05 sync internal fn vgpuStreamEndCapture() wire (stream: CUstream, graph: CUgraph) -> (graph: CUgraph);
    /// A capture's state with its graph, which is named as the guest proposes, or has the name that it was given before.
    0x0b06 sync internal fn vgpuStreamCaptureInfo() wire (stream: CUstream, graph: CUgraph)
        -> (info: CaptureInfo, dependencies: Vec<u64>, edges: Vec<u64>);
    /// Begins to capture a stream into a graph that there is already.
    0x0b07 sync custom "guest-driver/libcuda/src/capture.rs" ptsz
        fn cuStreamBeginCaptureToGraph(hStream: CUstream, hGraph: CUgraph, dependencies: *const CUgraphNode,
            dependencyData: *const core::ffi::c_void, numDependencies: usize, mode: u32)
        wire (stream: CUstream, graph: CUgraph, dependencies: Vec<u64>, edges: Vec<u64>, mode: u32);
    /// Changes what the next captured node will depend on.
    0x0b08 sync custom "guest-driver/libcuda/src/capture.rs" ptsz
        fn cuStreamUpdateCaptureDependencies_v2(hStream: CUstream, dependencies: *mut CUgraphNode,
            dependencyData: *const core::ffi::c_void, numDependencies: usize, flags: u32)
        wire (stream: CUstream, dependencies: Vec<u64>, edges: Vec<u64>, flags: u32);
    /// Changes what the next captured node will depend on.
    0x0b09 sync custom "guest-driver/libcuda/src/capture.rs" over cuStreamUpdateCaptureDependencies_v2 ptsz
        fn cuStreamUpdateCaptureDependencies(hStream: CUstream, dependencies: *mut CUgraphNode, numDependencies: usize, flags: u32);
    /// Begins to capture a stream, in mode GLOBAL.
    0x0b0a sync custom "guest-driver/libcuda/src/capture.rs" over cuStreamBeginCapture_v2 ptsz fn cuStreamBeginCapture(hStream: CUstream);
    /// A capture's state and number.
    0x0b0b sync custom "guest-driver/libcuda/src/capture.rs" over cuStreamGetCaptureInfo_v3 ptsz
        fn cuStreamGetCaptureInfo(hStream: CUstream, captureStatus_out: *mut u32, id_out: *mut u64);
    /// A capture's state, where no edge has data.
    0x0b0c sync custom "guest-driver/libcuda/src/capture.rs" over vgpuStreamCaptureInfo ptsz
        fn cuStreamGetCaptureInfo_v2(hStream: CUstream, captureStatus_out: *mut u32, id_out: *mut u64, graph_out: *mut CUgraph,
            dependencies_out: *mut *const CUgraphNode, numDependencies_out: *mut usize);
    /// Exchanges the thread's capture mode, which is the guest's until a frame needs it.
    0x0b04 local "guest-driver/libcuda/src/capture.rs" fn cuThreadExchangeStreamCaptureMode(mode: *mut u32);
    /// Makes an executable graph; the guest names it.
    0x0b10 sync may_block fn cuGraphInstantiateWithFlags(new phGraphExec: CUgraphExec, handle hGraph: CUgraph, flags: u64);
    /// Launches an executable graph.
    0x0b7c posted custom "guest-driver/libcuda/src/graph.rs" ptsz fn cuGraphLaunch(hGraphExec: CUgraphExec, hStream: CUstream)
        wire (hGraphExec: CUgraphExec, hStream: CUstream);
    /// Ends an executable graph.
    0x0b12 sync may_block fn cuGraphExecDestroy(free hGraphExec: CUgraphExec);
    /// Ends a graph.
    0x0b13 sync fn cuGraphDestroy(free hGraph: CUgraph);
    /// Updates an executable graph from a graph.
    0x0b14 sync custom "guest-driver/libcuda/src/capture.rs"
        fn cuGraphExecUpdate_v2(hGraphExec: CUgraphExec, hGraph: CUgraph, resultInfo: *mut CUgraphExecUpdateResultInfo)
        wire (hGraphExec: CUgraphExec, hGraph: CUgraph) -> (result: u32, info: CUgraphExecUpdateResultInfo);
    /// A graph's nodes.
    0x0b15 sync custom "guest-driver/libcuda/src/capture.rs"
        fn cuGraphGetNodes(hGraph: CUgraph, nodes: *mut CUgraphNode, numNodes: *mut usize)
        wire (hGraph: CUgraph, room: usize) -> (total: usize, nodes: Vec<u64>);

    /// Makes an empty graph; the guest names it.
    0x0b16 sync fn cuGraphCreate(new phGraph: CUgraph, flags: u32);
    /// Copies a graph; the guest names the copy.
    0x0b17 sync fn cuGraphClone(new phGraphClone: CUgraph, handle originalGraph: CUgraph);
    /// A node's copy in a copied graph.
    0x0b0e sync custom "guest-driver/libcuda/src/graph.rs"
        fn cuGraphNodeFindInClone(phNode: *mut CUgraphNode, hOriginalNode: CUgraphNode, hClonedGraph: CUgraph)
        wire (hOriginalNode: CUgraphNode, hClonedGraph: CUgraph) -> (phNode: CUgraphNode);
    /// Takes a node out of its graph.
    0x0b19 sync fn cuGraphDestroyNode(hNode: CUgraphNode);
    /// What a node does.
    0x0b7d sync custom "guest-driver/libcuda/src/graph_get.rs" fn cuGraphNodeGetType(hNode: CUgraphNode, nodeType: *mut u32)
        wire (hNode: CUgraphNode) -> (nodeType: u32);
    /// Whether a node does anything in an executable graph.
    0x0b7e sync custom "guest-driver/libcuda/src/graph_set.rs"
        fn cuGraphNodeGetEnabled(hGraphExec: CUgraphExec, hNode: CUgraphNode, isEnabled_out: *mut u32)
        wire (hGraphExec: CUgraphExec, hNode: CUgraphNode) -> (isEnabled: u32);
    /// Has a node do something in an executable graph, or nothing.
    0x0b7f sync custom "guest-driver/libcuda/src/graph_set.rs"
        fn cuGraphNodeSetEnabled(hGraphExec: CUgraphExec, hNode: CUgraphNode, isEnabled: u32)
        wire (hGraphExec: CUgraphExec, hNode: CUgraphNode, isEnabled: u32);
    /// The flags with which a graph was made executable.
    0x0b1d sync fn cuGraphExecGetFlags(handle hGraphExec: CUgraphExec, out flags: u64);
    /// Takes an executable graph to the device before its first launch.
    0x0b1e sync may_block ptsz fn cuGraphUpload(handle hGraphExec: CUgraphExec, handle hStream: CUstream);
    /// Copies a kernel node's attributes to another.
    0x0b1f sync fn cuGraphKernelNodeCopyAttributes(dst: CUgraphNode, src: CUgraphNode);
    /// A kernel node's attribute: 64 bytes of a union.
    0x0b20 sync custom "guest-driver/libcuda/src/graph_get.rs" fn cuGraphKernelNodeGetAttribute(hNode: CUgraphNode, attr: u32, value_out: *mut core::ffi::c_void)
        wire (hNode: CUgraphNode, attr: u32) -> (value: Vec<u64>);
    /// Sets a kernel node's attribute.
    0x0b21 sync custom "guest-driver/libcuda/src/graph_get.rs" fn cuGraphKernelNodeSetAttribute(hNode: CUgraphNode, attr: u32, value: *const core::ffi::c_void)
        wire (hNode: CUgraphNode, attr: u32, value: Vec<u64>);
    /// Has nodes depend on others.
    0x0b22 sync fn cuGraphAddDependencies(handle hGraph: CUgraph, in from: [CUgraphNode; numDependencies],
        in to: [CUgraphNode; numDependencies], numDependencies: usize);
    /// Has nodes no longer depend on others.
    0x0b23 sync fn cuGraphRemoveDependencies(handle hGraph: CUgraph, in from: [CUgraphNode; numDependencies],
        in to: [CUgraphNode; numDependencies], numDependencies: usize);
    /// Has nodes depend on others, with what the edges are for.
    0x0b24 sync custom "guest-driver/libcuda/src/graph.rs"
        fn cuGraphAddDependencies_v2(hGraph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edgeData: *const core::ffi::c_void,
            numDependencies: usize)
        wire (hGraph: CUgraph, from: Vec<u64>, to: Vec<u64>, edges: Vec<u64>);
    /// Has nodes no longer depend on others; edges are told apart by what they are for.
    0x0b25 sync custom "guest-driver/libcuda/src/graph.rs"
        fn cuGraphRemoveDependencies_v2(hGraph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edgeData: *const core::ffi::c_void,
            numDependencies: usize)
        wire (hGraph: CUgraph, from: Vec<u64>, to: Vec<u64>, edges: Vec<u64>);
    /// A part of a list of nodes or edges; `wants_edges`: with what the edges are for.
    0x0b26 sync internal fn vgpuGraphList() wire (what: u32, graph: CUgraph, node: CUgraphNode, wants_edges: bool, start: usize, room: usize)
        -> (total: usize, first: Vec<u64>, second: Vec<u64>, edges: Vec<u64>);
    /// The nodes that depend on none.
    0x0b27 sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphGetRootNodes(hGraph: CUgraph, rootNodes: *mut CUgraphNode, numRootNodes: *mut usize);
    /// Which nodes depend on which.
    0x0b28 sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphGetEdges(hGraph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, numEdges: *mut usize);
    /// Which nodes depend on which, and what the edges are for.
    0x0b29 sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphGetEdges_v2(hGraph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, edgeData: *mut core::ffi::c_void, numEdges: *mut usize);
    /// What a node depends on.
    0x0b2a sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphNodeGetDependencies(hNode: CUgraphNode, dependencies: *mut CUgraphNode, numDependencies: *mut usize);
    /// What a node depends on, and what the edges are for.
    0x0b2b sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphNodeGetDependencies_v2(hNode: CUgraphNode, dependencies: *mut CUgraphNode, edgeData: *mut core::ffi::c_void,
            numDependencies: *mut usize);
    /// What depends on a node.
    0x0b2c sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphNodeGetDependentNodes(hNode: CUgraphNode, dependentNodes: *mut CUgraphNode, numDependentNodes: *mut usize);
    /// What depends on a node, and what the edges are for.
    0x0b2d sync custom "guest-driver/libcuda/src/graph.rs" over vgpuGraphList
        fn cuGraphNodeGetDependentNodes_v2(hNode: CUgraphNode, dependentNodes: *mut CUgraphNode, edgeData: *mut core::ffi::c_void,
            numDependentNodes: *mut usize);

    /// Adds a node. `params` is a [`crate::graph_node::Node`], `data` a kernel's parameters as one buffer; `general`: by cuGraphAddNode
    /// and not by the call for the node's type. What the driver chooses comes back: the address of an allocation.
    0x0b30 sync internal fn vgpuGraphAddNode()
        wire (graph: CUgraph, dependencies: Vec<u64>, edges: Vec<u64>, general: bool, params: Vec<u64>, bytes data)
        -> (node: CUgraphNode, made: Vec<u64>);
    /// Changes a node.
    0x0b31 sync internal fn vgpuGraphNodeSetParams() wire (node: CUgraphNode, general: bool, params: Vec<u64>, bytes data);
    /// Changes a node's copy in an executable graph.
    0x0b32 sync internal fn vgpuGraphExecNodeSetParams()
        wire (exec: CUgraphExec, node: CUgraphNode, general: bool, params: Vec<u64>, bytes data);
    /// A node's parameters as they are, and the graph that it is in.
    0x0b33 sync internal fn vgpuGraphNodeGetParams() wire (node: CUgraphNode, kind: u32)
        -> (graph: CUgraph, params: Vec<u64>, data: Vec<u8>);
    /// Adds a node that does nothing.
    0x0b34 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddEmptyNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize);
    /// Adds a kernel.
    0x0b35 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddKernelNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const core::ffi::c_void);
    /// Adds a kernel.
    0x0b36 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddKernelNode_v2(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const core::ffi::c_void);
    /// Adds a copy. From or to ordinary memory it is a graph of a host function and a copy.
    0x0b37 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddMemcpyNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, copyParams: *const core::ffi::c_void, ctx: CUcontext);
    /// Adds a fill.
    0x0b38 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddMemsetNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, memsetParams: *const core::ffi::c_void, ctx: CUcontext);
    /// Adds a graph as a node.
    0x0b39 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddChildGraphNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, childGraph: CUgraph);
    /// Adds the recording of an event.
    0x0b3a sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddEventRecordNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, event: CUevent);
    /// Adds the waiting for an event.
    0x0b3b sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddEventWaitNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, event: CUevent);
    /// Adds an allocation; its address is known at once.
    0x0b3c sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddMemAllocNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *mut core::ffi::c_void);
    /// Adds the freeing of a graph's allocation.
    0x0b3d sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddMemFreeNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, dptr: CUdeviceptr);
    /// Adds operations on words.
    0x0b3e sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddBatchMemOpNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const core::ffi::c_void);
    /// Adds a node of any type.
    0x0b3f sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *mut core::ffi::c_void);
    /// Adds a node of any type, with what the edges are for.
    0x0b40 sync custom "guest-driver/libcuda/src/graph_add.rs" over vgpuGraphAddNode
        fn cuGraphAddNode_v2(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode,
            dependencyData: *const core::ffi::c_void, numDependencies: usize, nodeParams: *mut core::ffi::c_void);
    /// Changes a kernel node.
    0x0b41 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphKernelNodeSetParams(hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a kernel node.
    0x0b42 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphKernelNodeSetParams_v2(hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a copy node.
    0x0b43 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphMemcpyNodeSetParams(hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a fill node.
    0x0b44 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphMemsetNodeSetParams(hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes the event that a node records.
    0x0b45 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphEventRecordNodeSetEvent(hNode: CUgraphNode, event: CUevent);
    /// Changes the event that a node waits for.
    0x0b46 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphEventWaitNodeSetEvent(hNode: CUgraphNode, event: CUevent);
    /// Changes a node's operations on words.
    0x0b47 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphBatchMemOpNodeSetParams(hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a node of any type.
    0x0b48 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphNodeSetParams
        fn cuGraphNodeSetParams(hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void);
    /// Changes a kernel in an executable graph.
    0x0b49 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecKernelNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a kernel in an executable graph.
    0x0b4a sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecKernelNodeSetParams_v2(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a copy in an executable graph.
    0x0b4b sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecMemcpyNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, copyParams: *const core::ffi::c_void, ctx: CUcontext);
    /// Changes a fill in an executable graph.
    0x0b4c sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecMemsetNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, memsetParams: *const core::ffi::c_void, ctx: CUcontext);
    /// Changes a graph in an executable graph.
    0x0b4d sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecChildGraphNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, childGraph: CUgraph);
    /// Changes an event that an executable graph records.
    0x0b4e sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecEventRecordNodeSetEvent(hGraphExec: CUgraphExec, hNode: CUgraphNode, event: CUevent);
    /// Changes an event that an executable graph waits for.
    0x0b4f sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecEventWaitNodeSetEvent(hGraphExec: CUgraphExec, hNode: CUgraphNode, event: CUevent);
    /// Changes operations on words in an executable graph.
    0x0b50 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecBatchMemOpNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const core::ffi::c_void);
    /// Changes a node of any type in an executable graph.
    0x0b51 sync custom "guest-driver/libcuda/src/graph_set.rs" over vgpuGraphExecNodeSetParams
        fn cuGraphExecNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void);
    /// A kernel node's parameters.
    0x0b52 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphKernelNodeGetParams(hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void);
    /// A kernel node's parameters.
    0x0b53 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphKernelNodeGetParams_v2(hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void);
    /// A copy node's parameters.
    0x0b54 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphMemcpyNodeGetParams(hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void);
    /// A fill node's parameters.
    0x0b55 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphMemsetNodeGetParams(hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void);
    /// The event that a node records.
    0x0b56 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphEventRecordNodeGetEvent(hNode: CUgraphNode, event_out: *mut CUevent);
    /// The event that a node waits for.
    0x0b57 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphEventWaitNodeGetEvent(hNode: CUgraphNode, event_out: *mut CUevent);
    /// An allocation node's parameters.
    0x0b58 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphMemAllocNodeGetParams(hNode: CUgraphNode, params_out: *mut core::ffi::c_void);
    /// The address that a node frees.
    0x0b59 sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphMemFreeNodeGetParams(hNode: CUgraphNode, dptr_out: *mut CUdeviceptr);
    /// A node's operations on words.
    0x0b5a sync custom "guest-driver/libcuda/src/graph_get.rs" over vgpuGraphNodeGetParams
        fn cuGraphBatchMemOpNodeGetParams(hNode: CUgraphNode, nodeParams_out: *mut core::ffi::c_void);
    /// The graph in a node; it is named as the guest proposes, or has the name that it was given before.
    0x0b62 sync custom "guest-driver/libcuda/src/graph_get.rs" fn cuGraphChildGraphNodeGetGraph(hNode: CUgraphNode, phGraph: *mut CUgraph)
        wire (hNode: CUgraphNode, graph: CUgraph) -> (graph: CUgraph, parent: CUgraph);
    /// A value that kernels set and a conditional node looks at. The number is the driver's own: it is a kernel's parameter.
    0x0b63 sync fn cuGraphConditionalHandleCreate(out pHandle_out: u64, handle hGraph: CUgraph, ctx: CUcontext, defaultLaunchValue: u32,
        flags: u32);
    /// Makes an executable graph; what became of it comes back, well or not.
    0x0b64 sync may_block custom "guest-driver/libcuda/src/graph.rs" ptsz
        fn cuGraphInstantiateWithParams(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, instantiateParams: *mut core::ffi::c_void)
        wire (exec: CUgraphExec, graph: CUgraph, flags: u64, stream: CUstream) -> (outcome: u32, result: u32, node: CUgraphNode);
    /// Makes an executable graph, as before CUDA 12.
    0x0b65 sync may_block custom "guest-driver/libcuda/src/graph.rs"
        fn cuGraphInstantiate_v2(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, phErrorNode: *mut CUgraphNode,
            logBuffer: *mut core::ffi::c_char, bufferSize: usize)
        wire (exec: CUgraphExec, graph: CUgraph, room: usize) -> (outcome: u32, node: CUgraphNode, log: Vec<u8>);
    /// Makes an executable graph, as before CUDA 11.
    0x0b66 sync may_block custom "guest-driver/libcuda/src/graph.rs" over cuGraphInstantiate_v2
        fn cuGraphInstantiate(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, phErrorNode: *mut CUgraphNode,
            logBuffer: *mut core::ffi::c_char, bufferSize: usize);
    /// Updates an executable graph from a graph, as before CUDA 12.
    0x0b67 sync custom "guest-driver/libcuda/src/graph.rs" over cuGraphExecUpdate_v2
        fn cuGraphExecUpdate(hGraphExec: CUgraphExec, hGraph: CUgraph, hErrorNode_out: *mut CUgraphNode, updateResult_out: *mut u32);
    /// Memory that graphs have on a device.
    0x0b68 sync custom "guest-driver/libcuda/src/graph.rs" fn cuDeviceGetGraphMemAttribute(device: CUdevice, attr: u32, value: *mut core::ffi::c_void)
        wire (device: i32, attr: u32) -> (value: u64);
    /// Resets a high-water mark of graphs' memory.
    0x0b69 sync custom "guest-driver/libcuda/src/graph.rs" fn cuDeviceSetGraphMemAttribute(device: CUdevice, attr: u32, value: *mut core::ffi::c_void)
        wire (device: i32, attr: u32, value: u64);
    /// Gives memory back that graphs do not use at present.
    0x0b6a sync may_block custom "guest-driver/libcuda/src/graph.rs" fn cuDeviceGraphMemTrim(device: CUdevice) wire (device: i32);

    /// Adds a function of the program's, which the guest names by a number and keeps until no graph has it.
    0x0b70 sync custom "guest-driver/libcuda/src/host_node.rs"
        fn cuGraphAddHostNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode,
            numDependencies: usize, nodeParams: *const core::ffi::c_void)
        wire (graph: CUgraph, dependencies: Vec<u64>, token: u64) -> (node: u64);
    /// A host node's function.
    0x0b71 sync custom "guest-driver/libcuda/src/host_node.rs"
        fn cuGraphHostNodeGetParams(hNode: CUgraphNode, nodeParams: *mut core::ffi::c_void) wire (node: u64) -> (token: u64);
    /// Changes a host node's function.
    0x0b72 sync custom "guest-driver/libcuda/src/host_node.rs"
        fn cuGraphHostNodeSetParams(hNode: CUgraphNode, nodeParams: *const core::ffi::c_void) wire (node: u64, token: u64);
    /// Changes a host node's function in an executable graph.
    0x0b73 sync custom "guest-driver/libcuda/src/host_node.rs"
        fn cuGraphExecHostNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const core::ffi::c_void)
        wire (exec: CUgraphExec, node: u64, token: u64);
    /// Makes an object whose destructor is a function of the program's.
    0x0b74 sync custom "guest-driver/libcuda/src/host_node.rs"
        fn cuUserObjectCreate(object_out: *mut CUuserObject, ptr: *mut core::ffi::c_void, destroy: *mut core::ffi::c_void,
            initialRefcount: u32, flags: u32)
        wire (object: CUuserObject, token: u64, count: u32, flags: u32);
    /// References more to an object.
    0x0b75 sync fn cuUserObjectRetain(handle object: CUuserObject, count: u32);
    /// References less to an object.
    0x0b76 sync fn cuUserObjectRelease(handle object: CUuserObject, count: u32);
    /// References of a graph's to an object.
    0x0b77 sync fn cuGraphRetainUserObject(handle graph: CUgraph, handle object: CUuserObject, count: u32, flags: u32);
    /// References less of a graph's to an object.
    0x0b78 sync fn cuGraphReleaseUserObject(handle graph: CUgraph, handle object: CUuserObject, count: u32);

    // Refused: the driver would write a file of the host's, with the host's addresses in it.
    0x0b99 refused "the driver would write a file of the host's, with the host's addresses in it" fn cuGraphDebugDotPrint;
}
