//! Arithmetic of f32 and f64.
//!
//! Rounding to nearest is the host's own. The other modes go through [`crate::run::round`]. Approximate instructions
//! are computed in the host's f64 (f32 for the divisions) and are closer to the true value than PTX asks for.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit, emit_same, exactly};
use crate::run::code::{Alu, NONE, Run};
use crate::run::lanes::compare;
use crate::run::round::{self, Mode};
use crate::types::Ty;

/// The NaN that f32 operations give.
const NAN32: u32 = 0x7fff_ffff;

/// `.ftz` on an operand: subnormals become zeros of their sign.
#[inline(always)]
pub(crate) fn flush<const FTZ: bool>(x: f32) -> f32 {
    if FTZ && x.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(x) } else { x }
}

/// The result of an f32 operation: `.ftz`, `.sat`, the one NaN.
#[inline(always)]
pub(crate) fn result<const FTZ: bool, const SAT: bool>(x: f32) -> f32 {
    let x = flush::<FTZ>(x);
    if SAT {
        // The comparison is false for NaN, which .sat turns into +0.
        if x > 0.0 { x.min(1.0) } else { 0.0 }
    } else {
        // On the bits: a compiler may take one NaN for another.
        let bits = x.to_bits();
        f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { NAN32 } else { bits })
    }
}

/// An f64 NaN as operations pass it on: quiet, payload and sign kept.
const QUIET64: u64 = 1 << 51;

/// The result of an f64 operation: of NaN operands the last one goes on.
#[inline(always)]
fn result64(r: f64, x: f64, y: f64) -> f64 {
    if !r.is_nan() {
        return r;
    }
    f64::from_bits(if y.is_nan() {
        y.to_bits() | QUIET64
    } else if x.is_nan() {
        x.to_bits() | QUIET64
    } else {
        0xfff8_0000_0000_0000
    })
}

/// Changes the sign bit; a NaN stays as it is.
#[inline(always)]
fn sign64(x: f64, bits: u64) -> f64 {
    if x.is_nan() { f64::from_bits(x.to_bits() | QUIET64) } else { f64::from_bits(bits) }
}

/// As `result`, flags at run time: `imm` bit 2 = `.ftz`, bit 3 = `.sat`.
#[inline(always)]
fn result_by(imm: u64, x: f32) -> f32 {
    let x = if imm & 4 != 0 { flush::<true>(x) } else { x };
    if imm & 8 != 0 { result::<false, true>(x) } else { result::<false, false>(x) }
}

/// An operand, flags at run time.
#[inline(always)]
fn operand_by(imm: u64, x: f32) -> f64 {
    f64::from(if imm & 4 != 0 { flush::<true>(x) } else { x })
}

/// Minimum as PTX has it: a NaN loses against a number, -0 is below +0.
#[inline(always)]
fn min32(x: f32, y: f32) -> f32 {
    if x.is_nan() || y < x || (x == y && y.is_sign_negative()) { y } else { x }
}

#[inline(always)]
fn max32(x: f32, y: f32) -> f32 {
    if x.is_nan() || y > x || (x == y && y.is_sign_positive()) { y } else { x }
}

#[inline(always)]
fn min64(x: f64, y: f64) -> f64 {
    if x.is_nan() || y < x || (x == y && y.is_sign_negative()) { y } else { x }
}

#[inline(always)]
fn max64(x: f64, y: f64) -> f64 {
    if x.is_nan() || y > x || (x == y && y.is_sign_positive()) { y } else { x }
}

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let (ftz, sat) = (m.flag("ftz"), m.flag("sat"));
    match base {
        "testp" => return testp(b, m, ty, o),
        "min" | "max" => return min_max(b, base, m, ty, ftz, o),
        _ => {}
    }
    let approximate = m.one_of(&["approx", "full"]);
    let mode = m.mode();
    m.done()?;
    if ty == Ty::F64 && (ftz && base != "rcp" && base != "rsqrt" || sat) {
        return Err(m.refuse());
    }
    let arity = match base {
        "add" | "sub" | "mul" | "div" | "copysign" => 3,
        "mad" | "fma" => 4,
        _ => 2,
    };
    if o.len() != arity {
        return Err(b.syntax(format!("{} operands, {arity} are needed", o.len())));
    }
    if let (Some(mode @ (Mode::Zero | Mode::Down | Mode::Up)), None) = (mode, approximate) {
        return directed(b, base, m, ty, mode, u64::from(ftz) << 2 | u64::from(sat) << 3, o);
    }
    let alu = match (ty, approximate) {
        (Ty::F32, None) => single(base, ftz, sat, mode.is_some()),
        (Ty::F64, None) => double(base, mode.is_some()),
        (Ty::F32, Some(how)) if mode.is_none() && !sat => approximate_single(base, ftz, how),
        (Ty::F64, Some("approx")) if mode.is_none() && ftz => approximate_double(base),
        _ => None,
    };
    emit_same(b, alu.ok_or_else(|| m.refuse())?, ty, o)
}

