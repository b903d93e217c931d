//! CUDA C++ to PTX, with NVIDIA's run-time compiler library out of a wheel. Needs no GPU and no driver.
//!
//! Results are kept under `target/ptx`, named by a hash of everything that they depend on.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::Path;
use std::ptr::{null, null_mut};

use anyhow::{Context, Result, bail, ensure};
use libloading::Library;

use crate::progress::step;
use crate::wheels::Toolkit;
use crate::{cache, store};

/// nvrtcProgram.
type Program = *mut c_void;
/// nvrtcResult; 0 is success.
type Status = c_int;

/// Compiles `source` for a virtual architecture and returns the PTX.
///
/// `architecture` is nvrtc's name, for example `compute_80`; `options` are further options, for example `-lineinfo`.
///
/// # Errors
/// When the source does not compile, with the compiler's log; or the compiler cannot be fetched or loaded.
pub fn compile(toolkit: Toolkit, source: &str, architecture: &str, options: &[&str]) -> Result<String> {
    let architecture_option = format!("--gpu-architecture={architecture}");
    let options = [&[architecture_option.as_str()], options].concat();
    let mut hash = blake3::Hasher::new();
    for part in [&[format!("{toolkit:?}").as_str(), source], options.as_slice()].concat() {
        hash.update(&part.len().to_le_bytes()).update(part.as_bytes());
    }
    let path = store("ptx").join(format!("{}.ptx", hash.finalize().to_hex()));
    cache::file(&path, |file| {
        let [library, builtins] = toolkit.compiler_libraries()?;
        step(format_args!("compiling CUDA C++ for {architecture}"));
        Ok(fs::write(file, Compiler::load(&library, &builtins)?.compile(source, &options)?)?)
    })?;
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The functions of the library that are used here, with the signatures of nvrtc.h.
struct Compiler {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
    /// Kept loaded as long as the functions above are used.
    _libraries: [Library; 2],
}

impl Compiler {
    fn load(library: &Path, builtins: &Path) -> Result<Self> {
        // The library loads its built-in headers by their bare name, which finds them when they are loaded already.
        // SAFETY: both are NVIDIA's libraries as pip verified them; their initialisers only set up their own state.
        let libraries = unsafe { [Library::new(builtins)?, Library::new(library)?] };
        // SAFETY: the types above are those of nvrtc.h for these names, the same in CUDA 12 and 13.
        unsafe {
            Ok(Self {
                create: *libraries[1].get(b"nvrtcCreateProgram")?,
                destroy: *libraries[1].get(b"nvrtcDestroyProgram")?,
                compile: *libraries[1].get(b"nvrtcCompileProgram")?,
                ptx_size: *libraries[1].get(b"nvrtcGetPTXSize")?,
                ptx: *libraries[1].get(b"nvrtcGetPTX")?,
                log_size: *libraries[1].get(b"nvrtcGetProgramLogSize")?,
                log: *libraries[1].get(b"nvrtcGetProgramLog")?,
                error: *libraries[1].get(b"nvrtcGetErrorString")?,
                _libraries: libraries,
            })
        }
    }

    fn compile(&self, source: &str, options: &[&str]) -> Result<String> {
        let source = CString::new(source)?;
        let options: Vec<CString> =
            options.iter().map(|option| CString::new(*option)).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = null_mut();
        // SAFETY: the source ends with a NUL and lives until the program is destroyed; no headers, so no lists of them.
        let status = unsafe {
            (self.create)(&raw mut program, source.as_ptr(), c"source.cu".as_ptr(), 0, null(), null())
        };
        self.check(status)?;
        // SAFETY: `pointers` holds as many NUL-terminated strings as the count says, all alive in `options`.
        let status = unsafe { (self.compile)(program, c_int::try_from(pointers.len())?, pointers.as_ptr()) };
        let result = match self.check(status) {
            Ok(()) => self.text(program, self.ptx_size, self.ptx),
            Err(error) => match self.text(program, self.log_size, self.log) {
                Ok(log) => Err(error.context(log)),
                Err(_) => Err(error),
            },
        };
        // SAFETY: the program was created above and is not used after this.
        unsafe { (self.destroy)(&raw mut program) };
        result
    }

    /// Gets a text whose size, with its NUL, another function tells.
    fn text(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        text: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<String> {
        let mut length = 0;
        // SAFETY: the program is alive (see `compile`) and `length` is a place for the size.
        self.check(unsafe { size(program, &raw mut length) })?;
        let mut bytes = vec![0_u8; length];
        // SAFETY: the library writes as many bytes as it said before.
        self.check(unsafe { text(program, bytes.as_mut_ptr().cast()) })?;
        ensure!(bytes.pop() == Some(0), "nvrtc gave a text without an end");
        Ok(String::from_utf8(bytes)?)
    }

    fn check(&self, status: Status) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: nvrtc answers every number with a string of its own that is never freed.
        let name = unsafe { CStr::from_ptr((self.error)(status)) };
        bail!("nvrtc: {}", name.to_string_lossy());
    }
}
