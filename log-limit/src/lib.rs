//! A guest must not fill the host's log: at most so many lines a second about what it does.
//!
//! [`limited!`] writes a line where its [`LogLimit`] lets it pass, and says how many were held back before it. What it is not: a filter
//! of what a line says. No line carries a tenant's data, limited or not.
//!
//! Invariants
//! - A line that is held back is counted, and the next one that passes says so.
//! - Whatever is logged is written by the caller's module: filters of RUST_LOG mean what they say.
//!
//! | constant | value | unit |
//! |---|---|---|
//! | [`LINES`] | 10 | lines a second, by default |

use std::sync::Mutex;
use std::time::{Duration, Instant};

#[doc(hidden)]
pub use log;

/// Lines that pass in a second where nothing else is said.
pub const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Lets the first few lines of each second pass and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    state: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    start: Option<Instant>,
    passed: u32,
    held: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new(LINES)
    }
}

impl LogLimit {
    /// One that lets so many lines pass in a second.
    pub const fn new(lines: u32) -> Self {
        Self { lines, state: Mutex::new(Window { start: None, passed: 0, held: 0 }) }
    }

    /// Whether a line may be written now; `Some(n)` also says that `n` lines were held back before it.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if window.start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            window.start = Some(now);
            window.passed = 0;
        }
        if window.passed >= self.lines {
            window.held = window.held.saturating_add(1);
            return None;
        }
        window.passed = window.passed.saturating_add(1);
        Some(std::mem::take(&mut window.held))
    }
}

/// Logs a line if a [`LogLimit`] lets it pass: `limited!(limit, warn, "session {id} is refused")`. The level is the name of one of
/// `log`'s macros. The text is made only where the line passes.
#[macro_export]
macro_rules! limited {
    ($limit:expr, $level:ident, $($text:tt)+) => {
        match $limit.pass() {
            None => {}
            Some(0) => $crate::log::$level!($($text)+),
            Some(held) => $crate::log::$level!("{} ({held} such lines held back)", format_args!($($text)+)),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_a_second_pass_and_the_next_says_how_many_did_not() {
        let (limit, start) = (LogLimit::new(3), Instant::now());
        let passed = (0..10).filter(|_| limit.pass_at(start).is_some()).count();
        assert_eq!(passed, 3);
        assert_eq!(limit.pass_at(start + WINDOW / 2), None);
        assert_eq!(limit.pass_at(start + WINDOW), Some(8));
        assert_eq!(limit.pass_at(start + WINDOW), Some(0));
    }
}
