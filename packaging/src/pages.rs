//! Manual pages and shell completions, made of the programs' own definitions of their arguments.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::tree::put;

/// The daemon's arguments.
#[must_use]
pub fn daemon() -> Command {
    vhost_backend::args::Args::command()
}

/// vgpuctl's.
#[must_use]
pub fn vgpuctl() -> Command {
    vgpuctl::command()
}

/// vgpu-smi's.
#[must_use]
pub fn smi() -> Command {
    vgpu_smi::command()
}

/// Where each shell looks for completions.
fn place(shell: Shell, name: &str) -> Option<String> {
    match shell {
        Shell::Bash => Some(format!("usr/share/bash-completion/completions/{name}")),
        Shell::Zsh => Some(format!("usr/share/zsh/vendor-completions/_{name}")),
        Shell::Fish => Some(format!("usr/share/fish/vendor_completions.d/{name}.fish")),
        _ => None,
    }
}

/// Puts a program's manual pages, one for each of its commands, and its completions.
pub(crate) fn put_all(root: &Path, command: &Command) -> Result<()> {
    let name = command.get_name().to_owned();
    let pages = tempfile::tempdir()?;
    clap_mangen::generate_to(command.clone(), pages.path()).with_context(|| format!("manual of {name}"))?;
    for page in std::fs::read_dir(pages.path())? {
        let (path, file) = page.map(|page| (page.path(), page.file_name()))?;
        put(root, &format!("usr/share/man/man1/{}", file.to_string_lossy()), &std::fs::read(path)?, 0o644)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
        if let Some(path) = place(shell, &name) {
            put(root, &path, &text, 0o644)?;
        }
    }
    Ok(())
}
