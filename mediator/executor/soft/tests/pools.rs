//! Pools and allocation in streams, through frames.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use cuda_api::CuResult;
use cuda_api::calls::{copy, virtual_memory as vm};
use cuda_api::types::*;
use driver::*;

const BAD: CuResult<()> = Err(CUresult::INVALID_VALUE);
const RELEASE_THRESHOLD: u32 = 4;
const RESERVED: u32 = 5;
const USED: u32 = 7;
const USED_HIGH: u32 = 8;

fn props(max_size: u64) -> CUmemPoolProps {
    CUmemPoolProps {
        kind: 1,
        handle_types: 0,
        location: CUmemLocation { kind: 1, id: 0 },
        win32_security_attributes: 0,
        max_size,
        usage: 0,
        reserved: [0; 54],
    }
}

impl Guest {
    fn default_pool(&mut self, index: u32) -> CUmemoryPool {
        self.call::<vm::row::cuDeviceGetDefaultMemPool>((handle(index), 0)).unwrap();
        handle(index)
    }

    fn pool(&mut self, index: u32, max_size: u64) -> CUmemoryPool {
        self.call::<vm::row::cuMemPoolCreate>((handle(index), &props(max_size))).unwrap();
        handle(index)
    }

    fn alloc_async(&mut self, len: usize, pool: CUmemoryPool, stream: CUstream) -> CuResult<u64> {
        let (at, captured) = self.call::<vm::row::cuMemAllocAsync>((len, pool, stream, &[]))?;
        assert_eq!(captured, 0);
        Ok(at)
    }

    fn free_async(&mut self, at: u64, stream: CUstream) -> CuResult<()> {
        self.call::<vm::row::cuMemFreeAsync>((at, stream))
    }

    fn attribute(&mut self, pool: CUmemoryPool, number: u32) -> u64 {
        self.call::<vm::row::cuMemPoolGetAttribute>((pool, number)).unwrap()
    }
}

#[test]
fn what_is_freed_in_a_stream_is_gone_for_calls_and_there_for_the_stream() {
    let mut g = session(64);
    let (s, other) = (g.stream(1, 1), g.stream(2, 1));
    let gate = g.alloc(4).unwrap();
    g.call::<copy::row::cuMemsetD32_v2>((gate, 0, 1)).unwrap();
    let result = g.alloc(4).unwrap();
    let at = g.alloc_async(4 * MIB, CUmemoryPool::NULL, s).unwrap();
    g.wait32(s, gate, 1).unwrap();
    g.call::<copy::row::cuMemsetD32Async>((at, 77, 1, s)).unwrap();
    g.call::<copy::row::cuMemcpyDtoDAsync_v2>((result, at, 4, s)).unwrap();
    g.free_async(at, s).unwrap();
    // The stream has done none of it yet.
    assert_eq!(g.call::<copy::row::cuMemsetD8Async>((at, 0, 1, s)), BAD);
    assert_eq!(g.free_async(at, s), BAD);
    assert_eq!(g.free(at), BAD);
    g.write32(other, gate, 1).unwrap();
    g.sync(s).unwrap();
    assert_eq!(g.word(result), 77);
}

#[test]
fn a_pool_keeps_what_it_was_told_to_keep() {
    let mut g = session(64);
    let s = g.stream(1, 0);
    let pool = g.default_pool(1);
    assert_eq!((g.attribute(pool, 1), g.attribute(pool, RELEASE_THRESHOLD)), (1, 0));
    let at = g.alloc_async(8 * MIB, CUmemoryPool::NULL, s).unwrap();
    assert_eq!((g.attribute(pool, USED), g.attribute(pool, RESERVED)), (8 << 20, 8 << 20));
    g.free_async(at, s).unwrap();
    g.sync(s).unwrap();
    assert_eq!((g.attribute(pool, USED), g.attribute(pool, RESERVED)), (0, 0), "the threshold is 0");
    assert_eq!(g.attribute(pool, USED_HIGH), 8 << 20);
    assert_eq!(g.left(), 64 * MIB);
    g.call::<vm::row::cuMemPoolSetAttribute>((pool, RELEASE_THRESHOLD, u64::MAX)).unwrap();
    let at = g.alloc_async(8 * MIB, CUmemoryPool::NULL, s).unwrap();
    g.free_async(at, s).unwrap();
    g.sync(s).unwrap();
    assert_eq!((g.attribute(pool, USED), g.attribute(pool, RESERVED)), (0, 8 << 20));
    assert_eq!(g.left(), 56 * MIB);
    assert_eq!(g.alloc_async(8 * MIB, CUmemoryPool::NULL, s), Ok(at), "it gives the same out again");
    g.free_async(at, s).unwrap();
    // Somebody else needs it.
    let whole = g.alloc(64 * MIB).unwrap();
    g.free(whole).unwrap();
    assert_eq!(g.attribute(pool, RESERVED), 0);
    let at = g.alloc_async(8 * MIB, CUmemoryPool::NULL, s).unwrap();
    g.free_async(at, s).unwrap();
    g.call::<vm::row::cuMemPoolTrimTo>((pool, 0)).unwrap();
    assert_eq!(g.attribute(pool, RESERVED), 0);
}

