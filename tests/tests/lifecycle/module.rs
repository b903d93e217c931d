//! The module is unloaded and loaded again.

use std::time::Duration;

use anyhow::{Result, ensure};
use whole_stack::vm::Attach;

use crate::scene::{self, Left, Place, note};

fn unloads_when_unused(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let vm = scene::start(attach, &place)?;
    let guest = &vm.guest;
    let left = Left::begin(guest, "busy")?;
    let refused = guest.run("rmmod vgpu").output()?;
    ensure!(!refused.success(), "rmmod while a program runs: {refused}");
    note(attach, &format!("rmmod while a program runs: {}", String::from_utf8_lossy(&refused.stderr).trim()));
    ensure!(!left.said(guest)?.contains("ended"), "the program was disturbed: {}", left.said(guest)?);
    guest.run("killall lifecycle").check()?;
    // The last file is closed with the process; a moment later the module is free.
    scene::within(Duration::from_secs(40), "rmmod after the program", || {
        Ok(guest.run("rmmod vgpu").output()?.success().then_some(()))
    })?;
    ensure!(!guest.run("test -e /dev/vgpu").output()?.success(), "the node is still there");
    scene::no_sessions(&vm.daemon)?;
    for _ in 0..3 {
        guest.run("dmesg -c >/dev/null").check()?;
        scene::load(guest)?;
        scene::check(&vm, &["small"])?;
        guest.run("rmmod vgpu").check()?;
    }
    let messages = guest.run("dmesg").check()?.text();
    ensure!(!messages.contains("WARNING") && !messages.contains("BUG"), "{messages}");
    Ok(())
}

#[test]
fn the_module_can_be_reloaded_fs() {
    unloads_when_unused(Attach::Fs).unwrap();
}

#[test]
fn the_module_can_be_reloaded_generic() {
    unloads_when_unused(Attach::Generic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn the_module_can_be_reloaded_function() {
    unloads_when_unused(Attach::Function).unwrap();
}
