//! The device at work: threads that carry out what streams have ready, waits for it, and the end of it all when a kernel
//! faults.
//!
//! An operation that meets an idle stream and takes no time is carried out by the calling thread ([`Device::begin`]):
//! that is as ordered as a queue, and costs no switch of threads.
//!
//! Lock order: `streams` before nothing. Memory's locks are taken while an operation runs, never under `streams`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuda_api::CuResult;
use cuda_api::host_functions::HostFunctions;
use cuda_api::managed::ManagedVariables;
use cuda_api::output::DeviceOutput;
use cuda_api::types::CUresult;

use crate::budget::{Budget, QUEUED_BYTES_MAX, TEXT_BYTES_MAX};
use crate::gate::{Gate, Mark, Passed};
use crate::lock::{lock, wait};
use crate::memory::Memory;
use crate::running::Running;
use crate::streams::{Added, Point, StreamId, Streams};
use crate::work::{HostCall, WaitValue, Work};
use crate::{shape, transfer};

/// Operations that run at once. Each may be a kernel that waits for another one; each kernel has threads of its own.
const WORKERS_MAX: usize = 32;
/// Words that streams wait for are looked at this often at first, and this often once nothing has come for a while.
const POLL_SOON: Duration = Duration::from_micros(50);
const POLL_LATE: Duration = Duration::from_micros(500);
/// … which is after so many looks.
const POLL_SOON_ROUNDS: u32 = 200;

/// A wait for rest looks this often whether all that is left is in the guest's hands.
const REST_LOOK: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Threads {
    handles: Vec<JoinHandle<()>>,
    workers: usize,
    poller: bool,
}

struct State {
    streams: Streams,
    idle: usize,
    stopping: bool,
}

/// The device of a session.
pub(crate) struct Device {
    pub(crate) memory: Memory,
    /// Managed variables that the guest has asked for.
    pub(crate) managed: ManagedVariables,
    /// Hears what kernels print.
    pub(crate) output: OnceLock<Arc<dyn DeviceOutput>>,
    /// Functions of the guest's that streams have come to.
    pub(crate) functions: HostFunctions,
    /// Bytes of copies that wait.
    pub(crate) queued: Arc<Budget>,
    /// Bytes of loaded texts.
    pub(crate) texts: Arc<Budget>,
    /// Host threads of one launch.
    pub(crate) cores: usize,
    /// When the launches that run have begun.
    pub(crate) running: Running,
    /// Ends kernels.
    pub(crate) cancel: AtomicBool,
    sticky: AtomicU32,
    state: Mutex<State>,
    work: Condvar,
    poll: Condvar,
    threads: Mutex<Threads>,
}

/// A stream's turn, held by a host thread that carries the operation out itself.
pub(crate) struct Turn<'a> {
    device: &'a Arc<Device>,
    stream: StreamId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.device.complete(self.stream);
    }
}

impl Device {
    pub(crate) fn new(memory: Memory, cores: usize) -> Arc<Self> {
        Arc::new(Device {
            memory,
            managed: ManagedVariables::default(),
            output: OnceLock::new(),
            functions: HostFunctions::default(),
            queued: Budget::new(QUEUED_BYTES_MAX),
            texts: Budget::new(TEXT_BYTES_MAX),
            cores,
            running: Running::default(),
            cancel: AtomicBool::new(false),
            sticky: AtomicU32::new(0),
            state: Mutex::new(State { streams: Streams::default(), idle: 0, stopping: false }),
            work: Condvar::new(),
            poll: Condvar::new(),
            threads: Mutex::default(),
        })
    }

    /// A kernel has printed.
    pub(crate) fn print(&self, text: &[u8]) {
        if let Some(output) = self.output.get() {
            output.print(text);
        }
    }

    /// The error that every call answers from now on, or 0.
    pub(crate) fn sticky(&self) -> u32 {
        self.sticky.load(Ordering::Acquire)
    }

    /// Fails once the device is lost.
    pub(crate) fn alive(&self) -> CuResult<()> {
        match self.sticky() {
            0 => Ok(()),
            code => Err(CUresult(code)),
        }
    }

