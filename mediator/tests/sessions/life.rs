//! Opening, closing, dying, resetting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuda_api::live::Live;
use mediator::{Events, ExecutorKind, StartError, Vm, VmConfig, WakeKind};
use pci_layout::ring::FRAME_WAIT;
use pci_layout::{control, event, regs, ring};
use rustix::process::{Pid, Signal};
use vgpu_ring::SessionState;

use crate::echo::{self, FINGERPRINT, READABLE, call};
use crate::guest::{Dead, Guest, Kernel, Memory, begin, error, open_request, start_vm, wait};

pub const TESTS: &[(&str, fn())] = &[
    ("the_probe_is_told", the_probe_is_told),
    ("what_sessions_have_is_told", what_sessions_have_is_told),
    ("devices_are_read_by_a_process_of_its_own", devices_are_read_by_a_process_of_its_own),
    ("a_failed_probe_is_an_error", a_failed_probe_is_an_error),
    ("open_call_close", open_call_close),
    ("two_sessions_are_two_processes", two_sessions_are_two_processes),
    ("bad_requests_are_refused", bad_requests_are_refused),
    ("a_refused_session_frees_its_slot", a_refused_session_frees_its_slot),
    ("an_opening_that_hangs_times_out", an_opening_that_hangs_times_out),
    ("a_killed_worker_ends_its_session_only", a_killed_worker_ends_its_session_only),
    ("closing_with_a_stuck_call", closing_with_a_stuck_call),
    ("closing_with_a_stopped_worker", closing_with_a_stopped_worker),
    ("closing_while_an_order_is_stuck", closing_while_an_order_is_stuck),
    ("closing_while_opening", closing_while_opening),
    ("removing_a_stuck_ring_kills", removing_a_stuck_ring_kills),
    ("a_removed_ring_is_drained", a_removed_ring_is_drained),
    ("reset_empties_the_table", reset_empties_the_table),
    ("dropping_the_vm_ends_sessions", dropping_the_vm_ends_sessions),
    ("descriptors_and_children_do_not_leak", descriptors_and_children_do_not_leak),
    ("a_worker_is_confined", a_worker_is_confined),
    ("stop_holds_dispatch", stop_holds_dispatch),
    ("a_call_that_waits_for_the_guest_holds_up_no_stop", a_call_that_waits_for_the_guest_holds_up_no_stop),
    ("stop_waits_for_calls_at_most_its_limit", stop_waits_for_calls_at_most_its_limit),
];

fn the_probe_is_told() {
    let (vm, _) = start_vm(|_| ());
    assert!(*vm.info() == *echo::info().encode() && vm.info().len() > 200_000);
    assert_eq!(vm.capabilities(), regs::CAP_MAP_GUEST_PAGES);
    assert_eq!((vm.device_count(), vm.fingerprint()), (3, FINGERPRINT));
}

fn live_of(vm: &Vm) -> Live {
    let blob = vm.live_info(true);
    let words: Vec<u64> = blob.chunks(8).map(|w| u64::from_ne_bytes(w.try_into().expect("words"))).collect();
    // SAFETY: as many bytes as the words have.
    let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8) };
    Live::decode(bytes).expect("live information")
}

fn what_sessions_have_is_told() {
    let (vm, kernel) = start_vm(|_| ());
    assert_eq!(live_of(&vm).sessions, []);
    let guest = Guest::open(&vm, &kernel, 5, WakeKind::Event);
    guest.ring(0).call(call::ECHO, &[]);
    let told = live_of(&vm);
    assert_eq!((told.readings, told.pending), (None, false));
    let bytes: Vec<_> = told.sessions.iter().map(|session| session.device_bytes.clone()).collect();
    assert_eq!(bytes, [[0, 4096, 0]]);
    // Another part of the same.
    assert_eq!(vm.live_info(false), vm.live_info(false));
    assert_ne!(live_of(&vm).number, told.number);
    guest.close().expect("close");
    assert_eq!(live_of(&vm).sessions, []);
}

