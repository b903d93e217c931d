//! The driver's functions by their exported names, as far as the call table needs them.
//!
//! A row is `kind name [outputs first] (inputs) [outputs last]`: the C function takes a pointer for each output before
//! and after the inputs, and the method returns them. `safe` rows take numbers and driver handles only. Driver handles
//! ([`Raw`]) come from the driver and stay inside the crate, each kept alive by the object that owns it (`objects.rs`):
//! that makes them safe. `raw` rows take device or host addresses, whose validity the caller states.
//!
//! A function that the host's driver does not have is refused by name (CUDA_ERROR_NOT_SUPPORTED) when it is called.

use std::collections::HashSet;
use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use cuda_api::CuResult;
use cuda_api::graph_node::{BatchNode, Copy3D, KernelNode, MemAllocNode, MemsetNode, NodeParams};
use cuda_api::types::{
    CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY_MEMORY_REQUIREMENTS, CUDA_ARRAY_SPARSE_PROPERTIES,
    CUDA_ARRAY3D_DESCRIPTOR, CUDA_MEMCPY3D, CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC,
    CUgraphExecUpdateResultInfo, CUmemAccessDesc, CUmemAllocationProp, CUmemLocation, CUmemPoolProps,
    CUmemcpyAttributes, CUresult, CUtensorMap,
};
use libloading::os::unix::Library;

use crate::checkpoint::{LockArgs, NoArgs};
use crate::lock::lock;

/// A handle of the driver's: an address of this process.
pub(crate) type Raw = usize;

/// CUlaunchAttribute: number, padding, 64 bytes of value.
pub(crate) type LaunchAttribute = [u64; 9];

/// CUlaunchAttributeValue, which is a stream attribute's value as well.
pub(crate) type AttributeValue = [u64; 8];

/// CUstreamBatchMemOpParams.
pub(crate) type BatchOperation = [u64; 6];

/// CUdevResource: what the driver wrote, given back to it as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub(crate) struct DevResource {
    /// Type, and the driver's own part.
    pub(crate) head: [u64; 12],
    /// For multiprocessors: how many, the smallest partition, the alignment.
    pub(crate) public: [u32; 12],
}

/// CUlaunchConfig.
#[repr(C)]
pub(crate) struct LaunchConfig {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) stream: Raw,
    pub(crate) attributes: *const LaunchAttribute,
    pub(crate) attribute_count: u32,
}

/// CUDA_RESOURCE_DESC: its fields are a handle, or an address, format and channels, and sizes, as the kind says.
#[repr(C)]
pub(crate) struct ResourceDesc {
    pub(crate) kind: u32,
    pub(crate) fields: [u64; 16],
    pub(crate) flags: u32,
}

/// CUipcMemHandle and CUipcEventHandle: the driver's own, which come from it or from another worker's.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct IpcHandle([u64; 8]);

impl IpcHandle {
    pub(crate) fn new(bytes: [u8; 64]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        IpcHandle(words)
    }

    pub(crate) fn bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *to = word.to_ne_bytes();
        }
        bytes
    }
}

/// CUhostFn, and a user object's destructor.
pub(crate) type HostFunction = unsafe extern "C" fn(*mut c_void);
/// CUDA_HOST_NODE_PARAMS.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct HostNodeParams {
    pub(crate) function: Option<HostFunction>,
    /// Data of the function's, as a number: nothing here follows it.
    pub(crate) data: usize,
}

/// CUstreamCallback.
pub(crate) type StreamCallback = unsafe extern "C" fn(Raw, u32, *mut c_void);

/// CUDA_GRAPH_INSTANTIATE_PARAMS.
#[repr(C)]
pub(crate) struct InstantiateParams {
    pub(crate) flags: u64,
    pub(crate) upload_stream: Raw,
    pub(crate) error_node: Raw,
    pub(crate) result: u32,
}

