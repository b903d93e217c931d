//! A guest that does not keep the rules gets an error, and never more than that.
#![cfg(not(loom))]

mod fenced;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fenced::{base, set_head};
use pci_layout::ring::{
    FRAME_AREA_BYTES, FRAME_BYTES_MAX, FRAME_PAD, FRAME_WAIT, FrameHeader, HEADER_BYTES, OFF_TAIL, RING_BYTES,
};
use proptest::prelude::*;
use vgpu_ring::{Consumer, FRAME_HEADER_BYTES, FrameBuffer, FrameFields, Producer, RingError, RingMemory};

const AREA: u64 = FRAME_AREA_BYTES as u64;
#[allow(clippy::cast_possible_truncation, reason = "24")]
const HEADER: u32 = FRAME_HEADER_BYTES as u32;

fn put_header(memory: &RingMemory, position: u64, header: FrameHeader) {
    let offset = HEADER_BYTES as usize + (position % AREA) as usize;
    // SAFETY: in the frame area; the tests put headers where they fit.
    unsafe { base(memory).add(offset).cast::<FrameHeader>().write(header) };
}

fn header(len: u32) -> FrameHeader {
    FrameHeader { len, call: 1, flags: 0, context: 0, ticket: 1 }
}

/// The error that this first frame, with `published` bytes published, is refused with.
fn refused(header: FrameHeader, published: u64) -> RingError {
    let memory = fenced::ring();
    let mut consumer = Consumer::new(memory.clone());
    put_header(&memory, 0, header);
    set_head(&memory, published);
    assert_eq!(consumer.view().blocks(u64::MAX), None, "nonsense holds nobody back");
    let error = consumer.peek().unwrap_err();
    assert_eq!(consumer.take(&mut FrameBuffer::new()).unwrap_err(), error);
    error
}

#[test]
fn lengths_that_cannot_be() {
    for (len, published) in [
        (0, 64),
        (8, 64),
        (HEADER - 8, 64),
        (HEADER + 1, 64),
        (64, 56),
        (u32::MAX, AREA),
        (u32::MAX - 7, AREA),
        (FRAME_BYTES_MAX + 8, AREA),
        (HEADER, 16),
    ] {
        let error = refused(header(len), published);
        assert!(matches!(error, RingError::BadLength { .. }), "{len} of {published}: {error}");
    }
}

#[test]
fn flags_that_cannot_be() {
    for flags in [1 << 4, 1 << 31, FRAME_PAD | FRAME_WAIT] {
        let error = refused(FrameHeader { flags, ..header(HEADER) }, 64);
        assert_eq!(error, RingError::BadFlags { flags, position: 0 });
    }
}

#[test]
fn tickets_that_do_not_rise() {
    let error = refused(FrameHeader { ticket: 0, ..header(HEADER) }, 24);
    assert_eq!(error, RingError::TicketNotRising { ticket: 0, previous: 0, position: 0 });

    let memory = fenced::ring();
    let mut consumer = Consumer::new(memory.clone());
    put_header(&memory, 0, FrameHeader { ticket: 9, ..header(HEADER) });
    put_header(&memory, 24, FrameHeader { ticket: 9, ..header(HEADER) });
    set_head(&memory, 48);
    consumer.take(&mut FrameBuffer::new()).unwrap().unwrap();
    assert_eq!(consumer.peek(), Err(RingError::TicketNotRising { ticket: 9, previous: 9, position: 24 }));
}

#[test]
fn heads_that_cannot_be() {
    let memory = fenced::ring();
    let mut consumer = Consumer::new(memory.clone());
    for head in [AREA + 8, u64::MAX, u64::MAX - 7, 1 << 63] {
        set_head(&memory, head);
        assert_eq!(consumer.peek(), Err(RingError::HeadRanAway { head, tail: 0 }));
    }
    set_head(&memory, 4);
    assert_eq!(consumer.peek(), Err(RingError::HeadUnaligned { head: 4 }));
    put_header(&memory, 0, header(HEADER));
    set_head(&memory, 24);
    consumer.take(&mut FrameBuffer::new()).unwrap().unwrap();
    set_head(&memory, 16);
    assert_eq!(consumer.peek(), Err(RingError::HeadRanBack { head: 16, position: 24 }));
}

#[test]
fn pads_that_cannot_be() {
    let pad = |len| FrameHeader { len, call: 0, flags: FRAME_PAD, context: 0, ticket: 0 };
    // The whole area is no padding, and padding reaches the area's end.
    assert!(matches!(refused(pad(FRAME_AREA_BYTES), AREA), RingError::BadLength { .. }));
    assert!(matches!(refused(pad(HEADER), AREA), RingError::BadLength { .. }));

    let memory = fenced::ring();
    let mut consumer = Consumer::new(memory.clone());
    let mut buffer = FrameBuffer::new();
    put_header(&memory, 0, header(1024));
    set_head(&memory, 1024);
    consumer.take(&mut buffer).unwrap().unwrap();
    let _ = consumer.release();
    // Padding alone, published without the frame that it makes room for.
    put_header(&memory, 1024, pad(FRAME_AREA_BYTES - 1024));
    set_head(&memory, AREA);
    assert!(matches!(consumer.peek(), Err(RingError::BadLength { position: AREA, .. })));
}

