//! Executable graphs.

use std::sync::Arc;

use cuda_api::types::*;
use cuda_api::wire::INLINE_BYTES_MAX;
use cuda_api::{CUresult, CuResult};

use crate::Cuda;
use crate::driver::{InstantiateParams, Raw};
use crate::graph_params::{Params, raw};
use crate::graphs::{Graph, GraphExec};
use crate::lock::lock;
use crate::thread::Thread;

/// CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH.
const DEVICE_LAUNCH: u64 = 4;

impl Cuda {
    pub(crate) fn graph_exec(&self, handle: CUgraphExec) -> CuResult<Arc<GraphExec>> {
        let exec = self.graph_execs.get(handle)?;
        if exec.context.alive() { Ok(exec) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// A graph that a kernel launches is named by a kernel's parameter, and the guest has no name that a kernel would understand.
    fn check_launch_flags(&self, flags: u64) -> CuResult<()> {
        if flags & DEVICE_LAUNCH == 0 {
            return Ok(());
        }
        self.warn_once("graphs that kernels launch are not supported");
        Err(CUresult::NOT_SUPPORTED)
    }

    fn add_exec(&self, thread: &Thread, name: CUgraphExec, raw: Raw, graph: &Arc<Graph>) -> CuResult<()> {
        let context = thread.owner()?.clone();
        let exec = GraphExec::new(raw, context, graph.kept());
        self.graph_execs.add(name, Arc::new(exec))
    }

    pub(super) fn instantiate(
        &self,
        thread: &Thread,
        name: CUgraphExec,
        graph: CUgraph,
        flags: u64,
    ) -> CuResult<()> {
        thread.context()?;
        self.check_launch_flags(flags)?;
        let _graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        self.check_host_of_graph(&graph)?;
        self.graph_execs.check_free(name)?;
        let (raw,) = self.driver.cuGraphInstantiateWithFlags(graph.raw, flags)?;
        self.add_exec(thread, name, raw, &graph)
    }

    /// The outcome, why it is so, and the node that is to blame.
    pub(super) fn instantiate_with_params(
        &self,
        thread: &Thread,
        name: CUgraphExec,
        graph: CUgraph,
        flags: u64,
        stream: CUstream,
    ) -> CuResult<(u32, u32, CUgraphNode)> {
        thread.context()?;
        self.check_launch_flags(flags)?;
        let stream = self.stream(stream)?;
        let mut graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        self.check_host_of_graph(&graph)?;
        self.graph_execs.check_free(name)?;
        let mut params = InstantiateParams { flags, upload_stream: stream.raw, error_node: 0, result: 0 };
        // SAFETY: a local of the documented layout.
        let outcome = unsafe { self.driver.cuGraphInstantiateWithParams(graph.raw, &raw mut params) };
        let node = CUgraphNode(graphs.name(params.error_node, graph.raw)?);
        let outcome = outcome.and_then(|(raw,)| self.add_exec(thread, name, raw, &graph));
        Ok((outcome.err().map_or(0, |error| error.0), params.result, node))
    }

    /// The outcome, the node that is to blame, and what the driver says about it.
    pub(super) fn instantiate_with_log(
        &self,
        thread: &Thread,
        name: CUgraphExec,
        graph: CUgraph,
        room: usize,
    ) -> CuResult<(u32, CUgraphNode, Vec<u8>)> {
        thread.context()?;
        let mut graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        self.check_host_of_graph(&graph)?;
        self.graph_execs.check_free(name)?;
        let mut text = vec![0u8; room.min(INLINE_BYTES_MAX / 2)];
        let (mut node, at) = (0, if text.is_empty() { std::ptr::null_mut() } else { text.as_mut_ptr() });
        // SAFETY: a local for the node, and as much room for text as it says.
        let outcome =
            unsafe { self.driver.cuGraphInstantiate_v2(graph.raw, &raw mut node, at.cast(), text.len()) };
        let node = CUgraphNode(graphs.name(node, graph.raw)?);
        let outcome = outcome.and_then(|(raw,)| self.add_exec(thread, name, raw, &graph));
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end.saturating_add(1));
        }
        Ok((outcome.err().map_or(0, |error| error.0), node, text))
    }

