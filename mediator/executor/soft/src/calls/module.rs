//! Images and modules.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::{entry, module};
use cuda_api::types::*;
use cuda_api::wire::Bulk;

use crate::Soft;
use crate::calls::link::Link;
use crate::kernel::{Kernel, PARAMS_MAX};
use crate::library::{Function, Library, Module};
use crate::lock::lock;
use crate::program::Refusal;
use crate::soft::Thread;

/// Bytes of a log at most.
const LOG_BYTES_MAX: usize = 16 << 10;

/// What a load answers: the outcome, and the logs.
pub(crate) type Loaded = (u32, Vec<u8>, Vec<u8>);

/// A load that came to its end, well or not: what it answers. The error log says why it was refused.
pub(crate) fn loaded(soft: &Soft, outcome: Result<(), Refusal>, error_room: u32) -> Loaded {
    let Err(refusal) = outcome else { return (0, Vec::new(), Vec::new()) };
    // Why is for the program: it is about its code.
    soft.warn_once(&format!("an image is refused ({})", refusal.result));
    let room = usize::try_from(error_room).unwrap_or(0).min(LOG_BYTES_MAX);
    let log = refusal.log.into_bytes().into_iter().take(room).collect();
    (refusal.result.0, Vec::new(), log)
}

/// What the guest keeps of a kernel.
pub(crate) fn described(kernel: &Kernel) -> CuResult<(FunctionInfo, Vec<ParamInfo>)> {
    if kernel.params.len() > PARAMS_MAX {
        return Err(CUresult::LAUNCH_OUT_OF_RESOURCES);
    }
    Ok((kernel.info(), kernel.params.clone()))
}

/// A name as Rust has it; PTX has no others.
pub(crate) fn name(name: &core::ffi::CStr) -> CuResult<&str> {
    name.to_str().map_err(|_| CUresult::NOT_FOUND)
}

impl Soft {
    /// Reads the PTX of an image.
    pub(crate) fn read_image(&self, image: u64) -> Result<Arc<Library>, Refusal> {
        let text = lock(&self.images).text(image)?;
        if let Some(completion) = &self.completion
            && text.contains("vprintf")
        {
            completion.set_may_print(true);
        }
        Library::read(&self.device, text)
    }

    /// A variable of a library in a context, and whether it is managed.
    pub(crate) fn variable(
        &self,
        library: &Library,
        context: u32,
        wanted: &str,
    ) -> CuResult<(CUdeviceptr, usize, bool)> {
        let program = library.program(&self.device, context).map_err(|refusal| refusal.result)?;
        let found = program.variable(wanted).ok_or(CUresult::NOT_FOUND)?;
        if found.managed {
            // SAFETY: device memory is this process's, and a variable's stays until `give_back` has taken it out of the list.
            unsafe { self.device.managed.add(found.address, found.len) }?;
        }
        Ok((found.address, usize::try_from(found.len).map_err(|_| CUresult::UNKNOWN)?, found.managed))
    }
}

impl entry::Host for Soft {
    fn cuProfilerStart(&self, thread: &mut Thread) -> CuResult<()> {
        // As with the driver where no profiler has attached itself: there is none to tell.
        self.context(thread).map(|_| ())
    }

    fn cuProfilerStop(&self, thread: &mut Thread) -> CuResult<()> {
        self.context(thread).map(|_| ())
    }

    fn vgpuTakeOutput(&self, _: &mut Thread) -> CuResult<(Vec<u8>, Vec<u8>)> {
        Ok(self.device.output.get().map(|output| output.take()).unwrap_or_default())
    }

    fn vgpuImageData(
        &self,
        thread: &mut Thread,
        image: u64,
        offset: u64,
        total: u64,
        bytes: Bulk<'_>,
    ) -> CuResult<()> {
        match bytes {
            Bulk::Inline(piece) => lock(&self.images).add(image, offset, total, piece),
            Bulk::Staged { offset: at, len } => {
                let staging = thread.staging.as_ref().ok_or(CUresult::INVALID_VALUE)?;
                let from = staging.at(at, len).ok_or(CUresult::INVALID_VALUE)?;
                let len = usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?;
                let mut piece = Vec::with_capacity(len);
                // SAFETY: `len` bytes of staging (checked above, mapped while the call runs, at most as large as the
                // buffer), copied once into room of that size: what is read later does not change any more.
                unsafe {
                    std::ptr::copy_nonoverlapping(from.cast_const(), piece.as_mut_ptr(), len);
                    piece.set_len(len);
                }
                lock(&self.images).add(image, offset, total, &piece)
            }
        }
    }
}

