//! Graphs by hand: nodes made, changed, shown and destroyed.

use std::sync::Arc;

use cuda_api::graph_node::kind;
use cuda_api::host::{Access, Base};
use cuda_api::types::*;
use cuda_api::{CUresult, CuResult};

use super::{check_edges, edges_at};
use crate::Cuda;
use crate::calls::launch::{Treatment, treatment};
use crate::driver::Raw;
use crate::graph_params::{Params, Prepared, list, raw};
use crate::graphs::{Graph, Graphs, Owner};
use crate::lock::lock;
use crate::memory::Giver;
use crate::pools::Reserve;
use crate::thread::Thread;

/// What a graph's memory is known by: no capture's number, which count from 1.
fn memory_key(graph: &Arc<Graph>) -> u64 {
    1 << 63 | graph.root().raw as u64
}

/// CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE. The driver takes any other number for a clone.
const OWNERSHIP_MOVE: u32 = 1;

impl Cuda {
    pub(super) fn create_graph(&self, thread: &Thread, name: CUgraph, flags: u32) -> CuResult<()> {
        let mut graphs = lock(&self.graph_state);
        self.graphs.check_free(name)?;
        let (raw,) = self.driver.cuGraphCreate(flags)?;
        let graph = Graph::new(self.driver, raw, thread.owner().ok().cloned(), Owner::Guest);
        self.add_graph(&mut graphs, name, graph, None)
    }

    pub(super) fn clone_graph(&self, thread: &Thread, name: CUgraph, original: CUgraph) -> CuResult<()> {
        let mut graphs = lock(&self.graph_state);
        let original = self.graph(original)?;
        self.graphs.check_free(name)?;
        let (raw,) = self.driver.cuGraphClone(original.raw)?;
        let context = original.context.clone().or_else(|| thread.owner().ok().cloned());
        let graph = Graph::new(self.driver, raw, context, Owner::Guest);
        graph.keep_all(original.kept());
        self.add_graph(&mut graphs, name, graph, None)
    }

    pub(super) fn destroy_graph(&self, name: CUgraph) -> CuResult<()> {
        {
            let _graphs = lock(&self.graph_state);
            if !self.graphs.get(name)?.is_guests() {
                // It goes with the node or the capture that it belongs to.
                return Err(CUresult::INVALID_VALUE);
            }
        }
        let gone = self.graphs.remove(name)?;
        self.forget_graphs(vec![gone]);
        Ok(())
    }

    pub(super) fn find_in_clone(&self, node: CUgraphNode, clone: CUgraph) -> CuResult<CUgraphNode> {
        let mut graphs = lock(&self.graph_state);
        let (node, _) = self.node(&graphs, node)?;
        let clone = self.graph(clone)?;
        let (found,) = self.driver.cuGraphNodeFindInClone(node, clone.raw)?;
        graphs.name(found, clone.raw).map(CUgraphNode)
    }

    pub(super) fn destroy_node(&self, name: CUgraphNode) -> CuResult<()> {
        let mut graphs = lock(&self.graph_state);
        let (raw, graph) = self.node(&graphs, name)?;
        self.driver.cuGraphDestroyNode(raw)?;
        graphs.forget_node(name.0);
        self.forget_belonging(&mut graphs, |_, node| node == raw);
        graph.keep(raw, Vec::new());
        Ok(())
    }

    pub(super) fn node_type(&self, node: CUgraphNode) -> CuResult<u32> {
        let graphs = lock(&self.graph_state);
        let (node, _) = self.node(&graphs, node)?;
        self.driver.cuGraphNodeGetType(node).map(|(kind,)| kind)
    }

