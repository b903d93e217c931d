//! What a device of compute capability 8.0 can do, as far as this one does it. One place for the attributes, the checks
//! of launches and the occupancy.

/// Compute capability.
pub(crate) const CAPABILITY: (i32, i32) = (8, 0);
/// Threads of a warp.
pub(crate) const WARP_THREADS: u32 = 32;
/// Threads of a block.
pub(crate) const BLOCK_THREADS: u32 = 1024;
/// Threads of a block along each axis.
pub(crate) const BLOCK: [u32; 3] = [1024, 1024, 64];
/// Blocks of a grid along each axis.
pub(crate) const GRID: [u32; 3] = [0x7fff_ffff, 65535, 65535];
/// Bytes of constant memory.
pub(crate) const CONSTANT_BYTES: u64 = 64 << 10;
/// Bytes of shared memory that a block gets without asking.
pub(crate) const SHARED_BYTES: u32 = 48 << 10;
/// Bytes of shared memory that a block gets where its function asks (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES).
pub(crate) const SHARED_BYTES_OPTIN: u32 = ptx::MAX_SHARED;
/// Bytes of shared memory of a multiprocessor.
pub(crate) const SHARED_BYTES_MULTIPROCESSOR: u32 = 164 << 10;
/// Bytes of it that every block costs beside its own.
pub(crate) const SHARED_BYTES_RESERVED: u32 = 1 << 10;
/// Shared memory is given in pieces of so many bytes.
pub(crate) const SHARED_UNIT: u32 = 128;
/// Threads of a multiprocessor.
pub(crate) const MULTIPROCESSOR_THREADS: u32 = 2048;
/// Blocks of a multiprocessor.
pub(crate) const MULTIPROCESSOR_BLOCKS: u32 = 32;
/// Registers of a multiprocessor, and of a block.
pub(crate) const REGISTERS: u32 = 65536;
/// Registers are given to warps in pieces of so many.
pub(crate) const REGISTER_UNIT: u32 = 256;
/// Warps get registers in groups of so many.
pub(crate) const WARP_UNIT: u32 = 4;
