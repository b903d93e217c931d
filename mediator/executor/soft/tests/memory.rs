//! Memory, ranges, contexts and registered regions, through frames.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use cuda_api::CuResult;
use cuda_api::calls::{context, copy, memory};
use cuda_api::host::Executor;
use cuda_api::types::*;
use driver::*;

#[test]
fn allocations_are_apart_aligned_and_come_back() {
    let mut g = session(64);
    let total = g.call::<memory::row::cuMemGetInfo_v2>(()).unwrap().1;
    assert_eq!(total, 64 * MIB);
    let (a, b, c) = (g.alloc(1).unwrap(), g.alloc(100).unwrap(), g.alloc(8 * MIB).unwrap());
    assert!(a % 256 == 0 && b % 256 == 0 && c % (2 * MIB as u64) == 0);
    assert!(b >= a + 4096 && c >= b + 100 + 4096);
    assert_eq!(g.left(), 64 * MIB - 2 * MIB - 8 * MIB);
    for address in [a, b, c] {
        assert_eq!(g.free(address), Ok(()));
    }
    assert_eq!(g.left(), total);
    assert_eq!(g.free(0), Ok(()));
    assert_eq!(g.free(c), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.alloc(0), Err(CUresult::INVALID_VALUE));
}

#[test]
fn the_quota_is_out_of_memory() {
    let mut g = session(64);
    assert_eq!(g.alloc(65 * MIB), Err(CUresult::OUT_OF_MEMORY));
    assert_eq!(g.alloc(usize::MAX), Err(CUresult::OUT_OF_MEMORY));
    let whole = g.alloc(64 * MIB).unwrap();
    assert_eq!(g.alloc(1), Err(CUresult::OUT_OF_MEMORY));
    g.free(whole).unwrap();
    g.alloc(1).unwrap();
}

#[test]
fn freed_memory_is_gone_and_fresh_granules_are_zero() {
    let mut g = session(64);
    let a = g.alloc(4 * MIB).unwrap();
    g.put(a, &[7; 64]).unwrap();
    g.free(a).unwrap();
    assert_eq!(g.get(a, 64), Err(CUresult::INVALID_VALUE));
    let b = g.alloc(4 * MIB).unwrap();
    assert_eq!(b, a);
    assert_eq!(g.get(b, 64).unwrap(), [0; 64]);
}

#[test]
fn a_range_lies_in_one_allocation_to_its_last_byte() {
    let mut g = session(64);
    let a = g.alloc(1000).unwrap();
    let _other = g.alloc(1000).unwrap();
    for (start, len, ok) in [
        (a, 1000, true),
        (a, 0, true),
        (a + 999, 1, true),
        (a + 1000, 1, false),
        (a, 1001, false),
        (a, 6000, false),
        (a - 1, 2, false),
        (a + 1, usize::MAX, false),
        (u64::MAX, 2, false),
        (0, 1, false),
        (0, 0, true),
    ] {
        let outcome = g.call::<copy::row::cuMemsetD8_v2>((start, 1, len));
        assert_eq!(outcome.is_ok(), ok, "{start:#x} + {len}");
    }
    // A free in the middle of an allocation is none.
    assert_eq!(g.free(a + 256), Err(CUresult::INVALID_VALUE));
}

#[test]
fn avoided_ranges_are_avoided() {
    let mut g = session(64);
    let probe = g.alloc(MIB).unwrap();
    g.free(probe).unwrap();
    let mut avoid = Vec::new();
    for (start, len) in [(probe + (32 << 20), 5u64), (probe, 2 << 20)] {
        avoid.extend_from_slice(&start.to_le_bytes());
        avoid.extend_from_slice(&len.to_le_bytes());
    }
    let elsewhere = g.call::<memory::row::cuMemAlloc_v2>((MIB, &avoid)).unwrap();
    assert!(elsewhere >= probe + (2 << 20), "{elsewhere:#x}");
    assert_eq!(g.call::<memory::row::cuMemAlloc_v2>((MIB, &avoid[..15])), Err(CUresult::INVALID_VALUE));
}

