//! Orders from the supervisor to a worker and the answers to them, over a private `SOCK_SEQPACKET` pair.
//!
//! An order is one datagram: an [`OrderHeader`], its tail (or, where that is long, a memfd that holds it as the first
//! descriptor), and the order's descriptors. Each order has exactly one answer, and the next order is sent only after
//! it. Both ends are this same binary, so the layout is nobody else's business.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::FILES_MAX;

/// What an order asks for.
pub(crate) mod kind {
    /// First order to every worker: tail is [`super::InitBody`] and the VM's device list. Descriptors: kick, wake,
    /// counters, requests, the VM page, turns, their notifier, and the profile's where the VM is profiled.
    pub(crate) const INIT: u32 = 1;
    /// First and only order to a probe: the same tail. Descriptor: the file for the information blob.
    pub(crate) const PROBE: u32 = 2;
    /// Tail is [`super::OpenBody`] and the environment block. Descriptor: the session page's file.
    pub(crate) const OPEN: u32 = 3;
    /// Tail is piece entries. Descriptors: their files.
    pub(crate) const ADD_RING_PART: u32 = 4;
    /// `index` is the ring.
    pub(crate) const REMOVE_RING: u32 = 5;
    /// As ADD_RING_PART.
    pub(crate) const MAP_REGION: u32 = 6;
    /// `index` is the region.
    pub(crate) const UNMAP_REGION: u32 = 7;
    /// The VM is paused. `len` is the limit in microseconds.
    pub(crate) const STOP: u32 = 8;
    /// Go on after STOP.
    pub(crate) const RESUME: u32 = 9;
    /// The worker ends; its exit is the answer.
    pub(crate) const END: u32 = 10;
    /// First order to a reader: tail is the information blob. Descriptor: the file for what it reads. Answered as READ.
    pub(crate) const READER: u32 = 11;
    /// Read the devices again; the answer's tail is the number of bytes, 64 bits.
    pub(crate) const READ: u32 = 12;
    /// The VM is suspended: come to rest. `len` is the limit in microseconds; the answer's tail is [`super::AtRest`].
    /// After an error the session goes on.
    pub(crate) const SUSPEND: u32 = 20;
    /// Go on after SUSPEND.
    pub(crate) const GO_ON: u32 = 21;
    /// Others of the worker's user may look into it (`flags` 1), or not (0).
    pub(crate) const EXPOSE: u32 = 22;
    /// First order to a checkpointer: tail is the information blob.
    pub(crate) const CHECKPOINTER: u32 = 23;
    /// `index` is a process, `flags` what is done to it, `len` a limit in microseconds. For a question the answer's tail is the state,
    /// 32 bits.
    pub(crate) const CHECKPOINT: u32 = 24;
    /// How much memory of the devices' is free? The answer's tail is so many bytes of them all, 64 bits, or nothing where nobody knows.
    pub(crate) const FREE_MEMORY: u32 = 25;
}

/// Longest tail that travels in the datagram itself, in bytes.
const INLINE_BYTES_MAX: usize = 32 * 1024;
/// Longest tail at all: a map order of scattered pages.
const TAIL_BYTES_MAX: usize = 512 * 1024;
/// Longest text in an answer, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Descriptors in one order, the tail's file included.
const DESCRIPTORS_MAX: usize = FILES_MAX + 1;

/// The start of an order. Which fields mean something depends on `kind`.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct OrderHeader {
    pub(crate) kind: u32,
    /// Session, ring or region.
    pub(crate) index: u32,
    /// Part, or map flags.
    pub(crate) flags: u32,
    /// Bytes of the tail.
    pub(crate) tail_len: u32,
    /// 1 if the first descriptor holds the tail.
    pub(crate) tail_in_file: u32,
    pub(crate) reserved: u32,
    pub(crate) va: u64,
    pub(crate) len: u64,
}

impl OrderHeader {
    pub(crate) fn new(kind: u32) -> Self {
        Self { kind, ..Self::new_zeroed() }
    }
}

