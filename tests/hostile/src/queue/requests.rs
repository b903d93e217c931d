//! Proper chains with improper requests: what only a kernel can ask for, since only it names guest-physical memory.

use std::path::Path;

use anyhow::{Result, ensure};
use pci_layout::control::*;
use pci_layout::regs;
use pci_layout::ring::RING_BYTES;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::machine::{HIGH, LOW, Machine, PENDING, REGION_BYTES, open_body, session_page};
use crate::local::Until;
use crate::{Random, Tally};

/// Where nothing of the queues and their buffers lies: whoever gives those away spoils his own questions and answers.
const SPARE: u64 = LOW + 0x40_0000;

/// Page addresses: proper, shared with something else, outside, half outside, unaligned.
fn page(random: &mut Random) -> u64 {
    match random.below(7) {
        0 => REGION_BYTES + random.nasty() % (HIGH - REGION_BYTES),
        1 => PENDING,
        2 => SPARE + random.below(1 << 20),
        3 => REGION_BYTES - 4096,
        4 => REGION_BYTES,
        5 => HIGH + REGION_BYTES - 4096,
        _ => SPARE + 4096 * random.below(0x300),
    }
}

fn runs(random: &mut Random, count: u64, len: u64) -> Vec<u8> {
    let each = (len / count.max(1)) & !0xfff;
    (0..count)
        .flat_map(|i| {
            let last = i + 1 == count;
            let mut run = Run { gpa: page(random), len: if last { len - each * i } else { each } };
            if random.once_in(12) {
                run.len = random.nasty();
            }
            run.as_bytes().to_vec()
        })
        .collect()
}

fn body(random: &mut Random, kind: u32) -> Vec<u8> {
    let count = 1 + random.below(5);
    match kind {
        HELLO => {
            let abi_version = if random.once_in(3) { random.nasty() as u32 } else { pci_layout::ABI_VERSION };
            let hello =
                Hello { abi_version, reserved: 0, boot_nonce: random.below(3), pending_gpa: page(random) };
            hello.as_bytes().to_vec()
        }
        READ_INFO => {
            ReadInfo { offset: random.nasty() as u32, len: random.nasty() as u32 }.as_bytes().to_vec()
        }
        OPEN_SESSION => open_body(page(random)),
        ADD_RING_PART => {
            let part = random.below(3) as u32;
            let len = match part {
                PART_RING => u64::from(RING_BYTES),
                _ => 4096 * (1 + random.below(1024)),
            };
            let ring = if random.once_in(6) { random.nasty() as u32 } else { random.below(4) as u32 };
            let head = AddRingPart { ring, part, len, run_count: count as u32, reserved: 0 };
            [head.as_bytes(), &runs(random, count, len)].concat()
        }
        REMOVE_RING | UNMAP_REGION => {
            RingRef { ring: random.below(5) as u32, reserved: 0 }.as_bytes().to_vec()
        }
        MAP_REGION => {
            let len = 4096 * (1 + random.below(64));
            let head = MapRegion {
                region: random.below(4) as u32,
                flags: random.below(3) as u32,
                va: random.nasty() & 0x7fff_ffff_f000,
                len,
                run_count: count as u32,
                reserved: 0,
            };
            [head.as_bytes(), &runs(random, count, len)].concat()
        }
        CLOSE_SESSION => SessionRef { reserved: 0 }.as_bytes().to_vec(),
        _ => {
            let len = random.below(100) as usize;
            random.bytes(len)
        }
    }
}

/// Requests of all types in any order, for sessions that there are and are not. Every one is answered.
pub fn requests(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut machine = Machine::start(path)?;
    machine.hello(1)?;
    while !until.is_over() || tally.cases < 300 {
        // HELLO ends all sessions where its nonce is new: not too often.
        let kind = match random.below(20) {
            0 => HELLO,
            1 => random.nasty() as u32,
            _ => 2 + random.below(9) as u32,
        };
        let mut body = body(random, kind);
        match random.below(12) {
            0 => body.truncate(random.below(1 + body.len() as u64) as usize),
            1 => body.extend_from_slice(&[0; 8]),
            2 if !body.is_empty() => {
                let at = random.below(body.len() as u64) as usize;
                body[at] ^= 1 << random.below(8);
            }
            _ => {}
        }
        let session = match random.below(8) {
            0 => random.nasty() as u32,
            _ if kind <= READ_INFO => 0,
            _ => random.below(3) as u32,
        };
        let answer = machine.ask(kind, session, &body)?;
        tally.count(if answer.error == regs::ERROR_NONE { "carried out" } else { "refused" });
    }
    // The longest request of all, and the most runs.
    let head = MapRegion {
        region: 9,
        flags: 0,
        va: 0x1000_0000_0000,
        len: u64::from(RUNS_MAX) * 4096,
        run_count: RUNS_MAX,
        reserved: 0,
    };
    let runs: Vec<u8> = (0..RUNS_MAX).flat_map(|_| Run { gpa: LOW, len: 4096 }.as_bytes().to_vec()).collect();
    machine.ask(MAP_REGION, 0, &[head.as_bytes(), &runs].concat())?;
    let long = vec![0; REQUEST_BYTES_MAX as usize + 64];
    let answer = machine.ask(READ_REGS, 0, &long)?;
    ensure!(answer.error == regs::ERROR_TOO_LARGE, "{} bytes of request: {answer:?}", long.len());
    ensure!(tally.of("carried out") > 20 && tally.of("refused") > 100, "one-sided: {tally}");
    Ok(tally)
}

