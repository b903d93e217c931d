//! Contexts (CUDA Driver API, "Context Management", "Primary Context Management"). A thread's stack of current contexts is the
//! guest's; each frame says which context is current.

use crate::types::*;

cuda_api_macros::calls! { context;
    /// Retains a device's primary context, making it where it is not active.
    0x0801 sync may_block custom "guest-driver/libcuda/src/context.rs" fn cuDevicePrimaryCtxRetain(pctx: *mut CUcontext, dev: CUdevice)
        wire (ctx: CUcontext, dev: i32, flags: u32);
    /// Releases a device's primary context.
    0x0802 sync may_block custom "guest-driver/libcuda/src/context.rs" fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice)
        wire (ctx: CUcontext, dev: i32) also cuDevicePrimaryCtxRelease;
    /// Destroys everything of a device's primary context.
    0x0803 sync may_block custom "guest-driver/libcuda/src/context.rs" fn cuDevicePrimaryCtxReset_v2(dev: CUdevice)
        wire (ctx: CUcontext, dev: i32) also cuDevicePrimaryCtxReset;
    /// Sets the flags with which the primary context is made.
    0x0804 local "guest-driver/libcuda/src/context.rs" fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: u32)
        also cuDevicePrimaryCtxSetFlags;
    /// Whether the primary context is active, and its flags.
    0x0805 local "guest-driver/libcuda/src/context.rs" fn cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut u32, active: *mut i32);
    /// Makes a context.
    0x0810 sync may_block custom "guest-driver/libcuda/src/context.rs" fn cuCtxCreate_v2(pctx: *mut CUcontext, flags: u32, dev: CUdevice)
        wire (ctx: CUcontext, flags: u32, dev: i32);
    /// Makes a context with an execution affinity: refused unless it asks for none.
    0x0811 sync may_block custom "guest-driver/libcuda/src/context.rs" over cuCtxCreate_v2
        fn cuCtxCreate_v3(pctx: *mut CUcontext, paramsArray: *mut core::ffi::c_void, numParams: i32, flags: u32, dev: CUdevice);
    /// Makes a context with parameters: refused unless it asks for none.
    0x0812 sync may_block custom "guest-driver/libcuda/src/context.rs" over cuCtxCreate_v2
        fn cuCtxCreate_v4(pctx: *mut CUcontext, ctxCreateParams: *mut core::ffi::c_void, flags: u32, dev: CUdevice);
    /// Destroys a context and everything in it.
    0x0813 sync may_block custom "guest-driver/libcuda/src/context.rs" fn cuCtxDestroy_v2(ctx: CUcontext) wire (ctx: CUcontext)
        also cuCtxDestroy;
    /// The calling thread's context.
    0x0820 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetCurrent(pctx: *mut CUcontext);
    /// Sets the calling thread's context.
    0x0821 local "guest-driver/libcuda/src/context.rs" fn cuCtxSetCurrent(ctx: CUcontext);
    /// Pushes a context.
    0x0822 local "guest-driver/libcuda/src/context.rs" fn cuCtxPushCurrent_v2(ctx: CUcontext) also cuCtxPushCurrent;
    /// Pops a context.
    0x0823 local "guest-driver/libcuda/src/context.rs" fn cuCtxPopCurrent_v2(pctx: *mut CUcontext) also cuCtxPopCurrent;
    /// The current context's device.
    0x0824 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetDevice(device: *mut CUdevice);
    /// A context's device.
    0x0825 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetDevice_v2(device: *mut CUdevice, ctx: CUcontext);
    /// The current context's flags.
    0x0826 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetFlags(flags: *mut u32);
    /// A context's number, unique in the process.
    0x0827 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetId(ctx: CUcontext, ctxId: *mut u64);
    /// The interface version a context was made with.
    0x0828 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetApiVersion(ctx: CUcontext, version: *mut u32);
    /// The range of stream priorities.
    0x0829 local "guest-driver/libcuda/src/context.rs" fn cuCtxGetStreamPriorityRange(leastPriority: *mut i32, greatestPriority: *mut i32);
    /// Waits for all work of the current context.
    0x0830 sync may_block custom "guest-driver/libcuda/src/context.rs" fn cuCtxSynchronize() wire (ctx: CUcontext);
    /// Waits for all work of a context.
    0x0831 sync may_block custom "guest-driver/libcuda/src/context.rs" over cuCtxSynchronize fn cuCtxSynchronize_v2(ctx: CUcontext);
    /// A limit of the current context.
    0x0832 sync fn cuCtxGetLimit(out pvalue: usize, limit: u32);
    /// Sets a limit of the current context.
    0x0833 sync fn cuCtxSetLimit(limit: u32, value: usize);
    /// The current context's preference between shared memory and cache.
    0x0834 sync fn cuCtxGetCacheConfig(out pconfig: u32);
    /// Sets it.
    0x0835 sync fn cuCtxSetCacheConfig(config: u32);

    // Refused: green contexts are not carried.
    0x0880 refused "green contexts are not carried" fn cuCtxFromGreenCtx;
    0x0881 refused "green contexts are not carried" fn cuCtxGetDevResource;
    0x0882 refused "green contexts are not carried" fn cuCtxRecordEvent;
    0x0883 refused "green contexts are not carried" fn cuCtxWaitEvent;
    0x0884 refused "green contexts are not carried" fn cuDeviceGetDevResource;
    0x0885 refused "green contexts are not carried" fn cuDevResourceGenerateDesc;
    0x0886 refused "green contexts are not carried" fn cuDevSmResourceSplitByCount;
    0x0887 refused "green contexts are not carried" fn cuGreenCtxCreate;
    0x0888 refused "green contexts are not carried" fn cuGreenCtxDestroy;
    0x0889 refused "green contexts are not carried" fn cuGreenCtxGetDevResource;
    0x088a refused "green contexts are not carried" fn cuGreenCtxGetId;
    0x088b refused "green contexts are not carried" fn cuGreenCtxRecordEvent;
    0x088c refused "green contexts are not carried" fn cuGreenCtxStreamCreate;
    0x088d refused "green contexts are not carried" fn cuGreenCtxWaitEvent;
    0x088e refused "green contexts are not carried" ptsz fn cuStreamGetCtx_v2;
    0x088f refused "green contexts are not carried" fn cuStreamGetGreenCtx;

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0890 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuCtxCreate;

    // Refused: this context operation is not carried.
    0x0891 refused "this context operation is not carried" fn cuCtxAttach;
    0x0892 refused "this context operation is not carried" fn cuCtxDetach;
    0x0893 refused "this context operation is not carried" fn cuCtxDisablePeerAccess;
    0x0894 refused "this context operation is not carried" fn cuCtxEnablePeerAccess;
    0x0895 refused "this context operation is not carried" fn cuCtxGetExecAffinity;
    0x0896 refused "this context operation is not carried" fn cuCtxGetSharedMemConfig;
    0x0897 refused "this context operation is not carried" fn cuCtxResetPersistingL2Cache;
    0x0898 refused "this context operation is not carried" fn cuCtxSetFlags;
    0x0899 refused "this context operation is not carried" fn cuCtxSetSharedMemConfig;
}
