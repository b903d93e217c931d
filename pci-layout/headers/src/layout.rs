//! The text of the two headers.

use std::collections::HashSet;
use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use pci_layout::{CONSTS, ConstInfo, STRUCTS, StructInfo};

use crate::names;

/// The kernel module is GPL-2.0-only and takes the header in; programs in user space need not be.
const LICENCE: &str = "/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR Apache-2.0 */\n";
const GENERATED: &str = "Generated from the crate pci-layout by `cargo xtask headers`: do not edit.";
/// The section that the ioctl header holds; the layout header holds the others.
const IOCTL_SECTION: &str = "uapi";
/// What the name of an ioctl's number starts with.
const IOCTL_NUMBER: &str = "IOCTL_NR_";

pub fn layout_header() -> Result<String> {
    let about = [
        "What the vgpu driver and the vgpu device must agree on byte for byte: ids, the register block,",
        "control and event messages, the command ring and the session page.",
        "",
        "Every field is little endian and naturally aligned; no structure has hidden padding.",
    ];
    let mut text = opening("_VGPU_LAYOUT_H", &about, &["linux/types.h"]);
    check_unique()?;
    for (section, consts) in CONSTS.iter().filter(|(section, _)| *section != IOCTL_SECTION) {
        write!(text, "\n/* ---- {section} ---- */\n\n")?;
        if *section == "ids" {
            let tag = std::str::from_utf8(&pci_layout::ids::TAG).context("the tag is not text")?;
            text += &names::comment(
                "Tag of the function among the guest's file systems; magic of the register block.",
                "",
            );
            writeln!(text, "#define VGPU_TAG \"{tag}\"")?;
        }
        for info in *consts {
            text += &define(section, info)?;
        }
        for (_, structs) in STRUCTS.iter().filter(|(owner, _)| owner == section) {
            for info in *structs {
                text += &declare(info)?;
            }
        }
    }
    Ok(text + "\n#endif /* _VGPU_LAYOUT_H */\n")
}

pub fn ioctl_header() -> Result<String> {
    let about = [
        "The ioctls of /dev/vgpu. One file, one session, one process: OPEN_SESSION ties the file to the",
        "caller's address space, and every later ioctl from another one (a forked child's) fails with ECHILD.",
        "",
        "mmap: offset VGPU_MMAP_SESSION_PAGE is the session page (read-only); VGPU_MMAP_RING_STRIDE * (ring + 1)",
        "is a ring's memory, that plus VGPU_MMAP_STAGING_OFFSET its staging buffer. Map them shared and whole.",
        "Mappings are not inherited by fork.",
        "",
        "Every field is little endian and naturally aligned; the layout is the same for 32-bit programs.",
    ];
    let mut text = opening("_VGPU_IOCTL_H", &about, &["linux/ioctl.h", "linux/types.h"]);
    let section = |name: &str| -> Result<&'static [ConstInfo]> {
        Ok(CONSTS
            .iter()
            .find(|(section, _)| *section == name)
            .with_context(|| format!("no section {name}"))?
            .1)
    };
    let consts = section(IOCTL_SECTION)?;
    text.push('\n');
    for info in consts {
        text += &define(IOCTL_SECTION, info)?;
    }
    for (_, structs) in STRUCTS.iter().filter(|(owner, _)| *owner == IOCTL_SECTION) {
        for info in *structs {
            text += &declare(info)?;
        }
    }
    text.push('\n');
    for info in consts.iter().filter(|info| info.name.starts_with(IOCTL_NUMBER)) {
        text += &ioctl(info)?;
    }
    Ok(text + "\n#endif /* _VGPU_IOCTL_H */\n")
}

fn opening(guard: &str, about: &[&str], includes: &[&str]) -> String {
    let mut text = format!("{LICENCE}/*\n");
    for line in about {
        text += format!(" * {line}").trim_end();
        text.push('\n');
    }
    text += &format!(" *\n * {GENERATED}\n */\n#ifndef {guard}\n#define {guard}\n\n");
    for include in includes {
        text += &format!("#include <{include}>\n");
    }
    text
}

fn define(section: &str, info: &ConstInfo) -> Result<String> {
    let mut text = names::comment(info.doc, "");
    writeln!(text, "#define {} {}", names::constant(info.name), literal(section, info))?;
    Ok(text)
}

/// PCI ids, offsets and bit masks are read in hexadecimal, everything else in decimal.
fn literal(section: &str, info: &ConstInfo) -> String {
    let starts_with = |prefixes: &[&str]| prefixes.iter().any(|prefix| info.name.starts_with(prefix));
    let register = section == "regs"
        && (info.name == "ERROR_CODE" || !starts_with(&["STATUS_", "ERROR_", "PRIORITY_", "BLOCK_BYTES"]));
    let hexadecimal = register
        || starts_with(&["OFF_", "PCI_", "MMAP_", "CAP_", "MAP_READ_ONLY", "IOCTL_TYPE"])
        || ["FRAME_WAIT", "FRAME_PAD", "FRAME_BULK"].contains(&info.name);
    let suffix = if info.value > u64::from(u32::MAX) || info.name.starts_with("MMAP_") { "ULL" } else { "" };
    if hexadecimal { format!("{:#04x}{suffix}", info.value) } else { format!("{}{suffix}", info.value) }
}

fn declare(info: &StructInfo) -> Result<String> {
    let mut text = format!("\n{}struct {} {{\n", names::comment(info.doc, ""), names::structure(info.name));
    for field in info.fields {
        let declaration = names::declaration(field.ty, field.name)
            .with_context(|| format!("field {} of {}", field.name, info.name))?;
        text += &names::comment(field.doc, "\t");
        writeln!(text, "\t{declaration};")?;
    }
    Ok(text + "};\n")
}

/// `IOCTL_NR_KICK` → `#define VGPU_IOCTL_KICK _IO(VGPU_IOCTL_TYPE, VGPU_IOCTL_NR_KICK)`.
fn ioctl(info: &ConstInfo) -> Result<String> {
    let name = info.name.strip_prefix(IOCTL_NUMBER).unwrap_or(info.name);
    let number = names::constant(info.name);
    let doc = info.doc.trim_start();
    let text = if doc.starts_with("`_IO`") {
        format!("#define VGPU_IOCTL_{name} _IO(VGPU_IOCTL_TYPE, {number})\n")
    } else if let Some(rest) = doc.strip_prefix("`_IOWR`, [`") {
        let argument = rest.split('`').next().unwrap_or_default();
        ensure!(names::find_structure(argument).is_some(), "{}: no structure {argument}", info.name);
        let argument = names::structure(argument);
        format!("#define VGPU_IOCTL_{name} _IOWR(VGPU_IOCTL_TYPE, {number}, struct {argument})\n")
    } else {
        bail!("{}: the doc comment must open with `_IO` or `_IOWR` and the argument", info.name);
    };
    Ok(text)
}

fn check_unique() -> Result<()> {
    let mut seen = HashSet::new();
    for (section, consts) in CONSTS {
        for info in *consts {
            ensure!(seen.insert(info.name), "constant {} of section {section} exists twice", info.name);
        }
    }
    Ok(())
}
