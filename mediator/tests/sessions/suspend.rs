//! Suspend and resume: with nothing to move, and with a driver that is a folder (`echo::Folder`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mediator::worker::Action;
use mediator::{SuspendError, Vm, WakeKind};
use pci_layout::ring::FRAME_WAIT;
use pci_layout::{event, regs};
use rustix::process::{Pid, Signal};
use vgpu_ring::SessionState;

use crate::echo::{self, GPU_VM, call};
use crate::guest::{Dead, Guest, GuestRing, Kernel, Memory, begin, open_request, start_vm, wait};

pub const TESTS: &[(&str, fn())] = &[
    ("a_suspended_vm_rests_and_nothing_is_moved", a_suspended_vm_rests_and_nothing_is_moved),
    ("a_pause_and_a_suspend_are_two_reasons", a_pause_and_a_suspend_are_two_reasons),
    ("what_needs_the_driver_waits_while_suspended", what_needs_the_driver_waits_while_suspended),
    ("sessions_end_while_suspended", sessions_end_while_suspended),
    ("a_reset_vm_stays_suspended", a_reset_vm_stays_suspended),
    ("a_busy_session_keeps_its_vm_from_being_suspended", a_busy_session_keeps_its_vm_from_being_suspended),
    ("what_waits_for_the_guest_comes_to_its_end_first", what_waits_for_the_guest_comes_to_its_end_first),
    ("workers_leave_the_gpu_and_come_back", workers_leave_the_gpu_and_come_back),
    ("a_refusal_of_the_driver_is_rolled_back", a_refusal_of_the_driver_is_rolled_back),
    ("a_resume_waits_for_room_on_the_gpu", a_resume_waits_for_room_on_the_gpu),
    ("a_session_that_cannot_be_taken_off_is_named", a_session_that_cannot_be_taken_off_is_named),
    ("a_worker_that_cannot_come_back_ends_alone", a_worker_that_cannot_come_back_ends_alone),
    ("a_faulted_session_stays_behind", a_faulted_session_stays_behind),
];

fn a_suspended_vm_rests_and_nothing_is_moved() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    ring.call(call::ECHO, &[]);
    assert_eq!(vm.suspended(), None);
    assert_eq!(vm.resume_from_suspend(), Err(SuspendError::NotSuspended));

    let suspended = vm.suspend().expect("suspended");
    assert_eq!((suspended.sessions, suspended.faulted), (1, 0));
    assert_eq!((suspended.moved_bytes, suspended.host_bytes), (0, 0), "device memory is host memory");
    assert_eq!(vm.suspended(), Some(suspended));
    assert_eq!(vm.suspend(), Err(SuspendError::Already));

    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let reply = ring.call(call::ECHO, &[3; 8]);
            answered.store(true, Ordering::SeqCst);
            reply
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!answered.load(Ordering::SeqCst), "no call is dispatched");
        assert_eq!(vm.totals().calls, 1);
        vm.resume_from_suspend().expect("resumed");
        assert_eq!(caller.join().expect("no panic"), [3; 8]);
    });
    assert_eq!((vm.suspended(), guest.state(), kernel.deaths()), (None, SessionState::Live, 0));
    // Again, with nobody there.
    guest.close().expect("closed");
    assert_eq!(vm.suspend().expect("suspended").sessions, 0);
    vm.resume_from_suspend().expect("resumed");
}

