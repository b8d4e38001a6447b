//! Messages of applications beside a core, between Node and a node of ours in this process.
#![cfg(unix)]

use std::time::Duration;

use ferrocore::Node;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;

/// How long Node may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_in_both_directions() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        peer.call("append", json!({ "blocks": ["aGVsbG8="] }));
        peer.call("extension", json!({ "name": "chat" }));
        let port = peer.listen();

        let node = Node::builder()
            .peer(format!("127.0.0.1:{port}"))
            .open()
            .await
            .unwrap();
        let key = opened["id"].as_str().unwrap().parse().unwrap();
        let core = node.core(&key).unwrap();
        let chat = core.extension("chat").unwrap();
        core.get(0).await.unwrap(); // connected
        for text in ["one", "two"] {
            assert_eq!(chat.broadcast(text).unwrap(), 1);
            let said = peer.wait_event("extension");
            assert_eq!(
                (said["name"].as_str(), said["text"].as_str()),
                (Some("chat"), Some(text))
            );
        }
        peer.call("say", json!({ "name": "chat", "text": "to all" }));
        let (from, message) = tokio::time::timeout(PATIENCE, chat.next()).await.unwrap();
        assert_eq!(message, "to all");
        chat.send(from, "to you").unwrap();
        assert_eq!(peer.wait_event("extension")["text"], "to you");
        node.close().await;
    }
}
