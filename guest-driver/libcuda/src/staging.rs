//! The program's bytes through the ring's staging buffer, in chunks: this thread and its helpers ([`crate::copying`]) copy some while
//! the worker has others.

use std::time::Duration;

use cuda_api::wire::{Bulk, Fill, Filled, INLINE_BYTES_MAX};
use cuda_api::{CUresult, Call, CuResult};

use crate::copying::{Copying, Places, UNIT_BYTES, Way, pause};
use crate::gate::{self, Begun, Lane};

/// Slots of the staging buffer: how many chunks are on their way at once.
pub const STAGING_SLOTS: usize = 8;
const _: () = assert!((transport::STAGING_BYTES / STAGING_SLOTS).is_multiple_of(UNIT_BYTES));

/// What travels in a frame at most. More is cheaper through staging: the worker then copies it once, not twice.
pub(crate) const INLINE_LIMIT: usize = 16 * 1024;
const _: () = assert!(INLINE_LIMIT <= INLINE_BYTES_MAX);

/// A copy from this length on is worth waking other threads for.
const SHARED_BYTES_MIN: usize = 512 << 10;
/// Chunks are not cut smaller than this for the sake of overlapping: each costs the worker a call.
const CHUNK_BYTES_MIN: usize = 256 << 10;

/// A chunk takes some 10 µs on the bus. It is looked for so long before this thread sleeps.
const CHUNK_WAIT: Duration = Duration::from_micros(100);

/// Bytes of the chunks that a copy is cut into: while the first is on its way nothing overlaps with it, nor with the last.
fn chunk_bytes(len: usize, slot_bytes: usize) -> usize {
    (len / 4).clamp(CHUNK_BYTES_MIN, slot_bytes).next_multiple_of(UNIT_BYTES)
}

/// A place in the staging buffer.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) index: usize,
    pub(crate) at: *mut u8,
    pub(crate) offset: u64,
}

/// A part's place among those in which a copy from the device is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The only one: its bytes come with the reply.
    Only,
    /// More follow.
    More,
    /// The last one, with whose reply the copy is done.
    Last,
}

/// What has come of asking for a part.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Its bytes.
    Bytes(Filled),
    /// It is on its way.
    Posted,
    /// It is on its way, and so is its reply.
    Begun(Begun),
}

