//! Copying between the program's memory and a staging buffer, by several threads at once: one thread's copying is slower than what a
//! device's bus carries.
//!
//! A copy is cut into units. Its caller opens them in order, as slots of the buffer become free to fill or have been filled, and copies
//! units itself; helping threads take open units as well. Whoever takes a unit copies it to its end, and a copy is over only when all
//! taken units are: nobody touches either memory afterwards.
//!
//! The helpers are threads of this library's, started with the first long copy. They belong to no copy and no ring, look for work
//! for a short while after each, and sleep then. A forked child has none, and needs none: no call of it comes here.

mod helpers;
mod stores;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::staging::STAGING_SLOTS;

/// Bytes that are copied in one go: some 6 µs of one thread's time. Slots are multiples of it.
pub(crate) const UNIT_BYTES: usize = 64 << 10;

/// A copy of this many bytes or more leaves nothing of its destination in the caches that would be worth its place, and does better
/// without reading the destination first.
const STREAMED_BYTES_MIN: usize = 8 << 20;

/// Which way a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the program's memory to staging.
    Up,
    /// From staging to the program's memory.
    Down,
}

/// The memory of a copy: chunk `i` of the program's bytes has slot `first_slot + i`, counted around.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) way: Way,
    /// The program's bytes.
    pub(crate) host: *mut u8,
    /// How many they are.
    pub(crate) len: usize,
    /// The staging buffer, and the bytes of a slot of it.
    pub(crate) staging: *mut u8,
    pub(crate) slot_bytes: usize,
    /// The slot of the first chunk.
    pub(crate) first_slot: usize,
    /// Bytes of a chunk, a multiple of [`UNIT_BYTES`] and no more than a slot has. The last one may have fewer.
    pub(crate) chunk: usize,
}

impl Places {
    /// How many chunks there are.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// Where a chunk begins among the program's bytes, and how many it has.
    pub(crate) fn part(&self, chunk: usize) -> (usize, usize) {
        let at = chunk * self.chunk;
        (at, self.chunk.min(self.len - at))
    }

    /// The slot of a chunk.
    pub(crate) fn slot(&self, chunk: usize) -> usize {
        (self.first_slot + chunk) % STAGING_SLOTS
    }
}

/// A copy while it is under way.
#[derive(Debug)]
struct Work {
    places: Places,
    /// Units before this one may be taken.
    open: AtomicUsize,
    /// The next unit to take.
    next: AtomicUsize,
    /// Units that were copied.
    copied: AtomicUsize,
    /// For each slot, units of its chunk that were copied.
    slots: [AtomicU32; STAGING_SLOTS],
}

// SAFETY: the addresses are used for units that were taken only, by whoever took them, which the caller of `Copying::begin` answers for.
unsafe impl Send for Work {}
// SAFETY: as for Send.
unsafe impl Sync for Work {}

impl Work {
    fn units_of_chunk(&self) -> usize {
        self.places.chunk / UNIT_BYTES
    }

    /// Copies one open unit. False: none is open that nobody has taken.
    fn copy_one(&self) -> bool {
        // Acquire, with the release of `open_chunk`: the slot is free, or filled.
        let take = |next: usize| (next < self.open.load(Ordering::Acquire)).then_some(next + 1);
        let Ok(unit) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            return false;
        };
        let (chunk, within) = (unit / self.units_of_chunk(), unit % self.units_of_chunk());
        let Places { way, host, len, staging, slot_bytes, .. } = self.places;
        let slot = self.places.slot(chunk);
        let at = unit * UNIT_BYTES;
        let bytes = UNIT_BYTES.min(len - at);
        // SAFETY: the unit is this thread's alone, since it was taken once; it lies within the program's bytes and within its
        // chunk's slot, both of which stay until all taken units are copied.
        unsafe {
            let (host, staged) = (host.add(at), staging.add(slot * slot_bytes + within * UNIT_BYTES));
            match way {
                // The device reads it next, out of the cache if it is there.
                Way::Up => std::ptr::copy_nonoverlapping(host.cast_const(), staged, bytes),
                Way::Down if len >= STREAMED_BYTES_MIN => stores::stream(staged.cast_const(), host, bytes),
                Way::Down => std::ptr::copy_nonoverlapping(staged.cast_const(), host, bytes),
            }
        }
        // Release: who sees the count sees the bytes.
        self.slots[slot].fetch_add(1, Ordering::Release);
        self.copied.fetch_add(1, Ordering::Release);
        true
    }

    fn has_open(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.open.load(Ordering::Relaxed)
    }
}

/// The caller's end of a copy. When it goes, nobody uses the copy's memory any more.
#[derive(Debug)]
pub(crate) struct Copying {
    work: Arc<Work>,
    shared: bool,
}

impl Copying {
    /// Begins a copy of which nothing is open yet. `shared`: other threads help.
    ///
    /// # Safety
    /// The memory of `places` stays until this is dropped; once a chunk is open, its bytes on both sides are nobody else's until it is
    /// copied.
    pub(crate) unsafe fn begin(places: Places, shared: bool) -> Self {
        debug_assert!(places.chunk.is_multiple_of(UNIT_BYTES) && places.chunk <= places.slot_bytes);
        let work = Arc::new(Work {
            places,
            open: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            copied: AtomicUsize::new(0),
            slots: [const { AtomicU32::new(0) }; STAGING_SLOTS],
        });
        let shared = shared && helpers::join(&work);
        Self { work, shared }
    }

    /// Where its bytes are.
    pub(crate) fn places(&self) -> &Places {
        &self.work.places
    }

    /// Lets the next chunk be copied: all before it are open, and what was in its slot was copied.
    pub(crate) fn open_chunk(&self, chunk: usize) {
        let work = &self.work;
        work.slots[work.places.slot(chunk)].store(0, Ordering::Relaxed);
        let (at, len) = work.places.part(chunk);
        work.open.store((at + len).div_ceil(UNIT_BYTES), Ordering::Release);
        if self.shared {
            helpers::more();
        }
    }

    /// All of an open chunk was copied.
    pub(crate) fn is_copied(&self, chunk: usize) -> bool {
        let units = self.work.places.part(chunk).1.div_ceil(UNIT_BYTES);
        self.work.slots[self.work.places.slot(chunk)].load(Ordering::Acquire) as usize == units
    }

    /// Copies a unit in this thread; false if there is none to take.
    pub(crate) fn copy_one(&self) -> bool {
        self.work.copy_one()
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if self.shared {
            helpers::leave(&self.work);
        }
        // What is open is not any more; what was taken before is copied to its end.
        let taken = self.work.next.swap(usize::MAX, Ordering::AcqRel);
        let mut looks = 0;
        while self.work.copied.load(Ordering::Acquire) < taken {
            pause(&mut looks);
        }
    }
}

/// Waits for another thread that is about to be done, or has lost its processor.
pub(crate) fn pause(looks: &mut u32) {
    *looks = looks.wrapping_add(1);
    if looks.is_multiple_of(256) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

#[cfg(test)]
mod tests;
