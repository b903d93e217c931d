//! A VM that is paused and goes on: whatever was under way ends right.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use whole_stack::vm::Attach;

use crate::scene::{self, Left, Place, note};

/// How long the VM is paused each time.
const PAUSE: Duration = Duration::from_secs(2);

/// Pauses the VM several times while `work` is under way, and looks at its own verdict.
fn survives_pauses(attach: Attach, work: &str, times: u32, verdict: &str) -> Result<()> {
    let place = Place::of(attach)?;
    let vm = scene::start(attach, &place)?;
    let left = Left::begin(&vm.guest, work)?;
    for _ in 0..times {
        let begin = Instant::now();
        scene::qmp(&vm.guest, "stop")?;
        note(attach, &format!("{work}: stop took {:.2} s", begin.elapsed().as_secs_f32()));
        let calls = vm.daemon.totals()?.get("calls");
        std::thread::sleep(PAUSE);
        ensure!(vm.daemon.totals()?.get("calls") == calls, "a call was carried out while the VM was paused");
        scene::qmp(&vm.guest, "cont")?;
        ensure!(!left.said(&vm.guest)?.contains("ended with"), "{work} was over too soon: nothing was shown");
        std::thread::sleep(Duration::from_millis(700));
    }
    let said = left.wait(&vm.guest, Duration::from_secs(120))?;
    ensure!(said.contains(verdict), "{said}");
    note(attach, &format!("{work}: {said}"));
    scene::check(&vm, &["small"])?;
    let totals = vm.daemon.totals()?;
    ensure!(totals.get("posted_errors") == Some(0) && totals.get("sessions_died") == Some(0), "{totals}");
    Ok(())
}

#[test]
fn a_kernel_outlives_a_pause_fs() {
    survives_pauses(Attach::Fs, "kernel 5", 1, "kernel: right").unwrap();
}

#[test]
fn a_kernel_outlives_a_pause_generic() {
    survives_pauses(Attach::Generic, "kernel 5", 1, "kernel: right").unwrap();
}

#[test]
fn copies_outlive_pauses_fs() {
    survives_pauses(Attach::Fs, "copy 15", 3, "MiB right").unwrap();
}

#[test]
fn copies_outlive_pauses_generic() {
    survives_pauses(Attach::Generic, "copy 15", 3, "MiB right").unwrap();
}

/// Work that does not come to rest while the VM is stopped could write to memory that a stopped VM must not see change. Its
/// session ends with an error; QEMU waits meanwhile.
fn endless_work_ends(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let vm = scene::start(attach, &place)?;
    let left = Left::begin(&vm.guest, "wait")?;
    let begin = Instant::now();
    scene::qmp(&vm.guest, "stop")?;
    let took = begin.elapsed();
    note(attach, &format!("stop with an endless kernel took {:.1} s", took.as_secs_f32()));
    ensure!(took > Duration::from_secs(9) && took < Duration::from_secs(25), "stop took {took:?}");
    ensure!(vm.daemon.totals()?.get("sessions_died") == Some(1));
    scene::qmp(&vm.guest, "cont")?;
    let said = left.wait(&vm.guest, Duration::from_secs(40))?;
    ensure!(said.contains("cuCtxSynchronize failed"), "{said}");
    note(attach, &said);
    scene::check(&vm, &["small"])?;
    Ok(())
}

#[test]
fn an_endless_kernel_ends_with_an_error_fs() {
    endless_work_ends(Attach::Fs).unwrap();
}

#[test]
fn an_endless_kernel_ends_with_an_error_generic() {
    endless_work_ends(Attach::Generic).unwrap();
}
