//! Module images: how their bytes arrive, and whether they are what the driver may be given. It is told no length: it
//! reads as far as an image's own headers say, so they are checked first.

use std::collections::HashMap;
use std::sync::Arc;

use cuda_api::types::CUresult;
use cuda_api::{CuResult, linked};

/// Bytes of an image.
const IMAGE_BYTES_MAX: u64 = 512 << 20;
/// Bytes of all images that are held, complete or on their way.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// Images that are held.
const HELD_MAX: usize = 4096;
/// Entries of a fatbin.
const ENTRIES_MAX: usize = 65536;

pub(crate) const FATBIN_MAGIC: u32 = 0xba55_ed50;
pub(crate) const KIND_PTX: u64 = 1;
pub(crate) const KIND_ELF: u64 = 2;
const ELF_MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// The section has no bytes in the file.
const SHT_NOBITS: u32 = 8;

/// An image's bytes. The driver wants them 8-byte aligned, as a compiler's output in a program is.
#[derive(Default)]
pub(crate) struct Image {
    words: Vec<u64>,
    len: usize,
}

impl Image {
    fn room(total: usize) -> Self {
        // A NUL behind the last byte ends PTX that came without.
        Image { words: vec![0; total.div_ceil(8).saturating_add(1)], len: 0 }
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut image = Image::room(bytes.len());
        image.append(bytes).unwrap();
        image
    }

    fn append(&mut self, piece: &[u8]) -> CuResult<()> {
        let end = self.len.checked_add(piece.len()).ok_or(CUresult::INVALID_VALUE)?;
        let (len, bytes) = (self.len, self.bytes_mut());
        bytes.get_mut(len..end).ok_or(CUresult::INVALID_VALUE)?.copy_from_slice(piece);
        self.len = end;
        Ok(())
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.words.len().saturating_mul(8);
        // SAFETY: the words' own memory, whose every bit pattern is bytes; borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), len) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`; `append` keeps `len` within the words.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), self.len) }
    }

    /// As the driver is given it.
    pub(crate) fn given(self) -> Given {
        let bytes = self.bytes();
        let parts = linked::parts(bytes).unwrap_or_default();
        let mut list: Vec<*const u8> =
            parts.iter().map(|part| bytes.as_ptr().wrapping_add(part.start)).collect();
        // The wrapper's list ends with NULL; its first is told apart.
        list.push(std::ptr::null());
        let (at, list) = (bytes.as_ptr(), list.into_boxed_slice());
        let wrapper = match *list {
            [data, .., _] => Some(Box::new(Wrapper {
                magic: WRAPPER_MAGIC,
                version: 2,
                data,
                list: list.as_ptr().wrapping_add(1),
            })),
            _ => None,
        };
        Given { image: self, at, _list: list, wrapper }
    }

    /// The image is complete in itself: nothing that its headers point to lies outside.
    pub(crate) fn check(&self) -> CuResult<()> {
        check(self.bytes())
    }

    /// As [`Image::check`], of an input of the linker of this type.
    pub(crate) fn check_input(&self, kind: u32) -> CuResult<()> {
        let bytes = self.bytes();
        let whole = match kind {
            INPUT_CUBIN => bytes.starts_with(ELF_MAGIC) && elf_is_whole(bytes).is_some(),
            INPUT_PTX => is_text(bytes),
            INPUT_FATBIN => word(bytes, 0) == Some(FATBIN_MAGIC) && fatbin_is_whole(bytes).is_some(),
            INPUT_OBJECT => objects::object_is_whole(bytes).is_some(),
            INPUT_LIBRARY => objects::archive_is_whole(bytes).is_some(),
            // High-level code from before CUDA 12: only that toolkit's linker reads it.
            _ => return Err(CUresult::NOT_SUPPORTED),
        };
        if whole { Ok(()) } else { Err(CUresult::INVALID_IMAGE) }
    }
}

/// The wrapper of nvcc's object code (`__fatBinC_Wrapper_t`), of version 2.
#[repr(C)]
struct Wrapper {
    magic: u32,
    version: u32,
    /// What was linked.
    data: *const u8,
    /// What it was linked from; NULL ends it.
    list: *const *const u8,
}

const WRAPPER_MAGIC: u32 = 0x4662_43b1;

