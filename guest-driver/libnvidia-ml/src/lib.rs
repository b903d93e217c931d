//! `libnvidia-ml.so.1`: the NVML library of a VM that has no GPU. Programs and libraries (NCCL, PyTorch, JAX, nvidia-ml-py, monitors) load
//! it by its ordinary name to learn what devices there are.
//!
//! What it is not: it opens no session and no context, changes nothing (the devices are the host's: setters answer NO_PERMISSION), and makes
//! nothing up. What the daemon does not tell is NOT_SUPPORTED, which NVML's users know from real devices as well; docs/nvml.md says of
//! each symbol what becomes of it and why.
//!
//! | where | what |
//! |---|---|
//! | [`table`] | every symbol of driver 580: answered by which function, or refused with which code and why; the page docs/nvml.md |
//! | [`exports`] | the C functions, made from the table |
//! | [`state`] | whether NVML is started, and what the daemon told when it was |
//! | [`live`] | what changes, asked of the daemon each time |
//! | [`machine`] | the devices in NVML's order, their handles |
//! | [`answer`] | nvmlReturn_t, and how results get into the caller's memory |
//! | the others | what is answered, by subject |
//!
//! Invariants
//! - No call panics across the C boundary, and none prints, except to stderr where `VGPU_LOG` is set.
//! - A handle is a device that is there, or INVALID_ARGUMENT; it is compared, never followed.
//! - A structure is written whole and in the version that its caller named, or not at all; a text with its NUL, or not at all.
//! - There are no locks and no thread, and nothing is kept open between calls: a forked child may go on with NVML where its parent was,
//!   or start it anew.
//! - What the daemon says is decoded with its bounds checked ([`cuda_api::info`]); a number that makes no sense is not passed on.
//!
//! Settings (environment): `VGPU_TRANSPORT`, `VGPU_SOCKET` (see the `transport` crate), `VGPU_LOG=1` (what is refused, once per name, and
//! why no device was found).

#![allow(non_snake_case, reason = "entry points have NVML's names")]
#![allow(
    clippy::missing_safety_doc,
    reason = "each half's contract is NVML's own with the caller of that function"
)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod answer;
pub mod clocks;
pub mod exports;
pub mod fields;
pub mod find;
pub mod identity;
pub mod links;
pub mod live;
pub mod load;
pub mod log;
pub mod machine;
pub mod memory;
pub mod modes;
pub mod nvlink;
pub mod processes;
pub mod state;
pub mod system;
pub mod table;
