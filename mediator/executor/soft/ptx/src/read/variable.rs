//! Variables: their types, sizes and initial values.

use crate::build::{SharedVariable, Symbol};
use crate::error::LoadError;
use crate::module::{Global, Relocation, Space};
use crate::read::lex::Token;
use crate::read::{MAX_NESTING, Reader};
use crate::run::launch::MAX_SHARED;
use crate::types::Ty;

/// Largest alignment of a variable.
const MAX_ALIGN: u32 = 256;
/// Largest variable in bytes.
const MAX_VARIABLE: u64 = 1 << 40;

/// Type and alignment of a declaration.
pub(super) struct Shape {
    pub(super) ty: Ty,
    vector: u32,
    align: Option<u32>,
}

impl Shape {
    pub(super) fn element_bytes(&self) -> u64 {
        u64::from(self.ty.bytes() * self.vector)
    }

    pub(super) fn align(&self) -> u32 {
        self.align.unwrap_or(self.ty.bytes() * self.vector).max(1)
    }
}

/// A value of an initialiser or expression.
enum Value<'a> {
    Int(u64),
    Single(u32),
    Double(u64),
    Decimal(f64),
    Address(&'a str, i64),
}

impl<'a> Reader<'a> {
    /// `.align N .v2 .type .ptr …`, in any order.
    pub(super) fn shape(&mut self) -> Result<Shape, LoadError> {
        let (mut align, mut vector, mut ty, mut pointer) = (None, 1, None, false);
        while let Token::Word(word) = self.token {
            if !word.starts_with('.') {
                break;
            }
            match word {
                ".align" => {
                    self.advance()?;
                    let n = self.small()?;
                    if !n.is_power_of_two() || n > MAX_ALIGN {
                        return Err(self.syntax(format!("alignment {n}")));
                    }
                    // Behind .ptr it is the alignment of what the pointer points to.
                    if !pointer {
                        align = Some(n);
                    }
                    continue;
                }
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".ptr" => pointer = true,
                ".global" | ".const" | ".shared" | ".local" if pointer => {}
                _ => match Ty::named(&word[1..]) {
                    Some(t) if t != Ty::Pred && ty.is_none() => ty = Some(t),
                    _ => return Err(self.unsupported(format!("declaration with `{word}`"))),
                },
            }
            self.advance()?;
        }
        let ty = ty.ok_or_else(|| self.found("a type"))?;
        Ok(Shape { ty, vector, align })
    }

    /// `[N][M]…`; `None` without, 0 for `[]`.
    pub(super) fn dimensions(&mut self) -> Result<Option<Vec<u64>>, LoadError> {
        let mut all = Vec::new();
        while self.take('[')? {
            match self.token {
                Token::Int(n) => {
                    self.advance()?;
                    all.push(n);
                }
                _ => all.push(0),
            }
            self.expect(']')?;
            if all.len() > MAX_NESTING as usize {
                return Err(self.too_large("dimensions of an array", MAX_NESTING.into()));
            }
        }
        Ok(if all.is_empty() { None } else { Some(all) })
    }

    fn bytes_of(&self, shape: &Shape, dims: Option<&[u64]>) -> Result<u64, LoadError> {
        let count = dims.unwrap_or(&[]).iter().try_fold(1u64, |a, b| a.checked_mul(*b));
        count
            .and_then(|n| n.checked_mul(shape.element_bytes()))
            .filter(|n| *n <= MAX_VARIABLE)
            .ok_or_else(|| self.too_large("variable in bytes", MAX_VARIABLE))
    }

    /// `.attribute(.managed)`, where it is there.
    fn managed(&mut self, space: &str) -> Result<bool, LoadError> {
        if self.token != Token::Word(".attribute") {
            return Ok(false);
        }
        self.advance()?;
        self.expect('(')?;
        match self.word()? {
            ".managed" if space == ".global" => {}
            other => return Err(self.unsupported(format!("attribute `{other}` of a `{space}` variable"))),
        }
        self.expect(')')?;
        Ok(true)
    }

