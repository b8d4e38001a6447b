//! Killed in the middle, run again: only what was missing crosses the wire, and the end is equal.

use std::path::{Path, PathBuf};

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::folder::{self, Snapshot};
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::tap::Tap;
use serde_json::json;

use crate::live::{Shared, Stage, get, number, text};

const FILES: usize = 80;
const FILE_BYTES: usize = 500_000;
/// The transfer is stopped here, half way.
const HELD_BYTES: u64 = (FILES * FILE_BYTES / 2) as u64;
/// A resumed run may fetch what was missing, and what was in flight between sockets when it was stopped.
const RESUMED_BYTES_MAX: u64 = HELD_BYTES * 3 / 2;

#[test]
fn a_killed_get_resumes() {
    let stage = Stage::new();
    let (source, target) = (bulk(&stage), stage.path("target"));
    let shared = Shared::start(&stage.fcore("store"), &source);
    let reader = stage.fcore("reader");
    let tap = Tap::holding_after(shared.port, HELD_BYTES);
    let run = reader.start(get(&shared.key, &target, tap.port(), &[]));
    tap.wait_holding();
    run.kill();

    assert_resumes(&stage, &reader, (&shared.key, shared.port), &source);
}

#[test]
fn a_get_whose_share_is_killed_ends_with_4_and_resumes() {
    let stage = Stage::new();
    let (source, target) = (bulk(&stage), stage.path("target"));
    let (sharer, reader) = (stage.fcore("store"), stage.fcore("reader"));
    let shared = Shared::start(&sharer, &source);
    let tap = Tap::holding_after(shared.port, HELD_BYTES);
    let run = reader.start(get(&shared.key, &target, tap.port(), &["--timeout", "5s"]));
    tap.wait_holding();
    shared.run.kill();
    tap.cut();
    run.finish().expect_code(4);

    let again = Shared::start(&sharer, &source);
    assert_eq!(again.key, shared.key, "a killed share continues its drive");
    assert_eq!(again.version, shared.version, "and nothing changed");
    assert_resumes(&stage, &reader, (&again.key, again.port), &source);
}

