//! Comparison and selection.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, emit, exactly};
use crate::run::code::{Alu, Ins, NONE, Run};
use crate::run::lanes::{Frame, compare};
use crate::run::round::{bf16_value, f16_value};
use crate::types::Ty;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    match base {
        "setp" => {
            let (alu, ty, combine) = comparison(m)?;
            m.done()?;
            let (p, q) = match o.first() {
                Some(Operand::Pair(p, q)) => (b.pred(p)?, b.pred(q)?),
                Some(p) => (b.pred(p)?, NONE),
                None => return Err(b.syntax("operands are missing")),
            };
            setp(b, alu, ty, combine, (p, q), &o[1..])
        }
        "set" => set(b, m, o),
        "selp" => {
            let ty = m.ty()?;
            m.done()?;
            let [d, x, y, p] = exactly::<4>(b, o)?;
            let alu: Alu = match ty.bytes() {
                2 | 4 => alu_fn!(|f, i, m| {
                    let p = f.pred(i.r[3]) ^ i.imm as u32;
                    select::<u32>(f, i, m, p)
                }),
                8 => alu_fn!(|f, i, m| {
                    let p = f.pred(i.r[3]) ^ i.imm as u32;
                    select::<u64>(f, i, m, p)
                }),
                _ => return Err(m.refuse()),
            };
            let (x, y) = (b.source(x, ty)?, b.source(y, ty)?);
            let (p, negated) = b.pred_source(p)?;
            let d = b.target(d, ty)?;
            b.emit(Run::Alu(alu), &[d, x, y, p], if negated { u32::MAX.into() } else { 0 })
        }
        _ => slct(b, m, o),
    }
}

/// `r0 = p ? r1 : r2`.
#[inline(always)]
fn select<T: crate::run::lanes::Word>(f: &mut Frame, i: &Ins, mask: u32, p: u32) {
    let (x, y) = (*f.words::<T>(i.r[1]), *f.words::<T>(i.r[2]));
    let d = f.words_mut::<T>(i.r[0]);
    for lane in 0..32 {
        if mask >> lane & 1 == 1 {
            d[lane] = if p >> lane & 1 == 1 { x[lane] } else { y[lane] };
        }
    }
}

/// Gives `setp` its results: `r0` and `r3` predicates, `r4` the predicate to combine with.
#[inline(always)]
fn store_pred(f: &mut Frame, i: &Ins, mask: u32, held: u32) {
    let (mut p, mut q) = (held, !held);
    if i.imm & 3 != 0 {
        let c = f.pred(i.r[4]) ^ if i.imm & 4 != 0 { u32::MAX } else { 0 };
        let join = |v: u32| match i.imm & 3 {
            1 => v & c,
            2 => v | c,
            _ => v ^ c,
        };
        (p, q) = (join(p), join(q));
    }
    if i.r[0] != NONE {
        f.set_pred(i.r[0], mask, p);
    }
    if i.r[3] != NONE {
        f.set_pred(i.r[3], mask, q);
    }
}

fn setp<'a>(
    b: &mut Builder<'a, '_>,
    alu: Alu,
    ty: Ty,
    combine: u64,
    (p, q): (u32, u32),
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let (x, y) = match (combine, o) {
        (0, [x, y]) => (x, y),
        (1..=3, [x, y, _]) => (x, y),
        _ => return Err(b.syntax("number of operands")),
    };
    let rows = (b.source(x, ty)?, b.source(y, ty)?);
    let (c, negated) = if combine == 0 { (NONE, false) } else { b.pred_source(&o[2])? };
    b.emit(Run::Alu(alu), &[p, rows.0, rows.1, q, c], combine | u64::from(negated) << 2)
}

/// Takes comparison, combination, `.ftz` and type.
fn comparison(m: &mut Mods<'_>) -> Result<(Alu, Ty, u64), LoadError> {
    let ty = m.ty()?;
    let ftz = m.flag("ftz");
    let combine = match m.one_of(&["and", "or", "xor"]) {
        None => 0,
        Some("and") => 1,
        Some("or") => 2,
        Some(_) => 3,
    };
    let op = m.one_of(&[
        "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
        "num", "nan",
    ]);
    let alu = match ty {
        Ty::B16 | Ty::B32 | Ty::B64 => equality(op, ty),
        Ty::F32 | Ty::F64 | Ty::F16 | Ty::BF16 => floats(op, ty, ftz),
        _ if ftz => None,
        _ => integers(op, ty),
    };
    Ok((alu.ok_or_else(|| m.refuse())?, ty, combine))
}

macro_rules! comparing {
    ($t:ty, |$x:ident, $y:ident| $e:expr) => {
        alu_fn!(|f, i, m| {
            let held = compare::<$t, $t>(f, i.r[1], i.r[2], |$x, $y| $e);
            store_pred(f, i, m, held)
        })
    };
}

fn equality(op: Option<&str>, ty: Ty) -> Option<Alu> {
    match op? {
        "eq" => by_bits!(ty, T => comparing!(T, |x, y| x == y)),
        "ne" => by_bits!(ty, T => comparing!(T, |x, y| x != y)),
        _ => None,
    }
}

