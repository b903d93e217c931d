//! The parser: what it takes, and every way to be refused.

use pci_layout::control::{self, Run};
use pci_layout::regs::{ERROR_INVALID_LENGTH, ERROR_INVALID_REQUEST, ERROR_TOO_LARGE};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::fake::{Guest, map_body, message, open_body, parse, part_body};
use crate::request::Request;

fn error_of(kind: u32, session: u32, body: &[u8]) -> Option<u32> {
    Request::parse(&message(kind, 1, session, body)).err().map(|refusal| refusal.error)
}

/// `body` with the u32 at `offset` replaced.
fn with_u32(body: &[u8], offset: usize, value: u32) -> Vec<u8> {
    let mut body = body.to_vec();
    body[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    body
}

fn with_u64(body: &[u8], offset: usize, value: u64) -> Vec<u8> {
    let mut body = body.to_vec();
    body[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    body
}

#[test]
fn every_type_is_taken_and_no_byte_more_or_less() {
    let hello = control::Hello { abi_version: 1, reserved: 0, boot_nonce: 5, pending_gpa: 0x1000 };
    let info = control::ReadInfo { offset: 0, len: 65536 };
    let run = [Run { gpa: 0x1000, len: 0x2000 }];
    let bodies: [(u32, u32, Vec<u8>); 9] = [
        (control::HELLO, 0, hello.as_bytes().to_vec()),
        (control::READ_REGS, 0, vec![]),
        (control::READ_INFO, 0, info.as_bytes().to_vec()),
        (control::OPEN_SESSION, 255, open_body(b"A=1\0B=\0")),
        (control::ADD_RING_PART, 1, part_body(255, control::PART_STAGING)),
        (control::REMOVE_RING, 1, vec![0; 8]),
        (control::MAP_REGION, 1, map_body(4095, control::MAP_READ_ONLY, 0x7f00_0000_0000, &run)),
        (control::UNMAP_REGION, 1, vec![0; 8]),
        (control::CLOSE_SESSION, 1, vec![0; 8]),
    ];
    for (kind, session, body) in bodies {
        assert_eq!(error_of(kind, session, &body), None, "type {kind}");
        let longer = [body.as_slice(), &[0; 8]].concat();
        assert_eq!(error_of(kind, session, &longer), Some(ERROR_INVALID_LENGTH), "type {kind} with more");
        if let Some((_, shorter)) = body.split_last() {
            assert_eq!(error_of(kind, session, shorter), Some(ERROR_INVALID_LENGTH), "type {kind} with less");
        }
    }
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    assert_eq!(Request::parse(&[0; 15]).unwrap_err().error, ERROR_INVALID_LENGTH);
    assert_eq!(error_of(0, 0, &[]), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error_of(10, 0, &[]), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error_of(control::CLOSE_SESSION, 256, &[0; 8]), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error_of(control::READ_REGS, 1, &[]), Some(ERROR_INVALID_REQUEST));
    let mut reserved = message(control::READ_REGS, 1, 0, &[]);
    reserved[12] = 1;
    assert_eq!(Request::parse(&reserved).unwrap_err().error, ERROR_INVALID_REQUEST);
    let huge = message(control::READ_REGS, 1, 0, &vec![0; control::REQUEST_BYTES_MAX as usize]);
    assert_eq!(Request::parse(&huge).unwrap_err().error, ERROR_TOO_LARGE);
}

#[test]
fn environment_is_checked() {
    let error = |env: &[u8]| error_of(control::OPEN_SESSION, 0, &open_body(env));
    assert_eq!(error(b""), None);
    assert_eq!(error(b"A=1"), Some(ERROR_INVALID_REQUEST), "no NUL at the end");
    assert_eq!(error(b"A=1\0\0"), Some(ERROR_INVALID_REQUEST), "empty entry");
    assert_eq!(error(b"=1\0"), Some(ERROR_INVALID_REQUEST), "no name");
    assert_eq!(error(b"A\0"), Some(ERROR_INVALID_REQUEST), "no value");
    let long = [b"A=".as_slice(), &vec![b'x'; control::ENV_BYTES_MAX as usize], b"\0"].concat();
    assert_eq!(error(&long), Some(ERROR_TOO_LARGE));
    // env_len is at offset 32 of the body.
    assert_eq!(
        error_of(control::OPEN_SESSION, 0, &with_u32(&open_body(b"A=1\0"), 32, 3)),
        Some(ERROR_INVALID_LENGTH)
    );
    // page_gpa is at offset 24.
    let unaligned = with_u64(&open_body(b""), 24, 0x5008);
    assert_eq!(error_of(control::OPEN_SESSION, 0, &unaligned), Some(ERROR_INVALID_REQUEST));
}

#[test]
fn ring_parts_are_checked() {
    let error = |body: &[u8]| error_of(control::ADD_RING_PART, 0, body);
    let ring = part_body(0, control::PART_RING);
    assert_eq!(error(&ring), None);
    assert_eq!(error(&with_u32(&ring, 0, 256)), Some(ERROR_INVALID_REQUEST), "ring number");
    assert_eq!(error(&with_u32(&ring, 4, 2)), Some(ERROR_INVALID_REQUEST), "part number");
    assert_eq!(error(&with_u64(&ring, 8, 4096)), Some(ERROR_INVALID_LENGTH), "a short ring");
    let staging = part_body(0, control::PART_STAGING);
    assert_eq!(error(&with_u64(&staging, 8, 0)), Some(ERROR_INVALID_LENGTH));
    assert_eq!(error(&with_u64(&staging, 8, 1 << 40)), Some(ERROR_INVALID_LENGTH), "staging above its limit");
    assert_eq!(error(&with_u32(&staging, 20, 1)), Some(ERROR_INVALID_REQUEST), "reserved");
}

#[test]
fn runs_are_checked() {
    let va = 0x7f00_0000_0000;
    let error = |runs: &[Run]| error_of(control::MAP_REGION, 0, &map_body(0, 0, va, runs));
    let page = |gpa| Run { gpa, len: 4096 };
    assert_eq!(error(&[page(0), page(0x1000)]), None);
    assert_eq!(error(&[]), Some(ERROR_INVALID_LENGTH));
    assert_eq!(error(&[page(0x800)]), Some(ERROR_INVALID_REQUEST), "address not aligned");
    assert_eq!(error(&[Run { gpa: 0, len: 4097 }]), Some(ERROR_INVALID_REQUEST), "length not aligned");
    assert_eq!(error(&[page(0), Run { gpa: 0, len: 0 }]), Some(ERROR_INVALID_REQUEST), "empty run");
    assert_eq!(error(&[page(u64::MAX - 4095)]), Some(ERROR_INVALID_REQUEST), "wraps around");
    let two = map_body(0, 0, va, &[page(0), page(0)]);
    // len is at offset 16, run_count at 24.
    assert_eq!(error_of(control::MAP_REGION, 0, &with_u64(&two, 16, 4096)), Some(ERROR_INVALID_LENGTH));
    assert_eq!(error_of(control::MAP_REGION, 0, &with_u32(&two, 24, 1)), Some(ERROR_INVALID_LENGTH));
    assert_eq!(error_of(control::MAP_REGION, 0, &with_u32(&two, 24, 3)), Some(ERROR_INVALID_LENGTH));
    assert_eq!(error_of(control::MAP_REGION, 0, &with_u32(&two, 24, u32::MAX)), Some(ERROR_TOO_LARGE));
    // Two runs whose sum wraps to the length announced.
    let huge = [Run { gpa: 0, len: 1 << 63 }, Run { gpa: 0, len: 1 << 63 }, page(0)];
    let mut wrapped = map_body(0, 0, va, &[page(0)]);
    wrapped.truncate(32);
    wrapped = with_u32(&wrapped, 24, 3);
    wrapped.extend_from_slice(huge.as_bytes());
    assert_eq!(error_of(control::MAP_REGION, 0, &wrapped), Some(ERROR_INVALID_LENGTH));
}

#[test]
fn region_addresses_are_user_addresses() {
    let page = [Run { gpa: 0, len: 4096 }];
    let error = |va| error_of(control::MAP_REGION, 0, &map_body(0, 0, va, &page));
    assert_eq!(error(0x7fff_ffff_f000), None);
    assert_eq!(error(0), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error(0x1008), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error(0x8000_0000_0000), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error(0xffff_ffff_ffff_f000), Some(ERROR_INVALID_REQUEST));
    assert_eq!(error_of(control::MAP_REGION, 0, &map_body(0, 2, 0x1000, &page)), Some(ERROR_INVALID_REQUEST));
    assert_eq!(
        error_of(control::MAP_REGION, 0, &map_body(4096, 0, 0x1000, &page)),
        Some(ERROR_INVALID_REQUEST)
    );
}

/// Bytes that look like a message: a known type, small numbers, so that the deeper checks are reached.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::collection::vec(
        prop_oneof![0u32..12, Just(4096u32), Just(0x5_1000u32), Just(u32::MAX), any::<u32>()],
        0..40,
    );
    (0u32..11, 0u32..4, words).prop_map(|(kind, session, words)| message(kind, 9, session, words.as_bytes()))
}

proptest! {
    #[test]
    fn any_bytes_get_exactly_one_answer(
        messages in prop::collection::vec(prop_oneof![prop::collection::vec(any::<u8>(), 0..200), plausible()], 1..20),
        room in 16usize..70000,
    ) {
        let guest = Guest::booted();
        guest.open(1);
        for bytes in &messages {
            let answers = guest.send(bytes, room);
            let answer = parse(&answers.try_recv().expect("no answer"));
            prop_assert!(answers.try_recv().is_err(), "a second answer");
            let id = crate::request::request_id(bytes).unwrap_or(0);
            prop_assert_eq!(answer.request_id, id);
            prop_assert!(answer.body.len() + 16 <= room);
        }
        let counters = guest.device.counters();
        prop_assert_eq!(counters.requests, counters.answers);
        prop_assert_eq!(counters.dropped, 0);
    }
}
