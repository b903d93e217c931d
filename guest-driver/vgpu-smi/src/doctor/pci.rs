//! Is the device on the PCI bus? QEMU's device that carries ours has the id of a virtio device; its tag only the kernel module can read. The
//! plain function has a subsystem id of ours.

use pci_layout::ids::{
    PCI_SUBSYSTEM_DEVICE, PCI_SUBSYSTEM_VENDOR, TAG, VIRTIO_ID_FS_CARRIER, VIRTIO_ID_GENERIC,
};

use super::{Finding, Machine};

/// PCI vendor of virtio devices, and what is added to a virtio id for the PCI device id (virtio 1.2, 4.1.2).
const VIRTIO_VENDOR: u32 = 0x1af4;
const VIRTIO_DEVICE_BASE: u32 = 0x1040;
/// NVIDIA's, and the class of what displays or computes.
const NVIDIA_VENDOR: u32 = 0x10de;
const CLASS_DISPLAY: u32 = 0x03;

/// Which of QEMU's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    FileSystem,
    Generic,
    Function,
}

/// A PCI device that may carry ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Its PCI address.
    pub address: String,
    /// What it is.
    pub kind: Kind,
    /// The virtio driver that has it.
    pub driver: Option<String>,
}

/// What the bus shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bus {
    pub carriers: Vec<Carrier>,
    /// GPUs of NVIDIA's that were passed through.
    pub gpus: Vec<String>,
    /// The bus can be looked at.
    pub readable: bool,
}

/// Looks at every device.
pub fn scan(machine: &Machine) -> Bus {
    const DEVICES: &str = "/sys/bus/pci/devices";
    let Ok(entries) = std::fs::read_dir(machine.path(DEVICES)) else { return Bus::default() };
    let mut bus = Bus { readable: true, ..Bus::default() };
    for entry in entries.flatten() {
        let address = entry.file_name().to_string_lossy().into_owned();
        let number = |file: &str| {
            let text = machine.read(&format!("{DEVICES}/{address}/{file}"))?;
            u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
        };
        let (vendor, device) = (number("vendor"), number("device"));
        let virtio_id = device.and_then(|id| id.checked_sub(VIRTIO_DEVICE_BASE));
        let subsystem = (number("subsystem_vendor"), number("subsystem_device"));
        let kind = match (vendor, virtio_id) {
            _ if subsystem == (Some(PCI_SUBSYSTEM_VENDOR), Some(PCI_SUBSYSTEM_DEVICE)) => {
                Some(Kind::Function)
            }
            (Some(VIRTIO_VENDOR), Some(VIRTIO_ID_FS_CARRIER)) => Some(Kind::FileSystem),
            (Some(VIRTIO_VENDOR), Some(VIRTIO_ID_GENERIC)) => Some(Kind::Generic),
            _ => None,
        };
        match (kind, vendor) {
            (Some(kind), _) => {
                let driver = virtio_driver(machine, &format!("{DEVICES}/{address}"));
                bus.carriers.push(Carrier { address, kind, driver });
            }
            (None, Some(NVIDIA_VENDOR))
                if number("class").is_some_and(|class| class >> 16 == CLASS_DISPLAY) =>
            {
                bus.gpus.push(address);
            }
            _ => {}
        }
    }
    bus.carriers.sort_by(|a, b| a.address.cmp(&b.address));
    bus.gpus.sort();
    bus
}

