//! Signals and the heartbeat: one thread that sleeps until either is due.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::pipe;

use crate::totals::Totals;

/// Time between two heartbeat lines.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Starts the thread, which ends with the process. `end_daemon` is called for SIGTERM and SIGINT, `profiles` for SIGUSR1,
/// `toggle_suspend` for SIGUSR2: it must not wait for long, like the others.
///
/// # Errors
/// A signal cannot be caught, or the thread not be started.
pub fn start(
    end_daemon: impl Fn() + Send + 'static,
    totals: impl Fn() -> Totals + Send + 'static,
    profiles: impl Fn() + Send + 'static,
    toggle_suspend: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let (end, end_writer) = UnixStream::pair()?;
    let (report, report_writer) = UnixStream::pair()?;
    let (suspend, suspend_writer) = UnixStream::pair()?;
    for reader in [&end, &report, &suspend] {
        reader.set_nonblocking(true)?;
    }
    pipe::register(SIGTERM, end_writer.try_clone()?)?;
    pipe::register(SIGINT, end_writer)?;
    pipe::register(SIGUSR1, report_writer)?;
    pipe::register(SIGUSR2, suspend_writer)?;
    thread::Builder::new().name("watch".into()).spawn(move || {
        let every = Timespec { tv_sec: i64::try_from(HEARTBEAT.as_secs()).unwrap_or(60), tv_nsec: 0 };
        loop {
            let mut ready = [&end, &report, &suspend].map(|signal| PollFd::new(signal, PollFlags::IN));
            match poll(&mut ready, Some(&every)) {
                Ok(0) => log::info!("alive; {}", totals()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    log::error!("waiting for signals: {error}; ending");
                    end_daemon();
                    return;
                }
            }
            if drained(&report) {
                profiles();
                log::info!("totals: {}", totals());
            }
            if drained(&suspend) {
                toggle_suspend();
            }
            if drained(&end) {
                log::info!("asked to end");
                end_daemon();
            }
        }
    })?;
    Ok(())
}

/// Empties a signal's pipe; whether there was something in it.
fn drained(mut pipe: &UnixStream) -> bool {
    let mut any = false;
    while matches!(pipe.read(&mut [0; 64]), Ok(1..)) {
        any = true;
    }
    any
}
