//! Daemon and QEMU in the wrong order, with wrong arguments, or one too many.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest::{Boot, Guest};
use harness::kernel::Series;
use harness::qemu::{Attachment, Want};
use whole_stack::vm::{Attach, MODULE, PROGRAMS};

use crate::scene::{self, Place, note};

/// How long a QEMU that is going to end at its start may take for that.
const REFUSAL: Duration = Duration::from_secs(60);

fn attachment(attach: Attach, socket: &Path) -> Attachment {
    match attach {
        Attach::Fs => Attachment::fs(socket),
        Attach::Generic => Attachment::generic(socket),
        Attach::Function => Attachment::function(socket),
    }
}

fn guest(attach: Attach, place: &Place) -> Result<Boot> {
    Ok(scene::stack().system(Series::V6_1, attach)?.attach(attachment(attach, &place.socket())))
}

/// A guest whose device is written out: `device` without its chardev, `option` for the chardev.
fn raw_guest(want: Want, place: &Place, device: &str, option: &str) -> Result<Boot> {
    let arguments = [
        "-chardev".to_owned(),
        format!("socket,id=c,path={}{option}", place.socket().display()),
        "-device".to_owned(),
        format!("{device},chardev=c"),
    ];
    let boot = scene::stack().system(Series::V6_1, Attach::Fs)?.qemu(want);
    Ok(boot.machine(move |machine| machine.extra.extend(arguments)))
}

/// What QEMU says when it ends at its start, which it must.
fn refusal(boot: Boot) -> Result<String> {
    let begin = Instant::now();
    let error = boot.start().err().context("QEMU has started")?;
    let text = format!("{error:#}");
    ensure!(begin.elapsed() < REFUSAL && text.contains("QEMU ended: exit status: 1"), "{text}");
    let said = text.split("--- QEMU said:").nth(1).and_then(|rest| rest.split("--- end").next());
    Ok(said.unwrap_or(&text).trim().to_owned())
}

/// Boots, loads the module, waits until the driver says something like `words`, runs a program; what module and program said.
fn tries(boot: Boot, words: &str) -> Result<String> {
    tried(&boot.start()?, words)
}

/// The same in a guest that has booted.
fn tried(guest: &Guest, words: &str) -> Result<String> {
    let script = format!(
        "insmod {MODULE}; for i in $(seq 20); do dmesg | grep -q '{words}' && break; sleep 1; done; \
         dmesg | grep vgpu; ls /dev/vgpu; timeout 60 {PROGRAMS}/lifecycle small; echo status $?"
    );
    let output = guest.run(&format!("({script}) 2>&1")).check()?.text();
    ensure!(guest.process().exited().is_none(), "QEMU ended");
    Ok(output)
}

fn needs_a_daemon(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let path = place.socket().display().to_string();
    let said = refusal(guest(attach, &place)?)?;
    ensure!(said.contains(&path) && said.contains("No such file or directory"), "{said}");
    place.daemon()?.kill()?;
    let said = refusal(guest(attach, &place)?)?;
    ensure!(said.contains(&path) && said.contains("Connection refused"), "{said}");
    Ok(())
}

#[test]
fn qemu_before_the_daemon_ends_with_the_sockets_name_fs() {
    needs_a_daemon(Attach::Fs).unwrap();
}

