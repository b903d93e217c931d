//! What an address is: answered from the process's own ranges, but for what only the driver knows.

use std::ffi::c_void;

use cuda_api::access::DeviceAccess;
use cuda_api::calls::memory::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUdeviceptr, pointer_attribute as attr};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};

const MEMORY_TYPE_HOST: u32 = 1;
const MEMORY_TYPE_DEVICE: u32 = 2;
/// CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE and _READ.
const ACCESS_READ_WRITE: u32 = 3;
const ACCESS_READ: u32 = 1;
/// What cuPointerGetAttributes says of the device of memory that is none of CUDA's (CU_DEVICE_INVALID).
const DEVICE_INVALID: i32 = -2;

/// The driver maps device memory in pieces of this size …
const DEVICE_MAPPING_BYTES: u64 = 2 << 20;
/// … and a pool's in pieces of this.
const POOL_MAPPING_BYTES: u64 = 32 << 20;

/// A value and the bytes it is written in, as driver 580 writes it: what the documentation calls a boolean is an int.
enum Value {
    Word(u64),
    Half(u32),
    /// CUDA_POINTER_ATTRIBUTE_P2P_TOKENS: a word and a half, 0 without GPUDirect.
    Tokens,
}

/// The whole pieces of this size that a range lies in: first address and length.
fn pieces(range: &Range, piece: u64) -> (u64, u64) {
    let first = range.start / piece * piece;
    let end = (range.start + range.len).checked_next_multiple_of(piece).unwrap_or(u64::MAX);
    (first, end - first)
}

/// What the driver has mapped around a range.
fn mapping(range: &Range) -> (u64, u64) {
    match range.kind {
        RangeKind::Device | RangeKind::Variable => pieces(range, DEVICE_MAPPING_BYTES),
        RangeKind::Pooled | RangeKind::Graph => pieces(range, POOL_MAPPING_BYTES),
        _ => (range.start, range.len),
    }
}

/// What the driver says of an address, where its own bookkeeping decides: how it has grouped small allocations, what it takes for the
/// range of a mapping. `None` where it cannot be asked (after a fault, say).
fn asked(process: &Process, address: u64, attribute: u32) -> Option<u64> {
    process.alive().ok()?;
    gate::call::<row::vgpuPointerAttribute>((address, attribute)).ok()
}

/// The memory is another device's than the current context's: what of it can be reached from here is the driver's knowledge.
fn is_elsewhere(process: &Process, range: &Range) -> bool {
    let current = || crate::context::current().and_then(crate::context::device_of);
    process.devices().len() > 1
        && !range.kind.is_host()
        && current().is_ok_and(|device| device != range.device)
}

/// As [`asked`], with the driver's own answer where it has no such attribute.
fn asked_elsewhere(process: &Process, address: u64, attribute: u32) -> CuResult<u64> {
    process.alive()?;
    gate::call::<row::vgpuPointerAttribute>((address, attribute))
}

fn value(process: &Process, range: &Range, address: u64, attribute: u32) -> CuResult<Value> {
    if matches!(attribute, attr::DEVICE_POINTER | attr::MAPPED | attr::ACCESS_FLAGS)
        && is_elsewhere(process, range)
    {
        let told = asked_elsewhere(process, address, attribute)?;
        return Ok(if attribute == attr::DEVICE_POINTER {
            Value::Word(told)
        } else {
            Value::Half(told as u32)
        });
    }
    let host = range.kind.is_host();
    // Managed memory is a device's, although the host has it, too.
    let device = !host || range.kind.is_managed();
    Ok(match attribute {
        attr::CONTEXT => Value::Word(range.context),
        attr::MEMORY_TYPE => Value::Half(if device { MEMORY_TYPE_DEVICE } else { MEMORY_TYPE_HOST }),
        attr::DEVICE_POINTER if range.kind != RangeKind::Mapped(DeviceAccess::NONE) => Value::Word(address),
        attr::HOST_POINTER if host => Value::Word(address),
        attr::P2P_TOKENS if device => Value::Tokens,
        attr::SYNC_MEMOPS => Value::Half(match (process.ranges.sync_memops(range.id), range.kind) {
            (Some(on), _) => u32::from(on),
            (None, RangeKind::Device | RangeKind::Variable) => {
                asked(process, address, attribute).map_or(u32::from(device), |on| u32::from(on != 0))
            }
            _ => u32::from(device),
        }),
        attr::BUFFER_ID => Value::Word(range.id),
        attr::IS_MANAGED => Value::Half(u32::from(host && device)),
        attr::DEVICE_ORDINAL => Value::Half(range.device as u32),
        attr::IS_LEGACY_IPC_CAPABLE => Value::Half(u32::from(crate::ipc::is_capable(range))),
        attr::IS_GPU_DIRECT_RDMA_CAPABLE => Value::Half(0),
        attr::RANGE_START_ADDR | attr::RANGE_SIZE => {
            let own = if attribute == attr::RANGE_SIZE { range.len } else { range.start };
            let mapped = matches!(range.kind, RangeKind::Mapped(_));
            Value::Word(mapped.then(|| asked(process, address, attribute)).flatten().unwrap_or(own))
        }
        attr::MAPPED => Value::Half(1),
        attr::ALLOWED_HANDLE_TYPES => Value::Word(0),
        attr::ACCESS_FLAGS => Value::Half(match range.kind {
            RangeKind::Mapped(by) => by.of(range.device) as u32,
            _ if range.read_only => ACCESS_READ,
            _ => ACCESS_READ_WRITE,
        }),
        attr::MEMPOOL_HANDLE => Value::Word(if range.kind == RangeKind::Pooled { range.owner } else { 0 }),
        attr::MAPPING_SIZE => Value::Word(mapping(range).1),
        attr::MAPPING_BASE_ADDR => Value::Word(mapping(range).0),
        attr::MEMORY_BLOCK_ID => Value::Word(range.id),
        attr::IS_HW_DECOMPRESS_CAPABLE => Value::Half(u32::from(range.kind == RangeKind::Device)),
        _ => return Err(CUresult::INVALID_VALUE),
    })
}

