//! The worker process: one session, its rings, its executor.
//!
//! | thread | what it does |
//! |---|---|
//! | main | carries out the supervisor's orders, one after the other |
//! | kick | waits for kicks and wakes the ring threads that have frames |
//! | ring-N | consumes ring N and calls the handler |
//! | watchdog | sleeps, or ends the session when a kernel runs longer than it may |
//!
//! A thread that finds the session beyond repair ends the process with one of the statuses in [`exit`]: nothing here is
//! worth saving, and the supervisor turns the status into the reason that the guest hears.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

mod checkpoint;
mod completion;
mod gate;
mod limits;
mod logging;
mod mapping;
mod orders;
mod output;
mod queue;
mod regions;
mod ring;
mod rings;
mod sandbox;
mod sequence;
mod suspend;
mod turns;
mod wake;
mod watchdog;
mod window;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cuda_api::account::Account;
use cuda_api::completion::Completion;
use cuda_api::output::DeviceOutput;
use cuda_api::sharing::Sharing;
use pci_layout::regs;
use zerocopy::IntoBytes;

use crate::channel::{self, Answer, Order, ProbeAnswer, kind};
use crate::process::{CHECKPOINTER_WORD, PROBE_WORD, READER_WORD, WORKER_WORD};
use crate::{CallHandler, ExecutorKind, PROBE_INFO_BYTES_MAX};

pub use self::logging::start_log;
pub use crate::counters::StagedBytes;
pub use checkpoint::{Action, Checkpointer};
pub use sequence::ORDER_ASK_AFTER;
pub use window::PINNED_WINDOW;

/// Exit statuses of a worker.
pub mod exit {
    /// The supervisor asked for the end, or is gone itself.
    pub const ASKED: i32 = 0;
    /// The guest broke the rules of the ring or of a call.
    pub const MALFORMED: i32 = 81;
    /// The executor broke its contract and cannot go on.
    pub const EXECUTOR: i32 = 82;
    /// A thread panicked.
    pub const PANICKED: i32 = 83;
    /// The host refused what a worker cannot be without.
    pub const HOST: i32 = 84;
    /// A kernel ran longer than it may.
    pub const TIMEOUT: i32 = 85;
}

/// What a worker is told about its VM and session before it makes its handler. The guest's environment variables, those
/// that pass, are in the process's own environment by then.
#[derive(Clone)]
pub struct WorkerSetup {
    /// The executor asked for.
    pub executor: ExecutorKind,
    /// The VM's number.
    pub vm_id: u32,
    /// The VM's priority, a `PRIORITY_` value.
    pub priority: u32,
    /// The VM's VRAM quota in bytes when the worker was started; `account` has it as it is.
    pub vram_bytes: Option<u64>,
    /// Devices that the software executor shows.
    pub soft_devices: u32,
    /// The session's slot; 0 in a probe.
    pub session: u32,
    /// Process id in the guest, for logs; 0 in a probe.
    pub pid: u32,
    /// User id in the guest, for logs; 0 in a probe.
    pub uid: u32,
    /// Where the session's device memory is counted, with that of the VM's other sessions; None in a probe.
    pub account: Option<Arc<dyn Account>>,
    /// Where the handler counts what it moved through staging buffers; None in a probe.
    pub staged: Option<StagedBytes>,
    /// Through whom the session shares with others of its VM; None in a probe.
    pub sharing: Option<Arc<dyn Sharing>>,
    /// What kernels print; None in a probe.
    pub output: Option<Arc<dyn DeviceOutput>>,
    /// The session's completion words; None in a probe.
    pub completion: Option<Arc<dyn Completion>>,
}

/// What a probe finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// The blob for READ_INFO, at most [`PROBE_INFO_BYTES_MAX`] long.
    pub info: Vec<u8>,
    /// The `CAP_` bits.
    pub capabilities: u32,
    /// CUDA devices.
    pub device_count: u32,
    /// The call table's fingerprint.
    pub fingerprint: [u8; 16],
}

/// Why there is no handler, or no probe.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct SetupError {
    /// One of the `ERROR_` values of the register block.
    pub error: u32,
    /// The CUresult where `error` is ERROR_CUDA, else 0.
    pub cuda_result: u32,
    /// In words, for the log.
    pub reason: String,
}

