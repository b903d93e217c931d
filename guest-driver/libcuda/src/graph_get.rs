//! What nodes are: their parameters and attributes.

use std::ffi::c_void;

use cuda_api::calls::graph::row;
use cuda_api::graph_node::{BatchNode, Copy3D, KernelNode, MemAllocNode, Node, kind};
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUdeviceptr, CUevent, CUgraph, CUgraphNode};
use cuda_api::{CUresult, CuResult};
use zerocopy::IntoBytes as _;

use crate::function::{PARAM_BUFFER_POINTER, PARAM_BUFFER_SIZE};
use crate::graph::owned_by;
use crate::graph_node::{
    KERNEL_V1_BYTES, LOCATION_DEVICE, MEMSET_V1_BYTES, Place, guest_ordinal, keep, write_first,
};
use crate::process::{Process, initialised};
use crate::{function, gate, graph_pageable, thread};

/// A node's parameters as they are, a kernel's as a buffer, and the graph that it is in.
fn get(node: CUgraphNode, kind: u32) -> CuResult<(CUgraph, Node, Vec<u8>)> {
    let process = initialised()?;
    process.alive()?;
    if node.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    let (graph, words, data) = gate::call::<row::vgpuGraphNodeGetParams>((node, kind))?;
    let found = Node::decode(&words).map_err(|_| CUresult::UNKNOWN)?;
    if found.kind() == kind { Ok((graph, found, data)) } else { Err(CUresult::UNKNOWN) }
}

/// # Safety
/// `to` is NULL or has room for that many bytes of a structure.
unsafe fn get_kernel(node: CUgraphNode, to: *mut c_void, bytes: usize) -> CuResult<()> {
    not_null(to)?;
    let process = initialised()?;
    let (graph, found, data) = get(node, kind::KERNEL)?;
    let Node::Kernel(mut found) = found else { return Err(CUresult::UNKNOWN) };
    let record = function::find(process, if found.func != 0 { found.func } else { found.kern })?;
    if data.len() != record.param_bytes || found.extra > data.len() as u64 {
        return Err(CUresult::UNKNOWN);
    }
    if found.extra != 0 {
        // As one buffer, in the driver's order: its size, the buffer, the end.
        let bytes = [&found.extra.to_ne_bytes(), data.as_slice()].concat();
        let list = [
            Place::Is(PARAM_BUFFER_SIZE),
            Place::At(0),
            Place::Is(PARAM_BUFFER_POINTER),
            Place::At(size_of::<u64>()),
            Place::Is(0),
        ];
        (_, found.extra) = keep(process, node, graph, &bytes, &list);
    } else if !record.params.is_empty() {
        let places: Vec<Place> = record.params.iter().map(|param| Place::At(param.offset as usize)).collect();
        (_, found.kernel_params) = keep(process, node, graph, &data, &places);
    }
    // SAFETY: this function's contract is the callee's.
    unsafe { write_first(to, &found, bytes) }
}

/// # Safety
/// `to` is NULL or has room for an event.
unsafe fn get_event(node: CUgraphNode, kind: u32, to: *mut CUevent) -> CUresult {
    finish((|| {
        not_null(to)?;
        match get(node, kind)?.1 {
            // SAFETY: not NULL; room by this function's contract.
            Node::EventRecord(event) | Node::EventWait(event) => unsafe { to.write(CUevent(event)) },
            _ => return Err(CUresult::UNKNOWN),
        }
        Ok(())
    })())
}

/// cuGraphKernelNodeGetParams.
pub unsafe fn cuGraphKernelNodeGetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { get_kernel(node, params, KERNEL_V1_BYTES) })
}

/// cuGraphKernelNodeGetParams.
pub unsafe fn cuGraphKernelNodeGetParams_v2(node: CUgraphNode, params: *mut c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { get_kernel(node, params, size_of::<KernelNode>()) })
}

/// cuGraphMemcpyNodeGetParams.
pub unsafe fn cuGraphMemcpyNodeGetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    finish((|| {
        not_null(params)?;
        let process = initialised()?;
        process.alive()?;
        if !node.is_null()
            && let Some(found) = graph_pageable::find(process, node)?
        {
            // SAFETY: CUDA's contract with the caller.
            return unsafe { write_first(params, found.given(), size_of::<Copy3D>()) };
        }
        match get(node, kind::MEMCPY)?.1 {
            // SAFETY: CUDA's contract with the caller.
            Node::Memcpy(found) => unsafe { write_first(params, &found.copy, size_of::<Copy3D>()) },
            _ => Err(CUresult::UNKNOWN),
        }
    })())
}

/// cuGraphMemsetNodeGetParams.
pub unsafe fn cuGraphMemsetNodeGetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    finish((|| {
        not_null(params)?;
        match get(node, kind::MEMSET)?.1 {
            // SAFETY: CUDA's contract with the caller.
            Node::Memset(found) => unsafe { write_first(params, &found, MEMSET_V1_BYTES) },
            _ => Err(CUresult::UNKNOWN),
        }
    })())
}

/// cuGraphEventRecordNodeGetEvent.
pub unsafe fn cuGraphEventRecordNodeGetEvent(node: CUgraphNode, event: *mut CUevent) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { get_event(node, kind::EVENT_RECORD, event) }
}

/// cuGraphEventWaitNodeGetEvent.
pub unsafe fn cuGraphEventWaitNodeGetEvent(node: CUgraphNode, event: *mut CUevent) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { get_event(node, kind::WAIT_EVENT, event) }
}

