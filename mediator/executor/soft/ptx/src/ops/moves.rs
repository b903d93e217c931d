//! `mov`, and conversion of addresses between spaces.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit, exactly};
use crate::run::code::{Alu, NONE, Run};
use crate::run::lanes::compare;
use crate::run::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::types::Ty;

/// Low 32 bits of a generic address in a window.
const WINDOW_MASK: u64 = 0xffff_ffff;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let ty = match base {
        "isspacep" => return isspacep(b, m, o),
        _ => m.ty()?,
    };
    if base == "cvta" {
        return cvta(b, m, ty, o);
    }
    m.done()?;
    let [d, x] = exactly::<2>(b, o)?;
    if ty == Ty::Pred {
        let alu = alu_fn!(|f, i, m| {
            let v = f.pred(i.r[1]) ^ i.imm as u32;
            f.set_pred(i.r[0], m, v)
        });
        let (x, negated) = b.pred_source(x)?;
        let d = b.pred(d)?;
        return b.emit(Run::Alu(alu), &[d, x], if negated { u32::MAX.into() } else { 0 });
    }
    match (d, x) {
        (Operand::Vector(parts), x) => unpack(b, m, ty, parts, x),
        (d, Operand::Vector(parts)) => pack(b, m, ty, d, parts),
        _ => emit(b, copy(ty).ok_or_else(|| m.refuse())?, (d, ty), &[(x, ty)], 0),
    }
}

fn copy(ty: Ty) -> Option<Alu> {
    by_bits!(ty, T => alu1!(T => T, |x| x))
}

fn part_type(bytes: u32) -> Option<Ty> {
    match bytes {
        2 => Some(Ty::B16),
        4 => Some(Ty::B32),
        _ => None,
    }
}

/// `mov.b64 {a, b}, c`: the parts of `c`, lowest first.
fn unpack<'a>(
    b: &mut Builder<'a, '_>,
    m: &Mods<'a>,
    ty: Ty,
    parts: &[Operand<'a>],
    x: &Operand<'a>,
) -> Result<(), LoadError> {
    let bytes = ty.bytes().checked_div(parts.len() as u32).unwrap_or(0);
    let part = part_type(bytes).filter(|_| parts.len() > 1).ok_or_else(|| m.refuse())?;
    let alu: Alu = match (ty.bytes(), bytes) {
        (8, 4) => alu_fn!(|f, i, m| crate::run::lanes::unary::<u64, u32>(f, i, m, |x| (x >> i.imm) as u32)),
        (8, 2) => alu_fn!(|f, i, m| crate::run::lanes::unary::<u64, u16>(f, i, m, |x| (x >> i.imm) as u16)),
        (4, 2) => alu_fn!(|f, i, m| crate::run::lanes::unary::<u32, u16>(f, i, m, |x| (x >> i.imm) as u16)),
        _ => return Err(m.refuse()),
    };
    for (k, d) in (0u64..).zip(parts) {
        emit(b, alu, (d, part), &[(x, ty)], k * u64::from(bytes) * 8)?;
    }
    Ok(())
}

/// `mov.b64 c, {a, b}`.
fn pack<'a>(
    b: &mut Builder<'a, '_>,
    m: &Mods<'a>,
    ty: Ty,
    d: &Operand<'a>,
    parts: &[Operand<'a>],
) -> Result<(), LoadError> {
    let bytes = ty.bytes().checked_div(parts.len() as u32).unwrap_or(0);
    let part = part_type(bytes).ok_or_else(|| m.refuse())?;
    let sources: Vec<_> = parts.iter().map(|p| (p, part)).collect();
    let alu: Alu = match (bytes, parts.len()) {
        (4, 2) => alu2!(u32, u32 => u64, |x, y| u64::from(y) << 32 | u64::from(x)),
        (2, 2) => alu2!(u16, u16 => u32, |x, y| u32::from(y) << 16 | u32::from(x)),
        (2, 4) => alu_fn!(|f, i, m| {
            for lane in crate::run::lanes::Lanes(m) {
                let at = |r: usize| u64::from(f.words::<u32>(i.r[r])[lane] & 0xffff);
                let v = at(1) | at(2) << 16 | at(3) << 32 | at(4) << 48;
                f.words_mut::<u64>(i.r[0])[lane] = v;
            }
        }),
        _ => return Err(m.refuse()),
    };
    emit(b, alu, (d, ty), &sources, 0)
}

/// Where a space lies in the generic one; 0 for the spaces that are the same.
fn window(b: &Builder<'_, '_>, space: &str) -> u64 {
    match space {
        "shared" | "shared::cta" => SHARED_WINDOW,
        "local" => LOCAL_WINDOW,
        "param" | "param::entry" if b.kernel => PARAM_WINDOW,
        // Parameters of device functions lie in local memory.
        "param" => LOCAL_WINDOW,
        _ => 0,
    }
}

fn cvta<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, ty: Ty, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let back = m.flag("to");
    let space = m.one_of(&["global", "shared", "shared::cta", "local", "const", "param", "param::entry"]);
    m.done()?;
    let (Some(space), Ty::U64) = (space, ty) else { return Err(m.refuse()) };
    let base = window(b, space);
    let alu = if back {
        alu_fn!(|f, i, m| crate::run::lanes::unary::<u64, u64>(f, i, m, |x| x.wrapping_sub(i.imm)))
    } else {
        alu_fn!(|f, i, m| crate::run::lanes::unary::<u64, u64>(f, i, m, |x| x.wrapping_add(i.imm)))
    };
    let [d, x] = exactly::<2>(b, o)?;
    emit(b, alu, (d, ty), &[(x, ty)], base)
}

fn isspacep<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    // Constant variables lie in global memory here, so .const cannot be told apart and is refused.
    let space = m.one_of(&["global", "shared", "shared::cta", "local", "param", "param::entry"]);
    m.done()?;
    let space = space.ok_or_else(|| m.refuse())?;
    let inside = alu_fn!(|f, i, m| {
        let held = compare::<u64, u64>(f, i.r[1], i.r[1], |x, _| x & !WINDOW_MASK == i.imm);
        f.set_pred(i.r[0], m, held)
    });
    let global = alu_fn!(|f, i, m| {
        let held = compare::<u64, u64>(f, i.r[1], i.r[1], |x, _| {
            !matches!(x & !WINDOW_MASK, SHARED_WINDOW | LOCAL_WINDOW | PARAM_WINDOW)
        });
        f.set_pred(i.r[0], m, held)
    });
    let [p, x] = exactly::<2>(b, o)?;
    let (p, x) = (b.pred(p)?, b.source(x, Ty::U64)?);
    if p == NONE {
        return Ok(());
    }
    let base = window(b, space);
    b.emit(Run::Alu(if space == "global" { global } else { inside }), &[p, x], base)
}
