//! Requests taken back, between Node and a node of ours in this process: who waits no longer says so, and an answer that was
//! on its way harms nobody. Method: a forwarder holds the answers while somebody leaves.
#![cfg(unix)]

use std::time::Duration;

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_interop_tests::tap::Tap;
use serde_json::json;
use tokio::time::sleep;

use crate::beside_node::{
    complete_as, dial, filled, listening, node_completes, node_reads, reach, within,
};

/// More than all that is said before the first block.
const BEFORE_BLOCKS: u64 = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_told_what_we_wait_for_no_longer() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        let written = peer.call("fill", json!({ "count": 400, "size": 10_000 }));
        let tap = Tap::holding_after(peer.listen(), BEFORE_BLOCKS);
        let (node, core) = dial(tap.port(), &opened).await;
        reach(&core, 400).await;
        let all = core.download_all();
        tap.wait_holding();
        drop(all);
        // Ours go the other way, which is free.
        within(async {
            loop {
                let told = peer.call("cancels", json!({}));
                if told["came"].as_u64().unwrap() > 0 {
                    return;
                }
                sleep(Duration::from_millis(10)).await; // Node tells of no cancel
            }
        })
        .await;
        tap.release();
        complete_as(&core, &written).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_tells_us_what_it_waits_for_no_longer() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, port) = listening().await;
        let core = node.create_core("log").unwrap();
        core.append_batch(filled(400, 10_000)).unwrap();
        let tap = Tap::holding_after(port, BEFORE_BLOCKS);
        let mut peer = node_reads(tree, &scratch, &core, tap.port());
        peer.call("reach", json!({ "length": 400 }));
        let left = peer.call("getOrLeave", json!({ "index": 70, "timeout": 300 }));
        assert_eq!(left["left"], "REQUEST_TIMEOUT");
        assert_eq!(peer.call("cancels", json!({}))["sent"], 1);
        tap.release();
        node_completes(&mut peer, &core);
        node.close().await;
    }
}
