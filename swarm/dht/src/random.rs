//! Randomness for a state machine: one seed in, as many numbers as it takes out.
//! Knows how to stretch a seed (BLAKE2b, keyed by it, over a counter). Does not know where seeds come from: a driver
//! asks the operating system, a test counts.

use ferrocore_primitives::hash::keyed;

/// A generator that nobody without the seed can predict; equal seeds give equal numbers. Not printed.
pub struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    /// A generator.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// 32 random bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        keyed(&self.seed, &[&self.counter.to_le_bytes()]).into()
    }

    /// A random number.
    pub fn u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// A random number below `bound`; 0 if that is 0. The bias is below `bound` in 2^64.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        let number = self.u64().checked_rem(bound).unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_numbers_differ() {
        let mut one = Random::new([1; 32]);
        let mut same = Random::new([1; 32]);
        let mut other = Random::new([2; 32]);
        let first = one.u64();
        assert_eq!(first, same.u64());
        assert_ne!(first, other.u64());
        assert_ne!(first, one.u64());
        assert!((0..100).all(|_| one.below(3) < 3));
        assert_eq!(one.below(0), 0);
    }
}
