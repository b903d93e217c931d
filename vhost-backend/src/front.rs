//! The vhost-user front of the device for one connection: takes requests off the control queue, puts answers back from
//! whatever thread has them, and fills event buffers.
//!
//! One thread ([`VmFront::run`]) takes requests; answers and events are put into guest memory by the thread that has
//! them, so that a wake costs no hop. Lock order: the control state, then a ring; the event queue's own lock is a leaf
//! under the event ring's. The device is never called with any of them held.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pci_layout::event::EVENT_BYTES;
use pci_layout::ids::{QUEUE_CONTROL, QUEUE_COUNT, QUEUE_EVENT};
use pci_layout::regs;
use vgpu_device::request::Refusal;
use vgpu_device::responder::ANSWER_BYTES_MIN;
use vgpu_device::{Device, EventSink};
use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use zerocopy::IntoBytes;

use crate::chain::{self, Message, Room};
use crate::memory::{MappedAtomic, VmMemory};
use crate::messages::SHARE_HINT;

/// Greatest queue size offered, in descriptors.
pub const QUEUE_SIZE_MAX: u16 = 1024;
/// Control requests taken off the queue and not yet answered. Further ones wait in the queue: stops a guest from making
/// us hold more than this many messages of [`pci_layout::control::REQUEST_BYTES_MAX`].
pub const OUTSTANDING_MAX: usize = 64;

/// Milliseconds without a first request after a first kick until the log says what may be wrong.
const GREETING_MS: i32 = 3000;

const CONTROL: usize = QUEUE_CONTROL as usize;
const EVENT: usize = QUEUE_EVENT as usize;
const TOKEN_WAKE: u64 = QUEUE_COUNT as u64;

/// A ring of the connected VM.
pub type Ring = VringMutex<MappedAtomic>;

/// The front of one connection.
pub struct VmFront {
    device: Arc<Device>,
    memory: VmMemory,
    rings: [Ring; QUEUE_COUNT as usize],
    kicks: [Mutex<Kick>; QUEUE_COUNT as usize],
    control: Mutex<Control>,
    epoll: Epoll,
    wake: EventFd,
    ending: AtomicBool,
}

#[derive(Default)]
struct Kick {
    file: Option<File>,
    watched: bool,
}

/// State of the control queue beside its ring.
#[derive(Default)]
struct Control {
    running: bool,
    /// Grows at each reset: answers of an earlier life are dropped.
    life: u64,
    outstanding: usize,
    /// Requests wait in the queue because [`OUTSTANDING_MAX`] was reached.
    throttled: bool,
    /// Answers that came while the ring was stopped; they go out when it runs again.
    held: Vec<Held>,
}

struct Held {
    head: u16,
    room: Room,
    answer: Vec<u8>,
}

