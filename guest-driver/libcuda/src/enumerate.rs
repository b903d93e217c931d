//! The kernels of a module or library. The worker tells their names; their handles come by name, as for a program that asks so:
//! a kernel has one handle, however it was found.

use std::ffi::CStr;

use cuda_api::calls::{library, module};
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUfunction, CUkernel, CUlibrary, CUmodule};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::initialised;

/// Hands each of the first `count` names to `each`. `page` tells the names from one on, some at a time; none ends them.
fn for_each_name(
    count: u32,
    page: impl Fn(u32) -> CuResult<Vec<u8>>,
    mut each: impl FnMut(usize, &CStr) -> CuResult<()>,
) -> CuResult<()> {
    let mut told = 0u32;
    while told < count {
        let names = page(told)?;
        let before = told;
        for name in names.split_inclusive(|b| *b == 0) {
            if told == count {
                return Ok(());
            }
            let name = CStr::from_bytes_with_nul(name).map_err(|_| CUresult::UNKNOWN)?;
            each(told as usize, name)?;
            told += 1;
        }
        if told == before {
            break;
        }
    }
    Ok(())
}

/// cuModuleEnumerateFunctions.
pub unsafe fn cuModuleEnumerateFunctions(to: *mut CUfunction, count: u32, module: CUmodule) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        process.objects.check(module)?;
        let page = |first| gate::call::<module::row::cuModuleEnumerateFunctions>((module, first));
        for_each_name(count, page, |i, name| {
            let function = crate::module::function_named(process, module, name)?;
            // SAFETY: i < count, and room for that many handles by CUDA's contract.
            unsafe { to.add(i).write(function) };
            Ok(())
        })
    })())
}

/// Every function of a module.
///
/// # Errors
/// What cuModuleGetFunctionCount and cuModuleEnumerateFunctions answer.
pub fn functions_of(module: CUmodule) -> CuResult<Vec<CUfunction>> {
    let process = initialised()?;
    process.alive()?;
    process.objects.check(module)?;
    let count = gate::call::<module::row::cuModuleGetFunctionCount>((module,))?;
    let mut functions = Vec::new();
    let page = |first| gate::call::<module::row::cuModuleEnumerateFunctions>((module, first));
    for_each_name(count, page, |_, name| {
        functions.push(crate::module::function_named(process, module, name)?);
        Ok(())
    })?;
    Ok(functions)
}

/// cuLibraryEnumerateKernels.
pub unsafe fn cuLibraryEnumerateKernels(to: *mut CUkernel, count: u32, library: CUlibrary) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let count = count.min(crate::library::kernel_count(process, library)?);
        let page = |first| gate::call::<library::row::cuLibraryEnumerateKernels>((library, first));
        for_each_name(count, page, |i, name| {
            let kernel = crate::library::kernel_named(process, library, name)?;
            // SAFETY: i < count, and room for that many handles by CUDA's contract.
            unsafe { to.add(i).write(kernel) };
            Ok(())
        })
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_pages_and_end_at_the_count() {
        let all: [&[u8]; 3] = [b"a\0", b"long_one\0", b"c\0"];
        let page =
            |first: u32| Ok(all.iter().skip(first as usize).take(2).copied().collect::<Vec<_>>().concat());
        for (count, expected) in [(0, 0), (2, 2), (3, 3), (9, 3)] {
            let mut found = Vec::new();
            let outcome = for_each_name(count, page, |i, name| {
                assert_eq!(i, found.len());
                found.push(name.to_bytes_with_nul().to_vec());
                Ok(())
            });
            assert_eq!((outcome, found.as_slice()), (Ok(()), &all.map(<[u8]>::to_vec)[..expected]));
        }
        let broken = |_: u32| Ok(b"no end".to_vec());
        assert_eq!(for_each_name(1, broken, |_, _| Ok(())), Err(CUresult::UNKNOWN));
    }
}
