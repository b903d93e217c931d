//! A daemon for tests: the local protocol's other side, with the ring's real consuming end and a few calls of its own.
//! It knows no CUDA and no worker process; what it does it really does, and it checks what it is sent.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::cast_possible_truncation, reason = "lengths of this test's own making")]

mod worker;

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use pci_layout::control::*;
use pci_layout::ring::{RING_BYTES, SESSION_PAGE_BYTES};
use pci_layout::{ABI_VERSION, regs};
use rustix::cmsg_space;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::net::*;
use vgpu_ring::SessionPageMemory;
use zerocopy::{FromBytes, IntoBytes};

pub use worker::*;

/// What the daemon says about itself, and what it does.
pub struct Config {
    pub abi: u32,
    pub fingerprint: [u8; 16],
    pub info: Vec<u8>,
    /// Refuses OPEN_SESSION with these.
    pub refuse: Option<(u32, u32)>,
    /// How long a ring thread polls before it parks.
    pub spin: std::time::Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            abi: ABI_VERSION,
            fingerprint: [7; 16],
            info: (0..150_000u32).map(|i| (i % 251) as u8).collect(),
            refuse: None,
            spin: std::time::Duration::from_micros(50),
        }
    }
}

/// The running daemon; its threads end with the connections.
pub struct Daemon {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
    pub shared: Arc<Shared>,
}

/// What the tests look at and turn.
pub struct Shared {
    pub config: Config,
    pub env: Mutex<Vec<u8>>,
    pub rings_open: AtomicU64,
    pub kicks: AtomicU64,
    pub parks: AtomicU64,
    pub wakes: AtomicU64,
    pub sum: AtomicU64,
    /// Ring threads leave their rings alone while this is set.
    pub frozen: AtomicBool,
    /// REMOVE_RING is taken and never answered.
    pub ignore_removal: AtomicBool,
    /// Regions: number → (address in the guest, our mapping of it).
    pub regions: Mutex<HashMap<u32, (u64, Mapping)>>,
    pub hang_up: AtomicBool,
}

impl Daemon {
    pub fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vgpu.sock");
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 8).unwrap();
        let shared = Arc::new(Shared {
            config,
            env: Mutex::default(),
            rings_open: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
            parks: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
            ignore_removal: AtomicBool::new(false),
            regions: Mutex::default(),
            hang_up: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok(connection) = accept_with(&listener, SocketFlags::CLOEXEC) {
                let shared = Arc::clone(&for_thread);
                thread::spawn(move || {
                    Connection { shared, socket: Arc::new(connection), session: None }.serve()
                });
            }
        });
        Self { _folder: folder, path, shared }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

struct Connection {
    shared: Arc<Shared>,
    socket: Arc<OwnedFd>,
    session: Option<Worker>,
}

type Answer = Result<(Vec<u8>, Option<OwnedFd>), u32>;

