//! The plain PCI function of the vfio-user front in a guest: its ids, its BARs as programs map them with no driver between, each status
//! and each error that somebody answers, and what is left of it when the daemon ends.
//!
//! ERROR_INVALID_POOL and ERROR_RATE_LIMITED are in the layout; nobody answers them so far.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kernel::Series;
use harness::wheels::Toolkit;
use pci_layout::regs;
use serde_json::json;
use whole_stack::artifacts::Profile;
use whole_stack::daemon::{Daemon, Listen};
use whole_stack::place::{self, Place};
use whole_stack::vm::{Attach, MODULE, Stack, Vm};

/// How the daemon is started, beside its front.
const ARGUMENTS: [&str; 14] = [
    "--executor",
    "soft",
    "--vm-id",
    "77",
    "--pool",
    "B",
    "--priority",
    "high",
    "--bar1-size",
    "32MiB",
    "--quarantine-after",
    "1",
    "--quarantine-within",
    "1h",
];

fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// One guest at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A guest without the module, and the function's folder in its sysfs. Every user may map the function, as by a udev rule.
fn boot(daemon: Daemon, series: Series) -> Result<(Place, String)> {
    let boot = stack().system(series, Attach::Function)?.attach(Attach::Function.attachment(&daemon));
    let guest = boot.machine(|machine| machine.hotplug = true).start()?;
    let found = guest.run("grep -l 0x10f6 /sys/bus/pci/devices/*/subsystem_device").check()?.text();
    let folder = found.trim().trim_end_matches("/subsystem_device").to_owned();
    ensure!(folder.lines().count() == 1 && !folder.is_empty(), "not one function: {found}");
    guest
        .run(&format!("echo 1 >{folder}/enable; chmod 666 {folder}/resource0 {folder}/resource1"))
        .check()?;
    Ok((Place::Vm(Box::new(Vm { guest, daemon })), folder))
}

fn signal(process: i32, signal: i32) {
    // SAFETY: sends a signal to one process, the daemon's or a worker of its own.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

/// The worker of the newest session.
fn newest_worker(daemon: &Daemon) -> Result<i32> {
    let log = daemon.log();
    let line = log.iter().rev().find(|line| line.contains("opened: guest process")).context("no session")?;
    line.rsplit("worker ").next().and_then(|id| id.trim().parse().ok()).with_context(|| line.clone())
}

/// The daemon's data window, as the guest has left it.
fn window(daemon: &Daemon) -> Result<Vec<u8>> {
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))? {
        let path = entry?.path();
        if std::fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().contains("memfd:vgpu-bar1")) {
            return Ok(std::fs::read(path)?);
        }
    }
    anyhow::bail!("the daemon has no window")
}

fn programs_use_the_function() -> Result<()> {
    let daemon = Daemon::start(&stack().daemon, Listen::VfioUser, &ARGUMENTS)?;
    let (place, folder) = boot(daemon, Series::V6_1)?;
    let (vm, program) = (place.vm().context("a VM")?, |what: &str| format!("function {folder} {what}"));
    let file = |name: &str| {
        anyhow::Ok(vm.guest.run(&format!("cat {folder}/{name}")).check()?.text().trim().to_owned())
    };
    let ids = [file("vendor")?, file("device")?, file("class")?, file("subsystem_vendor")?];
    ensure!(ids == ["0x10de", "0x2331", "0x030200", "0x1af4"], "{ids:?}");

    for what in ["registers", "refusals", "accesses", "pattern"] {
        place.check(&program(what)).with_context(|| what.to_owned())?;
    }
    let window = window(&vm.daemon)?;
    ensure!(window.len() == 32 << 20, "{} bytes", window.len());
    let right = |(at, word): (usize, &[u8])| {
        word == (8 * at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
    };
    ensure!(
        window.chunks_exact(8).enumerate().all(right),
        "the daemon sees another pattern than the guest has left"
    );

    // Sessions, which only this guest's programs have as yet.
    let open = place.start(&program("open"))?;
    let worker = newest_worker(&vm.daemon)?;
    open.tell("close")?;
    open.check()?;
    place::wait_gone(worker, Duration::from_secs(20))?;
    println!("{}", place.check(&program("full"))?);
    let late = place.start(&program("late"))?;
    signal(newest_worker(&vm.daemon)?, libc::SIGSTOP);
    late.tell("stopped")?;
    late.check()?;

    with_the_driver(vm, &place, &folder)?;

    // Workers that die count as faults, and more than one is too many.
    let from = vm.daemon.log().len();
    while !vm.daemon.log().iter().skip(from).any(|line| line.contains("is quarantined")) {
        let open = place.start(&program("open"))?;
        place::kill_here(newest_worker(&vm.daemon)?)?;
        vm.daemon.wait_for_log(" died: ", vm.daemon.log().len().saturating_sub(1))?;
        open.tell("close")?;
        // Closing it may still work, or not.
        open.finish()?;
    }
    place.check(&program(&format!("answer {}", regs::ERROR_QUARANTINED)))?;
    vm.guest.qmp("query-status", json!({}))?;
    Ok(())
}

/// The driver takes the function: programs that map it are refused what it has, and its interrupt serves both.
fn with_the_driver(vm: &Vm, place: &Place, folder: &str) -> Result<()> {
    let before = place.start(&format!("function {folder} open"))?;
    vm.guest.run(&format!("insmod {MODULE}")).check()?;
    // Its session has ended with the driver's coming.
    place.wait_for_total("sessions_open", 0, Duration::from_secs(30))?;
    before.tell("close")?;
    let ended = before.finish()?;
    ensure!(
        ended.code == Some(1) && ended.err.contains("CLOSE") | ended.err.contains("close_session"),
        "{ended:?}"
    );
    let interrupts = || -> Result<u64> {
        let line = vm.guest.run("grep vgpu /proc/interrupts").check()?.text();
        Ok(line.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).sum())
    };
    let count = interrupts()?;
    place.check(&format!("function {folder} driven"))?;
    ensure!(interrupts()? > count, "the mailbox has not interrupted");
    place.check("compute rounds 1 1")?;
    // CUDA's device, and so NVML's, is this function.
    place.check(&format!("function {folder} address"))?;
    place.check("nvml")?;
    // Hostile loads and stores beside a program that works.
    let beside = place.start("compute until 4")?;
    place.check(&format!("function {folder} accesses"))?;
    beside.tell("")?;
    beside.check()?;
    vm.guest.run("rmmod vgpu").check().map(drop)
}

