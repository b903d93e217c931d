//! The join: messages in, answers and events out.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use log_limit::{LogLimit, limited};
use pci_layout::control::{HelloReply, INFO_LIVE, Run};
use pci_layout::{ABI_VERSION, PAGE_BYTES, regs, ring};
use zerocopy::IntoBytes;

use crate::counters::{Counters, CountersSnapshot};
use crate::events::EventQueue;
use crate::ids::{RegionId, RingId, SessionId};
use crate::memory::{GuestMemory, PENDING_WORDS, PendingPage, Piece};
use crate::regs::{BLOCK_BYTES, Identity, Registers};
use crate::request::{Refusal, Request, request_id};
use crate::responder::{Answers, Reply, Responder};
use crate::sessions::{Done, Open, RingPart, SessionError, Sessions, Wake};
use crate::table::{Admitted, Operation, Table};

/// What kind of front the device sits behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// A VM's queues: one driver for all sessions. Its HELLO begins a boot, its kicks come through the pending page.
    Queues,
    /// A socket for each guest process: HELLO only compares versions, kicks do not pass here.
    Sockets,
}

/// Which of the device's ends a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The control queue, or a process's socket.
    Control,
    /// The mailbox: whoever maps a BAR, which need not be the kernel.
    Mailbox,
}

/// What the host decides about a device.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The kind of front.
    pub front: Front,
    /// The VM's id as the host numbers it.
    pub vm_id: u32,
    /// The VM's pool, an upper case ASCII letter.
    pub pool: u8,
    /// One of the `PRIORITY_` values.
    pub priority: u32,
    /// VRAM quota in bytes; 0 = none.
    pub vram_quota_bytes: u64,
    /// Sessions that the VM may have at once, at most [`pci_layout::control::SESSIONS_MAX`].
    pub session_limit: u32,
}

/// A device: one per VM.
pub struct Device {
    front: Front,
    sessions: Arc<dyn Sessions>,
    answers: Arc<Answers>,
    events: Arc<EventQueue>,
    table: Mutex<Table>,
    boot: Mutex<Option<Boot>>,
    /// Held by whoever carries a request out or resets, so that no session is opened in the middle of a reset.
    turn: Mutex<()>,
    log_limit: LogLimit,
}

/// What the driver said in its HELLO.
struct Boot {
    nonce: u64,
    pending: Option<Arc<dyn PendingPage>>,
}

impl Device {
    /// A device in front of `sessions`.
    pub fn new(config: &DeviceConfig, sessions: Arc<dyn Sessions>) -> Arc<Self> {
        let identity = Identity {
            vm_id: config.vm_id,
            pool: config.pool,
            priority: config.priority,
            vram_quota_bytes: config.vram_quota_bytes,
            session_limit: config.session_limit.min(SessionId::LIMIT),
            capabilities: sessions.capabilities(),
            device_count: sessions.device_count(),
            fingerprint: sessions.fingerprint(),
        };
        let counters = Arc::new(Counters::default());
        let answers =
            Arc::new(Answers { registers: Arc::new(Registers::new(identity)), counters: counters.clone() });
        Arc::new(Self {
            front: config.front,
            sessions,
            answers,
            events: Arc::new(EventQueue::new(counters)),
            table: Mutex::default(),
            boot: Mutex::default(),
            turn: Mutex::default(),
            log_limit: LogLimit::default(),
        })
    }

    /// The register block.
    pub fn registers(&self) -> &Registers {
        &self.answers.registers
    }

    /// The events that wait for the front.
    pub fn events(&self) -> &EventQueue {
        &self.events
    }

    /// The counters' values now.
    pub fn counters(&self) -> CountersSnapshot {
        self.answers.counters.snapshot()
    }

    /// Sessions whose slots are taken.
    pub fn sessions_open(&self) -> u32 {
        self.table().len()
    }

    /// Takes in a control message and answers it, now or later, from any thread, exactly once.
    ///
    /// `message` is the whole of it, already copied out of guest memory; `room` is the longest answer that the guest
    /// has left space for, and at least [`crate::responder::ANSWER_BYTES_MIN`].
    pub fn control(self: &Arc<Self>, message: &[u8], memory: &dyn GuestMemory, room: usize, reply: Reply) {
        self.answers.counters.requests.count();
        let id = request_id(message).unwrap_or(0);
        let mut responder = Responder::new(self.answers.clone(), id, room, reply);
        let request = Request::parse(message);
        if !matches!(request, Ok(Request::ReadRegs | Request::ReadInfo { .. })) {
            responder.record();
        }
        match request {
            Ok(request) => {
                let _turn = self.turn();
                self.carry_out(request, Origin::Control, memory, responder);
            }
            Err(refusal) => self.refuse(responder, refusal),
        }
    }

