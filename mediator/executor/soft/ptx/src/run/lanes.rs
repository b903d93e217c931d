//! The registers of one warp in one function, and the loops that apply an operation to every active lane.
//!
//! A register is one row of 32 words: lanes lie beside each other, so an operation on a whole warp is a loop over
//! arrays that the compiler vectorises. Registers of 8, 16 and 32 bits take a 32-bit row, those of 64 bits two rows.
//! A predicate is one `u32` with a bit per lane.

use crate::run::code::Ins;

/// Every lane.
pub(crate) const ALL: u32 = u32::MAX;

/// One 32-bit register of all lanes; two in a row make a 64-bit one.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
pub(crate) struct Row(pub(crate) [u32; 32]);

/// The registers of one function activation, for the lanes that called it together.
pub(crate) struct Frame {
    /// Register rows, constants included.
    pub(crate) rows: Vec<Row>,
    /// Predicates, constants included.
    pub(crate) preds: Vec<u32>,
    /// The carry flag of each lane.
    pub(crate) carry: u32,
    /// Where this activation's variables begin in each lane's local memory, in bytes.
    pub(crate) local_base: u32,
    /// Index of the function.
    pub(crate) function: u32,
    /// Index of the caller's frame; the entry function has itself.
    pub(crate) parent: u32,
    /// Where to go on in the caller.
    pub(crate) return_pc: u32,
    /// Lanes that have not returned.
    pub(crate) live: u32,
    /// Number of callers above.
    pub(crate) depth: u32,
}

/// A machine word that rows are made of.
pub(crate) trait Word: Copy + Default {
    /// Rows one register takes.
    const ROWS: usize;
}

impl Word for u32 {
    const ROWS: usize = 1;
}

impl Word for u64 {
    const ROWS: usize = 2;
}

/// A value an instruction type names, as it lies in a word.
pub(crate) trait Lane: Copy {
    /// The word it lies in.
    type W: Word;
    /// Reads the low bits of the word.
    fn from_word(w: Self::W) -> Self;
    /// Extends to the word: with the sign for signed types, with zeros otherwise.
    fn into_word(self) -> Self::W;
}

macro_rules! lanes {
    ($($t:ty, $w:ty, |$x:ident| $from:expr, |$y:ident| $into:expr;)*) => {$(
        impl Lane for $t {
            type W = $w;
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation)]
            fn from_word($x: $w) -> $t { $from }
            #[inline(always)]
            fn into_word(self) -> $w { let $y = self; $into }
        }
    )*};
}

lanes! {
    u8, u32, |w| w as u8, |v| u32::from(v);
    i8, u32, |w| w as i8, |v| i32::from(v) as u32;
    u16, u32, |w| w as u16, |v| u32::from(v);
    i16, u32, |w| w as i16, |v| i32::from(v) as u32;
    u32, u32, |w| w, |v| v;
    i32, u32, |w| w as i32, |v| v as u32;
    f32, u32, |w| f32::from_bits(w), |v| v.to_bits();
    u64, u64, |w| w, |v| v;
    i64, u64, |w| w as i64, |v| v as u64;
    f64, u64, |w| f64::from_bits(w), |v| v.to_bits();
}

impl Frame {
    /// The lanes of a register.
    #[inline(always)]
    pub(crate) fn words<W: Word>(&self, row: u32) -> &[W; 32] {
        let rows = &self.rows[row as usize..row as usize + W::ROWS];
        // SAFETY: `rows` holds ROWS rows of 128 bytes, which is exactly 32 words of W; Row is aligned to 128, and
        // every bit pattern is a valid u32 or u64 (Word is implemented for these two only).
        unsafe { &*rows.as_ptr().cast::<[W; 32]>() }
    }

    /// The lanes of a register, to write.
    #[inline(always)]
    pub(crate) fn words_mut<W: Word>(&mut self, row: u32) -> &mut [W; 32] {
        let rows = &mut self.rows[row as usize..row as usize + W::ROWS];
        // SAFETY: as in `words`; the borrow of `self` is exclusive.
        unsafe { &mut *rows.as_mut_ptr().cast::<[W; 32]>() }
    }

    /// Lanes for which the predicate holds.
    #[inline(always)]
    pub(crate) fn pred(&self, p: u32) -> u32 {
        self.preds[p as usize]
    }

    /// Writes a predicate for the lanes of `mask`.
    #[inline(always)]
    pub(crate) fn set_pred(&mut self, p: u32, mask: u32, value: u32) {
        let old = &mut self.preds[p as usize];
        *old = (*old & !mask) | (value & mask);
    }
}

/// The lanes of a mask, lowest first.
#[derive(Clone, Copy)]
pub(crate) struct Lanes(pub(crate) u32);

impl Iterator for Lanes {
    type Item = usize;
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let lane = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(lane as usize)
    }
}

/// Lanes handled at a time where all are active: enough for the compiler to vectorise, few enough for registers.
const CHUNK: usize = 8;

