//! Copies and fills.
//!
//! A copy that waits for its caller takes its turn in the stream and runs on the calling thread, straight between staging
//! and device memory. One that need not wait is carried out at once where its stream is idle, and is queued with a copy
//! of the guest's bytes where not.

use std::collections::BTreeSet;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::copy::Host;
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Filled};

use crate::Soft;
use crate::context::Context;
use crate::device::Turn;
use crate::lock::read;
use crate::soft::Thread;
use crate::streams::StreamId;
use crate::transfer::{self, Pattern};
use crate::work::Work;

/// Copies and fills up to this size are carried out by the calling thread where the stream is idle. Bytes.
pub(crate) const AT_ONCE_BYTES_MAX: u64 = 256 << 10;

/// Where the guest's bytes lie: valid until the call returns.
pub(crate) fn source(thread: &Thread, bytes: &Bulk<'_>, len: u64) -> CuResult<*const u8> {
    if bytes.len() != len {
        return Err(CUresult::INVALID_VALUE);
    }
    match bytes {
        Bulk::Inline(bytes) => Ok(bytes.as_ptr()),
        Bulk::Staged { offset, len } => {
            let staging = thread.staging.as_ref().ok_or(CUresult::INVALID_VALUE)?;
            staging.at(*offset, *len).map(|p| p.cast_const()).ok_or(CUresult::INVALID_VALUE)
        }
    }
}

/// Where bytes for the guest go: the reply, or staging. Valid until the call returns.
pub(crate) fn place(thread: &Thread, reply: &mut Vec<u8>, to: Fill, len: u64) -> CuResult<*mut u8> {
    if to.len() != len {
        return Err(CUresult::INVALID_VALUE);
    }
    match to {
        Fill::Inline { len } => {
            reply.resize(usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?, 0);
            Ok(reply.as_mut_ptr())
        }
        Fill::Staged { offset, len } => {
            let staging = thread.staging.as_ref().ok_or(CUresult::INVALID_VALUE)?;
            staging.at(offset, len).ok_or(CUresult::INVALID_VALUE)
        }
    }
}

impl Soft {
    fn copy_out(&self, thread: &Thread, stream: StreamId, src: u64, len: u64, to: Fill) -> CuResult<Filled> {
        let mut reply = Vec::new();
        let place = place(thread, &mut reply, to, len)?;
        let _turn = self.device.turn(stream)?;
        // SAFETY: `place` gave room for `len` bytes, which stays while the call runs.
        unsafe { transfer::copy_out(&self.device.memory, place, src, len) }?;
        Ok(reply)
    }

    fn copy_within(&self, stream: StreamId, to: u64, from: u64, len: u64) -> CuResult<()> {
        if len == 0 {
            return Ok(());
        }
        self.device.run(stream, Work::Copy { to, from, len }, len <= AT_ONCE_BYTES_MAX)
    }

