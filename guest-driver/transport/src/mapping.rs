//! Mappings that end with their owner, and memfds that cannot change their size.

use core::ptr::{self, NonNull};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::fork::{is_forked_child, keep_from_children};

/// A shared mapping; unmapped when dropped, except in a forked child, which never had it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range; what is in it is reached through its users' own rules.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset`, where the kernel likes.
    pub(crate) fn new(file: impl AsFd, offset: u64, len: usize, prot: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice aliases nothing.
        unsafe { Self::map(ptr::null_mut(), file, offset, len, prot, MapFlags::SHARED) }
    }

    /// Maps `len` bytes of `file` from `offset` at `va`. EEXIST if something is there.
    pub(crate) fn new_at(va: usize, file: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::FIXED_NOREPLACE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a mapping that replaces nothing aliases nothing.
        let mapping = unsafe { Self::map(ptr::without_provenance_mut(va), file, offset, len, prot, flags) }?;
        mapping.at(va)
    }

    /// Maps `len` bytes of private memory at `va`. EEXIST if something is there.
    pub(crate) fn anonymous_at(va: usize, len: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a mapping that replaces nothing aliases nothing.
        let base = unsafe { rustix::mm::mmap_anonymous(ptr::without_provenance_mut(va), len, prot, flags) }?;
        Self::guarded(base, len)?.at(va)
    }

    /// Kernels before 4.17 take FIXED_NOREPLACE for a hint.
    fn at(self, va: usize) -> io::Result<Self> {
        if self.base.as_ptr().addr() == va { Ok(self) } else { Err(io::Errno::EXIST) }
    }

    /// # Safety
    ///
    /// As for mmap: what `flags` and `at` replace, if anything, is nobody's.
    unsafe fn map(
        at: *mut core::ffi::c_void,
        file: impl AsFd,
        offset: u64,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        // SAFETY: the caller's promise.
        let base = unsafe { mmap(at, len, prot, flags, file, offset) }?;
        Self::guarded(base, len)
    }

    fn guarded(base: *mut core::ffi::c_void, len: usize) -> io::Result<Self> {
        let mapping = Self { base: NonNull::new(base.cast()).ok_or(io::Errno::NOMEM)?, len };
        // SAFETY: the mapping just made. Its drop undoes it if this fails.
        unsafe { keep_from_children(base, len) }?;
        Ok(mapping)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !is_forked_child() {
            // SAFETY: this mapping's own range, which nobody uses after its owner. It fails only for ranges that are
            // none.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

/// Shared memory of `len` zero bytes whose size nobody can change any more.
pub(crate) fn sealed_memfd(name: &str, len: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len as u64)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}
