//! Batches of copies. Their copies come in no order, so those with pageable ends go one by one, and those whose ends the worker
//! knows go to the driver together.

use cuda_api::calls::copy::row;
use cuda_api::calls::texture::row::cuArray3DGetDescriptor_v2;
use cuda_api::guest::not_null;
use cuda_api::host::Access;
use cuda_api::types::{
    BatchCopy, CUDA_MEMCPY3D, CUDA_MEMCPY3D_BATCH_OP, CUarray, CUdeviceptr, CUmemcpy3DOperand,
    CUmemcpyAttributes, CUstream, Copy3dEnd, STREAM_DEFAULT, STREAM_LEGACY, format_bytes, memory_type,
};
use cuda_api::{CUresult, CuResult};

use crate::copy::{device_to_host, host_to_device, ready, within_host};
use crate::copy_shape::{self, Manner};
use crate::gate;
use crate::process::{Process, initialised};

/// Copies in a frame.
const FRAME_COPIES: usize = 512;
/// Copies in a batch: what they are is kept until all are checked.
const COPIES_MAX: usize = 1 << 20;

/// CUmemcpySrcAccessOrder: in stream order, during the call, any.
const ORDERS: std::ops::RangeInclusive<u32> = 1..=3;
const DURING_THE_CALL: u32 = 2;
/// CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE.
const FLAGS: u32 = 1;

/// CUmemcpy3DOperandType.
const POINTER: u32 = 1;
const ARRAY: u32 = 2;

/// A failure, and the copy of the batch that it is about.
type Failure = (CUresult, Option<usize>);

fn general(error: CUresult) -> Failure {
    (error, None)
}

/// The answer, and where the caller wants to know it, which copy failed: none has, where none is to blame.
///
/// # Safety
/// `fail` has room for a number, or is NULL.
unsafe fn answer(outcome: Result<(), Failure>, fail: *mut usize) -> CUresult {
    let (result, at) = outcome.err().unwrap_or((CUresult::SUCCESS, None));
    if !fail.is_null() {
        // SAFETY: not NULL; by this function's contract.
        unsafe { fail.write(at.unwrap_or(usize::MAX)) };
    }
    result
}

/// Batches are refused in the legacy default stream.
fn check_stream(stream: CUstream) -> CuResult<()> {
    if matches!(stream, STREAM_DEFAULT | STREAM_LEGACY) {
        return Err(CUresult::INVALID_VALUE);
    }
    initialised()?.objects.check(stream)
}

fn check_manner(order: u32, flags: u32) -> CuResult<()> {
    if ORDERS.contains(&order) && flags & !FLAGS == 0 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// What the ends of a copy are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The worker knows both.
    Known,
    FromHost,
    ToHost,
    WithinHost,
}

fn way(process: &Process, copy: &BatchCopy) -> CuResult<Way> {
    let known = |at: u64| process.ranges.find(at).is_some();
    let way = match (known(copy.dst), known(copy.src)) {
        _ if copy.len == 0 => return Ok(Way::Known),
        (true, true) => Way::Known,
        (true, false) => Way::FromHost,
        (false, true) => Way::ToHost,
        (false, false) => Way::WithinHost,
    };
    if matches!(way, Way::Known | Way::FromHost) {
        process.ranges.check(copy.dst, copy.len, Access::Write)?;
    } else if copy.dst == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    if matches!(way, Way::Known | Way::ToHost) {
        process.ranges.check(copy.src, copy.len, Access::Read)?;
    } else if copy.src == 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    Ok(way)
}

