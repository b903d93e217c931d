//! Nodes changed, in graphs and in executable ones.

use std::ffi::c_void;

use cuda_api::calls::graph::row;
use cuda_api::graph_node::{KernelNode, MemcpyNode, Node};
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUcontext, CUevent, CUgraph, CUgraphExec, CUgraphNode};
use cuda_api::{CUresult, CuResult};

use crate::graph_node::{
    KERNEL_V1_BYTES, Sent, batch, child_of, forget_names, general, host_of, kernel_at, memcpy, memset_at,
    read,
};
use crate::graph_pageable::{Form, Found};
use crate::process::{Process, initialised};
use crate::{gate, graph_pageable};

/// Changes a node.
fn set(node: CUgraphNode, general: bool, sent: impl FnOnce(&Process) -> CuResult<Sent>) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    let Sent { node: sent, data, pageable } = sent(process)?;
    if let Some((copy, found)) = pageable_copy(process, node, &sent, pageable)? {
        return graph_pageable::set(process, &found, copy, pageable);
    }
    let names = conditional_names(&sent);
    let outcome = gate::call::<row::vgpuGraphNodeSetParams>((node, general, sent.encode(), data.as_slice()));
    forget_names(process, names);
    outcome
}

/// Changes a node's copy in an executable graph.
fn exec_set(
    exec: CUgraphExec,
    node: CUgraphNode,
    general: bool,
    sent: impl FnOnce(&Process) -> CuResult<Sent>,
) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    process.objects.check(exec)?;
    let Sent { node: sent, data, pageable } = sent(process)?;
    if let Some((copy, found)) = pageable_copy(process, node, &sent, pageable)? {
        return graph_pageable::exec_set(process, exec, node, &found, copy, pageable);
    }
    let names = conditional_names(&sent);
    let fields = (exec, node, general, sent.encode(), data.as_slice());
    let outcome = gate::call::<row::vgpuGraphExecNodeSetParams>(fields);
    forget_names(process, names);
    if let Node::BatchMemOp(..) = &sent {
        // Its addresses are looked at by the launch.
        crate::graph::unproven(process, exec);
    }
    outcome
}

/// The parameters of a copy for a node whose copy has, or had, an end in ordinary memory, and that node.
fn pageable_copy<'a>(
    process: &Process,
    node: CUgraphNode,
    sent: &'a Node,
    pageable: Option<Form>,
) -> CuResult<Option<(&'a MemcpyNode, Found)>> {
    let found = match sent {
        Node::Memcpy(_) | Node::Child(_) => graph_pageable::find(process, node)?,
        _ => None,
    };
    match (sent, found) {
        (Node::Memcpy(copy), Some(found)) => Ok(Some((copy, found))),
        // A copy does not become a graph.
        (_, Some(_)) => Err(CUresult::INVALID_VALUE),
        (_, None) if pageable.is_some() => {
            crate::log::once("graph memcpy to pageable", || {
                "a graph's copy between other memory cannot be changed to one of host memory that is not pinned".into()
            });
            Err(CUresult::NOT_SUPPORTED)
        }
        _ => Ok(None),
    }
}

/// Names of bodies, of which a node that is there already makes none.
fn conditional_names(node: &Node) -> &[u64] {
    match node {
        Node::Conditional(_, names) => names,
        _ => &[],
    }
}

/// cuGraphKernelNodeSetParams.
pub unsafe fn cuGraphKernelNodeSetParams(node: CUgraphNode, params: *const c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |process| unsafe { kernel_at(process, params, KERNEL_V1_BYTES) }))
}

/// cuGraphKernelNodeSetParams.
pub unsafe fn cuGraphKernelNodeSetParams_v2(node: CUgraphNode, params: *const c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |process| unsafe { kernel_at(process, params, size_of::<KernelNode>()) }))
}

/// cuGraphMemcpyNodeSetParams.
pub unsafe fn cuGraphMemcpyNodeSetParams(node: CUgraphNode, params: *const c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |process| unsafe { memcpy(process, &read(params)?, 0) }))
}

/// cuGraphMemsetNodeSetParams.
pub unsafe fn cuGraphMemsetNodeSetParams(node: CUgraphNode, params: *const c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |_| unsafe { memset_at(params, 0) }))
}

/// cuGraphEventRecordNodeSetEvent.
pub unsafe fn cuGraphEventRecordNodeSetEvent(node: CUgraphNode, event: CUevent) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |_| Ok(crate::graph_node::records(event).into())))
}

