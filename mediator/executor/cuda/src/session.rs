//! The session's state, and what the worker asks of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::time::Duration;

use cuda_api::CuResult;
use cuda_api::account::{Account, Alone, Hold};
use cuda_api::completion::Completion;
use cuda_api::host::{Access, Base, Executor, StagingView};
use cuda_api::info::{DeviceInfo, VmInfo};
use cuda_api::managed::ManagedVariables;
use cuda_api::output::DeviceOutput;
use cuda_api::sharing::Sharing;
use cuda_api::types::*;

use crate::calls::green::Resources;
use crate::calls::ipc::Ipc;
use crate::context::{Context, Contexts};
use crate::driver::{Driver, Raw};
use crate::graphs::{Graph, GraphExec, Graphs, STATUS_NONE};
use crate::image::Images;
use crate::lock::{lock, read, write};
use crate::marks::Marks;
use crate::memory::Memory;
use crate::objects::{
    Allocation, Array, Event, Function, Green, Library, Link, Mipmap, Module, ResourceDesc, Stream,
};
use crate::pools::{Charges, Pool};
use crate::prints::Prints;
use crate::table::Table;
use crate::thread::Thread;
use crate::user_objects::UserObject;
use crate::views::Views;
use crate::watchdog::Watchdog;
use crate::words::Words;
use crate::{Started, host_functions};

/// Objects of a session.
const STREAMS_MAX: usize = 4096;
const EVENTS_MAX: usize = 1 << 18;
const MODULES_MAX: usize = 1 << 14;
const FUNCTIONS_MAX: usize = 1 << 18;
const GRAPHS_MAX: usize = 1 << 16;
const ALLOCATIONS_MAX: usize = 1 << 18;
const ARRAYS_MAX: usize = 1 << 16;
const LINKS_MAX: usize = 256;
const GREENS_MAX: usize = 64;
const RESOURCE_DESCS_MAX: usize = 4096;

/// What the VM was given when the worker was started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Config {
    /// Device memory at most, on each device, in bytes. A session's account has it as it is.
    pub memory_bytes: Option<u64>,
}

/// Hears how many bytes went through staging.
pub type Staged = Box<dyn Fn(u64) + Send + Sync>;

/// What the worker does for its executor.
#[derive(Default)]
pub struct Services {
    /// Where device memory is counted. None: the session has a quota of its own, [`Config::memory_bytes`].
    pub account: Option<Arc<dyn Account>>,
    /// Counts what goes through staging.
    pub staged: Option<Staged>,
    /// Through whom sessions share.
    pub sharing: Option<Arc<dyn Sharing>>,
    /// What the driver prints into this process.
    pub output: Option<Arc<dyn DeviceOutput>>,
    /// The session's completion words.
    pub completion: Option<Arc<dyn Completion>>,
}

/// The executor of one session on the real driver.
pub struct Cuda {
    pub(crate) driver: &'static Driver,
    info: VmInfo,
    /// Where device memory is counted.
    pub(crate) account: Arc<dyn Account>,
    /// The account's number of each device of the driver's.
    counted_as: Vec<usize>,
    pub(crate) contexts: RwLock<Contexts>,
    pub(crate) streams: Table<CUstream, Stream>,
    pub(crate) events: Table<CUevent, Event>,
    pub(crate) modules: Table<CUmodule, Module>,
    pub(crate) libraries: Table<CUlibrary, Library>,
    pub(crate) functions: Table<CUfunction, Function>,
    pub(crate) kernels: Table<CUkernel, Function>,
    pub(crate) graphs: Table<CUgraph, Graph>,
    pub(crate) graph_execs: Table<CUgraphExec, GraphExec>,
    pub(crate) user_objects: Table<CUuserObject, UserObject>,
    pub(crate) allocations: Table<CUmemGenericAllocationHandle, Allocation>,
    pub(crate) arrays: Table<CUarray, Array>,
    pub(crate) mipmaps: Table<CUmipmappedArray, Mipmap>,
    pub(crate) views: Mutex<Views>,
    pub(crate) links: Table<CUlinkState, Link>,
    pub(crate) greens: Table<CUgreenCtx, Green>,
    pub(crate) resource_descs: Table<CUdevResourceDesc, ResourceDesc>,
    pub(crate) resources: Mutex<Resources>,
    pub(crate) memory: Memory<Arc<Allocation>>,
    /// The managed variables that the guest has asked for: those in `memory`, while the driver has them.
    pub(crate) managed: ManagedVariables,
    pub(crate) pools: Table<CUmemoryPool, Pool>,
    /// What pools have of the VM's account.
    pub(crate) charges: Arc<Mutex<Charges>>,
    pub(crate) images: Mutex<Images>,
    pub(crate) ipc: Ipc,
    pub(crate) output: Option<Arc<dyn DeviceOutput>>,
    pub(crate) words: Words,
    pub(crate) watchdog: Watchdog,
    pub(crate) prints: Prints,
    /// Held while the driver edits a graph: it leaves that to its callers to keep apart.
    pub(crate) graph_state: Mutex<Graphs>,
    /// Captures that have begun and not ended; too many where a captured stream was destroyed.
    pub(crate) captures: AtomicUsize,
    pub(crate) marks: Marks,
    staged: Option<Staged>,
    warned: Mutex<HashSet<String>>,
}

