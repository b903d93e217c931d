//! Writes the C headers that the kernel module includes.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

/// Write the C headers of pci-layout (pci-layout/include)
#[derive(Args)]
pub(crate) struct Headers {}

impl Headers {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let folder = harness::repository().join("pci-layout/include");
        pci_layout_headers::write(&folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        harness::progress::step(format_args!("wrote {}", folder.display()));
        Ok(ExitCode::SUCCESS)
    }
}