    fn lost(&self) -> CUresult {
        match self.sticky() {
            0 => CUresult::INVALID_HANDLE,
            code => CUresult(code),
        }
    }

    /// Changes the set of streams.
    pub(crate) fn with_streams<T>(&self, change: impl FnOnce(&mut Streams) -> T) -> T {
        change(&mut lock(&self.state).streams)
    }

    /// From now on every call answers this error; running kernels end, waiting work is dropped.
    pub(crate) fn poison(&self, error: CUresult) {
        let first = self.sticky.compare_exchange(0, error.0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            log::warn!("the session is lost: {error}");
        }
        self.cancel.store(true, Ordering::Release);
        let callbacks = lock(&self.state).streams.poison();
        for token in callbacks {
            self.functions.tell(token, self.lost());
        }
    }

    /// An operation that another thread than a stream's has carried out is done.
    fn complete(self: &Arc<Self>, stream: StreamId) {
        let (ready, idle) = {
            let mut state = lock(&self.state);
            state.streams.complete(stream);
            (state.streams.ready(), state.idle)
        };
        self.staff(ready, idle);
    }

    /// Hands a function to the guest; the stream goes on when the guest says that it is done.
    fn hand_out(self: &Arc<Self>, stream: StreamId, call: HostCall) {
        let device = self.clone();
        let status = CUresult(self.sticky());
        self.functions.ask(call.token, status, Box::new(move || device.complete(stream)));
    }

    /// Puts an operation into a stream, waiting for room where it is full.
    pub(crate) fn submit(self: &Arc<Self>, stream: StreamId, work: Work, after: &[Point]) -> CuResult<Point> {
        let mut work = work;
        loop {
            let (added, ready, idle) = {
                let mut state = lock(&self.state);
                let added = state.streams.submit(stream, work, after.to_vec());
                (added, state.streams.ready(), state.idle)
            };
            match added {
                Added::Queued(point) => {
                    self.staff(ready, idle);
                    return Ok(point);
                }
                Added::Refused => return Err(self.lost()),
                Added::Full(back, gate) => {
                    work = back;
                    if gate.pass(None) == Passed::Dropped {
                        return Err(self.lost());
                    }
                }
            }
        }
    }

    /// Wakes or adds threads, so that each of `ready` operations has one: an operation may be what a running kernel
    /// waits for. `idle` threads slept when the operations were counted.
    fn staff(self: &Arc<Self>, ready: usize, idle: usize) {
        match ready {
            0 => return,
            1 => self.work.notify_one(),
            _ => self.work.notify_all(),
        }
        if ready <= idle {
            return;
        }
        let mut threads = lock(&self.threads);
        for _ in idle..ready {
            if threads.workers >= WORKERS_MAX || lock(&self.state).stopping {
                break;
            }
            let device = self.clone();
            match std::thread::Builder::new().name("soft-stream".into()).spawn(move || device.serve()) {
                Ok(handle) => {
                    threads.handles.push(handle);
                    threads.workers = threads.workers.saturating_add(1);
                }
                Err(error) => {
                    log::warn!("no further stream thread: {error}");
                    break;
                }
            }
        }
        if threads.workers == 0 {
            drop(threads);
            self.poison(CUresult::OUT_OF_MEMORY);
        }
    }

    /// Carries an operation out: at once on this thread where the stream is idle and `at_once` says that it is short,
    /// in its turn on another where not.
    pub(crate) fn run(self: &Arc<Self>, stream: StreamId, work: Work, at_once: bool) -> CuResult<()> {
        if at_once && let Some(_turn) = self.begin(stream) {
            let done = self.carry_out(work).map(|_| ());
            return done.inspect_err(|error| self.poison(*error));
        }
        self.submit(stream, work, &[]).map(|_| ())
    }

