//! Since when kernels run, where that is limited.
//!
//! Around each launch the stream writes two words of memory: one when it comes to the launch, one when the launch is over. Between the two
//! the kernel runs (or a graph does, as a whole): what the stream waits for before, other streams, events and the guest among it, is no
//! part of that. Looking at words needs no call of the driver, which might wait for the very kernel that is looked for. Nothing is put
//! into a stream that is being captured, and nothing anywhere while there is no limit.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::Cuda;
use crate::context::Context;
use crate::driver::{Driver, Raw};
use crate::lock::lock;
use crate::thread::Thread;

/// Launches of a context that are not over, at most: who launches more waits, as with a full stream.
const LAUNCHES_MAX: usize = PAGES * MARKERS;
const PAGES: usize = 64;
const MARKERS: usize = 256;
/// How often such a wait looks.
const FULL_LOOK: Duration = Duration::from_micros(100);
/// CU_MEMHOSTREGISTER_PORTABLE.
const REGISTER_PORTABLE: u32 = 1;
/// CU_STREAM_WRITE_VALUE_DEFAULT.
const WRITE_DEFAULT: u32 = 0;
/// CU_STREAM_CAPTURE_STATUS_NONE.
const STATUS_NONE: u32 = 0;

/// The numbers of the launches that have begun and ended here last.
#[derive(Default)]
#[repr(C)]
struct Marker {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A page of them, as it is aligned.
#[repr(C, align(4096))]
struct Page([Marker; MARKERS]);

/// Markers of a context. They stay where they are, and memory, for as long as the process: the device writes into them.
struct Board {
    pages: &'static [Page],
    free: Vec<usize>,
    launches: Vec<Launch>,
}

/// A launch that was not over when it was looked at last.
struct Launch {
    number: u64,
    marker: usize,
    /// When it was first seen to have begun.
    since: Option<Instant>,
}

impl Board {
    fn new(pages: &'static [Page]) -> Self {
        Board { pages, free: (0..LAUNCHES_MAX).collect(), launches: Vec::new() }
    }

    fn marker(&self, at: usize) -> Option<&'static Marker> {
        self.pages.get(at.checked_div(MARKERS)?)?.0.get(at.checked_rem(MARKERS)?)
    }

    /// Looks at all launches: how long the one that has run longest has been running.
    fn look(&mut self, now: Instant) -> Duration {
        let mut longest = Duration::ZERO;
        let mut launches = std::mem::take(&mut self.launches);
        launches.retain_mut(|launch| {
            let Some(marker) = self.marker(launch.marker) else { return false };
            if marker.ended.load(Ordering::Acquire) == launch.number {
                self.free.push(launch.marker);
                return false;
            }
            if marker.begun.load(Ordering::Acquire) == launch.number {
                longest = longest.max(now.saturating_duration_since(*launch.since.get_or_insert(now)));
            }
            true
        });
        self.launches = launches;
        longest
    }
}

/// The launches of a session.
#[derive(Default)]
pub(crate) struct Watchdog {
    on: AtomicBool,
    numbers: AtomicU64,
    boards: Mutex<Boards>,
}

#[derive(Default)]
struct Boards {
    of_contexts: HashMap<u32, Board>,
    /// Memory of contexts that have ended.
    spare: Vec<&'static [Page]>,
}

impl Watchdog {
    /// Launches are marked from now on, or no longer.
    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// How long the launch that has run longest has been running, as far as earlier looks have seen it.
    pub(crate) fn longest(&self) -> Duration {
        let now = Instant::now();
        lock(&self.boards).of_contexts.values_mut().map(|board| board.look(now)).max().unwrap_or_default()
    }

    /// The context has ended, and with it what ran there.
    pub(crate) fn forget_context(&self, context: u32) {
        let mut boards = lock(&self.boards);
        if let Some(board) = boards.of_contexts.remove(&context) {
            boards.spare.push(board.pages);
        }
    }

    /// A marker for a launch in the current context, and the launch's number.
    fn begin(&self, driver: &Driver, context: &Arc<Context>) -> CuResult<(&'static Marker, u64)> {
        loop {
            {
                let mut boards = lock(&self.boards);
                if !boards.of_contexts.contains_key(&context.id) {
                    let pages = boards.spare.pop().unwrap_or_else(pages);
                    register(driver, pages)?;
                    boards.of_contexts.insert(context.id, Board::new(pages));
                }
                if let Some(board) = boards.of_contexts.get_mut(&context.id) {
                    if board.free.is_empty() {
                        board.look(Instant::now());
                    }
                    if let Some((at, marker)) = board.free.pop().and_then(|at| Some((at, board.marker(at)?)))
                    {
                        let number = self.numbers.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                        board.launches.push(Launch { number, marker: at, since: None });
                        return Ok((marker, number));
                    }
                }
            }
            if driver.sticky() != 0 || !context.alive() {
                return Err(CUresult::LAUNCH_OUT_OF_RESOURCES);
            }
            std::thread::sleep(FULL_LOOK);
        }
    }

    /// A launch is not watched after all. Its marker is not used again: something may still write there.
    fn give_up(&self, context: u32, number: u64) {
        if let Some(board) = lock(&self.boards).of_contexts.get_mut(&context) {
            board.launches.retain(|launch| launch.number != number);
        }
    }
}

fn pages() -> &'static [Page] {
    let page = || Page(std::array::from_fn(|_| Marker::default()));
    Box::leak((0..PAGES).map(|_| page()).collect())
}

fn register(driver: &Driver, pages: &'static [Page]) -> CuResult<()> {
    let at: *mut c_void = pages.as_ptr().cast_mut().cast();
    // SAFETY: memory that is never freed, and reached through atomics only.
    match unsafe { driver.cuMemHostRegister_v2(at, size_of_val(pages), REGISTER_PORTABLE) } {
        Err(CUresult::HOST_MEMORY_ALREADY_REGISTERED) => Ok(()),
        other => other,
    }
}

impl Cuda {
    /// Launches something in a stream and, while that is limited, has the stream say when it begins and ends.
    pub(crate) fn watched(
        &self,
        thread: &Thread,
        stream: Raw,
        launch: impl FnOnce() -> CuResult<()>,
    ) -> CuResult<()> {
        // A stream that cannot be asked is the legacy one beside a capture: there the launch fails as well.
        let captures = || self.driver.cuStreamIsCapturing(stream) != Ok((STATUS_NONE,));
        let may_capture = || self.captures.load(Ordering::Relaxed) != 0 && captures();
        if !self.watchdog.on.load(Ordering::Relaxed) || may_capture() {
            return launch();
        }
        let context = thread.context()?;
        let (marker, number) = self.watchdog.begin(self.driver, context)?;
        let write = |word: &AtomicU64| {
            let address = word.as_ptr().expose_provenance() as u64;
            // SAFETY: a word of registered memory that stays for as long as the process.
            unsafe { self.driver.cuStreamWriteValue64_v2(stream, address, number, WRITE_DEFAULT) }
        };
        let outcome = write(&marker.begun).and_then(|()| launch());
        // Where the launch has failed, too: so the marker is free again.
        if may_capture() || write(&marker.ended).is_err() {
            self.watchdog.give_up(context.id, number);
        }
        outcome
    }
}

#[cfg(test)]
#[path = "watchdog/tests.rs"]
mod tests;
