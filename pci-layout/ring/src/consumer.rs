//! The host's end of a ring. The guest's side of the memory is hostile and changes under our eyes.

use std::sync::Arc;

use pci_layout::ring::{FRAME_AREA_BYTES, GUEST_WAITS_PROGRESS, GUEST_WAITS_SPACE, REPLY_AREA_BYTES};

use crate::atomics::{Ordering, fence};
use crate::frame::{Found, check_head, find};
use crate::front::Progress;
use crate::{Frame, FrameBuffer, Front, FrontView, RingError, RingMemory, SPACE_BYTES};

/// Reply data longer than the reply area. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reply of {len} bytes, more than {REPLY_AREA_BYTES}")]
pub struct ReplyTooLong {
    /// Its length in bytes.
    pub len: usize,
}

/// The host's end: takes frames, writes replies. Owned by the ring's host thread.
///
/// A round of that thread, with the order rule between rings ([`FrontView`]):
///
/// 1. [`peek`](Self::peek); nothing there: [`prepare_park`](Self::prepare_park), sleep, [`cancel_park`](Self::cancel_park).
/// 2. Wait until no other ring's [`FrontView::blocks`] the ticket.
/// 3. [`take`](Self::take) the frame, [`release`](Self::release) its space or keep it for a while, make the call.
/// 4. [`issued`](Self::issued); then, as the flags say, [`reply`](Self::reply), [`bulk_finished`](Self::bulk_finished).
///
/// Methods that may find the guest asleep return true if it has to be woken; its flag is taken then, so the caller must.
#[derive(Debug)]
pub struct Consumer {
    memory: RingMemory,
    progress: Arc<Progress>,
    /// Everything before this was taken; a frame or padding starts here.
    position: u64,
    /// `tail` as it was published last; nothing but our own word for it.
    tail: u64,
    /// The highest head that was read.
    head: u64,
    last_ticket: u64,
    /// The checked front, if `peek` found one: its header is not read again.
    front: Option<Found>,
    bulk_done: u64,
}

impl Consumer {
    /// The host's end of a new ring: position 0.
    pub fn new(memory: RingMemory) -> Self {
        Self {
            memory,
            progress: Arc::new(Progress::new()),
            position: 0,
            tail: 0,
            head: 0,
            last_ticket: 0,
            front: None,
            bulk_done: 0,
        }
    }

    /// The ring's memory.
    pub fn memory(&self) -> &RingMemory {
        &self.memory
    }

    /// What the other rings' threads may see of this ring.
    pub fn view(&self) -> FrontView {
        FrontView::new(self.memory.clone(), Arc::clone(&self.progress))
    }

    /// The next frame's header, without taking the frame. None: nothing is published.
    ///
    /// # Errors
    ///
    /// What the guest did wrong. The session is over then.
    pub fn peek(&mut self) -> Result<Option<Front>, RingError> {
        if self.front.is_none() {
            // Acquire: the frames before this head are as the guest wrote them (if it keeps the rules).
            let head = self.memory.head().load(Ordering::Acquire);
            check_head(head, self.head, self.tail)?;
            self.head = head;
            self.front = find(&self.memory, self.position, head, self.last_ticket)?;
        }
        Ok(self.front.map(|found| found.front))
    }

