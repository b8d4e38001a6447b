//! Messages of applications between two peers on virtual time.

use crate::common::{Pair, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::limits::EXTENSION_QUEUE_MAX;

#[test]
fn messages_go_both_ways_and_are_answered() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(1));
    let (ours, theirs) = (
        writer.extension("chat").unwrap(),
        reader.extension("chat").unwrap(),
    );
    let other = writer.extension("other").unwrap();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();

    assert_eq!(theirs.broadcast("one").unwrap(), 1);
    assert_eq!(theirs.broadcast("two").unwrap(), 1); // its name is left out on the wire
    reader
        .extension("other")
        .unwrap()
        .broadcast("three")
        .unwrap();
    theirs.broadcast("four").unwrap();
    pair.drive();
    let (peer, first) = ours.try_next().unwrap();
    let rest: Vec<Bytes> = std::iter::from_fn(|| ours.try_next())
        .map(|(_, m)| m)
        .collect();
    assert_eq!(
        (first.as_ref(), rest),
        (&b"one"[..], vec!["two".into(), "four".into()])
    );
    assert_eq!(other.try_next().unwrap().1, "three");

    ours.send(peer, "hello yourself").unwrap();
    pair.drive();
    assert_eq!(theirs.try_next().unwrap().1, "hello yourself");
}

#[test]
fn a_flood_costs_one_queue_and_disturbs_nobody() {
    // Goal: more messages than fit are lost, the rest of the channel works on.
    let (here, writer, there, reader) = writer_and_reader(&blocks(100));
    let ours = writer.extension("flood").unwrap();
    let theirs = reader.extension("flood").unwrap();
    let mut pair = Pair::new(&here, &there);
    let _all = reader.download_all();
    pair.b.connection.attach(&reader);
    pair.drive();
    for _ in 0..3 {
        for _ in 0..EXTENSION_QUEUE_MAX {
            assert_eq!(theirs.broadcast("spam").unwrap(), 1);
        }
        assert_eq!(
            theirs.broadcast("spam").unwrap(),
            0,
            "it waits for the peer"
        );
        pair.drive();
    }
    assert_eq!(
        std::iter::from_fn(|| ours.try_next()).count(),
        EXTENSION_QUEUE_MAX
    );
    writer.append("still here").unwrap();
    pair.drive();
    assert_eq!(reader.get_local(100).unwrap().unwrap(), "still here");
}
