//! What the driver made for the guest. Each object destroys its driver handle when its last user lets go of it, unless the
//! context that it belonged to is gone, and the handle with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cuda_api::CuResult;
use cuda_api::account::Hold;
use cuda_api::types::{CUresult, FunctionInfo, Resource};

use crate::context::Context;
use crate::driver::{Driver, Raw};
use crate::image::Given;
use crate::lock::lock;

/// Destroys a handle. After a sticky error the driver refuses even that, and nothing is left to destroy.
pub(crate) fn destroy(context: &Context, how: impl FnOnce() -> CuResult<()>) {
    if context.alive() && context.driver.sticky() == 0 {
        // A green context may be current in one thread only; its primary context does as well.
        let context = context.owner.as_ref().map_or(context, |owner| owner);
        // The driver has logged what it answered; a handle that it will not destroy stays until the process ends.
        let _ = context.with(how);
    }
}

macro_rules! context_objects {
    ($($(#[doc = $doc:literal])+ $name:ident by $destroy:ident;)+) => { $(
        $(#[doc = $doc])+
        pub(crate) struct $name {
            pub(crate) raw: Raw,
            pub(crate) context: Arc<Context>,
        }

        impl Drop for $name {
            fn drop(&mut self) {
                destroy(&self.context, || self.context.driver.$destroy(self.raw));
            }
        }
    )+ };
}

context_objects! {
    /// An event.
    Event by cuEventDestroy_v2;
}

/// Images that are being linked. What is done with it is done by one call at a time, as CUDA wants it.
pub(crate) struct Link {
    pub(crate) raw: Raw,
    pub(crate) context: Arc<Context>,
    pub(crate) state: Mutex<crate::calls::link::State>,
}

impl Drop for Link {
    fn drop(&mut self) {
        destroy(&self.context, || self.context.driver.cuLinkDestroy(self.raw));
    }
}

/// A green context. Its end is [`crate::Cuda::green_end`].
pub(crate) struct Green {
    pub(crate) raw: Raw,
    /// What it is used as.
    pub(crate) context: Arc<Context>,
}

/// What a green context is made from. CUDA has no call that frees it.
pub(crate) struct ResourceDesc {
    pub(crate) raw: Raw,
    /// The contexts that its resources came from, where those are a context's.
    pub(crate) contexts: Vec<Option<Arc<Context>>>,
}

/// A stream of the guest's making.
pub(crate) struct Stream {
    pub(crate) raw: Raw,
    pub(crate) context: Arc<Context>,
    /// It does not wait for the legacy default stream.
    pub(crate) non_blocking: bool,
    pub(crate) uses: Uses,
}

/// How often a stream was used, and which use of it was a completion word's.
#[derive(Default)]
pub(crate) struct Uses {
    count: AtomicU64,
    /// The number of that use, the ring and the value of the word; 0 for none.
    signal: Mutex<(u64, u32, u64)>,
}

impl Uses {
    /// A call is about to use the stream; the number of this use, from 1.
    pub(crate) fn add(&self) -> u64 {
        self.count.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// Nobody else was using the stream when the word of use `number` was issued.
    pub(crate) fn signalled(&self, number: u64, ring: u32, value: u64) {
        *lock(&self.signal) = (number, ring, value);
    }

    /// The word that was the stream's last use, if it was: its ring and its value.
    pub(crate) fn last_is_a_signal(&self) -> Option<(u32, u64)> {
        let (number, ring, value) = *lock(&self.signal);
        (number != 0 && number == self.count.load(Ordering::Acquire)).then_some((ring, value))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        destroy(&self.context, || self.context.driver.cuStreamDestroy_v2(self.raw));
    }
}

/// A library.
pub(crate) struct Library {
    pub(crate) driver: &'static Driver,
    pub(crate) raw: Raw,
    /// What the driver may still read.
    pub(crate) _image: Option<Arc<Given>>,
    /// About what its code takes of a device.
    pub(crate) _hold: Hold,
}

impl Drop for Library {
    fn drop(&mut self) {
        if self.driver.sticky() == 0 {
            let _ = self.driver.cuLibraryUnload(self.raw);
        }
    }
}

/// A module: loaded by itself, or a library's in a context.
pub(crate) struct Module {
    pub(crate) raw: Raw,
    pub(crate) context: Arc<Context>,
    /// The library that it goes with.
    pub(crate) library: Option<Arc<Library>>,
    /// What the driver may still read.
    pub(crate) _image: Option<Arc<Given>>,
    /// About what its code takes of the device; a library's counts there.
    pub(crate) _hold: Option<Hold>,
}

impl Module {
    /// What its variables are recorded under: the driver's handle of what they go with.
    pub(crate) fn owner(&self) -> Raw {
        self.library.as_ref().map_or(self.raw, |library| library.raw)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.library.is_none() {
            destroy(&self.context, || self.context.driver.cuModuleUnload(self.raw));
        }
    }
}

/// Where a function comes from.
pub(crate) enum Source {
    /// A module's function.
    Module(Arc<Module>),
    /// A library's kernel.
    Kernel(Arc<Library>),
    /// A library's kernel in a context.
    Function(Arc<Library>, Arc<Context>),
}

/// A function or kernel.
pub(crate) struct Function {
    pub(crate) raw: Raw,
    pub(crate) source: Source,
    /// Bytes of its parameter buffer.
    pub(crate) param_bytes: u32,
}

impl Function {
    /// It belongs to a context that is still there, or to none.
    pub(crate) fn check_alive(&self) -> CuResult<()> {
        let alive = match &self.source {
            Source::Module(module) => module.context.alive(),
            Source::Function(_, context) => context.alive(),
            Source::Kernel(_) => true,
        };
        if alive { Ok(()) } else { Err(CUresult::INVALID_HANDLE) }
    }

    pub(crate) fn is_kernel(&self) -> bool {
        matches!(self.source, Source::Kernel(_))
    }

    /// It belongs to this module.
    pub(crate) fn of_module(&self, module: &Arc<Module>) -> bool {
        matches!(&self.source, Source::Module(of) if Arc::ptr_eq(of, module))
    }

    /// It belongs to this library.
    pub(crate) fn of_library(&self, library: &Arc<Library>) -> bool {
        match &self.source {
            Source::Module(module) => module.library.as_ref().is_some_and(|of| Arc::ptr_eq(of, library)),
            Source::Kernel(of) | Source::Function(of, _) => Arc::ptr_eq(of, library),
        }
    }

    /// Its attributes as they are now. Those that the driver does not tell are not valid.
    pub(crate) fn info(&self, driver: &Driver, device: i32) -> FunctionInfo {
        let mut info = FunctionInfo { attributes: [0; 16], valid: 0, param_bytes: self.param_bytes };
        for (number, to) in (0i32..).zip(&mut info.attributes) {
            let value = if self.is_kernel() {
                driver.cuKernelGetAttribute(number, self.raw, device)
            } else {
                driver.cuFuncGetAttribute(number, self.raw)
            };
            if let Ok((value,)) = value {
                *to = value;
                info.valid |= 1u32.wrapping_shl(number.unsigned_abs());
            }
        }
        info
    }
}

/// What an array is: memory of its own, or a part of something else, which it keeps alive.
pub(crate) enum Belonging {
    /// Its own.
    Whole { _hold: Hold },
    /// A plane.
    Plane { of: Arc<Array> },
    /// A level.
    Level { of: Arc<Mipmap> },
}

/// An array.
pub(crate) struct Array {
    pub(crate) raw: Raw,
    pub(crate) context: Arc<Context>,
    pub(crate) belonging: Belonging,
}

impl Drop for Array {
    fn drop(&mut self) {
        if matches!(self.belonging, Belonging::Whole { .. }) {
            destroy(&self.context, || self.context.driver.cuArrayDestroy(self.raw));
        }
    }
}

/// A mipmapped array.
pub(crate) struct Mipmap {
    pub(crate) raw: Raw,
    pub(crate) context: Arc<Context>,
    pub(crate) _hold: Hold,
}

impl Drop for Mipmap {
    fn drop(&mut self) {
        destroy(&self.context, || self.context.driver.cuMipmappedArrayDestroy(self.raw));
    }
}

/// What a texture or surface object reads, kept alive.
pub(crate) enum Viewed {
    /// An array.
    Array { _array: Arc<Array> },
    /// A mipmapped array.
    Mipmap { _mipmap: Arc<Mipmap> },
    /// Memory, which is the guest's to keep.
    Memory,
}

/// A texture object, or a surface object.
pub(crate) struct View {
    pub(crate) raw: u64,
    pub(crate) surface: bool,
    pub(crate) context: Arc<Context>,
    /// As the guest gave it, with its own names.
    pub(crate) resource: Resource,
    pub(crate) _viewed: Viewed,
}

impl Drop for View {
    fn drop(&mut self) {
        let driver = self.context.driver;
        destroy(&self.context, || {
            if self.surface {
                driver.cuSurfObjectDestroy(self.raw)
            } else {
                driver.cuTexObjectDestroy(self.raw)
            }
        });
    }
}

/// Physical memory of virtual memory management. It is held as long as it is mapped anywhere, as in the driver.
pub(crate) struct Allocation {
    pub(crate) driver: &'static Driver,
    pub(crate) raw: u64,
    pub(crate) size: u64,
    /// Its bytes in the account; None for another process's, which counts there.
    pub(crate) _hold: Option<Hold>,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.driver.sticky() == 0 {
            let _ = self.driver.cuMemRelease(self.raw);
        }
    }
}
