//! Messages of the event queue. The driver keeps buffers of [`EVENT_BYTES`] posted; the device fills one per event.

consts! {
    /// Size of an event buffer in bytes.
    pub const EVENT_BYTES: u32 = 32;
    /// Buffers that the driver keeps posted. Wakes coalesce per session, so one per session slot is enough.
    pub const EVENT_BUFFERS: u32 = 64;

    /// Threads of a session are to be woken: the bits of [`crate::ring::SessionPage::wake`] say which.
    pub const EVENT_WAKE: u32 = 1;
    /// The session has died; `reason` is one of the `DEATH_` values. Every thread that waits for it is to be woken.
    pub const EVENT_SESSION_DIED: u32 = 2;

    /// The worker ended without being asked to (killed, crashed).
    pub const DEATH_WORKER_LOST: u32 = 1;
    /// The guest sent a frame that cannot be parsed, or forged something; the daemon's log has the reason.
    pub const DEATH_MALFORMED: u32 = 2;
    /// The daemon is ending, or the device was reset.
    pub const DEATH_SHUTDOWN: u32 = 3;
    /// The executor could not go on.
    pub const DEATH_EXECUTOR: u32 = 4;
    /// A kernel ran longer than the VM's kernels may.
    pub const DEATH_TIMEOUT: u32 = 5;
}

structs! {
    /// An event.
    pub struct Event {
        /// [`EVENT_WAKE`] or [`EVENT_SESSION_DIED`].
        pub kind: u32,
        /// Session slot.
        pub session: u32,
        /// `DEATH_` value, or 0.
        pub reason: u32,
        /// Zero.
        pub reserved: [u32; 5],
    }
}
