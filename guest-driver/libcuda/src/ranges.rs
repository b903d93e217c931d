//! What addresses are: the process's device allocations, module variables and pinned host memory, by range. It answers
//! pointer queries without a round trip, and proves a call's ranges before the call is posted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cuda_api::access::DeviceAccess;
use cuda_api::host::Access;
use cuda_api::{CUresult, CuResult};

/// What a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// cuMemAlloc.
    Device,
    /// A variable of a module or library: lives and dies with it.
    Variable,
    /// Memory of another process, opened here.
    Imported,
    /// Pinned host memory that the driver allocated, with its flags.
    HostAlloc(u32),
    /// Pinned host memory of the application's, with its flags.
    HostRegistered(u32),
    /// cuMemAllocManaged, with its flags: host memory, pinned like it.
    Managed(u32),
    /// A managed variable of a module or library: it lives and dies with it. Memory of this process, with the worker's beside it.
    ManagedVariable,
    /// Physical memory that is mapped at reserved addresses (its handle is the owner), with who may access it, by the guest's
    /// ordinals.
    Mapped(DeviceAccess),
    /// cuMemAllocAsync, from a pool (the owner).
    Pooled,
    /// cuMemAllocAsync in a capture: it belongs to a graph, and comes and goes with the graph's launches.
    Graph,
}

impl RangeKind {
    /// The application can read and write it with the CPU.
    pub fn is_host(self) -> bool {
        matches!(self, RangeKind::HostAlloc(_) | RangeKind::HostRegistered(_)) || self.is_managed()
    }

    /// Managed memory: allocated, or a variable.
    pub fn is_managed(self) -> bool {
        matches!(self, RangeKind::Managed(_) | RangeKind::ManagedVariable)
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

    fn allows(&self, access: Access) -> bool {
        match (self.kind, access) {
            (RangeKind::Mapped(by), access) => by.allows_any(access),
            (_, Access::Read) => true,
            (_, Access::Write) => !self.read_only,
        }
    }
}

/// The ranges of a process.
#[derive(Default)]
pub struct Ranges {
    map: RwLock<BTreeMap<u64, Range>>,
    next_id: AtomicU64,
    /// Grows whenever a range goes: what a thread remembers is good for one epoch.
    epoch: AtomicU64,
    /// CU_POINTER_ATTRIBUTE_SYNC_MEMOPS where a program has set it, by the range's id.
    sync_memops: RwLock<BTreeMap<u64, bool>>,
    /// A program has set it somewhere: almost none does.
    sync_asked: AtomicBool,
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

