//! Structures of copies as CUDA lays them out in memory. They do not travel: their pointers are the guest's.

/// CUDA_MEMCPY2D.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CUDA_MEMCPY2D {
    /// The source.
    pub src: Copy2dEnd,
    /// The destination.
    pub dst: Copy2dEnd,
    /// Bytes of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// One end of [`CUDA_MEMCPY2D`]: which of the three addresses counts is the memory type's business.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Copy2dEnd {
    /// Where the copy begins, in bytes.
    pub x: usize,
    /// Where the copy begins, in rows.
    pub y: usize,
    /// CUmemorytype.
    pub memory_type: u32,
    /// A host address.
    pub host: u64,
    /// A device address, or a unified one.
    pub device: u64,
    /// An array.
    pub array: u64,
    /// Bytes from row to row.
    pub pitch: usize,
}

/// CUDA_MEMCPY3D and CUDA_MEMCPY3D_PEER, whose contexts are reserved words in the former.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CUDA_MEMCPY3D {
    /// The source.
    pub src: Copy3dEnd,
    /// The destination.
    pub dst: Copy3dEnd,
    /// Bytes of a row.
    pub width: usize,
    /// Rows of a slice.
    pub height: usize,
    /// Slices.
    pub depth: usize,
}

/// One end of [`CUDA_MEMCPY3D`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Copy3dEnd {
    /// Where the copy begins, in bytes.
    pub x: usize,
    /// Where the copy begins, in rows.
    pub y: usize,
    /// Where the copy begins, in slices.
    pub z: usize,
    /// Level of a mipmapped array.
    pub lod: usize,
    /// CUmemorytype.
    pub memory_type: u32,
    /// A host address.
    pub host: u64,
    /// A device address, or a unified one.
    pub device: u64,
    /// An array.
    pub array: u64,
    /// The context, of CUDA_MEMCPY3D_PEER.
    pub context: u64,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Rows from slice to slice.
    pub rows: usize,
}

/// CUmemorytype.
pub mod memory_type {
    /// CU_MEMORYTYPE_HOST.
    pub const HOST: u32 = 1;
    /// CU_MEMORYTYPE_DEVICE.
    pub const DEVICE: u32 = 2;
    /// CU_MEMORYTYPE_ARRAY.
    pub const ARRAY: u32 = 3;
    /// CU_MEMORYTYPE_UNIFIED.
    pub const UNIFIED: u32 = 4;
}

/// CUmemcpyAttributes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CUmemcpyAttributes {
    /// CUmemcpySrcAccessOrder.
    pub src_access_order: u32,
    /// Hints for managed memory: a location's type and number each.
    pub location_hints: [[i32; 2]; 2],
    /// CUmemcpyFlags.
    pub flags: u32,
}

/// CUmemcpy3DOperand: its fields are those of a pointer (address, row length, layer height, a hint) or of an array (handle, x, y, z).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CUmemcpy3DOperand {
    /// CUmemcpy3DOperandType.
    pub kind: u32,
    /// As the kind says.
    pub fields: [u64; 4],
}

/// CUDA_MEMCPY3D_BATCH_OP.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CUDA_MEMCPY3D_BATCH_OP {
    /// The source.
    pub src: CUmemcpy3DOperand,
    /// The destination.
    pub dst: CUmemcpy3DOperand,
    /// Width, height and depth in elements.
    pub extent: [u64; 3],
    /// CUmemcpySrcAccessOrder.
    pub src_access_order: u32,
    /// CUmemcpyFlags.
    pub flags: u32,
}

/// Bytes of an element of an array format with so many channels; `None` of formats whose elements are blocks or planes.
pub fn format_bytes(format: u32, num_channels: u32) -> Option<u64> {
    let channel = match format {
        0x01 | 0x08 => 1,
        0x02 | 0x09 | 0x10 => 2,
        0x03 | 0x0a | 0x20 => 4,
        // UNORM and SNORM with their number of channels in the format.
        0xc0 | 0xc6 => return Some(1),
        0xc1 | 0xc3 | 0xc7 | 0xc9 => return Some(2),
        0xc2 | 0xc4 | 0xc8 | 0xca | 0x50 => return Some(4),
        0xc5 | 0xcb => return Some(8),
        _ => return None,
    };
    u64::from(num_channels).checked_mul(channel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CopyEnd;

    #[test]
    fn an_end_is_all_that_a_copy_can_touch() {
        let end = |pitch, rows, x, y, z| CopyEnd {
            kind: CopyEnd::ADDRESS,
            lod: 0,
            at: 0x1000,
            pitch,
            rows,
            x,
            y,
            z,
            context: 0,
        };
        assert_eq!(end(16, 8, 1, 2, 1).extent(4, 3, 2), Ok((0x1000 + 161, (8 + 2) * 16 + 4)));
        assert_eq!(end(16, 0, 1, 2, 0).extent(4, 3, 1), Ok((0x1000 + 33, 2 * 16 + 4)));
        // Left open: from where it begins without the pitch, up to where it ends with one of rows without gaps.
        assert_eq!(end(0, 0, 1, 0, 0).extent(4, 1, 1), Ok((0x1001, 4)));
        assert_eq!(end(0, 4, 1, 1, 0).extent(4, 4, 1), Ok((0x1001, 4 * 5 + 4)));
        assert_eq!(end(16, 0, 0, 1, 0).extent(4, 3, 2), Ok((0x1010, (4 + 2) * 16 + 4)));
        let bad = Err(crate::CUresult::INVALID_VALUE);
        assert_eq!(end(16, 8, 0, 0, 0).extent(4, 0, 1), bad);
        assert_eq!(end(u64::MAX, 8, 0, 0, 0).extent(4, 3, 1), bad);
    }

    #[test]
    fn layouts_are_cudas() {
        assert_eq!((size_of::<CUDA_MEMCPY2D>(), size_of::<CUDA_MEMCPY3D>()), (128, 200));
        assert_eq!(std::mem::offset_of!(CUDA_MEMCPY2D, dst), 56);
        assert_eq!(std::mem::offset_of!(CUDA_MEMCPY3D, dst), 88);
        assert_eq!(size_of::<CUmemcpyAttributes>(), 24);
        assert_eq!(size_of::<CUDA_MEMCPY3D_BATCH_OP>(), 112);
    }
}
