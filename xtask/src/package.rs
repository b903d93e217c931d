//! `cargo xtask package`

use std::process::ExitCode;

use anyhow::Result;
use whole_stack::artifacts::Profile;

/// Build what users install: Debian packages for host and guest, and an archive with an install script for other guests.
#[derive(clap::Args)]
pub(crate) struct Package {
    /// As the tests are built: quick to build, slow to run
    #[arg(long)]
    debug: bool,
}

impl Package {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let profile = if self.debug { Profile::Dev } else { Profile::Release };
        let folder = harness::store("packages");
        let made = packaging::build(&folder, profile)?;
        for path in made.all() {
            println!("{}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}
