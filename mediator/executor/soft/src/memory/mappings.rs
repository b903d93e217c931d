//! Reserved addresses, and physical memory that is mapped there.

use std::ops::Range;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::access::DeviceAccess;
use cuda_api::account::Hold;
use cuda_api::host::Access;
use cuda_api::types::CUresult;

use super::{ALLOCATIONS_MAX, Map, Memory};
use crate::lock::{read, write};
use crate::physical::Physical;
use crate::space::GRANULE_BYTES;

/// Physical memory at an address.
pub(super) struct Mapping {
    pub(super) len: u64,
    /// Whose memory it is.
    pub(super) device: usize,
    pub(super) access: DeviceAccess,
    /// It is being taken away: no call finds it, and its addresses are not free yet.
    leaving: bool,
    /// Holds the memory.
    _physical: Arc<Physical>,
}

impl Map {
    pub(super) fn mapping(&self, address: u64) -> Option<(u64, &Mapping)> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        (address.wrapping_sub(*start) < mapping.len).then_some((*start, mapping))
    }

    /// The range lies in mappings that follow one another and may be accessed so.
    pub(super) fn check_mappings(&self, start: u64, end: u64, access: Access) -> CuResult<()> {
        let mut at = start;
        while at < end {
            let (base, mapping) = self
                .mapping(at)
                .filter(|(_, m)| m.access.allows_any(access))
                .ok_or(CUresult::INVALID_VALUE)?;
            at = base.saturating_add(mapping.len);
        }
        Ok(())
    }

    /// The range is covered by whole mappings.
    fn whole_mappings(&self, start: u64, len: u64) -> CuResult<Range<u64>> {
        let end = start.checked_add(len).filter(|_| len != 0).ok_or(CUresult::INVALID_VALUE)?;
        let mut at = start;
        while at < end {
            let mapping = self.mappings.get(&at).filter(|m| !m.leaving).ok_or(CUresult::INVALID_VALUE)?;
            at = at.saturating_add(mapping.len);
        }
        if at == end { Ok(start..end) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// The range lies in one reservation, and no mapping in it reaches out of it.
    fn uncut(&self, start: u64, len: u64) -> CuResult<Range<u64>> {
        let whole = |n: u64| n.is_multiple_of(GRANULE_BYTES);
        let end = start.checked_add(len).filter(|_| len != 0 && whole(start) && whole(len));
        let end = end.ok_or(CUresult::INVALID_VALUE)?;
        let (base, size) = self.reserved.range(..=start).next_back().ok_or(CUresult::INVALID_VALUE)?;
        let inside = base.checked_add(*size).is_some_and(|last| end <= last);
        let reaches = |past: u64, found: Option<(&u64, &Mapping)>| {
            found.is_some_and(|(at, mapping)| at.saturating_add(mapping.len) > past)
        };
        let cut = reaches(start, self.mappings.range(..start).next_back())
            || reaches(end, self.mappings.range(start..end).next_back());
        let leaving = self.mappings.range(start..end).any(|(_, mapping)| mapping.leaving);
        if inside && !cut && !leaving { Ok(start..end) } else { Err(CUresult::INVALID_VALUE) }
    }
}

impl Memory {
    /// Physical memory of a device, of whole granules.
    pub(crate) fn create(&self, device: usize, len: u64) -> CuResult<Physical> {
        if len == 0 || !len.is_multiple_of(GRANULE_BYTES) {
            return Err(CUresult::INVALID_VALUE);
        }
        self.make_room(device, len);
        let account = write(&self.map).space(device)?.account().clone();
        let hold = Hold::take(&account, device, len).ok_or(CUresult::OUT_OF_MEMORY)?;
        Physical::new(device, len, hold).map_err(|error| {
            log::warn!("no physical memory of {len} bytes: {error}");
            CUresult::OUT_OF_MEMORY
        })
    }

    /// Reserves addresses, aligned to a granule or more.
    pub(crate) fn reserve(&self, len: u64, align: u64, mut avoid: Vec<Range<u64>>) -> CuResult<u64> {
        if len == 0 || !len.is_multiple_of(GRANULE_BYTES) || (align != 0 && !align.is_power_of_two()) {
            return Err(CUresult::INVALID_VALUE);
        }
        avoid.sort_by_key(|r| r.start);
        let mut map = write(&self.map);
        if map.reserved.len() >= ALLOCATIONS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        // Addresses are no device's: any of them has some.
        let start = map.spaces.iter_mut().find_map(|s| s.reserve(len, align.max(GRANULE_BYTES), &avoid));
        let start = start.ok_or(CUresult::OUT_OF_MEMORY)?;
        map.reserved.insert(start, len);
        Ok(start)
    }

    /// Gives addresses back that [`Memory::reserve`] gave, with nothing mapped in them.
    pub(crate) fn unreserve(&self, start: u64, len: u64) -> CuResult<()> {
        let mut map = write(&self.map);
        let end = start.checked_add(len).ok_or(CUresult::INVALID_VALUE)?;
        if map.reserved.get(&start) != Some(&len) || map.mappings.range(start..end).next().is_some() {
            return Err(CUresult::INVALID_VALUE);
        }
        map.reserved.remove(&start);
        if let Some(space) = map.spaces.iter_mut().find(|space| space.holds(start)) {
            space.unreserve(start..end);
        }
        Ok(())
    }

    /// Maps physical memory at reserved addresses where nothing is mapped.
    pub(crate) fn map(&self, start: u64, len: u64, offset: u64, physical: Arc<Physical>) -> CuResult<()> {
        let refused = CUresult::INVALID_VALUE;
        let whole = |n: u64| n.is_multiple_of(GRANULE_BYTES);
        let end = start.checked_add(len).filter(|_| len != 0 && whole(start) && whole(len)).ok_or(refused)?;
        if offset.checked_add(len).is_none_or(|last| last > physical.len()) || !whole(offset) {
            return Err(CUresult::NOT_SUPPORTED);
        }
        let mut map = write(&self.map);
        let inside = map
            .reserved
            .range(..=start)
            .next_back()
            .is_some_and(|(base, size)| base.checked_add(*size).is_some_and(|last| end <= last));
        let taken =
            map.mappings.range(..end).next_back().is_some_and(|(at, m)| at.saturating_add(m.len) > start);
        if !inside || taken {
            return Err(refused);
        }
        self.window.map(&(start..end), physical.file(), offset).map_err(|error| {
            log::warn!("cannot map {len} bytes: {error}");
            CUresult::OUT_OF_MEMORY
        })?;
        let (device, access) = (physical.device(), DeviceAccess::NONE);
        map.mappings.insert(start, Mapping { len, device, access, leaving: false, _physical: physical });
        Ok(())
    }

    /// Takes the mappings in a range away, once whoever uses memory now has ended.
    pub(crate) fn unmap(&self, start: u64, len: u64) -> CuResult<()> {
        let range = {
            let mut map = write(&self.map);
            let range = map.uncut(start, len)?;
            if map.mappings.range(range.clone()).next().is_none() {
                return Ok(());
            }
            for (_, mapping) in map.mappings.range_mut(range.clone()) {
                (mapping.access, mapping.leaving) = (DeviceAccess::NONE, true);
            }
            range
        };
        self.usage.wait_all();
        let mut map = write(&self.map);
        self.decommit(std::slice::from_ref(&range));
        let gone: Vec<_> = map.mappings.extract_if(range, |_, _| true).collect();
        drop(map);
        drop(gone);
        Ok(())
    }

    /// Says how devices may access mappings: pairs of a device and its flags.
    pub(crate) fn set_access(&self, start: u64, len: u64, access: &[(i32, i32)]) -> CuResult<()> {
        let mut map = write(&self.map);
        let range = map.whole_mappings(start, len)?;
        for (_, mapping) in map.mappings.range_mut(range) {
            for (device, flags) in access {
                mapping.access = mapping.access.with(*device, *flags);
            }
        }
        Ok(())
    }

    /// How a device may access a mapped address.
    pub(crate) fn access_of(&self, address: u64, device: i32) -> CuResult<i32> {
        let map = read(&self.map);
        let mapping = map.mapping(address).filter(|(_, m)| !m.leaving);
        mapping.map(|(_, m)| m.access.of(device)).ok_or(CUresult::INVALID_VALUE)
    }
}
