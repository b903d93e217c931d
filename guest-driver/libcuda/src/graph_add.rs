//! Nodes added to graphs.

use std::ffi::c_void;
use std::mem::offset_of;

use cuda_api::calls::graph::row;
use cuda_api::graph_node::{ConditionalNode, KernelNode, MemAllocNode, Node};
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUdeviceptr, CUevent, CUgraph, CUgraphNode};
use cuda_api::{CUresult, CuResult};
use zerocopy::IntoBytes as _;

use crate::graph::{edge_data, nodes, owned_by};
use crate::graph_node::{
    KERNEL_V1_BYTES, NODE_AT, Sent, batch, child_of, forget_names, general, guest_ordinal, host_of, keep,
    kernel_at, mem_alloc, memcpy, memset_at, read,
};
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};
use crate::{gate, graph_pageable};

/// Memory that a graph will allocate is known from now on. The driver uses its addresses for other graphs when this one is gone.
fn hold(process: &Process, address: u64, len: u64, device: i32) -> CuResult<()> {
    process.reservations.keep(address, len).map_err(|_| CUresult::OUT_OF_MEMORY)?;
    crate::graph::allocates();
    process.ranges.insert_pooled(Range {
        start: address,
        len,
        kind: RangeKind::Graph,
        // As of any graph's memory, no context's.
        context: 0,
        device,
        id: 0,
        read_only: false,
        owner: 0,
    });
    Ok(())
}

/// Where a node is to be added.
struct Place {
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
    /// By cuGraphAddNode.
    general: bool,
}

impl Place {
    fn new(graph: CUgraph, dependencies: *const CUgraphNode, count: usize) -> Self {
        Place { graph, dependencies, edges: std::ptr::null(), count, general: false }
    }
}

/// A node as it was added.
struct Added {
    node: CUgraphNode,
    /// What the driver chose.
    made: Vec<u64>,
    sent: Node,
}

/// Adds a node.
///
/// # Safety
/// `to` is NULL or has room for a handle; the arrays of `place` are as long as it says.
unsafe fn add(
    to: *mut CUgraphNode,
    place: &Place,
    sent: impl FnOnce(&Process) -> CuResult<Sent>,
) -> CuResult<Added> {
    let process = initialised()?;
    process.alive()?;
    process.objects.check(place.graph)?;
    not_null(to)?;
    // SAFETY: this function's contract is the callees'.
    let (dependencies, edges) =
        unsafe { (nodes(place.dependencies, place.count)?, edge_data(place.edges, place.count)?) };
    let Sent { node: sent, data, pageable } = sent(process)?;
    let standin = match (&sent, pageable) {
        (Node::Memcpy(copy), Some(form)) => Some(graph_pageable::standin(process, copy, form)?),
        _ => None,
    };
    let sent = standin.as_ref().map_or(sent, |standin| child_of(standin.graph));
    let fields = (place.graph, dependencies, edges, place.general, sent.encode(), data.as_slice());
    let outcome = gate::call::<row::vgpuGraphAddNode>(fields);
    if let (Err(_), Node::Conditional(_, names)) = (&outcome, &sent) {
        forget_names(process, names);
    }
    let (node, made) = outcome?;
    if let Node::MemAlloc(given, _) = &sent {
        let address = made.first().copied().ok_or(CUresult::UNKNOWN)?;
        let device = guest_ordinal(process, given.props.location_id);
        if let Err(error) = hold(process, address, given.bytes, device) {
            if let Err(error) = gate::call::<row::cuGraphDestroyNode>((node,)) {
                crate::log::say(|| format!("a node with a clashing address stays: {error}"));
            }
            return Err(error);
        }
    }
    // SAFETY: not NULL; room for a handle by this function's contract.
    unsafe { to.write(node) };
    Ok(Added { node, made, sent })
}

