//! Context-local storage: what NVIDIA's libraries keep per context, each under a key of its own (an address inside the
//! library). The runtime looks its key up in practically every call, so a look-up that hits costs two loads of a sequence
//! number and no lock.
//!
//! Truth lies in [`State`], behind a mutex; [`MIRROR`] repeats some of its entries for readers without a lock. An entry that
//! has no place in the mirror is found in the state. [`context_destroyed`] takes a context's entries out of both.
//!
//! Rules, as measured on driver 580: a second put under a key and a look-up or delete of an absent one answer
//! CUDA_ERROR_INVALID_HANDLE; no current context, or one that is not alive, CUDA_ERROR_INVALID_CONTEXT. A destructor runs
//! when its context ends, and only then.

mod mirror;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use cuda_api::types::CUcontext;
use cuda_api::{CUresult, CuResult};
use mirror::Mirror;

/// What a library calls its value by: an address that nobody else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub *mut c_void);

/// Called with context, key and value when the context dies.
pub type Destructor = unsafe extern "C" fn(CUcontext, *mut c_void, *mut c_void);

struct Entry {
    key: Key,
    value: *mut c_void,
    destructor: Option<Destructor>,
}

// SAFETY: key and value are a library's opaque words; nothing is read through them here.
unsafe impl Send for Entry {}

/// Entries by context, in the order in which they were made. A context has a handful: one per copy of the runtime.
type State = HashMap<CUcontext, Vec<Entry>>;

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);
static MIRROR: Mirror = Mirror::new();

fn state() -> MutexGuard<'static, State> {
    // Nothing panics while it holds the lock, and each change is complete at once.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The context that is meant: NULL is the calling thread's. The first question of every call is whether the driver may be
/// used at all: a forked child must not wait for a lock that its parent held.
#[inline]
fn resolve(ctx: CUcontext) -> CuResult<CUcontext> {
    crate::process::initialised()?;
    let ctx = if ctx.is_null() { crate::thread::current_context() } else { ctx };
    if ctx.is_null() { Err(CUresult::INVALID_CONTEXT) } else { Ok(ctx) }
}

fn check(ctx: CUcontext) -> CuResult<()> {
    if crate::context::is_live(ctx) { Ok(()) } else { Err(CUresult::INVALID_CONTEXT) }
}

/// Keeps a value for a context (NULL: the current one) under a key.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT; CUDA_ERROR_INVALID_HANDLE where the key has a value already, which it keeps.
pub fn put(ctx: CUcontext, key: Key, value: *mut c_void, destructor: Option<Destructor>) -> CuResult<()> {
    let ctx = resolve(ctx)?;
    let mut state = state();
    check(ctx)?;
    let entries = state.entry(ctx).or_default();
    if entries.iter().any(|entry| entry.key == key) {
        return Err(CUresult::INVALID_HANDLE);
    }
    entries.push(Entry { key, value, destructor });
    MIRROR.insert(ctx, key, value);
    Ok(())
}

/// Forgets a context's value without calling its destructor.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT; CUDA_ERROR_INVALID_HANDLE where there is none.
pub fn delete(ctx: CUcontext, key: Key) -> CuResult<()> {
    let ctx = resolve(ctx)?;
    check(ctx)?;
    if remove(&mut state(), ctx, key) { Ok(()) } else { Err(CUresult::INVALID_HANDLE) }
}

/// Takes an entry out; false if there is none.
fn remove(state: &mut State, ctx: CUcontext, key: Key) -> bool {
    let Some(entries) = state.get_mut(&ctx) else { return false };
    let Some(at) = entries.iter().position(|entry| entry.key == key) else { return false };
    entries.remove(at);
    if entries.is_empty() {
        state.remove(&ctx);
    }
    MIRROR.remove(ctx, key);
    true
}

/// A context's value.
///
/// # Errors
/// CUDA_ERROR_INVALID_CONTEXT; CUDA_ERROR_INVALID_HANDLE where there is none.
#[inline]
pub fn get(ctx: CUcontext, key: Key) -> CuResult<*mut c_void> {
    let ctx = resolve(ctx)?;
    match MIRROR.get(ctx, key) {
        Some(value) => Ok(value),
        None => get_locked(ctx, key),
    }
}

#[cold]
fn get_locked(ctx: CUcontext, key: Key) -> CuResult<*mut c_void> {
    check(ctx)?;
    let state = state();
    let entry = state.get(&ctx).and_then(|entries| entries.iter().find(|entry| entry.key == key));
    let value = entry.ok_or(CUresult::INVALID_HANDLE)?.value;
    // It may have lost its place to another, or is asked for while that changes.
    MIRROR.insert(ctx, key, value);
    Ok(value)
}

/// A context is ending: its destructors run, the latest entry's first, and its entries go. As with driver 580, an entry is
/// there until its destructor has returned, and what a destructor puts in goes too. Destructors call the driver, so the
/// caller holds no lock; none of this module is held either.
pub fn context_destroyed(ctx: CUcontext) {
    loop {
        let (key, value, destructor) = match state().get_mut(&ctx).and_then(|entries| entries.last_mut()) {
            Some(entry) => (entry.key, entry.value, entry.destructor.take()),
            None => return,
        };
        if let Some(destructor) = destructor {
            // SAFETY: the library gave this function to be called with these arguments when the context dies; it was
            // taken out of its entry, so it is called once.
            unsafe { destructor(ctx, key.0, value) };
        }
        remove(&mut state(), ctx, key);
    }
}

#[cfg(test)]
mod tests;
