//! The supervisor's side of one session: a thread that carries its operations out in order.

mod suspend;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pci_layout::{event, regs};
use zerocopy::IntoBytes;

use log_limit::limited;

use crate::channel::{Answer, NoAnswer, OpenBody, OrderHeader, kind};
use crate::monitor::{WatchId, Watcher};
use crate::pieces::PieceList;
use crate::process::{Ahead, WorkerProcess};
use crate::sharing::{Owner, Tokens};
use crate::suspend::Held;
use crate::vm::Shared;
use crate::{Done, Events, Open, Piece, SessionError, WakeKind, environment, page};

/// How often a wait for an answer looks whether the session is being closed.
const CLOSING_CHECK: Duration = Duration::from_millis(20);
/// How long STOP's answer may take beyond the limit that the worker was given.
pub(crate) const STOP_SLACK: Duration = Duration::from_millis(500);

/// A [`Done`] that is called exactly once, whatever happens to the operation that holds it.
pub(crate) struct Completion {
    done: Option<Done>,
    /// For operations that end in "nothing is mapped any more": the session, so that it can be made true.
    ends: Option<Arc<Control>>,
}

impl Completion {
    pub(crate) fn new(done: Done) -> Self {
        Self { done: Some(done), ends: None }
    }

    /// Of an operation that takes memory back.
    pub(crate) fn ending(done: Done, control: Arc<Control>) -> Self {
        Self { done: Some(done), ends: Some(control) }
    }

    pub(crate) fn finish(mut self, result: Result<(), SessionError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Completion {
    /// The session's thread has ended, or is about to, without a look at the operation.
    fn drop(&mut self) {
        let Some(done) = self.done.take() else { return };
        match &self.ends {
            Some(control) => {
                if let Some(worker) = control.worker.get() {
                    worker.child().kill_and_reap();
                }
                done(Ok(()));
            }
            None => done(Err(SessionError::new(regs::ERROR_MEDIATOR_UNAVAILABLE))),
        }
    }
}

/// What a session's thread is asked to do.
pub(crate) enum Op {
    Open {
        open: Box<Open>,
        done: Completion,
    },
    Map {
        header: OrderHeader,
        pieces: PieceList,
        done: Completion,
    },
    Unmap {
        header: OrderHeader,
        done: Completion,
    },
    Close {
        done: Completion,
    },
    Stop {
        quiet: Sender<()>,
    },
    Resume,
    /// The VM is being suspended: the worker is to come to rest.
    Suspend {
        answer: Sender<Result<Option<Held>, String>>,
    },
    /// The driver is to checkpoint the worker, which has to let itself be looked into, or has done so.
    Expose {
        exposed: bool,
        done: Sender<()>,
    },
    /// The VM is suspended no more.
    GoOn,
    WorkerEnded,
    /// The worker was killed; the thread is to reap it and end. With a reason, the guest is told.
    Abandon {
        reason: Option<u32>,
    },
}

/// What other threads may know of, and do to, a session at any time.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) worker: OnceLock<Arc<WorkerProcess>>,
    /// The worker is being killed from outside: what follows is no death of its own.
    pub(crate) abandoned: AtomicBool,
    /// A close is waiting: whatever is under way gets no more than the close limit.
    pub(crate) closing: AtomicBool,
    /// The session was opened.
    pub(crate) served: AtomicBool,
    /// Since when, and by which guest process.
    pub(crate) opened: OnceLock<(Instant, u32)>,
    /// It has faulted, and that has been counted.
    pub(crate) faulted: AtomicBool,
}

impl Control {
    /// Kills the worker, now or as soon as there is one.
    pub(crate) fn abandon(&self) {
        // SeqCst, here and where the worker is set: one of the two threads sees the other's store.
        self.abandoned.store(true, Ordering::SeqCst);
        if let Some(worker) = self.worker.get() {
            worker.child().kill();
        }
    }
}

struct SessionWatch {
    session: u32,
    events: Arc<dyn Events>,
    ops: Sender<Op>,
    tokens: Arc<Tokens>,
    owner: Arc<Owner>,
}

impl Watcher for SessionWatch {
    fn wake(&self) {
        self.events.wake(self.session);
    }

    fn ended(&self) {
        // The thread may have ended before; then it has reaped the worker.
        let _ = self.ops.send(Op::WorkerEnded);
    }

    fn asked(&self, requests: BorrowedFd<'_>) -> bool {
        self.tokens.serve(&self.owner, requests)
    }
}

/// A `DEATH_` value for the log.
fn in_words(reason: u32) -> &'static str {
    match reason {
        event::DEATH_MALFORMED => "the guest broke the protocol's rules",
        event::DEATH_EXECUTOR => "the executor cannot go on",
        event::DEATH_TIMEOUT => "a kernel ran too long",
        _ => "the worker was killed or has crashed",
    }
}

