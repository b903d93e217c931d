//! Running programs of an unpacked suite through that suite's own dynamic loader and libraries.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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
}
