//! Device addresses reserved in this process, so that no host memory can ever have the address of device memory: under unified
//! addressing the address alone says which it is.
//!
//! Reserved in blocks, since the driver packs small allocations; a block is held as long as any allocation touches it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;

use rustix::io;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// Bytes of a block.
const BLOCK_BYTES: u64 = 2 << 20;

/// The blocks held, and by how many allocations each.
#[derive(Default)]
pub struct Reservations {
    blocks: Mutex<BTreeMap<u64, u32>>,
    /// Blocks that are held for good. Taken before `blocks`.
    kept: Mutex<BTreeSet<u64>>,
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
        // Blocks that nobody holds yet are mapped in runs: a large range costs a few system calls, not one for each block.
        let mut fresh = Vec::new();
        let mut next = *range.start();
        for held in blocks.range(range.clone()).map(|(block, _)| *block).chain([*range.end() + 1]) {
            if held > next {
                fresh.push(next..held);
            }
            next = held + 1;
        }
        for (i, run) in fresh.iter().enumerate() {
            if map(run).is_err() {
                fresh[..i].iter().for_each(unmap);
                return Err(Clash);
            }
        }
        for block in range {
            *blocks.entry(block).or_insert(0) += 1;
        }
        Ok(())
    }

    /// Reserves a range for the rest of the process's life. A pool gives the same addresses out again and again, and a free in a
    /// stream says nothing of when the device is done with the memory.
    ///
    /// # Errors
    /// [`Clash`]; of a range that clashes no block is held that was not before.
    pub fn keep(&self, start: u64, len: u64) -> Result<(), Clash> {
        let range = blocks_of(start, len).ok_or(Clash)?;
        let mut kept = crate::objects::lock(&self.kept);
        let mut fresh: Vec<Range<u64>> = Vec::new();
        for block in range.filter(|block| !kept.contains(block)) {
            match fresh.last_mut() {
                Some(run) if run.end == block => run.end = block + 1,
                _ => fresh.push(block..block + 1),
            }
        }
        let bytes = |run: &Range<u64>| (run.start * BLOCK_BYTES, (run.end - run.start) * BLOCK_BYTES);
        for (i, run) in fresh.iter().enumerate() {
            let (start, len) = bytes(run);
            if self.hold(start, len).is_err() {
                for (start, len) in fresh[..i].iter().map(bytes) {
                    self.release(start, len);
                }
                return Err(Clash);
            }
        }
        kept.extend(fresh.into_iter().flatten());
        Ok(())
    }

    /// Makes pages of a held range memory that the program reads and writes. A forked child does not have them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self, start: u64, end: u64) -> io::Result<()> {
        let (address, len) = (std::ptr::without_provenance_mut(start as usize), (end - start) as usize);
        // SAFETY: pages that `map` has mapped, and that nobody else uses: they were not accessible.
        unsafe {
            mprotect(address, len, MprotectFlags::READ | MprotectFlags::WRITE)?;
            madvise(address, len, Advice::LinuxDontFork)
        }
    }

    /// Takes such pages away: they are reserved addresses again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shut(&self, start: u64, end: u64) -> io::Result<()> {
        let (address, len) = (std::ptr::without_provenance_mut(start as usize), (end - start) as usize);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: over pages of a held range, which are nobody else's; PROT_NONE memory is never accessed.
        unsafe { mmap_anonymous(address, len, ProtFlags::empty(), flags) }.map(|_| ())
    }

    /// Gives a held range back.
    pub fn release(&self, start: u64, len: u64) {
        if let Some(range) = blocks_of(start, len) {
            release(&mut crate::objects::lock(&self.blocks), range);
        }
    }
}

fn release(blocks: &mut BTreeMap<u64, u32>, range: std::ops::RangeInclusive<u64>) {
    let mut free: Option<Range<u64>> = None;
    for block in range {
        match blocks.get_mut(&block) {
            Some(held) if *held > 1 => *held -= 1,
            Some(_) => {
                blocks.remove(&block);
                free = Some(match free {
                    Some(run) if run.end == block => run.start..block + 1,
                    before => {
                        before.iter().for_each(unmap);
                        block..block + 1
                    }
                });
            }
            None => {}
        }
    }
    free.iter().for_each(unmap);
}

/// A run of blocks as an address and a length.
fn place(run: &Range<u64>) -> Option<(*mut std::ffi::c_void, usize)> {
    let start = run.start.checked_mul(BLOCK_BYTES)?;
    let len = (run.end - run.start).checked_mul(BLOCK_BYTES)?;
    Some((std::ptr::without_provenance_mut(start as usize), len as usize))
}

/// Unmaps blocks that [`map`] has mapped and nobody holds any more.
fn unmap(run: &Range<u64>) {
    if let Some((address, len)) = place(run) {
        // SAFETY: the blocks were mapped by `map` when they were first held, and nobody else maps over a held block.
        let _ = unsafe { munmap(address, len) };
    }
}