/// A stream that a call names, kept alive while the call runs.
pub(crate) struct StreamUse {
    pub(crate) raw: Raw,
    number: u64,
    object: Option<Arc<Stream>>,
}

impl StreamUse {
    /// The word that was written in this use of the stream.
    pub(crate) fn signalled(&self, ring: u32, value: u64) {
        // The table's and this one: no other call is using the stream, and one that comes is counted after this.
        if let Some(stream) = self.object.as_ref().filter(|stream| Arc::strong_count(stream) == 2) {
            stream.uses.signalled(self.number, ring, value);
        }
    }
}

impl Cuda {
    /// An executor for one session, on the driver that was started for it. Nothing is asked of the driver here.
    pub fn new(started: Started, services: Services) -> Self {
        let Started { driver, info, config } = started;
        let major = |device: &DeviceInfo| device.attribute(attribute::COMPUTE_CAPABILITY_MAJOR).unwrap_or(0);
        let majors = info.devices.iter().filter_map(|device| u32::try_from(major(device)).ok()).collect();
        let account = services.account.unwrap_or_else(|| Alone::new(config.memory_bytes));
        let counted_as =
            |(ordinal, device): (usize, &DeviceInfo)| account.device_of(&device.uuid).unwrap_or(ordinal);
        let counted_as = info.devices.iter().enumerate().map(counted_as).collect();
        Cuda {
            driver,
            info,
            account,
            counted_as,
            contexts: RwLock::default(),
            streams: Table::new(STREAMS_MAX),
            events: Table::new(EVENTS_MAX),
            modules: Table::new(MODULES_MAX),
            libraries: Table::new(MODULES_MAX),
            functions: Table::new(FUNCTIONS_MAX),
            kernels: Table::new(FUNCTIONS_MAX),
            graphs: Table::new(GRAPHS_MAX),
            graph_execs: Table::new(GRAPHS_MAX),
            user_objects: Table::new(GRAPHS_MAX),
            allocations: Table::new(ALLOCATIONS_MAX),
            arrays: Table::new(ARRAYS_MAX),
            mipmaps: Table::new(ARRAYS_MAX),
            views: Mutex::default(),
            links: Table::new(LINKS_MAX),
            greens: Table::new(GREENS_MAX),
            resource_descs: Table::new(RESOURCE_DESCS_MAX),
            resources: Mutex::default(),
            memory: Memory::new(),
            managed: ManagedVariables::default(),
            pools: Table::new(crate::calls::pools::POOLS_MAX),
            charges: Arc::default(),
            images: Mutex::default(),
            graph_state: Mutex::default(),
            captures: AtomicUsize::new(0),
            marks: Marks::default(),
            ipc: Ipc::new(services.sharing),
            output: services.output,
            words: Words::new(services.completion.clone()),
            watchdog: Watchdog::default(),
            prints: Prints::new(services.completion, majors),
            staged: services.staged,
            warned: Mutex::default(),
        }
    }

