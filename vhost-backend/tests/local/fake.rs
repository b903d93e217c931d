//! A mediator that remembers, and gives out a descriptor to kick by.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use pci_layout::regs;
use vgpu_device::{Done, Open, Piece, RegionId, RingId, RingPart, SessionError, SessionId, Sessions, Wake};

#[derive(Default)]
pub struct Fake {
    /// One line per operation.
    pub asked: Mutex<Vec<String>>,
    pub refuse_opening: Mutex<bool>,
}

impl Fake {
    fn note(&self, line: String, done: Done) {
        self.asked.lock().unwrap().push(line);
        done(Ok(()));
    }
}

impl Sessions for Fake {
    fn info(&self) -> Arc<[u8]> {
        b"information".as_slice().into()
    }

    fn live_info(&self, _: bool) -> std::sync::Arc<[u8]> {
        b"what changes".as_slice().into()
    }
    fn capabilities(&self) -> u32 {
        0
    }
    fn device_count(&self) -> u32 {
        1
    }
    fn fingerprint(&self) -> [u8; 16] {
        [7; 16]
    }
    fn open_session(&self, session: SessionId, open: Open, done: Done) {
        assert_eq!(open.wake, Wake::Futex);
        if *self.refuse_opening.lock().unwrap() {
            return done(Err(SessionError { error: regs::ERROR_CUDA, cuda_result: 2 }));
        }
        self.note(format!("open {session}"), done);
    }
    fn add_ring_part(
        &self,
        session: SessionId,
        ring: RingId,
        _: RingPart,
        len: u64,
        _: Vec<Piece>,
        done: Done,
    ) {
        self.note(format!("ring {session}.{ring} of {len}"), done);
    }
    fn remove_ring(&self, session: SessionId, ring: RingId, done: Done) {
        self.note(format!("remove {session}.{ring}"), done);
    }
    fn map_region(
        &self,
        session: SessionId,
        _: RegionId,
        _: bool,
        va: u64,
        _: u64,
        _: Vec<Piece>,
        done: Done,
    ) {
        self.note(format!("map {session} at {va:#x}"), done);
    }
    fn unmap_region(&self, session: SessionId, _: RegionId, done: Done) {
        self.note(format!("unmap {session}"), done);
    }
    fn close_session(&self, session: SessionId, done: Done) {
        self.note(format!("close {session}"), done);
    }
    fn kick_fd(&self, _: SessionId) -> Option<OwnedFd> {
        Some(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap())
    }
    fn kick(&self, _: SessionId) {}
    fn stop(&self) {}
    fn resume(&self) {}
    fn reset(&self) {}
}
