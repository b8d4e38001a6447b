//! What changes at one side while both run arrives at the other.

use std::fs;
use std::path::Path;

use ferrocore_interop_tests::fcore::Run;
use ferrocore_interop_tests::folder;
use ferrocore_interop_tests::node::Tree;
use serde_json::json;

use crate::live::{Shared, Stage, get, number, text};

#[test]
fn a_file_added_to_a_shared_folder_arrives_at_node() {
    let stage = Stage::new();
    let source = stage.few_files("source");
    let mut shared = Shared::start(&stage.fcore("store"), &source);
    let (mut node, _) = stage.node_drive(Tree::Current, "node", Some(&shared.key));
    node.connect(shared.port);
    node.call("reach", json!({ "version": shared.version }));

    folder::write(&source, "late/news", b"news");
    let version = wait_version(&mut shared.run, shared.version + 1);
    node.call("reach", json!({ "version": version }));
    assert_eq!(
        node.call("get", json!({ "path": "/late/news" }))["base64"],
        "bmV3cw=="
    );

    fs::remove_file(source.join("late/news")).unwrap();
    let version = wait_version(&mut shared.run, version + 1);
    node.call("reach", json!({ "version": version }));
    assert_eq!(
        node.call("entry", json!({ "path": "/late/news" })),
        json!(null)
    );
}

#[test]
fn a_file_added_at_node_arrives_at_a_live_get() {
    for tree in Tree::ALL {
        let stage = Stage::new();
        let (mut node, opened) = stage.node_drive(tree, "node", None);
        let first = node.call("put", json!({ "path": "/first", "text": "1" }));
        let target = stage.path("target");
        let port = node.listen();
        let mut run =
            stage
                .fcore("store")
                .start(get(&text(&opened["id"]), &target, port, &["--live"]));
        wait_synced(&mut run, number(&first["version"]));
        assert_eq!(read(&target, "first"), "1");

        let second = node.call(
            "put",
            json!({ "path": "/second", "text": "2", "executable": true }),
        );
        wait_synced(&mut run, number(&second["version"]));
        assert_eq!(read(&target, "second"), "2");

        let changed = node.call("put", json!({ "path": "/first", "text": "one" }));
        wait_synced(&mut run, number(&changed["version"]));
        assert_eq!(read(&target, "first"), "one");
    }
}

#[test]
fn a_live_get_follows_a_share_through_an_interruption_of_the_peer() {
    // Goal: both ends ours; the server ends cleanly and comes back on the same port with news.
    let stage = Stage::new();
    let (source, target) = (stage.few_files("source"), stage.path("target"));
    let store = stage.fcore("store");
    let shared = Shared::start(&store, &source);
    let mut reader =
        stage
            .fcore("reader")
            .start(get(&shared.key, &target, shared.port, &["--live"]));
    wait_synced(&mut reader, shared.version);

    let ended = shared.run.terminate();
    assert!(
        matches!(ended.code, Some(0 | 130)),
        "a clean end, not {:?}: {}",
        ended.code,
        ended.stderr
    );
    folder::write(&source, "while away", b"news");
    let address = format!("127.0.0.1:{}", shared.port);
    let mut again = store.start([
        "share".as_ref(),
        source.as_os_str(),
        "--listen".as_ref(),
        address.as_ref(),
    ]);
    let (_, ready) = again.wait_ready();
    assert_eq!(
        text(&ready["key"]),
        shared.key,
        "the same folder continues the same drive"
    );
    wait_synced(&mut reader, number(&ready["version"]));
    assert_eq!(read(&target, "while away"), "news");
}

/// Waits until `share` reports at least this version, and returns the one it reports.
#[track_caller]
fn wait_version(run: &mut Run, version: u64) -> u64 {
    let at_least = |event: &serde_json::Value| event["seq"].as_u64() >= Some(version);
    let event = run.wait_for("the new version", |event| {
        event["event"] == "version" && at_least(event)
    });
    number(&event["seq"])
}

#[track_caller]
fn wait_synced(run: &mut Run, version: u64) {
    run.wait_for("the synced version", |event| {
        event["event"] == "synced" && event["version"].as_u64() >= Some(version)
    });
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}
