//! Capture and the graphs it makes.
//!
//! Whether a stream is being captured is asked thousands of times and almost never so: as long as no capture has begun in the
//! process, the answer is given here.
//!
//! Which streams a capture has come to (through events, and to other devices') and whether it was invalidated since, only the driver
//! knows, and it says so to the very call. So nothing is posted while a capture is under way: each call waits for its answer.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use cuda_api::calls::graph::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{
    CUgraph, CUgraphExec, CUgraphExecUpdateResultInfo, CUgraphNode, CUstream, CaptureInfo,
};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::graph::{edge_data, nodes};
use crate::process::{Process, initialised};
use crate::thread;

/// Captures that have begun and not ended.
static CAPTURES: AtomicU32 = AtomicU32::new(0);

const CAPTURE_STATUS_NONE: u32 = 0;
const CAPTURE_STATUS_ACTIVE: u32 = 1;

/// Some stream of the process may be being captured.
pub fn any() -> bool {
    CAPTURES.load(Ordering::Acquire) != 0
}

fn check_stream(stream: CUstream) -> CuResult<()> {
    initialised()?.objects.check(stream)
}

/// cuStreamIsCapturing.
pub unsafe fn cuStreamIsCapturing(stream: CUstream, status: *mut u32) -> CUresult {
    finish((|| {
        initialised()?.alive()?;
        check_stream(stream)?;
        not_null(status)?;
        let value = if CAPTURES.load(Ordering::Acquire) == 0 {
            CAPTURE_STATUS_NONE
        } else {
            gate::call::<row::cuStreamGetCaptureInfo_v3>((stream,))?.0.status
        };
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { status.write(value) };
        Ok(())
    })())
}

/// A capture begins, by `call`.
fn begin(stream: CUstream, mode: u32, call: impl FnOnce() -> CuResult<()>) -> CuResult<()> {
    check_stream(stream)?;
    if mode > 2 {
        return Err(CUresult::INVALID_VALUE);
    }
    CAPTURES.fetch_add(1, Ordering::AcqRel);
    call().inspect_err(|_| {
        CAPTURES.fetch_sub(1, Ordering::AcqRel);
    })
}

/// cuStreamBeginCapture_v2.
pub unsafe fn cuStreamBeginCapture_v2(stream: CUstream, mode: u32) -> CUresult {
    finish(begin(stream, mode, || gate::call::<row::cuStreamBeginCapture_v2>((stream, mode))))
}

/// cuStreamBeginCapture: before CUDA 10.1 there was no other mode than GLOBAL.
pub unsafe fn cuStreamBeginCapture(stream: CUstream) -> CUresult {
    // SAFETY: numbers only.
    unsafe { cuStreamBeginCapture_v2(stream, 0) }
}

/// cuStreamBeginCaptureToGraph.
pub unsafe fn cuStreamBeginCaptureToGraph(
    stream: CUstream,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
    mode: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        process.objects.check(graph)?;
        // SAFETY: CUDA's contract: arrays of `count`, the second one optional.
        let (dependencies, edges) = unsafe { (nodes(dependencies, count)?, edge_data(edges, count)?) };
        begin(stream, mode, || {
            gate::call::<row::cuStreamBeginCaptureToGraph>((stream, graph, dependencies, edges, mode))
        })
    })())
}

/// cuStreamEndCapture.
pub unsafe fn cuStreamEndCapture(stream: CUstream, to: *mut CUgraph) -> CUresult {
    finish((|| {
        check_stream(stream)?;
        let process = initialised()?;
        let proposed: CUgraph =
            process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
        let outcome = gate::call::<row::vgpuStreamEndCapture>((stream, proposed));
        // An invalidated capture has ended as well. After any other error it may go on (another thread's, another stream's): one
        // counted too many costs a question to the worker, one too few a wrong answer.
        if matches!(
            outcome,
            Ok(_) | Err(CUresult::STREAM_CAPTURE_INVALIDATED | CUresult::STREAM_CAPTURE_UNJOINED)
        ) {
            let _ = CAPTURES.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1));
        }
        if outcome != Ok(proposed) {
            process.objects.remove_plain(proposed);
        }
        if to.is_null() {
            // The capture has ended all the same, and nobody can name a graph that has not been named before.
            if outcome == Ok(proposed) {
                process.objects.remove_plain(proposed);
                gate::call::<row::cuGraphDestroy>((proposed,))?;
            }
            return outcome.map(|_| ());
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract, which is NULL where the capture came to nothing.
        unsafe { to.write(*outcome.as_ref().unwrap_or(&CUgraph::NULL)) };
        outcome.map(|_| ())
    })())
}

