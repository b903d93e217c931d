//! The address window for pinned memory that libcuda allocates itself.

use std::io::Result;
use std::ops::Range;

use pci_layout::ring::{PINNED_WINDOW_END, PINNED_WINDOW_START};
use rustix::mm::{MapFlags, ProtFlags};

/// User addresses at which a guest's libcuda puts the memory of `cuMemHostAlloc` and its kin, in every guest process. A
/// worker reserves them before anything else is loaded, so that neither glibc nor the driver settles there; regions
/// inside are mapped over the reservation, and nowhere else is anything mapped over.
///
/// The driver accepts device memory nearly everywhere in 0x1000_0000_0000..0x7e00_0000_0000; whoever places device
/// memory by hint keeps out of this window, since it is never free in the worker.
pub const PINNED_WINDOW: Range<u64> = PINNED_WINDOW_START..PINNED_WINDOW_END;

/// Takes the window. Fails if anything of it is taken already.
pub(super) fn reserve() -> Result<()> {
    reserve_range(PINNED_WINDOW, MapFlags::FIXED_NOREPLACE)
}

/// Puts `[start, end)` back into its reserved state.
pub(super) fn reserve_again(range: Range<u64>) -> Result<()> {
    reserve_range(range, MapFlags::FIXED)
}

fn reserve_range(range: Range<u64>, placement: MapFlags) -> Result<()> {
    let wrong = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let start = usize::try_from(range.start).map_err(|_| wrong())?;
    let len =
        range.end.checked_sub(range.start).and_then(|len| usize::try_from(len).ok()).ok_or_else(wrong)?;
    let address = std::ptr::with_exposed_provenance_mut(start);
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | placement;
    // SAFETY: with NOREPLACE nothing existing is touched; with FIXED the caller replaces a mapping of guest memory that
    // is its own to replace (`regions` keeps the list).
    let mapped = unsafe { rustix::mm::mmap_anonymous(address, len, ProtFlags::empty(), flags)? };
    if mapped.addr() == start { Ok(()) } else { Err(std::io::ErrorKind::AddrInUse.into()) }
}
