//! Virtual memory management, memory pools and stream-ordered allocation.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cuda_api::CuResult;
use cuda_api::calls::virtual_memory::Host;
use cuda_api::types::*;

use crate::Soft;
use crate::calls::memory::ranges;
use crate::lock::lock;
use crate::memory::{ACCESS_READ, ACCESS_READ_WRITE, PoolId};
use crate::pools::Pool;
use crate::soft::Thread;
use crate::space::GRANULE_BYTES;
use crate::work::Work;

/// CU_MEM_ALLOCATION_TYPE_PINNED and CU_MEM_LOCATION_TYPE_DEVICE.
const TYPE_PINNED: i32 = 1;
const LOCATION_DEVICE: i32 = 1;
/// CU_MEMPOOL_ATTR_… by number.
const RELEASE_THRESHOLD: u32 = 4;
const RESERVED_CURRENT: u32 = 5;
const RESERVED_HIGH: u32 = 6;
const USED_CURRENT: u32 = 7;
const USED_HIGH: u32 = 8;

impl Soft {
    /// The device that a location is.
    fn at_device(&self, location: &CUmemLocation) -> CuResult<usize> {
        if location.kind == LOCATION_DEVICE {
            self.ordinal(location.id)
        } else {
            Err(CUresult::INVALID_VALUE)
        }
    }

