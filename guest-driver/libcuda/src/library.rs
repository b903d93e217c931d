//! Libraries and kernels: code that belongs to no context, and its functions in each.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::calls::library::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUdevice, CUdeviceptr, CUfunction, CUkernel, CUlibrary, CUmodule};
use cuda_api::{CUresult, CuResult};

use crate::function::{self, FunctionRecord};
use crate::gate;
use crate::image::{self, JitOptions};
use crate::module;
use crate::objects::lock;
use crate::process::{Process, initialised};

/// What is known of a library.
#[derive(Default)]
pub struct LibraryRecord {
    /// Somebody unloads it: nobody else does.
    unloading: AtomicBool,
    /// Its image is none: whoever asks for something in it is told so. The worker knows nothing of it.
    fault: Option<CUresult>,
    /// Kernels that were asked for: the same name gives the same handle.
    kernels: Mutex<HashMap<CString, CUkernel>>,
    /// Its module in each context.
    modules: Mutex<HashMap<u64, CUmodule>>,
    /// Its kernels' functions in each context.
    functions: Mutex<HashMap<(u64, u64), CUfunction>>,
    /// Variables that were asked for, in each context.
    variables: Mutex<HashMap<(u64, CString), (CUdeviceptr, usize)>>,
    /// Managed variables that were asked for: the same in every context.
    managed: Mutex<HashMap<CString, (CUdeviceptr, usize)>>,
}

/// What the library has in a context is gone with it.
pub fn context_destroyed(process: &Process, ctx: CUcontext) {
    for (_, record) in process.objects.libraries.all() {
        lock(&record.modules).remove(&ctx.0);
        lock(&record.functions).retain(|(context, _), _| *context != ctx.0);
        lock(&record.variables).retain(|(context, _), _| *context != ctx.0);
        // The driver may have taken them away with the context: they are asked for again.
        lock(&record.managed).clear();
    }
}

/// What is wrong with an image, not with the call that names it. As with the driver, which loads libraries lazily, such a library is
/// there, and has nothing in it.
fn is_images_fault(error: CUresult) -> bool {
    matches!(
        error,
        CUresult::INVALID_IMAGE
            | CUresult::NO_BINARY_FOR_GPU
            | CUresult::INVALID_PTX
            | CUresult::UNSUPPORTED_PTX_VERSION
    )
}

/// A library whose image is none.
fn load_faulty(to: *mut CUlibrary, fault: CUresult) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(to)?;
    let faulty = LibraryRecord { fault: Some(fault), ..LibraryRecord::default() };
    let library = CUlibrary(process.objects.libraries.insert(faulty)?);
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { to.write(library) };
    Ok(())
}

fn load(to: *mut CUlibrary, bytes: CuResult<Cow<'_, [u8]>>, options: &JitOptions) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(to)?;
    let bytes = match bytes {
        Err(fault) if is_images_fault(fault) => return load_faulty(to, fault),
        other => other?,
    };
    let number = image::send(&bytes)?;
    let library = CUlibrary(process.objects.libraries.insert(LibraryRecord::default())?);
    let (info_room, error_room) = options.rooms();
    let outcome =
        gate::call::<row::cuLibraryLoadData>((library, number, &options.travelling, info_room, error_room))
            .and_then(|(result, info_log, error_log)| {
                options.finish(&info_log, &error_log);
                if result == 0 { Ok(()) } else { Err(CUresult(result)) }
            });
    if let Err(error) = outcome {
        process.objects.libraries.remove(library.0);
        // Where the image did not arrive, that is the reason.
        gate::deferred_error()?;
        // A driver that is told to load eagerly says at once what is wrong.
        return if is_images_fault(error) && !module::loads_eagerly() {
            load_faulty(to, error)
        } else {
            Err(error)
        };
    }
    // SAFETY: not NULL; room for a handle by CUDA's contract.
    unsafe { to.write(library) };
    Ok(())
}

/// CU_LIBRARY_HOST_UNIVERSAL_FUNCTION_AND_DATA_TABLE: a pointer to tables in this process.
const OPTION_HOST_TABLE: u32 = 0;

