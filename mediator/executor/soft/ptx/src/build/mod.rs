//! Lowering of one function: names to register rows, operands to constants, statements to internal code.

mod operand;
mod scope;

use std::collections::HashMap;

use crate::error::LoadError;
use crate::run::code::{CallSite, Constant, Function, Ins, NONE, Run, Slot};
use crate::run::warp::MAX_LOCAL;
use crate::types::Ty;

pub(crate) use operand::{Operand, Statement};
pub(crate) use scope::{Class, Scope, Variable};

/// Register rows of a function (128 bytes each): bounds the memory of a frame.
const MAX_FUNCTION_ROWS: u32 = 1 << 16;
/// Predicates of a function.
const MAX_PREDS: u32 = 1 << 16;
/// Instructions of a function after lowering.
const MAX_CODE: usize = 1 << 20;
/// Nested scopes.
const MAX_SCOPES: usize = 64;

/// A name of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// `.global` or `.const`, by index.
    Global(u32),
    /// `.shared`, by index.
    Shared(u32),
    /// Function, by index.
    Function(u32),
}

/// A shared variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedVariable {
    /// Bytes; 0 for `extern` arrays.
    pub(crate) size: u32,
    /// Alignment, a power of two.
    pub(crate) align: u32,
    /// `extern`: begins where the static ones end.
    pub(crate) dynamic: bool,
}

/// What functions can name outside themselves.
#[derive(Default)]
pub(crate) struct Symbols {
    /// By name.
    pub(crate) names: HashMap<String, Symbol>,
    /// Shared variables by index, those of functions included.
    pub(crate) shared: Vec<SharedVariable>,
    /// Names of functions by index.
    pub(crate) functions: Vec<String>,
    /// Parameter and result sizes of functions by index.
    pub(crate) signatures: Vec<(Vec<u32>, Vec<u32>)>,
}

/// Something that needs the place of a label.
#[derive(Clone, Copy)]
pub(crate) enum Patch {
    /// `r0` of an instruction.
    Branch(usize),
    /// An entry of a table.
    Table(usize, usize),
}

/// The function being lowered.
pub(crate) struct Builder<'a, 'm> {
    pub(crate) symbols: &'m mut Symbols,
    /// Line of the statement being lowered.
    pub(crate) line: u32,
    guard: u32,
    code: Vec<Ins>,
    rows: u32,
    preds: u32,
    constants: Vec<(u32, Constant)>,
    constant_rows: HashMap<Constant, u32>,
    constant_preds: [Option<u32>; 2],
    scopes: Vec<Scope<'a>>,
    local_bytes: u32,
    slots: u32,
    /// An entry function: parameters lie in the parameter space.
    pub(crate) kernel: bool,
    pub(crate) params: Vec<Slot>,
    pub(crate) results: Vec<Slot>,
    pub(crate) calls: Vec<CallSite>,
    tables: Vec<Vec<u32>>,
    shared: Vec<u32>,
    /// Registers declared, for the estimate.
    pub(crate) declared: u32,
}

impl<'a, 'm> Builder<'a, 'm> {
    pub(crate) fn new(symbols: &'m mut Symbols, kernel: bool) -> Self {
        Builder {
            symbols,
            line: 0,
            guard: NONE,
            code: Vec::new(),
            rows: 0,
            preds: 0,
            constants: Vec::new(),
            constant_rows: HashMap::new(),
            constant_preds: [None; 2],
            scopes: vec![Scope::default()],
            local_bytes: 0,
            slots: 0,
            kernel,
            params: Vec::new(),
            results: Vec::new(),
            calls: Vec::new(),
            tables: Vec::new(),
            shared: Vec::new(),
            declared: 0,
        }
    }

