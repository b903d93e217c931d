//! Graphs, their nodes' names, and what has to stay as long as they do.
//!
//! The driver's handles of graphs and nodes are addresses of this process, so the guest gets names for them; a name is good as
//! long as its graph is. A graph may belong to a node of another one, or to a capture: it goes with that, and its name, too.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::host::Access;
use cuda_api::types::{CUgraph, CUgraphNode, CUresult, HANDLE_INDEX_MAX, HandleKind, pack_handle};

use crate::Cuda;
use crate::context::Context;
use crate::driver::{Driver, Raw};
use crate::lock::lock;
use crate::objects::destroy;
use crate::session::StreamUse;

/// Nodes that have a name at once.
const NODES_MAX: usize = HANDLE_INDEX_MAX as usize / 2;
const INDEX_MASK: u32 = HANDLE_INDEX_MAX - 1;
/// Values of conditional nodes that one graph has.
const CONDITIONALS_MAX: usize = 4096;
/// CU_STREAM_CAPTURE_STATUS_NONE and …_ACTIVE.
pub(crate) const STATUS_NONE: u32 = 0;
pub(crate) const CAPTURE_ACTIVE: u32 = 1;

/// Something that a node uses: it stays as long as the driver may use it.
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

/// Host memory that a node copies from or to. Once it is not registered any more, the driver would take its address for the
/// worker's own memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostRange {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) access: Access,
}

/// A word that a batch of operations waits for or writes. The node may name any address, as with the driver, which looks at it when the
/// graph is launched; and the driver would find memory of the worker's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WordRange {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) access: Access,
}

/// The words among what nodes use.
fn word_ranges(kept: &HashMap<Raw, Vec<Kept>>) -> Vec<WordRange> {
    kept.values().flatten().filter_map(|kept| (**kept).downcast_ref::<WordRange>().copied()).collect()
}

/// The host memory among what nodes use.
fn host_ranges(kept: &HashMap<Raw, Vec<Kept>>) -> Vec<HostRange> {
    kept.values().flatten().filter_map(|kept| (**kept).downcast_ref::<HostRange>().copied()).collect()
}

/// Whose a graph is.
pub(crate) enum Owner {
    /// The guest's: it destroys it.
    Guest,
    /// A node's of another graph.
    Node { graph: Arc<Graph>, node: Raw },
    /// A capture's that has not ended.
    Capture { stream: StreamUse, id: u64 },
}

/// A graph.
pub(crate) struct Graph {
    pub(crate) raw: Raw,
    driver: &'static Driver,
    /// The context in which it was made.
    pub(crate) context: Option<Arc<Context>>,
    owner: Mutex<Owner>,
    /// What the nodes use, of all graphs that belong to this one as well, by node.
    kept: Mutex<HashMap<Raw, Vec<Kept>>>,
    conditionals: Mutex<HashSet<u64>>,
}

impl Graph {
    pub(crate) fn new(
        driver: &'static Driver,
        raw: Raw,
        context: Option<Arc<Context>>,
        owner: Owner,
    ) -> Arc<Self> {
        let (owner, kept, conditionals) = (Mutex::new(owner), Mutex::default(), Mutex::default());
        Arc::new(Graph { raw, driver, context, owner, kept, conditionals })
    }

    pub(crate) fn is_guests(&self) -> bool {
        matches!(*lock(&self.owner), Owner::Guest)
    }

    pub(crate) fn set_owner(&self, owner: Owner) {
        *lock(&self.owner) = owner;
    }

    /// It was being captured, in this stream and with this number.
    fn capture(&self) -> Option<(Raw, u64)> {
        match &*lock(&self.owner) {
            Owner::Capture { stream, id } => Some((stream.raw, *id)),
            _ => None,
        }
    }

    fn parent(&self) -> Option<(Arc<Graph>, Raw)> {
        match &*lock(&self.owner) {
            Owner::Node { graph, node } => Some((graph.clone(), *node)),
            _ => None,
        }
    }

    /// The graph that belongs to no other, of those that this one belongs to.
    pub(crate) fn root(self: &Arc<Self>) -> Arc<Self> {
        let mut graph = self.clone();
        while let Some((parent, _)) = graph.parent() {
            graph = parent;
        }
        graph
    }

    /// It belongs, over other graphs or not, to one that the condition finds, by a node that it is told.
    fn belongs(&self, condition: impl Fn(&Arc<Graph>, Raw) -> bool) -> bool {
        let mut at = self.parent();
        while let Some((graph, node)) = at {
            if condition(&graph, node) {
                return true;
            }
            at = graph.parent();
        }
        false
    }

