//! Structures of the driver API that travel as their bytes.

use crate::wire::Pod;

macro_rules! pods {
    ($($(#[doc = $doc:literal])+ pub struct $name:ident { $($(#[doc = $fdoc:literal])+ pub $field:ident: $ty:ty,)+ })+) => {
        $(
            $(#[doc = $doc])+
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
by_value!(FunctionInfo, CaptureInfo, CUgraphExecUpdateResultInfo, CUtensorMap, DeviceResource);