    pub(super) fn add_node(
        &self,
        graph: CUgraph,
        dependencies: &[u64],
        edges: &[u64],
        general: bool,
        words: &[u64],
        data: &[u8],
    ) -> CuResult<(CUgraphNode, Vec<u64>)> {
        check_edges(edges, dependencies.len())?;
        let mut graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        let after = graphs.raws(dependencies, graph.raw)?;
        let mut prepared = self.prepare(&graph, words, data)?;
        let is_move = matches!(&prepared.params, Params::Child(child) if child.ownership == OWNERSHIP_MOVE);
        if let Some(child) = &prepared.child
            && is_move
            && (!child.is_guests() || Arc::ptr_eq(child, &graph.root()))
        {
            return Err(CUresult::INVALID_VALUE);
        }
        for body in &prepared.bodies {
            self.graphs.check_free(CUgraph(*body))?;
        }
        if let Params::MemAlloc(node) = &prepared.params {
            // A graph takes its memory when it is launched: all of it has to fit.
            let all = self.memory.graph_bytes(memory_key(&graph)).saturating_add(node.bytes);
            self.check_room(Reserve::Graphs(node.props.location_id), all)?;
        }
        let (raw, made) = self.add_to(&graph, &after, edges, general, &mut prepared)?;
        let is_allocation = matches!(prepared.params, Params::MemAlloc(_));
        let outcome = self.record(&mut graphs, &graph, raw, prepared, &made);
        if let Err(error) = outcome {
            // What cannot be named is not kept: the guest sees nothing of it.
            self.forget_belonging(&mut graphs, |_, node| node == raw);
            let _ = self.driver.cuGraphDestroyNode(raw);
            graph.keep(raw, Vec::new());
            return Err(error);
        }
        // The bodies of a conditional node have names that the guest gave, and the driver's handles stay here.
        outcome.map(|name| (name, if is_allocation { made } else { Vec::new() }))
    }

    /// What has come with a node: its name, its bodies', and what stays as long as it does.
    fn record(
        &self,
        graphs: &mut Graphs,
        graph: &Arc<Graph>,
        node: Raw,
        prepared: Prepared,
        made: &[u64],
    ) -> CuResult<CUgraphNode> {
        match prepared.params {
            Params::MemAlloc(params) => {
                let address = made.first().copied().ok_or(CUresult::UNKNOWN)?;
                self.memory.add_pooled(address, params.bytes, Giver::Graph(memory_key(graph)))?;
            }
            Params::Conditional(_) => {
                if made.len() != prepared.bodies.len() {
                    return Err(CUresult::UNKNOWN);
                }
                for (body, name) in made.iter().zip(&prepared.bodies) {
                    let owner = Owner::Node { graph: graph.clone(), node };
                    let body = Graph::new(self.driver, raw(*body)?, graph.context.clone(), owner);
                    self.add_graph(graphs, CUgraph(*name), body, None)?;
                }
            }
            Params::Child(child) => {
                if let (true, Some(moved)) = (child.ownership == OWNERSHIP_MOVE, &prepared.child) {
                    moved.set_owner(Owner::Node { graph: graph.clone(), node });
                }
            }
            _ => {}
        }
        graph.keep(node, prepared.kept);
        graphs.name(node, graph.raw).map(CUgraphNode)
    }

