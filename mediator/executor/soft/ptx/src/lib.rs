//! A PTX interpreter: the engine of an executor that has no GPU.
//!
//! [`Module::parse`] reads PTX text as NVRTC and nvcc emit it for ordinary CUDA kernels (compute capability 8.0 or
//! below) and lowers every function to a compact internal code. [`Module::link`] gives the module's variables their
//! addresses, [`LinkedModule::launch`] runs a kernel over host threads.
//!
//! What it is not: a compiler (nothing is optimised), a simulator (no timing, no caches) or a complete PTX. Textures,
//! surfaces, tensor cores, clusters, indirect calls and device-side system calls (`malloc`, `__assertfail`; not
//! `vprintf`) are refused at load, by name and line.
//!
//! # Invariants
//! - The text is hostile. Nothing in it makes the parser panic, recurse without bound or allocate without bound.
//! - Refused or right: an instruction, modifier or directive that is not implemented is a [`LoadError`]; nothing is
//!   skipped. At run time only addresses, barriers and calls can fail ([`Fault`]).
//! - Global memory is reached through [`GlobalMemory`] alone, with bounds and alignment checked, and by host atomics,
//!   because blocks run on several host threads. Everything else belongs to the host thread that runs the block.
//! - Results do not depend on the number of workers, save where blocks race through global memory.
//!
//! # Progress
//! One host thread runs one block from start to end. The warps of a block take turns, and so do threads of a warp
//! that have taken different paths, so threads of one block may wait for one another in loops. Blocks may wait for
//! one another where all of them run at once: see [`LaunchConfig::workers`].
//!
//! # Differences from hardware
//! - Approximate functions (`sin.approx`, `ex2.approx`, …) are more precise than on a GPU.
//! - Clocks count nanoseconds. `%smid` is the worker, `%nsmid` the number of workers.
//! - A block whose threads all wait for ever ends with [`Fault::Deadlock`] instead of hanging.
//! - Shared memory is zero when a block begins.

// Conversions that cut are what half of the instructions are about, and row numbers and offsets are capped at load.
#![allow(clippy::cast_possible_truncation)]

mod build;
mod error;
mod module;
mod ops;
mod read;
mod run;
mod types;

pub use error::{Fault, LinkError, LoadError};
pub use module::{Global, Kernel, LinkedModule, Module, Param, Relocation, Space};
pub use run::launch::{LaunchConfig, LaunchStats, MAX_SHARED};
pub use run::memory::{GlobalMemory, LOCAL_WINDOW, PARAM_WINDOW, Range, SHARED_WINDOW};

/// The newest PTX ISA version that is read.
pub const NEWEST_ISA: (u32, u32) = (9, 5);
/// Most bytes of a PTX text.
pub const MAX_TEXT: usize = 64 << 20;
