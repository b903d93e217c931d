//! Writes the archive: cpio in the format `newc`, not compressed (unpacking costs the emulated guest more than the bytes do).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::Entry;

pub(super) fn write(entries: &BTreeMap<String, Entry>, path: &Path) -> Result<()> {
    let mut archive = BufWriter::new(File::create(path)?);
    // A map is in the order of names, so that a folder comes before what lies in it.
    for (inode, (name, entry)) in (1_u32..).zip(entries) {
        let builder = Builder::new(name).ino(inode).uid(0).gid(0);
        match entry {
            Entry::Folder { mode } => {
                let builder = builder.nlink(2).mode(*mode).set_mode_file_type(ModeFileType::Directory);
                archive = add(builder, archive, &[])?;
            }
            Entry::Link { target } => {
                let builder = builder.nlink(1).mode(0o777).set_mode_file_type(ModeFileType::Symlink);
                archive = add(builder, archive, target.as_bytes())?;
            }
            Entry::Bytes { bytes, mode } => {
                let builder = builder.nlink(1).mode(*mode).set_mode_file_type(ModeFileType::Regular);
                archive = add(builder, archive, bytes)?;
            }
            Entry::Copy { source, mode } => {
                let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
                let builder = builder.nlink(1).mode(*mode).set_mode_file_type(ModeFileType::Regular);
                archive = add(builder, archive, &bytes)?;
            }
        }
    }
    trailer(archive)?.flush()?;
    Ok(())
}

fn add<W: Write>(builder: Builder, archive: W, bytes: &[u8]) -> Result<W> {
    let size =
        u32::try_from(bytes.len()).context("a file of 4 GiB or more does not fit into a cpio archive")?;
    let mut writer = builder.write(archive, size);
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}
