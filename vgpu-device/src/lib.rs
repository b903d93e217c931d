//! The device: guest bytes become typed requests, and every request gets exactly one answer.
//!
//! It is the part of the back end that does not care where it sits. A front (vhost-user, a unix socket, another bus)
//! hands it the bytes of a control message and a way to answer; behind it stands whoever carries requests out
//! ([`Sessions`]). It knows registers, the control queue's messages, which sessions, rings and regions exist, and the
//! events that go back. It knows no CUDA, no virtqueue, no socket, and it maps no memory: guest memory is a pair of
//! traits ([`GuestMemory`], [`PendingPage`]) that the front gives.
//!
//! Invariants
//! - Guest bytes never panic it: unwrapping, indexing and unchecked arithmetic are denied by lint, unsafe code is
//!   forbidden.
//! - Each request is answered exactly once, by a [`Responder`] that answers even when it is dropped.
//! - Every number is checked before [`Sessions`] sees it: lengths, counts, alignment, reserved fields, and whether the
//!   session, ring or region that it names exists. Memory is named by [`Piece`]s that the front has translated and
//!   bounded.
//! - What is remembered per guest is bounded by [`pci_layout::control::SESSIONS_MAX`] sessions,
//!   [`pci_layout::ring::RINGS_MAX`] rings and [`pci_layout::control::REGIONS_MAX`] regions each.
//! - An event is never lost: wakes coalesce per session, a death stays queued until a buffer carried it or the session
//!   was closed.
//!
//! Locks: the turn (one request or reset at a time), then the session table's, then the event queue's. Only the turn is
//! held while calling [`Sessions`] or a front's reply; [`Done`] and the events do not take it.
//!
//! | module | what |
//! |---|---|
//! | [`ids`] | session, ring and region numbers that were checked |
//! | [`request`] | the parser of control messages |
//! | [`responder`] | the permit to answer once |
//! | [`table`] | which sessions, rings and regions exist |
//! | [`regs`] | the register block |
//! | [`mailbox`] | the registers of the literal PCI function, and the one request beside them |
//! | [`events`] | the queue of events towards the guest |
//! | [`memory`] | guest memory as the front gives it |
//! | [`sessions`] | whoever carries requests out |
//! | [`device`] | the join of them all |

#![forbid(unsafe_code)]
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

pub mod counters;
pub mod device;
pub mod events;
pub mod ids;
pub mod mailbox;
pub mod memory;
pub mod regs;
pub mod request;
pub mod responder;
pub mod sessions;
pub mod table;

#[cfg(test)]
mod tests;

pub use counters::{Counters, CountersSnapshot};
pub use device::{Device, DeviceConfig, Front};
pub use events::{EventQueue, EventSink};
pub use ids::{RegionId, RingId, SessionId};
pub use mailbox::Mailbox;
pub use memory::{GuestMemory, PendingPage, Piece, TranslateError};
pub use responder::Responder;
pub use sessions::{Done, Open, RingPart, SessionError, Sessions, Wake};
