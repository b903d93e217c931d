//! Steps that use the guest's libraries run in a process of their own, this program again: a library that crashes, hangs or prints is then
//! a finding, and not the doctor's end.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Finding, kernel, libraries};
use crate::failure::STATUS_USAGE;

/// So long a part may take: emulated guests are slow.
const LIMIT: Duration = Duration::from_secs(180);
/// What of a part's stderr is shown, in lines.
const LINES: usize = 4;

/// What a part has said.
pub struct Said {
    /// Its answer.
    pub answer: Value,
    /// The end of its stderr: where our libraries say why.
    pub stderr: String,
}

/// The part's own side: writes its answer. Answers the exit status.
pub fn run(part: &str) -> u8 {
    // The doctor's main thread has started it. Where that cannot be asked for, the part ends by itself or the doctor ends it.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let answer = match part {
        "libraries" => libraries::look(),
        "kernel" => kernel::compute(),
        _ => return STATUS_USAGE,
    };
    super::say(&format!("{answer}\n"));
    0
}

fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still an answer, or none.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits, at most until the limit; None: it was killed then.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has a part carried out.
///
/// # Errors
/// What to tell where it gave no answer.
pub fn ask(part: &str) -> Result<Said, Finding> {
    let system = |error: std::io::Error| {
        Finding::failed(
            format!("the doctor cannot start itself anew: {error}"),
            "run it from a folder that may be read",
        )
    };
    let mut command = Command::new(std::env::current_exe().map_err(system)?);
    command.args(["doctor-part", part]).env("VGPU_LOG", "1").env_remove("CUDA_VISIBLE_DEVICES");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(system)?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let status = wait(&mut child, LIMIT).map_err(system)?;
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let stderr = tail(&String::from_utf8_lossy(&err));
    judge(part, status, &out, stderr)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

/// The words of stderr behind a reason.
pub fn with(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it said:\n{stderr}") }
}

fn judge(part: &str, status: Option<ExitStatus>, out: &[u8], stderr: String) -> Result<Said, Finding> {
    let subject = if part == "kernel" {
        "a program that computes on the GPU"
    } else {
        "a program that loads libcuda.so.1 and libnvidia-ml.so.1"
    };
    let todo =
        "see the daemon's log on the host; if another library than this project's is involved, remove it";
    let Some(status) = status else {
        let why = format!("{subject} did not end in {} s{}", LIMIT.as_secs(), with(&stderr));
        return Err(Finding::failed(why, todo));
    };
    // The answer is the last line: libraries may print.
    let text = String::from_utf8_lossy(out);
    let answer = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    match answer {
        Some(answer) if status.success() && answer.is_object() => Ok(Said { answer, stderr }),
        _ => Err(Finding::failed(format!("{subject} failed ({status}){}", with(&stderr)), todo)),
    }
}

/// An answer that says what went wrong.
pub fn trouble(words: impl Into<String>) -> Value {
    json!({ "trouble": words.into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn what_a_part_comes_to() {
        let ended = |status: i32| Some(ExitStatus::from_raw(status));
        let said = judge("kernel", ended(0), b"noise\n{\"right\":true}\n", String::new()).ok().unwrap();
        assert_eq!(said.answer["right"], true);
        let why = |result: Result<Said, Finding>| match result.err() {
            Some(Finding::Failed { why, .. }) => why,
            _ => panic!("no failure"),
        };
        let crashed = why(judge("libraries", ended(11), b"", "last words".into()));
        assert!(crashed.contains("signal: 11") && crashed.ends_with("it said:\nlast words"), "{crashed}");
        assert!(why(judge("kernel", None, b"", String::new())).contains("did not end in"));
        assert!(why(judge("kernel", ended(0), b"no answer", String::new())).contains("failed"));
        assert_eq!(tail("1\n\n2\n3\n4\n5\n"), "2\n3\n4\n5");
    }

    #[test]
    fn a_part_that_hangs_is_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(20)).unwrap().is_none());
    }
}
