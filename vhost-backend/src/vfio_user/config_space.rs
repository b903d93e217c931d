//! The function's PCI config space as QEMU reads it when it starts. QEMU itself emulates for the guest what has to do with where the BARs
//! are and with MSI; what it passes on is kept where the register can be written at all.

use pci_layout::ids::{PCI_CLASS, PCI_SUBSYSTEM_DEVICE, PCI_SUBSYSTEM_VENDOR};
use vgpu_device::mailbox::{copy_in, copy_out};

/// Bytes of a conventional function's config space.
pub(super) const CONFIG_BYTES: usize = 256;

/// Offsets, of the PCI specification.
const VENDOR: u32 = 0x00;
const DEVICE: u32 = 0x02;
const COMMAND: u32 = 0x04;
const STATUS: u32 = 0x06;
const CLASS_AND_REVISION: u32 = 0x08;
const BAR1: u32 = 0x14;
const SUBSYSTEM_VENDOR: u32 = 0x2c;
const SUBSYSTEM_DEVICE: u32 = 0x2e;
const CAPABILITIES: u32 = 0x34;
const INTERRUPT_LINE: u32 = 0x3c;
const MSI: u32 = 0x40;
const MSI_CONTROL: u32 = 0x42;
const MSI_ADDRESS: u32 = 0x44;
/// Address (64 bits) and data of the message.
const MSI_MESSAGE_BYTES: usize = 10;

/// Status: there are capabilities.
const HAS_CAPABILITIES: u16 = 1 << 4;
/// The capability of message signalled interrupts, the only one: one vector, 64-bit addresses.
const MSI_CAPABILITY: u16 = 0x05;
const MSI_64_BIT: u16 = 1 << 7;
/// A BAR of 64 bits, prefetchable.
const BAR_64_PREFETCHABLE: u32 = 0b1100;

/// The registers.
pub(super) struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    /// Which bits a write changes.
    writable: [u8; CONFIG_BYTES],
}

impl ConfigSpace {
    /// That of a function with these ids.
    pub(super) fn new(vendor: u16, device: u16) -> Self {
        let mut space = Self { bytes: [0; CONFIG_BYTES], writable: [0; CONFIG_BYTES] };
        let id = |id: u32| u16::try_from(id).unwrap_or(u16::MAX).to_le_bytes();
        space.fix(VENDOR, &vendor.to_le_bytes());
        space.fix(DEVICE, &device.to_le_bytes());
        space.fix(STATUS, &HAS_CAPABILITIES.to_le_bytes());
        // The class is the upper three bytes, the revision below is 0.
        space.fix(CLASS_AND_REVISION, &(PCI_CLASS << 8).to_le_bytes());
        space.fix(BAR1, &BAR_64_PREFETCHABLE.to_le_bytes());
        space.fix(SUBSYSTEM_VENDOR, &id(PCI_SUBSYSTEM_VENDOR));
        space.fix(SUBSYSTEM_DEVICE, &id(PCI_SUBSYSTEM_DEVICE));
        space.fix(CAPABILITIES, &MSI.to_le_bytes());
        space.fix(MSI, &MSI_CAPABILITY.to_le_bytes());
        space.fix(MSI_CONTROL, &MSI_64_BIT.to_le_bytes());
        // Memory space, bus master, parity, SERR, no INTx.
        space.allow(COMMAND, &0x0546u16.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        space.allow(MSI_CONTROL, &1u16.to_le_bytes());
        space.allow(MSI_ADDRESS, &[0xff; MSI_MESSAGE_BYTES]);
        space
    }

    /// Reads `buf.len()` bytes from `offset` on; past the end they are 0.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        copy_out(buf, offset, 0, &self.bytes);
    }

    /// Writes what may be written of `data` from `offset` on.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut wanted = self.bytes;
        copy_in(&mut wanted, 0, offset, data);
        for ((byte, wanted), writable) in self.bytes.iter_mut().zip(wanted).zip(self.writable) {
            *byte = (*byte & !writable) | (wanted & writable);
        }
    }

    fn fix(&mut self, at: u32, bytes: &[u8]) {
        copy_in(&mut self.bytes, 0, at.into(), bytes);
    }

    fn allow(&mut self, at: u32, bits: &[u8]) {
        copy_in(&mut self.writable, 0, at.into(), bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(space: &ConfigSpace, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        space.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn it_is_a_3d_controller_with_our_subsystem() {
        let space = ConfigSpace::new(0x10de, 0x2331);
        assert_eq!(u32_at(&space, 0), 0x2331_10de);
        assert_eq!(u32_at(&space, 8) >> 8, 0x03_0200);
        assert_eq!(u32_at(&space, 0x2c), PCI_SUBSYSTEM_DEVICE << 16 | PCI_SUBSYSTEM_VENDOR);
        assert_eq!(u32_at(&space, 0x34), 0x40);
        assert_eq!(u32_at(&space, 0x40), 0x0080_0005);
        assert_eq!(u32_at(&space, 253), 0);
        assert_eq!(u32_at(&space, u64::MAX), 0);
    }

    #[test]
    fn only_what_can_be_written_changes() {
        let mut space = ConfigSpace::new(0x10de, 0x2331);
        space.write(0, &[0xff; 300]);
        assert_eq!(u32_at(&space, 0), 0x2331_10de);
        assert_eq!(u32_at(&space, 4), 0x0010_0546);
        assert_eq!(u32_at(&space, 0x14), 0xc);
        assert_eq!(u32_at(&space, 0x3c), 0xff);
        space.write(u64::MAX, &[0; 8]);
        space.write(4, &[0, 0]);
        assert_eq!(u32_at(&space, 4), 0x0010_0000);
    }
}
