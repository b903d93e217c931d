//! What an address is: answered from the process's own ranges.

use std::ffi::c_void;

use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUdeviceptr, pointer_attribute as attr};
use cuda_api::{CUresult, CuResult};

use crate::process::initialised;
use crate::ranges::{Range, RangeKind};

const MEMORY_TYPE_HOST: u32 = 1;
const MEMORY_TYPE_DEVICE: u32 = 2;
/// CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE and _READ.
const ACCESS_READ_WRITE: u32 = 3;
const ACCESS_READ: u32 = 1;
/// What cuPointerGetAttributes says of the device of memory that is none of CUDA's (CU_DEVICE_INVALID).
const DEVICE_INVALID: i32 = -2;

/// A value and the bytes it is written in.
enum Value {
    Word(u64),
    Half(u32),
    Byte(u8),
}

fn value(range: &Range, address: u64, attribute: u32) -> CuResult<Value> {
    let host = range.kind.is_host();
    Ok(match attribute {
        attr::CONTEXT => Value::Word(range.context),
        attr::MEMORY_TYPE => Value::Half(if host { MEMORY_TYPE_HOST } else { MEMORY_TYPE_DEVICE }),
        attr::DEVICE_POINTER => Value::Word(address),
        attr::HOST_POINTER if host => Value::Word(address),
        attr::SYNC_MEMOPS => Value::Byte(0),
        attr::BUFFER_ID => Value::Word(range.id),
        attr::IS_MANAGED => Value::Half(0),
        attr::DEVICE_ORDINAL => Value::Half(range.device as u32),
        attr::IS_LEGACY_IPC_CAPABLE | attr::IS_GPU_DIRECT_RDMA_CAPABLE => Value::Byte(0),
        attr::RANGE_START_ADDR => Value::Word(range.start),
        attr::RANGE_SIZE => Value::Word(range.len),
        attr::MAPPED => Value::Byte(u8::from(range.kind != RangeKind::Reserved)),
        attr::ALLOWED_HANDLE_TYPES => Value::Word(0),
        attr::ACCESS_FLAGS => Value::Half(if range.read_only { ACCESS_READ } else { ACCESS_READ_WRITE }),
        attr::MEMPOOL_HANDLE => Value::Word(0),
        attr::MAPPING_SIZE => Value::Word(range.len),
        attr::MAPPING_BASE_ADDR => Value::Word(range.start),
        attr::MEMORY_BLOCK_ID => Value::Word(range.id),
        _ => return Err(CUresult::INVALID_VALUE),
    })
}

/// What cuPointerGetAttributes writes for an address that is none of CUDA's.
fn nothing(attribute: u32) -> Value {
    match attribute {
        attr::DEVICE_ORDINAL => Value::Half(DEVICE_INVALID as u32),
        attr::MEMORY_TYPE | attr::IS_MANAGED | attr::ACCESS_FLAGS => Value::Half(0),
        attr::SYNC_MEMOPS | attr::IS_LEGACY_IPC_CAPABLE | attr::IS_GPU_DIRECT_RDMA_CAPABLE | attr::MAPPED => {
            Value::Byte(0)
        }
        _ => Value::Word(0),
    }
}

/// # Safety
/// `to` has room for the attribute.
unsafe fn write(to: *mut c_void, value: Value) {
    // SAFETY: by this function's contract.
    unsafe {
        match value {
            Value::Word(v) => to.cast::<u64>().write_unaligned(v),
            Value::Half(v) => to.cast::<u32>().write_unaligned(v),
            Value::Byte(v) => to.cast::<u8>().write(v),
        }
    }
}

/// cuPointerGetAttribute. As with driver 580, it answers after a fault, too.
pub unsafe fn cuPointerGetAttribute(data: *mut c_void, attribute: u32, ptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(data)?;
        let range = process.ranges.find(ptr).ok_or(CUresult::INVALID_VALUE)?;
        let value = value(&range, ptr, attribute)?;
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
            let found = range.and_then(|r| value(&r, ptr, attribute).ok());
            // SAFETY: not NULL; CUDA's contract: room for the attribute.
            unsafe { write(to, found.unwrap_or_else(|| nothing(attribute))) };
        }
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
