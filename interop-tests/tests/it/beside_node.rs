//! A Node peer with one core, and a node of ours in this process connected to it: who writes, who reads, when they are equal.
//! Knows `peers/core.mjs`. Does not know what is tested.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ferrocore::Node;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_log::Core;
use ferrocore_log::audit::Mode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long Node may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("within a minute")
}

/// A Node writer of `log`, what it answered, and a node of ours that dials it.
pub(crate) async fn node_writes(tree: Tree, scratch: &TempDir) -> (Peer, Node, Core) {
    let mut peer = Peer::start(tree, Role::Core, scratch.path());
    let opened = peer.call("open", json!({ "name": "log" }));
    let (node, core) = dial(peer.listen(), &opened).await;
    (peer, node, core)
}

/// A node of ours that dials this port, and the core that Node has opened there.
pub(crate) async fn dial(port: u16, opened: &Value) -> (Node, Core) {
    let node = Node::builder()
        .peer(format!("127.0.0.1:{port}"))
        .open()
        .await
        .unwrap();
    let key = opened["id"].as_str().unwrap().parse().unwrap();
    let core = node.core(&key).unwrap();
    (node, core)
}

/// A core of ours, and a Node reader that is connected to it.
pub(crate) async fn we_write(tree: Tree, scratch: &TempDir) -> (Node, Core, Peer) {
    let (node, port) = listening().await;
    let core = node.create_core("log").unwrap();
    let peer = node_reads(tree, scratch, &core, port);
    (node, core, peer)
}

/// A node of ours, and the port that it listens on.
pub(crate) async fn listening() -> (Node, u16) {
    let node = Node::builder().listen("127.0.0.1:0").open().await.unwrap();
    let port = node.listen_addr().unwrap().port();
    (node, port)
}

/// A Node reader of `core`, connected to this port.
pub(crate) fn node_reads(tree: Tree, scratch: &TempDir, core: &Core, port: u16) -> Peer {
    let mut peer = Peer::start(tree, Role::Core, scratch.path());
    peer.call("open", json!({ "key": core.key().to_string() }));
    peer.connect(port);
    peer
}

/// A node on a store that another one has just left.
pub(crate) async fn reopened(dir: &Path, port: u16) -> Node {
    let builder = Node::builder().dir(dir).peer(format!("127.0.0.1:{port}"));
    builder.open().await.unwrap()
}

/// Waits until `core` is so long.
pub(crate) async fn reach(core: &Core, length: u64) {
    let events = core.events();
    within(async {
        while core.length() != length {
            events.next().await;
        }
    })
    .await;
}

/// Waits until `core` has all blocks of what Node says it has, and nothing else.
pub(crate) async fn complete_as(core: &Core, written: &Value) {
    let length = written["length"].as_u64().unwrap();
    let all = core.download_all();
    within(async {
        let events = core.events();
        while core.length() < length || core.fork() != written["fork"] {
            events.next().await;
        }
        all.caught_up().await.unwrap();
    })
    .await;
    assert_eq!(core.length(), length);
    assert_eq!(written["treeHash"], core.tree_hash().to_string());
    assert_eq!(core.contiguous_length(), length);
    assert!(is_sound(core));
}

/// Whether all that is stored is proven.
pub(crate) fn is_sound(core: &Core) -> bool {
    core.audit(Mode::DryRun, |_| {}).unwrap().bad == 0
}

/// Waits until Node has all blocks of `core`.
pub(crate) fn node_completes(peer: &mut Peer, core: &Core) {
    peer.call("reach", json!({ "length": core.length() }));
    let read = peer.call("download", json!({ "start": 0, "end": core.length() }));
    assert_eq!(read["treeHash"], core.tree_hash().to_string());
    assert_eq!(read["contiguousLength"], core.length());
}

/// Blocks of which each byte is the index, modulo 256.
pub(crate) fn filled(count: usize, size: usize) -> Vec<Bytes> {
    (0..count)
        .map(|i| Bytes::from(vec![i as u8; size]))
        .collect()
}