macro_rules! driver {
    ($($kind:ident $name:ident [$($o:ident: $ot:ty),*] ($($i:ident: $it:ty),*) [$($l:ident: $lt:ty),*];)+) => {
        /// The driver of this process.
        #[allow(non_snake_case)]
        pub(crate) struct Driver {
            $( $name: Option<unsafe extern "C" fn($(*mut $ot,)* $($it,)* $(*mut $lt),*) -> u32>, )+
            sticky: AtomicU32,
            missing: Mutex<HashSet<&'static str>>,
            /// Keeps the functions where they are.
            _library: Library,
        }

        #[allow(non_snake_case)]
        impl Driver {
            pub(crate) fn new(library: Library) -> Self {
                Driver {
                    $( $name: {
                        // SAFETY: the type is the C signature that CUDA documents for this exported name.
                        let found = unsafe {
                            library.get::<unsafe extern "C" fn($(*mut $ot,)* $($it,)* $(*mut $lt),*) -> u32>(
                                concat!(stringify!($name), "\0").as_bytes(),
                            )
                        };
                        found.ok().map(|symbol| *symbol)
                    }, )+
                    sticky: AtomicU32::new(0),
                    missing: Mutex::default(),
                    _library: library,
                }
            }

            $( driver!(@ $kind $name [$($o: $ot),*] ($($i: $it),*) [$($l: $lt),*]); )+
        }
    };
    (@ safe $name:ident [$($o:ident: $ot:ty),*] ($($i:ident: $it:ty),*) [$($l:ident: $lt:ty),*]) => {
        pub(crate) fn $name(&self $(, $i: $it)*) -> CuResult<($($ot,)* $($lt,)*)> {
            let function = self.$name.ok_or_else(|| self.lacks(stringify!($name)))?;
            $( let mut $o: $ot = Default::default(); )*
            $( let mut $l: $lt = Default::default(); )*
            // SAFETY: outputs are locals of the documented types; inputs are numbers, which the driver checks, and
            // driver handles, which are alive (this module's page).
            let result = unsafe { function($(&raw mut $o,)* $($i,)* $(&raw mut $l),*) };
            self.checked(result, stringify!($name)).map(|()| ($($o,)* $($l,)*))
        }
    };
    (@ raw $name:ident [$($o:ident: $ot:ty),*] ($($i:ident: $it:ty),*) [$($l:ident: $lt:ty),*]) => {
        /// # Safety
        /// The addresses are what CUDA's documentation of this function asks for.
        pub(crate) unsafe fn $name(&self $(, $i: $it)*) -> CuResult<($($ot,)* $($lt,)*)> {
            let function = self.$name.ok_or_else(|| self.lacks(stringify!($name)))?;
            $( let mut $o: $ot = Default::default(); )*
            $( let mut $l: $lt = Default::default(); )*
            // SAFETY: outputs are locals of the documented types; the inputs are valid by this function's contract.
            let result = unsafe { function($(&raw mut $o,)* $($i,)* $(&raw mut $l),*) };
            self.checked(result, stringify!($name)).map(|()| ($($o,)* $($l,)*))
        }
    };
}

