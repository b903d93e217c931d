//! Copies between 1D arrays and host memory.

use std::ffi::c_void;

use cuda_api::calls::copy::row;
use cuda_api::guest::finish;
use cuda_api::host::Access;
use cuda_api::types::{CUarray, CUstream, STREAM_PER_THREAD};
use cuda_api::{CUresult, CuResult};

use crate::copy::{is_pinned, ready};
use crate::gate;
use crate::thread;

/// # Safety
/// `from` has `len` readable bytes.
unsafe fn host_to_array(
    array: CUarray,
    offset: usize,
    from: *const u8,
    len: usize,
    stream: Option<CUstream>,
) -> CuResult<()> {
    let used = stream.unwrap_or_else(thread::default_stream);
    let pinned = gate::with_ring(|process, lane| {
        ready(process, lane)?;
        process.objects.check(array)?;
        process.objects.check(used)?;
        if len == 0 {
            return Ok(false);
        }
        if from.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        if is_pinned(process, from as u64, len) {
            lane.call::<row::vgpuArrayFromHost>(&(array, offset, from as u64, len, used), false)?;
            return Ok(true);
        }
        // SAFETY: this function's contract is the callee's.
        unsafe {
            lane.send_bytes(from, len, |lane, at, bytes, bulk| {
                let part = offset.checked_add(at).ok_or(CUresult::INVALID_VALUE)?;
                // The first part is waited for: what the driver refuses it refuses there.
                if at == 0 {
                    lane.call::<row::vgpuArrayIn>(&(array, part, bytes, used), bulk)
                } else {
                    lane.post::<row::vgpuArrayIn>(&(array, part, bytes, used), bulk)
                }
            })
        }?;
        Ok(false)
    })?;
    // Pinned memory is read only when the stream gets there; a stream of the thread's own is not waited for by the default one.
    if stream.is_none() && (pinned || used == STREAM_PER_THREAD) { gate::wait_for(used) } else { Ok(()) }
}

/// # Safety
/// `to` has room for `len` bytes.
unsafe fn array_to_host(
    to: *mut u8,
    array: CUarray,
    offset: usize,
    len: usize,
    stream: Option<CUstream>,
) -> CuResult<()> {
    let used = stream.unwrap_or_else(thread::default_stream);
    let pinned = gate::with_ring(|process, lane| {
        ready(process, lane)?;
        process.objects.check(array)?;
        process.objects.check(used)?;
        if len == 0 {
            return Ok(false);
        }
        if to.is_null() || offset.checked_add(len).is_none() {
            return Err(CUresult::INVALID_VALUE);
        }
        if is_pinned(process, to as u64, len) {
            process.ranges.check(to as u64, len as u64, Access::Write)?;
            lane.call::<row::vgpuArrayToHost>(&(to as u64, array, offset, len, used), false)?;
            return Ok(true);
        }
        // SAFETY: this function's contract is the callee's.
        unsafe {
            lane.fetch_bytes(to, len, |lane, at, _, fill, place| {
                lane.ask::<row::vgpuArrayOut>(&(array, offset + at, fill, used), place)
            })
        }?;
        Ok(false)
    })?;
    if stream.is_none() && pinned { gate::wait_for(used) } else { Ok(()) }
}

/// cuMemcpyHtoA.
pub unsafe fn cuMemcpyHtoA_v2(array: CUarray, offset: usize, from: *const c_void, len: usize) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { host_to_array(array, offset, from.cast(), len, None) })
}

/// cuMemcpyHtoAAsync.
pub unsafe fn cuMemcpyHtoAAsync_v2(
    array: CUarray,
    offset: usize,
    from: *const c_void,
    len: usize,
    stream: CUstream,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { host_to_array(array, offset, from.cast(), len, Some(stream)) })
}

/// cuMemcpyAtoH.
pub unsafe fn cuMemcpyAtoH_v2(to: *mut c_void, array: CUarray, offset: usize, len: usize) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { array_to_host(to.cast(), array, offset, len, None) })
}

/// cuMemcpyAtoHAsync.
pub unsafe fn cuMemcpyAtoHAsync_v2(
    to: *mut c_void,
    array: CUarray,
    offset: usize,
    len: usize,
    stream: CUstream,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { array_to_host(to.cast(), array, offset, len, Some(stream)) })
}
