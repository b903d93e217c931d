//! Copies of any shape, batches and copies between contexts, through frames.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use cuda_api::CuResult;
use cuda_api::calls::copy::row;
use cuda_api::calls::texture::row as texture;
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill};
use driver::*;

const BYTES: CopyEnd =
    CopyEnd { kind: CopyEnd::BYTES, lod: 0, at: 0, pitch: 0, rows: 0, x: 0, y: 0, z: 0, context: 0 };

fn memory(at: u64, pitch: u64, rows: u64, (x, y, z): (u64, u64, u64)) -> CopyEnd {
    CopyEnd { kind: CopyEnd::ADDRESS, at, pitch, rows, x, y, z, ..BYTES }
}

fn shape(dst: CopyEnd, src: CopyEnd, (width, height, depth): (u64, u64, u64)) -> CopyShape {
    CopyShape { dst, src, width, height, depth, flags: 0 }
}

fn copy_in(g: &mut Guest, shape: &CopyShape, bytes: &[u8], stream: CUstream) -> CuResult<()> {
    g.call::<row::vgpuCopyIn>((shape, Bulk::Inline(bytes), stream))
}

fn copy_out(g: &mut Guest, shape: &CopyShape, len: u64) -> CuResult<Vec<u8>> {
    g.call::<row::vgpuCopyOut>((shape, Fill::Inline { len }, STREAM_DEFAULT))
}

fn between(g: &mut Guest, shape: &CopyShape) -> CuResult<()> {
    g.call::<row::vgpuCopyBetween>((shape, STREAM_DEFAULT))
}

/// Numbered bytes in fresh device memory.
fn numbered(g: &mut Guest, len: usize) -> u64 {
    let at = g.alloc(len).unwrap();
    let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
    g.put(at, &bytes).unwrap();
    at
}

#[test]
fn a_box_goes_in_and_comes_out() {
    let mut g = session(64);
    let at = g.alloc(4096).unwrap();
    g.put(at, &[0; 4096]).unwrap();
    let bytes: Vec<u8> = (1..=24).collect();
    // Rows of 16 bytes, 8 of them in a slice; 4 bytes, 3 rows, 2 slices, from (1, 2, 1) on.
    let place = memory(at, 16, 8, (1, 2, 1));
    copy_in(&mut g, &shape(place, BYTES, (4, 3, 2)), &bytes, STREAM_DEFAULT).unwrap();
    let all = g.get(at, 4096).unwrap();
    for z in 0..2 {
        for y in 0..3 {
            let row = ((z + 1) * 8 + y + 2) * 16 + 1;
            assert_eq!(all[row..row + 4], bytes[(z * 3 + y) * 4..][..4], "{z} {y}");
        }
    }
    assert_eq!(all.iter().filter(|b| **b != 0).count(), 24, "and nothing else is written");
    assert_eq!(copy_out(&mut g, &shape(BYTES, place, (4, 3, 2)), 24).unwrap(), bytes);
}

#[test]
fn a_pitch_that_is_left_open_leaves_no_gaps() {
    let mut g = session(64);
    let (from, to) = (numbered(&mut g, 64), g.alloc(64).unwrap());
    g.put(to, &[0; 64]).unwrap();
    between(&mut g, &shape(memory(to, 0, 0, (1, 0, 0)), memory(from, 8, 2, (0, 0, 0)), (3, 2, 2))).unwrap();
    assert_eq!(g.get(to, 17).unwrap(), [0, 0, 1, 2, 0, 8, 9, 10, 0, 16, 17, 18, 0, 24, 25, 26, 0]);
    let past = shape(memory(to + 49, 0, 0, (1, 0, 0)), memory(from, 8, 2, (0, 0, 0)), (3, 2, 2));
    assert_eq!(between(&mut g, &past), Err(CUresult::INVALID_VALUE));
}

#[test]
fn staging_carries_what_is_longer() {
    let mut g = session(64);
    let at = g.alloc(1 << 20).unwrap();
    let bytes: Vec<u8> = (0..300 * 200).map(|i| (i % 251) as u8).collect();
    g.staging[64..64 + bytes.len()].copy_from_slice(&bytes);
    let place = memory(at, 1024, 200, (7, 0, 0));
    let staged = Bulk::Staged { offset: 64, len: bytes.len() as u64 };
    let into = shape(place, BYTES, (300, 200, 1));
    g.call::<row::vgpuCopyIn>((&into, staged, STREAM_DEFAULT)).unwrap();
    g.staging.fill(0);
    let fill = Fill::Staged { offset: 128, len: bytes.len() as u64 };
    let out = shape(BYTES, place, (300, 200, 1));
    assert_eq!(g.call::<row::vgpuCopyOut>((&out, fill, STREAM_DEFAULT)), Ok(Vec::new()));
    assert_eq!(g.staging[128..128 + bytes.len()], bytes);
}