/// What the program that is exec'd as worker brings along.
pub trait WorkerProgram {
    /// Its calls' handler.
    type Handler: CallHandler;

    /// Does beforehand what depends on no session (loading the driver's library); called while the worker is idle. It
    /// must start no thread: the guest's environment variables are set after it.
    fn prepare(&mut self, executor: ExecutorKind) {
        let _ = executor;
    }

    /// Goes on with that as far as a session without variables of its own allows (initialising the driver); called after
    /// [`WorkerProgram::prepare`] in workers that no variables are set in any more, so that it may start threads. In
    /// `setup` the session is missing.
    ///
    /// # Errors
    /// [`SetupError`]: [`WorkerProgram::open`] would fail. It may be called all the same, and has to try again then.
    fn initialise(&mut self, setup: &WorkerSetup) -> Result<(), SetupError> {
        let _ = setup;
        Ok(())
    }

    /// Looks at the executor's devices; the process ends after that.
    ///
    /// # Errors
    /// [`SetupError`]: the VM cannot be served.
    fn probe(self, setup: &WorkerSetup) -> Result<Probe, SetupError>;

    /// Gets ready to read what the host's devices do: those that `info`, the probe's blob, is of. What comes back reads them, whenever it
    /// is called, as [`cuda_api::live::Readings`] are encoded. None where nobody can read them, which is the default.
    fn reader(self, info: &[u8]) -> Option<Box<dyn FnMut() -> Vec<u8>>>
    where
        Self: Sized,
    {
        let _ = info;
        None
    }

    /// Gets ready to have the driver take other processes off the devices that `info`, the probe's blob, is of.
    ///
    /// # Errors
    /// [`SetupError`]: nothing here can, which is the default.
    fn checkpointer(self, info: &[u8]) -> Result<Box<dyn Checkpointer>, SetupError>
    where
        Self: Sized,
    {
        let _ = info;
        let reason = "this program checkpoints nothing".to_owned();
        Err(SetupError { error: regs::ERROR_UNSUPPORTED, cuda_result: 0, reason })
    }

    /// Makes the handler of a session.
    ///
    /// # Errors
    /// [`SetupError`]: the session is refused.
    fn open(self, setup: WorkerSetup) -> Result<Self::Handler, SetupError>;
}

/// What a program was started for, by its last argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To serve a session: call [`main`].
    Worker,
    /// To probe the executor: call [`main`] all the same.
    Probe,
    /// To read what the host's devices do: call [`main`] all the same.
    Reader,
    /// To have the driver take workers off the GPU and bring them back: call [`main`] all the same.
    Checkpointer,
}

impl Role {
    /// The role that this process was started in by a supervisor; None in any other program.
    pub fn of_this_process() -> Option<Self> {
        let last = std::env::args_os().next_back()?;
        let words = [
            (WORKER_WORD, Self::Worker),
            (PROBE_WORD, Self::Probe),
            (READER_WORD, Self::Reader),
            (CHECKPOINTER_WORD, Self::Checkpointer),
        ];
        words.into_iter().find_map(|(word, role)| (last == word).then_some(role))
    }
}

/// Serves the supervisor that started this process. To be called first thing in `main`, before any thread exists and
/// before anything is loaded: the address windows are reserved here.
pub fn main(mut program: impl WorkerProgram) -> ! {
    end_on_panic();
    let socket = match prepare_process() {
        Ok(socket) => socket,
        Err(error) => die(exit::HOST, &format!("the worker cannot start: {error}")),
    };
    let Order { header, tail, files } = match channel::receive_order(&socket) {
        Ok(Some(order)) => order,
        Ok(None) => end(exit::ASKED),
        Err(error) => die(exit::HOST, &format!("the first order: {error}")),
    };
    match header.kind {
        kind::INIT => {
            let init = orders::init_of(&tail);
            if let Err(error) = sandbox::confine() {
                die(exit::HOST, &format!("the worker cannot be confined: {error}"));
            }
            program.prepare(init.setup.executor);
            orders::initialise(&mut program, &init, &socket);
            orders::serve(program, init, &socket, files)
        }
        kind::PROBE => {
            let output = files.into_iter().next();
            let answer = answer_probe(program, &orders::init_of(&tail).setup, output);
            if let Err(error) = channel::send_answer(&socket, &answer) {
                die(exit::HOST, &format!("the probe's answer: {error}"));
            }
            end(exit::ASKED)
        }
        kind::READER => {
            if let Err(error) = sandbox::confine() {
                die(exit::HOST, &format!("the reader cannot be confined: {error}"));
            }
            match serve_readings(program.reader(&tail), &socket, files.into_iter().next()) {
                Ok(()) => end(exit::ASKED),
                Err(error) => die(exit::HOST, &format!("the reader: {error}")),
            }
        }
        kind::CHECKPOINTER => match sandbox::no_new_privileges()
            .map_err(std::io::Error::other)
            .and_then(|()| checkpoint::serve(program.checkpointer(&tail), &socket))
        {
            Ok(()) => end(exit::ASKED),
            Err(error) => die(exit::HOST, &format!("the checkpointer: {error}")),
        },
        other => die(exit::HOST, &format!("first order of kind {other}")),
    }
}

