//! The process that has the driver take workers off the GPU: one action on one process at a time, as the supervisor says.
//!
//! It holds no context, no memory of a guest and no descriptor but its socket, and ends with its supervisor's interest in it. It is not
//! confined as a worker is: it has to look into workers, and sees nothing that a guest has written.

use std::os::fd::OwnedFd;
use std::time::Duration;

use pci_layout::regs;

use super::{SetupError, answer_error};
use crate::channel::{self, Answer, kind};

/// What is done to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Its calls of the driver are held up.
    Lock,
    /// Its device memory comes to the host, and the device is let go of. It must be locked.
    Checkpoint,
    /// The reverse; it is locked afterwards.
    Restore,
    /// Its calls go on.
    Unlock,
    /// It is asked for its state.
    State,
}

impl Action {
    const ALL: [Self; 5] = [Self::Lock, Self::Checkpoint, Self::Restore, Self::Unlock, Self::State];

    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Lock => 0,
            Self::Checkpoint => 1,
            Self::Restore => 2,
            Self::Unlock => 3,
            Self::State => 4,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.number() == number)
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lock => "cuCheckpointProcessLock",
            Self::Checkpoint => "cuCheckpointProcessCheckpoint",
            Self::Restore => "cuCheckpointProcessRestore",
            Self::Unlock => "cuCheckpointProcessUnlock",
            Self::State => "cuCheckpointProcessGetState",
        })
    }
}

/// What has a driver do it.
pub trait Checkpointer {
    /// Does `action` to the process `pid`. `limit`, not 0, is for [`Action::Lock`]. Answers a CUprocessState for [`Action::State`], else 0.
    ///
    /// # Errors
    /// The driver's CUresult.
    fn act(&mut self, action: Action, pid: i32, limit: Duration) -> Result<u32, u32>;

    /// Free memory of the devices, in bytes, all together; None where nobody knows.
    fn free_bytes(&mut self) -> Option<u64>;
}

/// Serves the supervisor until it is gone.
pub(super) fn serve(
    checkpointer: Result<Box<dyn Checkpointer>, SetupError>,
    socket: &OwnedFd,
) -> std::io::Result<()> {
    let mut checkpointer = match checkpointer {
        Ok(checkpointer) => {
            channel::send_answer(socket, &Answer::default())?;
            checkpointer
        }
        Err(error) => {
            return channel::send_answer(socket, &answer_error(error.error, error.cuda_result, error.reason));
        }
    };
    while let Some(order) = channel::receive_order(socket)? {
        let header = order.header;
        if header.kind == kind::FREE_MEMORY {
            let tail = checkpointer.free_bytes().map(|bytes| bytes.to_le_bytes().to_vec());
            channel::send_answer(socket, &Answer { tail: tail.unwrap_or_default(), ..Answer::default() })?;
            continue;
        }
        let action = Action::from_number(header.flags).filter(|_| header.kind == kind::CHECKPOINT);
        let (Some(action), Ok(pid)) = (action, i32::try_from(header.index)) else { break };
        let answer = match checkpointer.act(action, pid, Duration::from_micros(header.len)) {
            Ok(said) => Answer { tail: said.to_le_bytes().to_vec(), ..Answer::default() },
            Err(result) => Answer { error: regs::ERROR_CUDA, cuda_result: result, tail: Vec::new() },
        };
        channel::send_answer(socket, &answer)?;
    }
    Ok(())
}