/// Questions set readings off and do not wait for them; the reader's end is nobody else's.
fn devices_are_read_by_a_process_of_its_own() {
    let (vm, kernel) = start_vm(|config| config.vm_id = READABLE);
    let mut seen = Vec::new();
    let begin = Instant::now();
    assert!(live_of(&vm).pending);
    while seen.len() < 3 && begin.elapsed() < Duration::from_secs(20) {
        if let Some(readings) = live_of(&vm).readings
            && seen.last() != Some(&readings.devices[0][&7])
        {
            assert_eq!(readings.release, "1.2");
            seen.push(readings.devices[0][&7]);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(seen, [1, 2, 3]);
    // The fourth never comes; the third stays, and grows old.
    while live_of(&vm).pending || live_of(&vm).readings.expect("the third").age_ms < 150 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    let guest = Guest::open(&vm, &kernel, 5, WakeKind::Event);
    guest.ring(0).call(call::ECHO, &[]);
    // Of several GPUs as well, a session's memory is known one by one.
    assert_eq!(live_of(&vm).sessions[0].device_bytes, [0, 4096, 0]);
}

fn a_failed_probe_is_an_error() {
    let start = |change: &dyn Fn(&mut VmConfig)| {
        let mut config = VmConfig::new(1);
        change(&mut config);
        Vm::start(config, Arc::new(Kernel::default()) as Arc<dyn Events>).err().expect("an error")
    };
    let error = start(&|config| config.executor = ExecutorKind::Cuda);
    assert!(matches!(&error, StartError::Probe(text) if text == "the echo has no GPU"), "{error}");
    let error = start(&|config| config.program = "/nonexistent/program".into());
    assert!(matches!(&error, StartError::Probe(text) if text.contains("No such file")), "{error}");
    let error = start(&|config| config.program = "/bin/true".into());
    assert!(matches!(&error, StartError::Probe(_)), "{error}");
    assert!(matches!(start(&|config| config.sessions_max = 257), StartError::Config("sessions_max")));
}

fn open_call_close() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 5, WakeKind::Event);
    assert_eq!(guest.state(), SessionState::Live);
    let mut ring = guest.ring(3);
    assert_eq!(ring.numbers(call::RING, &[]), [3]);
    for len in [0usize, 8, 1000, 40_000] {
        let data: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
        assert!(ring.call(call::ECHO, &data) == data);
    }
    // Many frames, of which some wait: around the area several times.
    for round in 0..3000u64 {
        ring.post(call::RECORD, &[0; 200]);
        if round % 100 == 0 {
            ring.call(call::ECHO, &[1; 64]);
        }
    }
    assert_eq!(ring.numbers(call::READ_LOG, &[]).len(), 3000);
    assert_eq!(ring.try_call(call::FAIL, &700u64.to_le_bytes()), Ok((700, vec![])));
    let totals = vm.totals();
    assert_eq!((totals.sessions_open, totals.sessions_opened, totals.sessions_closed), (1, 1, 0));
    assert_eq!((totals.calls, totals.replies, totals.posted_errors), (3037, 37, 0));
    assert_eq!(guest.close(), Ok(()));
    assert_eq!(guest.state(), SessionState::Dead(event::DEATH_SHUTDOWN));
    let totals = vm.totals();
    assert_eq!((totals.sessions_open, totals.sessions_closed, totals.calls), (0, 1, 3037));
    assert_eq!(kernel.deaths(), 0);
}

fn two_sessions_are_two_processes() {
    let (vm, kernel) = start_vm(|_| ());
    let (one, two) =
        (Guest::open(&vm, &kernel, 0, WakeKind::Event), Guest::open(&vm, &kernel, 255, WakeKind::Futex));
    let (mut ring_one, mut ring_two) = (one.ring(0), two.ring(0));
    ring_one.post(call::RECORD, &[]);
    assert_eq!(ring_one.numbers(call::READ_LOG, &[]).len(), 1);
    assert_eq!(ring_two.numbers(call::READ_LOG, &[]).len(), 0);
    assert_ne!(ring_one.numbers(call::PID, &[]), ring_two.numbers(call::PID, &[]));
    one.close().expect("closed");
    assert_eq!(ring_one.try_call(call::ECHO, &[]), Err(Dead(event::DEATH_SHUTDOWN)));
    assert_eq!(ring_two.call(call::ECHO, b"still here"), b"still here\0\0\0\0\0\0");
    // The slot can be used again, by a new process.
    let again = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    assert_eq!(again.ring(0).numbers(call::READ_LOG, &[]).len(), 0);
}

