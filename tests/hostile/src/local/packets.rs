//! The socket, without manners: any bytes, any descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pci_layout::control::{REPLY_BYTES_MAX, ReplyHeader, RequestHeader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with, sockopt,
};
use zerocopy::{FromBytes, IntoBytes};

/// Most descriptors that Linux passes at once.
pub const FILES_MAX: usize = 253;
/// How long an answer may take. A worker has to start on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// What came from the daemon.
#[derive(Debug)]
pub enum Heard {
    /// An answer.
    Answer(Answer),
    /// It has closed the connection.
    End,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// `ERROR_` value.
    pub error: u32,
    /// What the request called itself.
    pub request_id: u32,
    /// What follows the header.
    pub body: Vec<u8>,
    /// The descriptors that came along.
    pub files: Vec<OwnedFd>,
}

/// A connection.
#[derive(Debug)]
pub struct Packets {
    /// The socket.
    pub socket: OwnedFd,
    last_id: u32,
}

impl Packets {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(LIMIT))?;
        connect(&socket, &SocketAddrUnix::new(path)?).context("the daemon takes no connection")?;
        Ok(Packets { socket, last_id: 0 })
    }

    /// Sends a packet as it is. False: the daemon has closed the connection, or the kernel does not send such a thing.
    pub fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<bool> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            ensure!(
                control.push(SendAncillaryMessage::ScmRights(files)),
                "too many descriptors for our own buffer"
            );
        }
        match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::MSGSIZE | Errno::TOOMANYREFS) => {
                Ok(false)
            }
            Err(error) => Err(error).context("sendmsg"),
        }
    }

    /// Waits for what comes next. `None`: nothing in that time.
    pub fn hear_within(&self, limit: Duration) -> Result<Option<Heard>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; REPLY_BYTES_MAX as usize];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let message =
                match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags) {
                    Ok(message) if message.bytes == 0 => return Ok(Some(Heard::End)),
                    Ok(message) => message,
                    Err(Errno::AGAIN | Errno::INTR) => continue,
                    Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Some(Heard::End)),
                    Err(error) => return Err(error.into()),
                };
            let files = control
                .drain()
                .filter_map(|part| match part {
                    RecvAncillaryMessage::ScmRights(files) => Some(files),
                    _ => None,
                })
                .flatten()
                .collect();
            let bytes = &buffer[..message.bytes];
            let Ok((header, body)) = ReplyHeader::read_from_prefix(bytes) else {
                bail!("an answer of {} bytes", bytes.len());
            };
            ensure!(
                header.len as usize == body.len(),
                "an answer of another length than it says: {header:?}"
            );
            let ReplyHeader { error, request_id, .. } = header;
            return Ok(Some(Heard::Answer(Answer { error, request_id, body: body.to_vec(), files })));
        }
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn hear(&self) -> Result<Heard> {
        self.hear_within(LIMIT)?.with_context(|| format!("the daemon says nothing for {LIMIT:?}"))
    }

    /// A request's bytes, with an id of its own.
    pub fn request(&mut self, kind: u32, session: u32, body: &[u8]) -> Vec<u8> {
        self.last_id = self.last_id.wrapping_add(1);
        let header = RequestHeader { kind, request_id: self.last_id, session, reserved: 0 };
        [header.as_bytes(), body].concat()
    }

    /// Sends a request and waits for its answer, which must be the next thing that comes, or the end.
    pub fn ask(&mut self, kind: u32, session: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<Heard> {
        let bytes = self.request(kind, session, body);
        if !self.send(&bytes, files)? {
            return Ok(Heard::End);
        }
        let heard = self.hear().with_context(|| format!("request of kind {kind}"))?;
        if let Heard::Answer(answer) = &heard {
            ensure!(answer.request_id == self.last_id, "the answer to another request: {answer:?}");
        }
        Ok(heard)
    }
}
