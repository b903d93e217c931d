//! The thread that starts a VM's processes and keeps a few workers ready.
//!
//! It is one thread for the VM's whole life because workers ask the kernel to be killed when their parent ends, and to
//! the kernel the parent is the thread that forked.
//!
//! Where there is a GPU, the idle workers' driver is initialised: that is most of what opening a session costs. It holds
//! the GPU's device files, but has no context, and so none of the GPU's memory. A guest that sets variables for the driver
//! needs a worker whose driver has not read its environment yet, so one of those is kept as well.

use std::collections::VecDeque;
use std::io::Result;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pci_layout::regs;
use zerocopy::FromBytes;

use crate::channel::{Answer, ProbeAnswer};
use crate::process::{self, Ahead, ReaderProcess, WorkerProcess};
use crate::vm_page::VmPage;
use crate::{ExecutorKind, VmConfig};

/// How long after a worker was taken another one is started in its place, while there is still one of its kind: the driver's
/// initialisation would take time from the session that is just beginning, on locks of the driver's as well.
const REFILL_AFTER: Duration = Duration::from_millis(300);
/// The same where none is left: until the session has been opened, which a process that starts beside it makes take four
/// times as long.
const REFILL_SOON: Duration = Duration::from_millis(20);

enum Request {
    Probe { output: OwnedFd, answer: Sender<std::result::Result<Answer, String>> },
    Take { ahead: Ahead, answer: Sender<Result<WorkerProcess>> },
    Reader { info: Vec<u8>, answer: Sender<Result<ReaderProcess>> },
}

/// Hands out workers; each is handed out once.
pub(crate) struct Pool {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    /// `page` and `notifier` are what all workers share: the VM's page, and by which they speak to [`crate::turns`].
    pub(crate) fn start(config: VmConfig, page: Arc<VmPage>, notifier: Arc<OwnedFd>) -> Result<Self> {
        let (requests, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("vm{}-pool", config.vm_id))
            .spawn(move || serve(config, &page, &notifier, &receiver))?;
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

    /// A started worker that nobody has used. With [`Ahead::Initialised`], one that is so if there is one.
    pub(crate) fn take(&self, ahead: Ahead) -> Result<WorkerProcess> {
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let (answer, receiver) = channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request::Take { ahead, answer }).map_err(|_| gone())?;
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

fn serve(mut config: VmConfig, page: &Arc<VmPage>, notifier: &OwnedFd, requests: &Receiver<Request>) {
    let mut stock = Stock::default();
    // Nothing is kept before somebody has asked for something, and nothing more after a failure, until the next request.
    let mut refill = false;
    loop {
        let missing = if refill { stock.missing(kept(&config)) } else { None };
        let request = match missing {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(missing) => {
                let patience = if missing.none_left { REFILL_SOON } else { REFILL_AFTER };
                requests.recv_timeout(patience)
            }
        };
        match (request, missing) {
            (Ok(Request::Probe { output, answer }), _) => {
                let probed = process::probe(&config, output.as_fd());
                if let (ExecutorKind::Auto, Ok(answer)) = (config.executor, &probed) {
                    config.executor = found(answer);
                }
                // Whoever asked may have given up; then nobody needs the answer.
                let _ = answer.send(probed);
                refill = true;
            }
            (Ok(Request::Take { ahead, answer }), _) => {
                let ready = stock.take(ahead, WorkerProcess::is_running);
                let start = || WorkerProcess::start(&config, page, notifier, Ahead::Loaded);
                let _ = answer.send(ready.map_or_else(start, Ok));
                refill = true;
            }
            (Ok(Request::Reader { info, answer }), _) => {
                // As above.
                let _ = answer.send(ReaderProcess::start(&config, &info));
            }
            (Err(RecvTimeoutError::Timeout), Some(Missing { ahead, .. })) => {
                match WorkerProcess::start(&config, page, notifier, ahead) {
                    Ok(worker) => stock.put(ahead, worker),
                    Err(error) => {
                        log::error!("no worker can be kept ready: {error}");
                        refill = false;
                    }
                }
            }
            (Err(_), _) => return,
        }
    }
}

/// How many workers of which kind are kept ready.
fn kept(config: &VmConfig) -> [(Ahead, usize); 2] {
    let on_gpu = config.executor == ExecutorKind::Cuda;
    let count = config.idle_workers.unwrap_or(if on_gpu { 2 } else { 1 });
    // The device in software has nothing to initialise.
    if on_gpu {
        [(Ahead::Initialised, count), (Ahead::Loaded, count.min(1))]
    } else {
        [(Ahead::Initialised, 0), (Ahead::Loaded, count)]
    }
}

/// A kind of worker of which there are too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Missing {
    ahead: Ahead,
    none_left: bool,
}

/// Workers that nobody uses.
struct Stock<W> {
    initialised: VecDeque<W>,
    loaded: VecDeque<W>,
}

impl<W> Default for Stock<W> {
    fn default() -> Self {
        Self { initialised: VecDeque::new(), loaded: VecDeque::new() }
    }
}

impl<W> Stock<W> {
    fn of(&mut self, ahead: Ahead) -> &mut VecDeque<W> {
        match ahead {
            Ahead::Initialised => &mut self.initialised,
            Ahead::Loaded => &mut self.loaded,
        }
    }

