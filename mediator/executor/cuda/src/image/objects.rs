//! Host objects with device code in them, and archives of those: inputs of the linker. The device code is fatbins, one after the
//! other, in sections of their own; each must lie in its section as a whole.

use super::{ELF_MAGIC, FATBIN_MAGIC, SHT_NOBITS, elf_is_whole, fatbin_is_whole, half, long, word};

/// An archive's first bytes, and its members' headers: name, date, owner, mode, size in decimal, two bytes that end it.
const ARCHIVE_MAGIC: &[u8] = b"!<arch>\n";
const MEMBER_HEADER_BYTES: usize = 60;
const MEMBER_SIZE: std::ops::Range<usize> = 48..58;
/// Members of an archive, and fatbins of a section.
const PARTS_MAX: usize = 65536;

/// An ELF object whose fatbins are whole.
pub(super) fn object_is_whole(object: &[u8]) -> Option<()> {
    if !object.starts_with(ELF_MAGIC) {
        return None;
    }
    elf_is_whole(object)?;
    let (sections, bytes, count) = (long(object, 0x28)?, half(object, 0x3a)?, half(object, 0x3c)?);
    for number in 0..count {
        let at = sections.checked_add(number.checked_mul(bytes)?)?;
        if word(object, at.checked_add(4)?)? == SHT_NOBITS {
            continue;
        }
        let start = usize::try_from(long(object, at.checked_add(0x18)?)?).ok()?;
        let len = usize::try_from(long(object, at.checked_add(0x20)?)?).ok()?;
        fatbins_are_whole(object.get(start..start.checked_add(len)?)?)?;
    }
    Some(())
}

/// Whatever the section has, if it begins with a fatbin it has nothing but whole ones, with zeroes between.
fn fatbins_are_whole(section: &[u8]) -> Option<()> {
    let mut rest = section;
    for _ in 0..PARTS_MAX {
        if word(rest, 0) != Some(FATBIN_MAGIC) {
            return Some(()).filter(|()| rest.len() == section.len() || rest.iter().all(|b| *b == 0));
        }
        fatbin_is_whole(rest)?;
        let len = half(rest, 6)?.checked_add(long(rest, 8)?)?;
        rest = rest.get(usize::try_from(len).ok()?..)?;
        let padding = rest.iter().take(7).take_while(|b| **b == 0).count();
        rest = rest.get(padding..)?;
    }
    None
}

/// An archive whose objects are whole.
pub(super) fn archive_is_whole(archive: &[u8]) -> Option<()> {
    let mut rest = archive.strip_prefix(ARCHIVE_MAGIC)?;
    for _ in 0..PARTS_MAX {
        if rest.is_empty() {
            return Some(());
        }
        let header = rest.get(..MEMBER_HEADER_BYTES)?;
        if !header.ends_with(b"`\n") {
            return None;
        }
        let size = std::str::from_utf8(header.get(MEMBER_SIZE)?).ok()?.trim_end();
        let len: usize = size.parse().ok()?;
        let end = MEMBER_HEADER_BYTES.checked_add(len)?;
        let member = rest.get(MEMBER_HEADER_BYTES..end)?;
        // The symbol table and the long names are members as well, and no objects.
        if member.starts_with(ELF_MAGIC) {
            object_is_whole(member)?;
        } else if !header.starts_with(b"/") {
            return None;
        }
        // Members begin at even places.
        rest = rest.get(end.checked_next_multiple_of(2)?.min(rest.len())..)?;
    }
    None
}
