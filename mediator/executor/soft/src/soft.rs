//! The session's state, and what the worker asks of it.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use cuda_api::CuResult;
use cuda_api::account::{Account, Alone};
use cuda_api::completion::Completion;
use cuda_api::host::{Access, Base, Executor, StagingView};
use cuda_api::info::VmInfo;
use cuda_api::output::DeviceOutput;
use cuda_api::types::*;

use crate::attributes;
use crate::calls::array::{Array, Mipmap};
use crate::calls::event::Event;
use crate::calls::link::Link;
use crate::calls::stream_attribute::Attributes;
use crate::config::SoftConfig;
use crate::context::{Context, Contexts};
use crate::device::Device;
use crate::image::Images;
use crate::library::{Function, Library, Module};
use crate::lock::{lock, read, write};
use crate::marks::Marks;
use crate::memory::{Memory, Viewer};
use crate::overtake;
use crate::physical::Physical;
use crate::pools::{Pool, Pools};
use crate::streams::{Order, StreamId};
use crate::table::Table;

/// Objects of a session.
const STREAMS_MAX: usize = 4096;
const EVENTS_MAX: usize = 1 << 18;
const MODULES_MAX: usize = 1 << 14;
const FUNCTIONS_MAX: usize = 1 << 18;
/// Each has a file descriptor of its own.
const ALLOCATIONS_MAX: usize = 4096;
const POOLS_MAX: usize = 1024;
const ARRAYS_MAX: usize = 1 << 16;
const LINKS_MAX: usize = 256;
/// Names of which a warning is remembered, so that it comes once.
const WARNED_MAX: usize = 1024;

/// A stream of the guest's making.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) context: u32,
    pub(crate) order: Order,
    pub(crate) attributes: Mutex<Attributes>,
}

/// The software executor of one session.
pub struct Soft {
    pub(crate) device: Arc<Device>,
    info: VmInfo,
    pub(crate) contexts: RwLock<Contexts>,
    pub(crate) streams: Table<CUstream, Stream>,
    pub(crate) events: Table<CUevent, Event>,
    pub(crate) modules: Table<CUmodule, Module>,
    pub(crate) libraries: Table<CUlibrary, Library>,
    pub(crate) functions: Table<CUfunction, Function>,
    pub(crate) kernels: Table<CUkernel, Function>,
    pub(crate) allocations: Table<CUmemGenericAllocationHandle, Physical>,
    pub(crate) pools: Table<CUmemoryPool, Pool>,
    /// The devices' own pools and their current ones.
    pub(crate) device_pools: Mutex<Pools>,
    pub(crate) arrays: Table<CUarray, Array>,
    pub(crate) mipmaps: Table<CUmipmappedArray, Mipmap>,
    pub(crate) links: Table<CUlinkState, Link>,
    pub(crate) images: Mutex<Images>,
    pub(crate) completion: Option<Arc<dyn Completion>>,
    marks: Marks,
    warned: Mutex<HashSet<String>>,
}

/// What belongs to a guest thread.
pub struct Thread {
    pub(crate) ring: u32,
    context: Option<Arc<Context>>,
    /// The context that is current was the primary one and is not active.
    stale: bool,
    pub(crate) staging: Option<StagingView>,
}

impl Soft {
    /// A device for one session.
    ///
    /// # Errors
    /// `InvalidInput` for memory of nothing or above [`crate::MEMORY_BYTES_MAX`]; what reserving addresses gave.
    pub fn new(config: SoftConfig) -> io::Result<Self> {
        let account = Alone::new(Some(config.granted()?));
        Self::on(config, account)
    }

