//! PTX text to a [`Module`].

mod body;
mod directive;
mod lex;
mod variable;

use crate::build::{Symbol, Symbols};
use crate::error::LoadError;
use crate::module::{Global, Kernel, Module};
use crate::read::lex::{Lexer, Token};
use crate::run::code::{CallSite, Function, Ins, NONE, Run, Slot};
use crate::run::launch::MAX_SHARED;
use crate::run::print;

/// Static shared memory of a kernel in bytes, as ptxas caps it.
const MAX_STATIC_SHARED: u32 = 48 << 10;
/// Nested parentheses of an expression and braces of an initialiser.
const MAX_NESTING: u32 = 16;
/// Most registers a kernel reports: what lets a block of 1024 threads fit into the 65536 of a multiprocessor.
const MAX_REPORTED_REGISTERS: u32 = 64;

/// The reader of a module.
pub(crate) struct Reader<'a> {
    lexer: Lexer<'a>,
    /// The token to look at.
    token: Token<'a>,
    /// Its line.
    line: u32,
    symbols: Symbols,
    isa: Option<(u32, u32)>,
    target: Option<&'a str>,
    kernels: Vec<Kernel>,
    globals: Vec<Global>,
    /// By index; `None` while only declared.
    functions: Vec<Option<Function>>,
    /// Registers declared by function, for the estimate.
    declared: Vec<u32>,
    /// `extern` variables that nothing defines so far, with their lines.
    externs: Vec<&'a str>,
}

/// Reads a module.
pub(crate) fn module(text: &str) -> Result<Module, LoadError> {
    if text.len() > crate::MAX_TEXT {
        return Err(LoadError::TooLarge {
            line: 1,
            what: "PTX text in bytes",
            limit: crate::MAX_TEXT as u64,
        });
    }
    // Text out of a fatbin ends with NULs.
    let text = text.trim_end_matches('\0');
    let mut reader = Reader {
        lexer: Lexer::new(text),
        token: Token::End,
        line: 1,
        symbols: Symbols::default(),
        isa: None,
        target: None,
        kernels: Vec::new(),
        globals: Vec::new(),
        functions: Vec::new(),
        declared: Vec::new(),
        externs: Vec::new(),
    };
    reader.advance()?;
    while reader.token != Token::End {
        reader.top_level()?;
    }
    reader.finish()
}

impl<'a> Reader<'a> {
    fn advance(&mut self) -> Result<Token<'a>, LoadError> {
        let old = self.token;
        self.token = self.lexer.next()?;
        self.line = self.lexer.line;
        Ok(old)
    }

    fn syntax(&self, what: impl Into<String>) -> LoadError {
        LoadError::Syntax { line: self.line, what: what.into() }
    }

    fn unsupported(&self, what: impl Into<String>) -> LoadError {
        LoadError::Unsupported { line: self.line, what: what.into() }
    }

    fn too_large(&self, what: &'static str, limit: u64) -> LoadError {
        LoadError::TooLarge { line: self.line, what, limit }
    }

    fn found(&self, wanted: &str) -> LoadError {
        let what = match self.token {
            Token::Word(w) => format!("`{w}`"),
            Token::Sign(c) => format!("`{c}`"),
            Token::End => "the end of the text".into(),
            _ => "a literal".into(),
        };
        self.syntax(format!("{wanted} is needed, {what} found"))
    }

    fn is(&self, sign: char) -> bool {
        self.token == Token::Sign(sign)
    }

    /// Takes a character if it is next.
    fn take(&mut self, sign: char) -> Result<bool, LoadError> {
        let there = self.is(sign);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn expect(&mut self, sign: char) -> Result<(), LoadError> {
        if self.take(sign)? { Ok(()) } else { Err(self.found(&format!("`{sign}`"))) }
    }

    fn word(&mut self) -> Result<&'a str, LoadError> {
        match self.token {
            Token::Word(w) => {
                self.advance()?;
                Ok(w)
            }
            _ => Err(self.found("a name")),
        }
    }

    /// An integer of the text that must fit 32 bits.
    fn small(&mut self) -> Result<u32, LoadError> {
        match self.token {
            Token::Int(v) => {
                let v = u32::try_from(v).map_err(|_| self.syntax("the number is too large"))?;
                self.advance()?;
                Ok(v)
            }
            _ => Err(self.found("a number")),
        }
    }

    /// The function of a name, declared now if it is new. The signature must not change.
    fn function_index(&mut self, name: &str, params: &[u32], results: &[u32]) -> Result<u32, LoadError> {
        match self.symbols.names.get(name).copied() {
            None => {
                let index = self.functions.len() as u32;
                self.symbols.names.insert(name.to_owned(), Symbol::Function(index));
                self.symbols.functions.push(name.to_owned());
                self.symbols.signatures.push((params.to_vec(), results.to_vec()));
                self.functions.push(None);
                self.declared.push(0);
                Ok(index)
            }
            Some(Symbol::Function(index)) => {
                let (p, r) = &self.symbols.signatures[index as usize];
                if p == params && r == results {
                    Ok(index)
                } else {
                    Err(self.syntax(format!("`{name}` is declared with other parameters before")))
                }
            }
            Some(_) => Err(self.syntax(format!("`{name}` is declared as a variable before"))),
        }
    }

    /// Resolves what only the whole text can: externs, shared memory and local memory of each kernel.
    fn finish(mut self) -> Result<Module, LoadError> {
        let isa = self.isa.ok_or_else(|| self.syntax("`.version` is missing"))?;
        let target = self.target.ok_or_else(|| self.syntax("`.target` is missing"))?;
        if let Some(name) = self.externs.first() {
            return Err(LoadError::UnresolvedExtern { name: (*name).to_owned() });
        }
        if let Some(Symbol::Function(index)) = self.symbols.names.get("vprintf").copied() {
            let takes_two_addresses = self.symbols.signatures[index as usize] == (vec![8, 8], vec![4]);
            let function = &mut self.functions[index as usize];
            if function.is_none() && takes_two_addresses {
                *function = Some(printing());
            }
        }
        let called = self.functions.iter().flatten().flat_map(|f| &f.calls);
        if let Some(site) = called.into_iter().find(|c| self.functions[c.function as usize].is_none()) {
            let name = self.symbols.functions[site.function as usize].clone();
            return Err(LoadError::UnresolvedExtern { name });
        }
        let mut functions = Vec::with_capacity(self.functions.len());
        for (k, f) in self.functions.drain(..).enumerate() {
            functions.push(f.unwrap_or_else(|| never_called(&self.symbols.functions[k])));
        }
        for kernel in &mut self.kernels {
            describe(kernel, &functions, &self.symbols, &self.declared)?;
        }
        Ok(Module { isa, target: target.to_owned(), kernels: self.kernels, globals: self.globals, functions })
    }
}

