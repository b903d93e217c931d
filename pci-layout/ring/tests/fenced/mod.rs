//! Ring memory between two pages that nobody may touch: an access outside of it ends the test.

use std::ptr::{self, NonNull};
use std::sync::Arc;

use pci_layout::ring::{OFF_HEAD, RING_BYTES};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use vgpu_ring::RingMemory;

const PAGE: usize = 4096;
const LEN: usize = RING_BYTES as usize;

struct Mapping(NonNull<u8>);

// SAFETY: an address; the memory is reached through the ring's atomics and the writes below.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `ring` mapped, and its last user is gone.
        unsafe { munmap(self.0.as_ptr().cast(), LEN + 2 * PAGE).unwrap() };
    }
}

/// A new ring's memory.
pub fn ring() -> RingMemory {
    // SAFETY: new memory, made accessible but for its first and last page; the ring keeps its owner.
    unsafe {
        let base =
            mmap_anonymous(ptr::null_mut(), LEN + 2 * PAGE, ProtFlags::empty(), MapFlags::PRIVATE).unwrap();
        mprotect(base.byte_add(PAGE), LEN, MprotectFlags::READ | MprotectFlags::WRITE).unwrap();
        let base = NonNull::new(base.cast::<u8>()).unwrap();
        RingMemory::with_owner(base.byte_add(PAGE), Arc::new(Mapping(base)))
    }
}

/// The ring's first byte, for a guest that does not keep the rules.
#[allow(dead_code, reason = "not every test is hostile")]
pub fn base(memory: &RingMemory) -> *mut u8 {
    let futex = memory.guest_parked_futex().cast::<u8>();
    // SAFETY: back to the start of the memory that the word lies in.
    unsafe { futex.sub(pci_layout::ring::OFF_GUEST_PARKED as usize) }
}

/// Writes `head` as a hostile guest would.
#[allow(dead_code, reason = "not every test is hostile")]
pub fn set_head(memory: &RingMemory, head: u64) {
    // SAFETY: a word of the header page.
    let word = unsafe { std::sync::atomic::AtomicU64::from_ptr(base(memory).add(OFF_HEAD as usize).cast()) };
    word.store(head, std::sync::atomic::Ordering::Release);
}
