//! The posted frames that stand in another ring, copied for the question whether a call may overtake them.
//!
//! [`vgpu_ring::FrontView`] tells whether a ring holds back a ticket, and that needs its front only. Overtaking is about
//! every frame behind the front too, so they are walked here. What is read is a snapshot of memory that the guest may
//! change at will: the answer decides about the order of that guest's own calls and about nothing else, and a queue that
//! makes no sense is not overtaken. A full ring is walked whole, [`FRAME_AREA_BYTES`] at most: it is full just when a call
//! blocks for long.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use pci_layout::ring::{
    FRAME_ALIGN, FRAME_AREA_BYTES, FRAME_BYTES_MAX, FRAME_PAD, FRAME_WAIT, FrameHeader, HEADER_BYTES,
    OFF_HEAD, RING_BYTES,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::Frame;

const WORD: usize = size_of::<u64>();
const HEADER: usize = size_of::<FrameHeader>();

/// A frame that belongs to nobody's buffer.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameCopy {
    pub(super) call: u32,
    pub(super) flags: u32,
    pub(super) context: u32,
    pub(super) ticket: u64,
    pub(super) args: Vec<u8>,
}

impl FrameCopy {
    pub(super) fn frame(&self) -> Frame<'_> {
        let Self { call, flags, context, ticket, ref args } = *self;
        Frame { call, flags, context, ticket, args }
    }
}

/// A ring's memory as words.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingWords {
    base: NonNull<u8>,
}

// SAFETY: an address, used with atomics only; its users keep the mapping (see `new`).
unsafe impl Send for RingWords {}
// SAFETY: as above.
unsafe impl Sync for RingWords {}

impl RingWords {
    /// # Safety
    /// `base` is page aligned, and RING_BYTES from it stay mapped while the value is used.
    pub(super) unsafe fn new(base: NonNull<u8>) -> Self {
        Self { base }
    }

    /// The word at `offset`, None outside the ring's memory.
    fn word(&self, offset: usize) -> Option<u64> {
        let end = offset.checked_add(WORD)?;
        if end > RING_BYTES as usize || offset & (WORD - 1) != 0 {
            return None;
        }
        // SAFETY: inside the mapping and 8-byte aligned (both just checked, `new` has the rest).
        Some(unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }.load(Ordering::Acquire))
    }

    fn bytes(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        for at in (0..len).step_by(WORD) {
            bytes.extend_from_slice(self.word(offset.checked_add(at)?)?.as_bytes());
        }
        bytes.truncate(len);
        Some(bytes)
    }

    /// The posted frames with tickets below `before` that stand at `taken` and behind it: those that the ring's thread has not taken.
    /// None: it cannot be said.
    pub(super) fn posted_before(&self, taken: u64, before: u64) -> Option<Vec<FrameCopy>> {
        let head = self.word(OFF_HEAD as usize)?;
        let mut position = taken;
        if head.checked_sub(position)? > u64::from(FRAME_AREA_BYTES) {
            return None;
        }
        let mut frames = Vec::new();
        while position < head {
            let offset = position & u64::from(FRAME_AREA_BYTES.checked_sub(1)?);
            let rest = u64::from(FRAME_AREA_BYTES).checked_sub(offset)?;
            if rest < HEADER as u64 {
                position = position.checked_add(rest)?;
                continue;
            }
            let start = usize::try_from(offset).ok()?.checked_add(HEADER_BYTES as usize)?;
            let header = FrameHeader::read_from_bytes(&self.bytes(start, HEADER)?).ok()?;
            if header.flags & FRAME_PAD != 0 {
                position = position.checked_add(rest)?;
                continue;
            }
            // Nothing stands behind a frame that the guest waits for, and tickets rise.
            if header.flags & FRAME_WAIT != 0 || header.ticket >= before {
                break;
            }
            let len = header.len as usize;
            let fits = header.len <= FRAME_BYTES_MAX && u64::from(header.len) <= rest;
            if !fits || header.len & (FRAME_ALIGN - 1) != 0 || len < HEADER {
                return None;
            }
            let args = self.bytes(start.checked_add(HEADER)?, len.checked_sub(HEADER)?)?;
            let FrameHeader { call, flags, context, ticket, .. } = header;
            frames.push(FrameCopy { call, flags, context, ticket, args });
            position = position.checked_add(u64::from(header.len))?;
        }
        Some(frames)
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
