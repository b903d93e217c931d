//! What a posted call costs its caller, and how long a call takes that waits, over the local transport with the host's
//! thread in the same process. `cargo run --release -p transport --example latency`
//!
//! Medians and 99th percentiles over single calls where clocks allow, means over batches where a call is too short.

#![allow(clippy::cast_possible_truncation, reason = "percentiles")]
#[path = "../tests/daemon/mod.rs"]
mod daemon;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use daemon::{ADD, Config, Daemon, ECHO};
use transport::{Device, OpenParams, Ring, Session};

/// As many arguments as a kernel launch has: function, stream, grid, block, shared memory, a few parameters.
const ARGS: [u64; 12] = [0x55; 12];
/// Frames that fit half the ring, so that no post waits for space.
const BATCH: usize = 800;

struct Bench {
    _daemon: Daemon,
    shared: std::sync::Arc<daemon::Shared>,
    session: Session,
    ring: Ring,
}

impl Bench {
    fn new(spin: Duration) -> Self {
        let daemon = Daemon::start(Config { spin, ..Config::default() });
        let params = OpenParams { fingerprint: [7; 16], env: b"" };
        let session = Device::open_local(daemon.path()).and_then(|device| device.open_session(&params));
        let session = session.expect("the daemon above answers");
        let ring = session.create_ring().expect("the first ring");
        Self { shared: std::sync::Arc::clone(&daemon.shared), _daemon: daemon, session, ring }
    }

    fn post(&mut self) {
        let ticket = self.session.next_ticket();
        let posted = self.ring.post(ADD, 0, 0, ticket, |frame| {
            for arg in ARGS {
                frame.put_u64(arg);
            }
        });
        posted.expect("alive");
    }

    fn call(&mut self) {
        let ticket = self.session.next_ticket();
        let answered = self.ring.call(ECHO, 0, 0, ticket, |frame| frame.put_u64(1), |result, _| result);
        assert_eq!(answered, Ok(0));
    }

    /// Mean time of a post in batches that fit the ring, in ns, one value per batch.
    fn posts(&mut self, batches: usize, mut before: impl FnMut(&Self)) -> Vec<f64> {
        let mut times = Vec::new();
        for _ in 0..batches {
            before(self);
            let start = Instant::now();
            for _ in 0..BATCH {
                self.post();
            }
            times.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            self.shared.frozen.store(false, Ordering::SeqCst);
            self.call();
        }
        times
    }

    /// Time of single runs of `what`, in ns.
    fn each(&mut self, runs: usize, pause: Duration, what: fn(&mut Self)) -> Vec<f64> {
        let mut times = Vec::new();
        for _ in 0..runs {
            if !pause.is_zero() {
                thread::sleep(pause);
            }
            let start = Instant::now();
            what(self);
            times.push(start.elapsed().as_nanos() as f64);
        }
        times
    }
}

fn print(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{name:<44} median {:>9.0} ns   best {:>9.0}   p99 {:>9.0}", at(0.5), at(0.0), at(0.99));
}

fn main() {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{processors} processors; frames of {} bytes of arguments, batches of {BATCH}",
        size_of_val(&ARGS)
    );

    let mut polling = Bench::new(Duration::from_secs(3600));
    polling.posts(50, |_| {});
    let idle = polling.posts(500, |bench| {
        bench.shared.frozen.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
    });
    print("post, host leaves the ring alone", idle);
    print("post, host polls and consumes", polling.posts(2000, |_| {}));
    print("call, host polls", polling.each(50_000, Duration::ZERO, Bench::call));
    drop(polling);

    let mut parked = Bench::new(Duration::ZERO);
    parked.posts(50, |_| {});
    let kicks = parked.shared.kicks.load(Ordering::Relaxed);
    print("post and kick, host parked", parked.each(500, Duration::from_millis(2), Bench::post));
    let kicks = parked.shared.kicks.load(Ordering::Relaxed) - kicks;
    println!("{:<44} {kicks} kicks for 500 posts", "");
    print("call, host parked", parked.each(500, Duration::from_millis(2), Bench::call));
}
