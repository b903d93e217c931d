//! Where test programs run: on this host through the daemon's local socket, or in a VM. A check that is written once runs in both.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::guest::{Exit, Running};
use harness::supervise;

use crate::daemon::Daemon;
use crate::local::{self, Local};
use crate::vm::{PROGRAMS, USER, Vm};

/// How long a program may run.
const LIMIT: Duration = Duration::from_secs(170);
/// How long a program may take until it says that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A daemon, and a place where programs reach it.
pub enum Place {
    /// Processes of this host.
    Local(Daemon, Local),
    /// Processes of a VM.
    Vm(Box<Vm>),
}

/// How a program ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its status, if it returned one.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A program that is to run.
pub struct Job<'a> {
    place: &'a Place,
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

enum Process<'a> {
    Local(Child),
    Vm(Running<'a>),
}

/// A program that runs.
pub struct Started<'a> {
    place: &'a Place,
    process: Process<'a>,
    name: String,
    ready: String,
    stop: String,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    /// The daemon.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        match self {
            Place::Local(daemon, _) => daemon,
            Place::Vm(vm) => &vm.daemon,
        }
    }

    /// Whether there is a VM.
    #[must_use]
    pub fn vm(&self) -> Option<&Vm> {
        match self {
            Place::Local(..) => None,
            Place::Vm(vm) => Some(vm),
        }
    }

    /// A program with its arguments, separated by spaces.
    #[must_use]
    pub fn job(&self, line: &str) -> Job<'_> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let program = words.next().unwrap_or_default();
        Job { place: self, program, arguments: words.collect(), environment: Vec::new() }
    }

    /// Runs a program that must succeed and say that it found everything right; what it printed.
    ///
    /// # Errors
    /// When it fails; what it and the daemon said is part of the error.
    pub fn check(&self, line: &str) -> Result<String> {
        self.job(line).check()
    }

    /// Starts a program and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, or ends before it is ready.
    pub fn start(&self, line: &str) -> Result<Started<'_>> {
        let mut started = self.job(line).start()?;
        started.ready()?;
        Ok(started)
    }

    /// The worker of a process, by the daemon's log.
    ///
    /// # Errors
    /// When the log names none.
    pub fn worker_of(&self, process: i32) -> Result<i32> {
        let opened = format!("opened: guest process {process} ");
        let log = self.daemon().log();
        let line = log.iter().rev().find(|l| l.contains(&opened)).with_context(|| {
            format!("the daemon's log names no worker of process {process}:\n{}", self.daemon().log_tail())
        })?;
        let worker = line.rsplit("worker ").next().and_then(|w| w.trim().parse().ok());
        worker.with_context(|| format!("no worker in: {line}"))
    }

    /// Waits until a total has this value.
    ///
    /// # Errors
    /// When it has not, in time.
    pub fn wait_for_total(&self, name: &str, value: u64, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let totals = self.daemon().totals()?;
            if totals.get(name) == Some(value) {
                return Ok(());
            }
            if begin.elapsed() > limit {
                bail!("{name} is not {value} after {limit:?}: {totals}\n{}", self.daemon().log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills a process, and no other of its group.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill(&self, process: i32) -> Result<()> {
        match self {
            Place::Local(..) => kill_here(process),
            Place::Vm(vm) => vm.guest.run(&format!("kill -9 {process}")).check().map(drop),
        }
    }
}

/// Kills a process of this host.
///
/// # Errors
/// When there is none.
pub fn kill_here(process: i32) -> Result<()> {
    ensure!(process > 1, "no process {process}");
    // SAFETY: sends a signal to one process, whose id this test was told by itself or by the daemon.
    let sent = unsafe { libc::kill(process, libc::SIGKILL) };
    ensure!(sent == 0, "process {process}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Waits until a process of this host is gone, for good: reaped, not only dead.
///
/// # Errors
/// When it still is there.
pub fn wait_gone(process: i32, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    while Path::new(&format!("/proc/{process}")).exists() {
        ensure!(begin.elapsed() < limit, "process {process} is still there after {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl<'a> Job<'a> {
    /// With this variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self) -> Result<Started<'a>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{} {}", self.program, self.arguments.join(" "));
        let (process, ready, stop, folder) = match self.place {
            Place::Local(_, local) => {
                let folder = tempfile::tempdir()?;
                let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
                let (ready, stop) = (file("ready"), file("stop"));
                let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
                let mut command = local.command(&self.program, &arguments);
                command.envs(self.environment).env("VGPU_READY", &ready).env("VGPU_STOP", &stop);
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                let child = supervise::spawn(command).with_context(|| format!("cannot start {name}"))?;
                (Process::Local(child), ready, stop, Some(folder))
            }
            Place::Vm(vm) => {
                let (ready, stop) = (format!("/tmp/ready-{number}"), format!("/tmp/stop-{number}"));
                let program = format!("{PROGRAMS}/{}", self.program);
                let mut run = vm
                    .guest
                    .exec(std::iter::once(program).chain(self.arguments))
                    .user(USER)
                    .env("VGPU_LOG", "1")
                    .env("VGPU_READY", &ready)
                    .env("VGPU_STOP", &stop)
                    .timeout(LIMIT);
                for (name, value) in &self.environment {
                    run = run.env(name, value);
                }
                (Process::Vm(run.spawn()?), ready, stop, None)
            }
        };
        Ok(Started { place: self.place, process, name, ready, stop, _folder: folder })
    }

    /// Runs it; it must succeed and say that it found everything right. What it printed.
    ///
    /// # Errors
    /// When it fails; what it and the daemon said is part of the error.
    pub fn check(self) -> Result<String> {
        self.start()?.check()
    }
}

impl Started<'_> {
    /// Waits until it says that it is ready: its process id and its child's.
    ///
    /// # Errors
    /// When it ends before, or does not say so in time.
    pub fn ready(&mut self) -> Result<(i32, i32)> {
        let begin = Instant::now();
        loop {
            let said = match self.place {
                Place::Local(..) => fs::read(&self.ready).ok(),
                Place::Vm(vm) => vm.guest.read_file(&self.ready).ok(),
            };
            if let Some(said) = said {
                let text = String::from_utf8_lossy(&said).into_owned();
                let ids: Vec<i32> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
                return match ids[..] {
                    [process, child] => Ok((process, child)),
                    _ => bail!("{} says {text:?}", self.name),
                };
            }
            let ended = match &mut self.process {
                Process::Local(child) => child.try_wait()?.is_some(),
                Process::Vm(_) => false,
            };
            ensure!(
                !ended && begin.elapsed() < READY_LIMIT,
                "{} is not ready{}; the daemon's log:\n{}",
                self.name,
                if ended { ", it has ended" } else { "" },
                self.place.daemon().log_tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes the file that it looks for, with this in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tell(&self, text: &str) -> Result<()> {
        match self.place {
            Place::Local(..) => fs::write(&self.stop, text).context(self.stop.clone()),
            Place::Vm(vm) => vm.guest.write_file(&self.stop, text.as_bytes(), 0o644),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(self) -> Result<Ended> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self.process {
            Process::Local(child) => {
                let output = local::finish(child, LIMIT).with_context(|| self.name.clone())?;
                Ok(Ended {
                    code: output.status.code(),
                    signal: output.status.signal(),
                    out: text(&output.stdout),
                    err: text(&output.stderr),
                })
            }
            Process::Vm(running) => {
                let output = running.wait()?;
                let (code, signal) = match output.exit {
                    Exit::Code(code) => (Some(code), None),
                    Exit::Signal(signal) => (None, Some(signal)),
                };
                Ok(Ended { code, signal, out: text(&output.stdout), err: text(&output.stderr) })
            }
        }
    }

    /// Waits for its end, which must be success, with everything right. What it printed.
    ///
    /// # Errors
    /// When it fails; what it and the daemon said is part of the error.
    pub fn check(self) -> Result<String> {
        let (place, name) = (self.place, self.name.clone());
        let ended = self.finish()?;
        ensure!(
            ended.code == Some(0) && ended.out.contains("right"),
            "{name}: status {:?}, signal {:?}\n{}{}\nthe daemon's log:\n{}",
            ended.code,
            ended.signal,
            ended.out,
            ended.err,
            place.daemon().log_tail()
        );
        Ok(ended.out)
    }
}
