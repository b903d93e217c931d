//! The daemon ends, asked to or killed, while a program runs; and the way back without a restart of the VM.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest::Guest;
use serde_json::json;
use whole_stack::vm::{Attach, MODULE, Vm};

use crate::scene::{self, Left, Place, note};

/// How long a program may take to see that its GPU is gone.
const NOTICE: Duration = Duration::from_secs(25);
/// How long one that begins without a daemon may take: the driver waits half a minute for an answer.
const GIVE_UP: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Terminated,
    Killed,
}

/// Takes the device out of the VM, and its chardev.
fn unplug(guest: &Guest, attach: Attach) -> Result<()> {
    guest.qmp("device_del", json!({"id": "vgpu0"}))?;
    guest
        .process()
        .qmp()?
        .wait_event("DEVICE_DELETED", Duration::from_secs(90))
        .context("the guest gives the device away")?;
    if attach != Attach::Function {
        guest.qmp("chardev-remove", json!({"id": "vgpu0-socket"}))?;
    }
    Ok(())
}

/// Puts a device on a new chardev into the VM.
fn plug(guest: &Guest, attach: Attach, place: &Place) -> Result<()> {
    if attach == Attach::Function {
        let device = harness::qemu::function(&place.socket(), 0, Some("port0".to_owned()));
        return guest.qmp("device_add", device).map(drop);
    }
    let address = json!({"type": "unix", "data": {"path": place.socket()}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": false}});
    guest.qmp("chardev-add", json!({"id": "vgpu0-socket", "backend": backend}))?;
    let mut device = json!({"id": "vgpu0", "chardev": "vgpu0-socket", "bus": "port0"});
    let properties = match attach {
        Attach::Fs => {
            json!({"driver": "vhost-user-fs-pci", "tag": "VGPUSTUB", "num-request-queues": 1, "queue-size": 1024})
        }
        Attach::Generic | Attach::Function => {
            json!({"driver": "vhost-user-test-device-pci", "virtio-id": 21, "num_vqs": 2,
            "vq_size": 256, "config_size": 256})
        }
    };
    if let (Some(device), Some(properties)) = (device.as_object_mut(), properties.as_object()) {
        device.extend(properties.clone());
    }
    guest.qmp("device_add", device)?;
    Ok(())
}

/// A program that begins while there is no daemon gives up after half a minute.
fn begins_in_vain(attach: Attach, guest: &Guest) -> Result<()> {
    let begin = Instant::now();
    let refused = guest.exec(["/opt/vgpu/lifecycle", "small"]).user(1000).timeout(GIVE_UP).output()?;
    let said = refused.to_string();
    ensure!(
        !refused.success() && said.contains("CUDA_ERROR_SYSTEM_NOT_READY"),
        "a program without a GPU: {said}"
    );
    note(attach, &format!("a new program, after {:.1} s: {}", begin.elapsed().as_secs_f32(), said.trim()));
    Ok(())
}

fn comes_back(attach: Attach, work: &str, end: End) -> Result<()> {
    let place = Place::of(attach)?;
    let Vm { guest, daemon } = scene::start(attach, &place)?;
    let left = Left::begin(&guest, work)?;
    let workers = daemon.children();
    let begin = Instant::now();
    match end {
        End::Terminated => drop(daemon.stop()?),
        End::Killed => daemon.kill()?,
    }
    ensure!(place.socket().exists() == (end == End::Killed), "the socket after {end:?}");
    let said = left.wait(&guest, NOTICE)?;
    note(attach, &format!("{end:?}, {work}: after {:.1} s: {said}", begin.elapsed().as_secs_f32()));
    ensure!(said.contains(" failed: CUDA_ERROR_"), "{said}");
    scene::gone(&workers, Duration::from_secs(20))?;

    if work == "busy" && end == End::Killed {
        begins_in_vain(attach, &guest)?;
    }
    let begin = Instant::now();
    unplug(&guest, attach)?;
    note(attach, &format!("{end:?}: unplugged in {:.1} s", begin.elapsed().as_secs_f32()));
    guest.run("dmesg -c >/dev/null").check()?;
    let daemon = place.daemon()?;
    plug(&guest, attach, &place)?;
    scene::ready(&guest)?;
    let vm = Vm { guest, daemon };
    scene::check(&vm, &["small"])?;
    Ok(())
}

#[test]
fn terminated_while_calls_are_made_fs() {
    comes_back(Attach::Fs, "busy", End::Terminated).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn terminated_while_calls_are_made_generic() {
    comes_back(Attach::Generic, "busy", End::Terminated).unwrap();
}

#[test]
fn terminated_while_calls_are_made_function() {
    comes_back(Attach::Function, "busy", End::Terminated).unwrap();
}

#[test]
fn killed_while_calls_are_made_fs() {
    comes_back(Attach::Fs, "busy", End::Killed).unwrap();
}

#[test]
fn killed_while_calls_are_made_generic() {
    comes_back(Attach::Generic, "busy", End::Killed).unwrap();
}

#[test]
#[ignore = "QEMU 11.1 may abort when its back end is killed while a processor waits for a register"]
fn killed_while_calls_are_made_function() {
    comes_back(Attach::Function, "busy", End::Killed).unwrap();
}

#[test]
fn terminated_while_a_thread_sleeps_fs() {
    comes_back(Attach::Fs, "wait", End::Terminated).unwrap();
}

#[test]
fn terminated_while_a_thread_sleeps_generic() {
    comes_back(Attach::Generic, "wait", End::Terminated).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn terminated_while_a_thread_sleeps_function() {
    comes_back(Attach::Function, "wait", End::Terminated).unwrap();
}

#[test]
fn killed_while_a_thread_sleeps_fs() {
    comes_back(Attach::Fs, "wait", End::Killed).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn killed_while_a_thread_sleeps_generic() {
    comes_back(Attach::Generic, "wait", End::Killed).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn killed_while_a_thread_sleeps_function() {
    comes_back(Attach::Function, "wait", End::Killed).unwrap();
}

/// The driver is loaded anew, or the guest boots again, when the daemon was killed and another one listens in its place.
fn looks_for_the_device(attach: Attach, looks: impl FnOnce(&mut Guest) -> Result<()>) -> Result<()> {
    let place = Place::of(attach)?;
    let Vm { mut guest, daemon } = scene::start(attach, &place)?;
    daemon.kill()?;
    let daemon = place.daemon()?;
    let looked = looks(&mut guest);
    match attach {
        Attach::Fs | Attach::Function => {
            looked?;
            scene::within(Duration::from_secs(40), "the driver says that nobody answers", || {
                let messages = guest.run("dmesg").check()?.text();
                Ok(messages.contains("has not greeted back yet").then_some(()))
            })?;
            ensure!(!daemon.log().iter().any(|line| line.contains("has connected")), "QEMU has reconnected");
            let refused = guest.exec(["/opt/vgpu/lifecycle", "small"]).output()?.to_string();
            ensure!(refused.contains("CUDA_ERROR_SYSTEM_NOT_READY"), "{refused}");
            unplug(&guest, attach)?;
            guest.run("dmesg -c >/dev/null").check()?;
            plug(&guest, attach, &place)?;
            scene::ready(&guest)?;
            scene::check(&Vm { guest, daemon }, &["small"])?;
        }
        Attach::Generic => {
            // The driver reads config space, which QEMU has nobody to ask for.
            let mut process = guest.process();
            let status = process.wait(Duration::from_secs(60))?;
            ensure!(status.signal() == Some(libc::SIGABRT), "{status}: {}", process.messages());
            ensure!(process.messages().contains("vhost_dev_get_config"), "{}", process.messages());
        }
    }
    Ok(())
}

fn loads_the_driver(guest: &mut Guest) -> Result<()> {
    guest.run(&format!("rmmod vgpu && dmesg -c >/dev/null && insmod {MODULE}")).check().map(drop)
}

fn boots_and_loads_the_driver(guest: &mut Guest) -> Result<()> {
    guest.reboot(|guest| scene::qmp(guest, "system_reset").map(drop))?;
    guest.run(&format!("insmod {MODULE}")).check().map(drop)
}

#[test]
fn a_driver_that_finds_no_daemon_says_so_fs() {
    looks_for_the_device(Attach::Fs, loads_the_driver).unwrap();
}

#[test]
fn a_driver_that_finds_no_daemon_aborts_qemu_generic() {
    looks_for_the_device(Attach::Generic, loads_the_driver).unwrap();
}

#[test]
fn a_boot_that_finds_no_daemon_says_so_fs() {
    looks_for_the_device(Attach::Fs, boots_and_loads_the_driver).unwrap();
}

#[test]
fn a_boot_that_finds_no_daemon_aborts_qemu_generic() {
    looks_for_the_device(Attach::Generic, boots_and_loads_the_driver).unwrap();
}

fn switches_off(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let Vm { guest, daemon } = scene::start(attach, &place)?;
    daemon.kill()?;
    guest.shutdown()
}

#[test]
fn a_guest_without_its_daemon_switches_off_fs() {
    switches_off(Attach::Fs).unwrap();
}

#[test]
fn a_guest_without_its_daemon_switches_off_generic() {
    switches_off(Attach::Generic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn a_guest_without_its_daemon_switches_off_function() {
    switches_off(Attach::Function).unwrap();
}
