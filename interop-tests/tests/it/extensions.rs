//! Messages of applications beside a core, between Node and a node of ours in this process.
#![cfg(unix)]

use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::Peer;
use ferrocore_log::Core;
use serde_json::json;

use crate::beside_node::{node_completes, node_writes, we_write, within};

/// Says things over `core`, which both have open and are connected by, and hears them.
async fn talk(peer: &mut Peer, core: &Core) {
    let chat = core.extension("chat").unwrap();
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_with_a_writer_that_we_dial() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (mut peer, node, core) = node_writes(tree, &scratch).await;
        peer.call("append", json!({ "blocks": ["aGVsbG8="] }));
        peer.call("extension", json!({ "name": "chat" }));
        core.get(0).await.unwrap(); // connected
        talk(&mut peer, &core).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_with_a_reader_that_dials_us() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        core.append("hello").unwrap();
        peer.call("extension", json!({ "name": "chat" }));
        node_completes(&mut peer, &core); // connected
        talk(&mut peer, &core).await;
        node.close().await;
    }
}
