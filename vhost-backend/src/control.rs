//! The control socket: who may open it asks about the VM and changes what may change while it runs.
//!
//! A thread takes connections, each of which has a thread of its own: a suspend takes seconds, in which others may ask.

use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use mediator::{Settings, Vm};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SocketType;
use vgpu_control::{ANSWER_BYTES_MAX, Answer, REQUEST_BYTES_MAX, Request, VmReport, read_line};

use crate::configuration::{Chosen, Sources};
use crate::named;
use crate::socket::{BindError, Listener, OWNER_ONLY};

/// Connections at once; more are told so.
const CONNECTIONS_MAX: usize = 16;
/// For how long a connection may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// How long to wait before a VM is tried again that is to come back and for which there is no room: longer each time, up to the second.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// What answers.
pub(crate) struct Controls {
    /// None once it was shut down.
    pub(crate) vm: Box<dyn Fn() -> Option<Arc<Vm>> + Send + Sync>,
    /// The VM as it is now.
    pub(crate) report: Box<dyn Fn(&Vm) -> VmReport + Send + Sync>,
    /// The settings are others from now on: for who shows them.
    pub(crate) changed: Box<dyn Fn(&Settings) + Send + Sync>,
    /// Held while settings are read, changed and told: of two changes none is lost.
    pub(crate) changing: Mutex<()>,
    /// What the settings are read from.
    pub(crate) sources: Sources,
    /// What they came to at the start.
    pub(crate) at_start: Chosen,
}

/// Listens on the VM's control socket in a state folder, which is made if it is not there.
///
/// # Errors
/// Another daemon serves a VM of this number, or the kernel refuses.
pub(crate) fn bind(state_dir: &Path, vm_id: u32) -> Result<Listener, BindError> {
    let path = vgpu_control::socket_path(state_dir, vm_id);
    std::fs::create_dir_all(state_dir).map_err(|source| BindError::Io { path: state_dir.into(), source })?;
    Listener::bind(&path, SocketType::STREAM, OWNER_ONLY)
}