/// # Safety
/// The array has `count` elements.
unsafe fn check_library_options(count: u32, options: *const u32) -> CuResult<()> {
    for i in 0..count as usize {
        not_null(options.cast_mut())?;
        // SAFETY: i < count, and the array is not NULL.
        if unsafe { options.add(i).read() } == OPTION_HOST_TABLE {
            crate::log::once("library option 0", || {
                "library option 0 (host function table) is not supported".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
    }
    Ok(())
}

/// cuLibraryLoadData. BINARY_IS_PRESERVED needs nothing: the worker has its own copy.
pub unsafe fn cuLibraryLoadData(
    library: *mut CUlibrary,
    code: *const c_void,
    options: *mut u32,
    values: *mut *mut c_void,
    count: u32,
    library_options: *mut u32,
    _library_values: *mut *mut c_void,
    library_count: u32,
) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller.
        unsafe {
            check_library_options(library_count, library_options)?;
            load(library, image::bytes_of(code), &JitOptions::read(count, options, values)?)
        }
    })())
}

/// cuLibraryLoadFromFile.
pub unsafe fn cuLibraryLoadFromFile(
    library: *mut CUlibrary,
    name: *const c_char,
    options: *mut u32,
    values: *mut *mut c_void,
    count: u32,
    library_options: *mut u32,
    _library_values: *mut *mut c_void,
    library_count: u32,
) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller; the file's bytes, in memory, end with NULs.
        unsafe {
            check_library_options(library_count, library_options)?;
            let file = image::read_file(name)?;
            let bytes = image::bytes_of(file.as_ptr().cast()).and_then(|bytes| {
                if bytes.len() > file.len() { Err(CUresult::INVALID_IMAGE) } else { Ok(bytes) }
            });
            load(library, bytes, &JitOptions::read(count, options, values)?)
        }
    })())
}

/// cuLibraryUnload. The driver may refuse (during a capture …): then the library is as before.
pub unsafe fn cuLibraryUnload(library: CUlibrary) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let record = record(process, library)?;
        if record.unloading.swap(true, Ordering::AcqRel) {
            return Err(CUresult::INVALID_HANDLE);
        }
        if record.fault.is_some() {
            process.objects.libraries.remove(library.0);
            return Ok(());
        }
        module::end_with_variables(process, library.0, || gate::call::<row::cuLibraryUnload>((library,)))
            .inspect_err(|_| record.unloading.store(false, Ordering::Release))?;
        process.objects.libraries.remove(library.0);
        for kernel in lock(&record.kernels).values() {
            process.objects.kernels.remove(kernel.0);
        }
        for function in lock(&record.functions).values() {
            process.objects.functions.remove(function.0);
        }
        for module in lock(&record.modules).values() {
            let gone = process.objects.modules.remove(module.0);
            for function in gone.iter().flat_map(|m| lock(&m.functions).values().copied().collect::<Vec<_>>())
            {
                process.objects.functions.remove(function.0);
            }
        }
        Ok(())
    })())
}

fn record(process: &Process, library: CUlibrary) -> CuResult<Arc<LibraryRecord>> {
    process.objects.libraries.get(library.0).ok_or(CUresult::INVALID_HANDLE)
}

/// A library that has what its image says.
fn sound(process: &Process, library: CUlibrary) -> CuResult<Arc<LibraryRecord>> {
    let record = record(process, library)?;
    record.fault.map_or(Ok(record), Err)
}

/// How many kernels a library has; none where its image is none.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE, or why the worker does not tell.
pub fn kernel_count(process: &Process, library: CUlibrary) -> CuResult<u32> {
    if record(process, library)?.fault.is_some() {
        return Ok(0);
    }
    gate::call::<row::cuLibraryGetKernelCount>((library,))
}

/// cuLibraryGetKernelCount.
pub unsafe fn cuLibraryGetKernelCount(to: *mut u32, library: CUlibrary) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let count = kernel_count(process, library)?;
        // SAFETY: not NULL; room for an unsigned int by CUDA's contract.
        unsafe { to.write(count) };
        Ok(())
    })())
}

