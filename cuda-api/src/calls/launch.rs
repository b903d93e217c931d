//! Kernel launch, functions and occupancy (CUDA Driver API, "Execution Control", "Occupancy").

use crate::types::*;

cuda_api_macros::calls! { launch;
    /// Launches a kernel. The parameters travel as one buffer laid out by the kernel's known offsets.
    0x0101 posted custom "guest-driver/libcuda/src/launch.rs" ptsz
        fn cuLaunchKernel(f: CUfunction, gridDimX: u32, gridDimY: u32, gridDimZ: u32, blockDimX: u32, blockDimY: u32, blockDimZ: u32,
            sharedMemBytes: u32, hStream: CUstream, kernelParams: *mut *mut core::ffi::c_void, extra: *mut *mut core::ffi::c_void)
        wire (f: CUfunction, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, hStream: CUstream, bytes params);
    /// Launches a kernel with attributes; each travels as its 72 bytes.
    0x0102 posted custom "guest-driver/libcuda/src/launch.rs" ptsz
        fn cuLaunchKernelEx(config: *const core::ffi::c_void, f: CUfunction, kernelParams: *mut *mut core::ffi::c_void,
            extra: *mut *mut core::ffi::c_void)
        wire (f: CUfunction, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, hStream: CUstream, bytes attributes, bytes params);
    /// Launches a kernel whose blocks may synchronise with one another.
    0x0103 sync custom "guest-driver/libcuda/src/launch.rs" ptsz
        fn cuLaunchCooperativeKernel(f: CUfunction, gridDimX: u32, gridDimY: u32, gridDimZ: u32, blockDimX: u32, blockDimY: u32,
            blockDimZ: u32, sharedMemBytes: u32, hStream: CUstream, kernelParams: *mut *mut core::ffi::c_void)
        wire (f: CUfunction, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, hStream: CUstream, bytes params);
    /// A function's attribute, from what came with the function.
    0x0110 local "guest-driver/libcuda/src/function.rs" fn cuFuncGetAttribute(pi: *mut i32, attrib: i32, hfunc: CUfunction);
    /// Sets a function's attribute; its attributes come back.
    0x0111 sync custom "guest-driver/libcuda/src/function.rs" fn cuFuncSetAttribute(hfunc: CUfunction, attrib: i32, value: i32)
        wire (hfunc: CUfunction, attrib: i32, value: i32) -> (info: FunctionInfo);
    /// Prefers shared memory or cache.
    0x0112 sync fn cuFuncSetCacheConfig(handle hfunc: CUfunction, config: u32);
    /// Sets the bank width: without effect on hardware of this age, and refused where the driver refuses it.
    0x0113 sync fn cuFuncSetSharedMemConfig(handle hfunc: CUfunction, config: u32);
    /// Offset and size of a parameter.
    0x0114 local "guest-driver/libcuda/src/function.rs"
        fn cuFuncGetParamInfo(func: CUfunction, paramIndex: usize, paramOffset: *mut usize, paramSize: *mut usize);
    /// A function's name.
    0x0115 local "guest-driver/libcuda/src/function.rs" fn cuFuncGetName(name: *mut *const core::ffi::c_char, hfunc: CUfunction);
    /// The module that a function belongs to.
    0x0116 local "guest-driver/libcuda/src/function.rs" fn cuFuncGetModule(hmod: *mut CUmodule, hfunc: CUfunction);
    /// Whether a function's code is loaded.
    0x0117 sync fn cuFuncIsLoaded(out state: u32, handle function: CUfunction);
    /// Loads a function's code.
    0x0118 sync may_block fn cuFuncLoad(handle function: CUfunction);
    /// Resident blocks per multiprocessor.
    0x0120 sync fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out numBlocks: i32, handle func: CUfunction, blockSize: i32,
        dynamicSMemSize: usize);
    /// Resident blocks per multiprocessor, with flags.
    0x0121 sync fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(out numBlocks: i32, handle func: CUfunction, blockSize: i32,
        dynamicSMemSize: usize, bits flags: [1]);
    /// Dynamic shared memory that so many blocks leave.
    0x0122 sync fn cuOccupancyAvailableDynamicSMemPerBlock(out dynamicSmemSize: usize, handle func: CUfunction, numBlocks: i32,
        blockSize: i32);
    /// Clusters that can be resident at once.
    0x0123 sync custom "guest-driver/libcuda/src/launch.rs"
        fn cuOccupancyMaxActiveClusters(numClusters: *mut i32, func: CUfunction, config: *const core::ffi::c_void)
        wire (func: CUfunction, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, bytes attributes) -> (clusters: i32);

    // Refused: cooperative launch on several devices: deprecated by CUDA.
    0x0180 refused "cooperative launch on several devices: deprecated by CUDA" fn cuLaunchCooperativeKernelMultiDevice;

    // Refused: launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0.
    0x0181 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuFuncSetBlockShape;
    0x0182 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuFuncSetSharedSize;
    0x0183 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuLaunch;
    0x0184 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuLaunchGrid;
    0x0185 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuLaunchGridAsync;
    0x0186 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuParamSetf;
    0x0187 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuParamSeti;
    0x0188 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuParamSetSize;
    0x0189 refused "launching with parameters set one by one: superseded by cuLaunchKernel in CUDA 4.0" fn cuParamSetv;

    // Refused: this occupancy question is not carried.
    0x018a refused "this occupancy question is not carried" fn cuOccupancyMaxPotentialBlockSize;
    0x018b refused "this occupancy question is not carried" fn cuOccupancyMaxPotentialBlockSizeWithFlags;
    0x018c refused "this occupancy question is not carried" fn cuOccupancyMaxPotentialClusterSize;
}