/// Gives a session a ring full of noise in the middle of guest memory and rings its bell.
pub(super) fn spoilt_ring(machine: &mut Machine, session: u32, random: &mut Random) -> Result<()> {
    let at = LOW + 0x60_0000;
    machine.memory.write_slice(&random.bytes(RING_BYTES as usize), GuestAddress(at))?;
    let len = u64::from(RING_BYTES);
    let head = AddRingPart { ring: 0, part: PART_RING, len, run_count: 1, reserved: 0 };
    let added =
        machine.ask(ADD_RING_PART, session, &[head.as_bytes(), Run { gpa: at, len }.as_bytes()].concat())?;
    // The worker may have died of the noise before it could say that it has the ring.
    let fits = [regs::ERROR_NONE, regs::ERROR_MEDIATOR_UNAVAILABLE].contains(&added.error);
    ensure!(fits, "ADD_RING_PART: {added:?}");
    ring_bell(machine)
}

/// Every pending bit, and a kick without a request.
fn ring_bell(machine: &Machine) -> Result<()> {
    machine.memory.write_slice(&[0xff; 4096], GuestAddress(PENDING))?;
    machine.control.kick()
}

/// Sessions whose page, rings and staging are the same pages, each other's, the queues', or noise.
pub fn sessions(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut nonce = 100;
    while !until.is_over() || tally.cases < 10 {
        let mut machine = Machine::start(path)?;
        nonce += 1;
        machine.hello(nonce)?;
        for session in 0..4 {
            // Two sessions on one page; a page in the middle of the control queue's used ring.
            let gpa = match random.below(3) {
                0 => session_page(0),
                1 => LOW + 0x60_0000,
                _ => session_page(session),
            };
            let opened = machine.ask(OPEN_SESSION, session, &open_body(gpa))?;
            ensure!(opened.error == regs::ERROR_NONE, "OPEN_SESSION: {opened:?}");
            tally.count("opened");
            if random.once_in(2) {
                spoilt_ring(&mut machine, session, random)?;
                tally.count("given noise for a ring");
            } else {
                // All pages of the ring are one page.
                let (len, count) = (u64::from(RING_BYTES), u64::from(RING_BYTES) / 4096);
                let head =
                    AddRingPart { ring: 1, part: PART_RING, len, run_count: count as u32, reserved: 0 };
                let runs: Vec<u8> = (0..count)
                    .flat_map(|_| Run { gpa: session_page(session), len: 4096 }.as_bytes().to_vec())
                    .collect();
                machine.ask(ADD_RING_PART, session, &[head.as_bytes(), &runs].concat())?;
                ring_bell(&machine)?;
                tally.count("given one page for a ring");
            }
        }
        for session in 0..4 {
            if random.once_in(2) {
                machine.close(session)?;
            }
        }
        let answer = machine.ask(READ_REGS, 0, &[])?;
        ensure!(answer.error == regs::ERROR_NONE, "READ_REGS: {answer:?}");
        // A page in the used ring and a ring over the whole queue: from here on nothing can be asked. The next round connects
        // anew.
        let [descriptors, _, used] = machine.control.parts();
        let open = machine.request(OPEN_SESSION, 9, &open_body(used));
        machine.send(&open)?;
        let len = u64::from(RING_BYTES);
        let head = AddRingPart { ring: 0, part: PART_RING, len, run_count: 1, reserved: 0 };
        let body = [head.as_bytes(), Run { gpa: descriptors, len }.as_bytes()].concat();
        let add = machine.request(ADD_RING_PART, 9, &body);
        machine.send(&add)?;
        ring_bell(&machine)?;
        std::thread::sleep(std::time::Duration::from_millis(random.below(20)));
        tally.count("given the queue for a ring");
    }
    Ok(tally)
}

/// Reads and writes of the config space at any place and of any length.
pub fn config(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut machine = Machine::start(path)?;
    machine.hello(1)?;
    let mut failures = 0;
    while !until.is_over() || tally.cases < 300 {
        let offset = if random.once_in(3) { random.nasty() as u32 } else { random.below(280) as u32 };
        let longest = if random.once_in(3) { 300 } else { 8 };
        let len = 1 + random.below(longest) as usize;
        let bytes = random.bytes(len);
        // The front end's crate waits for ever for the rest of an answer that says "no": reads the daemon refuses are not for it.
        let done = if random.once_in(2) || len > regs::BLOCK_BYTES as usize {
            machine.frontend.set_config(offset, VhostUserConfigFlags::WRITABLE, &bytes).is_ok()
        } else {
            let flags = VhostUserConfigFlags::empty();
            machine.frontend.get_config(offset, len as u32, flags, &bytes).is_ok()
        };
        tally.count(if done { "taken" } else { "refused" });
        if !done {
            // The crate's own checks refuse without a message; where the daemon refused, the connection may be over.
            failures += 1;
            if machine.ask(READ_REGS, 0, &[]).is_err() {
                machine = Machine::start(path)?;
                machine.hello(failures)?;
            }
        }
    }
    let block = machine.ask(READ_REGS, 0, &[])?.body;
    ensure!(block.len() == regs::BLOCK_BYTES as usize, "the register block is {} bytes", block.len());
    ensure!(block[regs::MAGIC as usize..][..8] == pci_layout::ids::TAG, "the magic was overwritten");
    Ok(tally)
}
