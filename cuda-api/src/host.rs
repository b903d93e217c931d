//! The host's generic half: what every executor offers, and how a frame finds its method.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)]

use crate::types::{CUdeviceptr, CUresult};
use crate::wire::{Reader, Wire};
use crate::{CuResult, Malformed, calls};

/// What a call does to a device range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
}

/// What every chapter's `Host` trait builds on.
pub trait Base {
    /// What belongs to a guest thread: its current context, its capture mode …
    type Thread;

    /// The whole range lies in one allocation or registered region of this session that a call may access so. Called for
    /// every device range of a row before the executor sees the call.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE.
    fn check_range(&self, start: CUdeviceptr, len: u64, access: Access) -> CuResult<()>;

    /// The executor does not do this call: logs its name once and gives the answer, CUDA_ERROR_NOT_SUPPORTED.
    fn unsupported(&self, name: &'static str) -> CUresult;
}

/// A ring's staging buffer as the worker sees it: memory that the guest can change at any time. Bytes are copied in or out of
/// it, bounded, and never interpreted in place.
#[derive(Debug, Clone, Copy)]
pub struct StagingView {
    base: *mut u8,
    len: u64,
}

// SAFETY: the view is an address and a length; every access goes through the checked copies below, and the memory behind it
// is shared with another process anyway (the contract of `new`).
unsafe impl Send for StagingView {}

impl StagingView {
    /// A view of `len` bytes at `base`.
    ///
    /// # Safety
    /// The memory stays mapped, readable and writable, for as long as the view is used.
    pub unsafe fn new(base: *mut u8, len: u64) -> Self {
        StagingView { base, len }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// The address of `len` bytes at `offset`, if they lie inside.
    pub fn at(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // `offset` is within the view, which is mapped, so the sum is a valid address of the same mapping.
        Some(self.base.wrapping_add(usize::try_from(offset).ok()?))
    }
}

/// An executor as the worker drives it.
pub trait Executor: calls::Driver + Send + Sync + 'static {
    /// What the guest is told about the devices.
    fn vm_info(&self) -> crate::info::VmInfo;

    /// State for a new guest thread. Called on the host thread that will serve it.
    fn new_thread(&self, ring: u32) -> Self::Thread;

    /// Before each call of a thread: the guest's current context (the low 32 bits of its handle, 0 = none) and the ring's
    /// staging buffer, if it has one.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_CONTEXT where the context is none of this session's; the call is not carried out then.
    fn enter(&self, thread: &mut Self::Thread, context: u32, staging: Option<StagingView>) -> CuResult<()>;

    /// Posted calls of the thread have returned and are not over: [`Executor::settle`] waits for them. To the guest they are over, so
    /// only calls of their own kind in their own context may come between.
    fn is_unsettled(&self, thread: &Self::Thread) -> bool {
        let _ = thread;
        false
    }

    /// Waits until some of what the thread's calls have begun is over, the earliest first.
    ///
    /// # Errors
    /// What that has come to; it is over all the same.
    fn settle(&self, thread: &mut Self::Thread) -> CuResult<()> {
        let _ = thread;
        Ok(())
    }

    /// Transfers between staging and the device that calls of the thread have begun so far, and how many of them are over, in order. The
    /// guest gets its parts of staging back accordingly.
    fn transfers(&self, thread: &Self::Thread) -> (u64, u64) {
        let _ = thread;
        (0, 0)
    }

    /// The CUresult that every call answers from now on, or 0.
    fn sticky(&self) -> u32;

    /// The bytes of device memory that the session has, by device, handed to `tell`; those of the first device are those of all where
    /// they are not counted one by one. Asked often.
    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64));

    /// The ordinal of the device that work in the context with this number is given to; the thread's own context is likely.
    fn device_of(&self, thread: &Self::Thread, context: u32) -> usize;

    /// Whether a device has unfinished work now, as far as that can be asked.
    fn is_busy(&self, device: usize) -> bool;

    /// Marks all work that a device has been given so far; the mark's number. `None` where it cannot be marked now.
    fn mark(&self, device: usize) -> Option<u64>;

    /// Whether all work before a mark is over. The earliest is asked for first.
    fn passed(&self, device: usize, mark: u64) -> bool;

    /// Pinned guest memory is mapped in this process at the guest's own address.
    fn region_mapped(&self, address: u64, len: u64, writable: bool);

    /// The region is about to be unmapped; nothing touches it after this returns.
    fn region_unmapping(&self, address: u64, len: u64);

    /// Notes from now on when launches begin and end, or does so no longer.
    fn watch_launches(&self, on: bool);

    /// How long the launch that has been running longest has been, as far as that was noted. It waits for no device and no driver.
    fn longest_launch(&self) -> std::time::Duration;

    /// Waits for idle devices, at most so long. `false` where they were not.
    fn quiesce(&self, limit: std::time::Duration) -> bool;

    /// Why the session's device memory cannot be taken off the device and brought back, if it cannot.
    fn suspend_obstacle(&self) -> Option<&'static str> {
        None
    }

    /// Whether the device cannot come to rest before the guest has made further calls: it waits for a host function, or the
    /// guest is in the middle of a capture, which a wait for the device would end.
    fn awaits_guest(&self) -> bool {
        false
    }

    /// The VM is paused, or goes on: meanwhile no call waits for something that only the guest can do.
    fn pause(&self, paused: bool);

    /// Whether a call may be issued before calls of other threads that were posted earlier and are stuck behind one that
    /// blocks in the driver. Asked only when the wait has become long. `fields` are the frames' argument bytes.
    fn may_overtake(&self, call: u32, fields: &[u8], blocked: &[(u32, &[u8])]) -> bool;
}

/// Calls that are carried out on a lost device, too: they are about what the guest is yet to hear of.
pub fn outlives_a_fault(call: u32) -> bool {
    call == <calls::stream::row::vgpuNextHostFunction as crate::Call>::ID
        || call == <calls::entry::row::vgpuTakeOutput as crate::Call>::ID
}

/// Encodes an outcome. On an error the reply is empty.
pub fn answer<T: for<'a> Wire<'a>>(outcome: CuResult<T>, reply: &mut Vec<u8>) -> CUresult {
    match outcome {
        Ok(out) => {
            out.put(reply);
            CUresult::SUCCESS
        }
        Err(error) => error,
    }
}

/// Carries out one frame.
///
/// # Errors
/// [`Malformed`] where the id is no travelling row's or the fields are not what the row says: the session ends.
pub fn dispatch<H: calls::Driver>(
    host: &H,
    thread: &mut H::Thread,
    call: u32,
    fields: &[u8],
    reply: &mut Vec<u8>,
) -> Result<CUresult, Malformed> {
    let mut frame = Reader::new(fields);
    match calls::dispatch(host, thread, call, &mut frame, reply) {
        Some(outcome) => outcome.map_err(|e| Malformed(format!("{}: {e}", crate::call_name(call)))),
        None => Err(Malformed(format!("no call travels as {call:#06x}"))),
    }
}