#[test]
fn what_the_host_wrote_is_never_believed() {
    let memory = fenced::ring();
    let mut producer = Producer::new(memory.clone());
    let mut consumer = Consumer::new(memory.clone());
    let mut buffer = FrameBuffer::new();
    for ticket in 1..100 {
        let mut writer = producer.reserve().unwrap();
        writer.put(&[7; 9000]);
        writer.publish(FrameFields { call: 1, flags: 0, context: 0, ticket }).unwrap();
        assert_eq!(consumer.take(&mut buffer).unwrap().unwrap().ticket, ticket);
        let _ = consumer.release();
        // SAFETY: a word of the header page.
        let tail = unsafe { AtomicU64::from_ptr(base(&memory).add(OFF_TAIL as usize).cast()) };
        let mine = tail.swap(u64::MAX - 15, Ordering::AcqRel);
        assert_eq!(consumer.peek(), Ok(None));
        tail.store(mine, Ordering::Release);
    }
}

#[test]
fn a_header_changed_after_the_check_changes_nothing() {
    let memory = fenced::ring();
    let mut consumer = Consumer::new(memory.clone());
    put_header(&memory, 0, FrameHeader { ticket: 3, ..header(48) });
    set_head(&memory, 48);
    consumer.peek().unwrap().unwrap();
    put_header(&memory, 0, FrameHeader { len: u32::MAX, call: 2, flags: FRAME_PAD, context: 9, ticket: 0 });
    let mut buffer = FrameBuffer::new();
    let frame = consumer.take(&mut buffer).unwrap().unwrap();
    assert_eq!((frame.ticket, frame.call, frame.flags, frame.context, frame.args.len()), (3, 1, 0, 0, 24));
}

/// Uses everything the host uses, until the guest is found out.
fn consume(consumer: &mut Consumer, rounds: usize) -> Result<(), RingError> {
    let view = consumer.view();
    let (mut buffer, mut other) = (FrameBuffer::new(), FrameBuffer::new());
    for _ in 0..rounds {
        let _ = view.blocks(1 << 40);
        if let Some(frame) = view.copy_front(&mut other) {
            assert!(frame.args.len() <= FRAME_BYTES_MAX as usize - FRAME_HEADER_BYTES);
        }
        let Some(frame) = consumer.take(&mut buffer)? else {
            if consumer.prepare_park() {
                consumer.cancel_park();
            }
            continue;
        };
        let (ticket, waits) = (frame.ticket, frame.waits());
        let _ = consumer.release();
        if waits {
            let _ = consumer.reply(ticket, 0, b"reply").unwrap();
        }
        consumer.issued();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_do_more_than_fail(
        words in prop::collection::vec(
            (0..FRAME_AREA_BYTES / 8, prop_oneof![
                any::<u64>(), (0..FRAME_BYTES_MAX).prop_map(u64::from), (0..1u64 << 20).prop_map(|x| x & !7),
            ]), 0..64),
        frames in prop::collection::vec((0..3000u32, any::<u8>(), 0..100u64), 0..40),
        heads in prop::collection::vec(prop_oneof![any::<u64>(), (0..AREA * 2).prop_map(|x| x & !7)], 1..6),
    ) {
        let memory = fenced::ring();
        let mut position = 0;
        for (len, flags, ticket) in frames {
            let flags = u32::from(flags);
            put_header(&memory, position, FrameHeader { len, call: 1, flags, context: 0, ticket });
            position += u64::from(len.next_multiple_of(8).max(HEADER));
        }
        for (word, value) in words {
            // SAFETY: in the frame area.
            unsafe { base(&memory).add((HEADER_BYTES + word * 8) as usize).cast::<u64>().write(value) };
        }
        let mut consumer = Consumer::new(memory.clone());
        for head in heads {
            set_head(&memory, head);
            if consume(&mut consumer, 50).is_err() {
                break;
            }
        }
    }
}

#[test]
fn memory_that_changes_all_the_time() {
    let memory = fenced::ring();
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = {
        let (memory, stop) = (memory.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let value = match random >> 61 {
                    0 => random,
                    // Headers that often make sense: length and call, flags and context, ticket.
                    1 | 2 => 24 + (random >> 20) % 64 * 8,
                    3 => (random >> 20) % 8,
                    _ => random >> 30,
                };
                let word = (random >> 33) as usize % 512;
                // SAFETY: within the ring's memory; the words are atomics for the host.
                let at = unsafe {
                    AtomicU64::from_ptr(base(&memory).add(HEADER_BYTES as usize).cast::<u64>().add(word))
                };
                at.store(value, Ordering::Relaxed);
                if random & 0xf0 == 0 {
                    set_head(&memory, ((random >> 40) % 4096) & !7);
                }
                if random & 0xfff00 == 0 {
                    // SAFETY: as above, any word at all.
                    let any = unsafe {
                        AtomicU64::from_ptr(
                            base(&memory)
                                .cast::<u64>()
                                .add((random >> 13) as usize % (RING_BYTES / 8) as usize),
                        )
                    };
                    any.store(random, Ordering::Relaxed);
                }
            }
        })
    };
    let end = Instant::now() + Duration::from_millis(400);
    let (mut found_out, mut lasted) = (0, 0);
    while Instant::now() < end {
        // A consumer is at its position 0 again each time: the scribbler's heads stay near it.
        match consume(&mut Consumer::new(memory.clone()), 20) {
            Ok(()) => lasted += 1,
            Err(_) => found_out += 1,
        }
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
    assert!(found_out > 0, "{found_out} found out, {lasted} lasted");
}
