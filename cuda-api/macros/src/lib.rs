//! `calls!`: the grammar of the call table, and the thin code that a row becomes.
//!
//! A row is the real C signature with the direction, length and ownership of each argument stated:
//!
//! ```text
//! calls! { memory;
//!     /// One sentence.
//!     0x0305 sync may_block fn cuMemGetInfo_v2(out free: usize, out total: usize);
//!     0x0310 posted ptsz fn cuMemsetD8Async(devout dstDevice: [N], uc: u8, N: usize, handle hStream: CUstream);
//!     0x0301 sync custom "guest-driver/libcuda/src/memory.rs" fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize)
//!         wire (bytesize: usize, elsewhere: u64) -> (dptr: CUdeviceptr);
//!     0x0101 local "guest-driver/libcuda/src/device.rs" fn cuDeviceGetCount(count: *mut i32);
//!     0x0f01 refused "graphics interop" fn cuGLInit;
//! }
//! ```
//!
//! | argument | C type | meaning |
//! |---|---|---|
//! | `x: T` | `T` | a value; a `CUdevice` travels as the host's ordinal |
//! | `handle x: T` | `T` | a live handle; the guest checks it before the call is sent |
//! | `new x: T` | `T *` | the guest names the new object; no reply is needed for the name |
//! | `free x: T` | `T` | a live handle, gone when the call succeeds |
//! | `in x: T`, `in x: [T; n]` | `const T *` | read before the call; `n` names another argument |
//! | `out x: T`, `opt out x: T`, `out x: [T; n]` | `T *` | written after the call; `opt` may be NULL |
//! | `cstr x` | `const char *` | a NUL-terminated string |
//! | `devin x: [len]`, `devout x: [len]` | `CUdeviceptr` | a device range read or written; `len` is a product of arguments and literals, or `rows(pitch, width, height)` |
//! | `bits x: [mask]`, `bits x: [mask, without]` | `unsigned int` | a value of which only these bits may be set; those of `without` exist, and answer CUDA_ERROR_NOT_SUPPORTED |
//! | `bytes x` | | bytes in the frame with their own length (`wire` only) |
//!
//! A row with a hand-written guest half (`custom`) gives the frame's own fields in `wire (…) -> (…)`; there `bulk x` and
//! `fill x` carry bytes inline or through staging. Rows with `wire` and no export are `internal`; a `custom` row `over` another sends that
//! one's frame and has none of its own.
//!
//! The macro refuses: an unknown class or argument form, a posted row with outputs, a length that names no argument, a
//! duplicate id or name in the chapter, a custom row without `wire`. Everything interesting is ordinary Rust in `wire.rs`,
//! `guest.rs` and `host.rs` of `cuda-api`.

mod emit;
mod parse;

use proc_macro::TokenStream;

/// See the page above.
#[proc_macro]
pub fn calls(input: TokenStream) -> TokenStream {
    let chapter = syn::parse_macro_input!(input as parse::Chapter);
    emit::chapter(&chapter).unwrap_or_else(|e| e.to_compile_error()).into()
}
