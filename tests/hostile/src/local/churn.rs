//! Sessions and connections that come and go: in an orderly way, without a word, in the middle of a word, many at once.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, ensure};
use pci_layout::control::{OPEN_SESSION, READ_REGS, SESSION_UNASSIGNED, SESSIONS_MAX};
use pci_layout::regs;
use pci_layout::ring::SESSION_PAGE_BYTES;

use super::Until;
use super::memory::proper_memfd;
use super::packets::{Heard, Packets};
use super::session::{Session, open_body};
use crate::{Random, Tally};

/// Threads that open and close.
const THREADS: u64 = 4;

/// Opens and closes, from several threads.
pub fn churn(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let all = Mutex::new(Tally::default());
    let seeds: Vec<u64> = (0..THREADS).map(|_| random.word()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = seeds
            .into_iter()
            .map(|seed| {
                let all = &all;
                scope.spawn(move || -> Result<()> {
                    let mut random = Random::new(seed);
                    let mut tally = Tally::default();
                    while !until.is_over() || tally.cases < 10 {
                        once(path, &mut random, &mut tally)?;
                    }
                    all.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.add(&tally);
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    all.into_inner().map_err(|_| anyhow::anyhow!("a thread panicked"))
}

fn once(path: &Path, random: &mut Random, tally: &mut Tally) -> Result<()> {
    match random.below(6) {
        0 => {
            Session::open(path)?.close()?;
            tally.count("opened and closed");
        }
        1 => {
            drop(Session::open(path)?);
            tally.count("opened and dropped");
        }
        2 => {
            // Gone before the answer.
            let page = proper_memfd(SESSION_PAGE_BYTES.into())?;
            let mut packets = Packets::connect(path)?;
            let bytes = packets.request(OPEN_SESSION, SESSION_UNASSIGNED, &open_body(b""));
            packets.send(&bytes, &[page.as_fd()])?;
            tally.count("asked and dropped");
        }
        3 => {
            // Several requests before the first answer.
            let page = proper_memfd(SESSION_PAGE_BYTES.into())?;
            let mut packets = Packets::connect(path)?;
            for _ in 0..3 {
                let bytes = packets.request(OPEN_SESSION, SESSION_UNASSIGNED, &open_body(b""));
                packets.send(&bytes, &[page.as_fd()])?;
            }
            let mut opened = 0;
            for _ in 0..3 {
                match packets.hear()? {
                    Heard::Answer(answer) => opened += u32::from(answer.error == regs::ERROR_NONE),
                    Heard::End => break,
                }
            }
            ensure!(opened <= 1, "{opened} sessions on one connection");
            tally.count("asked three times");
        }
        4 => {
            for _ in 0..10 {
                drop(Packets::connect(path)?);
                tally.count("connected and dropped");
            }
        }
        _ => {
            // Dies with work in its ring.
            let mut session = Session::open(path)?;
            for _ in 0..random.below(50) {
                let ticket = session.ticket();
                session.push(&super::session::frame(0x0832, 0, 0, ticket, &[0; 8]))?;
            }
            drop(session);
            tally.count("dropped at work");
        }
    }
    Ok(())
}

/// Takes everything that there is to be had, so that nobody else is served meanwhile; then gives it back.
pub fn exhaustion(path: &Path) -> Result<Tally> {
    let mut tally = Tally::default();
    // Connections until one is not served.
    let mut held = Vec::new();
    for _ in 0..2 * SESSIONS_MAX + 50 {
        let mut packets = Packets::connect(path)?;
        match packets.ask(READ_REGS, 0, &[], &[])? {
            Heard::Answer(_) => held.push(packets),
            Heard::End => {
                tally.count("connection refused");
                break;
            }
        }
        tally.count("connection taken");
    }
    ensure!(tally.of("connection refused") == 1, "connections without end: {tally}");
    drop(held);
    // The slots come back when the daemon has seen the ends.
    for attempt in 0.. {
        let mut packets = Packets::connect(path)?;
        match packets.ask(READ_REGS, 0, &[], &[])? {
            Heard::Answer(_) => break,
            Heard::End => ensure!(attempt < 200, "connections do not come back"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(tally)
}
