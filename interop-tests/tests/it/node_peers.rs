//! The harness itself: Node peers talk to each other, in each npm tree and across the two, before
//! anything of ours joins. What fails here is not ferrocore's fault.
#![cfg(unix)]

use std::fs;

use ferrocore_interop_tests::folder::{self, Snapshot};
use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_interop_tests::tap::Tap;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Writer and reader trees; the legacy reader of a current core is the harder direction.
const PAIRS: [(Tree, Tree); 4] = [
    (Tree::Current, Tree::Current),
    (Tree::Legacy, Tree::Legacy),
    (Tree::Legacy, Tree::Current),
    (Tree::Current, Tree::Legacy),
];

#[test]
fn a_core_is_read_with_the_same_tree_hash() {
    // Goal: blocks, seeks and live appends cross; both kinds of core. Method: equal tree hashes.
    for (writer_tree, reader_tree) in PAIRS {
        let scratch = tempfile::tempdir().unwrap();
        let (mut writer, written, mut reader, opened) =
            pair(Role::Core, writer_tree, reader_tree, &scratch);
        assert_eq!(
            written["compat"],
            writer_tree == Tree::Legacy,
            "legacy writers make compat cores"
        );
        assert_eq!(opened["writable"], false);

        writer.call("append", json!({ "blocks": ["aGVsbG8=", "", "d29ybGQ="] }));
        reader.call("reach", json!({ "length": 3 }));
        assert_eq!(
            reader.call("get", json!({ "index": 2 }))["base64"],
            "d29ybGQ="
        );
        assert_eq!(
            reader.call("seek", json!({ "bytes": 6 })),
            json!({ "index": 2, "offset": 1 })
        );

        let live = writer.call("fill", json!({ "count": 2500, "size": 10 }));
        reader.call("reach", json!({ "length": 2503 }));
        let read = reader.call("download", json!({}));
        assert_eq!(read["treeHash"], live["treeHash"]);
        assert_eq!(read["contiguousLength"], 2503);
    }
}

#[test]
fn a_bee_is_read_with_the_same_entries() {
    for (writer_tree, reader_tree) in PAIRS {
        let scratch = tempfile::tempdir().unwrap();
        let (mut writer, _, mut reader, _) = pair(Role::Bee, writer_tree, reader_tree, &scratch);
        let items: Vec<Value> = (0..100)
            .map(|i| json!({ "key": format!("k{i:03}"), "value": i.to_string() }))
            .collect();
        writer.call("batch", json!({ "items": items }));
        writer.call("put", json!({ "key": "k007", "value": "agent" }));
        let written = writer.call("del", json!({ "key": "k008" }));

        reader.call("reach", json!({ "version": written["version"] }));
        let range = reader.call("range", json!({ "gte": "k007", "lt": "k010" }));
        let pairs: Vec<_> = range
            .as_array()
            .unwrap()
            .iter()
            .map(|node| (&node["key"], &node["value"]))
            .collect();
        assert_eq!(
            pairs,
            [
                (&json!("k007"), &json!("agent")),
                (&json!("k009"), &json!("9"))
            ]
        );
        assert_eq!(reader.call("get", json!({ "key": "k008" })), Value::Null);
    }
}

#[test]
fn a_folder_goes_through_a_drive_unharmed() {
    // Goal: import, live put, export. Method: the folder at the end equals the one at the start.
    for (writer_tree, reader_tree) in PAIRS {
        let scratch = tempfile::tempdir().unwrap();
        let (source, target) = (scratch.path().join("source"), scratch.path().join("target"));
        folder::copy(
            &Tree::Current.dir().join("node_modules/hypercore"),
            &source,
            u64::MAX,
        );
        folder::write_odd_names(&source);
        let (mut writer, _, mut reader, _) = pair(Role::Drive, writer_tree, reader_tree, &scratch);

        let imported = writer.call("import", json!({ "dir": source }));
        reader.call("reach", json!({ "version": imported["version"] }));
        reader.call("export", json!({ "dir": target }));
        Snapshot::of(&source).assert_same(&Snapshot::of(&target));

        let added = writer.call(
            "put",
            json!({ "path": "/late/file", "text": "news", "executable": true }),
        );
        let seen = reader.wait_event("version");
        assert!(seen["version"].as_u64() <= added["version"].as_u64());
        reader.call("reach", json!({ "version": added["version"] }));
        reader.call("export", json!({ "dir": target }));
        assert_eq!(fs::read(target.join("late/file")).unwrap(), b"news");
    }
}

