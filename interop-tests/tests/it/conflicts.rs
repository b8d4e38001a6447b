//! Goal: two histories signed with one secret are found wherever their holders meet, Node among them, and stop all who are shown.
//! Method: writers of one secret, and readers in between; who can have learnt of the other history from whom follows from who
//! is connected.
#![cfg(unix)]

use ferrocore::Node;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_log::events::Event;
use ferrocore_log::{Core, CoreError, CoreOptions};
use serde_json::json;
use tempfile::TempDir;

use crate::beside_node::{complete_as, filled, listening, node_completes, node_reads, within};
use crate::signers::{blocks, key_pair};

/// How a core whose secret both sides have is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Under a manifest of version 1.
    Manifest,
    /// With its key, the signer's public key.
    Compat,
    /// Likewise, as before there were namespaces.
    Legacy,
}

/// Goal: a second history that Node signed with our secret stops us, and what we show stops Node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_histories_of_one_secret_stop_both_sides() {
    assert_both_stop(Tree::Current, Kind::Manifest).await;
    for tree in Tree::ALL {
        for kind in [Kind::Compat, Kind::Legacy] {
            assert_both_stop(tree, kind).await;
        }
    }
}

async fn assert_both_stop(tree: Tree, kind: Kind) {
    let (node, port) = listening().await;
    let options = CoreOptions {
        key_pair: Some(key_pair(1)),
        compat: kind == Kind::Compat,
        legacy: kind == Kind::Legacy,
        ..CoreOptions::default()
    };
    let core = node.store().get_with(options).unwrap();
    core.append_batch(blocks(5)).unwrap();
    let events = core.events();
    let scratch = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(tree, Role::Core, scratch.path());
    let kind_name = match kind {
        Kind::Manifest => None,
        Kind::Compat => Some("compat"),
        Kind::Legacy => Some("legacy"),
    };
    let opened = peer.call("open", json!({ "seed": 1, "kind": kind_name }));
    assert_eq!(opened["id"], core.key().to_string(), "{tree:?}, {kind:?}");
    assert_eq!(opened["compat"], kind != Kind::Manifest);
    peer.call("fill", json!({ "count": 7, "size": 3 }));
    peer.connect(port);
    let told = within(events.next()).await;
    assert!(matches!(told, Event::Conflict { fork: 0, .. }), "{told:?}");
    let conflict = core.conflict().unwrap();
    conflict.verify(&core.key()).unwrap();
    assert_eq!(conflict.manifest.is_some(), kind == Kind::Manifest);
    assert!(matches!(core.append("x"), Err(CoreError::Conflict { .. })));
    assert_eq!(peer.wait_event("conflict")["fork"], 0, "{tree:?}, {kind:?}");
    node.close().await;
}

/// Blocks of one history and of the other.
const LENGTHS: (usize, usize) = (5, 7);

/// Two writers of one secret, who never meet.
struct Writers {
    one: (Node, u16, Core),
    other: (Node, u16, Core),
}

impl Writers {
    async fn start(kind: Kind) -> Self {
        let [(here, here_port), (there, there_port)] = [listening().await, listening().await];
        let [one, other] = [&here, &there].map(|node| {
            let options = CoreOptions {
                key_pair: Some(key_pair(1)),
                compat: kind == Kind::Compat,
                ..CoreOptions::default()
            };
            node.store().get_with(options).unwrap()
        });
        one.append_batch(blocks(LENGTHS.0 as u64)).unwrap();
        other.append_batch(filled(LENGTHS.1, 3)).unwrap();
        Self {
            one: (here, here_port, one),
            other: (there, there_port, other),
        }
    }

    async fn close(self) {
        self.one.0.close().await;
        self.other.0.close().await;
    }
}

/// A reader of ours that has all of `writer` and goes on listening, no longer connected to it.
async fn reader_of((_, port, core): &(Node, u16, Core)) -> (Node, u16, Core) {
    let builder = Node::builder().listen("127.0.0.1:0");
    let node = builder.open().await.unwrap();
    let dialing = node.dial(format!("127.0.0.1:{port}"));
    let reader = node.core(&core.key()).unwrap();
    let written = json!({
        "length": core.length(),
        "fork": 0,
        "treeHash": core.tree_hash().to_string(),
    });
    complete_as(&reader, &written).await;
    drop(dialing);
    let mut events = node.peers();
    within(async {
        while !node.connected().is_empty() {
            events.next().await;
        }
    })
    .await;
    let port = node.listen_addr().unwrap().port();
    (node, port, reader)
}

/// Waits until a core of ours was shown another history; the evidence holds for anybody.
async fn assert_shown(core: &Core) {
    let events = core.events();
    within(async {
        while core.conflict().is_none() {
            events.next().await;
        }
    })
    .await;
    core.conflict().unwrap().verify(&core.key()).unwrap();
}

/// Goal: a Node reader that meets the other history shows it to a mere reader of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_relays_a_conflict_to_a_reader_of_ours() {
    for tree in Tree::ALL {
        for kind in [Kind::Manifest, Kind::Compat] {
            let writers = Writers::start(kind).await;
            let scratch = tempfile::tempdir().unwrap();
            let mut peer = node_reads(tree, &scratch, &writers.one.2, writers.one.1);
            node_completes(&mut peer, &writers.one.2);
            let (node, port, reader) = reader_of(&writers.other).await;
            assert!(reader.conflict().is_none());
            peer.connect(port);
            assert_eq!(peer.wait_event("conflict")["fork"], 0, "{tree:?}, {kind:?}");
            assert_shown(&reader).await;
            assert_eq!(reader.length(), LENGTHS.1 as u64);
            assert!(writers.other.2.conflict().is_none(), "it was not there");
            node.close().await;
            writers.close().await;
        }
    }
}

/// Goal: a relay of ours shows the other history to the Node reader that it meets, and to one that has the same history as
/// the relay and comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_ours_shows_a_conflict_to_readers_of_node() {
    for tree in Tree::ALL {
        for kind in [Kind::Manifest, Kind::Compat] {
            let writers = Writers::start(kind).await;
            let scratch: [TempDir; 2] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
            let mut peer = node_reads(tree, &scratch[0], &writers.other.2, writers.other.1);
            node_completes(&mut peer, &writers.other.2);
            let mut late = node_reads(tree, &scratch[1], &writers.one.2, writers.one.1);
            node_completes(&mut late, &writers.one.2);

            let (node, port, relay) = reader_of(&writers.one).await;
            peer.connect(port);
            assert_shown(&relay).await;
            assert_eq!(peer.wait_event("conflict")["fork"], 0, "{tree:?}, {kind:?}");
            late.connect(port);
            assert_eq!(late.wait_event("conflict")["fork"], 0, "{tree:?}, {kind:?}");
            node.close().await;
            writers.close().await;
        }
    }
}
