//! Modules: the image goes first, the load names it; functions and variables are remembered by name.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::calls::module::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUdeviceptr, CUfunction, CUmodule};
use cuda_api::{CUresult, CuResult};

use crate::function::FunctionRecord;
use crate::gate;
use crate::image::{self, JitOptions};
use crate::managed::variables;
use crate::objects::lock;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};

/// What is known of a module.
#[derive(Default)]
pub struct ModuleRecord {
    /// The context it belongs to.
    pub context: u64,
    /// The library that it is of, or 0.
    pub library: u64,
    /// Somebody unloads it: nobody else does.
    unloading: AtomicBool,
    /// Functions that were asked for: the same name gives the same handle.
    pub functions: Mutex<HashMap<CString, CUfunction>>,
    /// Variables that were asked for.
    pub variables: Mutex<HashMap<CString, (CUdeviceptr, usize)>>,
}

fn load(to: *mut CUmodule, bytes: &[u8], options: &JitOptions) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(to)?;
    let context = crate::context::owner(crate::context::current()?).0;
    let number = image::send(bytes)?;
    let module = new(process, context, 0)?;
    let (info_room, error_room) = options.rooms();
    let outcome =
        gate::call::<row::cuModuleLoadDataEx>((module, number, &options.travelling, info_room, error_room))
            .and_then(|(result, info_log, error_log)| {
                options.finish(&info_log, &error_log);
                if result == 0 { Ok(()) } else { Err(CUresult(result)) }
            });
    if let Err(error) = outcome {
        process.objects.modules.remove(module.0);
        // Where the image did not arrive, that is the reason.
        return Err(gate::deferred_error().err().unwrap_or(error));
    }
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { to.write(module) };
    Ok(())
}

/// Names a module of a context: its own, or a library's.
///
/// # Errors
/// CUDA_ERROR_OUT_OF_MEMORY where there are too many.
pub fn new(process: &Process, context: u64, library: u64) -> CuResult<CUmodule> {
    let record = ModuleRecord { context, library, ..ModuleRecord::default() };
    process.objects.modules.insert_in(context, record).map(CUmodule)
}

/// cuModuleLoadData.
pub unsafe fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller.
        let bytes = unsafe { image::bytes_of(image) }?;
        load(module, &bytes, &JitOptions::default())
    })())
}

/// cuModuleLoadFatBinary.
pub unsafe fn cuModuleLoadFatBinary(module: *mut CUmodule, image: *const c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuModuleLoadData(module, image) }
}

/// cuModuleLoadDataEx.
pub unsafe fn cuModuleLoadDataEx(
    module: *mut CUmodule,
    image: *const c_void,
    count: u32,
    options: *mut u32,
    values: *mut *mut c_void,
) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller.
        let (bytes, options) =
            unsafe { (image::bytes_of(image)?, JitOptions::read(count, options, values)?) };
        load(module, &bytes, &options)
    })())
}

/// cuModuleLoad.
pub unsafe fn cuModuleLoad(module: *mut CUmodule, name: *const c_char) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller; the file's bytes end with NULs.
        let file = unsafe { image::read_file(name) }?;
        // SAFETY: the file's bytes, in memory.
        let bytes = unsafe { image::bytes_of(file.as_ptr().cast()) }?;
        if bytes.len() > file.len() {
            return Err(CUresult::INVALID_IMAGE);
        }
        load(module, &bytes, &JitOptions::default())
    })())
}

/// Ends a module or library in the worker by `tell`, and its variables' addresses with it. No other range of this process can take
/// their place before the worker has answered; where it refuses, they are as they were.
///
/// # Errors
/// `tell`'s.
pub fn end_with_variables(
    process: &'static Process,
    owner: u64,
    tell: impl FnOnce() -> CuResult<()>,
) -> CuResult<()> {
    let is_variable = |kind| matches!(kind, RangeKind::Variable | RangeKind::ManagedVariable);
    let variables = process.ranges.remove_where(|r| r.owner == owner && is_variable(r.kind));
    let managed = variables::suspend(owner);
    if let Err(error) = tell() {
        variables.into_iter().for_each(|range| process.ranges.restore(range));
        variables::resume(process, managed);
        return Err(error);
    }
    for range in variables.iter().filter(|range| range.kind == RangeKind::Variable) {
        process.reservations.release(range.start, range.len);
    }
    variables::end(process, managed);
    Ok(())
}

/// cuModuleUnload. The driver may refuse (during a capture …): then the module is as before.
pub unsafe fn cuModuleUnload(module: CUmodule) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let record = record(process, module)?;
        if record.unloading.swap(true, Ordering::AcqRel) {
            return Err(CUresult::INVALID_HANDLE);
        }
        end_with_variables(process, module.0, || gate::call::<row::cuModuleUnload>((module,)))
            .inspect_err(|_| record.unloading.store(false, Ordering::Release))?;
        process.objects.modules.remove(module.0);
        for function in lock(&record.functions).values() {
            process.objects.functions.remove(function.0);
        }
        Ok(())
    })())
}

fn record(process: &Process, module: CUmodule) -> CuResult<Arc<ModuleRecord>> {
    process.objects.modules.get(module.0).ok_or(CUresult::INVALID_HANDLE)
}

