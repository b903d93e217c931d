//! The few calls of `libcuda.so.1` that the doctor makes, found under its ordinary name by the dynamic loader.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};

use libloading::Library;

/// The name by which every program loads it.
pub const NAME: &str = "libcuda.so.1";

/// A call that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailed {
    /// Its name.
    pub call: &'static str,
    /// Its CUresult, -1 where the library lacks it.
    pub result: i32,
    /// The result's name and words.
    pub words: String,
}

/// A library that is loaded.
pub struct Cuda(Library);

/// A device as CUDA shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub uuid: String,
    pub name: String,
    pub memory_bytes: u64,
}

/// Calls a function by its name; the types are those of cuda.h.
macro_rules! call {
    ($cuda:expr, $name:ident($($argument:expr => $ty:ty),*)) => {{
        // SAFETY: the type that cuda.h gives the function.
        let function = unsafe { $cuda.0.get::<unsafe extern "C" fn($($ty),*) -> c_int>(stringify!($name)) };
        match function {
            // SAFETY: each caller here gives what cuda.h wants: room for results, handles of this library.
            Ok(function) => match unsafe { function($($argument),*) } {
                0 => Ok(()),
                result => Err($cuda.failed(stringify!($name), result)),
            },
            Err(_) => Err(CallFailed { call: stringify!($name), result: -1, words: "the library lacks it".to_owned() }),
        }
    }};
}

impl Cuda {
    /// Loads it.
    ///
    /// # Errors
    /// The dynamic loader's words.
    pub fn load() -> Result<Self, String> {
        // SAFETY: a library of the system, loaded as every CUDA program loads it.
        unsafe { Library::new(OsStr::new(NAME)) }.map(Self).map_err(|e| super::origin::words_of(&e))
    }

    /// The file that it was loaded from.
    pub fn path(&self) -> Option<String> {
        // SAFETY: only its address is taken.
        let address = unsafe { self.0.get::<*const c_void>("cuInit") }.ok()?;
        super::origin::file_of(*address)
    }

    fn failed(&self, call: &'static str, result: c_int) -> CallFailed {
        let text = |name: &str| {
            let mut text: *const c_char = std::ptr::null();
            // SAFETY: the type that cuda.h gives both functions; room for a pointer.
            let told = unsafe {
                let get =
                    self.0.get::<unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>(name).ok()?;
                get(result, &raw mut text)
            };
            // SAFETY: a static text, where the call has succeeded.
            (told == 0 && !text.is_null())
                .then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = text("cuGetErrorName").unwrap_or_default();
        let words = text("cuGetErrorString").unwrap_or_default();
        CallFailed { call, result, words: format!("{name}: {words}") }
    }

    /// cuInit.
    ///
    /// # Errors
    /// Its result.
    pub fn init(&self) -> Result<(), CallFailed> {
        call!(self, cuInit(0 => c_uint))
    }

    /// The devices' ordinals.
    ///
    /// # Errors
    /// The call that has failed.
    pub fn devices(&self) -> Result<Vec<c_int>, CallFailed> {
        let mut count: c_int = 0;
        call!(self, cuDeviceGetCount(&raw mut count => *mut c_int))?;
        let one = |ordinal| {
            let mut device: c_int = 0;
            call!(self, cuDeviceGet(&raw mut device => *mut c_int, ordinal => c_int)).map(|()| device)
        };
        (0..count).map(one).collect()
    }

    /// What a device is.
    ///
    /// # Errors
    /// The call that has failed.
    pub fn device(&self, device: c_int) -> Result<Device, CallFailed> {
        const NAME_BYTES: u8 = u8::MAX;
        let (mut uuid, mut name, mut bytes) = ([0u8; 16], [0u8; NAME_BYTES as usize], 0usize);
        call!(self, cuDeviceGetUuid(&raw mut uuid => *mut [u8; 16], device => c_int))?;
        call!(self, cuDeviceGetName(name.as_mut_ptr().cast() => *mut c_char, c_int::from(NAME_BYTES) => c_int, device => c_int))?;
        call!(self, cuDeviceTotalMem_v2(&raw mut bytes => *mut usize, device => c_int))?;
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
        Ok(Device { uuid: uuid_text(uuid), name, memory_bytes: bytes as u64 })
    }

    /// Loads PTX, launches its kernel `name(words, count)` over the words, and brings them back. The device is left as it was found.
    ///
    /// # Errors
    /// The call that has failed.
    pub fn run(&self, device: c_int, ptx: &CStr, name: &CStr, words: &mut [u32]) -> Result<(), CallFailed> {
        let mut context: *mut c_void = std::ptr::null_mut();
        call!(self, cuDevicePrimaryCtxRetain(&raw mut context => *mut *mut c_void, device => c_int))?;
        let done = call!(self, cuCtxSetCurrent(context => *mut c_void))
            .and_then(|()| self.run_in_context(ptx, name, words));
        let released = call!(self, cuDevicePrimaryCtxRelease_v2(device => c_int));
        done.and(released)
    }

    fn run_in_context(&self, ptx: &CStr, name: &CStr, words: &mut [u32]) -> Result<(), CallFailed> {
        const THREADS: c_uint = 128;
        let (mut module, mut function) = (std::ptr::null_mut::<c_void>(), std::ptr::null_mut::<c_void>());
        call!(self, cuModuleLoadData(&raw mut module => *mut *mut c_void, ptx.as_ptr().cast() => *const c_void))?;
        call!(self, cuModuleGetFunction(&raw mut function => *mut *mut c_void, module => *mut c_void, name.as_ptr() => *const c_char))?;
        let (bytes, mut at) = (size_of_val(words), 0u64);
        call!(self, cuMemAlloc_v2(&raw mut at => *mut u64, bytes => usize))?;
        call!(self, cuMemcpyHtoD_v2(at => u64, words.as_ptr().cast() => *const c_void, bytes => usize))?;
        let mut count = c_uint::try_from(words.len()).unwrap_or(0);
        let blocks = count.div_ceil(THREADS);
        let mut parameters: [*mut c_void; 2] = [(&raw mut at).cast(), (&raw mut count).cast()];
        let null = std::ptr::null_mut::<c_void>();
        call!(self, cuLaunchKernel(
            function => *mut c_void,
            blocks => c_uint, 1 => c_uint, 1 => c_uint,
            THREADS => c_uint, 1 => c_uint, 1 => c_uint,
            0 => c_uint, null => *mut c_void,
            parameters.as_mut_ptr() => *mut *mut c_void, std::ptr::null_mut() => *mut *mut c_void
        ))?;
        call!(self, cuCtxSynchronize())?;
        call!(self, cuMemcpyDtoH_v2(words.as_mut_ptr().cast() => *mut c_void, at => u64, bytes => usize))?;
        call!(self, cuMemFree_v2(at => u64))?;
        call!(self, cuModuleUnload(module => *mut c_void))
    }
}

/// A UUID as NVML writes it.
fn uuid_text(uuid: [u8; 16]) -> String {
    let mut text = "GPU".to_owned();
    for (at, byte) in uuid.iter().enumerate() {
        let dash = if [0, 4, 6, 8, 10].contains(&at) { "-" } else { "" };
        text += &format!("{dash}{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_is_written_as_nvml_does() {
        assert_eq!(super::uuid_text(*b"0123456789abcdef"), "GPU-30313233-3435-3637-3839-616263646566");
    }
}
