//! The checks in VMs, and those that only a VM can have.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kernel::Series;
use serde_json::json;
use whole_stack::place::Place;
use whole_stack::vm::{Attach, MODULE, USER, Vm};

use crate::checks::{CHECKS, Check};
use crate::{alone, stack};

const VM_CHECKS: &[Check] =
    &[("paused", paused), ("paused_without_rest", paused_without_rest), ("ordinary_user", ordinary_user)];

/// Boots a guest and makes every check in it; the failures of all of them together.
fn every_check(series: Series, attach: Attach) {
    let _alone = alone();
    let place = Place::Vm(Box::new(stack().boot(series, attach).unwrap_or_else(|e| panic!("{e:?}"))));
    let mut failures = Vec::new();
    for (name, check) in CHECKS.iter().chain(VM_CHECKS) {
        // QEMU tells a function of ours nothing of a pause.
        if attach == Attach::Function && *name == "paused_without_rest" {
            continue;
        }
        let begin = Instant::now();
        let outcome = check(&place);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{series}, {attach:?}: {name}: {word}, {:.1} s", begin.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            failures.push(format!("{name}: {error:?}"));
        }
    }
    let Place::Vm(vm) = place else { return };
    match vm.guest.run("dmesg").check() {
        Ok(messages) => failures.extend(complaint(&messages.text())),
        Err(error) => failures.push(format!("dmesg: {error:?}")),
    }
    if let Err(error) = vm.guest.shutdown() {
        failures.push(format!("shutdown: {error:?}"));
    }
    match vm.daemon.stop() {
        Ok(totals) if totals.get("sessions_open") == Some(0) => {}
        Ok(totals) => failures.push(format!("sessions outlive the VM: {totals}")),
        Err(error) => failures.push(format!("the daemon's end: {error:?}")),
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
}

/// What the guest's kernel says of damage to itself.
fn complaint(messages: &str) -> Option<String> {
    let is_bad =
        |line: &str| ["BUG", "WARNING", "Oops", "refcount", "Bad page"].iter().any(|bad| line.contains(bad));
    let first = messages.lines().position(is_bad)?;
    let lines: Vec<_> = messages.lines().skip(first).take(30).collect();
    Some(format!("the guest's kernel complains:\n{}", lines.join("\n")))
}

#[test]
fn linux_6_1_behind_the_file_system_device() {
    every_check(Series::V6_1, Attach::Fs);
}

#[test]
fn linux_6_12_behind_the_generic_device() {
    every_check(Series::V6_12, Attach::Generic);
}

#[test]
fn linux_6_12_behind_the_plain_function() {
    every_check(Series::V6_12, Attach::Function);
}

/// What is otherwise without a driver, in [`left_over`] and [`pinned_window`].
const DRIVEN: [&str; 2] = ["killed_process", "pinned_memory"];

