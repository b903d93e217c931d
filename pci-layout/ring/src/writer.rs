//! Writing one frame straight into the ring.

use core::ptr;

use pci_layout::ring::{FRAME_ALIGN, FRAME_AREA_BYTES, FRAME_BYTES_MAX, FRAME_PAD, FrameHeader};

use crate::atomics::{Ordering, fence};
use crate::frame::area_offset;
use crate::{FRAME_HEADER_BYTES, Producer};

/// The frame would be longer than [`FRAME_BYTES_MAX`]. Nothing was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the arguments do not fit a frame of {FRAME_BYTES_MAX} bytes")]
pub struct FrameTooLong;

/// The header fields that the caller chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFields {
    /// Wire id of the call.
    pub call: u32,
    /// FRAME_WAIT, FRAME_BULK and FRAME_UNORDERED, or 0.
    pub flags: u32,
    /// Number of the current context, 0 = none.
    pub context: u32,
    /// Process-wide order number, above that of the ring's last frame.
    pub ticket: u64,
}

/// A frame being written. Arguments go straight into the ring; nothing is visible to the host before
/// [`FrameWriter::publish`], and dropping the writer gives the space back.
///
/// Writes never fail one by one: what does not fit makes the whole frame too long, which `publish` reports.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    producer: &'a mut Producer,
    /// Where the frame starts. Valid for `capacity` bytes.
    start: *mut u8,
    /// Bytes of padding that lie between the producer's head and `start`.
    pad: u64,
    /// Bytes written, header included; at most `capacity`.
    len: usize,
    /// Bytes of the area from `start` on that this frame may fill.
    capacity: usize,
    too_long: bool,
}

impl<'a> FrameWriter<'a> {
    /// A writer at the producer's head, where [`crate::SPACE_BYTES`] are free.
    #[inline]
    pub(crate) fn new(producer: &'a mut Producer) -> Self {
        let offset = area_offset(producer.head);
        let rest = (FRAME_AREA_BYTES as usize).wrapping_sub(offset);
        let frames = producer.memory.frames();
        let (start, pad, capacity) = if rest < FRAME_HEADER_BYTES {
            (frames, rest as u64, FRAME_BYTES_MAX as usize)
        } else {
            // SAFETY: `offset` is below the frame area's length.
            (unsafe { frames.add(offset) }, 0, rest.min(FRAME_BYTES_MAX as usize))
        };
        Self { producer, start, pad, len: FRAME_HEADER_BYTES, capacity, too_long: false }
    }