/// What cuPointerGetAttributes writes for an address that is none of CUDA's, or where the address has no such attribute.
fn nothing(address: u64, known: bool, attribute: u32) -> CuResult<Value> {
    Ok(match attribute {
        attr::DEVICE_ORDINAL => Value::Half(DEVICE_INVALID as u32),
        // Memory that CUDA does not know is the host's.
        attr::HOST_POINTER if !known => Value::Word(address),
        attr::P2P_TOKENS => Value::Tokens,
        attr::MEMORY_TYPE
        | attr::IS_MANAGED
        | attr::ACCESS_FLAGS
        | attr::SYNC_MEMOPS
        | attr::IS_LEGACY_IPC_CAPABLE
        | attr::IS_GPU_DIRECT_RDMA_CAPABLE
        | attr::MAPPED
        | attr::IS_HW_DECOMPRESS_CAPABLE => Value::Half(0),
        attr::CONTEXT..=attr::IS_HW_DECOMPRESS_CAPABLE => Value::Word(0),
        _ => return Err(CUresult::INVALID_VALUE),
    })
}

/// # Safety
/// `to` has room for the attribute.
unsafe fn write(to: *mut c_void, value: Value) {
    // SAFETY: by this function's contract.
    unsafe {
        match value {
            Value::Word(v) => to.cast::<u64>().write_unaligned(v),
            Value::Half(v) => to.cast::<u32>().write_unaligned(v),
            Value::Tokens => to.cast::<[u32; 3]>().write_unaligned([0; 3]),
        }
    }
}

/// cuPointerGetAttribute. As with driver 580, it answers after a fault, too.
pub unsafe fn cuPointerGetAttribute(data: *mut c_void, attribute: u32, ptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(data)?;
        let range = process.ranges.find(ptr).ok_or(CUresult::INVALID_VALUE)?;
        let value = value(process, &range, ptr, attribute)?;
        // SAFETY: not NULL; CUDA's contract: room for the attribute.
        unsafe { write(data, value) };
        Ok(())
    })())
}

/// cuPointerGetAttributes: what cannot be told is 0.
pub unsafe fn cuPointerGetAttributes(
    count: u32,
    attributes: *const u32,
    data: *mut *mut c_void,
    ptr: CUdeviceptr,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(attributes.cast_mut())?;
        not_null(data)?;
        let range = process.ranges.find(ptr);
        for i in 0..count as usize {
            // SAFETY: i < count; CUDA's contract: as many attributes and places.
            let (attribute, to) = unsafe { (attributes.add(i).read(), data.add(i).read()) };
            not_null(to)?;
            let found = range.and_then(|r| value(process, &r, ptr, attribute).ok());
            let told = found.map_or_else(|| nothing(ptr, range.is_some(), attribute), Ok)?;
            // SAFETY: not NULL; CUDA's contract: room for the attribute.
            unsafe { write(to, told) };
        }
        Ok(())
    })())
}

/// cuPointerSetAttribute: SYNC_MEMOPS is what can be set. From then on the calls without a stream that would return before they are
/// done wait.
pub unsafe fn cuPointerSetAttribute(value: *const c_void, attribute: u32, ptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(value.cast_mut())?;
        if attribute != attr::SYNC_MEMOPS {
            return Err(CUresult::INVALID_VALUE);
        }
        let range = process.ranges.find(ptr).ok_or(CUresult::INVALID_VALUE)?;
        // SAFETY: not NULL; CUDA's contract: an unsigned int.
        let on = unsafe { value.cast::<u32>().read_unaligned() } != 0;
        if on {
            // What was begun on it before is done when this returns.
            crate::gate::wait_for(cuda_api::types::STREAM_LEGACY)?;
        }
        process.ranges.set_sync_memops(range.id, on);
        Ok(())
    })())
}

/// cuMemGetAddressRange.
pub unsafe fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    size: *mut usize,
    dptr: CUdeviceptr,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        let range = process.ranges.find(dptr).ok_or(CUresult::NOT_FOUND)?;
        // SAFETY: each is written only where the caller gave room for it.
        unsafe {
            if !base.is_null() {
                base.write(range.start);
            }
            if !size.is_null() {
                size.write(range.len as usize);
            }
        }
        Ok(())
    })())
}
