//! Libraries and kernels (CUDA Driver API, "Library Management").

use crate::types::*;

cuda_api_macros::calls! { library;
    /// Loads an image that every context can use.
    0x0a01 sync may_block custom "guest-driver/libcuda/src/library.rs"
        fn cuLibraryLoadData(library: *mut CUlibrary, code: *const core::ffi::c_void, jitOptions: *mut u32,
            jitOptionsValues: *mut *mut core::ffi::c_void, numJitOptions: u32, libraryOptions: *mut u32,
            libraryOptionValues: *mut *mut core::ffi::c_void, numLibraryOptions: u32)
        wire (library: CUlibrary, image: u64, bytes options, info_room: u32, error_room: u32)
            -> (result: u32, info_log: Vec<u8>, error_log: Vec<u8>);
    /// Loads a file, which the guest reads.
    0x0a02 sync may_block custom "guest-driver/libcuda/src/library.rs" over cuLibraryLoadData
        fn cuLibraryLoadFromFile(library: *mut CUlibrary, fileName: *const core::ffi::c_char, jitOptions: *mut u32,
            jitOptionsValues: *mut *mut core::ffi::c_void, numJitOptions: u32, libraryOptions: *mut u32,
            libraryOptionValues: *mut *mut core::ffi::c_void, numLibraryOptions: u32);
    /// Unloads a library.
    0x0a03 sync may_block custom "guest-driver/libcuda/src/library.rs" fn cuLibraryUnload(library: CUlibrary) wire (library: CUlibrary);
    /// A kernel of a library, with everything the guest needs to launch it.
    0x0a04 sync custom "guest-driver/libcuda/src/library.rs"
        fn cuLibraryGetKernel(pKernel: *mut CUkernel, library: CUlibrary, name: *const core::ffi::c_char)
        wire (kernel: CUkernel, library: CUlibrary, cstr name) -> (info: FunctionInfo, params: Vec<ParamInfo>);
    /// A library's module in the current context.
    0x0a05 sync custom "guest-driver/libcuda/src/library.rs" fn cuLibraryGetModule(pMod: *mut CUmodule, library: CUlibrary)
        wire (module: CUmodule, library: CUlibrary);
    /// A variable of a library in the current context, and whether it is managed.
    0x0a19 sync custom "guest-driver/libcuda/src/library.rs"
        fn cuLibraryGetGlobal(dptr: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const core::ffi::c_char)
        wire (library: CUlibrary, cstr name) -> (dptr: CUdeviceptr, len: usize, managed: bool);
    /// How many kernels a library has.
    0x0a1a sync custom "guest-driver/libcuda/src/library.rs" fn cuLibraryGetKernelCount(count: *mut u32, lib: CUlibrary)
        wire (lib: CUlibrary) -> (count: u32);
    /// A kernel's function in the current context.
    0x0a10 sync custom "guest-driver/libcuda/src/library.rs" fn cuKernelGetFunction(pFunc: *mut CUfunction, kernel: CUkernel)
        wire (function: CUfunction, kernel: CUkernel);
    /// A kernel's library.
    0x0a11 local "guest-driver/libcuda/src/library.rs" fn cuKernelGetLibrary(pLib: *mut CUlibrary, kernel: CUkernel);
    /// A kernel's name.
    0x0a12 local "guest-driver/libcuda/src/library.rs" fn cuKernelGetName(name: *mut *const core::ffi::c_char, hfunc: CUkernel);
    /// Offset and size of a parameter.
    0x0a13 local "guest-driver/libcuda/src/library.rs"
        fn cuKernelGetParamInfo(kernel: CUkernel, paramIndex: usize, paramOffset: *mut usize, paramSize: *mut usize);
    /// A kernel's attribute on a device.
    0x0a14 local "guest-driver/libcuda/src/library.rs"
        fn cuKernelGetAttribute(pi: *mut i32, attrib: i32, kernel: CUkernel, dev: CUdevice);
    /// Sets a kernel's attribute on a device; its attributes come back.
    0x0a15 sync custom "guest-driver/libcuda/src/library.rs" fn cuKernelSetAttribute(attrib: i32, val: i32, kernel: CUkernel, dev: CUdevice)
        wire (attrib: i32, value: i32, kernel: CUkernel, dev: i32) -> (info: FunctionInfo);
    /// Prefers shared memory or cache.
    0x0a16 sync fn cuKernelSetCacheConfig(handle kernel: CUkernel, config: u32, dev: CUdevice);

    /// The names of a library's kernels from a place in its list on, each with its NUL, as many as a reply carries.
    0x0a17 sync custom "guest-driver/libcuda/src/enumerate.rs"
        fn cuLibraryEnumerateKernels(kernels: *mut CUkernel, numKernels: u32, lib: CUlibrary)
        wire (library: CUlibrary, first: u32) -> (names: Vec<u8>);
    /// A variable that host and device share. It lies where the host's driver puts it; the guest has a copy there, which is brought into
    /// line by the calls below.
    0x0a1b sync custom "guest-driver/libcuda/src/library.rs"
        fn cuLibraryGetManaged(dptr: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const core::ffi::c_char)
        wire (library: CUlibrary, cstr name) -> (dptr: CUdeviceptr, len: usize);
    /// A function that host and device share: there is none, as no device here shares function pointers (device attribute 129).
    0x0a1c local "guest-driver/libcuda/src/library.rs"
        fn cuLibraryGetUnifiedFunction(fptr: *mut *mut core::ffi::c_void, library: CUlibrary, symbol: *const core::ffi::c_char);
}
