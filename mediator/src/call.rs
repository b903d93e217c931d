//! What a worker asks of the code that understands calls.

use std::ptr::NonNull;
use std::time::Duration;

use cuda_api::work::{Direction, Work};

/// A call as it came out of a ring: copied out of guest memory once, so nothing about it can change any more.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Wire id of the call.
    pub call: u32,
    /// `FRAME_` bits of the ring's frame header.
    pub flags: u32,
    /// Guest handle number of the context current in the calling thread, 0 = none.
    pub context: u32,
    /// Process-wide number that orders calls across threads.
    pub ticket: u64,
    /// The call's arguments, still to be decoded and distrusted.
    pub args: &'a [u8],
}

/// A ring's staging buffer: memory that the guest writes and reads at any time.
///
/// It is handed out as an address and a length, never as a slice: the bytes behind a Rust reference must not change.
#[derive(Debug, Clone, Copy)]
pub struct StagingMemory {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; the mapping behind them lives until the ring's own thread, the only one that gets
// them from us, has ended. Whoever reads or writes through them does so under rules of its own.
unsafe impl Send for StagingMemory {}

impl StagingMemory {
    pub(crate) fn new(address: NonNull<u8>, len: usize) -> Self {
        Self { address, len }
    }

    /// First byte of the buffer, page aligned.
    pub fn as_ptr(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a staging buffer has at least a page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The guest sent something that no correct libcuda sends. Ends the session; the text goes to the daemon's log.
#[derive(Debug, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub String);

/// Carries calls out. One per worker process, shared by its ring threads.
pub trait CallHandler: Send + Sync + 'static {
    /// State of one guest thread: its current context, its capture mode.
    type Thread: Send;

    /// Makes the state of ring `ring`; called on the ring's own host thread.
    fn ring_thread(&self, ring: u32) -> Self::Thread;

    /// Carries a call out and answers its CUresult. `reply` comes empty; at most
    /// [`pci_layout::ring::REPLY_AREA_BYTES`] may be put into it, and only a frame with `FRAME_WAIT` has a reader for it.
    ///
    /// # Errors
    /// [`Malformed`] where the frame is none that libcuda would send: the session ends.
    fn call(
        &self,
        thread: &mut Self::Thread,
        frame: Frame<'_>,
        staging: Option<StagingMemory>,
        reply: &mut Vec<u8>,
    ) -> Result<u32, Malformed>;

    /// Calls of the thread have returned that are not over, although to the guest they are. No frame of another ring with a later
    /// ticket is carried out, and none of this ring but such as call the same in the same context, until [`CallHandler::settle`] has
    /// been called for all of them.
    fn is_unsettled(&self, thread: &Self::Thread) -> bool {
        let _ = thread;
        false
    }

    /// Waits until some of them are over, the earliest first, and answers the CUresult that those have come to.
    fn settle(&self, thread: &mut Self::Thread) -> u32 {
        let _ = thread;
        0
    }

    /// Uses of the staging buffer that calls of the thread have begun so far, and how many of them are over, in order. A bulk frame is
    /// finished when all that had begun at its return are over.
    fn transfers(&self, thread: &Self::Thread) -> (u64, u64) {
        let _ = thread;
        (0, 0)
    }

    /// Whether `frame` may be carried out although every frame in `blocked`, posted earlier by other threads, has not
    /// returned yet (the first of each ring may be inside [`CallHandler::call`]). Asked only when `frame` has waited
    /// longer than [`crate::ORDER_ASK_AFTER`]; `true` must be harmless for each of them.
    fn may_overtake(&self, frame: Frame<'_>, blocked: &[Frame<'_>]) -> bool;

    /// The UUIDs of the session's devices, by ordinal.
    fn device_ids(&self) -> Vec<[u8; 16]> {
        Vec::new()
    }

    /// The ordinal of the device that a call gives work to, if it does: carried out by this thread, in the context with this number.
    fn works_on(&self, thread: &Self::Thread, call: u32, context: u32) -> Option<usize> {
        let _ = (thread, call, context);
        None
    }

    /// What kind of work a call is, and what it copies, for the accounts.
    fn work(&self, frame: Frame<'_>) -> (Work, Option<(Direction, u64)>) {
        let _ = frame;
        (Work::Other, None)
    }

    /// Whether a device has unfinished work of the session's now. Asked often; it may miss what nobody can ask for.
    fn is_busy(&self, device: usize) -> bool {
        let _ = device;
        false
    }

    /// Marks all work that a device has been given so far; the mark's number, which grows. None: it cannot be marked just now. By one thread
    /// only, and so is [`CallHandler::passed`].
    fn mark(&self, device: usize) -> Option<u64> {
        let _ = device;
        Some(0)
    }

    /// Whether the work before a mark is over. Asked for the earliest first; not again once it was.
    fn passed(&self, device: usize, mark: u64) -> bool {
        let _ = (device, mark);
        true
    }

    /// `[va, va + len)` is now guest memory. A region may grow: each further part is told by itself.
    fn region_mapped(&self, va: u64, len: u64, writable: bool);

    /// `[va, va + len)`, a whole region, is about to go. After this returns nothing touches the range.
    fn region_unmapping(&self, va: u64, len: u64);

    /// The CUresult that every call answers from now on, or 0.
    fn sticky(&self) -> u32;

    /// Kernels' output may have been printed in this call: the guest is told of it with the reply.
    fn may_print(&self, call: u32) -> bool {
        let _ = call;
        false
    }

    /// The bytes of device memory that the session has, by device, handed to `tell`. Asked after calls that were waited for and before
    /// the ring's thread sleeps: it must not wait for long.
    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64)) {
        let _ = tell;
    }

    /// The VM is paused, or goes on. While it is, no call may wait for something that only the guest can do: those that do
    /// come back at once.
    fn pause(&self, paused: bool) {
        let _ = paused;
    }

    /// Notes from now on when launches begin and end, or does so no longer.
    fn watch_launches(&self, on: bool) {
        let _ = on;
    }

    /// How long the launch that has been running longest has been, as far as that was noted. It must not wait for the device.
    fn longest_launch(&self) -> Duration {
        Duration::ZERO
    }

    /// Why the session's device memory cannot be taken off the device and brought back, if it cannot.
    fn suspend_obstacle(&self) -> Option<&'static str> {
        None
    }

    /// Whether the device cannot come to rest before the guest has made further calls.
    fn awaits_guest(&self) -> bool {
        false
    }

    /// Waits until the device is idle, at most `limit`; false if it is not.
    fn quiesce(&self, limit: Duration) -> bool;
}
