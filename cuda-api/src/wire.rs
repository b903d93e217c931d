//! The frame encoding: every scalar is 8 bytes, little endian; a sequence is its length in bytes (8 bytes) and its
//! bytes, padded to 8. Fields follow one another in the row's order.
//!
//! The reader works on a private copy of the frame and is strict: too short, too long, a wrong length and a wrong bool
//! are [`Malformed`]. The writer puts fields straight where they go ([`Put`]).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)]

use std::ffi::CStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::types::CUresult;
use crate::{CuResult, Malformed};

/// Bytes that go inline in a frame at most; more goes through staging.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;
/// Elements of an array in a reply at most. Stops a count in a frame from sizing an allocation.
pub const REPLY_ITEMS_MAX: usize = 4096;

/// Where a frame's or a reply's bytes go.
pub trait Put {
    /// Appends bytes. What does not fit is remembered by the implementation and fails the call.
    fn put(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads a frame or a reply.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`, which must be 8-byte aligned for arrays to be borrowed from it.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next `len` bytes and the padding after them.
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let padded = len.checked_next_multiple_of(8).ok_or_else(|| short(len, self.rest.len()))?;
        let (head, rest) =
            self.rest.split_at_checked(padded).ok_or_else(|| short(padded, self.rest.len()))?;
        self.rest = rest;
        head.get(..len).ok_or_else(|| short(len, head.len()))
    }

    fn word(&mut self) -> Result<u64, Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<8>().ok_or_else(|| short(8, self.rest.len()))?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// The frame must end here.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed(format!("{} bytes after the last field", self.rest.len())))
        }
    }
}

#[cold]
fn short(want: usize, have: usize) -> Malformed {
    Malformed(format!("a field of {want} bytes, but {have} are left"))
}

/// Something that travels.
pub trait Wire<'a>: Sized {
    /// Writes it.
    fn put<P: Put>(&self, to: &mut P);
    /// Reads it.
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed>;
}

/// Reads all fields of a frame; nothing may follow them.
pub fn take_all<'a, T: Wire<'a>>(from: &mut Reader<'a>) -> Result<T, Malformed> {
    let value = T::take(from)?;
    from.end()?;
    Ok(value)
}

macro_rules! scalars {
    ($($t:ty),+) => { $(
        impl<'a> Wire<'a> for $t {
            #[inline]
            fn put<P: Put>(&self, to: &mut P) {
                // Sign extension, undone by the checked narrowing on the other side.
                #[allow(clippy::cast_lossless, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let word = *self as i128 as u64;
                to.put(&word.to_le_bytes());
            }
            #[inline]
            fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
                let word = from.word()?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_lossless)]
                let value = word as $t;
                #[allow(clippy::cast_lossless, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                if value as i128 as u64 == word { Ok(value) } else {
                    Err(Malformed(format!("{word:#x} does not fit {}", stringify!($t))))
                }
            }
        }
    )+ };
}
scalars!(u8, u16, u32, u64, i32, i64, usize);

impl<'a> Wire<'a> for f32 {
    fn put<P: Put>(&self, to: &mut P) {
        self.to_bits().put(to);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(f32::from_bits(u32::take(from)?))
    }
}

impl<'a> Wire<'a> for bool {
    fn put<P: Put>(&self, to: &mut P) {
        u64::from(*self).put(to);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        match from.word()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed(format!("{other:#x} is not a bool"))),
        }
    }
}

impl<'a, const N: usize> Wire<'a> for [u32; N] {
    #[inline]
    fn put<P: Put>(&self, to: &mut P) {
        for x in self {
            x.put(to);
        }
    }
    #[inline]
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut out = [0; N];
        for x in &mut out {
            *x = u32::take(from)?;
        }
        Ok(out)
    }
}

const PADDING: [u8; 8] = [0; 8];

fn put_sequence<P: Put>(bytes: &[u8], to: &mut P) {
    (bytes.len() as u64).put(to);
    to.put(bytes);
    if let Some(padding) = PADDING.get(..bytes.len().wrapping_neg() & 7) {
        to.put(padding);
    }
}

fn take_sequence<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = usize::take(from)?;
    from.bytes(len)
}

/// Plain data that travels as its bytes.
pub trait Pod: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static {}

impl<'a, T: Pod> Wire<'a> for &'a T {
    fn put<P: Put>(&self, to: &mut P) {
        put_sequence(self.as_bytes(), to);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = take_sequence(from)?;
        T::ref_from_bytes(bytes).map_err(|_| {
            Malformed(format!("a structure of {} bytes comes as {}", size_of::<T>(), bytes.len()))
        })
    }
}

impl<'a, T: Pod> Wire<'a> for &'a [T] {
    fn put<P: Put>(&self, to: &mut P) {
        put_sequence(self.as_bytes(), to);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = take_sequence(from)?;
        <[T]>::ref_from_bytes(bytes).map_err(|_| {
            Malformed(format!("{} bytes are no array of {}-byte elements", bytes.len(), size_of::<T>()))
        })
    }
}

impl<'a, T: Pod> Wire<'a> for Vec<T> {
    fn put<P: Put>(&self, to: &mut P) {
        put_sequence(self.as_slice().as_bytes(), to);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let items = <&'a [T]>::take(from)?;
        if items.len() > REPLY_ITEMS_MAX.max(crate::wire::INLINE_BYTES_MAX) {
            return Err(Malformed(format!("an array of {} elements", items.len())));
        }
        Ok(items.to_vec())
    }
}

impl<'a> Wire<'a> for &'a CStr {
    fn put<P: Put>(&self, to: &mut P) {
        put_sequence(self.to_bytes_with_nul(), to);
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        CStr::from_bytes_with_nul(take_sequence(from)?).map_err(|e| Malformed(format!("a string: {e}")))
    }
}

/// Bytes from the guest: in the frame itself, or at a place in the ring's staging buffer, which the guest can change at
/// any time and which is therefore copied out once and never interpreted in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bulk<'a> {
    /// In the frame.
    Inline(&'a [u8]),
    /// In the staging buffer.
    Staged {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

impl Bulk<'_> {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Bulk::Inline(bytes) => bytes.len() as u64,
            Bulk::Staged { len, .. } => *len,
        }
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Wire<'a> for Bulk<'a> {
    fn put<P: Put>(&self, to: &mut P) {
        match self {
            Bulk::Inline(bytes) => {
                0u64.put(to);
                put_sequence(bytes, to);
            }
            Bulk::Staged { offset, len } => {
                1u64.put(to);
                offset.put(to);
                len.put(to);
            }
        }
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        match from.word()? {
            0 => Ok(Bulk::Inline(take_sequence(from)?)),
            1 => Ok(Bulk::Staged { offset: from.word()?, len: from.word()? }),
            other => Err(Malformed(format!("{other:#x} is no way to carry bytes"))),
        }
    }
}

/// Where bytes for the guest are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Into the reply.
    Inline {
        /// Length in bytes, at most [`INLINE_BYTES_MAX`].
        len: u64,
    },
    /// Into the staging buffer.
    Staged {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

impl Fill {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Fill::Inline { len } | Fill::Staged { len, .. } => *len,
        }
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Wire<'a> for Fill {
    fn put<P: Put>(&self, to: &mut P) {
        match self {
            Fill::Inline { len } => {
                0u64.put(to);
                len.put(to);
            }
            Fill::Staged { offset, len } => {
                1u64.put(to);
                offset.put(to);
                len.put(to);
            }
        }
    }
    fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        match from.word()? {
            0 => {
                let len = from.word()?;
                if len > INLINE_BYTES_MAX as u64 {
                    return Err(Malformed(format!("{len} bytes wanted in a reply")));
                }
                Ok(Fill::Inline { len })
            }
            1 => Ok(Fill::Staged { offset: from.word()?, len: from.word()? }),
            other => Err(Malformed(format!("{other:#x} is no place for bytes"))),
        }
    }
}

/// What became of a [`Fill`]: the bytes themselves, or nothing because they lie in staging.
pub type Filled = Vec<u8>;

impl Pod for u8 {}
impl Pod for u32 {}
impl Pod for i32 {}
impl Pod for u64 {}
impl Pod for usize {}

/// An argument that takes part in a length.
pub trait Length {
    /// Its value, in whatever it counts.
    fn bytes(&self) -> u64;
}
impl Length for usize {
    fn bytes(&self) -> u64 {
        *self as u64
    }
}
impl Length for u32 {
    fn bytes(&self) -> u64 {
        u64::from(*self)
    }
}
impl Length for u64 {
    fn bytes(&self) -> u64 {
        *self
    }
}

/// The product of a length's factors.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE where it does not fit 64 bits.
pub fn product(factors: &[u64]) -> CuResult<u64> {
    factors.iter().try_fold(1u64, |a, b| a.checked_mul(*b)).ok_or(CUresult::INVALID_VALUE)
}

/// The bytes from the first to the last of `height` rows of `width` bytes that start `pitch` bytes apart.
///
/// # Errors
/// CUDA_ERROR_INVALID_VALUE where it does not fit 64 bits.
pub fn rows(pitch: u64, width: u64, height: u64) -> CuResult<u64> {
    match height.checked_sub(1) {
        None => Ok(0),
        Some(gaps) => {
            gaps.checked_mul(pitch).and_then(|b| b.checked_add(width)).ok_or(CUresult::INVALID_VALUE)
        }
    }
}

impl<'a> Wire<'a> for () {
    fn put<P: Put>(&self, _: &mut P) {}
    fn take(_: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(())
    }
}

macro_rules! tuples {
    ($(($($n:ident),+))+) => { $(
        impl<'a, $($n: Wire<'a>),+> Wire<'a> for ($($n,)+) {
            #[inline]
            #[allow(non_snake_case)]
            fn put<P: Put>(&self, to: &mut P) {
                let ($($n,)+) = self;
                $( $n.put(to); )+
            }
            #[inline]
            fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
                Ok(($( $n::take(from)?, )+))
            }
        }
    )+ };
}
tuples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) (A, B, C, D, E, F, G) (A, B, C, D, E, F, G, H)
(A, B, C, D, E, F, G, H, I) (A, B, C, D, E, F, G, H, I, J) (A, B, C, D, E, F, G, H, I, J, K)
(A, B, C, D, E, F, G, H, I, J, K, L) (A, B, C, D, E, F, G, H, I, J, K, L, M) }
