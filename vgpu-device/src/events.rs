//! Events towards the guest: a queue that cannot overflow, because all it holds is a wake bit and a death reason per
//! session slot. Wakes of a session coalesce; a death is kept until a buffer took it or the session was closed.

use std::sync::{Arc, Mutex, MutexGuard};

use pci_layout::control::SESSIONS_MAX;
use pci_layout::event::{EVENT_SESSION_DIED, EVENT_WAKE, Event};

use crate::counters::Counters;
use crate::ids::SessionId;

/// The front's side of the event queue.
pub trait EventSink: Send + Sync {
    /// There is an event to take ([`EventQueue::take`]). Called from any thread, with no lock of the device held.
    fn event_ready(&self);
}

/// The events that wait for a buffer.
pub struct EventQueue {
    state: Mutex<State>,
    counters: Arc<Counters>,
}

struct State {
    slots: [Slot; SESSIONS_MAX as usize],
    /// Where the next search begins: slots are served in turn.
    next: usize,
    sink: Option<Arc<dyn EventSink>>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    wake: bool,
    death: Option<u32>,
}

impl EventQueue {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        let slots = [Slot::default(); SESSIONS_MAX as usize];
        Self { state: Mutex::new(State { slots, next: 0, sink: None }), counters }
    }

    /// Names who takes events from now on, and tells it at once if some wait already.
    pub fn set_sink(&self, sink: Option<Arc<dyn EventSink>>) {
        let ready = {
            let mut state = self.lock();
            state.sink = sink;
            if state.slots.iter().any(Slot::is_pending) { state.sink.clone() } else { None }
        };
        if let Some(sink) = ready {
            sink.event_ready();
        }
    }

    /// The next event, deaths of a slot before its wakes; `None` when nothing waits.
    pub fn take(&self) -> Option<Event> {
        let mut state = self.lock();
        let start = state.next.min(SESSIONS_MAX as usize);
        let state = &mut *state;
        let (before, after) = state.slots.split_at_mut_checked(start)?;
        let turn = after.iter_mut().zip(start..).chain(before.iter_mut().zip(0..));
        for (slot, index) in turn {
            let session = u32::try_from(index).unwrap_or(u32::MAX);
            let event = match slot {
                Slot { death: Some(reason), .. } => {
                    let reason = *reason;
                    // Everybody who waits for the session is woken by its death: a wake has nothing to add.
                    *slot = Slot::default();
                    Event { kind: EVENT_SESSION_DIED, session, reason, reserved: [0; 5] }
                }
                Slot { wake: true, .. } => {
                    slot.wake = false;
                    Event { kind: EVENT_WAKE, session, reason: 0, reserved: [0; 5] }
                }
                _ => continue,
            };
            state.next = index.saturating_add(1);
            self.counters.events.count();
            return Some(event);
        }
        None
    }

    /// Whether an event waits for a buffer.
    pub fn is_pending(&self) -> bool {
        self.lock().slots.iter().any(Slot::is_pending)
    }

    /// Queues a wake; [`Self::notify`] is to follow once no lock is held.
    pub(crate) fn put_wake(&self, session: SessionId) {
        self.counters.wakes.count();
        self.set(session, |slot, counters| {
            if slot.wake {
                counters.wakes_coalesced.count();
            }
            slot.wake = true;
        });
    }

    /// Queues a death; [`Self::notify`] is to follow once no lock is held.
    pub(crate) fn put_death(&self, session: SessionId, reason: u32) {
        self.counters.deaths.count();
        // The first reason is the cause.
        self.set(session, |slot, _| slot.death = slot.death.or(Some(reason)));
    }

    /// Forgets the events of a slot: its session is closed, and the next one of that number shall not hear of them.
    pub(crate) fn forget(&self, session: SessionId) {
        if let Some(slot) = self.lock().slots.get_mut(session.index()) {
            *slot = Slot::default();
        }
    }

    pub(crate) fn forget_all(&self) {
        self.lock().slots.fill(Slot::default());
    }

    /// Tells the front that there is something to take.
    pub(crate) fn notify(&self) {
        let sink = self.lock().sink.clone();
        if let Some(sink) = sink {
            sink.event_ready();
        }
    }

    fn set(&self, session: SessionId, change: impl FnOnce(&mut Slot, &Counters)) {
        if let Some(slot) = self.lock().slots.get_mut(session.index()) {
            change(slot, &self.counters);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain stores only: nothing is left half done by a holder that panicked.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Slot {
    fn is_pending(&self) -> bool {
        self.wake || self.death.is_some()
    }
}
