//! Descriptor chains of the control and event queues: walked once, the readable part copied out once, the writable part
//! remembered for the answer. Nothing of a chain is read a second time.

use pci_layout::control;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::Mapped;

/// Descriptors that a chain may have. A request of the greatest length in single pages has about 130; stops a guest from
/// making us remember 65535 of them.
const DESCRIPTORS_MAX: usize = 512;
/// Bytes of a message that is too long that are kept all the same, for its request id.
const HEAD_BYTES: usize = size_of::<control::RequestHeader>();

/// What the guest has put into a chain.
#[derive(Debug)]
pub enum Message {
    /// All of it.
    Whole(Vec<u8>),
    /// More than [`control::REQUEST_BYTES_MAX`]: its first bytes.
    TooLong(Vec<u8>),
    /// The chain breaks a rule of virtio, or points out of guest memory; with as much as could be read.
    Broken(Vec<u8>, &'static str),
}

/// The writable part of a chain, where the answer goes.
#[derive(Debug, Default)]
pub struct Room {
    parts: Vec<(GuestAddress, u32)>,
    len: usize,
}

impl Room {
    /// Bytes that fit.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing fits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes `bytes` into the chain and gives the number written, which is less than asked for where guest memory
    /// ends early.
    pub fn write(&self, memory: &Mapped, bytes: &[u8]) -> u32 {
        let mut rest = bytes;
        let mut written = 0u32;
        for (address, len) in &self.parts {
            let here = rest.len().min(*len as usize);
            let (now, later) = rest.split_at(here);
            if memory.write_slice(now, *address).is_err() {
                break;
            }
            written = written.saturating_add(u32::try_from(here).unwrap_or(u32::MAX));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        written
    }
}

/// Takes a chain apart.
pub fn take<M>(memory: &Mapped, chain: DescriptorChain<M>) -> (Message, Room)
where
    M: std::ops::Deref<Target = Mapped>,
{
    let mut readable = Vec::new();
    let mut readable_len = 0usize;
    let mut room = Room::default();
    let mut broken = None;
    for (count, descriptor) in chain.enumerate() {
        if count >= DESCRIPTORS_MAX {
            broken = Some("chain of too many descriptors");
            break;
        }
        let (address, len) = (descriptor.addr(), descriptor.len());
        if descriptor.is_write_only() {
            room.parts.push((address, len));
            room.len = room.len.saturating_add(len as usize);
        } else if room.parts.is_empty() {
            readable.push((address, len));
            readable_len = readable_len.saturating_add(len as usize);
        } else {
            broken = Some("readable descriptor after a writable one");
            break;
        }
    }
    let too_long = readable_len > control::REQUEST_BYTES_MAX as usize;
    let mut bytes = vec![0; if too_long { HEAD_BYTES } else { readable_len }];
    let mut filled = 0usize;
    for (address, len) in readable {
        let rest = bytes.get_mut(filled..).unwrap_or(&mut []);
        let here = rest.len().min(len as usize);
        let part = rest.get_mut(..here).unwrap_or(&mut []);
        if memory.read_slice(part, address).is_err() {
            bytes.truncate(filled);
            return (Message::Broken(bytes, "chain points out of guest memory"), room);
        }
        filled = filled.saturating_add(here);
    }
    let message = match broken {
        Some(why) => Message::Broken(bytes, why),
        None if too_long => Message::TooLong(bytes),
        None => Message::Whole(bytes),
    };
    (message, room)
}
