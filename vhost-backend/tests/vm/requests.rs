//! Requests through a real queue.

use std::os::unix::fs::MetadataExt;

use pci_layout::control::{self, MapRegion, Run};
use pci_layout::{ids, regs};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::fake::{Asked, INFO};
use super::machine::{Bench, HIGH, PENDING_GPA, REGION_BYTES, open_body};

#[test]
fn hello_registers_and_information() {
    let mut bench = Bench::new();
    let answer = bench.machine.hello(1);
    assert_eq!((answer.error, answer.body.len()), (regs::ERROR_NONE, 16));
    let block = bench.machine.ask(control::READ_REGS, 0, &[]).body;
    assert_eq!(block[regs::MAGIC as usize..][..8], ids::TAG);
    assert_eq!(block[regs::VM_ID as usize], 5);
    let info = control::ReadInfo { offset: 0, len: 100 };
    assert_eq!(bench.machine.ask(control::READ_INFO, 0, info.as_bytes()).body, INFO);
    bench.disconnect().unwrap();
}

#[test]
fn config_space_is_the_register_block() {
    let mut bench = Bench::new();
    let flags = VhostUserConfigFlags::WRITABLE;
    let read = |bench: &mut Bench| bench.machine.frontend.get_config(0, 256, flags, &[0; 256]).unwrap().1;
    let mut block = read(&mut bench);
    assert_eq!(block[regs::MAGIC as usize..][..8], ids::TAG);
    block[regs::SCRATCH as usize..][..4].copy_from_slice(b"mine");
    block[regs::VM_ID as usize] = 99;
    bench.machine.frontend.set_config(0, flags, &block).unwrap();
    let after = read(&mut bench);
    assert_eq!(after[regs::SCRATCH as usize..][..4], *b"mine");
    assert_eq!(after[regs::VM_ID as usize], 5, "not writable");
    bench.disconnect().unwrap();
}

#[test]
fn memory_reaches_the_mediator_as_places_in_the_file() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    let page = bench.fake.expect("open", |asked| match asked {
        Asked::Open { session: 0, page } => Some(page.clone()),
        _ => None,
    });
    // The low region is the second half of the file.
    assert_eq!((page.offset, page.len), (REGION_BYTES + 0x9000, 4096));
    let runs = [Run { gpa: HIGH + 0x3000, len: 0x2000 }, Run { gpa: 0x1000, len: 0x1000 }];
    let head = MapRegion { region: 0, flags: 0, va: 0x7000_0000, len: 0x3000, run_count: 2, reserved: 0 };
    let body = [head.as_bytes(), runs.as_bytes()].concat();
    assert_eq!(bench.machine.ask(control::MAP_REGION, 0, &body).error, regs::ERROR_NONE);
    let pieces = bench.fake.expect("map", |asked| match asked {
        Asked::Map { pieces } => Some(pieces.clone()),
        _ => None,
    });
    let places: Vec<_> = pieces.iter().map(|piece| (piece.offset, piece.len)).collect();
    assert_eq!(places, [(0x3000, 0x2000), (REGION_BYTES + 0x1000, 0x1000)]);
    // It is the guest's memory: what is written to the file there is what the guest reads.
    let file = std::fs::File::from(pieces[0].file.try_clone().unwrap());
    std::os::unix::fs::FileExt::write_all_at(&file, b"hello", pieces[0].offset).unwrap();
    let mut read = [0; 5];
    bench.machine.memory.read_slice(&mut read, GuestAddress(HIGH + 0x3000)).unwrap();
    assert_eq!(&read, b"hello");
    assert_eq!(file.metadata().unwrap().size(), 2 * REGION_BYTES);
    bench.disconnect().unwrap();
}

#[test]
fn run_across_the_end_of_a_region_is_refused() {
    let mut bench = Bench::booted();
    bench.machine.open(0);
    let head = MapRegion { region: 0, flags: 0, va: 0x7000_0000, len: 0x2000, run_count: 1, reserved: 0 };
    let run = Run { gpa: REGION_BYTES - 0x1000, len: 0x2000 };
    let body = [head.as_bytes(), run.as_bytes()].concat();
    assert_eq!(bench.machine.ask(control::MAP_REGION, 0, &body).error, regs::ERROR_INVALID_REQUEST);
    bench.disconnect().unwrap();
}

#[test]
fn late_answer_holds_nobody_up() {
    let mut bench = Bench::booted();
    bench.fake.hold();
    let slow = bench.machine.send(control::OPEN_SESSION, 0, &open_body());
    bench.fake.expect("open", |asked| matches!(asked, Asked::Open { .. }).then_some(()));
    assert_eq!(bench.machine.ask(control::READ_REGS, 0, &[]).error, regs::ERROR_NONE);
    bench.fake.release();
    let (head, answer) = bench.machine.answer();
    assert_eq!((head, answer.error), (slow, regs::ERROR_NONE));
    bench.disconnect().unwrap();
}

#[test]
fn requests_beyond_the_limit_wait_in_the_queue() {
    let mut bench = Bench::booted();
    bench.fake.hold();
    let limit = vhost_backend::front::OUTSTANDING_MAX;
    for session in 0..limit + 20 {
        bench.machine.send(control::OPEN_SESSION, session as u32, &open_body());
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while bench.fake.held() < limit {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(bench.fake.held(), limit);
    bench.fake.release();
    for _ in 0..limit + 20 {
        assert_eq!(bench.machine.answer().1.error, regs::ERROR_NONE);
    }
    bench.disconnect().unwrap();
}

#[test]
fn kick_passes_pending_bits_on() {
    let mut bench = Bench::booted();
    bench.machine.open(70);
    bench.machine.memory.write_obj(1u64 << 6 | 1 << 7, GuestAddress(PENDING_GPA + 8)).unwrap();
    bench.machine.control.kick();
    bench.fake.expect("kick", |asked| matches!(asked, Asked::Kick(70)).then_some(()));
    assert!(!bench.fake.was_asked(|asked| matches!(asked, Asked::Kick(_))), "71 is not open");
    let left: u64 = bench.machine.memory.read_obj(GuestAddress(PENDING_GPA + 8)).unwrap();
    assert_eq!(left, 0, "the bits were taken");
    bench.disconnect().unwrap();
}
