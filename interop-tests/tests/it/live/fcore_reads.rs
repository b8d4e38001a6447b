//! `fcore` reads what Node serves.

use ferrocore_interop_tests::folder::{self, Snapshot};
use ferrocore_interop_tests::node::{self, Tree};
use serde_json::json;

use crate::live::{Stage, get, number, text};

#[test]
fn get_fetches_thousands_of_files_from_each_hyperdrive() {
    let stage = Stage::new();
    let source = stage.real_files("source");
    let expected = Snapshot::of(&source);
    for tree in Tree::ALL {
        let (mut node, opened) = stage.node_drive(tree, &format!("{tree:?}-store"), None);
        assert_eq!(
            opened["compat"],
            tree == Tree::Legacy,
            "one drive of each kind"
        );
        let imported = node.call("import", json!({ "dir": source }));
        let target = stage.path(&format!("{tree:?}"));
        let key = text(&opened["id"]);
        let fcore = stage.fcore(&format!("{tree:?}-fcore"));
        let port = node.listen();

        let first = fcore.run(get(&key, &target, port, &[])).expect_code(0);
        expected.assert_same(&Snapshot::of(&target));
        let done = first.event("done");
        assert_eq!(done["version"], imported["version"]);
        assert_eq!(number(&done["bytes"]), expected.bytes());
        assert_eq!(number(&done["blocks_have"]), 0);

        let second = fcore.run(get(&key, &target, port, &[])).expect_code(0);
        assert_eq!(
            number(&second.event("done")["blocks_fetched"]),
            0,
            "everything was here"
        );
        expected.assert_same(&Snapshot::of(&target));
    }
}

#[test]
fn get_fetches_what_the_drives_command_line_made() {
    // Goal: a drive in the wild: made by the published command line, its blobs key in the header.
    let stage = Stage::new();
    let (source, target) = (stage.few_files("source"), stage.path("target"));
    let key = node::make_drive_with_drives(&source, &stage.path("drives"));
    let (mut node, opened) = stage.node_drive(Tree::Legacy, "drives/corestore", Some(&key));
    assert_eq!(opened["compat"], true);
    let port = node.listen();
    stage
        .fcore("store")
        .run(get(&key, &target, port, &[]))
        .expect_code(0);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn get_takes_a_part_and_an_old_version() {
    let stage = Stage::new();
    let (mut node, opened) = stage.node_drive(Tree::Current, "node", None);
    let key = text(&opened["id"]);
    let old = node.call("put", json!({ "path": "/docs/a.txt", "text": "old" }));
    node.call("put", json!({ "path": "/docs/a.txt", "text": "newer" }));
    node.call(
        "put",
        json!({ "path": "/other/large", "text": "x".repeat(1_000_000) }),
    );
    let port = node.listen();

    let part = stage.path("part");
    let done = stage
        .fcore("part-store")
        .run(get(&key, &part, port, &["--path", "/docs/**"]))
        .expect_code(0);
    assert!(
        number(&done.event("done")["bytes_fetched"]) < 100_000,
        "only the part is fetched"
    );
    let mut expected = stage.path("expected-part");
    folder::write(&expected, "docs/a.txt", b"newer");
    Snapshot::of(&expected).assert_same(&Snapshot::of(&part));

    let (at, version) = (stage.path("at"), old["version"].to_string());
    stage
        .fcore("at-store")
        .run(get(&key, &at, port, &["--at", &version]))
        .expect_code(0);
    expected = stage.path("expected-at");
    folder::write(&expected, "docs/a.txt", b"old");
    Snapshot::of(&expected).assert_same(&Snapshot::of(&at));
}

#[test]
fn get_keeps_a_local_file_it_did_not_write() {
    let stage = Stage::new();
    let (mut node, opened) = stage.node_drive(Tree::Current, "node", None);
    let key = text(&opened["id"]);
    node.call("put", json!({ "path": "/mine", "text": "theirs" }));
    node.call("put", json!({ "path": "/other", "text": "other" }));
    let port = node.listen();
    let (target, expected) = (stage.path("target"), stage.path("expected"));
    folder::write(&target, "mine", b"written here");

    let fcore = stage.fcore("store");
    let kept = fcore.run(get(&key, &target, port, &[])).expect_code(8);
    assert_eq!(kept.event("skipped")["path"], "mine");
    folder::write(&expected, "mine", b"written here");
    folder::write(&expected, "other", b"other");
    Snapshot::of(&expected).assert_same(&Snapshot::of(&target));

    fcore
        .run(get(&key, &target, port, &["--overwrite"]))
        .expect_code(0);
    folder::write(&expected, "mine", b"theirs");
    Snapshot::of(&expected).assert_same(&Snapshot::of(&target));
}