/// Tail of INIT and PROBE.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct InitBody {
    pub(crate) executor: u32,
    pub(crate) vm_id: u32,
    pub(crate) priority: u32,
    /// 1 if `vram_bytes` is a quota.
    pub(crate) has_quota: u32,
    /// 1 if the VM has a device list.
    pub(crate) has_devices: u32,
    /// Devices that the software executor shows.
    pub(crate) soft_devices: u32,
    pub(crate) vram_bytes: u64,
    pub(crate) spin_us: u64,
    /// 1 if the executor is to be initialised before a session is opened, which then brings no environment.
    pub(crate) initialise: u32,
    /// The worker's slot in the VM page; 0 in a probe, which has none.
    pub(crate) slot: u32,
}

/// Tail of OPEN.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct OpenBody {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) page_offset: u64,
    /// 1 if guest threads are woken by futex.
    pub(crate) futex: u32,
    pub(crate) reserved: u32,
}

/// Tail of the answer to PROBE.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct ProbeAnswer {
    pub(crate) capabilities: u32,
    pub(crate) device_count: u32,
    pub(crate) fingerprint: [u8; 16],
    pub(crate) info_len: u64,
}

/// Tail of the answer to SUSPEND.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct AtRest {
    /// Device memory that the session has.
    pub(crate) device_bytes: u64,
    /// The CUresult that every call of the session answers, or 0.
    pub(crate) sticky: u32,
    pub(crate) reserved: u32,
}

/// One contiguous part of a mapping.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct PieceEntry {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Index of the descriptor.
    pub(crate) file: u32,
    pub(crate) reserved: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct AnswerHeader {
    error: u32,
    cuda_result: u32,
}

/// What a worker answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// An `ERROR_` value.
    pub(crate) error: u32,
    /// A CUresult where `error` is ERROR_CUDA.
    pub(crate) cuda_result: u32,
    /// The reason of an error, in words for the log; for PROBE a [`ProbeAnswer`].
    pub(crate) tail: Vec<u8>,
}

/// An order as the worker gets it.
pub(crate) struct Order {
    pub(crate) header: OrderHeader,
    pub(crate) tail: Vec<u8>,
    pub(crate) files: Vec<OwnedFd>,
}

/// Sends an order; never waits.
pub(crate) fn send_order(
    socket: impl AsFd,
    mut header: OrderHeader,
    tail: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<()> {
    if tail.len() > TAIL_BYTES_MAX || files.len() > FILES_MAX {
        return Err(ErrorKind::InvalidInput.into());
    }
    header.tail_len = u32::try_from(tail.len()).map_err(|_| ErrorKind::InvalidInput)?;
    let tail_file = if tail.len() > INLINE_BYTES_MAX { Some(file_of(tail)?) } else { None };
    header.tail_in_file = u32::from(tail_file.is_some());
    let all: Vec<BorrowedFd<'_>> = tail_file.iter().map(AsFd::as_fd).chain(files.iter().copied()).collect();
    let inline = if tail_file.is_some() { &[] } else { tail };
    send(socket, &[IoSlice::new(header.as_bytes()), IoSlice::new(inline)], &all)
}

fn file_of(bytes: &[u8]) -> Result<OwnedFd> {
    let file = rustix::fs::memfd_create("vgpu-order", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Sends one datagram with its descriptors; never waits.
pub(crate) fn send(socket: impl AsFd, parts: &[IoSlice<'_>], files: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, parts, &mut control, flags)?;
    Ok(())
}

/// Waits for the next order. None: the supervisor is gone.
pub(crate) fn receive_order(socket: impl AsFd) -> Result<Option<Order>> {
    let mut buffer = vec![0; size_of::<OrderHeader>() + INLINE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut files: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors);
        }
    }
    buffer.truncate(received.bytes);
    let wrong = || Error::from(ErrorKind::InvalidData);
    let (header, inline) = OrderHeader::read_from_prefix(&buffer).map_err(|_| wrong())?;
    let len = header.tail_len as usize;
    if len > TAIL_BYTES_MAX {
        return Err(wrong());
    }
    let tail = if header.tail_in_file == 0 {
        inline.to_vec()
    } else {
        if files.is_empty() {
            return Err(wrong());
        }
        let mut tail = vec![0; len];
        read_exact_at(files.remove(0), &mut tail)?;
        tail
    };
    if tail.len() == len { Ok(Some(Order { header, tail, files })) } else { Err(wrong()) }
}

/// Reads `bytes.len()` bytes from the start of a file.
pub(crate) fn read_exact_at(file: impl AsFd, bytes: &mut [u8]) -> Result<()> {
    let mut done = 0usize;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(&file, rest, done as u64)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => done = done.saturating_add(read),
        }
    }
    Ok(())
}

