//! How fast a VM's calls are carried out. What comes sooner than the limit allows waits here, in its ring's thread, before it is inside a
//! call: a VM that is paused or a session that ends waits for none of it.
//!
//! One word of the VM page says when the next call of the whole VM is due; each call moves it on by the time that a call may take. A call may
//! come [`BURST`] before it is due: threads that sleep a little too long catch up, and a VM that was quiet has some calls free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vgpu_ring::SessionPageMemory;

use crate::vm_page::WorkerPage;

/// So much earlier than it is due a call may come.
const BURST: Duration = Duration::from_millis(100);
/// A thread that waits looks so often whether the limit is still the same.
const LOOK: Duration = Duration::from_millis(20);
const SECOND_NS: u64 = 1_000_000_000;

/// The limits of a worker's VM.
pub(super) struct Limits {
    page: Arc<WorkerPage>,
    /// Where the guest is told how many frames may wait, and what it was told last.
    session: SessionPageMemory,
    told_depth: AtomicU64,
}

impl Limits {
    pub(super) fn new(page: Arc<WorkerPage>, session: SessionPageMemory) -> Self {
        let limits = Self { page, session, told_depth: AtomicU64::new(0) };
        limits.tell_depth();
        limits
    }

    /// Waits until a call may be carried out, or `give_up` says so: then it counts all the same, and others wait for it. Where there is
    /// something to wait for, `before` is called first.
    #[inline]
    pub(super) fn wait(&self, give_up: impl Fn() -> bool, before: impl FnOnce()) {
        if let Some(rate) = self.page.calls_per_second() {
            self.wait_at(rate, give_up, before);
        }
    }

    /// Frames may wait in a ring only so many at a time: the guest counts them, and is told of each that has been taken.
    #[inline]
    pub(super) fn counts_frames(&self) -> bool {
        if self.page.queue_depth().unwrap_or(0) != self.told_depth.load(Ordering::Relaxed) {
            self.tell_depth();
        }
        self.told_depth.load(Ordering::Relaxed) != 0
    }

    #[cold]
    fn tell_depth(&self) {
        let depth = self.page.queue_depth().unwrap_or(0);
        self.told_depth.store(depth, Ordering::Relaxed);
        self.session.set_queue_depth(depth);
    }

    #[cold]
    fn wait_at(&self, rate: u64, give_up: impl Fn() -> bool, before: impl FnOnce()) {
        let due = claim(self.page.next_call_ns(), rate, now_ns());
        let left = || Some(due.saturating_sub(now_ns())).filter(|left| *left != 0).map(Duration::from_nanos);
        if left().is_none() {
            return;
        }
        before();
        while let Some(left) = left() {
            // Under another limit the time that was claimed means nothing.
            if give_up() || self.page.calls_per_second() != Some(rate) {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Takes the next call's time: when it may come.
fn claim(next: &AtomicU64, rate: u64, now: u64) -> u64 {
    let interval = SECOND_NS.checked_div(rate).unwrap_or(0);
    let burst = u64::try_from(BURST.as_nanos()).unwrap_or(0);
    let mut seen = next.load(Ordering::Relaxed);
    loop {
        let start = seen.max(now);
        match next.compare_exchange_weak(
            seen,
            start.saturating_add(interval),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => return start.saturating_sub(burst),
            Err(other) => seen = other,
        }
    }
}

/// The host's monotonic clock, which all workers of a VM read alike.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(SECOND_NS).saturating_add(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 5 * SECOND_NS;

    #[test]
    fn calls_come_as_fast_as_they_may_on_average() {
        let next = AtomicU64::new(0);
        // At a thousand a second the first hundred and one are free: those of the burst, and the one that is due.
        let free = (0..500).filter(|_| claim(&next, 1000, START) <= START).count();
        assert_eq!(free, 101);
        // The 501st is due half a second after the first.
        assert_eq!(claim(&next, 1000, START), START + 400_000_000);
        // Once they had their time there is a burst again, and no more than one.
        let later = START + 3600 * SECOND_NS;
        let free = (0..500).filter(|_| claim(&next, 1000, later) <= later).count();
        assert_eq!(free, 101);
    }

    #[test]
    fn slow_limits_and_absurd_ones() {
        let next = AtomicU64::new(0);
        assert!(claim(&next, 1, START) <= START);
        assert_eq!(claim(&next, 1, START), START + SECOND_NS - 100_000_000);
        let next = AtomicU64::new(u64::MAX - 5);
        assert_eq!(claim(&next, 1, START), u64::MAX - 5 - 100_000_000);
        let next = AtomicU64::new(0);
        assert!(
            (0..1000).all(|_| claim(&next, u64::MAX, START) <= START),
            "more than the clock can tell apart"
        );
    }
}
