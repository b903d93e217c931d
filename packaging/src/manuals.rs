//! Manuals and completions, of the programs' own command lines.

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
pub use clap_complete::Shell;
use clap_complete::generate;

use crate::tree::Tree;

/// The programs that have them, and where a shell looks for completions.
const SHELLS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "/usr/share/bash-completion/completions", "", ""),
    (Shell::Zsh, "/usr/share/zsh/vendor-completions", "_", ""),
    (Shell::Fish, "/usr/share/fish/vendor_completions.d", "", ".fish"),
];

/// Every program that users run, by its name.
pub fn programs() -> Vec<(&'static str, Command)> {
    vec![
        ("vhost-user-vgpu", vhost_backend::args::Args::command()),
        ("vgpuctl", vgpuctl::command()),
        ("vgpu-smi", vgpu_smi::command()),
    ]
}

/// A program's manual pages, with their names: its own, and one for each of its subcommands.
///
/// # Errors
/// There is no such program.
pub fn manual(program: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let command = command(program)?.disable_help_subcommand(true);
    let mut pages = vec![(program.to_owned(), command.clone())];
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{program}-{}", sub.get_name());
        // clap has its names for ever.
        let page = sub.clone().name(&*name.clone().leak()).version(crate::VERSION);
        pages.push((name, page));
    }
    pages
        .into_iter()
        .map(|(name, command)| {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).section("1").render(&mut page)?;
            Ok((name, page))
        })
        .collect()
}

/// A program's completions for a shell.
///
/// # Errors
/// There is no such program.
pub fn completion(program: &str, shell: Shell) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    generate(shell, &mut command(program)?, program, &mut out);
    Ok(out)
}

fn command(program: &str) -> Result<Command> {
    let found = programs().into_iter().find(|(name, _)| *name == program);
    found.map(|(_, command)| command).with_context(|| format!("there is no program {program}"))
}

/// Puts them where they belong.
pub(crate) fn install(tree: &Tree, program: &str) -> Result<()> {
    for (name, page) in manual(program)? {
        tree.file(&format!("/usr/share/man/man1/{name}.1"), page, 0o644)?;
    }
    for (shell, folder, before, after) in SHELLS {
        tree.file(&format!("{folder}/{before}{program}{after}"), completion(program, shell)?, 0o644)?;
    }
    Ok(())
}
