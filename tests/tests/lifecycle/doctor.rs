//! What `vgpu-smi doctor` finds in a VM, from a module that is not loaded to a daemon that has gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::guest::{Exit, Guest};
use serde_json::Value;
use whole_stack::artifacts::{self, Profile};
use whole_stack::vm::{Attach, USER, Vm};

use crate::scene::{self, Place, note};

const PROGRAM: &str = "/usr/bin/vgpu-smi";

/// Its steps, by an ordinary user.
fn steps(guest: &Guest) -> Result<Vec<Value>> {
    let command = guest.exec([PROGRAM, "doctor", "--json"]).user(USER).timeout(Duration::from_secs(600));
    let output = command.output()?;
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output}"))?;
    ensure!(said["ok"] == Value::Bool(output.success()), "{output}");
    Ok(said["steps"].as_array().context("no steps")?.clone())
}

/// The step of that name has failed, those before it are ok. Why, and what to do.
fn failing(attach: Attach, guest: &Guest, name: &str) -> Result<(String, String)> {
    let steps = steps(guest)?;
    let at =
        steps.iter().position(|step| step["status"] == "failed").with_context(|| format!("{steps:?}"))?;
    ensure!(steps[at]["name"] == name, "{steps:?}");
    ensure!(steps[..at].iter().all(|step| step["status"] == "ok"), "{steps:?}");
    ensure!(steps[at + 1..].iter().all(|step| step["status"] == "skipped"), "{steps:?}");
    let text = |key: &str| steps[at][key].as_str().unwrap_or_default().to_owned();
    note(attach, &format!("{name}: {}", text("why")));
    Ok((text("why"), text("to_do")))
}

fn finds_what_is_wrong(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let daemon = place.daemon()?;
    let boot = scene::boot(attach, &daemon)?.program(PROGRAM, &artifacts::smi(Profile::Dev)?);
    let vm = Vm { guest: boot.start()?, daemon };
    let guest = &vm.guest;
    let (why, todo) = failing(attach, guest, "module")?;
    ensure!(why.contains("is not loaded") && todo.contains("modprobe vgpu"), "{why} {todo}");

    scene::load(guest)?;
    let well = steps(guest)?;
    let names: Vec<&str> = well.iter().filter_map(|step| step["name"].as_str()).collect();
    ensure!(names == ["device", "module", "access", "daemon", "libraries", "kernel"], "{well:?}");
    ensure!(well.iter().all(|step| step["status"] == "ok"), "{well:?}");
    ensure!(well[0]["what"].as_str().is_some_and(|what| what.contains(" is the vGPU device")), "{well:?}");
    let list = guest.exec([PROGRAM, "-L"]).user(USER).check()?.text();
    ensure!(list.starts_with("GPU 0: vGPU software executor (CPU) (UUID: GPU-"), "{list}");

    guest.run("chmod 600 /dev/vgpu").check()?;
    let (why, todo) = failing(attach, guest, "access")?;
    ensure!(why.contains("mode 0600, owner 0") && todo.contains("60-vgpu.rules"), "{why} {todo}");
    let refused = guest.exec([PROGRAM, "-L"]).user(USER).output()?;
    ensure!(
        refused.exit == Exit::Code(4) && refused.text().contains("Insufficient Permissions"),
        "{refused}"
    );
    guest.run("chmod 666 /dev/vgpu && mv /dev/vgpu /dev/elsewhere").check()?;
    let (why, todo) = failing(attach, guest, "module")?;
    ensure!(why.contains("a /dev of its own") && todo.contains("DeviceAllow"), "{why} {todo}");
    guest.run("mv /dev/elsewhere /dev/vgpu").check()?;

    let Vm { guest, daemon } = vm;
    daemon.stop()?;
    let (why, todo) = failing(attach, &guest, "daemon")?;
    ensure!(why.contains("does not answer") && todo.contains("on the host"), "{why} {todo}");
    Ok(())
}

#[test]
fn the_doctor_finds_what_is_wrong_fs() {
    finds_what_is_wrong(Attach::Fs).unwrap();
}

#[test]
fn the_doctor_finds_what_is_wrong_generic() {
    finds_what_is_wrong(Attach::Generic).unwrap();
}