    /// What a node uses from now on.
    pub(crate) fn keep(self: &Arc<Self>, node: Raw, kept: Vec<Kept>) {
        let root = self.root();
        let mut all = lock(&root.kept);
        if kept.is_empty() {
            all.remove(&node);
        } else {
            all.insert(node, kept);
        }
    }

    /// All that its nodes use.
    pub(crate) fn kept(self: &Arc<Self>) -> HashMap<Raw, Vec<Kept>> {
        lock(&self.root().kept).clone()
    }

    /// As a copy of another graph, it uses what that one does.
    pub(crate) fn keep_all(&self, kept: HashMap<Raw, Vec<Kept>>) {
        *lock(&self.kept) = kept;
    }

    /// A value for conditional nodes was made.
    pub(crate) fn add_conditional(self: &Arc<Self>, handle: u64) -> CuResult<()> {
        let root = self.root();
        let mut all = lock(&root.conditionals);
        if all.len() >= CONDITIONALS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        all.insert(handle);
        Ok(())
    }

    pub(crate) fn has_conditional(self: &Arc<Self>, handle: u64) -> bool {
        lock(&self.root().conditionals).contains(&handle)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.is_guests() {
            return;
        }
        match &self.context {
            Some(context) => destroy(context, || self.driver.cuGraphDestroy(self.raw)),
            None if self.driver.sticky() == 0 => {
                let _ = self.driver.cuGraphDestroy(self.raw);
            }
            None => {}
        }
    }
}

/// An executable graph.
pub(crate) struct GraphExec {
    pub(crate) raw: Raw,
    pub(crate) context: Arc<Context>,
    used: Mutex<Used>,
}

/// What an executable graph's nodes use.
#[derive(Default)]
struct Used {
    /// By the node of the graph that it was made of.
    kept: HashMap<Raw, Vec<Kept>>,
    /// Of that, host memory.
    host: Vec<HostRange>,
    /// And words.
    words: Vec<WordRange>,
}

impl Used {
    fn new(kept: HashMap<Raw, Vec<Kept>>) -> Self {
        Used { host: host_ranges(&kept), words: word_ranges(&kept), kept }
    }
}

impl GraphExec {
    pub(crate) fn new(raw: Raw, context: Arc<Context>, kept: HashMap<Raw, Vec<Kept>>) -> Self {
        GraphExec { raw, context, used: Mutex::new(Used::new(kept)) }
    }

    /// A node uses something else from now on.
    pub(crate) fn keep(&self, node: Raw, kept: Vec<Kept>) {
        let mut used = lock(&self.used);
        let mut all = std::mem::take(&mut used.kept);
        all.insert(node, kept);
        *used = Used::new(all);
    }

    /// It uses what another graph does.
    pub(crate) fn keep_all(&self, kept: HashMap<Raw, Vec<Kept>>) {
        *lock(&self.used) = Used::new(kept);
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        destroy(&self.context, || self.context.driver.cuGraphExecDestroy(self.raw));
    }
}

/// A node's driver handle and its graph's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) raw: Raw,
    pub(crate) graph: Raw,
}

/// The names of graphs and nodes by the driver's handles.
#[derive(Default)]
pub(crate) struct Graphs {
    nodes: HashMap<u64, Node>,
    names: HashMap<Raw, u64>,
    of_graph: HashMap<Raw, Vec<u64>>,
    graphs: HashMap<Raw, CUgraph>,
    /// Graphs without a name that are being captured, with the capture's number.
    captures: HashMap<Raw, u64>,
    /// Graphs into which streams are captured, by stream: they stay until that ends.
    pub(crate) captured_into: HashMap<Raw, Arc<Graph>>,
    next: u32,
}

