#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::alloc::{Layout, alloc_zeroed, dealloc};

use vgpu_ring::{Consumer, FrameBuffer, FrameFields, Producer, RingMemory};

use super::*;

struct Memory {
    base: NonNull<u8>,
}

impl Memory {
    fn layout() -> Layout {
        Layout::from_size_align(RING_BYTES as usize, 4096).expect("layout")
    }

    fn new() -> Self {
        // SAFETY: the layout is not empty.
        Self { base: NonNull::new(unsafe { alloc_zeroed(Self::layout()) }).expect("memory") }
    }

    fn ring(&self) -> RingMemory {
        // SAFETY: page aligned, RING_BYTES long, freed after everything that uses it.
        unsafe { RingMemory::new(self.base) }
    }

    fn words(&self) -> RingWords {
        // SAFETY: as above.
        unsafe { RingWords::new(self.base) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.base.as_ptr(), Self::layout()) }
    }
}

fn push(producer: &mut Producer, ticket: u64, flags: u32, args: usize) {
    let mut writer = producer.reserve().expect("space");
    writer.put(&vec![7; args]);
    writer.publish(FrameFields { call: 3, flags, context: 1, ticket }).expect("fits");
}

fn tickets(words: RingWords, taken: u64, before: u64) -> Option<Vec<u64>> {
    Some(words.posted_before(taken, before)?.iter().map(|frame| frame.ticket).collect())
}

#[test]
fn posted_frames_up_to_the_ticket_or_the_first_waiting_one() {
    let memory = Memory::new();
    let mut producer = Producer::new(memory.ring());
    let mut consumer = Consumer::new(memory.ring());
    assert_eq!(tickets(memory.words(), 0, 100), Some(vec![]));
    for ticket in [1, 3, 5, 9] {
        push(&mut producer, ticket, 0, 16);
    }
    push(&mut producer, 11, FRAME_WAIT, 0);
    assert_eq!(tickets(memory.words(), 0, 100), Some(vec![1, 3, 5, 9]));
    assert_eq!(tickets(memory.words(), 0, 5), Some(vec![1, 3]));
    let mut buffer = FrameBuffer::new();
    consumer.take(&mut buffer).expect("sound").expect("there");
    let taken = consumer.view().taken();
    assert_eq!(tickets(memory.words(), taken, 5), Some(vec![3]), "whether its space was given back or not");
    let _ = consumer.release();
    assert_eq!(tickets(memory.words(), taken, 5), Some(vec![3]));
    assert_eq!(memory.words().posted_before(taken, 5).expect("sound")[0].args, [7; 16]);
}

#[test]
fn frames_are_found_across_the_end_of_the_area() {
    let memory = Memory::new();
    let mut producer = Producer::new(memory.ring());
    let mut consumer = Consumer::new(memory.ring());
    let mut buffer = FrameBuffer::new();
    let mut ticket = 1;
    for _ in 0..40 {
        push(&mut producer, ticket, 0, 30_000);
        push(&mut producer, ticket + 1, 0, 8);
        let taken = consumer.view().taken();
        assert_eq!(tickets(memory.words(), taken, u64::MAX), Some(vec![ticket, ticket + 1]));
        ticket += 2;
        for _ in 0..2 {
            consumer.take(&mut buffer).expect("sound").expect("there");
            let _ = consumer.release();
        }
    }
}

#[test]
fn nonsense_is_not_overtaken() {
    let memory = Memory::new();
    let mut producer = Producer::new(memory.ring());
    push(&mut producer, 1, 0, 16);
    let put = |offset: u32, value: u64| {
        // SAFETY: within the ring's memory.
        unsafe { AtomicU64::from_ptr(memory.base.as_ptr().add(offset as usize).cast()) }
            .store(value, Ordering::Relaxed);
    };
    for len in [0u64, 8, 20, 25, 1 << 17, 0xffff_fff8] {
        put(HEADER_BYTES, len | 3 << 32);
        assert_eq!(tickets(memory.words(), 0, 100), None, "length {len}");
    }
    put(OFF_HEAD, u64::MAX - 7);
    assert_eq!(tickets(memory.words(), 0, 100), None);
    assert_eq!(tickets(memory.words(), u64::MAX, 100), None);
}

#[test]
fn a_long_queue_is_seen_whole() {
    let memory = Memory::new();
    let mut producer = Producer::new(memory.ring());
    for ticket in 1..=2000 {
        push(&mut producer, ticket, 0, 40);
    }
    assert_eq!(tickets(memory.words(), 0, 5000), Some((1..=2000).collect()));
    assert_eq!(tickets(memory.words(), 0, 1500).map(|tickets| tickets.len()), Some(1499));
}
