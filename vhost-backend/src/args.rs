//! The command line, and what it comes to.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Parser, ValueEnum};
use mediator::Settings;
use pci_layout::function::DATA_BAR_BYTES_MIN;
use pci_layout::ids::{PCI_DEVICE, PCI_VENDOR};

use crate::configuration::{Chosen, FileError, Sources, gpu_name, pool_letter, vm_name};
use crate::named;

/// The daemon's own page of help.
const ABOUT: &str = "Gives a VM the host's GPU: the vhost-user back end of the paravirtual GPU device";

const LONG_ABOUT: &str = "\
Gives a VM the host's GPU: the vhost-user back end of the paravirtual GPU device.

One daemon serves one VM. It must be started before QEMU, which connects to its socket; it lives on when QEMU ends, and \
serves the VM again when it is started again. Every guest process that uses the GPU gets a worker process of its own here.";

const AFTER_HELP: &str = "\
The VM needs memory that it shares with the daemon, and one device. With any QEMU from 7.2 on:

  vhost-user-vgpu --socket-path /run/vgpu/vm1.sock --vm-id 1 &
  qemu-system-x86_64 … -m 4G \\
    -object memory-backend-memfd,id=mem,size=4G,share=on -machine memory-backend=mem \\
    -chardev socket,id=vgpu,path=/run/vgpu/vm1.sock \\
    -device vhost-user-fs-pci,chardev=vgpu,tag=VGPUSTUB,num-request-queues=1,queue-size=1024

From QEMU 11 on the device may also be
    -device vhost-user-test-device-pci,chardev=vgpu,virtio-id=21,num_vqs=2,vq_size=256,config_size=256
which shows the register block in its config space, but does not survive the end of the daemon. From QEMU 10.1 on it may be a plain \
PCI function, with --front vfio-user here and no chardev there:
    -device '{\"driver\":\"vfio-user-pci\",\"rombar\":0,\"socket\":{\"type\":\"unix\",\"path\":\"/run/vgpu/vm1.sock\"}}'

Without a VM, for containers and tests: --local-socket, and VGPU_SOCKET=PATH in the environment of the processes.

Signals: SIGTERM and SIGINT end the daemon and every worker; SIGUSR1 writes the totals to the log, and the profiles of \
open sessions; SIGUSR2 suspends the VM (its sessions come to rest, and what they have of the GPU goes to host memory), or resumes it \
where it is suspended.
Environment: RUST_LOG sets the log level (default: info; RUST_LOG=debug shows every vhost-user message).
Exit status: 0 after SIGTERM, SIGINT, or the end of the connection given by --fd; 1 when it cannot start; 2 for wrong arguments.";

/// The command line as it is written.
#[derive(Debug, Parser)]
#[command(
    name = "vhost-user-vgpu",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP
)]
pub struct Args {
    #[command(flatten)]
    attachment: AttachmentArgs,
    /// Who may connect to the socket, as chmod's octal digits: 660 lets in the group that the daemon runs with, for a QEMU of another user
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = socket_mode)]
    socket_mode: u32,
    #[command(flatten)]
    front: FrontArgs,
    /// Number of the VM, for logs and the register block
    #[arg(long, value_name = "N", default_value_t = 0)]
    vm_id: u32,
    /// Name of the VM, for vgpuctl
    #[arg(long, value_name = "NAME", value_parser = vm_name)]
    name: Option<String>,
    /// The host's file: what VMs get where arguments do not say otherwise [default: /etc/vgpu/vgpu.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder in which the daemons of this host agree on who uses a GPU when, and through which vgpuctl reaches them; all need the same
    /// one [default: the file's, else /run/vgpu for root, else vgpu in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Take no part in that: other VMs' work and this VM's hold each other up as the GPU likes, and vgpuctl does not see it
    #[arg(long, conflicts_with = "state_dir")]
    alone: bool,
    /// Pool that the VM belongs to: its GPUs are those of the pool [default: A]
    #[arg(long, value_name = "LETTER", value_parser = pool_letter)]
    pool: Option<char>,
    #[command(flatten)]
    settings: SettingArgs,
    /// Who carries calls out: the real GPU, or a device in software
    #[arg(long, value_enum, default_value_t = Executor::Auto)]
    executor: Executor,
    /// GPUs that the VM gets: indices as nvidia-smi counts them, or UUIDs (GPU-…), e.g. 0 or 0,1; without it every GPU of its pool
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = gpu_name)]
    gpu: Vec<String>,
    /// Devices that the software executor shows, all alike and within each other's reach
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SOFT_DEVICES_MAX))]
    soft_devices: u32,
    /// Workers that are kept ready for the next processes, up to 16; 0 keeps none [default: 2 with a GPU, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=IDLE_WORKERS_MAX))]
    idle_workers: Option<u8>,
    /// Measure how long calls take, and write it into this folder for each process that ends, and for all on SIGUSR1
    #[arg(long, value_name = "DIR")]
    profile: Option<PathBuf>,
    /// Write what this program is, as JSON, and exit
    #[arg(long)]
    print_capabilities: bool,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct AttachmentArgs {
    /// Listen for QEMU on this unix socket
    #[arg(long, value_name = "PATH")]
    socket_path: Option<PathBuf>,
    /// Serve the connected vhost-user socket that was inherited as this descriptor, and exit when it ends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    fd: Option<RawFd>,
    /// Serve processes of this host through this unix socket, with no VM
    #[arg(long, value_name = "PATH")]
    local_socket: Option<PathBuf>,
}

