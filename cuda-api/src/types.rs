//! CUDA's own names and numbers (CUDA Driver API 13.0): results, handles and the structures that travel. Facts of an
//! interface, written from its documentation; no header text.

mod copy;
mod device;
mod handle;
mod result;
mod structs;

pub use copy::*;
pub use device::*;
pub use handle::*;
pub use result::*;
pub use structs::*;
