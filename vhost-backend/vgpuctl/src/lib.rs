//! `vgpuctl`: what an administrator asks the VMs' daemons of this host, and tells them to do.
//!
//! It finds them by the sockets in their state folder and talks to each by itself ([`vgpu_control`]); there is no central process. What it
//! prints for programs (`--json`) is the daemons' own answers.

mod arguments;
mod metrics;
mod reattach;
mod rotate;
mod serve;
mod show;
mod top;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use vgpu_control::{Answer, AskError, FindError, Found, Request, VmReport};

/// Why the program ends with something else than success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A daemon has refused, or something here has failed.
    #[error("{0}")]
    Refused(String),
    /// The daemons.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Nobody reads what is written.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Find(FindError::NoDaemon { .. } | FindError::Ask(AskError::NotThere { .. })) => 3,
            Self::Find(FindError::UnknownVm { .. }) => 4,
            _ => 1,
        }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Find(error.into())
    }
}

/// Its command line, for manuals and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // A pipe that was closed, by head or less.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vgpuctl: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// Where the daemons are, if nobody says otherwise.
fn usual_dir() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("vgpu"));
    let own = own.filter(|_| !rustix::process::geteuid().is_root());
    // An ordinary user may have daemons of their own, or be let in to those of the host.
    own.filter(|dir| dir.is_dir()).unwrap_or_else(|| vgpu_control::STATE_DIR.into())
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let dir = arguments.state_dir.clone().unwrap_or_else(usual_dir);
    let (dir, json) = (dir.as_path(), arguments.json);
    match &arguments.command {
        Command::List => {
            let reports = reports(dir)?;
            print(json, &reports, || show::list(&reports))
        }
        Command::Show { vm } => {
            let report = vgpu_control::find(dir, vm)?.report;
            print(json, &report, || show::vm(&report))
        }
        Command::Stats { vm } => {
            let reports = match vm {
                Some(vm) => vec![vgpu_control::find(dir, vm)?.report],
                None => reports(dir)?,
            };
            let text = || reports.iter().map(show::stats).collect::<Vec<_>>().join("\n");
            print(json, &reports, text)
        }
        Command::Top(options) => top::run(dir, json, options),
        Command::Set { vm, settings } => {
            let settings: BTreeMap<String, String> = settings.iter().cloned().collect();
            tell(dir, json, vm, &Request::Set { settings })
        }
        Command::Quarantine { vm, lasts } => {
            let seconds = lasts.map(|lasts| lasts.as_secs_f64());
            tell(dir, json, vm, &Request::Quarantine { seconds })
        }
        Command::Clear { vm } => tell(dir, json, vm, &Request::Clear),
        Command::Suspend { vm } => tell(dir, json, vm, &Request::Suspend { while_connected: false }),
        Command::Rotate(options) => rotate::run(dir, json, options),
        Command::Reattach(options) => {
            let place = vgpu_control::find(dir, &options.vm)?;
            let Some(socket) = &place.report.socket else {
                let why = "no QEMU connects to its daemon by a path";
                return Err(Failure::Refused(format!("VM {}: {why}", place.place.vm)));
            };
            let refused = |why| Failure::Refused(format!("VM {}: {why}", place.place.vm));
            let lines = reattach::run(socket, options).map_err(refused)?;
            print_done(json, &[(place.place.vm, Answer::Done { lines })])
        }
        Command::Resume { vm } => tell(dir, json, vm, &Request::Resume),
        Command::Reload { vm: Some(vm) } => tell(dir, json, vm, &Request::Reload),
        Command::Reload { vm: None } => reload_all(dir, json),
        Command::Metrics(options) => serve::run(dir, options),
    }
}

/// All VMs; of daemons that do not answer it is said why.
fn reports(dir: &Path) -> Result<Vec<VmReport>, Failure> {
    let (found, silent) = vgpu_control::all(dir)?;
    silent.iter().for_each(|error| eprintln!("vgpuctl: {error}"));
    match silent.into_iter().next() {
        Some(error) if found.is_empty() => Err(error.into()),
        _ => Ok(found.into_iter().map(|daemon| daemon.report).collect()),
    }
}

fn print(json: bool, value: &impl serde::Serialize, text: impl Fn() -> String) -> Result<(), Failure> {
    let text = match json {
        true => serde_json::to_string_pretty(value).map_err(|error| Failure::Refused(error.to_string()))?,
        false => text(),
    };
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(())
}

fn tell(dir: &Path, json: bool, vm: &str, request: &Request) -> Result<(), Failure> {
    let mut found = vgpu_control::find(dir, vm)?;
    match one(&mut found, request)? {
        Answer::Refused { reason } => {
            Err(Failure::Refused(format!("VM {}: {reason}; nothing was changed", found.place.vm)))
        }
        answer => print_done(json, &[(found.place.vm, answer)]),
    }
}

fn one(found: &mut Found, request: &Request) -> Result<Answer, AskError> {
    found.connection.ask(request)
}

/// One daemon's refusal does not keep the others from it.
fn reload_all(dir: &Path, json: bool) -> Result<(), Failure> {
    let (mut found, silent) = vgpu_control::all(dir)?;
    let mut refused: Vec<String> = silent.iter().map(ToString::to_string).collect();
    let mut done = Vec::new();
    for daemon in &mut found {
        match one(daemon, &Request::Reload) {
            Ok(Answer::Refused { reason }) => refused.push(format!("VM {}: {reason}", daemon.place.vm)),
            Ok(answer) => done.push((daemon.place.vm, answer)),
            Err(error) => refused.push(error.to_string()),
        }
    }
    print_done(json, &done)?;
    if refused.is_empty() {
        return Ok(());
    }
    // They read the same file, and mostly have the same to say.
    Err(Failure::Refused(format!("{}\nthese VMs' settings were left as they are", refused.join("\n"))))
}

fn print_done(json: bool, done: &[(u32, Answer)]) -> Result<(), Failure> {
    let lines = |vm: u32, answer: &Answer| match answer {
        Answer::Done { lines } => lines.iter().map(|line| format!("VM {vm}: {line}\n")).collect(),
        _ => String::new(),
    };
    #[derive(serde::Serialize)]
    struct Told<'a> {
        vm: u32,
        #[serde(flatten)]
        answer: &'a Answer,
    }
    let told: Vec<_> = done.iter().map(|(vm, answer)| Told { vm: *vm, answer }).collect();
    print(json, &told, || done.iter().map(|(vm, answer)| lines(*vm, answer)).collect())
}
