//! What a VM may have: its account of device memory, and its quarantine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mediator::{QuarantineRule, Settings, Vm, WakeKind};
use pci_layout::regs;

use crate::echo::call;
use crate::guest::{Guest, GuestRing, Kernel, Memory, PATIENCE, open_request, start_vm, wait};

pub const TESTS: &[(&str, fn())] = &[
    ("the_processes_of_a_vm_share_its_quota", the_processes_of_a_vm_share_its_quota),
    ("a_dead_workers_memory_comes_back_to_the_account", a_dead_workers_memory_comes_back_to_the_account),
    ("a_vm_whose_sessions_fault_is_quarantined", a_vm_whose_sessions_fault_is_quarantined),
    (
        "a_device_error_is_a_fault_and_an_end_in_order_is_none",
        a_device_error_is_a_fault_and_an_end_in_order_is_none,
    ),
    ("an_administrator_quarantines_and_clears", an_administrator_quarantines_and_clears),
    ("calls_of_all_sessions_come_as_fast_as_they_may", calls_of_all_sessions_come_as_fast_as_they_may),
    ("calls_that_wait_hold_up_no_pause_and_no_end", calls_that_wait_hold_up_no_pause_and_no_end),
    ("a_guest_is_told_how_many_frames_may_wait", a_guest_is_told_how_many_frames_may_wait),
];

const DEVICE: u64 = 2;

fn takes(ring: &mut GuestRing<'_>, bytes: u64) -> bool {
    ring.numbers(call::TAKE, &[DEVICE, bytes]) == [1]
}

fn left(ring: &mut GuestRing<'_>) -> u64 {
    ring.numbers(call::LEFT, &[DEVICE])[0]
}

fn the_processes_of_a_vm_share_its_quota() {
    let (vm, kernel) = start_vm(|config| config.settings.vram_bytes = Some(100));
    let (one, two) =
        (Guest::open(&vm, &kernel, 0, WakeKind::Event), Guest::open(&vm, &kernel, 1, WakeKind::Event));
    let (mut a, mut b) = (one.ring(0), two.ring(0));
    assert!(takes(&mut a, 60) && !takes(&mut b, 41) && takes(&mut b, 40) && !takes(&mut a, 1));
    assert_eq!((left(&mut a), left(&mut b)), (0, 0));
    // For workers that run already, and for those to come.
    let settings = vm.settings();
    vm.change_settings(Settings { vram_bytes: Some(120), ..settings }).expect("good settings");
    assert_eq!((left(&mut a), left(&mut b)), (20, 20));
    let three = Guest::open(&vm, &kernel, 2, WakeKind::Event);
    let mut c = three.ring(0);
    assert!(!takes(&mut c, 21) && takes(&mut c, 20));
    // Less than there is in use: nobody gets more.
    vm.change_settings(Settings { vram_bytes: Some(50), ..settings }).expect("good settings");
    assert!(!takes(&mut a, 1) && !takes(&mut c, 1));
    assert_eq!(left(&mut c), 0);
    assert_eq!(vm.change_settings(Settings { vram_bytes: Some(0), ..settings }), Err("vram_bytes"));
    // An orderly end.
    one.close().expect("closed");
    two.close().expect("closed");
    assert_eq!(left(&mut c), 30);
}

fn a_dead_workers_memory_comes_back_to_the_account() {
    let (vm, kernel) = start_vm(|config| config.settings.vram_bytes = Some(100));
    let (one, two) =
        (Guest::open(&vm, &kernel, 0, WakeKind::Event), Guest::open(&vm, &kernel, 1, WakeKind::Event));
    let (mut a, mut b) = (one.ring(0), two.ring(0));
    assert!(takes(&mut a, 70) && takes(&mut b, 10));
    assert!(a.try_call(call::PANIC, &[]).is_err());
    assert!(kernel.wait_for_death(0).is_some(), "told after it was reaped");
    assert_eq!(left(&mut b), 90);
    // Once: its close gives nothing more back.
    one.close().expect("closed");
    assert!(takes(&mut b, 90) && !takes(&mut b, 1));
    drop((a, b));
    vm.reset();
    let again = Guest::open(&vm, &kernel, 3, WakeKind::Event);
    assert_eq!(left(&mut again.ring(0)), 100);
}

/// A session that faults, by this call.
fn fault(vm: &Arc<Vm>, kernel: &Arc<Kernel>, id: u32, call: u32) {
    let guest = Guest::open(vm, kernel, id, WakeKind::Event);
    let mut ring = guest.ring(0);
    assert!(ring.try_call(call, &[]).is_err());
    assert!(kernel.wait_for_death(id).is_some());
    guest.close().expect("closed");
}

fn is_refused(vm: &Arc<Vm>, id: u32) -> bool {
    let page = Memory::new(4096);
    let open = open_request(&page, WakeKind::Event);
    match wait(|done| vm.open_session(id, open, done)) {
        Ok(()) => {
            wait(|done| vm.close_session(id, done)).expect("closed");
            false
        }
        Err(error) => {
            assert_eq!(error.error, regs::ERROR_QUARANTINED);
            true
        }
    }
}

