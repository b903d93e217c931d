//! Descriptors: none, too many, of the wrong kind, and memory that goes away while it is used.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use pci_layout::control::{
    ADD_RING_PART, MAP_REGION, MapRegion, OPEN_SESSION, PART_RING, PART_STAGING, Run, SESSION_UNASSIGNED,
};
use pci_layout::regs;
use pci_layout::ring::{RING_BYTES, SESSION_PAGE_BYTES};
use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
    open,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use zerocopy::IntoBytes;

use super::Until;
use super::memory::{memfd, proper_memfd};
use super::packets::{FILES_MAX, Heard, Packets};
use super::session::{Ended, Session, open_body, part_body};
use crate::{Random, Tally};

/// Files that are no memory of ours, by what they are. `len`: what a memory file would have to have.
fn wrong_files(len: u64) -> Result<Vec<(&'static str, OwnedFd)>> {
    let plain = |path: &str, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let (near, _far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (reading, writing) = rustix::pipe::pipe()?;
    let mut files = vec![
        ("a pipe to read", reading),
        ("a pipe to write", writing),
        ("a socket", near),
        ("/dev/zero", plain("/dev/zero", OFlags::RDWR)?),
        ("/dev/null", plain("/dev/null", OFlags::RDWR)?),
        ("a folder", plain("/", OFlags::RDONLY)?),
        ("a place, not a file", plain("/proc/self/exe", OFlags::PATH)?),
        ("a program", plain("/proc/self/exe", OFlags::RDONLY)?),
        ("its own memory", plain("/proc/self/mem", OFlags::RDWR)?),
        ("a memfd without seals", memfd(len, SealFlags::empty())?),
        ("a memfd that may not grow", memfd(len, SealFlags::GROW)?),
        ("a memfd that may not be written", memfd(len, SealFlags::SHRINK | SealFlags::WRITE)?),
        ("a memfd that may not be written later", memfd(len, SealFlags::SHRINK | SealFlags::FUTURE_WRITE)?),
        ("an empty memfd", memfd(0, SealFlags::SHRINK)?),
        ("a short memfd", memfd(len - 1, SealFlags::SHRINK)?),
    ];
    // Where there are no huge pages to have, touching one is a fault.
    if let Ok(huge) =
        memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB)
        && ftruncate(&huge, len.next_multiple_of(2 << 20)).is_ok()
        && fcntl_add_seals(&huge, SealFlags::SHRINK).is_ok()
    {
        files.push(("huge pages", huge));
    }
    // The end that reads only.
    let memory = proper_memfd(len)?;
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    files.push(("a memfd opened to be read", plain(&again, OFlags::RDONLY)?));
    Ok(files)
}

fn refused(tally: &mut Tally, what: &str, heard: &Heard) -> Result<()> {
    match heard {
        Heard::Answer(answer) if answer.error == regs::ERROR_NONE => bail!("{what} is taken"),
        Heard::Answer(_) => tally.count("refused"),
        Heard::End => tally.count("ended the connection"),
    }
    Ok(())
}

/// All of it.
pub fn files(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    // For the session page.
    for (what, file) in wrong_files(SESSION_PAGE_BYTES.into())? {
        let mut packets = Packets::connect(path)?;
        let heard = packets.ask(OPEN_SESSION, SESSION_UNASSIGNED, &open_body(b""), &[file.as_fd()])?;
        refused(&mut tally, &format!("{what} as session page"), &heard)?;
    }
    // For a ring, staging and a region of one session, which goes on.
    let mut session = Session::open(path)?;
    for (what, file) in wrong_files(RING_BYTES.into())? {
        let len = u64::from(RING_BYTES) & !0xfff;
        let head = MapRegion { region: 9, flags: 0, va: 0x1000_0000_0000, len, run_count: 1, reserved: 0 };
        let region = [head.as_bytes(), Run { gpa: 0, len }.as_bytes()].concat();
        for (kind, body) in [
            (ADD_RING_PART, part_body(7, PART_RING, RING_BYTES.into())),
            (ADD_RING_PART, part_body(0, PART_STAGING, len)),
            (MAP_REGION, region),
        ] {
            let heard = session.packets.ask(kind, session.slot, &body, &[file.as_fd()])?;
            refused(&mut tally, &format!("{what} in request {kind}"), &heard)?;
            let ended = session.judge()?;
            if ended != Ended::No {
                bail!("{what} in request {kind} ended the session: {ended:?}");
            }
        }
    }
    session.close()?;
    numbers(path, &mut tally)?;
    while !until.is_over() || tally.of("emptied while used") < 2 {
        emptied(path, random, &mut tally)?;
    }
    Ok(tally)
}

/// None, and too many.
fn numbers(path: &Path, tally: &mut Tally) -> Result<()> {
    let page = proper_memfd(SESSION_PAGE_BYTES.into())?;
    for count in [0, 2, 3, 4, 5, 16, FILES_MAX] {
        let files: Vec<BorrowedFd<'_>> = (0..count).map(|_| page.as_fd()).collect();
        let mut packets = Packets::connect(path)?;
        let heard = packets.ask(OPEN_SESSION, SESSION_UNASSIGNED, &open_body(b""), &files)?;
        refused(tally, &format!("{count} descriptors"), &heard)?;
    }
    // The connection itself, sent over itself and left there: nobody but the kernel can end that circle.
    for _ in 0..50 {
        let packets = Packets::connect(path)?;
        packets.send(b"x", &[packets.socket.as_fd(), packets.socket.as_fd()])?;
        tally.count("left in the queue");
    }
    Ok(())
}

/// Memory of a session that is taken away under it, as far as the seals allow: holes are punched into it, its file is grown and
/// sealed against writing.
fn emptied(path: &Path, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let (mut session, things) = Session::with_things(path)?;
    session.add_staging(1 << 20)?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for _ in 0..20 {
        fallocate(&session.ring.memory.file, hole, 0, RING_BYTES.into())?;
        let mut args = Vec::new();
        cuda_api::wire::Wire::put(&(0u32,), &mut args);
        let call = <cuda_api::calls::context::row::cuCtxGetLimit as cuda_api::Call>::ID;
        // What was consumed is forgotten with the hole: a head of 0 lies behind it.
        let _ = session.push(&super::session::frame(call, 0, things.context as u32, 1 << 40, &args));
        if random.once_in(2) {
            // Growing is not sealed.
            ftruncate(&session.ring.memory.file, u64::from(RING_BYTES) + 4096)?;
        }
        if ftruncate(&session.ring.memory.file, 0).is_ok() {
            bail!("a sealed memfd has shrunk");
        }
        if session.dead().is_some() {
            break;
        }
    }
    let ended = session.judge()?;
    ensure!(ended != Ended::Stuck, "a ring that was emptied leaves its session stuck");
    tally.count("emptied while used");
    if ended == Ended::No { session.close() } else { Ok(()) }
}
