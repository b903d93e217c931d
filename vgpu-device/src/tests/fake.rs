//! A fake mediator, fake guest memory, and a guest's side of the control queue.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use pci_layout::control::{self, ReplyHeader, RequestHeader, Run};
use pci_layout::{ABI_VERSION, PAGE_BYTES, regs, ring};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    Device, DeviceConfig, Done, Front, GuestMemory, Open, PendingPage, Piece, RegionId, RingId, RingPart,
    SessionError, SessionId, Sessions, TranslateError, Wake,
};

/// Guest memory: one region of 64 MiB from address 0.
pub const MEMORY_BYTES: u64 = 64 << 20;
/// Where the tests' pending page is.
pub const PENDING_GPA: u64 = 0x3000;

pub struct Memory {
    file: Arc<OwnedFd>,
    pub pending: Arc<Pending>,
}

#[derive(Default)]
pub struct Pending([AtomicU64; crate::memory::PENDING_WORDS]);

impl Pending {
    pub fn set(&self, session: u32) {
        self.0[session as usize / 64].fetch_or(1 << (session % 64), Ordering::Release);
    }
}

impl PendingPage for Pending {
    fn take(&self, word: usize) -> u64 {
        self.0[word].swap(0, Ordering::AcqRel)
    }
}

impl Memory {
    pub fn new() -> Self {
        let file = std::fs::File::open("/dev/null").unwrap();
        Self { file: Arc::new(file.into()), pending: Arc::default() }
    }
}

impl GuestMemory for Memory {
    fn translate(&self, run: Run, pieces: &mut Vec<Piece>) -> Result<(), TranslateError> {
        match run.gpa.checked_add(run.len) {
            Some(end) if end <= MEMORY_BYTES => {
                let piece = Piece { file: self.file.clone(), offset: run.gpa, len: run.len };
                crate::memory::push_piece(pieces, piece);
                Ok(())
            }
            _ => Err(TranslateError { address: run.gpa, len: run.len }),
        }
    }

    fn pending_page(&self, gpa: u64) -> Result<Arc<dyn PendingPage>, TranslateError> {
        if gpa >= MEMORY_BYTES {
            return Err(TranslateError { address: gpa, len: PAGE_BYTES });
        }
        Ok(self.pending.clone())
    }
}

/// What the fake was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Open { session: u32, page: u64, env: Vec<u8>, wake: Wake },
    AddPart { session: u32, ring: u32, part: RingPart, len: u64, pieces: Vec<(u64, u64)> },
    RemoveRing { session: u32, ring: u32 },
    Map { session: u32, region: u32, read_only: bool, va: u64, len: u64, pieces: Vec<(u64, u64)> },
    Unmap { session: u32, region: u32 },
    Close { session: u32 },
    Kick(u32),
    Stop,
    Resume,
    Reset,
}

/// Remembers everything; completes operations at once unless told to hold them.
#[derive(Default)]
pub struct Fake {
    pub asked: Mutex<Vec<Asked>>,
    pub hold: Mutex<bool>,
    pub held: Mutex<Vec<Done>>,
    pub fail_with: Mutex<Option<SessionError>>,
}

impl Fake {
    fn take_in(&self, asked: Asked, done: Done) {
        self.asked.lock().unwrap().push(asked);
        if *self.hold.lock().unwrap() {
            self.held.lock().unwrap().push(done);
        } else {
            done(self.fail_with.lock().unwrap().map_or(Ok(()), Err));
        }
    }

    /// What was asked since the last look.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The oldest operation held.
    pub fn release(&self) -> Done {
        self.held.lock().unwrap().remove(0)
    }
}

fn places(pieces: &[Piece]) -> Vec<(u64, u64)> {
    pieces.iter().map(|piece| (piece.offset, piece.len)).collect()
}

pub const INFO: &[u8] = b"information that only libcuda reads";
pub const LIVE: &[u8] = b"what changes meanwhile";

impl Sessions for Fake {
    fn info(&self) -> Arc<[u8]> {
        INFO.into()
    }
    fn live_info(&self, _: bool) -> Arc<[u8]> {
        LIVE.into()
    }
    fn capabilities(&self) -> u32 {
        regs::CAP_MAP_GUEST_PAGES
    }
    fn device_count(&self) -> u32 {
        2
    }
    fn fingerprint(&self) -> [u8; 16] {
        *b"fingerprint 16 b"
    }
    fn open_session(&self, session: SessionId, open: Open, done: Done) {
        let (session, page) = (session.get(), open.page.offset);
        self.take_in(Asked::Open { session, page, env: open.env, wake: open.wake }, done);
    }
    fn add_ring_part(
        &self,
        session: SessionId,
        ring: RingId,
        part: RingPart,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    ) {
        let (session, ring, pieces) = (session.get(), ring.get(), places(&pieces));
        self.take_in(Asked::AddPart { session, ring, part, len, pieces }, done);
    }
    fn remove_ring(&self, session: SessionId, ring: RingId, done: Done) {
        self.take_in(Asked::RemoveRing { session: session.get(), ring: ring.get() }, done);
    }
    fn map_region(
        &self,
        session: SessionId,
        region: RegionId,
        read_only: bool,
        va: u64,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    ) {
        let (session, region, pieces) = (session.get(), region.get(), places(&pieces));
        self.take_in(Asked::Map { session, region, read_only, va, len, pieces }, done);
    }
    fn unmap_region(&self, session: SessionId, region: RegionId, done: Done) {
        self.take_in(Asked::Unmap { session: session.get(), region: region.get() }, done);
    }
    fn close_session(&self, session: SessionId, done: Done) {
        self.take_in(Asked::Close { session: session.get() }, done);
    }
    fn kick_fd(&self, _session: SessionId) -> Option<OwnedFd> {
        None
    }
    fn kick(&self, session: SessionId) {
        self.asked.lock().unwrap().push(Asked::Kick(session.get()));
    }
    fn stop(&self) {
        self.asked.lock().unwrap().push(Asked::Stop);
    }
    fn resume(&self) {
        self.asked.lock().unwrap().push(Asked::Resume);
    }
    fn reset(&self) {
        self.asked.lock().unwrap().push(Asked::Reset);
        for done in std::mem::take(&mut *self.held.lock().unwrap()) {
            done(Err(SessionError::new(regs::ERROR_MEDIATOR_UNAVAILABLE)));
        }
    }
}

