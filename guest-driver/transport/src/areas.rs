//! Memory that the shim makes so that both transports can share it with the worker.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

use crate::bar::Taken;
use crate::device::Kind;
use crate::error::ControlError;
use crate::fork::is_forked_child;
use crate::mapping::{Mapping, sealed_memfd};

/// Why shared memory could not be made or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    /// Address or length is 0 or no multiple of the page size.
    #[error("address or length is not a multiple of the page size")]
    Unaligned,
    /// Something else is mapped in that range.
    #[error("the address range is taken")]
    AddressTaken,
    /// No such area was made.
    #[error("no shared memory was made at this address")]
    Unknown,
    /// A region of it is still mapped in the worker.
    #[error("still mapped in the worker")]
    StillMapped,
    /// This process is a forked child.
    #[error("the session belongs to the parent process")]
    ForkedChild,
    /// The operating system refused.
    #[error("out of memory or address space: {0}")]
    System(Errno),
}

/// The areas of a session, by address.
#[derive(Debug)]
pub(crate) struct Areas {
    kind: Kind,
    list: Mutex<BTreeMap<usize, Area>>,
}

#[derive(Debug)]
struct Area {
    mapping: Mapping,
    /// The memfd behind it, in the local transport.
    fd: Option<OwnedFd>,
    /// Its part of the data window, in the driverless transport.
    taken: Option<Taken>,
    /// Regions of it that are mapped in the worker (counted where there is no kernel module, which counts its own).
    regions: usize,
}

impl Areas {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, list: Mutex::new(BTreeMap::new()) }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<usize, Area>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `take` takes part of the data window, in the driverless transport.
    pub(crate) fn alloc(
        &self,
        va: usize,
        len: usize,
        take: impl FnOnce(usize) -> Result<Taken, ControlError>,
    ) -> Result<*mut u8, AreaError> {
        if is_forked_child() {
            return Err(AreaError::ForkedChild);
        }
        let failed = |errno| match errno {
            Errno::EXIST => AreaError::AddressTaken,
            errno => AreaError::System(errno),
        };
        let area = match self.kind {
            Kind::Vm => {
                let mapping = Mapping::anonymous_at(va, len).map_err(failed)?;
                // SAFETY: the mapping just made. Huge pages are a wish: without them all is only slower.
                let _ = unsafe { madvise(mapping.base().as_ptr().cast(), len, Advice::LinuxHugepage) };
                Area { mapping, fd: None, taken: None, regions: 0 }
            }
            Kind::Local => {
                let fd = sealed_memfd("vgpu-shared", len).map_err(failed)?;
                let mapping = Mapping::new_at(va, &fd, 0, len).map_err(failed)?;
                Area { mapping, fd: Some(fd), taken: None, regions: 0 }
            }
            Kind::Bar => {
                let taken = take(len).map_err(|error| match error {
                    ControlError::System { errno, .. } => AreaError::System(errno),
                    _ => AreaError::System(Errno::NOMEM),
                })?;
                let mapping = taken.map(Some(va)).map_err(failed)?;
                Area { mapping, fd: None, taken: Some(taken), regions: 0 }
            }
        };
        let base = area.mapping.base().as_ptr();
        self.list().insert(va, area);
        Ok(base)
    }

    pub(crate) fn free(&self, va: usize, session_alive: bool) -> Result<(), AreaError> {
        if is_forked_child() {
            return Err(AreaError::ForkedChild);
        }
        let mut list = self.list();
        match list.get(&va) {
            None => Err(AreaError::Unknown),
            Some(area) if area.regions > 0 && session_alive => Err(AreaError::StillMapped),
            Some(_) => {
                list.remove(&va);
                Ok(())
            }
        }
    }

    /// Has `share` map a range of an area, by the area's memfd and the range's offset in it, or by its offset in the data window.
    pub(crate) fn shared<T>(
        &self,
        va: usize,
        len: usize,
        share: impl FnOnce(Option<BorrowedFd<'_>>, u64) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut list = self.list();
        let (start, area) = list.range_mut(..=va).next_back().ok_or(ControlError::NotShareable)?;
        let offset = va - start;
        let inside = offset.checked_add(len).is_some_and(|end| end <= area.mapping.len());
        let place = match (&area.fd, &area.taken) {
            (Some(fd), _) => (Some(fd.as_fd()), offset as u64),
            (None, Some(taken)) => (None, taken.offset() + offset as u64),
            (None, None) => return Err(ControlError::NotShareable),
        };
        if !inside || len == 0 {
            return Err(ControlError::NotShareable);
        }
        let shared = share(place.0, place.1)?;
        area.regions += 1;
        Ok(shared)
    }

    /// Notes that a region that began at `va` is no longer mapped.
    pub(crate) fn unshared(&self, va: usize) {
        if let Some((_, area)) = self.list().range_mut(..=va).next_back() {
            area.regions = area.regions.saturating_sub(1);
        }
    }
}
