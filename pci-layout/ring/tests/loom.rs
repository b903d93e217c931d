//! The park and wake protocol of both directions, the wake bits of the session page and the order rule between rings,
//! run under every interleaving and every value that the memory model lets a load return (within the preemption bounds
//! given below). The code that runs is the crate's own; only its atomics are loom's.
//!
//! A lost wake-up shows as a deadlock, frame bytes read without order as a data race on the witness cell.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vgpu-ring --test loom --release`
#![cfg(loom)]

mod fenced;

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use pci_layout::ring::{FRAME_BYTES_MAX, FRAME_WAIT};
use vgpu_ring::{
    Consumer, FRAME_HEADER_BYTES, FrameBuffer, FrameFields, FrontView, Producer, RingMemory,
    SessionPageMemory, WaitFor,
};

/// Arguments of the longest frame; static, since loom's threads have small stacks.
static LONGEST: [u8; FRAME_BYTES_MAX as usize - FRAME_HEADER_BYTES] =
    [0; FRAME_BYTES_MAX as usize - FRAME_HEADER_BYTES];

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

fn ends() -> (Producer, Consumer) {
    let memory: RingMemory = fenced::ring();
    (Producer::new(memory.clone()), Consumer::new(memory))
}

/// A sleep that a notification before it ends at once: an eventfd, a parker, the kernel module's wait queue.
struct Notify {
    notified: Mutex<bool>,
    condition: Condvar,
}

impl Notify {
    fn new() -> Self {
        Self { notified: Mutex::new(false), condition: Condvar::new() }
    }
    fn notify(&self) {
        *self.notified.lock().unwrap() = true;
        self.condition.notify_one();
    }
    fn wait(&self) {
        let mut notified = self.notified.lock().unwrap();
        while !*notified {
            notified = self.condition.wait(notified).unwrap();
        }
        *notified = false;
    }
}

/// Publishes a frame; true: kick.
fn publish(producer: &mut Producer, ticket: u64, flags: u32, args: &[u8]) -> bool {
    let mut writer = producer.reserve().unwrap();
    writer.put(args);
    writer.publish(FrameFields { call: 1, flags, context: 0, ticket }).unwrap()
}

/// The next frame's ticket; parks until there is one.
fn take(consumer: &mut Consumer, buffer: &mut FrameBuffer, kicked: &Notify) -> u64 {
    loop {
        if let Some(frame) = consumer.take(buffer).unwrap() {
            return frame.ticket;
        }
        if consumer.prepare_park() {
            kicked.wait();
            consumer.cancel_park();
        }
    }
}

/// Sleeps until what is waited for has come.
fn wait(producer: &mut Producer, wait: WaitFor, woken: &Notify) {
    while !producer.is_ready(wait) {
        if producer.prepare_wait(wait) {
            woken.wait();
            producer.finish_wait();
        }
    }
}

/// What stands for the bytes of a frame or of a reply: written by one side, read by the other.
struct Witness(UnsafeCell<u64>);

// SAFETY: that accesses are ordered is what loom checks.
unsafe impl Sync for Witness {}
// SAFETY: as above.
unsafe impl Send for Witness {}

impl Witness {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }
    fn set(&self, value: u64) {
        // SAFETY: loom reports any other access that is not ordered with this one.
        self.0.with_mut(|cell| unsafe { *cell = value });
    }
    fn get(&self) -> u64 {
        // SAFETY: as above.
        self.0.with(|cell| unsafe { *cell })
    }
}

#[test]
fn the_host_sleeps_for_frames_and_none_is_lost() {
    explore(6, || {
        let (mut producer, mut consumer) = ends();
        let kicked = Arc::new(Notify::new());
        let bytes = Witness::new();
        let host = {
            let (kicked, bytes) = (Arc::clone(&kicked), Arc::clone(&bytes));
            thread::spawn(move || {
                let mut buffer = FrameBuffer::new();
                assert_eq!(take(&mut consumer, &mut buffer, &kicked), 1);
                assert_eq!(bytes.get(), 11);
                assert_eq!(take(&mut consumer, &mut buffer, &kicked), 2);
            })
        };
        bytes.set(11);
        for ticket in 1..=2 {
            if publish(&mut producer, ticket, 0, b"") {
                kicked.notify();
            }
        }
        host.join().unwrap();
    });
}

/// As in the worker: a kick reaches the main thread, which wakes the ring threads that have data.
#[test]
fn a_kick_through_the_main_thread_finds_the_data() {
    explore(3, || {
        let (mut producer, mut consumer) = ends();
        let view: FrontView = consumer.view();
        let kick_fd = Arc::new(Notify::new());
        let unparked = Arc::new(Notify::new());
        let over = Arc::new(AtomicBool::new(false));
        let host = {
            let unparked = Arc::clone(&unparked);
            thread::spawn(move || {
                let mut buffer = FrameBuffer::new();
                assert_eq!(take(&mut consumer, &mut buffer, &unparked), 1);
                assert_eq!(take(&mut consumer, &mut buffer, &unparked), 2);
            })
        };
        let main = {
            let (kick_fd, over) = (Arc::clone(&kick_fd), Arc::clone(&over));
            thread::spawn(move || {
                loop {
                    kick_fd.wait();
                    if view.has_data() {
                        unparked.notify();
                    }
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                }
            })
        };
        for ticket in 1..=2 {
            if publish(&mut producer, ticket, 0, b"") {
                kick_fd.notify();
            }
        }
        host.join().unwrap();
        over.store(true, Ordering::Release);
        kick_fd.notify();
        main.join().unwrap();
    });
}

