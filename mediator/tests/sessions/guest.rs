//! The guest's side of the tests: memory, rings, and what a kernel module does with events.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use mediator::{Done, Events, Open, Piece, SessionError, Vm, VmConfig, WakeKind};
use pci_layout::control::{PART_RING, PART_STAGING};
use pci_layout::ring::{FRAME_WAIT, RING_BYTES};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use vgpu_ring::{FrameFields, Producer, RingMemory, SessionPageMemory, SessionState, WaitFor};

use crate::echo::FINGERPRINT;

/// No wait in these tests is longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Memory of a guest: a file, mapped here.
pub struct Memory {
    pub start: NonNull<u8>,
    len: usize,
    pub pieces: Vec<Piece>,
}

// SAFETY: an address; what is done with it is the tests' business.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` bytes in one run.
    pub fn new(len: u64) -> Self {
        Self::at(None, len, false)
    }

    /// `len` bytes whose pages lie backwards in the file.
    pub fn scattered(len: u64) -> Self {
        Self::at(None, len, true)
    }

    /// As above, at an address.
    pub fn at(va: Option<u64>, len: u64, scattered: bool) -> Self {
        let file = Arc::new(rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd"));
        rustix::fs::ftruncate(&file, len).expect("size");
        let piece = |offset, len| Piece { file: Arc::clone(&file), offset, len };
        let pieces: Vec<Piece> = if scattered {
            (0..len / 4096).rev().map(|page| piece(page * 4096, 4096)).collect()
        } else {
            vec![piece(0, len)]
        };
        let len = len as usize;
        let hint = va.map_or(std::ptr::null_mut(), |va| std::ptr::with_exposed_provenance_mut(va as usize));
        let fixed = if va.is_some() { MapFlags::FIXED_NOREPLACE } else { MapFlags::empty() };
        // SAFETY: a new mapping, at a free address.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                hint,
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | fixed,
            )
        };
        let start = start.expect("address space");
        let mut at = start;
        for piece in &pieces {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: over the mapping that was just made.
            unsafe { rustix::mm::mmap(at, piece.len as usize, access, flags, &piece.file, piece.offset) }
                .expect("map");
            at = at.wrapping_byte_add(piece.len as usize);
        }
        Self { start: NonNull::new(start.cast()).expect("not null"), len, pieces }
    }

    pub fn va(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// The number at `offset`.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.len && offset.is_multiple_of(8));
        // SAFETY: inside the mapping, aligned.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `at`; the tests drop what uses it first.
        unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) }.expect("unmap");
    }
}

/// What a kernel module keeps of events.
#[derive(Default)]
pub struct Kernel {
    state: Mutex<KernelState>,
    changed: Condvar,
}

#[derive(Default)]
struct KernelState {
    pages: HashMap<u32, SessionPageMemory>,
    woken: HashMap<u32, [u64; 4]>,
    died: Vec<(u32, u32)>,
    wakes: u64,
}

impl Events for Kernel {
    fn wake(&self, session: u32) {
        let mut state = self.state.lock().expect("lock");
        state.wakes += 1;
        if let Some(bits) = state.pages.get(&session).map(SessionPageMemory::take_wakes) {
            let woken = state.woken.entry(session).or_default();
            woken.iter_mut().zip(bits).for_each(|(to, from)| *to |= from);
        }
        self.changed.notify_all();
    }

    fn died(&self, session: u32, reason: u32) {
        self.state.lock().expect("lock").died.push((session, reason));
        self.changed.notify_all();
    }
}

impl Kernel {
    /// Sleeps until the thread of `ring` is woken or the session has died; false if neither happens.
    fn wait_for_wake(&self, session: u32, ring: u32) -> bool {
        let state = self.state.lock().expect("lock");
        let asleep = |state: &mut KernelState| {
            let bits = state.woken.get(&session).map_or(0, |bits| bits[ring as usize / 64]);
            bits & 1 << (ring % 64) == 0 && !state.died.iter().any(|(died, _)| *died == session)
        };
        let (mut state, timeout) = self.changed.wait_timeout_while(state, PATIENCE, asleep).expect("lock");
        if let Some(bits) = state.woken.get_mut(&session) {
            bits[ring as usize / 64] &= !(1 << (ring % 64));
        }
        !timeout.timed_out()
    }

    /// Waits until `session` has died and tells why.
    pub fn wait_for_death(&self, session: u32) -> Option<u32> {
        let state = self.state.lock().expect("lock");
        let alive = |state: &mut KernelState| !state.died.iter().any(|(died, _)| *died == session);
        let (state, _) = self.changed.wait_timeout_while(state, PATIENCE, alive).expect("lock");
        state.died.iter().find(|(died, _)| *died == session).map(|(_, reason)| *reason)
    }

    pub fn deaths(&self) -> usize {
        self.state.lock().expect("lock").died.len()
    }

    pub fn wakes(&self) -> u64 {
        self.state.lock().expect("lock").wakes
    }
}

