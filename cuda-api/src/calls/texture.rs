//! Arrays and their copies, texture and surface objects, tensor maps (CUDA Driver API, "Memory Management", "Texture Object
//! Management", "Surface Object Management", "Tensor Map Object Management").

use crate::types::*;

cuda_api_macros::calls! { texture;
    /// Encodes a tensor map.
    0x0d01 sync custom "guest-driver/libcuda/src/tensor_map.rs"
        fn cuTensorMapEncodeTiled(tensorMap: *mut CUtensorMap, tensorDataType: u32, tensorRank: u32, globalAddress: *mut core::ffi::c_void,
            globalDim: *const u64, globalStrides: *const u64, boxDim: *const u32, elementStrides: *const u32, interleave: u32,
            swizzle: u32, l2Promotion: u32, oobFill: u32)
        wire (in arguments: TensorMapTiled) -> (map: CUtensorMap);
    /// Encodes a tensor map of an im2col load.
    0x0d02 sync custom "guest-driver/libcuda/src/tensor_map.rs"
        fn cuTensorMapEncodeIm2col(tensorMap: *mut CUtensorMap, tensorDataType: u32, tensorRank: u32, globalAddress: *mut core::ffi::c_void,
            globalDim: *const u64, globalStrides: *const u64, pixelBoxLowerCorner: *const i32, pixelBoxUpperCorner: *const i32,
            channelsPerPixel: u32, pixelsPerColumn: u32, elementStrides: *const u32, interleave: u32, swizzle: u32, l2Promotion: u32,
            oobFill: u32)
        wire (in arguments: TensorMapIm2col) -> (map: CUtensorMap);
    /// Encodes a tensor map of a wide im2col load.
    0x0d03 sync custom "guest-driver/libcuda/src/tensor_map.rs"
        fn cuTensorMapEncodeIm2colWide(tensorMap: *mut CUtensorMap, tensorDataType: u32, tensorRank: u32,
            globalAddress: *mut core::ffi::c_void, globalDim: *const u64, globalStrides: *const u64, pixelBoxLowerCornerWidth: i32,
            pixelBoxUpperCornerWidth: i32, channelsPerPixel: u32, pixelsPerColumn: u32, elementStrides: *const u32, interleave: u32,
            mode: u32, swizzle: u32, l2Promotion: u32, oobFill: u32)
        wire (in arguments: TensorMapIm2col) -> (map: CUtensorMap);
    /// Puts another address into a tensor map.
    0x0d04 sync custom "guest-driver/libcuda/src/tensor_map.rs"
        fn cuTensorMapReplaceAddress(tensorMap: *mut CUtensorMap, globalAddress: *mut core::ffi::c_void)
        wire (in map: CUtensorMap, globalAddress: CUdeviceptr) -> (map: CUtensorMap);

    /// A 1D or 2D array.
    0x0d10 sync may_block fn cuArrayCreate_v2(new pHandle: CUarray, in pAllocateArray: CUDA_ARRAY_DESCRIPTOR);
    /// An array of any kind.
    0x0d11 sync may_block fn cuArray3DCreate_v2(new pHandle: CUarray, in pAllocateArray: CUDA_ARRAY3D_DESCRIPTOR);
    /// What a 1D or 2D array was made with.
    0x0d12 sync fn cuArrayGetDescriptor_v2(out pArrayDescriptor: CUDA_ARRAY_DESCRIPTOR, handle hArray: CUarray);
    /// What an array was made with.
    0x0d13 sync fn cuArray3DGetDescriptor_v2(out pArrayDescriptor: CUDA_ARRAY3D_DESCRIPTOR, handle hArray: CUarray);
    /// Destroys an array.
    0x0d14 sync may_block custom "guest-driver/libcuda/src/array.rs" fn cuArrayDestroy(hArray: CUarray) wire (hArray: CUarray);
    /// Memory for an array with deferred mapping.
    0x0d15 sync fn cuArrayGetMemoryRequirements(out memoryRequirements: CUDA_ARRAY_MEMORY_REQUIREMENTS, handle array: CUarray, device: i32);
    /// The layout of a sparse array.
    0x0d16 sync fn cuArrayGetSparseProperties(out sparseProperties: CUDA_ARRAY_SPARSE_PROPERTIES, handle array: CUarray);
    /// A plane of a multi-planar array.
    0x0d17 sync custom "guest-driver/libcuda/src/array.rs" fn cuArrayGetPlane(pPlaneArray: *mut CUarray, hArray: CUarray, planeIdx: u32)
        wire (plane: CUarray, hArray: CUarray, planeIdx: u32);
    /// A mipmapped array.
    0x0d18 sync may_block
        fn cuMipmappedArrayCreate(new pHandle: CUmipmappedArray, in pMipmappedArrayDesc: CUDA_ARRAY3D_DESCRIPTOR, numMipmapLevels: u32);
    /// Destroys a mipmapped array.
    0x0d19 sync may_block custom "guest-driver/libcuda/src/array.rs"
        fn cuMipmappedArrayDestroy(hMipmappedArray: CUmipmappedArray) wire (hMipmappedArray: CUmipmappedArray);
    /// A level of a mipmapped array.
    0x0d1a sync custom "guest-driver/libcuda/src/array.rs"
        fn cuMipmappedArrayGetLevel(pLevelArray: *mut CUarray, hMipmappedArray: CUmipmappedArray, level: u32)
        wire (array: CUarray, hMipmappedArray: CUmipmappedArray, level: u32);
    /// Memory for a mipmapped array with deferred mapping.
    0x0d1b sync fn cuMipmappedArrayGetMemoryRequirements(out memoryRequirements: CUDA_ARRAY_MEMORY_REQUIREMENTS,
        handle mipmap: CUmipmappedArray, device: i32);
    /// The layout of a sparse mipmapped array.
    0x0d1c sync fn cuMipmappedArrayGetSparseProperties(out sparseProperties: CUDA_ARRAY_SPARSE_PROPERTIES, handle mipmap: CUmipmappedArray);

    /// Between 1D arrays.
    0x0d20 sync ptds fn cuMemcpyAtoA_v2(handle dstArray: CUarray, dstOffset: usize, handle srcArray: CUarray, srcOffset: usize,
        ByteCount: usize);
    /// From a 1D array to memory.
    0x0d21 sync ptds fn cuMemcpyAtoD_v2(devout dstDevice: [ByteCount], handle srcArray: CUarray, srcOffset: usize, ByteCount: usize);
    /// From memory to a 1D array.
    0x0d22 sync ptds fn cuMemcpyDtoA_v2(handle dstArray: CUarray, dstOffset: usize, devin srcDevice: [ByteCount], ByteCount: usize);
    /// From host memory to a 1D array.
    0x0d23 sync custom "guest-driver/libcuda/src/array_copy.rs" over vgpuArrayIn ptds
        fn cuMemcpyHtoA_v2(dstArray: CUarray, dstOffset: usize, srcHost: *const core::ffi::c_void, ByteCount: usize);
    /// From a 1D array to host memory.
    0x0d24 sync custom "guest-driver/libcuda/src/array_copy.rs" over vgpuArrayOut ptds
        fn cuMemcpyAtoH_v2(dstHost: *mut core::ffi::c_void, srcArray: CUarray, srcOffset: usize, ByteCount: usize);
    /// From host memory to a 1D array, in a stream.
    0x0d25 sync custom "guest-driver/libcuda/src/array_copy.rs" over vgpuArrayIn ptsz
        fn cuMemcpyHtoAAsync_v2(dstArray: CUarray, dstOffset: usize, srcHost: *const core::ffi::c_void, ByteCount: usize,
            hStream: CUstream);
    /// From a 1D array to host memory, in a stream.
    0x0d26 sync custom "guest-driver/libcuda/src/array_copy.rs" over vgpuArrayOut ptsz
        fn cuMemcpyAtoHAsync_v2(dstHost: *mut core::ffi::c_void, srcArray: CUarray, srcOffset: usize, ByteCount: usize,
            hStream: CUstream);

    /// A texture object. Its number is the driver's own: kernels get it as a parameter.
    0x0d30 sync custom "guest-driver/libcuda/src/texture.rs"
        fn cuTexObjectCreate(pTexObject: *mut u64, pResDesc: *const core::ffi::c_void, pTexDesc: *const CUDA_TEXTURE_DESC,
            pResViewDesc: *const CUDA_RESOURCE_VIEW_DESC)
        wire (in resource: Resource, in texture: CUDA_TEXTURE_DESC, viewed: bool, in view: CUDA_RESOURCE_VIEW_DESC) -> (texObject: u64);
    /// Destroys a texture object.
    0x0d31 sync fn cuTexObjectDestroy(texObject: u64);
    /// What a texture object reads.
    0x0d32 sync custom "guest-driver/libcuda/src/texture.rs"
        fn cuTexObjectGetResourceDesc(pResDesc: *mut core::ffi::c_void, texObject: u64) wire (texObject: u64) -> (resource: Resource);
    /// How a texture object reads.
    0x0d33 sync fn cuTexObjectGetTextureDesc(out pTexDesc: CUDA_TEXTURE_DESC, texObject: u64);
    /// What part a texture object reads.
    0x0d34 sync fn cuTexObjectGetResourceViewDesc(out pResViewDesc: CUDA_RESOURCE_VIEW_DESC, texObject: u64);
    /// A surface object. Its number is the driver's own.
    0x0d35 sync custom "guest-driver/libcuda/src/texture.rs"
        fn cuSurfObjectCreate(pSurfObject: *mut u64, pResDesc: *const core::ffi::c_void) wire (in resource: Resource) -> (surfObject: u64);
    /// Destroys a surface object.
    0x0d36 sync fn cuSurfObjectDestroy(surfObject: u64);
    /// What a surface object accesses.
    0x0d37 sync custom "guest-driver/libcuda/src/texture.rs"
        fn cuSurfObjectGetResourceDesc(pResDesc: *mut core::ffi::c_void, surfObject: u64) wire (surfObject: u64) -> (resource: Resource);
    /// The widest linear texture of a format.
    0x0d38 sync fn cuDeviceGetTexture1DLinearMaxWidth(out maxWidthInElements: usize, format: u32, numChannels: u32, dev: CUdevice);

    // Refused: the 32-bit interface of before CUDA 3.2: programs of this century call its _v2.
    0x0d80 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuArray3DCreate;
    0x0d82 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuArray3DGetDescriptor;
    0x0d84 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuArrayCreate;
    0x0d87 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuArrayGetDescriptor;
    0x0d8d refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyAtoA;
    0x0d8f refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyAtoD;
    0x0d91 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyAtoH;
    0x0d92 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyAtoHAsync;
    0x0d95 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyDtoA;
    0x0d97 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyHtoA;
    0x0d98 refused "the 32-bit interface of before CUDA 3.2: programs of this century call its _v2" fn cuMemcpyHtoAAsync;

    // Refused: memory is not mapped into sparse arrays and arrays with deferred mapping.
    0x0d9b refused "memory is not mapped into sparse arrays and arrays with deferred mapping" ptsz fn cuMemMapArrayAsync;

    // Refused: texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects.
    0x0da1 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuModuleGetSurfRef;
    0x0da2 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuModuleGetTexRef;
    0x0da3 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuParamSetTexRef;
    0x0da7 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuSurfRefGetArray;
    0x0da8 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuSurfRefSetArray;
    0x0dae refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefCreate;
    0x0daf refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefDestroy;
    0x0db0 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetAddress;
    0x0db1 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetAddressMode;
    0x0db2 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetAddress_v2;
    0x0db3 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetArray;
    0x0db4 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetBorderColor;
    0x0db5 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetFilterMode;
    0x0db6 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetFlags;
    0x0db7 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetFormat;
    0x0db8 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetMaxAnisotropy;
    0x0db9 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetMipmapFilterMode;
    0x0dba refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetMipmapLevelBias;
    0x0dbb refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetMipmapLevelClamp;
    0x0dbc refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefGetMipmappedArray;
    0x0dbd refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetAddress;
    0x0dbe refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetAddress2D;
    0x0dbf refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetAddress2D_v2;
    0x0dc0 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetAddress2D_v3;
    0x0dc1 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetAddressMode;
    0x0dc2 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetAddress_v2;
    0x0dc3 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetArray;
    0x0dc4 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetBorderColor;
    0x0dc5 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetFilterMode;
    0x0dc6 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetFlags;
    0x0dc7 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetFormat;
    0x0dc8 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetMaxAnisotropy;
    0x0dc9 refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetMipmapFilterMode;
    0x0dca refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetMipmapLevelBias;
    0x0dcb refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetMipmapLevelClamp;
    0x0dcc refused "texture and surface references: removed from the toolkit in CUDA 12, programs use texture and surface objects" fn cuTexRefSetMipmappedArray;
}
