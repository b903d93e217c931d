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

    /// The largest cluster that a function can be launched in.
    0x0124 sync custom "guest-driver/libcuda/src/occupancy.rs"
        fn cuOccupancyMaxPotentialClusterSize(clusterSize: *mut i32, func: CUfunction, config: *const core::ffi::c_void)
        wire (func: CUfunction, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, bytes attributes) -> (size: i32);
    /// The block size with the most resident threads, found by asking for the resident blocks of each.
    0x0125 sync custom "guest-driver/libcuda/src/occupancy.rs" over cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
        fn cuOccupancyMaxPotentialBlockSize(minGridSize: *mut i32, blockSize: *mut i32, func: CUfunction,
            blockSizeToDynamicSMemSize: *const core::ffi::c_void, dynamicSMemSize: usize, blockSizeLimit: i32);
    /// … with flags.
    0x0126 sync custom "guest-driver/libcuda/src/occupancy.rs" over cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags
        fn cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize: *mut i32, blockSize: *mut i32, func: CUfunction,
            blockSizeToDynamicSMemSize: *const core::ffi::c_void, dynamicSMemSize: usize, blockSizeLimit: i32, flags: u32);
    /// Launches cooperative kernels on several devices: on one, it is a cooperative launch; on more it is refused.
    0x0104 sync custom "guest-driver/libcuda/src/old_launch.rs" over cuLaunchCooperativeKernel
        fn cuLaunchCooperativeKernelMultiDevice(launchParamsList: *mut core::ffi::c_void, numDevices: u32, flags: u32);

    // The interface before cuLaunchKernel: a function's launch is set up piece by piece, in the guest.
    /// Sets the block of a function's further launches.
    0x0130 local "guest-driver/libcuda/src/old_launch.rs" fn cuFuncSetBlockShape(hfunc: CUfunction, x: i32, y: i32, z: i32);
    /// Sets the dynamic shared memory of a function's further launches.
    0x0131 local "guest-driver/libcuda/src/old_launch.rs" fn cuFuncSetSharedSize(hfunc: CUfunction, bytes: u32);
    /// Sets the size of a function's parameter buffer.
    0x0132 local "guest-driver/libcuda/src/old_launch.rs" fn cuParamSetSize(hfunc: CUfunction, numbytes: u32);
    /// Sets an integer parameter.
    0x0133 local "guest-driver/libcuda/src/old_launch.rs" fn cuParamSeti(hfunc: CUfunction, offset: i32, value: u32);
    /// Sets a float parameter.
    0x0134 local "guest-driver/libcuda/src/old_launch.rs" fn cuParamSetf(hfunc: CUfunction, offset: i32, value: f32);
    /// Sets a parameter of any size.
    0x0135 local "guest-driver/libcuda/src/old_launch.rs"
        fn cuParamSetv(hfunc: CUfunction, offset: i32, ptr: *mut core::ffi::c_void, numbytes: u32);
    /// Launches one block.
    0x0136 posted custom "guest-driver/libcuda/src/old_launch.rs" over cuLaunchKernel fn cuLaunch(f: CUfunction);
    /// Launches a grid.
    0x0137 posted custom "guest-driver/libcuda/src/old_launch.rs" over cuLaunchKernel
        fn cuLaunchGrid(f: CUfunction, grid_width: i32, grid_height: i32);
    /// Launches a grid in a stream.
    0x0138 posted custom "guest-driver/libcuda/src/old_launch.rs" over cuLaunchKernel
        fn cuLaunchGridAsync(f: CUfunction, grid_width: i32, grid_height: i32, hStream: CUstream);
}
