//! Copies in graphs whose host end is ordinary memory of the program's, which the worker does not have.
//!
//! Such a memory is read or written when its node runs. So what the driver gets in the node's place is a graph of two nodes: a host
//! function of this library's ([`PageableCopy::run`]) and a copy, with memory between them that is shared with the worker. To the
//! program it is a copy node. Nothing is recorded by node: whether a graph in a node is one of these, the number of its host function
//! says, so that clones, captures and graphs within graphs need no care.
//!
//! The function is kept, and with it the memory, until the worker says that no graph has it any more ([`crate::host_function`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::calls::graph::row;
use cuda_api::graph_node::{self, Copy3D, MemcpyNode, Node, kind, memory_type};
use cuda_api::types::{CUgraph, CUgraphExec, CUgraphNode, CUstream, CUuserObject, CopyEnd, CopyShape};
use cuda_api::{CUresult, CuResult};

use crate::copy_shape::{PITCH_MAX, check_rows, within};
use crate::gate;
use crate::graph_node::{Sent, child_of, memcpy};
use crate::host_function::{Function, add, forget, get, start};
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::ranges::RangeKind;

/// CU_MEMHOSTREGISTER_PORTABLE and …_DEVICEMAP.
const PORTABLE_AND_MAPPED: u32 = 3;
/// CU_USER_OBJECT_NO_DESTRUCTOR_SYNC.
const NO_DESTRUCTOR_SYNC: u32 = 1;
/// CU_GRAPH_USER_OBJECT_MOVE.
const MOVE: u32 = 1;
/// CU_STREAM_SET_CAPTURE_DEPENDENCIES.
const SET_DEPENDENCIES: u32 = 1;
/// Shared memory that no graph has is kept for the next one, up to this. Bytes.
const FREE_MAX: u64 = 64 << 20;

/// The process has had such a copy: until then nobody asks for one.
static ANY: AtomicBool = AtomicBool::new(false);

/// The ends that are ordinary memory, and so what the graph in the node's place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The source: the function, then the copy.
    Up,
    /// The destination: the copy, then the function.
    Down,
    /// Both ends are memory that this process has: the function alone.
    Within,
}

/// Memory that is shared with the worker, in the context that it was made in.
struct Shared {
    start: u64,
    /// The range's number: with its context it goes, and another one may come to its address.
    id: u64,
    len: u64,
}

/// What no graph has any more.
static FREE: Mutex<Vec<(u64, u64, u64)>> = Mutex::new(Vec::new());

impl Drop for Shared {
    fn drop(&mut self) {
        // Where this happens no call may travel.
        lock(&FREE).push((self.start, self.id, self.len));
    }
}

impl Shared {
    fn new(process: &Process, len: u64) -> CuResult<Self> {
        let context = crate::context::owner(crate::context::current()?).0;
        let is_there = |start: u64, id: u64| process.ranges.find(start).filter(|range| range.id == id);
        let mut surplus = Vec::new();
        {
            let mut free = lock(&FREE);
            free.retain(|(start, id, _)| is_there(*start, *id).is_some());
            let fits = |(start, id, size): &(u64, u64, u64)| {
                *size >= len
                    && *size / 2 <= len
                    && is_there(*start, *id).is_some_and(|range| range.context == context)
            };
            if let Some(at) = free.iter().position(fits) {
                let (start, id, len) = free.swap_remove(at);
                return Ok(Shared { start, id, len });
            }
            if free.iter().map(|(.., len)| *len).sum::<u64>() > FREE_MAX {
                std::mem::swap(&mut surplus, &mut free);
            }
        }
        while let Some(one) = surplus.pop() {
            let Some(range) = is_there(one.0, one.1).and_then(|_| process.ranges.remove(one.0)) else {
                continue;
            };
            if let Err(error) = crate::host_memory::unpin(process, range) {
                let mut free = lock(&FREE);
                free.push(one);
                free.append(&mut surplus);
                return Err(error);
            }
        }
        // Small ones fit each other's places.
        let len = len.max(4096);
        let start = crate::host_memory::allocate(
            process,
            len as usize,
            RangeKind::HostAlloc(0),
            PORTABLE_AND_MAPPED,
        )?;
        let id = process.ranges.find(start).ok_or(CUresult::UNKNOWN)?.id;
        Ok(Shared { start, id, len })
    }
}