    /// A device for one session, whose memory is counted in its VM's account. The account says how much there is, as of now; the
    /// configuration how much there is at first.
    ///
    /// # Errors
    /// As for [`Soft::new`].
    pub fn on(config: SoftConfig, account: Arc<dyn Account>) -> io::Result<Self> {
        let total = config.granted()?;
        let info = attributes::vm_info(&config, total);
        let cores = config.threads();
        let devices = config.count();
        let memory = Memory::of_devices(total, devices, &account)?;
        let device_pools = Mutex::new(Pools::new(&memory, devices));
        Ok(Soft {
            device: Device::new(memory, cores),
            info,
            contexts: RwLock::new(Contexts::new(devices)),
            streams: Table::new(STREAMS_MAX),
            events: Table::new(EVENTS_MAX),
            modules: Table::new(MODULES_MAX),
            libraries: Table::new(MODULES_MAX),
            functions: Table::new(FUNCTIONS_MAX),
            kernels: Table::new(FUNCTIONS_MAX),
            allocations: Table::new(ALLOCATIONS_MAX),
            pools: Table::new(POOLS_MAX),
            device_pools,
            arrays: Table::new(ARRAYS_MAX),
            mipmaps: Table::new(ARRAYS_MAX),
            links: Table::new(LINKS_MAX),
            images: Mutex::default(),
            completion: None,
            marks: Marks::default(),
            warned: Mutex::default(),
        })
    }

    /// Where kernels print.
    #[must_use]
    pub fn with_output(self, output: Arc<dyn DeviceOutput>) -> Self {
        // Once, before anything runs.
        let _ = self.device.output.set(output);
        self
    }

    /// Where it writes that streams have come to a point.
    #[must_use]
    pub fn with_completion(mut self, completion: Arc<dyn Completion>) -> Self {
        self.completion = Some(completion);
        self
    }

    /// What the guest is told about the device; nothing is started for it.
    ///
    /// # Errors
    /// `InvalidInput`, as for [`Soft::new`].
    pub fn probe(config: &SoftConfig) -> io::Result<VmInfo> {
        let total = config.granted()?;
        Ok(attributes::vm_info(config, total))
    }

    /// Ends everything within milliseconds, running kernels included; calls that wait return an error. Nothing works
    /// after it.
    pub fn stop(&self) {
        self.device.stop();
    }

    /// Logs a warning the first time that it comes.
    pub(crate) fn warn_once(&self, what: &str) {
        let mut warned = lock(&self.warned);
        if warned.len() < WARNED_MAX && warned.insert(what.to_owned()) {
            log::warn!("{what}");
        }
    }

    /// The range of stream priorities.
    pub(crate) fn priorities(&self) -> (i32, i32) {
        self.info.stream_priorities
    }

    /// The current context of a thread.
    pub(crate) fn context<'a>(&self, thread: &'a Thread) -> CuResult<&'a Arc<Context>> {
        match &thread.context {
            Some(context) => Ok(context),
            None if thread.stale => Err(CUresult::CONTEXT_IS_DESTROYED),
            None => Err(CUresult::INVALID_CONTEXT),
        }
    }

    /// A stream by the handle that a thread used.
    pub(crate) fn stream(&self, thread: &Thread, handle: CUstream) -> CuResult<(StreamId, u32)> {
        let context = self.context(thread)?;
        match handle {
            STREAM_DEFAULT | STREAM_LEGACY => Ok((context.legacy, context.id)),
            STREAM_PER_THREAD => {
                let mut streams = lock(&context.per_thread);
                if let Some(id) = streams.get(&thread.ring) {
                    return Ok((*id, context.id));
                }
                let id = self
                    .device
                    .with_streams(|s| s.add_stream(context.id, Order::Blocking))
                    .ok_or(CUresult::INVALID_CONTEXT)?;
                streams.insert(thread.ring, id);
                Ok((id, context.id))
            }
            made => self.streams.get(made).map(|s| (s.id, s.context)),
        }
    }

    /// A device by its ordinal.
    pub(crate) fn ordinal(&self, dev: i32) -> CuResult<usize> {
        let device = usize::try_from(dev).ok().filter(|device| *device < self.info.devices.len());
        device.ok_or(CUresult::INVALID_DEVICE)
    }

    /// The context that is current in a thread, as kernels that follow addresses.
    pub(crate) fn viewer(&self, thread: &Thread) -> CuResult<Viewer> {
        let context = self.context(thread)?;
        Ok(Viewer { context: context.id, device: context.device })
    }

    /// A context begins on a device: its legacy default stream.
    pub(crate) fn begin_context(&self, id: u32, device: usize) -> StreamId {
        self.device.memory.add_context(id, device);
        self.device.with_streams(|s| s.add_context(id))
    }

    /// A context's end: its work is done, then everything of it goes.
    pub(crate) fn end_context(&self, context: &Context) {
        let id = context.id;
        // A lost device has no work; what belongs to the context goes all the same.
        let _ = self.device.wait_idle(Some(id), None);
        self.streams.remove_if(|s| s.context == id);
        self.events.remove_if(|e| e.context == id);
        self.arrays.remove_if(|a| a.context == id);
        self.mipmaps.remove_if(|m| m.context == id);
        self.links.remove_if(|l| l.context == id);
        self.functions.remove_if(|f| f.context == Some(id));
        self.device.with_streams(|s| s.remove_context(id));
        for module in self.modules.remove_if(|m| m.context == id) {
            module.library.forget(id);
            if !module.borrowed {
                module.library.end_managed(&self.device);
            }
        }
        self.libraries.each(|library| library.forget(id));
        self.device.memory.free_context(id);
    }
}