    pub(crate) fn syntax(&self, what: impl Into<String>) -> LoadError {
        LoadError::Syntax { line: self.line, what: what.into() }
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> LoadError {
        LoadError::Unsupported { line: self.line, what: what.into() }
    }

    fn too_large(&self, what: &'static str, limit: u64) -> LoadError {
        LoadError::TooLarge { line: self.line, what, limit }
    }

    /// New rows for a register or constant.
    pub(crate) fn new_rows(&mut self, n: u32) -> Result<u32, LoadError> {
        let row = self.rows;
        self.rows += n;
        if self.rows > MAX_FUNCTION_ROWS {
            return Err(self.too_large("number of registers", MAX_FUNCTION_ROWS.into()));
        }
        Ok(row)
    }

    pub(crate) fn new_pred(&mut self) -> Result<u32, LoadError> {
        self.preds += 1;
        if self.preds > MAX_PREDS {
            return Err(self.too_large("number of predicates", MAX_PREDS.into()));
        }
        Ok(self.preds - 1)
    }

    /// The row that holds a constant.
    pub(crate) fn constant(&mut self, constant: Constant) -> Result<u32, LoadError> {
        if let Some(&row) = self.constant_rows.get(&constant) {
            return Ok(row);
        }
        let row = self.new_rows(constant.rows())?;
        self.constants.push((row, constant));
        self.constant_rows.insert(constant, row);
        if let Constant::Shared { index, .. } = constant {
            self.note_shared(index);
        }
        Ok(row)
    }

    pub(crate) fn note_shared(&mut self, index: u32) {
        if !self.shared.contains(&index) {
            self.shared.push(index);
        }
    }

    /// The predicate that always or never holds.
    pub(crate) fn constant_pred(&mut self, value: bool) -> Result<u32, LoadError> {
        if let Some(p) = self.constant_preds[usize::from(value)] {
            return Ok(p);
        }
        let p = self.new_pred()?;
        self.constant_preds[usize::from(value)] = Some(p);
        Ok(p)
    }

    /// Adds an instruction under the guard of the statement.
    pub(crate) fn emit(&mut self, run: Run, r: &[u32], imm: u64) -> Result<(), LoadError> {
        if self.code.len() >= MAX_CODE {
            return Err(self.too_large("number of instructions", MAX_CODE as u64));
        }
        let mut rows = [NONE; 6];
        for (to, from) in rows.iter_mut().zip(r) {
            *to = *from;
        }
        self.code.push(Ins { run, guard: self.guard, r: rows, imm, line: self.line });
        Ok(())
    }

    /// A cached range for one more memory instruction.
    pub(crate) fn slot(&mut self) -> u32 {
        self.slots = self.slots.wrapping_add(1);
        self.slots & crate::run::memory::SLOT_MASK
    }

    /// Room in the activation's local memory.
    pub(crate) fn reserve_local(&mut self, size: u32, align: u32) -> Result<Slot, LoadError> {
        let offset = self.local_bytes.checked_next_multiple_of(align.max(1));
        let end = offset.and_then(|o| o.checked_add(size)).filter(|end| *end <= MAX_LOCAL);
        let (Some(offset), Some(end)) = (offset, end) else {
            return Err(self.too_large("local memory in bytes", MAX_LOCAL.into()));
        };
        self.local_bytes = end;
        Ok(Slot { offset, size })
    }

    pub(crate) fn open_scope(&mut self) -> Result<(), LoadError> {
        if self.scopes.len() >= MAX_SCOPES {
            return Err(self.too_large("nesting of scopes", MAX_SCOPES as u64));
        }
        self.scopes.push(Scope::default());
        Ok(())
    }

    /// Resolves the labels of the innermost scope. False where it is the function's.
    pub(crate) fn close_scope(&mut self) -> Result<bool, LoadError> {
        let Some(scope) = self.scopes.pop() else { return Ok(false) };
        for (name, line, patch) in scope.pending {
            if let Some(&at) = scope.labels.get(name) {
                match patch {
                    Patch::Branch(k) => self.code[k].r[0] = at,
                    Patch::Table(t, k) => self.tables[t][k] = at,
                }
            } else if let Some(outer) = self.scopes.last_mut() {
                outer.pending.push((name, line, patch));
            } else {
                return Err(LoadError::Syntax { line, what: format!("label `{name}` is not defined") });
            }
        }
        Ok(!self.scopes.is_empty())
    }

    pub(crate) fn scope(&mut self) -> Result<&mut Scope<'a>, LoadError> {
        let line = self.line;
        self.scopes.last_mut().ok_or(LoadError::Syntax { line, what: "statement outside a function".into() })
    }

