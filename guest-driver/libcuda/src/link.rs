//! The linker: the worker's driver links; the log buffers and the image are this process's.

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex};

use cuda_api::calls::module::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::CUlinkState;
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::image::{self, JitOptions};
use crate::objects::lock;
use crate::process::{Process, initialised};

/// CUjitInputType has so many.
const INPUT_TYPES: u32 = 6;
/// CU_JIT_INPUT_PTX.
const INPUT_PTX: u32 = 1;

/// What is known of a link.
pub struct LinkRecord {
    inner: Mutex<Link>,
}

struct Link {
    /// Where the logs go, also after cuLinkCreate has returned: CUDA's contract keeps those buffers alive as long as the link.
    options: JitOptions,
    /// The linked image, which the program is given the address of. Words, so that it is aligned as an image should be.
    linked: Option<(Box<[u64]>, usize)>,
}

// SAFETY: of what is in it, only the log buffers' addresses keep it from being Send. They are the program's, valid for every
// thread as long as the link (CUDA's contract), and written under the mutex only.
unsafe impl Send for Link {}

fn record(process: &Process, state: CUlinkState) -> CuResult<Arc<LinkRecord>> {
    process.objects.links.get(state.0).ok_or(CUresult::INVALID_HANDLE)
}

/// cuLinkCreate.
pub unsafe fn cuLinkCreate_v2(
    count: u32,
    options: *mut u32,
    values: *mut *mut c_void,
    to: *mut CUlinkState,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let context = crate::context::owner(crate::context::current()?);
        // SAFETY: CUDA's contract with the caller.
        let options = unsafe { JitOptions::read(count, options, values) }?;
        let (info_room, error_room) = options.rooms();
        let state = CUlinkState(process.objects.links.reserve_in(context.0)?);
        gate::call::<row::cuLinkCreate_v2>((state, &options.travelling, info_room, error_room)).inspect_err(
            |_| {
                process.objects.links.remove(state.0);
            },
        )?;
        let inner = Mutex::new(Link { options, linked: None });
        process.objects.links.fill(state.0, LinkRecord { inner });
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(state) };
        Ok(())
    })())
}

/// Sends an image and has it added.
///
/// # Safety
/// The arrays have `count` elements.
unsafe fn add(
    state: CUlinkState,
    kind: u32,
    bytes: &[u8],
    name: &CStr,
    count: u32,
    options: *const u32,
    values: *mut *mut c_void,
) -> CuResult<()> {
    let process = initialised()?;
    process.alive()?;
    let record = record(process, state)?;
    if kind >= INPUT_TYPES || bytes.is_empty() || bytes.len() > image::IMAGE_BYTES_MAX {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: by this function's contract.
    let own = unsafe { JitOptions::read(count, options, values) }?;
    let link = lock(&record.inner);
    if link.linked.is_some() {
        return Err(CUresult::INVALID_VALUE);
    }
    let number = image::send(bytes)?;
    let (result, info, error) =
        gate::call::<row::cuLinkAddData_v2>((state, kind, number, name, &own.travelling))?;
    if result == 0 {
        return Ok(());
    }
    link.options.finish(&info, &error);
    // Where the image did not arrive, that is the reason.
    Err(gate::deferred_error().err().unwrap_or(CUresult(result)))
}

/// cuLinkAddData.
pub unsafe fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: u32,
    data: *mut c_void,
    size: usize,
    name: *const c_char,
    count: u32,
    options: *mut u32,
    values: *mut *mut c_void,
) -> CUresult {
    finish((|| {
        not_null(data)?;
        // SAFETY: not NULL; `size` bytes by CUDA's contract.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
        // SAFETY: NULL or NUL-terminated by CUDA's contract.
        let name = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } };
        // SAFETY: CUDA's contract with the caller.
        unsafe { add(state, kind, bytes, name, count, options, values) }
    })())
}

/// cuLinkAddFile.
pub unsafe fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: u32,
    path: *const c_char,
    count: u32,
    options: *mut u32,
    values: *mut *mut c_void,
) -> CUresult {
    finish((|| {
        record(initialised()?, state)?;
        // SAFETY: CUDA's contract with the caller: NULL or NUL-terminated.
        let (file, name) = unsafe { (image::read_file(path)?, CStr::from_ptr(path)) };
        // One of the NULs that it ends with in memory is PTX's end.
        let end = file.len().saturating_sub(image::FILE_NULS) + usize::from(kind == INPUT_PTX);
        // SAFETY: CUDA's contract with the caller.
        unsafe { add(state, kind, &file[..end], name, count, options, values) }
    })())
}

/// Fetches the linked image, piece by piece.
fn fetch(state: CUlinkState, size: u64) -> CuResult<(Box<[u64]>, usize)> {
    // The host's word sizes a buffer of this process.
    let len = usize::try_from(size)
        .ok()
        .filter(|len| *len != 0 && *len <= image::IMAGE_BYTES_MAX)
        .ok_or(CUresult::UNKNOWN)?;
    let mut words = vec![0u64; len.div_ceil(8)].into_boxed_slice();
    let mut at = 0;
    while at < len {
        let piece = gate::call::<row::vgpuLinkedImage>((state, at as u64))?;
        if piece.is_empty() || piece.len() > len - at {
            return Err(CUresult::UNKNOWN);
        }
        // SAFETY: the words have at least `len` bytes, and the piece ends within those.
        unsafe {
            words.as_mut_ptr().cast::<u8>().add(at).copy_from_nonoverlapping(piece.as_ptr(), piece.len())
        };
        at += piece.len();
    }
    Ok((words, len))
}

/// cuLinkComplete.
pub unsafe fn cuLinkComplete(state: CUlinkState, image: *mut *mut c_void, size: *mut usize) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(image)?;
        let record = record(process, state)?;
        let mut link = lock(&record.inner);
        if link.linked.is_none() {
            let (result, len, info, error) = gate::call::<row::cuLinkComplete>((state,))?;
            link.options.finish(&info, &error);
            if result != 0 {
                return Err(CUresult(result));
            }
            link.linked = Some(fetch(state, len)?);
        }
        let (words, len) = link.linked.as_ref().ok_or(CUresult::UNKNOWN)?;
        // SAFETY: not NULL; room for a pointer and a size by CUDA's contract. The image lives as long as the link, as CUDA promises.
        unsafe {
            image.write(words.as_ptr().cast_mut().cast());
            if !size.is_null() {
                size.write(*len);
            }
        }
        Ok(())
    })())
}

/// cuLinkDestroy.
pub unsafe fn cuLinkDestroy(state: CUlinkState) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        record(process, state)?;
        gate::call::<row::cuLinkDestroy>((state,))?;
        process.objects.links.remove(state.0);
        Ok(())
    })())
}
