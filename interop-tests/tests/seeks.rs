//! Finding the block of a byte in a log of Node's that is not here.
#![cfg(unix)]

use std::time::Duration;

use ferrocore::Node;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;
use tokio::time::timeout;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_tells_where_a_byte_is() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        for (count, size) in [(300, 10), (1, 50_000), (500, 333), (7, 0), (200, 1)] {
            peer.call("fill", json!({ "count": count, "size": size }));
        }
        let port = peer.listen();
        let node = Node::builder()
            .peer(format!("127.0.0.1:{port}"))
            .open()
            .await
            .unwrap();
        let key = opened["id"].as_str().unwrap().parse().unwrap();
        let core = node.core(&key).unwrap();
        timeout(PATIENCE, core.update()).await.unwrap().unwrap();
        assert_eq!(core.length(), 1008);
        for byte in [
            0, 1, 2999, 3000, 3001, 52_999, 53_000, 100_000, 219_499, 219_500, 219_600,
        ] {
            let expected = peer.call("seek", json!({ "bytes": byte }));
            let found = timeout(PATIENCE, core.seek(byte)).await.unwrap().unwrap();
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
