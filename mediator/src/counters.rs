//! The counter page: a file that the supervisor makes, a worker writes and both map. Each ring counts in a line of its
//! own, so that counting costs its thread no shared cache line.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cuda_api::info::DEVICES_MAX;
use cuda_api::work::{Direction, Work};
use pci_layout::ring::RINGS_MAX;

use crate::GateWaits;
use crate::atomics::{self, Atomics};

/// What one ring's thread has done. Written by that thread alone.
#[repr(C, align(64))]
pub(crate) struct RingCounters {
    /// By [`Work`].
    calls: [AtomicU64; WORKS],
    /// Bytes, by [`Direction`].
    copied: [AtomicU64; DIRECTIONS],
    pub(crate) replies: AtomicU64,
    /// Calls that failed and whose answer was waited for.
    pub(crate) errors: AtomicU64,
    pub(crate) posted_errors: AtomicU64,
    pub(crate) order_waits: AtomicU64,
    pub(crate) overtakes: AtomicU64,
    pub(crate) parks: AtomicU64,
    pub(crate) wakes: AtomicU64,
}

/// Kinds of calls that are counted.
const WORKS: usize = Work::ALL.len();
/// Directions of copies that are counted.
const DIRECTIONS: usize = Direction::ALL.len();

impl RingCounters {
    /// A call of this kind was carried out, which copied so much.
    pub(crate) fn count_call(&self, work: Work, copied: Option<(Direction, u64)>) {
        if let Some(calls) = self.calls.get(work as usize) {
            count(calls);
        }
        if let Some((direction, bytes)) = copied
            && let Some(copied) = self.copied.get(direction as usize)
        {
            copied.store(copied.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        }
    }

    fn calls(&self) -> u64 {
        self.calls.iter().fold(0, |sum, calls| sum.wrapping_add(calls.load(Ordering::Relaxed)))
    }
}

#[repr(C, align(4096))]
struct Layout {
    rings: [RingCounters; RINGS_MAX as usize],
    bytes_staged: AtomicU64,
    /// The CUresult that every call of the session answers since a kernel of it has faulted, or 0.
    sticky: AtomicU32,
    /// Device memory that the session has, by device.
    device_bytes: [AtomicU64; DEVICES_MAX],
}

/// Adds one, by the only writer of `counter`.
pub(crate) fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

// SAFETY: atomics only, aligned as a page is.
unsafe impl atomics::Layout for Layout {
    const NAME: &'static str = "vgpu-counters";
}

/// A mapped counter page.
pub(crate) struct CounterPage(Atomics<Layout>);

impl CounterPage {
    /// A new page and its file.
    pub(crate) fn create() -> std::io::Result<(Self, OwnedFd)> {
        let (page, file) = Atomics::create()?;
        Ok((Self(page), file))
    }

    /// Maps the page that [`CounterPage::create`] made.
    pub(crate) fn map(file: impl AsFd) -> std::io::Result<Self> {
        Ok(Self(Atomics::map(file)?))
    }

    pub(crate) fn ring(&self, ring: u32) -> Option<&RingCounters> {
        self.0.rings.get(ring as usize)
    }

    /// Says that the device has failed the session, and with which CUresult.
    pub(crate) fn set_sticky(&self, result: u32) {
        self.0.sticky.store(result, Ordering::Relaxed);
    }

    /// What was said, or 0.
    pub(crate) fn sticky(&self) -> u32 {
        self.0.sticky.load(Ordering::Relaxed)
    }

    /// Says how much memory the session has on a device. Several threads may; the last one's word counts.
    pub(crate) fn set_device_bytes(&self, device: usize, bytes: u64) {
        if let Some(told) = self.0.device_bytes.get(device) {
            told.store(bytes, Ordering::Relaxed);
        }
    }

    /// What was said last of the first `devices`.
    pub(crate) fn device_bytes(&self, devices: usize) -> Vec<u64> {
        self.0.device_bytes.iter().take(devices).map(|bytes| bytes.load(Ordering::Relaxed)).collect()
    }

    /// Calls carried out, in all rings.
    pub(crate) fn calls(&self) -> u64 {
        self.0.rings.iter().fold(0, |sum, ring| sum.wrapping_add(ring.calls()))
    }

    pub(crate) fn add_to(&self, totals: &mut Totals) {
        let layout = &*self.0;
        let add = |to: &mut u64, from: &AtomicU64| *to = to.wrapping_add(from.load(Ordering::Relaxed));
        for ring in &layout.rings {
            totals.calls = totals.calls.wrapping_add(ring.calls());
            totals.by_work.iter_mut().zip(&ring.calls).for_each(|(to, from)| add(to, from));
            totals.copied.iter_mut().zip(&ring.copied).for_each(|(to, from)| add(to, from));
            add(&mut totals.replies, &ring.replies);
            add(&mut totals.errors, &ring.errors);
            add(&mut totals.posted_errors, &ring.posted_errors);
            add(&mut totals.order_waits, &ring.order_waits);
            add(&mut totals.overtakes, &ring.overtakes);
            add(&mut totals.parks, &ring.parks);
            add(&mut totals.wakes, &ring.wakes);
        }
        add(&mut totals.bytes_staged, &layout.bytes_staged);
    }
}

/// Where a handler counts the bytes it moved through staging buffers.
#[derive(Clone)]
pub struct StagedBytes {
    page: Arc<CounterPage>,
}

impl StagedBytes {
    pub(crate) fn new(page: Arc<CounterPage>) -> Self {
        Self { page }
    }

    /// `bytes` more were moved.
    pub fn add(&self, bytes: u64) {
        self.page.0.bytes_staged.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a VM's sessions have done so far, those that are over included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Session slots taken now.
    pub sessions_open: u64,
    /// Sessions that came to serve.
    pub sessions_opened: u64,
    /// Sessions closed by the guest or by a reset.
    pub sessions_closed: u64,
    /// Sessions that died by themselves.
    pub sessions_died: u64,
    /// Sessions that have faulted: their device has failed them, or their worker.
    pub sessions_faulted: u64,
    /// Calls carried out.
    pub calls: u64,
    /// The same by kind, in the order of [`Work::ALL`].
    pub by_work: [u64; WORKS],
    /// Bytes copied, in the order of [`Direction::ALL`].
    pub copied: [u64; DIRECTIONS],
    /// Replies written.
    pub replies: u64,
    /// Calls that failed and whose answer somebody waited for. "Not ready" is no failure.
    pub errors: u64,
    /// Posted calls that failed.
    pub posted_errors: u64,
    /// Calls that had to wait for an earlier posted call of another thread.
    pub order_waits: u64,
    /// Calls that went ahead of such a call with the handler's consent.
    pub overtakes: u64,
    /// Times a ring's host thread went to sleep.
    pub parks: u64,
    /// Guest threads woken.
    pub wakes: u64,
    /// Kicks that came through [`crate::Vm::kick`].
    pub kicks: u64,
    /// Bytes moved through staging buffers.
    pub bytes_staged: u64,
    /// How long devices have had unfinished work, those of several sessions and devices added up.
    pub gpu_time: Duration,
    /// How long calls have waited for a turn on a device that other VMs wanted as well.
    pub turn_waits: GateWaits,
}