fn a_pause_and_a_suspend_are_two_reasons() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let suspend = |vm: &Vm| assert!(vm.suspend().is_ok());
    let go_on = |vm: &Vm| assert!(vm.resume_from_suspend().is_ok());
    // Either begins first, and either ends first.
    type Steps = [fn(&Vm, &dyn Fn(&Vm), &dyn Fn(&Vm)); 4];
    let orders: [Steps; 4] = [
        [|vm, _, _| vm.stop(), |vm, s, _| s(vm), |vm, _, _| vm.resume(), |vm, _, g| g(vm)],
        [|vm, _, _| vm.stop(), |vm, s, _| s(vm), |vm, _, g| g(vm), |vm, _, _| vm.resume()],
        [|vm, s, _| s(vm), |vm, _, _| vm.stop(), |vm, _, _| vm.resume(), |vm, _, g| g(vm)],
        [|vm, s, _| s(vm), |vm, _, _| vm.stop(), |vm, _, g| g(vm), |vm, _, _| vm.resume()],
    ];
    for [first, second, third, last] in orders {
        first(&vm, &suspend, &go_on);
        let calls = vm.totals().calls;
        let ticket = ring.push(call::ECHO, FRAME_WAIT, &[7; 8]).expect("live");
        second(&vm, &suspend, &go_on);
        third(&vm, &suspend, &go_on);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(vm.totals().calls, calls, "one reason is left");
        last(&vm, &suspend, &go_on);
        assert_eq!(ring.reply(ticket), Ok((0, vec![7; 8])));
    }
    assert_eq!((guest.state(), kernel.deaths()), (SessionState::Live, 0));
}

fn what_needs_the_driver_waits_while_suspended() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (old, kept) = (guest.ring(0), Memory::new(8192));
    guest.map(0, 0, &kept).expect("mapped");
    vm.suspend().expect("suspended");

    // Memory can be mapped, and a thread that comes to CUDA now gets its ring.
    let fresh = Memory::new(8192);
    guest.map(1, 0, &fresh).expect("mapped");
    let mut ring = guest.ring(1);
    let ticket = ring.push(call::ECHO, FRAME_WAIT, &[5; 8]).expect("live");

    let page = Memory::new(4096);
    let opened = begin(|done| vm.open_session(1, open_request(&page, WakeKind::Event), done));
    let unmapped = begin(|done| vm.unmap_region(0, 0, done));
    let removed = begin(|done| vm.remove_ring(0, 0, done));
    std::thread::sleep(Duration::from_millis(200));
    for waiting in [&opened, &unmapped, &removed] {
        assert!(waiting.try_recv().is_err(), "it waits");
    }
    vm.resume_from_suspend().expect("resumed");
    for ended in [opened, unmapped, removed] {
        assert_eq!(ended.recv_timeout(crate::guest::PATIENCE).expect("it ends"), Ok(()));
    }
    assert_eq!(ring.reply(ticket), Ok((0, vec![5; 8])));
    assert_eq!(wait(|done| vm.close_session(1, done)), Ok(()));
    drop(old);
}

fn worker_of(ring: &mut GuestRing<'_>) -> Pid {
    Pid::from_raw(ring.numbers(call::PID, &[])[0] as i32).expect("a process id")
}

fn is_gone(worker: Pid) -> bool {
    rustix::process::test_kill_process(worker).is_err()
}

fn sessions_end_while_suspended() {
    let (vm, kernel) = start_vm(|_| ());
    let [closed, killed, stays] = [0, 1, 2].map(|id| Guest::open(&vm, &kernel, id, WakeKind::Event));
    let workers = [&closed, &killed].map(|guest| worker_of(&mut guest.ring(0)));
    let region = Memory::new(4096);
    closed.map(0, 0, &region).expect("mapped");
    vm.suspend().expect("suspended");

    let page = Memory::new(4096);
    let waits = begin(|done| vm.open_session(3, open_request(&page, WakeKind::Event), done));
    let unmapped = begin(|done| vm.unmap_region(0, 0, done));
    closed.close().expect("closed");
    assert_eq!(unmapped.recv_timeout(crate::guest::PATIENCE).expect("it ends"), Ok(()));
    assert!(is_gone(workers[0]), "reaped");
    rustix::process::kill_process(workers[1], Signal::KILL).expect("killed");
    assert_eq!(kernel.wait_for_death(1), Some(event::DEATH_WORKER_LOST));
    // One that has not been opened yet is closed.
    assert_eq!(wait(|done| vm.close_session(3, done)), Ok(()));
    let never = waits.recv_timeout(crate::guest::PATIENCE).expect("it ends").expect_err("not opened");
    assert_eq!(never.error, regs::ERROR_MEDIATOR_UNAVAILABLE);

    vm.resume_from_suspend().expect("resumed");
    assert_eq!(stays.ring(0).call(call::ECHO, &[1; 8]), [1; 8]);
    assert_eq!(killed.ring_refused(), regs::ERROR_MEDIATOR_UNAVAILABLE);
    assert_eq!(vm.totals().sessions_open, 2, "the dead one's slot, and the living one's");
}

