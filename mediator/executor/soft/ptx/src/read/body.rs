//! Function bodies: declarations, labels, instructions.

use crate::build::{Builder, Operand, Statement, Symbol, Variable};
use crate::error::LoadError;
use crate::read::Reader;
use crate::read::lex::Token;
use crate::run::code::{CallSite, Run, Slot};
use crate::run::warp::MAX_LOCAL;
use crate::types::Ty;

/// Operands of an instruction, arguments of a call, labels of a table.
const MAX_OPERANDS: usize = 4096;

impl<'a> Reader<'a> {
    /// `{ … }` of a function.
    pub(super) fn body(&mut self, b: &mut Builder<'a, '_>) -> Result<(), LoadError> {
        self.expect('{')?;
        loop {
            b.line = self.line;
            match self.token {
                Token::Sign('{') => {
                    self.advance()?;
                    b.open_scope()?;
                }
                Token::Sign('}') => {
                    self.advance()?;
                    if !b.close_scope()? {
                        return Ok(());
                    }
                }
                Token::Sign(';') => {
                    self.advance()?;
                }
                Token::Sign('@') => {
                    self.advance()?;
                    let negated = self.take('!')?;
                    let guard = Some((negated, self.word()?));
                    let (line, op) = (self.line, self.word()?);
                    self.instruction(b, op, line, guard)?;
                }
                Token::Word(word) if word.starts_with('.') => self.local_directive(b, word)?,
                Token::Word(word) => {
                    let line = self.line;
                    self.advance()?;
                    if !self.take(':')? {
                        self.instruction(b, word, line, None)?;
                        continue;
                    }
                    match self.token {
                        Token::Word(".branchtargets") => {
                            self.advance()?;
                            let labels = self.names(';')?;
                            b.table(word, &labels)?;
                        }
                        Token::Word(other @ (".callprototype" | ".calltargets")) => {
                            return Err(self.unsupported(format!("directive `{other}`")));
                        }
                        _ => b.label(word)?,
                    }
                }
                _ => return Err(self.found("an instruction")),
            }
        }
    }

