//! Choices that need not be secret: who is dialled first, how long a pause is.
//! Knows SplitMix64. Does not know where its seed comes from, so that a test can replay a run.

use std::time::Duration;

/// A seeded generator (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, or zero if that is zero. The bias is at most `bound` in 2^64.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Between nothing and `longest`.
    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        longest.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_below_it() {
        let mut rng = Rng::new(1);
        let mut seen = [0_u32; 5];
        for _ in 0..1000 {
            seen[rng.below(5)] += 1;
        }
        assert!(seen.iter().all(|times| *times > 100), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert!(rng.up_to(Duration::from_secs(1)) < Duration::from_secs(1));
    }
}
