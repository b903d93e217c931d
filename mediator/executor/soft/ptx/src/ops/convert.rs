//! `cvt`: between integers and floats of every width.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit, exactly, float};
use crate::run::code::{Alu, NONE, Run};
use crate::run::round::{self, BF16, F16, F32, F64, Mode, bf16_value, f16_value};
use crate::types::Ty;

/// Low half of a 64-bit row.
pub(crate) fn low_word() -> Alu {
    alu1!(u64 => u32, |x| x as u32)
}

/// A 32-bit row to 64 bits, with its sign.
pub(crate) fn sign_extend() -> Alu {
    alu1!(i32 => i64, |x| i64::from(x))
}

/// A 32-bit row to 64 bits, with zeros.
pub(crate) fn zero_extend() -> Alu {
    alu1!(u32 => u64, |x| u64::from(x))
}

/// In `imm`, beside the mode in bits 0 and 1: `.ftz`, `.sat`, round to an integer, `.relu`.
const FTZ: u64 = 4;
const SAT: u64 = 8;
const INTEGRAL: u64 = 16;
const RELU: u64 = 32;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    if let Some(packed) = m.one_of(&["f16x2", "bf16x2"]) {
        return pack(b, m, packed, o);
    }
    if m.flag("tf32") {
        return tensor_float(b, m, o);
    }
    let (from, to) = (m.ty()?, m.ty()?);
    let (ftz, sat, relu) = (m.flag("ftz"), m.flag("sat"), m.flag("relu"));
    let integral = m.one_of(&["rni", "rzi", "rmi", "rpi"]).map(|w| match w {
        "rni" => Mode::Nearest,
        "rzi" => Mode::Zero,
        "rmi" => Mode::Down,
        _ => Mode::Up,
    });
    let mode = m.mode();
    m.done()?;
    let floating = |ty: Ty| ty.float() || matches!(ty, Ty::F16 | Ty::BF16);
    let integer = |ty: Ty| by_any_int!(ty, T => T::BITS).is_some();
    if !(floating(from) || integer(from)) || !(floating(to) || integer(to)) {
        return Err(m.refuse());
    }
    let imm = integral.or(mode).unwrap_or(Mode::Nearest).code()
        // To f16 it changes nothing: the operand is not flushed.
        | if ftz && !matches!(to, Ty::F16 | Ty::BF16) { FTZ } else { 0 }
        | if sat { SAT } else { 0 }
        | if relu { RELU } else { 0 }
        | if integral.is_some() { INTEGRAL } else { 0 };
    // What the instruction must and must not have.
    let fine = match (floating(from), floating(to)) {
        (false, false) => integral.is_none() && mode.is_none() && !ftz && !relu,
        (true, false) => integral.is_some() && mode.is_none() && !relu && (!ftz || from == Ty::F32),
        (false, true) => integral.is_none() && mode.is_some() && !relu && !ftz,
        (true, true) => {
            let narrower = to.bytes() < from.bytes();
            !(integral.is_some() && mode.is_some())
                && (!narrower || mode.is_some())
                && (narrower || mode.is_none())
                && (!relu || to.bytes() == 2)
                && (!ftz || from == Ty::F32 || to == Ty::F32)
                && (integral.is_none() || from == to)
        }
    };
    if !fine {
        return Err(m.refuse());
    }
    let alu = match (floating(from), floating(to)) {
        (false, false) => ints(from, to, sat),
        (false, true) => int_to_float(from, to),
        (true, false) => float_to_int(from, to),
        (true, true) => floats(from, to),
    }
    .ok_or_else(|| m.refuse())?;
    let [d, x] = exactly::<2>(b, o)?;
    // A register of 16 bits may hold an 8-bit operand; wider ones give their low bits.
    let x = b.narrow_source(x, from)?;
    let target = b.wide_target(d, to)?;
    if target.0 == NONE {
        return Ok(());
    }
    b.emit(Run::Alu(alu), &[target.0, x], imm)?;
    b.extend(target, to)
}

fn ints(from: Ty, to: Ty, sat: bool) -> Option<Alu> {
    if sat {
        return by_any_int!(from, S => by_any_int!(to, D => alu1!(S => D, |x| {
            (x as i128).clamp(D::MIN as i128, D::MAX as i128) as D
        }))?);
    }
    by_any_int!(from, S => by_any_int!(to, D => alu1!(S => D, |x| x as D))?)
}

