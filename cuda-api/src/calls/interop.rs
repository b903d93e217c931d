//! Inter-process handles; interoperation with other APIs, tools and everything that is refused as a family.

use crate::types::*;

cuda_api_macros::calls! { interop;
    /// A token for an allocation, which other processes of the VM may open.
    0x0f60 sync custom "guest-driver/libcuda/src/ipc.rs" fn cuIpcGetMemHandle(pHandle: *mut CUipcHandle, dptr: CUdeviceptr)
        wire (dptr: CUdeviceptr) -> (handle: CUipcHandle);
    /// Opens an allocation of another process. The length is the host's word; `first`: it was not open here. `avoid` lists ranges
    /// that this process cannot reserve.
    0x0f61 sync may_block custom "guest-driver/libcuda/src/ipc.rs"
        fn cuIpcOpenMemHandle_v2(pdptr: *mut CUdeviceptr, handle: CUipcHandle, Flags: u32)
        wire (in handle: CUipcHandle, flags: u32, bytes avoid) -> (dptr: CUdeviceptr, len: u64, first: bool)
        also cuIpcOpenMemHandle;
    /// Closes what was opened; `last`: as often as it was opened.
    0x0f62 sync may_block custom "guest-driver/libcuda/src/ipc.rs" fn cuIpcCloseMemHandle(dptr: CUdeviceptr)
        wire (dptr: CUdeviceptr) -> (last: bool);
    /// A token for an event, which other processes of the VM may open.
    0x0f63 sync custom "guest-driver/libcuda/src/ipc.rs" fn cuIpcGetEventHandle(pHandle: *mut CUipcHandle, event: CUevent)
        wire (event: CUevent) -> (handle: CUipcHandle);
    /// Opens an event of another process; the guest names it.
    0x0f64 sync custom "guest-driver/libcuda/src/ipc.rs" fn cuIpcOpenEventHandle(phEvent: *mut CUevent, handle: CUipcHandle)
        wire (event: CUevent, in handle: CUipcHandle);

    // Refused: GPUDirect RDMA and notifications to the process that owns the GPU are not carried.
    0x0f00 refused "GPUDirect RDMA and notifications to the process that owns the GPU are not carried" fn cuDeviceRegisterAsyncNotification;
    0x0f01 refused "GPUDirect RDMA and notifications to the process that owns the GPU are not carried" fn cuDeviceUnregisterAsyncNotification;
    0x0f02 refused "there is no peer device whose writes could be flushed (device attribute 117)" fn cuFlushGPUDirectRDMAWrites;
    0x0f03 refused "GPUDirect RDMA and notifications to the process that owns the GPU are not carried" fn cuMemGetHandleForAddressRange;

    // Refused: debugger interface: a debugger would have to run where the GPU is.
    0x0f04 refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgApiAttach;
    0x0f05 refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgApiDetach;
    0x0f06 refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgApiInit;
    0x0f07 refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgGetAPI;
    0x0f08 refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgGetAPIVersion;
    0x0f09 refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgMain;
    0x0f0a refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgReportDriverApiError;
    0x0f0b refused "debugger interface: a debugger would have to run where the GPU is" fn cudbgReportDriverInternalError;

    // Refused: external memory and semaphores: there is no other API in the VM to share with.
    0x0f0c refused "external memory and semaphores: there is no other API in the VM to share with" fn cuDestroyExternalMemory;
    0x0f0d refused "external memory and semaphores: there is no other API in the VM to share with" fn cuDestroyExternalSemaphore;
    0x0f0e refused "external memory and semaphores: there is no other API in the VM to share with" fn cuExternalMemoryGetMappedBuffer;
    0x0f0f refused "external memory and semaphores: there is no other API in the VM to share with" fn cuExternalMemoryGetMappedMipmappedArray;
    0x0f10 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphAddExternalSemaphoresSignalNode;
    0x0f11 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphAddExternalSemaphoresWaitNode;
    0x0f12 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphExecExternalSemaphoresSignalNodeSetParams;
    0x0f13 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphExecExternalSemaphoresWaitNodeSetParams;
    0x0f14 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphExternalSemaphoresSignalNodeGetParams;
    0x0f15 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphExternalSemaphoresSignalNodeSetParams;
    0x0f16 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphExternalSemaphoresWaitNodeGetParams;
    0x0f17 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuGraphExternalSemaphoresWaitNodeSetParams;
    0x0f18 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuImportExternalMemory;
    0x0f19 refused "external memory and semaphores: there is no other API in the VM to share with" fn cuImportExternalSemaphore;
    0x0f1a refused "external memory and semaphores: there is no other API in the VM to share with" ptsz fn cuSignalExternalSemaphoresAsync;
    0x0f1b refused "external memory and semaphores: there is no other API in the VM to share with" ptsz fn cuWaitExternalSemaphoresAsync;

    // Refused: graphics and video interoperation: the VM has no such device.
    0x0f1c refused "graphics and video interoperation: the VM has no such device" fn cuDeviceGetNvSciSyncAttributes;
    0x0f1d refused "graphics and video interoperation: the VM has no such device" fn cuEGLApiInit;
    0x0f1e refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamConsumerAcquireFrame;
    0x0f1f refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamConsumerConnect;
    0x0f20 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamConsumerConnectWithFlags;
    0x0f21 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamConsumerDisconnect;
    0x0f22 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamConsumerReleaseFrame;
    0x0f23 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamProducerConnect;
    0x0f24 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamProducerDisconnect;
    0x0f25 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamProducerPresentFrame;
    0x0f26 refused "graphics and video interoperation: the VM has no such device" fn cuEGLStreamProducerReturnFrame;
    0x0f27 refused "graphics and video interoperation: the VM has no such device" fn cuGLCtxCreate;
    0x0f28 refused "graphics and video interoperation: the VM has no such device" fn cuGLCtxCreate_v2;
    0x0f29 refused "graphics and video interoperation: the VM has no such device" fn cuGLGetDevices;
    0x0f2a refused "graphics and video interoperation: the VM has no such device" fn cuGLGetDevices_v2;
    0x0f2b refused "graphics and video interoperation: the VM has no such device" fn cuGLInit;
    0x0f2c refused "graphics and video interoperation: the VM has no such device" fn cuGLMapBufferObject;
    0x0f2d refused "graphics and video interoperation: the VM has no such device" fn cuGLMapBufferObjectAsync;
    0x0f2e refused "graphics and video interoperation: the VM has no such device" ptsz fn cuGLMapBufferObjectAsync_v2;
    0x0f2f refused "graphics and video interoperation: the VM has no such device" ptds fn cuGLMapBufferObject_v2;
    0x0f30 refused "graphics and video interoperation: the VM has no such device" fn cuGLRegisterBufferObject;
    0x0f31 refused "graphics and video interoperation: the VM has no such device" fn cuGLSetBufferObjectMapFlags;
    0x0f32 refused "graphics and video interoperation: the VM has no such device" fn cuGLUnmapBufferObject;
    0x0f33 refused "graphics and video interoperation: the VM has no such device" fn cuGLUnmapBufferObjectAsync;
    0x0f34 refused "graphics and video interoperation: the VM has no such device" fn cuGLUnregisterBufferObject;
    0x0f35 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsEGLRegisterImage;
    0x0f36 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsGLRegisterBuffer;
    0x0f37 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsGLRegisterImage;
    0x0f38 refused "graphics and video interoperation: the VM has no such device" ptsz fn cuGraphicsMapResources;
    0x0f39 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsResourceGetMappedEglFrame;
    0x0f3a refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsResourceGetMappedMipmappedArray;
    0x0f3b refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsResourceGetMappedPointer;
    0x0f3c refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsResourceGetMappedPointer_v2;
    0x0f3d refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsResourceSetMapFlags;
    0x0f3e refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsResourceSetMapFlags_v2;
    0x0f3f refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsSubResourceGetMappedArray;
    0x0f40 refused "graphics and video interoperation: the VM has no such device" ptsz fn cuGraphicsUnmapResources;
    0x0f41 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsUnregisterResource;
    0x0f42 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsVDPAURegisterOutputSurface;
    0x0f43 refused "graphics and video interoperation: the VM has no such device" fn cuGraphicsVDPAURegisterVideoSurface;
    0x0f44 refused "graphics and video interoperation: the VM has no such device" fn cuVDPAUCtxCreate;
    0x0f45 refused "graphics and video interoperation: the VM has no such device" fn cuVDPAUCtxCreate_v2;
    0x0f46 refused "graphics and video interoperation: the VM has no such device" fn cuVDPAUGetDevice;

    // Refused: process tools of the native driver: they act on the process that owns the GPU context.
    0x0f4d refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCheckpointProcessCheckpoint;
    0x0f4e refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCheckpointProcessGetRestoreThreadId;
    0x0f4f refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCheckpointProcessGetState;
    0x0f50 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCheckpointProcessLock;
    0x0f51 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCheckpointProcessRestore;
    0x0f52 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCheckpointProcessUnlock;
    0x0f53 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCoredumpGetAttribute;
    0x0f54 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCoredumpGetAttributeGlobal;
    0x0f55 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCoredumpSetAttribute;
    0x0f56 refused "process tools of the native driver: they act on the process that owns the GPU context" fn cuCoredumpSetAttributeGlobal;

    // Refused: profiler control.
    0x0f5c refused "profiler output to files: CUDA 12 took it out of its headers, and the files would be the host's" fn cuProfilerInitialize;
}
