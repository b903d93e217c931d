//! What guests get.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use harness::repository;
use whole_stack::artifacts::{self, Profile};

use crate::tree::Tree;
use crate::{LIBRARIES, VERSION, elsewhere, manuals, stripped, succeed, text};

/// The libraries, by the names that they are loaded and linked by.
const NAMES: [(&str, &str); 2] = [("libcuda.so.1", "libcuda.so"), ("libnvidia-ml.so.1", "libnvidia-ml.so")];
/// Texts of the guest's folder, where they go, and their modes.
const TEXTS: [(&str, &str, u32); 6] = [
    ("vgpu-run", "/usr/bin/vgpu-run", 0o755),
    ("vgpu-rebind", "/usr/lib/vgpu/vgpu-rebind", 0o755),
    ("vgpu-nodes", "/usr/lib/vgpu/vgpu-nodes", 0o755),
    ("vgpu-nodes.service", "/usr/lib/systemd/system/vgpu-nodes.service", 0o644),
    ("ollama.conf", "/usr/lib/systemd/system/ollama.service.d/vgpu.conf", 0o644),
    ("cdi.yaml", "/etc/cdi/vgpu.yaml", 0o644),
];
/// Those that the module's folder has.
const MODULE_TEXTS: [(&str, &str); 2] = [
    ("60-vgpu.rules", "/usr/lib/udev/rules.d/60-vgpu.rules"),
    ("vgpu-modprobe.conf", "/usr/lib/modprobe.d/vgpu.conf"),
];

/// The compiled part.
pub(crate) struct Built {
    libraries: Vec<(&'static str, &'static str, Vec<u8>)>,
    smi: Vec<u8>,
}

impl Built {
    pub(crate) fn make(profile: Profile) -> Result<Self> {
        let folder = artifacts::libcuda(profile)?;
        let libraries = NAMES
            .iter()
            .map(|(loaded, linked)| Ok((*loaded, *linked, stripped(&folder.join(loaded))?)))
            .collect::<Result<_>>()?;
        Ok(Self { libraries, smi: stripped(&artifacts::portable_smi(profile)?)? })
    }
}

/// Libraries and tools.
pub(crate) fn package(built: &Built, staging: &Path, to: &Path) -> Result<PathBuf> {
    let tree = Tree::new(staging.join("vgpu-guest"))?;
    for (loaded, linked, bytes) in &built.libraries {
        tree.file(&format!("{LIBRARIES}/{loaded}"), bytes, 0o644)?;
        tree.link(&format!("{LIBRARIES}/{linked}"), loaded)?;
    }
    tree.file("/usr/bin/vgpu-smi", &built.smi, 0o755)?;
    for (name, path, mode) in TEXTS {
        tree.file(path, text(&format!("guest/{name}"), LIBRARIES)?, mode)?;
    }
    for (name, path) in MODULE_TEXTS {
        tree.file(path, elsewhere(&format!("guest-driver/kmod/packaging/{name}"))?, 0o644)?;
    }
    manuals::install(&tree, "vgpu-smi")?;
    tree.file("/usr/share/doc/vgpu-guest/copyright", elsewhere("NOTICE")?, 0o644)?;
    tree.file("/usr/share/doc/vgpu-guest/install.md", elsewhere("docs/install.md")?, 0o644)?;
    let scripts = ["preinst", "postinst", "prerm", "postrm", "triggers"];
    let scripts: Vec<_> = scripts
        .iter()
        .map(|name| Ok((*name, text(&format!("guest/{name}"), LIBRARIES)?)))
        .collect::<Result<_>>()?;
    tree.pack(&text("guest/control", LIBRARIES)?, &scripts, to)
}

/// The kernel module's sources: path in their folder, and bytes.
fn module() -> Result<Vec<(String, Vec<u8>)>> {
    let folder = repository().join("guest-driver/kmod");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder)?.chain(fs::read_dir(folder.join("include"))?) {
        let path = entry?.path();
        if path.is_file() {
            let name = path.strip_prefix(&folder)?.to_string_lossy().into_owned();
            files.push((name, fs::read(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

/// The kernel module, for DKMS.
pub(crate) fn sources(staging: &Path, to: &Path) -> Result<PathBuf> {
    let tree = Tree::new(staging.join("vgpu-guest-dkms"))?;
    for (name, bytes) in module()? {
        tree.file(&format!("/usr/src/vgpu-{VERSION}/{name}"), bytes, 0o644)?;
    }
    tree.file("/usr/share/doc/vgpu-guest-dkms/copyright", elsewhere("guest-driver/kmod/LICENSE")?, 0o644)?;
    let scripts =
        [("postinst", text("dkms/postinst", LIBRARIES)?), ("prerm", text("dkms/prerm", LIBRARIES)?)];
    tree.pack(&text("dkms/control", LIBRARIES)?, &scripts, to)
}

/// Both for systems without dpkg. install.sh fills in where libraries are.
pub(crate) fn archive(built: &Built, staging: &Path, to: &Path) -> Result<PathBuf> {
    let name = format!("vgpu-guest-{VERSION}");
    let tree = Tree::new(staging.join(&name))?;
    for (loaded, _, bytes) in &built.libraries {
        tree.file(&format!("lib/{loaded}"), bytes, 0o644)?;
    }
    tree.file("bin/vgpu-smi", &built.smi, 0o755)?;
    for (text_name, ..) in TEXTS {
        tree.file(&format!("share/{text_name}"), text(&format!("guest/{text_name}"), "@LIBRARIES@")?, 0o644)?;
    }
    for (text_name, _) in MODULE_TEXTS {
        let bytes = elsewhere(&format!("guest-driver/kmod/packaging/{text_name}"))?;
        tree.file(&format!("share/{text_name}"), bytes, 0o644)?;
    }
    for (path, bytes) in module()? {
        tree.file(&format!("kmod/{path}"), bytes, 0o644)?;
    }
    // @LIBRARIES@ stays in it: it is the script that fills it in.
    tree.file("install.sh", text("install.sh", "@LIBRARIES@")?, 0o755)?;
    tree.file("LICENSE", elsewhere("LICENSE")?, 0o644)?;
    tree.file("install.md", elsewhere("docs/install.md")?, 0o644)?;
    let archive = to.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@1700000000", "-czf"]);
    tar.arg(&archive).arg("-C").arg(staging).arg(tree.folder().file_name().unwrap_or_default());
    succeed(&mut tar, "tar")?;
    Ok(archive)
}
