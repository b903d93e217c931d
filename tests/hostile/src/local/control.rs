//! Control messages of every type, with bodies that are noise, nearly right, or right for somebody else.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use cuda_api::Call;
use cuda_api::calls::copy::row::{cuMemcpyDtoD_v2, cuMemsetD8_v2};
use cuda_api::calls::memory::row::cuMemHostRegister_v2;
use cuda_api::types::CUdeviceptr;
use cuda_api::wire::Wire;
use pci_layout::control::*;
use pci_layout::regs;
use pci_layout::ring::RING_BYTES;
use zerocopy::IntoBytes;

use super::Until;
use super::memory::proper_memfd;
use super::packets::{Heard, Packets};
use super::session::{Ended, Session, open_body, part_body};
use crate::{Random, Tally};

const KINDS: [u32; 12] = [
    0,
    HELLO,
    READ_REGS,
    READ_INFO,
    OPEN_SESSION,
    ADD_RING_PART,
    REMOVE_RING,
    MAP_REGION,
    UNMAP_REGION,
    CLOSE_SESSION,
    10,
    u32::MAX,
];

/// Bodies that the types have, with numbers of all kinds in them.
fn body(random: &mut Random, kind: u32) -> Vec<u8> {
    let runs = |random: &mut Random, count: u64| -> Vec<u8> {
        (0..count)
            .flat_map(|_| {
                let run = Run { gpa: random.nasty() & !0xfff, len: random.nasty() & !0xfff };
                run.as_bytes().to_vec()
            })
            .collect()
    };
    let small = random.below(300) as u32;
    let number = if random.once_in(2) { small } else { random.nasty() as u32 };
    match kind {
        HELLO => {
            Hello { abi_version: number, reserved: 0, boot_nonce: random.word(), pending_gpa: random.nasty() }
                .as_bytes()
                .to_vec()
        }
        READ_INFO => ReadInfo { offset: random.nasty() as u32, len: number }.as_bytes().to_vec(),
        OPEN_SESSION => {
            let env = random.pick(&[&b""[..], b"A=1\0", b"=x\0", b"A", b"\0\0\0", b"LD_PRELOAD=/tmp/x\0"]);
            let mut bytes = open_body(env);
            if random.once_in(2) {
                let at = 4 * random.below(10) as usize;
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            bytes
        }
        ADD_RING_PART => {
            let count = random.below(4);
            let (ring, part) = (number, random.below(3) as u32);
            let len = if random.once_in(2) { u64::from(RING_BYTES) } else { random.nasty() };
            let head = AddRingPart { ring, part, len, run_count: count as u32, reserved: 0 };
            [head.as_bytes(), &runs(random, count)].concat()
        }
        REMOVE_RING | UNMAP_REGION => RingRef { ring: number, reserved: 0 }.as_bytes().to_vec(),
        MAP_REGION => {
            let count = random.below(4);
            let head = MapRegion {
                region: number,
                flags: random.below(3) as u32,
                va: random.nasty() & !0xfff,
                len: random.nasty() & !0xfff,
                run_count: if random.once_in(3) { number } else { count as u32 },
                reserved: 0,
            };
            [head.as_bytes(), &runs(random, count)].concat()
        }
        CLOSE_SESSION => SessionRef { reserved: u64::from(random.once_in(2)) }.as_bytes().to_vec(),
        _ => Vec::new(),
    }
}

/// Messages of every type on connections with and without a session. Each is answered once, or the connection ends.
pub fn messages(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let file = proper_memfd(1 << 20)?;
    let mut slot = 0;
    let mut packets = Packets::connect(path)?;
    while !until.is_over() || tally.cases < 500 {
        let kind = random.pick(&KINDS);
        let mut bytes = match random.below(6) {
            0 => {
                let len = random.below(2000) as usize;
                random.bytes(len)
            }
            1 => random.bytes(REQUEST_BYTES_MAX as usize - 64),
            _ => body(random, kind),
        };
        if random.once_in(4) {
            bytes.truncate(random.below(1 + bytes.len() as u64) as usize);
        }
        // Mostly its own session, or the daemon's choice; sometimes somebody else's.
        let session = match (kind, random.below(6)) {
            (_, 0) => random.below(300) as u32,
            (_, 1) => random.nasty() as u32,
            (OPEN_SESSION, _) => SESSION_UNASSIGNED,
            (HELLO | READ_REGS | READ_INFO, _) => 0,
            _ => slot,
        };
        let files = if random.once_in(2) { vec![file.as_fd()] } else { vec![] };
        let heard = if random.once_in(5) {
            // Not even a header of ours.
            let len = 1 + random.below(48) as usize;
            let noise = random.bytes(len);
            if packets.send(&noise, &files)? { packets.hear()? } else { Heard::End }
        } else {
            packets.ask(kind, session, &bytes, &files)?
        };
        match heard {
            Heard::Answer(answer) if answer.error == regs::ERROR_NONE => {
                if kind == OPEN_SESSION
                    && let Some(b) = answer.body.first_chunk::<8>()
                {
                    slot = u64::from_le_bytes(*b) as u32;
                }
                tally.count("carried out");
            }
            Heard::Answer(_) => tally.count("refused"),
            Heard::End => {
                packets = Packets::connect(path)?;
                tally.count("ended the connection");
            }
        }
        if random.once_in(50) {
            packets = Packets::connect(path)?;
        }
    }
    // Longer than a packet may be.
    let long = vec![0u8; REQUEST_BYTES_MAX as usize + 4096];
    let mut packets = Packets::connect(path)?;
    match packets.ask(READ_REGS, 0, &long, &[])? {
        Heard::Answer(answer) => ensure!(answer.error == regs::ERROR_TOO_LARGE, "{answer:?}"),
        Heard::End => {}
    }
    tally.count("refused");
    ensure!(tally.of("refused") > tally.cases / 4, "most of that should be refused: {tally}");
    Ok(tally)
}

/// Regions at addresses where the worker has its own things, over one another, and in other people's sessions; and writes into
/// regions that were given to be read.
pub fn regions(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let file = proper_memfd(1 << 20)?;
    let own = own_addresses();
    let mut session = Session::open(path)?;
    let mut region = 0;
    let places =
        [0u64, 0x1000, 0x40_0000, 0x1000_0000_0000, 0x2a00_0000_0000, 0x5555_5555_4000, 0x7fff_ffff_e000]
            .into_iter()
            .chain((0..400).map(|_| match random.below(3) {
                0 => random.pick(&own),
                1 => random.nasty() & 0x7fff_ffff_f000,
                _ => 0x7f00_0000_0000 | random.word() & 0xff_ffff_f000,
            }))
            .collect::<Vec<_>>();
    for (i, va) in places.into_iter().enumerate() {
        if until.is_over() && i > 20 {
            break;
        }
        region += 1;
        let len = 4096 << random.below(8);
        let heard = map(&mut session, region, va, len, 0, &file)?;
        let ended = session.judge()?;
        ensure!(ended == Ended::No, "a region at {va:#x} ended the session: {ended:?}");
        tally.count(if heard == regs::ERROR_NONE { "mapped" } else { "refused" });
        if heard == regs::ERROR_NONE && random.once_in(2) {
            // Again over itself, in a part, and under the same number.
            ensure!(
                map(&mut session, region + 2000, va, len, 0, &file)? != regs::ERROR_NONE,
                "{va:#x} is mapped twice"
            );
            tally.count("refused");
        }
    }
    session.close()?;
    read_only(path, &mut tally)?;
    foreign(path, &mut tally)?;
    Ok(tally)
}

/// Addresses of this process: a worker's layout is like it.
fn own_addresses() -> Vec<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(|line| u64::from_str_radix(line.split('-').next()?, 16).ok()).collect()
}

