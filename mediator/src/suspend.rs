//! Suspend and resume of a VM: its sessions come to rest, and what they have of the GPU goes to host memory.
//!
//! 1. Every session is brought to rest (`session/suspend.rs`, `worker/suspend.rs`). Its guest goes on until its next call, which waits.
//! 2. On a GPU, the driver locks each worker, then checkpoints it: device memory comes to host memory, and the worker lets go of the
//!    device. Contexts, streams, addresses and contents are as before once it is restored.
//! 3. With the software executor there is nothing to move: device memory is host memory.
//!
//! If a step of the suspend fails, the sessions that have been taken off are brought back, and all go on. A worker that the driver cannot
//! bring back is killed, and its guest told: driver 580 has no second try at a restore that has failed. So before anything is restored, it
//! is made sure that the GPU has the memory. Nothing here is waited for without a limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use cuda_api::CUresult;
use pci_layout::regs;

use crate::channel::AtRest;
use crate::checkpoint::{CheckpointerProcess, Refusal, State};
use crate::process::WorkerProcess;
use crate::session::{Op, STOP_SLACK};
use crate::worker::Action;
use crate::{Limits, Vm};

/// Host memory that a suspend leaves free, in bytes.
const HOST_MARGIN_BYTES: u64 = 1 << 30;
/// What a session has of a GPU beside what its program has allocated, in bytes: 0.5 GiB on an H100 for a context alone, more with the
/// kernels of large libraries.
const SESSION_OVERHEAD_BYTES: u64 = 1 << 30;
/// How long an order that changes little may wait for its session's thread.
const THREAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a worker that has been killed may take to end.
const ENDING: Duration = Duration::from_millis(500);
/// Device memory that a resume leaves free for each session, in bytes.
const DEVICE_MARGIN_BYTES: u64 = 256 << 20;

/// A session whose worker has come to rest.
pub(crate) struct Held {
    pub(crate) session: u32,
    pub(crate) guest_pid: u32,
    pub(crate) worker: Arc<WorkerProcess>,
    pub(crate) told: AtRest,
    /// What the worker has grown by in host memory, in bytes, when it was taken off the GPU: about what it had there.
    pub(crate) host_bytes: u64,
}

impl Held {
    fn pid(&self) -> i32 {
        self.worker.pid().as_raw_nonzero().get()
    }

    /// Bytes of the worker in host memory.
    fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap_or_default();
        let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
        pages.saturating_mul(rustix::param::page_size() as u64)
    }
}

/// A VM that is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspended {
    /// Since when.
    pub since: SystemTime,
    /// Sessions that were at work.
    pub sessions: u32,
    /// Of these, such as a fault has left useless: the driver does not take them off the GPU, which has their memory until they end.
    pub faulted: u32,
    /// Device memory that the programs had allocated and that is now in host memory, in bytes. 0 for the software executor, which has
    /// nothing to move.
    pub moved_bytes: u64,
    /// What the workers have grown by in host memory, in bytes: that, and what the driver had on the device for them.
    pub host_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// A VM that has gone on after a suspend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Sessions that the driver has brought back to the GPU. 0 for the software executor.
    pub sessions: u32,
    /// Sessions that it could not bring back: they have ended, and their guests have been told.
    pub lost: u32,
    /// How long it took.
    pub took: Duration,
}

