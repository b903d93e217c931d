//! What it costs: the benchmark programs against a daemon with the software executor, and the daemon's own idle cost.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use harness::kernel::Series;
use harness::progress::step;
use harness::wheels::Toolkit;
use serde_json::json;
use whole_stack::artifacts::Profile;
use whole_stack::daemon::Daemon;
use whole_stack::local::{Local, finish};
use whole_stack::vm::{Attach, Stack, Vm};

/// Measure what calls, copies and idling cost (release build, software executor); nothing is asserted
///
/// Without a VM through the daemon's local socket, and in a VM the doorbells of a steady stream of posted calls. Medians and best
/// values; the load average before and after is printed with them, since the numbers mean little on a busy machine.
#[derive(Args)]
pub(crate) struct Bench {
    /// A JSON list instead of the table
    #[arg(long)]
    json: bool,
    /// No VM: without the doorbells
    #[arg(long)]
    no_vm: bool,
    /// Only the VM
    #[arg(long, conflicts_with = "no_vm")]
    only_vm: bool,
}

/// How long an idle process is watched.
const IDLE: Duration = Duration::from_secs(10);
/// What must have come to rest before that: threads that poll before they sleep.
const SETTLE: Duration = Duration::from_secs(1);
/// Posted calls of the stream whose doorbells are counted.
const STREAM: u64 = 20_000;

/// What the measurements are compared with, by the start of their names: at most, or at least.
const TARGETS: &[(&str, Target)] = &[
    ("raw ring post", Target::AtMost(0.5)),
    ("posted ", Target::AtMost(0.5)),
    ("sync cuCtxGetLimit, polling", Target::AtMost(5.0)),
    ("sync cuOccupancy", Target::AtMost(5.0)),
    ("idle ", Target::AtMost(1.0)),
    ("doorbells", Target::AtMost(1.0)),
    ("HtoD 64 MiB of memcpy", Target::AtLeast(60.0)),
    ("DtoH 64 MiB of memcpy", Target::AtLeast(60.0)),
];

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtMost(most) => value <= most,
            Target::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtMost(most) => write!(f, "<= {most}"),
            Target::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// One line of the table.
struct Measured {
    name: String,
    median: f64,
    best: f64,
    unit: String,
}

impl Measured {
    fn single(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Measured { name: name.into(), median: value, best: value, unit: unit.to_owned() }
    }

    /// Lines of `name TAB median TAB best TAB unit`.
    fn read(text: &str) -> Result<Vec<Self>> {
        let line = |line: &str| -> Option<Self> {
            let mut words = line.split('\t');
            Some(Measured {
                name: words.next()?.to_owned(),
                median: words.next()?.parse().ok()?,
                best: words.next()?.parse().ok()?,
                unit: words.next()?.to_owned(),
            })
        };
        text.lines().map(|l| line(l).with_context(|| format!("not a measurement: {l}"))).collect()
    }

