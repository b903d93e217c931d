//! Byte copies to and from memory that another process may be writing.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bytes of a word copy.
const WORD: usize = size_of::<u64>();

/// Copies `dst.len()` bytes out of shared memory, each byte read exactly once.
///
/// # Safety
///
/// `src` is valid for that many bytes for the duration of the call.
pub(crate) unsafe fn copy_out(src: *mut u8, dst: &mut [u8]) {
    let mut src = src;
    let (before, words) = dst.split_at_mut(src.align_offset(WORD).min(dst.len()));
    for byte in before {
        // SAFETY: as many bytes as `before` and the rest together are valid, by the caller's promise.
        *byte = unsafe { AtomicU8::from_ptr(src) }.load(Ordering::Relaxed);
        // SAFETY: stays within, or one past the end of, the caller's range.
        src = unsafe { src.add(1) };
    }
    let mut words = words.chunks_exact_mut(WORD);
    for word in &mut words {
        // SAFETY: as above; `src` is aligned, since `before` ended at an aligned address.
        let value = unsafe { AtomicU64::from_ptr(src.cast()) }.load(Ordering::Relaxed);
        word.copy_from_slice(&value.to_ne_bytes());
        // SAFETY: as above.
        src = unsafe { src.add(WORD) };
    }
    for byte in words.into_remainder() {
        // SAFETY: as above.
        *byte = unsafe { AtomicU8::from_ptr(src) }.load(Ordering::Relaxed);
        // SAFETY: as above.
        src = unsafe { src.add(1) };
    }
}

/// Copies `src` into shared memory, which the other side may be reading or writing at the same time.
///
/// # Safety
///
/// `dst` is valid for `src.len()` bytes for the duration of the call and 8-byte aligned.
pub(crate) unsafe fn copy_in(dst: *mut u8, src: &[u8]) {
    let mut dst = dst;
    let mut words = src.chunks_exact(WORD);
    for word in &mut words {
        let mut value = [0; WORD];
        value.copy_from_slice(word);
        // SAFETY: within the caller's range; aligned at the start and moved by whole words.
        unsafe { AtomicU64::from_ptr(dst.cast()) }.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        // SAFETY: stays within, or one past the end of, the caller's range.
        dst = unsafe { dst.add(WORD) };
    }
    for byte in words.remainder() {
        // SAFETY: as above; bytes need no alignment.
        unsafe { AtomicU8::from_ptr(dst) }.store(*byte, Ordering::Relaxed);
        // SAFETY: as above.
        dst = unsafe { dst.add(1) };
    }
}
