//! Memory pools and stream-ordered allocation: what the rows in `virtual_memory.rs` do.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::account::counted_bytes;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::memory::placed;
use crate::driver::Raw;
use crate::lock::lock;
use crate::memory::{FreedKind, Giver};
use crate::pools::{Pool, Reserve, attribute, set_attribute};
use crate::ranges::Avoid;
use crate::thread::Thread;

/// Pools of a session, those included that are ended and still hold memory.
pub(crate) const POOLS_MAX: usize = 1024;
/// CU_MEM_ALLOCATION_TYPE_PINNED and CU_MEM_LOCATION_TYPE_DEVICE.
const TYPE_PINNED: i32 = 1;
const LOCATION_DEVICE: i32 = 1;
/// Who may access a pool, at most.
const ACCESS_DESCRIPTIONS_MAX: usize = 64;
/// Bytes of a block of device addresses: an allocation of this size has one of its own.
const BLOCK_BYTES: usize = 2 << 20;
/// CU_MEMPOOL_ATTR_USED_MEM_HIGH.
const ATTRIBUTE_LAST: u32 = 8;

impl Cuda {
    fn pool(&self, raw: Raw, device: i32, default: bool) -> Arc<Pool> {
        let (account, counted_as) = (self.account.clone(), self.counted_as(device));
        Arc::new(Pool {
            driver: self.driver,
            raw,
            device,
            default,
            charges: self.charges.clone(),
            account,
            counted_as,
        })
    }

    pub(crate) fn default_pool(&self, pool: CUmemoryPool, dev: i32) -> CuResult<()> {
        self.pools.check_free(pool)?;
        let (raw,) = self.driver.cuDeviceGetDefaultMemPool(dev)?;
        self.pools.add(pool, self.pool(raw, dev, true))
    }

