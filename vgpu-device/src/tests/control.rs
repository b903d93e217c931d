//! Requests and their answers.

use pci_layout::control::{self, HelloReply, Run};
use pci_layout::{ABI_VERSION, regs, ring};
use zerocopy::{FromBytes, IntoBytes};

use super::fake::{Asked, Guest, INFO, LIVE, PENDING_GPA, map_body, message, open_body, parse, part_body};
use crate::{Front, RingPart, SessionError, Wake};

#[test]
fn hello_gives_limits_and_capabilities() {
    let guest = Guest::new(Front::Queues);
    let answer = guest.hello(1);
    let greeting = HelloReply::read_from_bytes(&answer.body).unwrap();
    assert_eq!(greeting.abi_version, ABI_VERSION);
    assert_eq!(greeting.capabilities, regs::CAP_MAP_GUEST_PAGES);
    assert_eq!((greeting.session_limit, greeting.ring_limit), (128, ring::RINGS_MAX));
}

#[test]
fn hello_of_another_version_is_refused_but_told_ours() {
    let guest = Guest::new(Front::Queues);
    let hello = control::Hello { abi_version: 99, reserved: 0, boot_nonce: 1, pending_gpa: PENDING_GPA };
    let answer = guest.ask(control::HELLO, 0, hello.as_bytes());
    assert_eq!(answer.error, regs::ERROR_UNSUPPORTED);
    assert_eq!(HelloReply::read_from_bytes(&answer.body).unwrap().abi_version, ABI_VERSION);
    assert_eq!(guest.open(0).error, regs::ERROR_INVALID_REQUEST, "it has not been greeted");
}

#[test]
fn pending_page_outside_of_memory_is_refused() {
    let guest = Guest::new(Front::Queues);
    let hello = control::Hello { abi_version: 1, reserved: 0, boot_nonce: 1, pending_gpa: 1 << 40 };
    assert_eq!(guest.ask(control::HELLO, 0, hello.as_bytes()).error, regs::ERROR_INVALID_REQUEST);
}

#[test]
fn before_hello_only_reading_is_allowed() {
    let guest = Guest::new(Front::Queues);
    assert_eq!(guest.open(0).error, regs::ERROR_INVALID_REQUEST);
    assert_eq!(guest.ask(control::READ_REGS, 0, &[]).body.len(), 256);
    let info = control::ReadInfo { offset: 0, len: 65536 };
    assert_eq!(guest.ask(control::READ_INFO, 0, info.as_bytes()).body, INFO);
    assert_eq!(guest.fake.take(), []);
}

#[test]
fn information_is_read_in_parts_and_ends() {
    let guest = Guest::booted();
    let read = |offset, len| guest.ask(control::READ_INFO, 0, control::ReadInfo { offset, len }.as_bytes());
    assert_eq!(read(5, 10).body, INFO[5..15]);
    assert_eq!(read(INFO.len() as u32 - 3, 10).body, INFO[INFO.len() - 3..]);
    assert_eq!(read(INFO.len() as u32, 10).body, []);
    assert_eq!(read(u32::MAX, u32::MAX).error, regs::ERROR_TOO_LARGE);
    assert_eq!(read(u32::MAX, 1).body, []);
}

#[test]
fn what_changes_lies_beyond_what_does_not() {
    let guest = Guest::booted();
    let read = |offset, len| guest.ask(control::READ_INFO, 0, control::ReadInfo { offset, len }.as_bytes());
    assert_eq!(read(control::INFO_LIVE, 65536).body, LIVE);
    assert_eq!(read(control::INFO_LIVE + 5, 10).body, LIVE[5..15]);
    assert_eq!(read(control::INFO_LIVE + LIVE.len() as u32, 10).body, []);
    assert_eq!(read(control::INFO_LIVE - 1, 10).body, []);
}