fn bad_requests_are_refused() {
    let (vm, kernel) = start_vm(|config| config.sessions_max = 2);
    let page = Memory::new(4096);
    let open = |id, change: &dyn Fn(&mut mediator::Open)| {
        let mut request = open_request(&page, WakeKind::Event);
        change(&mut request);
        error(|done| vm.open_session(id, request, done))
    };
    assert_eq!(open(control::SESSIONS_MAX, &|_| ()), regs::ERROR_INVALID_REQUEST);
    assert_eq!(open(0, &|request| request.fingerprint[0] ^= 1), regs::ERROR_UNSUPPORTED);
    assert_eq!(open(0, &|request| request.page.len = 8192), regs::ERROR_INVALID_LENGTH);
    assert_eq!(open(0, &|request| request.page.offset = 12), regs::ERROR_INVALID_REQUEST);

    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    assert_eq!(open(0, &|_| ()), regs::ERROR_INVALID_REQUEST, "open twice");
    let _second = Guest::open(&vm, &kernel, 1, WakeKind::Event);
    assert_eq!(open(2, &|_| ()), regs::ERROR_QUEUE_FULL, "too many");
    for operation in [Vm::close_session, |vm: &Vm, id, done| vm.unmap_region(id, 0, done)] {
        assert_eq!(error(|done| operation(&vm, 9, done)), regs::ERROR_INVALID_REQUEST, "unknown session");
    }

    let memory = Memory::new(u64::from(ring::RING_BYTES));
    let add = |ring, part| guest.add_part(ring, part, &memory).map_err(|error| error.error);
    assert_eq!(add(ring::RINGS_MAX, control::PART_RING), Err(regs::ERROR_INVALID_REQUEST));
    assert_eq!(add(0, 2), Err(regs::ERROR_INVALID_REQUEST));
    assert_eq!(add(0, control::PART_STAGING), Err(regs::ERROR_INVALID_REQUEST), "staging before the ring");
    let short = Memory::new(4096);
    let wrong = guest.add_part(0, control::PART_RING, &short).expect_err("refused").error;
    assert_eq!(wrong, regs::ERROR_INVALID_LENGTH);
    assert_eq!(add(0, control::PART_RING), Ok(()));
    assert_eq!(add(0, control::PART_RING), Err(regs::ERROR_INVALID_REQUEST), "twice");
    assert_eq!(add(0, control::PART_STAGING), Ok(()));
    assert_eq!(add(0, control::PART_STAGING), Err(regs::ERROR_INVALID_REQUEST), "twice");
    assert_eq!(error(|done| vm.remove_ring(0, 1, done)), regs::ERROR_INVALID_REQUEST);
    assert_eq!(wait(|done| vm.remove_ring(0, 0, done)), Ok(()));
    assert_eq!(error(|done| vm.remove_ring(0, 0, done)), regs::ERROR_INVALID_REQUEST);
    assert_eq!(kernel.deaths(), 0);
}

fn a_refused_session_frees_its_slot() {
    let (vm, kernel) = start_vm(|_| ());
    let page = Memory::new(4096);
    let mut request = open_request(&page, WakeKind::Event);
    request.pid = 666;
    let refused = wait(|done| vm.open_session(4, request, done)).expect_err("refused");
    assert_eq!((refused.error, refused.cuda_result), (regs::ERROR_CUDA, 100));
    assert_eq!((vm.totals().sessions_open, vm.totals().sessions_opened), (0, 0));
    Guest::open(&vm, &kernel, 4, WakeKind::Event).close().expect("closed");
}

