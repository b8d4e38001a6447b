//! Two peers on virtual time: what honest ends do together.

use std::time::Duration;

use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::Corestore;
use ferrocore_log::fuzzing::signatures_checked;
use ferrocore_replication::limits::{LAST_BLOCKS, LATE_AFTER_MAX, REQUEST_TIMEOUT};

#[test]
fn a_reader_gets_a_whole_core() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(1000));
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(reader.manifest(), writer.manifest());
    assert_eq!(pair.b.stats().blocks_downloaded, 1000);
    assert_eq!(pair.a.stats().blocks_uploaded, 1000);
    assert_eq!(pair.b.stats().bytes_downloaded, writer.byte_length());
    assert_eq!(pair.b.stats().proofs_refused, 0);
}

/// Goal: a signature is checked once for each longer log, however many messages its blocks come in.
#[test]
fn an_upgrade_costs_one_check_of_a_signature() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(300));
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    for upgrades in 1..=5 {
        let before = signatures_checked();
        pair.drive();
        assert_eq!(signatures_checked() - before, 1, "upgrade {upgrades}");
        assert_complete_copy(&writer, &reader);
        writer.append_batch(blocks(70)).unwrap();
    }
}

#[test]
fn either_side_may_be_the_initiator_and_compat_cores_work() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let options = ferrocore_log::CoreOptions {
        name: Some("compat".into()),
        compat: true,
        ..Default::default()
    };
    let writer = here.get_with(options).unwrap();
    writer.append_batch(blocks(10)).unwrap();
    let reader = there.get(&writer.key()).unwrap();
    let mut pair = Pair::new(&there, &here);
    let _all = reader.download_all();
    pair.a.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert!(reader.is_compat());
}

#[test]
fn blocks_of_every_size_arrive() {
    let sizes = [0, 1, 100, 65_536, 0, 1_000_000, 15 * 1024 * 1024, 7];
    let blocks: Vec<Bytes> = sizes.map(|size| Bytes::from(vec![7; size])).to_vec();
    let (here, writer, there, reader) = writer_and_reader(&blocks);
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
}

#[test]
fn a_small_block_costs_about_one_tree_node() {
    // Goal: requests in flight rest on one another, so proofs do not carry the same path again.
    let (here, writer, there, reader) = writer_and_reader(&blocks(10_000));
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    let overhead = pair.b.received_bytes as u64 - writer.byte_length();
    assert!(
        overhead / writer.length() < 60,
        "{} bytes a block",
        overhead / writer.length()
    );
}

#[test]
fn what_is_appended_later_arrives() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(3));
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    for round in 0..20 {
        writer.append_batch(blocks(round % 4 + 1)).unwrap();
        pair.drive();
        assert_complete_copy(&writer, &reader);
    }
}

#[test]
fn a_reader_follows_the_length_without_wanting_blocks() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(3));
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_eq!(reader.length(), 3);
    writer.append("more").unwrap();
    pair.drive();
    assert_eq!(reader.length(), 4);
    assert_eq!(pair.b.stats().blocks_downloaded, 0);
    assert_eq!(reader.supply().remote_length(), Some(4));
}

#[test]
fn a_core_that_is_empty_at_first_is_followed() {
    let (here, writer, there, reader) = writer_and_reader(&[]);
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    writer.append("first").unwrap();
    pair.drive();
    assert_complete_copy(&writer, &reader);
}

#[test]
fn both_ends_write_and_read_on_one_connection() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(50));
    let back_writer = there.get_named("back").unwrap();
    back_writer.append_batch(blocks(70)).unwrap();
    let back_reader = here.get(&back_writer.key()).unwrap();
    let mut pair = Pair::new(&here, &there);
    let _downloads = (reader.download_all(), back_reader.download_all());
    pair.a.connection.attach(&back_reader);
    pair.b.connection.attach(&reader);
    pair.drive();
    writer.append("ping").unwrap();
    back_writer.append("pong").unwrap();
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_complete_copy(&back_writer, &back_reader);
}

#[test]
fn many_cores_share_a_connection() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let mut pair = Pair::new(&here, &there);
    let mut cores = Vec::new();
    for number in 0..40 {
        let writer = here.get_named(&format!("core {number}")).unwrap();
        writer.append_batch(blocks(number + 1)).unwrap();
        let reader = there.get(&writer.key()).unwrap();
        let download = reader.download_all();
        pair.b.connection.attach(&reader);
        cores.push((writer, reader, download));
    }
    pair.drive();
    cores
        .iter()
        .for_each(|(writer, reader, _)| assert_complete_copy(writer, reader));
}

#[test]
fn a_core_that_the_other_does_not_have_is_refused() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let reader = there
        .get(&Corestore::memory().get_named("elsewhere").unwrap().key())
        .unwrap();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    assert!(pair.b.connection.has(&reader.discovery_key()));
    pair.drive();
    assert!(!pair.b.connection.has(&reader.discovery_key()));
    assert_eq!(reader.supply().suppliers(), 0);
}

#[test]
fn both_ends_may_offer_the_same_core_at_once() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(5));
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.a.connection.attach(&writer);
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
}

#[test]
fn one_block_is_fetched_alone() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(100));
    let mut pair = Pair::new(&here, &there);
    let _one = reader.download(41..42);
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_eq!(reader.get_local(41).unwrap(), writer.get_local(41).unwrap());
    assert_eq!(reader.count(0..100), 1);
}

