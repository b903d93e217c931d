//! The memory of one local message: the memfd that came with it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pci_layout::control::Run;
use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};
use vgpu_device::{GuestMemory, PendingPage, Piece, TranslateError};

/// A file whose first `len` bytes stay.
#[derive(Debug)]
pub(super) struct Memfd {
    file: Arc<OwnedFd>,
    len: u64,
}

impl Memfd {
    /// Takes a peer's file, if it can never shrink.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn take(file: OwnedFd) -> Result<Self, &'static str> {
        // Only memory files have seals: anything else fails here, also a file of a remote or strange file system.
        let seals = fcntl_get_seals(&file).map_err(|_| "the file is no memfd")?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err("the memfd is not sealed against shrinking");
        }
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err("the memfd is sealed against writing");
        }
        // After the seal was seen: from now on the length can only grow.
        let stat = fstat(&file).map_err(|_| "the file cannot be examined")?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err("the file is no memfd");
        }
        let len = u64::try_from(stat.st_size).map_err(|_| "the file has no length")?;
        Ok(Self { file: Arc::new(file), len })
    }
}

/// The memory that a message's runs lie in; none came with most messages.
#[derive(Debug, Default)]
pub(super) struct MessageMemory(pub(super) Option<Memfd>);

impl GuestMemory for MessageMemory {
    fn translate(&self, run: Run, pieces: &mut Vec<Piece>) -> Result<(), TranslateError> {
        let no_memory = TranslateError { address: run.gpa, len: run.len };
        let Some(memfd) = &self.0 else { return Err(no_memory) };
        match run.gpa.checked_add(run.len) {
            Some(end) if end <= memfd.len => {}
            _ => return Err(no_memory),
        }
        let piece = Piece { file: memfd.file.clone(), offset: run.gpa, len: run.len };
        vgpu_device::memory::push_piece(pieces, piece);
        Ok(())
    }

    fn pending_page(&self, gpa: u64) -> Result<Arc<dyn PendingPage>, TranslateError> {
        // Local processes kick their workers themselves.
        Err(TranslateError { address: gpa, len: pci_layout::PAGE_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    fn memfd(seals: SealFlags) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 8192).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    #[test]
    fn only_files_that_cannot_shrink_are_taken() {
        assert!(Memfd::take(memfd(SealFlags::SHRINK)).is_ok());
        assert!(Memfd::take(memfd(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)).is_ok());
        assert!(Memfd::take(memfd(SealFlags::GROW)).is_err());
        assert!(Memfd::take(memfd(SealFlags::SHRINK | SealFlags::WRITE)).is_err());
        assert!(Memfd::take(tempfile::tempfile().unwrap().into()).is_err());
        assert!(Memfd::take(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).is_err());
    }

    #[test]
    fn runs_past_the_file_are_refused() {
        let memory = MessageMemory(Some(Memfd::take(memfd(SealFlags::SHRINK)).unwrap()));
        let mut pieces = Vec::new();
        assert!(memory.translate(Run { gpa: 4096, len: 4096 }, &mut pieces).is_ok());
        assert_eq!((pieces[0].offset, pieces[0].len), (4096, 4096));
        assert!(memory.translate(Run { gpa: 4096, len: 8192 }, &mut pieces).is_err());
        assert!(memory.translate(Run { gpa: u64::MAX - 4095, len: 4096 }, &mut pieces).is_err());
        assert!(MessageMemory(None).translate(Run { gpa: 0, len: 4096 }, &mut pieces).is_err());
    }
}