fn a_reset_vm_stays_suspended() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let worker = worker_of(&mut guest.ring(0));
    vm.suspend().expect("suspended");
    vm.reset();
    assert!(is_gone(worker) && vm.suspended().is_some());
    let page = Memory::new(4096);
    let opened = begin(|done| vm.open_session(0, open_request(&page, WakeKind::Event), done));
    std::thread::sleep(Duration::from_millis(100));
    assert!(opened.try_recv().is_err(), "it waits");
    vm.resume_from_suspend().expect("resumed");
    assert_eq!(opened.recv_timeout(crate::guest::PATIENCE).expect("it ends"), Ok(()));
}

fn a_busy_session_keeps_its_vm_from_being_suspended() {
    let (vm, kernel) = start_vm(|config| config.limits.stop = Duration::from_millis(300));
    let [busy, other] = [0, 1].map(|id| Guest::open(&vm, &kernel, id, WakeKind::Event));
    let (mut one, mut two) = (busy.ring(0), busy.ring(1));
    let ticket = one.push(call::BLOCK, FRAME_WAIT, &[]).expect("live");
    while two.numbers(call::READ_LOG, &[]).is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = vm.suspend().expect_err("it is busy");
    assert!(
        matches!(&error, SuspendError::Busy { session: 0, reason } if reason == "a call does not return"),
        "{error}"
    );
    assert_eq!(vm.suspended(), None);
    // Nobody has lost anything by it.
    two.call(call::OPEN_GATE, &[]);
    assert_eq!(one.reply(ticket), Ok((0, vec![])));
    assert_eq!(other.ring(0).call(call::ECHO, &[2; 8]), [2; 8]);
    assert_eq!((vm.totals().sessions_died, kernel.deaths()), (0, 0));
    vm.suspend().expect("suspended now");
    vm.resume_from_suspend().expect("resumed");
}

/// The device waits for the guest, whose word for it comes in a call: the gate opens for it.
fn what_waits_for_the_guest_comes_to_its_end_first() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let (mut one, mut two) = (guest.ring(0), guest.ring(1));
    one.call(call::AWAIT_GUEST, &1u64.to_le_bytes());
    std::thread::scope(|scope| {
        let suspended = scope.spawn(|| vm.suspend().expect("suspended"));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(vm.suspended(), None);
        two.call(call::AWAIT_GUEST, &0u64.to_le_bytes());
        suspended.join().expect("no panic");
    });
    assert!(vm.suspended().is_some());
    vm.resume_from_suspend().expect("resumed");
    two.call(call::ECHO, &[]);

    // One whose guest says nothing.
    let (vm, kernel) = start_vm(|config| config.limits.stop = Duration::from_millis(300));
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    ring.call(call::AWAIT_GUEST, &1u64.to_le_bytes());
    let error = vm.suspend().expect_err("it waits");
    assert!(error.to_string().contains("the device waits for a host function"), "{error}");
    ring.call(call::ECHO, &[]);
}

/// A VM on a GPU whose driver is a folder, which goes with it.
struct OnGpu {
    vm: Arc<Vm>,
    kernel: Arc<Kernel>,
    folder: PathBuf,
}

