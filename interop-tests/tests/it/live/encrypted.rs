//! Encrypted drives cross in both directions, with either way of deriving the block key.

use ferrocore_interop_tests::folder::Snapshot;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::json;

use crate::live::{Stage, get, number, os, text};

const SECRET: &str = "6666666666666666666666666666666666666666666666666666666666666666";

#[test]
fn get_decrypts_what_each_hyperdrive_encrypted() {
    let stage = Stage::new();
    let source = stage.few_files("source");
    for tree in Tree::ALL {
        let mut node = Peer::start(tree, Role::Drive, &stage.path(&format!("{tree:?}-store")));
        let opened = node.call("open", json!({ "encryptionKey": SECRET }));
        assert_eq!(
            opened["compat"],
            tree == Tree::Legacy,
            "one drive of each kind"
        );
        node.call("import", json!({ "dir": source }));
        let key = text(&opened["id"]);
        let target = stage.path(&format!("{tree:?}"));
        let fcore = stage.fcore(&format!("{tree:?}-fcore"));
        let port = node.listen();

        fcore.run(get(&key, &target, port, &[])).expect_code(6);
        let link = format!("hyper://{key}#{SECRET}");
        fcore.run(get(&link, &target, port, &[])).expect_code(0);
        Snapshot::of(&source).assert_same(&Snapshot::of(&target));
        let second = fcore.run(get(&key, &target, port, &[])).expect_code(0);
        assert_eq!(number(&second.event("done")["blocks_fetched"]), 0);
    }
}

#[test]
fn each_hyperdrive_decrypts_what_fcore_shares() {
    let stage = Stage::new();
    let source = stage.few_files("source");
    let mut share = stage.fcore("store").start([
        &os("share"),
        source.as_os_str(),
        &os("--encrypt"),
        &os("--listen"),
        &os("127.0.0.1:0"),
    ]);
    let (port, ready) = share.wait_ready();
    let link = text(&ready["link"]);
    let (_, secret) = link.split_once('#').expect("the link has the key");
    for tree in Tree::ALL {
        let mut node = Peer::start(tree, Role::Drive, &stage.path(&format!("{tree:?}-store")));
        node.call(
            "open",
            json!({ "key": ready["key"], "encryptionKey": secret }),
        );
        node.connect(port);
        node.call("reach", json!({ "version": ready["version"] }));
        let part = node.call(
            "get",
            json!({ "path": "/several blocks", "start": 70_000, "end": 70_009 }),
        );
        assert_eq!(text(&part["base64"]).len(), 16, "ten bytes");
        let target = stage.path(&format!("{tree:?}"));
        node.call("export", json!({ "dir": target }));
        Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    }
    share.interrupt().expect_code(0);
}
