//! Initialisation, versions, errors and entry points (CUDA Driver API, "Initialization", "Version Management", "Error
//! Handling", "Driver Entry Point Access").

use crate::types::*;

cuda_api_macros::calls! { entry;
    /// Opens the session and learns the devices.
    0x0601 local "guest-driver/libcuda/src/entry.rs" fn cuInit(Flags: u32);
    /// The driver version that the guest sees.
    0x0602 local "guest-driver/libcuda/src/entry.rs" fn cuDriverGetVersion(driverVersion: *mut i32);
    /// An error's name.
    0x0603 local "guest-driver/libcuda/src/entry.rs" fn cuGetErrorName(error: CUresult, pStr: *mut *const core::ffi::c_char);
    /// An error's sentence.
    0x0604 local "guest-driver/libcuda/src/entry.rs" fn cuGetErrorString(error: CUresult, pStr: *mut *const core::ffi::c_char);
    /// A function's address by name and version.
    0x0605 local "guest-driver/libcuda/src/proc_address.rs"
        fn cuGetProcAddress(symbol: *const core::ffi::c_char, pfn: *mut *mut core::ffi::c_void, cudaVersion: i32, flags: u64);
    /// A function's address by name and version, with the reason where there is none.
    0x0606 local "guest-driver/libcuda/src/proc_address.rs"
        fn cuGetProcAddress_v2(symbol: *const core::ffi::c_char, pfn: *mut *mut core::ffi::c_void, cudaVersion: i32, flags: u64,
            symbolStatus: *mut u32);
    /// A private table by UUID.
    0x0607 local "guest-driver/libcuda/src/export_table.rs"
        fn cuGetExportTable(ppExportTable: *mut *const core::ffi::c_void, pExportTableId: *const CUuuid);
    /// Tells a profiler to begin; without one it does nothing.
    0x0610 sync fn cuProfilerStart();
    /// Tells a profiler to stop.
    0x0611 sync fn cuProfilerStop();
    /// Has a function called with each message of this library's log.
    0x0612 local "guest-driver/libcuda/src/logs.rs" fn cuLogsRegisterCallback(callbackFunc: *const core::ffi::c_void,
            userData: *mut core::ffi::c_void, callback_out: *mut *mut core::ffi::c_void);
    /// No longer calls it.
    0x0613 local "guest-driver/libcuda/src/logs.rs" fn cuLogsUnregisterCallback(callback: *mut core::ffi::c_void);
    /// The end of the log as it is now.
    0x0614 local "guest-driver/libcuda/src/logs.rs" fn cuLogsCurrent(iterator_out: *mut u32, flags: u32);
    /// Writes the log to a file.
    0x0615 local "guest-driver/libcuda/src/logs.rs"
        fn cuLogsDumpToFile(iterator: *mut u32, pathToFile: *const core::ffi::c_char, flags: u32);
    /// Copies the log.
    0x0616 local "guest-driver/libcuda/src/logs.rs"
        fn cuLogsDumpToMemory(iterator: *mut u32, buffer: *mut core::ffi::c_char, size: *mut usize, flags: u32);
    /// What kernels have printed, on standard output and standard error, piece by piece.
    0x0670 sync internal fn vgpuTakeOutput() wire () -> (out: Vec<u8>, err: Vec<u8>);
    /// An image's bytes on their way: the loads that follow name the image by its number.
    0x06f0 posted internal fn vgpuImageData() wire (image: u64, offset: u64, total: u64, bulk bytes);
}
