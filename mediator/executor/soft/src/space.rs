//! Which addresses of the window are allocated, and which granules have to be memory for it. Bookkeeping only.
//!
//! What a granule holds is charged to the VM's account as a whole: the sum of the granules is exactly what the host can have to give.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cuda_api::account::Account;

/// Memory is committed, returned and charged in these pieces. Bytes.
pub(crate) const GRANULE_BYTES: u64 = 2 << 20;
/// Allocations start at multiples of this. Bytes.
pub(crate) const ALIGN_BYTES: u64 = 256;
/// At least so many bytes lie between two allocations, so that running over the end of one is a fault and no two of
/// them share a page (the guest reserves whole pages at the same addresses).
pub(crate) const GUARD_BYTES: u64 = 4096;
/// From this size on an allocation has granules of its own. Bytes.
const BIG_BYTES: u64 = 1 << 20;

/// A placed allocation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// First address.
    pub(crate) start: u64,
    /// The addresses that nothing else gets: the allocation and the guard behind it.
    pub(crate) extent: Range<u64>,
    /// Addresses that have to become memory.
    pub(crate) fresh: Vec<Range<u64>>,
}

/// The window's addresses.
pub(crate) struct Space {
    window: Range<u64>,
    /// Free stretches: start → end.
    holes: BTreeMap<u64, u64>,
    /// Allocations that touch each granule.
    users: Vec<u32>,
    account: Arc<dyn Account>,
    device: usize,
}

fn up(value: u64, align: u64) -> Option<u64> {
    value.checked_next_multiple_of(align)
}

impl Space {
    /// All of `window` free; as many bytes of it may be memory at once as the account of the device allows.
    pub(crate) fn new(window: Range<u64>, account: Arc<dyn Account>, device: usize) -> Self {
        let granules =
            usize::try_from(window.end.saturating_sub(window.start).div_ceil(GRANULE_BYTES)).unwrap_or(0);
        let holes = BTreeMap::from([(window.start, window.end)]);
        Space { window, holes, users: vec![0; granules], account, device }
    }

    /// The address is one of the window's.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.window.contains(&address)
    }

    /// Bytes that the device has: whole granules of the quota.
    pub(crate) fn limit(&self) -> u64 {
        let quota = self.account.quota(self.device).unwrap_or(u64::MAX);
        quota.saturating_sub(quota.rem_euclid(GRANULE_BYTES))
    }

    /// Bytes that may still become memory.
    pub(crate) fn room(&self) -> u64 {
        self.limit().saturating_sub(self.account.used(self.device))
    }

    /// Where memory is counted, also what lies outside of the window.
    pub(crate) fn account(&self) -> &Arc<dyn Account> {
        &self.account
    }

    /// Finds addresses, without memory.
    pub(crate) fn reserve(&mut self, len: u64, align: u64, avoid: &[Range<u64>]) -> Option<u64> {
        for (&hole, &end) in &self.holes {
            let Some(start) = place(hole, len, align, avoid) else { continue };
            let Some(past) = start.checked_add(len) else { continue };
            if past <= end {
                self.holes.remove(&hole);
                if start > hole {
                    self.holes.insert(hole, start);
                }
                if past < end {
                    self.holes.insert(past, end);
                }
                return Some(start);
            }
        }
        None
    }

    /// Frees what `reserve` gave.
    pub(crate) fn unreserve(&mut self, range: Range<u64>) {
        self.free(range);
    }

    fn free(&mut self, range: Range<u64>) {
        let (mut from, mut to) = (range.start, range.end);
        if let Some((&before, &end)) = self.holes.range(..from).next_back()
            && end == from
        {
            self.holes.remove(&before);
            from = before;
        }
        if let Some(end) = self.holes.remove(&to) {
            to = end;
        }
        self.holes.insert(from, to);
    }

    /// Finds room for `len` bytes whose pages lie in none of `avoid` (sorted by start). `None`: there is none.
    pub(crate) fn allocate(&mut self, len: u64, avoid: &[Range<u64>]) -> Option<Placed> {
        let (align, extent) = if len >= BIG_BYTES {
            (GRANULE_BYTES, up(len.checked_add(GUARD_BYTES)?, GRANULE_BYTES)?)
        } else {
            (ALIGN_BYTES, up(len.max(1), ALIGN_BYTES)?.checked_add(GUARD_BYTES)?)
        };
        if len > self.limit() {
            return None;
        }
        let room = self.room();
        for (&hole, &end) in &self.holes {
            let Some(start) = place(hole, len, align, avoid) else { continue };
            let Some(past) = start.checked_add(extent) else { continue };
            if past > end {
                continue;
            }
            let fresh = self.idle_granules(start, len);
            let bytes: u64 = fresh.iter().map(|r| r.end.saturating_sub(r.start)).fold(0, u64::saturating_add);
            if bytes > room {
                continue;
            }
            if !self.account.take(self.device, bytes) {
                // Another process of the VM was quicker.
                return None;
            }
            self.holes.remove(&hole);
            if start > hole {
                self.holes.insert(hole, start);
            }
            if past < end {
                self.holes.insert(past, end);
            }
            for users in self.users_of(start, len) {
                *users = users.saturating_add(1);
            }
            return Some(Placed { start, extent: start..past, fresh });
        }
        None
    }

    /// Frees what `allocate` gave; the answer is what need not be memory any more.
    pub(crate) fn release(&mut self, start: u64, len: u64, extent: Range<u64>) -> Vec<Range<u64>> {
        for users in self.users_of(start, len) {
            *users = users.saturating_sub(1);
        }
        let idle = self.idle_granules(start, len);
        let bytes: u64 = idle.iter().map(|r| r.end.saturating_sub(r.start)).fold(0, u64::saturating_add);
        self.account.give_back(self.device, bytes);
        self.free(extent);
        idle
    }

    fn granules(&self, start: u64, len: u64) -> Range<usize> {
        let index = |address: u64| address.saturating_sub(self.window.start).div_euclid(GRANULE_BYTES);
        let last = index(start.saturating_add(len.max(1)).saturating_sub(1));
        usize::try_from(index(start)).unwrap_or(0)..usize::try_from(last.saturating_add(1)).unwrap_or(0)
    }

    fn users_of(&mut self, start: u64, len: u64) -> impl Iterator<Item = &mut u32> {
        let range = self.granules(start, len);
        self.users.get_mut(range).unwrap_or_default().iter_mut()
    }

    /// The granules of these addresses that no allocation uses, adjacent ones joined.
    fn idle_granules(&self, start: u64, len: u64) -> Vec<Range<u64>> {
        let range = self.granules(start, len);
        let mut runs: Vec<Range<u64>> = Vec::new();
        for index in range {
            if self.users.get(index).is_none_or(|users| *users != 0) {
                continue;
            }
            let from = self.window.start.saturating_add((index as u64).saturating_mul(GRANULE_BYTES));
            let to = from.saturating_add(GRANULE_BYTES).min(self.window.end);
            match runs.last_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => runs.push(from..to),
            }
        }
        runs
    }
}

