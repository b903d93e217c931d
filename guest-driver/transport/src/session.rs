//! The session: one guest process, one worker.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use pci_layout::PAGE_BYTES;
use pci_layout::event::DEATH_SHUTDOWN;
use pci_layout::regs;
use rustix::io::Errno;
use vgpu_ring::{SessionPageMemory, SessionState};

use crate::areas::{AreaError, Areas};
use crate::device::{Device, Kind, Link};
use crate::error::{CallError, ControlError, OpenError};
use crate::fork::is_forked_child;
use crate::mapping::Mapping;
use crate::ring::Ring;

/// What libcuda says about itself when it opens a session.
#[derive(Debug, Clone, Copy)]
pub struct OpenParams<'a> {
    /// The call table's fingerprint. The host's must be the same.
    pub fingerprint: [u8; 16],
    /// NUL-terminated `NAME=value` strings for the worker, which takes an allowlist of them. At most
    /// [`ENV_BYTES_MAX`](pci_layout::control::ENV_BYTES_MAX) bytes.
    pub env: &'a [u8],
}

/// What opening brought.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) page: Mapping,
    pub(crate) slot: u32,
    pub(crate) capabilities: u32,
}

/// User memory that is mapped in the worker at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub(crate) number: u32,
    /// First address.
    pub va: usize,
    /// Length in bytes.
    pub len: usize,
}

/// An open session. Clones are the same session, which ends when the last one and the last [`Ring`] are dropped.
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) link: Link,
    pub(crate) page: SessionPageMemory,
    slot: u32,
    capabilities: u32,
    tickets: AtomicU64,
    areas: Areas,
    /// The other side has vanished without a word: the page, which is read-only here, will never say so.
    vanished: AtomicBool,
}

impl Session {
    /// Opens the device that the environment names, and the process's session: see [`Device::open`] and
    /// [`Device::open_session`].
    ///
    /// # Errors
    ///
    /// All of [`OpenError`].
    pub fn open(params: &OpenParams<'_>) -> Result<Self, OpenError> {
        Device::open()?.open_session(params)
    }

    pub(crate) fn new(link: Link, opened: Opened) -> Self {
        let Opened { page, slot, capabilities } = opened;
        let base = page.base();
        // SAFETY: a page mapped by `page`, which the memory keeps; this process only reads it.
        let page = unsafe { SessionPageMemory::with_owner(base, Arc::new(page)) };
        let areas = Areas::new(link.kind());
        let vanished = AtomicBool::new(false);
        Self {
            inner: Arc::new(Inner {
                link,
                page,
                slot,
                capabilities,
                tickets: AtomicU64::new(0),
                areas,
                vanished,
            }),
        }
    }

    /// The session's state, by plain loads. A forked child, which has no session, reads `Dead(0)`.
    #[inline]
    pub fn state(&self) -> SessionState {
        if is_forked_child() { SessionState::Dead(0) } else { self.inner.state() }
    }

    /// Errors of posted calls so far, over all rings. A forked child reads 0.
    pub fn posted_errors(&self) -> u64 {
        if is_forked_child() { 0 } else { self.inner.page.posted_errors() }
    }

    /// Bytes that kernels have printed so far. A forked child reads 0.
    #[inline]
    pub fn printed_bytes(&self) -> u64 {
        if is_forked_child() { 0 } else { self.inner.page.printed_bytes() }
    }

    /// How the host is reached.
    pub fn kind(&self) -> Kind {
        self.inner.link.kind()
    }

    /// The session's slot, for logs.
    pub fn slot(&self) -> u32 {
        self.inner.slot
    }

    /// The `CAP_` bits of the register block.
    pub fn capabilities(&self) -> u32 {
        self.inner.capabilities
    }

