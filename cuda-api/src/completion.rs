//! Completion words: how a guest thread hears that a stream has come to a point without a host thread that waits for it. The word is
//! memory that guest and worker share; the device writes it in stream order, and the guest looks.

use std::ptr::NonNull;

/// The words of a session, for its executor.
pub trait Completion: Send + Sync {
    /// The page that they lie in, in this process, and its length in bytes: what a device is told of.
    fn page(&self) -> (NonNull<u8>, usize);

    /// A ring's word, 8-byte aligned in that page. It stays mapped as long as the session.
    fn word(&self, ring: u32) -> Option<NonNull<u64>>;

    /// Whether kernels may print, in which case a word is no proof that the guest has their output. Said before the load that
    /// brings such a kernel is answered.
    fn set_may_print(&self, may: bool);
}
