//! `/dev/vgpu`, one system call at a time.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use pci_layout::uapi::*;
use pci_layout::{ABI_VERSION, uapi};

/// An ioctl's number with an argument of this size, as _IOWR makes it.
pub const fn iowr(nr: u32, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | (IOCTL_TYPE as u64) << 8 | nr as u64
}

/// As _IO makes it.
pub const fn io(nr: u32) -> u64 {
    (IOCTL_TYPE as u64) << 8 | nr as u64
}

/// Every ioctl there is, with its argument's size.
pub const IOCTLS: [(u64, usize); 11] = [
    (iowr(IOCTL_NR_GET_INFO, size_of::<IoctlInfo>()), size_of::<IoctlInfo>()),
    (iowr(IOCTL_NR_READ_REGS, size_of::<IoctlRegs>()), size_of::<IoctlRegs>()),
    (iowr(IOCTL_NR_OPEN_SESSION, size_of::<IoctlOpen>()), size_of::<IoctlOpen>()),
    (iowr(IOCTL_NR_CREATE_RING, size_of::<IoctlRing>()), size_of::<IoctlRing>()),
    (iowr(IOCTL_NR_REMOVE_RING, size_of::<IoctlRing>()), size_of::<IoctlRing>()),
    (iowr(IOCTL_NR_ADD_STAGING, size_of::<IoctlRing>()), size_of::<IoctlRing>()),
    (iowr(IOCTL_NR_MAP_REGION, size_of::<IoctlRegion>()), size_of::<IoctlRegion>()),
    (iowr(IOCTL_NR_UNMAP_REGION, size_of::<IoctlRegion>()), size_of::<IoctlRegion>()),
    (io(IOCTL_NR_KICK), 0),
    (iowr(IOCTL_NR_WAIT, size_of::<IoctlWait>()), size_of::<IoctlWait>()),
    (io(IOCTL_NR_CLOSE_SESSION), 0),
];

/// The device, open.
#[derive(Debug)]
pub struct Device(pub File);

impl Device {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/vgpu").context("/dev/vgpu")?;
        Ok(Device(file))
    }

    /// An ioctl with any number and any argument: a number or an address.
    pub fn raw(&self, number: u64, argument: u64) -> io::Result<()> {
        // SAFETY: a driver that writes elsewhere than in the argument it was given is what is looked for. Callers give addresses
        // of memory of their own that nothing depends on, or of nothing.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), number as libc::Ioctl, argument) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// An ioctl with an argument of its own type.
    pub fn call<T>(&self, number: u64, argument: &mut T) -> io::Result<()> {
        self.raw(number, std::ptr::from_mut(argument) as u64)
    }

    /// Opens the process's session, with good manners.
    pub fn open_session(&self) -> io::Result<()> {
        let mut argument = IoctlOpen {
            abi_version: ABI_VERSION,
            error: 0,
            fingerprint: cuda_api::fingerprint(),
            env: 0,
            env_len: 0,
            session: 0,
            capabilities: 0,
            cuda_result: 0,
        };
        self.call(IOCTLS[2].0, &mut argument)
    }

    /// Opens the device and a session. An address space has one at a time, and the last one's end may be under way.
    pub fn with_session() -> Result<Self> {
        for _ in 0..200 {
            let device = Self::open()?;
            match device.open_session() {
                Ok(()) => return Ok(device),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(error) => return Err(error).context("OPEN_SESSION"),
            }
        }
        anyhow::bail!("the last session does not end")
    }

    /// Makes a ring.
    pub fn create_ring(&self) -> io::Result<u32> {
        let mut ring = IoctlRing { ring: 0, error: 0, len: 0 };
        self.call(IOCTLS[3].0, &mut ring)?;
        Ok(ring.ring)
    }

    /// Maps part of it.
    pub fn map(&self, offset: u64, len: usize, access: i32) -> io::Result<Mapping> {
        Mapping::new(self, offset, len, access, libc::MAP_SHARED)
    }

    /// Ends the session.
    pub fn close_session(&self) -> io::Result<()> {
        self.raw(io(uapi::IOCTL_NR_CLOSE_SESSION), 0)
    }
}

/// A mapping of the device.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: an address and a length; accesses are volatile and checked.
unsafe impl Send for Mapping {}
// SAFETY: as above; the host writes there all the time anyway.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps with any flags.
    pub fn new(device: &Device, offset: u64, len: usize, access: i32, flags: i32) -> io::Result<Self> {
        let (fd, offset) = (device.0.as_raw_fd(), offset.cast_signed());
        // SAFETY: a new mapping where the kernel chooses: callers give no MAP_FIXED.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Mapping { base: base.cast(), len })
        }
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.base as u64
    }

    /// Writes a word.
    pub fn write(&self, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "a slip of our own");
        // SAFETY: inside the mapping, aligned, by the line above; others write there too, by atomics of this size.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(self.base.add(offset).cast()) }
            .store(word, std::sync::atomic::Ordering::SeqCst);
    }

    /// Reads a word.
    pub fn read(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "a slip of our own");
        // SAFETY: as above.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(self.base.add(offset).cast()) }
            .load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; nothing refers to it.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Memory of our own, at a place and of a length that a hostile call may be given.
pub fn anonymous(len: usize, access: i32) -> io::Result<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping where the kernel chooses.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
    if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base as u64) }
}

/// Takes such memory away, whatever it is used for.
pub fn unmap(address: u64, len: usize) {
    // SAFETY: memory of `anonymous`, which nothing of this program refers to.
    unsafe { libc::munmap(address as *mut libc::c_void, len) };
}
