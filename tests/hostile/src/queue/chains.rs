//! Descriptors, rings and buffers that make no sense. A chain is answered, given back empty, or left alone, and a queue that was
//! spoilt serves again after a reset.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pci_layout::control::READ_REGS;
use pci_layout::regs;
use vm_memory::{Bytes, GuestAddress};

use super::machine::{ANSWERS, HIGH, LOW, Machine, PENDING, REGION_BYTES, REQUESTS};
use super::virtqueue::{Descriptor, INDIRECT, NEXT, QUEUE_SIZE, WRITE};
use crate::local::Until;
use crate::{Random, Tally};

/// How long a chain is waited for that may well never come back.
const PATIENCE: Duration = Duration::from_millis(5);

/// An address: in memory, at its edges, or nowhere.
fn address(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.nasty(),
        1 => LOW + random.below(REGION_BYTES),
        2 => LOW + REGION_BYTES - random.below(64),
        3 => HIGH + REGION_BYTES - random.below(64),
        4 => REQUESTS + random.below(0x1000),
        _ => HIGH + random.below(REGION_BYTES),
    }
}

fn length(random: &mut Random) -> u32 {
    match random.below(3) {
        0 => random.nasty() as u32,
        1 => random.below(64) as u32,
        _ => random.below(0x2000) as u32,
    }
}

/// Resets the device and checks that it serves.
fn serves_after_reset(machine: &mut Machine, nonce: u64) -> Result<()> {
    machine.reset().context("a reset after hostile chains")?;
    let hello = machine.hello(nonce).context("HELLO after hostile chains")?;
    ensure!(hello.error == regs::ERROR_NONE, "HELLO: {hello:?}");
    ensure!(machine.ask(READ_REGS, 0, &[])?.error == regs::ERROR_NONE, "READ_REGS");
    Ok(())
}

/// Random chains of random descriptors, over random memory, with the available index now and then somewhere else.
pub fn chains(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut machine = Machine::start(path)?;
    let mut nonce = 1;
    while !until.is_over() || tally.cases < 200 {
        // A request somewhere, so that some chains mean something.
        let request = machine.request(random.below(11) as u32, random.below(4) as u32, &[0; 40]);
        machine.memory.write_slice(&request, GuestAddress(REQUESTS))?;
        for _ in 0..1 + random.below(20) {
            for index in 0..random.below(12) as u16 {
                let descriptor = Descriptor {
                    address: address(random),
                    len: length(random),
                    flags: if random.once_in(4) { random.word() as u16 } else { random.below(4) as u16 },
                    next: if random.once_in(8) { random.word() as u16 } else { index + 1 },
                };
                machine.control.describe(index, descriptor)?;
            }
            machine.control.post(if random.once_in(10) { random.word() as u16 } else { 0 })?;
            if random.once_in(30) {
                machine.control.publish(random.word() as u16)?;
            }
            machine.control.kick()?;
            let came = machine.control.used_within(PATIENCE)?;
            tally.count(if came.is_some() { "came back" } else { "left alone" });
        }
        nonce += 1;
        serves_after_reset(&mut machine, nonce)?;
    }
    ensure!(tally.of("came back") > 20, "no chain came back: {tally}");
    Ok(tally)
}

