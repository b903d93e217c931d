//! Warp operations: shuffles, votes, matches, reductions.

use crate::run::code::{Ins, NONE, Reduce, Shuffle, Together, Vote};
use crate::run::lanes::{Frame, Lanes};

/// What each lane brings to a warp operation.
pub(crate) struct Brought {
    /// The lane mask each lane named, itself included.
    pub(crate) member: [u32; 32],
    value: [u64; 32],
    b: [u32; 32],
    c: [u32; 32],
}

impl Brought {
    pub(crate) fn new() -> Self {
        Brought { member: [0; 32], value: [0; 32], b: [0; 32], c: [0; 32] }
    }

    /// Reads what the lanes of `mask` bring.
    pub(crate) fn gather(&mut self, op: Together, f: &Frame, i: &Ins, mask: u32) {
        let row = |r: u32, lane: usize| f.words::<u32>(r)[lane];
        for lane in Lanes(mask) {
            self.member[lane] = if i.r[5] == NONE { mask } else { row(i.r[5], lane) | 1 << lane };
            match op {
                Together::Sync => {}
                Together::Shuffle(_) => {
                    self.value[lane] = row(i.r[2], lane).into();
                    self.b[lane] = row(i.r[3], lane);
                    self.c[lane] = row(i.r[4], lane);
                }
                Together::Vote(_) => {
                    let held = f.pred(i.r[2]) >> lane & 1;
                    self.value[lane] = u64::from(held) ^ (i.imm & 1);
                }
                Together::Match { wide: true, .. } => self.value[lane] = f.words::<u64>(i.r[2])[lane],
                Together::Match { .. } | Together::Reduce(_) => self.value[lane] = row(i.r[2], lane).into(),
            }
        }
    }

    /// Writes the outcome for the lanes of `mask`; `present` are the lanes that take part.
    pub(crate) fn scatter(&self, op: Together, f: &mut Frame, i: &Ins, mask: u32, present: u32) {
        for lane in Lanes(mask) {
            let group = self.member[lane] & present;
            let (value, held) = self.outcome(op, lane, group);
            if i.r[0] != NONE {
                f.words_mut::<u32>(i.r[0])[lane] = value;
            }
            if i.r[1] != NONE {
                f.set_pred(i.r[1], 1 << lane, if held { u32::MAX } else { 0 });
            }
        }
    }

    fn outcome(&self, op: Together, lane: usize, group: u32) -> (u32, bool) {
        let low = |k: usize| self.value[k] as u32;
        let count = |group: u32| Lanes(group).filter(|&k| self.value[k] & 1 == 1).count() as u32;
        match op {
            Together::Sync => (0, false),
            Together::Shuffle(mode) => {
                let (source, inside) = shuffle_source(mode, lane as u32, self.b[lane], self.c[lane]);
                // A source that takes no part leaves the result undefined: the lane keeps its own value.
                let from = if inside && group >> source & 1 == 1 { source as usize } else { lane };
                (low(from), inside)
            }
            Together::Vote(vote) => {
                let held = count(group);
                match vote {
                    Vote::All => (0, held == group.count_ones()),
                    Vote::Any => (0, held > 0),
                    Vote::Uniform => (0, held == 0 || held == group.count_ones()),
                    Vote::Ballot => (
                        Lanes(group).filter(|&k| self.value[k] & 1 == 1).fold(0, |m, k| m | 1 << k),
                        held > 0,
                    ),
                }
            }
            Together::Match { all, .. } => {
                let equal =
                    Lanes(group).filter(|&k| self.value[k] == self.value[lane]).fold(0u32, |m, k| m | 1 << k);
                if !all {
                    (equal, false)
                } else if equal == group {
                    (group, true)
                } else {
                    (0, false)
                }
            }
            Together::Reduce(reduce) => {
                let fold = |f: fn(u32, u32) -> u32| Lanes(group).map(low).reduce(f).unwrap_or(0);
                let value = match reduce {
                    Reduce::Add => fold(u32::wrapping_add),
                    Reduce::And => fold(|a, b| a & b),
                    Reduce::Or => fold(|a, b| a | b),
                    Reduce::Xor => fold(|a, b| a ^ b),
                    Reduce::MinU => fold(u32::min),
                    Reduce::MaxU => fold(u32::max),
                    Reduce::MinS => fold(|a, b| (a as i32).min(b as i32) as u32),
                    Reduce::MaxS => fold(|a, b| (a as i32).max(b as i32) as u32),
                };
                (value, false)
            }
        }
    }
}

/// The lane to read and whether it lies in the segment, as PTX defines `shfl`.
fn shuffle_source(mode: Shuffle, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let max_lane = (lane & segment) | (clamp & !segment);
    let min_lane = lane & segment;
    let (source, inside) = match mode {
        Shuffle::Up => (lane.wrapping_sub(b), i64::from(lane) - i64::from(b) >= i64::from(max_lane)),
        Shuffle::Down => (lane + b, lane + b <= max_lane),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= max_lane),
        Shuffle::Index => {
            let source = min_lane | (b & !segment);
            (source, source <= max_lane)
        }
    };
    if inside { (source & 31, true) } else { (lane, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_segments() {
        // __shfl_down with width 16: c = ((32 - 16) << 8) | 31.
        let c = 16 << 8 | 31;
        assert_eq!(shuffle_source(Shuffle::Down, 3, 3, c), (6, true));
        assert_eq!(shuffle_source(Shuffle::Down, 14, 3, c), (14, false));
        assert_eq!(shuffle_source(Shuffle::Down, 20, 3, c), (23, true));
        // __shfl_up with width 32: c = 0.
        assert_eq!(shuffle_source(Shuffle::Up, 1, 2, 0), (1, false));
        assert_eq!(shuffle_source(Shuffle::Up, 2, 2, 0), (0, true));
        // __shfl with width 8: c = ((32 - 8) << 8) | 31.
        assert_eq!(shuffle_source(Shuffle::Index, 17, 11, 24 << 8 | 31), (19, true));
        assert_eq!(shuffle_source(Shuffle::Butterfly, 9, 4, 31), (13, true));
    }
}
