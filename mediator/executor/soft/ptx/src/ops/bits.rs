//! Logic, shifts and bit fields.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit, emit_same, exactly};
use crate::run::code::{Alu, NONE, Run};
use crate::types::Ty;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    match base {
        "lop3" => return lop3(b, m, o),
        "shf" => return shf(b, m, o),
        "prmt" => return prmt(b, m, o),
        "bmsk" | "szext" => return mask(b, base, m, o),
        _ => {}
    }
    let ty = m.ty()?;
    if ty == Ty::Pred {
        m.done()?;
        return logic_pred(b, base, m, o);
    }
    let shift_amount = m.flag("shiftamt");
    m.done()?;
    let bit_type = matches!(ty, Ty::B16 | Ty::B32 | Ty::B64);
    let alu: Option<Alu> = match base {
        "and" if bit_type => by_bits!(ty, T => alu2!(T, T => T, |x, y| x & y)),
        "or" if bit_type => by_bits!(ty, T => alu2!(T, T => T, |x, y| x | y)),
        "xor" if bit_type => by_bits!(ty, T => alu2!(T, T => T, |x, y| x ^ y)),
        "not" if bit_type => by_bits!(ty, T => alu1!(T => T, |x| !x)),
        "cnot" if bit_type => by_bits!(ty, T => alu1!(T => T, |x| T::from(x == 0))),
        "shl" if bit_type => {
            by_bits!(ty, T => alu2!(T, u32 => T, |x, n| if n < T::BITS { x << n } else { 0 }))
        }
        "shr" if bit_type => {
            by_bits!(ty, T => alu2!(T, u32 => T, |x, n| if n < T::BITS { x >> n } else { 0 }))
        }
        "shr" => match ty {
            Ty::U16 | Ty::U32 | Ty::U64 => {
                by_bits!(ty, T => alu2!(T, u32 => T, |x, n| if n < T::BITS { x >> n } else { 0 }))
            }
            _ => by_int!(ty, T => alu2!(T, u32 => T, |x, n| x >> n.min(T::BITS - 1))),
        },
        "popc" | "clz" if bit_type && ty != Ty::B16 => None,
        "brev" if ty == Ty::B32 => Some(alu1!(u32 => u32, |x| x.reverse_bits())),
        "brev" if ty == Ty::B64 => Some(alu1!(u64 => u64, |x| x.reverse_bits())),
        _ => None,
    };
    if let Some(alu) = alu {
        return match (base, o) {
            ("shl" | "shr", [d, x, n]) => emit(b, alu, (d, ty), &[(x, ty), (n, Ty::U32)], 0),
            ("not" | "cnot" | "brev", [_, _]) => emit_same(b, alu, ty, o),
            ("and" | "or" | "xor", [_, _, _]) => emit_same(b, alu, ty, o),
            _ => Err(b.syntax("number of operands")),
        };
    }
    match base {
        "popc" | "clz" | "bfind" => {
            let alu: Alu = match (base, ty, shift_amount) {
                ("popc", Ty::B32, false) => alu1!(u32 => u32, |x| x.count_ones()),
                ("popc", Ty::B64, false) => alu1!(u64 => u32, |x| x.count_ones()),
                ("clz", Ty::B32, false) => alu1!(u32 => u32, |x| x.leading_zeros()),
                ("clz", Ty::B64, false) => alu1!(u64 => u32, |x| x.leading_zeros()),
                ("bfind", Ty::U32, s) => {
                    by_flags!(s, false, S, _N => alu1!(u32 => u32, |x| find(x.into(), 32, S)))
                }
                ("bfind", Ty::S32, s) => {
                    by_flags!(s, false, S, _N => alu1!(i32 => u32, |x| find(((x ^ x >> 31) as u32).into(), 32, S)))
                }
                ("bfind", Ty::U64, s) => by_flags!(s, false, S, _N => alu1!(u64 => u32, |x| find(x, 64, S))),
                ("bfind", Ty::S64, s) => {
                    by_flags!(s, false, S, _N => alu1!(i64 => u32, |x| find((x ^ x >> 63) as u64, 64, S)))
                }
                _ => return Err(m.refuse()),
            };
            let [d, x] = exactly::<2>(b, o)?;
            emit(b, alu, (d, Ty::U32), &[(x, ty)], 0)
        }
        "bfe" => {
            let alu: Alu = match ty {
                Ty::U32 => {
                    alu3!(u32, u32, u32 => u32, |x, p, n| extract(x.into(), p & 255, n & 255, 32, false) as u32)
                }
                Ty::S32 => {
                    alu3!(i32, u32, u32 => u32, |x, p, n| extract(i64::from(x) as u64, p & 255, n & 255, 32, true) as u32)
                }
                // Positions and lengths above 255 are not cut, as hardware has it.
                Ty::U64 => {
                    alu3!(u64, u32, u32 => u64, |x, p, n| extract(x, p.min(255), n.min(255), 64, false))
                }
                Ty::S64 => {
                    alu3!(u64, u32, u32 => u64, |x, p, n| extract(x, p.min(255), n.min(255), 64, true))
                }
                _ => return Err(m.refuse()),
            };
            let [d, x, p, n] = exactly::<4>(b, o)?;
            emit(b, alu, (d, ty), &[(x, ty), (p, Ty::U32), (n, Ty::U32)], 0)
        }
        "bfi" => {
            // Four sources: the length is read by hand.
            let alu: Alu = match ty {
                Ty::B32 => alu_fn!(|f, i, m| {
                    for lane in crate::run::lanes::Lanes(m) {
                        let at = |r: usize| f.words::<u32>(i.r[r])[lane];
                        let v = insert(at(1).into(), at(2).into(), at(3) & 255, at(4) & 255, 32) as u32;
                        f.words_mut::<u32>(i.r[0])[lane] = v;
                    }
                }),
                Ty::B64 => alu_fn!(|f, i, m| {
                    for lane in crate::run::lanes::Lanes(m) {
                        let (x, y) = (f.words::<u64>(i.r[1])[lane], f.words::<u64>(i.r[2])[lane]);
                        let (p, n) =
                            (f.words::<u32>(i.r[3])[lane].min(255), f.words::<u32>(i.r[4])[lane].min(255));
                        f.words_mut::<u64>(i.r[0])[lane] = insert(x, y, p, n, 64);
                    }
                }),
                _ => return Err(m.refuse()),
            };
            let [d, x, y, p, n] = exactly::<5>(b, o)?;
            emit(b, alu, (d, ty), &[(x, ty), (y, ty), (p, Ty::U32), (n, Ty::U32)], 0)
        }
        _ => Err(m.refuse()),
    }
}

