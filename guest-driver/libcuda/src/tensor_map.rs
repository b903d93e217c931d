//! Tensor maps: a pure function of its arguments, computed by the driver.

use std::ffi::c_void;

use cuda_api::calls::texture::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUtensorMap, TensorMapIm2col, TensorMapTiled};
use cuda_api::{CUresult, CuResult};

use crate::gate;

const RANK_MAX: usize = 5;
/// A tensor has its channels, its images, and from 1 to 3 dimensions between them.
const IM2COL_RANK_MIN: usize = 3;

/// # Safety
/// `from` has `count` elements, or is NULL.
unsafe fn take<T: Copy + Default>(from: *const T, count: usize) -> CuResult<[T; RANK_MAX]> {
    let mut out = [T::default(); RANK_MAX];
    for (i, to) in out.iter_mut().enumerate().take(count) {
        not_null(from.cast_mut())?;
        // SAFETY: i < count, and not NULL.
        *to = unsafe { from.add(i).read() };
    }
    Ok(out)
}

/// cuTensorMapEncodeTiled.
pub unsafe fn cuTensorMapEncodeTiled(
    map: *mut CUtensorMap,
    data_type: u32,
    rank: u32,
    address: *mut c_void,
    global_dim: *const u64,
    global_strides: *const u64,
    box_dim: *const u32,
    element_strides: *const u32,
    interleave: u32,
    swizzle: u32,
    l2_promotion: u32,
    oob_fill: u32,
) -> CUresult {
    finish((|| {
        not_null(map)?;
        let count = rank as usize;
        if !(1..=RANK_MAX).contains(&count) {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: CUDA's contract: as many elements as dimensions, one less for the strides.
        let arguments = unsafe {
            TensorMapTiled {
                global_address: address as u64,
                global_dim: take(global_dim, count)?,
                global_strides: take(global_strides, count - 1)?,
                box_dim: take(box_dim, count)?,
                element_strides: take(element_strides, count)?,
                modes: [data_type, rank, interleave, swizzle, l2_promotion, oob_fill],
            }
        };
        let encoded = gate::call::<row::cuTensorMapEncodeTiled>((&arguments,))?;
        // SAFETY: not NULL; 128 bytes by CUDA's contract.
        unsafe { map.write(encoded) };
        Ok(())
    })())
}

/// The arguments that both kinds of im2col maps have.
struct Im2col {
    data_type: u32,
    rank: u32,
    address: *mut c_void,
    global_dim: *const u64,
    global_strides: *const u64,
    pixels: [u32; 2],
    element_strides: *const u32,
    /// Interleave, mode, swizzle, L2 promotion, out-of-bounds fill.
    modes: [u32; 5],
}

impl Im2col {
    /// How many dimensions a pixel box has.
    fn dimensions(&self) -> CuResult<usize> {
        let rank = self.rank as usize;
        if !(IM2COL_RANK_MIN..=RANK_MAX).contains(&rank) {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok(rank - 2)
    }

    /// # Safety
    /// The arrays have as many elements as CUDA asks for.
    unsafe fn gather(&self, corners: [[i32; 3]; 2]) -> CuResult<TensorMapIm2col> {
        let rank = self.rank as usize;
        let [interleave, mode, swizzle, l2_promotion, oob_fill] = self.modes;
        // SAFETY: as many elements as dimensions, one less for the strides, by this function's contract.
        unsafe {
            Ok(TensorMapIm2col {
                global_address: self.address as u64,
                global_dim: take(self.global_dim, rank)?,
                global_strides: take(self.global_strides, rank - 1)?,
                corners,
                element_strides: take(self.element_strides, rank)?,
                pixels: self.pixels,
                modes: [self.data_type, self.rank, interleave, mode, swizzle, l2_promotion, oob_fill],
            })
        }
    }
}

/// # Safety
/// `from` has `count` elements, or is NULL.
unsafe fn corner(from: *const i32, count: usize) -> CuResult<[i32; 3]> {
    // SAFETY: by this function's contract.
    let [first, second, third, ..] = unsafe { take(from, count) }?;
    Ok([first, second, third])
}

/// cuTensorMapEncodeIm2col.
pub unsafe fn cuTensorMapEncodeIm2col(
    map: *mut CUtensorMap,
    data_type: u32,
    rank: u32,
    address: *mut c_void,
    global_dim: *const u64,
    global_strides: *const u64,
    lower_corner: *const i32,
    upper_corner: *const i32,
    channels_per_pixel: u32,
    pixels_per_column: u32,
    element_strides: *const u32,
    interleave: u32,
    swizzle: u32,
    l2_promotion: u32,
    oob_fill: u32,
) -> CUresult {
    finish((|| {
        not_null(map)?;
        let pixels = [channels_per_pixel, pixels_per_column];
        let modes = [interleave, 0, swizzle, l2_promotion, oob_fill];
        let im2col =
            Im2col { data_type, rank, address, global_dim, global_strides, pixels, element_strides, modes };
        let count = im2col.dimensions()?;
        // SAFETY: CUDA's contract with the caller: an element for each dimension of a pixel box, and what `gather` asks for.
        let arguments =
            unsafe { im2col.gather([corner(lower_corner, count)?, corner(upper_corner, count)?])? };
        let encoded = gate::call::<row::cuTensorMapEncodeIm2col>((&arguments,))?;
        // SAFETY: not NULL; 128 bytes by CUDA's contract.
        unsafe { map.write(encoded) };
        Ok(())
    })())
}

/// cuTensorMapEncodeIm2colWide.
pub unsafe fn cuTensorMapEncodeIm2colWide(
    map: *mut CUtensorMap,
    data_type: u32,
    rank: u32,
    address: *mut c_void,
    global_dim: *const u64,
    global_strides: *const u64,
    lower_width: i32,
    upper_width: i32,
    channels_per_pixel: u32,
    pixels_per_column: u32,
    element_strides: *const u32,
    interleave: u32,
    mode: u32,
    swizzle: u32,
    l2_promotion: u32,
    oob_fill: u32,
) -> CUresult {
    finish((|| {
        not_null(map)?;
        let pixels = [channels_per_pixel, pixels_per_column];
        let modes = [interleave, mode, swizzle, l2_promotion, oob_fill];
        let im2col =
            Im2col { data_type, rank, address, global_dim, global_strides, pixels, element_strides, modes };
        im2col.dimensions()?;
        // SAFETY: CUDA's contract with the caller is what `gather` asks for.
        let arguments = unsafe { im2col.gather([[lower_width, 0, 0], [upper_width, 0, 0]])? };
        let encoded = gate::call::<row::cuTensorMapEncodeIm2colWide>((&arguments,))?;
        // SAFETY: not NULL; 128 bytes by CUDA's contract.
        unsafe { map.write(encoded) };
        Ok(())
    })())
}

/// cuTensorMapReplaceAddress.
pub unsafe fn cuTensorMapReplaceAddress(map: *mut CUtensorMap, address: *mut c_void) -> CUresult {
    finish((|| {
        not_null(map)?;
        // SAFETY: not NULL; 128 bytes by CUDA's contract.
        let before = unsafe { map.read() };
        let after = gate::call::<row::cuTensorMapReplaceAddress>((&before, address as u64))?;
        // SAFETY: as above.
        unsafe { map.write(after) };
        Ok(())
    })())
}
