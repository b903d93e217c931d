//! A QEMU, a file system server and a guest in one folder, for a machine that has none of them and no network.
//!
//! | name in the folder | what it is |
//! |---|---|
//! | `bin/qemu-system-x86_64`, `bin/virtiofsd` | the programs, to be run as `lib/ld-linux-x86-64.so.2 --library-path lib PROGRAM` |
//! | `lib/` | their dynamic loader and every library that they need |
//! | `firmware/` | what a machine without display and disks boots with (`-L`) |
//! | `vmlinuz`, `initramfs` | the guest ([`crate::guest::Boot::pack`]) |

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::packages::{Apt, Extent, Libraries};

/// The suite whose QEMU is packed: its emulation is sound for every guest kernel, and its virtiofsd needs no privileges.
const SUITE: &str = "trixie";
const QEMU: &str = "usr/bin/qemu-system-x86_64";
const VIRTIOFSD: &str = "usr/libexec/virtiofsd";
/// Where the packages have firmware.
const FIRMWARE_FOLDERS: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
/// Of the firmware, what is read for a machine that has no display, no disk and no network.
const FIRMWARE: [&str; 3] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];

/// Puts QEMU, virtiofsd and what they need into a folder.
///
/// # Errors
/// When a package cannot be fetched, or lacks something.
pub fn programs(folder: &Path) -> Result<()> {
    let qemu = Apt::unpack(SUITE, &format!("qemu-{SUITE}"), &["qemu-system-x86"], Extent::WithDependencies)?;
    let virtiofsd = Apt::unpack(SUITE, "virtiofsd", &["virtiofsd"], Extent::WithDependencies)?;
    for part in ["bin", "lib", "firmware"] {
        fs::create_dir_all(folder.join(part))?;
    }
    for (root, name) in [(&qemu, QEMU), (&virtiofsd, VIRTIOFSD)] {
        let (libraries, program) = (Libraries::of(root)?, root.join(name));
        place(&program, &folder.join("bin"), None, 0o755)?;
        place(libraries.loader(), &folder.join("lib"), None, 0o755)?;
        for (name, source) in libraries.needed_by(&program)? {
            place(&source, &folder.join("lib"), Some(&name), 0o644)?;
        }
    }
    for name in FIRMWARE {
        let mut places = FIRMWARE_FOLDERS.iter().map(|part| qemu.join(part).join(name));
        let found = places.find(|path| path.exists()).with_context(|| format!("no firmware {name}"))?;
        place(&found, &folder.join("firmware"), None, 0o644)?;
    }
    Ok(())
}

/// What is in a folder's files, and their names, as a key for [`crate::cache`].
///
/// # Errors
/// When one cannot be read.
pub fn fingerprint(folder: &Path) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let inner =
            if path.is_dir() { fingerprint(&path)? } else { blake3::hash(&fs::read(&path)?).to_string() };
        hash.update(entry.file_name().as_encoded_bytes()).update(b"\0").update(inner.as_bytes());
    }
    Ok(hash.finalize().to_string())
}

/// Copies a file, or what a link leads to, under its own name or another one.
fn place(file: &Path, folder: &Path, name: Option<&str>, mode: u32) -> Result<()> {
    let own = file.file_name().context("a file without a name")?;
    let target = folder.join(name.map_or(own, std::ffi::OsStr::new));
    if !target.exists() {
        fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_names_and_contents() {
        let prints: Vec<_> = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")]
            .map(|(name, text)| {
                let folder = tempfile::tempdir().unwrap();
                fs::create_dir(folder.path().join("inner")).unwrap();
                fs::write(folder.path().join("inner").join(name), text).unwrap();
                fingerprint(folder.path()).unwrap()
            })
            .to_vec();
        assert_eq!(prints[0], prints[1]);
        assert!(prints[0] != prints[2] && prints[0] != prints[3] && prints[2] != prints[3]);
    }
}
