//! Workers whose driver is initialised before a session comes. The driver is `tests/drivers/minimal.c`: what matters is when it is
//! asked for what, which needs no GPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use transport::{Device, OpenError, OpenParams};
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::{Daemon, Listen};

/// CUDA_ERROR_UNKNOWN, which the driver answers while it is broken.
const UNKNOWN: u32 = 999;

fn build_driver(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/minimal.c");
    let mut compiler = Command::new("gcc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]);
    compiler.arg(folder.join("libcuda.so.1")).arg(source);
    assert!(compiler.status().unwrap().success());
}

struct Host {
    daemon: Daemon,
    broken: PathBuf,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        build_driver(folder.path());
        let program = artifacts::daemon(Profile::Dev).unwrap();
        let set = |name: &str| format!("{name}={}", folder.path().display());
        let (library, home) = (set("LD_LIBRARY_PATH"), set("HOME"));
        let filter = "RUST_LOG=mediator=debug,info";
        let given = [&library, &home, filter, program.to_str().unwrap(), "--executor", "cuda"];
        let arguments = [&given[..], arguments].concat();
        let socket = folder.path().join("vgpu.sock");
        let daemon = Daemon::start_at(Path::new("/usr/bin/env"), Listen::Local, &socket, &arguments).unwrap();
        Host { daemon, broken: folder.path().join("broken"), _folder: folder }
    }

    /// Waits until so many lines of the log say this.
    fn wait_for(&self, text: &str, count: usize) {
        let mut from = 0;
        for _ in 0..count {
            self.daemon.wait_for_log(text, from).unwrap();
            let log = self.daemon.log();
            from += log[from..].iter().position(|line| line.contains(text)).unwrap() + 1;
        }
    }

    /// Opens a session and closes it: which kind of worker it had.
    fn open(&self, env: &[u8]) -> Result<&'static str, OpenError> {
        let seen = self.daemon.log().len();
        let device = Device::open_local(self.daemon.socket()).unwrap();
        let session = device.open_session(&OpenParams { fingerprint: cuda_api::fingerprint(), env })?;
        let line = self.daemon.wait_for_log("for a worker (", seen).unwrap();
        drop(session);
        let kinds = ["Initialised", "Loaded"];
        Ok(kinds.into_iter().find(|kind| line.contains(&format!("({kind})"))).unwrap())
    }
}

#[test]
fn a_session_finds_the_driver_initialised_unless_it_sets_variables() {
    let host = Host::start(&[]);
    let ready = "initialised ahead of a session";
    host.wait_for(ready, 2);
    assert_eq!(host.open(b"").unwrap(), "Initialised");
    assert_eq!(host.open(b"CUDA_MODULE_LOADING=LAZY\0").unwrap(), "Initialised");
    host.wait_for(ready, 4);
    assert_eq!(host.open(b"CUDA_LAUNCH_BLOCKING=1\0").unwrap(), "Loaded");
    assert_eq!(host.open(b"").unwrap(), "Initialised");
}

#[test]
fn a_session_hears_what_is_wrong_when_it_opens() {
    let host = Host::start(&["--idle-workers", "1"]);
    host.wait_for("initialised ahead of a session", 1);
    std::fs::write(&host.broken, "").unwrap();
    assert_eq!(host.open(b"").unwrap(), "Initialised", "it was, before the driver broke");
    host.wait_for("cannot be initialised ahead of its session", 1);
    for _ in 0..2 {
        match host.open(b"").err() {
            Some(OpenError::Refused { cuda_result, .. }) => assert_eq!(cuda_result, UNKNOWN),
            other => panic!("{other:?}\n{}", host.daemon.log_tail()),
        }
    }
    // What was wrong once is not what the next session hears.
    std::fs::remove_file(&host.broken).unwrap();
    host.open(b"").unwrap();
}

#[test]
fn without_idle_workers_each_session_starts_its_own() {
    let host = Host::start(&["--idle-workers", "0"]);
    for _ in 0..2 {
        assert_eq!(host.open(b"").unwrap(), "Loaded");
    }
    assert!(!host.daemon.log().iter().any(|line| line.contains("initialised ahead of a session")));
}
