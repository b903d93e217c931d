//! Libraries and kernels.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::library::Host;
use cuda_api::types::*;

use crate::Soft;
use crate::calls::module::{Loaded, described, loaded, name};
use crate::library::{Function, Library, Module};
use crate::program::Refusal;
use crate::soft::Thread;

impl Host for Soft {
    fn cuLibraryLoadData(
        &self,
        _: &mut Thread,
        library: CUlibrary,
        image: u64,
        _options: &[u8],
        _info_room: u32,
        error_room: u32,
    ) -> CuResult<Loaded> {
        let add = |made: Arc<Library>| self.libraries.add(library, made).map_err(Refusal::from);
        let outcome = self.read_image(image).and_then(add);
        Ok(loaded(self, outcome, error_room))
    }

    fn cuLibraryUnload(&self, _: &mut Thread, library: CUlibrary) -> CuResult<()> {
        self.libraries.get(library)?;
        self.device.wait_idle(None, None)?;
        let gone = self.libraries.remove(library)?;
        self.functions.remove_if(|f| Arc::ptr_eq(&f.library, &gone));
        self.kernels.remove_if(|k| Arc::ptr_eq(&k.library, &gone));
        self.modules.remove_if(|m| Arc::ptr_eq(&m.library, &gone));
        gone.unload(&self.device);
        Ok(())
    }

    fn cuLibraryGetKernel(
        &self,
        _: &mut Thread,
        kernel: CUkernel,
        library: CUlibrary,
        wanted: &core::ffi::CStr,
    ) -> CuResult<(FunctionInfo, Vec<ParamInfo>)> {
        let library = self.libraries.get(library)?;
        let found = library.kernel(name(wanted)?)?;
        let description = described(&found)?;
        self.kernels.add(kernel, Arc::new(Function { library, kernel: found, context: None }))?;
        Ok(description)
    }

    fn cuLibraryGetModule(&self, thread: &mut Thread, module: CUmodule, library: CUlibrary) -> CuResult<()> {
        let context = self.context(thread)?.id;
        let library = self.libraries.get(library)?;
        library.program(&self.device, context).map_err(|refusal| refusal.result)?;
        self.modules.add(module, Arc::new(Module { library, context, borrowed: true }))
    }

    fn cuLibraryGetGlobal(
        &self,
        thread: &mut Thread,
        library: CUlibrary,
        wanted: &core::ffi::CStr,
    ) -> CuResult<(CUdeviceptr, usize, bool)> {
        let context = self.context(thread)?.id;
        self.variable(&*self.libraries.get(library)?, context, name(wanted)?)
    }

    fn cuLibraryGetManaged(
        &self,
        thread: &mut Thread,
        library: CUlibrary,
        wanted: &core::ffi::CStr,
    ) -> CuResult<(CUdeviceptr, usize)> {
        let library = self.libraries.get(library)?;
        let context = self.context(thread)?.id;
        match self.variable(&library, context, name(wanted)?)? {
            (at, len, true) => Ok((at, len)),
            _ => Err(CUresult::NOT_FOUND),
        }
    }

    fn cuLibraryGetKernelCount(&self, _: &mut Thread, library: CUlibrary) -> CuResult<u32> {
        Ok(self.libraries.get(library)?.kernel_count())
    }

    fn cuLibraryEnumerateKernels(&self, _: &mut Thread, library: CUlibrary, first: u32) -> CuResult<Vec<u8>> {
        Ok(self.libraries.get(library)?.names(first))
    }

    fn cuKernelGetFunction(
        &self,
        thread: &mut Thread,
        function: CUfunction,
        kernel: CUkernel,
    ) -> CuResult<()> {
        let context = self.context(thread)?.id;
        let kernel = self.kernels.get(kernel)?;
        kernel.library.program(&self.device, context).map_err(|refusal| refusal.result)?;
        let made = Function {
            library: kernel.library.clone(),
            kernel: kernel.kernel.clone(),
            context: Some(context),
        };
        self.functions.add(function, Arc::new(made))
    }

    fn cuKernelSetAttribute(
        &self,
        _: &mut Thread,
        attrib: i32,
        value: i32,
        kernel: CUkernel,
        dev: i32,
    ) -> CuResult<FunctionInfo> {
        self.ordinal(dev)?;
        let kernel = self.kernels.get(kernel)?;
        kernel.kernel.set(attrib, value)?;
        Ok(kernel.kernel.info())
    }

    fn cuKernelSetCacheConfig(
        &self,
        _: &mut Thread,
        kernel: CUkernel,
        config: u32,
        dev: CUdevice,
    ) -> CuResult<()> {
        self.ordinal(dev)?;
        self.kernels.get(kernel)?;
        Self::check_cache_config(config)
    }
}
