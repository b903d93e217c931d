//! Parking and waking, both kinds, and what goes to the guest beside replies.

use std::time::Duration;

use mediator::{Vm, WakeKind};
use pci_layout::ring::FRAME_WAIT;
use vgpu_ring::{SessionState, WaitFor};

use crate::echo::call;
use crate::guest::{Guest, start_vm};

pub const TESTS: &[(&str, fn())] = &[
    ("parked_sides_wake_each_other_by_event", || parked_sides_wake_each_other(WakeKind::Event)),
    ("parked_sides_wake_each_other_by_futex", || parked_sides_wake_each_other(WakeKind::Futex)),
    ("a_full_ring_wakes_its_guest", a_full_ring_wakes_its_guest),
    ("errors_of_posted_calls_are_told", errors_of_posted_calls_are_told),
    ("sticky_results_are_published", sticky_results_are_published),
    ("a_shared_kick_descriptor_is_left_alone", a_shared_kick_descriptor_is_left_alone),
];

fn kicks(vm: &Vm) -> u64 {
    vm.totals().kicks
}

fn parked_sides_wake_each_other(wake: WakeKind) {
    // Without polling, so that every call finds the host asleep.
    let (vm, kernel) = start_vm(|config| config.spin = Duration::ZERO);
    let guest = Guest::open(&vm, &kernel, 0, wake);
    let (mut one, mut two) = (guest.ring(0), guest.ring(200));
    (one.polls, two.polls) = (0, 0);
    for round in 0..200u64 {
        let ring = if round % 2 == 0 { &mut one } else { &mut two };
        // Long enough at times for the guest to be asleep, whatever else the machine does.
        let pause = if round % 10 == 0 { 30u64 } else { 0 };
        let ticket = ring.push(call::SLOW, FRAME_WAIT, &pause.to_le_bytes()).expect("live");
        ring.reply(ticket).expect("live");
        if round % 20 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let totals = vm.totals();
    assert!(totals.parks >= 10 && totals.wakes >= 10, "{totals:?}");
    match wake {
        WakeKind::Event => {
            assert!(kicks(&vm) >= 10 && kernel.wakes() >= 10, "{totals:?}, {} wakes", kernel.wakes());
        }
        WakeKind::Futex => assert_eq!((kicks(&vm), kernel.wakes()), (0, 0)),
    }
}

fn a_full_ring_wakes_its_guest() {
    for wake in [WakeKind::Event, WakeKind::Futex] {
        let (vm, kernel) = start_vm(|_| ());
        let guest = Guest::open(&vm, &kernel, 0, wake);
        let mut ring = guest.ring(0);
        ring.polls = 0;
        ring.post(call::SLOW, &500u64.to_le_bytes());
        // Five times the area, against a host that is slow at first: the guest has to sleep for space.
        for _ in 0..40 {
            ring.post(call::RECORD, &[0; 32 * 1024]);
        }
        assert_eq!(ring.numbers(call::READ_LOG, &[]).len(), 41);
        assert!(vm.totals().wakes >= 1, "{wake:?}");
    }
}

fn errors_of_posted_calls_are_told() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    assert_eq!(ring.producer.take_async_error(), None);
    for error in [719u64, 1, 0, 2] {
        ring.post(call::FAIL, &error.to_le_bytes());
    }
    ring.call(call::ECHO, &[]);
    assert_eq!(ring.producer.take_async_error(), Some((719, call::FAIL)), "the first one");
    assert_eq!(ring.producer.take_async_error(), None);
    assert_eq!(guest.session_page().posted_errors(), 3);
    assert_eq!(vm.totals().posted_errors, 3);
    // The result of a call that is waited for is no posted error.
    assert_eq!(ring.try_call(call::FAIL, &5u64.to_le_bytes()), Ok((5, vec![])));
    assert_eq!((ring.producer.take_async_error(), vm.totals().posted_errors), (None, 3));
    // More than are logged.
    for _ in 0..300 {
        ring.post(call::FAIL, &3u64.to_le_bytes());
    }
    ring.call(call::ECHO, &[]);
    assert_eq!(guest.session_page().posted_errors(), 303);
}

fn sticky_results_are_published() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    two.call(call::ECHO, &[]);
    assert_eq!(guest.state(), SessionState::Live);
    let ticket = one.push(call::STICKY, FRAME_WAIT, &700u64.to_le_bytes()).expect("live");
    one.wait_for(WaitFor::Reply(ticket)).expect("live");
    assert_eq!(guest.state(), SessionState::Sticky(700), "no later than the reply");
}

fn a_shared_kick_descriptor_is_left_alone() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Futex);
    // A guest can make its descriptor block and fill it: whoever kicked it then would hang.
    let kick = vm.kick_fd(0).expect("a descriptor");
    let flags = rustix::fs::fcntl_getfl(&kick).expect("flags");
    rustix::fs::fcntl_setfl(&kick, flags - rustix::fs::OFlags::NONBLOCK).expect("flags");
    for _ in 0..3 {
        vm.kick(0);
    }
    assert_eq!(kicks(&vm), 0);
    assert_eq!(guest.ring(0).call(call::ECHO, &[1; 8]), [1; 8]);
}
