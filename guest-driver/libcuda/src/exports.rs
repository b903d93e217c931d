//! Every symbol that driver 580's libcuda exports, made from the call table's rows. The library's version script keeps
//! everything else inside.

use std::ffi::c_void;

use cuda_api::CUresult;
use cuda_api::types::*;

/// What a `_ptsz` entry point makes of its arguments: stream 0 is the per-thread default stream.
pub trait PerThread {
    /// The argument as the plain function gets it.
    fn per_thread(self) -> Self;
}
impl PerThread for CUstream {
    fn per_thread(self) -> Self {
        if self == STREAM_DEFAULT { STREAM_PER_THREAD } else { self }
    }
}
macro_rules! unchanged {
    ($($t:ty),+) => { $( impl PerThread for $t { fn per_thread(self) -> Self { self } } )+ };
}
unchanged!(
    u8,
    u16,
    u32,
    u64,
    i32,
    usize,
    CUevent,
    CUfunction,
    CUgraph,
    CUgraphExec,
    CUmemLocation,
    CUmemoryPool,
    CUarray,
    CUcontext
);
impl<T> PerThread for *const T {
    fn per_thread(self) -> Self {
        self
    }
}
impl<T> PerThread for *mut T {
    fn per_thread(self) -> Self {
        self
    }
}

/// Runs an entry point's body so that nothing unwinds into C, and has the log tell of an error.
#[inline]
fn guarded(name: &'static str, body: impl FnOnce() -> CUresult) -> CUresult {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(CUresult::UNKNOWN);
    if result != CUresult::SUCCESS {
        crate::logs::returned(name, result);
    }
    result
}

/// Runs the body of a call that travels. An error of an earlier posted call of this thread comes out here, once, before
/// the call has done anything: what it names is as it was.
#[inline]
fn travelling(name: &'static str, body: impl FnOnce() -> CUresult) -> CUresult {
    guarded(name, || crate::gate::deferred_error().err().unwrap_or_else(body))
}

#[cold]
fn refuse(name: &'static str) -> CUresult {
    crate::log::once(name, || {
        let row = cuda_api::all_calls().find(|c| c.name == name || c.aliases.iter().any(|(a, _)| *a == name));
        format!("{name} is not supported: {}", row.and_then(|r| r.reason).unwrap_or("refused"))
    });
    crate::logs::returned(name, CUresult::NOT_SUPPORTED);
    CUresult::NOT_SUPPORTED
}

/// Gives an entry point code of its own: equal ones would become one address, and programs that ask for a symbol by name
/// (cuGetProcAddress, dlsym) can compare.
macro_rules! distinct {
    ($export:ident) => {
        // SAFETY: a comment; there is no instruction.
        unsafe {
            core::arch::asm!(
                concat!("/* ", stringify!($export), " */"),
                options(nomem, nostack, preserves_flags)
            )
        }
    };
}

