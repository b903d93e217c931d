//! Where in the guest the device is a PCI function of its own: its address, by which programs look it up in sysfs.
//!
//! A virtio device of QEMU's that carries ours is no GPU to anybody, and its address says nothing. The plain function is one: its class is
//! a 3D controller's, and who asks CUDA for an address and looks there finds it.

use std::fs;
use std::path::{Path, PathBuf};

use pci_layout::ids::{PCI_SUBSYSTEM_DEVICE, PCI_SUBSYSTEM_VENDOR};

/// The driver's device in sysfs; its parent is the device that it drives.
const DEVICE: &str = "sys/class/misc/vgpu/device";

/// The PCI bus in sysfs.
const DEVICES: &str = "sys/bus/pci/devices";

/// A PCI address. The function number is 0, as CUDA has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciFunction {
    /// Domain.
    pub domain: u16,
    /// Bus.
    pub bus: u8,
    /// Device.
    pub device: u8,
}

/// The function that the driver of `/dev/vgpu` has, under this root of the file system; `None` where it has another kind of device.
pub(crate) fn find(root: &Path) -> Option<PciFunction> {
    let virtio = fs::canonicalize(root.join(DEVICE)).ok()?;
    let pci = virtio.parent()?;
    if is_ours(pci) { at(pci) } else { None }
}

/// The first function of ours on the bus, whoever drives it.
pub(crate) fn folder(root: &Path) -> Option<PathBuf> {
    let devices = fs::read_dir(root.join(DEVICES)).ok()?;
    let mut ours: Vec<PathBuf> =
        devices.flatten().map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    ours.sort();
    ours.into_iter().next()
}

/// The address of a function by its folder.
pub(crate) fn at(folder: &Path) -> Option<PciFunction> {
    address(folder.file_name()?.to_str()?)
}

fn is_ours(folder: &Path) -> bool {
    let id = |file: &str| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    (id("subsystem_vendor"), id("subsystem_device"))
        == (Some(PCI_SUBSYSTEM_VENDOR), Some(PCI_SUBSYSTEM_DEVICE))
}

/// `0000:01:00.0`; CUDA has no place for a function other than 0.
fn address(text: &str) -> Option<PciFunction> {
    let (domain, rest) = text.strip_suffix(".0")?.split_once(':')?;
    let (bus, device) = rest.split_once(':')?;
    Some(PciFunction {
        domain: u16::from_str_radix(domain, 16).ok()?,
        bus: u8::from_str_radix(bus, 16).ok()?,
        device: u8::from_str_radix(device, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn addresses_are_read() {
        let at = PciFunction { domain: 0, bus: 0x1a, device: 5 };
        assert_eq!(address("0000:1a:05.0"), Some(at));
        // Domains of more digits are the firmware's own (VMD), where no function of ours is.
        for wrong in ["0000:01:00.1", "0000:01:00", "10000:01:00.0", "virtio3", ""] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_our_own_function_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path()), None);
        let pci = folder.path().join("sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0");
        fs::create_dir_all(pci.join("virtio2")).unwrap();
        fs::create_dir_all(folder.path().join("sys/class/misc/vgpu")).unwrap();
        symlink(pci.join("virtio2"), folder.path().join(DEVICE)).unwrap();
        fs::write(pci.join("subsystem_vendor"), "0x1af4\n").unwrap();
        fs::write(pci.join("subsystem_device"), "0x1100\n").unwrap();
        assert_eq!(find(folder.path()), None, "a carrier of QEMU's");
        fs::write(pci.join("subsystem_device"), format!("{PCI_SUBSYSTEM_DEVICE:#06x}\n")).unwrap();
        assert_eq!(find(folder.path()), Some(PciFunction { domain: 0, bus: 1, device: 0 }));
    }
}
