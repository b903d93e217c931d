//! A daemon out of `vgpu-host`, and a guest of whole Debian on it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest::Guest;
use harness::kernel::Series;
use harness::qemu::{Attachment, Want};
use harness::system::Disk;
use packaging::{Made, VERSION};
use serde_json::json;
use whole_stack::artifacts::Profile;
use whole_stack::daemon::{Daemon, Listen};

/// The guest's ordinary user.
pub const USER: u32 = 1000;
/// The release that is upgraded to.
const NEXT: &str = "0.1.1";
/// How long dpkg may take, DKMS with it, on an emulated machine.
const DPKG: Duration = Duration::from_secs(1500);

/// All of it.
pub struct Scene {
    pub guest: Guest,
    daemon: Option<Daemon>,
    series: Series,
    made: Made,
    folder: tempfile::TempDir,
}

fn made(version: &str) -> Result<Made> {
    packaging::make(Profile::Dev, &harness::store("packages-dev").join(version), version)
}

fn push(guest: &Guest, file: &Path) -> Result<String> {
    let path = format!("/root/{}", file.file_name().context("a file without a name")?.to_string_lossy());
    guest.push(file, &path)?;
    Ok(path)
}

fn boot(series: Series, attachment: Option<Attachment>) -> Result<Guest> {
    let disk = Disk::debian(series)?;
    Guest::installed(&disk, &Want::Any, |machine| {
        machine.memory_mib = 1536;
        machine.reboot = true;
        machine.hotplug = true;
        machine.attachments.extend(attachment);
    })
}

impl Scene {
    pub fn start(series: Series) -> Result<Self> {
        let made = made(VERSION)?;
        let folder = tempfile::tempdir()?;
        let host = folder.path().join("host");
        let unpacked = Command::new("dpkg-deb").arg("-x").arg(made.deb("vgpu-host")?).arg(&host).status()?;
        ensure!(unpacked.success(), "dpkg-deb -x of vgpu-host");
        let daemon = start_daemon(folder.path())?;
        let guest = boot(series, Some(Attachment::fs(daemon.socket())))?;
        let scene = Self { guest, daemon: Some(daemon), series, made, folder };
        scene.note(&format!("{} up in {:.0} s", scene.guest.kernel(), scene.guest.booted_in().as_secs_f64()));
        Ok(scene)
    }

    /// On the test's output.
    pub fn note(&self, what: &str) {
        harness::progress::step(format_args!("[{}] {what}", self.series.suite()));
    }

    /// Runs dpkg on packages of these names; all that it says.
    pub fn dpkg(&self, words: &[&str], names: &[&str]) -> Result<String> {
        let mut argv = vec!["dpkg".to_owned()];
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        for name in names {
            argv.push(push(&self.guest, self.made.deb(name)?)?);
        }
        let done = self.guest.run(&format!("{} 2>&1", argv.join(" "))).timeout(DPKG).output()?;
        ensure!(done.success(), "{}: {done}", argv.join(" "));
        Ok(done.text())
    }

    pub fn reboot(&mut self) -> Result<()> {
        self.guest.reboot(|guest| {
            // The agent's answer may be lost with it.
            let _running = guest.exec(["systemctl", "reboot"]).spawn()?;
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        })
    }

    /// The dynamic loader finds the libraries by every name, in every way that programs use.
    pub fn libraries_are_found(&self) -> Result<()> {
        let list = self.guest.run("ldconfig -p").check()?.text();
        for name in ["libcuda.so.1", "libcuda.so ", "libnvidia-ml.so.1", "libnvidia-ml.so "] {
            ensure!(list.contains(name), "ldconfig -p has no {name}: {list}");
        }
        self.program("find")?;
        let said =
            self.guest.exec(["/tmp/find"]).user(USER).timeout(Duration::from_secs(120)).check()?.text();
        ensure!(said.ends_with("all found"), "{said}");
        Ok(())
    }

    /// Puts a C program of this folder into the guest, as `/tmp/NAME`. Compiled here: the guest has no headers of the C library.
    pub fn program(&self, name: &str) -> Result<()> {
        let source = harness::repository().join(format!("packaging/tests/install/{name}.c"));
        let program = self.folder.path().join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-Wall", "-Werror", "-o"]).arg(&program).arg(source).arg("-ldl");
        ensure!(gcc.status().context("gcc does not start")?.success(), "{name}.c does not compile");
        self.guest.push(&program, &format!("/tmp/{name}"))
    }

