//! The literal PCI function: what its BARs hold where it is a function of its own (the vfio-user front) and no virtio device.
//!
//! BAR0 is the **mailbox**: the first 64 bytes of the register block ([`crate::regs`], up to SCRATCH), then one request and one
//! response. Who maps it can send a control message ([`crate::control`]) with nothing but loads and stores: write the message at
//! [`OFF_MAILBOX_REQUEST`], its length to REQUEST_LEN, anything to DOORBELL; wait until STATUS is neither busy nor idle; read
//! ERROR_CODE, RESPONSE_LEN and the answer at [`OFF_MAILBOX_RESPONSE`]. A DOORBELL while STATUS is busy does nothing. Addresses in
//! such messages are offsets in BAR1, never guest-physical ones, and there is no HELLO.
//!
//! BAR1 is the **data window**: memory of the daemon's that the guest maps as it is.
//!
//! BAR3 is the kernel driver's: the **queue registers**, by which the two virtqueues lie in guest memory as virtio's own transports
//! place them. Registers there are read and written with 32 bits; 64-bit ones low half first.

consts! {
    /// Which BAR is the mailbox.
    pub const BAR_MAILBOX: u32 = 0;
    /// Which BAR is the data window (64 bits wide, so the next one is its upper half).
    pub const BAR_DATA: u32 = 1;
    /// Which BAR has the queue registers.
    pub const BAR_QUEUES: u32 = 3;

    /// Bytes of the mailbox BAR.
    pub const MAILBOX_BAR_BYTES: u32 = 4096;
    /// Smallest data window in bytes; its size is a power of two.
    pub const DATA_BAR_BYTES_MIN: u64 = 16 * 1024 * 1024;
    /// Bytes of the queue registers' BAR.
    pub const QUEUES_BAR_BYTES: u32 = 4096;

    /// Bytes of the registers at the start of the mailbox: the block of [`crate::regs`] without what follows SCRATCH.
    pub const MAILBOX_HEAD_BYTES: u32 = 0x40;
    /// Longest request in the mailbox, and longest response, in bytes.
    pub const MAILBOX_BYTES: u32 = 1024;
    /// Mailbox: where the request is.
    pub const OFF_MAILBOX_REQUEST: u32 = 0x040;
    /// Mailbox: where the response is.
    pub const OFF_MAILBOX_RESPONSE: u32 = 0x440;
    /// Mailbox: write a session's slot: its parked worker looks at its rings.
    pub const OFF_MAILBOX_KICK: u32 = 0x840;

    /// IRQ_CTRL and IRQ_STATUS: the response is there.
    pub const IRQ_RESPONSE: u32 = 1 << 0;

    /// Queue registers, read: the 8 bytes of [`crate::ids::TAG`].
    pub const OFF_QUEUES_MAGIC: u32 = 0x00;
    /// Queue registers, read: [`crate::ABI_VERSION`].
    pub const OFF_QUEUES_VERSION: u32 = 0x08;
    /// Queue registers, read: most descriptors that a queue may have.
    pub const OFF_QUEUES_SIZE_MAX: u32 = 0x0c;
    /// Queue registers, read: the virtio features offered, 64 bits.
    pub const OFF_QUEUES_FEATURES: u32 = 0x10;
    /// Queue registers, write: the virtio features that the driver takes, 64 bits.
    pub const OFF_QUEUES_DRIVER_FEATURES: u32 = 0x18;
    /// Queue registers: the virtio device status. Writing 0 begins a reset; it reads as 0 once that is over. With DRIVER_OK (4) the queues
    /// start as they were described.
    pub const OFF_QUEUES_STATUS: u32 = 0x20;
    /// Queue registers, write: the index of a queue that has something new.
    pub const OFF_QUEUES_KICK: u32 = 0x24;
    /// Queue registers: where the description of the first queue is.
    pub const OFF_QUEUES_FIRST: u32 = 0x40;
    /// Bytes from one queue's description to the next one's.
    pub const OFF_QUEUE_STRIDE: u32 = 0x20;
    /// In a queue's description: its number of descriptors.
    pub const OFF_QUEUE_SIZE: u32 = 0x00;
    /// In a queue's description: guest-physical address of the descriptor table, 64 bits.
    pub const OFF_QUEUE_DESCRIPTORS: u32 = 0x08;
    /// In a queue's description: guest-physical address of the available ring, 64 bits.
    pub const OFF_QUEUE_AVAILABLE: u32 = 0x10;
    /// In a queue's description: guest-physical address of the used ring, 64 bits.
    pub const OFF_QUEUE_USED: u32 = 0x18;
    /// Queue registers: the register block of [`crate::regs`], whole, as the virtio config space of other fronts has it.
    pub const OFF_QUEUES_CONFIG: u32 = 0x400;
}
