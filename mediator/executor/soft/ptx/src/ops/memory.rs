//! Loads, stores, atomics, copies.

use crate::build::{Builder, Operand, Variable};
use crate::error::LoadError;
use crate::ops::{Mods, exactly};
use crate::run::access::{atomic, copy_async, load, store};
use crate::run::code::{Access, NONE, Run};
use crate::run::memory::{SPACE_SHIFT, space};
use crate::run::round::{self, BF16, F16, Mode, bf16_value, f16_value};
use crate::types::Ty;

/// Modifiers that choose caches or hint at them: they change no result.
const HINTS: &[&str] = &[
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "nc",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::evict_normal",
    "L2::evict_first",
    "L2::evict_last",
];

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    match base {
        "ld" | "ldu" => ld(b, m, o),
        "st" => st(b, m, o),
        "cp" => cp(b, m, o),
        // Nothing is cached, and what is discarded may keep its value.
        "prefetch" | "prefetchu" | "discard" | "applypriority" => Ok(()),
        _ => atom(b, base == "red", m, o),
    }
}

/// Takes the modifiers of memory ordering: (acquire, release).
fn ordering(m: &mut Mods<'_>) -> (bool, bool) {
    let sem = m.one_of(&["weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"]);
    let _ = m.flag("mmio");
    let _ = m.one_of(&["cta", "gpu", "sys", "cluster"]);
    (matches!(sem, Some("acquire" | "acq_rel")), matches!(sem, Some("release" | "acq_rel")))
}

