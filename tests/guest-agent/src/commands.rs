//! Running commands: several at once, each in a process group of its own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use anyhow::{Context, Result};
use guest_agent::{CHUNK, Command, Event, Exit, RequestId, Stream};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::Replies;
use crate::device_nodes::DeviceNodes;

/// The process groups that run now.
type Running = Arc<Mutex<HashMap<RequestId, Pid>>>;

pub(crate) struct Commands {
    replies: Replies,
    nodes: DeviceNodes,
    running: Running,
}

impl Commands {
    pub(crate) fn new(replies: Replies, nodes: DeviceNodes) -> Self {
        Self { replies, nodes, running: Running::default() }
    }

    /// Starts a command; threads of its own send its output and its end.
    pub(crate) fn start(&self, id: RequestId, command: Command, input: Vec<u8>) -> Result<()> {
        self.nodes.settle();
        let (program, arguments) = command.argv.split_first().context("an empty command")?;
        let home = if command.uid == 0 { "/root" } else { "/home/user" };
        let mut child = std::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/sbin")
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .envs(command.env)
            .current_dir(&command.cwd)
            .uid(command.uid)
            .gid(command.uid)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;

        let group = Pid::from_child(&child);
        if let Ok(mut running) = self.running.lock() {
            running.insert(id, group);
        }
        if let Some(mut pipe) = child.stdin.take() {
            // A command need not read its input: EPIPE is no failure.
            spawn(move || drop(pipe.write_all(&input)));
        }
        let outputs = [
            child.stdout.take().map(|pipe| forward(self.replies.clone(), id, Stream::Stdout, pipe)),
            child.stderr.take().map(|pipe| forward(self.replies.clone(), id, Stream::Stderr, pipe)),
        ];
        let (replies, running) = (self.replies.clone(), Arc::clone(&self.running));
        spawn(move || {
            // The leader stays a zombie until every writer is gone, so that its id still names the group for a signal.
            let _ = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            for output in outputs.into_iter().flatten() {
                let _ = output.join();
            }
            if let Ok(mut running) = running.lock() {
                running.remove(&id);
            }
            let _ = replies.send(id, &end_of(&mut child), &[]);
        });
        Ok(())
    }

    /// Sends a signal to a command and its descendants. One that has ended is left alone.
    pub(crate) fn signal(&self, id: RequestId, signal: i32) {
        if let (Ok(running), Some(signal)) = (self.running.lock(), Signal::from_named_raw(signal))
            && let Some(group) = running.get(&id)
        {
            let _ = kill_process_group(*group, signal);
        }
    }
}

fn end_of(child: &mut Child) -> Event {
    match child.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Event::Exit(Exit::Code(code)),
            (None, Some(signal)) => Event::Exit(Exit::Signal(signal)),
            (None, None) => Event::Failed(format!("an unknown end: {status}")),
        },
        Err(error) => Event::Failed(format!("cannot wait: {error}")),
    }
}

/// Sends what comes out of `pipe` until its last writer has closed it.
fn forward(
    replies: Replies,
    id: RequestId,
    stream: Stream,
    mut pipe: impl Read + Send + 'static,
) -> JoinHandle<()> {
    spawn(move || {
        let mut chunk = vec![0; CHUNK];
        loop {
            match pipe.read(&mut chunk) {
                Ok(0) => return,
                Ok(length) => {
                    if replies
                        .send(id, &Event::Output(stream), chunk.get(..length).unwrap_or_default())
                        .is_err()
                    {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })
}
