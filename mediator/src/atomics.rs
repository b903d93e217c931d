//! Memory of atomics that a worker writes and the supervisor reads: a sealed file that both map.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// What such a file can hold.
///
/// # Safety
/// The type consists of atomics only, of which every bit pattern is valid, and asks for no more alignment than a page has.
pub(crate) unsafe trait Layout: Sync {
    /// The file's name, for /proc.
    const NAME: &'static str;
}

/// A mapped file with an `L` in it, all zeros at first.
pub(crate) struct Atomics<L: Layout> {
    layout: NonNull<L>,
    of: PhantomData<L>,
}

// SAFETY: an address; what lies there is atomics only.
unsafe impl<L: Layout> Send for Atomics<L> {}
// SAFETY: as above.
unsafe impl<L: Layout> Sync for Atomics<L> {}

impl<L: Layout> Atomics<L> {
    /// A new file, sealed: a worker cannot shrink it under the supervisor's mapping.
    pub(crate) fn create() -> std::io::Result<(Self, OwnedFd)> {
        let file = rustix::fs::memfd_create(L::NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, size_of::<L>() as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(&file)?, file))
    }

    /// Maps the file that [`Atomics::create`] made.
    pub(crate) fn map(file: impl AsFd) -> std::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size_of::<L>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let layout = NonNull::new(address.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { layout, of: PhantomData })
    }
}

impl<L: Layout> Deref for Atomics<L> {
    type Target = L;

    fn deref(&self) -> &L {
        // SAFETY: mapped in `map` with L's size, page aligned, unmapped only in `drop`; every bit pattern is valid for
        // `Layout`, and the file's seals keep its size.
        unsafe { self.layout.as_ref() }
    }
}

impl<L: Layout> Drop for Atomics<L> {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this size; no reference outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.layout.as_ptr().cast(), size_of::<L>()) };
        if let Err(error) = unmapped {
            log::error!("{} could not be unmapped: {error}", L::NAME);
        }
    }
}
