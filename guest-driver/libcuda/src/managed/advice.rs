//! What was advised for the pages of a managed allocation: stretches of pages with the same advice.

use std::collections::BTreeSet;
use std::ops::Range;

use cuda_api::types::CUmemLocation;
use cuda_api::{CUresult, CuResult};

/// CU_MEM_LOCATION_TYPE_DEVICE, …_HOST, …_HOST_NUMA and …_HOST_NUMA_CURRENT.
pub const LOCATION_DEVICE: i32 = 1;
pub const LOCATION_HOST: i32 = 2;
pub const LOCATION_NUMA: i32 = 3;
pub const LOCATION_NUMA_CURRENT: i32 = 4;
/// CU_DEVICE_CPU and CU_DEVICE_INVALID.
pub const CPU: i32 = -1;
const INVALID: i32 = -2;

/// CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY: the one whose answer is a list.
pub const ACCESSED_BY: u32 = 3;

/// Something to remember.
#[derive(Debug, Clone, Copy)]
pub enum Advice {
    /// Mostly read, or no longer so.
    ReadMostly(bool),
    /// Where it would best lie, or nowhere.
    Preferred(Option<CUmemLocation>),
    /// A device's ordinal or [`CPU`]: it accesses the memory, or no longer.
    AccessedBy(i32, bool),
    /// It was to be moved here.
    Prefetched(CUmemLocation),
}

#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    read_mostly: bool,
    preferred: Option<CUmemLocation>,
    accessed_by: BTreeSet<i32>,
    prefetched: Option<CUmemLocation>,
}

/// The pages of an allocation.
#[derive(Debug)]
pub struct Pages {
    id: u64,
    /// Without gaps, in order.
    stretches: Vec<(Range<u64>, State)>,
}

/// The stretch as the old numbers say a location: a device, the processor, or nothing.
fn number(location: Option<CUmemLocation>) -> i32 {
    match location {
        Some(CUmemLocation { kind: LOCATION_DEVICE, id }) => id,
        Some(CUmemLocation { kind: LOCATION_HOST, .. }) => CPU,
        _ => INVALID,
    }
}

impl Pages {
    /// Pages for which nothing was advised. `id` tells the allocation from others at its address.
    pub fn new(id: u64, range: Range<u64>) -> Self {
        Pages { id, stretches: vec![(range, State::default())] }
    }

    /// The allocation's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A stretch begins at this page.
    fn split(&mut self, at: u64) {
        let inside = |r: &Range<u64>| r.start < at && at < r.end;
        if let Some(i) = self.stretches.iter().position(|(r, _)| inside(r)) {
            let (range, state) = self.stretches[i].clone();
            self.stretches[i].0 = range.start..at;
            self.stretches.insert(i + 1, (at..range.end, state));
        }
    }

    /// Remembers an advice for some pages.
    pub fn apply(&mut self, pages: Range<u64>, advice: Advice) {
        self.split(pages.start);
        self.split(pages.end);
        for (range, state) in &mut self.stretches {
            if range.start < pages.start || range.end > pages.end {
                continue;
            }
            match advice {
                Advice::ReadMostly(on) => state.read_mostly = on,
                Advice::Preferred(location) => state.preferred = location,
                Advice::AccessedBy(device, true) => {
                    state.accessed_by.insert(device);
                }
                Advice::AccessedBy(device, false) => {
                    state.accessed_by.remove(&device);
                }
                Advice::Prefetched(location) => state.prefetched = Some(location),
            }
        }
        // What is the same again is one stretch: a program that advises page after page does not grow this without end.
        self.stretches.dedup_by(|next, before| {
            let same = before.1 == next.1;
            if same {
                before.0.end = next.0.end;
            }
            same
        });
    }

