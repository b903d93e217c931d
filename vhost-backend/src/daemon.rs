//! The daemon's life: connections one after the other, until somebody asks it to end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use vgpu_device::Device;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::connection;
use crate::socket::Listener;

/// How long a new connection waits for the last one's workers to be reaped. A VM that is restarted connects while its
/// former life is being cleaned up; a second VM at the same socket never gets its turn and is refused.
pub(crate) const TURN: Duration = Duration::from_secs(5);

/// Asks the daemon to end, from any thread.
pub struct Stop {
    asked: AtomicBool,
    wake: EventFd,
    connection: Mutex<Option<OwnedFd>>,
}

impl Stop {
    /// Not asked yet.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Arc<Self>> {
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Arc::new(Self { asked: AtomicBool::new(false), wake, connection: Mutex::default() }))
    }

    /// Asks: the connection is shut down, and nothing more is accepted.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(connection) = self.lock().as_ref() {
            // An error means that it has ended already.
            let _ = rustix::net::shutdown(connection, Shutdown::Both);
        }
        if let Err(error) = self.wake.write(1) {
            log::error!("cannot wake the daemon to end: {error}");
        }
    }

    /// Whether somebody has asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Readable once asked.
    pub(crate) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// Names the connection to shut down. One named after the asking is shut down at once.
    fn set_connection(&self, connection: Option<OwnedFd>) {
        *self.lock() = connection;
        if self.is_asked() {
            self.ask();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        // One store.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one connection that was inherited, until it ends or [`Stop`] is asked.
///
/// # Errors
/// The connection ended otherwise than by being closed.
pub fn serve_connection(stream: UnixStream, device: &Arc<Device>, stop: &Stop) -> io::Result<()> {
    stop.set_connection(Some(stream.as_fd().try_clone_to_owned()?));
    let end = connection::serve(stream, device);
    stop.set_connection(None);
    if stop.is_asked() { Ok(()) } else { end }
}

/// Serves the connections that come to `listener`, one at a time, until [`Stop`] is asked.
///
/// # Errors
/// The listener fails.
pub fn serve_listener(listener: &Listener, device: &Arc<Device>, stop: &Stop) -> io::Result<()> {
    let ended = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
    let mut active: Option<JoinHandle<()>> = None;
    let mut next: Option<(UnixStream, Instant)> = None;
    let result = loop {
        if stop.is_asked() {
            break Ok(());
        }
        // Told by the thread itself, as the last thing it does: the end of a thread wakes nobody.
        if ended.read().is_ok()
            && let Some(finished) = active.take()
        {
            join(finished, stop);
        }
        if active.is_none()
            && let Some((stream, _)) = next.take()
        {
            log::info!("a VM has connected");
            match start(stream, device, stop, &ended) {
                Ok(thread) => active = Some(thread),
                Err(error) => log::error!("cannot serve the connection: {error}"),
            }
        }
        if next.take_if(|(_, since)| since.elapsed() >= TURN).is_some() {
            log::warn!("a second VM has tried to connect: refused, this daemon serves one");
        }
        let until = next.as_ref().map(|(_, since)| TURN.saturating_sub(since.elapsed()));
        let wait = until.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut ready = vec![
            PollFd::from_borrowed_fd(borrow(stop.wake()), PollFlags::IN),
            PollFd::from_borrowed_fd(borrow(&ended), PollFlags::IN),
        ];
        // While one waits for its turn, the others wait in the kernel's backlog.
        if next.is_none() {
            ready.push(PollFd::new(listener, PollFlags::IN));
        }
        match poll(&mut ready, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => break Err(error.into()),
        }
        if next.is_none() {
            match listener.accept() {
                Ok(Some(connection)) => next = Some((UnixStream::from(connection), Instant::now())),
                Ok(None) => {}
                Err(error) => {
                    log::error!("cannot accept connections: {error}");
                    // Out of descriptors, most likely: not to be retried in a busy loop.
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    };
    if let Some(thread) = active {
        join(thread, stop);
    }
    result
}

fn start(
    stream: UnixStream,
    device: &Arc<Device>,
    stop: &Stop,
    ended: &Arc<EventFd>,
) -> io::Result<JoinHandle<()>> {
    stop.set_connection(Some(stream.as_fd().try_clone_to_owned()?));
    let (device, ended) = (device.clone(), Ended(ended.clone()));
    thread::Builder::new().name("vhost-user".into()).spawn(move || {
        let _ended = ended;
        match connection::serve(stream, &device) {
            Ok(()) => log::info!("the VM has disconnected"),
            Err(error) => log::error!("the connection to the VM has ended: {error}"),
        }
    })
}

/// Reports the end of a connection's thread, also if it panics.
pub(crate) struct Ended(pub(crate) Arc<EventFd>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Err(error) = self.0.write(1) {
            log::error!("cannot report the end of a connection: {error}");
        }
    }
}

fn join(thread: JoinHandle<()>, stop: &Stop) {
    if thread.join().is_err() {
        log::error!("the connection's thread panicked");
    }
    *stop.lock() = None;
}

/// An event descriptor as one to poll.
pub(crate) fn borrow(event: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is the EventFd's own, open for as long as `event` is borrowed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
