//! The chapters of the call table. What a chapter leaves out is refused by name.

pub(crate) mod array;
pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod copy_shape;
pub(crate) mod event;
pub(crate) mod graph;
pub(crate) mod green;
pub(crate) mod ipc;
pub(crate) mod launch;
pub(crate) mod library;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod names;
pub(crate) mod pools;
pub(crate) mod stream;
pub(crate) mod tensor_map;
pub(crate) mod texture;
pub(crate) mod virtual_memory;

use cuda_api::calls;

use crate::Cuda;

// Devices are known since the session opened: the chapter does not travel.
impl calls::device::Host for Cuda {}
