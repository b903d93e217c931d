//! Devices: everything is known since cuInit.

use std::ffi::{CStr, c_char};

use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUdevice, CUuuid, attribute};
use cuda_api::{CUresult, CuResult};

use crate::process::initialised;

/// Writes a result where the caller wants it.
///
/// # Safety
/// `to` is NULL or has room for a `T`.
unsafe fn give<T>(to: *mut T, value: T) -> CuResult<()> {
    not_null(to)?;
    // SAFETY: not NULL, and room by this function's contract.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// cuDeviceGet.
pub unsafe fn cuDeviceGet(device: *mut CUdevice, ordinal: i32) -> CUresult {
    finish((|| {
        initialised()?.device(ordinal)?;
        // SAFETY: CUDA's contract: room for an int.
        unsafe { give(device, ordinal) }
    })())
}

/// cuDeviceGetCount.
pub unsafe fn cuDeviceGetCount(count: *mut i32) -> CUresult {
    finish((|| {
        let devices = initialised()?.devices().len();
        // SAFETY: CUDA's contract: room for an int.
        unsafe { give(count, i32::try_from(devices).unwrap_or(0)) }
    })())
}

/// Writes text, cut to the room there is, with its NUL.
///
/// # Safety
/// `to` has room for `len` bytes.
unsafe fn give_text(to: *mut c_char, len: i32, text: &str) -> CuResult<()> {
    not_null(to)?;
    let room = usize::try_from(len).unwrap_or(0);
    if room == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    let count = text.len().min(room - 1);
    // SAFETY: `count` bytes and the NUL fit the room.
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr().cast(), count);
        to.add(count).write(0);
    }
    Ok(())
}

/// cuDeviceGetName.
pub unsafe fn cuDeviceGetName(name: *mut c_char, len: i32, dev: CUdevice) -> CUresult {
    finish((|| {
        let device = initialised()?.device(dev)?;
        // SAFETY: CUDA's contract: room for `len` bytes.
        unsafe { give_text(name, len, &device.name) }
    })())
}

/// cuDeviceGetUuid.
pub unsafe fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) -> CUresult {
    finish((|| {
        let device = initialised()?.device(dev)?;
        // SAFETY: CUDA's contract: room for 16 bytes.
        unsafe { give(uuid, CUuuid { bytes: device.uuid }) }
    })())
}

/// cuDeviceTotalMem.
pub unsafe fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> CUresult {
    finish((|| {
        let device = initialised()?.device(dev)?;
        // SAFETY: CUDA's contract: room for a size_t.
        unsafe { give(bytes, device.total_memory_bytes as usize) }
    })())
}

/// cuDeviceGetAttribute.
pub unsafe fn cuDeviceGetAttribute(pi: *mut i32, attrib: i32, dev: CUdevice) -> CUresult {
    finish((|| {
        not_null(pi)?;
        let value = initialised()?.device(dev)?.attribute(attrib)?;
        // SAFETY: CUDA's contract: room for an int.
        unsafe { give(pi, value) }
    })())
}

fn pci_text(dev: CUdevice) -> CuResult<String> {
    let device = initialised()?.device(dev)?;
    Ok(format!(
        "{:04X}:{:02X}:{:02X}.0",
        device.attribute(attribute::PCI_DOMAIN_ID)?,
        device.attribute(attribute::PCI_BUS_ID)?,
        device.attribute(attribute::PCI_DEVICE_ID)?
    ))
}

/// cuDeviceGetPCIBusId.
pub unsafe fn cuDeviceGetPCIBusId(text: *mut c_char, len: i32, dev: CUdevice) -> CUresult {
    finish((|| {
        let address = pci_text(dev)?;
        if usize::try_from(len).is_ok_and(|room| room <= address.len()) {
            // Half an address is none.
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: CUDA's contract: room for `len` bytes.
        unsafe { give_text(text, len, &address) }
    })())
}

/// `[domain:]bus:device[.function]` in hexadecimal.
fn parse_pci(text: &str) -> Option<(i32, i32, i32)> {
    let (address, function) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<i32> =
        address.split(':').map(|p| i32::from_str_radix(p, 16).ok()).collect::<Option<_>>()?;
    if i32::from_str_radix(function, 16).ok()? != 0 {
        return None;
    }
    match parts[..] {
        [domain, bus, device] => Some((domain, bus, device)),
        [bus, device] => Some((0, bus, device)),
        _ => None,
    }
}

/// cuDeviceGetByPCIBusId.
pub unsafe fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, text: *const c_char) -> CUresult {
    finish((|| {
        not_null(text.cast_mut())?;
        // SAFETY: CUDA's contract: a NUL-terminated string.
        let text = unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| CUresult::INVALID_VALUE)?;
        let wanted = parse_pci(text).ok_or(CUresult::INVALID_VALUE)?;
        let process = initialised()?;
        let found = process.devices().iter().position(|d| {
            [attribute::PCI_DOMAIN_ID, attribute::PCI_BUS_ID, attribute::PCI_DEVICE_ID]
                .map(|a| d.attribute(a))
                == [Ok(wanted.0), Ok(wanted.1), Ok(wanted.2)]
        });
        // SAFETY: CUDA's contract: room for an int.
        unsafe { give(dev, found.and_then(|i| i32::try_from(i).ok()).ok_or(CUresult::INVALID_DEVICE)?) }
    })())
}

/// cuDeviceComputeCapability.
pub unsafe fn cuDeviceComputeCapability(major: *mut i32, minor: *mut i32, dev: CUdevice) -> CUresult {
    finish((|| {
        let device = initialised()?.device(dev)?;
        // SAFETY: CUDA's contract: room for an int each.
        unsafe {
            give(major, device.attribute(attribute::COMPUTE_CAPABILITY_MAJOR)?)?;
            give(minor, device.attribute(attribute::COMPUTE_CAPABILITY_MINOR)?)
        }
    })())
}

/// cuDeviceCanAccessPeer: not to its own memory, which it need not be given.
pub unsafe fn cuDeviceCanAccessPeer(can: *mut i32, dev: CUdevice, peer: CUdevice) -> CUresult {
    finish((|| {
        let process = initialised()?;
        let link = process.link(dev, peer)?;
        // SAFETY: CUDA's contract: room for an int.
        unsafe { give(can, i32::from(dev != peer && link.can_access)) }
    })())
}

#[cfg(test)]
mod tests {
    use super::parse_pci;

    #[test]
    fn pci_addresses() {
        assert_eq!(parse_pci("0000:01:00.0"), Some((0, 1, 0)));
        assert_eq!(parse_pci("00000001:0A:1f.0"), Some((1, 10, 31)));
        assert_eq!(parse_pci("0a:00"), Some((0, 10, 0)));
        assert_eq!(parse_pci("0a:00.1"), None);
        assert_eq!(parse_pci("nonsense"), None);
    }
}
