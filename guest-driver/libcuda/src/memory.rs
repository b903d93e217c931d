//! Device memory. An address that the worker gives is reserved in this process; where something of the process's own lies there,
//! the worker is asked for another before the clashing one is freed.

use cuda_api::calls::memory::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUdeviceptr};
use cuda_api::{CUresult, CuResult};

use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};
use crate::{freed, gate};

/// How often another address is asked for before the allocation fails.
const CLASHES_MAX: usize = 16;
/// The pitch's granularity in bytes, as on every GPU of the last decade.
const PITCH_BYTES: usize = 512;

fn allocate(process: &Process, len: usize) -> CuResult<CUdeviceptr> {
    process.alive()?;
    if len == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    let context = crate::context::owner(crate::context::current()?);
    let device = crate::context::device_of(context).map_err(|_| CUresult::CONTEXT_IS_DESTROYED)?;
    if let Some(at) = freed::again(context, device, len as u64) {
        insert(process, at, len, context, device);
        return Ok(at);
    }
    let mut avoid = Vec::new();
    let mut clashing = Vec::new();
    let outcome = loop {
        let at = match gate::call::<row::cuMemAlloc_v2>((len, &avoid)) {
            Ok(at) => at,
            Err(error) => break Err(error),
        };
        if process.reservations.hold(at, len as u64).is_ok() {
            break Ok(at);
        }
        clashing.push(at);
        avoid.extend_from_slice(&at.to_le_bytes());
        avoid.extend_from_slice(&(len as u64).to_le_bytes());
        if clashing.len() == CLASHES_MAX {
            crate::log::say(|| format!("no {len} bytes of addresses that are free here and on the device"));
            break Err(CUresult::OUT_OF_MEMORY);
        }
    };
    for at in clashing {
        // What the caller asked for has its own outcome; memory that the worker does not take back goes with the session.
        if let Err(error) = gate::call::<row::cuMemFree_v2>((at,)) {
            crate::log::say(|| format!("memory at a clashing address is not taken back: {error}"));
        }
    }
    let at = outcome?;
    insert(process, at, len, context, device);
    Ok(at)
}

fn insert(process: &Process, at: CUdeviceptr, len: usize, context: CUcontext, device: i32) {
    process.ranges.insert(Range {
        start: at,
        len: len as u64,
        kind: RangeKind::Device,
        context: context.0,
        device,
        id: 0,
        read_only: false,
        owner: 0,
    });
}

/// The context's work is done, as cuMemFree waits for it, and freed memory of it may be kept.
fn is_unused(context: u64) -> bool {
    let settled = gate::with_ring(|process, lane| {
        if lane.context != context || !crate::waiting::may_know(process) {
            return Ok(false);
        }
        if !lane.context_is_over() {
            lane.wait_for_context(CUcontext(context))?;
        }
        Ok(lane.context_is_over())
    });
    // What is wrong, the call itself says.
    settled.unwrap_or(false)
}

/// cuMemAlloc.
pub unsafe fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, len: usize) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(dptr)?;
        let at = allocate(process, len)?;
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { dptr.write(at) };
        Ok(())
    })())
}

/// cuMemAllocPitch.
pub unsafe fn cuMemAllocPitch_v2(
    dptr: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element_bytes: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(dptr)?;
        not_null(pitch)?;
        if !matches!(element_bytes, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let row = width.checked_next_multiple_of(PITCH_BYTES).ok_or(CUresult::INVALID_VALUE)?;
        let at = allocate(process, row.checked_mul(height).ok_or(CUresult::INVALID_VALUE)?)?;
        // SAFETY: not NULL; room for a word each by CUDA's contract.
        unsafe {
            dptr.write(at);
            pitch.write(row);
        }
        Ok(())
    })())
}

/// cuMemFree. The worker frees before the address is given back here: nothing of this process can come to lie there while the
/// device still uses it.
pub unsafe fn cuMemFree_v2(dptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        if dptr == 0 {
            return Ok(());
        }
        match process.ranges.find(dptr).filter(|r| r.start == dptr).map(|r| r.kind) {
            Some(RangeKind::Device | RangeKind::Pooled) => {}
            Some(RangeKind::Managed(_)) => return crate::managed::free(process, dptr),
            // A graph's memory comes back with the graph's next launch: the range stays known.
            Some(RangeKind::Graph) => return gate::call::<row::cuMemFree_v2>((dptr,)),
            _ => return Err(CUresult::INVALID_VALUE),
        }
        // Taken away first: a second free of the same address, from any thread, finds nothing.
        let range = process.ranges.remove(dptr).ok_or(CUresult::INVALID_VALUE)?;
        if freed::may_keep(&range) && is_unused(range.context) && freed::keep(&range) {
            return Ok(());
        }
        // The driver may refuse (during a capture …): then it is allocated as before.
        gate::call::<row::cuMemFree_v2>((dptr,)).inspect_err(|_| process.ranges.restore(range))?;
        // A pool's addresses stay reserved: it gives them out again.
        if range.kind == RangeKind::Device {
            process.reservations.release(range.start, range.len);
        }
        Ok(())
    })())
}