    /// Names up to a closing character, which is taken.
    fn names(&mut self, end: char) -> Result<Vec<&'a str>, LoadError> {
        let mut all = Vec::new();
        while !self.take(end)? {
            if !all.is_empty() {
                self.expect(',')?;
            }
            all.push(self.word()?);
            if all.len() > MAX_OPERANDS {
                return Err(self.too_large("number of operands", MAX_OPERANDS as u64));
            }
        }
        Ok(all)
    }

    fn local_directive(&mut self, b: &mut Builder<'a, '_>, word: &'a str) -> Result<(), LoadError> {
        match word {
            ".pragma" => return self.pragma(),
            ".loc" => return self.location(),
            ".reg" => {
                self.advance()?;
                return self.registers(b);
            }
            ".local" | ".param" | ".shared" => {}
            _ => return Err(self.unsupported(format!("directive `{word}` in a function"))),
        }
        self.advance()?;
        let shape = self.shape()?;
        loop {
            let name = self.word()?;
            let dims = self.dimensions()?.unwrap_or_default();
            let size = dims.iter().try_fold(shape.element_bytes(), |a, d| a.checked_mul(*d));
            let variable = if word == ".shared" {
                let v = self.checked_shared(size.unwrap_or(u64::MAX), shape.align(), false)?;
                b.symbols.shared.push(v);
                Variable::Shared(b.symbols.shared.len() as u32 - 1)
            } else {
                let size = size.and_then(|n| u32::try_from(n).ok());
                let Some(size) = size else {
                    return Err(self.too_large("local memory in bytes", MAX_LOCAL.into()));
                };
                let slot = b.reserve_local(size, shape.align())?;
                Variable::Local { offset: slot.offset, size, param: word == ".param" }
            };
            b.declare(name, variable)?;
            if !self.take(',')? {
                return self.expect(';');
            }
        }
    }

    /// `.loc file line column [, function_name label [+ n], inlined_at file line column]`
    fn location(&mut self) -> Result<(), LoadError> {
        self.advance()?;
        for _ in 0..3 {
            self.small()?;
        }
        while self.take(',')? {
            match self.word()? {
                "function_name" => {
                    self.word()?;
                    if self.take('+')? {
                        self.small()?;
                    }
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.small()?;
                    }
                }
                other => return Err(self.unsupported(format!("attribute `{other}` of `.loc`"))),
            }
        }
        Ok(())
    }

    /// `.reg .type name<n>, …;`
    fn registers(&mut self, b: &mut Builder<'a, '_>) -> Result<(), LoadError> {
        let Token::Word(word) = self.token else { return Err(self.found("a type")) };
        let ty = word.strip_prefix('.').and_then(Ty::named);
        let Some(ty) = ty else { return Err(self.unsupported(format!("register of type `{word}`"))) };
        self.advance()?;
        loop {
            let name = self.word()?;
            let count = if self.take('<')? {
                let n = self.small()?;
                self.expect('>')?;
                Some(n)
            } else {
                None
            };
            b.registers(name, count, ty)?;
            if !self.take(',')? {
                return self.expect(';');
            }
        }
    }

    fn instruction(
        &mut self,
        b: &mut Builder<'a, '_>,
        op: &'a str,
        line: u32,
        guard: Option<(bool, &'a str)>,
    ) -> Result<(), LoadError> {
        b.line = line;
        if !crate::ops::known(op) {
            return Err(LoadError::Unsupported { line, what: format!("instruction `{op}`") });
        }
        if op == "call" || op == "call.uni" {
            return self.call(b, line, guard);
        }
        let mut operands = Vec::new();
        while !self.take(';')? {
            if !operands.is_empty() {
                self.expect(',')?;
            }
            operands.push(self.operand(0)?);
            if operands.len() > MAX_OPERANDS {
                return Err(self.too_large("number of operands", MAX_OPERANDS as u64));
            }
        }
        b.statement(&Statement { line, guard, op, operands })
    }

    fn operand(&mut self, depth: u32) -> Result<Operand<'a>, LoadError> {
        match self.token {
            Token::Sign('{') if depth == 0 => {
                self.advance()?;
                let mut parts = Vec::new();
                while !self.take('}')? {
                    if !parts.is_empty() {
                        self.expect(',')?;
                    }
                    parts.push(self.operand(1)?);
                    if parts.len() > MAX_OPERANDS {
                        return Err(self.too_large("number of operands", MAX_OPERANDS as u64));
                    }
                }
                Ok(Operand::Vector(parts))
            }
            Token::Sign('[') if depth == 0 => {
                self.advance()?;
                let base = match self.token {
                    Token::Word(name) => {
                        self.advance()?;
                        Some(name)
                    }
                    _ => None,
                };
                let offset = if self.is(']') { 0 } else { self.offset(base.is_some())? };
                self.expect(']')?;
                Ok(Operand::Address(base, offset))
            }
            Token::Sign('!') => {
                self.advance()?;
                Ok(Operand::Not(self.word()?))
            }
            Token::Word(name) => {
                self.advance()?;
                if self.take('|')? {
                    let second = Operand::Name(self.word()?, 0);
                    return Ok(Operand::Pair(Box::new(Operand::Name(name, 0)), Box::new(second)));
                }
                let offset = if self.is('+') || self.is('-') { self.offset(true)? } else { 0 };
                Ok(Operand::Name(name, offset))
            }
            Token::Single(bits) => {
                self.advance()?;
                Ok(Operand::Single(bits))
            }
            Token::Double(bits) => {
                self.advance()?;
                Ok(Operand::Double(bits))
            }
            Token::Decimal(v) => {
                self.advance()?;
                Ok(Operand::Decimal(v))
            }
            Token::Sign('-') => {
                self.advance()?;
                if let Token::Decimal(v) = self.token {
                    self.advance()?;
                    return Ok(Operand::Decimal(-v));
                }
                Ok(Operand::Int(self.integer()?.wrapping_neg()))
            }
            _ => Ok(Operand::Int(self.integer()?)),
        }
    }

    /// `+ n`, `- n` or, where nothing stands before, `n`.
    fn offset(&mut self, signed: bool) -> Result<i64, LoadError> {
        if self.take('-')? {
            return Ok(self.integer()?.wrapping_neg() as i64);
        }
        if signed {
            self.expect('+')?;
        }
        Ok(self.integer()? as i64)
    }

    /// `call (results), name, (arguments);`
    fn call(
        &mut self,
        b: &mut Builder<'a, '_>,
        line: u32,
        guard: Option<(bool, &'a str)>,
    ) -> Result<(), LoadError> {
        let mut results = Vec::new();
        if self.take('(')? {
            results = self.names(')')?;
            self.expect(',')?;
        }
        let name = self.word()?;
        let mut arguments = Vec::new();
        if self.take(',')? {
            if !self.take('(')? {
                return Err(self.unsupported(format!("indirect call through `{name}`")));
            }
            arguments = self.names(')')?;
        }
        if self.is(',') {
            return Err(self.unsupported(format!("indirect call through `{name}`")));
        }
        self.expect(';')?;
        let function = match b.symbols.names.get(name).copied() {
            Some(Symbol::Function(index)) => index,
            _ if b.register(name)?.is_some() => {
                return Err(b.unsupported(format!("indirect call through `{name}`")));
            }
            _ => return Err(b.syntax(format!("function `{name}` is not declared"))),
        };
        let slots = |names: &[&'a str]| -> Result<Vec<Slot>, LoadError> {
            names
                .iter()
                .map(|n| match b.variable(n) {
                    Some(Variable::Local { offset, size, param: true }) => Ok(Slot { offset, size }),
                    _ => Err(b.unsupported(format!("argument `{n}` of a call that is no `.param` variable"))),
                })
                .collect()
        };
        let (arguments, results) = (slots(&arguments)?, slots(&results)?);
        let sizes = |slots: &[Slot]| slots.iter().map(|s| s.size).collect::<Vec<u32>>();
        let (p, r) = &b.symbols.signatures[function as usize];
        if *p != sizes(&arguments) || *r != sizes(&results) {
            return Err(b.syntax(format!("`{name}` has other parameters than the call")));
        }
        let index = b.calls.len() as u64;
        b.calls.push(CallSite { function, arguments, results });
        b.guarded(line, guard, |b| b.emit(Run::Call, &[], index))
    }
}
