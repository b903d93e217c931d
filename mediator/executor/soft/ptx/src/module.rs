//! A loaded module: its kernels and its variables.

use std::collections::HashMap;

use crate::error::{LinkError, LoadError};
use crate::run::code::Function;

/// A PTX module, parsed and lowered. Holds no addresses yet.
pub struct Module {
    pub(crate) isa: (u32, u32),
    pub(crate) target: String,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) globals: Vec<Global>,
    pub(crate) functions: Vec<Function>,
}

/// A kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Byte offset in the parameter block.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// An entry function.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The name in the text (mangled).
    pub name: String,
    /// Parameters, each at its alignment.
    pub params: Vec<Param>,
    /// Static shared memory in bytes, of the kernel and the functions it calls.
    pub static_shared_bytes: u32,
    /// Local memory of one thread in bytes; with recursion, of one pass through each function.
    pub local_bytes: u32,
    /// Most threads of a block (`.maxntid`).
    pub max_threads: Option<u32>,
    /// The block size it must have (`.reqntid`).
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub min_blocks_per_multiprocessor: Option<u32>,
    /// A guess at the registers a compiler would use per thread: those of the text, capped at 255.
    pub registers: u32,
    /// Refers to an `extern .shared` array.
    pub uses_dynamic_shared: bool,
    pub(crate) function: u32,
    /// Shared variables it can reach, by index, with their offsets.
    pub(crate) shared: Vec<(u32, u32)>,
}

impl Kernel {
    /// Bytes of the parameter block.
    pub fn param_bytes(&self) -> u32 {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    pub(crate) fn shared_offset(&self, index: u32) -> Option<u32> {
        self.shared.iter().find(|(i, _)| *i == index).map(|(_, offset)| *offset)
    }
}

/// The state space of a module variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// `.global`.
    Global,
    /// `.const`: kernels only read it; the host may write it.
    Const,
}

/// An address in an initialiser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where in the variable the address goes, bytes.
    pub offset: u32,
    /// Bytes of the address: 4 or 8.
    pub size: u32,
    /// The variable whose address it is.
    pub symbol: String,
    /// Bytes added.
    pub addend: i64,
}

/// A `.global` or `.const` variable.
#[derive(Clone, Debug)]
pub struct Global {
    /// The name in the text.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Alignment in bytes, a power of two.
    pub align: u32,
    /// The initial value without the relocations; what it lacks to `size` bytes is zero.
    pub init: Vec<u8>,
    /// State space.
    pub space: Space,
    /// Addresses to put into the initial value.
    pub relocations: Vec<Relocation>,
    /// `.attribute(.managed)`: the host uses it as well, at the same address.
    pub managed: bool,
}

impl Module {
    /// Parses and lowers a module.
    ///
    /// # Errors
    /// See [`LoadError`]: what is not supported is refused here, never at run time.
    pub fn parse(text: &str) -> Result<Module, LoadError> {
        crate::read::module(text)
    }

    /// PTX ISA version of the text.
    pub fn isa(&self) -> (u32, u32) {
        self.isa
    }

    /// The `.target` of the text.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The entry functions, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// The variables the caller has to allocate, in the order of the text.
    pub fn globals(&self) -> impl Iterator<Item = &Global> {
        self.globals.iter()
    }

    /// Gives every variable its address.
    ///
    /// # Errors
    /// [`LinkError::Missing`] where `addresses` lacks a variable of [`Module::globals`].
    pub fn link(self, addresses: &HashMap<String, u64>) -> Result<LinkedModule, LinkError> {
        let found = self
            .globals
            .iter()
            .map(|g| {
                addresses.get(&g.name).copied().ok_or_else(|| LinkError::Missing { name: g.name.clone() })
            })
            .collect::<Result<Vec<u64>, LinkError>>()?;
        Ok(LinkedModule { module: self, addresses: found })
    }
}

/// A module whose variables have addresses: ready to launch.
pub struct LinkedModule {
    module: Module,
    addresses: Vec<u64>,
}

impl LinkedModule {
    /// The module.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The initial bytes of a variable, addresses included; `None` where there is no such variable.
    pub fn initial_bytes(&self, name: &str) -> Option<Vec<u8>> {
        let g = self.module.globals.iter().find(|g| g.name == name)?;
        let mut bytes = g.init.clone();
        bytes.resize(usize::try_from(g.size).ok()?, 0);
        for r in &g.relocations {
            let index = self.module.globals.iter().position(|g| g.name == r.symbol)?;
            let value = self.address(index as u32).wrapping_add(r.addend as u64).to_le_bytes();
            let at = r.offset as usize;
            bytes.get_mut(at..at + r.size as usize)?.copy_from_slice(&value[..r.size as usize]);
        }
        Some(bytes)
    }

    pub(crate) fn functions(&self) -> &[Function] {
        &self.module.functions
    }

    pub(crate) fn address(&self, index: u32) -> u64 {
        self.addresses.get(index as usize).copied().unwrap_or(0)
    }
}
