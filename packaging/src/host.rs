//! What hosts get.

use std::path::{Path, PathBuf};

use anyhow::Result;
use whole_stack::artifacts::{self, Profile};

use crate::tree::Tree;
use crate::{LIBRARIES, elsewhere, manuals, stripped, text};

/// Texts of the host's folder, and where they go.
const TEXTS: [(&str, &str); 5] = [
    ("vhost-user-vgpu@.service", "/usr/lib/systemd/system/vhost-user-vgpu@.service"),
    ("sysusers.conf", "/usr/lib/sysusers.d/vgpu.conf"),
    ("tmpfiles.conf", "/usr/lib/tmpfiles.d/vgpu.conf"),
    ("50-vgpu.json", "/usr/share/vgpu/vhost-user/50-vgpu.json"),
    ("example.conf", "/usr/share/doc/vgpu-host/example.conf"),
];

/// Daemon and administration.
pub(crate) fn package(profile: Profile, staging: &Path, to: &Path) -> Result<PathBuf> {
    let tree = Tree::new(staging.join("vgpu-host"))?;
    let mut newest = (0, 0);
    for (name, program) in
        [("vhost-user-vgpu", artifacts::daemon(profile)?), ("vgpuctl", artifacts::vgpuctl(profile)?)]
    {
        let bytes = stripped(&program)?;
        newest = newest.max(artifacts::newest_glibc(&bytes));
        tree.file(&format!("/usr/bin/{name}"), bytes, 0o755)?;
        manuals::install(&tree, name)?;
    }
    for (name, path) in TEXTS {
        tree.file(path, text(&format!("host/{name}"), LIBRARIES)?, 0o644)?;
    }
    tree.empty("/etc/vgpu/vms")?;
    tree.file("/usr/share/doc/vgpu-host/copyright", elsewhere("NOTICE")?, 0o644)?;
    tree.file("/usr/share/doc/vgpu-host/install.md", elsewhere("docs/install.md")?, 0o644)?;
    tree.file("/usr/share/vgpu/grafana.json", elsewhere("vhost-backend/vgpuctl/grafana.json")?, 0o644)?;
    let control = text("host/control", LIBRARIES)?.replace("@GLIBC@", &format!("{}.{}", newest.0, newest.1));
    let scripts = ["postinst", "prerm", "postrm"];
    let scripts: Vec<_> = scripts
        .iter()
        .map(|name| Ok((*name, text(&format!("host/{name}"), LIBRARIES)?)))
        .collect::<Result<_>>()?;
    tree.pack(&control, &scripts, to)
}