/// The caller's lists, put together.
///
/// # Safety
/// The arrays have as many elements as CUDA asks for.
unsafe fn gather(
    lists: [*const u64; 2],
    sizes: *const usize,
    count: usize,
    attributes: *const CUmemcpyAttributes,
    first: *const usize,
    attribute_count: usize,
) -> CuResult<Vec<BatchCopy>> {
    let refused = Err(CUresult::INVALID_VALUE);
    let [dsts, srcs] = lists;
    let null = dsts.is_null() || srcs.is_null() || sizes.is_null() || attributes.is_null() || first.is_null();
    if null || count == 0 || count > COPIES_MAX || attribute_count == 0 || attribute_count > count {
        return refused;
    }
    let mut copies = Vec::with_capacity(count);
    for k in 0..attribute_count {
        // SAFETY: k < attribute_count, by this function's contract.
        let (attribute, begin) =
            unsafe { (attributes.add(k).read_unaligned(), first.add(k).read_unaligned()) };
        check_manner(attribute.src_access_order, attribute.flags)?;
        let end = if k + 1 < attribute_count {
            // SAFETY: k + 1 < attribute_count, by this function's contract.
            unsafe { first.add(k + 1).read_unaligned() }
        } else {
            count
        };
        if begin != copies.len() || end <= begin || end > count {
            return refused;
        }
        for i in begin..end {
            // SAFETY: i < count, by this function's contract.
            let (dst, src, len) = unsafe {
                (dsts.add(i).read_unaligned(), srcs.add(i).read_unaligned(), sizes.add(i).read_unaligned())
            };
            let (order, flags) = (attribute.src_access_order, attribute.flags);
            copies.push(BatchCopy { dst, src, len: len as u64, order, flags });
        }
    }
    Ok(copies)
}

/// # Safety
/// Host ends are as long as their copies.
unsafe fn carry_out(copies: &[BatchCopy], stream: CUstream) -> Result<(), Failure> {
    let process = initialised().map_err(general)?;
    gate::with_ring(|process, lane| ready(process, lane)).map_err(general)?;
    let mut known = Vec::with_capacity(copies.len());
    let mut others = Vec::new();
    for (i, copy) in copies.iter().enumerate() {
        match way(process, copy).map_err(|error| (error, Some(i)))? {
            Way::Known => known.push(*copy),
            way => others.push((i, way, copy)),
        }
    }
    for part in known.chunks(FRAME_COPIES) {
        gate::call::<row::vgpuCopyBatch>((part, part.len(), stream)).map_err(general)?;
    }
    for (i, way, copy) in others {
        let len = copy.len as usize;
        // SAFETY: by this function's contract.
        let outcome = unsafe {
            match way {
                Way::FromHost => host_to_device(copy.dst, copy.src as *const u8, len, Some(stream)),
                Way::ToHost => device_to_host(copy.dst as *mut u8, copy.src, len, Some(stream)),
                _ => gate::wait_for(stream).and_then(|()| within_host(copy.dst, copy.src, len)),
            }
        };
        outcome.map_err(|error| (error, Some(i)))?;
    }
    Ok(())
}

/// cuMemcpyBatchAsync of CUDA 12.8.
pub unsafe fn cuMemcpyBatchAsync(
    dsts: *const CUdeviceptr,
    srcs: *const CUdeviceptr,
    sizes: *const usize,
    count: usize,
    attributes: *const CUmemcpyAttributes,
    first: *const usize,
    attribute_count: usize,
    fail: *mut usize,
    stream: CUstream,
) -> CUresult {
    let outcome = (|| {
        check_stream(stream).map_err(general)?;
        // SAFETY: CUDA's contract with the caller.
        unsafe {
            let copies =
                gather([dsts, srcs], sizes, count, attributes, first, attribute_count).map_err(general)?;
            carry_out(&copies, stream)
        }
    })();
    // SAFETY: CUDA's contract with the caller.
    unsafe { answer(outcome, fail) }
}

/// cuMemcpyBatchAsync.
pub unsafe fn cuMemcpyBatchAsync_v2(
    dsts: *const CUdeviceptr,
    srcs: *const CUdeviceptr,
    sizes: *const usize,
    count: usize,
    attributes: *const CUmemcpyAttributes,
    first: *const usize,
    attribute_count: usize,
    stream: CUstream,
) -> CUresult {
    let none = std::ptr::null_mut();
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuMemcpyBatchAsync(dsts, srcs, sizes, count, attributes, first, attribute_count, none, stream) }
}

/// Bytes of an array's element.
fn element_bytes(array: CUarray) -> CuResult<u64> {
    initialised()?.objects.check(array)?;
    let descriptor = gate::call::<cuArray3DGetDescriptor_v2>((array,))?;
    format_bytes(descriptor.format, descriptor.num_channels).ok_or(CUresult::NOT_SUPPORTED)
}

