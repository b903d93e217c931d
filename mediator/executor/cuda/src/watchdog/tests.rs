//! Against a library that stands in for the driver, and carries out what it is told to.

use super::*;
use crate::{Services, stand_in};

/// The driver, and how it is told.
struct StandIn {
    cuda: Cuda,
    thread: Thread,
    context: Arc<Context>,
    writes: unsafe extern "C" fn() -> i32,
    carry_out: unsafe extern "C" fn(i32),
    set_capture: unsafe extern "C" fn(u32),
}

impl StandIn {
    fn new(name: &str) -> Self {
        let library = stand_in::library(name, include_str!("stand_in.c"));
        // SAFETY: these are their C signatures; the driver keeps the library for good.
        let (writes, carry_out, set_capture) = unsafe {
            (
                *library.get(b"writes\0").unwrap(),
                *library.get(b"carry_out\0").unwrap(),
                *library.get(b"set_capture\0").unwrap(),
            )
        };
        let (cuda, thread, context) = stand_in::session(library, 1, Services::default());
        cuda.watchdog.set(true);
        StandIn { cuda, thread, context, writes, carry_out, set_capture }
    }

    fn launch(&self) -> CuResult<()> {
        self.cuda.watched(&self.thread, 0, || Ok(()))
    }

    fn carry_out(&self, writes: i32) {
        // SAFETY: it writes markers, which stay.
        unsafe { (self.carry_out)(writes) }
    }

    fn writes(&self) -> i32 {
        // SAFETY: it counts.
        unsafe { (self.writes)() }
    }

    fn set_capture(&self, status: u32) {
        // SAFETY: it stores a number.
        unsafe { (self.set_capture)(status) }
    }

    /// How long the longest launch has been running, a moment after it was looked at before.
    fn longest(&self) -> Duration {
        self.cuda.watchdog.longest();
        std::thread::sleep(Duration::from_millis(2));
        self.cuda.watchdog.longest()
    }
}

#[test]
fn a_launch_runs_from_when_the_stream_comes_to_it_until_it_is_over() {
    let stand_in = StandIn::new("runs");
    stand_in.launch().unwrap();
    stand_in.launch().unwrap();
    assert_eq!(stand_in.writes(), 4);
    // The stream waits for something else.
    assert_eq!(stand_in.longest(), Duration::ZERO);
    stand_in.carry_out(1);
    assert!(stand_in.longest() >= Duration::from_millis(2));
    // The first is over, the second has its own time.
    let first = stand_in.longest();
    stand_in.carry_out(2);
    stand_in.cuda.watchdog.longest();
    let begin = Instant::now();
    let second = stand_in.cuda.watchdog.longest();
    assert!(second <= begin.elapsed() + Duration::from_millis(1) || second < first, "{second:?} {first:?}");
    stand_in.carry_out(1);
    assert_eq!(stand_in.longest(), Duration::ZERO);
}

#[test]
fn nothing_is_put_into_a_capture_and_nothing_anywhere_without_a_limit() {
    let stand_in = StandIn::new("capture");
    stand_in.cuda.captures.store(1, Ordering::Relaxed);
    stand_in.set_capture(1);
    stand_in.launch().unwrap();
    assert_eq!(stand_in.writes(), 0);
    // Another stream's capture.
    stand_in.set_capture(0);
    stand_in.launch().unwrap();
    assert_eq!(stand_in.writes(), 2);
    stand_in.cuda.watchdog.set(false);
    stand_in.launch().unwrap();
    assert_eq!(stand_in.writes(), 2);
}

#[test]
fn a_launch_that_fails_says_so_and_is_over() {
    let stand_in = StandIn::new("fails");
    let failed = stand_in.cuda.watched(&stand_in.thread, 0, || Err(CUresult::LAUNCH_OUT_OF_RESOURCES));
    assert_eq!((failed, stand_in.writes()), (Err(CUresult::LAUNCH_OUT_OF_RESOURCES), 2));
    stand_in.carry_out(2);
    assert_eq!(stand_in.longest(), Duration::ZERO);
}

#[test]
fn markers_are_used_again_and_end_with_their_context() {
    let stand_in = StandIn::new("again");
    for _ in 0..LAUNCHES_MAX {
        stand_in.launch().unwrap();
    }
    // There is no room for another one before one of them is over.
    std::thread::scope(|scope| {
        let waits = scope
            .spawn(|| stand_in.cuda.watchdog.begin(stand_in.cuda.driver, &stand_in.context).map(|(_, n)| n));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waits.is_finished());
        stand_in.carry_out(3);
        assert_eq!(waits.join().unwrap(), Ok(LAUNCHES_MAX as u64 + 1));
    });
    assert!(stand_in.longest() > Duration::ZERO, "the second one runs");
    stand_in.cuda.watchdog.forget_context(stand_in.context.id);
    assert_eq!(stand_in.longest(), Duration::ZERO);
    // The memory serves the next one, which the driver may know still.
    stand_in.launch().unwrap();
    assert_eq!(lock(&stand_in.cuda.watchdog.boards).spare.len(), 0);
}