#[test]
fn contexts_own_their_memory() {
    let mut g = session(64);
    let mut other = Guest::new(g.soft.clone(), 1);
    other.context = handle(9);
    let create = |g: &mut Guest, index| g.bare::<context::row::cuCtxCreate_v2>(0, (handle(index), 0, 0));
    assert_eq!(create(&mut other, 9), Ok(()));
    assert_eq!(create(&mut other, 9), Err(CUresult::INVALID_CONTEXT));
    let before = g.left();
    let mine = other.alloc(4 * MIB).unwrap();
    // Unified addressing: the other context reaches it.
    assert_eq!(g.put(mine, &[1; 16]), Ok(()));
    assert_eq!(other.bare::<context::row::cuCtxDestroy_v2>(0, (handle(9),)), Ok(()));
    assert_eq!(g.left(), before);
    assert_eq!(g.put(mine, &[1; 16]), Err(CUresult::INVALID_VALUE));
    assert_eq!(other.alloc(1), Err(CUresult::INVALID_CONTEXT));
    assert_eq!(other.bare::<memory::row::cuMemAlloc_v2>(0, (1, &[])), Err(CUresult::INVALID_CONTEXT));
    let mut bad = |ctx: CUcontext, flags, dev| g.bare::<context::row::cuCtxCreate_v2>(0, (ctx, flags, dev));
    assert_eq!(bad(handle(3), 0, 1), Err(CUresult::INVALID_DEVICE));
    assert_eq!(bad(handle(3), 3, 0), Err(CUresult::INVALID_VALUE));
    assert_eq!(bad(CUcontext(77), 0, 0), Err(CUresult::INVALID_CONTEXT));
}

#[test]
fn the_primary_context_is_counted_and_reset() {
    let mut g = session(64);
    let retain = |g: &mut Guest| g.bare::<context::row::cuDevicePrimaryCtxRetain>(0, (handle(1), 0, 0));
    let release = |g: &mut Guest| g.bare::<context::row::cuDevicePrimaryCtxRelease_v2>(0, (handle(1), 0));
    retain(&mut g).unwrap();
    let a = g.alloc(MIB).unwrap();
    release(&mut g).unwrap();
    g.put(a, &[1]).unwrap();
    assert_eq!(g.call::<context::row::cuDevicePrimaryCtxReset_v2>((handle(1), 0)), Ok(()));
    assert_eq!(g.put(a, &[1]), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.alloc(1), Err(CUresult::CONTEXT_IS_DESTROYED));
    retain(&mut g).unwrap();
    assert_eq!(g.left(), 64 * MIB);
    release(&mut g).unwrap();
    assert!(g.alloc(1).is_ok());
    release(&mut g).unwrap();
    assert_eq!(g.alloc(1), Err(CUresult::CONTEXT_IS_DESTROYED));
    assert_eq!(release(&mut g), Err(CUresult::INVALID_CONTEXT));
    let other = g.bare::<context::row::cuDevicePrimaryCtxRetain>(0, (handle(2), 0, 0));
    assert_eq!(other, Err(CUresult::INVALID_CONTEXT));
}

#[test]
fn limits_and_cache_preferences_are_kept() {
    let mut g = session(64);
    let limit = |g: &mut Guest, n| g.call::<context::row::cuCtxGetLimit>((n,));
    assert_eq!(limit(&mut g, 0), Ok(1024));
    g.call::<context::row::cuCtxSetLimit>((0, 65536)).unwrap();
    assert_eq!(limit(&mut g, 0), Ok(65536));
    for unknown in [3, 4, 7, 1000] {
        assert_eq!(limit(&mut g, unknown), Err(CUresult::UNSUPPORTED_LIMIT));
        let set = g.call::<context::row::cuCtxSetLimit>((unknown, 1));
        assert_eq!(set, Err(CUresult::UNSUPPORTED_LIMIT));
    }
    g.call::<context::row::cuCtxSetCacheConfig>((2,)).unwrap();
    assert_eq!(g.call::<context::row::cuCtxGetCacheConfig>(()), Ok(2));
    assert_eq!(g.call::<context::row::cuCtxSetCacheConfig>((4,)), Err(CUresult::INVALID_VALUE));
}

