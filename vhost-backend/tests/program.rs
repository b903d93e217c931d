//! The program itself, with the software executor.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-user-vgpu"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    command
}

/// A daemon that is up.
struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.args(["--executor", "soft", "--alone"]).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to the line that has `text`, and gives that line.
    fn expect(&mut self, text: &str) -> String {
        let mut line = String::new();
        let mut before = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                return line;
            }
            before.push_str(&line);
            line.clear();
        }
        panic!("the log ended without {text:?}:\n{before}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

fn listening(path: &Path) -> Daemon {
    let mut daemon = Daemon::start(command().arg("--socket-path").arg(path));
    daemon.expect("waiting for QEMU");
    daemon
}

#[test]
fn sigterm_ends_it_cleanly_with_the_totals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = listening(&path);
        daemon.signal(signal);
        let (status, log) = daemon.end();
        assert!(status.success(), "{log}");
        assert!(
            log.lines().last().unwrap().contains("totals: calls processed: 0; sessions_open=0 "),
            "{log}"
        );
        assert!(!path.exists());
    }
}

#[test]
fn sigusr1_writes_the_totals_and_nothing_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = listening(&folder.path().join("s"));
    for _ in 0..2 {
        daemon.signal(Signal::USR1);
        daemon.expect("totals: calls processed: 0");
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
}

#[test]
fn socket_in_use_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let daemon = listening(&path);
    let (status, log) = Daemon::start(command().arg("--socket-path").arg(&path)).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("is in use: another daemon listens on it"), "{log}");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
}

#[test]
fn socket_of_a_killed_daemon_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let killed = listening(&path);
    killed.signal(Signal::KILL);
    killed.end();
    assert!(path.exists());
    let daemon = listening(&path);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
}

#[test]
fn inherited_connection_is_served_until_it_ends() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = command();
    let theirs = std::os::fd::OwnedFd::from(theirs);
    // SAFETY: only async-signal-safe calls between fork and exec: dup2.
    unsafe {
        command.args(["--fd", "100"]).pre_exec(move || {
            // A number that nothing else has, neither here nor in the child before it execs.
            let mut hundred = std::os::fd::FromRawFd::from_raw_fd(100);
            let done = rustix::io::dup2(&theirs, &mut hundred);
            std::mem::forget::<std::os::fd::OwnedFd>(hundred);
            Ok(done?)
        });
    }
    let mut daemon = Daemon::start(&mut command);
    drop(command);
    daemon.expect("serving the inherited connection");
    drop(ours);
    let (status, log) = daemon.end();
    assert!(status.success(), "{log}");
    assert!(log.contains("totals: "), "{log}");
}

#[test]
fn descriptor_that_is_no_connection_is_refused() {
    let (status, log) = Daemon::start(command().args(["--fd", "0"])).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("the descriptor of --fd is no socket"), "{log}");
    let (status, log) = Daemon::start(command().args(["--fd", "99"])).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("the descriptor of --fd is not open"), "{log}");
}

#[test]
fn service_manager_is_told_when_it_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    let path = folder.path().join("s");
    let daemon = Daemon::start(command().arg("--socket-path").arg(&path).env("NOTIFY_SOCKET", &notify));
    let mut message = [0; 100];
    let len = socket.recv(&mut message).unwrap();
    assert!(std::str::from_utf8(&message[..len]).unwrap().contains("READY=1"));
    assert!(UnixStream::connect(&path).is_ok(), "it listens when it says so");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
}

#[test]
fn file_at_the_socket_path_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let (status, log) = Daemon::start(command().arg("--local-socket").arg(&path)).end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("exists and is not a socket"), "{log}");
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
    drop(UnixListener::bind(folder.path().join("other")).unwrap());
}

#[test]
fn capabilities_are_one_line_of_json() {
    let output = command().args(["--print-capabilities", "--whatever"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with(r#"{"type":"vgpu""#) && text.trim_end().ends_with('}'), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn wrong_arguments_are_exit_status_2() {
    assert_eq!(command().arg("--socket-path").output().unwrap().status.code(), Some(2));
    assert_eq!(command().output().unwrap().status.code(), Some(2));
    let long = format!("/{}", "x".repeat(200));
    assert_eq!(command().args(["--socket-path", &long]).output().unwrap().status.code(), Some(2));
}

#[test]
fn local_process_gets_a_worker_through_the_guests_own_transport() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut daemon = Daemon::start(command().arg("--local-socket").arg(&path));
    daemon.expect("waiting for processes of this host");
    let device = transport::Device::open_local(&path).unwrap();
    assert!(!device.info().unwrap().is_empty());
    assert_eq!(device.regs().unwrap()[pci_layout::regs::MAGIC as usize..][..8], pci_layout::ids::TAG);
    let params = transport::OpenParams { fingerprint: cuda_api::fingerprint(), env: b"" };
    let session = device.open_session(&params).unwrap();
    assert_eq!(session.state(), transport::SessionState::Live);
    let mut ring = session.create_ring().unwrap();
    let (_, staging_len) = ring.staging().unwrap();
    assert!(staging_len > 0);
    drop(ring);
    session.close().unwrap();
    let other = transport::Device::open_local(&path).unwrap();
    let wrong = transport::OpenParams { fingerprint: [1; 16], env: b"" };
    assert!(other.open_session(&wrong).is_err(), "another call table");
    daemon.signal(Signal::USR1);
    let totals = daemon.expect("totals: ");
    assert!(totals.contains("sessions_opened=1 sessions_closed=1 sessions_died=0"), "{totals}");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
}

#[test]
fn local_session_hears_that_the_daemon_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut daemon = Daemon::start(command().arg("--local-socket").arg(&path));
    daemon.expect("waiting for processes of this host");
    let params = transport::OpenParams { fingerprint: cuda_api::fingerprint(), env: b"" };
    let session = transport::Device::open_local(&path).unwrap().open_session(&params).unwrap();
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
    assert_ne!(session.state(), transport::SessionState::Live);
}

/// Runs on hosts with and without a GPU: the driver shows none of its devices.
fn without_gpu(executor: &str, path: &Path) -> Command {
    let mut command = command();
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .args(["--executor", executor, "--alone", "--local-socket"])
        .arg(path);
    command
}

#[test]
fn executor_cuda_without_a_gpu_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let output = without_gpu("cuda", &folder.path().join("s")).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("the NVIDIA driver"), "{log}");
    assert!(log.contains("libcuda.so.1") || log.contains("CUDA_ERROR_NO_DEVICE"), "{log}");
}

#[test]
fn executor_auto_without_a_gpu_is_the_software_device_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = without_gpu("auto", &folder.path().join("s"));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut daemon = Daemon { child, log };
    daemon.expect("the software executor serves");
    daemon.expect("waiting for processes of this host");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0.success());
}