/// What the host function of such a copy does.
pub struct PageableCopy {
    /// The copy as the program gave it.
    given: Copy3D,
    form: Form,
    /// The rows between the program's memory and the shared one; nothing where the device does it all.
    rows: Option<CopyShape>,
    _shared: Option<Shared>,
    /// A copy whose shared memory has to stay as long.
    _before: Option<Arc<PageableCopy>>,
}

impl PageableCopy {
    /// Copies.
    ///
    /// # Safety
    /// The program's memory is there as CUDA's contract wants it whenever the node runs.
    pub(crate) unsafe fn run(&self) {
        if let Some(rows) = &self.rows {
            // SAFETY: by this function's contract; the shared memory lives as long as this.
            unsafe { within(rows) };
        }
    }
}

/// Rows of memory that this process has.
fn host_end(end: &graph_node::CopyEnd, copy: &Copy3D) -> CuResult<CopyEnd> {
    let at = if end.memory_type == memory_type::HOST { end.host } else { end.device };
    let found = CopyEnd {
        kind: CopyEnd::ADDRESS,
        lod: 0,
        at,
        pitch: end.pitch,
        rows: end.height,
        x: end.x_bytes,
        y: end.y,
        z: end.z,
        context: 0,
    };
    let (width, height, depth) = (copy.width_bytes, copy.height, copy.depth);
    if check_rows(&found, width, height, depth)? {
        return Err(CUresult::INVALID_VALUE);
    }
    let (start, len) = found.extent(width, height, depth)?;
    start.checked_add(len).ok_or(CUresult::INVALID_VALUE)?;
    Ok(found.tight(width, height))
}

/// The same rows without gaps: for the host function, and for the driver.
fn dense(at: u64, copy: &Copy3D) -> (CopyEnd, graph_node::CopyEnd) {
    let (pitch, rows) = (copy.width_bytes, copy.height);
    let here = CopyEnd { kind: CopyEnd::ADDRESS, lod: 0, at, pitch, rows, x: 0, y: 0, z: 0, context: 0 };
    let there = graph_node::CopyEnd {
        memory_type: memory_type::HOST,
        host: at,
        // A single row has no use for it, and may be longer than a pitch.
        pitch: if pitch > PITCH_MAX { 0 } else { pitch },
        height: rows,
        ..Default::default()
    };
    (here, there)
}

fn cannot_become() -> CUresult {
    crate::log::once("graph memcpy changed", || {
        "a graph's copy cannot be changed from or to ordinary host memory in another direction".into()
    });
    CUresult::NOT_SUPPORTED
}

/// The host function's part of a copy and the device's. `pageable`: which of this copy's ends are ordinary memory, in a node of the
/// given form.
fn divide(
    process: &Process,
    given: &Copy3D,
    form: Form,
    pageable: Option<Form>,
) -> CuResult<(PageableCopy, Copy3D)> {
    let of = |rows, shared| PageableCopy { given: *given, form, rows, _shared: shared, _before: None };
    let shape = |dst, src| {
        let (width, height, depth) = (given.width_bytes, given.height, given.depth);
        CopyShape { dst, src, width, height, depth, flags: 0 }
    };
    let shared = || {
        let len = cuda_api::wire::product(&[given.width_bytes, given.height, given.depth])?;
        Shared::new(process, len)
    };
    match pageable {
        Some(Form::Up) if form == Form::Up => {
            let src = host_end(&given.src, given)?;
            let shared = shared()?;
            let (dst, there) = dense(shared.start, given);
            Ok((of(Some(shape(dst, src)), Some(shared)), Copy3D { src: there, ..*given }))
        }
        Some(Form::Down) if form == Form::Down => {
            let dst = host_end(&given.dst, given)?;
            let shared = shared()?;
            let (src, there) = dense(shared.start, given);
            Ok((of(Some(shape(dst, src)), Some(shared)), Copy3D { dst: there, ..*given }))
        }
        Some(Form::Within) if form == Form::Within => {
            let rows = shape(host_end(&given.dst, given)?, host_end(&given.src, given)?);
            Ok((of(Some(rows), None), *given))
        }
        // All of it is the device's, and the function has nothing to do.
        None if form != Form::Within => Ok((of(None, None), *given)),
        _ => Err(cannot_become()),
    }
}

/// The graph in a copy node's place, until it is in the node.
pub(crate) struct Standin {
    process: &'static Process,
    pub(crate) graph: CUgraph,
}

