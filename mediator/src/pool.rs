//! The thread that starts a VM's processes and keeps a few workers ready.
//!
//! It is one thread for the VM's whole life because workers ask the kernel to be killed when their parent ends, and to
//! the kernel the parent is the thread that forked.

use std::collections::VecDeque;
use std::io::Result;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use pci_layout::regs;
use zerocopy::FromBytes;

use crate::channel::{Answer, ProbeAnswer};
use crate::process::{self, ReaderProcess, WorkerProcess};
use crate::{ExecutorKind, VmConfig};

enum Request {
    Probe { output: OwnedFd, answer: Sender<std::result::Result<Answer, String>> },
    Take { answer: Sender<Result<WorkerProcess>> },
    Reader { info: Vec<u8>, answer: Sender<Result<ReaderProcess>> },
}

/// Hands out workers; each is handed out once.
pub(crate) struct Pool {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn start(config: VmConfig) -> Result<Self> {
        let (requests, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("vm{}-pool", config.vm_id))
            .spawn(move || serve(config, &receiver))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Probes the executor in a child process.
    pub(crate) fn probe(&self, output: OwnedFd) -> std::result::Result<Answer, String> {
        let (answer, receiver) = channel();
        let sent = self.requests.as_ref().map(|requests| requests.send(Request::Probe { output, answer }));
        match (sent, receiver.recv()) {
            (Some(Ok(())), Ok(answer)) => answer,
            _ => Err("the pool has ended".to_owned()),
        }
    }

    /// A started worker that nobody has used.
    pub(crate) fn take(&self) -> Result<WorkerProcess> {
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let (answer, receiver) = channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request::Take { answer }).map_err(|_| gone())?;
        receiver.recv().map_err(|_| gone())?
    }
}

impl Pool {
    /// Has a reader started for the devices in `info`, without waiting for it: it comes through the channel.
    pub(crate) fn reader(&self, info: Vec<u8>) -> Receiver<Result<ReaderProcess>> {
        let (answer, receiver) = channel();
        if let Some(requests) = self.requests.as_ref() {
            // A pool that has ended drops the sender, which whoever waits hears.
            let _ = requests.send(Request::Reader { info, answer });
        }
        receiver
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the pool's thread has panicked");
        }
    }
}

fn serve(mut config: VmConfig, requests: &Receiver<Request>) {
    let mut idle: VecDeque<WorkerProcess> = VecDeque::new();
    while let Ok(request) = requests.recv() {
        match request {
            Request::Probe { output, answer } => {
                let probed = process::probe(&config, output.as_fd());
                if let (ExecutorKind::Auto, Ok(answer)) = (config.executor, &probed) {
                    config.executor = found(answer);
                }
                // Whoever asked may have given up; then nobody needs the answer.
                let _ = answer.send(probed);
            }
            Request::Take { answer } => {
                let ready = std::iter::from_fn(|| idle.pop_front()).find(WorkerProcess::is_running);
                let worker = ready.map_or_else(|| WorkerProcess::start(&config), Ok);
                let _ = answer.send(worker);
            }
            Request::Reader { info, answer } => {
                // As above.
                let _ = answer.send(ReaderProcess::start(&config, &info));
            }
        }
        while idle.len() < config.idle_workers {
            match WorkerProcess::start(&config) {
                Ok(worker) => idle.push_back(worker),
                Err(error) => {
                    log::error!("no worker can be kept ready: {error}");
                    break;
                }
            }
        }
    }
}

/// The executor that a probe found. Workers are told which, so that a session never gets another one than its guest was
/// told of.
fn found(answer: &Answer) -> ExecutorKind {
    match ProbeAnswer::read_from_prefix(&answer.tail) {
        Ok((said, _)) if answer.error == regs::ERROR_NONE => {
            if said.capabilities & regs::CAP_HARDWARE != 0 {
                ExecutorKind::Cuda
            } else {
                ExecutorKind::Soft
            }
        }
        _ => ExecutorKind::Auto,
    }
}
