//! `fcore core …` beside Node's Hypercore.

use std::path::Path;

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::{Value, json};

use crate::live::{Stage, number, text};

#[test]
fn node_reads_a_core_that_fcore_wrote() {
    for tree in Tree::ALL {
        let stage = Stage::new();
        let fcore = stage.fcore("store");
        let created = fcore.run(["core", "create", "log"]).expect_code(0);
        let key = text(&created.event("core")["key"]);
        fcore
            .run_with(["core", "append", "log", "--lines"], "one\ntwo\n\nfour\n")
            .expect_code(0);
        let info = fcore
            .run(["core", "info", "log"])
            .expect_code(0)
            .event("core")
            .clone();
        assert_eq!(number(&info["length"]), 4);

        let mut run = fcore.start(["core", "replicate", "log", "--listen", "127.0.0.1:0"]);
        let (port, _) = run.wait_ready();
        let (mut node, _) = node_core(tree, &stage.path("node"), json!({ "key": key }));
        node.connect(port);
        node.call("reach", json!({ "length": 4 }));
        let read = node.call("download", json!({}));
        assert_eq!(read["treeHash"], info["tree_hash"]);
        assert_eq!(read["byteLength"], info["byte_length"]);
    }
}

#[test]
fn fcore_downloads_a_core_that_node_wrote_and_follows_it() {
    for tree in Tree::ALL {
        let stage = Stage::new();
        let (mut node, opened) = node_core(tree, &stage.path("node"), json!({ "name": "log" }));
        node.call("append", json!({ "blocks": ["aGVsbG8=", "", "AP8="] }));
        let written = node.call("fill", json!({ "count": 5000, "size": 33 }));
        let key = text(&opened["id"]);
        let fcore = stage.fcore("store");
        let peer = format!("127.0.0.1:{}", node.listen());

        let mut run = fcore.start(["core", "replicate", &key, "--peer", &peer]);
        wait_length(&mut run, 5003);
        let live = node.call("append", json!({ "blocks": ["bGl2ZQ=="] }));
        wait_length(&mut run, 5004);
        run.interrupt();

        let info = fcore
            .run(["core", "info", &key])
            .expect_code(0)
            .event("core")
            .clone();
        assert_eq!(info["tree_hash"], live["treeHash"]);
        assert_eq!(number(&info["contiguous_length"]), 5004);
        assert_ne!(live["treeHash"], written["treeHash"]);
        assert_eq!(block(&fcore, &key, 2), [0, 255]);
        assert_eq!(block(&fcore, &key, 1), [0; 0]);
        assert_eq!(block(&fcore, &key, 5003), b"live");
    }
}

#[test]
fn node_and_fcore_take_turns_on_one_store() {
    // Goal: hypercore 10 reads what we put on disk, writes it on, and we go on from there.
    let stage = Stage::new();
    let fcore = stage.fcore("store");
    let created = fcore.run(["core", "create", "log"]).expect_code(0);
    let key = text(&created.event("core")["key"]);
    let mut length = 0;
    for turn in 0..3 {
        fcore
            .run_with(
                ["core", "append", "log", "--lines"],
                &*format!("ours {turn}\nmore\n"),
            )
            .expect_code(0);
        length += 2;
        let directory = stage.path("store").join("corestore");
        let (mut node, opened) = node_core(Tree::Legacy, &directory, json!({ "key": key }));
        assert_eq!(number(&opened["length"]), length);
        assert_eq!(
            opened["writable"], true,
            "the pair follows from the header's name"
        );
        let last = node.call("get", json!({ "index": length - 2 }));
        assert_eq!(last["base64"], base64(turn));
        let grown = node.call("append", json!({ "blocks": ["AP8="] }));
        node.call("close", json!({}));
        drop(node);
        length += 1;
        let info = fcore.run(["core", "info", "log"]).expect_code(0);
        assert_eq!(info.event("core")["tree_hash"], grown["treeHash"]);
        assert_eq!(block(&fcore, "log", length - 1), [0, 255]);
    }
}

/// What `ours N` is in base64.
fn base64(turn: u64) -> &'static str {
    ["b3VycyAw", "b3VycyAx", "b3VycyAy"][turn as usize]
}

fn node_core(tree: Tree, storage: &Path, which: Value) -> (Peer, Value) {
    let mut node = Peer::start(tree, Role::Core, storage);
    let opened = node.call("open", which);
    (node, opened)
}

#[track_caller]
fn wait_length(run: &mut ferrocore_interop_tests::fcore::Run, length: u64) {
    run.wait_for("the synced length", |event| {
        event["event"] == "synced" && event["length"].as_u64() >= Some(length)
    });
}

#[track_caller]
fn block(fcore: &Fcore, key: &str, index: u64) -> Vec<u8> {
    fcore
        .run(["core", "get", key, &index.to_string()])
        .expect_code(0)
        .stdout
}
