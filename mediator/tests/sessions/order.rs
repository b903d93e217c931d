//! The order of calls across rings.

use std::time::{Duration, Instant};

use mediator::WakeKind;
use pci_layout::ring::{FRAME_BULK, FRAME_UNORDERED, FRAME_WAIT};
use vgpu_ring::WaitFor;

use crate::echo::call;
use crate::guest::{Guest, start_vm};

pub const TESTS: &[(&str, fn())] = &[
    ("earlier_posted_calls_go_first", earlier_posted_calls_go_first),
    ("many_threads_keep_the_order", many_threads_keep_the_order),
    ("waited_for_calls_hold_nobody_back", waited_for_calls_hold_nobody_back),
    ("unordered_calls_do_not_wait_for_their_turn", unordered_calls_do_not_wait_for_their_turn),
    ("a_blocked_posted_call_is_overtaken", a_blocked_posted_call_is_overtaken),
    ("what_may_not_overtake_waits", what_may_not_overtake_waits),
    ("what_is_not_over_is_before_all_that_is_later", what_is_not_over_is_before_all_that_is_later),
    ("what_is_not_over_is_overtaken", what_is_not_over_is_overtaken),
    ("what_is_not_over_can_fail", what_is_not_over_can_fail),
    ("bulk_frames_are_finished_when_they_are_over", bulk_frames_are_finished_when_they_are_over),
];

fn earlier_posted_calls_go_first() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    let mut expected = Vec::new();
    for round in 0..300 {
        // The first call is slow at times, so that the second thread would overtake if it could.
        let slow = if round % 50 == 0 { 3u64 } else { 0 };
        expected.push(if slow == 0 {
            one.post(call::RECORD, &[])
        } else {
            one.post(call::SLOW, &slow.to_le_bytes())
        });
        expected.push(one.post(call::RECORD, &[]));
        expected.push(two.post(call::RECORD, &[]));
        if round % 3 == 0 {
            let ticket = two.push(call::RECORD, FRAME_WAIT, &[]).expect("live");
            two.reply(ticket).expect("live");
            expected.push(ticket);
        }
    }
    let log = two.numbers(call::READ_LOG, &[]);
    assert_eq!(log, expected);
    assert!(vm.totals().order_waits > 0);
    assert_eq!(vm.totals().overtakes, 0);
}

fn many_threads_keep_the_order() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let order = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for index in 0..4 {
            let (guest, order) = (&guest, &order);
            scope.spawn(move || {
                let mut ring = guest.ring(index);
                for _ in 0..500 {
                    // What a lock between the guest's threads orders, the host keeps in order.
                    let mut order = order.lock().expect("lock");
                    order.push(ring.post(call::RECORD, &[]));
                }
                ring.call(call::ECHO, &[]);
            });
        }
    });
    let log = guest.ring(9).numbers(call::READ_LOG, &[]);
    assert_eq!(log.len(), 2000);
    assert_eq!(log, order.into_inner().expect("lock"));
}

/// A posted call that depends on no other ring's passes one that is stuck; an ordinary one behind it waits for both.
fn unordered_calls_do_not_wait_for_their_turn() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two, mut three) = (guest.ring(0), guest.ring(1), guest.ring(2));
    let stuck = one.post(call::BLOCK, &[]);
    let first = two.push(call::RECORD, FRAME_UNORDERED, &[]).expect("live");
    let second = two.push(call::RECORD, FRAME_UNORDERED, &[]).expect("live");
    let start = Instant::now();
    let log = loop {
        let log = three.log_out_of_turn();
        if log.len() == 3 {
            break log;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "only {log:?} of {stuck}, {first} and {second}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(log.iter().filter(|ticket| **ticket != stuck).collect::<Vec<_>>(), [&first, &second]);
    assert_eq!((vm.totals().order_waits, vm.totals().overtakes), (0, 0));
    let opened = three.push(call::OPEN_GATE, FRAME_WAIT | FRAME_UNORDERED, &[]).expect("live");
    three.reply(opened).expect("live");
    let last = two.post(call::RECORD, &[]);
    assert_eq!(two.numbers(call::READ_LOG, &[])[3..], [last]);
}

fn waited_for_calls_hold_nobody_back() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    let blocked = one.push(call::BLOCK, FRAME_WAIT, &[]).expect("live");
    let start = Instant::now();
    two.call(call::ECHO, &[]);
    two.call(call::OPEN_GATE, &[]);
    assert!(start.elapsed() < Duration::from_secs(5));
    one.reply(blocked).expect("live");
    assert_eq!((vm.totals().order_waits, vm.totals().overtakes), (0, 0));
}