macro_rules! with_imm {
    ($a:ty => $d:ty, |$x:ident, $imm:ident| $e:expr) => {
        alu_fn!(|f, i, m| {
            let $imm = i.imm;
            crate::run::lanes::unary::<$a, $d>(f, i, m, |$x| $e)
        })
    };
}

fn int_to_float(from: Ty, to: Ty) -> Option<Alu> {
    match to {
        Ty::F32 => by_any_int!(from, S => with_imm!(S => f32, |x, imm| {
            let v = match Mode::from_code(imm) {
                Mode::Nearest => x as f32,
                mode => f32::from_bits(round::from_int(x as i128, mode, &F32) as u32),
            };
            if imm & SAT != 0 { v.clamp(0.0, 1.0) } else { v }
        })),
        Ty::F64 => by_any_int!(from, S => with_imm!(S => f64, |x, imm| {
            let v = match Mode::from_code(imm) {
                Mode::Nearest => x as f64,
                mode => f64::from_bits(round::from_int(x as i128, mode, &F64)),
            };
            if imm & SAT != 0 { v.clamp(0.0, 1.0) } else { v }
        })),
        Ty::F16 => by_any_int!(from, S => with_imm!(S => u16, |x, imm| {
            let x = if imm & SAT != 0 { (x as i128).clamp(0, 1) } else { x as i128 };
            round::from_int(x, Mode::from_code(imm), &F16) as u16
        })),
        Ty::BF16 => by_any_int!(from, S => with_imm!(S => u16, |x, imm| {
            let x = if imm & SAT != 0 { (x as i128).clamp(0, 1) } else { x as i128 };
            round::from_int(x, Mode::from_code(imm), &BF16) as u16
        })),
        _ => None,
    }
}

#[inline(always)]
fn integral(v: f64, imm: u64) -> f64 {
    match Mode::from_code(imm) {
        Mode::Nearest => v.round_ties_even(),
        Mode::Zero => v.trunc(),
        Mode::Down => v.floor(),
        Mode::Up => v.ceil(),
    }
}

/// Out of range saturates; NaN gives 0, or where one side has 64 bits the value with the top bit alone.
fn float_to_int(from: Ty, to: Ty) -> Option<Alu> {
    macro_rules! convert {
        ($s:ty, $wide:expr, |$x:ident, $imm:ident| $value:expr) => {
            by_any_int!(to, D => with_imm!($s => D, |$x, $imm| {
                let v: f64 = $value;
                if v.is_nan() {
                    if $wide || D::BITS == 64 { (1 as D) << (D::BITS - 1) } else { 0 }
                } else {
                    integral(v, $imm) as D
                }
            }))
        };
    }
    match from {
        Ty::F32 => {
            convert!(f32, false, |x, imm| f64::from(if imm & FTZ != 0 { float::flush::<true>(x) } else { x }))
        }
        Ty::F64 => convert!(f64, true, |x, _imm| x),
        Ty::F16 => convert!(u16, false, |x, _imm| f16_value(x)),
        Ty::BF16 => convert!(u16, false, |x, _imm| bf16_value(x)),
        _ => None,
    }
}

/// The operand after `.ftz`, rounding to an integer, `.sat` and `.relu`, before rounding to the result's format.
#[inline(always)]
fn prepared(v: f64, imm: u64) -> f64 {
    let v = if imm & INTEGRAL != 0 { integral(v, imm) } else { v };
    if imm & SAT != 0 {
        return if v > 0.0 { v.min(1.0) } else { 0.0 };
    }
    if imm & RELU != 0 && v <= 0.0 { 0.0 } else { v }
}

/// The NaN of a narrower format that an f64 NaN becomes: sign and the top of the payload stay.
#[inline(always)]
fn narrow_nan(v: f64, width: u32, fraction: u32) -> u64 {
    let ones = |n: u32| (1u64 << n) - 1;
    let exponent = ones(width - 1) & !ones(fraction);
    let payload = (v.to_bits() >> (52 - fraction) & ones(fraction)) | 1 << (fraction - 1);
    u64::from(v.is_sign_negative()) << (width - 1) | exponent | payload
}

#[inline(always)]
fn read32(x: f32, imm: u64) -> f64 {
    f64::from(if imm & FTZ != 0 { float::result::<true, false>(x) } else { x })
}

