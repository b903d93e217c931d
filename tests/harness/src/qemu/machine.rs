//! The command line of a test machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{FUNCTION_DEVICE, GENERIC_DEVICE, Process, Qemu};

/// Which mainboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chipset {
    /// PCI Express.
    Q35,
    /// The older board, PCI only.
    Pc,
}

/// How the device is put into the machine. The back end listens on the socket before the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// `vhost-user-fs-pci`: virtio id 26; the guest's driver knows the device by its tag.
    Fs {
        /// The back end's socket.
        socket: PathBuf,
        /// The tag.
        tag: String,
    },
    /// The generic vhost-user device.
    Generic {
        /// The back end's socket.
        socket: PathBuf,
        /// The virtio device id.
        virtio_id: u16,
        /// Number of queues.
        queues: u16,
        /// Entries of a queue.
        queue_size: u16,
        /// Bytes of config space; QEMU aborts above 256.
        config_size: u16,
    },
    /// `vfio-user-pci`: a plain PCI function.
    Function {
        /// The back end's socket.
        socket: PathBuf,
    },
}

impl Attachment {
    /// `vhost-user-fs-pci` as the project's driver wants it.
    #[must_use]
    pub fn fs(socket: &Path) -> Self {
        Self::Fs { socket: socket.to_owned(), tag: "VGPUSTUB".to_owned() }
    }

    /// The generic device as the project's driver wants it.
    #[must_use]
    pub fn generic(socket: &Path) -> Self {
        Self::Generic {
            socket: socket.to_owned(),
            virtio_id: 21,
            queues: 2,
            queue_size: 256,
            config_size: 256,
        }
    }

    /// The plain PCI function.
    #[must_use]
    pub fn function(socket: &Path) -> Self {
        Self::Function { socket: socket.to_owned() }
    }

    /// The name of QEMU's device for it.
    #[must_use]
    pub fn device(&self) -> &'static str {
        match self {
            Self::Fs { .. } => "vhost-user-fs-pci",
            Self::Generic { .. } => GENERIC_DEVICE,
            Self::Function { .. } => FUNCTION_DEVICE,
        }
    }

    fn arguments(&self, index: usize, bus: Option<String>) -> Vec<String> {
        let chardev = format!("vgpu{index}-socket");
        let (socket, properties) = match self {
            Self::Fs { socket, tag } => (socket, format!("tag={tag},num-request-queues=1,queue-size=1024")),
            Self::Generic { socket, virtio_id, queues, queue_size, config_size } => (
                socket,
                format!(
                    "virtio-id={virtio_id},num_vqs={queues},vq_size={queue_size},config_size={config_size}"
                ),
            ),
            Self::Function { socket } => {
                return vec!["-device".to_owned(), function(socket, index, bus).to_string()];
            }
        };
        let bus = bus.map_or(String::new(), |bus| format!(",bus={bus}"));
        vec![
            "-chardev".to_owned(),
            format!("socket,id={chardev},path={}", socket.display()),
            "-device".to_owned(),
            format!("{},id=vgpu{index},chardev={chardev},{properties}{bus}", self.device()),
        ]
    }
}

/// The plain PCI function as QEMU takes it, in an argument and by its monitor. Its socket can be named in JSON only.
#[must_use]
pub fn function(socket: &Path, index: usize, bus: Option<String>) -> serde_json::Value {
    let address = serde_json::json!({"type": "unix", "path": socket});
    let mut device = serde_json::json!({"driver": FUNCTION_DEVICE, "id": format!("vgpu{index}"), "rombar": 0, "x-msg-timeout": 60000, "socket": address});
    if let (Some(bus), Some(properties)) = (bus, device.as_object_mut()) {
        properties.insert("bus".to_owned(), bus.into());
    }
    device
}

/// Where the guest's serial console goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Into the file that [`Process::console`] reads.
    File,
    /// To this program's standard input and output.
    Terminal,
}

