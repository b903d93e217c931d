//! The worker's main thread: the supervisor's orders, one after the other.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use pci_layout::{control, event, regs, ring};
use rustix::event::{PollFd, PollFlags};
use vgpu_ring::SessionPageMemory;
use zerocopy::{FromBytes, IntoBytes};

use super::completion::Words;
use super::gate::{Gate, Reason};
use super::limits::Limits;
use super::mapping::{MapBudget, Mapping, Pieces};
use super::output::Output;
use super::regions::{Regions, map_error_code};
use super::ring::{SpinLimit, State};
use super::rings::Rings;
use super::turns::Turns;
use super::wake::Waker;
use super::watchdog::{self, Watchdog};
use super::{StagedBytes, WorkerProgram, WorkerSetup, answer_error, die, end, exit};
use super::{sandbox, suspend};
use crate::channel::{self, Answer, InitBody, OpenBody, Order, OrderHeader, PieceEntry, kind};
use crate::counters::CounterPage;
use crate::profile::Profile;
use crate::sharing::Requests;
use crate::turns::TurnPage;
use crate::vm_page::WorkerPage;
use crate::{CallHandler, ExecutorKind, environment};

/// What INIT or PROBE says; the VM's device list goes into the environment.
pub(super) fn init_of(tail: &[u8]) -> Init {
    let Ok((body, visible)) = InitBody::read_from_prefix(tail) else {
        die(exit::HOST, "the first order is too short");
    };
    let Some(executor) = ExecutorKind::from_number(body.executor) else {
        die(exit::HOST, "the first order names no executor");
    };
    if let Some(visible) = std::str::from_utf8(visible).ok().filter(|_| body.has_devices != 0) {
        // SAFETY: the process has this one thread.
        unsafe { std::env::set_var(environment::VISIBLE_DEVICES, visible) };
    }
    let setup = WorkerSetup {
        executor,
        vm_id: body.vm_id,
        priority: body.priority,
        vram_bytes: (body.has_quota != 0).then_some(body.vram_bytes),
        soft_devices: body.soft_devices,
        session: 0,
        pid: 0,
        uid: 0,
        account: None,
        staged: None,
        sharing: None,
        output: None,
        completion: None,
    };
    Init {
        setup,
        spin: Duration::from_micros(body.spin_us),
        initialise: body.initialise != 0,
        slot: body.slot,
    }
}

/// What a worker knows before a session is opened.
pub(super) struct Init {
    pub(super) setup: WorkerSetup,
    spin: Duration,
    /// The executor is initialised ahead of the session.
    initialise: bool,
    /// In the VM page.
    slot: u32,
}

/// Initialises the executor ahead of the session, if that was asked for.
pub(super) fn initialise(program: &mut impl WorkerProgram, init: &Init, socket: &OwnedFd) {
    if !init.initialise {
        return;
    }
    let start = Instant::now();
    match program.initialise(&init.setup) {
        Ok(()) => log::debug!("initialised ahead of a session, in {:?}", start.elapsed()),
        // A session that waits already has this told by the attempt that it makes itself.
        Err(error) if channel::wait_readable(socket, Duration::ZERO).unwrap_or(true) => {
            log::debug!("not initialised: {error}");
        }
        // What is wrong now may be right when a session comes: it finds this worker gone and gets one that tries then.
        Err(error) => {
            log::warn!("a worker cannot be initialised ahead of its session: {error}");
            end(exit::ASKED)
        }
    }
}

/// Descriptors that come with every INIT.
const INIT_FILES: usize = 7;

