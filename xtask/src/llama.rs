//! llama.cpp with its CUDA back end, as its builders publish it on npm, made small: of the code for five kinds of GPU, only what the test
//! machines run is kept. The library keeps its length and its layout; what is gone is zeros, which compress to nothing.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::progress::step;
use harness::{cache, store};
use object::{Object, ObjectSection};

/// A prebuilt llama.cpp (MIT), release b7347. It is built with CUDA 13.0, as the test machines' libraries are, and is the last that has
/// machine code for compute capability 9.0: from 3.15.0 on, a GPU of that kind is given PTX 9.1, which the driver of CUDA 13.0 refuses
/// (CUDA_ERROR_UNSUPPORTED_PTX_VERSION), natively as well.
const PACKAGE: &str = "@node-llama-cpp/linux-x64-cuda@3.14.5";
const ARCHIVE: &str = "llama-3.14.5.tar.gz";
const FOLDER: &str = "package/bins/linux-x64-cuda";
/// The files that a program needs. Of those that the package has under several names, the one by which the others ask for it: as two
/// files they would be loaded twice.
const WANTED: [&str; 6] = [
    "libggml-base.so.0",
    "libggml.cuda.b7347.so.0",
    "libllama.cuda.b7347.so.0",
    "libggml-cpu-haswell.so",
    "libggml-cpu-x64.so",
    CUDA,
];
const CUDA: &str = "libggml-cuda.so";
/// What is kept of each fat binary: machine code for compute capability 9.0, which is what the driver takes there.
const KEPT: Entry = Entry { kind: ELF, architecture: 90 };

const ELF: u16 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    kind: u16,
    architecture: u32,
}

/// The archive, made once.
pub(crate) fn archive() -> Result<PathBuf> {
    cache::file(&store("llama").join(ARCHIVE), |file| {
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
        let library = folder.join(CUDA);
        let mut bytes = fs::read(&library).with_context(|| format!("{PACKAGE} has no {CUDA}"))?;
        let section = section(&bytes)?;
        let count = thin(bytes.get_mut(section).context("a section lies behind the file's end")?, KEPT)?;
        step(format_args!("kept the code for compute capability 9.0 of {count} fat binaries"));
        fs::write(&library, bytes)?;
        fs::copy(place.path().join("package/LICENSE"), folder.join("LICENSE"))?;
        let members: Vec<&str> = WANTED.into_iter().chain(["LICENSE"]).collect();
        tar(&["czf"], file, &folder, &members)
    })
}

fn tar(words: &[&str], archive: &Path, folder: &Path, members: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(words).arg(archive).arg("-C").arg(folder).args(members);
    ensure!(tar.status().context("tar does not start")?.success(), "tar failed on {}", archive.display());
    Ok(())
}

/// Where in a library the fat binaries are.
fn section(library: &[u8]) -> Result<Range<usize>> {
    let file = object::File::parse(library)?;
    let section = file.section_by_name(".nv_fatbin").context("the library has no code for a GPU")?;
    let (at, len) = section.file_range().context("the section of code is empty")?;
    let at = usize::try_from(at)?;
    Ok(at..at + usize::try_from(len)?)
}

