//! Streams, events and copies in order, through frames.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use cuda_api::Call;
use cuda_api::calls::{context, copy, event, launch, stream};
use cuda_api::host::Executor;
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Wire};
use driver::*;

const DEFAULT: CUstream = CUstream(0);
const PER_THREAD: CUstream = CUstream(2);

#[test]
fn copies_of_every_size_arrive_inline_and_staged() {
    let mut g = session(64);
    let device = g.alloc(4 * MIB).unwrap();
    for len in [0, 1, 7, 4095, 4096, 4097, 65536, 1_000_003] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        g.put(device + 3, &bytes).unwrap();
        assert_eq!(g.get(device + 3, len).unwrap(), bytes, "{len} bytes");
    }
    let staged = |offset, len| Bulk::Staged { offset, len };
    for (offset, len) in [(4 * MIB as u64, 1), (u64::MAX, 1), (1, 4 * MIB as u64)] {
        let fields = (device, len as usize, staged(offset, len));
        assert_eq!(g.call::<copy::row::cuMemcpyHtoD_v2>(fields), Err(CUresult::INVALID_VALUE));
        let fields = (device, len as usize, Fill::Staged { offset, len });
        assert_eq!(g.call::<copy::row::cuMemcpyDtoH_v2>(fields), Err(CUresult::INVALID_VALUE));
    }
    let short = (device, 5, Bulk::Inline(b"four"));
    assert_eq!(g.call::<copy::row::cuMemcpyHtoD_v2>(short), Err(CUresult::INVALID_VALUE));
    let within = g.call::<copy::row::cuMemcpyDtoD_v2>((device + MIB as u64, device + 3, 1_000_003));
    assert_eq!(within, Ok(()));
    assert_eq!(g.get(device + MIB as u64, 1000).unwrap(), g.get(device + 3, 1000).unwrap());
}

#[test]
fn fills_write_what_they_should_and_nothing_else() {
    let mut g = session(64);
    let d = g.alloc(MIB).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0xee, MIB)).unwrap();
    g.call::<copy::row::cuMemsetD16_v2>((d + 2, 0x1234, 3)).unwrap();
    assert_eq!(g.get(d, 10).unwrap(), [0xee, 0xee, 0x34, 0x12, 0x34, 0x12, 0x34, 0x12, 0xee, 0xee]);
    g.call::<copy::row::cuMemsetD32_v2>((d + 4096, 0x0102_0304, 5000)).unwrap();
    let words = g.get(d + 4096, 20_000).unwrap();
    assert!(words.chunks(4).all(|w| w == [4, 3, 2, 1]));
    assert_eq!(g.get(d + 4096 + 20_000, 1).unwrap(), [0xee]);
    assert_eq!(g.call::<copy::row::cuMemsetD32_v2>((d + 2, 1, 1)), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.call::<copy::row::cuMemsetD16_v2>((d + 1, 1, 1)), Err(CUresult::INVALID_VALUE));

    let r = d + 65536;
    g.call::<copy::row::cuMemsetD2D16_v2>((r, 16, 7, 3, 4)).unwrap();
    let rows = g.get(r, 64).unwrap();
    for (i, byte) in rows.iter().enumerate() {
        let expected = if i % 16 < 6 { [7, 0][i % 2] } else { 0xee };
        assert_eq!(*byte, expected, "byte {i}");
    }
    let s = g.stream(1, 0);
    g.call::<copy::row::cuMemsetD2D32Async>((r, 64, 9, 16, 3, s)).unwrap();
    g.call::<copy::row::cuMemsetD8Async>((r, 1, 2, s)).unwrap();
    assert_eq!(g.get(r, 6).unwrap(), [1, 1, 0, 0, 9, 0]);
    let overlapping = (r, 8, 9, 16, 3, s);
    assert_eq!(g.call::<copy::row::cuMemsetD2D32Async>(overlapping), Err(CUresult::INVALID_VALUE));
    let beyond = (d, MIB, 9, 16, 3);
    assert_eq!(g.call::<copy::row::cuMemsetD2D8_v2>(beyond), Err(CUresult::INVALID_VALUE));
}

