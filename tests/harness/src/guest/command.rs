//! Commands in the guest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use guest_agent::{CHUNK, Command, Event, Exit, Request, Stream};

use super::agent::{Answers, Silence};
use super::{Guest, LIMIT};

/// How long a killed command's end may take to arrive.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A command to run in the guest; as root, in `/`, for at most a minute unless told otherwise.
#[must_use = "a command runs only when output, check or spawn is called"]
pub struct Run<'a> {
    guest: &'a Guest,
    command: Command,
    input: Vec<u8>,
    limit: Duration,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its status, or the signal that ended it.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it returned 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// Its standard output as text, without the last line's end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
        write!(f, "{}\n--- stdout:\n{}\n--- stderr:\n{}", self.exit, text(&self.stdout), text(&self.stderr))
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(guest: &'a Guest, argv: Vec<String>) -> Self {
        let command = Command { argv, uid: 0, env: Vec::new(), cwd: "/".to_owned() };
        Self { guest, command, input: Vec::new(), limit: LIMIT }
    }

    /// As this user; 1000 is the guest's ordinary one.
    pub fn user(mut self, uid: u32) -> Self {
        self.command.uid = uid;
        self
    }

    /// With this variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In this folder.
    pub fn cwd(mut self, path: &str) -> Self {
        path.clone_into(&mut self.command.cwd);
        self
    }

    /// With this on its standard input, at most [`CHUNK`] bytes.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// For at most this long, counted from its start; then it is killed.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end. That it failed is no error here.
    ///
    /// # Errors
    /// When it cannot be started, is still running after its time, or the guest does not answer.
    pub fn output(self) -> Result<Output> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, which must be success.
    ///
    /// # Errors
    /// As [`Run::output`], and when the command fails: with its outputs and the end of the guest's kernel messages.
    pub fn check(self) -> Result<Output> {
        let (guest, shown) = (self.guest, self.shown());
        let output = self.output()?;
        if !output.success() {
            let messages = guest
                .run("dmesg | tail -n 15")
                .output()
                .map_or_else(|error| error.to_string(), |it| it.text());
            bail!("in the guest, `{shown}` ended with {output}\n--- kernel:\n{messages}\n---");
        }
        Ok(output)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the guest does not answer. A program that is not there is found out by [`Running::wait`].
    pub fn spawn(self) -> Result<Running<'a>> {
        let shown = self.shown();
        if self.input.len() > CHUNK {
            bail!("`{shown}`: more than {CHUNK} bytes of input");
        }
        let request = Request::Run(self.command);
        let answers =
            self.guest.agent.start(&request, &self.input).map_err(|error| self.guest.explain(error))?;
        Ok(Running {
            guest: self.guest,
            answers,
            shown,
            deadline: Instant::now() + self.limit,
            limit: self.limit,
        })
    }

    fn shown(&self) -> String {
        let words = &self.command.argv;
        words.strip_prefix(&["/bin/sh".to_owned(), "-c".to_owned()]).unwrap_or(words).join(" ")
    }
}

/// A command that runs. Dropping it kills it.
pub struct Running<'a> {
    guest: &'a Guest,
    answers: Answers,
    shown: String,
    deadline: Instant,
    limit: Duration,
}

impl Running<'_> {
    /// Sends it, and the processes that it started, this signal.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.guest.agent.signal(self.answers.id, signal)
    }

    /// Kills it and the processes that it started. [`Running::wait`] tells how it ended.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it cannot be started, is still running after its time (it is killed then), or the guest does not answer.
    pub fn wait(self) -> Result<Output> {
        let mut output = Output { exit: Exit::Code(0), stdout: Vec::new(), stderr: Vec::new() };
        match self.collect(&mut output, self.deadline) {
            Err(error) if error.is::<Silence>() && Instant::now() >= self.deadline => {
                // The guest may be well and only the command slow: then the kill is answered.
                self.kill()?;
                let rest = self.collect(&mut output, Instant::now() + KILL_LIMIT);
                let error =
                    anyhow!("in the guest, `{}` still ran after {} s", self.shown, self.limit.as_secs());
                let error = match rest {
                    Ok(()) => error.context(format!("killed, it had written: {output}")),
                    Err(also) => error.context(format!("and: {also}")),
                };
                Err(self.guest.explain(error))
            }
            Err(error) if error.is::<Silence>() => {
                Err(self.guest.explain(error.context(format!("in the guest, `{}`", self.shown))))
            }
            Err(error) => Err(error).with_context(|| format!("in the guest, `{}`", self.shown)),
            Ok(()) => Ok(output),
        }
    }

    fn collect(&self, output: &mut Output, deadline: Instant) -> Result<()> {
        loop {
            match self.answers.next(deadline)? {
                (Event::Output(Stream::Stdout), piece) => output.stdout.extend(piece),
                (Event::Output(Stream::Stderr), piece) => output.stderr.extend(piece),
                (Event::Exit(exit), _) => {
                    output.exit = exit;
                    return Ok(());
                }
                (Event::Failed(reason), _) => bail!(reason),
                (other, _) => bail!("the agent answered {other:?}"),
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // The agent leaves a command alone that has ended.
        let _ = self.kill();
        self.guest.agent.forget(self.answers.id);
    }
}
