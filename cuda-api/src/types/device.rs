//! Device, function and pointer attribute numbers that code here refers to by name (CUdevice_attribute,
//! CUfunction_attribute, CUpointer_attribute). The others travel as numbers.

/// CUdevice_attribute numbers.
#[allow(missing_docs)]
pub mod attribute {
    pub const MAX_THREADS_PER_BLOCK: i32 = 1;
    pub const MAX_BLOCK_DIM_X: i32 = 2;
    pub const MAX_BLOCK_DIM_Y: i32 = 3;
    pub const MAX_BLOCK_DIM_Z: i32 = 4;
    pub const MAX_GRID_DIM_X: i32 = 5;
    pub const MAX_GRID_DIM_Y: i32 = 6;
    pub const MAX_GRID_DIM_Z: i32 = 7;
    pub const MAX_SHARED_MEMORY_PER_BLOCK: i32 = 8;
    pub const WARP_SIZE: i32 = 10;
    pub const MULTIPROCESSOR_COUNT: i32 = 16;
    pub const PCI_BUS_ID: i32 = 33;
    pub const PCI_DEVICE_ID: i32 = 34;
    pub const MAX_THREADS_PER_MULTIPROCESSOR: i32 = 39;
    pub const UNIFIED_ADDRESSING: i32 = 41;
    pub const PCI_DOMAIN_ID: i32 = 50;
    pub const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
    pub const COMPUTE_CAPABILITY_MINOR: i32 = 76;
    pub const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: i32 = 97;
    pub const MANAGED_MEMORY: i32 = 83;
    pub const CONCURRENT_MANAGED_ACCESS: i32 = 89;
    pub const HOST_REGISTER_SUPPORTED: i32 = 99;
    pub const MEMORY_POOLS_SUPPORTED: i32 = 115;
    /// The highest attribute that CUDA 13.0 knows.
    pub const LAST: i32 = 147;
}

/// CUfunction_attribute numbers.
#[allow(missing_docs)]
pub mod func_attribute {
    pub const MAX_THREADS_PER_BLOCK: usize = 0;
    pub const SHARED_SIZE_BYTES: usize = 1;
    pub const CONST_SIZE_BYTES: usize = 2;
    pub const LOCAL_SIZE_BYTES: usize = 3;
    pub const NUM_REGS: usize = 4;
    pub const PTX_VERSION: usize = 5;
    pub const BINARY_VERSION: usize = 6;
    pub const CACHE_MODE_CA: usize = 7;
    pub const MAX_DYNAMIC_SHARED_SIZE_BYTES: usize = 8;
    pub const PREFERRED_SHARED_MEMORY_CARVEOUT: usize = 9;
    pub const CLUSTER_SIZE_MUST_BE_SET: usize = 10;
    pub const REQUIRED_CLUSTER_WIDTH: usize = 11;
    pub const REQUIRED_CLUSTER_HEIGHT: usize = 12;
    pub const REQUIRED_CLUSTER_DEPTH: usize = 13;
    pub const NON_PORTABLE_CLUSTER_SIZE_ALLOWED: usize = 14;
    /// How many there are.
    pub const COUNT: usize = 16;
}

/// CUpointer_attribute numbers.
#[allow(missing_docs)]
pub mod pointer_attribute {
    pub const CONTEXT: u32 = 1;
    pub const MEMORY_TYPE: u32 = 2;
    pub const DEVICE_POINTER: u32 = 3;
    pub const HOST_POINTER: u32 = 4;
    pub const P2P_TOKENS: u32 = 5;
    pub const SYNC_MEMOPS: u32 = 6;
    pub const BUFFER_ID: u32 = 7;
    pub const IS_MANAGED: u32 = 8;
    pub const DEVICE_ORDINAL: u32 = 9;
    pub const IS_LEGACY_IPC_CAPABLE: u32 = 10;
    pub const RANGE_START_ADDR: u32 = 11;
    pub const RANGE_SIZE: u32 = 12;
    pub const MAPPED: u32 = 13;
    pub const ALLOWED_HANDLE_TYPES: u32 = 14;
    pub const IS_GPU_DIRECT_RDMA_CAPABLE: u32 = 15;
    pub const ACCESS_FLAGS: u32 = 16;
    pub const MEMPOOL_HANDLE: u32 = 17;
    pub const MAPPING_SIZE: u32 = 18;
    pub const MAPPING_BASE_ADDR: u32 = 19;
    pub const MEMORY_BLOCK_ID: u32 = 20;
    pub const IS_HW_DECOMPRESS_CAPABLE: u32 = 21;
}
