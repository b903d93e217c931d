//! Images, modules, libraries and launches, through frames.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use std::time::{Duration, Instant};

use cuda_api::CuResult;
use cuda_api::calls::{context, copy, launch, library, memory, module, stream, virtual_memory};
use cuda_api::host::Executor;
use cuda_api::types::*;
use driver::*;

const KERNELS: &str = include_str!("driver/kernels.ptx");
const DEFAULT: CUstream = CUstream(0);

type Logs = (u32, String);

fn load(g: &mut Guest, index: u32, image: &[u8]) -> Logs {
    g.image(u64::from(index), image).unwrap();
    let fields = (handle(index), u64::from(index), &[][..], 1000, 1000);
    let (result, _, error) = g.call::<module::row::cuModuleLoadDataEx>(fields).unwrap();
    (result, String::from_utf8(error).unwrap())
}

fn load_library(g: &mut Guest, index: u32, image: &[u8]) -> Logs {
    g.image(u64::from(index), image).unwrap();
    let fields = (handle(index), u64::from(index), &[][..], 1000, 1000);
    let (result, _, error) = g.bare::<library::row::cuLibraryLoadData>(0, fields).unwrap();
    (result, String::from_utf8(error).unwrap())
}

/// A module of the kernels above, and a session.
fn loaded(memory_mib: u64) -> Guest {
    let mut g = session(memory_mib);
    assert_eq!(load(&mut g, 1, KERNELS.as_bytes()), (0, String::new()));
    g
}

/// A function, under a handle of its own.
fn function(g: &mut Guest, index: u32, name: &std::ffi::CStr) -> (CUfunction, FunctionInfo) {
    let (info, params) =
        g.call::<module::row::cuModuleGetFunction>((handle(index), handle(1), name)).unwrap();
    assert_eq!(params.last().map_or(0, |p| p.offset + p.size), info.param_bytes);
    (handle(index), info)
}

struct Params(Vec<u8>);

