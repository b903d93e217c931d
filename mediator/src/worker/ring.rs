//! One ring of the session and the host thread that consumes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pci_layout::event;
use pci_layout::ring::{FRAME_AREA_BYTES, FRAME_UNORDERED};
use vgpu_ring::{Consumer, FrameBuffer, FrontView, RingMemory, SessionPageMemory};

use super::gate::{Gate, Inside};
use super::limits::Limits;
use super::mapping::Mapping;
use super::output::Output;
use super::queue::{FrameCopy, RingWords};
use super::sequence::Turn;
use super::turns::{Passed, Turns};
use super::wake::Waker;
use super::watchdog::Watchdog;
use super::{die, exit};
use crate::counters::{CounterPage, RingCounters, count};
use crate::profile::Profile;
use crate::{CallHandler, Frame, StagingMemory};

/// Failed posted calls that a worker logs before it only counts them: the guest chooses how many there are.
const LOGGED_ERRORS_MAX: u32 = 100;

/// Bytes of frames whose space goes back to the guest together, at the latest when the ring is empty: a small part of it, so that its
/// guest does not wait for them while a call blocks.
const RELEASE_BYTES: u64 = FRAME_AREA_BYTES as u64 / 16;

/// Bulk frames that have returned and are not finished, at most: a guest could send others for as long as it likes.
const UNFINISHED_MAX: usize = 64;

/// CUDA_ERROR_NOT_READY: the answer to a question, and no failure.
const NOT_READY: u32 = 600;

/// Polling goes on this long without giving the processor away.
const SPIN_HARD: Duration = Duration::from_micros(20);
/// Polling is never cut below this, however often it was in vain.
const SPIN_MIN: Duration = Duration::from_micros(5);
/// Frames that come with gaps of up to this many times the usual limit (1 ms) are a steady stream: it is polled for through the gaps,
/// since each park in it would cost the guest a doorbell.
const SPIN_GROWTH: u32 = 20;

/// How long to poll next time, after `spin` was in vain and the ring then slept for `parked`.
fn next_spin(spin: Duration, longest: Duration, parked: Duration) -> Duration {
    let most = longest.saturating_mul(SPIN_GROWTH);
    if parked <= most {
        spin.max(longest).saturating_mul(2).min(most)
    } else {
        spin.checked_div(2).unwrap_or(SPIN_MIN).max(SPIN_MIN.min(longest))
    }
}

/// What the session's threads share.
pub(super) struct State<H> {
    pub(super) handler: H,
    pub(super) gate: Gate,
    pub(super) turns: Turns,
    pub(super) waker: Waker,
    pub(super) page: SessionPageMemory,
    pub(super) counters: Arc<CounterPage>,
    /// Where the VM is profiled.
    pub(super) profile: Option<Profile>,
    pub(super) output: Arc<Output>,
    pub(super) spin: SpinLimit,
    pub(super) limits: Limits,
    pub(super) watchdog: Watchdog,
    pub(super) logged_errors: AtomicU32,
}

impl<H> State<H> {
    /// The guest broke the rules: ends the session.
    fn malformed(&self, ring: u32, reason: &dyn std::fmt::Display) -> ! {
        self.page.set_dead(event::DEATH_MALFORMED);
        die(exit::MALFORMED, &format!("ring {ring}: {reason}"))
    }
}

/// How long, and by how many threads of this process at once, empty rings are polled.
pub(super) struct SpinLimit {
    longest: Duration,
    threads_max: usize,
    threads: AtomicUsize,
}

impl SpinLimit {
    pub(super) fn new(longest: Duration) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { longest, threads_max: cores.saturating_sub(1), threads: AtomicUsize::new(0) }
    }

    /// Polls until `done`, at most `limit`; false if it was in vain.
    fn poll(&self, limit: Duration, done: impl Fn() -> bool) -> bool {
        let spinning = self.threads.fetch_add(1, Ordering::Relaxed) < self.threads_max;
        let start = Instant::now();
        let is_done = loop {
            if done() {
                break true;
            }
            let waited = start.elapsed();
            if waited >= limit {
                break false;
            }
            if spinning && waited < SPIN_HARD {
                // A processor's pause is long, some 50 ns: a look after each.
                if (0..16).any(|_| {
                    std::hint::spin_loop();
                    done()
                }) {
                    break true;
                }
            } else {
                std::thread::yield_now();
            }
        };
        self.threads.fetch_sub(1, Ordering::Relaxed);
        is_done
    }
}

