//! Handles. A guest's handle is a number of its own making: no pointer of either side. It is laid out so that it looks
//! like an aligned user address (programs compare handles with NULL and small numbers) and is recognisably ours:
//!
//! | bits | |
//! |---|---|
//! | 40…46 | 0x56 |
//! | 32…39 | kind |
//! | 24…31 | generation, so that a handle to a destroyed object is not taken for its successor's |
//! | 4…23 | index |
//! | 0…3 | 0 |

use crate::Malformed;
use crate::types::CUresult;
use crate::wire::{Pod, Put, Reader, Wire};

/// What a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum HandleKind {
    Context = 1,
    Module,
    Library,
    Function,
    Kernel,
    Stream,
    Event,
    Graph,
    GraphExec,
    GraphNode,
    MemPool,
    Allocation,
    Array,
    MipmappedArray,
    LinkState = 32,
    GreenContext,
    ResourceDesc,
    UserObject = 48,
}

/// Objects of one kind that a process may have at once.
pub const HANDLE_INDEX_MAX: u32 = 1 << 20;

const MARK: u64 = 0x56 << 40;

/// Puts a handle's number together.
pub fn pack_handle(kind: HandleKind, generation: u8, index: u32) -> u64 {
    MARK | (kind as u64) << 32 | u64::from(generation) << 24 | u64::from(index & (HANDLE_INDEX_MAX - 1)) << 4
}

/// Takes a handle's number apart: generation and index; `None` for a number that is no handle of this kind.
pub fn unpack_handle(kind: HandleKind, handle: u64) -> Option<(u8, u32)> {
    if handle & !0xffff_ffff != MARK | (kind as u64) << 32 || handle & 0xf != 0 {
        return None;
    }
    let generation = u8::try_from(handle >> 24 & 0xff).ok()?;
    let index = u32::try_from(handle >> 4 & u64::from(HANDLE_INDEX_MAX - 1)).ok()?;
    Some((generation, index))
}

/// A handle type of CUDA's.
pub trait Handle: Copy + 'static {
    /// What it names.
    const KIND: HandleKind;
    /// Numbers that are valid without an object (the default streams).
    const SPECIAL: &'static [u64];
    /// What CUDA answers to a handle that names nothing.
    const INVALID: CUresult;
    /// From the number.
    fn from_raw(raw: u64) -> Self;
    /// The number.
    fn raw(self) -> u64;
}

macro_rules! handles {
    ($($(#[doc = $doc:literal])+ $name:ident $kind:ident $invalid:ident [$($special:literal),*];)+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(transparent)]
        pub struct $name(pub u64);
        impl $name {
            /// No object.
            pub const NULL: Self = $name(0);
            /// It is NULL.
            pub fn is_null(self) -> bool { self.0 == 0 }
        }
        impl Handle for $name {
            const KIND: HandleKind = HandleKind::$kind;
            const SPECIAL: &'static [u64] = &[$($special),*];
            const INVALID: CUresult = CUresult::$invalid;
            fn from_raw(raw: u64) -> Self { $name(raw) }
            fn raw(self) -> u64 { self.0 }
        }
        impl Pod for $name {}
        impl<'a> Wire<'a> for $name {
            #[inline]
            fn put<P: Put>(&self, to: &mut P) { self.0.put(to); }
            #[inline]
            fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> { u64::take(from).map($name) }
        }
    )+ };
}

handles! {
    /// A context.
    CUcontext Context INVALID_CONTEXT [];
    /// A module.
    CUmodule Module INVALID_HANDLE [];
    /// A library.
    CUlibrary Library INVALID_HANDLE [];
    /// A function; a kernel handle is accepted wherever one is (CUDA Driver API, "Library Management").
    CUfunction Function INVALID_HANDLE [];
    /// A kernel.
    CUkernel Kernel INVALID_HANDLE [];
    /// A stream; 0 is the default stream, 1 the legacy one, 2 the per-thread one.
    CUstream Stream INVALID_HANDLE [0, 1, 2];
    /// An event.
    CUevent Event INVALID_HANDLE [];
    /// A graph.
    CUgraph Graph INVALID_VALUE [];
    /// An executable graph.
    CUgraphExec GraphExec INVALID_VALUE [];
    /// A graph node.
    CUgraphNode GraphNode INVALID_VALUE [];
    /// A memory pool.
    CUmemoryPool MemPool INVALID_VALUE [];
    /// A physical allocation of virtual memory management.
    CUmemGenericAllocationHandle Allocation INVALID_VALUE [];
    /// An array.
    CUarray Array INVALID_HANDLE [];
    /// A mipmapped array.
    CUmipmappedArray MipmappedArray INVALID_HANDLE [];
    /// Images that are being linked.
    CUlinkState LinkState INVALID_HANDLE [];
    /// A green context: some of a device's multiprocessors.
    CUgreenCtx GreenContext INVALID_CONTEXT [];
    /// What a green context is made from.
    CUdevResourceDesc ResourceDesc INVALID_VALUE [];
    /// What the program's destructor is called for.
    CUuserObject UserObject INVALID_VALUE [];
}

/// The default stream.
pub const STREAM_DEFAULT: CUstream = CUstream(0);
/// CU_STREAM_LEGACY.
pub const STREAM_LEGACY: CUstream = CUstream(1);
/// CU_STREAM_PER_THREAD.
pub const STREAM_PER_THREAD: CUstream = CUstream(2);

/// An address on the device; with unified addressing also a host address.
pub type CUdeviceptr = u64;
/// A device's ordinal.
pub type CUdevice = i32;
