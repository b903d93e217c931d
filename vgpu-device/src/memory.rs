//! Guest memory as the front gives it: translated for mapping by others, and one page that we look into ourselves.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pci_layout::control::Run;

/// A part of guest memory that a worker can map: bytes of a file.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The file (guest RAM is a memfd, or several).
    pub file: Arc<OwnedFd>,
    /// First byte in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A run that does not lie in guest memory, or not in memory that can be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no guest memory to share at {address:#x}, length {len:#x}")]
pub struct TranslateError {
    /// Address of the first byte that has no memory behind it.
    pub address: u64,
    /// Bytes that were still to be translated there.
    pub len: u64,
}

/// Guest memory, by the addresses that the guest's messages use.
pub trait GuestMemory: Send + Sync {
    /// Appends the pieces of `run` to `pieces`, in order, neighbours joined where they continue each other.
    ///
    /// # Errors
    /// Any byte of the run has no shareable memory behind it; `pieces` may have grown by then.
    fn translate(&self, run: Run, pieces: &mut Vec<Piece>) -> Result<(), TranslateError>;

    /// The page at `gpa` as the bitmap of pending kicks.
    ///
    /// # Errors
    /// There is no guest memory at `gpa`.
    fn pending_page(&self, gpa: u64) -> Result<Arc<dyn PendingPage>, TranslateError>;
}

/// Words of the pending bitmap in guest memory, a bit per session slot.
pub const PENDING_WORDS: usize = (pci_layout::control::SESSIONS_MAX / u64::BITS) as usize;

/// The pending bitmap: the guest sets bits, the device takes them.
pub trait PendingPage: Send + Sync {
    /// Exchanges word `word` (below [`PENDING_WORDS`]) with 0 and gives what it held, with acquire and release
    /// ordering: what the guest wrote before it set a bit is visible afterwards. 0 where the page is gone.
    fn take(&self, word: usize) -> u64;
}

/// Appends a piece, joined to the last one where it continues it.
pub fn push_piece(pieces: &mut Vec<Piece>, piece: Piece) {
    if let Some(last) = pieces.last_mut()
        && Arc::ptr_eq(&last.file, &piece.file)
        && last.offset.checked_add(last.len) == Some(piece.offset)
        && let Some(len) = last.len.checked_add(piece.len)
    {
        last.len = len;
        return;
    }
    pieces.push(piece);
}
