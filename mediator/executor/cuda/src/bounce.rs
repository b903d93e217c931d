//! Memory of a ring's host thread that the driver knows as pinned, through which bytes of frames and replies go. From there a copy is
//! issued and need not be waited for at once, and to there it takes no staging of the driver's.

use std::ffi::c_void;
use std::sync::Arc;

use cuda_api::types::CUresult;

use crate::context::Context;
use crate::driver::Driver;

/// Bytes of a ring's bounce memory: so many are on their way at most before they are waited for.
const BYTES: usize = 128 << 10;
/// A copy of more bytes does not go through it.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Copies begin at multiples of this, so that no two share a line of the processor's caches. Bytes.
const ALIGN: usize = 64;
/// CU_MEMHOSTREGISTER_PORTABLE.
const REGISTER_PORTABLE: u32 = 1;

/// A page, as it is aligned.
#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[allow(dead_code, reason = "bytes that the device and copies below use")] [u8; 4096]);

/// The memory, if there is any, and what of it is in use.
#[derive(Default)]
pub(crate) struct Bounce {
    pages: Vec<Page>,
    /// The context that it was registered in.
    context: Option<Arc<Context>>,
    /// Bytes that copies under way use.
    used: usize,
    /// Registering failed: bytes go the ordinary way.
    refused: bool,
}

impl Bounce {
    /// Room for a copy of `len` bytes that the current context, `context`, is to make; it stays the copy's until [`Bounce::settled`]. `None`:
    /// there is none, or not as long as others are under way.
    pub(crate) fn take(&mut self, driver: &Driver, context: &Arc<Context>, len: usize) -> Option<*mut u8> {
        if len > COPY_BYTES_MAX || self.refused {
            return None;
        }
        if !self.context.as_ref().is_some_and(|registered| registered.alive()) {
            self.register(driver, context);
        }
        let end = self.used.checked_add(len)?.checked_next_multiple_of(ALIGN)?;
        if self.refused || end > BYTES {
            return None;
        }
        let at = self.pages.as_mut_ptr().cast::<u8>().wrapping_add(self.used);
        self.used = end;
        Some(at)
    }

    /// Copies are under way that use some of it.
    pub(crate) fn is_used(&self) -> bool {
        self.used != 0
    }

    /// The copies that used it are over.
    pub(crate) fn settled(&mut self) {
        self.used = 0;
    }

    /// A context that has ended has let go of what was registered in it.
    fn register(&mut self, driver: &Driver, context: &Arc<Context>) {
        if self.pages.is_empty() {
            self.pages.resize(BYTES.div_ceil(size_of::<Page>()), Page([0; size_of::<Page>()]));
        }
        let at: *mut c_void = self.pages.as_mut_ptr().cast();
        // SAFETY: the pages stay where they are until this is dropped, which unregisters them first.
        match unsafe { driver.cuMemHostRegister_v2(at, BYTES, REGISTER_PORTABLE) } {
            Ok(()) | Err(CUresult::HOST_MEMORY_ALREADY_REGISTERED) => self.context = Some(context.clone()),
            Err(error) => {
                log::warn!("memory for short copies cannot be registered, they are slower: {error}");
                self.refused = true;
            }
        }
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        let Some(context) = self.context.take() else { return };
        let at: *mut c_void = self.pages.as_mut_ptr().cast();
        let driver = context.driver;
        // SAFETY: registered by `register`; its thread has waited for the copies that use it.
        let unregister = || unsafe { driver.cuMemHostUnregister(at) };
        if !context.alive() {
            return;
        }
        if driver.sticky() != 0 || context.with(unregister).is_err() {
            // The device may know it for as long as the process lives.
            std::mem::forget(std::mem::take(&mut self.pages));
        }
    }
}
