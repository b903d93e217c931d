//! The data window (BAR1): memory of the daemon's own, which QEMU maps into the guest as it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pci_layout::PAGE_BYTES;
use pci_layout::control::Run;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vgpu_device::memory::push_piece;
use vgpu_device::{GuestMemory, PendingPage, Piece, TranslateError};

/// The window's memory. Addresses in the mailbox's messages are offsets in it.
pub(super) struct DataWindow {
    file: Arc<OwnedFd>,
    /// The same, for what QEMU does not map and reads or writes by message.
    access: File,
    len: u64,
}

impl DataWindow {
    /// `len` bytes of zeros.
    ///
    /// # Errors
    /// There is no memory, or no descriptor.
    pub(super) fn new(len: u64) -> io::Result<Self> {
        let file = memfd_create("vgpu-bar1", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len)?;
        // Workers map it and QEMU has it: nobody shall be able to take it from under the others.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let access = File::from(file.try_clone()?);
        Ok(Self { file: Arc::new(file), access, len })
    }

    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The descriptor that QEMU gets.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Reads `buf.len()` bytes from `offset` on; past the end they are 0.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        let here = self.inside(offset, buf.len());
        match buf.get_mut(..here) {
            Some(buf) if here > 0 => self.access.read_exact_at(buf, offset),
            _ => Ok(()),
        }
    }

    /// Writes `data` from `offset` on, as far as the window goes.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match data.get(..self.inside(offset, data.len())) {
            Some(data) if !data.is_empty() => self.access.write_all_at(data, offset),
            _ => Ok(()),
        }
    }

    fn inside(&self, offset: u64, len: usize) -> usize {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        len.min(rest)
    }
}

impl GuestMemory for DataWindow {
    fn translate(&self, run: Run, pieces: &mut Vec<Piece>) -> Result<(), TranslateError> {
        match run.gpa.checked_add(run.len) {
            Some(end) if end <= self.len => {
                push_piece(pieces, Piece { file: self.file.clone(), offset: run.gpa, len: run.len });
                Ok(())
            }
            _ => Err(TranslateError { address: run.gpa, len: run.len }),
        }
    }

    fn pending_page(&self, gpa: u64) -> Result<Arc<dyn PendingPage>, TranslateError> {
        // Only a HELLO has one, and the mailbox has no HELLO.
        Err(TranslateError { address: gpa, len: PAGE_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_end_where_the_window_ends() {
        let window = DataWindow::new(1 << 24).unwrap();
        window.write((1 << 24) - 3, &[1, 2, 3, 4, 5]).unwrap();
        let mut read = [9; 8];
        window.read((1 << 24) - 4, &mut read).unwrap();
        assert_eq!(read, [0, 1, 2, 3, 0, 0, 0, 0]);
        for offset in [1 << 24, u64::MAX, u64::MAX - 3] {
            window.write(offset, &[7; 8]).unwrap();
            window.read(offset, &mut read).unwrap();
            assert_eq!(read, [0; 8]);
        }
        assert_eq!(rustix::fs::fstat(&window.access).unwrap().st_size, 1 << 24);
    }

    #[test]
    fn runs_lie_inside() {
        let window = DataWindow::new(1 << 24).unwrap();
        let mut pieces = Vec::new();
        window.translate(Run { gpa: 4096, len: 8192 }, &mut pieces).unwrap();
        assert_eq!((pieces.len(), pieces[0].offset, pieces[0].len), (1, 4096, 8192));
        for (gpa, len) in [(1 << 24, 4096), (0, (1 << 24) + 4096), (u64::MAX - 4095, 4096), (4096, u64::MAX)]
        {
            assert!(window.translate(Run { gpa, len }, &mut pieces).is_err());
        }
    }
}
