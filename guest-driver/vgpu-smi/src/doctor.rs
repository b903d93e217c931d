//! `vgpu-smi doctor`: looks, step by step, for what stands between programs and the GPU. A step is `ok`, or `failed` with why and what
//! to do, or `skipped` where it needs one that has failed.
//!
//! In a VM: the PCI device, the kernel module, the device file, the daemon behind it, the libraries, a kernel that computes. Without a VM
//! (VGPU_SOCKET) the first three are about the daemon's local socket.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::failure::STATUS_UNWELL;

mod access;
mod cuda;
mod daemon;
mod kernel;
mod libraries;
mod module;
pub mod origin;
pub mod parts;
mod pci;
mod socket;

/// What a step has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// All is well, in these words.
    Ok(String),
    /// Something is wrong.
    Failed {
        /// What, and how that is known.
        why: String,
        /// What a person can do about it.
        todo: String,
    },
}

impl Finding {
    fn failed(why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), todo: todo.into() }
    }
}

/// The files of the machine: `/`, or another folder in tests.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file's text without blanks around it; None where it is not there or not for this user.
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read(self.path(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The systemd unit or container that this process is in, by its control group.
    fn unit(&self) -> Option<String> {
        let groups = self.read("/proc/self/cgroup")?;
        let path =
            groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).max_by_key(|path| path.len())?;
        let of_interest = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
        path.split('/').rev().find(of_interest).map(str::to_owned)
    }
}

/// Where the daemon is looked for, as programs do it.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Vm,
    Local(PathBuf),
    /// The settings lead nowhere.
    Wrong(String),
}

impl Place {
    fn choose(transport: Option<OsString>, socket: Option<OsString>, device_exists: bool) -> Self {
        let socket = socket.filter(|path| !path.is_empty()).map(PathBuf::from);
        let transport = transport.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match (transport.as_str(), socket) {
            ("vm", _) => Self::Vm,
            ("local", Some(path)) => Self::Local(path),
            ("local", None) => Self::Wrong("VGPU_TRANSPORT=local without VGPU_SOCKET".to_owned()),
            ("", Some(path)) if !device_exists => Self::Local(path),
            ("", _) => Self::Vm,
            (other, _) => Self::Wrong(format!("VGPU_TRANSPORT={other} is neither vm nor local")),
        }
    }
}

/// A step: its name, and what it does.
struct Step<'a> {
    name: &'static str,
    check: Box<dyn FnOnce() -> Finding + 'a>,
}

fn step<'a>(name: &'static str, check: impl FnOnce() -> Finding + 'a) -> Step<'a> {
    Step { name, check: Box::new(check) }
}

fn steps<'a>(place: &'a Place, machine: &'a Machine) -> Vec<Step<'a>> {
    let mut steps = match place {
        Place::Vm => vec![
            step("device", || pci::check(machine)),
            step("module", || module::check(machine)),
            step("access", || access::check(machine)),
        ],
        Place::Local(path) => vec![
            step("socket", || socket::is_there(path)),
            step("access", || socket::may_connect(path)),
            step("listener", || socket::listens(path)),
        ],
        Place::Wrong(why) => vec![step("settings", || {
            let todo = "unset VGPU_TRANSPORT, or set it to vm, or to local with VGPU_SOCKET=PATH";
            Finding::failed(why.clone(), todo)
        })],
    };
    let in_vm = *place == Place::Vm;
    steps.push(step("daemon", move || daemon::check(in_vm)));
    steps.push(step("libraries", libraries::check));
    steps.push(step("kernel", kernel::check));
    steps
}

/// What is shown of the steps, as they come.
trait Show {
    fn end(&mut self, number: usize, name: &str, outcome: &Outcome);
}

enum Outcome {
    Found(Finding),
    /// Step of that number has failed before.
    Skipped(usize),
}

/// Carries the steps out. The number of the one that has failed, if one has.
fn carry_out(steps: Vec<Step<'_>>, show: &mut dyn Show) -> Option<usize> {
    let mut failed = None;
    for (number, Step { name, check }) in (1..).zip(steps) {
        let outcome = match failed {
            Some(earlier) => Outcome::Skipped(earlier),
            None => Outcome::Found(check()),
        };
        if matches!(outcome, Outcome::Found(Finding::Failed { .. })) {
            failed = Some(number);
        }
        show.end(number, name, &outcome);
    }
    failed
}

/// Lines for a person.
struct Lines;

/// Where the words of a step begin.
const INDENT: &str = "                      ";

fn line(number: usize, name: &str, outcome: &Outcome) -> String {
    let (word, words) = match outcome {
        Outcome::Found(Finding::Ok(what)) => ("ok", what.clone()),
        Outcome::Found(Finding::Failed { why, todo }) => ("failed", format!("{why}\nto do: {todo}")),
        Outcome::Skipped(earlier) => ("skipped", format!("needs step {earlier}")),
    };
    let words = printable_lines(&words).replace('\n', &format!("\n{INDENT}"));
    format!("{number} {name:<10}{word:<10}{words}\n")
}

