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

    /// Sets the current context's flags.
    0x0836 sync custom "guest-driver/libcuda/src/context_settings.rs" fn cuCtxSetFlags(flags: u32) wire (flags: u32);
    /// The width of shared memory's banks.
    0x0837 sync fn cuCtxGetSharedMemConfig(out pConfig: u32);
    /// Sets it: without effect on hardware of this age, and refused where the driver refuses it.
    0x0838 sync fn cuCtxSetSharedMemConfig(config: u32);
    /// Makes all persisting lines of the L2 cache ordinary ones.
    0x0839 sync fn cuCtxResetPersistingL2Cache();
    /// On how many multiprocessors the current context runs.
    0x083a sync custom "guest-driver/libcuda/src/context_settings.rs"
        fn cuCtxGetExecAffinity(pExecAffinity: *mut core::ffi::c_void, r#type: u32) wire (kind: u32) -> (multiprocessors: u32);
    /// Records all work of a context in an event.
    0x083b sync fn cuCtxRecordEvent(handle hCtx: CUcontext, handle hEvent: CUevent);
    /// Makes all further work of a context wait for an event.
    0x083c sync fn cuCtxWaitEvent(handle hCtx: CUcontext, handle hEvent: CUevent);
    /// Counts one user more of the current context.
    0x083d local "guest-driver/libcuda/src/context_settings.rs" fn cuCtxAttach(pctx: *mut CUcontext, flags: u32);
    /// Counts one user less of the current context; the last one destroys it.
    0x083e sync may_block custom "guest-driver/libcuda/src/context_settings.rs" over cuCtxDestroy_v2 fn cuCtxDetach(ctx: CUcontext);
    /// Lets the current context reach the memory of another device's context.
    0x0841 sync custom "guest-driver/libcuda/src/context_settings.rs" fn cuCtxEnablePeerAccess(peerContext: CUcontext, Flags: u32)
        wire (peer: CUcontext, flags: u32);
    /// Ends it.
    0x0842 sync custom "guest-driver/libcuda/src/context_settings.rs" fn cuCtxDisablePeerAccess(peerContext: CUcontext)
        wire (peer: CUcontext);

    /// The multiprocessors of a device, as a resource. The driver's own record stays with the worker; the guest's has its name and
    /// its public fields.
    0x0850 sync custom "guest-driver/libcuda/src/green.rs"
        fn cuDeviceGetDevResource(device: CUdevice, resource: *mut core::ffi::c_void, r#type: u32)
        wire (dev: i32, kind: u32) -> (resource: DeviceResource);
    /// … of a context.
    0x0851 sync custom "guest-driver/libcuda/src/green.rs"
        fn cuCtxGetDevResource(hCtx: CUcontext, resource: *mut core::ffi::c_void, r#type: u32)
        wire (ctx: CUcontext, kind: u32) -> (resource: DeviceResource);
    /// … of a green context.
    0x0852 sync custom "guest-driver/libcuda/src/green.rs"
        fn cuGreenCtxGetDevResource(hCtx: CUgreenCtx, resource: *mut core::ffi::c_void, r#type: u32)
        wire (green: CUgreenCtx, kind: u32) -> (resource: DeviceResource);
    /// Splits multiprocessors into groups. `groups` is how many at most; `count_only` asks how many there would be.
    0x0853 sync custom "guest-driver/libcuda/src/green.rs"
        fn cuDevSmResourceSplitByCount(result: *mut core::ffi::c_void, nbGroups: *mut u32, input: *const core::ffi::c_void,
            remaining: *mut core::ffi::c_void, useFlags: u32, minCount: u32)
        wire (input: u64, groups: u32, count_only: bool, flags: u32, min_count: u32)
            -> (count: u32, made: Vec<DeviceResource>, remaining: DeviceResource);
    /// Makes resources into what a green context is made from; they travel as their names, 8 bytes each.
    0x0854 sync custom "guest-driver/libcuda/src/green.rs"
        fn cuDevResourceGenerateDesc(phDesc: *mut CUdevResourceDesc, resources: *mut core::ffi::c_void, nbResources: u32)
        wire (desc: CUdevResourceDesc, bytes names);
    /// Makes a green context, and names the context that it can be used as.
    0x0855 sync may_block custom "guest-driver/libcuda/src/green.rs"
        fn cuGreenCtxCreate(phCtx: *mut CUgreenCtx, desc: CUdevResourceDesc, dev: CUdevice, flags: u32)
        wire (green: CUgreenCtx, ctx: CUcontext, primary: CUcontext, desc: CUdevResourceDesc, dev: i32, flags: u32);
    /// Destroys a green context and its streams.
    0x0856 sync may_block custom "guest-driver/libcuda/src/green.rs" fn cuGreenCtxDestroy(hCtx: CUgreenCtx) wire (green: CUgreenCtx);
    /// The context that a green context can be used as.
    0x0857 local "guest-driver/libcuda/src/green.rs" fn cuCtxFromGreenCtx(pContext: *mut CUcontext, hCtx: CUgreenCtx);
    /// A green context's number, unique in the process.
    0x0858 local "guest-driver/libcuda/src/green.rs" fn cuGreenCtxGetId(greenCtx: CUgreenCtx, greenCtxId: *mut u64);
    /// Records all work of a green context in an event.
    0x0859 sync fn cuGreenCtxRecordEvent(handle hCtx: CUgreenCtx, handle hEvent: CUevent);
    /// Makes all further work of a green context wait for an event.
    0x085a sync fn cuGreenCtxWaitEvent(handle hCtx: CUgreenCtx, handle hEvent: CUevent);
    /// Makes a stream in a green context.
    0x085b sync custom "guest-driver/libcuda/src/green.rs"
        fn cuGreenCtxStreamCreate(phStream: *mut CUstream, greenCtx: CUgreenCtx, flags: u32, priority: i32)
        wire (stream: CUstream, green: CUgreenCtx, flags: u32, priority: i32);
    /// A stream's context, and its green context if it is in one.
    0x085c local "guest-driver/libcuda/src/green.rs" ptsz
        fn cuStreamGetCtx_v2(hStream: CUstream, pCtx: *mut CUcontext, pGreenCtx: *mut CUgreenCtx);
    /// A stream's green context, NULL if it is in none.
    0x085d local "guest-driver/libcuda/src/green.rs" fn cuStreamGetGreenCtx(hStream: CUstream, phCtx: *mut CUgreenCtx);

    // Refused: the 32-bit interface of before CUDA 3.2.
    0x0890 refused "a context of the 32-bit interface of before CUDA 3.2 takes no call of today's: programs of this century call its _v2" fn cuCtxCreate;
}
