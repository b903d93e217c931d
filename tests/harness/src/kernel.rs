//! Guest kernels: Debian's cloud kernels, their modules, and the headers to build more.

mod headers;
mod modules;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use headers::build_module;
pub use modules::Modules;

use crate::packages::{Apt, Extent};
use crate::{cache, store};

/// A guest kernel that the project is tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Series {
    /// Debian 12's.
    V6_1,
    /// Debian 13's.
    V6_12,
}

impl Series {
    /// All of them, oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// Debian's name of the release that has it.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

impl std::str::FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.map(|series| series.to_string()).join(" and ");
        Self::ALL
            .into_iter()
            .find(|series| series.to_string() == text)
            .with_context(|| format!("no guest kernel {text}: there are {known}"))
    }
}

/// An unpacked kernel with its modules and headers.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Which one.
    pub series: Series,
    /// The bootable image.
    pub image: PathBuf,
    /// What `uname -r` says in the guest.
    pub release: String,
    root: PathBuf,
}

impl Kernel {
    /// Unpacks it into `target/guest`, once.
    ///
    /// # Errors
    /// When the packages cannot be fetched.
    pub fn get(series: Series) -> Result<Self> {
        let dir = store("guest").join(format!("linux-{series}"));
        let root = cache::folder(&dir, series.suite(), |partial| {
            let apt = Apt::open(series.suite())?;
            apt.fresh(|| {
                // Image, headers and build tools of one and the same version, whatever the newest is.
                let image = only(apt.depends("linux-image-cloud-amd64")?, "linux-image-")?;
                let headers = image.replace("linux-image-", "linux-headers-");
                let mut packages = vec![image, headers.clone()];
                let parts = ["linux-headers-", "linux-kbuild-", "linux-compiler-"];
                let is_part = |name: &String| parts.iter().any(|part| name.starts_with(part));
                packages.extend(apt.depends(&headers)?.into_iter().filter(is_part));
                apt.unpack_into(partial, &packages, Extent::Alone)?;
                // What the build's tools run on.
                let tools = only(packages, "linux-kbuild-")?;
                let host = partial.join("host");
                fs::create_dir_all(&host)?;
                apt.unpack_into(&host, &[tools], Extent::WithDependencies)
            })?;
            headers::settle(partial, &dir)
        })?;
        let image = entry(&root.join("boot"), "vmlinuz-")?;
        let release = image.strip_prefix("vmlinuz-").context("a kernel without a version")?.to_owned();
        Ok(Self { series, image: root.join("boot").join(&image), release, root })
    }

    /// Its own modules.
    ///
    /// # Errors
    /// When there are none.
    pub fn modules(&self) -> Result<Modules> {
        let places =
            ["lib/modules", "usr/lib/modules"].map(|place| self.root.join(place).join(&self.release));
        let found = places.iter().find(|place| place.join("kernel").exists());
        Modules::of(found.with_context(|| format!("no modules of {}", self.release))?)
    }
}

/// The name in `dir` that begins with `prefix`.
fn entry(dir: &Path, prefix: &str) -> Result<String> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    only(names.collect(), prefix)
}

fn only(names: Vec<String>, prefix: &str) -> Result<String> {
    let mut found = names.into_iter().filter(|name| name.starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(name),
        (None, _) => bail!("nothing named {prefix}…"),
        (Some(one), Some(two)) => bail!("both {one} and {two}"),
    }
}