/// A ring as the whole worker knows it. Its consuming end belongs to its thread alone.
pub(super) struct Ring {
    index: u32,
    view: FrontView,
    words: RingWords,
    /// Set late, once.
    staging: OnceLock<Mapping>,
    thread: OnceLock<Thread>,
    parked: AtomicBool,
    /// The ring is being removed: its thread ends when it is empty.
    draining: AtomicBool,
    inside: Inside,
    /// The posted frame that is in its call, for those who ask whether they may overtake it.
    in_call: Mutex<FrameCopy>,
    /// Ticket of the first posted call that has returned and is not over (see [`CallHandler::is_unsettled`]), or 0.
    unsettled: AtomicU64,
    /// That call, for the same.
    unsettled_call: Mutex<FrameCopy>,
    /// The session's other rings. Locked for a look at them and for changes to the list, never longer.
    peers: Mutex<Vec<Arc<Ring>>>,
}

impl Ring {
    /// A ring in `mapping`, which is RING_BYTES long, and its consuming end.
    pub(super) fn new(index: u32, mapping: Arc<Mapping>) -> (Arc<Self>, Consumer) {
        let start = mapping.start();
        // SAFETY: page aligned and RING_BYTES long (the caller's order was checked for it), kept mapped by its owner.
        let memory = unsafe { RingMemory::with_owner(start, mapping) };
        // SAFETY: as above; `view` keeps the mapping as long as `words` is used.
        let words = unsafe { RingWords::new(start) };
        let consumer = Consumer::new(memory);
        let ring = Self {
            index,
            view: consumer.view(),
            words,
            staging: OnceLock::new(),
            thread: OnceLock::new(),
            parked: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            inside: Inside::default(),
            in_call: Mutex::default(),
            unsettled: AtomicU64::new(0),
            unsettled_call: Mutex::default(),
            peers: Mutex::default(),
        };
        (Arc::new(ring), consumer)
    }

    pub(super) fn view(&self) -> &FrontView {
        &self.view
    }

    pub(super) fn words(&self) -> &RingWords {
        &self.words
    }

    pub(super) fn in_call(&self) -> MutexGuard<'_, FrameCopy> {
        self.in_call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ticket of the first posted call that has returned and is not over.
    pub(super) fn unsettled(&self) -> Option<u64> {
        Some(self.unsettled.load(Ordering::Acquire)).filter(|ticket| *ticket != 0)
    }

