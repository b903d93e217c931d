//! Directives of the module: versions, functions and their headers, debug information.

use crate::build::{Builder, Variable};
use crate::error::LoadError;
use crate::module::{Kernel, Param};
use crate::read::Reader;
use crate::read::lex::Token;
use crate::run::code::Slot;

/// Bytes of kernel parameters, as CUDA 12.1 and later have it.
const MAX_PARAM_BYTES: u32 = 32764;

/// A parameter of a header.
struct Formal<'a> {
    name: &'a str,
    size: u32,
    align: u32,
}

/// What follows the parameters of a function.
#[derive(Default)]
struct Tuning {
    max_threads: Option<u32>,
    required_threads: Option<[u32; 3]>,
    min_blocks: Option<u32>,
}

impl<'a> Reader<'a> {
    /// One directive of the module.
    pub(super) fn top_level(&mut self) -> Result<(), LoadError> {
        let Token::Word(word) = self.token else {
            return if self.take(';')? { Ok(()) } else { Err(self.found("a directive")) };
        };
        if self.isa.is_none() && word != ".version" {
            return Err(self.found("`.version`"));
        }
        match word {
            ".version" => self.version(),
            ".target" => self.target(),
            ".address_size" => {
                self.advance()?;
                match self.small()? {
                    64 => Ok(()),
                    n => Err(self.unsupported(format!("directive `.address_size {n}`"))),
                }
            }
            ".file" => {
                self.advance()?;
                self.small()?;
                self.advance()?;
                while self.take(',')? {
                    self.advance()?;
                }
                Ok(())
            }
            ".section" => self.section(),
            ".pragma" => self.pragma(),
            _ if self.target.is_none() => Err(self.found("`.target`")),
            _ => self.declaration(),
        }
    }

    fn version(&mut self) -> Result<(), LoadError> {
        // The minor version may have a trailing zero, so this is no decimal number.
        let version = self.lexer.version()?;
        if version > crate::NEWEST_ISA {
            return Err(LoadError::TooNew { version });
        }
        self.isa = Some(version);
        self.advance()?;
        Ok(())
    }

    fn target(&mut self) -> Result<(), LoadError> {
        self.advance()?;
        loop {
            let word = self.word()?;
            match word {
                "debug" | "texmode_independent" | "texmode_unified" => {}
                _ => {
                    let number = word.strip_prefix("sm_").and_then(|n| n.parse::<u32>().ok());
                    if number.is_none_or(|n| n > 80) {
                        return Err(LoadError::Target { target: word.to_owned() });
                    }
                    self.target = Some(word);
                }
            }
            if !self.take(',')? {
                return Ok(());
            }
        }
    }

