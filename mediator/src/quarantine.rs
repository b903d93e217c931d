//! When a VM is refused new sessions: after too many faults of its sessions in too short a time, or because an administrator says so.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::QuarantineRule;

/// Faults whose times are remembered, at most: a rule that allows more in its time is as good as none.
const REMEMBERED_MAX: usize = 4096;

/// That a VM is refused new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    /// Since then, by the host's clock.
    pub since: SystemTime,
    /// Until then; None: until an administrator ends it.
    pub until: Option<SystemTime>,
    /// Faults that have led to it, and those that sessions have had since.
    pub faults: u32,
    /// It was an administrator's wish.
    pub by_hand: bool,
}

/// A point in time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    instant: Instant,
    wall: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}

#[derive(Default)]
struct State {
    /// When sessions have faulted, the earliest first.
    faults: VecDeque<Instant>,
    /// And until when it lasts.
    active: Option<(Quarantine, Option<Instant>)>,
}

/// What decides about a VM.
#[derive(Default)]
pub(crate) struct Quarantines(Mutex<State>);

impl Quarantines {
    fn with<R>(&self, now: Now, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.active.is_some_and(|(_, until)| until.is_some_and(|until| until <= now.instant)) {
            // Forgiven and forgotten.
            *state = State::default();
        }
        work(&mut state)
    }

    /// A session has faulted. Answers the quarantine that begins with it, if one does.
    pub(crate) fn fault(&self, rule: &QuarantineRule, now: Now) -> Option<Quarantine> {
        self.with(now, |state| {
            if let Some((active, _)) = &mut state.active {
                active.faults = active.faults.saturating_add(1);
                return None;
            }
            if rule.faults == 0 {
                state.faults.clear();
                return None;
            }
            state.faults.push_back(now.instant);
            let is_over = |fault: &Instant| now.instant.saturating_duration_since(*fault) > rule.within;
            while state.faults.front().is_some_and(is_over) || state.faults.len() > REMEMBERED_MAX {
                state.faults.pop_front();
            }
            let faults = u32::try_from(state.faults.len()).unwrap_or(u32::MAX);
            (faults > rule.faults).then(|| begin(state, now, rule.lasts, faults, false))
        })
    }

    /// Begins one, or begins it anew.
    pub(crate) fn begin(&self, lasts: Option<Duration>, now: Now) -> Quarantine {
        self.with(now, |state| begin(state, now, lasts, 0, true))
    }

    /// Ends it, and forgets the faults so far. False: there was none.
    pub(crate) fn clear(&self, now: Now) -> bool {
        self.with(now, |state| std::mem::take(state).active.is_some())
    }

    /// What there is now.
    pub(crate) fn current(&self, now: Now) -> Option<Quarantine> {
        self.with(now, |state| state.active.map(|(quarantine, _)| quarantine))
    }
}

fn begin(state: &mut State, now: Now, lasts: Option<Duration>, faults: u32, by_hand: bool) -> Quarantine {
    // A time beyond what clocks can say is for ever.
    let until = lasts.and_then(|lasts| Some((now.instant.checked_add(lasts)?, now.wall.checked_add(lasts)?)));
    let quarantine = Quarantine { since: now.wall, until: until.map(|(_, wall)| wall), faults, by_hand };
    *state = State { faults: VecDeque::new(), active: Some((quarantine, until.map(|(instant, _)| instant))) };
    quarantine
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A clock that stands until it is moved.
    struct Clock(Now);

    impl Clock {
        fn new() -> Self {
            Self(Now::read())
        }

        fn after(&self, time: Duration) -> Now {
            Now { instant: self.0.instant + time, wall: self.0.wall + time }
        }
    }

    fn rule(faults: u32, lasts: Option<Duration>) -> QuarantineRule {
        QuarantineRule { faults, within: 10 * SECOND, lasts }
    }

    #[test]
    fn more_faults_than_allowed_in_the_time_begin_it() {
        let (clock, quarantines) = (Clock::new(), Quarantines::default());
        let rule = rule(2, Some(60 * SECOND));
        assert_eq!(quarantines.fault(&rule, clock.after(SECOND)), None);
        assert_eq!(quarantines.fault(&rule, clock.after(2 * SECOND)), None);
        assert_eq!(quarantines.current(clock.after(3 * SECOND)), None);
        // The first is too long ago by now.
        assert_eq!(quarantines.fault(&rule, clock.after(11 * SECOND + SECOND / 2)), None);
        let begun = quarantines.fault(&rule, clock.after(12 * SECOND)).expect("the third within ten seconds");
        assert_eq!((begun.faults, begun.by_hand), (3, false));
        assert_eq!(begun.since, clock.after(12 * SECOND).wall);
        assert_eq!(begun.until, Some(clock.after(72 * SECOND).wall));
        assert_eq!(quarantines.current(clock.after(71 * SECOND)), Some(begun));
    }

    #[test]
    fn it_ends_by_itself_and_what_was_is_forgotten() {
        let (clock, quarantines) = (Clock::new(), Quarantines::default());
        let rule = rule(1, Some(5 * SECOND));
        assert!(quarantines.fault(&rule, clock.after(SECOND)).is_none());
        assert!(quarantines.fault(&rule, clock.after(SECOND)).is_some());
        // Sessions that are open go on, and may fault.
        assert!(quarantines.fault(&rule, clock.after(2 * SECOND)).is_none());
        assert_eq!(quarantines.current(clock.after(3 * SECOND)).map(|active| active.faults), Some(3));
        assert_eq!(quarantines.current(clock.after(6 * SECOND)), None);
        assert!(quarantines.fault(&rule, clock.after(6 * SECOND)).is_none(), "it begins to count anew");
        assert!(quarantines.fault(&rule, clock.after(6 * SECOND)).is_some());
    }

    #[test]
    fn without_an_end_it_lasts_until_it_is_cleared() {
        let (clock, quarantines) = (Clock::new(), Quarantines::default());
        let rule = rule(1, None);
        assert!(!quarantines.clear(clock.0));
        assert!(quarantines.fault(&rule, clock.0).is_none() && quarantines.fault(&rule, clock.0).is_some());
        assert!(
            quarantines.current(clock.after(1_000_000 * SECOND)).is_some_and(|active| active.until.is_none())
        );
        assert!(quarantines.clear(clock.0));
        assert_eq!(quarantines.current(clock.0), None);
        assert!(quarantines.fault(&rule, clock.0).is_none());
    }

    #[test]
    fn by_hand_it_needs_no_fault_and_no_rule() {
        let (clock, quarantines) = (Clock::new(), Quarantines::default());
        let off = rule(0, None);
        for _ in 0..100 {
            assert_eq!(quarantines.fault(&off, clock.0), None);
        }
        let begun = quarantines.begin(Some(SECOND), clock.0);
        assert!(begun.by_hand && begun.faults == 0);
        assert!(quarantines.current(clock.after(SECOND / 2)).is_some());
        assert_eq!(quarantines.current(clock.after(SECOND)), None);
        // One that would end after the end of time does not end.
        assert_eq!(quarantines.begin(Some(Duration::MAX), clock.0).until, None);
    }

    #[test]
    fn a_fault_long_after_the_rule_was_off_counts_alone() {
        let (clock, quarantines) = (Clock::new(), Quarantines::default());
        assert!(quarantines.fault(&rule(1, None), clock.0).is_none());
        assert!(quarantines.fault(&rule(0, None), clock.0).is_none());
        assert!(quarantines.fault(&rule(1, None), clock.0).is_none());
    }
}
