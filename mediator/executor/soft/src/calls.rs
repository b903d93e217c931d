//! The chapters of the call table, as far as this executor does them. What a chapter leaves out is refused by name.

pub(crate) mod array;
pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod event;
pub(crate) mod launch;
pub(crate) mod library;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod occupancy;
pub(crate) mod shape;
pub(crate) mod stream;
pub(crate) mod stream_attribute;
pub(crate) mod virtual_memory;

use cuda_api::calls;

use crate::Soft;

// Devices are known since the session opened: that chapter does not travel.
impl calls::device::Host for Soft {}
// Refused as families: graphs and capture, interoperation.
impl calls::graph::Host for Soft {}
impl calls::interop::Host for Soft {}
