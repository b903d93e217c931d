//! Reserved addresses, physical memory and mappings, through frames.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use cuda_api::CuResult;
use cuda_api::calls::{copy, virtual_memory as vm};
use cuda_api::types::*;
use driver::*;

const READ: i32 = 1;
const READ_WRITE: i32 = 3;
const BAD: CuResult<()> = Err(CUresult::INVALID_VALUE);
const DEVICE: CUmemLocation = CUmemLocation { kind: 1, id: 0 };

fn prop() -> CUmemAllocationProp {
    CUmemAllocationProp {
        kind: 1,
        requested_handle_types: 0,
        location: DEVICE,
        win32_handle_meta_data: 0,
        flags: [0; 8],
    }
}

type Handle = CUmemGenericAllocationHandle;

impl Guest {
    fn reserve(&mut self, len: usize) -> u64 {
        self.call::<vm::row::cuMemAddressReserve>((len, 0, 0, 0, &[])).unwrap()
    }

    fn create(&mut self, index: u32, len: usize) -> CuResult<Handle> {
        self.call::<vm::row::cuMemCreate>((handle(index), len, &prop(), 0)).map(|()| handle(index))
    }

    fn map(&mut self, at: u64, len: usize, of: Handle) -> CuResult<()> {
        self.call::<vm::row::cuMemMap>((at, len, 0, of, 0))
    }

    fn unmap(&mut self, at: u64, len: usize) -> CuResult<()> {
        self.call::<vm::row::cuMemUnmap>((at, len))
    }

    fn allow(&mut self, at: u64, len: usize, flags: i32) -> CuResult<()> {
        let desc = [CUmemAccessDesc { location: DEVICE, flags }];
        self.call::<vm::row::cuMemSetAccess>((at, len, &desc, 1))
    }

    fn fill(&mut self, at: u64, value: u8, len: usize) -> CuResult<()> {
        self.call::<copy::row::cuMemsetD8_v2>((at, value, len))
    }
}

#[test]
fn memory_is_there_where_it_is_mapped_and_as_far_as_access_goes() {
    let mut g = session(64);
    for kind in [0, 1] {
        let prop = CUmemAllocationProp { kind, ..prop() };
        assert_eq!(g.call::<vm::row::cuMemGetAllocationGranularity>((&prop, 0)), Ok(2 * MIB), "type {kind}");
    }
    let at = g.reserve(16 * MIB);
    assert_eq!(at % (2 * MIB as u64), 0);
    assert_eq!(g.fill(at, 1, 1), BAD, "reserved addresses are no memory");
    let a = g.create(1, 2 * MIB).unwrap();
    let b = g.create(2, 4 * MIB).unwrap();
    assert_eq!(g.left(), 58 * MIB);
    g.map(at, 2 * MIB, a).unwrap();
    assert_eq!(g.fill(at, 1, 1), BAD, "nobody was given access");
    g.allow(at, 2 * MIB, READ_WRITE).unwrap();
    g.fill(at, 1, 2 * MIB).unwrap();
    assert_eq!(g.fill(at + MIB as u64, 1, 2 * MIB), BAD, "past the end of what is mapped");
    g.map(at + 2 * MIB as u64, 4 * MIB, b).unwrap();
    g.allow(at + 2 * MIB as u64, 4 * MIB, READ_WRITE).unwrap();
    // One range over both.
    g.fill(at + MIB as u64, 7, 2 * MIB).unwrap();
    assert_eq!(g.get(at + 2 * MIB as u64 - 4, 8).unwrap(), [7; 8]);
    g.allow(at, 6 * MIB, READ).unwrap();
    assert_eq!(g.call::<vm::row::cuMemGetAccess>((&DEVICE, at + 5)), Ok(1));
    assert_eq!((g.fill(at, 1, 1), g.get(at, 1).is_ok()), (BAD, true));
    assert_eq!(g.map(at, 2 * MIB, a), BAD, "something is mapped there");
    assert_eq!(g.unmap(at, MIB), BAD, "part of a mapping");
    assert_eq!(g.call::<vm::row::cuMemAddressFree>((at, 16 * MIB)), BAD, "mapped in part");
    assert_eq!(g.unmap(at + 2 * MIB as u64, 2 * MIB), BAD, "the first part of one");
    assert_eq!(g.unmap(at + 4 * MIB as u64, 4 * MIB), BAD, "the last part of one, and nothing");
    g.unmap(at, 8 * MIB).unwrap();
    assert_eq!(g.get(at, 1), Err(CUresult::INVALID_VALUE));
    assert_eq!(g.call::<vm::row::cuMemAddressFree>((at, 8 * MIB)), BAD, "not what was reserved");
    g.call::<vm::row::cuMemAddressFree>((at, 16 * MIB)).unwrap();
    assert_eq!(g.map(at, 2 * MIB, a), BAD, "reserved no longer");
}

