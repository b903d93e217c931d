//! What processes of one VM share: memory and events of one that another may open. An executor gives the driver's handle to
//! its supervisor and gets a token for it, which the guest carries wherever it likes; whoever brings the token gets the
//! handle from the supervisor. What a guest says never reaches the driver as a handle.

use std::os::fd::OwnedFd;

use crate::CuResult;

/// Bytes of a token, and of the driver's own handle.
pub const TOKEN_BYTES: usize = 64;
/// Random bytes that stand for something shared. Knowing them is the right to open it.
pub type Token = [u8; TOKEN_BYTES];

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum What {
    /// Device memory of cuMemAlloc.
    Memory = 1,
    /// An event.
    Event = 2,
    /// Physical memory of cuMemCreate.
    Allocation = 3,
    /// A memory pool.
    Pool = 4,
}

/// Something shared, as the driver knows it.
#[derive(Debug)]
pub struct Shared {
    /// What it is.
    pub what: What,
    /// Bytes of the memory; 0 where there is none.
    pub len: u64,
    /// The driver's handle, or zeros.
    pub handle: [u8; TOKEN_BYTES],
    /// The driver's descriptor.
    pub file: Option<OwnedFd>,
}

/// The supervisor, for a worker's executor.
pub trait Sharing: Send + Sync {
    /// Shares something until it is withdrawn or the session ends.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY where too much is shared, CUDA_ERROR_OPERATING_SYSTEM where the supervisor does not answer.
    fn share(&self, shared: Shared) -> CuResult<Token>;

    /// What a token of this VM stands for.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where it stands for nothing, or for something else; as for [`Sharing::share`].
    fn open(&self, what: What, token: &Token) -> CuResult<Shared>;

    /// The token stands for nothing any more; one of another session's is left alone.
    fn withdraw(&self, token: &Token);
}
