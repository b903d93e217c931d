//! The driver's way of taking another process off the GPU and bringing it back. No call of the driver is made beforehand: these do
//! without cuInit, and this process gets no context.
//!
//! What driver 580 answers, as seen: CUDA_ERROR_OPERATING_SYSTEM (304) for a process that this one may not look into, and
//! CUDA_ERROR_ILLEGAL_STATE (401) for one that is in another state than the call asks for.

use std::time::Duration;

use cuda_api::CuResult;

use crate::driver::Driver;
use crate::{LoadError, dl};

/// CUcheckpointLockArgs: the time limit in milliseconds, 0 for none; the rest is reserved and zero.
#[repr(C)]
pub(crate) struct LockArgs {
    timeout_ms: u32,
    reserved0: u32,
    reserved1: [u64; 7],
}

/// CUcheckpointCheckpointArgs, CUcheckpointRestoreArgs (which can move a process to other GPUs: not asked for) and
/// CUcheckpointUnlockArgs: 64 bytes, zero.
pub(crate) type NoArgs = [u64; 8];

/// The driver's checkpoint of other processes.
pub struct Checkpoint(&'static Driver);

impl Checkpoint {
    /// Opens the driver's library.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> Result<Self, LoadError> {
        dl::driver().map(Self)
    }

    /// Holds up the process's calls of the driver, once those that are under way have returned.
    ///
    /// # Errors
    /// The driver's, CUDA_ERROR_NOT_READY where that took longer than `limit`; the process goes on.
    pub fn lock(&self, pid: i32, limit: Duration) -> CuResult<()> {
        let timeout_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
        let mut args = LockArgs { timeout_ms, reserved0: 0, reserved1: [0; 7] };
        // SAFETY: arguments in a local.
        unsafe { self.0.cuCheckpointProcessLock(pid, &raw mut args) }
    }

    /// Brings the device memory of a locked process to the host and lets go of the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn checkpoint(&self, pid: i32) -> CuResult<()> {
        let mut args: NoArgs = [0; 8];
        // SAFETY: arguments in a local.
        unsafe { self.0.cuCheckpointProcessCheckpoint(pid, &raw mut args) }
    }

    /// Brings it back. The process stays locked.
    ///
    /// # Errors
    /// The driver's: CUDA_ERROR_OUT_OF_MEMORY where others have the device's memory.
    pub fn restore(&self, pid: i32) -> CuResult<()> {
        let mut args: NoArgs = [0; 8];
        // SAFETY: arguments in a local.
        unsafe { self.0.cuCheckpointProcessRestore(pid, &raw mut args) }
    }

    /// Lets the process's calls go on.
    ///
    /// # Errors
    /// The driver's.
    pub fn unlock(&self, pid: i32) -> CuResult<()> {
        let mut args: NoArgs = [0; 8];
        // SAFETY: arguments in a local.
        unsafe { self.0.cuCheckpointProcessUnlock(pid, &raw mut args) }
    }

    /// The process's CUprocessState.
    ///
    /// # Errors
    /// The driver's.
    pub fn state(&self, pid: i32) -> CuResult<u32> {
        self.0.cuCheckpointProcessGetState(pid).map(|(state,)| state)
    }
}
