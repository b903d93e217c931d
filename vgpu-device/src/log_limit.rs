//! A guest must not fill the host's log: at most so many lines a second about what it sends.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines that pass in each [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Lets the first few lines of each second pass and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    state: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    passed: u32,
    held: u64,
}

impl LogLimit {
    /// Whether a line may be written now; `Some(n)` also says that `n` lines were held back before it.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut window = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        if window.start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            window.start = Some(now);
            window.passed = 0;
        }
        if window.passed >= LINES {
            window.held = window.held.saturating_add(1);
            return None;
        }
        window.passed = window.passed.saturating_add(1);
        Some(std::mem::take(&mut window.held))
    }
}
