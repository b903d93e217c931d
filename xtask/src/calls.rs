//! The call table as a list, as data, and as the page docs/calls.md.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use cuda_api::Class;
use cuda_api::rows::{Export, exports, lock_text};
use serde_json::json;

/// List every symbol that libcuda exports: class, wire id, and the file of its hand-written half
#[derive(Args)]
pub(crate) struct Calls {
    /// A list of {name, class, id, custom} on standard output
    #[arg(long)]
    json: bool,
    /// Write docs/calls.md, docs/nvml.md and cuda-api/wire.lock, which keeps the ids of rows that have gone: no row gets them again
    #[arg(long)]
    write: bool,
    /// Only this class: local, posted, sync or refused
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
}

impl Calls {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let lock = harness::repository().join("cuda-api/wire.lock");
        let before =
            std::fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        let lock_text = lock_text(&before).map_err(|refused| anyhow!("{refused}"))?;
        if self.write {
            let docs = harness::repository().join("docs");
            let nvml = (docs.join("nvml.md"), nvidia_ml::table::page());
            for (path, text) in [(docs.join("calls.md"), page()), nvml, (lock, lock_text)] {
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
                harness::progress::step(format_args!("wrote {}", path.display()));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let wanted = |e: &&Export| self.class.as_deref().is_none_or(|class| e.row.class.word() == class);
        let list = exports();
        if self.json {
            let items: Vec<_> = list
                .iter()
                .filter(wanted)
                .map(|e| json!({"name": e.name, "class": e.row.class.word(), "id": e.row.id, "custom": e.row.custom}))
                .collect();
            println!("{}", serde_json::to_string_pretty(&items)?);
        } else {
            for e in list.iter().filter(wanted) {
                println!(
                    "{:#06x} {:8} {:48} {}",
                    e.row.id,
                    e.row.class.word(),
                    e.name,
                    e.row.custom.unwrap_or("-")
                );
            }
            eprintln!("{}", summary(&list));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(list: &[Export]) -> String {
    let count = |class| list.iter().filter(|e| e.row.class == class).count();
    let by_hand = list.iter().filter(|e| e.row.custom.is_some()).count();
    format!(
        "{} symbols: {} local, {} posted, {} sync, {} refused; {} with a hand-written half",
        list.len(),
        count(Class::Local),
        count(Class::Posted),
        count(Class::Sync),
        count(Class::Refused),
        by_hand
    )
}

/// The page docs/calls.md.
fn page() -> String {
    let list = exports();
    let mut text = String::from(
        "# Calls\n\nEvery symbol that `libcuda.so.1` exports: the names of driver 580, made from the call table in `cuda-api`.\n\
         Written by `cargo xtask calls --write`; a test compares.\n\n\
         - `local`: answered in the guest. `posted`: written to the ring, not waited for. `sync`: waited for.\n\
         - `refused`: answers `CUDA_ERROR_NOT_SUPPORTED` and is logged once by name.\n\
         - *by hand*: the file of the hand-written guest half; the others are made from their rows alone.\n\n",
    );
    let _ = writeln!(text, "{}.\n", summary(&list));
    for (chapter, rows) in cuda_api::chapters() {
        let of_chapter: Vec<&Export> =
            list.iter().filter(|e| rows.iter().any(|r| r.id == e.row.id)).collect();
        let (refused, done): (Vec<&Export>, Vec<&Export>) =
            of_chapter.into_iter().partition(|e| e.row.class == Class::Refused);
        let _ = writeln!(text, "## {chapter}\n");
        if !done.is_empty() {
            text.push_str("| symbol | class | id | by hand | |\n|---|---|---|---|---|\n");
        }
        for e in done {
            let file =
                e.row.custom.map_or(String::new(), |f| format!("`{}`", f.rsplit('/').next().unwrap_or(f)));
            let note = if e.per_thread { "per-thread default stream" } else { e.row.doc };
            let _ = writeln!(
                text,
                "| `{}` | {} | {:#06x} | {file} | {note} |",
                e.name,
                e.row.class.word(),
                e.row.id
            );
        }
        let mut reasons: Vec<&str> = refused.iter().filter_map(|e| e.row.reason).collect();
        reasons.dedup();
        for reason in reasons {
            let names: Vec<String> = refused
                .iter()
                .filter(|e| e.row.reason == Some(reason))
                .map(|e| format!("`{}`", e.name))
                .collect();
            let _ = writeln!(text, "\nRefused ({reason}): {}.", names.join(", "));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_fresh() {
        let written =
            std::fs::read_to_string(harness::repository().join("docs/calls.md")).unwrap_or_default();
        assert!(written == super::page(), "docs/calls.md is old: run `cargo xtask calls --write`");
    }
}
