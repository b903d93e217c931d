//! The driverless transport: a plain PCI function whose BARs the process maps itself, with no kernel module.
//!
//! Control messages go through the mailbox (BAR0), ring memory and staging lie in the data window (BAR1). Several processes share both
//! through locks that the kernel takes back from those that end ([`memory`]); whoever has the turn next closes the sessions that they have left.
//! There is no interrupt: threads that wait look, with short sleeps between. Nothing keeps processes that map the window from each other.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use pci_layout::control::{
    ADD_RING_PART, AddRingPart, CLOSE_SESSION, MAP_REGION, MapRegion, OPEN_SESSION, OpenSession, PART_RING,
    PART_STAGING, READ_INFO, READ_REGS, REGIONS_MAX, REMOVE_RING, ReadInfo, RegionRef, ReplyHeader, RingRef,
    Run, SESSIONS_MAX, SessionRef, UNMAP_REGION,
};
use pci_layout::function::MAILBOX_BYTES;
use pci_layout::ring::{RING_BYTES, RINGS_MAX};
use pci_layout::{ABI_VERSION, regs};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{self, Errno};
use rustix::mm::ProtFlags;
use rustix::process::{getpid, getuid};
use zerocopy::IntoBytes;

use crate::error::{ControlError, OpenError};
use crate::mapping::Mapping;
use crate::session::{OpenParams, Opened};
use crate::slots::Slots;
use mailbox::Mailbox;
use memory::{Turn, Window};

mod mailbox;
mod memory;

pub(crate) use memory::Taken;

/// A worker has to start and to initialise the driver.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Others' requests come first, and an OPEN_SESSION may be among them.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Rings are given back by threads and processes that end: they must not hang.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(2);
/// How long a thread that waits sleeps between two looks at its ring.
const LOOK_PAUSE: Duration = Duration::from_micros(100);
/// After so many of them it looks whether anybody is still there: a load from BAR0, which QEMU asks the daemon for.
const LOOKS: u32 = 2000;

/// Information that one answer has room for.
const INFO_BYTES: u32 = MAILBOX_BYTES - 16;
const _: () = assert!(INFO_BYTES as usize + size_of::<ReplyHeader>() == MAILBOX_BYTES as usize);

/// A function that the process has mapped.
#[derive(Debug)]
pub(crate) struct BarLink {
    mailbox: Arc<Mailbox>,
    window: Arc<Window>,
    /// Requests of this process come one after the other.
    requests: Mutex<()>,
    slot: OnceLock<u32>,
    /// The function's life in which the session was opened: a reset, as by a driver that comes, ends it, and says so nowhere else.
    life: OnceLock<u32>,
    numbers: Mutex<Slots>,
    /// What each ring has of the window.
    rings: Mutex<HashMap<u32, Vec<Taken>>>,
    regions: Mutex<Slots>,
    looks: AtomicU32,
}

/// The function in sysfs that this process may map, if there is one.
pub(crate) fn usable(root: &Path) -> Option<PathBuf> {
    let folder = crate::function::folder(root)?;
    let may = |bar: &str| open(folder.join(bar), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).is_ok();
    (may("resource0") && may("resource1")).then_some(folder)
}

