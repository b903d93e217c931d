//! Arrays: here they are rows without gaps in device memory. Nothing reads them but copies: textures and surfaces are refused.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::texture::Host;
use cuda_api::types::*;
use cuda_api::wire::{Bulk, Fill, Filled, product};

use crate::Soft;
use crate::memory::Purpose;
use crate::soft::Thread;

/// CUDA_ARRAY3D_*.
const LAYERED: u32 = 1;
const SURFACE: u32 = 2;
const CUBEMAP: u32 = 4;
/// Elements of a dimension at most.
const WIDTH_MAX: u64 = 131_072;
const HEIGHT_MAX: u64 = 65_536;
const DEPTH_MAX: u64 = 16_384;

/// An array, or a level of a mipmapped one.
pub(crate) struct Array {
    at: u64,
    descriptor: CUDA_ARRAY3D_DESCRIPTOR,
    element: u64,
    pub(crate) context: u32,
    /// What it is a level of.
    level_of: Option<CUmipmappedArray>,
}

/// A mipmapped array.
pub(crate) struct Mipmap {
    at: u64,
    /// Where each level begins, and what it is.
    levels: Vec<(u64, CUDA_ARRAY3D_DESCRIPTOR)>,
    element: u64,
    pub(crate) context: u32,
}

/// Bytes of an element, where such an array can be.
fn check(array: &CUDA_ARRAY3D_DESCRIPTOR) -> CuResult<u64> {
    let refused = Err(CUresult::INVALID_VALUE);
    let CUDA_ARRAY3D_DESCRIPTOR { width, height, depth, flags, num_channels, .. } = *array;
    let flat = height == 0 && depth != 0 && flags & LAYERED == 0;
    let cube = flags & CUBEMAP == 0 || (width == height && depth != 0 && depth.is_multiple_of(6));
    if width == 0
        || width > WIDTH_MAX
        || height > HEIGHT_MAX
        || depth > DEPTH_MAX
        || flat
        || !cube
        || flags & !(LAYERED | SURFACE | CUBEMAP) != 0
        || !matches!(num_channels, 1 | 2 | 4)
    {
        return refused;
    }
    match array.format {
        0x01..=0x03 | 0x08..=0x0a | 0x10 | 0x20 => {
            format_bytes(array.format, num_channels).ok_or(CUresult::INVALID_VALUE)
        }
        _ => refused,
    }
}

fn bytes(array: &CUDA_ARRAY3D_DESCRIPTOR, element: u64) -> CuResult<u64> {
    product(&[array.width, element, array.height.max(1), array.depth.max(1)])
}

/// A level of a mipmapped array.
fn level(array: &CUDA_ARRAY3D_DESCRIPTOR, number: u32) -> CUDA_ARRAY3D_DESCRIPTOR {
    let shrink = |size: u64| if size == 0 { 0 } else { size.checked_shr(number).unwrap_or(0).max(1) };
    let depth = if array.flags & (LAYERED | CUBEMAP) == 0 { shrink(array.depth) } else { array.depth };
    CUDA_ARRAY3D_DESCRIPTOR { width: shrink(array.width), height: shrink(array.height), depth, ..*array }
}

/// A stretch of a 1D array.
fn stretch(array: CUarray, offset: usize) -> CopyEnd {
    CopyEnd {
        kind: CopyEnd::ARRAY,
        lod: 0,
        at: array.0,
        pitch: 0,
        rows: 0,
        x: offset as u64,
        y: 0,
        z: 0,
        context: 0,
    }
}

fn line(at: CUdeviceptr, len: usize) -> CopyEnd {
    CopyEnd { kind: CopyEnd::ADDRESS, pitch: len as u64, rows: 1, ..stretch(CUarray(at), 0) }
}

fn bytes_end() -> CopyEnd {
    CopyEnd { kind: CopyEnd::BYTES, ..stretch(CUarray(0), 0) }
}

fn one_row(dst: CopyEnd, src: CopyEnd, len: u64) -> CopyShape {
    CopyShape { dst, src, width: len, height: 1, depth: 1, flags: 0 }
}

