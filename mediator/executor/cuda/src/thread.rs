//! What belongs to a ring's host thread: the context that is current in it, its staging buffer's registration, and the copies that it
//! has begun and not waited for.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::host::StagingView;
use cuda_api::types::CUresult;

use crate::bounce::Bounce;
use crate::context::Context;
use crate::driver::{Driver, Raw};
use crate::flights::Flights;

/// CU_STREAM_CAPTURE_MODE_RELAXED.
const CAPTURE_RELAXED: u32 = 2;
/// The driver's own default stream.
pub(crate) const STREAM_LEGACY: Raw = 0;
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
    /// Through which short copies go.
    bounce: Bounce,
    /// Copies in the legacy default stream of the current context have been begun and not been waited for.
    unsettled: bool,
    /// What goes through staging.
    flights: Flights,
}

// SAFETY: of what is in it, only the staging buffer's address keeps it from being Send; it is used under `StagingView`'s
// contract, which is Send, and to unregister it.
unsafe impl Send for Thread {}

/// Has the driver carry out whatever this thread asks for while streams are being captured: it would refuse some of it, and end the
/// captures.
pub(crate) fn relax(driver: &Driver) {
    let mut mode = CAPTURE_RELAXED;
    // SAFETY: a local with a mode in it.
    if let Err(error) = unsafe { driver.cuThreadExchangeStreamCaptureMode(&raw mut mode) } {
        log::warn!("a thread keeps the GLOBAL capture mode: {error}");
    }
}

impl Thread {
    /// On the ring's own thread.
    pub(crate) fn new(driver: &'static Driver, ring: u32) -> Self {
        relax(driver);
        Thread {
            ring,
            driver,
            context: None,
            bound: 0,
            staging: None,
            pinned: None,
            pageable: false,
            bounce: Bounce::default(),
            unsettled: false,
            flights: Flights::default(),
        }
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

    /// Pinned memory for a copy of `len` bytes, as [`Bounce::take`] has it; what is under way is waited for where there is no other room.
    pub(crate) fn bounce(&mut self, len: usize) -> CuResult<Option<*mut u8>> {
        // What is registered in a green context belongs to its primary one.
        let context = self.owner()?.clone();
        if let Some(at) = self.bounce.take(self.driver, &context, len) {
            return Ok(Some(at));
        }
        if !self.bounce.is_used() {
            return Ok(None);
        }
        self.settle_bounced()?;
        Ok(self.bounce.take(self.driver, &context, len))
    }

    /// A copy was begun in the legacy default stream, from memory of [`Thread::bounce`], and is not waited for.
    pub(crate) fn begun(&mut self) {
        self.unsettled = true;
    }

    /// A copy from or to memory of [`Thread::bounce`] is over, and so are all before it.
    pub(crate) fn over(&mut self) {
        self.unsettled = false;
        self.bounce.settled();
    }

    /// See [`cuda_api::host::Executor::is_unsettled`].
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled || self.flights.any()
    }

    /// A copy from or to staging was issued in a stream, and need not be waited for before the call returns.
    pub(crate) fn transferring(&mut self, stream: Raw) -> CuResult<()> {
        let context = self.context()?.clone();
        self.flights.begin(self.driver, &context, stream)
    }

    /// See [`cuda_api::host::Executor::transfers`].
    pub(crate) fn transfers(&self) -> (u64, u64) {
        self.flights.counts()
    }

    /// Waits for the earliest transfer, or else for the short copies that were begun.
    pub(crate) fn settle(&mut self) -> CuResult<()> {
        if self.flights.any() { self.flights.land(self.driver) } else { self.settle_bounced() }
    }

    /// Waits for the short copies that were begun.
    fn settle_bounced(&mut self) -> CuResult<()> {
        if !self.unsettled {
            self.bounce.settled();
            return Ok(());
        }
        let outcome = self.driver.cuStreamSynchronize(STREAM_LEGACY);
        // Whatever the answer: a context that is gone and a device that is lost copy nothing any more.
        self.over();
        outcome
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
        // An error was this session's, which nobody asks any more.
        while self.is_unsettled() {
            let _ = self.settle();
        }
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