    /// The same for a message from the mailbox ([`crate::Mailbox`]), in whose memory addresses lie. It leaves no trace in the registers of
    /// the control queue. Sessions are opened through it only while no driver has greeted the device, and end when one does.
    pub fn mailbox_control(
        self: &Arc<Self>,
        message: &[u8],
        memory: &dyn GuestMemory,
        room: usize,
        reply: Reply,
    ) {
        self.answers.counters.requests.count();
        let id = request_id(message).unwrap_or(0);
        let responder = Responder::new(self.answers.clone(), id, room, reply);
        match Request::parse(message) {
            Ok(request) => {
                let _turn = self.turn();
                self.carry_out(request, Origin::Mailbox, memory, responder);
            }
            Err(refusal) => self.refuse(responder, refusal),
        }
    }

    /// A session's parked worker is to look at its rings.
    pub fn kick_session(&self, session: SessionId) {
        if self.table().is_live(session) {
            self.answers.counters.session_kicks.count();
            self.sessions.kick(session);
        }
    }

    /// Answers a message that the front could not even take in.
    pub fn refuse_message(self: &Arc<Self>, head: &[u8], refusal: Refusal, room: usize, reply: Reply) {
        self.answers.counters.requests.count();
        let id = request_id(head).unwrap_or(0);
        let mut responder = Responder::new(self.answers.clone(), id, room, reply);
        responder.record();
        self.refuse(responder, refusal);
    }

