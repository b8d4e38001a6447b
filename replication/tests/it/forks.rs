//! Two peers on virtual time, one of which truncates: the other follows it.

use std::task::{Context, Poll, Waker};

use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::{Core, CoreError, Corestore};
use ferrocore_replication::limits::DENIALS_MAX;
use proptest::prelude::*;

/// Appends until the log has `length` blocks, no two of which are alike.
fn grow(core: &Core, length: u64) {
    let fork = core.fork();
    let block = |index| Bytes::from(format!("block {index} of fork {fork}"));
    core.append_batch((core.length()..length).map(block).collect())
        .unwrap();
}

fn cut(core: &Core, at: u64, length: u64) {
    core.truncate(at, None).unwrap();
    grow(core, length);
}

/// Whatever the reader has is the writer's.
fn assert_nothing_stale(writer: &Core, reader: &Core) {
    assert_eq!(reader.fork(), writer.fork());
    assert_eq!(reader.tree_hash(), writer.tree_hash());
    assert_eq!(reader.byte_length(), writer.byte_length());
    for index in (0..1000).filter(|index| reader.has(*index)) {
        let block = reader.get_local(index).unwrap();
        assert_eq!(block, writer.get_local(index).unwrap(), "block {index}");
    }
}

#[test]
fn a_connected_reader_follows_every_truncate() {
    // Goal: cut at every length, then no, fewer, as many or more blocks than before.
    const LENGTH: u64 = 9;
    for at in 0..=LENGTH {
        for length in [at, LENGTH - 1, LENGTH, LENGTH + 5] {
            let (here, writer, there, reader) = writer_and_reader(&blocks(LENGTH as usize));
            let mut pair = Pair::new(&here, &there);
            let _all = reader.download_all();
            pair.b.connection.attach(&reader);
            pair.drive();
            writer.truncate(at, None).unwrap();
            pair.drive();
            grow(&writer, length);
            pair.drive();
            if writer.length() == 0 {
                assert_eq!(reader.fork(), 0, "nothing proves an empty log");
                writer.append("first again").unwrap();
                pair.drive();
            }
            assert_complete_copy(&writer, &reader);
            assert_nothing_stale(&writer, &reader);
            let fresh = writer.length() - at;
            assert_eq!(pair.b.stats().blocks_downloaded, LENGTH + fresh);
            assert_eq!(pair.b.stats().proofs_refused, 0);
            // And it goes on.
            writer.append("later").unwrap();
            pair.drive();
            assert_complete_copy(&writer, &reader);
        }
    }
}

#[test]
fn a_reader_that_was_away_follows_when_it_is_back() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(300));
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    drop(pair);
    cut(&writer, 280, 290);
    cut(&writer, 200, 320);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(reader.fork(), 2);
    assert_eq!(pair.b.stats().blocks_downloaded, 120);
}

#[test]
fn a_reader_that_knows_nothing_gets_a_core_of_any_fork() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(20));
    cut(&writer, 11, 30);
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(reader.manifest(), writer.manifest());
}

#[test]
fn a_truncate_in_the_middle_of_a_download_is_nobodys_fault() {
    // Goal: whatever is in flight, the writer is asked on, and what was asked before is not held
    // against it.
    for steps in 0..30 {
        let (here, writer, there, reader) = writer_and_reader(&blocks(1000));
        let mut pair = Pair::new(&here, &there);
        let _all = reader.download_all();
        pair.b.connection.attach(&reader);
        for _ in 0..steps {
            pair.step();
        }
        cut(&writer, 3 * DENIALS_MAX as u64, 800);
        pair.drive();
        assert_complete_copy(&writer, &reader);
        assert_eq!(pair.b.stats().proofs_refused, 0, "after {steps} steps");
        assert_eq!(reader.supply().suppliers(), 1);
    }
}

#[test]
fn two_forks_in_a_row_and_one_during_the_move_end_at_the_last() {
    for steps in 0..20 {
        let (here, writer, there, reader) = writer_and_reader(&blocks(200));
        let mut pair = Pair::new(&here, &there);
        let _all = reader.download_all();
        pair.b.connection.attach(&reader);
        pair.drive();
        cut(&writer, 150, 180);
        cut(&writer, 170, 190);
        for _ in 0..steps {
            pair.step();
        }
        cut(&writer, 100, 210);
        pair.drive();
        assert_complete_copy(&writer, &reader);
        assert_nothing_stale(&writer, &reader);
        assert_eq!(pair.b.stats().proofs_refused, 0);
    }
}

#[test]
fn a_fork_goes_through_a_relay() {
    let (here, writer, there, relay) = writer_and_reader(&blocks(100));
    let last_store = Corestore::memory();
    let reader = last_store.get(&writer.key()).unwrap();
    let mut first = Pair::new(&here, &there);
    let mut second = Pair::new(&there, &last_store);
    let (_all, _some) = (relay.download_all(), reader.download(0..60));
    first.b.connection.attach(&relay);
    second.b.connection.attach(&reader);
    while first.step() | second.step() {}
    cut(&writer, 40, 90);
    while first.step() | second.step() {}
    assert_complete_copy(&writer, &relay);
    assert_nothing_stale(&writer, &reader);
    assert_eq!(reader.count(0..100), 60);
}