/// Serves a session from its OPEN to its end. `files` came with INIT.
pub(super) fn serve<P: WorkerProgram>(
    program: P,
    mut init: Init,
    socket: &OwnedFd,
    mut files: Vec<OwnedFd>,
) -> ! {
    // The last one comes only where the VM is profiled.
    let profile = if files.len() > INIT_FILES { files.pop() } else { None };
    let profile = match profile.map(Profile::map).transpose() {
        Ok(profile) => profile,
        Err(error) => die(exit::HOST, &format!("the profile cannot be mapped: {error}")),
    };
    let Ok([kick, wake, counters, requests, page, turns, notifier]) =
        <[OwnedFd; INIT_FILES]>::try_from(files)
    else {
        die(exit::HOST, "the first order lacks descriptors");
    };
    let counters = match CounterPage::map(&counters) {
        Ok(counters) => Arc::new(counters),
        Err(error) => die(exit::HOST, &format!("the counter page cannot be mapped: {error}")),
    };
    let turns = match TurnPage::map(&turns) {
        Ok(page) => Turns::new(page, notifier),
        Err(error) => die(exit::HOST, &format!("the page of turns cannot be mapped: {error}")),
    };
    let page = match WorkerPage::map(&page, init.slot) {
        Ok(page) => page,
        Err(error) => die(exit::HOST, &format!("the VM page cannot be mapped: {error}")),
    };
    super::logging::count_in(Arc::clone(&page));
    init.setup.account = Some(Arc::clone(&page) as _);
    init.setup.sharing = Some(Arc::new(Requests::new(requests)));
    let order = next_order(socket);
    if order.header.kind != kind::OPEN {
        die(exit::HOST, &format!("order of kind {} before the session was opened", order.header.kind));
    }
    let gates = (turns, page);
    let session = match Session::open(program, init, &order, wake, counters, gates, profile) {
        Ok(session) => session,
        Err(answer) => {
            send(socket, &answer);
            end(exit::ASKED)
        }
    };
    // The page's file with it: a worker holds no descriptor of guest memory.
    drop(order);
    session.run(socket, kick)
}

fn next_order(socket: &OwnedFd) -> Order {
    match channel::receive_order(socket) {
        Ok(Some(order)) if order.header.kind != kind::END => order,
        // Asked to end, or the daemon is gone.
        Ok(_) => end(exit::ASKED),
        Err(error) => die(exit::HOST, &format!("an order: {error}")),
    }
}

/// The daemon is gone without having ended the session.
fn end_orphaned<H>(state: &State<H>) -> ! {
    // The page of a stopped VM may be another kernel's by now: nobody has told us of a reset.
    if !state.gate.is_closed_for(Reason::Paused) {
        state.page.set_dead(event::DEATH_SHUTDOWN);
    }
    die(exit::ASKED, "the daemon is gone: the session ends")
}

fn send(socket: &OwnedFd, answer: &Answer) {
    if let Err(error) = channel::send_answer(socket, answer) {
        die(exit::HOST, &format!("an answer cannot be sent: {error}"));
    }
}

/// The session, as its main thread holds it.
struct Session<H> {
    state: Arc<State<H>>,
    rings: Arc<Rings>,
    regions: Regions,
    budget: Arc<MapBudget>,
}

