//! What is asked without a device: versions, processes' names, and what a VM has none of.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::answer::{Answer, Return, give, give_text};
use crate::live;
use crate::machine::Machine;

/// The driver whose interface this library and libcuda have, where the host's release is not known.
const RELEASE: &str = "580.00";
/// Longest release that is believed.
const RELEASE_BYTES_MAX: usize = 32;

/// The release of the host's driver.
fn release() -> String {
    let told = live::readings().ok().flatten().map(|readings| readings.release).unwrap_or_default();
    let is_release = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let usable = !told.is_empty() && told.len() <= RELEASE_BYTES_MAX && is_release(&told);
    if usable { told } else { RELEASE.to_owned() }
}

/// nvmlSystemGetDriverVersion.
pub unsafe fn driver_version(_: &Machine, version: *mut c_char, length: c_uint) -> Answer {
    // SAFETY: NVML's contract: room for `length` bytes.
    unsafe { give_text(version, length, &release()) }
}

/// nvmlSystemGetNVMLVersion: the CUDA release, then the driver's. Works before nvmlInit.
pub unsafe fn nvml_version(version: *mut c_char, length: c_uint) -> Answer {
    let major = cuda_api::DRIVER_VERSION / 1000;
    // SAFETY: NVML's contract: room for `length` bytes.
    unsafe { give_text(version, length, &format!("{major}.{}", release())) }
}

/// nvmlSystemGetCudaDriverVersion: what cuDriverGetVersion answers. Driver 580 wants nvmlInit before it.
pub unsafe fn cuda_version(_: &Machine, version: *mut c_int) -> Answer {
    // SAFETY: NVML's contract: room for an int.
    unsafe { give(version, cuda_api::DRIVER_VERSION) }
}

/// nvmlSystemGetProcessName: of a process of this VM, cut to the room there is.
pub unsafe fn process_name(_: &Machine, pid: c_uint, name: *mut c_char, length: c_uint) -> Answer {
    if name.is_null() || length == 0 {
        return Err(Return::INVALID_ARGUMENT);
    }
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Return::NOT_FOUND,
        std::io::ErrorKind::PermissionDenied => Return::NO_PERMISSION,
        _ => Return::UNKNOWN,
    })?;
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let shown: Vec<u8> = program.iter().copied().take(length as usize - 1).collect();
    // SAFETY: NVML's contract: room for `length` bytes, more than are shown.
    unsafe {
        name.copy_from_nonoverlapping(shown.as_ptr().cast(), shown.len());
        name.add(shown.len()).write(0);
    }
    Ok(())
}

/// The counts of what a VM has none of: units, boards for synchronisation, devices that were left out at start.
pub unsafe fn none(_: &Machine, count: *mut c_uint) -> Answer {
    // SAFETY: NVML's contract: room for an unsigned int.
    unsafe { give(count, 0) }
}

/// nvmlSystemGetHicVersion: there is no such board.
pub unsafe fn no_boards(machine: &Machine, count: *mut c_uint, _: *mut c_void) -> Answer {
    // SAFETY: as in `none`.
    unsafe { none(machine, count) }
}

/// A question by the index of something of which there is none.
pub unsafe fn no_such_index(_: &Machine, _: c_uint, _: *mut c_void) -> Answer {
    Err(Return::INVALID_ARGUMENT)
}
