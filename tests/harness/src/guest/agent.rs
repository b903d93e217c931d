//! The host's end of the agent's port.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use guest_agent::{Event, Request, RequestId, receive, send};

/// The agent's first message has this id, requests the next ones.
const HELLO: RequestId = RequestId(0);
/// How long the guest may take to accept a piece of a request.
const ACCEPT: Duration = Duration::from_secs(60);

/// The guest said nothing in time, or is gone: what its console shows belongs to the error.
#[derive(Debug)]
pub(super) struct Silence(&'static str);

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Silence {}

type Answer = (Event, Vec<u8>);
type Waiting = Arc<Mutex<HashMap<RequestId, Sender<Answer>>>>;

pub(super) struct Agent {
    port: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU64,
}

/// The events that answer one request.
pub(super) struct Answers {
    pub(super) id: RequestId,
    events: Receiver<Answer>,
}

impl Answers {
    /// The next event.
    pub(super) fn next(&self, deadline: Instant) -> Result<Answer> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        let left = deadline.saturating_duration_since(Instant::now());
        self.events.recv_timeout(left).map_err(|error| match error {
            Timeout => anyhow!(Silence("the guest did not answer in time")),
            Disconnected => anyhow!(Silence("the guest or its agent has ended")),
        })
    }
}

impl Agent {
    /// Connects to the port. The guest need not run yet; [`Agent::hello`] waits for it.
    pub(super) fn connect(path: &Path) -> Result<(Self, Answers)> {
        let port = UnixStream::connect(path).context("QEMU's socket for the agent")?;
        port.set_write_timeout(Some(ACCEPT))?;
        let mut incoming = port.try_clone()?;
        let waiting = Waiting::default();
        let (hello, events) = channel();
        lock(&waiting).insert(HELLO, hello);
        let listeners = Arc::clone(&waiting);
        std::thread::spawn(move || {
            while let Ok((envelope, body)) = receive::<Event>(&mut incoming) {
                // A request whose caller has given up has no listener any more.
                if let Some(listener) = lock(&listeners).get(&envelope.id) {
                    let _ = listener.send((envelope.message, body));
                }
            }
            // Those who still wait learn that nothing comes.
            lock(&listeners).clear();
        });
        let agent = Self { port: Mutex::new(port), waiting, next: AtomicU64::new(1) };
        Ok((agent, Answers { id: HELLO, events }))
    }

    /// Sends a request whose answers the caller follows. [`Agent::forget`] ends that.
    pub(super) fn start(&self, request: &Request, body: &[u8]) -> Result<Answers> {
        let id = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (listener, events) = channel();
        lock(&self.waiting).insert(id, listener);
        self.send(id, request, body)?;
        Ok(Answers { id, events })
    }

    /// Sends a signal to the command of another request.
    pub(super) fn signal(&self, id: RequestId, signal: i32) -> Result<()> {
        self.send(id, &Request::Signal(signal), &[])
    }

    /// Sends a request that has no answer.
    pub(super) fn post(&self, request: &Request) -> Result<()> {
        self.send(RequestId(self.next.fetch_add(1, Ordering::Relaxed)), request, &[])
    }

    /// Stops listening for a request's answers.
    pub(super) fn forget(&self, id: RequestId) {
        lock(&self.waiting).remove(&id);
    }

    /// Sends a request and collects its data until it is done.
    pub(super) fn ask(&self, request: &Request, body: &[u8], deadline: Instant) -> Result<Vec<u8>> {
        let answers = self.start(request, body)?;
        let mut data = Vec::new();
        let result = loop {
            match answers.next(deadline) {
                Ok((Event::Data, piece)) => data.extend(piece),
                Ok((Event::Done, _)) => break Ok(data),
                Ok((Event::Failed(reason), _)) => break Err(anyhow!(reason)),
                Ok((other, _)) => break Err(anyhow!("the agent answered {other:?}")),
                Err(error) => break Err(error),
            }
        };
        self.forget(answers.id);
        result
    }

    /// Waits for the agent's first word: the kernel's release.
    pub(super) fn hello(&self, first: &Answers, deadline: Instant) -> Result<String> {
        match first.next(deadline)? {
            (Event::Hello { kernel }, _) => Ok(kernel),
            (other, _) => bail!("the agent began with {other:?}"),
        }
    }

    /// Closes the connection: whatever was under way is over, and QEMU takes the next one.
    pub(super) fn hang_up(&self) {
        // An error means that QEMU has closed it already.
        let _ = self.port.lock().unwrap_or_else(PoisonError::into_inner).shutdown(std::net::Shutdown::Both);
    }

    fn send(&self, id: RequestId, request: &Request, body: &[u8]) -> Result<()> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        send(&mut *port, id, request, body).and_then(|()| port.flush()).map_err(|error| {
            anyhow!(Silence("the guest does not take requests any more")).context(error.to_string())
        })
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<RequestId, Sender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
