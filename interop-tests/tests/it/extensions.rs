//! Messages of applications beside a core, between Node and a node of ours in this process.
#![cfg(unix)]

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;

use crate::beside_node::{dial, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_in_both_directions() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        peer.call("append", json!({ "blocks": ["aGVsbG8="] }));
        peer.call("extension", json!({ "name": "chat" }));
        let (node, core) = dial(peer.listen(), &opened).await;
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
        let (from, message) = within(chat.next()).await;
        assert_eq!(message, "to all");
        chat.send(from, "to you").unwrap();
        assert_eq!(peer.wait_event("extension")["text"], "to you");
        node.close().await;
    }
}