fn size(value: Option<u64>) -> CuResult<usize> {
    value.and_then(|v| usize::try_from(v).ok()).ok_or(CUresult::INVALID_VALUE)
}

/// An operand as an end of a copy, `element` bytes an element.
fn end(operand: &CUmemcpy3DOperand, extent: [u64; 3], element: u64) -> CuResult<Copy3dEnd> {
    match (operand.kind, operand.fields) {
        (POINTER, [address, row, rows, _]) => {
            let or = |value: u64, tight: u64| if value == 0 { tight } else { value };
            let (row, rows) = (or(row, extent[0]), or(rows, extent[1]));
            Ok(Copy3dEnd {
                memory_type: memory_type::UNIFIED,
                device: address,
                pitch: size(row.checked_mul(element))?,
                rows: size(Some(rows))?,
                ..Copy3dEnd::default()
            })
        }
        (ARRAY, [array, x, y, z]) => Ok(Copy3dEnd {
            memory_type: memory_type::ARRAY,
            array,
            x: size(x.checked_mul(element))?,
            y: size(Some(y))?,
            z: size(Some(z))?,
            ..Copy3dEnd::default()
        }),
        _ => Err(CUresult::INVALID_VALUE),
    }
}

fn of_operation(op: &CUDA_MEMCPY3D_BATCH_OP) -> CuResult<CUDA_MEMCPY3D> {
    check_manner(op.src_access_order, op.flags)?;
    if op.extent.contains(&0) {
        return Err(CUresult::INVALID_VALUE);
    }
    let of = |operand: &CUmemcpy3DOperand| match operand.kind {
        ARRAY => element_bytes(CUarray(operand.fields[0])).map(Some),
        _ => Ok(None),
    };
    let element = match (of(&op.dst)?, of(&op.src)?) {
        (Some(to), Some(from)) if to != from => return Err(CUresult::INVALID_VALUE),
        (Some(bytes), _) | (None, Some(bytes)) => bytes,
        (None, None) => 1,
    };
    Ok(CUDA_MEMCPY3D {
        src: end(&op.src, op.extent, element)?,
        dst: end(&op.dst, op.extent, element)?,
        width: size(op.extent[0].checked_mul(element))?,
        height: size(Some(op.extent[1]))?,
        depth: size(Some(op.extent[2]))?,
    })
}

/// cuMemcpy3DBatchAsync of CUDA 12.8.
pub unsafe fn cuMemcpy3DBatchAsync(
    count: usize,
    operations: *const CUDA_MEMCPY3D_BATCH_OP,
    fail: *mut usize,
    flags: u64,
    stream: CUstream,
) -> CUresult {
    let outcome = (|| {
        check_stream(stream).map_err(general)?;
        not_null(operations.cast_mut()).map_err(general)?;
        if count == 0 || count > COPIES_MAX || flags != 0 {
            return Err(general(CUresult::INVALID_VALUE));
        }
        let mut copies = Vec::with_capacity(count);
        let mut during_the_call = false;
        for i in 0..count {
            // SAFETY: i < count elements, by CUDA's contract with the caller.
            let operation = unsafe { operations.add(i).read_unaligned() };
            during_the_call |= operation.src_access_order == DURING_THE_CALL;
            copies.push(of_operation(&operation).map_err(|error| (error, Some(i)))?);
        }
        for (i, copy) in copies.iter().enumerate() {
            let manner = Manner { stream: Some(stream), peer: false, batch: true };
            // SAFETY: CUDA's contract with the caller.
            unsafe { copy_shape::copy(copy, manner) }.map_err(|error| (error, Some(i)))?;
        }
        if during_the_call { gate::wait_for(stream).map_err(general) } else { Ok(()) }
    })();
    // SAFETY: CUDA's contract with the caller.
    unsafe { answer(outcome, fail) }
}

/// cuMemcpy3DBatchAsync.
pub unsafe fn cuMemcpy3DBatchAsync_v2(
    count: usize,
    operations: *const CUDA_MEMCPY3D_BATCH_OP,
    flags: u64,
    stream: CUstream,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    unsafe { cuMemcpy3DBatchAsync(count, operations, std::ptr::null_mut(), flags, stream) }
}
