//! What a device is set to, as far as it means anything in a VM.

use std::ffi::c_uint;

use crate::answer::{Answer, Return, give};
use crate::machine::{Gpu, Handle, Machine};

const COMPUTE_MODE: i32 = 20;
const ECC_ENABLED: i32 = 32;
const DISABLED: u32 = 0;

/// nvmlDeviceGetComputeMode.
pub unsafe fn compute_mode(_: &Machine, gpu: &Gpu, mode: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for the enumeration.
    unsafe { give(mode, gpu.attribute(COMPUTE_MODE).ok_or(Return::NOT_SUPPORTED)?) }
}

/// Whether errors in memory are corrected. A device that does not is one that cannot, as far as is known.
///
/// # Errors
/// NOT_SUPPORTED where it does not.
pub fn ecc(gpu: &Gpu) -> Answer<u32> {
    gpu.known(ECC_ENABLED)
}

/// nvmlDeviceGetEccMode: nothing in a VM changes it, so that what is pending is what is.
pub unsafe fn ecc_mode(_: &Machine, gpu: &Gpu, current: *mut c_uint, pending: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for the enumeration each.
    unsafe { twice(current, pending, ecc(gpu)?) }
}

/// # Safety
/// Both are NULL or have room for the enumeration.
unsafe fn twice(current: *mut c_uint, pending: *mut c_uint, value: u32) -> Answer {
    if current.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: by this function's contract.
    unsafe { give(pending, value).and(give(current, value)) }
}

/// nvmlDeviceGetMigMode: a VM cannot divide its devices.
pub unsafe fn mig_mode(_: &Machine, _: &Gpu, current: *mut c_uint, pending: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int each.
    unsafe { twice(current, pending, DISABLED) }
}

/// What no device of a VM is or has: a display, parts.
pub unsafe fn no(_: &Machine, _: &Gpu, answer: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int or an enumeration.
    unsafe { give(answer, 0) }
}

/// nvmlDeviceGetSupportedEventTypes: none.
pub unsafe fn no_events(_: &Machine, _: &Gpu, types: *mut u64) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned long long.
    unsafe { give(types, 0) }
}

/// nvmlDeviceGetMigDeviceHandleByIndex: there is none.
pub unsafe fn no_part(_: &Machine, _: &Gpu, _: c_uint, _: *mut Handle) -> Answer {
    Err(Return::NOT_FOUND)
}
