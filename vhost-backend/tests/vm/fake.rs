//! A mediator that remembers what it was asked, and completes operations at once unless told to hold them.

use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use vgpu_device::{Done, Open, Piece, RegionId, RingId, RingPart, SessionId, Sessions};

/// Bytes that READ_INFO reads.
pub const INFO: &[u8] = b"information";

#[derive(Debug, Clone)]
pub enum Asked {
    Open { session: u32, page: Piece },
    Map { pieces: Vec<Piece> },
    Other,
    Kick(u32),
    Stop,
    Resume,
    Reset,
}

#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    hold: bool,
    held: Vec<Done>,
}

impl Fake {
    fn note(&self, asked: Asked) {
        self.state.lock().unwrap().asked.push(asked);
        self.changed.notify_all();
    }

    fn take_in(&self, asked: Asked, done: Done) {
        let mut state = self.state.lock().unwrap();
        state.asked.push(asked);
        if state.hold {
            state.held.push(done);
        } else {
            drop(state);
            done(Ok(()));
        }
        self.changed.notify_all();
    }

    /// From now on operations wait for [`Self::release`].
    pub fn hold(&self) {
        self.state.lock().unwrap().hold = true;
    }

    /// Completes all held operations and holds no more.
    pub fn release(&self) {
        let held = {
            let mut state = self.state.lock().unwrap();
            state.hold = false;
            std::mem::take(&mut state.held)
        };
        for done in held {
            done(Ok(()));
        }
    }

    /// Operations held now.
    pub fn held(&self) -> usize {
        self.state.lock().unwrap().held.len()
    }

    /// Waits until something was asked that `wanted` gives a value for, takes it out and gives the value.
    pub fn expect<T>(&self, what: &str, wanted: impl Fn(&Asked) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some((at, value)) =
                state.asked.iter().enumerate().find_map(|(at, asked)| wanted(asked).map(|value| (at, value)))
            {
                state.asked.remove(at);
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} was not asked; this was: {:?}", state.asked);
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn expect_reset(&self) {
        self.expect("a reset", |asked| matches!(asked, Asked::Reset).then_some(()));
    }

    /// Whether something was asked already.
    pub fn was_asked(&self, wanted: impl Fn(&Asked) -> bool) -> bool {
        self.state.lock().unwrap().asked.iter().any(wanted)
    }
}

impl Sessions for Fake {
    fn info(&self) -> std::sync::Arc<[u8]> {
        INFO.into()
    }

    fn live_info(&self, _: bool) -> std::sync::Arc<[u8]> {
        b"what changes".as_slice().into()
    }
    fn capabilities(&self) -> u32 {
        1
    }
    fn device_count(&self) -> u32 {
        1
    }
    fn fingerprint(&self) -> [u8; 16] {
        [7; 16]
    }
    fn open_session(&self, session: SessionId, open: Open, done: Done) {
        self.take_in(Asked::Open { session: session.get(), page: open.page }, done);
    }
    fn add_ring_part(&self, _: SessionId, _: RingId, _: RingPart, _: u64, _: Vec<Piece>, done: Done) {
        self.take_in(Asked::Other, done);
    }
    fn remove_ring(&self, _: SessionId, _: RingId, done: Done) {
        self.take_in(Asked::Other, done);
    }
    fn map_region(&self, _: SessionId, _: RegionId, _: bool, _: u64, _: u64, pieces: Vec<Piece>, done: Done) {
        self.take_in(Asked::Map { pieces }, done);
    }
    fn unmap_region(&self, _: SessionId, _: RegionId, done: Done) {
        self.take_in(Asked::Other, done);
    }
    fn close_session(&self, _: SessionId, done: Done) {
        self.take_in(Asked::Other, done);
    }
    fn kick_fd(&self, _: SessionId) -> Option<OwnedFd> {
        None
    }
    fn kick(&self, session: SessionId) {
        self.note(Asked::Kick(session.get()));
    }
    fn stop(&self) {
        self.note(Asked::Stop);
    }
    fn resume(&self) {
        self.note(Asked::Resume);
    }
    fn reset(&self) {
        self.note(Asked::Reset);
        self.release();
    }
}
