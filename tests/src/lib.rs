//! The whole stack, put together for tests and for the demonstration: the daemon, the guest library, the kernel module, test
//! programs, and a VM (or none) that runs them.
//!
//! | module | what it makes |
//! |---|---|
//! | [`artifacts`] | the daemon, `libcuda.so.1`, the kernel module |
//! | [`programs`] | the C and CUDA programs of `tests/programs` |
//! | [`daemon`] | a running daemon, its totals, its end |
//! | [`vm`] | a guest with all of it in place |
//! | [`local`] | a program of this host against the daemon's local socket |
//! | [`place`] | either of the two, for checks that run in both |
//!
//! What it is not: it makes no claims. The claims are in the tests.

pub mod artifacts;
pub mod daemon;
pub mod local;
pub mod place;
pub mod programs;
pub mod vm;
