//! A running daemon.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::supervise;

/// What a daemon writes to its log once it serves.
const LISTENS: &str = ": waiting for ";
/// How much of the log a failure shows.
const TAIL_LINES: usize = 20;
/// How a totals line begins.
const TOTALS: &str = "calls processed:";
/// How long a daemon may take to listen, to write its totals, and to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A daemon of its own for a test, with its log.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    socket: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

/// Which socket it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// For QEMU.
    VhostUser,
    /// For QEMU, which gets a plain PCI function.
    VfioUser,
    /// For processes of this host.
    Local,
}

impl Daemon {
    /// Starts a daemon and waits until it listens. `arguments` go before the socket's.
    ///
    /// # Errors
    /// When it ends before it listens; its log is part of the error.
    pub fn start(program: &Path, listen: Listen, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("vgpu.sock");
        let mut daemon = Self::start_at(program, listen, &socket, arguments)?;
        daemon._folder = Some(folder);
        Ok(daemon)
    }

    /// The same, on a socket whose place is given.
    ///
    /// # Errors
    /// As for [`Daemon::start`].
    pub fn start_at(program: &Path, listen: Listen, socket: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_logging(program, listen, socket, arguments, "info,virtio_queue=off")
    }

    /// The same, with this log filter unless RUST_LOG is set.
    ///
    /// # Errors
    /// As for [`Daemon::start`].
    pub fn start_logging(
        program: &Path,
        listen: Listen,
        socket: &Path,
        arguments: &[&str],
        filter: &str,
    ) -> Result<Self> {
        let flag = match listen {
            Listen::VhostUser | Listen::VfioUser => "--socket-path",
            Listen::Local => "--local-socket",
        };
        let mut command = Command::new(program);
        // Tests run beside one another, and so do their daemons: only those that say where share anything.
        let alone = (!arguments.contains(&"--state-dir")).then_some("--alone");
        let front = (listen == Listen::VfioUser).then_some(["--front", "vfio-user"]);
        command
            .args(arguments)
            .args(alone)
            .args(front.iter().flatten())
            .arg(flag)
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", filter);
        }
        let mut child =
            supervise::spawn(command).with_context(|| format!("cannot start {}", program.display()))?;
        let stderr = child.stderr.take().context("no log")?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&log);
        let show = std::env::var_os("VGPU_TEST_LOG").is_some();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if show {
                    eprintln!("daemon: {line}");
                }
                if let Ok(mut log) = keep.lock() {
                    log.push(line);
                }
            }
        });
        let mut daemon = Daemon { child, log, socket: socket.to_owned(), _folder: None };
        let begin = Instant::now();
        // The socket is there earlier, but what it does on signals is settled only now.
        while !daemon.log().iter().any(|line| line.contains(LISTENS)) {
            if let Some(status) = daemon.child.try_wait()? {
                std::thread::sleep(Duration::from_millis(50));
                bail!("the daemon ended with {status}:\n{}", daemon.log().join("\n"));
            }
            ensure!(begin.elapsed() < LIMIT, "the daemon does not listen:\n{}", daemon.log().join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// The processes that it has started and not yet reaped: its workers, those of no session yet included.
    #[must_use]
    pub fn children(&self) -> Vec<i32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().map(|l| l.clone()).unwrap_or_default()
    }

    /// The end of its log, for the message of a failure.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.iter().map(String::as_str).filter(|l| !l.contains(TOTALS)).collect();
        lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
    }

    /// Waits for a line of the log that contains `text`, from line `from` on.
    ///
    /// # Errors
    /// When none comes; the log is part of the error.
    pub fn wait_for_log(&self, text: &str, from: usize) -> Result<String> {
        let begin = Instant::now();
        loop {
            if let Some(line) = self.log().iter().skip(from).find(|l| l.contains(text)) {
                return Ok(line.clone());
            }
            ensure!(begin.elapsed() < LIMIT, "the daemon's log has no {text:?}:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its totals now, as it writes them to its log: the numbers by name.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn totals(&self) -> Result<Totals> {
        let seen = self.log().len();
        // SAFETY: signals a child of ours, which is not reaped before `self` ends.
        unsafe { libc::kill(self.pid(), libc::SIGUSR1) };
        let line = self.wait_for_log(TOTALS, seen)?;
        Ok(Totals::parse(&line))
    }

    /// Suspends its VM, or resumes it where it is suspended: what it says of that.
    ///
    /// # Errors
    /// When it says that it has not been done.
    pub fn toggle_suspend(&self) -> Result<String> {
        const DONE: [&str; 2] = [" is suspended: ", " goes on after its suspend: "];
        const NOT_DONE: [&str; 2] = [" is not suspended: ", " stays suspended: "];
        let (seen, begin) = (self.log().len(), Instant::now());
        // SAFETY: signals a child of ours, which is not reaped before `self` ends.
        unsafe { libc::kill(self.pid(), libc::SIGUSR2) };
        loop {
            let log = self.log();
            let said = |words: [&str; 2]| log.iter().skip(seen).find(|l| words.iter().any(|w| l.contains(w)));
            if let Some(line) = said(DONE) {
                return Ok(line.clone());
            }
            if let Some(line) = said(NOT_DONE) {
                bail!("{line}");
            }
            ensure!(begin.elapsed() < LIMIT, "the daemon says nothing of its suspend:\n{}", log.join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it and waits: its last totals.
    ///
    /// # Errors
    /// When it does not end by itself, or ends with a failure.
    pub fn stop(mut self) -> Result<Totals> {
        // SAFETY: as above.
        unsafe { libc::kill(self.pid(), libc::SIGTERM) };
        let status = self.wait()?;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.log().join("\n"));
        // The log's reader may be a moment behind.
        let line = self.wait_for_log(TOTALS, 0)?;
        let last = self.log().iter().rev().find(|l| l.contains(TOTALS)).cloned().unwrap_or(line);
        Ok(Totals::parse(&last))
    }

    /// Kills it: no clean-up of its own.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(begin.elapsed() < LIMIT, "the daemon does not end:\n{}", self.log().join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nobody is interested in it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers of a totals line; the first is called `calls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(Vec<(String, u64)>);

impl Totals {
    /// Reads `calls processed: N; name=value name=value …`.
    fn parse(line: &str) -> Self {
        let Some((_, rest)) = line.split_once(TOTALS) else { return Self::default() };
        let mut words = rest.split([' ', ';']).filter(|w| !w.is_empty());
        let calls = words.next().and_then(|n| n.parse().ok()).map(|n| ("calls".to_owned(), n));
        let pairs = words.filter_map(|w| {
            let (name, value) = w.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Totals(calls.into_iter().chain(pairs).collect())
    }

    /// A number by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}: {value}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_totals_line() {
        let totals = super::Totals::parse("[INFO] calls processed: 42; sessions_open=1 kicks=7");
        assert_eq!(
            (totals.get("calls"), totals.get("kicks"), totals.get("wakes")),
            (Some(42), Some(7), None)
        );
    }
}
