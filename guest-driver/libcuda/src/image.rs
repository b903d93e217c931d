//! Module images: how long they are (the caller never says), and how they get to the worker.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use cuda_api::calls::entry::row;
use cuda_api::{CUresult, CuResult, linked};

use crate::gate;

/// Images longer than this are refused: the worker would refuse them too.
pub const IMAGE_BYTES_MAX: usize = 512 << 20;

const FATBIN_WRAPPER_MAGIC: u32 = 0x4662_43b1;
const FATBIN_MAGIC: u32 = 0xba55_ed50;
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// ELFCLASS64, and the sizes of that class's headers in bytes.
const ELF_CLASS_64: u64 = 2;
const ELF_HEADER_BYTES: u64 = 0x40;
const PROGRAM_HEADER_BYTES: u64 = 0x38;
const SECTION_HEADER_BYTES: u64 = 0x40;

/// The wrapper that nvcc's object code registers (`__fatBinC_Wrapper_t`).
#[derive(Clone, Copy)]
#[repr(C)]
struct FatbinWrapper {
    magic: u32,
    version: u32,
    data: *const u8,
    /// A file name or, in version 2, a list of images linked beforehand.
    extra: *const *const u8,
}

/// The header of a fatbin.
#[repr(C)]
struct FatbinHeader {
    magic: u32,
    version: u16,
    header_bytes: u16,
    payload_bytes: u64,
}

/// # Safety
/// `at` points to a fatbin.
unsafe fn fatbin_len(at: *const u8) -> CuResult<usize> {
    // SAFETY: a fatbin starts with its header.
    let header = unsafe { at.cast::<FatbinHeader>().read_unaligned() };
    usize::try_from(header.payload_bytes)
        .ok()
        .and_then(|payload| payload.checked_add(header.header_bytes as usize))
        .filter(|len| *len <= IMAGE_BYTES_MAX)
        .ok_or(CUresult::INVALID_IMAGE)
}

/// # Safety
/// `at` points to an ELF file whose headers are right about its extent.
unsafe fn elf_len(at: *const u8) -> CuResult<usize> {
    let read = |offset: u64, bytes: usize| -> u64 {
        let mut word = [0u8; 8];
        // SAFETY: the offsets lie in the file header or in tables that the header announces.
        unsafe { std::ptr::copy_nonoverlapping(at.wrapping_add(offset as usize), word.as_mut_ptr(), bytes) };
        u64::from_le_bytes(word)
    };
    // The file header of ELF64: program and section header tables.
    let (phoff, shoff) = (read(0x20, 8), read(0x28, 8));
    let (phentsize, phnum) = (read(0x36, 2), read(0x38, 2));
    let (shentsize, mut shnum) = (read(0x3a, 2), read(0x3c, 2));
    let (mut end, fits) = (ELF_HEADER_BYTES, |e: u64| e <= IMAGE_BYTES_MAX as u64);
    if shnum == 0 && shoff != 0 && fits(shoff) {
        // More sections than the field can count: the first one's size is their number.
        shnum = read(shoff + 0x20, 8).min(IMAGE_BYTES_MAX as u64);
    }
    // Only 64-bit files have these fields; entries that are too short are no tables of it.
    if read(4, 1) != ELF_CLASS_64
        || (phnum != 0 && phentsize < PROGRAM_HEADER_BYTES)
        || (shnum != 0 && shentsize < SECTION_HEADER_BYTES)
    {
        return Err(CUresult::INVALID_IMAGE);
    }
    for (table, size, count) in [(phoff, phentsize, phnum), (shoff, shentsize, shnum)] {
        if count != 0 {
            let table_end =
                table.checked_add(size * count).filter(|e| fits(*e)).ok_or(CUresult::INVALID_IMAGE)?;
            end = end.max(table_end);
        }
    }
    const SHT_NOBITS: u64 = 8;
    for i in 0..shnum {
        let header = shoff + i * shentsize;
        if read(header + 4, 4) != SHT_NOBITS {
            let extent = read(header + 0x18, 8).checked_add(read(header + 0x20, 8));
            end = end.max(extent.filter(|e| fits(*e)).ok_or(CUresult::INVALID_IMAGE)?);
        }
    }
    for i in 0..phnum {
        let header = phoff + i * phentsize;
        let extent = read(header + 8, 8).checked_add(read(header + 0x20, 8));
        end = end.max(extent.filter(|e| fits(*e)).ok_or(CUresult::INVALID_IMAGE)?);
    }
    usize::try_from(end).map_err(|_| CUresult::INVALID_IMAGE)
}

