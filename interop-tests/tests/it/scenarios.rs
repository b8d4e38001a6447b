//! What two peers go through in their lives, between Node and a node of ours in this process, in both roles.
//!
//! Method: a writer does it, a connected reader sees it; in the end tree hashes and blocks are equal.
#![cfg(unix)]

use std::time::Duration;

use ferrocore::{ConnectionId, Node, PeerInfo};
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_interop_tests::tap::Tap;
use ferrocore_log::push::PushMode;
use ferrocore_log::{Core, CoreError, CoreOptions, EncryptionKey};
use serde_json::json;
use tokio::time::timeout;

use crate::beside_node::{
    complete_as, dial, filled, is_sound, listening, node_completes, node_reads, node_writes,
    reopened, we_write, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_cores_share_one_stream() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let made = peer.call("many", json!({ "count": 50, "blocks": 20 }));
        let node = Node::builder()
            .listen("127.0.0.1:0")
            .peer(format!("127.0.0.1:{}", peer.listen()))
            .open()
            .await
            .unwrap();
        let made = made.as_array().unwrap();
        let cores = made
            .iter()
            .map(|made| node.core(&made["id"].as_str().unwrap().parse().unwrap()));
        let cores: Vec<Core> = cores.map(Result::unwrap).collect();
        for (core, made) in cores.iter().zip(made) {
            complete_as(core, made).await;
        }
        // And the other way round, on a stream of their own.
        let ours: Vec<Core> = (0..50)
            .map(|i| node.create_core(&format!("ours {i}")).unwrap())
            .collect();
        for core in &ours {
            core.append_batch(filled(20, 30)).unwrap();
        }
        let keys: Vec<String> = ours.iter().map(|core| core.key().to_string()).collect();
        let scratch = tempfile::tempdir().unwrap();
        let mut reader = Peer::start(tree, Role::Core, scratch.path());
        reader.connect(node.listen_addr().unwrap().port());
        let read = reader.call("follow", json!({ "keys": keys, "length": 20 }));
        for (core, read) in ours.iter().zip(read.as_array().unwrap()) {
            assert_eq!(read["treeHash"], core.tree_hash().to_string());
            assert_eq!(read["contiguousLength"], 20);
        }
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_a_block_back_to_back_and_empty_ones_between() {
    const LONG: usize = 10 << 20;
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (mut peer, node, core) = node_writes(tree, &scratch).await;
        for (count, size) in [(2, 0), (4, LONG), (3, 0), (1, LONG), (1, 1)] {
            peer.call("fill", json!({ "count": count, "size": size }));
        }
        let written = peer.call("info", json!({}));
        complete_as(&core, &written).await;
        assert_eq!(core.get(5).await.unwrap(), vec![5; LONG]);
        assert_eq!(core.get(7).await.unwrap(), "");
        node.close().await;

        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        core.append_batch(filled(2, 0)).unwrap();
        core.append_batch(filled(4, LONG)).unwrap();
        core.append_batch(filled(3, 0)).unwrap();
        node_completes(&mut peer, &core);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_live_appends_arrive_in_order() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (mut peer, node, core) = node_writes(tree, &scratch).await;
        let mut all = core.live_stream(0);
        for index in 0..100 {
            peer.call("fill", json!({ "count": 1, "size": index }));
        }
        for index in 0..100_u8 {
            let block = within(all.next()).await.unwrap().unwrap();
            assert_eq!(block, vec![index; usize::from(index)]);
        }
        node.close().await;

        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        let follow = peer.begin("inOrder", json!({ "count": 100 }));
        for index in 0..100 {
            core.append(index.to_string()).unwrap();
        }
        let expected: Vec<String> = (0..100).map(|index: u32| index.to_string()).collect();
        assert_eq!(peer.finish(follow), json!(expected));
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_forks_in_mid_download() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        peer.call("fill", json!({ "count": 400, "size": 10_000 }));
        let tap = Tap::holding_after(peer.listen(), 1_500_000);
        let (node, core) = dial(tap.port(), &opened).await;
        let _all = core.download_all();
        tap.wait_holding();
        peer.call("truncate", json!({ "length": 250 }));
        let written = peer.call("fill", json!({ "count": 100, "size": 20_000 }));
        tap.release();
        complete_as(&core, &written).await;
        assert_eq!(core.get(250).await.unwrap(), vec![250; 20_000]);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_fork_while_node_is_in_mid_download() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, port) = listening().await;
        let core = node.create_core("log").unwrap();
        core.append_batch(filled(400, 10_000)).unwrap();
        let tap = Tap::holding_after(port, 1_500_000);
        let mut peer = node_reads(tree, &scratch, &core, tap.port());
        peer.call("reach", json!({ "length": 400 }));
        let download = peer.begin("download", json!({ "start": 0, "end": 400 }));
        tap.wait_holding();
        core.truncate(250, None).unwrap();
        tap.release();
        assert_eq!(peer.wait_event("truncate")["fork"], 1);
        core.append_batch(filled(150, 20_000)).unwrap();
        let _ = peer.try_finish(&download); // of a history that is no more
        node_completes(&mut peer, &core);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_mid_data_leaves_no_half_block() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log" }));
        let written = peer.call("fill", json!({ "count": 40, "size": 300_000 }));
        let port = peer.listen();
        let store = tempfile::tempdir().unwrap();
        let mut had = 0;
        for passed in [1_000_000, 2_345_678, 100_000_000] {
            let tap = Tap::holding_after(port, passed);
            let node = reopened(store.path(), tap.port()).await;
            let core = node
                .core(&opened["id"].as_str().unwrap().parse().unwrap())
                .unwrap();
            let all = core.download_all();
            if passed == 100_000_000 {
                within(all.caught_up()).await.unwrap();
                complete_as(&core, &written).await;
            } else {
                tap.wait_holding();
                tap.cut();
            }
            assert!(is_sound(&core), "after {passed} bytes");
            let has = core.count(0..40);
            assert!(has >= had, "what was there is there");
            had = has;
            drop((all, core));
            node.close().await;
        }
    }
}

