//! Memory and events of other processes of this VM. The 64 bytes that a program passes around are a token of the host's: they
//! are looked up there and mean nothing anywhere else.

use cuda_api::calls::interop::row;
use cuda_api::calls::memory::row::vgpuPointerAttribute;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUdeviceptr, CUevent, CUipcHandle, pointer_attribute};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::{Process, initialised};
use crate::ranges::{Range, RangeKind};
use crate::thread;

/// CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED: memory is shared where events are.
const IPC_EVENT_SUPPORTED: i32 = 125;

/// Other processes may open the range's memory.
pub fn is_capable(range: &Range) -> bool {
    let supported = |process: &Process| {
        process.device(range.device).and_then(|device| device.attribute(IPC_EVENT_SUPPORTED))
    };
    range.kind == RangeKind::Device && initialised().and_then(supported).is_ok_and(|value| value == 1)
}

/// How often another address is asked for before opening fails.
const CLASHES_MAX: usize = 16;

/// cuIpcGetMemHandle: any address of an allocation stands for all of it.
pub unsafe fn cuIpcGetMemHandle(handle: *mut CUipcHandle, dptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(handle)?;
        match process.ranges.find(dptr) {
            Some(range) if range.kind == RangeKind::Device => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        crate::freed::keep_no_more();
        let token = gate::call::<row::cuIpcGetMemHandle>((dptr,))?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { handle.write(token) };
        Ok(())
    })())
}

/// The device that the driver says an address lies on, as far as this process sees it: another process may share memory of any.
fn lies_on(process: &Process, address: u64) -> Option<i32> {
    if process.devices().len() < 2 {
        return None;
    }
    let told = gate::call::<vgpuPointerAttribute>((address, pointer_attribute::DEVICE_ORDINAL)).ok()?;
    process.guest_ordinal(told as i32)
}

fn open(process: &Process, token: &CUipcHandle, flags: u32) -> CuResult<CUdeviceptr> {
    let context = crate::context::current()?;
    let device = crate::context::device_of(context).map_err(|_| CUresult::CONTEXT_IS_DESTROYED)?;
    let mut avoid = Vec::new();
    for _ in 0..CLASHES_MAX {
        let (at, len, first) = gate::call::<row::cuIpcOpenMemHandle_v2>((token, flags, &avoid))?;
        if !first {
            return Ok(at);
        }
        if process.reservations.hold(at, len).is_ok() {
            let device = lies_on(process, at).unwrap_or(device);
            process.ranges.insert(Range {
                start: at,
                len,
                kind: RangeKind::Imported,
                context: context.0,
                device,
                id: 0,
                read_only: false,
                owner: 0,
            });
            return Ok(at);
        }
        // Something of the process's own lies there: elsewhere, then.
        gate::call::<row::cuIpcCloseMemHandle>((at,))?;
        avoid.extend_from_slice(&at.to_le_bytes());
        avoid.extend_from_slice(&len.to_le_bytes());
    }
    Err(CUresult::OUT_OF_MEMORY)
}

/// cuIpcOpenMemHandle.
pub unsafe fn cuIpcOpenMemHandle_v2(dptr: *mut CUdeviceptr, handle: CUipcHandle, flags: u32) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(dptr)?;
        let at = open(process, &handle, flags)?;
        // SAFETY: not NULL; room for an address by CUDA's contract.
        unsafe { dptr.write(at) };
        Ok(())
    })())
}

/// cuIpcCloseMemHandle. The memory is there until it has been closed as often as it was opened.
pub unsafe fn cuIpcCloseMemHandle(dptr: CUdeviceptr) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        match process.ranges.find(dptr) {
            Some(range) if range.start == dptr && range.kind == RangeKind::Imported => {}
            _ => return Err(CUresult::INVALID_VALUE),
        }
        if gate::call::<row::cuIpcCloseMemHandle>((dptr,))?
            && let Some(range) = process.ranges.remove(dptr)
        {
            process.reservations.release(range.start, range.len);
        }
        Ok(())
    })())
}

/// cuIpcGetEventHandle.
pub unsafe fn cuIpcGetEventHandle(handle: *mut CUipcHandle, event: CUevent) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(handle)?;
        process.objects.check(event)?;
        crate::waiting::others_record(event);
        let token = gate::call::<row::cuIpcGetEventHandle>((event,))?;
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { handle.write(token) };
        Ok(())
    })())
}

/// cuIpcOpenEventHandle.
pub unsafe fn cuIpcOpenEventHandle(to: *mut CUevent, handle: CUipcHandle) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let event: CUevent = process.objects.insert_plain(thread::current_context().0)?;
        if let Err(error) = gate::call::<row::cuIpcOpenEventHandle>((event, &handle)) {
            process.objects.remove_plain(event);
            return Err(error);
        }
        crate::waiting::others_record(event);
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(event) };
        Ok(())
    })())
}