    /// Bytes went through staging.
    pub(crate) fn count_staged(&self, bytes: u64) {
        if let Some(staged) = &self.staged {
            staged(bytes);
        }
    }

    /// Logs a warning the first time that it comes.
    pub(crate) fn warn_once(&self, what: &str) {
        let mut warned = lock(&self.warned);
        if warned.len() < 1024 && warned.insert(what.to_owned()) {
            log::warn!("{what}");
        }
    }

    /// The driver's stream for the handle that a thread used. A default stream is the driver's own: the per-thread one
    /// is that of the ring's host thread.
    pub(crate) fn stream(&self, handle: CUstream) -> CuResult<StreamUse> {
        if CUstream::SPECIAL.contains(&handle.0) {
            let raw = Raw::try_from(handle.0).map_err(|_| CUresult::INVALID_HANDLE)?;
            return Ok(StreamUse { raw, number: 0, object: None });
        }
        let object = self.streams.get(handle)?;
        if !object.context.alive() {
            return Err(CUresult::INVALID_HANDLE);
        }
        let number = object.uses.add();
        Ok(StreamUse { raw: object.raw, number, object: Some(object) })
    }

    /// All work of a stream is done, as a completion word tells. For the driver, writing the word is work as well, which it takes for
    /// done some time later.
    pub(crate) fn is_told_done(&self, handle: CUstream) -> bool {
        let signal = self.streams.get(handle).ok().and_then(|stream| stream.uses.last_is_a_signal());
        signal.is_some_and(|(ring, value)| self.words.says(ring, value))
    }

    pub(crate) fn event(&self, handle: CUevent) -> CuResult<Arc<Event>> {
        let event = self.events.get(handle)?;
        if event.context.alive() { Ok(event) } else { Err(CUresult::INVALID_HANDLE) }
    }

    /// A function by its handle; a kernel's is accepted, too.
    pub(crate) fn function(&self, handle: CUfunction) -> CuResult<Arc<Function>> {
        let function = self.functions.get(handle).or_else(|_| self.kernels.get(CUkernel(handle.0)))?;
        function.check_alive()?;
        Ok(function)
    }

    /// Does something for which the driver wants a context, whichever: the thread's, or another one of the session's. Where
    /// it has none yet, a primary context is made for the time being.
    pub(crate) fn with_any_context<R>(
        &self,
        thread: &Thread,
        work: impl FnOnce() -> CuResult<R>,
    ) -> CuResult<R> {
        if thread.context().is_ok() {
            return work();
        }
        if let Some(context) = read(&self.contexts).all().into_iter().find(|c| c.alive() && c.owner.is_none())
        {
            return context.with(work);
        }
        let (device,) = self.driver.cuDeviceGet(0)?;
        let (raw,) = self.driver.cuDevicePrimaryCtxRetain(device)?;
        let outcome = self.driver.cuCtxPushCurrent_v2(raw).and_then(|()| {
            let outcome = work();
            self.driver.cuCtxPopCurrent_v2()?;
            outcome
        });
        self.driver.cuDevicePrimaryCtxRelease_v2(device)?;
        outcome
    }

    /// The devices as the driver has them.
    pub(crate) fn devices(&self) -> &[DeviceInfo] {
        &self.info.devices
    }

    /// There is one device: what is copied without a stream is in turn with the current context's work, and with no other device's.
    pub(crate) fn has_one_device(&self) -> bool {
        self.info.devices.len() == 1
    }

    /// The account's number of a device of the driver's.
    pub(crate) fn counted_as(&self, device: i32) -> usize {
        // One that is not known has no memory in the account.
        usize::try_from(device).ok().and_then(|at| self.counted_as.get(at)).copied().unwrap_or(usize::MAX)
    }