fn single(base: &str, ftz: bool, sat: bool, rounding: bool) -> Option<Alu> {
    Some(match base {
        "add" => {
            by_flags!(ftz, sat, F, S => alu2!(f32, f32 => f32, |x, y| result::<F, S>(flush::<F>(x) + flush::<F>(y))))
        }
        "sub" => {
            by_flags!(ftz, sat, F, S => alu2!(f32, f32 => f32, |x, y| result::<F, S>(flush::<F>(x) - flush::<F>(y))))
        }
        "mul" => {
            by_flags!(ftz, sat, F, S => alu2!(f32, f32 => f32, |x, y| result::<F, S>(flush::<F>(x) * flush::<F>(y))))
        }
        "fma" | "mad" if rounding => by_flags!(ftz, sat, F, S => alu3!(f32, f32, f32 => f32, |x, y, z| {
            result::<F, S>(flush::<F>(x).mul_add(flush::<F>(y), flush::<F>(z)))
        })),
        "div" if rounding && !sat => by_flags!(ftz, false, F, S => alu2!(f32, f32 => f32, |x, y| {
            result::<F, S>(flush::<F>(x) / flush::<F>(y))
        })),
        "rcp" if rounding && !sat => {
            by_flags!(ftz, false, F, S => alu1!(f32 => f32, |x| result::<F, S>(1.0 / flush::<F>(x))))
        }
        "sqrt" if rounding && !sat => {
            by_flags!(ftz, false, F, S => alu1!(f32 => f32, |x| result::<F, S>(flush::<F>(x).sqrt())))
        }
        "abs" if !rounding && !sat => {
            by_flags!(ftz, false, F, S => alu1!(f32 => f32, |x| result::<F, S>(flush::<F>(x).abs())))
        }
        "neg" if !rounding && !sat => {
            by_flags!(ftz, false, F, S => alu1!(f32 => f32, |x| result::<F, S>(-flush::<F>(x))))
        }
        // The sign of the first operand on the second.
        "copysign" if !rounding && !sat && !ftz => alu2!(f32, f32 => f32, |x, y| y.copysign(x)),
        _ => return None,
    })
}

fn double(base: &str, rounding: bool) -> Option<Alu> {
    Some(match base {
        "add" => alu2!(f64, f64 => f64, |x, y| result64(x + y, x, y)),
        "sub" => alu2!(f64, f64 => f64, |x, y| result64(x - y, x, y)),
        "mul" => alu2!(f64, f64 => f64, |x, y| result64(x * y, x, y)),
        "fma" | "mad" if rounding => alu3!(f64, f64, f64 => f64, |x, y, z| {
            let (first, second) = if y.is_nan() { (z, y) } else { (x, z) };
            result64(x.mul_add(y, z), first, second)
        }),
        "div" if rounding => alu2!(f64, f64 => f64, |x, y| x / y),
        "rcp" if rounding => alu1!(f64 => f64, |x| 1.0 / x),
        "sqrt" if rounding => alu1!(f64 => f64, |x| x.sqrt()),
        "abs" if !rounding => alu1!(f64 => f64, |x| sign64(x, x.to_bits() & !(1 << 63))),
        "neg" if !rounding => alu1!(f64 => f64, |x| sign64(x, x.to_bits() ^ 1 << 63)),
        "copysign" if !rounding => alu2!(f64, f64 => f64, |x, y| y.copysign(x)),
        _ => return None,
    })
}

