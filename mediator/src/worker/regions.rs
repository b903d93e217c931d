//! Pinned guest memory at the guest's own addresses.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pci_layout::{control, regs};
use rustix::mm::{MapFlags, ProtFlags};

use super::mapping::{Charge, MapBudget, MapError, Pieces};
use super::{PINNED_WINDOW, window};
use crate::pieces::is_page_aligned;

/// Lowest address a guest can have anything at, and one past the highest (x86-64, four-level page tables).
const ADDRESSES: std::ops::Range<u64> = 0x1_0000..0x7fff_ffff_f000;

/// Why a region is not mapped, or not unmapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegionError {
    #[error("{va:#x} + {len:#x} is no range a guest can map")]
    Range { va: u64, len: u64 },
    #[error("{va:#x} + {len:#x} overlaps region {other}")]
    Overlap { va: u64, len: u64, other: u32 },
    #[error("{va:#x} + {len:#x} is taken in this process: {error}")]
    Taken { va: u64, len: u64, error: std::io::Error },
    #[error("region {region} ends at {end:#x}, {va:#x} does not continue it with the same flags")]
    NotContinued { region: u32, end: u64, va: u64 },
    #[error("region {0} does not exist")]
    Unknown(u32),
    #[error(transparent)]
    Map(#[from] MapError),
}

impl RegionError {
    /// The `ERROR_` value that the guest hears.
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::Map(error) => map_error_code(error),
            _ => regs::ERROR_INVALID_REQUEST,
        }
    }
}

/// The `ERROR_` value for a mapping that failed.
pub(super) fn map_error_code(error: &MapError) -> u32 {
    match error {
        MapError::Pieces => regs::ERROR_INVALID_REQUEST,
        MapError::Budget { .. } => regs::ERROR_QUEUE_FULL,
        MapError::Refused { error, .. } if error.raw_os_error() == Some(libc::ENOMEM) => {
            regs::ERROR_QUEUE_FULL
        }
        // Huge pages that are mapped by small ones, memory that may not be written.
        MapError::Refused { .. } => regs::ERROR_UNSUPPORTED,
    }
}

struct Region {
    va: u64,
    end: u64,
    flags: u32,
    charges: Vec<Charge>,
}

impl Region {
    fn in_window(&self) -> bool {
        PINNED_WINDOW.contains(&self.va)
    }
}

/// The session's regions, by number and by address.
pub(super) struct Regions {
    by_number: HashMap<u32, Region>,
    /// Start address → number.
    by_address: BTreeMap<u64, u32>,
    budget: Arc<MapBudget>,
}

impl Regions {
    pub(super) fn new(budget: Arc<MapBudget>) -> Self {
        Self { by_number: HashMap::new(), by_address: BTreeMap::new(), budget }
    }

    /// Maps a new region, or what follows at the end of one. On failure nothing of it is mapped.
    pub(super) fn map(
        &mut self,
        number: u32,
        flags: u32,
        va: u64,
        tail: &[u8],
        files: &[OwnedFd],
        len: u64,
    ) -> Result<(), RegionError> {
        let end =
            va.checked_add(len).filter(|end| va >= ADDRESSES.start && *end <= ADDRESSES.end && len != 0);
        let aligned = is_page_aligned(va | len);
        let Some(end) = end.filter(|_| aligned) else { return Err(RegionError::Range { va, len }) };
        let inside = PINNED_WINDOW.contains(&va);
        let apart = end <= PINNED_WINDOW.start || va >= PINNED_WINDOW.end;
        if !(apart || inside && end <= PINNED_WINDOW.end) {
            return Err(RegionError::Range { va, len });
        }
        if let Some(region) = self.by_number.get(&number)
            && (region.end != va || region.flags != flags || region.in_window() != inside)
        {
            return Err(RegionError::NotContinued { region: number, end: region.end, va });
        }
        if let Some(other) = self.overlapping(va, end) {
            return Err(RegionError::Overlap { va, len, other });
        }
        let pieces = Pieces::new(tail, files, len)?;
        let charge = self.budget.charge(pieces.count())?;
        let start = address(va);
        if !inside {
            let placement = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
            // SAFETY: NOREPLACE touches nothing that exists.
            let reserved = unsafe {
                rustix::mm::mmap_anonymous(start.cast(), pieces.len(), ProtFlags::empty(), placement)
            };
            reserved.map_err(|error| RegionError::Taken { va, len, error: error.into() })?;
        }
        let writable = flags & control::MAP_READ_ONLY == 0;
        // SAFETY: the range is ours: just reserved, or inside the window and, by the list, no region's.
        if let Err(error) = unsafe { pieces.map_over(start, writable) } {
            clear(va, end, inside);
            return Err(error.into());
        }
        if let Some(region) = self.by_number.get_mut(&number) {
            region.end = end;
            region.charges.push(charge);
        } else {
            self.by_address.insert(va, number);
            self.by_number.insert(number, Region { va, end, flags, charges: vec![charge] });
        }
        Ok(())
    }

    fn overlapping(&self, va: u64, end: u64) -> Option<u32> {
        let (_, number) = self.by_address.range(..end).next_back()?;
        self.by_number.get(number).is_some_and(|region| region.end > va).then_some(*number)
    }

    /// Where region `number` lies: address and length.
    pub(super) fn range(&self, number: u32) -> Result<(u64, u64), RegionError> {
        let region = self.by_number.get(&number).ok_or(RegionError::Unknown(number))?;
        Ok((region.va, region.end.saturating_sub(region.va)))
    }

    /// Unmaps a region. The handler must have let go of it.
    pub(super) fn unmap(&mut self, number: u32) -> Result<(), RegionError> {
        let region = self.by_number.remove(&number).ok_or(RegionError::Unknown(number))?;
        self.by_address.remove(&region.va);
        clear(region.va, region.end, region.in_window());
        Ok(())
    }
}

fn address(va: u64) -> *mut u8 {
    // Addresses are 64 bits wide wherever this runs (the window would not fit otherwise).
    #[allow(clippy::cast_possible_truncation)]
    std::ptr::with_exposed_provenance_mut(va as usize)
}

/// Takes a range of ours out of the address space, or back into the window's reservation.
fn clear(va: u64, end: u64, inside: bool) {
    let cleared = if inside {
        window::reserve_again(va..end)
    } else {
        let len = usize::try_from(end.saturating_sub(va)).unwrap_or(0);
        // SAFETY: the range was reserved by `Regions::map` for this region, and the handler has let go of it.
        unsafe { rustix::mm::munmap(address(va).cast(), len) }.map_err(Into::into)
    };
    if let Err(error) = cleared {
        // The supervisor is about to hear that nothing is mapped any more.
        super::die(super::exit::HOST, &format!("guest memory cannot be unmapped: {error}"));
    }
}
