//! Over the local socket: everything that a process with access to it can do.

pub mod churn;
pub mod control;
pub mod files;
pub mod frames;
pub mod indices;
mod memory;
mod packets;
mod rows;
mod session;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{Random, Tally};

pub use session::{Ended, Session};

/// A family of cases.
pub type Family = fn(&Path, &mut Random, Until) -> Result<Tally>;

/// Every family that plays with fewer than half of the slots, so that others can be served meanwhile; with its name, and its share
/// of the time.
pub const FAMILIES: &[(&str, u32, Family)] = &[
    ("frames of random bytes", 1, frames::random),
    ("rows' frames, mutated", 3, frames::mutated),
    ("forged handles and addresses", 2, frames::forged),
    ("staging that is not there", 1, frames::staging),
    ("ids of no travelling call", 1, frames::unknown),
    ("tickets", 1, frames::tickets),
    ("indices that run away", 2, indices::indices),
    ("a ring that changes under the worker's eyes", 2, indices::moving),
    ("control messages", 2, control::messages),
    ("regions", 1, control::regions),
    ("descriptors", 1, files::files),
    ("opens and closes", 2, churn::churn),
];

/// How long a family may go on.
#[derive(Debug, Clone, Copy)]
pub struct Until(Instant);

impl Until {
    /// So long from now.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Until(Instant::now() + time)
    }

    /// The time is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}
