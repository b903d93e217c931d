//! Kernel launch: checked here against everything that the driver refuses at once, then posted.

use std::ffi::c_void;

use cuda_api::calls::launch::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUfunction, CUstream, attribute, func_attribute};
use cuda_api::{CUresult, CuResult};

use crate::function::{self, FunctionRecord};
use crate::gate;
use crate::process::Process;

/// A launch's shape.
#[derive(Clone, Copy)]
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
}

/// What the driver refuses at once: empty or too large grids and blocks, too much shared memory (CUDA_ERROR_INVALID_VALUE).
fn check(process: &Process, record: &FunctionRecord, context: u64, shape: &Shape) -> CuResult<()> {
    let ordinal = process.objects.contexts.get(context).map_or(0, |c| c.device);
    let device = process.device(ordinal)?;
    let within = |values: [u32; 3], first: i32| -> CuResult<bool> {
        for (value, number) in values.into_iter().zip(first..) {
            let limit = u32::try_from(device.attribute(number)?).unwrap_or(0);
            if value == 0 || value > limit {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let threads = shape.block.iter().map(|d| u64::from(*d)).product::<u64>();
    let most = u64::try_from(record.attribute(func_attribute::MAX_THREADS_PER_BLOCK as i32)?).unwrap_or(0);
    let dynamic =
        u64::try_from(record.attribute(func_attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES as i32)?).unwrap_or(0);
    let fits = within(shape.grid, attribute::MAX_GRID_DIM_X)?
        && within(shape.block, attribute::MAX_BLOCK_DIM_X)?
        && threads <= most
        && u64::from(shape.shared_bytes) <= dynamic;
    if fits { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
}

/// How a checked launch travels.
enum Way<'a> {
    Posted,
    Attributes(&'a [u8]),
    Cooperative,
}

/// # Safety
/// `params` and `extra` are what CUDA's documentation of cuLaunchKernel says.
#[inline]
unsafe fn launch(
    f: CUfunction,
    shape: Shape,
    stream: CUstream,
    params: *const *const u8,
    extra: *const *const u8,
    way: &Way<'_>,
) -> CuResult<()> {
    gate::with_ring(|process, lane| {
        process.alive()?;
        if f.is_null() {
            return Err(CUresult::INVALID_HANDLE);
        }
        lane.needs_context()?;
        process.objects.check(stream)?;
        let context = lane.context;
        let mut buffer = function::params_buffer(lane.state);
        let outcome = (|| {
            let record = function::find_remembered(process, &mut lane.state.functions, f.0)?;
            check(process, record, context, &shape)?;
            // SAFETY: this function's contract is the callee's.
            unsafe { function::lay_out(&mut buffer, record, params, extra) }?;
            let Shape { grid, block, shared_bytes } = shape;
            match way {
                Way::Posted => {
                    lane.post::<row::cuLaunchKernel>(&(f, grid, block, shared_bytes, stream, &buffer), false)
                }
                Way::Attributes(attributes) => lane.post::<row::cuLaunchKernelEx>(
                    &(f, grid, block, shared_bytes, stream, attributes, &buffer),
                    false,
                ),
                Way::Cooperative => lane.call::<row::cuLaunchCooperativeKernel>(
                    &(f, grid, block, shared_bytes, stream, &buffer),
                    false,
                ),
            }
        })();
        lane.state.params = buffer;
        outcome
    })
}

/// cuLaunchKernel.
pub unsafe fn cuLaunchKernel(
    f: CUfunction,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { launch(f, shape, stream, params.cast(), extra.cast(), &Way::Posted) })
}

/// cuLaunchCooperativeKernel.
pub unsafe fn cuLaunchCooperativeKernel(
    f: CUfunction,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: CUstream,
    params: *mut *mut c_void,
) -> CUresult {
    let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], shared_bytes };
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { launch(f, shape, stream, params.cast(), std::ptr::null(), &Way::Cooperative) })
}

