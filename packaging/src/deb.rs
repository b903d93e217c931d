//! From a folder of files to a Debian package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tree::{self, data};

/// The packages.
pub const DEBS: [&str; 4] = ["vgpu-guest", "vgpu-guest-dkms", "vgpu-guest-nvidia-nodes", "vgpu-host"];

/// What a package may have beside its files.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];
const LISTS: [&str; 2] = ["conffiles", "triggers"];

/// Makes the package `name` of what is in `root`, of its own files, and of its control files. `root` may not be there yet.
pub(crate) fn make(name: &str, root: &Path, version: &str, folder: &Path) -> Result<PathBuf> {
    let own = data().join(name);
    if own.join("root").is_dir() {
        tree::copy_folder(&own.join("root"), root)?;
    }
    let documents = format!("usr/share/doc/{name}");
    for file in ["NOTICE", "CHANGELOG.md"] {
        tree::copy(root, &format!("{documents}/{file}"), file)?;
    }
    let licence = if name == "vgpu-guest-dkms" { "guest-driver/kmod/LICENSE" } else { "LICENSE" };
    tree::copy(root, &format!("{documents}/copyright"), licence)?;
    let bytes = size(root)?;

    let read = |file: &str| {
        let path = own.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(text.replace("@VERSION@", version))
    };
    let control = read("control")?
        .replace("\nDescription:", &format!("\nInstalled-Size: {}\nDescription:", bytes.div_ceil(1024)));
    tree::put(root, "DEBIAN/control", control.as_bytes(), 0o644)?;
    for (files, mode) in [(&SCRIPTS[..], 0o755), (&LISTS[..], 0o644)] {
        for file in files.iter().filter(|file| own.join(file).exists()) {
            tree::put(root, &format!("DEBIAN/{file}"), read(file)?.as_bytes(), mode)?;
        }
    }
    tree::open_folders(root)?;

    let architecture = control.lines().find_map(|line| line.strip_prefix("Architecture: "));
    let architecture = architecture.with_context(|| format!("{name}: no Architecture"))?;
    let deb = folder.join(format!("{name}_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    // xz, which every dpkg reads.
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(root).arg(&deb);
    build.env("SOURCE_DATE_EPOCH", tree::time());
    let done = build.output().context("dpkg-deb does not start: this needs a Debian or Ubuntu machine")?;
    ensure!(done.status.success(), "dpkg-deb of {name}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(deb)
}

/// Bytes of all files.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}
