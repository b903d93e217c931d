//! A split virtqueue in memory that is ours to spoil.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;
/// VIRTQ_DESC_F_NEXT.
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT.
pub const INDIRECT: u16 = 4;

/// How long an answer may take: a worker may have to start for it.
const LIMIT: Duration = Duration::from_secs(20);

/// A descriptor as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// Where the buffer is.
    pub address: u64,
    /// How long.
    pub len: u32,
    /// NEXT, WRITE, INDIRECT.
    pub flags: u16,
    /// The next of the chain.
    pub next: u16,
}

/// A queue whose parts lie one after the other.
pub struct Queue {
    memory: GuestMemoryMmap<()>,
    base: u64,
    /// The driver's kick.
    pub kick: EventFd,
    /// The device's interrupt.
    pub call: EventFd,
    /// Chains made available so far.
    pub available: u16,
    used: u16,
}

impl Queue {
    /// A queue of zeros at `base`.
    pub fn new(memory: GuestMemoryMmap<()>, base: u64) -> Result<Self> {
        let event = || EventFd::new(EFD_NONBLOCK);
        memory.write_slice(&[0; 0x3000], GuestAddress(base))?;
        Ok(Queue { memory, base, kick: event()?, call: event()?, available: 0, used: 0 })
    }

    /// Where descriptors, available ring and used ring are.
    pub fn parts(&self) -> [u64; 3] {
        [self.base, self.base + 0x1000, self.base + 0x2000]
    }

    /// Writes a descriptor of the table.
    pub fn describe(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        self.describe_at(self.base + 16 * u64::from(index), descriptor)
    }

    /// Writes a descriptor anywhere.
    pub fn describe_at(&self, address: u64, descriptor: Descriptor) -> Result<()> {
        let Descriptor { address: buffer, len, flags, next } = descriptor;
        let mut bytes = buffer.to_le_bytes().to_vec();
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        Ok(self.memory.write_slice(&bytes, GuestAddress(address))?)
    }

    /// Makes a chain available.
    pub fn post(&mut self, head: u16) -> Result<()> {
        let slot = self.base + 0x1000 + 4 + 2 * u64::from(self.available % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(slot))?;
        self.available = self.available.wrapping_add(1);
        self.publish(self.available)
    }

    /// Writes the available index, true or not.
    pub fn publish(&self, index: u16) -> Result<()> {
        fence(Ordering::SeqCst);
        Ok(self.memory.write_obj(index, GuestAddress(self.base + 0x1000 + 2))?)
    }

    /// Tells the device.
    pub fn kick(&self) -> Result<()> {
        Ok(self.kick.write(1)?)
    }

    /// The next used element, if there is one: head and length.
    pub fn try_used(&mut self) -> Result<Option<(u32, u32)>> {
        let index: u16 = self.memory.read_obj(GuestAddress(self.base + 0x2000 + 2))?;
        if index == self.used {
            return Ok(None);
        }
        fence(Ordering::SeqCst);
        let slot = self.base + 0x2000 + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
        let head = self.memory.read_obj(GuestAddress(slot))?;
        let len = self.memory.read_obj(GuestAddress(slot + 4))?;
        self.used = self.used.wrapping_add(1);
        // With EVENT_IDX: the next used element is to interrupt.
        let used_event = self.base + 0x1000 + 4 + 2 * u64::from(QUEUE_SIZE);
        self.memory.write_obj(self.used, GuestAddress(used_event))?;
        Ok(Some((head, len)))
    }

    /// The next used element within this time.
    pub fn used_within(&mut self, limit: Duration) -> Result<Option<(u32, u32)>> {
        let begin = Instant::now();
        loop {
            if let Some(used) = self.try_used()? {
                return Ok(Some(used));
            }
            if begin.elapsed() > limit {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The next used element.
    pub fn used(&mut self) -> Result<(u32, u32)> {
        match self.used_within(LIMIT)? {
            Some(used) => Ok(used),
            None => bail!("the device does not answer"),
        }
    }
}