impl Soft {
    /// An end as memory: an array's is a place in its rows, and the copy stays inside of it.
    pub(crate) fn flattened(&self, end: &CopyEnd, shape: &CopyShape) -> CuResult<CopyEnd> {
        if end.kind != CopyEnd::ARRAY {
            return Ok(*end);
        }
        let array = self.arrays.get(CUarray(end.at))?;
        let row = product(&[array.descriptor.width, array.element])?;
        let (rows, slices) = (array.descriptor.height.max(1), array.descriptor.depth.max(1));
        let inside = |from: u64, len: u64, all: u64| from.checked_add(len).is_some_and(|end| end <= all);
        let whole_elements = end.x.is_multiple_of(array.element) && shape.width.is_multiple_of(array.element);
        if end.lod != 0
            || !whole_elements
            || !inside(end.x, shape.width, row)
            || !inside(end.y, shape.height, rows)
            || !inside(end.z, shape.depth, slices)
        {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok(CopyEnd { kind: CopyEnd::ADDRESS, at: array.at, pitch: row, rows, ..*end })
    }

    fn allocate_array(&self, thread: &Thread, len: u64) -> CuResult<(u64, u32)> {
        let context = self.context(thread)?;
        let at = self.device.memory.allocate(len, Vec::new(), context.id, Purpose::Array)?;
        if !context.alive() {
            // The context went meanwhile, and what belonged to it: nobody would free this.
            self.device.memory.free_context(context.id);
            return Err(CUresult::CONTEXT_IS_DESTROYED);
        }
        Ok((at, context.id))
    }

    fn free_array(&self, at: u64) -> CuResult<()> {
        self.device.wait_idle(None, None)?;
        self.device.memory.free(&[at], &[Purpose::Array])
    }

    fn make_array(&self, thread: &Thread, handle: CUarray, array: &CUDA_ARRAY3D_DESCRIPTOR) -> CuResult<()> {
        let element = check(array)?;
        let (at, context) = self.allocate_array(thread, bytes(array, element)?)?;
        let made = Array { at, descriptor: *array, element, context, level_of: None };
        self.arrays.add(handle, Arc::new(made)).inspect_err(|_| {
            let _ = self.free_array(at);
        })
    }
}

impl Host for Soft {
    fn cuArrayCreate_v2(
        &self,
        thread: &mut Thread,
        handle: CUarray,
        array: &CUDA_ARRAY_DESCRIPTOR,
    ) -> CuResult<()> {
        let CUDA_ARRAY_DESCRIPTOR { width, height, format, num_channels } = *array;
        let solid =
            CUDA_ARRAY3D_DESCRIPTOR { width, height, depth: 0, format, num_channels, flags: 0, reserved: 0 };
        self.make_array(thread, handle, &solid)
    }

    fn cuArray3DCreate_v2(
        &self,
        thread: &mut Thread,
        handle: CUarray,
        array: &CUDA_ARRAY3D_DESCRIPTOR,
    ) -> CuResult<()> {
        self.make_array(thread, handle, array)
    }

    fn cuArrayGetDescriptor_v2(&self, _: &mut Thread, array: CUarray) -> CuResult<CUDA_ARRAY_DESCRIPTOR> {
        let CUDA_ARRAY3D_DESCRIPTOR { width, height, format, num_channels, .. } =
            self.arrays.get(array)?.descriptor;
        Ok(CUDA_ARRAY_DESCRIPTOR { width, height, format, num_channels })
    }

    fn cuArray3DGetDescriptor_v2(&self, _: &mut Thread, array: CUarray) -> CuResult<CUDA_ARRAY3D_DESCRIPTOR> {
        Ok(self.arrays.get(array)?.descriptor)
    }

    fn cuArrayDestroy(&self, _: &mut Thread, handle: CUarray) -> CuResult<()> {
        if self.arrays.get(handle)?.level_of.is_some() {
            return Err(CUresult::INVALID_HANDLE);
        }
        self.free_array(self.arrays.remove(handle)?.at)
    }

    fn cuArrayGetMemoryRequirements(
        &self,
        _: &mut Thread,
        array: CUarray,
        _: i32,
    ) -> CuResult<CUDA_ARRAY_MEMORY_REQUIREMENTS> {
        // There are no arrays without memory of their own here, and none that are sparse or have planes.
        self.arrays.get(array).and(Err(CUresult::INVALID_VALUE))
    }

    fn cuArrayGetSparseProperties(
        &self,
        _: &mut Thread,
        array: CUarray,
    ) -> CuResult<CUDA_ARRAY_SPARSE_PROPERTIES> {
        self.arrays.get(array).and(Err(CUresult::INVALID_VALUE))
    }

    fn cuArrayGetPlane(&self, _: &mut Thread, _: CUarray, array: CUarray, _: u32) -> CuResult<()> {
        self.arrays.get(array).and(Err(CUresult::INVALID_VALUE))
    }

    fn cuMipmappedArrayCreate(
        &self,
        thread: &mut Thread,
        handle: CUmipmappedArray,
        array: &CUDA_ARRAY3D_DESCRIPTOR,
        count: u32,
    ) -> CuResult<()> {
        let element = check(array)?;
        let largest = array.width.max(array.height).max(array.depth);
        let most = largest.checked_ilog2().unwrap_or(0).saturating_add(1);
        let (mut levels, mut len) = (Vec::new(), 0u64);
        for number in 0..count.clamp(1, most) {
            let level = level(array, number);
            levels.push((len, level));
            // Each level begins where any element is aligned.
            let next = bytes(&level, element)?.checked_next_multiple_of(256);
            len = next.and_then(|n| len.checked_add(n)).ok_or(CUresult::INVALID_VALUE)?;
        }
        let (at, context) = self.allocate_array(thread, len)?;
        self.mipmaps.add(handle, Arc::new(Mipmap { at, levels, element, context })).inspect_err(|_| {
            let _ = self.free_array(at);
        })
    }

