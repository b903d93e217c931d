//! Graphs and capture (CUDA Driver API, "Graph Management", "Stream Management").

use crate::types::*;

cuda_api_macros::calls! { graph;
    /// Begins to capture a stream.
    0x0b01 sync custom "guest-driver/libcuda/src/capture.rs" ptsz fn cuStreamBeginCapture_v2(hStream: CUstream, mode: u32)
        wire (stream: CUstream, mode: u32);
    /// Ends a capture; the guest names the graph.
    0x0b02 sync custom "guest-driver/libcuda/src/capture.rs" ptsz fn cuStreamEndCapture(hStream: CUstream, phGraph: *mut CUgraph)
        wire (stream: CUstream, graph: CUgraph);
    /// A capture's state.
    0x0b03 sync custom "guest-driver/libcuda/src/capture.rs" ptsz
        fn cuStreamGetCaptureInfo_v3(hStream: CUstream, captureStatus_out: *mut u32, id_out: *mut u64, graph_out: *mut CUgraph,
            dependencies_out: *mut *const CUgraphNode, edgeData_out: *mut *const core::ffi::c_void, numDependencies_out: *mut usize)
        wire (stream: CUstream) -> (info: CaptureInfo, dependencies: Vec<u64>, edges: Vec<u64>);
    /// Exchanges the thread's capture mode, which is the guest's until a frame needs it.
    0x0b04 local "guest-driver/libcuda/src/capture.rs" fn cuThreadExchangeStreamCaptureMode(mode: *mut u32);
    /// Makes an executable graph; the guest names it.
    0x0b10 sync may_block fn cuGraphInstantiateWithFlags(new phGraphExec: CUgraphExec, handle hGraph: CUgraph, flags: u64);
    /// Launches an executable graph.
    0x0b11 posted ptsz fn cuGraphLaunch(handle hGraphExec: CUgraphExec, handle hStream: CUstream);
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

    // Refused: graphs built or edited by hand are not carried.
    0x0b80 refused "graphs built or edited by hand are not carried" fn cuDeviceGetGraphMemAttribute;
    0x0b81 refused "graphs built or edited by hand are not carried" fn cuDeviceGraphMemTrim;
    0x0b82 refused "graphs built or edited by hand are not carried" fn cuDeviceSetGraphMemAttribute;
    0x0b83 refused "graphs built or edited by hand are not carried" fn cuGraphAddBatchMemOpNode;
    0x0b84 refused "graphs built or edited by hand are not carried" fn cuGraphAddChildGraphNode;
    0x0b85 refused "graphs built or edited by hand are not carried" fn cuGraphAddDependencies;
    0x0b86 refused "graphs built or edited by hand are not carried" fn cuGraphAddDependencies_v2;
    0x0b87 refused "graphs built or edited by hand are not carried" fn cuGraphAddEmptyNode;
    0x0b88 refused "graphs built or edited by hand are not carried" fn cuGraphAddEventRecordNode;
    0x0b89 refused "graphs built or edited by hand are not carried" fn cuGraphAddEventWaitNode;
    0x0b8b refused "graphs built or edited by hand are not carried" fn cuGraphAddKernelNode;
    0x0b8c refused "graphs built or edited by hand are not carried" fn cuGraphAddKernelNode_v2;
    0x0b8d refused "graphs built or edited by hand are not carried" fn cuGraphAddMemAllocNode;
    0x0b8e refused "graphs built or edited by hand are not carried" fn cuGraphAddMemcpyNode;
    0x0b8f refused "graphs built or edited by hand are not carried" fn cuGraphAddMemFreeNode;
    0x0b90 refused "graphs built or edited by hand are not carried" fn cuGraphAddMemsetNode;
    0x0b91 refused "graphs built or edited by hand are not carried" fn cuGraphAddNode;
    0x0b92 refused "graphs built or edited by hand are not carried" fn cuGraphAddNode_v2;
    0x0b93 refused "graphs built or edited by hand are not carried" fn cuGraphBatchMemOpNodeGetParams;
    0x0b94 refused "graphs built or edited by hand are not carried" fn cuGraphBatchMemOpNodeSetParams;
    0x0b95 refused "graphs built or edited by hand are not carried" fn cuGraphChildGraphNodeGetGraph;
    0x0b96 refused "graphs built or edited by hand are not carried" fn cuGraphClone;
    0x0b97 refused "graphs built or edited by hand are not carried" fn cuGraphConditionalHandleCreate;
    0x0b98 refused "graphs built or edited by hand are not carried" fn cuGraphCreate;
    0x0b99 refused "graphs built or edited by hand are not carried" fn cuGraphDebugDotPrint;
    0x0b9a refused "graphs built or edited by hand are not carried" fn cuGraphDestroyNode;
    0x0b9b refused "graphs built or edited by hand are not carried" fn cuGraphEventRecordNodeGetEvent;
    0x0b9c refused "graphs built or edited by hand are not carried" fn cuGraphEventRecordNodeSetEvent;
    0x0b9d refused "graphs built or edited by hand are not carried" fn cuGraphEventWaitNodeGetEvent;
    0x0b9e refused "graphs built or edited by hand are not carried" fn cuGraphEventWaitNodeSetEvent;
    0x0b9f refused "graphs built or edited by hand are not carried" fn cuGraphExecBatchMemOpNodeSetParams;
    0x0ba0 refused "graphs built or edited by hand are not carried" fn cuGraphExecChildGraphNodeSetParams;
    0x0ba1 refused "graphs built or edited by hand are not carried" fn cuGraphExecEventRecordNodeSetEvent;
    0x0ba2 refused "graphs built or edited by hand are not carried" fn cuGraphExecEventWaitNodeSetEvent;
    0x0ba3 refused "graphs built or edited by hand are not carried" fn cuGraphExecGetFlags;
    0x0ba5 refused "graphs built or edited by hand are not carried" fn cuGraphExecKernelNodeSetParams;
    0x0ba6 refused "graphs built or edited by hand are not carried" fn cuGraphExecKernelNodeSetParams_v2;
    0x0ba7 refused "graphs built or edited by hand are not carried" fn cuGraphExecMemcpyNodeSetParams;
    0x0ba8 refused "graphs built or edited by hand are not carried" fn cuGraphExecMemsetNodeSetParams;
    0x0ba9 refused "graphs built or edited by hand are not carried" fn cuGraphExecNodeSetParams;
    0x0baa refused "graphs built or edited by hand are not carried" fn cuGraphExecUpdate;
    0x0bab refused "graphs built or edited by hand are not carried" fn cuGraphGetEdges;
    0x0bac refused "graphs built or edited by hand are not carried" fn cuGraphGetEdges_v2;
    0x0bad refused "graphs built or edited by hand are not carried" fn cuGraphGetRootNodes;
    0x0bb0 refused "graphs built or edited by hand are not carried" fn cuGraphInstantiate;
    0x0bb1 refused "graphs built or edited by hand are not carried" fn cuGraphInstantiate_v2;
    0x0bb2 refused "graphs built or edited by hand are not carried" ptsz fn cuGraphInstantiateWithParams;
    0x0bb3 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeCopyAttributes;
    0x0bb4 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeGetAttribute;
    0x0bb5 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeGetParams;
    0x0bb6 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeGetParams_v2;
    0x0bb7 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeSetAttribute;
    0x0bb8 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeSetParams;
    0x0bb9 refused "graphs built or edited by hand are not carried" fn cuGraphKernelNodeSetParams_v2;
    0x0bba refused "graphs built or edited by hand are not carried" fn cuGraphMemAllocNodeGetParams;
    0x0bbb refused "graphs built or edited by hand are not carried" fn cuGraphMemcpyNodeGetParams;
    0x0bbc refused "graphs built or edited by hand are not carried" fn cuGraphMemcpyNodeSetParams;
    0x0bbd refused "graphs built or edited by hand are not carried" fn cuGraphMemFreeNodeGetParams;
    0x0bbe refused "graphs built or edited by hand are not carried" fn cuGraphMemsetNodeGetParams;
    0x0bbf refused "graphs built or edited by hand are not carried" fn cuGraphMemsetNodeSetParams;
    0x0bc0 refused "graphs built or edited by hand are not carried" fn cuGraphNodeFindInClone;
    0x0bc1 refused "graphs built or edited by hand are not carried" fn cuGraphNodeGetDependencies;
    0x0bc2 refused "graphs built or edited by hand are not carried" fn cuGraphNodeGetDependencies_v2;
    0x0bc3 refused "graphs built or edited by hand are not carried" fn cuGraphNodeGetDependentNodes;
    0x0bc4 refused "graphs built or edited by hand are not carried" fn cuGraphNodeGetDependentNodes_v2;
    0x0bc5 refused "graphs built or edited by hand are not carried" fn cuGraphNodeGetEnabled;
    0x0bc6 refused "graphs built or edited by hand are not carried" fn cuGraphNodeGetType;
    0x0bc7 refused "graphs built or edited by hand are not carried" fn cuGraphNodeSetEnabled;
    0x0bc8 refused "graphs built or edited by hand are not carried" fn cuGraphNodeSetParams;
    0x0bca refused "graphs built or edited by hand are not carried" fn cuGraphRemoveDependencies;
    0x0bcb refused "graphs built or edited by hand are not carried" fn cuGraphRemoveDependencies_v2;
    0x0bcd refused "graphs built or edited by hand are not carried" ptsz fn cuGraphUpload;
    0x0bce refused "graphs built or edited by hand are not carried" ptsz fn cuStreamBeginCapture;
    0x0bcf refused "graphs built or edited by hand are not carried" ptsz fn cuStreamBeginCaptureToGraph;
    0x0bd0 refused "graphs built or edited by hand are not carried" ptsz fn cuStreamGetCaptureInfo;
    0x0bd1 refused "graphs built or edited by hand are not carried" ptsz fn cuStreamGetCaptureInfo_v2;
    0x0bd2 refused "graphs built or edited by hand are not carried" ptsz fn cuStreamUpdateCaptureDependencies;
    0x0bd3 refused "graphs built or edited by hand are not carried" ptsz fn cuStreamUpdateCaptureDependencies_v2;

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
}