/// What the VM sees, where QEMU connects to a socket.
#[derive(Debug, ClapArgs)]
struct FrontArgs {
    /// What QEMU attaches: a virtio device, or a plain PCI function (QEMU 10.1 or newer, device vfio-user-pci)
    #[arg(long, value_enum, default_value_t = FrontKind::VhostUser)]
    front: FrontKind,
    /// Vendor and device of the plain PCI function, e.g. 10de:2331; its subsystem, by which the guest's driver knows it, stays
    /// [default: 10de:2331]
    #[arg(long, value_name = "VENDOR:DEVICE", value_parser = pci_id)]
    pci_id: Option<(u16, u16)>,
    /// Size of the plain PCI function's BAR1, a power of two from 16MiB to 64GiB [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = data_bytes)]
    bar1_size: Option<u64>,
}

/// The `--front` argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FrontKind {
    /// A virtio device, by QEMU's vhost-user-fs-pci or vhost-user-test-device-pci
    VhostUser,
    /// A plain PCI function, by QEMU's vfio-user-pci
    VfioUser,
}

/// A plain PCI function as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionConfig {
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Bytes of BAR1, a power of two, at least [`DATA_BAR_BYTES_MIN`].
    pub data_bytes: u64,
}

impl Default for FunctionConfig {
    fn default() -> Self {
        let id = |id: u32| u16::try_from(id).unwrap_or(u16::MAX);
        Self { vendor: id(PCI_VENDOR), device: id(PCI_DEVICE), data_bytes: DATA_BAR_BYTES_MIN }
    }
}

fn pci_id(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let plain = text.len() == 4 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        u16::from_str_radix(text, 16).ok().filter(|id| plain && *id != 0xffff)
    };
    let both = text.split_once(':').and_then(|(vendor, device)| Some((number(vendor)?, number(device)?)));
    both.ok_or_else(|| "two numbers of four hexadecimal digits are needed, e.g. 10de:2331".to_owned())
}

fn data_bytes(text: &str) -> Result<u64, String> {
    let bytes = named::size(text)?;
    if bytes.is_power_of_two() && (DATA_BAR_BYTES_MIN..=DATA_BAR_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a power of two from 16MiB to 64GiB is needed, e.g. 256MiB".to_owned())
    }
}

