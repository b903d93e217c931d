//! Tensor maps: a pure function of its arguments, computed by the driver.

use std::ffi::c_void;

use cuda_api::calls::texture::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUtensorMap, TensorMapTiled};
use cuda_api::{CUresult, CuResult};

use crate::gate;

const RANK_MAX: usize = 5;

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