    /// The next order number, from 1. Take it last, right before the frame that it is for: a ring's tickets must rise,
    /// and a thread that holds one back holds back nobody only as long as its call has not returned.
    #[inline]
    pub fn next_ticket(&self) -> u64 {
        self.inner.tickets.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// The order number that was taken last.
    #[inline]
    pub fn last_ticket(&self) -> u64 {
        self.inner.tickets.load(Ordering::Acquire)
    }

    /// A completion word does not tell of what kernels have printed. True in a forked child.
    #[inline]
    pub fn may_print(&self) -> bool {
        is_forked_child() || self.inner.page.may_print()
    }

    /// The device and VM information, as [`Device::info`].
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or this is a forked child.
    pub fn device_info(&self) -> Result<Vec<u8>, ControlError> {
        self.inner.link.info()
    }

    /// The register block.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or this is a forked child.
    pub fn read_regs(&self) -> Result<[u8; regs::BLOCK_BYTES as usize], ControlError> {
        self.inner.link.regs()
    }

    /// Makes a ring for the calling thread.
    ///
    /// # Errors
    ///
    /// The session is over, has all the rings it may have, or this is a forked child.
    pub fn create_ring(&self) -> Result<Ring, ControlError> {
        self.inner.check()?;
        let (index, mapping) = match &self.inner.link {
            Link::Vm(link) => link.create_ring(),
            Link::Local(link) => link.create_ring(),
            Link::Bar(link) => link.create_ring(),
        }
        .map_err(|error| self.inner.told(error))?;
        Ok(Ring::new(Arc::clone(&self.inner), index, mapping))
    }

    /// Maps user memory in the worker at the same address; `flags` are `MAP_` bits of the control module. Range and
    /// length are multiples of the page size.
    ///
    /// # Errors
    ///
    /// In the local and the driverless transport [`ControlError::NotShareable`] for memory not made by [`Session::alloc_shared`].
    pub fn map_region(&self, va: usize, len: usize, flags: u32) -> Result<Region, ControlError> {
        self.inner.check()?;
        let number = match &self.inner.link {
            Link::Vm(link) => link.map_region(va as u64, len as u64, flags),
            Link::Local(link) => self.inner.areas.shared(va, len, |fd, offset| {
                link.map_region(fd.ok_or(ControlError::NotShareable)?, offset, va as u64, len as u64, flags)
            }),
            Link::Bar(link) => self
                .inner
                .areas
                .shared(va, len, |_, offset| link.map_region(offset, va as u64, len as u64, flags)),
        }
        .map_err(|error| self.inner.told(error))?;
        Ok(Region { number, va, len })
    }

    /// Takes a region back: nothing on the host touches it when this has returned.
    ///
    /// # Errors
    ///
    /// The device refused, or the session is over (its worker is gone then, and the region with it).
    pub fn unmap_region(&self, region: Region) -> Result<(), ControlError> {
        self.inner.check()?;
        let Region { number, va, len } = region;
        match &self.inner.link {
            Link::Vm(link) => link.unmap_region(number, va as u64, len as u64),
            Link::Local(link) => link.unmap_region(number).inspect(|()| self.inner.areas.unshared(va)),
            Link::Bar(link) => link.unmap_region(number).inspect(|()| self.inner.areas.unshared(va)),
        }
        .map_err(|error| self.inner.told(error))
    }

    /// Makes zeroed memory at `va` that can be mapped with [`Session::map_region`] in every transport. Forked children
    /// do not inherit it. Address and length are multiples of the page size.
    ///
    /// # Errors
    ///
    /// Something is mapped there, or memory is short.
    pub fn alloc_shared(&self, va: usize, len: usize) -> Result<*mut u8, AreaError> {
        let whole_pages = (va as u64).is_multiple_of(PAGE_BYTES) && (len as u64).is_multiple_of(PAGE_BYTES);
        if !whole_pages || len == 0 || va == 0 {
            return Err(AreaError::Unaligned);
        }
        self.inner.areas.alloc(va, len, |len| match &self.inner.link {
            Link::Bar(link) => link.take(len),
            _ => Err(ControlError::NotShareable),
        })
    }

    /// Gives memory of [`Session::alloc_shared`] back. No region may be mapped in it while the session lives.
    ///
    /// # Errors
    ///
    /// Not such memory, or still mapped in the worker.
    pub fn free_shared(&self, va: usize) -> Result<(), AreaError> {
        let alive = !matches!(self.state(), SessionState::Dead(_));
        self.inner.areas.free(va, alive)
    }

    /// Ends the session and waits until its worker is gone. Rings that are still there find it dead.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or this is a forked child.
    pub fn close(&self) -> Result<(), ControlError> {
        if is_forked_child() {
            return Err(ControlError::ForkedChild);
        }
        match &self.inner.link {
            Link::Vm(link) => link.close(),
            Link::Local(link) => link.close(),
            Link::Bar(link) => link.close(),
        }?;
        // Whatever the page says: the host no longer looks at it.
        self.inner.vanished.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Inner {
    /// What the page says, unless the other side is known to have vanished.
    #[inline]
    fn state(&self) -> SessionState {
        if self.vanished.load(Ordering::Relaxed) {
            SessionState::Dead(DEATH_SHUTDOWN)
        } else {
            self.page.state()
        }
    }

    /// Fails in a forked child and once the session is over.
    fn check(&self) -> Result<(), ControlError> {
        if is_forked_child() {
            return Err(ControlError::ForkedChild);
        }
        match self.state() {
            SessionState::Dead(reason) => Err(ControlError::Dead(reason)),
            _ => Ok(()),
        }
    }

    /// As `check`, for calls.
    #[inline]
    pub(crate) fn check_call(&self) -> Result<(), CallError> {
        if is_forked_child() {
            return Err(CallError::ForkedChild);
        }
        self.check_alive()
    }

    /// The state alone: for loops of a call that has found itself in the right process.
    #[inline]
    pub(crate) fn check_alive(&self) -> Result<(), CallError> {
        match self.state() {
            SessionState::Dead(reason) => Err(CallError::Dead(reason)),
            _ => Ok(()),
        }
    }

    /// What a kick or a wait that the kernel refused means.
    #[cold]
    pub(crate) fn failed(&self, errno: Errno) -> CallError {
        match self.check_alive() {
            Err(dead) => dead,
            Ok(()) => match errno {
                Errno::CHILD => CallError::ForkedChild,
                Errno::PIPE | Errno::NODEV | Errno::NXIO | Errno::SHUTDOWN => {
                    self.vanished.store(true, Ordering::Relaxed);
                    CallError::Dead(DEATH_SHUTDOWN)
                }
                errno => CallError::System(errno),
            },
        }
    }

    /// An error, with the reason of the session's death if that is what it is.
    fn told(&self, error: ControlError) -> ControlError {
        match (error, self.state()) {
            (ControlError::Dead(0), SessionState::Dead(reason)) => ControlError::Dead(reason),
            (error, _) => error,
        }
    }
}
