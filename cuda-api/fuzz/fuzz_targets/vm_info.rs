//! The information blob, as libcuda reads it. `cargo +nightly fuzz run vm_info` in `cuda-api`.

#![no_main]

#[path = "../harness.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    harness::vm_info(data);
});
