//! Pinned memory at the guest's addresses, and staging buffers.

use std::sync::atomic::Ordering;

use mediator::{PINNED_WINDOW, Piece, WakeKind};
use pci_layout::{control, event, regs};

use crate::echo::call;
use crate::guest::{Guest, Memory, start_vm};

pub const TESTS: &[(&str, fn())] = &[
    ("a_region_is_the_same_memory_both_ways", a_region_is_the_same_memory_both_ways),
    ("a_region_grows_part_by_part", a_region_grows_part_by_part),
    ("a_read_only_region_cannot_be_written", a_read_only_region_cannot_be_written),
    ("impossible_regions_are_refused", impossible_regions_are_refused),
    ("running_out_of_mappings_is_an_answer", running_out_of_mappings_is_an_answer),
    ("the_staging_buffer_is_shared", the_staging_buffer_is_shared),
];

/// An address where neither this process nor a worker has anything.
const ELSEWHERE: u64 = 0x6000_0000_0000;

fn a_region_is_the_same_memory_both_ways() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let places = [
        Memory::at(Some(PINNED_WINDOW.start), 0x10000, true),
        Memory::at(Some(PINNED_WINDOW.end - 0x2000), 0x2000, false),
        Memory::at(Some(ELSEWHERE), 0x5000, true),
        // Where the kernel puts a guest's own mappings.
        Memory::scattered(64 * 1024 * 1024),
    ];
    for (region, memory) in (0u32..).zip(&places) {
        guest.map(region, 0, memory).expect("mapped");
        for offset in [0, 0x1ff8, memory.len() as usize - 8] {
            let va = memory.va() + offset as u64;
            memory.word(offset).store(va ^ 1, Ordering::SeqCst);
            assert_eq!(ring.numbers(call::LOAD, &[va]), [va ^ 1]);
            ring.numbers(call::STORE, &[va, va ^ 2]);
            assert_eq!(memory.word(offset).load(Ordering::SeqCst), va ^ 2);
        }
    }
    let heard = ring.text(call::REGIONS, &[]);
    assert!(heard.contains(&format!("+{:x},10000,rw ", PINNED_WINDOW.start)), "{heard}");
    for region in 0..4 {
        guest.unmap(region).expect("unmapped");
    }
    let heard = ring.text(call::REGIONS, &[]);
    assert!(heard.ends_with(&format!("-{:x},4000000 ", places[3].va())), "{heard}");
    // The addresses are free for others.
    for (region, memory) in (10u32..).zip(&places) {
        guest.map(region, 0, memory).expect("mapped again");
    }
    guest.unmap(12).expect("unmapped");
    // What is unmapped cannot be touched.
    let touched = ring.try_call(call::LOAD, &ELSEWHERE.to_le_bytes());
    assert!(touched.is_err());
    assert_eq!(kernel.wait_for_death(0), Some(event::DEATH_WORKER_LOST));
}

fn a_region_grows_part_by_part() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    for va in [PINNED_WINDOW.start + 0x40_0000, ELSEWHERE] {
        let memory = Memory::at(Some(va), 0x6000, true);
        let part = |range: std::ops::Range<usize>| memory.pieces[range].to_vec();
        guest.map_pieces(0, 0, va, part(0..2)).expect("mapped");
        let refused =
            |region, flags, va| guest.map_pieces(region, flags, va, part(2..3)).map_err(|e| e.error);
        assert_eq!(refused(0, 0, va + 0x3000), Err(regs::ERROR_INVALID_REQUEST), "a gap");
        assert_eq!(refused(0, 0, va + 0x1000), Err(regs::ERROR_INVALID_REQUEST), "backwards");
        assert_eq!(
            refused(0, control::MAP_READ_ONLY, va + 0x2000),
            Err(regs::ERROR_INVALID_REQUEST),
            "flags"
        );
        assert_eq!(refused(1, 0, va + 0x1000), Err(regs::ERROR_INVALID_REQUEST), "another region's");
        guest.map_pieces(0, 0, va + 0x2000, part(2..6)).expect("continued");
        memory.word(0x5008).store(77, Ordering::SeqCst);
        assert_eq!(ring.numbers(call::LOAD, &[va + 0x5008]), [77]);
        guest.unmap(0).expect("unmapped");
        let heard = ring.text(call::REGIONS, &[]);
        let expected = format!("+{va:x},2000,rw +{:x},4000,rw -{va:x},6000 ", va + 0x2000);
        assert!(heard.ends_with(&expected), "{heard}");
    }
}

fn a_read_only_region_cannot_be_written() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let memory = Memory::at(Some(ELSEWHERE), 0x1000, false);
    guest.map(4095, control::MAP_READ_ONLY, &memory).expect("mapped");
    memory.word(8).store(5, Ordering::SeqCst);
    assert_eq!(ring.numbers(call::LOAD, &[ELSEWHERE + 8]), [5]);
    let args = [ELSEWHERE.to_le_bytes(), 1u64.to_le_bytes()].concat();
    assert!(ring.try_call(call::STORE, &args).is_err());
    assert_eq!(kernel.wait_for_death(0), Some(event::DEATH_WORKER_LOST));
}

