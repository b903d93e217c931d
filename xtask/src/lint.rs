//! Lints the Rust code.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

/// Run clippy over all targets; a warning is a failure
#[derive(Args)]
pub(crate) struct Lint {
    /// Only this package; may be given several times
    #[arg(long, short, value_name = "NAME")]
    package: Vec<String>,
}

impl Lint {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut command = crate::cargo(&["clippy", "--all-targets"]);
        if self.package.is_empty() {
            command.arg("--workspace");
        }
        for package in &self.package {
            command.args(["--package", package]);
        }
        command.args(["--", "-D", "warnings"]);
        crate::run(command)
    }
}
