//! A hostile guest kernel on the control queue of the real daemon, over its vhost-user socket. The daemon lives, answers or leaves
//! alone, and afterwards serves a proper driver.

use std::time::{Duration, Instant};

use hostile::local::Until;
use hostile::queue::{FAMILIES, proper_boot};
use hostile::{Random, Tally};
use whole_stack::artifacts::{self, Profile};
use whole_stack::daemon::{Daemon, Listen};

/// Seconds for all families together.
const SECONDS: u64 = 12;
/// The seed of the first family; the next has the next.
const SEED: u64 = 60;

/// A line about a worker that ended by a signal. Signal 9 is the supervisor's own.
fn crashed(line: &str) -> bool {
    line.contains("Signal(") && !line.contains("Signal(9)")
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn hostile_kernel_harms_only_its_own_vm() {
    let program = artifacts::daemon(Profile::Dev).unwrap_or_else(|e| panic!("{e:?}"));
    let daemon = Daemon::start(&program, Listen::VhostUser, &["--executor", "soft"]).unwrap();
    let (seed, seconds) = (setting("VGPU_HOSTILE_SEED", SEED), setting("VGPU_HOSTILE_SECONDS", SECONDS));
    let shares: u32 = FAMILIES.iter().map(|(_, share, _)| share).sum();
    let explain = |what: &str, error: anyhow::Error| -> ! {
        let log = daemon.log();
        panic!("{what}: {error:?}\nthe daemon's log:\n{}", log[log.len().saturating_sub(60)..].join("\n"))
    };
    let mut all = Tally::default();
    for (i, (name, share, family)) in FAMILIES.iter().enumerate() {
        let seed = seed + i as u64;
        let begin = Instant::now();
        let until = Until::after(Duration::from_secs(seconds) * *share / shares);
        let tally = family(daemon.socket(), &mut Random::new(seed), until)
            .unwrap_or_else(|e| explain(&format!("{name}, seed {seed}"), e));
        println!("{name}, seed {seed}, {:.1} s: {tally}", begin.elapsed().as_secs_f32());
        all.add(&tally);
        proper_boot(daemon.socket(), 1 << 40 | seed).unwrap_or_else(|e| explain(&format!("after {name}"), e));
    }
    println!("all: {all}");
    let crashed: Vec<String> =
        daemon.log().into_iter().filter(|l| l.contains("panicked") || crashed(l)).collect();
    assert!(crashed.is_empty(), "something has crashed:\n{}", crashed.join("\n"));
    assert!(all.cases > 1000, "hardly anything was played: {all}");
    let totals = daemon.stop().unwrap();
    println!("{totals}");
    assert_eq!(totals.get("sessions_open"), Some(0), "{totals}");
}
