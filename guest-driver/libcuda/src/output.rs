//! What kernels print, brought to this process's standard output and standard error.
//!
//! The session page counts what the worker's driver has printed. A call in which the driver may have printed looks at the count
//! before it returns to the program, and fetches what is new.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cuda_api::CuResult;

use crate::objects::lock;

/// Bytes that were fetched so far, and those that are lost.
static FETCHED: AtomicU64 = AtomicU64::new(0);
/// Held from fetching to writing, so that lines stay in order.
static WRITING: Mutex<()> = Mutex::new(());

unsafe extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
}

/// There is more output than was fetched.
#[inline]
pub fn is_behind(printed: u64) -> bool {
    FETCHED.load(Ordering::Relaxed) != printed
}

/// Fetches and writes what there is. `take` asks the worker for the next bytes.
#[cold]
pub fn bring(printed: u64, mut take: impl FnMut() -> CuResult<(Vec<u8>, Vec<u8>)>) {
    let _writing = lock(&WRITING);
    if !is_behind(printed) {
        return;
    }
    // Also where the worker has lost some of it, or does not answer: the same output is asked for once.
    FETCHED.store(printed, Ordering::Relaxed);
    while let Ok((out, err)) = take() {
        if out.is_empty() && err.is_empty() {
            return;
        }
        // SAFETY: the C library's own streams.
        unsafe {
            write(stdout, &out);
            write(stderr, &err);
        }
    }
}

/// Through the C library's buffer, behind what the program has printed so far.
///
/// # Safety
/// `to` is NULL or a stream.
unsafe fn write(to: *mut libc::FILE, bytes: &[u8]) {
    if to.is_null() || bytes.is_empty() {
        return;
    }
    // SAFETY: a stream by this function's contract, and as many bytes as are given. A program may have closed it: then nobody
    // reads.
    unsafe {
        libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), to);
        libc::fflush(to);
    }
}