    pub(super) fn unsettled_call(&self) -> MutexGuard<'_, FrameCopy> {
        self.unsettled_call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn peers(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the ring its staging buffer; false if it has one.
    pub(super) fn set_staging(&self, mapping: Mapping) -> bool {
        self.staging.set(mapping).is_ok()
    }

    /// True while the ring's thread is inside a call.
    pub(super) fn is_inside(&self) -> bool {
        self.inside.is_set()
    }

    /// Lets the ring's thread end once the ring is empty.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the ring's thread if it sleeps although there are frames.
    pub(super) fn unpark_parked(&self) {
        // The thread stores `parked` before its last look at the ring, so a kick that finds it unset is not needed.
        if self.parked.load(Ordering::SeqCst)
            && self.view.has_data()
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn staging(&self) -> Option<StagingMemory> {
        self.staging.get().map(|mapping| StagingMemory::new(mapping.start(), mapping.len()))
    }

    /// The thread's work: consumes the ring until it is removed.
    pub(super) fn run<H: CallHandler>(&self, state: &State<H>, consumer: Consumer) {
        // Set before the first park, so that everybody who finds the ring parked finds its thread as well.
        if self.thread.set(std::thread::current()).is_err() {
            die(exit::HOST, "a ring has two threads");
        }
        let Some(counters) = state.counters.ring(self.index) else {
            die(exit::HOST, "a ring without counters");
        };
        let mut worker = RingWorker {
            ring: self,
            state,
            counters,
            consumer,
            turn: Turn::default(),
            thread: state.handler.ring_thread(self.index),
            reply: Vec::new(),
            spin: state.spin.longest,
            sticky: 0,
            unsettled: None,
            unfinished: VecDeque::new(),
        };
        let mut buffer = FrameBuffer::new();
        loop {
            match worker.consumer.take(&mut buffer) {
                Ok(Some(frame)) => {
                    let vgpu_ring::Frame { call, flags, context, ticket, args } = frame;
                    worker.serve(
                        Frame { call, flags, context, ticket, args },
                        frame.waits(),
                        frame.is_bulk(),
                    );
                }
                // Before anybody has to wait for it, and before this thread is in no hurry.
                Ok(None) if worker.unsettled.is_some() => worker.settle_some(),
                Ok(None) if self.draining.load(Ordering::SeqCst) => break,
                Ok(None) => worker.idle(),
                Err(error) => state.malformed(self.index, &error),
            }
        }
    }
}

/// What the ring's thread has to itself.
struct RingWorker<'a, H: CallHandler> {
    ring: &'a Ring,
    state: &'a State<H>,
    counters: &'a RingCounters,
    consumer: Consumer,
    turn: Turn,
    thread: H::Thread,
    reply: Vec<u8>,
    /// How long to poll an empty ring: shorter after it was in vain, the full time or more after it was not.
    spin: Duration,
    /// What was told last.
    sticky: u32,
    /// Call and context of what has returned and is not over.
    unsettled: Option<(u32, u32)>,
    /// For each bulk frame that has returned and is not finished, the uses of staging that had begun by then.
    unfinished: VecDeque<u64>,
}

impl<H: CallHandler> RingWorker<'_, H> {
    fn serve(&mut self, frame: Frame<'_>, waits: bool, is_bulk: bool) {
        let profile = self.state.profile.as_ref();
        if !waits {
            let mut copy = self.ring.in_call();
            copy.args.clear();
            copy.args.extend_from_slice(frame.args);
            let Frame { call, flags, context, ticket, .. } = frame;
            (copy.call, copy.flags, copy.context, copy.ticket) = (call, flags, context, ticket);
        }
        // The frame was copied out, its space can go back: not each time, as that costs a fence.
        if self.consumer.unreleased() >= RELEASE_BYTES || self.state.limits.counts_frames() {
            self.release();
        }
        if self.unsettled.is_some_and(|unsettled| unsettled != (frame.call, frame.context))
            || self.unfinished.len() >= UNFINISHED_MAX
        {
            self.settle();
        }
        // A guest that lies about it has its own calls carried out in another order.
        if frame.flags & FRAME_UNORDERED == 0 {
            let (ring, state, counters) = (self.ring, self.state, self.counters);
            let mut turn = std::mem::take(&mut self.turn);
            // What it waits for may in turn be waiting for what is unsettled here.
            let waited = turn.wait(ring, state, frame, counters, || self.settle());
            self.turn = turn;
            if let (Some(profile), Some(waited)) = (profile, waited) {
                profile.order_waits.add(waited);
            }
        }
        let (ring, state) = (self.ring, self.state);
        state.limits.wait(|| ring.draining.load(Ordering::Relaxed), || self.settle());
        state.watchdog.look(&state.handler);
        let passed = self.pass(frame);
        self.reply.clear();
        let staging = self.ring.staging();
        let start = profile.map(|_| Instant::now());
        let mut result = match self.state.handler.call(&mut self.thread, frame, staging, &mut self.reply) {
            Ok(result) => result,
            Err(malformed) => self.state.malformed(self.ring.index, &malformed),
        };
        self.state.turns.leave(passed);
        if let (Some(profile), Some(start)) = (profile, start) {
            profile.call(frame.call, waits, start.elapsed());
        }
        if self.state.handler.is_unsettled(&self.thread) {
            result = self.note_unsettled(frame, waits, result);
        }
        self.consumer.issued();
        let (work, copied) = self.state.handler.work(frame);
        self.counters.count_call(work, copied);
        self.publish_sticky();
        if waits {
            count(&self.counters.replies);
            if result != 0 && result != NOT_READY {
                count(&self.counters.errors);
            }
            self.publish_memory();
            if self.state.handler.may_print(frame.call) {
                self.state.page.set_printed_bytes(self.state.output.printed());
            }
            match self.consumer.reply(frame.ticket, result, &self.reply) {
                Ok(wake) => self.wake_if(wake),
                Err(error) => die(exit::EXECUTOR, &format!("call {}: {error}", frame.call)),
            }
        } else if result != 0 {
            self.post_error(frame.call, result);
        }
        if is_bulk {
            self.unfinished.push_back(self.state.handler.transfers(&self.thread).0);
        }
        self.finish_bulk();
        // Last: whoever stops the session must not see guest memory change after this.
        self.ring.inside.leave();
    }

    /// Waits until the call may be carried out: for its device's turn, and for the VM, which may be paused.
    fn pass(&self, frame: Frame<'_>) -> Passed {
        let handler = &self.state.handler;
        // First: a call that is held up takes no turn from others.
        self.state.gate.wait();
        let passed = match handler.works_on(&self.thread, frame.call, frame.context) {
            Some(device) => self.state.turns.pass(device),
            None => Passed::Free,
        };
        self.state.gate.enter(&self.ring.inside);
        passed
    }

    /// A call has returned and is not over. A guest that waits is answered when it is; otherwise whoever comes later in another ring
    /// finds out before it finds the call returned.
    fn note_unsettled(&mut self, frame: Frame<'_>, waits: bool, result: u32) -> u32 {
        if waits {
            let settled = self.settle_all();
            return if result == 0 { settled } else { result };
        }
        if self.unsettled.is_none() {
            self.unsettled = Some((frame.call, frame.context));
            self.ring.unsettled_call().clone_from(&self.ring.in_call());
            self.ring.unsettled.store(frame.ticket, Ordering::Release);
        }
        result
    }

