//! Stopping dispatch for as long as the VM is paused or suspended.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Why the gate is closed. It opens when no reason is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Reason {
    /// The VM is paused: guest memory may become another kernel's.
    Paused = 1,
    /// The VM is suspended: the device has none of its memory.
    Suspended = 2,
}

/// What every call passes through.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Bits of [`Reason`].
    closed: AtomicU32,
    lock: Mutex<()>,
    opened: Condvar,
}

/// One ring's place at the gate: whether its thread is inside a call.
#[derive(Debug, Default)]
pub(super) struct Inside(AtomicBool);

impl Inside {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn leave(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Gate {
    /// Enters a call, after waiting for the gate to open.
    pub(super) fn enter(&self, inside: &Inside) {
        loop {
            // SeqCst here and in `close`: either this thread sees the gate closed, or whoever closed it sees it inside.
            inside.0.store(true, Ordering::SeqCst);
            if !self.is_closed() {
                return;
            }
            inside.leave();
            self.wait();
        }
    }

    /// Waits for the gate to open, without entering. It may have closed again.
    pub(super) fn wait(&self) {
        if !self.is_closed() {
            return;
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.closed.load(Ordering::Relaxed) != 0 {
            guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) != 0
    }

    pub(super) fn is_closed_for(&self, reason: Reason) -> bool {
        self.closed.load(Ordering::SeqCst) & reason as u32 != 0
    }

    pub(super) fn close(&self, reason: Reason) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.fetch_or(reason as u32, Ordering::SeqCst);
    }

    /// Takes one reason away; whether there is none left.
    pub(super) fn open(&self, reason: Reason) -> bool {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.closed.fetch_and(!(reason as u32), Ordering::SeqCst) & !(reason as u32);
        if left == 0 {
            self.opened.notify_all();
        }
        left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_when_no_reason_is_left() {
        let (gate, inside) = (Gate::default(), Inside::default());
        gate.close(Reason::Paused);
        gate.close(Reason::Suspended);
        assert!(!gate.open(Reason::Paused));
        assert!(
            gate.is_closed() && gate.is_closed_for(Reason::Suspended) && !gate.is_closed_for(Reason::Paused)
        );
        gate.close(Reason::Paused);
        assert!(!gate.open(Reason::Suspended) && gate.is_closed());
        assert!(gate.open(Reason::Paused));
        gate.enter(&inside);
        assert!(inside.is_set());
    }
}