/// Takes the state space and hints.
fn place(m: &mut Mods<'_>) -> Option<&'static str> {
    while m.one_of(HINTS).is_some() {}
    Some(
        match m.one_of(&[
            "global",
            "shared",
            "shared::cta",
            "local",
            "const",
            "param",
            "param::entry",
            "param::func",
        ])? {
            "global" | "const" => "global",
            "local" => "local",
            "shared" | "shared::cta" => "shared",
            _ => "param",
        },
    )
}

/// The number of a space for an address of the instruction.
fn space_of(b: &Builder<'_, '_>, named: Option<&str>, variable: Option<Variable>) -> Result<u8, LoadError> {
    Ok(match (named, variable) {
        (Some("param"), Some(Variable::Local { param: true, .. })) => space::LOCAL,
        (Some("param"), Some(Variable::KernelParam(_))) => space::PARAM,
        (Some("param"), None) if b.kernel => space::PARAM,
        (Some("param"), None) => space::LOCAL,
        (Some("local"), Some(Variable::Local { param: false, .. }) | None) => space::LOCAL,
        (Some("global"), None) => space::GLOBAL,
        (Some("shared"), None) => space::SHARED,
        (None, None) => space::GENERIC,
        _ => return Err(b.syntax("the variable lies in another state space")),
    })
}

fn loader(ty: Ty, space: u8, n: usize) -> Option<Access> {
    macro_rules! spaces {
        ($t:ty, $n:expr) => {
            match space {
                space::GLOBAL => load::<$t, { space::GLOBAL }, $n> as Access,
                space::SHARED => load::<$t, { space::SHARED }, $n>,
                space::LOCAL => load::<$t, { space::LOCAL }, $n>,
                space::PARAM => load::<$t, { space::PARAM }, $n>,
                _ => load::<$t, { space::GENERIC }, $n>,
            }
        };
    }
    macro_rules! counts {
        ($t:ty) => {
            match n {
                1 => Some(spaces!($t, 1)),
                2 => Some(spaces!($t, 2)),
                4 => Some(spaces!($t, 4)),
                _ => None,
            }
        };
    }
    match (ty, ty.bytes()) {
        (Ty::S8, _) => counts!(i8),
        (Ty::S16, _) => counts!(i16),
        (_, 1) => counts!(u8),
        (_, 2) => counts!(u16),
        (_, 4) => counts!(u32),
        (_, 8) if n < 4 => counts!(u64),
        _ => None,
    }
}

fn storer(ty: Ty, space: u8, n: usize) -> Option<Access> {
    macro_rules! spaces {
        ($t:ty, $n:expr) => {
            match space {
                space::GLOBAL => store::<$t, { space::GLOBAL }, $n> as Access,
                space::SHARED => store::<$t, { space::SHARED }, $n>,
                space::LOCAL => store::<$t, { space::LOCAL }, $n>,
                _ => store::<$t, { space::GENERIC }, $n>,
            }
        };
    }
    macro_rules! counts {
        ($t:ty) => {
            match n {
                1 => Some(spaces!($t, 1)),
                2 => Some(spaces!($t, 2)),
                4 => Some(spaces!($t, 4)),
                _ => None,
            }
        };
    }
    match ty.bytes() {
        _ if space == space::PARAM => None,
        1 => counts!(u8),
        2 => counts!(u16),
        4 => counts!(u32),
        8 if n < 4 => counts!(u64),
        _ => None,
    }
}

/// The registers of a vector operand, or the one.
fn elements<'o, 'a>(m: &mut Mods<'a>, o: &'o Operand<'a>) -> Result<&'o [Operand<'a>], LoadError> {
    let n = match m.one_of(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    match o {
        Operand::Vector(parts) if parts.len() == n => Ok(parts),
        Operand::Vector(_) => Err(m.refuse()),
        _ if n == 1 => Ok(std::slice::from_ref(o)),
        _ => Err(m.refuse()),
    }
}

fn ld<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let (acquire, release) = ordering(m);
    let named = place(m);
    let [d, a] = exactly::<2>(b, o)?;
    let parts = elements(m, d)?;
    m.done()?;
    if release {
        return Err(m.refuse());
    }
    let address = b.address(a)?;
    let space = space_of(b, named, address.variable)?;
    let access = loader(ty, space, parts.len()).ok_or_else(|| m.refuse())?;
    let mut rows = [NONE; 6];
    let mut targets = Vec::with_capacity(parts.len());
    for (k, part) in parts.iter().enumerate() {
        let target = b.wide_target(part, ty)?;
        rows[k] = target.0;
        targets.push(target);
    }
    rows[4] = address.row;
    rows[5] = address.flags | b.slot();
    b.emit(Run::Access(access), &rows, address.offset)?;
    for target in targets {
        b.extend(target, ty)?;
    }
    if acquire {
        b.emit(Run::Fence, &[], 0)?;
    }
    Ok(())
}

fn st<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let (acquire, release) = ordering(m);
    let named = place(m);
    let [a, s] = exactly::<2>(b, o)?;
    let parts = elements(m, s)?;
    m.done()?;
    if acquire {
        return Err(m.refuse());
    }
    let address = b.address(a)?;
    let space = space_of(b, named, address.variable)?;
    let access = storer(ty, space, parts.len()).ok_or_else(|| m.refuse())?;
    let mut rows = [NONE; 6];
    for (k, part) in parts.iter().enumerate() {
        rows[k] = b.narrow_source(part, ty)?;
    }
    if release {
        b.emit(Run::Fence, &[], 0)?;
    }
    rows[4] = address.row;
    rows[5] = address.flags | b.slot();
    b.emit(Run::Access(access), &rows, address.offset)
}

macro_rules! rmw {
    ($t:ty, |$old:ident, $b:ident, $c:ident| $e:expr) => {
        rmw!($t, |$old, $b, $c, _global| $e)
    };
    ($t:ty, |$old:ident, $b:ident, $c:ident, $global:ident| $e:expr) => {{
        fn run(
            port: &mut crate::run::memory::Port<'_>,
            f: &mut crate::run::lanes::Frame,
            i: &crate::run::code::Ins,
            m: u32,
        ) -> Result<(), crate::error::Fault> {
            atomic::<$t>(port, f, i, m, |$old, $b, $c, $global| $e)
        }
        run as Access
    }};
}

/// Adds two 16-bit floats.
fn add_half(x: u16, y: u16) -> u16 {
    round::add(f16_value(x), f16_value(y), Mode::Nearest, &F16) as u16
}

fn add_brain(x: u16, y: u16) -> u16 {
    round::add(bf16_value(x), bf16_value(y), Mode::Nearest, &BF16) as u16
}

fn pair(x: u32, y: u32, op: fn(u16, u16) -> u16) -> u32 {
    u32::from(op(x as u16, y as u16)) | u32::from(op((x >> 16) as u16, (y >> 16) as u16)) << 16
}

fn modification(op: &str, ty: Ty, noftz: bool) -> Option<Access> {
    use Ty::{B16, B32, B64, BF16 as Brain, BF16x2, F16 as Half, F16x2, F32, F64, S32, S64, U32, U64};
    Some(match (op, ty, noftz) {
        ("exch", B32, false) => rmw!(u32, |_old, b, _c| b),
        ("exch", B64, false) => rmw!(u64, |_old, b, _c| b),
        ("cas", B16, false) => rmw!(u16, |old, b, c| if old == b { c } else { old }),
        ("cas", B32, false) => rmw!(u32, |old, b, c| if old == b { c } else { old }),
        ("cas", B64, false) => rmw!(u64, |old, b, c| if old == b { c } else { old }),
        ("and", B32, false) => rmw!(u32, |old, b, _c| old & b),
        ("and", B64, false) => rmw!(u64, |old, b, _c| old & b),
        ("or", B32, false) => rmw!(u32, |old, b, _c| old | b),
        ("or", B64, false) => rmw!(u64, |old, b, _c| old | b),
        ("xor", B32, false) => rmw!(u32, |old, b, _c| old ^ b),
        ("xor", B64, false) => rmw!(u64, |old, b, _c| old ^ b),
        ("add", U32 | S32, false) => rmw!(u32, |old, b, _c| old.wrapping_add(b)),
        ("add", U64 | S64, false) => rmw!(u64, |old, b, _c| old.wrapping_add(b)),
        // Global memory flushes subnormals, shared memory keeps them.
        ("add", F32, false) => rmw!(f32, |old, b, _c, global| {
            use super::float::{flush, result};
            if global {
                result::<true, false>(flush::<true>(old) + flush::<true>(b))
            } else {
                result::<false, false>(old + b)
            }
        }),
        ("add", F64, false) => rmw!(f64, |old, b, _c| old + b),
        ("add", Half, true) => rmw!(u16, |old, b, _c| add_half(old, b)),
        ("add", Brain, true) => rmw!(u16, |old, b, _c| add_brain(old, b)),
        ("add", F16x2, true) => rmw!(u32, |old, b, _c| pair(old, b, add_half)),
        ("add", BF16x2, true) => rmw!(u32, |old, b, _c| pair(old, b, add_brain)),
        ("inc", U32, false) => rmw!(u32, |old, b, _c| if old >= b { 0 } else { old + 1 }),
        ("dec", U32, false) => rmw!(u32, |old, b, _c| if old == 0 || old > b { b } else { old - 1 }),
        ("min", U32, false) => rmw!(u32, |old, b, _c| old.min(b)),
        ("min", S32, false) => rmw!(i32, |old, b, _c| old.min(b)),
        ("min", U64, false) => rmw!(u64, |old, b, _c| old.min(b)),
        ("min", S64, false) => rmw!(i64, |old, b, _c| old.min(b)),
        ("max", U32, false) => rmw!(u32, |old, b, _c| old.max(b)),
        ("max", S32, false) => rmw!(i32, |old, b, _c| old.max(b)),
        ("max", U64, false) => rmw!(u64, |old, b, _c| old.max(b)),
        ("max", S64, false) => rmw!(i64, |old, b, _c| old.max(b)),
        _ => return None,
    })
}

fn atom<'a>(
    b: &mut Builder<'a, '_>,
    red: bool,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let ty = m.ty()?;
    // The host atomics are sequentially consistent, which is as strong as any modifier asks for.
    let _ = ordering(m);
    let named = place(m);
    let noftz = m.flag("noftz");
    let op = m
        .one_of(&["exch", "cas", "and", "or", "xor", "add", "inc", "dec", "min", "max"])
        .ok_or_else(|| m.refuse())?;
    m.done()?;
    if !matches!(named, None | Some("global" | "shared")) || (red && matches!(op, "exch" | "cas")) {
        return Err(m.refuse());
    }
    let access = modification(op, ty, noftz).ok_or_else(|| m.refuse())?;
    let (d, a, x, y) = match (red, op, o) {
        (true, _, [a, x]) => (None, a, x, None),
        (false, "cas", [d, a, x, y]) => (Some(d), a, x, Some(y)),
        (false, _, [d, a, x]) if op != "cas" => (Some(d), a, x, None),
        _ => return Err(b.syntax("number of operands")),
    };
    let address = b.address(a)?;
    let space = space_of(b, named, address.variable)?;
    let x = b.source(x, ty)?;
    let y = y.map_or(Ok(NONE), |y| b.source(y, ty))?;
    let d = d.map_or(Ok(NONE), |d| b.target(d, ty))?;
    let flags = address.flags | u32::from(space) << SPACE_SHIFT | b.slot();
    b.emit(Run::Access(access), &[d, x, y, NONE, address.row, flags], address.offset)
}

