//! Bytes of the guest that this process keeps: copies that wait in streams, texts of modules. Bounded, so that a guest
//! cannot fill the host's memory beside its quota.

use std::sync::{Arc, Condvar, Mutex};

use crate::lock::{lock, wait_for};

/// Bytes of queued copies.
pub(crate) const QUEUED_BYTES_MAX: u64 = 256 << 20;

/// Bytes of PTX that modules and libraries keep.
pub(crate) const TEXT_BYTES_MAX: u64 = 512 << 20;

/// What is left.
pub(crate) struct Budget {
    most: u64,
    left: Mutex<u64>,
    returned: Condvar,
}

/// Bytes taken from a budget until this is dropped.
pub(crate) struct Hold {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Budget { most: bytes, left: Mutex::new(bytes), returned: Condvar::new() })
    }

    /// Waits for room. `None`: more than there ever is, or `give_up` said so (asked every few milliseconds).
    pub(crate) fn take(self: &Arc<Self>, bytes: u64, give_up: impl Fn() -> bool) -> Option<Hold> {
        if bytes > self.most {
            return None;
        }
        let mut left = lock(&self.left);
        loop {
            if let Some(rest) = left.checked_sub(bytes) {
                *left = rest;
                return Some(Hold { budget: self.clone(), bytes });
            }
            if give_up() {
                return None;
            }
            left = wait_for(&self.returned, left, std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut left = lock(&self.budget.left);
        *left = left.saturating_add(self.bytes);
        self.budget.returned.notify_all();
    }
}
