//! A bee beside a `BTreeMap`: random operations, alone and in batches, then every version, every
//! kind of range and the history are compared through a bee opened afresh.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use ferrocore_bee::{Bee, Change, Entry, HistoryOptions, Options, RangeOptions};
use ferrocore_log::Corestore;
use pollster::block_on;
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Bytes, Option<Bytes>>;

#[derive(Debug, Clone)]
enum Op {
    Put(u8, Option<u8>),
    Del(u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_version_equals_the_model(batches in vec(vec(op(), 1..40), 1..40)) {
        let (bee, versions) = write(&batches);
        let reopened = reopen(&bee);
        for (version, model) in versions {
            let then = reopened.checkout(version);
            prop_assert_eq!(entries(&then, RangeOptions::default()), model.clone().into_iter().collect::<Vec<_>>());
            for key in (0..=255).map(key) {
                let found = block_on(then.get(&key)).unwrap();
                prop_assert_eq!(found.map(|entry| entry.value), model.get(&key).cloned());
            }
        }
    }

    #[test]
    fn ranges_equal_the_model(
        batches in vec(vec(op(), 1..100), 1..10),
        ranges in vec((bound(), bound(), any::<bool>(), prop::option::of(0usize..20)), 20),
    ) {
        let (bee, mut versions) = write(&batches);
        let (_, model) = versions.pop().unwrap();
        for (lower, upper, reverse, limit) in ranges {
            let (gt, gte) = options_of(&lower);
            let (lt, lte) = options_of(&upper);
            let options = RangeOptions { gt, gte, lt, lte, reverse, limit };
            let expected = range_of(&model, lower, upper, reverse, limit);
            prop_assert_eq!(entries(&bee, options), expected);
        }
    }

    /// Replaying the history, put by put and del by del, gives the map again.
    #[test]
    fn history_replays_to_the_model(batches in vec(vec(op(), 1..2), 1..200)) {
        let (bee, mut versions) = write(&batches);
        let mut replayed = Model::new();
        let mut history = bee.history(HistoryOptions::default());
        while let Some(change) = block_on(history.next()).unwrap() {
            match change {
                Change::Put(Entry { key, value, .. }) => replayed.insert(key, value),
                Change::Del { key, .. } => replayed.remove(&key),
            };
        }
        prop_assert_eq!(replayed, versions.pop().unwrap().1);
    }
}

/// Makes the operations, one core append per inner list, checking what each one returns.
/// Returns the versions in between with what they should hold.
fn write(batches: &[Vec<Op>]) -> (Bee, Vec<(u64, Model)>) {
    let core = Corestore::memory().get_named("bee").unwrap();
    let bee = Bee::new(core, Options::default());
    let mut model = Model::new();
    let mut versions = vec![(1, model.clone())];
    for ops in batches {
        let mut batch = bee.batch();
        for op in ops {
            let (done, expected) = match *op {
                Op::Put(k, None) => {
                    model.insert(key(k), None);
                    (block_on(batch.put_null(key(k))), true)
                }
                Op::Put(k, Some(value)) => {
                    model.insert(key(k), Some(Bytes::from(vec![value])));
                    (block_on(batch.put(key(k), [value])), true)
                }
                Op::Del(k) => {
                    let was_there = model.remove(&key(k)).is_some();
                    (block_on(batch.del(key(k))), was_there)
                }
            };
            assert_eq!(done.unwrap(), expected);
            let (Op::Put(k, _) | Op::Del(k)) = *op;
            let found = block_on(batch.get(key(k))).unwrap();
            assert_eq!(found.map(|entry| entry.value), model.get(&key(k)).cloned());
        }
        block_on(batch.flush()).unwrap();
        versions.push((bee.version(), model.clone()));
    }
    (bee, versions)
}

/// The same core without anything in the cache.
fn reopen(bee: &Bee) -> Bee {
    Bee::new(bee.core().clone(), Options::default())
}

fn entries(bee: &Bee, options: RangeOptions) -> Vec<(Bytes, Option<Bytes>)> {
    let mut range = bee.range(options);
    let mut entries = Vec::new();
    while let Some(entry) = block_on(range.next()).unwrap() {
        entries.push((entry.key, entry.value));
    }
    entries
}

fn range_of(
    model: &Model,
    lower: Bound<Bytes>,
    upper: Bound<Bytes>,
    reverse: bool,
    limit: Option<usize>,
) -> Vec<(Bytes, Option<Bytes>)> {
    let within = |key: &Bytes| {
        let above = match &lower {
            Bound::Included(lower) => key >= lower,
            Bound::Excluded(lower) => key > lower,
            Bound::Unbounded => true,
        };
        let below = match &upper {
            Bound::Included(upper) => key <= upper,
            Bound::Excluded(upper) => key < upper,
            Bound::Unbounded => true,
        };
        above && below
    };
    let mut entries: Vec<_> = model
        .clone()
        .into_iter()
        .filter(|(key, _)| within(key))
        .collect();
    if reverse {
        entries.reverse();
    }
    entries.truncate(limit.unwrap_or(usize::MAX));
    entries
}

fn options_of(bound: &Bound<Bytes>) -> (Option<Bytes>, Option<Bytes>) {
    match bound.clone() {
        Bound::Excluded(key) => (Some(key), None),
        Bound::Included(key) => (None, Some(key)),
        Bound::Unbounded => (None, None),
    }
}

/// Keys of different lengths, one of them empty, some prefixes of others.
fn key(k: u8) -> Bytes {
    Bytes::from(format!("{k:b}").trim_start_matches('0').to_owned())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<(u8, u8)>().prop_map(|(k, value)| Op::Put(k, Some(value))),
        1 => any::<u8>().prop_map(|k| Op::Put(k, None)),
        3 => any::<u8>().prop_map(Op::Del),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Bytes>> {
    prop_oneof![
        2 => any::<u8>().prop_map(|k| Bound::Included(key(k))),
        2 => any::<u8>().prop_map(|k| Bound::Excluded(key(k))),
        1 => Just(Bound::Unbounded),
    ]
}