    pub(crate) fn set_pool(&self, dev: i32, pool: CUmemoryPool) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        self.driver.cuDeviceSetMemPool(dev, pool.raw)
    }

    pub(crate) fn create_pool(&self, pool: CUmemoryPool, props: &CUmemPoolProps) -> CuResult<()> {
        if props.kind != TYPE_PINNED
            || props.win32_security_attributes != 0
            || props.reserved.iter().any(|byte| *byte != 0)
        {
            return Err(CUresult::INVALID_VALUE);
        }
        if props.location.kind != LOCATION_DEVICE || props.handle_types != 0 {
            self.warn_once("cuMemPoolCreate: only pools of a device, for this process alone, are supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        self.pools.check_free(pool)?;
        if lock(&self.charges).ended() >= POOLS_MAX {
            self.settle_reserves(true);
            if lock(&self.charges).ended() >= POOLS_MAX {
                return Err(CUresult::OUT_OF_MEMORY);
            }
        }
        // SAFETY: properties of numbers only (checked), on a private copy of the frame.
        let (raw,) = unsafe { self.driver.cuMemPoolCreate(&raw const *props) }?;
        self.pools.add(pool, self.pool(raw, props.location.id, false))
    }

    pub(crate) fn destroy_pool(&self, pool: CUmemoryPool) -> CuResult<()> {
        let found = self.pools.get(pool)?;
        if found.default {
            return Err(CUresult::INVALID_VALUE);
        }
        // As the driver does when it destroys a device's current pool, which it may be asked to do only later.
        if self.driver.cuDeviceGetMemPool(found.device)? == (found.raw,) {
            let (default,) = self.driver.cuDeviceGetDefaultMemPool(found.device)?;
            self.driver.cuDeviceSetMemPool(found.device, default)?;
        }
        drop(self.pools.remove(pool)?);
        drop(found);
        self.settle_reserves(false);
        Ok(())
    }

    pub(crate) fn trim_pool(&self, pool: CUmemoryPool, keep: usize) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        self.driver.cuMemPoolTrimTo(pool.raw, keep)?;
        self.settle_reserves(false);
        Ok(())
    }

    pub(crate) fn set_pool_attribute(&self, pool: CUmemoryPool, number: u32, value: u64) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        if !(1..=ATTRIBUTE_LAST).contains(&number) {
            return Err(CUresult::INVALID_VALUE);
        }
        set_attribute(self.driver, pool.raw, number, value)
    }

    pub(crate) fn pool_attribute(&self, pool: CUmemoryPool, number: u32) -> CuResult<u64> {
        let pool = self.pools.get(pool)?;
        if !(1..=ATTRIBUTE_LAST).contains(&number) {
            return Err(CUresult::INVALID_VALUE);
        }
        attribute(self.driver, pool.raw, number)
    }

    pub(crate) fn set_pool_access(
        &self,
        pool: CUmemoryPool,
        map: &[CUmemAccessDesc],
        count: usize,
    ) -> CuResult<()> {
        let pool = self.pools.get(pool)?;
        if map.len() != count || map.len() > ACCESS_DESCRIPTIONS_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        if map.iter().any(|desc| desc.location.kind != LOCATION_DEVICE) {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: `count` descriptions of numbers on a private copy of the frame.
        unsafe { self.driver.cuMemPoolSetAccess(pool.raw, map.as_ptr(), count) }
    }

    pub(crate) fn pool_access(&self, pool: CUmemoryPool, location: &CUmemLocation) -> CuResult<u32> {
        let pool = self.pools.get(pool)?;
        let mut location = *location;
        // SAFETY: a local of the documented layout.
        unsafe { self.driver.cuMemPoolGetAccess(pool.raw, &raw mut location) }.map(|(flags,)| flags)
    }

    /// The device that a stream is on.
    fn device_of_stream(&self, thread: &Thread, stream: CUstream) -> CuResult<i32> {
        if CUstream::SPECIAL.contains(&stream.0) {
            return thread.context().map(|context| context.device);
        }
        self.streams.get(stream).map(|stream| stream.context.device)
    }

    pub(crate) fn allocate_in_stream(
        &self,
        thread: &Thread,
        size: usize,
        pool: CUmemoryPool,
        stream: CUstream,
        avoid: &[u8],
    ) -> CuResult<(CUdeviceptr, u32)> {
        let avoid = Avoid::read(avoid)?;
        if size == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let device = self.device_of_stream(thread, stream)?;
        let stream = self.stream(stream)?;
        let pool = if pool.is_null() { None } else { Some(self.pools.get(pool)?) };
        let (status,) = self.driver.cuStreamIsCapturing(stream.raw)?;
        let capture = match status {
            0 => None,
            _ => Some(self.driver.cuStreamGetCaptureInfo_v3(stream.raw)?.1),
        };
        let (reserve, by) = match (&pool, capture) {
            (_, Some(capture)) => (Reserve::Graphs(device), Giver::Graph(capture)),
            (Some(pool), None) => (Reserve::Pool(pool.raw, pool.device), Giver::Pool(pool.raw)),
            (None, None) => {
                let (current,) = self.driver.cuDeviceGetMemPool(device)?;
                (Reserve::Pool(current, device), Giver::Pool(current))
            }
        };
        let len = size as u64;
        // A graph takes its memory when it is launched: all of it has to fit.
        let before = capture.map_or(0, |capture| self.memory.graph_bytes(capture));
        self.check_room(reserve, before.saturating_add(len))?;
        // Small allocations share blocks, also with what is to be avoided: a whole block is asked for then.
        let ask_for = if avoid.is_empty() { size } else { size.max(BLOCK_BYTES) };
        let ask = || {
            match &pool {
                Some(pool) => self.driver.cuMemAllocFromPoolAsync(ask_for, pool.raw, stream.raw),
                None => self.driver.cuMemAllocAsync(ask_for, stream.raw),
            }
            .map(|(at,)| at)
        };
        // SAFETY: an allocation of the driver's that is in no map, or was just taken out of it.
        let give_back = |at| unsafe { self.driver.cuMemFreeAsync(at, stream.raw) };
        let at = placed(&avoid, len, ask, give_back)?;
        self.memory.add_pooled(at, len, by).inspect_err(|_| {
            let _ = give_back(at);
        })?;
        if let Err(error) = self.charge_reserve(reserve)
            && capture.is_none()
        {
            self.memory.remove_pooled(at)?;
            give_back(at)?;
            return Err(error);
        }
        Ok((at, u32::from(capture.is_some())))
    }

    pub(crate) fn free_in_stream(&self, dptr: CUdeviceptr, stream: CUstream) -> CuResult<()> {
        let stream = self.stream(stream)?;
        // SAFETY: memory of this session's that starts here, taken out of the map where it does not stay a graph's.
        let free = || unsafe { self.driver.cuMemFreeAsync(dptr, stream.raw) };
        match self.memory.freed_kind(dptr)? {
            FreedKind::Graph => free(),
            FreedKind::Pooled => {
                let (len, pool) = self.memory.remove_pooled(dptr)?;
                // Refused (in a capture, say), it is what it was.
                free().inspect_err(|_| {
                    let _ = self.memory.add_pooled(dptr, len, Giver::Pool(pool));
                })
            }
            FreedKind::Device => {
                let (status,) = self.driver.cuStreamIsCapturing(stream.raw)?;
                if status != 0 {
                    return Err(CUresult::INVALID_VALUE);
                }
                // The account gets it back when it is free, so that is waited for.
                self.driver.cuStreamSynchronize(stream.raw)?;
                let (len, device) = self.memory.remove_device(dptr)?;
                // SAFETY: an allocation of cuMemAlloc's that was just taken out of the map.
                unsafe { self.driver.cuMemFree_v2(dptr) }?;
                self.give_back(device, counted_bytes(len));
                Ok(())
            }
        }
    }

    /// cuMemFree of memory that a stream-ordered call has allocated.
    pub(crate) fn free_pooled(&self, dptr: CUdeviceptr) -> CuResult<()> {
        // SAFETY: memory of this session's that starts here, taken out of the map where it does not stay a graph's.
        let free = || unsafe { self.driver.cuMemFree_v2(dptr) };
        match self.memory.freed_kind(dptr)? {
            FreedKind::Graph => free(),
            FreedKind::Pooled => {
                let (len, pool) = self.memory.remove_pooled(dptr)?;
                free().inspect_err(|_| {
                    let _ = self.memory.add_pooled(dptr, len, Giver::Pool(pool));
                })
            }
            FreedKind::Device => Err(CUresult::INVALID_VALUE),
        }
    }
}
