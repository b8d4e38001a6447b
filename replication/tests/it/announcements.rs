//! What is told of a core that changes, and to whom.

use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::{Core, Corestore};
use ferrocore_replication::connection::Backlog;
use ferrocore_replication::limits::ANNOUNCE_BUFFER_TARGET;

use crate::common::script::{Script, before_reader, range, sync_of};
use crate::common::{Pair, blocks, writer_and_reader};

/// Goal: who does not read is told what a core has come to, not each step on the way.
/// Method: a writer changes its core many times while nothing is taken from its connection.
#[test]
fn announcements_do_not_pile_up_and_the_last_state_is_told() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(10));
    let _all = reader.download_all();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    for index in 0..20_000 {
        writer.append(format!("more {index}")).unwrap();
        if index % 100 == 99 {
            writer.clear(index..index + 1).unwrap();
        }
        let connection = &mut pair.a.connection;
        connection.handle_wake();
        assert_eq!(connection.poll_event(pair.now).unwrap(), None);
    }
    let backlog = pair.a.connection.backlog();
    assert!(
        (ANNOUNCE_BUFFER_TARGET..ANNOUNCE_BUFFER_TARGET + 1024).contains(&backlog.bytes),
        "as much as may wait, and the last message: {backlog:?}"
    );
    pair.drive();
    assert_eq!(reader.length(), writer.length());
    assert_eq!(reader.tree_hash(), writer.tree_hash());
    assert_eq!(reader.count(0..20_010), writer.count(0..20_010));
    assert_eq!(pair.a.connection.backlog(), Backlog::default());
}

/// Block `index` comes from elsewhere.
fn bring(writer: &Core, reader: &Core, index: u64) {
    let nodes = reader.missing_nodes(2 * index).unwrap();
    let block = NodeRequest { index, nodes };
    let asked = ProofRequest {
        block: Some(block),
        ..ProofRequest::default()
    };
    let proof = writer.prove(&asked).unwrap().unwrap();
    assert_eq!(reader.accept(proof).unwrap().blocks, [index]);
}

/// Goal: of many peers, those that have all blocks are not woken for each that comes from another, but told once all are here;
/// one that lacks some, or takes one back, is woken.
#[test]
fn who_has_all_blocks_is_woken_for_none_but_the_last() {
    let (writer, reader, _) = before_reader(&blocks(400));
    let store = Corestore::memory();
    let [mut whole, mut part] = [400, 300].map(|has| {
        let mut script = Script::open(&store, &reader);
        script.victim.connection.attach(&reader);
        script.deliver().unwrap();
        script.say(&sync_of(400));
        script.say(&range(false, 0, has));
        script.deliver().unwrap();
        script
    });
    part.deliver().unwrap(); // its coming was news to the other
    whole.deliver().unwrap();
    bring(&writer, &reader, 0);
    assert!(whole.victim.is_idle() && !part.victim.is_idle());
    part.deliver().unwrap();
    whole.say(&range(true, 5, 1));
    whole.deliver().unwrap();
    bring(&writer, &reader, 1);
    assert!(!whole.victim.is_idle(), "it may come to lack this one");
    whole.deliver().unwrap();
    whole.say(&range(false, 5, 1));
    whole.deliver().unwrap();
    (2..399).for_each(|index| bring(&writer, &reader, index));
    assert!(whole.victim.is_idle());
    bring(&writer, &reader, 399);
    assert_eq!(whole.deliver().unwrap(), [range(false, 0, 400)]);
}
