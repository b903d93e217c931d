//! Numbers that are given out and come back: rings and regions in the local transport, where no kernel numbers them.

/// A set of free numbers below a limit.
#[derive(Debug)]
pub(crate) struct Slots {
    /// A bit per number in use.
    words: Box<[u64]>,
}

impl Slots {
    /// All numbers below `limit`, a multiple of 64.
    pub(crate) fn new(limit: u32) -> Self {
        Self { words: vec![0; limit as usize / 64].into_boxed_slice() }
    }

    /// The lowest free number.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let (index, word) = self.words.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        Some(u32::try_from(index).ok()? * 64 + bit)
    }

    /// Makes a number free again.
    pub(crate) fn give_back(&mut self, number: u32) {
        if let Some(word) = self.words.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_once_and_again_when_it_came_back() {
        let mut slots = Slots::new(128);
        let all: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all, (0..128).collect::<Vec<_>>());
        slots.give_back(77);
        slots.give_back(5);
        assert_eq!((slots.take(), slots.take(), slots.take()), (Some(5), Some(77), None));
    }
}
