//! Frames: what they say about themselves, what they carry, what they name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cuda_api::wire::Wire;
use cuda_api::{Call, Class};
use pci_layout::event::DEATH_MALFORMED;
use pci_layout::ring::{FRAME_AREA_BYTES, FRAME_BULK, FRAME_BYTES_MAX, FRAME_WAIT};

use super::Until;
use super::rows;
use super::session::{CASE_TICKETS, DEVICE_BYTES, Ended, Session, Things, frame};
use crate::random::EDGES;
use crate::{Random, Tally};

/// How long one frame's call may take before the next is sent behind it.
const CALL_LIMIT: Duration = Duration::from_millis(500);

/// Sessions to play with: a new one whenever the last is over.
struct Sessions<'a> {
    path: &'a Path,
    current: Option<(Session, Things)>,
    played: u32,
    staging: usize,
}

/// Cases in one session before it gives way to a new one: what accumulates in it is not what is tested.
const CASES_PER_SESSION: u32 = 200;

impl<'a> Sessions<'a> {
    fn new(path: &'a Path, staging: usize) -> Self {
        Sessions { path, current: None, played: 0, staging }
    }

    fn get(&mut self) -> Result<&mut (Session, Things)> {
        // Behind a call that does not come back, each case would wait in vain.
        let jammed = self.current.as_ref().is_some_and(|(session, _)| session.jammed);
        if (jammed || self.played >= CASES_PER_SESSION)
            && let Some((session, _)) = self.current.take()
        {
            session.close()?;
        }
        if self.current.is_none() {
            let mut made = Session::with_things(self.path)?;
            if self.staging > 0 {
                made.0.add_staging(self.staging)?;
            }
            self.current = Some(made);
            self.played = 0;
        }
        self.played += 1;
        self.current.as_mut().context("just made")
    }

    /// Judges the session after a case that was to end as `said`.
    fn judge(&mut self, tally: &mut Tally, result: Option<u32>) -> Result<Ended> {
        let Some((session, _)) = &mut self.current else { return Ok(Ended::No) };
        let ended = session.judge()?;
        tally.count(match (ended, result) {
            (Ended::No, Some(0)) => "carried out",
            (Ended::No, Some(_)) => "refused by a CUDA error",
            (Ended::No, None) => "taken",
            (Ended::Yes(DEATH_MALFORMED), _) => "ended as malformed",
            (Ended::Yes(_), _) => "ended for another reason",
            (Ended::Stuck, _) => "busy with what they asked for",
        });
        if ended != Ended::No
            && let Some((session, _)) = self.current.take()
            && ended == Ended::Stuck
        {
            // It must be possible to end it all the same.
            session.close().context("a session that is busy")?;
        }
        Ok(ended)
    }
}

/// A frame's call on a session that may be over after it.
fn play(session: &mut Session, call: u32, flags: u32, context: u32, args: &[u8]) -> Result<Option<u32>> {
    let ticket = session.ticket();
    session.push(&frame(call, flags, context, ticket, args))?;
    if flags & FRAME_WAIT == 0 {
        session.jammed = !session.drained(CALL_LIMIT);
        return Ok(None);
    }
    let answer = session.reply(ticket, CALL_LIMIT);
    session.jammed = answer.is_none();
    Ok(answer)
}

fn flags(random: &mut Random) -> u32 {
    let bulk = if random.once_in(4) { FRAME_BULK } else { 0 };
    if random.once_in(3) { bulk } else { bulk | FRAME_WAIT }
}

