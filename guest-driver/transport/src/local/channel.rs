//! One request, one answer, over a packet socket.

use core::mem::MaybeUninit;
use core::time::Duration;
use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Instant;

use pci_layout::control::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX, ReplyHeader, RequestHeader};
use pci_layout::regs::ERROR_NONE;
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{ControlError, OpenError};

/// A daemon that does not even take the connection, or a packet, in this time does not run.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// The socket and the numbering of its requests.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<OwnedFd>,
    last_id: u32,
    /// An answer is received into this; made at the first request.
    buffer: Vec<u8>,
}

impl Channel {
    pub(super) fn connect(path: &OsStr) -> Result<Self, OpenError> {
        let shown = || path.to_string_lossy().into_owned();
        let system = |errno| OpenError::System { what: "socket", errno };
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(system)?;
        set_socket_timeout(&socket, Timeout::Send, Some(SEND_LIMIT)).map_err(system)?;
        let address = SocketAddrUnix::new(path).map_err(|_| OpenError::NotFound { path: shown() })?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => return Ok(Self { socket: Arc::new(socket), last_id: 0, buffer: Vec::new() }),
                Err(Errno::INTR) => {}
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(OpenError::NotFound { path: shown() }),
                Err(Errno::ACCESS | Errno::PERM) => {
                    return Err(OpenError::PermissionDenied { path: shown() });
                }
                Err(errno) => return Err(OpenError::NotAnswering(errno)),
            }
        }
    }

    /// The socket, for those who only look whether its other end is still there.
    pub(super) fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    fn send(
        &self,
        header: &RequestHeader,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), ControlError> {
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
        let fds = fd.as_slice();
        loop {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(ControlError::Protocol("no room for a descriptor"));
            }
            match sendmsg(&*self.socket, &parts, &mut control, SendFlags::NOSIGNAL) {
                // Packets go as a whole or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failure("sendmsg", errno)),
            }
        }
    }

    /// The next packet: its length in `buffer`, and the descriptor that came along.
    fn receive(&mut self, deadline: Instant) -> Result<(usize, Option<OwnedFd>), ControlError> {
        self.buffer.resize(REPLY_BYTES_MAX as usize, 0);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ControlError::Timeout);
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&*self.socket, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(ControlError::Timeout),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(failure("poll", errno)),
            }
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let message = match recvmsg(&*self.socket, &mut parts, &mut control, flags) {
                Ok(message) => message,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(errno) => return Err(failure("recvmsg", errno)),
            };
            let mut fds = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            let fd = fds.next().and_then(|mut fds| fds.next());
            if message.bytes == 0 {
                return Err(ControlError::Dead(0));
            }
            if message.flags.contains(ReturnFlags::TRUNC) {
                return Err(ControlError::Protocol("an answer longer than an answer may be"));
            }
            return Ok((message.bytes, fd));
        }
    }
}

/// Sends a request and waits for its answer: the bytes after the header, and the descriptor that came along.
pub(super) fn request(
    channel: &Mutex<Channel>,
    kind: u32,
    session: u32,
    body: &[u8],
    fd: Option<BorrowedFd<'_>>,
    limit: Duration,
) -> Result<(Vec<u8>, Option<OwnedFd>), ControlError> {
    if size_of::<RequestHeader>() + body.len() > REQUEST_BYTES_MAX as usize {
        return Err(ControlError::Protocol("a request longer than a request may be"));
    }
    let deadline = Instant::now() + limit;
    let mut channel = lock_until(channel, deadline)?;
    let request_id = channel.last_id.wrapping_add(1);
    channel.last_id = request_id;
    channel.send(&RequestHeader { kind, request_id, session, reserved: 0 }, body, fd)?;
    loop {
        let (len, fd) = channel.receive(deadline)?;
        let Some(Ok((header, rest))) = channel.buffer.get(..len).map(ReplyHeader::read_from_prefix) else {
            return Err(ControlError::Protocol("an answer shorter than its header"));
        };
        if header.request_id != request_id {
            // The late answer to a request that was given up.
            continue;
        }
        if header.len as usize != rest.len() {
            return Err(ControlError::Protocol("an answer of another length than it says"));
        }
        if header.error != ERROR_NONE {
            return Err(ControlError::Refused { error: header.error, cuda_result: header.cuda_result });
        }
        return Ok((rest.to_vec(), fd));
    }
}

/// True if the other end of the socket is closed.
pub(super) fn is_hung_up(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
        && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

fn failure(what: &'static str, errno: Errno) -> ControlError {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ControlError::Dead(0),
        Errno::AGAIN => ControlError::Timeout,
        errno => ControlError::System { what, errno },
    }
}

/// The lock, whoever panicked holding it: the data is whole between any two statements that matter.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, if it can be had in time: at process exit its holder may be a thread that never runs again.
fn lock_until<T>(mutex: &Mutex<T>, deadline: Instant) -> Result<MutexGuard<'_, T>, ControlError> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(ControlError::Timeout),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_micros(200)),
        }
    }
}
