//! Which vhost-user messages QEMU sends when. What the daemon can know of a VM's life is in them and nowhere else.

use std::time::Duration;

use anyhow::{Result, ensure};
use whole_stack::vm::{Attach, Vm};

use crate::scene::{self, Left, Place, note};

/// How long nothing must come until the messages of an event are complete.
const QUIET: Duration = Duration::from_millis(700);

/// The messages since line `from` of the daemon's log, equal neighbours counted; `from` moves to the end.
fn messages(vm: &Vm, from: &mut usize) -> Vec<String> {
    let log = loop {
        let before = vm.daemon.log().len();
        std::thread::sleep(QUIET);
        let log = vm.daemon.log();
        if log.len() == before {
            break log;
        }
    };
    let names = log.iter().skip(*from).filter_map(|line| {
        let (_, message) = line.split_once("<- ")?;
        Some(message.split(' ').next().unwrap_or(message).to_owned())
    });
    let names = names.collect();
    *from = log.len();
    names
}

fn shown(names: &[String]) -> String {
    let groups = names.chunk_by(|a, b| a == b);
    groups
        .map(|group| match group {
            [name] => name.clone(),
            group => format!("{} x{}", group.first().map_or("", String::as_str), group.len()),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn story(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let daemon = place.daemon()?;
    let guest = scene::boot(attach, &daemon)?.start()?;
    let mut vm = Vm { guest, daemon };
    let mut from = 0;
    let mut at = |vm: &Vm, what: &str| {
        let names = messages(vm, &mut from);
        note(attach, &format!("{what}: {}", shown(&names)));
        names
    };
    let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
    let stops = |names: &[String]| names.iter().filter(|n| *n == "GET_VRING_BASE").count();

    let names = at(&vm, "boot without our driver");
    ensure!(has(&names, "SET_OWNER") && !has(&names, "SET_VRING_KICK"), "{names:?}");
    scene::load(&vm.guest)?;
    let names = at(&vm, "driver loads");
    let memory = has(&names, "ADD_MEM_REG") || has(&names, "SET_MEM_TABLE");
    ensure!(memory && has(&names, "SET_VRING_KICK"), "{names:?}");
    scene::check(&vm, &["small"])?;
    let names = at(&vm, "a program runs");
    ensure!(!has(&names, "SET_VRING_KICK") && stops(&names) == 0, "{names:?}");

    scene::qmp(&vm.guest, "stop")?;
    let pause = at(&vm, "QMP stop");
    ensure!(stops(&pause) == 2, "{pause:?}");
    scene::qmp(&vm.guest, "cont")?;
    let names = at(&vm, "QMP cont");
    ensure!(has(&names, "SET_VRING_BASE") && has(&names, "SET_VRING_KICK"), "{names:?}");

    // In mid-work, so that it is something that the daemon must not miss.
    Left::begin(&vm.guest, "copies")?;
    at(&vm, "a program is under way");
    vm.guest.reboot(|guest| scene::qmp(guest, "system_reset").map(drop))?;
    let reset = at(&vm, "system_reset, until the guest is up again");
    // The fact that the daemon's rule for a stop rests on: nothing in it says that this is no pause.
    ensure!(stops(&reset) == 2 && !has(&reset, "RESET_DEVICE") && !has(&reset, "RESET_OWNER"), "{reset:?}");
    scene::load(&vm.guest)?;
    at(&vm, "driver loads again");
    vm.guest.reboot(scene::panic)?;
    let panic = at(&vm, "the guest panics and boots again");
    ensure!(stops(&panic) == 2 && !has(&panic, "RESET_DEVICE"), "{panic:?}");
    scene::load(&vm.guest)?;
    at(&vm, "driver loads again");
    scene::qmp(&vm.guest, "quit")?;
    vm.daemon.wait_for_log("the VM has disconnected", 0)?;
    let names = at(&vm, "quit");
    ensure!(stops(&names) == 2, "{names:?}");
    Ok(())
}

#[test]
fn qemu_7_sends_what_the_daemon_expects() {
    story(Attach::Fs).unwrap();
}

#[test]
fn qemu_11_sends_what_the_daemon_expects() {
    story(Attach::Generic).unwrap();
}
