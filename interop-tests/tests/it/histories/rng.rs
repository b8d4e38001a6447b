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

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs `round` once for each history, with one seed after the other, and says how many there were.
pub(crate) fn rounds(default: usize, mut round: impl FnMut(u64)) -> usize {
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().expect("the variable is a number"),
        Err(_) => default,
    };
    let first = number("FERROCORE_SEED", 1);
    let count = number("FERROCORE_HISTORIES", default);
    for seed in first..first + count {
        let replay = Replay(seed);
        round(seed as u64);
        drop(replay);
    }
    println!("{count} histories from seed {first}");
    count
}

/// Says how to repeat a history that panics.
struct Replay(usize);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("replay with FERROCORE_SEED={seed} FERROCORE_HISTORIES=1");
        }
    }
}