#[test]
fn the_drives_command_line_makes_a_drive_that_both_trees_read() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, storage) = (
        scratch.path().join("source"),
        scratch.path().join("storage"),
    );
    folder::write_odd_names(&source);
    let key = node::make_drive_with_drives(&source, &storage);

    let mut writer = Peer::start(Tree::Legacy, Role::Drive, &storage.join("corestore"));
    let written = writer.call("open", json!({ "key": key }));
    assert_eq!(written["compat"], true);
    let port = writer.listen();
    for reader in Tree::ALL {
        let (target, storage) = (
            scratch.path().join(format!("{reader:?}")),
            scratch.path().join(format!("{reader:?}-store")),
        );
        let mut reader = Peer::start(reader, Role::Drive, &storage);
        reader.call("open", json!({ "key": key }));
        reader.connect(port);
        reader.call("reach", json!({ "version": written["version"] }));
        reader.call("export", json!({ "dir": target }));
        Snapshot::of(&source).assert_same(&Snapshot::of(&target));
    }
}

#[test]
fn a_held_transfer_survives_a_kill() {
    // Goal: the tap holds in the middle, a killed reader resumes from its store. Method: the second
    // run transfers less than the whole.
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = Peer::start(Tree::Current, Role::Core, &scratch.path().join("writer"));
    let key = writer.call("open", json!({ "name": "core" }))["key"].clone();
    writer.call("fill", json!({ "count": 400, "size": 10_000 }));
    let port = writer.listen();

    let tap = Tap::holding_after(port, 2_000_000);
    let reader = start_download(&key, tap.port(), &scratch);
    tap.wait_holding();
    reader.0.kill();

    let tap = Tap::to(port);
    let (mut reader, download) = start_download(&key, tap.port(), &scratch);
    assert_eq!(reader.finish(download)["contiguousLength"], 400);
    assert!(
        tap.passed() < 3_000_000,
        "the second run fetched {} bytes of 4,000,000",
        tap.passed()
    );
}

#[test]
fn a_failed_command_is_an_error_and_a_cut_connection_an_event() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = Peer::start(Tree::Current, Role::Core, &scratch.path().join("writer"));
    let call = writer.begin("no-such-command", json!({}));
    assert_eq!(
        writer.try_finish(&call),
        Err("no such command: no-such-command".to_owned())
    );

    let tap = Tap::to(writer.listen());
    let mut reader = Peer::start(Tree::Current, Role::Core, &scratch.path().join("reader"));
    reader.connect(tap.port());
    writer.wait_event("connected");
    tap.cut();
    writer.wait_event("disconnected");
    reader.wait_event("disconnected");
}

/// A writer and a connected reader of what it made, each with what `open` answered.
fn pair(role: Role, writer: Tree, reader: Tree, scratch: &TempDir) -> (Peer, Value, Peer, Value) {
    let mut writer = Peer::start(writer, role, &scratch.path().join("writer"));
    let mut reader = Peer::start(reader, role, &scratch.path().join("reader"));
    let written = writer.call("open", json!({ "name": "test" }));
    let opened = reader.call("open", json!({ "key": written["key"] }));
    reader.connect(writer.listen());
    (writer, written, reader, opened)
}

fn start_download(
    key: &Value,
    port: u16,
    scratch: &TempDir,
) -> (Peer, ferrocore_interop_tests::peer::Call) {
    let mut reader = Peer::start(Tree::Current, Role::Core, &scratch.path().join("reader"));
    reader.call("open", json!({ "key": key }));
    reader.connect(port);
    reader.call("reach", json!({ "length": 400 }));
    let download = reader.begin("download", json!({}));
    (reader, download)
}
