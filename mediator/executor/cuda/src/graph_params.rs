//! A node's parameters, from what the guest sent to what the driver takes, and back.
//!
//! Every handle is translated, every device range is checked for its full extent, and every pointer that the driver gets is to
//! memory of [`Prepared`]'s own: nothing is passed on as it came.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_api::graph_node::{
    BatchNode, ChildNode, ConditionalNode, Copy3D, CopyEnd, KernelNode, MemAllocNode, MemOp, MemcpyNode,
    MemsetNode, Node, NodeParams, kind, memory_type,
};
use cuda_api::host::Access;
use cuda_api::types::*;
use cuda_api::{CUresult, CuResult};

use crate::Cuda;
use crate::calls::launch::{extra, params_size};
use crate::calls::module::params;
use crate::context::number;
use crate::driver::Raw;
use crate::graphs::{Graph, HostRange, Kept, WordRange};
use crate::lock::read;
use crate::memory::FreedKind;
use crate::objects::Function;

/// CU_MEM_LOCATION_TYPE_INVALID.
const LOCATION_INVALID: u32 = 0;
/// CU_MEM_LOCATION_TYPE_DEVICE.
const LOCATION_DEVICE: i32 = 1;
/// CUstreamBatchMemOpType.
const WAIT_32: u32 = 1;
const WRITE_32: u32 = 2;
const FLUSH_REMOTE_WRITES: u32 = 3;
const WAIT_64: u32 = 4;
const WRITE_64: u32 = 5;
const BARRIER: u32 = 6;

/// What the driver takes, by the type of node.
pub(crate) enum Params {
    Kernel(KernelNode),
    Memcpy(MemcpyNode),
    Memset(MemsetNode),
    Child(ChildNode),
    Empty,
    EventWait(u64),
    EventRecord(u64),
    MemAlloc(MemAllocNode),
    MemFree(u64),
    Batch(BatchNode),
    Conditional(ConditionalNode),
}

impl Params {
    /// The structure for all types.
    pub(crate) fn general(&self) -> NodeParams {
        match self {
            Params::Kernel(node) => NodeParams::new(kind::KERNEL, node),
            Params::Memcpy(node) => NodeParams::new(kind::MEMCPY, node),
            Params::Memset(node) => NodeParams::new(kind::MEMSET, node),
            Params::Child(node) => NodeParams::new(kind::GRAPH, node),
            Params::Empty => NodeParams::new(kind::EMPTY, &0u64),
            Params::EventWait(event) => NodeParams::new(kind::WAIT_EVENT, event),
            Params::EventRecord(event) => NodeParams::new(kind::EVENT_RECORD, event),
            Params::MemAlloc(node) => NodeParams::new(kind::MEM_ALLOC, node),
            Params::MemFree(address) => NodeParams::new(kind::MEM_FREE, address),
            Params::Batch(node) => NodeParams::new(kind::BATCH_MEM_OP, node),
            Params::Conditional(node) => NodeParams::new(kind::CONDITIONAL, node),
        }
    }
}

/// A node's parameters, and everything that they point to: the driver copies it all before its call returns.
pub(crate) struct Prepared {
    pub(crate) params: Params,
    /// What the node will use.
    pub(crate) kept: Vec<Kept>,
    /// The graph that becomes a node.
    pub(crate) child: Option<Arc<Graph>>,
    /// The guest's names for a conditional node's bodies.
    pub(crate) bodies: Vec<u64>,
    _data: Vec<u8>,
    _pointers: Vec<*mut c_void>,
    _size: Option<Box<usize>>,
    _access: Vec<CUmemAccessDesc>,
    _operations: Vec<MemOp>,
}

impl From<Params> for Prepared {
    fn from(params: Params) -> Self {
        Prepared {
            params,
            kept: Vec::new(),
            child: None,
            bodies: Vec::new(),
            _data: Vec::new(),
            _pointers: Vec::new(),
            _size: None,
            _access: Vec::new(),
            _operations: Vec::new(),
        }
    }
}