/// The first aligned address from `from` on whose `len` bytes, in whole pages, meet none of `avoid`.
fn place(from: u64, len: u64, align: u64, avoid: &[Range<u64>]) -> Option<u64> {
    let mut start = up(from, align)?;
    for range in avoid {
        let first_page = start & !(GUARD_BYTES.wrapping_sub(1));
        let end = up(start.checked_add(len)?, GUARD_BYTES)?;
        if range.start < end && range.end > first_page {
            start = up(up(range.end, GUARD_BYTES)?, align)?;
        }
    }
    Some(start)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // one range is what is meant
mod tests {
    use cuda_api::account::Alone;

    use super::*;

    const BASE: u64 = 0x2a00_0000_0000;

    fn space() -> Space {
        Space::new(BASE..BASE + (64 << 20), Alone::new(Some(16 << 20)), 0)
    }

    #[test]
    fn allocations_are_aligned_and_a_guard_apart() {
        let mut space = space();
        let a = space.allocate(1, &[]).unwrap();
        let b = space.allocate(5000, &[]).unwrap();
        let c = space.allocate(2 << 20, &[]).unwrap();
        let d = space.allocate(2 << 20, &[]).unwrap();
        assert_eq!(a.start % ALIGN_BYTES, 0);
        assert!(b.start >= a.start + 1 + GUARD_BYTES);
        assert_eq!(c.start % GRANULE_BYTES, 0);
        assert!(d.start >= c.start + (2 << 20) + GUARD_BYTES);
        assert_eq!(a.fresh, [BASE..BASE + GRANULE_BYTES]);
        assert!(b.fresh.is_empty());
        assert_eq!(space.account().held(0), 3 * GRANULE_BYTES);
    }

    #[test]
    fn the_limit_counts_granules_and_comes_back() {
        let mut space = space();
        let big = space.allocate(16 << 20, &[]).unwrap();
        assert_eq!(space.allocate(1, &[]), None);
        let idle = space.release(big.start, 16 << 20, big.extent);
        assert_eq!(idle, [big.start..big.start + (16 << 20)]);
        assert_eq!(space.account().held(0), 0);
        assert_eq!(space.holes, BTreeMap::from([(BASE, BASE + (64 << 20))]));
    }

    #[test]
    fn addresses_without_memory_are_nobody_else_s_and_cost_nothing() {
        let mut space = space();
        let a = space.reserve(32 << 20, 4 << 20, &[]).unwrap();
        assert_eq!((a % (4 << 20), space.room()), (0, 16 << 20));
        let b = space.allocate(2 << 20, &[]).unwrap();
        assert!(b.start >= a + (32 << 20) || b.start + (2 << 20) <= a);
        assert_eq!(space.reserve(64 << 20, GRANULE_BYTES, &[]), None);
        space.unreserve(a..a + (32 << 20));
        space.release(b.start, 2 << 20, b.extent);
        assert_eq!(space.holes, BTreeMap::from([(BASE, BASE + (64 << 20))]));
        assert!(space.account().take(0, 15 << 20));
        assert_eq!(space.allocate(2 << 20, &[]), None);
    }

    #[test]
    fn avoided_pages_are_avoided() {
        let mut space = space();
        let avoid = [BASE..BASE + 100, BASE + 4096..BASE + 8192, BASE + (4 << 20)..BASE + (6 << 20)];
        let small = space.allocate(64, &avoid).unwrap();
        assert_eq!(small.start, BASE + 8192);
        let big = space.allocate(3 << 20, &avoid).unwrap();
        assert_eq!(big.start, BASE + (6 << 20));
        assert_eq!(space.allocate(1, &[0..u64::MAX]), None);
    }

    #[test]
    fn absurd_sizes_find_no_room() {
        let mut space = space();
        for len in [u64::MAX, u64::MAX - GUARD_BYTES, 17 << 20, 1 << 63] {
            assert_eq!(space.allocate(len, &[]), None);
        }
    }
}
