//! The driver's libraries: found at run time, and never our own.
//!
//! On a machine where the guest's libcuda is installed, or is first in LD_LIBRARY_PATH, the name `libcuda.so.1` can mean
//! that one, and a worker that took it for the driver would become a guest of itself. The two have the same names by
//! design: the same file name, the same SONAME, the same exported functions. What only the guest's library can hold is
//! the path of the device that it opens; a library without it could not do its work, and the real driver has no use for
//! it. So the file that the loader chose is searched for that path, and skipped where it is found.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::driver::Driver;

/// The driver, and a function that it has.
const CUDA: (&str, &[u8]) = ("libcuda.so.1", b"cuInit\0");
/// NVML, and a function that it has.
const NVML: (&str, &[u8]) = ("libnvidia-ml.so.1", b"nvmlInit_v2\0");
/// Where a library is looked for: first by its name, as every CUDA program does, then where hosts have it.
const FOLDERS: [&str; 7] = [
    "",
    "/usr/lib/x86_64-linux-gnu/",
    "/usr/lib64/",
    "/usr/lib/",
    "/usr/local/nvidia/lib64/",
    "/run/opengl-driver/lib/",
    "/usr/lib/wsl/lib/",
];
/// What the guest's libcuda and libnvidia-ml hold and no other: see the module's page.
const GUEST_MARK: &[u8] = b"/dev/vgpu";
/// Bytes of a library that are searched at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Why there is no such library of the driver's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The loader found none.
    #[error("{0}")]
    NotFound(String),
    /// All that was found is the guest's.
    #[error("{} is the guest's library, not NVIDIA's driver", .0.display())]
    Guest(PathBuf),
    /// A library was found that cannot be examined.
    #[error("{}: {reason}", .path.display())]
    Unreadable {
        /// The library.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Opens the driver's library, once in the life of the process. No thread is started and no driver call is made.
///
/// # Errors
/// [`LoadError`]; it stays the same for the life of the process.
pub fn preload() -> Result<(), LoadError> {
    driver().map(|_| ())
}

/// The driver.
pub(crate) fn driver() -> Result<&'static Driver, LoadError> {
    static DRIVER: OnceLock<Result<Driver, LoadError>> = OnceLock::new();
    DRIVER.get_or_init(|| find(CUDA).map(|(library, _)| Driver::new(library))).as_ref().map_err(Clone::clone)
}

/// The host's NVML.
///
/// # Errors
/// [`LoadError`].
pub(crate) fn nvml() -> Result<Library, LoadError> {
    find(NVML).map(|(library, _)| library)
}

/// The first library of that name that is the driver's. Where there is none: why, the most telling reason first.
fn find((name, symbol): (&str, &[u8])) -> Result<(Library, PathBuf), LoadError> {
    let (mut missing, mut worse) = (None, None);
    for folder in FOLDERS {
        let candidate = format!("{folder}{name}");
        // SAFETY: runs the library's initialisers: the driver's, which every CUDA program runs; or those of the guest's
        // library, which opens nothing before it is initialised.
        let library = match unsafe { Library::open(Some(&candidate), RTLD_NOW | RTLD_LOCAL) } {
            Ok(library) => library,
            Err(error) => {
                missing.get_or_insert_with(|| LoadError::NotFound(plain(&error)));
                continue;
            }
        };
        let path = path_of(&library, symbol).unwrap_or_else(|| PathBuf::from(&candidate));
        match is_guests(&path) {
            Ok(false) => {
                log::debug!("the driver's library is {}", path.display());
                return Ok((library, path));
            }
            Ok(true) => {
                log::warn!("{} is the guest's library and is skipped", path.display());
                worse = Some(LoadError::Guest(path));
            }
            Err(error) => worse = Some(LoadError::Unreadable { path, reason: error.to_string() }),
        }
    }
    Err(worse.or(missing).unwrap_or_else(|| LoadError::NotFound(format!("{name} is nowhere"))))
}

fn plain(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// The file that a library was loaded from.
fn path_of(library: &Library, symbol: &[u8]) -> Option<PathBuf> {
    // SAFETY: only the symbol's address is used.
    let symbol = unsafe { library.get::<unsafe extern "C" fn()>(symbol) }.ok()?;
    let address: unsafe extern "C" fn() = *symbol;
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: asks about an address; `info` is written.
    if unsafe { libc::dladdr(address as *const libc::c_void, &raw mut info) } == 0 || info.dli_fname.is_null()
    {
        return None;
    }
    // SAFETY: not NULL; the loader's own NUL-terminated string, which lives as long as the library is open.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    std::fs::canonicalize(OsStr::from_bytes(name.to_bytes())).ok()
}

/// The file holds the guest library's mark.
fn is_guests(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    // The mark may lie across two pieces: the end of one is searched again with the next.
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        let kept = piece.len().min(GUEST_MARK.len());
        piece.drain(..piece.len().saturating_sub(kept));
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if read == 0 {
            return Ok(false);
        }
        if memchr::memmem::find(&piece, GUEST_MARK).is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_wherever_it_lies() {
        let path = std::env::temp_dir().join(format!("executor-cuda-{}", std::process::id()));
        for (before, marked) in
            [(0, true), (PIECE_BYTES - 4, true), (3 * PIECE_BYTES - 8, true), (100, false)]
        {
            let mut bytes = vec![b'x'; before];
            bytes.extend_from_slice(if marked { GUEST_MARK } else { b"/dev/nvidiactl" });
            bytes.extend_from_slice(&[0; 100]);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(is_guests(&path).unwrap(), marked, "{before}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn no_library_is_a_reason() {
        let error = find(("libthere-is-no-such-driver.so.1", CUDA.1)).err().unwrap();
        assert!(error.to_string().contains("libthere-is-no-such-driver.so.1"), "{error}");
    }
}
