//! Functions of the guest's, where the driver comes to them.
//!
//! The driver gets functions of this process that hand the guest's on to the guest ([`HostFunctions`]). What it passes them
//! is the guest's number in place of an address: nothing is ever followed, so a guest may say what it likes, and nothing has
//! to be kept alive.

use std::ffi::c_void;
use std::sync::{Arc, LazyLock};

use cuda_api::CuResult;
use cuda_api::graph_node::kind;
use cuda_api::host_functions::{HostFunctions, Next};
use cuda_api::types::*;

use crate::Cuda;
use crate::driver::{HostNodeParams, Raw};
use crate::graphs::Graphs;
use crate::lock::lock;
use crate::user_objects::UserObject;

/// CU_USER_OBJECT_NO_DESTRUCTOR_SYNC: the only way to make one.
const NO_DESTRUCTOR_SYNC: u32 = 1;
/// CU_GRAPH_USER_OBJECT_MOVE: the graph takes the caller's reference over.
const MOVE: u32 = 1;
/// CU_STREAM_CAPTURE_STATUS_ACTIVE.
const CAPTURE_ACTIVE: u32 = 1;

/// Of this process: the driver's threads get no pointer to a session, and there is one.
static FUNCTIONS: LazyLock<HostFunctions> = LazyLock::new(HostFunctions::default);

/// The session's functions.
pub(crate) fn functions() -> &'static HostFunctions {
    &FUNCTIONS
}

/// A guest's number in place of an address.
pub(crate) fn data_of(token: u64) -> *mut c_void {
    // Addresses are 64 bits wide wherever the driver runs.
    #[allow(clippy::cast_possible_truncation)]
    std::ptr::without_provenance_mut(token as usize)
}

fn params_of(token: u64) -> HostNodeParams {
    HostNodeParams { function: Some(run), data: data_of(token).addr() }
}

/// A host function. The stream, or the graph's branch, goes on when it returns.
pub(crate) unsafe extern "C" fn run(data: *mut c_void) {
    FUNCTIONS.run(data.addr() as u64, CUresult::SUCCESS);
}

unsafe extern "C" fn call_back(_: Raw, status: u32, data: *mut c_void) {
    FUNCTIONS.run(data.addr() as u64, CUresult(status));
}

/// A user object's destructor: the function has no graph any more, or the guest's own destructor is to be called.
unsafe extern "C" fn gone(data: *mut c_void) {
    FUNCTIONS.gone(data.addr() as u64);
}

impl Cuda {
    /// Puts a function of the guest's into a stream. True: into the graph that is being captured there.
    pub(crate) fn launch_host_function(&self, stream: CUstream, token: u64) -> CuResult<bool> {
        let stream = self.stream(stream)?;
        let graph = match self.driver.cuStreamGetCaptureInfo_v3(stream.raw) {
            Ok((CAPTURE_ACTIVE, _, graph, ..)) => Some(graph),
            // Whether the function is to be kept cannot be said.
            Err(CUresult::NOT_SUPPORTED) => return Err(CUresult::NOT_SUPPORTED),
            // What else is wrong with the stream the launch says.
            _ => None,
        };
        // SAFETY: a function that takes any data, and data that is a number.
        unsafe { self.driver.cuLaunchHostFunc(stream.raw, run, data_of(token)) }?;
        if let Some(graph) = graph {
            self.tie(graph, token);
        }
        Ok(graph.is_some())
    }

    /// Tells the guest when neither this graph nor anything that was made from it has the function any more.
    pub(crate) fn tie(&self, graph: Raw, token: u64) {
        // SAFETY: as above.
        let tied = unsafe { self.driver.cuUserObjectCreate(data_of(token), gone, 1, NO_DESTRUCTOR_SYNC) }
            .and_then(|(object,)| self.driver.cuGraphRetainUserObject(graph, object, 1, MOVE));
        if let Err(error) = tied {
            // The object, if there is one, is not released: its end would be taken for the function's.
            log::warn!("a graph's host function is kept for the session's life: {error}");
        }
    }

    pub(crate) fn add_callback(&self, stream: CUstream, token: u64) -> CuResult<()> {
        let stream = self.stream(stream)?;
        // SAFETY: a function that takes any data, and data that is a number.
        unsafe { self.driver.cuStreamAddCallback(stream.raw, call_back, data_of(token), 0) }
    }

    pub(crate) fn add_host_node(&self, graph: CUgraph, dependencies: &[u64], token: u64) -> CuResult<u64> {
        let mut graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        let after = graphs.raws(dependencies, graph.raw)?;
        let (at, count) = (after.as_ptr(), after.len());
        let params = params_of(token);
        // SAFETY: nodes of the graph, as many as are counted, and parameters in a local.
        let (node,) = unsafe { self.driver.cuGraphAddHostNode(graph.raw, at, count, &raw const params) }?;
        self.tie(graph.raw, token);
        graphs.name(node, graph.raw).inspect_err(|_| {
            // What cannot be named is not kept: the guest sees nothing of it.
            let _ = self.driver.cuGraphDestroyNode(node);
        })
    }

    /// Only a host node has a host function.
    fn host_node(&self, graphs: &Graphs, node: u64) -> CuResult<Raw> {
        let (node, _) = self.node(graphs, CUgraphNode(node))?;
        match self.driver.cuGraphNodeGetType(node)? {
            (kind::HOST,) => Ok(node),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }

    pub(crate) fn host_node_function(&self, node: u64) -> CuResult<u64> {
        let graphs = lock(&self.graph_state);
        let (params,) = self.driver.cuGraphHostNodeGetParams(self.host_node(&graphs, node)?)?;
        Ok(params.data as u64)
    }

    pub(crate) fn set_host_node(&self, node: u64, token: u64) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let node = self.host_node(&graphs, node)?;
        let params = params_of(token);
        // SAFETY: parameters in a local.
        unsafe { self.driver.cuGraphHostNodeSetParams(node, &raw const params) }
    }

    pub(crate) fn set_exec_host_node(&self, exec: CUgraphExec, node: u64, token: u64) -> CuResult<()> {
        let graphs = lock(&self.graph_state);
        let (exec, node) = (self.graph_exec(exec)?, self.host_node(&graphs, node)?);
        let params = params_of(token);
        // SAFETY: parameters in a local.
        unsafe { self.driver.cuGraphExecHostNodeSetParams(exec.raw, node, &raw const params) }
    }

    pub(crate) fn create_user_object(
        &self,
        object: CUuserObject,
        token: u64,
        count: u32,
        flags: u32,
    ) -> CuResult<()> {
        drop(self.user_objects.remove_if(UserObject::is_over));
        self.user_objects.check_free(object)?;
        // SAFETY: a destructor that takes any data, and data that is a number.
        let (raw,) = unsafe { self.driver.cuUserObjectCreate(data_of(token), gone, count, flags) }?;
        self.user_objects.add(object, Arc::new(UserObject::new(self.driver, raw, count)))
    }

    pub(crate) fn next_host_function(&self, done: u64) -> (u64, u64, u32, bool) {
        let Next { run, token, status, gone } = FUNCTIONS.next(done);
        (run, token, status, gone)
    }
}
