//! The C functions. The library's version script, which the compiler makes, keeps everything else inside.

use std::ffi::c_char;
use std::sync::atomic::AtomicBool;

use crate::answer::{Answer, Return};
use crate::machine::Handle;
use crate::state;

/// Runs an entry point's body so that nothing unwinds into C.
pub fn guarded(body: impl FnOnce() -> Answer) -> Return {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(Ok(())) => Return::SUCCESS,
        Ok(Err(error)) => error,
        Err(_) => Return::UNKNOWN,
    }
}

/// The answer of a symbol that is refused: before its reason comes what NVML says of every call, that it is in use and the handle one.
#[cold]
pub fn refused(name: &str, said: &AtomicBool, device: Option<Handle>, code: Return, reason: &str) -> Return {
    guarded(|| {
        let machine = state::machine()?;
        if let Some(device) = device {
            machine.gpu(device)?;
        }
        crate::log::once(said, || {
            format!("{name} is refused ({}): {reason}", code.words().to_string_lossy())
        });
        Err(code)
    })
}

/// nvmlErrorString.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: Return) -> *const c_char {
    result.words().as_ptr()
}

/// One chapter's C functions, and its rows as data. A function is
/// - `by_hand`: written above, as it answers no nvmlReturn_t;
/// - `free`: works before nvmlInit;
/// - `system`: its half gets what is known of the machine;
/// - `device`: the first argument is a handle; its half gets the machine and the device.
macro_rules! chapter {
    (
        $chapter:ident
        answered { $( #[doc = $doc:literal] $form:ident $name:ident($($arg:ident: $ty:ty),*) = $half:path; )* }
        refused { $( $code:ident $place:ident $reason:literal: $($refused:ident)+; )* }
    ) => {
        #[doc = concat!("The chapter `", stringify!($chapter), "`.")]
        pub mod $chapter {
            #[allow(unused_imports, reason = "a chapter may have no handles, or nothing that is refused")]
            use super::*;

            $( chapter! { @answered $form $doc $name($($arg: $ty),*) = $half } )*
            $( $( chapter! { @refused $place $code $reason $refused } )+ )*

            /// The chapter's symbols.
            pub const ROWS: &[Row] = &[
                $( Row { name: stringify!($name), refusal: None, words: $doc }, )*
                $( $( Row { name: stringify!($refused), refusal: Some(Return::$code), words: $reason }, )+ )*
            ];
        }
    };
    (@answered by_hand $doc:literal $name:ident() = $half:path) => {
        const _: extern "C" fn(Return) -> *const c_char = $half;
    };
    (@answered free $doc:literal $name:ident($($arg:ident: $ty:ty),*) = $half:path) => {
        #[doc = $doc]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> Return {
            // SAFETY: NVML's contract with the caller is the half's.
            guarded(|| unsafe { $half($($arg),*) })
        }
    };
    (@answered system $doc:literal $name:ident($($arg:ident: $ty:ty),*) = $half:path) => {
        #[doc = $doc]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> Return {
            // SAFETY: NVML's contract with the caller is the half's.
            guarded(|| unsafe { $half(state::machine()?, $($arg),*) })
        }
    };
    (@answered device $doc:literal $name:ident($($arg:ident: $ty:ty),*) = $half:path) => {
        #[doc = $doc]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: Handle, $($arg: $ty),*) -> Return {
            guarded(|| {
                let machine = state::machine()?;
                let gpu = machine.gpu(device)?;
                // SAFETY: NVML's contract with the caller is the half's.
                unsafe { $half(machine, gpu, $($arg),*) }
            })
        }
    };
    (@refused device $code:ident $reason:literal $name:ident) => {
        #[doc = $reason]
        // C's convention lets a function leave the rest of its arguments alone.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(device: Handle) -> Return {
            static SAID: AtomicBool = AtomicBool::new(false);
            refused(stringify!($name), &SAID, Some(device), Return::$code, $reason)
        }
    };
    (@refused system $code:ident $reason:literal $name:ident) => {
        #[doc = $reason]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> Return {
            static SAID: AtomicBool = AtomicBool::new(false);
            refused(stringify!($name), &SAID, None, Return::$code, $reason)
        }
    };
}
pub(crate) use chapter;
