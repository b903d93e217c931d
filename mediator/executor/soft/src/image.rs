//! Module images: how their bytes arrive, and how PTX text is found in them. All of it is the guest's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

use cuda_api::CuResult;
use cuda_api::types::CUresult;

use crate::limits;
use crate::program::Refusal;

/// Bytes of an image.
pub(crate) const IMAGE_BYTES_MAX: u64 = 512 << 20;
/// Bytes of all images that are held, complete or on their way.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// Images that are held.
const HELD_MAX: usize = 4096;
/// Bytes of a PTX text once it is decompressed.
const TEXT_BYTES_MAX: usize = ptx::MAX_TEXT;
/// Entries of a fatbin.
const ENTRIES_MAX: usize = 4096;

const FATBIN_MAGIC: u32 = 0xba55_ed50;
const KIND_PTX: u16 = 1;
const KIND_ELF: u16 = 2;
const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;

struct Image {
    bytes: Vec<u8>,
    total: u64,
    arrived: u64,
}

/// The images of a session. A complete one stays until others need its room: the guest may load it again.
#[derive(Default)]
pub(crate) struct Images {
    held: HashMap<u64, Image>,
    count: u64,
}

impl Images {
    /// A piece of an image. Pieces come in order; the first one begins it anew.
    pub(crate) fn add(&mut self, image: u64, offset: u64, total: u64, piece: &[u8]) -> CuResult<()> {
        let refused = CUresult::INVALID_VALUE;
        let end = offset.checked_add(piece.len() as u64).ok_or(refused)?;
        if total == 0 || total > IMAGE_BYTES_MAX || end > total {
            return Err(refused);
        }
        if offset == 0 {
            self.held.remove(&image);
            self.make_room(total)?;
            self.count = self.count.wrapping_add(1);
            self.held.insert(image, Image { bytes: Vec::new(), total, arrived: self.count });
        }
        let held = self.held.get_mut(&image).filter(|i| i.total == total).ok_or(refused)?;
        if held.bytes.len() as u64 != offset {
            self.held.remove(&image);
            return Err(refused);
        }
        held.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Drops the oldest complete images until `total` bytes more may be held.
    fn make_room(&mut self, total: u64) -> CuResult<()> {
        loop {
            let held = self.held.values().fold(total, |sum, i| sum.saturating_add(i.total));
            if held <= HELD_BYTES_MAX && self.held.len() < HELD_MAX {
                return Ok(());
            }
            let complete = self.held.iter().filter(|(_, i)| i.bytes.len() as u64 == i.total);
            let oldest = complete.min_by_key(|(_, i)| i.arrived).map(|(id, _)| *id);
            self.held.remove(&oldest.ok_or(CUresult::OUT_OF_MEMORY)?);
        }
    }

    /// The PTX text of a complete image.
    pub(crate) fn text(&self, image: u64) -> Result<String, Refusal> {
        let held = self.held.get(&image).filter(|i| i.bytes.len() as u64 == i.total);
        text(&held.ok_or(CUresult::INVALID_VALUE)?.bytes)
    }
}

fn refusal(result: CUresult, log: impl Into<String>) -> Refusal {
    Refusal { result, log: log.into() }
}

/// The PTX text in an image.
fn text(image: &[u8]) -> Result<String, Refusal> {
    if word(image, 0) == Some(FATBIN_MAGIC) {
        return fatbin(image);
    }
    if image.starts_with(&cuda_api::linked::MAGIC) {
        return Err(refusal(
            CUresult::NOT_SUPPORTED,
            "the image is of relocatable device code; the software executor links none",
        ));
    }
    if image.starts_with(b"\x7fELF") {
        return Err(refusal(
            CUresult::NO_BINARY_FOR_GPU,
            "the image is machine code; the software executor takes PTX",
        ));
    }
    ptx_text(image)
}

/// Bytes as PTX, without the NULs that end them.
fn ptx_text(bytes: &[u8]) -> Result<String, Refusal> {
    let invalid = || refusal(CUresult::INVALID_IMAGE, "the image is neither PTX nor a fatbin");
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = bytes.get(..end).and_then(|b| std::str::from_utf8(b).ok()).ok_or_else(invalid)?;
    let start = text.trim_start();
    if start.starts_with("//") || start.starts_with("/*") || start.starts_with(".version") {
        Ok(text.to_owned())
    } else {
        Err(invalid())
    }
}

fn bytes_at<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(from: &[u8], at: usize) -> Option<u16> {
    bytes_at(from, at).map(u16::from_le_bytes)
}

fn word(from: &[u8], at: usize) -> Option<u32> {
    bytes_at(from, at).map(u32::from_le_bytes)
}

fn long(from: &[u8], at: usize) -> Option<u64> {
    bytes_at(from, at).map(u64::from_le_bytes)
}

struct Entry<'a> {
    kind: u16,
    capability: u32,
    flags: u64,
    compressed: usize,
    whole: usize,
    payload: &'a [u8],
}

