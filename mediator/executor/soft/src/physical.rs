//! Physical memory of virtual memory management: files in memory, which can be mapped at several addresses.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use cuda_api::account::Hold;

/// Memory without an address of its own. It counts as the device's as long as a handle or a mapping holds it.
pub(crate) struct Physical {
    file: OwnedFd,
    device: usize,
    len: u64,
    _hold: Hold,
}

impl Physical {
    /// `len` bytes of a device, zeroed, which were taken from the account.
    pub(crate) fn new(device: usize, len: u64, hold: Hold) -> io::Result<Self> {
        // SAFETY: a name that lives as long as the call.
        let fd = unsafe { libc::memfd_create(c"vgpu-memory".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: an open descriptor.
        if unsafe { libc::ftruncate(file.as_raw_fd(), size) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Physical { file, device, len, _hold: hold })
    }

    /// Whose memory it is.
    pub(crate) fn device(&self) -> usize {
        self.device
    }

    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What to map.
    pub(crate) fn file(&self) -> i32 {
        self.file.as_raw_fd()
    }
}
