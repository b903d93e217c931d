//! What a device is: name, numbers, addresses, what it was built with.

use std::ffi::{c_char, c_int, c_uint};

use cuda_api::live::number;
use cuda_api::types::attribute;

use crate::answer::{Answer, Return, give, give_text, text_array};
use crate::live;
use crate::machine::{Gpu, Handle, Machine, PciAddress};

/// nvmlPciInfo_t of NVML 1 and 2. Version 1 ends before the subsystem.
#[repr(C)]
pub struct PciInfoV1 {
    address: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    device_id: c_uint,
}

/// What nvmlDeviceGetPciInfo_v2 writes; four reserved words follow, which are left as they are.
#[repr(C)]
pub struct PciInfoV2 {
    first: PciInfoV1,
    subsystem_id: c_uint,
}

/// nvmlPciInfo_t.
#[repr(C)]
pub struct PciInfo {
    /// As in version 2.
    pub first: PciInfoV2,
    /// With a domain of 8 digits.
    pub address: [c_char; 32],
}

const GLOBAL_MEMORY_BUS_WIDTH: i32 = 37;
const MULTI_GPU_BOARD: i32 = 84;
const MULTI_GPU_BOARD_GROUP_ID: i32 = 85;
const BUS_PCIE: u32 = 2;
const ARCHITECTURE_UNKNOWN: u32 = u32::MAX;
const BRAND_UNKNOWN: u32 = 0;

impl PciInfoV2 {
    /// Of an address, and of what lies there; 0 where that is not known.
    pub fn of(pci: PciAddress, device_id: c_uint, subsystem_id: c_uint) -> Self {
        let PciAddress { domain, bus, device } = pci;
        Self {
            first: PciInfoV1 { address: text_array(&pci.text(4)), domain, bus, device, device_id },
            subsystem_id,
        }
    }
}

/// nvmlDeviceGetName.
pub unsafe fn name(_: &Machine, gpu: &Gpu, name: *mut c_char, length: c_uint) -> Answer {
    // SAFETY: NVML's contract: room for `length` bytes.
    unsafe { give_text(name, length, &gpu.info.name) }
}

/// nvmlDeviceGetUUID.
pub unsafe fn uuid(_: &Machine, gpu: &Gpu, uuid: *mut c_char, length: c_uint) -> Answer {
    // SAFETY: NVML's contract: room for `length` bytes.
    unsafe { give_text(uuid, length, &gpu.uuid_text()) }
}

/// nvmlDeviceGetIndex, and nvmlDeviceGetMinorNumber: the guest has no device files with other numbers.
pub unsafe fn index(_: &Machine, gpu: &Gpu, index: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(index, c_uint::try_from(gpu.index).map_err(|_| Return::UNKNOWN)?) }
}

/// nvmlDeviceGetCudaComputeCapability.
pub unsafe fn capability(_: &Machine, gpu: &Gpu, major: *mut c_int, minor: *mut c_int) -> Answer {
    let (m, n) = gpu.capability().ok_or(Return::UNKNOWN)?;
    let int = |value| c_int::try_from(value).map_err(|_| Return::UNKNOWN);
    if minor.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: NVML's contract: room for an int each.
    unsafe { give(major, int(m)?).and(give(minor, int(n)?)) }
}

fn pci_v2(gpu: &Gpu) -> Answer<PciInfoV2> {
    // What the card calls itself only the host's NVML knows; 0 is nobody's number.
    let readings = live::readings()?;
    let id = |name| {
        live::number_of(readings.as_ref(), gpu, name).and_then(|id| c_uint::try_from(id).ok()).unwrap_or(0)
    };
    Ok(PciInfoV2::of(gpu.pci, id(number::PCI_ID), id(number::PCI_SUBSYSTEM)))
}

/// nvmlDeviceGetPciInfo.
pub unsafe fn pci_info_v1(_: &Machine, gpu: &Gpu, pci: *mut PciInfoV1) -> Answer {
    // SAFETY: NVML's contract: room for the structure of that version.
    unsafe { give(pci, pci_v2(gpu)?.first) }
}

/// nvmlDeviceGetPciInfo_v2.
pub unsafe fn pci_info_v2(_: &Machine, gpu: &Gpu, pci: *mut PciInfoV2) -> Answer {
    // SAFETY: as above.
    unsafe { give(pci, pci_v2(gpu)?) }
}

