//! Entries of context-local storage where readers find them without a lock.
//!
//! Each slot has a sequence number, odd while a writer is at it: a reader takes what it read only if the number was even
//! and is the same afterwards. Writers hold the storage's mutex, so there is one at a time. A reader that finds nothing
//! asks under the mutex.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use cuda_api::types::CUcontext;

use super::Key;

/// Slots: as many as a byte tells apart, several times the contexts × libraries of a large program.
const SLOTS: usize = 1 << u8::BITS;
/// How many slots an entry may lie in, from its own on.
const PROBES: usize = 4;

struct Slot {
    sequence: AtomicU32,
    /// 0: the slot is free.
    ctx: AtomicU64,
    key: AtomicPtr<c_void>,
    value: AtomicPtr<c_void>,
}

/// The slots.
pub(super) struct Mirror([Slot; SLOTS]);

impl Slot {
    const fn new() -> Self {
        Slot {
            sequence: AtomicU32::new(0),
            ctx: AtomicU64::new(0),
            key: AtomicPtr::new(null_mut()),
            value: AtomicPtr::new(null_mut()),
        }
    }

    /// Whether it holds this entry; exact for a writer, a guess for a reader.
    fn holds(&self, ctx: CUcontext, key: Key) -> bool {
        self.ctx.load(Ordering::Relaxed) == ctx.0 && self.key.load(Ordering::Relaxed) == key.0
    }

    /// Under the storage's mutex.
    fn write(&self, ctx: u64, key: *mut c_void, value: *mut c_void) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        // The odd number is seen before any of what follows.
        fence(Ordering::Release);
        self.ctx.store(ctx, Ordering::Relaxed);
        self.key.store(key, Ordering::Relaxed);
        self.value.store(value, Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }

    #[inline]
    fn read(&self, ctx: CUcontext, key: Key) -> Option<*mut c_void> {
        let before = self.sequence.load(Ordering::Acquire);
        if !self.holds(ctx, key) {
            return None;
        }
        let value = self.value.load(Ordering::Relaxed);
        // All three were read before the number is read again.
        fence(Ordering::Acquire);
        let unchanged = before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before;
        unchanged.then_some(value)
    }
}

impl Mirror {
    pub(super) const fn new() -> Self {
        Mirror([const { Slot::new() }; SLOTS])
    }

    /// The slots that an entry may lie in.
    #[inline]
    fn slots(&self, ctx: CUcontext, key: Key) -> impl Iterator<Item = &Slot> {
        // Multiplying by 2^64 / φ spreads addresses and handles, which differ in few bits, over the upper byte.
        let mixed = (ctx.0 ^ (key.0.addr() as u64).rotate_left(20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let own = usize::from(mixed.to_be_bytes()[0]);
        (0..PROBES).map(move |i| &self.0[(own + i) % SLOTS])
    }

    /// The value, if the entry is here and no writer is at its slot.
    #[inline]
    pub(super) fn get(&self, ctx: CUcontext, key: Key) -> Option<*mut c_void> {
        self.slots(ctx, key).find_map(|slot| slot.read(ctx, key))
    }

    /// Puts an entry in, in another's place if need be. Under the storage's mutex.
    pub(super) fn insert(&self, ctx: CUcontext, key: Key, value: *mut c_void) {
        let slot = self
            .slots(ctx, key)
            .find(|slot| slot.holds(ctx, key))
            .or_else(|| self.slots(ctx, key).find(|slot| slot.ctx.load(Ordering::Relaxed) == 0))
            .or_else(|| self.slots(ctx, key).next());
        if let Some(slot) = slot {
            slot.write(ctx.0, key.0, value);
        }
    }

    /// Takes an entry out, if it is here. Under the storage's mutex.
    pub(super) fn remove(&self, ctx: CUcontext, key: Key) {
        if let Some(slot) = self.slots(ctx, key).find(|slot| slot.holds(ctx, key)) {
            slot.write(0, null_mut(), null_mut());
        }
    }
}
