//! Images and modules.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::Instant;

use cuda_api::CuResult;
use cuda_api::account::Hold;
use cuda_api::calls::{entry, module};
use cuda_api::types::*;
use cuda_api::wire::Bulk;

use crate::Cuda;
use crate::calls::link::Linked;
use crate::driver::{Driver, Raw};
use crate::image::Given;
use crate::jit::Options;
use crate::lock::lock;
use crate::objects::{Function, Module, Source};
use crate::thread::Thread;

/// What a load answers: the outcome, and the logs.
pub(crate) type Loaded = (u32, Vec<u8>, Vec<u8>);

/// Parameters of a kernel at most; CUDA's limit is 32764 bytes.
const PARAMS_MAX: usize = 4096;

/// A kernel's parameters, and the bytes of its parameter buffer.
pub(crate) fn params(driver: &Driver, raw: Raw, kernel: bool) -> CuResult<(Vec<ParamInfo>, u32)> {
    let (mut params, mut end) = (Vec::new(), 0u32);
    for index in 0..PARAMS_MAX {
        let told = if kernel {
            driver.cuKernelGetParamInfo(raw, index)
        } else {
            driver.cuFuncGetParamInfo(raw, index)
        };
        let (offset, size) = match told {
            Ok(found) => found,
            // Past the last one.
            Err(CUresult::INVALID_VALUE) => return Ok((params, end)),
            Err(error) => return Err(error),
        };
        let number = |value: usize| u32::try_from(value).map_err(|_| CUresult::UNKNOWN);
        let param = ParamInfo { offset: number(offset)?, size: number(size)? };
        end = end.max(param.offset.checked_add(param.size).ok_or(CUresult::UNKNOWN)?);
        params.push(param);
    }
    Err(CUresult::LAUNCH_OUT_OF_RESOURCES)
}

impl Cuda {
    /// An image that the driver may be given.
    pub(crate) fn image(&self, image: u64) -> CuResult<Arc<Given>> {
        let image = lock(&self.images).take(image)?;
        image
            .check()
            .inspect_err(|_| self.warn_once("an image is refused: it is damaged, or of no known kind"))?;
        let given = Arc::new(image.given());
        self.prints.look_at(&given);
        Ok(given)
    }

    /// Takes about what an image's code takes of a device.
    pub(crate) fn hold_code(&self, device: i32, image: &Given) -> CuResult<Hold> {
        let about = usize::try_from(device).ok().and_then(|at| self.devices().get(at));
        let capability = about.map_or(0, |device| {
            let number =
                |attribute| device.attribute(attribute).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
            let (major, minor) = (attribute::COMPUTE_CAPABILITY_MAJOR, attribute::COMPUTE_CAPABILITY_MINOR);
            number(major).saturating_mul(10).saturating_add(number(minor))
        });
        let has_quota = self.account.quota(self.counted_as(device)).is_some();
        self.hold(device, image.device_bytes(capability, has_quota))
    }

    /// A load that came to its end, well or not: what it answers.
    pub(crate) fn loaded(
        &self,
        outcome: CuResult<()>,
        options: &Options,
        image_bytes: usize,
        begun: Instant,
    ) -> Loaded {
        let (info, error) = options.logs();
        log::debug!("an image of {image_bytes} bytes is loaded in {:?}", begun.elapsed());
        if let Err(result) = outcome {
            // What the driver says of it is about the program's code: that is for the program.
            self.warn_once(&format!("an image is refused ({result})"));
        }
        (outcome.err().map_or(0, |result| result.0), info, error)
    }
}

impl entry::Host for Cuda {
    fn cuProfilerStart(&self, _: &mut Thread) -> CuResult<()> {
        self.driver.cuProfilerStart()
    }

    fn cuProfilerStop(&self, _: &mut Thread) -> CuResult<()> {
        self.driver.cuProfilerStop()
    }

    fn vgpuTakeOutput(&self, _: &mut Thread) -> CuResult<(Vec<u8>, Vec<u8>)> {
        Ok(self.output.as_ref().map(|output| output.take()).unwrap_or_default())
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
                let from = thread.staging(at, len)?;
                self.count_staged(len);
                let len = usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?;
                let mut piece = vec![0u8; len];
                // SAFETY: `len` bytes of staging (checked, mapped while the call runs), copied once into room of that
                // size: what is read later does not change any more.
                unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), piece.as_mut_ptr(), len) };
                lock(&self.images).add(image, offset, total, &piece)
            }
        }
    }
}