/// Stands for a function that is declared, not defined and not called.
fn never_called(name: &str) -> Function {
    let trap = Ins { run: Run::Trap, guard: NONE, r: [NONE; 6], imm: 0, line: 0 };
    Function {
        name: name.to_owned(),
        code: vec![trap],
        rows: 0,
        preds: 0,
        constants: Vec::new(),
        constant_preds: Vec::new(),
        local_bytes: 0,
        params: Vec::new(),
        results: Vec::new(),
        calls: Vec::<CallSite>::new(),
        tables: Vec::new(),
        shared: Vec::new(),
    }
}

/// `vprintf`, which is not the module's own.
fn printing() -> Function {
    let code = |run| Ins { run, guard: NONE, r: [NONE, NONE, NONE, NONE, NONE, 0], imm: 0, line: 0 };
    Function {
        code: vec![code(Run::Access(print::print)), code(Run::Return)],
        local_bytes: print::LOCAL_BYTES,
        params: vec![Slot { offset: print::FORMAT, size: 8 }, Slot { offset: print::ARGUMENTS, size: 8 }],
        results: vec![Slot { offset: print::RESULT, size: 4 }],
        ..never_called("vprintf")
    }
}

/// Works out what a kernel needs, from all functions it can reach.
fn describe(
    kernel: &mut Kernel,
    functions: &[Function],
    symbols: &Symbols,
    declared: &[u32],
) -> Result<(), LoadError> {
    let mut reached = vec![false; functions.len()];
    let mut open = vec![kernel.function as usize];
    let (mut shared, mut local, mut registers) = (Vec::new(), 0u32, 0u32);
    while let Some(k) = open.pop() {
        if std::mem::replace(&mut reached[k], true) {
            continue;
        }
        local = local.saturating_add(functions[k].local_bytes);
        registers = registers.max(declared[k]);
        shared.extend_from_slice(&functions[k].shared);
        open.extend(functions[k].calls.iter().map(|c| c.function as usize));
    }
    shared.sort_unstable();
    shared.dedup();
    let (mut end, mut dynamic_align) = (0u32, 0u32);
    for &index in &shared {
        let v = symbols.shared[index as usize];
        if v.dynamic {
            dynamic_align = dynamic_align.max(v.align).max(16);
            continue;
        }
        let at = end.next_multiple_of(v.align);
        kernel.shared.push((index, at));
        end = at.saturating_add(v.size);
        if end > MAX_STATIC_SHARED {
            let limit = u64::from(MAX_STATIC_SHARED.min(MAX_SHARED));
            return Err(LoadError::TooLarge { line: 0, what: "static shared memory in bytes", limit });
        }
    }
    kernel.uses_dynamic_shared = dynamic_align > 0;
    if kernel.uses_dynamic_shared {
        end = end.next_multiple_of(dynamic_align);
    }
    for &index in &shared {
        if symbols.shared[index as usize].dynamic {
            kernel.shared.push((index, end));
        }
    }
    kernel.static_shared_bytes = end;
    kernel.local_bytes = local;
    kernel.registers = registers.clamp(8, MAX_REPORTED_REGISTERS);
    Ok(())
}
