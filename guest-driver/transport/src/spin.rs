//! How long to look before sleeping.

use core::hint;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The longest look: about what a sleep and a wake cost through a VM, several times over.
const LIMIT_MAX: Duration = Duration::from_micros(100);
/// The longest look for what was said to come soon ([`crate::Ring::expect`]). What takes longer is not much slower for a sleep.
const EXPECTED_MAX: Duration = Duration::from_millis(1);
/// Processors for each thread that looks, where it looks for that long.
const PROCESSORS_PER_LONG_LOOK: usize = 4;
/// The shortest look that is still tried, so that shorter waits are noticed again.
const LIMIT_MIN: Duration = Duration::from_micros(4);
/// Looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 32;

/// Threads of this process that are looking now. More of them than there are processors for keep the host's own
/// threads (local transport) or each other from running.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// Of waits that are too long to look for, every so many-th is looked for all the same.
const TRY_EVERY: u32 = 64;

/// One thread's experience of how long its waits take.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    left_out: u32,
}

impl Spin {
    pub(crate) fn new() -> Self {
        Self { limit: LIMIT_MAX / 2, left_out: 0 }
    }

    /// Whether the last waits were so short that looking is worth what it costs to be told; sometimes in any case.
    pub(crate) fn is_worth_while(&mut self) -> bool {
        if self.limit > LIMIT_MIN {
            return true;
        }
        self.left_out = (self.left_out + 1) % TRY_EVERY;
        self.left_out == 0
    }

    /// Looks until `ready` or the limit, which is `expected` at least where there are processors for it. False: sleep.
    pub(crate) fn look(&mut self, expected: Duration, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        let processors = processors();
        let looking = Looking::new();
        // A long look takes a processor from whoever computes, the host's threads among them (local transport): not on a few.
        let plenty = looking.crowd() * PROCESSORS_PER_LONG_LOOK <= processors;
        let limit = if plenty { self.limit.max(expected.min(EXPECTED_MAX)) } else { self.limit };
        let start = Instant::now();
        loop {
            // Alone on few processors, whoever is waited for may need this one.
            if looking.crowd() * 2 > processors {
                for _ in 0..LOOKS_PER_CLOCK / 4 {
                    if ready() {
                        return true;
                    }
                    hint::spin_loop();
                }
                thread::yield_now();
            } else {
                for _ in 0..LOOKS_PER_CLOCK {
                    if ready() {
                        return true;
                    }
                    hint::spin_loop();
                }
            }
            if start.elapsed() >= limit {
                return ready();
            }
        }
    }

    /// Learns from a wait that slept: a little more looking would have spared a short one, nothing spares a long one.
    pub(crate) fn slept(&mut self, whole_wait: Duration) {
        self.limit = if whole_wait <= LIMIT_MAX {
            (self.limit * 2).max(LIMIT_MIN).min(LIMIT_MAX)
        } else {
            (self.limit / 2).max(LIMIT_MIN)
        };
    }

    /// Learns from a wait that looking sufficed for: the limit recovers slowly from long waits.
    pub(crate) fn paid(&mut self) {
        self.limit = (self.limit + self.limit / 8).min(LIMIT_MAX);
    }
}

/// Counts this thread as looking while it lives.
struct Looking;

impl Looking {
    fn new() -> Self {
        LOOKING.fetch_add(1, Ordering::Relaxed);
        Self
    }

    fn crowd(&self) -> usize {
        LOOKING.load(Ordering::Relaxed)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_make_it_give_up_early_and_short_ones_bring_it_back() {
        let mut spin = Spin::new();
        for _ in 0..10 {
            spin.slept(Duration::from_millis(5));
        }
        assert_eq!(spin.limit, LIMIT_MIN);
        for _ in 0..10 {
            spin.slept(Duration::from_micros(60));
        }
        assert_eq!(spin.limit, LIMIT_MAX);
    }

    #[test]
    fn a_look_ends_with_the_limit_or_what_is_looked_for() {
        let mut spin = Spin::new();
        assert!(!spin.look(Duration::ZERO, || false));
        let mut looks = 0;
        assert!(spin.look(Duration::ZERO, || {
            looks += 1;
            looks == 5
        }));
    }

    #[test]
    fn what_is_expected_is_looked_for_longer() {
        let mut spin = Spin::new();
        if processors() < 2 * PROCESSORS_PER_LONG_LOOK {
            return;
        }
        let (start, expected) = (Instant::now(), LIMIT_MAX * 4);
        assert!(!spin.look(expected, || false));
        assert!(start.elapsed() >= expected);
        let start = Instant::now();
        assert!(spin.look(Duration::from_secs(3600), || start.elapsed() >= LIMIT_MAX * 2));
    }
}
