//! The interpreter.

pub(crate) mod access;
pub(crate) mod block;
pub(crate) mod code;
pub(crate) mod lanes;
pub(crate) mod launch;
pub(crate) mod memory;
pub(crate) mod print;
pub(crate) mod round;
pub(crate) mod together;
pub(crate) mod warp;
