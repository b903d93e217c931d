use std::time::{Duration, Instant};

use super::*;

const SLOT: usize = 4 * UNIT_BYTES;
const CHUNK: usize = 2 * UNIT_BYTES;

/// The program's bytes and a staging buffer.
fn memory(len: usize) -> (Vec<u8>, Vec<u8>) {
    ((0..len).map(|i| (i % 251) as u8).collect(), vec![0; STAGING_SLOTS * SLOT])
}

fn places(way: Way, host: *mut u8, len: usize, staging: &mut [u8], first_slot: usize) -> Places {
    let staging = staging.as_mut_ptr();
    Places { way, host, len, staging, slot_bytes: SLOT, first_slot, chunk: CHUNK }
}

/// Copies a chunk, with whatever help there is.
fn copy_chunk(copying: &Copying, chunk: usize) {
    copying.open_chunk(chunk);
    let start = Instant::now();
    while !copying.is_copied(chunk) {
        copying.copy_one();
        assert!(start.elapsed() < Duration::from_secs(60), "a unit is not copied");
    }
}

#[test]
fn every_byte_goes_to_its_place_both_ways() {
    for len in [1, UNIT_BYTES, 9 * UNIT_BYTES - 1, 23 * UNIT_BYTES + 7, STREAMED_BYTES_MIN + 12345] {
        let (bytes, mut staging) = memory(len + 1);
        let mut back = vec![0u8; len + 2];
        // Odd addresses on the program's side.
        let (source, to) = (bytes[1..].as_ptr().cast_mut(), back[1..].as_mut_ptr());
        // SAFETY: memory of this test's, which outlives both and which nothing else uses; a chunk comes up before it goes down.
        let (up, down) = unsafe {
            (
                Copying::begin(places(Way::Up, source, len, &mut staging, 3), true),
                Copying::begin(places(Way::Down, to, len, &mut staging, 3), true),
            )
        };
        for chunk in 0..up.places().count() {
            copy_chunk(&up, chunk);
            copy_chunk(&down, chunk);
        }
        drop((up, down));
        assert!(back[1..=len] == bytes[1..] && back[0] == 0 && back[len + 1] == 0, "{len} bytes");
    }
}

#[test]
fn copies_of_several_threads_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..50 {
                    let len = (thread + 3) * UNIT_BYTES + round;
                    let (bytes, mut staging) = memory(len);
                    let host = bytes.as_ptr().cast_mut();
                    // SAFETY: memory of this round's, which outlives it and which nothing else uses.
                    let up = unsafe { Copying::begin(places(Way::Up, host, len, &mut staging, 0), true) };
                    let count = up.places().count();
                    (0..count).for_each(|chunk| copy_chunk(&up, chunk));
                    drop(up);
                    for (slot, part) in staging.chunks(SLOT).zip(bytes.chunks(CHUNK)) {
                        assert!(slot[..part.len()] == *part);
                    }
                }
            });
        }
    });
}

#[test]
fn a_copy_that_is_given_up_is_over() {
    for _ in 0..200 {
        let (bytes, mut staging) = memory(8 * UNIT_BYTES);
        let host = bytes.as_ptr().cast_mut();
        // SAFETY: memory of this round's, which outlives it and which nothing else uses.
        let up = unsafe { Copying::begin(places(Way::Up, host, bytes.len(), &mut staging, 0), true) };
        up.open_chunk(0);
        up.open_chunk(1);
        drop(up);
        let before = staging.clone();
        std::thread::yield_now();
        assert!(before == staging);
    }
}

#[test]
fn streamed_copies_are_exact() {
    let (bytes, _) = memory(5000);
    for (from, to, len) in [(0, 0, 0), (1, 0, 1), (3, 5, 63), (0, 1, 64), (7, 9, 4096 + 13), (64, 64, 128)] {
        let mut out = vec![0xffu8; 5000];
        // SAFETY: within both vectors.
        unsafe { stores::stream(bytes[from..].as_ptr(), out[to..].as_mut_ptr(), len) };
        assert!(out[to..to + len] == bytes[from..from + len]);
        assert!(out[..to].iter().chain(&out[to + len..]).all(|b| *b == 0xff));
    }
}
