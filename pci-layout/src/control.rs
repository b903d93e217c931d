//! Messages of the control queue. Only the kernel module writes them (in the guest); user space never names a
//! guest-physical address. The local transport speaks the same messages over a `SOCK_SEQPACKET` socket, where a memfd
//! passed along (SCM_RIGHTS) takes the place of the page runs.
//!
//! A request is a [`RequestHeader`], the body of its type, then the body's variable part. The answer is a
//! [`ReplyHeader`] and, where the type has one, a reply body. Every request gets exactly one answer.

consts! {
    /// Longest request in bytes: a map of 64 MiB of scattered pages. Stops a guest from making the daemon hold more.
    pub const REQUEST_BYTES_MAX: u32 = 512 * 1024;
    /// Longest answer in bytes.
    pub const REPLY_BYTES_MAX: u32 = 68 * 1024;
    /// Most page runs in one request.
    pub const RUNS_MAX: u32 = 16384;
    /// Longest environment block in bytes ([`OPEN_SESSION`]).
    pub const ENV_BYTES_MAX: u32 = 16 * 1024;
    /// Sessions that a VM may have at once; also the number of bits in the pending bitmap.
    pub const SESSIONS_MAX: u32 = 256;
    /// [`RequestHeader::session`] of an [`OPEN_SESSION`] in the local transport: the daemon chooses the slot, and the answer's body is
    /// its number, 64 bits.
    pub const SESSION_UNASSIGNED: u32 = 0xffff_ffff;
    /// Pinned regions that a session may have at once.
    pub const REGIONS_MAX: u32 = 4096;

    /// The driver's first message after it bound the device: [`Hello`] → [`HelloReply`]. Sessions left over from an
    /// earlier boot (another nonce) are killed and reaped before it is answered.
    pub const HELLO: u32 = 1;
    /// No body → the register block, [`crate::regs::BLOCK_BYTES`] bytes.
    pub const READ_REGS: u32 = 2;
    /// [`ReadInfo`] → bytes of the device and VM information, a blob that only the guest's libraries read.
    pub const READ_INFO: u32 = 3;
    /// [`OpenSession`] and the environment block → no body. Answered when a worker runs.
    pub const OPEN_SESSION: u32 = 4;
    /// [`AddRingPart`] and page runs → no body.
    pub const ADD_RING_PART: u32 = 5;
    /// [`RingRef`] → no body. The ring's thread has ended and its memory is unmapped when this is answered.
    pub const REMOVE_RING: u32 = 6;
    /// [`MapRegion`] and page runs → no body. Pinned user memory is mapped at the same address in the worker.
    pub const MAP_REGION: u32 = 7;
    /// [`RegionRef`] → no body. No page of it is mapped in the worker when this is answered.
    pub const UNMAP_REGION: u32 = 8;
    /// [`SessionRef`] → no body. Answered after the worker was reaped: only then may pages be unpinned.
    pub const CLOSE_SESSION: u32 = 9;

    /// [`ReadInfo::offset`]: from here on lies a second blob, of what changes while the VM runs. It is made anew now and then, also
    /// between the reading of two of its parts: its number stands at both of its ends.
    pub const INFO_LIVE: u32 = 1 << 31;

    /// [`AddRingPart::part`]: header, frames and replies.
    pub const PART_RING: u32 = 0;
    /// [`AddRingPart::part`]: the staging buffer.
    pub const PART_STAGING: u32 = 1;

    /// [`MapRegion::flags`]: the worker may only read it; the pages were pinned without write intent.
    pub const MAP_READ_ONLY: u32 = 1 << 0;
}

