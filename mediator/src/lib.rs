//! Sessions of one VM on the host's GPU: who runs where, who may map what, and how it ends.
//!
//! A *session* is one guest process that uses the GPU, and has one *worker* process here. The supervisor half of this
//! crate ([`Vm`]) lives in the daemon: it starts workers, hands them guest memory, watches them and reaps them. The
//! worker half ([`worker`]) lives in the process it started: it consumes the session's rings directly in guest memory
//! and hands each frame to a [`CallHandler`].
//!
//! It is not a transport (it knows no virtqueue and no guest-physical address: fronts hand it [`Piece`]s of files), and
//! it does not know CUDA: wire ids, arguments and replies are opaque bytes that only the handler understands.
//!
//! Invariants
//! - The supervisor never runs guest work and never maps guest memory: what it tells a guest about a session's state it
//!   writes with `pwrite`, so a file that shrinks underneath costs an error, never a SIGBUS.
//! - Operations of a session are carried out in the order in which they were asked for, on that session's own thread;
//!   no method of [`Vm`] waits for a worker, except [`Vm::stop`], [`Vm::suspend`] and
//!   [`Vm::resume_from_suspend`] (bounded), [`Vm::reset`] and [`Vm::start`].
//! - Every [`Done`] is called exactly once. Where it says that memory is no longer mapped, either the worker unmapped it
//!   or the worker has been reaped. A limit that passes ends in SIGKILL and `waitid`, never in an unpinned page.
//! - A worker serves one session and is never used again. It holds descriptors of its own only: files behind guest memory
//!   come with the order that maps them and are closed once mapped.
//! - Whatever a guest writes into a ring ends at worst its own session ([`pci_layout::event::DEATH_MALFORMED`]).
//! - What workers may have together, and how fast, lies in one page that they share ([`Settings`] and its account of device
//!   memory). What a worker held there is given back once, when it has been reaped.
//!
//! Lock order: the turn to suspend or resume, the session table, then nothing; the settings, then what the guest is told of its
//! devices. No lock is held while a [`Done`] or an [`Events`] method runs.
//!
//! | constant | value | unit |
//! |---|---|---|
//! | [`PINNED_WINDOW`] | `0x1000_0000_0000..0x1800_0000_0000` | user addresses |
//! | [`ORDER_ASK_AFTER`] | 2 | milliseconds |
//! | [`FILES_MAX`] | 16 | files per map order |
//! | [`PROBE_INFO_BYTES_MAX`] | 1 MiB | bytes |

mod atomics;
mod call;
mod channel;
mod checkpoint;
mod config;
mod counters;
mod devices;
mod environment;
pub mod executor;
mod monitor;
mod page;
mod pieces;
mod pool;
mod process;
mod profile;
mod quarantine;
mod readings;
mod session;
mod settings;
mod sharing;
mod snapshot;
mod suspend;
mod turns;
mod vm;
mod vm_page;
pub mod worker;

pub use call::{CallHandler, Frame, Malformed, StagingMemory};
pub use config::{
    Done, Events, ExecutorKind, Limits, Open, Piece, SessionError, StartError, VmConfig, WakeKind,
};
pub use counters::Totals;
pub use pieces::FILES_MAX;
pub use quarantine::Quarantine;
pub use settings::{QuarantineRule, Settings, WEIGHT_MAX};
pub use snapshot::{DeviceSnapshot, SessionSnapshot, Snapshot};
pub use suspend::{Resumed, SuspendError, Suspended};
pub use turns::GateWaits;
pub use vm::{PROBE_INFO_BYTES_MAX, Vm};
pub use worker::{ORDER_ASK_AFTER, PINNED_WINDOW};
