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

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use cuda_api::calls::context::row::cuCtxSynchronize;
use cuda_api::calls::event::row;
use cuda_api::calls::stream::row::{self as stream_row, vgpuSignal};
use cuda_api::guest::finish;
use cuda_api::types::{CUcontext, CUevent, CUstream, Handle, STREAM_DEFAULT, STREAM_LEGACY};
use cuda_api::{CUresult, CuResult};
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

const EVERY: u64 = u64::MAX;

fn key(stream: CUstream) -> u64 {
    if stream == STREAM_DEFAULT { STREAM_LEGACY.0 } else { stream.0 }
}

/// Whether the worker's executor writes completion words.
static WORDS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const GIVEN: u8 = 1;
const REFUSED: u8 = 2;

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

    /// It was recorded. Said after the call was sent: who reads the new count sends what it asks behind that call.
    fn recorded(&self) {
        let next = |mark: u64| (mark != OTHERS_RECORD).then_some((mark | COMPLETE).wrapping_add(1));
        // `None` leaves it as it is.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
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

/// An event was recorded by a call that this thread has sent last.
#[inline]
pub fn recorded(event: CUevent, stream: CUstream) {
    let Ok(process) = crate::process::initialised() else { return };
    if capture::any() {
        // What a capture has recorded, its graph records.
        return others_record(event);
    }
    process.objects.events.with_mark(event.0, Mark::recorded);
    crate::thread::with(|state| {
        state.recorded = Some(Recorded { event, stream, ticket: state.sent.ticket });
    });
}

fn may_know(process: &Process) -> bool {
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

    /// Has the device tell, and looks until it does. False: the worker is to be asked.
    fn is_told(&mut self, stream: CUstream) -> CuResult<bool> {
        if WORDS.load(Ordering::Relaxed) == REFUSED || self.needs_context().is_err() {
            return Ok(false);
        }
        let session = &self.process().session;
        if session.may_print() || !self.ring()?.should_look() {
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
            self.send_posted::<vgpuSignal>(if own { FRAME_UNORDERED } else { 0 }, |ticket| (stream, ticket))?;
        let told = self.ring()?.look_for(ticket);
        if told {
            // Everything that this thread posted before has been issued, and more than that.
            self.state.unsettled.waited();
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
        if !(shortly && self.is_told(stream)?) {
            let start = Instant::now();
            self.call::<stream_row::cuStreamSynchronize>(&(stream,), false)?;
            self.ring()?.device_took(start.elapsed());
        }
        self.remember(key(stream));
        self.deferred_error()
    }

    fn ask_stream(&mut self, stream: CUstream) -> CuResult<()> {
        if !(may_know(self.process()) && self.is_over(stream)) {
            self.call::<stream_row::cuStreamQuery>(&(stream,), false)?;
            self.remember(key(stream));
        }
        self.deferred_error()
    }

    /// Waits for a context's work.
    ///
    /// # Errors
    /// cuCtxSynchronize's, or an earlier posted call's.
    pub fn wait_for_context(&mut self, ctx: CUcontext) -> CuResult<()> {
        let known = ctx.0 == self.context && may_know(self.process());
        let is_over = |over: Over| {
            let now = self.process().session.last_ticket();
            over.stream == EVERY && over.context == ctx.0 && over.ticket == now
        };
        if !(known && self.needs_context().is_ok() && self.state.over.is_some_and(is_over)) {
            self.call::<cuCtxSynchronize>(&(ctx,), false)?;
            if ctx.0 == self.context {
                self.remember(EVERY);
            }
        }
        self.deferred_error()
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
                if !self.is_told(stream)? {
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
