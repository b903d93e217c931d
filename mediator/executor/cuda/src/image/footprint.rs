//! About how much of a device's memory an image takes: what it brings of code and data for that device. The driver does not tell, and the
//! device's free memory is everybody's. What only a compressed or a textual image says of its variables is not seen here.

use cuda_api::linked;

use super::{ELF_MAGIC, FATBIN_MAGIC, KIND_ELF, KIND_PTX, SHT_NOBITS, entries, half, long, word};

/// Bytes that an image of any kind takes of a device of this compute capability.
pub(super) fn device_bytes(image: &[u8], capability: u32) -> u64 {
    if word(image, 0) == Some(FATBIN_MAGIC) {
        return fatbin_bytes(image, capability);
    }
    if image.starts_with(&linked::MAGIC) {
        let parts = linked::parts(image).unwrap_or_default();
        let parts = parts.into_iter().filter_map(|part| image.get(part));
        return parts.map(|part| fatbin_bytes(part, capability)).fold(0, u64::saturating_add);
    }
    (image.len() as u64).saturating_add(variable_bytes(image))
}

/// Of the machine code that fits the device the driver takes one, else it compiles the text.
fn fatbin_bytes(fatbin: &[u8], capability: u32) -> u64 {
    let (mut code, mut text) = (0, 0);
    for entry in entries(fatbin).unwrap_or_default() {
        let bytes = if entry.compressed == 0 { entry.payload.len() } else { entry.whole } as u64;
        let fits = |same_major: bool| {
            entry.capability <= capability
                && (!same_major || entry.capability.wrapping_div(10) == capability.wrapping_div(10))
        };
        match entry.kind {
            KIND_ELF if fits(true) => code = code.max(bytes.saturating_add(variable_bytes(entry.payload))),
            KIND_PTX if fits(false) => text = text.max(bytes),
            _ => {}
        }
    }
    if code == 0 { text } else { code }
}

/// Bytes of variables that are all zeros, which machine code does not bring along.
fn variable_bytes(elf: &[u8]) -> u64 {
    if !elf.starts_with(ELF_MAGIC) {
        return 0;
    }
    let section = |number: u64| -> Option<u64> {
        let (sections, bytes) = (long(elf, 0x28)?, half(elf, 0x3a)?);
        let at = sections.checked_add(number.checked_mul(bytes)?)?;
        let nobits = word(elf, at.checked_add(4)?)? == SHT_NOBITS;
        if nobits { long(elf, at.checked_add(0x20)?) } else { Some(0) }
    };
    let count = half(elf, 0x3c).unwrap_or(0);
    (0..count).filter_map(section).fold(0, u64::saturating_add)
}
