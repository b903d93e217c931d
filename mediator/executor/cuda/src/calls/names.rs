//! The names of a module's or library's kernels, some at a time: the guest asks for each by its name then.

use std::ffi::CStr;

use cuda_api::CuResult;
use cuda_api::types::CUresult;
use cuda_api::wire::INLINE_BYTES_MAX;

use crate::Cuda;
use crate::driver::Raw;

/// Kernels of a module or library at most.
const KERNELS_MAX: u32 = 1 << 18;
/// Bytes of names in a reply: more is not begun.
const NAMES_BYTES: usize = 16 << 10;

/// Names with their NULs from `all`, as many as go into a reply.
fn page(all: &[Raw], first: u32, name: impl Fn(Raw) -> CuResult<Raw>) -> CuResult<Vec<u8>> {
    let mut names = Vec::new();
    let first = usize::try_from(first).map_err(|_| CUresult::INVALID_VALUE)?;
    for kernel in all.iter().skip(first) {
        let at = name(*kernel)?;
        if at == 0 {
            return Err(CUresult::UNKNOWN);
        }
        // SAFETY: not NULL; the driver's text, which it keeps as long as the kernel, and that the caller keeps.
        let text = unsafe { CStr::from_ptr(std::ptr::with_exposed_provenance(at)) }.to_bytes_with_nul();
        let used = names.len().saturating_add(text.len());
        if used > INLINE_BYTES_MAX || (used > NAMES_BYTES && !names.is_empty()) {
            if names.is_empty() {
                return Err(CUresult::NOT_SUPPORTED);
            }
            break;
        }
        names.extend_from_slice(text);
    }
    Ok(names)
}

fn room(count: u32) -> CuResult<Vec<Raw>> {
    if count > KERNELS_MAX {
        return Err(CUresult::OUT_OF_MEMORY);
    }
    Ok(vec![0; usize::try_from(count).map_err(|_| CUresult::UNKNOWN)?])
}

impl Cuda {
    /// A module's, while the caller keeps it.
    pub(crate) fn function_names(&self, module: Raw, first: u32) -> CuResult<Vec<u8>> {
        let (count,) = self.driver.cuModuleGetFunctionCount(module)?;
        let mut all = room(count)?;
        if count != 0 {
            // SAFETY: room for `count` handles.
            unsafe { self.driver.cuModuleEnumerateFunctions(all.as_mut_ptr(), count, module) }?;
        }
        page(&all, first, |function| self.driver.cuFuncGetName(function).map(|(name,)| name))
    }

    /// A library's, while the caller keeps it.
    pub(crate) fn kernel_names(&self, library: Raw, first: u32) -> CuResult<Vec<u8>> {
        let (count,) = self.driver.cuLibraryGetKernelCount(library)?;
        let mut all = room(count)?;
        if count != 0 {
            // SAFETY: room for `count` handles.
            unsafe { self.driver.cuLibraryEnumerateKernels(all.as_mut_ptr(), count, library) }?;
        }
        page(&all, first, |kernel| self.driver.cuKernelGetName(kernel).map(|(name,)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_is_too_long() {
        let long = std::ffi::CString::new("x".repeat(10_000)).unwrap();
        let texts = [c"a", &*long, c"b", &*long];
        let all = [0usize, 1, 2, 3];
        let name = |i: Raw| Ok(texts[i].as_ptr().expose_provenance());
        assert_eq!(page(&all, 0, name).unwrap().len(), 2 + 10_001 + 2);
        assert_eq!(page(&all, 3, name).unwrap().len(), 10_001);
        assert_eq!(page(&all, 4, name), Ok(Vec::new()));
        assert_eq!(page(&all, u32::MAX, name), Ok(Vec::new()));
        let none = |_: Raw| Ok(0);
        assert_eq!(page(&all, 0, none), Err(CUresult::UNKNOWN));
    }
}
