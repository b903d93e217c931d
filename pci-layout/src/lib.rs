//! Everything that two sides must agree on byte for byte, and nothing else: PCI and virtio ids, the register block,
//! control and event messages, the command ring, the session page, and the ioctls of `/dev/vgpu`.
//!
//! It is not an implementation of any of them: no logic, no I/O, no allocation, `no_std`. The two ends of the ring live
//! in `pci-layout/ring`, the device in `vgpu-device`, the guest's ends in `guest-driver`.
//!
//! Invariants
//! - Every structure is `repr(C)`, little endian, without hidden padding, and a multiple of 8 bytes.
//! - Numbers are never reused for another meaning. [`ABI_VERSION`] grows when any layout here changes; both sides
//!   refuse to talk across versions.
//! - The C headers in `include/` are generated from these items (`cargo xtask headers`), and a test compiles a C program
//!   that checks every size and offset against them.
//!
//! | module | who reads it |
//! |---|---|
//! | [`ids`], [`regs`] | daemon, kernel module, user-space tools |
//! | [`function`] | daemon, kernel module, programs that map a BAR of the literal PCI function |
//! | [`control`], [`event`] | daemon, kernel module; the local transport speaks the same messages over a socket |
//! | [`ring`] | worker, libcuda's transport |
//! | [`uapi`] | kernel module, libcuda's transport |

#![no_std]

#[macro_use]
mod describe;

pub mod control;
pub mod event;
pub mod function;
pub mod ids;
pub mod regs;
pub mod ring;
pub mod uapi;

pub use describe::{ConstInfo, FieldInfo, StructInfo};

consts! {
    /// The version of every layout in this crate, exchanged in the first control message and at session opening.
    pub const ABI_VERSION: u32 = 1;
    /// The page size that page runs, ring parts and mmap offsets are multiples of, in bytes.
    pub const PAGE_BYTES: u64 = 4096;
}

/// The constants of a module, by the name of the C header section they go to.
pub const CONSTS: &[(&str, &[ConstInfo])] = &[
    ("common", C_CONSTS),
    ("ids", ids::C_CONSTS),
    ("regs", regs::C_CONSTS),
    ("function", function::C_CONSTS),
    ("control", control::C_CONSTS),
    ("event", event::C_CONSTS),
    ("ring", ring::C_CONSTS),
    ("uapi", uapi::C_CONSTS),
];

/// The structures that the C headers declare, in an order in which each is declared before it is used.
pub const STRUCTS: &[(&str, &[StructInfo])] = &[
    ("control", control::C_STRUCTS),
    ("event", event::C_STRUCTS),
    ("ring", ring::C_STRUCTS),
    ("uapi", uapi::C_STRUCTS),
];
