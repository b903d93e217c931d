//! The guest's end of a ring.

use pci_layout::ring::{FRAME_AREA_BYTES, GUEST_WAITS_PROGRESS, GUEST_WAITS_SPACE, REPLY_AREA_BYTES};

use crate::atomics::{Ordering, fence};
use crate::{FrameWriter, RingMemory, SPACE_BYTES};

/// What the guest's thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// The reply to the frame with this ticket.
    Reply(u64),
    /// This many finished bulk frames since the ring was made.
    Bulk(u64),
    /// Space for a frame.
    Space,
    /// The frame that ends at this position has been taken, and its space given back.
    Taken(u64),
}

impl WaitFor {
    /// The value that `guest_parked` has during the sleep.
    pub fn guest_parked(self) -> u32 {
        match self {
            Self::Reply(_) | Self::Bulk(_) => GUEST_WAITS_PROGRESS,
            // Whoever gives space back says so to both.
            Self::Space | Self::Taken(_) => GUEST_WAITS_SPACE,
        }
    }
}

/// A reply that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The CUresult.
    pub result: u32,
    /// Bytes in the reply area; never more than it has.
    pub len: u32,
}

/// The guest's end: writes frames, reads replies. Owned by one thread at a time.
#[derive(Debug)]
pub struct Producer {
    pub(crate) memory: RingMemory,
    /// The head that was published last.
    pub(crate) head: u64,
    /// The tail as it was read last; the true one is at or after it.
    tail: u64,
    pub(crate) last_ticket: u64,
}

impl Producer {
    /// The guest's end of a new ring, whose memory is all zeros. There is one per ring, ever.
    pub fn new(memory: RingMemory) -> Self {
        Self { memory, head: 0, tail: 0, last_ticket: 0 }
    }

    /// The ring's memory.
    pub fn memory(&self) -> &RingMemory {
        &self.memory
    }

    /// Begins a frame of any length, or None if the ring is full: then wait for [`WaitFor::Space`].
    #[inline]
    pub fn reserve(&mut self) -> Option<FrameWriter<'_>> {
        if self.has_space() { Some(FrameWriter::new(self)) } else { None }
    }

    /// True if a frame of any length can be written.
    #[inline]
    pub fn has_space(&mut self) -> bool {
        // The cached tail first: its cache line is the host's.
        free(self.head, self.tail) >= SPACE_BYTES || self.refresh_tail()
    }

    /// Where the frame that was published last ends.
    pub fn position(&self) -> u64 {
        self.head
    }

    /// True if the frame that ends at this position was taken and its space given back.
    pub fn has_taken(&mut self, end: u64) -> bool {
        if self.tail < end {
            self.refresh_tail();
        }
        self.tail >= end
    }

    #[cold]
    fn refresh_tail(&mut self) -> bool {
        // Acquire: the host's copying of the frames it released is over before they are overwritten.
        self.tail = self.memory.tail().load(Ordering::Acquire);
        free(self.head, self.tail) >= SPACE_BYTES
    }

    /// The reply to `ticket`, if it is there.
    #[inline]
    pub fn poll_reply(&self, ticket: u64) -> Option<ReplyHeader> {
        if self.memory.reply_ticket().load(Ordering::Acquire) != ticket {
            return None;
        }
        let body = self.memory.reply_body().load(Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        let (result, len) = (body as u32, (body >> 32) as u32);
        Some(ReplyHeader { result, len: len.min(REPLY_AREA_BYTES) })
    }

    /// Copies reply data, from `offset` of the reply area. Valid between a reply and the next frame. False, and
    /// nothing copied, if the range passes the end of the area.
    #[must_use]
    pub fn read_reply(&self, offset: usize, dst: &mut [u8]) -> bool {
        self.memory.read_reply(offset, dst)
    }

    /// Bulk frames that the host has finished since the ring was made.
    #[inline]
    pub fn bulk_done(&self) -> u64 {
        // Acquire: the staging buffer is read or written after this.
        self.memory.bulk_done().load(Ordering::Acquire)
    }

    /// Takes the first error of a posted call since the last time: (CUresult, wire id of the call).
    #[inline]
    pub fn take_async_error(&self) -> Option<(u32, u32)> {
        if self.memory.async_error().load(Ordering::Relaxed) == 0 {
            return None;
        }
        let error = self.memory.async_error().swap(0, Ordering::AcqRel);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        let halves = (error as u32, (error >> 32) as u32);
        (error != 0).then_some(halves)
    }

    /// True once what is waited for is there.
    #[inline]
    pub fn is_ready(&mut self, wait: WaitFor) -> bool {
        match wait {
            WaitFor::Reply(ticket) => self.poll_reply(ticket).is_some(),
            WaitFor::Bulk(count) => self.bulk_done() >= count,
            WaitFor::Space => self.has_space(),
            WaitFor::Taken(end) => self.has_taken(end),
        }
    }

    /// Announces a sleep. True: sleep until woken (it may be over already), then call [`Producer::finish_wait`] and
    /// look again. False: what is waited for has come meanwhile.
    #[must_use]
    pub fn prepare_wait(&mut self, wait: WaitFor) -> bool {
        self.memory.guest_parked().store(wait.guest_parked(), Ordering::Relaxed);
        // The other half is in `Consumer::take_guest_parked`.
        fence(Ordering::SeqCst);
        if self.is_ready(wait) {
            self.finish_wait();
            return false;
        }
        true
    }

    /// Ends a sleep, or the announcement of one.
    pub fn finish_wait(&mut self) {
        self.memory.guest_parked().store(0, Ordering::Relaxed);
    }

    /// True if the host sleeps, so that the caller must kick. After a SeqCst fence only.
    #[inline]
    pub(crate) fn host_sleeps(&self) -> bool {
        self.memory.host_parked().load(Ordering::Relaxed) != 0
    }
}

/// Free bytes between the host's tail and the guest's head; 0 for a tail that cannot be.
#[inline]
fn free(head: u64, tail: u64) -> u64 {
    u64::from(FRAME_AREA_BYTES).saturating_sub(head.wrapping_sub(tail))
}
