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
    /// A variable of a module.
    0x0907 sync custom "guest-driver/libcuda/src/module.rs"
        fn cuModuleGetGlobal_v2(dptr: *mut CUdeviceptr, bytes: *mut usize, hmod: CUmodule, name: *const core::ffi::c_char)
        wire (module: CUmodule, cstr name) -> (dptr: CUdeviceptr, len: usize);
    /// Lazy or eager loading.
    0x0908 local "guest-driver/libcuda/src/module.rs" fn cuModuleGetLoadingMode(mode: *mut u32);
    /// How many kernels a module has.
    0x0909 sync fn cuModuleGetFunctionCount(out count: u32, handle module: CUmodule);

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0980 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuModuleGetGlobal;

    // Refused: the linker is not carried.
    0x0981 refused "the linker is not carried" fn cuLinkAddData;
    0x0982 refused "the linker is not carried" fn cuLinkAddData_v2;
    0x0983 refused "the linker is not carried" fn cuLinkAddFile;
    0x0984 refused "the linker is not carried" fn cuLinkAddFile_v2;
    0x0985 refused "the linker is not carried" fn cuLinkComplete;
    0x0986 refused "the linker is not carried" fn cuLinkCreate;
    0x0987 refused "the linker is not carried" fn cuLinkCreate_v2;
    0x0988 refused "the linker is not carried" fn cuLinkDestroy;

    // Refused: this module operation is not carried.
    0x0989 refused "this module operation is not carried" fn cuModuleEnumerateFunctions;
}
