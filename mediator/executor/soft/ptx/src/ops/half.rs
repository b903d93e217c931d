//! Arithmetic of f16 and bf16, single and in pairs. Exact in between, rounded once.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit_same};
use crate::run::code::Alu;
use crate::run::round::{self, BF16, F16, Format, Mode, bf16_value, f16_value};
use crate::types::Ty;

/// A 16-bit float format: how it is read and rounded.
trait Half {
    const FORMAT: Format;
    fn value(bits: u16) -> f64;
    /// Flushes a subnormal; bf16 has no `.ftz`.
    fn is_subnormal(bits: u16) -> bool;
    const ONE: u16;
}

struct Binary16;
struct Brain16;

impl Half for Binary16 {
    const FORMAT: Format = F16;
    const ONE: u16 = 0x3c00;
    fn value(bits: u16) -> f64 {
        f16_value(bits)
    }
    fn is_subnormal(bits: u16) -> bool {
        bits & 0x7c00 == 0
    }
}

impl Half for Brain16 {
    const FORMAT: Format = BF16;
    const ONE: u16 = 0x3f80;
    fn value(bits: u16) -> f64 {
        bf16_value(bits)
    }
    fn is_subnormal(bits: u16) -> bool {
        bits & 0x7f80 == 0
    }
}

/// In `imm`: `.ftz`, `.sat`, `.relu`.
const FTZ: u64 = 1;
const SAT: u64 = 2;
const RELU: u64 = 4;

fn operand<H: Half>(imm: u64, bits: u16) -> f64 {
    H::value(if imm & FTZ != 0 && H::is_subnormal(bits) { bits & 0x8000 } else { bits })
}

fn finish<H: Half>(imm: u64, bits: u64) -> u16 {
    let bits = bits as u16;
    let v = H::value(bits);
    if v.is_nan() && imm & SAT == 0 {
        return 0x7fff;
    }
    if imm & SAT != 0 {
        return if v > 1.0 {
            H::ONE
        } else if v > 0.0 {
            finish::<H>(imm & FTZ, bits.into())
        } else {
            0
        };
    }
    if imm & RELU != 0 && v <= 0.0 {
        return 0;
    }
    if imm & FTZ != 0 && H::is_subnormal(bits) { bits & 0x8000 } else { bits }
}

fn add<H: Half>(imm: u64, x: u16, y: u16) -> u16 {
    finish::<H>(imm, round::add(operand::<H>(imm, x), operand::<H>(imm, y), Mode::Nearest, &H::FORMAT))
}

fn sub<H: Half>(imm: u64, x: u16, y: u16) -> u16 {
    finish::<H>(imm, round::add(operand::<H>(imm, x), -operand::<H>(imm, y), Mode::Nearest, &H::FORMAT))
}

fn mul<H: Half>(imm: u64, x: u16, y: u16) -> u16 {
    finish::<H>(imm, round::mul(operand::<H>(imm, x), operand::<H>(imm, y), Mode::Nearest, &H::FORMAT))
}

fn fma<H: Half>(imm: u64, x: u16, y: u16, z: u16) -> u16 {
    let [x, y, z] = [x, y, z].map(|v| operand::<H>(imm, v));
    finish::<H>(imm, round::fma(x, y, z, Mode::Nearest, &H::FORMAT))
}

/// `smaller` chooses the minimum; a NaN loses, and two give the canonical one.
fn extreme<H: Half>(imm: u64, x: u16, y: u16, smaller: bool) -> u16 {
    let (a, b) = (operand::<H>(imm, x), operand::<H>(imm, y));
    let chosen = if a.is_nan() && b.is_nan() {
        f64::NAN
    } else if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else if a == b {
        if a.is_sign_negative() == smaller { a } else { b }
    } else if (a < b) == smaller {
        a
    } else {
        b
    };
    finish::<H>(imm, round::convert(chosen, Mode::Nearest, &H::FORMAT))
}

/// Applies an operation to both halves.
fn pair2(x: u32, y: u32, op: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(op(x as u16, y as u16)) | u32::from(op((x >> 16) as u16, (y >> 16) as u16)) << 16
}

