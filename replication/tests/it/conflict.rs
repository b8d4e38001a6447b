//! Goal: two histories signed with one key are found wherever their holders meet, and both sides stop.
//! Method: writers with one secret in stores of their own; readers that follow one of them meet the
//! other, or its readers; and peers that merely lie are given up as before.

use crate::common::{Pair, assert_complete_copy, blocks};
use bytes::Bytes;
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore};
use ferrocore_primitives::sign::KeyPair;

/// A writer of `length` blocks, of which those from `parting` on are its own.
fn writer(tag: &str, parting: usize, length: usize) -> (Corestore, Core) {
    let store = Corestore::memory();
    let options = CoreOptions {
        key_pair: Some(KeyPair::from_seed(&[1; 32])),
        ..CoreOptions::default()
    };
    let core = store.get_with(options).unwrap();
    core.append_batch(blocks(parting)).unwrap();
    let own = (parting..length).map(|i| Bytes::from(format!("{tag} {i}")));
    core.append_batch(own.collect()).unwrap();
    (store, core)
}

/// A reader that has all of `core`.
fn reader_of(store: &Corestore, core: &Core) -> (Corestore, Core) {
    let there = Corestore::memory();
    let reader = there.get(&core.key()).unwrap();
    meet(store, &there, &reader);
    assert_complete_copy(core, &reader);
    (there, reader)
}

/// Connects two stores, of which the second wants all of `reader`, until nothing is left to do.
fn meet(here: &Corestore, there: &Corestore, reader: &Core) -> Pair {
    let mut pair = Pair::new(here, there);
    let _all = reader.download_all();
    pair.b.connection.attach(reader);
    pair.drive();
    pair
}

fn assert_frozen(core: &Core) {
    let conflict = core.conflict().expect("it was shown another history");
    conflict.verify(&core.key()).unwrap();
    let refused = core.append("more");
    assert!(
        matches!(
            refused,
            Err(CoreError::Conflict { .. } | CoreError::NotWritable { .. })
        ),
        "{refused:?}"
    );
}

#[test]
fn a_reader_that_meets_the_other_writer_stops_both() {
    for (ours, theirs) in [(5, 7), (5, 6), (9, 20), (3, 300)] {
        let (here, one) = writer("ours", 2, ours);
        let (there, reader) = reader_of(&here, &one);
        let (elsewhere, other) = writer("theirs", 2, theirs);
        let pair = meet(&elsewhere, &there, &reader);
        assert_frozen(&reader);
        assert_frozen(&other);
        assert_eq!(reader.length(), ours as u64);
        assert_eq!(pair.b.stats().proofs_refused, 1);
        // The first writer learns of it from its reader.
        drop(pair);
        assert!(one.conflict().is_none());
        one.append("goes on").unwrap();
        meet(&here, &elsewhere, &other);
        assert_frozen(&one);
    }
}

/// Goal: a conflict goes on to those who never meet the other history: they freeze, with evidence that holds for anybody.
/// Method: a relay that reads of one writer between it and a reader of the other, all connected at once; and then somebody who
/// knows only the relay.
#[test]
fn a_conflict_is_relayed_to_whoever_meets_only_the_relay() {
    for (ours, theirs) in [(5, 7), (9, 6)] {
        let (here, one) = writer("ours", 2, ours);
        let (there, relay) = reader_of(&here, &one);
        let (late_store, late) = reader_of(&here, &one);
        let (elsewhere, other) = writer("theirs", 2, theirs);
        let (far, reader) = reader_of(&elsewhere, &other);

        let mut to_writer = Pair::new(&here, &there);
        to_writer.b.connection.attach(&relay);
        to_writer.drive();
        let mut to_reader = Pair::new(&far, &there);
        to_reader.b.connection.attach(&relay);
        while to_reader.step() || to_writer.step() {}
        for core in [&relay, &reader, &one] {
            assert_frozen(core);
        }
        assert!(late.conflict().is_none() && other.conflict().is_none());

        meet(&there, &late_store, &late);
        assert_frozen(&late);
        assert_eq!(late.length(), ours as u64);
    }
}

#[test]
fn writers_of_one_secret_stop_when_they_meet() {
    let (here, one) = writer("ours", 3, 5);
    let (there, other) = writer("theirs", 3, 9);
    meet(&there, &here, &one);
    assert_frozen(&one);
    assert_frozen(&other);
}

#[test]
fn a_frozen_reader_still_serves_and_asks_for_blocks() {
    let (here, one) = writer("ours", 2, 50);
    let there = Corestore::memory();
    let reader = there.get(&one.key()).unwrap();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_eq!((reader.length(), reader.contiguous_length()), (50, 0));
    let (_, other) = writer("theirs", 2, 60);
    let request = ferrocore_log::proof::ProofRequest {
        upgrade: Some(ferrocore_log::proof::UpgradeRequest {
            start: 0,
            length: 50,
        }),
        ..Default::default()
    };
    let shown = other.prove(&request).unwrap().unwrap();
    reader.check_conflict(&shown).unwrap().unwrap();
    pair.drive();
    assert_frozen(&one); // it was shown what froze its reader
    let _all = reader.download(0..50);
    pair.drive();
    assert_eq!((reader.length(), reader.contiguous_length()), (50, 50));
}

#[test]
fn peers_that_agree_never_suspect_each_other() {
    let (here, one) = writer("ours", 5, 5);
    let (there, reader) = reader_of(&here, &one);
    let (elsewhere, longer) = writer("ours", 5, 90);
    let pair = meet(&elsewhere, &there, &reader);
    assert_complete_copy(&longer, &reader);
    assert_eq!(pair.b.stats().proofs_refused, 0);
    assert!(reader.conflict().is_none() && longer.conflict().is_none());
}
