//! The ring memory that the kernel handed out: it is ours, and a worker on the host reads it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pci_layout::ring::{
    HEADER_BYTES, OFF_GUEST_PARKED, OFF_HEAD, OFF_HOST_PARKED, OFF_REPLY, OFF_TAIL, RING_BYTES, SESSION_DEAD,
    SESSION_PAGE_BYTES,
};
use pci_layout::uapi::MMAP_RING_STRIDE;

use super::device::{Device, IOCTLS};
use crate::local::Until;
use crate::{Random, Tally};

/// How long a session may take to end after its ring was spoilt.
const LIMIT: Duration = Duration::from_secs(30);

/// Noise for a ring, indices that run away, and every kind of sleep announced falsely. The session ends, says why, and the next
/// one can be had.
pub fn scribbled(random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    while !until.is_over() || tally.cases < 3 {
        let device = Device::with_session()?;
        let ring = device.create_ring()?;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let memory = device.map(MMAP_RING_STRIDE * (u64::from(ring) + 1), RING_BYTES as usize, both)?;
        let page = device.map(0, SESSION_PAGE_BYTES as usize, libc::PROT_READ)?;
        for _ in 0..200 {
            match random.below(3) {
                0 => {
                    let at = HEADER_BYTES as usize + 8 * random.below(4096) as usize;
                    memory.write(at, random.nasty());
                }
                1 => {
                    let words = [OFF_TAIL, OFF_HOST_PARKED, OFF_GUEST_PARKED, OFF_REPLY];
                    memory.write(random.pick(&words) as usize, random.nasty());
                }
                _ => {
                    // Kicks without need, waits that are over at once.
                    let _ = device.raw(IOCTLS[8].0, 0);
                    let mut wait = [u64::from(ring) | 1 << 32];
                    let _ = device.call(IOCTLS[9].0, &mut wait);
                }
            }
        }
        // A head that no producer publishes: over noise or over zeros, nothing there is a frame in order.
        memory.write(HEADER_BYTES as usize, 0);
        memory.write(OFF_HEAD as usize, random.nasty() | 1);
        let begin = Instant::now();
        while page.read(0) as u32 != SESSION_DEAD {
            let _ = device.raw(IOCTLS[8].0, 0);
            std::thread::sleep(Duration::from_millis(1));
            ensure!(begin.elapsed() < LIMIT, "a session with a spoilt ring goes on");
        }
        ensure!(page.read(0) >> 32 != 0, "it ended without a reason");
        tally.count("ended for a reason");
        let again = device.create_ring();
        ensure!(again.is_err(), "a dead session has given out a ring");
    }
    Ok(tally)
}