fn an_opening_that_hangs_times_out() {
    let (vm, _) = start_vm(|config| config.limits.open = Duration::from_millis(300));
    let page = Memory::new(4096);
    let mut request = open_request(&page, WakeKind::Event);
    request.pid = 667;
    assert_eq!(error(|done| vm.open_session(4, request, done)), regs::ERROR_TIMEOUT);
    assert_eq!(vm.totals().sessions_open, 0);
}

fn worker_of(ring: &mut crate::guest::GuestRing<'_>) -> Pid {
    Pid::from_raw(ring.numbers(call::PID, &[])[0] as i32).expect("a process id")
}

fn a_killed_worker_ends_its_session_only() {
    let (vm, kernel) = start_vm(|_| ());
    let (one, two) =
        (Guest::open(&vm, &kernel, 1, WakeKind::Event), Guest::open(&vm, &kernel, 2, WakeKind::Event));
    let (mut ring_one, mut ring_two) = (one.ring(0), two.ring(0));
    let worker = worker_of(&mut ring_one);
    // A guest thread that sleeps is woken by the death.
    let sleeper = std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| ring_one.try_call(call::STUCK, &[]));
        std::thread::sleep(Duration::from_millis(100));
        rustix::process::kill_process(worker, Signal::KILL).expect("killed");
        sleeper.join().expect("no panic")
    });
    assert_eq!(sleeper, Err(Dead(event::DEATH_WORKER_LOST)));
    assert_eq!(kernel.wait_for_death(1), Some(event::DEATH_WORKER_LOST));
    assert_eq!(one.state(), SessionState::Dead(event::DEATH_WORKER_LOST));
    assert!(rustix::process::test_kill_process(worker).is_err(), "the worker was reaped");
    assert_eq!(ring_two.call(call::ECHO, &[7; 8]), [7; 8]);
    // The slot stays taken until it is closed, and nothing is mapped any more.
    assert_eq!(one.unmap(0), Ok(()));
    let page = Memory::new(4096);
    let reopened = error(|done| vm.open_session(1, open_request(&page, WakeKind::Event), done));
    assert_eq!(reopened, regs::ERROR_INVALID_REQUEST);
    let memory = Memory::new(4096);
    let mapped = one.map(0, 0, &memory).expect_err("the session is dead").error;
    assert_eq!(mapped, regs::ERROR_MEDIATOR_UNAVAILABLE);
    assert_eq!(one.close(), Ok(()));
    assert_eq!(one.state(), SessionState::Dead(event::DEATH_WORKER_LOST), "the first reason stays");
    assert_eq!((vm.totals().sessions_died, kernel.deaths()), (1, 1));
    Guest::open(&vm, &kernel, 1, WakeKind::Event);
}

fn closing_with_a_stuck_call() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let worker = worker_of(&mut ring);
    ring.post(call::STUCK, &[]);
    let start = Instant::now();
    guest.close().expect("closed");
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
    assert!(rustix::process::test_kill_process(worker).is_err(), "the worker was reaped");
    assert_eq!(kernel.deaths(), 0);
}

fn closing_with_a_stopped_worker() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let worker = worker_of(&mut guest.ring(0));
    rustix::process::kill_process(worker, Signal::STOP).expect("stopped");
    let start = Instant::now();
    guest.close().expect("closed");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(1000), "{took:?}");
    assert!(rustix::process::test_kill_process(worker).is_err(), "the worker was reaped");
    assert_eq!(kernel.deaths(), 0);
}

fn closing_while_an_order_is_stuck() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let memory = Memory::new(4096);
    guest.map(3, 0, &memory).expect("mapped");
    guest.ring(0).call(call::HOLD_REGIONS, &[]);
    let unmapped = begin(|done| vm.unmap_region(0, 3, done));
    std::thread::sleep(Duration::from_millis(100));
    assert!(unmapped.try_recv().is_err(), "the handler holds the region");
    let start = Instant::now();
    guest.close().expect("closed");
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
    assert_eq!(unmapped.recv(), Ok(Ok(())), "nothing is mapped any more");
    assert_eq!(kernel.deaths(), 0);
}