/// Without control characters; lines stay lines.
fn printable_lines(text: &str) -> String {
    text.trim_end().split('\n').map(crate::words::printable).collect::<Vec<_>>().join("\n")
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Where nobody reads it there is nobody to tell; the exit status says it too.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

impl Show for Lines {
    fn end(&mut self, number: usize, name: &str, outcome: &Outcome) {
        say(&line(number, name, outcome));
    }
}

/// Objects for a program.
#[derive(Default)]
struct Objects(Vec<Value>);

impl Show for Objects {
    fn end(&mut self, number: usize, name: &str, outcome: &Outcome) {
        self.0.push(match outcome {
            Outcome::Found(Finding::Ok(what)) => {
                json!({ "step": number, "name": name, "status": "ok", "what": what })
            }
            Outcome::Found(Finding::Failed { why, todo }) => {
                json!({ "step": number, "name": name, "status": "failed", "why": why, "to_do": todo })
            }
            Outcome::Skipped(earlier) => {
                json!({ "step": number, "name": name, "status": "skipped", "needs_step": earlier })
            }
        });
    }
}

/// The doctor. Answers the exit status.
pub fn run(as_json: bool) -> u8 {
    let machine = Machine { root: PathBuf::from("/") };
    let variable = |name| std::env::var_os(name).filter(|_| !transport::environment_is_foreign());
    let device_exists = Path::new(module::DEVICE).exists();
    let place = Place::choose(variable("VGPU_TRANSPORT"), variable("VGPU_SOCKET"), device_exists);
    let failed = if as_json {
        let mut objects = Objects::default();
        let failed = carry_out(steps(&place, &machine), &mut objects);
        say(&format!("{}\n", json!({ "ok": failed.is_none(), "steps": objects.0 })));
        failed
    } else {
        let failed = carry_out(steps(&place, &machine), &mut Lines);
        let last =
            failed.map_or_else(|| "all is well".to_owned(), |number| format!("step {number} has failed"));
        say(&format!("{last}\n"));
        failed
    };
    if failed.is_some() { STATUS_UNWELL } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files and links.
    pub fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine { root: folder.path().to_owned() };
        for (path, text) in files {
            let path = machine.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                None => std::fs::write(path, text).unwrap(),
            }
        }
        (folder, machine)
    }

    #[test]
    fn what_follows_a_failure_is_skipped() {
        let steps = vec![
            step("one", || Finding::Ok("there".into())),
            step("two", || Finding::failed("it is\nbroken\x1b", "mend it")),
            step("three", || panic!("not to be tried")),
        ];
        struct Kept(String, Objects);
        impl Show for Kept {
            fn end(&mut self, number: usize, name: &str, outcome: &Outcome) {
                self.0 += &line(number, name, outcome);
                self.1.end(number, name, outcome);
            }
        }
        let mut kept = Kept(String::new(), Objects::default());
        assert_eq!(carry_out(steps, &mut kept), Some(2));
        assert_eq!(
            kept.0,
            "1 one       ok        there\n\
             2 two       failed    it is\n                      broken?\n                      to do: mend it\n\
             3 three     skipped   needs step 2\n"
        );
        assert_eq!(kept.1.0[1]["to_do"], "mend it");
        assert_eq!(kept.1.0[2], json!({ "step": 3, "name": "three", "status": "skipped", "needs_step": 2 }));
    }

    #[test]
    fn the_daemon_is_looked_for_where_programs_look() {
        let choose = |transport: Option<&str>, socket: Option<&str>, device| {
            Place::choose(transport.map(Into::into), socket.map(Into::into), device)
        };
        assert_eq!(choose(None, None, false), Place::Vm);
        assert_eq!(choose(None, Some("/s"), true), Place::Vm);
        assert_eq!(choose(None, Some("/s"), false), Place::Local("/s".into()));
        assert_eq!(choose(Some("local"), Some("/s"), true), Place::Local("/s".into()));
        assert_eq!(choose(Some("vm"), Some("/s"), false), Place::Vm);
        assert!(matches!(choose(Some("local"), None, true), Place::Wrong(_)));
        assert!(matches!(choose(Some("tcp"), None, true), Place::Wrong(_)));
    }

    #[test]
    fn the_unit_is_found_in_the_control_group() {
        let (_folder, there) = machine(&[("/proc/self/cgroup", "0::/system.slice/ollama.service\n")]);
        assert_eq!(there.unit().as_deref(), Some("ollama.service"));
        let (_folder, there) = machine(&[("/proc/self/cgroup", "0::/\n")]);
        assert_eq!(there.unit(), None);
    }
}
