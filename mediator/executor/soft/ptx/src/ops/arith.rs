//! Integer arithmetic.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit, emit_same, exactly};
use crate::run::code::{Alu, Ins};
use crate::run::lanes::{Frame, Lane, Lanes};
use crate::types::Ty;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let op = match base {
        "dp4a" | "dp2a" => return dot(b, base, m, o),
        _ => m.ty()?,
    };
    let ty = op;
    if m.flag("cc") || matches!(base, "addc" | "subc" | "madc") {
        return carry(b, base, m, ty, o);
    }
    if m.flag("wide") {
        return wide(b, base, m, ty, o);
    }
    let saturating = m.flag("sat");
    let half = m.one_of(&["lo", "hi"]);
    m.done()?;
    if saturating && (ty != Ty::S32 || !matches!(base, "add" | "sub" | "mad")) {
        return Err(m.refuse());
    }
    let alu: Option<Alu> = match (base, half) {
        ("add", None) if saturating => Some(alu2!(i32, i32 => i32, |x, y| x.saturating_add(y))),
        ("sub", None) if saturating => Some(alu2!(i32, i32 => i32, |x, y| x.saturating_sub(y))),
        ("add", None) => by_int!(ty, T => alu2!(T, T => T, |x, y| x.wrapping_add(y))),
        ("sub", None) => by_int!(ty, T => alu2!(T, T => T, |x, y| x.wrapping_sub(y))),
        ("mul", Some("lo")) => by_int!(ty, T => alu2!(T, T => T, |x, y| x.wrapping_mul(y))),
        ("mul", Some(_)) => {
            by_int!(ty, T => alu2!(T, T => T, |x, y| high(x as i128, y as i128, T::BITS) as T))
        }
        ("mad", Some("lo")) if !saturating => {
            by_int!(ty, T => alu3!(T, T, T => T, |x, y, z| x.wrapping_mul(y).wrapping_add(z)))
        }
        ("mad", Some("hi")) if saturating => Some(alu3!(i32, i32, i32 => i32, |x, y, z| {
            (high(x.into(), y.into(), 32) as i32).saturating_add(z)
        })),
        ("mad", Some("hi")) => by_int!(ty, T => alu3!(T, T, T => T, |x, y, z| {
            (high(x as i128, y as i128, T::BITS) as T).wrapping_add(z)
        })),
        ("div", None) => {
            by_int!(ty, T => alu2!(T, T => T, |x, y| if y == 0 { T::MAX | T::MIN } else { x.wrapping_div(y) }))
        }
        ("rem", None) => {
            by_int!(ty, T => alu2!(T, T => T, |x, y| if y == 0 { x } else { x.wrapping_rem(y) }))
        }
        ("min", None) => by_int!(ty, T => alu2!(T, T => T, |x, y| x.min(y))),
        ("max", None) => by_int!(ty, T => alu2!(T, T => T, |x, y| x.max(y))),
        ("abs", None) => match ty {
            Ty::S16 => Some(alu1!(i16 => i16, |x| x.wrapping_abs())),
            Ty::S32 => Some(alu1!(i32 => i32, |x| x.wrapping_abs())),
            Ty::S64 => Some(alu1!(i64 => i64, |x| x.wrapping_abs())),
            _ => None,
        },
        ("neg", None) => by_int!(ty, T => alu1!(T => T, |x| x.wrapping_neg())),
        ("mul24" | "mad24", Some(half)) => by_24(base, half, ty),
        ("sad", None) => {
            let alu: Option<Alu> = match ty {
                Ty::U16 => Some(alu3!(u16, u16, u16 => u16, |x, y, z| x.abs_diff(y).wrapping_add(z))),
                Ty::S16 => Some(alu3!(i16, i16, u16 => u16, |x, y, z| x.abs_diff(y).wrapping_add(z))),
                Ty::U32 => Some(alu3!(u32, u32, u32 => u32, |x, y, z| x.abs_diff(y).wrapping_add(z))),
                Ty::S32 => Some(alu3!(i32, i32, u32 => u32, |x, y, z| x.abs_diff(y).wrapping_add(z))),
                Ty::U64 => Some(alu3!(u64, u64, u64 => u64, |x, y, z| x.abs_diff(y).wrapping_add(z))),
                Ty::S64 => Some(alu3!(i64, i64, u64 => u64, |x, y, z| x.abs_diff(y).wrapping_add(z))),
                _ => None,
            };
            alu
        }
        _ => None,
    };
    let alu = alu.ok_or_else(|| m.refuse())?;
    let count = match base {
        "abs" | "neg" => 2,
        "mad" | "mad24" | "sad" => 4,
        _ => 3,
    };
    if o.len() != count {
        return Err(b.syntax(format!("{} operands, {count} are needed", o.len())));
    }
    emit_same(b, alu, ty, o)
}

/// The high half of a product of `bits` wide factors.
#[inline(always)]
fn high(x: i128, y: i128, bits: u32) -> i128 {
    // Two unsigned factors of 64 bits can pass i128; wrapping keeps the bits that are asked for.
    x.wrapping_mul(y) >> bits
}

