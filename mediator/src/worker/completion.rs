//! The session's completion words, for its executor.

use std::ptr::NonNull;

use cuda_api::completion::Completion;
use pci_layout::ring::SESSION_PAGE_BYTES;
use vgpu_ring::SessionPageMemory;

/// The words in the session page, which this keeps mapped.
pub(super) struct Words(pub(super) SessionPageMemory);

impl Completion for Words {
    fn page(&self) -> (NonNull<u8>, usize) {
        (self.0.start(), SESSION_PAGE_BYTES as usize)
    }

    fn word(&self, ring: u32) -> Option<NonNull<u64>> {
        self.0.completion_word(ring)
    }

    fn set_may_print(&self, may: bool) {
        self.0.set_may_print(may);
    }
}
