//! Capture, and the graphs that it makes.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::graph::Host;
use cuda_api::types::*;
use cuda_api::wire::REPLY_ITEMS_MAX;

use crate::Cuda;
use crate::driver::Raw;
use crate::lock::lock;
use crate::objects::{Graph, GraphExec};
use crate::thread::Thread;

/// The highest CUstreamCaptureMode.
const MODE_LAST: u32 = 2;

impl Cuda {
    pub(crate) fn graph(&self, handle: CUgraph) -> CuResult<Arc<Graph>> {
        let graph = self.graphs.get(handle)?;
        if graph.context.alive() { Ok(graph) } else { Err(CUresult::INVALID_VALUE) }
    }

    pub(crate) fn graph_exec(&self, handle: CUgraphExec) -> CuResult<Arc<GraphExec>> {
        let exec = self.graph_execs.get(handle)?;
        if exec.context.alive() { Ok(exec) } else { Err(CUresult::INVALID_VALUE) }
    }

    fn names(&self, nodes: &[Raw]) -> CuResult<Vec<u64>> {
        let mut names = lock(&self.nodes);
        nodes.iter().map(|raw| names.name(*raw)).collect()
    }
}

/// A copy of a list that the driver keeps.
///
/// # Safety
/// `at` is 0 or the address of `count` words.
unsafe fn list<T: Copy>(at: Raw, count: usize) -> Vec<T> {
    if at == 0 {
        return Vec::new();
    }
    let from: *const T = std::ptr::with_exposed_provenance(at);
    // SAFETY: `count` elements by this function's contract.
    unsafe { std::slice::from_raw_parts(from, count) }.to_vec()
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
        if mode > MODE_LAST {
            return Err(CUresult::INVALID_VALUE);
        }
        self.driver.cuStreamBeginCapture_v2(self.stream(stream)?.raw, mode)
    }

    fn cuStreamEndCapture(&self, thread: &mut Thread, stream: CUstream, graph: CUgraph) -> CuResult<()> {
        let context = thread.context()?.clone();
        self.graphs.check_free(graph)?;
        let (raw,) = self.driver.cuStreamEndCapture(self.stream(stream)?.raw)?;
        self.graphs.add(graph, Arc::new(Graph { raw, context }))
    }

    fn cuStreamGetCaptureInfo_v3(
        &self,
        _: &mut Thread,
        stream: CUstream,
    ) -> CuResult<(CaptureInfo, Vec<u64>, Vec<u64>)> {
        let stream = self.stream(stream)?;
        let (status, id, _, dependencies, edges, count) =
            self.driver.cuStreamGetCaptureInfo_v3(stream.raw)?;
        // The graph that is being made has no name in the guest until the capture ends.
        let info = CaptureInfo { id, graph: 0, status, reserved: 0 };
        if count > REPLY_ITEMS_MAX {
            self.warn_once(&format!("cuStreamGetCaptureInfo: {count} dependencies are too many for a reply"));
            return Err(CUresult::NOT_SUPPORTED);
        }
        // SAFETY: lists of `count` that the driver keeps until the stream's next call, which is this thread's to make:
        // other threads of the guest do not share a capturing stream. CUgraphEdgeData is 8 bytes of numbers.
        let (nodes, edges) = unsafe { (list::<Raw>(dependencies, count), list::<u64>(edges, count)) };
        Ok((info, self.names(&nodes)?, edges))
    }

    fn cuGraphInstantiateWithFlags(
        &self,
        thread: &mut Thread,
        exec: CUgraphExec,
        graph: CUgraph,
        flags: u64,
    ) -> CuResult<()> {
        let context = thread.context()?.clone();
        let graph = self.graph(graph)?;
        self.graph_execs.check_free(exec)?;
        let (raw,) = self.driver.cuGraphInstantiateWithFlags(graph.raw, flags)?;
        self.graph_execs.add(exec, Arc::new(GraphExec { raw, context }))
    }

    fn cuGraphLaunch(&self, _: &mut Thread, exec: CUgraphExec, stream: CUstream) -> CuResult<()> {
        let (exec, stream) = (self.graph_exec(exec)?, self.stream(stream)?);
        self.launch_charged(|| self.driver.cuGraphLaunch(exec.raw, stream.raw))
    }

    fn cuGraphExecDestroy(&self, _: &mut Thread, exec: CUgraphExec) -> CuResult<()> {
        self.graph_execs.remove(exec).map(drop)
    }

    fn cuGraphDestroy(&self, _: &mut Thread, graph: CUgraph) -> CuResult<()> {
        self.graphs.remove(graph).map(drop)
    }

    fn cuGraphExecUpdate_v2(
        &self,
        _: &mut Thread,
        exec: CUgraphExec,
        graph: CUgraph,
    ) -> CuResult<(u32, CUgraphExecUpdateResultInfo)> {
        let (exec, graph) = (self.graph_exec(exec)?, self.graph(graph)?);
        let mut info =
            CUgraphExecUpdateResultInfo { result: 0, reserved: 0, error_node: 0, error_from_node: 0 };
        // SAFETY: a local of the documented layout.
        let outcome = unsafe { self.driver.cuGraphExecUpdate_v2(exec.raw, graph.raw, &raw mut info) };
        let mut names = lock(&self.nodes);
        for node in [&mut info.error_node, &mut info.error_from_node] {
            *node = names.name(Raw::try_from(*node).map_err(|_| CUresult::UNKNOWN)?)?;
        }
        Ok((outcome.err().map_or(0, |error| error.0), info))
    }

    fn cuGraphGetNodes(&self, _: &mut Thread, graph: CUgraph, room: usize) -> CuResult<(usize, Vec<u64>)> {
        let graph = self.graph(graph)?;
        let mut total = 0usize;
        // SAFETY: without an array the driver only counts.
        unsafe { self.driver.cuGraphGetNodes(graph.raw, std::ptr::null_mut(), &raw mut total) }?;
        let mut count = room.min(total);
        if count > REPLY_ITEMS_MAX {
            self.warn_once(&format!("cuGraphGetNodes: {count} nodes are too many for a reply"));
            return Err(CUresult::NOT_SUPPORTED);
        }
        let mut nodes = vec![0; count];
        if count != 0 {
            // SAFETY: room for `count` handles.
            unsafe { self.driver.cuGraphGetNodes(graph.raw, nodes.as_mut_ptr(), &raw mut count) }?;
            nodes.truncate(count);
        }
        Ok((total, self.names(&nodes)?))
    }
}
