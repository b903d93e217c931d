//! The worker's side of turns ([`crate::turns`]): calls that give a device work pass its gate, and one thread sees to what is unfinished.
//!
//! While the gate is free, passing it is two loads. In the VM's turn a call passes as long as little enough is unfinished: the thread marks
//! how far the device is to come (`CallHandler::mark`), learns from the marks that have passed how long a call's work takes, and lets as
//! many calls pass as need about as long as the daemon says. While the gate is closed, calls wait.
//!
//! The thread also measures how long the device has unfinished work of the session's: in a turn all the time, otherwise by looking now and
//! then, at irregular times, and counting the time since the last look if there is some.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cuda_api::info::DEVICES_MAX;

use super::ring::State;
use crate::CallHandler;
use crate::turns::{TurnPage, UNFINISHED_MIN_NS, gate, notify};

/// Calls that may be unfinished, at least: two, so that the device has something to go on with.
const UNFINISHED_MIN: u64 = 2;
/// Calls that may be unfinished, at most.
const UNFINISHED_MAX: u64 = 1 << 16;
/// What a call's work is taken to need before anything is known of it.
const CALL_GUESS: Duration = Duration::from_millis(1);
/// How often the thread looks in a turn, and while what was begun in one is to come to its end.
const LOOK: Duration = Duration::from_micros(60);
/// A mark is set this often at most.
const MARK_EVERY: Duration = Duration::from_micros(240);
/// Marks that have not passed, at most.
const MARKS_MAX: usize = 32;
/// With nothing to do for so long, a turn is given up.
const YIELD_AFTER: Duration = Duration::from_micros(200);
/// How often the thread looks while the gate is free: between one and two times as long.
const SAMPLE: Duration = Duration::from_millis(7);
/// A session that has done nothing for so long is not looked at until it does something.
const IDLE_AFTER: Duration = Duration::from_millis(40);
/// How long a call waits before it looks again by itself.
const WAIT_LIMIT: Duration = Duration::from_millis(500);

/// What the worker keeps of one device.
#[derive(Default)]
struct Local {
    /// Calls that have passed in the VM's turns.
    issued: AtomicU64,
    /// How many may have.
    limit: AtomicU64,
    /// Threads in such a call.
    inside: AtomicU32,
    /// Threads that wait.
    waiting: AtomicU32,
}

/// How a call has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The gate is free.
    Free,
    /// It is the VM's turn on the device with this place: [`Turns::leave`] is to be called.
    Counted(usize),
}

/// The session's gates.
pub(super) struct Turns {
    page: TurnPage,
    notifier: OwnedFd,
    locals: [Local; DEVICES_MAX],
    /// The page's place of each of the session's devices.
    places: OnceLock<Vec<Option<usize>>>,
    /// No call is carried out, and the device is not to be asked for anything.
    resting: AtomicBool,
}

impl Turns {
    pub(super) fn new(page: TurnPage, notifier: OwnedFd) -> Self {
        let locals = std::array::from_fn(|_| Local::default());
        Self { page, notifier, locals, places: OnceLock::new(), resting: AtomicBool::new(false) }
    }

    /// The session's devices, by their UUIDs. Once.
    pub(super) fn set_devices(&self, ids: &[[u8; 16]]) {
        let places: Vec<Option<usize>> = ids.iter().map(|id| self.page.place_of(id)).collect();
        if places.contains(&None) {
            log::warn!("a device is none of the VM's: its work has no turns");
        }
        // A session has one set of devices.
        let _ = self.places.set(places);
    }

    fn place(&self, device: usize) -> Option<usize> {
        self.places.get()?.get(device).copied().flatten()
    }

    fn devices(&self) -> impl Iterator<Item = (usize, usize)> {
        let places = self.places.get().map(Vec::as_slice).unwrap_or_default();
        places.iter().enumerate().filter_map(|(device, place)| place.map(|place| (device, place)))
    }

    /// A call that gives a device work is about to be carried out: waits until it may be.
    #[inline]
    pub(super) fn pass(&self, device: usize) -> Passed {
        let Some(place) = self.place(device) else { return Passed::Free };
        let Some(shared) = self.page.device(place) else { return Passed::Free };
        if shared.gate.load(Ordering::Relaxed) == gate::FREE && shared.active.load(Ordering::Relaxed) != 0 {
            return Passed::Free;
        }
        self.pass_slowly(place)
    }

