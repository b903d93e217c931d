//! The little that this library says, on stderr, and only when `VGPU_LOG` is set: what was refused, and what went wrong. Programs can
//! ask for it, too ([`crate::logs`]).

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock};

/// `VGPU_LOG` is set to something other than 0.
pub fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| std::env::var_os("VGPU_LOG").is_some_and(|v| v != "0" && !v.is_empty()))
}

/// Says something once per key.
pub fn once(key: &'static str, message: impl FnOnce() -> String) {
    static SAID: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let said = SAID.get_or_init(|| Mutex::new(HashSet::new()));
    let first = said.lock().unwrap_or_else(|e| e.into_inner()).insert(key);
    if first {
        say(message);
    }
}

/// Says something each time.
pub fn say(message: impl FnOnce() -> String) {
    let message = message();
    if enabled() {
        write(&message);
    }
    crate::logs::note(&message);
}

fn write(message: &str) {
    // A program may have closed its stderr: then nobody listens.
    let _ = writeln!(std::io::stderr(), "vgpu: {message}");
}
