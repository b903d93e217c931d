//! How far the devices have come: marks behind all the work that a device has been given, for whoever shares out its time, and the
//! question whether it has any.
//!
//! A mark is an event in each of the device's contexts, behind all their streams (cuCtxRecordEvent). It would end captures, so none is set
//! while something is captured, and no capture begins while one is being set: [`Marks::apart`].

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::Cuda;
use crate::context::Context;
use crate::driver::Raw;
use crate::graphs::STATUS_NONE;
use crate::lock::{lock, read};
use crate::objects::Event;
use crate::thread::{STREAM_LEGACY, relax};

/// CU_EVENT_DISABLE_TIMING.
const DISABLE_TIMING: u32 = 2;
/// Events that are kept for further marks.
const SPARE_MAX: usize = 64;
/// Streams that are asked one by one: a session with more of them is taken to be busy while the first of them are.
const ASKED_MAX: usize = 256;

/// A mark that has not passed.
struct Mark {
    number: u64,
    device: usize,
    events: Vec<Event>,
}

#[derive(Default)]
struct State {
    next: u64,
    marks: VecDeque<Mark>,
    spare: Vec<Event>,
}

/// A session's marks.
#[derive(Default)]
pub(crate) struct Marks(Mutex<State>);

/// While it is held, nothing is asked that a capture would not survive.
pub(crate) struct Apart<'a>(#[allow(dead_code)] MutexGuard<'a, State>);

impl Marks {
    pub(crate) fn apart(&self) -> Apart<'_> {
        Apart(lock(&self.0))
    }
}

impl State {
    /// An event of the context's: one that is left over, or a new one.
    fn event(&mut self, context: &Arc<Context>) -> CuResult<Event> {
        self.spare.retain(|event| event.context.alive());
        if let Some(at) = self.spare.iter().position(|event| Arc::ptr_eq(&event.context, context)) {
            return Ok(self.spare.swap_remove(at));
        }
        let (raw,) = context.with(|| context.driver.cuEventCreate(DISABLE_TIMING))?;
        Ok(Event { raw, context: context.clone() })
    }
}

impl Cuda {
    fn contexts_of(&self, device: usize) -> Vec<Arc<Context>> {
        let mut contexts = read(&self.contexts).all();
        contexts.retain(|context| {
            context.alive() && context.owner.is_none() && usize::try_from(context.device) == Ok(device)
        });
        contexts
    }

    /// See [`cuda_api::host::Executor::mark`].
    pub(crate) fn set_mark(&self, device: usize) -> Option<u64> {
        let state = &mut *lock(&self.marks.0);
        if self.captures.load(Ordering::Acquire) != 0 {
            return None;
        }
        let mut events = Vec::new();
        // A lost device has no work any more.
        if self.driver.sticky() == 0 {
            for context in self.contexts_of(device) {
                let event = state.event(&context).ok()?;
                match self.driver.cuCtxRecordEvent(context.raw, event.raw) {
                    Ok(()) => events.push(event),
                    // The context is going, or something is wrong that the next call of the guest's hears of.
                    Err(error) => log::debug!("a context is not marked: {error}"),
                }
            }
        }
        state.next = state.next.wrapping_add(1);
        state.marks.push_back(Mark { number: state.next, device, events });
        Some(state.next)
    }

    /// See [`cuda_api::host::Executor::passed`].
    pub(crate) fn mark_passed(&self, device: usize, number: u64) -> bool {
        let state = &mut *lock(&self.marks.0);
        loop {
            let Some(at) = state.marks.iter().position(|mark| mark.device == device) else { return true };
            let Some(mark) = state.marks.get(at).filter(|mark| mark.number <= number) else { return true };
            let pending = |event: &Event| {
                event.context.alive() && self.driver.cuEventQuery(event.raw) == Err(CUresult::NOT_READY)
            };
            if mark.events.iter().any(pending) {
                return false;
            }
            if let Some(mark) = state.marks.remove(at) {
                let room = SPARE_MAX.saturating_sub(state.spare.len());
                state.spare.extend(mark.events.into_iter().take(room));
            }
        }
    }

    /// See [`cuda_api::host::Executor::is_busy`]. Per-thread default streams are their threads' own: nobody else can ask for them.
    pub(crate) fn has_work(&self, device: usize) -> bool {
        if self.driver.sticky() != 0 {
            return false;
        }
        let _apart = lock(&self.marks.0);
        let captures = self.captures.load(Ordering::Acquire) != 0;
        if captures {
            // Whoever asks is no ring's thread: in the GLOBAL mode even a question about another stream ends a capture.
            relax(self.driver);
        }
        let is_busy = |stream: Raw| self.driver.cuStreamQuery(stream) == Err(CUresult::NOT_READY);
        let asked = |stream: Raw| {
            let captured =
                || self.driver.cuStreamIsCapturing(stream).map_or(true, |(status,)| status != STATUS_NONE);
            if captures && captured() { false } else { is_busy(stream) }
        };
        self.contexts_of(device).iter().any(|context| {
            let streams = self.streams.some(ASKED_MAX, |stream| Arc::ptr_eq(&stream.context, context));
            let busy = context.with(|| {
                // Asking for the legacy stream is asking for all that block it.
                Ok((!captures && is_busy(STREAM_LEGACY)) || streams.iter().any(|stream| asked(stream.raw)))
            });
            busy.unwrap_or(false)
        })
    }
}
