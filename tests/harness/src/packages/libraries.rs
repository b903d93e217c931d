//! Running programs of an unpacked suite through that suite's own dynamic loader and libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::initramfs::programs::{Library, parse};

/// The dynamic loader and the folders of shared libraries in an unpacked folder.
#[derive(Clone, Debug)]
pub struct Libraries {
    loader: PathBuf,
    folders: Vec<PathBuf>,
}

impl Libraries {
    /// Finds them in `root`, into which packages were unpacked with their dependencies.
    ///
    /// # Errors
    /// When there is no dynamic loader in it.
    pub fn of(root: &Path) -> Result<Self> {
        let bases = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|base| root.join(base));
        let loader =
            bases.iter().map(|base| base.join("ld-linux-x86-64.so.2")).find(|loader| loader.exists());
        let loader = loader.with_context(|| format!("no dynamic loader in {}", root.display()))?;
        let mut folders = BTreeSet::new();
        for base in bases.iter().filter(|base| base.exists()) {
            folders.insert(base.clone());
            for entry in fs::read_dir(base)?.flatten().filter(|entry| entry.path().is_dir()) {
                let names = fs::read_dir(entry.path())?.flatten().map(|file| file.file_name());
                if names.into_iter().any(|name| name.to_string_lossy().contains(".so.")) {
                    folders.insert(entry.path());
                }
            }
        }
        Ok(Self { loader, folders: folders.into_iter().collect() })
    }

    /// The words that run `program`.
    #[must_use]
    pub fn run(&self, program: &Path) -> Vec<OsString> {
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.to_string_lossy()).collect();
        let path = folders.join(":").into();
        vec![self.loader.clone().into(), "--library-path".into(), path, program.into()]
    }

    /// The dynamic loader.
    #[must_use]
    pub fn loader(&self) -> &Path {
        &self.loader
    }

    /// The libraries that `program` needs, and those need, by the names that they are asked for by; the loader left out.
    ///
    /// # Errors
    /// When one is missing, or it is no dynamic program.
    pub fn needed_by(&self, program: &Path) -> Result<BTreeMap<String, PathBuf>> {
        let mut words = self.run(program);
        words.insert(1, "--list".into());
        let (loader, arguments) = words.split_first().context("no loader")?;
        let done = Command::new(loader).args(arguments).output().context("the loader does not start")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{}: {}", program.display(), said.trim());
        let mut libraries = BTreeMap::new();
        for library in parse(&String::from_utf8_lossy(&done.stdout)) {
            match library {
                Library::Found { name, .. } if name.starts_with('/') => {}
                Library::Found { name, source } => drop(libraries.insert(name, source)),
                Library::Missing { name } => bail!("{} needs {name}", program.display()),
            }
        }
        Ok(libraries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_very_program_needs_is_found_but_for_the_loader() {
        let libraries = Libraries::of(Path::new("/")).unwrap();
        let needed = libraries.needed_by(&std::env::current_exe().unwrap()).unwrap();
        assert!(needed.get("libc.so.6").is_some_and(|path| path.exists()), "{needed:?}");
        assert!(needed.keys().all(|name| !name.contains('/') && !name.starts_with("ld-linux")), "{needed:?}");
        assert!(libraries.needed_by(Path::new("/nonexistent")).is_err());
    }
}
