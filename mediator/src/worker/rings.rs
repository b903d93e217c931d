//! The session's rings, by index.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pci_layout::control::{PART_RING, PART_STAGING};
use pci_layout::regs;
use rustix::event::{PollFd, PollFlags};

use super::mapping::{MapBudget, MapError, Mapping, Pieces};
use super::regions::map_error_code;
use super::ring::{Ring, State};
use super::{die, exit};
use crate::CallHandler;

/// Why a ring part is not added, or a ring not removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RingPartError {
    #[error("ring {ring} has its part {part} already")]
    Twice { ring: u32, part: u32 },
    #[error("ring {0} does not exist")]
    Unknown(u32),
    #[error("rings have no part {0}")]
    Part(u32),
    #[error("ring {ring}, part {part}: {error}")]
    Map { ring: u32, part: u32, error: MapError },
    #[error("ring {ring} gets no thread: {error}")]
    Thread { ring: u32, error: std::io::Error },
}

impl RingPartError {
    /// The `ERROR_` value that the guest hears.
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::Map { error, .. } => map_error_code(error),
            Self::Thread { .. } => regs::ERROR_MEDIATOR_UNAVAILABLE,
            _ => regs::ERROR_INVALID_REQUEST,
        }
    }
}

struct Served {
    ring: Arc<Ring>,
    mapping: Arc<Mapping>,
    thread: JoinHandle<()>,
}

/// All rings of the session. The main thread adds and removes them, the kick thread looks at them.
#[derive(Default)]
pub(super) struct Rings {
    served: RwLock<HashMap<u32, Served>>,
}

impl Rings {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<u32, Served>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u32, Served>> {
        self.served.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps a part of ring `index`; with PART_RING its thread starts.
    pub(super) fn add_part<H: CallHandler>(
        &self,
        state: &Arc<State<H>>,
        budget: &Arc<MapBudget>,
        index: u32,
        part: u32,
        pieces: Result<Pieces<'_>, MapError>,
    ) -> Result<(), RingPartError> {
        let twice = || RingPartError::Twice { ring: index, part };
        let map = || {
            let mapping = pieces.and_then(|pieces| Mapping::new(&pieces, budget));
            mapping.map_err(|error| RingPartError::Map { ring: index, part, error })
        };
        let existing = self.read().get(&index).map(|served| Arc::clone(&served.ring));
        match (part, existing) {
            (PART_RING, None) => self.start(state, index, Arc::new(map()?)),
            (PART_STAGING, Some(ring)) => {
                if ring.set_staging(map()?) {
                    Ok(())
                } else {
                    Err(twice())
                }
            }
            (PART_RING, Some(_)) => Err(twice()),
            (PART_STAGING, None) => Err(RingPartError::Unknown(index)),
            (part, _) => Err(RingPartError::Part(part)),
        }
    }

    fn start<H: CallHandler>(
        &self,
        state: &Arc<State<H>>,
        index: u32,
        mapping: Arc<Mapping>,
    ) -> Result<(), RingPartError> {
        let (ring, consumer) = Ring::new(index, Arc::clone(&mapping));
        let mut served = self.write();
        for other in served.values() {
            other.ring.peers().push(Arc::clone(&ring));
            ring.peers().push(Arc::clone(&other.ring));
        }
        let (of_thread, state) = (Arc::clone(&ring), Arc::clone(state));
        let thread = std::thread::Builder::new()
            .name(format!("ring-{index}"))
            .spawn(move || of_thread.run(&state, consumer))
            .map_err(|error| RingPartError::Thread { ring: index, error });
        match thread {
            Ok(thread) => {
                served.insert(index, Served { ring, mapping, thread });
                Ok(())
            }
            Err(error) => {
                forget(&served, &ring);
                Err(error)
            }
        }
    }

    /// Ends a ring's thread, once the ring is empty, and unmaps its parts. Waits as long as that takes: the supervisor
    /// has a limit and kills.
    pub(super) fn remove(&self, index: u32) -> Result<(), RingPartError> {
        // Out of the table only after its thread has ended: until then kicks must find it.
        let ring = self.read().get(&index).map(|served| Arc::clone(&served.ring));
        ring.ok_or(RingPartError::Unknown(index))?.drain();
        while self.read().get(&index).is_some_and(|served| !served.thread.is_finished()) {
            std::thread::sleep(Duration::from_micros(100));
        }
        let mut table = self.write();
        let Some(Served { ring, mapping, thread }) = table.remove(&index) else {
            return Err(RingPartError::Unknown(index));
        };
        if thread.join().is_err() {
            die(exit::PANICKED, "a ring's thread has panicked");
        }
        forget(&table, &ring);
        drop(table);
        // Nobody else holds the ring now, and nobody but the ring the mapping: the supervisor is about to hear that the
        // memory is not mapped any more, so this is made sure of. Another ring's thread may be holding a copy of its
        // list for a moment.
        let since = Instant::now();
        let mut ring = Some(ring);
        while since.elapsed() < Duration::from_secs(1) {
            match ring.take().map(Arc::try_unwrap) {
                Some(Err(still_held)) => {
                    ring = Some(still_held);
                    std::thread::sleep(Duration::from_micros(100));
                }
                Some(Ok(sole)) => drop(sole),
                None => break,
            }
        }
        match Arc::try_unwrap(mapping) {
            Ok(mapping) => drop(mapping),
            Err(_) => die(exit::HOST, "a removed ring is still in use"),
        }
        Ok(())
    }

    /// Wakes every ring thread that sleeps although there are frames.
    fn kicked(&self) {
        for served in self.read().values() {
            served.ring.unpark_parked();
        }
    }

    /// Waits until no thread is inside a call, at most until `deadline`.
    pub(super) fn wait_idle(&self, deadline: Instant) -> bool {
        loop {
            if !self.read().values().any(|served| served.ring.is_inside()) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The kick thread: waits for kicks for the rest of the process's life.
    pub(super) fn watch_kicks(&self, kick: &OwnedFd) -> ! {
        loop {
            let mut fds = [PollFd::new(kick, PollFlags::IN)];
            let waited = rustix::event::poll(&mut fds, None);
            let mut count = [0; 8];
            match waited.and_then(|_| rustix::io::read(kick, &mut count)) {
                // The counter was taken before the rings are looked at: a kick from now on is seen again.
                Ok(_) => self.kicked(),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => die(exit::HOST, &format!("kicks cannot be waited for: {error}")),
            }
        }
    }
}

/// Takes `ring` out of every other ring's list, and empties its own.
fn forget(rings: &HashMap<u32, Served>, ring: &Arc<Ring>) {
    for other in rings.values() {
        other.ring.peers().retain(|peer| !Arc::ptr_eq(peer, ring));
    }
    ring.peers().clear();
}
