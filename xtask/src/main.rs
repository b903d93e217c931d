//! `cargo xtask TASK`: everything that a developer runs, in one place. `cargo xtask --help` lists the tasks.
//!
//! One file per task. Each says on standard error what it is doing, with the seconds since the start, and ends with the
//! status of what it ran.

mod bench;
mod calls;
mod demo;
mod fmt;
mod gpu_bundle;
mod gpu_merge;
mod headers;
mod lint;
mod llama;
mod package;
mod suites;
mod test;
mod vm;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Developer's tasks of this repository. Whatever is fetched or built goes to target/; nothing is installed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Demo(demo::Demo),
    Test(test::Test),
    Bench(bench::Bench),
    Vm(vm::Vm),
    Fmt(fmt::Fmt),
    Lint(lint::Lint),
    Headers(headers::Headers),
    Calls(calls::Calls),
    GpuBundle(gpu_bundle::GpuBundle),
    GpuMerge(gpu_merge::GpuMerge),
    Package(package::Package),
}

fn main() -> ExitCode {
    harness::progress::begin();
    let result = match Arguments::parse().task {
        Task::Demo(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Vm(task) => task.run(),
        Task::Fmt(task) => task.run(),
        Task::Lint(task) => task.run(),
        Task::Headers(task) => task.run(),
        Task::Calls(task) => task.run(),
        Task::GpuBundle(task) => task.run(),
        Task::GpuMerge(task) => task.run(),
        Task::Package(task) => task.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// A cargo command in the repository's root.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(harness::repository());
    command
}

/// Says what is run, runs it with this terminal, and hands its status on.
fn run(mut command: Command) -> Result<ExitCode> {
    let words = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    harness::progress::step(format_args!("cargo {words}"));
    let status = command.status().context("cargo does not start")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