/// Adds a node of any type; what the driver chose goes into the caller's structure.
///
/// # Safety
/// As for [`add`] and [`general`]; the structure is the caller's to change.
unsafe fn add_general(to: *mut CUgraphNode, place: &Place, params: *mut c_void) -> CuResult<()> {
    // SAFETY: this function's contract is the callees'.
    unsafe {
        if let Some(host) = host_of(params)? {
            // An edge to a host function is a full dependency and nothing else.
            if edge_data(place.edges, place.count)?.iter().any(|edge| *edge != 0) {
                return Err(CUresult::INVALID_VALUE);
            }
            return crate::host_node::add_node(to, place.graph, place.dependencies, place.count, host);
        }
    }
    // SAFETY: this function's contract is the callees'.
    let added = unsafe { add(to, place, |process| general(process, params)) }?;
    let (at, value) = match &added.sent {
        Node::MemAlloc(..) => (offset_of!(MemAllocNode, dptr), added.made.first().copied().unwrap_or(0)),
        Node::Conditional(_, names) => {
            let process = initialised()?;
            let bytes = names.as_slice().as_bytes();
            let (bodies, _) = keep(process, added.node, place.graph, bytes, &[]);
            for name in names {
                owned_by(process, CUgraph(*name), place.graph);
            }
            (offset_of!(ConditionalNode, bodies), bodies)
        }
        _ => return Ok(()),
    };
    // SAFETY: within the structure, which `general` has read.
    unsafe { params.cast::<u8>().add(NODE_AT + at).cast::<u64>().write_unaligned(value) };
    Ok(())
}

/// cuGraphAddEmptyNode.
pub unsafe fn cuGraphAddEmptyNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| Ok(Node::Empty.into())) }.map(|_| ()))
}

/// cuGraphAddKernelNode.
pub unsafe fn cuGraphAddKernelNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |process| kernel_at(process, params, KERNEL_V1_BYTES)) }.map(|_| ()))
}

/// cuGraphAddKernelNode.
pub unsafe fn cuGraphAddKernelNode_v2(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(
        unsafe { add(to, &place, |process| kernel_at(process, params, size_of::<KernelNode>())) }.map(|_| ()),
    )
}

/// cuGraphAddMemcpyNode.
pub unsafe fn cuGraphAddMemcpyNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
    ctx: CUcontext,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |process| memcpy(process, &read(params)?, ctx.0)) }.map(|_| ()))
}

/// cuGraphAddMemsetNode.
pub unsafe fn cuGraphAddMemsetNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
    ctx: CUcontext,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| memset_at(params, ctx.0)) }.map(|_| ()))
}

/// cuGraphAddChildGraphNode.
pub unsafe fn cuGraphAddChildGraphNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    child: CUgraph,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| Ok(child_of(child).into())) }.map(|_| ()))
}

/// cuGraphAddEventRecordNode.
pub unsafe fn cuGraphAddEventRecordNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    event: CUevent,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| Ok(crate::graph_node::records(event).into())) }.map(|_| ()))
}

/// cuGraphAddEventWaitNode.
pub unsafe fn cuGraphAddEventWaitNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    event: CUevent,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| Ok(Node::EventWait(event.0).into())) }.map(|_| ()))
}

/// cuGraphAddMemFreeNode.
pub unsafe fn cuGraphAddMemFreeNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    address: CUdeviceptr,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| Ok(Node::MemFree(address).into())) }.map(|_| ()))
}

/// cuGraphAddBatchMemOpNode.
pub unsafe fn cuGraphAddBatchMemOpNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
) -> CUresult {
    let place = Place::new(graph, dependencies, count);
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add(to, &place, |_| batch(&read(params)?)) }.map(|_| ()))
}

/// cuGraphAddMemAllocNode.
pub unsafe fn cuGraphAddMemAllocNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut c_void,
) -> CUresult {
    finish((|| {
        let place = Place::new(graph, dependencies, count);
        // SAFETY: CUDA's contract with the caller.
        let added = unsafe { add(to, &place, |process| mem_alloc(process, &read(params)?)) }?;
        let address = added.made.first().copied().unwrap_or(0);
        // SAFETY: within the structure, which was read above and takes the address.
        unsafe {
            params.cast::<u8>().add(offset_of!(MemAllocNode, dptr)).cast::<u64>().write_unaligned(address);
        }
        Ok(())
    })())
}

/// cuGraphAddNode.
pub unsafe fn cuGraphAddNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut c_void,
) -> CUresult {
    let place = Place { general: true, ..Place::new(graph, dependencies, count) };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add_general(to, &place, params) })
}

/// cuGraphAddNode_v2.
pub unsafe fn cuGraphAddNode_v2(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    edges: *const c_void,
    count: usize,
    params: *mut c_void,
) -> CUresult {
    let place = Place { edges, general: true, ..Place::new(graph, dependencies, count) };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { add_general(to, &place, params) })
}
