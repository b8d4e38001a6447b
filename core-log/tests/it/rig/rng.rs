//! Chance that a seed repeats.

/// `SplitMix64`: small, and good enough to pick with.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// The number in the environment variable `name`, by which a soak makes a test longer and a
/// failure is replayed.
pub(crate) fn from_env(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("the variable is a number"),
        Err(_) => default,
    }
}

/// Runs `round` with one seed after the other until `wanted` of whatever it counts are done, and
/// returns how many were. `FERROCORE_SEED` says where to begin.
pub(crate) fn rounds(wanted: usize, mut round: impl FnMut(u64) -> usize) -> usize {
    let (mut seed, mut done) = (from_env("FERROCORE_SEED", 1) as u64, 0);
    while done < wanted {
        let replay = Replay(seed);
        done += round(seed);
        drop(replay);
        seed += 1;
    }
    done
}

/// Says how to repeat a round that panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with FERROCORE_SEED={}", self.0);
        }
    }
}