/// Where a capture's state is to be written; NULL: nowhere.
struct CaptureOut {
    status: *mut u32,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const c_void,
    count: *mut usize,
}

/// A capture's state. While nothing is captured, the answer is known here; the dependencies of a capture stay valid until the
/// thread's next call, as with the driver.
///
/// # Safety
/// Each place is NULL or has room for its value.
unsafe fn capture_info(stream: CUstream, out: &CaptureOut) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    check_stream(stream)?;
    not_null(out.status)?;
    if CAPTURES.load(Ordering::Acquire) == 0 {
        // SAFETY: not NULL; room by this function's contract.
        unsafe { out.status.write(CAPTURE_STATUS_NONE) };
        return Ok(());
    }
    let (info, nodes, edges) = if out.graph.is_null() {
        gate::call::<row::cuStreamGetCaptureInfo_v3>((stream,))?
    } else {
        info_with_graph(process, stream)?
    };
    let is_active = info.status == CAPTURE_STATUS_ACTIVE;
    if is_active && out.dependencies.is_null() && !out.edges.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    if !out.dependencies.is_null() && out.edges.is_null() && edges.iter().any(|edge| *edge != 0) {
        return Err(CUresult::LOSSY_QUERY);
    }
    let listed = nodes.len();
    let (node_list, edge_list) = thread::with(|t| {
        t.capture_lists = [nodes, edges];
        // NULL where there is nothing.
        let first = |list: &Vec<u64>| if list.is_empty() { std::ptr::null() } else { list.as_ptr() };
        (first(&t.capture_lists[0]), first(&t.capture_lists[1]))
    })
    .ok_or(CUresult::NOT_PERMITTED)?;
    // SAFETY: each is written only where the caller gave room for it.
    unsafe {
        out.status.write(info.status);
        if !is_active {
            return Ok(());
        }
        if !out.id.is_null() {
            out.id.write(info.id);
        }
        if !out.graph.is_null() {
            out.graph.write(CUgraph(info.graph));
        }
        if !out.count.is_null() {
            out.count.write(listed);
        }
        if !out.dependencies.is_null() {
            out.dependencies.write(node_list.cast());
        }
        if !out.edges.is_null() {
            out.edges.write(edge_list.cast());
        }
    }
    Ok(())
}

/// A capture's state, with its graph.
fn info_with_graph(process: &Process, stream: CUstream) -> CuResult<(CaptureInfo, Vec<u64>, Vec<u64>)> {
    let proposed: CUgraph =
        process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
    let outcome = gate::call::<row::vgpuStreamCaptureInfo>((stream, proposed));
    if !matches!(&outcome, Ok((info, ..)) if info.graph == proposed.0) {
        process.objects.remove_plain(proposed);
    }
    outcome
}

/// A graph, what its next node will depend on, and what those edges are for.
type Active = (CUgraph, Vec<u64>, Vec<u64>);

/// A stream's capture, if it is being captured and nothing is wrong with that.
///
/// # Errors
/// As cuStreamGetCaptureInfo.
pub(crate) fn active(process: &Process, stream: CUstream) -> CuResult<Option<Active>> {
    if gate::call::<row::cuStreamGetCaptureInfo_v3>((stream,))?.0.status != CAPTURE_STATUS_ACTIVE {
        return Ok(None);
    }
    let (info, nodes, edges) = info_with_graph(process, stream)?;
    Ok((info.status == CAPTURE_STATUS_ACTIVE).then_some((CUgraph(info.graph), nodes, edges)))
}

/// cuStreamGetCaptureInfo_v3.
pub unsafe fn cuStreamGetCaptureInfo_v3(
    stream: CUstream,
    status: *mut u32,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const c_void,
    count: *mut usize,
) -> CUresult {
    let out = CaptureOut { status, id, graph, dependencies, edges, count };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { capture_info(stream, &out) })
}

