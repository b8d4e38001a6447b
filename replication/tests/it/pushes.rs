//! Goal: blocks go to peers that take what they did not ask for, with the proof they lack, and to no others.
//! Method: two ends on virtual time, of which the reader asks for nothing.

use std::ops::Range;

use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use ferrocore_log::Core;
use ferrocore_log::push::PushMode;
use ferrocore_replication::limits::{BAD_PUSHES_MAX, REQUEST_TIMEOUT};

fn connected(mode: PushMode, count: usize) -> (Core, Core, Pair) {
    let (here, writer, there, reader) = writer_and_reader(&blocks(count));
    reader.set_push_mode(mode);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    (writer, reader, pair)
}

fn push_all(writer: &Core, blocks: Range<u64>) {
    for index in blocks {
        assert_eq!(writer.push(index), 1);
    }
}

#[test]
fn what_is_pushed_arrives_without_a_request() {
    let (writer, reader, mut pair) = connected(PushMode::Only, 20);
    let _all = reader.download_all();
    pair.drive();
    assert_eq!(
        (reader.length(), reader.count(0..20)),
        (0, 0),
        "it asks for nothing"
    );
    // The first brings the proof of the log; all of them at once, in any order.
    for index in [7, 3, 19, 0, 7] {
        assert_eq!(writer.push(index), 1);
    }
    pair.drive();
    assert_eq!((reader.length(), reader.count(0..20)), (20, 4));
    writer.append_batch(blocks(13)).unwrap();
    push_all(&writer, 0..33);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().requests_sent, 0);
    assert_eq!(pair.b.stats().proofs_refused, 0);
}

/// Goal: answers that come after their requests were taken back are no bad pushes, where pushes are welcome. Method: a slow
/// peer's answers to more requests than bad pushes are borne come when all of them are overdue.
#[test]
fn late_answers_are_no_bad_pushes() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(200));
    reader.set_push_mode(PushMode::Allow);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    let _all = reader.download_all();
    while pair.b.stats().requests_sent < 2 {
        pair.step();
    }
    let late = pair.a.step(pair.now).unwrap();
    pair.now += REQUEST_TIMEOUT;
    let taken_back = pair.b.step(pair.now).unwrap();
    pair.a.arriving.extend(taken_back);
    let taken_back = pair.b.stats().requests_timed_out;
    assert!(taken_back > u64::from(BAD_PUSHES_MAX));
    pair.b.arriving.extend(late);
    pair.drive();
    assert!(pair.b.connection.has(&reader.discovery_key()));
    let stats = pair.b.stats();
    assert_eq!(
        (stats.answers_ignored, stats.proofs_refused),
        (taken_back, 0)
    );
    assert_complete_copy(&writer, &reader);
}

#[test]
fn each_append_is_pushed_before_the_last_one_is_acknowledged() {
    // Goal: what was pushed counts as proven, though the peer has not said so yet.
    let (writer, reader, mut pair) = connected(PushMode::Only, 0);
    for block in blocks(50) {
        let length = writer.append(block).unwrap();
        writer.push(length.length - 1);
        let now = pair.now;
        let sent = pair.a.step(now).unwrap();
        pair.b.arriving.extend(sent);
    }
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().requests_sent, 0);
}

#[test]
fn a_reader_that_also_asks_gets_each_block_once() {
    let (writer, reader, mut pair) = connected(PushMode::Allow, 100);
    let _all = reader.download_all();
    for index in 0..100 {
        writer.push(index);
        pair.step();
    }
    writer.append_batch(blocks(100)).unwrap();
    push_all(&writer, 100..200);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().proofs_refused, 0);
}

#[test]
fn nothing_is_pushed_to_who_did_not_allow_it() {
    let (writer, reader, mut pair) = connected(PushMode::Refuse, 20);
    writer.push(3);
    pair.drive();
    assert_eq!(reader.count(0..20), 0);
    assert_eq!(pair.a.stats().blocks_uploaded, 0);
    // From now on it is.
    reader.set_push_mode(PushMode::Allow);
    pair.drive();
    writer.push(3);
    pair.drive();
    assert!(reader.has(3));
    reader.set_push_mode(PushMode::Refuse);
    pair.drive();
    writer.push(4);
    pair.drive();
    assert_eq!(reader.count(0..20), 1);
}

#[test]
fn what_was_truncated_is_pushed_anew() {
    let (writer, reader, mut pair) = connected(PushMode::Allow, 20);
    push_all(&writer, 0..20);
    pair.drive();
    writer.truncate(5, None).unwrap();
    writer.append_batch(blocks(9)).unwrap();
    pair.drive();
    push_all(&writer, 0..14);
    pair.drive();
    assert_complete_copy(&writer, &reader);
}
