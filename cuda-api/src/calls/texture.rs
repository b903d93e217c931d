//! Tensor maps (CUDA Driver API, "Tensor Map Object Management"), and arrays, textures and surfaces, which are refused.

use crate::types::*;

cuda_api_macros::calls! { texture;
    /// Encodes a tensor map.
    0x0d01 sync custom "guest-driver/libcuda/src/tensor_map.rs"
        fn cuTensorMapEncodeTiled(tensorMap: *mut CUtensorMap, tensorDataType: u32, tensorRank: u32, globalAddress: *mut core::ffi::c_void,
            globalDim: *const u64, globalStrides: *const u64, boxDim: *const u32, elementStrides: *const u32, interleave: u32,
            swizzle: u32, l2Promotion: u32, oobFill: u32)
        wire (in arguments: TensorMapTiled) -> (map: CUtensorMap);

    // Refused: arrays, textures and surfaces are not carried.
    0x0d80 refused "arrays, textures and surfaces are not carried" fn cuArray3DCreate;
    0x0d81 refused "arrays, textures and surfaces are not carried" fn cuArray3DCreate_v2;
    0x0d82 refused "arrays, textures and surfaces are not carried" fn cuArray3DGetDescriptor;
    0x0d83 refused "arrays, textures and surfaces are not carried" fn cuArray3DGetDescriptor_v2;
    0x0d84 refused "arrays, textures and surfaces are not carried" fn cuArrayCreate;
    0x0d85 refused "arrays, textures and surfaces are not carried" fn cuArrayCreate_v2;
    0x0d86 refused "arrays, textures and surfaces are not carried" fn cuArrayDestroy;
    0x0d87 refused "arrays, textures and surfaces are not carried" fn cuArrayGetDescriptor;
    0x0d88 refused "arrays, textures and surfaces are not carried" fn cuArrayGetDescriptor_v2;
    0x0d89 refused "arrays, textures and surfaces are not carried" fn cuArrayGetMemoryRequirements;
    0x0d8a refused "arrays, textures and surfaces are not carried" fn cuArrayGetPlane;
    0x0d8b refused "arrays, textures and surfaces are not carried" fn cuArrayGetSparseProperties;
    0x0d8c refused "arrays, textures and surfaces are not carried" fn cuDeviceGetTexture1DLinearMaxWidth;
    0x0d8d refused "arrays, textures and surfaces are not carried" fn cuMemcpyAtoA;
    0x0d8e refused "arrays, textures and surfaces are not carried" ptds fn cuMemcpyAtoA_v2;
    0x0d8f refused "arrays, textures and surfaces are not carried" fn cuMemcpyAtoD;
    0x0d90 refused "arrays, textures and surfaces are not carried" ptds fn cuMemcpyAtoD_v2;
    0x0d91 refused "arrays, textures and surfaces are not carried" fn cuMemcpyAtoH;
    0x0d92 refused "arrays, textures and surfaces are not carried" fn cuMemcpyAtoHAsync;
    0x0d93 refused "arrays, textures and surfaces are not carried" ptsz fn cuMemcpyAtoHAsync_v2;
    0x0d94 refused "arrays, textures and surfaces are not carried" ptds fn cuMemcpyAtoH_v2;
    0x0d95 refused "arrays, textures and surfaces are not carried" fn cuMemcpyDtoA;
    0x0d96 refused "arrays, textures and surfaces are not carried" ptds fn cuMemcpyDtoA_v2;
    0x0d97 refused "arrays, textures and surfaces are not carried" fn cuMemcpyHtoA;
    0x0d98 refused "arrays, textures and surfaces are not carried" fn cuMemcpyHtoAAsync;
    0x0d99 refused "arrays, textures and surfaces are not carried" ptsz fn cuMemcpyHtoAAsync_v2;
    0x0d9a refused "arrays, textures and surfaces are not carried" ptds fn cuMemcpyHtoA_v2;
    0x0d9b refused "arrays, textures and surfaces are not carried" ptsz fn cuMemMapArrayAsync;
    0x0d9c refused "arrays, textures and surfaces are not carried" fn cuMipmappedArrayCreate;
    0x0d9d refused "arrays, textures and surfaces are not carried" fn cuMipmappedArrayDestroy;
    0x0d9e refused "arrays, textures and surfaces are not carried" fn cuMipmappedArrayGetLevel;
    0x0d9f refused "arrays, textures and surfaces are not carried" fn cuMipmappedArrayGetMemoryRequirements;
    0x0da0 refused "arrays, textures and surfaces are not carried" fn cuMipmappedArrayGetSparseProperties;
    0x0da1 refused "arrays, textures and surfaces are not carried" fn cuModuleGetSurfRef;
    0x0da2 refused "arrays, textures and surfaces are not carried" fn cuModuleGetTexRef;
    0x0da3 refused "arrays, textures and surfaces are not carried" fn cuParamSetTexRef;
    0x0da4 refused "arrays, textures and surfaces are not carried" fn cuSurfObjectCreate;
    0x0da5 refused "arrays, textures and surfaces are not carried" fn cuSurfObjectDestroy;
    0x0da6 refused "arrays, textures and surfaces are not carried" fn cuSurfObjectGetResourceDesc;
    0x0da7 refused "arrays, textures and surfaces are not carried" fn cuSurfRefGetArray;
    0x0da8 refused "arrays, textures and surfaces are not carried" fn cuSurfRefSetArray;
    0x0da9 refused "arrays, textures and surfaces are not carried" fn cuTexObjectCreate;
    0x0daa refused "arrays, textures and surfaces are not carried" fn cuTexObjectDestroy;
    0x0dab refused "arrays, textures and surfaces are not carried" fn cuTexObjectGetResourceDesc;
    0x0dac refused "arrays, textures and surfaces are not carried" fn cuTexObjectGetResourceViewDesc;
    0x0dad refused "arrays, textures and surfaces are not carried" fn cuTexObjectGetTextureDesc;
    0x0dae refused "arrays, textures and surfaces are not carried" fn cuTexRefCreate;
    0x0daf refused "arrays, textures and surfaces are not carried" fn cuTexRefDestroy;
    0x0db0 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetAddress;
    0x0db1 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetAddressMode;
    0x0db2 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetAddress_v2;
    0x0db3 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetArray;
    0x0db4 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetBorderColor;
    0x0db5 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetFilterMode;
    0x0db6 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetFlags;
    0x0db7 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetFormat;
    0x0db8 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetMaxAnisotropy;
    0x0db9 refused "arrays, textures and surfaces are not carried" fn cuTexRefGetMipmapFilterMode;
    0x0dba refused "arrays, textures and surfaces are not carried" fn cuTexRefGetMipmapLevelBias;
    0x0dbb refused "arrays, textures and surfaces are not carried" fn cuTexRefGetMipmapLevelClamp;
    0x0dbc refused "arrays, textures and surfaces are not carried" fn cuTexRefGetMipmappedArray;
    0x0dbd refused "arrays, textures and surfaces are not carried" fn cuTexRefSetAddress;
    0x0dbe refused "arrays, textures and surfaces are not carried" fn cuTexRefSetAddress2D;
    0x0dbf refused "arrays, textures and surfaces are not carried" fn cuTexRefSetAddress2D_v2;
    0x0dc0 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetAddress2D_v3;
    0x0dc1 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetAddressMode;
    0x0dc2 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetAddress_v2;
    0x0dc3 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetArray;
    0x0dc4 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetBorderColor;
    0x0dc5 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetFilterMode;
    0x0dc6 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetFlags;
    0x0dc7 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetFormat;
    0x0dc8 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetMaxAnisotropy;
    0x0dc9 refused "arrays, textures and surfaces are not carried" fn cuTexRefSetMipmapFilterMode;
    0x0dca refused "arrays, textures and surfaces are not carried" fn cuTexRefSetMipmapLevelBias;
    0x0dcb refused "arrays, textures and surfaces are not carried" fn cuTexRefSetMipmapLevelClamp;
    0x0dcc refused "arrays, textures and surfaces are not carried" fn cuTexRefSetMipmappedArray;

    // Refused: this way of encoding a tensor map is not carried.
    0x0dcd refused "this way of encoding a tensor map is not carried" fn cuTensorMapEncodeIm2col;
    0x0dce refused "this way of encoding a tensor map is not carried" fn cuTensorMapEncodeIm2colWide;
    0x0dcf refused "this way of encoding a tensor map is not carried" fn cuTensorMapReplaceAddress;
}