/// Frame areas full of noise, and frames whose header is nearly right.
pub fn random(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut sessions = Sessions::new(path, 0);
    let rows = rows::all();
    while !until.is_over() {
        let (session, things) = sessions.get()?;
        match random.below(3) {
            0 => {
                let len = 8 * (1 + random.below(512)) as usize;
                let noise = random.bytes(len);
                session.push(&noise)?;
            }
            1 => {
                // A proper header with noise for arguments.
                let row = random.pick(&rows);
                let len = 8 * random.below(64) as usize;
                let (ticket, flags, args) = (session.ticket(), flags(random), random.bytes(len));
                session.push(&frame(row.id, flags, things.context as u32, ticket, &args))?;
            }
            _ => {
                // A proper frame with one word of its header replaced.
                let row = random.pick(&rows);
                let ticket = session.ticket();
                let mut bytes =
                    frame(row.id, FRAME_WAIT, things.context as u32, ticket, &row.sample(random.word() % 64));
                let at = 4 * random.below(6) as usize;
                bytes[at..at + 4].copy_from_slice(&(random.nasty() as u32).to_le_bytes());
                session.push(&bytes)?;
            }
        }
        session.drained(CALL_LIMIT);
        sessions.judge(&mut tally, None)?;
    }
    ensure!(tally.of("ended as malformed") > 0, "noise was taken for frames: {tally}");
    Ok(tally)
}

/// Each row's own frame, with bytes flipped, words replaced, cut short or drawn out.
pub fn mutated(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut sessions = Sessions::new(path, 64 << 10);
    let rows = rows::all();
    let mut at = 0;
    while !until.is_over() || at < rows.len() {
        let row = rows[at % rows.len()];
        at += 1;
        let (session, things) = sessions.get()?;
        let mut args = row.sample(random.word() % 64);
        let known = known(things);
        for _ in 0..=random.below(3) {
            match random.below(8) {
                0 if !args.is_empty() => {
                    let i = random.below(args.len() as u64) as usize;
                    args[i] ^= 1 << random.below(8);
                }
                1 => args.truncate(8 * random.below(1 + args.len() as u64 / 8) as usize),
                2 => args.extend_from_slice(&random.nasty().to_le_bytes()),
                _ if args.len() >= 8 => {
                    let i = 8 * random.below(args.len() as u64 / 8) as usize;
                    let word = if random.once_in(3) { random.nasty() } else { random.pick(&known) };
                    args[i..i + 8].copy_from_slice(&word.to_le_bytes());
                }
                _ => {}
            }
        }
        let context = if random.once_in(8) { random.nasty() as u32 } else { things.context as u32 };
        let result = play(session, row.id, flags(random), context, &args)?;
        if sessions.judge(&mut tally, result)? == Ended::Stuck {
            println!("busy after {}", row.name);
        }
    }
    Ok(tally)
}

/// What a session has, and its neighbourhood.
fn known(things: &Things) -> [u64; 16] {
    let Things { context, memory, stream, event, module, function } = *things;
    let end = memory + DEVICE_BYTES as u64;
    let (next, other) = (function + 16, function + (1 << 24));
    let kind = stream ^ (1 << 32);
    [
        context,
        memory,
        stream,
        event,
        module,
        function,
        memory + 8,
        end - 8,
        end,
        memory - 8,
        next,
        other,
        kind,
        0,
        1,
        4096,
    ]
}

/// Every word of every row's frame, one after the other, replaced by handles and addresses that are not the session's.
pub fn forged(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut sessions = Sessions::new(path, 64 << 10);
    let rows = rows::all();
    'all: for round in 0u64.. {
        for row in &rows {
            // Each row is met at least once.
            if until.is_over() && round > 0 {
                break 'all;
            }
            let plain = row.sample(2 * (round % 32));
            let words = (plain.len() / 8) as u64;
            let (session, things) = sessions.get()?;
            let mut args = plain;
            if words > 0 {
                let i = 8 * ((round % words) as usize);
                let forged = forgery(random, things);
                args[i..i + 8].copy_from_slice(&forged.to_le_bytes());
            }
            let result = play(session, row.id, FRAME_WAIT, things.context as u32, &args)?;
            sessions.judge(&mut tally, result)?;
        }
    }
    // A launch that writes wherever it likes is the session's own ruin at most.
    for where_to in EDGES.into_iter().chain([random.word()]) {
        poke(&mut sessions, &mut tally, where_to)?;
    }
    Ok(tally)
}