/// Starts the thread, which ends with the process.
///
/// # Errors
/// It cannot be started.
pub(crate) fn start(listener: Arc<Listener>, controls: Controls) -> io::Result<()> {
    let controls = Arc::new(controls);
    let count = Arc::new(AtomicUsize::new(0));
    thread::Builder::new().name("control".into()).spawn(move || {
        loop {
            match poll(&mut [PollFd::new(&listener.as_fd(), PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return log::error!("the control socket: {error}; vgpuctl reaches this VM no more");
                }
            }
            match listener.accept() {
                Ok(Some(connection)) => take(UnixStream::from(connection), &controls, &count),
                Ok(None) => {}
                Err(error) => {
                    log::warn!("the control socket: {error}");
                    // Out of descriptors, most likely: it goes on when there are some again.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    })?;
    Ok(())
}

fn take(stream: UnixStream, controls: &Arc<Controls>, count: &Arc<AtomicUsize>) {
    if count.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        count.fetch_sub(1, Ordering::Relaxed);
        let reason = format!("{CONNECTIONS_MAX} connections are open already");
        // Who does not read it has gone.
        let _ = answer(&stream, &Answer::Refused { reason });
        return;
    }
    let (controls, ours) = (Arc::clone(controls), Arc::clone(count));
    let spawned = thread::Builder::new().name("control".into()).spawn(move || {
        if let Err(error) = serve(&stream, &controls) {
            log::debug!("a control connection: {error}");
        }
        ours.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = spawned {
        count.fetch_sub(1, Ordering::Relaxed);
        log::warn!("no thread for a control connection: {error}");
    }
}

fn serve(stream: &UnixStream, controls: &Controls) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let who = rustix::net::sockopt::socket_peercred(stream)
        .map_or_else(|_| "somebody".to_owned(), |peer| format!("user {}", peer.uid.as_raw()));
    let mut lines = BufReader::new(stream);
    // The suspend that is to end with the connection.
    let mut held = None;
    let ended = loop {
        let line = match read_line(&mut lines, REQUEST_BYTES_MAX) {
            Ok(Some(line)) => line,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let said = match serde_json::from_slice(&line) {
            Ok(request) => {
                let said = controls.carry_out(&request, &who);
                if request == (Request::Suspend { while_connected: true })
                    && matches!(said, Answer::Done { .. })
                {
                    held = controls.suspended_since();
                }
                said
            }
            Err(error) => refused(format!("this is no request: {error}")),
        };
        // Who holds a VM off the GPU may be silent for as long as it likes.
        let limit = if held.is_some() { None } else { Some(IDLE) };
        if let Err(error) = stream.set_read_timeout(limit).and_then(|()| answer(stream, &said)) {
            break Err(error);
        }
    };
    if let Some(since) = held {
        controls.come_back(since);
    }
    ended
}

fn answer(mut stream: &UnixStream, said: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    if line.len() as u64 > ANSWER_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    stream.write_all(&line)
}

fn done(line: impl Into<String>) -> Answer {
    Answer::Done { lines: vec![line.into()] }
}

fn refused(reason: impl ToString) -> Answer {
    Answer::Refused { reason: reason.to_string() }
}

impl Controls {
    fn carry_out(&self, request: &Request, who: &str) -> Answer {
        let Some(vm) = (self.vm)() else { return refused("the daemon is ending") };
        if *request != Request::Show {
            log::info!("VM {}: {who} asks for {request:?}", self.sources.vm_id);
        }
        match request {
            Request::Show => Answer::Vm(Box::new((self.report)(&vm))),
            Request::Set { settings } => {
                let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
                let mut changed = vm.settings();
                for (name, text) in settings {
                    if let Err(what) = named::apply(&mut changed, name, text) {
                        return refused(format!("{name}: {what}"));
                    }
                }
                self.change(&vm, changed, Vec::new())
            }
            Request::Quarantine { seconds } => match seconds.map(Duration::try_from_secs_f64).transpose() {
                Ok(Some(Duration::ZERO)) | Err(_) => refused("a quarantine lasts for longer than nothing"),
                Ok(lasts) => {
                    vm.quarantine(lasts);
                    done(match lasts {
                        Some(lasts) => format!("quarantined for {}", humantime::format_duration(lasts)),
                        None => "quarantined until it is cleared".to_owned(),
                    })
                }
            },
            Request::Clear => match vm.clear_quarantine() {
                true => done("the quarantine has ended"),
                false => done("there was no quarantine"),
            },
            Request::Reload => {
                let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
                match self.sources.read() {
                    Ok(chosen) => {
                        let later = self.later(&chosen);
                        self.change(&vm, chosen.settings, later)
                    }
                    Err(error) => refused(error),
                }
            }
            Request::Suspend { .. } => match vm.suspend() {
                Ok(suspended) => done(format!(
                    "suspended: {} session(s), {} MiB of device memory in host memory, in {}",
                    suspended.sessions,
                    suspended.moved_bytes >> 20,
                    humantime::format_duration(Duration::from_millis(
                        u64::try_from(suspended.took.as_millis()).unwrap_or(u64::MAX)
                    ))
                )),
                Err(error) => refused(error),
            },
            Request::Resume => match vm.resume_from_suspend() {
                Ok(_) => done("resumed"),
                Err(error) => refused(error),
            },
        }
    }

    fn suspended_since(&self) -> Option<SystemTime> {
        (self.vm)()?.suspended().map(|suspended| suspended.since)
    }

    /// Resumes the VM, if this is still the suspend that it is in: as soon as there is room for it.
    fn come_back(&self, since: SystemTime) {
        let [mut wait, longest] = AGAIN;
        while self.suspended_since() == Some(since) {
            let Some(vm) = (self.vm)() else { return };
            log::info!("VM {}: whoever has suspended it is gone: it comes back", self.sources.vm_id);
            if vm.resume_from_suspend().is_ok() {
                return;
            }
            drop(vm);
            thread::sleep(wait);
            wait = wait.saturating_mul(2).min(longest);
        }
    }

    /// Changes the settings, and says how they differ from before.
    fn change(&self, vm: &Vm, changed: Settings, later: Vec<String>) -> Answer {
        let before = named::texts(&vm.settings());
        if let Err(name) = vm.change_settings(changed) {
            return refused(format!("setting {name} is out of range"));
        }
        (self.changed)(&changed);
        let both = before.iter().zip(named::texts(&changed));
        let mut lines: Vec<String> = both
            .filter(|((_, before), (_, after))| before != after)
            .map(|((name, before), (_, after))| format!("{name}: {before} -> {after}"))
            .collect();
        if lines.is_empty() {
            lines.push("no setting has changed".to_owned());
        }
        lines.extend(later);
        Answer::Done { lines }
    }

    /// What the file says now that a running daemon cannot take over.
    fn later(&self, chosen: &Chosen) -> Vec<String> {
        let Chosen { name, pool, gpus, state_dir, .. } = &self.at_start;
        let differ = [
            ("name", *name != chosen.name),
            ("pool", *pool != chosen.pool),
            ("the pool's gpus", *gpus != chosen.gpus),
            ("state-dir", *state_dir != chosen.state_dir),
        ];
        let differ = differ.iter().filter(|(_, differs)| *differs);
        differ.map(|(what, _)| format!("{what}: changes when the VM's daemon is started anew")).collect()
    }
}