/// An answer as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub error: u32,
    pub request_id: u32,
    pub cuda_result: u32,
    pub body: Vec<u8>,
}

/// A guest with its device.
pub struct Guest {
    pub device: Arc<Device>,
    pub fake: Arc<Fake>,
    pub memory: Memory,
}

impl Guest {
    pub fn new(front: Front) -> Self {
        let fake = Arc::new(Fake::default());
        let config = DeviceConfig {
            front,
            vm_id: 7,
            pool: b'B',
            priority: regs::PRIORITY_HIGH,
            vram_quota_bytes: 16 << 30,
            session_limit: 128,
        };
        Self { device: Device::new(&config, fake.clone()), fake, memory: Memory::new() }
    }

    /// A guest whose driver has said HELLO.
    pub fn booted() -> Self {
        let guest = Self::new(Front::Queues);
        assert_eq!(guest.hello(1).error, regs::ERROR_NONE);
        guest
    }

    /// Sends bytes; the answers come out of the channel.
    pub fn send(&self, bytes: &[u8], room: usize) -> mpsc::Receiver<Vec<u8>> {
        let (answers, received) = mpsc::channel();
        let reply = Box::new(move |answer: &[u8]| answers.send(answer.to_vec()).unwrap());
        self.device.control(bytes, &self.memory, room, reply);
        received
    }

    /// Sends a request that is answered at once.
    pub fn ask(&self, kind: u32, session: u32, body: &[u8]) -> Answer {
        let answers = self.send(&message(kind, 0x77, session, body), control::REPLY_BYTES_MAX as usize);
        let answer = parse(&answers.try_recv().expect("answered at once"));
        assert_eq!(answer.request_id, 0x77);
        assert!(answers.try_recv().is_err(), "answered twice");
        answer
    }

    pub fn hello(&self, boot_nonce: u64) -> Answer {
        let abi_version = ABI_VERSION;
        let hello = control::Hello { abi_version, reserved: 0, boot_nonce, pending_gpa: PENDING_GPA };
        self.ask(control::HELLO, 0, hello.as_bytes())
    }

    pub fn open(&self, session: u32) -> Answer {
        self.ask(control::OPEN_SESSION, session, &open_body(b"A=1\0"))
    }

    pub fn add_part(&self, session: u32, ring: u32, part: u32) -> Answer {
        self.ask(control::ADD_RING_PART, session, &part_body(ring, part))
    }

    pub fn map(&self, session: u32, region: u32, va: u64, runs: &[Run]) -> Answer {
        self.ask(control::MAP_REGION, session, &map_body(region, 0, va, runs))
    }

    pub fn close(&self, session: u32) -> Answer {
        self.ask(control::CLOSE_SESSION, session, &[0; 8])
    }
}

pub fn message(kind: u32, request_id: u32, session: u32, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader { kind, request_id, session, reserved: 0 };
    [header.as_bytes(), body].concat()
}

pub fn parse(answer: &[u8]) -> Answer {
    let (header, body) = ReplyHeader::read_from_prefix(answer).unwrap();
    assert_eq!(header.len as usize, body.len());
    let ReplyHeader { error, request_id, cuda_result, .. } = header;
    Answer { error, request_id, cuda_result, body: body.to_vec() }
}

pub fn open_body(env: &[u8]) -> Vec<u8> {
    let open = control::OpenSession {
        abi_version: ABI_VERSION,
        pid: 4711,
        fingerprint: [0; 16],
        page_gpa: 0x5000,
        env_len: env.len() as u32,
        uid: 1000,
    };
    [open.as_bytes(), env].concat()
}

pub fn part_body(ring: u32, part: u32) -> Vec<u8> {
    let len = if part == control::PART_RING { u64::from(ring::RING_BYTES) } else { 4 << 20 };
    let head = control::AddRingPart { ring, part, len, run_count: 1, reserved: 0 };
    [head.as_bytes(), Run { gpa: 0x10_0000, len }.as_bytes()].concat()
}

pub fn map_body(region: u32, flags: u32, va: u64, runs: &[Run]) -> Vec<u8> {
    let len = runs.iter().map(|run| run.len).sum();
    let run_count = runs.len() as u32;
    let head = control::MapRegion { region, flags, va, len, run_count, reserved: 0 };
    [head.as_bytes(), runs.as_bytes()].concat()
}