    pub(super) fn destroy_exec(&self, name: CUgraphExec) -> CuResult<()> {
        // Its end may wait for the device: without the lock.
        self.graph_execs.remove(name).map(drop)
    }

    pub(super) fn update_exec(
        &self,
        exec: CUgraphExec,
        graph: CUgraph,
    ) -> CuResult<(u32, CUgraphExecUpdateResultInfo)> {
        let mut graphs = lock(&self.graph_state);
        let (exec, graph) = (self.graph_exec(exec)?, self.graph(graph)?);
        self.check_host_of_graph(&graph)?;
        let mut info =
            CUgraphExecUpdateResultInfo { result: 0, reserved: 0, error_node: 0, error_from_node: 0 };
        // SAFETY: a local of the documented layout.
        let outcome = unsafe { self.driver.cuGraphExecUpdate_v2(exec.raw, graph.raw, &raw mut info) };
        if outcome.is_ok() {
            exec.keep_all(graph.kept());
        }
        for node in [&mut info.error_node, &mut info.error_from_node] {
            *node = graphs.name(raw(*node)?, graph.raw)?;
        }
        Ok((outcome.err().map_or(0, |error| error.0), info))
    }

    pub(super) fn node_enabled(&self, exec: CUgraphExec, node: CUgraphNode) -> CuResult<u32> {
        let graphs = lock(&self.graph_state);
        let (exec, (node, _)) = (self.graph_exec(exec)?, self.node(&graphs, node)?);
        self.driver.cuGraphNodeGetEnabled(exec.raw, node).map(|(enabled,)| enabled)
    }

    pub(super) fn enable_node(&self, exec: CUgraphExec, node: CUgraphNode, enabled: u32) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let (exec, (node, _)) = (self.graph_exec(exec)?, self.node(&graphs, node)?);
        self.driver.cuGraphNodeSetEnabled(exec.raw, node, enabled)
    }

    pub(super) fn set_exec_node(
        &self,
        exec: CUgraphExec,
        node: CUgraphNode,
        general: bool,
        words: &[u64],
        data: &[u8],
    ) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let exec = self.graph_exec(exec)?;
        let (node, graph) = self.node(&graphs, node)?;
        let prepared = self.prepare(&graph, words, data)?;
        self.check_can_change(&prepared)?;
        let (driver, raw_exec, mut all) = (self.driver, exec.raw, prepared.params.general());
        // SAFETY: parameters whose handles are alive, whose ranges were checked and whose pointers are to memory of
        // `prepared`, which outlives the call.
        unsafe {
            match &prepared.params {
                _ if general => driver.cuGraphExecNodeSetParams(raw_exec, node, &raw mut all),
                Params::Kernel(params) => driver.cuGraphExecKernelNodeSetParams_v2(raw_exec, node, params),
                Params::Memcpy(params) => {
                    let context = raw(params.ctx)?;
                    driver.cuGraphExecMemcpyNodeSetParams(raw_exec, node, &raw const params.copy, context)
                }
                Params::Memset(params) => {
                    driver.cuGraphExecMemsetNodeSetParams(raw_exec, node, params, raw(params.ctx)?)
                }
                Params::Child(params) => {
                    driver.cuGraphExecChildGraphNodeSetParams(raw_exec, node, raw(params.graph)?)
                }
                Params::EventWait(event) => {
                    driver.cuGraphExecEventWaitNodeSetEvent(raw_exec, node, raw(*event)?)
                }
                Params::EventRecord(event) => {
                    driver.cuGraphExecEventRecordNodeSetEvent(raw_exec, node, raw(*event)?)
                }
                Params::Batch(params) => driver.cuGraphExecBatchMemOpNodeSetParams(raw_exec, node, params),
                _ => Err(CUresult::INVALID_VALUE),
            }
        }?;
        exec.keep(node, prepared.kept);
        Ok(())
    }
}