/// A fatbin's bytes.
///
/// # Safety
/// `at` is NULL or points to at least four bytes, and to a fatbin if they say so; it lives until the caller's call returns.
unsafe fn fatbin<'a>(at: *const u8) -> CuResult<&'a [u8]> {
    // SAFETY: not NULL, so four bytes by this function's contract.
    if at.is_null() || unsafe { at.cast::<u32>().read_unaligned() } != FATBIN_MAGIC {
        return Err(CUresult::INVALID_IMAGE);
    }
    // SAFETY: its magic says that it is a fatbin, whose header gives its extent.
    Ok(unsafe { std::slice::from_raw_parts(at, fatbin_len(at)?) })
}

/// What a wrapper names: a fatbin, or in version 2 one that was linked, with the list of those that it was linked from.
///
/// # Safety
/// `wrapper` is one that nvcc has made, all of whose pointers are good until the caller's call returns.
unsafe fn wrapped<'a>(wrapper: &FatbinWrapper) -> CuResult<Cow<'a, [u8]>> {
    // SAFETY: a wrapper's data is a fatbin.
    let first = unsafe { fatbin(wrapper.data) }?;
    if wrapper.version != 2 || wrapper.extra.is_null() {
        return Ok(Cow::Borrowed(first));
    }
    let mut parts = vec![first];
    for i in 0.. {
        // SAFETY: version 2 has a list that ends with NULL, which has not come yet.
        let part = unsafe { wrapper.extra.add(i).read() };
        if part.is_null() {
            break;
        }
        if parts.len() >= linked::PARTS_MAX {
            return Err(CUresult::INVALID_IMAGE);
        }
        // SAFETY: the list names fatbins.
        parts.push(unsafe { fatbin(part) }?);
    }
    if parts.len() == 1 {
        return Ok(Cow::Borrowed(first));
    }
    linked::pack(&parts, IMAGE_BYTES_MAX).map(Cow::Owned).ok_or(CUresult::INVALID_IMAGE)
}

/// The image that a load call names, as its bytes; several fatbins as [`linked`] has them.
///
/// # Errors
/// CUDA_ERROR_INVALID_IMAGE where it is of no known kind.
///
/// # Safety
/// `image` is NULL or what CUDA's documentation of cuModuleLoadData and cuLibraryLoadData asks for; the bytes live until the
/// caller's call returns.
pub unsafe fn bytes_of<'a>(image: *const c_void) -> CuResult<Cow<'a, [u8]>> {
    if image.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    let at = image.cast::<u8>();
    // SAFETY: every kind of image has at least four bytes (the shortest PTX is longer).
    let magic = unsafe { at.cast::<u32>().read_unaligned() };
    if magic == FATBIN_WRAPPER_MAGIC {
        // SAFETY: the magic says that this is a wrapper.
        return unsafe { wrapped(&at.cast::<FatbinWrapper>().read_unaligned()) };
    }
    let len = if magic == FATBIN_MAGIC {
        // SAFETY: the magic says that this is a fatbin.
        unsafe { fatbin_len(at) }?
    } else if magic.to_le_bytes() == ELF_MAGIC {
        // SAFETY: the magic says that this is an ELF file.
        unsafe { elf_len(at) }?
    } else {
        // SAFETY: what remains is text, which ends with NUL.
        let text = unsafe { CStr::from_ptr(at.cast::<c_char>()) }.to_bytes_with_nul();
        if !is_ptx(text) {
            return Err(CUresult::INVALID_IMAGE);
        }
        text.len()
    };
    if len > IMAGE_BYTES_MAX {
        return Err(CUresult::INVALID_IMAGE);
    }
    // SAFETY: the image's own headers, or its NUL, give its extent.
    Ok(Cow::Borrowed(unsafe { std::slice::from_raw_parts(at, len) }))
}

/// Text that can be PTX: it begins with a directive or a comment.
fn is_ptx(text: &[u8]) -> bool {
    let start = text.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(text.len());
    let rest = &text[start..];
    rest.starts_with(b".") || rest.starts_with(b"//") || rest.starts_with(b"/*")
}

/// NULs behind a file's bytes in memory.
pub const FILE_NULS: usize = 8;

