//! What stands for a worker: a thread per ring, and one that kicks arrive at.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{Shutdown, shutdown};
use rustix::thread::futex;
use vgpu_ring::{Consumer, Frame, FrameBuffer, FrontView, RingMemory, SessionPageMemory};

use super::Shared;

/// Answers with its arguments.
pub const ECHO: u32 = 1;
/// Adds its argument to the sum.
pub const ADD: u32 = 2;
/// Fails with its argument.
pub const FAIL: u32 = 3;
/// Answers after as many milliseconds as its argument says.
pub const SLEEP: u32 = 4;
/// The session dies, with its argument for a reason, and nothing is answered.
pub const DIE: u32 = 5;
/// Inverts the staging bytes at (offset, length).
pub const INVERT: u32 = 6;
/// The daemon closes its socket and says nothing to anybody.
pub const VANISH: u32 = 7;
/// So many frames may wait in a ring from now on.
pub const DEPTH: u32 = 9;
/// Every call answers the argument from now on.
pub const FAULT: u32 = 8;

/// A mapping of what the guest sent.
pub struct Mapping {
    pub base: NonNull<u8>,
    pub len: usize,
}

// SAFETY: an address range, used under the tests' own order.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn new(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes.
        let base = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, fd, offset) }.unwrap();
        Self { base: NonNull::new(base.cast()).unwrap(), len }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping's range.
        unsafe { munmap(self.base.as_ptr().cast(), self.len) }.unwrap();
    }
}

pub struct Worker {
    state: Arc<State>,
}

struct State {
    shared: Arc<Shared>,
    page: SessionPageMemory,
    socket: Arc<OwnedFd>,
    rings: Mutex<HashMap<u32, Ring>>,
    over: AtomicBool,
}

struct Ring {
    view: FrontView,
    thread: JoinHandle<()>,
    control: Arc<Control>,
}

#[derive(Default)]
struct Control {
    removed: AtomicBool,
    staging: OnceLock<Mapping>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, page: SessionPageMemory, kick: OwnedFd, socket: Arc<OwnedFd>) -> Self {
        let state =
            Arc::new(State { shared, page, socket, rings: Mutex::default(), over: AtomicBool::new(false) });
        let main = Arc::clone(&state);
        thread::spawn(move || main.main(&kick));
        Self { state }
    }

    pub fn add_ring(&self, index: u32, mapping: Mapping) {
        // SAFETY: as long as a ring (the caller checked), kept by its owner.
        let memory = unsafe { RingMemory::with_owner(mapping.base, Arc::new(mapping)) };
        let consumer = Consumer::new(memory);
        let view = consumer.view();
        let control = Arc::new(Control::default());
        let (state, for_thread) = (Arc::clone(&self.state), Arc::clone(&control));
        let thread = thread::spawn(move || state.ring(consumer, &for_thread));
        let ring = Ring { view, thread, control };
        assert!(self.state.rings.lock().unwrap().insert(index, ring).is_none());
        self.state.shared.rings_open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add_staging(&self, index: u32, mapping: Mapping) {
        let rings = self.state.rings.lock().unwrap();
        assert!(rings[&index].control.staging.set(mapping).is_ok(), "one staging buffer per ring");
    }

    pub fn remove_ring(&self, index: u32) {
        let ring = self.state.rings.lock().unwrap().remove(&index).unwrap();
        ring.control.removed.store(true, Ordering::SeqCst);
        ring.thread.thread().unpark();
        ring.thread.join().unwrap();
        self.state.shared.rings_open.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn end(&self, reason: u32) {
        self.state.end(reason);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn end(&self, reason: u32) {
        self.page.set_dead(reason);
        self.over.store(true, Ordering::SeqCst);
    }

    /// Kicks arrive here; threads whose ring has data are woken.
    fn main(&self, kick: &OwnedFd) {
        while !self.over.load(Ordering::SeqCst) {
            let slice = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut [PollFd::new(kick, PollFlags::IN)], Some(&slice)).unwrap() == 0 {
                continue;
            }
            let mut count = [0; 8];
            rustix::io::read(kick, &mut count).unwrap();
            self.shared.kicks.fetch_add(u64::from_ne_bytes(count), Ordering::Relaxed);
            for ring in self.rings.lock().unwrap().values() {
                if ring.view.has_data() {
                    ring.thread.thread().unpark();
                }
            }
        }
    }

    fn ring(&self, mut consumer: Consumer, control: &Control) {
        let mut buffer = FrameBuffer::new();
        let ended = || control.removed.load(Ordering::SeqCst) || self.over.load(Ordering::SeqCst);
        loop {
            while self.shared.frozen.load(Ordering::SeqCst) && !ended() {
                thread::sleep(Duration::from_millis(1));
            }
            match consumer.take(&mut buffer).unwrap() {
                Some(frame) => self.frame(&mut consumer, frame, control),
                None if ended() => return,
                None => self.idle(&mut consumer, &ended),
            }
        }
    }

    fn idle(&self, consumer: &mut Consumer, ended: &impl Fn() -> bool) {
        let view = consumer.view();
        let start = Instant::now();
        while start.elapsed() < self.shared.config.spin {
            if view.has_data() || ended() {
                return;
            }
            thread::yield_now();
        }
        if consumer.prepare_park() {
            self.shared.parks.fetch_add(1, Ordering::Relaxed);
            while !view.has_data() && !ended() {
                // The session's end wakes nobody here; a kick does not depend on the time.
                thread::park_timeout(Duration::from_millis(20));
            }
            consumer.cancel_park();
        }
    }

    fn frame(&self, consumer: &mut Consumer, frame: Frame<'_>, control: &Control) {
        let mut wake = consumer.release();
        let word = |index: usize| {
            frame
                .args
                .get(index * 8..index * 8 + 8)
                .map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap()))
        };
        let mut reply: &[u8] = &[];
        let mut result = 0;
        match frame.call {
            ECHO => reply = frame.args,
            ADD => {
                self.shared.sum.fetch_add(word(0), Ordering::Relaxed);
            }
            FAIL => result = word(0) as u32,
            SLEEP => thread::sleep(Duration::from_millis(word(0))),
            DIE => return self.end(word(0) as u32),
            INVERT => {
                let staging = control.staging.get().unwrap();
                let (offset, len) = (word(0) as usize, word(1) as usize);
                assert!(offset + len <= staging.len);
                for at in offset..offset + len {
                    // SAFETY: in the staging buffer; the guest leaves this part alone until it is told.
                    unsafe {
                        let byte = staging.base.add(at);
                        byte.write_volatile(!byte.read_volatile());
                    }
                }
            }
            VANISH => {
                self.over.store(true, Ordering::SeqCst);
                return shutdown(&*self.socket, Shutdown::Both).unwrap();
            }
            DEPTH => self.page.set_queue_depth(word(0)),
            FAULT => self.page.set_sticky(word(0) as u32),
            other => panic!("call {other}"),
        }
        if frame.waits() {
            wake |= consumer.reply(frame.ticket, result, reply).unwrap();
        } else if result != 0 {
            self.page.count_posted_error();
            consumer.post_error(result, frame.call);
        }
        if frame.is_bulk() {
            wake |= consumer.bulk_finished();
        }
        consumer.issued();
        if wake {
            self.shared.wakes.fetch_add(1, Ordering::Relaxed);
            // SAFETY: a word of the ring, which `consumer` keeps mapped.
            let word = unsafe { AtomicU32::from_ptr(consumer.memory().guest_parked_futex()) };
            futex::wake(word, futex::Flags::empty(), 1).unwrap();
        }
    }
}
