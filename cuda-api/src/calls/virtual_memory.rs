//! Virtual memory management (CUDA Driver API, "Virtual Memory Management").

use crate::types::*;

cuda_api_macros::calls! { virtual_memory;
    /// Reserves addresses.
    0x0c01 sync custom "guest-driver/libcuda/src/virtual_memory.rs"
        fn cuMemAddressReserve(ptr: *mut CUdeviceptr, size: usize, alignment: usize, addr: CUdeviceptr, flags: u64)
        wire (size: usize, alignment: usize, addr: CUdeviceptr, flags: u64, bytes avoid) -> (ptr: CUdeviceptr);
    /// Gives addresses back.
    0x0c02 sync custom "guest-driver/libcuda/src/virtual_memory.rs" fn cuMemAddressFree(ptr: CUdeviceptr, size: usize)
        wire (ptr: CUdeviceptr, size: usize);
    /// Allocates physical memory; the guest names it.
    0x0c03 sync may_block fn cuMemCreate(new handle: CUmemGenericAllocationHandle, size: usize, in prop: CUmemAllocationProp, flags: u64);
    /// Gives physical memory back.
    0x0c04 sync may_block fn cuMemRelease(free handle: CUmemGenericAllocationHandle);
    /// Maps physical memory at reserved addresses.
    0x0c05 sync fn cuMemMap(ptr: CUdeviceptr, size: usize, offset: usize, handle handle: CUmemGenericAllocationHandle, flags: u64);
    /// Unmaps addresses.
    0x0c06 sync may_block fn cuMemUnmap(ptr: CUdeviceptr, size: usize);
    /// Says who may access mapped addresses.
    0x0c07 sync fn cuMemSetAccess(ptr: CUdeviceptr, size: usize, in desc: [CUmemAccessDesc; count], count: usize);
    /// The granularity of allocations.
    0x0c08 sync fn cuMemGetAllocationGranularity(out granularity: usize, in prop: CUmemAllocationProp, option: u32);

    // Refused: managed memory is not carried.
    0x0c80 refused "managed memory is not carried" fn cuLibraryGetManaged;
    0x0c81 refused "managed memory is not carried" fn cuMemAdvise;
    0x0c82 refused "managed memory is not carried" fn cuMemAdvise_v2;
    0x0c83 refused "managed memory is not carried" fn cuMemAllocManaged;
    0x0c84 refused "managed memory is not carried" ptsz fn cuMemPrefetchAsync_v2;
    0x0c85 refused "managed memory is not carried" fn cuMemRangeGetAttribute;
    0x0c86 refused "managed memory is not carried" fn cuMemRangeGetAttributes;
    0x0c87 refused "managed memory is not carried" ptsz fn cuStreamAttachMemAsync;

    // Refused: memory pools, stream-ordered allocation and prefetching are not carried.
    0x0c88 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuDeviceGetDefaultMemPool;
    0x0c89 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuDeviceGetMemPool;
    0x0c8a refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuDeviceSetMemPool;
    0x0c8b refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemAllocAsync;
    0x0c8c refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemAllocFromPoolAsync;
    0x0c8d refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemBatchDecompressAsync;
    0x0c8e refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemDiscardAndPrefetchBatchAsync;
    0x0c8f refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemDiscardBatchAsync;
    0x0c90 refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemFreeAsync;
    0x0c91 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemGetDefaultMemPool;
    0x0c92 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemGetMemPool;
    0x0c93 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolCreate;
    0x0c94 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolDestroy;
    0x0c95 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolExportPointer;
    0x0c96 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolExportToShareableHandle;
    0x0c97 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolGetAccess;
    0x0c98 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolGetAttribute;
    0x0c99 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolImportFromShareableHandle;
    0x0c9a refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolImportPointer;
    0x0c9b refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolSetAccess;
    0x0c9c refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolSetAttribute;
    0x0c9d refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemPoolTrimTo;
    0x0c9e refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemPrefetchAsync;
    0x0c9f refused "memory pools, stream-ordered allocation and prefetching are not carried" ptsz fn cuMemPrefetchBatchAsync;
    0x0ca0 refused "memory pools, stream-ordered allocation and prefetching are not carried" fn cuMemSetMemPool;

    // Refused: multicast objects span several GPUs.
    0x0ca1 refused "multicast objects span several GPUs" fn cuMulticastAddDevice;
    0x0ca2 refused "multicast objects span several GPUs" fn cuMulticastBindAddr;
    0x0ca3 refused "multicast objects span several GPUs" fn cuMulticastBindMem;
    0x0ca4 refused "multicast objects span several GPUs" fn cuMulticastCreate;
    0x0ca5 refused "multicast objects span several GPUs" fn cuMulticastGetGranularity;
    0x0ca6 refused "multicast objects span several GPUs" fn cuMulticastUnbind;

    // Refused: this part of virtual memory management is not carried.
    0x0ca7 refused "this part of virtual memory management is not carried" fn cuMemExportToShareableHandle;
    0x0ca8 refused "this part of virtual memory management is not carried" fn cuMemGetAccess;
    0x0ca9 refused "this part of virtual memory management is not carried" fn cuMemGetAllocationPropertiesFromHandle;
    0x0caa refused "this part of virtual memory management is not carried" fn cuMemGetAttribute;
    0x0cab refused "this part of virtual memory management is not carried" fn cuMemGetAttribute_v2;
    0x0cac refused "this part of virtual memory management is not carried" fn cuMemImportFromShareableHandle;
    0x0cad refused "this part of virtual memory management is not carried" fn cuMemRetainAllocationHandle;
}
