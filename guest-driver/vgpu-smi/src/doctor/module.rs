//! Is the kernel module loaded, and has it its device?

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::{Finding, Machine, pci};

/// The device file.
pub const DEVICE: &str = "/dev/vgpu";

/// Lines of the kernel's log that are shown.
const LOG_LINES: usize = 4;
/// Records of the kernel's log that are read, at most: it may grow meanwhile.
const LOG_RECORDS: usize = 1 << 16;
/// Longest record (Linux, Documentation/ABI/testing/dev-kmsg).
const RECORD_BYTES: usize = 8192;

/// Why the kernel may refuse modules that nobody has signed.
fn lock(machine: &Machine) -> Option<String> {
    const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let lockdown = machine.read("/sys/kernel/security/lockdown").and_then(|text| {
        let active = text.split_once('[')?.1.split_once(']')?.0.to_owned();
        (active != "none").then_some(active)
    });
    // Four bytes of attributes, then the value.
    let variable = std::fs::read(machine.path(SECURE_BOOT)).ok();
    let secure_boot = variable.is_some_and(|bytes| bytes.get(4) == Some(&1));
    let enforced = machine.read("/sys/module/module/parameters/sig_enforce").as_deref() == Some("Y");
    match (secure_boot, lockdown, enforced) {
        (true, Some(mode), _) => {
            Some(format!("Secure Boot is on, and with it the kernel's lockdown ({mode})"))
        }
        (true, None, _) => Some("Secure Boot is on".to_owned()),
        (false, Some(mode), _) => Some(format!("the kernel's lockdown is on ({mode})")),
        (false, None, true) => Some("the kernel takes only signed modules".to_owned()),
        (false, None, false) => None,
    }
}

/// The last lines of the kernel's log that concern us; None where this user may not read it.
fn log(machine: &Machine) -> Option<Vec<String>> {
    let path = machine.path("/dev/kmsg");
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut lines = Vec::new();
    let mut record = vec![0; RECORD_BYTES];
    for _ in 0..LOG_RECORDS {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default()).into_owned();
                let messages =
                    text.lines().filter_map(|line| line.split_once(';')).map(|(_, message)| message);
                let ours = |m: &&str| {
                    m.contains("vgpu")
                        || m.contains("unsigned module")
                        || m.contains("Lockdown: modprobe")
                        || m.contains("Lockdown: insmod")
                };
                lines.extend(messages.filter(ours).map(str::to_owned));
            }
            // Records were overwritten before they were read; the next ones are there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    let first = lines.len().saturating_sub(LOG_LINES);
    Some(lines.split_off(first))
}

fn log_words(machine: &Machine) -> String {
    match log(machine) {
        Some(lines) if lines.is_empty() => "; the kernel's log says nothing of it".to_owned(),
        Some(lines) => format!("; the kernel's log says:\n{}", lines.join("\n")),
        None => "; the kernel's log is root's to read (dmesg | grep vgpu)".to_owned(),
    }
}

/// A module of that name is installed for the running kernel.
fn installed(machine: &Machine) -> Option<bool> {
    let release = machine.read("/proc/sys/kernel/osrelease")?;
    let list = machine.read(&format!("/lib/modules/{release}/modules.dep"))?;
    Some(list.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains("/vgpu.ko"))))
}

fn not_loaded(machine: &Machine) -> Finding {
    let release = machine.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    if installed(machine) == Some(false) {
        return Finding::failed(
            format!("the kernel module vgpu is not loaded, and not installed for this kernel ({release})"),
            "install it: the package vgpu-guest-dkms, or dkms add and dkms install, or make in guest-driver/kmod (its README.md has the commands), then modprobe vgpu",
        );
    }
    match lock(machine) {
        Some(lock) => Finding::failed(
            format!(
                "the kernel module vgpu is not loaded; {lock}: an unsigned module is refused{}",
                log_words(machine)
            ),
            "sign the module with a key that the firmware knows (dkms does it: mokutil --import /var/lib/dkms/mok.pub, restart, enrol the key), then modprobe vgpu",
        ),
        None => Finding::failed(
            format!("the kernel module vgpu is not loaded{}", log_words(machine)),
            "modprobe vgpu (as root)",
        ),
    }
}

