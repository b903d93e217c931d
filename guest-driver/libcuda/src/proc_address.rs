//! `cuGetProcAddress`: a function's address by its base name, the CUDA version whose interface the caller was written for,
//! and the default stream that it means. It answers as driver 580 does, before `cuInit` too: which names exist, and which
//! symbol a version means, are facts in [`table`]. A name that the call table refuses is found all the same: it exists in
//! the driver, programs ask for it, and calling it says what is not supported.

mod table;

use std::ffi::{CStr, c_char, c_void};

use cuda_api::{CUresult, DRIVER_VERSION};

/// CU_GET_PROC_ADDRESS_LEGACY_STREAM: the same symbols as with no flag at all.
const LEGACY_STREAM: u64 = 1;
/// CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM: the `_ptds` or `_ptsz` symbol where there is one.
const PER_THREAD_DEFAULT_STREAM: u64 = 2;

/// The longest symbol is half of this, in bytes.
const SYMBOL_BYTES_MAX: usize = 128;

/// CUdriverProcAddressQueryResult.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Status {
    Found = 0,
    SymbolNotFound = 1,
    VersionNotSufficient = 2,
}

/// A symbol as base name and suffix.
type Symbol = (&'static str, &'static str);

/// What the base name means. A negative version counts as the newest, as it does with the driver.
fn look_up(name: &[u8], version: i32, flags: u64) -> Result<Symbol, Status> {
    let at = table::TABLE
        .binary_search_by(|entry| entry.0.as_bytes().cmp(name))
        .map_err(|_| Status::SymbolNotFound)?;
    let (base, plain, per_thread) = table::TABLE[at];
    let variants =
        if flags & PER_THREAD_DEFAULT_STREAM != 0 && !per_thread.is_empty() { per_thread } else { plain };
    let version = version as u32;
    let (_, suffix) =
        variants.iter().rev().find(|(since, _)| *since <= version).ok_or(Status::VersionNotSufficient)?;
    Ok((base, suffix))
}

/// The address of the exported function. `None` would be a symbol that the table knows and this library lacks: a test
/// makes sure that there is none.
fn address((base, suffix): Symbol) -> Option<*mut c_void> {
    let mut bytes = [0; SYMBOL_BYTES_MAX];
    let len = base.len() + suffix.len();
    bytes.get_mut(..base.len())?.copy_from_slice(base.as_bytes());
    bytes.get_mut(base.len()..len)?.copy_from_slice(suffix.as_bytes());
    crate::exports::address(std::str::from_utf8(bytes.get(..len)?).ok()?)
}

/// The checks and the search that both versions of the function share.
///
/// # Safety
/// `symbol` is NULL or a C string.
unsafe fn resolve(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    version: i32,
    flags: u64,
) -> Result<Result<*mut c_void, Status>, CUresult> {
    let known_flags = LEGACY_STREAM | PER_THREAD_DEFAULT_STREAM;
    if symbol.is_null() || pfn.is_null() || version > DRIVER_VERSION || flags & !known_flags != 0 {
        return Err(CUresult::INVALID_VALUE);
    }
    // SAFETY: not NULL (checked above), so a C string by this function's contract.
    let name = unsafe { CStr::from_ptr(symbol) }.to_bytes();
    Ok(look_up(name, version, flags).and_then(|symbol| address(symbol).ok_or(Status::SymbolNotFound)))
}

/// The function of CUDA 11.3: a name that is not found is an error, and leaves the pointer alone.
///
/// # Safety
/// `symbol` is NULL or a C string; `pfn` is NULL or has room for a pointer.
pub unsafe fn cuGetProcAddress(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cudaVersion: i32,
    flags: u64,
) -> CUresult {
    // SAFETY: the same contract.
    match unsafe { resolve(symbol, pfn, cudaVersion, flags) } {
        Err(error) => error,
        Ok(Err(_)) => CUresult::NOT_FOUND,
        Ok(Ok(address)) => {
            // SAFETY: `resolve` found it not NULL; the caller gave room for a pointer.
            unsafe { pfn.write(address) };
            CUresult::SUCCESS
        }
    }
}

/// The function of CUDA 12.0: a name that is not found is a success with NULL, and the status says why.
///
/// # Safety
/// `symbol` is NULL or a C string; `pfn` is NULL or has room for a pointer, `symbolStatus` is NULL or has room for a status.
pub unsafe fn cuGetProcAddress_v2(
    symbol: *const c_char,
    pfn: *mut *mut c_void,
    cudaVersion: i32,
    flags: u64,
    symbolStatus: *mut u32,
) -> CUresult {
    // SAFETY: the same contract.
    let (address, status) = match unsafe { resolve(symbol, pfn, cudaVersion, flags) } {
        Err(error) => return error,
        Ok(Err(status)) => (std::ptr::null_mut(), status),
        Ok(Ok(address)) => (address, Status::Found),
    };
    // SAFETY: `resolve` found it not NULL; the caller gave room for a pointer.
    unsafe { pfn.write(address) };
    if !symbolStatus.is_null() {
        // SAFETY: not NULL (checked above); the caller gave room for a status.
        unsafe { symbolStatus.write(status as u32) };
    }
    CUresult::SUCCESS
}

#[cfg(test)]
mod tests;