/// Why a VM is not suspended, or not resumed. Its state is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuspendError {
    /// It is suspended already.
    #[error("the VM is suspended already")]
    Already,
    /// It is not suspended.
    #[error("the VM is not suspended")]
    NotSuspended,
    /// A session has not come to rest, or has what cannot be taken off the GPU.
    #[error("session {session} cannot be suspended: {reason}")]
    Busy {
        /// The session.
        session: u32,
        /// Why not.
        reason: String,
    },
    /// There is no room for the device's memory.
    #[error("{} MiB of host memory are needed and {} MiB are available", .needed_bytes >> 20, .available_bytes >> 20)]
    HostMemory {
        /// What the sessions have, with a margin.
        needed_bytes: u64,
        /// MemAvailable of the host.
        available_bytes: u64,
    },
    /// There is no room on the GPU: others use it.
    #[error("{} MiB of device memory are needed and {} MiB are free", .needed_bytes >> 20, .free_bytes >> 20)]
    DeviceMemory {
        /// What the sessions had, with a margin.
        needed_bytes: u64,
        /// What is free on the VM's devices, all together.
        free_bytes: u64,
    },
    /// The driver has refused.
    #[error("{action} of worker {worker_pid} (session {session}, guest process {guest_pid}): {}", CUresult(*.result))]
    Driver {
        /// The driver's function.
        action: Action,
        /// The session.
        session: u32,
        /// Its process in the guest.
        guest_pid: u32,
        /// Its worker.
        worker_pid: i32,
        /// The CUresult.
        result: u32,
    },
    /// The process that asks the driver cannot be started, or is gone.
    #[error("the process that asks the driver to checkpoint: {0}")]
    Checkpointer(String),
}

/// What there is of a suspend in a VM.
#[derive(Default)]
pub(crate) struct Suspension {
    /// Held while the VM is being suspended or resumed: with the workers that are off the GPU, where it is suspended.
    turn: Mutex<Option<Vec<Held>>>,
    /// Sessions that are opened are to wait.
    holding: AtomicBool,
    suspended: RwLock<Option<Suspended>>,
}

impl Suspension {
    fn turn(&self) -> MutexGuard<'_, Option<Vec<Held>>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether sessions that are opened are to wait.
    pub(crate) fn holds_sessions(&self) -> bool {
        // SeqCst, here and where it is set: a session that does not see it set is in the table when the sessions are collected.
        self.holding.load(Ordering::SeqCst)
    }