/// cuGraphMemAllocNodeGetParams.
pub unsafe fn cuGraphMemAllocNodeGetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    finish((|| {
        not_null(params)?;
        let process = initialised()?;
        let (graph, found, _) = get(node, kind::MEM_ALLOC)?;
        let Node::MemAlloc(mut found, mut access) = found else { return Err(CUresult::UNKNOWN) };
        for desc in access.iter_mut().filter(|desc| desc.location.kind == LOCATION_DEVICE) {
            desc.location.id = guest_ordinal(process, desc.location.id);
        }
        if found.props.location_type == LOCATION_DEVICE.cast_unsigned() {
            found.props.location_id = guest_ordinal(process, found.props.location_id);
        }
        if !access.is_empty() {
            (found.access, _) = keep(process, node, graph, access.as_slice().as_bytes(), &[]);
        }
        // SAFETY: CUDA's contract with the caller.
        unsafe { write_first(params, &found, size_of::<MemAllocNode>()) }
    })())
}

/// cuGraphMemFreeNodeGetParams.
pub unsafe fn cuGraphMemFreeNodeGetParams(node: CUgraphNode, address: *mut CUdeviceptr) -> CUresult {
    finish((|| {
        not_null(address)?;
        match get(node, kind::MEM_FREE)?.1 {
            // SAFETY: not NULL; room for an address by CUDA's contract.
            Node::MemFree(found) => unsafe { address.write(found) },
            _ => return Err(CUresult::UNKNOWN),
        }
        Ok(())
    })())
}

/// cuGraphBatchMemOpNodeGetParams.
pub unsafe fn cuGraphBatchMemOpNodeGetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    finish((|| {
        not_null(params)?;
        let process = initialised()?;
        let (graph, found, _) = get(node, kind::BATCH_MEM_OP)?;
        let Node::BatchMemOp(mut found, operations) = found else { return Err(CUresult::UNKNOWN) };
        (found.operations, _) = keep(process, node, graph, operations.as_slice().as_bytes(), &[]);
        // SAFETY: CUDA's contract with the caller.
        unsafe { write_first(params, &found, size_of::<BatchNode>()) }
    })())
}

/// cuGraphChildGraphNodeGetGraph.
pub unsafe fn cuGraphChildGraphNodeGetGraph(node: CUgraphNode, to: *mut CUgraph) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        if graph_pageable::find(process, node)?.is_some() {
            return Err(CUresult::INVALID_VALUE);
        }
        let graph = child_graph(process, node)?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(graph) };
        Ok(())
    })())
}

/// The graph in a node.
///
/// # Errors
/// As cuGraphChildGraphNodeGetGraph.
pub(crate) fn child_graph(process: &Process, node: CUgraphNode) -> CuResult<CUgraph> {
    let proposed: CUgraph =
        process.objects.insert_plain(crate::context::owner(thread::current_context()).0)?;
    let outcome = gate::call::<row::cuGraphChildGraphNodeGetGraph>((node, proposed));
    match outcome {
        Ok((graph, parent)) if graph == proposed => owned_by(process, graph, parent),
        _ => process.objects.remove_plain(proposed),
    }
    outcome.map(|(graph, _)| graph)
}

/// cuGraphNodeGetType.
pub unsafe fn cuGraphNodeGetType(node: CUgraphNode, to: *mut u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let mut found = gate::call::<row::cuGraphNodeGetType>((node,))?;
        if found == kind::GRAPH && graph_pageable::find_in(process, node)?.is_some() {
            found = kind::MEMCPY;
        }
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { to.write(found) };
        Ok(())
    })())
}

/// Words of a CUlaunchAttributeValue.
const ATTRIBUTE_WORDS: usize = 8;

/// The bytes of a CUlaunchAttributeValue that driver 580 writes for an attribute of a node, from and to.
fn attribute_bytes(attribute: u32) -> &'static [(usize, usize)] {
    match attribute {
        // The window; the three dimensions of a cluster.
        1 => &[(0, 32)],
        4 => &[(0, 12)],
        // Two numbers of a byte each.
        9 => &[(0, 2)],
        // Whether kernels may change the node, and its handle there.
        13 => &[(0, 4), (8, 16)],
        2 | 5 | 8 | 10 | 14 => &[(0, 4)],
        _ => &[(0, 64)],
    }
}

/// cuGraphKernelNodeGetAttribute.
pub unsafe fn cuGraphKernelNodeGetAttribute(
    node: CUgraphNode,
    attribute: u32,
    value: *mut c_void,
) -> CUresult {
    finish((|| {
        initialised()?.alive()?;
        not_null(value)?;
        let found = gate::call::<row::cuGraphKernelNodeGetAttribute>((node, attribute))?;
        let found: [u64; ATTRIBUTE_WORDS] = found.try_into().map_err(|_| CUresult::UNKNOWN)?;
        let bytes = found.as_bytes();
        for (from, to) in attribute_bytes(attribute) {
            if let Some(part) = bytes.get(*from..*to) {
                // SAFETY: not NULL; within the union of 64 bytes that it is by CUDA's contract.
                unsafe {
                    std::ptr::copy_nonoverlapping(part.as_ptr(), value.cast::<u8>().add(*from), part.len())
                };
            }
        }
        Ok(())
    })())
}

/// cuGraphKernelNodeSetAttribute.
pub unsafe fn cuGraphKernelNodeSetAttribute(
    node: CUgraphNode,
    attribute: u32,
    value: *const c_void,
) -> CUresult {
    finish((|| {
        initialised()?.alive()?;
        not_null(value.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract: a union of 64 bytes.
        let value = unsafe { value.cast::<[u64; ATTRIBUTE_WORDS]>().read_unaligned() };
        crate::waiting::recorded_by_a_launch(attribute, value[0]);
        gate::call::<row::cuGraphKernelNodeSetAttribute>((node, attribute, value.to_vec()))
    })())
}