#[test]
fn a_stream_keeps_its_order_behind_a_word() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (a, b) = (g.stream(1, 1), g.stream(2, 1));
    g.wait32(a, d, 5).unwrap();
    g.write32(a, d + 4, 1).unwrap();
    g.call::<copy::row::cuMemsetD32Async>((d + 8, 2, 1, a)).unwrap();
    g.put_async(d + 12, &3u32.to_le_bytes(), a).unwrap();
    g.call::<copy::row::cuMemcpyDtoDAsync_v2>((d + 16, d + 12, 4, a)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(g.query(a), Err(CUresult::NOT_READY));
    assert_eq!(g.get_async(d + 4, 16, b).unwrap(), [0; 16]);
    g.write32(b, d, 5).unwrap();
    g.sync(a).unwrap();
    assert_eq!(g.query(a), Ok(()));
    assert_eq!(g.get_async(d + 4, 16, b).unwrap(), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn words_are_compared_as_asked() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    let (s, free) = (g.stream(1, 1), g.stream(2, 1));
    // flags, word before, value waited for, word after
    for (flags, before, value, after) in [
        (0, 4u32, 5u32, 6u32),
        (0, 0xffff_fff0, 2, 2),
        (1, 4, 5, 5),
        (2, 0b1000, 0b0110, 0b0100),
        (3, 0xffff_fff0, 0x0000_000f, 0xffff_0000),
    ] {
        g.call::<copy::row::cuMemsetD32Async>((d, before, 1, free)).unwrap();
        g.call::<stream::row::cuStreamWaitValue32_v2>((s, d, value, flags)).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(g.query(s), Err(CUresult::NOT_READY), "flags {flags}");
        g.write32(free, d, after).unwrap();
        assert_eq!(g.sync(s), Ok(()));
    }
    g.call::<stream::row::cuStreamWriteValue64_v2>((s, d + 8, u64::MAX - 1, 1)).unwrap();
    g.call::<stream::row::cuStreamWaitValue64_v2>((s, d + 8, u64::MAX - 1, 1)).unwrap();
    assert_eq!(g.sync(s), Ok(()));
    let odd = g.call::<stream::row::cuStreamWaitValue64_v2>((s, d + 4, 0, 0));
    assert_eq!(odd, Err(CUresult::INVALID_VALUE));
    let odd = g.call::<stream::row::cuStreamWriteValue32_v2>((s, d + 2, 0, 0));
    assert_eq!(odd, Err(CUresult::INVALID_VALUE));
    let unknown = g.call::<stream::row::cuStreamWaitValue32_v2>((s, d, 0, 4));
    assert_eq!(unknown, Err(CUresult::INVALID_VALUE));
}

#[test]
fn the_legacy_stream_and_blocking_streams_wait_for_each_other() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (blocking, free, outside) = (g.stream(1, 0), g.stream(2, 1), g.stream(3, 1));
    g.wait32(blocking, d, 1).unwrap();
    // The default stream stands behind the blocking stream, and a second blocking stream behind the default one.
    g.write32(DEFAULT, d + 4, 1).unwrap();
    g.write32(PER_THREAD, d + 8, 1).unwrap();
    g.write32(free, d + 12, 1).unwrap();
    assert_eq!(g.sync(free), Ok(()));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((g.peek(d + 4, outside), g.peek(d + 8, outside), g.peek(d + 12, outside)), (0, 0, 1));
    assert_eq!(g.query(DEFAULT), Err(CUresult::NOT_READY));
    assert_eq!(g.query(PER_THREAD), Err(CUresult::NOT_READY));
    g.write32(free, d, 1).unwrap();
    g.sync(PER_THREAD).unwrap();
    assert_eq!((g.peek(d + 4, outside), g.peek(d + 8, outside)), (1, 1));
    // The other way round: a blocking stream stands behind the default one.
    g.wait32(DEFAULT, d + 16, 1).unwrap();
    g.write32(blocking, d + 20, 1).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(g.peek(d + 20, outside), 0);
    g.write32(free, d + 16, 1).unwrap();
    g.sync(blocking).unwrap();
    assert_eq!(g.peek(d + 20, outside), 1);
}

