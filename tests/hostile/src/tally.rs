//! What came of the cases of a family.

use std::collections::BTreeMap;

/// Cases played, by what came of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub cases: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Notes a case.
    pub fn count(&mut self, outcome: &'static str) {
        self.cases += 1;
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Cases with this outcome.
    #[must_use]
    pub fn of(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }

    /// Adds another family's.
    pub fn add(&mut self, other: &Tally) {
        self.cases += other.cases;
        for (outcome, n) in &other.outcomes {
            *self.outcomes.entry(outcome).or_default() += n;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cases", self.cases)?;
        for (i, (outcome, n)) in self.outcomes.iter().enumerate() {
            write!(f, "{} {n} {outcome}", if i == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}
