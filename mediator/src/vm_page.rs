//! The VM page: what all workers of a VM share with their supervisor. It has the VM's account of device memory, and the limits that
//! workers keep to.
//!
//! The account has no word for the sum. Each worker has a slot with what it holds, by device; a worker that takes bytes adds them to its
//! slot, then sums all slots up, and takes them away again if that is more than the quota. Of two that do so at once, at least one sees
//! the other's bytes: together they never pass. When a worker was reaped its slot is emptied, wherever it was in doing this: nothing is
//! lost of the quota, and nothing comes back twice.
//!
//! Every worker can write all of the page. One that was taken over can spoil its own VM's account, and no other's.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cuda_api::account::Account;
use cuda_api::info::DEVICES_MAX;
use rustix::time::{ClockId, clock_gettime};

use crate::Settings;
use crate::atomics::{self, Atomics};

/// Workers of a VM at once, those included that wait for a session.
pub(crate) const SLOTS: usize = 1024;
/// Lines that all workers of a VM log in a second, those for debugging not counted.
const LOG_LINES: u64 = 100;
/// How often a worker tries to take bytes while others do.
const TRIES: u32 = 4;
/// Between two tries it waits so long, more where its slot's number is higher: two that were in each other's way are so once.
const PAUSE: Duration = Duration::from_micros(20);

#[repr(C, align(4096))]
struct Layout {
    /// Bytes that the VM may have, by device; 0: as much as there is.
    quota: [AtomicU64; DEVICES_MAX],
    /// The devices' UUIDs, in two halves: a worker may have them in another order.
    uuids: [[AtomicU64; 2]; DEVICES_MAX],
    /// Slots that were ever in use: what comes after them holds nothing.
    slots: AtomicU64,
    /// Calls a second; 0: no limit.
    calls_per_second: AtomicU64,
    /// When the next call is due, on the host's monotonic clock.
    next_call_ns: AtomicU64,
    /// Frames that wait in a ring; 0: as many as fit.
    queue_depth: AtomicU64,
    /// How long a kernel may run; 0: for ever.
    kernel_timeout_ns: AtomicU64,
    /// The second in which workers have logged last, how many lines by then, and how many were held back since the last that passed.
    log_second: AtomicU64,
    log_lines: AtomicU64,
    log_held: AtomicU64,
    /// What each slot's worker holds, by device.
    held: [[AtomicU64; SLOTS]; DEVICES_MAX],
}

// SAFETY: atomics only, aligned as a page is.
unsafe impl atomics::Layout for Layout {
    const NAME: &'static str = "vgpu-vm";
}

impl Layout {
    fn used(&self, device: usize) -> u64 {
        let slots = usize::try_from(self.slots.load(Ordering::SeqCst)).unwrap_or(SLOTS);
        let held = self.held.get(device).map_or(&[][..], |held| held.get(..slots).unwrap_or(held));
        held.iter().fold(0, |sum, held| sum.saturating_add(held.load(Ordering::SeqCst)))
    }

    fn quota(&self, device: usize) -> Option<u64> {
        self.quota.get(device).map(|quota| quota.load(Ordering::Relaxed)).filter(|quota| *quota != 0)
    }
}

/// The page as the supervisor has it.
pub(crate) struct VmPage {
    layout: Atomics<Layout>,
    file: OwnedFd,
    free: Mutex<BTreeSet<usize>>,
}

impl VmPage {
    /// A new page with the limits of these settings, and no quota yet.
    pub(crate) fn create(settings: &Settings) -> std::io::Result<Arc<Self>> {
        let (layout, file) = Atomics::create()?;
        let page = Self { layout, file, free: Mutex::new((0..SLOTS).collect()) };
        page.set_limits(settings);
        Ok(Arc::new(page))
    }

    /// For a worker.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Says which device is which.
    pub(crate) fn set_uuid(&self, device: usize, uuid: &[u8; 16]) {
        if let Some(words) = self.layout.uuids.get(device) {
            words.iter().zip(halves(uuid)).for_each(|(word, half)| word.store(half, Ordering::Relaxed));
        }
    }

    /// How much the VM may have on each device from now on. What it has already it keeps.
    pub(crate) fn set_quota(&self, quota: Option<u64>) {
        self.layout.quota.iter().for_each(|word| word.store(quota.unwrap_or(0), Ordering::Relaxed));
    }

