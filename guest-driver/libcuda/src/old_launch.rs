//! The launch interface of before CUDA 4.0, in which a function's launch is set up piece by piece, and the cooperative launch on
//! several devices, of which one device is left. Both end in the launches of today.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUfunction, CUstream, Handle as _, STREAM_DEFAULT, func_attribute};
use cuda_api::{CUresult, CuResult};

use crate::function::{self, FunctionRecord};
use crate::launch::{self, Shape, Way};
use crate::objects::lock;
use crate::process::initialised;

/// Bytes of parameters that this interface can set: more than any kernel has.
const PARAM_BYTES_MAX: usize = 32 << 10;

/// What is set up of a function's launch.
#[derive(Default)]
pub struct SetUp {
    block: [u32; 3],
    shared_bytes: u32,
    params: Vec<u8>,
    param_bytes: usize,
}

impl SetUp {
    /// Puts bytes into the parameter buffer.
    fn put(&mut self, offset: i32, bytes: &[u8]) -> CuResult<()> {
        let start = usize::try_from(offset).map_err(|_| CUresult::INVALID_VALUE)?;
        let end = start
            .checked_add(bytes.len())
            .filter(|end| *end <= PARAM_BYTES_MAX)
            .ok_or(CUresult::INVALID_VALUE)?;
        if self.params.len() < end {
            self.params.resize(end, 0);
        }
        self.params[start..end].copy_from_slice(bytes);
        Ok(())
    }

    /// The parameter buffer as a launch takes it.
    fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.params.clone();
        buffer.resize(self.param_bytes, 0);
        buffer
    }
}

fn record(f: CUfunction) -> CuResult<Arc<FunctionRecord>> {
    let process = initialised()?;
    process.alive()?;
    function::find(process, f.0)
}

fn set(f: CUfunction, change: impl FnOnce(&mut SetUp) -> CuResult<()>) -> CUresult {
    finish((|| change(lock(&record(f)?.set_up).get_or_insert_default()))())
}

/// cuFuncSetBlockShape.
pub unsafe fn cuFuncSetBlockShape(f: CUfunction, x: i32, y: i32, z: i32) -> CUresult {
    let most = record(f).and_then(|record| record.attribute(func_attribute::MAX_THREADS_PER_BLOCK as i32));
    set(f, |set_up| {
        let mut block = [0; 3];
        for (to, from) in block.iter_mut().zip([x, y, z]) {
            *to = u32::try_from(from).ok().filter(|n| *n != 0).ok_or(CUresult::INVALID_VALUE)?;
        }
        let threads: u64 = block.iter().map(|n| u64::from(*n)).fold(1, u64::saturating_mul);
        if threads > u64::try_from(most?).unwrap_or(0) {
            return Err(CUresult::INVALID_VALUE);
        }
        set_up.block = block;
        Ok(())
    })
}

/// cuFuncSetSharedSize.
pub unsafe fn cuFuncSetSharedSize(f: CUfunction, bytes: u32) -> CUresult {
    set(f, |set_up| {
        set_up.shared_bytes = bytes;
        Ok(())
    })
}

/// cuParamSetSize.
pub unsafe fn cuParamSetSize(f: CUfunction, bytes: u32) -> CUresult {
    set(f, |set_up| {
        let bytes = bytes as usize;
        if bytes > PARAM_BYTES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        set_up.param_bytes = bytes;
        Ok(())
    })
}

/// cuParamSeti.
pub unsafe fn cuParamSeti(f: CUfunction, offset: i32, value: u32) -> CUresult {
    set(f, |set_up| set_up.put(offset, &value.to_ne_bytes()))
}

/// cuParamSetf.
pub unsafe fn cuParamSetf(f: CUfunction, offset: i32, value: f32) -> CUresult {
    set(f, |set_up| set_up.put(offset, &value.to_ne_bytes()))
}

/// cuParamSetv.
pub unsafe fn cuParamSetv(f: CUfunction, offset: i32, from: *mut c_void, bytes: u32) -> CUresult {
    set(f, |set_up| {
        not_null(from)?;
        if bytes as usize > PARAM_BYTES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: not NULL; as many bytes as the caller says, by CUDA's contract.
        set_up.put(offset, unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes as usize) })
    })
}