/// Goal: the same for Node, which reads from us: nothing that it has stored is wrong, and it goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_nodes_cut_in_mid_data_leaves_no_half_block() {
    const SIZE: usize = 300_000;
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, port) = listening().await;
        let core = node.create_core("log").unwrap();
        core.append_batch(filled(40, SIZE)).unwrap();
        let mut had = 0;
        for passed in [1_000_000, 5_345_678] {
            let tap = Tap::holding_after(port, passed);
            let mut peer = node_reads(tree, &scratch, &core, tap.port());
            peer.call("reach", json!({ "length": 40 }));
            let _download = peer.begin("download", json!({ "start": 0, "end": 40 }));
            tap.wait_holding();
            tap.cut();
            let examined = peer.call("examine", json!({ "size": SIZE }));
            assert_eq!(examined["wrong"], 0, "{tree:?} after {passed} bytes");
            let has = examined["had"].as_u64().unwrap();
            assert!((had..40).contains(&has), "{has}, and {had} before");
            had = has;
            peer.halt();
        }
        let mut peer = node_reads(tree, &scratch, &core, port);
        node_completes(&mut peer, &core);
        let examined = peer.call("examine", json!({ "size": SIZE }));
        assert_eq!(examined, json!({ "had": 40, "wrong": 0 }));
        node.close().await;
    }
}

/// Goal: a snapshot of Node's is as long as it was when it was taken, has what both histories share, and has nothing of the
/// new one where they differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_nodes_keeps_its_view_while_we_fork() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        core.append_batch(filled(30, 100)).unwrap();
        peer.call("reach", json!({ "length": 30 }));
        peer.call("download", json!({ "start": 0, "end": 10 }));
        peer.call("snapshot", json!({}));
        core.truncate(10, None).unwrap();
        // Hypercore 10 may be lost if it meets the appended blocks together with the cut, whoever serves them.
        assert_eq!(peer.wait_event("truncate")["fork"], 1);
        core.append_batch(filled(40, 50)).unwrap();
        let early = peer.call("fromSnapshot", json!({ "index": 5 }));
        let five = peer.call("get", json!({ "index": 5 }));
        assert_eq!(early["base64"], five["base64"], "{tree:?}");
        node_completes(&mut peer, &core);
        let early = peer.call("fromSnapshot", json!({ "index": 9 }));
        let nine = peer.call("get", json!({ "index": 9 }));
        assert_eq!(early["base64"], nine["base64"], "{tree:?}");
        assert_eq!(early["length"], 30, "{tree:?}");
        for index in [10, 29] {
            let cut_off = peer.begin("fromSnapshot", json!({ "index": index }));
            let refused = peer.try_finish(&cut_off).unwrap_err();
            assert!(refused.contains("SNAPSHOT_NOT_AVAILABLE"), "{refused}");
        }
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_cleared_and_fetched_again() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (mut peer, node, core) = node_writes(tree, &scratch).await;
        let written = peer.call("fill", json!({ "count": 100, "size": 500 }));
        complete_as(&core, &written).await;
        core.clear(10..60).unwrap();
        assert_eq!(core.count(0..100), 50);
        complete_as(&core, &written).await;
        node.close().await;

        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        core.append_batch(filled(100, 500)).unwrap();
        node_completes(&mut peer, &core);
        // Up to the end, too: nobody may wait for the last block only to say what was cleared.
        for (start, end) in [(10, 60), (64, 100)] {
            let cleared = json!({ "start": start, "end": end });
            let told = peer.call("clear", cleared.clone());
            assert_eq!(told["treeHash"], core.tree_hash().to_string());
            assert_eq!(peer.call("has", cleared.clone()), json!(false));
            peer.call("download", json!({ "start": 0, "end": 100 }));
            assert_eq!(peer.call("has", cleared), json!(true));
        }
        node.close().await;
    }
}