fn integers(op: Option<&str>, ty: Ty) -> Option<Alu> {
    let op = match (op?, ty.signed()) {
        ("lo", false) => "lt",
        ("ls", false) => "le",
        ("hi", false) => "gt",
        ("hs", false) => "ge",
        (op, _) => op,
    };
    match op {
        "eq" => by_int!(ty, T => comparing!(T, |x, y| x == y)),
        "ne" => by_int!(ty, T => comparing!(T, |x, y| x != y)),
        "lt" => by_int!(ty, T => comparing!(T, |x, y| x < y)),
        "le" => by_int!(ty, T => comparing!(T, |x, y| x <= y)),
        "gt" => by_int!(ty, T => comparing!(T, |x, y| x > y)),
        "ge" => by_int!(ty, T => comparing!(T, |x, y| x >= y)),
        _ => None,
    }
}

macro_rules! comparing_floats {
    ($op:expr, $t:ty, $read:expr) => {
        match $op {
            "eq" => Some(comparing!($t, |x, y| $read(x) == $read(y))),
            "ne" => Some(comparing!($t, |x, y| $read(x) < $read(y) || $read(x) > $read(y))),
            "lt" => Some(comparing!($t, |x, y| $read(x) < $read(y))),
            "le" => Some(comparing!($t, |x, y| $read(x) <= $read(y))),
            "gt" => Some(comparing!($t, |x, y| $read(x) > $read(y))),
            "ge" => Some(comparing!($t, |x, y| $read(x) >= $read(y))),
            "equ" => Some(comparing!($t, |x, y| !($read(x) < $read(y) || $read(x) > $read(y)))),
            "neu" => Some(comparing!($t, |x, y| $read(x) != $read(y))),
            "ltu" => Some(comparing!($t, |x, y| !($read(x) >= $read(y)))),
            "leu" => Some(comparing!($t, |x, y| !($read(x) > $read(y)))),
            "gtu" => Some(comparing!($t, |x, y| !($read(x) <= $read(y)))),
            "geu" => Some(comparing!($t, |x, y| !($read(x) < $read(y)))),
            "num" => Some(comparing!($t, |x, y| !$read(x).is_nan() && !$read(y).is_nan())),
            "nan" => Some(comparing!($t, |x, y| $read(x).is_nan() || $read(y).is_nan())),
            _ => None,
        }
    };
}

/// The value itself.
#[inline(always)]
fn same<T>(x: T) -> T {
    x
}

/// Unordered comparisons are true where a NaN takes part, which the negations give.
#[allow(clippy::nonminimal_bool, clippy::neg_cmp_op_on_partial_ord)]
fn floats(op: Option<&str>, ty: Ty, ftz: bool) -> Option<Alu> {
    match (ty, ftz) {
        (Ty::F32, false) => comparing_floats!(op?, f32, same),
        (Ty::F32, true) => comparing_floats!(op?, f32, super::float::flush::<true>),
        (Ty::F64, false) => comparing_floats!(op?, f64, same),
        (Ty::F16, false) => comparing_floats!(op?, u16, f16_value),
        (Ty::BF16, false) => comparing_floats!(op?, u16, bf16_value),
        _ => None,
    }
}

/// `set`: all ones (or 1.0) where the comparison holds.
fn set<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let (alu, ty, combine) = comparison(m)?;
    let dty = m.ty()?;
    m.done()?;
    let Some((d, sources)) = o.split_first() else { return Err(b.syntax("operands are missing")) };
    let held = match dty {
        Ty::U32 | Ty::S32 => Operand::Int(u64::MAX),
        Ty::F32 => Operand::Single(1.0f32.to_bits()),
        _ => return Err(m.refuse()),
    };
    let not_held = if dty == Ty::F32 { Operand::Single(0) } else { Operand::Int(0) };
    let p = b.new_pred()?;
    setp(b, alu, ty, combine, (p, NONE), sources)?;
    let choose = alu_fn!(|f, i, m| {
        let p = f.pred(i.r[3]);
        select::<u32>(f, i, m, p)
    });
    let (x, y, d) = (b.source(&held, dty)?, b.source(&not_held, dty)?, b.target(d, dty)?);
    b.emit(Run::Alu(choose), &[d, x, y, p], 0)
}

/// `slct.dtype.ctype d, a, b, c`: `a` where `c >= 0`.
fn slct<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let (cty, dty) = (m.ty()?, m.ty()?);
    let ftz = m.flag("ftz");
    m.done()?;
    let alu = match (cty, ftz) {
        (Ty::S32, false) => by_bits!(dty, T => alu3!(T, T, i32 => T, |x, y, c| if c >= 0 { x } else { y })),
        (Ty::F32, true) => by_bits!(dty, T => alu3!(T, T, f32 => T, |x, y, c| {
            if super::float::flush::<true>(c) >= 0.0 { x } else { y }
        })),
        (Ty::F32, false) => by_bits!(dty, T => alu3!(T, T, f32 => T, |x, y, c| if c >= 0.0 { x } else { y })),
        _ => None,
    };
    let [d, x, y, c] = exactly::<4>(b, o)?;
    emit(b, alu.ok_or_else(|| m.refuse())?, (d, dty), &[(x, dty), (y, dty), (c, cty)], 0)
}
