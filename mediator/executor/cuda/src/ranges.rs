//! Lists of address ranges that the guest cannot use.

use std::ops::Range;

use cuda_api::CuResult;
use cuda_api::types::CUresult;

/// The guest reserves device addresses in blocks of this size, and clashes by the block. Bytes.
const BLOCK_BYTES: u64 = 2 << 20;
/// Ranges in a list at most.
const RANGES_MAX: usize = 1024;

/// Ranges to keep out of, by the block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Avoid(Vec<Range<u64>>);

impl Avoid {
    /// Reads pairs of (start, length), 8 bytes each.
    pub(crate) fn read(bytes: &[u8]) -> CuResult<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || !words.len().is_multiple_of(2) || words.len() > RANGES_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut ranges = Vec::new();
        while let (Some(start), Some(len)) = (words.next(), words.next()) {
            let end = start.saturating_add(len);
            ranges.push(floor(start)..end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX));
        }
        Ok(Avoid(ranges))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, each whole blocks.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// Anything of `[start, start + len)` lies in a block that is to be kept out of.
    pub(crate) fn meets(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        self.0.iter().any(|range| start < range.end && range.start < end)
    }
}

fn floor(address: u64) -> u64 {
    address & !BLOCK_BYTES.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_avoided_whole() {
        let bytes: Vec<u8> = [0x20_0400u64, 0x100].iter().flat_map(|w| w.to_le_bytes()).collect();
        let avoid = Avoid::read(&bytes).unwrap();
        assert!(avoid.meets(0x20_0000, 1) && avoid.meets(0x3f_ffff, 1) && avoid.meets(0, u64::MAX));
        assert!(!avoid.meets(0x40_0000, 1) && !avoid.meets(0, 0x20_0000));
        assert!(Avoid::read(&[]).unwrap().is_empty());
        assert!(!Avoid::default().meets(0, u64::MAX));
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for len in [1, 8, 24, 8 * (RANGES_MAX + 2)] {
            assert_eq!(Avoid::read(&vec![0; len]), Err(CUresult::INVALID_VALUE), "{len}");
        }
        let far: Vec<u8> = [u64::MAX - 1, u64::MAX].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert!(Avoid::read(&far).unwrap().meets(u64::MAX - 1, 1));
    }
}