/// The driver of the virtio device that a PCI device makes.
fn virtio_driver(machine: &Machine, pci: &str) -> Option<String> {
    let entries = std::fs::read_dir(machine.path(pci)).ok()?;
    let virtio = entries.flatten().find(|e| e.file_name().to_string_lossy().starts_with("virtio"))?;
    let driver = std::fs::read_link(virtio.path().join("driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// The arguments of QEMU that bring the device.
fn arguments() -> String {
    let tag = String::from_utf8_lossy(&TAG);
    format!(
        "on the host start vhost-user-vgpu --socket-path /run/vgpu/vm1.sock, and QEMU with the memory shared and the device:\n\
         -object memory-backend-memfd,id=mem,size=4G,share=on -machine memory-backend=mem\n\
         -chardev socket,id=vgpu,path=/run/vgpu/vm1.sock\n\
         -device vhost-user-fs-pci,chardev=vgpu,tag={tag},num-request-queues=1,queue-size=1024"
    )
}

/// The step.
pub fn check(machine: &Machine) -> Finding {
    let bus = scan(machine);
    if !bus.readable {
        return Finding::failed(
            "/sys/bus/pci/devices cannot be read: this machine has no PCI bus, or this process (a container?) does not see it",
            "mount /sys here, or run the doctor outside; without a VM set VGPU_SOCKET to the daemon's local socket",
        );
    }
    let with = |driver: &str| bus.carriers.iter().find(|c| c.driver.as_deref() == Some(driver));
    if let Some(ours) = with("vgpu") {
        return Finding::Ok(format!("{} is the vGPU device ({})", ours.address, name(ours.kind)));
    }
    if let Some(first) = bus.carriers.first() {
        let all: Vec<String> =
            bus.carriers.iter().map(|c| format!("{} ({})", c.address, name(c.kind))).collect();
        let driver = first.driver.as_deref().map_or("no driver has it".to_owned(), |d| format!("driver {d}"));
        return Finding::Ok(format!("{} may be the vGPU device: {driver}", all.join(", ")));
    }
    let gpus = if bus.gpus.is_empty() {
        String::new()
    } else {
        format!(
            "; there is a GPU of NVIDIA's passed through ({}), which is another thing",
            bus.gpus.join(", ")
        )
    };
    Finding::failed(format!("no PCI device is, or carries, the vGPU device{gpus}"), arguments())
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::FileSystem => "vhost-user-fs-pci",
        Kind::Generic => "vhost-user-test-device-pci",
        Kind::Function => "vfio-user-pci",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::machine;

    const DEVICE: &str = "/sys/bus/pci/devices/0000:00:05.0";

    fn with(files: &[(&str, &str)]) -> Finding {
        let (_folder, machine) = machine(files);
        check(&machine)
    }

    #[test]
    fn our_device_is_known_by_its_driver() {
        let files = [
            (&*format!("{DEVICE}/vendor"), "0x1af4\n"),
            (&*format!("{DEVICE}/device"), "0x105a\n"),
            (&*format!("{DEVICE}/virtio3/driver"), "-> ../../../bus/virtio/drivers/vgpu"),
        ];
        assert_eq!(with(&files), Finding::Ok("0000:00:05.0 is the vGPU device (vhost-user-fs-pci)".into()));
        let mut virtiofs = files;
        virtiofs[2].1 = "-> ../../../bus/virtio/drivers/virtiofs";
        assert!(matches!(with(&virtiofs), Finding::Ok(said) if said.contains("driver virtiofs")));
        let generic = [(files[0].0, files[0].1), (files[1].0, "0x1055")];
        assert!(
            matches!(with(&generic), Finding::Ok(said) if said.contains("test-device-pci") && said.contains("no driver"))
        );
    }

    #[test]
    fn a_plain_function_is_known_by_its_subsystem() {
        let files = [
            (&*format!("{DEVICE}/vendor"), "0x10de\n"),
            (&*format!("{DEVICE}/device"), "0x2331\n"),
            (&*format!("{DEVICE}/class"), "0x030200\n"),
            (&*format!("{DEVICE}/subsystem_vendor"), "0x1af4\n"),
            (&*format!("{DEVICE}/subsystem_device"), "0x10f6\n"),
            (&*format!("{DEVICE}/virtio3/driver"), "-> ../../../bus/virtio/drivers/vgpu"),
        ];
        assert_eq!(with(&files), Finding::Ok("0000:00:05.0 is the vGPU device (vfio-user-pci)".into()));
        assert!(
            matches!(with(&files[..5]), Finding::Ok(said) if said.contains("(vfio-user-pci)") && said.contains("no driver has it"))
        );
    }

    #[test]
    fn without_it_the_arguments_are_told() {
        let files = [
            (&*format!("{DEVICE}/vendor"), "0x10de"),
            (&*format!("{DEVICE}/device"), "0x2330"),
            (&*format!("{DEVICE}/class"), "0x030200"),
        ];
        let Finding::Failed { why, todo } = with(&files) else { panic!("there is no device") };
        assert!(why.contains("passed through (0000:00:05.0)"), "{why}");
        assert!(todo.contains("tag=VGPUSTUB") && todo.contains("share=on"), "{todo}");
        assert!(matches!(with(&[]), Finding::Failed { why, .. } if why.contains("/sys")));
    }
}
