//! The session page: state that the guest's threads read with every call, and the bits by which they are woken.

use core::ptr::NonNull;
use std::sync::Arc;

use core::mem::offset_of;
use pci_layout::ring::{
    OFF_COMPLETION, RINGS_MAX, SESSION_DEAD, SESSION_LIVE, SESSION_OPENING, SESSION_PAGE_BYTES, SessionPage,
};

use crate::atomics::{Ordering, shared_words};

/// A session's state, as its page tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The worker is being started.
    Opening,
    /// Serving.
    Live,
    /// Serving, but every call answers this CUresult: a kernel has faulted.
    Sticky(u32),
    /// Over, for this reason (a `DEATH_` value).
    Dead(u32),
}

/// The session page in shared memory. Clones are the same memory.
///
/// The guest process maps it read-only: of these methods it may use [`state`](Self::state),
/// [`posted_errors`](Self::posted_errors), [`printed_bytes`](Self::printed_bytes), [`may_print`](Self::may_print),
/// [`queue_depth`](Self::queue_depth) and [`completion`](Self::completion). The others are the host's, and [`take_wakes`](Self::take_wakes) is what the guest's kernel does,
/// written down for the model and for tests.
#[derive(Clone)]
pub struct SessionPageMemory {
    base: NonNull<u8>,
    owner: Option<Arc<dyn Send + Sync>>,
    #[cfg(loom)]
    model: Arc<ModelWords>,
}

// SAFETY: the memory is reached through atomics only and stays mapped by the constructor's contract.
unsafe impl Send for SessionPageMemory {}
// SAFETY: as for Send.
unsafe impl Sync for SessionPageMemory {}

/// Offsets of the four words of wake bits.
#[allow(clippy::arithmetic_side_effects, reason = "evaluated at compile time")]
const WAKE_OFFSETS: [usize; 4] = {
    let wake = offset_of!(SessionPage, wake);
    [wake, wake + 8, wake + 16, wake + 24]
};

shared_words!(SessionPageMemory, ModelWords {
    /// `SESSION_` state.
    state_word: AtomicU32 at offset_of!(SessionPage, state);
    /// `DEATH_` value.
    reason: AtomicU32 at offset_of!(SessionPage, reason);
    /// CUresult of every call, or 0.
    sticky_result: AtomicU32 at offset_of!(SessionPage, sticky_result);
    /// 1 while a wake event is on its way.
    event_posted: AtomicU32 at offset_of!(SessionPage, event_posted);
    /// Errors of posted calls so far.
    posted_errors_word: AtomicU64 at offset_of!(SessionPage, posted_errors);
    /// Bytes that kernels have printed.
    printed_bytes_word: AtomicU64 at offset_of!(SessionPage, printed_bytes);
    /// Whether kernels may print.
    may_print_word: AtomicU64 at offset_of!(SessionPage, may_print);
    /// Frames that may wait in a ring.
    queue_depth_word: AtomicU64 at offset_of!(SessionPage, queue_depth);
    /// Wake bits of rings 0 to 63.
    wake0: AtomicU64 at WAKE_OFFSETS[0];
    /// Wake bits of rings 64 to 127.
    wake1: AtomicU64 at WAKE_OFFSETS[1];
    /// Wake bits of rings 128 to 191.
    wake2: AtomicU64 at WAKE_OFFSETS[2];
    /// Wake bits of rings 192 to 255.
    wake3: AtomicU64 at WAKE_OFFSETS[3];
});

const _: () = assert!(size_of::<[u64; 4]>() * 8 == RINGS_MAX as usize);
const _: () = assert!(OFF_COMPLETION as usize >= size_of::<SessionPage>());
const _: () = assert!(OFF_COMPLETION + RINGS_MAX * 8 == SESSION_PAGE_BYTES);

impl SessionPageMemory {
    /// A session page at `base`. A new one is all zeros: [`SessionState::Opening`].
    ///
    /// # Safety
    ///
    /// `base` is page aligned and one page from it stays mapped until the last clone is dropped; writable too, if
    /// anything but the guest process's methods is used.
    pub unsafe fn new(base: NonNull<u8>) -> Self {
        Self {
            base,
            owner: None,
            #[cfg(loom)]
            model: Arc::new(ModelWords::new()),
        }
    }

    /// As [`SessionPageMemory::new`], with the mapping's owner kept until the last clone is dropped.
    ///
    /// # Safety
    ///
    /// As for [`SessionPageMemory::new`], where "stays mapped" needs to hold only while `owner` lives.
    pub unsafe fn with_owner(base: NonNull<u8>, owner: Arc<dyn Send + Sync>) -> Self {
        // SAFETY: the caller's promise, and the owner is dropped last.
        let memory = unsafe { Self::new(base) };
        Self { owner: Some(owner), ..memory }
    }

