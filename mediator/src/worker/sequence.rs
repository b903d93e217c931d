//! The order of calls across the session's rings.
//!
//! A frame may be carried out once every *posted* frame of another ring with an earlier ticket has returned from its
//! call: to the guest's threads those calls are over. Merely having entered the call is not enough, since between
//! entering it and the driver's own lock a later call of another ring can overtake (an event recorded before the launch
//! it is to follow). A posted call can also block in the driver until a later one is carried out (a full launch queue
//! behind a wait); so after [`ORDER_ASK_AFTER`] the handler is asked whether this frame may go ahead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgpu_ring::Blocking;

use super::queue::FrameCopy;
use super::ring::{Ring, State};
use crate::counters::{RingCounters, count};
use crate::{CallHandler, Frame};

/// How long a frame waits for its turn before the handler is asked whether it may overtake.
pub const ORDER_ASK_AFTER: Duration = Duration::from_millis(2);

/// How long a waiting thread spins, and then only yields, before it sleeps between looks.
const SPIN: Duration = Duration::from_micros(20);
const YIELD: Duration = Duration::from_micros(200);
const SLEEP: Duration = Duration::from_micros(50);

/// What a ring remembers from turn to turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Ticket of the call in another ring that the last frame overtook: the next frame need not wait to ask.
    overtaken: Option<u64>,
}

impl Turn {
    /// Returns when `frame` may be carried out, and how long that took if it had to wait. If it has to, `before` is called first.
    pub(super) fn wait<H: CallHandler>(
        &mut self,
        ring: &Ring,
        state: &State<H>,
        frame: Frame<'_>,
        counters: &RingCounters,
        before: impl FnOnce(),
    ) -> Option<Duration> {
        let Some(mut blocking) = ring.blocked(frame.ticket) else {
            self.overtaken = None;
            return None;
        };
        count(&counters.order_waits);
        before();
        let start = Instant::now();
        let mut ask_at = ORDER_ASK_AFTER;
        if self.overtaken.is_some() && self.overtaken == in_call(&blocking) {
            ask_at = Duration::ZERO;
        }
        loop {
            let waited = start.elapsed();
            if waited >= ask_at {
                if let Some(blocked) = ring.blocked_frames(frame.ticket)
                    && !blocked.is_empty()
                    && ask(state, frame, &blocked)
                {
                    count(&counters.overtakes);
                    self.overtaken = in_call(&blocking);
                    return Some(start.elapsed());
                }
                ask_at = waited.saturating_add(ORDER_ASK_AFTER);
            }
            if waited < SPIN {
                std::hint::spin_loop();
            } else if waited < YIELD {
                std::thread::yield_now();
            } else {
                std::thread::sleep(SLEEP);
            }
            match ring.blocked(frame.ticket) {
                Some(still) => blocking = still,
                None => {
                    self.overtaken = None;
                    return Some(start.elapsed());
                }
            }
        }
    }
}

fn in_call(blocking: &Blocking) -> Option<u64> {
    match blocking {
        Blocking::InCall(ticket) => Some(*ticket),
        Blocking::Queued(_) => None,
    }
}

fn ask<H: CallHandler>(state: &State<H>, frame: Frame<'_>, blocked: &[FrameCopy]) -> bool {
    let frames: Vec<Frame<'_>> = blocked.iter().map(FrameCopy::frame).collect();
    state.handler.may_overtake(frame, &frames)
}

impl Ring {
    /// What in another ring holds back `ticket`, if anything. Its thread is woken if it has frames to take: its guest
    /// may be between publishing and kicking.
    fn blocked(&self, ticket: u64) -> Option<Blocking> {
        let peers = self.peers();
        let (ring, blocking) = peers.iter().find_map(|ring| Some((ring, ring.blocks(ticket)?)))?;
        if let Blocking::Queued(_) = blocking {
            ring.unpark_parked();
        }
        Some(blocking)
    }

    /// What in this ring holds back a later ticket of another.
    fn blocks(&self, ticket: u64) -> Option<Blocking> {
        // What is unsettled is looked for second: it is said before the call is said to have returned.
        self.view()
            .blocks(ticket)
            .or_else(|| self.unsettled().filter(|unsettled| *unsettled < ticket).map(Blocking::InCall))
    }

    /// Every posted frame of another ring that holds back `ticket`. None: it cannot be said.
    fn blocked_frames(&self, ticket: u64) -> Option<Vec<FrameCopy>> {
        let peers: Vec<Arc<Ring>> = self.peers().clone();
        let mut frames = Vec::new();
        for ring in &peers {
            if let Some(unsettled) = ring.unsettled().filter(|unsettled| *unsettled < ticket) {
                // Such calls are of one kind, and have been issued: the first of them stands for all.
                let copy = ring.unsettled_call().clone();
                if copy.ticket != unsettled {
                    return None;
                }
                frames.push(copy);
            }
            if let Some(Blocking::InCall(in_call)) = ring.view().blocks(ticket) {
                let copy = ring.in_call().clone();
                if copy.ticket != in_call {
                    return None;
                }
                frames.push(copy);
            }
            frames.extend(ring.words().posted_before(ring.view().taken(), ticket)?);
        }
        Some(frames)
    }
}
