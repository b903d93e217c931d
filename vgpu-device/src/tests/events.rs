//! Events: none lost, none for the wrong session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pci_layout::event::{DEATH_MALFORMED, DEATH_WORKER_LOST, EVENT_SESSION_DIED, EVENT_WAKE};

use super::fake::Guest;
use crate::{EventSink, SessionId};

#[derive(Default)]
struct Told(AtomicU32);

impl EventSink for Told {
    fn event_ready(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn id(session: u32) -> SessionId {
    SessionId::new(session).unwrap()
}

fn with_sessions(sessions: &[u32]) -> Guest {
    let guest = Guest::booted();
    for session in sessions {
        guest.open(*session);
    }
    guest
}

fn taken(guest: &Guest) -> Vec<(u32, u32, u32)> {
    let events = std::iter::from_fn(|| guest.device.events().take());
    events.map(|event| (event.kind, event.session, event.reason)).collect()
}

#[test]
fn wakes_coalesce_per_session() {
    let guest = with_sessions(&[0, 9]);
    for _ in 0..1000 {
        guest.device.wake(id(9));
        guest.device.wake(id(0));
    }
    assert_eq!(taken(&guest), [(EVENT_WAKE, 0, 0), (EVENT_WAKE, 9, 0)]);
    assert_eq!(guest.device.counters().wakes_coalesced, 1998);
    guest.device.wake(id(9));
    assert_eq!(taken(&guest), [(EVENT_WAKE, 9, 0)]);
}

#[test]
fn death_stays_until_it_is_taken_and_has_its_first_reason() {
    let guest = with_sessions(&[3]);
    guest.device.wake(id(3));
    guest.device.died(id(3), DEATH_MALFORMED);
    guest.device.died(id(3), DEATH_WORKER_LOST);
    guest.device.wake(id(3));
    assert_eq!(taken(&guest), [(EVENT_SESSION_DIED, 3, DEATH_MALFORMED)]);
    assert_eq!(taken(&guest), []);
}

#[test]
fn every_slot_can_die_with_no_buffer_posted() {
    let sessions: Vec<u32> = (0..128).collect();
    let guest = with_sessions(&sessions);
    for session in &sessions {
        guest.device.wake(id(*session));
        guest.device.died(id(*session), DEATH_WORKER_LOST);
    }
    let died: Vec<u32> = taken(&guest).into_iter().map(|(_, session, _)| session).collect();
    assert_eq!(died, sessions);
}

#[test]
fn nothing_is_told_about_sessions_that_are_not_there() {
    let guest = with_sessions(&[]);
    guest.device.wake(id(1));
    guest.device.died(id(1), DEATH_WORKER_LOST);
    assert_eq!(taken(&guest), []);
    assert_eq!(guest.device.counters().deaths, 0);
}

#[test]
fn events_of_a_closed_session_do_not_reach_the_next_of_that_slot() {
    let guest = with_sessions(&[1]);
    guest.device.died(id(1), DEATH_WORKER_LOST);
    guest.close(1);
    guest.open(1);
    assert_eq!(taken(&guest), []);
}

#[test]
fn slots_take_turns() {
    let guest = with_sessions(&[0, 1]);
    guest.device.wake(id(0));
    guest.device.wake(id(1));
    assert_eq!(guest.device.events().take().unwrap().session, 0);
    guest.device.wake(id(0));
    assert_eq!(guest.device.events().take().unwrap().session, 1, "0 had its turn");
    assert_eq!(guest.device.events().take().unwrap().session, 0);
}

#[test]
fn sink_is_told_of_each_event_and_of_those_that_waited_for_it() {
    let guest = with_sessions(&[0]);
    let told = Arc::new(Told::default());
    guest.device.events().set_sink(Some(told.clone()));
    assert_eq!(told.0.load(Ordering::Relaxed), 0);
    guest.device.wake(id(0));
    assert_eq!(told.0.load(Ordering::Relaxed), 1);
    let later = Arc::new(Told::default());
    guest.device.events().set_sink(Some(later.clone()));
    assert_eq!(later.0.load(Ordering::Relaxed), 1);
}

#[test]
fn reset_forgets_events() {
    let guest = with_sessions(&[0]);
    guest.device.died(id(0), DEATH_WORKER_LOST);
    guest.device.reset();
    assert_eq!(taken(&guest), []);
}
