//! A core whose writer truncates it, between Node and `fcore`, in both directions.
//!
//! Method: a connected reader has everything; the writer cuts its log and appends; in the end both
//! tree hashes and the blocks around the cut are equal.
#![cfg(unix)]

use ferrocore_interop_tests::fcore::{Fcore, Run};
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Blocks before the cut.
const LENGTH: u64 = 300;

#[test]
fn fcore_follows_a_node_that_truncates() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut node = Peer::start(tree, Role::Core, &scratch.path().join("node"));
        let opened = node.call("open", json!({ "name": "log" }));
        let key = opened["id"].as_str().unwrap().to_owned();
        node.call("fill", json!({ "count": LENGTH, "size": 20 }));
        let fcore = Fcore::new(scratch.path().join("store"));
        let peer = format!("127.0.0.1:{}", node.listen());
        let mut run = fcore.start(["core", "replicate", &key, "--peer", &peer]);
        wait_synced(&mut run, LENGTH);

        // Shorter, then longer than before; another cut on top.
        node.call("truncate", json!({ "length": 130 }));
        node.call("append", json!({ "blocks": ["bmV3"] }));
        wait_synced(&mut run, 131);
        node.call("truncate", json!({ "length": 7 }));
        let written = node.call("fill", json!({ "count": LENGTH, "size": 30 }));
        wait_synced(&mut run, LENGTH + 7);
        run.interrupt();
        assert_eq!(written["fork"], 2);
        assert_same(
            &fcore,
            &key,
            &written,
            &[(6, vec![6; 20]), (7, vec![7; 30])],
        );
    }
}

#[test]
fn node_follows_an_fcore_that_truncates() {
    for tree in Tree::ALL {
        for have in [0, 40, LENGTH] {
            let scratch = tempfile::tempdir().unwrap();
            let (fcore, run, mut node) = complete_to(have, tree, &scratch);
            cut(&fcore);
            // Hypercore 10 is lost if it meets the appended blocks together with the cut, whoever
            // serves them.
            assert_eq!(node.wait_event("truncate")["fork"], 1);
            append(&fcore, LENGTH, "new");
            assert_followed(&fcore, &mut node);
            run.terminate();
        }
    }
}

#[test]
fn node_comes_back_to_an_fcore_that_has_truncated() {
    for have in [0, 40, LENGTH] {
        let scratch = tempfile::tempdir().unwrap();
        let (fcore, run, mut node) = complete_to(have, Tree::Current, &scratch);
        run.terminate();
        cut(&fcore);
        append(&fcore, LENGTH, "new");
        let run = connect(&fcore, &mut node);
        assert_eq!(node.wait_event("truncate")["fork"], 1);
        assert_followed(&fcore, &mut node);
        run.terminate();
    }
}

/// A log that `fcore` serves, and a connected Node with its first `have` blocks.
#[track_caller]
fn complete_to(have: u64, tree: Tree, scratch: &TempDir) -> (Fcore, Run, Peer) {
    let fcore = Fcore::new(scratch.path().join("store"));
    let created = fcore.run(["core", "create", "log"]).expect_code(0);
    let key = created.event("core")["key"].clone();
    append(&fcore, LENGTH, "old");
    let mut node = Peer::start(tree, Role::Core, &scratch.path().join("node"));
    node.call("open", json!({ "key": key }));
    let run = connect(&fcore, &mut node);
    node.call("reach", json!({ "length": LENGTH }));
    node.call("download", json!({ "start": 0, "end": have }));
    (fcore, run, node)
}

#[track_caller]
fn cut(fcore: &Fcore) {
    fcore
        .run(["core", "truncate", "log", "33", "--yes"])
        .expect_code(0);
}

#[track_caller]
fn assert_followed(fcore: &Fcore, node: &mut Peer) {
    let length = LENGTH + 33;
    node.call("reach", json!({ "length": length }));
    let read = node.call("download", json!({ "start": 0, "end": length }));
    let around = [(32, b"old".to_vec()), (33, b"new".to_vec())];
    assert_same(fcore, "log", &read, &around);
}

/// Serves the log and connects `node` to it.
#[track_caller]
fn connect(fcore: &Fcore, node: &mut Peer) -> Run {
    let mut run = fcore.start(["core", "replicate", "log", "--listen", "127.0.0.1:0"]);
    let (port, _) = run.wait_ready();
    node.connect(port);
    run
}

#[track_caller]
fn append(fcore: &Fcore, count: u64, line: &str) {
    let lines = format!("{line}\n").repeat(count.try_into().unwrap());
    fcore
        .run_with(["core", "append", "log", "--lines"], lines)
        .expect_code(0);
}

#[track_caller]
fn wait_synced(run: &mut Run, length: u64) {
    run.wait_for("the synced length", |event| {
        event["event"] == "synced" && event["length"].as_u64() == Some(length)
    });
}

/// Whether `fcore` holds the core as `node` describes it, with these blocks.
#[track_caller]
fn assert_same(fcore: &Fcore, core: &str, node: &Value, blocks: &[(u64, Vec<u8>)]) {
    let info = fcore.run(["core", "info", core]).expect_code(0);
    let info = info.event("core");
    assert_eq!(info["tree_hash"], node["treeHash"]);
    assert_eq!(info["length"], node["length"]);
    assert_eq!(info["contiguous_length"], node["contiguousLength"]);
    for (index, expected) in blocks {
        let block = fcore.run(["core", "get", core, &index.to_string()]);
        assert_eq!(block.expect_code(0).stdout, *expected, "block {index}");
    }
}
