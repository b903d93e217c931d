//! What the tests here share: the stack, a daemon at a place of its own, a VM that may be reset and unplugged, programs left
//! running in it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::guest::{Boot, Guest};
use harness::kernel::Series;
use harness::wheels::Toolkit;
use serde_json::{Value, json};
use whole_stack::artifacts::Profile;
use whole_stack::daemon::{Daemon, Listen};
use whole_stack::vm::{Attach, MODULE, PROGRAMS, Stack, USER, Vm};

/// The program of all tests here.
const PROGRAM: &str = "lifecycle";
/// How long a program may take to get its work under way, in a guest without KVM on a busy machine.
pub const BEGIN: Duration = Duration::from_secs(60);
/// What a daemon says when it can be connected to.
const LISTENS: &str = "waiting for QEMU";

/// Everything that is built, once.
pub fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}")))
}

/// A place for a socket that outlives daemons.
pub struct Place {
    folder: tempfile::TempDir,
    listen: Listen,
}

impl Place {
    /// For daemons that serve that device of QEMU's.
    pub fn of(attach: Attach) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, listen: attach.listen() })
    }

    /// For daemons of the vhost-user front.
    pub fn new() -> Result<Self> {
        Self::of(Attach::Fs)
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("vgpu.sock")
    }

    /// Starts a daemon here, and waits until it listens. It logs every message of QEMU's.
    pub fn daemon(&self) -> Result<Daemon> {
        let daemon = self.begin_daemon()?;
        daemon.wait_for_log(LISTENS, 0)?;
        Ok(daemon)
    }

    /// Starts a daemon here that may end at once.
    pub fn begin_daemon(&self) -> Result<Daemon> {
        let filter = "info,vhost_backend=debug,virtio_queue=off";
        Daemon::start_logging(&stack().daemon, self.listen, &self.socket(), &["--executor", "soft"], filter)
    }
}

/// A guest that can be reset and unplugged, on this daemon. The module is loaded by [`load`] only.
pub fn boot(attach: Attach, daemon: &Daemon) -> Result<Boot> {
    let boot = stack().system(Series::V6_1, attach)?.attach(attach.attachment(daemon));
    Ok(boot.machine(|machine| {
        machine.reboot = true;
        machine.hotplug = true;
    }))
}

/// A daemon and such a guest, booted, with the module loaded. The daemon's socket goes with the place.
pub fn start(attach: Attach, place: &Place) -> Result<Vm> {
    let daemon = place.daemon()?;
    let guest = boot(attach, &daemon)?.start()?;
    load(&guest)?;
    Ok(Vm { guest, daemon })
}

/// Loads the module and waits until the device is ready.
pub fn load(guest: &Guest) -> Result<()> {
    guest.run(&format!("insmod {MODULE}")).check()?;
    ready(guest)
}

/// Waits until the device has answered the driver's greeting.
pub fn ready(guest: &Guest) -> Result<()> {
    within(Duration::from_secs(60), "the driver becomes ready", || {
        Ok(guest.run("dmesg").check()?.text().contains("ready: capabilities").then_some(()))
    })
}

/// Waits until `ready` has something, for at most so long.
pub fn within<T>(limit: Duration, what: &str, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(it) = ready()? {
            return Ok(it);
        }
        ensure!(begin.elapsed() < limit, "{what}: not within {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until these processes of the host are gone and reaped.
pub fn gone(workers: &[i32], limit: Duration) -> Result<()> {
    within(limit, "workers of the past end and are reaped", || {
        Ok((!workers.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())).then_some(()))
    })
}

/// Waits until the daemon has no session: a program's last one is closed a moment after its end.
pub fn no_sessions(daemon: &Daemon) -> Result<()> {
    within(Duration::from_secs(20), "the last session ends", || {
        Ok((daemon.totals()?.get("sessions_open") == Some(0)).then_some(()))
    })
}

/// A program that was left running in the guest; what it says goes into a file there.
pub struct Left {
    name: String,
}

impl Left {
    /// Starts it as the ordinary user and waits until its work is under way.
    pub fn begin(guest: &Guest, arguments: &str) -> Result<Self> {
        Self::begin_as(guest, USER, arguments)
    }

    /// The same as that user.
    pub fn begin_as(guest: &Guest, user: u32, arguments: &str) -> Result<Self> {
        let name = format!("/tmp/{}", arguments.replace(' ', "-"));
        let command = format!("VGPU_LOG=1 {PROGRAMS}/{PROGRAM} {arguments}");
        let shell = format!("({command}; echo ended with $?) </dev/null >{name} 2>&1 &");
        guest.run(&shell).user(user).check()?;
        let left = Self { name };
        left.wait_for(guest, "begun", BEGIN)?;
        Ok(left)
    }

    /// What it has said.
    pub fn said(&self, guest: &Guest) -> Result<String> {
        Ok(guest.run(&format!("cat {}", self.name)).check()?.text())
    }

    /// Waits until it says so; all that it has said.
    pub fn wait_for(&self, guest: &Guest, text: &str, limit: Duration) -> Result<String> {
        let begin = Instant::now();
        loop {
            let said = self.said(guest)?;
            if said.contains(text) {
                return Ok(said);
            }
            ensure!(
                begin.elapsed() < limit && !said.contains("ended with"),
                "{}: no {text:?} after {:.1} s (limit {} s): {said}",
                self.name,
                begin.elapsed().as_secs_f32(),
                limit.as_secs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for its end, which must be a good one; what it has said.
    pub fn wait(&self, guest: &Guest, limit: Duration) -> Result<String> {
        let said = self.wait_for(guest, "ended with", limit)?;
        ensure!(said.contains("ended with 0"), "{}: {said}", self.name);
        Ok(said)
    }
}

/// Runs a program that must end well.
pub fn check(vm: &Vm, arguments: &[&str]) -> Result<String> {
    vm.check(PROGRAM, arguments)
}

/// A monitor command without arguments.
pub fn qmp(guest: &Guest, command: &str) -> Result<Value> {
    guest.qmp(command, json!({})).with_context(|| format!("QMP {command}"))
}

/// Makes the guest's kernel panic; it boots again at once.
pub fn panic(guest: &Guest) -> Result<()> {
    let panics = || guest.console().matches("Kernel panic").count();
    let before = panics();
    // Held until then: dropping it would kill it before it has written.
    let _running = guest.run("echo c >/proc/sysrq-trigger").spawn()?;
    within(Duration::from_secs(60), "the guest panics", || Ok((panics() > before).then_some(())))
}

/// What a test has found, on its output: `cargo test -- --nocapture` shows it.
pub fn note(attach: Attach, what: &str) {
    eprintln!("[{attach:?}] {what}");
}
