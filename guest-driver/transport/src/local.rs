//! The local transport: control messages over a socket, memfds in place of guest RAM.

use core::sync::atomic::AtomicU32;
use core::time::Duration;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use pci_layout::control::{
    ADD_RING_PART, AddRingPart, CLOSE_SESSION, MAP_REGION, MapRegion, OPEN_SESSION, OpenSession, PART_RING,
    PART_STAGING, READ_INFO, READ_REGS, REGIONS_MAX, REMOVE_RING, ReadInfo, RegionRef, RingRef, Run,
    SessionRef, UNMAP_REGION,
};
use pci_layout::ring::{RING_BYTES, RINGS_MAX, SESSION_PAGE_BYTES};
use pci_layout::{ABI_VERSION, regs};
use rustix::event::Timespec;
use rustix::io::{self, Errno};
use rustix::mm::ProtFlags;
use rustix::process::{getpid, getuid};
use rustix::thread::futex;
use zerocopy::IntoBytes;

use crate::error::{ControlError, OpenError};
use crate::mapping::{Mapping, sealed_memfd};
use crate::session::{OpenParams, Opened};
use crate::slots::Slots;
use channel::{Channel, is_hung_up, lock};

mod channel;

/// The session slot in OPEN_SESSION over the local transport: the daemon chooses.
pub use pci_layout::control::SESSION_UNASSIGNED;

/// A worker has to start and to initialise the driver.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Pinning and registering gigabytes takes seconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Rings are given back by threads and processes that end: they must not hang.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(2);
/// The longest sleep without looking at the session's state: the death of a worker wakes nobody here.
const SLEEP_SLICE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A connection to the daemon's local socket.
#[derive(Debug)]
pub(crate) struct LocalLink {
    channel: Mutex<Channel>,
    socket: Arc<OwnedFd>,
    session: OnceLock<Live>,
    rings: Mutex<Slots>,
    regions: Mutex<Slots>,
}

/// What is known once the session is open.
#[derive(Debug)]
struct Live {
    slot: u32,
    kick: OwnedFd,
}

impl LocalLink {
    pub(crate) fn connect(path: &OsStr) -> Result<Self, OpenError> {
        let channel = Channel::connect(path)?;
        Ok(Self {
            socket: channel.socket(),
            channel: Mutex::new(channel),
            session: OnceLock::new(),
            rings: Mutex::new(Slots::new(RINGS_MAX)),
            regions: Mutex::new(Slots::new(REGIONS_MAX)),
        })
    }

