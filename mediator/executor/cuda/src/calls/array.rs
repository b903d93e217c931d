//! Arrays: made by the driver from numbers, counted as device memory of the VM's.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::account::{Hold, counted_bytes};
use cuda_api::types::*;

use crate::Cuda;
use crate::objects::{Array, Belonging, Mipmap};
use crate::thread::Thread;

/// CUDA_ARRAY3D_LAYERED and …_CUBEMAP: the depth counts layers.
const LAYERS: u32 = 0x01 | 0x04;
/// CUDA_ARRAY3D_SPARSE and …_DEFERRED_MAPPING: made without memory.
const WITHOUT_MEMORY: u32 = 0x40 | 0x80;
/// The driver lays arrays out in tiles of this many bytes and rows.
const TILE_BYTES: u64 = 64;
const TILE_ROWS: u64 = 8;
/// No array has more levels.
const LEVELS_MAX: u32 = 32;

/// About the memory that the driver takes for an array: its elements, in whole tiles.
fn array_bytes(array: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32) -> CuResult<u64> {
    if array.flags & WITHOUT_MEMORY != 0 {
        return Ok(0);
    }
    // A block of 4 × 4 elements of a compressed format takes 16 bytes at most; planes of video formats 8 bytes for an element.
    let element = match array.format {
        0x91..=0x9e => 1,
        format => format_bytes(format, array.num_channels).unwrap_or(8),
    };
    let shrink = |size: u64, level: u32| size.checked_shr(level).unwrap_or(0).max(1);
    let level_bytes = |level: u32| {
        let rows = match shrink(array.height, level) {
            1 => 1,
            rows => rows.checked_next_multiple_of(TILE_ROWS)?,
        };
        let slices = if array.flags & LAYERS == 0 { shrink(array.depth, level) } else { array.depth.max(1) };
        let row = shrink(array.width, level).checked_mul(element)?.checked_next_multiple_of(TILE_BYTES)?;
        row.checked_mul(rows)?.checked_mul(slices)
    };
    (0..levels.clamp(1, LEVELS_MAX))
        .try_fold(0u64, |sum, level| sum.checked_add(level_bytes(level)?))
        .ok_or(CUresult::INVALID_VALUE)
}

impl Cuda {
    /// An array that a call names, of a context that is still there.
    pub(crate) fn array(&self, handle: CUarray) -> CuResult<Arc<Array>> {
        let array = self.arrays.get(handle)?;
        if array.context.alive() { Ok(array) } else { Err(CUresult::CONTEXT_IS_DESTROYED) }
    }

    pub(crate) fn mipmap(&self, handle: CUmipmappedArray) -> CuResult<Arc<Mipmap>> {
        let mipmap = self.mipmaps.get(handle)?;
        if mipmap.context.alive() { Ok(mipmap) } else { Err(CUresult::CONTEXT_IS_DESTROYED) }
    }

    /// Takes an array's bytes from the VM's account.
    fn hold_array(&self, thread: &Thread, array: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32) -> CuResult<Hold> {
        self.hold(thread.context()?.device, counted_bytes(array_bytes(array, levels)?))
    }

    fn add_array(&self, thread: &Thread, handle: CUarray, raw: usize, belonging: Belonging) -> CuResult<()> {
        let context = thread.context()?.clone();
        self.arrays.add(handle, Arc::new(Array { raw, context, belonging }))
    }

    pub(crate) fn make_array(
        &self,
        thread: &Thread,
        handle: CUarray,
        array: &CUDA_ARRAY_DESCRIPTOR,
    ) -> CuResult<()> {
        thread.context()?;
        self.arrays.check_free(handle)?;
        let CUDA_ARRAY_DESCRIPTOR { width, height, format, num_channels } = *array;
        let solid =
            CUDA_ARRAY3D_DESCRIPTOR { width, height, depth: 0, format, num_channels, flags: 0, reserved: 0 };
        let hold = self.hold_array(thread, &solid, 1)?;
        // SAFETY: a descriptor of numbers, for the time of the call.
        let (raw,) = unsafe { self.driver.cuArrayCreate_v2(array) }?;
        self.add_array(thread, handle, raw, Belonging::Whole { _hold: hold })
    }

