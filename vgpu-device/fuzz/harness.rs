//! What the fuzzer and the replay test of its corpus both do with an input.
//!
//! An input is a list of steps: a byte that says what happens before, two bytes of length (little endian), and a control
//! message of that length. A message cut short by the input's end is sent as it is.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pci_layout::control::{REPLY_BYTES_MAX, ReplyHeader, Run};
use pci_layout::{event, regs};
use vgpu_device::{
    Device, DeviceConfig, Done, Front, GuestMemory, Open, PendingPage, Piece, RegionId, RingId, RingPart,
    SessionError, SessionId, Sessions, TranslateError,
};
use zerocopy::FromBytes;

/// Bits of a step's first byte.
const COMPLETE_OLDEST: u8 = 1;
const HOLD: u8 = 2;
const FAIL: u8 = 4;
const KICK: u8 = 8;
const DIE: u8 = 16;
const RESET: u8 = 32;
const TAKE_EVENT: u8 = 64;
const DROP_OLDEST: u8 = 128;

/// Guest memory of the length of a small VM's.
const MEMORY_BYTES: u64 = 1 << 30;

struct Memory {
    file: Arc<OwnedFd>,
    pending: Arc<Pending>,
}

#[derive(Default)]
struct Pending(AtomicU64);

impl PendingPage for Pending {
    fn take(&self, word: usize) -> u64 {
        self.0.load(Ordering::Relaxed).rotate_left(u32::try_from(word).unwrap())
    }
}

impl GuestMemory for Memory {
    fn translate(&self, run: Run, pieces: &mut Vec<Piece>) -> Result<(), TranslateError> {
        match run.gpa.checked_add(run.len) {
            Some(end) if end <= MEMORY_BYTES => {
                let piece = Piece { file: self.file.clone(), offset: run.gpa, len: run.len };
                vgpu_device::memory::push_piece(pieces, piece);
                Ok(())
            }
            _ => Err(TranslateError { address: run.gpa, len: run.len }),
        }
    }

    fn pending_page(&self, gpa: u64) -> Result<Arc<dyn PendingPage>, TranslateError> {
        self.translate(Run { gpa, len: 4096 }, &mut Vec::new())?;
        Ok(self.pending.clone())
    }
}

/// Completes operations as the steps say, and checks what it is handed.
#[derive(Default)]
struct Mediator {
    mode: Mutex<u8>,
    held: Mutex<Vec<Done>>,
}

impl Mediator {
    fn take_in(&self, done: Done) {
        let mode = *self.mode.lock().unwrap();
        if mode & HOLD != 0 {
            self.held.lock().unwrap().push(done);
        } else if mode & FAIL != 0 {
            done(Err(SessionError { error: regs::ERROR_CUDA, cuda_result: 2 }));
        } else {
            done(Ok(()));
        }
    }

    fn oldest(&self) -> Option<Done> {
        let mut held = self.held.lock().unwrap();
        if held.is_empty() { None } else { Some(held.remove(0)) }
    }
}

fn check(pieces: &[Piece], len: u64) {
    assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), len);
    assert!(pieces.iter().all(|piece| piece.len > 0 && piece.offset + piece.len <= MEMORY_BYTES));
}

