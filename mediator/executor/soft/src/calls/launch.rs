//! Launches and functions.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::launch::Host;
use cuda_api::types::*;

use crate::Soft;
use crate::library::Function;
use crate::program::Launch;
use crate::soft::Thread;
use crate::work::Work;

/// A CUlaunchAttribute travels as its bytes: the id, 4 bytes of padding, 64 bytes of value.
const ATTRIBUTE_BYTES: usize = 72;
/// CU_FUNCTION_LOADING_STATE_LOADED.
const LOADED: u32 = 1;

impl Soft {
    /// A function by its handle; a kernel's is accepted, too.
    pub(crate) fn function(&self, handle: CUfunction) -> CuResult<Arc<Function>> {
        self.functions.get(handle).or_else(|_| self.kernels.get(CUkernel(handle.0)))
    }

    fn launch(
        &self,
        thread: &Thread,
        function: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: CUstream,
        params: &[u8],
    ) -> CuResult<()> {
        let current = self.context(thread)?.id;
        let function = self.function(function)?;
        let (stream, context) = self.stream(thread, stream)?;
        if function.context.unwrap_or(current) != context {
            return Err(CUresult::INVALID_HANDLE);
        }
        function.kernel.check(grid, block, shared_bytes, params.len())?;
        let program = function.library.program(&self.device, context).map_err(|refusal| refusal.result)?;
        let launch = Launch {
            program,
            viewer: self.device.memory.viewer(context),
            kernel: function.kernel.clone(),
            grid,
            block,
            dynamic_shared_bytes: shared_bytes,
            params: params.into(),
        };
        self.device.submit(stream, Work::Kernel(Box::new(launch)), &[]).map(|_| ())
    }

    /// Accepts the launch attributes that ask for nothing that is not so already.
    fn check_attributes(&self, attributes: &[u8]) -> CuResult<()> {
        let (records, rest) = attributes.as_chunks::<ATTRIBUTE_BYTES>();
        if !rest.is_empty() {
            return Err(CUresult::INVALID_VALUE);
        }
        for record in records {
            let mut words = record.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w));
            let id = words.next().unwrap_or(0);
            let mut value = words.skip(1);
            let name = match id {
                // Ignore; programmatic serialisation (the order here is stronger); priority; memory domains; carve-out.
                0 | 6 | 8 | 9 | 10 | 14 => continue,
                2 if value.next() == Some(0) => continue,
                2 => "cooperative launch",
                4 if value.by_ref().take(3).all(|n| n == 1) => continue,
                4 => "clusters",
                1 => "an access policy window",
                3 => "a synchronisation policy",
                5 | 11 => "cluster scheduling",
                7 | 12 => "a launch event",
                13 => "device-updatable nodes",
                16 => "NVLink-centric scheduling",
                _ => return Err(CUresult::INVALID_VALUE),
            };
            self.warn_once(&format!("cuLaunchKernelEx: {name} (launch attribute {id}) is not supported"));
            return Err(CUresult::NOT_SUPPORTED);
        }
        Ok(())
    }
}

impl Host for Soft {
    fn cuLaunchKernel(
        &self,
        thread: &mut Thread,
        f: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: CUstream,
        params: &[u8],
    ) -> CuResult<()> {
        self.launch(thread, f, grid, block, shared_bytes, stream, params)
    }

    fn cuLaunchKernelEx(
        &self,
        thread: &mut Thread,
        f: CUfunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        stream: CUstream,
        attributes: &[u8],
        params: &[u8],
    ) -> CuResult<()> {
        self.check_attributes(attributes)?;
        self.launch(thread, f, grid, block, shared_bytes, stream, params)
    }

    fn cuFuncSetAttribute(
        &self,
        _: &mut Thread,
        hfunc: CUfunction,
        attrib: i32,
        value: i32,
    ) -> CuResult<FunctionInfo> {
        let function = self.function(hfunc)?;
        function.kernel.set(attrib, value)?;
        Ok(function.kernel.info())
    }

    fn cuFuncSetCacheConfig(&self, _: &mut Thread, hfunc: CUfunction, config: u32) -> CuResult<()> {
        self.function(hfunc)?;
        Self::check_cache_config(config)
    }

    fn cuFuncSetSharedMemConfig(&self, _: &mut Thread, hfunc: CUfunction, config: u32) -> CuResult<()> {
        self.function(hfunc)?;
        // CUsharedconfig: default, 4-byte and 8-byte banks.
        if config <= 2 { Ok(()) } else { Err(CUresult::INVALID_VALUE) }
    }

    fn cuFuncIsLoaded(&self, _: &mut Thread, function: CUfunction) -> CuResult<u32> {
        self.function(function).map(|_| LOADED)
    }

    fn cuFuncLoad(&self, _: &mut Thread, function: CUfunction) -> CuResult<()> {
        self.function(function).map(|_| ())
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        &self,
        _: &mut Thread,
        func: CUfunction,
        block_size: i32,
        shared_bytes: usize,
    ) -> CuResult<i32> {
        self.resident_blocks(func, block_size, shared_bytes)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        &self,
        _: &mut Thread,
        func: CUfunction,
        block_size: i32,
        shared_bytes: usize,
        flags: u32,
    ) -> CuResult<i32> {
        // CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE: there is no cache to override.
        if flags > 1 {
            return Err(CUresult::INVALID_VALUE);
        }
        self.resident_blocks(func, block_size, shared_bytes)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        &self,
        _: &mut Thread,
        func: CUfunction,
        num_blocks: i32,
        block_size: i32,
    ) -> CuResult<usize> {
        self.available_shared(func, num_blocks, block_size)
    }
}
