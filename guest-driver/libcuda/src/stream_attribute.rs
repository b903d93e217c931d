//! Stream attributes: they live in the worker, where the driver has them; the guest keeps the priority beside.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use cuda_api::calls::stream::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::CUstream;
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::initialised;

/// Bytes of a CUlaunchAttributeValue.
const VALUE_BYTES: usize = 64;

const ACCESS_POLICY_WINDOW: u32 = 1;
const SYNCHRONIZATION_POLICY: u32 = 3;
const PRIORITY: u32 = 8;
const MEM_SYNC_DOMAIN_MAP: u32 = 9;
const MEM_SYNC_DOMAIN: u32 = 10;
const NVLINK_CENTRIC_SCHEDULING: u32 = 16;

/// How many bytes of its value an attribute of a stream has; the rest of the union is the caller's.
fn value_bytes(attribute: u32) -> CuResult<usize> {
    match attribute {
        // An address, a length, a ratio and two properties.
        ACCESS_POLICY_WINDOW => Ok(32),
        MEM_SYNC_DOMAIN_MAP => Ok(2),
        SYNCHRONIZATION_POLICY | PRIORITY | MEM_SYNC_DOMAIN | NVLINK_CENTRIC_SCHEDULING => Ok(4),
        _ => Err(CUresult::INVALID_VALUE),
    }
}

/// cuStreamGetAttribute.
pub unsafe fn cuStreamGetAttribute(stream: CUstream, attribute: u32, value: *mut c_void) -> CUresult {
    finish((|| {
        initialised()?.objects.check(stream)?;
        not_null(value)?;
        let len = value_bytes(attribute)?;
        let found = gate::call::<row::cuStreamGetAttribute>((stream, attribute))?;
        let found = found.get(..len).ok_or(CUresult::UNKNOWN)?;
        // SAFETY: not NULL; a CUlaunchAttributeValue by CUDA's contract, and `len` is at most that long.
        unsafe { value.cast::<u8>().copy_from_nonoverlapping(found.as_ptr(), len) };
        Ok(())
    })())
}

/// cuStreamSetAttribute.
pub unsafe fn cuStreamSetAttribute(stream: CUstream, attribute: u32, value: *const c_void) -> CUresult {
    finish((|| {
        initialised()?.objects.check(stream)?;
        not_null(value.cast_mut())?;
        let len = value_bytes(attribute)?;
        let mut bytes = [0u8; VALUE_BYTES];
        // SAFETY: not NULL; a CUlaunchAttributeValue by CUDA's contract, and `len` is at most that long.
        unsafe { value.cast::<u8>().copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        gate::call::<row::cuStreamSetAttribute>((stream, attribute, &bytes[..len]))?;
        if attribute == PRIORITY { learn_priority(stream) } else { Ok(()) }
    })())
}

/// cuStreamCopyAttributes.
pub unsafe fn cuStreamCopyAttributes(to: CUstream, from: CUstream) -> CUresult {
    finish((|| {
        let objects = &initialised()?.objects;
        objects.check(to)?;
        objects.check(from)?;
        gate::call::<row::cuStreamCopyAttributes>((to, from))?;
        learn_priority(to)
    })())
}

/// What cuStreamGetPriority answers follows the attribute, as the driver has it now.
fn learn_priority(stream: CUstream) -> CuResult<()> {
    let Some(record) = initialised()?.objects.streams.get(stream.0) else { return Ok(()) };
    // An executor without the attribute has the priority that the stream was made with.
    if let Ok(value) = gate::call::<row::cuStreamGetAttribute>((stream, PRIORITY))
        && let Some(word) = value.first_chunk::<4>()
    {
        record.priority.store(i32::from_ne_bytes(*word), Ordering::Relaxed);
    }
    Ok(())
}