impl Sessions for Mediator {
    fn info(&self) -> std::sync::Arc<[u8]> {
        [0x5a; 100].into()
    }
    fn live_info(&self, _: bool) -> std::sync::Arc<[u8]> {
        [0xa5; 50].into()
    }
    fn capabilities(&self) -> u32 {
        0
    }
    fn device_count(&self) -> u32 {
        1
    }
    fn fingerprint(&self) -> [u8; 16] {
        [0; 16]
    }
    fn open_session(&self, _: SessionId, open: Open, done: Done) {
        check(&[open.page], 4096);
        self.take_in(done);
    }
    fn add_ring_part(&self, _: SessionId, _: RingId, _: RingPart, len: u64, pieces: Vec<Piece>, done: Done) {
        check(&pieces, len);
        self.take_in(done);
    }
    fn remove_ring(&self, _: SessionId, _: RingId, done: Done) {
        self.take_in(done);
    }
    fn map_region(
        &self,
        _: SessionId,
        _: RegionId,
        _: bool,
        va: u64,
        len: u64,
        pieces: Vec<Piece>,
        done: Done,
    ) {
        assert!(va.is_multiple_of(4096) && va + len <= 1 << 47);
        check(&pieces, len);
        self.take_in(done);
    }
    fn unmap_region(&self, _: SessionId, _: RegionId, done: Done) {
        self.take_in(done);
    }
    fn close_session(&self, _: SessionId, done: Done) {
        self.take_in(done);
    }
    fn kick_fd(&self, _: SessionId) -> Option<OwnedFd> {
        None
    }
    fn kick(&self, _: SessionId) {}
    fn stop(&self) {}
    fn resume(&self) {}
    fn reset(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        for done in held {
            done(Err(SessionError { error: regs::ERROR_MEDIATOR_UNAVAILABLE, cuda_result: 0 }));
        }
    }
}

/// What came of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Messages sent.
    pub messages: usize,
    /// Answers without an error.
    pub successes: usize,
}

/// Plays an input; panics if a message is not answered exactly once or an answer is malformed.
pub fn run(mut data: &[u8]) -> Outcome {
    let mediator = Arc::new(Mediator::default());
    let config = DeviceConfig {
        front: Front::Queues,
        vm_id: 1,
        pool: b'A',
        priority: 0,
        vram_quota_bytes: 0,
        session_limit: 256,
    };
    let device = Device::new(&config, mediator.clone());
    let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let memory = Memory { file, pending: Arc::default() };
    let successes = Arc::new(AtomicUsize::new(0));
    let mut answered: Vec<Arc<AtomicUsize>> = Vec::new();
    while let [mode, low, high, rest @ ..] = data {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (message, rest) = rest.split_at(len);
        data = rest;
        before(*mode, &device, &mediator, &memory);
        let count = Arc::new(AtomicUsize::new(0));
        answered.push(count.clone());
        let (successes, room) =
            (successes.clone(), if mode & FAIL != 0 { 20 } else { REPLY_BYTES_MAX as usize });
        let reply = Box::new(move |answer: &[u8]| {
            count.fetch_add(1, Ordering::Relaxed);
            assert!(answer.len() <= room);
            let (header, body) = ReplyHeader::read_from_prefix(answer).unwrap();
            assert_eq!(header.len as usize, body.len());
            successes.fetch_add(usize::from(header.error == regs::ERROR_NONE), Ordering::Relaxed);
        });
        device.control(message, &memory, room, reply);
    }
    device.reset();
    while let Some(done) = mediator.oldest() {
        done(Ok(()));
    }
    assert!(answered.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert_eq!(device.counters().requests, device.counters().answers);
    Outcome { messages: answered.len(), successes: successes.load(Ordering::Relaxed) }
}

fn before(mode: u8, device: &Arc<Device>, mediator: &Mediator, memory: &Memory) {
    *mediator.mode.lock().unwrap() = mode;
    if mode & COMPLETE_OLDEST != 0
        && let Some(done) = mediator.oldest()
    {
        done(if mode & FAIL != 0 {
            Err(SessionError { error: regs::ERROR_TIMEOUT, cuda_result: 0 })
        } else {
            Ok(())
        });
    }
    if mode & DROP_OLDEST != 0 {
        drop(mediator.oldest());
    }
    if mode & KICK != 0 {
        memory.pending.0.store(u64::from(mode) | 1 << 63, Ordering::Relaxed);
        device.kick();
    }
    if let (true, Some(session)) = (mode & DIE != 0, SessionId::new(u32::from(mode & 3))) {
        device.wake(session);
        device.died(session, event::DEATH_WORKER_LOST);
    }
    if mode & RESET != 0 {
        device.reset();
    }
    if mode & TAKE_EVENT != 0 {
        device.events().take();
    }
}
