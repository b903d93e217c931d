//! One line on standard error for each slow step, with the seconds since the start.

use std::sync::OnceLock;
use std::time::Instant;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Starts the clock; otherwise the first step does.
pub fn begin() {
    start();
}

/// Says what is being done now.
pub fn step(what: impl std::fmt::Display) {
    eprintln!("[{:7.1} s] {what}", start().elapsed().as_secs_f64());
}
