//! Contexts: what is current, what belongs to it, and how it ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::types::{CUcontext, CUresult, Handle, HandleKind, unpack_handle};

use crate::lock::lock;
use crate::streams::StreamId;

/// Contexts of a session.
const CONTEXTS_MAX: usize = 64;
/// Flags of a context that CUDA knows.
const FLAGS: u32 = 0xff;

/// CUlimit numbers: stack size, printf buffer, malloc heap, L2 fetch granularity, persisting L2.
const LIMITS: [(u32, usize); 5] = [(0, 1024), (1, 1 << 20), (2, 8 << 20), (5, 64), (6, 0)];

/// A context.
pub(crate) struct Context {
    /// The low half of its handle.
    pub(crate) id: u32,
    /// Its device.
    pub(crate) device: usize,
    /// Its legacy default stream.
    pub(crate) legacy: StreamId,
    /// The per-thread default streams, by ring.
    pub(crate) per_thread: Mutex<HashMap<u32, StreamId>>,
    pub(crate) cache_config: AtomicU32,
    limits: Mutex<[(u32, usize); 5]>,
    alive: AtomicBool,
}

impl Context {
    pub(crate) fn alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(crate) fn limit(&self, number: u32) -> CuResult<usize> {
        let limits = lock(&self.limits);
        limits.iter().find(|(n, _)| *n == number).map(|(_, value)| *value).ok_or(CUresult::UNSUPPORTED_LIMIT)
    }

    pub(crate) fn set_limit(&self, number: u32, value: usize) -> CuResult<()> {
        let mut limits = lock(&self.limits);
        let (_, limit) = limits.iter_mut().find(|(n, _)| *n == number).ok_or(CUresult::UNSUPPORTED_LIMIT)?;
        *limit = match number {
            5 => value.min(128),
            // There is no cache to keep anything in.
            6 => 0,
            _ => value,
        };
        Ok(())
    }
}

#[derive(Default)]
struct Primary {
    id: Option<u32>,
    retained: u32,
    active: bool,
}

/// The contexts of a session.
pub(crate) struct Contexts {
    /// Each device's primary context.
    primaries: Vec<Primary>,
    all: HashMap<u32, Arc<Context>>,
}

/// The low half of a context's handle, by which frames name it.
fn id_of(handle: CUcontext) -> CuResult<u32> {
    unpack_handle(HandleKind::Context, handle.raw()).ok_or(CUresult::INVALID_CONTEXT)?;
    u32::try_from(handle.raw() & 0xffff_ffff).map_err(|_| CUresult::INVALID_CONTEXT)
}

impl Contexts {
    /// None yet, on so many devices.
    pub(crate) fn new(devices: usize) -> Self {
        Contexts { primaries: (0..devices).map(|_| Primary::default()).collect(), all: HashMap::new() }
    }

    /// A device by its ordinal.
    fn device(&self, dev: i32) -> CuResult<usize> {
        let device = usize::try_from(dev).ok().filter(|device| *device < self.primaries.len());
        device.ok_or(CUresult::INVALID_DEVICE)
    }

    fn of_device(&mut self, dev: i32) -> CuResult<&mut Primary> {
        let device = self.device(dev)?;
        self.primaries.get_mut(device).ok_or(CUresult::INVALID_DEVICE)
    }

    /// Some device's primary context has this name.
    fn is_primary(&self, id: u32) -> bool {
        self.primaries.iter().any(|primary| primary.id == Some(id))
    }

