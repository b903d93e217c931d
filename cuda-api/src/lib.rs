//! The call table: one row per function that the CUDA driver library exports, and everything that follows from it.
//!
//! What it is: the rows (`calls/<chapter>.rs`, written with the [`cuda_api_macros::calls!`] grammar), the frame encoding
//! that they imply ([`wire`]), the guest's generic half ([`guest`]), the host's dispatch ([`host`]), CUDA's names and
//! numbers ([`types`]), and the device information that the host gives a guest at start ([`info`]).
//!
//! What it is not: it does no I/O, knows no ring, no virtqueue and no GPU. Sending a frame is the `Guest` trait's
//! business, carrying a call out is the `Host` traits'.
//!
//! Invariants
//! - A wire id is never reused; `wire.lock` lists every id that ever travelled, also those of rows that have gone, and a test compares.
//! - Both sides have the same rows: [`fingerprint`] is exchanged when a session opens, and any difference refuses it.
//! - A frame is decoded from a private copy, completely: a byte too few or too many is [`Malformed`].
//! - A handle reaches the wire only after the guest found it live, and an executor only through its own table.
//! - A device range is checked for its full extent by [`host::Base::check_range`] before an executor sees the call.
//!
//! Every exported name has a row. `custom` rows have a hand-written guest half in the file they name; the table holds no
//! code.

#![deny(clippy::unwrap_used, clippy::panic)]

pub mod access;
pub mod account;
pub mod calls;
pub mod completion;
pub mod graph_node;
pub mod guest;
pub mod host;
pub mod host_functions;
pub mod info;
pub mod linked;
pub mod live;
pub mod managed;
pub mod output;
pub mod overtake;
pub mod rows;
pub mod sharing;
pub mod types;
pub mod wire;
pub mod work;

pub use types::CUresult;

/// The driver version that the guest sees, as `cuDriverGetVersion` reports it: CUDA 13.0, whatever newer driver the host has.
pub const DRIVER_VERSION: i32 = 13000;

/// What a call answers: its outputs, or the CUresult that the caller sees.
pub type CuResult<T> = Result<T, CUresult>;

/// A frame is not what its row says. The session that sent it ends; the text goes to the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// How a call is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Answered in the guest from state it already has.
    Local,
    /// Written to the ring, returns at once.
    Posted,
    /// Written to the ring, waits for the reply.
    Sync,
    /// Exported, answers CUDA_ERROR_NOT_SUPPORTED, logged once with its name.
    Refused,
}

impl Class {
    /// The word that the table and the documentation use.
    pub fn word(self) -> &'static str {
        match self {
            Class::Local => "local",
            Class::Posted => "posted",
            Class::Sync => "sync",
            Class::Refused => "refused",
        }
    }
}

/// A row as data.
#[derive(Debug, Clone, Copy)]
pub struct CallInfo {
    /// Wire id.
    pub id: u32,
    /// The exported name.
    pub name: &'static str,
    /// How it is carried.
    pub class: Class,
    /// File of the hand-written guest half.
    pub custom: Option<&'static str>,
    /// The row whose frame its hand-written half sends.
    pub over: Option<&'static str>,
    /// Why it is refused.
    pub reason: Option<&'static str>,
    /// Other exported names of the same function; `true` for the per-thread default stream variants.
    pub aliases: &'static [(&'static str, bool)],
    /// A call of our own: it travels, but is not exported.
    pub internal: bool,
    /// The driver may wait for the GPU in it.
    pub may_block: bool,
    /// The row as written, without its documentation.
    pub shape: &'static str,
    /// The row's documentation.
    pub doc: &'static str,
}

/// A row that travels, as a type. Implemented by the table only.
pub trait Call {
    /// Wire id.
    const ID: u32;
    /// The exported name.
    const NAME: &'static str;
    /// The guest does not wait for it.
    const POSTED: bool;
    /// The driver may wait for the GPU in it.
    const MAY_BLOCK: bool;
    /// How many device ranges it takes.
    const DEVICE_RANGES: usize;
    /// It can carry bytes through staging.
    const BULK: bool;
    /// The frame's fields.
    type In<'a>: wire::Wire<'a>;
    /// The reply's fields.
    type Out: for<'a> wire::Wire<'a>;
}

/// Every row, by chapter.
pub fn chapters() -> impl Iterator<Item = (&'static str, &'static [CallInfo])> {
    calls::CHAPTERS.iter().copied()
}

/// Every row.
pub fn all_calls() -> impl Iterator<Item = &'static CallInfo> {
    chapters().flat_map(|(_, rows)| rows)
}

/// The row with this wire id.
pub fn call_by_id(id: u32) -> Option<&'static CallInfo> {
    all_calls().find(|c| c.id == id)
}

/// The name of the call with this wire id, for logs.
pub fn call_name(id: u32) -> &'static str {
    call_by_id(id).map_or("an unknown call", |c| c.name)
}

/// The driver may wait for the GPU in the call with this wire id, and print what kernels have printed.
pub fn may_block(id: u32) -> bool {
    static ROWS: std::sync::LazyLock<Vec<bool>> = std::sync::LazyLock::new(|| {
        let mut rows = Vec::new();
        for call in all_calls().filter(|call| call.may_block) {
            let at = call.id as usize;
            if rows.len() <= at {
                rows.resize(at + 1, false);
            }
            rows[at] = true;
        }
        rows
    });
    ROWS.get(id as usize).copied().unwrap_or(false)
}

/// The call with this wire id gives the device work: launches, copies, fills, graphs.
pub fn gives_work(id: u32) -> bool {
    matches!(work::work_of(id), work::Work::Launch | work::Work::Copy)
}

/// A hash over every row's id and shape and the layouts of the structures that travel. Exchanged when a session opens.
pub fn fingerprint() -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    for call in all_calls() {
        hash.update(&call.id.to_le_bytes());
        hash.update(call.shape.as_bytes());
        hash.update(&[0]);
    }
    hash.update(&info::VERSION.to_le_bytes());
    for (name, size) in types::TRAVELLING_STRUCTS {
        hash.update(name.as_bytes());
        hash.update(&(*size as u64).to_le_bytes());
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    out
}
