//! What a front tells the mediator, and what it hears back.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pci_layout::control;

use crate::{Settings, environment};

/// Which executor carries calls out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExecutorKind {
    /// A real GPU where there is one, else the CPU device.
    #[default]
    Auto,
    /// The real driver; an error where there is none.
    Cuda,
    /// The CPU device.
    Soft,
}

impl ExecutorKind {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Auto => 0,
            Self::Cuda => 1,
            Self::Soft => 2,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Auto, Self::Cuda, Self::Soft].into_iter().find(|kind| kind.number() == number)
    }
}

/// How long the supervisor waits for what. Each of them ends in SIGKILL for the worker.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Probe of the executor's devices: a cold driver takes its time.
    pub probe: Duration,
    /// From OPEN_SESSION to a serving worker (`cuInit` of several workers at once runs one after the other).
    pub open: Duration,
    /// Mapping of a ring part or region.
    pub map: Duration,
    /// Removal of a ring or region: the driver may have to wait for the GPU first.
    pub unmap: Duration,
    /// From "end, please" to SIGKILL.
    pub close: Duration,
    /// How long [`crate::Vm::stop`] waits for calls to return and the device to become idle.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            probe: Duration::from_secs(60),
            open: Duration::from_secs(30),
            map: Duration::from_secs(10),
            unmap: Duration::from_secs(30),
            close: Duration::from_millis(200),
            stop: Duration::from_secs(10),
        }
    }
}

/// One VM's share of the GPU and how its workers are started.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// The VM's number, for logs and the executor.
    pub vm_id: u32,
    /// The VM's pool, an ASCII letter.
    pub pool: char,
    /// What may change while it runs ([`crate::Vm::change_settings`]).
    pub settings: Settings,
    /// Where the host's daemons agree on who uses a GPU when, a folder; None: this VM takes no part in that.
    pub state_dir: Option<PathBuf>,
    /// The executor asked for.
    pub executor: ExecutorKind,
    /// Devices that the software executor shows, 1 to [`executor_soft::DEVICES_MAX`].
    pub soft_devices: u32,
    /// Devices that this VM may see, in CUDA_VISIBLE_DEVICES notation; a guest's own choice is applied within them.
    /// Default: the daemon's own CUDA_VISIBLE_DEVICES.
    pub visible_devices: Option<String>,
    /// Indices in that list count in PCI order, as NVML and nvidia-smi do, whatever the daemon's environment says. Default: no.
    pub pci_order: bool,
    /// The program to exec as worker; it calls [`crate::worker::main`]. Default: this very program.
    pub program: PathBuf,
    /// Arguments before the word `worker` or `probe`.
    pub program_args: Vec<OsString>,
    /// Workers kept ready before a session asks for one; 0: none, each session starts its own. Where there is a GPU, their
    /// driver is initialised, and one more is kept whose driver is not, for guests that set variables for it. None: 2 with
    /// a GPU, else 1.
    pub idle_workers: Option<usize>,
    /// Measure how long calls take and ring threads wait, and write it into this folder, which is made if it is not there.
    pub profile: Option<PathBuf>,
    /// Sessions at once, at most [`control::SESSIONS_MAX`].
    pub sessions_max: u32,
    /// How long a ring's host thread polls an empty ring before it parks.
    pub spin: Duration,
    /// Time limits.
    pub limits: Limits,
}

impl VmConfig {
    /// VM `vm_id` with every other setting at its default.
    pub fn new(vm_id: u32) -> Self {
        Self {
            vm_id,
            pool: 'A',
            settings: Settings::default(),
            state_dir: None,
            executor: ExecutorKind::Auto,
            soft_devices: 1,
            visible_devices: std::env::var(environment::VISIBLE_DEVICES).ok(),
            pci_order: false,
            program: PathBuf::from("/proc/self/exe"),
            program_args: Vec::new(),
            idle_workers: None,
            profile: None,
            sessions_max: control::SESSIONS_MAX,
            spin: Duration::from_micros(50),
            limits: Limits::default(),
        }
    }
}

/// Part of guest RAM (or of a memfd), already translated and bounded by the front: `[offset, offset + len)` lies inside
/// the file, page aligned. The file is shared memory; the front has seen to that.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The file; parts of the same file share the `Arc`.
    pub file: Arc<OwnedFd>,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// How a session's guest threads are woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeKind {
    /// Through [`Events::wake`]: the guest sleeps in its kernel module.
    Event,
    /// By a shared futex on the ring's `guest_parked` word: the guest is a process of this host.
    Futex,
}

/// What a front knows of a session that is to be opened.
#[derive(Debug, Clone)]
pub struct Open {
    /// Process id in the guest, for logs.
    pub pid: u32,
    /// User id in the guest, for logs.
    pub uid: u32,
    /// Call table fingerprint of the guest's libcuda.
    pub fingerprint: [u8; 16],
    /// The environment block: NUL-terminated `NAME=value` strings.
    pub env: Vec<u8>,
    /// The session page, [`pci_layout::ring::SESSION_PAGE_BYTES`] long.
    pub page: Piece,
    /// How guest threads are woken.
    pub wake: WakeKind,
}

/// Why an operation failed, as the guest is to hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("device error {error}, CUresult {cuda_result}")]
pub struct SessionError {
    /// One of the `ERROR_` values of the register block.
    pub error: u32,
    /// A CUresult where `error` is [`regs::ERROR_CUDA`], else 0.
    pub cuda_result: u32,
}

impl SessionError {
    pub(crate) const fn new(error: u32) -> Self {
        Self { error, cuda_result: 0 }
    }
}

/// Hears the end of an operation; called exactly once, from any thread. It must not wait.
pub type Done = Box<dyn FnOnce(Result<(), SessionError>) + Send>;

/// What happens by itself. Called from the mediator's threads, which it must not hold up.
pub trait Events: Send + Sync {
    /// Guest threads of `session` are to be woken: its session page says which.
    fn wake(&self, session: u32);
    /// `session` is over; `reason` is a `DEATH_` value. Its slot stays taken until it is closed.
    fn died(&self, session: u32, reason: u32);
}

/// Why a VM cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of range.
    #[error("setting {0} is out of range")]
    Config(&'static str),
    /// The host refused something every VM needs.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The program found no usable executor, or ended before it said.
    #[error("the executor's probe failed: {0}")]
    Probe(String),
    /// GPUs that were asked for are not there.
    #[error("of the GPUs {list} the driver shows {found} (nvidia-smi -L lists what there is)")]
    Gpus {
        /// The GPUs, as they were asked for.
        list: String,
        /// How many of them there are.
        found: usize,
    },
}