/// A driver handle or address as a number of a structure's.
pub(crate) fn raw(number: u64) -> CuResult<Raw> {
    Raw::try_from(number).map_err(|_| CUresult::INVALID_VALUE)
}

fn address_of<T>(items: &[T]) -> u64 {
    items.as_ptr().expose_provenance() as u64
}

/// A list that the driver keeps, copied.
///
/// # Safety
/// `at` is 0 or the address of `count` of them.
pub(crate) unsafe fn list<T: Copy>(at: Raw, count: usize) -> Vec<T> {
    if at == 0 || count == 0 {
        return Vec::new();
    }
    let from: *const T = std::ptr::with_exposed_provenance(at);
    // SAFETY: `count` elements by this function's contract; CUDA's structures are aligned.
    unsafe { std::slice::from_raw_parts(from, count) }.to_vec()
}

impl Cuda {
    /// The driver's context for a guest's handle; NULL stays NULL.
    pub(crate) fn context_raw(&self, handle: u64) -> CuResult<u64> {
        if handle == 0 {
            return Ok(0);
        }
        let context = read(&self.contexts).get(number(CUcontext(handle))?)?;
        if context.alive() { Ok(context.raw as u64) } else { Err(CUresult::INVALID_CONTEXT) }
    }

    /// The guest's handle for a context of the driver's; 0 for one that is none of the guest's.
    fn context_name(&self, context: u64) -> u64 {
        let all = read(&self.contexts).all();
        let found = all.iter().find(|known| known.raw as u64 == context);
        found.map_or(0, |found| pack_handle(HandleKind::Context, 0, 0) | u64::from(found.id))
    }

    /// The parameters of a node, checked and translated. `graph` is the one that the node is in.
    pub(crate) fn prepare(&self, graph: &Arc<Graph>, words: &[u64], data: &[u8]) -> CuResult<Prepared> {
        let node = Node::decode(words)?;
        if !data.is_empty() && !matches!(node, Node::Kernel(_)) {
            return Err(CUresult::INVALID_VALUE);
        }
        match node {
            Node::Kernel(node) => self.prepare_kernel(node, data),
            Node::Memcpy(node) => self.prepare_memcpy(&node),
            Node::Memset(node) => {
                self.check(node.dst, node.extent()?, Access::Write)?;
                Ok(Params::Memset(MemsetNode { ctx: self.context_raw(node.ctx)?, ..node }).into())
            }
            Node::Child(node) => {
                let child = self.graph(CUgraph(node.graph))?;
                let kept = child.kept().into_values().flatten().collect();
                let params = Params::Child(ChildNode { graph: child.raw as u64, padding: 0, ..node });
                Ok(Prepared { kept, child: Some(child), ..params.into() })
            }
            Node::Empty => Ok(Params::Empty.into()),
            // No event is no handle of one that is gone: driver 580 tells them apart.
            Node::EventWait(0) | Node::EventRecord(0) => Err(CUresult::INVALID_VALUE),
            Node::EventWait(event) => {
                let event = self.event(CUevent(event))?;
                Ok(Prepared {
                    kept: vec![event.clone() as Kept],
                    ..Params::EventWait(event.raw as u64).into()
                })
            }
            Node::EventRecord(event) => {
                let event = self.event(CUevent(event))?;
                Ok(Prepared {
                    kept: vec![event.clone() as Kept],
                    ..Params::EventRecord(event.raw as u64).into()
                })
            }
            Node::MemAlloc(node, access) => self.prepare_allocation(&node, access),
            Node::MemFree(address) if self.memory.freed_kind(address) == Ok(FreedKind::Graph) => {
                Ok(Params::MemFree(address).into())
            }
            Node::MemFree(_) => Err(CUresult::INVALID_VALUE),
            Node::BatchMemOp(node, operations) => self.prepare_batch(&node, operations),
            Node::Conditional(node, bodies) => {
                if !graph.has_conditional(node.handle) || bodies.len() as u64 != u64::from(node.size) {
                    return Err(CUresult::INVALID_VALUE);
                }
                let ctx = self.context_raw(node.ctx)?;
                let params = Params::Conditional(ConditionalNode { bodies: 0, ctx, ..node });
                Ok(Prepared { bodies, ..params.into() })
            }
        }
    }

