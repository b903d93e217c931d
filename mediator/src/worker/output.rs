//! What the executor's library prints into this process: kernels' `printf` and `assert`. Standard output and standard error
//! are files of the session's own for it, so that it reaches the guest and not the daemon's log (which `start_log` of the
//! daemon has moved to a descriptor of its own).
//!
//! A file, not a pipe: a pipe that is full would stop the driver in the middle of a synchronisation. What has been taken, and
//! what nobody takes in time, is cut out of the file; its length only ever grows, so that writers need no lock of ours.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use cuda_api::output::{DeviceOutput, OUTPUT_BYTES_MAX};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags};

/// Bytes of one stream that are kept for the guest; older ones are lost. The driver's own buffer is 1 MiB, if the guest
/// does not change it.
const KEPT_BYTES_MAX: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;

struct Stream {
    file: OwnedFd,
    /// What comes before this was taken, or is lost.
    taken: Mutex<u64>,
}

impl Stream {
    fn new(name: &str) -> rustix::io::Result<Self> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        // Whoever writes does so at the end, wherever the file's position is.
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
        Ok(Self { file, taken: Mutex::new(0) })
    }

    fn len(&self) -> u64 {
        rustix::fs::fstat(&self.file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Moves the start of what is kept.
    fn cut(&self, taken: &mut u64, start: u64) {
        let from = *taken & !(PAGE_BYTES.wrapping_sub(1));
        *taken = start;
        let to = start & !(PAGE_BYTES.wrapping_sub(1));
        if to > from {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // The pages are given back with the process at the latest.
            let _ = rustix::fs::fallocate(&self.file, flags, from, to.saturating_sub(from));
        }
    }

    fn take(&self) -> Vec<u8> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let len = self.len().saturating_sub(*taken).min(OUTPUT_BYTES_MAX as u64);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = rustix::io::pread(&self.file, bytes.as_mut_slice(), *taken).unwrap_or(0);
        bytes.truncate(read);
        let start = taken.saturating_add(read as u64);
        self.cut(&mut taken, start);
        bytes
    }

    /// Bytes printed so far; drops what is too much to keep.
    fn printed(&self) -> u64 {
        let len = self.len();
        let oldest = len.saturating_sub(KEPT_BYTES_MAX);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if oldest > *taken {
            self.cut(&mut taken, oldest);
        }
        len
    }
}

/// The session's output.
pub(super) struct Output {
    out: Stream,
    err: Stream,
}

impl Output {
    /// Takes this process's standard output and standard error over.
    pub(super) fn capture() -> rustix::io::Result<Self> {
        let this = Self { out: Stream::new("vgpu-stdout")?, err: Stream::new("vgpu-stderr")? };
        rustix::stdio::dup2_stdout(this.out.file.as_fd())?;
        rustix::stdio::dup2_stderr(this.err.file.as_fd())?;
        Ok(this)
    }

    /// Bytes printed so far, on both together.
    pub(super) fn printed(&self) -> u64 {
        // SAFETY: writes out what C code of this process has buffered; all streams, as the driver's is not ours to name.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        self.out.printed().wrapping_add(self.err.printed())
    }
}

impl DeviceOutput for Output {
    fn print(&self, text: &[u8]) {
        // Standard output is a file: it takes all of it at once, or there is no room for more.
        if rustix::io::write(&self.out.file, text).is_err() {
            log::warn!("there is no room for what kernels print");
        }
        self.out.printed();
    }

    fn take(&self) -> (Vec<u8>, Vec<u8>) {
        (self.out.take(), self.err.take())
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)] // a test's
mod tests {
    use super::*;

    #[test]
    fn bytes_come_once_in_order_and_old_ones_go() {
        let stream = Stream::new("test").expect("memfd");
        let line = [b'x'; 100];
        for _ in 0..1000 {
            rustix::io::write(&stream.file, &line).expect("written");
        }
        assert_eq!(stream.printed(), 100_000);
        let mut taken = 0;
        loop {
            let bytes = stream.take();
            if bytes.is_empty() {
                break;
            }
            assert!(bytes.len() <= OUTPUT_BYTES_MAX && bytes.iter().all(|byte| *byte == b'x'));
            taken += bytes.len();
        }
        assert_eq!(taken, 100_000);
        rustix::io::write(&stream.file, b"after").expect("written");
        assert_eq!(stream.take(), b"after");
        let much = vec![b'y'; 1 << 20];
        for _ in 0..20 {
            rustix::io::write(&stream.file, &much).expect("written");
        }
        rustix::io::write(&stream.file, b"end").expect("written");
        let _ = stream.printed();
        let mut kept = Vec::new();
        loop {
            let bytes = stream.take();
            if bytes.is_empty() {
                break;
            }
            kept.extend(bytes);
        }
        assert_eq!(kept.len() as u64, KEPT_BYTES_MAX);
        assert!(kept.ends_with(b"yend"));
        let blocks = rustix::fs::fstat(&stream.file).expect("stat").st_blocks;
        assert!(blocks <= 16, "{blocks} blocks are still held");
    }
}
