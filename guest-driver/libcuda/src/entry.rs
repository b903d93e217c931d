//! Initialisation, versions and errors.

use std::ffi::c_char;

use cuda_api::guest::{finish, not_null};
use cuda_api::{CUresult, DRIVER_VERSION};

/// cuInit.
pub unsafe fn cuInit(flags: u32) -> CUresult {
    finish((|| {
        if flags != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        crate::process::open()?.alive()
    })())
}

/// cuDriverGetVersion: works before cuInit.
pub unsafe fn cuDriverGetVersion(version: *mut i32) -> CUresult {
    finish((|| {
        not_null(version)?;
        // SAFETY: not NULL; the caller gave room for an int.
        unsafe { version.write(DRIVER_VERSION) };
        Ok(())
    })())
}

/// # Safety
/// `text` is NULL or has room for a pointer.
unsafe fn give(text: *mut *const c_char, found: Option<&'static std::ffi::CStr>) -> CUresult {
    if text.is_null() {
        return CUresult::INVALID_VALUE;
    }
    // SAFETY: not NULL, and room by this function's contract.
    unsafe { text.write(found.map_or(std::ptr::null(), |s| s.as_ptr())) };
    if found.is_some() { CUresult::SUCCESS } else { CUresult::INVALID_VALUE }
}

/// cuGetErrorName.
pub unsafe fn cuGetErrorName(error: CUresult, text: *mut *const c_char) -> CUresult {
    // SAFETY: CUDA's contract: room for a pointer.
    unsafe { give(text, error.name()) }
}

/// cuGetErrorString.
pub unsafe fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> CUresult {
    // SAFETY: CUDA's contract: room for a pointer.
    unsafe { give(text, error.sentence()) }
}