    fn check(&self, start: u64, len: u64, access: Access) -> CuResult<()> {
        self.memory.check(start, len, access)
    }

    fn prepare_kernel(&self, node: KernelNode, data: &[u8]) -> CuResult<Prepared> {
        let named = if node.func != 0 { node.func } else { node.kern };
        let function = self.function(CUfunction(named))?;
        if node.func == 0 && !function.is_kernel() {
            return Err(CUresult::INVALID_HANDLE);
        }
        let size = params_size(&function, data)?;
        let raw = function.raw as u64;
        let (func, kern, ctx) =
            if node.func != 0 { (raw, 0, 0) } else { (0, raw, self.context_raw(node.ctx)?) };
        let given = usize::try_from(node.extra).map_err(|_| CUresult::INVALID_VALUE)?;
        if given > size {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut node = KernelNode { func, kern, ctx, padding: 0, kernel_params: 0, extra: 0, ..node };
        let mut data = data.to_vec();
        let mut pointers = Vec::new();
        let mut size = Box::new(if given == 0 { size } else { given });
        // As the program gave them, since that is how they come back: as one buffer, or as pointers to each where that is possible.
        let places = if given == 0 { self.layout(&function) } else { Vec::new() };
        for place in places {
            let (from, to) =
                (place.offset as usize, (place.offset as usize).checked_add(place.size as usize));
            let param = to.and_then(|to| data.get_mut(from..to)).ok_or(CUresult::INVALID_VALUE)?;
            pointers.push(param.as_mut_ptr().cast::<c_void>());
        }
        if !pointers.is_empty() {
            node.kernel_params = address_of(&pointers);
        } else if !data.is_empty() {
            pointers = extra(&data, &mut size).to_vec();
            node.extra = address_of(&pointers);
        }
        Ok(Prepared {
            kept: vec![function as Kept],
            _data: data,
            _pointers: pointers,
            _size: Some(size),
            ..Params::Kernel(node).into()
        })
    }

    /// Where a kernel's parameters lie; nothing where the driver does not tell.
    pub(crate) fn layout(&self, function: &Function) -> Vec<ParamInfo> {
        params(self.driver, function.raw, function.is_kernel())
            .map_or_else(|_| Vec::new(), |(places, _)| places)
    }

    fn prepare_memcpy(&self, node: &MemcpyNode) -> CuResult<Prepared> {
        let mut kept = Vec::new();
        let mut end = |end: &CopyEnd, access| {
            let (host, device) = match end.memory_type {
                memory_type::HOST => (end.host, 0),
                memory_type::DEVICE | memory_type::UNIFIED => (0, end.device),
                memory_type::ARRAY if end.array != 0 => {
                    self.warn_once("a graph's copy from or to an array is not supported");
                    return Err(CUresult::NOT_SUPPORTED);
                }
                _ => return Err(CUresult::INVALID_VALUE),
            };
            let bare = CopyEnd { padding: 0, host, device, array: 0, reserved: 0, ..*end };
            let (start, len) = bare.range(&node.copy)?;
            self.check(start, len, access)?;
            // The driver would follow an address that it is told to be the host's with the CPU.
            if end.memory_type == memory_type::HOST && (len == 0 || !self.memory.is_host(start)) {
                return Err(CUresult::INVALID_VALUE);
            }
            if end.memory_type == memory_type::HOST || self.memory.is_host(start) {
                let used: Kept = Arc::new(HostRange { start, len, access });
                kept.push(used);
            }
            Ok(bare)
        };
        let src = end(&node.copy.src, Access::Read)?;
        let dst = end(&node.copy.dst, Access::Write)?;
        let ctx = self.context_raw(node.ctx)?;
        let copy = Copy3D { src, dst, ..node.copy };
        let params = Params::Memcpy(MemcpyNode { flags: 0, reserved: 0, ctx, copy });
        Ok(Prepared { kept, ..params.into() })
    }

    fn prepare_allocation(&self, node: &MemAllocNode, access: Vec<CUmemAccessDesc>) -> CuResult<Prepared> {
        let props = &node.props;
        let nowhere = props.location_type == LOCATION_INVALID;
        if props.win32 != 0 || node.access_count != access.len() as u64 || node.bytes == 0 || nowhere {
            return Err(CUresult::INVALID_VALUE);
        }
        if props.location_type != LOCATION_DEVICE.cast_unsigned()
            || access.iter().any(|desc| desc.location.kind != LOCATION_DEVICE)
        {
            self.warn_once("a graph's allocation is supported on a device only");
            return Err(CUresult::NOT_SUPPORTED);
        }
        let at = if access.is_empty() { 0 } else { address_of(&access) };
        let params = Params::MemAlloc(MemAllocNode { access: at, dptr: 0, ..*node });
        Ok(Prepared { _access: access, ..params.into() })
    }

    fn prepare_batch(&self, node: &BatchNode, mut operations: Vec<MemOp>) -> CuResult<Prepared> {
        if u64::from(node.count) != operations.len() as u64 {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut kept = Vec::new();
        for operation in &mut operations {
            // Any address becomes a node: the driver looks at it at each launch, and so does this ([`WordRange`]).
            let mut word = |len, access| {
                let used: Kept = Arc::new(WordRange { start: operation.address, len, access });
                kept.push(used);
            };
            match operation.operation {
                WAIT_32 => word(4, Access::Read),
                WAIT_64 => word(8, Access::Read),
                WRITE_32 => word(4, Access::Write),
                WRITE_64 => word(8, Access::Write),
                BARRIER | FLUSH_REMOTE_WRITES => {
                    let MemOp { operation: number, barrier_flags, .. } = *operation;
                    *operation = MemOp { operation: number, barrier_flags, ..MemOp::default() };
                }
                _ => return Err(CUresult::INVALID_VALUE),
            }
            operation.alias = 0;
            operation.rest = 0;
        }
        let ctx = self.context_raw(node.ctx)?;
        let params = Params::Batch(BatchNode { ctx, operations: address_of(&operations), ..*node });
        Ok(Prepared { kept, _operations: operations, ..params.into() })
    }

    /// What the guest gets to see of a node: its parameters, and a kernel's as a buffer.
    pub(crate) fn node_params(&self, node: Raw, wanted: u32) -> CuResult<(Node, Vec<u8>)> {
        let none = Vec::new();
        match wanted {
            kind::KERNEL => self.kernel_params(node),
            kind::MEMCPY => {
                let (copy,) = self.driver.cuGraphMemcpyNodeGetParams(node)?;
                let end = |end: &CopyEnd| match end.memory_type {
                    memory_type::HOST => Ok(CopyEnd { device: 0, array: 0, reserved: 0, padding: 0, ..*end }),
                    memory_type::DEVICE | memory_type::UNIFIED => {
                        Ok(CopyEnd { host: 0, array: 0, reserved: 0, padding: 0, ..*end })
                    }
                    _ => {
                        self.warn_once("a node that copies from or to an array cannot be shown");
                        Err(CUresult::NOT_SUPPORTED)
                    }
                };
                let copy = Copy3D { src: end(&copy.src)?, dst: end(&copy.dst)?, ..copy };
                Ok((Node::Memcpy(MemcpyNode { flags: 0, reserved: 0, ctx: 0, copy }), none))
            }
            kind::MEMSET => {
                let (found,) = self.driver.cuGraphMemsetNodeGetParams(node)?;
                Ok((Node::Memset(MemsetNode { ctx: 0, ..found }), none))
            }
            kind::EVENT_RECORD => {
                let (event,) = self.driver.cuGraphEventRecordNodeGetEvent(node)?;
                Ok((Node::EventRecord(self.event_name(event)?), none))
            }
            kind::WAIT_EVENT => {
                let (event,) = self.driver.cuGraphEventWaitNodeGetEvent(node)?;
                Ok((Node::EventWait(self.event_name(event)?), none))
            }
            kind::MEM_ALLOC => {
                let (found,) = self.driver.cuGraphMemAllocNodeGetParams(node)?;
                let count = usize::try_from(found.access_count).map_err(|_| CUresult::UNKNOWN)?;
                // SAFETY: the node's own descriptions, which the driver keeps as long as the node is.
                let access = unsafe { list(raw(found.access)?, count) };
                let mut shown = MemAllocNode { access: 0, access_count: access.len() as u64, ..found };
                shown.props.win32 = 0;
                Ok((Node::MemAlloc(shown, access), none))
            }
            kind::MEM_FREE => {
                let (address,) = self.driver.cuGraphMemFreeNodeGetParams(node)?;
                Ok((Node::MemFree(address), none))
            }
            kind::BATCH_MEM_OP => {
                let (found,) = self.driver.cuGraphBatchMemOpNodeGetParams(node)?;
                let count = usize::try_from(found.count).map_err(|_| CUresult::UNKNOWN)?;
                // SAFETY: the node's own operations, which the driver keeps as long as the node is.
                let mut operations: Vec<MemOp> = unsafe { list(raw(found.operations)?, count) };
                for operation in &mut operations {
                    operation.alias = 0;
                    operation.rest = 0;
                }
                let ctx = self.context_name(found.ctx);
                Ok((
                    Node::BatchMemOp(
                        BatchNode { ctx, operations: 0, padding: 0, padding_2: 0, ..found },
                        operations,
                    ),
                    none,
                ))
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    fn event_name(&self, event: Raw) -> CuResult<u64> {
        match self.events.find(|known| known.raw == event) {
            Some((name, _)) => Ok(name.0),
            None => {
                self.warn_once("a node's event has been destroyed");
                Err(CUresult::NOT_SUPPORTED)
            }
        }
    }

    /// The guest's handle for a function or kernel of the driver's.
    fn function_name(&self, function: Raw) -> Option<(u64, Arc<Function>)> {
        let function_of = |known: &Function| known.raw == function;
        let kernel_of = |known: &Function| {
            known.raw == function
                || self.driver.cuKernelGetFunction(known.raw).is_ok_and(|(of,)| of == function)
        };
        let functions = self.functions.find(function_of).map(|(name, found)| (name.0, found));
        let kernels = || self.kernels.find(function_of).map(|(name, found)| (name.0, found));
        // A captured launch of a kernel may be known to its node by the kernel's function in its context.
        let by_kernel = || self.kernels.find(kernel_of).map(|(name, found)| (name.0, found));
        functions.or_else(kernels).or_else(by_kernel)
    }

    fn kernel_params(&self, node: Raw) -> CuResult<(Node, Vec<u8>)> {
        let (found,) = self.driver.cuGraphKernelNodeGetParams_v2(node)?;
        let name = |of: u64| if of == 0 { Ok(None) } else { Ok(self.function_name(raw(of)?)) };
        let (func, kern) = (name(found.func)?, name(found.kern)?);
        let Some((_, function)) = func.as_ref().or(kern.as_ref()) else {
            self.warn_once("a kernel node's function has no name in the guest");
            return Err(CUresult::NOT_SUPPORTED);
        };
        let mut data = vec![0u8; usize::try_from(function.param_bytes).map_err(|_| CUresult::UNKNOWN)?];
        let mut given = 0;
        let places = self.layout(function);
        if found.kernel_params != 0 {
            // SAFETY: one pointer for each of the kernel's parameters, which the driver keeps as long as the node is.
            let pointers: Vec<Raw> = unsafe { list(raw(found.kernel_params)?, places.len()) };
            for (place, at) in places.iter().zip(pointers) {
                let (from, size) = (place.offset as usize, place.size as usize);
                let to =
                    from.checked_add(size).and_then(|to| data.get_mut(from..to)).ok_or(CUresult::UNKNOWN)?;
                // SAFETY: as many bytes as the parameter has, as above.
                let bytes: Vec<u8> = unsafe { list(at, size) };
                if bytes.len() != size {
                    return Err(CUresult::UNKNOWN);
                }
                to.copy_from_slice(&bytes);
            }
        } else if found.extra != 0 {
            let (mut buffer, mut size, mut at) = (0, 0, raw(found.extra)?);
            // A list of pairs that ends with 0: a buffer's address (1) and the address of its size (2), in the driver's order.
            for _ in 0..2 {
                // SAFETY: the list has ended if its key is 0, and has a value beside any other.
                match unsafe { list::<Raw>(at, 1) }[..] {
                    [key @ (1 | 2)] => {
                        // SAFETY: as above.
                        let pair = unsafe { list::<Raw>(at, 2) };
                        let value = pair.get(1).copied().unwrap_or(0);
                        *(if key == 1 { &mut buffer } else { &mut size }) = value;
                    }
                    _ => break,
                }
                at = at.wrapping_add(size_of::<[Raw; 2]>());
            }
            if buffer == 0 || size == 0 {
                self.warn_once("a kernel node's parameter buffer is not told");
                return Err(CUresult::NOT_SUPPORTED);
            }
            // SAFETY: the value of that key is the address of the size.
            let size = unsafe { list::<usize>(size, 1) }.first().copied().unwrap_or(0).min(data.len());
            // SAFETY: as many bytes as the list says.
            let bytes: Vec<u8> = unsafe { list(buffer, size) };
            given = size as u64;
            if let Some(to) = data.get_mut(..bytes.len()) {
                to.copy_from_slice(&bytes);
            }
        } else if !data.is_empty() {
            self.warn_once("a kernel node's parameters are not told");
            return Err(CUresult::NOT_SUPPORTED);
        }
        let shown = KernelNode {
            func: func.map_or(0, |(name, _)| name),
            kern: kern.map_or(0, |(name, _)| name),
            ctx: self.context_name(found.ctx),
            padding: 0,
            kernel_params: 0,
            extra: given,
            ..found
        };
        Ok((Node::Kernel(shown), data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_number_in_the_general_structure() {
        let found = |params: Params| {
            let general = params.general();
            (general.kind, general.node.first().copied(), general.reserved, general.reserved_2)
        };
        let of = |kind, first| (kind, Some(first), [0; 3], 0);
        assert_eq!(found(Params::Kernel(KernelNode { func: 9, ..Default::default() })), of(0, 9));
        assert_eq!(found(Params::Memset(MemsetNode { dst: 8, ..Default::default() })), of(2, 8));
        assert_eq!(found(Params::Child(ChildNode { graph: 7, ..Default::default() })), of(4, 7));
        assert_eq!(found(Params::Empty), of(5, 0));
        assert_eq!(found(Params::EventWait(6)), of(6, 6));
        assert_eq!(found(Params::EventRecord(5)), of(7, 5));
        assert_eq!(found(Params::MemFree(4)), of(11, 4));
        assert_eq!(
            found(Params::Conditional(ConditionalNode { handle: 3, ..Default::default() })),
            of(13, 3)
        );
    }
}