    fn put(&mut self, ahead: Ahead, worker: W) {
        self.of(ahead).push_back(worker);
    }

    /// The oldest worker that does, and whose process runs. One that is only loaded can do the rest for itself.
    fn take(&mut self, ahead: Ahead, is_running: impl Fn(&W) -> bool) -> Option<W> {
        let kinds: &[Ahead] = match ahead {
            Ahead::Initialised => &[Ahead::Initialised, Ahead::Loaded],
            Ahead::Loaded => &[Ahead::Loaded],
        };
        kinds
            .iter()
            .find_map(|kind| std::iter::from_fn(|| self.of(*kind).pop_front()).find(|w| is_running(w)))
    }

    /// Which worker is to be started next, if any.
    fn missing(&self, kept: [(Ahead, usize); 2]) -> Option<Missing> {
        let missing = kept.map(|(ahead, count)| {
            let there = match ahead {
                Ahead::Initialised => self.initialised.len(),
                Ahead::Loaded => self.loaded.len(),
            };
            (there < count).then_some(Missing { ahead, none_left: there == 0 })
        });
        let mut urgent = missing.iter().flatten().filter(|missing| missing.none_left);
        urgent.next().or(missing.iter().flatten().next()).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    use Ahead::{Initialised, Loaded};

    const ALL: fn(&u32) -> bool = |_| true;

    fn stock(initialised: &[u32], loaded: &[u32]) -> Stock<u32> {
        Stock { initialised: initialised.to_vec().into(), loaded: loaded.to_vec().into() }
    }

    #[test]
    fn a_guest_gets_a_worker_that_its_variables_reach() {
        let mut stock = stock(&[1, 2], &[3]);
        assert_eq!(stock.take(Loaded, ALL), Some(3));
        assert_eq!(stock.take(Loaded, ALL), None, "an initialised one has read its environment");
        assert_eq!(stock.take(Initialised, ALL), Some(1));
        stock.put(Loaded, 4);
        assert_eq!(stock.take(Initialised, ALL), Some(2));
        assert_eq!(stock.take(Initialised, ALL), Some(4), "better than to start one");
        assert_eq!(stock.take(Initialised, ALL), None);
    }

    #[test]
    fn workers_that_have_ended_are_passed_over() {
        let mut stock = stock(&[1, 2], &[3]);
        assert_eq!(stock.take(Initialised, |worker| *worker != 1), Some(2));
        stock.put(Initialised, 4);
        assert_eq!(stock.take(Initialised, |worker| *worker != 4), Some(3));
        assert_eq!(stock.take(Initialised, ALL), None);
    }

    #[test]
    fn a_kind_of_which_none_is_left_is_started_first_and_soon() {
        let kept = [(Initialised, 2), (Loaded, 1)];
        let missing = |initialised: &[u32], loaded: &[u32]| stock(initialised, loaded).missing(kept);
        assert_eq!(missing(&[], &[]), Some(Missing { ahead: Initialised, none_left: true }));
        assert_eq!(missing(&[1], &[]), Some(Missing { ahead: Loaded, none_left: true }));
        assert_eq!(missing(&[1], &[2]), Some(Missing { ahead: Initialised, none_left: false }));
        assert_eq!(missing(&[1, 2], &[3]), None);
    }

    #[test]
    fn what_is_kept_depends_on_the_executor() {
        let kept = |executor, idle_workers| {
            kept(&VmConfig { executor, idle_workers, ..VmConfig::new(1) }).map(|(_, count)| count)
        };
        assert_eq!(kept(ExecutorKind::Cuda, None), [2, 1]);
        assert_eq!(kept(ExecutorKind::Cuda, Some(4)), [4, 1]);
        assert_eq!(kept(ExecutorKind::Soft, None), [0, 1]);
        assert_eq!(kept(ExecutorKind::Auto, Some(3)), [0, 3]);
        for executor in [ExecutorKind::Cuda, ExecutorKind::Soft] {
            assert_eq!(kept(executor, Some(0)), [0, 0]);
        }
    }
}
