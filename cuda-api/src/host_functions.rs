//! Functions of the guest's that the device calls for: host functions and callbacks in streams, host nodes of graphs,
//! destructors of user objects.
//!
//! They are the guest program's own code, so a thread of the guest's runs them. It has a ring to itself, in which it
//! waits for the next one (`vgpuNextHostFunction`) and says with the same call that it is done with the last. The device
//! waits for that word, so that stream order is kept. A function is named by a number of the guest's choosing, which
//! nobody here looks into; a run by a number of ours.
//!
//! Whatever a guest says or does not say ends or delays its own streams only: a run that nobody acknowledges holds the
//! stream that it is in.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used)]

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::types::CUresult;

/// Words without an answer (destructors) that may wait for the guest: it can make no more user objects than that.
const WAITING_MAX: usize = 1 << 18;

/// What goes on when a run is acknowledged.
pub type Done = Box<dyn FnOnce() + Send>;

/// What the guest is to run next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Next {
    /// The run, to be acknowledged; 0: nothing is to be run, or nobody waits for it.
    pub run: u64,
    /// The function, by the guest's number.
    pub token: u64,
    /// What a callback is told, a CUresult.
    pub status: u32,
    /// The function will not be called for again: what is left of it is to be given back.
    pub gone: bool,
}

struct Request {
    token: u64,
    status: u32,
    gone: bool,
    done: Option<Done>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Request>,
    /// What the guest has and has not acknowledged, by run.
    running: HashMap<u64, Done>,
    last_run: u64,
    paused: bool,
    closed: bool,
}

/// The functions of a session that wait for the guest.
///
/// Lock order: its lock is the last; nothing is called while it is held.
#[derive(Default)]
pub struct HostFunctions {
    state: Mutex<State>,
    came: Condvar,
}

impl HostFunctions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a function run, and `done` called once it has been. `done` is dropped instead where the session ends first.
    pub fn ask(&self, token: u64, status: CUresult, done: Done) {
        self.put(Request { token, status: status.0, gone: false, done: Some(done) });
    }

    /// Has a function run and does not wait for it.
    pub fn tell(&self, token: u64, status: CUresult) {
        self.put(Request { token, status: status.0, gone: false, done: None });
    }

    /// As [`HostFunctions::ask`], and waits until the function has been run or the session ends.
    pub fn run(&self, token: u64, status: CUresult) {
        let (done, ran) = channel();
        self.ask(
            token,
            status,
            Box::new(move || {
                // Nobody listens any more once this returns.
                let _ = done.send(());
            }),
        );
        // An error is the end of the session: its work is over as well.
        let _ = ran.recv();
    }

    /// Nothing will call for this function again.
    pub fn gone(&self, token: u64) {
        self.put(Request { token, status: 0, gone: true, done: None });
    }

    fn put(&self, request: Request) {
        let mut state = self.lock();
        if state.closed || (request.done.is_none() && state.waiting.len() >= WAITING_MAX) {
            // Dropped without the lock: a `done` may own anything.
            drop(state);
            return drop(request);
        }
        state.waiting.push_back(request);
        drop(state);
        self.came.notify_one();
    }

    /// The guest is done with a run (0: with none) and waits for the next. An empty answer: it is to ask again.
    pub fn next(&self, done: u64) -> Next {
        let acknowledged = self.lock().running.remove(&done);
        if let Some(done) = acknowledged {
            done();
        }
        let mut state = self.lock();
        loop {
            if state.paused || state.closed {
                return Next::default();
            }
            if let Some(Request { token, status, gone, done }) = state.waiting.pop_front() {
                let mut run = 0;
                if let Some(done) = done {
                    state.last_run = state.last_run.wrapping_add(1);
                    run = state.last_run;
                    state.running.insert(run, done);
                }
                return Next { run, token, status, gone };
            }
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a stream waits for a function that the guest has not run or not acknowledged.
    pub fn is_awaited(&self) -> bool {
        let state = self.lock();
        !state.running.is_empty() || state.waiting.iter().any(|request| request.done.is_some())
    }

    /// While the VM is paused nobody waits here: whoever does comes back with nothing, and asks again later.
    pub fn pause(&self, paused: bool) {
        self.lock().paused = paused;
        self.came.notify_all();
    }

    /// The session ends: whoever waits is let go, nothing waits any more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.running));
        drop(state);
        drop(left);
        self.came.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test's
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_run_goes_on_when_it_is_acknowledged_and_only_then() {
        let functions = Arc::new(HostFunctions::default());
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        functions.ask(7, CUresult::SUCCESS, Box::new(move || _ = counted.fetch_add(1, Ordering::SeqCst)));
        functions.gone(9);
        let next = functions.next(0);
        assert_eq!(next, Next { run: 1, token: 7, status: 0, gone: false });
        assert!(functions.is_awaited(), "not before the guest says so is it over");
        assert_eq!(functions.next(12345), Next { run: 0, token: 9, status: 0, gone: true });
        assert_eq!(count.load(Ordering::SeqCst), 0);
        functions.tell(8, CUresult::LAUNCH_FAILED);
        assert!(functions.is_awaited());
        assert_eq!(functions.next(1), Next { run: 0, token: 8, status: 719, gone: false });
        assert_eq!(count.load(Ordering::SeqCst), 1);
        functions.tell(8, CUresult::SUCCESS);
        assert!(!functions.is_awaited(), "nobody waits for what was only told");
        functions.next(0);
        functions.tell(8, CUresult::SUCCESS);
        assert_eq!(functions.next(1).token, 8);
        assert_eq!(count.load(Ordering::SeqCst), 1, "acknowledged once");
    }

    #[test]
    fn the_end_lets_everybody_go() {
        let functions = Arc::new(HostFunctions::default());
        let device = {
            let functions = functions.clone();
            std::thread::spawn(move || functions.run(1, CUresult::SUCCESS))
        };
        assert_eq!(functions.next(0).token, 1);
        let guest = {
            let functions = functions.clone();
            std::thread::spawn(move || functions.next(0))
        };
        std::thread::sleep(Duration::from_millis(20));
        functions.close();
        assert_eq!(guest.join().unwrap(), Next::default());
        device.join().unwrap();
        functions.run(2, CUresult::SUCCESS);
    }

    #[test]
    fn while_paused_nobody_waits_and_nothing_is_handed_out() {
        let functions = Arc::new(HostFunctions::default());
        let guest = {
            let functions = functions.clone();
            std::thread::spawn(move || functions.next(0))
        };
        std::thread::sleep(Duration::from_millis(20));
        functions.pause(true);
        assert_eq!(guest.join().unwrap(), Next::default());
        functions.tell(3, CUresult::SUCCESS);
        assert_eq!(functions.next(0), Next::default());
        functions.pause(false);
        assert_eq!(functions.next(0).token, 3);
    }
}