impl Params {
    fn new() -> Params {
        Params(Vec::new())
    }
    fn long(mut self, value: u64) -> Params {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
    fn word(mut self, value: u32) -> Params {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}

fn run(g: &mut Guest, f: CUfunction, grid: u32, block: u32, s: CUstream, params: Params) -> CuResult<()> {
    g.call::<launch::row::cuLaunchKernel>((f, [grid, 1, 1], [block, 1, 1], 0, s, &params.0))
}

fn sync(g: &mut Guest) -> CuResult<()> {
    g.call::<context::row::cuCtxSynchronize>((CUcontext(0),))
}

fn vectors(g: &mut Guest, n: usize) -> (u64, u64, u64) {
    let (a, b, c) = (g.alloc(4 * n).unwrap(), g.alloc(4 * n).unwrap(), g.alloc(4 * n).unwrap());
    let floats = |f: fn(usize) -> f32| (0..n).flat_map(move |i| f(i).to_le_bytes()).collect::<Vec<u8>>();
    g.put(a, &floats(|i| i as f32)).unwrap();
    g.put(b, &floats(|i| 0.5 - i as f32 / 2.0)).unwrap();
    (a, b, c)
}

fn check_sum(g: &mut Guest, c: u64, n: usize) {
    let sum = g.get(c, 4 * n).unwrap();
    for (i, bytes) in sum.chunks(4).enumerate() {
        assert_eq!(f32::from_le_bytes(bytes.try_into().unwrap()), i as f32 / 2.0 + 0.5, "element {i}");
    }
}

#[test]
fn vectors_are_added() {
    let mut g = loaded(64);
    let (f, info) = function(&mut g, 1, c"vecadd");
    assert_eq!(info.attributes[func_attribute::BINARY_VERSION], 80);
    assert_eq!(info.attributes[func_attribute::PTX_VERSION], 80);
    assert_eq!(info.attributes[func_attribute::MAX_THREADS_PER_BLOCK], 1024);
    assert_eq!(info.param_bytes, 28);
    let n = 10_000;
    let (a, b, c) = vectors(&mut g, n);
    let s = g.stream(1, 1);
    let params = Params::new().long(a).long(b).long(c).word(n as u32);
    run(&mut g, f, 40, 256, s, params).unwrap();
    g.sync(s).unwrap();
    check_sum(&mut g, c, n);
    // The same on the default stream, whose copies wait for it by themselves.
    g.call::<copy::row::cuMemsetD8_v2>((c, 0, 4 * n)).unwrap();
    let params = Params::new().long(a).long(b).long(c).word(n as u32);
    run(&mut g, f, 40, 256, DEFAULT, params).unwrap();
    check_sum(&mut g, c, n);
}

#[test]
fn registered_memory_is_reached_at_its_address() {
    let mut g = loaded(64);
    let pinned = Pinned::new(8192);
    g.soft.region_mapped(pinned.address, 8192, true);
    g.call::<memory::row::cuMemHostRegister_v2>((pinned.address, 8192, 0)).unwrap();
    let (f, _) = function(&mut g, 1, c"store");
    run(&mut g, f, 1, 1, DEFAULT, Params::new().long(pinned.address + 4096).word(0x1122_3344)).unwrap();
    sync(&mut g).unwrap();
    assert_eq!(pinned.read(4096, 4), 0x1122_3344u32.to_le_bytes());
    // Past its end, and in read-only memory, a store is a fault.
    g.call::<memory::row::cuMemHostUnregister>((pinned.address,)).unwrap();
    g.call::<memory::row::cuMemHostRegister_v2>((pinned.address, 4096, 8)).unwrap();
    run(&mut g, f, 1, 1, DEFAULT, Params::new().long(pinned.address).word(1)).unwrap();
    assert_eq!(sync(&mut g), Err(CUresult::ILLEGAL_ADDRESS));
    assert_eq!(pinned.read(0, 4), [0; 4]);
}

#[test]
fn variables_have_addresses_and_values() {
    let mut g = loaded(64);
    let global =
        |g: &mut Guest, name: &std::ffi::CStr| g.call::<module::row::cuModuleGetGlobal_v2>((handle(1), name));
    let (counter, len, _) = global(&mut g, c"counter").unwrap();
    assert_eq!((len, g.word(counter)), (4, 41));
    let (place, len, _) = global(&mut g, c"where").unwrap();
    assert_eq!((len, g.get(place, 8).unwrap()), (8, counter.to_le_bytes().to_vec()));
    let (room, len, _) = global(&mut g, c"room").unwrap();
    assert_eq!((len, g.get(room, 6000).unwrap()), (6000, vec![0; 6000]));
    let (scale, ..) = global(&mut g, c"scale").unwrap();
    assert_eq!(global(&mut g, c"nothing"), Err(CUresult::NOT_FOUND));
    // The host writes constants.
    g.put(scale, &10u32.to_le_bytes()).unwrap();
    let (f, info) = function(&mut g, 1, c"count");
    assert_eq!(info.attributes[func_attribute::CONST_SIZE_BYTES], 4);
    let out = g.alloc(4).unwrap();
    run(&mut g, f, 1, 1, DEFAULT, Params::new().long(out)).unwrap();
    assert_eq!((g.word(out), g.word(counter)), (410, 42));
    // Variables are not cuMemFree's.
    assert_eq!(g.free(counter), Err(CUresult::INVALID_VALUE));
    // Kernels do not write constants.
    let (f, _) = function(&mut g, 2, c"store");
    run(&mut g, f, 1, 1, DEFAULT, Params::new().long(scale).word(1)).unwrap();
    assert_eq!(sync(&mut g), Err(CUresult::ILLEGAL_ADDRESS));
}

#[test]
fn a_module_goes_after_its_work_and_takes_its_memory_along() {
    let mut g = session(64);
    let before = g.left();
    assert_eq!(load(&mut g, 1, KERNELS.as_bytes()).0, 0);
    assert!(g.left() < before);
    assert_eq!(g.call::<module::row::cuModuleGetFunctionCount>((handle(1),)), Ok(7));
    let (f, _) = function(&mut g, 1, c"spin");
    let flag = g.alloc(4).unwrap();
    let (s, free) = (g.stream(1, 1), g.stream(2, 1));
    g.call::<copy::row::cuMemsetD8_v2>((flag, 0, 4)).unwrap();
    run(&mut g, f, 1, 1, s, Params::new().long(flag)).unwrap();
    let mut other = g.sibling(1);
    let unloading = std::thread::spawn(move || other.call::<module::row::cuModuleUnload>((handle(1),)));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!unloading.is_finished());
    // The kernel sees what another stream writes.
    g.write32(free, flag, 1).unwrap();
    assert_eq!(unloading.join().unwrap(), Ok(()));
    let again = run(&mut g, f, 1, 1, s, Params::new().long(flag));
    assert_eq!(again, Err(CUresult::INVALID_HANDLE));
    g.free(flag).unwrap();
    assert_eq!(g.left(), before);
    assert_eq!(g.call::<module::row::cuModuleUnload>((handle(1),)), Err(CUresult::INVALID_HANDLE));
}

#[test]
fn images_that_cannot_be_loaded_say_why() {
    let mut g = session(64);
    let head = ".version 8.0\n.target sm_80\n.address_size 64\n";
    for (text, result, word) in [
        ("//\n.version 99.0\n.target sm_80\n.address_size 64\n".to_owned(), 222, "99"),
        (format!("{head}.visible .entry k() {{ what.is.this; }}\n"), 218, "what"),
        (format!("{head}.visible .entry k() {{ mov.u32 \n"), 218, "line"),
        ("garbage".to_owned(), 200, "neither"),
        ("\x7fELF".to_owned(), 209, "machine code"),
    ] {
        let (code, log) = load(&mut g, 1, text.as_bytes());
        assert_eq!(code, result, "{log}");
        assert!(log.contains(word), "{log}");
        assert_eq!(load_library(&mut g, 2, text.as_bytes()).0, result);
    }
    let unknown = g.call::<module::row::cuModuleLoadDataEx>((handle(1), 77, &[], 0, 0)).unwrap();
    assert_eq!(unknown.0, CUresult::INVALID_VALUE.0);
    assert_eq!(g.left(), 64 * MIB);
    // Nothing was made: the handle is free.
    assert_eq!(load(&mut g, 1, KERNELS.as_bytes()).0, 0);
    let missing = g.call::<module::row::cuModuleGetFunction>((handle(1), handle(1), c"nothing"));
    assert_eq!(missing.err(), Some(CUresult::NOT_FOUND));
    // A second module under the same handle is refused and leaves nothing behind.
    let left = g.left();
    assert_eq!(load(&mut g, 1, KERNELS.as_bytes()).0, CUresult::INVALID_HANDLE.0);
    assert_eq!(g.left(), left);
}

#[test]
fn a_compressed_fatbin_is_loaded() {
    let mut g = session(64);
    let packed = lz4_flex::block::compress(KERNELS.as_bytes());
    let mut entry = Vec::new();
    let padded = packed.len().next_multiple_of(8);
    for word in [0x0101_0001, 64, padded as u32, 0, packed.len() as u32, 0, 0, 80, 0, 0, 0x2011, 0, 0, 0] {
        entry.extend_from_slice(&u32::to_le_bytes(word));
    }
    entry.extend_from_slice(&(KERNELS.len() as u64).to_le_bytes());
    entry.extend_from_slice(&packed);
    entry.resize(64 + padded, 0);
    let mut image = Vec::new();
    image.extend_from_slice(&0xba55_ed50u32.to_le_bytes());
    image.extend_from_slice(&0x0010_0001u32.to_le_bytes());
    image.extend_from_slice(&(entry.len() as u64).to_le_bytes());
    image.extend_from_slice(&entry);
    assert_eq!(load(&mut g, 1, &image), (0, String::new()));
    let (f, _) = function(&mut g, 1, c"store");
    let d = g.alloc(4).unwrap();
    run(&mut g, f, 1, 1, DEFAULT, Params::new().long(d).word(8)).unwrap();
    assert_eq!(g.word(d), 8);
}

#[test]
fn a_library_works_in_every_context() {
    let mut g = session(64);
    assert_eq!(load_library(&mut g, 1, KERNELS.as_bytes()), (0, String::new()));
    let mut other = Guest::new(g.soft.clone(), 1);
    other.bare::<context::row::cuCtxCreate_v2>(0, (handle(5), 0, 0)).unwrap();
    other.context = handle(5);
    let kernel: CUkernel = handle(1);
    let (info, params) =
        g.bare::<library::row::cuLibraryGetKernel>(0, (kernel, handle(1), c"count")).unwrap();
    assert_eq!((info.param_bytes, params.len()), (8, 1));
    assert_eq!(g.call::<library::row::cuLibraryGetKernelCount>((handle(1),)), Ok(7));
    // A kernel is launched as a function, in either context, each with its own variables.
    for (guest, rounds) in [(&mut g, 3), (&mut other, 1)] {
        let out = guest.alloc(4).unwrap();
        for round in 0..rounds {
            run(guest, CUfunction(kernel.0), 1, 1, DEFAULT, Params::new().long(out)).unwrap();
            assert_eq!(guest.word(out), (41 + round) * 3);
        }
        let global =
            |guest: &mut Guest| guest.call::<library::row::cuLibraryGetGlobal>((handle(1), c"counter"));
        let (address, ..) = global(guest).unwrap();
        assert_eq!(guest.word(address), 41 + rounds);
    }
    let function: CUfunction = handle(9);
    g.call::<library::row::cuKernelGetFunction>((function, kernel)).unwrap();
    let out = g.alloc(4).unwrap();
    run(&mut g, function, 1, 1, DEFAULT, Params::new().long(out)).unwrap();
    assert_eq!(g.word(out), 44 * 3);
    let foreign = run(&mut other, function, 1, 1, DEFAULT, Params::new().long(out));
    assert_eq!(foreign, Err(CUresult::INVALID_HANDLE));
    g.call::<library::row::cuLibraryGetModule>((handle(7), handle(1))).unwrap();
    assert!(g.call::<module::row::cuModuleGetGlobal_v2>((handle(7), c"scale")).is_ok());
    let borrowed = g.call::<module::row::cuModuleUnload>((handle(7),));
    assert_eq!(borrowed, Err(CUresult::INVALID_HANDLE));
    // A context's end leaves the library to the others.
    other.bare::<context::row::cuCtxDestroy_v2>(0, (handle(5),)).unwrap();
    run(&mut g, CUfunction(kernel.0), 1, 1, DEFAULT, Params::new().long(out)).unwrap();
    assert_eq!(g.word(out), 45 * 3);
    g.free(out).unwrap();
    g.call::<library::row::cuLibraryUnload>((handle(1),)).unwrap();
    let gone = run(&mut g, CUfunction(kernel.0), 1, 1, DEFAULT, Params::new().long(out));
    assert_eq!(gone, Err(CUresult::INVALID_HANDLE));
}

#[test]
fn launches_that_do_not_fit_are_refused_at_once() {
    let mut g = loaded(64);
    let (store, _) = function(&mut g, 1, c"store");
    let (bounded, info) = function(&mut g, 2, c"bounded");
    let (exact, _) = function(&mut g, 3, c"exact");
    assert_eq!(info.attributes[func_attribute::MAX_THREADS_PER_BLOCK], 64);
    assert_eq!(info.attributes[func_attribute::SHARED_SIZE_BYTES], 1024);
    assert_eq!(info.attributes[func_attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES], 47 << 10);
    let d = g.alloc(4).unwrap();
    let params = Params::new().long(d).word(1).0;
    let mut try_store = |grid, block, shared, params: &[u8]| {
        g.call::<launch::row::cuLaunchKernel>((store, grid, block, shared, DEFAULT, params))
    };
    let bad = Err(CUresult::INVALID_VALUE);
    assert_eq!(try_store([1, 1, 1], [1, 1, 1], 0, &params), Ok(()));
    assert_eq!(try_store([1, 1, 1], [1, 1, 1], 48 << 10, &params), Ok(()));
    assert_eq!(try_store([1, 1, 1], [1, 1, 1], (48 << 10) + 1, &params), bad);
    assert_eq!(try_store([0, 1, 1], [1, 1, 1], 0, &params), bad);
    assert_eq!(try_store([1, 65536, 1], [1, 1, 1], 0, &params), bad);
    assert_eq!(try_store([1 << 31, 1, 1], [1, 1, 1], 0, &params), bad);
    assert_eq!(try_store([1, 1, 1], [0, 1, 1], 0, &params), bad);
    assert_eq!(try_store([1, 1, 1], [1025, 1, 1], 0, &params), bad);
    assert_eq!(try_store([1, 1, 1], [1, 1, 65], 0, &params), bad);
    assert_eq!(try_store([1, 1, 1], [u32::MAX, u32::MAX, u32::MAX], 0, &params), bad);
    assert_eq!(try_store([1, 1, 1], [32, 32, 2], 0, &params), bad);
    assert_eq!(try_store([1, 1, 1], [1, 1, 1], 0, &params[..11]), bad);
    assert_eq!(try_store([1, 1, 1], [1, 1, 1], 0, &[]), bad);
    assert_eq!(run(&mut g, bounded, 1, 64, DEFAULT, Params::new()), Ok(()));
    assert_eq!(run(&mut g, bounded, 1, 65, DEFAULT, Params::new()), bad);
    assert_eq!(run(&mut g, exact, 1, 64, DEFAULT, Params::new()), bad);
    let right = g.call::<launch::row::cuLaunchKernel>((exact, [1; 3], [32, 2, 1], 0, DEFAULT, &[]));
    assert_eq!(right, Ok(()));
    assert_eq!(run(&mut g, handle(99), 1, 1, DEFAULT, Params::new()), Err(CUresult::INVALID_HANDLE));
    assert_eq!(sync(&mut g), Ok(()));

    let set = |g: &mut Guest, attribute, value| {
        g.call::<launch::row::cuFuncSetAttribute>((bounded, attribute, value)).map(|i| i.attributes[8])
    };
    assert_eq!(set(&mut g, 8, 162 << 10), Ok(162 << 10));
    assert_eq!(set(&mut g, 8, (162 << 10) + 1), bad.map(|()| 0));
    assert_eq!(set(&mut g, 8, -1), bad.map(|()| 0));
    assert_eq!(set(&mut g, 0, 5), bad.map(|()| 0));
    assert_eq!(set(&mut g, 9, 50), Ok(162 << 10));
    assert_eq!(set(&mut g, 9, 101), bad.map(|()| 0));
}

#[test]
fn launch_attributes_are_taken_or_refused_by_name() {
    let mut g = loaded(64);
    let (f, _) = function(&mut g, 1, c"store");
    let d = g.alloc(4).unwrap();
    let params = Params::new().long(d).word(1).0;
    let record = |id: u32, value: &[u32]| {
        let mut bytes = vec![0u8; 72];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        for (i, v) in value.iter().enumerate() {
            bytes[8 + 4 * i..12 + 4 * i].copy_from_slice(&v.to_le_bytes());
        }
        bytes
    };
    let mut ex = |attributes: &[u8]| {
        g.call::<launch::row::cuLaunchKernelEx>((f, [1; 3], [1; 3], 0, DEFAULT, attributes, &params))
    };
    let refused = Err(CUresult::NOT_SUPPORTED);
    assert_eq!(ex(&[]), Ok(()));
    assert_eq!(ex(&[record(6, &[1]), record(8, &[5]), record(4, &[1, 1, 1])].concat()), Ok(()));
    assert_eq!(ex(&record(4, &[2, 1, 1])), refused);
    assert_eq!(ex(&record(2, &[1])), refused);
    assert_eq!(ex(&record(2, &[0])), Ok(()));
    assert_eq!(ex(&record(7, &[])), refused);
    assert_eq!(ex(&record(15, &[])), Err(CUresult::INVALID_VALUE), "no attribute has this number");
    assert_eq!(ex(&record(1000, &[])), Err(CUresult::INVALID_VALUE));
    assert_eq!(ex(&record(6, &[1])[..71]), Err(CUresult::INVALID_VALUE));
}

#[test]
fn a_fault_is_every_calls_answer_and_ends_other_kernels() {
    for (name, result) in [(c"store", CUresult::ILLEGAL_ADDRESS), (c"trapped", CUresult::LAUNCH_FAILED)] {
        let mut g = loaded(64);
        let (spin, _) = function(&mut g, 1, c"spin");
        let (bad, _) = function(&mut g, 2, name);
        let flag = g.alloc(4).unwrap();
        g.call::<copy::row::cuMemsetD8_v2>((flag, 0, 4)).unwrap();
        let (a, b) = (g.stream(1, 1), g.stream(2, 1));
        run(&mut g, spin, 2, 64, a, Params::new().long(flag)).unwrap();
        let mut other = g.sibling(1);
        let waiting = std::thread::spawn(move || other.sync(a));
        let params = if name == c"store" { Params::new().long(flag + 4).word(1) } else { Params::new() };
        run(&mut g, bad, 1, 1, b, params).unwrap();
        assert_eq!(waiting.join().unwrap(), Err(result));
        assert_eq!(g.sync(b), Err(result));
        assert_eq!(g.alloc(1), Err(result));
        assert_eq!(g.soft.sticky(), result.0);
        let begin = Instant::now();
        assert!(g.soft.quiesce(Duration::from_secs(5)));
        assert!(begin.elapsed() < Duration::from_millis(200));
    }
}

#[test]
fn a_misaligned_store_is_716() {
    let mut g = loaded(64);
    let (f, _) = function(&mut g, 1, c"store");
    let d = g.alloc(64).unwrap();
    run(&mut g, f, 1, 1, DEFAULT, Params::new().long(d + 2).word(1)).unwrap();
    assert_eq!(sync(&mut g), Err(CUresult::MISALIGNED_ADDRESS));
}

#[test]
fn stopping_ends_a_kernel_that_has_no_end() {
    let mut g = loaded(64);
    let (spin, _) = function(&mut g, 1, c"spin");
    let flag = g.alloc(4).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((flag, 0, 4)).unwrap();
    let s = g.stream(1, 1);
    run(&mut g, spin, 4, 1024, s, Params::new().long(flag)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(g.query(s), Err(CUresult::NOT_READY));
    let begin = Instant::now();
    g.soft.stop();
    // Milliseconds, where nothing else wants the processors.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_region_goes_although_a_kernel_holds_on_to_it() {
    let mut g = loaded(64);
    let pinned = Pinned::new(8192);
    let p = pinned.address;
    g.soft.region_mapped(p, 8192, true);
    g.call::<memory::row::cuMemHostRegister_v2>((p, 8192, 0)).unwrap();
    let (spin, _) = function(&mut g, 1, c"spin");
    let flag = g.alloc(4).unwrap();
    g.call::<copy::row::cuMemsetD8_v2>((flag, 0, 4)).unwrap();
    let (a, b, free) = (g.stream(1, 1), g.stream(2, 1), g.stream(3, 1));
    // A kernel that does not use the region is not disturbed by its end.
    run(&mut g, spin, 1, 1, a, Params::new().long(flag)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let begin = Instant::now();
    g.soft.region_unmapping(p, 8192);
    assert!(begin.elapsed() < Duration::from_secs(1));
    g.write32(free, flag, 1).unwrap();
    assert_eq!(g.sync(a), Ok(()));
    // One that does is ended.
    g.soft.region_mapped(p, 8192, true);
    g.call::<memory::row::cuMemHostRegister_v2>((p, 8192, 0)).unwrap();
    run(&mut g, spin, 1, 1, b, Params::new().long(p)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    g.soft.region_unmapping(p, 8192);
    assert!(g.soft.quiesce(Duration::from_secs(1)));
    assert_eq!(g.sync(b), Err(CUresult::ILLEGAL_ADDRESS));
}

#[test]
fn occupancy_is_the_textbooks() {
    let mut g = loaded(64);
    let (f, info) = function(&mut g, 1, c"vecadd");
    let (bounded, _) = function(&mut g, 2, c"bounded");
    let registers = info.attributes[func_attribute::NUM_REGS];
    assert!((1..=64).contains(&registers), "{registers}");
    let blocks = |g: &mut Guest, f, threads, shared| {
        g.call::<launch::row::cuOccupancyMaxActiveBlocksPerMultiprocessor>((f, threads, shared))
    };
    if registers <= 32 {
        assert_eq!(blocks(&mut g, f, 256, 0), Ok(8));
        assert_eq!(blocks(&mut g, f, 1024, 0), Ok(2));
        assert_eq!(blocks(&mut g, f, 33, 0), Ok(32));
    }
    // 164 KiB of shared memory, one of them for the block itself.
    assert_eq!(blocks(&mut g, f, 32, 40 << 10), Ok(4));
    assert_eq!(blocks(&mut g, f, 32, 49 << 10), Ok(0));
    assert_eq!(blocks(&mut g, bounded, 65, 0), Ok(0));
    assert_eq!(blocks(&mut g, bounded, 0, 0), Err(CUresult::INVALID_VALUE));
    let available = g.call::<launch::row::cuOccupancyAvailableDynamicSMemPerBlock>((bounded, 2, 64));
    assert_eq!(available, Ok((82 << 10) - 1024 - 1024));
}

#[test]
fn a_thousand_launches_keep_their_order() {
    let mut g = loaded(64);
    let (f, _) = function(&mut g, 1, c"store");
    let d = g.alloc(4).unwrap();
    let s = g.stream(1, 0);
    for i in 0..3000 {
        run(&mut g, f, 1, 1, s, Params::new().long(d).word(i)).unwrap();
    }
    assert_eq!(g.word(d), 2999);
    assert_eq!(g.call::<stream::row::cuStreamDestroy_v2>((s,)), Ok(()));
}

const MANAGED: &str = ".version 7.0\n.target sm_70\n.address_size 64\n\
    .global .attribute(.managed) .align 4 .u32 both = 3;\n\
    .global .align 4 .u32 own = 5;\n\
    .visible .entry times() {\n\
        .reg .u32 %r<3>;\n\
        ld.global.u32 %r0, [both];\n\
        ld.global.u32 %r1, [own];\n\
        mul.lo.u32 %r2, %r0, %r1;\n\
        st.global.u32 [both], %r2;\n\
        st.global.u32 [own], 2;\n\
        ret;\n\
    }\n";

fn managed_read(g: &mut Guest, at: u64, len: u64) -> CuResult<Vec<u8>> {
    let ranges = [at.to_le_bytes(), len.to_le_bytes()].concat();
    g.bare::<virtual_memory::row::vgpuManagedRead>(0, (&ranges[..],))
}

fn managed_write(g: &mut Guest, at: u64, bytes: &[u8]) -> CuResult<()> {
    let mut runs = Vec::new();
    cuda_api::managed::put_run(&mut runs, at, bytes);
    g.bare::<virtual_memory::row::vgpuManagedWrite>(0, (&runs[..],))
}

#[test]
fn a_managed_variable_is_one_for_all_contexts() {
    const REFUSED: CUresult = CUresult::INVALID_VALUE;
    let mut g = session(64);
    let mut other = Guest::new(g.soft.clone(), 1);
    other.context = handle(5);
    other.bare::<context::row::cuCtxCreate_v2>(0, (handle(5), 0, 0)).unwrap();
    assert_eq!(load_library(&mut g, 1, MANAGED.as_bytes()), (0, String::new()));
    let managed =
        |g: &mut Guest, name: &std::ffi::CStr| g.call::<library::row::cuLibraryGetManaged>((handle(1), name));
    let global =
        |g: &mut Guest, name: &std::ffi::CStr| g.call::<library::row::cuLibraryGetGlobal>((handle(1), name));
    let (own, _, is_managed) = global(&mut g, c"own").unwrap();
    assert!(!is_managed);
    assert_eq!(managed(&mut g, c"own"), Err(CUresult::NOT_FOUND));
    assert_eq!(managed(&mut g, c"none"), Err(CUresult::NOT_FOUND));
    let (at, len) = managed(&mut g, c"both").unwrap();
    assert_eq!((global(&mut g, c"both"), managed(&mut other, c"both")), (Ok((at, len, true)), Ok((at, len))));
    assert_eq!((len, managed_read(&mut g, at, 4)), (4, Ok(3u32.to_le_bytes().to_vec())));
    // Another context has its own variables, and this one in common.
    let kernel: CUkernel = handle(2);
    g.call::<library::row::cuLibraryGetKernel>((kernel, handle(1), c"times")).unwrap();
    let times = CUfunction(kernel.0);
    for (first, expected) in [(true, 15), (false, 75), (true, 150)] {
        let guest = if first { &mut g } else { &mut other };
        run(guest, times, 1, 1, DEFAULT, Params::new()).unwrap();
        sync(guest).unwrap();
        assert_eq!(managed_read(guest, at, 4), Ok(u32::to_le_bytes(expected).to_vec()));
    }
    managed_write(&mut g, at, &7u32.to_le_bytes()).unwrap();
    run(&mut other, times, 1, 1, DEFAULT, Params::new()).unwrap();
    sync(&mut other).unwrap();
    assert_eq!(g.word(at), 14);
    // A variable that is not managed, and what lies around one that is, are out of reach.
    for (at, len) in [(own, 4), (at + 1, 4), (at - 1, 4), (at + 4, 1)] {
        assert_eq!(managed_read(&mut g, at, len), Err(REFUSED));
        assert_eq!(managed_write(&mut g, at, &[0; 4][..len as usize]), Err(REFUSED));
    }
    // It stays when the context goes that came first, and goes with its library.
    other.bare::<context::row::cuCtxDestroy_v2>(0, (handle(5),)).unwrap();
    assert_eq!(managed_read(&mut g, at, 4), Ok(14u32.to_le_bytes().to_vec()));
    g.call::<library::row::cuLibraryUnload>((handle(1),)).unwrap();
    assert_eq!(managed_read(&mut g, at, 4), Err(REFUSED));
    assert_eq!(managed_write(&mut g, at, &[0; 4]), Err(REFUSED));
    // A module's goes with its context.
    assert_eq!(load(&mut g, 3, MANAGED.as_bytes()), (0, String::new()));
    let (at, _, is_managed) = g.call::<module::row::cuModuleGetGlobal_v2>((handle(3), c"both")).unwrap();
    assert!(is_managed && managed_read(&mut g, at, 4).is_ok());
    g.bare::<context::row::cuDevicePrimaryCtxReset_v2>(0, (handle(1), 0)).unwrap();
    assert_eq!(managed_read(&mut g, at, 4), Err(REFUSED));
    // Other state spaces have no such variables.
    let (result, log) = load_library(&mut g, 4, MANAGED.replace(".global .attr", ".const .attr").as_bytes());
    assert_eq!(result, CUresult::INVALID_PTX.0, "{log}");
    assert!(log.contains("managed"), "{log}");
}