#[test]
fn device_memory_is_copied_row_by_row() {
    let mut g = session(64);
    let from = numbered(&mut g, 256);
    let to = g.alloc(256).unwrap();
    g.put(to, &[0xee; 256]).unwrap();
    let copy = shape(memory(to, 32, 4, (2, 1, 0)), memory(from, 16, 8, (4, 2, 0)), (5, 2, 1));
    between(&mut g, &copy).unwrap();
    let all = g.get(to, 256).unwrap();
    assert_eq!(all[34..39], [36, 37, 38, 39, 40]);
    assert_eq!(all[66..71], [52, 53, 54, 55, 56]);
    assert_eq!(all.iter().filter(|b| **b == 0xee).count(), 246);
}

#[test]
fn an_extent_ends_where_the_memory_does() {
    let mut g = session(64);
    let at = numbered(&mut g, 1000);
    let bytes = [9; 2000];
    // The last row needs no pitch after it.
    for (end, size, fits) in [
        (memory(at, 100, 10, (0, 0, 0)), (100, 10, 1), true),
        (memory(at, 100, 10, (90, 0, 0)), (10, 10, 1), true),
        (memory(at, 100, 10, (91, 0, 0)), (10, 10, 1), false),
        (memory(at, 100, 10, (0, 1, 0)), (1, 10, 1), false),
        (memory(at, 100, 5, (0, 0, 1)), (100, 5, 1), true),
        (memory(at, 100, 5, (0, 0, 1)), (1, 1, 2), false),
        (memory(at, 100, 5, (0, 0, 0)), (1, 1, 2), true),
        (memory(at, 100, 0, (0, 0, u64::MAX)), (1, 1, 1), false),
        (memory(at, 100, 0, (0, 0, 9)), (1, 1, 1), true),
        (memory(at, 100, 0, (0, 0, 10)), (1, 1, 1), false),
        (memory(at, u64::MAX, 2, (0, 1, 0)), (1, 1, 1), false),
        (memory(at, 100, u64::MAX, (0, 0, 2)), (1, 1, 1), false),
        (memory(u64::MAX, 1, 1, (1, 0, 0)), (1, 1, 1), false),
        (memory(at, 0, 1, (0, 0, 0)), (1, 1000, 1), true),
        (memory(at, 0, 1, (0, 0, 0)), (1, 1001, 1), false),
        (memory(at, 1, 0, (0, 0, 0)), (1, 2, 1000), false),
        (memory(at, 1, 1, (0, 0, 0)), (0, 1, 1), true),
        (memory(at, 1, 1, (0, 0, 0)), (1, 0, 1), false),
        (memory(at, 1, 1, (0, 0, 0)), (1, 1, 0), false),
    ] {
        let (width, height, depth) = size;
        let copy = shape(end, BYTES, size);
        let total = (width * height * depth) as usize;
        let outcome = copy_in(&mut g, &copy, &bytes[..total], STREAM_DEFAULT);
        assert_eq!(outcome.is_ok(), fits, "{copy:?}: {outcome:?}");
    }
    let copy = shape(memory(at, 100, 1, (0, 0, 0)), BYTES, (100, 2, 1));
    assert!(copy_in(&mut g, &copy, &bytes[..199], STREAM_DEFAULT).is_err(), "fewer bytes than rows");
    assert!(copy_out(&mut g, &shape(BYTES, memory(at, 100, 1, (0, 0, 0)), (100, 2, 1)), 201).is_err());
    let endless = shape(BYTES, memory(at, 0, 0, (0, 0, 0)), (1, 1 << 40, 1));
    assert!(copy_out(&mut g, &endless, 8).is_err());
}

#[test]
fn ends_that_are_none_are_refused() {
    let mut g = session(64);
    let at = numbered(&mut g, 64);
    let good = memory(at, 8, 8, (0, 0, 0));
    let array = CopyEnd { kind: CopyEnd::ARRAY, ..good };
    assert_eq!(between(&mut g, &shape(good, array, (8, 1, 1))), Err(CUresult::INVALID_HANDLE));
    assert_eq!(between(&mut g, &shape(array, good, (8, 1, 1))), Err(CUresult::INVALID_HANDLE));
    assert_eq!(between(&mut g, &shape(good, BYTES, (8, 1, 1))), Err(CUresult::INVALID_VALUE));
    let unknown = CopyEnd { kind: 7, ..good };
    assert_eq!(between(&mut g, &shape(unknown, good, (8, 1, 1))), Err(CUresult::INVALID_VALUE));
    let missing: CUstream = handle(77);
    let fields = (&shape(good, good, (8, 1, 1)), missing);
    assert_eq!(g.call::<row::vgpuCopyBetween>(fields), Err(CUresult::INVALID_HANDLE));
}

