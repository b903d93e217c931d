//! The program: arguments to a running daemon, and its exit status.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use mediator::worker::Role;
use rustix::fs::Mode;
use rustix::net::SocketType;

use crate::args::{self, Args, Attachment, Config, FunctionConfig};
use crate::control;
use crate::daemon::{self, Stop};
use crate::join::Joint;
use crate::local;
use crate::socket::Listener;
use crate::vfio_user;
use crate::watch;

/// How long guests have to close their sessions when the daemon is asked to end. A busy guest on a busy host takes its time, and one
/// that comes too late waits for its driver's patience.
const CLOSING: Duration = Duration::from_secs(5);

/// Runs the program that the command line asks for.
pub fn main() -> ExitCode {
    // The daemon starts itself as its workers: one word, which no command line of a person's consists of.
    if std::env::args_os().len() == 2 && Role::of_this_process().is_some() {
        start_log();
        mediator::worker::main(mediator::executor::Program::default());
    }
    if args::asks_for_capabilities(std::env::args_os().skip(1)) {
        println!("{}", args::capabilities());
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info,virtio_queue=off"))
        .init();
    let config = match Config::try_from(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("vhost-user-vgpu: {error}");
            return ExitCode::from(2);
        }
    };
    raise_descriptor_limit();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Descriptors that the daemon would like to have: what a VM's processes share (16384 at most), and everything else.
const DESCRIPTORS: u64 = 32768;

/// Takes as many descriptors as it may. With fewer, what guests share by descriptor ends sooner, with CUDA_ERROR_OUT_OF_MEMORY.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if let Some(current) = current.filter(|current| *current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        log::warn!("the limit of open descriptors stays at {current}: {error}");
    }
}

fn start_log() {
    // The queue crate logs each rule that a guest breaks, at a rate that the guest chooses.
    let env = env_logger::Env::default().default_filter_or("info,virtio_queue=off");
    let mut builder = env_logger::Builder::from_env(env);
    // A worker's standard error becomes the guest's: the log keeps a way of its own.
    if let Ok(log) = std::io::stderr().as_fd().try_clone_to_owned() {
        builder.target(env_logger::Target::Pipe(Box::new(std::fs::File::from(log))));
    }
    let log = builder.build();
    let level = log.filter();
    mediator::worker::start_log(Box::new(log), level);
}

/// The attachment, as far as it is made before anything else: an error in it is found before workers are started.
enum Endpoint {
    Connection(UnixStream),
    Socket(Listener),
    Local(Listener),
    Function(Listener, FunctionConfig),
}

impl Endpoint {
    fn open(attachment: &Attachment, mode: Mode) -> Result<Self> {
        Ok(match attachment {
            Attachment::Descriptor(fd) => Self::Connection(inherited_socket(*fd)?),
            Attachment::Socket(path) => Self::Socket(Listener::bind(path, SocketType::STREAM, mode)?),
            Attachment::Local(path) => Self::Local(Listener::bind(path, SocketType::SEQPACKET, mode)?),
            Attachment::Function(path, config) => {
                Self::Function(Listener::bind(path, SocketType::STREAM, mode)?, *config)
            }
        })
    }
}

fn run(config: &Config) -> Result<()> {
    // First of all: nothing of our own is open yet that could have the number of an inherited descriptor.
    let endpoint = Endpoint::open(&config.attachment, Mode::from_raw_mode(config.socket_mode))?;
    let controls = match &config.state_dir {
        Some(folder) => {
            let place = control::bind(folder, config.vm_id).with_context(|| {
                format!(
                    "VM {} has no place among this host's (see --vm-id, --state-dir, --alone)",
                    config.vm_id
                )
            });
            Some(Arc::new(place?))
        }
        None => {
            log::info!("VM {} shares with no other: there is no --state-dir", config.vm_id);
            None
        }
    };
    let joint = Joint::start(config).context("the VM cannot be served")?;
    let (device, totals) = (&joint.device, joint.totals());
    if let Some(controls) = &controls {
        joint.answer_on(Arc::clone(controls), config).context("the control socket")?;
    }
    let stop = Stop::new()?;
    let end = {
        let (shut_down, device, stop) = (joint.shutdown(), device.clone(), stop.clone());
        move || {
            shut_down();
            // The guest has heard of it by now, and can still close its sessions: once the connection is gone, a guest
            // thread that waits for that would wait for ever.
            let start = Instant::now();
            while device.sessions_open() > 0 && start.elapsed() < CLOSING {
                thread::sleep(Duration::from_millis(5));
            }
            stop.ask();
        }
    };
    watch::start(end, totals.clone(), joint.profiles(), joint.toggle_suspend())?;
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log::warn!("cannot tell the service manager that we are ready: {error}");
    }
    let vm = config.vm_id;
    let ended = match endpoint {
        Endpoint::Connection(stream) => {
            log::info!("VM {vm}: serving the inherited connection");
            daemon::serve_connection(stream, device, &stop).context("the connection to the VM has failed")
        }
        Endpoint::Socket(listener) => {
            log::info!("VM {vm}: waiting for QEMU on {}", listener.path().display());
            daemon::serve_listener(&listener, device, &stop).context("the socket has failed")
        }
        Endpoint::Function(listener, function) => {
            let path = listener.path().display();
            log::info!("VM {vm}: waiting for QEMU on {path}, which gets a plain PCI function (vfio-user)");
            vfio_user::serve(&listener, device, &stop, &function).context("the socket has failed")
        }
        Endpoint::Local(listener) => {
            log::info!("VM {vm}: waiting for processes of this host on {}", listener.path().display());
            local::serve(&listener, device, &stop).context("the socket has failed")
        }
    };
    joint.shut_down();
    if let Some(controls) = controls {
        // Its thread has it as well.
        controls.unlink();
    }
    log::info!("totals: {}", totals());
    ended
}

/// The connected socket that was handed over as descriptor `fd`.
fn inherited_socket(fd: RawFd) -> Result<UnixStream> {
    // SAFETY: `fd` is not negative (the command line refuses that); it is only asked whether it is open.
    let candidate = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_getfd(candidate).context("the descriptor of --fd is not open")?;
    // SAFETY: it is open, as was just seen; the parent opened it for us (that is what --fd says), and nothing of our own
    // was opened before this is called, so there is no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    let kind = rustix::net::sockopt::socket_type(&fd).context("the descriptor of --fd is no socket")?;
    if kind != SocketType::STREAM || rustix::net::getpeername(&fd).is_err() {
        bail!("the descriptor of --fd is no connected stream socket");
    }
    Ok(UnixStream::from(fd))
}
