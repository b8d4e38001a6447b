//! Replication with Node over WebSockets, either side as the server.
#![cfg(unix)]

use std::path::Path;
use std::time::Duration;

use ferrocore::{Core, Node};
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::{Peer, script};
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(tree: Tree, storage: &Path) -> Peer {
    let mut command = script("websocket.mjs", tree, storage);
    command.arg(node::ensure(Tree::WebSocket));
    Peer::run(format!("websocket.mjs on {tree:?}"), &mut command)
}

fn tree_hash(core: &Core) -> String {
    let hash = core.tree_hash();
    let digits = hash.as_bytes().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// Goal: blocks of every size go both ways on one connection. Method: each side writes a core and reads the
/// other's.
async fn exchange(node: &Node, peer: &mut Peer, connect: impl FnOnce(&mut Peer)) {
    let ours = node.create_core("ours").unwrap();
    ours.append_batch(vec![vec![1; 100].into(); 500]).unwrap();
    ours.append_batch(vec![vec![2; 5_000_000].into(), vec![].into()])
        .unwrap();
    let theirs: Value = peer.call("open", json!({ "name": "theirs" }));
    for (count, size) in [(500, 100), (3, 5_000_000), (2, 0), (40, 65_536)] {
        peer.call("fill", json!({ "count": count, "size": size }));
    }
    let reader = node.core(&theirs["id"].as_str().unwrap().parse().unwrap());
    let reader = reader.unwrap();
    let all = reader.download(0..545);
    connect(peer);
    timeout(PATIENCE, all.done()).await.unwrap().unwrap();
    assert_eq!(
        reader.get_local(501).unwrap().unwrap(),
        vec![245; 5_000_000]
    );

    peer.call("open", json!({ "key": ours.key().to_string() }));
    let downloaded = peer.call("download", json!({ "length": 502 }));
    assert_eq!(downloaded["treeHash"], tree_hash(&ours));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_serves_a_websocket() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = start(tree, scratch.path());
        let port = peer.listen();
        let url = format!("ws://127.0.0.1:{port}/any/path");
        let node = Node::builder().peer(url).open().await.unwrap();
        exchange(&node, &mut peer, |_| {}).await;
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_dials_a_websocket() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = start(tree, scratch.path());
        let builder = Node::builder().listen("ws://127.0.0.1:0");
        let node = builder.open().await.unwrap();
        let port = node.listen_addr().unwrap().port();
        exchange(&node, &mut peer, |peer| peer.connect(port)).await;
        node.close().await;
    }
}
