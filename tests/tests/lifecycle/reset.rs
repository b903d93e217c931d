//! A VM that is reset while copies and kernels write into its memory: the memory belongs to the next kernel from then on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest::Guest;
use whole_stack::vm::Attach;

use crate::scene::{self, Left, Place, note};

/// What free memory is left to the guest beside the canary, in MiB: for the module and a program.
const ROOM_MIB: u64 = 160;
/// How long the canary is left alone. The module is loaded and a program run meanwhile.
const CANARY_S: u64 = 12;

#[derive(Clone, Copy)]
enum Reset {
    Monitor,
    Panic,
}

fn reset(guest: &Guest, how: Reset) -> Result<()> {
    match how {
        Reset::Monitor => scene::qmp(guest, "system_reset").map(drop),
        Reset::Panic => scene::panic(guest),
    }
}

fn nothing_is_overwritten(attach: Attach, work: &str, how: Reset) -> Result<()> {
    let place = Place::of(attach)?;
    let mut vm = scene::start(attach, &place)?;
    Left::begin(&vm.guest, work)?;
    let opened = vm.daemon.wait_for_log("opened: guest process", 0)?;
    let worker: i32 = opened
        .split("worker ")
        .nth(1)
        .and_then(|pid| pid.trim().parse().ok())
        .with_context(|| format!("no worker in: {opened}"))?;
    ensure!(vm.daemon.children().contains(&worker), "worker {worker} is no child of the daemon");

    let begin = Instant::now();
    vm.guest.reboot(|guest| reset(guest, how))?;
    note(attach, &format!("{work}: up again after {:.1} s", begin.elapsed().as_secs_f32()));
    // Before our driver is there: the daemon has not been told of a new boot.
    let free = vm.guest.run("awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo").check()?.text();
    let mib = free.parse::<u64>()?.checked_sub(ROOM_MIB).context("too little memory")?;
    ensure!(mib >= 400, "only {mib} MiB for the canary");
    // An idle worker may wait for what the next boot says; one that could still write may not.
    let alive = vm.daemon.children().contains(&worker);
    ensure!(!alive || work != "endless", "worker {worker} writes into memory that is another kernel's");
    let canary = Left::begin_as(&vm.guest, 0, &format!("canary {mib} {CANARY_S}"))?;
    scene::load(&vm.guest)?;
    // The driver is served, so nothing of the past may be left.
    ensure!(!vm.daemon.children().contains(&worker), "worker {worker} serves the past");
    scene::gone(&[worker], Duration::from_millis(1))?;
    scene::check(&vm, &["small"])?;
    let said = canary.wait(&vm.guest, Duration::from_secs(120))?;
    ensure!(said.contains("unchanged"), "{said}");
    let was = if alive { "idle until the driver was loaded" } else { "gone before the driver was loaded" };
    note(attach, &format!("{work}: the old worker was {was}; {said}"));
    scene::check(&vm, &["small"])?;
    scene::no_sessions(&vm.daemon)
}

#[test]
fn reset_in_mid_copy_fs() {
    nothing_is_overwritten(Attach::Fs, "copies", Reset::Monitor).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn reset_in_mid_copy_generic() {
    nothing_is_overwritten(Attach::Generic, "copies", Reset::Monitor).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn reset_in_mid_copy_function() {
    nothing_is_overwritten(Attach::Function, "copies", Reset::Monitor).unwrap();
}

#[test]
fn reset_in_mid_kernel_fs() {
    nothing_is_overwritten(Attach::Fs, "endless", Reset::Monitor).unwrap();
}

#[test]
fn reset_in_mid_kernel_generic() {
    nothing_is_overwritten(Attach::Generic, "endless", Reset::Monitor).unwrap();
}

#[test]
fn reset_in_mid_kernel_function() {
    nothing_is_overwritten(Attach::Function, "endless", Reset::Monitor).unwrap();
}

#[test]
fn panic_in_mid_copy_fs() {
    nothing_is_overwritten(Attach::Fs, "copies", Reset::Panic).unwrap();
}

#[test]
fn panic_in_mid_copy_generic() {
    nothing_is_overwritten(Attach::Generic, "copies", Reset::Panic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn panic_in_mid_copy_function() {
    nothing_is_overwritten(Attach::Function, "copies", Reset::Panic).unwrap();
}

#[test]
fn panic_in_mid_kernel_fs() {
    nothing_is_overwritten(Attach::Fs, "endless", Reset::Panic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn panic_in_mid_kernel_generic() {
    nothing_is_overwritten(Attach::Generic, "endless", Reset::Panic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn panic_in_mid_kernel_function() {
    nothing_is_overwritten(Attach::Function, "endless", Reset::Panic).unwrap();
}