/// Goal: a Node writer that nobody is connected to clears to its end and says so.
#[test]
fn node_clears_to_its_end_with_nobody_there() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        peer.call("open", json!({ "name": "log" }));
        let written = peer.call("fill", json!({ "count": 1000, "size": 10 }));
        let told = peer.call("clear", json!({ "start": 640, "end": 1000 }));
        assert_eq!(told["treeHash"], written["treeHash"]);
        assert_eq!(told["contiguousLength"], 640);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_cores_pass_through_who_has_no_key() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let opened = peer.call("open", json!({ "name": "log", "encryption": 7 }));
        let written = peer.call(
            "append",
            json!({ "blocks": ["c2VjcmV0", "bW9yZSBzZWNyZXRz"] }),
        );
        // Blind: the bytes are copied and passed on.
        let node = Node::builder()
            .listen("127.0.0.1:0")
            .peer(format!("127.0.0.1:{}", peer.listen()))
            .open()
            .await
            .unwrap();
        let core = node
            .core(&opened["id"].as_str().unwrap().parse().unwrap())
            .unwrap();
        complete_as(&core, &written).await;
        assert_ne!(core.get(0).await.unwrap(), "secret");
        let scratch = tempfile::tempdir().unwrap();
        let mut reader = Peer::start(tree, Role::Core, scratch.path());
        reader.call("open", json!({ "key": opened["key"], "encryption": 7 }));
        reader.connect(node.listen_addr().unwrap().port());
        reader.call("reach", json!({ "length": 2 }));
        assert_eq!(
            reader.call("get", json!({ "index": 1 }))["base64"],
            "bW9yZSBzZWNyZXRz"
        );
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_key_passes_our_encrypted_core_on() {
    for tree in Tree::ALL {
        let (writer, port) = listening().await;
        let key = EncryptionKey::generate();
        let options = CoreOptions {
            name: Some("secret".into()),
            encryption: Some(key.clone()),
            ..CoreOptions::default()
        };
        let core = writer.store().get_with(options).unwrap();
        core.append_batch(filled(30, 100)).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let mut blind = node_reads(tree, &scratch, &core, port);
        blind.call("reach", json!({ "length": 30 }));
        blind.call("download", json!({ "start": 0, "end": 30 }));
        writer.close().await;

        let opened = json!({ "id": core.key().to_string() });
        let (node, copy) = dial(blind.listen(), &opened).await;
        let copy = copy.with_encryption(&key);
        for index in [0, 29] {
            let read = within(copy.get(index)).await.unwrap();
            assert_eq!(read, vec![index as u8; 100], "{tree:?}");
        }
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_the_length_alone_gets_no_block_and_a_snapshot_keeps_its_view() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (mut peer, node, core) = node_writes(tree, &scratch).await;
        let written = peer.call("fill", json!({ "count": 30, "size": 100 }));
        // Node has said so over its pipe, which may be before it does on the connection.
        within(async {
            let events = core.events();
            while core.length() < 30 {
                events.next().await;
            }
        })
        .await;
        assert_eq!(core.length(), 30);
        assert_eq!(written["treeHash"], core.tree_hash().to_string());
        assert_eq!(core.count(0..30), 0, "it has asked for none");
        assert_eq!(node.stats().blocks_downloaded, 0);

        let snapshot = core.snapshot();
        let early = within(snapshot.get(5)).await.unwrap();
        peer.call("truncate", json!({ "length": 10 }));
        let written = peer.call("fill", json!({ "count": 40, "size": 50 }));
        complete_as(&core, &written).await;
        assert_eq!((snapshot.length(), snapshot.fork()), (30, 0));
        assert_eq!(within(snapshot.get(5)).await.unwrap(), early);
        let cut = within(snapshot.get(20)).await;
        assert!(
            matches!(cut, Err(CoreError::SnapshotNotAvailable { .. })),
            "{cut:?}"
        );
        node.close().await;

        // And Node, of ours.
        let scratch = tempfile::tempdir().unwrap();
        let (node, core, mut peer) = we_write(tree, &scratch).await;
        core.append_batch(filled(30, 100)).unwrap();
        let read = peer.call("reach", json!({ "length": 30 }));
        assert_eq!(read["treeHash"], core.tree_hash().to_string());
        assert!(
            node.stats().blocks_uploaded <= 1,
            "it may ask for the newest"
        );
        node.close().await;
    }
}

