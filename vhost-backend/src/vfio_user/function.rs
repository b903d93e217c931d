//! The function of one connection: its registers, its interrupt, and the thread that does what an access must not wait for.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use log_limit::{LINES, LogLimit, limited};
use pci_layout::control::SESSIONS_MAX;
use pci_layout::ids::QUEUE_COUNT;
use vgpu_device::mailbox::Written;
use vgpu_device::{Device, Mailbox, SessionId};
use vhost_user_backend::VringT;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::data::DataWindow;
use super::queues::{QueueRegisters, Setup};
use crate::daemon::borrow;
use crate::front::{Ring, VmFront};

/// Guests choose how often these lines are due.
static RESETS: LogLimit = LogLimit::new(LINES);
static FAILURES: LogLimit = LogLimit::new(LINES);

const COUNT: usize = QUEUE_COUNT as usize;

/// What waits for the function's thread. All of it is bounded: a guest can ask for no more than one of each.
#[derive(Default)]
struct Waiting {
    reset: bool,
    start: Option<Setup>,
    request: bool,
    /// A bit for each session of the mailbox's to be kicked.
    kicks: [u64; SESSIONS_MAX as usize / 64],
    end: bool,
    /// Resets that were asked for so far, and which of them are done, for who waits for one.
    resets_asked: u64,
    resets_done: u64,
}

impl Waiting {
    /// A start that was asked for before is none any more.
    fn ask_reset(&mut self) -> u64 {
        self.start = None;
        self.reset = true;
        self.resets_asked = self.resets_asked.wrapping_add(1);
        self.resets_asked
    }

    fn is_empty(&self) -> bool {
        !self.reset && self.start.is_none() && !self.request && self.kicks == [0; _]
    }
}

/// The function's interrupt: where QEMU wants it written to, once the guest has enabled it.
#[derive(Default)]
pub(super) struct Interrupt(Mutex<Option<File>>);

impl Interrupt {
    /// Raises it; while the guest has not enabled it, nothing happens.
    fn raise(&self) {
        if let Some(mut file) = lock(&self.0).as_ref()
            && let Err(error) = file.write(&1u64.to_ne_bytes())
        {
            log::debug!("cannot interrupt: {error}");
        }
    }
}

