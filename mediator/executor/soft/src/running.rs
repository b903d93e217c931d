//! Since when launches run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// The launches that run, by numbers that rise.
#[derive(Default)]
pub(crate) struct Running(Mutex<(u64, BTreeMap<u64, Instant>)>);

/// A launch that runs until this is dropped.
pub(crate) struct Run<'a> {
    running: &'a Running,
    number: u64,
}

impl Running {
    /// A launch begins.
    pub(crate) fn begin(&self) -> Run<'_> {
        let mut running = lock(&self.0);
        running.0 = running.0.wrapping_add(1);
        let number = running.0;
        running.1.insert(number, Instant::now());
        Run { running: self, number }
    }

    /// How long the one that has been running longest has been; nothing where none runs.
    pub(crate) fn longest(&self) -> Duration {
        // The lowest number began first.
        lock(&self.0).1.first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        lock(&self.running.0).1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_the_first_that_has_not_ended() {
        let running = Running::default();
        assert_eq!(running.longest(), Duration::ZERO);
        let first = running.begin();
        std::thread::sleep(Duration::from_millis(5));
        let second = running.begin();
        let longest = running.longest();
        assert!(longest >= Duration::from_millis(5));
        drop(first);
        let begun = *lock(&running.0).1.get(&second.number).unwrap();
        assert!(running.longest() <= begun.elapsed());
        drop(second);
        assert_eq!(running.longest(), Duration::ZERO);
    }
}
