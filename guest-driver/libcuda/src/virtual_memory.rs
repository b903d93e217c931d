//! Virtual memory management: reserved addresses (reserved in this process as well), physical memory, and what is mapped where. What is
//! mapped is known here, so that copies and fills are proved as for other memory.
//!
//! A handle is counted here: cuMemRetainAllocationHandle gives the same one again, also after its last release, as long as its memory is
//! mapped somewhere. The worker is told once, when neither a handle nor a mapping holds the memory.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use cuda_api::access::DeviceAccess;
use cuda_api::calls::virtual_memory::row;
use cuda_api::guest::{array, finish, not_null};
use cuda_api::types::{
    CUdeviceptr, CUmemAccessDesc, CUmemAllocationProp, CUmemGenericAllocationHandle, CUmemLocation,
};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};

/// CU_MEM_LOCATION_TYPE_DEVICE.
pub(crate) const LOCATION_DEVICE: i32 = 1;
/// CU_MEM_LOCATION_TYPE_HOST_NUMA.
const LOCATION_HOST_NUMA: i32 = 3;
/// CU_MEM_ALLOCATION_TYPE_PINNED.
const TYPE_PINNED: i32 = 1;
/// CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
const HANDLE_POSIX: i32 = 1;
/// How often other addresses are asked for before a reservation fails.
const CLASHES_MAX: usize = 16;

/// What is known of physical memory.
pub struct AllocationRecord {
    /// What it was asked for as; the device is the guest's ordinal.
    prop: CUmemAllocationProp,
    holders: Mutex<Holders>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holders {
    handles: u32,
    mappings: u32,
}

impl AllocationRecord {
    /// Memory of another process, on a device of this one's.
    pub(crate) fn imported(device: i32) -> Self {
        let mut prop: CUmemAllocationProp = zerocopy::FromZeros::new_zeroed();
        prop.kind = TYPE_PINNED;
        prop.requested_handle_types = HANDLE_POSIX;
        prop.location = CUmemLocation { kind: LOCATION_DEVICE, id: device };
        AllocationRecord { prop, holders: Mutex::new(Holders { handles: 1, mappings: 0 }) }
    }

    /// It was asked for as memory that may leave the process as a descriptor, and there is a handle to it.
    pub(crate) fn is_exportable(&self) -> bool {
        self.prop.requested_handle_types & HANDLE_POSIX != 0 && lock(&self.holders).handles != 0
    }

    /// Counts a mapping, which only a handle can be used for.
    fn map(&self) -> CuResult<()> {
        let mut holders = lock(&self.holders);
        if holders.handles == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        holders.mappings = holders.mappings.checked_add(1).ok_or(CUresult::OUT_OF_MEMORY)?;
        Ok(())
    }

    /// One holder less. True: it was the last.
    fn less(&self, which: impl FnOnce(&mut Holders) -> &mut u32) -> CuResult<bool> {
        let mut holders = lock(&self.holders);
        let count = which(&mut holders);
        *count = count.checked_sub(1).ok_or(CUresult::INVALID_VALUE)?;
        Ok(holders.handles == 0 && holders.mappings == 0)
    }
}

/// Addresses that this process has reserved: start → length.
static RESERVED: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

/// A location as frames have it: with the host's ordinal of a device.
///
/// # Errors
/// CUDA_ERROR_INVALID_DEVICE.
pub(crate) fn to_host(process: &Process, location: CUmemLocation) -> CuResult<CUmemLocation> {
    if location.kind != LOCATION_DEVICE {
        return Ok(location);
    }
    Ok(CUmemLocation { id: process.host_ordinal(location.id)?, ..location })
}

/// What driver 580 says of a device that is none, in the calls that do not name it: cuMemSetAccess and those of pools. cuMemCreate
/// and cuDeviceGetDefaultMemPool name it.
pub(crate) fn unnamed_device(error: CUresult) -> CUresult {
    if error == CUresult::INVALID_DEVICE { CUresult::INVALID_VALUE } else { error }
}

/// The caller's access descriptions as frames have them.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_DEVICE.
///
/// # Safety
/// `desc` is NULL or points to `count` descriptions.
pub(crate) unsafe fn access_descriptions(
    process: &Process,
    desc: *const CUmemAccessDesc,
    count: usize,
) -> CuResult<Vec<CUmemAccessDesc>> {
    // SAFETY: this function's contract.
    let list = unsafe { array(desc, count as u64) }?;
    list.iter().map(|d| Ok(CUmemAccessDesc { location: to_host(process, d.location)?, ..*d })).collect()
}

fn ready() -> CuResult<&'static Process> {
    let process = initialised()?;
    process.alive()?;
    Ok(process)
}

fn allocation(process: &Process, handle: CUmemGenericAllocationHandle) -> CuResult<Arc<AllocationRecord>> {
    process.objects.allocations.get(handle.0).ok_or(CUresult::INVALID_VALUE)
}

/// Nothing holds the memory any more: the worker may have it back.
fn end(process: &Process, handle: CUmemGenericAllocationHandle) -> CuResult<()> {
    process.objects.allocations.remove(handle.0);
    gate::call::<row::cuMemRelease>((handle,))
}

