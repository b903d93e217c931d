//! Nodes: their parameters out of CUDA's structures and back.
//!
//! What a structure points to is read before the call. What CUDA hands out by pointer (a kernel node's parameters …) is kept here
//! with the node, as long as its graph is there.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Mutex;

use cuda_api::graph_node::{
    BODIES_MAX, BatchNode, ChildNode, ConditionalNode, Copy3D, CopyEnd, KernelNode, MemAllocNode, MemOp,
    MemcpyNode, MemsetNode, Node, NodeParams, OPERATIONS_MAX, kind, memory_type,
};
use cuda_api::guest::{array, not_null};
use cuda_api::host::Access;
use cuda_api::types::{CUevent, CUgraph, CUgraphNode, CUmemAccessDesc};
use cuda_api::wire::Pod;
use cuda_api::{CUresult, CuResult};
use zerocopy::IntoBytes as _;

use crate::graph_pageable::Form;
use crate::objects::lock;
use crate::process::Process;
use crate::{function, thread};

/// CU_MEM_LOCATION_TYPE_DEVICE.
pub(crate) const LOCATION_DEVICE: i32 = 1;
/// Bytes of a CUDA_KERNEL_NODE_PARAMS of before CUDA 12: kernel and context are not in it.
pub(crate) const KERNEL_V1_BYTES: usize = offset_of!(KernelNode, kern);
/// Bytes of a CUDA_MEMSET_NODE_PARAMS of version 1: the context is not in it.
pub(crate) const MEMSET_V1_BYTES: usize = offset_of!(MemsetNode, ctx);
/// Where a CUgraphNodeParams has the node's own structure.
pub(crate) const NODE_AT: usize = offset_of!(NodeParams, node);

/// A node on its way, and a kernel's parameters.
pub(crate) struct Sent {
    pub(crate) node: Node,
    pub(crate) data: Vec<u8>,
    /// Of a copy: ends that are ordinary memory, which the worker does not have ([`crate::graph_pageable`]).
    pub(crate) pageable: Option<Form>,
}

impl From<Node> for Sent {
    fn from(node: Node) -> Self {
        Sent { node, data: Vec::new(), pageable: None }
    }
}

/// The caller's structure, of which only the first bytes are there.
///
/// # Safety
/// `from` is NULL or has that many bytes.
unsafe fn read_first<T: Pod + Default>(from: *const c_void, bytes: usize) -> CuResult<T> {
    not_null(from.cast_mut())?;
    let mut value = T::default();
    let to = value.as_mut_bytes();
    // SAFETY: at most as many bytes as both have.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.as_mut_ptr(), bytes.min(to.len())) };
    Ok(value)
}

/// # Safety
/// `from` is NULL or points to such a structure.
pub(crate) unsafe fn read<T: Pod + Default>(from: *const c_void) -> CuResult<T> {
    // SAFETY: this function's contract is the callee's.
    unsafe { read_first(from, size_of::<T>()) }
}

/// # Safety
/// `to` is NULL or has room for that many bytes.
pub(crate) unsafe fn write_first<T: Pod>(to: *mut c_void, value: &T, bytes: usize) -> CuResult<()> {
    not_null(to)?;
    let from = value.as_bytes();
    // SAFETY: at most as many bytes as both have.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast::<u8>(), bytes.min(from.len())) };
    Ok(())
}

/// An address in the caller's structure as a pointer.
/// A node that records an event.
pub fn records(event: CUevent) -> Node {
    crate::waiting::others_record(event);
    Node::EventRecord(event.0)
}

fn pointer<T>(address: u64) -> *const T {
    std::ptr::with_exposed_provenance(address as usize)
}

/// # Safety
/// Its parameters are what CUDA's documentation of cuLaunchKernel says.
unsafe fn kernel(process: &Process, given: &KernelNode) -> CuResult<Sent> {
    let name = if given.func != 0 { given.func } else { given.kern };
    if name == 0 {
        return Err(CUresult::INVALID_HANDLE);
    }
    let record = function::find(process, name)?;
    let mut data = Vec::new();
    let (params, extra) = (pointer(given.kernel_params), pointer(given.extra));
    // SAFETY: this function's contract is the callee's.
    let as_one = unsafe { function::lay_out_node(&mut data, &record, params, extra) }?;
    // Kernel and context count only where there is no function.
    let (kern, ctx) = if given.func != 0 { (0, 0) } else { (given.kern, given.ctx) };
    Ok(Sent {
        node: Node::Kernel(KernelNode {
            padding: 0,
            kernel_params: 0,
            extra: as_one as u64,
            kern,
            ctx,
            ..*given
        }),
        data,
        pageable: None,
    })
}

