//! The executor for real GPUs: the call table's rows, carried out by NVIDIA's driver.
//!
//! [`Cuda`] serves one session in one worker process. The driver's library is opened at run time and never linked, so
//! that one program runs with and without a GPU. [`probe`] says what the guest learns of the devices, [`Nvml`] reads what they do meanwhile.
//!
//! What it is not: a scheduler, or a second opinion on CUDA's semantics. It translates handles, checks what a guest
//! could use to reach the worker's own memory, and otherwise gives the driver's answers.
//!
//! Invariants
//! - Handles on the wire are names that the guest gave; a driver handle never leaves the process. An object lives until
//!   the last call that uses it has returned: the driver is never given a handle that it has destroyed.
//! - A device range is inside one of this session's allocations, module variables, mapped or registered ranges when a
//!   driver call gets it ([`cuda_api::host::Base::check_range`]). Under unified addressing the driver would otherwise take
//!   an address for the worker's own memory. That is a check, not a lock: a guest thread that frees the range meanwhile
//!   can only hit what its own session's worker has there since.
//! - Images are checked for their extent before the driver reads them: it trusts their headers.
//! - Options and structures with addresses or handles in them are translated or refused; none is passed on as it came.
//! - The driver does not keep callers apart that edit a graph: one lock does (`graph_state`). Graphs and nodes are named as long
//!   as they are there, and what nodes use stays as long as they do.
//! - After a sticky error every call answers it; the process is of no use to CUDA any more.
//! - Host threads of rings run in RELAXED capture mode: a thread's own mode does not travel, and a guest thread that asked
//!   for RELAXED must be able to allocate during a capture. Laxer than the driver: a call that GLOBAL would refuse is done.
//!
//! | cap | value | unit |
//! |---|---|---|
//! | device memory | the VM's quota | bytes |
//! | an image; all images on their way | 512 MiB; 1 GiB | bytes |
//! | contexts, streams, events | 64, 4096, 262144 | objects |
//! | modules, libraries, functions, kernels | 16384, 16384, 262144, 262144 | objects |
//! | graphs, executable graphs, physical allocations | 65536, 65536, 262144 | objects |
//! | pools | 1024 | objects |
//! | arrays with their levels and planes, mipmapped arrays | 65536, 65536 | objects |
//! | texture and surface objects | 262144 | objects |
//! | links, green contexts, their descriptions | 256, 64, 4096 | objects |
//! | multiprocessor resources that are remembered | 16384 | resources |
//! | user objects | 65536 | objects |
//! | graph nodes that are named to the guest | 524288 | nodes |
//! | nodes, a capture's dependencies, entries of a list in one reply | 4096, 2048, 1024 | nodes |

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod attributes;
mod bounce;
mod calls;
mod checkpoint;
mod context;
mod dl;
mod driver;
mod flights;
mod graph_params;
mod graphs;
mod host_functions;
mod image;
mod jit;
mod lock;
mod managed;
mod marks;
mod memory;
mod nvml;
mod objects;
mod pools;
mod prints;
mod ranges;
mod session;
#[cfg(test)]
mod stand_in;
mod table;
mod thread;
mod user_objects;
mod views;
mod watchdog;
mod words;

pub use attributes::{Started, probe, start};
pub use checkpoint::Checkpoint;
pub use dl::{LoadError, preload};
pub use nvml::Nvml;
pub use session::{Config, Cuda, Services, Staged};
pub use thread::Thread;

/// Why there is no GPU to serve with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    /// No usable driver library.
    #[error("the NVIDIA driver's library: {0}")]
    Load(#[from] LoadError),
    /// The driver refused, or has no device.
    #[error("the NVIDIA driver: {call}: {result}")]
    Driver {
        /// The call that failed.
        call: &'static str,
        /// Its answer.
        result: cuda_api::CUresult,
    },
    /// A device has a property under which sessions could not be kept apart or served.
    #[error("device {device} ({name}) cannot be served: {reason}")]
    Device {
        /// The device's ordinal.
        device: i32,
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}
