//! Guests boot, on every kernel and QEMU that the project is tested with, and what the harness promises about them holds.
//! Needs a network the first time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::guest::{Boot, Exit};
use harness::kernel::{Kernel, Series, build_module};
use harness::qemu::{Attachment, Chipset, GENERIC_DEVICE, Machine, Qemu, Want};
use harness::store;
use serde_json::json;

fn hello(series: Series) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hello");
    let out = store("guest").join(format!("hello-{series}"));
    build_module(&Kernel::get(series).unwrap(), &source, &out).unwrap().remove(0)
}

/// Boots, loads a module built here, and uses its node as an ordinary user.
fn boots_and_loads(series: Series, want: Want) {
    let guest = Boot::new(series).qemu(want).node("hello", 0o644).start().unwrap();
    assert!(guest.kernel().starts_with(&format!("{series}.")), "{}", guest.kernel());
    guest.load_module(&hello(series), "").unwrap();
    let read = || guest.run("cat /dev/hello").user(1000).check().unwrap();
    assert_eq!(read().text(), "hello from the kernel");
    // The node comes back with the kernel's own mode, which the rule changes again.
    guest.run("rmmod hello && insmod /lib/modules/hello.ko").check().unwrap();
    assert_eq!(read().text(), "hello from the kernel");
    guest.shutdown().unwrap();
}

#[test]
fn linux_6_1_on_the_older_qemu() {
    boots_and_loads(Series::V6_1, Want::Any);
}

#[test]
fn linux_6_12_on_the_older_qemu() {
    boots_and_loads(Series::V6_12, Want::Any);
}

#[test]
fn linux_6_1_on_the_newer_qemu() {
    boots_and_loads(Series::V6_1, Want::GenericVhostUser);
}

#[test]
fn linux_6_12_on_the_newer_qemu() {
    boots_and_loads(Series::V6_12, Want::GenericVhostUser);
}

#[test]
fn both_attachments_exist_where_they_are_said_to() {
    let older = Qemu::find(&Want::Any).unwrap();
    assert!(older.has_device("vhost-user-fs-pci") && !older.has_device("no-such-device"));
    let newer = Qemu::find(&Want::GenericVhostUser).unwrap();
    assert!(newer.has_device("vhost-user-fs-pci") && newer.has_device(GENERIC_DEVICE));
}

#[test]
fn commands_and_files() {
    let guest = Boot::new(Series::V6_1).file("/etc/brought", "along", 0o600).start().unwrap();

    let output = guest.run("echo out; echo err >&2; id -u; pwd; echo $WORD; cat; exit 7").user(1000);
    let output = output.env("WORD", "a b").cwd("/tmp").input(b"typed").output().unwrap();
    assert_eq!(output.exit, Exit::Code(7));
    assert_eq!(output.text(), "out\n1000\n/tmp\na b\ntyped");
    assert_eq!(output.stderr, b"err\n");

    let refused = guest.run("cat /etc/brought").user(1000).check().unwrap_err();
    assert!(format!("{refused:#}").contains("Permission denied"), "{refused:#}");
    assert_eq!(guest.run("cat /etc/brought").check().unwrap().text(), "along");
    let missing = guest.exec(["no-such-program"]).output().unwrap_err();
    assert!(format!("{missing:#}").contains("No such file"), "{missing:#}");

    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    guest.write_file("/tmp/new/file", &bytes, 0o640).unwrap();
    assert!(guest.read_file("/tmp/new/file").unwrap() == bytes, "a file changed on the way");
    assert_eq!(guest.run("stat -c %a /tmp/new/file").check().unwrap().text(), "640");
    assert!(guest.read_file("/tmp/none").is_err());
    assert!(guest.run("cat /tmp/new/file").output().unwrap().stdout == bytes, "an output changed on the way");

    // Several at once: this would take 8 s one after the other.
    let begin = Instant::now();
    let sleepers: Vec<_> =
        (0..8).map(|i| guest.run(&format!("sleep 1; echo {i}")).spawn().unwrap()).collect();
    for (i, sleeper) in sleepers.into_iter().enumerate() {
        assert_eq!(sleeper.wait().unwrap().text(), i.to_string());
    }
    assert!(begin.elapsed() < Duration::from_secs(6), "one after the other: {:?}", begin.elapsed());
    guest.shutdown().unwrap();
}