/// Leaves in every fat binary of a section the entries of `kept` and none beside them, and says how many fat binaries there are. They
/// stay where they are, since the program has their addresses, but say that they are shorter; behind their new end are zeros. (An entry
/// that had only its code taken away could still be the one that the driver takes.) The layout is described at
/// `whole_stack::programs::fatbin`.
fn thin(section: &mut [u8], kept: Entry) -> Result<usize> {
    const MAGIC: u32 = 0xba55_ed50;
    /// Of a fat binary, and the least of an entry.
    const HEADER: usize = 16;
    const ENTRY_HEADER: usize = 64;
    let (mut at, mut count) = (0, 0);
    while at < section.len() {
        if section.get(at..at + 8).is_some_and(|bytes| bytes.iter().all(|b| *b == 0)) {
            at += 8; // nvcc aligns them to eight bytes, and what is thin already has zeros behind it
            continue;
        }
        ensure!(number::<4>(section, at)? == u64::from(MAGIC), "there is no fat binary at {at:#x}");
        let header = size(number::<2>(section, at + 6)?)?;
        ensure!(header >= HEADER, "the fat binary at {at:#x} has a header of {header} bytes");
        let end = at + header + size(number::<8>(section, at + 8)?)?;
        let (mut entry, mut write) = (at + header, at + header);
        while entry < end {
            let head = size(number::<4>(section, entry + 4)?)?;
            let next = entry + head + size(number::<8>(section, entry + 8)?)?;
            ensure!(
                head >= ENTRY_HEADER && next <= end && next <= section.len(),
                "the entry at {entry:#x} is no entry"
            );
            let what = Entry {
                kind: u16::try_from(number::<2>(section, entry)?)?,
                architecture: u32::try_from(number::<4>(section, entry + 28)?)?,
            };
            if what == kept {
                section.copy_within(entry..next, write);
                write += next - entry;
            }
            entry = next;
        }
        if write == at + header {
            bail!("the fat binary at {at:#x} has no {kept:?}: its kernels could not run");
        }
        section.get_mut(write..end).context("a fat binary lies behind the section's end")?.fill(0);
        let payload = u64::try_from(write - at - header)?.to_le_bytes();
        section.get_mut(at + 8..at + 16).context("unreachable: it was read above")?.copy_from_slice(&payload);
        count += 1;
        at = end.next_multiple_of(8);
    }
    ensure!(count > 0, "the section has no fat binary");
    Ok(count)
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64> {
    let mut word = [0; 8];
    let from = at.checked_add(N).and_then(|end| bytes.get(at..end)).context("a fat binary is cut short")?;
    word.get_mut(..N).context("a number of at most eight bytes")?.copy_from_slice(from);
    Ok(u64::from_le_bytes(word))
}

/// A length that is at most a few times that of a file, so that sums of a few do not overflow.
fn size(bytes: u64) -> Result<usize> {
    let size = usize::try_from(bytes)?;
    ensure!(size < 1 << 40, "a fat binary says that it has {size} bytes");
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: u16 = 1;
    const HEADER: usize = 16;

    fn of(kind: u16, architecture: u32) -> Entry {
        Entry { kind, architecture }
    }

    /// A fat binary of these entries; each one's code is text that names it.
    fn fatbin(entries: &[Entry]) -> Vec<u8> {
        let mut payload = Vec::new();
        for entry in entries {
            let text = "x".repeat(entry.architecture as usize);
            let one = whole_stack::programs::fatbin(&format!("{entry:?}{text}"), entry.architecture);
            let start = payload.len();
            payload.extend_from_slice(&one[HEADER..]);
            payload[start..start + 2].copy_from_slice(&entry.kind.to_le_bytes());
        }
        let mut bytes = whole_stack::programs::fatbin("", 0)[..HEADER].to_vec();
        bytes[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn only_the_entries_that_are_kept_stay() {
        let all = [of(PTX, 75), of(ELF, 86), of(PTX, 90), of(ELF, 90)];
        for place in 0..all.len() {
            let mut entries = all;
            entries.rotate_left(place);
            let one = fatbin(&entries);
            let mut section = [one.clone(), one.clone()].concat();
            assert_eq!(thin(&mut section, KEPT).unwrap(), 2);
            assert_eq!(section.len(), 2 * one.len());
            let expected = fatbin(&[of(ELF, 90)]);
            for half in section.chunks(one.len()) {
                let (kept, rest) = half.split_at(expected.len());
                assert_eq!(kept, expected);
                assert!(rest.iter().all(|b| *b == 0));
            }
            // What is thin already stays as it is.
            let again = section.clone();
            assert_eq!(thin(&mut section, KEPT).unwrap(), 2);
            assert_eq!(section, again);
        }
    }

    #[test]
    fn several_entries_of_one_kind_are_all_kept() {
        let mut section = fatbin(&[of(ELF, 90), of(ELF, 80), of(ELF, 90)]);
        thin(&mut section, KEPT).unwrap();
        let expected = fatbin(&[of(ELF, 90), of(ELF, 90)]);
        assert_eq!(section[..expected.len()], expected);
    }

    #[test]
    fn code_that_would_be_missed_is_an_error() {
        let mut section = [fatbin(&[of(ELF, 90)]), fatbin(&[of(PTX, 90), of(ELF, 80)])].concat();
        let error = thin(&mut section, KEPT).unwrap_err().to_string();
        assert!(error.contains("could not run"), "{error}");
    }

    #[test]
    fn a_section_that_is_none_is_an_error() {
        let whole = fatbin(&[of(PTX, 80), of(ELF, 90)]);
        assert!(thin(&mut [], KEPT).is_err());
        assert!(thin(&mut [0; 64], KEPT).is_err());
        assert!(thin(&mut [0xff; 64], KEPT).is_err());
        for len in (1..whole.len()).step_by(7) {
            assert!(thin(&mut whole[..len].to_vec(), KEPT).is_err(), "cut at {len}");
        }
        for at in [6, 8, 15, HEADER + 4, HEADER + 8, HEADER + 15] {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x55;
            assert!(thin(&mut wrong, KEPT).is_err(), "wrong at {at}");
        }
    }
}
