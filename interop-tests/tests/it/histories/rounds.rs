//! Many histories, each of which its seed repeats.

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
