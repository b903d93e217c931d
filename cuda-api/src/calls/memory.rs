//! Device and host memory (CUDA Driver API, "Memory Management", "Unified Addressing").

use crate::types::*;

cuda_api_macros::calls! { memory;
    /// Allocates device memory. `avoid` lists ranges that this process cannot reserve: the worker allocates elsewhere.
    0x0501 sync may_block custom "guest-driver/libcuda/src/memory.rs" fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize)
        wire (bytesize: usize, bytes avoid) -> (dptr: CUdeviceptr);
    /// Frees device memory, after the device's work.
    0x0502 sync may_block custom "guest-driver/libcuda/src/memory.rs" fn cuMemFree_v2(dptr: CUdeviceptr) wire (dptr: CUdeviceptr);
    /// Allocates rows at a pitch.
    0x0503 sync may_block custom "guest-driver/libcuda/src/memory.rs" over cuMemAlloc_v2
        fn cuMemAllocPitch_v2(dptr: *mut CUdeviceptr, pPitch: *mut usize, WidthInBytes: usize, Height: usize, ElementSizeBytes: u32);
    /// Free and total memory of the current device.
    0x0504 sync fn cuMemGetInfo_v2(opt out free: usize, opt out total: usize);
    /// The allocation that an address lies in.
    0x0505 local "guest-driver/libcuda/src/pointer.rs"
        fn cuMemGetAddressRange_v2(pbase: *mut CUdeviceptr, psize: *mut usize, dptr: CUdeviceptr);
    /// Allocates pinned host memory: the process's own, in the agreed window, mapped in the worker at the same address.
    0x0510 sync may_block custom "guest-driver/libcuda/src/host_memory.rs" over cuMemHostRegister_v2
        fn cuMemHostAlloc(pp: *mut *mut core::ffi::c_void, bytesize: usize, Flags: u32);
    /// Allocates pinned host memory.
    0x0511 sync may_block custom "guest-driver/libcuda/src/host_memory.rs" over cuMemHostRegister_v2
        fn cuMemAllocHost_v2(pp: *mut *mut core::ffi::c_void, bytesize: usize);
    /// Frees pinned host memory.
    0x0512 sync may_block custom "guest-driver/libcuda/src/host_memory.rs" over cuMemHostUnregister
        fn cuMemFreeHost(p: *mut core::ffi::c_void);
    /// Pins host memory of the caller's. The pages are mapped in the worker before this is sent.
    0x0513 sync may_block custom "guest-driver/libcuda/src/host_memory.rs"
        fn cuMemHostRegister_v2(p: *mut core::ffi::c_void, bytesize: usize, Flags: u32)
        wire (address: u64, len: usize, flags: u32);
    /// Gives pinned memory back.
    0x0514 sync may_block custom "guest-driver/libcuda/src/host_memory.rs" fn cuMemHostUnregister(p: *mut core::ffi::c_void)
        wire (address: u64);
    /// The device address of pinned memory.
    0x0515 local "guest-driver/libcuda/src/host_memory.rs"
        fn cuMemHostGetDevicePointer_v2(pdptr: *mut CUdeviceptr, p: *mut core::ffi::c_void, Flags: u32);
    /// The flags with which pinned memory was allocated.
    0x0516 local "guest-driver/libcuda/src/host_memory.rs" fn cuMemHostGetFlags(pFlags: *mut u32, p: *mut core::ffi::c_void);
    /// What an address is.
    0x0520 local "guest-driver/libcuda/src/pointer.rs"
        fn cuPointerGetAttribute(data: *mut core::ffi::c_void, attribute: u32, ptr: CUdeviceptr);
    /// What an address is, several questions at once.
    0x0521 local "guest-driver/libcuda/src/pointer.rs"
        fn cuPointerGetAttributes(numAttributes: u32, attributes: *const u32, data: *mut *mut core::ffi::c_void, ptr: CUdeviceptr);
    /// Sets what an address is asked to do: to keep synchronous operations on it synchronous (SYNC_MEMOPS).
    0x0522 local "guest-driver/libcuda/src/pointer.rs"
        fn cuPointerSetAttribute(value: *const core::ffi::c_void, attribute: u32, ptr: CUdeviceptr);

    /// What the driver says of an address, where only its own bookkeeping knows (SYNC_MEMOPS, the range of a mapping). The executor checks
    /// the address itself: a mapping need not be accessible.
    0x0523 sync internal fn vgpuPointerAttribute() wire (ptr: CUdeviceptr, attribute: u32) -> (value: u64);

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0580 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemAlloc;
    0x0581 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemAllocHost;
    0x0582 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemAllocPitch;
    0x0583 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemFree;
    0x0584 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemGetAddressRange;
    0x0585 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemGetInfo;
    0x0586 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemHostGetDevicePointer;
    0x0587 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemHostRegister;
}