impl Drop for Standin {
    fn drop(&mut self) {
        if let Err(error) = gate::call::<row::cuGraphDestroy>((self.graph,)) {
            crate::log::say(|| format!("a graph of a copy from or to host memory stays: {error}"));
        }
        self.process.objects.remove_plain(self.graph);
    }
}

/// Makes the graph for a copy that is `pageable`.
///
/// # Errors
/// What the copy's node would answer; what the shared memory does.
pub(crate) fn standin(process: &'static Process, node: &MemcpyNode, pageable: Form) -> CuResult<Standin> {
    make(process, node, pageable, Some(pageable), None)
}

fn make(
    process: &'static Process,
    node: &MemcpyNode,
    form: Form,
    pageable: Option<Form>,
    before: Option<Arc<PageableCopy>>,
) -> CuResult<Standin> {
    start(process)?;
    let (copy, inner) = divide(process, &node.copy, form, pageable)?;
    let copy = Arc::new(PageableCopy { _before: before, ..copy });
    let graph: CUgraph =
        process.objects.insert_plain(crate::context::owner(crate::thread::current_context()).0)?;
    if let Err(error) = gate::call::<row::cuGraphCreate>((graph, 0)) {
        process.objects.remove_plain(graph);
        return Err(error);
    }
    let standin = Standin { process, graph };
    let words = Node::Memcpy(MemcpyNode { copy: inner, ..*node }).encode();
    let add_copy = |after: Vec<u64>| {
        gate::call::<row::vgpuGraphAddNode>((graph, after, Vec::new(), false, words, &[]))
            .map(|(node, _)| node)
    };
    let add_function = |after: Vec<u64>| {
        let token = add(Function::Copy(copy));
        gate::call::<row::cuGraphAddHostNode>((graph, after, token)).inspect_err(|_| forget(token))
    };
    match form {
        Form::Up => {
            let function = add_function(Vec::new())?;
            add_copy(vec![function])?;
        }
        Form::Down => {
            let copy = add_copy(Vec::new())?;
            add_function(vec![copy.0])?;
        }
        Form::Within => {
            add_function(Vec::new())?;
        }
    }
    ANY.store(true, Ordering::Release);
    Ok(standin)
}

/// A node that is such a copy.
pub(crate) struct Found {
    /// The graph in it.
    graph: CUgraph,
    /// That graph's nodes.
    function: u64,
    copy: Option<CUgraphNode>,
    token: u64,
    what: Arc<PageableCopy>,
}

impl Found {
    /// The copy as the program gave it.
    pub(crate) fn given(&self) -> &Copy3D {
        &self.what.given
    }
}

/// What a node is, if it is such a copy.
///
/// # Errors
/// For what is no node.
pub(crate) fn find(process: &Process, node: CUgraphNode) -> CuResult<Option<Found>> {
    if !ANY.load(Ordering::Acquire) || gate::call::<row::cuGraphNodeGetType>((node,))? != kind::GRAPH {
        return Ok(None);
    }
    find_in(process, node)
}

/// As [`find`], of a node that has a graph in it.
///
/// # Errors
/// As for that.
pub(crate) fn find_in(process: &Process, node: CUgraphNode) -> CuResult<Option<Found>> {
    if !ANY.load(Ordering::Acquire) {
        return Ok(None);
    }
    let graph = crate::graph_get::child_graph(process, node)?;
    let (total, nodes) = gate::call::<row::cuGraphGetNodes>((graph, 2))?;
    if total > 2 {
        return Ok(None);
    }
    let (mut function, mut copy) = (None, None);
    for node in nodes {
        match gate::call::<row::cuGraphNodeGetType>((CUgraphNode(node),))? {
            kind::HOST => {
                let token = gate::call::<row::cuGraphHostNodeGetParams>((node,))?;
                if let Some(Function::Copy(what)) = get(token) {
                    function = Some((node, token, what));
                }
            }
            kind::MEMCPY => copy = Some(CUgraphNode(node)),
            _ => return Ok(None),
        }
    }
    Ok(function.map(|(function, token, what)| Found { graph, function, copy, token, what }))
}

