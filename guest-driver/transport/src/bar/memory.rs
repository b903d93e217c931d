//! The data window (BAR1) as processes share it, and the locks by which they do.
//!
//! Nobody in the guest arbitrates: the locks are the kernel's, of open file descriptions (`F_OFD_SETLK`), on ranges of the window's file in
//! sysfs. They end with the process, whatever becomes of it. A lock on bytes of the window is their possession; beyond its end lie a lock
//! for each session slot and the one for the mailbox.

use core::time::Duration;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use pci_layout::control::SESSIONS_MAX;
use pci_layout::ring::SESSION_PAGE_BYTES;
use rustix::io::{self, Errno};
use rustix::mm::ProtFlags;

use crate::mapping::Mapping;

/// The session pages, by slot, lie at the window's start.
const PAGES_BYTES: u64 = SESSIONS_MAX as u64 * SESSION_PAGE_BYTES as u64;
/// Then a byte for each slot: not 0 from before a session is opened until it is known to be closed.
const USED_BYTES: usize = 4096;
/// Where what processes take begins.
const FIRST: u64 = PAGES_BYTES + USED_BYTES as u64;
/// What is taken are multiples of this.
const GRAIN: u64 = 4096;

/// Where in the file's range of offsets the locks are that are no bytes of the window.
const MAILBOX_LOCK: u64 = 1 << 60;
const SLOT_LOCKS: u64 = 1 << 61;
/// Pause between two looks at a lock that somebody has.
const LOCK_PAUSE: Duration = Duration::from_micros(100);

/// The window of one connection.
#[derive(Debug)]
pub(super) struct Window {
    file: OwnedFd,
    bytes: u64,
    used: Mapping,
    /// What this connection has: its own locks do not keep it from itself. By offset, the length.
    taken: Mutex<BTreeMap<u64, u64>>,
}

/// A part of the window that is this process's; given back when dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    window: Arc<Window>,
    offset: u64,
    len: u64,
}

/// Whoever holds it sends the mailbox's next request, and is the only one that takes from the window.
pub(super) struct Turn<'a>(&'a Window);

impl Window {
    pub(super) fn new(file: OwnedFd) -> io::Result<Arc<Self>> {
        let bytes = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        if bytes <= FIRST {
            return Err(Errno::NODEV);
        }
        let used = Mapping::new(&file, PAGES_BYTES, USED_BYTES, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Arc::new(Self { file, bytes, used, taken: Mutex::default() }))
    }

    /// Waits for the turn, until a time.
    pub(super) fn turn(&self, deadline: Instant) -> io::Result<Turn<'_>> {
        loop {
            if self.lock(MAILBOX_LOCK, 1)? {
                return Ok(Turn(self));
            }
            if Instant::now() >= deadline {
                return Err(Errno::TIMEDOUT);
            }
            thread::sleep(LOCK_PAUSE);
        }
    }

    /// The session page of a slot.
    pub(super) fn page(&self, slot: u32, prot: ProtFlags) -> io::Result<Mapping> {
        Mapping::new(&self.file, Self::page_offset(slot), SESSION_PAGE_BYTES as usize, prot)
    }

    /// Where it is in the window.
    pub(super) fn page_offset(slot: u32) -> u64 {
        u64::from(slot) * u64::from(SESSION_PAGE_BYTES)
    }

    /// Takes possession of a slot, for as long as this connection lasts; false if another process has it.
    pub(super) fn take_slot(&self, slot: u32) -> io::Result<bool> {
        self.lock(SLOT_LOCKS + u64::from(slot), 1)
    }

    /// Gives it back.
    pub(super) fn give_back_slot(&self, slot: u32) {
        self.unlock(SLOT_LOCKS + u64::from(slot), 1);
    }

    /// Whether a session of this slot may be open.
    pub(super) fn is_used(&self, slot: u32) -> bool {
        // SAFETY: inside the mapping, which has a byte for each slot; other processes write it as well, atomically.
        unsafe { self.used.base().as_ptr().add(slot as usize).read_volatile() != 0 }
    }

    pub(super) fn set_used(&self, slot: u32, used: bool) {
        // SAFETY: as for `is_used`.
        unsafe { self.used.base().as_ptr().add(slot as usize).write_volatile(used.into()) }
    }

    fn lock(&self, start: u64, len: u64) -> io::Result<bool> {
        match self.fcntl(libc::F_OFD_SETLK, libc::F_WRLCK, start, len) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn unlock(&self, start: u64, len: u64) {
        // An error leaves the lock with us until the end.
        let _ = self.fcntl(libc::F_OFD_SETLK, libc::F_UNLCK, start, len);
    }

    /// The end of the first lock of somebody else's in a range.
    fn conflict(&self, start: u64, len: u64) -> io::Result<Option<u64>> {
        let found = self.fcntl(libc::F_OFD_GETLK, libc::F_WRLCK, start, len)?;
        if i32::from(found.l_type) == libc::F_UNLCK {
            return Ok(None);
        }
        let end = u64::try_from(found.l_start.saturating_add(found.l_len)).unwrap_or(u64::MAX);
        Ok(Some(if found.l_len == 0 { u64::MAX } else { end }))
    }

    fn fcntl(&self, command: i32, kind: i32, start: u64, len: u64) -> io::Result<libc::flock> {
        let offset = |number: u64| libc::off_t::try_from(number).map_err(|_| Errno::OVERFLOW);
        // SAFETY: plain numbers, for which zeros are values.
        let mut lock: libc::flock = unsafe { core::mem::zeroed() };
        let short = |number: i32| libc::c_short::try_from(number).map_err(|_| Errno::INVAL);
        (lock.l_type, lock.l_whence) = (short(kind)?, short(libc::SEEK_SET)?);
        (lock.l_start, lock.l_len) = (offset(start)?, offset(len)?);
        // SAFETY: the command takes a flock, which the kernel reads and, for F_OFD_GETLK, writes.
        if unsafe { libc::fcntl(self.file.as_raw_fd(), command, &raw mut lock) } == 0 {
            return Ok(lock);
        }
        Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    }
}

