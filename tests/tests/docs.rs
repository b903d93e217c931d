//! The pages of this repository name things that exist: files, functions in them, links, tasks.
//!
//! In a code span, `path/to/file.ext` or `folder/` is a path from the repository's root, and `path/to/file.ext::name` a function
//! in that file. Spans that do not begin with a folder of the repository (commands, addresses, `/dev/vgpu`) are left alone, and so is
//! what the build makes in `target/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every page, by its path from the root.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "qemu-patches/README.md"]
            .map(str::to_owned)
            .into();
    for entry in std::fs::read_dir(root().join("docs")).expect("docs/") {
        let name = entry.expect("an entry of docs/").file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&root().join(&name)))).collect()
}

/// The code spans of a page. Code blocks (indented, after an empty line) have none.
fn spans(page: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let (mut after_empty, mut in_block) = (true, false);
    for line in page.lines() {
        in_block = line.starts_with("    ") && (after_empty || in_block);
        after_empty = line.is_empty();
        if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// The targets of a page's links to files.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.map(|target| target.split('#').next().unwrap_or(target))
}

/// The first components of paths in this repository, what the build makes left out.
fn folders() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root()).expect("the repository").flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|n| n != "target").collect()
}

/// What is wrong with a span, if it is a path of this repository or a function in one.
fn fault(span: &str, folders: &BTreeSet<String>) -> Option<String> {
    let (path, function) =
        span.split_once("::").map_or((span, None), |(path, function)| (path, Some(function)));
    let (folder, _) = path.split_once('/')?;
    if !folders.contains(folder) || path.contains([' ', '*', '…']) {
        return None;
    }
    let file = root().join(path);
    if !file.exists() {
        return Some(format!("{path} does not exist"));
    }
    let name = function?;
    let text = read(&file);
    let there = if path.ends_with(".rs") {
        text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<"))
    } else {
        text.contains(&format!("{name}("))
    };
    (!there).then(|| format!("{path} has no function {name}"))
}

/// The tasks of `cargo xtask`, from the enumeration that makes its command line.
fn tasks() -> BTreeSet<String> {
    let text = read(&root().join("xtask/src/main.rs"));
    let (_, body) = text.split_once("enum Task {").expect("enum Task");
    let (body, _) = body.split_once('}').expect("its end");
    let variants = body.lines().filter_map(|line| line.trim().split_once('('));
    variants.map(|(name, _)| kebab(name)).collect()
}

/// A variant's name as clap makes a subcommand of it.
fn kebab(name: &str) -> String {
    let mut word = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && at > 0 {
            word.push('-');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

#[test]
fn paths_and_functions_exist() {
    let folders = folders();
    assert!(folders.contains("mediator") && folders.contains("docs"), "{folders:?}");
    let pages = pages();
    let mut seen = 0;
    let mut faults = Vec::new();
    for (name, page) in &pages {
        for span in spans(page) {
            seen += usize::from(span.split_once('/').is_some_and(|(first, _)| folders.contains(first)));
            faults.extend(fault(span, &folders).map(|fault| format!("{name}: {fault}")));
        }
    }
    // Fewer would mean that the spans are not found any more.
    assert!(seen > 100, "only {seen} paths found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut seen = 0;
    let mut faults = Vec::new();
    for (name, page) in &pages {
        let page_path = root().join(name);
        let folder = page_path.parent().expect("pages lie in folders");
        for target in links(page) {
            seen += 1;
            if !folder.join(target).exists() {
                faults.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(seen > 10, "only {seen} links found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn tasks_are_tasks() {
    let tasks = tasks();
    assert!(tasks.contains("demo") && tasks.contains("test"), "{tasks:?}");
    let mut named = BTreeSet::new();
    for (name, page) in pages() {
        for rest in page.split("cargo xtask ").skip(1) {
            let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            // An option of the command itself is no task.
            if !word.is_empty() && !word.starts_with('-') {
                assert!(tasks.contains(&word), "{name}: `cargo xtask {word}` is no task");
                named.insert(word);
            }
        }
    }
    assert_eq!(named, tasks, "every task is described somewhere");
}

#[test]
fn faults_are_found() {
    let folders = folders();
    let fault = |span| fault(span, &folders);
    assert_eq!((kebab("Demo"), kebab("GpuBundle")), ("demo".to_owned(), "gpu-bundle".to_owned()));
    assert_eq!(fault("mediator/src/lib.rs"), None);
    assert_eq!(fault("mediator/src/vm.rs::kick"), None);
    assert_eq!(fault("guest-driver/kmod/vgpu_queue.c::vgpu_kick"), None);
    assert_eq!(fault("/dev/vgpu"), None);
    assert_eq!(fault("target/anything"), None);
    assert!(fault("mediator/src/no_such_file.rs").is_some());
    assert!(fault("mediator/src/vm.rs::no_such_function").is_some());
    assert_eq!(
        links("see [a](b.md#c), [d](https://example.invalid/) and [e](#f)").collect::<Vec<_>>(),
        ["b.md"]
    );
    assert_eq!(spans("- a `b` c `d`\n    `e`\n\n    `no`\n    `no`\n"), ["b", "d", "e"]);
}
