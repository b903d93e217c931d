//! Contexts.

use std::sync::atomic::Ordering;

use cuda_api::CuResult;
use cuda_api::calls::context::Host;
use cuda_api::types::*;

use crate::Soft;
use crate::context::Contexts;
use crate::lock::read;
use crate::soft::{Thread, contexts_mut};

/// CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE.
const SHARED_FOUR_BYTES: u32 = 1;

impl Soft {
    fn cache_config(config: u32) -> CuResult<u32> {
        // CUfunc_cache: no preference, shared, L1, equal.
        if config <= 3 { Ok(config) } else { Err(CUresult::INVALID_VALUE) }
    }

    /// A preference that nothing here depends on.
    pub(crate) fn check_cache_config(config: u32) -> CuResult<()> {
        Self::cache_config(config).map(|_| ())
    }
}

impl Host for Soft {
    fn cuDevicePrimaryCtxRetain(&self, _: &mut Thread, ctx: CUcontext, dev: i32, flags: u32) -> CuResult<()> {
        contexts_mut(self).retain(ctx, flags, dev, |id, device| self.begin_context(id, device))
    }

    fn cuDevicePrimaryCtxRelease_v2(&self, _: &mut Thread, ctx: CUcontext, dev: i32) -> CuResult<()> {
        let ended = contexts_mut(self).release(ctx, dev)?;
        ended.iter().for_each(|context| self.end_context(context));
        Ok(())
    }

    fn cuDevicePrimaryCtxReset_v2(&self, _: &mut Thread, ctx: CUcontext, dev: i32) -> CuResult<()> {
        let ended = contexts_mut(self).reset(ctx, dev)?;
        ended.iter().for_each(|context| self.end_context(context));
        Ok(())
    }

    fn cuCtxCreate_v2(&self, _: &mut Thread, ctx: CUcontext, flags: u32, dev: i32) -> CuResult<()> {
        contexts_mut(self).create(ctx, flags, dev, |id, device| self.begin_context(id, device))
    }

    fn cuCtxDestroy_v2(&self, _: &mut Thread, ctx: CUcontext) -> CuResult<()> {
        let ended = contexts_mut(self).destroy(ctx)?;
        self.end_context(&ended);
        Ok(())
    }

    fn cuCtxSynchronize(&self, thread: &mut Thread, ctx: CUcontext) -> CuResult<()> {
        let id =
            if ctx.is_null() { self.context(thread)?.id } else { read(&self.contexts).by_handle(ctx)?.id };
        self.device.wait_idle(Some(id), None)?;
        self.device.memory.trim(None, None);
        Ok(())
    }

    fn cuCtxEnablePeerAccess(&self, thread: &mut Thread, peer: CUcontext, flags: u32) -> CuResult<()> {
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        let (own, other) = (self.context(thread)?, read(&self.contexts).by_handle(peer)?);
        if own.device == other.device {
            return Err(CUresult::PEER_ACCESS_UNSUPPORTED);
        }
        self.device.memory.set_peer(own.id, other.id, true)
    }

    fn cuCtxDisablePeerAccess(&self, thread: &mut Thread, peer: CUcontext) -> CuResult<()> {
        let (own, other) = (self.context(thread)?, read(&self.contexts).by_handle(peer)?);
        // What runs may still use what it has found.
        self.device.wait_idle(Some(own.id), None)?;
        self.device.memory.set_peer(own.id, other.id, false)
    }

    fn cuCtxGetLimit(&self, thread: &mut Thread, limit: u32) -> CuResult<usize> {
        self.context(thread)?.limit(limit)
    }

    fn cuCtxSetLimit(&self, thread: &mut Thread, limit: u32, value: usize) -> CuResult<()> {
        self.context(thread)?.set_limit(limit, value)
    }

    fn cuCtxSetFlags(&self, thread: &mut Thread, flags: u32) -> CuResult<()> {
        self.context(thread)?;
        Contexts::check_flags(flags)
    }

    fn cuCtxGetSharedMemConfig(&self, thread: &mut Thread) -> CuResult<u32> {
        self.context(thread).map(|_| SHARED_FOUR_BYTES)
    }

    fn cuCtxSetSharedMemConfig(&self, thread: &mut Thread, config: u32) -> CuResult<()> {
        // CUsharedconfig: default, 4-byte and 8-byte banks, of which there is one kind (as on hardware of this age).
        self.context(thread)?;
        if config <= 2 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    }

    fn cuCtxGetCacheConfig(&self, thread: &mut Thread) -> CuResult<u32> {
        Ok(self.context(thread)?.cache_config.load(Ordering::Relaxed))
    }

    fn cuCtxSetCacheConfig(&self, thread: &mut Thread, config: u32) -> CuResult<()> {
        let context = self.context(thread)?;
        context.cache_config.store(Self::cache_config(config)?, Ordering::Relaxed);
        Ok(())
    }
}