/// A mapping is gone.
fn unmapped(process: &Process, owner: u64) -> CuResult<()> {
    let handle = CUmemGenericAllocationHandle(owner);
    let Ok(record) = allocation(process, handle) else { return Ok(()) };
    if record.less(|h| &mut h.mappings)? { end(process, handle) } else { Ok(()) }
}

/// cuMemAddressReserve.
pub unsafe fn cuMemAddressReserve(
    ptr: *mut CUdeviceptr,
    size: usize,
    alignment: usize,
    addr: CUdeviceptr,
    flags: u64,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(ptr)?;
        let (mut avoid, mut clashing) = (Vec::new(), Vec::new());
        let outcome = loop {
            let at = match gate::call::<row::cuMemAddressReserve>((size, alignment, addr, flags, &avoid)) {
                Ok(at) => at,
                Err(error) => break Err(error),
            };
            if process.reservations.hold(at, size as u64).is_ok() {
                break Ok(at);
            }
            clashing.push(at);
            avoid.extend_from_slice(&at.to_le_bytes());
            avoid.extend_from_slice(&(size as u64).to_le_bytes());
            if clashing.len() == CLASHES_MAX {
                crate::log::say(|| {
                    format!("no {size} bytes of addresses that are free here and on the device")
                });
                break Err(CUresult::OUT_OF_MEMORY);
            }
        };
        for at in clashing {
            if let Err(error) = gate::call::<row::cuMemAddressFree>((at, size)) {
                crate::log::say(|| format!("clashing addresses are not given back: {error}"));
            }
        }
        let at = outcome?;
        lock(&RESERVED).insert(at, size as u64);
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { ptr.write(at) };
        Ok(())
    })())
}

/// cuMemAddressFree.
pub unsafe fn cuMemAddressFree(ptr: CUdeviceptr, size: usize) -> CUresult {
    finish((|| {
        let process = ready()?;
        let len = size as u64;
        if lock(&RESERVED).get(&ptr) != Some(&len) || process.ranges.overlaps(ptr, len) {
            return Err(CUresult::INVALID_VALUE);
        }
        // Taken away first: of two threads that free it one finds nothing.
        lock(&RESERVED).remove(&ptr).ok_or(CUresult::INVALID_VALUE)?;
        gate::call::<row::cuMemAddressFree>((ptr, size)).inspect_err(|_| {
            lock(&RESERVED).insert(ptr, len);
        })?;
        process.reservations.release(ptr, len);
        Ok(())
    })())
}

/// cuMemCreate.
pub unsafe fn cuMemCreate(
    handle: *mut CUmemGenericAllocationHandle,
    size: usize,
    prop: *const CUmemAllocationProp,
    flags: u64,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(handle)?;
        not_null(prop.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract: properties.
        let prop = unsafe { prop.read_unaligned() };
        let sent = CUmemAllocationProp { location: to_host(process, prop.location)?, ..prop };
        let holders = Mutex::new(Holders { handles: 1, mappings: 0 });
        let allocations = &process.objects.allocations;
        let named = CUmemGenericAllocationHandle(allocations.insert(AllocationRecord { prop, holders })?);
        if let Err(error) = gate::call::<row::cuMemCreate>((named, size, &sent, flags)) {
            allocations.remove(named.0);
            return Err(error);
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { handle.write(named) };
        Ok(())
    })())
}

/// cuMemRelease.
pub unsafe fn cuMemRelease(handle: CUmemGenericAllocationHandle) -> CUresult {
    finish((|| {
        let process = ready()?;
        if allocation(process, handle)?.less(|h| &mut h.handles)? { end(process, handle) } else { Ok(()) }
    })())
}

/// cuMemMap.
pub unsafe fn cuMemMap(
    ptr: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: u64,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        let record = allocation(process, handle)?;
        record.map()?;
        if let Err(error) = gate::call::<row::cuMemMap>((ptr, size, offset, handle, flags)) {
            unmapped(process, handle.0)?;
            return Err(error);
        }
        process.ranges.insert(Range {
            start: ptr,
            len: size as u64,
            kind: RangeKind::Mapped(DeviceAccess::NONE),
            // As with the driver, it belongs to no context.
            context: 0,
            device: record.prop.location.id,
            id: 0,
            read_only: false,
            owner: handle.0,
        });
        Ok(())
    })())
}

/// How much of a range lies in the reservation that it begins in; `None` where it begins in none.
fn reserved_part(start: u64, len: u64) -> Option<u64> {
    let reserved = lock(&RESERVED);
    let (at, whole) = reserved.range(..=start).next_back()?;
    let left = at.saturating_add(*whole).checked_sub(start)?;
    (len != 0 && left != 0).then(|| len.min(left))
}

