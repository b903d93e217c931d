//! Sessions and rings over the local transport, against a daemon that consumes the rings for real.

#![allow(clippy::cast_possible_truncation, reason = "patterns are cut on purpose")]
mod daemon;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use daemon::*;
use pci_layout::event::{DEATH_MALFORMED, DEATH_SHUTDOWN};
use pci_layout::regs;
use transport::{
    AreaError, CallError, ControlError, Device, FRAME_BULK, Kind, OpenError, OpenParams, Ring, STAGING_BYTES,
    Session, SessionState,
};

const PARAMS: OpenParams<'_> = OpenParams { fingerprint: [7; 16], env: b"CUDA_CACHE_DISABLE=1\0" };

fn start() -> (Daemon, Session) {
    let daemon = Daemon::start(Config::default());
    let session = Device::open_local(daemon.path()).unwrap().open_session(&PARAMS).unwrap();
    (daemon, session)
}

fn echo(session: &Session, ring: &mut Ring, args: &[u8]) -> Result<Vec<u8>, CallError> {
    ring.call(ECHO, 0, 0, session.next_ticket(), |frame| frame.put(args), |_, reply| reply.bytes().to_vec())
}

fn number(session: &Session, ring: &mut Ring, call: u32, value: u64) -> Result<u32, CallError> {
    ring.call(call, 0, 0, session.next_ticket(), |frame| frame.put_u64(value), |result, _| result)
}

fn post(session: &Session, ring: &mut Ring, call: u32, value: u64) -> Result<(), CallError> {
    ring.post(call, 0, 0, session.next_ticket(), |frame| frame.put_u64(value))
}