    /// The VM is being suspended or resumed.
    pub(crate) fn is_changing(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// How long a worker may take to answer that it has come to rest.
    pub(crate) fn rest_limit(&self, limits: &Limits) -> Duration {
        limits.stop.saturating_add(STOP_SLACK.saturating_mul(4))
    }

    fn publish(&self, suspended: Option<Suspended>) {
        *self.suspended.write().unwrap_or_else(PoisonError::into_inner) = suspended;
    }
}

impl Vm {
    /// The VM's suspend, while it lasts.
    pub fn suspended(&self) -> Option<Suspended> {
        *self.shared.suspension.suspended.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings every session to rest, moves what they have of the GPU to host memory, and lets go of the GPU. To the VM's programs it is a
    /// pause: their next calls wait until [`Vm::resume_from_suspend`]. Sessions that are opened meanwhile wait as well; sessions can be
    /// closed, and die, as ever; [`Vm::stop`] and [`Vm::resume`] are something else and work as ever. A VM that is reset stays suspended.
    ///
    /// Takes about 0.7 s for each GiB on an H100, and half a second for each session. Waits for another suspend or resume that is under way.
    ///
    /// # Errors
    /// [`SuspendError`]; then the VM goes on as before.
    pub fn suspend(&self) -> Result<Suspended, SuspendError> {
        let suspension = &self.shared.suspension;
        let mut turn = suspension.turn();
        if turn.is_some() {
            return Err(SuspendError::Already);
        }
        let start = Instant::now();
        suspension.holding.store(true, Ordering::SeqCst);
        let moved = self.hold_all().and_then(|held| self.take_off(held));
        match moved {
            Ok((held, mut suspended)) => {
                suspended.took = start.elapsed();
                suspension.publish(Some(suspended));
                *turn = Some(held);
                log::info!(
                    "VM {} is suspended: {} session(s), {} MiB of device memory moved, {} MiB more of host memory, in {:?}",
                    self.shared.config.vm_id,
                    suspended.sessions,
                    suspended.moved_bytes >> 20,
                    suspended.host_bytes >> 20,
                    suspended.took
                );
                Ok(suspended)
            }
            Err(error) => {
                self.release_all();
                log::warn!("VM {} is not suspended: {error}", self.shared.config.vm_id);
                Err(error)
            }
        }
    }

    /// Brings everything back: contents, addresses and handles are what they were, and the programs go on.
    ///
    /// # Errors
    /// [`SuspendError`]; then the VM stays suspended. [`SuspendError::DeviceMemory`]: others have the GPU's memory.
    pub fn resume_from_suspend(&self) -> Result<Resumed, SuspendError> {
        let suspension = &self.shared.suspension;
        let mut turn = suspension.turn();
        let Some(held) = turn.as_ref() else { return Err(SuspendError::NotSuspended) };
        let start = Instant::now();
        let vm_id = self.shared.config.vm_id;
        let brought_back = self.bring_back(held);
        let (sessions, lost) =
            brought_back.inspect_err(|error| log::warn!("VM {vm_id} stays suspended: {error}"))?;
        *turn = None;
        suspension.publish(None);
        self.release_all();
        let resumed = Resumed { sessions, lost, took: start.elapsed() };
        log::info!(
            "VM {vm_id} goes on after its suspend: {sessions} session(s) brought back, {lost} lost, in {:?}",
            resumed.took
        );
        Ok(resumed)
    }

    /// Brings all sessions to rest.
    fn hold_all(&self) -> Result<Vec<Held>, SuspendError> {
        let ask = |(session, ops): (u32, std::sync::mpsc::Sender<Op>)| {
            let (answer, receiver) = channel();
            // An ended thread drops the operation.
            drop(ops.send(Op::Suspend { answer }));
            (session, receiver)
        };
        let asked: Vec<_> = self.shared.open_sessions().into_iter().map(ask).collect();
        let limits = &self.shared.config.limits;
        // A session's thread may be opening it, or taking memory back.
        let limit = self.shared.suspension.rest_limit(limits).saturating_add(limits.open.max(limits.unmap));
        let start = Instant::now();
        let mut held = Vec::new();
        for (session, receiver) in asked {
            match receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(Ok(at_rest)) => held.extend(at_rest),
                Ok(Err(reason)) => return Err(SuspendError::Busy { session, reason }),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    let reason = "an operation of it is under way".to_owned();
                    return Err(SuspendError::Busy { session, reason });
                }
                // Its thread has ended, and with it the session.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {}
            }
        }
        Ok(held)
    }

    /// Lets all sessions go on, and what has waited be carried out.
    fn release_all(&self) {
        self.shared.suspension.holding.store(false, Ordering::SeqCst);
        // An ended thread drops the operation.
        self.shared.open_sessions().iter().for_each(|(_, ops)| drop(ops.send(Op::GoOn)));
    }

    fn has_hardware(&self) -> bool {
        self.capabilities() & regs::CAP_HARDWARE != 0
    }

