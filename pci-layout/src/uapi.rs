//! The ioctls of `/dev/vgpu`. One file, one session, one process: OPEN_SESSION ties the file to the caller's address
//! space, and every later ioctl from another address space (a forked child's) fails with ECHILD.
//!
//! mmap: offset 0 is the session page (read-only); [`MMAP_RING_STRIDE`] × (ring + 1) is a ring's memory, that plus
//! [`MMAP_STAGING_OFFSET`] its staging buffer. Mappings are not inherited by fork.

consts! {
    /// The ioctl type byte.
    pub const IOCTL_TYPE: u32 = 0xb7;
    /// mmap offset of the session page.
    pub const MMAP_SESSION_PAGE: u64 = 0;
    /// mmap offset between rings, in bytes.
    pub const MMAP_RING_STRIDE: u64 = 0x1_0000_0000;
    /// mmap offset of a ring's staging buffer from the ring's own, in bytes.
    pub const MMAP_STAGING_OFFSET: u64 = 0x8000_0000;

    /// `_IOWR`, [`IoctlInfo`]: reads the device and VM information.
    pub const IOCTL_NR_GET_INFO: u32 = 1;
    /// `_IOWR`, [`IoctlRegs`]: reads the register block.
    pub const IOCTL_NR_READ_REGS: u32 = 2;
    /// `_IOWR`, [`IoctlOpen`].
    pub const IOCTL_NR_OPEN_SESSION: u32 = 3;
    /// `_IOWR`, [`IoctlRing`]: makes a ring; its index comes back.
    pub const IOCTL_NR_CREATE_RING: u32 = 4;
    /// `_IOWR`, [`IoctlRing`]: removes a ring.
    pub const IOCTL_NR_REMOVE_RING: u32 = 5;
    /// `_IOWR`, [`IoctlRing`]: gives a ring a staging buffer of `len` bytes.
    pub const IOCTL_NR_ADD_STAGING: u32 = 6;
    /// `_IOWR`, [`IoctlRegion`]: pins user memory and maps it in the worker at the same address.
    pub const IOCTL_NR_MAP_REGION: u32 = 7;
    /// `_IOWR`, [`IoctlRegion`]: takes it back.
    pub const IOCTL_NR_UNMAP_REGION: u32 = 8;
    /// `_IO`: a ring whose host side is parked has frames.
    pub const IOCTL_NR_KICK: u32 = 9;
    /// `_IOWR`, [`IoctlWait`]: sleeps until the ring's wake bit is set, the session dies, or the time is over.
    pub const IOCTL_NR_WAIT: u32 = 10;
    /// `_IO`: ends the session; returns when the worker was reaped.
    pub const IOCTL_NR_CLOSE_SESSION: u32 = 11;
}

structs! {
    /// Argument of GET_INFO.
    pub struct IoctlInfo {
        /// In: where to put the bytes.
        pub buf: u64,
        /// In: first byte wanted.
        pub offset: u32,
        /// In: room; out: bytes written.
        pub len: u32,
    }

    /// Argument of READ_REGS.
    pub struct IoctlRegs {
        /// Out: the register block.
        pub block: [u8; 256],
    }

    /// Argument of OPEN_SESSION.
    pub struct IoctlOpen {
        /// In: ABI version of libcuda.
        pub abi_version: u32,
        /// Out: an `ERROR_` value of the register block if the device refused (the ioctl then fails with EREMOTEIO).
        pub error: u32,
        /// In: call table fingerprint.
        pub fingerprint: [u8; 16],
        /// In: the environment block.
        pub env: u64,
        /// In: its length in bytes.
        pub env_len: u32,
        /// Out: session slot.
        pub session: u32,
        /// Out: `CAP_` bits.
        pub capabilities: u32,
        /// Out: CUresult where `error` is ERROR_CUDA.
        pub cuda_result: u32,
    }

    /// Argument of CREATE_RING, REMOVE_RING and ADD_STAGING.
    pub struct IoctlRing {
        /// Ring index.
        pub ring: u32,
        /// Out: an `ERROR_` value if the device refused.
        pub error: u32,
        /// Staging length in bytes (ADD_STAGING).
        pub len: u64,
    }

    /// Argument of MAP_REGION and UNMAP_REGION.
    pub struct IoctlRegion {
        /// User address, page aligned.
        pub va: u64,
        /// Length in bytes, a multiple of the page size.
        pub len: u64,
        /// `MAP_` bits of the control module.
        pub flags: u32,
        /// Region number (out of MAP_REGION, in to UNMAP_REGION).
        pub region: u32,
        /// Out: an `ERROR_` value if the device refused.
        pub error: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Argument of WAIT.
    pub struct IoctlWait {
        /// Ring index.
        pub ring: u32,
        /// Longest sleep in milliseconds; 0 = until woken.
        pub timeout_ms: u32,
    }
}
