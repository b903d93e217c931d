//! A guest driver's side of a split virtqueue, with every freedom that a hostile guest has too.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Entries of each queue.
pub const QUEUE_SIZE: u16 = 256;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A descriptor as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// A queue whose parts lie one after the other from `base` on.
pub struct Queue {
    pub memory: GuestMemoryMmap<()>,
    pub base: u64,
    pub kick: EventFd,
    pub call: EventFd,
    pub avail: u16,
    used: u16,
}

impl Queue {
    pub fn new(memory: GuestMemoryMmap<()>, base: u64) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let queue = Self { memory, base, kick: event(), call: event(), avail: 0, used: 0 };
        queue.memory.write_slice(&[0; 0x3000], GuestAddress(base)).unwrap();
        queue
    }

    pub fn descriptors(&self) -> u64 {
        self.base
    }

    pub fn available(&self) -> u64 {
        self.base + 0x1000
    }

    pub fn used_ring(&self) -> u64 {
        self.base + 0x2000
    }

    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.write_descriptor_at(self.descriptors() + 16 * u64::from(index), descriptor);
    }

    pub fn write_descriptor_at(&self, address: u64, descriptor: Descriptor) {
        let Descriptor { address: buffer, len, flags, next } = descriptor;
        let mut bytes = buffer.to_le_bytes().to_vec();
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(address)).unwrap();
    }

    /// Makes the chain that begins at `head` available.
    pub fn post(&mut self, head: u16) {
        let slot = self.available() + 4 + 2 * u64::from(self.avail % QUEUE_SIZE);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.publish(self.avail);
    }

    /// Writes the available index, true or not.
    pub fn publish(&self, index: u16) {
        fence(Ordering::SeqCst);
        self.memory.write_obj(index, GuestAddress(self.available() + 2)).unwrap();
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// The next used element, if there is one: head and length.
    pub fn try_used(&mut self) -> Option<(u32, u32)> {
        let index: u16 = self.memory.read_obj(GuestAddress(self.used_ring() + 2)).unwrap();
        if index == self.used {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = self.used_ring() + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
        let head = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let len = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        self.used = self.used.wrapping_add(1);
        // With EVENT_IDX: the next used element is to interrupt.
        let used_event = self.available() + 4 + 2 * u64::from(QUEUE_SIZE);
        self.memory.write_obj(self.used, GuestAddress(used_event)).unwrap();
        Some((head, len))
    }

    /// Waits for the next used element as a driver does: looks, and sleeps until an interrupt says to look again.
    pub fn used(&mut self) -> (u32, u32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(used) = self.try_used() {
                return used;
            }
            while self.call.read().is_err() {
                assert!(Instant::now() < deadline, "no interrupt came");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}