    #[cfg_attr(loom, allow(dead_code, reason = "under loom the words are the model's"))]
    fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The state: two plain loads while all is well.
    #[inline]
    pub fn state(&self) -> SessionState {
        // Acquire: with DEAD comes its reason.
        match self.state_word().load(Ordering::Acquire) {
            SESSION_LIVE => match self.sticky_result().load(Ordering::Relaxed) {
                0 => SessionState::Live,
                result => SessionState::Sticky(result),
            },
            SESSION_OPENING => SessionState::Opening,
            _ => SessionState::Dead(self.reason().load(Ordering::Relaxed)),
        }
    }

    /// Errors of posted calls so far, over all rings.
    pub fn posted_errors(&self) -> u64 {
        self.posted_errors_word().load(Ordering::Relaxed)
    }

    /// Bytes that kernels have printed so far.
    #[inline]
    pub fn printed_bytes(&self) -> u64 {
        self.printed_bytes_word().load(Ordering::Relaxed)
    }

    /// Host: kernels have printed so many bytes. Before the reply of the call that made sure of it.
    pub fn set_printed_bytes(&self, bytes: u64) {
        self.printed_bytes_word().fetch_max(bytes, Ordering::Relaxed);
    }

    /// A completion word is no proof of what kernels have printed.
    #[inline]
    pub fn may_print(&self) -> bool {
        // Acquire: set before the answer of the load that brought such a kernel.
        self.may_print_word().load(Ordering::Acquire) != 0
    }

    /// Host: whether kernels may print.
    pub fn set_may_print(&self, may: bool) {
        self.may_print_word().store(u64::from(may), Ordering::Release);
    }

    /// Frames that may wait in a ring at a time; 0: as many as fit.
    #[inline]
    pub fn queue_depth(&self) -> u64 {
        self.queue_depth_word().load(Ordering::Relaxed)
    }

    /// Host: how many frames may wait in a ring.
    pub fn set_queue_depth(&self, frames: u64) {
        self.queue_depth_word().store(frames, Ordering::Relaxed);
    }

    /// Where a ring's completion word is. The device writes it, or the executor in its place.
    pub fn completion_word(&self, ring: u32) -> Option<NonNull<u64>> {
        if ring >= RINGS_MAX {
            return None;
        }
        // In the page: `OFF_COMPLETION` and the number of rings are checked above.
        let offset = (OFF_COMPLETION as usize).wrapping_add((ring as usize).wrapping_mul(8));
        NonNull::new(self.base.as_ptr().wrapping_add(offset).cast())
    }

    /// What a ring's completion word says, 0 at first. What the device has done before it wrote the word is seen after this.
    #[inline]
    pub fn completion(&self, ring: u32) -> u64 {
        let Some(word) = self.completion_word(ring) else { return 0 };
        // SAFETY: 8 aligned bytes of the page, which stays mapped by the constructor's contract, reached through atomics only.
        // The words are no part of the model: nothing there writes them.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(word.as_ptr()) }
            .load(core::sync::atomic::Ordering::Acquire)
    }

    /// The page's first byte, for a host that registers it with a device.
    pub fn start(&self) -> NonNull<u8> {
        self.base
    }

    /// Host: the worker serves.
    pub fn set_live(&self) {
        self.state_word().store(SESSION_LIVE, Ordering::Release);
    }

    /// Host: the session is over. Every waiting thread is to be woken after this.
    pub fn set_dead(&self, reason: u32) {
        self.reason().store(reason, Ordering::Relaxed);
        self.state_word().store(SESSION_DEAD, Ordering::Release);
    }

    /// Host: every call answers `result` from now on.
    pub fn set_sticky(&self, result: u32) {
        self.sticky_result().store(result, Ordering::Release);
    }

    /// Host: one more posted call has failed.
    pub fn count_posted_error(&self) {
        self.posted_errors_word().fetch_add(1, Ordering::Relaxed);
    }

    /// Host: marks the thread of `ring` as to be woken. True: no event is on its way yet, so the caller must post one.
    #[must_use = "true means that an event must be posted"]
    pub fn wake(&self, ring: u32) -> bool {
        self.wake_word(ring >> 6).fetch_or(1 << (ring & 63), Ordering::AcqRel);
        self.event_posted().swap(1, Ordering::AcqRel) == 0
    }

    /// Guest kernel: on a wake event, takes the bits of the rings whose threads are to be woken.
    pub fn take_wakes(&self) -> [u64; 4] {
        // First: a bit set after it was passed over below then posts another event.
        self.event_posted().swap(0, Ordering::AcqRel);
        [0, 1, 2, 3].map(|word| self.wake_word(word).swap(0, Ordering::AcqRel))
    }

    fn wake_word(&self, word: u32) -> &crate::atomics::AtomicU64 {
        match word & 3 {
            0 => self.wake0(),
            1 => self.wake1(),
            2 => self.wake2(),
            _ => self.wake3(),
        }
    }
}

impl core::fmt::Debug for SessionPageMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SessionPageMemory")
            .field("base", &self.base)
            .field("owned", &self.owner.is_some())
            .finish_non_exhaustive()
    }
}
