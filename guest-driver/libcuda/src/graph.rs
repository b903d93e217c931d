//! Graphs that are built and edited by hand: lists of nodes and edges, how graphs become executable, and their memory.

use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cuda_api::calls::graph::row;
use cuda_api::graph_node::list;
use cuda_api::guest::{array, finish, not_null};
use cuda_api::types::{
    CUdevice, CUgraph, CUgraphExec, CUgraphExecUpdateResultInfo, CUgraphNode, CUstream, STREAM_DEFAULT,
    STREAM_PER_THREAD,
};
use cuda_api::wire::INLINE_BYTES_MAX;
use cuda_api::{CUresult, CuResult};

use crate::exports::PerThread as _;
use crate::objects::lock;
use crate::order::Use;
use crate::process::{Process, initialised};
use crate::{gate, thread};

/// CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD.
const INSTANTIATE_UPLOAD: u64 = 2;

/// Graphs of this process allocate: what a launch answers depends on the launches before it.
static ALLOCATES: AtomicBool = AtomicBool::new(false);

/// A graph has got an allocation.
pub fn allocates() {
    ALLOCATES.store(true, Ordering::Relaxed);
}

/// Users of an executable graph ([`crate::objects::Table::claim`]): nobody in particular, but a launch that has gone well, or not.
const PROVEN: u32 = 1;
const UNPROVEN: u32 = 2;

/// The next launch of an executable graph waits for its answer.
pub fn unproven(process: &Process, exec: CUgraphExec) {
    process.objects.graph_execs.claim(exec.0, UNPROVEN);
}

/// cuGraphLaunch. The first launch of each graph waits for its answer: the driver looks at some parameters only then.
pub unsafe fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        process.objects.check(exec)?;
        process.objects.check(stream)?;
        let again = process.objects.graph_execs.claim(exec.0, PROVEN) == Use::Own;
        if again && !ALLOCATES.load(Ordering::Relaxed) {
            gate::post::<row::cuGraphLaunch>((exec, stream))
        } else {
            gate::call::<row::cuGraphLaunch>((exec, stream)).inspect_err(|_| unproven(process, exec))
        }
    })())
}

/// The caller's nodes.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for NULL with elements, or more of them than a frame carries.
///
/// # Safety
/// `pointer` is NULL or points to `count` handles.
pub unsafe fn nodes(pointer: *const CUgraphNode, count: usize) -> CuResult<Vec<u64>> {
    // SAFETY: this function's contract is the callee's.
    let nodes = unsafe { array(pointer, count as u64) }?;
    Ok(nodes.iter().map(|node| node.0).collect())
}

/// The caller's edge data, 8 bytes each; none where it is NULL: then every edge is a full dependency.
///
/// # Errors
/// As for [`nodes`].
///
/// # Safety
/// `pointer` is NULL or points to `count` CUgraphEdgeData.
pub unsafe fn edge_data(pointer: *const c_void, count: usize) -> CuResult<Vec<u64>> {
    if pointer.is_null() || count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: this function's contract; the bytes need no alignment.
    let bytes = unsafe { array(pointer.cast::<u8>(), (count as u64).saturating_mul(8)) }?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|edge| u64::from_le_bytes(*edge)).collect())
}

/// Graphs that belong to a node of another, by name, with that other graph. Their names go when it has gone.
static OWNED: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// A graph was named that goes with another one.
pub fn owned_by(process: &Process, graph: CUgraph, parent: CUgraph) {
    let mut owned = lock(&OWNED);
    owned.push((graph.0, parent.0));
    if owned.len().is_power_of_two() {
        let graphs = &process.objects.graphs;
        owned.retain(|(graph, parent)| {
            let lives = graphs.is_live(*parent);
            if !lives {
                graphs.remove(*graph);
            }
            lives
        });
    }
}

/// Where a list goes.
struct ListOut {
    first: *mut CUgraphNode,
    /// For edges: the nodes that depend on those in `first`.
    second: *mut CUgraphNode,
    edges: *mut u64,
    count: *mut usize,
}

