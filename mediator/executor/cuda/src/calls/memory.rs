//! Device and host memory.

use std::ffi::c_void;

use cuda_api::CuResult;
use cuda_api::account::counted_bytes;
use cuda_api::calls::memory::Host;
use cuda_api::host::Access;
use cuda_api::types::{pointer_attribute as attr, *};

use crate::Cuda;
use crate::memory::FreedKind;
use crate::ranges::Avoid;
use crate::thread::Thread;

/// How often an allocation is tried elsewhere.
const TRIES_MAX: usize = 32;
/// Bytes of a block of device addresses: an allocation of this size has one of its own.
const BLOCK_BYTES: usize = 2 << 20;

const REGISTER_PORTABLE: u32 = 1;
const REGISTER_DEVICEMAP: u32 = 2;
const REGISTER_IOMEMORY: u32 = 4;
const REGISTER_READ_ONLY: u32 = 8;

/// A guest's host address as an address of this process: the worker has mapped the guest's pages there.
pub(crate) fn host_address(address: u64) -> *mut c_void {
    // Addresses are 64 bits wide wherever the driver runs.
    #[allow(clippy::cast_possible_truncation)]
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Asks until the answer lies where the guest has room. What lies elsewhere is given back last: else it would come again.
pub(crate) fn placed(
    avoid: &Avoid,
    len: u64,
    mut ask: impl FnMut() -> CuResult<u64>,
    mut give_back: impl FnMut(u64) -> CuResult<()>,
) -> CuResult<u64> {
    let mut clashing = Vec::new();
    let outcome = loop {
        match ask() {
            Ok(at) if !avoid.meets(at, len) => break Ok(at),
            Ok(at) => clashing.push(at),
            Err(error) => break Err(error),
        }
        if clashing.len() == TRIES_MAX {
            break Err(CUresult::OUT_OF_MEMORY);
        }
    };
    for at in clashing {
        give_back(at)?;
    }
    outcome
}

impl Cuda {
    fn free(&self, address: u64) -> CuResult<()> {
        // SAFETY: an allocation of cuMemAlloc that nobody else frees: it is in no map, or was just taken out of it.
        unsafe { self.driver.cuMemFree_v2(address) }
    }

    fn register(&self, address: u64, len: usize, flags: u32) -> CuResult<()> {
        let at = host_address(address);
        // SAFETY: mapped guest memory that stays until `region_unmapping` has unregistered it (checked by the caller).
        unsafe { self.driver.cuMemHostRegister_v2(at, len, flags) }?;
        // SAFETY: just registered.
        let device = unsafe { self.driver.cuMemHostGetDevicePointer_v2(at, 0) };
        match device {
            Ok((device,)) if device == address => Ok(()),
            other => {
                self.unregister(address)?;
                let (device,) = other?;
                log::warn!(
                    "host memory at {address:#x} is {device:#x} for the device, which is not supported"
                );
                Err(CUresult::NOT_SUPPORTED)
            }
        }
    }

    fn unregister(&self, address: u64) -> CuResult<()> {
        // SAFETY: registered at this address, and unregistered once.
        unsafe { self.driver.cuMemHostUnregister(host_address(address)) }
    }
}

impl Host for Cuda {
    fn cuMemAlloc_v2(&self, thread: &mut Thread, size: usize, avoid: &[u8]) -> CuResult<CUdeviceptr> {
        let owner = thread.owner()?;
        let (context, device) = (owner.id, owner.device);
        let avoid = Avoid::read(avoid)?;
        let len = size as u64;
        self.take(device, counted_bytes(len))?;
        // Small allocations share blocks, also with what is to be avoided: a whole block is asked for then.
        let ask_for = if avoid.is_empty() { size } else { size.max(BLOCK_BYTES) };
        let ask = || self.driver.cuMemAlloc_v2(ask_for).map(|(at,)| at);
        let outcome = placed(&avoid, len, ask, |at| self.free(at)).and_then(|at| {
            // The driver gives whole granules: two allocations never overlap.
            self.memory.add_device(at, len, context, device).map(|()| at).inspect_err(|_| {
                let _ = self.free(at);
            })
        });
        outcome.inspect_err(|_| self.give_back(device, counted_bytes(len)))
    }

    fn cuMemFree_v2(&self, _: &mut Thread, dptr: CUdeviceptr) -> CuResult<()> {
        if dptr == 0 {
            return Ok(());
        }
        if self.memory.freed_kind(dptr)? != FreedKind::Device {
            return self.free_pooled(dptr);
        }
        let (len, device) = self.memory.remove_device(dptr)?;
        self.ipc.forget_memory(dptr);
        self.free(dptr)?;
        self.give_back(device, counted_bytes(len));
        Ok(())
    }

    fn cuMemGetInfo_v2(&self, thread: &mut Thread) -> CuResult<(usize, usize)> {
        let (free, total) = self.driver.cuMemGetInfo_v2()?;
        let device = self.counted_as(thread.context()?.device);
        let Some(quota) = self.account.quota(device) else { return Ok((free, total)) };
        self.settle_reserves(false);
        let left = quota.saturating_sub(self.account.used(device));
        let least = |bytes: usize, most: u64| usize::try_from(most).map_or(bytes, |most| bytes.min(most));
        Ok((least(free, left), least(total, quota)))
    }

    fn cuMemHostRegister_v2(
        &self,
        thread: &mut Thread,
        address: u64,
        len: usize,
        flags: u32,
    ) -> CuResult<()> {
        thread.context()?;
        if len == 0
            || flags & !(REGISTER_PORTABLE | REGISTER_DEVICEMAP | REGISTER_IOMEMORY | REGISTER_READ_ONLY) != 0
        {
            return Err(CUresult::INVALID_VALUE);
        }
        if flags & REGISTER_IOMEMORY != 0 {
            self.warn_once("cuMemHostRegister: memory of devices is not supported");
            return Err(CUresult::NOT_SUPPORTED);
        }
        let writable = self.memory.region(address, len as u64)?;
        let read_only = !writable || flags & REGISTER_READ_ONLY != 0;
        let flags = REGISTER_PORTABLE | REGISTER_DEVICEMAP | if read_only { REGISTER_READ_ONLY } else { 0 };
        self.register(address, len, flags)?;
        self.memory.add_registered(address, len as u64, read_only).inspect_err(|_| {
            let _ = self.unregister(address);
        })
    }

    fn cuMemHostUnregister(&self, thread: &mut Thread, address: u64) -> CuResult<()> {
        thread.context()?;
        self.memory.remove_registered(address)?;
        self.unregister(address)
    }

    fn vgpuPointerAttribute(&self, _: &mut Thread, ptr: CUdeviceptr, attribute: u32) -> CuResult<u64> {
        // A mapping that nobody may access has attributes, too.
        self.memory.check(ptr, 1, Access::Read).or_else(|_| self.memory.check_in_mapping(ptr))?;
        if !matches!(
            attribute,
            attr::SYNC_MEMOPS
                | attr::RANGE_START_ADDR
                | attr::RANGE_SIZE
                | attr::DEVICE_POINTER
                | attr::DEVICE_ORDINAL
                | attr::MAPPED
                | attr::ACCESS_FLAGS
        ) {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut value = 0u64;
        // SAFETY: room for the largest of these, 64 bits; a smaller one leaves the rest 0.
        unsafe { self.driver.cuPointerGetAttribute((&raw mut value).cast(), attribute, ptr) }?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn avoid(start: u64, len: u64) -> Avoid {
        Avoid::read(&[start.to_le_bytes(), len.to_le_bytes()].concat()).unwrap()
    }

    #[test]
    fn a_clashing_address_is_kept_until_another_is_found() {
        let events = RefCell::new(Vec::new());
        let mut next = [0x10_0000u64, 0x20_0000, 0x40_0000].into_iter();
        let ask = || {
            let at = next.next().ok_or(CUresult::OUT_OF_MEMORY)?;
            events.borrow_mut().push(("ask", at));
            Ok(at)
        };
        let give_back = |at| {
            events.borrow_mut().push(("free", at));
            Ok(())
        };
        assert_eq!(placed(&avoid(0, 0x30_0000), 0x1000, ask, give_back), Ok(0x40_0000));
        let expected = [
            ("ask", 0x10_0000),
            ("ask", 0x20_0000),
            ("ask", 0x40_0000),
            ("free", 0x10_0000),
            ("free", 0x20_0000),
        ];
        assert_eq!(events.into_inner(), expected);
    }

    #[test]
    fn where_nothing_else_is_found_nothing_is_kept() {
        let mut held = 0;
        let outcome = placed(
            &avoid(0, u64::MAX),
            1,
            || Ok(0x1000),
            |_| {
                held += 1;
                Ok(())
            },
        );
        assert_eq!((outcome, held), (Err(CUresult::OUT_OF_MEMORY), TRIES_MAX));
        let outcome = placed(&avoid(0, 1), 1, || Err(CUresult::ILLEGAL_ADDRESS), |_| Ok(()));
        assert_eq!(outcome, Err(CUresult::ILLEGAL_ADDRESS));
    }
}