impl VmFront {
    /// A front whose rings are not set up yet.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new(device: Arc<Device>) -> io::Result<Arc<Self>> {
        let memory = VmMemory::default();
        let ring = || Ring::new(memory.mapped(), QUEUE_SIZE_MAX).map_err(io::Error::other);
        let rings = [ring()?, ring()?];
        let epoll = Epoll::new()?;
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), EpollEvent::new(EventSet::IN, TOKEN_WAKE))?;
        let front = Arc::new(Self {
            device,
            memory,
            rings,
            kicks: Default::default(),
            control: Mutex::default(),
            epoll,
            wake,
            ending: AtomicBool::new(false),
        });
        Ok(front)
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The VM's memory.
    pub fn memory(&self) -> &VmMemory {
        &self.memory
    }

    /// The ring of that index.
    pub fn ring(&self, index: usize) -> Option<&Ring> {
        self.rings.get(index)
    }

    /// Sets or takes away the descriptor by which the VM kicks a ring. It is read by us alone and without blocking.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn set_kick(&self, index: usize, file: Option<File>) -> io::Result<()> {
        let Some(slot) = self.kicks.get(index) else { return Ok(()) };
        let mut kick = lock(slot);
        if let Some(old) = kick.file.as_ref().filter(|_| kick.watched) {
            // Not left to the closing of the descriptor: QEMU holds the same open file.
            let _ = self.epoll.ctl(ControlOperation::Delete, old.as_raw_fd(), EpollEvent::default());
        }
        kick.watched = false;
        if let Some(file) = &file {
            let flags = rustix::fs::fcntl_getfl(file)?;
            rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        kick.file = file;
        Ok(())
    }

    /// Follows a change of a ring's readiness: watches its kicks while it runs, and looks into it at once when it begins
    /// to (a kick may have come before).
    ///
    /// # Errors
    /// Its kicks cannot be watched.
    pub fn follow(&self, index: usize) -> io::Result<()> {
        let (Some(ring), Some(slot)) = (self.rings.get(index), self.kicks.get(index)) else { return Ok(()) };
        let active = {
            let state = ring.get_ref();
            state.get_queue().ready() && state.is_enabled()
        };
        let running = {
            let mut kick = lock(slot);
            let running = active && kick.file.is_some();
            if let Some(file) = kick.file.as_ref().filter(|_| running != kick.watched) {
                let operation = if running { ControlOperation::Add } else { ControlOperation::Delete };
                let token = u64::try_from(index).unwrap_or(TOKEN_WAKE);
                self.epoll.ctl(operation, file.as_raw_fd(), EpollEvent::new(EventSet::IN, token))?;
                kick.watched = running;
            }
            running
        };
        if index == CONTROL {
            let mut control = lock(&self.control);
            if control.running != running {
                control.running = running;
                log::debug!("control queue {}", if running { "runs" } else { "stopped" });
                drop(control);
                if running {
                    self.device.resume();
                } else {
                    self.device.stop();
                }
            }
        }
        if running {
            self.wake.write(1)?;
        }
        Ok(())
    }

    /// Takes the rings from the guest for a reset that follows: unlike when one of them is stopped, nobody's work is brought to an end
    /// first.
    ///
    /// # Errors
    /// The kicks of a ring cannot be left alone.
    pub fn halt(&self) -> io::Result<()> {
        lock(&self.control).running = false;
        for (index, ring) in self.rings.iter().enumerate() {
            ring.set_enabled(false);
            ring.set_queue_ready(false);
            self.set_kick(index, None)?;
            ring.get_mut().get_queue_mut().reset();
        }
        Ok(())
    }

    /// The device was reset: ends every session, and forgets answers that are still to come.
    pub fn reset(&self) {
        {
            let mut control = lock(&self.control);
            control.life = control.life.wrapping_add(1);
            control.outstanding = 0;
            control.throttled = false;
            control.held.clear();
        }
        self.device.reset();
    }

    /// Takes requests until [`Self::end`]; the body of the queue thread.
    pub fn run(self: &Arc<Self>) {
        let mut events = [EpollEvent::default(); 4];
        // Memory that QEMU maps privately (share=off) looks to us as if the guest had never written to it.
        let mut unheard = false;
        while !self.ending.load(Ordering::Acquire) {
            let timeout_ms = if unheard { GREETING_MS } else { -1 };
            let count = match self.epoll.wait(timeout_ms, &mut events) {
                Ok(0) => {
                    if std::mem::take(&mut unheard) && self.is_virgin() {
                        log::warn!(
                            "the guest's driver sends nothing; if it waits for an answer: {SHARE_HINT}"
                        );
                    }
                    continue;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("waiting for kicks: {error}");
                    return;
                }
            };
            for event in events.iter().take(count) {
                let token = event.data();
                if token == TOKEN_WAKE {
                    let _ = self.wake.read();
                } else if let Some(slot) = usize::try_from(token).ok().and_then(|index| self.kicks.get(index))
                    && let Some(mut file) = lock(slot).file.as_ref()
                {
                    // Nothing to read is no fault: the ring may have been stopped and started in between.
                    let _ = file.read(&mut [0; 8]);
                }
                let woken = catch_unwind(AssertUnwindSafe(|| {
                    if token == TOKEN_WAKE || token == u64::from(QUEUE_CONTROL) {
                        // Pending bits before the queue: a kick of a session is not to wait behind requests.
                        self.device.kick();
                        self.put_held_answers();
                        self.take_requests();
                    }
                    if token == TOKEN_WAKE || token == u64::from(QUEUE_EVENT) {
                        self.event_ready();
                    }
                }));
                if token == u64::from(QUEUE_CONTROL) {
                    unheard = self.is_virgin();
                }
                if woken.is_err() {
                    log::error!("a handler of queue {token} panicked; the request it was at fails");
                }
            }
        }
    }

    /// Whether the control queue has been kicked (QEMU does so itself when it starts the queue) and nothing was ever in it.
    fn is_virgin(&self) -> bool {
        lock(&self.control).running && self.rings[CONTROL].queue_next_avail() == 0
    }

    /// Lets [`Self::run`] return.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        if let Err(error) = self.wake.write(1) {
            log::error!("cannot wake the queue thread: {error}");
        }
    }

    fn take_requests(self: &Arc<Self>) {
        while let Some((head, life, message, room)) = self.next_request() {
            let room_len = room.len();
            if room_len < ANSWER_BYTES_MIN {
                log::debug!("control request without room for an answer");
                self.answer(life, head, room, &[]);
                continue;
            }
            let front = self.clone();
            let reply = Box::new(move |answer: &[u8]| front.answer(life, head, room, answer));
            match message {
                Message::Whole(bytes) => self.device.control(&bytes, &self.memory, room_len, reply),
                Message::TooLong(bytes) => {
                    let refusal =
                        Refusal { error: regs::ERROR_TOO_LARGE, why: "longer than REQUEST_BYTES_MAX" };
                    self.device.refuse_message(&bytes, refusal, room_len, reply);
                }
                Message::Broken(bytes, why) => {
                    let refusal = Refusal { error: regs::ERROR_INVALID_REQUEST, why };
                    self.device.refuse_message(&bytes, refusal, room_len, reply);
                }
            }
        }
    }

    /// Takes the next chain off the control queue, if it runs and there is one.
    fn next_request(&self) -> Option<(u16, u64, Message, Room)> {
        let mut control = lock(&self.control);
        if !control.running {
            return None;
        }
        if control.outstanding >= OUTSTANDING_MAX {
            control.throttled = true;
            return None;
        }
        let memory = self.memory.mapped().memory();
        let mut ring = self.rings[CONTROL].get_mut();
        let chain = loop {
            let next = match ring.get_queue_mut().iter(memory.clone()) {
                Ok(mut chains) => chains.next(),
                Err(error) => {
                    log::debug!("control queue: {error}");
                    return None;
                }
            };
            match (next, ring.enable_notification()) {
                (Some(chain), _) => break chain,
                // One came between the look and the wish to be told.
                (None, Ok(true)) => continue,
                (None, _) => return None,
            }
        };
        drop(ring);
        control.outstanding = control.outstanding.saturating_add(1);
        let life = control.life;
        drop(control);
        let head = chain.head_index();
        let (message, room) = chain::take(&memory, chain);
        Some((head, life, message, room))
    }

    fn answer(&self, life: u64, head: u16, room: Room, answer: &[u8]) {
        let mut control = lock(&self.control);
        if control.life != life {
            log::debug!("answer of an earlier life dropped");
            return;
        }
        control.outstanding = control.outstanding.saturating_sub(1);
        if control.running {
            self.put_answer(head, &room, answer);
        } else {
            control.held.push(Held { head, room, answer: answer.to_vec() });
        }
        if std::mem::take(&mut control.throttled) {
            drop(control);
            if let Err(error) = self.wake.write(1) {
                log::error!("cannot wake the queue thread: {error}");
            }
        }
    }

    /// Puts the answers out that came while the control queue was stopped.
    fn put_held_answers(&self) {
        let mut control = lock(&self.control);
        if control.running {
            for held in std::mem::take(&mut control.held) {
                self.put_answer(held.head, &held.room, &held.answer);
            }
        }
    }

    /// With the control state held.
    fn put_answer(&self, head: u16, room: &Room, answer: &[u8]) {
        let memory = self.memory.mapped().memory();
        let written = room.write(&memory, answer);
        give_back(&self.rings[CONTROL], &[(head, written)]);
    }
}

