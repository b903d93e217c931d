//! Events through a real queue.

use pci_layout::event::{DEATH_EXECUTOR, EVENT_SESSION_DIED, EVENT_WAKE};
use vgpu_device::SessionId;

use super::machine::Bench;

fn id(session: u32) -> SessionId {
    SessionId::new(session).unwrap()
}

#[test]
fn event_is_put_into_a_posted_buffer() {
    let mut bench = Bench::booted();
    bench.machine.open(3);
    bench.machine.post_event_buffer(0);
    bench.machine.post_event_buffer(1);
    bench.device.wake(id(3));
    assert_eq!(bench.machine.event(), (EVENT_WAKE, 3, 0));
    bench.device.died(id(3), DEATH_EXECUTOR);
    assert_eq!(bench.machine.event(), (EVENT_SESSION_DIED, 3, DEATH_EXECUTOR));
    bench.disconnect().unwrap();
}

#[test]
fn events_wait_for_buffers() {
    let mut bench = Bench::booted();
    for session in 0..3 {
        bench.machine.open(session);
        bench.device.died(id(session), DEATH_EXECUTOR);
    }
    for session in 0..3 {
        bench.machine.post_event_buffer(session as u16);
        assert_eq!(bench.machine.event(), (EVENT_SESSION_DIED, session, DEATH_EXECUTOR));
    }
    bench.disconnect().unwrap();
}

#[test]
fn events_wait_while_the_vm_is_stopped() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    bench.machine.post_event_buffer(0);
    let bases = bench.machine.stop_queues();
    bench.device.wake(id(0));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(bench.machine.events.try_used().is_none(), "memory of a stopped VM was written");
    bench.machine.start_queues_at(bases.0, bases.1);
    assert_eq!(bench.machine.event(), (EVENT_WAKE, 0, 0));
    bench.disconnect().unwrap();
}