/// State of a session's thread.
pub(crate) struct Session {
    id: u32,
    shared: Arc<Shared>,
    control: Arc<Control>,
    ops: Sender<Op>,
    page: Option<Piece>,
    watch: Option<WatchId>,
    /// It, as one that shares.
    owner: Option<Arc<Owner>>,
    /// The worker is gone, or never was there.
    dead: bool,
    /// The guest was told of the end.
    told: bool,
    /// What waits for the end of the VM's suspend, where the session is part of one.
    held: Option<VecDeque<Op>>,
}

enum Next {
    Go,
    End,
}

impl Session {
    pub(crate) fn new(id: u32, shared: Arc<Shared>, control: Arc<Control>, ops: Sender<Op>) -> Self {
        Self {
            id,
            shared,
            control,
            ops,
            page: None,
            watch: None,
            owner: None,
            dead: false,
            told: false,
            held: None,
        }
    }

    /// Carries operations out until the session is closed or abandoned.
    pub(crate) fn run(mut self, ops: &Receiver<Op>) {
        while let Ok(op) = ops.recv() {
            if matches!(self.carry_out(op), Next::End) {
                break;
            }
        }
    }

    fn carry_out(&mut self, op: Op) -> Next {
        let Some(op) = self.put_off(op) else { return Next::Go };
        match op {
            Op::Open { open, done } => return self.open(*open, done),
            Op::Map { header, pieces, done } => {
                let files: Vec<BorrowedFd<'_>> = pieces.files.iter().map(|file| file.as_fd()).collect();
                let limit = self.shared.config.limits.map;
                let result = self.ask(header, pieces.entries.as_bytes(), &files, limit);
                done.finish(result);
            }
            Op::Unmap { header, done } => {
                let result = self.ask(header, &[], &[], self.shared.config.limits.unmap);
                // A worker that is gone has nothing mapped.
                done.finish(if self.dead { Ok(()) } else { result });
            }
            Op::Close { done } => {
                // What waits is answered first, and then the worker may be gone already.
                self.held = None;
                self.close();
                done.finish(Ok(()));
                return Next::End;
            }
            Op::Stop { quiet } => {
                self.stop();
                // Nobody waits any more if it took too long.
                let _ = quiet.send(());
            }
            Op::Resume => {
                let limit = self.shared.config.limits.map;
                if !self.dead && self.ask(OrderHeader::new(kind::RESUME), &[], &[], limit).is_err() {
                    log::error!("{} did not go on", self.name());
                }
            }
            // Whoever asked may have given up.
            Op::Suspend { answer } => drop(answer.send(self.suspend())),
            Op::Expose { exposed, done } => {
                self.expose(exposed);
                let _ = done.send(());
            }
            Op::GoOn => return self.go_on(),
            Op::WorkerEnded => self.lost(&NoAnswer::Lost),
            Op::Abandon { reason } => {
                self.abandon(reason);
                return Next::End;
            }
        }
        Next::Go
    }

    fn name(&self) -> String {
        format!("VM {} session {}", self.shared.config.vm_id, self.id)
    }

    fn is_abandoned(&self) -> bool {
        self.control.abandoned.load(Ordering::SeqCst)
    }

    fn open(&mut self, open: Open, done: Completion) -> Next {
        self.page = Some(open.page.clone());
        let pid = open.pid;
        match self.start_worker(&open) {
            Ok(()) => {
                // Set once: a session is opened once.
                let _ = self.control.opened.set((Instant::now(), open.pid));
                self.shared.count_opened(&self.control);
                done.finish(Ok(()));
                Next::Go
            }
            Err(error) => {
                limited!(
                    self.shared.refusals,
                    warn,
                    "{} is not opened for guest process {pid}: {error}",
                    self.name()
                );
                self.release_worker();
                // Before the answer, so that whoever hears it may open the slot again. If it is not ours any more, the
                // session is being abandoned, and that ends the thread.
                let ours = self.shared.remove(self.id, &self.control);
                done.finish(Err(error));
                if ours { Next::End } else { Next::Go }
            }
        }
    }

