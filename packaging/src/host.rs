//! What goes onto a host.

use std::path::Path;

use anyhow::Result;
use whole_stack::artifacts::Parts;

use crate::pages;
use crate::tree::{copy, stripped};

/// Files of `vgpu-host` that are built or lie elsewhere.
pub(crate) fn fill(root: &Path, built: &Parts) -> Result<()> {
    stripped(root, "usr/bin/vhost-user-vgpu", &built.daemon, 0o755)?;
    stripped(root, "usr/bin/vgpuctl", &built.vgpuctl, 0o755)?;
    copy(root, "usr/share/vgpu/grafana.json", "vhost-backend/vgpuctl/grafana.json")?;
    for page in [pages::daemon(), pages::vgpuctl()] {
        pages::put_all(root, &page)?;
    }
    Ok(())
}
