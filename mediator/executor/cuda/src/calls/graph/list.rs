//! Lists of nodes and edges.

use cuda_api::CuResult;
use cuda_api::graph_node::list::{DEPENDENCIES, DEPENDENTS, EDGES, ENTRIES_MAX, ROOTS};
use cuda_api::types::*;
use cuda_api::wire::REPLY_ITEMS_MAX;

use super::{check_edges, edges_at};
use crate::Cuda;
use crate::driver::Raw;
use crate::lock::lock;

/// A part of a list: how long the whole is, nodes, the nodes at the other ends of edges, and what the edges are for.
type Part = (usize, Vec<u64>, Vec<u64>, Vec<u64>);

/// A list as the driver gives it: nodes, the nodes at the other ends of edges, and what the edges are for.
struct Full {
    graph: Raw,
    total: usize,
    first: Vec<Raw>,
    second: Vec<Raw>,
    edges: Vec<u64>,
}

impl Cuda {
    /// A graph's first nodes, as many as there is room for.
    pub(super) fn nodes_of(&self, graph: CUgraph, room: usize) -> CuResult<(usize, Vec<u64>)> {
        let mut graphs = lock(&self.graph_state);
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
        let names: CuResult<Vec<u64>> = nodes.iter().map(|node| graphs.name(*node, graph.raw)).collect();
        Ok((total, names?))
    }

    /// A part of a list. Without room it is only counted.
    pub(super) fn list_part(
        &self,
        what: u32,
        graph: CUgraph,
        node: CUgraphNode,
        wants_edges: bool,
        start: usize,
        room: usize,
    ) -> CuResult<Part> {
        let mut graphs = lock(&self.graph_state);
        let of = match what {
            ROOTS | EDGES => {
                let raw = self.graph(graph)?.raw;
                (raw, raw)
            }
            DEPENDENCIES | DEPENDENTS => {
                let (node, graph) = self.node(&graphs, node)?;
                (node, graph.raw)
            }
            _ => return Err(CUresult::INVALID_VALUE),
        };
        let full = self.full_list(what, of, wants_edges, room == 0)?;
        let end = start.saturating_add(room.min(ENTRIES_MAX));
        let part = |from: &[Raw]| -> Vec<Raw> {
            from.get(start.min(from.len())..end.min(from.len())).unwrap_or_default().to_vec()
        };
        let mut names = |nodes: Vec<Raw>| -> CuResult<Vec<u64>> {
            nodes.into_iter().map(|node| graphs.name(node, full.graph)).collect()
        };
        let (first, second) = (names(part(&full.first))?, names(part(&full.second))?);
        let edges =
            full.edges.get(start.min(full.edges.len())..end.min(full.edges.len())).unwrap_or_default();
        Ok((full.total, first, second, edges.to_vec()))
    }

    fn full_list(
        &self,
        what: u32,
        (of, graph): (Raw, Raw),
        wants_edges: bool,
        only_count: bool,
    ) -> CuResult<Full> {
        let mut full = Full { graph, total: 0, first: Vec::new(), second: Vec::new(), edges: Vec::new() };
        let none = std::ptr::null_mut();
        self.ask_list(what, of, [none, none], std::ptr::null_mut(), &mut full.total)?;
        if only_count || full.total == 0 {
            return Ok(full);
        }
        let mut count = full.total;
        full.first = vec![0; count];
        let mut second = none;
        if what == EDGES {
            full.second = vec![0; count];
            second = full.second.as_mut_ptr();
        }
        let mut edges = std::ptr::null_mut();
        if wants_edges {
            full.edges = vec![0; count];
            edges = full.edges.as_mut_ptr();
        }
        let first = full.first.as_mut_ptr();
        self.ask_list(what, of, [first, second], edges, &mut count)?;
        full.first.truncate(count);
        full.second.truncate(count);
        full.edges.truncate(count);
        Ok(full)
    }

    /// The driver's list; the arrays are NULL or have room for `count`. Without room for what the edges are for, it refuses where they
    /// are for anything special (CUDA_ERROR_LOSSY_QUERY).
    fn ask_list(
        &self,
        what: u32,
        of: Raw,
        [first, second]: [*mut Raw; 2],
        edges: *mut u64,
        count: &mut usize,
    ) -> CuResult<()> {
        let count: *mut usize = count;
        // SAFETY: arrays with room for as many as `count` says, or none; the graph or node is alive.
        unsafe {
            match what {
                ROOTS => self.driver.cuGraphGetRootNodes(of, first, count),
                EDGES => self.driver.cuGraphGetEdges_v2(of, first, second, edges, count),
                DEPENDENCIES => self.driver.cuGraphNodeGetDependencies_v2(of, first, edges, count),
                _ => self.driver.cuGraphNodeGetDependentNodes_v2(of, first, edges, count),
            }
        }
    }

    pub(super) fn add_dependencies(
        &self,
        graph: CUgraph,
        from: &[u64],
        to: &[u64],
        edges: &[u64],
    ) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?.raw;
        let (from, to) = (graphs.raws(from, graph)?, graphs.raws(to, graph)?);
        let (edges, count) = ends(&from, &to, edges)?;
        // SAFETY: lists of `count` nodes of the graph and edges.
        unsafe { self.driver.cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), edges, count) }
    }

    pub(super) fn remove_dependencies(
        &self,
        graph: CUgraph,
        from: &[u64],
        to: &[u64],
        edges: &[u64],
    ) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?.raw;
        let (from, to) = (graphs.raws(from, graph)?, graphs.raws(to, graph)?);
        let (edges, count) = ends(&from, &to, edges)?;
        // SAFETY: lists of `count` nodes of the graph and edges.
        unsafe { self.driver.cuGraphRemoveDependencies_v2(graph, from.as_ptr(), to.as_ptr(), edges, count) }
    }
}

/// Edges have two ends each.
fn ends(from: &[Raw], to: &[Raw], edges: &[u64]) -> CuResult<(*const u64, usize)> {
    if from.len() != to.len() {
        return Err(CUresult::INVALID_VALUE);
    }
    check_edges(edges, from.len())?;
    Ok((edges_at(edges), from.len()))
}
