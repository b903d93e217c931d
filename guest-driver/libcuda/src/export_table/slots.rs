//! The served slots, by table. Every pointer that a caller passes for a result has room for it: they are NVIDIA's
//! libraries, which pass locals.

use std::ffi::c_void;
use std::sync::atomic::AtomicU64;

use cuda_api::types::{CUcontext, CUfunction, CUmodule, CUstream, STREAM_DEFAULT, STREAM_LEGACY};
use cuda_api::{CUresult, CuResult};

/// Writes a result where the caller wants it.
///
/// # Safety
/// `out` is NULL or has room for a `T`.
unsafe fn write<T>(out: *mut T, result: CuResult<T>) -> CUresult {
    match result {
        Err(error) => error,
        Ok(_) if out.is_null() => CUresult::INVALID_VALUE,
        Ok(value) => {
            // SAFETY: not NULL (checked above), so with room by this function's contract.
            unsafe { out.write(value) };
            CUresult::SUCCESS
        }
    }
}

fn code(result: CuResult<()>) -> CUresult {
    result.err().unwrap_or(CUresult::SUCCESS)
}

/// CUDART.
pub(super) mod runtime {
    use super::*;

    /// The handle that a device's primary context has or will have, without retaining or making it.
    pub unsafe extern "C" fn primary_context(out: *mut CUcontext, device: i32) -> CUresult {
        let context = crate::process::initialised().and_then(|process| process.primary_context(device));
        // SAFETY: the caller's result.
        unsafe { write(out, context) }
    }

    /// Loads the image behind a fatbin wrapper into the current context (cudart of CUDA 11). The runtime asks for no
    /// options: what follows the wrapper is 0.
    pub unsafe extern "C" fn load_module(
        out: *mut CUmodule,
        wrapper: *const c_void,
        options: *const c_void,
        values: *const c_void,
        count: u32,
    ) -> CUresult {
        if !options.is_null() || !values.is_null() || count != 0 {
            return crate::export_table::layout::not_served("CUDART[6] with options");
        }
        // SAFETY: cuModuleLoadData's contract is this slot's.
        unsafe { crate::module::cuModuleLoadData(out, wrapper) }
    }

    /// The runtime is done with a wrapper. It has unloaded its modules by cuModuleUnload before; `load_module` keeps
    /// nothing else, so that there is nothing left to undo.
    pub extern "C" fn unload_module(_wrapper: *const c_void) -> CUresult {
        CUresult::SUCCESS
    }

    /// The runtime (13.2 and later, while it initialises) wants the driver's compilers in memory before a program can take
    /// them from the file system. None is ever loaded here: PTX is compiled by the host's driver.
    pub extern "C" fn load_compilers() -> CUresult {
        CUresult::SUCCESS
    }
}

/// TOOLS_TLS.
pub(super) mod tools_tls {
    use super::*;

    /// The calling thread's context, NULL if it has none.
    pub unsafe extern "C" fn current_context(out: *mut CUcontext) -> CUresult {
        let current = crate::process::initialised().map(|_| crate::thread::current_context());
        // SAFETY: the caller's result.
        unsafe { write(out, current) }
    }
}

/// RTHOOKS. The runtime reads the entry of what it is about to do and calls the hooks where it is not 0; without a tool,
/// all are.
pub(super) mod runtime_hooks {
    use super::*;

    /// Entries by runtime API function.
    const API_ENTRIES: usize = 1024;
    /// Entries by kind of event.
    const EVENT_ENTRIES: usize = 14;
    /// Words per entry at most: the real driver's buffers leave room for no more than 22 bytes per entry.
    const WORDS: usize = 3;

    static API: [AtomicU64; API_ENTRIES * WORDS] = [const { AtomicU64::new(0) }; API_ENTRIES * WORDS];
    static EVENT: [AtomicU64; EVENT_ENTRIES * WORDS] = [const { AtomicU64::new(0) }; EVENT_ENTRIES * WORDS];

    unsafe fn give(
        buffer: *mut *mut c_void,
        entries: *mut usize,
        words: &'static [AtomicU64],
        count: usize,
    ) -> CUresult {
        if buffer.is_null() || entries.is_null() {
            return CUresult::INVALID_VALUE;
        }
        // SAFETY: not NULL (checked above): the caller's results.
        unsafe {
            buffer.write(words.as_ptr().cast::<c_void>().cast_mut());
            entries.write(count);
        }
        CUresult::SUCCESS
    }

    /// Buffer and number of entries.
    pub unsafe extern "C" fn api_subscriptions(buffer: *mut *mut c_void, entries: *mut usize) -> CUresult {
        // SAFETY: the same contract.
        unsafe { give(buffer, entries, &API, API_ENTRIES) }
    }

    /// Buffer and number of entries.
    pub unsafe extern "C" fn event_subscriptions(buffer: *mut *mut c_void, entries: *mut usize) -> CUresult {
        // SAFETY: the same contract.
        unsafe { give(buffer, entries, &EVENT, EVENT_ENTRIES) }
    }
}

/// CLS: see [`crate::cls`] for the rules.
pub(super) mod cls {
    use super::*;
    use crate::cls::{Destructor, Key};

    pub unsafe extern "C" fn put(
        ctx: CUcontext,
        key: *mut c_void,
        value: *mut c_void,
        destructor: Option<Destructor>,
    ) -> CUresult {
        code(crate::cls::put(ctx, Key(key), value, destructor))
    }

