//! Hostile processes on the local socket, while a well-behaved one computes. The daemon lives, every session that ends ends for
//! a logged reason, and the well-behaved one is right throughout. Seeds are fixed; VGPU_HOSTILE_SEED and VGPU_HOSTILE_SECONDS
//! change what is played and for how long.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::wheels::Toolkit;
use hostile::local::{FAMILIES, Until, churn};
use hostile::{Random, Tally};
use whole_stack::artifacts::Profile;
use whole_stack::daemon::Daemon;
use whole_stack::local::Local;
use whole_stack::programs::Programs;
use whole_stack::vm::Stack;

/// Seconds for all families together.
const SECONDS: u64 = 30;
/// The seed of the first family; the next has the next.
const SEED: u64 = 20;

/// A line about a worker that ended by a signal. Signal 9 is the supervisor's own.
fn crashed(line: &str) -> bool {
    line.contains("Signal(") && !line.contains("Signal(9)")
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What is attacked, in a folder of its own: the well-behaved program starts over and over, and another build must not take its
/// files away meanwhile.
fn stack(folder: &Path) -> Stack {
    let built = Stack::build(Profile::Dev, Toolkit::Cuda13).unwrap_or_else(|e| panic!("{e:?}"));
    let copy = |from: PathBuf| {
        let to = folder.join(from.file_name().unwrap());
        std::fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        to
    };
    copy(built.libcuda.join("libcuda.so.1"));
    for program in ["driver_api", "processes"] {
        copy(built.programs.path(program));
    }
    let programs = Programs { folder: folder.to_owned(), ..built.programs };
    Stack { daemon: copy(built.daemon), libcuda: folder.to_owned(), programs }
}

/// Tells a loop to stop, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sessions that have died by their own doing. (Of so many the log does not tell each.)
fn deaths(daemon: &Daemon) -> u64 {
    daemon.totals().unwrap_or_else(|e| panic!("{e:?}")).get("sessions_died").unwrap()
}

/// The end of a log, for messages.
fn tail(daemon: &Daemon) -> String {
    let log = daemon.log();
    log[log.len().saturating_sub(60)..].join("\n")
}

/// Runs the well-behaved program over and over until told to stop; how often it was right.
fn behave(local: &Local, stop: &AtomicBool, rounds: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let said =
            local.check("driver_api", &[]).unwrap_or_else(|e| panic!("the well-behaved program: {e:?}"));
        assert!(said.contains("driver API: all right"), "{said}");
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn hostile_processes_harm_nobody_but_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, local) = stack(folder.path()).start_local(&[]).unwrap();
    let (seed, seconds) = (setting("VGPU_HOSTILE_SEED", SEED), setting("VGPU_HOSTILE_SECONDS", SECONDS));
    let shares: u32 = FAMILIES.iter().map(|(_, share, _)| share).sum();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let good = scope.spawn(|| behave(&local, &stop, &rounds));
        let _stop = Stop(&stop);
        for (i, (name, share, family)) in FAMILIES.iter().enumerate() {
            let seed = seed + i as u64;
            let time = Duration::from_secs(seconds) * *share / shares;
            let (begin, before) = (Instant::now(), deaths(&daemon));
            let played = family(daemon.socket(), &mut Random::new(seed), Until::after(time));
            let tally = played.unwrap_or_else(|e| {
                panic!("{name}, seed {seed}: {e:?}\nthe daemon's log:\n{}", tail(&daemon))
            });
            println!("{name}, seed {seed}, {:.1} s: {tally}", begin.elapsed().as_secs_f32());
            // Each is logged before its connection ends, which the family has waited for; the log's reader may be behind.
            let ended = tally.of("ended as malformed") + tally.of("ended for another reason");
            let waited = Instant::now();
            while deaths(&daemon) - before < ended && waited.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let counted = deaths(&daemon) - before;
            assert!(counted >= ended, "{name}: {ended} sessions ended, {counted} deaths were counted");
            // A dead worker that nobody asked to end has crashed, whatever it was sent.
            assert!(!good.is_finished(), "the well-behaved program has failed");
            all.add(&tally);
        }
    });
    println!("all: {all}; {} rounds of the well-behaved program", rounds.load(Ordering::Relaxed));
    let crashed: Vec<String> =
        daemon.log().into_iter().filter(|l| l.contains("panicked") || crashed(l)).collect();
    assert!(crashed.is_empty(), "workers have crashed:\n{}", crashed.join("\n"));
    assert!(rounds.load(Ordering::Relaxed) >= 3, "the well-behaved program hardly ran");
    assert!(all.cases > 2000, "hardly anything was played: {all}");

    let taken = churn::exhaustion(daemon.socket()).unwrap_or_else(|e| panic!("{e:?}\n{}", tail(&daemon)));
    println!("exhaustion: {taken}");
    let said = local.check("driver_api", &[]).unwrap();
    assert!(said.contains("driver API: all right"), "{said}");
    let totals = daemon.stop().unwrap();
    println!("{totals}");
    assert_eq!(totals.get("sessions_open"), Some(0), "{totals}");
}

#[test]
fn a_program_that_corrupts_its_own_rings_ends_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (daemon, local) = stack(folder.path()).start_local(&[]).unwrap();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = deaths(&daemon);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| behave(&local, &stop, &rounds));
        let _stop = Stop(&stop);
        // What it reads itself is nonsense, over which its own library may fall.
        let corrupt = local.spawn("processes", &["corrupt"]).unwrap();
        let ended = whole_stack::local::finish(corrupt, Duration::from_secs(60))
            .unwrap_or_else(|e| panic!("{e:?}\nthe daemon's log:\n{}", tail(&daemon)));
        println!("{}", ended.status);
        let begin = Instant::now();
        while rounds.load(Ordering::Relaxed) < 2 && begin.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!good.is_finished() && rounds.load(Ordering::Relaxed) >= 2, "{}", tail(&daemon));
    });
    assert!(deaths(&daemon) > before, "the daemon did not end the session:\n{}", tail(&daemon));
    let crashed: Vec<String> =
        daemon.log().into_iter().filter(|l| l.contains("panicked") || crashed(l)).collect();
    assert!(crashed.is_empty(), "workers have crashed:\n{}", crashed.join("\n"));
}
