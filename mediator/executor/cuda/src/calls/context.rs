//! Contexts.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::context::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::launch::enumerator;
use crate::context::{Context, number};
use crate::lock::read;
use crate::session::contexts_mut;
use crate::thread::Thread;

/// CU_CTX_SCHED_*, MAP_HOST, LMEM_RESIZE_TO_MAX and SYNC_MEMOPS. Not the core dump flags, which write files on the host.
const FLAGS: u32 = 0x9f;

impl Cuda {
    fn check_flags(&self, flags: u32) -> CuResult<()> {
        if flags & !FLAGS == 0 {
            return Ok(());
        }
        self.warn_once(&format!("context flags {flags:#x}: core dumps are not supported"));
        Err(CUresult::INVALID_VALUE)
    }
}

impl Host for Cuda {
    fn cuDevicePrimaryCtxRetain(&self, _: &mut Thread, ctx: CUcontext, dev: i32, flags: u32) -> CuResult<()> {
        self.check_flags(flags)?;
        let number = number(ctx)?;
        // Held meanwhile: nobody else makes the same one.
        let mut contexts = contexts_mut(self);
        contexts.check_free(number)?;
        let (device,) = self.driver.cuDeviceGet(dev)?;
        self.driver.cuDevicePrimaryCtxSetFlags_v2(device, flags)?;
        let (raw,) = self.driver.cuDevicePrimaryCtxRetain(device)?;
        contexts.add(Arc::new(Context::new(self.driver, raw, number, device, true)));
        Ok(())
    }

    fn cuDevicePrimaryCtxRelease_v2(&self, thread: &mut Thread, ctx: CUcontext, _dev: i32) -> CuResult<()> {
        let number = number(ctx)?;
        let mut contexts = contexts_mut(self);
        if contexts.release_reset(number) {
            return Ok(());
        }
        let context = contexts.remove(number, true)?;
        drop(contexts);
        self.end_context(thread, &context, || self.driver.cuDevicePrimaryCtxRelease_v2(context.device))
    }

    fn cuDevicePrimaryCtxReset_v2(&self, thread: &mut Thread, ctx: CUcontext, dev: i32) -> CuResult<()> {
        let number = number(ctx)?;
        let mut contexts = contexts_mut(self);
        let Ok(context) = contexts.remove(number, true) else {
            return self.driver.cuDeviceGet(dev).map(|_| ());
        };
        contexts.set_reset(number);
        drop(contexts);
        // The guest counts how often it is retained: here that is once, so that the driver ends it with the release.
        self.end_context(thread, &context, || self.driver.cuDevicePrimaryCtxRelease_v2(context.device))
    }

    fn cuCtxCreate_v2(&self, thread: &mut Thread, ctx: CUcontext, flags: u32, dev: i32) -> CuResult<()> {
        self.check_flags(flags)?;
        let number = number(ctx)?;
        let mut contexts = contexts_mut(self);
        contexts.check_free(number)?;
        let (device,) = self.driver.cuDeviceGet(dev)?;
        let (raw,) = self.driver.cuCtxCreate_v2(flags, device)?;
        contexts.add(Arc::new(Context::new(self.driver, raw, number, device, false)));
        drop(contexts);
        // It was made current as well: which context is current is the next frame's word.
        self.driver.cuCtxPopCurrent_v2()?;
        thread.bind(thread.context().ok().cloned())
    }

    fn cuCtxDestroy_v2(&self, thread: &mut Thread, ctx: CUcontext) -> CuResult<()> {
        let context = {
            let number = number(ctx)?;
            let mut contexts = contexts_mut(self);
            // A green context's goes with that one.
            if contexts.get(number)?.owner.is_some() {
                return Err(CUresult::INVALID_CONTEXT);
            }
            contexts.remove(number, false)?
        };
        self.end_context(thread, &context, || self.driver.cuCtxDestroy_v2(context.raw))
    }

    fn cuCtxSynchronize(&self, thread: &mut Thread, ctx: CUcontext) -> CuResult<()> {
        let context =
            if ctx.is_null() { thread.context()?.clone() } else { read(&self.contexts).get(number(ctx)?)? };
        if thread.context().is_ok_and(|current| Arc::ptr_eq(current, &context)) {
            return self.driver.cuCtxSynchronize();
        }
        context.with(|| self.driver.cuCtxSynchronize())
    }

    fn cuCtxGetLimit(&self, _: &mut Thread, limit: u32) -> CuResult<usize> {
        self.driver.cuCtxGetLimit(enumerator(limit)?).map(|(value,)| value)
    }

    fn cuCtxSetLimit(&self, _: &mut Thread, limit: u32, value: usize) -> CuResult<()> {
        self.driver.cuCtxSetLimit(enumerator(limit)?, value)
    }

    fn cuCtxSetFlags(&self, thread: &mut Thread, flags: u32) -> CuResult<()> {
        thread.context()?;
        self.check_flags(flags)?;
        self.driver.cuCtxSetFlags(flags)
    }

