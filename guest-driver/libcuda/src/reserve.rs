//! Device addresses reserved in this process, so that no host memory can ever have the address of device memory: under unified
//! addressing the address alone says which it is.
//!
//! Reserved in blocks, since the driver packs small allocations; a block is held as long as any allocation touches it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Bytes of a block.
const BLOCK_BYTES: u64 = 2 << 20;

/// The blocks held, and by how many allocations each.
#[derive(Default)]
pub struct Reservations {
    blocks: Mutex<BTreeMap<u64, u32>>,
}

/// The process has something of its own in the range.
#[derive(Debug, PartialEq, Eq)]
pub struct Clash;

fn blocks_of(start: u64, len: u64) -> Option<std::ops::RangeInclusive<u64>> {
    let last = start.checked_add(len.checked_sub(1)?)?;
    Some(start / BLOCK_BYTES..=last / BLOCK_BYTES)
}

impl Reservations {
    /// Reserves a range.
    ///
    /// # Errors
    /// [`Clash`]; nothing is held then.
    pub fn hold(&self, start: u64, len: u64) -> Result<(), Clash> {
        let range = blocks_of(start, len).ok_or(Clash)?;
        let mut blocks = crate::objects::lock(&self.blocks);
        for block in range.clone() {
            let held = blocks.get(&block).copied().unwrap_or(0);
            if held == 0 && map(block).is_err() {
                if block > *range.start() {
                    release(&mut blocks, *range.start()..=block - 1);
                }
                return Err(Clash);
            }
            blocks.insert(block, held + 1);
        }
        Ok(())
    }

    /// Gives a held range back.
    pub fn release(&self, start: u64, len: u64) {
        if let Some(range) = blocks_of(start, len) {
            release(&mut crate::objects::lock(&self.blocks), range);
        }
    }
}

fn release(blocks: &mut BTreeMap<u64, u32>, range: std::ops::RangeInclusive<u64>) {
    for block in range {
        match blocks.get_mut(&block) {
            Some(held) if *held > 1 => *held -= 1,
            Some(_) => {
                blocks.remove(&block);
                // SAFETY: the block was mapped by `map` when it was first held, and nobody else maps over a held block.
                let _ = unsafe { munmap((block * BLOCK_BYTES) as *mut _, BLOCK_BYTES as usize) };
            }
            None => {}
        }
    }
}

fn map(block: u64) -> Result<(), Clash> {
    let address = (block * BLOCK_BYTES) as *mut _;
    // SAFETY: FIXED_NOREPLACE maps only where nothing is mapped; PROT_NONE memory is never accessed.
    let mapped = unsafe {
        mmap_anonymous(
            address,
            BLOCK_BYTES as usize,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE,
        )
    };
    match mapped {
        Ok(at) if at == address => Ok(()),
        Ok(elsewhere) => {
            // A kernel older than 4.17 takes the address for a hint.
            // SAFETY: the mapping just made, at an address that nobody knows.
            let _ = unsafe { munmap(elsewhere, BLOCK_BYTES as usize) };
            Err(Clash)
        }
        Err(_) => Err(Clash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_blocks_are_held_until_the_last_goes() {
        let r = Reservations::default();
        let base = 0x3a00_0000_0000;
        r.hold(base, 512).unwrap();
        r.hold(base + 512, 4 << 20).unwrap();
        assert_eq!(map(base / BLOCK_BYTES), Err(Clash));
        r.release(base, 512);
        assert_eq!(map(base / BLOCK_BYTES), Err(Clash));
        r.release(base + 512, 4 << 20);
        map(base / BLOCK_BYTES).unwrap();
        release(&mut BTreeMap::from([(base / BLOCK_BYTES, 1)]), base / BLOCK_BYTES..=base / BLOCK_BYTES);
    }

    #[test]
    fn a_clash_holds_nothing() {
        let r = Reservations::default();
        let base = 0x3b00_0000_0000;
        map(base / BLOCK_BYTES + 2).unwrap();
        assert_eq!(r.hold(base, 8 << 20), Err(Clash));
        map(base / BLOCK_BYTES).unwrap();
        map(base / BLOCK_BYTES + 1).unwrap();
        let first = base / BLOCK_BYTES;
        release(&mut (first..=first + 2).map(|b| (b, 1)).collect(), first..=first + 2);
    }
}
