//! What belongs to a ring's host thread: the context that is current in it, and its staging buffer's registration.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::host::StagingView;
use cuda_api::types::CUresult;

use crate::context::Context;
use crate::driver::{Driver, Raw};

/// CU_STREAM_CAPTURE_MODE_RELAXED.
const CAPTURE_RELAXED: u32 = 2;
/// CU_MEMHOSTREGISTER_PORTABLE.
const REGISTER_PORTABLE: u32 = 1;

/// A staging buffer that the driver knows as pinned memory.
struct Pinned {
    base: *mut u8,
    context: Arc<Context>,
}

/// A ring's host thread.
pub struct Thread {
    pub(crate) ring: u32,
    driver: &'static Driver,
    context: Option<Arc<Context>>,
    /// What the driver has as this thread's current context.
    bound: Raw,
    staging: Option<StagingView>,
    pinned: Option<Pinned>,
    /// Registering failed: copies go through the driver's own staging.
    pageable: bool,
}

// SAFETY: of what is in it, only the staging buffer's address keeps it from being Send; it is used under `StagingView`'s
// contract, which is Send, and to unregister it.
unsafe impl Send for Thread {}

impl Thread {
    /// On the ring's own thread.
    pub(crate) fn new(driver: &'static Driver, ring: u32) -> Self {
        let mut mode = CAPTURE_RELAXED;
        // SAFETY: a local with a mode in it.
        if let Err(error) = unsafe { driver.cuThreadExchangeStreamCaptureMode(&raw mut mode) } {
            log::warn!("a ring's thread keeps the GLOBAL capture mode: {error}");
        }
        Thread { ring, driver, context: None, bound: 0, staging: None, pinned: None, pageable: false }
    }

    /// The current context.
    pub(crate) fn context(&self) -> CuResult<&Arc<Context>> {
        self.context.as_ref().ok_or(CUresult::INVALID_CONTEXT)
    }

    /// The context that what is made now belongs to: the current one or, where that is a green context's, its primary context.
    pub(crate) fn owner(&self) -> CuResult<&Arc<Context>> {
        let context = self.context()?;
        Ok(context.owner.as_ref().unwrap_or(context))
    }

    /// The device of the current context, 0 where there is none.
    pub(crate) fn device(&self) -> i32 {
        self.context.as_ref().map_or(0, |context| context.device)
    }

    /// The next call's context is the one that was current already.
    #[inline]
    pub(crate) fn is_current(&self, number: u32) -> bool {
        match &self.context {
            Some(context) => context.id == number && context.alive(),
            None => number == 0 && self.bound == 0,
        }
    }

    pub(crate) fn set_staging(&mut self, staging: Option<StagingView>) {
        self.staging = staging;
    }

    /// Makes a context current, or none.
    pub(crate) fn bind(&mut self, context: Option<Arc<Context>>) -> CuResult<()> {
        self.context = None;
        let raw = context.as_ref().map_or(0, |context| context.raw);
        self.driver.cuCtxSetCurrent(raw)?;
        self.bound = raw;
        self.context = context;
        Ok(())
    }

    /// `len` bytes of staging, registered with the driver where it lets us.
    pub(crate) fn staging(&mut self, offset: u64, len: u64) -> CuResult<*mut u8> {
        let view = self.staging.ok_or(CUresult::INVALID_VALUE)?;
        let at = view.at(offset, len).ok_or(CUresult::INVALID_VALUE)?;
        if !self.pageable && self.pinned.as_ref().is_none_or(|pinned| !pinned.context.alive()) {
            self.pin(&view);
        }
        Ok(at)
    }

    /// Registers the staging buffer. A copy from or to it works without, but slower.
    fn pin(&mut self, view: &StagingView) {
        let (Some(context), Some(base)) = (self.context.clone(), view.at(0, 0)) else { return };
        let len = usize::try_from(view.bytes()).unwrap_or(0);
        // SAFETY: the worker keeps the buffer mapped until this thread's state is gone, which unregisters it first.
        match unsafe { self.driver.cuMemHostRegister_v2(base.cast(), len, REGISTER_PORTABLE) } {
            Ok(()) => self.pinned = Some(Pinned { base, context }),
            Err(CUresult::HOST_MEMORY_ALREADY_REGISTERED) => {
                self.pinned = Some(Pinned { base, context });
            }
            Err(error) => {
                log::warn!(
                    "a staging buffer of {len} bytes cannot be registered, its copies are slower: {error}"
                );
                self.pageable = true;
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(pinned) = self.pinned.take()
            && self.driver.sticky() == 0
        {
            let address: *mut c_void = pinned.base.cast();
            // SAFETY: registered by `pin`, and no copy of this thread is under way.
            let gone = pinned.context.with(|| unsafe { self.driver.cuMemHostUnregister(address) });
            if let Err(error) = gone {
                log::debug!("a staging buffer stays registered: {error}");
            }
        }
    }
}
