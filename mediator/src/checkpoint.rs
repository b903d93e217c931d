//! The supervisor's end of the process that has the driver take workers off the GPU (`worker/checkpoint.rs`). It lives as long as one
//! suspend or resume takes.

use std::time::Duration;

use cuda_api::CUresult;
use pci_layout::regs;

use crate::VmConfig;
use crate::channel::{NoAnswer, OrderHeader, kind};
use crate::process::{CHECKPOINTER_WORD, Child};
use crate::worker::Action;

/// How long the driver's library may take to load.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long the driver waits for calls of a worker's that are under way. There should be none.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// What an action may take beyond what moving memory takes.
const ACTION_LIMIT: Duration = Duration::from_secs(30);
/// Device memory comes and goes at least this fast, in bytes a second: a tenth of what an H100 was seen to do.
const SLOWEST_BYTES_PER_SECOND: u64 = 160 << 20;

/// CUprocessState, as far as it says what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Locked,
    Checkpointed,
    /// Nothing can be done with it any more, or the driver says something new.
    Failed(u32),
}

/// Why an action was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The driver's CUresult.
    #[error("{}", CUresult(*.0))]
    Driver(u32),
    /// The worker is in a state in which nothing can be done with it.
    #[error("its CUprocessState is {0}")]
    State(u32),
    /// The process has not answered in time, or is gone. What it was doing may still go on.
    #[error("{0}")]
    Lost(String),
}

/// The process.
pub(crate) struct CheckpointerProcess {
    child: Child,
}

impl CheckpointerProcess {
    /// Starts it, for the devices in `info`. It ends with the calling thread, at the latest.
    ///
    /// # Errors
    /// In words: it cannot be started, or the driver's library cannot be opened.
    pub(crate) fn start(config: &VmConfig, info: &[u8]) -> Result<Self, String> {
        let child = Child::start(config, CHECKPOINTER_WORD).map_err(|error| error.to_string())?;
        let answer = child.ask(OrderHeader::new(kind::CHECKPOINTER), info, &[], START_LIMIT);
        let answer = answer.map_err(|error| why(&error).to_owned())?;
        if answer.error == regs::ERROR_NONE {
            Ok(Self { child })
        } else {
            Err(String::from_utf8_lossy(&answer.tail).escape_debug().to_string())
        }
    }

    /// Does something to a process that has `bytes` of device memory.
    pub(crate) fn act(&self, action: Action, pid: i32, bytes: u64) -> Result<(), Refusal> {
        self.ask(action, pid, bytes).map(|_| ())
    }

    /// The process's state.
    pub(crate) fn state(&self, pid: i32) -> Result<State, Refusal> {
        self.ask(Action::State, pid, 0).map(|number| match number {
            0 => State::Running,
            1 => State::Locked,
            2 => State::Checkpointed,
            other => State::Failed(other),
        })
    }

    /// Free memory of the devices, in bytes, where it is known.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let answer = self.child.ask(OrderHeader::new(kind::FREE_MEMORY), &[], &[], START_LIMIT).ok()?;
        answer.tail.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn ask(&self, action: Action, pid: i32, bytes: u64) -> Result<u32, Refusal> {
        let header = OrderHeader {
            index: pid.unsigned_abs(),
            flags: action.number(),
            len: u64::try_from(LOCK_LIMIT.as_micros()).unwrap_or(u64::MAX),
            ..OrderHeader::new(kind::CHECKPOINT)
        };
        let moving = Duration::from_secs(bytes.div_ceil(SLOWEST_BYTES_PER_SECOND));
        let answer = self.child.ask(header, &[], &[], ACTION_LIMIT.saturating_add(moving));
        let answer = answer.map_err(|error| Refusal::Lost(why(&error).to_owned()))?;
        match answer.error {
            regs::ERROR_NONE => {
                let said = answer.tail.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
                said.ok_or_else(|| Refusal::Lost("it has answered nonsense".to_owned()))
            }
            _ => Err(Refusal::Driver(answer.cuda_result)),
        }
    }
}

fn why(error: &NoAnswer) -> &'static str {
    match error {
        NoAnswer::Lost => "it has ended",
        NoAnswer::Late => "it has not answered in time",
    }
}
