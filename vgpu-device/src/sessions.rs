//! The boundary to whoever carries requests out: the mediator in the daemon, a fake in the tests.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pci_layout::{control, regs};

use crate::ids::{RegionId, RingId, SessionId};
use crate::memory::Piece;

/// How a session's guest threads are woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// By an event ([`crate::EventQueue`]): the guest's kernel wakes its threads.
    Event,
    /// By the host's futex on the word that they sleep on: guest process and worker share a kernel.
    Futex,
}

/// What a session is opened with.
#[derive(Debug)]
pub struct Open {
    /// Process id in the guest, for logs and lists only.
    pub pid: u32,
    /// User id in the guest, for logs and lists only.
    pub uid: u32,
    /// Call table fingerprint of the guest's libcuda.
    pub fingerprint: [u8; 16],
    /// NUL-terminated `NAME=value` strings, checked to be that.
    pub env: Vec<u8>,
    /// The session page, one page long.
    pub page: Piece,
    /// How its threads are woken.
    pub wake: Wake,
}

/// The two memories of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingPart {
    /// Header, frames and replies.
    Ring,
    /// The staging buffer.
    Staging,
}

impl RingPart {
    /// The number on the wire.
    pub fn wire(self) -> u32 {
        match self {
            Self::Ring => control::PART_RING,
            Self::Staging => control::PART_STAGING,
        }
    }
}

/// Why a request failed, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionError {
    /// One of the `ERROR_` values of [`pci_layout::regs`], not `ERROR_NONE`.
    pub error: u32,
    /// The CUresult where `error` is `ERROR_CUDA`, else 0.
    pub cuda_result: u32,
}

impl SessionError {
    /// An error that is not CUDA's.
    pub fn new(error: u32) -> Self {
        Self { error, cuda_result: 0 }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            regs::ERROR_CUDA => write!(f, "CUDA error {}", self.cuda_result),
            error => f.write_str(error_name(error)),
        }
    }
}

/// The words for an `ERROR_` value in log lines.
pub fn error_name(error: u32) -> &'static str {
    match error {
        regs::ERROR_NONE => "no error",
        regs::ERROR_INVALID_REQUEST => "invalid request",
        regs::ERROR_TOO_LARGE => "too large",
        regs::ERROR_MEDIATOR_UNAVAILABLE => "mediator unavailable",
        regs::ERROR_TIMEOUT => "timeout",
        regs::ERROR_CUDA => "CUDA error",
        regs::ERROR_INVALID_POOL => "invalid pool",
        regs::ERROR_QUEUE_FULL => "too many at once",
        regs::ERROR_UNSUPPORTED => "unsupported",
        regs::ERROR_INVALID_LENGTH => "invalid length",
        regs::ERROR_RATE_LIMITED => "rate limited",
        regs::ERROR_QUARANTINED => "quarantined",
        _ => "unknown error",
    }
}

/// Called once, from any thread, when an operation is over.
pub type Done = Box<dyn FnOnce(Result<(), SessionError>) + Send>;

/// Whoever carries requests out. Operations of one session run in the order of the calls; none of the methods that take
/// a [`Done`] blocks its caller for long. The device has checked every number; a session it names was opened and not
/// yet closed (or is being opened).
pub trait Sessions: Send + Sync {
    /// The blob that READ_INFO carries; only the guest's libraries read it.
    fn info(&self) -> Arc<[u8]>;
    /// The blob of what changes meanwhile, from INFO_LIVE on: what is known, without asking anybody. It is made `anew` where its
    /// beginning is read, and is what was made last where another part is.
    fn live_info(&self, anew: bool) -> Arc<[u8]>;
    /// The `CAP_` bits.
    fn capabilities(&self) -> u32;
    /// Number of CUDA devices.
    fn device_count(&self) -> u32;
    /// The call table's fingerprint.
    fn fingerprint(&self) -> [u8; 16];

    /// Starts a worker for a guest process.
    fn open_session(&self, session: SessionId, open: Open, done: Done);
    /// Gives the worker a ring's memory, or its staging buffer: `pieces`, together `len` bytes.
    fn add_ring_part(
        &self,
        session: SessionId,
        ring: RingId,
        part: RingPart,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    );
    /// Ends a ring's thread and unmaps its memory.
    fn remove_ring(&self, session: SessionId, ring: RingId, done: Done);
    /// Maps `pieces`, together `len` bytes, one after the other from address `va` on, for reading only if `read_only`. A
    /// region that exists is continued.
    fn map_region(
        &self,
        session: SessionId,
        region: RegionId,
        read_only: bool,
        va: u64,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    );
    /// Unmaps all that was mapped under that number.
    fn unmap_region(&self, session: SessionId, region: RegionId, done: Done);
    /// Ends the session; done when the worker was reaped.
    fn close_session(&self, session: SessionId, done: Done);

    /// A descriptor by which a guest process of this host kicks its session's worker itself; `None` while none runs.
    fn kick_fd(&self, session: SessionId) -> Option<OwnedFd>;
    /// A ring of the session has frames and its host side is parked.
    fn kick(&self, session: SessionId);
    /// The VM was paused: workers stop dispatching.
    fn stop(&self);
    /// The VM goes on.
    fn resume(&self);
    /// Kills and reaps every worker; returns when that is done.
    fn reset(&self);
}