/// The function.
pub(super) struct Function {
    front: Arc<VmFront>,
    mailbox: Arc<Mailbox>,
    data: DataWindow,
    queues: Mutex<QueueRegisters>,
    interrupt: Arc<Interrupt>,
    kicks: [EventFd; COUNT],
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Function {
    /// A function that nobody has touched yet.
    ///
    /// # Errors
    /// No memory or descriptors left.
    pub(super) fn new(front: Arc<VmFront>, data: DataWindow) -> io::Result<Arc<Self>> {
        let interrupt = Arc::new(Interrupt::default());
        let raise = interrupt.clone();
        let mailbox = Mailbox::new(front.device().clone(), Box::new(move || raise.raise()));
        let kick = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        Ok(Arc::new(Self {
            front,
            mailbox,
            data,
            queues: Mutex::default(),
            interrupt,
            kicks: [kick()?, kick()?],
            waiting: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// The front with its memory.
    pub(super) fn front(&self) -> &VmFront {
        &self.front
    }

    /// The front for threads of its own.
    pub(super) fn shared_front(&self) -> Arc<VmFront> {
        self.front.clone()
    }

    /// The data window.
    pub(super) fn data(&self) -> &DataWindow {
        &self.data
    }

    pub(super) fn read_mailbox(&self, offset: u64, buf: &mut [u8]) {
        self.mailbox.read(offset, buf);
    }

    pub(super) fn write_mailbox(&self, offset: u64, data: &[u8]) {
        let Written { submitted, kicked } = self.mailbox.write(offset, data);
        if submitted || kicked.is_some() {
            self.ask(|waiting| {
                waiting.request |= submitted;
                let Some(index) = kicked.map(SessionId::index) else { return };
                if let Some(word) = waiting.kicks.get_mut(index / 64) {
                    *word |= 1 << (index % 64);
                }
            });
        }
    }

    pub(super) fn read_queues(&self, offset: u64, buf: &mut [u8]) {
        lock(&self.queues).read(offset, buf, self.device().registers());
    }

    pub(super) fn write_queues(&self, offset: u64, data: &[u8]) {
        let asked = lock(&self.queues).write(offset, data, self.device().registers());
        if let Some(kick) = asked.kick.and_then(|index| self.kicks.get(index))
            && let Err(error) = kick.write(1)
        {
            log::debug!("a kick is lost: {error}");
        }
        if asked.reset || asked.start.is_some() {
            self.ask(|waiting| {
                if asked.reset {
                    waiting.ask_reset();
                }
                waiting.start = asked.start.or(waiting.start.take());
            });
        }
    }

    /// Where the function's interrupt goes from now on.
    ///
    /// # Errors
    /// The descriptor cannot be used.
    pub(super) fn set_interrupt(&self, file: Option<File>) -> io::Result<()> {
        if let Some(file) = &file {
            let flags = rustix::fs::fcntl_getfl(file)?;
            rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        for ring in self.rings() {
            ring.set_call(file.as_ref().map(File::try_clone).transpose()?);
        }
        *lock(&self.interrupt.0) = file;
        Ok(())
    }

    /// Resets the function and waits until that is done: not for accesses of the guest's.
    pub(super) fn reset_now(&self) {
        lock(&self.queues).begin_reset();
        let mut waiting = lock(&self.waiting);
        let asked = waiting.ask_reset();
        self.changed.notify_all();
        while waiting.resets_done < asked && !waiting.end {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets [`Self::run`] return.
    pub(super) fn end(&self) {
        self.ask(|waiting| waiting.end = true);
    }

    /// Does what accesses have asked for, until [`Self::end`]; the body of the function's thread.
    pub(super) fn run(&self) {
        while let Some(work) = self.next() {
            if work.reset {
                guarded("reset", || self.reset());
                lock(&self.queues).was_reset();
                self.ask(|waiting| waiting.resets_done = work.resets_asked);
            }
            guarded("request", || self.carry_out(work));
        }
    }

    /// Waits for something to do; `None` when it is to end.
    fn next(&self) -> Option<Waiting> {
        let mut waiting = lock(&self.waiting);
        while waiting.is_empty() && !waiting.end {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let Waiting { end, resets_asked, resets_done, .. } = *waiting;
        let rest = Waiting { end, resets_asked, resets_done, ..Waiting::default() };
        (!end).then(|| std::mem::replace(&mut *waiting, rest))
    }

    fn carry_out(&self, work: Waiting) {
        if let Some(setup) = work.start
            && let Err(error) = self.start(&setup)
        {
            limited!(FAILURES, warn, "the guest's queues cannot be used: {error}");
            lock(&self.queues).broken();
        }
        if work.request {
            self.mailbox.carry_out(&self.data);
        }
        for (bits, base) in work.kicks.into_iter().zip((0u32..).step_by(64)) {
            for bit in (0..64).filter(|bit| bits >> bit & 1 != 0) {
                if let Some(session) = base.checked_add(bit).and_then(SessionId::new) {
                    self.device().kick_session(session);
                }
            }
        }
    }

    /// Ends every session and forgets the queues.
    pub(super) fn reset(&self) {
        if self.device().sessions_open() > 0 {
            limited!(RESETS, info, "the VM has reset the device: its sessions end");
        }
        self.mailbox.reset();
        if let Err(error) = self.front.halt() {
            log::error!("the rings cannot be taken from the guest: {error}");
        }
        self.front.reset();
    }

    fn start(&self, setup: &Setup) -> io::Result<()> {
        if setup.features & !super::queues::FEATURES != 0 {
            return Err(io::Error::other("features that were not offered"));
        }
        for (index, (ring, place)) in self.rings().zip(setup.queues).enumerate() {
            log::debug!("ring {index}: {place:x?}");
            let size = u16::try_from(place.size).map_err(io::Error::other)?;
            ring.get_mut().get_queue_mut().try_set_size(size).map_err(io::Error::other)?;
            ring.set_queue_info(place.descriptors, place.available, place.used).map_err(io::Error::other)?;
            ring.set_queue_event_idx(setup.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
            ring.set_queue_next_avail(0);
            ring.set_queue_next_used(0);
        }
        for (index, (ring, kick)) in self.rings().zip(&self.kicks).enumerate() {
            let kick: OwnedFd = borrow(kick).try_clone_to_owned()?;
            self.front.set_kick(index, Some(File::from(kick)))?;
            ring.set_queue_ready(true);
            ring.set_enabled(true);
            self.front.follow(index)?;
        }
        Ok(())
    }

    fn rings(&self) -> impl Iterator<Item = &Ring> {
        (0..COUNT).filter_map(|index| self.front.ring(index))
    }

    fn device(&self) -> &Arc<Device> {
        self.front.device()
    }

    fn ask(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut lock(&self.waiting));
        self.changed.notify_all();
    }
}

/// Runs a handler; a panic in it ends that handler only.
fn guarded(what: &str, handler: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handler)).is_err() {
        log::error!("a {what} of the function panicked");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The states under these locks are plain values, consistent after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
