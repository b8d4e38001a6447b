//! Goal: what was once found stays found, and inputs near to it do no harm, with the compiler
//! that everybody has.
//! Method: every target takes the seeds, the committed corpus, and `FERROCORE_FUZZ` mutations of
//! them; each input's memory is measured. `FERROCORE_FUZZ_TARGET` chooses the targets whose name
//! contains it. A failure prints the input, and the seed, which `FERROCORE_SEED` takes.

use std::alloc::System;
use std::time::Instant;

use cap::Cap;
use ferrocore_fuzz::{TARGETS, Target, corpus, seeds};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Mutated inputs for each target.
const MUTATIONS: u64 = 1_500;

/// What an input of this length may have allocated at once, in bytes: files of cores in memory
/// are up to 4 MiB each, of which copies are made.
fn memory_max(input_len: usize) -> usize {
    (32 << 20) + 1024 * input_len
}

/// One test, for nothing else may allocate meanwhile.
#[test]
fn known_inputs_and_those_near_them_do_no_harm() {
    let seed = number_from_env("FERROCORE_SEED", 1);
    let mutations = number_from_env("FERROCORE_FUZZ", MUTATIONS);
    let seeds = seeds::seeds();
    let only = std::env::var("FERROCORE_FUZZ_TARGET").unwrap_or_default();
    for target in TARGETS.iter().filter(|target| target.name.contains(&only)) {
        let start = Instant::now();
        let of_target = seeds.iter().filter(|(name, _)| *name == target.name);
        let mut known: Vec<Vec<u8>> = of_target.map(|(_, input)| input.clone()).collect();
        known.extend(corpus::read(target.name).unwrap());
        assert!(
            !known.is_empty(),
            "{} has something to start from",
            target.name
        );
        known.iter().for_each(|input| run(target, input, 0));
        let mut rng = Rng(seed);
        for _ in 0..mutations {
            let seed = rng.0;
            let mut input = rng.pick(&known).clone();
            for _ in 0..=rng.below(4) {
                mutate(&mut input, &mut rng, &known);
            }
            run(target, &input, seed);
        }
        let (known, took) = (known.len(), start.elapsed());
        println!(
            "{}: {known} known and {mutations} mutated inputs, {took:.1?}",
            target.name
        );
    }
}

/// Runs the target and checks its memory. Says what to do about a panic.
fn run(target: &Target, input: &[u8], seed: u64) {
    let replay = Replay {
        target: target.name,
        input,
        seed,
    };
    let before = ALLOCATOR.allocated();
    let highest_before = ALLOCATOR.max_allocated();
    (target.run)(input);
    let highest = ALLOCATOR.max_allocated();
    let used = highest.saturating_sub(before);
    // The record says something about this input only if it was just set.
    let is_bounded = highest == highest_before || used <= memory_max(input.len());
    assert!(is_bounded, "{used} bytes for an input of {}", input.len());
    drop(replay);
}

struct Replay<'a> {
    target: &'static str,
    input: &'a [u8],
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self {
                target,
                input,
                seed,
            } = self;
            eprintln!("{target}: seed {seed}, input {input:?}");
        }
    }
}

/// Changes, inserts, removes or copies a few bytes.
fn mutate(input: &mut Vec<u8>, rng: &mut Rng, known: &[Vec<u8>]) {
    let at = rng.below(input.len() + 1);
    match rng.below(8) {
        0 => input.truncate(at),
        1 => input.insert(at, rng.next() as u8),
        2 => {
            let other = rng.pick(known);
            let start = rng.below(other.len() + 1);
            let len = rng.below(32).min(other.len() - start);
            input.splice(at..at, other[start..start + len].iter().copied());
        }
        3 => {
            let len = rng.below(8).min(input.len() - at);
            input.drain(at..at + len);
        }
        _ if at == input.len() => {}
        4 => input[at] = [0, 1, 0x7f, 0x80, 0xfc, 0xfd, 0xfe, 0xff][rng.below(8)],
        5 => input[at] = rng.next() as u8,
        6 => input[at] = input[at].wrapping_add(1),
        _ => input[at] ^= 1 << rng.below(8),
    }
    input.truncate(corpus::INPUT_BYTES_MAX * 4);
}

/// `SplitMix64`.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a>(&mut self, from: &'a [Vec<u8>]) -> &'a Vec<u8> {
        &from[self.below(from.len())]
    }
}

fn number_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("the variable is a number"),
        Err(_) => default,
    }
}
