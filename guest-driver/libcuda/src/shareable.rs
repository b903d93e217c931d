//! Physical memory that leaves the process as a descriptor. The program gets a file of this process's own, sealed, with a token
//! of the host's in it: it can be sent to another process like the driver's descriptor, and says nothing to anybody but the host.
//!
//! The memory can be imported as long as its exporter holds it, by a handle or a mapping.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use cuda_api::calls::virtual_memory::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{CUipcHandle, CUmemGenericAllocationHandle};
use cuda_api::{CUresult, CuResult};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::gate;
use crate::process::initialised;
use crate::virtual_memory::AllocationRecord;

/// CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
const HANDLE_POSIX: u32 = 1;
/// How a file begins that holds a token.
const MARK: [u8; 16] = *b"vgpu shareable\0\x01";
const FILE_BYTES: usize = MARK.len() + size_of::<CUipcHandle>();

fn file_of(token: &CUipcHandle) -> rustix::io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("vgpu-shareable", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut bytes = [0; FILE_BYTES];
    let (mark, rest) = bytes.split_at_mut(MARK.len());
    mark.copy_from_slice(&MARK);
    rest.copy_from_slice(&token.bytes);
    rustix::io::write(&file, &bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn token_of(file: impl AsFd) -> Option<CUipcHandle> {
    let mut bytes = [0; FILE_BYTES];
    if rustix::io::pread(file, bytes.as_mut_slice(), 0) != Ok(FILE_BYTES) {
        return None;
    }
    let token = bytes.strip_prefix(&MARK)?;
    Some(CUipcHandle { bytes: token.try_into().ok()? })
}

/// cuMemExportToShareableHandle.
pub unsafe fn cuMemExportToShareableHandle(
    to: *mut c_void,
    handle: CUmemGenericAllocationHandle,
    kind: u32,
    flags: u64,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let record = process.objects.allocations.get(handle.0).ok_or(CUresult::INVALID_VALUE)?;
        if kind != HANDLE_POSIX || flags != 0 || !record.is_exportable() {
            return Err(CUresult::INVALID_VALUE);
        }
        let token = gate::call::<row::cuMemExportToShareableHandle>((handle,))?;
        let file = file_of(&token).map_err(|_| CUresult::OPERATING_SYSTEM)?;
        // SAFETY: not NULL; CUDA's contract for this kind of handle: room for a descriptor, which is the program's from here on.
        unsafe { to.cast::<RawFd>().write_unaligned(file.into_raw_fd()) };
        Ok(())
    })())
}

/// cuMemImportFromShareableHandle. The descriptor stays the program's.
pub unsafe fn cuMemImportFromShareableHandle(
    to: *mut CUmemGenericAllocationHandle,
    descriptor: *mut c_void,
    kind: u32,
) -> CUresult {
    finish((|| {
        let process = initialised()?;
        process.alive()?;
        not_null(to)?;
        let descriptor = RawFd::try_from(descriptor.addr()).map_err(|_| CUresult::INVALID_VALUE)?;
        if kind != HANDLE_POSIX {
            return Err(CUresult::INVALID_VALUE);
        }
        // SAFETY: not -1, which no address fits; CUDA's contract: an open descriptor, which is only read from.
        let token = token_of(unsafe { BorrowedFd::borrow_raw(descriptor) }).ok_or(CUresult::INVALID_VALUE)?;
        let allocations = &process.objects.allocations;
        let named = CUmemGenericAllocationHandle(allocations.reserve()?);
        let imported = gate::call::<row::cuMemImportFromShareableHandle>((named, &token));
        let record = imported.and_then(|device| imported_on(process, device));
        match record {
            Ok(record) => allocations.fill(named.0, record),
            Err(error) => {
                allocations.remove(named.0);
                if imported.is_ok() {
                    gate::call::<row::cuMemRelease>((named,))?;
                }
                return Err(error);
            }
        }
        // SAFETY: not NULL; room for a handle by CUDA's contract.
        unsafe { to.write(named) };
        Ok(())
    })())
}

/// The record of memory on a device of the host's, which this process may not see.
fn imported_on(process: &crate::process::Process, device: i32) -> CuResult<AllocationRecord> {
    process.guest_ordinal(device).map(AllocationRecord::imported).ok_or(CUresult::INVALID_DEVICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_file_and_other_files_hold_none() {
        let token = CUipcHandle { bytes: std::array::from_fn(|i| i as u8) };
        let file = file_of(&token).unwrap();
        assert_eq!(token_of(&file), Some(token));
        assert!(rustix::io::pwrite(&file, b"x", 0).is_err(), "it is sealed");
        let other = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(token_of(&other), None);
        rustix::io::write(&other, &[0; FILE_BYTES]).unwrap();
        assert_eq!(token_of(&other), None);
    }
}