/// Chains that end in themselves, directly, over others, and through indirect tables.
pub fn loops(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut machine = Machine::start(path)?;
    let table = HIGH + 0x50_0000;
    let readable = |next| Descriptor { address: REQUESTS, len: 16, flags: NEXT, next };
    let mut nonce = 1;
    while !until.is_over() || tally.cases < 20 {
        let length = 1 + random.below(200) as u16;
        let back = random.below(u64::from(length)) as u16;
        match random.below(4) {
            0 => {
                for index in 0..length {
                    machine
                        .control
                        .describe(index, readable(if index + 1 == length { back } else { index + 1 }))?;
                }
            }
            kind => {
                for index in 0..length {
                    let next = if index + 1 == length { back } else { index + 1 };
                    let mut entry = readable(next);
                    if kind == 1 && index == back {
                        // A table inside a table, itself.
                        entry =
                            Descriptor { address: table, len: 16 * u32::from(length), flags: INDIRECT, next };
                    }
                    machine.control.describe_at(table + 16 * u64::from(index), entry)?;
                }
                let len = match kind {
                    2 => random.nasty() as u32,
                    _ => 16 * u32::from(length),
                };
                let flags = INDIRECT | if kind == 3 { NEXT } else { 0 };
                machine.control.describe(0, Descriptor { address: table, len, flags, next: 0 })?;
            }
        }
        machine.control.post(0)?;
        machine.control.kick()?;
        let came = machine.control.used_within(PATIENCE)?;
        tally.count(if came.is_some() { "came back" } else { "left alone" });
        if random.once_in(10) {
            nonce += 1;
            serves_after_reset(&mut machine, nonce)?;
        }
    }
    serves_after_reset(&mut machine, u64::MAX)?;
    Ok(tally)
}

/// A thread scribbles over descriptors, rings, requests, answers and the pending page while the daemon works on them.
pub fn moving(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut machine = Machine::start(path)?;
    let mut nonce = 1;
    while !until.is_over() || tally.cases < 200 {
        machine.hello(nonce)?;
        let stop = AtomicBool::new(false);
        let (memory, seed) = (machine.memory.clone(), random.word());
        std::thread::scope(|scope| -> Result<()> {
            scope.spawn(|| {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let (base, len) = match random.below(6) {
                        0 => (0x10_0000, 0x1000),
                        1 => (0x10_1000, 0x210),
                        2 => (0x10_2000, 0x810),
                        3 => (REQUESTS, 0x1_0000),
                        4 => (PENDING, 4096),
                        _ => (ANSWERS, 0x1_0000),
                    };
                    let at = GuestAddress(base + 8 * random.below(len / 8));
                    let value = random.nasty();
                    // Out of memory would be a slip of ours; it is inside by the table above.
                    let _ = memory.write_obj(value, at);
                    if random.once_in(32) {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            });
            let played = (0..60).try_for_each(|_| {
                let kind = random.below(11) as u32;
                let request = machine.request(kind, random.below(3) as u32, &random.bytes(48));
                machine.send(&request)?;
                let came = machine.control.used_within(Duration::from_millis(2))?;
                tally.count(if came.is_some() { "came back" } else { "left alone" });
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            played
        })?;
        nonce += 1;
        serves_after_reset(&mut machine, nonce)?;
    }
    Ok(tally)
}

/// Buffers for events that are none: readable, short, nowhere, endless; and sessions that end meanwhile.
pub fn events(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut nonce = 0;
    while !until.is_over() || tally.cases < 60 {
        let mut machine = Machine::start(path)?;
        nonce += 1;
        machine.hello(nonce)?;
        for index in 0..30 {
            let descriptor = Descriptor {
                address: address(random),
                len: length(random),
                flags: if random.once_in(2) { WRITE } else { random.below(8) as u16 },
                next: random.below(40) as u16,
            };
            machine.events.describe(index, descriptor)?;
            machine.events.post(if random.once_in(20) { random.word() as u16 } else { index })?;
            tally.count("posted");
        }
        machine.events.kick()?;
        // A session whose ring is noise dies, and its death is an event.
        let opened = machine.open(1)?;
        ensure!(opened.error == regs::ERROR_NONE, "OPEN_SESSION: {opened:?}");
        super::requests::spoilt_ring(&mut machine, 1, random)?;
        std::thread::sleep(Duration::from_millis(20));
        ensure!(machine.ask(READ_REGS, 0, &[])?.error == regs::ERROR_NONE, "READ_REGS");
        serves_after_reset(&mut machine, nonce + 1000)?;
    }
    const _: () = assert!(QUEUE_SIZE > 60);
    Ok(tally)
}
