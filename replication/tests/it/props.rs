//! Whatever happens on the way, everybody who wants everything ends with everything.

use std::time::Duration;

use crate::common::{Pair, assert_complete_copy, blocks};
use ferrocore_log::core::Download;
use ferrocore_log::{Core, Corestore};
use proptest::prelude::*;

/// What may happen to a writer, a relay that reads from it, and a reader that knows both.
#[derive(Debug, Clone)]
enum Op {
    Append(usize),
    RelayWants(u64, u64),
    ReaderWants(u64, u64),
    ForgetWants,
    Pause(usize),
    Resume(usize),
    /// The writer keeps so much of its log, of 256 parts.
    Truncate(u8),
    /// The relay or the reader clears ten blocks from here on.
    Clear(usize, u64),
    Step(usize, usize),
    Reconnect(usize),
    LoseFrames(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0..400u64, 1..200u64);
    prop_oneof![
        3 => (1..60usize).prop_map(Op::Append),
        2 => range().prop_map(|(start, length)| Op::RelayWants(start, length)),
        2 => range().prop_map(|(start, length)| Op::ReaderWants(start, length)),
        1 => Just(Op::ForgetWants),
        1 => any::<usize>().prop_map(Op::Pause),
        1 => any::<usize>().prop_map(Op::Resume),
        1 => any::<u8>().prop_map(Op::Truncate),
        1 => (1..3usize, 0..400u64).prop_map(|(copy, start)| Op::Clear(copy, start)),
        8 => (0..3usize, 1..6usize).prop_map(|(pair, times)| Op::Step(pair, times)),
        1 => (0..3usize).prop_map(Op::Reconnect),
        1 => (0..3usize).prop_map(Op::LoseFrames),
        1 => (1..40u64).prop_map(Op::Pass),
    ]
}

struct World {
    stores: [Corestore; 3],
    cores: [Core; 3],
    wants: Vec<Download>,
    /// Writer and relay, relay and reader, writer and reader.
    pairs: [Pair; 3],
}

const ENDS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];

impl World {
    fn new() -> Self {
        let stores = [(); 3].map(|()| Corestore::memory());
        let writer = stores[0].get_named("test").unwrap();
        let relay = stores[1].get(&writer.key()).unwrap();
        let reader = stores[2].get(&writer.key()).unwrap();
        let cores = [writer, relay, reader];
        let pairs = [0, 1, 2].map(|pair| connect(&stores, &cores, pair));
        Self {
            stores,
            cores,
            wants: Vec::new(),
            pairs,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append(count) => {
                self.cores[0].append_batch(blocks(count)).unwrap();
            }
            Op::RelayWants(start, length) => self
                .wants
                .push(self.cores[1].download(start..start + length)),
            Op::ReaderWants(start, length) => self
                .wants
                .push(self.cores[2].download(start..start + length)),
            Op::ForgetWants => self.wants.clear(),
            Op::Pause(want) => self.want(want).iter().for_each(|want| want.pause()),
            Op::Resume(want) => self.want(want).iter().for_each(|want| want.resume()),
            Op::Truncate(part) => {
                let kept = self.cores[0].length() * u64::from(part) / 256;
                self.cores[0].truncate(kept, None).unwrap();
            }
            Op::Clear(copy, start) => {
                let end = self.cores[copy].length().min(start + 10);
                if start < end {
                    self.cores[copy].clear(start..end).unwrap();
                }
            }
            Op::Step(pair, times) => (0..times).for_each(|_| {
                self.pairs[pair].step();
            }),
            Op::Reconnect(pair) => self.pairs[pair] = connect(&self.stores, &self.cores, pair),
            // A stream never loses a part: it breaks, with everything on its way.
            Op::LoseFrames(pair) => {
                self.pairs[pair].a.arriving.clear();
                self.pairs[pair].b.arriving.clear();
                self.pairs[pair] = connect(&self.stores, &self.cores, pair);
            }
            Op::Pass(seconds) => self
                .pairs
                .iter_mut()
                .for_each(|pair| pair.now += Duration::from_secs(seconds)),
        }
    }

    fn want(&self, number: usize) -> Option<&Download> {
        self.wants.get(number % self.wants.len().max(1))
    }

    /// Lets everybody work until nobody has anything left to do, nor waits for a time.
    fn come_to_rest(&mut self) {
        for _ in 0..1000 {
            self.drive();
            let mut is_waiting = false;
            for pair in &mut self.pairs {
                let ends = [&pair.a, &pair.b].into_iter();
                if let Some(next) = ends.filter_map(|end| end.connection.next_timeout()).min() {
                    pair.now = pair.now.max(next);
                    is_waiting = true;
                }
            }
            if !is_waiting {
                return;
            }
        }
        panic!("they wait for ever");
    }

    /// Lets everybody work until nobody has anything left to do.
    fn drive(&mut self) {
        for _ in 0..100_000 {
            if !self
                .pairs
                .iter_mut()
                .fold(false, |moved, pair| pair.step() | moved)
            {
                return;
            }
        }
        panic!("they keep each other busy for ever");
    }
}

fn connect(stores: &[Corestore; 3], cores: &[Core; 3], pair: usize) -> Pair {
    let (a, b) = ENDS[pair];
    let mut pair = Pair::new(&stores[a], &stores[b]);
    pair.b.connection.attach(&cores[b]);
    pair
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copies_become_complete(ops in prop::collection::vec(op(), 0..80)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.wants = vec![world.cores[1].download_all(), world.cores[2].download_all()];
        // Who cut its log to nothing has nothing to show that it did.
        world.apply(Op::Append(1));
        world.come_to_rest();
        let [writer, relay, reader] = &world.cores;
        assert_complete_copy(writer, relay);
        assert_complete_copy(writer, reader);
        for pair in &world.pairs {
            for end in [&pair.a, &pair.b] {
                prop_assert_eq!(end.stats().proofs_refused, 0);
            }
        }
    }
}