    /// vgpuctl on the host.
    pub fn vgpuctl(&self, words: &[&str]) -> Result<String> {
        let program = self.folder.path().join("host/usr/bin/vgpuctl");
        let done = Command::new(program)
            .arg("--state-dir")
            .arg(self.folder.path().join("state"))
            .args(words)
            .output()?;
        ensure!(done.status.success(), "vgpuctl {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    pub fn stop_daemon(&mut self) -> Result<()> {
        self.daemon.take().context("no daemon")?.stop().map(drop)
    }

    /// Takes the device out of the machine.
    pub fn unplug(&self) -> Result<()> {
        self.guest.qmp("device_del", json!({ "id": "vgpu0" }))?;
        let begin = Instant::now();
        // The chardev can go once the device has let go of it.
        while self.guest.qmp("chardev-remove", json!({ "id": "vgpu0-socket" })).is_err() {
            ensure!(begin.elapsed() < Duration::from_secs(120), "the device does not go");
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Puts one in, after having started the daemon if it is not there.
    pub fn plug(&mut self) -> Result<()> {
        if self.daemon.is_none() {
            self.daemon = Some(start_daemon(self.folder.path())?);
        }
        let socket = self.folder.path().join("vgpu.sock");
        let address = json!({ "type": "unix", "data": { "path": socket } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.guest.qmp("chardev-add", json!({ "id": "vgpu0-socket", "backend": backend }))?;
        let device = json!({ "driver": "vhost-user-fs-pci", "id": "vgpu0", "chardev": "vgpu0-socket", "tag": "VGPUSTUB",
            "num-request-queues": 1, "queue-size": 1024, "bus": "port0" });
        self.guest.qmp("device_add", device)?;
        self.wait("test -c /dev/vgpu", Duration::from_secs(120))
    }

    /// Waits until a command succeeds in the guest.
    pub fn wait(&self, command: &str, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while !self.guest.run(command).output()?.success() {
            ensure!(begin.elapsed() < limit, "{command}: not within {} s", limit.as_secs());
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Installs the next release over this one.
    pub fn upgrade(&mut self) -> Result<()> {
        self.made = made(NEXT)?;
        let said = self.dpkg(&["-i"], &["vgpu-guest-dkms", "vgpu-guest"])?;
        ensure!(!said.contains("failed"), "{said}");
        let status = self.guest.exec(["dkms", "status"]).check()?.text();
        ensure!(status.contains(NEXT) && !status.contains(VERSION), "dkms status: {status}");
        let sources = self.guest.run("ls /usr/src").check()?.text();
        ensure!(!sources.contains(&format!("vgpu-{VERSION}")), "{sources}");
        ensure!(
            self.guest.run("readlink -f /usr/bin/nvidia-smi").check()?.text().trim() == "/usr/bin/vgpu-smi"
        );
        Ok(())
    }

    /// The files that JAX looks for come and go with their package, and stay over a start.
    pub fn nvidia_nodes(&mut self) -> Result<()> {
        let there = "for n in nvidia0 nvidiactl; do test \"$(readlink /dev/$n)\" = vgpu || exit 1; done";
        ensure!(!self.guest.run(there).output()?.success());
        self.dpkg(&["-i"], &["vgpu-guest-nvidia-nodes"])?;
        self.guest.run(there).check()?;
        self.reboot()?;
        self.guest.run(there).check()?;
        self.guest.exec(["dpkg", "-P", "vgpu-guest-nvidia-nodes"]).check()?;
        self.guest.run("! ls /dev/nvidia* 2>/dev/null").check()?;
        self.dpkg(&["-i"], &["vgpu-guest-nvidia-nodes"]).map(drop)
    }
}

fn start_daemon(folder: &Path) -> Result<Daemon> {
    let program = folder.join("host/usr/bin/vhost-user-vgpu");
    let state = folder.join("state");
    let arguments = ["--executor", "soft", "--vm-id", "7", "--name", "web", "--state-dir"];
    let arguments = [&arguments[..], &[state.to_str().context("a path")?]].concat();
    Daemon::start_at(&program, Listen::VhostUser, &folder.join("vgpu.sock"), &arguments)
}

/// vgpu-host in a Debian of its own: a VM's service is started, seen, and sandboxed.
pub fn host(series: Series) -> Result<()> {
    let guest = boot(series, None)?;
    let deb = push(&guest, made(VERSION)?.deb("vgpu-host")?)?;
    let run = |command: &str| -> Result<String> {
        let done = guest.run(&format!("{command} 2>&1")).timeout(Duration::from_secs(300)).output()?;
        ensure!(done.success(), "{command}: {done}");
        Ok(done.text())
    };
    let says = |command: &str, expected: &str| -> Result<()> {
        let said = run(command)?;
        ensure!(said.trim() == expected, "{command}: {said}");
        Ok(())
    };
    run(&format!("dpkg -i {deb}"))?;
    run("id vgpu")?;
    says("stat -c '%U %a' /run/vgpu", "vgpu 755")?;
    run(
        "printf 'VGPU_VM_ID=7\\nVGPU_QEMU_GROUP=user\\nVGPU_ARGUMENTS=--executor soft --weight 30\\n' >/etc/vgpu/vms/web",
    )?;
    run("systemd-analyze verify --man=no vhost-user-vgpu@web.service")?;
    run("systemctl start vhost-user-vgpu@web").or_else(|error| {
        let log = guest.run("journalctl -u vhost-user-vgpu@web --no-pager | tail -n 40").check()?.text();
        Err(error.context(log))
    })?;
    says("stat -c '%U %G %a' /run/vgpu/web.sock", "vgpu user 660")?;
    says("ps -o user= -p $(systemctl show -P MainPID vhost-user-vgpu@web)", "vgpu")?;
    let shown = run("vgpuctl show web")?;
    ensure!(shown.contains("30"), "{shown}");
    ensure!(run("vgpuctl list")?.contains("web"));
    // A worker is kept ready: it runs within the service, as its user.
    let kept = "for i in $(seq 30); do test $(pgrep -c -u vgpu) -ge 2 && exit 0; sleep 1; done; ps -eo user,pid,args | grep -w vgpu; \
        journalctl -u vhost-user-vgpu@web --no-pager | tail -n 30; exit 1";
    run(kept)?;
    let exposure = run("systemd-analyze security --no-pager vhost-user-vgpu@web.service | tail -n 1")?;
    harness::progress::step(format_args!("[{}] {}", series.suite(), exposure.trim()));
    run("systemctl restart vhost-user-vgpu@web && vgpuctl show web")?;
    run(&format!("dpkg -i {deb}")).and_then(|said| {
        ensure!(said.contains("still run the release of before: vhost-user-vgpu@web"), "{said}");
        Ok(())
    })?;
    run("systemctl stop vhost-user-vgpu@web")?;
    run("! pgrep -u vgpu")?;
    run("dpkg -P vgpu-host")?;
    run("rm /etc/vgpu/vms/web; rmdir /etc/vgpu/vms /etc/vgpu")?;
    run(
        "! find / -xdev -path /proc -prune -o -name '*vgpu*' -not -path '/root/*' -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -print | grep .",
    )?;
    guest.shutdown()
}

/// The tarball's install.sh, with DKMS.
pub fn tarball(series: Series) -> Result<()> {
    let scene = Scene::start(series)?;
    let guest = &scene.guest;
    let archive: PathBuf = scene.made.tarball.clone();
    let path = push(guest, &archive)?;
    let script = format!("/root/vgpu-guest-{VERSION}/install.sh");
    guest.run(&format!("tar -C /root -xzf {path}")).check()?;
    let said = guest.exec([script.as_str()]).timeout(DPKG).check()?.text();
    ensure!(said.contains("is installed") && !said.contains("failed"), "{said}");
    let again = guest.exec([script.as_str()]).timeout(DPKG).check()?.text();
    ensure!(again.contains("is installed"), "{again}");
    guest.exec([script.as_str(), "--check"]).timeout(Duration::from_secs(600)).check()?;
    guest.exec([script.as_str(), "--uninstall"]).timeout(Duration::from_secs(300)).check()?;
    let left = guest.run("ls -d /usr/lib/vgpu /usr/bin/vgpu-smi /usr/bin/nvidia-smi /usr/lib/x86_64-linux-gnu/libcuda.so* /usr/src/vgpu-* 2>/dev/null");
    ensure!(left.output()?.text().is_empty(), "something is left");
    ensure!(guest.exec(["dkms", "status"]).check()?.text().is_empty());
    scene.guest.shutdown()
}
