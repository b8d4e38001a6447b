//! Finding the block of a byte in a log of Node's that is not here.
#![cfg(unix)]

use std::time::Duration;

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::{Value, json};

use crate::beside_node::{dial, node_writes, reach, we_write, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_tells_where_a_byte_is() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (mut peer, node, core) = node_writes(tree, &scratch).await;
        for (count, size) in [(300, 10), (1, 50_000), (500, 333), (7, 0), (200, 1)] {
            peer.call("fill", json!({ "count": count, "size": size }));
        }
        reach(&core, 1008).await;
        for byte in [
            0, 1, 2999, 3000, 3001, 52_999, 53_000, 100_000, 219_499, 219_500, 219_600,
        ] {
            let expected = peer.call("seek", json!({ "bytes": byte }));
            let found = within(core.seek(byte)).await.unwrap();
            let expected = (
                expected["index"].as_u64().unwrap(),
                expected["offset"].as_u64().unwrap(),
            );
            assert_eq!(found, expected, "byte {byte} on {tree:?}");
        }
        let fetched = node.stats().blocks_downloaded;
        assert!(fetched <= 11, "{fetched} blocks for 11 bytes");
        node.close().await;
    }
}

/// Goal: Node, which has a part of a log of ours, is told where any byte of it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_tell_node_where_a_byte_is() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        for (count, size) in [(300, 10), (1, 50_000), (500, 333), (7, 0), (200, 1)] {
            core.append_batch(vec![vec![1; size].into(); count])
                .unwrap();
        }
        peer.call("reach", json!({ "length": core.length() }));
        peer.call("download", json!({ "start": 100, "end": 350 }));
        for byte in [
            0, 1, 999, 2999, 3000, 53_000, 60_000, 100_000, 219_499, 219_600,
        ] {
            let (index, offset) = core.seek(byte).await.unwrap();
            let found = peer.call("seek", json!({ "bytes": byte }));
            assert_eq!(
                found,
                json!({ "index": index, "offset": offset }),
                "byte {byte} on {tree:?}"
            );
        }
        node.close().await;
    }
}

/// What Node remembers that we want, once it is `expected`.
async fn wants(peer: &mut Peer, expected: impl Fn(&Value) -> bool) -> Value {
    let wanted = async {
        loop {
            let wanted = peer.call("wants", json!({}));
            if expected(&wanted) {
                return wanted;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(wanted).await
}

/// Goal: who has a part of the log is asked for any block near a byte, not for all that it has; and what it
/// is asked to tell of is taken back when it is of no use any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_asked_for_any_block_near_a_byte_and_need_not_remember_it() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        peer.call("fill", json!({ "count": 1000, "size": 333 }));
        peer.call("clear", json!({ "start": 0, "end": 600 }));
        let (node, core) = dial(peer.listen(), &opened).await;
        within(core.update()).await.unwrap();
        let sought = within(core.seek(620 * 333 + 100)).await.unwrap();
        assert_eq!(sought, (620, 100), "{tree:?}");
        let wanted = wants(&mut peer, |wanted| wanted["any"] == 0).await;
        assert!(wanted["asked"].as_u64() >= Some(1), "{wanted}");
        if tree == Tree::Current {
            // Version 10 knows no question for any block, and answers with all that it has.
            assert_eq!(wanted["bitfields"], 0, "{wanted}");
        }

        // A batch is asked about once for each history, and remembered once.
        let read = within(core.get(639)).await.unwrap();
        assert_eq!(read, vec![127; 333]);
        let before = wants(&mut peer, |wanted| wanted["bitfields"] != 0).await;
        peer.call("truncate", json!({ "length": 650 }));
        peer.call("fill", json!({ "count": 50, "size": 10 }));
        reach(&core, 700).await;
        assert_eq!(core.fork(), 1);
        let read = within(core.get(610)).await.unwrap();
        assert_eq!(read, vec![98; 333]);
        let asked = before["asked"].as_u64().unwrap() + 1;
        let after = wants(&mut peer, |wanted| wanted["asked"] == asked).await;
        assert_eq!(after["batches"], before["batches"], "{tree:?}");
        node.close().await;
    }
}
