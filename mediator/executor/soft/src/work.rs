//! What an operation of a stream does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cuda_api::completion::Completion;
use cuda_api::types::CopyShape;

use crate::budget::Hold;
use crate::gate::{Gate, Mark};
use crate::program::Launch;
use crate::transfer::{Fill, Until, Word};

/// A wait for a word in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitValue {
    pub(crate) address: u64,
    pub(crate) word: Word,
    pub(crate) until: Until,
}

/// A ring's completion word, and what it is to say.
pub(crate) struct Signal {
    pub(crate) completion: Arc<dyn Completion>,
    pub(crate) ring: u32,
    pub(crate) value: u64,
}

impl Signal {
    /// The word says so now; what was done before is seen by who reads it.
    pub(crate) fn store(&self) {
        if let Some(word) = self.completion.word(self.ring) {
            // SAFETY: 8 aligned bytes that stay mapped as long as the session, which `completion` belongs to; reached through atomics
            // only.
            unsafe { AtomicU64::from_ptr(word.as_ptr()) }.store(self.value, Ordering::Release);
        }
    }
}

/// A function of the guest's, by the guest's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostCall {
    pub(crate) token: u64,
    /// It is called on a lost device as well, and told so.
    pub(crate) is_callback: bool,
}

/// An operation.
pub(crate) enum Work {
    /// Nothing by itself: what it waits for counts.
    Nothing,
    /// An event.
    Mark(Arc<Mark>),
    /// A host thread's turn; it carries the operation out itself.
    Turn(Arc<Gate>),
    /// A kernel.
    Kernel(Box<Launch>),
    /// Bytes of the guest, copied when the call was made.
    CopyIn {
        to: u64,
        bytes: Box<[u8]>,
        /// Returns the bytes to the budget.
        hold: Hold,
    },
    /// Rows of the guest's, without gaps, copied when the call was made.
    ShapeIn {
        shape: CopyShape,
        bytes: Box<[u8]>,
        /// Returns the bytes to the budget.
        hold: Hold,
    },
    /// A copy of any shape between device addresses.
    Shape(CopyShape),
    /// A copy between device addresses.
    Copy { to: u64, from: u64, len: u64 },
    /// A fill.
    Fill(Fill),
    /// Stores a word.
    WriteValue { address: u64, word: Word },
    /// Stores a completion word.
    Signal(Signal),
    /// Waits for a word.
    WaitValue(WaitValue),
    /// Memory of a pool is the pool's again.
    Free { address: u64 },
    /// A function of the guest's.
    Host(HostCall),
}