#[test]
fn qemu_before_the_daemon_ends_with_the_sockets_name_generic() {
    needs_a_daemon(Attach::Generic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn qemu_before_the_daemon_ends_with_the_sockets_name_function() {
    needs_a_daemon(Attach::Function).unwrap();
}

const FS: &str = "vhost-user-fs-pci,tag=VGPUSTUB,num-request-queues=1,queue-size=1024";
const GENERIC: &str = "vhost-user-test-device-pci,virtio-id=21,num_vqs=2,vq_size=256,config_size=256";

/// Neither device can be created on a chardev that reconnects: QEMU does not wait for the first connection, and finds none.
/// When a QEMU can, this test says so.
#[test]
fn a_chardev_that_reconnects_is_refused() {
    for (want, option, device) in [
        (Want::Any, ",reconnect=1", FS),
        (Want::GenericVhostUser, ",reconnect-ms=1000", FS),
        (Want::GenericVhostUser, ",reconnect-ms=1000", GENERIC),
    ] {
        let place = Place::new().unwrap();
        let _daemon = place.daemon().unwrap();
        let said = refusal(raw_guest(want, &place, device, option).unwrap()).unwrap();
        assert!(said.contains("vhost_backend_init failed"), "{device}: {said}");
    }
}

fn says_what_memory_must_be(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let daemon = place.daemon()?;
    // It stays until the daemon has had its say.
    let guest = guest(attach, &place)?.machine(|machine| machine.shared_memory = false).start()?;
    let said = tried(&guest, "has not greeted back")?;
    note(attach, &format!("no share=on: {said}"));
    ensure!(said.contains("has not greeted back") && said.contains("CUDA_ERROR_SYSTEM_NOT_READY"), "{said}");
    ensure!(!said.contains("status 0"), "{said}");
    let told = daemon.wait_for_log("share=on", 0)?;
    note(attach, &format!("the daemon: {told}"));
    Ok(())
}

#[test]
fn memory_that_is_not_shared_is_named_fs() {
    says_what_memory_must_be(Attach::Fs).unwrap();
}

#[test]
fn memory_that_is_not_shared_is_named_generic() {
    says_what_memory_must_be(Attach::Generic).unwrap();
}

#[test]
#[ignore = "the others of its kind are near enough: --ignored runs it"]
fn memory_that_is_not_shared_is_named_function() {
    says_what_memory_must_be(Attach::Function).unwrap();
}

fn one_vm_only(attach: Attach) -> Result<()> {
    let place = Place::of(attach)?;
    let vm = scene::start(attach, &place)?;
    let second = guest(attach, &place)?;
    if attach == Attach::Function {
        // QEMU 11.1 aborts where its connection is closed while it waits.
        let error = second.start().err().context("a second QEMU has started")?;
        note(attach, &format!("the second QEMU: {error:#}").lines().take(3).collect::<Vec<_>>().join(" "));
    } else {
        let said = refusal(second)?;
        ensure!(said.contains("vhost_backend_init failed"), "{said}");
    }
    vm.daemon.wait_for_log("a second VM has tried to connect: refused", 0)?;
    scene::check(&vm, &["small"])?;
    Ok(())
}

#[test]
fn a_second_vm_is_refused_fs() {
    one_vm_only(Attach::Fs).unwrap();
}

#[test]
fn a_second_vm_is_refused_generic() {
    one_vm_only(Attach::Generic).unwrap();
}

#[test]
fn a_second_vm_is_refused_function() {
    one_vm_only(Attach::Function).unwrap();
}

/// Devices that work although they are not written as the manual says, and what the others say.
#[test]
fn odd_arguments_work_or_say_why() {
    enum Then {
        Works,
        Guest(&'static str),
        Qemu(&'static str),
    }
    for (device, then) in [
        // Somebody's real virtiofs device.
        (
            "vhost-user-fs-pci,tag=other,num-request-queues=1,queue-size=1024",
            Then::Guest("ls: /dev/vgpu: No such"),
        ),
        ("vhost-user-fs-pci,tag=VGPUSTUB", Then::Works),
        ("vhost-user-fs-pci,tag=VGPUSTUB,num-request-queues=2,queue-size=1024", Then::Works),
        (
            "vhost-user-fs-pci,tag=VGPUSTUB,num-request-queues=1,queue-size=16",
            Then::Guest("16 entries is too short"),
        ),
        (
            "vhost-user-fs-pci,tag=VGPUSTUB,num-request-queues=1,queue-size=100",
            Then::Qemu("must be a power of 2"),
        ),
        (
            "vhost-user-test-device-pci,virtio-id=21,num_vqs=3,vq_size=256,config_size=256",
            Then::Qemu("virtqueue 2"),
        ),
        (
            "vhost-user-test-device-pci,virtio-id=21,num_vqs=1,vq_size=256,config_size=256",
            Then::Guest("two queues that are needed"),
        ),
        (
            "vhost-user-test-device-pci,virtio-id=21,num_vqs=2,vq_size=256,config_size=64",
            Then::Guest("ls: /dev/vgpu: No such"),
        ),
        (
            "vhost-user-fs-pci,tag=VGPUSTUB,num-request-queues=0,queue-size=1024",
            Then::Qemu("num-request-queues property must be larger than 0"),
        ),
        ("vhost-user-test-device-pci,virtio-id=21,num_vqs=2,config_size=256", Then::Works),
        ("vhost-user-test-device-pci,virtio-id=21,num_vqs=2,vq_size=1024,config_size=256", Then::Works),
        (
            "vhost-user-test-device-pci,virtio-id=21,num_vqs=2,vq_size=8,config_size=256",
            Then::Guest("8 entries is too short"),
        ),
    ] {
        let place = Place::new().unwrap();
        let _daemon = place.daemon().unwrap();
        let want = if device.contains("-fs-") { Want::Any } else { Want::GenericVhostUser };
        let boot = raw_guest(want, &place, device, "").unwrap();
        match then {
            Then::Works => {
                let said = tries(boot, "ready: capabilities").unwrap();
                assert!(said.contains("small: right"), "{device}: {said}");
            }
            Then::Guest(words) => {
                // What the driver says of a device that it leaves alone, it says while it is loaded.
                let said = tries(boot, "").unwrap();
                assert!(said.contains(words) && !said.contains("status 0"), "{device}: {said}");
            }
            Then::Qemu(words) => {
                let said = refusal(boot).unwrap();
                assert!(said.contains(words), "{device}: {said}");
            }
        }
    }
}

#[test]
fn a_socket_in_use_is_refused_and_a_left_over_one_replaced() {
    let place = Place::new().unwrap();
    let first = place.daemon().unwrap();
    let said = match place.begin_daemon() {
        Ok(mut second) => {
            assert_eq!(second.wait().unwrap().code(), Some(1), "{}", second.log().join("\n"));
            second.wait_for_log("in use", 0).unwrap()
        }
        // It had ended before anybody looked.
        Err(error) => format!("{error:#}"),
    };
    let path = place.socket().display().to_string();
    assert!(said.contains(&format!("{path} is in use: another daemon listens on it")), "{said}");
    // The first is not harmed.
    let first = {
        let vm = whole_stack::vm::Vm {
            guest: scene::boot(Attach::Fs, &first).unwrap().start().unwrap(),
            daemon: first,
        };
        scene::load(&vm.guest).unwrap();
        scene::check(&vm, &["small"]).unwrap();
        vm.daemon
    };
    first.kill().unwrap();
    assert!(place.socket().exists(), "a killed daemon leaves its socket");
    let third = place.daemon().unwrap();
    third.wait_for_log("was left over from an earlier run; replaced", 0).unwrap();
    third.stop().unwrap();
    assert!(!place.socket().exists(), "a daemon that ends in peace takes its socket along");
}