/// Fetches a list; without arrays it is only counted. What it does not fill becomes NULL.
///
/// # Safety
/// `out.count` is NULL or says how long the arrays are that are not NULL.
unsafe fn fetch(what: u32, graph: CUgraph, node: CUgraphNode, out: &ListOut) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    if node.is_null() {
        process.objects.check(graph)?;
    }
    not_null(out.count)?;
    let is_edges = what == list::EDGES;
    if is_edges && out.first.is_null() != out.second.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    let wants_edges = !out.edges.is_null();
    if out.first.is_null() {
        let (total, ..) = gate::call::<row::vgpuGraphList>((what, graph, node, wants_edges, 0, 0))?;
        // SAFETY: not NULL; room for a size_t by this function's contract.
        unsafe { out.count.write(total) };
        return Ok(());
    }
    // SAFETY: not NULL; CUDA's contract: the arrays' room.
    let room = unsafe { out.count.read() };
    let mut got = 0;
    loop {
        let part = (room - got).min(list::ENTRIES_MAX);
        let (total, first, second, edges) =
            gate::call::<row::vgpuGraphList>((what, graph, node, wants_edges, got, part))?;
        let fits = first.len() <= part
            && (!is_edges || second.len() == first.len())
            && (!wants_edges || edges.len() == first.len());
        if !fits {
            return Err(CUresult::UNKNOWN);
        }
        for (i, node) in first.iter().enumerate() {
            // SAFETY: got + i < room, which every array has that is not NULL.
            unsafe {
                out.first.add(got + i).write(CUgraphNode(*node));
                if let (true, Some(node)) = (is_edges, second.get(i)) {
                    out.second.add(got + i).write(CUgraphNode(*node));
                }
                if let (true, Some(edge)) = (wants_edges, edges.get(i)) {
                    out.edges.add(got + i).write_unaligned(*edge);
                }
            }
        }
        got += first.len();
        if first.is_empty() || got >= room.min(total) {
            break;
        }
    }
    for i in got..room {
        // SAFETY: i < room, as above.
        unsafe {
            out.first.add(i).write(CUgraphNode::NULL);
            if is_edges {
                out.second.add(i).write(CUgraphNode::NULL);
            }
            if wants_edges {
                out.edges.add(i).write_unaligned(0);
            }
        }
    }
    // SAFETY: not NULL.
    unsafe { out.count.write(got) };
    Ok(())
}

/// cuGraphNodeFindInClone. What is not found becomes NULL.
pub unsafe fn cuGraphNodeFindInClone(to: *mut CUgraphNode, node: CUgraphNode, clone: CUgraph) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        if node.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        process.objects.check(clone)?;
        let found = gate::call::<row::cuGraphNodeFindInClone>((node, clone));
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(*found.as_ref().unwrap_or(&CUgraphNode::NULL)) };
        found.map(|_| ())
    })())
}

const NO_NODES: *mut CUgraphNode = std::ptr::null_mut();

/// cuGraphGetRootNodes.
pub unsafe fn cuGraphGetRootNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> CUresult {
    let out = ListOut { first: nodes, second: NO_NODES, edges: std::ptr::null_mut(), count };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { fetch(list::ROOTS, graph, CUgraphNode::NULL, &out) })
}

/// cuGraphGetEdges.
pub unsafe fn cuGraphGetEdges(
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    count: *mut usize,
) -> CUresult {
    let out = ListOut { first: from, second: to, edges: std::ptr::null_mut(), count };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { fetch(list::EDGES, graph, CUgraphNode::NULL, &out) })
}

/// cuGraphGetEdges_v2.
pub unsafe fn cuGraphGetEdges_v2(
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    edges: *mut c_void,
    count: *mut usize,
) -> CUresult {
    let out = ListOut { first: from, second: to, edges: edges.cast(), count };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { fetch(list::EDGES, graph, CUgraphNode::NULL, &out) })
}

/// The neighbours of a node.
///
/// # Safety
/// As for [`fetch`].
unsafe fn neighbours(
    what: u32,
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    edges: *mut c_void,
    count: *mut usize,
) -> CUresult {
    finish((|| {
        if node.is_null() {
            initialised()?.alive()?;
            return Err(CUresult::INVALID_VALUE);
        }
        let out = ListOut { first: nodes, second: NO_NODES, edges: edges.cast(), count };
        // SAFETY: this function's contract is the callee's.
        unsafe { fetch(what, CUgraph::NULL, node, &out) }
    })())
}