/// cuMemUnmap: of whole mappings, and of addresses where there is none, which for driver 580 may go on behind the reservation.
pub unsafe fn cuMemUnmap(ptr: CUdeviceptr, size: usize) -> CUresult {
    finish((|| {
        let process = ready()?;
        let asked = size as u64;
        let size = match reserved_part(ptr, size as u64) {
            Some(part) if !process.ranges.cuts_mapping(ptr, part) => part as usize,
            _ => return Err(CUresult::INVALID_VALUE),
        };
        let rest = asked.saturating_sub(size as u64);
        if rest != 0 && process.ranges.overlaps(ptr.saturating_add(size as u64), rest) {
            return Err(CUresult::INVALID_VALUE);
        }
        // Taken away first: nothing is proved by them from now on.
        let gone = process.ranges.remove_mapped(ptr, size as u64);
        if let Err(error) = gate::call::<row::cuMemUnmap>((ptr, size)) {
            gone.into_iter().for_each(|range| process.ranges.restore(range));
            return Err(error);
        }
        gone.into_iter().try_for_each(|range| unmapped(process, range.owner))
    })())
}

/// cuMemSetAccess.
pub unsafe fn cuMemSetAccess(
    ptr: CUdeviceptr,
    size: usize,
    desc: *const CUmemAccessDesc,
    count: usize,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        // SAFETY: CUDA's contract: `count` descriptions.
        let list = unsafe { access_descriptions(process, desc, count) }.map_err(unnamed_device)?;
        if !process.ranges.is_mapped(ptr, size as u64) {
            return Err(CUresult::INVALID_VALUE);
        }
        gate::call::<row::cuMemSetAccess>((ptr, size, &list, count))?;
        // SAFETY: as above; read once already, so there are some.
        for desc in unsafe { array(desc, count as u64) }? {
            process.ranges.set_access(ptr, size as u64, desc.location.id, desc.flags);
        }
        Ok(())
    })())
}

/// cuMemGetAccess.
pub unsafe fn cuMemGetAccess(flags: *mut u64, location: *const CUmemLocation, ptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(flags)?;
        not_null(location.cast_mut())?;
        match process.ranges.find(ptr) {
            Some(Range { kind: RangeKind::Mapped(_), .. }) => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        // SAFETY: not NULL; CUDA's contract: a location.
        let location = to_host(process, unsafe { location.read_unaligned() })?;
        let found = gate::call::<row::cuMemGetAccess>((&location, ptr))?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { flags.write(found) };
        Ok(())
    })())
}

/// cuMemGetAllocationGranularity. Of host memory (attribute 141: there is none to be had) the driver tells a granularity as well, and
/// refuses only cuMemCreate; NCCL takes a refusal here for a sign that it may go on with host memory. It is that of device memory.
pub unsafe fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    prop: *const CUmemAllocationProp,
    option: u32,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(granularity)?;
        not_null(prop.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract: properties.
        let prop = unsafe { prop.read_unaligned() };
        let location = match prop.location.kind {
            LOCATION_HOST_NUMA => CUmemLocation { kind: LOCATION_DEVICE, id: 0 },
            _ => prop.location,
        };
        let sent = CUmemAllocationProp { location: to_host(process, location)?, ..prop };
        let found = gate::call::<row::cuMemGetAllocationGranularity>((&sent, option))?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { granularity.write(found) };
        Ok(())
    })())
}

/// cuMemGetAllocationPropertiesFromHandle.
pub unsafe fn cuMemGetAllocationPropertiesFromHandle(
    prop: *mut CUmemAllocationProp,
    handle: CUmemGenericAllocationHandle,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(prop)?;
        // Also after the last release, as long as the memory is mapped.
        let record = allocation(process, handle)?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { prop.write_unaligned(record.prop) };
        Ok(())
    })())
}

/// cuMemRetainAllocationHandle.
pub unsafe fn cuMemRetainAllocationHandle(
    handle: *mut CUmemGenericAllocationHandle,
    addr: *mut c_void,
) -> CUresult {
    finish((|| {
        let process = ready()?;
        not_null(handle)?;
        let named = match process.ranges.find(addr as u64) {
            Some(Range { kind: RangeKind::Mapped(_), owner, .. }) => CUmemGenericAllocationHandle(owner),
            _ => return Err(CUresult::INVALID_VALUE),
        };
        let record = allocation(process, named)?;
        {
            let mut holders = lock(&record.holders);
            if holders.mappings == 0 {
                return Err(CUresult::INVALID_VALUE);
            }
            holders.handles = holders.handles.checked_add(1).ok_or(CUresult::OUT_OF_MEMORY)?;
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { handle.write(named) };
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_by_handles_and_mappings() {
        let prop = zerocopy::FromZeros::new_zeroed();
        let record = AllocationRecord { prop, holders: Mutex::new(Holders { handles: 1, mappings: 0 }) };
        record.map().unwrap();
        record.map().unwrap();
        assert_eq!(record.less(|h| &mut h.handles), Ok(false));
        assert_eq!(record.less(|h| &mut h.handles), Err(CUresult::INVALID_VALUE), "released once too often");
        assert_eq!(record.map(), Err(CUresult::INVALID_VALUE), "no handle to map by");
        assert_eq!(record.less(|h| &mut h.mappings), Ok(false));
        assert_eq!(record.less(|h| &mut h.mappings), Ok(true));
    }
}
