//! What is alive: a table per kind of handle. Looking a handle up takes no lock that is shared between handles; a stale
//! handle (destroyed, its slot used again) is told apart by its generation.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use cuda_api::types::{
    CUcontext, CUevent, CUstream, HANDLE_INDEX_MAX, Handle, HandleKind, STREAM_PER_THREAD, pack_handle,
    unpack_handle,
};
use cuda_api::{CUresult, CuResult};

use crate::order::Use;
use crate::waiting::Mark;

const SEGMENT_SLOTS: usize = 1024;
const SEGMENTS: usize = HANDLE_INDEX_MAX as usize / SEGMENT_SLOTS;

/// A slot: alive or not, its generation, and what the guest knows of the object.
struct Slot<T> {
    /// Generation in the low 8 bits, bit 8 set while alive.
    state: AtomicU32,
    /// The context that the object belongs to, 0 for none: read without the lock.
    context: AtomicU64,
    /// The thread that used the object last, 0 for none ([`Table::claim`]).
    user: AtomicU32,
    /// What is known of an event: read without the lock.
    mark: Mark,
    record: Mutex<Option<Arc<T>>>,
}

/// Slots that are made together, when the first of them is needed.
type Segment<T> = OnceLock<Box<[Slot<T>]>>;

const ALIVE: u32 = 1 << 8;

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot {
            state: AtomicU32::new(0),
            context: AtomicU64::new(0),
            user: AtomicU32::new(0),
            mark: Mark::default(),
            record: Mutex::new(None),
        }
    }
}

/// The live handles of one kind.
pub struct Table<T> {
    kind: HandleKind,
    segments: Box<[Segment<T>]>,
    /// Indices to use again, and the lowest never used.
    free: Mutex<(Vec<u32>, u32)>,
    /// Grows whenever a handle dies: what a thread remembers of a handle is good for one epoch.
    epoch: AtomicU64,
}

impl<T> Table<T> {
    /// An empty table.
    pub fn new(kind: HandleKind) -> Self {
        Table {
            kind,
            segments: (0..SEGMENTS).map(|_| OnceLock::new()).collect(),
            // Index 0 is left out: its handle of generation 0 would have 0 in the low half, which a frame takes for "none".
            free: Mutex::new((Vec::new(), 1)),
            epoch: AtomicU64::new(0),
        }
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let index = index as usize;
        self.segments.get(index / SEGMENT_SLOTS)?.get()?.get(index % SEGMENT_SLOTS)
    }

    /// Names an object that is not made yet: alive, without a record.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY where the process has too many of them.
    pub fn reserve(&self) -> CuResult<u64> {
        let index = {
            let mut free = lock(&self.free);
            match free.0.pop() {
                Some(index) => index,
                None if free.1 < HANDLE_INDEX_MAX => {
                    free.1 += 1;
                    free.1 - 1
                }
                None => return Err(CUresult::OUT_OF_MEMORY),
            }
        };
        let segment = &self.segments[index as usize / SEGMENT_SLOTS];
        segment.get_or_init(|| (0..SEGMENT_SLOTS).map(|_| Slot::default()).collect());
        let slot = self.slot(index).ok_or(CUresult::UNKNOWN)?;
        let generation = (slot.state.load(Ordering::Relaxed) + 1) & 0xff;
        slot.user.store(0, Ordering::Relaxed);
        slot.mark.clear();
        slot.state.store(generation | ALIVE, Ordering::Release);
        Ok(pack_handle(self.kind, generation as u8, index))
    }

    /// What is known of a reserved object from now on.
    pub fn fill(&self, handle: u64, record: T) {
        if let Some(slot) = self.live_slot(handle) {
            *lock(&slot.record) = Some(Arc::new(record));
        }
    }

    /// As [`Table::reserve`], of an object that belongs to a context.
    ///
    /// # Errors
    /// As for that.
    pub fn reserve_in(&self, context: u64) -> CuResult<u64> {
        let handle = self.reserve()?;
        if let Some(slot) = self.live_slot(handle) {
            slot.context.store(context, Ordering::Relaxed);
        }
        Ok(handle)
    }