impl Connection {
    fn serve(mut self) {
        let mut buffer = vec![0; REQUEST_BYTES_MAX as usize];
        loop {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let Ok(message) = recvmsg(&*self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
            else {
                return;
            };
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            if message.bytes == 0 {
                return;
            }
            let (header, body) = RequestHeader::read_from_prefix(&buffer[..message.bytes]).unwrap();
            if header.kind == REMOVE_RING && self.shared.ignore_removal.load(Ordering::Relaxed) {
                continue;
            }
            let answer = self.answer(&header, body, fd);
            let (error, bytes, fd) = match answer {
                Ok((bytes, fd)) => (0, bytes, fd),
                Err(error) => (error, Vec::new(), None),
            };
            let cuda_result = match self.shared.config.refuse {
                Some((_, cuda_result)) if header.kind == OPEN_SESSION => cuda_result,
                _ => 0,
            };
            let len = u32::try_from(bytes.len()).unwrap();
            let reply = ReplyHeader { error, request_id: header.request_id, len, cuda_result };
            send(&self.socket, reply.as_bytes(), &bytes, fd.as_ref().map(AsFd::as_fd));
        }
    }

    fn answer(&mut self, header: &RequestHeader, body: &[u8], fd: Option<OwnedFd>) -> Answer {
        let shared = &self.shared;
        match header.kind {
            READ_REGS => {
                let mut block = vec![0; regs::BLOCK_BYTES as usize];
                let mut put = |at: u32, bytes: &[u8]| {
                    block[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
                };
                put(regs::PROTOCOL_VER, &shared.config.abi.to_le_bytes());
                put(regs::CAPABILITIES, &regs::CAP_MAP_GUEST_PAGES.to_le_bytes());
                put(regs::TABLE_FINGERPRINT, &shared.config.fingerprint);
                Ok((block, None))
            }
            READ_INFO => {
                let ReadInfo { offset, len } = read(body).0;
                let rest = shared.config.info.get(offset as usize..).unwrap_or(&[]);
                Ok((rest[..rest.len().min(len.min(64 * 1024) as usize)].to_vec(), None))
            }
            OPEN_SESSION => {
                if let Some((error, _)) = shared.config.refuse {
                    return Err(error);
                }
                assert_eq!(header.session, transport::SESSION_UNASSIGNED);
                let (open, env): (OpenSession, _) = read(body);
                assert_eq!((open.abi_version, open.page_gpa), (ABI_VERSION, 0));
                assert_eq!((open.fingerprint, open.env_len as usize), (shared.config.fingerprint, env.len()));
                *shared.env.lock().unwrap() = env.to_vec();
                let page = sealed(fd, u64::from(SESSION_PAGE_BYTES));
                let mapping = Mapping::new(page.as_fd(), 0, SESSION_PAGE_BYTES as usize);
                // SAFETY: a page, mapped writable, kept by its owner.
                let page = unsafe { SessionPageMemory::with_owner(mapping.base, Arc::new(mapping)) };
                page.set_live();
                let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
                let worker = Worker::new(
                    Arc::clone(shared),
                    page,
                    kick.try_clone().unwrap(),
                    Arc::clone(&self.socket),
                );
                self.session = Some(worker);
                Ok((SLOT.to_le_bytes().to_vec(), Some(kick)))
            }
            _ => {
                assert_eq!(u64::from(header.session), SLOT);
                let worker = self.session.as_mut().ok_or(regs::ERROR_INVALID_REQUEST)?;
                worker_request(worker, shared, header.kind, body, fd)?;
                Ok((Vec::new(), None))
            }
        }
    }
}

fn worker_request(
    worker: &mut Worker,
    shared: &Shared,
    kind: u32,
    body: &[u8],
    fd: Option<OwnedFd>,
) -> Result<(), u32> {
    match kind {
        ADD_RING_PART => {
            let (part, runs): (AddRingPart, _) = read(body);
            let (run, rest): (Run, _) = read(runs);
            assert!(rest.is_empty() && part.run_count == 1);
            assert_eq!((run.gpa, run.len), (0, part.len));
            let fd = sealed(fd, part.len);
            let mapping = Mapping::new(fd.as_fd(), 0, part.len as usize);
            if part.part == PART_RING {
                assert_eq!(part.len, u64::from(RING_BYTES));
                worker.add_ring(part.ring, mapping);
            } else {
                worker.add_staging(part.ring, mapping);
            }
        }
        REMOVE_RING => {
            let ring: RingRef = read(body).0;
            worker.remove_ring(ring.ring);
        }
        MAP_REGION => {
            let (map, runs): (MapRegion, _) = read(body);
            let (run, rest): (Run, _) = read(runs);
            assert!(rest.is_empty() && map.run_count == 1 && map.len == run.len);
            let fd = fd.unwrap();
            assert!(run.gpa + run.len <= fstat(&fd).unwrap().st_size as u64);
            let mapping = Mapping::new(fd.as_fd(), run.gpa, run.len as usize);
            assert!(shared.regions.lock().unwrap().insert(map.region, (map.va, mapping)).is_none());
        }
        UNMAP_REGION => {
            let region: RegionRef = read(body).0;
            assert!(shared.regions.lock().unwrap().remove(&region.region).is_some());
        }
        CLOSE_SESSION => worker.end(pci_layout::event::DEATH_SHUTDOWN),
        _ => return Err(regs::ERROR_INVALID_REQUEST),
    }
    Ok(())
}

/// The slot that sessions get.
pub const SLOT: u64 = 77;

fn read<T: FromBytes>(bytes: &[u8]) -> (T, &[u8]) {
    let Ok(read) = T::read_from_prefix(bytes) else { panic!("a body of {} bytes", bytes.len()) };
    read
}

/// The memfd that came along: of that size, which nobody can change.
fn sealed(fd: Option<OwnedFd>, len: u64) -> OwnedFd {
    let fd = fd.expect("a memfd comes with it");
    assert_eq!(fstat(&fd).unwrap().st_size as u64, len);
    assert!(fcntl_get_seals(&fd).unwrap().contains(SealFlags::SHRINK | SealFlags::GROW));
    fd
}

fn send(socket: &OwnedFd, header: &[u8], body: &[u8], fd: Option<BorrowedFd<'_>>) {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &fd {
        assert!(control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd))));
    }
    // A guest that has gone away is none of the daemon's trouble.
    let _ = sendmsg(socket, &[IoSlice::new(header), IoSlice::new(body)], &mut control, SendFlags::NOSIGNAL);
}
