//! Frames of a guest that means harm: every call, with numbers that are near something. Nothing panics, nothing hangs, and
//! what is broken afterwards is at most the session.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use std::collections::HashMap;

use cuda_api::calls::{copy, module, stream};
use cuda_api::host::{Executor, StagingView, dispatch};
use cuda_api::types::*;
use cuda_api::{Call, Class, all_calls};
use driver::*;

/// Frames in all.
const FRAMES: u32 = 600_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
    fn of(&mut self, from: &[u64]) -> u64 {
        from[self.below(from.len())]
    }
}

struct Victim {
    guest: Guest,
    numbers: Vec<u64>,
}

/// A session with something of everything, and the numbers that name it.
fn victim() -> Victim {
    let mut g = session(64);
    g.image(1, include_bytes!("driver/kernels.ptx")).unwrap();
    assert_eq!(g.call::<module::row::cuModuleLoadDataEx>((handle(1), 1, &[], 0, 0)).unwrap().0, 0);
    g.call::<module::row::cuModuleGetFunction>((handle(1), handle(1), c"store")).unwrap();
    let d = g.alloc(MIB).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, MIB)).unwrap();
    let (a, b, e) = (g.stream(1, 0), g.stream(2, 1), g.event(1, 0));
    let pinned = d + MIB as u64;
    let mut numbers = vec![0, 1, 2, 3, 4, 8, 16, 64, 100, 4096, 1 << 20, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
    numbers.extend([
        d,
        d + 4,
        d + 2,
        d + MIB as u64 - 4,
        pinned,
        u64::MAX - 3,
        d.wrapping_neg(),
        a.0,
        b.0,
        e.0,
    ]);
    numbers.extend([handle::<CUfunction>(1).0, handle::<CUmodule>(1).0, handle::<CUcontext>(1).0]);
    numbers.extend([handle::<CUstream>(3).0, handle::<CUevent>(2).0, handle::<CUfunction>(2).0]);
    Victim { guest: g, numbers }
}

/// A frame of words, some of them the length of a sequence that follows.
fn frame(random: &mut Random, numbers: &[u64]) -> Vec<u8> {
    let mut words = Vec::new();
    for _ in 0..random.below(14) {
        match random.below(8) {
            0 => {
                let len = random.below(40);
                words.push(len as u64);
                for _ in 0..len.div_ceil(8) {
                    words.push(random.of(numbers));
                }
            }
            // Ones and small numbers, of which grids and blocks are made.
            1 | 2 => words.push(1),
            _ => words.push(random.of(numbers)),
        }
    }
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn no_frame_breaks_more_than_its_session() {
    let waits = [
        <stream::row::cuStreamWaitValue32_v2 as Call>::ID,
        <stream::row::cuStreamWaitValue64_v2 as Call>::ID,
        <stream::row::cuStreamBatchMemOp_v2 as Call>::ID,
        <stream::row::cuLaunchHostFunc as Call>::ID,
        <stream::row::cuStreamAddCallback as Call>::ID,
        <stream::row::vgpuNextHostFunction as Call>::ID,
    ];
    let calls: Vec<u32> = all_calls()
        .filter(|c| matches!(c.class, Class::Posted | Class::Sync) && c.over.is_none())
        .map(|c| c.id)
        // A wait for a word, or for a function of the guest's, that never comes is the guest's right, and this test's end.
        .filter(|id| !waits.contains(id))
        .collect();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut v = victim();
    // Frames that were of their row's shape, by call: most frames are one of these with a word changed.
    let mut shapes: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
    let (mut done, mut malformed, mut refused, mut sessions) = (0u32, 0u32, 0u32, 1u32);
    for _ in 0..FRAMES {
        let g = &mut v.guest;
        let call = calls[random.below(calls.len())];
        let known = shapes.entry(call).or_default();
        let mut bytes = frame(&mut random, &v.numbers);
        if !known.is_empty() && random.below(8) != 0 {
            bytes = known[random.below(known.len())].clone();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len().max(1)) & !7;
                if let Some(word) = bytes.get_mut(at..at + 8) {
                    word.copy_from_slice(&random.of(&v.numbers).to_le_bytes());
                }
            }
        }
        // SAFETY: the buffer lives as long as the call.
        let view = unsafe { StagingView::new(g.staging.as_mut_ptr(), g.staging.len() as u64) };
        let context = random.of(&[0, g.context.0, g.context.0, g.context.0, 7]) as u32;
        let mut reply = Vec::new();
        let entered = g.soft.enter(&mut g.thread, context, Some(view));
        let outcome = entered.map(|()| dispatch(&*g.soft, &mut g.thread, call, &bytes, &mut reply));
        if matches!(outcome, Ok(Ok(_))) && known.len() < 200 {
            known.push(bytes);
        }
        let ended = outcome == Ok(Ok(CUresult::CONTEXT_IS_DESTROYED));
        match outcome {
            Ok(Ok(CUresult::SUCCESS)) => done += 1,
            Ok(Ok(_)) => refused += 1,
            Ok(Err(_)) => malformed += 1,
            Err(_) => {}
        }
        assert!(reply.len() <= 64 << 10);
        if g.soft.sticky() != 0 || ended || entered == Err(CUresult::INVALID_CONTEXT) && context != 7 {
            v = victim();
            sessions += 1;
        }
    }
    println!("{done} done, {refused} refused, {malformed} malformed, {sessions} sessions");
    assert!(
        done > 100 && refused > 100 && malformed > 100,
        "{done} done, {refused} refused, {malformed} malformed"
    );
}

#[test]
fn nothing_of_the_worker_is_reachable() {
    let mut g = session(64);
    let own = 7u32;
    let heap = Box::new(own);
    let secrets = [
        (&raw const own).expose_provenance() as u64,
        (&raw const *heap).expose_provenance() as u64,
        (no_frame_breaks_more_than_its_session as fn() as *const ()).expose_provenance() as u64,
        g.alloc(64).unwrap() + (1 << 30),
    ];
    let d = g.alloc(64).unwrap();
    for secret in secrets {
        assert_eq!(g.get(secret & !3, 4), Err(CUresult::INVALID_VALUE));
        assert_eq!(g.put(secret & !3, &[1; 4]), Err(CUresult::INVALID_VALUE));
        assert_eq!(g.call::<copy::row::cuMemcpyDtoD_v2>((d, secret & !3, 4)), Err(CUresult::INVALID_VALUE));
        assert_eq!(g.write32(CUstream(2), secret & !3, 1), Err(CUresult::INVALID_VALUE));
    }
    assert_eq!(own, 7);
}