#[test]
fn a_reader_passes_on_what_it_has_got() {
    // Goal: a sparse peer is asked which blocks it has, and announces those it gets later.
    let (here, writer, there, relay) = writer_and_reader(&blocks(2000));
    let last_store = Corestore::memory();
    let reader = last_store.get(&writer.key()).unwrap();
    let mut first = Pair::new(&here, &there);
    let mut second = Pair::new(&there, &last_store);
    let some = relay.download(500..600);
    first.b.connection.attach(&relay);
    first.drive();
    drop(some);

    let _all = reader.download_all();
    second.b.connection.attach(&reader);
    second.drive();
    assert_eq!(reader.length(), 2000);
    assert_eq!(reader.count(0..2000), 100, "all that the relay has");

    let _more = relay.download(0..400);
    for _ in 0..20 {
        first.drive();
        second.drive();
    }
    assert_eq!(reader.count(0..2000), 500, "and what it gets later");
    let _rest = relay.download_all();
    for _ in 0..60 {
        first.drive();
        second.drive();
    }
    assert_complete_copy(&writer, &reader);
}

#[test]
fn two_suppliers_share_the_work_and_no_block_comes_twice() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(3000));
    let mut first = Pair::new(&here, &there);
    let mut second = Pair::new(&here, &there);
    let _all = reader.download_all();
    first.b.connection.attach(&reader);
    second.b.connection.attach(&reader);
    while first.step() | second.step() {}
    assert_complete_copy(&writer, &reader);
    let (one, two) = (
        first.b.stats().blocks_downloaded,
        second.b.stats().blocks_downloaded,
    );
    assert_eq!(one + two, 3000);
    assert!(one > 500 && two > 500, "{one} and {two}");
    assert_eq!(
        first.a.stats().blocks_uploaded + second.a.stats().blocks_uploaded,
        3000
    );
}

#[test]
fn what_a_closed_connection_was_to_bring_comes_from_another() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(500));
    let mut first = Pair::new(&here, &there);
    let _all = reader.download_all();
    first.b.connection.attach(&reader);
    for _ in 0..6 {
        first.step();
    }
    let in_flight = first.b.stats();
    assert!(
        in_flight.requests_sent > in_flight.blocks_downloaded,
        "{in_flight:?}"
    );
    drop(first);
    let mut second = Pair::new(&here, &there);
    second.b.connection.attach(&reader);
    second.drive();
    assert_complete_copy(&writer, &reader);
}

#[test]
fn a_silent_peer_loses_its_claims() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(200));
    let mut silent = Pair::new(&here, &there);
    let _all = reader.download_all();
    silent.b.connection.attach(&reader);
    // Up to the first requests for blocks, whose answers then never come.
    while silent.b.stats().requests_sent < 2 {
        silent.step();
    }
    silent.a.arriving.clear();
    let mut other = Pair::new(&here, &there);
    other.b.connection.attach(&reader);
    other.drive();
    assert!(
        reader.count(0..200) < 200,
        "the silent one holds its claims"
    );

    silent.now += REQUEST_TIMEOUT;
    let lost = silent.b.step(silent.now).unwrap();
    assert!(silent.b.stats().requests_timed_out > 0);
    assert!(
        !lost.is_empty(),
        "it is told that its answers are not waited for"
    );
    other.drive();
    silent.pass(Duration::from_millis(1));
    other.drive();
    silent.pass(REQUEST_TIMEOUT);
    other.drive();
    assert_complete_copy(&writer, &reader);
}

#[test]
fn a_slow_peer_is_overtaken() {
    // Goal: the end of a download does not wait for the slowest. What it was asked for comes from the
    // other peer as soon as it is late, it is told so, and what it still sends is no offence.
    let (here, writer, there, reader) = writer_and_reader(&blocks(200));
    let mut slow = Pair::new(&here, &there);
    let _all = reader.download_all();
    slow.b.connection.attach(&reader);
    while slow.b.stats().requests_sent < 2 {
        slow.step();
    }
    let mut fast = Pair::new(&here, &there);
    fast.b.connection.attach(&reader);
    fast.drive();
    let claimed = 200 - reader.count(0..200);
    assert!(claimed > 0, "the slow one holds its claims");

    let answers = slow.a.step(slow.now).unwrap(); // on their way for long
    slow.now += LATE_AFTER_MAX;
    slow.b.step(slow.now).unwrap();
    fast.drive();
    assert_complete_copy(&writer, &reader);
    slow.b.step(slow.now).unwrap();
    assert_eq!(slow.b.stats().requests_overtaken, claimed);
    slow.b.arriving.extend(answers);
    slow.drive();
    assert_eq!(slow.b.stats().answers_ignored, claimed);
    writer.append("more").unwrap();
    slow.drive();
    assert_eq!(
        reader.get_local(200).unwrap().unwrap(),
        "more",
        "it is asked again"
    );
}

#[test]
fn a_reader_that_reconnects_goes_on_where_it_was() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(300));
    let mut pair = Pair::new(&here, &there);
    let half = reader.download(0..150);
    pair.b.connection.attach(&reader);
    pair.drive();
    drop((pair, half));
    writer.append_batch(blocks(LAST_BLOCKS as usize)).unwrap();
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().blocks_downloaded, 150 + LAST_BLOCKS);
}

#[test]
fn detaching_a_core_ends_it_on_both_sides() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(3));
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    pair.b.connection.detach(&reader.discovery_key());
    assert_eq!(reader.supply().suppliers(), 0);
    pair.drive();
    assert!(!pair.a.connection.has(&writer.discovery_key()));
    // And it may come back.
    pair.b.connection.attach(&reader);
    writer.append("more").unwrap();
    pair.drive();
    assert_eq!(reader.length(), 4);
}
