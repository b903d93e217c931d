//! Streams: made and destroyed without waiting; what they are is known here.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use cuda_api::calls::stream::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUdevice, CUstream, Handle};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::{Process, initialised};

/// CU_STREAM_NON_BLOCKING.
const NON_BLOCKING: u32 = 1;

/// What is known of a stream.
pub struct StreamRecord {
    /// The context it belongs to.
    pub context: u64,
    /// CUstream_flags.
    pub flags: u32,
    /// Its priority, brought into the device's range.
    pub priority: AtomicI32,
    /// A number that no other stream of the process ever had.
    pub id: u64,
}

/// Some stream of the process is one that the legacy stream waits for: one of the program's, or the per-thread stream.
static BLOCKING: AtomicBool = AtomicBool::new(false);

/// Whether the legacy stream may not have itself to itself.
pub fn any_blocking() -> bool {
    BLOCKING.load(Ordering::Relaxed)
}

/// A stream that the legacy stream waits for is in use.
#[inline]
pub fn blocks() {
    if !any_blocking() {
        BLOCKING.store(true, Ordering::Relaxed);
    }
}

// 1 and 2 are the ids of the default streams.
static NEXT_ID: AtomicU64 = AtomicU64::new(3);

/// Names a stream of a context; its priority within the device's range comes back, too.
///
/// # Errors
/// CUDA_ERROR_OUT_OF_MEMORY where there are too many.
pub fn new(process: &Process, context: u64, flags: u32, priority: i32) -> CuResult<(CUstream, i32)> {
    if flags & NON_BLOCKING == 0 {
        blocks();
    }
    let (low, high) = process.info.stream_priorities;
    let priority = priority.clamp(high.min(low), low.max(high));
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let record = StreamRecord { context, flags, priority: AtomicI32::new(priority), id };
    Ok((CUstream(process.objects.streams.insert_in(context, record)?), priority))
}

fn create(to: *mut CUstream, flags: u32, priority: i32) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(to)?;
    if flags & !1 != 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    let context = crate::context::current()?.0;
    let (stream, priority) = new(process, context, flags, priority)?;
    if let Err(error) = gate::post::<row::cuStreamCreate>((stream, flags, priority)) {
        process.objects.streams.remove(stream.0);
        return Err(error);
    }
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { to.write(stream) };
    Ok(())
}

/// cuStreamCreate.
pub unsafe fn cuStreamCreate(to: *mut CUstream, flags: u32) -> CUresult {
    finish(create(to, flags, 0))
}

/// cuStreamCreateWithPriority.
pub unsafe fn cuStreamCreateWithPriority(to: *mut CUstream, flags: u32, priority: i32) -> CUresult {
    finish(create(to, flags, priority))
}

/// cuStreamDestroy.
pub unsafe fn cuStreamDestroy_v2(stream: CUstream) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        if process.objects.streams.remove(stream.0).is_none() {
            return Err(CUstream::INVALID);
        }
        gate::post::<row::cuStreamDestroy_v2>((stream,))
    })())
}

/// A stream as its record, or the default streams' facts in the current context.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_CONTEXT.
pub fn facts(stream: CUstream) -> CuResult<StreamRecord> {
    let process = initialised()?;
    if CUstream::SPECIAL.contains(&stream.0) {
        let context = crate::context::current()?.0;
        let id = if stream == cuda_api::types::STREAM_PER_THREAD { 2 } else { 1 };
        return Ok(StreamRecord { context, flags: 0, priority: AtomicI32::new(0), id });
    }
    let record = process.objects.streams.get(stream.0).ok_or(CUstream::INVALID)?;
    let priority = AtomicI32::new(record.priority.load(Ordering::Relaxed));
    Ok(StreamRecord { context: record.context, flags: record.flags, priority, id: record.id })
}

fn tell<T>(stream: CUstream, to: *mut T, what: impl FnOnce(&StreamRecord) -> CuResult<T>) -> CUresult {
    finish((|| {
        not_null(to)?;
        let value = what(&facts(stream)?)?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { to.write(value) };
        Ok(())
    })())
}

/// cuStreamGetFlags.
pub unsafe fn cuStreamGetFlags(stream: CUstream, flags: *mut u32) -> CUresult {
    tell(stream, flags, |s| Ok(s.flags))
}

/// cuStreamGetPriority.
pub unsafe fn cuStreamGetPriority(stream: CUstream, priority: *mut i32) -> CUresult {
    tell(stream, priority, |s| Ok(s.priority.load(Ordering::Relaxed)))
}

/// cuStreamGetCtx.
pub unsafe fn cuStreamGetCtx(stream: CUstream, ctx: *mut CUcontext) -> CUresult {
    tell(stream, ctx, |s| Ok(CUcontext(s.context)))
}

/// cuStreamGetId.
pub unsafe fn cuStreamGetId(stream: CUstream, id: *mut u64) -> CUresult {
    tell(stream, id, |s| Ok(s.id))
}

/// cuStreamGetDevice.
pub unsafe fn cuStreamGetDevice(stream: CUstream, device: *mut CUdevice) -> CUresult {
    tell(stream, device, |s| crate::context::device_of(CUcontext(s.context)))
}