fn closing_while_opening() {
    let (vm, kernel) = start_vm(|_| ());
    let page = Memory::new(4096);
    let mut request = open_request(&page, WakeKind::Event);
    request.pid = 667;
    let opened = begin(|done| vm.open_session(2, request, done));
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    assert_eq!(wait(|done| vm.close_session(2, done)), Ok(()));
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
    assert_eq!(opened.recv().expect("an answer").map_err(|error| error.error), Err(regs::ERROR_TIMEOUT));
    assert_eq!((vm.totals().sessions_open, kernel.deaths()), (0, 0));
    Guest::open(&vm, &kernel, 2, WakeKind::Event);
}

fn removing_a_stuck_ring_kills() {
    let (vm, kernel) = start_vm(|config| config.limits.unmap = Duration::from_millis(300));
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    ring.post(call::STUCK, &[]);
    assert_eq!(ring.remove(), Ok(()), "nothing is mapped any more");
    assert_eq!(kernel.wait_for_death(0), Some(event::DEATH_WORKER_LOST));
}

fn a_removed_ring_is_drained() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut leaving = guest.ring(0);
    leaving.post(call::SLOW, &50u64.to_le_bytes());
    for _ in 0..100 {
        leaving.post(call::RECORD, &[]);
    }
    leaving.remove().expect("removed");
    let mut ring = guest.ring(1);
    assert_eq!(ring.numbers(call::READ_LOG, &[]).len(), 101);
    // The index can be used again, with new memory.
    let mut again = guest.ring(0);
    assert_eq!(again.call(call::ECHO, &[1; 8]), [1; 8]);
}

fn reset_empties_the_table() {
    let (vm, kernel) = start_vm(|_| ());
    let guests: Vec<Guest> = (0..4).map(|id| Guest::open(&vm, &kernel, id, WakeKind::Event)).collect();
    let workers: Vec<Pid> = guests.iter().map(|guest| worker_of(&mut guest.ring(0))).collect();
    guests[3].ring(1).post(call::STUCK, &[]);
    vm.reset();
    for worker in workers {
        assert!(rustix::process::test_kill_process(worker).is_err(), "worker {worker} was reaped");
    }
    assert_eq!((vm.totals().sessions_open, vm.totals().sessions_closed, kernel.deaths()), (0, 4, 0));
    for guest in &guests {
        assert_eq!(guest.state(), SessionState::Live, "memory of a guest that may be gone is not written");
        assert_eq!(guest.close().expect_err("gone").error, regs::ERROR_INVALID_REQUEST);
    }
    assert_eq!(Guest::open(&vm, &kernel, 0, WakeKind::Event).ring(0).call(call::ECHO, &[2; 8]), [2; 8]);
}

fn dropping_the_vm_ends_sessions() {
    let (vm, kernel) = start_vm(|_| ());
    let mut guest = Guest::open(&vm, &kernel, 6, WakeKind::Event);
    let worker = worker_of(&mut guest.ring(0));
    drop(vm);
    // The guest's is the last reference.
    let (other, _) = start_vm(|config| config.idle_workers = Some(0));
    guest.vm = other;
    assert_eq!(kernel.wait_for_death(6), Some(event::DEATH_SHUTDOWN));
    assert_eq!(guest.state(), SessionState::Dead(event::DEATH_SHUTDOWN));
    assert!(rustix::process::test_kill_process(worker).is_err(), "the worker was reaped");
}

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).expect("directory").count()
}

fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
    let children = tasks.map(|task| {
        let list = std::fs::read_to_string(task.expect("task").path().join("children")).unwrap_or_default();
        list.split_whitespace().count()
    });
    children.sum()
}