/// cuStreamGetCaptureInfo_v2.
pub unsafe fn cuStreamGetCaptureInfo_v2(
    stream: CUstream,
    status: *mut u32,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    count: *mut usize,
) -> CUresult {
    let out = CaptureOut { status, id, graph, dependencies, edges: std::ptr::null_mut(), count };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { capture_info(stream, &out) })
}

/// cuStreamGetCaptureInfo.
pub unsafe fn cuStreamGetCaptureInfo(stream: CUstream, status: *mut u32, id: *mut u64) -> CUresult {
    let (graph, dependencies) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (edges, count) = (std::ptr::null_mut(), std::ptr::null_mut());
    let out = CaptureOut { status, id, graph, dependencies, edges, count };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { capture_info(stream, &out) })
}

/// # Safety
/// Arrays of `count`, the second one optional.
unsafe fn update_dependencies(
    stream: CUstream,
    dependencies: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
    flags: u32,
) -> CuResult<()> {
    initialised()?.alive()?;
    check_stream(stream)?;
    // SAFETY: this function's contract is the callees'.
    let (dependencies, edges) = unsafe { (nodes(dependencies, count)?, edge_data(edges, count)?) };
    gate::call::<row::cuStreamUpdateCaptureDependencies_v2>((stream, dependencies, edges, flags))
}

/// cuStreamUpdateCaptureDependencies_v2.
pub unsafe fn cuStreamUpdateCaptureDependencies_v2(
    stream: CUstream,
    dependencies: *mut CUgraphNode,
    edges: *const c_void,
    count: usize,
    flags: u32,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { update_dependencies(stream, dependencies, edges, count, flags) })
}

/// cuStreamUpdateCaptureDependencies.
pub unsafe fn cuStreamUpdateCaptureDependencies(
    stream: CUstream,
    dependencies: *mut CUgraphNode,
    count: usize,
    flags: u32,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { update_dependencies(stream, dependencies, std::ptr::null(), count, flags) })
}

/// cuThreadExchangeStreamCaptureMode.
pub unsafe fn cuThreadExchangeStreamCaptureMode(mode: *mut u32) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(mode)?;
        // SAFETY: not NULL; CUDA's contract: an enumerator in and out.
        let wanted = unsafe { mode.read() };
        if wanted > 2 {
            return Err(CUresult::INVALID_VALUE);
        }
        let before = thread::with(|t| std::mem::replace(&mut t.capture_mode, wanted)).unwrap_or(0);
        // SAFETY: as above.
        unsafe { mode.write(before) };
        Ok(())
    })())
}

/// cuGraphExecUpdate_v2.
pub unsafe fn cuGraphExecUpdate_v2(
    exec: CUgraphExec,
    graph: CUgraph,
    info: *mut CUgraphExecUpdateResultInfo,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.objects.check(exec)?;
        process.objects.check(graph)?;
        let (result, told) = gate::call::<row::cuGraphExecUpdate_v2>((exec, graph))?;
        if !info.is_null() {
            // SAFETY: not NULL; room by CUDA's contract.
            unsafe { info.write(told) };
        }
        if result == 0 { Ok(()) } else { Err(CUresult(result)) }
    })())
}

/// cuGraphGetNodes: without an array it only counts.
pub unsafe fn cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> CUresult {
    finish((|| {
        initialised()?.objects.check(graph)?;
        not_null(count)?;
        // SAFETY: not NULL; CUDA's contract: the array's room where there is an array.
        let room = if nodes.is_null() { 0 } else { unsafe { count.read() } };
        let (total, list) = gate::call::<row::cuGraphGetNodes>((graph, room))?;
        if list.len() > room {
            return Err(CUresult::UNKNOWN);
        }
        for i in 0..room {
            // SAFETY: i < room, which the caller gave; what the graph does not fill is NULL, as with the driver.
            unsafe { nodes.add(i).write(CUgraphNode(list.get(i).copied().unwrap_or(0))) };
        }
        // SAFETY: not NULL.
        unsafe { count.write(if nodes.is_null() { total } else { list.len() }) };
        Ok(())
    })())
}