/// Waits for the end of an operation.
pub fn wait(operation: impl FnOnce(Done)) -> Result<(), SessionError> {
    begin(operation).recv_timeout(PATIENCE).expect("the operation ends")
}

/// Starts an operation.
pub fn begin(operation: impl FnOnce(Done)) -> mpsc::Receiver<Result<(), SessionError>> {
    let (sender, receiver) = mpsc::channel();
    operation(Box::new(move |result| sender.send(result).expect("somebody listens")));
    receiver
}

/// The error of an operation that must fail.
pub fn error(operation: impl FnOnce(Done)) -> u32 {
    wait(operation).expect_err("the operation fails").error
}

/// A VM with the echo as its worker.
pub fn start_vm(change: impl FnOnce(&mut VmConfig)) -> (Arc<Vm>, Arc<Kernel>) {
    let kernel = Arc::new(Kernel::default());
    let mut config = VmConfig::new(7);
    change(&mut config);
    let vm = Vm::start(config, Arc::clone(&kernel) as Arc<dyn Events>).expect("the VM starts");
    (vm, kernel)
}

/// A session as its guest process has it.
pub struct Guest {
    pub vm: Arc<Vm>,
    pub kernel: Arc<Kernel>,
    pub id: u32,
    pub page: Memory,
    wake: WakeKind,
    kick: Option<OwnedFd>,
    tickets: Arc<AtomicU64>,
}

pub fn open_request(page: &Memory, wake: WakeKind) -> Open {
    Open {
        pid: 4711,
        uid: 1000,
        fingerprint: FINGERPRINT,
        env: b"CUDA_MODULE_LOADING=EAGER\0PATH=/guest\0".to_vec(),
        page: page.pieces[0].clone(),
        wake,
    }
}

impl Guest {
    pub fn open(vm: &Arc<Vm>, kernel: &Arc<Kernel>, id: u32, wake: WakeKind) -> Self {
        Self::open_with(vm, kernel, id, wake, |_| ())
    }

    pub fn open_with(
        vm: &Arc<Vm>,
        kernel: &Arc<Kernel>,
        id: u32,
        wake: WakeKind,
        change: impl FnOnce(&mut Open),
    ) -> Self {
        let page = Memory::new(4096);
        let mut open = open_request(&page, wake);
        change(&mut open);
        wait(|done| vm.open_session(id, open, done)).expect("the session opens");
        let kick = (wake == WakeKind::Futex).then(|| vm.kick_fd(id).expect("a kick descriptor"));
        let (vm, kernel) = (Arc::clone(vm), Arc::clone(kernel));
        let guest = Self { vm, kernel, id, page, wake, kick, tickets: Arc::default() };
        guest.kernel.state.lock().expect("lock").pages.insert(id, guest.session_page());
        guest
    }

    pub fn session_page(&self) -> SessionPageMemory {
        // SAFETY: mapped while `self.page` lives, which the tests keep longest.
        unsafe { SessionPageMemory::new(self.page.start) }
    }

    pub fn state(&self) -> SessionState {
        self.session_page().state()
    }

    pub fn ring(&self, index: u32) -> GuestRing<'_> {
        let memory = Memory::scattered(u64::from(RING_BYTES));
        self.add_part(index, PART_RING, &memory).expect("the ring is added");
        // SAFETY: mapped while `memory` lives, which the ring owns.
        let producer = Producer::new(unsafe { RingMemory::new(memory.start) });
        GuestRing { guest: self, index, producer, memory, bulk: 0, polls: 50 }
    }

    pub fn add_part(&self, ring: u32, part: u32, memory: &Memory) -> Result<(), SessionError> {
        wait(|done| {
            self.vm.add_ring_part(self.id, ring, part, memory.len(), memory.pieces.clone(), done);
        })
    }

    pub fn staging(&self, ring: u32, len: u64) -> Memory {
        let memory = Memory::scattered(len);
        self.add_part(ring, PART_STAGING, &memory).expect("the staging buffer is added");
        memory
    }

    pub fn map(&self, region: u32, flags: u32, memory: &Memory) -> Result<(), SessionError> {
        self.map_pieces(region, flags, memory.va(), memory.pieces.clone())
    }

    pub fn map_pieces(
        &self,
        region: u32,
        flags: u32,
        va: u64,
        pieces: Vec<Piece>,
    ) -> Result<(), SessionError> {
        let len = pieces.iter().map(|piece| piece.len).sum();
        wait(|done| self.vm.map_region(self.id, region, flags, va, len, pieces, done))
    }

    pub fn unmap(&self, region: u32) -> Result<(), SessionError> {
        wait(|done| self.vm.unmap_region(self.id, region, done))
    }

    /// The error of a ring that is not to be had.
    pub fn ring_refused(&self) -> u32 {
        let memory = Memory::new(u64::from(RING_BYTES));
        self.add_part(7, PART_RING, &memory).expect_err("the session is over").error
    }

    pub fn close(&self) -> Result<(), SessionError> {
        wait(|done| self.vm.close_session(self.id, done))
    }

    pub fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn kick(&self) {
        match &self.kick {
            Some(kick) => drop(rustix::io::write(kick, &1u64.to_ne_bytes()).expect("kick")),
            None => self.vm.kick(self.id),
        }
    }
}