fn a_vm_whose_sessions_fault_is_quarantined() {
    let rule = QuarantineRule { faults: 2, within: Duration::from_secs(3600), lasts: None };
    let (vm, kernel) = start_vm(|config| config.settings.quarantine = rule);
    let other = Guest::open(&vm, &kernel, 9, WakeKind::Event);
    let mut ring = other.ring(0);
    fault(&vm, &kernel, 0, call::MALFORMED);
    fault(&vm, &kernel, 1, call::PANIC);
    assert!(!is_refused(&vm, 2) && vm.quarantined().is_none());
    fault(&vm, &kernel, 2, call::MALFORMED);
    let quarantine = vm.quarantined().expect("the third fault");
    assert_eq!((quarantine.faults, quarantine.by_hand, quarantine.until), (3, false, None));
    assert!(is_refused(&vm, 3));
    // A session that is open goes on.
    assert_eq!(ring.numbers(call::ECHO, &[7]), [7]);
    assert!(vm.clear_quarantine() && !vm.clear_quarantine());
    assert!(!is_refused(&vm, 3));
}

fn a_device_error_is_a_fault_and_an_end_in_order_is_none() {
    let rule = QuarantineRule { faults: 1, within: Duration::from_secs(3600), lasts: None };
    let (vm, kernel) = start_vm(|config| config.settings.quarantine = rule);
    for id in 0..4 {
        let guest = Guest::open(&vm, &kernel, id, WakeKind::Event);
        guest.ring(0).call(call::ECHO, &[0; 8]);
        guest.close().expect("closed");
    }
    // A session that has failed and goes on counts as soon as somebody asks, and once.
    let illegal_address = 700u64.to_le_bytes();
    let one = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    one.ring(0).call(call::STICKY, &illegal_address);
    assert!(!is_refused(&vm, 1));
    one.close().expect("closed");
    assert!(!is_refused(&vm, 1));
    let two = Guest::open(&vm, &kernel, 2, WakeKind::Event);
    two.ring(0).call(call::STICKY, &illegal_address);
    assert!(is_refused(&vm, 3));
    assert!(vm.clear_quarantine());
    assert!(!is_refused(&vm, 3));
}

fn an_administrator_quarantines_and_clears() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    assert!(!vm.clear_quarantine());
    vm.quarantine(None);
    assert!(is_refused(&vm, 1));
    let quarantine = vm.quarantined().expect("one");
    assert_eq!((quarantine.by_hand, quarantine.until, quarantine.faults), (true, None, 0));
    assert_eq!(guest.ring(0).numbers(call::ECHO, &[8]), [8]);
    assert!(vm.clear_quarantine());
    assert!(!is_refused(&vm, 1));
    // One that ends by itself.
    let (begin, lasts) = (Instant::now(), Duration::from_millis(100));
    vm.quarantine(Some(lasts));
    while is_refused(&vm, 1) {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begin.elapsed() >= lasts && vm.quarantined().is_none());
}

fn calls_of_all_sessions_come_as_fast_as_they_may() {
    const RATE: u32 = 200;
    const CALLS: u32 = 40;
    let (vm, kernel) = start_vm(|config| config.settings.calls_per_second = Some(RATE));
    let guests = [0, 1].map(|id| Guest::open(&vm, &kernel, id, WakeKind::Event));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for guest in &guests {
            scope.spawn(|| {
                let mut ring = guest.ring(0);
                (0..CALLS).for_each(|number| {
                    assert_eq!(ring.numbers(call::ECHO, &[number.into()]), [number.into()])
                });
            });
        }
    });
    // All but the first are due later, and come a tenth of a second early at most.
    let least = Duration::from_secs(1) * (2 * CALLS - 1) / RATE - Duration::from_millis(100);
    assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
}

fn calls_that_wait_hold_up_no_pause_and_no_end() {
    let slow = |config: &mut mediator::VmConfig| config.settings.calls_per_second = Some(1);
    let (vm, kernel) = start_vm(slow);
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    ring.numbers(call::ECHO, &[1]);
    for _ in 0..1000 {
        ring.post(call::RECORD, &[]);
    }
    // The second call is due in a second and the last one in a quarter of an hour.
    let begin = Instant::now();
    vm.stop();
    assert!(guest.state() == vgpu_ring::SessionState::Live && begin.elapsed() < Duration::from_secs(60));
    vm.resume();
    // Nothing is lost: what was claimed under the old limit is forgotten.
    vm.change_settings(Settings::default()).expect("good settings");
    assert_eq!(ring.numbers(call::READ_LOG, &[]).len(), 1000);

    vm.change_settings(Settings { calls_per_second: Some(1), ..vm.settings() }).expect("good settings");
    let mut other = guest.ring(1);
    for _ in 0..1000 {
        other.post(call::RECORD, &[]);
    }
    other.remove().expect("a ring that ends waits for nothing");
    vm.change_settings(Settings::default()).expect("good settings");
    assert_eq!(ring.numbers(call::READ_LOG, &[]).len(), 2000);
    assert_eq!(kernel.deaths(), 0);
}

fn a_guest_is_told_how_many_frames_may_wait() {
    let (vm, kernel) = start_vm(|config| config.settings.queue_depth = Some(2));
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    assert_eq!(guest.session_page().queue_depth(), 2);
    let (mut ring, mut other) = (guest.ring(0), guest.ring(1));
    ring.post(call::BLOCK, &[]);
    let end = ring.producer.position();
    // Taken, and not yet carried out: another one may wait in its place.
    let begin = Instant::now();
    while !ring.producer.has_taken(end) {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    other.call(call::OPEN_GATE, &[]);
    assert_eq!(ring.numbers(call::READ_LOG, &[]).len(), 1);
    vm.change_settings(Settings::default()).expect("good settings");
    ring.call(call::ECHO, &[]);
    assert_eq!(guest.session_page().queue_depth(), 0);
}