    /// Adds a range of the driver's stream-ordered allocator. What a graph had there is gone: the driver gives no address twice.
    pub fn insert_pooled(&self, mut range: Range) {
        range.id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let end = range.start.saturating_add(range.len);
        let mut map = self.map.write().unwrap_or_else(|e| e.into_inner());
        let stale: Vec<u64> = map
            .range(..end)
            .rev()
            .take_while(|(_, r)| r.start.saturating_add(r.len) > range.start)
            .filter(|(_, r)| r.kind == RangeKind::Graph)
            .map(|(start, _)| *start)
            .collect();
        for start in stale {
            map.remove(&start);
        }
        map.insert(range.start, range);
        drop(map);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// How a device may access the mappings in a range, from now on.
    pub fn set_access(&self, start: u64, len: u64, device: i32, flags: i32) {
        let mut map = self.map.write().unwrap_or_else(|e| e.into_inner());
        for (_, range) in map.range_mut(start..start.saturating_add(len)) {
            if let RangeKind::Mapped(by) = range.kind {
                range.kind = RangeKind::Mapped(by.with(device, flags));
            }
        }
        drop(map);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes away the mappings in a range.
    pub fn remove_mapped(&self, start: u64, len: u64) -> Vec<Range> {
        let end = start.saturating_add(len);
        self.remove_where(|r| matches!(r.kind, RangeKind::Mapped(_)) && r.start >= start && r.start < end)
    }

    /// Sets CU_POINTER_ATTRIBUTE_SYNC_MEMOPS of a range.
    pub fn set_sync_memops(&self, id: u64, on: bool) {
        self.sync_memops.write().unwrap_or_else(|e| e.into_inner()).insert(id, on);
        self.sync_asked.store(true, Ordering::Release);
    }

    /// CU_POINTER_ATTRIBUTE_SYNC_MEMOPS of a range, where a program has set it.
    pub fn sync_memops(&self, id: u64) -> Option<bool> {
        self.sync_memops.read().unwrap_or_else(|e| e.into_inner()).get(&id).copied()
    }

    /// As [`Ranges::check`]. True: a synchronous operation on it waits, because it is host memory or a program asked for that.
    ///
    /// # Errors
    /// As for that.
    pub fn check_settling(&self, start: u64, len: u64, access: Access) -> CuResult<bool> {
        if self.check(start, len, access)? {
            return Ok(true);
        }
        if !self.sync_asked.load(Ordering::Acquire) {
            return Ok(false);
        }
        Ok(self.find(start).is_some_and(|r| self.sync_memops(r.id) == Some(true)))
    }

    /// An address is another device's, or in a mapping that was not given to this one: what it may do there is the driver's to
    /// judge.
    pub fn is_elsewhere(&self, address: u64, device: i32, access: Access) -> bool {
        self.find(address).is_some_and(|range| match range.kind {
            kind if kind.is_host() => false,
            RangeKind::Mapped(by) => range.device != device || !by.allows(device, access),
            _ => range.device != device,
        })
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

    /// The whole range lies in one, or in mappings that follow one another, and a call may access it so. True: it is host memory.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE.
    pub fn check(&self, start: u64, len: u64, access: Access) -> CuResult<bool> {
        if len == 0 {
            return Ok(false);
        }
        match self.find(start) {
            Some(r) if !r.allows(access) => Err(CUresult::INVALID_VALUE),
            Some(r) if r.holds(start, len) => Ok(r.kind.is_host()),
            Some(Range { kind: RangeKind::Mapped(_), .. }) => self.check_mappings(start, len, access),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    /// The range lies in mappings without a gap between them.
    #[cold]
    fn check_mappings(&self, start: u64, len: u64, access: Access) -> CuResult<bool> {
        let end = start.checked_add(len).ok_or(CUresult::INVALID_VALUE)?;
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let mut covered = start;
        let first = map.range(..=start).next_back().map_or(start, |(at, _)| *at);
        for (at, range) in map.range(first..end) {
            if *at > covered || !matches!(range.kind, RangeKind::Mapped(_)) || !range.allows(access) {
                return Err(CUresult::INVALID_VALUE);
            }
            covered = range.start + range.len;
        }
        if covered >= end { Ok(false) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// The range is covered by whole mappings.
    pub fn is_mapped(&self, start: u64, len: u64) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let mut covered = start;
        for (at, range) in map.range(start..end) {
            if *at != covered || !matches!(range.kind, RangeKind::Mapped(_)) {
                return false;
            }
            covered = range.start + range.len;
        }
        len != 0 && covered == end
    }

    /// A mapping lies partly in the range and partly outside.
    pub fn cuts_mapping(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        // Of those that begin inside only the last can reach out; of those before, only the last can reach in.
        let first =
            map.range(..start).next_back().is_some_and(|(_, r)| r.start.saturating_add(r.len) > start);
        first || map.range(start..end).next_back().is_some_and(|(_, r)| r.start.saturating_add(r.len) > end)
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
    fn mappings_that_follow_one_another_are_one_range() {
        let ranges = Ranges::default();
        for (start, flags) in [(0x1000, 3), (0x2000, 3), (0x3000, 1), (0x5000, 3)] {
            let by = DeviceAccess::NONE.with(0, flags);
            ranges.insert(Range { kind: RangeKind::Mapped(by), ..range(start, 0x1000) });
        }
        ranges.insert(range(0x6000, 0x1000));
        assert_eq!(ranges.check(0x1800, 0x1000, Access::Write), Ok(false));
        assert_eq!(ranges.check(0x1800, 0x2000, Access::Read), Ok(false));
        let bad = Err(CUresult::INVALID_VALUE);
        assert_eq!(ranges.check(0x1800, 0x2000, Access::Write), bad, "the last part may only be read");
        assert_eq!(ranges.check(0x3800, 0x2000, Access::Read), bad, "a gap");
        assert_eq!(ranges.check(0x5800, 0x1000, Access::Read), bad, "an allocation follows, not a mapping");
        assert!(ranges.is_mapped(0x1000, 0x3000));
        assert!(!ranges.is_mapped(0x1000, 0x800) && !ranges.is_mapped(0x3000, 0x3000));
        for (start, len, cut) in [
            (0x1000, 0x3000, false),
            (0x1000, 0x800, true),
            (0x1800, 0x800, true),
            (0x1800, 0x1000, true),
            (0x4000, 0x1000, false),
            (0x2000, 0x4000, false),
        ] {
            assert_eq!(ranges.cuts_mapping(start, len), cut, "{start:#x}+{len:#x}");
        }
        ranges.set_access(0x1000, 0x2000, 0, 0);
        assert_eq!(ranges.check(0x1000, 1, Access::Read), bad);
        assert_eq!(ranges.remove_mapped(0x1000, 0x2000).len(), 2);
        assert_eq!(ranges.check(0x3000, 0x1000, Access::Read), Ok(false));
    }

    #[test]
    fn a_device_s_access_is_its_own() {
        let ranges = Ranges::default();
        ranges.insert(Range { kind: RangeKind::Mapped(DeviceAccess::NONE), ..range(0x1000, 0x1000) });
        ranges.set_access(0x1000, 0x1000, 1, 3);
        assert_eq!(ranges.check(0x1000, 8, Access::Write), Ok(false));
        assert!(ranges.is_elsewhere(0x1000, 0, Access::Read), "device 0 has its memory, and was given none");
        ranges.set_access(0x1000, 0x1000, 0, 1);
        assert!(
            !ranges.is_elsewhere(0x1000, 0, Access::Read) && ranges.is_elsewhere(0x1000, 0, Access::Write)
        );
        ranges.set_access(0x1000, 0x1000, 1, 0);
        assert_eq!(ranges.check(0x1000, 8, Access::Read), Ok(false), "device 0's access stays");
        ranges.insert(range(0x4000, 0x1000));
        ranges.insert(Range { kind: RangeKind::HostAlloc(0), ..range(0x6000, 0x1000) });
        assert!(
            ranges.is_elsewhere(0x4000, 1, Access::Read) && !ranges.is_elsewhere(0x4000, 0, Access::Read)
        );
        assert!(!ranges.is_elsewhere(0x6000, 1, Access::Read), "host memory is nobody's");
    }

    #[test]
    fn an_address_that_the_driver_gives_anew_is_no_longer_a_graph_s() {
        let ranges = Ranges::default();
        ranges.insert_pooled(Range { kind: RangeKind::Graph, ..range(0x1000, 0x1000) });
        ranges.insert_pooled(Range { kind: RangeKind::Graph, ..range(0x2000, 0x1000) });
        assert!(ranges.find(0x1800).is_some());
        ranges.insert_pooled(Range { kind: RangeKind::Pooled, ..range(0x1800, 0x200) });
        assert_eq!(ranges.find(0x1000).map(|r| r.start), None);
        assert_eq!(ranges.find(0x1900).map(|r| r.kind), Some(RangeKind::Pooled));
        assert_eq!(ranges.find(0x2000).map(|r| r.kind), Some(RangeKind::Graph));
    }

    #[test]
    fn a_program_can_ask_for_synchronous_operations() {
        let ranges = Ranges::default();
        let id = ranges.insert(range(0x1000, 0x100));
        assert_eq!(ranges.check_settling(0x1000, 8, Access::Write), Ok(false));
        ranges.set_sync_memops(id, true);
        assert_eq!(ranges.check_settling(0x1000, 8, Access::Write), Ok(true));
        ranges.set_sync_memops(id, false);
        assert_eq!(
            (ranges.check_settling(0x1000, 8, Access::Write), ranges.sync_memops(id)),
            (Ok(false), Some(false))
        );
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