impl Turn<'_> {
    /// Takes `len` bytes of the window. ENOMEM if so many are not free in one piece.
    pub(super) fn take(&self, window: &Arc<Window>, len: usize) -> io::Result<Taken> {
        let len = (len as u64).next_multiple_of(GRAIN);
        let mut taken = window.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offset = FIRST;
        loop {
            let end = offset.checked_add(len).filter(|end| *end <= window.bytes).ok_or(Errno::NOMEM)?;
            let own =
                taken.range(..end).next_back().map(|(start, len)| start + len).filter(|own| *own > offset);
            let next = match own {
                Some(own) => Some(own),
                None => window.conflict(offset, len)?.map(|end| end.next_multiple_of(GRAIN)),
            };
            match next {
                Some(next) => offset = next,
                None if window.lock(offset, len)? => break,
                // Only who has the turn takes: this is not another taker's.
                None => return Err(Errno::AGAIN),
            }
        }
        taken.insert(offset, len);
        Ok(Taken { window: Arc::clone(window), offset, len })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.unlock(MAILBOX_LOCK, 1);
    }
}

impl Taken {
    /// Where in the window it is.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Maps it, zeroed: at `va` if that is given, else where the kernel likes.
    pub(crate) fn map(&self, va: Option<usize>) -> io::Result<Mapping> {
        let len = usize::try_from(self.len).map_err(|_| Errno::NOMEM)?;
        let file = &self.window.file;
        let mapping = match va {
            Some(va) => Mapping::new_at(va, file, self.offset, len)?,
            None => Mapping::new(file, self.offset, len, ProtFlags::READ | ProtFlags::WRITE)?,
        };
        // SAFETY: the mapping just made; what it shows is this process's alone.
        unsafe { mapping.base().as_ptr().write_bytes(0, len) };
        Ok(mapping)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.window.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.offset);
        self.window.unlock(self.offset, self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// Two processes' windows, on one file.
    fn two() -> (tempfile::NamedTempFile, Arc<Window>, Arc<Window>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FIRST + (1 << 20)).unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (one, two) = (Window::new(open().into()).unwrap(), Window::new(open().into()).unwrap());
        (file, one, two)
    }

    fn take(window: &Arc<Window>, len: usize) -> io::Result<Taken> {
        window.turn(Instant::now())?.take(window, len)
    }

    #[test]
    fn nobody_has_what_another_has() {
        let (_file, one, two) = two();
        let (a, b) = (take(&one, 100).unwrap(), take(&two, 8192).unwrap());
        let c = take(&one, 4096).unwrap();
        assert_eq!([a.offset(), b.offset(), c.offset()], [FIRST, FIRST + 4096, FIRST + 3 * 4096]);
        assert_eq!(take(&two, 1 << 20).unwrap_err(), Errno::NOMEM);
        drop(b);
        assert_eq!(take(&one, 8192).unwrap().offset(), FIRST + 4096);
        drop(one);
        drop((a, c));
        assert_eq!(take(&two, 1 << 20).unwrap().offset(), FIRST, "what a process had that has gone");
    }

    #[test]
    fn the_turn_and_slots_are_one_process_s() {
        let (_file, one, two) = two();
        let turn = one.turn(Instant::now()).unwrap();
        assert_eq!(two.turn(Instant::now()).err(), Some(Errno::TIMEDOUT));
        drop(turn);
        assert!(two.turn(Instant::now()).is_ok());
        assert!(one.take_slot(3).unwrap() && !two.take_slot(3).unwrap() && two.take_slot(4).unwrap());
        one.set_used(3, true);
        assert!(two.is_used(3) && !two.is_used(4));
        drop(one);
        assert!(two.take_slot(3).unwrap());
    }

    #[test]
    fn what_is_taken_again_is_zeroed() {
        let (_file, one, _) = two();
        let first = take(&one, 4096).unwrap();
        let mapping = first.map(None).unwrap();
        // SAFETY: the mapping's own first byte.
        unsafe { mapping.base().as_ptr().write(7) };
        drop((mapping, first));
        let again = take(&one, 4096).unwrap().map(None).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { again.base().as_ptr().read() }, 0);
    }
}
