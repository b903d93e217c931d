//! The permit to answer a request once. Whoever holds it owes the guest an answer; dropping it pays the debt with an
//! error, so that a fault on our side never leaves a guest thread waiting for ever.

use std::sync::Arc;

use pci_layout::control::ReplyHeader;
use pci_layout::regs;
use zerocopy::IntoBytes;

use crate::counters::Counters;
use crate::regs::Registers;
use crate::sessions::{SessionError, error_name};

/// Bytes that every answer has at least: its header.
pub const ANSWER_BYTES_MIN: usize = size_of::<ReplyHeader>();

/// How the front takes an answer: the whole of it, at most as long as the room that it named.
pub type Reply = Box<dyn FnOnce(&[u8]) + Send>;

/// What all responders of a device share.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) registers: Arc<Registers>,
    pub(crate) counters: Arc<Counters>,
}

/// The permit to answer one request.
pub struct Responder {
    request_id: u32,
    room: usize,
    reply: Option<Reply>,
    answers: Arc<Answers>,
    /// The registers know of the request.
    recorded: bool,
}

impl Responder {
    pub(crate) fn new(answers: Arc<Answers>, request_id: u32, room: usize, reply: Reply) -> Self {
        Self { request_id, room, reply: Some(reply), answers, recorded: false }
    }

    /// Lets the registers know of the request: it makes them busy, and its outcome shows in them. Not for requests that
    /// only read: reading the registers would else show nothing but itself.
    pub(crate) fn record(&mut self) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.answers.registers.request_begins();
        }
    }

    /// Answers with success and no body.
    pub fn ok(self) {
        self.body(&[]);
    }

    /// Answers with success and a body, or with `ERROR_INVALID_LENGTH` if the guest has left no room for it.
    pub fn body(mut self, body: &[u8]) {
        self.send(regs::ERROR_NONE, 0, body);
    }

    /// Answers with an error.
    pub fn error(mut self, error: SessionError) {
        self.send(error.error, error.cuda_result, &[]);
    }

    /// Answers with an error and a body all the same: the greeting of a device that speaks another version.
    pub fn error_with_body(mut self, error: u32, body: &[u8]) {
        self.send(error, 0, body);
    }

    /// Answers with what an operation came to.
    pub fn result(self, result: Result<(), SessionError>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(error),
        }
    }

    fn send(&mut self, mut error: u32, cuda_result: u32, mut body: &[u8]) {
        let Some(reply) = self.reply.take() else { return };
        if ANSWER_BYTES_MIN.checked_add(body.len()).is_none_or(|len| len > self.room) {
            if error == regs::ERROR_NONE {
                error = regs::ERROR_INVALID_LENGTH;
            }
            body = &[];
        }
        let header = ReplyHeader {
            error,
            request_id: self.request_id,
            // A body longer than its room was cut above, and no front has 4 GiB of room.
            len: u32::try_from(body.len()).unwrap_or(0),
            cuda_result: if error == regs::ERROR_CUDA { cuda_result } else { 0 },
        };
        let mut answer = Vec::with_capacity(ANSWER_BYTES_MIN.saturating_add(body.len()));
        answer.extend_from_slice(header.as_bytes());
        answer.extend_from_slice(body);
        self.answers.counters.answers.count();
        if error != regs::ERROR_NONE {
            self.answers.counters.errors.count();
            log::debug!("request {:#x}: {}", self.request_id, error_name(error));
        }
        if self.recorded {
            self.answers.registers.request_ends(self.request_id, error);
        }
        reply(&answer);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.reply.is_some() {
            self.answers.counters.dropped.count();
            log::error!("request {:#x} was dropped without an answer; it fails", self.request_id);
            self.send(regs::ERROR_INVALID_REQUEST, 0, &[]);
        }
    }
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}