    pub extern "C" fn delete(ctx: CUcontext, key: *mut c_void) -> CUresult {
        code(crate::cls::delete(ctx, Key(key)))
    }

    pub unsafe extern "C" fn get(value: *mut *mut c_void, ctx: CUcontext, key: *mut c_void) -> CUresult {
        // SAFETY: the caller's result.
        unsafe { write(value, crate::cls::get(ctx, Key(key))) }
    }
}

/// INTEGRITY: see [`crate::integrity`].
pub(super) mod integrity {
    use super::*;
    use crate::export_table::tables;
    use crate::integrity::Question;

    pub unsafe extern "C" fn answer(version: u32, seconds: u64, out: *mut [u8; 16]) -> CUresult {
        let answer = crate::process::initialised().and_then(|process| {
            let question = Question {
                driver_version: process.info.driver_version,
                version,
                pid: std::process::id(),
                thread: this_thread(),
                runtime_table: tables::RUNTIME.address().addr() as u64,
                integrity_table: tables::INTEGRITY.address().addr() as u64,
                integrity_function: tables::INTEGRITY.0[1].value(),
                seconds,
            };
            crate::integrity::answer(&question, process.devices())
        });
        // SAFETY: the caller's result.
        unsafe { write(out, answer) }
    }

    /// The low half of pthread_self.
    #[allow(clippy::cast_possible_truncation)]
    fn this_thread() -> u32 {
        // SAFETY: takes nothing and cannot fail.
        (unsafe { libc::pthread_self() }) as u32
    }

    /// Switches the handshake on or off for later callers. It is always on: a caller that does not ask gets no answer.
    pub extern "C" fn enable(_on: i32) -> CUresult {
        CUresult::SUCCESS
    }
}

/// CONTEXT_CHECKS: whether something (a debugger, a checkpoint) forbids to use a context. Nothing here does.
pub(super) mod context_checks {
    use super::*;

    /// About one context: 0 is that nothing forbids it. The second result is left alone, as by driver 580.
    pub unsafe extern "C" fn context(
        _ctx: CUcontext,
        forbidden: *mut u32,
        _reason: *mut *mut c_void,
    ) -> CUresult {
        // SAFETY: the caller's result.
        unsafe { write(forbidden, Ok(0)) }
    }

    /// About the process.
    pub extern "C" fn process() -> CUresult {
        CUresult::SUCCESS
    }
}

/// TOOLSCTX. NULL is no context here, not the calling thread's.
pub(super) mod tools_context {
    use super::*;

    /// A context's device.
    pub unsafe extern "C" fn device(ctx: CUcontext, out: *mut i32) -> CUresult {
        // SAFETY: the caller's result.
        unsafe { write(out, crate::context::device_of(ctx)) }
    }

    /// A context's number, as cuCtxGetId gives it; that of no context is 0. cuBLAS and cuFFT keep their caches by it.
    pub unsafe extern "C" fn id(ctx: CUcontext, out: *mut u64) -> CUresult {
        let id =
            if ctx.is_null() { crate::process::initialised().map(|_| 0) } else { crate::context::id_of(ctx) };
        // SAFETY: the caller's result.
        unsafe { write(out, id) }
    }

    /// The object behind a stream handle. Callers pass it to `stream_id` and nowhere else (cuBLAS does so before each
    /// product), so the handle itself serves; the default stream is the legacy one, as the object of none is NULL.
    pub unsafe extern "C" fn stream_object(ctx: CUcontext, stream: CUstream, out: *mut CUstream) -> CUresult {
        let object = if stream == STREAM_DEFAULT { STREAM_LEGACY } else { stream };
        let known = crate::context::device_of(ctx).and_then(|_| id_of(object));
        // SAFETY: the caller's result.
        unsafe { write(out, known.map(|_| object).map_err(|_| CUresult::INVALID_HANDLE)) }
    }

    /// A stream's number, as cuStreamGetId gives it, by its object. cuBLAS tells by it which of its workspaces are in use
    /// by which stream.
    pub unsafe extern "C" fn stream_id(ctx: CUcontext, object: CUstream, out: *mut u64) -> CUresult {
        if object == STREAM_DEFAULT {
            return CUresult::INVALID_VALUE;
        }
        // SAFETY: the caller's result.
        unsafe { write(out, crate::context::device_of(ctx).and_then(|_| id_of(object))) }
    }

    fn id_of(stream: CUstream) -> CuResult<u64> {
        let mut id = 0;
        // SAFETY: room for the result.
        match unsafe { crate::stream::cuStreamGetId(stream, &mut id) } {
            CUresult::SUCCESS => Ok(id),
            error => Err(error),
        }
    }
}

/// TOOLSMOD.
pub(super) mod tools_module {
    use super::*;

    /// What a caller wants to be told of each function: its own data, and the function.
    type Each = unsafe extern "C" fn(*mut c_void, CUfunction) -> u32;

    /// Tells the caller of every function of a module; cuFFT asks after each image that it has loaded. 1 where all were
    /// told, which is what cuFFT takes for success, else 0.
    pub unsafe extern "C" fn functions(
        _ctx: CUcontext,
        module: CUmodule,
        each: Option<Each>,
        data: *mut c_void,
    ) -> u32 {
        let Some(each) = each else { return 0 };
        // All of them first: the caller may call the driver from within.
        let Ok(functions) = crate::enumerate::functions_of(module) else { return 0 };
        for function in functions {
            // SAFETY: the caller's function, with the data that goes with it.
            unsafe { each(data, function) };
        }
        1
    }
}
