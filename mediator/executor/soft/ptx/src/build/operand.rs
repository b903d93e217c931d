//! Operands to rows and predicates.

use crate::build::{Builder, Class, Symbol, Variable};
use crate::error::LoadError;
use crate::run::code::{Constant, Dynamic, NONE, Run, Special};
use crate::run::memory::{FRAME, WIDE};
use crate::types::Ty;

/// An operand as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand<'a> {
    /// A name, perhaps with bytes added.
    Name(&'a str, i64),
    /// `!name`
    Not(&'a str),
    /// Integer literal.
    Int(u64),
    /// Bits of an f32.
    Single(u32),
    /// Bits of an f64.
    Double(u64),
    /// Decimal float.
    Decimal(f64),
    /// `[base + offset]`
    Address(Option<&'a str>, i64),
    /// `{a, b, …}`
    Vector(Vec<Operand<'a>>),
    /// `a|b`
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
}

/// An instruction as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Statement<'a> {
    /// Line of the text.
    pub(crate) line: u32,
    /// Negated, predicate.
    pub(crate) guard: Option<(bool, &'a str)>,
    /// Name with modifiers.
    pub(crate) op: &'a str,
    /// What follows.
    pub(crate) operands: Vec<Operand<'a>>,
}

/// Where a memory instruction finds its address: `r4`, flags of `r5`, and `imm`.
pub(crate) struct Address {
    pub(crate) row: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    /// The symbol's own space, where the base is a symbol.
    pub(crate) variable: Option<Variable>,
}

impl<'a> Builder<'a, '_> {
    fn literal(&self, o: &Operand<'a>, ty: Ty) -> Result<Option<Constant>, LoadError> {
        let word = |v: u32| if ty.wide() { Constant::Long(v.into()) } else { Constant::Word(v) };
        Ok(Some(match (*o).clone() {
            Operand::Int(_) if ty.float() => {
                return Err(self.syntax("integer literal where a float is needed"));
            }
            Operand::Int(v) if ty.wide() => Constant::Long(v),
            Operand::Int(v) => Constant::Word(v as u32),
            Operand::Single(bits) if ty == Ty::F64 => {
                Constant::Long(f64::from(f32::from_bits(bits)).to_bits())
            }
            Operand::Single(bits) => word(bits),
            Operand::Double(bits) if ty.wide() => Constant::Long(bits),
            Operand::Double(bits) if ty == Ty::F32 => Constant::Word((f64::from_bits(bits) as f32).to_bits()),
            Operand::Decimal(v) if ty == Ty::F64 => Constant::Long(v.to_bits()),
            Operand::Decimal(v) if ty == Ty::F32 => Constant::Word((v as f32).to_bits()),
            Operand::Double(_) | Operand::Decimal(_) => {
                return Err(self.syntax("float literal where an integer is needed"));
            }
            _ => return Ok(None),
        }))
    }

    /// The row of a source operand whose width must be that of the type.
    pub(crate) fn source(&mut self, o: &Operand<'a>, ty: Ty) -> Result<u32, LoadError> {
        self.any_source(o, ty, false)
    }

    /// The row of a source operand; a wider register gives its low bits.
    pub(crate) fn narrow_source(&mut self, o: &Operand<'a>, ty: Ty) -> Result<u32, LoadError> {
        self.any_source(o, ty, true)
    }

    fn any_source(&mut self, o: &Operand<'a>, ty: Ty, narrowing: bool) -> Result<u32, LoadError> {
        if let Some(constant) = self.literal(o, ty)? {
            return self.constant(constant);
        }
        let &Operand::Name(name, offset) = o else {
            return Err(self.syntax("operand of the wrong kind"));
        };
        if let Some((class, index)) = self.register(name)? {
            if offset != 0 {
                return Err(self.syntax(format!("`{name}` with an offset")));
            }
            let (have, need) = (class.bytes(), ty.bytes());
            if have == need || (narrowing && have > need) || (have == 2 && need == 1) {
                if class == Class::Wide && need < 8 {
                    let row = self.new_rows(1)?;
                    self.emit(Run::Alu(crate::ops::convert::low_word()), &[row, index], 0)?;
                    return Ok(row);
                }
                return Ok(index);
            }
            return Err(self.syntax(format!(
                "register `{name}` has {} bits, the type {}",
                have * 8,
                need * 8
            )));
        }
        if name.starts_with('%') {
            return self.special(name, ty);
        }
        self.symbol_address(name, offset, ty)
    }

    fn special(&mut self, name: &str, ty: Ty) -> Result<u32, LoadError> {
        let (base, axis) = match name.rsplit_once('.') {
            Some((base, "x")) => (base, 0),
            Some((base, "y")) => (base, 1),
            Some((base, "z")) => (base, 2),
            _ => (name, 3),
        };
        let fixed = match (base, axis) {
            ("%tid", 0..=2) => Special::Tid(axis),
            ("%ntid", 0..=2) => Special::Ntid(axis),
            ("%ctaid", 0..=2) => Special::Ctaid(axis),
            ("%nctaid", 0..=2) => Special::Nctaid(axis),
            ("%laneid", 3) => Special::LaneId,
            ("%warpid", 3) => Special::WarpId,
            ("%nwarpid", 3) => Special::NwarpId,
            ("%smid", 3) => Special::SmId,
            ("%nsmid", 3) => Special::NsmId,
            ("%gridid", 3) => Special::GridId,
            ("%lanemask_eq", 3) => Special::MaskEq,
            ("%lanemask_le", 3) => Special::MaskLe,
            ("%lanemask_lt", 3) => Special::MaskLt,
            ("%lanemask_ge", 3) => Special::MaskGe,
            ("%lanemask_gt", 3) => Special::MaskGt,
            ("%dynamic_smem_size", 3) => Special::DynamicShared,
            ("%total_smem_size", 3) => Special::TotalShared,
            _ => return self.dynamic(name, ty),
        };
        if (ty.wide() != (fixed == Special::GridId)) || ty.bytes() < 4 {
            return Err(
                self.unsupported(format!("special register `{name}` read as {} bits", ty.bytes() * 8))
            );
        }
        self.constant(Constant::Special(fixed))
    }

    fn dynamic(&mut self, name: &str, ty: Ty) -> Result<u32, LoadError> {
        let (what, wide) = match name {
            "%clock" | "%clock_lo" => (Dynamic::Clock, false),
            "%clock_hi" => (Dynamic::ClockHigh, false),
            "%clock64" => (Dynamic::Clock64, true),
            "%globaltimer_lo" => (Dynamic::Nanos, false),
            "%globaltimer_hi" => (Dynamic::NanosHigh, false),
            "%globaltimer" => (Dynamic::Nanos64, true),
            _ => {
                return Err(
                    self.unsupported(format!("register `{name}`, not declared and no known special one"))
                );
            }
        };
        if ty.wide() != wide || ty.bytes() < 4 {
            return Err(
                self.unsupported(format!("special register `{name}` read as {} bits", ty.bytes() * 8))
            );
        }
        let row = self.new_rows(1 + u32::from(wide))?;
        self.emit(Run::Read(what), &[row], 0)?;
        Ok(row)
    }

    /// A row with the address of a variable in its own space.
    fn symbol_address(&mut self, name: &'a str, offset: i64, ty: Ty) -> Result<u32, LoadError> {
        let wide = ty.wide();
        if ty.bytes() < 4 {
            return Err(self.syntax(format!("address of `{name}` in {} bits", ty.bytes() * 8)));
        }
        let word = |v: u64| if wide { Constant::Long(v) } else { Constant::Word(v as u32) };
        match self.variable(name) {
            Some(Variable::Local { offset: at, .. }) => {
                let row = self.new_rows(1 + u32::from(wide))?;
                let what = if wide { Dynamic::Local64 } else { Dynamic::Local32 };
                self.emit(Run::Read(what), &[row], u64::from(at).wrapping_add(offset as u64))?;
                return Ok(row);
            }
            Some(Variable::KernelParam(at)) => {
                return self.constant(word(u64::from(at).wrapping_add(offset as u64)));
            }
            Some(Variable::Shared(index)) => return self.constant(Constant::Shared { index, offset, wide }),
            None => {}
        }
        match self.symbols.names.get(name).copied() {
            Some(Symbol::Global(index)) => self.constant(Constant::Variable { index, offset, wide }),
            Some(Symbol::Shared(index)) => self.constant(Constant::Shared { index, offset, wide }),
            Some(Symbol::Function(_)) => Err(self.unsupported(format!("address of function `{name}`"))),
            None => Err(self.syntax(format!("`{name}` is not declared"))),
        }
    }

    /// The row of a destination register of the type's width; [`NONE`] for `_`.
    pub(crate) fn target(&mut self, o: &Operand<'a>, ty: Ty) -> Result<u32, LoadError> {
        let (class, row) = self.target_register(o)?;
        if row == NONE || class.bytes() == ty.bytes() {
            return Ok(row);
        }
        Err(self.syntax(format!(
            "a register of {} bits for a result of {}",
            class.bytes() * 8,
            ty.bytes() * 8
        )))
    }

    /// A destination at least as wide as the type: the row to write, and where the value must be extended afterwards
    /// its 64-bit register.
    pub(crate) fn wide_target(&mut self, o: &Operand<'a>, ty: Ty) -> Result<(u32, Option<u32>), LoadError> {
        let (class, row) = self.target_register(o)?;
        if row == NONE {
            return Ok((row, None));
        }
        if class.bytes() < ty.bytes() || class == Class::Pred {
            let what = format!("a register of {} bits for a result of {}", class.bytes() * 8, ty.bytes() * 8);
            return Err(self.syntax(what));
        }
        if class == Class::Wide && !ty.wide() {
            return Ok((self.new_rows(1)?, Some(row)));
        }
        Ok((row, None))
    }

    /// Extends what a wide target left in a temporary row.
    pub(crate) fn extend(&mut self, target: (u32, Option<u32>), ty: Ty) -> Result<(), LoadError> {
        let (row, Some(wide)) = target else { return Ok(()) };
        let op =
            if ty.signed() { crate::ops::convert::sign_extend() } else { crate::ops::convert::zero_extend() };
        self.emit(Run::Alu(op), &[wide, row], 0)
    }

    fn target_register(&mut self, o: &Operand<'a>) -> Result<(Class, u32), LoadError> {
        match *o {
            Operand::Name("_", 0) => Ok((Class::Word, NONE)),
            Operand::Name(name, 0) => match self.register(name)? {
                Some((Class::Pred, _)) => Err(self.syntax(format!("predicate `{name}` for a value"))),
                Some(place) => Ok(place),
                None => Err(self.syntax(format!("register `{name}` is not declared"))),
            },
            _ => Err(self.syntax("the destination is not a register")),
        }
    }

    /// A predicate register.
    pub(crate) fn pred(&mut self, o: &Operand<'a>) -> Result<u32, LoadError> {
        let &Operand::Name(name, 0) = o else { return Err(self.syntax("a predicate is needed")) };
        if name == "_" {
            return Ok(NONE);
        }
        match self.register(name)? {
            Some((Class::Pred, p)) => Ok(p),
            _ => Err(self.syntax(format!("`{name}` is no predicate"))),
        }
    }

    /// A predicate to read, perhaps negated, perhaps a literal.
    pub(crate) fn pred_source(&mut self, o: &Operand<'a>) -> Result<(u32, bool), LoadError> {
        let (p, negated) = match *o {
            Operand::Int(v) => (self.constant_pred(v != 0)?, false),
            Operand::Not(name) => (self.pred(&Operand::Name(name, 0))?, true),
            _ => (self.pred(o)?, false),
        };
        if p == NONE {
            return Err(self.syntax("`_` as a source"));
        }
        Ok((p, negated))
    }

    /// The address of a memory operand.
    pub(crate) fn address(&mut self, o: &Operand<'a>) -> Result<Address, LoadError> {
        let &Operand::Address(base, offset) = o else { return Err(self.syntax("an address is needed")) };
        let plain = |row: u32, flags: u32, offset: u64| Address { row, flags, offset, variable: None };
        let Some(name) = base else { return Ok(plain(NONE, 0, offset as u64)) };
        if let Some((class, row)) = self.register(name)? {
            return match class {
                Class::Wide => Ok(plain(row, WIDE, offset as u64)),
                Class::Word => Ok(plain(row, 0, offset as u64)),
                _ => Err(self.syntax(format!("register `{name}` cannot hold an address"))),
            };
        }
        match self.variable(name) {
            Some(v @ Variable::Local { offset: at, .. }) => Ok(Address {
                row: NONE,
                flags: FRAME,
                offset: u64::from(at).wrapping_add(offset as u64),
                variable: Some(v),
            }),
            Some(v @ Variable::KernelParam(at)) => Ok(Address {
                row: NONE,
                flags: 0,
                offset: u64::from(at).wrapping_add(offset as u64),
                variable: Some(v),
            }),
            _ => Ok(plain(self.symbol_address(name, 0, Ty::U64)?, WIDE, offset as u64)),
        }
    }
}