    /// The flags of a context: how a host thread waits, and how memory is mapped, of which nothing makes a difference here.
    pub(crate) fn check_flags(flags: u32) -> CuResult<()> {
        if flags & !FLAGS != 0 || flags & 7 == 3 || flags & 7 > 4 {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok(())
    }

    fn make(
        &mut self,
        id: u32,
        flags: u32,
        device: usize,
        add: impl FnOnce(u32, usize) -> StreamId,
    ) -> CuResult<()> {
        Self::check_flags(flags)?;
        if self.all.len() >= CONTEXTS_MAX {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        let context = Context {
            id,
            device,
            legacy: add(id, device),
            per_thread: Mutex::default(),
            cache_config: AtomicU32::new(0),
            limits: Mutex::new(LIMITS),
            alive: AtomicBool::new(true),
        };
        self.all.insert(id, Arc::new(context));
        Ok(())
    }

    /// A context of the guest's making. `add` makes its legacy default stream.
    pub(crate) fn create(
        &mut self,
        handle: CUcontext,
        flags: u32,
        dev: i32,
        add: impl FnOnce(u32, usize) -> StreamId,
    ) -> CuResult<()> {
        let device = self.device(dev)?;
        let id = id_of(handle)?;
        if self.all.contains_key(&id) || self.is_primary(id) {
            return Err(CUresult::INVALID_CONTEXT);
        }
        self.make(id, flags, device, add)
    }

    /// One more user of the primary context, which is made where it is not active.
    pub(crate) fn retain(
        &mut self,
        handle: CUcontext,
        flags: u32,
        dev: i32,
        add: impl FnOnce(u32, usize) -> StreamId,
    ) -> CuResult<()> {
        let device = self.device(dev)?;
        let id = id_of(handle)?;
        let taken = self.all.contains_key(&id) || self.is_primary(id);
        let primary = self.of_device(dev)?;
        match primary.id {
            Some(known) if known != id => return Err(CUresult::INVALID_CONTEXT),
            None if taken => return Err(CUresult::INVALID_CONTEXT),
            _ => {}
        }
        let retained = primary.retained.checked_add(1).ok_or(CUresult::INVALID_VALUE)?;
        if !primary.active {
            self.make(id, flags, device, add)?;
        }
        *self.of_device(dev)? = Primary { id: Some(id), retained, active: true };
        Ok(())
    }

    fn primary(&mut self, handle: CUcontext, dev: i32) -> CuResult<u32> {
        let id = id_of(handle)?;
        if self.of_device(dev)?.id == Some(id) { Ok(id) } else { Err(CUresult::INVALID_CONTEXT) }
    }

    /// One user less; the context that has to go with the last one.
    pub(crate) fn release(&mut self, handle: CUcontext, dev: i32) -> CuResult<Option<Arc<Context>>> {
        let id = self.primary(handle, dev)?;
        let primary = self.of_device(dev)?;
        primary.retained = primary.retained.checked_sub(1).ok_or(CUresult::INVALID_CONTEXT)?;
        if primary.retained != 0 {
            return Ok(None);
        }
        Ok(self.end(id))
    }

    /// The primary context goes, its users stay.
    pub(crate) fn reset(&mut self, handle: CUcontext, dev: i32) -> CuResult<Option<Arc<Context>>> {
        let id = self.primary(handle, dev)?;
        Ok(self.end(id))
    }

    /// A context of the guest's making goes.
    pub(crate) fn destroy(&mut self, handle: CUcontext) -> CuResult<Arc<Context>> {
        let id = id_of(handle)?;
        if self.is_primary(id) {
            return Err(CUresult::INVALID_CONTEXT);
        }
        self.end(id).ok_or(CUresult::INVALID_CONTEXT)
    }

    fn end(&mut self, id: u32) -> Option<Arc<Context>> {
        if let Some(primary) = self.primaries.iter_mut().find(|primary| primary.id == Some(id)) {
            primary.active = false;
        }
        let context = self.all.remove(&id)?;
        context.alive.store(false, Ordering::Release);
        Some(context)
    }

    /// The context that a frame names. `None`: the primary one while it is not active.
    pub(crate) fn current(&self, id: u32) -> CuResult<Option<Arc<Context>>> {
        match self.all.get(&id) {
            Some(context) => Ok(Some(context.clone())),
            None if self.is_primary(id) => Ok(None),
            None => Err(CUresult::INVALID_CONTEXT),
        }
    }

    pub(crate) fn by_handle(&self, handle: CUcontext) -> CuResult<Arc<Context>> {
        self.current(id_of(handle)?)?.ok_or(CUresult::CONTEXT_IS_DESTROYED)
    }
}
