//! What kernels print. The driver writes it to the standard output (`printf`) and standard error (`assert`) of the process that it
//! is in, which is a worker; it belongs on those of the guest's.

/// Bytes of one stream's output in one reply.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// What the worker's process has printed, for its executor.
pub trait DeviceOutput: Send + Sync {
    /// Prints on standard output, for an executor that has no library to do it.
    fn print(&self, text: &[u8]);

    /// The next bytes of standard output and of standard error, at most [`OUTPUT_BYTES_MAX`] each. They come once.
    fn take(&self) -> (Vec<u8>, Vec<u8>);
}
