//! Every exported name with its row, the lock of wire ids, and sample values for tests over all rows.

use std::ffi::CStr;

use crate::types::*;
use crate::wire::{Bulk, Fill, Pod};
use crate::{CallInfo, Class};

/// An exported symbol.
#[derive(Debug, Clone, Copy)]
pub struct Export {
    /// The symbol's name.
    pub name: &'static str,
    /// Its row.
    pub row: &'static CallInfo,
    /// It is the per-thread default stream variant of the row.
    pub per_thread: bool,
}

/// Every exported symbol, in the table's order.
pub fn exports() -> Vec<Export> {
    crate::all_calls()
        .filter(|row| !row.internal)
        .flat_map(|row| {
            let aliases = row.aliases.iter().map(move |(name, per_thread)| Export {
                name,
                row,
                per_thread: *per_thread,
            });
            std::iter::once(Export { name: row.name, row, per_thread: false }).chain(aliases)
        })
        .collect()
}

/// The lock file's text for the table as it is: a line `id name shape-hash` for every row that travels. A line never changes its
/// id or name, and none is ever taken out: an id means one call for all time.
pub fn lock_text() -> String {
    let mut rows: Vec<&CallInfo> = crate::all_calls()
        .filter(|r| matches!(r.class, Class::Posted | Class::Sync) && r.over.is_none())
        .collect();
    rows.sort_by_key(|r| r.id);
    let mut text = String::new();
    for row in rows {
        let hash = blake3::hash(row.shape.as_bytes()).to_hex();
        text.push_str(&format!("{:#06x} {} {}\n", row.id, row.name, &hash[..16]));
    }
    text
}

/// A value for tests, from a seed; different seeds give different values where the type has several.
#[doc(hidden)]
pub trait Sample: Sized {
    /// The value.
    fn sample(seed: u64) -> Self;
}

macro_rules! scalar_samples {
    ($($t:ty),+) => { $( impl Sample for $t {
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
        fn sample(seed: u64) -> Self { seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) as $t }
    } )+ };
}
scalar_samples!(u8, u16, u32, u64, i32, i64, usize);

impl Sample for f32 {
    fn sample(seed: u64) -> Self {
        (u16::sample(seed)).into()
    }
}
impl Sample for bool {
    fn sample(seed: u64) -> Self {
        seed & 1 == 1
    }
}
impl Sample for () {
    fn sample(_: u64) -> Self {}
}
impl<const N: usize> Sample for [u32; N] {
    fn sample(seed: u64) -> Self {
        std::array::from_fn(|i| u32::sample(seed + i as u64))
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::sample(seed + i as u64)).collect()
}

fn pod<T: Pod>(seed: u64) -> T {
    let mut value = zerocopy::FromZeros::new_zeroed();
    zerocopy::IntoBytes::as_mut_bytes(&mut value).copy_from_slice(&bytes(seed, size_of::<T>()));
    value
}

impl<T: Pod> Sample for &'static T {
    fn sample(seed: u64) -> Self {
        Box::leak(Box::new(pod(seed)))
    }
}
impl<T: Pod> Sample for &'static [T] {
    fn sample(seed: u64) -> Self {
        Vec::leak((0..seed % 5).map(|i| pod(seed + i)).collect())
    }
}
impl<T: Pod> Sample for Vec<T> {
    fn sample(seed: u64) -> Self {
        (0..seed % 5).map(|i| pod(seed + i)).collect()
    }
}
impl Sample for &'static CStr {
    fn sample(seed: u64) -> Self {
        [c"", c"kernel", c"a_longer_name_that_is_no_multiple_of_eight"][(seed % 3) as usize]
    }
}
impl Sample for Bulk<'static> {
    fn sample(seed: u64) -> Self {
        if seed & 1 == 0 {
            Bulk::Inline(Vec::leak(bytes(seed, (seed % 40) as usize)))
        } else {
            Bulk::Staged { offset: u64::sample(seed), len: u64::sample(seed + 1) }
        }
    }
}
impl Sample for Fill {
    fn sample(seed: u64) -> Self {
        if seed & 1 == 0 {
            Fill::Inline { len: seed % 1000 }
        } else {
            Fill::Staged { offset: u64::sample(seed), len: u64::sample(seed + 1) }
        }
    }
}

macro_rules! pod_samples {
    ($($t:ty),+) => { $( impl Sample for $t { fn sample(seed: u64) -> Self { pod(seed) } } )+ };
}
pod_samples!(
    CUcontext,
    CUmodule,
    CUlibrary,
    CUfunction,
    CUkernel,
    CUstream,
    CUevent,
    CUgraph,
    CUgraphExec,
    CUgraphNode,
    CUmemoryPool,
    CUmemGenericAllocationHandle,
    CUlinkState,
    CUgreenCtx,
    CUdevResourceDesc,
    DeviceResource,
    CUuserObject,
    FunctionInfo,
    CaptureInfo,
    CUgraphExecUpdateResultInfo,
    CUipcHandle,
    CUtensorMap,
    CUarray,
    CUmipmappedArray,
    CUDA_ARRAY_DESCRIPTOR,
    CUDA_ARRAY3D_DESCRIPTOR,
    CUDA_ARRAY_SPARSE_PROPERTIES,
    CUDA_ARRAY_MEMORY_REQUIREMENTS,
    Resource,
    CUDA_TEXTURE_DESC,
    CUDA_RESOURCE_VIEW_DESC
);

macro_rules! tuple_samples {
    ($(($($n:ident),+))+) => { $(
        impl<$($n: Sample),+> Sample for ($($n,)+) {
            #[allow(unused_assignments)]
            fn sample(seed: u64) -> Self {
                let mut s = seed;
                ($( { s += 1; $n::sample(s) }, )+)
            }
        }
    )+ };
}
tuple_samples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) (A, B, C, D, E, F, G) (A, B, C, D, E, F, G, H) }
