//! In the VM: everything that a process with `/dev/vgpu` open can do to the kernel module, and through the ring memory that it was
//! given to the worker on the host.

mod device;
mod ioctls;
mod memory;
mod rings;

use anyhow::Result;

use crate::local::Until;
use crate::{Random, Tally};

/// A family of cases.
pub type Family = fn(&mut Random, Until) -> Result<Tally>;

/// Every family, with its name and its share of the time.
pub const FAMILIES: &[(&str, u32, Family)] = &[
    ("ioctls of any number", 2, ioctls::numbers),
    ("ioctls with hostile arguments", 3, ioctls::arguments),
    ("regions", 2, memory::regions),
    ("mmaps", 1, memory::mmaps),
    ("forks and threads", 2, ioctls::processes),
    ("ring memory", 3, rings::scribbled),
];
