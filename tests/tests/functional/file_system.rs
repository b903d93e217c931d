//! The device's usual carrier is QEMU's file system device. A guest that has a real one as well keeps it, whichever driver comes
//! first; and the device comes to its own driver even where the file system's driver is built into the kernel.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::kernel::Series;
use harness::packages::{Apt, Extent, Libraries};
use harness::qemu::Attachment;
use harness::supervise;
use whole_stack::place::Place;
use whole_stack::vm::{Attach, Vm};

use crate::stack;

/// Debian's release whose virtiofsd needs no privileges.
const SUITE: &str = "trixie";
const TAG: &str = "shared";

/// Debian's virtiofsd, serving a folder. Killed with this process, and when its VM ends.
fn virtiofsd(folder: &Path, socket: &Path) -> Result<std::process::Child> {
    let root = Apt::unpack(SUITE, "virtiofsd", &["virtiofsd"], Extent::WithDependencies)?;
    let words = Libraries::of(&root)?.run(&root.join("usr/libexec/virtiofsd"));
    let (program, arguments) = words.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).args(["--sandbox", "none", "--seccomp", "none", "--log-level", "error"]);
    command.arg("--socket-path").arg(socket).arg("--shared-dir").arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = supervise::spawn(command).context("virtiofsd")?;
    let begin = Instant::now();
    while !socket.exists() {
        ensure!(child.try_wait()?.is_none(), "virtiofsd has ended");
        ensure!(begin.elapsed() < Duration::from_secs(20), "virtiofsd does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

fn check(series: Series) -> Result<()> {
    let _alone = crate::alone();
    let folder = tempfile::tempdir()?;
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared)?;
    std::fs::write(shared.join("from-host"), "host\n")?;
    let socket = folder.path().join("fs.sock");
    let mut server = virtiofsd(&shared, &socket)?;

    let daemon = stack().start_daemon(&[])?;
    let boot =
        stack().guest(series, Attach::Fs, &daemon)?.attach(Attachment::Fs { socket, tag: TAG.to_owned() });
    // 6.12 has virtiofs built in; for 6.1 it is a module, here loaded after ours, which has refused the device by then.
    let boot = if series == Series::V6_1 { boot.modules(&["virtiofs"]) } else { boot };
    let place = Place::Vm(Box::new(Vm { guest: boot.start()?, daemon }));
    let vm = place.vm().context("only in a VM")?;

    let mount = format!("mkdir -p /mnt/shared && mount -t virtiofs {TAG} /mnt/shared");
    vm.guest.run(&mount).check()?;
    ensure!(
        vm.guest.read_file("/mnt/shared/from-host")? == b"host\n",
        "the file system shows something else"
    );
    place.check("driver_api")?;
    vm.guest.run("dd if=/dev/urandom of=/mnt/shared/big bs=64k count=64 && sync").check()?;
    let beside = place.start("compute until 5")?;
    let sum = vm.guest.run("md5sum /mnt/shared/big | cut -d' ' -f1").check()?.text();
    let same = Command::new("md5sum").arg(shared.join("big")).output()?;
    ensure!(
        String::from_utf8_lossy(&same.stdout).starts_with(&sum) && sum.len() == 32,
        "the file differs: {sum}"
    );
    beside.tell("")?;
    beside.check()?;

    let taken = vm.guest.run("dmesg | grep -c 'vgpu takes it over from virtiofs'").output()?.text();
    ensure!(
        (taken != "0") == (series == Series::V6_12),
        "taken over {taken} times: another driver came first than it should"
    );
    // The driver goes and comes again; the file system stays.
    vm.guest.run("rmmod vgpu && test ! -e /dev/vgpu && cat /mnt/shared/from-host").check()?;
    vm.guest.run("insmod /lib/modules/vgpu.ko && cat /mnt/shared/from-host").check()?;
    place.check("driver_api")?;
    // The device is no file system, to whoever asks.
    let refused = vm.guest.run("mkdir -p /mnt/no && mount -t virtiofs VGPUSTUB /mnt/no").output()?;
    ensure!(!refused.success(), "our device was mounted as a file system");
    place.check("driver_api")?;
    vm.guest.run("umount /mnt/shared").check()?;

    let Place::Vm(vm) = place else { return Ok(()) };
    vm.guest.shutdown()?;
    server.kill()?;
    server.wait()?;
    vm.daemon.stop().map(drop)
}

#[test]
fn a_file_system_beside_it_on_linux_6_1() {
    check(Series::V6_1).unwrap_or_else(|e| panic!("{e:?}"));
}

#[test]
fn a_file_system_beside_it_on_linux_6_12() {
    check(Series::V6_12).unwrap_or_else(|e| panic!("{e:?}"));
}
