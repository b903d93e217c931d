//! What users install: Debian packages for the host and for guests, and an archive with an install script for other guests.
//!
//! | made | of | goes to |
//! |---|---|---|
//! | `vgpu-guest_V_amd64.deb` | the guest's libraries and tools | guests; C library 2.28 or newer |
//! | `vgpu-guest-dkms_V_all.deb` | the kernel module's sources | guests |
//! | `vgpu-host_V_amd64.deb` | daemon and vgpuctl | hosts, with the C library that they were built with or newer |
//! | `vgpu-guest-V.tar.gz` | the first two, and install.sh | other guests |
//!
//! The texts (control fields, maintainer scripts, units) lie beside this crate's sources, one folder a package; `@VERSION@`, `@LIBRARIES@` and
//! `@GLIBC@` in them are filled in. Manuals and completions are made of the programs' own command lines. Nothing is installed and root is
//! not needed; dpkg-deb, tar and md5sum are.
//!
//! Two builds of the same sources give the same bytes, but for what compilers do.

mod guest;
mod host;
mod manuals;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::repository;
use whole_stack::artifacts::Profile;

pub use manuals::{Shell, completion, manual, programs};

/// The release of all packages.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where guests on Debian and Ubuntu have libraries.
pub const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Libraries and tools of guests.
    pub guest: PathBuf,
    /// The kernel module's sources.
    pub dkms: PathBuf,
    /// Daemon and administration.
    pub host: PathBuf,
    /// For guests without dpkg.
    pub archive: PathBuf,
}

impl Made {
    /// All of it.
    pub fn all(&self) -> [&Path; 4] {
        [&self.guest, &self.dkms, &self.host, &self.archive]
    }
}

/// Builds the programs, and makes everything in this folder.
///
/// # Errors
/// What does not build, or a tool that is missing.
pub fn build(folder: &Path, profile: Profile) -> Result<Made> {
    fs::create_dir_all(folder)?;
    let staging = tempfile::tempdir_in(folder)?;
    let (trees, packed) = (staging.path().join("trees"), staging.path().join("packed"));
    fs::create_dir(&packed)?;
    let built = guest::Built::make(profile)?;
    // Renamed into place: whoever reads an earlier one, or makes them as well, has a whole one.
    let place = |made: PathBuf| -> Result<PathBuf> {
        let to = folder.join(made.file_name().context("a package without a name")?);
        fs::rename(&made, &to)?;
        Ok(to)
    };
    Ok(Made {
        guest: place(guest::package(&built, &trees, &packed)?)?,
        dkms: place(guest::sources(&trees, &packed)?)?,
        archive: place(guest::archive(&built, &trees, &packed)?)?,
        host: place(host::package(profile, &trees, &packed)?)?,
    })
}

/// A text of this folder, filled in.
fn text(path: &str, libraries: &str) -> Result<String> {
    let from = repository().join("packaging").join(path);
    let text = fs::read_to_string(&from).with_context(|| from.display().to_string())?;
    Ok(text.replace("@VERSION@", VERSION).replace("@LIBRARIES@", libraries))
}

/// A file that is somewhere else in the repository.
fn elsewhere(path: &str) -> Result<Vec<u8>> {
    let from = repository().join(path);
    fs::read(&from).with_context(|| from.display().to_string())
}

fn succeed(command: &mut Command, what: &str) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{what} does not start: is it installed?"))?;
    ensure!(
        output.status.success(),
        "{what}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// A program without its symbols, as users get it.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let to = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new("strip");
    succeed(strip.args(["--strip-unneeded", "-o"]).arg(to.path()).arg(program), "strip (binutils)")?;
    Ok(fs::read(to.path())?)
}
