//! Frames and replies between two ends that keep the rules.
#![allow(clippy::cast_possible_truncation, reason = "patterns are cut on purpose")]
#![cfg(not(loom))]

mod fenced;

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;

use pci_layout::ring::{
    FRAME_BULK, FRAME_BYTES_MAX, FRAME_WAIT, GUEST_WAITS_PROGRESS, GUEST_WAITS_SPACE, REPLY_AREA_BYTES,
};
use proptest::prelude::*;
use vgpu_ring::{
    Blocking, Consumer, FRAME_HEADER_BYTES, FrameBuffer, FrameFields, FrameTooLong, Producer, WaitFor,
};

const ARGS_MAX: usize = FRAME_BYTES_MAX as usize - FRAME_HEADER_BYTES;

fn ends() -> (Producer, Consumer) {
    let memory = fenced::ring();
    (Producer::new(memory.clone()), Consumer::new(memory))
}

fn fields(ticket: u64) -> FrameFields {
    FrameFields { call: 7, flags: 0, context: 3, ticket }
}

fn post(producer: &mut Producer, ticket: u64, args: &[u8]) -> bool {
    let mut writer = producer.reserve().expect("space");
    writer.put(args);
    writer.publish(fields(ticket)).unwrap()
}

/// Bytes that tell their frame and place.
fn pattern(ticket: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (ticket as usize * 31 + i * 7) as u8).collect()
}

#[test]
fn a_frame_arrives_as_it_was_written() {
    let (mut producer, mut consumer) = ends();
    let mut writer = producer.reserve().unwrap();
    writer.put_u32(0);
    writer.put(b"abc");
    writer.align(8);
    writer.put_u64(0x1122_3344_5566_7788);
    writer.patch(0, &7u32.to_le_bytes());
    assert_eq!((writer.len(), writer.remaining()), (16, ARGS_MAX - 16));
    let kick = writer
        .publish(FrameFields { call: 9, flags: FRAME_WAIT | FRAME_BULK, context: 5, ticket: 42 })
        .unwrap();
    assert!(!kick, "nobody has parked");

    let front = consumer.peek().unwrap().unwrap();
    assert_eq!((front.ticket, front.call, front.context, front.args_len), (42, 9, 5, 16));
    assert!(front.waits() && front.is_bulk());
    let mut buffer = FrameBuffer::new();
    let frame = consumer.take(&mut buffer).unwrap().unwrap();
    assert_eq!(frame.args, b"\x07\0\0\0abc\0\x88\x77\x66\x55\x44\x33\x22\x11");
    assert!(frame.args.as_ptr().addr().is_multiple_of(8));
    assert!(consumer.take(&mut buffer).unwrap().is_none());
}

#[test]
fn arguments_are_filled_up_with_zeros_even_where_old_frames_lay() {
    let (mut producer, mut consumer) = ends();
    let mut buffer = FrameBuffer::new();
    let mut tickets = 1..;
    let mut wrapped = 0;
    while wrapped < 40 {
        let ticket = tickets.next().unwrap();
        let ones = ticket % 2 == 0;
        post(&mut producer, ticket, &vec![0xff; if ones { 60_000 } else { 1 }]);
        let frame = consumer.take(&mut buffer).unwrap().unwrap();
        assert!(ones || frame.args == [0xff, 0, 0, 0, 0, 0, 0, 0]);
        wrapped += 1;
        let _ = consumer.release();
    }
}

#[test]
fn a_frame_too_long_publishes_nothing_and_the_next_one_is_whole() {
    let (mut producer, mut consumer) = ends();
    let mut writer = producer.reserve().unwrap();
    writer.put(&[1; ARGS_MAX]);
    writer.put(&[2]);
    assert_eq!(writer.remaining(), 0);
    writer.put(&[]);
    assert_eq!(writer.publish(fields(1)), Err(FrameTooLong));
    assert_eq!(consumer.peek(), Ok(None));
    post(&mut producer, 1, &[3; ARGS_MAX]);
    let mut buffer = FrameBuffer::new();
    assert_eq!(consumer.take(&mut buffer).unwrap().unwrap().args, [3; ARGS_MAX]);
}

#[test]
fn a_dropped_writer_leaves_nothing_behind() {
    let (mut producer, mut consumer) = ends();
    producer.reserve().unwrap().put(b"never");
    assert_eq!(consumer.peek(), Ok(None));
    post(&mut producer, 1, b"now");
    let mut buffer = FrameBuffer::new();
    assert_eq!(&consumer.take(&mut buffer).unwrap().unwrap().args[..3], b"now");
}

