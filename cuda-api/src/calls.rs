//! The rows, by chapter of the CUDA Driver API.

use crate::types::CUresult;
use crate::wire::Reader;
use crate::{CallInfo, Malformed};

macro_rules! chapters {
    ($($(#[doc = $doc:literal])+ $name:ident)+) => {
        $( $(#[doc = $doc])+ pub mod $name; )+

        /// Every chapter's name and rows.
        pub const CHAPTERS: &[(&str, &[CallInfo])] = &[$(($name::CHAPTER, $name::CALLS)),+];

        /// What an executor is: all chapters' host halves.
        pub trait Driver: $($name::Host +)+ {}
        impl<T: $($name::Host +)+> Driver for T {}

        /// Finds the row and carries the call out; `None` if no row travels under this id.
        pub fn dispatch<H: Driver>(
            host: &H,
            thread: &mut H::Thread,
            call: u32,
            frame: &mut Reader<'_>,
            reply: &mut Vec<u8>,
        ) -> Option<Result<CUresult, Malformed>> {
            // The high byte of an id is its chapter's number, in the order below: see the first row of each file.
            $( if let Some(outcome) = $name::dispatch(host, thread, call, frame, reply) { return Some(outcome); } )+
            None
        }
    };
}

chapters! {
    /// Kernel launch, functions and occupancy.
    launch
    /// Copies and fills.
    copy
    /// Streams and stream memory operations.
    stream
    /// Events.
    event
    /// Device and host memory.
    memory
    /// Initialisation, versions, errors, entry points.
    entry
    /// Devices.
    device
    /// Contexts.
    context
    /// Modules and the linker.
    module
    /// Libraries and kernels.
    library
    /// Graphs and capture.
    graph
    /// Virtual memory management, pools and managed memory.
    virtual_memory
    /// Arrays, textures, surfaces and tensor maps.
    texture
    /// Interoperation with other APIs, inter-process handles, tools and everything that is refused as a family.
    interop
}

/// Hands every exported name of every chapter to a macro that is in scope by this name.
#[macro_export]
macro_rules! for_each_export {
    ($callback:path) => {
        $crate::__exports_launch!($callback);
        $crate::__exports_copy!($callback);
        $crate::__exports_stream!($callback);
        $crate::__exports_event!($callback);
        $crate::__exports_memory!($callback);
        $crate::__exports_entry!($callback);
        $crate::__exports_device!($callback);
        $crate::__exports_context!($callback);
        $crate::__exports_module!($callback);
        $crate::__exports_library!($callback);
        $crate::__exports_graph!($callback);
        $crate::__exports_virtual_memory!($callback);
        $crate::__exports_texture!($callback);
        $crate::__exports_interop!($callback);
    };
}

/// Hands every travelling row of every chapter to a macro.
#[macro_export]
macro_rules! for_each_row {
    ($callback:path) => {
        $crate::__rows_launch!($callback);
        $crate::__rows_copy!($callback);
        $crate::__rows_stream!($callback);
        $crate::__rows_event!($callback);
        $crate::__rows_memory!($callback);
        $crate::__rows_entry!($callback);
        $crate::__rows_device!($callback);
        $crate::__rows_context!($callback);
        $crate::__rows_module!($callback);
        $crate::__rows_library!($callback);
        $crate::__rows_graph!($callback);
        $crate::__rows_virtual_memory!($callback);
        $crate::__rows_texture!($callback);
        $crate::__rows_interop!($callback);
    };
}
