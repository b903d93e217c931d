//! What was refused, once by name, and why no device was found: on stderr, where `VGPU_LOG` is set, as libcuda does it.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// `VGPU_LOG` is set to something other than 0.
fn enabled() -> bool {
    std::env::var_os("VGPU_LOG").is_some_and(|v| v != "0" && !v.is_empty())
}

/// Says something.
pub fn say(message: impl FnOnce() -> String) {
    if enabled() {
        // A program may have closed its stderr: then nobody listens.
        let _ = writeln!(std::io::stderr(), "vgpu: {}", message());
    }
}

/// Says something the first time that `said` is asked for.
pub fn once(said: &AtomicBool, message: impl FnOnce() -> String) {
    if !said.swap(true, Ordering::Relaxed) {
        say(message);
    }
}