/// It is loaded, and has no device.
fn unbound(machine: &Machine) -> Finding {
    let bus = pci::scan(machine);
    let held = bus.carriers.iter().find(|c| c.driver.as_deref().is_some_and(|d| d != "vgpu"));
    match held {
        Some(carrier) => Finding::failed(
            format!(
                "the kernel module vgpu is loaded, but {} is held by {}: its tag is not VGPUSTUB, or it was not given up{}",
                carrier.address,
                carrier.driver.as_deref().unwrap_or_default(),
                log_words(machine)
            ),
            "give QEMU's device tag=VGPUSTUB; if it has that, load the module anew (modprobe -r vgpu, modprobe vgpu)",
        ),
        None => Finding::failed(
            format!("the kernel module vgpu is loaded and has no device{}", log_words(machine)),
            "compare QEMU's arguments with docs/attachments.md: the tag, two queues of 18 entries or more, config_size=256, no iommu_platform=on",
        ),
    }
}

/// The step.
pub fn check(machine: &Machine) -> Finding {
    let registered = machine.exists("/sys/class/misc/vgpu");
    if machine.exists(DEVICE) {
        let version = machine.read("/sys/module/vgpu/version").map(|v| format!(" {v}")).unwrap_or_default();
        return Finding::Ok(format!("the kernel module vgpu{version} has its device: {DEVICE}"));
    }
    if registered {
        let unit = machine.unit().map(|unit| format!(" ({unit})")).unwrap_or_default();
        return Finding::failed(
            format!(
                "the kernel module has its device, but there is no {DEVICE} here: this process{unit} has a /dev of its own"
            ),
            "of a systemd service: PrivateDevices=no and DeviceAllow=/dev/vgpu rw; of a container: --device /dev/vgpu; else see whether udev runs",
        );
    }
    if machine.exists("/sys/module/vgpu") { unbound(machine) } else { not_loaded(machine) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::machine;

    fn why(files: &[(&str, &str)]) -> (String, String) {
        let (_folder, machine) = machine(files);
        match check(&machine) {
            Finding::Failed { why, todo } => (why, todo),
            Finding::Ok(said) => panic!("{said}"),
        }
    }

    const RELEASE: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.1.0-1-amd64\n");
    const DEP: &str = "/lib/modules/6.1.0-1-amd64/modules.dep";

    #[test]
    fn a_module_that_is_not_loaded() {
        let (said, todo) = why(&[RELEASE, (DEP, "kernel/fs/fuse/virtiofs.ko: kernel/fs/fuse/fuse.ko\n")]);
        assert!(said.contains("not installed") && todo.contains("dkms"), "{said}");
        let there = (DEP, "updates/dkms/vgpu.ko.xz:\n");
        let (said, todo) = why(&[RELEASE, there]);
        assert!(said.contains("root's to read") && todo.starts_with("modprobe"), "{said}");
        let lockdown = ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        let secure =
            ("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "\x06\0\0\0\x01");
        let kmsg = (
            "/dev/kmsg",
            "6,1,2,-;other\n3,2,3,-;Loading of unsigned module is rejected\n6,3,4,-;vgpu: hello\n",
        );
        let (said, todo) = why(&[RELEASE, there, lockdown, secure, kmsg]);
        assert!(said.contains("Secure Boot is on") && said.contains("(integrity)"), "{said}");
        assert!(
            said.contains("unsigned module is rejected\nvgpu: hello") && !said.contains("other"),
            "{said}"
        );
        assert!(todo.contains("mokutil"), "{todo}");
        let open = ("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
        assert!(!why(&[RELEASE, there, open]).0.contains("lockdown"));
    }

    #[test]
    fn a_module_without_its_device() {
        let loaded = ("/sys/module/vgpu/refcnt", "0");
        assert!(why(&[loaded]).0.contains("has no device"));
        let pci = "/sys/bus/pci/devices/0000:00:05.0";
        let (said, todo) = why(&[
            loaded,
            (&*format!("{pci}/vendor"), "0x1af4"),
            (&*format!("{pci}/device"), "0x105a"),
            (&*format!("{pci}/virtio3/driver"), "-> /drivers/virtiofs"),
        ]);
        assert!(said.contains("0000:00:05.0 is held by virtiofs") && todo.contains("tag=VGPUSTUB"), "{said}");
    }

    #[test]
    fn a_service_with_devices_of_its_own_is_named() {
        let (said, todo) = why(&[
            ("/sys/class/misc/vgpu/dev", "10:123"),
            ("/proc/self/cgroup", "0::/system.slice/ollama.service\n"),
        ]);
        assert!(said.contains("(ollama.service)") && todo.contains("PrivateDevices=no"), "{said}");
    }

    #[test]
    fn all_is_well() {
        let (_folder, machine) = machine(&[("/dev/vgpu", ""), ("/sys/module/vgpu/version", "0.1.0\n")]);
        assert_eq!(
            check(&machine),
            Finding::Ok("the kernel module vgpu 0.1.0 has its device: /dev/vgpu".into())
        );
    }
}