/// What may also change while the daemon runs. Each is what [`named::apply`] takes under the same name.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Share and limits (vgpuctl set changes them while the daemon runs)")]
struct SettingArgs {
    /// Priority of the VM's work [default: medium]
    #[arg(long, value_name = "LEVEL", value_parser = PossibleValuesParser::new(["low", "medium", "high"]))]
    priority: Option<String>,
    /// Share of the GPU's time when other VMs want it too, among VMs of one priority: 1 to 100 [default: 10]
    #[arg(long, value_name = "N", value_parser = |text: &str| written("weight", text))]
    weight: Option<String>,
    /// Device memory that all the VM's processes may use together, on each device, e.g. 16GiB [default: none: no limit]
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| written("vram", text))]
    vram: Option<String>,
    /// Calls a second of all its processes together; what comes sooner is delayed [default: none]
    #[arg(long, value_name = "N", value_parser = |text: &str| written("calls-per-second", text))]
    calls_per_second: Option<String>,
    /// Calls that may wait in a ring; who sends more waits [default: none: as many as the ring holds]
    #[arg(long, value_name = "N", value_parser = |text: &str| written("queue-depth", text))]
    queue_depth: Option<String>,
    /// A kernel that runs longer ends its process's session, e.g. 10s [default: none]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| written("kernel-timeout", text))]
    kernel_timeout: Option<String>,
    /// With more faulted sessions than this the VM is quarantined: it is refused new ones [default: none: never]
    #[arg(long, value_name = "N", value_parser = |text: &str| written("quarantine-after", text))]
    quarantine_after: Option<String>,
    /// The time in which they are counted [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| written("quarantine-within", text))]
    quarantine_within: Option<String>,
    /// How long a quarantine lasts, e.g. 10min [default: none: until vgpuctl clear]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| written("quarantine-for", text))]
    quarantine_for: Option<String>,
}

impl SettingArgs {
    /// Those that are there, by name.
    fn given(self) -> Vec<(&'static str, String)> {
        let all = [
            ("priority", self.priority),
            ("weight", self.weight),
            ("vram", self.vram),
            ("calls-per-second", self.calls_per_second),
            ("queue-depth", self.queue_depth),
            ("kernel-timeout", self.kernel_timeout),
            ("quarantine-after", self.quarantine_after),
            ("quarantine-within", self.quarantine_within),
            ("quarantine-for", self.quarantine_for),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
    }
}

/// A setting as it is written, once it has been seen that it can be read.
fn written(name: &str, text: &str) -> Result<String, String> {
    named::apply(&mut Settings::default(), name, text).map(|()| text.to_owned())
}

/// Who carries calls out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Executor {
    /// The real GPU where there is one, else the software device
    Auto,
    /// The real GPU; without one the daemon does not start
    Cuda,
    /// A device in software
    #[value(alias = "mock")]
    Soft,
}

/// Where the daemon is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// QEMU connects to a socket at this path.
    Socket(PathBuf),
    /// QEMU is at the other end of this descriptor.
    Descriptor(RawFd),
    /// Processes of this host connect to a socket at this path.
    Local(PathBuf),
    /// QEMU connects to a socket at this path, and gets a plain PCI function.
    Function(PathBuf, FunctionConfig),
}

/// What the daemon is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it is attached.
    pub attachment: Attachment,
    /// Permissions of its socket, if it has one: read and write, for each of user, group and others.
    pub socket_mode: u32,
    /// Number of the VM.
    pub vm_id: u32,
    /// What the host's file and the arguments come to for it.
    pub chosen: Chosen,
    /// What that was read from, and is read from again.
    pub sources: Sources,
    /// Where the host's daemons agree on who uses a GPU when, and where vgpuctl finds this one; `None` = it takes no part in that.
    pub state_dir: Option<PathBuf>,
    /// Who carries calls out.
    pub executor: Executor,
    /// The GPUs that it gets, by index in PCI order or by UUID; empty = all of them.
    pub gpus: Vec<String>,
    /// Devices that the software executor shows.
    pub soft_devices: u32,
    /// Workers that are kept ready; `None` = as many as suit the executor.
    pub idle_workers: Option<u8>,
    /// Where it is written how long calls take; `None` = it is not measured.
    pub profile: Option<PathBuf>,
}

/// Arguments that make no whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A path that no socket can have.
    #[error("socket path is {0} bytes long; a unix socket's may have {max}", max = SOCKET_PATH_MAX)]
    SocketPath(usize),
    /// Nowhere to attach to.
    #[error("one of --socket-path, --fd and --local-socket is needed")]
    NoAttachment,
    /// A front that listens, and nowhere to listen.
    #[error("--front vfio-user listens for QEMU: it needs --socket-path")]
    NoSocket,
    /// A function was described for a front that has none.
    #[error("--pci-id and --bar1-size are about the plain PCI function: use --front vfio-user")]
    NoFunction,
    /// GPUs were chosen for a device that has none.
    #[error("--gpu chooses among real GPUs: leave it out, or use --executor cuda")]
    GpuOfSoft,
    /// Devices in software were asked for, and none will be there.
    #[error("--soft-devices is about the software device: use --executor soft")]
    SoftOfGpu,
    /// The same GPU twice.
    #[error("--gpu names {0} twice")]
    GpuTwice(String),
    /// The host's file, or what it and the arguments come to.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Greatest BAR1 in bytes. Firmware has to find room for it among the guest's addresses.
