//! Many threads, streams and events at random: what CUDA orders comes in order.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cuda_api::calls::{copy, event, stream};
use cuda_api::host::Executor;
use cuda_api::types::*;
use driver::*;

/// A small generator, so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Each stream appends its step to a row of its own by a copy from the step before: a copy that comes too early or twice
/// leaves a wrong number at the end.
fn chain(g: &mut Guest, s: CUstream, row: u64, steps: u32, random: &mut Random) {
    for i in 0..steps {
        let (from, to) = (row + u64::from(i) * 4, row + u64::from(i + 1) * 4);
        match random.below(4) {
            0 => g.put_async(to, &(i + 1).to_le_bytes(), s).unwrap(),
            1 => g.write32(s, to, i + 1).unwrap(),
            2 => g.call::<copy::row::cuMemsetD32Async>((to, i + 1, 1, s)).unwrap(),
            _ => {
                // Behind its predecessor, or it would copy a zero.
                g.wait32(s, from, i).unwrap();
                g.call::<copy::row::cuMemcpyDtoDAsync_v2>((to, from, 4, s)).unwrap();
                g.write32(s, to, i + 1).unwrap();
            }
        }
    }
}

#[test]
fn streams_of_many_threads_keep_their_order() {
    let g = session(64);
    let threads = 6;
    let workers: Vec<_> = (0..threads)
        .map(|t| {
            let mut g = g.sibling(t + 1);
            std::thread::spawn(move || {
                let mut random = Random(0x9e37_79b9 + u64::from(t));
                for round in 0..20 {
                    let s = g.stream(100 * t + round + 1, u32::from(t % 2 == 0));
                    let row = g.alloc(4096).unwrap();
                    g.call::<copy::row::cuMemsetD8Async>((row, 0, 4096, s)).unwrap();
                    chain(&mut g, s, row, 200, &mut random);
                    match random.below(3) {
                        0 => g.sync(s).unwrap(),
                        1 => {
                            let e = g.event(100 * t + round + 1, 0);
                            g.record(e, s).unwrap();
                            g.call::<event::row::cuEventSynchronize>((e,)).unwrap();
                        }
                        _ => {
                            let e = g.event(100 * t + round + 1, 2);
                            g.record(e, s).unwrap();
                            g.call::<stream::row::cuStreamWaitEvent>((CUstream(2), e, 0)).unwrap();
                            g.sync(CUstream(2)).unwrap();
                        }
                    }
                    let numbers = g.get_async(row, 804, s).unwrap();
                    for (i, word) in numbers.chunks(4).enumerate() {
                        assert_eq!(u32::from_le_bytes(word.try_into().unwrap()), i as u32, "thread {t}");
                    }
                    g.call::<stream::row::cuStreamDestroy_v2>((s,)).unwrap();
                    g.free(row).unwrap();
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(g.soft.sticky(), 0);
}

#[test]
fn the_default_stream_is_a_barrier_between_blocking_streams() {
    let mut g = session(64);
    let d = g.alloc(64 << 10).unwrap();
    let n = 8u64;
    let streams: Vec<CUstream> = (0..n).map(|i| g.stream(i as u32 + 1, 0)).collect();
    let free = g.stream(100, 1);
    let gate = d + 4096;
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 64 << 10)).unwrap();
    for round in 1..=50u32 {
        for (i, s) in streams.iter().enumerate() {
            if i == round as usize % streams.len() {
                // Until the word is this large: this thread may be rounds ahead.
                g.call::<stream::row::cuStreamWaitValue32_v2>((*s, gate, round, 0)).unwrap();
            }
            g.write32(*s, d + 4 * i as u64, round).unwrap();
        }
        // Copies the row that every stream has written in this round …
        g.call::<copy::row::cuMemcpyDtoD_v2>((d + 8192 + u64::from(round) * 64, d, 4 * n as usize)).unwrap();
        // … before any writes for the next one, which they are told to here.
        g.write32(free, gate, round).unwrap();
    }
    for round in 1..=50u32 {
        let row = g.get(d + 8192 + u64::from(round) * 64, 4 * n as usize).unwrap();
        assert!(row.chunks(4).all(|w| w == round.to_le_bytes()), "round {round}: {row:?}");
    }
}

#[test]
fn producers_and_consumers_hand_over_through_events() {
    let g = session(64);
    let mut maker = g.sibling(1);
    let d = maker.alloc(1 << 20).unwrap();
    maker.call::<copy::row::cuMemsetD8_v2>((d, 0, 1 << 20)).unwrap();
    maker.sync(CUstream(0)).unwrap();
    let made = Arc::new(AtomicU32::new(0));
    let (a, b) = (maker.stream(1, 1), maker.stream(2, 1));
    let count = 500u32;
    let consumer = {
        let (mut g, made) = (g.sibling(2), made.clone());
        std::thread::spawn(move || {
            for i in 0..count {
                while made.load(Ordering::Acquire) <= i {
                    std::thread::yield_now();
                }
                g.call::<stream::row::cuStreamWaitEvent>((b, handle(i + 1), 0)).unwrap();
                let cell = u64::from(i) * 8;
                g.call::<copy::row::cuMemcpyDtoDAsync_v2>((d + (1 << 19) + cell, d + cell, 8, b)).unwrap();
            }
            g.sync(b).unwrap();
            g
        })
    };
    for i in 0..count {
        // Something before the number, so that it is late.
        maker.call::<copy::row::cuMemsetD8Async>((d + 8192 * 8, 1, 300 << 10, a)).unwrap();
        maker
            .call::<stream::row::cuStreamWriteValue64_v2>((a, d + u64::from(i) * 8, u64::from(i) + 7, 0))
            .unwrap();
        let e = maker.event(i + 1, 2);
        maker.record(e, a).unwrap();
        made.store(i + 1, Ordering::Release);
    }
    let mut g = consumer.join().unwrap();
    let cells = g.get_async(d + (1 << 19), 8 * count as usize, b).unwrap();
    for (i, cell) in cells.chunks(8).enumerate() {
        assert_eq!(u64::from_le_bytes(cell.try_into().unwrap()), i as u64 + 7);
    }
}
