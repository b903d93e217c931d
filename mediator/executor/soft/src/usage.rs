//! Who is using memory right now. Whoever follows an address holds a [`Use`] meanwhile; whoever takes memory away first
//! takes it out of the map, so that nobody finds it any more, and then waits here for those who already had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::lock::{lock, wait, wait_for};

/// The pinned regions that one use has found so far, by their first address.
#[derive(Default)]
pub(crate) struct Touched(Mutex<BTreeSet<u64>>);

impl Touched {
    pub(crate) fn add(&self, region: u64) {
        lock(&self.0).insert(region);
    }
}

#[derive(Default)]
struct Active {
    next: u64,
    uses: BTreeMap<u64, Arc<Touched>>,
    waiters: u32,
}

/// All uses.
#[derive(Default)]
pub(crate) struct Usage {
    active: Mutex<Active>,
    ended: Condvar,
}

/// A use under way.
pub(crate) struct Use<'a> {
    usage: &'a Usage,
    number: u64,
    touched: Arc<Touched>,
}

impl Use<'_> {
    pub(crate) fn touched(&self) -> &Touched {
        &self.touched
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut active = lock(&self.usage.active);
        active.uses.remove(&self.number);
        if active.waiters != 0 {
            self.usage.ended.notify_all();
        }
    }
}

impl Usage {
    pub(crate) fn enter(&self) -> Use<'_> {
        let mut active = lock(&self.active);
        let number = active.next;
        active.next = number.wrapping_add(1);
        let touched = Arc::new(Touched::default());
        active.uses.insert(number, touched.clone());
        Use { usage: self, number, touched }
    }

    /// Nobody uses memory.
    pub(crate) fn idle(&self) -> bool {
        lock(&self.active).uses.is_empty()
    }

    /// Waits until every use that has begun by now has ended.
    pub(crate) fn wait_all(&self) {
        let mut active = lock(&self.active);
        let now = active.next;
        active.waiters = active.waiters.saturating_add(1);
        while active.uses.first_key_value().is_some_and(|(number, _)| *number < now) {
            active = wait(&self.ended, active);
        }
        active.waiters = active.waiters.saturating_sub(1);
    }

    /// Waits until no use has one of these regions. `false`: `until` came first.
    pub(crate) fn wait_touching(&self, regions: &[u64], until: Option<Instant>) -> bool {
        let mut active = lock(&self.active);
        active.waiters = active.waiters.saturating_add(1);
        let touching = |uses: &BTreeMap<u64, Arc<Touched>>| {
            uses.values().any(|t| regions.iter().any(|r| lock(&t.0).contains(r)))
        };
        let mut over = true;
        while touching(&active.uses) {
            active = match until {
                None => wait(&self.ended, active),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        over = false;
                        break;
                    }
                    wait_for(&self.ended, active, left)
                }
            };
        }
        active.waiters = active.waiters.saturating_sub(1);
        over
    }
}
