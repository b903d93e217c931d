//! The stretch of the worker's addresses that device memory comes from.

use std::io;
use std::ops::Range;

use crate::space::GRANULE_BYTES;

/// Where device memory begins, if nothing is there yet: below the legacy mmap area (0x2aaa_aaaa_b000) that workers use,
/// far from where programs, heaps and libraries of guests lie.
pub const WINDOW_BASE: u64 = 0x2a00_0000_0000;
/// A window ends below this address.
const WINDOW_END: u64 = 0x2aa0_0000_0000;
/// Other places are tried in steps of this many bytes.
const STEP_BYTES: u64 = 4 << 30;

/// Addresses that belong to device memory: reserved without access, and memory where committed. Host and device
/// addresses are the same.
pub(crate) struct Window {
    range: Range<u64>,
}

fn pointer(address: u64) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}

fn bytes(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
}

impl Window {
    /// Reserves `len` bytes at [`WINDOW_BASE`], or behind it where that is taken.
    pub(crate) fn reserve(len: u64) -> io::Result<Self> {
        let len = len.next_multiple_of(GRANULE_BYTES);
        let mut start = WINDOW_BASE;
        while let Some(end) = start.checked_add(len).filter(|end| *end <= WINDOW_END) {
            let range = start..end;
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: a new anonymous mapping without access; NOREPLACE leaves existing mappings alone.
            let got = unsafe { libc::mmap(pointer(start), bytes(&range), libc::PROT_NONE, flags, -1, 0) };
            if got == pointer(start) {
                // SAFETY: the mapping just made; advice only, refused harmlessly where huge pages are off.
                unsafe { libc::madvise(got, bytes(&range), libc::MADV_HUGEPAGE) };
                return Ok(Window { range });
            }
            if got != libc::MAP_FAILED {
                // SAFETY: a kernel that does not know NOREPLACE put the new mapping elsewhere; it is ours alone.
                unsafe { libc::munmap(got, bytes(&range)) };
            }
            start = start.saturating_add(STEP_BYTES);
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {len} free bytes from {WINDOW_BASE:#x} on")))
    }

    /// All its addresses.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    fn inside(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start < self.range.start || range.end > self.range.end || range.start > range.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }

    /// Makes whole granules memory, zeroed at first touch.
    pub(crate) fn commit(&self, range: &Range<u64>) -> io::Result<()> {
        self.inside(range)?;
        // SAFETY: inside the window (checked above), which holds nothing but device memory.
        let done =
            unsafe { libc::mprotect(pointer(range.start), bytes(range), libc::PROT_READ | libc::PROT_WRITE) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps a file's memory at whole granules, which hold nothing.
    pub(crate) fn map(&self, range: &Range<u64>, file: i32, offset: u64) -> io::Result<()> {
        self.inside(range)?;
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: replaces addresses without memory inside the window (checked above) that are reserved and that nothing else
        // is mapped at (`Memory::map`).
        let got = unsafe { libc::mmap(pointer(range.start), bytes(range), access, flags, file, offset) };
        if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives whole granules back. Nothing may use them any more.
    pub(crate) fn decommit(&self, range: &Range<u64>) -> io::Result<()> {
        self.inside(range)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: replaces memory inside the window (checked above) that `Memory::free` has taken out of the map and
        // waited for, so no pointer into it is in use.
        let got = unsafe { libc::mmap(pointer(range.start), bytes(range), libc::PROT_NONE, flags, -1, 0) };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; advice only.
        unsafe { libc::madvise(got, bytes(range), libc::MADV_HUGEPAGE) };
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the window is this value's; whoever held addresses in it (`Memory`) is being dropped with it.
        unsafe { libc::munmap(pointer(self.range.start), bytes(&self.range)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_windows_lie_apart_and_memory_comes_and_goes() {
        let (a, b) = (Window::reserve(1 << 30).unwrap(), Window::reserve(1 << 30).unwrap());
        assert!(a.range().end <= b.range().start || b.range().end <= a.range().start);
        let granule = a.range().start..a.range().start + GRANULE_BYTES;
        a.commit(&granule).unwrap();
        let byte = pointer(granule.start).cast::<u8>();
        // SAFETY: committed above.
        unsafe {
            byte.write(7);
            assert_eq!(byte.read(), 7);
        }
        a.decommit(&granule).unwrap();
        a.commit(&granule).unwrap();
        // SAFETY: committed again.
        assert_eq!(unsafe { byte.read() }, 0);
        assert!(a.commit(&b.range()).is_err());
    }
}