    /// The turns of the default streams of the current context and of these others: what is done under them is in turn with all work of
    /// each. Always taken in one order, so that two callers do not wait for each other.
    pub(crate) fn turns(&self, thread: &Thread, others: &[Arc<Context>]) -> CuResult<Vec<Turn<'_>>> {
        let own = self.context(thread)?.legacy;
        let streams: BTreeSet<StreamId> = others.iter().map(|c| c.legacy).chain([own]).collect();
        streams.into_iter().map(|stream| self.device.turn(stream)).collect()
    }

    /// A copy between contexts without a stream.
    fn copy_between(
        &self,
        thread: &Thread,
        contexts: &[Arc<Context>],
        to: u64,
        from: u64,
        len: u64,
    ) -> CuResult<()> {
        let own = self.context(thread)?;
        if contexts.iter().all(|context| context.id == own.id) {
            return self.copy_within(own.legacy, to, from, len);
        }
        let _turns = self.turns(thread, contexts)?;
        transfer::copy(&self.device.memory, to, from, len)
    }

    /// Contexts by their handles.
    pub(crate) fn contexts_by(&self, handles: [CUcontext; 2]) -> CuResult<[Arc<Context>; 2]> {
        let contexts = read(&self.contexts);
        let [a, b] = handles.map(|handle| contexts.by_handle(handle));
        Ok([a?, b?])
    }

    /// The contexts of a copy between contexts. NULL is that of the memory, if it is of one: where memory lies its address says.
    fn peers(&self, ends: [(CUcontext, u64); 2]) -> CuResult<Vec<Arc<Context>>> {
        let mut peers = Vec::new();
        for (handle, address) in ends {
            if handle.is_null() {
                peers.extend(self.contexts_at([address]));
            } else {
                peers.push(read(&self.contexts).by_handle(handle)?);
            }
        }
        Ok(peers)
    }

    /// The contexts whose memory lies at these addresses.
    fn contexts_at<const N: usize>(&self, addresses: [u64; N]) -> Vec<Arc<Context>> {
        let contexts = read(&self.contexts);
        let at = |address| contexts.current(self.device.memory.context_at(address)?).ok().flatten();
        addresses.into_iter().filter_map(at).collect()
    }

    fn fill(&self, stream: StreamId, fill: transfer::Fill) -> CuResult<()> {
        fill.check()?;
        let len = fill.extent()?;
        if len == 0 || fill.width == 0 {
            return Ok(());
        }
        self.device.run(stream, Work::Fill(fill), len <= AT_ONCE_BYTES_MAX)
    }
}

fn row(start: u64, pattern: Pattern, n: usize) -> transfer::Fill {
    transfer::Fill { start, pitch: 0, pattern, width: n as u64, height: 1 }
}

fn rows(start: u64, pitch: usize, pattern: Pattern, width: usize, height: usize) -> transfer::Fill {
    transfer::Fill { start, pitch: pitch as u64, pattern, width: width as u64, height: height as u64 }
}

