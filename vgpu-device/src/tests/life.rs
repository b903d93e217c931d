//! The life of sessions, rings and regions; kicks; boots and resets.

use pci_layout::control::{self, PART_RING, PART_STAGING, Run};
use pci_layout::event::DEATH_WORKER_LOST;
use pci_layout::regs::{ERROR_INVALID_REQUEST, ERROR_NONE, ERROR_QUEUE_FULL, ERROR_TIMEOUT};

use super::fake::{Asked, Guest, message, open_body, parse};
use crate::{SessionError, SessionId};

fn page(gpa: u64) -> [Run; 1] {
    [Run { gpa, len: 4096 }]
}

fn fail(guest: &Guest, error: Option<u32>) {
    *guest.fake.fail_with.lock().unwrap() = error.map(SessionError::new);
}

#[test]
fn slot_is_taken_until_it_is_closed() {
    let guest = Guest::booted();
    assert_eq!(guest.open(0).error, ERROR_NONE);
    assert_eq!(guest.open(0).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.device.sessions_open(), 1);
    assert_eq!(guest.close(0).error, ERROR_NONE);
    assert_eq!(guest.close(0).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.open(0).error, ERROR_NONE);
}

#[test]
fn slots_above_the_vms_limit_are_refused() {
    let guest = Guest::booted();
    assert_eq!(guest.open(127).error, ERROR_NONE);
    assert_eq!(guest.open(128).error, ERROR_QUEUE_FULL);
}

#[test]
fn session_that_failed_to_open_leaves_its_slot_free() {
    let guest = Guest::booted();
    fail(&guest, Some(ERROR_TIMEOUT));
    assert_eq!(guest.open(0).error, ERROR_TIMEOUT);
    fail(&guest, None);
    assert_eq!(guest.device.sessions_open(), 0);
    assert_eq!(guest.open(0).error, ERROR_NONE);
}

#[test]
fn session_that_cannot_be_closed_keeps_its_slot() {
    let guest = Guest::booted();
    guest.open(0);
    fail(&guest, Some(ERROR_TIMEOUT));
    assert_eq!(guest.close(0).error, ERROR_TIMEOUT);
    fail(&guest, None);
    assert_eq!(guest.open(0).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.close(0).error, ERROR_NONE, "it may be tried again");
}

#[test]
fn requests_about_sessions_that_are_not_there_are_refused() {
    let guest = Guest::booted();
    guest.open(1);
    guest.fake.take();
    for session in [0, 2] {
        assert_eq!(guest.add_part(session, 0, PART_RING).error, ERROR_INVALID_REQUEST);
        assert_eq!(guest.map(session, 0, 0x1000, &page(0)).error, ERROR_INVALID_REQUEST);
        assert_eq!(guest.ask(control::REMOVE_RING, session, &[0; 8]).error, ERROR_INVALID_REQUEST);
        assert_eq!(guest.ask(control::UNMAP_REGION, session, &[0; 8]).error, ERROR_INVALID_REQUEST);
        assert_eq!(guest.close(session).error, ERROR_INVALID_REQUEST);
    }
    assert_eq!(guest.fake.take(), []);
}

#[test]
fn session_being_opened_can_be_closed_but_not_used() {
    let guest = Guest::booted();
    *guest.fake.hold.lock().unwrap() = true;
    let opening = guest.send(&message(control::OPEN_SESSION, 1, 0, &open_body(b"")), 4096);
    assert_eq!(guest.add_part(0, 0, PART_RING).error, ERROR_INVALID_REQUEST);
    let closing = guest.send(&message(control::CLOSE_SESSION, 2, 0, &[0; 8]), 4096);
    guest.fake.release()(Err(SessionError::new(ERROR_TIMEOUT)));
    assert_eq!(parse(&opening.try_recv().unwrap()).error, ERROR_TIMEOUT);
    assert_eq!(guest.device.sessions_open(), 1, "the close is still to come");
    guest.fake.release()(Ok(()));
    assert_eq!(parse(&closing.try_recv().unwrap()).error, ERROR_NONE);
    assert_eq!(guest.device.sessions_open(), 0);
}

#[test]
fn ring_comes_before_its_staging_buffer_and_each_once() {
    let guest = Guest::booted();
    guest.open(0);
    assert_eq!(guest.add_part(0, 5, PART_STAGING).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.add_part(0, 5, PART_RING).error, ERROR_NONE);
    assert_eq!(guest.add_part(0, 5, PART_RING).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.add_part(0, 5, PART_STAGING).error, ERROR_NONE);
    assert_eq!(guest.add_part(0, 5, PART_STAGING).error, ERROR_INVALID_REQUEST);
    let remove = |ring: u32| guest.ask(control::REMOVE_RING, 0, &[ring.to_le_bytes(), [0; 4]].concat()).error;
    assert_eq!(remove(4), ERROR_INVALID_REQUEST);
    assert_eq!(remove(5), ERROR_NONE);
    assert_eq!(remove(5), ERROR_INVALID_REQUEST);
    assert_eq!(guest.add_part(0, 5, PART_RING).error, ERROR_NONE);
}

