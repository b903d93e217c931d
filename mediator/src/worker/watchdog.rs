//! Ends the session when one of its kernels runs too long. The thread sleeps until there is a limit, and looks at times of kernels only:
//! no call of the driver's can hold it up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use pci_layout::event;

use super::ring::State;
use super::{die, exit};
use crate::CallHandler;
use crate::vm_page::WorkerPage;

/// CUDA_ERROR_LAUNCH_TIMEOUT.
const LAUNCH_TIMEOUT: u32 = 702;
/// Times are looked at so many times within the limit, but no more often than the shortest and no more rarely than the longest look.
const LOOKS: u32 = 16;
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(250);

/// What the ring threads know of it.
pub(super) struct Watchdog {
    page: Arc<WorkerPage>,
    /// The limit is on, and the thread looks.
    on: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Watchdog {
    pub(super) fn new(page: Arc<WorkerPage>) -> Self {
        Self { page, on: AtomicBool::new(false), thread: OnceLock::new() }
    }

    /// Before each call: the first one under a limit is watched already.
    #[inline]
    pub(super) fn look<H: CallHandler>(&self, handler: &H) {
        if self.page.kernel_timeout().is_some() && !self.on.load(Ordering::Relaxed) {
            self.begin(handler);
        }
    }

    #[cold]
    fn begin<H: CallHandler>(&self, handler: &H) {
        handler.watch_launches(true);
        self.on.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Starts the thread.
pub(super) fn start<H: CallHandler>(state: &Arc<State<H>>) -> std::io::Result<()> {
    let of_thread = Arc::clone(state);
    let started = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || run(&of_thread))?;
    // Once: there is one thread.
    let _ = state.watchdog.thread.set(started.thread().clone());
    if state.watchdog.on.load(Ordering::Acquire) {
        started.thread().unpark();
    }
    Ok(())
}

fn run<H: CallHandler>(state: &State<H>) -> ! {
    let watchdog = &state.watchdog;
    loop {
        while !watchdog.on.load(Ordering::Acquire) {
            std::thread::park();
        }
        let Some(limit) = watchdog.page.kernel_timeout() else {
            state.handler.watch_launches(false);
            watchdog.on.store(false, Ordering::Release);
            // A call that came meanwhile may have found it on.
            watchdog.look(&state.handler);
            continue;
        };
        let ran = state.handler.longest_launch();
        // The page of a stopped VM may be another kernel's by now; what does not come to rest there is ended anyway.
        if ran > limit && !state.gate.is_closed() {
            state.page.set_sticky(LAUNCH_TIMEOUT);
            state.counters.set_sticky(LAUNCH_TIMEOUT);
            state.page.set_dead(event::DEATH_TIMEOUT);
            die(exit::TIMEOUT, &format!("a kernel has been running for {ran:?}, {limit:?} are allowed"));
        }
        std::thread::sleep(limit.checked_div(LOOKS).unwrap_or(LOOK_MAX).clamp(LOOK_MIN, LOOK_MAX));
    }
}