#[test]
fn a_synchronous_copy_waits_for_blocking_streams() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (blocking, free) = (g.stream(1, 0), g.stream(2, 1));
    g.wait32(blocking, d, 1).unwrap();
    g.write32(blocking, d + 4, 77).unwrap();
    let mut other = g.sibling(1);
    let reader = std::thread::spawn(move || other.word(d + 4));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!reader.is_finished());
    g.write32(free, d, 1).unwrap();
    assert_eq!(reader.join().unwrap(), 77);
}

#[test]
fn per_thread_streams_are_each_threads_own() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    g.wait32(PER_THREAD, d, 1).unwrap();
    let mut other = g.sibling(1);
    assert_eq!(other.query(PER_THREAD), Ok(()));
    other.write32(PER_THREAD, d, 1).unwrap();
    assert_eq!(g.sync(PER_THREAD), Ok(()));
}

#[test]
fn events_order_streams_by_what_they_recorded_last() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (a, b, free) = (g.stream(1, 1), g.stream(2, 1), g.stream(3, 1));
    let e = g.event(1, 0);
    assert_eq!(g.call::<event::row::cuEventQuery>((e,)), Ok(()));
    assert_eq!(g.call::<event::row::cuEventSynchronize>((e,)), Ok(()));
    g.wait32(a, d, 1).unwrap();
    g.record(e, a).unwrap();
    assert_eq!(g.call::<event::row::cuEventQuery>((e,)), Err(CUresult::NOT_READY));
    g.call::<stream::row::cuStreamWaitEvent>((b, e, 0)).unwrap();
    g.write32(b, d + 4, 1).unwrap();
    // Recorded again elsewhere: what waits already waits for the first recording.
    g.record(e, free).unwrap();
    assert_eq!(g.call::<event::row::cuEventSynchronize>((e,)), Ok(()));
    assert_eq!(g.call::<event::row::cuEventDestroy_v2>((e,)), Ok(()));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(g.peek(d + 4, free), 0);
    g.write32(free, d, 1).unwrap();
    g.sync(b).unwrap();
    assert_eq!(g.peek(d + 4, free), 1);
    assert_eq!(g.record(e, a), Err(CUresult::INVALID_HANDLE));
}

#[test]
fn elapsed_time_is_measured_in_the_stream() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (a, free) = (g.stream(1, 1), g.stream(2, 1));
    let (start, end, untimed, never) = (g.event(1, 0), g.event(2, 1), g.event(3, 2), g.event(4, 0));
    let elapsed = |g: &mut Guest, a, b| g.call::<event::row::cuEventElapsedTime>((a, b));
    g.record(start, a).unwrap();
    g.record(untimed, a).unwrap();
    g.wait32(a, d, 1).unwrap();
    g.record(end, a).unwrap();
    assert_eq!(elapsed(&mut g, start, end), Err(CUresult::NOT_READY));
    assert_eq!(elapsed(&mut g, start, never), Err(CUresult::INVALID_HANDLE));
    assert_eq!(elapsed(&mut g, untimed, start), Err(CUresult::INVALID_HANDLE));
    std::thread::sleep(Duration::from_millis(30));
    g.write32(free, d, 1).unwrap();
    g.call::<event::row::cuEventSynchronize>((end,)).unwrap();
    let ms = elapsed(&mut g, start, end).unwrap();
    assert!((30.0..2000.0).contains(&ms), "{ms} ms");
    assert_eq!(elapsed(&mut g, end, start), Ok(-ms));
    assert_eq!(g.call::<event::row::cuEventCreate>((handle(9), 4)), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.call::<event::row::cuEventCreate>((handle(9), 6)), Err(CUresult::NOT_SUPPORTED));
    assert_eq!(g.call::<event::row::cuEventCreate>((handle(9), 7)), Err(CUresult::NOT_SUPPORTED));
    assert_eq!(g.call::<event::row::cuEventCreate>((handle(9), 8)), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.call::<event::row::cuEventCreate>((handle(1), 0)), Err(CUresult::INVALID_HANDLE));
}