impl Drop for Soft {
    fn drop(&mut self) {
        self.device.stop();
    }
}

impl Base for Soft {
    type Thread = Thread;

    fn check_range(&self, start: CUdeviceptr, len: u64, access: Access) -> CuResult<()> {
        self.device.memory.check(start, len, access)
    }

    fn unsupported(&self, name: &'static str) -> CUresult {
        self.warn_once(&format!("{name}: the software executor does not do it"));
        CUresult::NOT_SUPPORTED
    }
}

impl Executor for Soft {
    fn vm_info(&self) -> VmInfo {
        self.info.clone()
    }

    fn new_thread(&self, ring: u32) -> Thread {
        Thread { ring, context: None, stale: false, staging: None }
    }

    fn enter(&self, thread: &mut Thread, context: u32, staging: Option<StagingView>) -> CuResult<()> {
        thread.staging = staging;
        self.device.alive()?;
        if thread.context.as_ref().is_some_and(|c| c.id == context && c.alive()) {
            return Ok(());
        }
        thread.context = None;
        thread.stale = false;
        if context != 0 {
            thread.context = read(&self.contexts).current(context)?;
            thread.stale = thread.context.is_none();
        }
        Ok(())
    }

    fn sticky(&self) -> u32 {
        self.device.sticky()
    }

    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64)) {
        for device in 0..self.info.devices.len() {
            tell(device, self.device.memory.held(device));
        }
    }

    /// All devices have the same processors.
    fn device_of(&self, _: &Thread, _: u32) -> usize {
        0
    }

    fn is_busy(&self, _: usize) -> bool {
        self.device.with_streams(|streams| !streams.all_ends(None).is_empty() && !streams.rests())
    }

    fn mark(&self, _: usize) -> Option<u64> {
        Some(self.marks.set(self.device.with_streams(|streams| streams.all_ends(None))))
    }

    fn passed(&self, _: usize, mark: u64) -> bool {
        self.marks.passed(mark, |point| self.device.reached(point))
    }

    fn region_mapped(&self, address: u64, len: u64, writable: bool) {
        self.device.memory.region_mapped(address, len, writable);
    }

    fn region_unmapping(&self, address: u64, len: u64) {
        self.device.memory.region_unmapping(address, len, || {
            log::warn!("a kernel holds on to host memory that goes: it is ended");
            self.device.poison(CUresult::ILLEGAL_ADDRESS);
        });
    }

    fn awaits_guest(&self) -> bool {
        self.device.functions.is_awaited()
    }

    fn pause(&self, paused: bool) {
        self.device.functions.pause(paused);
    }

    /// Noted in any case: it costs nothing here.
    fn watch_launches(&self, _: bool) {}

    fn longest_launch(&self) -> Duration {
        self.device.running.longest()
    }

    fn quiesce(&self, limit: Duration) -> bool {
        match self.device.wait_at_rest(Instant::now().checked_add(limit)) {
            Ok(idle) => idle,
            // A lost device: what still runs ends on its own.
            Err(_) => {
                self.device.memory.wait_unused();
                true
            }
        }
    }

    fn may_overtake(&self, call: u32, fields: &[u8], blocked: &[(u32, &[u8])]) -> bool {
        let non_blocking =
            |stream: CUstream| self.streams.get(stream).is_ok_and(|s| s.order == Order::NonBlocking);
        overtake::may_overtake(call, fields, blocked, non_blocking)
    }
}

/// The contexts, to be changed.
pub(crate) fn contexts_mut(soft: &Soft) -> std::sync::RwLockWriteGuard<'_, Contexts> {
    write(&soft.contexts)
}