/// Waits for something that another thread does soon.
fn soon(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !what() {
        assert!(Instant::now() < end, "it never came");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_session_opens_and_tells_what_it_knows() {
    let daemon = Daemon::start(Config::default());
    let device = Device::open_local(daemon.path()).unwrap();
    assert_eq!(device.kind(), Kind::Local);
    assert_eq!(device.info().unwrap(), daemon.shared.config.info, "three slices, the last one shorter");
    assert_eq!(device.regs().unwrap()[regs::TABLE_FINGERPRINT as usize], 7);
    let session = device.open_session(&PARAMS).unwrap();
    assert_eq!(session.state(), SessionState::Live);
    assert_eq!((session.slot(), session.capabilities()), (77, regs::CAP_MAP_GUEST_PAGES));
    assert_eq!(*daemon.shared.env.lock().unwrap(), PARAMS.env);
    assert_eq!(session.device_info().unwrap(), daemon.shared.config.info);
    assert_eq!((session.next_ticket(), session.next_ticket()), (1, 2));
}

#[test]
fn opening_fails_for_the_reason_it_fails_for() {
    let open = |config| {
        let daemon = Daemon::start(config);
        Device::open_local(daemon.path()).unwrap().open_session(&PARAMS).unwrap_err()
    };
    let missing = Path::new("/nonexistent/vgpu.sock");
    assert_eq!(
        Device::open_local(missing).unwrap_err(),
        OpenError::NotFound { path: missing.display().to_string() }
    );
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert!(matches!(Device::open_local(&dead), Err(OpenError::NotAnswering(_))));
    assert_eq!(
        open(Config { abi: 99, ..Config::default() }),
        OpenError::AbiMismatch { ours: pci_layout::ABI_VERSION, theirs: 99 }
    );
    assert_eq!(open(Config { fingerprint: [8; 16], ..Config::default() }), OpenError::FingerprintMismatch);
    assert_eq!(
        open(Config { refuse: Some((regs::ERROR_CUDA, 100)), ..Config::default() }),
        OpenError::Refused { error: regs::ERROR_CUDA, cuda_result: 100 }
    );
    assert_eq!(
        open(Config { refuse: Some((regs::ERROR_MEDIATOR_UNAVAILABLE, 0)), ..Config::default() }),
        OpenError::Unavailable { error: regs::ERROR_MEDIATOR_UNAVAILABLE }
    );
}

#[test]
fn calls_are_answered_with_their_own_data() {
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    for len in [0, 8, 64, 4096, 60_000].into_iter().cycle().take(100) {
        let args: Vec<u8> = (0..len).map(|i| (i * 13 + len) as u8).collect();
        assert_eq!(echo(&session, &mut ring, &args).unwrap(), args);
    }
    let copied = ring.call(
        ECHO,
        0,
        0,
        session.next_ticket(),
        |frame| frame.put(b"0123456789abcdef"),
        |_, reply| {
            let mut part = [0; 4];
            assert!(reply.copy_to(10, &mut part));
            assert!(!reply.copy_to(13, &mut part), "16 bytes are all there is");
            part
        },
    );
    assert_eq!(copied, Ok(*b"abcd"));
    assert_eq!(number(&session, &mut ring, FAIL, 700), Ok(700));
    assert_eq!(ring.take_async_error(), None, "who waits is told directly");
}

#[test]
fn posted_calls_arrive_in_order_and_their_first_error_is_kept() {
    let (daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    for value in 1..=10_000 {
        post(&session, &mut ring, ADD, value).unwrap();
    }
    post(&session, &mut ring, FAIL, 700).unwrap();
    post(&session, &mut ring, FAIL, 1).unwrap();
    echo(&session, &mut ring, b"").unwrap();
    assert_eq!(daemon.shared.sum.load(Ordering::Relaxed), 10_000 * 10_001 / 2);
    assert_eq!(session.posted_errors(), 2);
    assert_eq!(ring.take_async_error(), Some((700, FAIL)));
    assert_eq!(ring.take_async_error(), None);
}

#[test]
fn both_sides_sleep_and_are_woken() {
    let (daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    let mut best = Duration::MAX;
    for round in 1..=10 {
        soon(|| daemon.shared.parks.load(Ordering::Relaxed) >= round);
        thread::sleep(Duration::from_millis(1));
        // The host is parked and the guest will be: the call takes longer than anybody spins.
        let start = Instant::now();
        assert_eq!(number(&session, &mut ring, SLEEP, 5), Ok(0));
        best = best.min(start.elapsed());
    }
    assert!(best < Duration::from_millis(40), "woken, not found out after a slice of time: {best:?}");
    assert!(daemon.shared.kicks.load(Ordering::Relaxed) >= 10);
    assert!(daemon.shared.wakes.load(Ordering::Relaxed) >= 10);
}

#[test]
fn a_full_ring_makes_its_poster_wait_and_loses_nothing() {
    // Frames of 32 bytes go in while half of the ring's 256 KiB is free.
    const ROOM: u64 = 128 * 1024 / 32 + 1;
    let (daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    daemon.shared.frozen.store(true, Ordering::SeqCst);
    let posted = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10_000 {
                post(&session, &mut ring, ADD, 1).unwrap();
                posted.fetch_add(1, Ordering::SeqCst);
            }
            echo(&session, &mut ring, b"").unwrap();
        });
        soon(|| posted.load(Ordering::SeqCst) == ROOM);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(posted.load(Ordering::SeqCst), ROOM);
        assert_eq!(daemon.shared.sum.load(Ordering::Relaxed), 0);
        daemon.shared.frozen.store(false, Ordering::SeqCst);
    });
    assert_eq!(daemon.shared.sum.load(Ordering::Relaxed), 10_000);
}

#[test]
fn no_more_frames_wait_than_may() {
    let (daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    number(&session, &mut ring, DEPTH, 3).unwrap();
    daemon.shared.frozen.store(true, Ordering::SeqCst);
    let posted = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1000 {
                post(&session, &mut ring, ADD, 1).unwrap();
                posted.fetch_add(1, Ordering::SeqCst);
            }
            // Any number again.
            number(&session, &mut ring, DEPTH, 0).unwrap();
            for _ in 0..1000 {
                post(&session, &mut ring, ADD, 1).unwrap();
            }
            echo(&session, &mut ring, b"").unwrap();
        });
        soon(|| posted.load(Ordering::SeqCst) == 3);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(posted.load(Ordering::SeqCst), 3);
        daemon.shared.frozen.store(false, Ordering::SeqCst);
    });
    assert_eq!(daemon.shared.sum.load(Ordering::Relaxed), 2000);
}

