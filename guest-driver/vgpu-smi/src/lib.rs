//! `vgpu-smi`: what `nvidia-smi` is to people, for the GPU of a VM. It shows the devices and the VM's processes, answers the queries of
//! scripts in the form that they know, and says what stands in the way where there is no GPU (`vgpu-smi doctor`).
//!
//! What it is not: it changes nothing (the devices are the host's: such options are refused by name), and it knows nothing of its own.
//! What it shows comes from NVML, found as every program finds it: `libnvidia-ml.so.1` by the dynamic loader. So it shows what every
//! monitor sees, and works with NVIDIA's own library as well. Only the doctor talks to the device itself, through the `transport` crate.
//!
//! | where | what |
//! |---|---|
//! | [`args`] | the command line, nvidia-smi's forms of it included |
//! | [`nvml`] | what is asked, as a trait; the library that answers; recorded answers for tests |
//! | [`pass`] | one look at the devices |
//! | [`table`], [`report`], [`query`] with [`fields`], [`pmon`], [`json`] | what is made of a look: no system calls, no state |
//! | [`failure`] | exit statuses |
//! | [`doctor`] | the steps, each in a file of its own |
//!
//! Invariants
//! - What NVML does not know is `N/A`, never a number. A device that is lost during a look ends the program with that status.
//! - Names of other processes are shown without control characters.
//! - The doctor uses the guest's libraries in processes of its own, which have a time limit: a library that crashes or hangs is a finding.
//!
//! Where things are written: what nvidia-smi writes to stdout goes there, its errors included, since scripts look for them there. What
//! this program itself declines, and a command line that makes no sense, goes to stderr.
//!
//! Settings (environment): those of the `transport` crate and of the libraries; none of its own.

mod args;
pub use args::command;
mod doctor;
mod failure;
mod fields;
mod json;
mod nvml;
mod pass;
mod pmon;
mod query;
mod report;
mod table;
mod words;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use args::{Command, Repeat, View};
use failure::Failure;
use nvml::library::Loaded;
use nvml::{Nvml, SystemText};
use pass::Pass;
use table::Title;

/// Under this name the program heads its table with the driver's release, as nvidia-smi does.
const OTHER_NAME: &str = "nvidia-smi";

/// Runs the program with its arguments, of which the first is its name. Answers the exit status.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    let as_nvidia_smi = name == OTHER_NAME;
    let command = match args::parse(arguments) {
        Ok(command) => command,
        Err(failure) => return say_failure(&failure),
    };
    match command {
        Command::Print(text) => write(&text).map_or_else(|status| status, |()| 0),
        Command::Words(error) => {
            // Where nobody reads it there is nobody to tell.
            let _ = error.print();
            args::status_of(&error)
        }
        Command::Doctor { json } => doctor::run(json),
        Command::DoctorPart(part) => doctor::parts::run(&part),
        Command::Show { view, ids, repeat } => {
            let shown = Loaded::load()
                .map_err(Failure::from)
                .and_then(|nvml| show(&nvml, &view, &ids, repeat, as_nvidia_smi));
            shown.unwrap_or_else(|failure| say_failure(&failure))
        }
    }
}

/// What this program declines goes to stderr; what nvidia-smi says on stdout goes there.
fn say_failure(failure: &Failure) -> u8 {
    let text = format!("{failure}\n");
    // Where nobody reads it there is nobody to tell.
    let _ = if failure.declined {
        io::stderr().write_all(text.as_bytes())
    } else {
        io::stdout().write_all(text.as_bytes())
    };
    failure.status
}

/// Writes and flushes. A reader that has gone away is no failure: the program is over then.
fn write(text: &str) -> Result<(), u8> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(0),
        Err(_) => Err(255),
    }
}

/// Shows what is asked for, as often as asked. Answers the exit status.
fn show(
    nvml: &dyn Nvml,
    view: &View,
    ids: &[String],
    repeat: Repeat,
    as_nvidia_smi: bool,
) -> Result<u8, Failure> {
    let title = title(nvml, as_nvidia_smi);
    let mut head = header(view);
    let mut times = 0u64;
    loop {
        let pass = Pass::begin(nvml, ids, jiff::Zoned::now())?;
        let text = std::mem::take(&mut head) + &page(&pass, view, &title)?;
        if let Err(status) = write(&text) {
            return Ok(status);
        }
        pass.end()?;
        times += 1;
        match repeat.every {
            Some(every) if repeat.times.is_none_or(|most| times < most) => std::thread::sleep(every),
            _ => return Ok(0),
        }
    }
}

fn title(nvml: &dyn Nvml, as_nvidia_smi: bool) -> Title {
    let driver = || nvml.system(SystemText::DriverVersion).unwrap_or_else(|code| code.words().to_owned());
    if as_nvidia_smi {
        Title { name: "NVIDIA-SMI", version: driver() }
    } else {
        Title { name: "VGPU-SMI", version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// What comes once, before the first look.
fn header(view: &View) -> String {
    match view {
        View::Rows(query, format) if format.header => query.header(*format),
        View::Pmon(select) => select.header(),
        _ => String::new(),
    }
}

fn page(pass: &Pass<'_>, view: &View, title: &Title) -> Result<String, Failure> {
    Ok(match view {
        View::Table => table::table(pass, title),
        View::List => table::list(pass),
        View::Json => json::document(pass),
        View::Report(sections) => report::report(pass, sections),
        View::Rows(query, format) => query.rows(pass, *format)?,
        View::Pmon(select) => select.rows(pass)?,
        View::Version => {
            let system = |what| pass.nvml.system(what).unwrap_or_else(|code| words::absent(code).to_owned());
            let cuda = pass.nvml.cuda_version();
            format!(
                "{:<20}: {}\n{:<20}: {}\n{:<20}: {}\n{:<20}: {}\n",
                format!("{} version", title.name),
                title.version,
                "NVML version",
                system(SystemText::NvmlVersion),
                "DRIVER version",
                system(SystemText::DriverVersion),
                "CUDA Version",
                words::or_absent(cuda, words::cuda_version),
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::recorded::h100;

    #[test]
    fn versions_are_told_in_the_form_that_scripts_know() {
        let machine = h100();
        let pass = Pass::begin(&machine, &[], jiff::Zoned::now()).unwrap();
        let text = page(&pass, &View::Version, &title(&machine, true)).unwrap();
        assert_eq!(
            text,
            "NVIDIA-SMI version  : 580.126.09\nNVML version        : 13.580.126.09\n\
             DRIVER version      : 580.126.09\nCUDA Version        : 13.0\n"
        );
        let text = page(&pass, &View::Version, &title(&machine, false)).unwrap();
        assert!(
            text.starts_with(&format!("VGPU-SMI version    : {}\n", env!("CARGO_PKG_VERSION"))),
            "{text}"
        );
    }
}
