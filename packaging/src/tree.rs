//! Files as they lie in a package.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::repository;

/// This crate's folder.
pub(crate) fn data() -> PathBuf {
    repository().join("packaging")
}

/// Puts a file at a path of the package, with its mode.
pub(crate) fn put(root: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Puts a copy of a file of the repository.
pub(crate) fn copy(root: &Path, path: &str, source: &str) -> Result<()> {
    let from = repository().join(source);
    put(root, path, &fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?, 0o644)
}

/// Puts a link.
pub(crate) fn link(root: &Path, path: &str, target: &str) -> Result<()> {
    let link = root.join(path.trim_start_matches('/'));
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent)?;
    }
    std::os::unix::fs::symlink(target, &link).with_context(|| format!("cannot link {}", link.display()))
}

/// Puts a program or library without what only a debugger reads.
pub(crate) fn stripped(root: &Path, path: &str, from: &Path, mode: u32) -> Result<()> {
    put(root, path, &[], mode)?;
    let to = root.join(path.trim_start_matches('/'));
    let mut strip = Command::new("strip");
    strip.arg("--strip-unneeded").arg("-o").arg(&to).arg(from);
    let done = strip.output().context("strip does not start: apt-get install binutils")?;
    ensure!(done.status.success(), "strip {}: {}", from.display(), String::from_utf8_lossy(&done.stderr));
    fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Copies a folder with what is in it; programs stay programs, everything else is 644.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (entry, name) = entry.map(|e| (e.path(), e.file_name()))?;
        if entry.is_dir() {
            copy_folder(&entry, &to.join(name))?;
        } else {
            let mode = fs::metadata(&entry)?.permissions().mode();
            let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
            put(to, &name.to_string_lossy(), &fs::read(&entry)?, mode)?;
        }
    }
    Ok(())
}

/// Gives every folder the mode 755, whatever this user's umask is.
pub(crate) fn open_folders(root: &Path) -> Result<()> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(root)?.flatten() {
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

/// Seconds since 1970 of the last commit, for the times in packages; 0 without git.
pub(crate) fn time() -> String {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(repository());
    let said = git.output().ok().filter(|done| done.status.success());
    let text = said.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default();
    if text.parse::<u64>().is_ok() { text } else { "0".to_owned() }
}