    /// The limits from now on, without the quota.
    pub(crate) fn set_limits(&self, settings: &Settings) {
        let set = |word: &AtomicU64, value: Option<u32>| {
            word.store(u64::from(value.unwrap_or(0)), Ordering::Relaxed);
        };
        set(&self.layout.calls_per_second, settings.calls_per_second);
        // What was claimed under another limit is forgotten.
        self.layout.next_call_ns.store(0, Ordering::Relaxed);
        set(&self.layout.queue_depth, settings.queue_depth);
        let timeout =
            settings.kernel_timeout.map_or(0, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        self.layout.kernel_timeout_ns.store(timeout, Ordering::Relaxed);
    }

    /// What all workers hold on a device, in bytes.
    pub(crate) fn used(&self, device: usize) -> u64 {
        self.layout.used(device)
    }

    /// A slot for a worker that is about to be started. None: there are too many.
    pub(crate) fn slot(self: &Arc<Self>) -> Option<Slot> {
        let number = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop_first()?;
        self.layout.slots.fetch_max(number as u64 + 1, Ordering::SeqCst);
        Some(Slot { page: Arc::clone(self), number })
    }
}

fn halves(uuid: &[u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(*uuid);
    let half = |part: u128| u64::try_from(part & u128::from(u64::MAX)).unwrap_or(0);
    [half(all), half(all >> 64)]
}

/// A worker's place in the page. To be dropped when the worker was reaped: what it held is given back.
pub(crate) struct Slot {
    page: Arc<VmPage>,
    number: usize,
}

impl Slot {
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.number).unwrap_or(u32::MAX)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for held in self.page.layout.held.iter().filter_map(|held| held.get(self.number)) {
            held.store(0, Ordering::SeqCst);
        }
        self.page.free.lock().unwrap_or_else(PoisonError::into_inner).insert(self.number);
    }
}

/// The page as a worker has it.
pub(crate) struct WorkerPage {
    layout: Atomics<Layout>,
    slot: usize,
}

impl WorkerPage {
    /// Maps the file that [`VmPage::create`] made; `slot` is [`Slot::number`].
    pub(crate) fn map(file: impl AsFd, slot: u32) -> std::io::Result<Arc<Self>> {
        let slot = usize::try_from(slot).ok().filter(|slot| *slot < SLOTS);
        let slot = slot.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(Arc::new(Self { layout: Atomics::map(file)?, slot }))
    }

    /// Calls a second; None: no limit.
    pub(crate) fn calls_per_second(&self) -> Option<u64> {
        Some(self.layout.calls_per_second.load(Ordering::Relaxed)).filter(|calls| *calls != 0)
    }

    /// When the next call of the VM is due, in nanoseconds of the host's monotonic clock.
    pub(crate) fn next_call_ns(&self) -> &AtomicU64 {
        &self.layout.next_call_ns
    }

    /// Frames that may wait in a ring; None: as many as fit.
    pub(crate) fn queue_depth(&self) -> Option<u64> {
        Some(self.layout.queue_depth.load(Ordering::Relaxed)).filter(|depth| *depth != 0)
    }

    /// How long a kernel may run; None: for ever.
    pub(crate) fn kernel_timeout(&self) -> Option<Duration> {
        let limit = self.layout.kernel_timeout_ns.load(Ordering::Relaxed);
        (limit != 0).then(|| Duration::from_nanos(limit))
    }

    /// Whether a line may be logged now; `Some(n)` also says that `n` lines of the VM's workers were held back before it.
    pub(crate) fn pass_line(&self) -> Option<u64> {
        let second = u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0);
        // Two workers that find a new second at once may let some lines more pass.
        if self.layout.log_second.swap(second, Ordering::Relaxed) != second {
            self.layout.log_lines.store(0, Ordering::Relaxed);
        }
        if self.layout.log_lines.fetch_add(1, Ordering::Relaxed) < LOG_LINES {
            return Some(self.layout.log_held.swap(0, Ordering::Relaxed));
        }
        self.layout.log_held.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn mine(&self, device: usize) -> Option<&AtomicU64> {
        self.layout.held.get(device)?.get(self.slot)
    }
}

impl Account for WorkerPage {
    fn take(&self, device: usize, bytes: u64) -> bool {
        let Some(mine) = self.mine(device) else { return false };
        let add = |held: u64| held.checked_add(bytes);
        for attempt in 0..TRIES {
            if mine.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_err() {
                return false;
            }
            if self.layout.quota(device).is_none_or(|quota| self.layout.used(device) <= quota) {
                return true;
            }
            mine.fetch_sub(bytes, Ordering::SeqCst);
            // What was in the way may be somebody who tries in vain as well.
            let turn = u32::try_from(self.slot % 8).unwrap_or(0).saturating_add(1);
            std::thread::sleep(PAUSE.saturating_mul(turn).saturating_mul(attempt.saturating_add(1)));
        }
        false
    }

    fn add(&self, device: usize, bytes: u64) {
        if let Some(mine) = self.mine(device) {
            mine.fetch_add(bytes, Ordering::SeqCst);
        }
    }

