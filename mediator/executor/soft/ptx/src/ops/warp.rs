//! Barriers, fences and operations across the lanes of a warp.

use crate::build::{Builder, Operand};
use crate::error::LoadError;
use crate::ops::{Mods, exactly};
use crate::run::code::{Barrier, Dynamic, NONE, Reduce, Run, Shuffle, Together, Vote};
use crate::types::Ty;

pub(crate) fn lower<'a>(
    b: &mut Builder<'a, '_>,
    base: &str,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    match base {
        "shfl" => shuffle(b, m, o),
        "vote" => vote(b, m, o),
        "match" => matching(b, m, o),
        "redux" => reduce(b, m, o),
        "activemask" => {
            let ty = m.ty()?;
            m.done()?;
            let [d] = exactly::<1>(b, o)?;
            if ty != Ty::B32 {
                return Err(m.refuse());
            }
            let d = b.target(d, ty)?;
            if d == NONE {
                return Ok(());
            }
            b.emit(Run::Read(Dynamic::ActiveMask), &[d], 0)
        }
        "bar" | "barrier" => barrier(b, base == "barrier", m, o),
        "membar" => {
            let level = m.one_of(&["cta", "gl", "sys"]);
            m.done()?;
            if level.is_none() {
                return Err(m.refuse());
            }
            b.emit(Run::Fence, &[], 0)
        }
        "fence" => {
            let _ = m.one_of(&["sc", "acq_rel", "acquire", "release"]);
            let scope = m.one_of(&["cta", "gpu", "sys"]);
            m.done()?;
            if scope.is_none() {
                return Err(m.refuse());
            }
            b.emit(Run::Fence, &[], 0)
        }
        "nanosleep" => {
            let ty = m.ty()?;
            m.done()?;
            let [t] = exactly::<1>(b, o)?;
            if ty != Ty::U32 {
                return Err(m.refuse());
            }
            b.source(t, ty)?;
            b.emit(Run::Pause, &[], 0)
        }
        _ => Err(m.refuse()),
    }
}

/// The destination and its predicate: `d` or `d|p`.
fn pair<'a>(b: &mut Builder<'a, '_>, o: &Operand<'a>, ty: Ty) -> Result<(u32, u32), LoadError> {
    match o {
        Operand::Pair(d, p) => Ok((b.target(d, ty)?, b.pred(p)?)),
        d => Ok((b.target(d, ty)?, NONE)),
    }
}

fn shuffle<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let sync = m.flag("sync");
    let mode = match m.one_of(&["up", "down", "bfly", "idx"]) {
        Some("up") => Shuffle::Up,
        Some("down") => Shuffle::Down,
        Some("bfly") => Shuffle::Butterfly,
        Some(_) => Shuffle::Index,
        None => return Err(m.refuse()),
    };
    m.done()?;
    if ty != Ty::B32 {
        return Err(m.refuse());
    }
    let (d, x, y, z, mask) = match (sync, o) {
        (true, [d, x, y, z, mask]) => (d, x, y, z, Some(mask)),
        (false, [d, x, y, z]) => (d, x, y, z, None),
        _ => return Err(b.syntax("number of operands")),
    };
    let (x, y, z) = (b.source(x, ty)?, b.source(y, ty)?, b.source(z, ty)?);
    let mask = mask.map_or(Ok(NONE), |k| b.source(k, ty))?;
    let (d, p) = pair(b, d, ty)?;
    b.emit(Run::Together(Together::Shuffle(mode)), &[d, p, x, y, z, mask], 0)
}

fn vote<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let sync = m.flag("sync");
    let kind = match (m.one_of(&["all", "any", "uni", "ballot"]), ty) {
        (Some("all"), Ty::Pred) => Vote::All,
        (Some("any"), Ty::Pred) => Vote::Any,
        (Some("uni"), Ty::Pred) => Vote::Uniform,
        (Some("ballot"), Ty::B32) => Vote::Ballot,
        _ => return Err(m.refuse()),
    };
    m.done()?;
    let (d, q, mask) = match (sync, o) {
        (true, [d, q, mask]) => (d, q, b.source(mask, Ty::B32)?),
        (false, [d, q]) => (d, q, NONE),
        _ => return Err(b.syntax("number of operands")),
    };
    let (q, negated) = b.pred_source(q)?;
    let (d, p) = if kind == Vote::Ballot { (b.target(d, ty)?, NONE) } else { (NONE, b.pred(d)?) };
    b.emit(Run::Together(Together::Vote(kind)), &[d, p, q, NONE, NONE, mask], negated.into())
}

