//! Formats the Rust code.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

/// Format all Rust code
#[derive(Args)]
pub(crate) struct Fmt {
    /// Change nothing; fail if something would change
    #[arg(long)]
    check: bool,
}

impl Fmt {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut command = crate::cargo(&["fmt", "--all"]);
        if self.check {
            command.arg("--check");
        }
        crate::run(command)
    }
}
