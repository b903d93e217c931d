//! A VM ends, another one comes to the same daemon.

use anyhow::{Result, ensure};
use whole_stack::vm::{Attach, Vm};

use crate::scene::{self, Left, Place};

#[derive(Clone, Copy, PartialEq)]
enum End {
    PowerOff,
    Killed,
}

fn another_vm_is_served(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let mut daemon = place.daemon()?;
    for end in [End::PowerOff, End::Killed] {
        let guest = scene::boot(attach, &daemon)?.start()?;
        scene::load(&guest)?;
        let vm = Vm { guest, daemon };
        scene::check(&vm, &["small"])?;
        Left::begin(&vm.guest, "copies")?;
        let workers = vm.daemon.children();
        ensure!(vm.daemon.totals()?.get("sessions_open") == Some(1));
        let ended = vm.daemon.log().len();
        match end {
            End::PowerOff => vm.guest.shutdown()?,
            End::Killed => vm.guest.process().kill(),
        }
        daemon = vm.daemon;
        daemon.wait_for_log("the VM has disconnected", ended)?;
        scene::no_sessions(&daemon)?;
        // Those that have no session yet may serve the next VM.
        let left: Vec<_> = daemon.children().into_iter().filter(|pid| workers.contains(pid)).collect();
        ensure!(left.len() < workers.len(), "no worker has ended: {workers:?}");
    }
    let guest = scene::boot(attach, &daemon)?.start()?;
    scene::load(&guest)?;
    let vm = Vm { guest, daemon };
    scene::check(&vm, &["small"])?;
    Ok(())
}

#[test]
fn vms_come_one_after_the_other_fs() {
    another_vm_is_served(Attach::Fs).unwrap();
}

#[test]
fn vms_come_one_after_the_other_generic() {
    another_vm_is_served(Attach::Generic).unwrap();
}

#[test]
fn vms_come_one_after_the_other_function() {
    another_vm_is_served(Attach::Function).unwrap();
}