fn a_blocked_posted_call_is_overtaken() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    let blocked = one.post(call::BLOCK, &[]);
    let behind: Vec<u64> = (0..3).map(|_| one.post(call::RECORD, &[])).collect();
    two.call(call::OPEN_GATE, &[]);
    // The handler was asked about the call that blocks and about every frame behind it.
    let overtaken = two.numbers(call::OVERTAKEN, &[]);
    let mut expected = vec![blocked, u64::from(call::BLOCK)];
    behind.iter().for_each(|ticket| expected.extend([*ticket, u64::from(call::RECORD)]));
    assert_eq!(overtaken, expected);
    assert_eq!(vm.totals().overtakes, 1);
    assert_eq!(two.numbers(call::READ_LOG, &[]), [vec![blocked], behind].concat());
}

fn what_may_not_overtake_waits() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two, mut three) = (guest.ring(0), guest.ring(1), guest.ring(2));
    let blocked = one.post(call::BLOCK, &[]);
    let held = two.post(call::RECORD, &[]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(vm.totals().calls, 0, "nothing has returned");
    three.call(call::OPEN_GATE, &[]);
    assert_eq!(three.numbers(call::READ_LOG, &[]), [blocked, held]);
}

/// Calls that have returned and are not over, of two rings in turn: everything comes in the order of the tickets, and nobody waits for
/// ever for another that waits for him.
fn what_is_not_over_is_before_all_that_is_later() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    let ms = 2u64.to_le_bytes();
    let mut expected = Vec::new();
    for round in 0..60 {
        expected.push(one.post(call::BEGIN, &ms));
        if round % 2 == 0 {
            expected.push(one.post(call::BEGIN, &ms));
        }
        expected.push(two.post(if round % 3 == 0 { call::RECORD } else { call::BEGIN }, &ms));
        if round % 5 == 0 {
            expected.push(one.post(call::RECORD, &[]));
        }
        if round % 7 == 0 {
            let ticket = two.push(call::BEGIN, FRAME_WAIT, &ms).expect("live");
            two.reply(ticket).expect("live");
            expected.push(ticket);
        }
    }
    assert_eq!(one.numbers(call::READ_LOG, &[]), expected);
    assert_eq!(vm.totals().overtakes, 0);
}

fn what_is_not_over_is_overtaken() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    let begun = [0; 3].map(|_| one.post(call::BEGIN, &0u64.to_le_bytes()));
    two.call(call::OPEN_GATE, &[]);
    assert_eq!(one.numbers(call::READ_LOG, &[]), begun);
}

fn what_is_not_over_can_fail() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut one = guest.ring(0);
    let waited = one.try_call(call::BEGIN_IN_VAIN, &7u64.to_le_bytes()).expect("live");
    assert_eq!(waited.0, 7);
    one.post(call::BEGIN_IN_VAIN, &8u64.to_le_bytes());
    one.call(call::ECHO, &[]);
    assert_eq!(one.producer.take_async_error(), Some((8, call::BEGIN_IN_VAIN)));
    assert_eq!(vm.totals().posted_errors, 1);
}

fn bulk_frames_are_finished_when_they_are_over() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    for _ in 0..3 {
        one.push(call::BEGIN, FRAME_BULK, &0u64.to_le_bytes()).expect("live");
    }
    // More than the worker keeps in mind, none of which is over.
    for _ in 0..200 {
        one.push(call::BEGIN, FRAME_BULK, &0u64.to_le_bytes()).expect("live");
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(one.producer.bulk_done(), 0, "nothing is over");
    two.call(call::OPEN_GATE, &[]);
    one.wait_for(WaitFor::Bulk(203)).expect("live");
    let last = one.push(call::BEGIN, FRAME_BULK | FRAME_WAIT, &1u64.to_le_bytes()).expect("live");
    one.reply(last).expect("live");
    one.wait_for(WaitFor::Bulk(204)).expect("live");
    assert_eq!(one.numbers(call::READ_LOG, &[]).len(), 204);
    assert_eq!(vm.totals().posted_errors, 0);
}
