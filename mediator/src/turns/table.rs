//! The file through which the daemons of a host agree on who uses a GPU when: one for each GPU, in the state folder, mapped by daemons
//! only. There is no process whose end would stop the others.
//!
//! | what | how |
//! |---|---|
//! | one at a time changes it | `flock` on the file: the kernel lets go when its holder dies; who does not get it in time does without |
//! | who is alive | each daemon holds a `flock` on a FIFO of its own (`NAME.SLOT`) for as long as it lives |
//! | waking another daemon | a byte into that FIFO |
//! | a daemon that ends in its turn | the others see it soon ([`SILENT_NS`]), and another VM has its turn |
//! | a daemon that is stopped in its turn | the turn's lease expires ([`LEASE_NS`]), and another VM has its turn |

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::policy::Tenant;
use crate::atomics::{self, Atomics};

/// VMs that share a GPU, at most.
pub(crate) const SLOTS_MAX: usize = 64;
/// A holder that has not been heard of for so long has lost its turn.
pub(crate) const LEASE_NS: u64 = 500_000_000;
/// With a holder that is silent for so long it is looked whether it has ended.
const SILENT_NS: u64 = 20_000_000;
/// How long somebody else may have the lock; nobody needs it for more than microseconds.
const LOCK_LIMIT: Duration = Duration::from_millis(20);
/// The file's first word: what it is and how it is laid out.
const MAGIC: u64 = u64::from_le_bytes(*b"vgpuTRN1");

#[repr(C, align(64))]
struct Slot {
    /// 1: a daemon has it.
    taken: AtomicU32,
    vm_id: AtomicU32,
    weight: AtomicU32,
    priority: AtomicU32,
    /// 1: the VM wants the device.
    wants: AtomicU32,
    reserved: AtomicU32,
    virtual_ns: AtomicU64,
    waiting_since_ns: AtomicU64,
    /// Device time that the VM has had in turns.
    used_ns: AtomicU64,
}

#[repr(C, align(4096))]
struct Layout {
    magic: AtomicU64,
    /// Turns are given out until then; after that, everybody is free.
    contended_until_ns: AtomicU64,
    /// The virtual time of whoever had its turn last.
    clock_ns: AtomicU64,
    /// When the holder was heard of.
    heard_ns: AtomicU64,
    /// Whose turn it is: slot + 1, or 0.
    holder: AtomicU32,
    reserved: AtomicU32,
    slots: [Slot; SLOTS_MAX],
}

// SAFETY: atomics only, aligned as a page is.
unsafe impl atomics::Layout for Layout {
    const NAME: &'static str = "turns of a GPU";
}