fn by_24(base: &str, half: &str, ty: Ty) -> Option<Alu> {
    let shift_low = half == "lo";
    Some(match (base, ty, shift_low) {
        ("mul24", Ty::U32, true) => alu2!(u32, u32 => u32, |x, y| unsigned_24(x, y) as u32),
        ("mul24", Ty::U32, false) => alu2!(u32, u32 => u32, |x, y| (unsigned_24(x, y) >> 16) as u32),
        ("mul24", Ty::S32, true) => alu2!(i32, i32 => i32, |x, y| signed_24(x, y) as i32),
        ("mul24", Ty::S32, false) => alu2!(i32, i32 => i32, |x, y| (signed_24(x, y) >> 16) as i32),
        ("mad24", Ty::U32, true) => {
            alu3!(u32, u32, u32 => u32, |x, y, z| (unsigned_24(x, y) as u32).wrapping_add(z))
        }
        ("mad24", Ty::U32, false) => {
            alu3!(u32, u32, u32 => u32, |x, y, z| ((unsigned_24(x, y) >> 16) as u32).wrapping_add(z))
        }
        ("mad24", Ty::S32, true) => {
            alu3!(i32, i32, i32 => i32, |x, y, z| (signed_24(x, y) as i32).wrapping_add(z))
        }
        ("mad24", Ty::S32, false) => {
            alu3!(i32, i32, i32 => i32, |x, y, z| ((signed_24(x, y) >> 16) as i32).wrapping_add(z))
        }
        _ => return None,
    })
}

#[inline(always)]
fn unsigned_24(x: u32, y: u32) -> u64 {
    u64::from(x & 0xff_ffff) * u64::from(y & 0xff_ffff)
}

#[inline(always)]
fn signed_24(x: i32, y: i32) -> i64 {
    i64::from(x << 8 >> 8) * i64::from(y << 8 >> 8)
}

/// `mul.wide`, `mad.wide`.
fn wide<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &Mods<'a>,
    ty: Ty,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    m.done()?;
    let (product, sum, double): (Alu, Alu, Ty) = match ty {
        Ty::U16 => (
            alu2!(u16, u16 => u32, |x, y| u32::from(x) * u32::from(y)),
            alu3!(u16, u16, u32 => u32, |x, y, z| (u32::from(x) * u32::from(y)).wrapping_add(z)),
            Ty::U32,
        ),
        Ty::S16 => (
            alu2!(i16, i16 => i32, |x, y| i32::from(x) * i32::from(y)),
            alu3!(i16, i16, i32 => i32, |x, y, z| (i32::from(x) * i32::from(y)).wrapping_add(z)),
            Ty::S32,
        ),
        Ty::U32 => (
            alu2!(u32, u32 => u64, |x, y| u64::from(x) * u64::from(y)),
            alu3!(u32, u32, u64 => u64, |x, y, z| (u64::from(x) * u64::from(y)).wrapping_add(z)),
            Ty::U64,
        ),
        Ty::S32 => (
            alu2!(i32, i32 => i64, |x, y| i64::from(x) * i64::from(y)),
            alu3!(i32, i32, i64 => i64, |x, y, z| (i64::from(x) * i64::from(y)).wrapping_add(z)),
            Ty::S64,
        ),
        _ => return Err(m.refuse()),
    };
    match (base, o) {
        ("mul", [d, x, y]) => emit(b, product, (d, double), &[(x, ty), (y, ty)], 0),
        ("mad", [d, x, y, z]) => emit(b, sum, (d, double), &[(x, ty), (y, ty), (z, double)], 0),
        _ => Err(m.refuse()),
    }
}

/// In `imm` of carry operations: the carry comes in, goes out.
const CARRY_IN: u64 = 1;
const CARRY_OUT: u64 = 2;

/// Adds (or subtracts) with the carry flag. `term` gives the two summands of a lane.
#[inline(always)]
fn with_carry<W: Lane<W = W> + crate::run::lanes::Word + Into<u128> + TryFrom<u128>>(
    f: &mut Frame,
    i: &Ins,
    mask: u32,
    subtract: bool,
    bits: u32,
    term: impl Fn(&Frame, usize) -> (W, W),
) {
    for lane in Lanes(mask) {
        let (x, y) = term(f, lane);
        let carry = if i.imm & CARRY_IN != 0 { u128::from(f.carry >> lane & 1) } else { 0 };
        let (x, y): (u128, u128) = (x.into(), y.into());
        let sum = if subtract { x.wrapping_sub(y).wrapping_sub(carry) } else { x + y + carry };
        if i.imm & CARRY_OUT != 0 {
            let out = (sum >> bits & 1) as u32;
            f.carry = f.carry & !(1 << lane) | out << lane;
        }
        let low = sum & ((1u128 << bits) - 1);
        // The mask above leaves no more than the bits of W.
        f.words_mut::<W>(i.r[0])[lane] = W::try_from(low).unwrap_or_default();
    }
}

