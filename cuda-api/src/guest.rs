//! The guest's generic half: what a row's stub needs of the process it runs in, and the few checks that all stubs share.
//!
//! This is the only module here that follows pointers: the application's, under CUDA's own contract with its callers.

use crate::host::Access;
use crate::types::{CUdevice, CUdeviceptr, CUevent, CUresult, CUstream, Handle};
use crate::wire::Pod;
use crate::{Call, CuResult};

/// What libcuda's process state offers to the stubs.
pub trait Guest {
    /// The driver is initialised, the process did not fork, the session is alive and has no sticky error.
    ///
    /// # Errors
    /// What every call answers otherwise (3, 4, 802, a sticky error …).
    fn ready(&self) -> CuResult<()>;

    /// Sends a call and waits for its reply.
    ///
    /// # Errors
    /// The CUresult of the call, or of the transport's failure.
    fn call<C: Call>(&self, fields: C::In<'_>) -> CuResult<C::Out>;

    /// Sends a call that the stub has proved valid, without waiting, once an executor is known to carry out the row with these flags
    /// (`variant`). Under VGPU_STRICT=1 it waits all the same.
    ///
    /// # Errors
    /// As for `call`; an error that the driver finds later comes out of a later call of this thread.
    fn post<C: Call<Out = ()>>(&self, fields: C::In<'_>, variant: u32) -> CuResult<()>;

    /// As `post`, and waits until it is done: a copy or fill without a stream of its own is synchronous where an end is host
    /// memory (CUDA Driver API, "API synchronization behavior").
    ///
    /// # Errors
    /// As for `post`, and the error of the work itself.
    fn post_and_settle<C: Call<Out = ()>>(&self, fields: C::In<'_>) -> CuResult<()>;

    /// The handle is one that this process was given and that has not been destroyed (or one of the kind's special values).
    ///
    /// # Errors
    /// The kind's own: CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_CONTEXT …
    fn check_handle<H: Handle>(&self, handle: H) -> CuResult<()>;

    /// Names a new object.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY where the process has too many of them.
    fn new_handle<H: Handle>(&self) -> CuResult<H>;

    /// The object is gone, or was never made.
    fn forget<H: Handle>(&self, handle: H);

    /// The whole range lies in one allocation of this process that a call may access so.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE.
    fn check_range(&self, start: CUdeviceptr, len: u64, access: Access) -> CuResult<Reach>;

    /// An event and a stream belong to one context, as far as is known: they may be gone.
    fn is_of_one_context(&self, event: CUevent, stream: CUstream) -> bool;

    /// An event was recorded in a stream by the call that was just sent.
    fn recorded(&self, event: CUevent, stream: CUstream);

    /// An event was recorded for all work of a context by the call that was just sent.
    fn recorded_in_a_context(&self, event: CUevent);

    /// The host's ordinal of a device.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_DEVICE.
    fn host_device(&self, device: CUdevice) -> CuResult<CUdevice>;
}

/// Where a range lies, as far as it matters to a call that does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// A synchronous operation on it waits: the CPU can access it, too, or a program asked for that.
    pub settles: bool,
    /// It is another device's than the current context's.
    pub elsewhere: bool,
}

/// Turns a stub's outcome into what the C caller gets.
pub fn finish(outcome: CuResult<()>) -> CUresult {
    match outcome {
        Ok(()) => CUresult::SUCCESS,
        Err(error) => error,
    }
}

/// An output or input pointer that CUDA wants.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for NULL.
pub fn not_null<T>(pointer: *mut T) -> CuResult<()> {
    if pointer.is_null() { Err(CUresult::INVALID_VALUE) } else { Ok(()) }
}

/// The caller's array of `count` elements.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for NULL with elements, a misaligned pointer, or more than a frame carries.
///
/// # Safety
/// `pointer` is NULL or points to `count` elements that live until the call returns: CUDA's contract with the caller.
pub unsafe fn array<'a, T: Pod>(pointer: *const T, count: u64) -> CuResult<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    let count = usize::try_from(count).map_err(|_| CUresult::INVALID_VALUE)?;
    let bytes = count.checked_mul(size_of::<T>()).ok_or(CUresult::INVALID_VALUE)?;
    if pointer.is_null() || !pointer.is_aligned() || bytes > crate::wire::INLINE_BYTES_MAX {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: not NULL and aligned (checked above), `count` elements by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Writes a reply's array where the caller wants it.
///
/// # Errors
/// CUDA_ERROR_UNKNOWN where the host sent more than was asked for: its word is not taken for the caller's memory.
///
/// # Safety
/// `pointer` has room for `room` elements: CUDA's contract with the caller.
pub unsafe fn write_array<T: Pod>(pointer: *mut T, room: u64, items: &[T]) -> CuResult<()> {
    if items.len() as u64 > room {
        return Err(CUresult::UNKNOWN);
    }
    for (i, item) in items.iter().enumerate() {
        // SAFETY: i < items.len() <= room, and the caller gave room for that many.
        unsafe { pointer.add(i).write_unaligned(*item) };
    }
    Ok(())
}

/// Bits that the interface has and no device here does.
///
/// # Errors
/// CUDA_ERROR_NOT_SUPPORTED, where nothing else is wrong.
pub fn without_bits(value: u32, mask: u32, without: u32) -> CuResult<()> {
    if value & without != 0 && value & !(mask | without) == 0 {
        return Err(CUresult::NOT_SUPPORTED);
    }
    Ok(())
}

/// Only these bits may be set.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE.
pub fn only_bits(value: u32, mask: u32) -> CuResult<()> {
    if value & !mask == 0 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// Elements of so many bytes are aligned.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE.
pub fn aligned(address: CUdeviceptr, element: u64) -> CuResult<()> {
    if address.is_multiple_of(element) { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// The variant of a posted call whose answer the guest cannot know: it has no bit of its own, so the call waits each time.
pub const IN_DOUBT: u32 = u32::MAX;

/// The largest pitch of any device (CU_DEVICE_ATTRIBUTE_MAX_PITCH). Bytes.
const PITCH_MAX: u64 = 0x7fff_ffff;

/// Rows of elements are aligned and do not overlap. One row has no use for its pitch. False: the pitch is none that the driver is known
/// to take.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE.
pub fn rows_apart(pitch: u64, width: u64, height: u64, element: u64) -> CuResult<bool> {
    let apart = pitch >= width && pitch.is_multiple_of(element);
    if !apart && height > 1 {
        return Err(CUresult::INVALID_VALUE);
    }
    Ok(apart && pitch <= PITCH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_apart_or_refused_at_once() {
        let bad = Err(CUresult::INVALID_VALUE);
        for (pitch, width, height, element, taken) in [
            (32, 32, 4, 4, Ok(true)),
            (30, 8, 2, 4, bad),
            (4, 5, 2, 1, bad),
            // What the driver says of these is waited for.
            (4, 5, 1, 1, Ok(false)),
            (30, 8, 1, 4, Ok(false)),
            (PITCH_MAX + 1, 5, 2, 1, Ok(false)),
        ] {
            assert_eq!(
                rows_apart(pitch, width, height, element),
                taken,
                "{pitch} {width} {height} {element}"
            );
        }
    }
}
