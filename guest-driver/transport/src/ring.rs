//! A guest thread's ring: posting, calling, waiting.

use core::cell::Cell;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU32;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pci_layout::ring::{FRAME_BULK, FRAME_PAD, FRAME_WAIT};
use rustix::io::Errno;
use vgpu_ring::{FrameFields, FrameWriter, Producer, RingMemory, WaitFor};

use crate::STAGING_BYTES;
use crate::device::Link;
use crate::error::{CallError, ControlError};
use crate::fork::is_forked_child;
use crate::mapping::Mapping;
use crate::session::Inner;
use crate::spin::Spin;

/// A command ring, for one thread at a time (`Send`, not `Sync`). Given back to the device when dropped.
#[derive(Debug)]
pub struct Ring {
    session: Arc<Inner>,
    index: u32,
    /// None only while being dropped.
    producer: Option<Producer>,
    staging: Option<Mapping>,
    spin: Spin,
    /// As `spin`, of the ring's completion word.
    device_spin: Spin,
    /// How long the next wait is expected to take.
    expected: Duration,
    /// Bulk frames published so far.
    bulk_submitted: u64,
    /// Where frames end that may not have been taken yet, the earliest first. Kept where the host limits how many may wait.
    waiting: VecDeque<u64>,
    /// The private copy of a reply, in words so that it is 8-byte aligned. Empty until a reply is read as a slice.
    reply: Vec<u64>,
    not_sync: PhantomData<Cell<()>>,
}

/// The data of a reply, valid until the ring's next call. It lies in memory that the host writes: it can be copied out,
/// not borrowed.
#[derive(Debug)]
pub struct ReplyData<'a> {
    producer: &'a Producer,
    len: usize,
    copy: &'a mut Vec<u64>,
}

impl ReplyData<'_> {
    /// Length in bytes, never more than the reply area has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the reply is its result alone.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `dst.len()` bytes from `offset`. False, and nothing copied, if the reply has not that many.
    #[must_use]
    pub fn copy_to(&self, offset: usize, dst: &mut [u8]) -> bool {
        offset.checked_add(dst.len()).is_some_and(|end| end <= self.len)
            && self.producer.read_reply(offset, dst)
    }

    /// All of it, as a private copy, 8-byte aligned.
    pub fn bytes(&mut self) -> &[u8] {
        let words = self.len.div_ceil(size_of::<u64>());
        if self.copy.len() < words {
            self.copy.resize(words, 0);
        }
        // SAFETY: the words' own memory as bytes; `len` bytes lie in the first `words` of them.
        let bytes = unsafe { core::slice::from_raw_parts_mut(self.copy.as_mut_ptr().cast::<u8>(), self.len) };
        // Cannot fail: `len` is at most the reply area's length. Zeros, not stale bytes, if it did.
        if !self.producer.read_reply(0, bytes) {
            bytes.fill(0);
        }
        bytes
    }
}

impl Ring {
    pub(crate) fn new(session: Arc<Inner>, index: u32, mapping: Mapping) -> Self {
        let base = mapping.base();
        // SAFETY: `mapping` is RING_BYTES long and page aligned, and the memory keeps it; the only other access to it
        // in this process is the futex word's, an atomic one.
        let memory = unsafe { RingMemory::with_owner(base, Arc::new(mapping)) };
        Self {
            session,
            index,
            producer: Some(Producer::new(memory)),
            staging: None,
            spin: Spin::new(),
            device_spin: Spin::new(),
            expected: Duration::ZERO,
            bulk_submitted: 0,
            waiting: VecDeque::new(),
            reply: Vec::new(),
            not_sync: PhantomData,
        }
    }