    /// Takes the next frame: copies it out, once. None: nothing is published.
    ///
    /// From here on the frame counts as in its call until [`Consumer::issued`].
    ///
    /// # Errors
    ///
    /// As for [`Consumer::peek`].
    pub fn take<'b>(&mut self, buffer: &'b mut FrameBuffer) -> Result<Option<Frame<'b>>, RingError> {
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let Some(found) = self.front.take() else { return Ok(None) };
        let frame = buffer.fill(&self.memory, &found)?;
        self.progress.taken(&found);
        self.position = found.next;
        self.last_ticket = found.front.ticket;
        Ok(Some(frame))
    }

    /// Says that the call of the frame taken last no longer holds back other rings.
    ///
    /// For posted frames: when the executor's call has returned. Saying so at its entry leaves a window, between here
    /// and the driver's own lock, in which a later call of another ring overtakes (a wait for an event before its
    /// record). A call that blocks in the driver is what [`Blocking::InCall`](crate::Blocking::InCall) is for.
    pub fn issued(&mut self) {
        self.progress.issued();
    }

    /// Bytes of frames that were taken and whose space was not given back yet.
    pub fn unreleased(&self) -> u64 {
        self.position.saturating_sub(self.tail)
    }

    /// Gives the space of the frames taken so far back to the guest. True: wake it, it sleeps for space.
    #[must_use = "true means that the guest sleeps and must be woken"]
    pub fn release(&mut self) -> bool {
        self.tail = self.position;
        // Release: the copying out is over before the guest may write there again.
        self.memory.tail().store(self.tail, Ordering::Release);
        fence(Ordering::SeqCst);
        // Padding and frames that are not taken yet count as used; a head that ran away is found by the next peek.
        let used = self.memory.head().load(Ordering::Relaxed).saturating_sub(self.tail);
        used <= u64::from(FRAME_AREA_BYTES).saturating_sub(SPACE_BYTES) && self.take_flag(GUEST_WAITS_SPACE)
    }

    /// Answers the frame with `ticket`. True: wake the guest, it sleeps for progress.
    ///
    /// # Errors
    ///
    /// [`ReplyTooLong`]: the caller's data does not fit; nothing is answered.
    pub fn reply(&mut self, ticket: u64, result: u32, data: &[u8]) -> Result<bool, ReplyTooLong> {
        let too_long = ReplyTooLong { len: data.len() };
        let len = u32::try_from(data.len()).map_err(|_| too_long)?;
        if !self.memory.write_reply(data) {
            return Err(too_long);
        }
        self.memory.reply_body().store(u64::from(len) << 32 | u64::from(result), Ordering::Relaxed);
        // Release: who sees the ticket sees result, length and data.
        self.memory.reply_ticket().store(ticket, Ordering::Release);
        Ok(self.take_guest_parked(GUEST_WAITS_PROGRESS))
    }

    /// Counts one more finished bulk frame: its part of the staging buffer is not touched any more. True: wake the
    /// guest, it sleeps for progress.
    #[must_use = "true means that the guest sleeps and must be woken"]
    pub fn bulk_finished(&mut self) -> bool {
        self.bulk_done = self.bulk_done.saturating_add(1);
        self.memory.bulk_done().store(self.bulk_done, Ordering::Release);
        self.take_guest_parked(GUEST_WAITS_PROGRESS)
    }

    /// Leaves the error of a posted call for the guest's thread, unless an earlier one still lies there.
    pub fn post_error(&mut self, result: u32, call: u32) {
        let error = u64::from(call) << 32 | u64::from(result);
        // Losing is the rule, not a failure: the first error is the one that is told.
        let _ = self.memory.async_error().compare_exchange(0, error, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Announces a sleep. True: sleep until somebody saw that the ring has data ([`FrontView::has_data`]) after a
    /// kick. False: data has come meanwhile, and the announcement is withdrawn.
    #[must_use]
    pub fn prepare_park(&mut self) -> bool {
        self.memory.host_parked().store(1, Ordering::Relaxed);
        // The other half is in `FrameWriter::publish`.
        fence(Ordering::SeqCst);
        if self.front.is_some() || self.memory.head().load(Ordering::Relaxed) != self.position {
            self.cancel_park();
            return false;
        }
        true
    }

    /// Ends a sleep, or the announcement of one.
    pub fn cancel_park(&mut self) {
        self.memory.host_parked().store(0, Ordering::Relaxed);
    }

    /// True if the guest sleeps for `kind` (a `GUEST_WAITS_` value): its flag is taken, so the caller must wake it.
    /// Complete with the fence that orders it after what was published before.
    #[must_use = "true means that the guest sleeps and must be woken"]
    pub fn take_guest_parked(&mut self, kind: u32) -> bool {
        // The other half is in `Producer::prepare_wait`.
        fence(Ordering::SeqCst);
        self.take_flag(kind)
    }

    fn take_flag(&mut self, kind: u32) -> bool {
        let parked = self.memory.guest_parked();
        parked.load(Ordering::Relaxed) == kind
            && parked.compare_exchange(kind, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