    fn target(&self) -> Option<Target> {
        TARGETS.iter().find(|(name, _)| self.name.starts_with(name)).map(|(_, target)| *target)
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let stack = Stack::build(Profile::Release, Toolkit::Cuda13)?;
        let mut all = Vec::new();
        let before = load_average()?;
        if !self.only_vm {
            all.extend(without_vm(&stack)?);
        }
        if !self.no_vm {
            all.push(doorbells(&stack)?);
        }
        let after = load_average()?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if self.json {
            let list: Vec<_> = all
                .iter()
                .map(|m| {
                    let target = m.target().map(|t| t.to_string());
                    json!({"name": m.name, "median": m.median, "best": m.best, "unit": m.unit, "target": target})
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&list)?);
        } else {
            print!("{}", table(&all));
            println!("{processors} processors; load average {before} before, {after} after");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(all: &[Measured]) -> String {
    let mut text = format!("{:<44} {:>10} {:>10} {:<6} target\n", "", "median", "best", "");
    for m in all {
        let target = m.target().map_or_else(String::new, |target| {
            let said = if target.is_met(m.median) {
                "met"
            } else if target.is_met(m.best) {
                "met by the best"
            } else {
                "missed"
            };
            format!("{target}: {said}")
        });
        let _ = writeln!(
            text,
            "{:<44} {:>10} {:>10} {:<6} {target}",
            m.name,
            short(m.median),
            short(m.best),
            m.unit
        );
    }
    text
}

/// Three digits or so.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn load_average() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn without_vm(stack: &Stack) -> Result<Vec<Measured>> {
    let ring_post = ring_post()?;
    let mut all = Vec::new();
    let (daemon, local) = stack.start_local(&[])?;
    step("an idle daemon");
    all.push(Measured::single("idle daemon", idle(&[&daemon], &[])?, "% CPU"));
    all.extend(idle_session(&daemon, &local)?);
    step("posting to the ring");
    all.extend(Measured::read(&run_ring_post(&ring_post, &local)?)?);
    step("calls and copies");
    all.extend(Measured::read(&local.check("bench", &[])?)?);
    ensure!(daemon.stop()?.get("posted_errors") == Some(0), "posted calls have failed");
    Ok(all)
}

fn ring_post() -> Result<PathBuf> {
    step("building ring-post");
    let status = crate::cargo(&["build", "--release", "--package", "performance"]).status()?;
    ensure!(status.success(), "cargo build --package performance: {status}");
    Ok(harness::repository().join("target/release/ring-post"))
}

fn run_ring_post(program: &Path, local: &Local) -> Result<String> {
    let mut command = std::process::Command::new(program);
    command.env("VGPU_TRANSPORT", "local").env("VGPU_SOCKET", &local.socket).stdin(Stdio::null());
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "ring-post: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A session with nothing to do: the daemon and its workers, and the process whose session it is.
fn idle_session(daemon: &Daemon, local: &Local) -> Result<Vec<Measured>> {
    step("an idle session");
    let mut command = local.command("bench", &["idle"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = harness::supervise::spawn(command)?;
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().context("no output")?);
    out.read_line(&mut line)?;
    let guest = i32::try_from(child.id())?;
    let host = idle(&[daemon], &[]);
    let all = idle(&[daemon], &[guest]);
    drop(child.stdin.take());
    let output = finish(child, Duration::from_secs(20))?;
    if line.trim() != "idle" || !output.status.success() {
        bail!("bench idle: {line}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(vec![
        Measured::single("idle session, daemon and worker", host?, "% CPU"),
        Measured::single("idle session, with the guest process", all?, "% CPU"),
    ])
}

/// Percent of a processor that daemons with their workers, and other processes, take while nothing happens.
fn idle(daemons: &[&Daemon], others: &[i32]) -> Result<f64> {
    std::thread::sleep(SETTLE);
    let pids = || -> Result<Vec<i32>> {
        let mut pids = others.to_vec();
        for daemon in daemons {
            pids.push(daemon.pid());
            pids.extend(children(daemon.pid())?);
        }
        Ok(pids)
    };
    let watched = pids()?;
    let cpu = || watched.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>();
    let begin = Instant::now();
    let before = cpu()?;
    std::thread::sleep(IDLE);
    let used = cpu()?.saturating_sub(before);
    ensure!(pids()? == watched, "the daemon has started or lost a worker meanwhile");
    #[allow(clippy::cast_precision_loss)] // a few ticks
    Ok(used as f64 / TICKS_PER_SECOND / begin.elapsed().as_secs_f64() * 100.0)
}

/// USER_HZ on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The fields of /proc/PID/stat after the name: the state is 0, the parent 1, user time 11, system time 12.
fn stat(pid: i32) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("/proc/PID/stat without a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(pid: i32) -> Result<u64> {
    let fields = stat(pid)?;
    let field = |i: usize| -> Result<u64> { Ok(fields.get(i).context("short /proc/PID/stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

fn children(parent: i32) -> Result<Vec<i32>> {
    let mut found: Vec<i32> = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        // A process that is gone meanwhile is nobody's child.
        .filter(|pid| stat(*pid).is_ok_and(|f| f.get(1).is_some_and(|p| *p == parent.to_string())))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Kicks that a steady stream of posted calls takes in a VM: the stream's, less those of a process that posts nothing.
fn doorbells(stack: &Stack) -> Result<Measured> {
    step("booting a guest");
    let vm = stack.boot(Series::V6_1, Attach::Fs)?;
    let kicks = |calls: u64| -> Result<u64> {
        step(format_args!("{calls} posted calls in the guest"));
        let count = |vm: &Vm| vm.daemon.totals()?.get("kicks").context("no kicks");
        let before = count(&vm)?;
        vm.check("bench", &["stream", &calls.to_string()])?;
        Ok(count(&vm)? - before)
    };
    let empty = kicks(0)?;
    let full = kicks(STREAM)?;
    step(format_args!("{empty} doorbells without the stream, {full} with it"));
    vm.guest.shutdown()?;
    ensure!(vm.daemon.stop()?.get("posted_errors") == Some(0), "posted calls have failed");
    #[allow(clippy::cast_precision_loss)] // small counts
    let rate = full.saturating_sub(empty) as f64 * 1000.0 / STREAM as f64;
    Ok(Measured::single("doorbells per 1,000 posted calls, in a VM", rate, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_programs() {
        let read = Measured::read("HtoD 64 MiB of memcpy\t61.5\t80\t%\n").unwrap();
        assert_eq!((read[0].median, read[0].best, read[0].unit.as_str()), (61.5, 80.0, "%"));
        assert!(read[0].target().unwrap().is_met(61.5) && !read[0].target().unwrap().is_met(59.9));
        assert!(Measured::read("HtoD\t61.5\n").is_err());
    }

    #[test]
    fn this_process_has_used_time() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(ticks(me).is_ok());
        assert!(stat(me).unwrap().len() > 20);
    }
}
