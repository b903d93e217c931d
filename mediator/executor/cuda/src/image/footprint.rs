//! About how much of a device's memory an image takes: what it brings of code and data for that device. The driver does not tell, and the
//! device's free memory is everybody's.

use cuda_api::account::counted_bytes;
use cuda_api::linked;

use super::{ELF_MAGIC, FATBIN_MAGIC, KIND_ELF, KIND_PTX, SHT_NOBITS, entries, half, long, word};

/// Bytes of a compressed entry that is unpacked for its variables. One that is larger counts as what it is unpacked.
const UNPACKED_MAX: usize = 16 << 20;
/// Dimensions of an array in PTX.
const DIMENSIONS_MAX: usize = 16;

/// Bytes that an image of any kind takes of a device of this compute capability, in the account's units. `variables`: compressed code is
/// unpacked to see what variables it has, which takes its time.
pub(super) fn device_bytes(image: &[u8], capability: u32, variables: bool) -> u64 {
    if word(image, 0) == Some(FATBIN_MAGIC) {
        return fatbin_bytes(image, capability, variables);
    }
    if image.starts_with(&linked::MAGIC) {
        let parts = linked::parts(image).unwrap_or_default();
        let parts = parts.into_iter().filter_map(|part| image.get(part));
        return parts.map(|part| fatbin_bytes(part, capability, variables)).fold(0, u64::saturating_add);
    }
    counted(image.len() as u64, variable_bytes(image))
}

fn counted(code: u64, variables: u64) -> u64 {
    counted_bytes(code).saturating_add(counted_bytes(variables))
}

/// Of the machine code that fits the device the driver takes one, else it compiles the text.
fn fatbin_bytes(fatbin: &[u8], capability: u32, variables: bool) -> u64 {
    let (mut code, mut text) = (0, 0);
    for entry in entries(fatbin).unwrap_or_default() {
        let fits = |same_major: bool| {
            entry.capability <= capability
                && (!same_major || entry.capability.wrapping_div(10) == capability.wrapping_div(10))
        };
        let most = match entry.kind {
            KIND_ELF if fits(true) => &mut code,
            KIND_PTX if fits(false) => &mut text,
            _ => continue,
        };
        let bytes = if entry.compressed == 0 { entry.payload.len() } else { entry.whole } as u64;
        let unpacked = if entry.compressed == 0 || variables { entry.unpack(UNPACKED_MAX) } else { None };
        *most = counted(bytes, unpacked.map_or(0, |bytes| variable_bytes(&bytes))).max(*most);
    }
    if code == 0 { text } else { code }
}

/// Bytes of variables that machine code does not bring along, since they are all zeros, or that a text declares.
fn variable_bytes(code: &[u8]) -> u64 {
    if !code.starts_with(ELF_MAGIC) {
        return declared_bytes(code);
    }
    let section = |number: u64| -> Option<u64> {
        let (sections, bytes) = (long(code, 0x28)?, half(code, 0x3a)?);
        let at = sections.checked_add(number.checked_mul(bytes)?)?;
        let nobits = word(code, at.checked_add(4)?)? == SHT_NOBITS;
        if nobits { long(code, at.checked_add(0x20)?) } else { Some(0) }
    };
    let count = half(code, 0x3c).unwrap_or(0);
    (0..count).filter_map(section).fold(0, u64::saturating_add)
}

/// Bytes of the variables that PTX declares in global and constant memory: PTX ISA, "Kernel and Function Directives" and "Variables".
fn declared_bytes(text: &[u8]) -> u64 {
    let is_apart = |at: usize| text.get(at).is_none_or(u8::is_ascii_whitespace);
    let mut sum = 0u64;
    for space in [b".global".as_slice(), b".const"] {
        for at in memchr::memmem::find_iter(text, space) {
            let end = at.saturating_add(space.len());
            if !is_apart(end) || at.checked_sub(1).is_some_and(|before| !is_apart(before)) {
                // A part of an instruction's name.
                continue;
            }
            let line = text
                .get(..at)
                .unwrap_or_default()
                .rsplit(|byte| b"\n;}".contains(byte))
                .next()
                .unwrap_or_default();
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            // What a parameter points to, a variable of another module, a comment.
            if words.any(|word| word == b".ptr" || word == b".extern" || word.starts_with(b"//")) {
                continue;
            }
            let rest = text.get(end..).unwrap_or_default();
            let declaration = rest.split(|byte| b"=;".contains(byte)).next().unwrap_or_default();
            sum = sum.saturating_add(declaration_bytes(declaration).unwrap_or(0));
        }
    }
    sum
}

/// Bytes of `.align 8 .v4 .f32 name[2][3], other`.
fn declaration_bytes(declaration: &[u8]) -> Option<u64> {
    let declaration = std::str::from_utf8(declaration).ok()?;
    let (mut element, mut lanes) = (None, 1u64);
    for word in declaration.split_ascii_whitespace() {
        match word {
            ".v2" => lanes = 2,
            ".v4" => lanes = 4,
            ".pred" => element = Some(1),
            _ => {
                let width = word.strip_prefix(['.']).and_then(|word| word.strip_prefix(['b', 'u', 's', 'f']));
                let bits: Option<u64> = width.and_then(|width| width.parse().ok());
                element = element.or(bits.map(|bits| bits.div_ceil(8)));
            }
        }
    }
    let each = element?.checked_mul(lanes)?;
    // Attributes have commas of their own, within parentheses.
    let names = declaration.rsplit(')').next()?;
    let mut sum = 0u64;
    for name in names.split(',') {
        let mut count = 1u64;
        for dimension in name.split('[').skip(1).take(DIMENSIONS_MAX) {
            let number: u64 = dimension.split(']').next()?.trim().parse().unwrap_or(1);
            count = count.saturating_mul(number);
        }
        sum = sum.saturating_add(each.saturating_mul(count));
    }
    Some(sum)
}