impl Graphs {
    /// The name of a graph's node; 0 for none.
    pub(crate) fn name(&mut self, raw: Raw, graph: Raw) -> CuResult<u64> {
        if raw == 0 {
            return Ok(0);
        }
        if let Some(name) = self.names.get(&raw).copied() {
            if self.nodes.get(&name).is_some_and(|node| node.graph == graph) {
                return Ok(name);
            }
            self.forget_node(name);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        // Index and generation are one number that counts up, so that it is long before a name comes again.
        let name = loop {
            self.next = self.next.wrapping_add(1);
            let generation = u8::try_from(self.next.wrapping_div(HANDLE_INDEX_MAX) & 0xff).unwrap_or(0);
            let name = pack_handle(HandleKind::GraphNode, generation, self.next & INDEX_MASK);
            if !self.nodes.contains_key(&name) {
                break name;
            }
        };
        self.nodes.insert(name, Node { raw, graph });
        self.names.insert(raw, name);
        self.of_graph.entry(graph).or_default().push(name);
        Ok(name)
    }

    pub(crate) fn node(&self, name: CUgraphNode) -> CuResult<Node> {
        self.nodes.get(&name.0).copied().ok_or(CUresult::INVALID_VALUE)
    }

    /// Nodes of one graph by their names.
    pub(crate) fn raws(&self, names: &[u64], graph: Raw) -> CuResult<Vec<Raw>> {
        let raw = |name: &u64| match self.node(CUgraphNode(*name))? {
            node if node.graph == graph => Ok(node.raw),
            _ => Err(CUresult::INVALID_VALUE),
        };
        names.iter().map(raw).collect()
    }

    pub(crate) fn forget_node(&mut self, name: u64) {
        let Some(node) = self.nodes.remove(&name) else { return };
        if self.names.get(&node.raw) == Some(&name) {
            self.names.remove(&node.raw);
        }
        if let Some(names) = self.of_graph.get_mut(&node.graph) {
            names.retain(|other| *other != name);
        }
    }

    /// The graph is gone, and its nodes are.
    pub(crate) fn forget_graph(&mut self, raw: Raw) {
        self.graphs.remove(&raw);
        self.captures.remove(&raw);
        for name in self.of_graph.remove(&raw).unwrap_or_default() {
            self.forget_node(name);
        }
    }

    /// The guest's name of a graph.
    pub(crate) fn named(&self, raw: Raw) -> Option<CUgraph> {
        self.graphs.get(&raw).copied()
    }

    /// The graph has this name. What was known of another one with the same driver handle is forgotten, unless that is this one
    /// while it was being captured (`capture` is the capture's number).
    pub(crate) fn set_named(&mut self, raw: Raw, name: CUgraph, capture: Option<u64>) {
        if self.graphs.contains_key(&raw) {
            self.forget_graph(raw);
        }
        self.see_capture(raw, capture);
        self.captures.remove(&raw);
        self.graphs.insert(raw, name);
    }

    /// The graph is being captured, with this number; or not at all.
    pub(crate) fn see_capture(&mut self, raw: Raw, id: Option<u64>) {
        if self.graphs.contains_key(&raw) {
            return;
        }
        if id.is_none() || self.captures.get(&raw).copied() != id {
            self.forget_graph(raw);
        }
        if let Some(id) = id {
            self.captures.insert(raw, id);
        }
    }
}

impl Cuda {
    /// A graph that may be given to the driver.
    pub(crate) fn graph(&self, handle: CUgraph) -> CuResult<Arc<Graph>> {
        let graph = self.graphs.get(handle)?;
        if graph.context.as_ref().is_some_and(|context| !context.alive()) {
            return Err(CUresult::INVALID_VALUE);
        }
        // A capture may have ended with its stream: only the driver knows.
        if let Some((stream, id)) = graph.capture() {
            let (status, now, raw, ..) = self.driver.cuStreamGetCaptureInfo_v3(stream)?;
            if (status, now, raw) != (CAPTURE_ACTIVE, id, graph.raw) {
                return Err(CUresult::INVALID_VALUE);
            }
        }
        Ok(graph)
    }

    /// A node that may be given to the driver, and its graph.
    pub(crate) fn node(&self, graphs: &Graphs, name: CUgraphNode) -> CuResult<(Raw, Arc<Graph>)> {
        let node = graphs.node(name)?;
        let graph = self.graph(graphs.named(node.graph).ok_or(CUresult::INVALID_VALUE)?)?;
        if graph.raw == node.graph { Ok((node.raw, graph)) } else { Err(CUresult::INVALID_VALUE) }
    }

    fn check_host(&self, ranges: &[HostRange]) -> CuResult<()> {
        for HostRange { start, len, access } in ranges {
            self.memory.check(*start, *len, *access)?;
            if !self.memory.is_host(*start) {
                return Err(CUresult::INVALID_VALUE);
            }
        }
        Ok(())
    }

    /// The host memory of a graph's nodes is still registered.
    pub(crate) fn check_host_of_graph(&self, graph: &Arc<Graph>) -> CuResult<()> {
        self.check_host(&host_ranges(&lock(&graph.root().kept)))
    }

    /// The memory of an executable graph's nodes that the driver takes for what it may be: host memory is still registered, and words
    /// lie in the session's memory.
    pub(crate) fn check_memory_of_exec(&self, exec: &GraphExec) -> CuResult<()> {
        let used = lock(&exec.used);
        for WordRange { start, len, access } in &used.words {
            self.memory.check(*start, *len, *access).map_err(|_| CUresult::INVALID_VALUE)?;
        }
        self.check_host(&used.host)
    }

    /// A new graph under a name that the guest gave it. Where it cannot be added it is dropped.
    pub(crate) fn add_graph(
        &self,
        graphs: &mut Graphs,
        name: CUgraph,
        graph: Arc<Graph>,
        capture: Option<u64>,
    ) -> CuResult<()> {
        let raw = graph.raw;
        self.graphs.add(name, graph)?;
        graphs.set_named(raw, name, capture);
        Ok(())
    }

