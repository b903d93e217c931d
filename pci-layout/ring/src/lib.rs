//! Both ends of the command ring, and of the session page, over raw shared memory.
//!
//! It is not a transport: it makes no system call, maps nothing, sleeps nowhere and starts no thread. It says *when* a
//! side may sleep and *whom* to wake; how (a kick, an ioctl, a futex) is its caller's business. It does not know what a
//! call is: wire ids and arguments are opaque bytes.
//!
//! | type | who holds it |
//! |---|---|
//! | [`RingMemory`] | both: the mapping, by its base address |
//! | [`Producer`], [`FrameWriter`] | the guest thread that owns the ring |
//! | [`Consumer`], [`FrameBuffer`] | the worker's thread for that ring |
//! | [`FrontView`] | the worker's other ring threads, for the order rule between rings |
//! | [`SessionPageMemory`] | both: state and wake bits of the whole session |
//!
//! # Shared memory is never a reference
//!
//! The other side may write any byte at any time, also against the rules. A `&[u8]` over such memory would tell the
//! compiler that the bytes stand still, which lets it read them twice and believe both. So every access is an atomic
//! one: words by their own atomics, bulk bytes by relaxed atomic copies. One exception: the guest writes a frame that
//! it has not published yet with plain copies through raw pointers, since nobody may touch those bytes before `head`
//! says so (and a host that reads them early reads garbage, which is not the guest's harm).
//!
//! # What the host may rely on
//!
//! Nothing in the memory. [`Consumer`] reads `head` once per step, checks it against its own position, reads the front
//! header once, checks it, copies the arguments out once, and from then on uses its copy. It never reads back what it
//! wrote (`tail`, replies). All its failures are [`RingError`]s; this crate denies panics, indexing and unchecked
//! arithmetic.
//!
//! # Frames
//!
//! A frame is [`FrameHeader`](pci_layout::ring::FrameHeader) and arguments, a multiple of
//! [`FRAME_ALIGN`](pci_layout::ring::FRAME_ALIGN) bytes; the writer fills up with zeros, so arguments seen by the host
//! may end in up to 7 zero bytes. A frame lies in one piece. Where it would pass the end of the frame area, a pad frame
//! fills the rest; a rest too short for a frame header (8 or 16 bytes) is padding by itself.
//!
//! [`Producer::reserve`] asks for half of the area ([`SPACE_BYTES`]) to be free, so that a frame of any length fits
//! wherever the end of the area lies, and a writer needs no length in advance.
//!
//! # Park and wake
//!
//! Each direction is the same three steps on both sides: *store, SeqCst fence, load*. Of two sides that do so at least
//! one sees the other's store; release and acquire alone would lose wake-ups.
//!
//! | who sleeps | stores | fence, then loads | who wakes | stores | fence, then loads |
//! |---|---|---|---|---|---|
//! | host thread, for frames | `host_parked` = 1 | `head` | guest | `head` | `host_parked`; if 1: kicks |
//! | guest, for reply or bulk | `guest_parked` = 1 | reply ticket, `bulk_done` | host | those | `guest_parked`; if 1: exchanges it with 0 and wakes |
//! | guest, for space | `guest_parked` = 2 | `tail` | host | `tail` | `guest_parked`; if 2 and half is free: the same |
//!
//! The sleeper clears its own flag when it is up. The host takes the guest's flag with the wake: one sleep costs one
//! wake, and a guest that finds too little done announces its next sleep anew.
//!
//! The guest does *not* take the host's flag, though that would spare kicks while the host gets up. Whoever receives a
//! kick wakes only threads whose ring has data ([`FrontView::has_data`]), and a kick may arrive after its frame was
//! taken: then nobody is woken, and a flag that had been taken with that kick would let the next frame go unheard.
//!
//! `tests/loom.rs` runs this code, not a copy of it, under loom.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(not(target_endian = "little"))]
compile_error!("the layouts are little endian and read without conversion");

mod atomics;
mod consumer;
mod frame;
mod front;
mod memory;
mod producer;
mod session;
mod shared;
mod writer;

pub use consumer::{Consumer, ReplyTooLong};
pub use frame::{Frame, FrameBuffer, Front, RingError};
pub use front::{Blocking, FrontView};
pub use memory::RingMemory;
pub use producer::{Producer, ReplyHeader, WaitFor};
pub use session::{SessionPageMemory, SessionState};
pub use writer::{FrameFields, FrameTooLong, FrameWriter};

use pci_layout::ring::{FRAME_AREA_BYTES, FRAME_BYTES_MAX};

/// Free bytes in the frame area that the guest needs before it writes a frame, and waits for when it sleeps for space:
/// half of the area. Room for the longest frame and for the longest pad before it.
pub const SPACE_BYTES: u64 = FRAME_AREA_BYTES as u64 / 2;

/// Bytes of the frame header.
pub const FRAME_HEADER_BYTES: usize = size_of::<pci_layout::ring::FrameHeader>();

const _: () = assert!(SPACE_BYTES >= 2 * FRAME_BYTES_MAX as u64);
const _: () = assert!(FRAME_AREA_BYTES.is_power_of_two());
