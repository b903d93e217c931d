//! A small QMP client: one command at a time, and the events that come in between.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer a command. Under load it answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to QEMU's monitor.
pub struct Qmp {
    stream: BufReader<UnixStream>,
    line: String,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// When nobody listens, or what answers is no QMP.
    pub fn connect(path: &Path) -> Result<Self> {
        let deadline = Instant::now() + ANSWER;
        let stream = loop {
            match UnixStream::connect(path) {
                // The socket is there a moment before QEMU listens on it.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                connected => break connected.context("QEMU's monitor does not answer")?,
            }
        };
        let mut qmp = Self { stream: BufReader::new(stream), line: String::new(), events: VecDeque::new() };
        let greeting = qmp.receive(Instant::now() + ANSWER)?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU's monitor greets with {greeting}");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Carries out a command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses the command (with QEMU's reason) or does not answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let order = json!({"execute": command, "arguments": arguments});
        self.stream
            .get_mut()
            .write_all(format!("{order}\n").as_bytes())
            .with_context(|| format!("QMP {command}"))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let mut answer = self.receive(deadline).with_context(|| format!("QMP {command}"))?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QMP {command}: {}", error.get("desc").unwrap_or(error));
            }
            self.events.push_back(answer);
        }
    }

    /// Waits for an event of this name, which may have come already, and returns it.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        let is_it = |event: &Value| event.get("event").is_some_and(|it| it == name);
        if let Some(index) = self.events.iter().position(is_it) {
            return self.events.remove(index).ok_or_else(|| anyhow!("the event {name} is gone"));
        }
        loop {
            let event = self.receive(deadline).with_context(|| format!("waiting for QEMU's event {name}"))?;
            if is_it(&event) {
                return Ok(event);
            }
            self.events.push_back(event);
        }
    }

    /// One message. A line that was cut by a time limit is kept and goes on with the next call.
    fn receive(&mut self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left))?;
        let read = self.stream.read_line(&mut self.line).context("QEMU does not answer")?;
        if read == 0 {
            bail!("QEMU has closed its monitor");
        }
        serde_json::from_str(&std::mem::take(&mut self.line)).context("no JSON from QEMU's monitor")
    }
}
