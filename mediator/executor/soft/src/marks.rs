//! How far the streams have come: marks behind all the work that there is at a time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::lock::lock;
use crate::streams::Point;

#[derive(Default)]
struct State {
    next: u64,
    marks: BTreeMap<u64, Vec<Point>>,
}

/// A session's marks that have not passed.
#[derive(Default)]
pub(crate) struct Marks(Mutex<State>);

impl Marks {
    /// A mark behind these points; its number.
    pub(crate) fn set(&self, points: Vec<Point>) -> u64 {
        let mut state = lock(&self.0);
        state.next = state.next.saturating_add(1);
        let number = state.next;
        state.marks.insert(number, points);
        number
    }

    /// Whether the streams have come to a mark; once they have, it is forgotten.
    pub(crate) fn passed(&self, number: u64, reached: impl Fn(&Point) -> bool) -> bool {
        let mut state = lock(&self.0);
        let passed = state.marks.get(&number).is_none_or(|points| points.iter().all(reached));
        if passed {
            state.marks.remove(&number);
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_passes_when_all_before_it_is_over() {
        let marks = Marks::default();
        assert!(marks.passed(7, |_| false), "there is no such mark");
        let empty = marks.set(Vec::new());
        assert!(marks.passed(empty, |_| false));
        assert_ne!(marks.set(Vec::new()), empty);
    }
}
