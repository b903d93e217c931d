//! Packages for users.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use harness::store;
use whole_stack::artifacts::Profile;

/// Make the packages that users install: for a guest, and for a host
///
/// Debian packages vgpu-guest, vgpu-guest-dkms, vgpu-guest-nvidia-nodes and vgpu-host, and vgpu-guest-VERSION.tar.gz with an install.sh for
/// guests without dpkg. Programs and libraries need glibc 2.28 or newer; zig is fetched for that. docs/install.md says how they are used.
#[derive(Args)]
pub(crate) struct Package {
    /// As the tests are built: quick to build, slow to run
    #[arg(long)]
    dev: bool,
    /// Where they go [default: target/packages]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Package {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let profile = if self.dev { Profile::Dev } else { Profile::Release };
        let folder = self.out.unwrap_or_else(|| store("packages"));
        let made = packaging::make(profile, &folder, packaging::VERSION)?;
        for file in made.debs.iter().chain([&made.tarball]) {
            println!("{}", file.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}