    /// The device of whose memory the properties speak.
    fn check_properties(&self, prop: &CUmemAllocationProp) -> CuResult<usize> {
        if prop.kind != TYPE_PINNED || prop.win32_handle_meta_data != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if prop.location.kind != LOCATION_DEVICE || prop.requested_handle_types & !1 != 0 {
            self.warn_once("cuMemCreate: only memory of the device, for this process alone, is supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        self.at_device(&prop.location)
    }
}

impl Host for Soft {
    fn cuMemAddressReserve(
        &self,
        _: &mut Thread,
        size: usize,
        alignment: usize,
        _addr: CUdeviceptr,
        flags: u64,
        avoid: &[u8],
    ) -> CuResult<CUdeviceptr> {
        // The address asked for is a hint, and the window has its own order.
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        self.device.memory.reserve(size as u64, alignment as u64, ranges(avoid)?)
    }

    fn cuMemAddressFree(&self, _: &mut Thread, ptr: CUdeviceptr, size: usize) -> CuResult<()> {
        self.device.memory.unreserve(ptr, size as u64)
    }

    fn cuMemCreate(
        &self,
        _: &mut Thread,
        handle: CUmemGenericAllocationHandle,
        size: usize,
        prop: &CUmemAllocationProp,
        flags: u64,
    ) -> CuResult<()> {
        let device = self.check_properties(prop)?;
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        self.allocations.add(handle, Arc::new(self.device.memory.create(device, size as u64)?))
    }

    fn cuMemRelease(&self, _: &mut Thread, handle: CUmemGenericAllocationHandle) -> CuResult<()> {
        self.allocations.remove(handle).map(drop)
    }

    fn cuMemMap(
        &self,
        _: &mut Thread,
        ptr: CUdeviceptr,
        size: usize,
        offset: usize,
        handle: CUmemGenericAllocationHandle,
        flags: u64,
    ) -> CuResult<()> {
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        // Part of an allocation cannot be mapped, as with the driver ("offset must be zero").
        if offset != 0 {
            return Err(CUresult::NOT_SUPPORTED);
        }
        self.device.memory.map(ptr, size as u64, offset as u64, self.allocations.get(handle)?)
    }

    fn cuMemUnmap(&self, _: &mut Thread, ptr: CUdeviceptr, size: usize) -> CuResult<()> {
        self.device.wait_idle(None, None)?;
        self.device.memory.unmap(ptr, size as u64)
    }

    fn cuMemSetAccess(
        &self,
        _: &mut Thread,
        ptr: CUdeviceptr,
        size: usize,
        desc: &[CUmemAccessDesc],
        count: usize,
    ) -> CuResult<()> {
        if desc.is_empty() || desc.len() != count {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut allowed = Vec::new();
        for desc in desc {
            self.at_device(&desc.location)?;
            if !matches!(desc.flags, 0 | ACCESS_READ | ACCESS_READ_WRITE) {
                return Err(CUresult::INVALID_VALUE);
            }
            allowed.push((desc.location.id, desc.flags));
        }
        self.device.memory.set_access(ptr, size as u64, &allowed)
    }

    fn cuMemGetAllocationGranularity(
        &self,
        _: &mut Thread,
        prop: &CUmemAllocationProp,
        option: u32,
    ) -> CuResult<usize> {
        // As with the driver, whatever the type.
        self.check_properties(&CUmemAllocationProp { kind: TYPE_PINNED, ..*prop })?;
        if option > 1 {
            return Err(CUresult::INVALID_VALUE);
        }
        usize::try_from(GRANULE_BYTES).map_err(|_| CUresult::UNKNOWN)
    }

    fn cuMemGetAccess(&self, _: &mut Thread, location: &CUmemLocation, ptr: CUdeviceptr) -> CuResult<u64> {
        self.at_device(location)?;
        let access = self.device.memory.access_of(ptr, location.id)?;
        u64::try_from(access).map_err(|_| CUresult::UNKNOWN)
    }

    fn cuDeviceGetDefaultMemPool(&self, _: &mut Thread, pool: CUmemoryPool, dev: CUdevice) -> CuResult<()> {
        let device = self.ordinal(dev)?;
        let default = lock(&self.device_pools).of(device)?.default.clone();
        self.pools.add(pool, default)
    }

    fn cuDeviceSetMemPool(&self, _: &mut Thread, dev: CUdevice, pool: CUmemoryPool) -> CuResult<()> {
        let (device, pool) = (self.ordinal(dev)?, self.pools.get(pool)?);
        if pool.device != device {
            return Err(CUresult::INVALID_VALUE);
        }
        lock(&self.device_pools).of(device)?.current = pool;
        Ok(())
    }

    fn cuMemPoolCreate(&self, _: &mut Thread, pool: CUmemoryPool, props: &CUmemPoolProps) -> CuResult<()> {
        if props.kind != TYPE_PINNED
            || props.win32_security_attributes != 0
            || props.reserved.iter().any(|byte| *byte != 0)
        {
            return Err(CUresult::INVALID_VALUE);
        }
        if props.handle_types != 0 {
            return Err(CUresult::NOT_SUPPORTED);
        }
        let device = self.at_device(&props.location)?;
        let made = lock(&self.device_pools).create(&self.device.memory, device, props.max_size);
        let id = made.id;
        self.pools.add(pool, made).inspect_err(|_| self.device.memory.end_pool(id))
    }

    fn cuMemPoolDestroy(&self, _: &mut Thread, pool: CUmemoryPool) -> CuResult<()> {
        if self.pools.get(pool)?.default {
            return Err(CUresult::INVALID_VALUE);
        }
        let ended = self.pools.remove(pool)?;
        let mut all = lock(&self.device_pools);
        let pools = all.of(ended.device)?;
        if Arc::ptr_eq(&pools.current, &ended) {
            pools.current = pools.default.clone();
        }
        drop(all);
        self.device.memory.end_pool(ended.id);
        Ok(())
    }

    fn cuMemPoolTrimTo(&self, _: &mut Thread, pool: CUmemoryPool, keep: usize) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        self.device.memory.trim(Some(pool.id), Some(keep as u64));
        Ok(())
    }

    fn cuMemPoolSetAttribute(
        &self,
        _: &mut Thread,
        pool: CUmemoryPool,
        attr: u32,
        value: u64,
    ) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        let memory = &self.device.memory;
        match attr {
            1..=3 => {
                reuse(&pool, attr)?.store(u32::from(value != 0), Ordering::Relaxed);
                Ok(())
            }
            RELEASE_THRESHOLD => memory.change_holds(pool.id, |h| h.threshold = value),
            // The high marks can be reset and not set.
            RESERVED_HIGH if value == 0 => memory.change_holds(pool.id, |h| h.reserved_high = h.reserved),
            USED_HIGH if value == 0 => memory.change_holds(pool.id, |h| h.used_high = h.used),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    fn cuMemPoolGetAttribute(&self, _: &mut Thread, pool: CUmemoryPool, attr: u32) -> CuResult<u64> {
        let pool = self.pools.get(pool)?;
        let holds = self.device.memory.holds(pool.id)?;
        Ok(match attr {
            1..=3 => u64::from(reuse(&pool, attr)?.load(Ordering::Relaxed)),
            RELEASE_THRESHOLD => holds.threshold,
            RESERVED_CURRENT => holds.reserved,
            RESERVED_HIGH => holds.reserved_high,
            USED_CURRENT => holds.used,
            USED_HIGH => holds.used_high,
            _ => return Err(CUresult::INVALID_VALUE),
        })
    }

    fn cuMemPoolSetAccess(
        &self,
        _: &mut Thread,
        pool: CUmemoryPool,
        map: &[CUmemAccessDesc],
        count: usize,
    ) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        if map.len() != count {
            return Err(CUresult::INVALID_VALUE);
        }
        for desc in map {
            let own = self.at_device(&desc.location)? == pool.device;
            match desc.flags {
                ACCESS_READ_WRITE => {}
                // A device's access to its own memory cannot be taken away.
                _ if own => return Err(CUresult::INVALID_DEVICE),
                0 => {}
                _ => return Err(CUresult::INVALID_VALUE),
            }
        }
        self.device.memory.change_holds(pool.id, |holds| {
            for desc in map {
                holds.access = holds.access.with(desc.location.id, desc.flags);
            }
        })
    }

    fn cuMemPoolGetAccess(
        &self,
        _: &mut Thread,
        pool: CUmemoryPool,
        location: &CUmemLocation,
    ) -> CuResult<u32> {
        let pool = self.pools.get(pool)?;
        let own = self.at_device(location)? == pool.device;
        let by = self.device.memory.holds(pool.id)?.access;
        u32::try_from(if own { ACCESS_READ_WRITE } else { by.of(location.id) }).map_err(|_| CUresult::UNKNOWN)
    }

    fn cuMemAllocAsync(
        &self,
        thread: &mut Thread,
        size: usize,
        pool: CUmemoryPool,
        stream: CUstream,
        avoid: &[u8],
    ) -> CuResult<(CUdeviceptr, u32)> {
        let (_, context) = self.stream(thread, stream)?;
        if size == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let id: PoolId = if pool.is_null() {
            let device = self.device.memory.viewer(context).device;
            lock(&self.device_pools).of(device)?.current.id
        } else {
            self.pools.get(pool)?.id
        };
        // Memory is there at once, which is early enough for whatever follows in the stream.
        Ok((self.device.memory.allocate_pooled(size as u64, ranges(avoid)?, id)?, 0))
    }

    fn cuMemFreeAsync(&self, thread: &mut Thread, dptr: CUdeviceptr, stream: CUstream) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        let memory = &self.device.memory;
        if memory.is_pooled(dptr) {
            memory.end_pooled(dptr)?;
            return self.device.run(stream, Work::Free { address: dptr }, true);
        }
        if !memory.is_base(dptr) {
            return Err(CUresult::INVALID_VALUE);
        }
        // cuMemAlloc's memory has no pool to go back to: the stream is waited for.
        let ends = self.device.with_streams(|s| s.ends(stream));
        self.device.wait(&ends, None)?;
        memory.free(&[dptr], &[crate::memory::Purpose::Memory])
    }

    fn vgpuManagedRead(&self, _: &mut Thread, ranges: &[u8]) -> CuResult<Vec<u8>> {
        self.device.managed.read(ranges)
    }

    fn vgpuManagedHashes(&self, _: &mut Thread, start: u64, len: u64) -> CuResult<Vec<u64>> {
        self.device.managed.hashes(start, len)
    }

    fn vgpuManagedWrite(&self, _: &mut Thread, runs: &[u8]) -> CuResult<()> {
        self.device.managed.write(runs)
    }
}

fn reuse(pool: &Pool, attr: u32) -> CuResult<&std::sync::atomic::AtomicU32> {
    let index = usize::try_from(attr).ok().and_then(|n| n.checked_sub(1)).ok_or(CUresult::INVALID_VALUE)?;
    pool.reuse.get(index).ok_or(CUresult::INVALID_VALUE)
}