#[test]
fn a_running_command_dies_with_all_that_it_started() {
    // On the other mainboard, and with memory above 4 GiB, for once.
    let machine = |machine: &mut Machine| (machine.chipset, machine.memory_mib) = (Chipset::Pc, 4096);
    let guest = Boot::new(Series::V6_1).machine(machine).start().unwrap();
    let running = guest.run("sleep 1000 & sleep 1000").user(1000).spawn().unwrap();
    let count =
        || guest.run("ps -o user | grep -c ^user || true").check().unwrap().text().parse::<u32>().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while count() < 2 {
        assert!(Instant::now() < deadline, "the command did not start");
    }
    running.kill().unwrap();
    assert_eq!(running.wait().unwrap().exit, Exit::Signal(9));
    assert_eq!(count(), 0);

    let late = guest.run("echo begun; sleep 1000").timeout(Duration::from_secs(1)).output().unwrap_err();
    let late = format!("{late:#}");
    assert!(late.contains("still ran after 1 s") && late.contains("begun"), "{late}");
    drop(guest.run("sleep 1000").user(1000).spawn().unwrap());
    while count() != 0 {
        assert!(Instant::now() < deadline, "a dropped command lives on");
    }
}

#[test]
fn the_monitor_answers_and_a_dead_qemu_is_told() {
    let guest = Boot::new(Series::V6_1).machine(|machine| machine.hotplug = true).start().unwrap();
    let state = guest.qmp("query-status", json!({})).unwrap();
    assert_eq!(state["status"], "running");
    let refused = guest.qmp("device_del", json!({"id": "nothing"})).unwrap_err();
    assert!(format!("{refused:#}").contains("nothing"), "{refused:#}");
    guest.qmp("stop", json!({})).unwrap();
    guest.process().qmp().unwrap().wait_event("STOP", Duration::from_secs(5)).unwrap();
    guest.qmp("cont", json!({})).unwrap();
    guest.run("true").check().unwrap();

    let running = guest.run("sleep 1000").spawn().unwrap();
    guest.process().kill();
    let error = format!("{:#}", running.wait().unwrap_err());
    assert!(error.contains("QEMU ended: signal: 9"), "{error}");
}

#[test]
fn a_guest_that_does_not_come_up_says_why() {
    let error =
        Boot::new(Series::V6_1).machine(|machine| machine.append.push_str(" rdinit=/none root=/dev/none"));
    let error = format!("{:#}", error.start().err().unwrap());
    assert!(error.contains("Kernel panic"), "{error}");

    let socket = Path::new("/nonexistent/back-end");
    let error =
        format!("{:#}", Boot::new(Series::V6_1).attach(Attachment::fs(socket)).start().err().unwrap());
    assert!(
        error.contains("/nonexistent/back-end") && error.contains("QEMU ended: exit status: 1"),
        "{error}"
    );
}

#[test]
fn programs_bring_their_libraries() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let compile = |name: &str, source: &str, arguments: &[&str]| {
        std::fs::write(path("source.c"), source).unwrap();
        let mut gcc = std::process::Command::new("gcc");
        gcc.arg("-o").arg(path(name)).arg(path("source.c")).args(arguments).current_dir(place.path());
        assert!(gcc.status().unwrap().success());
    };
    compile(
        "libanswer.so.1",
        "int answer(void) { return 42; }",
        &["-shared", "-fPIC", "-Wl,-soname,libanswer.so.1"],
    );
    let main = "#include <stdio.h>\n#include <math.h>\nint answer(void);\n\
                int main(int argc, char **argv) { printf(\"%d %.0f\\n\", answer(), sqrt(argc + 15)); return 0; }";
    let rpath = format!("-Wl,-rpath,{}", place.path().display());
    compile("found", main, &["-L.", "-l:libanswer.so.1", "-lm", &rpath]);
    compile("lost", main, &["-L.", "-l:libanswer.so.1", "-lm"]);

    let alone = Boot::new(Series::V6_1).program("/usr/local/bin/lost", &path("lost"));
    let error = format!("{:#}", alone.start().err().unwrap());
    assert!(error.contains("needs libanswer.so.1"), "{error}");

    let guest = Boot::new(Series::V6_1)
        .program("/usr/local/bin/found", &path("found"))
        .program("/usr/local/bin/lost", &path("lost"))
        .start()
        .unwrap();
    assert_eq!(guest.run("found").user(1000).check().unwrap().text(), "42 4");
    assert_eq!(guest.run("lost").user(1000).check().unwrap().text(), "42 4");
}