#[test]
fn host_memory_is_registered_where_it_is_mapped_and_used_at_its_address() {
    let mut g = session(64);
    let pinned = Pinned::new(64 << 10);
    let p = pinned.address;
    let register = |g: &mut Guest, at: u64, len: usize, flags| {
        g.call::<memory::row::cuMemHostRegister_v2>((at, len, flags))
    };
    let unregister = |g: &mut Guest, at: u64| g.call::<memory::row::cuMemHostUnregister>((at,));
    assert_eq!(register(&mut g, p, 4096, 0), Err(CUresult::INVALID_VALUE));
    // The region arrives in two parts.
    g.soft.region_mapped(p, 32 << 10, true);
    g.soft.region_mapped(p + (32 << 10), 32 << 10, true);
    assert_eq!(register(&mut g, p, (64 << 10) + 1, 0), Err(CUresult::INVALID_VALUE));
    assert_eq!(register(&mut g, p, usize::MAX, 0), Err(CUresult::INVALID_VALUE));
    assert_eq!(register(&mut g, p, 4096, 4), Err(CUresult::NOT_SUPPORTED));
    assert_eq!(register(&mut g, p, 4096, 16), Err(CUresult::INVALID_VALUE));
    assert_eq!(register(&mut g, p, 64 << 10, 3), Ok(()));
    assert_eq!(register(&mut g, p + 4096, 4096, 0), Err(CUresult::HOST_MEMORY_ALREADY_REGISTERED));

    let device = g.alloc(8192).unwrap();
    pinned.write(100, b"from the host");
    let copied: CuResult<()> = g.call::<copy::row::cuMemcpyDtoD_v2>((device, p + 100, 13));
    assert_eq!(copied, Ok(()));
    assert_eq!(g.get(device, 13).unwrap(), b"from the host");
    g.call::<copy::row::cuMemcpyDtoD_v2>((p + 60_000, device, 13)).unwrap();
    g.call::<context::row::cuCtxSynchronize>((CUcontext(0),)).unwrap();
    assert_eq!(pinned.read(60_000, 13), b"from the host");
    assert_eq!(
        g.call::<copy::row::cuMemcpyDtoD_v2>((p + (64 << 10) - 4, device, 13)),
        Err(CUresult::INVALID_VALUE)
    );

    assert_eq!(unregister(&mut g, p + 4096), Err(CUresult::HOST_MEMORY_NOT_REGISTERED));
    assert_eq!(unregister(&mut g, p), Ok(()));
    assert_eq!(unregister(&mut g, p), Err(CUresult::HOST_MEMORY_NOT_REGISTERED));
    assert_eq!(g.call::<copy::row::cuMemcpyDtoD_v2>((device, p + 100, 13)), Err(CUresult::INVALID_VALUE));
}

#[test]
fn read_only_regions_are_not_written_and_regions_go() {
    let mut g = session(64);
    let pinned = Pinned::new(16 << 10);
    let p = pinned.address;
    g.soft.region_mapped(p, 16 << 10, false);
    let register = |g: &mut Guest, flags| g.call::<memory::row::cuMemHostRegister_v2>((p, 16 << 10, flags));
    assert_eq!(register(&mut g, 0), Err(CUresult::INVALID_VALUE));
    assert_eq!(register(&mut g, 8), Ok(()));
    let device = g.alloc(4096).unwrap();
    assert_eq!(g.call::<copy::row::cuMemcpyDtoD_v2>((device, p, 4096)), Ok(()));
    assert_eq!(g.call::<copy::row::cuMemcpyDtoD_v2>((p, device, 4096)), Err(CUresult::INVALID_VALUE));
    g.soft.region_unmapping(p, 16 << 10);
    assert_eq!(g.call::<copy::row::cuMemcpyDtoD_v2>((device, p, 4096)), Err(CUresult::INVALID_VALUE));
    assert_eq!(register(&mut g, 8), Err(CUresult::INVALID_VALUE));
}

#[test]
fn malformed_frames_and_foreign_ids_are_found() {
    let g = session(64);
    let mut thread = g.soft.new_thread(5);
    let mut reply = Vec::new();
    let mut run = |call, fields: &[u8]| {
        cuda_api::host::dispatch(&*g.soft, &mut thread, call, fields, &mut reply).is_err()
    };
    assert!(run(0xffff, &[]));
    assert!(run(<memory::row::cuMemFree_v2 as cuda_api::Call>::ID, &[0; 7]));
    assert!(run(<memory::row::cuMemFree_v2 as cuda_api::Call>::ID, &[0; 16]));
}

#[test]
fn what_is_not_done_is_refused() {
    use cuda_api::calls::{graph, launch};
    let mut g = session(64);
    let refused = CUresult::NOT_SUPPORTED;
    assert_eq!(g.call::<graph::row::cuStreamBeginCapture_v2>((CUstream(2), 0)), Err(refused));
    let cooperative = (handle(1), [1; 3], [1; 3], 0, CUstream(0), &[][..]);
    assert_eq!(g.call::<launch::row::cuLaunchCooperativeKernel>(cooperative), Err(refused));
}

#[test]
fn the_info_names_the_device_and_travels() {
    let g = session(64);
    let info = g.soft.vm_info();
    let blob = info.encode();
    assert_eq!(cuda_api::info::VmInfo::decode(&blob).unwrap(), info);
    assert_eq!(info.devices[0].total_memory_bytes, 64 << 20);
}
