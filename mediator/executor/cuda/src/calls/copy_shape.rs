//! Copies of any shape and batches of copies. Each end is memory of the session's for its whole extent, one of its arrays, or
//! rows without gaps in the frame or in staging; the driver gets it in a structure that is made here.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::host::Access;
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Filled};

use crate::Cuda;
use crate::calls::copy::{place, source};
use crate::context::{Context, number};
use crate::driver::Raw;
use crate::lock::read;
use crate::objects::Array;
use crate::thread::Thread;

/// Copies in a frame at most: the lists for the driver are made of them. (A frame holds fewer.)
const BATCH_MAX: usize = 4096;

/// An end as the driver wants it, with what must stay while it has it.
struct End {
    end: Copy3dEnd,
    _array: Option<Arc<Array>>,
    context: Option<Arc<Context>>,
}

fn size(value: u64) -> CuResult<usize> {
    usize::try_from(value).map_err(|_| CUresult::INVALID_VALUE)
}

/// Rows without gaps at an address of this process.
fn packed(shape: &CopyShape, at: *const c_void) -> CuResult<Copy3dEnd> {
    Ok(Copy3dEnd {
        memory_type: memory_type::HOST,
        host: at.expose_provenance() as u64,
        pitch: size(shape.width)?,
        rows: size(shape.height)?,
        ..Copy3dEnd::default()
    })
}

/// The bytes of all rows.
fn bytes(shape: &CopyShape) -> CuResult<u64> {
    cuda_api::wire::product(&[shape.width, shape.height, shape.depth])
}

fn parameters(shape: &CopyShape, dst: Copy3dEnd, src: Copy3dEnd) -> CuResult<CUDA_MEMCPY3D> {
    Ok(CUDA_MEMCPY3D {
        src,
        dst,
        width: size(shape.width)?,
        height: size(shape.height)?,
        depth: size(shape.depth)?,
    })
}

impl Cuda {
    /// A context of the session's by its handle.
    pub(crate) fn context_by(&self, handle: CUcontext) -> CuResult<Arc<Context>> {
        let context = read(&self.contexts).get(number(handle)?)?;
        if context.alive() { Ok(context) } else { Err(CUresult::CONTEXT_IS_DESTROYED) }
    }

    fn end(&self, end: &CopyEnd, shape: &CopyShape, access: Access) -> CuResult<End> {
        let context = match end.context {
            0 => None,
            handle => Some(self.context_by(CUcontext(handle))?),
        };
        let mut found = Copy3dEnd {
            x: size(end.x)?,
            y: size(end.y)?,
            z: size(end.z)?,
            lod: size(end.lod.into())?,
            pitch: size(end.pitch)?,
            rows: size(end.rows)?,
            context: context.as_ref().map_or(0, |context| context.raw as u64),
            ..Copy3dEnd::default()
        };
        let array = match end.kind {
            CopyEnd::ADDRESS => {
                // The place of every row by the formula that CUDA documents: the driver's is the same.
                let (start, len) = end.extent(shape.width, shape.height, shape.depth)?;
                self.memory.check(start, len, access)?;
                (found.memory_type, found.device) = (memory_type::UNIFIED, end.at);
                None
            }
            CopyEnd::ARRAY => {
                let array = self.array(CUarray(end.at))?;
                (found.memory_type, found.array) = (memory_type::ARRAY, array.raw as u64);
                Some(array)
            }
            _ => return Err(CUresult::INVALID_VALUE),
        };
        Ok(End { end: found, _array: array, context })
    }

    /// What came in a batch cannot be captured.
    fn may_be_captured(&self, shape: &CopyShape, stream: Raw) -> CuResult<()> {
        if shape.flags & CopyShape::OF_A_BATCH == 0 { Ok(()) } else { self.not_capturing(stream) }
    }

