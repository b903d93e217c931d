//! The thread that brings managed variables into line while the program makes no call: it may be looking at one until a kernel that
//! still runs has written it.
//!
//! Every millisecond while something moves or the program makes calls, more and more rarely otherwise, and never for more than a
//! twentieth of the time. It ends with the last variable, and with the session.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::variables;
use crate::objects::lock;
use crate::process::Process;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(32);
/// A pause is at least so many times as long as what was done before it.
const SHARE: u32 = 20;

static RUNNING: Mutex<bool> = Mutex::new(false);
/// The program has made a call that travels since this was last looked at.
static CALLED: AtomicBool = AtomicBool::new(false);

/// The program makes a call.
pub fn called() {
    CALLED.store(true, Ordering::Relaxed);
}

/// Starts the thread where it does not run. Without it variables are in line after calls only.
pub fn start(process: &'static Process) {
    let mut running = lock(&RUNNING);
    if *running {
        return;
    }
    // The program's signals are for the program's threads.
    let before = crate::host_function::block_signals();
    let thread = std::thread::Builder::new().name("vgpu-managed".into()).spawn(move || watch(process));
    crate::host_function::restore_signals(&before);
    match thread {
        Ok(_) => *running = true,
        Err(error) => crate::log::say(|| {
            format!(
                "no thread for managed variables, which kernels' writes reach with the next call only: {error}"
            )
        }),
    }
}

fn watch(process: &'static Process) {
    crate::thread::forbid_calls();
    let mut pause = SHORTEST;
    loop {
        std::thread::sleep(pause);
        {
            let mut running = lock(&RUNNING);
            if !variables::exist() || process.alive().is_err() {
                *running = false;
                return;
            }
        }
        let begun = Instant::now();
        let called = CALLED.swap(false, Ordering::Relaxed);
        let moved = variables::push() | variables::pull();
        pause = next(pause, called || moved, begun.elapsed());
    }
}

fn next(pause: Duration, busy: bool, took: Duration) -> Duration {
    let wanted = if busy { SHORTEST } else { (pause * 2).min(LONGEST) };
    wanted.max(took * SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_more_rarely_where_nothing_happens_or_looking_takes_long() {
        let ms = Duration::from_millis;
        assert_eq!(next(ms(16), true, Duration::ZERO), ms(1));
        assert_eq!(next(ms(1), false, Duration::ZERO), ms(2));
        assert_eq!(next(ms(32), false, Duration::ZERO), ms(32));
        assert_eq!(next(ms(1), true, ms(30)), ms(600));
        assert_eq!(next(ms(600), true, ms(1)), ms(20));
    }
}
