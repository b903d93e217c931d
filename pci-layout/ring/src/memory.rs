//! The memory of a ring: where its words and areas lie.

use core::ptr::NonNull;
use std::sync::Arc;

use pci_layout::ring::{
    FRAME_AREA_BYTES, HEADER_BYTES, OFF_ASYNC_ERROR, OFF_BULK_DONE, OFF_GUEST_PARKED, OFF_HEAD,
    OFF_HOST_PARKED, OFF_REPLY, OFF_TAIL, REPLY_AREA_BYTES,
};

use crate::atomics::shared_words;
use crate::shared;

/// The memory of one ring, [`RING_BYTES`](pci_layout::ring::RING_BYTES) long. Clones are the same memory.
#[derive(Clone)]
pub struct RingMemory {
    base: NonNull<u8>,
    /// Whoever unmaps the memory when dropped. Held so that no clone outlives the mapping.
    owner: Option<Arc<dyn Send + Sync>>,
    #[cfg(loom)]
    model: Arc<ModelWords>,
}

// SAFETY: the memory is reached through atomics only, or (unpublished frames) by the one producer that `Producer`'s
// `&mut self` makes sure of; the constructor's contract keeps it mapped for all threads.
unsafe impl Send for RingMemory {}
// SAFETY: as for Send.
unsafe impl Sync for RingMemory {}

shared_words!(RingMemory, ModelWords {
    /// Bytes that the guest has published.
    head: AtomicU64 at OFF_HEAD;
    /// Bytes that the host has consumed.
    tail: AtomicU64 at OFF_TAIL;
    /// 1 while the host needs a kick.
    host_parked: AtomicU32 at OFF_HOST_PARKED;
    /// 0, or what the guest sleeps for.
    guest_parked: AtomicU32 at OFF_GUEST_PARKED;
    /// Ticket of the frame that is answered.
    reply_ticket: AtomicU64 at OFF_REPLY;
    /// Result (low half) and length (high half) of the reply, together in one word.
    reply_body: AtomicU64 at OFF_REPLY + 8;
    /// Bulk frames that the host has finished.
    bulk_done: AtomicU64 at OFF_BULK_DONE;
    /// First unreported error of a posted call.
    async_error: AtomicU64 at OFF_ASYNC_ERROR;
});

impl RingMemory {
    /// A ring's memory at `base`. New rings are all zeros.
    ///
    /// # Safety
    ///
    /// `base` is page aligned and [`RING_BYTES`](pci_layout::ring::RING_BYTES) from it stay mapped, readable and
    /// writable, until the last clone is dropped. This process reaches the memory only through this crate (or by
    /// atomics), and makes at most one [`Producer`](crate::Producer) of it.
    pub unsafe fn new(base: NonNull<u8>) -> Self {
        Self {
            base,
            owner: None,
            #[cfg(loom)]
            model: Arc::new(ModelWords::new()),
        }
    }

    /// As [`RingMemory::new`], with the mapping's owner kept until the last clone is dropped.
    ///
    /// # Safety
    ///
    /// As for [`RingMemory::new`], where "stay mapped" needs to hold only while `owner` lives.
    pub unsafe fn with_owner(base: NonNull<u8>, owner: Arc<dyn Send + Sync>) -> Self {
        // SAFETY: the caller's promise, and the owner is dropped last.
        let memory = unsafe { Self::new(base) };
        Self { owner: Some(owner), ..memory }
    }

    /// True if the mapping is kept alive by the ring itself.
    pub fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Address of the `guest_parked` word: what the guest sleeps on with a shared futex in the local transport.
    pub fn guest_parked_futex(&self) -> *mut u32 {
        // SAFETY: within the header page, by the constructor's contract.
        unsafe { self.base().add(OFF_GUEST_PARKED as usize).cast() }
    }

    /// Start of the frame area.
    pub(crate) fn frames(&self) -> *mut u8 {
        // SAFETY: within the ring's memory, by the constructor's contract.
        unsafe { self.base().add(HEADER_BYTES as usize) }
    }

    fn replies(&self) -> *mut u8 {
        // SAFETY: within the ring's memory, by the constructor's contract.
        unsafe { self.base().add(HEADER_BYTES as usize).add(FRAME_AREA_BYTES as usize) }
    }

    /// Copies `dst.len()` bytes out of the frame area, from `offset`. False, and nothing read, if they do not all lie in it.
    #[must_use]
    pub(crate) fn read_frames(&self, offset: usize, dst: &mut [u8]) -> bool {
        if !fits(offset, dst.len(), FRAME_AREA_BYTES) {
            return false;
        }
        // SAFETY: the range lies in the frame area (just checked), which is mapped by the constructor's contract.
        unsafe { shared::copy_out(self.frames().add(offset), dst) };
        true
    }

    /// Copies `dst.len()` bytes out of the reply area, from `offset`. False, and nothing read, if they do not all lie in it.
    #[must_use]
    pub(crate) fn read_reply(&self, offset: usize, dst: &mut [u8]) -> bool {
        if !fits(offset, dst.len(), REPLY_AREA_BYTES) {
            return false;
        }
        // SAFETY: the range lies in the reply area (just checked), which is mapped by the constructor's contract.
        unsafe { shared::copy_out(self.replies().add(offset), dst) };
        true
    }

    /// Copies `data` to the start of the reply area. False, and nothing written, if it does not fit.
    #[must_use]
    pub(crate) fn write_reply(&self, data: &[u8]) -> bool {
        if !fits(0, data.len(), REPLY_AREA_BYTES) {
            return false;
        }
        // SAFETY: the range lies in the reply area (just checked), which is mapped by the constructor's contract and
        // 8-byte aligned, the base being page aligned.
        unsafe { shared::copy_in(self.replies(), data) };
        true
    }
}

impl core::fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RingMemory").field("base", &self.base).finish_non_exhaustive()
    }
}

fn fits(offset: usize, len: usize, area: u32) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= area as usize)
}
