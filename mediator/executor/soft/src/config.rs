//! What a software device is made of.

use std::io;

use crate::space::GRANULE_BYTES;

/// Device memory at most, in bytes: the window's addresses have to suffice for it.
pub const MEMORY_BYTES_MAX: u64 = 256 << 30;

/// Devices at most.
pub const DEVICES_MAX: usize = 8;

/// A software device, or several of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftConfig {
    /// Devices of this kind, 1 to 8. Each has its own memory, UUID and PCI device number.
    pub devices: usize,
    /// Memory of each device in bytes: the quota. Rounded down to 2 MiB.
    pub memory_bytes: u64,
    /// UUID of the first, as cuDeviceGetUuid gives it; the others' differ in their byte 11.
    pub uuid: [u8; 16],
    /// PCI domain.
    pub pci_domain: u32,
    /// PCI bus.
    pub pci_bus: u32,
    /// PCI device of the first; the others follow.
    pub pci_device: u32,
    /// Host threads that run a launch, 1 to 256; the guest sees so many multiprocessors.
    pub cores: usize,
}

impl Default for SoftConfig {
    fn default() -> Self {
        SoftConfig {
            devices: 1,
            memory_bytes: 1 << 30,
            uuid: *b"vgpu-soft-device",
            pci_domain: 0,
            pci_bus: 0,
            pci_device: 0,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl SoftConfig {
    /// How many devices.
    pub(crate) fn count(&self) -> usize {
        self.devices.clamp(1, DEVICES_MAX)
    }

    /// Host threads of a launch.
    pub(crate) fn threads(&self) -> usize {
        self.cores.clamp(1, 256)
    }

    /// The memory in whole granules.
    pub(crate) fn granted(&self) -> io::Result<u64> {
        let whole = self.memory_bytes.saturating_sub(self.memory_bytes.rem_euclid(GRANULE_BYTES));
        if whole == 0 || whole > MEMORY_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes of memory", self.memory_bytes),
            ));
        }
        Ok(whole)
    }
}
