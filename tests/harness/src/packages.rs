//! Distribution packages, through the machine's own apt sources, with no change to the machine.
//!
//! The machine's configuration says where its distribution is mirrored, which key signs it and which proxy leads there. From
//! that an [`Apt`] makes a private apt root under `target/guest/apt/<suite>`: sources for the suite asked for, an empty list
//! of installed packages, state and caches of its own. apt then verifies, resolves and downloads as always, and
//! `dpkg-deb -x` unpacks into a folder. Nothing is installed and no maintainer script runs.

mod libraries;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

pub use libraries::Libraries;

use crate::progress::step;
use crate::{cache, store};

/// Whether a package is unpacked alone or with everything that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only the packages named.
    Alone,
    /// The packages named and their dependencies, the C library included; so that programs in it run on any machine through
    /// the dynamic loader that lies beside them.
    WithDependencies,
}

/// The packages of one suite (`bookworm`, `trixie`, `trixie-backports`, …), through a private apt root.
pub struct Apt {
    suite: String,
    config: PathBuf,
}

impl Apt {
    /// The suite that this machine runs.
    ///
    /// # Errors
    /// When /etc/os-release does not say.
    pub fn running_suite() -> Result<String> {
        sources::os_release("VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")
    }

    /// Makes the private root for `suite`, and gets the lists of packages if it has none yet.
    ///
    /// # Errors
    /// When the machine has no apt, its sources lead to no such suite, or the lists cannot be fetched.
    pub fn open(suite: &str) -> Result<Self> {
        let root = store("guest").join("apt").join(suite);
        let apt = Self { suite: suite.to_owned(), config: root.join("apt.conf") };
        let _turn = cache::lock(&root)?;
        let key = sources::write(suite, &root)?;
        let stamp = root.join("updated");
        if fs::read_to_string(&stamp).ok().as_deref() != Some(&key) {
            apt.update()?;
            fs::write(stamp, key)?;
        }
        Ok(apt)
    }

    /// The list of its sources, as apt reads it.
    #[must_use]
    pub fn sources(&self) -> PathBuf {
        self.config.with_file_name("sources.list")
    }

    /// Unpacks packages into `target/guest/<name>`, once: a folder that is there already was made for the same packages.
    ///
    /// # Errors
    /// When a package does not exist in this suite or cannot be fetched.
    pub fn unpack(suite: &str, name: &str, packages: &[&str], extent: Extent) -> Result<PathBuf> {
        let key = format!("{suite} {extent:?} {}", packages.join(" "));
        cache::folder(&store("guest").join(name), &key, |dir| {
            let apt = Self::open(suite)?;
            let wanted: Vec<_> = packages.iter().map(ToString::to_string).collect();
            apt.fresh(|| apt.unpack_into(dir, &wanted, extent))
        })
    }

    /// Runs `get`; if it fails, once more with lists fetched anew: a mirror drops a version as soon as it has a newer one.
    ///
    /// # Errors
    /// What `get` said at last.
    pub fn fresh<T>(&self, mut get: impl FnMut() -> Result<T>) -> Result<T> {
        get().or_else(|first| {
            step(format_args!("{first:#}; trying again with fresh package lists"));
            self.update()?;
            get()
        })
    }

    /// Downloads packages and unpacks them into `dir`.
    ///
    /// # Errors
    /// When a package does not exist in this suite or cannot be fetched.
    pub fn unpack_into(&self, dir: &Path, packages: &[String], extent: Extent) -> Result<()> {
        let list = match extent {
            Extent::Alone => packages.to_vec(),
            Extent::WithDependencies => self.with_dependencies(packages)?,
        };
        let debs = tempfile::tempdir_in(dir)?;
        step(format_args!("fetching {} package(s) of {}: {}", list.len(), self.suite, packages.join(", ")));
        self.apt("apt-get", &[&["download", "-q"], strs(&list).as_slice()].concat(), debs.path())
            .with_context(|| format!("cannot fetch {}", packages.join(", ")))?;
        for entry in fs::read_dir(debs.path())? {
            let deb = entry?.path();
            let done = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(dir).output().context("dpkg-deb")?;
            ensure!(done.status.success(), "dpkg-deb -x {}: {}", deb.display(), tail(&done));
        }
        Ok(())
    }

    /// The names of the packages that `package` depends on directly.
    ///
    /// # Errors
    /// When the suite has no such package.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let shown = self.apt("apt-cache", &["depends", "--important", package], Path::new("/"))?;
        let names = shown.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn with_dependencies(&self, packages: &[String]) -> Result<Vec<String>> {
        let mut arguments = vec!["install", "--simulate", "-y", "--no-install-recommends"];
        if self.suite.ends_with("-backports") {
            arguments.extend(["--target-release", &self.suite]);
        }
        arguments.extend(strs(packages));
        let shown = self.apt("apt-get", &arguments, Path::new("/"))?;
        // Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.11/oldstable [amd64])
        let line = |line: &str| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
            Some(format!("{name}={}", rest.split_once(' ')?.0))
        };
        let list: Vec<_> = shown.lines().filter_map(line).collect();
        ensure!(!list.is_empty(), "apt named no package for {}", packages.join(", "));
        Ok(list)
    }

    fn update(&self) -> Result<()> {
        step(format_args!("fetching the package lists of {}", self.suite));
        // apt counts a source that it cannot reach as a warning unless told otherwise.
        self.apt("apt-get", &["update", "-q", "--error-on=any"], Path::new("/")).with_context(|| {
            format!("cannot fetch the package lists of {} (is there a network?)", self.suite)
        })?;
        Ok(())
    }

    fn apt(&self, program: &str, arguments: &[&str], cwd: &Path) -> Result<String> {
        let done = Command::new(program)
            .args(arguments)
            .current_dir(cwd)
            .env("APT_CONFIG", &self.config)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{program} does not start: this needs a Debian or Ubuntu machine"))?;
        if !done.status.success() {
            bail!("{program} {} failed: {}", arguments.join(" "), tail(&done));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

fn strs(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn tail(done: &Output) -> String {
    let text = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(6)..).unwrap_or_default().join("; ")
}
