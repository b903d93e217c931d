//! One thread for everything that happens by itself: wake descriptors of workers, and their deaths.

use std::collections::HashMap;
use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll};

use crate::process::WorkerProcess;

/// What a watch hears. Called on the monitor's thread.
pub(crate) trait Watcher: Send + Sync {
    fn wake(&self);
    fn ended(&self);
    /// The worker asks for something. False: it is not to be heard any more.
    fn asked(&self, requests: BorrowedFd<'_>) -> bool;
}

struct Watch {
    worker: Arc<WorkerProcess>,
    watcher: Arc<dyn Watcher>,
}

/// A watched worker. Its number is the token of its wake descriptor, and those after it stand for its process and for what
/// it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WatchId(u64);

struct Shared {
    epoll: OwnedFd,
    interrupt: OwnedFd,
    ending: AtomicBool,
    next: AtomicU64,
    watches: Mutex<HashMap<WatchId, Watch>>,
}

/// The epoll thread of a VM.
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Tokens of a watched worker: a power of two, and which is which.
const TOKENS: u64 = 4;
const WAKE: u64 = 0;
const PROCESS: u64 = 1;
const REQUESTS: u64 = 2;
/// Token of the descriptor that ends the thread.
const INTERRUPT: u64 = u64::MAX;

impl Monitor {
    pub(crate) fn start(vm_id: u32) -> Result<Self> {
        let shared = Arc::new(Shared {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            interrupt: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ending: AtomicBool::new(false),
            next: AtomicU64::new(0),
            watches: Mutex::new(HashMap::new()),
        });
        let token = epoll::EventData::new_u64(INTERRUPT);
        epoll::add(&shared.epoll, &shared.interrupt, token, epoll::EventFlags::IN)?;
        let of_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name(format!("vm{vm_id}-monitor")).spawn(move || of_thread.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn watch(&self, worker: Arc<WorkerProcess>, watcher: Arc<dyn Watcher>) -> Result<WatchId> {
        let id = WatchId(self.shared.next.fetch_add(TOKENS, Ordering::Relaxed));
        let watch = Watch { worker: Arc::clone(&worker), watcher };
        self.shared.watches().insert(id, watch);
        let token = |which: u64| id.0.wrapping_add(which);
        let added = self
            .shared
            .add(worker.wake_fd(), token(WAKE))
            .and_then(|()| self.shared.add(worker.pidfd(), token(PROCESS)))
            .and_then(|()| self.shared.add(worker.requests_fd(), token(REQUESTS)));
        if added.is_err() {
            self.unwatch(id);
        }
        added.map(|()| id)
    }

    /// The watcher is not called after this, except for a call that is under way.
    pub(crate) fn unwatch(&self, id: WatchId) {
        if let Some(watch) = self.shared.watches().remove(&id) {
            // Missing where adding failed, or where the thread removed it when the process ended.
            let _ = epoll::delete(&self.shared.epoll, watch.worker.wake_fd());
            let _ = epoll::delete(&self.shared.epoll, watch.worker.pidfd());
            let _ = epoll::delete(&self.shared.epoll, watch.worker.requests_fd());
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Err(error) = rustix::io::write(&self.shared.interrupt, &1u64.to_ne_bytes()) {
            log::error!("the monitor cannot be ended: {error}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the monitor's thread has panicked");
        }
    }
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, HashMap<WatchId, Watch>> {
        self.watches.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, fd: impl AsFd, token: u64) -> Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        while !self.ending.load(Ordering::Acquire) {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error!("the monitor cannot wait: {error}");
                    return;
                }
            }
            for event in &events {
                let token = event.data.u64();
                if token != INTERRUPT {
                    self.tell(token);
                }
            }
        }
    }

    fn tell(&self, token: u64) {
        let id = WatchId(token & !TOKENS.wrapping_sub(1));
        let found =
            self.watches().get(&id).map(|watch| (Arc::clone(&watch.worker), Arc::clone(&watch.watcher)));
        let Some((worker, watcher)) = found else { return };
        match token.wrapping_sub(id.0) {
            WAKE => {
                // Emptied first: a wake that comes from now on is told again.
                let mut count = [0; 8];
                if rustix::io::read(worker.wake_fd(), &mut count).is_ok() {
                    watcher.wake();
                }
            }
            PROCESS => {
                // An ended process stays readable for ever.
                let _ = epoll::delete(&self.epoll, worker.pidfd());
                watcher.ended();
            }
            // So does the end of a socket.
            _ => {
                if !watcher.asked(worker.requests_fd()) {
                    let _ = epoll::delete(&self.epoll, worker.requests_fd());
                }
            }
        }
    }
}
