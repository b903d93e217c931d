//! A booted guest: run commands in it, move files in and out.
//!
//! ```no_run
//! use harness::{guest::Boot, kernel::Series};
//! let guest = Boot::new(Series::V6_1).start()?;
//! let output = guest.run("id -u").user(1000).output()?;
//! assert_eq!(output.stdout, b"1000\n");
//! # anyhow::Ok(())
//! ```

mod agent;
mod boot;
mod command;
mod installed;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
pub use guest_agent::Exit;
use guest_agent::{CHUNK, Request};
use serde_json::Value;

pub use boot::Boot;
pub(crate) use boot::agent_program;
pub use command::{Output, Run, Running};

use crate::qemu::{Process, Version};
use agent::Agent;

/// How long a guest may take from the start of QEMU to its agent's first word. Alone it takes a few seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a command or the transfer of a file may take unless its caller says otherwise.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a guest may take to switch itself off.
const OFF_LIMIT: Duration = Duration::from_secs(30);

/// A running guest. Dropping it kills it. Its methods take `&self`: several threads may use one guest.
pub struct Guest {
    agent: Agent,
    process: Mutex<Process>,
    console: PathBuf,
    kernel: String,
    version: Version,
    booted_in: Duration,
    /// How long a boot may take.
    limit: Duration,
}

impl Guest {
    /// A shell command to run. See [`Run`] for what can be said about it.
    pub fn run(&self, command: &str) -> Run<'_> {
        self.exec(["/bin/sh", "-c", command])
    }

    /// A program to run, with its arguments and without a shell.
    pub fn exec<S: Into<String>>(&self, argv: impl IntoIterator<Item = S>) -> Run<'_> {
        Run::new(self, argv.into_iter().map(Into::into).collect())
    }

    /// Writes a file in the guest, with its folders.
    ///
    /// # Errors
    /// When the guest cannot write it or does not answer.
    pub fn write_file(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let first = bytes.len().min(CHUNK);
        let (first, rest) = bytes.split_at(first);
        for (index, chunk) in std::iter::once(first).chain(rest.chunks(CHUNK)).enumerate() {
            let request = Request::Write { path: path.to_owned(), mode, append: index > 0 };
            self.ask(&request, chunk).with_context(|| format!("writing {path} in the guest"))?;
        }
        Ok(())
    }

    /// Copies a file of this machine into the guest, with its permissions.
    ///
    /// # Errors
    /// When the file cannot be read here or written there.
    pub fn push(&self, source: &Path, path: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let bytes = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.write_file(path, &bytes, std::fs::metadata(source)?.permissions().mode() & 0o7777)
    }

    /// Reads a file in the guest.
    ///
    /// # Errors
    /// When the guest cannot read it or does not answer.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let request = Request::Read { path: path.to_owned() };
        self.ask(&request, &[]).with_context(|| format!("reading {path} in the guest"))
    }

    /// Loads a kernel module built for this guest's kernel. Nodes that it makes are usable when this returns.
    ///
    /// # Errors
    /// When the kernel refuses it; the guest's messages are part of the error.
    pub fn load_module(&self, file: &Path, parameters: &str) -> Result<()> {
        let name = file.file_name().context("a module without a name")?.to_string_lossy();
        let path = format!("/lib/modules/{name}");
        self.push(file, &path)?;
        self.run(&format!("insmod {path} {parameters}")).check().map(drop)
    }

    /// The guest kernel's release, as it says itself.
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// The version of QEMU that it runs on.
    #[must_use]
    pub fn qemu_version(&self) -> Version {
        self.version
    }

    /// How long it took from the start of QEMU until the agent answered.
    #[must_use]
    pub fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// Everything on its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Carries out a monitor command.
    ///
    /// # Errors
    /// When QEMU refuses it (with QEMU's reason), does not answer, or is gone.
    pub fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        self.process().execute(command, arguments)
    }

    /// Its QEMU: monitor commands, messages, process id. Other uses of the guest that need it wait meanwhile.
    pub fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets it by `reset` (a monitor command, or something in the guest) and waits until the agent of the new boot answers.
    /// Needs [`Machine::reboot`](crate::qemu::Machine::reboot). Commands that ran are gone without an answer.
    ///
    /// # Errors
    /// When `reset` fails, or the guest does not come up again in two minutes; a whole system in ten.
    pub fn reboot(&mut self, reset: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        reset(self)?;
        // A new connection for the new boot: on the old one a message may have been cut.
        self.agent.hang_up();
        let port = self.process().dir().join("agent");
        let agent = Agent::connect(&port).and_then(|(agent, first)| {
            let kernel = agent.hello(&first, begin + self.limit)?;
            agent.forget(first.id);
            Ok((agent, kernel))
        });
        let (agent, kernel) =
            agent.map_err(|error| self.explain(error.context("the guest did not come up again")))?;
        (self.agent, self.kernel, self.booted_in) = (agent, kernel, begin.elapsed());
        Ok(())
    }

    /// Switches it off and waits until QEMU has ended.
    ///
    /// # Errors
    /// When it does not go off, or QEMU ends with a failure.
    pub fn shutdown(self) -> Result<()> {
        self.agent.post(&Request::PowerOff)?;
        let status: ExitStatus = self.process().wait(OFF_LIMIT)?;
        ensure!(status.success(), "QEMU ended with {status}: {}", self.process().messages());
        Ok(())
    }

    /// Sends a request that ends with `Done`, and returns the data that came.
    fn ask(&self, request: &Request, body: &[u8]) -> Result<Vec<u8>> {
        let deadline = Instant::now() + LIMIT;
        let answer = self.agent.ask(request, body, deadline);
        answer.map_err(|error| if error.is::<agent::Silence>() { self.explain(error) } else { error })
    }

    /// Adds what QEMU and the guest said last; only the guest if another user of QEMU holds it now.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match self.process.try_lock() {
            Ok(mut process) => process.explain(error),
            Err(TryLockError::Poisoned(process)) => process.into_inner().explain(error),
            Err(TryLockError::WouldBlock) => {
                error.context(format!("the guest's console:\n{}", self.console()))
            }
        }
    }
}
