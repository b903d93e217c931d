//! The account of device memory that all processes of a VM share: what each has, and how much they may have together. An executor takes
//! bytes before it allocates, and gives them back when they are free again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::info::DEVICES_MAX;

/// From this size on an allocation has blocks of its own. Bytes.
const BIG_BYTES: u64 = 1 << 20;
/// Bytes of such a block.
const BLOCK_BYTES: u64 = 2 << 20;
/// Smaller allocations are counted in pieces of so many bytes.
const SMALL_BYTES: u64 = 512;

/// What an allocation of `len` bytes counts: from 1 MiB on whole blocks of 2 MiB, which it has to itself; below that whole pieces of
/// 512 bytes, since small allocations share blocks.
pub fn counted_bytes(len: u64) -> u64 {
    let unit = if len >= BIG_BYTES { BLOCK_BYTES } else { SMALL_BYTES };
    len.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}

/// One process's way to its VM's account. Devices are the VM's, by ordinal; one out of range has no memory at all.
pub trait Account: Send + Sync {
    /// Takes bytes. False: the VM would have more than its quota, and nothing was taken.
    fn take(&self, device: usize, bytes: u64) -> bool;

    /// Counts bytes that the process has already, whatever the quota says.
    fn add(&self, device: usize, bytes: u64);

    /// Bytes are free again.
    fn give_back(&self, device: usize, bytes: u64);

    /// What this process has, in bytes.
    fn held(&self, device: usize) -> u64;

    /// What all processes of the VM have, in bytes.
    fn used(&self, device: usize) -> u64;

    /// What they may have, in bytes, as of now; None: as much as there is.
    fn quota(&self, device: usize) -> Option<u64>;

    /// The device of this UUID, where a process may have the VM's devices under other ordinals.
    fn device_of(&self, uuid: &[u8; 16]) -> Option<usize> {
        let _ = uuid;
        None
    }

    /// What is left of the quota.
    fn left(&self, device: usize) -> Option<u64> {
        self.quota(device).map(|quota| quota.saturating_sub(self.used(device)))
    }
}

/// Bytes that are taken until this is dropped.
pub struct Hold {
    account: Arc<dyn Account>,
    device: usize,
    bytes: u64,
}

impl Hold {
    /// Takes them; None where the quota does not allow it.
    pub fn take(account: &Arc<dyn Account>, device: usize, bytes: u64) -> Option<Self> {
        account.take(device, bytes).then(|| Self { account: Arc::clone(account), device, bytes })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.account.give_back(self.device, self.bytes);
    }
}

/// The account of a process that shares it with nobody.
pub struct Alone {
    quota: Option<u64>,
    held: [AtomicU64; DEVICES_MAX],
}

impl Alone {
    /// One that may have so many bytes on each device.
    pub fn new(quota: Option<u64>) -> Arc<Self> {
        Arc::new(Self { quota, held: [const { AtomicU64::new(0) }; DEVICES_MAX] })
    }
}

impl Account for Alone {
    fn take(&self, device: usize, bytes: u64) -> bool {
        let most = self.quota.unwrap_or(u64::MAX);
        let Some(held) = self.held.get(device) else { return false };
        let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= most);
        held.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    fn add(&self, device: usize, bytes: u64) {
        if let Some(held) = self.held.get(device) {
            held.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    fn give_back(&self, device: usize, bytes: u64) {
        if let Some(held) = self.held.get(device) {
            held.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    fn held(&self, device: usize) -> u64 {
        self.held.get(device).map_or(0, |held| held.load(Ordering::Acquire))
    }

    fn used(&self, device: usize) -> u64 {
        self.held(device)
    }

    fn quota(&self, _: usize) -> Option<u64> {
        self.quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_count_little_and_large_ones_whole_blocks() {
        assert_eq!(counted_bytes(1), 512);
        assert_eq!(counted_bytes(513), 1024);
        assert_eq!(counted_bytes((1 << 20) - 1), 1 << 20);
        assert_eq!(counted_bytes(1 << 20), 2 << 20);
        assert_eq!(counted_bytes((4 << 20) + 1), 6 << 20);
        assert_eq!(counted_bytes(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_taken_comes_back_once() {
        let account: Arc<dyn Account> = Alone::new(Some(100));
        let first = Hold::take(&account, 1, 60).expect("there is room");
        assert!(Hold::take(&account, 1, 41).is_none());
        assert!(Hold::take(&account, 0, 41).is_some(), "another device");
        assert_eq!((account.held(1), account.left(1)), (60, Some(40)));
        drop(first);
        assert_eq!((account.held(1), account.used(1)), (0, 0));
        assert!(!account.take(1, u64::MAX) && !account.take(DEVICES_MAX, 1));
    }
}