    pub(crate) fn read_info(&self, offset: u32, len: u32) -> Result<Vec<u8>, ControlError> {
        let body = ReadInfo { offset, len };
        let mut bytes = self.request(READ_INFO, 0, body.as_bytes(), None, REQUEST_LIMIT)?.0;
        if bytes.len() > len as usize {
            return Err(ControlError::Protocol("more information than was asked for"));
        }
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    pub(crate) fn read_regs(&self) -> Result<[u8; regs::BLOCK_BYTES as usize], ControlError> {
        let bytes = self.request(READ_REGS, 0, &[], None, REQUEST_LIMIT)?.0;
        bytes.try_into().map_err(|_| ControlError::Protocol("a register block of another size"))
    }

    pub(crate) fn open(&self, params: &OpenParams<'_>, capabilities: u32) -> Result<Opened, OpenError> {
        let system = |what| move |errno| OpenError::System { what, errno };
        let page_fd =
            sealed_memfd("vgpu-session", SESSION_PAGE_BYTES as usize).map_err(system("memfd_create"))?;
        let page = Mapping::new(&page_fd, 0, SESSION_PAGE_BYTES as usize, ProtFlags::READ)
            .map_err(system("mmap of the session page"))?;
        let env_len =
            u32::try_from(params.env.len()).map_err(|_| OpenError::Protocol("environment too long"))?;
        let open = OpenSession {
            abi_version: ABI_VERSION,
            pid: getpid().as_raw_nonzero().get().unsigned_abs(),
            fingerprint: params.fingerprint,
            page_gpa: 0,
            env_len,
            uid: getuid().as_raw(),
        };
        let mut body = open.as_bytes().to_vec();
        body.extend_from_slice(params.env);
        let (answer, kick) =
            self.request(OPEN_SESSION, SESSION_UNASSIGNED, &body, Some(page_fd.as_fd()), OPEN_LIMIT)?;
        let kick = kick.ok_or(OpenError::Protocol("no kick eventfd came with the session"))?;
        let slot = answer
            .first_chunk::<8>()
            .and_then(|slot| u32::try_from(u64::from_le_bytes(*slot)).ok())
            .ok_or(OpenError::Protocol("no slot came with the session"))?;
        self.session
            .set(Live { slot, kick })
            .map_err(|_| OpenError::Protocol("a second session on one connection"))?;
        Ok(Opened { page, slot, capabilities })
    }

    pub(crate) fn create_ring(&self) -> Result<(u32, Mapping), ControlError> {
        let ring = lock(&self.rings).take().ok_or(ControlError::Exhausted)?;
        let part = self.add_part(ring, PART_RING, RING_BYTES as usize);
        if part.is_err() {
            lock(&self.rings).give_back(ring);
        }
        Ok((ring, part?))
    }

    pub(crate) fn add_staging(&self, ring: u32, len: usize) -> Result<Mapping, ControlError> {
        self.add_part(ring, PART_STAGING, len)
    }

    fn add_part(&self, ring: u32, part: u32, len: usize) -> Result<Mapping, ControlError> {
        let system = |what| move |errno| ControlError::System { what, errno };
        let name = if part == PART_RING { "vgpu-ring" } else { "vgpu-staging" };
        let fd = sealed_memfd(name, len).map_err(system("memfd_create"))?;
        let mapping = Mapping::new(&fd, 0, len, ProtFlags::READ | ProtFlags::WRITE)
            .map_err(system("mmap of a ring part"))?;
        let len = len as u64;
        let head = AddRingPart { ring, part, len, run_count: 1, reserved: 0 };
        let run = Run { gpa: 0, len };
        let body = [head.as_bytes(), run.as_bytes()].concat();
        self.request(ADD_RING_PART, self.slot()?, &body, Some(fd.as_fd()), REQUEST_LIMIT)?;
        Ok(mapping)
    }

    /// Gives a ring back; its number is used again only if the daemon confirmed.
    pub(crate) fn remove_ring(&self, ring: u32) -> Result<(), ControlError> {
        let body = RingRef { ring, reserved: 0 };
        self.request(REMOVE_RING, self.slot()?, body.as_bytes(), None, GIVE_BACK_LIMIT)?;
        lock(&self.rings).give_back(ring);
        Ok(())
    }

    /// Maps `len` bytes at `offset` of a shared area that lies at `va` here.
    pub(crate) fn map_region(
        &self,
        area: BorrowedFd<'_>,
        offset: u64,
        va: u64,
        len: u64,
        flags: u32,
    ) -> Result<u32, ControlError> {
        let region = lock(&self.regions).take().ok_or(ControlError::Exhausted)?;
        let head = MapRegion { region, flags, va, len, run_count: 1, reserved: 0 };
        let run = Run { gpa: offset, len };
        let body = [head.as_bytes(), run.as_bytes()].concat();
        let answer =
            self.slot().and_then(|slot| self.request(MAP_REGION, slot, &body, Some(area), REQUEST_LIMIT));
        match answer {
            Ok(_) => Ok(region),
            // Not mapped for certain. After a timeout it may be: the number is lost rather than used twice.
            Err(error @ (ControlError::Refused { .. } | ControlError::System { .. })) => {
                lock(&self.regions).give_back(region);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn unmap_region(&self, region: u32) -> Result<(), ControlError> {
        let body = RegionRef { region, reserved: 0 };
        self.request(UNMAP_REGION, self.slot()?, body.as_bytes(), None, REQUEST_LIMIT)?;
        lock(&self.regions).give_back(region);
        Ok(())
    }

    pub(crate) fn close(&self) -> Result<(), ControlError> {
        let body = SessionRef { reserved: 0 };
        self.request(CLOSE_SESSION, self.slot()?, body.as_bytes(), None, REQUEST_LIMIT)?;
        Ok(())
    }

    pub(crate) fn kick(&self) -> io::Result<()> {
        let kick = &self.session.get().ok_or(Errno::NOTCONN)?.kick;
        loop {
            match io::write(kick, &1u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // The counter is full of kicks: one more says nothing new.
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sleeps while `word` is `value`, for a slice at most. EPIPE if the daemon is gone.
    pub(crate) fn sleep(&self, word: &AtomicU32, value: u32) -> io::Result<()> {
        match futex::wait(word, futex::Flags::empty(), value, Some(&SLEEP_SLICE)) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::TIMEDOUT) if is_hung_up(&self.socket) => Err(Errno::PIPE),
            Err(Errno::TIMEDOUT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn slot(&self) -> Result<u32, ControlError> {
        self.session.get().map(|live| live.slot).ok_or(ControlError::Protocol("no session is open"))
    }

    fn request(
        &self,
        kind: u32,
        session: u32,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<(Vec<u8>, Option<OwnedFd>), ControlError> {
        channel::request(&self.channel, kind, session, body, fd, limit)
    }
}