/// Position of the highest one, or the shift that brings it to the top.
#[inline(always)]
fn find(x: u64, bits: u32, shift: bool) -> u32 {
    if x == 0 {
        return u32::MAX;
    }
    let position = 63 - x.leading_zeros();
    if shift { bits - 1 - position } else { position }
}

/// `bfe`; a signed field gets the sign at its end, or the operand's where the field runs over.
#[inline(always)]
fn extract(x: u64, position: u32, len: u32, bits: u32, signed: bool) -> u64 {
    if len == 0 {
        return 0;
    }
    let top = (position + len - 1).min(bits - 1);
    let sign = signed && x >> top & 1 == 1;
    let width_mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let value = if position >= bits { 0 } else { (x & width_mask) >> position };
    // Bits of the field that lie inside the operand.
    let inside = if position >= bits { 0 } else { len.min(bits - position) };
    let mask = if inside >= 64 { u64::MAX } else { (1u64 << inside) - 1 };
    (value & mask) | if sign { !mask } else { 0 }
}

/// `bfi`: the low `len` bits of `x` into `y` at `position`.
#[inline(always)]
fn insert(x: u64, y: u64, position: u32, len: u32, bits: u32) -> u64 {
    if len == 0 || position >= bits {
        return y;
    }
    let inside = len.min(bits - position);
    let mask = (if inside >= 64 { u64::MAX } else { (1u64 << inside) - 1 }) << position;
    (y & !mask) | (x << position & mask)
}