/// cuModuleGetFunction.
pub unsafe fn cuModuleGetFunction(to: *mut CUfunction, module: CUmodule, name: *const c_char) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        not_null(name.cast_mut())?;
        // SAFETY: not NULL; NUL-terminated by CUDA's contract.
        let function = function_named(process, module, unsafe { CStr::from_ptr(name) })?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(function) };
        Ok(())
    })())
}

/// A module's function: the same name gives the same handle.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_NOT_FOUND, or why the worker does not tell.
pub fn function_named(process: &Process, module: CUmodule, name: &CStr) -> CuResult<CUfunction> {
    let record = record(process, module)?;
    let mut functions = lock(&record.functions);
    if let Some(known) = functions.get(name) {
        return Ok(*known);
    }
    // The handle exists before its record does: the worker is told the name it will go by.
    let function = new_function(process, record.context, module.0, name, |function| {
        gate::call::<row::cuModuleGetFunction>((function, module, name))
    })?;
    functions.insert(name.to_owned(), function);
    Ok(function)
}

/// Names a function, asks the worker about it, and keeps what comes back.
fn new_function(
    process: &Process,
    context: u64,
    parent: u64,
    name: &CStr,
    ask: impl FnOnce(CUfunction) -> CuResult<(cuda_api::types::FunctionInfo, Vec<cuda_api::types::ParamInfo>)>,
) -> CuResult<CUfunction> {
    let table = &process.objects.functions;
    let handle = table.reserve()?;
    let record = ask(CUfunction(handle))
        .and_then(|(info, params)| FunctionRecord::new(context, parent, name.to_owned(), &info, params));
    let record = record.inspect_err(|_| {
        table.remove(handle);
    })?;
    table.fill(handle, record);
    Ok(CUfunction(handle))
}

/// Hands a variable's place out.
///
/// # Safety
/// `dptr` and `bytes` have room for a word each, or are NULL.
pub unsafe fn give_variable(dptr: *mut CUdeviceptr, bytes: *mut usize, (at, len): (CUdeviceptr, usize)) {
    // SAFETY: by this function's contract.
    unsafe {
        if !dptr.is_null() {
            dptr.write(at);
        }
        if !bytes.is_null() {
            bytes.write(len);
        }
    }
}

/// A variable's addresses are the device's from now on.
///
/// # Errors
/// CUDA_ERROR_UNKNOWN where this process has memory of its own there: the variable cannot be told from it.
pub fn remember_variable(process: &Process, context: u64, owner: u64, at: u64, len: usize) -> CuResult<()> {
    process.reservations.hold(at, len as u64).map_err(|_| {
        crate::log::say(|| {
            format!("a module's variable at {at:#x} lies where this process has memory of its own")
        });
        CUresult::UNKNOWN
    })?;
    let device = process.objects.contexts.get(context).map_or(0, |c| c.device);
    process.ranges.insert(Range {
        start: at,
        len: len as u64,
        kind: RangeKind::Variable,
        context,
        device,
        id: 0,
        read_only: false,
        owner,
    });
    Ok(())
}

/// A managed variable is memory of this process as well from now on. It may be known. A library's belongs to no context: 0.
///
/// # Errors
/// As for [`variables::add`].
pub fn remember_managed(
    process: &'static Process,
    context: u64,
    owner: u64,
    at: u64,
    len: usize,
) -> CuResult<()> {
    variables::add(process, at, len, owner)?;
    let known = process.ranges.find(at).is_some_and(|r| r.start == at && r.owner == owner);
    if !known {
        let device = process.objects.contexts.get(context).map_or(0, |c| c.device);
        process.ranges.insert(Range {
            start: at,
            len: len as u64,
            kind: RangeKind::ManagedVariable,
            context,
            device,
            id: 0,
            read_only: false,
            owner,
        });
    }
    Ok(())
}

/// cuModuleGetGlobal.
pub unsafe fn cuModuleGetGlobal_v2(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    module: CUmodule,
    name: *const c_char,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(name.cast_mut())?;
        if dptr.is_null() && bytes.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let record = record(process, module)?;
        // SAFETY: not NULL; NUL-terminated by CUDA's contract.
        let name = unsafe { CStr::from_ptr(name) };
        let mut variables = lock(&record.variables);
        let place = match variables.get(name) {
            Some(known) => *known,
            None => {
                let (at, len, managed) = gate::call::<row::cuModuleGetGlobal_v2>((module, name))?;
                match (managed, record.library) {
                    (true, 0) => remember_managed(process, record.context, module.0, at, len)?,
                    (true, library) => remember_managed(process, 0, library, at, len)?,
                    (false, _) => remember_variable(process, record.context, module.0, at, len)?,
                }
                variables.insert(name.to_owned(), (at, len));
                (at, len)
            }
        };
        // SAFETY: CUDA's contract with the caller.
        unsafe { give_variable(dptr, bytes, place) };
        Ok(())
    })())
}

/// CUDA_MODULE_LOADING asks for code to be loaded eagerly.
pub fn loads_eagerly() -> bool {
    std::env::var_os("CUDA_MODULE_LOADING").is_some_and(|v| v == "EAGER")
}

/// cuModuleGetLoadingMode: lazy, the default since CUDA 12.2, unless CUDA_MODULE_LOADING says otherwise.
pub unsafe fn cuModuleGetLoadingMode(mode: *mut u32) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(mode)?;
        let eager = loads_eagerly();
        // SAFETY: not NULL; room for an enumerator by CUDA's contract.
        unsafe { mode.write(if eager { 1 } else { 2 }) };
        Ok(())
    })())
}
