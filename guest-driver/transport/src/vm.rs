//! The VM transport: `/dev/vgpu`.

use core::time::Duration;
use std::os::fd::OwnedFd;

use pci_layout::ring::{RING_BYTES, SESSION_PAGE_BYTES};
use pci_layout::uapi::{
    IOCTL_NR_ADD_STAGING, IOCTL_NR_CLOSE_SESSION, IOCTL_NR_CREATE_RING, IOCTL_NR_GET_INFO, IOCTL_NR_KICK,
    IOCTL_NR_MAP_REGION, IOCTL_NR_OPEN_SESSION, IOCTL_NR_READ_REGS, IOCTL_NR_REMOVE_RING,
    IOCTL_NR_UNMAP_REGION, IOCTL_NR_WAIT, IOCTL_TYPE, IoctlInfo, IoctlOpen, IoctlRegion, IoctlRegs,
    IoctlRing, IoctlWait, MMAP_RING_STRIDE, MMAP_SESSION_PAGE, MMAP_STAGING_OFFSET,
};
use pci_layout::{ABI_VERSION, regs};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{self, Errno};
use rustix::ioctl::{NoArg, Opcode, Updater, ioctl, opcode};
use rustix::mm::ProtFlags;

use crate::error::{ControlError, OpenError};
use crate::mapping::Mapping;
use crate::session::{OpenParams, Opened};

/// The device file.
pub(crate) const PATH: &str = "/dev/vgpu";

/// The longest sleep without looking at the session's state, though the kernel wakes everybody when it dies: a lost
/// event must not mean a lost thread.
const SLEEP_SLICE: Duration = Duration::from_millis(500);

/// An open `/dev/vgpu`.
#[derive(Debug)]
pub(crate) struct VmLink {
    file: OwnedFd,
}

/// An ioctl with an argument, by its number.
const fn op<T>(number: u32) -> Opcode {
    #[allow(clippy::cast_possible_truncation, reason = "type and numbers are below 256")]
    opcode::read_write::<T>(IOCTL_TYPE as u8, number as u8)
}

/// An ioctl without one.
const fn op_none(number: u32) -> Opcode {
    #[allow(clippy::cast_possible_truncation, reason = "type and numbers are below 256")]
    opcode::none(IOCTL_TYPE as u8, number as u8)
}