#[test]
fn programs_map_the_function_and_see_each_status_and_error() {
    let _alone = alone();
    programs_use_the_function().unwrap_or_else(|e| panic!("{e:?}"));
}

fn the_end_is_told() -> Result<()> {
    let daemon = Daemon::start(&stack().daemon, Listen::VfioUser, &ARGUMENTS)?;
    let (place, folder) = boot(daemon, Series::V6_12)?;
    let ending = place.start(&format!("function {folder} ending"))?;
    signal(place.daemon().pid(), libc::SIGTERM);
    ending.tell("ending")?;
    ending.check()?;
    let vm = place.vm().context("a VM")?;
    ensure!(vm.guest.run("echo alive").check()?.text().contains("alive"), "the guest lives");
    vm.guest.qmp("query-status", json!({})).map(drop)
}

#[test]
fn programs_hear_of_the_daemons_end() {
    let _alone = alone();
    the_end_is_told().unwrap_or_else(|e| panic!("{e:?}"));
}

/// A driver that cannot be initialised: its own error comes through.
fn cuda_errors_come_through() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/minimal.c");
    let library = folder.path().join("libcuda.so.1");
    let built =
        Command::new("gcc").args(["-shared", "-fPIC", "-pthread", "-o"]).arg(library).arg(source).status()?;
    ensure!(built.success(), "gcc: {built}");
    let set = |name: &str| format!("{name}={}", folder.path().display());
    let (library, home) = (set("LD_LIBRARY_PATH"), set("HOME"));
    let program = stack().daemon.to_str().context("a path")?;
    let arguments = [&library, &home, program, "--executor", "cuda", "--idle-workers", "0"];
    let socket = folder.path().join("vgpu.sock");
    let daemon = Daemon::start_at(Path::new("/usr/bin/env"), Listen::VfioUser, &socket, &arguments)?;
    std::fs::write(folder.path().join("broken"), "")?;
    let (place, function) = boot(daemon, Series::V6_1)?;
    let said = place.check(&format!("function {function} answer {}", regs::ERROR_CUDA))?;
    ensure!(said.contains("CUresult 999"), "{said}");
    Ok(())
}

#[test]
fn an_error_of_cudas_has_its_result_beside_it() {
    let _alone = alone();
    cuda_errors_come_through().unwrap_or_else(|e| panic!("{e:?}"));
}

fn comes_back() -> Result<()> {
    let mut daemon = Daemon::start(&stack().daemon, Listen::VfioUser, &ARGUMENTS)?;
    let (place, folder) = boot(daemon, Series::V6_1)?;
    place.check(&format!("function {folder} registers"))?;
    let Place::Vm(vm) = place else { return Ok(()) };
    let (guest, socket) = (vm.guest, vm.daemon.socket().to_owned());
    vm.daemon.kill()?;
    let begin = Instant::now();
    guest.qmp("device_del", json!({"id": "vgpu0"}))?;
    guest.process().qmp()?.wait_event("DEVICE_DELETED", Duration::from_secs(60))?;
    println!("unplugged after {:.1} s", begin.elapsed().as_secs_f32());
    let place = tempfile::tempdir()?;
    let again = place.path().join("vgpu.sock");
    ensure!(again != socket);
    daemon = Daemon::start_at(&stack().daemon, Listen::VfioUser, &again, &ARGUMENTS)?;
    guest.qmp("device_add", harness::qemu::function(&again, 0, Some("port0".to_owned())))?;
    let enabled =
        format!("for i in $(seq 50); do echo 1 >{folder}/enable && break; sleep 0.2; done 2>/dev/null");
    guest.run(&format!("{enabled}; chmod 666 {folder}/resource0 {folder}/resource1")).check()?;
    Place::Vm(Box::new(Vm { guest, daemon })).check(&format!("function {folder} registers")).map(drop)
}

#[test]
fn a_function_comes_back_without_a_restart_of_the_vm() {
    let _alone = alone();
    comes_back().unwrap_or_else(|e| panic!("{e:?}"));
}