#[test]
fn a_frame_too_long_is_refused_and_harms_nothing() {
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    assert_eq!(echo(&session, &mut ring, &[0; 65_536]), Err(CallError::FrameTooLong));
    assert_eq!(echo(&session, &mut ring, b"12345678").unwrap(), b"12345678");
}

#[test]
fn a_pipeline_of_chunks_goes_through_staging() {
    const CHUNKS: usize = 4;
    const CHUNK: usize = STAGING_BYTES / CHUNKS;
    const ROUNDS: usize = 12;
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    let (staging, len) = ring.staging().unwrap();
    assert_eq!((len, ring.staging().unwrap().0), (STAGING_BYTES, staging));
    for round in 0..ROUNDS + CHUNKS {
        let chunk = round % CHUNKS;
        // SAFETY: a quarter of the staging buffer, which no bulk frame in flight uses after the wait.
        let at = unsafe { staging.add(chunk * CHUNK) };
        if let Some(done) = round.checked_sub(CHUNKS) {
            ring.wait_bulk(done as u64 + 1).unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { at.add(CHUNK - 1).read_volatile() }, !(done as u8));
        }
        if round < ROUNDS {
            // SAFETY: as above.
            unsafe { at.write_bytes(round as u8, CHUNK) };
            ring.post(INVERT, FRAME_BULK, 0, session.next_ticket(), |frame| {
                frame.put_u64((chunk * CHUNK) as u64);
                frame.put_u64(CHUNK as u64);
            })
            .unwrap();
            assert_eq!(ring.bulk_submitted(), round as u64 + 1);
        }
    }
    assert_eq!(ring.bulk_done(), ROUNDS as u64);
}

#[test]
fn a_dead_session_fails_calls_at_once_and_sleepers_soon() {
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    let mut killer = session.create_ring().unwrap();
    let sleeper = {
        let session = session.clone();
        thread::spawn(move || number(&session, &mut ring, SLEEP, 1500))
    };
    thread::sleep(Duration::from_millis(20));
    post(&session, &mut killer, DIE, u64::from(DEATH_MALFORMED)).unwrap();
    let start = Instant::now();
    assert_eq!(sleeper.join().unwrap(), Err(CallError::Dead(DEATH_MALFORMED)));
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(session.state(), SessionState::Dead(DEATH_MALFORMED));
    assert_eq!(post(&session, &mut killer, ADD, 1), Err(CallError::Dead(DEATH_MALFORMED)));
    assert!(matches!(session.create_ring(), Err(ControlError::Dead(DEATH_MALFORMED))));
}

#[test]
fn a_daemon_that_vanishes_is_a_dead_session() {
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    let start = Instant::now();
    assert_eq!(number(&session, &mut ring, VANISH, 0), Err(CallError::Dead(DEATH_SHUTDOWN)));
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(session.state(), SessionState::Dead(DEATH_SHUTDOWN));
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(number(&session, &mut ring, ADD, 0), Err(CallError::Dead(DEATH_SHUTDOWN)));
    }
    drop(ring);
    assert!(start.elapsed() < Duration::from_millis(1000), "known from now on, not found out 50 ms each");
}

#[test]
fn a_sticky_error_shows_in_the_state() {
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    number(&session, &mut ring, FAULT, 700).unwrap();
    assert_eq!(session.state(), SessionState::Sticky(700));
}

