//! Copies between host and device. Small ones travel in the frame, larger ones through the ring's staging buffer
//! ([`crate::staging`]); pinned memory is shared with the worker and is not copied here at all.

use std::ffi::c_void;
use std::time::Duration;

use cuda_api::calls::copy::row;
use cuda_api::graph_node::memory_type;
use cuda_api::guest::finish;
use cuda_api::host::Access;
use cuda_api::types::{CUdeviceptr, CUstream};
use cuda_api::{CUresult, CuResult};

use crate::gate::{self, Lane};
use crate::graph_pageable::{self, of_bytes};
use crate::process::Process;
use crate::staging::INLINE_LIMIT;
use crate::{capture, thread};

/// What a copy's ends are.
pub(crate) fn is_pinned(process: &Process, address: u64, len: usize) -> bool {
    process.ranges.check(address, len as u64, Access::Read) == Ok(true)
}

/// The session lives and a context is current.
pub(crate) fn ready(process: &Process, lane: &Lane<'_>) -> CuResult<()> {
    process.alive()?;
    lane.needs_context()
}

/// # Safety
/// `from` has `len` readable bytes.
pub(crate) unsafe fn host_to_device(
    dst: CUdeviceptr,
    from: *const u8,
    len: usize,
    stream: Option<CUstream>,
) -> CuResult<()> {
    gate::with_ring(|process, lane| {
        ready(process, lane)?;
        if let Some(stream) = stream {
            process.objects.check(stream)?;
        }
        if len == 0 {
            return Ok(());
        }
        process.ranges.check(dst, len as u64, Access::Write)?;
        if from.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let sure = !lane.is_elsewhere(dst, Access::Write);
        match stream {
            // Pinned memory is read when the stream gets there, not before.
            Some(stream) if is_pinned(process, from as u64, len) => {
                lane.post_if::<row::cuMemcpyDtoDAsync_v2>(sure, &(dst, from as u64, len, stream), false)
            }
            // SAFETY: this function's contract is the callee's.
            Some(stream) => unsafe {
                lane.send_bytes(from, len, |lane, at, bytes, bulk| {
                    let part = bytes.len() as usize;
                    let fields = (dst + at as u64, part, bytes, stream);
                    lane.post_if::<row::cuMemcpyHtoDAsync_v2>(sure, &fields, bulk)
                })
            },
            None => {
                let before = lane.before_copies()?;
                let mut frames = 0;
                // SAFETY: as above.
                unsafe {
                    lane.send_bytes(from, len, |lane, at, bytes, bulk| {
                        let part = bytes.len() as usize;
                        frames += 1;
                        lane.post_if::<row::cuMemcpyHtoD_v2>(sure, &(dst + at as u64, part, bytes), bulk)
                    })?;
                }
                lane.after_copies(before, frames);
                Ok(())
            }
        }
    })
}

/// # Safety
/// `to` has room for `len` bytes.
pub(crate) unsafe fn device_to_host(
    to: *mut u8,
    src: CUdeviceptr,
    len: usize,
    stream: Option<CUstream>,
) -> CuResult<()> {
    gate::with_ring(|process, lane| {
        ready(process, lane)?;
        if let Some(stream) = stream {
            process.objects.check(stream)?;
        }
        if len == 0 {
            return Ok(());
        }
        process.ranges.check(src, len as u64, Access::Read)?;
        if to.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        if let Some(stream) = stream {
            if is_pinned(process, to as u64, len) {
                process.ranges.check(to as u64, len as u64, Access::Write)?;
                let sure = !lane.is_elsewhere(src, Access::Read);
                return lane.post_if::<row::cuMemcpyDtoDAsync_v2>(
                    sure,
                    &(to as u64, src, len, stream),
                    false,
                );
            }
            // SAFETY: this function's contract is the callee's.
            unsafe {
                lane.fetch_bytes(to, len, |lane, at, part, fill, place| {
                    lane.ask::<row::cuMemcpyDtoHAsync_v2>(&(src + at as u64, part, fill, stream), place)
                })?;
            }
            lane.has_fetched(Some(stream));
            return Ok(());
        }
        // SAFETY: as above.
        unsafe {
            lane.fetch_bytes(to, len, |lane, at, part, fill, place| {
                lane.ask::<row::cuMemcpyDtoH_v2>(&(src + at as u64, part, fill), place)
            })?;
        }
        // In which device's stream a copy of another device's memory goes is the driver's affair.
        if !lane.is_elsewhere(src, Access::Read) {
            lane.has_fetched(None);
        }
        Ok(())
    })
}

