//! The ring's header: heads that run away, and everything that only the host should write.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cuda_api::Call;
use cuda_api::calls::context::row::cuCtxGetLimit;
use cuda_api::wire::Wire;
use pci_layout::event::DEATH_MALFORMED;
use pci_layout::ring::{
    FRAME_AREA_BYTES, FRAME_WAIT, HEADER_BYTES, OFF_ASYNC_ERROR, OFF_BULK_DONE, OFF_GUEST_PARKED, OFF_HEAD,
    OFF_HOST_PARKED, OFF_REPLY, OFF_TAIL,
};

use super::Until;
use super::session::{Ended, Session, frame};
use crate::{Random, Tally};

const AREA: u64 = FRAME_AREA_BYTES as u64;
/// How long a worker may take to look.
const LOOK: Duration = Duration::from_millis(300);

fn limit_frame(ticket: u64) -> Vec<u8> {
    let mut args = Vec::new();
    (0u32,).put(&mut args);
    frame(cuCtxGetLimit::ID, FRAME_WAIT, 0, ticket, &args)
}

/// Heads that no producer publishes.
pub fn indices(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    let fixed = [
        AREA + 8,
        AREA + 1,
        2 * AREA,
        1,
        4,
        12,
        u64::MAX,
        u64::MAX - 7,
        1 << 63,
        i64::MAX as u64,
        AREA,
        8,
        16,
    ];
    // From position 0, over an area of zeros: nothing published here is a frame.
    for (i, head) in fixed.into_iter().chain((0..200).map(|_| random.nasty().max(1))).enumerate() {
        if until.is_over() && i >= fixed.len() {
            break;
        }
        let mut session = Session::open(path)?;
        session.ring.publish(head);
        session.kick();
        let ended = session.judge()?;
        let ended = if ended == Ended::No { after_a_look(&mut session)? } else { ended };
        ensure!(ended == Ended::Yes(DEATH_MALFORMED), "head {head:#x} over nothing: {ended:?}");
        tally.count("ended as malformed");
    }
    // Backwards, after frames were taken.
    for back in [8, 32, AREA] {
        let mut session = Session::open(path)?;
        for _ in 0..10 {
            let ticket = session.ticket();
            session.push(&limit_frame(ticket))?;
        }
        ensure!(session.drained(LOOK), "ten frames are not taken");
        session.ring.publish(session.ring.head.saturating_sub(back));
        session.kick();
        let ended = after_a_look(&mut session)?;
        ensure!(ended == Ended::Yes(DEATH_MALFORMED), "head {back} bytes back: {ended:?}");
        tally.count("ended as malformed");
    }
    // The host's own words, overwritten: it must not believe them.
    while !until.is_over() || tally.of("taken") < 20 {
        let mut session = Session::open(path)?;
        for _ in 0..50 {
            let ticket = session.ticket();
            session.push(&limit_frame(ticket))?;
            scribble(&session, random);
            if session.dead().is_some() {
                break;
            }
        }
        // `push` reads the tail to wait for room, and that is scribbled on too: a lie there spoils the producer's own frames only.
        count(&mut tally, session.judge()?)?;
        end(session)?;
    }
    Ok(tally)
}

/// Overwrites a word of the header that is the host's.
fn scribble(session: &Session, random: &mut Random) {
    let offsets = [OFF_TAIL, OFF_REPLY, OFF_BULK_DONE, OFF_ASYNC_ERROR, OFF_HOST_PARKED, OFF_GUEST_PARKED];
    let offset = random.pick(&offsets) as usize;
    // A tail ahead of the head would only make our own producer wait for ever.
    let value =
        if offset == OFF_TAIL as usize { random.below(session.ring.head + 1) } else { random.nasty() };
    session.ring.memory.word(offset).store(value, Ordering::SeqCst);
}

/// How a session stands once its worker has had time to look at the spoilt ring.
fn after_a_look(session: &mut Session) -> Result<Ended> {
    let begin = Instant::now();
    while session.dead().is_none() && begin.elapsed() < LOOK * 10 {
        session.kick();
        std::thread::sleep(Duration::from_millis(1));
    }
    session.judge()
}

fn count(tally: &mut Tally, ended: Ended) -> Result<()> {
    match ended {
        Ended::No => tally.count("taken"),
        Ended::Yes(DEATH_MALFORMED) => tally.count("ended as malformed"),
        Ended::Yes(reason) => {
            ensure!(false, "the worker ended with reason {reason}");
        }
        Ended::Stuck => tally.count("busy with what they asked for"),
    }
    Ok(())
}

fn end(session: Session) -> Result<()> {
    if session.dead().is_none() { session.close() } else { Ok(()) }
}

/// A second thread rewrites frames and header while the worker reads them.
pub fn moving(path: &Path, random: &mut Random, until: Until) -> Result<Tally> {
    let mut tally = Tally::default();
    while !until.is_over() || tally.cases < 5 {
        let (mut session, things) = Session::with_things(path)?;
        session.add_staging(64 << 10)?;
        let stop = AtomicBool::new(false);
        let seed = random.word();
        let memory = &session.ring.memory;
        // The frame area is filled with good frames once; from then on its words flicker between what they were and noise.
        let mut args = Vec::new();
        (0u32,).put(&mut args);
        let mut position = 0;
        let mut ticket = 1 << 33;
        while position < AREA / 2 {
            ticket += 1;
            let bytes = frame(cuCtxGetLimit::ID, 0, things.context as u32, ticket, &args);
            session.ring.write_at(position, &bytes);
            position += bytes.len() as u64;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let ahead = HEADER_BYTES as usize + 8 * random.below(AREA / 16) as usize;
                    let word = memory.word(ahead);
                    let was = word.swap(random.nasty(), Ordering::Relaxed);
                    if random.once_in(64) {
                        std::thread::yield_now();
                    }
                    word.store(was, Ordering::Relaxed);
                    if random.once_in(256) {
                        memory.half(OFF_HOST_PARKED as usize).store(random.word() as u32, Ordering::Relaxed);
                    }
                }
            });
            let mut head = 0;
            while head < position && session.dead().is_none() {
                head += 32 * (1 + random.below(8));
                memory.word(OFF_HEAD as usize).store(head.min(position), Ordering::SeqCst);
                session.kick();
                std::thread::sleep(Duration::from_micros(random.below(200)));
            }
            let begin = Instant::now();
            while session.dead().is_none() && begin.elapsed() < LOOK && session.ring.tail() < position {
                session.kick();
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        count(&mut tally, session.judge()?)?;
        end(session)?;
    }
    Ok(tally)
}