/// Reads a file that a load call names.
///
/// # Errors
/// CUDA_ERROR_FILE_NOT_FOUND.
///
/// # Safety
/// `name` is NULL or a NUL-terminated string.
pub unsafe fn read_file(name: *const c_char) -> CuResult<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    if name.is_null() {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: NUL-terminated by this function's contract.
    let path = std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes());
    let mut bytes = std::fs::read(path).map_err(|_| CUresult::FILE_NOT_FOUND)?;
    // PTX ends with NUL.
    bytes.extend_from_slice(&[0; FILE_NULS]);
    Ok(bytes)
}

/// Sends an image; the load that follows on this thread names it by the number that comes back.
///
/// # Errors
/// The transport's.
pub fn send(image: &[u8]) -> CuResult<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    gate::with_ring(|process, lane| {
        process.alive()?;
        // SAFETY: the slice's own bytes.
        unsafe {
            lane.send_bytes(image.as_ptr(), image.len(), |lane, at, bytes, bulk| {
                lane.post::<row::vgpuImageData>(&(number, at as u64, image.len() as u64, bytes), bulk)
            })
        }
    })?;
    Ok(number)
}

/// CU_JIT_NUM_OPTIONS of CUDA 13.0.
const JIT_OPTIONS: u32 = 35;

/// The JIT options of a load call, sorted into what travels and what comes back.
#[derive(Default)]
pub struct JitOptions {
    /// Pairs of option and value for the worker.
    pub travelling: Vec<u8>,
    info: Option<(*mut u8, usize, *mut *mut c_void)>,
    error: Option<(*mut u8, usize, *mut *mut c_void)>,
    wall_time: Option<*mut *mut c_void>,
}

impl JitOptions {
    /// Reads a load call's options.
    ///
    /// # Errors
    /// CUDA_ERROR_INVALID_VALUE for NULL arrays; CUDA_ERROR_NOT_SUPPORTED for options that name host memory in other ways.
    ///
    /// # Safety
    /// The arrays have `count` elements, as CUDA's documentation of the load calls says.
    pub unsafe fn read(count: u32, options: *const u32, values: *mut *mut c_void) -> CuResult<Self> {
        let mut read = JitOptions::default();
        if count == 0 {
            return Ok(read);
        }
        if options.is_null() || values.is_null() || count > 64 {
            return Err(CUresult::INVALID_VALUE);
        }
        let (mut info, mut error) = ((std::ptr::null_mut(), None), (std::ptr::null_mut(), None));
        for i in 0..count as usize {
            // SAFETY: i < count.
            let (option, place) = unsafe { (options.add(i).read(), values.add(i)) };
            // SAFETY: as above.
            let value = unsafe { place.read() };
            match option {
                2 => read.wall_time = Some(place),
                3 => info.0 = value.cast::<u8>(),
                // An unsigned int in a pointer's place: the upper half is anything.
                4 => info.1 = Some((value as u32 as usize, place)),
                5 => error.0 = value.cast::<u8>(),
                6 => error.1 = Some((value as u32 as usize, place)),
                17..=19 | 25..=28 => {
                    crate::log::once("JIT symbol options", || {
                        format!("JIT option {option} is not supported")
                    });
                    return Err(CUresult::NOT_SUPPORTED);
                }
                JIT_OPTIONS.. => return Err(CUresult::INVALID_VALUE),
                _ => {
                    read.travelling.extend_from_slice(&u64::from(option).to_le_bytes());
                    // Values are pointer-sized words of which a 32-bit option uses the low half.
                    read.travelling.extend_from_slice(&(value as u64).to_le_bytes());
                }
            }
        }
        let buffer = |(at, size): (*mut u8, Option<(usize, *mut *mut c_void)>)| {
            size.filter(|_| !at.is_null()).map(|(size, place)| (at, size, place))
        };
        (read.info, read.error) = (buffer(info), buffer(error));
        Ok(read)
    }

    /// Room for the two logs, in bytes.
    pub fn rooms(&self) -> (u32, u32) {
        let room = |b: &Option<(*mut u8, usize, _)>| b.map_or(0, |(_, size, _)| size.min(16 * 1024) as u32);
        (room(&self.info), room(&self.error))
    }

