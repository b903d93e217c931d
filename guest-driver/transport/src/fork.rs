//! Knowing, without a system call, that this process is a forked child.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::process::{Pid, getpid};

use crate::error::OpenError;

/// One page is enough for a word.
const PAGE: usize = 4096;

/// How a process recognises itself.
enum Marker {
    /// A word that holds 1 here and that the kernel wipes in a child (MADV_WIPEONFORK, Linux 4.14). Never unmapped.
    Wiped(NonNull<AtomicU32>),
    /// The process id, where the kernel is older: a system call per question.
    Pid(Pid),
}

// SAFETY: the word is atomic, stays mapped for good, and is written once before it is shared.
unsafe impl Send for Marker {}
// SAFETY: as for Send.
unsafe impl Sync for Marker {}

static MARKER: OnceLock<Marker> = OnceLock::new();

/// Remembers this process as the one that owns what this crate makes. The first call counts, for children too: like
/// CUDA, a device that a parent opened cannot be opened again by its forked children.
pub(crate) fn remember_process() -> Result<(), OpenError> {
    MARKER.get_or_init(|| match wiped_word() {
        Some(word) => Marker::Wiped(word),
        None => Marker::Pid(getpid()),
    });
    if is_forked_child() { Err(OpenError::ForkedChild) } else { Ok(()) }
}

fn wiped_word() -> Option<NonNull<AtomicU32>> {
    // SAFETY: a new mapping, which aliases nothing.
    let page = unsafe {
        mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).ok()?
    };
    // SAFETY: the page just mapped; the advice changes what a child sees, nothing here.
    if unsafe { madvise(page, PAGE, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: nobody else knows the page yet.
        let _ = unsafe { rustix::mm::munmap(page, PAGE) };
        return None;
    }
    let word = NonNull::new(page.cast::<AtomicU32>())?;
    // SAFETY: mapped above, writable, aligned, never unmapped from here on.
    unsafe { word.as_ref() }.store(1, Ordering::Relaxed);
    Some(word)
}

/// True in a process that was forked from the one that opened the device.
#[inline]
pub fn is_forked_child() -> bool {
    match MARKER.get() {
        // SAFETY: mapped for good, in the child too (as a page of zeros).
        Some(Marker::Wiped(word)) => unsafe { word.as_ref() }.load(Ordering::Relaxed) == 0,
        Some(Marker::Pid(pid)) => getpid() != *pid,
        None => false,
    }
}

/// Keeps a range out of forked children.
///
/// # Safety
///
/// The range is this process's own mapping.
pub(crate) unsafe fn keep_from_children(start: *mut c_void, len: usize) -> rustix::io::Result<()> {
    // SAFETY: the caller's promise; the advice changes nothing in this process.
    unsafe { madvise(start, len, Advice::LinuxDontFork) }
}
