//! llama.cpp with its CUDA back end, as its builders publish it on npm, made small: of the machine code for seven kinds of GPU, what the
//! test machines cannot use is overwritten with zeros, which compress to nothing. The files keep their length and layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::progress::step;
use harness::{cache, store};

/// A prebuilt llama.cpp (MIT), built with CUDA 13.
const PACKAGE: &str = "@node-llama-cpp/linux-x64-cuda@3.22.1";
const FOLDER: &str = "package/bins/linux-x64-cuda";
/// The libraries that a program needs, by the start of their names.
const WANTED: [&str; 6] =
    ["libggml-cuda", "libggml-base", "libggml.", "libllama.", "libggml-cpu-x64", "libggml-cpu-haswell"];
/// What is kept of each fat binary: PTX for compute capability 9.0, which the driver compiles for whatever is newer as well.
const KEPT: Entry = Entry { kind: PTX, architecture: 90 };

const PTX: u16 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    kind: u16,
    architecture: u32,
}

/// The archive, made once.
pub(crate) fn archive() -> Result<PathBuf> {
    cache::file(&store("llama").join("llama.tar.gz"), |file| {
        step(format_args!("fetching {PACKAGE} (npm)"));
        let place = tempfile::tempdir_in(store("llama"))?;
        let mut npm = Command::new("npm");
        npm.args(["pack", "--silent", PACKAGE, "--pack-destination"]).arg(place.path());
        let done = npm
            .current_dir(place.path())
            .output()
            .context("npm does not start (Debian: apt-get install npm)")?;
        ensure!(done.status.success(), "npm pack: {}", String::from_utf8_lossy(&done.stderr));
        let packed = fs::read_dir(place.path())?.next().context("npm fetched nothing")??.path();
        tar(&["xzf"], &packed, place.path(), &["package"])?;
        let folder = place.path().join(FOLDER);
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !WANTED.iter().any(|wanted| name.starts_with(wanted)) {
                fs::remove_file(entry.path())?;
            }
        }
        let library = folder.join("libggml-cuda.so");
        let mut bytes = fs::read(&library)?;
        let kept = thin(&mut bytes, KEPT);
        ensure!(kept > 0, "the library has no code that would be kept");
        fs::write(&library, bytes)?;
        fs::copy(place.path().join("package/LICENSE"), folder.join("LICENSE"))?;
        tar(&["czf"], file, &folder, &["."])
    })
}

fn tar(words: &[&str], archive: &Path, folder: &Path, members: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(words).arg(archive).arg("-C").arg(folder).args(members);
    ensure!(tar.status().context("tar does not start")?.success(), "tar failed on {}", archive.display());
    Ok(())
}

/// Overwrites the code of every fat binary's entry but those of `kept`; how many those are. The layout is described at
/// `whole_stack::programs::fatbin`.
fn thin(file: &mut [u8], kept: Entry) -> usize {
    const MAGIC: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
    let (mut at, mut found) = (0, 0);
    // nvcc aligns them to eight bytes.
    while at + 16 <= file.len() {
        if file.get(at..at + 4) != Some(MAGIC.as_slice()) {
            at += 8;
            continue;
        }
        let header = usize::from(u16_at(file, at + 6));
        let Some(end) =
            length(file, at + 8).and_then(|n| n.checked_add(at + header)).filter(|e| *e <= file.len())
        else {
            at += 8;
            continue;
        };
        let mut entry = at + header;
        while entry + 64 <= end {
            let head = u32_at(file, entry + 4) as usize;
            let Some(next) =
                length(file, entry + 8).and_then(|n| n.checked_add(entry + head)).filter(|n| *n <= end)
            else {
                break;
            };
            let what = Entry { kind: u16_at(file, entry), architecture: u32_at(file, entry + 28) };
            if what == kept {
                found += 1;
            } else if let Some(code) = file.get_mut(entry + head..next) {
                code.fill(0);
            }
            entry = next;
        }
        at = end.next_multiple_of(8);
    }
    found
}

fn array<const N: usize>(file: &[u8], at: usize) -> [u8; N] {
    file.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn u16_at(file: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(file, at))
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(file, at))
}

fn length(file: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(array(file, at))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_that_is_kept_stays() {
        let mut file = vec![0; 24];
        for architecture in [80, 90] {
            file.extend(whole_stack::programs::fatbin(".version 8.0\n.target sm_80\n", architecture));
        }
        let before = file.clone();
        assert_eq!(thin(&mut file, KEPT), 1);
        assert_eq!(file.len(), before.len());
        let texts = |file: &[u8]| file.windows(8).filter(|w| *w == b".version").count();
        assert_eq!((texts(&before), texts(&file)), (2, 1));
        // What is thin already stays as it is.
        let again = file.clone();
        assert_eq!(thin(&mut file, KEPT), 1);
        assert_eq!(file, again);
    }
}
