//! Control messages in any order, from a driver that means no good. `cargo +nightly fuzz run control` in `vgpu-device`.

#![no_main]

#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    harness::run(data);
});
