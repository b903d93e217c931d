//! Waiting for streams and asking after events, mostly without asking the worker.
//!
//! - **Completion words.** A stream is waited for by posting `vgpuSignal`: the device writes the ring's word in the session page once the
//!   stream gets there, and the thread looks at the word. If it does not come soon, the worker is asked as CUDA's own call would be,
//!   which also tells what went wrong: a word says nothing but that all is well.
//! - **What is over stays over.** A thread remembers the last stream that it saw idle, and the process's order number at that time: as
//!   long as no thread has sent anything since, the stream is idle. An event that was seen complete stays so until it is recorded
//!   again ([`Mark`]).
//!
//! None of this while calls have to wait anyway (a capture, VGPU_STRICT=1), nor with managed variables, which are fetched after each wait.
//! Where kernels may print, a word is not enough: the driver brings their output when it is waited for itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cuda_api::calls::context::row::cuCtxSynchronize;
use cuda_api::calls::event::row;
use cuda_api::calls::stream::row::{self as stream_row, vgpuSignal};
use cuda_api::guest::finish;
use cuda_api::types::{CUcontext, CUevent, CUstream, Handle, STREAM_DEFAULT, STREAM_LEGACY};
use cuda_api::{CUresult, Call, CuResult};
use pci_layout::ring::FRAME_UNORDERED;

use crate::capture;
use crate::gate::{self, Lane};
use crate::managed::variables;
use crate::process::Process;

/// A frame that this thread has sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Its order number.
    pub ticket: u64,
    /// When it was taken, every call with a smaller one had been issued, or was this thread's own.
    pub quiet: bool,
}

/// A stream that a thread has seen idle.
#[derive(Debug, Clone, Copy)]
pub struct Over {
    context: u64,
    /// The stream, or [`EVERY`] of the context.
    stream: u64,
    /// Nothing was sent after the call with this order number that could be in it.
    ticket: u64,
}

/// The event that a thread has recorded last.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    event: CUevent,
    stream: CUstream,
    ticket: u64,
}

/// What a thread has sent since it saw its context idle.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    context: u64,
    /// The order number at that time.
    ticket: u64,
    /// Calls that it has sent since.
    sent: u64,
    /// The stream that they were all for.
    stream: Option<CUstream>,
}

impl Since {
    fn new(over: Over) -> Self {
        Since { context: over.context, ticket: over.ticket, sent: 0, stream: None }
    }

    /// A call was sent for work in a stream; `None` for any other.
    #[inline]
    pub fn sends(&mut self, stream: Option<CUstream>) {
        self.stream = match (self.sent, self.stream) {
            (0, _) => stream,
            (_, same) if same == stream => same,
            _ => None,
        };
        self.sent = self.sent.wrapping_add(1);
    }
}

/// The question how long it took between two events, and their marks then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed {
    events: (CUevent, CUevent),
    marks: (u64, u64),
}

/// When a word was seen last: see [`nanoseconds`].
static TOLD_AT: AtomicU64 = AtomicU64::new(0);
/// The driver takes a stream for busy for a moment after its word was seen: writing the word is work, too.
const TOLD_LATELY: u64 = 100_000;
/// How long a question may look for the word of a stream that the driver takes for busy.
const BRIEFLY: Duration = Duration::from_micros(10);

fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // From 1, so that 0 is before any word.
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1 + TOLD_LATELY
}

fn was_told_lately() -> bool {
    nanoseconds().saturating_sub(TOLD_AT.load(Ordering::Relaxed)) < TOLD_LATELY
}

const EVERY: u64 = u64::MAX;

fn key(stream: CUstream) -> u64 {
    if stream == STREAM_DEFAULT { STREAM_LEGACY.0 } else { stream.0 }
}

/// Whether the worker's executor writes completion words.
static WORDS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const GIVEN: u8 = 1;
const REFUSED: u8 = 2;

/// Memory was freed into a pool: with a wait of its own the driver gives back what a pool has too much of (CUDA Driver API,
/// CU_MEMPOOL_ATTR_RELEASE_THRESHOLD), with a word it would not hear of the wait.
/// 0 for none; the stream in which that was, until it was waited for; or [`EVERY`].
static POOLS_OWE: AtomicU64 = AtomicU64::new(0);