    fn give_back(&self, device: usize, bytes: u64) {
        if let Some(mine) = self.mine(device) {
            // Another worker may have written anything here; it is no reason to have a huge number.
            let _ = mine
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |held| Some(held.saturating_sub(bytes)));
        }
    }

    fn held(&self, device: usize) -> u64 {
        self.mine(device).map_or(0, |held| held.load(Ordering::SeqCst))
    }

    fn used(&self, device: usize) -> u64 {
        self.layout.used(device)
    }

    fn quota(&self, device: usize) -> Option<u64> {
        self.layout.quota(device)
    }

    fn device_of(&self, uuid: &[u8; 16]) -> Option<usize> {
        if uuid.iter().all(|byte| *byte == 0) {
            return None;
        }
        let wanted = halves(uuid);
        self.layout.uuids.iter().position(|words| {
            words.iter().zip(wanted).all(|(word, half)| word.load(Ordering::Relaxed) == half)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(quota: u64) -> Arc<VmPage> {
        let page = VmPage::create(&Settings::default()).expect("a page");
        page.set_quota(Some(quota));
        page
    }

    fn worker(page: &Arc<VmPage>) -> (Slot, Arc<WorkerPage>) {
        let slot = page.slot().expect("a slot");
        let worker = WorkerPage::map(page.file(), slot.number()).expect("mapped");
        (slot, worker)
    }

    #[test]
    fn two_workers_share_one_quota_and_see_the_same() {
        let page = page(100);
        let ((_one, a), (_two, b)) = (worker(&page), worker(&page));
        assert!(a.take(0, 60) && !b.take(0, 41) && b.take(0, 40) && !a.take(0, 1));
        assert!(b.take(1, 100), "each device has its own");
        assert_eq!((a.left(0), b.left(0), page.used(0)), (Some(0), Some(0), 100));
        a.give_back(0, 10);
        assert!(b.take(0, 10) && !b.take(0, 1));
        assert_eq!((a.held(0), b.held(0)), (50, 50));
        assert!(!a.take(0, u64::MAX));
    }

    #[test]
    fn what_a_dead_worker_held_comes_back_once() {
        let page = page(100);
        let ((one, a), (_two, b)) = (worker(&page), worker(&page));
        assert!(a.take(0, 70) && b.take(0, 30));
        let number = one.number();
        drop(one);
        assert_eq!(page.used(0), 30);
        let (next, c) = worker(&page);
        assert_eq!((next.number(), c.held(0)), (number, 0));
        assert!(c.take(0, 70) && !b.take(0, 1));
    }

    #[test]
    fn a_new_quota_counts_for_new_allocations() {
        let page = page(100);
        let (_slot, a) = worker(&page);
        assert!(a.take(0, 80));
        page.set_quota(Some(50));
        assert!(!a.take(0, 1));
        assert_eq!((a.left(0), a.held(0)), (Some(0), 80));
        page.set_quota(None);
        assert!(a.take(0, 1 << 40));
        assert_eq!(a.left(0), None);
    }

    #[test]
    fn together_they_never_pass_the_quota() {
        const QUOTA: u64 = 1000;
        let page = page(QUOTA);
        let workers: Vec<_> = (0..4).map(|_| worker(&page)).collect();
        std::thread::scope(|scope| {
            for (_, worker) in &workers {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if worker.take(0, 300) {
                            // Takers in vain are counted for a moment; those who have taken are not more than fit.
                            assert!(worker.held(0) == 300);
                            std::thread::yield_now();
                            worker.give_back(0, 300);
                        }
                    }
                });
            }
        });
        assert_eq!(page.used(0), 0);
        let taken = workers.iter().filter(|(_, worker)| worker.take(0, 300)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn lines_of_all_workers_are_counted_together() {
        let page = page(1);
        let workers = [worker(&page), worker(&page)];
        let second = || clock_gettime(ClockId::Monotonic).tv_sec;
        let (begin, mut passed) = (second(), 0);
        for round in 0..2000 {
            passed += u64::from(workers[round % 2].1.pass_line().is_some());
        }
        let seconds = u64::try_from(second() - begin).expect("forward") + 1;
        assert!((LOG_LINES..=seconds * LOG_LINES).contains(&passed), "{passed} in {seconds} s");
    }

    #[test]
    fn a_device_is_known_by_its_uuid() {
        let page = page(1);
        page.set_uuid(0, b"0123456789abcdef");
        page.set_uuid(1, b"fedcba9876543210");
        let (_slot, worker) = worker(&page);
        assert_eq!(worker.device_of(b"fedcba9876543210"), Some(1));
        assert_eq!(worker.device_of(b"0123456789abcdeX"), None);
    }
}