/// An image as the driver is given it: its bytes or, where it is of several fatbins, a wrapper that names them. Nothing of it moves
/// or changes as long as it lives.
pub(crate) struct Given {
    image: Image,
    at: *const u8,
    _list: Box<[*const u8]>,
    wrapper: Option<Box<Wrapper>>,
}

// SAFETY: the pointers are to memory that it owns and nobody changes.
unsafe impl Send for Given {}
// SAFETY: as above.
unsafe impl Sync for Given {}

impl Given {
    pub(crate) fn pointer(&self) -> *const std::ffi::c_void {
        self.wrapper.as_ref().map_or(self.at.cast(), |wrapper| (&raw const **wrapper).cast())
    }

    pub(crate) fn len(&self) -> usize {
        self.image.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.image.bytes()
    }

    /// About how many bytes of a device of this compute capability it takes (ten times the major number and the minor one), in the
    /// account's units; with the variables of compressed code, which takes its time, or without.
    pub(crate) fn device_bytes(&self, capability: u32, variables: bool) -> u64 {
        footprint::device_bytes(self.bytes(), capability, variables)
    }

    /// What has to live as long as what was made of it: the driver may link the fatbins of a list at any time.
    pub(crate) fn kept(self: Arc<Self>) -> Option<Arc<Given>> {
        self.wrapper.is_some().then_some(self)
    }
}

/// CUjitInputType.
const INPUT_CUBIN: u32 = 0;
const INPUT_PTX: u32 = 1;
const INPUT_FATBIN: u32 = 2;
const INPUT_OBJECT: u32 = 3;
const INPUT_LIBRARY: u32 = 4;

struct Held {
    image: Image,
    total: u64,
    arrived: u64,
}

/// The images on their way. One is held until a load has taken it.
#[derive(Default)]
pub(crate) struct Images {
    held: HashMap<u64, Held>,
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
            let room = Image::room(usize::try_from(total).map_err(|_| refused)?);
            self.held.insert(image, Held { image: room, total, arrived: self.count });
        }
        let held = self.held.get_mut(&image).filter(|held| held.total == total).ok_or(refused)?;
        if held.image.len as u64 != offset {
            self.held.remove(&image);
            return Err(refused);
        }
        held.image.append(piece)
    }

    /// Drops the oldest images until `total` bytes more may be held: nobody came for them.
    fn make_room(&mut self, total: u64) -> CuResult<()> {
        loop {
            let held = self.held.values().fold(total, |sum, held| sum.saturating_add(held.total));
            if held <= HELD_BYTES_MAX && self.held.len() < HELD_MAX {
                return Ok(());
            }
            let oldest = self.held.iter().min_by_key(|(_, held)| held.arrived).map(|(id, _)| *id);
            self.held.remove(&oldest.ok_or(CUresult::OUT_OF_MEMORY)?);
        }
    }

    /// A complete image, for the load that names it.
    pub(crate) fn take(&mut self, image: u64) -> CuResult<Image> {
        match self.held.remove(&image) {
            Some(held) if held.image.len as u64 == held.total => Ok(held.image),
            _ => Err(CUresult::INVALID_VALUE),
        }
    }
}