#[test]
fn a_box_waits_for_its_stream_with_bytes_of_its_own() {
    let mut g = session(64);
    let (flag, at) = (g.alloc(4).unwrap(), g.alloc(64).unwrap());
    g.put(flag, &[0; 4]).unwrap();
    g.put(at, &[0; 64]).unwrap();
    let stream = g.stream(3, 1);
    g.wait32(stream, flag, 1).unwrap();
    let mut bytes = [5; 8];
    let copy = shape(memory(at, 16, 2, (0, 0, 0)), BYTES, (4, 2, 1));
    copy_in(&mut g, &copy, &bytes, stream).unwrap();
    bytes.fill(6);
    g.call::<row::vgpuCopyBetween>((
        &shape(memory(at, 16, 2, (8, 0, 0)), memory(at, 16, 2, (0, 0, 0)), (4, 2, 1)),
        stream,
    ))
    .unwrap();
    let other = g.stream(4, 1);
    assert_eq!(g.peek(at, other), 0, "not before its turn");
    g.write32(other, flag, 1).unwrap();
    g.sync(stream).unwrap();
    let all = g.get(at, 64).unwrap();
    assert_eq!((all[0], all[16], all[8], all[24], all[12]), (5, 5, 5, 5, 0));
}

#[test]
fn batches_are_checked_to_the_last_copy() {
    let mut g = session(64);
    let (from, to) = (numbered(&mut g, 256), g.alloc(256).unwrap());
    g.put(to, &[0; 256]).unwrap();
    let copy = |dst, src, len| BatchCopy { dst, src, len, order: 2, flags: 0 };
    let stream = g.stream(3, 1);
    let mut copies = [copy(to, from + 10, 10), copy(to + 100, from + 100, 100), copy(to, from, 0)];
    g.call::<row::vgpuCopyBatch>((&copies, 3, stream)).unwrap();
    g.sync(stream).unwrap();
    let all = g.get(to, 256).unwrap();
    assert_eq!((all[0], all[9], all[10], all[150]), (10, 19, 0, 150));
    copies[2] = copy(to + 200, from, 57);
    copies[0] = copy(to + 50, from, 1);
    assert_eq!(g.call::<row::vgpuCopyBatch>((&copies, 3, stream)), Err(CUresult::INVALID_VALUE));
    g.sync(stream).unwrap();
    assert_eq!(g.get(to + 50, 1).unwrap(), [0], "none of them is done");
}

#[test]
fn between_contexts_is_a_copy() {
    let mut g = session(64);
    let (from, to) = (numbered(&mut g, 64), g.alloc(64).unwrap());
    let (mine, stream) = (g.context, g.stream(3, 0));
    g.call::<row::cuMemcpyPeer>((to, mine, from, mine, 32)).unwrap();
    g.call::<row::cuMemcpyPeerAsync>((to + 32, mine, from + 32, mine, 32, stream)).unwrap();
    g.sync(stream).unwrap();
    assert_eq!(g.get(to, 64).unwrap(), (0..64).collect::<Vec<u8>>());
    let beyond = g.call::<row::cuMemcpyPeer>((to, mine, from, mine, 65));
    assert_eq!(beyond, Err(CUresult::INVALID_VALUE));
}

fn solid(width: u64, height: u64, depth: u64, num_channels: u32, flags: u32) -> CUDA_ARRAY3D_DESCRIPTOR {
    CUDA_ARRAY3D_DESCRIPTOR { width, height, depth, format: 0x20, num_channels, flags, reserved: 0 }
}

fn array_end(array: CUarray, (x, y, z): (u64, u64, u64)) -> CopyEnd {
    CopyEnd { kind: CopyEnd::ARRAY, at: array.0, x, y, z, ..BYTES }
}

