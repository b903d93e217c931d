//! Every exported name with its row, the lock of wire ids, and sample values for tests over all rows.

use std::collections::BTreeMap;
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

/// What the lock says in place of a shape of an id that no row has any more.
const RETIRED: &str = "retired";

/// The lock file's text for the table as it is, from the text that it had: a line `id name shape-hash` for every row that travels, and a
/// line `id name retired` for every one that did. A line never changes its id or name, and none is ever taken out: an id means one call
/// for all time.
///
/// # Errors
/// A row takes an id that another call has had, or one of a call that has had another shape; or a line is none of the lock's.
pub fn lock_text(before: &str) -> Result<String, String> {
    let rows: Vec<Locked> = crate::all_calls()
        .map(|row| {
            let travels = matches!(row.class, Class::Posted | Class::Sync) && row.over.is_none();
            let shape = travels.then(|| {
                let hash = blake3::hash(row.shape.as_bytes()).to_hex();
                hash.get(..16).unwrap_or_default().to_owned()
            });
            Locked { id: row.id, name: row.name.to_owned(), shape }
        })
        .collect();
    renew_lock(before, &rows)
}

/// A row as the lock knows it.
struct Locked {
    id: u32,
    name: String,
    /// None: it does not travel.
    shape: Option<String>,
}

fn renew_lock(before: &str, rows: &[Locked]) -> Result<String, String> {
    let mut lines = BTreeMap::new();
    for line in before.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, name, shape] = words[..] else { return Err(format!("no line of the lock: {line}")) };
        let number = id.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number.ok_or_else(|| format!("no id: {line}"))?;
        let row = rows.iter().find(|row| row.id == number);
        let fault = match row {
            None => None,
            Some(_) if shape == RETIRED => Some("is retired".to_owned()),
            Some(row) if row.name != name => Some(format!("is {name}'s")),
            Some(row) if row.shape.as_deref() != Some(shape) => Some("had another shape".to_owned()),
            Some(_) => None,
        };
        if let (Some(row), Some(fault)) = (row, fault) {
            return Err(format!(
                "{}: the id {id} {fault}: give the call an id that was never used",
                row.name
            ));
        }
        let shape = if row.is_some() { shape } else { RETIRED };
        if lines.insert(number, format!("{id} {name} {shape}\n")).is_some() {
            return Err(format!("twice in the lock: {id}"));
        }
    }
    for row in rows {
        if let Some(shape) = &row.shape {
            lines.insert(row.id, format!("{:#06x} {} {shape}\n", row.id, row.name));
        }
    }
    Ok(lines.into_values().collect())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Locked, renew_lock};

    fn row(id: u32, name: &str, shape: Option<&str>) -> Locked {
        Locked { id, name: name.to_owned(), shape: shape.map(str::to_owned) }
    }

    #[test]
    fn an_id_that_no_row_has_any_more_is_retired_and_stays() {
        let first =
            renew_lock("", &[row(1, "cuA", Some("aa")), row(2, "cuB", Some("bb")), row(3, "cuLocal", None)]);
        assert_eq!(first.as_deref(), Ok("0x0001 cuA aa\n0x0002 cuB bb\n"));
        let second =
            renew_lock(&first.unwrap(), &[row(2, "cuB", Some("bb")), row(4, "cuA", Some("cc"))]).unwrap();
        assert_eq!(second, "0x0001 cuA retired\n0x0002 cuB bb\n0x0004 cuA cc\n");
        assert_eq!(renew_lock(&second, &[row(2, "cuB", Some("bb")), row(4, "cuA", Some("cc"))]), Ok(second));
    }

    #[test]
    fn an_id_is_one_call_s_for_all_time() {
        let lock = "0x0001 cuA retired\n0x0002 cuB bb\n";
        for (what, rows) in [
            ("retired", row(1, "cuC", Some("cc"))),
            ("retired", row(1, "cuA", Some("aa"))),
            // Also where it would not travel: it is not to come back by that way.
            ("retired", row(1, "cuC", None)),
            ("cuB's", row(2, "cuC", Some("bb"))),
            ("another shape", row(2, "cuB", Some("b2"))),
            ("another shape", row(2, "cuB", None)),
        ] {
            let refused = renew_lock(lock, &[rows]).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        for text in [
            "0x0001 cuA\n",
            "1 cuA aa\n",
            "0xzz cuA aa\n",
            "0x0001 cuA aa b\n",
            "0x0001 cuA aa\n0x0001 cuA aa\n",
        ] {
            assert!(renew_lock(text, &[]).is_err(), "{text}");
        }
    }
}