    /// Takes memory of a device of the driver's from the VM's account; [`Cuda::give_back`] returns it.
    pub(crate) fn take(&self, device: i32, bytes: u64) -> CuResult<()> {
        let device = self.counted_as(device);
        if self.account.take(device, bytes) {
            return Ok(());
        }
        // Pools may hold what nobody uses, as the driver knows as well when it runs out of memory.
        self.settle_reserves(true);
        if self.account.take(device, bytes) { Ok(()) } else { Err(CUresult::OUT_OF_MEMORY) }
    }

    pub(crate) fn give_back(&self, device: i32, bytes: u64) {
        self.account.give_back(self.counted_as(device), bytes);
    }

    /// Takes memory of a device for as long as what comes back lives.
    pub(crate) fn hold(&self, device: i32, bytes: u64) -> CuResult<Hold> {
        let number = self.counted_as(device);
        if let Some(hold) = Hold::take(&self.account, number, bytes) {
            return Ok(hold);
        }
        self.settle_reserves(true);
        Hold::take(&self.account, number, bytes).ok_or(CUresult::OUT_OF_MEMORY)
    }

    /// A context's end: what belongs to it goes, then the driver's context by `how`.
    pub(crate) fn end_context(
        &self,
        thread: &mut Thread,
        context: &Arc<Context>,
        how: impl FnOnce() -> CuResult<()>,
    ) -> CuResult<()> {
        let is = |of: &Arc<Context>| Arc::ptr_eq(of, context);
        // Green contexts go before the primary context that they are part of.
        for green in self.greens.remove_if(|green| green.context.owner.as_ref().is_some_and(is)) {
            let _ = self.green_end(thread, &green);
        }
        drop(self.links.remove_if(|link| is(&link.context)));
        // Out of the tables first, and destroyed while the context still is: what another thread holds on to is left to
        // the driver.
        drop(self.graph_execs.remove_if(|object| is(&object.context)));
        self.forget_graphs(self.graphs.remove_if(|graph| graph.context.as_ref().is_some_and(is)));
        drop(self.functions.remove_if(|function| match &function.source {
            crate::objects::Source::Module(module) => is(&module.context),
            crate::objects::Source::Function(_, of) => is(of),
            crate::objects::Source::Kernel(_) => false,
        }));
        let managed = self.suspend_managed(context);
        for module in self.modules.remove_if(|module| is(&module.context)) {
            self.memory.forget_variables(module.owner());
        }
        let views = lock(&self.views).remove_of(context.id);
        drop(views);
        drop(self.arrays.remove_if(|object| is(&object.context)));
        drop(self.mipmaps.remove_if(|object| is(&object.context)));
        drop(self.events.remove_if(|object| is(&object.context)));
        drop(self.streams.remove_if(|object| is(&object.context)));
        self.give_back(context.device, self.memory.forget_context(context.id));
        self.ipc.forget_context(context.id, |start| self.memory.device_at(start).is_ok());
        context.end();
        if thread.context().is_ok_and(is) {
            // A lost device does not even let go of its context.
            let _ = thread.bind(None);
        }
        let outcome = how();
        self.watchdog.forget_context(context.id);
        self.resume_managed(managed);
        outcome
    }
}

impl Base for Cuda {
    type Thread = Thread;

    fn check_range(&self, start: CUdeviceptr, len: u64, access: Access) -> CuResult<()> {
        self.memory.check(start, len, access)
    }

    fn unsupported(&self, name: &'static str) -> CUresult {
        self.warn_once(&format!("{name}: the GPU executor does not do it"));
        CUresult::NOT_SUPPORTED
    }
}

impl Executor for Cuda {
    fn vm_info(&self) -> VmInfo {
        self.info.clone()
    }

    fn new_thread(&self, ring: u32) -> Thread {
        Thread::new(self.driver, ring)
    }

    fn enter(&self, thread: &mut Thread, context: u32, staging: Option<StagingView>) -> CuResult<()> {
        thread.set_staging(staging);
        match self.driver.sticky() {
            0 => {}
            sticky => return Err(CUresult(sticky)),
        }
        if thread.is_current(context) {
            return Ok(());
        }
        let wanted = if context == 0 { None } else { Some(read(&self.contexts).get(context)?) };
        thread.bind(wanted)
    }