    /// The stream's turn, if it has nothing to do and waits for nothing.
    pub(crate) fn begin(self: &Arc<Self>, stream: StreamId) -> Option<Turn<'_>> {
        lock(&self.state).streams.begin(stream).map(|_| Turn { device: self, stream })
    }

    /// The stream's turn, once it comes.
    pub(crate) fn turn(self: &Arc<Self>, stream: StreamId) -> CuResult<Turn<'_>> {
        if let Some(turn) = self.begin(stream) {
            return Ok(turn);
        }
        let gate = Arc::new(Gate::default());
        self.submit(stream, Work::Turn(gate.clone()), &[])?;
        match gate.pass(None) {
            Passed::Open => Ok(Turn { device: self, stream }),
            _ => Err(self.lost()),
        }
    }

    /// Marks the place where a stream is now.
    pub(crate) fn mark(self: &Arc<Self>, stream: StreamId, mark: &Arc<Mark>) -> CuResult<Point> {
        self.alive()?;
        if let Some(point) = lock(&self.state).streams.mark_now(stream, mark) {
            return Ok(point);
        }
        self.submit(stream, Work::Mark(mark.clone()), &[])
    }

    pub(crate) fn reached(&self, point: &Point) -> bool {
        lock(&self.state).streams.is_reached(point)
    }

    /// Waits for places in streams. `false`: not all of them by then.
    pub(crate) fn wait(&self, points: &[Point], until: Option<Instant>) -> CuResult<bool> {
        for point in points {
            let Some(gate) = lock(&self.state).streams.watch(point) else { continue };
            match gate.pass(until) {
                Passed::Open => {}
                Passed::Dropped => return Err(self.lost()),
                Passed::Late => {
                    lock(&self.state).streams.unwatch(point, &gate);
                    return Ok(false);
                }
            }
        }
        self.alive().map(|()| true)
    }

    /// Waits for all work of a context, or of all.
    pub(crate) fn wait_idle(&self, context: Option<u32>, until: Option<Instant>) -> CuResult<bool> {
        let points = self.with_streams(|s| s.all_ends(context));
        self.wait(&points, until)
    }

    /// Waits until nothing runs and nothing will before the guest goes on. `false`: not by then.
    pub(crate) fn wait_at_rest(&self, until: Option<Instant>) -> CuResult<bool> {
        loop {
            let soon = Instant::now().checked_add(REST_LOOK);
            if self.wait_idle(None, soon)? || self.with_streams(|s| s.rests()) {
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
    }

    /// What a stream's thread does.
    fn serve(self: Arc<Self>) {
        let mut state = lock(&self.state);
        while !state.stopping {
            let Some((stream, work)) = state.streams.take() else {
                state.idle = state.idle.saturating_add(1);
                state = wait(&self.work, state);
                state.idle = state.idle.saturating_sub(1);
                continue;
            };
            drop(state);
            if let Work::Host(call) = work {
                self.hand_out(stream, call);
                state = lock(&self.state);
                continue;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| self.carry_out(work)));
            let later = match outcome {
                Ok(Ok(later)) => later,
                Ok(Err(error)) => {
                    self.poison(error);
                    None
                }
                Err(_) => {
                    log::error!("an operation panicked; its session ends");
                    self.poison(CUresult::LAUNCH_FAILED);
                    None
                }
            };
            state = lock(&self.state);
            let polled = later.is_some();
            match later {
                Some(work) => state.streams.poll_later(stream, work),
                None => state.streams.complete(stream),
            }
            if polled {
                drop(state);
                self.start_poller();
                state = lock(&self.state);
            }
            // One of them is this thread's next.
            let (others, idle) = (state.streams.ready().saturating_sub(1), state.idle);
            if others != 0 {
                drop(state);
                self.staff(others, idle);
                state = lock(&self.state);
            }
        }
    }

    /// Carries an operation out; a wait that is not over comes back.
    fn carry_out(&self, work: Work) -> CuResult<Option<Work>> {
        // Memory that was valid when the call was made and is gone now: the error is the device's, as with a kernel.
        let illegal = |_| CUresult::ILLEGAL_ADDRESS;
        match work {
            Work::Nothing | Work::Mark(_) | Work::Turn(_) => {}
            // The guest carries it out (`Device::hand_out`); nothing else may take it for done.
            Work::Host(_) => return Err(CUresult::UNKNOWN),
            Work::Kernel(launch) => launch.run(self)?,
            Work::CopyIn { to, bytes, hold: _hold } => {
                // SAFETY: a private copy of exactly this length.
                unsafe { transfer::copy_in(&self.memory, to, bytes.as_ptr(), bytes.len() as u64) }
                    .map_err(illegal)?;
            }
            Work::ShapeIn { shape, bytes, hold: _hold } => {
                // SAFETY: a private copy of all the shape's bytes.
                unsafe { shape::copy_in(&self.memory, &shape, bytes.as_ptr()) }.map_err(illegal)?;
            }
            Work::Shape(shape) => shape::copy(&self.memory, &shape).map_err(illegal)?,
            Work::Copy { to, from, len } => transfer::copy(&self.memory, to, from, len).map_err(illegal)?,
            Work::Fill(fill) => transfer::fill(&self.memory, &fill).map_err(illegal)?,
            Work::WriteValue { address, word } => {
                transfer::store(&self.memory, address, word).map_err(illegal)?
            }
            Work::Signal(signal) => signal.store(),
            Work::Free { address } => self.memory.park(address),
            Work::WaitValue(wait) => {
                if !self.met(&wait).map_err(illegal)? {
                    return Ok(Some(Work::WaitValue(wait)));
                }
            }
        }
        Ok(None)
    }

    fn met(&self, wait: &WaitValue) -> CuResult<bool> {
        transfer::met(&self.memory, wait.address, wait.word, wait.until)
    }

    fn start_poller(self: &Arc<Self>) {
        self.poll.notify_one();
        let mut threads = lock(&self.threads);
        if threads.poller || lock(&self.state).stopping {
            return;
        }
        let device = self.clone();
        match std::thread::Builder::new().name("soft-words".into()).spawn(move || device.watch_words()) {
            Ok(handle) => {
                threads.handles.push(handle);
                threads.poller = true;
            }
            Err(error) => {
                log::error!("no thread to wait for words: {error}");
                drop(threads);
                self.poison(CUresult::OUT_OF_MEMORY);
            }
        }
    }

    /// Looks at the words that streams wait for.
    fn watch_words(self: Arc<Self>) {
        let mut rounds = 0u32;
        let mut state = lock(&self.state);
        while !state.stopping {
            let waits = state.streams.polled();
            if waits.is_empty() {
                rounds = 0;
                state = wait(&self.poll, state);
                continue;
            }
            drop(state);
            let mut came = Vec::new();
            for (stream, work) in waits {
                let Work::WaitValue(wait) = work else { continue };
                match self.met(&wait) {
                    Ok(true) => came.push(stream),
                    Ok(false) => {}
                    Err(_) => self.poison(CUresult::ILLEGAL_ADDRESS),
                }
            }
            rounds = if came.is_empty() { rounds.saturating_add(1) } else { 0 };
            if came.is_empty() {
                std::thread::sleep(if rounds < POLL_SOON_ROUNDS { POLL_SOON } else { POLL_LATE });
            }
            state = lock(&self.state);
            for stream in came {
                state.streams.polled_done(stream);
            }
            let (ready, idle) = (state.streams.ready(), state.idle);
            if ready != 0 {
                drop(state);
                self.staff(ready, idle);
                state = lock(&self.state);
            }
        }
    }

    /// Ends everything: kernels, queues, threads. Nothing runs after this.
    pub(crate) fn stop(&self) {
        let ended = CUresult::DEINITIALIZED.0;
        // A fault that was there first stays the answer.
        let _ = self.sticky.compare_exchange(0, ended, Ordering::AcqRel, Ordering::Acquire);
        self.cancel.store(true, Ordering::Release);
        {
            let mut state = lock(&self.state);
            state.stopping = true;
            let _ = state.streams.poison();
        }
        self.functions.close();
        self.work.notify_all();
        self.poll.notify_all();
        let handles = std::mem::take(&mut lock(&self.threads).handles);
        for handle in handles {
            if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
                log::error!("a stream thread ended in a panic");
            }
        }
    }
}
