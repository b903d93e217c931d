//! Names inside a function.

use std::collections::HashMap;

use crate::build::{Builder, Patch};
use crate::error::LoadError;

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// A bit.
    Pred,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Wide,
}

impl Class {
    /// Width in bytes.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Class::Pred => 0,
            Class::Half => 2,
            Class::Word => 4,
            Class::Wide => 8,
        }
    }
}

/// A variable inside a function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Variable {
    /// In the activation's local memory: `.local`, and `.param` of device functions and calls.
    Local {
        /// Offset in the activation's local memory, bytes.
        offset: u32,
        /// Bytes.
        size: u32,
        /// Declared `.param`.
        param: bool,
    },
    /// In the kernel's parameter block, at this byte.
    KernelParam(u32),
    /// A shared variable by index.
    Shared(u32),
}

/// One `{ … }`.
#[derive(Default)]
pub(crate) struct Scope<'a> {
    /// Declared registers: class and how many; `u32::MAX` = a single one of that very name.
    pub(crate) ranges: HashMap<&'a str, (Class, u32)>,
    /// Registers in use: row or predicate.
    used: HashMap<&'a str, (Class, u32)>,
    pub(crate) variables: HashMap<&'a str, Variable>,
    pub(crate) labels: HashMap<&'a str, u32>,
    pub(crate) tables: HashMap<&'a str, usize>,
    pub(crate) pending: Vec<(&'a str, u32, Patch)>,
}

impl Scope<'_> {
    /// The class of a register declared here.
    fn declared(&self, name: &str) -> Option<Class> {
        if let Some(&(class, u32::MAX)) = self.ranges.get(name) {
            return Some(class);
        }
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count().min(10);
        (1..=digits).find_map(|n| {
            let (prefix, number) = name.split_at_checked(name.len() - n)?;
            if number.len() > 1 && number.starts_with('0') {
                return None;
            }
            let number: u32 = number.parse().ok()?;
            self.ranges
                .get(prefix)
                .filter(|(_, count)| *count != u32::MAX && number < *count)
                .map(|(c, _)| *c)
        })
    }
}

impl<'a> Builder<'a, '_> {
    /// The register of a name: its class, and its row or predicate.
    pub(crate) fn register(&mut self, name: &'a str) -> Result<Option<(Class, u32)>, LoadError> {
        let mut found = None;
        for (k, scope) in self.scopes.iter().enumerate().rev() {
            if let Some(&place) = scope.used.get(name) {
                return Ok(Some(place));
            }
            if let Some(class) = scope.declared(name) {
                found = Some((k, class));
                break;
            }
        }
        let Some((k, class)) = found else { return Ok(None) };
        let index = match class {
            Class::Pred => self.new_pred()?,
            Class::Wide => self.new_rows(2)?,
            Class::Half | Class::Word => self.new_rows(1)?,
        };
        self.scopes[k].used.insert(name, (class, index));
        Ok(Some((class, index)))
    }

    /// The variable of a name, of this function only.
    pub(crate) fn variable(&self, name: &str) -> Option<Variable> {
        self.scopes.iter().rev().find_map(|s| s.variables.get(name).copied())
    }
}