#[test]
fn one_memory_can_lie_at_two_addresses_and_lives_as_long_as_it_is_mapped() {
    let mut g = session(64);
    let at = g.reserve(8 * MIB);
    let a = g.create(1, 2 * MIB).unwrap();
    let other = at + 4 * MIB as u64;
    for start in [at, other] {
        g.map(start, 2 * MIB, a).unwrap();
        g.allow(start, 2 * MIB, READ_WRITE).unwrap();
    }
    g.put(at + 8, &[1, 2, 3, 4]).unwrap();
    assert_eq!(g.get(other + 8, 4).unwrap(), [1, 2, 3, 4]);
    g.call::<vm::row::cuMemRelease>((a,)).unwrap();
    g.unmap(at, 2 * MIB).unwrap();
    assert_eq!(g.get(other + 8, 4).unwrap(), [1, 2, 3, 4]);
    assert_eq!(g.left(), 62 * MIB);
    g.unmap(other, 2 * MIB).unwrap();
    assert_eq!(g.left(), 64 * MIB);
    assert_eq!(g.call::<vm::row::cuMemRelease>((a,)), BAD);
}

#[test]
fn physical_memory_is_the_device_s() {
    let mut g = session(64);
    let whole = g.create(1, 64 * MIB).unwrap();
    assert_eq!(g.create(2, 2 * MIB), Err(CUresult::OUT_OF_MEMORY));
    assert_eq!(g.alloc(1), Err(CUresult::OUT_OF_MEMORY));
    g.call::<vm::row::cuMemRelease>((whole,)).unwrap();
    g.alloc(1).unwrap();
    for (len, wrong) in [(0, prop()), (4096, prop()), (2 * MIB, CUmemAllocationProp { kind: 0, ..prop() })] {
        let made = g.call::<vm::row::cuMemCreate>((handle(3), len, &wrong, 0));
        assert_eq!(made, BAD, "{len} {wrong:?}");
    }
    let far = CUmemAllocationProp { location: CUmemLocation { kind: 1, id: 5 }, ..prop() };
    assert_eq!(g.call::<vm::row::cuMemCreate>((handle(3), 2 * MIB, &far, 0)), Err(CUresult::INVALID_DEVICE));
}

#[test]
fn wrong_numbers_map_nothing() {
    let mut g = session(64);
    let at = g.reserve(4 * MIB);
    let a = g.create(1, 2 * MIB).unwrap();
    for (start, len) in
        [(at, 0), (at + 4096, 2 * MIB), (at + 4 * MIB as u64, 2 * MIB), (0, 2 * MIB), (!0x1f_ffff, 2 * MIB)]
    {
        assert_eq!(g.map(start, len, a), BAD, "{start:#x} + {len}");
    }
    let unsupported = Err(CUresult::NOT_SUPPORTED);
    assert_eq!(g.call::<vm::row::cuMemMap>((at, 2 * MIB, 2 * MIB, a, 0)), unsupported);
    assert_eq!(g.map(at, 4 * MIB, a), unsupported, "more than there is");
    assert_eq!(g.map(at, 2 * MIB, handle(9)), BAD);
    assert_eq!(g.unmap(at, 4 * MIB), Ok(()), "nothing is mapped there");
    for (start, len) in [(at, 0), (at, MIB), (at, 6 * MIB), (at + 4 * MIB as u64, 2 * MIB), (0, 2 * MIB)] {
        assert_eq!(g.unmap(start, len), BAD, "{start:#x} + {len}");
    }
    assert_eq!(g.allow(at, 2 * MIB, READ), BAD);
    assert_eq!(g.call::<vm::row::cuMemAddressReserve>((4096, 0, 0, 0, &[])), BAD.map(|()| 0));
    assert_eq!(g.call::<vm::row::cuMemAddressReserve>((1 << 50, 0, 0, 0, &[])), Err(CUresult::OUT_OF_MEMORY));
}
