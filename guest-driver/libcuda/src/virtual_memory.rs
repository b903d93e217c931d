//! Reserved addresses of virtual memory management: reserved in this process as well.

use cuda_api::CUresult;
use cuda_api::calls::virtual_memory::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::CUdeviceptr;

use crate::gate;
use crate::process::initialised;
use crate::ranges::{Range, RangeKind};

/// cuMemAddressReserve.
pub unsafe fn cuMemAddressReserve(
    ptr: *mut CUdeviceptr,
    size: usize,
    alignment: usize,
    addr: CUdeviceptr,
    flags: u64,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(ptr)?;
        let at = gate::call::<row::cuMemAddressReserve>((size, alignment, addr, flags, &[]))?;
        if process.reservations.hold(at, size as u64).is_err() {
            if let Err(error) = gate::call::<row::cuMemAddressFree>((at, size)) {
                crate::log::say(|| format!("clashing addresses are not given back: {error}"));
            }
            return Err(CUresult::OUT_OF_MEMORY);
        }
        process.ranges.insert(Range {
            start: at,
            len: size as u64,
            kind: RangeKind::Reserved,
            context: crate::context::owner(crate::thread::current_context()).0,
            device: 0,
            id: 0,
            read_only: false,
            owner: 0,
        });
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { ptr.write(at) };
        Ok(())
    })())
}

/// cuMemAddressFree.
pub unsafe fn cuMemAddressFree(ptr: CUdeviceptr, size: usize) -> CUresult {
    finish((|| {
        let process = initialised()?;
        match process.ranges.find(ptr) {
            Some(r) if r.start == ptr && r.len == size as u64 && r.kind == RangeKind::Reserved => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        gate::call::<row::cuMemAddressFree>((ptr, size))?;
        process.ranges.remove(ptr);
        process.reservations.release(ptr, size as u64);
        Ok(())
    })())
}
