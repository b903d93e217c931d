//! One VM after the other at a socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pci_layout::{control, regs};
use rustix::net::SocketType;
use vhost_backend::daemon::{self, Stop};
use vhost_backend::socket::{Listener, OWNER_ONLY};

use super::fake::Fake;
use super::machine::{Machine, device};

/// A daemon's main loop in a thread.
struct Served {
    path: PathBuf,
    fake: Arc<Fake>,
    stop: Arc<Stop>,
    server: Option<thread::JoinHandle<std::io::Result<()>>>,
    _folder: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&path, SocketType::STREAM, OWNER_ONLY).unwrap();
        let (fake, stop) = (Arc::new(Fake::default()), Stop::new().unwrap());
        let server = {
            let (device, stop) = (device(&fake), stop.clone());
            thread::spawn(move || daemon::serve_listener(&listener, &device, &stop))
        };
        Self { path, fake, stop, server: Some(server), _folder: folder }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    fn stop(&mut self) {
        self.stop.ask();
        self.server.take().unwrap().join().unwrap().unwrap();
        assert!(!self.path.exists(), "the socket is left behind");
    }
}

#[test]
fn vm_that_is_started_again_is_served_again() {
    let mut served = Served::start();
    for boot in 0..3 {
        let mut machine = Machine::start(served.connect());
        assert_eq!(machine.hello(boot).error, regs::ERROR_NONE);
        assert_eq!(machine.open(0).error, regs::ERROR_NONE, "the slot of boot {boot} is free");
        drop(machine);
        served.fake.expect_reset();
    }
    served.stop();
}

#[test]
fn end_is_possible_with_a_vm_connected() {
    let mut served = Served::start();
    let mut machine = Machine::start(served.connect());
    machine.hello(1);
    machine.open(0);
    served.stop();
    served.fake.expect_reset();
}

#[test]
fn second_vm_is_refused_and_the_first_unharmed() {
    let mut served = Served::start();
    let mut first = Machine::start(served.connect());
    first.hello(1);
    let mut second = served.connect();
    second.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "its connection is closed");
    assert_eq!(first.ask(control::READ_REGS, 0, &[]).error, regs::ERROR_NONE);
    drop(first);
    served.stop();
}

#[test]
fn nonsense_on_the_socket_ends_that_connection_only() {
    let mut served = Served::start();
    for bytes in
        [&[0u8; 12][..], &[0xff; 12], &[5, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], b"GET"]
    {
        let mut connection = served.connect();
        connection.write_all(bytes).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let _ = connection.read_to_end(&mut rest);
    }
    let mut machine = Machine::start(served.connect());
    assert_eq!(machine.hello(1).error, regs::ERROR_NONE);
    drop(machine);
    served.stop();
}
