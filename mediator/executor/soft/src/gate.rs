//! What threads wait at: gates, and the marks that events leave in streams.

use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Instant;

use crate::lock::{lock, wait, wait_for};

/// How a wait at a gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It opened.
    Open,
    /// What it stood for will never be.
    Dropped,
    /// It was too long.
    Late,
}

/// Opens once.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<Option<Passed>>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, passed: Passed) {
        let mut state = lock(&self.state);
        if state.is_none() {
            *state = Some(passed);
            self.changed.notify_all();
        }
    }

    pub(crate) fn open(&self) {
        self.set(Passed::Open);
    }

    pub(crate) fn drop_it(&self) {
        self.set(Passed::Dropped);
    }

    /// Waits, at most until then.
    pub(crate) fn pass(&self, until: Option<Instant>) -> Passed {
        let mut state = lock(&self.state);
        loop {
            if let Some(passed) = *state {
                return passed;
            }
            state = match until {
                None => wait(&self.changed, state),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Passed::Late;
                    }
                    wait_for(&self.changed, state, left)
                }
            };
        }
    }
}

/// One recording of an event: when its stream got there.
#[derive(Default)]
pub(crate) struct Mark(OnceLock<Instant>);

impl Mark {
    pub(crate) fn reach(&self, now: Instant) {
        // A mark is reached once; a second time would be a second operation with the same mark, which nobody makes.
        let _ = self.0.set(now);
    }

    pub(crate) fn reached(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}