/// nvmlDeviceGetPciInfo_v3.
pub unsafe fn pci_info(_: &Machine, gpu: &Gpu, pci: *mut PciInfo) -> Answer {
    // SAFETY: as above.
    unsafe { give(pci, PciInfo { first: pci_v2(gpu)?, address: text_array(&gpu.pci.text(8)) }) }
}

/// nvmlDeviceGetBusType.
pub unsafe fn bus_type(_: &Machine, _: &Gpu, kind: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(kind, BUS_PCIE) }
}

/// nvmlDeviceGetBrand: nobody but the host's NVML knows the brand of a card.
pub unsafe fn brand(_: &Machine, gpu: &Gpu, brand: *mut c_uint) -> Answer {
    let known = match live::fixed(gpu, number::BRAND) {
        Err(Return::NOT_SUPPORTED) => BRAND_UNKNOWN,
        known => known?,
    };
    // SAFETY: NVML's contract: room for the enumeration.
    unsafe { give(brand, known) }
}

/// The architecture's number of a compute capability.
fn architecture_of(capability: (u32, u32)) -> u32 {
    match capability {
        (3, _) => 2,
        (5, _) => 3,
        (6, _) => 4,
        (7, 0..=2) => 5,
        (7, _) => 6,
        (8, 9) => 8,
        (8, _) => 7,
        (9, _) => 9,
        (10..=12, _) => 10,
        _ => ARCHITECTURE_UNKNOWN,
    }
}

/// Cores of a multiprocessor of that compute capability.
fn cores_of(capability: (u32, u32)) -> Option<u32> {
    match capability {
        (5, _) | (6, 1 | 2) | (8, 6..=9) | (9..=12, _) => Some(128),
        (6, 0) | (7, _) | (8, 0) => Some(64),
        _ => None,
    }
}

/// nvmlDeviceGetArchitecture.
pub unsafe fn architecture(_: &Machine, gpu: &Gpu, architecture: *mut c_uint) -> Answer {
    let found = gpu.capability().map_or(ARCHITECTURE_UNKNOWN, architecture_of);
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(architecture, found) }
}

/// nvmlDeviceGetNumGpuCores.
pub unsafe fn cores(_: &Machine, gpu: &Gpu, cores: *mut c_uint) -> Answer {
    let each = gpu.capability().and_then(cores_of).ok_or(Return::NOT_SUPPORTED)?;
    let count = gpu.known(attribute::MULTIPROCESSOR_COUNT)?;
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(cores, each.checked_mul(count).ok_or(Return::UNKNOWN)?) }
}

/// nvmlDeviceGetMemoryBusWidth, in bits.
pub unsafe fn memory_bus_width(_: &Machine, gpu: &Gpu, width: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(width, gpu.known(GLOBAL_MEMORY_BUS_WIDTH)?) }
}

/// nvmlDeviceGetMultiGpuBoard.
pub unsafe fn multi_gpu_board(_: &Machine, gpu: &Gpu, is: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(is, gpu.attribute(MULTI_GPU_BOARD).ok_or(Return::NOT_SUPPORTED)?) }
}

/// nvmlDeviceOnSameBoard.
pub unsafe fn on_same_board(machine: &Machine, gpu: &Gpu, other: Handle, same: *mut c_int) -> Answer {
    let other = machine.gpu(other)?;
    let board = |gpu: &Gpu| (gpu.attribute(MULTI_GPU_BOARD), gpu.attribute(MULTI_GPU_BOARD_GROUP_ID));
    let shared =
        gpu.index == other.index || (gpu.attribute(MULTI_GPU_BOARD) == Some(1) && board(gpu) == board(other));
    // SAFETY: NVML's contract: room for an int.
    unsafe { give(same, c_int::from(shared)) }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn structures_have_the_layout_of_driver_580() {
        assert_eq!((size_of::<PciInfoV1>(), size_of::<PciInfoV2>(), size_of::<PciInfo>()), (32, 36, 68));
        assert_eq!(offset_of!(PciInfo, address), 36);
    }

    #[test]
    fn what_follows_from_the_compute_capability() {
        let of = |major, minor| (architecture_of((major, minor)), cores_of((major, minor)));
        assert_eq!(of(7, 5), (6, Some(64)));
        assert_eq!(of(8, 0), (7, Some(64)));
        assert_eq!(of(8, 6), (7, Some(128)));
        assert_eq!(of(8, 9), (8, Some(128)));
        assert_eq!(of(9, 0), (9, Some(128)));
        assert_eq!(of(99, 0), (ARCHITECTURE_UNKNOWN, None));
    }
}