    /// The control queue was kicked: passes the pending bits on. To be called before the queue is looked at.
    pub fn kick(&self) {
        self.answers.counters.kicks.count();
        let Some(pending) = self.boot().as_ref().and_then(|boot| boot.pending.clone()) else { return };
        for (word, base) in (0..PENDING_WORDS).zip((0u32..).step_by(u64::BITS as usize)) {
            let mut bits = pending.take(word);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                if let Some(session) = base.checked_add(bit).and_then(SessionId::new)
                    && self.table().is_live(session)
                {
                    self.answers.counters.session_kicks.count();
                    self.sessions.kick(session);
                }
            }
        }
    }

    /// The VM is paused: workers stop dispatching.
    pub fn stop(&self) {
        self.sessions.stop();
    }

    /// The VM goes on.
    pub fn resume(&self) {
        self.sessions.resume();
    }

    /// Ends every session and forgets the driver; returns when all workers were reaped. A device without sessions has
    /// nothing to end: drivers reset it several times before they use it.
    pub fn reset(&self) {
        let _turn = self.turn();
        *self.boot() = None;
        if !self.table().is_empty() {
            self.end_all_sessions();
        }
    }

    /// A descriptor by which a guest process of this host kicks its session's worker itself.
    pub fn kick_fd(&self, session: SessionId) -> Option<OwnedFd> {
        self.sessions.kick_fd(session)
    }

    /// Threads of a session are to be woken.
    pub fn wake(&self, session: SessionId) {
        {
            let table = self.table();
            if !table.is_live(session) {
                return;
            }
            // While the table is held: a close cannot come between and leave the event to the slot's next session.
            self.events.put_wake(session);
        }
        self.events.notify();
    }

    /// A session has died; `reason` is one of the `DEATH_` values.
    pub fn died(&self, session: SessionId, reason: u32) {
        {
            let mut table = self.table();
            if !table.died(session) {
                return;
            }
            self.events.put_death(session, reason);
        }
        self.events.notify();
    }

    fn end_all_sessions(&self) {
        self.answers.counters.resets.count();
        {
            let mut table = self.table();
            table.clear();
            self.answers.registers.set_sessions_open(table.len());
        }
        self.sessions.reset();
        self.events.forget_all();
    }

    fn carry_out(
        self: &Arc<Self>,
        request: Request,
        origin: Origin,
        memory: &dyn GuestMemory,
        responder: Responder,
    ) {
        match request {
            Request::ReadRegs => {
                let block: [u8; BLOCK_BYTES] = self.answers.registers.block();
                responder.body(&block);
            }
            Request::ReadInfo { offset, len } => {
                let part = |blob: &[u8], offset: u32| {
                    let tail = blob.get(offset as usize..).unwrap_or(&[]);
                    tail.get(..len as usize).unwrap_or(tail).to_vec()
                };
                let wanted = match offset.checked_sub(INFO_LIVE) {
                    Some(offset) => part(&self.sessions.live_info(offset == 0), offset),
                    None => part(&self.sessions.info(), offset),
                };
                responder.body(&wanted);
            }
            Request::Hello { .. } if origin == Origin::Mailbox => {
                self.refuse(responder, Refusal::unsupported("the mailbox has no HELLO"));
            }
            _ if origin == Origin::Mailbox && self.boot().is_some() => {
                self.refuse(responder, Refusal::unsupported("the guest's driver has the device"));
            }
            Request::Hello { abi_version, boot_nonce, pending_gpa } => {
                self.hello(abi_version, boot_nonce, pending_gpa, memory, responder);
            }
            _ if origin == Origin::Control && self.boot().is_none() && self.front == Front::Queues => {
                self.refuse(responder, Refusal::invalid("no HELLO yet"));
            }
            Request::OpenSession { session, abi_version, pid, uid, fingerprint, page_gpa, env } => {
                if abi_version != ABI_VERSION {
                    let vm = self.answers.registers.identity().vm_id;
                    limited!(
                        self.log_limit,
                        warn,
                        "VM {vm}: libcuda of process {pid} speaks version {abi_version}, this device {ABI_VERSION}"
                    );
                    let error = SessionError::new(regs::ERROR_UNSUPPORTED);
                    return responder.error(error);
                }
                let wake = match (self.front, origin) {
                    (Front::Queues, Origin::Control) => Wake::Event,
                    // Nobody hears an event of a session of the mailbox's: its threads look.
                    (Front::Sockets, _) | (_, Origin::Mailbox) => Wake::Futex,
                };
                self.open_session(session, page_gpa, memory, responder, |page| Open {
                    pid,
                    uid,
                    fingerprint,
                    env,
                    page,
                    wake,
                });
            }
            Request::AddRingPart { session, ring, part, len, runs } => {
                self.add_ring_part(session, ring, (part, len), &runs, memory, responder);
            }
            Request::RemoveRing { session, ring } => {
                let admitted = self.table().remove_ring(session, ring);
                self.operate(admitted, responder, |done| self.sessions.remove_ring(session, ring, done));
            }
            Request::MapRegion { session, region, read_only, va, len, runs } => {
                self.map_region(session, region, (read_only, va, len), &runs, memory, responder);
            }
            Request::UnmapRegion { session, region } => {
                let admitted = self.table().unmap(session, region);
                self.operate(admitted, responder, |done| self.sessions.unmap_region(session, region, done));
            }
            Request::CloseSession { session } => {
                let admitted = self.table().close(session);
                self.operate(admitted, responder, |done| self.sessions.close_session(session, done));
            }
        }
    }

    fn hello(
        &self,
        abi_version: u32,
        nonce: u64,
        pending_gpa: u64,
        memory: &dyn GuestMemory,
        responder: Responder,
    ) {
        let identity = self.answers.registers.identity();
        let greeting = HelloReply {
            abi_version: ABI_VERSION,
            capabilities: identity.capabilities,
            session_limit: identity.session_limit,
            ring_limit: ring::RINGS_MAX,
        };
        if abi_version != ABI_VERSION {
            limited!(
                self.log_limit,
                warn,
                "VM {}: the driver speaks version {abi_version}, this device {ABI_VERSION}: refused",
                identity.vm_id
            );
            return responder.error_with_body(regs::ERROR_UNSUPPORTED, greeting.as_bytes());
        }
        if self.front == Front::Queues {
            let pending = match memory.pending_page(pending_gpa) {
                Ok(page) => page,
                Err(error) => {
                    log::debug!("HELLO: {error}");
                    return self.refuse(responder, Refusal::invalid("pending page is not in guest memory"));
                }
            };
            let another_boot = self.boot().as_ref().is_none_or(|boot| boot.nonce != nonce);
            if another_boot && !self.table().is_empty() {
                limited!(
                    self.log_limit,
                    info,
                    "VM {}: the guest has booted anew: its sessions end",
                    identity.vm_id
                );
                self.end_all_sessions();
            }
            *self.boot() = Some(Boot { nonce, pending: Some(pending) });
        }
        responder.body(greeting.as_bytes());
    }

    fn open_session(
        self: &Arc<Self>,
        session: SessionId,
        page_gpa: u64,
        memory: &dyn GuestMemory,
        responder: Responder,
        open: impl FnOnce(Piece) -> Open,
    ) {
        let page = Run { gpa: page_gpa, len: PAGE_BYTES };
        let mut pieces = match self.translate(&[page], memory) {
            Ok(pieces) => pieces,
            Err(refusal) => return self.refuse(responder, refusal),
        };
        let (Some(page), true) = (pieces.pop(), pieces.is_empty()) else {
            return self.refuse(responder, Refusal::invalid("session page is not in one piece"));
        };
        let admitted = self.table().open(session, self.answers.registers.identity().session_limit);
        self.operate(admitted, responder, |done| self.sessions.open_session(session, open(page), done));
    }

    fn add_ring_part(
        self: &Arc<Self>,
        session: SessionId,
        ring: RingId,
        (part, len): (RingPart, u64),
        runs: &[Run],
        memory: &dyn GuestMemory,
        responder: Responder,
    ) {
        let pieces = match self.translate(runs, memory) {
            Ok(pieces) => pieces,
            Err(refusal) => return self.refuse(responder, refusal),
        };
        let admitted = self.table().add_part(session, ring, part);
        self.operate(admitted, responder, |done| {
            self.sessions.add_ring_part(session, ring, part, len, pieces, done);
        });
    }

    fn map_region(
        self: &Arc<Self>,
        session: SessionId,
        region: RegionId,
        (read_only, va, len): (bool, u64, u64),
        runs: &[Run],
        memory: &dyn GuestMemory,
        responder: Responder,
    ) {
        let pieces = match self.translate(runs, memory) {
            Ok(pieces) => pieces,
            Err(refusal) => return self.refuse(responder, refusal),
        };
        let admitted = self.table().map(session, region, read_only, va, len);
        self.operate(admitted, responder, |done| {
            self.sessions.map_region(session, region, read_only, va, len, pieces, done);
        });
    }

    fn translate(&self, runs: &[Run], memory: &dyn GuestMemory) -> Result<Vec<Piece>, Refusal> {
        let mut pieces = Vec::new();
        for run in runs {
            if let Err(error) = memory.translate(*run, &mut pieces) {
                log::debug!("{error}");
                return Err(Refusal::invalid("page run is not in guest memory"));
            }
        }
        Ok(pieces)
    }

    /// Starts an admitted operation; its end updates the table, then answers.
    fn operate(
        self: &Arc<Self>,
        admitted: Result<Admitted, Refusal>,
        responder: Responder,
        start: impl FnOnce(Done),
    ) {
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(responder, refusal),
        };
        self.publish_sessions_open();
        let underway = Underway { device: self.clone(), admitted, responder: Some(responder) };
        start(Box::new(move |result| underway.end(result)));
    }

    fn publish_sessions_open(&self) {
        let table = self.table();
        self.answers.registers.set_sessions_open(table.len());
    }

    fn refuse(&self, responder: Responder, refusal: Refusal) {
        let vm = self.answers.registers.identity().vm_id;
        limited!(self.log_limit, warn, "VM {vm}: control request refused: {refusal}");
        responder.error(SessionError::new(refusal.error));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each method of the table leaves it consistent before anything in it can panic.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards no data.
        self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn boot(&self) -> MutexGuard<'_, Option<Boot>> {
        // One store.
        self.boot.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An operation that [`Sessions`] has not finished. Dropped unfinished it counts as failed, so that neither the table
/// nor the guest waits for it.
struct Underway {
    device: Arc<Device>,
    admitted: Admitted,
    responder: Option<Responder>,
}

impl Underway {
    fn end(mut self, result: Result<(), SessionError>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<(), SessionError>) {
        let Some(responder) = self.responder.take() else { return };
        let session = self.admitted.session();
        {
            let mut table = self.device.table();
            table.finish(&self.admitted, result.is_ok());
            if result.is_ok() && self.admitted.operation() == Operation::Close {
                self.device.events.forget(session);
            }
            self.device.answers.registers.set_sessions_open(table.len());
        }
        responder.result(result);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.responder.is_some() {
            log::error!("{:?} of session {} was dropped", self.admitted.operation(), self.admitted.session());
            self.settle(Err(SessionError::new(regs::ERROR_MEDIATOR_UNAVAILABLE)));
        }
    }
}