fn matching<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let (sync, all) = (m.flag("sync"), m.one_of(&["any", "all"]));
    m.done()?;
    let (true, Some(all), Ty::B32 | Ty::B64) = (sync, all, ty) else { return Err(m.refuse()) };
    let all = all == "all";
    let [d, x, mask] = exactly::<3>(b, o)?;
    let (x, mask) = (b.source(x, ty)?, b.source(mask, Ty::B32)?);
    let (d, p) = pair(b, d, Ty::B32)?;
    b.emit(Run::Together(Together::Match { all, wide: ty.wide() }), &[d, p, x, NONE, NONE, mask], 0)
}

fn reduce<'a>(b: &mut Builder<'a, '_>, m: &mut Mods<'a>, o: &[Operand<'a>]) -> Result<(), LoadError> {
    let ty = m.ty()?;
    let sync = m.flag("sync");
    let op = match (m.one_of(&["add", "min", "max", "and", "or", "xor"]), ty) {
        (Some("add"), Ty::U32 | Ty::S32) => Reduce::Add,
        (Some("min"), Ty::U32) => Reduce::MinU,
        (Some("max"), Ty::U32) => Reduce::MaxU,
        (Some("min"), Ty::S32) => Reduce::MinS,
        (Some("max"), Ty::S32) => Reduce::MaxS,
        (Some("and"), Ty::B32) => Reduce::And,
        (Some("or"), Ty::B32) => Reduce::Or,
        (Some("xor"), Ty::B32) => Reduce::Xor,
        _ => return Err(m.refuse()),
    };
    m.done()?;
    if !sync {
        return Err(m.refuse());
    }
    let [d, x, mask] = exactly::<3>(b, o)?;
    let (x, mask) = (b.source(x, ty)?, b.source(mask, Ty::B32)?);
    let d = b.target(d, ty)?;
    b.emit(Run::Together(Together::Reduce(op)), &[d, NONE, x, NONE, NONE, mask], 0)
}

fn barrier<'a>(
    b: &mut Builder<'a, '_>,
    long: bool,
    m: &mut Mods<'a>,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    if !long && m.flag("warp") {
        let sync = m.flag("sync");
        m.done()?;
        let [mask] = exactly::<1>(b, o)?;
        if !sync {
            return Err(m.refuse());
        }
        let mask = b.source(mask, Ty::B32)?;
        return b.emit(Run::Together(Together::Sync), &[NONE, NONE, NONE, NONE, NONE, mask], 0);
    }
    let _ = m.flag("cta");
    let _ = long && m.flag("aligned");
    let kind = m.one_of(&["sync", "arrive", "red"]).ok_or_else(|| m.refuse())?;
    if kind != "red" {
        m.done()?;
        let kind = if kind == "sync" { Barrier::Sync } else { Barrier::Arrive };
        let (id, count) = match o {
            [id] if kind == Barrier::Sync => (b.source(id, Ty::U32)?, NONE),
            [id, count] => (b.source(id, Ty::U32)?, b.source(count, Ty::U32)?),
            _ => return Err(b.syntax("number of operands")),
        };
        return b.emit(Run::Barrier(kind), &[id, count], 0);
    }
    let op = m.one_of(&["popc", "and", "or"]);
    let ty = m.ty()?;
    m.done()?;
    let (d, id, count, q) = match o {
        [d, id, q] => (d, id, None, q),
        [d, id, count, q] => (d, id, Some(count), q),
        _ => return Err(b.syntax("number of operands")),
    };
    let id = b.source(id, Ty::U32)?;
    let count = count.map_or(Ok(NONE), |c| b.source(c, Ty::U32))?;
    let (q, negated) = b.pred_source(q)?;
    let (kind, d) = match (op, ty) {
        (Some("popc"), Ty::U32) => (Barrier::Popc, b.target(d, ty)?),
        (Some("and"), Ty::Pred) => (Barrier::And, b.pred(d)?),
        (Some("or"), Ty::Pred) => (Barrier::Or, b.pred(d)?),
        _ => return Err(m.refuse()),
    };
    if d == NONE {
        return Err(b.syntax("`_` as the result of a barrier"));
    }
    b.emit(Run::Barrier(kind), &[id, count, d, q], negated.into())
}
