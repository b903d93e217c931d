//! Virtual memory management, memory pools and managed memory (CUDA Driver API, "Virtual Memory Management", "Stream Ordered Memory
//! Allocator", "Unified Addressing").

use crate::types::*;

cuda_api_macros::calls! { virtual_memory;
    /// Reserves addresses.
    0x0c01 sync custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemAddressReserve(ptr: *mut CUdeviceptr, size: usize, alignment: usize, addr: CUdeviceptr, flags: u64)
        wire (size: usize, alignment: usize, addr: CUdeviceptr, flags: u64, bytes avoid) -> (ptr: CUdeviceptr);
    /// Gives addresses back.
    0x0c02 sync custom "guest-driver/libcuda/src/virtual_memory.rs" fn cuMemAddressFree(ptr: CUdeviceptr, size: usize)
        wire (ptr: CUdeviceptr, size: usize);
    /// Allocates physical memory; the guest names it. The device is the host's ordinal in the frame, as in all rows here.
    0x0c20 sync may_block custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemCreate(handle: *mut CUmemGenericAllocationHandle, size: usize, prop: *const CUmemAllocationProp, flags: u64)
        wire (handle: CUmemGenericAllocationHandle, size: usize, in prop: CUmemAllocationProp, flags: u64);
    /// Gives physical memory back. It is sent once no handle and no mapping holds the memory.
    0x0c21 sync may_block custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemRelease(handle: CUmemGenericAllocationHandle) wire (handle: CUmemGenericAllocationHandle);
    /// Maps physical memory at reserved addresses.
    0x0c22 sync custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemMap(ptr: CUdeviceptr, size: usize, offset: usize, handle: CUmemGenericAllocationHandle, flags: u64)
        wire (ptr: CUdeviceptr, size: usize, offset: usize, handle: CUmemGenericAllocationHandle, flags: u64);
    /// Unmaps addresses.
    0x0c23 sync may_block custom "guest-driver/libcuda/src/virtual_memory.rs" fn cuMemUnmap(ptr: CUdeviceptr, size: usize)
        wire (ptr: CUdeviceptr, size: usize);
    /// Says who may access mapped addresses.
    0x0c24 sync custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemSetAccess(ptr: CUdeviceptr, size: usize, desc: *const CUmemAccessDesc, count: usize)
        wire (ptr: CUdeviceptr, size: usize, in desc: [CUmemAccessDesc; count], count: usize);
    /// The granularity of allocations.
    0x0c25 sync custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemGetAllocationGranularity(granularity: *mut usize, prop: *const CUmemAllocationProp, option: u32)
        wire (in prop: CUmemAllocationProp, option: u32) -> (granularity: usize);
    /// Who may access a mapped address.
    0x0c26 sync custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemGetAccess(flags: *mut u64, location: *const CUmemLocation, ptr: CUdeviceptr)
        wire (in location: CUmemLocation, ptr: CUdeviceptr) -> (flags: u64);
    /// What physical memory was allocated as.
    0x0c27 local "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemGetAllocationPropertiesFromHandle(prop: *mut CUmemAllocationProp, handle: CUmemGenericAllocationHandle);
    /// The handle of what is mapped at an address, to be released once more.
    0x0c28 local "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemRetainAllocationHandle(handle: *mut CUmemGenericAllocationHandle, addr: *mut core::ffi::c_void);

    /// A device's default pool; the guest gives it a name the first time.
    0x0c30 sync custom "guest-driver/libcuda/src/pools.rs" fn cuDeviceGetDefaultMemPool(pool_out: *mut CUmemoryPool, dev: CUdevice)
        wire (pool: CUmemoryPool, dev: CUdevice);
    /// The pool that a device's streams allocate from: the guest knows.
    0x0c31 sync custom "guest-driver/libcuda/src/pools.rs" over cuDeviceGetDefaultMemPool
        fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice);
    /// Sets the pool that a device's streams allocate from.
    0x0c32 sync custom "guest-driver/libcuda/src/pools.rs" fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool)
        wire (dev: CUdevice, pool: CUmemoryPool);
    /// Makes a pool of device memory; the guest names it.
    0x0c33 sync custom "guest-driver/libcuda/src/pools.rs" fn cuMemPoolCreate(pool: *mut CUmemoryPool, poolProps: *const CUmemPoolProps)
        wire (pool: CUmemoryPool, in props: CUmemPoolProps);
    /// Ends a pool; what was allocated from it stays until it is freed.
    0x0c34 sync may_block custom "guest-driver/libcuda/src/pools.rs" fn cuMemPoolDestroy(pool: CUmemoryPool) wire (pool: CUmemoryPool);
    /// Gives a pool's unused memory back.
    0x0c35 sync may_block fn cuMemPoolTrimTo(handle pool: CUmemoryPool, minBytesToKeep: usize);
    /// Sets how a pool behaves.
    0x0c36 sync custom "guest-driver/libcuda/src/pools.rs"
        fn cuMemPoolSetAttribute(pool: CUmemoryPool, attr: u32, value: *mut core::ffi::c_void)
        wire (pool: CUmemoryPool, attr: u32, value: u64);
    /// How a pool behaves and what it holds.
    0x0c37 sync custom "guest-driver/libcuda/src/pools.rs"
        fn cuMemPoolGetAttribute(pool: CUmemoryPool, attr: u32, value: *mut core::ffi::c_void)
        wire (pool: CUmemoryPool, attr: u32) -> (value: u64);
    /// Says which devices may access a pool's memory.
    0x0c38 sync custom "guest-driver/libcuda/src/pools.rs"
        fn cuMemPoolSetAccess(pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize)
        wire (pool: CUmemoryPool, in map: [CUmemAccessDesc; count], count: usize);
    /// Whether a device may access a pool's memory.
    0x0c39 sync custom "guest-driver/libcuda/src/pools.rs"
        fn cuMemPoolGetAccess(flags: *mut u32, memPool: CUmemoryPool, location: *mut CUmemLocation)
        wire (pool: CUmemoryPool, in location: CUmemLocation) -> (flags: u32);
    /// Allocates in a stream, from its device's pool (a NULL pool in the frame) or another. The address is known at once; `avoid` is as
    /// for cuMemAlloc. In a capture the memory belongs to the graph: `captured` is 1.
    0x0c3a sync may_block custom "guest-driver/libcuda/src/pools.rs" ptsz
        fn cuMemAllocAsync(dptr: *mut CUdeviceptr, bytesize: usize, hStream: CUstream)
        wire (bytesize: usize, pool: CUmemoryPool, hStream: CUstream, bytes avoid) -> (dptr: CUdeviceptr, captured: u32);
    /// Allocates in a stream, from a pool.
    0x0c3b sync may_block custom "guest-driver/libcuda/src/pools.rs" over cuMemAllocAsync ptsz
        fn cuMemAllocFromPoolAsync(dptr: *mut CUdeviceptr, bytesize: usize, pool: CUmemoryPool, hStream: CUstream);
    /// Frees memory once the stream gets there. Memory of a pool is known here and not waited for.
    0x0c3c posted custom "guest-driver/libcuda/src/pools.rs" ptsz fn cuMemFreeAsync(dptr: CUdeviceptr, hStream: CUstream)
        wire (dptr: CUdeviceptr, hStream: CUstream);
    /// The default pool of a location: a device's.
    0x0c3d sync custom "guest-driver/libcuda/src/pools.rs" over cuDeviceGetDefaultMemPool
        fn cuMemGetDefaultMemPool(pool_out: *mut CUmemoryPool, location: *mut CUmemLocation, kind: i32);
    /// The pool of a location: a device's.
    0x0c3e sync custom "guest-driver/libcuda/src/pools.rs" over cuDeviceGetDefaultMemPool
        fn cuMemGetMemPool(pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: i32);
    /// Sets the pool of a location: a device's.
    0x0c3f sync custom "guest-driver/libcuda/src/pools.rs" over cuDeviceSetMemPool
        fn cuMemSetMemPool(location: *mut CUmemLocation, kind: i32, pool: CUmemoryPool);

    /// Allocates managed memory: pinned host memory at the same address on both sides. It is coherent, host and device may access it at
    /// once, and it is never moved to the device: advice and prefetches are remembered and change nothing else.
    0x0c50 sync may_block custom "guest-driver/libcuda/src/managed.rs" over cuMemHostRegister_v2
        fn cuMemAllocManaged(dptr: *mut CUdeviceptr, bytesize: usize, flags: u32);
    /// Advice about managed memory: remembered. The memory stays where it is.
    0x0c51 local "guest-driver/libcuda/src/managed.rs" fn cuMemAdvise(devPtr: CUdeviceptr, count: usize, advice: u32, device: CUdevice);
    /// Advice about managed memory: remembered. The memory stays where it is.
    0x0c52 local "guest-driver/libcuda/src/managed.rs"
        fn cuMemAdvise_v2(devPtr: CUdeviceptr, count: usize, advice: u32, location: CUmemLocation);
    /// Where managed memory is wanted next: remembered. The memory stays where it is.
    0x0c53 local "guest-driver/libcuda/src/managed.rs" ptsz
        fn cuMemPrefetchAsync(devPtr: CUdeviceptr, count: usize, dstDevice: CUdevice, hStream: CUstream);
    /// Where managed memory is wanted next: remembered. The memory stays where it is.
    0x0c54 local "guest-driver/libcuda/src/managed.rs" ptsz
        fn cuMemPrefetchAsync_v2(devPtr: CUdeviceptr, count: usize, location: CUmemLocation, flags: u32, hStream: CUstream);
    /// Where several ranges of managed memory are wanted next: remembered. The memory stays where it is.
    0x0c55 local "guest-driver/libcuda/src/managed.rs" ptsz
        fn cuMemPrefetchBatchAsync(dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetchLocs: *mut CUmemLocation,
            prefetchLocIdxs: *mut usize, numPrefetchLocs: usize, flags: u64, hStream: CUstream);
    /// What was advised for managed memory.
    0x0c56 local "guest-driver/libcuda/src/managed.rs"
        fn cuMemRangeGetAttribute(data: *mut core::ffi::c_void, dataSize: usize, attribute: u32, devPtr: CUdeviceptr, count: usize);
    /// What was advised for managed memory, several questions at once.
    0x0c57 local "guest-driver/libcuda/src/managed.rs"
        fn cuMemRangeGetAttributes(data: *mut *mut core::ffi::c_void, dataSizes: *mut usize, attributes: *mut u32, numAttributes: usize,
            devPtr: CUdeviceptr, count: usize);
    /// Which stream uses managed memory: checked. Every device has concurrent access, so it restricts nothing.
    0x0c58 local "guest-driver/libcuda/src/managed.rs" ptsz
        fn cuStreamAttachMemAsync(hStream: CUstream, dptr: CUdeviceptr, length: usize, flags: u32);

    /// What the worker has in ranges of managed variables, which come as pairs of words: address and length. The executor checks that
    /// each lies in a variable that was asked for. It needs no context and no turn, as the next two.
    0x0c59 sync internal fn vgpuManagedRead() wire (bytes ranges) -> (bytes: Vec<u8>);
    /// A hash of each piece of a range of a managed variable ([`crate::managed::PIECE_BYTES`]).
    0x0c5a sync internal fn vgpuManagedHashes() wire (start: u64, len: u64) -> (hashes: Vec<u64>);
    /// Bytes that the program has changed in managed variables, as runs ([`crate::managed::put_run`]).
    0x0c5b sync internal fn vgpuManagedWrite() wire (bytes runs);

    // Refused: operations that are not needed for a result and have no honest counterpart here.
    0x0c8d refused "the decompression engine is not offered (attributes 136 and 137 are 0)" ptsz fn cuMemBatchDecompressAsync;
    0x0c8e refused "managed memory is pinned host memory here: there is no copy on a device to discard" ptsz fn cuMemDiscardAndPrefetchBatchAsync;
    0x0c8f refused "managed memory is pinned host memory here: there is no copy on a device to discard" ptsz fn cuMemDiscardBatchAsync;

    // Refused: pools that several processes share.
    0x0c95 refused "memory pools are not shared between processes (attribute 119 is 0)" fn cuMemPoolExportPointer;
    0x0c96 refused "memory pools are not shared between processes (attribute 119 is 0)" fn cuMemPoolExportToShareableHandle;
    0x0c99 refused "memory pools are not shared between processes (attribute 119 is 0)" fn cuMemPoolImportFromShareableHandle;
    0x0c9a refused "memory pools are not shared between processes (attribute 119 is 0)" fn cuMemPoolImportPointer;

    // Refused: multicast objects span several GPUs.
    0x0ca1 refused "multicast objects span several GPUs" fn cuMulticastAddDevice;
    0x0ca2 refused "multicast objects span several GPUs" fn cuMulticastBindAddr;
    0x0ca3 refused "multicast objects span several GPUs" fn cuMulticastBindMem;
    0x0ca4 refused "multicast objects span several GPUs" fn cuMulticastCreate;
    0x0ca5 refused "multicast objects span several GPUs" fn cuMulticastGetGranularity;
    0x0ca6 refused "multicast objects span several GPUs" fn cuMulticastUnbind;

    /// A token for physical memory, which other processes of the VM may import. The guest makes a file of it.
    0x0c60 sync custom "guest-driver/libcuda/src/shareable.rs"
        fn cuMemExportToShareableHandle(shareableHandle: *mut core::ffi::c_void, handle: CUmemGenericAllocationHandle,
            handleType: u32, flags: u64)
        wire (handle: CUmemGenericAllocationHandle) -> (token: CUipcHandle);
    /// Imports physical memory of another process; the guest names it. The device is the host's ordinal.
    0x0c61 sync may_block custom "guest-driver/libcuda/src/shareable.rs"
        fn cuMemImportFromShareableHandle(handle: *mut CUmemGenericAllocationHandle, osHandle: *mut core::ffi::c_void,
            shHandleType: u32)
        wire (handle: CUmemGenericAllocationHandle, in token: CUipcHandle) -> (device: CUdevice);

    // Refused: exported by the driver, and documented nowhere.
    0x0caa refused "it is documented nowhere: what its arguments are is not known" fn cuMemGetAttribute;
    0x0cab refused "it is documented nowhere: what its arguments are is not known" fn cuMemGetAttribute_v2;
}