/// cuGraphEventWaitNodeSetEvent.
pub unsafe fn cuGraphEventWaitNodeSetEvent(node: CUgraphNode, event: CUevent) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |_| Ok(Node::EventWait(event.0).into())))
}

/// cuGraphBatchMemOpNodeSetParams.
pub unsafe fn cuGraphBatchMemOpNodeSetParams(node: CUgraphNode, params: *const c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(set(node, false, |_| unsafe { batch(&read(params)?) }))
}

/// cuGraphNodeSetParams.
pub unsafe fn cuGraphNodeSetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    if let Ok(Some(host)) = unsafe { host_of(params) } {
        // SAFETY: as above.
        return unsafe { crate::host_node::cuGraphHostNodeSetParams(node, host) };
    }
    // SAFETY: as above.
    finish(set(node, true, |process| unsafe { general(process, params) }))
}

/// cuGraphExecKernelNodeSetParams.
pub unsafe fn cuGraphExecKernelNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const c_void,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |process| unsafe { kernel_at(process, params, KERNEL_V1_BYTES) }))
}

/// cuGraphExecKernelNodeSetParams.
pub unsafe fn cuGraphExecKernelNodeSetParams_v2(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const c_void,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |process| unsafe {
        kernel_at(process, params, size_of::<KernelNode>())
    }))
}

/// cuGraphExecMemcpyNodeSetParams.
pub unsafe fn cuGraphExecMemcpyNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const c_void,
    ctx: CUcontext,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |process| unsafe { memcpy(process, &read(params)?, ctx.0) }))
}

/// cuGraphExecMemsetNodeSetParams.
pub unsafe fn cuGraphExecMemsetNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const c_void,
    ctx: CUcontext,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |_| unsafe { memset_at(params, ctx.0) }))
}

/// cuGraphExecChildGraphNodeSetParams.
pub unsafe fn cuGraphExecChildGraphNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    child: CUgraph,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |_| Ok(child_of(child).into())))
}

/// cuGraphExecEventRecordNodeSetEvent.
pub unsafe fn cuGraphExecEventRecordNodeSetEvent(
    exec: CUgraphExec,
    node: CUgraphNode,
    event: CUevent,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |_| Ok(crate::graph_node::records(event).into())))
}

/// cuGraphExecEventWaitNodeSetEvent.
pub unsafe fn cuGraphExecEventWaitNodeSetEvent(
    exec: CUgraphExec,
    node: CUgraphNode,
    event: CUevent,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |_| Ok(Node::EventWait(event.0).into())))
}

/// cuGraphExecBatchMemOpNodeSetParams.
pub unsafe fn cuGraphExecBatchMemOpNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const c_void,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(exec_set(exec, node, false, |_| unsafe { batch(&read(params)?) }))
}

/// cuGraphExecNodeSetParams.
pub unsafe fn cuGraphExecNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *mut c_void,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    if let Ok(Some(host)) = unsafe { host_of(params) } {
        // SAFETY: as above.
        return unsafe { crate::host_node::cuGraphExecHostNodeSetParams(exec, node, host) };
    }
    // SAFETY: as above.
    finish(exec_set(exec, node, true, |process| unsafe { general(process, params) }))
}

/// cuGraphNodeGetEnabled.
pub unsafe fn cuGraphNodeGetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: *mut u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        process.objects.check(exec)?;
        not_null(enabled)?;
        let found = match graph_pageable::find(process, node)? {
            // It cannot be otherwise, see below.
            Some(_) => 1,
            None => gate::call::<row::cuGraphNodeGetEnabled>((exec, node))?,
        };
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { enabled.write(found) };
        Ok(())
    })())
}

/// cuGraphNodeSetEnabled.
pub unsafe fn cuGraphNodeSetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        process.objects.check(exec)?;
        if graph_pageable::find(process, node)?.is_none() {
            return gate::call::<row::cuGraphNodeSetEnabled>((exec, node, enabled));
        }
        if enabled != 0 {
            return Ok(());
        }
        // The driver has a graph in its place, and graphs within graphs cannot be disabled.
        crate::log::once("graph memcpy disabled", || {
            "a graph's copy from or to host memory that is not pinned cannot be disabled".into()
        });
        Err(CUresult::NOT_SUPPORTED)
    })())
}
