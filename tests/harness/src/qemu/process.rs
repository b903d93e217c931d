//! A running QEMU.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::{Console, Machine, Qemu, Qmp, shell_line};
use crate::supervise;

/// How long QEMU may take to open its sockets, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How much of a log a failure shows.
const TAIL_LINES: usize = 25;

/// A running QEMU. Dropping it kills it.
pub struct Process {
    child: Child,
    exited: Option<ExitStatus>,
    qmp: Option<Qmp>,
    line: String,
    dir: TempDir,
}

impl Process {
    pub(super) fn start(machine: &Machine, qemu: &Qemu) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vgpu-guest-").tempdir()?;
        let mut command = machine.command(qemu, dir.path());
        let line = shell_line(&command, " ");
        if machine.console == Console::File {
            command.stdin(Stdio::null());
        }
        command.stdout(if machine.console == Console::File { Stdio::null() } else { Stdio::inherit() });
        command.stderr(File::create(dir.path().join("stderr"))?);
        let child = supervise::spawn(command).with_context(|| format!("QEMU does not start: {line}"))?;
        let mut process = Self { child, exited: None, qmp: None, line, dir };
        process.await_socket("qmp")?;
        process.qmp =
            Some(Qmp::connect(&process.dir.path().join("qmp")).map_err(|error| process.explain(error))?);
        Ok(process)
    }

    /// The command line that it was started with.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The folder with its sockets and logs; gone when this is dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its monitor.
    ///
    /// # Errors
    /// Never after a start that succeeded.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        self.qmp.as_mut().context("no monitor")
    }

    /// Carries out a monitor command.
    ///
    /// # Errors
    /// When QEMU refuses it (with QEMU's reason), does not answer, or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp()?.execute(command, arguments).map_err(|error| self.explain(error))
    }

    /// Everything that the guest wrote to its console.
    #[must_use]
    pub fn console(&self) -> String {
        self.log("console")
    }

    /// Everything that QEMU itself said.
    #[must_use]
    pub fn messages(&self) -> String {
        self.log("stderr")
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
        }
        self.exited
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(self.explain(anyhow!("QEMU still runs after {} s", limit.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.exited = self.child.wait().ok();
    }

    /// Adds to an error what a person needs to understand it: how QEMU ended, what it and the guest said last.
    #[must_use]
    pub fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        // An abort may be under way: its message comes first, the end a moment later.
        let deadline = Instant::now() + Duration::from_millis(500);
        while self.exited().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let state =
            self.exited().map_or("QEMU still runs".to_owned(), |status| format!("QEMU ended: {status}"));
        let messages = tail(&self.messages());
        let console = tail(&self.console());
        anyhow!(
            "{error:#}\n{state}\n--- QEMU said:\n{messages}\n--- end of the guest's console:\n{console}\n--- started as:\n{}\n---",
            self.line
        )
    }

    /// Waits until QEMU listens on one of its sockets.
    pub(crate) fn await_socket(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        let deadline = Instant::now() + START;
        while !path.exists() {
            if self.exited().is_some() || Instant::now() > deadline {
                return Err(self.explain(anyhow!("QEMU has not opened its socket {name}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(path)
    }

    fn log(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join(name)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.kill();
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
}