    pub(crate) fn make_array_3d(
        &self,
        thread: &Thread,
        handle: CUarray,
        array: &CUDA_ARRAY3D_DESCRIPTOR,
    ) -> CuResult<()> {
        thread.context()?;
        self.arrays.check_free(handle)?;
        let hold = self.hold_array(thread, array, 1)?;
        // SAFETY: a descriptor of numbers, for the time of the call.
        let (raw,) = unsafe { self.driver.cuArray3DCreate_v2(array) }?;
        self.add_array(thread, handle, raw, Belonging::Whole { _hold: hold })
    }

    pub(crate) fn make_mipmap(
        &self,
        thread: &Thread,
        handle: CUmipmappedArray,
        array: &CUDA_ARRAY3D_DESCRIPTOR,
        levels: u32,
    ) -> CuResult<()> {
        let context = thread.context()?.clone();
        self.mipmaps.check_free(handle)?;
        let hold = self.hold_array(thread, array, levels)?;
        // SAFETY: a descriptor of numbers, for the time of the call.
        let (raw,) = unsafe { self.driver.cuMipmappedArrayCreate(array, levels) }?;
        self.mipmaps.add(handle, Arc::new(Mipmap { raw, context, _hold: hold }))
    }

    pub(crate) fn plane(&self, thread: &Thread, handle: CUarray, of: CUarray, index: u32) -> CuResult<()> {
        let of = self.array(of)?;
        self.arrays.check_free(handle)?;
        let (raw,) = self.driver.cuArrayGetPlane(of.raw, index)?;
        self.add_array(thread, handle, raw, Belonging::Plane { of })
    }

    pub(crate) fn level(
        &self,
        thread: &Thread,
        handle: CUarray,
        of: CUmipmappedArray,
        level: u32,
    ) -> CuResult<()> {
        let of = self.mipmap(of)?;
        self.arrays.check_free(handle)?;
        let (raw,) = self.driver.cuMipmappedArrayGetLevel(of.raw, level)?;
        self.add_array(thread, handle, raw, Belonging::Level { of })
    }

    /// An array goes, and the names of its planes. A level or a plane goes only with what it is a part of.
    pub(crate) fn destroy_array(&self, handle: CUarray) -> CuResult<()> {
        let array = self.array(handle)?;
        if !matches!(array.belonging, Belonging::Whole { .. }) {
            return Err(CUresult::INVALID_HANDLE);
        }
        drop(self.arrays.remove(handle)?);
        let is_part =
            |part: &Array| matches!(&part.belonging, Belonging::Plane { of } if Arc::ptr_eq(of, &array));
        drop(self.arrays.remove_if(is_part));
        Ok(())
    }

    pub(crate) fn destroy_mipmap(&self, handle: CUmipmappedArray) -> CuResult<()> {
        let mipmap = self.mipmaps.remove(handle)?;
        let is_part =
            |part: &Array| matches!(&part.belonging, Belonging::Level { of } if Arc::ptr_eq(of, &mipmap));
        drop(self.arrays.remove_if(is_part));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(width: u64, height: u64, depth: u64, flags: u32) -> CUDA_ARRAY3D_DESCRIPTOR {
        CUDA_ARRAY3D_DESCRIPTOR { width, height, depth, format: 0x20, num_channels: 4, flags, reserved: 0 }
    }

    #[test]
    fn arrays_are_counted_in_whole_tiles() {
        assert_eq!(array_bytes(&array(1, 0, 0, 0), 1), Ok(64));
        assert_eq!(array_bytes(&array(16, 16, 0, 0), 1), Ok(16 * 16 * 16));
        assert_eq!(array_bytes(&array(16, 9, 2, 0), 1), Ok(16 * 16 * 16 * 2));
        // Levels shrink in every dimension, layers do not.
        assert_eq!(array_bytes(&array(16, 16, 4, 0), 2), Ok(4096 * 4 + 1024 * 2));
        assert_eq!(array_bytes(&array(16, 16, 4, 1), 2), Ok(4096 * 4 + 1024 * 4));
        assert_eq!(array_bytes(&array(16, 16, 4, 0x40), 2), Ok(0), "nothing is mapped yet");
        assert_eq!(array_bytes(&array(u64::MAX, 16, 4, 0), 1), Err(CUresult::INVALID_VALUE));
        assert!(array_bytes(&array(16, 16, 0, 0), u32::MAX).is_ok());
    }
}
