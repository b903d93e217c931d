//! Where a library comes from, and whose it is.

use std::ffi::{CStr, c_void};
use std::path::Path;

/// The file that holds an address.
pub fn file_of(address: *const c_void) -> Option<String> {
    // SAFETY: integers and pointers: zeros are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer; the address is only compared.
    if unsafe { libc::dladdr(address, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr has written a text that lives as long as the library.
    Some(unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned())
}

/// The dynamic loader's own words, which an error of libloading keeps behind its own.
pub fn words_of(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whose a library is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// This project's.
    Ours,
    /// What the CUDA toolkit has for the linker.
    Stub,
    /// NVIDIA's forward compatibility package.
    Compat,
    /// Another: NVIDIA's driver, most likely.
    Foreign,
}

impl Maker {
    /// By its file.
    pub fn of(path: &str) -> Self {
        /// A setting that only our libraries read.
        const OUR_MARK: &[u8] = b"VGPU_TRANSPORT";
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| Path::new(path).to_owned());
        let bytes = std::fs::read(&real).unwrap_or_default();
        if memchr::memmem::find(&bytes, OUR_MARK).is_some() {
            return Self::Ours;
        }
        let within = |folder: &str| [path, &real.to_string_lossy()].iter().any(|p| p.contains(folder));
        if within("/stubs/") {
            Self::Stub
        } else if within("/compat/") {
            Self::Compat
        } else {
            Self::Foreign
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ours => "this project's",
            Self::Stub => "the CUDA toolkit's stub, which is for the linker only",
            Self::Compat => "NVIDIA's compatibility package",
            Self::Foreign => "not this project's: NVIDIA's driver, most likely",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_its_file() {
        let path = file_of(libc::getpid as *const c_void).expect("the C library is a file");
        assert!(path.contains("libc"), "{path}");
        assert_eq!(Maker::of(&path), Maker::Foreign);
    }

    #[test]
    fn libraries_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            Maker::of(path.to_str().unwrap())
        };
        assert_eq!(make("ours/libcuda.so.1", b"\x7fELF..VGPU_TRANSPORT.."), Maker::Ours);
        assert_eq!(make("stubs/libcuda.so", b"\x7fELF"), Maker::Stub);
        assert_eq!(make("compat/libcuda.so.1", b"\x7fELF"), Maker::Compat);
        assert_eq!(make("lib/libcuda.so.1", b"\x7fELF NVIDIA"), Maker::Foreign);
    }
}
