//! Stopping dispatch for as long as the VM is paused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// What every call passes through.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: AtomicBool,
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
            if !self.closed.load(Ordering::SeqCst) {
                return;
            }
            inside.leave();
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            while self.closed.load(Ordering::Relaxed) {
                guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn close(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_all();
    }
}