    /// Takes the workers off the GPU, where there is one.
    fn take_off(&self, held: Vec<Held>) -> Result<(Vec<Held>, Suspended), SuspendError> {
        let faulted = held.iter().filter(|held| held.told.sticky != 0).count();
        let mut suspended = Suspended {
            since: SystemTime::now(),
            sessions: u32::try_from(held.len()).unwrap_or(u32::MAX),
            faulted: u32::try_from(faulted).unwrap_or(u32::MAX),
            moved_bytes: 0,
            host_bytes: 0,
            took: Duration::ZERO,
        };
        for held in held.iter().filter(|held| held.told.sticky != 0 && self.has_hardware()) {
            let fault = CUresult(held.told.sticky);
            log::warn!("session {} stays on the GPU until it ends: it has had {fault}", held.session);
        }
        let mut held: Vec<Held> = held.into_iter().filter(|held| held.told.sticky == 0).collect();
        if !self.has_hardware() || held.is_empty() {
            return Ok((Vec::new(), suspended));
        }
        check_host_memory(&held, available_bytes())?;
        let before: Vec<u64> = held.iter().map(Held::resident_bytes).collect();
        let checkpointer = self.checkpointer().map_err(SuspendError::Checkpointer)?;
        self.expose(&held, true);
        let taken_off = each(&checkpointer, &held, Action::Lock)
            .and_then(|()| each(&checkpointer, &held, Action::Checkpoint));
        if let Err(error) = taken_off {
            self.put_back(checkpointer, &held);
            self.expose(&held, false);
            return Err(error);
        }
        self.expose(&held, false);
        for (held, before) in held.iter_mut().zip(before) {
            held.host_bytes = held.resident_bytes().saturating_sub(before);
        }
        suspended.host_bytes = held.iter().map(|held| held.host_bytes).sum();
        suspended.moved_bytes = held.iter().map(|held| held.told.device_bytes).sum();
        Ok((held, suspended))
    }

    fn checkpointer(&self) -> Result<CheckpointerProcess, String> {
        CheckpointerProcess::start(&self.shared.config, &self.info())
    }

    /// Brings the workers back to the GPU, those that still are there: how many were, and how many could not be. After an error nothing has
    /// changed.
    fn bring_back(&self, held: &[Held]) -> Result<(u32, u32), SuspendError> {
        let there: Vec<&Held> = held.iter().filter(|held| held.worker.is_running()).collect();
        if there.is_empty() {
            return Ok((0, 0));
        }
        let checkpointer = self.checkpointer().map_err(SuspendError::Checkpointer)?;
        let needed_bytes = there
            .iter()
            .map(|held| held.host_bytes.max(held.told.device_bytes).saturating_add(DEVICE_MARGIN_BYTES))
            .fold(0, u64::saturating_add);
        match checkpointer.free_bytes() {
            Some(free_bytes) if free_bytes < needed_bytes => {
                return Err(SuspendError::DeviceMemory { needed_bytes, free_bytes });
            }
            Some(_) => {}
            None => log::warn!("nobody knows whether the GPU has {} MiB free", needed_bytes >> 20),
        }
        self.expose(held, true);
        let (back, lost) = self.put_back(checkpointer, held);
        self.expose(held, false);
        Ok((back, lost))
    }

    /// Brings every worker back to where it runs, from whatever state it is in. One that cannot be is killed: its session's thread hears
    /// of it, and tells the guest.
    fn put_back(&self, checkpointer: CheckpointerProcess, held: &[Held]) -> (u32, u32) {
        let (mut back, mut lost) = (0u32, 0u32);
        let mut checkpointer = Some(checkpointer);
        for held in held.iter().filter(|held| held.worker.is_running()) {
            // The one that is there may have been lost with the last thing that it was asked for.
            let mut done = Err(Refusal::Lost(String::new()));
            for _ in 0..2 {
                let start = || self.checkpointer().map_err(Refusal::Lost);
                let process = checkpointer.take().map_or_else(start, Ok);
                done = process.and_then(|process| {
                    let done = run(&process, held);
                    if !matches!(done, Err(Refusal::Lost(_))) {
                        checkpointer = Some(process);
                    }
                    done
                });
                if !matches!(done, Err(Refusal::Lost(_))) {
                    break;
                }
            }
            match done {
                Ok(()) => back = back.saturating_add(1),
                // It has died meanwhile, or is being closed.
                Err(_) if !held.worker.goes_on(ENDING) => {}
                Err(why) => {
                    log::error!(
                        "session {} ends: worker {} cannot be brought back to the GPU ({why})",
                        held.session,
                        held.pid()
                    );
                    held.worker.child().kill();
                    lost = lost.saturating_add(1);
                }
            }
        }
        (back, lost)
    }

