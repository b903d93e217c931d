//! The calling thread: its ring, its stack of contexts, its capture mode.
//!
//! The state hangs on a pthread key and not on Rust's own thread-local destructors: those run for the main thread before
//! `atexit` handlers, and NVIDIA's runtime calls the driver from such handlers.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::OnceLock;

use cuda_api::types::{CUcontext, CUresult};
use transport::Ring;

/// What belongs to a guest thread.
pub struct ThreadState {
    /// The ring, made when first needed.
    pub ring: Option<Ring>,
    /// Current contexts, the innermost last.
    pub contexts: Vec<CUcontext>,
    /// What is known of the innermost one.
    pub place: crate::gate::Place,
    /// CUstreamCaptureMode, as cuThreadExchangeStreamCaptureMode left it.
    pub capture_mode: u32,
    /// For each slot of the staging buffer, the number of bulk frames after which it is free again.
    pub staging_slots: [u64; crate::staging::STAGING_SLOTS],
    /// The staging slot to use next.
    pub next_slot: usize,
    /// It runs functions that the device calls for, from which nothing that travels may be called.
    pub forbidden: bool,
    /// Room to lay kernel parameters out.
    pub params: Vec<u8>,
    /// Dependencies and edges that cuStreamGetCaptureInfo gave out last.
    pub capture_lists: [Vec<u64>; 2],
    /// A `_ptds` or `_ptsz` entry point is on the stack: stream 0 means the per-thread default stream.
    pub per_thread_default: bool,
    /// It has posted calls that other threads' may have to follow.
    pub unsettled: crate::order::Unsettled,
    /// The frame that it sent last.
    pub sent: crate::waiting::Sent,
    /// The stream that it saw idle last.
    pub over: Option<crate::waiting::Over>,
    /// The context and the order number of the last of copies to the device, before which the legacy stream was idle.
    pub copied: Option<(u64, u64)>,
    /// What it has sent since it saw its context idle.
    pub since: Option<crate::waiting::Since>,
    /// The time between two events that it asked for last.
    pub elapsed: Option<(crate::waiting::Elapsed, f32)>,
    /// The event that it recorded last.
    pub recorded: Option<crate::waiting::Recorded>,
    /// Answers that stay.
    pub answers: [Option<crate::answers::Answer>; crate::answers::REMEMBERED],
    /// The functions launched last, so that a launch takes no lock.
    pub functions: [Option<crate::function::Remembered>; crate::function::REMEMBERED],
}

thread_local! {
    static STATE: Cell<*mut ThreadState> = const { Cell::new(std::ptr::null_mut()) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

fn key() -> libc::pthread_key_t {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is a valid place for the result; `end` has the signature that pthread wants.
        unsafe { libc::pthread_key_create(&mut key, Some(end)) };
        key
    })
}

/// A thread has ended: its ring goes back.
extern "C" fn end(state: *mut c_void) {
    STATE.set(std::ptr::null_mut());
    // SAFETY: the key's value is a box that `with` leaked, and pthread hands it over once.
    let state = unsafe { Box::from_raw(state.cast::<ThreadState>()) };
    if crate::process::is_forked_child() {
        // The ring is the parent's; nothing of it is mapped here.
        std::mem::forget(state);
    }
}

/// The thread's state is in use; it is free again when this goes, by a panic's unwinding, too.
struct Busy;

impl Busy {
    fn enter() -> Option<Self> {
        if BUSY.replace(true) { None } else { Some(Busy) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(false);
    }
}

/// The calling thread's state. `None` if it is in use already: a call from inside another one (a signal handler).
pub fn with<R>(work: impl FnOnce(&mut ThreadState) -> R) -> Option<R> {
    let _busy = Busy::enter()?;
    let mut state = STATE.get();
    if state.is_null() {
        state = Box::into_raw(Box::new(ThreadState {
            ring: None,
            contexts: Vec::new(),
            place: crate::gate::Place::default(),
            capture_mode: 0,
            staging_slots: [0; crate::staging::STAGING_SLOTS],
            next_slot: 0,
            forbidden: false,
            params: Vec::new(),
            capture_lists: [Vec::new(), Vec::new()],
            per_thread_default: false,
            unsettled: crate::order::Unsettled::default(),
            sent: crate::waiting::Sent::default(),
            over: None,
            copied: None,
            since: None,
            elapsed: None,
            recorded: None,
            answers: [const { None }; crate::answers::REMEMBERED],
            functions: [const { None }; crate::function::REMEMBERED],
        }));
        STATE.set(state);
        // SAFETY: the key exists, and the value is the box that `end` takes.
        unsafe { libc::pthread_setspecific(key(), state.cast()) };
    }
    // SAFETY: the box lives until the thread's end, and BUSY makes this the only reference.
    Some(work(unsafe { &mut *state }))
}

/// An error of an earlier posted call of this thread, with the call's wire id. It comes out once.
#[inline]
pub fn take_async_error() -> Option<(u32, u32)> {
    let state = STATE.get();
    if state.is_null() {
        return None;
    }
    let _busy = Busy::enter()?;
    // SAFETY: the box lives until the thread's end, and BUSY makes this the only reference.
    let state = unsafe { &mut *state };
    match state.ring.as_mut() {
        Some(ring) => ring.take_async_error(),
        None if state.forbidden => Some((CUresult::NOT_PERMITTED.0, FORBIDDEN)),
        None => None,
    }
}

/// No call: in place of the one that failed, where calls are not permitted in this thread.
pub const FORBIDDEN: u32 = 0;

/// From now on calls of this thread that travel answer CUDA_ERROR_NOT_PERMITTED.
pub fn forbid_calls() {
    with(|t| t.forbidden = true);
}

/// The calling thread's current context, NULL if it has none.
pub fn current_context() -> CUcontext {
    with(|t| t.contexts.last().copied()).flatten().unwrap_or(CUcontext::NULL)
}

/// Runs a call as its per-thread default stream variant.
pub fn per_thread_default<R>(call: impl FnOnce() -> R) -> R {
    /// Puts back what was before, by a panic's unwinding, too.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            with(|t| t.per_thread_default = self.0);
        }
    }
    let _before = Before(with(|t| std::mem::replace(&mut t.per_thread_default, true)).unwrap_or(false));
    call()
}

/// The stream that a synchronous call of this thread works in.
pub fn default_stream() -> cuda_api::types::CUstream {
    if with(|t| t.per_thread_default).unwrap_or(false) {
        cuda_api::types::STREAM_PER_THREAD
    } else {
        cuda_api::types::STREAM_DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_state_free() {
        let panicked = std::panic::catch_unwind(|| with(|_| std::panic::resume_unwind(Box::new(()))));
        assert!(panicked.is_err());
        assert_eq!(with(|_| 7), Some(7));
        let panicked =
            std::panic::catch_unwind(|| per_thread_default(|| std::panic::resume_unwind(Box::new(()))));
        assert!(panicked.is_err());
        assert_eq!(default_stream(), cuda_api::types::STREAM_DEFAULT);
    }

    #[test]
    fn a_call_from_inside_a_call_is_told_so() {
        assert_eq!(with(|_| with(|_| ())), Some(None));
    }
}