/// The function is told of when the graph, and what was made of it, is gone.
fn tie(process: &Process, graph: CUgraph, token: u64) -> CuResult<()> {
    let object: CUuserObject = process.objects.insert_plain(0)?;
    let tied = gate::call::<row::cuUserObjectCreate>((object, token, 1, NO_DESTRUCTOR_SYNC))
        .and_then(|()| gate::call::<row::cuGraphRetainUserObject>((graph, object, 1, MOVE)));
    process.objects.remove_plain(object);
    tied
}

/// Changes the copy of such a node.
///
/// # Errors
/// What the driver answers; CUDA_ERROR_NOT_SUPPORTED where it would become another graph.
pub(crate) fn set(
    process: &Process,
    found: &Found,
    node: &MemcpyNode,
    pageable: Option<Form>,
) -> CuResult<()> {
    let (what, inner) = divide(process, &node.copy, found.what.form, pageable)?;
    let token = add(Function::Copy(Arc::new(what)));
    gate::call::<row::cuGraphHostNodeSetParams>((found.function, token)).inspect_err(|_| forget(token))?;
    if let Some(copy) = found.copy {
        let words = Node::Memcpy(MemcpyNode { copy: inner, ..*node }).encode();
        if let Err(error) = gate::call::<row::vgpuGraphNodeSetParams>((copy, false, words, &[])) {
            match gate::call::<row::cuGraphHostNodeSetParams>((found.function, found.token)) {
                Ok(()) => forget(token),
                Err(kept) => crate::log::say(|| format!("a copy node is changed only in part: {kept}")),
            }
            return Err(error);
        }
    }
    if let Err(error) = tie(process, found.graph, token) {
        crate::log::say(|| format!("a graph's copy is kept for the process's life: {error}"));
    }
    Ok(())
}

/// Changes the copy of such a node in an executable graph.
///
/// # Errors
/// As for [`set`].
pub(crate) fn exec_set(
    process: &'static Process,
    exec: CUgraphExec,
    node: CUgraphNode,
    found: &Found,
    params: &MemcpyNode,
    pageable: Option<Form>,
) -> CuResult<()> {
    // The worker looks at the memory of the graph's own copy as well, as long as the executable graph is there.
    let before = Some(found.what.clone());
    let standin = make(process, params, found.what.form, pageable, before)?;
    let words = child_of(standin.graph).encode();
    gate::call::<row::vgpuGraphExecNodeSetParams>((exec, node, false, words, &[]))
}

/// A copy in a stream, in case that the stream is being captured and an end is ordinary memory: it becomes a node. False: it is
/// another copy, and nothing has happened.
///
/// # Errors
/// What adding the node answers.
pub(crate) fn captured(stream: CUstream, copy: &Copy3D) -> CuResult<bool> {
    if !crate::capture::any() {
        return Ok(false);
    }
    let process = initialised()?;
    process.alive()?;
    process.objects.check(stream)?;
    // What is wrong with it is said in its usual place.
    let Ok(Sent { node: Node::Memcpy(params), pageable: Some(pageable), .. }) =
        memcpy(process, copy, crate::thread::current_context().0)
    else {
        return Ok(false);
    };
    let Some((graph, dependencies, edges)) = crate::capture::active(process, stream)? else {
        return Ok(false);
    };
    let standin = standin(process, &params, pageable)?;
    let general = edges.iter().any(|edge| *edge != 0);
    let edges = if general { edges } else { Vec::new() };
    let words = child_of(standin.graph).encode();
    let (node, _) = gate::call::<row::vgpuGraphAddNode>((graph, dependencies, edges, general, words, &[]))?;
    gate::call::<row::cuStreamUpdateCaptureDependencies_v2>((
        stream,
        vec![node.0],
        Vec::new(),
        SET_DEPENDENCIES,
    ))?;
    Ok(true)
}

/// A copy of bytes in a row, to and from memory of these types (CUmemorytype).
pub(crate) fn of_bytes(dst: (u32, u64), src: (u32, u64), len: u64) -> Copy3D {
    let end = |(memory_type, at): (u32, u64)| {
        let (host, device) = if memory_type == memory_type::HOST { (at, 0) } else { (0, at) };
        let pitch = if len > PITCH_MAX { 0 } else { len };
        graph_node::CopyEnd { memory_type, host, device, pitch, height: 1, ..Default::default() }
    };
    Copy3D { src: end(src), dst: end(dst), width_bytes: len, height: 1, depth: 1 }
}

#[cfg(test)]
#[path = "graph_pageable/tests.rs"]
mod tests;
