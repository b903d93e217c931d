//! The command ring and the session page: the data path, in guest memory that both sides map.
//!
//! One ring per guest thread that calls CUDA. Its memory is [`RING_BYTES`] long: a header page, the frame area, the
//! reply area. Positions count bytes since the ring was made and never wrap; the offset in the area is the position
//! modulo its size. A frame lies in one piece: where it would pass the end of the area, a frame with
//! [`FRAME_PAD`] fills the rest.
//!
//! Each header field is written by one side only, and fields with different writers or different rhythms lie in
//! different cache lines. How the sides park and wake is in `pci-layout/ring`.

consts! {
    /// Rings that a session may have.
    pub const RINGS_MAX: u32 = 256;
    /// Bytes of the header at the start of the ring's memory.
    pub const HEADER_BYTES: u32 = 4096;
    /// Bytes of the frame area, a power of two.
    pub const FRAME_AREA_BYTES: u32 = 256 * 1024;
    /// Bytes of the reply area.
    pub const REPLY_AREA_BYTES: u32 = 64 * 1024;
    /// Bytes of a ring's memory: header, frames, replies.
    pub const RING_BYTES: u32 = HEADER_BYTES + FRAME_AREA_BYTES + REPLY_AREA_BYTES;
    /// Longest frame in bytes, header included. Kernel parameters alone may be 32764 bytes.
    pub const FRAME_BYTES_MAX: u32 = 64 * 1024;
    /// Frames are multiples of this many bytes.
    pub const FRAME_ALIGN: u32 = 8;
    /// Largest staging buffer of a ring, in bytes.
    pub const STAGING_BYTES_MAX: u32 = 16 * 1024 * 1024;

    /// Frame flag: the guest waits for the reply. Without it the call is posted.
    pub const FRAME_WAIT: u32 = 1 << 0;
    /// Frame flag: nothing but padding up to the end of the area.
    pub const FRAME_PAD: u32 = 1 << 1;
    /// Frame flag: the call uses the ring's staging buffer; `bulk_done` grows by one when it is finished with it.
    pub const FRAME_BULK: u32 = 1 << 2;
    /// Frame flag: the call depends on no call of another ring, and does not wait for its turn among them.
    pub const FRAME_UNORDERED: u32 = 1 << 3;

    /// Offset of `head`, u64: bytes the guest has published.
    pub const OFF_HEAD: u32 = 0x000;
    /// Offset of `tail`, u64: bytes the host has consumed.
    pub const OFF_TAIL: u32 = 0x040;
    /// Offset of `host_parked`, u32: 1 while the host needs a kick to look at the ring.
    pub const OFF_HOST_PARKED: u32 = 0x080;
    /// Offset of `guest_parked`, u32: 0, or what the guest sleeps for ([`GUEST_WAITS_PROGRESS`], [`GUEST_WAITS_SPACE`]).
    pub const OFF_GUEST_PARKED: u32 = 0x0c0;
    /// Offset of the reply header ([`Reply`]), written by the host.
    pub const OFF_REPLY: u32 = 0x100;
    /// Offset of `bulk_done`, u64: bulk frames (staging transfers) that the host has finished since the ring was made.
    pub const OFF_BULK_DONE: u32 = 0x140;
    /// Offset of `async_error`, u64: 0, or the first error of a posted call: CUresult in the low half, wire id in the
    /// high. The host writes it only where it is 0; the guest takes it by exchanging it with 0.
    pub const OFF_ASYNC_ERROR: u32 = 0x180;

    /// `guest_parked`: the guest sleeps until a reply or `bulk_done` moves.
    pub const GUEST_WAITS_PROGRESS: u32 = 1;
    /// `guest_parked`: the guest sleeps until at least half of the frame area is free.
    pub const GUEST_WAITS_SPACE: u32 = 2;

    /// First of the user addresses that workers keep free for guests' pinned memory, and that the guest's libcuda therefore takes
    /// for memory of its own making.
    pub const PINNED_WINDOW_START: u64 = 0x1000_0000_0000;
    /// The first address behind them.
    pub const PINNED_WINDOW_END: u64 = 0x1800_0000_0000;

    /// Bytes of the session page.
    pub const SESSION_PAGE_BYTES: u32 = 4096;
    /// Offset in the session page of the completion words: a u64 per ring, which the device itself writes once it gets there
    /// (`vgpuSignal` of the call table). The rest of the page up to its end.
    pub const OFF_COMPLETION: u32 = 2048;
    /// Session state: the worker is being started.
    pub const SESSION_OPENING: u32 = 0;
    /// Session state: serving.
    pub const SESSION_LIVE: u32 = 1;
    /// Session state: over; `reason` says why. Every call fails from now on.
    pub const SESSION_DEAD: u32 = 2;
}

structs! {
    /// The start of every frame.
    pub struct FrameHeader {
        /// Length in bytes, this header included, a multiple of [`FRAME_ALIGN`].
        pub len: u32,
        /// Wire id of the call.
        pub call: u32,
        /// `FRAME_` bits.
        pub flags: u32,
        /// The context current in the calling thread: its guest handle's number, 0 = none.
        pub context: u32,
        /// Process-wide number that orders calls across threads; rises within a ring, never 0.
        pub ticket: u64,
    }

    /// The reply slot. `ticket` is written last (release) and read first (acquire).
    pub struct Reply {
        /// Ticket of the frame that is answered.
        pub ticket: u64,
        /// The CUresult.
        pub result: u32,
        /// Bytes in the reply area.
        pub len: u32,
    }

    /// The session page: written by the host (and, for `wake` and `event_posted`, cleared by the guest's kernel);
    /// mapped read-only in the guest process.
    pub struct SessionPage {
        /// `SESSION_` state.
        pub state: u32,
        /// `DEATH_` value of the event module, once dead.
        pub reason: u32,
        /// The CUresult that every call answers from now on, or 0: a kernel has faulted.
        pub sticky_result: u32,
        /// 1 while a wake event is on its way: no second one is needed.
        pub event_posted: u32,
        /// Errors of posted calls so far.
        pub posted_errors: u64,
        /// Bytes that the worker's driver has printed for kernels so far.
        pub printed_bytes: u64,
        /// Not 0 while kernels may print: a completion word does not tell that their output has come.
        pub may_print: u64,
        /// Frames that may wait in a ring at a time, 0 for as many as fit. While it is not 0 the host says of each frame that it was taken.
        pub queue_depth: u64,
        /// Zero.
        pub reserved: [u64; 2],
        /// A bit per ring: its guest thread is to be woken.
        pub wake: [u64; 4],
    }
}
