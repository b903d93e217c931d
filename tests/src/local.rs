//! A program of this host against the daemon's local socket: the same guest library, the same daemon, no VM.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::supervise;

use crate::programs::Programs;

/// How programs of this host are run against a daemon.
#[derive(Clone, Debug)]
pub struct Local {
    /// The daemon's local socket.
    pub socket: PathBuf,
    /// The folder of libcuda.so.1.
    pub libcuda: PathBuf,
    /// The programs.
    pub programs: Programs,
}

impl Local {
    /// A program with its environment; nothing runs yet.
    #[must_use]
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.path(program));
        let runtime = self.programs.runtime_library.parent().unwrap_or(Path::new("/"));
        let path = std::env::join_paths([self.libcuda.as_path(), runtime]).unwrap_or_default();
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", path)
            .env("VGPU_TRANSPORT", "local")
            .env("VGPU_SOCKET", &self.socket)
            .env("VGPU_LOG", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts a program; its output is collected.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(program, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        supervise::spawn(command).with_context(|| format!("cannot start {program}"))
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// When it does not start, or has not ended after two minutes (it is killed then).
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        finish(self.spawn(program, arguments)?, Duration::from_secs(120))
            .with_context(|| format!("{program} {}", arguments.join(" ")))
    }

    /// Runs a program that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it printed is part of the error.
    pub fn check(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{program} {}: {}\n{out}{err}", arguments.join(" "), output.status);
        Ok(out.into_owned())
    }
}

/// Waits for a child's end and its output.
///
/// # Errors
/// When it has not ended in time; it is killed then.
pub fn finish(mut child: Child, limit: Duration) -> Result<Output> {
    let begin = Instant::now();
    // Read while it runs: a full pipe would hold it.
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // What was read before an error is still worth showing.
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let out = read(child.stdout.take().map(|p| Box::new(p) as _));
    let err = read(child.stderr.take().map(|p| Box::new(p) as _));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Ok(status);
        }
        if begin.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break Err(anyhow::anyhow!("it did not end in {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    match status {
        Ok(status) => Ok(Output { status, stdout, stderr }),
        Err(error) => Err(error.context(format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ))),
    }
}