const DATA_BAR_BYTES_MAX: u64 = 64 << 30;

/// Devices of the software executor, at most.
const SOFT_DEVICES_MAX: i64 = 8;

/// Workers that are kept ready, at most. Each is a process, with the driver's library in it.
const IDLE_WORKERS_MAX: i64 = 16;

/// Longest path of a unix socket in bytes, without the NUL (`sockaddr_un`).
const SOCKET_PATH_MAX: usize = 107;

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let FrontArgs { front, pci_id, bar1_size } = args.front;
        if front != FrontKind::VfioUser && (pci_id.is_some() || bar1_size.is_some()) {
            return Err(ConfigError::NoFunction);
        }
        if front == FrontKind::VfioUser && args.attachment.socket_path.is_none() {
            return Err(ConfigError::NoSocket);
        }
        let attachment = match args.attachment {
            AttachmentArgs { socket_path: Some(path), .. } if front == FrontKind::VfioUser => {
                let usual = FunctionConfig::default();
                let (vendor, device) = pci_id.unwrap_or((usual.vendor, usual.device));
                let data_bytes = bar1_size.unwrap_or(usual.data_bytes);
                Attachment::Function(path, FunctionConfig { vendor, device, data_bytes })
            }
            AttachmentArgs { socket_path: Some(path), .. } => Attachment::Socket(path),
            AttachmentArgs { fd: Some(fd), .. } => Attachment::Descriptor(fd),
            AttachmentArgs { local_socket: Some(path), .. } => Attachment::Local(path),
            AttachmentArgs { .. } => return Err(ConfigError::NoAttachment),
        };
        if let Attachment::Socket(path) | Attachment::Local(path) | Attachment::Function(path, _) =
            &attachment
        {
            let len = path.as_os_str().len();
            if len == 0 || len > SOCKET_PATH_MAX {
                return Err(ConfigError::SocketPath(len));
            }
        }
        let twice =
            args.gpu.iter().enumerate().find(|(at, gpu)| args.gpu.iter().take(*at).any(|g| g == *gpu));
        if let Some((_, gpu)) = twice {
            return Err(ConfigError::GpuTwice(gpu.clone()));
        }
        let software = args.executor == Executor::Soft;
        if software && !args.gpu.is_empty() {
            return Err(ConfigError::GpuOfSoft);
        }
        let sources = Sources {
            file: args.config,
            vm_id: args.vm_id,
            settings: args.settings.given(),
            name: args.name,
            pool: args.pool,
            gpus: args.gpu,
        };
        let chosen = sources.read()?;
        let gpus = if software { Vec::new() } else { chosen.gpus.clone() };
        // Somebody who names a GPU does not want the software device where it is missing.
        let executor = match args.executor {
            Executor::Auto if !gpus.is_empty() => Executor::Cuda,
            executor => executor,
        };
        if executor == Executor::Cuda && args.soft_devices != 1 {
            return Err(ConfigError::SoftOfGpu);
        }
        let state_dir = args.state_dir.or_else(|| chosen.state_dir.clone()).or_else(usual_state_dir);
        Ok(Self {
            attachment,
            vm_id: args.vm_id,
            chosen,
            sources,
            state_dir: state_dir.filter(|_| !args.alone),
            executor,
            gpus,
            soft_devices: args.soft_devices,
            idle_workers: args.idle_workers,
            profile: args.profile,
            socket_mode: args.socket_mode,
        })
    }
}

/// Whoever may write to a socket may connect to it.
fn socket_mode(text: &str) -> Result<u32, String> {
    let mode =
        u32::from_str_radix(text, 8).map_err(|_| "octal digits are expected: 600, 660 or 666".to_owned())?;
    match mode {
        0o600 | 0o660 | 0o666 => Ok(mode),
        _ => Err("600 (this user), 660 (and its group) and 666 (everybody) are possible".to_owned()),
    }
}