#[test]
fn a_full_ring_refuses_and_half_of_it_frees_it() {
    let (mut producer, mut consumer) = ends();
    let mut buffer = FrameBuffer::new();
    let mut published = 0;
    while producer.has_space() {
        published += 1;
        post(&mut producer, published, &[0; ARGS_MAX]);
    }
    assert_eq!(published, 3, "three of four quarters, and the fourth may be needed for padding");
    assert!(producer.reserve().is_none());
    assert!(producer.prepare_wait(WaitFor::Space));
    consumer.take(&mut buffer).unwrap().unwrap();
    assert!(!consumer.take_guest_parked(GUEST_WAITS_PROGRESS), "it waits for something else");
    assert!(consumer.release(), "half is free: wake");
    assert!(!consumer.take_guest_parked(GUEST_WAITS_SPACE), "the flag went with the wake");
    producer.finish_wait();
    assert!(producer.reserve().is_some());
}

#[test]
fn a_release_that_frees_less_than_half_wakes_nobody() {
    let (mut producer, mut consumer) = ends();
    let mut buffer = FrameBuffer::new();
    for (ticket, len) in [(1, 100), (2, 60_000), (3, 60_000), (4, 60_000)] {
        post(&mut producer, ticket, &vec![0; len]);
    }
    assert!(!producer.has_space());
    assert!(producer.prepare_wait(WaitFor::Space));
    consumer.take(&mut buffer).unwrap().unwrap();
    assert!(!consumer.release(), "three frames of 60 KB are more than half");
    consumer.take(&mut buffer).unwrap().unwrap();
    assert!(consumer.release());
}

#[test]
fn replies_carry_result_and_data() {
    let (producer, mut consumer) = ends();
    assert_eq!(producer.poll_reply(1), None);
    let data = pattern(1, 1001);
    assert_eq!(consumer.reply(1, 700, &data), Ok(false));
    let reply = producer.poll_reply(1).unwrap();
    assert_eq!((reply.result, reply.len), (700, 1001));
    let mut part = [0; 100];
    assert!(producer.read_reply(333, &mut part));
    assert_eq!(part, data[333..433]);
    assert!(!producer.read_reply(REPLY_AREA_BYTES as usize - 99, &mut part));
    assert_eq!(producer.poll_reply(2), None);
    let whole = pattern(2, REPLY_AREA_BYTES as usize);
    consumer.reply(2, 0, &whole).unwrap();
    let mut back = vec![0; whole.len()];
    assert!(producer.read_reply(0, &mut back));
    assert_eq!(back, whole);
    assert!(consumer.reply(3, 0, &vec![0; REPLY_AREA_BYTES as usize + 1]).is_err());
    assert_eq!(producer.poll_reply(3), None);
}

#[test]
fn the_first_error_of_posted_calls_is_told_once() {
    let (producer, mut consumer) = ends();
    assert_eq!(producer.take_async_error(), None);
    consumer.post_error(700, 11);
    consumer.post_error(1, 12);
    assert_eq!(producer.take_async_error(), Some((700, 11)));
    assert_eq!(producer.take_async_error(), None);
    consumer.post_error(1, 13);
    assert_eq!(producer.take_async_error(), Some((1, 13)));
}

#[test]
fn a_host_that_sleeps_is_kicked_until_it_is_up() {
    let (mut producer, mut consumer) = ends();
    assert!(consumer.prepare_park());
    assert!(post(&mut producer, 1, b""), "the host sleeps");
    assert!(post(&mut producer, 2, b""), "it still sleeps");
    assert!(consumer.view().has_data());
    consumer.cancel_park();
    assert!(!post(&mut producer, 3, b""), "it is up");
    assert!(!consumer.prepare_park(), "there is data");
    assert!(!post(&mut producer, 4, b""), "the announcement was withdrawn");
}

#[test]
fn bulk_frames_are_counted_and_wake_their_waiter() {
    let (mut producer, mut consumer) = ends();
    assert!(!consumer.bulk_finished());
    assert!(!producer.prepare_wait(WaitFor::Bulk(1)));
    assert!(producer.prepare_wait(WaitFor::Bulk(2)));
    assert!(consumer.bulk_finished());
    assert!(producer.is_ready(WaitFor::Bulk(2)));
}

#[test]
fn posted_frames_hold_back_later_tickets_of_other_rings_until_issued() {
    let (mut producer, mut consumer) = ends();
    let view = consumer.view();
    let mut buffer = FrameBuffer::new();
    let mut other = FrameBuffer::new();
    assert_eq!(view.blocks(u64::MAX), None);
    post(&mut producer, 5, b"posted");
    assert_eq!(view.blocks(4), None);
    let Some(Blocking::Queued(front)) = view.blocks(6) else { panic!("ticket 5 is in front") };
    assert_eq!(front.ticket, 5);
    assert_eq!(&view.copy_front(&mut other).unwrap().args[..6], b"posted");
    consumer.take(&mut buffer).unwrap().unwrap();
    let _ = consumer.release();
    assert_eq!(view.blocks(6), Some(Blocking::InCall(5)));
    assert!(view.copy_front(&mut other).is_none());
    consumer.issued();
    assert_eq!(view.blocks(6), None);

    let mut writer = producer.reserve().unwrap();
    writer.put(b"waits");
    writer.publish(FrameFields { flags: FRAME_WAIT, ..fields(7) }).unwrap();
    assert_eq!(view.blocks(8), None, "who is waited for holds nobody back");
    consumer.take(&mut buffer).unwrap().unwrap();
    assert_eq!(view.blocks(8), None);
}