    /// An attribute of some pages (CUmem_range_attribute), as `room` numbers.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE for an attribute that is none.
    pub fn tell(&self, pages: Range<u64>, attribute: u32, room: usize) -> CuResult<Vec<i32>> {
        let met: Vec<&State> = self
            .stretches
            .iter()
            .filter(|(r, _)| r.start < pages.end && pages.start < r.end)
            .map(|(_, state)| state)
            .collect();
        let all = |of: fn(&State) -> Option<CUmemLocation>| {
            let first = met.first().and_then(|state| of(state));
            first.filter(|_| met.iter().all(|state| of(state) == first))
        };
        let preferred = || all(|state| state.preferred);
        let prefetched = || all(|state| state.prefetched);
        let kind = |location: Option<CUmemLocation>| location.map_or(0, |l| l.kind);
        let id = |location: Option<CUmemLocation>| location.map_or(0, |l| l.id);
        Ok(match attribute {
            1 => vec![i32::from(met.iter().all(|state| state.read_mostly))],
            2 => vec![number(preferred())],
            ACCESSED_BY => {
                let mut everywhere = met.first().map(|state| state.accessed_by.clone()).unwrap_or_default();
                everywhere.retain(|device| met.iter().all(|state| state.accessed_by.contains(device)));
                // Devices first, then the processor.
                let mut list: Vec<i32> = everywhere.iter().copied().filter(|device| *device != CPU).collect();
                list.extend(everywhere.contains(&CPU).then_some(CPU));
                list.resize(room, INVALID);
                list
            }
            4 => vec![number(prefetched())],
            5 => vec![kind(preferred())],
            6 => vec![id(preferred())],
            7 => vec![kind(prefetched())],
            8 => vec![id(prefetched())],
            _ => return Err(CUresult::INVALID_VALUE),
        })
    }
}

/// The machine has such a NUMA node.
pub fn is_node(id: i32) -> bool {
    id == 0 || (id > 0 && std::path::Path::new(&format!("/sys/devices/system/node/node{id}")).exists())
}

/// The NUMA node of the processor that this thread runs on.
pub fn current_node() -> i32 {
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: two places for the answers; the third argument is not used since Linux 2.6.24.
    let told = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, 0) };
    if told == 0 { i32::try_from(node).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: CUmemLocation = CUmemLocation { kind: LOCATION_DEVICE, id: 0 };
    const HOST: CUmemLocation = CUmemLocation { kind: LOCATION_HOST, id: 0 };

    #[test]
    fn advice_holds_where_it_holds_for_all_pages() {
        let mut pages = Pages::new(1, 0x1000..0x9000);
        assert_eq!(pages.tell(0x1000..0x9000, 1, 1), Ok(vec![0]));
        assert_eq!(pages.tell(0x1000..0x9000, 2, 1), Ok(vec![INVALID]));
        pages.apply(0x2000..0x4000, Advice::ReadMostly(true));
        pages.apply(0x3000..0x5000, Advice::Preferred(Some(DEVICE)));
        assert_eq!(pages.tell(0x2000..0x4000, 1, 1), Ok(vec![1]));
        assert_eq!(pages.tell(0x2000..0x5000, 1, 1), Ok(vec![0]));
        assert_eq!(pages.tell(0x3000..0x5000, 2, 1), Ok(vec![0]));
        assert_eq!(pages.tell(0x3000..0x6000, 2, 1), Ok(vec![INVALID]));
        assert_eq!(pages.tell(0x3000..0x4000, 5, 1), Ok(vec![LOCATION_DEVICE]));
        pages.apply(0x1000..0x9000, Advice::Preferred(Some(HOST)));
        assert_eq!(pages.tell(0x1000..0x9000, 2, 1), Ok(vec![CPU]));
        assert_eq!(pages.tell(0x1000..0x9000, 9, 1), Err(CUresult::INVALID_VALUE));
    }

    #[test]
    fn who_accesses_all_of_it() {
        let mut pages = Pages::new(1, 0x1000..0x9000);
        pages.apply(0x1000..0x9000, Advice::AccessedBy(CPU, true));
        pages.apply(0x1000..0x5000, Advice::AccessedBy(0, true));
        assert_eq!(pages.tell(0x1000..0x5000, ACCESSED_BY, 3), Ok(vec![0, CPU, INVALID]));
        assert_eq!(pages.tell(0x1000..0x9000, ACCESSED_BY, 2), Ok(vec![CPU, INVALID]));
        assert_eq!(pages.tell(0x1000..0x5000, ACCESSED_BY, 1), Ok(vec![0]));
        pages.apply(0x1000..0x9000, Advice::AccessedBy(CPU, false));
        assert_eq!(pages.tell(0x5000..0x9000, ACCESSED_BY, 1), Ok(vec![INVALID]));
    }

    #[test]
    fn equal_neighbours_are_one_stretch() {
        let mut pages = Pages::new(1, 0x1000..0x9000);
        for page in 1..9u64 {
            pages.apply(page << 12..(page + 1) << 12, Advice::Prefetched(DEVICE));
        }
        assert_eq!(pages.stretches.len(), 1);
        assert_eq!(pages.tell(0x1000..0x9000, 4, 1), Ok(vec![0]));
        assert_eq!(pages.tell(0x1000..0x9000, 7, 1), Ok(vec![LOCATION_DEVICE]));
    }
}