    /// Names a new object that belongs to a context (0: to the process).
    ///
    /// # Errors
    /// As for [`Table::reserve`].
    pub fn insert_in(&self, context: u64, record: T) -> CuResult<u64> {
        let handle = self.reserve_in(context)?;
        self.fill(handle, record);
        Ok(handle)
    }

    /// Names a new object.
    ///
    /// # Errors
    /// As for [`Table::reserve`].
    pub fn insert(&self, record: T) -> CuResult<u64> {
        self.insert_in(0, record)
    }

    fn live_slot(&self, handle: u64) -> Option<&Slot<T>> {
        let (generation, index) = unpack_handle(self.kind, handle)?;
        let slot = self.slot(index)?;
        (slot.state.load(Ordering::Acquire) == u32::from(generation) | ALIVE).then_some(slot)
    }

    /// The handle names a live object.
    pub fn is_live(&self, handle: u64) -> bool {
        self.live_slot(handle).is_some()
    }

    /// The context that a live object was put in with ([`Table::insert_in`]), without a lock.
    #[inline]
    pub fn context_of(&self, handle: u64) -> Option<u64> {
        self.live_slot(handle).map(|slot| slot.context.load(Ordering::Relaxed))
    }

    /// A thread uses a live object from now on; who used it before. Without a lock. `thread` is not 0.
    #[inline]
    pub fn claim(&self, handle: u64, thread: u32) -> Use {
        let Some(slot) = self.live_slot(handle) else { return Use::Others };
        if slot.user.load(Ordering::Acquire) == thread {
            return Use::Own;
        }
        match slot.user.swap(thread, Ordering::AcqRel) {
            0 => Use::Fresh,
            last if last == thread => Use::Own,
            _ => Use::Others,
        }
    }

    /// A thread has used a live object last. Without a lock.
    #[inline]
    pub fn is_of(&self, handle: u64, thread: u32) -> bool {
        self.live_slot(handle).is_some_and(|slot| slot.user.load(Ordering::Acquire) == thread)
    }

    /// What is known of a live event. Without a lock.
    #[inline]
    pub fn with_mark<R>(&self, handle: u64, look: impl FnOnce(&Mark) -> R) -> Option<R> {
        self.live_slot(handle).map(|slot| look(&slot.mark))
    }

    /// What the guest knows of a live object.
    pub fn get(&self, handle: u64) -> Option<Arc<T>> {
        let slot = self.live_slot(handle)?;
        let record = lock(&slot.record);
        // Asked again under the lock: `remove` takes the object's life before its record, so that what is here belongs to
        // this handle and not to the slot's next one.
        self.live_slot(handle)?;
        record.clone()
    }