/// CU_LAUNCH_PARAM_BUFFER_POINTER, …_BUFFER_SIZE and …_END.
const PARAM_POINTER: *const u8 = std::ptr::without_provenance(1);
const PARAM_SIZE: *const u8 = std::ptr::without_provenance(2);
const PARAM_END: *const u8 = std::ptr::null();

fn launch_grid(f: CUfunction, width: i32, height: i32, stream: CUstream) -> CUresult {
    finish((|| {
        let record = record(f)?;
        let grid = |n: i32| u32::try_from(n).ok().filter(|n| *n != 0).ok_or(CUresult::INVALID_VALUE);
        let grid = [grid(width)?, grid(height)?, 1];
        let (shape, buffer) = {
            let mut set_up = lock(&record.set_up);
            let set_up = set_up.get_or_insert_default();
            let shape = Shape { grid, block: set_up.block, shared_bytes: set_up.shared_bytes };
            (shape, set_up.buffer())
        };
        let size = buffer.len();
        let extra = [PARAM_POINTER, buffer.as_ptr(), PARAM_SIZE, (&raw const size).cast(), PARAM_END];
        // SAFETY: the five words are what `extra` of cuLaunchKernel is: the buffer's address and its size, which outlive the call.
        unsafe { launch::launch(f, shape, stream, std::ptr::null(), extra.as_ptr(), &Way::Plain) }
    })())
}

/// cuLaunch: one block.
pub unsafe fn cuLaunch(f: CUfunction) -> CUresult {
    launch_grid(f, 1, 1, STREAM_DEFAULT)
}

/// cuLaunchGrid.
pub unsafe fn cuLaunchGrid(f: CUfunction, width: i32, height: i32) -> CUresult {
    launch_grid(f, width, height, STREAM_DEFAULT)
}

/// cuLaunchGridAsync.
pub unsafe fn cuLaunchGridAsync(f: CUfunction, width: i32, height: i32, stream: CUstream) -> CUresult {
    launch_grid(f, width, height, stream)
}

/// CUDA_LAUNCH_PARAMS.
#[repr(C)]
struct LaunchParams {
    function: CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: CUstream,
    params: *const *const u8,
}

/// CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC and …_NO_POST_LAUNCH_SYNC: of one device there is none to leave out.
const MULTI_DEVICE_FLAGS: u32 = 3;

/// cuLaunchCooperativeKernelMultiDevice.
pub unsafe fn cuLaunchCooperativeKernelMultiDevice(list: *mut c_void, devices: u32, flags: u32) -> CUresult {
    finish((|| {
        initialised()?.alive()?;
        not_null(list)?;
        if devices == 0 || flags & !MULTI_DEVICE_FLAGS != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if devices > 1 {
            crate::log::once("cuLaunchCooperativeKernelMultiDevice", || {
                "cuLaunchCooperativeKernelMultiDevice: more than one device is not supported".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
        // SAFETY: not NULL; a CUDA_LAUNCH_PARAMS by CUDA's contract.
        let one = unsafe { list.cast::<LaunchParams>().read_unaligned() };
        // The default streams have no place in it (CUDA Driver API, cuLaunchCooperativeKernelMultiDevice).
        if CUstream::SPECIAL.contains(&one.stream.0) {
            return Err(CUresult::INVALID_HANDLE);
        }
        let shape = Shape { grid: one.grid, block: one.block, shared_bytes: one.shared_bytes };
        // SAFETY: CUDA's contract with the caller.
        unsafe {
            launch::launch(one.function, shape, one.stream, one.params, std::ptr::null(), &Way::Cooperative)
        }
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_put_where_they_are_wanted() {
        let mut set_up = SetUp::default();
        set_up.put(8, &7u32.to_ne_bytes()).unwrap();
        set_up.put(0, &[1, 2]).unwrap();
        for (offset, len) in [(-1, 4), (i32::MAX, 4), (PARAM_BYTES_MAX as i32 - 3, 4)] {
            assert_eq!(set_up.put(offset, &vec![0; len]), Err(CUresult::INVALID_VALUE), "{offset}");
        }
        set_up.param_bytes = 16;
        let mut expected = [0u8; 16];
        expected[..2].copy_from_slice(&[1, 2]);
        expected[8..12].copy_from_slice(&7u32.to_ne_bytes());
        assert_eq!(set_up.buffer(), expected);
        set_up.param_bytes = 1;
        assert_eq!(set_up.buffer(), [1]);
    }
}
