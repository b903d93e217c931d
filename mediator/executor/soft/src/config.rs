//! What a software device is made of.

use std::io;

use crate::space::GRANULE_BYTES;

/// Device memory at most, in bytes: the window's addresses have to suffice for it.
pub const MEMORY_BYTES_MAX: u64 = 256 << 30;

/// A software device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftConfig {
    /// Device memory in bytes: the quota. Rounded down to 2 MiB.
    pub memory_bytes: u64,
    /// UUID, as cuDeviceGetUuid gives it.
    pub uuid: [u8; 16],
    /// PCI domain.
    pub pci_domain: u32,
    /// PCI bus.
    pub pci_bus: u32,
    /// PCI device.
    pub pci_device: u32,
    /// Host threads that run a launch, 1 to 256; the guest sees so many multiprocessors.
    pub cores: usize,
}

impl Default for SoftConfig {
    fn default() -> Self {
        SoftConfig {
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
