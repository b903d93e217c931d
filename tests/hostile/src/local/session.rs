//! A session whose memory is ours to spoil.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use cuda_api::Call;
use cuda_api::calls::{context, entry, event, memory, module, stream};
use cuda_api::types::{CUcontext, CUevent, CUfunction, CUmodule, CUstream, Handle, HandleKind, pack_handle};
use cuda_api::wire::{Bulk, Reader, Wire};
use pci_layout::control::{
    ADD_RING_PART, AddRingPart, CLOSE_SESSION, OPEN_SESSION, OpenSession, PART_RING, PART_STAGING, Run,
    SESSION_UNASSIGNED, SessionRef,
};
use pci_layout::ring::{
    FRAME_AREA_BYTES, FRAME_PAD, FRAME_WAIT, FrameHeader, HEADER_BYTES, OFF_HEAD, OFF_HOST_PARKED, OFF_REPLY,
    OFF_TAIL, RING_BYTES, SESSION_DEAD, SESSION_PAGE_BYTES,
};
use pci_layout::{ABI_VERSION, regs};
use zerocopy::IntoBytes;

use super::memory::Shared;
use super::packets::{Heard, Packets};

/// How long a session may take to go on or to end.
const LIMIT: Duration = Duration::from_secs(10);
/// Tickets of probes: below all tickets of cases, so that nothing a case has queued holds them back.
const PROBE_TICKETS: u64 = 1;
/// The first ticket of a case.
pub const CASE_TICKETS: u64 = 1 << 32;
/// The ring that cases spoil, and the one that asks whether the session goes on.
const SPOILT: u32 = 0;
const PROBE: u32 = 1;

/// The kernels of a session's module: one does nothing, one writes where it is told.
const PTX: &str = "\
.version 8.0
.target sm_80
.address_size 64
.visible .entry empty() { ret; }
.visible .entry poke(.param .u64 where, .param .u64 value)
{
 .reg .b64 %rd<3>;
 ld.param.u64 %rd1, [where];
 ld.param.u64 %rd2, [value];
 st.global.u64 [%rd1], %rd2;
 ret;
}
";

/// How a session stands after a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It serves a call on another ring.
    No,
    /// It is over, with this reason in its page.
    Yes(u32),
    /// Neither: its worker is busy with what it was asked to do.
    Stuck,
}

/// A ring's memory, and a producer's idea of it.
#[derive(Debug)]
pub struct Ring {
    /// All of it.
    pub memory: Shared,
    /// Bytes published.
    pub head: u64,
}

impl Ring {
    /// Writes a frame's bytes at a position.
    pub fn write_at(&self, position: u64, bytes: &[u8]) {
        let offset = (position % u64::from(FRAME_AREA_BYTES)) as usize;
        let room = FRAME_AREA_BYTES as usize - offset;
        self.memory.write(HEADER_BYTES as usize + offset, &bytes[..bytes.len().min(room)]);
    }