/// The plain PCI function without the module, by an ordinary user who may map it.
#[test]
fn linux_6_1_without_a_driver() {
    let _alone = alone();
    let daemon = stack().start_daemon_for(Attach::Function, &["--bar1-size", "256MiB"]).unwrap();
    let boot = stack().system(Series::V6_1, Attach::Function).unwrap();
    let guest = boot.attach(Attach::Function.attachment(&daemon)).start().unwrap_or_else(|e| panic!("{e:?}"));
    let find = "dirname $(grep -l 0x10f6 /sys/bus/pci/devices/*/subsystem_device)";
    guest.run(&format!("cd $({find}) && echo 1 >enable && chmod 666 resource0 resource1")).check().unwrap();
    let place = Place::Vm(Box::new(Vm { guest, daemon }));
    let own: &[Check] =
        &[("left_over", left_over), ("pinned_window", pinned_window), ("driver_comes", driver_comes)];
    let mut failures = Vec::new();
    for (name, check) in CHECKS.iter().filter(|(name, _)| !DRIVEN.contains(name)).chain(own) {
        let begin = Instant::now();
        let outcome = check(&place);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("without a driver: {name}: {word}, {:.1} s", begin.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            failures.push(format!("{name}: {error:?}"));
        }
    }
    let Place::Vm(vm) = place else { return };
    match vm.daemon.totals() {
        Ok(totals) if totals.get("sessions_open") == Some(0) => {}
        other => failures.push(format!("programs have ended and sessions have not: {other:?}")),
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
}

/// Nobody tells the host that a process was killed: its session ends when the next one comes, and what it had is used again only then.
fn left_over(place: &Place) -> Result<()> {
    let mut beside = place.start("compute until 7")?;
    beside.ready()?;
    for line in ["copies", "spin"] {
        let mut victim = place.start(&format!("processes {line}"))?;
        let (process, _) = victim.ready()?;
        let worker = place.worker_of(process)?;
        place.kill(process)?;
        victim.finish()?;
        ensure!(std::path::Path::new(&format!("/proc/{worker}")).exists(), "somebody has told the host");
        place.check("compute rounds 3 2").with_context(|| format!("after a kill ({line})"))?;
        whole_stack::place::wait_gone(worker, Duration::from_secs(20))?;
    }
    beside.tell("")?;
    beside.check()?;
    place.wait_for_total("sessions_open", 0, Duration::from_secs(20))
}

/// The module is loaded after all: programs that went without it hear that their sessions are over; new ones use it, and those after
/// it has gone do without again.
fn driver_comes(place: &Place) -> Result<()> {
    let vm = place.vm().context("only in a VM")?;
    let mut before = place.start("compute until 5")?;
    before.ready()?;
    vm.guest.run(&format!("insmod {MODULE}")).check()?;
    let ended = before.finish()?;
    ensure!(ended.code == Some(1), "{ended:?}");
    place.check("compute rounds 1 1")?;
    ensure!(
        vm.guest.run("cat /sys/class/misc/vgpu/counters/requests").check()?.text() != "0",
        "it was not used"
    );
    vm.guest.run("rmmod vgpu").check()?;
    place.check("compute rounds 1 1").map(drop)
}

/// Memory of CUDA's making is shared, in the window; a program's own is not, and CUDA says so.
fn pinned_window(place: &Place) -> Result<()> {
    for what in ["alloc", "large", "unsupported"] {
        place.check(&format!("pinned {what}"))?;
    }
    Ok(())
}

/// The VM is stopped in the midst of kernels and goes on: results are right. Nothing is carried out meanwhile, but behind a plain PCI
/// function, to which QEMU does not say that it has stopped.
fn paused(place: &Place) -> Result<()> {
    let vm = place.vm().context("only in a VM")?;
    let is_told = !vm.daemon.log().iter().any(|line| line.contains("plain PCI function"));
    for what in ["burst", "until 3"] {
        let mut program = place.start(&format!("compute {what}"))?;
        program.ready()?;
        for _ in 0..2 {
            vm.guest.qmp("stop", json!({}))?;
            let calls = place.daemon().totals()?.get("calls");
            std::thread::sleep(Duration::from_millis(300));
            let rests = place.daemon().totals()?.get("calls") == calls;
            vm.guest.qmp("cont", json!({}))?;
            ensure!(rests || !is_told, "calls go on while the VM is stopped");
            std::thread::sleep(Duration::from_millis(50));
        }
        program.tell("")?;
        program.check().with_context(|| what.to_owned())?;
    }
    Ok(())
}

/// A kernel that waits for the guest's CPU does not end while that is stopped: its session is ended, so that the VM's memory is at
/// rest, and its process hears of it. The VM goes on, and so do others.
fn paused_without_rest(place: &Place) -> Result<()> {
    let vm = place.vm().context("only in a VM")?;
    let mut beside = place.start("compute until 4")?;
    beside.ready()?;
    let mut victim = place.start("processes until-error wait")?;
    victim.ready()?;
    vm.guest.qmp("stop", json!({}))?;
    vm.guest.qmp("cont", json!({}))?;
    let said = victim.check()?;
    ensure!(said.contains("answered 999"), "{said}");
    beside.tell("")?;
    beside.check()?;
    place.check("compute rounds 1 1").map(drop)
}

/// The daemon is told who the process belongs to; nothing needs root in the guest.
fn ordinary_user(place: &Place) -> Result<()> {
    let vm = place.vm().context("only in a VM")?;
    let from = vm.daemon.log().len();
    let mut program = place.start("compute rounds 1 1")?;
    let (process, _) = program.ready()?;
    program.check()?;
    vm.daemon.wait_for_log(&format!("guest process {process} user {USER}"), from).map(drop)
}