/// `r0 = op(r1)`.
#[inline(always)]
pub(crate) fn unary<A: Lane, D: Lane>(f: &mut Frame, i: &Ins, mask: u32, op: impl Fn(A) -> D) {
    if mask == ALL {
        for c in (0..32).step_by(CHUNK) {
            let mut out = [D::W::default(); CHUNK];
            let a = &f.words::<A::W>(i.r[1])[c..c + CHUNK];
            for k in 0..CHUNK {
                out[k] = op(A::from_word(a[k])).into_word();
            }
            f.words_mut::<D::W>(i.r[0])[c..c + CHUNK].copy_from_slice(&out);
        }
    } else {
        for lane in Lanes(mask) {
            let v = op(A::from_word(f.words::<A::W>(i.r[1])[lane]));
            f.words_mut::<D::W>(i.r[0])[lane] = v.into_word();
        }
    }
}

/// `r0 = op(r1, r2)`.
#[inline(always)]
pub(crate) fn binary<A: Lane, B: Lane, D: Lane>(f: &mut Frame, i: &Ins, mask: u32, op: impl Fn(A, B) -> D) {
    if mask == ALL {
        for c in (0..32).step_by(CHUNK) {
            let mut out = [D::W::default(); CHUNK];
            let a = &f.words::<A::W>(i.r[1])[c..c + CHUNK];
            let b = &f.words::<B::W>(i.r[2])[c..c + CHUNK];
            for k in 0..CHUNK {
                out[k] = op(A::from_word(a[k]), B::from_word(b[k])).into_word();
            }
            f.words_mut::<D::W>(i.r[0])[c..c + CHUNK].copy_from_slice(&out);
        }
    } else {
        for lane in Lanes(mask) {
            let (a, b) = (f.words::<A::W>(i.r[1])[lane], f.words::<B::W>(i.r[2])[lane]);
            f.words_mut::<D::W>(i.r[0])[lane] = op(A::from_word(a), B::from_word(b)).into_word();
        }
    }
}

/// `r0 = op(r1, r2, r3)`.
#[inline(always)]
pub(crate) fn ternary<A: Lane, B: Lane, C: Lane, D: Lane>(
    f: &mut Frame,
    i: &Ins,
    mask: u32,
    op: impl Fn(A, B, C) -> D,
) {
    if mask == ALL {
        for s in (0..32).step_by(CHUNK) {
            let mut out = [D::W::default(); CHUNK];
            let a = &f.words::<A::W>(i.r[1])[s..s + CHUNK];
            let b = &f.words::<B::W>(i.r[2])[s..s + CHUNK];
            let c = &f.words::<C::W>(i.r[3])[s..s + CHUNK];
            for k in 0..CHUNK {
                out[k] = op(A::from_word(a[k]), B::from_word(b[k]), C::from_word(c[k])).into_word();
            }
            f.words_mut::<D::W>(i.r[0])[s..s + CHUNK].copy_from_slice(&out);
        }
    } else {
        for lane in Lanes(mask) {
            let a = A::from_word(f.words::<A::W>(i.r[1])[lane]);
            let b = B::from_word(f.words::<B::W>(i.r[2])[lane]);
            let c = C::from_word(f.words::<C::W>(i.r[3])[lane]);
            f.words_mut::<D::W>(i.r[0])[lane] = op(a, b, c).into_word();
        }
    }
}

/// The lanes for which `op(ra, rb)` holds; lanes outside the mask may be set or not.
#[inline(always)]
pub(crate) fn compare<A: Lane, B: Lane>(f: &Frame, ra: u32, rb: u32, op: impl Fn(A, B) -> bool) -> u32 {
    let (a, b) = (f.words::<A::W>(ra), f.words::<B::W>(rb));
    let mut bytes = [0u8; 32];
    for k in 0..32 {
        bytes[k] = u8::from(op(A::from_word(a[k]), B::from_word(b[k])));
    }
    gather_bits(&bytes)
}

/// Bit k of the result is byte k (0 or 1).
#[inline(always)]
fn gather_bits(bytes: &[u8; 32]) -> u32 {
    let mut mask = 0u32;
    for (k, chunk) in bytes.chunks_exact(8).enumerate() {
        let mut eight = [0u8; 8];
        eight.copy_from_slice(chunk);
        // The product moves bit 0 of byte k to bit 56 + k; no two terms of the top byte carry into each other.
        let bits = u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= (bits as u32) << (8 * k);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_gathered_in_lane_order() {
        for pattern in [0u32, 1, 0x8000_0000, 0xdead_beef, ALL, 0x0102_0304] {
            let mut bytes = [0u8; 32];
            for (k, b) in bytes.iter_mut().enumerate() {
                *b = u8::from(pattern >> k & 1 == 1);
            }
            assert_eq!(gather_bits(&bytes), pattern);
        }
    }

    #[test]
    fn lanes_iterate_lowest_first() {
        assert_eq!(Lanes(0x8000_0012).collect::<Vec<_>>(), [1, 4, 31]);
    }
}