fn forgery(random: &mut Random, things: &Things) -> u64 {
    match random.below(5) {
        0 => random.pick(&EDGES),
        // Another generation, index or kind.
        1 => things.stream ^ (1 << random.below(48)),
        2 => things.memory.wrapping_add(random.nasty()),
        // Where a worker has its own memory.
        3 => 0x7f00_0000_0000 | random.word() & 0xff_ffff_ffff,
        _ => random.word(),
    }
}

/// Launches the kernel that writes a word at an address.
fn poke(sessions: &mut Sessions<'_>, tally: &mut Tally, where_to: u64) -> Result<()> {
    use cuda_api::calls::launch::row::cuLaunchKernel;
    use cuda_api::calls::stream::row::cuStreamSynchronize;
    use cuda_api::types::{CUfunction, CUstream};
    let (session, things) = sessions.get()?;
    let params = [where_to.to_le_bytes(), 0x5a5a_u64.to_le_bytes()].concat();
    let mut args = Vec::new();
    let stream = CUstream(things.stream);
    (CUfunction(things.function), [1u32; 3], [1u32; 3], 0u32, stream, params.as_slice()).put(&mut args);
    let number = things.context as u32;
    play(session, cuLaunchKernel::ID, 0, number, &args)?;
    let mut args = Vec::new();
    (stream,).put(&mut args);
    let result = play(session, cuStreamSynchronize::ID, FRAME_WAIT, number, &args)?;
    sessions.judge(tally, result)?;
    Ok(())
}

/// Frames that say they use staging: where there is none, outside of it, longer than it.
pub fn staging(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    use cuda_api::calls::copy::row::{cuMemcpyDtoH_v2, cuMemcpyHtoD_v2};
    use cuda_api::calls::entry::row::vgpuImageData;
    use cuda_api::wire::{Bulk, Fill};
    const STAGING: usize = 64 << 10;
    let mut tally = Tally::default();
    for with_staging in [false, true] {
        let mut sessions = Sessions::new(path, if with_staging { STAGING } else { 0 });
        let offsets: Vec<u64> = EDGES.into_iter().chain((0..40).map(|_| random.nasty())).collect();
        for (i, offset) in offsets.into_iter().enumerate() {
            if until.is_over() && i > 8 {
                break;
            }
            let len = match random.below(3) {
                0 => random.nasty(),
                1 => DEVICE_BYTES as u64,
                _ => 4096,
            };
            let (session, things) = sessions.get()?;
            let number = things.context as u32;
            let mut args = Vec::new();
            let call = match random.below(3) {
                0 => {
                    (things.memory, len as usize, Bulk::Staged { offset, len }).put(&mut args);
                    cuMemcpyHtoD_v2::ID
                }
                1 => {
                    (things.memory, len as usize, Fill::Staged { offset, len }).put(&mut args);
                    cuMemcpyDtoH_v2::ID
                }
                _ => {
                    (random.nasty(), 0u64, len, Bulk::Staged { offset, len }).put(&mut args);
                    vgpuImageData::ID
                }
            };
            let result = play(session, call, FRAME_WAIT | FRAME_BULK, number, &args)?;
            let inside = offset.checked_add(len).is_some_and(|end| with_staging && end <= STAGING as u64);
            ensure!(
                result != Some(0) || inside || len == 0,
                "staging of {} bytes was used at {offset:#x} for {len:#x} bytes by call {call:#x}",
                if with_staging { STAGING } else { 0 }
            );
            sessions.judge(&mut tally, result)?;
        }
    }
    Ok(tally)
}