/// cuLibraryGetUnifiedFunction: what driver 580 answers where no device shares function pointers with the host (device attribute 129),
/// as none does here.
pub unsafe fn cuLibraryGetUnifiedFunction(
    _fptr: *mut *mut c_void,
    library: CUlibrary,
    _symbol: *const c_char,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        record(process, library)?;
        Err(CUresult::INVALID_VALUE)
    })())
}

/// A library's kernel: the same name gives the same handle.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_NOT_FOUND, or why the worker does not tell.
pub fn kernel_named(process: &Process, library: CUlibrary, name: &CStr) -> CuResult<CUkernel> {
    let record = sound(process, library)?;
    let mut kernels = lock(&record.kernels);
    if let Some(known) = kernels.get(name) {
        return Ok(*known);
    }
    let table = &process.objects.kernels;
    let handle = table.reserve()?;
    let asked = gate::call::<row::cuLibraryGetKernel>((CUkernel(handle), library, name))
        .and_then(|(info, params)| FunctionRecord::new(0, library.0, name.to_owned(), &info, params));
    let known = asked.inspect_err(|_| {
        table.remove(handle);
    })?;
    table.fill(handle, known);
    kernels.insert(name.to_owned(), CUkernel(handle));
    Ok(CUkernel(handle))
}

/// cuLibraryGetKernel.
pub unsafe fn cuLibraryGetKernel(to: *mut CUkernel, library: CUlibrary, name: *const c_char) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        not_null(name.cast_mut())?;
        // SAFETY: not NULL; NUL-terminated by CUDA's contract.
        let kernel = kernel_named(process, library, unsafe { CStr::from_ptr(name) })?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(kernel) };
        Ok(())
    })())
}

/// cuLibraryGetModule.
pub unsafe fn cuLibraryGetModule(to: *mut CUmodule, library: CUlibrary) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let module = module_in(process, library, crate::context::owner(crate::context::current()?).0)?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(module) };
        Ok(())
    })())
}

/// A library's module in a context.
///
/// # Errors
/// CUDA_ERROR_INVALID_HANDLE, or why the worker has none.
pub fn module_in(process: &Process, library: CUlibrary, context: u64) -> CuResult<CUmodule> {
    let record = sound(process, library)?;
    let mut modules = lock(&record.modules);
    if let Some(known) = modules.get(&context) {
        return Ok(*known);
    }
    let module = module::new(process, context, library.0)?;
    gate::call_in::<row::cuLibraryGetModule>(CUcontext(context), (module, library)).inspect_err(|_| {
        process.objects.modules.remove(module.0);
    })?;
    modules.insert(context, module);
    Ok(module)
}

/// cuLibraryGetGlobal.
pub unsafe fn cuLibraryGetGlobal(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(name.cast_mut())?;
        let record = sound(process, library)?;
        let context = crate::context::owner(crate::context::current()?).0;
        // SAFETY: not NULL; NUL-terminated by CUDA's contract.
        let name = unsafe { CStr::from_ptr(name) };
        let key = (context, name.to_owned());
        let mut variables = lock(&record.variables);
        let place = match variables.get(&key) {
            Some(known) => *known,
            None => {
                let (at, len, managed) = gate::call::<row::cuLibraryGetGlobal>((library, name))?;
                if managed {
                    module::remember_managed(process, 0, library.0, at, len)?;
                } else {
                    module::remember_variable(process, context, library.0, at, len)?;
                }
                variables.insert(key, (at, len));
                (at, len)
            }
        };
        // SAFETY: CUDA's contract with the caller.
        unsafe { module::give_variable(dptr, bytes, place) };
        Ok(())
    })())
}

/// cuLibraryGetManaged.
pub unsafe fn cuLibraryGetManaged(
    dptr: *mut CUdeviceptr,
    bytes: *mut usize,
    library: CUlibrary,
    name: *const c_char,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(name.cast_mut())?;
        let record = sound(process, library)?;
        // SAFETY: not NULL; NUL-terminated by CUDA's contract.
        let name = unsafe { CStr::from_ptr(name) };
        let mut variables = lock(&record.managed);
        let place = match variables.get(name) {
            Some(known) => *known,
            None => {
                let (at, len) = gate::call::<row::cuLibraryGetManaged>((library, name))?;
                module::remember_managed(process, 0, library.0, at, len)?;
                variables.insert(name.to_owned(), (at, len));
                (at, len)
            }
        };
        // SAFETY: CUDA's contract with the caller.
        unsafe { module::give_variable(dptr, bytes, place) };
        Ok(())
    })())
}

