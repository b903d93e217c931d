//! How a guest process reaches its worker: sessions, command rings, shared memory, waits and wakes.
//!
//! It is not CUDA: wire ids and arguments are opaque, results are numbers. It is linked into `libcuda.so.1`, which
//! ordinary programs load, so it has no global constructor and no thread of its own, prints nothing, does not panic on
//! what the other side sends, and calls the kernel directly rather than through newer glibc symbols.
//!
//! | | `vm` | `local` | `bar` |
//! |---|---|---|---|
//! | chosen by | `/dev/vgpu` exists, or `VGPU_TRANSPORT=vm` | `VGPU_SOCKET` is set, or `VGPU_TRANSPORT=local` | else: a plain PCI function is there that may be mapped; or `VGPU_TRANSPORT=bar` |
//! | control | ioctls of `/dev/vgpu` | control messages over a `SOCK_SEQPACKET` socket | control messages through BAR0 |
//! | ring memory | the kernel module's, by mmap | a memfd per ring | parts of BAR1 |
//! | kick | ioctl KICK | write to the worker's kick eventfd | a store to BAR0 |
//! | guest's sleep | ioctl WAIT | futex on the ring's `guest_parked` word | short sleeps |
//! | pinned memory | any user memory | memory made by [`Session::alloc_shared`] | as local, in BAR1 |
//!
//! # The local protocol
//!
//! Messages are those of [`pci_layout::control`], one per packet; a process's requests are serialised, and each is
//! answered before the next. Where a message has page runs, a memfd comes with it by SCM_RIGHTS and [`Run::gpa`] is an
//! offset in it. `OPEN_SESSION` carries session [`SESSION_UNASSIGNED`] and the memfd of the session page
//! (`page_gpa` = 0, [`SESSION_PAGE_BYTES`] long); its answer carries the worker's kick eventfd by SCM_RIGHTS and a body
//! that begins with the slot as a u64. Later requests name that slot. Memfds are sealed against shrinking and growing
//! before they travel, so nobody can make the other side fault. The end of the socket or of the process ends the session.
//!
//! # Fork
//!
//! Every mapping here is left out of a forked child's address space. A child finds out by a page that the kernel wipes
//! on fork ([`is_forked_child`]), before it touches anything: all of [`Session`]'s and [`Ring`]'s methods then answer
//! `ForkedChild`, and dropping either does nothing.
//!
//! # Lock order
//!
//! The session's list of shared areas, then its list of rings or regions, then the request socket. A ring takes no lock
//! after its making except for its staging buffer and its end.
//!
//! [`Run::gpa`]: pci_layout::control::Run
//! [`SESSION_PAGE_BYTES`]: pci_layout::ring::SESSION_PAGE_BYTES

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod areas;
mod bar;
mod device;
mod error;
mod fork;
mod function;
mod local;
mod mapping;
mod ring;
mod session;
mod slots;
mod spin;
mod vm;

pub use areas::AreaError;
pub use device::{
    Device, Kind, environment_is_foreign, pci_function, read_information, read_live_information,
};
pub use error::{CallError, ControlError, OpenError};
pub use fork::is_forked_child;
pub use function::PciFunction;
pub use local::SESSION_UNASSIGNED;
pub use pci_layout::ring::{FRAME_BULK, FRAME_WAIT};
pub use ring::{ReplyData, Ring};
pub use session::{OpenParams, Region, Session};
pub use vgpu_ring::{FrameWriter, SessionState};

/// Bytes of a ring's staging buffer.
pub const STAGING_BYTES: usize = 4 << 20;

const _: () = assert!(STAGING_BYTES <= pci_layout::ring::STAGING_BYTES_MAX as usize);
