//! A CUDA device made of host threads: the executor for machines that have no GPU.
//!
//! [`Soft`] carries out the calls of one session (`cuda_api::calls::*::Host`) on memory, streams, events and modules of
//! its own; kernels are PTX, run by the interpreter in `ptx`. It is compute capability 8.0.
//!
//! What it is not: fast, or complete. What it does not do keeps the traits' default and is refused by name
//! (CUDA_ERROR_NOT_SUPPORTED): graphs and capture, tensor maps, cooperative launch, clusters.
//! Its attributes say so. Images of machine code only are refused (209); JIT options tune a compiler that is not here
//! and change nothing.
//!
//! Invariants
//! - Device and host addresses are the same: device memory lies in a window of this process ([`WINDOW_BASE`]), pinned
//!   guest memory where the worker mapped it.
//! - Whatever follows an address holds a use of memory meanwhile; memory goes only after it is out of the map and those
//!   who found it have ended.
//! - Bytes of the guest (staging, frames) are copied out before the call returns.
//! - An operation that waits occupies no thread. A thread waits only where CUDA's own call would: synchronisation, a
//!   full stream, a turn in a stream.
//! - After a fault every call answers it, queued work is dropped and running kernels end within milliseconds.
//!
//! Lock order: a table of objects, then the streams, then memory's map, then the uses of memory. No lock is held while an
//! operation runs or a thread waits.
//!
//! | cap | value | unit |
//! |---|---|---|
//! | device memory | [`MEMORY_BYTES_MAX`] | bytes |
//! | operations waiting in a stream | 1024 | operations |
//! | operations running at once | 32 | operations |
//! | bytes of queued host-to-device copies | 256 MiB | bytes |
//! | an image; all images held; texts of loaded modules | 512 MiB; 1 GiB; 512 MiB | bytes |
//! | host threads of a launch | 256 | threads |
//! | contexts, streams, events | 64, 4096, 262144 | objects |
//! | modules, libraries, functions, kernels | 16384, 16384, 262144, 262144 | objects |
//! | physical allocations, pools | 4096, 1024 | objects |

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
mod budget;
mod calls;
mod config;
mod context;
mod device;
mod gate;
mod image;
mod kernel;
mod library;
mod limits;
mod lock;
mod marks;
mod memory;
mod overtake;
mod physical;
mod pools;
mod program;
mod running;
mod shape;
mod soft;
mod space;
mod streams;
mod table;
mod transfer;
mod usage;
mod window;
mod work;

pub use attributes::DEVICE_NAME;
pub use config::{DEVICES_MAX, MEMORY_BYTES_MAX, SoftConfig};
pub use soft::{Soft, Thread};
pub use window::WINDOW_BASE;
