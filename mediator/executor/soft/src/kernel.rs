//! What the guest is told about a kernel, what it may set, and which launches fit it.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use cuda_api::CuResult;
use cuda_api::types::func_attribute as attribute;
use cuda_api::types::{CUresult, FunctionInfo, ParamInfo};

use crate::limits;

/// Parameters of a kernel: as many as its description can say in one reply.
pub(crate) const PARAMS_MAX: usize = 4096;
/// CU_SHAREDMEM_CARVEOUT_DEFAULT.
const CARVEOUT_DEFAULT: i32 = -1;

/// A kernel of a module or library, with its settings.
pub(crate) struct Kernel {
    /// Its place among the kernels of its text.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) params: Vec<ParamInfo>,
    param_bytes: u32,
    max_threads: u32,
    required_threads: Option<[u32; 3]>,
    static_shared: u32,
    local: u32,
    constant: u32,
    registers: u32,
    ptx_version: i32,
    max_dynamic: AtomicU32,
    carveout: AtomicI32,
}

impl Kernel {
    pub(crate) fn new(module: &ptx::Module, index: usize, kernel: &ptx::Kernel) -> Self {
        let max_threads = match (kernel.max_threads, kernel.required_threads) {
            (_, Some(block)) => block.iter().fold(1u32, |all, n| all.saturating_mul(*n)),
            (Some(max), None) => max,
            (None, None) => limits::BLOCK_THREADS,
        }
        .min(limits::BLOCK_THREADS);
        let constant = module
            .globals()
            .filter(|g| g.space == ptx::Space::Const)
            .fold(0u64, |all, g| all.saturating_add(g.size));
        // No launch is refused for its registers: as many as let the largest block run.
        let fit = limits::REGISTERS.checked_div(max_threads.max(limits::WARP_THREADS)).unwrap_or(0);
        let version = module.target().trim_start_matches(|c: char| !c.is_ascii_digit());
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        Kernel {
            index,
            name: kernel.name.clone(),
            params: kernel.params.iter().map(|p| ParamInfo { offset: p.offset, size: p.size }).collect(),
            param_bytes: kernel.param_bytes(),
            max_threads,
            required_threads: kernel.required_threads,
            static_shared: kernel.static_shared_bytes,
            local: kernel.local_bytes,
            constant: u32::try_from(constant).unwrap_or(u32::MAX),
            registers: kernel.registers.min(fit).max(1),
            ptx_version: digits.parse().unwrap_or(0),
            max_dynamic: AtomicU32::new(limits::SHARED_BYTES.saturating_sub(kernel.static_shared_bytes)),
            carveout: AtomicI32::new(CARVEOUT_DEFAULT),
        }
    }

    /// All kernels of a module, in its order.
    pub(crate) fn all(module: &ptx::Module) -> Vec<std::sync::Arc<Kernel>> {
        module.kernels().enumerate().map(|(i, k)| std::sync::Arc::new(Kernel::new(module, i, k))).collect()
    }

    pub(crate) fn info(&self) -> FunctionInfo {
        let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let binary = limits::CAPABILITY.0.saturating_mul(10).saturating_add(limits::CAPABILITY.1);
        let values = [
            int(self.max_threads),
            int(self.static_shared),
            int(self.constant),
            int(self.local),
            int(self.registers),
            self.ptx_version,
            binary,
            0,
            int(self.max_dynamic.load(Ordering::Relaxed)),
            self.carveout.load(Ordering::Relaxed),
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        FunctionInfo { attributes: values, valid: 0xffff, param_bytes: self.param_bytes }
    }

    /// cuFuncSetAttribute.
    pub(crate) fn set(&self, number: i32, value: i32) -> CuResult<()> {
        match usize::try_from(number) {
            Ok(attribute::MAX_DYNAMIC_SHARED_SIZE_BYTES) => {
                let bytes = u32::try_from(value).map_err(|_| CUresult::INVALID_VALUE)?;
                if bytes > limits::SHARED_BYTES_OPTIN.saturating_sub(self.static_shared) {
                    return Err(CUresult::INVALID_VALUE);
                }
                self.max_dynamic.store(bytes, Ordering::Relaxed);
            }
            Ok(attribute::PREFERRED_SHARED_MEMORY_CARVEOUT) if (CARVEOUT_DEFAULT..=100).contains(&value) => {
                self.carveout.store(value, Ordering::Relaxed);
            }
            _ => return Err(CUresult::INVALID_VALUE),
        }
        Ok(())
    }

    /// The launch fits the kernel and the device.
    pub(crate) fn check(&self, grid: [u32; 3], block: [u32; 3], shared: u32, params: usize) -> CuResult<()> {
        let threads = block.iter().map(|n| u64::from(*n)).fold(1, u64::saturating_mul);
        let fits =
            |sizes: [u32; 3], most: [u32; 3]| sizes.iter().zip(most).all(|(n, max)| *n != 0 && *n <= max);
        if !fits(grid, limits::GRID)
            || !fits(block, limits::BLOCK)
            || threads > u64::from(self.max_threads)
            || self.required_threads.is_some_and(|needed| needed != block)
            || shared > self.max_dynamic.load(Ordering::Relaxed)
            || usize::try_from(self.param_bytes) != Ok(params)
        {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok(())
    }

    /// Blocks of so many threads that a multiprocessor holds at once.
    pub(crate) fn resident_blocks(&self, threads: u32, dynamic_shared: u64) -> u32 {
        let warps = threads.div_ceil(limits::WARP_THREADS).max(1);
        if threads > self.max_threads || dynamic_shared > u64::from(self.max_dynamic.load(Ordering::Relaxed))
        {
            return 0;
        }
        let by_threads =
            limits::MULTIPROCESSOR_THREADS.div_euclid(warps.saturating_mul(limits::WARP_THREADS));
        let per_warp = self
            .registers
            .saturating_mul(limits::WARP_THREADS)
            .next_multiple_of(limits::REGISTER_UNIT)
            .max(1);
        let groups = limits::REGISTERS.div_euclid(per_warp).div_euclid(limits::WARP_UNIT);
        let by_registers = groups.saturating_mul(limits::WARP_UNIT).div_euclid(warps);
        let shared = u64::from(self.static_shared)
            .saturating_add(dynamic_shared)
            .saturating_add(u64::from(limits::SHARED_BYTES_RESERVED))
            .next_multiple_of(u64::from(limits::SHARED_UNIT));
        let by_shared = u64::from(limits::SHARED_BYTES_MULTIPROCESSOR).div_euclid(shared.max(1));
        let by_shared = u32::try_from(by_shared).unwrap_or(u32::MAX);
        by_threads.min(by_registers).min(by_shared).min(limits::MULTIPROCESSOR_BLOCKS)
    }

    /// Dynamic shared memory of each of so many resident blocks.
    pub(crate) fn available_shared(&self, blocks: u32) -> u64 {
        let each = limits::SHARED_BYTES_MULTIPROCESSOR.checked_div(blocks).unwrap_or(0);
        let whole = each.saturating_sub(each.rem_euclid(limits::SHARED_UNIT));
        let free = whole.saturating_sub(limits::SHARED_BYTES_RESERVED).min(limits::SHARED_BYTES_OPTIN);
        u64::from(free.saturating_sub(self.static_shared))
    }
}
