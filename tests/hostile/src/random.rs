//! Numbers that look random and are the same on every run: xorshift64*.

/// A generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// Numbers at which programs go wrong.
pub const EDGES: [u64; 28] = [
    0,
    1,
    2,
    7,
    8,
    63,
    64,
    255,
    4095,
    4096,
    4097,
    0x7fff,
    0xffff,
    0x1_0000,
    0x4_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0x1000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    u64::MAX - 1,
    u64::MAX,
];

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.word() >> 11) % end
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A number that is rather an edge than not.
    pub fn nasty(&mut self) -> u64 {
        match self.below(4) {
            0 => self.word(),
            1 => self.below(1 << 16),
            _ => self.pick(&EDGES).wrapping_add(if self.once_in(4) {
                self.below(17).wrapping_sub(8)
            } else {
                0
            }),
        }
    }

    /// Any bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.word().to_le_bytes()).take(len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b, mut c) = (Random::new(5), Random::new(5), Random::new(6));
        assert_eq!(a.bytes(33), b.bytes(33));
        assert_ne!(a.word(), c.word());
        assert!((0..1000).all(|_| a.below(7) < 7));
    }
}