impl OnGpu {
    fn start() -> Self {
        let folder = echo::Folder::of_supervisor(std::process::id());
        // Of a test that has failed.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let (vm, kernel) = start_vm(|config| {
            config.vm_id = GPU_VM;
            config.idle_workers = Some(0);
        });
        Self { vm, kernel, folder }
    }

    fn open(&self, id: u32) -> Guest {
        Guest::open(&self.vm, &self.kernel, id, WakeKind::Event)
    }

    /// From now on the driver answers `result` to `action` on a process.
    fn refuse(&self, action: Action, worker: Pid, result: u32) {
        std::fs::write(
            echo::Folder::refusal(&self.folder, action, worker.as_raw_nonzero().get()),
            result.to_string(),
        )
        .expect("written");
    }

    fn allow(&self, action: Action, worker: Pid) {
        std::fs::remove_file(echo::Folder::refusal(&self.folder, action, worker.as_raw_nonzero().get()))
            .expect("removed");
    }

    /// The driver's state of a process.
    fn state(&self, worker: Pid) -> u32 {
        echo::Folder::state(Path::new(&self.folder), worker.as_raw_nonzero().get())
    }
}

impl Drop for OnGpu {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn workers_leave_the_gpu_and_come_back() {
    let gpu = OnGpu::start();
    let guests = [0, 1].map(|id| gpu.open(id));
    let mut rings = guests.each_ref().map(|guest| guest.ring(0));
    let workers = rings.each_mut().map(worker_of);
    for _ in 0..2 {
        let suspended = gpu.vm.suspend().expect("suspended");
        assert_eq!((suspended.sessions, suspended.moved_bytes), (2, 2 * 4096));
        assert_eq!(workers.map(|worker| gpu.state(worker)), [echo::CHECKPOINTED; 2]);
        // A pause meanwhile asks a locked worker's device for nothing.
        gpu.vm.stop();
        gpu.vm.resume();
        gpu.vm.resume_from_suspend().expect("resumed");
        assert_eq!(workers.map(|worker| gpu.state(worker)), [echo::RUNNING; 2]);
    }
    for ring in &mut rings {
        let process = ring.text(call::PROCESS, &[]);
        assert!(process.contains("dumpable=NotDumpable "), "{process}");
    }
    assert_eq!(gpu.kernel.deaths(), 0);
    // One that has gone meanwhile is no obstacle.
    gpu.vm.suspend().expect("suspended");
    guests[0].close().expect("closed");
    assert!(is_gone(workers[0]));
    gpu.vm.resume_from_suspend().expect("resumed");
    rings[1].call(call::ECHO, &[]);
}

fn a_refusal_of_the_driver_is_rolled_back() {
    let gpu = OnGpu::start();
    let guests = [0, 1, 2].map(|id| gpu.open(id));
    let mut rings = guests.each_ref().map(|guest| guest.ring(0));
    let workers = rings.each_mut().map(worker_of);
    for (action, result) in [(Action::Checkpoint, 801), (Action::Lock, 600)] {
        gpu.refuse(action, workers[1], result);
        let error = gpu.vm.suspend().expect_err("refused");
        let worker_pid = workers[1].as_raw_nonzero().get();
        let named = SuspendError::Driver { action, session: 1, guest_pid: 4711, worker_pid, result };
        assert_eq!(error, named);
        assert_eq!(workers.map(|worker| gpu.state(worker)), [echo::RUNNING; 3]);
        assert_eq!(gpu.vm.suspended(), None);
        for ring in &mut rings {
            assert_eq!(ring.call(call::ECHO, &[9; 8]), [9; 8]);
        }
        gpu.allow(action, workers[1]);
    }
    assert_eq!(gpu.kernel.deaths(), 0);
    gpu.vm.suspend().expect("suspended now");
    gpu.vm.resume_from_suspend().expect("resumed");
}

fn a_resume_waits_for_room_on_the_gpu() {
    let gpu = OnGpu::start();
    let guests = [0, 1].map(|id| gpu.open(id));
    let mut rings = guests.each_ref().map(|guest| guest.ring(0));
    let workers = rings.each_mut().map(worker_of);
    let suspended = gpu.vm.suspend().expect("suspended");
    let free =
        |bytes: u64| std::fs::write(gpu.folder.join(echo::Folder::FREE), bytes.to_string()).expect("written");
    free(500 << 20);
    let error = gpu.vm.resume_from_suspend().expect_err("refused");
    assert!(
        matches!(error, SuspendError::DeviceMemory { free_bytes, .. } if free_bytes == 500 << 20),
        "{error}"
    );
    assert_eq!(gpu.vm.suspended(), Some(suspended));
    assert_eq!(workers.map(|worker| gpu.state(worker)), [echo::CHECKPOINTED; 2]);
    free(20 << 30);
    let resumed = gpu.vm.resume_from_suspend().expect("resumed");
    assert_eq!((resumed.sessions, resumed.lost), (2, 0));
    assert_eq!(rings[0].call(call::ECHO, &[1; 8]), [1; 8]);

    // The driver fails all the same: that session is lost, and no other.
    gpu.vm.suspend().expect("suspended");
    gpu.refuse(Action::Restore, workers[0], 2);
    let resumed = gpu.vm.resume_from_suspend().expect("resumed");
    assert_eq!((resumed.sessions, resumed.lost), (1, 1));
    assert_eq!(gpu.kernel.wait_for_death(0), Some(event::DEATH_WORKER_LOST));
    assert_eq!(rings[1].call(call::ECHO, &[1; 8]), [1; 8]);
}

fn a_session_that_cannot_be_taken_off_is_named() {
    let gpu = OnGpu::start();
    let guests = [0, 1].map(|id| gpu.open(id));
    let mut rings = guests.each_ref().map(|guest| guest.ring(0));
    rings[1].call(call::SHARE, &[]);
    let error = gpu.vm.suspend().expect_err("refused");
    assert_eq!(error, SuspendError::Busy { session: 1, reason: "it shares".to_owned() });
    rings.iter_mut().for_each(|ring| drop(ring.call(call::ECHO, &[])));
}

fn a_worker_that_cannot_come_back_ends_alone() {
    let gpu = OnGpu::start();
    let guests = [0, 1].map(|id| gpu.open(id));
    let mut rings = guests.each_ref().map(|guest| guest.ring(0));
    let workers = rings.each_mut().map(worker_of);
    // The checkpoint fails, and so does the way back.
    gpu.refuse(Action::Checkpoint, workers[0], 999);
    gpu.refuse(Action::Unlock, workers[0], 999);
    gpu.vm.suspend().expect_err("refused");
    assert_eq!(gpu.kernel.wait_for_death(0), Some(event::DEATH_WORKER_LOST));
    assert_eq!(rings[0].try_call(call::ECHO, &[]), Err(Dead(event::DEATH_WORKER_LOST)));
    assert!(is_gone(workers[0]));
    assert_eq!(rings[1].call(call::ECHO, &[1; 8]), [1; 8]);
    // The checkpointer itself does not come back from the driver: another one sees to the rest.
    gpu.refuse(Action::Checkpoint, workers[1], echo::Folder::DIES);
    let error = gpu.vm.suspend().expect_err("lost");
    assert!(matches!(&error, SuspendError::Checkpointer(why) if why.contains("it has ended")), "{error}");
    assert_eq!(gpu.state(workers[1]), echo::RUNNING);
    assert_eq!(rings[1].call(call::ECHO, &[2; 8]), [2; 8]);
}

fn a_faulted_session_stays_behind() {
    let gpu = OnGpu::start();
    let guests = [0, 1].map(|id| gpu.open(id));
    let mut rings = guests.each_ref().map(|guest| guest.ring(0));
    let workers = rings.each_mut().map(worker_of);
    rings[0].call(call::STICKY, &700u64.to_le_bytes());
    let suspended = gpu.vm.suspend().expect("suspended");
    assert_eq!((suspended.sessions, suspended.faulted, suspended.moved_bytes), (2, 1, 4096));
    assert_eq!(workers.map(|worker| gpu.state(worker)), [echo::RUNNING, echo::CHECKPOINTED]);
    gpu.vm.resume_from_suspend().expect("resumed");
    assert_eq!((gpu.state(workers[1]), gpu.kernel.deaths()), (echo::RUNNING, 0));
}