driver! {
    safe cuInit [] (flags: u32) [];
    safe cuDriverGetVersion [version: i32] () [];
    safe cuDeviceGetCount [count: i32] () [];
    safe cuDeviceGet [device: i32] (ordinal: i32) [];
    raw cuDeviceGetName [] (name: *mut c_char, len: i32, device: i32) [];
    safe cuDeviceGetUuid_v2 [uuid: [u8; 16]] (device: i32) [];
    safe cuDeviceTotalMem_v2 [bytes: usize] (device: i32) [];
    safe cuDeviceGetAttribute [value: i32] (attribute: i32, device: i32) [];
    safe cuDeviceCanAccessPeer [can: i32] (device: i32, peer: i32) [];
    safe cuDeviceGetP2PAttribute [value: i32] (attribute: u32, from: i32, to: i32) [];
    raw cuDeviceGetP2PAtomicCapabilities [] (capabilities: *mut u32, operations: *const u32, count: u32, from: i32, to: i32) [];

    safe cuDevicePrimaryCtxRetain [context: Raw] (device: i32) [];
    safe cuDevicePrimaryCtxRelease_v2 [] (device: i32) [];
    safe cuDevicePrimaryCtxSetFlags_v2 [] (device: i32, flags: u32) [];
    safe cuCtxCreate_v2 [context: Raw] (flags: u32, device: i32) [];
    safe cuCtxDestroy_v2 [] (context: Raw) [];
    safe cuCtxSetCurrent [] (context: Raw) [];
    safe cuCtxPushCurrent_v2 [] (context: Raw) [];
    safe cuCtxPopCurrent_v2 [context: Raw] () [];
    safe cuCtxSynchronize [] () [];
    safe cuCtxGetLimit [value: usize] (limit: u32) [];
    safe cuCtxSetLimit [] (limit: u32, value: usize) [];
    safe cuCtxGetCacheConfig [config: u32] () [];
    safe cuCtxSetCacheConfig [] (config: u32) [];
    safe cuCtxSetFlags [] (flags: u32) [];
    safe cuCtxGetSharedMemConfig [config: u32] () [];
    safe cuCtxSetSharedMemConfig [] (config: u32) [];
    safe cuCtxResetPersistingL2Cache [] () [];
    safe cuCtxGetExecAffinity [affinity: [u32; 2]] (kind: u32) [];
    safe cuCtxRecordEvent [] (context: Raw, event: Raw) [];
    safe cuCtxWaitEvent [] (context: Raw, event: Raw) [];
    safe cuCtxGetStreamPriorityRange [least: i32, greatest: i32] () [];
    safe cuCtxEnablePeerAccess [] (peer: Raw, flags: u32) [];
    safe cuCtxDisablePeerAccess [] (peer: Raw) [];

    raw cuModuleLoadDataEx [module: Raw]
        (image: *const c_void, count: u32, options: *mut u32, values: *mut *mut c_void) [];
    safe cuModuleUnload [] (module: Raw) [];
    raw cuModuleGetFunction [function: Raw] (module: Raw, name: *const c_char) [];
    raw cuModuleGetGlobal_v2 [address: u64, len: usize] (module: Raw, name: *const c_char) [];
    safe cuModuleGetFunctionCount [count: u32] (module: Raw) [];
    raw cuModuleEnumerateFunctions [] (functions: *mut Raw, count: u32, module: Raw) [];

    raw cuLinkCreate_v2 [] (count: u32, options: *mut u32, values: *mut *mut c_void) [state: Raw];
    raw cuLinkAddData_v2 []
        (state: Raw, kind: u32, data: *mut c_void, size: usize, name: *const c_char, count: u32,
         options: *mut u32, values: *mut *mut c_void) [];
    safe cuLinkComplete [] (state: Raw) [image: Raw, size: usize];
    safe cuLinkDestroy [] (state: Raw) [];

    raw cuLibraryLoadData [library: Raw]
        (image: *const c_void, jit_options: *mut u32, jit_values: *mut *mut c_void, jit_count: u32,
         options: *mut u32, values: *mut *mut c_void, count: u32) [];
    safe cuLibraryUnload [] (library: Raw) [];
    raw cuLibraryGetKernel [kernel: Raw] (library: Raw, name: *const c_char) [];
    safe cuLibraryGetModule [module: Raw] (library: Raw) [];
    raw cuLibraryGetGlobal [address: u64, len: usize] (library: Raw, name: *const c_char) [];
    raw cuLibraryGetManaged [address: u64, len: usize] (library: Raw, name: *const c_char) [];
    safe cuLibraryGetKernelCount [count: u32] (library: Raw) [];
    raw cuLibraryEnumerateKernels [] (kernels: *mut Raw, count: u32, library: Raw) [];
    safe cuKernelGetName [name: Raw] (kernel: Raw) [];
    safe cuKernelGetFunction [function: Raw] (kernel: Raw) [];
    safe cuKernelGetAttribute [value: i32] (attribute: i32, kernel: Raw, device: i32) [];
    safe cuKernelSetAttribute [] (attribute: i32, value: i32, kernel: Raw, device: i32) [];
    safe cuKernelSetCacheConfig [] (kernel: Raw, config: u32, device: i32) [];
    safe cuKernelGetParamInfo [] (kernel: Raw, index: usize) [offset: usize, size: usize];

    safe cuFuncGetAttribute [value: i32] (attribute: i32, function: Raw) [];
    safe cuFuncSetAttribute [] (function: Raw, attribute: i32, value: i32) [];
    safe cuFuncSetCacheConfig [] (function: Raw, config: u32) [];
    safe cuFuncSetSharedMemConfig [] (function: Raw, config: u32) [];
    safe cuFuncGetParamInfo [] (function: Raw, index: usize) [offset: usize, size: usize];
    safe cuFuncGetName [name: Raw] (function: Raw) [];
    safe cuFuncIsLoaded [state: u32] (function: Raw) [];
    safe cuFuncLoad [] (function: Raw) [];

    raw cuLaunchKernel []
        (function: Raw, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
         shared_bytes: u32, stream: Raw, params: *mut *mut c_void, extra: *mut *mut c_void) [];
    raw cuLaunchKernelEx []
        (config: *const LaunchConfig, function: Raw, params: *mut *mut c_void, extra: *mut *mut c_void) [];
    safe cuOccupancyMaxActiveBlocksPerMultiprocessor [blocks: i32]
        (function: Raw, block_size: i32, shared_bytes: usize) [];
    safe cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags [blocks: i32]
        (function: Raw, block_size: i32, shared_bytes: usize, flags: u32) [];
    safe cuOccupancyAvailableDynamicSMemPerBlock [bytes: usize] (function: Raw, blocks: i32, block_size: i32) [];
    raw cuOccupancyMaxPotentialClusterSize [size: i32] (function: Raw, config: *const LaunchConfig) [];
    raw cuOccupancyMaxActiveClusters [clusters: i32] (function: Raw, config: *const LaunchConfig) [];

    safe cuMemAlloc_v2 [address: u64] (len: usize) [];
    raw cuMemFree_v2 [] (address: u64) [];
    safe cuMemGetAddressRange_v2 [start: u64, len: usize] (address: u64) [];
    safe cuMemGetInfo_v2 [free: usize, total: usize] () [];
    raw cuMemHostRegister_v2 [] (address: *mut c_void, len: usize, flags: u32) [];
    raw cuMemHostUnregister [] (address: *mut c_void) [];
    raw cuMemHostGetDevicePointer_v2 [device: u64] (address: *mut c_void, flags: u32) [];

    raw cuMemcpyHtoD_v2 [] (to: u64, from: *const c_void, len: usize) [];
    raw cuMemcpyDtoH_v2 [] (to: *mut c_void, from: u64, len: usize) [];
    raw cuMemcpyHtoDAsync_v2 [] (to: u64, from: *const c_void, len: usize, stream: Raw) [];
    raw cuMemcpyDtoHAsync_v2 [] (to: *mut c_void, from: u64, len: usize, stream: Raw) [];
    raw cuMemcpyDtoD_v2 [] (to: u64, from: u64, len: usize) [];
    raw cuMemcpyAsync [] (to: u64, from: u64, len: usize, stream: Raw) [];
    raw cuMemcpy3DAsync_v2 [] (copy: *const CUDA_MEMCPY3D, stream: Raw) [];
    raw cuMemcpy3DPeer [] (copy: *const CUDA_MEMCPY3D) [];
    raw cuMemcpy3DPeerAsync [] (copy: *const CUDA_MEMCPY3D, stream: Raw) [];
    raw cuMemcpyPeer [] (to: u64, to_context: Raw, from: u64, from_context: Raw, len: usize) [];
    raw cuMemcpyPeerAsync []
        (to: u64, to_context: Raw, from: u64, from_context: Raw, len: usize, stream: Raw) [];
    raw cuMemcpyBatchAsync_v2 []
        (to: *mut u64, from: *mut u64, sizes: *mut usize, count: usize, attributes: *mut CUmemcpyAttributes,
         first: *mut usize, attribute_count: usize, stream: Raw) [];
    raw cuMemcpyHtoAAsync_v2 [] (to: Raw, offset: usize, from: *const c_void, len: usize, stream: Raw) [];
    raw cuMemcpyAtoHAsync_v2 [] (to: *mut c_void, from: Raw, offset: usize, len: usize, stream: Raw) [];
    safe cuMemcpyAtoA_v2 [] (to: Raw, to_offset: usize, from: Raw, from_offset: usize, len: usize) [];
    raw cuMemcpyAtoD_v2 [] (to: u64, from: Raw, offset: usize, len: usize) [];
    raw cuMemcpyDtoA_v2 [] (to: Raw, offset: usize, from: u64, len: usize) [];

    raw cuArrayCreate_v2 [array: Raw] (descriptor: *const CUDA_ARRAY_DESCRIPTOR) [];
    raw cuArray3DCreate_v2 [array: Raw] (descriptor: *const CUDA_ARRAY3D_DESCRIPTOR) [];
    raw cuArrayGetDescriptor_v2 [] (descriptor: *mut CUDA_ARRAY_DESCRIPTOR, array: Raw) [];
    raw cuArray3DGetDescriptor_v2 [] (descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, array: Raw) [];
    safe cuArrayDestroy [] (array: Raw) [];
    raw cuArrayGetMemoryRequirements []
        (requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, array: Raw, device: i32) [];
    raw cuArrayGetSparseProperties [] (properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: Raw) [];
    safe cuArrayGetPlane [plane: Raw] (array: Raw, index: u32) [];
    raw cuMipmappedArrayCreate [mipmap: Raw] (descriptor: *const CUDA_ARRAY3D_DESCRIPTOR, levels: u32) [];
    safe cuMipmappedArrayDestroy [] (mipmap: Raw) [];
    safe cuMipmappedArrayGetLevel [array: Raw] (mipmap: Raw, level: u32) [];
    raw cuMipmappedArrayGetMemoryRequirements []
        (requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, mipmap: Raw, device: i32) [];
    raw cuMipmappedArrayGetSparseProperties [] (properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, mipmap: Raw) [];

    raw cuTexObjectCreate [object: u64]
        (resource: *const ResourceDesc, texture: *const CUDA_TEXTURE_DESC, view: *const CUDA_RESOURCE_VIEW_DESC) [];
    safe cuTexObjectDestroy [] (object: u64) [];
    raw cuTexObjectGetTextureDesc [] (texture: *mut CUDA_TEXTURE_DESC, object: u64) [];
    raw cuTexObjectGetResourceViewDesc [] (view: *mut CUDA_RESOURCE_VIEW_DESC, object: u64) [];
    raw cuSurfObjectCreate [object: u64] (resource: *const ResourceDesc) [];
    safe cuSurfObjectDestroy [] (object: u64) [];
    safe cuDeviceGetTexture1DLinearMaxWidth [elements: usize] (format: u32, channels: u32, device: i32) [];

    raw cuPointerGetAttribute [] (data: *mut c_void, attribute: u32, address: u64) [];
    raw cuMemAdvise [] (address: u64, len: usize, advice: u32, device: i32) [];
    raw cuMemsetD8_v2 [] (to: u64, value: u8, count: usize) [];
    raw cuMemsetD16_v2 [] (to: u64, value: u16, count: usize) [];
    raw cuMemsetD32_v2 [] (to: u64, value: u32, count: usize) [];
    raw cuMemsetD8Async [] (to: u64, value: u8, count: usize, stream: Raw) [];
    raw cuMemsetD16Async [] (to: u64, value: u16, count: usize, stream: Raw) [];
    raw cuMemsetD32Async [] (to: u64, value: u32, count: usize, stream: Raw) [];
    raw cuMemsetD2D8_v2 [] (to: u64, pitch: usize, value: u8, width: usize, height: usize) [];
    raw cuMemsetD2D16_v2 [] (to: u64, pitch: usize, value: u16, width: usize, height: usize) [];
    raw cuMemsetD2D32_v2 [] (to: u64, pitch: usize, value: u32, width: usize, height: usize) [];
    raw cuMemsetD2D8Async [] (to: u64, pitch: usize, value: u8, width: usize, height: usize, stream: Raw) [];
    raw cuMemsetD2D16Async [] (to: u64, pitch: usize, value: u16, width: usize, height: usize, stream: Raw) [];
    raw cuMemsetD2D32Async [] (to: u64, pitch: usize, value: u32, width: usize, height: usize, stream: Raw) [];

    safe cuMemAddressReserve [address: u64] (size: usize, alignment: usize, hint: u64, flags: u64) [];
    raw cuMemAddressFree [] (address: u64, size: usize) [];
    raw cuMemCreate [handle: u64] (size: usize, prop: *const CUmemAllocationProp, flags: u64) [];
    safe cuMemRelease [] (handle: u64) [];
    raw cuMemMap [] (address: u64, size: usize, offset: usize, handle: u64, flags: u64) [];
    raw cuMemUnmap [] (address: u64, size: usize) [];
    raw cuMemSetAccess [] (address: u64, size: usize, desc: *const CUmemAccessDesc, count: usize) [];
    raw cuMemGetAllocationGranularity [granularity: usize] (prop: *const CUmemAllocationProp, option: u32) [];
    raw cuMemGetAccess [flags: u64] (location: *const CUmemLocation, address: u64) [];

    safe cuDeviceGetDefaultMemPool [pool: Raw] (device: i32) [];
    safe cuDeviceGetMemPool [pool: Raw] (device: i32) [];
    safe cuDeviceSetMemPool [] (device: i32, pool: Raw) [];
    raw cuDeviceGetGraphMemAttribute [] (device: i32, attribute: u32, value: *mut c_void) [];
    safe cuDeviceGraphMemTrim [] (device: i32) [];
    raw cuMemPoolCreate [pool: Raw] (props: *const CUmemPoolProps) [];
    safe cuMemPoolDestroy [] (pool: Raw) [];
    safe cuMemPoolTrimTo [] (pool: Raw, keep: usize) [];
    raw cuMemPoolSetAttribute [] (pool: Raw, attribute: u32, value: *mut c_void) [];
    raw cuMemPoolGetAttribute [] (pool: Raw, attribute: u32, value: *mut c_void) [];
    raw cuMemPoolSetAccess [] (pool: Raw, map: *const CUmemAccessDesc, count: usize) [];
    raw cuMemPoolGetAccess [flags: u32] (pool: Raw, location: *mut CUmemLocation) [];
    safe cuMemAllocAsync [address: u64] (len: usize, stream: Raw) [];
    safe cuMemAllocFromPoolAsync [address: u64] (len: usize, pool: Raw, stream: Raw) [];
    raw cuMemFreeAsync [] (address: u64, stream: Raw) [];

    safe cuStreamCreateWithPriority [stream: Raw] (flags: u32, priority: i32) [];
    safe cuStreamDestroy_v2 [] (stream: Raw) [];
    safe cuStreamSynchronize [] (stream: Raw) [];
    safe cuStreamQuery [] (stream: Raw) [];
    safe cuStreamWaitEvent [] (stream: Raw, event: Raw, flags: u32) [];
    raw cuStreamWriteValue32_v2 [] (stream: Raw, address: u64, value: u32, flags: u32) [];
    raw cuStreamWriteValue64_v2 [] (stream: Raw, address: u64, value: u64, flags: u32) [];
    raw cuStreamWaitValue32_v2 [] (stream: Raw, address: u64, value: u32, flags: u32) [];
    raw cuStreamWaitValue64_v2 [] (stream: Raw, address: u64, value: u64, flags: u32) [];
    raw cuStreamBatchMemOp_v2 [] (stream: Raw, count: u32, operations: *mut BatchOperation, flags: u32) [];
    raw cuStreamGetAttribute [] (stream: Raw, attribute: u32, value: *mut AttributeValue) [];
    raw cuStreamSetAttribute [] (stream: Raw, attribute: u32, value: *const AttributeValue) [];
    safe cuStreamCopyAttributes [] (to: Raw, from: Raw) [];
    raw cuLaunchHostFunc [] (stream: Raw, function: HostFunction, data: *mut c_void) [];
    raw cuStreamAddCallback [] (stream: Raw, callback: StreamCallback, data: *mut c_void, flags: u32) [];
    safe cuStreamIsCapturing [] (stream: Raw) [status: u32];
    safe cuStreamBeginCapture_v2 [] (stream: Raw, mode: u32) [];
    safe cuStreamEndCapture [] (stream: Raw) [graph: Raw];
    safe cuStreamGetCaptureInfo_v3 [] (stream: Raw)
        [status: u32, id: u64, graph: Raw, dependencies: Raw, edges: Raw, count: usize];
    raw cuThreadExchangeStreamCaptureMode [] (mode: *mut u32) [];

    raw cuMemExportToShareableHandle [] (file: *mut c_void, handle: u64, kind: u32, flags: u64) [];
    raw cuMemImportFromShareableHandle [handle: u64] (file: *mut c_void, kind: u32) [];
    raw cuMemGetAllocationPropertiesFromHandle [] (prop: *mut CUmemAllocationProp, handle: u64) [];
    raw cuIpcGetMemHandle [handle: IpcHandle] (address: u64) [];
    safe cuIpcOpenMemHandle_v2 [address: u64] (handle: IpcHandle, flags: u32) [];
    raw cuIpcCloseMemHandle [] (address: u64) [];
    safe cuIpcGetEventHandle [handle: IpcHandle] (event: Raw) [];
    safe cuIpcOpenEventHandle [event: Raw] (handle: IpcHandle) [];

    safe cuEventCreate [event: Raw] (flags: u32) [];
    safe cuEventDestroy_v2 [] (event: Raw) [];
    safe cuEventRecord [] (event: Raw, stream: Raw) [];
    safe cuEventRecordWithFlags [] (event: Raw, stream: Raw, flags: u32) [];
    safe cuEventQuery [] (event: Raw) [];
    safe cuEventSynchronize [] (event: Raw) [];
    safe cuEventElapsedTime [milliseconds: f32] (start: Raw, end: Raw) [];
    safe cuEventElapsedTime_v2 [milliseconds: f32] (start: Raw, end: Raw) [];

    raw cuDeviceGetDevResource [] (device: i32, resource: *mut DevResource, kind: u32) [];
    raw cuCtxGetDevResource [] (context: Raw, resource: *mut DevResource, kind: u32) [];
    raw cuGreenCtxGetDevResource [] (green: Raw, resource: *mut DevResource, kind: u32) [];
    raw cuDevSmResourceSplitByCount []
        (made: *mut DevResource, groups: *mut u32, input: *const DevResource, remaining: *mut DevResource, flags: u32,
         min_count: u32) [];
    raw cuDevResourceGenerateDesc [desc: Raw] (resources: *mut DevResource, count: u32) [];
    safe cuGreenCtxCreate [green: Raw] (desc: Raw, device: i32, flags: u32) [];
    safe cuGreenCtxDestroy [] (green: Raw) [];
    safe cuCtxFromGreenCtx [context: Raw] (green: Raw) [];
    safe cuGreenCtxRecordEvent [] (green: Raw, event: Raw) [];
    safe cuGreenCtxWaitEvent [] (green: Raw, event: Raw) [];
    safe cuGreenCtxStreamCreate [stream: Raw] (green: Raw, flags: u32, priority: i32) [];

    raw cuCheckpointProcessLock [] (process: i32, args: *mut LockArgs) [];
    raw cuCheckpointProcessCheckpoint [] (process: i32, args: *mut NoArgs) [];
    raw cuCheckpointProcessRestore [] (process: i32, args: *mut NoArgs) [];
    raw cuCheckpointProcessUnlock [] (process: i32, args: *mut NoArgs) [];
    safe cuCheckpointProcessGetState [] (process: i32) [state: u32];

    safe cuProfilerStart [] () [];
    safe cuProfilerStop [] () [];

    raw cuUserObjectCreate [object: Raw]
        (data: *mut c_void, destroy: HostFunction, count: u32, flags: u32) [];
    safe cuUserObjectRetain [] (object: Raw, count: u32) [];
    safe cuUserObjectRelease [] (object: Raw, count: u32) [];
    safe cuGraphRetainUserObject [] (graph: Raw, object: Raw, count: u32, flags: u32) [];
    safe cuGraphReleaseUserObject [] (graph: Raw, object: Raw, count: u32) [];
    raw cuGraphAddHostNode [node: Raw]
        (graph: Raw, dependencies: *const Raw, count: usize, params: *const HostNodeParams) [];
    safe cuGraphHostNodeGetParams [] (node: Raw) [params: HostNodeParams];
    raw cuGraphHostNodeSetParams [] (node: Raw, params: *const HostNodeParams) [];
    raw cuGraphExecHostNodeSetParams [] (exec: Raw, node: Raw, params: *const HostNodeParams) [];
    safe cuGraphInstantiateWithFlags [exec: Raw] (graph: Raw, flags: u64) [];
    safe cuGraphLaunch [] (exec: Raw, stream: Raw) [];
    safe cuGraphExecDestroy [] (exec: Raw) [];
    safe cuGraphDestroy [] (graph: Raw) [];
    raw cuGraphExecUpdate_v2 [] (exec: Raw, graph: Raw, info: *mut CUgraphExecUpdateResultInfo) [];
    raw cuGraphGetNodes [] (graph: Raw, nodes: *mut Raw, count: *mut usize) [];

    raw cuStreamBeginCaptureToGraph []
        (stream: Raw, graph: Raw, dependencies: *const Raw, edges: *const u64, count: usize, mode: u32) [];
    raw cuStreamUpdateCaptureDependencies_v2 []
        (stream: Raw, dependencies: *mut Raw, edges: *const u64, count: usize, flags: u32) [];
    safe cuGraphCreate [graph: Raw] (flags: u32) [];
    safe cuGraphClone [clone: Raw] (graph: Raw) [];
    safe cuGraphNodeFindInClone [node: Raw] (original: Raw, clone: Raw) [];
    safe cuGraphDestroyNode [] (node: Raw) [];
    safe cuGraphNodeGetType [] (node: Raw) [kind: u32];
    safe cuGraphNodeGetEnabled [] (exec: Raw, node: Raw) [enabled: u32];
    safe cuGraphNodeSetEnabled [] (exec: Raw, node: Raw, enabled: u32) [];
    safe cuGraphExecGetFlags [] (exec: Raw) [flags: u64];
    safe cuGraphUpload [] (exec: Raw, stream: Raw) [];
    raw cuGraphInstantiateWithParams [exec: Raw] (graph: Raw, params: *mut InstantiateParams) [];
    raw cuGraphInstantiate_v2 [exec: Raw] (graph: Raw, node: *mut Raw, log: *mut c_char, size: usize) [];
    safe cuGraphKernelNodeCopyAttributes [] (to: Raw, from: Raw) [];
    safe cuGraphKernelNodeGetAttribute [] (node: Raw, attribute: u32) [value: [u64; 8]];
    raw cuGraphKernelNodeSetAttribute [] (node: Raw, attribute: u32, value: *const [u64; 8]) [];
    raw cuGraphAddDependencies_v2 []
        (graph: Raw, from: *const Raw, to: *const Raw, edges: *const u64, count: usize) [];
    raw cuGraphRemoveDependencies_v2 []
        (graph: Raw, from: *const Raw, to: *const Raw, edges: *const u64, count: usize) [];
    raw cuGraphGetRootNodes [] (graph: Raw, nodes: *mut Raw, count: *mut usize) [];
    raw cuGraphGetEdges_v2 []
        (graph: Raw, from: *mut Raw, to: *mut Raw, edges: *mut u64, count: *mut usize) [];
    raw cuGraphNodeGetDependencies_v2 [] (node: Raw, nodes: *mut Raw, edges: *mut u64, count: *mut usize) [];
    raw cuGraphNodeGetDependentNodes_v2 [] (node: Raw, nodes: *mut Raw, edges: *mut u64, count: *mut usize) [];

    raw cuGraphAddNode_v2 [node: Raw]
        (graph: Raw, after: *const Raw, edges: *const u64, count: usize, params: *mut NodeParams) [];
    raw cuGraphAddEmptyNode [node: Raw] (graph: Raw, after: *const Raw, count: usize) [];
    raw cuGraphAddKernelNode_v2 [node: Raw]
        (graph: Raw, after: *const Raw, count: usize, params: *const KernelNode) [];
    raw cuGraphAddMemcpyNode [node: Raw]
        (graph: Raw, after: *const Raw, count: usize, copy: *const Copy3D, context: Raw) [];
    raw cuGraphAddMemsetNode [node: Raw]
        (graph: Raw, after: *const Raw, count: usize, params: *const MemsetNode, context: Raw) [];
    raw cuGraphAddChildGraphNode [node: Raw] (graph: Raw, after: *const Raw, count: usize, child: Raw) [];
    raw cuGraphAddEventRecordNode [node: Raw] (graph: Raw, after: *const Raw, count: usize, event: Raw) [];
    raw cuGraphAddEventWaitNode [node: Raw] (graph: Raw, after: *const Raw, count: usize, event: Raw) [];
    raw cuGraphAddMemAllocNode [node: Raw]
        (graph: Raw, after: *const Raw, count: usize, params: *mut MemAllocNode) [];
    raw cuGraphAddMemFreeNode [node: Raw] (graph: Raw, after: *const Raw, count: usize, address: u64) [];
    raw cuGraphAddBatchMemOpNode [node: Raw]
        (graph: Raw, after: *const Raw, count: usize, params: *const BatchNode) [];
    raw cuGraphNodeSetParams [] (node: Raw, params: *mut NodeParams) [];
    raw cuGraphKernelNodeSetParams_v2 [] (node: Raw, params: *const KernelNode) [];
    raw cuGraphMemcpyNodeSetParams [] (node: Raw, copy: *const Copy3D) [];
    raw cuGraphMemsetNodeSetParams [] (node: Raw, params: *const MemsetNode) [];
    safe cuGraphEventRecordNodeSetEvent [] (node: Raw, event: Raw) [];
    safe cuGraphEventWaitNodeSetEvent [] (node: Raw, event: Raw) [];
    raw cuGraphBatchMemOpNodeSetParams [] (node: Raw, params: *const BatchNode) [];
    raw cuGraphExecNodeSetParams [] (exec: Raw, node: Raw, params: *mut NodeParams) [];
    raw cuGraphExecKernelNodeSetParams_v2 [] (exec: Raw, node: Raw, params: *const KernelNode) [];
    raw cuGraphExecMemcpyNodeSetParams [] (exec: Raw, node: Raw, copy: *const Copy3D, context: Raw) [];
    raw cuGraphExecMemsetNodeSetParams [] (exec: Raw, node: Raw, params: *const MemsetNode, context: Raw) [];
    safe cuGraphExecChildGraphNodeSetParams [] (exec: Raw, node: Raw, child: Raw) [];
    safe cuGraphExecEventRecordNodeSetEvent [] (exec: Raw, node: Raw, event: Raw) [];
    safe cuGraphExecEventWaitNodeSetEvent [] (exec: Raw, node: Raw, event: Raw) [];
    raw cuGraphExecBatchMemOpNodeSetParams [] (exec: Raw, node: Raw, params: *const BatchNode) [];
    safe cuGraphKernelNodeGetParams_v2 [] (node: Raw) [params: KernelNode];
    safe cuGraphMemcpyNodeGetParams [] (node: Raw) [copy: Copy3D];
    safe cuGraphMemsetNodeGetParams [] (node: Raw) [params: MemsetNode];
    safe cuGraphEventRecordNodeGetEvent [] (node: Raw) [event: Raw];
    safe cuGraphEventWaitNodeGetEvent [] (node: Raw) [event: Raw];
    safe cuGraphMemAllocNodeGetParams [] (node: Raw) [params: MemAllocNode];
    safe cuGraphMemFreeNodeGetParams [] (node: Raw) [address: u64];
    safe cuGraphBatchMemOpNodeGetParams [] (node: Raw) [params: BatchNode];
    safe cuGraphChildGraphNodeGetGraph [] (node: Raw) [graph: Raw];
    safe cuGraphConditionalHandleCreate [handle: u64] (graph: Raw, context: Raw, value: u32, flags: u32) [];
    raw cuDeviceSetGraphMemAttribute [] (device: i32, attribute: u32, value: *mut u64) [];

    raw cuTensorMapEncodeTiled []
        (map: *mut CUtensorMap, data_type: u32, rank: u32, address: *mut c_void, global_dim: *const u64,
         global_strides: *const u64, box_dim: *const u32, element_strides: *const u32, interleave: u32, swizzle: u32,
         l2_promotion: u32, oob_fill: u32) [];
    raw cuTensorMapEncodeIm2col []
        (map: *mut CUtensorMap, data_type: u32, rank: u32, address: *mut c_void, global_dim: *const u64,
         global_strides: *const u64, lower_corner: *const i32, upper_corner: *const i32, channels: u32, pixels: u32,
         element_strides: *const u32, interleave: u32, swizzle: u32, l2_promotion: u32, oob_fill: u32) [];
    raw cuTensorMapEncodeIm2colWide []
        (map: *mut CUtensorMap, data_type: u32, rank: u32, address: *mut c_void, global_dim: *const u64,
         global_strides: *const u64, lower_width: i32, upper_width: i32, channels: u32, pixels: u32,
         element_strides: *const u32, interleave: u32, mode: u32, swizzle: u32, l2_promotion: u32, oob_fill: u32) [];
    raw cuTensorMapReplaceAddress [] (map: *mut CUtensorMap, address: *mut c_void) [];
}

impl Driver {
    /// The sticky error that a call has met, or 0.
    pub(crate) fn sticky(&self) -> u32 {
        self.sticky.load(Ordering::Acquire)
    }

    #[cold]
    fn lacks(&self, name: &'static str) -> CUresult {
        if lock(&self.missing).insert(name) {
            log::warn!("{name}: the host's driver does not have it");
        }
        CUresult::NOT_SUPPORTED
    }

    #[inline]
    fn checked(&self, result: u32, name: &'static str) -> CuResult<()> {
        if result == 0 { Ok(()) } else { Err(self.failed(CUresult(result), name)) }
    }

    #[cold]
    fn failed(&self, result: CUresult, name: &'static str) -> CUresult {
        if result.is_sticky() && self.sticky.swap(result.0, Ordering::AcqRel) == 0 {
            log::warn!("{name}: {result}: every call of this session answers it from now on");
        } else if result != CUresult::NOT_READY && !name.ends_with("GetParamInfo") {
            // (Parameters are asked for until there are no more.)
            log::debug!("{name}: {result}");
        }
        result
    }
}