fn impossible_regions_are_refused() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let memory = Memory::new(0x4000);
    let map =
        |region, flags, va| guest.map_pieces(region, flags, va, memory.pieces.clone()).map_err(|e| e.error);
    let invalid = Err(regs::ERROR_INVALID_REQUEST);
    assert_eq!(map(control::REGIONS_MAX, 0, ELSEWHERE), invalid, "region number");
    assert_eq!(map(0, 2, ELSEWHERE), invalid, "flags");
    assert_eq!(map(0, 0, ELSEWHERE + 8), invalid, "alignment");
    assert_eq!(map(0, 0, 0), invalid, "null");
    assert_eq!(map(0, 0, 0x7fff_ffff_c000), invalid, "the end of user addresses");
    assert_eq!(map(0, 0, u64::MAX - 0xfff), invalid, "overflow");
    assert_eq!(map(0, 0, 0xffff_8000_0000_0000), invalid, "kernel addresses");
    assert_eq!(map(0, 0, PINNED_WINDOW.start - 0x2000), invalid, "across the window's start");
    assert_eq!(map(0, 0, PINNED_WINDOW.end - 0x2000), invalid, "across the window's end");
    let taken = ring.numbers(call::HELD_ADDRESS, &[])[0];
    assert_eq!(map(0, 0, taken & !0xfff), invalid, "what the worker itself has");
    assert_eq!(ring.numbers(call::LOAD, &[taken]), [call::HELD_ADDRESS.into()], "is left alone");
    assert_eq!(map(1, 0, ELSEWHERE), Ok(()));
    assert_eq!(map(2, 0, ELSEWHERE + 0x3000), invalid, "overlap at the end");
    assert_eq!(map(2, 0, ELSEWHERE - 0x3000), invalid, "overlap at the start");
    assert_eq!(map(2, 0, PINNED_WINDOW.start + 0x1000), Ok(()));
    assert_eq!(map(3, 0, PINNED_WINDOW.start), invalid, "overlap in the window");
    assert_eq!(map(3, 0, PINNED_WINDOW.start + 0x4000), invalid, "overlap in the window");
    assert_eq!(map(3, 0, PINNED_WINDOW.start + 0x5000), Ok(()));
    assert_eq!(guest.unmap(9).map_err(|e| e.error), invalid);
    // Nothing was left behind by what was refused.
    assert_eq!(map(4, 0, ELSEWHERE + 0x4000), Ok(()));
    assert_eq!(map(5, 0, ELSEWHERE - 0x4000), Ok(()));
    assert_eq!(ring.call(call::ECHO, &[1; 8]), [1; 8]);
    assert_eq!(kernel.deaths(), 0);
}

fn running_out_of_mappings_is_an_answer() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    let file = Memory::new(0x2000).pieces[0].file.clone();
    // Pages of the file in turn: no two pieces become one.
    let pieces: Vec<Piece> =
        (0..8192).map(|at| Piece { file: file.clone(), offset: at % 2 * 0x1000, len: 0x1000 }).collect();
    let mut mapped = Vec::new();
    let error = loop {
        let region = mapped.len() as u32;
        match guest.map_pieces(region, 0, ELSEWHERE + u64::from(region) * 0x1_0000_0000, pieces.clone()) {
            Ok(()) => mapped.push(region),
            Err(error) => break error.error,
        }
        // 256 Ki mappings, however many the kernel allows.
        assert!(mapped.len() <= 32, "no limit");
    };
    assert_eq!(error, regs::ERROR_QUEUE_FULL);
    assert!(mapped.len() > 2, "{} regions", mapped.len());
    assert_eq!(ring.call(call::ECHO, &[1; 8]), [1; 8]);
    guest.unmap(0).expect("unmapped");
    guest.map_pieces(99, 0, ELSEWHERE, pieces).expect("there is room again");
    assert_eq!(kernel.deaths(), 0);
}

fn the_staging_buffer_is_shared() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    let mut ring = guest.ring(0);
    ring.call(call::ECHO, &[]);
    let staging = guest.staging(0, 4 << 20);
    for round in 1..=3u64 {
        ring.bulk(call::STAGING).expect("live");
        let expected = round * 0x0101_0101_0101_0101;
        assert!((0..4 << 20).step_by(8).all(|at| staging.word(at).load(Ordering::SeqCst) == expected));
    }
    assert_eq!(ring.producer.bulk_done(), 3);
    assert_eq!(vm.totals().bytes_staged, 3 * (4 << 20));
    ring.remove().expect("removed");
}
