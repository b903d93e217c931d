//! A local process's side of the socket, and a daemon to talk to.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pci_layout::control::{self, ReplyHeader, RequestHeader, Run};
use pci_layout::{ABI_VERSION, regs, ring};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use vgpu_device::{Device, DeviceConfig, Front};
use vhost_backend::daemon::Stop;
use vhost_backend::local::{self, SLOT_UNASSIGNED};
use vhost_backend::socket::{Listener, OWNER_ONLY};
use zerocopy::{FromBytes, IntoBytes};

use super::fake::Fake;

/// A daemon's local front in a thread.
pub struct Served {
    pub path: PathBuf,
    pub fake: Arc<Fake>,
    pub device: Arc<Device>,
    stop: Arc<Stop>,
    server: Option<thread::JoinHandle<std::io::Result<()>>>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&path, SocketType::SEQPACKET, OWNER_ONLY).unwrap();
        let fake = Arc::new(Fake::default());
        let config = DeviceConfig {
            front: Front::Sockets,
            vm_id: 0,
            pool: b'A',
            priority: 0,
            vram_quota_bytes: 0,
            session_limit: 256,
        };
        let device = Device::new(&config, fake.clone());
        let stop = Stop::new().unwrap();
        let server = {
            let (device, stop) = (device.clone(), stop.clone());
            thread::spawn(move || local::serve(&listener, &device, &stop))
        };
        Self { path, fake, device, stop, server: Some(server), _folder: folder }
    }

    /// Waits until the fake was asked just this since the last call.
    pub fn expect(&self, expected: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut asked = self.fake.asked.lock().unwrap();
            if *asked == expected {
                asked.clear();
                return;
            }
            assert!(Instant::now() < deadline, "asked: {asked:?}, expected: {expected:?}");
            drop(asked);
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn stop(mut self) {
        self.stop.ask();
        self.server.take().unwrap().join().unwrap().unwrap();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub error: u32,
    pub cuda_result: u32,
    pub body: Vec<u8>,
    pub file: Option<OwnedFd>,
}

/// A process with a connection.
pub struct Process {
    pub socket: OwnedFd,
}

impl Process {
    pub fn connect(path: &Path) -> Self {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10))).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self { socket }
    }

    pub fn send(&self, kind: u32, session: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        let header = RequestHeader { kind, request_id: 9, session, reserved: 0 };
        self.send_bytes(&[header.as_bytes(), body].concat(), files);
    }

    pub fn send_bytes(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(files)));
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
            .unwrap();
    }

    /// The next answer; None at the end of the connection.
    pub fn receive(&self) -> Option<Answer> {
        let mut bytes = vec![0; control::REPLY_BYTES_MAX as usize];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message =
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
                .unwrap();
        if message.bytes == 0 {
            return None;
        }
        let file = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let (header, body) = ReplyHeader::read_from_prefix(&bytes[..message.bytes]).unwrap();
        assert_eq!((header.request_id, header.len as usize), (9, body.len()));
        Some(Answer { error: header.error, cuda_result: header.cuda_result, body: body.to_vec(), file })
    }

    pub fn ask(&self, kind: u32, session: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Answer {
        self.send(kind, session, body, files);
        self.receive().expect("the connection was closed")
    }

    pub fn try_open(&self) -> Answer {
        let page = memfd(4096, SealFlags::SHRINK | SealFlags::GROW);
        self.ask(control::OPEN_SESSION, SLOT_UNASSIGNED, &open_body(), &[page.as_fd()])
    }

    /// Opens a session; its slot.
    pub fn open(&self) -> u32 {
        let answer = self.try_open();
        assert_eq!(answer.error, regs::ERROR_NONE);
        assert!(answer.file.is_some(), "no descriptor to kick by");
        u32::try_from(u64::from_le_bytes(answer.body.try_into().unwrap())).unwrap()
    }

    pub fn add_ring(&self, session: u32, file: Option<&OwnedFd>) -> u32 {
        let len = u64::from(ring::RING_BYTES);
        let head = control::AddRingPart { ring: 0, part: control::PART_RING, len, run_count: 1, reserved: 0 };
        let body = [head.as_bytes(), Run { gpa: 0, len }.as_bytes()].concat();
        let files: Vec<_> = file.into_iter().map(AsFd::as_fd).collect();
        self.ask(control::ADD_RING_PART, session, &body, &files).error
    }

    pub fn close(&self, session: u32) -> u32 {
        self.ask(control::CLOSE_SESSION, session, &[0; 8], &[]).error
    }
}

pub fn open_body() -> Vec<u8> {
    let open = control::OpenSession {
        abi_version: ABI_VERSION,
        pid: 1,
        fingerprint: [7; 16],
        page_gpa: 0,
        env_len: 0,
        uid: 0,
    };
    open.as_bytes().to_vec()
}

pub fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, len).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}