/// Memory is about to be freed into a pool in a stream.
#[inline]
pub fn pools_owe(stream: CUstream) {
    let owed = POOLS_OWE.load(Ordering::Relaxed);
    if owed != key(stream) && owed != EVERY {
        POOLS_OWE.store(if owed == 0 { key(stream) } else { EVERY }, Ordering::Relaxed);
    }
}

/// The driver is about to wait for a stream itself, or for everything.
fn pools_settle(stream: u64) {
    if stream == EVERY || POOLS_OWE.load(Ordering::Relaxed) == stream {
        POOLS_OWE.store(0, Ordering::Relaxed);
    }
}

/// What is known of an event: how often it was recorded in this process, and whether it has been seen complete since.
#[derive(Debug, Default)]
pub struct Mark(AtomicU64);

/// Something else records the event as well (a graph, another process): whether it is complete is asked each time.
const OTHERS_RECORD: u64 = u64::MAX;
/// The lowest bit: it was seen complete. Those above count.
const COMPLETE: u64 = 1;

impl Mark {
    /// A new event's.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// It was recorded; the new mark. Said after the call was sent: who reads the new count sends what it asks behind that call.
    fn recorded(&self) -> u64 {
        let next = |mark: u64| if mark == OTHERS_RECORD { mark } else { (mark | COMPLETE).wrapping_add(1) };
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |mark| Some(next(mark)));
        next(before.unwrap_or(OTHERS_RECORD))
    }

    fn look(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// An answer has come to a question that was asked when the mark was `before`.
    fn complete(&self, before: u64) {
        if before != OTHERS_RECORD {
            // Recorded since: the answer is no longer of interest.
            let _ = self.0.compare_exchange(before, before | COMPLETE, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn is_complete(mark: u64) -> bool {
        mark != OTHERS_RECORD && mark & COMPLETE != 0
    }
}

/// An event that graphs or other processes record, too.
pub fn others_record(event: CUevent) {
    if let Ok(process) = crate::process::initialised() {
        process.objects.events.with_mark(event.0, |mark| mark.0.store(OTHERS_RECORD, Ordering::Release));
    }
}

/// CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT and CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT, whose values begin with an event.
const EVENT_ATTRIBUTES: [u32; 2] = [7, 12];

/// A launch with this attribute records the event that it names, if it names one.
pub fn recorded_by_a_launch(attribute: u32, event: u64) {
    if EVENT_ATTRIBUTES.contains(&attribute) {
        others_record(CUevent(event));
    }
}

/// An event was recorded by a call that this thread has sent last.
#[inline]
pub fn recorded(event: CUevent, stream: CUstream) {
    let Ok(process) = crate::process::initialised() else { return };
    if capture::any() {
        // What a capture has recorded, its graph records.
        return others_record(event);
    }
    let mark = process.objects.events.with_mark(event.0, Mark::recorded);
    crate::thread::with(|state| {
        let ticket = state.sent.ticket;
        state.recorded = Some(Recorded { event, stream, ticket });
        // In a stream that was idle right before, it is complete as soon as it is recorded, and the stream is as idle as it was.
        if let (Some(over), Some(mark)) = (&mut state.over, mark)
            && over.stream == key(stream)
            && over.ticket.wrapping_add(1) == ticket
            && state.contexts.last().is_some_and(|context| context.0 == over.context)
            && may_know(process)
        {
            over.ticket = ticket;
            process.objects.events.with_mark(event.0, |now| now.complete(mark));
        }
    });
}

/// An event was recorded for all work of a context.
pub fn recorded_in_a_context(event: CUevent) {
    let Ok(process) = crate::process::initialised() else { return };
    if capture::any() {
        return others_record(event);
    }
    process.objects.events.with_mark(event.0, Mark::recorded);
}

/// Nothing forces calls to wait, or to fetch what the device has written.
pub fn may_know(process: &Process) -> bool {
    !process.strict && !variables::exist() && !capture::any()
}

impl Lane<'_> {
    fn is_over(&self, stream: CUstream) -> bool {
        let process = self.process();
        self.state.over.is_some_and(|over| {
            let covers = over.stream == key(stream)
                || (over.stream == EVERY
                    && process.objects.streams.context_of(stream.0) == Some(self.context));
            over.context == self.context && covers && over.ticket == process.session.last_ticket()
        })
    }

    /// The frame that was sent last has told that a stream is idle.
    fn remember(&mut self, stream: u64) {
        let Sent { ticket, quiet } = self.state.sent;
        self.state.over = quiet.then_some(Over { context: self.context, stream, ticket });
    }

    /// Has the device tell, and looks until it does, for as long as looking has paid so far or at most for `limit`. False: the worker is
    /// to be asked.
    fn is_told(&mut self, stream: CUstream, limit: Option<Duration>) -> CuResult<bool> {
        if WORDS.load(Ordering::Relaxed) == REFUSED || self.needs_context().is_err() {
            return Ok(false);
        }
        if POOLS_OWE.load(Ordering::Relaxed) != 0 {
            return Ok(false);
        }
        let session = &self.process().session;
        if session.may_print() || !(limit.is_some() || self.ring()?.should_look()) {
            return Ok(false);
        }
        // Writing the word is work in the stream. In the legacy stream other streams' later work would wait for it, as it does not for
        // cuStreamSynchronize; it may be what the stream's own work waits for.
        if matches!(stream, STREAM_DEFAULT | STREAM_LEGACY) && crate::stream::any_blocking() {
            return Ok(false);
        }
        if WORDS.load(Ordering::Relaxed) == UNKNOWN {
            // The first one waits: an executor that does not do it says so.
            let answer = self.call_alone::<vgpuSignal>(&(stream, 0), false);
            WORDS.store(if answer.is_ok() { GIVEN } else { REFUSED }, Ordering::Relaxed);
            if answer.is_err() {
                return Ok(false);
            }
        }
        let own = self.has_to_itself(stream)?;
        let ticket =
            self.send_posted::<vgpuSignal>(if own { FRAME_UNORDERED } else { 0 }, stream, |ticket| {
                (stream, ticket)
            })?;
        let told = self.ring()?.look_for(ticket, limit);
        if told {
            // Everything that this thread posted before has been issued, and more than that.
            self.state.unsettled.waited();
            TOLD_AT.store(nanoseconds(), Ordering::Relaxed);
        }
        Ok(told)
    }

    /// A stream that no other thread has used since this one did, while none has calls under way that it might have to follow.
    fn has_to_itself(&mut self, stream: CUstream) -> CuResult<bool> {
        let thread = self.ring()?.index().wrapping_add(1);
        let made = !CUstream::SPECIAL.contains(&stream.0);
        Ok(made && self.process().objects.streams.is_of(stream.0, thread) && self.state.unsettled.alone())
    }

    /// Waits for a stream's work; what of it this thread posted in vain comes out here.
    ///
    /// # Errors
    /// cuStreamSynchronize's, or an earlier posted call's.
    pub fn wait_for_stream(&mut self, stream: CUstream) -> CuResult<()> {
        let shortly = may_know(self.process());
        if shortly && self.is_over(stream) {
            return self.deferred_error();
        }
        if !(shortly && self.is_told(stream, None)?) {
            let start = Instant::now();
            pools_settle(key(stream));
            self.call::<stream_row::cuStreamSynchronize>(&(stream,), false)?;
            self.ring()?.device_took(start.elapsed());
        }
        self.remember(key(stream));
        self.deferred_error()
    }

    /// A copy of ordinary memory to the device without a stream is to be posted: waits for the work that it comes after, as the driver
    /// does before it copies. What is posted then is done soon, and no call of another thread, which may take the copy for done when this
    /// one has returned, gets tired of waiting for it. Comes back: the order number before the copy, where it is one of a row.
    ///
    /// # Errors
    /// As for [`Lane::wait_for_stream`].
    pub fn before_copies(&mut self) -> CuResult<Option<u64>> {
        if self.process().strict || capture::any() || self.needs_context().is_err() {
            // Each call waits; or says what is wrong.
            return Ok(None);
        }
        let now = self.process().session.last_ticket();
        if self.is_over(STREAM_LEGACY) || self.state.copied == Some((self.context, now)) {
            return Ok(Some(now));
        }
        self.wait_for_stream(STREAM_LEGACY)?;
        let now = self.process().session.last_ticket();
        Ok(self.is_over(STREAM_LEGACY).then_some(now))
    }

    /// The copy was posted in so many frames.
    pub fn after_copies(&mut self, before: Option<u64>, frames: u64) {
        let last = self.state.sent.ticket;
        let alone = before.is_some_and(|before| before.wrapping_add(frames) == last);
        self.state.copied = alone.then_some((self.context, last));
    }

    /// The call that was waited for last has copied from the device to ordinary memory in a stream, or in none: the stream's work is done.
    pub fn has_fetched(&mut self, stream: Option<CUstream>) {
        self.remember(key(stream.unwrap_or(STREAM_LEGACY)));
    }

    fn ask_stream(&mut self, stream: CUstream) -> CuResult<()> {
        let shortly = may_know(self.process());
        if !(shortly && self.is_over(stream)) {
            match self.call::<stream_row::cuStreamQuery>(&(stream,), false) {
                Err(CUresult::NOT_READY)
                    if shortly && was_told_lately() && self.is_told(stream, Some(BRIEFLY))? => {}
                answer => answer?,
            }
            self.remember(key(stream));
        }
        self.deferred_error()
    }

    /// Waits for a context's work.
    ///
    /// # Errors
    /// cuCtxSynchronize's, or an earlier posted call's.
    pub fn wait_for_context(&mut self, ctx: CUcontext) -> CuResult<()> {
        let known = ctx.0 == self.context && may_know(self.process()) && self.needs_context().is_ok();
        if known && self.context_is_over() {
            return self.deferred_error();
        }
        // Where all work since the context was idle is this thread's, in one stream, the context is idle when that stream is.
        let told = match self.only_stream() {
            Some(stream) if known => self.is_told(stream, None)?,
            _ => false,
        };
        if !told {
            let start = Instant::now();
            pools_settle(EVERY);
            self.call::<cuCtxSynchronize>(&(ctx,), false)?;
            self.ring()?.device_took(start.elapsed());
        }
        if ctx.0 == self.context {
            self.remember(EVERY);
            self.state.since = self.state.over.map(Since::new);
        }
        self.deferred_error()
    }

    /// All work of the current context is done, and nothing was sent since.
    pub fn context_is_over(&self) -> bool {
        self.state.over.is_some_and(|over| {
            let now = self.process().session.last_ticket();
            over.stream == EVERY && over.context == self.context && over.ticket == now
        })
    }

    /// The stream that all calls since the context was idle have been for, of this thread's and of any other's.
    fn only_stream(&self) -> Option<CUstream> {
        let since = self.state.since.filter(|since| since.context == self.context)?;
        let sent = self.process().session.last_ticket().wrapping_sub(since.ticket);
        since.stream.filter(|stream| sent == since.sent && !CUstream::SPECIAL.contains(&stream.0))
    }

    /// How long it took between two events that are complete is known after it was asked for once.
    ///
    /// # Errors
    /// The call's.
    pub fn elapsed<C>(&mut self, start: CUevent, end: CUevent) -> CuResult<f32>
    where
        C: for<'a> Call<In<'a> = (CUevent, CUevent), Out = f32>,
    {
        let marks = (self.event_mark(start), self.event_mark(end));
        let asked = Elapsed { events: (start, end), marks };
        if Mark::is_complete(marks.0)
            && Mark::is_complete(marks.1)
            && may_know(self.process())
            && let Some((known, time)) = &self.state.elapsed
            && *known == asked
        {
            return Ok(*time);
        }
        let time = self.call::<C>(&(start, end), false)?;
        // Answered, so both are complete.
        for (event, mark) in [(start, marks.0), (end, marks.1)] {
            self.event_is_complete(event, mark);
        }
        if marks.0 != OTHERS_RECORD && marks.1 != OTHERS_RECORD {
            let marks = (marks.0 | COMPLETE, marks.1 | COMPLETE);
            self.state.elapsed = Some((Elapsed { marks, ..asked }, time));
        }
        Ok(time)
    }

    fn event_mark(&self, event: CUevent) -> u64 {
        self.process().objects.events.with_mark(event.0, Mark::look).unwrap_or(OTHERS_RECORD)
    }

    fn event_is_complete(&self, event: CUevent, mark: u64) {
        self.process().objects.events.with_mark(event.0, |now| now.complete(mark));
    }

    fn ask_event(&mut self, event: CUevent) -> CuResult<()> {
        let mark = self.event_mark(event);
        if !(Mark::is_complete(mark) && may_know(self.process())) {
            self.call::<row::cuEventQuery>(&(event,), false)?;
            self.event_is_complete(event, mark);
        }
        self.deferred_error()
    }

    fn wait_for_event(&mut self, event: CUevent) -> CuResult<()> {
        let process = self.process();
        let mark = self.event_mark(event);
        let known = may_know(process) && !process.session.may_print();
        if known && Mark::is_complete(mark) {
            return self.deferred_error();
        }
        let now = process.session.last_ticket();
        let last = self.state.recorded.filter(|last| last.event == event && last.ticket == now);
        match last {
            // Nobody has sent anything since: the event is complete when its stream is idle, and the other way round.
            Some(Recorded { stream, .. }) if known && mark != OTHERS_RECORD => {
                if self.is_told(stream, None)? {
                    self.remember(key(stream));
                } else {
                    self.call::<row::cuEventSynchronize>(&(event,), false)?;
                }
            }
            _ => self.call::<row::cuEventSynchronize>(&(event,), false)?,
        }
        self.event_is_complete(event, mark);
        self.deferred_error()
    }
}

fn on_live<H: Handle>(handle: H, work: impl FnOnce(&mut Lane<'_>, H) -> CuResult<()>) -> CUresult {
    finish((|| {
        let process = crate::process::initialised()?;
        process.alive()?;
        process.objects.check(handle)?;
        gate::with_ring(|_, lane| work(lane, handle))
    })())
}

/// cuStreamSynchronize.
pub unsafe fn cuStreamSynchronize(stream: CUstream) -> CUresult {
    on_live(stream, |lane, stream| lane.wait_for_stream(stream))
}

/// cuStreamQuery.
pub unsafe fn cuStreamQuery(stream: CUstream) -> CUresult {
    on_live(stream, |lane, stream| lane.ask_stream(stream))
}

/// cuEventQuery.
pub unsafe fn cuEventQuery(event: CUevent) -> CUresult {
    on_live(event, |lane, event| lane.ask_event(event))
}

/// cuEventSynchronize.
pub unsafe fn cuEventSynchronize(event: CUevent) -> CUresult {
    on_live(event, |lane, event| lane.wait_for_event(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_complete_until_it_is_recorded_again() {
        let mark = Mark::default();
        assert!(!Mark::is_complete(mark.look()), "nobody has asked yet");
        let before = mark.look();
        mark.complete(before);
        assert!(Mark::is_complete(mark.look()));
        mark.recorded();
        assert!(!Mark::is_complete(mark.look()));
        let before = mark.look();
        mark.recorded();
        mark.complete(before);
        assert!(!Mark::is_complete(mark.look()), "the answer is to the recording before");
    }

    #[test]
    fn what_others_record_is_never_known() {
        let mark = Mark(AtomicU64::new(OTHERS_RECORD));
        mark.complete(mark.look());
        mark.recorded();
        assert_eq!(mark.look(), OTHERS_RECORD);
        assert!(!Mark::is_complete(mark.look()));
    }

    #[test]
    fn the_default_stream_has_one_key() {
        assert_eq!(key(STREAM_DEFAULT), key(STREAM_LEGACY));
    }
}
