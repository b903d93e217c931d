//! Several stream memory operations in one call. Each travels as four words, so that nothing of the union that the operation does
//! not use does.

use std::ffi::c_void;

use cuda_api::calls::stream::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::host::Access;
use cuda_api::types::CUstream;
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::{Process, initialised};

/// Bytes of a CUstreamBatchMemOpParams.
const PARAMS_BYTES: usize = 48;
/// Operations of one call at most (CUDA Driver API, cuStreamBatchMemOp).
const OPERATIONS_MAX: u32 = 256;

const WAIT_32: u32 = 1;
const WRITE_32: u32 = 2;
const FLUSH_REMOTE_WRITES: u32 = 3;
const WAIT_64: u32 = 4;
const WRITE_64: u32 = 5;
const BARRIER: u32 = 6;

/// An operation as it travels: kind, address, value, flags.
fn operation(process: &Process, params: &[u8; PARAMS_BYTES]) -> CuResult<[u64; 4]> {
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| params[at + i]));
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| params[at + i]));
    let kind = word(0);
    let (len, access) = match kind {
        WAIT_32 => (4, Access::Read),
        WAIT_64 => (8, Access::Read),
        WRITE_32 => (4, Access::Write),
        WRITE_64 => (8, Access::Write),
        // These two have their flags right behind the kind.
        FLUSH_REMOTE_WRITES | BARRIER => return Ok([kind.into(), 0, 0, word(4).into()]),
        _ => return Err(CUresult::INVALID_VALUE),
    };
    let address = long(8);
    cuda_api::guest::aligned(address, len)?;
    process.ranges.check(address, len, access)?;
    let value = if len == 8 { long(16) } else { word(16).into() };
    Ok([kind.into(), address, value, word(24).into()])
}

/// cuStreamBatchMemOp_v2.
pub unsafe fn cuStreamBatchMemOp_v2(
    stream: CUstream,
    count: u32,
    params: *mut c_void,
    flags: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        process.objects.check(stream)?;
        not_null(params)?;
        if count > OPERATIONS_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut operations = Vec::with_capacity(count as usize * 32);
        for i in 0..count as usize {
            // SAFETY: not NULL, and `count` records by CUDA's contract.
            let params = unsafe { params.cast::<[u8; PARAMS_BYTES]>().add(i).read_unaligned() };
            operation(process, &params)?.iter().for_each(|w| operations.extend(w.to_le_bytes()));
        }
        gate::call::<row::cuStreamBatchMemOp_v2>((stream, &operations, flags))
    })())
}
