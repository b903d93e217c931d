//! What devices can do with one another and with the host's memory, and the structure of attributes of CUDA 2.

use std::ffi::c_void;

use cuda_api::guest::{finish, not_null};
use cuda_api::info::{ATOMIC_OPERATIONS, Link};
use cuda_api::types::{CUdevice, attribute};
use cuda_api::{CUresult, CuResult};

use crate::process::initialised;

/// cuDeviceGetExecAffinitySupport: a context can be kept to some multiprocessors where MPS serves it, and it does not.
/// Nor does it have any other type of affinity, of which driver 580 says so alike.
pub unsafe fn cuDeviceGetExecAffinitySupport(to: *mut i32, _kind: u32, dev: CUdevice) -> CUresult {
    finish((|| {
        initialised()?.device(dev)?;
        not_null(to)?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { to.write(0) };
        Ok(())
    })())
}

/// What a device can do natively, of the operations that are asked for.
///
/// # Safety
/// Both arrays have `count` elements, or are NULL.
unsafe fn give_atomics(
    known: &[u32; ATOMIC_OPERATIONS],
    capabilities: *mut u32,
    operations: *const u32,
    count: u32,
) -> CuResult<()> {
    not_null(capabilities)?;
    not_null(operations.cast_mut())?;
    if count == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    let mut found = Vec::new();
    for i in 0..count as usize {
        // SAFETY: i < count.
        let operation = unsafe { operations.add(i).read() };
        found.push(*known.get(operation as usize).ok_or(CUresult::INVALID_VALUE)?);
    }
    for (i, capability) in found.into_iter().enumerate() {
        // SAFETY: i < count.
        unsafe { capabilities.add(i).write(capability) };
    }
    Ok(())
}

/// cuDeviceGetHostAtomicCapabilities: as device attribute 86 says, the guest's memory is behind no link that has any.
pub unsafe fn cuDeviceGetHostAtomicCapabilities(
    capabilities: *mut u32,
    operations: *const u32,
    count: u32,
    dev: CUdevice,
) -> CUresult {
    finish((|| {
        initialised()?.device(dev)?;
        // SAFETY: CUDA's contract with the caller.
        unsafe { give_atomics(&Link::NONE.atomics, capabilities, operations, count) }
    })())
}

/// What the link between two devices can do, which are not the same.
fn pair(from: CUdevice, to: CUdevice) -> CuResult<&'static Link> {
    let link = initialised()?.link(from, to)?;
    if from == to { Err(CUresult::INVALID_DEVICE) } else { Ok(link) }
}

/// cuDeviceGetP2PAtomicCapabilities.
pub unsafe fn cuDeviceGetP2PAtomicCapabilities(
    capabilities: *mut u32,
    operations: *const u32,
    count: u32,
    from: CUdevice,
    to: CUdevice,
) -> CUresult {
    finish((|| {
        let link = pair(from, to)?;
        // SAFETY: CUDA's contract with the caller.
        unsafe { give_atomics(&link.atomics, capabilities, operations, count) }
    })())
}

/// cuDeviceGetP2PAttribute.
pub unsafe fn cuDeviceGetP2PAttribute(
    value: *mut i32,
    number: u32,
    from: CUdevice,
    to: CUdevice,
) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(value)?;
        let link = pair(from, to)?;
        let index = (number as usize).checked_sub(1).ok_or(CUresult::INVALID_VALUE)?;
        let found = (*link.attributes.get(index).ok_or(CUresult::INVALID_VALUE)?)?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { value.write(found) };
        Ok(())
    })())
}

/// The attributes of a CUdevprop in its order: threads of a block, its dimensions, the grid's, shared memory of a block, constant
/// memory, warp size, pitch, registers of a block, clock rate, texture alignment.
const PROPERTIES: [i32; 14] =
    [attribute::MAX_THREADS_PER_BLOCK, 2, 3, 4, 5, 6, 7, 8, 9, attribute::WARP_SIZE, 11, 12, 13, 14];

/// cuDeviceGetProperties.
pub unsafe fn cuDeviceGetProperties(to: *mut c_void, dev: CUdevice) -> CUresult {
    finish((|| {
        let device = initialised()?.device(dev)?;
        not_null(to)?;
        let mut values = [0i32; PROPERTIES.len()];
        for (value, number) in values.iter_mut().zip(PROPERTIES) {
            *value = device.attribute(number)?;
        }
        // SAFETY: not NULL; a CUdevprop by CUDA's contract, which is these ints.
        unsafe { to.cast::<[i32; PROPERTIES.len()]>().write_unaligned(values) };
        Ok(())
    })())
}