fn descriptors_and_children_do_not_leak() {
    let (vm, kernel) = start_vm(|_| ());
    let round = || {
        let guest = Guest::open(&vm, &kernel, 0, WakeKind::Futex);
        let mut ring = guest.ring(0);
        let memory = Memory::new(8192);
        guest.map(0, 0, &memory).expect("mapped");
        ring.call(call::ECHO, &[]);
        guest.close().expect("closed");
    };
    // A closed session's thread and the pool may still be at work for a moment.
    let settled = |descriptors, processes| {
        let start = Instant::now();
        while (count("/proc/self/fd"), children()) != (descriptors, processes) {
            if start.elapsed() > Duration::from_secs(3) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    };
    round();
    std::thread::sleep(Duration::from_millis(300));
    let (descriptors, processes) = (count("/proc/self/fd"), children());
    (0..50).for_each(|_| round());
    assert!(settled(descriptors, processes), "{descriptors} became {}", count("/proc/self/fd"));
    assert_eq!(vm.totals().sessions_closed, 51);
}

fn a_worker_is_confined() {
    let (vm, kernel) = start_vm(|config| config.visible_devices = Some("4,2".to_owned()));
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let process = ring.text(call::PROCESS, &[]);
    for expected in ["nnp=1 ", "core=Some(0) ", "dumpable=NotDumpable ", "create=false", "exec=false"] {
        assert!(process.contains(expected), "{expected} in {process}");
    }
    assert!(!process.contains("memfd:guest") && !process.contains("epoll"), "{process}");
    assert_eq!(ring.text(call::ENV, b"CUDA_MODULE_LOADING"), "EAGER");
    assert_eq!(ring.text(call::ENV, b"CUDA_VISIBLE_DEVICES"), "4,2");
    assert_eq!(ring.text(call::ENV, b"PATH"), "");
    let fresh = ring.numbers(call::FRESH_ADDRESS, &[])[0];
    assert!((0x2000_0000_0000..0x3000_0000_0000).contains(&fresh), "{fresh:#x}");
}

fn stop_holds_dispatch() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    one.call(call::ECHO, &[]);
    vm.stop();
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let reply = one.call(call::ECHO, &[3; 8]);
            answered.store(true, Ordering::SeqCst);
            reply
        });
        two.post(call::RECORD, &[]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!answered.load(Ordering::SeqCst), "no call is dispatched");
        assert_eq!(vm.totals().calls, 1);
        // A session that is opened meanwhile is stopped as well.
        let late = Guest::open(&vm, &kernel, 1, WakeKind::Event);
        let mut late_ring = late.ring(0);
        late_ring.post(call::RECORD, &[]);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(vm.totals().calls, 1);
        vm.resume();
        assert_eq!(caller.join().expect("no panic"), [3; 8]);
        assert_eq!(late_ring.numbers(call::READ_LOG, &[]).len(), 1);
    });
    assert_eq!(two.numbers(call::READ_LOG, &[]).len(), 1);
}

fn a_call_that_waits_for_the_guest_holds_up_no_stop() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let first = one.call(call::WAIT_FOR_GUEST, &[]);
            // It asks again, and is held outside until the VM goes on, and after that until it stops again.
            let second = one.call(call::WAIT_FOR_GUEST, &[]);
            (first, second)
        });
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..2 {
            let start = Instant::now();
            vm.stop();
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            vm.resume();
            two.call(call::ECHO, &[]);
            std::thread::sleep(Duration::from_millis(100));
        }
        waits.join().expect("no panic");
    });
    assert_eq!(guest.state(), SessionState::Live);
}

fn stop_waits_for_calls_at_most_its_limit() {
    let (vm, kernel) = start_vm(|config| config.limits.stop = Duration::from_millis(300));
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    // Calls that are waited for hold nobody back, so the other ring can tell when one has begun.
    let mut begin = |call, args: &[u8], begun: usize| {
        one.push(call, FRAME_WAIT, args).expect("live");
        while two.numbers(call::READ_LOG, &[]).len() < begun {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    begin(call::NAP, &100u64.to_le_bytes(), 1);
    let before = vm.totals().calls;
    vm.stop();
    assert_eq!(vm.totals().calls, before + 1, "the call under way has returned");
    vm.resume();
    begin(call::BLOCK, &[], 2);
    let start = Instant::now();
    vm.stop();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(1500), "{took:?}");
    // The front cannot know whether this is a pause or a reset: nothing may write to guest memory any more.
    assert_eq!(guest.state(), SessionState::Dead(event::DEATH_EXECUTOR));
    assert_eq!(vm.totals().sessions_died, 1);
    vm.resume();
}