    fn start_worker(&mut self, open: &Open) -> Result<(), SessionError> {
        let shared = Arc::clone(&self.shared);
        let unavailable = SessionError::new(regs::ERROR_MEDIATOR_UNAVAILABLE);
        let failed = |what: &str, error: std::io::Error| {
            log::error!("{what}: {error}");
            unavailable
        };
        if open.fingerprint != shared.probed.fingerprint {
            let pid = open.pid;
            limited!(
                shared.refusals,
                warn,
                "{}: libcuda of guest process {pid} has another call table",
                self.name()
            );
            return Err(SessionError::new(regs::ERROR_UNSUPPORTED));
        }
        let pieces = PieceList::new(std::slice::from_ref(&open.page), open.page.len)?;
        if open.page.len != u64::from(pci_layout::ring::SESSION_PAGE_BYTES) {
            return Err(SessionError::new(regs::ERROR_INVALID_LENGTH));
        }
        let start = Instant::now();
        let allowed = shared.config.visible_devices.as_deref();
        let variables = environment::of_guest(&open.env, allowed);
        let ahead = if environment::changes_nothing(&variables, allowed) {
            Ahead::Initialised
        } else {
            Ahead::Loaded
        };
        let taken = shared.pool.take(ahead).map_err(|error| failed("no worker can be started", error))?;
        let (worker, got_worker) = (Arc::new(taken), start.elapsed());
        if self.control.worker.set(Arc::clone(&worker)).is_err() || self.is_abandoned() {
            return Err(unavailable);
        }
        // Before it serves, so that it starts with the gates as they are.
        shared.turns.attach(&worker);
        let owner = Arc::new(shared.tokens.owner(self.id));
        self.owner = Some(Arc::clone(&owner));
        let watch = SessionWatch {
            session: self.id,
            events: Arc::clone(&shared.events),
            ops: self.ops.clone(),
            tokens: Arc::clone(&shared.tokens),
            owner,
        };
        let watched = shared.monitor.watch(Arc::clone(&worker), Arc::new(watch));
        self.watch = Some(watched.map_err(|error| failed("a worker cannot be watched", error))?);

        let body = OpenBody {
            pid: open.pid,
            uid: open.uid,
            page_offset: open.page.offset,
            futex: u32::from(open.wake == WakeKind::Futex),
            reserved: 0,
        };
        let mut tail = body.as_bytes().to_vec();
        if worker.ahead() == Ahead::Loaded {
            for (name, value) in variables {
                tail.extend_from_slice(format!("{name}={value}\0").as_bytes());
            }
        }
        let files: Vec<BorrowedFd<'_>> = pieces.files.iter().map(|file| file.as_fd()).collect();
        let header = OrderHeader { index: self.id, ..OrderHeader::new(kind::OPEN) };
        let answer = self.wait_for(&worker, header, &tail, &files, shared.config.limits.open);
        self.judge(answer.map_err(|error| {
            log::error!("{}: {error} ({:?})", self.name(), worker.child().kill_and_reap());
            match error {
                NoAnswer::Lost => unavailable,
                NoAnswer::Late => SessionError::new(regs::ERROR_TIMEOUT),
            }
        })?)?;
        limited!(
            shared.openings,
            info,
            "{} opened: guest process {} user {}, worker {}",
            self.name(),
            open.pid,
            open.uid,
            worker.pid()
        );
        log::debug!(
            "{} opened in {:?}: {:?} for a worker ({:?}), the rest for its answer",
            self.name(),
            start.elapsed(),
            got_worker,
            worker.ahead()
        );
        if shared.is_stopped() {
            self.stop();
        }
        Ok(())
    }

