//! Writes the C headers of `pci-layout/include` from the tables that [`pci_layout`] keeps beside its items.
//!
//! | header | sections | who includes it |
//! |---|---|---|
//! | `vgpu_layout.h` | common, ids, regs, control, event, ring | the kernel module |
//! | `vgpu_ioctl.h` | uapi | the kernel module, C programs that use `/dev/vgpu` |
//!
//! It is not a parser of Rust: what a table does not say is not known here. Three things are read from text, and each is
//! an error where the text is not as expected: a field's type (`u32`, `u64`, `[u8; 16]`, a structure's name), the names
//! that a doc comment mentions (rewritten to the C names), and an ioctl's kind and argument, which its doc comment opens
//! with (``"`_IOWR`, [`IoctlOpen`]"``).
//!
//! Invariants
//! - The headers compile in the kernel and in user space, and name nothing but `__u8`, `__u32`, `__u64` and themselves.
//! - The C name of a constant is its Rust name with `VGPU_` before it; of a structure, `struct vgpu_` and its name in
//!   snake case; of an ioctl, its number's name without `NR_`. Two constants with one C name are an error.
//! - The text depends on the tables alone. The headers are checked in, and a test regenerates and compares them.

mod layout;
mod names;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The headers' names and texts.
///
/// # Errors
/// When a table says something that this crate cannot put into C; the message names the item.
pub fn generate() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![("vgpu_layout.h", layout::layout_header()?), ("vgpu_ioctl.h", layout::ioctl_header()?)])
}

/// Writes the headers into the folder `dir`, where a file's text differs from what is there, and gives the files written.
///
/// # Errors
/// Those of [`generate`], and what the file system says.
pub fn write(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (name, text) in generate()? {
        let path = dir.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

/// The folder in which the headers are checked in.
#[must_use]
pub fn include_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../include"))
}