impl BarLink {
    pub(crate) fn connect(folder: &Path) -> Result<Self, OpenError> {
        let bar = |name: &str| -> Result<OwnedFd, OpenError> {
            let path = folder.join(name);
            let shown = || path.display().to_string();
            match open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => Ok(file),
                Err(Errno::NOENT) => Err(OpenError::NotFound { path: shown() }),
                Err(Errno::ACCESS | Errno::PERM) => Err(OpenError::PermissionDenied { path: shown() }),
                Err(errno) => Err(OpenError::System { what: "open of a BAR", errno }),
            }
        };
        let system = |what| move |errno| OpenError::System { what, errno };
        let mailbox = Mailbox::new(&bar("resource0")?).map_err(system("mmap of BAR0"))?;
        let window = Window::new(bar("resource1")?).map_err(system("mmap of BAR1"))?;
        if mailbox.is_gone() {
            return Err(OpenError::NotAnswering(Errno::NODEV));
        }
        Ok(Self {
            mailbox: Arc::new(mailbox),
            window,
            requests: Mutex::new(()),
            slot: OnceLock::new(),
            life: OnceLock::new(),
            numbers: Mutex::new(Slots::new(RINGS_MAX)),
            rings: Mutex::default(),
            regions: Mutex::new(Slots::new(REGIONS_MAX)),
            looks: AtomicU32::new(0),
        })
    }

    pub(crate) fn read_info(&self, offset: u32, len: u32) -> Result<Vec<u8>, ControlError> {
        let mut info = Vec::new();
        while (info.len() as u64) < u64::from(len) {
            let read =
                u32::try_from(info.len()).map_err(|_| ControlError::Protocol("endless information"))?;
            let wanted = (len - read).min(INFO_BYTES);
            let body = ReadInfo { offset: offset + read, len: wanted };
            let bytes = self.request(READ_INFO, 0, body.as_bytes(), REQUEST_LIMIT)?;
            if bytes.len() > wanted as usize {
                return Err(ControlError::Protocol("more information than was asked for"));
            }
            info.extend_from_slice(&bytes);
            if bytes.len() < wanted as usize {
                break;
            }
        }
        Ok(info)
    }

    pub(crate) fn read_regs(&self) -> Result<[u8; regs::BLOCK_BYTES as usize], ControlError> {
        let bytes = self.request(READ_REGS, 0, &[], REQUEST_LIMIT)?;
        bytes.try_into().map_err(|_| ControlError::Protocol("a register block of another size"))
    }

    pub(crate) fn open(&self, params: &OpenParams<'_>, capabilities: u32) -> Result<Opened, OpenError> {
        let system = |what| move |errno| OpenError::System { what, errno };
        let deadline = Instant::now() + OPEN_LIMIT;
        let _one = lock(&self.requests);
        let turn = self.window.turn(deadline).map_err(system("a lock on BAR1"))?;
        let life = self.mailbox.life(&turn);
        self.close_left_over(&turn, deadline);
        let free = |slot: &u32| !self.window.is_used(*slot) && self.window.take_slot(*slot).unwrap_or(false);
        let slot = (0..SESSIONS_MAX).find(free).ok_or(OpenError::refused(regs::ERROR_QUEUE_FULL, 0))?;
        let opened = self.open_slot(&turn, slot, params, deadline);
        if let Err(error) = opened {
            self.window.give_back_slot(slot);
            return Err(error);
        }
        let page = self.window.page(slot, ProtFlags::READ).map_err(system("mmap of the session page"))?;
        self.slot.set(slot).map_err(|_| OpenError::Protocol("a second session on one connection"))?;
        self.life.set(life).map_err(|_| OpenError::Protocol("a second session on one connection"))?;
        close_at_exit(Arc::clone(&self.mailbox), Arc::clone(&self.window), slot);
        Ok(Opened { page, slot, capabilities })
    }

    fn open_slot(
        &self,
        turn: &Turn<'_>,
        slot: u32,
        params: &OpenParams<'_>,
        deadline: Instant,
    ) -> Result<(), OpenError> {
        let page = self.window.page(slot, ProtFlags::READ | ProtFlags::WRITE);
        let page = page.map_err(|errno| OpenError::System { what: "mmap of the session page", errno })?;
        // SAFETY: the page just mapped, whose slot is this process's and has no session.
        unsafe { page.base().as_ptr().write_bytes(0, page.len()) };
        let env_len =
            u32::try_from(params.env.len()).map_err(|_| OpenError::Protocol("environment too long"))?;
        let open = OpenSession {
            abi_version: ABI_VERSION,
            pid: getpid().as_raw_nonzero().get().unsigned_abs(),
            fingerprint: params.fingerprint,
            page_gpa: Window::page_offset(slot),
            env_len,
            uid: getuid().as_raw(),
        };
        let body = [open.as_bytes(), params.env].concat();
        self.window.set_used(slot, true);
        match self.mailbox.request(turn, OPEN_SESSION, slot, &body, deadline) {
            Ok(_) => Ok(()),
            Err(error) => {
                // After a timeout it may be open: it is closed by whoever comes next.
                if matches!(error, ControlError::Refused { .. } | ControlError::Protocol(_)) {
                    self.window.set_used(slot, false);
                }
                Err(error.into())
            }
        }
    }

    /// Closes the sessions of processes that have ended without doing so.
    fn close_left_over(&self, turn: &Turn<'_>, deadline: Instant) {
        for slot in (0..SESSIONS_MAX).filter(|slot| self.window.is_used(*slot)) {
            if self.slot.get() == Some(&slot) || !self.window.take_slot(slot).unwrap_or(false) {
                continue;
            }
            let body = SessionRef { reserved: 0 };
            let closed = self.mailbox.request(turn, CLOSE_SESSION, slot, body.as_bytes(), deadline);
            // A refusal says that there is none.
            if matches!(closed, Ok(_) | Err(ControlError::Refused { error: regs::ERROR_INVALID_REQUEST, .. }))
            {
                self.window.set_used(slot, false);
            }
            self.window.give_back_slot(slot);
        }
    }

    pub(crate) fn create_ring(&self) -> Result<(u32, Mapping), ControlError> {
        let ring = lock(&self.numbers).take().ok_or(ControlError::Exhausted)?;
        let part = self.add_part(ring, PART_RING, RING_BYTES as usize);
        if part.is_err() {
            lock(&self.numbers).give_back(ring);
        }
        Ok((ring, part?))
    }

    pub(crate) fn add_staging(&self, ring: u32, len: usize) -> Result<Mapping, ControlError> {
        self.add_part(ring, PART_STAGING, len)
    }

    fn add_part(&self, ring: u32, part: u32, len: usize) -> Result<Mapping, ControlError> {
        let taken = self.take(len)?;
        let mapping =
            taken.map(None).map_err(|errno| ControlError::System { what: "mmap of BAR1", errno })?;
        let len = len as u64;
        let head = AddRingPart { ring, part, len, run_count: 1, reserved: 0 };
        let run = Run { gpa: taken.offset(), len };
        let body = [head.as_bytes(), run.as_bytes()].concat();
        let added = self.request(ADD_RING_PART, self.slot()?, &body, REQUEST_LIMIT);
        if !matches!(added, Err(ControlError::Refused { .. })) {
            // The worker has it, or may have.
            lock(&self.rings).entry(ring).or_default().push(taken);
        }
        added.map(|_| mapping)
    }

    /// Gives a ring back; its number and memory are used again only if the daemon confirmed.
    pub(crate) fn remove_ring(&self, ring: u32) -> Result<(), ControlError> {
        let body = RingRef { ring, reserved: 0 };
        self.request(REMOVE_RING, self.slot()?, body.as_bytes(), GIVE_BACK_LIMIT)?;
        lock(&self.rings).remove(&ring);
        lock(&self.numbers).give_back(ring);
        Ok(())
    }

    /// Takes part of the window.
    pub(crate) fn take(&self, len: usize) -> Result<Taken, ControlError> {
        let system =
            |errno| ControlError::System { what: "BAR1, which has too little room (--bar1-size)", errno };
        let deadline = Instant::now() + REQUEST_LIMIT;
        let _one = lock(&self.requests);
        let turn = self.window.turn(deadline).map_err(system)?;
        // What others have left is free only once nobody on the host uses it.
        self.close_left_over(&turn, deadline);
        turn.take(&self.window, len).map_err(system)
    }

    /// Maps `len` bytes at `offset` of the window that lie at `va` here.
    pub(crate) fn map_region(&self, offset: u64, va: u64, len: u64, flags: u32) -> Result<u32, ControlError> {
        let region = lock(&self.regions).take().ok_or(ControlError::Exhausted)?;
        let head = MapRegion { region, flags, va, len, run_count: 1, reserved: 0 };
        let body = [head.as_bytes(), Run { gpa: offset, len }.as_bytes()].concat();
        let answer = self.slot().and_then(|slot| self.request(MAP_REGION, slot, &body, REQUEST_LIMIT));
        // After a timeout it may be mapped: the number is lost rather than used twice.
        if matches!(answer, Err(ControlError::Refused { .. })) {
            lock(&self.regions).give_back(region);
        }
        answer.map(|_| region)
    }

    pub(crate) fn unmap_region(&self, region: u32) -> Result<(), ControlError> {
        let body = RegionRef { region, reserved: 0 };
        self.request(UNMAP_REGION, self.slot()?, body.as_bytes(), REQUEST_LIMIT)?;
        lock(&self.regions).give_back(region);
        Ok(())
    }

    pub(crate) fn close(&self) -> Result<(), ControlError> {
        let (slot, body) = (self.slot()?, SessionRef { reserved: 0 });
        self.request(CLOSE_SESSION, slot, body.as_bytes(), REQUEST_LIMIT)?;
        self.window.set_used(slot, false);
        Ok(())
    }

    pub(crate) fn kick(&self) -> io::Result<()> {
        self.mailbox.kick(*self.slot.get().ok_or(Errno::NOTCONN)?);
        Ok(())
    }

    /// Sleeps for a moment. EPIPE if the daemon is gone.
    pub(crate) fn sleep(&self) -> io::Result<()> {
        thread::sleep(LOOK_PAUSE);
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let over =
            looks % LOOKS == LOOKS - 1 && self.life.get().is_some_and(|life| self.mailbox.is_over(*life));
        if over { Err(Errno::PIPE) } else { Ok(()) }
    }

    fn slot(&self) -> Result<u32, ControlError> {
        self.slot.get().copied().ok_or(ControlError::Protocol("no session is open"))
    }

    fn request(
        &self,
        kind: u32,
        session: u32,
        body: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, ControlError> {
        let deadline = Instant::now() + limit;
        let _one = lock(&self.requests);
        let turn = self.window.turn(deadline).map_err(|errno| match errno {
            Errno::TIMEDOUT => ControlError::Timeout,
            errno => ControlError::System { what: "a lock on BAR1", errno },
        })?;
        self.mailbox.request(&turn, kind, session, body, deadline)
    }
}

