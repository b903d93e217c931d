//! `libcuda.so.1`: the CUDA driver library of a VM that has no GPU. Programs and NVIDIA's own libraries link or dlopen it by its
//! ordinary name; it answers what the guest can know and forwards the rest through the session's rings.
//!
//! What it is not: it never executes GPU code, keeps no copy of device memory but for managed variables ([`managed`]), and decides nothing about who may use the
//! GPU. It trusts the application as CUDA does, and the host's replies only as far as they cannot hurt this process.
//!
//! | where | what |
//! |---|---|
//! | [`exports`] | every symbol of driver 580, made from the call table |
//! | [`process`] | the process's session, devices, object tables; fork and exit |
//! | [`thread`] | the calling thread's ring and stack of contexts |
//! | [`gate`] | how a row's frame gets onto the ring and its reply back |
//! | `staging`, `copying` | bytes of the program's through the ring's staging buffer, copied by several threads |
//! | [`objects`], [`ranges`] | what is alive: handles, and addresses with what they are |
//! | the others | hand-written guest halves, by chapter; each file is named in the rows that use it |
//!
//! Invariants
//! - No call panics across the C boundary or prints to stdout, except what kernels print. Threads are started by the first function that the
//!   device is to call ([`host_function`]), by the first managed variable ([`managed::watch`]), and by the first long copy of pageable
//!   memory (`copying`).
//! - A call is posted only where everything that the driver would refuse at once has been checked here. A row's first call waits
//!   (the executor may not have it), and a launch waits until the driver has launched the function in that configuration.
//! - An error of a posted call comes out of this thread's next call that travels, instead of it and before it has done anything; or
//!   at the end of the call that has waited for the work. Never in the middle of a call, and once.
//! - What a failing call was to end is as it was before: state goes when the worker has answered.
//! - In a forked child every call answers CUDA_ERROR_NOT_INITIALIZED; nothing of the parent's session is touched.
//! - At process exit a call may come after everything else is gone: it answers CUDA_ERROR_DEINITIALIZED.
//! - Lock order: `context` → `module`/`library` → `managed::variables` → `objects` → `ranges`; no lock is held while a frame waits for
//!   its reply, except those under which something is made once (a primary context, and what a module or library is asked for by name),
//!   a link's, which CUDA lets one thread use at a time, and that of managed variables, whose frames wait for nothing.
//!
//! Settings (environment): `VGPU_TRANSPORT`, `VGPU_SOCKET` (see the `transport` crate), `VGPU_STRICT=1` (every call waits),
//! `VGPU_LOG=1` (what is refused or goes wrong, on stderr, once per name; unset: only refusals are counted).

#![allow(non_snake_case, reason = "entry points and their halves have CUDA's names")]
#![allow(
    clippy::missing_safety_doc,
    reason = "each half's contract is CUDA's own with the caller of that function"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "addresses and lengths: u64 and usize are the same here, see below"
)]

const _: () =
    assert!(size_of::<usize>() == size_of::<u64>(), "CUDA's driver library exists for 64-bit machines only");

pub mod answers;
pub mod array;
pub mod array_copy;
pub mod capture;
pub mod cls;
pub mod compile_cache;
pub mod context;
pub mod context_settings;
pub mod copy;
pub mod copy_batch;
pub mod copy_shape;
mod copying;
pub mod device;
pub mod device_links;
pub mod entry;
pub mod enumerate;
pub mod event;
pub mod export_table;
pub mod exports;
pub mod freed;
pub mod function;
pub mod gate;
pub mod graph;
pub mod graph_add;
pub mod graph_get;
mod graph_node;
mod graph_pageable;
pub mod graph_set;
pub mod green;
pub mod host_function;
pub mod host_memory;
pub mod host_node;
pub mod image;
pub mod integrity;
pub mod ipc;
pub mod launch;
pub mod library;
pub mod link;
pub mod log;
pub mod logs;
pub mod managed;
pub mod memory;
pub mod module;
pub mod objects;
pub mod occupancy;
pub mod old_launch;
pub mod order;
pub mod output;
pub mod pointer;
pub mod pools;
pub mod proc_address;
pub mod process;
pub mod ranges;
pub mod reserve;
pub mod shareable;
mod staging;
pub mod stream;
pub mod stream_attribute;
pub mod stream_words;
pub mod tensor_map;
pub mod texture;
pub mod thread;
pub mod virtual_memory;
pub mod waiting;