/// Logic on predicates: `r0` result, `r1`, `r2` sources; `imm` bits 0 and 1 negate the sources.
fn logic_pred<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    macro_rules! logic {
        (|$x:ident, $y:ident| $e:expr) => {
            alu_fn!(|f, i, m| {
                let flip = |bit: u64| if i.imm & bit != 0 { u32::MAX } else { 0 };
                let ($x, $y) = (f.pred(i.r[1]) ^ flip(1), f.pred(i.r[2]) ^ flip(2));
                f.set_pred(i.r[0], m, $e)
            })
        };
    }
    let alu: Alu = match base {
        "and" => logic!(|x, y| x & y),
        "or" => logic!(|x, y| x | y),
        "xor" => logic!(|x, y| x ^ y),
        "not" => logic!(|x, _y| !x),
        _ => return Err(m.refuse()),
    };
    let (d, x, y) = match (base, o) {
        ("not", [d, x]) => (d, x, x),
        ("and" | "or" | "xor", [d, x, y]) => (d, x, y),
        _ => return Err(b.syntax("number of operands")),
    };
    let ((x, nx), (y, ny)) = (b.pred_source(x)?, b.pred_source(y)?);
    let d = b.pred(d)?;
    if d == NONE {
        return Ok(());
    }
    b.emit(Run::Alu(alu), &[d, x, y], u64::from(nx) | u64::from(ny) << 1)
}

fn lop3<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    m.done()?;
    let [d, x, y, z, Operand::Int(table)] = exactly::<5>(b, o)? else {
        return Err(b.syntax("the table of lop3 is no literal"));
    };
    if ty != Ty::B32 || *table > 255 {
        return Err(m.refuse());
    }
    #[inline(always)]
    fn term(table: u64, k: u32, v: u32) -> u32 {
        if table >> k & 1 == 1 { v } else { 0 }
    }
    let alu = alu_fn!(|f, i, m| {
        let t = i.imm;
        crate::run::lanes::ternary::<u32, u32, u32, u32>(f, i, m, |x, y, z| {
            term(t, 0, !x & !y & !z)
                | term(t, 1, !x & !y & z)
                | term(t, 2, !x & y & !z)
                | term(t, 3, !x & y & z)
                | term(t, 4, x & !y & !z)
                | term(t, 5, x & !y & z)
                | term(t, 6, x & y & !z)
                | term(t, 7, x & y & z)
        })
    });
    emit(b, alu, (d, ty), &[(x, ty), (y, ty), (z, ty)], *table)
}

fn shf<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let (side, bound) = (m.one_of(&["l", "r"]), m.one_of(&["clamp", "wrap"]));
    m.done()?;
    #[inline(always)]
    fn joined(low: u32, high: u32) -> u64 {
        u64::from(high) << 32 | u64::from(low)
    }
    let alu: Alu = match (ty, side, bound) {
        (Ty::B32, Some("l"), Some("wrap")) => {
            alu3!(u32, u32, u32 => u32, |x, y, n| (joined(x, y) << (n & 31) >> 32) as u32)
        }
        (Ty::B32, Some("l"), Some(_)) => {
            alu3!(u32, u32, u32 => u32, |x, y, n| (joined(x, y) << n.min(32) >> 32) as u32)
        }
        (Ty::B32, Some(_), Some("wrap")) => {
            alu3!(u32, u32, u32 => u32, |x, y, n| (joined(x, y) >> (n & 31)) as u32)
        }
        (Ty::B32, Some(_), Some(_)) => {
            alu3!(u32, u32, u32 => u32, |x, y, n| (joined(x, y) >> n.min(32)) as u32)
        }
        _ => return Err(m.refuse()),
    };
    exactly::<4>(b, o)?;
    emit_same(b, alu, ty, o)
}

