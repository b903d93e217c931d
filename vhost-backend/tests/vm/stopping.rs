//! The VM is paused, goes on, is reset.

use std::time::Duration;

use pci_layout::{control, regs};
use vhost::vhost_user::VhostUserFrontend;

use super::fake::Asked;
use super::machine::{Bench, open_body};

fn expect_stop(bench: &Bench) {
    bench.fake.expect("stop", |asked| matches!(asked, Asked::Stop).then_some(()));
}

fn expect_resume(bench: &Bench) {
    bench.fake.expect("resume", |asked| matches!(asked, Asked::Resume).then_some(()));
}

#[test]
fn pause_stops_the_workers_and_cont_lets_them_go_on() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    expect_resume(&bench);
    let bases = bench.machine.stop_queues();
    assert_eq!(bases.0, bench.machine.control.avail);
    expect_stop(&bench);
    bench.machine.start_queues_at(bases.0, bases.1);
    expect_resume(&bench);
    assert_eq!(bench.device.sessions_open(), 1);
    assert!(!bench.fake.was_asked(|asked| matches!(asked, Asked::Reset)));
    assert_eq!(bench.machine.ask(control::READ_REGS, 0, &[]).error, regs::ERROR_NONE);
    bench.disconnect().unwrap();
}

#[test]
fn answer_that_comes_during_a_pause_is_given_after_it() {
    let mut bench = Bench::booted();
    bench.fake.hold();
    let head = bench.machine.send(control::OPEN_SESSION, 0, &open_body());
    bench.fake.expect("open", |asked| matches!(asked, Asked::Open { .. }).then_some(()));
    let bases = bench.machine.stop_queues();
    bench.fake.release();
    std::thread::sleep(Duration::from_millis(50));
    assert!(bench.machine.control.try_used().is_none(), "memory of a stopped VM was written");
    bench.machine.start_queues_at(bases.0, bases.1);
    let (answered, answer) = bench.machine.answer();
    assert_eq!((answered, answer.error), (head, regs::ERROR_NONE));
    bench.disconnect().unwrap();
}

#[test]
fn request_sent_during_a_pause_is_taken_after_it() {
    let mut bench = Bench::booted();
    let bases = bench.machine.stop_queues();
    let head = bench.machine.send(control::READ_REGS, 0, &[]);
    std::thread::sleep(Duration::from_millis(50));
    assert!(bench.machine.control.try_used().is_none());
    bench.machine.start_queues_at(bases.0, bases.1);
    assert_eq!(bench.machine.answer().0, head);
    bench.disconnect().unwrap();
}

#[test]
fn control_ring_made_anew_is_another_boot() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    bench.machine.stop_queues();
    // The guest's memory is what its firmware makes of it: the rings begin anew.
    bench.machine.control = super::driver::Queue::new(bench.machine.memory.clone(), 0x10_0000);
    bench.machine.start_queues_at(0, 0);
    bench.fake.expect_reset();
    assert_eq!(bench.device.sessions_open(), 0);
    assert_eq!(bench.machine.hello(2).error, regs::ERROR_NONE);
    bench.disconnect().unwrap();
}

#[test]
fn device_reset_ends_all_sessions_and_drops_late_answers() {
    let mut bench = Bench::booted();
    bench.machine.open(1);
    bench.fake.hold();
    bench.machine.send(control::OPEN_SESSION, 0, &open_body());
    bench
        .fake
        .expect("the second open", |asked| matches!(asked, Asked::Open { session: 0, .. }).then_some(()));
    bench.machine.stop_queues();
    bench.machine.frontend.reset_device().unwrap();
    bench.fake.expect_reset();
    assert_eq!(bench.device.sessions_open(), 0);
    bench.machine.control = super::driver::Queue::new(bench.machine.memory.clone(), 0x10_0000);
    bench.machine.start_queues_at(0, 0);
    assert_eq!(bench.machine.hello(2).error, regs::ERROR_NONE, "the first answer in the new ring");
    bench.disconnect().unwrap();
}

#[test]
fn end_of_the_connection_ends_all_sessions() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    let (fake, device) = (bench.fake.clone(), bench.device.clone());
    bench.disconnect().unwrap();
    fake.expect_reset();
    assert_eq!(device.sessions_open(), 0);
}
