//! Occupancy questions with a search in them.
//!
//! The best block size is found here: its callback is the program's, so it is called here, and the worker is asked for the resident
//! blocks of each size. The search is the one that CUDA publishes with its runtime (`cudaOccupancyMaxPotentialBlockSize`): from the
//! largest block down by warps, the first with the most resident threads.

use std::ffi::c_void;

use cuda_api::calls::launch::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUfunction, attribute, func_attribute};
use cuda_api::{CUresult, CuResult};

use crate::process::initialised;
use crate::{function, gate, launch};

/// CUoccupancyB2DSize.
type SharedOf = unsafe extern "C" fn(block_size: i32) -> usize;

/// A search's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Best {
    block: i32,
    resident: i32,
}

/// The search. `resident` says how many blocks of a size a multiprocessor holds.
fn search(
    limit: i32,
    warp: i32,
    multiprocessor_threads: i32,
    mut resident: impl FnMut(i32) -> CuResult<i32>,
) -> CuResult<Best> {
    let (mut best, mut most) = (Best::default(), 0);
    let warp = warp.max(1);
    let mut aligned = (limit + warp - 1) / warp * warp;
    while aligned > 0 && most < multiprocessor_threads {
        let block = aligned.min(limit);
        let blocks = resident(block)?;
        if blocks.saturating_mul(block) > most {
            most = blocks.saturating_mul(block);
            best = Best { block, resident: blocks };
        }
        aligned -= warp;
    }
    Ok(best)
}

/// # Safety
/// As for the entry point.
unsafe fn potential_block_size(
    min_grid: *mut i32,
    block: *mut i32,
    f: CUfunction,
    shared_of: *const c_void,
    shared_bytes: usize,
    limit: i32,
    flags: u32,
) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    not_null(min_grid)?;
    not_null(block)?;
    if limit < 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    let record = function::find(process, f.0)?;
    let device = process.device(crate::context::device_of(crate::context::current()?)?)?;
    let most = record
        .attribute(func_attribute::MAX_THREADS_PER_BLOCK as i32)?
        .min(device.attribute(attribute::MAX_THREADS_PER_BLOCK)?);
    let limit = if limit == 0 { most } else { limit.min(most) };
    // SAFETY: NULL or a CUoccupancyB2DSize by CUDA's contract; both are a pointer's size.
    let shared_of = unsafe { std::mem::transmute::<*const c_void, Option<SharedOf>>(shared_of) };
    let best = search(
        limit,
        device.attribute(attribute::WARP_SIZE)?,
        device.attribute(attribute::MAX_THREADS_PER_MULTIPROCESSOR)?,
        |size| {
            // SAFETY: the program's own function, called as CUDA says.
            let shared = shared_of.map_or(shared_bytes, |f| unsafe { f(size) });
            gate::call::<row::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags>((f, size, shared, flags))
        },
    )?;
    let multiprocessors = device.attribute(attribute::MULTIPROCESSOR_COUNT)?;
    // SAFETY: not NULL; room for an int each by CUDA's contract.
    unsafe {
        min_grid.write(best.resident.saturating_mul(multiprocessors));
        block.write(best.block);
    }
    Ok(())
}

/// cuOccupancyMaxPotentialBlockSize.
pub unsafe fn cuOccupancyMaxPotentialBlockSize(
    min_grid: *mut i32,
    block: *mut i32,
    f: CUfunction,
    shared_of: *const c_void,
    shared_bytes: usize,
    limit: i32,
) -> CUresult {
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { potential_block_size(min_grid, block, f, shared_of, shared_bytes, limit, 0) })
}

/// cuOccupancyMaxPotentialBlockSizeWithFlags.
pub unsafe fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    min_grid: *mut i32,
    block: *mut i32,
    f: CUfunction,
    shared_of: *const c_void,
    shared_bytes: usize,
    limit: i32,
    flags: u32,
) -> CUresult {
    // CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE is the only one.
    if flags > 1 {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: CUDA's contract with the caller.
    finish(unsafe { potential_block_size(min_grid, block, f, shared_of, shared_bytes, limit, flags) })
}

/// cuOccupancyMaxPotentialClusterSize.
pub unsafe fn cuOccupancyMaxPotentialClusterSize(
    size: *mut i32,
    f: CUfunction,
    config: *const c_void,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        not_null(size)?;
        // As driver 580 here, unlike in the other questions.
        if f.is_null() {
            return Err(CUresult::INVALID_VALUE);
        }
        process.objects.check(f)?;
        // SAFETY: CUDA's contract with the caller.
        let (config, attributes) = unsafe { launch::read_config(config) }?;
        let found = gate::call::<row::cuOccupancyMaxPotentialClusterSize>((
            f,
            config.grid,
            config.block,
            config.shared_bytes,
            attributes,
        ))?;
        // SAFETY: not NULL; room for an int by CUDA's contract.
        unsafe { size.write(found) };
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_size_with_the_most_threads_wins() {
        // A multiprocessor of 2048 threads that 24 warps' registers fill.
        let by_registers = |size: i32| Ok((24 * 32) / size);
        assert_eq!(search(1024, 32, 2048, by_registers), Ok(Best { block: 768, resident: 1 }));
        let all = |size: i32| Ok(2048 / size);
        assert_eq!(search(1024, 32, 2048, all), Ok(Best { block: 1024, resident: 2 }));
        let mut asked = 0;
        let counted = |size: i32| {
            asked += 1;
            all(size)
        };
        search(1024, 32, 2048, counted).unwrap();
        assert_eq!(asked, 1, "nothing is better than a full multiprocessor");
    }

    #[test]
    fn a_limit_that_is_no_multiple_of_a_warp_is_tried_as_it_is() {
        let mut sizes = Vec::new();
        let none = |size: i32| {
            sizes.push(size);
            Ok(0)
        };
        assert_eq!(search(100, 32, 2048, none), Ok(Best::default()));
        assert_eq!(sizes, [100, 96, 64, 32]);
    }
}