fn map(run: &Range<u64>) -> Result<(), Clash> {
    let (address, len) = place(run).ok_or(Clash)?;
    // SAFETY: FIXED_NOREPLACE maps only where nothing is mapped; PROT_NONE memory is never accessed.
    let mapped = unsafe {
        mmap_anonymous(
            address,
            len,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE,
        )
    };
    match mapped {
        Ok(at) if at == address => Ok(()),
        Ok(elsewhere) => {
            // A kernel older than 4.17 takes the address for a hint.
            // SAFETY: the mapping just made, at an address that nobody knows.
            let _ = unsafe { munmap(elsewhere, len) };
            Err(Clash)
        }
        Err(_) => Err(Clash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The block of an address, as a run.
    fn block(address: u64) -> Range<u64> {
        address / BLOCK_BYTES..address / BLOCK_BYTES + 1
    }

    #[test]
    fn shared_blocks_are_held_until_the_last_goes() {
        let r = Reservations::default();
        let base = 0x3a00_0000_0000;
        r.hold(base, 512).unwrap();
        r.hold(base + 512, 4 << 20).unwrap();
        assert_eq!(map(&block(base)), Err(Clash));
        r.release(base, 512);
        assert_eq!(map(&block(base)), Err(Clash));
        r.release(base + 512, 4 << 20);
        for i in 0..3 {
            map(&block(base + i * BLOCK_BYTES)).unwrap();
            unmap(&block(base + i * BLOCK_BYTES));
        }
    }

    #[test]
    fn what_lies_between_held_blocks_is_mapped_and_goes_alone() {
        let r = Reservations::default();
        let base = 0x3c00_0000_0000;
        r.hold(base + BLOCK_BYTES, 1).unwrap();
        r.hold(base + 4 * BLOCK_BYTES, BLOCK_BYTES).unwrap();
        r.hold(base, 8 * BLOCK_BYTES).unwrap();
        assert!((0..8).all(|i| map(&block(base + i * BLOCK_BYTES)) == Err(Clash)));
        r.release(base, 8 * BLOCK_BYTES);
        for i in 0..8 {
            let free = map(&block(base + i * BLOCK_BYTES)).is_ok();
            assert_eq!(free, i != 1 && i != 4, "block {i}");
            if free {
                unmap(&block(base + i * BLOCK_BYTES));
            }
        }
        r.release(base + BLOCK_BYTES, 1);
        r.release(base + 4 * BLOCK_BYTES, BLOCK_BYTES);
        assert!(crate::objects::lock(&r.blocks).is_empty());
    }

    #[test]
    fn what_is_kept_is_kept_once_and_for_good() {
        let r = Reservations::default();
        let base = 0x3e00_0000_0000;
        let taken = block(base + 3 * BLOCK_BYTES);
        r.keep(base, 1).unwrap();
        r.keep(base + 4096, 2 * BLOCK_BYTES).unwrap();
        assert!(map(&block(base + 2 * BLOCK_BYTES)) == Err(Clash));
        // An allocation of another kind in the same block comes and goes.
        r.hold(base, 4096).unwrap();
        r.release(base, 4096);
        assert_eq!(map(&block(base)), Err(Clash));
        map(&taken).unwrap();
        assert_eq!(r.keep(base + 2 * BLOCK_BYTES, 3 * BLOCK_BYTES), Err(Clash));
        unmap(&taken);
        r.keep(base + 2 * BLOCK_BYTES, 3 * BLOCK_BYTES).unwrap();
    }

    #[test]
    fn pages_of_a_held_range_are_opened_and_shut() {
        let r = Reservations::default();
        let base = 0x3f00_0000_0000;
        r.hold(base, 3 * BLOCK_BYTES).unwrap();
        r.open(base + 4096, base + 12_288).unwrap();
        let word: *mut u64 = std::ptr::with_exposed_provenance_mut(base as usize + 4096);
        // SAFETY: pages that were just opened.
        unsafe {
            assert_eq!(word.read_volatile(), 0);
            word.write_volatile(7);
            // Opened again with what lies beside it.
            r.open(base + 4096, base + 16_384).unwrap();
            assert_eq!(word.read_volatile(), 7);
        }
        r.shut(base + 4096, base + 16_384).unwrap();
        r.open(base + 4096, base + 8192).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { word.read_volatile() }, 0, "what was there is gone");
        assert_eq!(map(&block(base)), Err(Clash));
        r.release(base, 3 * BLOCK_BYTES);
        map(&block(base)).unwrap();
        unmap(&block(base));
    }

    #[test]
    fn a_clash_holds_nothing() {
        let r = Reservations::default();
        let base = 0x3b00_0000_0000;
        let taken = block(base + 2 * BLOCK_BYTES);
        map(&taken).unwrap();
        assert_eq!(r.hold(base, 8 << 20), Err(Clash));
        // A run before the clash is given back, too.
        r.hold(base + BLOCK_BYTES, 1).unwrap();
        assert_eq!(r.hold(base, 8 << 20), Err(Clash));
        r.release(base + BLOCK_BYTES, 1);
        for i in [0, 1, 3] {
            map(&block(base + i * BLOCK_BYTES)).unwrap();
            unmap(&block(base + i * BLOCK_BYTES));
        }
        unmap(&taken);
    }
}
