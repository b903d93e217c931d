//! What a call costs through ring and worker, without a device behind it: run with `--release`.
//!
//! The guest is this process, the worker a child of it. Both poll, so the numbers are those of a machine with a free
//! core for each; on fewer they measure the scheduler.

#![allow(clippy::cast_possible_truncation, reason = "64-bit only")]

#[allow(dead_code)]
#[path = "../tests/sessions/echo.rs"]
mod echo;
#[allow(dead_code)]
#[path = "../tests/sessions/guest.rs"]
mod guest;

use std::time::{Duration, Instant};

use echo::call;
use guest::{Guest, GuestRing, Memory, start_vm};
use mediator::WakeKind;
use mediator::worker::Role;

const ROUND_TRIPS: usize = 20_000;
const POSTED: u32 = 200_000;

fn main() {
    if Role::of_this_process().is_some() {
        mediator::worker::main(echo::Echo::default());
    }
    println!("{} cores", std::thread::available_parallelism().map_or(0, std::num::NonZero::get));
    opening();
    for wake in [WakeKind::Event, WakeKind::Futex] {
        for spin in [Duration::from_micros(50), Duration::ZERO] {
            calls(wake, spin);
        }
    }
    regions();
}

fn opening() {
    for idle_workers in [0, 1] {
        let (vm, kernel) = start_vm(|config| config.idle_workers = Some(idle_workers));
        let mut times: Vec<Duration> = (0..50)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                let start = Instant::now();
                let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
                let took = start.elapsed();
                guest.close().expect("closed");
                took
            })
            .collect();
        println!("open, {idle_workers} idle worker(s): {}", spread(&mut times));
    }
}

fn calls(wake: WakeKind, spin: Duration) {
    let (vm, kernel) = start_vm(|config| config.spin = spin);
    let guest = Guest::open(&vm, &kernel, 0, wake);
    let mut ring = guest.ring(0);
    let name = format!("{wake:?}, host polls {spin:?}");
    println!("{name}: round trip, 32 bytes: {}", spread(&mut round_trips(&mut ring)));
    let (push, done) = posted(&mut ring);
    println!("{name}: posted, 64 bytes: {push:.0} ns to post, {done:.0} ns until all are done");
    let mut other = guest.ring(1);
    let (push, done) = posted_in_turn(&mut ring, &mut other);
    println!(
        "{name}: posted, two rings in turn by one thread: {push:.0} ns to post, {done:.0} ns until all are done"
    );
    println!("  {:?}", vm.totals());
}

fn round_trips(ring: &mut GuestRing<'_>) -> Vec<Duration> {
    (0..ROUND_TRIPS)
        .map(|_| {
            let start = Instant::now();
            ring.call(call::ECHO, &[0; 32]);
            start.elapsed()
        })
        .collect()
}

fn posted(ring: &mut GuestRing<'_>) -> (f64, f64) {
    let start = Instant::now();
    for _ in 0..POSTED {
        ring.post(call::ECHO, &[0; 64]);
    }
    let pushed = start.elapsed();
    ring.call(call::ECHO, &[]);
    (each(pushed), each(start.elapsed()))
}

fn posted_in_turn(one: &mut GuestRing<'_>, two: &mut GuestRing<'_>) -> (f64, f64) {
    let start = Instant::now();
    for _ in 0..POSTED / 2 {
        one.post(call::ECHO, &[0; 64]);
        two.post(call::ECHO, &[0; 64]);
    }
    let pushed = start.elapsed();
    one.call(call::ECHO, &[]);
    two.call(call::ECHO, &[]);
    (each(pushed), each(start.elapsed()))
}

fn each(total: Duration) -> f64 {
    total.as_secs_f64() * 1e9 / f64::from(POSTED)
}

fn regions() {
    let (vm, kernel) = start_vm(|_| ());
    let guest = Guest::open(&vm, &kernel, 0, WakeKind::Event);
    for (name, memory) in [("one run", Memory::new(32 << 20)), ("8192 pages", Memory::scattered(32 << 20))] {
        let start = Instant::now();
        guest.map(0, 0, &memory).expect("mapped");
        let mapped = start.elapsed();
        guest.unmap(0).expect("unmapped");
        println!("32 MiB of {name}: map {mapped:?}, unmap {:?}", start.elapsed().saturating_sub(mapped));
    }
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |per_mille: usize| times.get(times.len() * per_mille / 1000).copied().unwrap_or_default();
    format!("median {:?}, 90 % {:?}, 99 % {:?}", at(500), at(900), at(990))
}
