//! Two ends that fetch from each other at once.

use bytes::Bytes;
use ferrocore_log::Corestore;
use ferrocore_primitives::time::Time;
use ferrocore_replication::session::PeersMemory;

use crate::common::{End, Pair, assert_complete_copy};

/// What the line holds each way, in bytes.
const LINE: usize = 64 * 1024;

/// Hands over what the line takes. False if nothing has moved.
fn carry(from: &mut End, to: &mut End, now: Time) -> bool {
    let before = (from.arriving.len(), to.arriving.len());
    from.take_in(now).expect("the other is honest");
    let mut waiting: usize = to.arriving.iter().map(Bytes::len).sum();
    while waiting < LINE
        && let Some(frame) = from.connection.poll_transmit().unwrap()
    {
        waiting += frame.len();
        to.arriving.push_back(frame.to_bytes());
    }
    before != (from.arriving.len(), to.arriving.len()) || !from.is_idle()
}

/// Goal: two that fetch a lot from each other do not wait for each other, also while others have used up what is
/// remembered of questions. Method: a line that holds little; nothing is left of what connections share.
#[test]
fn two_that_ask_each_other_a_lot_are_both_served() {
    let count = 20_000;
    let stores = [Corestore::memory(), Corestore::memory()];
    let blocks = vec![Bytes::from(vec![7; 100]); count];
    let writers = [0, 1].map(|at: usize| {
        let writer = stores[at].get_named("of this end").unwrap();
        writer.append_batch(blocks.clone()).unwrap();
        writer
    });
    let readers = [0, 1].map(|at: usize| stores[at].get(&writers[1 - at].key()).unwrap());
    let mut pair = Pair::new(&stores[0], &stores[1]);
    let used_up = PeersMemory::new(0);
    pair.a.connection.share_memory(&used_up);
    pair.b.connection.share_memory(&used_up);
    pair.a.connection.attach(&readers[0]);
    pair.b.connection.attach(&readers[1]);
    let _all = readers.each_ref().map(|reader| reader.download_all());
    let has_all = || {
        readers
            .iter()
            .all(|r| r.count(0..count as u64) == count as u64)
    };
    let mut turns = 0;
    let mut deepest = 0;
    while !has_all() {
        turns += 1;
        assert!(turns < 100_000, "they wait for each other");
        carry(&mut pair.a, &mut pair.b, pair.now);
        carry(&mut pair.b, &mut pair.a, pair.now);
        deepest = deepest.max(pair.a.connection.backlog().questions);
    }
    assert!(deepest > 1000, "they ask a lot: {deepest}");
    for at in [0, 1] {
        assert_complete_copy(&writers[at], &readers[1 - at]);
    }
    pair.drive();
    assert_eq!(used_up.held(), 0);
}
