//! nvmlReturn_t, and how results are written where the caller wants them.

use std::ffi::{CStr, c_char, c_uint};

/// nvmlReturn_t.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return(pub c_uint);

/// What a half comes to; [`Return::SUCCESS`] is never an error.
pub type Answer<T = ()> = Result<T, Return>;

macro_rules! returns {
    ($($name:ident = $number:literal, $words:literal;)*) => {
        #[allow(missing_docs, reason = "the names are NVML's")]
        impl Return {
            $( pub const $name: Return = Return($number); )*
        }
        /// Every nvmlReturn_t with the words of nvmlErrorString.
        pub const WORDS: &[(Return, &CStr)] = &[ $( (Return::$name, $words) ),* ];
    };
}

returns! {
    SUCCESS = 0, c"Success";
    UNINITIALIZED = 1, c"Uninitialized";
    INVALID_ARGUMENT = 2, c"Invalid Argument";
    NOT_SUPPORTED = 3, c"Not Supported";
    NO_PERMISSION = 4, c"Insufficient Permissions";
    ALREADY_INITIALIZED = 5, c"Already Initialized";
    NOT_FOUND = 6, c"Not Found";
    INSUFFICIENT_SIZE = 7, c"Insufficient Size";
    INSUFFICIENT_POWER = 8, c"Insufficient External Power";
    DRIVER_NOT_LOADED = 9, c"Driver Not Loaded";
    TIMEOUT = 10, c"Timeout";
    IRQ_ISSUE = 11, c"Interrupt Request Issue";
    LIBRARY_NOT_FOUND = 12, c"NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND = 13, c"Function Not Found";
    CORRUPTED_INFOROM = 14, c"Corrupted infoROM";
    GPU_IS_LOST = 15, c"GPU is lost";
    RESET_REQUIRED = 16, c"GPU requires reset";
    OPERATING_SYSTEM = 17, c"GPU access blocked by the operating system";
    LIB_RM_VERSION_MISMATCH = 18, c"Driver/library version mismatch";
    IN_USE = 19, c"In use by another client";
    MEMORY = 20, c"Insufficient Memory";
    NO_DATA = 21, c"No data";
    VGPU_ECC_NOT_SUPPORTED = 22, c"vGPU not supported with ECC enabled";
    INSUFFICIENT_RESOURCES = 23, c"Insufficient Resources";
    FREQ_NOT_SUPPORTED = 24, c"Frequency Not Supported";
    ARGUMENT_VERSION_MISMATCH = 25, c"Argument Version Mismatch";
    DEPRECATED = 26, c"Deprecated";
    NOT_READY = 27, c"Not Ready";
    GPU_NOT_FOUND = 28, c"GPU Not Found";
    INVALID_STATE = 29, c"Invalid State";
    RESET_TYPE_NOT_SUPPORTED = 30, c"Reset Type Not Supported";
    UNKNOWN = 999, c"Unknown Error";
}

impl Return {
    /// What nvmlErrorString says.
    pub fn words(self) -> &'static CStr {
        WORDS.iter().find(|(code, _)| *code == self).map_or(c"Unknown Error", |(_, words)| words)
    }
}

/// Writes a value where the caller wants it.
///
/// # Errors
/// INVALID_ARGUMENT for NULL.
///
/// # Safety
/// `to` is NULL or has room for a `T`, aligned or not.
pub unsafe fn give<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: not NULL, and room by this function's contract.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Writes text with its NUL. Half a text is none.
///
/// # Errors
/// INVALID_ARGUMENT for NULL, INSUFFICIENT_SIZE where it does not fit.
///
/// # Safety
/// `to` is NULL or has room for `room` bytes.
pub unsafe fn give_text(to: *mut c_char, room: c_uint, text: &str) -> Answer {
    if to.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    if room as usize <= text.len() {
        return Err(Return::INSUFFICIENT_SIZE);
    }
    // SAFETY: the text and its NUL fit the room, which this function's contract promises; a `str` and the caller's buffer do not overlap.
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// The version word of a structure: its size, and its version in the highest byte.
pub const fn version<T>(number: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the largest of NVML's structures has a few KiB")]
    let size = size_of::<T>() as u32;
    size | number << 24
}

/// Reads the version word that a structure begins with.
///
/// # Errors
/// INVALID_ARGUMENT for NULL.
///
/// # Safety
/// `from` is NULL, or points to a structure that begins with its version word.
pub unsafe fn version_of<T>(from: *const T) -> Answer<u32> {
    if from.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: not NULL; this function's contract: an unsigned int lies there.
    Ok(unsafe { from.cast::<u32>().read_unaligned() })
}

/// The text of a NUL-terminated string.
///
/// # Errors
/// INVALID_ARGUMENT for NULL.
///
/// # Safety
/// `text` is NULL or NUL-terminated.
pub unsafe fn text_of<'a>(text: *const c_char) -> Answer<std::borrow::Cow<'a, str>> {
    if text.is_null() {
        return Err(Return::INVALID_ARGUMENT);
    }
    // SAFETY: not NULL; this function's contract: it ends with a NUL.
    Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy())
}

/// An array of bytes that holds a text and its NUL, cut to what fits.
pub fn text_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        #[allow(clippy::cast_possible_wrap, reason = "a byte of text as C has it")]
        {
            *to = from as c_char;
        }
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_words_and_unknown_ones_have_those_of_unknown() {
        assert_eq!(WORDS.len(), 32);
        assert_eq!(Return::NOT_SUPPORTED.words(), c"Not Supported");
        assert_eq!(Return(31).words(), Return::UNKNOWN.words());
    }

    #[test]
    fn a_text_fits_with_its_nul_or_is_not_written() {
        let mut buffer = [1 as c_char; 4];
        let mut ask = |room| {
            // SAFETY: the room that is said is there.
            unsafe { give_text(buffer.as_mut_ptr(), room, "abc") }
        };
        assert_eq!(ask(3), Err(Return::INSUFFICIENT_SIZE));
        assert_eq!(ask(4), Ok(()));
        assert_eq!(buffer, text_array::<4>("abcdef"));
        // SAFETY: NULL is refused.
        assert_eq!(unsafe { give_text(std::ptr::null_mut(), 9, "abc") }, Err(Return::INVALID_ARGUMENT));
    }
}
