//! What can go wrong, in words that a person can act on.

use pci_layout::regs;
use rustix::io::Errno;

/// Why no session could be opened, or the device could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing to talk to.
    #[error(
        "no vGPU device: /dev/vgpu does not exist (is the vgpu kernel module loaded?), VGPU_SOCKET is not set, and there is no PCI function of ours that this user may map"
    )]
    NoDevice,
    /// The way that was asked for leads nowhere.
    #[error("no vGPU device: {path} does not exist")]
    NotFound {
        /// The file or socket.
        path: String,
    },
    /// The file's permissions.
    #[error("permission denied on {path}: the user needs read and write access to it")]
    PermissionDenied {
        /// The file or socket.
        path: String,
    },
    /// VGPU_TRANSPORT has a value that means nothing.
    #[error("VGPU_TRANSPORT={value} is none of vm, local and bar")]
    BadSetting {
        /// Its value.
        value: String,
    },
    /// `VGPU_TRANSPORT=local` without a socket.
    #[error("VGPU_TRANSPORT=local needs VGPU_SOCKET, the path of the daemon's local socket")]
    NoSocket,
    /// The daemon does not run, has gone away, or does not answer in time.
    #[error("the vGPU daemon on the host does not answer ({0}): is vhost-user-vgpu running?")]
    NotAnswering(Errno),
    /// The daemon runs, but has no worker for this process.
    #[error("the vGPU daemon cannot start a worker now ({}): its log on the host has the reason", error_name(*.error))]
    Unavailable {
        /// ERROR_MEDIATOR_UNAVAILABLE or ERROR_TIMEOUT.
        error: u32,
    },
    /// The daemon said no.
    #[error("the vGPU daemon refused the session: {} (CUDA result {cuda_result})", error_name(*.error))]
    Refused {
        /// An `ERROR_` value of the register block.
        error: u32,
        /// A CUresult where the error is ERROR_CUDA, else 0.
        cuda_result: u32,
    },
    /// The other side speaks another version of the protocol.
    #[error(
        "version mismatch: this libcuda speaks protocol {ours}, the host {theirs}: install matching versions"
    )]
    AbiMismatch {
        /// Ours.
        ours: u32,
        /// The host's.
        theirs: u32,
    },
    /// The kernel module speaks another version than libcuda or the host.
    #[error(
        "version mismatch: the vgpu kernel module speaks another protocol version: install matching versions"
    )]
    DriverMismatch,
    /// Same protocol, another call table.
    #[error(
        "version mismatch: this libcuda and the host's daemon have different call tables: install matching versions"
    )]
    FingerprintMismatch,
    /// The process was forked after the device was opened.
    #[error("the session belongs to the parent process: CUDA cannot be used after fork")]
    ForkedChild,
    /// The other side answered something that makes no sense.
    #[error("the vGPU device answered nonsense: {0}")]
    Protocol(&'static str),
    /// The operating system refused something it should not.
    #[error("{what} failed: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

/// Why a control operation (ring, staging, region) failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The device refused, with an `ERROR_` value of the register block.
    #[error("the device refused: {} (CUDA result {cuda_result})", error_name(*.error))]
    Refused {
        /// An `ERROR_` value of the register block.
        error: u32,
        /// A CUresult where the error is ERROR_CUDA, else 0.
        cuda_result: u32,
    },
    /// The session is over, for this reason (a `DEATH_` value; 0 if only its socket is known to have ended).
    #[error("the session is over (reason {0})")]
    Dead(u32),
    /// This process is a forked child.
    #[error("the session belongs to the parent process")]
    ForkedChild,
    /// The local transport shares only memory that it made.
    #[error(
        "this memory cannot be shared with the host: the local transport shares only memory of its own making"
    )]
    NotShareable,
    /// The session has as many rings or regions as it may.
    #[error("too many rings or regions")]
    Exhausted,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The other side answered something that makes no sense.
    #[error("nonsensical answer: {0}")]
    Protocol(&'static str),
    /// The operating system refused.
    #[error("{what} failed: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

/// Why a call was not carried, or its reply did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The session is over, for this reason (a `DEATH_` value).
    #[error("the session is over (reason {0})")]
    Dead(u32),
    /// This process is a forked child.
    #[error("the session belongs to the parent process")]
    ForkedChild,
    /// The arguments do not fit a frame. Nothing was sent.
    #[error("the arguments do not fit a frame")]
    FrameTooLong,
    /// The kernel refused a kick or a wait.
    #[error("kick or wait failed: {0}")]
    System(Errno),
}

impl From<vgpu_ring::FrameTooLong> for CallError {
    fn from(_: vgpu_ring::FrameTooLong) -> Self {
        Self::FrameTooLong
    }
}

impl OpenError {
    /// The daemon's refusal, in the shape that its reader can act on.
    pub(crate) fn refused(error: u32, cuda_result: u32) -> Self {
        match error {
            regs::ERROR_MEDIATOR_UNAVAILABLE | regs::ERROR_TIMEOUT => Self::Unavailable { error },
            _ => Self::Refused { error, cuda_result },
        }
    }
}

impl From<ControlError> for OpenError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused { error, cuda_result } => Self::refused(error, cuda_result),
            ControlError::Dead(_) => Self::NotAnswering(Errno::CONNRESET),
            ControlError::Timeout => Self::NotAnswering(Errno::TIMEDOUT),
            ControlError::ForkedChild => Self::ForkedChild,
            ControlError::Protocol(what) => Self::Protocol(what),
            // The kernel module: the daemon has not greeted back (yet).
            ControlError::System { errno: Errno::AGAIN, .. } => Self::NotAnswering(Errno::AGAIN),
            ControlError::System { what, errno } => Self::System { what, errno },
            ControlError::NotShareable | ControlError::Exhausted => Self::Protocol("an error out of place"),
        }
    }
}

/// The words for an `ERROR_` value.
fn error_name(error: u32) -> &'static str {
    match error {
        regs::ERROR_INVALID_REQUEST => "invalid request",
        regs::ERROR_TOO_LARGE => "request too large",
        regs::ERROR_MEDIATOR_UNAVAILABLE => "no worker or no GPU",
        regs::ERROR_TIMEOUT => "the worker did not answer in time",
        regs::ERROR_CUDA => "CUDA error",
        regs::ERROR_INVALID_POOL => "invalid pool",
        regs::ERROR_QUEUE_FULL => "too many sessions, rings or regions",
        regs::ERROR_UNSUPPORTED => "not supported",
        regs::ERROR_INVALID_LENGTH => "invalid length",
        regs::ERROR_RATE_LIMITED => "rate limited",
        regs::ERROR_QUARANTINED => "this VM is quarantined",
        _ => "unknown error",
    }
}
