//! Graphs: capture, graphs by hand, and what becomes of them. The longer methods are in `graph/`.

mod capture;
mod edit;
mod exec;
mod list;

use cuda_api::CuResult;
use cuda_api::calls::graph::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::thread::Thread;

/// The guest's words about edges are none, or one for each.
fn check_edges(edges: &[u64], count: usize) -> CuResult<()> {
    if edges.is_empty() || edges.len() == count { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// What the driver takes for edges' data: NULL where there is none.
fn edges_at(edges: &[u64]) -> *const u64 {
    if edges.is_empty() { std::ptr::null() } else { edges.as_ptr() }
}

impl Host for Cuda {
    fn cuGraphAddHostNode(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        dependencies: Vec<u64>,
        token: u64,
    ) -> CuResult<u64> {
        self.add_host_node(graph, &dependencies, token)
    }

    fn cuGraphHostNodeGetParams(&self, _: &mut Thread, node: u64) -> CuResult<u64> {
        self.host_node_function(node)
    }

    fn cuGraphHostNodeSetParams(&self, _: &mut Thread, node: u64, token: u64) -> CuResult<()> {
        self.set_host_node(node, token)
    }

    fn cuGraphExecHostNodeSetParams(
        &self,
        _: &mut Thread,
        exec: CUgraphExec,
        node: u64,
        token: u64,
    ) -> CuResult<()> {
        self.set_exec_host_node(exec, node, token)
    }

    fn cuUserObjectCreate(
        &self,
        _: &mut Thread,
        object: CUuserObject,
        token: u64,
        count: u32,
        flags: u32,
    ) -> CuResult<()> {
        self.create_user_object(object, token, count, flags)
    }

    fn cuUserObjectRetain(&self, _: &mut Thread, object: CUuserObject, count: u32) -> CuResult<()> {
        self.user_objects.get(object)?.retain(count)
    }

    fn cuUserObjectRelease(&self, _: &mut Thread, object: CUuserObject, count: u32) -> CuResult<()> {
        self.user_objects.get(object)?.release(count)
    }

    fn cuGraphRetainUserObject(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        object: CUuserObject,
        count: u32,
        flags: u32,
    ) -> CuResult<()> {
        self.user_objects.get(object)?.retain_in(&self.graph(graph)?, count, flags)
    }

    fn cuGraphReleaseUserObject(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        object: CUuserObject,
        count: u32,
    ) -> CuResult<()> {
        self.user_objects.get(object)?.release_in(&self.graph(graph)?, count)
    }

    fn cuStreamBeginCapture_v2(&self, _: &mut Thread, stream: CUstream, mode: u32) -> CuResult<()> {
        self.begin_capture(stream, mode)
    }

    fn cuStreamBeginCaptureToGraph(
        &self,
        _: &mut Thread,
        stream: CUstream,
        graph: CUgraph,
        dependencies: Vec<u64>,
        edges: Vec<u64>,
        mode: u32,
    ) -> CuResult<()> {
        self.begin_capture_to_graph(stream, graph, &dependencies, &edges, mode)
    }

    fn vgpuStreamEndCapture(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        graph: CUgraph,
    ) -> CuResult<CUgraph> {
        self.end_capture(thread, stream, graph)
    }

    fn cuStreamGetCaptureInfo_v3(
        &self,
        thread: &mut Thread,
        stream: CUstream,
    ) -> CuResult<(CaptureInfo, Vec<u64>, Vec<u64>)> {
        self.capture_info(thread, stream, None)
    }

    fn vgpuStreamCaptureInfo(
        &self,
        thread: &mut Thread,
        stream: CUstream,
        graph: CUgraph,
    ) -> CuResult<(CaptureInfo, Vec<u64>, Vec<u64>)> {
        self.capture_info(thread, stream, Some(graph))
    }

    fn cuStreamUpdateCaptureDependencies_v2(
        &self,
        _: &mut Thread,
        stream: CUstream,
        dependencies: Vec<u64>,
        edges: Vec<u64>,
        flags: u32,
    ) -> CuResult<()> {
        self.update_capture_dependencies(stream, &dependencies, &edges, flags)
    }

    fn cuGraphInstantiateWithFlags(
        &self,
        thread: &mut Thread,
        exec: CUgraphExec,
        graph: CUgraph,
        flags: u64,
    ) -> CuResult<()> {
        self.instantiate(thread, exec, graph, flags)
    }

    fn cuGraphInstantiateWithParams(
        &self,
        thread: &mut Thread,
        exec: CUgraphExec,
        graph: CUgraph,
        flags: u64,
        stream: CUstream,
    ) -> CuResult<(u32, u32, CUgraphNode)> {
        self.instantiate_with_params(thread, exec, graph, flags, stream)
    }

    fn cuGraphInstantiate_v2(
        &self,
        thread: &mut Thread,
        exec: CUgraphExec,
        graph: CUgraph,
        room: usize,
    ) -> CuResult<(u32, CUgraphNode, Vec<u8>)> {
        self.instantiate_with_log(thread, exec, graph, room)
    }

    fn cuGraphLaunch(&self, thread: &mut Thread, exec: CUgraphExec, stream: CUstream) -> CuResult<()> {
        let (exec, stream) = (self.graph_exec(exec)?, self.stream(stream)?);
        self.check_memory_of_exec(&exec)?;
        let launch = || self.driver.cuGraphLaunch(exec.raw, stream.raw);
        self.launch_charged(exec.context.device, || self.watched(thread, stream.raw, launch))
    }

    fn cuGraphUpload(&self, _: &mut Thread, exec: CUgraphExec, stream: CUstream) -> CuResult<()> {
        let (exec, stream) = (self.graph_exec(exec)?, self.stream(stream)?);
        self.check_memory_of_exec(&exec)?;
        self.driver.cuGraphUpload(exec.raw, stream.raw)
    }

    fn cuGraphExecGetFlags(&self, _: &mut Thread, exec: CUgraphExec) -> CuResult<u64> {
        self.driver.cuGraphExecGetFlags(self.graph_exec(exec)?.raw).map(|(flags,)| flags)
    }

    fn cuGraphExecDestroy(&self, _: &mut Thread, exec: CUgraphExec) -> CuResult<()> {
        self.destroy_exec(exec)
    }

    fn cuGraphExecUpdate_v2(
        &self,
        _: &mut Thread,
        exec: CUgraphExec,
        graph: CUgraph,
    ) -> CuResult<(u32, CUgraphExecUpdateResultInfo)> {
        self.update_exec(exec, graph)
    }

    fn cuGraphNodeGetEnabled(&self, _: &mut Thread, exec: CUgraphExec, node: CUgraphNode) -> CuResult<u32> {
        self.node_enabled(exec, node)
    }

    fn cuGraphNodeSetEnabled(
        &self,
        _: &mut Thread,
        exec: CUgraphExec,
        node: CUgraphNode,
        enabled: u32,
    ) -> CuResult<()> {
        self.enable_node(exec, node, enabled)
    }

    fn vgpuGraphExecNodeSetParams(
        &self,
        _: &mut Thread,
        exec: CUgraphExec,
        node: CUgraphNode,
        general: bool,
        params: Vec<u64>,
        data: &[u8],
    ) -> CuResult<()> {
        self.set_exec_node(exec, node, general, &params, data)
    }

    fn cuGraphCreate(&self, thread: &mut Thread, graph: CUgraph, flags: u32) -> CuResult<()> {
        self.create_graph(thread, graph, flags)
    }

    fn cuGraphClone(&self, thread: &mut Thread, clone: CUgraph, graph: CUgraph) -> CuResult<()> {
        self.clone_graph(thread, clone, graph)
    }

    fn cuGraphDestroy(&self, _: &mut Thread, graph: CUgraph) -> CuResult<()> {
        self.destroy_graph(graph)
    }

    fn cuGraphNodeFindInClone(
        &self,
        _: &mut Thread,
        node: CUgraphNode,
        clone: CUgraph,
    ) -> CuResult<CUgraphNode> {
        self.find_in_clone(node, clone)
    }

    fn cuGraphDestroyNode(&self, _: &mut Thread, node: CUgraphNode) -> CuResult<()> {
        self.destroy_node(node)
    }

    fn cuGraphNodeGetType(&self, _: &mut Thread, node: CUgraphNode) -> CuResult<u32> {
        self.node_type(node)
    }

    fn vgpuGraphAddNode(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        dependencies: Vec<u64>,
        edges: Vec<u64>,
        general: bool,
        params: Vec<u64>,
        data: &[u8],
    ) -> CuResult<(CUgraphNode, Vec<u64>)> {
        self.add_node(graph, &dependencies, &edges, general, &params, data)
    }

    fn vgpuGraphNodeSetParams(
        &self,
        _: &mut Thread,
        node: CUgraphNode,
        general: bool,
        params: Vec<u64>,
        data: &[u8],
    ) -> CuResult<()> {
        self.set_node(node, general, &params, data)
    }

    fn vgpuGraphNodeGetParams(
        &self,
        _: &mut Thread,
        node: CUgraphNode,
        kind: u32,
    ) -> CuResult<(CUgraph, Vec<u64>, Vec<u8>)> {
        self.get_node(node, kind)
    }

    fn cuGraphChildGraphNodeGetGraph(
        &self,
        _: &mut Thread,
        node: CUgraphNode,
        proposed: CUgraph,
    ) -> CuResult<(CUgraph, CUgraph)> {
        self.child_of_node(node, proposed)
    }

    fn cuGraphConditionalHandleCreate(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        context: CUcontext,
        value: u32,
        flags: u32,
    ) -> CuResult<u64> {
        self.create_conditional(graph, context, value, flags)
    }

    fn cuGraphKernelNodeCopyAttributes(
        &self,
        _: &mut Thread,
        to: CUgraphNode,
        from: CUgraphNode,
    ) -> CuResult<()> {
        self.copy_kernel_attributes(to, from)
    }

    fn cuGraphKernelNodeGetAttribute(
        &self,
        _: &mut Thread,
        node: CUgraphNode,
        attribute: u32,
    ) -> CuResult<Vec<u64>> {
        self.kernel_attribute(node, attribute)
    }

    fn cuGraphKernelNodeSetAttribute(
        &self,
        _: &mut Thread,
        node: CUgraphNode,
        attribute: u32,
        value: Vec<u64>,
    ) -> CuResult<()> {
        self.set_kernel_attribute(node, attribute, value)
    }

    fn cuGraphAddDependencies(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        from: &[CUgraphNode],
        to: &[CUgraphNode],
        count: usize,
    ) -> CuResult<()> {
        let names = |nodes: &[CUgraphNode]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        if from.len() != count {
            return Err(CUresult::INVALID_VALUE);
        }
        self.add_dependencies(graph, &names(from), &names(to), &[])
    }

    fn cuGraphAddDependencies_v2(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        from: Vec<u64>,
        to: Vec<u64>,
        edges: Vec<u64>,
    ) -> CuResult<()> {
        self.add_dependencies(graph, &from, &to, &edges)
    }

    fn cuGraphRemoveDependencies(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        from: &[CUgraphNode],
        to: &[CUgraphNode],
        count: usize,
    ) -> CuResult<()> {
        let names = |nodes: &[CUgraphNode]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        if from.len() != count {
            return Err(CUresult::INVALID_VALUE);
        }
        self.remove_dependencies(graph, &names(from), &names(to), &[])
    }

    fn cuGraphRemoveDependencies_v2(
        &self,
        _: &mut Thread,
        graph: CUgraph,
        from: Vec<u64>,
        to: Vec<u64>,
        edges: Vec<u64>,
    ) -> CuResult<()> {
        self.remove_dependencies(graph, &from, &to, &edges)
    }

    fn cuGraphGetNodes(&self, _: &mut Thread, graph: CUgraph, room: usize) -> CuResult<(usize, Vec<u64>)> {
        self.nodes_of(graph, room)
    }

    fn vgpuGraphList(
        &self,
        _: &mut Thread,
        what: u32,
        graph: CUgraph,
        node: CUgraphNode,
        wants_edges: bool,
        start: usize,
        room: usize,
    ) -> CuResult<(usize, Vec<u64>, Vec<u64>, Vec<u64>)> {
        self.list_part(what, graph, node, wants_edges, start, room)
    }

    fn cuDeviceGetGraphMemAttribute(&self, _: &mut Thread, device: i32, attribute: u32) -> CuResult<u64> {
        let (device,) = self.driver.cuDeviceGet(device)?;
        let mut value = 0u64;
        let at: *mut u64 = &raw mut value;
        // SAFETY: a local of 64 bits, as all of these attributes are.
        unsafe { self.driver.cuDeviceGetGraphMemAttribute(device, attribute, at.cast()) }?;
        Ok(value)
    }

    fn cuDeviceSetGraphMemAttribute(
        &self,
        _: &mut Thread,
        device: i32,
        attribute: u32,
        mut value: u64,
    ) -> CuResult<()> {
        let (device,) = self.driver.cuDeviceGet(device)?;
        // SAFETY: a local of 64 bits, as all of these attributes are.
        unsafe { self.driver.cuDeviceSetGraphMemAttribute(device, attribute, &raw mut value) }
    }

    fn cuDeviceGraphMemTrim(&self, _: &mut Thread, device: i32) -> CuResult<()> {
        let (device,) = self.driver.cuDeviceGet(device)?;
        self.driver.cuDeviceGraphMemTrim(device)
    }
}
