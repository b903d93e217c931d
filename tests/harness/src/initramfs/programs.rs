//! The shared libraries that an ELF file needs, as this machine's own dynamic loader resolves them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A library that a program needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// This machine has it.
    Found {
        /// The name that the program asks for; the loader's own is its full path.
        name: String,
        /// Where it lies.
        source: PathBuf,
    },
    /// This machine does not have it.
    Missing {
        /// The name that the program asks for.
        name: String,
    },
}

pub(super) fn libraries_of(program: &Path) -> Result<Vec<Library>> {
    let done = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("ldd does not start")?;
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if [&shown, &said]
        .iter()
        .any(|text| text.contains("statically linked") || text.contains("not a dynamic executable"))
    {
        return Ok(Vec::new());
    }
    if !done.status.success() {
        bail!("ldd {}: {}", program.display(), said.trim());
    }
    Ok(parse(&shown))
}

/// `name => /path (0x…)`, `name => not found`, `/path/of/the/loader (0x…)`, `linux-vdso.so.1 (0x…)`
pub(crate) fn parse(shown: &str) -> Vec<Library> {
    let mut libraries = Vec::new();
    for line in shown.lines().map(str::trim) {
        if let Some((name, place)) = line.split_once(" => ") {
            let name = name.to_owned();
            if place == "not found" {
                libraries.push(Library::Missing { name });
            } else if let Some((path, _)) = place.split_once(" (") {
                libraries.push(Library::Found { name, source: path.into() });
            }
        } else if let Some((path, _)) = line.split_once(" (")
            && path.starts_with('/')
        {
            libraries.push(Library::Found { name: path.to_owned(), source: path.into() });
        }
    }
    libraries
}

/// Where the guest's loader finds the library: at the same path if that is one of the loader's own places, else there under
/// the name that is asked for.
pub(super) fn place_in_guest(name: &str, source: &Path) -> String {
    let places = ["/lib/", "/lib64/", "/usr/lib/"];
    let path = source.to_string_lossy();
    if name.starts_with('/') || places.iter().any(|place| path.starts_with(place)) {
        path.into_owned()
    } else {
        format!("/lib/x86_64-linux-gnu/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_line_is_read() {
        let shown = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibcuda.so.1 => not found\n\
                     \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = |name: &str, source: &str| Library::Found { name: name.into(), source: source.into() };
        assert_eq!(
            parse(shown),
            [
                Library::Missing { name: "libcuda.so.1".into() },
                found("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
                found("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
            ]
        );
        assert_eq!(
            place_in_guest("libx.so.1", Path::new("/opt/x/libx.so.1.2")),
            "/lib/x86_64-linux-gnu/libx.so.1"
        );
        assert_eq!(
            place_in_guest("libc.so.6", Path::new("/lib/x86_64-linux-gnu/libc.so.6")),
            "/lib/x86_64-linux-gnu/libc.so.6"
        );
    }

    #[test]
    fn this_very_program_needs_a_c_library() {
        let libraries = libraries_of(&std::env::current_exe().unwrap()).unwrap();
        assert!(
            libraries.iter().any(|it| matches!(it, Library::Found { name, .. } if name == "libc.so.6")),
            "{libraries:?}"
        );
    }
}