fn prmt<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let mode = m.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
    let ty = m.ty()?;
    m.done()?;
    if ty != Ty::B32 {
        return Err(m.refuse());
    }
    /// Byte numbers (with the sign bit 3) that the special modes select for the low bits of the control.
    fn selection(mode: &str, control: u32) -> u32 {
        let k = control & 3;
        let pick = |at: fn(u32, u32) -> u32| (0..4).fold(0, |all, n| all | at(k, n) << (4 * n));
        match mode {
            "f4e" => pick(|k, n| k + n),
            "b4e" => pick(|k, n| (8 + k - n) & 7),
            "rc8" => pick(|k, _| k),
            "ecl" => pick(|k, n| n.max(k)),
            "ecr" => pick(|k, n| n.min(k)),
            _ => pick(|k, n| (k & 1) * 2 + (n & 1)),
        }
    }
    #[inline(always)]
    fn permute(x: u32, y: u32, control: u32) -> u32 {
        let bytes = u64::from(y) << 32 | u64::from(x);
        (0..4).fold(0, |all, n| {
            let select = control >> (4 * n) & 15;
            let byte = (bytes >> (8 * (select & 7))) as u8;
            let byte = if select & 8 != 0 { (byte as i8 >> 7) as u8 } else { byte };
            all | u32::from(byte) << (8 * n)
        })
    }
    let alu: Alu = match mode {
        None => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, z)),
        Some("f4e") => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, selection("f4e", z))),
        Some("b4e") => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, selection("b4e", z))),
        Some("rc8") => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, selection("rc8", z))),
        Some("ecl") => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, selection("ecl", z))),
        Some("ecr") => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, selection("ecr", z))),
        Some(_) => alu3!(u32, u32, u32 => u32, |x, y, z| permute(x, y, selection("rc16", z))),
    };
    exactly::<4>(b, o)?;
    emit_same(b, alu, ty, o)
}

/// `bmsk`, `szext`.
fn mask<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let clamp = m.one_of(&["clamp", "wrap"]);
    m.done()?;
    #[inline(always)]
    fn low_ones(n: u32) -> u32 {
        if n >= 32 { u32::MAX } else { (1 << n) - 1 }
    }
    let alu: Alu = match (base, ty, clamp) {
        ("bmsk", Ty::B32, Some("clamp")) => {
            alu2!(u32, u32 => u32, |p, n| if p >= 32 { 0 } else { low_ones(n) << p })
        }
        ("bmsk", Ty::B32, Some(_)) => alu2!(u32, u32 => u32, |p, n| low_ones(n & 31) << (p & 31)),
        ("szext", Ty::U32, Some("clamp")) => alu2!(u32, u32 => u32, |x, n| x & low_ones(n)),
        ("szext", Ty::U32, Some(_)) => alu2!(u32, u32 => u32, |x, n| x & low_ones(n & 31)),
        ("szext", Ty::S32, Some(bound)) => {
            let wrap = bound == "wrap";
            by_flags!(wrap, false, W, _N => alu2!(i32, u32 => i32, |x, n| {
                let n = if W { n & 31 } else { n };
                if n == 0 { 0 } else if n >= 32 { x } else { x << (32 - n) >> (32 - n) }
            }))
        }
        _ => return Err(m.refuse()),
    };
    let [d, x, n] = exactly::<3>(b, o)?;
    emit(b, alu, (d, ty), &[(x, ty), (n, Ty::U32)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        assert_eq!(extract(0xabcd_1234, 8, 8, 32, false), 0x12);
        assert_eq!(extract(0xffff_ffff_8000_0000, 28, 8, 32, true) as u32, 0xffff_fff8);
        assert_eq!(extract(0xffff_ffff_8000_0000, 40, 8, 32, true) as u32, 0xffff_ffff);
        assert_eq!(extract(0xf0, 4, 4, 64, true), u64::MAX);
        assert_eq!(insert(0x1ff, 0, 4, 8, 32), 0xff0);
        assert_eq!(insert(0x3, 0x1, 31, 8, 32), 0x8000_0001);
        assert_eq!(find(0, 32, false), u32::MAX);
        assert_eq!(find(0x10, 32, true), 27);
    }
}
