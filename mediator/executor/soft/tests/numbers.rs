//! What calls cost. Run with `cargo test --release -p executor-soft --test numbers -- --ignored --nocapture`.

#![allow(clippy::cast_possible_truncation)] // of numbers that are chosen here

mod driver;

use std::time::Instant;

use cuda_api::calls::{copy, launch, module};
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill};
use driver::*;

fn ns(begin: Instant, n: u32) -> f64 {
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(n)
}

#[test]
#[ignore = "prints numbers"]
fn numbers() {
    let mut g = session(512);
    g.image(1, include_bytes!("driver/kernels.ptx")).unwrap();
    assert_eq!(g.call::<module::row::cuModuleLoadDataEx>((handle(1), 1, &[], 0, 0)).unwrap().0, 0);
    g.call::<module::row::cuModuleGetFunction>((handle(1), handle(1), c"store")).unwrap();
    let d = g.alloc(4).unwrap();
    let s = g.stream(1, 1);
    let mut params = d.to_le_bytes().to_vec();
    params.extend_from_slice(&7u32.to_le_bytes());
    let launch = |g: &mut Guest, s| {
        let fields = (handle(1), [1, 1, 1], [1, 1, 1], 0, s, &params[..]);
        g.call::<launch::row::cuLaunchKernel>(fields).unwrap();
    };
    for _ in 0..1000 {
        launch(&mut g, s);
    }
    g.sync(s).unwrap();
    let begin = Instant::now();
    for _ in 0..900 {
        launch(&mut g, s);
    }
    println!("launch, posted: {:.0} ns", ns(begin, 900));
    g.sync(s).unwrap();
    println!("launch, with its execution: {:.0} ns", ns(begin, 900));
    let begin = Instant::now();
    for _ in 0..20_000 {
        launch(&mut g, s);
    }
    g.sync(s).unwrap();
    println!("launch, sustained: {:.0} ns", ns(begin, 20_000));
    let begin = Instant::now();
    for _ in 0..2000 {
        launch(&mut g, s);
        g.sync(s).unwrap();
    }
    println!("launch and synchronise: {:.0} ns", ns(begin, 2000));
    let begin = Instant::now();
    for _ in 0..100_000 {
        g.write32(s, d, 1).unwrap();
    }
    println!("write value on an idle stream: {:.0} ns", ns(begin, 100_000));
    let e = g.event(1, 0);
    let begin = Instant::now();
    for _ in 0..100_000 {
        g.record(e, s).unwrap();
    }
    println!("event record on an idle stream: {:.0} ns", ns(begin, 100_000));
    let begin = Instant::now();
    for _ in 0..20_000 {
        let a = g.alloc(4096).unwrap();
        g.free(a).unwrap();
    }
    println!("allocate and free 4 KiB: {:.0} ns", ns(begin, 20_000));
    let begin = Instant::now();
    for _ in 0..100_000 {
        g.put(d, &[1, 2, 3, 4]).unwrap();
    }
    println!("copy 4 bytes up: {:.0} ns", ns(begin, 100_000));

    let (a, b) = (g.alloc(64 * MIB).unwrap(), g.alloc(64 * MIB).unwrap());
    for at in (0..64 * MIB).step_by(4 * MIB) {
        g.call::<copy::row::cuMemsetD8_v2>((a + at as u64, 1, 4 * MIB)).unwrap();
        g.call::<copy::row::cuMemsetD8_v2>((b + at as u64, 1, 4 * MIB)).unwrap();
    }
    g.sync(CUstream(0)).unwrap();
    for size in [64 << 10, MIB, 4 * MIB] {
        let n = 1024 * MIB / size;
        let gbs = |begin: Instant| (n * size) as f64 / begin.elapsed().as_secs_f64() / 1e9;
        let at = |i: usize| ((i * size) % (64 * MIB)) as u64;
        let begin = Instant::now();
        for i in 0..n {
            let bulk = Bulk::Staged { offset: 0, len: size as u64 };
            g.call::<copy::row::cuMemcpyHtoD_v2>((a + at(i), size, bulk)).unwrap();
        }
        let up = gbs(begin);
        let begin = Instant::now();
        for i in 0..n {
            let fill = Fill::Staged { offset: 0, len: size as u64 };
            g.call::<copy::row::cuMemcpyDtoH_v2>((a + at(i), size, fill)).unwrap();
        }
        let down = gbs(begin);
        let begin = Instant::now();
        for i in 0..n {
            g.call::<copy::row::cuMemcpyDtoDAsync_v2>((b + at(i), a + at(i), size, s)).unwrap();
        }
        g.sync(s).unwrap();
        let within = gbs(begin);
        let begin = Instant::now();
        for i in 0..n {
            g.call::<copy::row::cuMemsetD32Async>((b + at(i), 5, size / 4, s)).unwrap();
        }
        g.sync(s).unwrap();
        let fill = gbs(begin);
        let (mut from, mut to) = (vec![1u8; 64 * MIB], vec![2u8; 64 * MIB]);
        let begin = Instant::now();
        for i in 0..n {
            let at = at(i) as usize;
            to[at..at + size].copy_from_slice(&from[at..at + size]);
        }
        let plain = gbs(begin);
        std::hint::black_box((&mut from, &mut to));
        println!(
            "{:>4} KiB: up {up:.1}, down {down:.1}, within {within:.1}, fill {fill:.1} GB/s; plain memcpy {plain:.1}",
            size >> 10
        );
    }
}
