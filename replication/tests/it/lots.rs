//! Goal: however much comes at a time, so many answers are gathered and committed together and no more.
//! Method: a supplier beside the peer, which does nothing but count how often blocks have come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrocore_replication::limits::ANSWERS_TOGETHER_MAX;

use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};

#[test]
fn a_long_burst_is_committed_in_lots() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(5000));
    let commits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&commits);
    let beside = reader.supply().attach(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let _all = reader.download_all();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    let (mut came_max, mut is_moving) = (0, true);
    while is_moving {
        let here = reader.count(0..5000) as usize;
        commits.store(0, Ordering::SeqCst);
        is_moving = pair.step();
        let came = reader.count(0..5000) as usize - here;
        assert!(came <= commits.load(Ordering::SeqCst) * ANSWERS_TOGETHER_MAX);
        came_max = came_max.max(came);
    }
    assert!(came_max > 2 * ANSWERS_TOGETHER_MAX, "{came_max} at a time");
    reader.supply().detach(beside);
    assert_complete_copy(&writer, &reader);
}
