//! Structures of the driver API that travel as their bytes.

use crate::wire::Pod;

macro_rules! pods {
    ($($(#[doc = $doc:literal])+ pub struct $name:ident { $($(#[doc = $fdoc:literal])+ pub $field:ident: $ty:ty,)+ })+) => {
        $(
            $(#[doc = $doc])+
            #[allow(non_camel_case_types)]
            #[repr(C)]
            #[derive(Debug, Clone, Copy, PartialEq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
            pub struct $name { $($(#[doc = $fdoc])+ pub $field: $ty,)+ }
            impl Pod for $name {}
        )+
        /// Names and sizes, for the table's fingerprint.
        pub const TRAVELLING_STRUCTS: &[(&str, usize)] = &[$((stringify!($name), size_of::<$name>())),+];
    };
}

pods! {
    /// CUuuid: 16 bytes.
    pub struct CUuuid {
        /// The bytes in memory order.
        pub bytes: [u8; 16],
    }

    /// Where a kernel parameter lies (cuFuncGetParamInfo).
    pub struct ParamInfo {
        /// Offset in the parameter buffer, in bytes.
        pub offset: u32,
        /// Size in bytes.
        pub size: u32,
    }

    /// What the guest keeps of a function, so that attributes and launch checks need no round trip.
    pub struct FunctionInfo {
        /// CUfunction_attribute values 0…15 by number.
        pub attributes: [i32; 16],
        /// Bit n: attribute n has a value.
        pub valid: u32,
        /// Size of the parameter buffer in bytes.
        pub param_bytes: u32,
    }

    /// CUmemLocation.
    pub struct CUmemLocation {
        /// CUmemLocationType.
        pub kind: i32,
        /// Device ordinal or NUMA node.
        pub id: i32,
    }

    /// CUmemAllocationProp (32 bytes).
    pub struct CUmemAllocationProp {
        /// CUmemAllocationType.
        pub kind: i32,
        /// Bit mask of CUmemAllocationHandleType.
        pub requested_handle_types: i32,
        /// Where it lies.
        pub location: CUmemLocation,
        /// Windows only.
        pub win32_handle_meta_data: u64,
        /// compressionType, gpuDirectRDMACapable, usage (2 bytes), reserved (4 bytes).
        pub flags: [u8; 8],
    }

    /// CUmemAccessDesc.
    pub struct CUmemAccessDesc {
        /// Who may access.
        pub location: CUmemLocation,
        /// CUmemAccess_flags.
        pub flags: i32,
    }

    /// CUmemPoolProps (88 bytes).
    pub struct CUmemPoolProps {
        /// CUmemAllocationType.
        pub kind: i32,
        /// CUmemAllocationHandleType.
        pub handle_types: i32,
        /// Where its memory lies.
        pub location: CUmemLocation,
        /// Windows only.
        pub win32_security_attributes: u64,
        /// Bytes at most, 0 for the driver's own limit.
        pub max_size: u64,
        /// What its memory is for.
        pub usage: u16,
        /// Zero.
        pub reserved: [u8; 54],
    }

    /// CUgraphExecUpdateResultInfo.
    pub struct CUgraphExecUpdateResultInfo {
        /// CUgraphExecUpdateResult.
        pub result: i32,
        /// Padding.
        pub reserved: i32,
        /// The node that caused a failure, or NULL.
        pub error_node: u64,
        /// The node that it depends on, or NULL.
        pub error_from_node: u64,
    }

    /// What cuStreamGetCaptureInfo tells besides the dependencies.
    pub struct CaptureInfo {
        /// The capture sequence's id.
        pub id: u64,
        /// The graph being captured to.
        pub graph: u64,
        /// CUstreamCaptureStatus.
        pub status: u32,
        /// Padding.
        pub reserved: u32,
    }

    /// What the guest knows of a CUdevResource, whose 144 bytes stay with the worker.
    pub struct DeviceResource {
        /// The worker's name for it; 0 where there is none.
        pub name: u64,
        /// CUdevResourceType.
        pub kind: u32,
        /// sm.smCount.
        pub multiprocessors: u32,
        /// sm.minSmPartitionSize.
        pub min_partition: u32,
        /// sm.smCoscheduledAlignment.
        pub alignment: u32,
    }

    /// CUipcMemHandle and CUipcEventHandle: 64 opaque bytes.
    pub struct CUipcHandle {
        /// The bytes.
        pub bytes: [u8; 64],
    }

    /// CUtensorMap: 128 opaque bytes.
    pub struct CUtensorMap {
        /// The bytes.
        pub opaque: [u64; 16],
    }

    /// The arguments of cuTensorMapEncodeTiled besides the map.
    pub struct TensorMapTiled {
        /// Device address of the tensor.
        pub global_address: u64,
        /// Sizes by dimension.
        pub global_dim: [u64; 5],
        /// Strides in bytes; the last is unused.
        pub global_strides: [u64; 5],
        /// Box sizes.
        pub box_dim: [u32; 5],
        /// Element strides.
        pub element_strides: [u32; 5],
        /// Data type, rank, interleave, swizzle, L2 promotion, out-of-bounds fill.
        pub modes: [u32; 6],
    }

    /// One end of a copy of any shape. A position in it is `at + (z * rows + y) * pitch + x`, an array's is (x, y, z).
    pub struct CopyEnd {
        /// [`CopyEnd::BYTES`], [`CopyEnd::ADDRESS`] or [`CopyEnd::ARRAY`].
        pub kind: u32,
        /// Level of a mipmapped array.
        pub lod: u32,
        /// The base address, or the array's handle.
        pub at: u64,
        /// Bytes from row to row; not of arrays.
        pub pitch: u64,
        /// Rows from slice to slice; not of arrays.
        pub rows: u64,
        /// Where the copy begins, in bytes.
        pub x: u64,
        /// Where the copy begins, in rows.
        pub y: u64,
        /// Where the copy begins, in slices.
        pub z: u64,
        /// The context that it belongs to, of a copy between contexts; 0 otherwise.
        pub context: u64,
    }

    /// A copy of any shape, between two ends.
    pub struct CopyShape {
        /// Where to.
        pub dst: CopyEnd,
        /// Where from.
        pub src: CopyEnd,
        /// Bytes of a row.
        pub width: u64,
        /// Rows of a slice.
        pub height: u64,
        /// Slices.
        pub depth: u64,
        /// [`CopyShape::OF_A_BATCH`], [`CopyShape::SYNCHRONOUS`].
        pub flags: u64,
    }

    /// One copy of a batch.
    pub struct BatchCopy {
        /// Where to.
        pub dst: u64,
        /// Where from.
        pub src: u64,
        /// Bytes.
        pub len: u64,
        /// CUmemcpySrcAccessOrder.
        pub order: u32,
        /// CUmemcpyFlags.
        pub flags: u32,
    }

    /// CUDA_ARRAY_DESCRIPTOR.
    pub struct CUDA_ARRAY_DESCRIPTOR {
        /// Elements of a row.
        pub width: u64,
        /// Rows, 0 of a 1D array.
        pub height: u64,
        /// CUarray_format.
        pub format: u32,
        /// Channels of an element.
        pub num_channels: u32,
    }

    /// CUDA_ARRAY3D_DESCRIPTOR.
    pub struct CUDA_ARRAY3D_DESCRIPTOR {
        /// Elements of a row.
        pub width: u64,
        /// Rows, 0 of a 1D array.
        pub height: u64,
        /// Slices or layers, 0 of a 1D or 2D array.
        pub depth: u64,
        /// CUarray_format.
        pub format: u32,
        /// Channels of an element.
        pub num_channels: u32,
        /// CUDA_ARRAY3D_*.
        pub flags: u32,
        /// Padding.
        pub reserved: u32,
    }

    /// CUDA_ARRAY_SPARSE_PROPERTIES.
    pub struct CUDA_ARRAY_SPARSE_PROPERTIES {
        /// A tile's width, height and depth in elements.
        pub tile_extent: [u32; 3],
        /// First level of the mip tail.
        pub miptail_first_level: u32,
        /// Bytes of the mip tail.
        pub miptail_size: u64,
        /// CU_ARRAY_SPARSE_PROPERTIES_*.
        pub flags: u32,
        /// Reserved, and padding.
        pub reserved: [u32; 5],
    }

    /// CUDA_ARRAY_MEMORY_REQUIREMENTS.
    pub struct CUDA_ARRAY_MEMORY_REQUIREMENTS {
        /// Bytes.
        pub size: u64,
        /// Bytes.
        pub alignment: u64,
        /// Reserved.
        pub reserved: [u32; 4],
    }

    /// What a texture or surface object reads: CUDA_RESOURCE_DESC, with each kind's fields in places of their own.
    pub struct Resource {
        /// CUresourcetype.
        pub kind: u32,
        /// CUDA_RESOURCE_DESC.flags.
        pub flags: u32,
        /// The array's handle, or the memory's address.
        pub at: u64,
        /// CUarray_format, of memory.
        pub format: u32,
        /// Channels of an element, of memory.
        pub num_channels: u32,
        /// Bytes of linear memory, elements of a row of pitched memory.
        pub width: u64,
        /// Rows of pitched memory.
        pub height: u64,
        /// Bytes from row to row of pitched memory.
        pub pitch: u64,
    }

    /// CUDA_TEXTURE_DESC.
    pub struct CUDA_TEXTURE_DESC {
        /// CUaddress_mode by dimension.
        pub address_mode: [u32; 3],
        /// CUfilter_mode.
        pub filter_mode: u32,
        /// CU_TRSF_*.
        pub flags: u32,
        /// Largest anisotropy.
        pub max_anisotropy: u32,
        /// CUfilter_mode between levels.
        pub mipmap_filter_mode: u32,
        /// Bias and clamps of the level, and the border's colour: 32-bit floating point numbers, as bits.
        pub numbers: [u32; 7],
        /// Reserved.
        pub reserved: [u32; 12],
    }

    /// CUDA_RESOURCE_VIEW_DESC.
    pub struct CUDA_RESOURCE_VIEW_DESC {
        /// CUresourceViewFormat.
        pub format: u32,
        /// Padding.
        pub padding: u32,
        /// Width, height and depth in elements.
        pub size: [u64; 3],
        /// First and last level, first and last layer.
        pub parts: [u32; 4],
        /// Reserved.
        pub reserved: [u32; 16],
    }

    /// The arguments of cuTensorMapEncodeIm2col and cuTensorMapEncodeIm2colWide besides the map.
    pub struct TensorMapIm2col {
        /// Device address of the tensor.
        pub global_address: u64,
        /// Sizes by dimension.
        pub global_dim: [u64; 5],
        /// Strides in bytes; the last is unused.
        pub global_strides: [u64; 5],
        /// The pixel box's lower and upper corner, by dimension; of the wide kind only the widths, which come first.
        pub corners: [[i32; 3]; 2],
        /// Element strides.
        pub element_strides: [u32; 5],
        /// Channels per pixel, pixels per column.
        pub pixels: [u32; 2],
        /// Data type, rank, interleave, mode (of the wide kind), swizzle, L2 promotion, out-of-bounds fill.
        pub modes: [u32; 7],
    }
}

impl CopyEnd {
    /// Rows of bytes in the frame, the reply or the staging buffer.
    pub const BYTES: u32 = 0;
    /// Memory that the worker knows by its address.
    pub const ADDRESS: u32 = 1;
    /// An array.
    pub const ARRAY: u32 = 2;

    /// The end with the pitch and the height of a slice that are left open (0), as if its rows and slices had no gaps.
    #[must_use]
    pub fn tight(&self, width: u64, height: u64) -> Self {
        let or = |value: u64, tight: u64| if value == 0 { tight } else { value };
        let pitch = or(self.pitch, self.x.saturating_add(width));
        CopyEnd { pitch, rows: or(self.rows, self.y.saturating_add(height)), ..*self }
    }

    /// Where a copy of this shape touches an end that is memory: its first byte, and the bytes up to the last. Where the pitch or the
    /// height of a slice is left open (0), it is all that the copy can touch: what 0 means there is the driver's business.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE where that does not fit 64 bits.
    pub fn extent(&self, width: u64, height: u64, depth: u64) -> crate::CuResult<(u64, u64)> {
        let place = |end: &CopyEnd, z: u64, y: u64, x: u64| {
            z.checked_mul(end.rows)?.checked_add(y)?.checked_mul(end.pitch)?.checked_add(x)
        };
        let found = (|| {
            let first = place(self, self.z, self.y, self.x)?;
            let (y, z) =
                (self.y.checked_add(height.checked_sub(1)?)?, self.z.checked_add(depth.checked_sub(1)?)?);
            let last = place(&self.tight(width, height), z, y, self.x)?.checked_add(width)?;
            Some((self.at.checked_add(first)?, last.checked_sub(first)?))
        })();
        found.ok_or(crate::CUresult::INVALID_VALUE)
    }
}

impl CopyShape {
    /// It came in a batch, which cannot be captured.
    pub const OF_A_BATCH: u64 = 1;
    /// cuMemcpy3DPeer: ordered with all work of both contexts.
    pub const SYNCHRONOUS: u64 = 2;
}

macro_rules! by_value {
    ($($name:ident),+) => { $(
        impl<'a> crate::wire::Wire<'a> for $name {
            fn put<P: crate::wire::Put>(&self, to: &mut P) {
                crate::wire::Wire::put(&self, to);
            }
            fn take(from: &mut crate::wire::Reader<'a>) -> Result<Self, crate::Malformed> {
                <&'a Self as crate::wire::Wire<'a>>::take(from).copied()
            }
        }
    )+ };
}
by_value!(
    FunctionInfo,
    CaptureInfo,
    CUgraphExecUpdateResultInfo,
    CUipcHandle,
    CUtensorMap,
    CUDA_ARRAY_DESCRIPTOR,
    CUDA_ARRAY3D_DESCRIPTOR,
    CUDA_ARRAY_SPARSE_PROPERTIES,
    CUDA_ARRAY_MEMORY_REQUIREMENTS,
    Resource,
    CUDA_TEXTURE_DESC,
    CUDA_RESOURCE_VIEW_DESC,
    DeviceResource
);