/// A machine to start. Its memory is always a memfd; without KVM (`accel=tcg`).
#[derive(Clone, Debug)]
pub struct Machine {
    /// Which mainboard.
    pub chipset: Chipset,
    /// Guest RAM in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// Whether guest RAM is `share=on`, without which no vhost-user back end sees it. Off only to test what happens then.
    pub shared_memory: bool,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The kernel's command line, beside `console=ttyS0 oops=panic panic=-1`: a fault of the guest's kernel ends QEMU.
    pub append: String,
    /// Our devices, named `vgpu0`, `vgpu1`, … with chardevs `vgpu0-socket`, …
    pub attachments: Vec<Attachment>,
    /// Puts each attachment behind a root port of its own (`port0`, …), so that it can be unplugged. Needs [`Chipset::Q35`].
    pub hotplug: bool,
    /// Whether the machine starts again when the guest or the monitor resets it. Otherwise a reset ends QEMU, so that a guest
    /// that panics is seen at once.
    pub reboot: bool,
    /// Where the console goes.
    pub console: Console,
    /// Whether there is a port for the guest agent.
    pub agent: bool,
    /// Further arguments.
    pub extra: Vec<String>,
}

impl Machine {
    /// A machine of 2 CPUs and 1 GiB that boots this kernel.
    #[must_use]
    pub fn new(kernel: &Path, initrd: &Path) -> Self {
        Self {
            chipset: Chipset::Q35,
            memory_mib: 1024,
            cpus: 2,
            shared_memory: true,
            kernel: kernel.to_owned(),
            initrd: initrd.to_owned(),
            append: "quiet".to_owned(),
            attachments: Vec::new(),
            hotplug: false,
            reboot: false,
            console: Console::File,
            agent: true,
            extra: Vec::new(),
        }
    }

    /// The command that starts it with its sockets and its console log in `dir`.
    #[must_use]
    pub fn command(&self, qemu: &Qemu, dir: &Path) -> Command {
        let mut command = qemu.command();
        let chipset = match self.chipset {
            Chipset::Q35 => "q35",
            Chipset::Pc => "pc",
        };
        let share = if self.shared_memory { "on" } else { "off" };
        let memory = self.memory_mib;
        command.args(["-machine", &format!("{chipset},accel=tcg,memory-backend=ram"), "-cpu", qemu.cpu()]);
        command.args(["-smp", &self.cpus.to_string(), "-m", &format!("{memory}M")]);
        command.args(["-object", &format!("memory-backend-memfd,id=ram,size={memory}M,share={share}")]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        if !self.reboot {
            command.arg("-no-reboot");
        }
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.args(["-append", &format!("console=ttyS0 oops=panic panic=-1 {}", self.append)]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", dir.join("qmp").display())]);
        match self.console {
            Console::Terminal => command.args(["-chardev", "stdio,id=console,signal=off"]),
            Console::File => {
                command.args(["-chardev", &format!("file,id=console,path={}", dir.join("console").display())])
            }
        };
        command.args(["-serial", "chardev:console"]);
        if self.agent {
            let socket = dir.join("agent");
            command
                .args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", socket.display())]);
            command.args(["-device", "virtio-serial-pci"]);
            command
                .args(["-device", &format!("virtserialport,chardev=agent,name={}", guest_agent::PORT_NAME)]);
        }
        for (index, attachment) in self.attachments.iter().enumerate() {
            let port = self.hotplug.then(|| format!("port{index}"));
            if let Some(port) = &port {
                command.args(["-device", &format!("pcie-root-port,id={port},chassis={}", index + 1)]);
            }
            command.args(attachment.arguments(index, port));
        }
        command.args(&self.extra);
        command
    }

    /// Starts it.
    ///
    /// # Errors
    /// When QEMU does not start or refuses an argument.
    pub fn start(&self, qemu: &Qemu) -> Result<Process> {
        Process::start(self, qemu)
    }
}