    /// Has the driver add a node. What it chose comes back: an allocation's address, the driver's handles of bodies.
    fn add_to(
        &self,
        graph: &Arc<Graph>,
        after: &[Raw],
        edges: &[u64],
        general: bool,
        prepared: &mut Prepared,
    ) -> CuResult<(Raw, Vec<u64>)> {
        let (driver, graph, count) = (self.driver, graph.raw, after.len());
        let after = after.as_ptr();
        if general || matches!(prepared.params, Params::Conditional(_)) {
            let mut all = prepared.params.general();
            let edges = edges_at(edges);
            // SAFETY: `count` nodes of the graph, and edges; parameters whose handles are alive, whose ranges were checked and
            // whose pointers are to memory of `prepared`, which outlives the call.
            let (node,) = unsafe { driver.cuGraphAddNode_v2(graph, after, edges, count, &raw mut all) }?;
            let made = match &prepared.params {
                Params::MemAlloc(_) => {
                    vec![all.node::<cuda_api::graph_node::MemAllocNode>().map_or(0, |found| found.dptr)]
                }
                Params::Conditional(given) => {
                    let found: cuda_api::graph_node::ConditionalNode = all.node()?;
                    let count = usize::try_from(given.size).map_err(|_| CUresult::UNKNOWN)?;
                    // SAFETY: the driver's array of as many graphs as the node was asked to have, which lives as long as the node.
                    unsafe { list::<u64>(raw(found.bodies)?, count) }
                }
                _ => Vec::new(),
            };
            return Ok((node, made));
        }
        let mut made = Vec::new();
        // SAFETY: as above.
        let (node,) = unsafe {
            match &mut prepared.params {
                Params::Kernel(node) => driver.cuGraphAddKernelNode_v2(graph, after, count, node),
                Params::Memcpy(node) => {
                    driver.cuGraphAddMemcpyNode(graph, after, count, &raw const node.copy, raw(node.ctx)?)
                }
                Params::Memset(node) => {
                    driver.cuGraphAddMemsetNode(graph, after, count, node, raw(node.ctx)?)
                }
                Params::Child(node) => driver.cuGraphAddChildGraphNode(graph, after, count, raw(node.graph)?),
                Params::Empty => driver.cuGraphAddEmptyNode(graph, after, count),
                Params::EventWait(event) => driver.cuGraphAddEventWaitNode(graph, after, count, raw(*event)?),
                Params::EventRecord(event) => {
                    driver.cuGraphAddEventRecordNode(graph, after, count, raw(*event)?)
                }
                Params::MemAlloc(node) => {
                    let added = driver.cuGraphAddMemAllocNode(graph, after, count, node);
                    made.push(node.dptr);
                    added
                }
                Params::MemFree(address) => driver.cuGraphAddMemFreeNode(graph, after, count, *address),
                Params::Batch(node) => driver.cuGraphAddBatchMemOpNode(graph, after, count, node),
                Params::Conditional(_) => return Err(CUresult::INVALID_VALUE),
            }
        }?;
        Ok((node, made))
    }

