//! Capture and the graphs it makes.
//!
//! Whether a stream is being captured is asked thousands of times and almost never so: as long as no capture has begun in the
//! process, the answer is given here.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use cuda_api::calls::graph::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUgraph, CUgraphExec, CUgraphExecUpdateResultInfo, CUgraphNode, CUstream};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::initialised;
use crate::thread;

/// Captures that have begun and not ended.
static CAPTURES: AtomicU32 = AtomicU32::new(0);

const CAPTURE_STATUS_NONE: u32 = 0;

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

/// cuStreamBeginCapture_v2.
pub unsafe fn cuStreamBeginCapture_v2(stream: CUstream, mode: u32) -> CUresult {
    finish((|| {
        check_stream(stream)?;
        if mode > 2 {
            return Err(CUresult::INVALID_VALUE);
        }
        CAPTURES.fetch_add(1, Ordering::AcqRel);
        gate::call::<row::cuStreamBeginCapture_v2>((stream, mode)).inspect_err(|_| {
            CAPTURES.fetch_sub(1, Ordering::AcqRel);
        })
    })())
}

/// cuStreamEndCapture.
pub unsafe fn cuStreamEndCapture(stream: CUstream, to: *mut CUgraph) -> CUresult {
    finish((|| {
        check_stream(stream)?;
        not_null(to)?;
        let process = initialised()?;
        let graph: CUgraph =
            process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
        let outcome = gate::call::<row::cuStreamEndCapture>((stream, graph));
        // An invalidated capture has ended as well. After any other error it may go on (another thread's, another stream's): one
        // counted too many costs a question to the worker, one too few a wrong answer.
        if matches!(
            outcome,
            Ok(()) | Err(CUresult::STREAM_CAPTURE_INVALIDATED | CUresult::STREAM_CAPTURE_UNJOINED)
        ) {
            let _ = CAPTURES.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1));
        }
        if let Err(error) = outcome {
            process.objects.remove_plain(graph);
            // SAFETY: not NULL; room for a handle by CUDA's contract, which is NULL where the capture came to nothing.
            unsafe { to.write(CUgraph::NULL) };
            return Err(error);
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(graph) };
        Ok(())
    })())
}

/// cuStreamGetCaptureInfo_v3. While nothing is captured, the answer is known here; the dependencies of a capture stay valid
/// until the thread's next call, as with the driver.
pub unsafe fn cuStreamGetCaptureInfo_v3(
    stream: CUstream,
    status: *mut u32,
    id: *mut u64,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    edges: *mut *const c_void,
    count: *mut usize,
) -> CUresult {
    finish((|| {
        check_stream(stream)?;
        not_null(status)?;
        if CAPTURES.load(Ordering::Acquire) == 0 {
            // SAFETY: not NULL; room by CUDA's contract.
            unsafe { status.write(CAPTURE_STATUS_NONE) };
            return Ok(());
        }
        let (info, nodes, edge_data) = gate::call::<row::cuStreamGetCaptureInfo_v3>((stream,))?;
        let listed = nodes.len();
        let (node_list, edge_list) = thread::with(|t| {
            t.capture_lists = [nodes, edge_data];
            (t.capture_lists[0].as_ptr(), t.capture_lists[1].as_ptr())
        })
        .ok_or(CUresult::NOT_PERMITTED)?;
        // SAFETY: each is written only where the caller gave room for it.
        unsafe {
            status.write(info.status);
            if info.status == CAPTURE_STATUS_NONE {
                return Ok(());
            }
            if !id.is_null() {
                id.write(info.id);
            }
            if !graph.is_null() {
                graph.write(CUgraph(info.graph));
            }
            if !count.is_null() {
                count.write(listed);
            }
            if !dependencies.is_null() {
                dependencies.write(node_list.cast());
            }
            if !edges.is_null() {
                edges.write(edge_list.cast());
            }
        }
        Ok(())
    })())
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
        not_null(info)?;
        let (result, told) = gate::call::<row::cuGraphExecUpdate_v2>((exec, graph))?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { info.write(told) };
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
        for (i, node) in list.iter().enumerate() {
            // SAFETY: i < room, which the caller gave.
            unsafe { nodes.add(i).write(CUgraphNode(*node)) };
        }
        // SAFETY: not NULL.
        unsafe { count.write(if nodes.is_null() { total } else { list.len() }) };
        Ok(())
    })())
}