    /// Bytes of arguments written so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.wrapping_sub(FRAME_HEADER_BYTES)
    }

    /// True if no argument was written yet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of arguments that still fit.
    #[inline]
    pub fn remaining(&self) -> usize {
        if self.too_long { 0 } else { (FRAME_BYTES_MAX as usize).wrapping_sub(self.len) }
    }

    /// Appends bytes.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        if let Some(at) = self.claim(bytes.len()) {
            // SAFETY: `claim` gave room for that many bytes in the ring, which private `bytes` cannot overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        }
    }

    /// Appends `len` bytes from `src`, which may be memory of the application.
    ///
    /// # Safety
    ///
    /// `src` is valid for reads of `len` bytes.
    #[inline]
    pub unsafe fn put_raw(&mut self, src: *const u8, len: usize) {
        if let Some(at) = self.claim(len) {
            // SAFETY: `claim` gave room for that many bytes; the source is the caller's promise. `copy` bears overlap:
            // an application could pass a pointer into the ring itself.
            unsafe { ptr::copy(src, at, len) };
        }
    }

    /// Appends a 32-bit number.
    #[inline]
    pub fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Appends a 64-bit number.
    #[inline]
    pub fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Appends zeros up to a multiple of `align` bytes from the start of the arguments; `align` is a power of two.
    #[inline]
    pub fn align(&mut self, align: usize) {
        debug_assert!(align.is_power_of_two());
        let zeros = self.len().wrapping_neg() & align.wrapping_sub(1);
        if let Some(at) = self.claim(zeros) {
            // SAFETY: `claim` gave room for that many bytes.
            unsafe { ptr::write_bytes(at, 0, zeros) };
        }
    }

    /// Overwrites arguments that were written before, for lengths that are known late. Does nothing if the range was
    /// not written (the frame is too long then, or the caller's offset is wrong).
    #[inline]
    pub fn patch(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        debug_assert!(self.too_long || end.is_some_and(|end| end <= self.len()));
        if end.is_some_and(|end| end <= self.len()) {
            // SAFETY: the range lies in the arguments written so far.
            unsafe {
                ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    self.start.add(FRAME_HEADER_BYTES).add(offset),
                    bytes.len(),
                );
            }
        }
    }

    /// Publishes the frame. True if the host sleeps and must be kicked: the caller then does it, always.
    ///
    /// # Errors
    ///
    /// [`FrameTooLong`] if an argument did not fit; nothing is published.
    #[inline]
    pub fn publish(mut self, fields: FrameFields) -> Result<bool, FrameTooLong> {
        self.align(FRAME_ALIGN as usize);
        if self.too_long {
            return Err(FrameTooLong);
        }
        let FrameFields { call, flags, context, ticket } = fields;
        debug_assert!(ticket > self.producer.last_ticket && flags & FRAME_PAD == 0);
        #[allow(clippy::cast_possible_truncation, reason = "at most FRAME_BYTES_MAX")]
        let len = self.len as u32;
        // SAFETY: `start` has room for the header, 8-byte aligned: frames are multiples of 8 from a page boundary.
        unsafe { self.start.cast::<FrameHeader>().write(FrameHeader { len, call, flags, context, ticket }) };
        let producer = self.producer;
        producer.last_ticket = ticket;
        producer.head = producer.head.wrapping_add(self.pad).wrapping_add(u64::from(len));
        // Release: whoever reads this head reads the frame's bytes as written above.
        producer.memory.head().store(producer.head, Ordering::Release);
        // The other half is in `Consumer::prepare_park`.
        fence(Ordering::SeqCst);
        Ok(producer.host_sleeps())
    }

    /// Room for `len` more bytes, or None (and the frame is too long for good).
    #[inline]
    fn claim(&mut self, len: usize) -> Option<*mut u8> {
        if len > self.capacity.wrapping_sub(self.len) && !self.make_room(len) {
            return None;
        }
        // SAFETY: `len` more bytes fit below `capacity`.
        let at = unsafe { self.start.add(self.len) };
        self.len = self.len.wrapping_add(len);
        Some(at)
    }

    /// Moves the frame to the start of the area, if it is the area's end that limits it.
    #[cold]
    fn make_room(&mut self, len: usize) -> bool {
        let wanted = self.len.checked_add(len);
        if self.too_long || wanted.is_none_or(|wanted| wanted > FRAME_BYTES_MAX as usize) {
            self.too_long = true;
            // Nothing more is accepted, however short.
            self.capacity = self.len;
            return false;
        }
        // Shorter than the longest frame, so it was the rest of the area: SPACE_BYTES free at the head cover that rest
        // and a longest frame after it.
        let frames = self.producer.memory.frames();
        let pad = self.capacity;
        // SAFETY: the frame so far lies at the end of the area, the copy at its start: both are free, by SPACE_BYTES,
        // and apart, since the area is four times the longest frame. The pad's header fits, as a frame was begun there.
        unsafe {
            ptr::copy_nonoverlapping(self.start, frames, self.len);
            #[allow(clippy::cast_possible_truncation, reason = "below FRAME_BYTES_MAX")]
            let header = FrameHeader { len: pad as u32, call: 0, flags: FRAME_PAD, context: 0, ticket: 0 };
            self.start.cast::<FrameHeader>().write(header);
        }
        self.start = frames;
        self.pad = pad as u64;
        self.capacity = FRAME_BYTES_MAX as usize;
        true
    }
}