#[test]
fn pools_are_apart_and_end_after_their_memory() {
    let mut g = session(64);
    let s = g.stream(1, 0);
    let (default, small) = (g.default_pool(1), g.pool(2, 4 << 20));
    assert_eq!(g.alloc_async(8 * MIB, small, s), Err(CUresult::OUT_OF_MEMORY), "its own limit");
    let at = g.alloc_async(4 * MIB, small, s).unwrap();
    assert_eq!((g.attribute(default, USED), g.attribute(small, USED)), (0, 4 << 20));
    g.call::<vm::row::cuDeviceSetMemPool>((0, small)).unwrap();
    assert_eq!(g.alloc_async(1, CUmemoryPool::NULL, s), Err(CUresult::OUT_OF_MEMORY));
    g.call::<vm::row::cuMemPoolDestroy>((small,)).unwrap();
    assert_eq!(g.alloc_async(1, small, s), Err(CUresult::INVALID_VALUE));
    let other = g.alloc_async(1, CUmemoryPool::NULL, s).unwrap();
    assert_eq!(g.attribute(default, USED), 1, "the default pool is the current one again");
    g.call::<copy::row::cuMemsetD8_v2>((at, 1, 4 * MIB)).unwrap();
    for at in [at, other] {
        g.free_async(at, s).unwrap();
    }
    g.sync(s).unwrap();
    assert_eq!(g.left(), 64 * MIB);
    assert_eq!(g.call::<vm::row::cuMemPoolDestroy>((default,)), BAD);
}

#[test]
fn either_kind_of_memory_can_be_freed_either_way() {
    let mut g = session(64);
    let s = g.stream(1, 0);
    let pooled = g.alloc_async(MIB, CUmemoryPool::NULL, s).unwrap();
    g.free(pooled).unwrap();
    assert_eq!(g.free(pooled), BAD);
    let plain = g.alloc(MIB).unwrap();
    g.free_async(plain, s).unwrap();
    assert_eq!(g.free_async(plain, s), BAD);
    assert_eq!(g.free_async(0, s), BAD);
    g.sync(s).unwrap();
    assert_eq!(g.left(), 64 * MIB);
}

#[test]
fn wrong_pools_and_numbers_are_refused() {
    let mut g = session(64);
    let s = g.stream(1, 0);
    let pool = g.default_pool(1);
    assert_eq!(g.alloc_async(0, CUmemoryPool::NULL, s), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.alloc_async(65 * MIB, CUmemoryPool::NULL, s), Err(CUresult::OUT_OF_MEMORY));
    assert_eq!(g.alloc_async(usize::MAX, CUmemoryPool::NULL, s), Err(CUresult::OUT_OF_MEMORY));
    assert_eq!(g.alloc_async(1, handle(7), s), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.alloc_async(1, pool, handle(9)), Err(CUresult::INVALID_HANDLE));
    for (number, value) in [(0, 0), (RESERVED, 0), (USED, 0), (USED_HIGH, 1), (9, 0)] {
        let set = g.call::<vm::row::cuMemPoolSetAttribute>((pool, number, value));
        assert_eq!(set, BAD, "attribute {number}");
    }
    assert_eq!(g.call::<vm::row::cuMemPoolGetAttribute>((pool, 9)), Err(CUresult::INVALID_VALUE));
    for wrong in [
        CUmemPoolProps { kind: 0, ..props(0) },
        CUmemPoolProps { reserved: [1; 54], ..props(0) },
        CUmemPoolProps { location: CUmemLocation { kind: 2, id: 0 }, ..props(0) },
    ] {
        assert_eq!(g.call::<vm::row::cuMemPoolCreate>((handle(3), &wrong)), BAD, "{wrong:?}");
    }
    let device = CUmemLocation { kind: 1, id: 0 };
    assert_eq!(g.call::<vm::row::cuMemPoolGetAccess>((pool, &device)), Ok(3));
    let away = [CUmemAccessDesc { location: device, flags: 0 }];
    assert_eq!(g.call::<vm::row::cuMemPoolSetAccess>((pool, &away, 1)), Err(CUresult::INVALID_DEVICE));
    assert_eq!(g.call::<vm::row::cuDeviceSetMemPool>((1, pool)), Err(CUresult::INVALID_DEVICE));
}
