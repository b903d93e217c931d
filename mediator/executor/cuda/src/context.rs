//! Contexts: the guest's name for one, and the driver's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cuda_api::CuResult;
use cuda_api::types::{CUcontext, CUresult, Handle, unpack_handle};

use crate::driver::{Driver, Raw};

/// Contexts of a session.
const CONTEXTS_MAX: usize = 64;

/// A context that the driver has.
pub(crate) struct Context {
    pub(crate) driver: &'static Driver,
    pub(crate) raw: Raw,
    /// The low half of the guest's handle: what frames name it by.
    pub(crate) id: u32,
    pub(crate) device: i32,
    pub(crate) primary: bool,
    /// Of a green context: its device's primary context, to which what is made in it belongs.
    pub(crate) owner: Option<Arc<Context>>,
    alive: AtomicBool,
}

impl Context {
    pub(crate) fn new(driver: &'static Driver, raw: Raw, id: u32, device: i32, primary: bool) -> Self {
        Context { driver, raw, id, device, primary, owner: None, alive: AtomicBool::new(true) }
    }

    /// The context of a green context, made from a primary one.
    pub(crate) fn green(raw: Raw, id: u32, owner: Arc<Context>) -> Self {
        Context { owner: Some(owner.clone()), ..Context::new(owner.driver, raw, id, owner.device, false) }
    }

    /// What belongs to it may still be given to the driver.
    pub(crate) fn alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// Does something with the context current in the calling thread, whatever is current otherwise.
    pub(crate) fn with<R>(&self, work: impl FnOnce() -> CuResult<R>) -> CuResult<R> {
        if !self.alive() {
            return Err(CUresult::CONTEXT_IS_DESTROYED);
        }
        self.driver.cuCtxPushCurrent_v2(self.raw)?;
        let outcome = work();
        self.driver.cuCtxPopCurrent_v2()?;
        outcome
    }
}

/// The number by which frames name a context.
pub(crate) fn number(context: CUcontext) -> CuResult<u32> {
    unpack_handle(CUcontext::KIND, context.raw()).ok_or(CUresult::INVALID_CONTEXT)?;
    u32::try_from(context.raw() & 0xffff_ffff).map_err(|_| CUresult::INVALID_CONTEXT)
}

/// The contexts of a session.
#[derive(Default)]
pub(crate) struct Contexts {
    by_number: HashMap<u32, Arc<Context>>,
    /// Primary contexts that were reset, and of which the guest still counts a retain.
    reset: HashSet<u32>,
}

impl Contexts {
    pub(crate) fn get(&self, number: u32) -> CuResult<Arc<Context>> {
        self.by_number.get(&number).cloned().ok_or(CUresult::INVALID_CONTEXT)
    }

    pub(crate) fn check_free(&self, number: u32) -> CuResult<()> {
        if self.by_number.len() >= CONTEXTS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        if self.by_number.contains_key(&number) { Err(CUresult::INVALID_CONTEXT) } else { Ok(()) }
    }

    pub(crate) fn add(&mut self, context: Arc<Context>) {
        self.reset.remove(&context.id);
        self.by_number.insert(context.id, context);
    }

    /// A primary context was reset: a release may follow, or a new retain.
    pub(crate) fn set_reset(&mut self, number: u32) {
        self.reset.insert(number);
    }

    /// A primary context is released that was reset before: there is nothing left to do.
    pub(crate) fn release_reset(&mut self, number: u32) -> bool {
        self.reset.remove(&number)
    }

    /// Takes a context out, if it is of this kind.
    pub(crate) fn remove(&mut self, number: u32, primary: bool) -> CuResult<Arc<Context>> {
        match self.by_number.get(&number) {
            Some(context) if context.primary == primary => {}
            _ => return Err(CUresult::INVALID_CONTEXT),
        }
        self.by_number.remove(&number).ok_or(CUresult::INVALID_CONTEXT)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Context>> {
        self.by_number.values().cloned().collect()
    }
}