/// Longer than a stream may be silent.
const IDLE: Duration = Duration::from_secs(33);

/// Goal: a connection on which nothing is said stays, whoever writes: what comes after takes no second one. Method: all four
/// at once, as it is the time that is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_idle_stay() {
    let mut scratch = Vec::new();
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for tree in Tree::ALL {
        scratch.push(tempfile::tempdir().unwrap());
        let (mut peer, node, core) = node_writes(tree, scratch.last().unwrap()).await;
        let made = peer.call("fill", json!({ "count": 3, "size": 10 }));
        complete_as(&core, &made).await;
        written.push((peer, node.connected(), node, core));
        scratch.push(tempfile::tempdir().unwrap());
        let (node, core, mut peer) = we_write(tree, scratch.last().unwrap()).await;
        core.append_batch(filled(3, 10)).unwrap();
        node_completes(&mut peer, &core);
        read.push((peer, node.connected(), node, core));
    }
    let pause = tokio::time::Instant::now() + IDLE;
    tokio::time::sleep_until(pause).await;
    for (mut peer, before, node, core) in written {
        let made = peer.call("fill", json!({ "count": 1, "size": 10 }));
        complete_as(&core, &made).await;
        assert_eq!(ids(&node.connected()), ids(&before));
        node.close().await;
    }
    for (mut peer, before, node, core) in read {
        core.append("more").unwrap();
        node_completes(&mut peer, &core);
        assert_eq!(ids(&node.connected()), ids(&before));
        node.close().await;
    }
}

/// Which connections these are.
fn ids(connected: &[PeerInfo]) -> Vec<ConnectionId> {
    assert_eq!(connected.len(), 1);
    connected.iter().map(|peer| peer.connection).collect()
}

/// Goal: who opens the channel by the protocol's older name is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_says_hypercore_is_understood() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (node, port) = listening().await;
        let core = node.create_core("log").unwrap();
        core.append_batch(filled(20, 100)).unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        peer.call("useOlderName", json!({}));
        peer.call("open", json!({ "key": core.key().to_string() }));
        peer.connect(port);
        node_completes(&mut peer, &core);
        core.append("live").unwrap();
        node_completes(&mut peer, &core);
        node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_pushed_to_who_asks_for_nothing() {
    // Version 10 knows no pushes.
    let scratch = tempfile::tempdir().unwrap();
    let (mut peer, node, core) = node_writes(Tree::Current, &scratch).await;
    core.set_push_mode(PushMode::Only);
    let first = peer.call("fill", json!({ "count": 3, "size": 10 }));
    assert_eq!(first["length"], 3);
    let events = core.events();
    within(async {
        while core.count(0..3) < 3 {
            for index in 0..3 {
                peer.call("push", json!({ "index": index }));
            }
            let _ = timeout(Duration::from_millis(200), events.next()).await;
        }
    })
    .await;
    let written = peer.call("fill", json!({ "count": 5, "size": 20 }));
    for index in 3..8 {
        peer.call("push", json!({ "index": index }));
    }
    within(async {
        while core.count(0..8) < 8 {
            events.next().await;
        }
    })
    .await;
    assert_eq!(written["treeHash"], core.tree_hash().to_string());
    assert_eq!(node.stats().requests_sent, 0, "it asks for nothing");
    node.close().await;

    let scratch = tempfile::tempdir().unwrap();
    let (node, port) = listening().await;
    let core = node.create_core("log").unwrap();
    core.append_batch(filled(3, 10)).unwrap();
    let mut peer = Peer::start(Tree::Current, Role::Core, scratch.path());
    peer.call(
        "open",
        json!({ "key": core.key().to_string(), "pushOnly": true }),
    );
    peer.connect(port);
    for index in 0..3 {
        within(async {
            while peer.call("has", json!({ "start": index, "end": index + 1 })) == json!(false) {
                core.push(index);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    core.append_batch(filled(5, 20)).unwrap();
    for index in 3..8 {
        core.push(index);
    }
    let read = peer.call("reach", json!({ "length": 8 }));
    assert_eq!(read["treeHash"], core.tree_hash().to_string());
    within(async {
        while peer.call("has", json!({ "start": 0, "end": 8 })) == json!(false) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    node.close().await;
}