impl VmLink {
    pub(crate) fn connect() -> Result<Self, OpenError> {
        let path = || PATH.to_owned();
        match open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(Self { file }),
            Err(Errno::NOENT) => Err(OpenError::NotFound { path: path() }),
            Err(Errno::ACCESS | Errno::PERM) => Err(OpenError::PermissionDenied { path: path() }),
            // The file is there; its device is gone, or the daemon behind it has not greeted back (yet).
            Err(errno @ (Errno::NXIO | Errno::NODEV | Errno::AGAIN)) => Err(OpenError::NotAnswering(errno)),
            Err(Errno::PROTO) => Err(OpenError::DriverMismatch),
            Err(errno) => Err(OpenError::System { what: "open of /dev/vgpu", errno }),
        }
    }

    fn call<const OPCODE: Opcode, T>(&self, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: the opcode is built from the number whose argument type the uapi module gives; the kernel module
            // reads and writes that structure, and user memory that it names is handled below.
            match unsafe { ioctl(&self.file, Updater::<OPCODE, T>::new(argument)) } {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    fn call_none<const OPCODE: Opcode>(&self) -> io::Result<()> {
        loop {
            // SAFETY: an ioctl without argument.
            match unsafe { ioctl(&self.file, NoArg::<OPCODE>::new()) } {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    pub(crate) fn read_info(&self, offset: u32, len: u32) -> Result<Vec<u8>, ControlError> {
        let mut bytes = vec![0u8; len as usize];
        let mut argument = IoctlInfo { buf: bytes.as_mut_ptr().expose_provenance() as u64, offset, len };
        // `buf` has room for `len` bytes and lives until the ioctl returns.
        self.call::<{ op::<IoctlInfo>(IOCTL_NR_GET_INFO) }, _>(&mut argument)
            .map_err(|errno| failure("GET_INFO", errno, 0))?;
        if argument.len > len {
            return Err(ControlError::Protocol("more information than was asked for"));
        }
        bytes.truncate(argument.len as usize);
        Ok(bytes)
    }

    pub(crate) fn read_regs(&self) -> Result<[u8; regs::BLOCK_BYTES as usize], ControlError> {
        let mut argument = IoctlRegs { block: [0; regs::BLOCK_BYTES as usize] };
        self.call::<{ op::<IoctlRegs>(IOCTL_NR_READ_REGS) }, _>(&mut argument)
            .map_err(|errno| failure("READ_REGS", errno, 0))?;
        Ok(argument.block)
    }

    pub(crate) fn open(&self, params: &OpenParams<'_>) -> Result<Opened, OpenError> {
        let mut argument = IoctlOpen {
            abi_version: ABI_VERSION,
            error: 0,
            fingerprint: params.fingerprint,
            env: params.env.as_ptr().expose_provenance() as u64,
            env_len: u32::try_from(params.env.len())
                .map_err(|_| OpenError::Protocol("environment too long"))?,
            session: 0,
            capabilities: 0,
            cuda_result: 0,
        };
        let result = self.call::<{ op::<IoctlOpen>(IOCTL_NR_OPEN_SESSION) }, _>(&mut argument);
        if argument.error != regs::ERROR_NONE {
            return Err(OpenError::refused(argument.error, argument.cuda_result));
        }
        result.map_err(|errno| match errno {
            Errno::NODEV | Errno::NXIO | Errno::AGAIN | Errno::TIMEDOUT => OpenError::NotAnswering(errno),
            Errno::CHILD => OpenError::ForkedChild,
            Errno::PROTO => OpenError::DriverMismatch,
            Errno::USERS => OpenError::refused(regs::ERROR_QUEUE_FULL, 0),
            errno => OpenError::System { what: "OPEN_SESSION", errno },
        })?;
        let page = Mapping::new(&self.file, MMAP_SESSION_PAGE, SESSION_PAGE_BYTES as usize, ProtFlags::READ)
            .map_err(|errno| OpenError::System { what: "mmap of the session page", errno })?;
        Ok(Opened { page, slot: argument.session, capabilities: argument.capabilities })
    }

    pub(crate) fn create_ring(&self) -> Result<(u32, Mapping), ControlError> {
        let mut argument = IoctlRing { ring: 0, error: 0, len: 0 };
        self.ring_call::<{ op::<IoctlRing>(IOCTL_NR_CREATE_RING) }>("CREATE_RING", &mut argument)?;
        let ring = argument.ring;
        match self.map(ring_offset(ring), RING_BYTES as usize) {
            Ok(mapping) => Ok((ring, mapping)),
            Err(error) => {
                // The error that is told is the mapping's.
                let _ = self.remove_ring(ring);
                Err(error)
            }
        }
    }

    pub(crate) fn add_staging(&self, ring: u32, len: usize) -> Result<Mapping, ControlError> {
        let mut argument = IoctlRing { ring, error: 0, len: len as u64 };
        self.ring_call::<{ op::<IoctlRing>(IOCTL_NR_ADD_STAGING) }>("ADD_STAGING", &mut argument)?;
        self.map(ring_offset(ring) + MMAP_STAGING_OFFSET, len)
    }

    pub(crate) fn remove_ring(&self, ring: u32) -> Result<(), ControlError> {
        let mut argument = IoctlRing { ring, error: 0, len: 0 };
        self.ring_call::<{ op::<IoctlRing>(IOCTL_NR_REMOVE_RING) }>("REMOVE_RING", &mut argument)
    }

    pub(crate) fn map_region(&self, va: u64, len: u64, flags: u32) -> Result<u32, ControlError> {
        let mut argument = IoctlRegion { va, len, flags, region: 0, error: 0, reserved: 0 };
        let result = self.call::<{ op::<IoctlRegion>(IOCTL_NR_MAP_REGION) }, _>(&mut argument);
        settle("MAP_REGION", result, argument.error)?;
        Ok(argument.region)
    }

    pub(crate) fn unmap_region(&self, region: u32, va: u64, len: u64) -> Result<(), ControlError> {
        let mut argument = IoctlRegion { va, len, flags: 0, region, error: 0, reserved: 0 };
        let result = self.call::<{ op::<IoctlRegion>(IOCTL_NR_UNMAP_REGION) }, _>(&mut argument);
        settle("UNMAP_REGION", result, argument.error)
    }

    pub(crate) fn close(&self) -> Result<(), ControlError> {
        let result = self.call_none::<{ op_none(IOCTL_NR_CLOSE_SESSION) }>();
        settle("CLOSE_SESSION", result, 0)
    }

    pub(crate) fn kick(&self) -> io::Result<()> {
        self.call_none::<{ op_none(IOCTL_NR_KICK) }>()
    }

    /// Sleeps until the ring is woken, the session dies, a signal comes, or a slice of time is over.
    pub(crate) fn sleep(&self, ring: u32) -> io::Result<()> {
        #[allow(clippy::cast_possible_truncation, reason = "half a second")]
        let mut argument = IoctlWait { ring, timeout_ms: SLEEP_SLICE.as_millis() as u32 };
        // SAFETY: as in `call`.
        let result = unsafe {
            ioctl(&self.file, Updater::<{ op::<IoctlWait>(IOCTL_NR_WAIT) }, _>::new(&mut argument))
        };
        match result {
            Ok(()) | Err(Errno::INTR | Errno::TIME) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn ring_call<const OPCODE: Opcode>(
        &self,
        what: &'static str,
        argument: &mut IoctlRing,
    ) -> Result<(), ControlError> {
        let result = self.call::<OPCODE, _>(argument);
        settle(what, result, argument.error)
    }

    fn map(&self, offset: u64, len: usize) -> Result<Mapping, ControlError> {
        Mapping::new(&self.file, offset, len, ProtFlags::READ | ProtFlags::WRITE)
            .map_err(|errno| ControlError::System { what: "mmap of a ring", errno })
    }
}

/// Where a ring's memory lies in the device file.
fn ring_offset(ring: u32) -> u64 {
    MMAP_RING_STRIDE * (u64::from(ring) + 1)
}

fn settle(what: &'static str, result: io::Result<()>, error: u32) -> Result<(), ControlError> {
    match result {
        Ok(()) if error == regs::ERROR_NONE => Ok(()),
        Ok(()) => Err(ControlError::Refused { error, cuda_result: 0 }),
        Err(errno) => Err(failure(what, errno, error)),
    }
}

fn failure(what: &'static str, errno: Errno, error: u32) -> ControlError {
    match errno {
        _ if error != regs::ERROR_NONE => ControlError::Refused { error, cuda_result: 0 },
        Errno::CHILD => ControlError::ForkedChild,
        Errno::NODEV | Errno::NXIO | Errno::SHUTDOWN | Errno::PIPE => ControlError::Dead(0),
        Errno::TIMEDOUT => ControlError::Timeout,
        Errno::MFILE | Errno::NOSPC => ControlError::Exhausted,
        errno => ControlError::System { what, errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_what_the_kernel_macros_make() {
        // _IOWR(type, nr, size) = 3 << 30 | size << 16 | type << 8 | nr; _IO has neither direction nor size.
        assert_eq!(u64::from(op::<IoctlOpen>(IOCTL_NR_OPEN_SESSION)), 3 << 30 | 48 << 16 | 0xb7 << 8 | 3);
        assert_eq!(u64::from(op::<IoctlRegs>(IOCTL_NR_READ_REGS)), 3 << 30 | 256 << 16 | 0xb7 << 8 | 2);
        assert_eq!(u64::from(op_none(IOCTL_NR_KICK)), 0xb7 << 8 | 9);
    }

    #[test]
    fn a_refusal_is_told_before_the_errno_that_carries_it() {
        let refused = ControlError::Refused { error: regs::ERROR_QUEUE_FULL, cuda_result: 0 };
        assert_eq!(settle("X", Err(Errno::REMOTEIO), regs::ERROR_QUEUE_FULL), Err(refused.clone()));
        assert_eq!(settle("X", Ok(()), regs::ERROR_QUEUE_FULL), Err(refused));
        assert_eq!(settle("X", Err(Errno::CHILD), 0), Err(ControlError::ForkedChild));
    }
}
