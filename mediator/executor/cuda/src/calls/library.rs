//! Libraries and kernels.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::Instant;

use cuda_api::CuResult;
use cuda_api::calls::library::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::launch::{check_attribute, enumerator};
use crate::calls::module::{Loaded, params};
use crate::jit::Options;
use crate::objects::{Function, Library, Module, Source};
use crate::thread::Thread;

impl Cuda {
    fn library_of(function: &Function) -> CuResult<Arc<Library>> {
        match &function.source {
            Source::Kernel(library) => Ok(library.clone()),
            _ => Err(CUresult::INVALID_HANDLE),
        }
    }
}

impl Host for Cuda {
    fn cuLibraryLoadData(
        &self,
        thread: &mut Thread,
        library: CUlibrary,
        image: u64,
        options: &[u8],
        info_room: u32,
        error_room: u32,
    ) -> CuResult<Loaded> {
        self.libraries.check_free(library)?;
        let image = self.image(image)?;
        // It is in no context yet; most programs have one device.
        let hold = self.hold_code(thread.device(), &image)?;
        let mut options = Options::read(options, info_room, error_room)?;
        let (count, numbers, values) = options.arrays();
        let (at, begun) = (image.pointer(), Instant::now());
        let (none, no_values) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: an image that lies within its own bytes (checked; text ends with NUL), which the driver copies since it
        // is not told that they are preserved; options and logs are arrays of `options`, which outlives the call.
        let outcome =
            unsafe { self.driver.cuLibraryLoadData(at, numbers, values, count, none, no_values, 0) };
        let answer = self.loaded(outcome.map(|_| ()), &options, image.len(), begun);
        if let Ok((raw,)) = outcome {
            let made = Library { driver: self.driver, raw, _image: image.kept(), _hold: hold };
            self.libraries.add(library, Arc::new(made))?;
        }
        Ok(answer)
    }

    fn cuLibraryUnload(&self, _: &mut Thread, library: CUlibrary) -> CuResult<()> {
        let gone = self.libraries.remove(library)?;
        self.forget_managed(gone.raw);
        drop(self.functions.remove_if(|function| function.of_library(&gone)));
        drop(self.kernels.remove_if(|kernel| kernel.of_library(&gone)));
        let is_its = |module: &Module| module.library.as_ref().is_some_and(|of| Arc::ptr_eq(of, &gone));
        drop(self.modules.remove_if(is_its));
        self.memory.forget_variables(gone.raw);
        Ok(())
    }

    fn cuLibraryGetKernel(
        &self,
        thread: &mut Thread,
        kernel: CUkernel,
        library: CUlibrary,
        name: &CStr,
    ) -> CuResult<(FunctionInfo, Vec<ParamInfo>)> {
        let library = self.libraries.get(library)?;
        self.kernels.check_free(kernel)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        let (raw,) = unsafe { self.driver.cuLibraryGetKernel(library.raw, name.as_ptr()) }?;
        // Asking for the kernel needs no context; asking about it does.
        let (made, info, params) = self.with_any_context(thread, || {
            let (params, param_bytes) = params(self.driver, raw, true)?;
            let made = Function { raw, source: Source::Kernel(library), param_bytes };
            let info = made.info(self.driver, thread.device());
            Ok((made, info, params))
        })?;
        self.kernels.add(kernel, Arc::new(made))?;
        Ok((info, params))
    }

    fn cuLibraryGetModule(&self, thread: &mut Thread, module: CUmodule, library: CUlibrary) -> CuResult<()> {
        let context = thread.owner()?.clone();
        let library = self.libraries.get(library)?;
        self.modules.check_free(module)?;
        let (raw,) = self.driver.cuLibraryGetModule(library.raw)?;
        self.modules
            .add(module, Arc::new(Module { raw, context, library: Some(library), _image: None, _hold: None }))
    }

    fn cuLibraryGetGlobal(
        &self,
        thread: &mut Thread,
        library: CUlibrary,
        name: &CStr,
    ) -> CuResult<(CUdeviceptr, usize, bool)> {
        let context = thread.owner()?.id;
        let library = self.libraries.get(library)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        let (at, len) = unsafe { self.driver.cuLibraryGetGlobal(library.raw, name.as_ptr()) }?;
        let managed = self.is_managed(at);
        if managed {
            self.add_managed(at, len as u64, library.raw, None)?;
        } else {
            self.memory.add_variable(at, len as u64, library.raw, context)?;
        }
        Ok((at, len, managed))
    }

    fn cuLibraryGetManaged(
        &self,
        _: &mut Thread,
        library: CUlibrary,
        name: &CStr,
    ) -> CuResult<(CUdeviceptr, usize)> {
        let library = self.libraries.get(library)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        let (at, len) = unsafe { self.driver.cuLibraryGetManaged(library.raw, name.as_ptr()) }?;
        self.add_managed(at, len as u64, library.raw, None)?;
        Ok((at, len))
    }

    fn cuLibraryGetKernelCount(&self, _: &mut Thread, library: CUlibrary) -> CuResult<u32> {
        self.driver.cuLibraryGetKernelCount(self.libraries.get(library)?.raw).map(|(count,)| count)
    }

    fn cuLibraryEnumerateKernels(&self, _: &mut Thread, library: CUlibrary, first: u32) -> CuResult<Vec<u8>> {
        self.kernel_names(self.libraries.get(library)?.raw, first)
    }

    fn cuKernelGetFunction(
        &self,
        thread: &mut Thread,
        function: CUfunction,
        kernel: CUkernel,
    ) -> CuResult<()> {
        let context = thread.owner()?.clone();
        let kernel = self.kernels.get(kernel)?;
        let library = Self::library_of(&kernel)?;
        self.functions.check_free(function)?;
        let (raw,) = self.driver.cuKernelGetFunction(kernel.raw)?;
        let source = Source::Function(library, context);
        self.functions.add(function, Arc::new(Function { raw, source, param_bytes: kernel.param_bytes }))
    }

    fn cuKernelSetAttribute(
        &self,
        thread: &mut Thread,
        attrib: i32,
        value: i32,
        kernel: CUkernel,
        dev: i32,
    ) -> CuResult<FunctionInfo> {
        let kernel = self.kernels.get(kernel)?;
        check_attribute(attrib)?;
        let (device,) = self.driver.cuDeviceGet(dev)?;
        self.with_any_context(thread, || {
            self.driver.cuKernelSetAttribute(attrib, value, kernel.raw, device)?;
            Ok(kernel.info(self.driver, device))
        })
    }

    fn cuKernelSetCacheConfig(
        &self,
        _: &mut Thread,
        kernel: CUkernel,
        config: u32,
        dev: CUdevice,
    ) -> CuResult<()> {
        let kernel = self.kernels.get(kernel)?;
        let (device,) = self.driver.cuDeviceGet(dev)?;
        self.driver.cuKernelSetCacheConfig(kernel.raw, enumerator(config)?, device)
    }
}