macro_rules! export {
    ($chapter:ident; $($half:ident $thread:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*);)*) => {
        mod $chapter {
            use super::*;
            $( export!{ @one $half $thread $chapter $export = $row ($($arg: $ty),*) } )*
            /// Name and address of each symbol of the chapter.
            pub const SYMBOLS: &[(&str, Address)] = &[ $( (stringify!($export), Address($export as *const () as *const c_void)) ),* ];
        }
    };
    (@one generic plain $chapter:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $export($($arg: $ty),*) -> CUresult {
            distinct!($export);
            // SAFETY: the caller keeps to CUDA's contract for this function, which is the stub's own.
            travelling(stringify!($export), || unsafe { cuda_api::calls::$chapter::guest::$row(&crate::gate::Gate, $($arg),*) })
        }
    };
    (@one generic perthread $chapter:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $export($($arg: $ty),*) -> CUresult {
            distinct!($export);
            // SAFETY: as for the plain function.
            travelling(stringify!($export), || crate::thread::per_thread_default(|| unsafe {
                cuda_api::calls::$chapter::guest::$row(&crate::gate::Gate, $($arg.per_thread()),*)
            }))
        }
    };
    (@one custom plain $chapter:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $export($($arg: $ty),*) -> CUresult {
            distinct!($export);
            // SAFETY: the caller keeps to CUDA's contract for this function, which is the hand-written half's own.
            travelling(stringify!($export), || unsafe { crate::exports::custom::$row($($arg),*) })
        }
    };
    (@one custom perthread $chapter:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $export($($arg: $ty),*) -> CUresult {
            distinct!($export);
            // SAFETY: as for the plain function.
            travelling(stringify!($export), || crate::thread::per_thread_default(|| unsafe { crate::exports::custom::$row($($arg.per_thread()),*) }))
        }
    };
    (@one local plain $chapter:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $export($($arg: $ty),*) -> CUresult {
            distinct!($export);
            // SAFETY: the caller keeps to CUDA's contract for this function, which is the hand-written half's own.
            guarded(stringify!($export), || unsafe { crate::exports::custom::$row($($arg),*) })
        }
    };
    (@one local perthread $chapter:ident $export:ident = $row:ident ($($arg:ident: $ty:ty),*)) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $export($($arg: $ty),*) -> CUresult {
            distinct!($export);
            // SAFETY: as for the plain function.
            guarded(stringify!($export), || crate::thread::per_thread_default(|| unsafe { crate::exports::custom::$row($($arg.per_thread()),*) }))
        }
    };
    (@one refused $thread:ident $chapter:ident $export:ident = $row:ident ()) => {
        // The arguments of a refused call are never looked at, so it has none: in the C calling convention the caller cleans up.
        #[unsafe(no_mangle)]
        pub extern "C" fn $export() -> CUresult {
            refuse(stringify!($export))
        }
    };
}

/// The hand-written halves, by the names of their rows.
mod custom {
    pub use crate::array::*;
    pub use crate::array_copy::*;
    pub use crate::capture::*;
    pub use crate::context::*;
    pub use crate::context_settings::*;
    pub use crate::copy::*;
    pub use crate::copy_batch::*;
    pub use crate::copy_shape::*;
    pub use crate::device::*;
    pub use crate::device_links::*;
    pub use crate::entry::*;
    pub use crate::enumerate::*;
    pub use crate::event::*;
    pub use crate::export_table::cuGetExportTable;
    pub use crate::function::*;
    pub use crate::graph::*;
    pub use crate::graph_add::*;
    pub use crate::graph_get::*;
    pub use crate::graph_set::*;
    pub use crate::green::*;
    pub use crate::host_function::{cuLaunchHostFunc, cuStreamAddCallback};
    pub use crate::host_memory::*;
    pub use crate::host_node::*;
    pub use crate::ipc::*;
    pub use crate::launch::*;
    pub use crate::library::*;
    pub use crate::link::*;
    pub use crate::logs::*;
    pub use crate::managed::*;
    pub use crate::memory::*;
    pub use crate::module::*;
    pub use crate::occupancy::*;
    pub use crate::old_launch::*;
    pub use crate::pointer::*;
    pub use crate::pools::*;
    pub use crate::proc_address::{cuGetProcAddress, cuGetProcAddress_v2};
    pub use crate::shareable::*;
    pub use crate::stream::*;
    pub use crate::stream_attribute::*;
    pub use crate::stream_words::*;
    pub use crate::tensor_map::*;
    pub use crate::texture::*;
    pub use crate::virtual_memory::*;
    pub use crate::waiting::{cuEventQuery, cuEventSynchronize, cuStreamQuery, cuStreamSynchronize};
}

/// A symbol's address.
pub struct Address(*const c_void);
// SAFETY: the address of a function; nothing is read or written through it here.
unsafe impl Sync for Address {}

cuda_api::for_each_export!(export);

/// The address of an exported function by its exact symbol name.
pub fn address(name: &str) -> Option<*mut c_void> {
    [
        launch::SYMBOLS,
        copy::SYMBOLS,
        stream::SYMBOLS,
        event::SYMBOLS,
        memory::SYMBOLS,
        entry::SYMBOLS,
        device::SYMBOLS,
        context::SYMBOLS,
        module::SYMBOLS,
        library::SYMBOLS,
        graph::SYMBOLS,
        virtual_memory::SYMBOLS,
        texture::SYMBOLS,
        interop::SYMBOLS,
    ]
    .into_iter()
    .flatten()
    .find(|(n, _)| *n == name)
    .map(|(_, a)| a.0.cast_mut())
}