    pub(crate) fn label(&mut self, name: &'a str) -> Result<(), LoadError> {
        let at = self.code.len() as u32;
        if self.scope()?.labels.insert(name, at).is_some() {
            return Err(self.syntax(format!("label `{name}` is defined twice")));
        }
        Ok(())
    }

    /// A branch to a label.
    pub(crate) fn branch(&mut self, label: &'a str) -> Result<(), LoadError> {
        self.emit(Run::Branch, &[0], 0)?;
        let patch = Patch::Branch(self.code.len() - 1);
        let line = self.line;
        self.scope()?.pending.push((label, line, patch));
        Ok(())
    }

    /// A table of labels.
    pub(crate) fn table(&mut self, name: &'a str, labels: &[&'a str]) -> Result<(), LoadError> {
        let (index, line) = (self.tables.len(), self.line);
        self.tables.push(vec![0; labels.len()]);
        let scope = self.scope()?;
        for (k, label) in labels.iter().enumerate() {
            scope.pending.push((label, line, Patch::Table(index, k)));
        }
        scope.tables.insert(name, index);
        Ok(())
    }

    pub(crate) fn find_table(&self, name: &str) -> Option<usize> {
        self.scopes.iter().rev().find_map(|s| s.tables.get(name).copied())
    }

    /// Lowers a statement.
    pub(crate) fn statement(&mut self, s: &Statement<'a>) -> Result<(), LoadError> {
        self.guarded(s.line, s.guard, |b| crate::ops::lower(b, s))
    }

    /// Emits instructions of one statement under its guard.
    pub(crate) fn guarded(
        &mut self,
        line: u32,
        guard: Option<(bool, &'a str)>,
        emit: impl FnOnce(&mut Self) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        self.line = line;
        self.guard = NONE;
        if let Some((negated, name)) = guard {
            let p = self.pred(&Operand::Name(name, 0))?;
            if p == NONE {
                return Err(self.syntax("`_` as a guard"));
            }
            self.guard = p << 1 | u32::from(negated);
        }
        emit(self)
    }

    /// Ends the function. The scope must be closed.
    pub(crate) fn finish(mut self, name: &str) -> Result<Function, LoadError> {
        self.guard = NONE;
        self.emit(Run::Return, &[], 0)?;
        let constant_preds = [false, true]
            .into_iter()
            .filter_map(|v| self.constant_preds[usize::from(v)].map(|p| (p, v)))
            .collect();
        Ok(Function {
            name: name.to_owned(),
            code: self.code,
            rows: self.rows,
            preds: self.preds,
            constants: self.constants,
            constant_preds,
            local_bytes: self.local_bytes,
            params: self.params,
            results: self.results,
            calls: self.calls,
            tables: self.tables,
            shared: self.shared,
        })
    }

    /// Declares a variable in the innermost scope.
    pub(crate) fn declare(&mut self, name: &'a str, variable: Variable) -> Result<(), LoadError> {
        self.scope()?.variables.insert(name, variable);
        Ok(())
    }

    /// Declares registers: `count` of them numbered from 0, or one.
    pub(crate) fn registers(&mut self, name: &'a str, count: Option<u32>, ty: Ty) -> Result<(), LoadError> {
        let class = match ty {
            Ty::Pred => Class::Pred,
            _ if ty.wide() => Class::Wide,
            _ if ty.bytes() == 4 => Class::Word,
            _ => Class::Half,
        };
        self.declared = self.declared.saturating_add(match class {
            Class::Pred => 0,
            Class::Wide => count.unwrap_or(1).saturating_mul(2),
            _ => count.unwrap_or(1),
        });
        let scope = self.scope()?;
        match count {
            Some(n) => scope.ranges.insert(name, (class, n)),
            None => scope.ranges.insert(name, (class, u32::MAX)),
        };
        Ok(())
    }
}
