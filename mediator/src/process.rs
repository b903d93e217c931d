//! A worker process as the supervisor holds it: started, asked, ended, reaped.

use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pci_layout::event;
use rustix::event::EventfdFlags;
use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use zerocopy::IntoBytes;

use crate::channel::{self, Answer, InitBody, NoAnswer, OrderHeader, kind};
use crate::counters::CounterPage;
use crate::profile::Profile;
use crate::turns::TurnPage;
use crate::vm_page::{Slot, VmPage};
use crate::worker::exit;
use crate::{VmConfig, environment};

/// The word by which a program knows that it was started as a session's worker.
pub(crate) const WORKER_WORD: &str = "worker";
/// The word by which a program knows that it was started to probe the executor.
pub(crate) const PROBE_WORD: &str = "probe";

/// The word by which a program knows that it was started to read what the host's devices do.
pub(crate) const READER_WORD: &str = "reader";

/// The word by which a program knows that it was started to take workers off the GPU.
pub(crate) const CHECKPOINTER_WORD: &str = "checkpointer";

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It cannot be said.
    Unknown,
}

impl Exit {
    /// The `DEATH_` value that the guest hears.
    pub(crate) fn reason(self) -> u32 {
        match self {
            Self::Status(exit::MALFORMED) => event::DEATH_MALFORMED,
            Self::Status(exit::EXECUTOR) => event::DEATH_EXECUTOR,
            Self::Status(exit::TIMEOUT) => event::DEATH_TIMEOUT,
            _ => event::DEATH_WORKER_LOST,
        }
    }
}

/// A started process and its private socket. Dropping it kills and reaps it.
pub(crate) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    socket: OwnedFd,
    ended: Mutex<Ended>,
}

/// How a process ended, once it has been reaped; and what it has until then.
#[derive(Default)]
struct Ended {
    exit: Option<Exit>,
    slot: Option<Slot>,
}

