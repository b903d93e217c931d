//! The machine room: everything that fetches, unpacks, builds guest images and boots QEMU.
//!
//! Used by `cargo xtask vm` and by the whole-stack tests. It starts from a machine that has Rust, gcc, make,
//! python3 with pip and the package sources of its distribution, and leaves that machine as it found it: whatever is
//! fetched lies under `target/`, no file outside is written, and nothing but [`system`] needs root.
//!
//! | module | what it does |
//! |---|---|
//! | [`packages`] | gets distribution packages through the machine's own apt sources and unpacks them |
//! | [`carry`] | puts a QEMU and what it needs into one folder, for a machine that has neither it nor a network |
//! | [`qemu`] | finds a QEMU that can do what is asked, or unpacks one; starts it; speaks QMP to it |
//! | [`kernel`] | guest kernels, their headers, and out-of-tree modules built against them |
//! | [`initramfs`] | packs a small root file system for the guest |
//! | [`system`] | makes the disk of a whole Debian, for a guest that is installed like a user's |
//! | [`guest`] | boots the three together; runs commands in the guest and moves files |
//! | [`wheels`] | gets NVIDIA's redistributable wheels by name |
//! | [`nvrtc`] | compiles CUDA C++ to PTX with the compiler library out of such a wheel |
//!
//! What it is not: it knows nothing of the device under test. A test passes the socket that the back end listens on
//! ([`qemu::Attachment`]) and the module that the guest loads.
//!
//! Invariants:
//! - Every wait has a time limit, and a failure shows the end of the guest's console.
//! - No QEMU outlives the process that started it ([`supervise`]).
//! - A folder under `target/guest` is either complete (it has a stamp) or made again from nothing. Two processes that
//!   want the same one take turns ([`cache`]).

pub mod cache;
pub mod carry;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod nvrtc;
pub mod packages;
pub mod progress;
pub mod qemu;
pub mod supervise;
pub mod system;
pub mod wheels;

use std::path::PathBuf;

/// The root folder of this repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")))
}

/// A folder of fetched or built things under `target/`, for example `guest` or `wheels`.
#[must_use]
pub fn store(name: &str) -> PathBuf {
    repository().join("target").join(name)
}