fn kernel_record(process: &Process, kernel: CUkernel) -> CuResult<Arc<FunctionRecord>> {
    process.objects.kernels.get(kernel.0).ok_or(CUresult::INVALID_HANDLE)
}

/// cuKernelGetFunction.
pub unsafe fn cuKernelGetFunction(to: *mut CUfunction, kernel: CUkernel) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let known = kernel_record(process, kernel)?;
        let library = record(process, CUlibrary(known.parent))?;
        let context = crate::context::owner(crate::context::current()?).0;
        let mut functions = lock(&library.functions);
        let function = match functions.get(&(context, kernel.0)) {
            Some(known) => *known,
            None => {
                let table = &process.objects.functions;
                let function = CUfunction(table.insert(known.copy_for(context, known.parent)?)?);
                gate::call::<row::cuKernelGetFunction>((function, kernel)).inspect_err(|_| {
                    table.remove(function.0);
                })?;
                functions.insert((context, kernel.0), function);
                function
            }
        };
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(function) };
        Ok(())
    })())
}

/// cuKernelGetLibrary.
pub unsafe fn cuKernelGetLibrary(to: *mut CUlibrary, kernel: CUkernel) -> CUresult {
    finish((|| {
        not_null(to)?;
        let parent = kernel_record(initialised()?, kernel)?.parent;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(CUlibrary(parent)) };
        Ok(())
    })())
}

/// cuKernelGetName.
pub unsafe fn cuKernelGetName(name: *mut *const c_char, kernel: CUkernel) -> CUresult {
    finish((|| {
        let process = initialised()?;
        if kernel.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        let record = kernel_record(process, kernel)?;
        // SAFETY: CUDA's contract is the callee's.
        unsafe { function::give_name(&record, name) }
    })())
}

/// cuKernelGetParamInfo.
pub unsafe fn cuKernelGetParamInfo(
    kernel: CUkernel,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> CUresult {
    finish((|| {
        let record = kernel_record(initialised()?, kernel)?;
        // SAFETY: CUDA's contract is the callee's.
        unsafe { function::give_param(&record, index, offset, size) }
    })())
}

/// cuKernelGetAttribute.
pub unsafe fn cuKernelGetAttribute(
    value: *mut i32,
    attribute: i32,
    kernel: CUkernel,
    dev: CUdevice,
) -> CUresult {
    finish((|| {
        not_null(value)?;
        let process = initialised()?;
        process.alive()?;
        process.device(dev)?;
        let found = kernel_record(process, kernel)?.attribute_on(dev, attribute)?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { value.write(found) };
        Ok(())
    })())
}

/// cuKernelSetAttribute.
pub unsafe fn cuKernelSetAttribute(attribute: i32, value: i32, kernel: CUkernel, dev: CUdevice) -> CUresult {
    finish((|| {
        let process = initialised()?;
        let host_device = process.host_ordinal(dev)?;
        let known = kernel_record(process, kernel)?;
        function::check_attribute(attribute)?;
        let info = gate::call::<row::cuKernelSetAttribute>((attribute, value, kernel, host_device))?;
        if process.devices().len() > 1 {
            known.update_on(dev, &info);
        } else {
            known.update(&info);
        }
        // Its functions in the contexts of that device follow.
        if let Ok(library) = record(process, CUlibrary(known.parent)) {
            for ((context, of), function) in lock(&library.functions).iter() {
                let same_device = crate::context::device_of(CUcontext(*context)) == Ok(dev);
                if *of == kernel.0
                    && same_device
                    && let Some(record) = process.objects.functions.get(function.0)
                {
                    record.update(&info);
                }
            }
        }
        Ok(())
    })())
}
