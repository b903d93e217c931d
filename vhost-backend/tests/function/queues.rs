//! The queue registers, and the queues that they start.

use pci_layout::control;
use pci_layout::function::*;
use pci_layout::{ABI_VERSION, regs};

use super::fake::Asked;
use super::machine::{Bench, message, open_body};

#[test]
fn a_driver_finds_its_registers_and_is_served() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    let mut tag = [0; 8];
    machine.client.region_read(BAR_QUEUES, OFF_QUEUES_MAGIC.into(), &mut tag).unwrap();
    assert_eq!(&tag, b"VGPUSTUB");
    assert_eq!(machine.get(BAR_QUEUES, OFF_QUEUES_VERSION), ABI_VERSION);
    assert_eq!(machine.get(BAR_QUEUES, OFF_QUEUES_CONFIG + regs::VM_ID), 5);
    machine.start_queues();
    assert_eq!(machine.get(BAR_QUEUES, OFF_QUEUES_STATUS), 0xf);
    assert_eq!(machine.hello(1).error, regs::ERROR_NONE);
    assert_eq!(machine.ask(control::OPEN_SESSION, 4, &open_body(0x9000)).error, regs::ERROR_NONE);
    let page = bench.fake.expect("a session", |asked| match asked {
        Asked::Open { session: 4, page } => Some(page.offset),
        _ => None,
    });
    assert_eq!(page, 0x9000);
    machine.kick(4);
    bench.fake.expect("a kick", |asked| matches!(asked, Asked::Kick(4)).then_some(()));
    // What is opened elsewhere meanwhile is refused.
    machine.ring(&message(control::OPEN_SESSION, 1, 5, &open_body(0)));
    assert_eq!(machine.response().error, regs::ERROR_UNSUPPORTED);
}

#[test]
fn a_reset_ends_sessions_and_the_queues_start_again() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    for round in 0..3 {
        machine.start_queues();
        assert_eq!(machine.hello(round).error, regs::ERROR_NONE);
        assert_eq!(machine.ask(control::OPEN_SESSION, 4, &open_body(0x9000)).error, regs::ERROR_NONE);
        if round == 1 {
            machine.client.reset().unwrap();
            assert!(
                bench.fake.was_asked(|asked| matches!(asked, Asked::Reset)),
                "the reset was not waited for"
            );
            assert_eq!(machine.get(BAR_QUEUES, OFF_QUEUES_STATUS), 0);
        } else {
            machine.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0);
        }
        bench.fake.expect_reset();
        machine.wait_for(BAR_QUEUES, OFF_QUEUES_STATUS, "the reset ends", |status| status == 0);
        assert_eq!(bench.device.sessions_open(), 0);
    }
    machine.works();
}

#[test]
fn nobody_waits_for_a_reset() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    machine.start_queues();
    machine.hello(1);
    bench.fake.hold();
    machine.send(control::OPEN_SESSION, 4, &open_body(0x9000));
    bench.fake.expect("a session", |asked| matches!(asked, Asked::Open { .. }).then_some(()));
    for _ in 0..20 {
        machine.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0);
        machine.get(BAR_QUEUES, OFF_QUEUES_STATUS);
        machine.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0xf);
    }
    bench.fake.expect_reset();
    machine.start_queues();
    assert_eq!(machine.hello(2).error, regs::ERROR_NONE);
}

#[test]
fn queues_that_cannot_be_are_said_to_be_none() {
    let bench = Bench::new();
    let mut machine = bench.connect();
    let at = OFF_QUEUES_FIRST;
    for (register, value) in
        [(at + OFF_QUEUE_SIZE, 77), (at + OFF_QUEUE_DESCRIPTORS, 3), (OFF_QUEUES_DRIVER_FEATURES, 1)]
    {
        machine.start_queues();
        machine.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0);
        machine.wait_for(BAR_QUEUES, OFF_QUEUES_STATUS, "the reset ends", |status| status == 0);
        machine.set(BAR_QUEUES, at + OFF_QUEUE_SIZE, 256);
        machine.set(BAR_QUEUES, at + OFF_QUEUE_STRIDE + OFF_QUEUE_SIZE, 256);
        machine.set(BAR_QUEUES, register, value);
        machine.set(BAR_QUEUES, OFF_QUEUES_STATUS, 0xf);
        machine.wait_for(BAR_QUEUES, OFF_QUEUES_STATUS, "the start is refused", |status| status & 0x40 != 0);
    }
    machine.start_queues();
    assert_eq!(machine.hello(1).error, regs::ERROR_NONE);
}

#[test]
fn a_vm_that_has_gone_leaves_nothing_and_another_is_served() {
    let bench = Bench::new();
    for round in 0..2 {
        let mut machine = bench.connect();
        machine.start_queues();
        assert_eq!(machine.hello(round).error, regs::ERROR_NONE);
        assert_eq!(machine.ask(control::OPEN_SESSION, 4, &open_body(0x9000)).error, regs::ERROR_NONE);
        drop(machine);
        bench.fake.expect_reset();
    }
}