/// `cp.async`: copies at once; the group instructions have nothing to wait for.
fn cp<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    if !m.flag("async") {
        return Err(m.refuse());
    }
    match m.one_of(&["commit_group", "wait_group", "wait_all"]) {
        Some(_) => return m.done(),
        None => while m.one_of(HINTS).is_some() {},
    }
    let to_shared = m.flag("shared") || m.flag("shared::cta");
    let from_global = m.flag("global");
    m.done()?;
    let (a, s, size, given) = match o {
        [a, s, Operand::Int(size)] => (a, s, *size, None),
        [a, s, Operand::Int(size), given] => (a, s, *size, Some(given)),
        _ => return Err(m.refuse()),
    };
    if !to_shared || !from_global || !matches!(size, 4 | 8 | 16) {
        return Err(m.refuse());
    }
    let to = b.address(a)?;
    let from = b.address(s)?;
    let offset = i32::try_from(from.offset as i64).map_err(|_| b.syntax("offset of the source"))?;
    if from.row == NONE || from.flags != crate::run::memory::WIDE || to.variable.is_some() {
        return Err(m.refuse());
    }
    // A predicate in this place would be the ignore-src form.
    let given = match given {
        Some(g) => b.source(g, Ty::U32)?,
        None => NONE,
    };
    let flags = to.flags | b.slot();
    b.emit(Run::Access(copy_async), &[from.row, given, size as u32, offset as u32, to.row, flags], to.offset)
}