/// cuGraphNodeGetDependencies.
pub unsafe fn cuGraphNodeGetDependencies(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { neighbours(list::DEPENDENCIES, node, nodes, std::ptr::null_mut(), count) }
}

/// cuGraphNodeGetDependencies_v2.
pub unsafe fn cuGraphNodeGetDependencies_v2(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    edges: *mut c_void,
    count: *mut usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { neighbours(list::DEPENDENCIES, node, nodes, edges, count) }
}

/// cuGraphNodeGetDependentNodes.
pub unsafe fn cuGraphNodeGetDependentNodes(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { neighbours(list::DEPENDENTS, node, nodes, std::ptr::null_mut(), count) }
}

/// cuGraphNodeGetDependentNodes_v2.
pub unsafe fn cuGraphNodeGetDependentNodes_v2(
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    edges: *mut c_void,
    count: *mut usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { neighbours(list::DEPENDENTS, node, nodes, edges, count) }
}

/// A graph, both ends of some of its edges, and what they are for.
type EdgeLists = (CUgraph, Vec<u64>, Vec<u64>, Vec<u64>);

/// Both ends of edges, and what they are for.
///
/// # Safety
/// Arrays of `count`, the last one optional.
unsafe fn edge_lists(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
) -> CuResult<EdgeLists> {
    let process = initialised()?;
    process.alive()?;
    process.objects.check(graph)?;
    // SAFETY: this function's contract is the callees'.
    unsafe { Ok((graph, nodes(from, count)?, nodes(to, count)?, edge_data(edges, count)?)) }
}

/// cuGraphAddDependencies_v2.
pub unsafe fn cuGraphAddDependencies_v2(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    let lists = unsafe { edge_lists(graph, from, to, edges, count) };
    finish(lists.and_then(gate::call::<row::cuGraphAddDependencies_v2>))
}

/// cuGraphRemoveDependencies_v2.
pub unsafe fn cuGraphRemoveDependencies_v2(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    let lists = unsafe { edge_lists(graph, from, to, edges, count) };
    finish(lists.and_then(gate::call::<row::cuGraphRemoveDependencies_v2>))
}

/// CUDA_GRAPH_INSTANTIATE_PARAMS.
#[repr(C)]
#[derive(Clone, Copy)]
struct InstantiateParams {
    flags: u64,
    upload_stream: CUstream,
    error_node: CUgraphNode,
    result: u32,
}

/// cuGraphInstantiateWithParams.
pub unsafe fn cuGraphInstantiateWithParams(
    to: *mut CUgraphExec,
    graph: CUgraph,
    params: *mut c_void,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        process.objects.check(graph)?;
        not_null(params)?;
        let params = params.cast::<InstantiateParams>();
        // SAFETY: not NULL; CUDA's contract with the caller.
        let given = unsafe { params.read_unaligned() };
        let stream = if given.flags & INSTANTIATE_UPLOAD == 0 {
            STREAM_DEFAULT
        } else if thread::default_stream() == STREAM_PER_THREAD {
            given.upload_stream.per_thread()
        } else {
            given.upload_stream
        };
        process.objects.check(stream)?;
        let exec: CUgraphExec =
            process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
        let outcome = gate::call::<row::cuGraphInstantiateWithParams>((exec, graph, given.flags, stream))
            .and_then(|(outcome, result, error_node)| {
                let told = InstantiateParams { error_node, result, ..given };
                // SAFETY: as above; the structure takes what became of it.
                unsafe { params.write_unaligned(told) };
                if outcome == 0 { Ok(()) } else { Err(CUresult(outcome)) }
            });
        made(process, to, exec, outcome)
    })())
}