#[test]
fn the_guest_sleeps_for_a_reply_and_it_is_never_lost() {
    explore(6, || {
        let (mut producer, mut consumer) = ends();
        let (kicked, woken) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let bytes = Witness::new();
        let host = {
            let (kicked, woken, bytes) = (Arc::clone(&kicked), Arc::clone(&woken), Arc::clone(&bytes));
            thread::spawn(move || {
                let mut buffer = FrameBuffer::new();
                let ticket = take(&mut consumer, &mut buffer, &kicked);
                assert_eq!(bytes.get(), 1);
                bytes.set(2);
                if consumer.reply(ticket, 7, b"data").unwrap() {
                    woken.notify();
                }
            })
        };
        bytes.set(1);
        if publish(&mut producer, 5, FRAME_WAIT, b"") {
            kicked.notify();
        }
        wait(&mut producer, WaitFor::Reply(5), &woken);
        let reply = producer.poll_reply(5).unwrap();
        assert_eq!((reply.result, reply.len, bytes.get()), (7, 4, 2));
        host.join().unwrap();
    });
}

/// Two sleeps in a row, for different things: a wake for the first must not be missed by, or end, the second.
#[test]
fn the_guest_sleeps_for_bulk_and_then_for_a_reply() {
    explore(6, || {
        let (mut producer, mut consumer) = ends();
        let woken = Arc::new(Notify::new());
        let staging = Witness::new();
        let host = {
            let (woken, staging) = (Arc::clone(&woken), Arc::clone(&staging));
            thread::spawn(move || {
                staging.set(1);
                if consumer.bulk_finished() {
                    woken.notify();
                }
                if consumer.reply(9, 0, b"").unwrap() {
                    woken.notify();
                }
            })
        };
        wait(&mut producer, WaitFor::Bulk(1), &woken);
        staging.set(2);
        wait(&mut producer, WaitFor::Reply(9), &woken);
        host.join().unwrap();
    });
}

#[test]
fn the_guest_sleeps_for_space_and_the_freed_space_is_its_own() {
    explore(4, || {
        let (mut producer, mut consumer) = ends();
        for ticket in 1..=3 {
            assert!(!publish(&mut producer, ticket, 0, &LONGEST));
        }
        assert!(!producer.has_space());
        let woken = Arc::new(Notify::new());
        let bytes = Witness::new();
        let host = {
            let (woken, bytes) = (Arc::clone(&woken), Arc::clone(&bytes));
            thread::spawn(move || {
                let mut buffer = FrameBuffer::new();
                consumer.take(&mut buffer).unwrap().unwrap();
                bytes.get();
                if consumer.release() {
                    woken.notify();
                }
                // The rest of the ring is not the guest's yet, and nobody touches what is.
                consumer.take(&mut buffer).unwrap().unwrap();
            })
        };
        wait(&mut producer, WaitFor::Space, &woken);
        bytes.set(1);
        publish(&mut producer, 4, 0, b"");
        host.join().unwrap();
    });
}

/// Two ring threads wake their guests through the session page; events coalesce; the guest's kernel misses no bit.
#[test]
fn coalesced_wake_events_lose_no_bit() {
    explore(4, || {
        let ring = fenced::ring();
        let base = std::ptr::NonNull::new(fenced::base(&ring)).unwrap();
        // SAFETY: a page and more, mapped until all threads are joined; under loom its words are not used.
        let page = unsafe { SessionPageMemory::new(base) };
        let event = Arc::new(Notify::new());
        let events = Arc::new(AtomicU32::new(0));
        let hosts = [3, 200].map(|ring| {
            let (page, event, events) = (page.clone(), Arc::clone(&event), Arc::clone(&events));
            thread::spawn(move || {
                if page.wake(ring) {
                    events.fetch_add(1, Ordering::Relaxed);
                    event.notify();
                }
            })
        });
        let mut taken = [0; 4];
        while taken != [1 << 3, 0, 0, 1 << 8] {
            event.wait();
            for (all, new) in taken.iter_mut().zip(page.take_wakes()) {
                *all |= new;
            }
        }
        for host in hosts {
            host.join().unwrap();
        }
        assert!((1..=2).contains(&events.load(Ordering::Relaxed)));
    });
}

/// A guest thread posts in ring A, then calls in ring B: B's host thread makes its call after A's has returned.
#[test]
fn a_later_ticket_of_another_ring_waits_for_a_posted_call() {
    explore(3, || {
        let ((mut guest_a, mut host_a), (mut guest_b, mut host_b)) = (ends(), ends());
        let view = host_a.view();
        let called = Arc::new(AtomicBool::new(false));
        let (kicked_a, kicked_b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let a = {
            let (called, kicked) = (Arc::clone(&called), Arc::clone(&kicked_a));
            thread::spawn(move || {
                let mut buffer = FrameBuffer::new();
                assert_eq!(take(&mut host_a, &mut buffer, &kicked), 1);
                let _ = host_a.release();
                called.store(true, Ordering::Relaxed);
                host_a.issued();
            })
        };
        let b = {
            let kicked = Arc::clone(&kicked_b);
            thread::spawn(move || {
                let mut buffer = FrameBuffer::new();
                assert_eq!(take(&mut host_b, &mut buffer, &kicked), 2);
                while view.blocks(2).is_some() {
                    thread::yield_now();
                }
                assert!(called.load(Ordering::Relaxed), "the earlier call had not been made");
            })
        };
        if publish(&mut guest_a, 1, 0, b"") {
            kicked_a.notify();
        }
        if publish(&mut guest_b, 2, FRAME_WAIT, b"") {
            kicked_b.notify();
        }
        a.join().unwrap();
        b.join().unwrap();
    });
}
