//! Whose turn it is: decisions from numbers alone.
//!
//! Turns are given out by weighted fair queueing. A VM's *virtual time* is the device time that it has had, divided by its weight: among
//! those that want the device with the highest priority, the one with the least virtual time is next.
//!
//! Times are nanoseconds of the host's monotonic clock, virtual times nanoseconds for each unit of weight.

/// A turn's length for a VM with the largest weight of those that want the device.
pub(crate) const QUANTUM_NS: u64 = 30_000_000;
/// No turn is cut shorter than this for another VM of the same priority.
pub(crate) const TURN_MIN_NS: u64 = 5_000_000;
/// Work that may be unfinished at any time in a turn, in device time.
pub(crate) const UNFINISHED_MIN_NS: u64 = 4_000_000;
/// Nor shorter than this for one of a higher priority.
const TURN_URGENT_NS: u64 = 500_000;
/// Whoever wants the device for so long without having had it gets a short turn, whatever the others' priorities.
const STARVED_NS: u64 = 1_000_000_000;
/// A VM that is behind its share is waited for so long when it has nothing to do for a moment.
pub(crate) const EXPECTED_NS: u64 = 1_000_000;
/// A VM that comes back has at most so much of its share left over, in device time.
const LEFT_OVER_NS: u64 = 300_000_000;

/// A VM as the policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tenant {
    /// Its slot in the table.
    pub(crate) slot: u32,
    /// 1 to 100.
    pub(crate) weight: u32,
    /// A `PRIORITY_` value.
    pub(crate) priority: u32,
    /// Its virtual time.
    pub(crate) virtual_ns: u64,
    /// Since when it wants the device, or when its last turn ended, whichever is later.
    pub(crate) waiting_since_ns: u64,
}

impl Tenant {
    /// Its virtual time once it has had the device for so long.
    pub(crate) fn after(&self, had_ns: u64) -> u64 {
        self.virtual_ns.saturating_add(per_weight(had_ns, self.weight))
    }

    fn is_starved(&self, now: u64) -> bool {
        now.saturating_sub(self.waiting_since_ns) >= STARVED_NS
    }
}

/// Device time as virtual time.
pub(crate) fn per_weight(ns: u64, weight: u32) -> u64 {
    ns.checked_div(u64::from(weight)).unwrap_or(ns)
}

/// The virtual time with which a VM comes back that wanted nothing for a while: what it did not use is not saved up for ever.
pub(crate) fn on_return(virtual_ns: u64, weight: u32, clock_ns: u64) -> u64 {
    virtual_ns.max(clock_ns.saturating_sub(per_weight(LEFT_OVER_NS, weight)))
}

/// Who is next of those that want the device.
pub(crate) fn next(now: u64, wanting: &[Tenant]) -> Option<Tenant> {
    let starved =
        wanting.iter().filter(|tenant| tenant.is_starved(now)).min_by_key(|tenant| tenant.waiting_since_ns);
    starved
        .or_else(|| {
            wanting.iter().min_by_key(|tenant| {
                (std::cmp::Reverse(tenant.priority), tenant.virtual_ns, tenant.waiting_since_ns)
            })
        })
        .copied()
}

/// Whether the turn of `holder`, which has had the device for `had_ns`, is over for one of those that want it.
pub(crate) fn is_over(now: u64, holder: &Tenant, had_ns: u64, others: &[Tenant]) -> bool {
    let heaviest = others.iter().map(|tenant| tenant.weight).fold(holder.weight, u32::max);
    let quantum = turn_ns(holder.weight, heaviest);
    let ends_for = |other: &Tenant| {
        if other.priority > holder.priority && !holder.is_starved(now.saturating_sub(had_ns)) {
            return had_ns >= TURN_URGENT_NS;
        }
        if had_ns < TURN_MIN_NS {
            return false;
        }
        if other.is_starved(now) {
            return true;
        }
        let ahead = holder.after(had_ns).saturating_sub(other.virtual_ns);
        other.priority > holder.priority
            || other.priority == holder.priority && ahead >= per_weight(quantum, holder.weight)
    };
    others.iter().any(ends_for)
}

/// How much work may be unfinished in a turn that has lasted for `had_ns`: much while the turn is young, so that a row of short kernels among
/// long ones does not leave the device with nothing to do; little towards its end, and always where somebody with a higher priority may come.
pub(crate) fn unfinished_ns(holder: &Tenant, had_ns: u64, wanting: &[Tenant], highest: u32) -> u64 {
    if highest > holder.priority {
        return UNFINISHED_MIN_NS;
    }
    let heaviest = wanting.iter().map(|tenant| tenant.weight).fold(holder.weight, u32::max);
    let left = turn_ns(holder.weight, heaviest).saturating_sub(had_ns);
    (left >> 1).max(UNFINISHED_MIN_NS)
}

/// How long a turn is of a VM with this weight, where the largest weight is `heaviest`: short for a small share, so that the others do not
/// wait long for it.
fn turn_ns(weight: u32, heaviest: u32) -> u64 {
    let part = QUANTUM_NS.saturating_mul(u64::from(weight)).checked_div(u64::from(heaviest.max(1)));
    part.unwrap_or(QUANTUM_NS).max(TURN_MIN_NS)
}