impl module::Host for Soft {
    fn cuModuleLoadDataEx(
        &self,
        thread: &mut Thread,
        module: CUmodule,
        image: u64,
        _options: &[u8],
        _info_room: u32,
        error_room: u32,
    ) -> CuResult<Loaded> {
        let context = self.context(thread)?.id;
        let outcome = self.read_image(image).and_then(|library| {
            library.program(&self.device, context)?;
            let made = Arc::new(Module { library: library.clone(), context, borrowed: false });
            self.modules.add(module, made).map_err(|error| {
                library.unload(&self.device);
                Refusal::from(error)
            })
        });
        Ok(loaded(self, outcome, error_room))
    }

    fn cuModuleUnload(&self, _: &mut Thread, module: CUmodule) -> CuResult<()> {
        if self.modules.get(module)?.borrowed {
            return Err(CUresult::INVALID_HANDLE);
        }
        self.device.wait_idle(None, None)?;
        let gone = self.modules.remove(module)?;
        self.functions.remove_if(|f| Arc::ptr_eq(&f.library, &gone.library));
        gone.library.unload(&self.device);
        Ok(())
    }

    fn cuModuleGetFunction(
        &self,
        _: &mut Thread,
        function: CUfunction,
        module: CUmodule,
        wanted: &core::ffi::CStr,
    ) -> CuResult<(FunctionInfo, Vec<ParamInfo>)> {
        let module = self.modules.get(module)?;
        let kernel = module.library.kernel(name(wanted)?)?;
        let description = described(&kernel)?;
        let made = Function { library: module.library.clone(), kernel, context: Some(module.context) };
        self.functions.add(function, Arc::new(made))?;
        Ok(description)
    }

    fn cuModuleGetGlobal_v2(
        &self,
        _: &mut Thread,
        module: CUmodule,
        wanted: &core::ffi::CStr,
    ) -> CuResult<(CUdeviceptr, usize, bool)> {
        let module = self.modules.get(module)?;
        self.variable(&module.library, module.context, name(wanted)?)
    }

    fn cuModuleGetFunctionCount(&self, _: &mut Thread, module: CUmodule) -> CuResult<u32> {
        Ok(self.modules.get(module)?.library.kernel_count())
    }

    fn cuModuleEnumerateFunctions(&self, _: &mut Thread, module: CUmodule, first: u32) -> CuResult<Vec<u8>> {
        Ok(self.modules.get(module)?.library.names(first))
    }

    fn cuLinkCreate_v2(
        &self,
        thread: &mut Thread,
        state: CUlinkState,
        _options: &[u8],
        _info_room: u32,
        error_room: u32,
    ) -> CuResult<()> {
        let context = self.context(thread)?.id;
        self.links.add(state, Arc::new(Link::new(context, error_room)))
    }

    fn cuLinkAddData_v2(
        &self,
        _: &mut Thread,
        state: CUlinkState,
        kind: u32,
        image: u64,
        _name: &core::ffi::CStr,
        _options: &[u8],
    ) -> CuResult<Loaded> {
        let link = self.links.get(state)?;
        let outcome = link.add(self, kind, image);
        Ok(loaded(self, outcome, link.error_room))
    }

    fn cuLinkComplete(&self, _: &mut Thread, state: CUlinkState) -> CuResult<(u32, u64, Vec<u8>, Vec<u8>)> {
        let bytes = self.links.get(state)?.complete()?;
        Ok((0, bytes, Vec::new(), Vec::new()))
    }

    fn cuLinkDestroy(&self, _: &mut Thread, state: CUlinkState) -> CuResult<()> {
        self.links.remove(state).map(|_| ())
    }

    fn vgpuLinkedImage(&self, _: &mut Thread, state: CUlinkState, offset: u64) -> CuResult<Vec<u8>> {
        self.links.get(state)?.image(offset)
    }
}