#[test]
fn a_full_stream_blocks_its_caller_until_another_thread_writes_the_word() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (s, free) = (g.stream(1, 0), g.stream(2, 1));
    g.wait32(s, d, 1).unwrap();
    let mut poster = g.sibling(1);
    let (report, reports) = mpsc::channel();
    let posting = std::thread::spawn(move || {
        for i in 0..2000u32 {
            poster.write32(s, d + 4, i + 1).unwrap();
            report.send(i + 1).unwrap();
        }
        poster
    });
    std::thread::sleep(Duration::from_millis(100));
    let posted = reports.try_iter().last().unwrap();
    assert!((1000..=1024).contains(&posted), "{posted} operations were taken");
    assert!(!posting.is_finished());
    // The order between threads: the write may pass what is stuck, on a stream that has nothing to do with it.
    let frame = |fields: (CUstream, u64, u32, u32)| {
        let mut bytes = Vec::new();
        fields.put(&mut bytes);
        bytes
    };
    let id = <stream::row::cuStreamWriteValue32_v2 as Call>::ID;
    let stuck = frame((s, d + 4, 1, 0));
    assert!(g.soft.may_overtake(id, &frame((free, d, 1, 0)), &[(id, &stuck)]));
    assert!(!g.soft.may_overtake(id, &frame((s, d, 1, 0)), &[(id, &stuck)]));
    assert!(!g.soft.may_overtake(id, &frame((DEFAULT, d, 1, 0)), &[(id, &stuck)]));
    g.write32(free, d, 1).unwrap();
    let mut poster = posting.join().unwrap();
    poster.sync(s).unwrap();
    assert_eq!(g.word(d + 4), 2000);
}

#[test]
fn what_may_overtake_is_told_by_streams_and_events() {
    let mut g = session(64);
    let (a, b, free) = (g.stream(1, 0), g.stream(2, 0), g.stream(3, 1));
    fn bytes<'a, C: Call>(fields: C::In<'a>) -> (u32, Vec<u8>) {
        let mut bytes = Vec::new();
        fields.put(&mut bytes);
        (C::ID, bytes)
    }
    let launch = |s| bytes::<launch::row::cuLaunchKernel>((handle(1), [1; 3], [1; 3], 0, s, &[]));
    let record = |e, s| bytes::<event::row::cuEventRecord>((handle(e), s));
    let wait = |s, e| bytes::<stream::row::cuStreamWaitEvent>((s, handle(e), 0));
    let ask = |call: &(u32, Vec<u8>), blocked: &[&(u32, Vec<u8>)]| {
        let blocked: Vec<(u32, &[u8])> = blocked.iter().map(|(id, f)| (*id, f.as_slice())).collect();
        g.soft.may_overtake(call.0, &call.1, &blocked)
    };
    assert!(ask(&launch(b), &[&launch(a)]));
    assert!(!ask(&launch(a), &[&launch(b), &launch(a)]));
    assert!(!ask(&launch(b), &[&launch(DEFAULT)]));
    assert!(ask(&launch(free), &[&launch(DEFAULT)]));
    assert!(!ask(&wait(b, 7), &[&launch(a), &record(7, a)]));
    assert!(ask(&wait(b, 7), &[&launch(a), &record(8, a)]));
    let made = bytes::<stream::row::cuStreamCreate>((b, 0, 0));
    assert!(!ask(&launch(b), &[&launch(a), &made]));
    let alloc = bytes::<cuda_api::calls::memory::row::cuMemFree_v2>((0,));
    assert!(!ask(&launch(b), &[&alloc]));
    assert!(!ask(&alloc, &[&launch(a)]));
}

#[test]
fn queued_copies_keep_their_own_bytes() {
    let mut g = session(64);
    let d = g.alloc(MIB).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (s, free) = (g.stream(1, 1), g.stream(2, 1));
    g.wait32(s, d, 1).unwrap();
    g.staging[..65536].fill(0xaa);
    let fields = (d + 4096, 65536, Bulk::Staged { offset: 0, len: 65536 }, s);
    g.call::<copy::row::cuMemcpyHtoDAsync_v2>(fields).unwrap();
    g.staging[..65536].fill(0xbb);
    g.write32(free, d, 1).unwrap();
    g.sync(s).unwrap();
    assert!(g.get(d + 4096, 65536).unwrap().iter().all(|b| *b == 0xaa));
}