fn bytes_at<const N: usize>(from: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(from: &[u8], at: u64) -> Option<u64> {
    bytes_at(from, at).map(|b| u64::from(u16::from_le_bytes(b)))
}

pub(crate) fn word(from: &[u8], at: u64) -> Option<u32> {
    bytes_at(from, at).map(u32::from_le_bytes)
}

fn long(from: &[u8], at: u64) -> Option<u64> {
    bytes_at(from, at).map(u64::from_le_bytes)
}

fn check(image: &[u8]) -> CuResult<()> {
    let whole = if word(image, 0) == Some(FATBIN_MAGIC) {
        fatbin_is_whole(image).is_some()
    } else if image.starts_with(&linked::MAGIC) {
        let is_whole = |part: &[u8]| word(part, 0) == Some(FATBIN_MAGIC) && fatbin_is_whole(part).is_some();
        let parts = linked::parts(image).unwrap_or_default();
        !parts.is_empty() && parts.into_iter().all(|part| image.get(part).is_some_and(is_whole))
    } else if image.starts_with(ELF_MAGIC) {
        elf_is_whole(image).is_some()
    } else {
        is_text(image)
    };
    if whole { Ok(()) } else { Err(CUresult::INVALID_IMAGE) }
}

/// PTX: text that ends within the image. (The room behind an image is NULs.)
fn is_text(image: &[u8]) -> bool {
    let end = image.iter().position(|b| *b == 0).unwrap_or(image.len());
    let text = image.get(..end).unwrap_or_default().trim_ascii_start();
    text.starts_with(b".") || text.starts_with(b"//") || text.starts_with(b"/*")
}

/// Header: magic, version, header bytes, payload bytes; entries: kind, version, header bytes, padded payload bytes. An
/// entry of PTX says at byte 20 where in its header the place of its compiler options stands; the driver follows both.
fn fatbin_is_whole(image: &[u8]) -> Option<()> {
    let mut at = half(image, 6)?;
    let end = at.checked_add(long(image, 8)?).filter(|end| *end <= image.len() as u64)?;
    for _ in 0..ENTRIES_MAX {
        if at >= end {
            return (at == end).then_some(());
        }
        let (header, payload) =
            (u64::from(word(image, at.checked_add(4)?)?), long(image, at.checked_add(8)?)?);
        let next = at.checked_add(header)?.checked_add(payload)?;
        if header < 64 || next > end {
            return None;
        }
        if half(image, at)? == KIND_PTX {
            let options = u64::from(word(image, at.checked_add(20)?)?);
            let inside = options >= 64 && options.checked_add(8)? <= header;
            if !inside || u64::from(word(image, at.checked_add(options)?)?) >= header {
                return None;
            }
        }
        at = next;
    }
    None
}

/// An entry of a fatbin.
pub(crate) struct Entry<'a> {
    pub(crate) kind: u64,
    /// Ten times the major number and the minor number of the compute capability that it is for.
    pub(crate) capability: u32,
    pub(crate) flags: u64,
    /// Bytes of the payload that are the compressed entry, and of the entry itself.
    pub(crate) compressed: usize,
    pub(crate) whole: usize,
    pub(crate) payload: &'a [u8],
}

/// The entries of a fatbin.
pub(crate) fn entries(fatbin: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut at = half(fatbin, 6)?;
    let end = at.checked_add(long(fatbin, 8)?)?;
    let mut found = Vec::new();
    while at < end && found.len() < ENTRIES_MAX {
        let (header, payload) =
            (u64::from(word(fatbin, at.checked_add(4)?)?), long(fatbin, at.checked_add(8)?)?);
        let (from, next) = (at.checked_add(header)?, at.checked_add(header)?.checked_add(payload)?);
        let field = |offset: u64| at.checked_add(offset);
        found.push(Entry {
            kind: half(fatbin, at)?,
            capability: word(fatbin, field(28)?)?,
            flags: long(fatbin, field(40)?)?,
            compressed: usize::try_from(word(fatbin, field(16)?)?).ok()?,
            whole: usize::try_from(long(fatbin, field(56)?)?).ok()?,
            payload: fatbin.get(usize::try_from(from).ok()?..usize::try_from(next).ok()?)?,
        });
        at = next;
    }
    Some(found)
}

/// ELF64: the two header tables and everything that they name lie in the image.
fn elf_is_whole(image: &[u8]) -> Option<()> {
    let inside =
        |start: u64, len: u64| start.checked_add(len).filter(|end| *end <= image.len() as u64).map(|_| ());
    let (segments, segment_bytes, segment_count) =
        (long(image, 0x20)?, half(image, 0x36)?, half(image, 0x38)?);
    let (sections, section_bytes, section_count) =
        (long(image, 0x28)?, half(image, 0x3a)?, half(image, 0x3c)?);
    // A count that does not fit its field stands in section 0, where nobody here would look for it.
    if segment_count == 0xffff || (sections != 0 && section_count == 0) {
        return None;
    }
    for number in 0..segment_count {
        let at = segments.checked_add(number.checked_mul(segment_bytes)?)?;
        inside(at, 0x38)?;
        inside(long(image, at.checked_add(8)?)?, long(image, at.checked_add(0x20)?)?)?;
    }
    for number in 0..section_count {
        let at = sections.checked_add(number.checked_mul(section_bytes)?)?;
        inside(at, 0x40)?;
        if word(image, at.checked_add(4)?)? != SHT_NOBITS {
            inside(long(image, at.checked_add(0x18)?)?, long(image, at.checked_add(0x20)?)?)?;
        }
    }
    Some(())
}

mod footprint;
mod objects;
pub(crate) mod unpack;

#[cfg(test)]
#[path = "image/tests.rs"]
mod tests;
