//! Tensor maps: the driver computes them from numbers; the address in one is the kernel's business, like a parameter.

use cuda_api::CuResult;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::memory::host_address;

/// A map, aligned as the driver wants it.
#[repr(C, align(64))]
struct Aligned(CUtensorMap);

/// A tensor of an im2col load has from 3 to 5 dimensions.
const IM2COL_RANKS: std::ops::RangeInclusive<u32> = 3..=5;

impl Cuda {
    pub(crate) fn encode_tiled(&self, arguments: &TensorMapTiled) -> CuResult<CUtensorMap> {
        let mut map = Aligned(CUtensorMap { opaque: [0; 16] });
        let [data_type, rank, interleave, swizzle, l2_promotion, oob_fill] = arguments.modes;
        if !(1..=5).contains(&rank) {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: a local for the map; arrays of five, of which the driver reads as many as the rank says; the tensor's
        // address is not followed.
        unsafe {
            self.driver.cuTensorMapEncodeTiled(
                &raw mut map.0,
                data_type,
                rank,
                host_address(arguments.global_address),
                arguments.global_dim.as_ptr(),
                arguments.global_strides.as_ptr(),
                arguments.box_dim.as_ptr(),
                arguments.element_strides.as_ptr(),
                interleave,
                swizzle,
                l2_promotion,
                oob_fill,
            )
        }?;
        Ok(map.0)
    }

    pub(crate) fn encode_im2col(&self, arguments: &TensorMapIm2col) -> CuResult<CUtensorMap> {
        let mut map = Aligned(CUtensorMap { opaque: [0; 16] });
        let [data_type, rank, interleave, _, swizzle, l2_promotion, oob_fill] = arguments.modes;
        let [channels, pixels] = arguments.pixels;
        let [lower, upper] = &arguments.corners;
        if !IM2COL_RANKS.contains(&rank) {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: a local for the map; arrays of five, and corners of three, of which the driver reads as many as the rank says,
        // two less of the corners; the tensor's address is not followed.
        unsafe {
            self.driver.cuTensorMapEncodeIm2col(
                &raw mut map.0,
                data_type,
                rank,
                host_address(arguments.global_address),
                arguments.global_dim.as_ptr(),
                arguments.global_strides.as_ptr(),
                lower.as_ptr(),
                upper.as_ptr(),
                channels,
                pixels,
                arguments.element_strides.as_ptr(),
                interleave,
                swizzle,
                l2_promotion,
                oob_fill,
            )
        }?;
        Ok(map.0)
    }

    pub(crate) fn encode_im2col_wide(&self, arguments: &TensorMapIm2col) -> CuResult<CUtensorMap> {
        let mut map = Aligned(CUtensorMap { opaque: [0; 16] });
        let [data_type, rank, interleave, mode, swizzle, l2_promotion, oob_fill] = arguments.modes;
        let [channels, pixels] = arguments.pixels;
        let [[lower, ..], [upper, ..]] = arguments.corners;
        if !IM2COL_RANKS.contains(&rank) {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: a local for the map; arrays of five, of which the driver reads as many as the rank says; the tensor's address
        // is not followed.
        unsafe {
            self.driver.cuTensorMapEncodeIm2colWide(
                &raw mut map.0,
                data_type,
                rank,
                host_address(arguments.global_address),
                arguments.global_dim.as_ptr(),
                arguments.global_strides.as_ptr(),
                lower,
                upper,
                channels,
                pixels,
                arguments.element_strides.as_ptr(),
                interleave,
                mode,
                swizzle,
                l2_promotion,
                oob_fill,
            )
        }?;
        Ok(map.0)
    }

    pub(crate) fn replace_address(&self, map: &CUtensorMap, address: u64) -> CuResult<CUtensorMap> {
        let mut map = Aligned(*map);
        // SAFETY: a local for the map; the address goes into it and is not followed.
        unsafe { self.driver.cuTensorMapReplaceAddress(&raw mut map.0, host_address(address)) }?;
        Ok(map.0)
    }
}
