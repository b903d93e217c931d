//! NVRTC's table, which nvJitLink uses too: what it has compiled before. For each program NVRTC asks twice, for the PTX of the program's NVVM code and
//! for the machine code of that PTX: it opens an entry, looks for it, stores it if it was missing and closes it. Observed on
//! driver 580 with NVRTC 13.0; the files are [`compile_cache`](crate::compile_cache)'s.
//!
//! NVRTC names machine code by the NVVM code and the assembler's options alone, so that with NVIDIA's driver a program
//! compiled with `-ftz=true` can get the machine code of the same program with `-ftz=false`. Here an entry of machine code is
//! also named by the PTX entry that the same thread asked for before, which has those options.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};

use cuda_api::CUresult;

use crate::compile_cache::{Cache, Key};

const CUBIN: u32 = 1;
const PTX: u32 = 2;

/// An entry between open and close.
#[derive(Debug)]
pub(super) struct Entry {
    cache: Cache,
    /// None where it cannot be named with all that it depends on: nothing is found under it, and nothing kept.
    key: Option<Key>,
}

/// The PTX entry that a thread asked for last.
#[derive(Clone, Copy)]
struct Asked {
    input: Key,
    key: Key,
}

thread_local! {
    static ASKED: Cell<Option<Asked>> = const { Cell::new(None) };
}

/// The bytes of a text that NVRTC passes.
///
/// # Safety
/// NULL, or a terminated string.
unsafe fn text<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: not NULL (checked), so a terminated string by this function's contract.
    if text.is_null() { b"" } else { unsafe { CStr::from_ptr(text) }.to_bytes() }
}

/// The key of an entry, if it can be named with everything that it depends on.
fn key(kind: u32, input: &[u8], texts: [&[u8]; 3], numbers: [u32; 2]) -> Option<Key> {
    let input = Key::of(&[input]);
    let before = match kind {
        PTX => None,
        CUBIN => Some(ASKED.get().filter(|asked| asked.input == input)?.key),
        _ => return None,
    };
    let [options, host, build] = texts;
    let [architecture, variant] = numbers.map(u32::to_le_bytes);
    let before = before.as_ref().map_or(&[] as &[u8], Key::bytes);
    let key =
        Key::of(&[&kind.to_le_bytes(), input.bytes(), options, host, build, &architecture, &variant, before]);
    if kind == PTX {
        ASKED.set(Some(Asked { input, key }));
    }
    Some(key)
}

/// Opens an entry: of a kind, for NVVM code and options, made by this build of NVRTC for this architecture. Without a cache
/// it is CUDA_ERROR_NOT_INITIALIZED, as with NVIDIA's driver; otherwise it always succeeds: nvJitLink crashes when one of its
/// entries opens and another does not.
pub(super) unsafe extern "C" fn open(
    out: *mut *mut Entry,
    kind: u32,
    input: *const u8,
    input_bytes: u32,
    options: *const c_char,
    host: *const c_char,
    build: *const c_char,
    architecture: u32,
    variant: u32,
) -> CUresult {
    if out.is_null() || input.is_null() {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: NVRTC passes its code with its length, and terminated texts; not NULL (checked above).
    let (input, texts) = unsafe {
        (std::slice::from_raw_parts(input, input_bytes as usize), [text(options), text(host), text(build)])
    };
    // The key first: it is remembered for the entry that follows, whichever has a cache.
    let key = key(kind, input, texts, [architecture, variant]);
    let Some(cache) = Cache::of_environment() else { return CUresult::NOT_INITIALIZED };
    // SAFETY: not NULL (checked above): the caller's result.
    unsafe { out.write(Box::into_raw(Box::new(Entry { cache, key }))) };
    CUresult::SUCCESS
}

/// Closes an entry.
pub(super) unsafe extern "C" fn close(entry: *mut Entry) -> CUresult {
    if entry.is_null() {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: `open` made it, and NVRTC closes each once.
    drop(unsafe { Box::from_raw(entry) });
    CUresult::SUCCESS
}

/// What is stored, in memory that [`release`] takes back; CUDA_ERROR_NOT_FOUND if nothing is.
pub(super) unsafe extern "C" fn find(
    entry: *const Entry,
    _flags: usize,
    content: *mut *mut c_void,
    bytes: *mut u32,
) -> CUresult {
    if entry.is_null() || content.is_null() || bytes.is_null() {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: `open` made it and it is not closed yet.
    let entry = unsafe { &*entry };
    let found = entry.key.as_ref().and_then(|key| entry.cache.get(key));
    let Some(found) = found else { return CUresult::NOT_FOUND };
    let Ok(length) = u32::try_from(found.len()) else { return CUresult::NOT_FOUND };
    // SAFETY: any length is allowed; one more than 0, so that NULL means that there is no memory.
    let memory = unsafe { libc::malloc(found.len().max(1)) };
    if memory.is_null() {
        return CUresult::OUT_OF_MEMORY;
    }
    // SAFETY: `memory` has room for the bytes; the results are not NULL (checked above) and the caller's.
    unsafe {
        memory.cast::<u8>().copy_from_nonoverlapping(found.as_ptr(), found.len());
        content.write(memory);
        bytes.write(length);
    }
    CUresult::SUCCESS
}

/// Stores what has been compiled. It is a cache: what is not kept is compiled again, and nobody has to be told.
pub(super) unsafe extern "C" fn store(
    entry: *const Entry,
    _flags: usize,
    content: *const u8,
    bytes: u32,
) -> CUresult {
    if entry.is_null() || content.is_null() {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: `open` made it and it is not closed yet; NVRTC passes its result with its length.
    let (entry, content) = unsafe { (&*entry, std::slice::from_raw_parts(content, bytes as usize)) };
    if let Some(key) = &entry.key {
        entry.cache.put(key, content);
    }
    CUresult::SUCCESS
}

/// Takes back what `find` gave.
pub(super) unsafe extern "C" fn release(content: *mut c_void) -> CUresult {
    // SAFETY: `find` allocated it, and NVRTC releases each once; NULL is allowed.
    unsafe { libc::free(content) };
    CUresult::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: u32, input: &str, options: &str) -> Option<Key> {
        key(kind, input.as_bytes(), [options.as_bytes(), b"HOST64", b"today"], [90, 0])
    }

    #[test]
    fn machine_code_is_named_by_the_options_of_its_ptx() {
        let ptx = named(PTX, "code", " -ftz=0").unwrap();
        let machine = named(CUBIN, "code", " -arch=sm_90").unwrap();
        assert_ne!(ptx, machine);
        let other = named(PTX, "code", " -ftz=1").unwrap();
        assert_ne!(ptx, other);
        assert_ne!(named(CUBIN, "code", " -arch=sm_90").unwrap(), machine);
        assert_eq!(named(PTX, "code", " -ftz=0").unwrap(), ptx);
        assert_eq!(named(CUBIN, "code", " -arch=sm_90").unwrap(), machine);
    }

    #[test]
    fn what_cannot_be_named_is_not_cached() {
        named(PTX, "code", "").unwrap();
        assert_eq!(named(CUBIN, "other code", ""), None);
        assert_eq!(named(3, "code", ""), None);
        std::thread::spawn(|| assert_eq!(named(CUBIN, "code", ""), None)).join().unwrap();
    }
}
