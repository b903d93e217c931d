//! What the guest is told about the device: CUdevice_attribute by number. Nothing is claimed that the executor does not
//! do; a number that CUDA 13.0 does not know is an error.

use cuda_api::info::{AttributeValue, DeviceInfo, Link, VmInfo};
use cuda_api::types::{CUresult, attribute};

use crate::config::SoftConfig;
use crate::limits;

/// The name that cuDeviceGetName gives.
pub const DEVICE_NAME: &str = "vGPU software executor (CPU)";

/// An attribute's value; 0 is "not there" for all that is not listed.
fn value(number: i32, config: &SoftConfig, device: u32) -> i32 {
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let [block_x, block_y, block_z] = limits::BLOCK;
    let [grid_x, grid_y, grid_z] = limits::GRID;
    match number {
        1 => int(limits::BLOCK_THREADS),
        2 => int(block_x),
        3 => int(block_y),
        4 => int(block_z),
        5 => int(grid_x),
        6 => int(grid_y),
        7 => int(grid_z),
        8 => int(limits::SHARED_BYTES),
        9 => i32::try_from(limits::CONSTANT_BYTES).unwrap_or(i32::MAX),
        10 => int(limits::WARP_THREADS),
        11 => i32::MAX, // pitch of a copy
        12 => int(limits::REGISTERS),
        13 => 1_000_000, // clock rate in kHz: clocks count nanoseconds
        14 | 30 => 512,  // alignment of textures and surfaces
        15 => 1,         // copies and kernels overlap
        16 => i32::try_from(config.threads()).unwrap_or(i32::MAX),
        19 => 1, // maps host memory
        31 => 1, // concurrent kernels
        33 => int(config.pci_bus),
        34 => int(config.pci_device.saturating_add(device)),
        39 => int(limits::MULTIPROCESSOR_THREADS),
        40 => 1, // engines that copy
        41 => 1, // unified addressing
        50 => int(config.pci_domain),
        51 => 32, // pitch alignment of textures
        75 => limits::CAPABILITY.0,
        76 => limits::CAPABILITY.1,
        81 => int(limits::SHARED_BYTES_MULTIPROCESSOR),
        82 => int(limits::REGISTERS),
        83 => 1, // managed memory
        87 => 1, // single to double precision performance
        89 => 1, // … which host and device may access at once
        91 => 1, // registered memory is used at its host address
        97 => int(limits::SHARED_BYTES_OPTIN),
        99 => 1,  // host memory can be registered
        102 => 1, // virtual memory management
        106 => int(limits::MULTIPROCESSOR_BLOCKS),
        111 => int(limits::SHARED_BYTES_RESERVED),
        113 => 1,        // … read-only, too
        115 => 1,        // memory pools
        122 => 1,        // 64-bit stream memory operations
        123 => 1,        // wait for NOR
        126 => 1,        // memory synchronisation domains
        131 | 134 => -1, // NUMA nodes
        _ => 0,
    }
}

/// What the guest learns at start.
pub(crate) fn vm_info(config: &SoftConfig, total: u64) -> VmInfo {
    let unknown: AttributeValue = Err(CUresult::INVALID_VALUE);
    let device = |n: u8| {
        let known = |number| -> AttributeValue { Ok(value(number, config, n.into())) };
        let mut uuid = config.uuid;
        if let Some(byte) = uuid.get_mut(11) {
            *byte = byte.wrapping_add(n);
        }
        DeviceInfo {
            name: DEVICE_NAME.into(),
            uuid,
            total_memory_bytes: total,
            attributes: std::iter::once(unknown).chain((1..=attribute::LAST).map(known)).collect(),
            links: (0..config.count()).map(|other| link(usize::from(n), other)).collect(),
        }
    };
    VmInfo {
        driver_version: cuda_api::DRIVER_VERSION,
        stream_priorities: (0, 0),
        devices: (0u8..).take(config.count()).map(device).collect(),
    }
}

/// Every device can reach every other's memory. Atomics and arrays are not promised there.
fn link(from: usize, to: usize) -> Link {
    if from == to {
        return Link::NONE;
    }
    let [_, _, atomics, arrays, some_atomics] = Link::NONE.attributes;
    Link { can_access: true, attributes: [Ok(0), Ok(1), atomics, arrays, some_atomics], ..Link::NONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_up_to_the_last_has_a_value_and_no_other() {
        let config = SoftConfig { cores: 3, ..SoftConfig::default() };
        let info = vm_info(&config, 1 << 30);
        let device = &info.devices[0];
        assert!((1..=attribute::LAST).all(|n| device.attribute(n).is_ok()));
        assert_eq!(device.attribute(0), Err(CUresult::INVALID_VALUE));
        assert_eq!(device.attribute(attribute::LAST + 1), Err(CUresult::INVALID_VALUE));
        assert_eq!(device.attribute(attribute::MULTIPROCESSOR_COUNT), Ok(3));
        assert_eq!(device.attribute(attribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), Ok(166_912));
        for refused in [88, 95, 100, 101, 103, 119, 120, 125, 132] {
            assert_eq!(device.attribute(refused), Ok(0), "attribute {refused}");
        }
    }
}
