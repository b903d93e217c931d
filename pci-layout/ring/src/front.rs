//! What a ring's thread may see of the other rings: who is in front, and who is in a call.

use std::sync::Arc;

use crate::atomics::{AtomicU64, Ordering, fence};
use crate::frame::{Found, check_head, find};
use crate::{Frame, FrameBuffer, Front, RingMemory};

/// How far a ring's host thread is. In the worker's own memory: the guest cannot forge it.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Frames before this position were taken.
    taken: AtomicU64,
    /// Ticket of the posted frame that was taken and not issued yet, or 0.
    in_call: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { taken: AtomicU64::new(0), in_call: AtomicU64::new(0) }
    }

    pub(crate) fn taken(&self, found: &Found) {
        // The ticket first: between the two stores the frame is seen twice, never missed.
        self.in_call.store(if found.front.waits() { 0 } else { found.front.ticket }, Ordering::Release);
        self.taken.store(found.next, Ordering::Release);
    }

    pub(crate) fn issued(&self) {
        self.in_call.store(0, Ordering::Release);
    }
}

/// Why a ring holds back a later ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// A posted call with an earlier ticket has been taken by its thread and has not returned. Its ticket.
    InCall(u64),
    /// A posted frame with an earlier ticket stands at the front.
    Queued(Front),
}

/// A read-only look at a ring's front, for the order rule: before a frame is handed to the executor, every posted
/// frame of the session's other rings with an earlier ticket must have been. Only each ring's next frame matters:
/// tickets rise within a ring, and nothing can stand behind a frame that the guest waits for.
///
/// It costs its user two or three loads of lines that change only with that ring's traffic, and its owner one store
/// per frame. It reads the guest's header a second time, apart from the owner's reading: a guest that changes it in
/// between harms the order of its own calls and nothing else. Whoever finds itself held back by a ring should also
/// see to it that the ring's thread is awake: its guest may be between publishing and kicking.
#[derive(Debug, Clone)]
pub struct FrontView {
    memory: RingMemory,
    progress: Arc<Progress>,
}

impl FrontView {
    pub(crate) fn new(memory: RingMemory, progress: Arc<Progress>) -> Self {
        Self { memory, progress }
    }

    /// True if frames (or nonsense) are published that the ring's thread has not taken: it must not sleep.
    pub fn has_data(&self) -> bool {
        self.memory.head().load(Ordering::Acquire) != self.progress.taken.load(Ordering::Acquire)
    }

    /// Where the first frame stands that the ring's thread has not taken.
    pub fn taken(&self) -> u64 {
        self.progress.taken.load(Ordering::Acquire)
    }

    /// What in this ring holds back a frame with `ticket`, if anything. A ring whose front makes no sense holds nobody
    /// back; its own thread reports it.
    pub fn blocks(&self, ticket: u64) -> Option<Blocking> {
        loop {
            let taken = self.progress.taken.load(Ordering::Acquire);
            let in_call = self.progress.in_call.load(Ordering::Acquire);
            if in_call != 0 && in_call < ticket {
                return Some(Blocking::InCall(in_call));
            }
            let found = self.found(taken);
            // The thread may have gone on, and the guest may have overwritten what was read.
            fence(Ordering::Acquire);
            if self.progress.taken.load(Ordering::Relaxed) == taken {
                let front = found?.front;
                return (!front.waits() && front.ticket < ticket).then_some(Blocking::Queued(front));
            }
        }
    }

    /// Copies the front frame, to ask whether another may overtake it. None: there is none (any more).
    pub fn copy_front<'b>(&self, buffer: &'b mut FrameBuffer) -> Option<Frame<'b>> {
        let taken = self.progress.taken.load(Ordering::Acquire);
        let found = self.found(taken)?;
        let frame = buffer.fill(&self.memory, &found).ok()?;
        fence(Ordering::Acquire);
        (self.progress.taken.load(Ordering::Relaxed) == taken).then_some(frame)
    }

    fn found(&self, taken: u64) -> Option<Found> {
        let head = self.memory.head().load(Ordering::Acquire);
        check_head(head, taken, taken).ok()?;
        find(&self.memory, taken, head, 0).ok()?
    }
}