    fn cuMipmappedArrayDestroy(&self, _: &mut Thread, handle: CUmipmappedArray) -> CuResult<()> {
        let mipmap = self.mipmaps.remove(handle)?;
        self.arrays.remove_if(|array| array.level_of == Some(handle));
        self.free_array(mipmap.at)
    }

    fn cuMipmappedArrayGetLevel(
        &self,
        _: &mut Thread,
        handle: CUarray,
        mipmap: CUmipmappedArray,
        number: u32,
    ) -> CuResult<()> {
        let of = self.mipmaps.get(mipmap)?;
        let (offset, descriptor) =
            usize::try_from(number).ok().and_then(|n| of.levels.get(n)).ok_or(CUresult::INVALID_VALUE)?;
        let at = of.at.checked_add(*offset).ok_or(CUresult::INVALID_VALUE)?;
        let (element, context) = (of.element, of.context);
        let level = Array { at, descriptor: *descriptor, element, context, level_of: Some(mipmap) };
        self.arrays.add(handle, Arc::new(level))
    }

    fn cuMipmappedArrayGetMemoryRequirements(
        &self,
        _: &mut Thread,
        mipmap: CUmipmappedArray,
        _: i32,
    ) -> CuResult<CUDA_ARRAY_MEMORY_REQUIREMENTS> {
        self.mipmaps.get(mipmap).and(Err(CUresult::INVALID_VALUE))
    }

    fn cuMipmappedArrayGetSparseProperties(
        &self,
        _: &mut Thread,
        mipmap: CUmipmappedArray,
    ) -> CuResult<CUDA_ARRAY_SPARSE_PROPERTIES> {
        self.mipmaps.get(mipmap).and(Err(CUresult::INVALID_VALUE))
    }

    fn cuMemcpyAtoA_v2(
        &self,
        thread: &mut Thread,
        dst: CUarray,
        dst_offset: usize,
        src: CUarray,
        src_offset: usize,
        len: usize,
    ) -> CuResult<()> {
        if len == 0 {
            return Ok(());
        }
        let shape = one_row(stretch(dst, dst_offset), stretch(src, src_offset), len as u64);
        self.shape_between(thread, &shape, STREAM_DEFAULT)
    }

    fn cuMemcpyAtoD_v2(
        &self,
        thread: &mut Thread,
        dst: CUdeviceptr,
        src: CUarray,
        offset: usize,
        len: usize,
    ) -> CuResult<()> {
        self.array_to_memory(thread, dst, src, offset, len, STREAM_DEFAULT)
    }

    fn cuMemcpyDtoA_v2(
        &self,
        thread: &mut Thread,
        dst: CUarray,
        offset: usize,
        src: CUdeviceptr,
        len: usize,
    ) -> CuResult<()> {
        self.memory_to_array(thread, dst, offset, src, len, STREAM_DEFAULT)
    }
}

impl Soft {
    pub(crate) fn array_in(
        &self,
        thread: &Thread,
        array: CUarray,
        offset: usize,
        bytes: &Bulk<'_>,
        stream: CUstream,
    ) -> CuResult<()> {
        self.shape_in(thread, &one_row(stretch(array, offset), bytes_end(), bytes.len()), bytes, stream)
    }

    pub(crate) fn array_out(
        &self,
        thread: &Thread,
        array: CUarray,
        offset: usize,
        to: Fill,
        stream: CUstream,
    ) -> CuResult<Filled> {
        self.shape_out(thread, &one_row(bytes_end(), stretch(array, offset), to.len()), to, stream)
    }

    pub(crate) fn memory_to_array(
        &self,
        thread: &Thread,
        array: CUarray,
        offset: usize,
        src: CUdeviceptr,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        if len == 0 {
            return Ok(());
        }
        self.shape_between(thread, &one_row(stretch(array, offset), line(src, len), len as u64), stream)
    }

    pub(crate) fn array_to_memory(
        &self,
        thread: &Thread,
        dst: CUdeviceptr,
        array: CUarray,
        offset: usize,
        len: usize,
        stream: CUstream,
    ) -> CuResult<()> {
        if len == 0 {
            return Ok(());
        }
        self.shape_between(thread, &one_row(line(dst, len), stretch(array, offset), len as u64), stream)
    }
}
