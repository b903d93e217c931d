//! The register block: 256 bytes, little endian, at the start of the virtio config space (or BAR0), or carried by
//! [`crate::control::READ_REGS`] where config space is not ours. Registers are 32 bits wide unless said otherwise.

consts! {
    /// Size of the block in bytes.
    pub const BLOCK_BYTES: u32 = 256;
    /// Write: reserved. A queue kick is the doorbell; the register exists for fronts without queues.
    pub const DOORBELL: u32 = 0x00;
    /// Read: one of the `STATUS_` values.
    pub const STATUS: u32 = 0x04;
    /// Read: the VM's pool, an ASCII letter ('A', 'B' …).
    pub const POOL_ID: u32 = 0x08;
    /// Read: the VM's priority, one of the `PRIORITY_` values.
    pub const PRIORITY: u32 = 0x0c;
    /// Read: the VM's id as the host numbers it.
    pub const VM_ID: u32 = 0x10;
    /// Read: the last error, one of the `ERROR_` values.
    pub const ERROR_CODE: u32 = 0x14;
    /// Length of the request in bytes (fronts with request buffers only; 0 elsewhere).
    pub const REQUEST_LEN: u32 = 0x18;
    /// Length of the response in bytes (fronts with request buffers only; 0 elsewhere).
    pub const RESPONSE_LEN: u32 = 0x1c;
    /// Read: [`crate::ABI_VERSION`].
    pub const PROTOCOL_VER: u32 = 0x20;
    /// Read: the `CAP_` bits.
    pub const CAPABILITIES: u32 = 0x24;
    /// Write: bit 0 enables completion interrupts (fronts without queues only).
    pub const IRQ_CTRL: u32 = 0x28;
    /// Read: pending interrupt causes; write 1 to clear (fronts without queues only).
    pub const IRQ_STATUS: u32 = 0x2c;
    /// Read: the id of the last control request that was answered.
    pub const REQUEST_ID: u32 = 0x30;
    /// Read: host time of that answer, CLOCK_MONOTONIC in ns, low half.
    pub const TIMESTAMP_LO: u32 = 0x34;
    /// Read: the high half of that time.
    pub const TIMESTAMP_HI: u32 = 0x38;
    /// Read and write: keeps what was written; for probing.
    pub const SCRATCH: u32 = 0x3c;
    /// Read: the 8 bytes of [`crate::ids::TAG`].
    pub const MAGIC: u32 = 0x40;
    /// Read: number of queues.
    pub const QUEUES: u32 = 0x48;
    /// Read: rings that one session may have.
    pub const RING_LIMIT: u32 = 0x4c;
    /// Read: sessions that the VM may have at once.
    pub const SESSION_LIMIT: u32 = 0x50;
    /// Read: number of CUDA devices.
    pub const DEVICE_COUNT: u32 = 0x54;
    /// Read: the call table's fingerprint, 16 bytes.
    pub const TABLE_FINGERPRINT: u32 = 0x58;
    /// Read: VRAM quota in bytes, 64 bits; 0 = none.
    pub const VRAM_QUOTA: u32 = 0x68;
    /// Read: sessions open now.
    pub const SESSIONS_OPEN: u32 = 0x70;

    /// No session is open.
    pub const STATUS_IDLE: u32 = 0;
    /// A control request is being carried out.
    pub const STATUS_BUSY: u32 = 1;
    /// The last control request succeeded.
    pub const STATUS_DONE: u32 = 2;
    /// The last control request failed; see [`ERROR_CODE`].
    pub const STATUS_ERROR: u32 = 3;

    /// No error.
    pub const ERROR_NONE: u32 = 0;
    /// The request makes no sense: unknown type, bad handle, forged region.
    pub const ERROR_INVALID_REQUEST: u32 = 1;
    /// The request is larger than the device accepts.
    pub const ERROR_TOO_LARGE: u32 = 2;
    /// No worker can be had: no GPU, the executor failed to start, the daemon is stopping.
    pub const ERROR_MEDIATOR_UNAVAILABLE: u32 = 3;
    /// The worker did not answer in time.
    pub const ERROR_TIMEOUT: u32 = 4;
    /// The executor answered with a CUDA error.
    pub const ERROR_CUDA: u32 = 5;
    /// The pool named does not exist.
    pub const ERROR_INVALID_POOL: u32 = 6;
    /// Too many sessions, rings, regions or requests at once.
    pub const ERROR_QUEUE_FULL: u32 = 7;
    /// Known, but not supported here.
    pub const ERROR_UNSUPPORTED: u32 = 8;
    /// A length does not fit its message.
    pub const ERROR_INVALID_LENGTH: u32 = 9;
    /// The VM's rate limit was reached.
    pub const ERROR_RATE_LIMITED: u32 = 10;
    /// The VM is quarantined.
    pub const ERROR_QUARANTINED: u32 = 11;

    /// Priority low.
    pub const PRIORITY_LOW: u32 = 0;
    /// Priority medium.
    pub const PRIORITY_MEDIUM: u32 = 1;
    /// Priority high.
    pub const PRIORITY_HIGH: u32 = 2;

    /// Guest pages can be mapped by the worker: pinned memory is shared, not copied.
    pub const CAP_MAP_GUEST_PAGES: u32 = 1 << 0;
    /// The executor is a real GPU (else the software executor).
    pub const CAP_HARDWARE: u32 = 1 << 1;
}