    /// Stores a head, true or not.
    pub fn publish(&self, head: u64) {
        self.memory.word(OFF_HEAD as usize).store(head, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// What the host has consumed.
    pub fn tail(&self) -> u64 {
        self.memory.word(OFF_TAIL as usize).load(Ordering::SeqCst)
    }

    /// The host sleeps.
    pub fn host_parked(&self) -> bool {
        self.memory.half(OFF_HOST_PARKED as usize).load(Ordering::SeqCst) == 1
    }
}

/// A frame as bytes.
pub fn frame(call: u32, flags: u32, context: u32, ticket: u64, args: &[u8]) -> Vec<u8> {
    let mut bytes = args.to_vec();
    bytes.resize(args.len().next_multiple_of(8), 0);
    let len = (bytes.len() + size_of::<FrameHeader>()) as u32;
    [FrameHeader { len, call, flags, context, ticket }.as_bytes(), &bytes].concat()
}

/// What a session that looks like a program's has: good for forgeries that are nearly right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Things {
    /// A context's number in frames, and its handle.
    pub context: u64,
    /// A megabyte of device memory.
    pub memory: u64,
    /// A stream.
    pub stream: u64,
    /// An event.
    pub event: u64,
    /// A module.
    pub module: u64,
    /// Its kernel that writes.
    pub function: u64,
}

/// Device bytes that [`Things`] has.
pub const DEVICE_BYTES: usize = 1 << 20;

/// A session with two rings.
#[derive(Debug)]
pub struct Session {
    /// Its connection.
    pub packets: Packets,
    /// Its slot.
    pub slot: u32,
    page: Shared,
    kick: OwnedFd,
    /// The ring that cases spoil.
    pub ring: Ring,
    probe: Ring,
    staging: Option<Shared>,
    last_ticket: u64,
    last_probe: u64,
    /// A call does not come back.
    pub jammed: bool,
}

/// OPEN_SESSION's body, as libcuda sends it.
pub fn open_body(env: &[u8]) -> Vec<u8> {
    let open = OpenSession {
        abi_version: ABI_VERSION,
        pid: 1,
        fingerprint: cuda_api::fingerprint(),
        page_gpa: 0,
        env_len: env.len() as u32,
        uid: 0,
    };
    [open.as_bytes(), env].concat()
}

/// ADD_RING_PART's body for one run at the start of a file.
pub fn part_body(ring: u32, part: u32, len: u64) -> Vec<u8> {
    let head = AddRingPart { ring, part, len, run_count: 1, reserved: 0 };
    [head.as_bytes(), Run { gpa: 0, len }.as_bytes()].concat()
}

impl Session {
    /// Opens one, with good manners.
    pub fn open(path: &Path) -> Result<Self> {
        let mut packets = Packets::connect(path)?;
        let page = Shared::new(SESSION_PAGE_BYTES as usize)?;
        let opened = packets.ask(OPEN_SESSION, SESSION_UNASSIGNED, &open_body(b""), &[page.file.as_fd()])?;
        let Heard::Answer(mut answer) = opened else { bail!("the daemon opens no session") };
        ensure!(answer.error == regs::ERROR_NONE, "the daemon opens no session: {answer:?}");
        let slot = answer.body.first_chunk::<8>().map(|b| u64::from_le_bytes(*b) as u32);
        let (Some(slot), Some(kick)) = (slot, answer.files.pop()) else { bail!("an odd answer: {answer:?}") };
        let ring = add_ring(&mut packets, slot, SPOILT)?;
        let probe = add_ring(&mut packets, slot, PROBE)?;
        let (last_ticket, last_probe) = (CASE_TICKETS, PROBE_TICKETS);
        Ok(Session {
            packets,
            slot,
            page,
            kick,
            ring,
            probe,
            staging: None,
            last_ticket,
            last_probe,
            jammed: false,
        })
    }

    /// One with everything that a program has.
    pub fn with_things(path: &Path) -> Result<(Self, Things)> {
        let mut session = Self::open(path)?;
        let things = session.make_things()?;
        Ok((session, things))
    }

    fn make_things(&mut self) -> Result<Things> {
        let name = |kind| pack_handle(kind, 1, 1);
        let context = name(HandleKind::Context);
        let (stream, event) = (name(HandleKind::Stream), name(HandleKind::Event));
        let (module, function) = (name(HandleKind::Module), name(HandleKind::Function));
        self.must::<context::row::cuCtxCreate_v2>(0, &(CUcontext::from_raw(context), 0, 0))?;
        let number = context as u32;
        let memory = self.must::<memory::row::cuMemAlloc_v2>(number, &(DEVICE_BYTES, &[]))?;
        self.must::<stream::row::cuStreamCreate>(number, &(CUstream::from_raw(stream), 1, 0))?;
        self.must::<event::row::cuEventCreate>(number, &(CUevent::from_raw(event), 0))?;
        let mut image = PTX.as_bytes().to_vec();
        image.push(0);
        let (id, total) = (7, image.len() as u64);
        self.must::<entry::row::vgpuImageData>(0, &(id, 0, total, Bulk::Inline(&image)))?;
        self.must::<module::row::cuModuleLoadDataEx>(number, &(CUmodule::from_raw(module), id, &[], 0, 0))?;
        self.must::<module::row::cuModuleGetFunction>(
            number,
            &(CUfunction::from_raw(function), CUmodule::from_raw(module), c"poke"),
        )?;
        Ok(Things { context, memory, stream, event, module, function })
    }