/// Whether the holder, which has nothing to do just now, is waited for a moment: it is behind its share, compared with each of the others.
pub(crate) fn is_expected(holder: &Tenant, had_ns: u64, others: &[Tenant]) -> bool {
    others.iter().all(|other| other.priority <= holder.priority && holder.after(had_ns) < other.virtual_ns)
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)] // a test's
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn much_may_be_unfinished_in_a_young_turn_and_little_where_somebody_may_come_before() {
        let holder = Tenant { weight: 10, priority: 1, ..Tenant::default() };
        let heavier = Tenant { weight: 30, priority: 1, ..Tenant::default() };
        let of = |had, wanting: &[Tenant], highest| unfinished_ns(&holder, had, wanting, highest) / MS;
        assert_eq!([0, 10 * MS, 25 * MS, 90 * MS].map(|had| of(had, &[holder], 1)), [15, 10, 4, 4]);
        assert_eq!((of(0, &[heavier], 1), of(0, &[holder], 2)), (5, 4));
    }

    /// Plays tenants that always want the device, or want it for `work` and then nothing for `gap`; what each gets in a time.
    fn play(mut tenants: Vec<(Tenant, Option<(u64, u64)>)>, span: u64) -> Vec<u64> {
        let mut had = vec![0u64; tenants.len()];
        // Work left before the gap, and when the gap ends.
        let mut state: Vec<(u64, u64)> =
            tenants.iter().map(|(_, cycle)| (cycle.map_or(u64::MAX, |(work, _)| work), 0)).collect();
        let (mut now, step) = (MS, 100_000u64);
        let mut holder: Option<(usize, u64)> = None;
        while now < span {
            let wants = |state: &[(u64, u64)], i: usize| state[i].1 <= now;
            let others = |tenants: &[(Tenant, Option<(u64, u64)>)], state: &[(u64, u64)], not: usize| {
                (0..tenants.len())
                    .filter(|i| *i != not && wants(state, *i))
                    .map(|i| tenants[i].0)
                    .collect::<Vec<_>>()
            };
            if let Some((i, turn)) = holder {
                let waiting = others(&tenants, &state, i);
                let ends = is_over(now, &tenants[i].0, turn, &waiting) || !wants(&state, i);
                if ends {
                    tenants[i].0.virtual_ns = tenants[i].0.after(turn);
                    tenants[i].0.waiting_since_ns = now;
                    holder = None;
                }
            }
            if holder.is_none() {
                holder = next(now, &others(&tenants, &state, usize::MAX)).map(|t| (t.slot as usize, 0));
            }
            if let Some((i, turn)) = &mut holder {
                *turn += step;
                had[*i] += step;
                state[*i].0 = state[*i].0.saturating_sub(step);
                if let (0, Some((work, gap))) = (state[*i].0, tenants[*i].1) {
                    state[*i] = (work, now + gap);
                }
            }
            now += step;
        }
        had
    }

    fn tenant(slot: u32, weight: u32, priority: u32) -> Tenant {
        Tenant { slot, weight, priority, ..Tenant::default() }
    }

    fn percent(had: &[u64]) -> Vec<u64> {
        let sum: u64 = had.iter().sum();
        had.iter().map(|ns| (ns * 1000 / sum + 5) / 10).collect()
    }

    #[test]
    fn device_time_follows_the_weights() {
        let all = |weights: &[u32]| {
            weights.iter().zip(0..).map(|(w, slot)| (tenant(slot, *w, 1), None)).collect::<Vec<_>>()
        };
        assert_eq!(percent(&play(all(&[10, 10, 10, 10]), 30_000 * MS)), [25, 25, 25, 25]);
        assert_eq!(percent(&play(all(&[10, 90]), 30_000 * MS)), [10, 90]);
        assert_eq!(percent(&play(all(&[25, 75]), 30_000 * MS)), [25, 75]);
        assert_eq!(percent(&play(all(&[1, 99]), 30_000 * MS)), [1, 99]);
    }

    #[test]
    fn short_gaps_do_not_cost_the_share() {
        // Steps of 20 ms with 0.4 ms between them, beside one that always wants the device.
        let tenants = vec![(tenant(0, 50, 1), Some((20 * MS, 400_000))), (tenant(1, 50, 1), None)];
        let got = percent(&play(tenants, 30_000 * MS));
        assert!((48..=52).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn what_nobody_else_wants_goes_to_the_rest() {
        // One wants a millisecond in each ten, the other the rest.
        let tenants = vec![(tenant(0, 90, 1), Some((MS, 9 * MS))), (tenant(1, 10, 1), None)];
        let got = play(tenants, 10_000 * MS);
        assert!(got.iter().sum::<u64>() >= 9_990 * MS, "{got:?}");
        assert!(got[0] > 500 * MS, "{got:?}");
    }

    #[test]
    fn priority_goes_first_and_nobody_starves() {
        let high_and_low = vec![(tenant(0, 10, 2), None), (tenant(1, 90, 0), None)];
        let got = play(high_and_low, 20_000 * MS);
        assert!(got[1] > 50 * MS && got[1] < 400 * MS, "{got:?}");
        let (high, low) = (tenant(0, 10, 2), tenant(1, 10, 0));
        assert!(is_over(MS, &low, TURN_URGENT_NS, &[high]));
        assert!(!is_over(MS, &high, 900 * MS, &[Tenant { waiting_since_ns: MS, ..low }]));
    }

    #[test]
    fn who_comes_back_has_no_old_claims_and_is_waited_for_only_when_behind() {
        assert_eq!(on_return(5, 10, 10_000 * MS), 10_000 * MS - 30 * MS);
        assert_eq!(on_return(9_999 * MS, 10, 10_000 * MS), 9_999 * MS);
        let behind = Tenant { virtual_ns: MS, ..tenant(0, 10, 1) };
        let ahead = Tenant { virtual_ns: 9 * MS, ..tenant(1, 10, 1) };
        assert!(is_expected(&behind, MS, &[ahead]));
        assert!(!is_expected(&ahead, MS, &[behind]));
        assert!(!is_expected(&behind, MS, &[Tenant { priority: 2, ..ahead }]));
    }
}