/// A ring as its guest thread has it.
pub struct GuestRing<'a> {
    pub guest: &'a Guest,
    pub index: u32,
    pub producer: Producer,
    pub memory: Memory,
    bulk: u64,
    /// How often to look again before sleeping.
    pub polls: u32,
}

/// The session is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead(pub u32);

impl GuestRing<'_> {
    pub fn push(&mut self, call: u32, flags: u32, args: &[u8]) -> Result<u64, Dead> {
        let ticket = self.guest.next_ticket();
        self.push_as(ticket, call, flags, args)?;
        Ok(ticket)
    }

    pub fn push_as(&mut self, ticket: u64, call: u32, flags: u32, args: &[u8]) -> Result<(), Dead> {
        self.wait_for(WaitFor::Space)?;
        let mut writer = self.producer.reserve().expect("there is space");
        writer.put(args);
        let fields = FrameFields { call, flags, context: 0, ticket };
        if writer.publish(fields).expect("the frame fits") {
            self.guest.kick();
        }
        Ok(())
    }

    /// A call that is not waited for.
    pub fn post(&mut self, call: u32, args: &[u8]) -> u64 {
        self.push(call, 0, args).expect("the session lives")
    }

    /// A call that is waited for.
    pub fn try_call(&mut self, call: u32, args: &[u8]) -> Result<(u32, Vec<u8>), Dead> {
        let ticket = self.push(call, FRAME_WAIT, args)?;
        self.reply(ticket)
    }

    pub fn reply(&mut self, ticket: u64) -> Result<(u32, Vec<u8>), Dead> {
        self.wait_for(WaitFor::Reply(ticket))?;
        let header = self.producer.poll_reply(ticket).expect("the reply is there");
        let mut reply = vec![0; header.len as usize];
        assert!(self.producer.read_reply(0, &mut reply));
        Ok((header.result, reply))
    }

    pub fn call(&mut self, call: u32, args: &[u8]) -> Vec<u8> {
        let (result, reply) = self.try_call(call, args).expect("the session lives");
        assert_eq!(result, 0, "call {call}");
        reply
    }

    pub fn numbers(&mut self, call: u32, args: &[u64]) -> Vec<u64> {
        let args: Vec<u8> = args.iter().flat_map(|number| number.to_le_bytes()).collect();
        let reply = self.call(call, &args);
        reply.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8"))).collect()
    }

    /// What [`call::RECORD`] has logged, asked for out of turn.
    pub fn log_out_of_turn(&mut self) -> Vec<u64> {
        let flags = FRAME_WAIT | pci_layout::ring::FRAME_UNORDERED;
        let ticket = self.push(crate::echo::call::READ_LOG, flags, &[]).expect("the session lives");
        let (_, reply) = self.reply(ticket).expect("the session lives");
        reply.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8"))).collect()
    }

    pub fn text(&mut self, call: u32, args: &[u8]) -> String {
        String::from_utf8(self.call(call, args)).expect("text")
    }

    /// A bulk call that is posted; returns when it is done.
    pub fn bulk(&mut self, call: u32) -> Result<(), Dead> {
        self.push(call, pci_layout::ring::FRAME_BULK, &[])?;
        self.bulk += 1;
        self.wait_for(WaitFor::Bulk(self.bulk))
    }

    pub fn wait_for(&mut self, what: WaitFor) -> Result<(), Dead> {
        let start = Instant::now();
        let mut spins = 0;
        while !self.producer.is_ready(what) {
            if let SessionState::Dead(reason) = self.guest.state() {
                return Err(Dead(reason));
            }
            assert!(start.elapsed() < PATIENCE, "waited too long for {what:?}");
            if spins < self.polls {
                spins += 1;
                std::thread::yield_now();
            } else if self.producer.prepare_wait(what) {
                self.sleep(what);
                self.producer.finish_wait();
            }
        }
        Ok(())
    }

    fn sleep(&self, what: WaitFor) {
        match self.guest.wake {
            WakeKind::Event => {
                assert!(
                    self.guest.kernel.wait_for_wake(self.guest.id, self.index),
                    "nobody wakes for {what:?}"
                );
            }
            WakeKind::Futex => {
                // SAFETY: the word lies in the ring's header.
                let word = unsafe { AtomicU32::from_ptr(self.producer.memory().guest_parked_futex()) };
                let slice = rustix::thread::futex::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                let flags = rustix::thread::futex::Flags::empty();
                // Woken, changed before, or the slice is over: the caller looks again.
                let _ = rustix::thread::futex::wait(word, flags, what.guest_parked(), Some(&slice));
            }
        }
    }

    pub fn remove(self) -> Result<(), SessionError> {
        wait(|done| self.guest.vm.remove_ring(self.guest.id, self.index, done))
    }
}
