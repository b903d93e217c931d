//! The packages in Debian guests with systemd, installed with dpkg as a user would, over reboots, until they are removed.
//!
//! Ignored unless asked for (`cargo xtask test --install`): each guest takes several minutes on an emulated processor, and making its root
//! file system takes root. Nothing but the device is shared with the host; calls are carried out in software.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::packages::{Apt, Extent};
use harness::progress::step;
use harness::qemu::{Qemu, Want};
use packaging::Made;
use whole_stack::artifacts::{self, Profile};

/// What a stage may take, on a busy machine: the longest builds the kernel module.
const STAGE: Duration = Duration::from_secs(1500);
const IMAGE_BYTES: u64 = 3 << 30;
/// What a user has installed before.
const INSTALLED: &str =
    "systemd-sysv,dbus,udev,kmod,dkms,gcc,make,linux-image-cloud-amd64,linux-headers-cloud-amd64,libgcc-s1";

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = said.lines().rev().take(20).collect();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, tail.join("\n"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A guest's disk, and what starts it.
struct Guest {
    folder: tempfile::TempDir,
    kernel: PathBuf,
    initrd: PathBuf,
    qemu: Qemu,
    daemon: PathBuf,
}

impl Guest {
    fn new(suite: &str, made: &Made) -> Self {
        let folder = tempfile::tempdir_in(harness::store("packages")).unwrap();
        let at = |name: &str| folder.path().join(name);
        let tool =
            Apt::unpack(suite, &format!("mmdebstrap-{suite}"), &["mmdebstrap"], Extent::Alone).unwrap();
        let sources = harness::store("guest").join("apt").join(suite).join("sources.list");
        step(format_args!("making a root file system of {suite}"));
        let root = at("root");
        let mut make = Command::new(tool.join("usr/bin/mmdebstrap"));
        make.args(["--mode=root", "--variant=minbase", &format!("--include={INSTALLED}")]);
        succeed(make.arg(suite).arg(&root).arg(&sources));
        fs::create_dir(root.join("stages")).unwrap();
        for package in [&made.guest, &made.dkms] {
            fs::copy(package, root.join("stages").join(package.file_name().unwrap())).unwrap();
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
        fs::copy(own.join("stages.sh"), root.join("stages/stages.sh")).unwrap();
        fs::copy(own.join("stages.service"), root.join("etc/systemd/system/stages.service")).unwrap();
        let mut probe = Command::new("gcc");
        probe
            .args(["-O1", "-D_GNU_SOURCE", "-o"])
            .arg(root.join("stages/ollama-probe"))
            .arg(own.join("ollama.c"));
        succeed(probe.arg("-ldl"));
        let chroot = |words: &[&str]| succeed(Command::new("chroot").arg(&root).args(words));
        chroot(&["systemctl", "enable", "stages.service"]);
        chroot(&["useradd", "--create-home", "tester"]);
        let boot = |prefix: &str| {
            let entry = fs::read_dir(root.join("boot"))
                .unwrap()
                .flatten()
                .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
            let to = at(prefix);
            fs::copy(entry.unwrap_or_else(|| panic!("no {prefix} in /boot")).path(), &to).unwrap();
            to
        };
        let (kernel, initrd) = (boot("vmlinuz"), boot("initrd.img"));
        let disk = fs::File::create(at("disk")).unwrap();
        disk.set_len(IMAGE_BYTES).unwrap();
        let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        succeed(
            Command::new("mke2fs")
                .env("PATH", path)
                .args(["-q", "-t", "ext4", "-d"])
                .arg(&root)
                .arg(at("disk")),
        );
        fs::remove_dir_all(&root).unwrap();
        let qemu = Qemu::find(&Want::GenericVhostUser).unwrap();
        Self { kernel, initrd, qemu, daemon: artifacts::daemon(Profile::Dev).unwrap(), folder }
    }

    fn daemon(&self) -> Daemon {
        let socket = self.folder.path().join("vgpu.sock");
        let state = self.folder.path().join("state");
        let mut command = Command::new(&self.daemon);
        command
            .args(["--executor", "soft", "--vm-id", "1", "--socket-path"])
            .arg(&socket)
            .arg("--state-dir")
            .arg(&state);
        let log = fs::File::create(self.folder.path().join("daemon.log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Daemon { child, state }
    }

    /// Boots it for one stage, with the device or without; what the steps said and how they ended.
    fn stage(&self, name: &str, device: bool) -> Said {
        step(format_args!("stage {name}"));
        let at = |name: &str| self.folder.path().join(name);
        let (console, told) = (at(&format!("console-{name}")), at(&format!("told-{name}")));
        let mut command = self.qemu.command();
        command
            .args(["-M", "q35,accel=tcg,memory-backend=m", "-cpu", "max", "-smp", "2", "-m", "1536M"])
            .args(["-object", "memory-backend-memfd,id=m,size=1536M,share=on"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-serial")
            .arg(format!("file:{}", told.display()))
            .arg("-drive")
            .arg(format!("file={},format=raw,if=virtio,cache=unsafe", at("disk").display()))
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .arg("-append")
            .arg(format!("root=/dev/vda rw console=ttyS0 quiet panic=-1 vgpu_stage={name}"));
        if device {
            command.arg("-chardev").arg(format!("socket,id=vgpu,path={}", at("vgpu.sock").display())).args([
                "-device",
                "vhost-user-fs-pci,chardev=vgpu,tag=VGPUSTUB,num-request-queues=1,queue-size=256",
            ]);
        }
        let mut qemu = Ended(command.stdin(Stdio::null()).spawn().unwrap());
        let begin = Instant::now();
        while qemu.0.try_wait().unwrap().is_none() {
            assert!(
                begin.elapsed() < STAGE,
                "stage {name} does not end:\n{}\n{}",
                read(&console),
                read(&told)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let text = read(&told);
        assert!(text.contains(&format!("stage {name} is over")), "stage {name}:\n{}\n{text}", read(&console));
        step(format_args!("stage {name} took {:.0} s", begin.elapsed().as_secs_f32()));
        Said::of(&text)
    }
}

/// What came over a serial line.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "")
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Daemon {
    child: Child,
    state: PathBuf,
}

impl Daemon {
    fn control(&self, words: &[&str]) {
        let vgpuctl = artifacts::vgpuctl(Profile::Dev).unwrap();
        succeed(Command::new(vgpuctl).arg("--state-dir").arg(&self.state).args(words));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// What a stage's steps said, and how they ended.
struct Said(BTreeMap<String, (String, Option<i32>)>);

impl Said {
    fn of(console: &str) -> Self {
        let mut steps: BTreeMap<String, (String, Option<i32>)> = BTreeMap::new();
        for line in console.lines() {
            if let Some((name, text)) = line.split_once("| ").filter(|(name, _)| !name.contains(' ')) {
                let said = &mut steps.entry(name.to_owned()).or_default().0;
                said.push_str(text);
                said.push('\n');
            } else if let Some((name, status)) = line.split_once("= ") {
                steps.entry(name.to_owned()).or_default().1 = status.parse().ok();
            }
        }
        Self(steps)
    }

    /// The step ended with this status, and said all of this.
    fn check(&self, name: &str, status: i32, words: &[&str]) {
        let (said, ended) = self.0.get(name).unwrap_or_else(|| panic!("no step {name}"));
        println!("--- {name}: {ended:?}\n{said}");
        assert_eq!(*ended, Some(status), "{name}:\n{said}");
        for word in words {
            assert!(said.contains(word), "{name} says nothing of {word:?}:\n{said}");
        }
    }
}

fn from_installation_to_removal(suite: &str) {
    let folder = harness::store("packages").join("install");
    let made = packaging::build(&folder, Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let guest = Guest::new(suite, &made);

    let daemon = guest.daemon();
    let said = guest.stage("install", true);
    said.check("install", 0, &["all is well"]);
    said.check("dkms", 0, &["vgpu/", "installed"]);
    said.check("devices", 0, &["/dev/vgpu"]);

    let said = guest.stage("use", true);
    said.check("loaded", 0, &["vgpu"]);
    for step in ["root", "user", "unit", "again"] {
        said.check(step, 0, &["all is well", "every one right"]);
    }
    said.check("unit-without", 1, &["PrivateDevices=no"]);
    said.check("ollama", 0, &["10 of 10 probes have found a GPU", "old: ", "new: "]);
    said.check("smi", 0, &["GPU 0: "]);
    said.check("loader", 0, &["libcuda.so.1", "libnvidia-ml.so.1", "/lib/x86_64-linux-gnu/"]);
    said.check("mode", 1, &["access", "failed"]);
    said.check("nodes", 0, &[]);
    said.check("nodes-are", 0, &["/dev/nvidia0 -> vgpu", "/dev/nvidiactl -> vgpu"]);
    said.check("unload", 0, &[]);
    said.check("module", 1, &["modprobe vgpu"]);

    daemon.control(&["quarantine", "1"]);
    guest.stage("quarantined", true).check("doctor", 1, &["quarantine"]);
    daemon.control(&["clear", "1"]);
    guest.stage("no-device", false).check("doctor", 1, &["vhost-user-fs-pci"]);

    let said = guest.stage("remove", true);
    said.check("upgrade", 0, &["all is well"]);
    said.check("works", 0, &["all is well"]);
    said.check("purge", 0, &[]);
    said.check("left", 0, &[]);
}

#[test]
#[ignore = "minutes, and root: cargo xtask test --install"]
fn debian_12() {
    from_installation_to_removal("bookworm");
}

#[test]
#[ignore = "minutes, and root: cargo xtask test --install"]
fn debian_13() {
    from_installation_to_removal("trixie");
}