#[test]
fn a_get_goes_on_by_itself_when_its_killed_share_is_back() {
    let stage = Stage::new();
    let (source, target) = (bulk(&stage), stage.path("target"));
    let (sharer, reader) = (stage.fcore("store"), stage.fcore("reader"));
    let shared = Shared::start(&sharer, &source);
    let tap = Tap::holding_after(shared.port, HELD_BYTES);
    let run = reader.start(get(&shared.key, &target, tap.port(), &[]));
    tap.wait_holding();
    shared.run.kill();
    let again = Shared::start_at(&sharer, &source, shared.port);
    assert_eq!((again.key, again.version), (shared.key, shared.version));
    tap.release(); // the end of the first connection, and a second one

    let finished = run.finish().expect_code(0);
    let done = finished.event("done");
    assert_eq!(
        number(&done["blocks_have"]),
        0,
        "it is the same run: {done}"
    );
    let (passed, all) = (tap.passed(), (FILES * FILE_BYTES) as u64);
    assert!(passed > all, "all of it came: {passed}");
    assert!(passed < HELD_BYTES + RESUMED_BYTES_MAX, "{passed} bytes");
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn a_get_whose_node_peer_is_killed_resumes() {
    for tree in Tree::ALL {
        assert_resumes_after_node(tree);
    }
}

fn assert_resumes_after_node(tree: Tree) {
    let stage = Stage::new();
    let (source, target) = (bulk(&stage), stage.path("target"));
    let (mut node, opened) = stage.node_drive(tree, "node", None);
    let key = text(&opened["id"]);
    node.call("import", json!({ "dir": source }));
    let reader = stage.fcore("reader");
    let tap = Tap::holding_after(node.listen(), HELD_BYTES);
    let run = reader.start(get(&key, &target, tap.port(), &["--timeout", "5s"]));
    tap.wait_holding();
    node.kill();
    tap.cut();
    run.finish().expect_code(4);

    let (mut node, _) = stage.node_drive(tree, "node", Some(&key));
    let tap = Tap::to(node.listen());
    let resumed = reader
        .run(get(&key, &target, tap.port(), &[]))
        .expect_code(0);
    assert!(number(&resumed.event("done")["blocks_have"]) > 0);
    assert!(
        tap.passed() < RESUMED_BYTES_MAX,
        "{} bytes came again",
        tap.passed()
    );
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn a_killed_get_from_node_resumes() {
    for tree in Tree::ALL {
        let stage = Stage::new();
        let (source, target) = (bulk(&stage), stage.path("target"));
        let (mut node, opened) = stage.node_drive(tree, "node", None);
        let key = text(&opened["id"]);
        node.call("import", json!({ "dir": source }));
        let reader = stage.fcore("reader");
        let port = node.listen();
        let tap = Tap::holding_after(port, HELD_BYTES);
        let run = reader.start(get(&key, &target, tap.port(), &[]));
        tap.wait_holding();
        run.kill();

        assert_resumes(&stage, &reader, (&key, port), &source);
    }
}

#[test]
fn a_killed_node_reader_of_a_share_resumes() {
    for tree in Tree::ALL {
        assert_node_resumes(tree);
    }
}

fn assert_node_resumes(tree: Tree) {
    let stage = Stage::new();
    let (source, target) = (bulk(&stage), stage.path("target"));
    let shared = Shared::start(&stage.fcore("store"), &source);
    let tap = Tap::holding_after(shared.port, HELD_BYTES);
    let (mut node, _) = stage.node_drive(tree, "node", Some(&shared.key));
    node.connect(tap.port());
    node.call("reach", json!({ "version": shared.version }));
    let _unfinished = node.begin("download", json!({}));
    tap.wait_holding();
    node.kill();

    let tap = Tap::to(shared.port);
    let (mut node, _) = stage.node_drive(tree, "node", Some(&shared.key));
    node.connect(tap.port());
    node.call("reach", json!({ "version": shared.version }));
    node.call("export", json!({ "dir": target }));
    assert!(
        tap.passed() < RESUMED_BYTES_MAX,
        "{} bytes came again",
        tap.passed()
    );
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

#[test]
fn a_killed_import_continues() {
    // Goal: a share killed while it imports starts again without a second copy of what was stored.
    // Method: killed at its first `change`; the folder arrives whole all the same.
    let stage = Stage::new();
    let (source, target) = (bulk(&stage), stage.path("target"));
    let sharer = stage.fcore("store");
    let mut run = sharer.start([
        "share".as_ref(),
        source.as_os_str(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
    ]);
    run.wait_event("change");
    run.kill();

    let shared = Shared::start(&sharer, &source);
    stage
        .fcore("reader")
        .run(get(&shared.key, &target, shared.port, &[]))
        .expect_code(0);
    Snapshot::of(&source).assert_same(&Snapshot::of(&target));
}

/// A folder of `FILES * FILE_BYTES` bytes.
fn bulk(stage: &Stage) -> PathBuf {
    let dir = stage.path("source");
    std::fs::create_dir(&dir).unwrap();
    for i in 0..FILES {
        folder::write_random(&dir.join(format!("{i:02}")), FILE_BYTES, 1 + i as u64);
    }
    dir
}

/// `reader`, run again, fetches exactly the blocks it lacks, by its own count and by the wire's, and its folder becomes `source`.
#[track_caller]
fn assert_resumes(stage: &Stage, reader: &Fcore, (key, port): (&str, u16), source: &Path) {
    let (target, tap) = (stage.path("target"), Tap::to(port));
    let resumed = reader
        .run(get(key, &target, tap.port(), &[]))
        .expect_code(0);
    let whole = stage
        .fcore("other")
        .run(get(key, &stage.path("other-target"), port, &[]))
        .expect_code(0);
    let (done, all) = (resumed.event("done"), whole.event("done"));
    let (have, fetched) = (
        number(&done["blocks_have"]),
        number(&done["blocks_fetched"]),
    );
    assert!(have > 0, "the first run left nothing: {done}");
    assert_eq!(
        have + fetched,
        number(&all["blocks_fetched"]),
        "blocks are counted once: {done}"
    );
    let passed = tap.passed();
    assert!(passed < RESUMED_BYTES_MAX, "{passed} bytes came again");
    Snapshot::of(source).assert_same(&Snapshot::of(&target));
}
