//! The page through which a daemon and one of its workers speak of turns: the daemon opens and closes gates, the worker says whether it
//! has or wants work, and when all that it had is over. One page for each worker.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cuda_api::info::DEVICES_MAX;
use rustix::thread::futex;

use crate::GateWaits;
use crate::atomics::{self, Atomics};

/// What a worker's gate to a device says.
pub(crate) mod gate {
    /// Nobody else wants the device: work passes and is not counted.
    pub(crate) const FREE: u32 = 0;
    /// It is this VM's turn: work passes as long as little enough is unfinished.
    pub(crate) const OPEN: u32 = 1;
    /// It is another VM's turn: work waits.
    pub(crate) const CLOSED: u32 = 2;
}

/// Buckets of waiting times, by the logarithm of microseconds: the last holds what takes 8 s or longer.
pub(crate) const WAIT_BUCKETS: usize = 24;

/// One device, as one worker uses it.
#[repr(C, align(64))]
pub(crate) struct DeviceTurn {
    /// One of [`gate`], written by the daemon.
    pub(crate) gate: AtomicU32,
    /// Counts the gate's changes; written by the daemon, before the gate.
    pub(crate) turn: AtomicU32,
    /// 1: the worker has or wants work there.
    pub(crate) active: AtomicU32,
    /// The turn in which the gate was closed and all the worker's work had come to its end.
    pub(crate) drained: AtomicU32,
    /// In a turn, how much work the worker may have unfinished, in nanoseconds of the device; written by the daemon.
    pub(crate) unfinished_ns: AtomicU64,
    /// How long the device has had unfinished work of the worker's, in nanoseconds.
    pub(crate) busy_ns: AtomicU64,
    /// How long calls have waited for a turn, in nanoseconds.
    wait_ns: AtomicU64,
    /// How many have waited how long.
    waits: [AtomicU64; WAIT_BUCKETS],
}

impl DeviceTurn {
    /// A call has waited for its turn.
    pub(crate) fn count_wait(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let log = micros.checked_ilog2().and_then(|log| usize::try_from(log).ok()).unwrap_or(0);
        self.wait_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(bucket) = self.waits.get(log).or(self.waits.last()) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All of a worker's devices.
#[repr(C, align(4096))]
pub(crate) struct Layout {
    /// Changes whenever a thread of the worker that waits for something here should look again; a futex.
    signal: AtomicU32,
    devices: [DeviceTurn; DEVICES_MAX],
    /// Which devices these are, by their UUIDs: a session may see fewer of them, in another order.
    ids: [[AtomicU64; 2]; DEVICES_MAX],
}

// SAFETY: atomics only, aligned as a page is.
unsafe impl atomics::Layout for Layout {
    const NAME: &'static str = "vgpu-turns";
}

/// The mapped page.
pub(crate) type TurnPage = Atomics<Layout>;

impl Layout {
    pub(crate) fn device(&self, device: usize) -> Option<&DeviceTurn> {
        self.devices.get(device)
    }

    /// Says which device is which. By the daemon, before the worker serves.
    pub(crate) fn set_ids(&self, ids: &[[u8; 16]]) {
        for (words, id) in self.ids.iter().zip(ids) {
            for (word, part) in words.iter().zip(id.as_chunks::<8>().0) {
                word.store(u64::from_ne_bytes(*part), Ordering::Relaxed);
            }
        }
    }

    /// The place of the device with this UUID.
    pub(crate) fn place_of(&self, id: &[u8; 16]) -> Option<usize> {
        let parts = id.as_chunks::<8>().0;
        let is = |words: &[AtomicU64; 2]| {
            words
                .iter()
                .zip(parts)
                .all(|(word, part)| word.load(Ordering::Relaxed) == u64::from_ne_bytes(*part))
        };
        self.ids.iter().position(is)
    }

    /// What [`Layout::wait`] is told: read before the look that finds nothing.
    pub(crate) fn signal(&self) -> u32 {
        self.signal.load(Ordering::SeqCst)
    }

    /// Waits until somebody signals, at most so long. Comes back early now and then.
    pub(crate) fn wait(&self, seen: u32, limit: Option<Duration>) {
        let limit = limit.map(|limit| futex::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        // Whatever it answers, the caller looks again.
        let _ = futex::wait(&self.signal, futex::Flags::empty(), seen, limit.as_ref());
    }

    /// Has everybody who waits look again.
    pub(crate) fn wake(&self) {
        self.signal.fetch_add(1, Ordering::SeqCst);
        // Fails for nobody who waits.
        let _ = futex::wake(&self.signal, futex::Flags::empty(), u32::MAX >> 1);
    }

    /// Sets a device's gate and begins a new turn. By the daemon.
    pub(crate) fn set_gate(&self, device: usize, gate: u32, turn: u32) {
        if let Some(device) = self.devices.get(device) {
            device.turn.store(turn, Ordering::SeqCst);
            device.gate.store(gate, Ordering::SeqCst);
            self.wake();
        }
    }

    /// How long each device has had unfinished work.
    pub(crate) fn busy(&self, devices: usize) -> Vec<Duration> {
        let busy = |device: &DeviceTurn| Duration::from_nanos(device.busy_ns.load(Ordering::Relaxed));
        self.devices.iter().take(devices).map(busy).collect()
    }

    /// How long calls have waited for a turn.
    pub(crate) fn waits(&self) -> GateWaits {
        let (mut total, mut counts) = (0u64, [0u64; WAIT_BUCKETS]);
        for device in &self.devices {
            total = total.saturating_add(device.wait_ns.load(Ordering::Relaxed));
            for (count, bucket) in counts.iter_mut().zip(&device.waits) {
                *count = count.saturating_add(bucket.load(Ordering::Relaxed));
            }
        }
        GateWaits { total: Duration::from_nanos(total), counts }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)] // a test's
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_changes_wakes_who_waits() {
        let (daemons, file) = TurnPage::create().expect("a page");
        let workers = TurnPage::map(&file).expect("mapped");
        let waiting = std::thread::spawn(move || {
            loop {
                let seen = workers.signal();
                let device = workers.device(1).expect("a device");
                if device.gate.load(Ordering::SeqCst) == gate::CLOSED {
                    return device.turn.load(Ordering::SeqCst);
                }
                workers.wait(seen, None);
            }
        });
        daemons.set_gate(1, gate::CLOSED, 7);
        assert_eq!(waiting.join().expect("it ends"), 7);
    }

    #[test]
    fn waits_are_counted_by_their_length() {
        let (page, _file) = TurnPage::create().expect("a page");
        let device = page.device(0).expect("a device");
        for micros in [0, 1, 5, 7, u64::from(u32::MAX)] {
            device.count_wait(Duration::from_micros(micros));
        }
        let GateWaits { total, counts } = page.waits();
        assert_eq!(total, Duration::from_micros(13 + u64::from(u32::MAX)));
        assert_eq!((counts[0], counts[2], counts[WAIT_BUCKETS - 1]), (2, 2, 1));
    }
}
