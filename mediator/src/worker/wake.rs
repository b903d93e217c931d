//! Waking guest threads.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;

use rustix::thread::futex;
use vgpu_ring::{RingMemory, SessionPageMemory};

/// How this session's guest threads are woken.
pub(super) enum Waker {
    /// Through the session page and the supervisor, by an event to the guest's kernel module.
    Event {
        /// Where the bits are set.
        page: SessionPageMemory,
        /// What the supervisor waits for.
        wake: OwnedFd,
    },
    /// By a shared futex: the guest is a process of this host.
    Futex,
}

impl Waker {
    /// Wakes the guest thread of `ring`, which has announced its sleep.
    pub(super) fn wake(&self, ring: u32, memory: &RingMemory) {
        match self {
            Self::Event { page, wake } => {
                if page.wake(ring) {
                    // Full is as good: a wake is on its way.
                    match rustix::io::write(wake, &1u64.to_ne_bytes()) {
                        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                        Err(error) => log::error!("the supervisor cannot be told of a wake: {error}"),
                    }
                }
            }
            Self::Futex => {
                // SAFETY: the word lies in the ring's header, 4-byte aligned, mapped while `memory` lives; it is
                // changed by atomics only.
                let word = unsafe { AtomicU32::from_ptr(memory.guest_parked_futex()) };
                if let Err(error) = futex::wake(word, futex::Flags::empty(), i32::MAX.unsigned_abs()) {
                    log::error!("the guest thread of ring {ring} cannot be woken: {error}");
                }
            }
        }
    }
}
