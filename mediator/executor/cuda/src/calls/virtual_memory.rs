//! Virtual memory management: reserved addresses, physical memory, and the mapping of one to the other. What the chapter has of
//! pools is in `pools.rs`.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::account::counted_bytes;
use cuda_api::calls::virtual_memory::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::memory::placed;
use crate::objects::Allocation;
use crate::ranges::Avoid;
use crate::thread::Thread;

/// CU_MEM_ALLOCATION_TYPE_PINNED.
const TYPE_PINNED: i32 = 1;
/// CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
const HANDLE_POSIX: i32 = 1;
/// CU_MEM_LOCATION_TYPE_DEVICE.
const LOCATION_DEVICE: i32 = 1;
/// Who may access a mapping, at most.
const ACCESS_DESCRIPTIONS_MAX: usize = 64;

impl Cuda {
    /// The properties ask for device memory that stays in this process.
    fn check_properties(&self, prop: &CUmemAllocationProp) -> CuResult<()> {
        if prop.kind != TYPE_PINNED || prop.win32_handle_meta_data != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if prop.location.kind != LOCATION_DEVICE {
            self.warn_once("cuMemCreate: only memory of a device is supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        if prop.requested_handle_types & !HANDLE_POSIX != 0 {
            self.warn_once("cuMemCreate: handles that leave the process are not supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        Ok(())
    }

    /// The properties for the driver.
    fn properties(&self, prop: &CUmemAllocationProp) -> CuResult<CUmemAllocationProp> {
        self.check_properties(prop)?;
        Ok(*prop)
    }
}

impl Host for Cuda {
    fn cuMemAddressReserve(
        &self,
        _: &mut Thread,
        size: usize,
        alignment: usize,
        addr: CUdeviceptr,
        flags: u64,
        avoid: &[u8],
    ) -> CuResult<CUdeviceptr> {
        let avoid = Avoid::read(avoid)?;
        // SAFETY: reserved just now and in no map.
        let give_back = |at| unsafe { self.driver.cuMemAddressFree(at, size) };
        let ask = || self.driver.cuMemAddressReserve(size, alignment, addr, flags).map(|(at,)| at);
        let at = placed(&avoid, size as u64, ask, give_back)?;
        self.memory.add_reserved(at, size as u64).map(|()| at).inspect_err(|_| {
            let _ = give_back(at);
        })
    }

    fn cuMemAddressFree(&self, _: &mut Thread, ptr: CUdeviceptr, size: usize) -> CuResult<()> {
        self.memory.remove_reserved(ptr, size as u64)?;
        // SAFETY: a whole reservation of this session's with nothing mapped in it, just taken out of the map.
        unsafe { self.driver.cuMemAddressFree(ptr, size) }
    }

    fn cuMemCreate(
        &self,
        _: &mut Thread,
        handle: CUmemGenericAllocationHandle,
        size: usize,
        prop: &CUmemAllocationProp,
        flags: u64,
    ) -> CuResult<()> {
        let prop = self.properties(prop)?;
        self.allocations.check_free(handle)?;
        let bytes = size as u64;
        let hold = Some(self.hold(prop.location.id, counted_bytes(bytes))?);
        // SAFETY: properties of numbers only (checked), in a local.
        let (raw,) = unsafe { self.driver.cuMemCreate(size, &raw const prop, flags) }?;
        self.allocations
            .add(handle, Arc::new(Allocation { driver: self.driver, raw, size: bytes, _hold: hold }))
    }

    fn cuMemRelease(&self, _: &mut Thread, handle: CUmemGenericAllocationHandle) -> CuResult<()> {
        let allocation = self.allocations.remove(handle)?;
        self.ipc.forget_allocation(allocation.raw);
        Ok(())
    }

    fn cuMemExportToShareableHandle(
        &self,
        _: &mut Thread,
        handle: CUmemGenericAllocationHandle,
    ) -> CuResult<CUipcHandle> {
        self.export_allocation(&*self.allocations.get(handle)?)
    }

    fn cuMemImportFromShareableHandle(
        &self,
        _: &mut Thread,
        handle: CUmemGenericAllocationHandle,
        token: &CUipcHandle,
    ) -> CuResult<CUdevice> {
        self.import_allocation(handle, token)
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
        let len = size as u64;
        self.memory.check_reserved(ptr, len)?;
        self.memory.check_empty(ptr, len)?;
        let allocation = self.allocations.get(handle)?;
        // SAFETY: addresses that this session reserved, with nothing in them; the driver checks offset and size.
        unsafe { self.driver.cuMemMap(ptr, size, offset, allocation.raw, flags) }?;
        self.memory.add_mapped(ptr, len, allocation).inspect_err(|_| {
            // SAFETY: mapped just now.
            let _ = unsafe { self.driver.cuMemUnmap(ptr, size) };
        })
    }

    fn cuMemUnmap(&self, _: &mut Thread, ptr: CUdeviceptr, size: usize) -> CuResult<()> {
        self.memory.check_reserved(ptr, size as u64)?;
        self.memory.check_uncut(ptr, size as u64)?;
        // SAFETY: whole mappings of this session's, or none, at addresses that it reserved.
        unsafe { self.driver.cuMemUnmap(ptr, size) }?;
        drop(self.memory.remove_mapped(ptr, size as u64));
        Ok(())
    }

    fn cuMemSetAccess(
        &self,
        _: &mut Thread,
        ptr: CUdeviceptr,
        size: usize,
        desc: &[CUmemAccessDesc],
        count: usize,
    ) -> CuResult<()> {
        if desc.len() != count || desc.is_empty() || desc.len() > ACCESS_DESCRIPTIONS_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        if desc.iter().any(|desc| desc.location.kind != LOCATION_DEVICE) {
            self.warn_once("cuMemSetAccess: only devices can be given access");
            return Err(CUresult::NOT_SUPPORTED);
        }
        self.memory.check_mapped(ptr, size as u64)?;
        // SAFETY: whole mappings of this session's; `count` descriptions on a private copy of the frame.
        unsafe { self.driver.cuMemSetAccess(ptr, size, desc.as_ptr(), count) }?;
        for desc in desc {
            self.memory.set_access(ptr, size as u64, desc.location.id, desc.flags);
        }
        Ok(())
    }

    fn cuMemGetAllocationGranularity(
        &self,
        _: &mut Thread,
        prop: &CUmemAllocationProp,
        option: u32,
    ) -> CuResult<usize> {
        // The driver answers for a type that is none, too.
        let CUmemAllocationProp { kind, .. } = *prop;
        let prop = CUmemAllocationProp {
            kind,
            ..self.properties(&CUmemAllocationProp { kind: TYPE_PINNED, ..*prop })?
        };
        // SAFETY: properties of numbers only (checked), in a local.
        let found = unsafe { self.driver.cuMemGetAllocationGranularity(&raw const prop, option) };
        found.map(|(granularity,)| granularity)
    }

    fn cuMemGetAccess(&self, _: &mut Thread, location: &CUmemLocation, ptr: CUdeviceptr) -> CuResult<u64> {
        self.memory.check_in_mapping(ptr)?;
        // SAFETY: a location on a private copy of the frame; an address in a mapping of this session's.
        unsafe { self.driver.cuMemGetAccess(&raw const *location, ptr) }.map(|(flags,)| flags)
    }

    fn cuDeviceGetDefaultMemPool(&self, _: &mut Thread, pool: CUmemoryPool, dev: CUdevice) -> CuResult<()> {
        self.default_pool(pool, dev)
    }

    fn cuDeviceSetMemPool(&self, _: &mut Thread, dev: CUdevice, pool: CUmemoryPool) -> CuResult<()> {
        self.set_pool(dev, pool)
    }

    fn cuMemPoolCreate(&self, _: &mut Thread, pool: CUmemoryPool, props: &CUmemPoolProps) -> CuResult<()> {
        self.create_pool(pool, props)
    }

    fn cuMemPoolDestroy(&self, _: &mut Thread, pool: CUmemoryPool) -> CuResult<()> {
        self.destroy_pool(pool)
    }

    fn cuMemPoolTrimTo(&self, _: &mut Thread, pool: CUmemoryPool, keep: usize) -> CuResult<()> {
        self.trim_pool(pool, keep)
    }

    fn cuMemPoolSetAttribute(
        &self,
        _: &mut Thread,
        pool: CUmemoryPool,
        attr: u32,
        value: u64,
    ) -> CuResult<()> {
        self.set_pool_attribute(pool, attr, value)
    }

    fn cuMemPoolGetAttribute(&self, _: &mut Thread, pool: CUmemoryPool, attr: u32) -> CuResult<u64> {
        self.pool_attribute(pool, attr)
    }

    fn cuMemPoolSetAccess(
        &self,
        _: &mut Thread,
        pool: CUmemoryPool,
        map: &[CUmemAccessDesc],
        count: usize,
    ) -> CuResult<()> {
        self.set_pool_access(pool, map, count)
    }

    fn cuMemPoolGetAccess(
        &self,
        _: &mut Thread,
        pool: CUmemoryPool,
        location: &CUmemLocation,
    ) -> CuResult<u32> {
        self.pool_access(pool, location)
    }

    fn cuMemAllocAsync(
        &self,
        thread: &mut Thread,
        size: usize,
        pool: CUmemoryPool,
        stream: CUstream,
        avoid: &[u8],
    ) -> CuResult<(CUdeviceptr, u32)> {
        self.allocate_in_stream(thread, size, pool, stream, avoid)
    }

    fn cuMemFreeAsync(&self, _: &mut Thread, dptr: CUdeviceptr, stream: CUstream) -> CuResult<()> {
        self.free_in_stream(dptr, stream)
    }

    fn vgpuManagedRead(&self, _: &mut Thread, ranges: &[u8]) -> CuResult<Vec<u8>> {
        self.managed.read(ranges)
    }

    fn vgpuManagedHashes(&self, _: &mut Thread, start: u64, len: u64) -> CuResult<Vec<u64>> {
        self.managed.hashes(start, len)
    }

    fn vgpuManagedWrite(&self, _: &mut Thread, runs: &[u8]) -> CuResult<()> {
        self.managed.write(runs)
    }
}
