//! What goes into a guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::repository;
use whole_stack::artifacts::Parts;

use crate::pages;
use crate::tree::{self, copy, data, link, put, stripped};

/// Where Debian's dynamic loader looks.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The libraries, and the names by which programs are linked to them.
pub const NAMES: [(&str, &str); 2] =
    [("libcuda.so.1", "libcuda.so"), ("libnvidia-ml.so.1", "libnvidia-ml.so")];
/// The folder that has the libraries and nothing else, for `vgpu-run`.
const ALONE: &str = "usr/lib/vgpu";

const RULES: &str = "guest-driver/kmod/packaging/60-vgpu.rules";
const MODPROBE: &str = "guest-driver/kmod/packaging/vgpu-modprobe.conf";

/// Files of `vgpu-guest` that are built or lie elsewhere.
pub(crate) fn fill(root: &Path, built: &Parts) -> Result<()> {
    for (loaded, linked) in NAMES {
        stripped(root, &format!("{LIBRARIES}/{loaded}"), &built.libraries.join(loaded), 0o644)?;
        link(root, &format!("{LIBRARIES}/{linked}"), loaded)?;
        link(root, &format!("{ALONE}/{loaded}"), &format!("/{LIBRARIES}/{loaded}"))?;
    }
    stripped(root, "usr/bin/vgpu-smi", &built.smi, 0o755)?;
    copy(root, "usr/lib/udev/rules.d/60-vgpu.rules", RULES)?;
    copy(root, "usr/lib/modprobe.d/vgpu.conf", MODPROBE)?;
    pages::put_all(root, &pages::smi())
}

/// The kernel module's source, for DKMS.
pub(crate) fn fill_dkms(root: &Path, version: &str) -> Result<()> {
    sources(&root.join(format!("usr/src/vgpu-{version}")), version)
}

fn sources(folder: &Path, version: &str) -> Result<()> {
    let kmod = repository().join("guest-driver/kmod");
    // Its tests and the rules are not needed for a build; its link to the headers becomes a folder.
    for entry in std::fs::read_dir(&kmod).with_context(|| format!("cannot read {}", kmod.display()))? {
        let (path, name) = entry.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned()))?;
        let is_source = name.ends_with(".c") || name.ends_with(".h");
        if is_source && !name.ends_with(".mod.c")
            || ["Kbuild", "Makefile", "LICENSE", "README.md"].contains(&name.as_str())
        {
            put(folder, &name, &std::fs::read(&path)?, 0o644)?;
        }
    }
    tree::copy_folder(&kmod.join("include"), &folder.join("include"))?;
    let text = std::fs::read_to_string(kmod.join("dkms.conf"))?;
    let line = format!("PACKAGE_VERSION=\"{}\"", crate::VERSION);
    ensure!(text.contains(&line), "dkms.conf does not have {line}, the version in Cargo.toml");
    put(folder, "dkms.conf", text.replace(&line, &format!("PACKAGE_VERSION=\"{version}\"")).as_bytes(), 0o644)
}

/// The tarball with its install.sh.
pub(crate) fn tarball(work: &Path, built: &Parts, version: &str, folder: &Path) -> Result<PathBuf> {
    let name = format!("vgpu-guest-{version}");
    let root = work.join(&name);
    for (loaded, _) in NAMES {
        stripped(&root, &format!("lib/{loaded}"), &built.libraries.join(loaded), 0o644)?;
    }
    stripped(&root, "bin/vgpu-smi", &built.smi, 0o755)?;
    let own = data().join("vgpu-guest/root");
    put(&root, "bin/vgpu-run", &std::fs::read(own.join("usr/bin/vgpu-run"))?, 0o755)?;
    copy(&root, "share/60-vgpu.rules", RULES)?;
    copy(&root, "share/vgpu.conf", MODPROBE)?;
    put(&root, "share/vgpu.yaml", &cdi(&own)?, 0o644)?;
    let drop_in = own.join("usr/lib/systemd/system/ollama.service.d/50-vgpu.conf");
    put(&root, "share/50-vgpu.conf", &std::fs::read(drop_in)?, 0o644)?;
    sources(&root.join("kmod"), version)?;
    for file in ["LICENSE", "NOTICE", "CHANGELOG.md"] {
        copy(&root, file, file)?;
    }
    let script = std::fs::read_to_string(data().join("tarball/install.sh"))?.replace("@VERSION@", version);
    put(&root, "install.sh", script.as_bytes(), 0o755)?;
    tree::open_folders(&root)?;

    let file = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args([
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--sort=name",
        &format!("--mtime=@{}", tree::time()),
    ]);
    tar.args(["-czf"]).arg(&file).arg("-C").arg(work).arg(&name);
    let done = tar.output().context("tar does not start")?;
    ensure!(done.status.success(), "tar: {}", String::from_utf8_lossy(&done.stderr));
    Ok(file)
}

fn cdi(own: &Path) -> Result<Vec<u8>> {
    std::fs::read(own.join("etc/cdi/vgpu.yaml")).context("the CDI file")
}
