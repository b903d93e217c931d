//! Functions of the program's that the device calls for: host functions and callbacks in streams. Each has a number, under
//! which the worker asks for it; the worker never sees an address of this process.
//!
//! A thread of this library's runs them, one after the other, as the driver's own does: it is started with the first
//! function, and has a ring to itself in which it waits for the next one. Nothing of it is inherited by a forked child.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::calls::entry::row::vgpuTakeOutput;
use cuda_api::calls::stream::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUstream, CUuserObject};
use cuda_api::{CUresult, CuResult};
use transport::Ring;

use crate::graph_pageable::PageableCopy;
use crate::managed::variables;
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::{gate, output, thread};

/// Functions of the program's run on a stack like that of a thread of its own. Bytes.
const STACK_BYTES: usize = 8 << 20;

/// CUhostFn.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);
/// CUstreamCallback.
pub type Callback = unsafe extern "C" fn(CUstream, CUresult, *mut c_void);

/// What the program gave with a function, and only the program looks into.
#[derive(Clone, Copy)]
pub struct Data(pub *mut c_void);
// SAFETY: never followed here; CUDA's contract has the driver's thread hand it to the function.
unsafe impl Send for Data {}

/// A function that the device may call for.
#[derive(Clone)]
pub enum Function {
    /// Runs once.
    Once(HostFunction, Data),
    /// Runs as often as a graph comes to it, until the worker says that no graph has it any more.
    Many(HostFunction, Data),
    /// This library's own, as often and as long: the host's part of a graph's copy.
    Copy(Arc<PageableCopy>),
    /// Runs when its object is gone.
    Destructor(CUuserObject, HostFunction, Data),
    /// Runs once and is told of its stream.
    Callback(CUstream, Callback, Data),
}

static FUNCTIONS: Mutex<Option<HashMap<u64, Function>>> = Mutex::new(None);
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);
static STARTED: Mutex<bool> = Mutex::new(false);

/// Gives a function a number.
pub fn add(function: Function) -> u64 {
    let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
    lock(&FUNCTIONS).get_or_insert_default().insert(token, function);
    token
}

/// The function will not be called for.
pub fn forget(token: u64) {
    if let Some(functions) = lock(&FUNCTIONS).as_mut() {
        functions.remove(&token);
    }
}

/// The function with this number, which stays.
pub fn get(token: u64) -> Option<Function> {
    lock(&FUNCTIONS).as_ref()?.get(&token).cloned()
}

/// A function's address as a function.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for NULL.
pub(crate) fn host_function(address: *mut c_void) -> CuResult<HostFunction> {
    not_null(address)?;
    // SAFETY: not NULL; CUDA's contract: the address of a function of this type.
    Ok(unsafe { std::mem::transmute::<*mut c_void, HostFunction>(address) })
}

/// Starts the thread that runs functions, if there is none yet.
///
/// # Errors
/// Why there is no ring or no thread.
pub fn start(process: &'static Process) -> CuResult<()> {
    let mut started = lock(&STARTED);
    if *started {
        return Ok(());
    }
    let ring = process.session.create_ring().map_err(|e| crate::process::control_failure(&e))?;
    // The program's signals are for the program's threads.
    let before = block_signals();
    let thread = std::thread::Builder::new()
        .name("vgpu-host-fn".into())
        .stack_size(STACK_BYTES)
        .spawn(move || serve(process, ring));
    restore_signals(&before);
    match thread {
        Ok(_) => {
            *started = true;
            Ok(())
        }
        Err(error) => {
            crate::log::say(|| format!("no thread for host functions: {error}"));
            Err(CUresult::OPERATING_SYSTEM)
        }
    }
}

/// No signal of the program's reaches a thread that is started meanwhile; what held before comes back.
pub(crate) fn block_signals() -> libc::sigset_t {
    // SAFETY: plain data, which the calls below fill in; they change the calling thread's mask only.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

/// What held before holds again.
pub(crate) fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the mask that the thread had before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

/// The thread's work. It ends with the session.
fn serve(process: &'static Process, mut ring: Ring) {
    thread::forbid_calls();
    // Numbers of its own instead of the process's tickets: what this ring says stands behind no other thread's calls, which
    // may be waiting for the very function that it says is done.
    let (mut ticket, mut done) = (0u64, 0u64);
    loop {
        // What the function that has run has changed of managed variables, and what the next one is to find there.
        if variables::exist() {
            variables::push();
        }
        ticket += 1;
        let next = gate::call_apart::<row::vgpuNextHostFunction>(&mut ring, ticket, (done,));
        let printed = process.session.printed_bytes();
        if output::is_behind(printed) {
            output::bring(printed, || {
                ticket += 1;
                gate::call_apart::<vgpuTakeOutput>(&mut ring, ticket, ())
            });
        }
        match next {
            Ok((run, token, status, gone)) => {
                done = run;
                if gone {
                    let left = lock(&FUNCTIONS).as_mut().and_then(|functions| functions.remove(&token));
                    if let Some(Function::Destructor(object, destroy, data)) = left {
                        process.objects.remove_plain(object);
                        // SAFETY: CUDA's contract with the program that gave the destructor.
                        unsafe { destroy(data.0) };
                    }
                } else if token != 0 {
                    if variables::exist() {
                        variables::pull();
                    }
                    run_function(token, CUresult(status));
                }
            }
            Err(error) => {
                crate::log::say(|| format!("host functions are no longer run: {error}"));
                return;
            }
        }
    }
}

fn run_function(token: u64, status: CUresult) {
    let function = {
        let mut functions = lock(&FUNCTIONS);
        let Some(functions) = functions.as_mut() else { return };
        match functions.get(&token) {
            Some(many @ (Function::Many(..) | Function::Copy(_))) => Some(many.clone()),
            // Its object's end is no call for it.
            Some(Function::Destructor(..)) => None,
            _ => functions.remove(&token),
        }
    };
    // SAFETY: each by CUDA's contract with the program that gave the function: it may be called, with this data.
    unsafe {
        match function {
            Some(Function::Once(function, data) | Function::Many(function, data)) => function(data.0),
            Some(Function::Copy(copy)) => copy.run(),
            Some(Function::Callback(stream, callback, data)) => callback(stream, status, data.0),
            Some(Function::Destructor(..)) | None => {
                crate::log::say(|| "the host calls for a function that is not known".into())
            }
        }
    }
}

/// cuLaunchHostFunc.
pub unsafe fn cuLaunchHostFunc(stream: CUstream, function: *mut c_void, data: *mut c_void) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let function = host_function(function)?;
        process.objects.check(stream)?;
        start(process)?;
        let token = add(Function::Once(function, Data(data)));
        match gate::call::<row::cuLaunchHostFunc>((stream, token)) {
            // It cannot have run: a graph that does not exist yet has it.
            Ok(true) => {
                if let Some(functions) = lock(&FUNCTIONS).as_mut() {
                    functions.insert(token, Function::Many(function, Data(data)));
                }
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                forget(token);
                Err(error)
            }
        }
    })())
}

/// cuStreamAddCallback.
pub unsafe fn cuStreamAddCallback(
    stream: CUstream,
    callback: *mut c_void,
    data: *mut c_void,
    flags: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(callback)?;
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        process.objects.check(stream)?;
        start(process)?;
        // SAFETY: not NULL; CUDA's contract: the address of a function of this type.
        let callback = unsafe { std::mem::transmute::<*mut c_void, Callback>(callback) };
        let token = add(Function::Callback(stream, callback, Data(data)));
        gate::call::<row::cuStreamAddCallback>((stream, token)).inspect_err(|_| forget(token))
    })())
}