#[test]
fn a_peer_on_a_lower_fork_neither_supplies_nor_moves_anybody() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(10));
    let old_store = Corestore::memory();
    let old = old_store.get(&writer.key()).unwrap();
    let mut pair = Pair::new(&here, &old_store);
    let _all = old.download_all();
    pair.b.connection.attach(&old);
    pair.drive();
    drop(pair);
    cut(&writer, 4, 8);
    let mut pair = Pair::new(&here, &there);
    let _new = reader.download(4..8);
    pair.b.connection.attach(&reader);
    pair.drive();
    drop(pair);

    // The reader has the blocks of the new fork, the old copy only those of the former.
    let mut pair = Pair::new(&old_store, &there);
    let _rest = reader.download_all();
    pair.b.connection.attach(&reader);
    while old.fork() == 0 {
        assert_eq!(reader.count(0..8), 4);
        assert!(pair.step());
    }
    pair.drive();
    // It catches up, and then what both begin with can be had from it.
    assert_eq!((old.fork(), old.tree_hash()), (1, writer.tree_hash()));
    assert_complete_copy(&writer, &reader);
    assert_nothing_stale(&writer, &old);
    assert!(old.contiguous_length() >= 4);
}

#[test]
fn cleared_blocks_are_asked_of_others_and_offered_again() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(50));
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    writer.clear(10..20).unwrap();
    pair.drive();
    let all = reader.download_all();
    pair.drive();
    assert_eq!(reader.count(0..50), 40);
    assert_eq!(reader.count(10..20), 0);
    assert_eq!(
        pair.b.stats().requests_sent,
        1 + 40,
        "what was cleared is not asked for"
    );
    drop(all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_end_with_the_same_log(
        length in 1..60usize,
        wanted in prop::collection::vec((0..80u64, 0..20u64), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..30u64, 0..12usize), 1..5),
    ) {
        let (here, writer, there, reader) = writer_and_reader(&blocks(length));
        let mut pair = Pair::new(&here, &there);
        let _wants: Vec<_> = wanted
            .iter()
            .map(|(start, count)| reader.download(*start..start + count))
            .collect();
        pair.b.connection.attach(&reader);
        for (at, more, steps) in changes {
            let at = at.index(writer.length() as usize + 1) as u64;
            cut(&writer, at, at + more);
            for _ in 0..steps {
                pair.step();
            }
        }
        writer.append("last").unwrap();
        pair.drive();
        assert_nothing_stale(&writer, &reader);
        for (start, count) in wanted {
            let end = (start + count).min(writer.length());
            prop_assert!((start..end).all(|index| reader.has(index)));
        }
        let _all = reader.download_all();
        pair.drive();
        assert_complete_copy(&writer, &reader);
        prop_assert_eq!(pair.b.stats().proofs_refused, 0);
        prop_assert_eq!(pair.a.stats().proofs_refused, 0);
    }
}

/// Goal: a snapshot that a reader took keeps its view while the writer truncates in the middle of its download:
/// what both histories share is still fetched through it, and what was cut is refused, never replaced.
#[test]
fn a_snapshot_keeps_its_view_while_the_writer_truncates() {
    for steps in 0..12 {
        let (here, writer, there, reader) = writer_and_reader(&blocks(300));
        let mut pair = Pair::new(&here, &there);
        pair.b.connection.attach(&reader);
        pair.drive();
        // The nodes beside block 148 tell what both histories share; without any, nothing would be known to be.
        let near = reader.download(148..149);
        pair.drive();
        drop(near);
        let view = reader.snapshot();
        let _some = reader.download(0..250);
        for _ in 0..steps {
            pair.step();
        }
        cut(&writer, 150, 400);
        let mut context = Context::from_waker(Waker::noop());
        let (mut shared, mut gone) = (Box::pin(view.get(149)), Box::pin(view.get(290)));
        let mut shared_now = shared.as_mut().poll(&mut context);
        let mut gone_now = gone.as_mut().poll(&mut context);
        pair.drive();
        assert_eq!((reader.fork(), view.fork()), (1, 0), "after {steps} steps");
        if shared_now.is_pending() {
            shared_now = shared.as_mut().poll(&mut context);
        }
        if gone_now.is_pending() {
            gone_now = gone.as_mut().poll(&mut context);
        }
        let Poll::Ready(Ok(block)) = shared_now else {
            panic!("after {steps} steps: {shared_now:?}");
        };
        assert_eq!(block, "block-149");
        let is_refused = matches!(
            gone_now,
            Poll::Ready(Err(CoreError::SnapshotNotAvailable { .. }))
        );
        assert!(is_refused, "after {steps} steps: {gone_now:?}");
        assert_nothing_stale(&writer, &reader);
    }
}