    /// The ring's index in its session, for logs.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Sends a call without waiting for its reply. `extra_flags` is 0, FRAME_BULK or FRAME_UNORDERED; `write` puts the arguments; the
    /// ticket is above all earlier ones of this ring. Waits only if the ring is full.
    ///
    /// # Errors
    ///
    /// All of [`CallError`]; nothing was sent, except where a kick failed ([`CallError::System`]).
    #[inline]
    pub fn post(
        &mut self,
        call: u32,
        extra_flags: u32,
        context: u32,
        ticket: u64,
        write: impl FnOnce(&mut FrameWriter<'_>),
    ) -> Result<(), CallError> {
        debug_assert!(extra_flags & (FRAME_WAIT | FRAME_PAD) == 0);
        self.send(FrameFields { call, flags: extra_flags, context, ticket }, write)
    }

    /// Sends a call and waits for its reply: `read` gets the CUresult and the data, and its value is returned.
    ///
    /// # Errors
    ///
    /// All of [`CallError`]; the call may or may not have been carried out if the session died meanwhile.
    pub fn call<R>(
        &mut self,
        call: u32,
        extra_flags: u32,
        context: u32,
        ticket: u64,
        write: impl FnOnce(&mut FrameWriter<'_>),
        read: impl FnOnce(u32, &mut ReplyData<'_>) -> R,
    ) -> Result<R, CallError> {
        self.begin(call, extra_flags, context, ticket, write)?;
        self.finish(ticket, read)
    }

    /// The first half of [`Ring::call`]: sends the call. Nothing else may be sent before its reply was taken: that nothing stands behind
    /// a call with a reply is what the order between rings rests on.
    ///
    /// # Errors
    ///
    /// As for [`Ring::post`].
    pub fn begin(
        &mut self,
        call: u32,
        extra_flags: u32,
        context: u32,
        ticket: u64,
        write: impl FnOnce(&mut FrameWriter<'_>),
    ) -> Result<(), CallError> {
        debug_assert!(extra_flags & FRAME_PAD == 0);
        self.send(FrameFields { call, flags: extra_flags | FRAME_WAIT, context, ticket }, write)
    }

    /// The second half of [`Ring::call`]: waits for the reply to the call with `ticket`.
    ///
    /// # Errors
    ///
    /// As for [`Ring::call`].
    pub fn finish<R>(
        &mut self,
        ticket: u64,
        read: impl FnOnce(u32, &mut ReplyData<'_>) -> R,
    ) -> Result<R, CallError> {
        loop {
            self.wait(WaitFor::Reply(ticket))?;
            let producer = self.producer.as_mut().ok_or(CallError::ForkedChild)?;
            if let Some(reply) = producer.poll_reply(ticket) {
                let mut data = ReplyData { producer, len: reply.len as usize, copy: &mut self.reply };
                return Ok(read(reply.result, &mut data));
            }
        }
    }

    /// Says how long the next wait will probably take: it is not slept through then, which would cost a wake more, unless that is long.
    /// How long earlier waits took says nothing about the length of a copy.
    #[inline]
    pub fn expect(&mut self, expected: Duration) {
        self.expected = expected;
    }

    /// Takes the first error of this ring's posted calls since the last time: (CUresult, wire id of the call). None in a
    /// forked child.
    #[inline]
    pub fn take_async_error(&mut self) -> Option<(u32, u32)> {
        if is_forked_child() { None } else { self.producer.as_ref()?.take_async_error() }
    }

    /// The staging buffer, [`STAGING_BYTES`] long, made at the first call. The address stays the same until the ring
    /// is dropped. The host's worker sees the same bytes: access it by raw copies, and only parts that no bulk frame
    /// in flight uses.
    ///
    /// # Errors
    ///
    /// The session is over, memory is short, or this is a forked child.
    pub fn staging(&mut self) -> Result<(*mut u8, usize), ControlError> {
        if is_forked_child() {
            return Err(ControlError::ForkedChild);
        }
        if let Some(staging) = &self.staging {
            return Ok((staging.base().as_ptr(), staging.len()));
        }
        let mapping = match &self.session.link {
            Link::Vm(link) => link.add_staging(self.index, STAGING_BYTES)?,
            Link::Local(link) => link.add_staging(self.index, STAGING_BYTES)?,
            Link::Bar(link) => link.add_staging(self.index, STAGING_BYTES)?,
        };
        let staging = self.staging.insert(mapping);
        Ok((staging.base().as_ptr(), staging.len()))
    }

    /// Waits of this thread for the device have been short: looking at the completion word is worth while. Now and then it is, in any
    /// case.
    pub fn should_look(&mut self) -> bool {
        !self.expected.is_zero() || self.device_spin.is_worth_while()
    }

    /// Looks at the ring's completion word until it says `value`, for as long as looking has paid so far, or at most for `limit`. The
    /// word is written by the device: what was done before is seen after this. False: ask.
    pub fn look_for(&mut self, value: u64, limit: Option<Duration>) -> bool {
        if is_forked_child() {
            return false;
        }
        let (page, index) = (&self.session.page, self.index);
        if let Some(limit) = limit {
            let start = Instant::now();
            while page.completion(index) != value {
                if start.elapsed() >= limit {
                    return false;
                }
                std::hint::spin_loop();
            }
            return true;
        }
        let expected = std::mem::take(&mut self.expected);
        let seen = self.device_spin.look(expected, || page.completion(index) == value);
        if seen {
            self.device_spin.paid();
        }
        seen
    }

    /// A wait for the device that looking did not end, or that was made without looking, took so long.
    pub fn device_took(&mut self, whole_wait: Duration) {
        self.device_spin.slept(whole_wait);
    }

    /// Bulk frames sent so far: the number that [`Ring::wait_bulk`] takes for the last of them.
    pub fn bulk_submitted(&self) -> u64 {
        self.bulk_submitted
    }

    /// Bulk frames that the host has finished with. 0 in a forked child.
    pub fn bulk_done(&self) -> u64 {
        if is_forked_child() { 0 } else { self.producer.as_ref().map_or(0, Producer::bulk_done) }
    }

    /// Waits until the host has finished with the first `count` bulk frames: their parts of the staging buffer may be
    /// used again.
    ///
    /// # Errors
    ///
    /// The session is over, or this is a forked child.
    pub fn wait_bulk(&mut self, count: u64) -> Result<(), CallError> {
        debug_assert!(count <= self.bulk_submitted);
        self.session.check_call()?;
        self.wait(WaitFor::Bulk(count))
    }

    #[inline]
    fn send(
        &mut self,
        fields: FrameFields,
        write: impl FnOnce(&mut FrameWriter<'_>),
    ) -> Result<(), CallError> {
        self.session.check_call()?;
        if !self.producer.as_mut().is_some_and(Producer::has_space) {
            self.wait(WaitFor::Space)?;
        }
        let depth = self.session.page.queue_depth();
        if depth != 0 {
            self.hold_back(depth)?;
        }
        let mut writer =
            self.producer.as_mut().and_then(Producer::reserve).ok_or(CallError::System(Errno::NOBUFS))?;
        write(&mut writer);
        let host_sleeps = writer.publish(fields)?;
        if depth != 0 {
            self.waiting.extend(self.producer.as_ref().map(Producer::position));
        }
        if fields.flags & FRAME_BULK != 0 {
            self.bulk_submitted = self.bulk_submitted.wrapping_add(1);
        }
        if host_sleeps { self.kick() } else { Ok(()) }
    }

    /// Waits until fewer than `depth` frames of this ring wait.
    #[cold]
    fn hold_back(&mut self, depth: u64) -> Result<(), CallError> {
        while let Some(first) = self.waiting.front().copied() {
            let taken = self.producer.as_mut().is_none_or(|producer| producer.has_taken(first));
            if !taken {
                if (self.waiting.len() as u64) < depth {
                    break;
                }
                self.wait(WaitFor::Taken(first))?;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    #[cold]
    fn kick(&self) -> Result<(), CallError> {
        let kicked = match &self.session.link {
            Link::Vm(link) => link.kick(),
            Link::Local(link) => link.kick(),
            Link::Bar(link) => link.kick(),
        };
        kicked.map_err(|errno| self.session.failed(errno))
    }

    /// Waits in this process, which is no forked child: what is waited for has come when it returns Ok.
    fn wait(&mut self, wait: WaitFor) -> Result<(), CallError> {
        let expected = std::mem::take(&mut self.expected);
        let Self { session, index, producer: Some(producer), spin, .. } = self else {
            return Err(CallError::ForkedChild);
        };
        if producer.is_ready(wait) {
            return Ok(());
        }
        let start = Instant::now();
        if spin.look(expected, || producer.is_ready(wait)) {
            spin.paid();
            return Ok(());
        }
        loop {
            // What has come is taken even if the session has died since.
            if producer.is_ready(wait) {
                break;
            }
            session.check_alive()?;
            if producer.prepare_wait(wait) {
                let slept = match &session.link {
                    Link::Vm(link) => link.sleep(*index),
                    Link::Local(link) => {
                        // SAFETY: the guest_parked word of this ring's memory, which `producer` keeps mapped.
                        let word = unsafe { AtomicU32::from_ptr(producer.memory().guest_parked_futex()) };
                        link.sleep(word, wait.guest_parked())
                    }
                    Link::Bar(link) => link.sleep(),
                };
                producer.finish_wait();
                slept.map_err(|errno| session.failed(errno))?;
            }
        }
        spin.slept(start.elapsed());
        Ok(())
    }
}

impl Drop for Ring {
    /// Unmaps first, so that the device takes back memory that nobody has mapped any more. Bounded in time; a ring that
    /// the daemon does not take back in that time ends with the session.
    fn drop(&mut self) {
        // In a forked child neither unmaps anything: see `Mapping`.
        self.producer = None;
        self.staging = None;
        if self.session.check_call().is_ok() {
            // An error changes nothing for a ring that is gone here.
            let _ = match &self.session.link {
                Link::Vm(link) => link.remove_ring(self.index),
                Link::Local(link) => link.remove_ring(self.index),
                Link::Bar(link) => link.remove_ring(self.index),
            };
        }
    }
}
