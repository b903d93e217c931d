//! The daemon `vhost-user-vgpu`: QEMU's end, or a local process's end, of the paravirtual GPU device.
//!
//! This crate joins what knows nothing of each other: the device ([`vgpu_device`]: messages in, answers out), the mediator
//! ([`mediator`]: sessions, workers) and a front. It holds no policy and knows no CUDA; what a request means is the
//! device's business, who may have the GPU the mediator's.
//!
//! Three fronts. Behind QEMU ([`connection`], [`front`]): virtqueues over vhost-user, guest memory by the memory table. Behind QEMU as a
//! plain PCI function ([`vfio_user`], [`front`]): the same queues, placed by registers, guest memory by DMA_MAP. Without a VM ([`local`]):
//! a packet socket, memory by memfd. A daemon has one of them, and serves one VM.
//!
//! Invariants
//! - The daemon outlives what it serves. A guest, a process or QEMU may do anything: at worst its request is refused, its
//!   session or its connection ends. Stock QEMU aborts or hangs when its back end dies, so nothing here unwraps what came
//!   from outside, handlers are caught when they panic, and risky work is in the workers' processes.
//! - A message is copied out of guest memory once, bounded by [`pci_layout::control::REQUEST_BYTES_MAX`], then parsed.
//! - Memory handed to workers is a file and a range in it: of QEMU's memory table, or a memfd that cannot shrink.
//! - When a connection ends, every worker of its VM is reaped before the next connection is served.
//!
//! | thread | what it does |
//! |---|---|
//! | main | accepts connections |
//! | vhost-user | one per connection: vhost-user messages |
//! | vfio-user | one per connection: vfio-user messages |
//! | queues | one per connection: kicks and control requests |
//! | function | one per vfio-user connection: resets, and what the mailbox asks for |
//! | local | one per local process: its requests |
//! | watch | signals and the heartbeat |
//! | control | vgpuctl's connections: one that takes them, and one for each |
//!
//! Answers and events are put into guest memory by whichever of the mediator's threads has them. Lock order: [`front`].
//!
//! | constant | value |
//! |---|---|
//! | [`front::QUEUE_SIZE_MAX`] | 1024 descriptors |
//! | [`front::OUTSTANDING_MAX`] | 64 requests |
//! | [`memory::REGIONS_MAX`] | 509 regions |

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unreachable
    )
)]

pub mod args;
pub mod chain;
pub mod configuration;
pub mod connection;
mod control;
pub mod daemon;
pub mod front;
pub mod join;
pub mod local;
pub mod memory;
pub mod messages;
pub mod named;
pub mod program;
mod report;
pub mod socket;
pub mod totals;
pub mod vfio_user;
pub mod watch;