#[test]
fn the_view_sees_the_front_behind_padding() {
    let (mut producer, mut consumer) = ends();
    let view = consumer.view();
    let mut buffer = FrameBuffer::new();
    for ticket in 1..40 {
        post(&mut producer, ticket, &[1; 50_001]);
        assert!(matches!(view.blocks(100), Some(Blocking::Queued(front)) if front.ticket == ticket));
        consumer.take(&mut buffer).unwrap().unwrap();
        consumer.issued();
        let _ = consumer.release();
        assert!(!view.has_data());
    }
}

#[test]
fn two_threads_that_park_lose_nothing() {
    const FRAMES: u64 = 60_000;
    let (mut producer, mut consumer) = ends();
    let (to_host, kicks) = mpsc::channel();
    let (to_guest, wakes) = mpsc::channel();
    let host = thread::spawn(move || {
        let mut buffer = FrameBuffer::new();
        let mut expected = 1;
        while expected <= FRAMES {
            let Some(frame) = consumer.take(&mut buffer).unwrap() else {
                if consumer.prepare_park() {
                    kicks.recv().unwrap();
                    consumer.cancel_park();
                }
                continue;
            };
            assert_eq!(frame.ticket, expected);
            assert_eq!(frame.args[..8], expected.to_le_bytes());
            let waits = frame.waits();
            expected += 1;
            let mut wake = consumer.release();
            if waits {
                wake |= consumer.reply(expected - 1, expected as u32, &[]).unwrap();
            }
            if wake {
                to_guest.send(()).unwrap();
            }
        }
    });
    let wait = |producer: &mut Producer, wait| {
        while !producer.is_ready(wait) {
            if producer.prepare_wait(wait) {
                wakes.recv().unwrap();
                producer.finish_wait();
            }
        }
    };
    for ticket in 1..=FRAMES {
        wait(&mut producer, WaitFor::Space);
        let mut writer = producer.reserve().unwrap();
        writer.put_u64(ticket);
        writer.put(&[9; 900][..ticket as usize % 900]);
        let flags = if ticket % 64 == 0 { FRAME_WAIT } else { 0 };
        if writer.publish(FrameFields { flags, ..fields(ticket) }).unwrap() {
            to_host.send(()).unwrap();
        }
        if flags != 0 {
            wait(&mut producer, WaitFor::Reply(ticket));
            assert_eq!(producer.poll_reply(ticket).unwrap().result, ticket as u32 + 1);
        }
    }
    host.join().unwrap();
}

/// What a random walk does.
#[derive(Debug, Clone)]
enum Step {
    /// Posts arguments in pieces of these lengths.
    Post(Vec<usize>),
    Take,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    let piece = prop_oneof![4 => 0..64usize, 2 => 0..4096usize, 1 => 0..40_000usize];
    prop_oneof![
        3 => prop::collection::vec(piece, 0..4).prop_map(Step::Post),
        1 => Just(Step::Post(vec![ARGS_MAX])),
        4 => Just(Step::Take),
        2 => Just(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn frames_of_any_length_arrive_intact_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
        let (mut producer, mut consumer) = ends();
        let view = consumer.view();
        let mut buffer = FrameBuffer::new();
        let mut in_flight = VecDeque::new();
        let mut ticket = 0;
        for step in steps {
            match step {
                Step::Post(pieces) => {
                    let Some(mut writer) = producer.reserve() else { continue };
                    ticket += 1;
                    let args = pattern(ticket, pieces.iter().sum());
                    let mut rest = &args[..];
                    for len in pieces {
                        let (piece, after) = rest.split_at(len);
                        writer.put(piece);
                        rest = after;
                    }
                    match writer.publish(fields(ticket)) {
                        Ok(_) => in_flight.push_back((ticket, args)),
                        Err(FrameTooLong) => prop_assert!(args.len() > ARGS_MAX),
                    }
                }
                Step::Take => {
                    let front = consumer.peek().unwrap();
                    prop_assert_eq!(view.has_data(), front.is_some());
                    let frame = consumer.take(&mut buffer).unwrap();
                    prop_assert_eq!(front.map(|f| f.ticket), frame.map(|f| f.ticket));
                    match (in_flight.pop_front(), frame) {
                        (None, None) => {}
                        (Some((ticket, args)), Some(frame)) => {
                            prop_assert_eq!(frame.ticket, ticket);
                            prop_assert_eq!((frame.call, frame.context), (7, 3));
                            prop_assert_eq!(&frame.args[..args.len()], &args[..]);
                            prop_assert!(frame.args.len() - args.len() < 8);
                            prop_assert!(frame.args[args.len()..].iter().all(|&byte| byte == 0));
                        }
                        (sent, got) => prop_assert!(false, "sent {sent:?}, got {got:?}"),
                    }
                }
                Step::Release => { let _ = consumer.release(); }
            }
        }
    }
}