/// Sends the answer to the last order.
pub(crate) fn send_answer(socket: impl AsFd, answer: &Answer) -> Result<()> {
    let header = AnswerHeader { error: answer.error, cuda_result: answer.cuda_result };
    let tail = answer.tail.get(..TEXT_BYTES_MAX).unwrap_or(&answer.tail);
    send(socket, &[IoSlice::new(header.as_bytes()), IoSlice::new(tail)], &[])
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the worker is gone")]
    Lost,
    #[error("the worker did not answer in time")]
    Late,
}

/// Waits for the answer to the last order. Descriptors that a worker sends along are dropped by the kernel.
pub(crate) fn receive_answer(socket: impl AsFd, limit: Duration) -> std::result::Result<Answer, NoAnswer> {
    let deadline = Instant::now().checked_add(limit);
    loop {
        let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
        match wait_readable(&socket, left) {
            Ok(true) => break,
            Ok(false) => return Err(NoAnswer::Late),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(NoAnswer::Lost),
        }
    }
    let mut buffer = [0; size_of::<AnswerHeader>() + TEXT_BYTES_MAX];
    let (_, received) =
        rustix::net::recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT).map_err(|_| NoAnswer::Lost)?;
    let bytes = buffer.get(..received).ok_or(NoAnswer::Lost)?;
    // An empty datagram is the end of the socket; a short one is a worker that has gone wrong.
    let (header, tail) = AnswerHeader::read_from_prefix(bytes).map_err(|_| NoAnswer::Lost)?;
    Ok(Answer { error: header.error, cuda_result: header.cuda_result, tail: tail.to_vec() })
}

/// Waits until `fd` is readable (for a pidfd: until the process has ended). False: `limit` is over.
pub(crate) fn wait_readable(fd: impl AsFd, limit: Duration) -> Result<bool> {
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&limit))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socketpair")
    }

    #[test]
    fn orders_arrive_with_tail_and_files_short_and_long() {
        let (supervisor, worker) = pair();
        for len in [0, 5, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, TAIL_BYTES_MAX] {
            let tail: Vec<u8> = (0..=250).cycle().take(len).collect();
            let file = file_of(b"content").expect("file");
            let header = OrderHeader { index: 7, va: 9, ..OrderHeader::new(kind::MAP_REGION) };
            send_order(&supervisor, header, &tail, &[file.as_fd()]).expect("send");
            let order = receive_order(&worker).expect("receive").expect("an order");
            assert_eq!((order.header.kind, order.header.index, order.header.va), (kind::MAP_REGION, 7, 9));
            assert!(order.tail == tail, "tail of {len} bytes");
            assert_eq!(order.files.len(), 1);
            let mut content = [0; 7];
            read_exact_at(&order.files[0], &mut content).expect("read");
            assert_eq!(&content, b"content");
        }
        let long = vec![0; TAIL_BYTES_MAX + 1];
        assert!(send_order(&supervisor, OrderHeader::new(kind::STOP), &long, &[]).is_err());
    }

    #[test]
    fn a_missing_answer_is_late_and_a_closed_socket_is_lost() {
        let (supervisor, worker) = pair();
        let limit = Duration::from_millis(20);
        assert!(matches!(receive_answer(&supervisor, limit), Err(NoAnswer::Late)));
        let answer = Answer { error: 5, cuda_result: 100, tail: b"why".to_vec() };
        send_answer(&worker, &answer).expect("send");
        assert_eq!(receive_answer(&supervisor, limit).expect("an answer"), answer);
        drop(worker);
        assert!(matches!(receive_answer(&supervisor, limit), Err(NoAnswer::Lost)));
    }
}
