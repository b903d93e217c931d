//! Memory: what is pinned, and what is mapped.

use anyhow::{Result, ensure};
use pci_layout::ring::{RING_BYTES, SESSION_PAGE_BYTES};
use pci_layout::uapi::{IoctlRegion, MMAP_RING_STRIDE, MMAP_STAGING_OFFSET};

use super::device::{Device, IOCTLS, Mapping, anonymous, unmap};
use crate::local::Until;
use crate::{Random, Tally};

const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Ranges that are not, or not all, or not ours to write: kernel addresses, holes, read-only memory, code, the device's own
/// mappings, each other's; and memory that goes away while it is pinned.
pub fn regions(random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    const AREA: usize = 4 << 20;
    while !until.is_over() || tally.cases < 50 {
        let device = Device::with_session()?;
        let ring = device.create_ring()?;
        let mapping = device.map(MMAP_RING_STRIDE * (u64::from(ring) + 1), RING_BYTES as usize, BOTH)?;
        let area = anonymous(AREA, BOTH)?;
        let read_only = anonymous(AREA, libc::PROT_READ)?;
        let hole = anonymous(AREA, BOTH)?;
        unmap(hole + (AREA / 2) as u64, 4096);
        let code = regions as *const () as u64 & !0xfff;
        let mut held = Vec::new();
        for _ in 0..40 {
            let va = match random.below(9) {
                0 => 0xffff_8880_0000_0000 | random.word() & 0xfff_f000,
                1 => mapping.address(),
                2 => code,
                3 => read_only,
                4 => hole,
                5 => random.nasty(),
                6 => 0,
                _ => area + 4096 * random.below(AREA as u64 / 4096),
            };
            let len = match random.below(4) {
                0 => random.nasty(),
                1 => AREA as u64,
                _ => 4096 << random.below(9),
            };
            let mut region =
                IoctlRegion { va, len, flags: random.below(3) as u32, region: 0, error: 0, reserved: 0 };
            let mapped = device.call(IOCTLS[6].0, &mut region).is_ok();
            let kernel =
                va >= 0x8000_0000_0000 || va.checked_add(len).is_none_or(|end| end > 0x8000_0000_0000);
            ensure!(!mapped || !kernel, "{len:#x} bytes at {va:#x} were pinned");
            ensure!(!mapped || (va != hole || len <= AREA as u64 / 2), "a hole was pinned");
            tally.count(if mapped { "pinned" } else { "refused" });
            if mapped {
                held.push(region);
            }
            // Forged and repeated returns.
            if random.once_in(3) {
                let mut back = match held.pop() {
                    Some(region) if random.once_in(2) => region,
                    _ => IoctlRegion { va: random.nasty(), region: random.nasty() as u32, ..region },
                };
                let returned = device.call(IOCTLS[7].0, &mut back).is_ok();
                tally.count(if returned { "returned" } else { "not returned" });
            }
        }
        // Gone while pinned, then something else at the same place, then the session's end.
        unmap(area, AREA);
        unmap(read_only, AREA);
        unmap(hole, AREA);
        if random.once_in(2) {
            device.close_session()?;
        }
    }
    ensure!(tally.of("pinned") > 0 && tally.of("refused") > 0, "one-sided: {tally}");
    Ok(tally)
}

/// Offsets and lengths that are nobody's, the session page to be written, mappings that are changed afterwards.
pub fn mmaps(random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let page = SESSION_PAGE_BYTES as usize;
    while !until.is_over() || tally.cases < 50 {
        let device = Device::with_session()?;
        let ring = device.create_ring()?;
        ensure!(device.map(0, page, BOTH).is_err(), "the session page can be mapped to be written");
        let session = device.map(0, page, libc::PROT_READ)?;
        let at = session.address() as *mut libc::c_void;
        // SAFETY: changes the protection of our own mapping, which is read only by checked reads.
        let changed = unsafe { libc::mprotect(at, page, BOTH) };
        ensure!(changed != 0, "the session page can be made writable");
        for _ in 0..60 {
            let offset = match random.below(4) {
                0 => random.nasty() & !0xfff & i64::MAX as u64,
                1 => MMAP_RING_STRIDE * random.below(300),
                2 => MMAP_RING_STRIDE * random.below(4) + MMAP_STAGING_OFFSET,
                _ => MMAP_RING_STRIDE * (u64::from(ring) + 1) + 4096 * random.below(3),
            };
            let len = match random.below(3) {
                0 => RING_BYTES as usize,
                1 => 4096 << random.below(12),
                _ => 1 + random.below(1 << 21) as usize,
            };
            let flags = if random.once_in(4) { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
            let access = random.pick(&[0, libc::PROT_READ, BOTH, BOTH | libc::PROT_EXEC]);
            match Mapping::new(&device, offset, len, access, flags) {
                Ok(mapping) => {
                    if access & BOTH == BOTH {
                        // Thrown out and faulted in again, to its last page.
                        // SAFETY: our own mapping; its content is of no importance.
                        unsafe {
                            libc::madvise(mapping.address() as *mut libc::c_void, len, libc::MADV_DONTNEED);
                        }
                        // Its end is for replies: the head at its start would end the session.
                        mapping.write((len - 8) & !7, random.word());
                        mapping.read(0);
                    }
                    tally.count("mapped");
                }
                Err(_) => tally.count("refused"),
            }
        }
        // A mapping outlives its ring and its session; what it shows is nobody's any more.
        let late = device.map(MMAP_RING_STRIDE * (u64::from(ring) + 1), RING_BYTES as usize, BOTH)?;
        device.close_session()?;
        drop(device);
        for offset in (0..RING_BYTES as usize).step_by(4096) {
            late.write(offset, random.word());
        }
        tally.count("written after the end");
    }
    Ok(tally)
}