/// The stream of a synchronous copy: none of its own, except that the per-thread variants work in the per-thread stream.
fn synchronous_stream() -> Option<CUstream> {
    let stream = thread::default_stream();
    (stream == cuda_api::types::STREAM_PER_THREAD).then_some(stream)
}

/// What a copy from or to host memory is, given that the other end is the device's: pinned memory needs no staging. A short copy from
/// it goes in a frame all the same, as nobody waits for that then, and so does one to what the device may not write; but managed memory is
/// read and written in the device's order, whatever the length: a kernel may be about to write it.
fn way(process: &Process, host: u64, len: usize, unshared: Direction) -> Direction {
    let managed = || process.ranges.find(host).is_some_and(|range| range.kind.is_managed());
    let in_a_frame = len == 0
        || len <= INLINE_LIMIT
            && (unshared == Direction::HostToDevice
                || process.ranges.check(host, len as u64, Access::Write) != Ok(true));
    let shared = is_pinned(process, host, len) && (!in_a_frame || managed());
    if shared { Direction::Shared } else { unshared }
}

/// cuMemcpyHtoD.
pub unsafe fn cuMemcpyHtoD_v2(dst: CUdeviceptr, src: *const c_void, len: usize) -> CUresult {
    finish((|| {
        let way = way(crate::process::initialised()?, src as u64, len, Direction::HostToDevice);
        // SAFETY: CUDA's contract with the caller.
        unsafe { synchronous(dst, src as u64, len, way) }
    })())
}

/// cuMemcpyDtoH.
pub unsafe fn cuMemcpyDtoH_v2(dst: *mut c_void, src: CUdeviceptr, len: usize) -> CUresult {
    finish((|| {
        let way = way(crate::process::initialised()?, dst as u64, len, Direction::DeviceToHost);
        // SAFETY: CUDA's contract with the caller.
        unsafe { synchronous(dst as u64, src, len, way) }
    })())
}

/// cuMemcpyHtoDAsync.
pub unsafe fn cuMemcpyHtoDAsync_v2(
    dst: CUdeviceptr,
    src: *const c_void,
    len: usize,
    stream: CUstream,
) -> CUresult {
    finish((|| {
        let copy = || of_bytes((memory_type::DEVICE, dst), (memory_type::HOST, src as u64), len as u64);
        if capture::any() && graph_pageable::captured(stream, &copy())? {
            return Ok(());
        }
        // SAFETY: CUDA's contract with the caller.
        unsafe { host_to_device(dst, src.cast(), len, Some(stream)) }
    })())
}

/// cuMemcpyDtoHAsync.
pub unsafe fn cuMemcpyDtoHAsync_v2(
    dst: *mut c_void,
    src: CUdeviceptr,
    len: usize,
    stream: CUstream,
) -> CUresult {
    finish((|| {
        let copy = || of_bytes((memory_type::HOST, dst as u64), (memory_type::DEVICE, src), len as u64);
        if capture::any() && graph_pageable::captured(stream, &copy())? {
            return Ok(());
        }
        // SAFETY: CUDA's contract with the caller.
        unsafe { device_to_host(dst.cast(), src, len, Some(stream)) }
    })())
}

/// Which way a copy goes, as the addresses say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    HostToDevice,
    DeviceToHost,
    /// Both ends are known to the worker.
    Shared,
    HostToHost,
}

fn direction(process: &Process, dst: u64, src: u64) -> Direction {
    match (process.ranges.find(dst).is_some(), process.ranges.find(src).is_some()) {
        (true, true) => Direction::Shared,
        (true, false) => Direction::HostToDevice,
        (false, true) => Direction::DeviceToHost,
        (false, false) => Direction::HostToHost,
    }
}

/// What a copy of pinned memory takes at least, at 40 bytes a nanosecond, with what the driver takes to begin and to end it.
fn time_of(len: usize) -> Duration {
    Duration::from_nanos(len as u64 / 40) + Duration::from_micros(30)
}

