//! The instructions: for each, which modifiers it takes and what it does to a lane.

#[macro_use]
mod tables;

mod arith;
mod bits;
mod compare;
mod control;
pub(crate) mod convert;
mod float;
mod half;
mod memory;
mod moves;
mod warp;

use crate::build::{Builder, Operand, Statement};
use crate::error::LoadError;
use crate::run::code::{Alu, Run};
use crate::run::round::Mode;
use crate::types::Ty;

/// The modifiers of an instruction, taken one by one; what nobody takes is refused.
pub(crate) struct Mods<'a> {
    op: &'a str,
    line: u32,
    rest: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    fn new(s: &Statement<'a>) -> (&'a str, Mods<'a>) {
        let mut words = s.op.split('.');
        let base = words.next().unwrap_or("");
        (base, Mods { op: s.op, line: s.line, rest: words.collect() })
    }

    /// Takes a modifier if it is there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let at = self.rest.iter().position(|w| *w == name);
        at.map(|k| self.rest.remove(k)).is_some()
    }

    /// Takes the first modifier that is one of these.
    pub(crate) fn one_of(&mut self, names: &[&str]) -> Option<&'a str> {
        let at = self.rest.iter().position(|w| names.contains(w))?;
        Some(self.rest.remove(at))
    }

    /// Takes the last modifier, which must be a type.
    pub(crate) fn ty(&mut self) -> Result<Ty, LoadError> {
        let ty = self.rest.last().and_then(|w| Ty::named(w)).ok_or_else(|| self.refuse())?;
        self.rest.pop();
        Ok(ty)
    }

    /// Takes a rounding mode.
    pub(crate) fn mode(&mut self) -> Option<Mode> {
        Some(match self.one_of(&["rn", "rz", "rm", "rp"])? {
            "rn" => Mode::Nearest,
            "rz" => Mode::Zero,
            "rm" => Mode::Down,
            _ => Mode::Up,
        })
    }

    /// The refusal of this instruction.
    pub(crate) fn refuse(&self) -> LoadError {
        LoadError::Unsupported { line: self.line, what: format!("instruction `{}`", self.op) }
    }

    /// Nothing may be left.
    pub(crate) fn done(&self) -> Result<(), LoadError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.refuse()) }
    }
}

/// Whether an instruction of that name exists here.
pub(crate) fn known(op: &str) -> bool {
    const NAMES: &[&str] = &[
        "abs",
        "activemask",
        "add",
        "addc",
        "and",
        "atom",
        "bar",
        "barrier",
        "bfe",
        "bfi",
        "bfind",
        "bmsk",
        "bra",
        "brev",
        "brkpt",
        "brx",
        "call",
        "clz",
        "cnot",
        "copysign",
        "cos",
        "cp",
        "cvt",
        "cvta",
        "discard",
        "div",
        "dp2a",
        "dp4a",
        "ex2",
        "exit",
        "fence",
        "fma",
        "isspacep",
        "ld",
        "ldu",
        "lg2",
        "lop3",
        "mad",
        "mad24",
        "madc",
        "match",
        "max",
        "membar",
        "min",
        "mov",
        "mul",
        "mul24",
        "nanosleep",
        "neg",
        "not",
        "or",
        "popc",
        "prefetch",
        "prefetchu",
        "prmt",
        "rcp",
        "red",
        "redux",
        "rem",
        "ret",
        "rsqrt",
        "sad",
        "selp",
        "set",
        "setp",
        "shf",
        "shfl",
        "shl",
        "shr",
        "sin",
        "slct",
        "sqrt",
        "st",
        "sub",
        "subc",
        "szext",
        "tanh",
        "testp",
        "trap",
        "vote",
        "xor",
        "applypriority",
        "griddepcontrol",
    ];
    NAMES.contains(&op.split('.').next().unwrap_or(""))
}

/// Lowers a statement.
pub(crate) fn lower<'a>(b: &mut Builder<'a, '_>, s: &Statement<'a>) -> Result<(), LoadError> {
    let (base, mut mods) = Mods::new(s);
    let (m, o) = (&mut mods, s.operands.as_slice());
    match base {
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "min" | "max" | "abs" | "neg" => {
            match m.rest.last().and_then(|w| Ty::named(w)) {
                Some(Ty::F32 | Ty::F64) => float::lower(b, base, m, o),
                Some(Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2) => half::lower(b, base, m, o),
                _ => arith::lower(b, base, m, o),
            }
        }
        "rem" | "mul24" | "mad24" | "sad" | "addc" | "subc" | "madc" | "dp4a" | "dp2a" => {
            arith::lower(b, base, m, o)
        }
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" | "testp" => {
            float::lower(b, base, m, o)
        }
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "popc" | "clz" | "bfind" | "brev" | "bfe"
        | "bfi" | "prmt" | "lop3" | "shf" | "bmsk" | "szext" => bits::lower(b, base, m, o),
        "setp" | "set" | "selp" | "slct" => compare::lower(b, base, m, o),
        "cvt" => convert::lower(b, m, o),
        "mov" | "cvta" | "isspacep" => moves::lower(b, base, m, o),
        "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "prefetch" | "prefetchu" | "discard"
        | "applypriority" => memory::lower(b, base, m, o),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "bar" | "barrier" | "membar" | "fence"
        | "nanosleep" => warp::lower(b, base, m, o),
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" => control::lower(b, base, m, o),
        _ => Err(m.refuse()),
    }
}

/// Emits `d = op(a, …)`, all operands as wide as their types.
pub(crate) fn emit<'a>(
    b: &mut Builder<'a, '_>,
    op: Alu,
    d: (&Operand<'a>, Ty),
    sources: &[(&Operand<'a>, Ty)],
    imm: u64,
) -> Result<(), LoadError> {
    let mut rows = vec![0];
    for (o, ty) in sources {
        rows.push(b.source(o, *ty)?);
    }
    rows[0] = b.target(d.0, d.1)?;
    if rows[0] == crate::run::code::NONE {
        return Ok(());
    }
    b.emit(Run::Alu(op), &rows, imm)
}

/// Emits an operation whose operands all have one type.
pub(crate) fn emit_same<'a>(
    b: &mut Builder<'a, '_>,
    op: Alu,
    ty: Ty,
    o: &[Operand<'a>],
) -> Result<(), LoadError> {
    let Some((d, sources)) = o.split_first() else { return Err(b.syntax("operands are missing")) };
    let sources: Vec<_> = sources.iter().map(|s| (s, ty)).collect();
    emit(b, op, (d, ty), &sources, 0)
}

/// The operands, of which there must be exactly N.
pub(crate) fn exactly<'o, 'a, const N: usize>(
    b: &Builder<'a, '_>,
    o: &'o [Operand<'a>],
) -> Result<&'o [Operand<'a>; N], LoadError> {
    o.try_into().map_err(|_| b.syntax(format!("{} operands, {N} are needed", o.len())))
}