    /// A call on the probe's ring, which must succeed.
    fn must<C: Call>(&mut self, context: u32, fields: &C::In<'_>) -> Result<C::Out> {
        let mut args = Vec::new();
        fields.put(&mut args);
        match self.probe_with(C::ID, context, &args)? {
            Probed::Answered(0, data) => {
                let words: Vec<u64> = data
                    .chunks_exact(8)
                    .map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default()))
                    .collect();
                let mut reader = Reader::new(words.as_bytes());
                // The reply borrows nothing: outputs are owned.
                C::Out::take(&mut reader).map_err(|e| anyhow::anyhow!("{}: reply: {e:?}", C::NAME))
            }
            other => bail!("{}: {other:?}", C::NAME),
        }
    }

    /// Gives the spoilt ring a staging buffer.
    pub fn add_staging(&mut self, len: usize) -> Result<()> {
        let staging = Shared::new(len)?;
        let body = part_body(SPOILT, PART_STAGING, len as u64);
        match self.packets.ask(ADD_RING_PART, self.slot, &body, &[staging.file.as_fd()])? {
            Heard::Answer(answer) if answer.error == regs::ERROR_NONE => {}
            other => bail!("staging is refused: {other:?}"),
        }
        self.staging = Some(staging);
        Ok(())
    }

    /// The next ticket of a case.
    pub fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// State and reason, as the session page has them.
    pub fn dead(&self) -> Option<u32> {
        // Acquire: the reason was written before.
        let state = self.page.half(0).load(Ordering::Acquire);
        (state == SESSION_DEAD).then(|| self.page.half(4).load(Ordering::Acquire))
    }

    /// Wakes the worker, whether it sleeps or not.
    pub fn kick(&self) {
        // Full of kicks is as good.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Puts a frame into the spoilt ring as a proper producer does (padding where it does not fit), publishes it and kicks.
    ///
    /// # Errors
    /// When there is no room for long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let area = u64::from(FRAME_AREA_BYTES);
        let begin = Instant::now();
        let rest = area - self.ring.head % area;
        let len = bytes.len().next_multiple_of(8) as u64;
        let pad = if rest < len { rest } else { 0 };
        while self.ring.head + pad + len - self.ring.tail() > area {
            if self.dead().is_some() || begin.elapsed() > LIMIT {
                return Ok(());
            }
            std::thread::yield_now();
        }
        if pad > 0 {
            let header = FrameHeader { len: pad as u32, call: 0, flags: FRAME_PAD, context: 0, ticket: 0 };
            let bytes = header.as_bytes();
            self.ring.write_at(self.ring.head, &bytes[..bytes.len().min(pad as usize)]);
        }
        self.ring.write_at(self.ring.head + pad, bytes);
        self.ring.head += pad + len;
        self.ring.publish(self.ring.head);
        if self.ring.host_parked() {
            self.kick();
        }
        Ok(())
    }

    /// Waits until everything that was pushed has been taken, or the session is over.
    pub fn drained(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        while self.ring.tail() < self.ring.head && self.dead().is_none() {
            if begin.elapsed() > limit {
                return false;
            }
            if self.ring.host_parked() {
                self.kick();
            }
            std::thread::yield_now();
        }
        true
    }

    /// The answer on the spoilt ring to this ticket: the CUresult.
    pub fn reply(&self, ticket: u64, limit: Duration) -> Option<u32> {
        let begin = Instant::now();
        let reply = OFF_REPLY as usize;
        while begin.elapsed() < limit && self.dead().is_none() {
            if self.ring.memory.word(reply).load(Ordering::Acquire) == ticket {
                return Some(self.ring.memory.half(reply + 8).load(Ordering::Acquire));
            }
            if self.ring.host_parked() {
                self.kick();
            }
            std::thread::yield_now();
        }
        None
    }

    /// Sends a call on the spoilt ring and waits for its CUresult. `None`: the session is over, or stuck.
    ///
    /// # Errors
    /// As for [`Session::push`].
    pub fn call(&mut self, call: u32, flags: u32, context: u32, args: &[u8]) -> Result<Option<u32>> {
        let ticket = self.ticket();
        self.push(&frame(call, flags | FRAME_WAIT, context, ticket, args))?;
        Ok(self.reply(ticket, LIMIT))
    }

    fn probe_with(&mut self, call: u32, context: u32, args: &[u8]) -> Result<Probed> {
        self.last_probe += 1;
        ensure!(self.last_probe < CASE_TICKETS, "too many probes for our numbering");
        let (ticket, ring) = (self.last_probe, &mut self.probe);
        let bytes = frame(call, FRAME_WAIT, context, ticket, args);
        let area = u64::from(FRAME_AREA_BYTES);
        let rest = area - ring.head % area;
        // Probes are answered one by one: there is room.
        if rest < bytes.len() as u64 {
            let header = FrameHeader { len: rest as u32, call: 0, flags: FRAME_PAD, context: 0, ticket: 0 };
            let header = header.as_bytes();
            ring.write_at(ring.head, &header[..header.len().min(rest as usize)]);
            ring.head += rest;
        }
        ring.write_at(ring.head, &bytes);
        ring.head += bytes.len() as u64;
        ring.publish(ring.head);
        let begin = Instant::now();
        let reply = OFF_REPLY as usize;
        loop {
            if ring.memory.word(reply).load(Ordering::Acquire) == ticket {
                let body = ring.memory.word(reply + 8).load(Ordering::Acquire);
                let len = (body >> 32) as usize;
                let at = (HEADER_BYTES + FRAME_AREA_BYTES) as usize;
                let data = (0..len.div_ceil(8))
                    .flat_map(|i| ring.memory.word(at + 8 * i).load(Ordering::Relaxed).to_le_bytes())
                    .collect();
                return Ok(Probed::Answered(body as u32, data));
            }
            let state = self.page.half(0).load(Ordering::Acquire);
            if state == SESSION_DEAD {
                return Ok(Probed::Dead);
            }
            if begin.elapsed() > LIMIT {
                return Ok(Probed::Silent);
            }
            if ring.host_parked() {
                // Full of kicks is as good.
                let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
            }
            std::thread::yield_now();
        }
    }

    /// How it stands. A call that needs nothing is made on the other ring; where the session is over, its connection must end.
    ///
    /// # Errors
    /// When it is over without a reason, or its connection goes on.
    pub fn judge(&mut self) -> Result<Ended> {
        let mut args = Vec::new();
        (0u32,).put(&mut args);
        match self.probe_with(context::row::cuCtxGetLimit::ID, 0, &args)? {
            Probed::Answered(..) => Ok(Ended::No),
            Probed::Silent => Ok(Ended::Stuck),
            Probed::Dead => {
                let reason = self.dead().unwrap_or(0);
                ensure!(reason != 0, "the session ended without a reason");
                match self.packets.hear()? {
                    Heard::End => Ok(Ended::Yes(reason)),
                    Heard::Answer(answer) => bail!("the connection of a dead session says {answer:?}"),
                }
            }
        }
    }

    /// Ends it as a process does that closes, and waits for the answer.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn close(mut self) -> Result<()> {
        let body = SessionRef { reserved: 0 };
        match self.packets.ask(CLOSE_SESSION, self.slot, body.as_bytes(), &[])? {
            Heard::Answer(answer) => ensure!(answer.error == regs::ERROR_NONE, "CLOSE_SESSION: {answer:?}"),
            Heard::End => ensure!(self.dead().is_some(), "the connection ended at CLOSE_SESSION"),
        }
        Ok(())
    }
}

#[derive(Debug)]
enum Probed {
    Answered(u32, Vec<u8>),
    Dead,
    Silent,
}

fn add_ring(packets: &mut Packets, slot: u32, index: u32) -> Result<Ring> {
    let memory = Shared::new(RING_BYTES as usize)?;
    let body = part_body(index, PART_RING, memory.len() as u64);
    match packets.ask(ADD_RING_PART, slot, &body, &[memory.file.as_fd()])? {
        Heard::Answer(answer) if answer.error == regs::ERROR_NONE => Ok(Ring { memory, head: 0 }),
        other => bail!("ring {index} is refused: {other:?}"),
    }
}