impl EventSink for VmFront {
    fn event_ready(&self) {
        let events = self.device.events();
        let memory = self.memory.mapped().memory();
        let ring = &self.rings[EVENT];
        let mut filled = Vec::new();
        {
            let mut state = ring.get_mut();
            if !state.get_queue().ready() || !state.is_enabled() {
                return;
            }
            while events.is_pending() {
                let next = match state.get_queue_mut().iter(memory.clone()) {
                    Ok(mut chains) => chains.next(),
                    Err(error) => {
                        log::debug!("event queue: {error}");
                        break;
                    }
                };
                let Some(chain) = next else {
                    match state.enable_notification() {
                        Ok(true) => continue,
                        _ => break,
                    }
                };
                let head = chain.head_index();
                let (_, room) = chain::take(&memory, chain);
                if room.len() < EVENT_BYTES as usize {
                    log::debug!("event buffer too short");
                    filled.push((head, 0));
                    continue;
                }
                let Some(event) = events.take() else {
                    // The session was closed in between: the buffer stays with us for the next event.
                    state.get_queue_mut().go_to_previous_position();
                    break;
                };
                filled.push((head, room.write(&memory, event.as_bytes())));
            }
            for (head, written) in &filled {
                if let Err(error) = state.add_used(*head, *written) {
                    log::debug!("event queue: {error}");
                }
            }
            if filled.is_empty() || !state.needs_notification().unwrap_or(true) {
                return;
            }
            if let Err(error) = state.signal_used_queue() {
                log::debug!("event queue: cannot interrupt: {error}");
            }
        }
    }
}

fn give_back(ring: &Ring, used: &[(u16, u32)]) {
    let mut state = ring.get_mut();
    for (head, written) in used {
        if let Err(error) = state.add_used(*head, *written) {
            log::debug!("cannot give a buffer back: {error}");
        }
    }
    // Where the guest's wish cannot be read, one interrupt too many is the safe side.
    if state.needs_notification().unwrap_or(true)
        && let Err(error) = state.signal_used_queue()
    {
        log::debug!("cannot interrupt: {error}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The states under these locks are plain values, consistent after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