impl Child {
    /// Starts the VM's program. The calling thread must outlive the process: the kernel kills the process when the
    /// thread that started it ends.
    pub(crate) fn start(config: &VmConfig, word: &str) -> Result<Self> {
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let parent = rustix::process::getpid();
        let mut command = Command::new(&config.program);
        command.args(&config.program_args).arg(word);
        command.env_clear().envs(environment::of_daemon());
        if config.pci_order {
            command.env(environment::DEVICE_ORDER, "PCI_BUS_ID");
        }
        // The socket is standard input: the one descriptor whose number needs no agreement.
        // In a group of its own, so that a terminal's interrupt reaches the daemon, and the worker through it.
        command.process_group(0);
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        // SAFETY: between fork and exec only system calls are made, on values of this closure's own.
        unsafe { command.pre_exec(move || before_exec(parent)) };
        let started = command.spawn()?;
        let pid = Pid::from_child(&started);
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let mut started = started;
                started.kill()?;
                started.wait()?;
                return Err(error.into());
            }
        };
        Ok(Self { pid, pidfd, socket, ended: Mutex::default() })
    }

    /// Sends an order and waits for its answer.
    pub(crate) fn ask(
        &self,
        header: OrderHeader,
        tail: &[u8],
        files: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> std::result::Result<Answer, NoAnswer> {
        self.tell(header, tail, files)?;
        self.answer(limit)
    }

    /// Waits for the answer to the last order.
    pub(crate) fn answer(&self, limit: Duration) -> std::result::Result<Answer, NoAnswer> {
        channel::receive_answer(&self.socket, limit)
    }

    fn tell(
        &self,
        header: OrderHeader,
        tail: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> std::result::Result<(), NoAnswer> {
        channel::send_order(&self.socket, header, tail, files).map_err(|error| {
            log::debug!("order {} to worker {}: {error}", header.kind, self.pid);
            NoAnswer::Lost
        })
    }

    /// True once the process has ended, reaped or not.
    fn has_ended(&self, limit: Duration) -> bool {
        channel::wait_readable(&self.pidfd, limit).unwrap_or(false)
    }

    /// Asks the worker to end, kills it if it has not after `limit`, reaps it.
    pub(crate) fn end(&self, limit: Duration) -> Exit {
        if self.tell(OrderHeader::new(kind::END), &[], &[]).is_ok() && !self.has_ended(limit) {
            log::info!("worker {} does not end by itself and is killed", self.pid);
        }
        self.kill_and_reap()
    }

    /// SIGKILL, at once and from any thread.
    pub(crate) fn kill(&self) {
        // Fails only for a process that has ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Kills the process if it still runs and waits until it is gone, memory and all.
    pub(crate) fn kill_and_reap(&self) -> Exit {
        let mut ended = self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(exit) = ended.exit {
            return exit;
        }
        self.kill();
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        });
        let exit = match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Status(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            Ok(None) => Exit::Unknown,
            Err(error) => {
                log::error!("worker {} cannot be reaped: {error}", self.pid);
                Exit::Unknown
            }
        };
        ended.exit = Some(exit);
        // Once, and not before: what it had of the VM's account is free now.
        drop(ended.slot.take());
        exit
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

/// Runs in the child between fork and exec.
fn before_exec(parent: Pid) -> Result<()> {
    // SAFETY: marks descriptors close-on-exec and nothing else; the raw call is async-signal-safe. Standard output and
    // error are below the range.
    let marked = unsafe {
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if marked != 0 {
        return Err(std::io::Error::last_os_error());
    }
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Mappings from the bottom up, so that the worker's own stay out of the high addresses where guests have theirs.
    const ADDR_COMPAT_LAYOUT: libc::c_ulong = 0x0020_0000;
    // SAFETY: personality with this argument only asks.
    let current = unsafe { libc::personality(0xffff_ffff) };
    let wanted = libc::c_ulong::try_from(current).unwrap_or(0) | ADDR_COMPAT_LAYOUT;
    // SAFETY: changes how the next exec lays out memory, of this process only.
    if unsafe { libc::personality(wanted) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The daemon may have ended before that call.
    if rustix::process::getppid() != Some(parent) {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// What a worker has done before a session comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// The executor's library is loaded. The guest's environment is set when the session opens.
    Loaded,
    /// The executor is initialised, or is being so: its library has read the environment, and runs threads beside which
    /// none can be set any more.
    Initialised,
}

/// A worker: its process and what it shares with the supervisor.
pub(crate) struct WorkerProcess {
    ahead: Ahead,
    child: Child,
    kick: OwnedFd,
    wake: OwnedFd,
    /// Where the worker asks (`sharing.rs`).
    requests: OwnedFd,
    counters: CounterPage,
    turns: TurnPage,
    /// Where the VM is profiled.
    profile: Option<Profile>,
    /// The kick descriptor was given to a guest process, which may have changed its flags.
    kick_shared: AtomicBool,
}

impl WorkerProcess {
    /// Starts a worker and tells it whose it will be; see [`Child::start`] for the thread.
    pub(crate) fn start(
        config: &VmConfig,
        page: &Arc<VmPage>,
        notifier: &OwnedFd,
        ahead: Ahead,
    ) -> Result<Self> {
        let slot = page.slot().ok_or_else(|| std::io::Error::other("the VM has too many workers"))?;
        let number = slot.number();
        let child = Child::start(config, WORKER_WORD)?;
        child.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).slot = Some(slot);
        let eventfd = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (kick, wake) = (eventfd()?, eventfd()?);
        let (counters, file) = CounterPage::create()?;
        let (requests, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let tail = init_tail(config, ahead, number);
        let (turns, turns_file) = TurnPage::create()?;
        let mut files = vec![
            kick.as_fd(),
            wake.as_fd(),
            file.as_fd(),
            theirs.as_fd(),
            page.file(),
            turns_file.as_fd(),
            notifier.as_fd(),
        ];
        let profile = config.profile.is_some().then(Profile::create).transpose()?;
        files.extend(profile.iter().map(|(_, file)| file.as_fd()));
        channel::send_order(&child.socket, OrderHeader::new(kind::INIT), &tail, &files)?;
        let profile = profile.map(|(profile, _)| profile);
        Ok(Self {
            ahead,
            child,
            kick,
            wake,
            requests,
            counters,
            turns,
            profile,
            kick_shared: AtomicBool::new(false),
        })
    }

    pub(crate) fn ahead(&self) -> Ahead {
        self.ahead
    }

    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub(crate) fn requests_fd(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }

    pub(crate) fn counters(&self) -> &CounterPage {
        &self.counters
    }

    /// What it is told of turns, and tells.
    pub(crate) fn turns(&self) -> &TurnPage {
        &self.turns
    }

    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// True while the process runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.child.has_ended(Duration::ZERO)
    }

    /// True while the process runs, and is not about to end: it has been killed, or was asked to end.
    pub(crate) fn goes_on(&self, limit: Duration) -> bool {
        !self.child.has_ended(limit)
    }

    /// Tells the worker that a parked ring may have frames. False if kicking is its guest's own business.
    pub(crate) fn kick(&self) -> bool {
        // A guest that holds the descriptor could have made it blocking and full.
        if self.kick_shared.load(Ordering::Acquire) {
            return false;
        }
        match rustix::io::write(&self.kick, &1u64.to_ne_bytes()) {
            // Full is as good: a kick is on its way.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => true,
            Err(error) => {
                log::error!("worker {} cannot be kicked: {error}", self.pid());
                false
            }
        }
    }

    /// The kick descriptor for a guest process of this host; from now on it kicks by itself.
    pub(crate) fn share_kick(&self) -> Result<OwnedFd> {
        let shared = self.kick.try_clone()?;
        self.kick_shared.store(true, Ordering::Release);
        Ok(shared)
    }
}

/// A process that reads what the host's devices do, whenever it is asked; nothing waits for it.
pub(crate) struct ReaderProcess {
    child: Child,
    output: OwnedFd,
}

impl ReaderProcess {
    /// Starts it and asks it for the first reading of the devices in `info`; see [`Child::start`] for the thread.
    pub(crate) fn start(config: &VmConfig, info: &[u8]) -> Result<Self> {
        let child = Child::start(config, READER_WORD)?;
        let output = rustix::fs::memfd_create("vgpu-readings", MemfdFlags::CLOEXEC)?;
        channel::send_order(&child.socket, OrderHeader::new(kind::READER), info, &[output.as_fd()])?;
        Ok(Self { child, output })
    }

    /// Asks it to read again; it must have answered before.
    pub(crate) fn ask(&self) -> bool {
        self.child.tell(OrderHeader::new(kind::READ), &[], &[]).is_ok()
    }

    /// The answer, if it has come.
    pub(crate) fn answer(&self) -> std::result::Result<Answer, NoAnswer> {
        self.child.answer(Duration::ZERO)
    }

    /// What it has read: so many bytes, by its answer.
    pub(crate) fn read(&self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        channel::read_exact_at(&self.output, &mut bytes)?;
        Ok(bytes)
    }
}

fn init_tail(config: &VmConfig, ahead: Ahead, slot: u32) -> Vec<u8> {
    let body = InitBody {
        executor: config.executor.number(),
        vm_id: config.vm_id,
        priority: config.settings.priority,
        has_quota: u32::from(config.settings.vram_bytes.is_some()),
        vram_bytes: config.settings.vram_bytes.unwrap_or(0),
        has_devices: u32::from(config.visible_devices.is_some()),
        soft_devices: config.soft_devices,
        spin_us: u64::try_from(config.spin.as_micros()).unwrap_or(u64::MAX),
        initialise: u32::from(ahead == Ahead::Initialised),
        slot,
    };
    let mut tail = body.as_bytes().to_vec();
    tail.extend_from_slice(config.visible_devices.as_deref().unwrap_or_default().as_bytes());
    tail
}

/// Starts the program as a probe, which writes the information blob to `output`, and waits for its answer.
pub(crate) fn probe(config: &VmConfig, output: BorrowedFd<'_>) -> std::result::Result<Answer, String> {
    let child = Child::start(config, PROBE_WORD).map_err(|error| format!("{:?}: {error}", config.program))?;
    let tail = init_tail(config, Ahead::Loaded, 0);
    let asked = child.ask(OrderHeader::new(kind::PROBE), &tail, &[output], config.limits.probe);
    asked.map_err(|error| {
        let exit = child.kill_and_reap();
        format!("{error} ({exit:?})")
    })
}