#[test]
fn a_destroyed_stream_finishes_its_work() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (s, free) = (g.stream(1, 1), g.stream(2, 1));
    let e = g.event(1, 0);
    g.wait32(s, d, 1).unwrap();
    g.write32(s, d + 4, 9).unwrap();
    g.record(e, s).unwrap();
    g.call::<stream::row::cuStreamDestroy_v2>((s,)).unwrap();
    assert_eq!(g.sync(s), Err(CUresult::INVALID_HANDLE));
    assert_eq!(g.call::<event::row::cuEventQuery>((e,)), Err(CUresult::NOT_READY));
    assert!(!g.soft.quiesce(Duration::from_millis(20)));
    g.write32(free, d, 1).unwrap();
    assert_eq!(g.call::<event::row::cuEventSynchronize>((e,)), Ok(()));
    assert_eq!(g.peek(d + 4, free), 9);
    assert!(g.soft.quiesce(Duration::from_secs(5)));
    // The handle may name a new stream.
    g.stream(1, 0);
}

#[test]
fn freeing_memory_waits_for_the_work() {
    let mut g = session(64);
    let (d, gone) = (g.alloc(4096).unwrap(), g.alloc(4096).unwrap());
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let (s, free) = (g.stream(1, 1), g.stream(2, 1));
    g.wait32(s, d, 1).unwrap();
    g.call::<copy::row::cuMemsetD8Async>((gone, 1, 4096, s)).unwrap();
    let mut other = g.sibling(1);
    let freeing = std::thread::spawn(move || other.free(gone));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!freeing.is_finished());
    g.write32(free, d, 1).unwrap();
    assert_eq!(freeing.join().unwrap(), Ok(()));
    assert_eq!(g.soft.sticky(), 0);
}

#[test]
fn synchronising_a_context_waits_for_its_streams_only() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let s = g.stream(1, 1);
    g.wait32(s, d, 1).unwrap();
    let mut other = Guest::new(g.soft.clone(), 1);
    other.bare::<context::row::cuCtxCreate_v2>(0, (handle(5), 0, 0)).unwrap();
    other.context = handle(5);
    other.call::<context::row::cuCtxSynchronize>((handle(5),)).unwrap();
    let mut third = g.sibling(2);
    let waiting = std::thread::spawn(move || third.call::<context::row::cuCtxSynchronize>((handle(1),)));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    // The legacy stream of the other context has nothing to do with this one's.
    other.write32(DEFAULT, d, 1).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(()));
}

#[test]
fn stopping_frees_whoever_waits() {
    let mut g = session(64);
    let d = g.alloc(4096).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((d, 0, 4096)).unwrap();
    let s = g.stream(1, 0);
    g.wait32(s, d, 1).unwrap();
    let (mut one, mut two) = (g.sibling(1), g.sibling(2));
    let syncing = std::thread::spawn(move || one.sync(s));
    let copying = std::thread::spawn(move || two.get(d, 4));
    std::thread::sleep(Duration::from_millis(20));
    let begin = Instant::now();
    g.soft.stop();
    assert_eq!(syncing.join().unwrap(), Err(CUresult::DEINITIALIZED));
    assert_eq!(copying.join().unwrap(), Err(CUresult::DEINITIALIZED));
    assert_eq!(g.alloc(1), Err(CUresult::DEINITIALIZED));
    assert!(begin.elapsed() < Duration::from_millis(500));
}

#[test]
fn handles_of_the_wrong_kind_or_taken_are_refused() {
    let mut g = session(64);
    let s = g.stream(1, 0);
    let create = |g: &mut Guest, h: CUstream, flags| g.call::<stream::row::cuStreamCreate>((h, flags, 0));
    assert_eq!(create(&mut g, s, 0), Err(CUresult::INVALID_HANDLE));
    assert_eq!(create(&mut g, CUstream(0), 0), Err(CUresult::INVALID_HANDLE));
    assert_eq!(create(&mut g, CUstream(handle::<CUevent>(3).0), 0), Err(CUresult::INVALID_HANDLE));
    assert_eq!(create(&mut g, handle(2), 2), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.sync(handle(2)), Err(CUresult::INVALID_HANDLE));
    for i in 10..4105 {
        create(&mut g, handle(i), 0).unwrap();
    }
    assert_eq!(create(&mut g, handle(4105), 0), Err(CUresult::OUT_OF_MEMORY));
}
