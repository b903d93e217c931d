//! How long a session's calls take and its ring threads wait, where the VM is profiled. A worker adds up, in memory that the
//! supervisor has made, and the supervisor writes files of it (`profile/report.rs`): a worker can make none.
//!
//! The numbers are the worker's word. They go into files, and nothing is decided by them.

mod report;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::atomics::{self, Atomics};

pub(crate) use report::{Profiles, Subject};

/// Wire ids below this have a row (the table's are; a test sees to it).
const IDS: usize = 1 << 12;
/// Powers of two of nanoseconds: the last holds what takes 9 minutes or longer.
const BUCKETS: usize = 40;

/// Durations of one kind, added up by any thread.
#[repr(C)]
pub(crate) struct Times {
    count: AtomicU64,
    total_ns: AtomicU64,
    max_ns: AtomicU64,
    /// By the logarithm of the nanoseconds.
    buckets: [AtomicU64; BUCKETS],
}

impl Times {
    pub(crate) fn add(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let log = ns.checked_ilog2().and_then(|log| usize::try_from(log).ok()).unwrap_or(0);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
        if let Some(bucket) = self.buckets.get(log).or(self.buckets.last()) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Numbers {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Numbers {
            count: read(&self.count),
            total_ns: read(&self.total_ns),
            max_ns: read(&self.max_ns),
            buckets: self.buckets.iter().map(read).collect(),
        }
    }
}

/// One call of the table.
#[repr(C)]
struct Call {
    /// How often the guest waited for it.
    waited: AtomicU64,
    times: Times,
}

/// All that is measured of a session. 1.4 MB, of which most is memory only once it has been read.
#[repr(C)]
pub(crate) struct Layout {
    /// Looking at an empty ring, in vain or not.
    pub(crate) polls: Times,
    /// Sleeping, the ring being empty.
    pub(crate) parks: Times,
    /// Waiting for earlier calls of other rings.
    pub(crate) order_waits: Times,
    calls: [Call; IDS],
}

// SAFETY: atomics only, none of which needs more than 8 bytes' alignment.
unsafe impl atomics::Layout for Layout {
    const NAME: &'static str = "vgpu-profile";
}

/// The mapped numbers.
pub(crate) type Profile = Atomics<Layout>;

impl Layout {
    /// The call with wire id `call` was in the executor for so long.
    pub(crate) fn call(&self, call: u32, waits: bool, took: Duration) {
        if let Some(row) = self.calls.get(call as usize) {
            row.waited.fetch_add(u64::from(waits), Ordering::Relaxed);
            row.times.add(took);
        }
    }

    /// The calls that were made, by wire id: how many were waited for, and their times.
    fn calls(&self) -> impl Iterator<Item = (u32, u64, Numbers)> {
        (0..).zip(&self.calls).filter_map(|(id, row)| {
            let numbers = row.times.read();
            (numbers.count != 0).then(|| (id, row.waited.load(Ordering::Relaxed), numbers))
        })
    }
}

/// What [`Times`] has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Numbers {
    count: u64,
    total_ns: u64,
    max_ns: u64,
    buckets: Vec<u64>,
}

impl Numbers {
    fn mean_ns(&self) -> u64 {
        self.total_ns.checked_div(self.count).unwrap_or(0)
    }

    /// The buckets that are not empty: the least that such a time can be, and how many there were.
    fn histogram(&self) -> impl Iterator<Item = (u64, u64)> {
        (0u32..)
            .zip(&self.buckets)
            .filter(|(_, count)| **count != 0)
            .map(|(log, count)| (if log == 0 { 0 } else { 1u64 << log.min(63) }, *count))
    }

    /// A bound that so many of a hundred times do not exceed: the end of the bucket in which that is reached.
    fn percentile_ns(&self, percent: u64) -> u64 {
        let wanted = u128::from(self.count).saturating_mul(percent.into()).div_ceil(100);
        let mut seen = 0u128;
        for (from, count) in self.histogram() {
            seen = seen.saturating_add(count.into());
            if seen >= wanted {
                return from.max(1).saturating_mul(2).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)] // a test's
mod tests {
    use super::*;

    #[test]
    fn every_call_of_the_table_has_a_row() {
        assert!(cuda_api::all_calls().all(|call| (call.id as usize) < IDS));
    }

    #[test]
    fn times_are_added_up_on_both_sides_of_the_file() {
        let (supervisors, file) = Profile::create().expect("a file");
        let workers = Profile::map(&file).expect("mapped");
        for (call, waits, ns) in [(7, true, 1500), (7, false, 1700), (7, true, 40_000), (u32::MAX, true, 9)] {
            workers.call(call, waits, Duration::from_nanos(ns));
        }
        workers.call(9, false, Duration::MAX);
        workers.parks.add(Duration::ZERO);
        let calls: Vec<_> = supervisors.calls().collect();
        assert_eq!(calls.iter().map(|(id, waited, _)| (*id, *waited)).collect::<Vec<_>>(), [(7, 2), (9, 0)]);
        let (_, _, seven) = &calls[0];
        assert_eq!((seven.count, seven.total_ns, seven.max_ns), (3, 43_200, 40_000));
        assert_eq!(seven.histogram().collect::<Vec<_>>(), [(1024, 2), (32_768, 1)]);
        assert_eq!(
            (seven.mean_ns(), seven.percentile_ns(50), seven.percentile_ns(99)),
            (14_400, 2048, 40_000)
        );
        let (_, _, nine) = &calls[1];
        assert_eq!(nine.histogram().collect::<Vec<_>>(), [(1 << 39, 1)]);
        assert_eq!(supervisors.parks.read().histogram().collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!((supervisors.polls.read().mean_ns(), supervisors.polls.read().percentile_ns(99)), (0, 0));
    }
}
