//! Copies that do not bring their destination into the caches.

/// Copies `len` bytes, which are visible to whoever sees what the calling thread stores afterwards with release.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`, and do not overlap.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn stream(mut from: *const u8, mut to: *mut u8, len: usize) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    /// Bytes of a cache line.
    const LINE: usize = 64;

    let head = to.align_offset(LINE).min(len);
    let lines = (len - head) / LINE;
    let tail = len - head - lines * LINE;
    // SAFETY: head, lines and tail are `len` bytes together, one behind the other; after the head `to` is aligned for whole lines.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, head);
        (from, to) = (from.add(head), to.add(head));
        for _ in 0..lines {
            let (source, destination) = (from.cast::<__m128i>(), to.cast::<__m128i>());
            let words = [0, 1, 2, 3].map(|i| _mm_loadu_si128(source.add(i)));
            for (i, word) in words.into_iter().enumerate() {
                _mm_stream_si128(destination.add(i), word);
            }
            (from, to) = (from.add(LINE), to.add(LINE));
        }
        // These stores are in no order with others, not even with a release.
        _mm_sfence();
        std::ptr::copy_nonoverlapping(from, to, tail);
    }
}

/// Copies `len` bytes.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`, and do not overlap.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn stream(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: by this function's contract.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}
