//! How a table is laid out: words of 8 bytes, the first its size in bytes (where it has one), the others functions. A slot
//! that is not served is a function of its own all the same, so that a log names it.

use std::ffi::c_void;
use std::ptr::{null, without_provenance};

use cuda_api::CUresult;

/// A word of a table.
#[repr(transparent)]
pub(super) struct Word(*const c_void);

// SAFETY: a number, or the address of a function; nothing is read or written through it here.
unsafe impl Sync for Word {}

/// A table of so many words.
#[repr(transparent)]
pub(super) struct Table<const WORDS: usize>(pub(super) [Word; WORDS]);

impl Word {
    /// Where the real driver has NULL, and after a table without a size.
    pub(super) const NULL: Word = Word(null());

    /// The size of a table of so many words, itself included.
    pub(super) const fn size(words: usize) -> Word {
        Word(without_provenance(words * size_of::<Word>()))
    }

    pub(super) const fn function(address: *const ()) -> Word {
        Word(address.cast())
    }

    /// The word as a number.
    pub(super) fn value(&self) -> u64 {
        self.0.addr() as u64
    }
}

impl<const WORDS: usize> Table<WORDS> {
    /// Where the caller finds it.
    pub(super) fn address(&'static self) -> *const c_void {
        (&raw const *self).cast()
    }
}

/// What a slot that is not served does.
#[cold]
pub(super) fn not_served(slot: &'static str) -> CUresult {
    crate::log::once(slot, || format!("slot {slot} of the driver's private tables is not supported"));
    CUresult::NOT_SUPPORTED
}

/// A table from its name and its slots in order: a number alone is not served, `number => function` is served by it, `null`
/// is NULL. With `words N`, word 0 is the size; the slots then start at 1.
macro_rules! table {
    ($name:literal words $words:literal [$($slot:tt $(=> $function:path)?),*]) => {
        Table([Word::size($words), $($crate::export_table::layout::slot!($name $slot $($function)?)),*])
    };
    ($name:literal [$($slot:tt $(=> $function:path)?),*]) => {
        Table([$($crate::export_table::layout::slot!($name $slot $($function)?)),*])
    };
}

macro_rules! slot {
    ($name:literal null) => {
        Word::NULL
    };
    ($name:literal $slot:literal) => {{
        // The arguments are never looked at, so it has none: in the C calling convention the caller cleans up.
        extern "C" fn slot() -> CUresult {
            $crate::export_table::layout::not_served(concat!($name, "[", $slot, "]"))
        }
        Word::function(slot as *const ())
    }};
    ($name:literal $slot:literal $function:path) => {
        Word::function($function as *const ())
    };
}

pub(super) use {slot, table};