/// What an end of a copy is to this process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EndPlace {
    /// Nothing that the CPU can be sure to reach.
    Device,
    /// Host memory that is shared with the worker.
    Shared,
    /// The program's ordinary memory.
    Pageable,
}

/// One end of a copy: the address that its type says, and nothing else.
fn copy_end(
    process: &Process,
    end: &CopyEnd,
    copy: &Copy3D,
    access: Access,
) -> CuResult<(CopyEnd, EndPlace)> {
    let (host, device) = match end.memory_type {
        memory_type::HOST => (end.host, 0),
        memory_type::DEVICE | memory_type::UNIFIED => (0, end.device),
        memory_type::ARRAY if end.array != 0 => {
            crate::log::once("graph memcpy arrays", || {
                "a graph's copy from or to an array is not supported".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
        _ => return Err(CUresult::INVALID_VALUE),
    };
    let bare = CopyEnd { padding: 0, host, device, array: 0, reserved: 0, ..*end };
    let (start, len) = bare.range(copy)?;
    if end.memory_type == memory_type::DEVICE || len == 0 {
        return Ok((bare, EndPlace::Device));
    }
    if start == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    // The worker reads and writes it at each launch: only memory that is shared with it can be named.
    let Some(range) = process.ranges.find(start) else { return Ok((bare, EndPlace::Pageable)) };
    process.ranges.check(start, len, access)?;
    Ok((bare, if range.kind.is_host() { EndPlace::Shared } else { EndPlace::Device }))
}

pub(crate) fn memcpy(process: &Process, copy: &Copy3D, ctx: u64) -> CuResult<Sent> {
    let (src, from) = copy_end(process, &copy.src, copy, Access::Read)?;
    let (dst, to) = copy_end(process, &copy.dst, copy, Access::Write)?;
    let pageable = match (from, to) {
        (EndPlace::Pageable, EndPlace::Device) => Some(Form::Up),
        (EndPlace::Device, EndPlace::Pageable) => Some(Form::Down),
        (EndPlace::Pageable, _) | (_, EndPlace::Pageable) => Some(Form::Within),
        _ => None,
    };
    let node = MemcpyNode { flags: 0, reserved: 0, ctx, copy: Copy3D { src, dst, ..*copy } };
    Ok(Sent { pageable, ..Node::Memcpy(node).into() })
}

/// # Safety
/// The access descriptions are as many as it says.
pub(crate) unsafe fn mem_alloc(process: &Process, given: &MemAllocNode) -> CuResult<Sent> {
    if given.props.win32 != 0 || given.access_count > OPERATIONS_MAX as u64 {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: this function's contract is the callee's.
    let access = unsafe { array::<CUmemAccessDesc>(pointer(given.access), given.access_count) }?;
    let mut access = access.to_vec();
    for desc in access.iter_mut().filter(|desc| desc.location.kind == LOCATION_DEVICE) {
        desc.location.id = process.host_ordinal(desc.location.id)?;
    }
    let mut node = MemAllocNode { access: 0, access_count: access.len() as u64, dptr: 0, ..*given };
    if node.props.location_type == LOCATION_DEVICE.cast_unsigned() {
        node.props.location_id =
            process.host_ordinal(node.props.location_id).map_err(|_| CUresult::INVALID_VALUE)?;
    }
    Ok(Node::MemAlloc(node, access).into())
}

/// # Safety
/// The operations are as many as it says.
pub(crate) unsafe fn batch(given: &BatchNode) -> CuResult<Sent> {
    if given.count as usize > OPERATIONS_MAX {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: this function's contract is the callee's.
    let operations = unsafe { array::<MemOp>(pointer(given.operations), u64::from(given.count)) }?;
    let operations = operations
        .iter()
        .map(|given| match given.operation {
            // Wait and write, of 32 and 64 bits.
            1 | 2 | 4 | 5 => MemOp { barrier_flags: 0, padding: 0, alias: 0, rest: 0, ..*given },
            operation => MemOp { operation, barrier_flags: given.barrier_flags, ..MemOp::default() },
        })
        .collect();
    Ok(Node::BatchMemOp(BatchNode { padding: 0, operations: 0, padding_2: 0, ..*given }, operations).into())
}

fn conditional(process: &Process, given: &ConditionalNode) -> CuResult<Sent> {
    if given.size as usize > BODIES_MAX {
        return Err(CUresult::INVALID_VALUE);
    }
    let mut names = Vec::new();
    for _ in 0..given.size {
        match process.objects.insert_plain::<CUgraph>(crate::context::owner(thread::current_context()).0) {
            Ok(name) => names.push(name.0),
            Err(error) => {
                forget_names(process, &names);
                return Err(error);
            }
        }
    }
    Ok(Node::Conditional(ConditionalNode { bodies: 0, ..*given }, names).into())
}

pub(crate) fn forget_names(process: &Process, names: &[u64]) {
    for name in names {
        process.objects.remove_plain(CUgraph(*name));
    }
}

/// A node of any type out of a CUgraphNodeParams.
///
/// # Safety
/// `params` is NULL or points to one that is what CUDA's documentation says.
pub(crate) unsafe fn general(process: &Process, params: *const c_void) -> CuResult<Sent> {
    // SAFETY: this function's contract, for all of the following reads: the structure of its type is within it.
    unsafe {
        let all = read_general(params)?;
        let node = params.cast::<u8>().add(NODE_AT).cast::<c_void>();
        match all.kind {
            kind::KERNEL => kernel(process, &read(node)?),
            kind::MEMCPY => {
                let node: MemcpyNode = read(node)?;
                if node.flags != 0 || node.reserved != 0 {
                    return Err(CUresult::INVALID_VALUE);
                }
                memcpy(process, &node.copy, node.ctx)
            }
            kind::MEMSET => Ok(Node::Memset(read(node)?).into()),
            kind::GRAPH => Ok(Node::Child(ChildNode { padding: 0, ..read(node)? }).into()),
            kind::EMPTY => Ok(Node::Empty.into()),
            kind::WAIT_EVENT => Ok(Node::EventWait(read(node)?).into()),
            kind::EVENT_RECORD => Ok(records(CUevent(read(node)?)).into()),
            kind::MEM_ALLOC => mem_alloc(process, &read(node)?),
            kind::MEM_FREE => Ok(Node::MemFree(read(node)?).into()),
            kind::BATCH_MEM_OP => batch(&read(node)?),
            kind::CONDITIONAL => conditional(process, &read(node)?),
            // External semaphores. Host functions do not come here.
            kind @ (kind::HOST | 8 | 9) => {
                crate::log::once("graph node type", || {
                    format!("a graph node of type {kind} is not supported")
                });
                Err(CUresult::NOT_SUPPORTED)
            }
            _ => Err(CUresult::INVALID_VALUE),
        }
    }
}

/// Bytes of a node's own structure in a CUgraphNodeParams.
fn node_bytes(kind: u32) -> usize {
    match kind {
        kind::KERNEL => size_of::<KernelNode>(),
        kind::MEMCPY => size_of::<MemcpyNode>(),
        kind::MEMSET => size_of::<MemsetNode>(),
        kind::HOST | kind::GRAPH => size_of::<ChildNode>(),
        kind::WAIT_EVENT | kind::EVENT_RECORD | kind::MEM_FREE => size_of::<u64>(),
        kind::MEM_ALLOC => size_of::<MemAllocNode>(),
        kind::BATCH_MEM_OP => size_of::<BatchNode>(),
        kind::CONDITIONAL => size_of::<ConditionalNode>(),
        _ => 0,
    }
}

/// A CUgraphNodeParams in which what is not used is 0, as it has to be (CUDA Driver API, CUgraphNodeParams).
///
/// # Safety
/// As for [`read`].
unsafe fn read_general(params: *const c_void) -> CuResult<NodeParams> {
    // SAFETY: this function's contract is the callee's.
    let all: NodeParams = unsafe { read(params) }?;
    let unused = all.node.as_bytes().get(node_bytes(all.kind)..).unwrap_or_default();
    // What an external semaphore's node uses does not matter: it is refused.
    let semaphores = matches!(all.kind, 8 | 9);
    if all.reserved != [0; 3] || all.reserved_2 != 0 || !(semaphores || unused.iter().all(|byte| *byte == 0))
    {
        return Err(CUresult::INVALID_VALUE);
    }
    Ok(all)
}

/// The host function's structure, where a CUgraphNodeParams is of one. It has calls of its own.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE for NULL, or where something is not 0 that has to be.
///
/// # Safety
/// `params` is NULL or points to a CUgraphNodeParams.
pub(crate) unsafe fn host_of(params: *const c_void) -> CuResult<Option<*const c_void>> {
    // SAFETY: this function's contract is the callee's.
    let all = unsafe { read_general(params) }?;
    // SAFETY: within the structure.
    Ok((all.kind == kind::HOST).then(|| unsafe { params.cast::<u8>().add(NODE_AT).cast() }))
}

/// What was handed out by pointer with a node.
struct Kept {
    /// The graph that the node is in.
    graph: u64,
    len: usize,
    /// The bytes, aligned for anything that may be in them.
    bytes: Vec<u128>,
    /// Addresses in `bytes`.
    pointers: Vec<usize>,
}

/// By the node's name.
static KEPT: Mutex<Option<HashMap<u64, Kept>>> = Mutex::new(None);

/// A pointer that is handed out.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// To this byte of those that are kept.
    At(usize),
    /// No pointer: this number.
    Is(usize),
}

/// Keeps bytes with a node: where they are, and where the pointers to places in them are. They stay as long as the node's graph is
/// there, or until others are kept with the node: the life that CUDA promises.
pub(crate) fn keep(
    process: &Process,
    node: CUgraphNode,
    graph: CUgraph,
    bytes: &[u8],
    places: &[Place],
) -> (u64, u64) {
    let mut kept = lock(&KEPT);
    let all = kept.get_or_insert_default();
    if all.len().is_power_of_two() && !all.contains_key(&node.0) {
        all.retain(|_, kept| process.objects.graphs.is_live(kept.graph));
    }
    let entry = all.entry(node.0).or_insert_with(|| Kept {
        graph: graph.0,
        len: usize::MAX,
        bytes: Vec::new(),
        pointers: Vec::new(),
    });
    if entry.len != bytes.len() || entry.pointers.len() != places.len() {
        *entry = Kept {
            graph: graph.0,
            len: bytes.len(),
            bytes: vec![0; bytes.len().div_ceil(size_of::<u128>()).max(1)],
            pointers: vec![0; places.len()],
        };
    }
    let start = entry.bytes.as_ptr().expose_provenance();
    if let Some(to) = entry.bytes.as_mut_bytes().get_mut(..bytes.len())
        && to != bytes
    {
        to.copy_from_slice(bytes);
    }
    for (to, place) in entry.pointers.iter_mut().zip(places) {
        *to = match place {
            Place::At(offset) => start + offset,
            Place::Is(number) => *number,
        };
    }
    (start as u64, entry.pointers.as_ptr().expose_provenance() as u64)
}

/// # Safety
/// `from` is NULL or points to a CUDA_KERNEL_NODE_PARAMS with that many bytes.
pub(crate) unsafe fn kernel_at(process: &Process, from: *const c_void, bytes: usize) -> CuResult<Sent> {
    // SAFETY: this function's contract is the callees'.
    unsafe { kernel(process, &read_first(from, bytes)?) }
}

/// # Safety
/// `from` is NULL or points to a CUDA_MEMSET_NODE_PARAMS of version 1.
pub(crate) unsafe fn memset_at(from: *const c_void, ctx: u64) -> CuResult<Sent> {
    // SAFETY: this function's contract is the callee's.
    let given: MemsetNode = unsafe { read_first(from, MEMSET_V1_BYTES) }?;
    Ok(Node::Memset(MemsetNode { ctx, ..given }).into())
}

/// The guest's number of one of the host's devices.
pub(crate) fn guest_ordinal(process: &Process, host: i32) -> i32 {
    process
        .host_ordinals
        .iter()
        .position(|ordinal| *ordinal == host)
        .and_then(|i| i32::try_from(i).ok())
        .unwrap_or(0)
}

/// A copy of a graph as a node.
pub(crate) fn child_of(graph: CUgraph) -> Node {
    Node::Child(ChildNode { graph: graph.0, ownership: 0, padding: 0 })
}