/// Where daemons meet that are not told where.
fn usual_state_dir() -> Option<PathBuf> {
    let own = || Some(PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("vgpu"));
    if rustix::process::geteuid().is_root() { Some(vgpu_control::STATE_DIR.into()) } else { own() }
}

/// Whether the arguments ask for the capabilities: QEMU's convention lets that win over everything else on the line.
pub fn asks_for_capabilities(mut args: impl Iterator<Item = std::ffi::OsString>) -> bool {
    args.any(|arg| arg == "--print-capabilities")
}

/// The capabilities, as one JSON object (docs/interop/vhost-user.rst of QEMU, back-end program conventions). The type is
/// our own: a manager that looks for a display or a file system shall not take this for one.
pub fn capabilities() -> String {
    let carriers = r#"["vhost-user-fs-pci","vhost-user-test-device-pci","vfio-user-pci"]"#;
    let (version, abi) = (env!("CARGO_PKG_VERSION"), pci_layout::ABI_VERSION);
    format!(r#"{{"type":"vgpu","features":[],"carriers":{carriers},"version":"{version}","abi":{abi}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<Config, String> {
        let words = std::iter::once("vhost-user-vgpu").chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        Config::try_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn whole_line_is_taken_over() {
        let line = "--socket-path /run/s --vm-id 7 --name web --pool B --priority high --vram 16GiB --executor mock --alone";
        let expected = Config {
            attachment: Attachment::Socket("/run/s".into()),
            socket_mode: 0o600,
            vm_id: 7,
            chosen: Chosen {
                name: Some("web".into()),
                pool: 'B',
                settings: Settings {
                    priority: pci_layout::regs::PRIORITY_HIGH,
                    vram_bytes: Some(16 << 30),
                    ..Settings::default()
                },
                gpus: Vec::new(),
                state_dir: None,
            },
            sources: Sources {
                file: None,
                vm_id: 7,
                settings: vec![("priority", "high".into()), ("vram", "16GiB".into())],
                name: Some("web".into()),
                pool: Some('B'),
                gpus: Vec::new(),
            },
            state_dir: None,
            executor: Executor::Soft,
            gpus: Vec::new(),
            soft_devices: 1,
            idle_workers: None,
            profile: None,
        };
        assert_eq!(config(line), Ok(expected));
        assert_eq!(config("--fd 3 --idle-workers 0").map(|config| config.idle_workers), Ok(Some(0)));
        assert_eq!(config("--fd 3 --profile /d").map(|config| config.profile), Ok(Some("/d".into())));
    }

    #[test]
    fn gpus_are_named_by_index_or_uuid() {
        let one = config("--fd 3 --gpu 0").unwrap();
        assert_eq!((one.gpus, one.executor), (vec!["0".to_owned()], Executor::Cuda));
        let two = config("--fd 3 --executor cuda --gpu 1,GPU-8f6b3b1a-1c2d-3e4f-5a6b-7c8d9e0f1a2b").unwrap();
        assert_eq!(two.gpus, ["1", "GPU-8f6b3b1a-1c2d-3e4f-5a6b-7c8d9e0f1a2b"]);
        for wrong in ["", "-1", "+1", "a", "GPU-", "GPU-12345678;x", "0,,1", "64", "0,0"] {
            assert!(config(&format!("--fd 3 --gpu={wrong}")).is_err(), "{wrong}");
        }
        assert!(config("--fd 3 --executor soft --gpu 0").unwrap_err().contains("--executor cuda"));
    }

    #[test]
    fn software_devices_are_counted() {
        assert_eq!(config("--fd 3 --executor soft --soft-devices 2").unwrap().soft_devices, 2);
        assert_eq!(config("--fd 3 --soft-devices 8").unwrap().soft_devices, 8);
        for wrong in [
            "--soft-devices 0",
            "--soft-devices 9",
            "--executor cuda --soft-devices 2",
            "--gpu 0 --soft-devices 2",
        ] {
            assert!(config(&format!("--fd 3 {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn defaults_are_pool_a_medium_auto_unlimited() {
        let config = config("--fd 3").unwrap();
        assert_eq!(config.attachment, Attachment::Descriptor(3));
        assert_eq!((config.vm_id, config.chosen.pool, config.chosen.settings), (0, 'A', Settings::default()));
        assert_eq!(config.executor, Executor::Auto);
    }

    #[test]
    fn exactly_one_attachment_is_needed() {
        assert!(config("").is_err());
        assert!(config("--fd 3 --socket-path /run/s").is_err());
        assert!(config("--local-socket /run/l --socket-path /run/s").is_err());
        assert_eq!(config("--local-socket /run/l").unwrap().attachment, Attachment::Local("/run/l".into()));
    }

    #[test]
    fn a_function_is_described() {
        let line = "--front vfio-user --socket-path /run/s";
        let usual = FunctionConfig { vendor: 0x10de, device: 0x2331, data_bytes: 16 << 20 };
        assert_eq!(config(line).unwrap().attachment, Attachment::Function("/run/s".into(), usual));
        let other = config(&format!("{line} --pci-id 10DE:20b5 --bar1-size 256MiB")).unwrap().attachment;
        let wanted = FunctionConfig { vendor: 0x10de, device: 0x20b5, data_bytes: 256 << 20 };
        assert_eq!(other, Attachment::Function("/run/s".into(), wanted));
        assert!(config("--socket-path /run/s --pci-id 10de:2331").unwrap_err().contains("--front vfio-user"));
        for wrong in [
            "--pci-id 10de",
            "--pci-id 10de:+331",
            "--pci-id ffff:2331",
            "--bar1-size 8MiB",
            "--bar1-size 24MiB",
        ] {
            assert!(config(&format!("{line} {wrong}")).is_err(), "{wrong}");
        }
        assert!(config("--front vfio-user --fd 3").is_err());
        assert!(config("--front vfio-user --local-socket /run/s").is_err());
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "--fd -1",
            "--fd 3 --pool AB",
            "--fd 3 --pool C",
            "--fd 3 --name 12",
            "--fd 3 --alone --state-dir /run/x",
            "--fd 3 --config /nowhere/vgpu.toml",
            "--fd 3 --kernel-timeout 5",
            "--fd 3 --quarantine-after x",
            "--fd 3 --pool a",
            "--fd 3 --priority urgent",
            "--fd 3 --vram lots",
            "--fd 3 --vram 5XiB",
            "--fd 3 --vram 0",
            "--fd 3 --vram 99999999999TiB",
            "--fd 3 --executor gpu",
            "--fd 3 --idle-workers 17",
            "--fd 3 --vm-id 4294967296",
        ] {
            assert!(config(line).is_err(), "{line} was accepted");
        }
        let long = format!("--socket-path /{}", "x".repeat(SOCKET_PATH_MAX));
        assert!(config(&long).unwrap_err().contains("107"));
    }

    #[test]
    fn the_file_gives_what_arguments_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vgpu.toml");
        std::fs::write(&path, "state-dir = '/run/here'\n[defaults]\nweight = 7\nkernel-timeout = '2s'\n[pools.B]\ngpus = ['1']\n")
            .unwrap();
        let file = path.display();
        let both = config(&format!("--fd 3 --config {file} --weight 8 --pool B")).unwrap();
        assert_eq!(
            (both.chosen.settings.weight, both.executor, both.gpus),
            (8, Executor::Cuda, vec!["1".to_owned()])
        );
        assert_eq!(both.chosen.settings.kernel_timeout, Some(std::time::Duration::from_secs(2)));
        assert_eq!(both.state_dir, Some("/run/here".into()));
        let other =
            config(&format!("--fd 3 --config {file} --state-dir /run/there --pool B --executor soft"))
                .unwrap();
        assert_eq!((other.state_dir, other.gpus.len()), (Some("/run/there".into()), 0));
        assert_eq!(config(&format!("--fd 3 --config {file} --alone")).unwrap().state_dir, None);
        std::fs::write(&path, "[defaults]\n\nweight = 'x'\n").unwrap();
        assert!(config(&format!("--fd 3 --config {file}")).unwrap_err().contains("vgpu.toml:3: weight: "));
    }

    #[test]
    fn capabilities_win_over_anything() {
        let line = ["vhost-user-vgpu", "--nonsense", "--print-capabilities"].map(Into::into);
        assert!(asks_for_capabilities(line.into_iter()));
        assert!(capabilities().starts_with(r#"{"type":"#));
    }
}
