//! Copies of any shape, batches, and copies between contexts. All memory of a session is this process's: a copy between devices is
//! an ordinary one, but for its turn.

use cuda_api::CuResult;
use cuda_api::host::{Access, Base};
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Filled};

use crate::Soft;
use crate::budget::{Hold, QUEUED_BYTES_MAX};
use crate::calls::copy::{AT_ONCE_BYTES_MAX, place, source};
use crate::shape;
use crate::soft::Thread;
use crate::streams::StreamId;
use crate::work::Work;

/// CUmemcpySrcAccessOrder: the sources are read before the call returns.
const DURING_THE_CALL: u32 = 2;

impl Soft {
    /// The shape with its arrays as memory. Pitches that are left open are those of rows without gaps.
    fn flat(&self, shape: &CopyShape) -> CuResult<CopyShape> {
        let (dst, src) = (self.flattened(&shape.dst, shape)?, self.flattened(&shape.src, shape)?);
        let tight = |end: CopyEnd| end.tight(shape.width, shape.height);
        Ok(CopyShape { dst: tight(dst), src: tight(src), ..*shape })
    }

    /// An end is memory of the session's for all of the shape.
    fn check_end(&self, end: &CopyEnd, of: &CopyShape, access: Access) -> CuResult<()> {
        let (start, len) = shape::extent(end, of)?;
        self.check_range(start, len, access)
    }

    /// Queues a private copy of the guest's bytes.
    pub(crate) fn queue_in(
        &self,
        stream: StreamId,
        from: *const u8,
        len: u64,
        work: impl FnOnce(Box<[u8]>, Hold) -> Work,
    ) -> CuResult<()> {
        if len > QUEUED_BYTES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let bytes = usize::try_from(len).map_err(|_| CUresult::INVALID_VALUE)?;
        let lost = || self.device.alive().is_err();
        let hold = self.device.queued.take(len, lost).ok_or(CUresult::OUT_OF_MEMORY)?;
        let mut copy = Vec::with_capacity(bytes);
        // SAFETY: room for as many bytes was just reserved, the caller gave a readable place of that length; bytes are
        // initialised by the copy. The source may change meanwhile, which leaves unspecified bytes, not uninitialised ones.
        unsafe {
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), bytes);
            copy.set_len(bytes);
        }
        self.device.submit(stream, work(copy.into_boxed_slice(), hold), &[]).map(|_| ())
    }

    pub(crate) fn shape_in(
        &self,
        thread: &Thread,
        shape: &CopyShape,
        bytes: &Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        let shape = &self.flat(shape)?;
        let len = shape::bytes(shape)?;
        let from = source(thread, bytes, len)?;
        self.check_end(&shape.dst, shape, Access::Write)?;
        if let Some(_turn) = self.device.begin(stream) {
            // SAFETY: `source` gave all bytes of the shape, readable while the call runs.
            return unsafe { shape::copy_in(&self.device.memory, shape, from) };
        }
        self.queue_in(stream, from, len, |bytes, hold| Work::ShapeIn { shape: *shape, bytes, hold })
    }

    pub(crate) fn shape_out(
        &self,
        thread: &Thread,
        shape: &CopyShape,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        let (stream, _) = self.stream(thread, stream)?;
        let shape = &self.flat(shape)?;
        self.check_end(&shape.src, shape, Access::Read)?;
        let mut reply = Vec::new();
        let to = place(thread, &mut reply, to, shape::bytes(shape)?)?;
        let _turn = self.device.turn(stream)?;
        // SAFETY: `place` gave room for all bytes of the shape, which stays while the call runs.
        unsafe { shape::copy_out(&self.device.memory, shape, to) }?;
        Ok(reply)
    }

    pub(crate) fn shape_between(&self, thread: &Thread, shape: &CopyShape, stream: CUstream) -> CuResult<()> {
        let (stream, _) = self.stream(thread, stream)?;
        let shape = &self.flat(shape)?;
        self.check_end(&shape.dst, shape, Access::Write)?;
        self.check_end(&shape.src, shape, Access::Read)?;
        if shape.flags & CopyShape::SYNCHRONOUS != 0 {
            let contexts = self.contexts_by([CUcontext(shape.dst.context), CUcontext(shape.src.context)])?;
            let _turns = self.turns(thread, &contexts)?;
            return shape::copy(&self.device.memory, shape);
        }
        let at_once = shape::bytes(shape)? <= AT_ONCE_BYTES_MAX;
        self.device.run(stream, Work::Shape(*shape), at_once)
    }

    pub(crate) fn batch(&self, thread: &Thread, copies: &[BatchCopy], stream: CUstream) -> CuResult<()> {
        let (id, _) = self.stream(thread, stream)?;
        for copy in copies {
            self.check_range(copy.dst, copy.len, Access::Write)?;
            self.check_range(copy.src, copy.len, Access::Read)?;
        }
        for copy in copies.iter().filter(|copy| copy.len != 0) {
            let work = Work::Copy { to: copy.dst, from: copy.src, len: copy.len };
            self.device.run(id, work, copy.len <= AT_ONCE_BYTES_MAX)?;
        }
        if copies.iter().any(|copy| copy.order == DURING_THE_CALL) {
            drop(self.device.turn(id)?);
        }
        Ok(())
    }
}
