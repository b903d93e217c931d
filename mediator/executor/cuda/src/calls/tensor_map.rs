//! Tensor maps: the driver computes them from numbers; the address in one is the kernel's business, like a parameter.

use cuda_api::CuResult;
use cuda_api::calls::texture::Host;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::memory::host_address;
use crate::thread::Thread;

/// A map, aligned as the driver wants it.
#[repr(C, align(64))]
struct Aligned(CUtensorMap);

impl Host for Cuda {
    fn cuTensorMapEncodeTiled(&self, _: &mut Thread, arguments: &TensorMapTiled) -> CuResult<CUtensorMap> {
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
}