impl<H: CallHandler> Session<H> {
    fn open<P: WorkerProgram<Handler = H>>(
        program: P,
        init: Init,
        order: &Order,
        wake: OwnedFd,
        counters: Arc<CounterPage>,
        (turns, vm_page): (Turns, Arc<WorkerPage>),
        profile: Option<Profile>,
    ) -> Result<Self, Answer> {
        let invalid = |reason: &str| answer_error(regs::ERROR_INVALID_REQUEST, 0, reason.to_owned());
        let (body, env) =
            OpenBody::read_from_prefix(&order.tail).map_err(|_| invalid("OPEN is too short"))?;
        let budget = MapBudget::of_this_process();
        let len = u64::from(ring::SESSION_PAGE_BYTES);
        let piece = PieceEntry { offset: body.page_offset, len, file: 0, reserved: 0 };
        let page = Pieces::new(piece.as_bytes(), &order.files, len)
            .and_then(|pieces| Mapping::new(&pieces, &budget))
            .map_err(|error| answer_error(map_error_code(&error), 0, format!("session page: {error}")))?;
        // SAFETY: a page, mapped readable and writable, kept mapped by its owner.
        let page = unsafe { SessionPageMemory::with_owner(page.start(), Arc::new(page)) };
        if init.initialise && !env.is_empty() {
            return Err(invalid("an environment for a worker that is initialised"));
        }
        for entry in env.split(|byte| *byte == 0) {
            if let Some((name, value)) =
                std::str::from_utf8(entry).ok().and_then(|entry| entry.split_once('='))
            {
                // SAFETY: `WorkerProgram::prepare` starts no thread, and `initialise` was not called: the process still has
                // this one only.
                unsafe { std::env::set_var(name, value) };
            }
        }
        let output = Output::capture().map(Arc::new).map_err(|error| {
            answer_error(regs::ERROR_MEDIATOR_UNAVAILABLE, 0, format!("standard output: {error}"))
        })?;
        let staged = Some(StagedBytes::new(Arc::clone(&counters)));
        let OpenBody { pid, uid, .. } = body;
        super::logging::name_session(init.setup.vm_id, order.header.index, pid);
        let setup = WorkerSetup {
            session: order.header.index,
            pid,
            uid,
            staged,
            output: Some(output.clone()),
            completion: Some(Arc::new(Words(page.clone()))),
            ..init.setup
        };
        let start = Instant::now();
        let handler = program
            .open(setup)
            .map_err(|error| answer_error(error.error, error.cuda_result, format!("executor: {error}")))?;
        log::debug!("the session's executor was made in {:?}", start.elapsed());
        turns.set_devices(&handler.device_ids());
        let waker = if body.futex == 0 { Waker::Event { page: page.clone(), wake } } else { Waker::Futex };
        let limits = Limits::new(Arc::clone(&vm_page), page.clone());
        let watchdog = Watchdog::new(vm_page);
        let state = State {
            handler,
            gate: Gate::default(),
            turns,
            waker,
            page,
            counters,
            profile,
            output,
            spin: SpinLimit::new(init.spin),
            limits,
            watchdog,
            logged_errors: AtomicU32::new(0),
        };
        let regions = Regions::new(Arc::clone(&budget));
        Ok(Self { state: Arc::new(state), rings: Arc::default(), regions, budget })
    }

    fn run(mut self, socket: &OwnedFd, kick: OwnedFd) -> ! {
        let rings = Arc::clone(&self.rings);
        let kicks =
            std::thread::Builder::new().name("kick".to_owned()).spawn(move || rings.watch_kicks(&kick));
        if let Err(error) = kicks {
            die(exit::HOST, &format!("no thread for kicks: {error}"));
        }
        let state = Arc::clone(&self.state);
        let turns =
            std::thread::Builder::new().name("turns".to_owned()).spawn(move || state.turns.run(&state));
        if let Err(error) = turns {
            die(exit::HOST, &format!("no thread for turns: {error}"));
        }
        if let Err(error) = watchdog::start(&self.state) {
            die(exit::HOST, &format!("no thread for late kernels: {error}"));
        }
        self.outlive_the_daemon(socket);
        self.state.page.set_live();
        send(socket, &Answer::default());
        loop {
            let order = match channel::receive_order(socket) {
                Ok(Some(order)) if order.header.kind != kind::END => order,
                Ok(Some(_)) => end(exit::ASKED),
                Ok(None) => end_orphaned(&self.state),
                Err(error) => die(exit::HOST, &format!("an order: {error}")),
            };
            let answer = self.carry_out(&order);
            // The order's descriptors are closed before the front hears that it is done.
            drop(order);
            send(socket, &answer);
        }
    }

