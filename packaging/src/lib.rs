//! What users install: Debian packages and a tarball, made of what this repository builds.
//!
//! | package | where | what |
//! |---|---|---|
//! | `vgpu-guest` | guest | `libcuda.so.1`, `libnvidia-ml.so.1`, `vgpu-smi`, `vgpu-run`, rules, a CDI file |
//! | `vgpu-guest-dkms` | guest | the kernel module's source, which DKMS builds |
//! | `vgpu-guest-nvidia-nodes` | guest, if wanted | `/dev/nvidia0` and `/dev/nvidiactl` as links to `/dev/vgpu` |
//! | `vgpu-host` | host | `vhost-user-vgpu`, `vgpuctl`, a systemd unit for each VM, manual pages, completions |
//! | `vgpu-guest-VERSION.tar.gz` | guest without dpkg | the first two with `install.sh` |
//!
//! Each package has a folder of its own beside `src`: `control`, maintainer scripts, `conffiles`, `triggers`, and in `root` the files that go
//! into it as they are. What is built comes in here, in [`guest`] and [`host`]. dpkg-deb makes the package; nothing needs root.
//!
//! What it is not: it signs nothing, uploads nothing, and makes no source package.
//!
//! Invariants:
//! - Programs and libraries need no symbol newer than [`whole_stack::artifacts::GLIBC`], so one package serves all systems.
//! - Files belong to root, have the mode 644 or 755, and one time, that of the last commit: the same sources make the same package.
//! - No file of NVIDIA's is in a package.

pub mod guest;
pub mod host;
pub mod pages;

mod deb;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::progress::step;
use whole_stack::artifacts::{self, Profile};

pub use deb::DEBS;

/// The release, as in the packages' names.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The folder of it all.
    pub folder: PathBuf,
    /// The packages.
    pub debs: Vec<PathBuf>,
    /// The tarball.
    pub tarball: PathBuf,
}

impl Made {
    /// The package of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn deb(&self, name: &str) -> Result<&Path> {
        let begins = format!("{name}_");
        let is_it =
            |deb: &&PathBuf| deb.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&begins));
        self.debs.iter().find(is_it).map(PathBuf::as_path).with_context(|| format!("no package {name}"))
    }
}

/// Builds everything and makes the packages, in `folder`, as this version.
///
/// # Errors
/// When something does not build, or a tool is missing.
pub fn make(profile: Profile, folder: &Path, version: &str) -> Result<Made> {
    let built = artifacts::release_parts(profile)?;
    fs::create_dir_all(folder)?;
    let _turn = harness::cache::lock(&folder.join("packages"))?;
    let work = tempfile::tempdir_in(folder)?;
    let mut debs = Vec::new();
    for name in DEBS {
        step(format_args!("packing {name}"));
        let root = work.path().join(name);
        match name {
            "vgpu-guest" => guest::fill(&root, &built)?,
            "vgpu-guest-dkms" => guest::fill_dkms(&root, version)?,
            "vgpu-host" => host::fill(&root, &built)?,
            _ => {}
        }
        debs.push(deb::make(name, &root, version, folder)?);
    }
    step(format_args!("packing vgpu-guest-{version}.tar.gz"));
    let tarball = guest::tarball(work.path(), &built, version, folder)?;
    Ok(Made { folder: folder.to_owned(), debs, tarball })
}