/// `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`. The flag holds the borrow after a subtraction.
fn carry<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    ty: Ty,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    // `.cc` on addc, subc and madc is taken here; on the others the caller has taken it.
    let chained = matches!(base, "addc" | "subc" | "madc");
    let out = if chained { m.op.split('.').any(|w| w == "cc") } else { true };
    m.flag("cc");
    let imm = if chained { CARRY_IN } else { 0 } | if out { CARRY_OUT } else { 0 };
    let half = m.one_of(&["lo", "hi"]);
    m.done()?;
    let signed = ty.signed();
    macro_rules! sum {
        ($w:ty, $subtract:expr) => {
            alu_fn!(|f, i, m| with_carry::<$w>(f, i, m, $subtract, <$w>::BITS, |f, l| {
                (f.words::<$w>(i.r[1])[l], f.words::<$w>(i.r[2])[l])
            }))
        };
    }
    macro_rules! product {
        ($w:ty, $t:ty, $shift:expr) => {
            alu_fn!(|f, i, m| with_carry::<$w>(f, i, m, false, <$w>::BITS, |f, l| {
                let (x, y) = (f.words::<$w>(i.r[1])[l] as $t, f.words::<$w>(i.r[2])[l] as $t);
                ((x as i128).wrapping_mul(y as i128).wrapping_shr($shift) as $w, f.words::<$w>(i.r[3])[l])
            }))
        };
    }
    let alu: Alu = match (base, half, ty.wide(), signed) {
        _ if ty.bytes() < 4 || ty.float() || matches!(ty, Ty::F16x2 | Ty::BF16x2) => return Err(m.refuse()),
        ("add" | "addc", None, false, _) => sum!(u32, false),
        ("add" | "addc", None, true, _) => sum!(u64, false),
        ("sub" | "subc", None, false, _) => sum!(u32, true),
        ("sub" | "subc", None, true, _) => sum!(u64, true),
        ("mad" | "madc", Some("lo"), false, _) => product!(u32, u32, 0),
        ("mad" | "madc", Some("lo"), true, _) => product!(u64, u64, 0),
        ("mad" | "madc", Some("hi"), false, false) => product!(u32, u32, 32),
        ("mad" | "madc", Some("hi"), false, true) => product!(u32, i32, 32),
        ("mad" | "madc", Some("hi"), true, false) => product!(u64, u64, 64),
        ("mad" | "madc", Some("hi"), true, true) => product!(u64, i64, 64),
        _ => return Err(m.refuse()),
    };
    let (d, sources) = match o {
        [d, x, y] if !base.starts_with("mad") => (d, vec![(x, ty), (y, ty)]),
        [d, x, y, z] if base.starts_with("mad") => (d, vec![(x, ty), (y, ty), (z, ty)]),
        _ => return Err(b.syntax("number of operands")),
    };
    emit(b, alu, (d, ty), &sources, imm)
}

/// `dp4a.at.bt`, `dp2a.mode.at.bt`.
fn dot<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let (second, first) = (m.ty()?, m.ty()?);
    let high = m.one_of(&["lo", "hi"]);
    m.done()?;
    #[inline(always)]
    fn byte(v: u32, k: u32, signed: bool) -> i32 {
        let byte = v.to_le_bytes()[k as usize];
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    }
    #[inline(always)]
    fn dp4(x: u32, y: u32, z: u32, sx: bool, sy: bool) -> u32 {
        (0..4).fold(z, |sum, k| sum.wrapping_add(byte(x, k, sx).wrapping_mul(byte(y, k, sy)) as u32))
    }
    #[inline(always)]
    fn dp2(x: u32, y: u32, z: u32, sx: bool, sy: bool, from: u32) -> u32 {
        (0..2).fold(z, |sum, k| {
            let half = (x >> (16 * k)) as u16;
            let half = if sx { i32::from(half as i16) } else { i32::from(half) };
            sum.wrapping_add(half.wrapping_mul(byte(y, from + k, sy)) as u32)
        })
    }
    let signed = |ty: Ty| match ty {
        Ty::U32 => Some(false),
        Ty::S32 => Some(true),
        _ => None,
    };
    let (Some(sx), Some(sy)) = (signed(first), signed(second)) else { return Err(m.refuse()) };
    let alu: Alu = match (base, high) {
        ("dp4a", None) => {
            by_flags!(sx, sy, X, Y => alu3!(u32, u32, u32 => u32, |x, y, z| dp4(x, y, z, X, Y)))
        }
        ("dp2a", Some("lo")) => {
            by_flags!(sx, sy, X, Y => alu3!(u32, u32, u32 => u32, |x, y, z| dp2(x, y, z, X, Y, 0)))
        }
        ("dp2a", Some(_)) => {
            by_flags!(sx, sy, X, Y => alu3!(u32, u32, u32 => u32, |x, y, z| dp2(x, y, z, X, Y, 2)))
        }
        _ => return Err(m.refuse()),
    };
    exactly::<4>(b, o)?;
    emit_same(b, alu, Ty::U32, o)
}