#[test]
fn closing_ends_the_session() {
    let (_daemon, session) = start();
    let mut ring = session.create_ring().unwrap();
    session.close().unwrap();
    assert_eq!(echo(&session, &mut ring, b""), Err(CallError::Dead(DEATH_SHUTDOWN)));
}

#[test]
fn rings_are_given_back_and_used_again() {
    let (daemon, session) = start();
    let open = || daemon.shared.rings_open.load(Ordering::Relaxed);
    let mut rings: Vec<Ring> = (0..20).map(|_| session.create_ring().unwrap()).collect();
    assert_eq!(open(), 20);
    let indices: Vec<u32> = rings.iter().map(Ring::index).collect();
    assert_eq!(indices, (0..20).collect::<Vec<_>>());
    rings.remove(3);
    assert_eq!(open(), 19);
    assert_eq!(session.create_ring().unwrap().index(), 3);
    drop(rings);
    assert_eq!(open(), 0);
}

#[test]
fn a_daemon_that_does_not_take_a_ring_back_hangs_nobody() {
    let (daemon, session) = start();
    let ring = session.create_ring().unwrap();
    daemon.shared.ignore_removal.store(true, Ordering::Relaxed);
    let start = Instant::now();
    drop(ring);
    assert!(start.elapsed() < Duration::from_secs(4));
    daemon.shared.ignore_removal.store(false, Ordering::Relaxed);
    assert_eq!(session.create_ring().unwrap().index(), 1, "the host may still have ring 0");
}

#[test]
fn many_threads_call_at_once() {
    let (daemon, session) = start();
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let session = &session;
            scope.spawn(move || {
                let mut ring = session.create_ring().unwrap();
                for round in 0..500u64 {
                    post(session, &mut ring, ADD, 1).unwrap();
                    let word = (thread << 32 | round).to_le_bytes();
                    assert_eq!(echo(session, &mut ring, &word).unwrap(), word);
                }
            });
        }
    });
    assert_eq!(daemon.shared.sum.load(Ordering::Relaxed), 4000);
    assert_eq!(daemon.shared.rings_open.load(Ordering::Relaxed), 0);
}

#[test]
fn memory_made_to_be_shared_is_shared() {
    const VA: usize = 0x2a_5000_0000;
    let (daemon, session) = start();
    let page = 4096;
    assert_eq!(session.alloc_shared(VA + 1, page), Err(AreaError::Unaligned));
    let at = session.alloc_shared(VA, 16 * page).unwrap();
    assert_eq!(at.addr(), VA);
    assert_eq!(session.alloc_shared(VA + 8 * page, 16 * page), Err(AreaError::AddressTaken));

    let region = session.map_region(VA + 4 * page, 8 * page, 0).unwrap();
    // SAFETY: in the area; the daemon only reads.
    unsafe { at.add(5 * page).write_volatile(0x5a) };
    {
        let regions = daemon.shared.regions.lock().unwrap();
        let (va, mapping) = regions.values().next().unwrap();
        assert_eq!((*va, mapping.len), ((VA + 4 * page) as u64, 8 * page));
        // SAFETY: in the daemon's mapping.
        assert_eq!(unsafe { mapping.base.add(page).read_volatile() }, 0x5a);
    }
    assert_eq!(session.free_shared(VA), Err(AreaError::StillMapped));
    session.unmap_region(region).unwrap();
    assert!(daemon.shared.regions.lock().unwrap().is_empty());

    assert_eq!(
        session.map_region(VA + 8 * page, 9 * page, 0),
        Err(ControlError::NotShareable),
        "past its end"
    );
    let own = vec![0u8; 3 * page];
    let own = own.as_ptr().addr().next_multiple_of(page);
    assert_eq!(session.map_region(own, page, 0), Err(ControlError::NotShareable));

    session.free_shared(VA).unwrap();
    assert_eq!(session.free_shared(VA), Err(AreaError::Unknown));
    session.alloc_shared(VA, page).unwrap();
}
