//! Mapping pieces of files, the only way guest memory gets into a worker.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pci_layout::control;
use rustix::mm::{MapFlags, ProtFlags};
use zerocopy::FromBytes;

use crate::channel::PieceEntry;
use crate::pieces::is_page_aligned;

/// Mappings that are left to the driver, glibc and the program itself out of what the kernel allows a process.
const MAPPINGS_RESERVED: usize = 16 * 1024;
/// What the kernel allows where it does not say (its own default).
const MAPPINGS_DEFAULT: usize = 65530;
/// Most mappings of guest memory, whatever the kernel allows: each costs the host a few hundred bytes of kernel memory.
const MAPPINGS_MAX: usize = 256 * 1024;

/// Why something is not mapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum MapError {
    #[error("the pieces of the order do not fit together")]
    Pieces,
    #[error("{wanted} more mappings, but only {left} of {limit} are left")]
    Budget { wanted: usize, left: usize, limit: usize },
    #[error("a piece at offset {offset:#x} cannot be mapped: {error}")]
    Refused { offset: u64, error: io::Error },
}

/// Counts this process's mappings of guest memory, so that running out is an answer and not a crash in the driver.
#[derive(Debug)]
pub(super) struct MapBudget {
    limit: usize,
    used: AtomicUsize,
}

impl MapBudget {
    pub(super) fn of_this_process() -> Arc<Self> {
        let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let allowed = allowed.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS_DEFAULT);
        let limit = allowed.saturating_sub(MAPPINGS_RESERVED).min(MAPPINGS_MAX);
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    pub(super) fn charge(self: &Arc<Self>, count: usize) -> Result<Charge, MapError> {
        let charged = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(count).filter(|used| *used <= self.limit)
        });
        match charged {
            Ok(_) => Ok(Charge { budget: Arc::clone(self), count }),
            Err(used) => Err(MapError::Budget {
                wanted: count,
                left: self.limit.saturating_sub(used),
                limit: self.limit,
            }),
        }
    }
}

/// Mappings taken out of the budget until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<MapBudget>,
    count: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// The pieces of an order, checked: they add up to `len`, each is aligned and names a file that came along.
pub(super) struct Pieces<'a> {
    entries: Vec<PieceEntry>,
    files: &'a [OwnedFd],
    len: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(tail: &[u8], files: &'a [OwnedFd], len: u64) -> Result<Self, MapError> {
        let mut chunks = tail.chunks_exact(size_of::<PieceEntry>());
        let entries: Vec<PieceEntry> =
            chunks.by_ref().filter_map(|bytes| PieceEntry::read_from_bytes(bytes).ok()).collect();
        if !chunks.remainder().is_empty() || entries.len() > control::RUNS_MAX as usize {
            return Err(MapError::Pieces);
        }
        let mut total = 0u64;
        for entry in &entries {
            let aligned = is_page_aligned(entry.offset | entry.len);
            if !aligned || entry.len == 0 || files.get(entry.file as usize).is_none() {
                return Err(MapError::Pieces);
            }
            total = total.checked_add(entry.len).ok_or(MapError::Pieces)?;
        }
        let len = usize::try_from(len).map_err(|_| MapError::Pieces)?;
        if total != len as u64 || len == 0 {
            return Err(MapError::Pieces);
        }
        Ok(Self { entries, files, len })
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Maps the pieces one after the other from `start`, replacing what is there.
    ///
    /// # Safety
    /// `[start, start + len)` belongs to the caller and nothing refers to it.
    pub(super) unsafe fn map_over(&self, start: *mut u8, writable: bool) -> Result<(), MapError> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let mut at = start;
        for entry in &self.entries {
            let file = self.files.get(entry.file as usize).ok_or(MapError::Pieces)?;
            let len = usize::try_from(entry.len).map_err(|_| MapError::Pieces)?;
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: the pieces add up to `self.len` (checked in `new`), so this one lies in the caller's range.
            let mapped = unsafe { rustix::mm::mmap(at.cast(), len, access, flags, file, entry.offset) };
            mapped.map_err(|error| MapError::Refused { offset: entry.offset, error: error.into() })?;
            at = at.wrapping_add(len);
        }
        Ok(())
    }
}

/// Guest memory mapped contiguously at an address of the kernel's choice.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    _charge: Charge,
}

// SAFETY: an address range that this value alone unmaps; what is done with the memory is its users' business.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(pieces: &Pieces<'_>, budget: &Arc<MapBudget>) -> Result<Self, MapError> {
        let charge = budget.charge(pieces.count())?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), pieces.len(), ProtFlags::empty(), flags)
        };
        let refused = |error: io::Error| MapError::Refused { offset: 0, error };
        let start = reserved.map_err(|error| refused(error.into()))?.cast();
        let start = NonNull::new(start).ok_or_else(|| refused(io::ErrorKind::OutOfMemory.into()))?;
        let mapping = Self { start, len: pieces.len(), _charge: charge };
        // SAFETY: the range was just reserved and nobody else knows it. On failure `mapping` is dropped, all of it.
        unsafe { pieces.map_over(start.as_ptr(), true)? };
        Ok(mapping)
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped only here; whoever uses the memory holds this value.
        if let Err(error) = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) } {
            // The supervisor is about to hear that nothing is mapped any more.
            super::die(super::exit::HOST, &format!("guest memory cannot be unmapped: {error}"));
        }
    }
}
