//! Modules (CUDA Driver API, "Module Management"). An image travels first ([`super::entry`]'s vgpuImageData); its load names it.

use crate::types::*;

cuda_api_macros::calls! { module;
    /// Loads an image with JIT options. The outcome and the logs come back together, so that a failed load still explains itself.
    0x0901 sync may_block custom "guest-driver/libcuda/src/module.rs"
        fn cuModuleLoadDataEx(module: *mut CUmodule, image: *const core::ffi::c_void, numOptions: u32, options: *mut u32,
            optionValues: *mut *mut core::ffi::c_void)
        wire (module: CUmodule, image: u64, bytes options, info_room: u32, error_room: u32)
            -> (result: u32, info_log: Vec<u8>, error_log: Vec<u8>);
    /// Loads an image.
    0x0902 sync may_block custom "guest-driver/libcuda/src/module.rs" over cuModuleLoadDataEx
        fn cuModuleLoadData(module: *mut CUmodule, image: *const core::ffi::c_void);
    /// Loads a fatbin.
    0x0903 sync may_block custom "guest-driver/libcuda/src/module.rs" over cuModuleLoadDataEx
        fn cuModuleLoadFatBinary(module: *mut CUmodule, fatCubin: *const core::ffi::c_void);
    /// Loads a file, which the guest reads.
    0x0904 sync may_block custom "guest-driver/libcuda/src/module.rs" over cuModuleLoadDataEx
        fn cuModuleLoad(module: *mut CUmodule, fname: *const core::ffi::c_char);
    /// Unloads a module.
    0x0905 sync may_block custom "guest-driver/libcuda/src/module.rs" fn cuModuleUnload(hmod: CUmodule) wire (module: CUmodule);
    /// A kernel of a module, with everything the guest needs to launch it.
    0x0906 sync custom "guest-driver/libcuda/src/module.rs"
        fn cuModuleGetFunction(hfunc: *mut CUfunction, hmod: CUmodule, name: *const core::ffi::c_char)
        wire (function: CUfunction, module: CUmodule, cstr name) -> (info: FunctionInfo, params: Vec<ParamInfo>);
    /// A variable of a module, and whether it is managed.
    0x090b sync custom "guest-driver/libcuda/src/module.rs"
        fn cuModuleGetGlobal_v2(dptr: *mut CUdeviceptr, bytes: *mut usize, hmod: CUmodule, name: *const core::ffi::c_char)
        wire (module: CUmodule, cstr name) -> (dptr: CUdeviceptr, len: usize, managed: bool);
    /// Lazy or eager loading.
    0x0908 local "guest-driver/libcuda/src/module.rs" fn cuModuleGetLoadingMode(mode: *mut u32);
    /// How many kernels a module has.
    0x0909 sync fn cuModuleGetFunctionCount(out count: u32, handle module: CUmodule);

    /// The names of a module's kernels from a place in its list on, each with its NUL, as many as a reply carries.
    0x090a sync custom "guest-driver/libcuda/src/enumerate.rs"
        fn cuModuleEnumerateFunctions(functions: *mut CUfunction, numFunctions: u32, hmod: CUmodule)
        wire (module: CUmodule, first: u32) -> (names: Vec<u8>);

    /// Begins to link images to one. The logs have room in the worker until the link is destroyed.
    0x0910 sync custom "guest-driver/libcuda/src/link.rs"
        fn cuLinkCreate_v2(numOptions: u32, options: *mut u32, optionValues: *mut *mut core::ffi::c_void, stateOut: *mut CUlinkState)
        wire (state: CUlinkState, bytes options, info_room: u32, error_room: u32) also cuLinkCreate;
    /// Adds an image, which has travelled first. The outcome and the logs come back together.
    0x0911 sync may_block custom "guest-driver/libcuda/src/link.rs"
        fn cuLinkAddData_v2(state: CUlinkState, r#type: u32, data: *mut core::ffi::c_void, size: usize, name: *const core::ffi::c_char,
            numOptions: u32, options: *mut u32, optionValues: *mut *mut core::ffi::c_void)
        wire (state: CUlinkState, kind: u32, image: u64, cstr name, bytes options)
            -> (result: u32, info_log: Vec<u8>, error_log: Vec<u8>)
        also cuLinkAddData;
    /// Adds a file, which the guest reads.
    0x0912 sync may_block custom "guest-driver/libcuda/src/link.rs" over cuLinkAddData_v2
        fn cuLinkAddFile_v2(state: CUlinkState, r#type: u32, path: *const core::ffi::c_char, numOptions: u32, options: *mut u32,
            optionValues: *mut *mut core::ffi::c_void)
        also cuLinkAddFile;
    /// Links; the image's size comes back, and its bytes by vgpuLinkedImage.
    0x0913 sync may_block custom "guest-driver/libcuda/src/link.rs"
        fn cuLinkComplete(state: CUlinkState, cubinOut: *mut *mut core::ffi::c_void, sizeOut: *mut usize)
        wire (state: CUlinkState) -> (result: u32, size: u64, info_log: Vec<u8>, error_log: Vec<u8>);
    /// Ends a link, and its image.
    0x0914 sync custom "guest-driver/libcuda/src/link.rs" fn cuLinkDestroy(state: CUlinkState) wire (state: CUlinkState);
    /// A piece of a linked image, as long as a reply carries.
    0x0915 sync internal fn vgpuLinkedImage() wire (state: CUlinkState, offset: u64) -> (bytes: Vec<u8>);

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0980 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuModuleGetGlobal;
}
