//! Whole kernels, compiled by NVRTC (see `tests/ptx/README.md`), against results computed here.

// Test values are made to fit.
#![allow(clippy::cast_possible_truncation)]

mod basic;
mod device;
mod float;
mod handwritten;
mod integer;
mod program;
mod shared;
