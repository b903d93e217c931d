//! A worker's requests to its supervisor, over a private `SOCK_SEQPACKET` pair of their own: what the sessions of one VM
//! share. Orders are the other way round (`channel.rs`) and have nothing to do with these.
//!
//! A request is one [`Message`], with at most one descriptor, and has exactly one answer of the same form. A worker sends
//! the next only after it, and leaves [`PACE`] between two; the supervisor answers at once, out of a table, on its
//! monitor's thread. Both ends are this same binary, so the layout is nobody else's business; but the worker's end may be
//! a worker that has been taken over, which is why `table.rs` believes nothing that it says.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuda_api::sharing::{Shared, Sharing, TOKEN_BYTES, Token, What};
use cuda_api::{CUresult, CuResult};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::channel;

mod table;

pub(crate) use table::{Owner, Tokens};

/// The time that a worker leaves between two requests.
const PACE: Duration = Duration::from_micros(500);
/// How long a worker waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Kinds of requests.
mod kind {
    pub(super) const SHARE: u32 = 1;
    pub(super) const OPEN: u32 = 2;
    pub(super) const WITHDRAW: u32 = 3;
}

/// A request or its answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Message {
    /// A [`kind`] in a request, a CUresult in an answer.
    kind: u32,
    /// A [`What`].
    what: u32,
    len: u64,
    token: Token,
    handle: [u8; TOKEN_BYTES],
}

fn what_of(number: u32) -> Option<What> {
    [What::Memory, What::Event, What::Allocation, What::Pool].into_iter().find(|what| *what as u32 == number)
}

fn send(socket: impl AsFd, message: &Message, file: Option<&OwnedFd>) -> std::io::Result<()> {
    let files: Vec<_> = file.map(AsFd::as_fd).into_iter().collect();
    channel::send(socket, &[IoSlice::new(message.as_bytes())], &files)
}

/// The next message; None at the end of the socket. Never waits.
fn receive(socket: impl AsFd) -> std::io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut message = Message::new_zeroed();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(message.as_mut_bytes())];
        rustix::net::recvmsg(&socket, &mut parts, &mut control, flags)
    })?;
    let mut file = None;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = ancillary {
            file = descriptors.last();
        }
    }
    match received.bytes {
        0 => Ok(None),
        bytes if bytes == size_of::<Message>() => Ok(Some((message, file))),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

/// A worker's end.
pub(crate) struct Requests {
    state: Mutex<State>,
}

struct State {
    /// None once an answer has failed to come: a late one would be taken for another's.
    socket: Option<OwnedFd>,
    last: Option<Instant>,
}

impl Requests {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { state: Mutex::new(State { socket: Some(socket), last: None }) }
    }

    fn ask(&self, message: &Message, file: Option<&OwnedFd>) -> CuResult<(Message, Option<OwnedFd>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = state.last {
            std::thread::sleep(PACE.saturating_sub(last.elapsed()));
        }
        state.last = Some(Instant::now());
        let socket = state.socket.as_ref().ok_or(CUresult::OPERATING_SYSTEM)?;
        let answer = send(socket, message, file)
            .and_then(|()| channel::wait_readable(socket, ANSWER_LIMIT))
            .and_then(|came| if came { receive(socket) } else { Ok(None) });
        match answer {
            Ok(Some((answer, file))) if answer.kind == CUresult::SUCCESS.0 => Ok((answer, file)),
            Ok(Some((answer, _))) => Err(CUresult(answer.kind)),
            other => {
                log::error!("the supervisor does not answer a request: {:?}", other.err());
                state.socket = None;
                Err(CUresult::OPERATING_SYSTEM)
            }
        }
    }
}

impl Sharing for Requests {
    fn share(&self, shared: Shared) -> CuResult<Token> {
        let Shared { what, len, handle, file } = shared;
        let message = Message { kind: kind::SHARE, what: what as u32, len, token: [0; TOKEN_BYTES], handle };
        self.ask(&message, file.as_ref()).map(|(answer, _)| answer.token)
    }

    fn open(&self, what: What, token: &Token) -> CuResult<Shared> {
        let message = Message { kind: kind::OPEN, what: what as u32, token: *token, ..Message::new_zeroed() };
        let (answer, file) = self.ask(&message, None)?;
        Ok(Shared { what, len: answer.len, handle: answer.handle, file })
    }