fn approximate_single(base: &str, ftz: bool, how: &str) -> Option<Alu> {
    macro_rules! function {
        (|$x:ident| $e:expr) => {
            by_flags!(ftz, false, F, S => alu1!(f32 => f32, |v| {
                let $x = f64::from(flush::<F>(v));
                result::<F, S>($e as f32)
            }))
        };
    }
    if base == "div" && how == "approx" {
        // The reciprocal of a divisor above 2^126 is subnormal and taken as zero.
        return Some(by_flags!(ftz, false, F, S => alu2!(f32, f32 => f32, |x, y| {
            let (x, y) = (flush::<F>(x), flush::<F>(y));
            let huge = y.abs() > f32::from_bits(0x7e80_0000) && y.is_finite();
            result::<F, S>(if huge { x * 0.0f32.copysign(y) } else { x / y })
        })));
    }
    if base == "div" {
        return Some(by_flags!(ftz, false, F, S => alu2!(f32, f32 => f32, |x, y| {
            result::<F, S>(flush::<F>(x) / flush::<F>(y))
        })));
    }
    if how != "approx" {
        return None;
    }
    Some(match base {
        "rcp" => function!(|x| 1.0 / x),
        "sqrt" => function!(|x| x.sqrt()),
        "rsqrt" => function!(|x| 1.0 / x.sqrt()),
        "sin" => function!(|x| x.sin()),
        "cos" => function!(|x| x.cos()),
        "lg2" => function!(|x| x.log2()),
        "ex2" => function!(|x| x.exp2()),
        "tanh" if !ftz => function!(|x| x.tanh()),
        _ => return None,
    })
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64`: the low half of operand and result is zero.
fn approximate_double(base: &str) -> Option<Alu> {
    #[inline(always)]
    fn coarse(x: f64) -> f64 {
        let x = f64::from_bits(x.to_bits() & !0xffff_ffff);
        if x.abs() < f64::MIN_POSITIVE { 0.0f64.copysign(x) } else { x }
    }
    Some(match base {
        "rcp" => alu1!(f64 => f64, |x| coarse(1.0 / coarse(x))),
        "rsqrt" => alu1!(f64 => f64, |x| coarse(1.0 / coarse(x).sqrt())),
        _ => return None,
    })
}

/// `.rz`, `.rm`, `.rp`: `imm` holds the mode, `.ftz` and `.sat`.
fn directed<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &Mods<'a>,
    ty: Ty,
    mode: Mode,
    flags: u64,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    macro_rules! ops {
        ($unary:ident, $binary:ident, $ternary:ident) => {
            match base {
                "add" => $binary!(|x, y, mode| round::add(x, y, mode, &FORMAT)),
                "sub" => $binary!(|x, y, mode| round::add(x, if y.is_nan() { y } else { -y }, mode, &FORMAT)),
                "mul" => $binary!(|x, y, mode| round::mul(x, y, mode, &FORMAT)),
                "div" => $binary!(|x, y, mode| round::div(x, y, mode, &FORMAT)),
                "rcp" => $unary!(|x, mode| round::div(1.0, x, mode, &FORMAT)),
                "sqrt" => $unary!(|x, mode| round::sqrt(x, mode, &FORMAT)),
                "fma" | "mad" => $ternary!(|x, y, z, mode| round::fma(x, y, z, mode, &FORMAT)),
                _ => return Err(m.refuse()),
            }
        };
    }
    let alu: Alu = match ty {
        Ty::F32 => {
            const FORMAT: round::Format = round::F32;
            macro_rules! unary32 {
                (|$x:ident, $mode:ident| $e:expr) => {
                    alu_fn!(|f, i, m| crate::run::lanes::unary::<f32, f32>(f, i, m, |x| {
                        let ($x, $mode) = (operand_by(i.imm, x), Mode::from_code(i.imm));
                        result_by(i.imm, f32::from_bits($e as u32))
                    }))
                };
            }
            macro_rules! binary32 {
                (|$x:ident, $y:ident, $mode:ident| $e:expr) => {
                    alu_fn!(|f, i, m| crate::run::lanes::binary::<f32, f32, f32>(f, i, m, |x, y| {
                        let ($x, $y, $mode) =
                            (operand_by(i.imm, x), operand_by(i.imm, y), Mode::from_code(i.imm));
                        result_by(i.imm, f32::from_bits($e as u32))
                    }))
                };
            }
            macro_rules! ternary32 {
                (|$x:ident, $y:ident, $z:ident, $mode:ident| $e:expr) => {
                    alu_fn!(|f, i, m| crate::run::lanes::ternary::<f32, f32, f32, f32>(f, i, m, |x, y, z| {
                        let ($x, $y, $z) = (operand_by(i.imm, x), operand_by(i.imm, y), operand_by(i.imm, z));
                        let $mode = Mode::from_code(i.imm);
                        result_by(i.imm, f32::from_bits($e as u32))
                    }))
                };
            }
            ops!(unary32, binary32, ternary32)
        }
        _ => {
            const FORMAT: round::Format = round::F64;
            macro_rules! unary64 {
                (|$x:ident, $mode:ident| $e:expr) => {
                    alu_fn!(|f, i, m| crate::run::lanes::unary::<f64, u64>(f, i, m, |$x| {
                        let $mode = Mode::from_code(i.imm);
                        $e
                    }))
                };
            }
            macro_rules! binary64 {
                (|$x:ident, $y:ident, $mode:ident| $e:expr) => {
                    alu_fn!(|f, i, m| crate::run::lanes::binary::<f64, f64, u64>(f, i, m, |$x, $y| {
                        let $mode = Mode::from_code(i.imm);
                        $e
                    }))
                };
            }
            macro_rules! ternary64 {
                (|$x:ident, $y:ident, $z:ident, $mode:ident| $e:expr) => {
                    alu_fn!(|f, i, m| crate::run::lanes::ternary::<f64, f64, f64, u64>(
                        f,
                        i,
                        m,
                        |$x, $y, $z| {
                            let $mode = Mode::from_code(i.imm);
                            $e
                        }
                    ))
                };
            }
            ops!(unary64, binary64, ternary64)
        }
    };
    let Some((d, sources)) = o.split_first() else { return Err(b.syntax("operands are missing")) };
    let sources: Vec<_> = sources.iter().map(|s| (s, ty)).collect();
    emit(b, alu, (d, ty), &sources, mode.code() | flags)
}

fn min_max<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    ty: Ty,
    ftz: bool,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let nan = m.flag("NaN");
    m.done()?;
    macro_rules! extreme {
        ($op:path) => {
            by_flags!(ftz, nan, F, N => alu2!(f32, f32 => f32, |x, y| {
                let (x, y) = (flush::<F>(x), flush::<F>(y));
                result::<F, false>(if N && (x.is_nan() || y.is_nan()) { f32::NAN } else { $op(x, y) })
            }))
        };
    }
    let alu: Alu = match (base, ty) {
        ("min", Ty::F32) => extreme!(min32),
        ("max", Ty::F32) => extreme!(max32),
        ("min", Ty::F64) if !nan && !ftz => alu2!(f64, f64 => f64, |x, y| result64(min64(x, y), x, y)),
        ("max", Ty::F64) if !nan && !ftz => alu2!(f64, f64 => f64, |x, y| result64(max64(x, y), x, y)),
        _ => return Err(m.refuse()),
    };
    exactly::<3>(b, o)?;
    emit_same(b, alu, ty, o)
}

fn testp<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, ty: Ty, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let kind = m.one_of(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"]);
    m.done()?;
    macro_rules! test {
        ($t:ty, |$x:ident| $e:expr) => {
            alu_fn!(|f, i, m| {
                let held = compare::<$t, $t>(f, i.r[1], i.r[1], |$x, _| $e);
                f.set_pred(i.r[0], m, held)
            })
        };
    }
    macro_rules! kinds {
        ($t:ty) => {
            match kind {
                Some("finite") => test!($t, |x| x.is_finite()),
                Some("infinite") => test!($t, |x| x.is_infinite()),
                Some("number") => test!($t, |x| !x.is_nan()),
                Some("notanumber") => test!($t, |x| x.is_nan()),
                // Hardware counts zeros in.
                Some("normal") => test!($t, |x| x.is_normal() || x == 0.0),
                Some("subnormal") => test!($t, |x| x.is_subnormal()),
                _ => return Err(m.refuse()),
            }
        };
    }
    let alu: Alu = if ty == Ty::F32 { kinds!(f32) } else { kinds!(f64) };
    let [p, x] = exactly::<2>(b, o)?;
    let (p, x) = (b.pred(p)?, b.source(x, ty)?);
    if p == NONE {
        return Ok(());
    }
    b.emit(Run::Alu(alu), &[p, x], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minima_and_saturation() {
        assert_eq!(min32(f32::NAN, 1.0), 1.0);
        assert_eq!(min32(1.0, f32::NAN), 1.0);
        assert_eq!(min32(0.0, -0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(max32(-0.0, 0.0).to_bits(), 0);
        assert_eq!(result::<false, true>(f32::NAN).to_bits(), 0);
        assert_eq!(result::<false, true>(7.0), 1.0);
        assert_eq!(result::<false, false>(f32::NAN).to_bits(), NAN32);
        assert_eq!(result::<true, false>(-1e-40).to_bits(), (-0.0f32).to_bits());
    }
}