fn pair3(x: u32, y: u32, z: u32, op: impl Fn(u16, u16, u16) -> u16) -> u32 {
    u32::from(op(x as u16, y as u16, z as u16))
        | u32::from(op((x >> 16) as u16, (y >> 16) as u16, (z >> 16) as u16)) << 16
}

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let nearest = m.flag("rn");
    let (ftz, sat, relu) = (m.flag("ftz"), m.flag("sat"), m.flag("relu"));
    m.done()?;
    let imm = if ftz { FTZ } else { 0 } | if sat { SAT } else { 0 } | if relu { RELU } else { 0 };
    let brain = matches!(ty, Ty::BF16 | Ty::BF16x2);
    // Which modifiers each instruction has.
    let fine = match base {
        "add" | "sub" | "mul" => !relu && !(brain && (ftz || sat)),
        "fma" => nearest && !(sat && relu) && !(brain && (ftz || sat)),
        "min" | "max" | "abs" | "neg" => !(sat || relu || nearest || brain && ftz),
        _ => false,
    };
    if !fine {
        return Err(m.refuse());
    }
    let alu: Alu = match ty {
        Ty::F16 => scalar::<Binary16>(base),
        Ty::BF16 => scalar::<Brain16>(base),
        Ty::F16x2 => packed::<Binary16>(base),
        _ => packed::<Brain16>(base),
    }
    .ok_or_else(|| m.refuse())?;
    let arity = match base {
        "abs" | "neg" => 2,
        "fma" => 4,
        _ => 3,
    };
    if o.len() != arity {
        return Err(b.syntax(format!("{} operands, {arity} are needed", o.len())));
    }
    let Some((d, sources)) = o.split_first() else { return Err(b.syntax("operands are missing")) };
    if imm == 0 {
        return emit_same(b, alu, ty, o);
    }
    let sources: Vec<_> = sources.iter().map(|s| (s, ty)).collect();
    super::emit(b, alu, (d, ty), &sources, imm)
}

fn scalar<H: Half + 'static>(base: &str) -> Option<Alu> {
    use crate::run::lanes::{binary, ternary, unary};
    Some(match base {
        "add" => |f, i, m| binary::<u16, u16, u16>(f, i, m, |x, y| add::<H>(i.imm, x, y)),
        "sub" => |f, i, m| binary::<u16, u16, u16>(f, i, m, |x, y| sub::<H>(i.imm, x, y)),
        "mul" => |f, i, m| binary::<u16, u16, u16>(f, i, m, |x, y| mul::<H>(i.imm, x, y)),
        "min" => |f, i, m| binary::<u16, u16, u16>(f, i, m, |x, y| extreme::<H>(i.imm, x, y, true)),
        "max" => |f, i, m| binary::<u16, u16, u16>(f, i, m, |x, y| extreme::<H>(i.imm, x, y, false)),
        "fma" => |f, i, m| ternary::<u16, u16, u16, u16>(f, i, m, |x, y, z| fma::<H>(i.imm, x, y, z)),
        "abs" => |f, i, m| unary::<u16, u16>(f, i, m, |x| finish::<H>(i.imm, (x & 0x7fff).into())),
        "neg" => |f, i, m| unary::<u16, u16>(f, i, m, |x| finish::<H>(i.imm, (x ^ 0x8000).into())),
        _ => return None,
    })
}

fn packed<H: Half + 'static>(base: &str) -> Option<Alu> {
    use crate::run::lanes::{binary, ternary, unary};
    Some(match base {
        "add" => |f, i, m| binary::<u32, u32, u32>(f, i, m, |x, y| pair2(x, y, |x, y| add::<H>(i.imm, x, y))),
        "sub" => |f, i, m| binary::<u32, u32, u32>(f, i, m, |x, y| pair2(x, y, |x, y| sub::<H>(i.imm, x, y))),
        "mul" => |f, i, m| binary::<u32, u32, u32>(f, i, m, |x, y| pair2(x, y, |x, y| mul::<H>(i.imm, x, y))),
        "min" => |f, i, m| {
            binary::<u32, u32, u32>(f, i, m, |x, y| pair2(x, y, |x, y| extreme::<H>(i.imm, x, y, true)));
        },
        "max" => |f, i, m| {
            binary::<u32, u32, u32>(f, i, m, |x, y| pair2(x, y, |x, y| extreme::<H>(i.imm, x, y, false)));
        },
        "fma" => |f, i, m| {
            ternary::<u32, u32, u32, u32>(f, i, m, |x, y, z| {
                pair3(x, y, z, |x, y, z| fma::<H>(i.imm, x, y, z))
            });
        },
        "abs" => |f, i, m| {
            unary::<u32, u32>(f, i, m, |x| pair2(x, x, |x, _| finish::<H>(i.imm, (x & 0x7fff).into())));
        },
        "neg" => |f, i, m| {
            unary::<u32, u32>(f, i, m, |x| pair2(x, x, |x, _| finish::<H>(i.imm, (x ^ 0x8000).into())));
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        assert_eq!(add::<Binary16>(0, 0x3c00, 0x3c00), 0x4000);
        assert_eq!(fma::<Binary16>(0, 0x4000, 0x4200, 0xbc00), 0x4500);
        assert_eq!(mul::<Binary16>(SAT, 0x4000, 0x4000), 0x3c00);
        assert_eq!(sub::<Binary16>(RELU, 0x3c00, 0x4000), 0);
        assert_eq!(mul::<Brain16>(0, 0x3fc0, 0x4000), 0x4040);
        assert_eq!(extreme::<Binary16>(0, 0x7e00, 0x3c00, true), 0x3c00);
        assert_eq!(pair2(0x3c00_4000, 0x3c00_3c00, |x, y| add::<Binary16>(0, x, y)), 0x4000_4200);
    }
}