/// A copy that is over, as far as the caller can see, when it returns.
///
/// # Safety
/// Host ends have `len` readable or writable bytes.
unsafe fn synchronous(dst: u64, src: u64, len: usize, way: Direction) -> CuResult<()> {
    let stream = synchronous_stream();
    let waited = stream.unwrap_or(cuda_api::types::STREAM_DEFAULT);
    match way {
        // SAFETY: this function's contract is the callee's.
        Direction::HostToDevice => unsafe {
            host_to_device(dst, src as *const u8, len, stream)?;
            // The bytes are staged. What reads the memory on the device comes after the copy, but the CPU may do so at once; and
            // in a stream of its own, pinned memory is read only when the stream gets there.
            let dst_is_host = is_pinned(crate::process::initialised()?, dst, len);
            if stream.is_some() || dst_is_host { gate::wait_for(waited) } else { Ok(()) }
        },
        // SAFETY: as above.
        Direction::DeviceToHost => unsafe {
            device_to_host(dst as *mut u8, src, len, stream)?;
            // Pinned memory is written when the stream gets there.
            if stream.is_some() { gate::wait_for(waited) } else { Ok(()) }
        },
        Direction::Shared => {
            let host_memory = gate::with_ring(|process, lane| {
                ready(process, lane)?;
                let host_memory = process.ranges.check(dst, len as u64, Access::Write)?
                    | process.ranges.check(src, len as u64, Access::Read)?;
                if lane.is_elsewhere(dst, Access::Write) || lane.is_elsewhere(src, Access::Read) {
                    if stream.is_none() && !host_memory {
                        // Between devices it is in turn with all work of both, as only the driver's own call without a stream is.
                        lane.call::<row::cuMemcpyDtoD_v2>(&(dst, src, len), false)?;
                        return Ok(false);
                    }
                    lane.call::<row::cuMemcpyDtoDAsync_v2>(&(dst, src, len, waited), false)?;
                } else {
                    lane.post::<row::cuMemcpyDtoDAsync_v2>(&(dst, src, len, waited), false)?;
                }
                if host_memory {
                    lane.ring()?.expect(time_of(len));
                }
                Ok(host_memory)
            })?;
            // Between two places of the device nobody waits (CUDA Driver API, "API synchronization behavior").
            if host_memory { gate::wait_for(waited) } else { Ok(()) }
        }
        Direction::HostToHost => {
            gate::with_ring(|process, lane| ready(process, lane))?;
            gate::wait_for(waited)?;
            // SAFETY: as above.
            unsafe { within_host(dst, src, len) }
        }
    }
}

/// # Safety
/// Both ends have `len` readable or writable bytes, or are NULL. They may overlap.
pub(crate) unsafe fn within_host(dst: u64, src: u64, len: usize) -> CuResult<()> {
    if len == 0 {
        return Ok(());
    }
    if dst == 0 || src == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: by this function's contract; neither is NULL.
    unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, len) };
    Ok(())
}

/// cuMemcpy.
pub unsafe fn cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, len: usize) -> CUresult {
    finish((|| {
        let way = direction(crate::process::initialised()?, dst, src);
        // SAFETY: CUDA's contract with the caller.
        unsafe { synchronous(dst, src, len, way) }
    })())
}

/// cuMemcpyAsync.
pub unsafe fn cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, len: usize, stream: CUstream) -> CUresult {
    finish((|| {
        let copy = || of_bytes((memory_type::UNIFIED, dst), (memory_type::UNIFIED, src), len as u64);
        if capture::any() && graph_pageable::captured(stream, &copy())? {
            return Ok(());
        }
        match direction(crate::process::initialised()?, dst, src) {
            // SAFETY: CUDA's contract with the caller.
            Direction::HostToDevice => unsafe { host_to_device(dst, src as *const u8, len, Some(stream)) },
            // SAFETY: CUDA's contract with the caller.
            Direction::DeviceToHost => unsafe { device_to_host(dst as *mut u8, src, len, Some(stream)) },
            Direction::Shared => gate::with_ring(|process, lane| {
                ready(process, lane)?;
                process.objects.check(stream)?;
                process.ranges.check(dst, len as u64, Access::Write)?;
                process.ranges.check(src, len as u64, Access::Read)?;
                let sure = !lane.is_elsewhere(dst, Access::Write) && !lane.is_elsewhere(src, Access::Read);
                lane.post_if::<row::cuMemcpyDtoDAsync_v2>(sure, &(dst, src, len, stream), false)
            }),
            // Two host ends: done when the stream gets there, which is waited for.
            Direction::HostToHost => {
                crate::process::initialised()?.objects.check(stream)?;
                gate::wait_for(stream)?;
                // SAFETY: CUDA's contract with the caller: both ends are its host memory.
                unsafe { within_host(dst, src, len) }
            }
        }
    })())
}