#[test]
fn an_array_keeps_what_is_copied_into_it() {
    let mut g = session(64);
    let before = g.left();
    let array: CUarray = handle(5);
    let descriptor = solid(8, 4, 2, 2, 0);
    g.call::<texture::cuArray3DCreate_v2>((array, &descriptor)).unwrap();
    assert_eq!(g.call::<texture::cuArray3DGetDescriptor_v2>((array,)), Ok(descriptor));
    let bytes: Vec<u8> = (0..=255).chain(0..=255).collect();
    let whole = (64, 4, 2);
    copy_in(&mut g, &shape(array_end(array, (0, 0, 0)), BYTES, whole), &bytes, STREAM_DEFAULT).unwrap();
    let part = copy_out(&mut g, &shape(BYTES, array_end(array, (8, 1, 1)), (16, 2, 1)), 32).unwrap();
    assert_eq!((part[0], part[15], part[16]), (72, 87, 136));
    for (place, size) in [
        ((4, 0, 0), (8, 1, 1)),
        ((0, 0, 0), (12, 1, 1)),
        ((64, 0, 0), (8, 1, 1)),
        ((0, 4, 0), (8, 1, 1)),
        ((0, 0, 2), (8, 1, 1)),
        ((u64::MAX - 7, 0, 0), (8, 1, 1)),
    ] {
        let len = size.0 * size.1 * size.2;
        let out = copy_out(&mut g, &shape(BYTES, array_end(array, place), size), len);
        assert_eq!(out, Err(CUresult::INVALID_VALUE), "{place:?} {size:?}");
    }
    assert_eq!(g.call::<texture::cuArrayDestroy>((array,)), Ok(()));
    assert_eq!(g.left(), before);
    assert_eq!(g.call::<texture::cuArrayDestroy>((array,)), Err(CUresult::INVALID_HANDLE));
    for bad in [
        solid(0, 4, 2, 2, 0),
        solid(8, 0, 2, 2, 0),
        solid(8, 4, 2, 3, 0),
        solid(8, 4, 6, 1, 4),
        solid(8, 4, 2, 1, 0x40),
        solid(u64::MAX, 1, 1, 1, 0),
        CUDA_ARRAY3D_DESCRIPTOR { format: 0x77, ..descriptor },
    ] {
        assert_eq!(
            g.call::<texture::cuArray3DCreate_v2>((array, &bad)),
            Err(CUresult::INVALID_VALUE),
            "{bad:?}"
        );
    }
}

#[test]
fn a_row_is_copied_at_offsets() {
    let mut g = session(64);
    let (a, b): (CUarray, CUarray) = (handle(5), handle(6));
    let row = CUDA_ARRAY_DESCRIPTOR { width: 64, height: 0, format: 1, num_channels: 1 };
    g.call::<texture::cuArrayCreate_v2>((a, &row)).unwrap();
    g.call::<texture::cuArrayCreate_v2>((b, &row)).unwrap();
    let bytes: Vec<u8> = (0..64).collect();
    g.call::<row::vgpuArrayIn>((a, 0, Bulk::Inline(&bytes), STREAM_DEFAULT)).unwrap();
    g.call::<texture::cuMemcpyAtoA_v2>((b, 10, a, 20, 30)).unwrap();
    let memory = g.alloc(64).unwrap();
    g.call::<texture::cuMemcpyAtoD_v2>((memory, b, 12, 8)).unwrap();
    assert_eq!(g.get(memory, 8).unwrap(), (22..30).collect::<Vec<u8>>());
    g.call::<texture::cuMemcpyDtoA_v2>((a, 60, memory, 4)).unwrap();
    let out = g.call::<row::vgpuArrayOut>((a, 58, Fill::Inline { len: 6 }, STREAM_DEFAULT));
    assert_eq!(out, Ok(vec![58, 59, 22, 23, 24, 25]));
    let over = g.call::<row::vgpuArrayIn>((a, 60, Bulk::Inline(&bytes[..5]), STREAM_DEFAULT));
    assert_eq!(over, Err(CUresult::INVALID_VALUE));
    assert_eq!(g.call::<texture::cuMemcpyAtoA_v2>((b, 60, a, 0, 5)), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.call::<texture::cuMemcpyAtoD_v2>((memory, a, usize::MAX, 8)), Err(CUresult::INVALID_VALUE));
}

#[test]
fn levels_belong_to_their_mipmapped_array() {
    let mut g = session(64);
    let before = g.left();
    let (mipmap, level): (CUmipmappedArray, CUarray) = (handle(5), handle(6));
    g.call::<texture::cuMipmappedArrayCreate>((mipmap, &solid(16, 8, 0, 1, 0), 99)).unwrap();
    g.call::<texture::cuMipmappedArrayGetLevel>((level, mipmap, 2)).unwrap();
    let descriptor = g.call::<texture::cuArray3DGetDescriptor_v2>((level,)).unwrap();
    assert_eq!((descriptor.width, descriptor.height, descriptor.depth), (4, 2, 0));
    let beyond = g.call::<texture::cuMipmappedArrayGetLevel>((handle(7), mipmap, 5));
    assert_eq!(beyond, Err(CUresult::INVALID_VALUE), "16, 8, 4, 2, 1");
    assert_eq!(g.call::<texture::cuArrayDestroy>((level,)), Err(CUresult::INVALID_HANDLE));
    g.call::<texture::cuMipmappedArrayDestroy>((mipmap,)).unwrap();
    assert_eq!(g.call::<texture::cuArray3DGetDescriptor_v2>((level,)), Err(CUresult::INVALID_HANDLE));
    assert_eq!(g.left(), before);
}