/// An executable graph was made, or not.
fn made(process: &Process, to: *mut CUgraphExec, exec: CUgraphExec, outcome: CuResult<()>) -> CuResult<()> {
    match outcome {
        Ok(()) => {
            // SAFETY: checked against NULL by every caller; room for a handle by CUDA's contract.
            unsafe { to.write(exec) };
            Ok(())
        }
        Err(error) => {
            process.objects.remove_plain(exec);
            Err(error)
        }
    }
}

/// cuGraphInstantiate_v2.
pub unsafe fn cuGraphInstantiate_v2(
    to: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    size: usize,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        process.objects.check(graph)?;
        let room = if log.is_null() { 0 } else { size.min(INLINE_BYTES_MAX / 2) };
        let exec: CUgraphExec =
            process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
        let outcome = gate::call::<row::cuGraphInstantiate_v2>((exec, graph, room)).and_then(
            |(outcome, node, text)| {
                if text.len() > room {
                    return Err(CUresult::UNKNOWN);
                }
                // SAFETY: the log has `size` >= `room` bytes by the caller's word; the node's place is optional.
                unsafe {
                    std::ptr::copy_nonoverlapping(text.as_ptr(), log.cast(), text.len());
                    if !error_node.is_null() {
                        error_node.write(node);
                    }
                }
                if outcome == 0 { Ok(()) } else { Err(CUresult(outcome)) }
            },
        );
        made(process, to, exec, outcome)
    })())
}

/// cuGraphInstantiate.
pub unsafe fn cuGraphInstantiate(
    to: *mut CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    log: *mut c_char,
    size: usize,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller is the same.
    unsafe { cuGraphInstantiate_v2(to, graph, error_node, log, size) }
}

/// CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED and …_NOT_SUPPORTED.
const TOPOLOGY_CHANGED: i32 = 2;
const NOT_SUPPORTED: i32 = 6;

/// cuGraphExecUpdate.
pub unsafe fn cuGraphExecUpdate(
    exec: CUgraphExec,
    graph: CUgraph,
    error_node: *mut CUgraphNode,
    result: *mut u32,
) -> CUresult {
    let mut info = CUgraphExecUpdateResultInfo { result: 0, reserved: 0, error_node: 0, error_from_node: 0 };
    // SAFETY: a local of the documented layout.
    let outcome = unsafe { crate::capture::cuGraphExecUpdate_v2(exec, graph, &raw mut info) };
    if outcome == CUresult::SUCCESS || outcome == CUresult::GRAPH_EXEC_UPDATE_FAILURE {
        // Of another topology driver 580 tells no node, and in this version another reason.
        if info.result == TOPOLOGY_CHANGED && info.error_node == 0 {
            info.result = NOT_SUPPORTED;
        }
        // SAFETY: each is optional; room by CUDA's contract.
        unsafe {
            if !result.is_null() {
                result.write(info.result.cast_unsigned());
            }
            if !error_node.is_null() {
                error_node.write(CUgraphNode(info.error_node));
            }
        }
    }
    outcome
}

/// cuDeviceGetGraphMemAttribute.
pub unsafe fn cuDeviceGetGraphMemAttribute(device: CUdevice, attribute: u32, value: *mut c_void) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let ordinal = process.host_ordinal(device)?;
        not_null(value)?;
        let found = gate::call::<row::cuDeviceGetGraphMemAttribute>((ordinal, attribute))?;
        // SAFETY: not NULL; all of these attributes are 64-bit numbers.
        unsafe { value.cast::<u64>().write_unaligned(found) };
        Ok(())
    })())
}

/// cuDeviceSetGraphMemAttribute.
pub unsafe fn cuDeviceSetGraphMemAttribute(device: CUdevice, attribute: u32, value: *mut c_void) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let ordinal = process.host_ordinal(device)?;
        not_null(value)?;
        // SAFETY: as above.
        let value = unsafe { value.cast::<u64>().read_unaligned() };
        gate::call::<row::cuDeviceSetGraphMemAttribute>((ordinal, attribute, value))
    })())
}

/// cuDeviceGraphMemTrim.
pub unsafe fn cuDeviceGraphMemTrim(device: CUdevice) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        gate::call::<row::cuDeviceGraphMemTrim>((process.host_ordinal(device)?,))
    })())
}
