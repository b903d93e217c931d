//! One connection: its requests one after the other, and the session that it has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log_limit::{LINES, LogLimit, limited};
use pci_layout::control::{
    CLOSE_SESSION, OPEN_SESSION, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, ReplyHeader, RequestHeader, SessionRef,
};
use pci_layout::regs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::Shutdown;
use rustix::process::{PidfdFlags, pidfd_open};
use vgpu_device::SessionId;
use vgpu_device::request::Refusal;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes, IntoBytes};

use super::memory::{Memfd, MessageMemory};
use super::packet::{self, Received};
use super::{Local, SLOT_UNASSIGNED};
use crate::daemon::borrow;

/// Guests and local processes choose how often these lines are due.
static FAILURES: LogLimit = LogLimit::new(LINES);

/// The process at the other end.
pub(super) struct Peer {
    local: Arc<Local>,
    socket: OwnedFd,
    /// Readable once the process has ended. None where it is of another PID namespace: then the connection alone counts.
    process: Option<OwnedFd>,
    session: Mutex<Session>,
    /// A request is being carried out; the next one is looked at when it is answered.
    busy: AtomicBool,
    answered: EventFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    None,
    Opening(SessionId),
    Open(SessionId),
    Closing(SessionId),
}

impl Peer {
    pub(super) fn new(local: Arc<Local>, socket: OwnedFd) -> io::Result<Arc<Self>> {
        let credentials = rustix::net::sockopt::socket_peercred(&socket)?;
        log::debug!("process {:?} of user {} has connected", credentials.pid, credentials.uid.as_raw());
        let process = match pidfd_open(credentials.pid, PidfdFlags::empty()) {
            Ok(process) => Some(process),
            // It has ended already: the connection will say so, if no child holds it.
            Err(rustix::io::Errno::SRCH) => None,
            Err(error) => return Err(error.into()),
        };
        let answered = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Arc::new(Self {
            local,
            socket,
            process,
            session: Mutex::new(Session::None),
            busy: AtomicBool::new(false),
            answered,
        }))
    }

    /// Ends the connection: the process sees it, and so does [`Self::serve`].
    pub(super) fn shut_down(&self) {
        // An error means that it has ended already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// Serves the connection until it or the process ends, then closes its session.
    pub(super) fn serve(self: Arc<Self>) {
        let mut buffer = vec![0; REQUEST_BYTES_MAX as usize];
        loop {
            match self.wait() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    log::error!("waiting for a local process: {error}");
                    break;
                }
            }
            if self.busy.load(Ordering::Acquire) {
                continue;
            }
            match packet::receive(&self.socket, &mut buffer) {
                Ok(Received::Packet { len, truncated, files }) => {
                    let bytes = buffer.get_mut(..len).unwrap_or_default();
                    self.busy.store(true, Ordering::Release);
                    if catch_unwind(AssertUnwindSafe(|| self.take_in(bytes, truncated, files))).is_err() {
                        log::error!("a handler of a local request panicked; the connection ends");
                        break;
                    }
                }
                Ok(Received::Nothing) => {}
                Ok(Received::End) => break,
                Err(error) => {
                    limited!(FAILURES, warn, "a local connection has failed: {error}");
                    break;
                }
            }
        }
        self.shut_down();
        self.end_session();
    }

    /// Waits until there is something to do; false when it is to end.
    fn wait(&self) -> io::Result<bool> {
        let wanted = if self.busy.load(Ordering::Acquire) { PollFlags::empty() } else { PollFlags::IN };
        let mut ready = vec![
            PollFd::new(&self.socket, wanted),
            PollFd::from_borrowed_fd(borrow(&self.answered), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(self.local.stop.wake()), PollFlags::IN),
        ];
        if let Some(process) = &self.process {
            ready.push(PollFd::new(process, PollFlags::IN));
        }
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let of = |index: usize| ready.get(index).map(|fd| fd.revents()).unwrap_or(PollFlags::empty());
        if !of(1).is_empty() {
            let _ = self.answered.read();
        }
        if !of(3).is_empty() {
            log::debug!("a local process has ended");
            return Ok(false);
        }
        // A request that was sent before the end is still to be read: the end shows itself after it.
        let hung_up = of(0).intersects(PollFlags::HUP | PollFlags::ERR) && !of(0).contains(PollFlags::IN);
        Ok(of(2).is_empty() && !hung_up)
    }

    fn take_in(self: &Arc<Self>, bytes: &mut [u8], truncated: bool, mut files: Vec<OwnedFd>) {
        let peer = self.clone();
        let refuse = |error, why| {
            let peer = peer.clone();
            let reply = Box::new(move |answer: &[u8]| peer.answer(answer, None));
            let refusal = Refusal { error, why };
            self.local.device.refuse_message(bytes, refusal, REPLY_BYTES_MAX as usize, reply);
        };
        if truncated {
            return refuse(regs::ERROR_TOO_LARGE, "packet longer than REQUEST_BYTES_MAX");
        }
        let file = files.pop();
        if !files.is_empty() {
            return refuse(regs::ERROR_INVALID_REQUEST, "more than one descriptor came along");
        }
        let memory = match file.map(Memfd::take).transpose() {
            Ok(memfd) => MessageMemory(memfd),
            Err(why) => return refuse(regs::ERROR_INVALID_REQUEST, why),
        };
        let slot = match self.slot_for(bytes) {
            Ok(slot) => slot,
            Err((error, why)) => return refuse(error, why),
        };
        let kind = RequestHeader::read_from_prefix(bytes).map_or(0, |(header, _)| header.kind);
        if let (Some(slot), OPEN_SESSION) = (slot, kind)
            && let Ok((header, _)) = RequestHeader::mut_from_prefix(bytes)
        {
            header.session = slot.get();
        }
        let peer = self.clone();
        let reply = Box::new(move |answer: &[u8]| match (slot, kind) {
            (Some(slot), OPEN_SESSION) => peer.opened(slot, answer),
            (Some(slot), CLOSE_SESSION) => {
                peer.closed(slot, succeeded(answer));
                peer.answer(answer, None);
            }
            _ => peer.answer(answer, None),
        });
        self.local.device.control(bytes, &memory, REPLY_BYTES_MAX as usize, reply);
    }

    /// The session that a request is about: the connection's own, or a free slot if it is to be opened.
    fn slot_for(self: &Arc<Self>, bytes: &[u8]) -> Result<Option<SessionId>, (u32, &'static str)> {
        let Ok((header, _)) = RequestHeader::read_from_prefix(bytes) else { return Ok(None) };
        let mut session = self.session();
        match (header.kind, *session) {
            (OPEN_SESSION, Session::None) if header.session == SLOT_UNASSIGNED => {
                let no_slot = (regs::ERROR_QUEUE_FULL, "no session slot is free");
                let slot = self.local.slots.take().ok_or(no_slot)?;
                *session = Session::Opening(slot);
                self.local.owners().insert(slot, Arc::downgrade(self));
                Ok(Some(slot))
            }
            (OPEN_SESSION, Session::None) => {
                Err((regs::ERROR_INVALID_REQUEST, "local processes do not choose their slot"))
            }
            (OPEN_SESSION, _) => Err((regs::ERROR_INVALID_REQUEST, "a second session on one connection")),
            (CLOSE_SESSION, Session::Open(slot)) if slot.get() == header.session => {
                *session = Session::Closing(slot);
                Ok(Some(slot))
            }
            (_, Session::Open(slot)) if slot.get() == header.session => Ok(Some(slot)),
            // What needs no session has 0 in the field, and the device refuses what does.
            (_, Session::None) if header.session == 0 && !names_session(header.kind) => Ok(None),
            (_, _) if !names_session(header.kind) => Ok(None),
            _ => Err((regs::ERROR_INVALID_REQUEST, "the session of another process, or of none")),
        }
    }

    /// OPEN_SESSION is answered: the answer gets the slot and the descriptor to kick by.
    fn opened(&self, slot: SessionId, answer: &[u8]) {
        let was_opening = {
            let mut session = self.session();
            let was_opening = *session == Session::Opening(slot);
            if was_opening {
                *session = if succeeded(answer) { Session::Open(slot) } else { Session::None };
            }
            was_opening
        };
        if !succeeded(answer) {
            if was_opening {
                self.free(slot);
            }
            return self.answer(answer, None);
        }
        let Some(kick) = self.local.device.kick_fd(slot) else {
            limited!(FAILURES, warn, "session {slot} has ended before its process was told of it");
            return self.shut_down();
        };
        let request_id = ReplyHeader::read_from_prefix(answer).map_or(0, |(header, _)| header.request_id);
        let body = u64::from(slot.get()).to_le_bytes();
        let header = ReplyHeader { error: regs::ERROR_NONE, request_id, len: 8, cuda_result: 0 };
        let mut answer = header.as_bytes().to_vec();
        answer.extend_from_slice(&body);
        self.answer(&answer, Some(&kick));
    }

    fn closed(&self, slot: SessionId, succeeded: bool) {
        if succeeded {
            *self.session() = Session::None;
            self.free(slot);
        } else {
            *self.session() = Session::Open(slot);
        }
    }

    fn free(&self, slot: SessionId) {
        self.local.owners().remove(&slot);
        self.local.slots.give_back(slot);
    }

    fn answer(&self, answer: &[u8], file: Option<&OwnedFd>) {
        if let Err(error) = packet::send(&self.socket, answer, file.map(AsFd::as_fd)) {
            log::debug!("an answer could not be sent: {error}; the connection ends");
            self.shut_down();
        }
        self.busy.store(false, Ordering::Release);
        if let Err(error) = self.answered.write(1) {
            log::error!("cannot report an answer: {error}");
        }
    }

    /// The connection is over: its session is closed, whatever it was at.
    fn end_session(self: &Arc<Self>) {
        let slot = {
            let mut session = self.session();
            match *session {
                Session::Opening(slot) | Session::Open(slot) => {
                    *session = Session::Closing(slot);
                    slot
                }
                // A close that is under way frees the slot when it is done.
                Session::None | Session::Closing(_) => return,
            }
        };
        let header = RequestHeader { kind: CLOSE_SESSION, request_id: 0, session: slot.get(), reserved: 0 };
        let mut message = header.as_bytes().to_vec();
        message.extend_from_slice(SessionRef { reserved: 0 }.as_bytes());
        let peer = self.clone();
        let reply = Box::new(move |answer: &[u8]| {
            if succeeded(answer) {
                peer.closed(slot, true);
            } else {
                log::error!("session {slot} could not be closed; its slot stays taken");
            }
        });
        let memory = MessageMemory::default();
        self.local.device.control(&message, &memory, REPLY_BYTES_MAX as usize, reply);
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        // One store.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn succeeded(answer: &[u8]) -> bool {
    ReplyHeader::read_from_prefix(answer).is_ok_and(|(header, _)| header.error == regs::ERROR_NONE)
}

/// Whether requests of that type are about a session.
fn names_session(kind: u32) -> bool {
    use pci_layout::control::{ADD_RING_PART, MAP_REGION, REMOVE_RING, UNMAP_REGION};
    [OPEN_SESSION, ADD_RING_PART, REMOVE_RING, MAP_REGION, UNMAP_REGION, CLOSE_SESSION].contains(&kind)
}
