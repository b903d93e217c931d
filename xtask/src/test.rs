//! Every test: unit and property tests of all crates, then the whole stack.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

/// Run every test: unit, property and whole-stack (fetches QEMU, guest kernels and NVIDIA's libraries into target/ at first)
#[derive(Args)]
pub(crate) struct Test {
    /// Only the crates' own tests: no VM, nothing fetched but crates
    #[arg(long)]
    unit: bool,
    /// Only the whole-stack tests
    #[arg(long, conflicts_with = "unit")]
    stack: bool,
    /// Only what is not run otherwise: the packages installed in a Debian 12 and a Debian 13 guest, systemd and all, as their users do
    /// (needs root, for mmdebstrap; takes some forty minutes on two processors)
    #[arg(long, conflicts_with_all = ["unit", "stack"])]
    install: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// The crate of the whole-stack tests, the machine room's own, which boots guests as well, and the packages', which fetches zig.
const STACK: [&str; 3] = ["whole-stack", "harness", "packaging"];

/// Guests at once, at most: each takes a gigabyte of memory.
const GUESTS_MAX: usize = 4;

/// The ring's parking, run by the model checker in every order that memory may show. Another kind of build, so it has a folder of its
/// own.
fn loom() -> std::process::Command {
    let mut command = crate::cargo(&["test", "--release", "--package", "vgpu-ring", "--test", "loom"]);
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", harness::store("loom"));
    command
}

impl Test {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.install {
            let mut command = crate::cargo(&["test", "--no-fail-fast", "--workspace", "--test", "install"]);
            command.args(&self.filter).args(["--", "--ignored", "--nocapture", "--test-threads=1"]);
            return crate::run(command);
        }
        // All at once where all are wanted: a part of the workspace has features of its own, and would be built once more.
        let mut command = crate::cargo(&["test", "--no-fail-fast", "--workspace"]);
        if self.unit {
            command.args(STACK.iter().flat_map(|name| ["--exclude", name]));
        }
        if self.stack {
            command = crate::cargo(&["test", "--no-fail-fast"]);
            command.args(STACK.iter().flat_map(|name| ["--package", name]));
        }
        command.args(&self.filter);
        if !self.unit {
            // Most of their time guests boot or wait: as many at a time as there are processors. What wants the machine for itself
            // sees to that (tests/tests/functional).
            let guests =
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(GUESTS_MAX);
            command.args(["--", &format!("--test-threads={guests}")]);
        }
        let mut outcomes = vec![crate::run(command)?];
        if !self.stack {
            outcomes.push(crate::run(loom())?);
        }
        let failed = outcomes.iter().any(|outcome| *outcome != ExitCode::SUCCESS);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