    fn is_unsettled(&self, thread: &Thread) -> bool {
        thread.is_unsettled()
    }

    fn settle(&self, thread: &mut Thread) -> CuResult<()> {
        thread.settle()
    }

    fn transfers(&self, thread: &Thread) -> (u64, u64) {
        thread.transfers()
    }

    fn sticky(&self) -> u32 {
        self.driver.sticky()
    }

    fn device_bytes(&self, tell: &mut dyn FnMut(usize, u64)) {
        for device in &self.counted_as {
            tell(*device, self.account.held(*device));
        }
    }

    fn device_of(&self, thread: &Thread, context: u32) -> usize {
        let device = if thread.is_current(context) {
            thread.device()
        } else {
            read(&self.contexts).get(context).map_or(0, |context| context.device)
        };
        usize::try_from(device).unwrap_or(0)
    }

    fn is_busy(&self, device: usize) -> bool {
        self.has_work(device)
    }

    fn mark(&self, device: usize) -> Option<u64> {
        self.set_mark(device)
    }

    fn passed(&self, device: usize, mark: u64) -> bool {
        self.mark_passed(device, mark)
    }

    fn region_mapped(&self, address: u64, len: u64, writable: bool) {
        self.memory.add_region(address, len, writable);
    }

    fn region_unmapping(&self, address: u64, len: u64) {
        for start in self.memory.remove_region(address, len) {
            let Some(context) = read(&self.contexts).all().into_iter().next() else { continue };
            let at = crate::calls::memory::host_address(start);
            // SAFETY: registered at this address by cuMemHostRegister, and taken out of the map only once.
            let gone = context.with(|| unsafe { self.driver.cuMemHostUnregister(at) });
            if let Err(error) = gone {
                log::warn!("host memory that goes stays registered: {error}");
            }
        }
    }

    /// Driver 580 checkpoints a process that has opened another one's memory, and cannot bring it back.
    fn suspend_obstacle(&self) -> Option<&'static str> {
        self.ipc.has_foreign().then_some("it has opened memory or events of another process (CUDA IPC)")
    }

    fn awaits_guest(&self) -> bool {
        let captured = |stream: &Stream| {
            self.driver.cuStreamIsCapturing(stream.raw).is_ok_and(|(status,)| status != STATUS_NONE)
        };
        host_functions::functions().is_awaited()
            || (self.captures.load(Ordering::Acquire) != 0 && self.streams.find(captured).is_some())
    }

    fn pause(&self, paused: bool) {
        host_functions::functions().pause(paused);
    }

    fn watch_launches(&self, on: bool) {
        self.watchdog.set(on);
    }

    fn longest_launch(&self) -> Duration {
        self.watchdog.longest()
    }

    fn quiesce(&self, limit: Duration) -> bool {
        if self.driver.sticky() != 0 {
            return true;
        }
        // Waiting for a primary context includes its green contexts, each of which only one thread may have current.
        let mut contexts = read(&self.contexts).all();
        contexts.retain(|context| context.owner.is_none());
        let (done, finished) = mpsc::channel();
        let waiter = std::thread::Builder::new().name("quiesce".into()).spawn(move || {
            let idle = contexts.iter().all(|context| {
                // A lost device has nothing to wait for either.
                let waited = context.with(|| context.driver.cuCtxSynchronize());
                waited.is_ok() || waited.is_err_and(|error| error.is_sticky())
            });
            // Nobody listens any more once the limit is over.
            let _ = done.send(idle);
        });
        waiter.is_ok() && finished.recv_timeout(limit).unwrap_or(false)
    }

    fn may_overtake(&self, call: u32, fields: &[u8], blocked: &[(u32, &[u8])]) -> bool {
        let non_blocking = |stream: CUstream| self.streams.get(stream).is_ok_and(|s| s.non_blocking);
        cuda_api::overtake::may_overtake(call, fields, blocked, non_blocking)
    }
}

/// The contexts, to be changed.
pub(crate) fn contexts_mut(cuda: &Cuda) -> std::sync::RwLockWriteGuard<'_, Contexts> {
    write(&cuda.contexts)
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