impl Drop for BarLink {
    /// The session ends with the connection, as that of a socket does.
    fn drop(&mut self) {
        if let Some(slot) = self.slot.get() {
            close(&self.mailbox, &self.window, *slot);
        }
    }
}

/// Closes a session that is over here. What fails is left to whoever comes next.
fn close(mailbox: &Mailbox, window: &Window, slot: u32) {
    if crate::is_forked_child() || !window.is_used(slot) {
        return;
    }
    let deadline = Instant::now() + GIVE_BACK_LIMIT;
    let body = SessionRef { reserved: 0 };
    if let Ok(turn) = window.turn(deadline)
        && mailbox.request(&turn, CLOSE_SESSION, slot, body.as_bytes(), deadline).is_ok()
    {
        window.set_used(slot, false);
    }
}

/// A session that is to be closed when the process ends.
type AtExit = (Arc<Mailbox>, Arc<Window>, u32);
static AT_EXIT: Mutex<Vec<AtExit>> = Mutex::new(Vec::new());

/// Nobody sees a process end but itself: a driver and a socket would, loads and stores do not. One that is killed leaves its session to
/// whoever comes next.
fn close_at_exit(mailbox: Arc<Mailbox>, window: Arc<Window>, slot: u32) {
    extern "C" fn close_all() {
        // Who holds the lock at this moment may never run again.
        if let Ok(sessions) = AT_EXIT.try_lock() {
            sessions.iter().for_each(|(mailbox, window, slot)| close(mailbox, window, *slot));
        }
    }
    let mut sessions = lock(&AT_EXIT);
    if sessions.is_empty() {
        // SAFETY: a function without arguments that does not unwind and stays as long as this library is loaded. An error leaves the
        // session to whoever comes next.
        let _ = unsafe { libc::atexit(close_all) };
    }
    sessions.push((mailbox, window, slot));
}

/// The lock, whoever panicked holding it: the data is whole between any two statements that matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
