//! What can go wrong: at load ([`LoadError`]) and in a launch ([`Fault`]).

use thiserror::Error;

/// Why a PTX text was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The text is not PTX.
    #[error("line {line}: {what}")]
    Syntax {
        /// Line in the text, from 1.
        line: u32,
        /// What was found or missed.
        what: String,
    },
    /// The text is PTX, and asks for what this crate does not do.
    #[error("line {line}: unsupported {what}")]
    Unsupported {
        /// Line in the text, from 1.
        line: u32,
        /// The instruction with its modifiers, or the directive.
        what: String,
    },
    /// A function or variable is declared and used, and nothing defines it.
    #[error("unresolved extern `{name}`")]
    UnresolvedExtern {
        /// The symbol.
        name: String,
    },
    /// The PTX ISA version is above [`crate::NEWEST_ISA`].
    #[error("PTX ISA version {}.{} is newer than {}.{}", version.0, version.1, crate::NEWEST_ISA.0, crate::NEWEST_ISA.1)]
    TooNew {
        /// Major and minor version of the text.
        version: (u32, u32),
    },
    /// The text asks for a device above compute capability 8.0, or for an architecture-specific one.
    #[error("target `{target}` is not sm_80 or below")]
    Target {
        /// The `.target` word.
        target: String,
    },
    /// The text, or what it declares, is above a cap of this crate.
    #[error("line {line}: {what} is above the limit of {limit}")]
    TooLarge {
        /// Line in the text, from 1.
        line: u32,
        /// What is too large.
        what: &'static str,
        /// The cap.
        limit: u64,
    },
}

/// Why a launch could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The caller gave no address for a variable of the module.
    #[error("no address given for `{name}`")]
    Missing {
        /// The variable.
        name: String,
    },
}

/// How a launch ended when it did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The configuration does not fit the kernel (block size, shared memory, parameter bytes).
    #[error("invalid launch: {what}")]
    InvalidLaunch {
        /// What does not fit.
        what: String,
    },
    /// An access outside every mapped range, or a store to a read-only one.
    #[error("illegal address {addr:#x} at PTX line {line}")]
    IllegalAddress {
        /// The address, in the space of the access.
        addr: u64,
        /// Line of the instruction.
        line: u32,
    },
    /// An access that is not aligned to its width.
    #[error("misaligned address {addr:#x} at PTX line {line}")]
    MisalignedAddress {
        /// The address, in the space of the access.
        addr: u64,
        /// Line of the instruction.
        line: u32,
    },
    /// An instruction with operands the hardware would refuse (barrier number or count, lane mask).
    #[error("illegal instruction at PTX line {line}")]
    IllegalInstruction {
        /// Line of the instruction.
        line: u32,
    },
    /// `trap` or `brkpt`.
    #[error("trap at PTX line {line}")]
    Trap {
        /// Line of the instruction.
        line: u32,
    },
    /// A generic address of a space that the instruction cannot reach (a store to kernel parameters, an atomic on
    /// local memory).
    #[error("address {addr:#x} of an invalid space at PTX line {line}")]
    InvalidAddressSpace {
        /// The generic address.
        addr: u64,
        /// Line of the instruction.
        line: u32,
    },
    /// Calls nested too deep, or too much local memory.
    #[error("stack overflow at PTX line {line}")]
    StackOverflow {
        /// Line of the call.
        line: u32,
    },
    /// Every thread of a block waits and none can ever go on. Hardware would hang.
    #[error("barrier deadlock at PTX line {line}")]
    Deadlock {
        /// Line of one waiting instruction.
        line: u32,
    },
    /// The cancel flag was set.
    #[error("cancelled")]
    Cancelled,
}
