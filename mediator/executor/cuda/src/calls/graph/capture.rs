//! Capture.

use std::sync::atomic::Ordering;

use cuda_api::CuResult;
use cuda_api::types::*;
use cuda_api::wire::REPLY_ITEMS_MAX;

use super::{check_edges, edges_at};
use crate::Cuda;
use crate::driver::Raw;
use crate::graph_params::list;
use crate::graphs::{CAPTURE_ACTIVE, Graph, Owner, STATUS_NONE};
use crate::lock::lock;
use crate::thread::Thread;

/// The highest CUstreamCaptureMode.
const MODE_LAST: u32 = 2;

impl Cuda {
    pub(super) fn begin_capture(&self, stream: CUstream, mode: u32) -> CuResult<()> {
        if mode > MODE_LAST {
            return Err(CUresult::INVALID_VALUE);
        }
        let stream = self.stream(stream)?;
        let _apart = self.marks.apart();
        self.driver.cuStreamBeginCapture_v2(stream.raw, mode)?;
        self.captures.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub(super) fn begin_capture_to_graph(
        &self,
        stream: CUstream,
        graph: CUgraph,
        dependencies: &[u64],
        edges: &[u64],
        mode: u32,
    ) -> CuResult<()> {
        check_edges(edges, dependencies.len())?;
        if mode > MODE_LAST {
            return Err(CUresult::INVALID_VALUE);
        }
        let stream = self.stream(stream)?;
        let mut graphs = lock(&self.graph_state);
        let graph = self.graph(graph)?;
        let nodes = graphs.raws(dependencies, graph.raw)?;
        let _apart = self.marks.apart();
        // SAFETY: lists of as many nodes of the graph and edges as it says.
        unsafe {
            self.driver.cuStreamBeginCaptureToGraph(
                stream.raw,
                graph.raw,
                nodes.as_ptr(),
                edges_at(edges),
                nodes.len(),
                mode,
            )
        }?;
        self.captures.fetch_add(1, Ordering::Release);
        graphs.captured_into.insert(stream.raw, graph);
        Ok(())
    }

    /// Ends a capture. Its graph has a name already, or gets the one that the guest proposes.
    pub(super) fn end_capture(
        &self,
        thread: &Thread,
        stream: CUstream,
        proposed: CUgraph,
    ) -> CuResult<CUgraph> {
        let context = thread.owner()?.clone();
        let stream = self.stream(stream)?;
        let mut graphs = lock(&self.graph_state);
        self.graphs.check_free(proposed)?;
        let before = self.driver.cuStreamGetCaptureInfo_v3(stream.raw);
        let (id, was) = before.map_or(
            (0, 0),
            |(status, id, raw, ..)| {
                if status == STATUS_NONE { (0, 0) } else { (id, raw) }
            },
        );
        let ended = self.driver.cuStreamEndCapture(stream.raw);
        let is_over = || {
            let one_less = |count: usize| count.checked_sub(1).filter(|_| was != 0);
            let _ = self.captures.fetch_update(Ordering::Release, Ordering::Relaxed, one_less);
        };
        match ended {
            Ok((raw,)) => {
                is_over();
                let into = graphs.captured_into.remove(&stream.raw).filter(|graph| graph.raw == raw);
                let named = graphs.named(raw).and_then(|name| Some((name, self.graphs.get(name).ok()?)));
                if let Some((name, graph)) = named {
                    if into.is_none() {
                        graph.set_owner(Owner::Guest);
                    }
                    return Ok(name);
                }
                let graph = into.unwrap_or_else(|| Graph::new(self.driver, raw, Some(context), Owner::Guest));
                self.add_graph(&mut graphs, proposed, graph, Some(id))?;
                Ok(proposed)
            }
            Err(error) => {
                // It may go on (another stream's or thread's). If not, its graph is gone, unless it was there before.
                let ended =
                    self.driver.cuStreamIsCapturing(stream.raw).is_ok_and(|(status,)| status == STATUS_NONE);
                if ended {
                    is_over();
                }
                if ended && graphs.captured_into.remove(&stream.raw).is_none() && was != 0 {
                    if let Some(name) = graphs.named(was) {
                        let _ = self.graphs.remove(name);
                    }
                    self.forget_belonging(&mut graphs, |graph, _| graph.raw == was);
                    graphs.forget_graph(was);
                }
                Err(error)
            }
        }
    }

    /// A capture's state; its graph gets the name that the guest proposes, if it has none.
    pub(super) fn capture_info(
        &self,
        thread: &Thread,
        stream: CUstream,
        proposed: Option<CUgraph>,
    ) -> CuResult<(CaptureInfo, Vec<u64>, Vec<u64>)> {
        let handle = stream;
        let stream = self.stream(handle)?;
        let mut graphs = lock(&self.graph_state);
        let (status, id, raw, dependencies, edges, count) =
            self.driver.cuStreamGetCaptureInfo_v3(stream.raw)?;
        let mut info = CaptureInfo { id, graph: 0, status, reserved: 0 };
        if count > REPLY_ITEMS_MAX / 2 {
            self.warn_once(&format!("cuStreamGetCaptureInfo: {count} dependencies are too many for a reply"));
            return Err(CUresult::NOT_SUPPORTED);
        }
        // SAFETY: lists of `count` that the driver keeps until the stream's next call, which is this thread's to make:
        // other threads of the guest do not share a capturing stream. CUgraphEdgeData is 8 bytes of numbers.
        let (nodes, edges) = unsafe { (list::<Raw>(dependencies, count), list::<[u8; 8]>(edges, count)) };
        let edges = edges.iter().map(|edge| u64::from_le_bytes(*edge)).collect();
        if raw != 0 {
            graphs.see_capture(raw, Some(id));
            if let Some(proposed) = proposed {
                let context = thread.owner().ok().cloned();
                let owner = Owner::Capture { stream: self.stream(handle)?, id };
                let make = || Graph::new(self.driver, raw, context, owner);
                info.graph = self.borrow_graph(&mut graphs, raw, proposed, Some(id), make)?.0;
            }
        }
        let names: CuResult<Vec<u64>> = nodes.iter().map(|node| graphs.name(*node, raw)).collect();
        Ok((info, names?, edges))
    }

    pub(super) fn update_capture_dependencies(
        &self,
        stream: CUstream,
        dependencies: &[u64],
        edges: &[u64],
        flags: u32,
    ) -> CuResult<()> {
        check_edges(edges, dependencies.len())?;
        let stream = self.stream(stream)?;
        let graphs = lock(&self.graph_state);
        let (status, _, raw, ..) = self.driver.cuStreamGetCaptureInfo_v3(stream.raw)?;
        // Where nothing is captured, the driver says so before it looks at nodes.
        let dependencies = if status == CAPTURE_ACTIVE { dependencies } else { &[] };
        let mut nodes = if dependencies.is_empty() { Vec::new() } else { graphs.raws(dependencies, raw)? };
        let count = nodes.len();
        // SAFETY: lists of as many nodes of the captured graph and edges as it says.
        unsafe {
            self.driver.cuStreamUpdateCaptureDependencies_v2(
                stream.raw,
                nodes.as_mut_ptr(),
                if count == 0 { std::ptr::null() } else { edges_at(edges) },
                count,
                flags,
            )
        }
    }
}