impl module::Host for Cuda {
    fn cuModuleLoadDataEx(
        &self,
        thread: &mut Thread,
        module: CUmodule,
        image: u64,
        options: &[u8],
        info_room: u32,
        error_room: u32,
    ) -> CuResult<Loaded> {
        let context = thread.owner()?.clone();
        self.modules.check_free(module)?;
        let image = self.image(image)?;
        let hold = Some(self.hold_code(context.device, &image)?);
        let mut options = Options::read(options, info_room, error_room)?;
        let (count, numbers, values) = options.arrays();
        let (at, begun) = (image.pointer(), Instant::now());
        // SAFETY: an image that lies within its own bytes (checked; text ends with NUL), which the driver copies; options
        // and logs are arrays of `options`, which outlives the call.
        let outcome = unsafe { self.driver.cuModuleLoadDataEx(at, count, numbers, values) };
        let answer = self.loaded(outcome.map(|_| ()), &options, image.len(), begun);
        if let Ok((raw,)) = outcome {
            let made = Module { raw, context, library: None, _image: image.kept(), _hold: hold };
            self.modules.add(module, Arc::new(made))?;
        }
        Ok(answer)
    }

    fn cuModuleUnload(&self, _: &mut Thread, module: CUmodule) -> CuResult<()> {
        if self.modules.get(module)?.library.is_some() {
            return Err(CUresult::INVALID_HANDLE);
        }
        let gone = self.modules.remove(module)?;
        self.forget_managed(gone.owner());
        drop(self.functions.remove_if(|function| function.of_module(&gone)));
        self.memory.forget_variables(gone.owner());
        Ok(())
    }

    fn cuModuleGetFunction(
        &self,
        thread: &mut Thread,
        function: CUfunction,
        module: CUmodule,
        name: &CStr,
    ) -> CuResult<(FunctionInfo, Vec<ParamInfo>)> {
        let module = self.live_module(module)?;
        self.functions.check_free(function)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        let (raw,) = unsafe { self.driver.cuModuleGetFunction(module.raw, name.as_ptr()) }?;
        let (params, param_bytes) = params(self.driver, raw, false)?;
        let made = Function { raw, source: Source::Module(module), param_bytes };
        let info = made.info(self.driver, thread.device());
        self.functions.add(function, Arc::new(made))?;
        Ok((info, params))
    }

    fn cuModuleGetGlobal_v2(
        &self,
        _: &mut Thread,
        module: CUmodule,
        name: &CStr,
    ) -> CuResult<(CUdeviceptr, usize, bool)> {
        let module = self.live_module(module)?;
        // SAFETY: a NUL-terminated string that outlives the call.
        let (at, len) = unsafe { self.driver.cuModuleGetGlobal_v2(module.raw, name.as_ptr()) }?;
        let managed = self.is_managed(at);
        if managed {
            let context = module.library.is_none().then_some(module.context.id);
            self.add_managed(at, len as u64, module.owner(), context)?;
        } else {
            self.memory.add_variable(at, len as u64, module.owner(), module.context.id)?;
        }
        Ok((at, len, managed))
    }

    fn cuModuleGetFunctionCount(&self, _: &mut Thread, module: CUmodule) -> CuResult<u32> {
        self.driver.cuModuleGetFunctionCount(self.live_module(module)?.raw).map(|(count,)| count)
    }

    fn cuModuleEnumerateFunctions(&self, _: &mut Thread, module: CUmodule, first: u32) -> CuResult<Vec<u8>> {
        self.function_names(self.live_module(module)?.raw, first)
    }

    fn cuLinkCreate_v2(
        &self,
        thread: &mut Thread,
        state: CUlinkState,
        options: &[u8],
        info_room: u32,
        error_room: u32,
    ) -> CuResult<()> {
        self.link_create(thread, state, options, info_room, error_room)
    }

    fn cuLinkAddData_v2(
        &self,
        _: &mut Thread,
        state: CUlinkState,
        kind: u32,
        image: u64,
        name: &CStr,
        options: &[u8],
    ) -> CuResult<Loaded> {
        self.link_add(state, kind, image, name, options)
    }

    fn cuLinkComplete(&self, _: &mut Thread, state: CUlinkState) -> CuResult<Linked> {
        self.link_complete(state)
    }

    fn cuLinkDestroy(&self, _: &mut Thread, state: CUlinkState) -> CuResult<()> {
        self.links.remove(state).map(drop)
    }

    fn vgpuLinkedImage(&self, _: &mut Thread, state: CUlinkState, offset: u64) -> CuResult<Vec<u8>> {
        self.linked_image(state, offset)
    }
}

impl Cuda {
    fn live_module(&self, module: CUmodule) -> CuResult<Arc<Module>> {
        let module = self.modules.get(module)?;
        if module.context.alive() { Ok(module) } else { Err(CUresult::INVALID_HANDLE) }
    }
}
