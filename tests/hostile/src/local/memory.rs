//! Memory that the other side maps too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memfd of this length with these seals.
pub fn memfd(len: u64, seals: SealFlags) -> io::Result<OwnedFd> {
    let file = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, len)?;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// A memfd as the daemon wants it.
pub fn proper_memfd(len: u64) -> io::Result<OwnedFd> {
    memfd(len, SealFlags::SHRINK)
}

/// A mapped memfd. Every access is atomic, since the other side writes too.
#[derive(Debug)]
pub struct Shared {
    base: NonNull<u8>,
    len: usize,
    /// The file.
    pub file: OwnedFd,
}

// SAFETY: an address and a length; every access is checked and atomic.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// New memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let file = proper_memfd(len as u64)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping where the kernel chooses; nothing existing is touched.
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, flags, file.as_fd(), 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Shared { base, len, file })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset.is_multiple_of(size) && offset + size <= self.len, "a slip of our own");
        // SAFETY: inside the mapping, by the line above.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// The 64-bit word at `offset`.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: `at` gives an aligned place inside the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// The 32-bit word at `offset`.
    pub fn half(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    /// Writes bytes at a multiple of 8, the last word filled up with zeros.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(offset + 8 * i).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; no reference to it outlives `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}