/// Wire ids under which no call travels: local ones, refused ones (those that would open what other APIs and pools share among them),
/// and numbers that mean nothing. Each ends the session.
pub fn unknown(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut sessions = Sessions::new(path, 0);
    let is_shared =
        |name: &str| name.contains("Ipc") || name.contains("Shareable") || name.contains("Import");
    let (mut ids, rest): (Vec<&cuda_api::CallInfo>, Vec<_>) = cuda_api::all_calls()
        .filter(|row| !matches!(row.class, Class::Posted | Class::Sync) || row.over.is_some())
        .partition(|row| is_shared(row.name));
    ensure!(ids.len() >= 4, "the calls that share between processes are not found in the table");
    let must = ids.len();
    ids.extend(rest);
    let travelling: Vec<u32> = rows::all().iter().map(|row| row.id).collect();
    let noise: Vec<u32> = (0..400).map(|_| random.nasty() as u32).collect();
    for (i, id) in ids.iter().map(|row| row.id).chain(noise).enumerate() {
        if travelling.contains(&id) {
            continue;
        }
        if until.is_over() && i >= must {
            break;
        }
        let (session, things) = sessions.get()?;
        let token = random.bytes(64);
        let result = play(session, id, FRAME_WAIT, things.context as u32, &token)?;
        let ended = sessions.judge(&mut tally, result)?;
        ensure!(
            ended == Ended::Yes(DEATH_MALFORMED),
            "call {id:#x} does not travel, but: {ended:?}, {result:?}"
        );
    }
    Ok(tally)
}

/// Tickets that repeat, fall, are 0 or wrap; frames of the longest length and one word more.
pub fn tickets(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    use cuda_api::calls::context::row::cuCtxGetLimit;
    let mut tally = Tally::default();
    let mut limit = Vec::new();
    (0u32,).put(&mut limit);
    let orders: [&[u64]; 8] = [
        &[0],
        &[5, 5],
        &[5, 4],
        &[CASE_TICKETS, 1],
        &[u64::MAX, 0],
        &[u64::MAX, 1],
        &[u64::MAX - 1, u64::MAX, u64::MAX],
        &[1 << 63, (1 << 63) - 1],
    ];
    for order in orders {
        let mut session = Session::open(path)?;
        for ticket in order {
            session.push(&frame(cuCtxGetLimit::ID, FRAME_WAIT, 0, *ticket, &limit))?;
        }
        session.drained(CALL_LIMIT);
        let ended = session.judge()?;
        ensure!(ended == Ended::Yes(DEATH_MALFORMED), "tickets {order:?}: {ended:?}");
        tally.count("ended as malformed");
    }
    // A ticket from the far future, posted, holds back nobody; two rings with the same ticket are the guest's own loss.
    while !until.is_over() {
        let mut session = Session::open(path)?;
        let mut ticket = 0;
        for _ in 0..20 {
            ticket += 1 + random.word() % (1 << random.below(58));
            let waits = if random.once_in(2) { FRAME_WAIT } else { 0 };
            session.push(&frame(cuCtxGetLimit::ID, waits, 0, ticket, &limit))?;
        }
        session.drained(CALL_LIMIT);
        ensure!(session.judge()? == Ended::No, "rising tickets ended the session");
        tally.count("taken");
        session.close()?;
    }
    for words in [-1i64, 0, 1, 2] {
        let mut session = Session::open(path)?;
        let len = i64::from(FRAME_BYTES_MAX) - 24 + 8 * words;
        let args = vec![0; usize::try_from(len)?];
        session.push(&frame(cuCtxGetLimit::ID, FRAME_WAIT, 0, 9, &args))?;
        // Its space comes back before it is looked at: the end is what is waited for.
        session.reply(9, CALL_LIMIT);
        // Too long as a frame, or as the call's fields: either way malformed.
        ensure!(session.judge()? == Ended::Yes(DEATH_MALFORMED), "a frame of {len} bytes of arguments");
        tally.count("ended as malformed");
    }
    const _: () = assert!(FRAME_BYTES_MAX < FRAME_AREA_BYTES);
    Ok(tally)
}