impl Host for Soft {
    fn cuMemcpyHtoD_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        len: usize,
        bytes: Bulk<'_>,
    ) -> CuResult<()> {
        let from = source(thread, &bytes, len as u64)?;
        let _turn = self.device.turn(self.context(thread)?.legacy)?;
        // SAFETY: `source` gave `len` bytes that stay readable while the call runs.
        unsafe { transfer::copy_in(&self.device.memory, dst, from, len as u64) }
    }

    fn cuMemcpyDtoH_v2(
        &self,
        thread: &mut Thread,
        src: CUdeviceptr,
        len: usize,
        to: Fill,
    ) -> CuResult<Filled> {
        let stream = self.context(thread)?.legacy;
        self.copy_out(thread, stream, src, len as u64, to)
    }

    fn cuMemcpyDtoD_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        src: CUdeviceptr,
        n: usize,
    ) -> CuResult<()> {
        let contexts = self.contexts_at([dst, src]);
        self.copy_between(thread, &contexts, dst, src, n as u64)
    }

    fn cuMemcpyHtoDAsync_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        len: usize,
        bytes: Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        let from = source(thread, &bytes, len as u64)?;
        if len == 0 {
            return Ok(());
        }
        if let Some(_turn) = self.device.begin(stream) {
            // SAFETY: `source` gave `len` bytes that stay readable while the call runs.
            return unsafe { transfer::copy_in(&self.device.memory, dst, from, len as u64) };
        }
        self.queue_in(stream, from, len as u64, |bytes, hold| Work::CopyIn { to: dst, bytes, hold })
    }

    fn cuMemcpyDtoHAsync_v2(
        &self,
        thread: &mut Thread,
        src: CUdeviceptr,
        len: usize,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        let (stream, _) = self.stream(thread, stream)?;
        self.copy_out(thread, stream, src, len as u64, to)
    }

    fn cuMemcpyDtoDAsync_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        src: CUdeviceptr,
        n: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.copy_within(self.stream(thread, stream)?.0, dst, src, n as u64)
    }

    fn vgpuCopyIn(
        &self,
        thread: &mut Thread,
        shape: &CopyShape,
        bytes: Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        self.shape_in(thread, shape, &bytes, stream)
    }

    fn vgpuCopyOut(
        &self,
        thread: &mut Thread,
        shape: &CopyShape,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        self.shape_out(thread, shape, to, stream)
    }

    fn vgpuCopyBetween(&self, thread: &mut Thread, shape: &CopyShape, stream: CUstream) -> CuResult<()> {
        self.shape_between(thread, shape, stream)
    }

    fn vgpuCopyBatch(
        &self,
        thread: &mut Thread,
        copies: &[BatchCopy],
        _: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.batch(thread, copies, stream)
    }

    fn cuMemcpyPeer(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        to: CUcontext,
        src: CUdeviceptr,
        from: CUcontext,
        n: usize,
    ) -> CuResult<()> {
        let contexts = self.peers([(to, dst), (from, src)])?;
        self.copy_between(thread, &contexts, dst, src, n as u64)
    }

    fn cuMemcpyPeerAsync(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        to: CUcontext,
        src: CUdeviceptr,
        from: CUcontext,
        n: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.peers([(to, dst), (from, src)])?;
        self.copy_within(self.stream(thread, stream)?.0, dst, src, n as u64)
    }

    fn vgpuArrayIn(
        &self,
        thread: &mut Thread,
        array: CUarray,
        offset: usize,
        bytes: Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        self.array_in(thread, array, offset, &bytes, stream)
    }

    fn vgpuArrayOut(
        &self,
        thread: &mut Thread,
        array: CUarray,
        offset: usize,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        self.array_out(thread, array, offset, to, stream)
    }

    fn vgpuArrayFromHost(
        &self,
        thread: &mut Thread,
        array: CUarray,
        offset: usize,
        src: CUdeviceptr,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.memory_to_array(thread, array, offset, src, len, stream)
    }

    fn vgpuArrayToHost(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        array: CUarray,
        offset: usize,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.array_to_memory(thread, dst, array, offset, len, stream)
    }

    fn cuMemsetD8_v2(&self, thread: &mut Thread, dst: CUdeviceptr, value: u8, n: usize) -> CuResult<()> {
        self.fill(self.context(thread)?.legacy, row(dst, Pattern::Bytes(value), n))
    }

    fn cuMemsetD16_v2(&self, thread: &mut Thread, dst: CUdeviceptr, value: u16, n: usize) -> CuResult<()> {
        self.fill(self.context(thread)?.legacy, row(dst, Pattern::Halves(value), n))
    }

    fn cuMemsetD32_v2(&self, thread: &mut Thread, dst: CUdeviceptr, value: u32, n: usize) -> CuResult<()> {
        self.fill(self.context(thread)?.legacy, row(dst, Pattern::Words(value), n))
    }

    fn cuMemsetD8Async(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        value: u8,
        n: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.fill(self.stream(thread, stream)?.0, row(dst, Pattern::Bytes(value), n))
    }

    fn cuMemsetD16Async(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        value: u16,
        n: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.fill(self.stream(thread, stream)?.0, row(dst, Pattern::Halves(value), n))
    }

    fn cuMemsetD32Async(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        value: u32,
        n: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.fill(self.stream(thread, stream)?.0, row(dst, Pattern::Words(value), n))
    }

    fn cuMemsetD2D8_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
    ) -> CuResult<()> {
        self.fill(self.context(thread)?.legacy, rows(dst, pitch, Pattern::Bytes(value), width, height))
    }

    fn cuMemsetD2D16_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
    ) -> CuResult<()> {
        self.fill(self.context(thread)?.legacy, rows(dst, pitch, Pattern::Halves(value), width, height))
    }

    fn cuMemsetD2D32_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
    ) -> CuResult<()> {
        self.fill(self.context(thread)?.legacy, rows(dst, pitch, Pattern::Words(value), width, height))
    }

    fn cuMemsetD2D8Async(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.fill(self.stream(thread, stream)?.0, rows(dst, pitch, Pattern::Bytes(value), width, height))
    }

    fn cuMemsetD2D16Async(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.fill(self.stream(thread, stream)?.0, rows(dst, pitch, Pattern::Halves(value), width, height))
    }

    fn cuMemsetD2D32Async(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        self.fill(self.stream(thread, stream)?.0, rows(dst, pitch, Pattern::Words(value), width, height))
    }
}
