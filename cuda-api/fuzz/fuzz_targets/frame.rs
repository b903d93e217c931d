//! Frames from a guest that means no good. `cargo +nightly fuzz run frame` in `cuda-api`.

#![no_main]

#[path = "../harness.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    harness::frame(data);
});