    fn cuCtxGetSharedMemConfig(&self, _: &mut Thread) -> CuResult<u32> {
        self.driver.cuCtxGetSharedMemConfig().map(|(config,)| config)
    }

    fn cuCtxSetSharedMemConfig(&self, _: &mut Thread, config: u32) -> CuResult<()> {
        self.driver.cuCtxSetSharedMemConfig(enumerator(config)?)
    }

    fn cuCtxResetPersistingL2Cache(&self, _: &mut Thread) -> CuResult<()> {
        self.driver.cuCtxResetPersistingL2Cache()
    }

    fn cuCtxGetExecAffinity(&self, _: &mut Thread, kind: u32) -> CuResult<u32> {
        self.driver.cuCtxGetExecAffinity(enumerator(kind)?).map(|([_, multiprocessors],)| multiprocessors)
    }

    fn cuCtxRecordEvent(&self, _: &mut Thread, ctx: CUcontext, event: CUevent) -> CuResult<()> {
        let (context, event) = (read(&self.contexts).get(number(ctx)?)?, self.event(event)?);
        self.driver.cuCtxRecordEvent(context.raw, event.raw)
    }

    fn cuCtxWaitEvent(&self, _: &mut Thread, ctx: CUcontext, event: CUevent) -> CuResult<()> {
        let (context, event) = (read(&self.contexts).get(number(ctx)?)?, self.event(event)?);
        self.driver.cuCtxWaitEvent(context.raw, event.raw)
    }

    fn cuCtxEnablePeerAccess(&self, thread: &mut Thread, peer: CUcontext, flags: u32) -> CuResult<()> {
        thread.context()?;
        let peer = self.context_by(peer)?;
        self.driver.cuCtxEnablePeerAccess(peer.raw, flags)
    }

    fn cuCtxDisablePeerAccess(&self, thread: &mut Thread, peer: CUcontext) -> CuResult<()> {
        thread.context()?;
        let peer = self.context_by(peer)?;
        self.driver.cuCtxDisablePeerAccess(peer.raw)
    }

    fn cuDeviceGetDevResource(&self, _: &mut Thread, dev: i32, kind: u32) -> CuResult<DeviceResource> {
        self.device_resource(dev, kind)
    }

    fn cuCtxGetDevResource(&self, _: &mut Thread, ctx: CUcontext, kind: u32) -> CuResult<DeviceResource> {
        self.context_resource(ctx, kind)
    }

    fn cuGreenCtxGetDevResource(
        &self,
        _: &mut Thread,
        green: CUgreenCtx,
        kind: u32,
    ) -> CuResult<DeviceResource> {
        self.green_resource(green, kind)
    }

    fn cuDevSmResourceSplitByCount(
        &self,
        _: &mut Thread,
        input: u64,
        groups: u32,
        count_only: bool,
        flags: u32,
        min_count: u32,
    ) -> CuResult<(u32, Vec<DeviceResource>, DeviceResource)> {
        self.split_resource(input, groups, count_only, flags, min_count)
    }

    fn cuDevResourceGenerateDesc(
        &self,
        _: &mut Thread,
        desc: CUdevResourceDesc,
        names: &[u8],
    ) -> CuResult<()> {
        self.describe_resources(desc, names)
    }

    fn cuGreenCtxCreate(
        &self,
        _: &mut Thread,
        green: CUgreenCtx,
        ctx: CUcontext,
        primary: CUcontext,
        desc: CUdevResourceDesc,
        dev: i32,
        flags: u32,
    ) -> CuResult<()> {
        self.green_create(green, ctx, primary, desc, dev, flags)
    }

    fn cuGreenCtxDestroy(&self, thread: &mut Thread, green: CUgreenCtx) -> CuResult<()> {
        let green = self.greens.remove(green)?;
        self.green_end(thread, &green)
    }

    fn cuGreenCtxRecordEvent(&self, _: &mut Thread, green: CUgreenCtx, event: CUevent) -> CuResult<()> {
        let (green, event) = (self.greens.get(green)?, self.event(event)?);
        self.driver.cuGreenCtxRecordEvent(green.raw, event.raw)
    }

    fn cuGreenCtxWaitEvent(&self, _: &mut Thread, green: CUgreenCtx, event: CUevent) -> CuResult<()> {
        let (green, event) = (self.greens.get(green)?, self.event(event)?);
        self.driver.cuGreenCtxWaitEvent(green.raw, event.raw)
    }

    fn cuGreenCtxStreamCreate(
        &self,
        _: &mut Thread,
        stream: CUstream,
        green: CUgreenCtx,
        flags: u32,
        priority: i32,
    ) -> CuResult<()> {
        self.green_stream(stream, green, flags, priority)
    }

    fn cuCtxGetCacheConfig(&self, _: &mut Thread) -> CuResult<u32> {
        self.driver.cuCtxGetCacheConfig().map(|(config,)| config)
    }

    fn cuCtxSetCacheConfig(&self, _: &mut Thread, config: u32) -> CuResult<()> {
        self.driver.cuCtxSetCacheConfig(enumerator(config)?)
    }
}