/// Reads at once, and again whenever it is asked, until the supervisor is gone.
fn serve_readings(
    reader: Option<Box<dyn FnMut() -> Vec<u8>>>,
    socket: &OwnedFd,
    output: Option<OwnedFd>,
) -> std::io::Result<()> {
    let (Some(mut reader), Some(output)) = (reader, output) else {
        return channel::send_answer(socket, &answer_error(regs::ERROR_UNSUPPORTED, 0, String::new()));
    };
    loop {
        let readings = reader();
        let mut done = 0usize;
        while let Some(rest) = readings.get(done..).filter(|rest| !rest.is_empty()) {
            done = done.saturating_add(rustix::io::pwrite(&output, rest, done as u64)?);
        }
        let tail = (readings.len() as u64).to_le_bytes().to_vec();
        channel::send_answer(socket, &Answer { tail, ..Answer::default() })?;
        match channel::receive_order(socket)? {
            Some(order) if order.header.kind == kind::READ => {}
            _ => return Ok(()),
        }
    }
}

/// Reserves the windows, takes the socket from standard input, and drops privileges that nothing here needs.
fn prepare_process() -> std::io::Result<OwnedFd> {
    window::reserve()?;
    sandbox::drop_privileges()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

fn answer_probe(program: impl WorkerProgram, setup: &WorkerSetup, output: Option<OwnedFd>) -> Answer {
    let probed = program.probe(setup).and_then(|probe| {
        let host =
            |reason: String| SetupError { error: regs::ERROR_MEDIATOR_UNAVAILABLE, cuda_result: 0, reason };
        let output = output.ok_or_else(|| host("no file for the information".to_owned()))?;
        if probe.info.len() > PROBE_INFO_BYTES_MAX {
            return Err(host(format!("{} bytes of information", probe.info.len())));
        }
        let mut rest = probe.info.as_slice();
        while !rest.is_empty() {
            let written = rustix::io::write(output.as_fd(), rest).map_err(|error| host(error.to_string()))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(ProbeAnswer {
            capabilities: probe.capabilities,
            device_count: probe.device_count,
            fingerprint: probe.fingerprint,
            info_len: probe.info.len() as u64,
        })
    });
    match probed {
        Ok(said) => Answer { tail: said.as_bytes().to_vec(), ..Answer::default() },
        Err(error) => answer_error(error.error, error.cuda_result, error.reason),
    }
}

fn answer_error(error: u32, cuda_result: u32, reason: String) -> Answer {
    Answer { error, cuda_result, tail: reason.into_bytes() }
}

/// A panic in any thread ends the session, not just that thread: its ring would never be served again.
fn end_on_panic() {
    // Not on standard error, which may be the guest's by then.
    std::panic::set_hook(Box::new(move |info| {
        self::logging::last_words();
        log::error!("{info}\n{}", std::backtrace::Backtrace::capture());
        end(exit::PANICKED)
    }));
}

/// Ends the process for a reason that goes to the log.
fn die(status: i32, reason: &str) -> ! {
    if status != exit::ASKED {
        self::logging::last_words();
    }
    log::error!("{reason}");
    end(status)
}

/// Ends the process without running anybody's exit handlers: the driver's may wait for the GPU.
fn end(status: i32) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(status) }
}
