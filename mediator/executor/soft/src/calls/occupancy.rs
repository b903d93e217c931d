//! Occupancy: what fits a multiprocessor of compute capability 8.0.

use cuda_api::CuResult;
use cuda_api::types::*;

use crate::Soft;

fn positive(value: i32) -> CuResult<u32> {
    u32::try_from(value).ok().filter(|v| *v != 0).ok_or(CUresult::INVALID_VALUE)
}

impl Soft {
    pub(crate) fn resident_blocks(
        &self,
        func: CUfunction,
        block_size: i32,
        shared_bytes: usize,
    ) -> CuResult<i32> {
        let blocks = self.function(func)?.kernel.resident_blocks(positive(block_size)?, shared_bytes as u64);
        i32::try_from(blocks).map_err(|_| CUresult::UNKNOWN)
    }

    pub(crate) fn available_shared(&self, func: CUfunction, blocks: i32, block_size: i32) -> CuResult<usize> {
        let function = self.function(func)?;
        let blocks = positive(blocks)?;
        // So many blocks have to fit before there is shared memory to divide.
        if function.kernel.resident_blocks(positive(block_size)?, 0) < blocks {
            return Err(CUresult::INVALID_VALUE);
        }
        usize::try_from(function.kernel.available_shared(blocks)).map_err(|_| CUresult::UNKNOWN)
    }
}