    /// Waits for all that is not over and answers the first error of it.
    fn settle_all(&mut self) -> u32 {
        let mut first = 0;
        while self.state.handler.is_unsettled(&self.thread) {
            let result = self.state.handler.settle(&mut self.thread);
            first = if first == 0 { result } else { first };
            self.finish_bulk();
        }
        self.settled();
        first
    }

    fn settled(&mut self) {
        self.unsettled = None;
        self.ring.unsettled.store(0, Ordering::Release);
    }

    /// Waits for all that is not over.
    fn settle(&mut self) {
        while self.unsettled.is_some() {
            self.settle_some();
        }
    }

    /// Waits for the earliest of it; an error is that of a posted call.
    fn settle_some(&mut self) {
        let Some((call, _)) = self.unsettled else { return };
        // It may take a while, in which the guest is not to wait for space.
        if self.consumer.unreleased() != 0 {
            self.release();
        }
        self.state.gate.enter(&self.ring.inside);
        if self.state.handler.is_unsettled(&self.thread) {
            let result = self.state.handler.settle(&mut self.thread);
            self.publish_sticky();
            // Before the guest can find the frame finished.
            if result != 0 {
                self.post_error(call, result);
            }
            self.finish_bulk();
        }
        if !self.state.handler.is_unsettled(&self.thread) {
            self.settled();
        }
        self.ring.inside.leave();
    }

    /// Says of bulk frames that they are finished, as far as they are.
    fn finish_bulk(&mut self) {
        if self.unfinished.is_empty() {
            return;
        }
        let over = self.state.handler.transfers(&self.thread).1;
        while self.unfinished.front().is_some_and(|begun| *begun <= over) {
            self.unfinished.pop_front();
            let wake = self.consumer.bulk_finished();
            self.wake_if(wake);
        }
    }

    fn release(&mut self) {
        let wake = self.consumer.release();
        self.wake_if(wake);
    }

    fn wake_if(&self, wake: bool) {
        if wake {
            count(&self.counters.wakes);
            self.state.waker.wake(self.ring.index, self.consumer.memory());
        }
    }

    fn publish_sticky(&mut self) {
        let sticky = self.state.handler.sticky();
        if sticky != self.sticky {
            self.sticky = sticky;
            self.state.page.set_sticky(sticky);
            self.state.counters.set_sticky(sticky);
        }
    }

    /// For whoever asks what the VM's processes have.
    fn publish_memory(&self) {
        let counters = &self.state.counters;
        self.state.handler.device_bytes(&mut |device, bytes| counters.set_device_bytes(device, bytes));
    }

    fn post_error(&mut self, call: u32, result: u32) {
        self.state.page.count_posted_error();
        count(&self.counters.posted_errors);
        let logged = self.state.logged_errors.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |logged| {
            (logged < LOGGED_ERRORS_MAX).then_some(logged.saturating_add(1))
        });
        match logged.map(|logged| logged.saturating_add(1)) {
            Ok(LOGGED_ERRORS_MAX) => log::error!("posted calls fail too often to log each of them"),
            Ok(_) => log::error!("ring {}: posted call {call} failed with {result}", self.ring.index),
            Err(_) => {}
        }
        self.consumer.post_error(result, call);
    }

    /// Polls the empty ring for a while, then sleeps until somebody saw frames in it.
    fn idle(&mut self) {
        if self.consumer.unreleased() != 0 {
            self.release();
        }
        let ring = self.ring;
        let awaited = || ring.view.has_data() || ring.draining.load(Ordering::SeqCst);
        let profile = self.state.profile.as_ref();
        let start = profile.map(|_| Instant::now());
        let found = self.state.spin.poll(self.spin, awaited);
        if let (Some(profile), Some(start)) = (profile, start) {
            profile.polls.add(start.elapsed());
        }
        if found {
            self.spin = self.spin.max(self.state.spin.longest);
            return;
        }
        self.publish_memory();
        ring.parked.store(true, Ordering::SeqCst);
        if self.consumer.prepare_park() {
            count(&self.counters.parks);
            let start = Instant::now();
            while !awaited() {
                std::thread::park();
            }
            self.consumer.cancel_park();
            let parked = start.elapsed();
            if let Some(profile) = profile {
                profile.parks.add(parked);
            }
            self.spin = next_spin(self.spin, self.state.spin.longest, parked);
        }
        ring.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_in_a_stream_are_polled_through_and_silence_is_not() {
        let us = Duration::from_micros;
        let longest = us(50);
        let mut spin = us(5);
        for _ in 0..8 {
            spin = next_spin(spin, longest, us(300));
        }
        assert_eq!(spin, us(1000), "a stream with gaps of 0.3 ms");
        for _ in 0..12 {
            spin = next_spin(spin, longest, Duration::from_secs(1));
        }
        assert_eq!(spin, SPIN_MIN, "calls once a second");
        assert_eq!(next_spin(us(0), us(0), us(10)), us(0), "polling is switched off");
    }
}
