//! Public test suites for the machine with a GPU, unmodified: what they need that may not be installed there, and cuda-python's tests.
//! numba-cuda's tests come with the package that is installed there.
//!
//! The wheels are for CPython 3.12 on x86-64, which is the machine's, and are unpacked, since there is no pip at hand. Each keeps its
//! licence in its `.dist-info` folder. Nothing of this is committed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::progress::step;
use harness::{cache, store, wheels};
use serde_json::json;

const PYTHON: &str = "3.12";
/// pytest and what it needs; what numba-cuda's tests import.
const PACKAGES: [(&str, &str); 7] = [
    ("pytest", "8.3.*"),
    ("iniconfig", "2.*"),
    ("pluggy", "1.*"),
    ("packaging", "26.*"),
    ("filecheck", "1.*"),
    ("cffi", "2.*"),
    ("pycparser", "3.*"),
];
/// In a checkout of cuda-python: the tests, their licence, and the file that says whose they are.
const TESTS: &str = "cuda_bindings/tests";
const LICENCE: &str = "cuda_bindings/LICENSE";
const VERSION: &str = "cuda_bindings/cuda/bindings/_version.py";
/// Bytes: the bundle has a limit, and other parts.
const MOST_BYTES: u64 = 14 << 20;

/// The archive. `cuda_python` is a checkout of github.com/NVIDIA/cuda-python at a release: its tests are in no package. Without it,
/// the bundle has numba-cuda's suite alone.
pub(crate) fn archive(cuda_python: Option<&Path>) -> Result<PathBuf> {
    let version = cuda_python.map(version).transpose()?;
    let key = version.as_deref().unwrap_or("none");
    cache::file(&store("suites").join(format!("suites-{key}.tar.xz")), |file| {
        let place = tempfile::tempdir_in(store("suites"))?;
        let (python, bindings) = (place.path().join("python"), place.path().join("bindings"));
        for (name, version) in PACKAGES {
            wheels::unpack(name, version, PYTHON, &python)?;
        }
        if let (Some(from), Some(version)) = (cuda_python, &version) {
            wheels::unpack("cuda-bindings", version, PYTHON, &bindings)?;
            let to = place.path().join("cuda-python");
            copy(&from.join(TESTS), &to.join(TESTS))?;
            fs::copy(from.join(LICENCE), to.join(LICENCE)).context("the checkout has no licence")?;
        }
        fs::write(place.path().join("versions.json"), json!({ "cuda-bindings": version }).to_string())?;
        step(format_args!("packing the test suites"));
        let mut tar = Command::new("tar");
        tar.arg("cJf").arg(file).env("XZ_OPT", "-9e").arg("-C").arg(place.path()).arg(".");
        ensure!(tar.status().context("tar does not start")?.success(), "tar failed on {}", file.display());
        let bytes = File::open(file)?.metadata()?.len();
        ensure!(bytes <= MOST_BYTES, "the test suites have {bytes} bytes, more than {MOST_BYTES}");
        Ok(())
    })
}

/// The release of a checkout: `__version__ = "13.0.3"`.
fn version(checkout: &Path) -> Result<String> {
    let path = checkout.join(VERSION);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} names no release", path.display()))
}

fn parse(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("__version__"))?;
    let version = line.trim_start_matches([' ', '=']).trim().trim_matches(['"', '\'']);
    let numbers = version.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    numbers.then(|| version.to_owned())
}

/// Files and folders, without what Python leaves behind.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_name() == "__pycache__" {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_release_is_numbers_and_points() {
        let parse = |text: &str| super::parse(text);
        assert_eq!(parse("# x\n__version__ = \"13.0.3\"\n").as_deref(), Some("13.0.3"));
        assert_eq!(parse("__version__ = '13.0.3.dev1+g1'\n"), None);
        assert_eq!(parse("from x import y\n"), None);
    }
}