    /// Gives the caller what came back.
    pub fn finish(&self, info_log: &[u8], error_log: &[u8]) {
        for (buffer, log) in [(&self.info, info_log), (&self.error, error_log)] {
            if let Some((at, size, place)) = *buffer
                && size != 0
            {
                let count = log.len().min(size - 1);
                // SAFETY: the caller's buffer has `size` bytes; the size word is the caller's array element.
                unsafe {
                    at.copy_from_nonoverlapping(log.as_ptr(), count);
                    at.add(count).write(0);
                    // What is told of a log that does not fit is the buffer's size, NUL included.
                    place.write(if count < log.len() { size } else { count } as *mut c_void);
                }
            }
        }
        if let Some(place) = self.wall_time {
            // SAFETY: the caller's array element, of which the option uses a float. The time is not known here: 0.
            unsafe { place.cast::<f32>().write(0.0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image at a pointer.
    fn at(image: *const c_void) -> CuResult<Cow<'static, [u8]>> {
        // SAFETY: the tests below pass NULL or live images, and use the bytes while those live.
        unsafe { bytes_of(image) }
    }

    #[test]
    fn kinds_of_images() {
        let ptx = c"\n// x\n.version 8.0\n";
        assert_eq!(at(ptx.as_ptr().cast()).unwrap(), ptx.to_bytes_with_nul());
        let mut fatbin = vec![0u8; 16 + 40];
        fatbin[..4].copy_from_slice(&FATBIN_MAGIC.to_le_bytes());
        fatbin[6] = 16;
        fatbin[8] = 40;
        assert_eq!(at(fatbin.as_ptr().cast()).unwrap(), fatbin);
        let wrapper = FatbinWrapper {
            magic: FATBIN_WRAPPER_MAGIC,
            version: 1,
            data: fatbin.as_ptr(),
            extra: std::ptr::null(),
        };
        assert_eq!(at((&raw const wrapper).cast()).unwrap(), fatbin);
        // A list without an entry, and one with the fatbin that it was linked from.
        let (none, part) = ([std::ptr::null()], [fatbin.as_ptr(), std::ptr::null()]);
        let linked_from = |extra: &[*const u8]| {
            let wrapper = FatbinWrapper { version: 2, extra: extra.as_ptr(), ..wrapper };
            at((&raw const wrapper).cast()).map(Cow::into_owned)
        };
        assert_eq!(linked_from(&none).unwrap(), fatbin);
        assert_eq!(linked_from(&part).unwrap(), linked::pack(&[&fatbin, &fatbin], 1024).unwrap());
        assert_eq!(at(c"garbage".as_ptr().cast()).unwrap_err(), CUresult::INVALID_IMAGE);
        assert_eq!(at(std::ptr::null()).unwrap_err(), CUresult::INVALID_VALUE);
        fatbin[15] = 0x7f;
        assert_eq!(at(fatbin.as_ptr().cast()).unwrap_err(), CUresult::INVALID_IMAGE);
    }

    #[test]
    fn an_elf_file_is_as_long_as_its_last_part() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        // SAFETY: a whole ELF file.
        let found = unsafe { bytes_of(program.as_ptr().cast()) }.unwrap();
        assert!(found.len() <= program.len() && found.len() > program.len() / 2);
        for (at, value) in [(4, 1), (0x36, 0x20), (0x3a, 0x20)] {
            let mut wrong = program.clone();
            wrong[at] = value;
            // SAFETY: as much memory as the file has, and the wrong field is looked at first.
            assert_eq!(unsafe { bytes_of(wrong.as_ptr().cast()) }, Err(CUresult::INVALID_IMAGE), "{at:#x}");
        }
    }

    #[test]
    fn a_log_that_is_cut_short_counts_its_buffer() {
        let mut log = [b'x'; 8];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(4)];
        // SAFETY: two options with their values, which live until the end.
        let options = unsafe { JitOptions::read(2, [5, 6].as_ptr(), values.as_mut_ptr()) }.unwrap();
        options.finish(&[], b"ab");
        assert_eq!((&log[..4], values[1].addr()), (&b"ab\0x"[..], 2));
        options.finish(&[], b"abcdef");
        assert_eq!((&log[..5], values[1].addr()), (&b"abc\0x"[..], 4));
    }

    #[test]
    fn options_of_no_known_number_are_refused() {
        let mut value = std::ptr::null_mut();
        for (number, expected) in
            [(7, None), (17, Some(CUresult::NOT_SUPPORTED)), (35, Some(CUresult::INVALID_VALUE))]
        {
            // SAFETY: one option with its value.
            let read = unsafe { JitOptions::read(1, &number, &mut value) };
            assert_eq!(read.err(), expected, "{number}");
        }
    }
}
