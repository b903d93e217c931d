//! The local front: guest processes of this host, no VM. The messages are those of the control queue, one per packet of
//! a `SOCK_SEQPACKET` socket; memory is a memfd that comes with the message that names it (SCM_RIGHTS), and run addresses
//! are offsets in it. There is no HELLO.
//!
//! A connection is one session at most. The slot in OPEN_SESSION is [`SLOT_UNASSIGNED`]; the one chosen here comes back
//! in the answer's body (u64), with the descriptor to kick the worker by. The session ends with CLOSE_SESSION, with the
//! connection, or with the process that made it, even if a forked child still holds the socket. When the session dies,
//! the connection is shut down.
//!
//! Peers are as untrusted as a guest: files are taken only if they cannot shrink, so that no mapping of them ever faults.

mod memory;
mod packet;
mod peer;
mod slots;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use log_limit::{LINES, LogLimit, limited};
use pci_layout::control::SESSIONS_MAX;
use pci_layout::event::EVENT_SESSION_DIED;
use rustix::event::{PollFd, PollFlags, poll};
use vgpu_device::{Device, EventSink, SessionId};

use crate::daemon::{Stop, borrow};
use crate::socket::Listener;
use peer::Peer;
use slots::Slots;

/// Guests and local processes choose how often these lines are due.
static DEATHS: LogLimit = LogLimit::new(LINES);
static REFUSALS: LogLimit = LogLimit::new(LINES);

/// The session field of OPEN_SESSION: the daemon chooses the slot.
pub use pci_layout::control::SESSION_UNASSIGNED as SLOT_UNASSIGNED;

/// Connections at once. Each costs a thread; some have no session (yet).
const CONNECTIONS_MAX: usize = 2 * SESSIONS_MAX as usize;

/// What the connections share.
struct Local {
    device: Arc<Device>,
    stop: Arc<Stop>,
    slots: Slots,
    /// Who has which session.
    owners: Mutex<HashMap<SessionId, Weak<Peer>>>,
}

impl Local {
    fn owners(&self) -> MutexGuard<'_, HashMap<SessionId, Weak<Peer>>> {
        // Single insertions and removals.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Local {
    fn event_ready(&self) {
        while let Some(event) = self.device.events().take() {
            // Local threads are woken by futex: a wake event has nobody to go to.
            if event.kind != EVENT_SESSION_DIED {
                continue;
            }
            let owner =
                SessionId::new(event.session).and_then(|session| self.owners().get(&session).cloned());
            if let Some(peer) = owner.and_then(|owner| owner.upgrade()) {
                limited!(
                    DEATHS,
                    info,
                    "session {} has died (reason {}); its connection ends",
                    event.session,
                    event.reason
                );
                peer.shut_down();
            }
        }
    }
}

/// Serves the processes that connect to `listener` until [`Stop`] is asked; returns when all connections have ended and
/// the close of each session was asked for.
///
/// # Errors
/// The listener fails.
pub fn serve(listener: &Listener, device: &Arc<Device>, stop: &Arc<Stop>) -> io::Result<()> {
    let local = Arc::new(Local {
        device: device.clone(),
        stop: stop.clone(),
        slots: Slots::default(),
        owners: Mutex::default(),
    });
    device.events().set_sink(Some(local.clone()));
    let mut threads: Vec<thread::JoinHandle<()>> = Vec::new();
    let result = loop {
        if stop.is_asked() {
            break Ok(());
        }
        let mut ready = [
            PollFd::from_borrowed_fd(borrow(stop.wake()), PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => break Err(error.into()),
        }
        threads.retain(|thread| !thread.is_finished());
        match listener.accept() {
            Ok(Some(_)) if threads.len() >= CONNECTIONS_MAX => {
                limited!(REFUSALS, warn, "connection refused: there are {CONNECTIONS_MAX}");
            }
            Ok(Some(socket)) => match start(&local, socket) {
                Ok(thread) => threads.push(thread),
                Err(error) => log::error!("cannot serve a connection: {error}"),
            },
            Ok(None) => {}
            Err(error) => {
                log::error!("cannot accept connections: {error}");
                // Out of descriptors, most likely: not to be retried in a busy loop.
                thread::sleep(Duration::from_secs(1));
            }
        }
    };
    for thread in threads {
        if thread.join().is_err() {
            log::error!("a connection's thread panicked");
        }
    }
    device.events().set_sink(None);
    result
}

fn start(local: &Arc<Local>, socket: OwnedFd) -> io::Result<thread::JoinHandle<()>> {
    let peer = Peer::new(local.clone(), socket)?;
    thread::Builder::new().name("local".into()).spawn(move || peer.serve())
}