structs! {
    /// A run of guest-physical memory (or of a memfd in the local transport).
    pub struct Run {
        /// Guest-physical address, page aligned; local transport: offset in the memfd.
        pub gpa: u64,
        /// Length in bytes, a multiple of the page size, not 0.
        pub len: u64,
    }

    /// The start of every request.
    pub struct RequestHeader {
        /// One of the request types.
        pub kind: u32,
        /// Chosen by the driver, repeated in the answer and in the REQUEST_ID register.
        pub request_id: u32,
        /// Session slot, below [`SESSIONS_MAX`]; 0 where the type has none. Chosen by the driver at opening.
        pub session: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// The start of every answer.
    pub struct ReplyHeader {
        /// One of the `ERROR_` values of the register block.
        pub error: u32,
        /// The request's id.
        pub request_id: u32,
        /// Bytes that follow.
        pub len: u32,
        /// A CUresult where `error` is ERROR_CUDA, else 0.
        pub cuda_result: u32,
    }

    /// Body of [`HELLO`].
    pub struct Hello {
        /// [`crate::ABI_VERSION`] of the driver.
        pub abi_version: u32,
        /// Zero.
        pub reserved: u32,
        /// Random number made at the driver's load; another value than before means another boot.
        pub boot_nonce: u64,
        /// Guest-physical address of one page: the pending bitmap, a bit per session slot, set by the driver before a kick.
        pub pending_gpa: u64,
    }

    /// Answer to [`HELLO`].
    pub struct HelloReply {
        /// [`crate::ABI_VERSION`] of the daemon.
        pub abi_version: u32,
        /// The `CAP_` bits.
        pub capabilities: u32,
        /// Sessions that the VM may have at once.
        pub session_limit: u32,
        /// Rings that a session may have.
        pub ring_limit: u32,
    }

    /// Body of [`READ_INFO`].
    pub struct ReadInfo {
        /// First byte wanted.
        pub offset: u32,
        /// Bytes wanted, at most 64 KiB; fewer come at the end of the blob.
        pub len: u32,
    }

    /// Body of [`OPEN_SESSION`]; the environment block (NUL-terminated `NAME=value` strings) follows.
    pub struct OpenSession {
        /// [`crate::ABI_VERSION`] of libcuda.
        pub abi_version: u32,
        /// Process id in the guest, for logs and lists only.
        pub pid: u32,
        /// Call table fingerprint of libcuda.
        pub fingerprint: [u8; 16],
        /// Guest-physical address of the session page ([`crate::ring::SessionPage`]); 0 in the local transport.
        pub page_gpa: u64,
        /// Bytes of the environment block that follow.
        pub env_len: u32,
        /// User id in the guest, for logs and lists only.
        pub uid: u32,
    }

    /// Body of [`ADD_RING_PART`]; `run_count` runs follow.
    pub struct AddRingPart {
        /// Ring index, below [`crate::ring::RINGS_MAX`].
        pub ring: u32,
        /// [`PART_RING`] or [`PART_STAGING`].
        pub part: u32,
        /// Length in bytes; the ring part's is fixed ([`crate::ring::RING_BYTES`]).
        pub len: u64,
        /// Number of runs that follow; their lengths add up to `len`.
        pub run_count: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Body of [`REMOVE_RING`].
    pub struct RingRef {
        /// Ring index.
        pub ring: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Body of [`MAP_REGION`]; `run_count` runs follow. A region longer than one message can carry comes as several
    /// messages with the same region number, in rising address order, each continuing where the last ended.
    pub struct MapRegion {
        /// Region number, below [`REGIONS_MAX`], chosen by the driver.
        pub region: u32,
        /// `MAP_` bits.
        pub flags: u32,
        /// User address in the guest process, page aligned: the worker maps it at the same address.
        pub va: u64,
        /// Length in bytes of the piece that this message carries.
        pub len: u64,
        /// Number of runs that follow; their lengths add up to `len`.
        pub run_count: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Body of [`UNMAP_REGION`].
    pub struct RegionRef {
        /// Region number.
        pub region: u32,
        /// Zero.
        pub reserved: u32,
    }

    /// Body of [`CLOSE_SESSION`].
    pub struct SessionRef {
        /// Zero; the session is in the request header.
        pub reserved: u64,
    }
}
