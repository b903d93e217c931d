//! What addresses are: the process's device allocations, module variables and pinned host memory, by range. It answers
//! pointer queries without a round trip, and proves a call's ranges before the call is posted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cuda_api::host::Access;
use cuda_api::{CUresult, CuResult};

/// What a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// cuMemAlloc.
    Device,
    /// A variable of a module or library: lives and dies with it.
    Variable,
    /// Pinned host memory that the driver allocated, with its flags.
    HostAlloc(u32),
    /// Pinned host memory of the application's, with its flags.
    HostRegistered(u32),
    /// Reserved addresses without memory.
    Reserved,
}

impl RangeKind {
    /// The application can read and write it with the CPU.
    pub fn is_host(self) -> bool {
        matches!(self, RangeKind::HostAlloc(_) | RangeKind::HostRegistered(_))
    }
}

/// A range and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: RangeKind,
    /// The context that it belongs to.
    pub context: u64,
    /// The device's ordinal.
    pub device: i32,
    /// A number that no other range of the process ever had (CU_POINTER_ATTRIBUTE_BUFFER_ID).
    pub id: u64,
    /// The worker may only read it.
    pub read_only: bool,
    /// What owns it, where it goes with something else: a module's or library's handle.
    pub owner: u64,
}

impl Range {
    fn holds(&self, start: u64, len: u64) -> bool {
        start.checked_sub(self.start).and_then(|o| o.checked_add(len)).is_some_and(|end| end <= self.len)
    }
}

/// The ranges of a process.
#[derive(Default)]
pub struct Ranges {
    map: RwLock<BTreeMap<u64, Range>>,
    next_id: AtomicU64,
    /// Grows whenever a range goes: what a thread remembers is good for one epoch.
    epoch: AtomicU64,
}

thread_local! {
    /// The range that this thread asked for last, and the epoch it is good for.
    static LAST: Cell<Option<(u64, Range)>> = const { Cell::new(None) };
}

impl Ranges {
    /// Adds a range; its id comes back.
    pub fn insert(&self, mut range: Range) -> u64 {
        range.id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let id = range.id;
        self.map.write().unwrap_or_else(|e| e.into_inner()).insert(range.start, range);
        id
    }

    /// Puts a range back that was taken away, with the id it had.
    pub fn restore(&self, range: Range) {
        self.map.write().unwrap_or_else(|e| e.into_inner()).insert(range.start, range);
    }

    /// Takes away the range that starts here.
    pub fn remove(&self, start: u64) -> Option<Range> {
        let range = self.map.write().unwrap_or_else(|e| e.into_inner()).remove(&start);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        range
    }

    /// Takes away every range that fits.
    pub fn remove_where(&self, mut fits: impl FnMut(&Range) -> bool) -> Vec<Range> {
        let mut gone = Vec::new();
        self.map.write().unwrap_or_else(|e| e.into_inner()).retain(|_, range| {
            let keep = !fits(range);
            if !keep {
                gone.push(*range);
            }
            keep
        });
        self.epoch.fetch_add(1, Ordering::AcqRel);
        gone
    }

    /// The range that an address lies in.
    pub fn find(&self, address: u64) -> Option<Range> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if let Some((seen, range)) = LAST.get()
            && seen == epoch
            && range.holds(address, 1)
        {
            return Some(range);
        }
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let range = *map.range(..=address).next_back()?.1;
        if !range.holds(address, 1) {
            return None;
        }
        LAST.set(Some((epoch, range)));
        Some(range)
    }

    /// The whole range lies in one that a call may access so. True: it is host memory.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE.
    pub fn check(&self, start: u64, len: u64, access: Access) -> CuResult<bool> {
        if len == 0 {
            return Ok(false);
        }
        match self.find(start) {
            Some(r)
                if r.holds(start, len)
                    && r.kind != RangeKind::Reserved
                    && !(r.read_only && access == Access::Write) =>
            {
                Ok(r.kind.is_host())
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// Whether any range overlaps this one.
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let end = start.saturating_add(len);
        map.range(..end).next_back().is_some_and(|(_, r)| r.start.saturating_add(r.len) > start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> Range {
        Range {
            start,
            len,
            kind: RangeKind::Device,
            context: 1,
            device: 0,
            id: 0,
            read_only: false,
            owner: 0,
        }
    }

    #[test]
    fn the_full_extent_counts() {
        let ranges = Ranges::default();
        ranges.insert(range(0x1000, 0x100));
        ranges.insert(range(0x1100, 0x100));
        assert!(ranges.check(0x1000, 0x100, Access::Write).is_ok());
        assert!(ranges.check(0x10ff, 1, Access::Read).is_ok());
        for (start, len) in
            [(0x1000, 0x101), (0xfff, 1), (0x1200, 1), (0x10f0, 0x20), (u64::MAX, 2), (0x1001, u64::MAX)]
        {
            assert_eq!(
                ranges.check(start, len, Access::Read),
                Err(CUresult::INVALID_VALUE),
                "{start:#x}+{len:#x}"
            );
        }
    }

    #[test]
    fn what_a_thread_remembers_dies_with_the_range() {
        let ranges = Ranges::default();
        ranges.insert(range(0x1000, 0x100));
        assert!(ranges.find(0x1010).is_some());
        ranges.remove(0x1000);
        assert!(ranges.find(0x1010).is_none());
    }

    #[test]
    fn a_range_comes_back_as_it_was() {
        let ranges = Ranges::default();
        let id = ranges.insert(range(0x1000, 0x100));
        let taken = ranges.remove(0x1000).unwrap();
        assert!(ranges.remove(0x1000).is_none());
        ranges.restore(taken);
        assert_eq!(ranges.find(0x1080).map(|r| r.id), Some(id));
    }

    #[test]
    fn host_memory_is_told_apart() {
        let ranges = Ranges::default();
        ranges.insert(range(0x1000, 0x100));
        ranges.insert(Range { kind: RangeKind::HostAlloc(0), ..range(0x2000, 0x100) });
        assert_eq!(ranges.check(0x1000, 8, Access::Write), Ok(false));
        assert_eq!(ranges.check(0x2000, 8, Access::Write), Ok(true));
        assert_eq!(ranges.check(0x5000, 0, Access::Write), Ok(false), "no bytes lie nowhere");
    }

    #[test]
    fn overlap() {
        let ranges = Ranges::default();
        ranges.insert(range(0x1000, 0x100));
        assert!(ranges.overlaps(0x10ff, 1));
        assert!(ranges.overlaps(0xfff, 2));
        assert!(!ranges.overlaps(0x1100, 10));
        assert!(!ranges.overlaps(0xf00, 0x100));
    }
}