impl Lane<'_> {
    /// The staging buffer.
    fn staging(&mut self) -> CuResult<(*mut u8, usize)> {
        self.ring()?.staging().map_err(|e| crate::process::control_failure(&e))
    }

    /// Bytes of a slot.
    pub(crate) fn slot_bytes(&mut self) -> CuResult<usize> {
        Ok(self.staging()?.1 / STAGING_SLOTS)
    }

    /// The next slot, once the worker is done with it.
    pub(crate) fn take_slot(&mut self) -> CuResult<Slot> {
        let index = self.state.next_slot;
        self.wait_slot(index)?;
        let (base, len) = self.staging()?;
        self.state.next_slot = (index + 1) % STAGING_SLOTS;
        let offset = index * (len / STAGING_SLOTS);
        Ok(Slot { index, at: base.wrapping_add(offset), offset: offset as u64 })
    }

    /// A bulk frame that uses the slot was sent.
    pub(crate) fn slot_used(&mut self, slot: Slot) -> CuResult<()> {
        self.state.staging_slots[slot.index] = self.ring()?.bulk_submitted();
        Ok(())
    }

    /// The worker is done with what was last sent through a slot.
    fn is_done(&mut self, slot: usize) -> CuResult<bool> {
        Ok(self.state.staging_slots[slot] <= self.ring()?.bulk_done())
    }

    /// Waits until it is.
    fn wait_slot(&mut self, slot: usize) -> CuResult<()> {
        let until = self.state.staging_slots[slot];
        self.ring()?.expect(CHUNK_WAIT);
        self.ring()?.wait_bulk(until).map_err(|e| gate::call_failure(&e))
    }

    /// A copy through the slots that come next, of which nothing is open yet.
    ///
    /// # Safety
    /// `host` has `len` bytes, readable or writable as `way` says, until the value is dropped. A chunk is opened when no frame in flight
    /// uses its slot, and its slot is used again when it is copied.
    unsafe fn copying(&mut self, way: Way, host: *mut u8, len: usize) -> CuResult<Copying> {
        let (staging, bytes) = self.staging()?;
        let (slot_bytes, first_slot) = (bytes / STAGING_SLOTS, self.state.next_slot);
        let chunk = chunk_bytes(len, slot_bytes);
        let places = Places { way, host, len, staging, slot_bytes, first_slot, chunk };
        // SAFETY: the program's bytes and the order by this function's contract; staging stays as long as the ring, which this thread
        // has in use.
        Ok(unsafe { Copying::begin(places, len >= SHARED_BYTES_MIN) })
    }

    /// Sends host bytes in as many frames as it takes; `frame` sends one, with the offset of its part.
    ///
    /// # Safety
    /// `from` has `len` readable bytes.
    pub unsafe fn send_bytes(
        &mut self,
        from: *const u8,
        len: usize,
        mut frame: impl FnMut(&mut Self, usize, Bulk<'_>, bool) -> CuResult<()>,
    ) -> CuResult<()> {
        if len <= INLINE_LIMIT {
            // SAFETY: `len` readable bytes by this function's contract, for the time of the call.
            let bytes = unsafe { std::slice::from_raw_parts(from, len) };
            return frame(self, 0, Bulk::Inline(bytes), false);
        }
        // SAFETY: as above, and read only. Below, chunks are opened when the worker is done with their slots, and sent when copied.
        let copying = unsafe { self.copying(Way::Up, from.cast_mut(), len) }?;
        let count = copying.places().count();
        let (mut opened, mut sent, mut looks) = (0, 0, 0);
        while sent < count {
            while opened < count
                && opened - sent < STAGING_SLOTS
                && self.is_done(copying.places().slot(opened))?
            {
                copying.open_chunk(opened);
                opened += 1;
            }
            if sent == opened {
                self.wait_slot(copying.places().slot(opened))?;
            } else if copying.is_copied(sent) {
                let slot = self.take_slot()?;
                let (at, part) = copying.places().part(sent);
                frame(self, at, Bulk::Staged { offset: slot.offset, len: part as u64 }, true)?;
                self.slot_used(slot)?;
                sent += 1;
            } else if !copying.copy_one() {
                pause(&mut looks);
            }
        }
        Ok(())
    }

    /// Asks for a part of a copy from the device.
    ///
    /// # Errors
    /// As for [`Lane::call`] and [`Lane::post`].
    pub(crate) fn ask<C: Call<Out = Filled>>(&mut self, fields: &C::In<'_>, part: Part) -> CuResult<Asked> {
        match part {
            Part::Only => self.call::<C>(fields, false).map(Asked::Bytes),
            Part::More => self.post::<C>(fields, true).map(|()| Asked::Posted),
            Part::Last => self.begin::<C>(fields).map(Asked::Begun),
        }
    }

    /// Fetches bytes from the device in as many frames as it takes; all but the last are posted. The call has waited for the
    /// device, so an error of anything that this thread posted before comes out here.
    ///
    /// # Safety
    /// `to` has room for `len` bytes.
    pub(crate) unsafe fn fetch_bytes(
        &mut self,
        to: *mut u8,
        len: usize,
        send: impl Fn(&mut Self, usize, usize, Fill, Part) -> CuResult<Asked>,
    ) -> CuResult<()> {
        if len <= INLINE_LIMIT {
            let Asked::Bytes(bytes) = send(self, 0, len, Fill::Inline { len: len as u64 }, Part::Only)?
            else {
                return Err(CUresult::UNKNOWN);
            };
            self.deferred_error()?;
            if bytes.len() != len {
                return Err(CUresult::UNKNOWN);
            }
            // SAFETY: `len` bytes of room by this function's contract.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
            return Ok(());
        }
        // SAFETY: as above. Below, chunks are opened when the worker has filled their slots, and those are asked for again when copied.
        let copying = unsafe { self.copying(Way::Down, to, len) }?;
        let count = copying.places().count();
        let (mut asked, mut opened, mut emptied, mut looks) = (0, 0, 0, 0);
        let mut last = None;
        while emptied < count {
            while asked < count && asked - emptied < STAGING_SLOTS {
                let slot = self.take_slot()?;
                let (at, part) = copying.places().part(asked);
                asked += 1;
                let place = if asked == count { Part::Last } else { Part::More };
                let fill = Fill::Staged { offset: slot.offset, len: part as u64 };
                let outcome = send(self, at, part, fill, place);
                self.slot_used(slot)?;
                match outcome {
                    Ok(Asked::Begun(begun)) => last = Some(begun),
                    Ok(_) => {}
                    // A part that was posted before may have failed as well, and first: one error is enough.
                    Err(error) => return Err(self.deferred_error().err().unwrap_or(error)),
                }
            }
            while opened < asked && self.is_done(copying.places().slot(opened))? {
                // The last part's reply is there before its bytes are: it may say that there are none.
                if opened + 1 == count
                    && let Some(begun) = last.take()
                    && let Err(error) = self.end(begun)
                {
                    return Err(self.deferred_error().err().unwrap_or(error));
                }
                copying.open_chunk(opened);
                opened += 1;
            }
            if emptied == opened {
                self.wait_slot(copying.places().slot(opened))?;
            } else if copying.is_copied(emptied) {
                emptied += 1;
            } else if !copying.copy_one() {
                pause(&mut looks);
            }
        }
        self.deferred_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_units_that_fit_a_slot() {
        let slot = transport::STAGING_BYTES / STAGING_SLOTS;
        for len in [1, 17 << 10, 512 << 10, 1 << 20, (1 << 20) + 1, 3 << 20, 16 << 20, 1 << 30] {
            let chunk = chunk_bytes(len, slot);
            assert!(chunk.is_multiple_of(UNIT_BYTES) && chunk <= slot, "{len}: {chunk}");
        }
        assert_eq!(chunk_bytes(1 << 20, slot), 256 << 10);
    }
}
