//! Pieces of guest memory on their way into a map order.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pci_layout::{PAGE_BYTES, control, regs};

use crate::channel::PieceEntry;
use crate::{Piece, SessionError};

/// Distinct files in one map order; guest RAM has one per memory backend.
pub const FILES_MAX: usize = 16;

/// True for a multiple of the page size.
pub(crate) fn is_page_aligned(value: u64) -> bool {
    value & (PAGE_BYTES - 1) == 0
}

/// The pieces of one order: each distinct file once, and entries that name them by index.
#[derive(Debug)]
pub(crate) struct PieceList {
    pub(crate) files: Vec<Arc<OwnedFd>>,
    pub(crate) entries: Vec<PieceEntry>,
}

impl PieceList {
    /// Checks and coalesces `pieces`, which must add up to `len` bytes.
    pub(crate) fn new(pieces: &[Piece], len: u64) -> Result<Self, SessionError> {
        let invalid = SessionError::new(regs::ERROR_INVALID_REQUEST);
        let mut list = Self { files: Vec::new(), entries: Vec::new() };
        if pieces.len() > control::RUNS_MAX as usize {
            return Err(SessionError::new(regs::ERROR_TOO_LARGE));
        }
        let mut total = 0u64;
        for piece in pieces {
            let aligned = is_page_aligned(piece.offset | piece.len);
            // File offsets are signed 64-bit numbers in the kernel.
            let end = piece.offset.checked_add(piece.len).filter(|end| *end <= i64::MAX as u64);
            if !aligned || piece.len == 0 || end.is_none() {
                return Err(invalid);
            }
            total = total.checked_add(piece.len).ok_or(invalid)?;
            let file = list.file_index(&piece.file)?;
            match list.entries.last_mut() {
                Some(last)
                    if last.file == file && last.offset.checked_add(last.len) == Some(piece.offset) =>
                {
                    last.len = last.len.checked_add(piece.len).ok_or(invalid)?;
                }
                _ => {
                    list.entries.push(PieceEntry { offset: piece.offset, len: piece.len, file, reserved: 0 })
                }
            }
        }
        if total == len && len != 0 { Ok(list) } else { Err(SessionError::new(regs::ERROR_INVALID_LENGTH)) }
    }

    fn file_index(&mut self, file: &Arc<OwnedFd>) -> Result<u32, SessionError> {
        let known = self.files.iter().position(|known| Arc::ptr_eq(known, file));
        let index = match known {
            Some(index) => index,
            None if self.files.len() < FILES_MAX => {
                self.files.push(Arc::clone(file));
                self.files.len().saturating_sub(1)
            }
            None => return Err(SessionError::new(regs::ERROR_TOO_LARGE)),
        };
        u32::try_from(index).map_err(|_| SessionError::new(regs::ERROR_TOO_LARGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<OwnedFd> {
        Arc::new(rustix::fs::memfd_create("piece", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"))
    }

    #[test]
    fn neighbours_become_one() {
        let (one, two) = (file(), file());
        let piece = |file: &Arc<OwnedFd>, offset, len| Piece { file: Arc::clone(file), offset, len };
        let list = PieceList::new(
            &[
                piece(&one, 0, 4096),
                piece(&one, 4096, 8192),
                piece(&two, 12288, 4096),
                piece(&one, 16384, 4096),
            ],
            20480,
        )
        .expect("valid");
        assert_eq!(list.files.len(), 2);
        let entries: Vec<_> =
            list.entries.iter().map(|entry| (entry.file, entry.offset, entry.len)).collect();
        assert_eq!(entries, [(0, 0, 12288), (1, 12288, 4096), (0, 16384, 4096)]);
    }

    #[test]
    fn wrong_pieces_are_refused() {
        let one = file();
        let refused = |offset, len, total| {
            let piece = Piece { file: Arc::clone(&one), offset, len };
            PieceList::new(&[piece], total).expect_err("refused").error
        };
        assert_eq!(refused(1, 4096, 4096), regs::ERROR_INVALID_REQUEST);
        assert_eq!(refused(0, 4095, 4095), regs::ERROR_INVALID_REQUEST);
        assert_eq!(refused(0, 0, 0), regs::ERROR_INVALID_REQUEST);
        assert_eq!(refused(0, 4096, 8192), regs::ERROR_INVALID_LENGTH);
        assert_eq!(refused(u64::MAX - 4095, 8192, 8192), regs::ERROR_INVALID_REQUEST);
        assert_eq!(PieceList::new(&[], 0).expect_err("refused").error, regs::ERROR_INVALID_LENGTH);
        let many: Vec<_> = (0..=FILES_MAX).map(|_| Piece { file: file(), offset: 0, len: 4096 }).collect();
        assert_eq!(PieceList::new(&many, 17 * 4096).expect_err("refused").error, regs::ERROR_TOO_LARGE);
    }
}