fn map(session: &mut Session, region: u32, va: u64, len: u64, flags: u32, file: &impl AsFd) -> Result<u32> {
    let head = MapRegion { region, flags, va, len, run_count: 1, reserved: 0 };
    let body = [head.as_bytes(), Run { gpa: 0, len }.as_bytes()].concat();
    match session.packets.ask(MAP_REGION, session.slot, &body, &[file.as_fd()])? {
        Heard::Answer(answer) => Ok(answer.error),
        Heard::End => bail!("MAP_REGION ended the connection"),
    }
}

/// Device writes into a region that may only be read fail; they neither succeed nor end the worker by a fault.
fn read_only(path: &Path, tally: &mut Tally) -> Result<()> {
    const AT: u64 = 0x1000_0000_0000;
    let file = proper_memfd(1 << 20)?;
    let (mut session, things) = Session::with_things(path)?;
    let number = things.context as u32;
    ensure!(map(&mut session, 1, AT, 1 << 20, MAP_READ_ONLY, &file)? == regs::ERROR_NONE, "not mapped");
    let mut args = Vec::new();
    (AT, 1usize << 20, 0u32).put(&mut args);
    session.call(cuMemHostRegister_v2::ID, 0, number, &args)?;
    for _ in 0..2 {
        let mut args = Vec::new();
        (CUdeviceptr::from(AT), things.memory, 4096usize).put(&mut args);
        let copied = session.call(cuMemcpyDtoD_v2::ID, 0, number, &args)?;
        let mut args = Vec::new();
        (CUdeviceptr::from(AT), 7u8, 4096usize).put(&mut args);
        let filled = session.call(cuMemsetD8_v2::ID, 0, number, &args)?;
        for (what, result) in [("copy", copied), ("fill", filled)] {
            ensure!(result.is_some_and(|r| r != 0), "a {what} into read-only memory: {result:?}");
            tally.count("refused by a CUDA error");
        }
    }
    ensure!(session.judge()? == Ended::No, "writes into read-only memory ended the session");
    let mut head = [0u8; 16];
    rustix::io::pread(&file, &mut head, 0)?;
    ensure!(head == [0; 16], "read-only memory was written");
    session.close()
}

/// Requests about a session of another connection are refused, and change nothing there.
fn foreign(path: &Path, tally: &mut Tally) -> Result<()> {
    let mut victim = Session::open(path)?;
    let mut other = Session::open(path)?;
    let file = proper_memfd(1 << 20)?;
    let part = part_body(5, PART_RING, RING_BYTES.into());
    let ring = RingRef { ring: 0, reserved: 0 };
    let close = SessionRef { reserved: 0 };
    for (kind, body) in [
        (ADD_RING_PART, part.as_slice()),
        (REMOVE_RING, ring.as_bytes()),
        (UNMAP_REGION, ring.as_bytes()),
        (CLOSE_SESSION, close.as_bytes()),
    ] {
        for from in [&mut other.packets, &mut Packets::connect(path)?] {
            match from.ask(kind, victim.slot, body, &[file.as_fd()])? {
                Heard::Answer(answer) => {
                    ensure!(answer.error != regs::ERROR_NONE, "kind {kind} worked on another's session");
                }
                Heard::End => {}
            }
            tally.count("refused");
        }
    }
    ensure!(victim.judge()? == Ended::No, "a stranger's requests ended a session");
    victim.close()?;
    other.close()
}