#[test]
fn requests_reach_the_mediator_translated() {
    let guest = Guest::booted();
    assert_eq!(guest.open(3).error, regs::ERROR_NONE);
    assert_eq!(guest.add_part(3, 0, control::PART_RING).error, regs::ERROR_NONE);
    // The first two runs lie side by side and become one piece.
    let runs = [
        Run { gpa: 0x1000, len: 0x1000 },
        Run { gpa: 0x2000, len: 0x2000 },
        Run { gpa: 0x8000, len: 0x1000 },
    ];
    let body = map_body(9, control::MAP_READ_ONLY, 0x7000_0000, &runs);
    assert_eq!(guest.ask(control::MAP_REGION, 3, &body).error, regs::ERROR_NONE);
    let ring_len = u64::from(ring::RING_BYTES);
    let expected = [
        Asked::Open { session: 3, page: 0x5000, env: b"A=1\0".to_vec(), wake: Wake::Event },
        Asked::AddPart {
            session: 3,
            ring: 0,
            part: RingPart::Ring,
            len: ring_len,
            pieces: vec![(0x10_0000, ring_len)],
        },
        Asked::Map {
            session: 3,
            region: 9,
            read_only: true,
            va: 0x7000_0000,
            len: 0x4000,
            pieces: vec![(0x1000, 0x3000), (0x8000, 0x1000)],
        },
    ];
    assert_eq!(guest.fake.take(), expected);
}

#[test]
fn memory_that_is_not_the_guests_is_refused() {
    let guest = Guest::booted();
    guest.open(0);
    guest.fake.take();
    let outside = [Run { gpa: 0x1000, len: 0x1000 }, Run { gpa: 1 << 30, len: 0x1000 }];
    assert_eq!(guest.map(0, 1, 0x7000_0000, &outside).error, regs::ERROR_INVALID_REQUEST);
    let mut body = part_body(0, control::PART_STAGING);
    body[24..32].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_eq!(guest.ask(control::ADD_RING_PART, 0, &body).error, regs::ERROR_INVALID_REQUEST);
    assert_eq!(guest.fake.take(), []);
}

#[test]
fn errors_of_the_mediator_are_passed_on() {
    let guest = Guest::booted();
    *guest.fake.fail_with.lock().unwrap() = Some(SessionError { error: regs::ERROR_CUDA, cuda_result: 2 });
    let answer = guest.open(0);
    assert_eq!((answer.error, answer.cuda_result), (regs::ERROR_CUDA, 2));
    *guest.fake.fail_with.lock().unwrap() = Some(SessionError { error: regs::ERROR_TIMEOUT, cuda_result: 2 });
    let answer = guest.open(0);
    assert_eq!((answer.error, answer.cuda_result), (regs::ERROR_TIMEOUT, 0));
}

#[test]
fn answer_comes_when_the_mediator_is_done_and_not_before() {
    let guest = Guest::booted();
    *guest.fake.hold.lock().unwrap() = true;
    let answers = guest.send(&message(control::OPEN_SESSION, 5, 0, &open_body(b"")), 4096);
    assert!(answers.try_recv().is_err());
    guest.fake.release()(Ok(()));
    assert_eq!(parse(&answers.try_recv().unwrap()).error, regs::ERROR_NONE);
}

#[test]
fn operation_dropped_by_the_mediator_is_answered_all_the_same() {
    let guest = Guest::booted();
    *guest.fake.hold.lock().unwrap() = true;
    let answers = guest.send(&message(control::OPEN_SESSION, 5, 0, &open_body(b"")), 4096);
    drop(guest.fake.release());
    assert_eq!(parse(&answers.try_recv().unwrap()).error, regs::ERROR_MEDIATOR_UNAVAILABLE);
    *guest.fake.hold.lock().unwrap() = false;
    assert_eq!(guest.open(0).error, regs::ERROR_NONE, "its slot is free again");
}

#[test]
fn answer_without_room_is_cut_to_an_error() {
    let guest = Guest::booted();
    let answers = guest.send(&message(control::READ_REGS, 5, 0, &[]), 16 + 255);
    let answer = parse(&answers.try_recv().unwrap());
    assert_eq!((answer.error, answer.body.len()), (regs::ERROR_INVALID_LENGTH, 0));
}

#[test]
fn libcuda_of_another_version_is_refused() {
    let guest = Guest::booted();
    let mut body = open_body(b"");
    body[..4].copy_from_slice(&9u32.to_le_bytes());
    assert_eq!(guest.ask(control::OPEN_SESSION, 0, &body).error, regs::ERROR_UNSUPPORTED);
    assert_eq!(guest.fake.take(), []);
}

#[test]
fn local_processes_need_no_hello_and_wake_by_futex() {
    let guest = Guest::new(Front::Sockets);
    assert_eq!(guest.open(4).error, regs::ERROR_NONE);
    assert!(matches!(guest.fake.take()[0], Asked::Open { session: 4, wake: Wake::Futex, .. }));
}