    pub(super) fn set_node(
        &self,
        node: CUgraphNode,
        general: bool,
        words: &[u64],
        data: &[u8],
    ) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let (node, graph) = self.node(&graphs, node)?;
        let prepared = self.prepare(&graph, words, data)?;
        self.check_can_change(&prepared)?;
        let (driver, mut all) = (self.driver, prepared.params.general());
        // SAFETY: parameters whose handles are alive, whose ranges were checked and whose pointers are to memory of
        // `prepared`, which outlives the call.
        unsafe {
            match &prepared.params {
                _ if general => driver.cuGraphNodeSetParams(node, &raw mut all),
                Params::Kernel(params) => driver.cuGraphKernelNodeSetParams_v2(node, params),
                Params::Memcpy(params) => driver.cuGraphMemcpyNodeSetParams(node, &raw const params.copy),
                Params::Memset(params) => driver.cuGraphMemsetNodeSetParams(node, params),
                Params::EventWait(event) => driver.cuGraphEventWaitNodeSetEvent(node, raw(*event)?),
                Params::EventRecord(event) => driver.cuGraphEventRecordNodeSetEvent(node, raw(*event)?),
                Params::Batch(params) => driver.cuGraphBatchMemOpNodeSetParams(node, params),
                _ => Err(CUresult::INVALID_VALUE),
            }
        }?;
        graph.keep(node, prepared.kept);
        Ok(())
    }

    /// A node of this type may get other parameters. Allocations may not (CUDA Driver API, cuGraphNodeSetParams).
    pub(super) fn check_can_change(&self, prepared: &Prepared) -> CuResult<()> {
        match &prepared.params {
            Params::MemAlloc(_) | Params::MemFree(_) | Params::Conditional(_) => {
                self.warn_once("a graph's allocations and conditional nodes cannot be changed");
                Err(CUresult::NOT_SUPPORTED)
            }
            // A graph that is moved would have a second owner.
            Params::Child(child) if child.ownership == OWNERSHIP_MOVE => Err(CUresult::INVALID_VALUE),
            _ => Ok(()),
        }
    }

    pub(super) fn get_node(&self, node: CUgraphNode, wanted: u32) -> CuResult<(CUgraph, Vec<u64>, Vec<u8>)> {
        let graphs = lock(&self.graph_state);
        let (node, graph) = self.node(&graphs, node)?;
        let (found, data) = self.node_params(node, wanted)?;
        Ok((graphs.named(graph.raw).unwrap_or(CUgraph::NULL), found.encode(), data))
    }

    /// The graph in a node; it has a name already, or gets the one that the guest proposes. And the graph around it.
    pub(super) fn child_of_node(&self, node: CUgraphNode, proposed: CUgraph) -> CuResult<(CUgraph, CUgraph)> {
        let mut graphs = lock(&self.graph_state);
        let (node, graph) = self.node(&graphs, node)?;
        let (child,) = self.driver.cuGraphChildGraphNodeGetGraph(node)?;
        self.graphs.check_free(proposed)?;
        let parent = graphs.named(graph.raw).unwrap_or(CUgraph::NULL);
        let context = graph.context.clone();
        let make = || Graph::new(self.driver, child, context, Owner::Node { graph, node });
        Ok((self.borrow_graph(&mut graphs, child, proposed, None, make)?, parent))
    }

    pub(super) fn create_conditional(
        &self,
        graph: CUgraph,
        context: CUcontext,
        value: u32,
        flags: u32,
    ) -> CuResult<u64> {
        let _graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        let context = raw(self.context_raw(context.0)?)?;
        let (handle,) = self.driver.cuGraphConditionalHandleCreate(graph.raw, context, value, flags)?;
        graph.add_conditional(handle)?;
        Ok(handle)
    }

    /// Only a kernel node has a kernel's attributes.
    fn kernel_node(&self, graphs: &Graphs, node: CUgraphNode) -> CuResult<Raw> {
        let (node, _) = self.node(graphs, node)?;
        match self.driver.cuGraphNodeGetType(node)? {
            (kind::KERNEL,) => Ok(node),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    pub(super) fn copy_kernel_attributes(&self, to: CUgraphNode, from: CUgraphNode) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let (to, from) = (self.kernel_node(&graphs, to)?, self.kernel_node(&graphs, from)?);
        self.driver.cuGraphKernelNodeCopyAttributes(to, from)
    }

    /// An attribute that is no handle of the program's.
    fn check_attribute(&self, attribute: u32) -> CuResult<Treatment> {
        match treatment(attribute) {
            Treatment::Event => Err(CUresult::INVALID_VALUE),
            other => Ok(other),
        }
    }

    pub(super) fn kernel_attribute(&self, node: CUgraphNode, attribute: u32) -> CuResult<Vec<u64>> {
        let graphs = lock(&self.graph_state);
        let node = self.kernel_node(&graphs, node)?;
        let treatment = self.check_attribute(attribute)?;
        let (mut value,) = self.driver.cuGraphKernelNodeGetAttribute(node, attribute)?;
        if treatment == Treatment::Refuse {
            // Whether kernels can change the node, and its handle there: it never can.
            value = [0; 8];
        }
        Ok(value.to_vec())
    }

    pub(super) fn set_kernel_attribute(
        &self,
        node: CUgraphNode,
        attribute: u32,
        value: Vec<u64>,
    ) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let node = self.kernel_node(&graphs, node)?;
        let mut value: [u64; 8] = value.try_into().map_err(|_| CUresult::INVALID_VALUE)?;
        match self.check_attribute(attribute)? {
            Treatment::Range => {
                let [start, len, ..] = value;
                self.check_range(start, len, Access::Read)?;
            }
            // That kernels may change the node. That they may not is how it is.
            Treatment::Refuse if value.first().is_some_and(|first| first & 0xffff_ffff != 0) => {
                self.warn_once(&format!("kernel node attribute {attribute} is not supported"));
                return Err(CUresult::NOT_SUPPORTED);
            }
            Treatment::Refuse => value = [0; 8],
            _ => {}
        }
        // SAFETY: a local of 64 bytes; an address in it was checked.
        unsafe { self.driver.cuGraphKernelNodeSetAttribute(node, attribute, &raw const value) }
    }
}
