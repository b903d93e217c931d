//! A guest that means harm: it owns the memory of its rings, the packets of its control channel and the descriptors of its
//! virtqueues, and keeps none of the rules that the transport crate and the kernel module keep.
//!
//! | module | who is attacked, by what |
//! |---|---|
//! | [`local`] | daemon and worker, over the local socket: frames, indices, control messages, descriptors, churn |
//! | [`queue`] | daemon, as the guest's kernel: descriptor chains, rings, requests, config space over a vhost-user connection |
//! | [`guest`] | the guest's kernel module, as a process in the VM: ioctls, mmaps, and the ring memory that it handed out |
//!
//! Every family of cases takes a seed and a time limit, plays the same cases for the same seed, and returns a [`Tally`]: how many
//! cases it played and what came of them. It fails by itself where the other side broke a rule that can be seen from here (a
//! session that neither goes on nor ends, a reply to a request that was none). That the daemon lives and that others are served
//! rightly meanwhile is for the caller to watch.
//!
//! What it is not: a fuzzer that learns. Those are in `cuda-api/fuzz` and `vgpu-device/fuzz`.

// The tests' own numbers.
#![allow(clippy::cast_possible_truncation)]

pub mod guest;
pub mod local;
pub mod queue;
pub mod random;
mod tally;

pub use random::Random;
pub use tally::Tally;
