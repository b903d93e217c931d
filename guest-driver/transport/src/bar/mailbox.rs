//! One request, one answer, through the registers of BAR0.

use core::time::Duration;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use pci_layout::control::{ReplyHeader, RequestHeader};
use pci_layout::function::{
    MAILBOX_BAR_BYTES, MAILBOX_BYTES, OFF_MAILBOX_KICK, OFF_MAILBOX_REQUEST, OFF_MAILBOX_RESPONSE,
};
use pci_layout::regs;
use rustix::io;
use rustix::mm::ProtFlags;
use rustix::process::getpid;
use zerocopy::{FromBytes, IntoBytes};

use super::memory::Turn;
use crate::error::ControlError;
use crate::mapping::Mapping;

/// What is read where nobody answers any more.
const GONE: u32 = u32::MAX;
/// Pauses between two looks at STATUS: at first, and at most. Each look is a message between QEMU and the daemon.
const PAUSES: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));

/// The registers.
#[derive(Debug)]
pub(super) struct Mailbox {
    registers: Mapping,
    last_id: AtomicU32,
}

impl Mailbox {
    pub(super) fn new(file: &OwnedFd) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let registers = Mapping::new(file, 0, MAILBOX_BAR_BYTES as usize, prot)?;
        // Other processes' requests have other numbers, so that nobody takes an answer of another's for its own.
        let first = getpid().as_raw_nonzero().get().unsigned_abs() << 16;
        Ok(Self { registers, last_id: AtomicU32::new(first) })
    }

    /// Nobody answers any more.
    pub(super) fn is_gone(&self) -> bool {
        self.get(regs::STATUS) == GONE
    }

    /// A number that is another one, or none, after the function was reset: SCRATCH, which a reset clears. Whoever has the turn first gives it.
    pub(super) fn life(&self, _turn: &Turn<'_>) -> u32 {
        match self.get(regs::SCRATCH) {
            0 => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let life = now.map_or(1, |now| now.subsec_nanos() | 1);
                self.set(regs::SCRATCH, life);
                life
            }
            life => life,
        }
    }

    /// The function was reset since, or nobody answers any more.
    pub(super) fn is_over(&self, life: u32) -> bool {
        self.get(regs::SCRATCH) != life
    }

    /// A session's parked worker is to look at its rings.
    pub(super) fn kick(&self, slot: u32) {
        self.set(OFF_MAILBOX_KICK, slot);
    }

    /// Sends a request and waits for its answer: the bytes after the header.
    pub(super) fn request(
        &self,
        _turn: &Turn<'_>,
        kind: u32,
        session: u32,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, ControlError> {
        let request_id = self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let header = RequestHeader { kind, request_id, session, reserved: 0 };
        let message = [header.as_bytes(), body].concat();
        if message.len() > MAILBOX_BYTES as usize {
            return Err(ControlError::Protocol("a request longer than the mailbox"));
        }
        // A process that has ended in the middle of a request has left it to be carried out.
        self.rest(deadline)?;
        for (at, word) in (OFF_MAILBOX_REQUEST..).step_by(4).zip(message.chunks(4)) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            self.set(at, u32::from_le_bytes(bytes));
        }
        self.set(regs::REQUEST_LEN, u32::try_from(message.len()).unwrap_or(0));
        self.set(regs::DOORBELL, 1);
        self.rest(deadline)?;
        let error = self.get(regs::ERROR_CODE);
        let len = self.get(regs::RESPONSE_LEN).min(MAILBOX_BYTES);
        let mut answer = Vec::with_capacity(len as usize + 3);
        for at in (OFF_MAILBOX_RESPONSE..).step_by(4).take(len.div_ceil(4) as usize) {
            answer.extend_from_slice(&self.get(at).to_le_bytes());
        }
        answer.truncate(len as usize);
        let Ok((reply, rest)) = ReplyHeader::read_from_prefix(&answer) else {
            return Err(match error {
                regs::ERROR_NONE | GONE => ControlError::Dead(0),
                error => ControlError::Refused { error, cuda_result: 0 },
            });
        };
        if reply.request_id != request_id {
            return Err(ControlError::Protocol("the answer to another request"));
        }
        match reply.error {
            regs::ERROR_NONE => Ok(rest.to_vec()),
            error => Err(ControlError::Refused { error, cuda_result: reply.cuda_result }),
        }
    }

    /// Waits until no request is under way.
    fn rest(&self, deadline: Instant) -> Result<(), ControlError> {
        let (mut pause, longest) = PAUSES;
        loop {
            match self.get(regs::STATUS) {
                regs::STATUS_BUSY => {}
                GONE => return Err(ControlError::Dead(0)),
                _ => return Ok(()),
            }
            if Instant::now() >= deadline {
                return Err(ControlError::Timeout);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn get(&self, offset: u32) -> u32 {
        // SAFETY: a register of 32 bits inside the mapping, aligned; it may change at any time.
        unsafe { self.registers.base().as_ptr().add(offset as usize).cast::<u32>().read_volatile() }
    }

    fn set(&self, offset: u32, value: u32) {
        // SAFETY: as for `get`.
        unsafe { self.registers.base().as_ptr().add(offset as usize).cast::<u32>().write_volatile(value) }
    }
}