#[test]
fn parts_that_failed_can_be_tried_again() {
    let guest = Guest::booted();
    guest.open(0);
    fail(&guest, Some(ERROR_TIMEOUT));
    assert_eq!(guest.add_part(0, 5, PART_RING).error, ERROR_TIMEOUT);
    fail(&guest, None);
    assert_eq!(guest.add_part(0, 5, PART_RING).error, ERROR_NONE);
    fail(&guest, Some(ERROR_TIMEOUT));
    assert_eq!(guest.add_part(0, 5, PART_STAGING).error, ERROR_TIMEOUT);
    fail(&guest, None);
    assert_eq!(guest.add_part(0, 5, PART_STAGING).error, ERROR_NONE);
}

#[test]
fn region_grows_only_at_its_end_and_with_the_same_rights() {
    let guest = Guest::booted();
    guest.open(0);
    assert_eq!(guest.map(0, 1, 0x10_0000, &page(0x1000)).error, ERROR_NONE);
    assert_eq!(guest.map(0, 1, 0x10_2000, &page(0x1000)).error, ERROR_INVALID_REQUEST, "a gap");
    assert_eq!(guest.map(0, 1, 0x10_0000, &page(0x1000)).error, ERROR_INVALID_REQUEST, "twice");
    assert_eq!(guest.map(0, 1, 0x10_1000, &page(0x1000)).error, ERROR_NONE);
    let read_only = super::fake::map_body(1, control::MAP_READ_ONLY, 0x10_2000, &page(0x1000));
    assert_eq!(guest.ask(control::MAP_REGION, 0, &read_only).error, ERROR_INVALID_REQUEST);
    let region = [1u32.to_le_bytes(), [0; 4]].concat();
    assert_eq!(guest.ask(control::UNMAP_REGION, 0, &region).error, ERROR_NONE);
    assert_eq!(guest.ask(control::UNMAP_REGION, 0, &region).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.map(0, 1, 0x20_0000, &page(0x1000)).error, ERROR_NONE, "the number is free again");
}

#[test]
fn dead_session_is_still_to_be_closed() {
    let guest = Guest::booted();
    guest.open(0);
    guest.device.died(SessionId::new(0).unwrap(), DEATH_WORKER_LOST);
    assert_eq!(guest.open(0).error, ERROR_INVALID_REQUEST);
    assert_eq!(guest.close(0).error, ERROR_NONE);
    assert_eq!(guest.open(0).error, ERROR_NONE);
}

#[test]
fn kick_passes_the_pending_bits_of_live_sessions_on() {
    let guest = Guest::booted();
    for session in [0, 63, 64, 127] {
        guest.open(session);
    }
    guest.fake.take();
    for session in [0, 1, 64, 127, 255] {
        guest.memory.pending.set(session);
    }
    guest.device.kick();
    assert_eq!(guest.fake.take(), [Asked::Kick(0), Asked::Kick(64), Asked::Kick(127)]);
    guest.device.kick();
    assert_eq!(guest.fake.take(), [], "the bits were taken");
    assert_eq!(guest.device.counters().session_kicks, 3);
}

#[test]
fn hello_of_another_boot_ends_all_sessions_before_it_is_answered() {
    let guest = Guest::booted();
    guest.open(0);
    guest.open(1);
    guest.fake.take();
    assert_eq!(guest.hello(1).error, ERROR_NONE);
    assert_eq!(guest.device.sessions_open(), 2, "the same boot");
    assert_eq!(guest.hello(2).error, ERROR_NONE);
    assert_eq!(guest.fake.take(), [Asked::Reset]);
    assert_eq!(guest.device.sessions_open(), 0);
    assert_eq!(guest.open(0).error, ERROR_NONE);
}

#[test]
fn reset_forgets_the_driver_and_operations_under_way() {
    let guest = Guest::booted();
    *guest.fake.hold.lock().unwrap() = true;
    let opening = guest.send(&message(control::OPEN_SESSION, 1, 0, &open_body(b"")), 4096);
    guest.device.reset();
    assert_ne!(parse(&opening.try_recv().unwrap()).error, ERROR_NONE);
    *guest.fake.hold.lock().unwrap() = false;
    assert_eq!(guest.open(0).error, ERROR_INVALID_REQUEST, "no HELLO since");
    assert_eq!(guest.hello(1).error, ERROR_NONE);
    assert_eq!(guest.open(0).error, ERROR_NONE);
    guest.memory.pending.set(0);
    guest.device.kick();
    assert!(guest.fake.take().contains(&Asked::Kick(0)));
}

#[test]
fn operation_of_an_earlier_life_does_not_touch_the_slots_next_session() {
    let guest = Guest::booted();
    guest.open(0);
    *guest.fake.hold.lock().unwrap() = true;
    let closing = guest.send(&message(control::CLOSE_SESSION, 1, 0, &[0; 8]), 4096);
    // Held back beyond the reset, as a thread that is late would.
    let late = guest.fake.release();
    guest.device.reset();
    *guest.fake.hold.lock().unwrap() = false;
    guest.hello(2);
    guest.open(0);
    late(Ok(()));
    assert_eq!(parse(&closing.try_recv().unwrap()).error, ERROR_NONE);
    assert_eq!(guest.device.sessions_open(), 1);
    assert_eq!(guest.open(0).error, ERROR_INVALID_REQUEST, "the slot is taken by the new session");
}

#[test]
fn reset_of_a_device_without_sessions_disturbs_nobody() {
    let guest = Guest::booted();
    guest.device.reset();
    assert_eq!(guest.fake.take(), []);
}
