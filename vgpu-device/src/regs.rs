//! The register block: made anew for each read from what is known at that time. The only register that keeps what is
//! written is SCRATCH; the others that the layout calls writable are the mailbox's ([`crate::mailbox`]). Requests that only read
//! (READ_REGS, READ_INFO) leave no trace in STATUS, ERROR_CODE, REQUEST_ID and TIMESTAMP.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use pci_layout::{ABI_VERSION, ids, regs, ring};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of the block.
pub const BLOCK_BYTES: usize = regs::BLOCK_BYTES as usize;

/// What the host says of the device. All of it but the priority and the quota stays while the device lives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The VM's id as the host numbers it.
    pub vm_id: u32,
    /// The VM's pool, an upper case ASCII letter.
    pub pool: u8,
    /// One of the `PRIORITY_` values, at first.
    pub priority: u32,
    /// VRAM quota in bytes, at first; 0 = none.
    pub vram_quota_bytes: u64,
    /// Sessions that the VM may have at once, at most [`pci_layout::control::SESSIONS_MAX`].
    pub session_limit: u32,
    /// The `CAP_` bits.
    pub capabilities: u32,
    /// Number of CUDA devices.
    pub device_count: u32,
    /// The call table's fingerprint.
    pub fingerprint: [u8; 16],
}

/// The registers.
#[derive(Debug)]
pub struct Registers {
    identity: Identity,
    priority: AtomicU32,
    vram_quota_bytes: AtomicU64,
    last: Mutex<Last>,
    sessions_open: AtomicU32,
}

#[derive(Debug, Default)]
struct Last {
    outstanding: u32,
    error: u32,
    request_id: u32,
    time_ns: u64,
    scratch: [u8; 4],
}

impl Registers {
    /// Registers of a device that has answered nothing yet.
    pub fn new(identity: Identity) -> Self {
        let priority = AtomicU32::new(identity.priority);
        let vram_quota_bytes = AtomicU64::new(identity.vram_quota_bytes);
        Self {
            identity,
            priority,
            vram_quota_bytes,
            last: Mutex::default(),
            sessions_open: AtomicU32::new(0),
        }
    }

    /// The VM's share is another one from now on.
    pub fn set_share(&self, priority: u32, vram_quota_bytes: u64) {
        self.priority.store(priority, Ordering::Relaxed);
        self.vram_quota_bytes.store(vram_quota_bytes, Ordering::Relaxed);
    }

    /// What was said at first.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The whole block as a guest reads it now.
    pub fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = Block([0; BLOCK_BYTES]);
        let identity = &self.identity;
        let sessions_open = self.sessions_open.load(Ordering::Relaxed);
        let last = self.last();
        let status = match (last.outstanding, last.error, sessions_open) {
            (1.., _, _) => regs::STATUS_BUSY,
            (_, 1.., _) => regs::STATUS_ERROR,
            (_, _, 0) => regs::STATUS_IDLE,
            _ => regs::STATUS_DONE,
        };
        block.put(regs::STATUS, &status.to_le_bytes());
        block.put(regs::POOL_ID, &u32::from(identity.pool).to_le_bytes());
        block.put(regs::PRIORITY, &self.priority.load(Ordering::Relaxed).to_le_bytes());
        block.put(regs::VM_ID, &identity.vm_id.to_le_bytes());
        block.put(regs::ERROR_CODE, &last.error.to_le_bytes());
        block.put(regs::PROTOCOL_VER, &ABI_VERSION.to_le_bytes());
        block.put(regs::CAPABILITIES, &identity.capabilities.to_le_bytes());
        block.put(regs::REQUEST_ID, &last.request_id.to_le_bytes());
        // Low half, then high half: the two registers lie side by side.
        block.put(regs::TIMESTAMP_LO, &last.time_ns.to_le_bytes());
        block.put(regs::SCRATCH, &last.scratch);
        block.put(regs::MAGIC, &ids::TAG);
        block.put(regs::QUEUES, &ids::QUEUE_COUNT.to_le_bytes());
        block.put(regs::RING_LIMIT, &ring::RINGS_MAX.to_le_bytes());
        block.put(regs::SESSION_LIMIT, &identity.session_limit.to_le_bytes());
        block.put(regs::DEVICE_COUNT, &identity.device_count.to_le_bytes());
        block.put(regs::TABLE_FINGERPRINT, &identity.fingerprint);
        block.put(regs::VRAM_QUOTA, &self.vram_quota_bytes.load(Ordering::Relaxed).to_le_bytes());
        block.put(regs::SESSIONS_OPEN, &sessions_open.to_le_bytes());
        block.0
    }

    /// Reads `buf.len()` bytes from `offset` on. Bytes past the block read as 0.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        let block = self.block();
        let tail = usize::try_from(offset).ok().and_then(|offset| block.get(offset..)).unwrap_or(&[]);
        for (to, from) in buf.iter_mut().zip(tail) {
            *to = *from;
        }
    }

    /// Writes `data` from `offset` on. Bytes that do not fall into SCRATCH are ignored: a front's write may well carry
    /// the whole block.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let scratch: Range<u64> = u64::from(regs::SCRATCH)..u64::from(regs::SCRATCH).saturating_add(4);
        let mut last = self.last();
        for (address, byte) in (offset..).zip(data) {
            if scratch.contains(&address)
                && let Some(to) = address
                    .checked_sub(scratch.start)
                    .and_then(|at| usize::try_from(at).ok())
                    .and_then(|at| last.scratch.get_mut(at))
            {
                *to = *byte;
            }
            if address >= scratch.end {
                break;
            }
        }
    }

    pub(crate) fn request_begins(&self) {
        let mut last = self.last();
        last.outstanding = last.outstanding.saturating_add(1);
    }

    pub(crate) fn request_ends(&self, request_id: u32, error: u32) {
        let now = monotonic_ns();
        let mut last = self.last();
        last.outstanding = last.outstanding.saturating_sub(1);
        last.request_id = request_id;
        last.error = error;
        last.time_ns = now;
    }

    pub(crate) fn set_sessions_open(&self, sessions: u32) {
        self.sessions_open.store(sessions, Ordering::Relaxed);
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        // Every update is a few plain stores: a holder that panicked left nothing half done that matters.
        self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

struct Block([u8; BLOCK_BYTES]);

impl Block {
    fn put(&mut self, register: u32, bytes: &[u8]) {
        let tail = self.0.get_mut(register as usize..).unwrap_or(&mut []);
        for (to, from) in tail.iter_mut().zip(bytes) {
            *to = *from;
        }
    }
}

/// CLOCK_MONOTONIC in ns.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