    /// `.global`, `.const`, `.shared` of the module, behind the space.
    pub(super) fn module_variable(&mut self, space: &str, external: bool) -> Result<(), LoadError> {
        let managed = self.managed(space)?;
        let shape = self.shape()?;
        loop {
            let name = self.word()?;
            let mut dims = self.dimensions()?;
            if space == ".shared" {
                let size = self.bytes_of(&shape, dims.as_deref())?;
                let index = self.shared_variable(size, shape.align(), external)?;
                self.name(name, Symbol::Shared(index))?;
            } else {
                let init = if self.take('=')? { Some(self.initialiser(&shape, &mut dims)?) } else { None };
                let size = self.bytes_of(&shape, dims.as_deref())?;
                let (init, relocations) = init.unwrap_or_default();
                if init.len() as u64 > size {
                    return Err(self.syntax(format!("`{name}` has more initial bytes than it has room for")));
                }
                self.global(name, space, &shape, external, size, init, relocations, managed)?;
            }
            if !self.take(',')? {
                return self.expect(';');
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn global(
        &mut self,
        name: &'a str,
        space: &str,
        shape: &Shape,
        external: bool,
        size: u64,
        init: Vec<u8>,
        relocations: Vec<Relocation>,
        managed: bool,
    ) -> Result<(), LoadError> {
        let space = if space == ".const" { Space::Const } else { Space::Global };
        let align = shape.align();
        let variable = Global { name: name.to_owned(), size, align, init, space, relocations, managed };
        let undefined = self.externs.iter().position(|e| *e == name);
        match (self.symbols.names.get(name).copied(), undefined) {
            // The definition of what was declared extern.
            (Some(Symbol::Global(index)), Some(k)) => {
                if !external {
                    self.externs.remove(k);
                    self.globals[index as usize] = variable;
                }
                return Ok(());
            }
            (Some(Symbol::Global(_)), None) if external => return Ok(()),
            _ => {}
        }
        self.name(name, Symbol::Global(self.globals.len() as u32))?;
        self.globals.push(variable);
        if external {
            self.externs.push(name);
        }
        Ok(())
    }

    fn name(&mut self, name: &str, symbol: Symbol) -> Result<(), LoadError> {
        if self.symbols.names.insert(name.to_owned(), symbol).is_some() {
            return Err(self.syntax(format!("`{name}` is declared twice")));
        }
        Ok(())
    }

    /// A shared variable, of the module or of a function.
    pub(super) fn shared_variable(&mut self, size: u64, align: u32, dynamic: bool) -> Result<u32, LoadError> {
        let v = self.checked_shared(size, align, dynamic)?;
        self.symbols.shared.push(v);
        Ok(self.symbols.shared.len() as u32 - 1)
    }

    pub(super) fn checked_shared(
        &self,
        size: u64,
        align: u32,
        dynamic: bool,
    ) -> Result<SharedVariable, LoadError> {
        let size = u32::try_from(size).ok().filter(|n| *n <= MAX_SHARED);
        let Some(size) = size else {
            return Err(self.too_large("shared variable in bytes", MAX_SHARED.into()));
        };
        Ok(SharedVariable { size: if dynamic { 0 } else { size }, align, dynamic })
    }

    /// `= value` or `= { value, … }`; an open first dimension is set from what is given.
    fn initialiser(
        &mut self,
        shape: &Shape,
        dims: &mut Option<Vec<u64>>,
    ) -> Result<(Vec<u8>, Vec<Relocation>), LoadError> {
        let (mut bytes, mut relocations) = (Vec::new(), Vec::new());
        let mut limits = dims.clone().unwrap_or_default();
        if shape.vector > 1 {
            limits.push(shape.vector.into());
        }
        if limits.is_empty() {
            self.element(shape.ty, &mut bytes, &mut relocations)?;
        } else {
            self.braces(shape.ty, &limits, 0, &mut bytes, &mut relocations)?;
        }
        if let Some(first) = dims.as_mut().and_then(|d| d.first_mut())
            && *first == 0
        {
            let inner: u64 = limits[1..].iter().product::<u64>().max(1) * u64::from(shape.ty.bytes());
            *first = (bytes.len() as u64).div_ceil(inner);
        }
        Ok((bytes, relocations))
    }

    fn braces(
        &mut self,
        ty: Ty,
        limits: &[u64],
        base: u64,
        bytes: &mut Vec<u8>,
        relocations: &mut Vec<Relocation>,
    ) -> Result<(), LoadError> {
        let Some((&limit, inner)) = limits.split_first() else { return Err(self.syntax("too many braces")) };
        let stride = inner.iter().try_fold(u64::from(ty.bytes()), |a, b| a.checked_mul(*b));
        self.expect('{')?;
        let mut k = 0u64;
        while !self.take('}')? {
            if limit != 0 && k >= limit {
                return Err(self.syntax("more values than the array has"));
            }
            let at = stride.and_then(|s| s.checked_mul(k)).and_then(|n| n.checked_add(base));
            // What the text leaves out is zero; the cap stops a short text from asking for much.
            let at = at.filter(|n| *n <= crate::MAX_TEXT as u64);
            let Some(at) = at else {
                return Err(self.too_large("initial value in bytes", crate::MAX_TEXT as u64));
            };
            if inner.is_empty() {
                bytes.resize(bytes.len().max(at as usize), 0);
                self.element(ty, bytes, relocations)?;
            } else {
                self.braces(ty, inner, at, bytes, relocations)?;
            }
            k += 1;
            if !self.is('}') {
                self.expect(',')?;
            }
        }
        Ok(())
    }

    /// One value of an initialiser, appended.
    fn element(
        &mut self,
        ty: Ty,
        bytes: &mut Vec<u8>,
        relocations: &mut Vec<Relocation>,
    ) -> Result<(), LoadError> {
        let n = ty.bytes() as usize;
        let bits = match (self.value(0)?, ty) {
            (Value::Int(v), Ty::F32 | Ty::F64) if v != 0 => {
                return Err(self.syntax(format!("integer {v} for a float")));
            }
            (Value::Int(v), _) => v,
            (Value::Single(v), Ty::F64) => f64::from(f32::from_bits(v)).to_bits(),
            (Value::Single(v), _) if n >= 4 => v.into(),
            (Value::Double(v), _) if n == 8 => v,
            (Value::Double(v), Ty::F32) => u64::from((f64::from_bits(v) as f32).to_bits()),
            (Value::Decimal(v), Ty::F64) => v.to_bits(),
            (Value::Decimal(v), Ty::F32) => u64::from((v as f32).to_bits()),
            (Value::Address(name, addend), _) if n >= 4 => {
                match self.symbols.names.get(name) {
                    Some(Symbol::Global(_)) => {}
                    Some(Symbol::Function(_)) => {
                        return Err(
                            self.unsupported(format!("address of function `{name}` in an initial value"))
                        );
                    }
                    Some(Symbol::Shared(_)) => {
                        return Err(
                            self.unsupported(format!("address of shared `{name}` in an initial value"))
                        );
                    }
                    None => return Err(self.syntax(format!("`{name}` is not declared"))),
                }
                let offset = bytes.len() as u32;
                relocations.push(Relocation { offset, size: n as u32, symbol: name.to_owned(), addend });
                0
            }
            _ => return Err(self.syntax("a value of the wrong kind")),
        };
        bytes.extend_from_slice(&bits.to_le_bytes()[..n]);
        Ok(())
    }

    /// A constant expression: sums of literals, or an address plus a literal.
    fn value(&mut self, depth: u32) -> Result<Value<'a>, LoadError> {
        let mut left = self.term(depth)?;
        while let Token::Sign(sign @ ('+' | '-')) = self.token {
            self.advance()?;
            let right = self.term(depth)?;
            let signed = |v: u64| if sign == '-' { v.wrapping_neg() } else { v };
            left = match (left, right) {
                (Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_add(signed(b))),
                (Value::Address(name, at), Value::Int(b)) => {
                    Value::Address(name, at.wrapping_add(signed(b) as i64))
                }
                _ => return Err(self.unsupported("constant expression")),
            };
        }
        Ok(left)
    }

    fn term(&mut self, depth: u32) -> Result<Value<'a>, LoadError> {
        if depth > MAX_NESTING {
            return Err(self.too_large("nesting of an expression", MAX_NESTING.into()));
        }
        match self.advance()? {
            Token::Int(v) => Ok(Value::Int(v)),
            Token::Single(v) => Ok(Value::Single(v)),
            Token::Double(v) => Ok(Value::Double(v)),
            Token::Decimal(v) => Ok(Value::Decimal(v)),
            Token::Sign('-') => match self.term(depth + 1)? {
                Value::Int(v) => Ok(Value::Int(v.wrapping_neg())),
                Value::Decimal(v) => Ok(Value::Decimal(-v)),
                _ => Err(self.unsupported("constant expression")),
            },
            Token::Sign('~') => match self.term(depth + 1)? {
                Value::Int(v) => Ok(Value::Int(!v)),
                _ => Err(self.unsupported("constant expression")),
            },
            Token::Sign('(') => {
                let v = self.value(depth + 1)?;
                self.expect(')')?;
                Ok(v)
            }
            Token::Word("generic") if self.is('(') => self.term(depth + 1),
            Token::Word(name) if self.is('(') => Err(self.unsupported(format!("operator `{name}()`"))),
            Token::Word(name) => Ok(Value::Address(name, 0)),
            _ => Err(self.syntax("a value is needed")),
        }
    }

    /// An integer expression.
    pub(super) fn integer(&mut self) -> Result<u64, LoadError> {
        match self.value(0)? {
            Value::Int(v) => Ok(v),
            _ => Err(self.syntax("an integer is needed")),
        }
    }
}