    /// Debug sections say nothing that changes a result.
    fn section(&mut self) -> Result<(), LoadError> {
        self.advance()?;
        self.word()?;
        self.expect('{')?;
        let mut depth = 1u32;
        while depth > 0 {
            match self.advance()? {
                Token::Sign('{') => depth = depth.saturating_add(1),
                Token::Sign('}') => depth -= 1,
                Token::End => return Err(self.syntax("section without end")),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn pragma(&mut self) -> Result<(), LoadError> {
        self.advance()?;
        loop {
            match self.advance()? {
                Token::Text(_) => {}
                _ => return Err(self.syntax("a string is needed")),
            }
            if !self.take(',')? {
                return self.expect(';');
            }
        }
    }

    /// A variable or function with its linkage.
    fn declaration(&mut self) -> Result<(), LoadError> {
        let mut external = false;
        loop {
            match self.token {
                Token::Word(".visible" | ".weak" | ".common") => {}
                Token::Word(".extern") => external = true,
                _ => break,
            }
            self.advance()?;
        }
        match self.token {
            Token::Word(".entry") => self.entry(),
            Token::Word(".func") => self.func(),
            Token::Word(space @ (".global" | ".const" | ".shared")) => {
                self.advance()?;
                self.module_variable(space, external)
            }
            Token::Word(other) => Err(self.unsupported(format!("directive `{other}`"))),
            _ => Err(self.found("a directive")),
        }
    }

    /// `( .param …, … )`
    fn formals(&mut self) -> Result<Vec<Formal<'a>>, LoadError> {
        let mut all = Vec::new();
        self.expect('(')?;
        while !self.take(')')? {
            match self.token {
                Token::Word(".param") => self.advance()?,
                Token::Word(w) => return Err(self.unsupported(format!("parameter in `{w}`"))),
                _ => return Err(self.found("`.param`")),
            };
            let shape = self.shape()?;
            let name = self.word()?;
            let count =
                self.dimensions()?.map_or(Some(1), |d| d.iter().try_fold(1u64, |a, b| a.checked_mul(*b)));
            let size = count
                .and_then(|n| n.checked_mul(shape.element_bytes()))
                .filter(|n| *n <= MAX_PARAM_BYTES.into());
            let Some(size) = size else {
                return Err(self.too_large("parameter in bytes", MAX_PARAM_BYTES.into()));
            };
            all.push(Formal { name, size: size as u32, align: shape.align() });
            if !self.is(')') {
                self.expect(',')?;
            }
        }
        Ok(all)
    }

    /// Directives between the parameters and the body.
    fn tuning(&mut self) -> Result<Tuning, LoadError> {
        let mut tuning = Tuning::default();
        while let Token::Word(word) = self.token {
            match word {
                ".maxntid" | ".reqntid" => {
                    self.advance()?;
                    let mut axes = [1u32; 3];
                    for (k, axis) in axes.iter_mut().enumerate() {
                        if k > 0 && !self.take(',')? {
                            break;
                        }
                        *axis = self.small()?;
                    }
                    let all = axes.iter().fold(1u32, |a, b| a.saturating_mul(*b));
                    tuning.max_threads = Some(tuning.max_threads.map_or(all, |n| n.min(all)));
                    if word == ".reqntid" {
                        tuning.required_threads = Some(axes);
                    }
                }
                ".minnctapersm" => {
                    self.advance()?;
                    tuning.min_blocks = Some(self.small()?);
                }
                ".maxnreg" | ".maxnctapersm" => {
                    self.advance()?;
                    self.small()?;
                }
                ".noreturn" => {
                    self.advance()?;
                }
                ".pragma" => self.pragma()?,
                _ => return Err(self.unsupported(format!("directive `{word}`"))),
            }
        }
        Ok(tuning)
    }

    fn entry(&mut self) -> Result<(), LoadError> {
        self.advance()?;
        let name = self.word()?;
        let formals = if self.is('(') { self.formals()? } else { Vec::new() };
        let tuning = self.tuning()?;
        let mut params: Vec<Param> = Vec::with_capacity(formals.len());
        let mut end = 0u32;
        for f in &formals {
            let offset = end.next_multiple_of(f.align);
            end = offset + f.size;
            if end > MAX_PARAM_BYTES {
                return Err(self.too_large("kernel parameters in bytes", MAX_PARAM_BYTES.into()));
            }
            params.push(Param { offset, size: f.size, align: f.align });
        }
        if self.take(';')? {
            return Ok(());
        }
        let function = self.function_index(name, &[], &[])?;
        if self.functions[function as usize].is_some() {
            return Err(self.syntax(format!("`{name}` is defined twice")));
        }
        let mut symbols = std::mem::take(&mut self.symbols);
        let mut b = Builder::new(&mut symbols, true);
        b.line = self.line;
        for (f, p) in formals.iter().zip(&params) {
            b.declare(f.name, Variable::KernelParam(p.offset))?;
        }
        self.body(&mut b)?;
        self.declared[function as usize] = b.declared;
        self.functions[function as usize] = Some(b.finish(name)?);
        self.symbols = symbols;
        self.kernels.push(Kernel {
            name: name.to_owned(),
            params,
            static_shared_bytes: 0,
            local_bytes: 0,
            max_threads: tuning.max_threads,
            required_threads: tuning.required_threads,
            min_blocks_per_multiprocessor: tuning.min_blocks,
            registers: 0,
            uses_dynamic_shared: false,
            function,
            shared: Vec::new(),
        });
        Ok(())
    }

    fn func(&mut self) -> Result<(), LoadError> {
        self.advance()?;
        let results = if self.is('(') { self.formals()? } else { Vec::new() };
        let name = self.word()?;
        let formals = if self.is('(') { self.formals()? } else { Vec::new() };
        self.tuning()?;
        let sizes = |all: &[Formal<'_>]| all.iter().map(|f| f.size).collect::<Vec<u32>>();
        let function = self.function_index(name, &sizes(&formals), &sizes(&results))?;
        if self.take(';')? {
            return Ok(());
        }
        if self.functions[function as usize].is_some() {
            return Err(self.syntax(format!("`{name}` is defined twice")));
        }
        let mut symbols = std::mem::take(&mut self.symbols);
        let mut b = Builder::new(&mut symbols, false);
        b.line = self.line;
        let place = |b: &mut Builder<'a, '_>, all: &[Formal<'a>]| -> Result<Vec<Slot>, LoadError> {
            all.iter()
                .map(|f| {
                    let slot = b.reserve_local(f.size, f.align)?;
                    b.declare(f.name, Variable::Local { offset: slot.offset, size: slot.size, param: true })?;
                    Ok(slot)
                })
                .collect()
        };
        b.params = place(&mut b, &formals)?;
        b.results = place(&mut b, &results)?;
        self.body(&mut b)?;
        self.declared[function as usize] = b.declared;
        self.functions[function as usize] = Some(b.finish(name)?);
        self.symbols = symbols;
        Ok(())
    }
}
