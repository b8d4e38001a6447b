//! Goal: who does not read is told what a core has come to, not each step on the way.
//! Method: a writer changes its core many times while nothing is taken from its connection.

use ferrocore_replication::connection::Backlog;
use ferrocore_replication::limits::ANNOUNCE_BUFFER_TARGET;

use crate::common::{Pair, blocks, writer_and_reader};

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