    /// A graph that is not the guest's has a name already, or gets the one that the guest proposes.
    pub(crate) fn borrow_graph(
        &self,
        graphs: &mut Graphs,
        raw: Raw,
        proposed: CUgraph,
        capture: Option<u64>,
        make: impl FnOnce() -> Arc<Graph>,
    ) -> CuResult<CUgraph> {
        if let Some(name) = graphs.named(raw) {
            if self.graph(name).is_ok() {
                return Ok(name);
            }
            // Another one, of before.
            let _ = self.graphs.remove(name);
            graphs.forget_graph(raw);
        }
        self.add_graph(graphs, proposed, make(), capture)?;
        Ok(proposed)
    }

    /// Graphs were taken out of the table: their nodes' names go, and the graphs that belong to them.
    pub(crate) fn forget_graphs(&self, gone: Vec<Arc<Graph>>) {
        let mut graphs = lock(&self.graph_state);
        for graph in &gone {
            self.forget_belonging(&mut graphs, |of, _| Arc::ptr_eq(of, graph));
            graphs.forget_graph(graph.raw);
        }
    }

    /// The graphs that belong to a graph or node that is gone are gone with it.
    pub(crate) fn forget_belonging(&self, graphs: &mut Graphs, condition: impl Fn(&Arc<Graph>, Raw) -> bool) {
        for graph in self.graphs.remove_if(|graph| graph.belongs(&condition)) {
            graphs.forget_graph(graph.raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Raw = 0x10;
    const B: Raw = 0x20;

    #[test]
    fn a_node_has_one_name_that_is_not_its_address() {
        let mut graphs = Graphs::default();
        let first = graphs.name(0x5555_0000, A).unwrap();
        assert_eq!(graphs.name(0x5555_0000, A), Ok(first));
        assert_ne!(graphs.name(0x5555_0040, A).unwrap(), first);
        assert_ne!(first, 0x5555_0000);
        assert_eq!(graphs.name(0, A), Ok(0));
        assert_eq!(graphs.node(CUgraphNode(first)), Ok(Node { raw: 0x5555_0000, graph: A }));
        assert_eq!(graphs.node(CUgraphNode(0)), Err(CUresult::INVALID_VALUE));
    }

    #[test]
    fn names_go_with_the_node_or_the_graph_and_do_not_come_again() {
        let mut graphs = Graphs::default();
        let [first, second] = [0x100, 0x200].map(|raw| graphs.name(raw, A).unwrap());
        let other = graphs.name(0x300, B).unwrap();
        graphs.forget_node(first);
        assert!(graphs.node(CUgraphNode(first)).is_err());
        let again = graphs.name(0x100, A).unwrap();
        assert_ne!(again, first);
        graphs.forget_graph(A);
        assert!([again, second].iter().all(|name| graphs.node(CUgraphNode(*name)).is_err()));
        assert!(graphs.node(CUgraphNode(other)).is_ok());
        // The driver uses the address for a node of another graph.
        let moved = graphs.name(0x300, A).unwrap();
        assert!(moved != other && graphs.node(CUgraphNode(other)).is_err());
    }

    #[test]
    fn nodes_are_of_one_graph() {
        let mut graphs = Graphs::default();
        let (first, second) = (graphs.name(0x100, A).unwrap(), graphs.name(0x200, B).unwrap());
        assert_eq!(graphs.raws(&[first], A), Ok(vec![0x100]));
        assert_eq!(graphs.raws(&[first, second], A), Err(CUresult::INVALID_VALUE));
        assert_eq!(graphs.raws(&[first + 16 * 99], A), Err(CUresult::INVALID_VALUE));
    }

    #[test]
    fn another_capture_has_none_of_the_nodes_of_the_one_before() {
        let mut graphs = Graphs::default();
        graphs.see_capture(A, Some(1));
        let first = graphs.name(0x100, A).unwrap();
        graphs.see_capture(A, Some(1));
        assert!(graphs.node(CUgraphNode(first)).is_ok());
        graphs.see_capture(A, Some(2));
        assert!(graphs.node(CUgraphNode(first)).is_err());
        let second = graphs.name(0x100, A).unwrap();
        graphs.set_named(A, CUgraph(7), Some(2));
        assert!(graphs.node(CUgraphNode(second)).is_ok());
        assert_eq!(graphs.named(A), Some(CUgraph(7)));
        graphs.forget_graph(A);
        assert_eq!(graphs.named(A), None);
        graphs.see_capture(A, Some(3));
        let third = graphs.name(0x100, A).unwrap();
        graphs.set_named(A, CUgraph(8), None);
        assert!(graphs.node(CUgraphNode(third)).is_err());
    }
}