    /// Ends the session when the daemon is gone without having ended it: nobody but us is left to tell the guest, whose
    /// threads look at the page now and then while they sleep. A thread of its own, as this one may be busy with an order.
    fn outlive_the_daemon(&self, socket: &OwnedFd) {
        let state = Arc::clone(&self.state);
        let watch = socket.try_clone().and_then(|socket| {
            std::thread::Builder::new().name("orphan".to_owned()).spawn(move || {
                let mut ended = [PollFd::new(&socket, PollFlags::RDHUP)];
                while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut ended, None) {}
                end_orphaned(&state)
            })
        });
        // From here on the hang-up ends this process; the signal would be faster than the word to the guest.
        let ended = watch.and_then(|_| Ok(rustix::process::set_parent_process_death_signal(None)?));
        if let Err(error) = ended {
            die(exit::HOST, &format!("the daemon's end cannot be watched: {error}"));
        }
    }

    fn carry_out(&mut self, order: &Order) -> Answer {
        let Order { header, tail, files } = order;
        let OrderHeader { kind: kind_of_order, index, flags, va, len, .. } = *header;
        let done = match kind_of_order {
            kind::ADD_RING_PART => {
                let pieces = Pieces::new(tail, files, len);
                let added = self.rings.add_part(&self.state, &self.budget, index, flags, pieces);
                added.map_err(|error| (error.code(), error.to_string()))
            }
            kind::REMOVE_RING => self.rings.remove(index).map_err(|error| (error.code(), error.to_string())),
            kind::MAP_REGION => self.regions.map(index, flags, va, tail, files, len).map_or_else(
                |error| Err((error.code(), error.to_string())),
                |()| {
                    self.state.handler.region_mapped(va, len, flags & control::MAP_READ_ONLY == 0);
                    Ok(())
                },
            ),
            kind::UNMAP_REGION => self.unmap(index),
            kind::STOP => self.stop(Duration::from_micros(len)),
            kind::RESUME => {
                suspend::go_on(&self.state, Reason::Paused);
                Ok(())
            }
            kind::SUSPEND => match suspend::rest(&self.state, &self.rings, Duration::from_micros(len)) {
                Ok(told) => return Answer { tail: told.as_bytes().to_vec(), ..Answer::default() },
                Err(error) => Err(error),
            },
            kind::GO_ON => {
                suspend::go_on(&self.state, Reason::Suspended);
                Ok(())
            }
            kind::EXPOSE => sandbox::expose(flags != 0)
                .map_err(|error| (regs::ERROR_MEDIATOR_UNAVAILABLE, format!("PR_SET_DUMPABLE: {error}"))),
            other => Err((regs::ERROR_UNSUPPORTED, format!("order of kind {other}"))),
        };
        match done {
            Ok(()) => Answer::default(),
            Err((error, reason)) => answer_error(error, 0, reason),
        }
    }

    fn unmap(&mut self, region: u32) -> Result<(), (u32, String)> {
        let told = |error: super::regions::RegionError| (error.code(), error.to_string());
        let (va, len) = self.regions.range(region).map_err(told)?;
        self.state.handler.region_unmapping(va, len);
        self.regions.unmap(region).map_err(told)
    }

    fn stop(&self, limit: Duration) -> Result<(), (u32, String)> {
        let start = Instant::now();
        let at_rest = self.state.gate.is_closed();
        self.state.gate.close(Reason::Paused);
        if at_rest {
            // Suspended: the device could not even be asked.
            return Ok(());
        }
        // After the gate: a call that waits for the guest comes back, and its ring's thread stays outside.
        self.state.handler.pause(true);
        let deadline = start.checked_add(limit).unwrap_or(start);
        let left = || limit.saturating_sub(start.elapsed());
        if !self.rings.wait_idle(deadline) {
            return Err((regs::ERROR_TIMEOUT, suspend::CALL.to_owned()));
        }
        if !self.state.handler.quiesce(left()) {
            return Err((regs::ERROR_TIMEOUT, suspend::DEVICE.to_owned()));
        }
        self.state.turns.rest(true);
        Ok(())
    }
}
