//! Folders under `target/` that are made once and kept: complete, or made again from nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

const STAMP: &str = ".complete";

/// Makes the folder `dir` with `make`, unless it is there already and was made for the same `key`.
///
/// `make` gets an empty folder beside `dir`, which takes the place of `dir` when `make` succeeds. Other processes that ask
/// for the same folder wait meanwhile.
///
/// # Errors
/// What `make` said, or what the file system said.
pub fn folder(dir: &Path, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if is_complete(dir, key) {
        return Ok(dir.to_owned());
    }
    let _turn = lock(dir)?;
    if is_complete(dir, key) {
        return Ok(dir.to_owned());
    }
    let partial = sibling(dir, "partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    if let Err(error) = make(&partial) {
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    fs::write(partial.join(STAMP), key)?;
    remove(dir)?;
    fs::rename(&partial, dir).with_context(|| format!("cannot move {} into place", partial.display()))?;
    Ok(dir.to_owned())
}

/// Makes the file `path` with `make`, which gets the name of a file to write, unless `path` exists.
///
/// # Errors
/// What `make` said, or what the file system said.
pub fn file(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let _turn = lock(path)?;
    if !path.exists() {
        let partial = sibling(path, "partial");
        make(&partial)?;
        fs::rename(&partial, path)
            .with_context(|| format!("cannot move {} into place", partial.display()))?;
    }
    Ok(path.to_owned())
}

/// Holds the lock beside `path` until dropped. The lock ends with the process, however that ends.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock(path: &Path) -> Result<File> {
    let name = sibling(path, "lock");
    if let Some(parent) = name.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let file = File::create(&name).with_context(|| format!("cannot create {}", name.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", name.display()))?;
    Ok(file)
}

fn is_complete(dir: &Path, key: &str) -> bool {
    fs::read_to_string(dir.join(STAMP)).is_ok_and(|stamp| stamp == key)
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_make_leaves_nothing_and_a_new_key_makes_again() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("thing");
        assert!(folder(&dir, "1", |_| anyhow::bail!("no")).is_err());
        assert!(!dir.exists() && !place.path().join(".thing.partial").exists());

        folder(&dir, "1", |new| Ok(fs::write(new.join("a"), "x")?)).unwrap();
        folder(&dir, "1", |_| anyhow::bail!("made twice")).unwrap();
        folder(&dir, "2", |new| Ok(fs::write(new.join("b"), "x")?)).unwrap();
        assert!(dir.join("b").exists() && !dir.join("a").exists());
    }
}