    fn withdraw(&self, token: &Token) {
        let message = Message { kind: kind::WITHDRAW, token: *token, ..Message::new_zeroed() };
        if let Err(error) = self.ask(&message, None) {
            log::debug!("a token is not withdrawn: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// A supervisor with a thread for each worker that asks.
    fn worker(tokens: &Arc<Tokens>, session: u32) -> (Requests, Arc<Owner>) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("pair");
        let owner = Arc::new(tokens.owner(session));
        let (tokens, of_thread) = (tokens.clone(), owner.clone());
        std::thread::spawn(move || {
            while channel::wait_readable(&ours, Duration::from_secs(10)).is_ok_and(|came| came)
                && tokens.serve(&of_thread, ours.as_fd())
            {}
        });
        (Requests::new(theirs), owner)
    }

    fn memory(len: u64, byte: u8) -> Shared {
        Shared { what: What::Memory, len, handle: [byte; TOKEN_BYTES], file: None }
    }

    #[test]
    fn what_one_shares_another_opens_and_only_by_its_token() {
        let tokens = Arc::new(Tokens::default());
        let ((exporter, _), (importer, _)) = (worker(&tokens, 1), worker(&tokens, 2));
        let token = exporter.share(memory(4096, 7)).expect("shared");
        let other = exporter.share(memory(4096, 7)).expect("shared");
        assert_ne!(token, other);
        let opened = importer.open(What::Memory, &token).expect("opened");
        assert_eq!((opened.len, opened.handle), (4096, [7; TOKEN_BYTES]));
        // Forged: the driver's handle, zeros, one bit off, another kind.
        let mut off = token;
        off[63] ^= 1;
        for forged in [[7; TOKEN_BYTES], [0; TOKEN_BYTES], off] {
            let refused = importer.open(What::Memory, &forged).expect_err("refused");
            assert_eq!(refused, CUresult::INVALID_VALUE);
        }
        assert_eq!(importer.open(What::Event, &token).expect_err("refused"), CUresult::INVALID_VALUE);
    }

    #[test]
    fn a_token_dies_with_its_object_and_with_its_session() {
        let tokens = Arc::new(Tokens::default());
        let ((exporter, owner), (importer, _)) = (worker(&tokens, 1), worker(&tokens, 2));
        let [first, second] = [1, 2].map(|byte| exporter.share(memory(1, byte)).expect("shared"));
        importer.withdraw(&first);
        assert!(importer.open(What::Memory, &first).is_ok(), "not the importer's to withdraw");
        exporter.withdraw(&first);
        assert!(importer.open(What::Memory, &first).is_err());
        assert!(importer.open(What::Memory, &second).is_ok());
        tokens.forget(&owner);
        assert!(importer.open(What::Memory, &second).is_err());
        assert!(exporter.share(memory(1, 3)).is_err(), "its session has ended");
    }

    #[test]
    fn a_descriptor_travels_with_its_token() {
        let tokens = Arc::new(Tokens::default());
        let ((exporter, _), (importer, _)) = (worker(&tokens, 1), worker(&tokens, 2));
        let file = rustix::fs::memfd_create("shared", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::io::write(&file, b"content").expect("written");
        let shared = Shared { what: What::Allocation, file: Some(file), ..memory(7, 0) };
        let token = exporter.share(shared).expect("shared");
        for _ in 0..2 {
            let opened = importer.open(What::Allocation, &token).expect("opened");
            let mut content = [0; 7];
            channel::read_exact_at(opened.file.expect("a file"), &mut content).expect("read");
            assert_eq!(&content, b"content");
        }
    }

    #[test]
    fn a_worker_that_asks_without_end_is_not_answered() {
        let tokens = Arc::new(Tokens::default());
        let (evil, owner) = worker(&tokens, 1);
        owner.freeze();
        let socket = evil.state.lock().expect("lock").socket.take().expect("socket");
        let message = Message { kind: kind::OPEN, what: 1, ..Message::new_zeroed() };
        let mut answers = 0u32;
        for _ in 0..100_000 {
            if send(&socket, &message, None).is_err()
                || !channel::wait_readable(&socket, Duration::from_millis(100)).expect("poll")
                || !matches!(receive(&socket), Ok(Some(_)))
            {
                break;
            }
            answers += 1;
        }
        assert!(answers < 100_000, "{answers}");
    }

    #[test]
    fn nonsense_ends_the_talk() {
        let tokens = Arc::new(Tokens::default());
        let (evil, _) = worker(&tokens, 1);
        let socket = evil.state.lock().expect("lock").socket.take().expect("socket");
        channel::send(&socket, &[IoSlice::new(&[1, 2, 3])], &[]).expect("sent");
        assert!(channel::wait_readable(&socket, Duration::from_secs(5)).expect("poll"));
        assert!(matches!(receive(&socket), Ok(None) | Err(_)));
    }
}
