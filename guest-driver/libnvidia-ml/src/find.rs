//! Counting devices, and finding one.

use std::ffi::{c_char, c_uint};

use crate::answer::{Answer, Return, give, text_of, version, version_of};
use crate::machine::{Gpu, Handle, Machine, PciAddress};

/// nvmlUUID_t, version 1: a UUID as text or as bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Uuid {
    version: u32,
    kind: u32,
    /// Text of up to 41 bytes with its NUL, or 16 bytes.
    value: [u8; 41],
}

const UUID_TEXT: u32 = 1;
const UUID_BYTES: u32 = 2;

/// nvmlDeviceGetCount.
pub unsafe fn count(machine: &Machine, count: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(count, c_uint::try_from(machine.gpus.len()).unwrap_or(0)) }
}

/// nvmlDeviceGetHandleByIndex.
pub unsafe fn by_index(machine: &Machine, index: c_uint, device: *mut Handle) -> Answer {
    let gpu = machine.gpus.get(index as usize).ok_or(Return::INVALID_ARGUMENT)?;
    // SAFETY: NVML's contract: room for a handle.
    unsafe { give(device, gpu.handle()) }
}

/// Gives the one device that is meant.
///
/// # Safety
/// `device` is NULL or has room for a handle.
unsafe fn found(machine: &Machine, device: *mut Handle, is_meant: impl Fn(&&Gpu) -> bool) -> Answer {
    if device.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    let gpu = machine.gpus.iter().find(is_meant).ok_or(Return::NOT_FOUND)?;
    // SAFETY: by this function's contract.
    unsafe { give(device, gpu.handle()) }
}

/// nvmlDeviceGetHandleByPciBusId.
pub unsafe fn by_pci(machine: &Machine, address: *const c_char, device: *mut Handle) -> Answer {
    // SAFETY: NVML's contract: a NUL-terminated string.
    let address = PciAddress::parse(&unsafe { text_of(address) }?).ok_or(Return::INVALID_ARGUMENT)?;
    // SAFETY: NVML's contract: room for a handle.
    unsafe { found(machine, device, |gpu| gpu.pci == address) }
}

/// nvmlDeviceGetHandleByUUID.
pub unsafe fn by_uuid(machine: &Machine, uuid: *const c_char, device: *mut Handle) -> Answer {
    // SAFETY: NVML's contract: a NUL-terminated string.
    let uuid = unsafe { text_of(uuid) }?;
    // SAFETY: NVML's contract: room for a handle.
    unsafe { found(machine, device, |gpu| gpu.uuid_text().eq_ignore_ascii_case(&uuid)) }
}

/// nvmlDeviceGetHandleByUUIDV.
pub unsafe fn by_uuid_of_kind(machine: &Machine, uuid: *const Uuid, device: *mut Handle) -> Answer {
    // SAFETY: NVML's contract: a structure that begins with its version.
    if unsafe { version_of(uuid) }? != version::<Uuid>(1) {
        return Err(Return::ARGUMENT_VERSION_MISMATCH);
    }
    // SAFETY: the caller said that it is a structure of this version.
    let Uuid { kind, value, .. } = unsafe { uuid.read_unaligned() };
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    match kind {
        // SAFETY: NVML's contract: room for a handle.
        UUID_TEXT => unsafe {
            found(machine, device, |gpu| gpu.uuid_text().as_bytes().eq_ignore_ascii_case(text))
        },
        // SAFETY: as above.
        UUID_BYTES => unsafe { found(machine, device, |gpu| value.starts_with(&gpu.info.uuid)) },
        _ => Err(Return::INVALID_ARGUMENT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::two;

    #[test]
    fn devices_are_found_by_address_and_uuid() {
        let machine = two();
        let mut found = std::ptr::null();
        let mut pci = |text: &std::ffi::CStr| {
            // SAFETY: a string, and room for a handle.
            unsafe { by_pci(&machine, text.as_ptr(), &raw mut found) }.map(|()| found)
        };
        assert_eq!(pci(c"0000:c1:00.0"), Ok(machine.gpus[1].handle()));
        assert_eq!(pci(c"00000000:1A:00.0"), Ok(machine.gpus[0].handle()));
        assert_eq!(pci(c"0000:c2:00.0"), Err(Return::NOT_FOUND));
        assert_eq!(pci(c"nowhere"), Err(Return::INVALID_ARGUMENT));
        let mut uuid = |text: &std::ffi::CStr| {
            // SAFETY: as above.
            unsafe { by_uuid(&machine, text.as_ptr(), &raw mut found) }.map(|()| found)
        };
        assert_eq!(uuid(c"GPU-30313233-3435-3637-3839-616263646566"), Ok(machine.gpus[0].handle()));
        assert_eq!(uuid(c"GPU-30313233-3435-3637-3839-616263646567"), Err(Return::NOT_FOUND));
    }

    #[test]
    fn a_uuid_comes_as_text_or_as_bytes_with_its_version() {
        let machine = two();
        let mut value = [0; 41];
        value[..16].copy_from_slice(b"0123456789abcdef");
        let mut asked = Uuid { version: version::<Uuid>(1), kind: UUID_BYTES, value };
        let mut found = std::ptr::null();
        let mut ask = |asked: &Uuid| {
            // SAFETY: a structure, and room for a handle.
            unsafe { by_uuid_of_kind(&machine, asked, &raw mut found) }
        };
        assert_eq!(ask(&asked), Ok(()));
        asked.value[..40].copy_from_slice(b"GPU-30313233-3435-3637-3839-616263646566");
        asked.kind = UUID_TEXT;
        assert_eq!(ask(&asked), Ok(()));
        asked.version += 1;
        assert_eq!(ask(&asked), Err(Return::ARGUMENT_VERSION_MISMATCH));
    }
}