    pub(crate) fn shape_in(
        &self,
        thread: &mut Thread,
        shape: &CopyShape,
        from: &Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        let stream = self.stream(stream)?;
        let dst = self.end(&shape.dst, shape, Access::Write)?;
        let (from, staged) = source(self, thread, from, bytes(shape)?)?;
        self.not_capturing(stream.raw)?;
        let copy = parameters(shape, Copy3dEnd { context: 0, ..dst.end }, packed(shape, from)?)?;
        // SAFETY: the source has all bytes of the shape: in the frame, which the driver has taken when it returns, or in staging,
        // which stays mapped and is waited for below. The destination is this session's for its whole extent, or an array.
        unsafe { self.driver.cuMemcpy3DAsync_v2(&raw const copy, stream.raw) }?;
        if staged { self.driver.cuStreamSynchronize(stream.raw) } else { Ok(()) }
    }

    pub(crate) fn shape_out(
        &self,
        thread: &mut Thread,
        shape: &CopyShape,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        let stream = self.stream(stream)?;
        let src = self.end(&shape.src, shape, Access::Read)?;
        let mut reply = Vec::new();
        let (to, staged) = place(self, thread, &mut reply, to, bytes(shape)?)?;
        self.not_capturing(stream.raw)?;
        let copy = parameters(shape, packed(shape, to)?, Copy3dEnd { context: 0, ..src.end })?;
        // SAFETY: room for all bytes of the shape: pageable, which the driver has written when it returns, or in staging, which
        // stays mapped and is waited for below. The source is this session's for its whole extent, or an array.
        unsafe { self.driver.cuMemcpy3DAsync_v2(&raw const copy, stream.raw) }?;
        if staged {
            self.driver.cuStreamSynchronize(stream.raw)?;
        }
        Ok(reply)
    }

    pub(crate) fn shape_between(&self, shape: &CopyShape, stream: CUstream) -> CuResult<()> {
        let stream = self.stream(stream)?;
        let dst = self.end(&shape.dst, shape, Access::Write)?;
        let src = self.end(&shape.src, shape, Access::Read)?;
        self.may_be_captured(shape, stream.raw)?;
        if dst.context.is_none() || src.context.is_none() {
            let copy =
                parameters(shape, Copy3dEnd { context: 0, ..dst.end }, Copy3dEnd { context: 0, ..src.end })?;
            // SAFETY: both ends are this session's for their whole extent, or arrays.
            return unsafe { self.driver.cuMemcpy3DAsync_v2(&raw const copy, stream.raw) };
        }
        let copy = parameters(shape, dst.end, src.end)?;
        // SAFETY: as above; the contexts are this session's, and alive.
        unsafe {
            if shape.flags & CopyShape::SYNCHRONOUS != 0 {
                self.driver.cuMemcpy3DPeer(&raw const copy)
            } else {
                self.driver.cuMemcpy3DPeerAsync(&raw const copy, stream.raw)
            }
        }
    }

    pub(crate) fn batch(&self, copies: &[BatchCopy], stream: CUstream) -> CuResult<()> {
        let stream = self.stream(stream)?;
        if copies.is_empty() || copies.len() > BATCH_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let (mut to, mut from, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut attributes, mut first): (Vec<CUmemcpyAttributes>, Vec<usize>) = (Vec::new(), Vec::new());
        for (i, copy) in copies.iter().enumerate() {
            self.memory.check(copy.dst, copy.len, Access::Write)?;
            self.memory.check(copy.src, copy.len, Access::Read)?;
            to.push(copy.dst);
            from.push(copy.src);
            sizes.push(size(copy.len)?);
            let same =
                |last: &CUmemcpyAttributes| last.src_access_order == copy.order && last.flags == copy.flags;
            if !attributes.last().is_some_and(same) {
                // The hints are for managed memory that moves; the session's is host memory and stays.
                attributes.push(CUmemcpyAttributes {
                    src_access_order: copy.order,
                    flags: copy.flags,
                    ..CUmemcpyAttributes::default()
                });
                first.push(i);
            }
        }
        // SAFETY: lists of the lengths that are given; each range is this session's.
        unsafe {
            self.driver.cuMemcpyBatchAsync_v2(
                to.as_mut_ptr(),
                from.as_mut_ptr(),
                sizes.as_mut_ptr(),
                copies.len(),
                attributes.as_mut_ptr(),
                first.as_mut_ptr(),
                attributes.len(),
                stream.raw,
            )
        }
    }
}