/// This daemon's place in a GPU's table.
pub(crate) struct Table {
    page: Atomics<Layout>,
    file: OwnedFd,
    fifo: OwnedFd,
    folder: PathBuf,
    name: String,
    slot: u32,
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn fifo_path(folder: &Path, name: &str, slot: u32) -> PathBuf {
    folder.join(format!("{name}.{slot}"))
}

/// Another description of a slot's FIFO, if it exists.
fn open_fifo(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn is_locked(file: impl AsFd) -> bool {
    let attempt = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    if attempt.is_ok() {
        // Ours was for the question only; closing the description lets go of it as well.
        let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
    }
    attempt.is_err()
}

impl Table {
    /// Takes a place in the table of the GPU called `name`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be used, the file is of another version, or all places are taken.
    pub(crate) fn join(folder: &Path, name: &str, vm_id: u32) -> Result<Self> {
        let path = folder.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        if !lock_within(&file, LOCK_LIMIT.saturating_mul(50)) {
            return Err(Error::new(ErrorKind::TimedOut, "its lock is held"));
        }
        let _unlock = Unlock(file.as_fd());
        let size = size_of::<Layout>() as u64;
        if rustix::fs::fstat(&file)?.st_size.unsigned_abs() < size {
            rustix::fs::ftruncate(&file, size)?;
        }
        let page = Atomics::<Layout>::map(&file)?;
        match page.magic.load(Ordering::Relaxed) {
            0 => page.magic.store(MAGIC, Ordering::Relaxed),
            MAGIC => {}
            _ => return Err(Error::new(ErrorKind::InvalidData, "it is of another version of this program")),
        }
        for (at, slot) in page.slots.iter().enumerate() {
            let at = number(at);
            let path = fifo_path(folder, name, at);
            if slot.taken.load(Ordering::Relaxed) != 0 && open_fifo(&path).is_ok_and(is_locked) {
                continue;
            }
            let fifo = take_fifo(&path)?;
            for word in [&slot.wants, &slot.weight, &slot.priority] {
                word.store(0, Ordering::Relaxed);
            }
            slot.virtual_ns.store(page.clock_ns.load(Ordering::Relaxed), Ordering::Relaxed);
            slot.used_ns.store(0, Ordering::Relaxed);
            slot.vm_id.store(vm_id, Ordering::Relaxed);
            if page.holder.load(Ordering::Relaxed) == at.wrapping_add(1) {
                page.holder.store(0, Ordering::Relaxed);
            }
            slot.taken.store(1, Ordering::Relaxed);
            drop(_unlock);
            return Ok(Self { page, file, fifo, folder: folder.to_owned(), name: name.to_owned(), slot: at });
        }
        Err(Error::new(ErrorKind::QuotaExceeded, format!("{SLOTS_MAX} VMs share it already")))
    }

    /// Readable when another daemon has woken this one.
    pub(crate) fn woken(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }

    /// Takes back what has woken this daemon.
    pub(crate) fn clear(&self) {
        while matches!(rustix::io::read(&self.fifo, &mut [0; 64]), Ok(1..)) {}
    }

    /// The table, to be changed. None: somebody keeps the lock.
    pub(crate) fn lock(&self) -> Option<Locked<'_>> {
        lock_within(&self.file, LOCK_LIMIT)
            .then(|| Locked { table: self, _unlock: Unlock(self.file.as_fd()) })
    }

    /// Wakes another daemon's turn thread; one that is gone is not woken.
    fn wake(&self, slot: u32) {
        if let Ok(fifo) = open_fifo(&fifo_path(&self.folder, &self.name, slot)) {
            // Full is as good: it has been woken.
            let _ = rustix::io::write(&fifo, &[1]);
        }
    }

    fn is_alive(&self, slot: u32) -> bool {
        slot == self.slot || open_fifo(&fifo_path(&self.folder, &self.name, slot)).is_ok_and(is_locked)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(mut table) = self.lock() {
            table.leave();
        }
        // Left behind, it would only be in the way of nobody: the next one in this slot takes it over.
        let _ = rustix::fs::unlink(fifo_path(&self.folder, &self.name, self.slot));
    }
}

/// The slot's FIFO, held for as long as this process lives.
fn take_fifo(path: &Path) -> Result<OwnedFd> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?;
    let fifo = open_fifo(path)?;
    rustix::fs::flock(&fifo, FlockOperation::NonBlockingLockExclusive)?;
    Ok(fifo)
}

fn lock_within(file: impl AsFd, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return true,
            Err(_) if start.elapsed() >= limit => return false,
            Err(_) => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}

struct Unlock<'a>(BorrowedFd<'a>);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(self.0, FlockOperation::Unlock) {
            log::error!("the lock of a GPU's turns is not released: {error}");
        }
    }
}

/// The table while this daemon alone changes it.
pub(crate) struct Locked<'a> {
    table: &'a Table,
    _unlock: Unlock<'a>,
}

