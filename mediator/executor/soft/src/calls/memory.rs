//! Device and host memory.

use std::ops::Range;

use cuda_api::CuResult;
use cuda_api::calls::memory::Host;
use cuda_api::types::{pointer_attribute as attr, *};

use crate::Soft;
use crate::memory::Purpose;
use crate::soft::Thread;

const HOST_REGISTER_IOMEMORY: u32 = 4;
const HOST_REGISTER_READ_ONLY: u32 = 8;

/// Pairs of (start, length), 8 bytes each.
pub(crate) fn ranges(bytes: &[u8]) -> CuResult<Vec<Range<u64>>> {
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() {
        return Err(CUresult::INVALID_VALUE);
    }
    let range = |pair: &[u8; 16]| {
        let both = u128::from_le_bytes(*pair);
        let start = u64::try_from(both & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        let len = u64::try_from(both >> 64).unwrap_or(u64::MAX);
        start..start.saturating_add(len)
    };
    Ok(pairs.iter().map(range).collect())
}

impl Host for Soft {
    fn cuMemAlloc_v2(&self, thread: &mut Thread, size: usize, avoid: &[u8]) -> CuResult<CUdeviceptr> {
        let context = self.context(thread)?;
        if size == 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let memory = &self.device.memory;
        let start = memory.allocate(size as u64, ranges(avoid)?, context.id, Purpose::Memory)?;
        if !context.alive() {
            // The context went meanwhile, and what belonged to it: nobody would free this.
            memory.free_context(context.id);
            return Err(CUresult::CONTEXT_IS_DESTROYED);
        }
        Ok(start)
    }

    fn cuMemFree_v2(&self, thread: &mut Thread, dptr: CUdeviceptr) -> CuResult<()> {
        if dptr == 0 {
            return Ok(());
        }
        self.context(thread)?;
        if self.device.memory.is_pooled(dptr) {
            self.device.memory.end_pooled(dptr)?;
            self.device.wait_idle(None, None)?;
            self.device.memory.park(dptr);
            return Ok(());
        }
        if !self.device.memory.is_base(dptr) {
            return Err(CUresult::INVALID_VALUE);
        }
        self.device.wait_idle(None, None)?;
        self.device.memory.free(&[dptr], &[Purpose::Memory])
    }

    fn cuMemGetInfo_v2(&self, thread: &mut Thread) -> CuResult<(usize, usize)> {
        let device = self.context(thread)?.device;
        let (free, total) = self.device.memory.info(device);
        let size = |bytes| usize::try_from(bytes).map_err(|_| CUresult::UNKNOWN);
        Ok((size(free)?, size(total)?))
    }

    fn vgpuPointerAttribute(&self, thread: &mut Thread, ptr: CUdeviceptr, attribute: u32) -> CuResult<u64> {
        let (flags, device) = self.device.memory.reach(ptr, self.viewer(thread)?)?;
        match attribute {
            attr::DEVICE_POINTER if flags != 0 => Ok(ptr),
            attr::DEVICE_POINTER => Err(CUresult::INVALID_VALUE),
            attr::DEVICE_ORDINAL => Ok(device as u64),
            attr::MAPPED => Ok(1),
            attr::ACCESS_FLAGS => u64::try_from(flags).map_err(|_| CUresult::UNKNOWN),
            // What the driver knows by grouping allocations: here there are no groups.
            _ => Err(CUresult::NOT_SUPPORTED),
        }
    }

    fn cuMemHostRegister_v2(
        &self,
        thread: &mut Thread,
        address: u64,
        len: usize,
        flags: u32,
    ) -> CuResult<()> {
        self.context(thread)?;
        if flags & !0xf != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if flags & HOST_REGISTER_IOMEMORY != 0 {
            self.warn_once("cuMemHostRegister: memory of devices is not supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        self.device.memory.register(address, len as u64, flags & HOST_REGISTER_READ_ONLY != 0)
    }

    fn cuMemHostUnregister(&self, thread: &mut Thread, address: u64) -> CuResult<()> {
        self.context(thread)?;
        if !self.device.memory.is_registered(address) {
            return Err(CUresult::HOST_MEMORY_NOT_REGISTERED);
        }
        self.device.wait_idle(None, None)?;
        self.device.memory.unregister(address)
    }
}
