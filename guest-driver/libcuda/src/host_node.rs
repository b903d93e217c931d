//! Host functions as nodes of graphs, and user objects: both are functions of the program's that the device calls for, by the
//! numbers of [`crate::host_function`].
//!
//! The function of a node is kept until the worker says that no graph has it any more; one that came by a change of a node's
//! parameters is kept for good, as nothing tells when its node goes.

use std::ffi::c_void;

use cuda_api::calls::graph::row;
use cuda_api::guest::{array, finish, not_null};
use cuda_api::types::{CUgraph, CUgraphExec, CUgraphNode, CUuserObject};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::host_function::{Data, Function, add, forget, get, host_function, start};
use crate::process::initialised;

/// CUDA_HOST_NODE_PARAMS.
#[repr(C)]
#[derive(Clone, Copy)]
struct HostNodeParams {
    function: *mut c_void,
    data: *mut c_void,
}

/// The function that a program's parameters name, with a number of its own.
fn token_of(params: *const c_void) -> CuResult<u64> {
    not_null(params.cast_mut())?;
    // SAFETY: not NULL; CUDA's contract: the structure.
    let HostNodeParams { function, data } = unsafe { params.cast::<HostNodeParams>().read_unaligned() };
    Ok(add(Function::Many(host_function(function)?, Data(data))))
}

/// Sends a call that names a new function; one that fails has none.
fn with_function<R>(params: *const c_void, call: impl FnOnce(u64) -> CuResult<R>) -> CuResult<R> {
    let process = initialised()?;
    process.alive()?;
    let token = token_of(params)?;
    start(process).and_then(|()| call(token)).inspect_err(|_| forget(token))
}

/// cuGraphAddHostNode.
pub unsafe fn cuGraphAddHostNode(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
) -> CUresult {
    // SAFETY: CUDA's contract is the callee's.
    finish(unsafe { add_node(to, graph, dependencies, count, params) })
}

/// Adds a host function to a graph.
///
/// # Errors
/// As cuGraphAddHostNode.
///
/// # Safety
/// `to` is NULL or has room for a handle; `params` is NULL or points to a CUDA_HOST_NODE_PARAMS; as many dependencies as are counted.
pub(crate) unsafe fn add_node(
    to: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const c_void,
) -> CuResult<()> {
    not_null(to)?;
    initialised()?.objects.check(graph)?;
    // SAFETY: this function's contract.
    let dependencies = unsafe { array(dependencies, count as u64) }?.iter().map(|node| node.0).collect();
    let node =
        with_function(params, |token| gate::call::<row::cuGraphAddHostNode>((graph, dependencies, token)))?;
    // SAFETY: not NULL; room for a handle by this function's contract.
    unsafe { to.write(CUgraphNode(node)) };
    Ok(())
}

/// cuGraphHostNodeGetParams.
pub unsafe fn cuGraphHostNodeGetParams(node: CUgraphNode, params: *mut c_void) -> CUresult {
    finish((|| {
        initialised()?;
        not_null(params)?;
        let token = gate::call::<row::cuGraphHostNodeGetParams>((node.0,))?;
        let Some(Function::Many(function, Data(data))) = get(token) else {
            return Err(CUresult::UNKNOWN);
        };
        let function = function as *mut c_void;
        // SAFETY: not NULL; room for the structure by CUDA's contract.
        unsafe { params.cast::<HostNodeParams>().write_unaligned(HostNodeParams { function, data }) };
        Ok(())
    })())
}

/// cuGraphHostNodeSetParams.
pub unsafe fn cuGraphHostNodeSetParams(node: CUgraphNode, params: *const c_void) -> CUresult {
    finish(with_function(params, |token| gate::call::<row::cuGraphHostNodeSetParams>((node.0, token))))
}

/// cuGraphExecHostNodeSetParams.
pub unsafe fn cuGraphExecHostNodeSetParams(
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const c_void,
) -> CUresult {
    finish((|| {
        initialised()?.objects.check(exec)?;
        with_function(params, |token| gate::call::<row::cuGraphExecHostNodeSetParams>((exec, node.0, token)))
    })())
}

/// cuUserObjectCreate.
pub unsafe fn cuUserObjectCreate(
    to: *mut CUuserObject,
    data: *mut c_void,
    destroy: *mut c_void,
    count: u32,
    flags: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let destroy = host_function(destroy)?;
        start(process)?;
        let object: CUuserObject = process.objects.insert_plain(0)?;
        let token = add(Function::Destructor(object, destroy, Data(data)));
        if let Err(error) = gate::call::<row::cuUserObjectCreate>((object, token, count, flags)) {
            forget(token);
            process.objects.remove_plain(object);
            return Err(error);
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(object) };
        Ok(())
    })())
}