/// A value to f32 in the mode of `imm`.
#[inline(always)]
fn to_single(v: f64, imm: u64) -> f32 {
    let mode = if imm & INTEGRAL != 0 { Mode::Nearest } else { Mode::from_code(imm) };
    let r = match mode {
        Mode::Nearest => v as f32,
        mode => f32::from_bits(round::convert(v, mode, &F32) as u32),
    };
    if imm & FTZ != 0 { float::result::<true, false>(r) } else { float::result::<false, false>(r) }
}

fn half_mode(imm: u64) -> Mode {
    if imm & INTEGRAL != 0 { Mode::Nearest } else { Mode::from_code(imm) }
}

fn floats(from: Ty, to: Ty) -> Option<Alu> {
    macro_rules! to_all {
        ($s:ty, |$x:ident, $imm:ident| $value:expr) => {
            match to {
                Ty::F32 if from == Ty::F64 => Some(with_imm!($s => f32, |$x, $imm| {
                    let v = prepared($value, $imm);
                    if v.is_nan() { f32::from_bits(narrow_nan(v, 32, 23) as u32) } else { to_single(v, $imm) }
                })),
                Ty::F16 if from == Ty::F64 => Some(with_imm!($s => u16, |$x, $imm| {
                    let v = prepared($value, $imm);
                    let bits = if v.is_nan() { narrow_nan(v, 16, 10) } else { round::convert(v, half_mode($imm), &F16) };
                    bits as u16
                })),
                Ty::F32 => Some(with_imm!($s => f32, |$x, $imm| to_single(prepared($value, $imm), $imm))),
                Ty::F64 => Some(with_imm!($s => f64, |$x, $imm| prepared($value, $imm))),
                Ty::F16 => Some(with_imm!($s => u16, |$x, $imm| {
                    round::convert(prepared($value, $imm), half_mode($imm), &F16) as u16
                })),
                Ty::BF16 => Some(with_imm!($s => u16, |$x, $imm| {
                    round::convert(prepared($value, $imm), half_mode($imm), &BF16) as u16
                })),
                _ => None,
            }
        };
    }
    match from {
        Ty::F32 => to_all!(f32, |x, imm| read32(x, imm)),
        Ty::F64 => to_all!(f64, |x, imm| x),
        Ty::F16 => to_all!(u16, |x, imm| f16_value(x)),
        Ty::BF16 => to_all!(u16, |x, imm| bf16_value(x)),
        _ => None,
    }
}

/// `cvt.f16x2.f32 d, a, b`: `a` in the high half.
fn pack<'a>(
    b: &mut Builder<'a, '_>,
    m: &mut Mods<'a>,
    packed: &str,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let from = m.ty()?;
    let relu = m.flag("relu");
    let mode = m.mode();
    m.done()?;
    let (Ty::F32, Some(mode @ (Mode::Nearest | Mode::Zero))) = (from, mode) else { return Err(m.refuse()) };
    macro_rules! packing {
        ($format:expr) => {
            alu_fn!(|f, i, m| crate::run::lanes::binary::<f32, f32, u32>(f, i, m, |x, y| {
                let half = |v: f32| {
                    let v = prepared(v.into(), i.imm);
                    round::convert(v, Mode::from_code(i.imm), &$format) as u32 & 0xffff
                };
                half(x) << 16 | half(y)
            }))
        };
    }
    let alu: Alu = if packed == "f16x2" { packing!(F16) } else { packing!(BF16) };
    let [d, x, y] = exactly::<3>(b, o)?;
    emit(b, alu, (d, Ty::B32), &[(x, from), (y, from)], mode.code() | if relu { RELU } else { 0 })
}

/// `cvt.rna.tf32.f32`: ten fraction bits, ties away from zero.
fn tensor_float<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let from = m.ty()?;
    if from != Ty::F32 || !m.flag("rna") {
        return Err(m.refuse());
    }
    m.done()?;
    let alu = alu1!(u32 => u32, |x| {
        // Infinities and NaNs are cut, finite values rounded.
        let half = if x & 0x7f80_0000 == 0x7f80_0000 { 0 } else { 0x1000 };
        x.wrapping_add(half) & !0x1fff
    });
    let [d, x] = exactly::<2>(b, o)?;
    emit(b, alu, (d, Ty::B32), &[(x, Ty::F32)], 0)
}