    /// The object is gone. What was known of it comes back, once.
    pub fn remove(&self, handle: u64) -> Option<Arc<T>> {
        let (generation, index) = unpack_handle(self.kind, handle)?;
        let slot = self.slot(index)?;
        let alive = u32::from(generation) | ALIVE;
        slot.state
            .compare_exchange(alive, u32::from(generation), Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        self.changed();
        let record = lock(&slot.record).take();
        lock(&self.free).0.push(index);
        record
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Something else that threads remember of these handles has changed.
    pub fn changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Every live handle and its record.
    pub fn all(&self) -> Vec<(u64, Arc<T>)> {
        let end = lock(&self.free).1;
        (1..end)
            .filter_map(|index| {
                let slot = self.slot(index)?;
                let state = slot.state.load(Ordering::Acquire);
                let record = (state & ALIVE != 0).then(|| lock(&slot.record).clone())??;
                Some((pack_handle(self.kind, (state & 0xff) as u8, index), record))
            })
            .collect()
    }
}

/// A lock whose holder cannot leave half-made data behind: a panic elsewhere does not spoil it.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What a table of handles without further knowledge keeps: the context they belong to.
pub struct Owned {
    /// The context, or NULL for what belongs to the process.
    pub context: u64,
}

/// Every table of the process.
pub struct Objects {
    /// Contexts.
    pub contexts: Table<crate::context::ContextRecord>,
    /// Modules.
    pub modules: Table<crate::module::ModuleRecord>,
    /// Libraries.
    pub libraries: Table<crate::library::LibraryRecord>,
    /// Functions.
    pub functions: Table<crate::function::FunctionRecord>,
    /// Kernels: functions that belong to a library.
    pub kernels: Table<crate::function::FunctionRecord>,
    /// Streams.
    pub streams: Table<crate::stream::StreamRecord>,
    /// Events.
    pub events: Table<Owned>,
    /// Graphs.
    pub graphs: Table<Owned>,
    /// Executable graphs.
    pub graph_execs: Table<Owned>,
    /// Graph nodes; the host names them, so none is known here.
    pub graph_nodes: Table<Owned>,
    /// Memory pools.
    pub pools: Table<crate::pools::PoolRecord>,
    /// Physical allocations.
    pub allocations: Table<crate::virtual_memory::AllocationRecord>,
    /// Arrays, levels of mipmapped arrays and planes.
    pub arrays: Table<Owned>,
    /// Mipmapped arrays.
    pub mipmapped_arrays: Table<Owned>,
    /// Images that are being linked.
    pub links: Table<crate::link::LinkRecord>,
    /// Green contexts.
    pub greens: Table<crate::green::GreenRecord>,
    /// What green contexts are made from.
    pub resource_descs: Table<Owned>,
    /// User objects.
    pub user_objects: Table<Owned>,
}

impl Default for Objects {
    fn default() -> Self {
        Objects {
            contexts: Table::new(HandleKind::Context),
            modules: Table::new(HandleKind::Module),
            libraries: Table::new(HandleKind::Library),
            functions: Table::new(HandleKind::Function),
            kernels: Table::new(HandleKind::Kernel),
            streams: Table::new(HandleKind::Stream),
            events: Table::new(HandleKind::Event),
            graphs: Table::new(HandleKind::Graph),
            graph_execs: Table::new(HandleKind::GraphExec),
            graph_nodes: Table::new(HandleKind::GraphNode),
            pools: Table::new(HandleKind::MemPool),
            allocations: Table::new(HandleKind::Allocation),
            arrays: Table::new(HandleKind::Array),
            mipmapped_arrays: Table::new(HandleKind::MipmappedArray),
            links: Table::new(HandleKind::LinkState),
            greens: Table::new(HandleKind::GreenContext),
            resource_descs: Table::new(HandleKind::ResourceDesc),
            user_objects: Table::new(HandleKind::UserObject),
        }
    }
}

impl Objects {
    fn plain(&self, kind: HandleKind) -> Option<&Table<Owned>> {
        match kind {
            HandleKind::Event => Some(&self.events),
            HandleKind::Graph => Some(&self.graphs),
            HandleKind::GraphExec => Some(&self.graph_execs),
            HandleKind::GraphNode => Some(&self.graph_nodes),
            HandleKind::Array => Some(&self.arrays),
            HandleKind::MipmappedArray => Some(&self.mipmapped_arrays),
            HandleKind::ResourceDesc => Some(&self.resource_descs),
            HandleKind::UserObject => Some(&self.user_objects),
            _ => None,
        }
    }

    /// The handle names a live object of its kind (or is one of the kind's special values).
    ///
    /// # Errors
    /// What CUDA answers to a handle that does not.
    pub fn check<H: Handle>(&self, handle: H) -> CuResult<()> {
        let raw = handle.raw();
        if H::SPECIAL.contains(&raw) {
            if H::KIND == HandleKind::Stream && raw == STREAM_PER_THREAD.0 {
                crate::stream::blocks();
            }
            return Ok(());
        }
        let live = match H::KIND {
            HandleKind::Context => self.contexts.is_live(raw),
            HandleKind::Module => self.modules.is_live(raw),
            HandleKind::Library => self.libraries.is_live(raw),
            // A kernel is accepted wherever a function is.
            HandleKind::Function => self.functions.is_live(raw) || self.kernels.is_live(raw),
            HandleKind::Kernel => self.kernels.is_live(raw),
            HandleKind::Stream => self.streams.is_live(raw),
            HandleKind::MemPool => self.pools.is_live(raw),
            HandleKind::Allocation => self.allocations.is_live(raw),
            HandleKind::LinkState => self.links.is_live(raw),
            HandleKind::GreenContext => self.greens.is_live(raw),
            kind => self.plain(kind).is_some_and(|t| t.is_live(raw)),
        };
        if live { Ok(()) } else { Err(H::INVALID) }
    }

    /// An event belongs to a stream's context, as far as is known: either may be gone.
    #[inline]
    pub fn is_of_one_context(&self, event: CUevent, stream: CUstream) -> bool {
        let of_stream = if CUstream::SPECIAL.contains(&stream.0) {
            crate::thread::current_context().0
        } else {
            match self.streams.context_of(stream.0) {
                Some(context) => context,
                None => return true,
            }
        };
        let Some(of_event) = self.events.context_of(event.0) else { return true };
        // A green context's events and streams are its device's primary context's, which is looked up where they are not alike.
        of_event == of_stream || crate::context::owner(CUcontext(of_stream)).0 == of_event
    }

    /// Names a new object of a kind without further knowledge.
    ///
    /// # Errors
    /// CUDA_ERROR_OUT_OF_MEMORY where there are too many; CUDA_ERROR_UNKNOWN for a kind that has a table of its own.
    pub fn insert_plain<H: Handle>(&self, context: u64) -> CuResult<H> {
        let table = self.plain(H::KIND).ok_or(CUresult::UNKNOWN)?;
        table.insert_in(context, Owned { context }).map(H::from_raw)
    }

    /// The object is gone.
    pub fn remove_plain<H: Handle>(&self, handle: H) {
        if let Some(table) = self.plain(H::KIND) {
            table.remove(handle.raw());
        }
    }

    /// Everything that belongs to a context is gone with it.
    pub fn remove_of_context(&self, context: u64) {
        for table in [
            &self.events,
            &self.graphs,
            &self.graph_execs,
            &self.graph_nodes,
            &self.arrays,
            &self.mipmapped_arrays,
        ] {
            for (handle, record) in table.all() {
                if record.context == context {
                    table.remove(handle);
                }
            }
        }
        crate::array::forget_dead(self);
        for (handle, record) in self.streams.all() {
            if record.context == context {
                self.streams.remove(handle);
            }
        }
        for (handle, _) in self.links.all() {
            if self.links.context_of(handle) == Some(context) {
                self.links.remove(handle);
            }
        }
        for (handle, record) in self.functions.all() {
            if record.context == context {
                self.functions.remove(handle);
            }
        }
        for (handle, record) in self.modules.all() {
            if record.context == context {
                self.modules.remove(handle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_handle_is_not_its_successor() {
        let table = Table::<u32>::new(HandleKind::Event);
        let first = table.insert(1).unwrap();
        assert_eq!(table.get(first).as_deref(), Some(&1));
        assert_eq!(table.remove(first).as_deref(), Some(&1));
        assert!(table.remove(first).is_none());
        let second = table.insert(2).unwrap();
        assert_ne!(first, second, "the same slot, another generation");
        assert!(!table.is_live(first));
        assert!(table.is_live(second));
    }

    #[test]
    fn an_object_knows_its_context_without_a_lock() {
        let table = Table::<u32>::new(HandleKind::Stream);
        let (in_seven, in_none) = (table.insert_in(7, 1).unwrap(), table.insert(2).unwrap());
        assert_eq!(table.context_of(in_seven), Some(7));
        assert_eq!(table.context_of(in_none), Some(0));
        table.remove(in_seven);
        assert_eq!(table.context_of(in_seven), None);
        assert_eq!(table.context_of(table.insert(3).unwrap()), Some(0), "the slot's next object has its own");
    }

    #[test]
    fn epochs_change_when_handles_die() {
        let table = Table::<u32>::new(HandleKind::Function);
        let handle = table.insert(1).unwrap();
        let before = table.epoch();
        table.remove(handle);
        assert_ne!(table.epoch(), before);
    }

    #[test]
    fn foreign_numbers_are_no_handles() {
        let table = Table::<u32>::new(HandleKind::Event);
        let handle = table.insert(1).unwrap();
        for wrong in [0, 1, 2, handle + 1, handle | 1 << 47, handle ^ 1 << 32, u64::MAX, 0x7fff_0000_1000] {
            assert!(!table.is_live(wrong), "{wrong:#x}");
        }
    }

    #[test]
    fn all_lists_the_living() {
        let table = Table::<u32>::new(HandleKind::Stream);
        let handles: Vec<u64> = (0..3000).map(|i| table.insert(i).unwrap()).collect();
        for h in handles.iter().step_by(2) {
            table.remove(*h);
        }
        assert_eq!(table.all().len(), 1500);
    }
}