    #[cold]
    fn pass_slowly(&self, place: usize) -> Passed {
        let (Some(shared), Some(local)) = (self.page.device(place), self.locals.get(place)) else {
            return Passed::Free;
        };
        let mut since: Option<Instant> = None;
        let passed = loop {
            let seen = self.page.signal();
            let state = shared.gate.load(Ordering::SeqCst);
            if state == gate::CLOSED {
                local.waiting.fetch_add(1, Ordering::SeqCst);
                self.activate(place);
                since.get_or_insert_with(Instant::now);
                self.page.wait(seen, Some(WAIT_LIMIT));
                local.waiting.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            self.activate(place);
            if state == gate::FREE {
                break Passed::Free;
            }
            // SeqCst here and in the thread: either this sees the gate closed, or the thread sees this inside.
            local.inside.fetch_add(1, Ordering::SeqCst);
            if shared.gate.load(Ordering::SeqCst) == gate::OPEN {
                if local.issued.fetch_add(1, Ordering::SeqCst) < local.limit.load(Ordering::SeqCst) {
                    break Passed::Counted(place);
                }
                local.issued.fetch_sub(1, Ordering::SeqCst);
                local.inside.fetch_sub(1, Ordering::SeqCst);
                local.waiting.fetch_add(1, Ordering::SeqCst);
                since.get_or_insert_with(Instant::now);
                self.page.wait(seen, Some(WAIT_LIMIT));
                local.waiting.fetch_sub(1, Ordering::SeqCst);
            } else {
                local.inside.fetch_sub(1, Ordering::SeqCst);
            }
        };
        if let Some(since) = since {
            shared.count_wait(since.elapsed());
        }
        passed
    }

    /// The call has been carried out.
    #[inline]
    pub(super) fn leave(&self, passed: Passed) {
        if let Passed::Counted(place) = passed
            && let Some(local) = self.locals.get(place)
        {
            local.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The session has or wants work on the device: the daemon and the thread hear of it.
    fn activate(&self, place: usize) {
        if let Some(shared) = self.page.device(place)
            && shared.active.swap(1, Ordering::SeqCst) == 0
        {
            notify(&self.notifier);
            self.page.wake();
        }
    }

    /// The session has come to rest with nothing unfinished, and wants no turns; or it goes on.
    pub(super) fn rest(&self, resting: bool) {
        self.resting.store(resting, Ordering::SeqCst);
        if resting {
            for shared in self.devices().filter_map(|(_, place)| self.page.device(place)) {
                shared.active.store(0, Ordering::SeqCst);
                shared.drained.store(shared.turn.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            notify(&self.notifier);
        }
        self.page.wake();
    }

    /// The thread's work, as long as the process lives.
    pub(super) fn run<H: CallHandler>(&self, state: &State<H>) -> ! {
        let mut watches: Vec<Watch> = Vec::new();
        loop {
            let seen = self.page.signal();
            if self.resting.load(Ordering::SeqCst) {
                watches.iter_mut().for_each(|watch| watch.asleep = true);
                self.page.wait(seen, None);
                continue;
            }
            let now = Instant::now();
            let mut next: Option<Duration> = None;
            for (at, (device, place)) in self.devices().enumerate() {
                while watches.len() <= at {
                    watches.push(Watch::new(now));
                }
                if let Some(watch) = watches.get_mut(at) {
                    let soon = self.look(watch, device, place, state, now);
                    next = soon.into_iter().chain(next).min();
                }
            }
            self.page.wait(seen, next);
        }
    }

    /// Looks at one device; when to look again, if nobody signals.
    fn look<H: CallHandler>(
        &self,
        watch: &mut Watch,
        device: usize,
        place: usize,
        state: &State<H>,
        now: Instant,
    ) -> Option<Duration> {
        let (shared, local) = (self.page.device(place)?, self.locals.get(place)?);
        let handler = &state.handler;
        let turn = shared.turn.load(Ordering::SeqCst);
        let gate_now = shared.gate.load(Ordering::SeqCst);
        let begins = watch.turn != turn || watch.gate != gate_now || watch.asleep;
        // What was between is nobody's, but where a turn has just ended.
        if begins && (watch.asleep || gate_now != gate::CLOSED) {
            watch.looked = now;
        }
        (watch.turn, watch.gate, watch.asleep) = (turn, gate_now, false);
        let busy = |from: Instant| {
            let ns = u64::try_from(now.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX);
            shared.busy_ns.fetch_add(ns, Ordering::Relaxed);
        };
        match gate_now {
            gate::FREE => {
                watch.forget(local);
                if shared.active.load(Ordering::SeqCst) == 0 {
                    watch.asleep = true;
                    return None;
                }
                let calls = state.counters.calls();
                if begins || watch.sample_at <= now {
                    let has_work = handler.is_busy(device);
                    if has_work && !begins {
                        busy(watch.looked);
                    }
                    if begins || has_work || calls != watch.calls {
                        (watch.calls, watch.busy_at) = (calls, now);
                    }
                    watch.looked = now;
                    watch.sample_at = watch.next_sample(now);
                    if now.saturating_duration_since(watch.busy_at) >= IDLE_AFTER {
                        shared.active.store(0, Ordering::SeqCst);
                        notify(&self.notifier);
                        watch.asleep = true;
                        return None;
                    }
                }
                Some(watch.sample_at.saturating_duration_since(now))
            }
            gate::OPEN => {
                if begins && !watch.has_work(local) {
                    watch.begin(now);
                } else if watch.has_work(local) {
                    busy(watch.looked);
                }
                watch.looked = now;
                watch.see_marks(local, handler, device, now);
                watch.set_mark(local, handler, device, now);
                watch.unfinished = Duration::from_nanos(shared.unfinished_ns.load(Ordering::Relaxed));
                let limit = watch.completed.saturating_add(watch.allowed());
                if local.limit.swap(limit, Ordering::SeqCst) < limit
                    && local.waiting.load(Ordering::SeqCst) != 0
                {
                    self.page.wake();
                }
                if watch.has_work(local) || local.inside.load(Ordering::SeqCst) != 0 {
                    watch.busy_at = now;
                } else if now.saturating_duration_since(watch.busy_at) >= YIELD_AFTER
                    && shared.active.swap(0, Ordering::SeqCst) != 0
                {
                    // A call that comes now says so again, for itself.
                    if watch.has_work(local) || local.inside.load(Ordering::SeqCst) != 0 {
                        shared.active.store(1, Ordering::SeqCst);
                    } else {
                        notify(&self.notifier);
                        watch.asleep = true;
                        return None;
                    }
                }
                Some(LOOK)
            }
            _ => {
                if begins {
                    // Whatever has passed before is to come to its end: what was not counted as well.
                    watch.to_mark = true;
                }
                if shared.drained.load(Ordering::SeqCst) == turn {
                    watch.asleep = true;
                    return None;
                }
                if watch.has_work(local) || watch.to_mark {
                    busy(watch.looked);
                }
                watch.looked = now;
                if local.inside.load(Ordering::SeqCst) != 0 {
                    return Some(LOOK);
                }
                watch.see_marks(local, handler, device, now);
                watch.set_mark(local, handler, device, now);
                if !watch.marks.is_empty() || watch.to_mark {
                    return Some(LOOK);
                }
                watch.forget(local);
                shared.active.store(0, Ordering::SeqCst);
                if local.waiting.load(Ordering::SeqCst) != 0 {
                    shared.active.store(1, Ordering::SeqCst);
                }
                shared.drained.store(turn, Ordering::SeqCst);
                notify(&self.notifier);
                None
            }
        }
    }
}

/// A place that the device is to come to.
struct Mark {
    number: u64,
    /// Calls that had passed by then.
    issued: u64,
}

/// What the thread remembers of a device.
struct Watch {
    gate: u32,
    turn: u32,
    /// There was nothing to do: the times below are of before that.
    asleep: bool,
    marks: VecDeque<Mark>,
    /// Calls of which the device is known to have done the work.
    completed: u64,
    /// Calls that had passed when the last mark was set.
    marked: u64,
    /// A mark is to be set whatever has passed.
    to_mark: bool,
    last_mark: Option<Instant>,
    /// When the last mark passed before which the device had no pause.
    passed_at: Option<Instant>,
    /// What a call's work needs.
    per_call: Duration,
    /// What may be unfinished in a turn.
    unfinished: Duration,
    looked: Instant,
    sample_at: Instant,
    /// Calls of all rings at the last look.
    calls: u64,
    busy_at: Instant,
    random: u32,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            gate: gate::FREE,
            turn: 0,
            asleep: true,
            marks: VecDeque::new(),
            completed: 0,
            marked: 0,
            to_mark: false,
            last_mark: None,
            passed_at: None,
            per_call: CALL_GUESS,
            unfinished: Duration::from_nanos(UNFINISHED_MIN_NS),
            looked: now,
            sample_at: now,
            calls: 0,
            busy_at: now,
            random: std::process::id() | 1,
        }
    }

    /// An irregular time: a program that does the same again and again is not always met at the same point.
    fn next_sample(&mut self, now: Instant) -> Instant {
        // Marsaglia's xorshift with 32 bits.
        self.random ^= self.random.wrapping_shl(13);
        self.random ^= self.random.wrapping_shr(17);
        self.random ^= self.random.wrapping_shl(5);
        let most = u32::try_from(SAMPLE.as_nanos()).unwrap_or(u32::MAX);
        let more = self.random.checked_rem(most.max(1)).unwrap_or(0);
        now.checked_add(SAMPLE.saturating_add(Duration::from_nanos(more.into()))).unwrap_or(now)
    }

    /// A turn begins, or goes on after a pause, with nothing unfinished.
    fn begin(&mut self, now: Instant) {
        self.passed_at = None;
        self.last_mark = None;
        self.busy_at = now;
    }

    /// All that has passed is over, or nobody counts it any more.
    fn forget(&mut self, local: &Local) {
        self.marks.clear();
        self.to_mark = false;
        self.completed = local.issued.load(Ordering::SeqCst);
        self.marked = self.completed;
        local.limit.store(self.completed.saturating_add(self.allowed()), Ordering::SeqCst);
    }

    fn has_work(&self, local: &Local) -> bool {
        !self.marks.is_empty() || local.issued.load(Ordering::SeqCst) > self.completed
    }

    /// Calls that may be unfinished.
    fn allowed(&self) -> u64 {
        let per_call = self.per_call.as_nanos().max(1);
        let calls = self.unfinished.as_nanos().checked_div(per_call).unwrap_or(1);
        u64::try_from(calls).unwrap_or(UNFINISHED_MAX).clamp(UNFINISHED_MIN, UNFINISHED_MAX)
    }

    /// Takes out the marks that have passed, and learns from them.
    fn see_marks<H: CallHandler>(&mut self, local: &Local, handler: &H, device: usize, now: Instant) {
        let mut calls = 0u64;
        while let Some(mark) = self.marks.front().filter(|mark| handler.passed(device, mark.number)) {
            calls = calls.saturating_add(mark.issued.saturating_sub(self.completed));
            self.completed = self.completed.max(mark.issued);
            self.marks.pop_front();
        }
        if calls == 0 {
            return;
        }
        // Only where the device went from one mark to the next without a pause does the time tell what a call needs.
        if let Some(since) = self.passed_at {
            let took = now.saturating_duration_since(since);
            let each = took.checked_div(u32::try_from(calls).unwrap_or(u32::MAX)).unwrap_or(took);
            // A quarter of what is new: one long kernel among short ones is not taken for all.
            let old = self.per_call.saturating_mul(3);
            self.per_call = old.saturating_add(each).checked_div(4).unwrap_or(each);
        }
        let goes_on = !self.marks.is_empty() || local.issued.load(Ordering::SeqCst) > self.completed;
        self.passed_at = goes_on.then_some(now);
    }

    /// Sets a mark where one is due.
    fn set_mark<H: CallHandler>(&mut self, local: &Local, handler: &H, device: usize, now: Instant) {
        let issued = local.issued.load(Ordering::SeqCst);
        let recent = self.last_mark.is_some_and(|at| now.saturating_duration_since(at) < MARK_EVERY);
        let full = issued >= local.limit.load(Ordering::SeqCst);
        let due = self.to_mark || (issued > self.marked && (!recent || full || self.marks.is_empty()));
        if !due
            || self.marks.len() >= MARKS_MAX
            || local.inside.load(Ordering::SeqCst) != 0 && !full && recent
        {
            return;
        }
        match handler.mark(device) {
            Some(number) => {
                // Calls that are inside have perhaps not been issued: they belong to the next mark.
                let inside = u64::from(local.inside.load(Ordering::SeqCst));
                let issued = issued.saturating_sub(inside).max(self.marked);
                self.marks.push_back(Mark { number, issued });
                (self.marked, self.to_mark, self.last_mark) = (issued, false, Some(now));
                self.passed_at = self.passed_at.or(Some(now));
            }
            // While something is being captured, nothing can be marked: the device is asked whether it has anything to do.
            None => {
                if !handler.is_busy(device) {
                    (self.completed, self.marked, self.to_mark) = (issued, issued, false);
                }
            }
        }
    }
}