    /// Sends an order and waits for its answer; gives up early when the session is being closed.
    fn wait_for(
        &self,
        worker: &WorkerProcess,
        header: OrderHeader,
        tail: &[u8],
        files: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Answer, NoAnswer> {
        let start = Instant::now();
        let mut closing_since: Option<Instant> = None;
        let mut answer = worker.child().ask(header, tail, files, limit.min(CLOSING_CHECK));
        while matches!(answer, Err(NoAnswer::Late)) {
            if closing_since.is_none() && self.control.closing.load(Ordering::Acquire) {
                closing_since = Some(Instant::now());
            }
            let closing_is_over =
                closing_since.is_some_and(|since| since.elapsed() >= self.shared.config.limits.close);
            if start.elapsed() >= limit || closing_is_over {
                break;
            }
            answer = worker.child().answer(CLOSING_CHECK);
        }
        answer
    }

    /// An answer as the front is to hear it.
    fn judge(&self, answer: Answer) -> Result<(), SessionError> {
        if answer.error == regs::ERROR_NONE {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&answer.tail);
        limited!(self.shared.refusals, warn, "{}: {}", self.name(), why.escape_debug());
        let known = answer.error <= regs::ERROR_QUARANTINED;
        let error = if known { answer.error } else { regs::ERROR_MEDIATOR_UNAVAILABLE };
        Err(SessionError { error, cuda_result: answer.cuda_result })
    }

    /// An order to the session's worker; one that gives no answer ends the session.
    fn ask(
        &mut self,
        header: OrderHeader,
        tail: &[u8],
        files: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<(), SessionError> {
        let unavailable = SessionError::new(regs::ERROR_MEDIATOR_UNAVAILABLE);
        let Some(worker) = self.control.worker.get().cloned().filter(|_| !self.dead) else {
            return Err(unavailable);
        };
        match self.wait_for(&worker, header, tail, files, limit) {
            Ok(answer) => self.judge(answer),
            Err(error) => {
                self.lost(&error);
                Err(match error {
                    NoAnswer::Lost => unavailable,
                    NoAnswer::Late => SessionError::new(regs::ERROR_TIMEOUT),
                })
            }
        }
    }

    /// Returns when nothing that the session does changes guest memory any more: its worker is idle, or dead.
    fn stop(&mut self) {
        let limit = self.shared.config.limits.stop;
        let header = OrderHeader {
            len: u64::try_from(limit.as_micros()).unwrap_or(u64::MAX),
            ..OrderHeader::new(kind::STOP)
        };
        let is_idle = self.ask(header, &[], &[], limit.saturating_add(STOP_SLACK)).is_ok();
        if is_idle || self.dead {
            return;
        }
        log::error!("{} does not come to rest in {limit:?} although the VM is stopped: it ends", self.name());
        self.release_worker();
        if !self.is_abandoned() && !self.control.closing.load(Ordering::Acquire) {
            self.shared.count_died();
            self.fault("did not come to rest");
            self.tell_dead(event::DEATH_EXECUTOR);
        }
    }

    /// The worker is gone, or as good as: makes sure of it and tells the guest.
    fn lost(&mut self, why: &NoAnswer) {
        let Some(worker) = self.control.worker.get().cloned().filter(|_| !self.dead) else { return };
        let exit = worker.child().kill_and_reap();
        self.dead = true;
        self.unwatch();
        if self.is_abandoned() || self.control.closing.load(Ordering::Acquire) {
            return;
        }
        let reason = exit.reason();
        let pid = self.control.opened.get().map_or(0, |(_, pid)| *pid);
        limited!(
            self.shared.endings,
            error,
            "{} died: {why}, worker {} of guest process {pid} ended with {exit:?}, reason {reason} ({})",
            self.name(),
            worker.pid(),
            in_words(reason)
        );
        self.shared.count_died();
        self.fault("died");
        self.tell_dead(reason);
    }

    /// The session has faulted, which counts once.
    fn fault(&self, what: &str) {
        self.shared.count_fault(self.id, &self.control, what);
    }

    fn tell_dead(&mut self, reason: u32) {
        self.write_dead(reason);
        self.shared.events.died(self.id, reason);
    }

    /// Writes the end into the session page, once: the first reason stays.
    fn write_dead(&mut self, reason: u32) {
        if let Some(page) = self.page.as_ref().filter(|_| !self.told) {
            page::write_dead(page, reason);
            self.told = true;
        }
    }

    fn close(&mut self) {
        if let Some(worker) = self.control.worker.get().cloned().filter(|_| !self.dead) {
            // First, so that the end that was asked for is not told as a death.
            self.unwatch();
            let exit = worker.child().end(self.shared.config.limits.close);
            self.dead = true;
            limited!(
                self.shared.endings,
                info,
                "{} closed, worker {} ended with {exit:?}",
                self.name(),
                worker.pid()
            );
        }
        self.shared.look_for_fault(self.id, &self.control);
        // Other threads of the guest process may still be waiting; the page is pinned until this is answered.
        if !self.is_abandoned() {
            self.write_dead(event::DEATH_SHUTDOWN);
        }
        self.shared.write_profile(self.id, &self.control);
        self.shared.remove(self.id, &self.control);
    }

    fn abandon(&mut self, reason: Option<u32>) {
        self.release_worker();
        self.shared.look_for_fault(self.id, &self.control);
        self.shared.write_profile(self.id, &self.control);
        match reason {
            Some(reason) if !self.told => self.tell_dead(reason),
            // After a reset the page may be anything.
            _ => log::info!("{} is gone", self.name()),
        }
    }

    fn release_worker(&mut self) {
        self.unwatch();
        if let Some(worker) = self.control.worker.get() {
            worker.child().kill_and_reap();
        }
        self.dead = true;
    }

    fn unwatch(&mut self) {
        if let Some(worker) = self.control.worker.get() {
            self.shared.turns.detach(worker);
        }
        if let Some(watch) = self.watch.take() {
            self.shared.monitor.unwatch(watch);
        }
        if let Some(owner) = self.owner.take() {
            self.shared.tokens.forget(&owner);
        }
    }
}