/// CUlaunchConfig.
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: CUstream,
    attributes: *const u8,
    attribute_count: u32,
}

/// Bytes of a CUlaunchAttribute: number, padding, 64 bytes of value.
const ATTRIBUTE_BYTES: usize = 72;
/// Attributes that one launch may have. CUDA 13.0 knows 17 of them.
const ATTRIBUTES_MAX: u32 = 64;
/// CU_LAUNCH_ATTRIBUTE_COOPERATIVE.
const ATTRIBUTE_COOPERATIVE: u32 = 2;
/// CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE: a handle comes back.
const ATTRIBUTE_DEVICE_UPDATABLE: u32 = 13;

/// # Safety
/// `config` is NULL or a CUlaunchConfig whose attributes are as many as it says.
unsafe fn read_config(config: *const c_void) -> CuResult<(LaunchConfig, &'static [u8])> {
    not_null(config.cast_mut())?;
    // SAFETY: not NULL; a CUlaunchConfig by this function's contract.
    let config = unsafe { config.cast::<LaunchConfig>().read_unaligned() };
    if config.attribute_count > ATTRIBUTES_MAX || (config.attributes.is_null() && config.attribute_count != 0)
    {
        return Err(CUresult::INVALID_VALUE);
    }
    let attributes = if config.attribute_count == 0 {
        &[][..]
    } else {
        // SAFETY: that many records by the caller's word; they live until the call returns, and nothing keeps the slice longer.
        unsafe {
            std::slice::from_raw_parts(config.attributes, config.attribute_count as usize * ATTRIBUTE_BYTES)
        }
    };
    for attribute in attributes.chunks_exact(ATTRIBUTE_BYTES) {
        let number = u32::from_ne_bytes([attribute[0], attribute[1], attribute[2], attribute[3]]);
        if number == ATTRIBUTE_DEVICE_UPDATABLE {
            crate::log::once("launch attribute 13", || {
                "launch attribute 13 (device-updatable node) is not supported".into()
            });
            return Err(CUresult::NOT_SUPPORTED);
        }
    }
    Ok((config, attributes))
}

/// cuLaunchKernelEx.
pub unsafe fn cuLaunchKernelEx(
    config: *const c_void,
    f: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    finish((|| {
        // SAFETY: CUDA's contract with the caller.
        let (config, attributes) = unsafe { read_config(config) }?;
        let shape = Shape { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes };
        let stream = if crate::thread::default_stream() == cuda_api::types::STREAM_PER_THREAD {
            crate::exports::PerThread::per_thread(config.stream)
        } else {
            config.stream
        };
        let cooperative = attributes.chunks_exact(ATTRIBUTE_BYTES).any(|a| {
            u32::from_ne_bytes([a[0], a[1], a[2], a[3]]) == ATTRIBUTE_COOPERATIVE && a[8..12] != [0; 4]
        });
        let way = if cooperative {
            Way::Cooperative
        } else if attributes.is_empty() {
            Way::Posted
        } else {
            Way::Attributes(attributes)
        };
        // SAFETY: CUDA's contract with the caller.
        unsafe { launch(f, shape, stream, params.cast(), extra.cast(), &way) }
    })())
}

/// cuOccupancyMaxActiveClusters.
pub unsafe fn cuOccupancyMaxActiveClusters(
    clusters: *mut i32,
    f: CUfunction,
    config: *const c_void,
) -> CUresult {
    finish((|| {
        not_null(clusters)?;
        crate::process::initialised()?.objects.check(f)?;
        // SAFETY: CUDA's contract with the caller.
        let (config, attributes) = unsafe { read_config(config) }?;
        let found = gate::call::<row::cuOccupancyMaxActiveClusters>((
            f,
            config.grid,
            config.block,
            config.shared_bytes,
            attributes,
        ))?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { clusters.write(found) };
        Ok(())
    })())
}