impl Locked<'_> {
    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.table.page.slots.get(slot as usize)
    }

    fn tenant_of(&self, at: u32) -> Tenant {
        let Some(slot) = self.slot(at) else { return Tenant::default() };
        Tenant {
            slot: at,
            weight: slot.weight.load(Ordering::Relaxed).max(1),
            priority: slot.priority.load(Ordering::Relaxed),
            virtual_ns: slot.virtual_ns.load(Ordering::Relaxed),
            waiting_since_ns: slot.waiting_since_ns.load(Ordering::Relaxed),
        }
    }

    /// This VM.
    pub(crate) fn me(&self) -> Tenant {
        self.tenant_of(self.table.slot)
    }

    /// Enters what this VM is and whether it wants the device. True: it wants it and has not until now.
    pub(crate) fn enter(&mut self, tenant: Tenant, wants: bool) -> bool {
        let Some(slot) = self.slot(self.table.slot) else { return false };
        slot.weight.store(tenant.weight, Ordering::Relaxed);
        slot.priority.store(tenant.priority, Ordering::Relaxed);
        slot.virtual_ns.store(tenant.virtual_ns, Ordering::Relaxed);
        slot.waiting_since_ns.store(tenant.waiting_since_ns, Ordering::Relaxed);
        slot.wants.swap(u32::from(wants), Ordering::Relaxed) == 0 && wants
    }

    /// This VM has had the device for so long, and has come to this virtual time.
    pub(crate) fn pay(&mut self, virtual_ns: u64, had_ns: u64) {
        if let Some(slot) = self.slot(self.table.slot) {
            slot.virtual_ns.store(virtual_ns, Ordering::Relaxed);
            slot.used_ns.fetch_add(had_ns, Ordering::Relaxed);
        }
    }

    /// The other VMs that want the device.
    pub(crate) fn wanting(&self) -> Vec<Tenant> {
        let wants = |at: &u32| {
            *at != self.table.slot
                && self.slot(*at).is_some_and(|slot| {
                    slot.taken.load(Ordering::Relaxed) != 0 && slot.wants.load(Ordering::Relaxed) != 0
                })
        };
        (0..number(SLOTS_MAX)).filter(wants).map(|at| self.tenant_of(at)).collect()
    }

    /// The highest priority of the VMs that share the device, whether they want it now or not.
    pub(crate) fn highest_priority(&self) -> u32 {
        let taken = self.table.page.slots.iter().filter(|slot| slot.taken.load(Ordering::Relaxed) != 0);
        taken.map(|slot| slot.priority.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// Until when turns are given out.
    pub(crate) fn contended_until(&self) -> u64 {
        self.table.page.contended_until_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn set_contended_until(&mut self, ns: u64) {
        self.table.page.contended_until_ns.store(ns, Ordering::Relaxed);
    }

    /// The virtual time of whoever had its turn last.
    pub(crate) fn clock(&self) -> u64 {
        self.table.page.clock_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn advance_clock(&mut self, to: u64) {
        self.table.page.clock_ns.fetch_max(to, Ordering::Relaxed);
    }

    /// The slot whose turn it is.
    pub(crate) fn holder(&self) -> Option<u32> {
        self.table.page.holder.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(crate) fn is_mine(&self) -> bool {
        self.holder() == Some(self.table.slot)
    }

    /// Gives the turn to a slot, or to nobody.
    pub(crate) fn set_holder(&mut self, slot: Option<u32>, now: u64) {
        let word = slot.map_or(0, |slot| slot.wrapping_add(1));
        self.table.page.holder.store(word, Ordering::Relaxed);
        self.hear(now);
    }

    /// The holder is alive.
    pub(crate) fn hear(&mut self, now: u64) {
        self.table.page.heard_ns.store(now, Ordering::Relaxed);
    }

    /// This VM, if it is the holder, is alive.
    pub(crate) fn hear_if_mine(&mut self, now: u64) {
        if self.is_mine() {
            self.hear(now);
        }
    }

    /// Takes the turn from a holder that is not heard of any more. True: it had it.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let Some(holder) = self.holder() else { return false };
        let heard = self.table.page.heard_ns.load(Ordering::Relaxed);
        let silent = now.saturating_sub(heard);
        if holder == self.table.slot || silent < SILENT_NS {
            return false;
        }
        if self.forget_if_dead(holder) {
            log::warn!("a daemon has ended in its turn: the turn goes on to the next VM");
        } else if silent < LEASE_NS {
            return false;
        } else {
            log::warn!("a daemon does nothing in its turn: the turn goes on to the next VM");
            // It says so again when it goes on; until then it would only be given the next turn as well.
            if let Some(slot) = self.slot(holder) {
                slot.wants.store(0, Ordering::Relaxed);
            }
        }
        self.set_holder(None, now);
        true
    }

    /// Frees the slot of a daemon that is gone.
    pub(crate) fn forget_if_dead(&mut self, at: u32) -> bool {
        let dead = !self.table.is_alive(at);
        if dead && let Some(slot) = self.slot(at) {
            slot.wants.store(0, Ordering::Relaxed);
            slot.taken.store(0, Ordering::Relaxed);
        }
        dead
    }

    /// Wakes one other daemon.
    pub(crate) fn wake(&self, slot: u32) {
        if slot != self.table.slot {
            self.table.wake(slot);
        }
    }

    /// Wakes all others.
    pub(crate) fn wake_all(&self) {
        for (at, slot) in self.table.page.slots.iter().enumerate() {
            if slot.taken.load(Ordering::Relaxed) != 0 {
                self.wake(number(at));
            }
        }
    }

    fn leave(&mut self) {
        if let Some(slot) = self.slot(self.table.slot) {
            slot.wants.store(0, Ordering::Relaxed);
            slot.taken.store(0, Ordering::Relaxed);
        }
        if self.is_mine() {
            self.table.page.holder.store(0, Ordering::Relaxed);
            self.wake_all();
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)] // a test's
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn daemons_find_each_other_and_leave_nothing() {
        let dir = folder();
        let (one, two) = (
            Table::join(dir.path(), "gpu", 1).expect("joined"),
            Table::join(dir.path(), "gpu", 2).expect("joined"),
        );
        assert_ne!(one.slot, two.slot);
        let mine = Tenant { weight: 7, priority: 2, virtual_ns: 5, waiting_since_ns: 9, ..Tenant::default() };
        assert!(one.lock().expect("free").enter(mine, true));
        assert!(!one.lock().expect("free").enter(mine, true), "it wanted it before");
        assert_eq!(two.lock().expect("free").wanting(), [Tenant { slot: one.slot, ..mine }]);
        two.lock().expect("free").wake_all();
        let mut byte = [0];
        assert_eq!(rustix::io::read(one.woken(), &mut byte), Ok(1));
        assert!(rustix::io::read(two.woken(), &mut byte).is_err(), "nobody wakes itself");
        one.lock().expect("free").set_holder(Some(one.slot), 3);
        drop(one);
        let locked = two.lock().expect("free");
        assert_eq!((locked.holder(), locked.wanting().len()), (None, 0));
        drop(locked);
        drop(two);
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("readable").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_holder_that_lives_and_does_nothing_has_its_lease() {
        let dir = folder();
        let one = Table::join(dir.path(), "gpu", 1).expect("joined");
        let two = Table::join(dir.path(), "gpu", 2).expect("joined");
        {
            let mut table = one.lock().expect("free");
            table.enter(Tenant { weight: 1, ..Tenant::default() }, true);
            table.set_holder(Some(one.slot), 1000);
        }
        let mut table = two.lock().expect("free");
        assert!(!table.expire(1000 + LEASE_NS - 1));
        assert_eq!(table.holder(), Some(one.slot));
        assert!(table.expire(1000 + LEASE_NS));
        assert_eq!((table.holder(), table.wanting().len()), (None, 0));
    }

    #[test]
    fn a_dead_holder_s_turn_and_place_go_on() {
        let dir = folder();
        let mut one = Table::join(dir.path(), "gpu", 1).expect("joined");
        let two = Table::join(dir.path(), "gpu", 2).expect("joined");
        let dead = one.slot;
        {
            let mut table = one.lock().expect("free");
            table.enter(Tenant { weight: 1, ..Tenant::default() }, true);
            table.set_holder(Some(dead), 1000);
        }
        // As if its process had ended: its descriptors are closed, and nobody tidies up.
        one.fifo = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).expect("a file");
        let mut table = two.lock().expect("free");
        assert!(!table.expire(1000 + SILENT_NS - 1));
        assert!(table.expire(1000 + SILENT_NS));
        assert_eq!((table.holder(), table.wanting().len()), (None, 0));
        drop(table);
        let three = Table::join(dir.path(), "gpu", 3).expect("joined");
        assert_eq!(three.slot, dead);
        std::mem::forget(one);
    }

    #[test]
    fn a_lock_that_is_kept_is_not_waited_for_and_another_version_is_refused() {
        let dir = folder();
        let one = Table::join(dir.path(), "gpu", 1).expect("joined");
        let two = Table::join(dir.path(), "gpu", 2).expect("joined");
        let held = one.lock().expect("free");
        assert!(two.lock().is_none());
        drop(held);
        assert!(two.lock().is_some());
        one.page.magic.store(1, Ordering::Relaxed);
        assert!(Table::join(dir.path(), "gpu", 3).is_err());
    }
}