/// The entry at the start of `rest`, and how long it is.
fn entry(rest: &[u8]) -> Option<(Entry<'_>, usize)> {
    let header = usize::try_from(word(rest, 4)?).ok().filter(|bytes| *bytes >= 64)?;
    let padded = usize::try_from(word(rest, 8)?).ok()?;
    let end = header.checked_add(padded)?;
    let entry = Entry {
        kind: half(rest, 0)?,
        capability: word(rest, 28)?,
        flags: long(rest, 40)?,
        compressed: usize::try_from(word(rest, 16)?).ok()?,
        whole: usize::try_from(long(rest, 56)?).ok()?,
        payload: rest.get(header..end)?,
    };
    Some((entry, end))
}

/// The PTX text of a fatbin that suits the device best: the newest that it can run.
fn fatbin(image: &[u8]) -> Result<String, Refusal> {
    let broken = || refusal(CUresult::INVALID_IMAGE, "the fatbin is cut short or damaged");
    let header = usize::from(half(image, 6).ok_or_else(broken)?);
    let payload = usize::try_from(long(image, 8).ok_or_else(broken)?).map_err(|_| broken())?;
    let end = header.checked_add(payload).ok_or_else(broken)?;
    let mut rest = image.get(header..end).ok_or_else(broken)?;
    let capability =
        u32::try_from(limits::CAPABILITY.0.saturating_mul(10).saturating_add(limits::CAPABILITY.1));
    let capability = capability.unwrap_or(0);
    let mut best: Option<Entry<'_>> = None;
    let (mut machine_code, mut newer) = (false, false);
    for _ in 0..ENTRIES_MAX {
        if rest.is_empty() {
            break;
        }
        let (entry, len) = entry(rest).ok_or_else(broken)?;
        rest = rest.get(len..).ok_or_else(broken)?;
        match entry.kind {
            KIND_PTX if entry.capability > capability => newer = true,
            KIND_PTX if best.as_ref().is_none_or(|b| b.capability < entry.capability) => best = Some(entry),
            KIND_PTX => {}
            KIND_ELF => machine_code = true,
            _ => {}
        }
    }
    let Some(best) = best else {
        let why = match (newer, machine_code) {
            (true, _) => "the fatbin's PTX is for newer devices than compute capability 8.0",
            (false, true) => "the fatbin holds machine code only; the software executor takes PTX",
            (false, false) => "the fatbin is empty",
        };
        return Err(refusal(CUresult::NO_BINARY_FOR_GPU, why));
    };
    ptx_text(&unpack(&best).ok_or_else(broken)?)
}

/// An entry's bytes.
fn unpack<'a>(entry: &Entry<'a>) -> Option<Cow<'a, [u8]>> {
    if entry.flags & (FLAG_LZ4 | FLAG_ZSTD) == 0 {
        return Some(Cow::Borrowed(entry.payload));
    }
    let packed = entry.payload.get(..entry.compressed)?;
    if entry.whole > TEXT_BYTES_MAX {
        return None;
    }
    if entry.flags & FLAG_LZ4 != 0 {
        // A block of LZ4 grows at most 255-fold: a larger claim is not allocated.
        if entry.whole.div_ceil(255) > packed.len() {
            return None;
        }
        return lz4_flex::block::decompress(packed, entry.whole).ok().map(Cow::Owned);
    }
    let mut whole = Vec::new();
    let decoder = ruzstd::decoding::StreamingDecoder::new(packed).ok()?;
    decoder.take((TEXT_BYTES_MAX as u64).saturating_add(1)).read_to_end(&mut whole).ok()?;
    (whole.len() == entry.whole).then_some(Cow::Owned(whole))
}

#[cfg(test)]
#[path = "image/tests.rs"]
mod tests;