    /// Has the workers let themselves be looked into, or not; waits until they do.
    fn expose(&self, held: &[Held], exposed: bool) {
        let sessions = self.shared.open_sessions();
        let asked = held.iter().filter_map(|held| {
            let (_, ops) = sessions.iter().find(|(session, _)| *session == held.session)?;
            let (done, receiver) = channel();
            ops.send(Op::Expose { exposed, done }).ok()?;
            Some(receiver)
        });
        let asked: Vec<_> = asked.collect();
        let start = Instant::now();
        for receiver in asked {
            // What goes wrong shows when the driver is asked, or in the session.
            let _ = receiver.recv_timeout(THREAD_LIMIT.saturating_sub(start.elapsed()));
        }
    }
}

/// Does the same to each worker that still runs.
fn each(checkpointer: &CheckpointerProcess, held: &[Held], action: Action) -> Result<(), SuspendError> {
    for held in held.iter().filter(|held| held.worker.is_running()) {
        let start = Instant::now();
        let done = checkpointer.act(action, held.pid(), held.told.device_bytes);
        log::debug!("{action} of worker {}: {done:?} in {:?}", held.pid(), start.elapsed());
        match done {
            Ok(()) => {}
            // It has died meanwhile.
            Err(_) if !held.worker.goes_on(ENDING) => {}
            Err(Refusal::Driver(result)) => {
                return Err(SuspendError::Driver {
                    action,
                    session: held.session,
                    guest_pid: held.guest_pid,
                    worker_pid: held.pid(),
                    result,
                });
            }
            Err(why) => {
                let why = why.to_string();
                return Err(SuspendError::Checkpointer(format!("{action} of worker {}: {why}", held.pid())));
            }
        }
    }
    Ok(())
}

/// Brings a worker to where it runs.
fn run(checkpointer: &CheckpointerProcess, held: &Held) -> Result<(), Refusal> {
    // Checkpointed, locked, running: two steps at most, and a look.
    for _ in 0..3 {
        let action = match checkpointer.state(held.pid())? {
            State::Running => return Ok(()),
            State::Locked => Action::Unlock,
            State::Checkpointed => Action::Restore,
            State::Failed(state) => return Err(Refusal::State(state)),
        };
        checkpointer.act(action, held.pid(), held.told.device_bytes)?;
    }
    Ok(())
}

/// MemAvailable, in bytes. None where the kernel does not say.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn check_host_memory(held: &[Held], available_bytes: Option<u64>) -> Result<(), SuspendError> {
    let needed_bytes = needed_bytes(held.iter().map(|held| held.told.device_bytes));
    match available_bytes {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(SuspendError::HostMemory { needed_bytes, available_bytes })
        }
        _ => Ok(()),
    }
}

/// Host memory that sessions with so much device memory need.
fn needed_bytes(sessions: impl Iterator<Item = u64>) -> u64 {
    sessions
        .map(|bytes| bytes.saturating_add(SESSION_OVERHEAD_BYTES))
        .fold(HOST_MARGIN_BYTES, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_memory_is_asked_for_with_a_margin() {
        assert_eq!(needed_bytes([].into_iter()), 1 << 30);
        assert_eq!(needed_bytes([5 << 30, 0].into_iter()), 8 << 30);
        assert_eq!(needed_bytes([u64::MAX, u64::MAX].into_iter()), u64::MAX);
        assert!(available_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn errors_name_the_function_the_process_and_the_result() {
        let error = SuspendError::Driver {
            action: Action::Checkpoint,
            session: 3,
            guest_pid: 41,
            worker_pid: 1234,
            result: 801,
        };
        let text = error.to_string();
        for part in
            ["cuCheckpointProcessCheckpoint", "1234", "session 3", "41", "CUDA_ERROR_NOT_SUPPORTED (801)"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let error = SuspendError::HostMemory { needed_bytes: 9 << 30, available_bytes: 4 << 30 };
        assert_eq!(error.to_string(), "9216 MiB of host memory are needed and 4096 MiB are available");
    }
}
