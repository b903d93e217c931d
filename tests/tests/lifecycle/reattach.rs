//! `vgpuctl reattach` after the end of a daemon.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::Daemon;
use whole_stack::vm::{Attach, Vm};

use crate::scene::{self, Left, note};

fn daemon(attach: Attach, folder: &Path) -> Result<Daemon> {
    let state = folder.join("state");
    let arguments = ["--executor", "soft", "--vm-id", "9", "--state-dir", &state.to_string_lossy()];
    let socket = folder.join("vgpu.sock");
    Daemon::start_at(&scene::stack().daemon, attach.listen(), &socket, &arguments)
}

/// What vgpuctl says, and whether it has done it.
fn reattach(vgpuctl: &Path, folder: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(vgpuctl);
    command.arg("--state-dir").arg(folder.join("state")).args(["reattach", "9", "--qmp"]);
    let output = command.arg(folder.join("monitor")).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

fn the_device_comes_back(attach: Attach) -> Result<()> {
    let (vgpuctl, place) = (artifacts::vgpuctl(Profile::Dev)?, tempfile::tempdir()?);
    let folder = place.path();
    let first = daemon(attach, folder)?;
    let monitor = format!("unix:{},server=on,wait=off", folder.join("monitor").display());
    let boot = scene::boot(attach, &first)?;
    let boot = boot.machine(move |machine| machine.extra.extend(["-qmp".to_owned(), monitor]));
    let vm = Vm { guest: boot.start()?, daemon: first };
    scene::load(&vm.guest)?;
    let left = Left::begin(&vm.guest, "busy")?;
    let Vm { guest, daemon: first } = vm;
    first.kill()?;
    let said = left.wait(&guest, std::time::Duration::from_secs(25))?;
    ensure!(said.contains(" failed: CUDA_ERROR_"), "{said}");
    // Nobody to attach it to: nothing is taken out.
    let (done, said) = reattach(&vgpuctl, folder, &[])?;
    ensure!(!done && said.contains("9"), "{said}");
    guest.run("dmesg -c >/dev/null").check()?;
    let second = daemon(attach, folder)?;
    let (done, said) = reattach(&vgpuctl, folder, &["--device", "vgpu7"])?;
    ensure!(!done && said.contains("no device vgpu7"), "{said}");
    let (done, said) = reattach(&vgpuctl, folder, &[])?;
    note(attach, said.trim());
    ensure!(done && said.contains("vgpu0") && said.contains("on port0"), "{said}");
    scene::ready(&guest)?;
    scene::check(&Vm { guest, daemon: second }, &["small"]).map(drop)
}

#[test]
fn the_device_is_put_back_fs() {
    the_device_comes_back(Attach::Fs).unwrap();
}

#[test]
fn the_device_is_put_back_generic() {
    the_device_comes_back(Attach::Generic).unwrap();
}

#[test]
fn the_device_is_put_back_function() {
    the_device_comes_back(Attach::Function).unwrap();
}
