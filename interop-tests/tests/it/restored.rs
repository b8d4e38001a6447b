//! A writer whose store was lost, and brought back from its 24 words, while Node holds its log.
//!
//! Method: Node has all blocks; the store is deleted and recovered; in the end both have the same tree,
//! which begins with what Node had.
#![cfg(unix)]

use ferrocore_interop_tests::fcore::{Fcore, Run};
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;
use tempfile::TempDir;

/// Blocks that Node has.
const LENGTH: u64 = 300;

#[test]
fn a_recovered_writer_goes_on_behind_what_node_has() {
    for tree in Tree::ALL {
        for cut in [false, true] {
            let scratch = tempfile::tempdir().unwrap();
            let (fcore, mut node) = lost_and_recovered(tree, cut, &scratch);
            let before = node.call("info", json!({}));
            assert_eq!(before["fork"], u64::from(cut));
            let length = before["length"].as_u64().unwrap();
            let refused = append(&fcore, "too early");
            assert_eq!(refused, Some(6));

            let mut run = connect(&fcore, &mut node);
            run.wait_for("the recovered length", |event| {
                event["event"] == "synced" && event["length"].as_u64() == Some(length)
            });
            let info = fcore.run(["core", "info", "log"]).expect_code(0);
            assert_eq!(info.event("core")["tree_hash"], before["treeHash"]);
            assert_eq!(info.event("core")["guarded"], false);

            assert_eq!(append(&fcore, "goes on"), Some(0));
            node.call("reach", json!({ "length": length + 1 }));
            let after = node.call("download", json!({ "start": 0, "end": length + 1 }));
            let info = fcore.run(["core", "info", "log"]).expect_code(0);
            assert_eq!(info.event("core")["tree_hash"], after["treeHash"]);
            assert_eq!(
                (&after["fork"], &after["conflicts"]),
                (&before["fork"], &json!(0))
            );
            let block = fcore.run(["core", "get", "log", &length.to_string()]);
            assert_eq!(block.expect_code(0).stdout, b"goes on");
            run.terminate();
        }
    }
}

/// Goal: a writer that has all that Node has is freed by Node's signed tree. Method: the words are brought into the
/// store once more, which guards the log anew.
#[test]
fn node_proves_to_a_writer_that_lacks_nothing() {
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (fcore, mut node) = lost_and_recovered(tree, false, &scratch);
        let mut run = connect(&fcore, &mut node);
        run.wait_for("the recovered length", |event| {
            event["event"] == "synced" && event["length"].as_u64() == Some(LENGTH)
        });
        run.terminate();
        let words = fcore.run(["key", "backup"]).expect_code(0).stdout;
        let recover = ["key", "recover", "--core", "log"];
        fcore.run_with(recover, words).expect_code(0);
        assert_eq!(append(&fcore, "too early"), Some(6));
        let info = fcore.run(["core", "info", "log"]).expect_code(0);
        assert_eq!(info.event("core")["length"].as_u64(), Some(LENGTH));

        let address = format!("127.0.0.1:{}", node.listen());
        let append = ["core", "append", "log", "--peer", &address];
        fcore.run_with(append, "goes on").expect_code(0);
        let info = fcore.run(["core", "info", "log"]).expect_code(0);
        assert_eq!(info.event("core")["guarded"], false);
        assert_eq!(info.event("core")["length"].as_u64(), Some(LENGTH + 1));
    }
}

/// A log that Node has whole, and its writer's store after it was lost and recovered.
#[track_caller]
fn lost_and_recovered(tree: Tree, cut: bool, scratch: &TempDir) -> (Fcore, Peer) {
    let fcore = Fcore::new(scratch.path().join("store"));
    let created = fcore.run(["core", "create", "log"]).expect_code(0);
    let key = created.event("core")["key"].clone();
    let lines = "line\n".repeat(LENGTH.try_into().unwrap());
    let append = ["core", "append", "log", "--lines"];
    fcore.run_with(append, lines).expect_code(0);
    let mut node = Peer::start(tree, Role::Core, &scratch.path().join("node"));
    node.call("open", json!({ "key": key }));
    let run = connect(&fcore, &mut node);
    node.call("reach", json!({ "length": LENGTH }));
    node.call("download", json!({ "start": 0, "end": LENGTH }));
    if cut {
        let truncate = ["core", "truncate", "log", "123", "--yes"];
        fcore.run(truncate).expect_code(0);
        node.wait_event("truncate");
    }
    run.terminate();

    let words = fcore.run(["key", "backup"]).expect_code(0).stdout;
    std::fs::remove_dir_all(fcore.store()).unwrap();
    let recover = ["key", "recover", "--core", "log"];
    fcore.run_with(recover, words).expect_code(0);
    (fcore, node)
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
fn append(fcore: &Fcore, block: &str) -> Option<i32> {
    fcore.run_with(["core", "append", "log"], block).code
}
